//! Attentions of ONNX Runtime, with the projections, caches and masks that they take in.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
//!
//! Not here: the standard's (`attention.rs`).

use super::quantized::{Steps, inputs};
use crate::graph::{
    Attention, Dim, Function, Mask, MatMul, Op, Orientation, Range, Shape, Stated, Storage,
    TensorType,
};
use crate::import::onnx::call::{Call, Plan, Source};

type Results = Result<Vec<Option<TensorType>>, String>;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "Attention" => projected(call, [2, 3, 5, 4]),
        "QAttention" => projected(call, [2, 5, usize::MAX, 8]),
        "DecoderMaskedSelfAttention" => projected(call, [2, 3, 5, 4]),
        "LongformerAttention" => Err(
            "how many global tokens it has, which see and are seen by all, is decided at run time"
                .to_owned(),
        ),
        "MultiHeadAttention" => heads(call).and_then(|heads| apart(call, &heads)),
        "DecoderMaskedMultiHeadAttention" => heads(call).and_then(|heads| apart(call, &heads)),
        "GroupQueryAttention" => heads(call).and_then(|heads| apart(call, &heads)),
        "PackedAttention"
        | "PackedMultiHeadAttention"
        | "PagedAttention"
        | "SparsePagedAttention" => {
            Err("how long each of its sequences is, and so how many pairs \
                                        of query and key there are, is decided at run time"
                .to_owned())
        }
        "SparseAttention" | "DynamicSparseAttention" => {
            Err("which blocks of keys a query sees is decided at run time".to_owned())
        }
        "DecoderAttention" => {
            Err("whether it reads a cache is decided at run time by its inputs".to_owned())
        }
        _ => return None,
    })
}

pub(super) fn results(call: &Call) -> Results {
    match call.operator() {
        "Attention" | "QAttention" | "DecoderMaskedSelfAttention" => projected_results(call),
        "MultiHeadAttention" | "DecoderMaskedMultiHeadAttention" | "GroupQueryAttention" => {
            separate_results(call)
        }
        "SparseAttention" | "PagedAttention" => Ok(vec![Some(call.tensor_type(0)?.clone())]),
        "PackedMultiHeadAttention" => {
            let value = if call.has(2) { 2 } else { 0 };
            Ok(vec![(value == 2).then(|| call.tensor_type(2).cloned()).transpose()?])
        }
        _ => Ok(Vec::new()),
    }
}

fn n_heads(call: &Call, name: &str) -> Result<Dim, String> {
    let n_heads = call.int(name).filter(|n_heads| 0 < *n_heads);
    n_heads.map(Dim::from).ok_or_else(|| format!("`{name}` is missing"))
}

fn view(permutation: &[usize]) -> Op {
    Op::Transpose { permutation: permutation.to_vec(), storage: Storage::View }
}

/// One way to see part of an axis.
fn part(axis: usize, start: &Dim, length: &Dim) -> Op {
    let range = Range { axis, start: start.clone(), end: start + length, step: 1 };
    Op::Slice { ranges: vec![range], storage: Storage::View }
}

/// `[batch, length, heads*d]` -> `[batch, heads, length, d]`.
fn split_heads(steps: &mut Steps, from: Source, [b, s, n, d]: [&Dim; 4]) -> Source {
    let shape = Shape(vec![b.clone(), s.clone(), n.clone(), d.clone()]);
    let split = steps.then(Op::Reshape { shape }, &[from]);
    steps.then(view(&[0, 2, 1, 3]), &[split])
}

/// `[batch, heads, length, d]` -> `[batch, length, heads*d]`.
fn join_heads(steps: &mut Steps, from: Source, [b, s, n, d]: [&Dim; 4]) -> Source {
    let joined = steps.then(view(&[0, 2, 1, 3]), &[from]);
    let shape = Shape(vec![b.clone(), s.clone(), n * d]);
    steps.then(Op::Reshape { shape }, &[joined])
}

