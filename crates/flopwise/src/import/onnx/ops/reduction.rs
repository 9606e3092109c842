//! Operators that combine many elements: sums, means, extremes, running sums, the k largest.
//!
//! Not here: pooling (`windows.rs`).

use crate::graph::axis_of;
use crate::graph::{Dim, Keep, Op, Reduce, Reduction};
use crate::import::onnx::call::{Call, Plan, one};

pub(super) fn plan(call: &Call) -> Option<Plan> {
    if let Some(function) = function(call.operator()) {
        return Some(reduce(call, function));
    }
    Some(match call.operator() {
        "ArgMax" | "ArgMin" => arg_extreme(call),
        "CumSum" | "CumProd" => cumulative(call),
        "TopK" => top_k(call),
        _ => return None,
    })
}

fn function(operator: &str) -> Option<Reduction> {
    Some(match operator {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceProd" => Reduction::Product,
        "ReduceMax" | "ReduceMin" => Reduction::Extreme,
        "ReduceL1" => Reduction::SumAbsolute,
        "ReduceL2" => Reduction::Norm2,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        _ => return None,
    })
}

fn keep(call: &Call) -> Keep {
    match call.is_set("keepdims", true) {
        true => Keep::Axes,
        false => Keep::Nothing,
    }
}

/// Axes are an attribute up to version 17 (12 for sums), an input from then on. Without any, all
/// axes go, unless the file says that nothing is to happen then.
fn reduce(call: &Call, function: Reduction) -> Plan {
    let rank = call.rank(0)?;
    let axes = match call.axes(1, rank)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes,
        None if call.is_set("noop_with_empty_axes", false) => return one(Op::Identity, &[0]),
        None => (0..rank).collect(),
    };
    one(Op::Reduce(Reduce { function, axes, keep: keep(call) }), &[0])
}

fn arg_extreme(call: &Call) -> Plan {
    let axis = call.axis("axis", 0, call.rank(0)?)?;
    let reduce = Reduce { function: Reduction::ArgExtreme, axes: vec![axis], keep: keep(call) };
    one(Op::Reduce(reduce), &[0])
}

fn cumulative(call: &Call) -> Plan {
    let rank = call.rank(0)?;
    // Neither the shape nor the work depends on the axis, so an unknown one does not matter.
    let axis = call.numbers(1).ok().and_then(|axes| axes.first().copied()).unwrap_or(0);
    let axis = axis_of(axis, rank).map_err(|error| error.to_string())?;
    one(Op::Cumulative { axis }, &[0])
}

/// `k` is an attribute before version 10.
fn top_k(call: &Call) -> Plan {
    let axis = call.axis("axis", -1, call.rank(0)?)?;
    let k = match call.int("k") {
        Some(k) => Dim::from(k),
        None => {
            let length = &call.shape(0)?[axis];
            call.size(1).unwrap_or_else(|_| call.open(0, axis, Some(length.clone())))
        }
    };
    one(Op::TopK { axis, k }, &[0])
}
