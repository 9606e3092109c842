//! Layers: matrix products, normalisations, softmax, attention, embedding lookups.
//!
//! Not here: convolutions and pooling (`windows.rs`).

use crate::graph::{
    Attention, Dim, Einsum, Function, Keep, Mask, MatMul, Normalization, Op, Orientation, Reduce,
    Reduction, Shape, Storage,
};
use crate::import::onnx::call::{Call, Plan, Source, Step, one};
use std::collections::BTreeSet;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "MatMul" => one(matmul(Orientation::Plain, Orientation::Plain), &[0, 1]),
        "Gemm" => gemm(call),
        "Einsum" => einsum(call),
        "BatchNormalization" => one(Op::Normalization(Normalization::Batch), &[0, 1, 2, 3, 4]),
        "InstanceNormalization" => group_norm(0),
        "GroupNormalization" => group_norm(call.int("num_groups").unwrap_or(1)),
        "LayerNormalization" => trailing_norm(call, |axes| Normalization::Layer { axes }),
        "RMSNormalization" => trailing_norm(call, |axes| Normalization::Rms { axes }),
        "LRN" => {
            let size = call.int("size").unwrap_or(1);
            one(Op::Normalization(Normalization::LocalResponse { size }), &[0])
        }
        "LpNormalization" => lp_norm(call),
        "Softmax" | "LogSoftmax" => softmax(call),
        "Gather" => gather(call),
        "Attention" => attention(call),
        "RotaryEmbedding" => rotary_embedding(),
        _ => return None,
    })
}

fn matmul(a: Orientation, b: Orientation) -> Op {
    Op::MatMul(MatMul::new(a, b))
}

fn gemm(call: &Call) -> Plan {
    let orientation = |name| match call.is_set(name, false) {
        true => Orientation::Transposed,
        false => Orientation::Plain,
    };
    let op = matmul(orientation("transA"), orientation("transB"));
    one(op, &call.given_of_first(3))
}

fn group_norm(groups: i64) -> Plan {
    one(Op::Normalization(Normalization::Group { groups }), &[0, 1, 2])
}

fn trailing_norm(call: &Call, kind: fn(usize) -> Normalization) -> Plan {
    let rank = call.rank(0)?;
    let axis = call.axis("axis", -1, rank)?;
    one(Op::Normalization(kind(rank - axis)), &call.given_of_first(3))
}

/// Each vector over its norm.
fn lp_norm(call: &Call) -> Plan {
    let axis = call.axis("axis", -1, call.rank(0)?)?;
    let function = match call.int("p") {
        Some(1) => Reduction::SumAbsolute,
        _ => Reduction::Norm2,
    };
    let norm = Op::Reduce(Reduce { function, axes: vec![axis], keep: Keep::Axes });
    Ok(vec![
        Step { op: norm, operands: vec![Source::Input(0)] },
        Step {
            op: Op::Elementwise(Function::Div),
            operands: vec![Source::Input(0), Source::Step(0)],
        },
    ])
}

/// Before version 13 the default axis was 1, and all axes behind it were summed over too; the
/// shape is the same and so is the work per element.
fn softmax(call: &Call) -> Plan {
    let default = if call.opset < 13 { 1 } else { -1 };
    let axis = call.axis("axis", default, call.rank(0)?)?;
    one(Op::Softmax { axis }, &[0])
}

/// A lookup of rows in a stored table is an embedding.
fn gather(call: &Call) -> Plan {
    let data = call.tensor_type(0)?;
    let axis = call.axis("axis", 0, data.shape.rank())?;
    let is_stored = call.operand(0).is_some_and(|operand| operand.is_weight);
    let is_table = is_stored && axis == 0 && data.shape.rank() == 2 && data.format.is_float();
    one(if is_table { Op::Embedding } else { Op::Gather { axis } }, &[0, 1])
}

/// `bhqd,bhkd->bhqk`; an ellipsis stands for axes without a letter and is spelled out here.
/// <https://onnx.ai/onnx/operators/onnx__Einsum.html>
fn einsum(call: &Call) -> Plan {
    let text: String = call.text("equation").unwrap_or_default().split_whitespace().collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.operands.len() {
        return Err(format!("the equation `{text}` does not have one term per input"));
    }
    let mut inputs = Vec::new();
    let mut n_dotted = 0;
    for (slot, term) in terms.iter().enumerate() {
        let n_letters = term.chars().filter(|c| *c != '.').count();
        let n_hidden = call.rank(slot)?.saturating_sub(n_letters);
        n_dotted = n_dotted.max(if term.contains("...") { n_hidden } else { 0 });
        inputs.push(spelled_out(term, n_hidden));
    }
    let output = match right {
        Some(right) => spelled_out(right, n_dotted),
        None => implicit_output(&inputs),
    };
    one(Op::Einsum(Einsum { inputs, output }), &call.given())
}