/// Sizes of an attention whose queries, keys and values have been projected before.
struct Heads {
    batch: Dim,
    queries: Dim,
    /// Of this run, without the past.
    keys: Dim,
    n_query: Dim,
    n_key: Dim,
    d_qk: Dim,
    d_v: Dim,
    /// Positions in the cache, filled before this run.
    past: Dim,
    /// Positions of keys and values that come out.
    total: Dim,
}

/// Where the inputs of each operator stand.
fn past_slot(call: &Call) -> usize {
    match call.operator() {
        "GroupQueryAttention" => 3,
        "DecoderMaskedMultiHeadAttention" => 5,
        _ => 6,
    }
}

fn heads(call: &Call) -> Result<Heads, String> {
    let query = call.shape(0)?;
    let n_query = n_heads(call, "num_heads")?;
    let is_grouped = call.operator() == "GroupQueryAttention";
    let n_key = if is_grouped { n_heads(call, "kv_num_heads")? } else { n_query.clone() };
    let (batch, queries) = match query {
        [batch, queries, ..] => (batch.clone(), queries.clone()),
        _ => return Err(format!("a query of {} axes", query.len())),
    };
    let (keys, d_qk, d_v) = match (query, call.shape(1).ok(), call.shape(2).ok()) {
        ([_, _, _, _, size], _, _) => (queries.clone(), size.clone(), size.clone()),
        // Queries, keys and values side by side in the last axis.
        ([_, _, width], None, _) => {
            let size = width.floor_div(&(&n_query + &(&n_key * &Dim::from(2i64))));
            (queries.clone(), size.clone(), size)
        }
        ([_, _, width], Some(key), value) => {
            let size = width.floor_div(&n_query);
            let keys = match key {
                [_, length, _] | [_, length, _, _, _] | [_, _, length, _] => length.clone(),
                _ => return Err(format!("a key of {} axes", key.len())),
            };
            let d_v = match value {
                Some([_, _, width]) => width.floor_div(&n_key),
                Some([_, _, _, size]) => size.clone(),
                _ => size.clone(),
            };
            (keys, size, d_v)
        }
        _ => return Err(format!("a query of {} axes", query.len())),
    };
    let length = |slot: usize| call.shape(slot).ok().and_then(|past| past.get(2).cloned());
    let given = length(past_slot(call));
    let mut past = given.clone().unwrap_or(Dim::ZERO);
    let mut total = &past + &keys;
    // A buffer as long as the cache ever gets, of which the run fills some more.
    if given.is_some() && call.is_set("past_present_share_buffer", false) {
        total = past.clone();
        past = (&past - &keys).maximum(&Dim::ZERO);
    } else if given.is_some() && is_grouped {
        let filled = call.value(6).and_then(|total| total.single()?.exact().cloned());
        if let Some(filled) = filled {
            total = past.maximum(&filled);
            past = (&filled - &keys).maximum(&Dim::ZERO);
        }
    }
    Ok(Heads { batch, queries, keys, n_query, n_key, d_qk, d_v, past, total })
}

fn separate_results(call: &Call) -> Results {
    let heads = heads(call)?;
    let width = &heads.n_query * &heads.d_v;
    let output = call.like(0, vec![heads.batch.clone(), heads.queries.clone(), width])?;
    let kept = |size: &Dim| {
        let lengths = [&heads.batch, &heads.n_key, &heads.total, size];
        let lengths = lengths.into_iter().cloned().collect();
        let past = past_slot(call);
        call.like(if call.has(past) { past } else { 0 }, lengths)
    };
    Ok(vec![Some(output), Some(kept(&heads.d_qk)?), Some(kept(&heads.d_v)?)])
}

