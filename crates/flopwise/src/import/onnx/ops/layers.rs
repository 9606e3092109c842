//! Layers: matrix products, normalisations, softmax, embedding lookups.
//!
//! Not here: convolutions and pooling (`windows.rs`), attention (`attention.rs`).

use crate::graph::{
    Dim, Einsum, Function, Keep, Kind, MatMul, Normalization, Op, Orientation, Reduce, Reduction,
    Stated, axis_of,
};
use crate::import::onnx::call::{Call, Plan, Source, Step, one, stated};
use std::collections::BTreeSet;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "MatMul" => one(matmul(Orientation::Plain, Orientation::Plain), &[0, 1]),
        "Gemm" => gemm(call),
        "Einsum" => einsum(call),
        "BatchNormalization" if is_training(call) => batch_training(call),
        "BatchNormalization" => one(Op::Normalization(Normalization::Batch), &[0, 1, 2, 3, 4]),
        "InstanceNormalization" => group_norm(0),
        "GroupNormalization" => group_norm(call.int("num_groups").unwrap_or(1)),
        "LayerNormalization" => trailing_norm(call, |axes| Normalization::Layer { axes }),
        "RMSNormalization" => trailing_norm(call, |axes| Normalization::Rms { axes }),
        "LRN" => {
            // No model has more channels.
            match call.int("size").unwrap_or(1) {
                size @ 1..=0x10_0000 => {
                    one(Op::Normalization(Normalization::LocalResponse { size }), &[0])
                }
                size => Err(format!("its window is {size} channels wide")),
            }
        }
        "LpNormalization" => lp_norm(call),
        "Softmax" | "LogSoftmax" => softmax(call),
        "Gather" => gather(call),
        "MeanVarianceNormalization" => mean_variance(call),
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

/// A flag since version 14; before, the number of results tells, and a flag up to version 6.
fn is_training(call: &Call) -> bool {
    match call.opset {
        14.. => call.is_set("training_mode", false),
        7..14 => 1 < call.node.output.len(),
        _ => !call.is_set("is_test", false),
    }
}

/// With the statistics of the batch: per element a sum, a difference, a square, a sum, and three to
/// normalise, scale and shift; per channel two divisions, epsilon and a root, and two products and
/// a sum for each running statistic.
fn batch_training(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let channels = Dim::product(call.shape(3)?);
    let statistic = call.tensor_type(3)?;
    let results = [vec![input.clone()], vec![statistic.clone(); 4]].concat();
    let stated_norm = Stated {
        other: &(&input.shape.elements() * &Dim::from(7)) + &(&channels * &Dim::from(7)),
        transcendental: &channels * &Dim::from(3),
        ..Stated::new("batch_norm", Kind::Normalization, results)
    };
    stated(call, stated_norm)
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

/// `(x - mean) / root of the mean square of that`, over batch and space unless axes are given.
/// <https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html>
fn mean_variance(call: &Call) -> Plan {
    let rank = call.rank(0)?;
    let axes = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes.iter().map(|axis| axis_of(*axis, rank));
    let axes: Vec<usize> = axes.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let mean = || {
        let (function, axes) = (Reduction::Mean, axes.clone());
        Op::Reduce(Reduce { function, axes, keep: Keep::Axes })
    };
    let step = |op, operands| Step { op, operands };
    let on = |function, operands| step(Op::Elementwise(function), operands);
    let (input, from) = (Source::Input(0), Source::Step);
    Ok(vec![
        step(mean(), vec![input]),
        on(Function::Sub, vec![input, from(0)]),
        on(Function::Square, vec![from(1)]),
        step(mean(), vec![from(2)]),
        on(Function::Sqrt, vec![from(3)]),
        on(Function::Div, vec![from(1), from(4)]),
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