/// Hidden axes get digits for labels, the last one 0, so that they align at the right.
fn spelled_out(term: &str, n_hidden: usize) -> Vec<char> {
    let hidden = (0..n_hidden).rev().filter_map(|place| char::from_u32('0' as u32 + place as u32));
    match term.split_once("...") {
        Some((before, after)) => before.chars().chain(hidden).chain(after.chars()).collect(),
        None => term.chars().collect(),
    }
}

/// Without `->` the output has the hidden axes, then each letter that occurs once, sorted.
fn implicit_output(inputs: &[Vec<char>]) -> Vec<char> {
    let labels: Vec<char> = inputs.concat();
    let distinct: BTreeSet<char> = labels.iter().copied().collect();
    let is_hidden = |label: &char| !label.is_alphabetic();
    let hidden = distinct.iter().rev().copied().filter(is_hidden);
    let is_single = |label: &char| labels.iter().filter(|other| *other == label).count() == 1;
    let single = distinct.iter().copied().filter(|label| !is_hidden(label) && is_single(label));
    hidden.chain(single).collect()
}

/// Version 23. Queries, keys and values have 4 axes, or 3 with the heads inside the last one.
/// <https://onnx.ai/onnx/operators/onnx__Attention.html>
fn attention(call: &Call) -> Plan {
    let mask = match (call.is_set("is_causal", false), call.has(3)) {
        (true, _) => Mask::causal(),
        (false, true) => Mask::Tensor,
        (false, false) => Mask::Full,
    };
    let mut steps = Vec::new();
    let mut operands = Vec::new();
    for (slot, heads) in [(0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")] {
        operands.push(match call.rank(slot)? {
            4 => Source::Input(slot),
            3 => split_heads(call, slot, heads, &mut steps)?,
            rank => return Err(format!("input {slot} of an attention has {rank} axes")),
        });
    }
    // Keys and values of earlier tokens come before those of this run.
    for (slot, past) in [(1, 4), (2, 5)] {
        if call.has(past) {
            let joined = vec![Source::Input(past), operands[slot]];
            operands[slot] = Source::Step(steps.len());
            steps.push(Step { op: Op::Concat { axis: 2 }, operands: joined });
        }
    }
    operands.extend(call.has(3).then_some(Source::Input(3)));
    steps.push(Step { op: Op::Attention(Attention::new(mask)), operands });
    if call.rank(0)? == 3 {
        join_heads(call, &mut steps)?;
    }
    Ok(steps)
}

/// Version 23: `x cos + rotate_half(x) sin`. Cosines and sines have other axes than `x` and would
/// not broadcast as they stand, so they are no operands here; a head that is rotated in part is
/// counted as a whole. <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>
fn rotary_embedding() -> Plan {
    let step = |function, operands| Step { op: Op::Elementwise(function), operands };
    Ok(vec![
        step(Function::Mul, vec![Source::Input(0)]),
        step(Function::MultiplyAdd, vec![Source::Input(0), Source::Step(0)]),
    ])
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
    let n_heads = call.int(heads).filter(|n_heads| 0 < *n_heads);
    let n_heads = Dim::from(n_heads.ok_or_else(|| format!("`{heads}` is missing"))?);
    let size = shape[2].floor_div(&n_heads);
    let split = Shape(vec![shape[0].clone(), shape[1].clone(), n_heads, size]);
    let op = Op::Reshape { shape: split };
    steps.push(Step { op, operands: vec![Source::Input(slot)] });
    steps.push(Step { op: swap_middle(), operands: vec![Source::Step(steps.len() - 1)] });
    Ok(Source::Step(steps.len() - 1))
}

/// `[batch, heads, length, d]` -> `[batch, length, heads*d]`.
fn join_heads(call: &Call, steps: &mut Vec<Step>) -> Result<(), String> {
    let (query, value) = (call.shape(0)?, call.shape(2)?);
    let n_heads = |name| Dim::from(call.int(name).unwrap_or(1).max(1));
    let (of_query, of_value) = (n_heads("q_num_heads"), n_heads("kv_num_heads"));
    let width = match value.len() {
        3 => &of_query * &value[2].floor_div(&of_value),
        _ => &of_query * &value[3],
    };
    let joined = Shape(vec![query[0].clone(), query[1].clone(), width]);
    steps.push(Step { op: swap_middle(), operands: vec![Source::Step(steps.len() - 1)] });
    let operands = vec![Source::Step(steps.len() - 1)];
    steps.push(Step { op: Op::Reshape { shape: joined }, operands });
    Ok(())
}