/// Queries and keys side by side, or apart, turned by rotary embedding where the node does that.
fn apart(call: &Call, heads: &Heads) -> Plan {
    let mut steps = Steps::default();
    let Heads { batch, queries, keys, n_query, n_key, d_qk, d_v, .. } = heads;
    let sizes =
        [[batch, queries, n_query, d_qk], [batch, keys, n_key, d_qk], [batch, keys, n_key, d_v]];
    let bias = match call.operator() {
        "MultiHeadAttention" => 3,
        "DecoderMaskedMultiHeadAttention" => 10,
        _ => usize::MAX,
    };
    let mut operands = Vec::with_capacity(4);
    for (slot, [b, s, n, d]) in sizes.into_iter().enumerate() {
        let mut operand = match (call.rank(0)?, call.shape(slot).ok().filter(|_| call.has(slot))) {
            // `[batch, length, heads, 3, d]`
            (5, _) => packed(&mut steps, 0, slot, [b, s, n, d]),
            (_, Some([_, _, _, _, _])) => packed(&mut steps, 1, slot - 1, [b, s, n, d]),
            (_, None) if slot == 2 && call.has(1) => packed(&mut steps, 1, 1, [b, s, n, d]),
            (_, Some([_, _, _, _])) => Source::Input(slot),
            (_, Some([_, _, _])) if call.has(1) || slot == 0 && call.has(2) => {
                split_heads(&mut steps, Source::Input(slot), [b, s, n, d])
            }
            _ => {
                let starts = [Dim::ZERO, n_query * d_qk, &(n_query * d_qk) + &(n_key * d_qk)];
                let piece = steps.then(part(2, &starts[slot], &(n * d)), &[Source::Input(0)]);
                split_heads(&mut steps, piece, [b, s, n, d])
            }
        };
        let own = TensorType {
            shape: Shape(vec![b.clone(), n.clone(), s.clone(), d.clone()]),
            format: call.tensor_type(0)?.format,
        };
        if call.has(bias) {
            operand = steps.then(Op::Elementwise(Function::Add), &[operand]);
        }
        if slot < 2 && call.is_set("do_rotary", false) {
            operand = steps.then(rotary(own), &[operand]);
        }
        operands.push(operand);
    }
    let mask = match call.operator() {
        "GroupQueryAttention" => grouped_mask(call, &heads.past),
        "MultiHeadAttention" => causal_or(call, &[4, 5], &heads.past),
        _ => causal_or(call, &[3, 4], &heads.past),
    };
    let tensors = match call.operator() {
        "GroupQueryAttention" => inputs(call, &[10]),
        "MultiHeadAttention" => inputs(call, &[5]),
        _ => inputs(call, &[4]),
    };
    operands.extend(tensors);
    let op = Op::Attention(Attention { cached: heads.past.clone(), ..Attention::new(mask) });
    let made = steps.then(op, &operands);
    join_heads(&mut steps, made, [batch, queries, n_query, d_v]);
    steps.plan()
}

/// One of the tensors that lie side by side in the fourth of five axes.
fn packed(steps: &mut Steps, slot: usize, place: usize, [b, s, n, d]: [&Dim; 4]) -> Source {
    let start = Dim::from(place as u128);
    let piece = steps.then(part(3, &start, &Dim::ONE), &[Source::Input(slot)]);
    let shape = Shape(vec![b.clone(), s.clone(), n.clone(), d.clone()]);
    let piece = steps.then(Op::Reshape { shape }, &[piece]);
    steps.then(view(&[0, 2, 1, 3]), &[piece])
}

/// Four multiplies, a subtraction and an addition for each pair of elements.
fn rotary(own: TensorType) -> Op {
    let other = &own.shape.elements() * &Dim::from(3i64);
    let rotary = Stated::rotary_embedding(vec![own]);
    Op::Stated(Box::new(Stated { other, ..rotary }))
}

/// Causal unless `causal` is 0; a window counts the query's own position.
fn grouped_mask(call: &Call, past: &Dim) -> Mask {
    let window = call.int("local_window_size").filter(|window| 0 < *window);
    match (call.is_set("causal", true), window) {
        (_, Some(window)) => Mask::window(&Dim::from(window), past.clone()),
        (true, None) => Mask::causal_from(past.clone()),
        (false, None) => Mask::Full,
    }
}

