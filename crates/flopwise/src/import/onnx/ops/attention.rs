//! Scaled dot-product attention, rotary position embedding and the update of a KV cache.
//!
//! Not here: fused attentions of other domains (`contrib.rs`), linear attention (`recurrent.rs`).

use crate::graph::{Attention, Band, Dim, Mask, Op, Shape, Stated, Storage, TensorType};
use crate::import::onnx::call::{Call, Plan, Source, Step, one, stated};

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "Attention" => attention(call),
        "RotaryEmbedding" => rotary_embedding(call),
        "TensorScatter" => one(Op::Scatter, &call.given()),
        _ => return None,
    })
}

/// Queries, keys and values have 4 axes, or 3 with the heads inside the last one; keys and values
/// of earlier tokens, given apart, come before those of this run.
/// <https://onnx.ai/onnx/operators/onnx__Attention.html>
fn attention(call: &Call) -> Plan {
    let mut steps = Vec::new();
    let mut operands = Vec::new();
    for (slot, heads) in [(0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")] {
        operands.push(match call.rank(slot)? {
            4 => Source::Input(slot),
            3 => split_heads(call, slot, heads, &mut steps)?,
            rank => return Err(format!("input {slot} of an attention has {rank} axes")),
        });
    }
    for (slot, past) in [(1, 4), (2, 5)] {
        if call.has(past) {
            let joined = vec![Source::Input(past), operands[slot]];
            operands[slot] = Source::Step(steps.len());
            steps.push(Step { op: Op::Concat { axis: 2 }, operands: joined });
        }
    }
    operands.extend(call.has(3).then_some(Source::Input(3)));
    steps.push(Step { op: Op::Attention(Attention::new(mask(call)?)), operands });
    if call.rank(0)? == 3 {
        join_heads(call, &mut steps)?;
    }
    Ok(steps)
}

/// Query `i` stands at the position of key `i + offset`: the offset is the length of the past, or
/// where the caller keeps the cache and tells how much of it is filled (`nonpad_kv_seqlen`,
/// version 24), that less the queries. How much is filled only the run knows: all of it is taken.
fn mask(call: &Call) -> Result<Mask, String> {
    let window = |name| call.int(name).filter(|size| 0 <= *size).map(Dim::from);
    let (left, right) = (window("left_window_size"), window("right_window_size"));
    let right = if call.is_set("is_causal", false) { Some(Dim::ZERO) } else { right };
    if left.is_none() && right.is_none() {
        let is_decided_at_run_time = call.has(3) || call.has(6);
        return Ok(if is_decided_at_run_time { Mask::Tensor } else { Mask::Full });
    }
    let length = |slot| Ok::<Dim, String>(length_and_heads(call, slot)?.0);
    let offset = if call.has(4) {
        call.shape(4)?.get(2).cloned().ok_or("its past key has not 4 axes")?
    } else if call.has(6) {
        (&length(1)? - &length(0)?).maximum(&Dim::ZERO)
    } else {
        Dim::ZERO
    };
    Ok(Mask::Band(Band { left, right, offset }))
}

/// How many positions and heads an input has, and how many elements a head.
fn length_and_heads(call: &Call, slot: usize) -> Result<(Dim, Dim, Dim), String> {
    match call.shape(slot)? {
        [_, heads, length, size] => Ok((length.clone(), heads.clone(), size.clone())),
        [_, length, width] => {
            let name = if slot == 0 { "q_num_heads" } else { "kv_num_heads" };
            let heads = n_heads(call, name)?;
            let size = width.floor_div(&heads);
            Ok((length.clone(), heads, size))
        }
        shape => Err(format!("input {slot} of an attention has {} axes", shape.len())),
    }
}

fn n_heads(call: &Call, name: &str) -> Result<Dim, String> {
    let n_heads = call.int(name).filter(|n_heads| 0 < *n_heads);
    n_heads.map(Dim::from).ok_or_else(|| format!("`{name}` is missing"))
}

/// Keys and values with the past before them, and the scores: `[batch, heads, ..]` each.
pub(super) fn results(call: &Call) -> Result<Vec<Option<TensorType>>, String> {
    let batch = call.shape(0)?.first().ok_or("a query without axes")?;
    let (queries, query_heads, _) = length_and_heads(call, 0)?;
    let (keys, heads, key_size) = length_and_heads(call, 1)?;
    let (_, _, value_size) = length_and_heads(call, 2)?;
    let past = call.shape(4).ok().and_then(|past| past.get(2).cloned()).unwrap_or(Dim::ZERO);
    let total = &keys + &past;
    let key = vec![batch.clone(), heads.clone(), total.clone(), key_size];
    let value = vec![batch.clone(), heads, total.clone(), value_size];
    let scores = vec![batch.clone(), query_heads, queries, total];
    let types = [call.like(1, key)?, call.like(2, value)?, call.like(0, scores)?];
    Ok([None].into_iter().chain(types.map(Some)).collect())
}

fn swap_middle() -> Op {
    Op::Transpose { permutation: vec![0, 2, 1, 3], storage: Storage::View }
}

/// `[batch, length, heads*d]` -> `[batch, heads, length, d]`.
fn split_heads(
    call: &Call,
    slot: usize,
    heads: &str,
    steps: &mut Vec<Step>,
) -> Result<Source, String> {
    let shape = call.shape(slot)?;
    let n_heads = n_heads(call, heads)?;
    let size = shape[2].floor_div(&n_heads);
    let split = Shape(vec![shape[0].clone(), shape[1].clone(), n_heads, size]);
    let op = Op::Reshape { shape: split };
    steps.push(Step { op, operands: vec![Source::Input(slot)] });
    steps.push(Step { op: swap_middle(), operands: vec![Source::Step(steps.len() - 1)] });
    Ok(Source::Step(steps.len() - 1))
}

/// `[batch, heads, length, d]` -> `[batch, length, heads*d]`.
fn join_heads(call: &Call, steps: &mut Vec<Step>) -> Result<(), String> {
    let query = call.shape(0)?;
    let (_, _, value_size) = length_and_heads(call, 2)?;
    let width = &n_heads(call, "q_num_heads")? * &value_size;
    let joined = Shape(vec![query[0].clone(), query[1].clone(), width]);
    steps.push(Step { op: swap_middle(), operands: vec![Source::Step(steps.len() - 1)] });
    let operands = vec![Source::Step(steps.len() - 1)];
    steps.push(Step { op: Op::Reshape { shape: joined }, operands });
    Ok(())
}

/// Version 23: each rotated pair takes four multiplies, a subtraction and an addition. Only the
/// first `rotary_embedding_dim` elements of a head are rotated, all where it is 0.
/// <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>
fn rotary_embedding(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let head_size = match input.shape.0.as_slice() {
        [_, _, _, size] => size.clone(),
        [_, _, width] => width.floor_div(&n_heads(call, "num_heads")?),
        shape => return Err(format!("rotates a tensor of {} axes", shape.len())),
    };
    let rotated = call.int("rotary_embedding_dim").filter(|size| 0 < *size);
    let rotated = rotated.map_or(head_size.clone(), Dim::from);
    let heads = input.shape.elements().floor_div(&head_size);
    let other = &(&heads * &rotated) * &Dim::from(3);
    let rotary = Stated::rotary_embedding(vec![input.clone()]);
    stated(call, Stated { other, ..rotary })
}

/// `ai.onnx.preview::FlexAttention`: graphs of its own may change scores and probabilities.
pub(super) fn flex(call: &Call) -> Plan {
    let changed = ["score_mod", "prob_mod"].into_iter().find(|name| call.has_graph(name));
    match changed {
        Some(name) => Err(format!("its `{name}` is a graph of its own, which is not counted")),
        None => one(Op::Attention(Attention::new(Mask::Full)), &[0, 1, 2]),
    }
}
