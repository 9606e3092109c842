//! ONNX operators -> canonical operators, one group a file. To add an operator, add an arm to the
//! `plan` of its group; one whose small results should be computed while reading also gets an arm
//! in `fold/`.
//!
//! Not here: shapes of results (see [`crate::graph::infer`]). Operators and their versions:
//! <https://onnx.ai/onnx/operators/>.

mod elementwise;
mod layers;
mod movement;
mod reduction;
mod resize;
mod windows;

pub(super) use movement::{clamped_range, reshape_target, unsqueezed};

use super::call::{Call, Plan};

/// What a node computes.
pub(super) fn plan(call: &Call) -> Plan {
    let domain = call.node.domain.as_str();
    if !matches!(domain, "" | "ai.onnx") {
        return Err(format!("no rule for {domain}::{}", call.operator()));
    }
    elementwise::plan(call)
        .or_else(|| layers::plan(call))
        .or_else(|| windows::plan(call))
        .or_else(|| movement::plan(call))
        .or_else(|| reduction::plan(call))
        .or_else(|| resize::plan(call))
        .unwrap_or_else(|| Err(without_rule(call)))
}

fn without_rule(call: &Call) -> String {
    match call.operator() {
        "If" => "which branch runs is decided at run time".to_owned(),
        "Loop" | "Scan" => "how often its body runs is not known".to_owned(),
        operator => format!("no rule for ai.onnx::{operator}"),
    }
}
