//! Operators over tensors whose elements are known: their results, computed while the file is read.
//! Exporters spell out shapes as such operators (`Shape`, `Gather`, `Concat`, `Reshape`), and no
//! later shape can be found without them.
//!
//! Not here: what a value is (`value.rs`), and operators over data.

mod arithmetic;
mod movement;

use super::call::Call;
use super::value::{Scalar, Value};
use crate::graph::Dim;
use flopwise_formats::Format;

/// The results of a node, when all of them are known.
pub(super) fn evaluate(call: &Call) -> Option<Vec<Value>> {
    if !matches!(call.node.domain.as_str(), "" | "ai.onnx") {
        return None;
    }
    let value = match call.operator() {
        "Shape" => return shape(call).map(|value| vec![value]),
        "Size" => {
            let elements = Dim::product(call.shape(0).ok()?);
            Some(Value::scalar(Format::INT64, Scalar::Exact(elements)))
        }
        "Identity" => call.value(0).cloned(),
        "Split" => return movement::split(call),
        _ => arithmetic::evaluate(call).or_else(|| movement::evaluate(call)),
    };
    value.map(|value| vec![value])
}

/// All sizes, or since version 15 those from `start` to `end`.
fn shape(call: &Call) -> Option<Value> {
    let shape = call.shape(0).ok()?;
    let rank = shape.len() as i64;
    let bound = |name, default: i64| {
        let bound = call.int(name).unwrap_or(default);
        let bound = if bound < 0 { bound.saturating_add(rank) } else { bound };
        bound.clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    Some(Value::sizes(shape.get(start..end.max(start))?.iter().cloned()))
}
