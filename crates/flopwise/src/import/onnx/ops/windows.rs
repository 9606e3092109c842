//! Operators that slide a window over spatial axes: convolutions and pooling.
//!
//! Not here: how long the result is (`graph/shape.rs`).

use crate::graph::{
    Convolution, Dim, Direction, Function, Kind, Op, Padding, Pool, PoolFunction, Rounding, Stated,
    Window,
};
use crate::import::onnx::call::{Call, Plan, Source, Step, one, stated};

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "Conv" => convolution(call),
        "ConvTranspose" => transposed(call),
        "MaxPool" => sliding(call, PoolFunction::Max),
        "AveragePool" => sliding(call, PoolFunction::Average),
        "LpPool" => sliding(call, PoolFunction::Average).map(|pool| after_power(call, pool)),
        "GlobalMaxPool" => global(call, PoolFunction::Max),
        "GlobalAveragePool" => global(call, PoolFunction::Average),
        "GlobalLpPool" => global(call, PoolFunction::Average).map(|pool| after_power(call, pool)),
        _ => return None,
    })
}

/// A list with one number per spatial axis, or as many of `default`.
pub(super) fn per_axis(
    call: &Call,
    name: &str,
    n_spatial: usize,
    default: i64,
) -> Result<Vec<i64>, String> {
    match call.ints(name) {
        Some(list) if list.len() == n_spatial => Ok(list.to_vec()),
        Some(list) if !list.is_empty() => {
            Err(format!("`{name}` has {} numbers for {n_spatial} spatial axes", list.len()))
        }
        _ => Ok(vec![default; n_spatial]),
    }
}

pub(super) fn padding(call: &Call, n_spatial: usize) -> Result<Padding, String> {
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
    one(forward(call)?, &call.given_of_first(3))
}

pub(super) fn forward(call: &Call) -> Result<Op, String> {
    let n_spatial = call.rank(1)?.saturating_sub(2);
    Ok(Op::Convolution(Convolution {
        direction: Direction::Forward,
        stride: per_axis(call, "strides", n_spatial, 1)?,
        padding: padding(call, n_spatial)?,
        dilation: per_axis(call, "dilations", n_spatial, 1)?,
        groups: call.int("group").unwrap_or(1),
    }))
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
        if let Err(reason) = pad_to(call, &mut convolution, spatial) {
            return to_shape(call, spatial).unwrap_or(Err(reason));
        }
    }
    one(Op::Convolution(convolution), &call.given_of_first(3))
}

/// A given output whose padding hangs on an open length: the products are those of the inputs with
/// the kernel, whatever the padding.
fn to_shape(call: &Call, wanted: &[i64]) -> Option<Plan> {
    let (input, weight) = (call.shape(0).ok()?, call.shape(1).ok()?);
    let [batch, _, spatial @ ..] = input else { return None };
    if spatial.len() != wanted.len() {
        return None;
    }
    let groups = Dim::from(call.int("group").unwrap_or(1));
    let mut shape = vec![batch.clone(), weight.get(1)? * &groups];
    shape.extend(wanted.iter().map(|length| Dim::from(*length)));
    let result = call.like(0, shape).ok()?;
    let macs = &Dim::product(input) * &Dim::product(&weight[1..]);
    let other = if call.has(2) { result.shape.elements() } else { Dim::ZERO };
    let convolution = Stated::new("convolution_transposed", Kind::Convolution, vec![result]);
    Some(stated(call, Stated { macs, other, ..convolution }))
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

pub(super) fn sliding(call: &Call, function: PoolFunction) -> Plan {
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

/// `(sum of |x|^p)^(1/p)`: the power of each element, then sums and one root each, which cost what
/// means do; a sum of absolute values (p = 1) has no root, and is counted with one.
fn after_power(call: &Call, mut pool: Vec<Step>) -> Vec<Step> {
    let power = match call.int("p").unwrap_or(2) {
        1 => Function::Absolute,
        2 => Function::Square,
        _ => Function::Power,
    };
    let power = Step { op: Op::Elementwise(power), operands: vec![Source::Input(0)] };
    for step in &mut pool {
        step.operands = vec![Source::Step(0)];
    }
    pool.insert(0, power);
    pool
}

fn global(call: &Call, function: PoolFunction) -> Plan {
    let n_spatial = call.rank(0)?.saturating_sub(2);
    let window = Window::Adaptive { output: vec![Dim::ONE; n_spatial] };
    one(Op::Pool(Pool { function, window }), &[0])
}
