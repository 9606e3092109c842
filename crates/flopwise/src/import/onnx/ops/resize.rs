//! Resampling to another size.
//!
//! Not here: the sampled values. <https://onnx.ai/onnx/operators/onnx__Resize.html>

use crate::graph::{Dim, Interpolation, Op, Shape, axis_of};
use crate::import::onnx::call::{Call, Plan, one};

pub(super) fn plan(call: &Call) -> Option<Plan> {
    matches!(call.operator(), "Resize" | "Upsample").then(|| resize(call))
}

fn resize(call: &Call) -> Plan {
    let interpolation = match call.text("mode") {
        Some("linear" | "bilinear" | "trilinear") => Interpolation::Linear,
        Some("cubic") => Interpolation::Cubic,
        _ => Interpolation::Nearest,
    };
    let shape = match target(call) {
        Ok(shape) => shape,
        Err(_) => open_target(call)?,
    };
    one(Op::Resize { shape: Shape(shape), interpolation }, &[0])
}

fn target(call: &Call) -> Result<Vec<Dim>, String> {
    let input = call.shape(0)?;
    let mut shape = input.to_vec();
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|axis| axis_of(*axis, input.len())).collect(),
        None => (0..input.len()).map(Ok).collect::<Result<Vec<usize>, _>>(),
    };
    let axes = axes.map_err(|error| error.to_string())?;
    // Sizes are input 3 since version 11; scales were input 1 before, and an attribute once.
    if call.has(3) {
        for (axis, size) in axes.iter().zip(call.sizes(3)?) {
            shape[*axis] = size;
        }
        let policy = call.text("keep_aspect_ratio_policy").unwrap_or("stretch");
        return if policy == "stretch" { Ok(shape) } else { in_ratio(input, shape, &axes, policy) };
    }
    let scales_slot = if call.operator() == "Resize" && 11 <= call.opset { 2 } else { 1 };
    let scales: Vec<f64> = match call.floats("scales") {
        Some(scales) => scales.iter().map(|scale| f64::from(*scale)).collect(),
        None => {
            let value = call.value(scales_slot).ok_or("its scales are computed at run time")?;
            let scales = value.elements.iter().map(|scale| scale.as_f64());
            scales.collect::<Option<_>>().ok_or("its scales depend on a size that is left open")?
        }
    };
    for (axis, scale) in axes.iter().zip(scales) {
        shape[*axis] = scaled(&input[*axis], scale)?;
    }
    Ok(shape)
}

/// Sizes or scales that only the run knows.
fn open_target(call: &Call) -> Result<Vec<Dim>, String> {
    let mut shape = call.shape(0)?.to_vec();
    if let Some(declared) = call.declared_shape().filter(|declared| declared.len() == shape.len()) {
        return Ok(declared);
    }
    let axes = call.ints("axes").map_or_else(|| (0..shape.len() as i64).collect(), <[i64]>::to_vec);
    for axis in axes {
        let axis = axis_of(axis, shape.len()).map_err(|error| error.to_string())?;
        shape[axis] = call.open(0, axis, None);
    }
    Ok(shape)
}

/// All axes by one scale, the smallest or the largest of those wanted (version 18).
fn in_ratio(
    input: &[Dim],
    mut wanted: Vec<Dim>,
    axes: &[usize],
    policy: &str,
) -> Result<Vec<Dim>, String> {
    let scale = |axis: &usize| {
        let (length, wanted) = (input[*axis].as_constant()?, wanted[*axis].as_constant()?);
        (length != 0).then(|| wanted as f64 / length as f64)
    };
    let scales: Option<Vec<f64>> = axes.iter().map(scale).collect();
    let scales = scales.ok_or("its common scale depends on a size that is left open")?;
    let scale = match policy {
        "not_larger" => scales.into_iter().min_by(f64::total_cmp),
        _ => scales.into_iter().max_by(f64::total_cmp),
    };
    for axis in axes {
        let length = input[*axis].as_constant().unwrap_or(0) as f64;
        wanted[*axis] = Dim::from((length * scale.unwrap_or(1.0)).round() as i64);
    }
    Ok(wanted)
}

/// `floor(length * scale)`. With a symbolic length, the scale or its inverse must be an integer.
fn scaled(length: &Dim, scale: f64) -> Result<Dim, String> {
    const MAX_SCALE: f64 = 1e6;
    if !(0.0..MAX_SCALE).contains(&scale) {
        return Err(format!("scales by {scale}"));
    }
    let is_whole = |number: f64| number.fract().total_cmp(&0.0).is_eq();
    if is_whole(scale) {
        return Ok(length * &Dim::from(scale as i64));
    }
    if let Some(length) = length.as_constant() {
        return Ok(Dim::from((length as f64 * scale).floor() as i64));
    }
    if is_whole(1.0 / scale) {
        return Ok(length.floor_div(&Dim::from((1.0 / scale) as i64)));
    }
    Err(format!("scales a length that is left open by {scale}"))
}
