//! `ai.onnx.preview.training`: optimisers as operators of the graph.
//!
//! Not here: the backward pass of a model (see [`crate::cost`]).

use crate::graph::{Dim, Kind, Op, Stated, TensorType};
use crate::import::onnx::call::{Call, Plan, one};

pub(super) fn plan(call: &Call) -> Plan {
    match call.operator() {
        "Adagrad" => optimiser(call, 3, 2, (5, 2)),
        "Adam" => optimiser(call, 4, 3, (10, 2)),
        "Momentum" => match call.text("mode") {
            Some("nesterov") => optimiser(call, 3, 2, (7, 0)),
            _ => optimiser(call, 3, 2, (5, 0)),
        },
        "Gradient" => {
            Err("it is the derivative of a part of the graph, which is not counted".to_owned())
        }
        operator => Err(format!("no rule for {}::{operator}", call.node.domain)),
    }
}

/// `rate, step, tensors.., gradients.., states..`: as many of each; the new tensors, then the new
/// states. Operations per element are those of the formulas of
/// <https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adam.html>, without the terms that
/// an attribute of 0 switches off, with two for a norm coefficient:
///
/// - Adagrad: `h + g g` (2), root + epsilon (1, root), `r g / ..` (1, division), `x -` (1);
/// - Adam: `a v + (1 - a) g` (3), `b h + (1 - b) g g` (4), root + epsilon (1, root),
///   `r v / ..` (1, division), `x -` (1);
/// - Momentum: `a v + b g` (3), `x - r v` (2); Nesterov `x - r (g + a v)` (4).
fn optimiser(call: &Call, n_groups: usize, n_results: usize, each: (i64, i64)) -> Plan {
    let slots = call.operands.len().saturating_sub(2);
    if slots == 0 || !slots.is_multiple_of(n_groups) {
        return Err(format!("{slots} tensors in {n_groups} groups"));
    }
    let n_tensors = slots / n_groups;
    let types = |group: usize| {
        let first = 2 + group * n_tensors;
        (first..first + n_tensors).map(|slot| call.tensor_type(slot).cloned())
    };
    // Gradients, the second group, are not given back.
    let groups = std::iter::once(0).chain(2..n_results + 1);
    let results: Vec<TensorType> = groups.flat_map(types).collect::<Result<_, _>>()?;
    let elements: Dim = results[..n_tensors].iter().map(|found| found.shape.elements()).sum();
    let norms = ["norm_coefficient", "norm_coefficient_post"];
    let is_set = |name: &&str| call.float(name).is_some_and(|norm| norm.abs() != 0.0);
    let per_norm = 2 * norms.iter().filter(|name| is_set(name)).count() as i64;
    let stated = Stated {
        other: &elements * &Dim::from(each.0 + per_norm),
        transcendental: &elements * &Dim::from(each.1),
        ..Stated::new("optimiser", Kind::Elementwise, results)
    };
    one(Op::Stated(Box::new(stated)), &call.given())
}
