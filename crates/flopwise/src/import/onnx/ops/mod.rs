//! ONNX operators -> canonical operators, one group a file. To add an operator, add an arm to the
//! `plan` of its group; one whose small results should be computed while reading also gets an arm
//! in `fold/`, one with results that the canonical operator does not have an arm in `results.rs`.
//!
//! Not here: shapes of results (see [`crate::graph::infer`]). Operators and their versions:
//! <https://onnx.ai/onnx/operators/>.

mod attention;
mod classic;
mod contrib;
mod elementwise;
mod fused_attention;
mod layers;
mod movement;
mod quantized;
mod recurrent;
mod reduction;
mod resize;
mod results;
mod selection;
mod signal;
mod training;
mod vision;
mod windows;

pub(super) use movement::{clamped_range, reshape_target, unsqueezed};

use super::call::{Call, Plan};
use crate::graph::TensorType;

/// What a node computes.
pub(super) fn plan(call: &Call) -> Plan {
    match call.node.domain.as_str() {
        "" | "ai.onnx" => {}
        "com.microsoft" | "com.microsoft.nchwc" => return contrib::plan(call),
        "ai.onnx.ml" => return classic::plan(call),
        "ai.onnx.preview.training" => return training::plan(call),
        "ai.onnx.preview" if call.operator() == "FlexAttention" => return attention::flex(call),
        domain => return Err(format!("no rule for {domain}::{}", call.operator())),
    }
    standard(call)
}

/// Operators of the standard, and those that other domains have with the same meaning.
fn standard(call: &Call) -> Plan {
    elementwise::plan(call)
        .or_else(|| layers::plan(call))
        .or_else(|| windows::plan(call))
        .or_else(|| movement::plan(call))
        .or_else(|| reduction::plan(call))
        .or_else(|| resize::plan(call))
        .or_else(|| attention::plan(call))
        .or_else(|| recurrent::plan(call))
        .or_else(|| selection::plan(call))
        .or_else(|| vision::plan(call))
        .or_else(|| signal::plan(call))
        .or_else(|| quantized::plan(call))
        .or_else(|| contrib::simplified_norm(call))
        .unwrap_or_else(|| Err(without_rule(call)))
}

/// Types of a node's results that its plan does not give, as far as they are known.
pub(super) fn results(call: &Call) -> Vec<Option<TensorType>> {
    results::of(call)
}

fn without_rule(call: &Call) -> String {
    match call.operator() {
        "If" => "which branch runs is decided at run time".to_owned(),
        "Loop" | "Scan" => "how often its body runs is not known".to_owned(),
        "Shape" => "it asks for the shape of something whose shape is not known".to_owned(),
        "Size" => "it asks for the size of something whose shape is not known".to_owned(),
        operator if operator.contains("Sequence") => {
            "what it reads is no sequence whose members are known".to_owned()
        }
        operator => format!("no rule for ai.onnx::{operator}"),
    }
}