/// `unidirectional`, or what the tensors at these inputs say at run time.
fn causal_or(call: &Call, masks: &[usize], past: &Dim) -> Mask {
    let has_tensor = masks.iter().any(|slot| call.has(*slot));
    match (call.is_set("unidirectional", false), has_tensor) {
        (true, _) => Mask::causal_from(past.clone()),
        (false, true) => Mask::Tensor,
        (false, false) => Mask::Full,
    }
}

/// Sizes of an attention that projects its input itself: widths of queries, keys, values.
fn widths(call: &Call) -> Result<[Dim; 3], String> {
    if let Some([q, k, v]) = call.ints("qkv_hidden_sizes")
        && [q, k, v].into_iter().all(|width| 0 < *width)
    {
        return Ok([*q, *k, *v].map(Dim::from));
    }
    let weight = call.shape(1)?;
    let whole = weight.get(1).ok_or("a weight of one axis")?;
    let third = whole.floor_div(&Dim::from(3i64));
    Ok([third.clone(), third.clone(), third])
}

/// `[2, batch, heads, length, d]` at this input.
fn projected_past(call: &Call, slot: usize) -> (Dim, bool) {
    let length = call.shape(slot).ok().and_then(|past| past.get(3).cloned());
    let shares = call.is_set("past_present_share_buffer", false);
    (length.unwrap_or(Dim::ZERO), shares)
}

fn projected_results(call: &Call) -> Results {
    let [_, _, value] = widths(call)?;
    let input = call.shape(0)?;
    let [batch, queries, _] = input else { return Err("an input of other axes".to_owned()) };
    let slot = if call.operator() == "QAttention" { 8 } else { 4 };
    let (past, shares) = projected_past(call, slot);
    let heads = n_heads(call, "num_heads")?;
    let size = value.floor_div(&heads);
    let total = if shares { past } else { &past + queries };
    let kept = vec![Dim::from(2i64), batch.clone(), heads, total, size];
    let like = if call.operator() == "QAttention" { 3 } else { 0 };
    let output = call.like(like, vec![batch.clone(), queries.clone(), value])?;
    Ok(vec![Some(output), Some(call.like(like, kept)?)])
}

/// Projects, attends, joins the heads. Inputs: bias, mask, bias of the scores, past.
fn projected(call: &Call, [bias, mask, score_bias, past]: [usize; 4]) -> Plan {
    let mut steps = Steps::default();
    let [batch, queries, _] = call.shape(0)? else {
        return Err("an input of other axes".to_owned());
    };
    let widths = widths(call)?;
    let n = n_heads(call, "num_heads")?;
    let scales =
        if call.operator() == "QAttention" { inputs(call, &[3, 4, 6, 7]) } else { Vec::new() };
    let (a, b) = (Orientation::Plain, Orientation::Plain);
    let op = Op::MatMul(MatMul { a, b, scales: scales.len() });
    let whole = steps.then(op, &[inputs(call, &[0, 1, bias]), scales].concat());
    let (filled, shares) = projected_past(call, past);
    let filled = if shares { (&filled - queries).maximum(&Dim::ZERO) } else { filled };
    let mask = causal_or(call, &[mask, score_bias], &filled);
    let operands = inputs(call, &[score_bias]);
    let attention = Attention { cached: filled, ..Attention::new(mask) };
    attend(&mut steps, whole, [batch, queries, &n], &widths, attention, &operands);
    steps.plan()
}

fn attend(
    steps: &mut Steps,
    whole: Source,
    [batch, queries, n]: [&Dim; 3],
    widths: &[Dim; 3],
    attention: Attention,
    tensors: &[Source],
) {
    let mut start = Dim::ZERO;
    let mut operands = Vec::with_capacity(4);
    for width in widths {
        let piece = steps.then(part(2, &start, width), &[whole]);
        operands.push(split_heads(steps, piece, [batch, queries, n, &width.floor_div(n)]));
        start = &start + width;
    }
    operands.extend(tensors);
    let made = steps.then(Op::Attention(attention), &operands);
    join_heads(steps, made, [batch, queries, n, &widths[2].floor_div(n)]);
}
