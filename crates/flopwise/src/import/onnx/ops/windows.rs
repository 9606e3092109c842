//! Operators that slide a window over spatial axes: convolutions and pooling.
//!
//! Not here: how long the result is (`graph/shape.rs`).

use crate::graph::{
    Convolution, Dim, Direction, Op, Padding, Pool, PoolFunction, Rounding, Window,
};
use crate::import::onnx::call::{Call, Plan, one};

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "Conv" => convolution(call),
        "ConvTranspose" => transposed(call),
        "MaxPool" => sliding(call, PoolFunction::Max),
        "AveragePool" | "LpPool" => sliding(call, PoolFunction::Average),
        "GlobalMaxPool" => global(call, PoolFunction::Max),
        "GlobalAveragePool" | "GlobalLpPool" => global(call, PoolFunction::Average),
        _ => return None,
    })
}

/// A list with one number per spatial axis, or as many of `default`.
fn per_axis(call: &Call, name: &str, n_spatial: usize, default: i64) -> Result<Vec<i64>, String> {
    match call.ints(name) {
        Some(list) if list.len() == n_spatial => Ok(list.to_vec()),
        Some(list) if !list.is_empty() => {
            Err(format!("`{name}` has {} numbers for {n_spatial} spatial axes", list.len()))
        }
        _ => Ok(vec![default; n_spatial]),
    }
}

fn padding(call: &Call, n_spatial: usize) -> Result<Padding, String> {
    if let Some("SAME_UPPER" | "SAME_LOWER") = call.text("auto_pad") {
        return Ok(Padding::Same);
    }
    // The list holds all beginnings, then all ends.
    let pads = match call.text("auto_pad") {
        Some("VALID") => vec![0; 2 * n_spatial],
        _ => per_axis(call, "pads", 2 * n_spatial, 0)?,
    };
    let (before, after) = pads.split_at(n_spatial);
    Ok(Padding::Explicit { before: before.to_vec(), after: after.to_vec() })
}

fn convolution(call: &Call) -> Plan {
    let n_spatial = call.rank(1)?.saturating_sub(2);
    let op = Op::Convolution(Convolution {
        direction: Direction::Forward,
        stride: per_axis(call, "strides", n_spatial, 1)?,
        padding: padding(call, n_spatial)?,
        dilation: per_axis(call, "dilations", n_spatial, 1)?,
        groups: call.int("group").unwrap_or(1),
    });
    one(op, &call.given_of_first(3))
}

fn transposed(call: &Call) -> Plan {
    let n_spatial = call.rank(1)?.saturating_sub(2);
    let mut convolution = Convolution {
        direction: Direction::Transposed {
            output_padding: per_axis(call, "output_padding", n_spatial, 0)?,
        },
        stride: per_axis(call, "strides", n_spatial, 1)?,
        padding: padding(call, n_spatial)?,
        dilation: per_axis(call, "dilations", n_spatial, 1)?,
        groups: call.int("group").unwrap_or(1),
    };
    if let Some(wanted) = call.ints("output_shape").filter(|wanted| !wanted.is_empty()) {
        let spatial = wanted.get(wanted.len().saturating_sub(n_spatial)..).unwrap_or(wanted);
        pad_to(call, &mut convolution, spatial)?;
    }
    one(Op::Convolution(convolution), &call.given_of_first(3))
}

/// `output_shape` decides the padding: what the full result has too much is cut, what it has too
/// little is added at the end. <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>
fn pad_to(call: &Call, convolution: &mut Convolution, wanted: &[i64]) -> Result<(), String> {
    let (input, weight) = (call.shape(0)?, call.shape(1)?);
    let mut cut = Vec::new();
    let mut added = Vec::new();
    for (axis, wanted) in wanted.iter().enumerate() {
        let number = |dims: &[Dim]| {
            let number = dims.get(2 + axis).and_then(Dim::as_constant);
            number.and_then(|number| i64::try_from(number).ok()).filter(|number| *number < 1 << 31)
        };
        let (Some(length), Some(kernel)) = (number(input), number(weight)) else {
            return Err("its padding follows from a length that is not known".to_owned());
        };
        let step = |list: &[i64]| list.get(axis).copied().unwrap_or(1).clamp(1, 1 << 31);
        let reach = (kernel - 1).saturating_mul(step(&convolution.dilation)).saturating_add(1);
        let full = (length - 1).saturating_mul(step(&convolution.stride)).saturating_add(reach);
        cut.push(full.saturating_sub(*wanted).max(0));
        added.push(wanted.saturating_sub(full).max(0));
    }
    convolution.padding = Padding::Explicit { before: cut, after: vec![0; wanted.len()] };
    convolution.direction = Direction::Transposed { output_padding: added };
    Ok(())
}

fn sliding(call: &Call, function: PoolFunction) -> Plan {
    let kernel = call.ints("kernel_shape").unwrap_or_default().to_vec();
    let n_spatial = kernel.len();
    let rounding = match call.is_set("ceil_mode", false) {
        true => Rounding::Up,
        false => Rounding::Down,
    };
    let window = Window::Sliding {
        stride: per_axis(call, "strides", n_spatial, 1)?,
        padding: padding(call, n_spatial)?,
        dilation: per_axis(call, "dilations", n_spatial, 1)?,
        kernel,
        rounding,
    };
    one(Op::Pool(Pool { function, window }), &[0])
}

fn global(call: &Call, function: PoolFunction) -> Plan {
    let n_spatial = call.rank(0)?.saturating_sub(2);
    let window = Window::Adaptive { output: vec![Dim::ONE; n_spatial] };
    one(Op::Pool(Pool { function, window }), &[0])
}
