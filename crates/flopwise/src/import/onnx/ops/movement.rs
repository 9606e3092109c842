//! Operators that move elements without computing: reshape, slice, join, gather, pad, fill.
//!
//! Not here: lookups in stored tables (`layers.rs`).

use crate::graph::{Dim, Op, Range, Shape, Storage, TensorType, axis_of};
use crate::import::onnx::call::{Call, Plan, one};
use crate::import::onnx::symbols;
use crate::import::onnx::value::{FAR, Scalar, Value};
use flopwise_formats::Format;

/// No list that decides a shape at run time is taken to be longer.
const MAX_OPEN_RANK: usize = 16;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "Reshape" => reshape(call),
        "Flatten" => flatten(call),
        "Squeeze" => squeeze(call),
        "Unsqueeze" => unsqueeze(call),
        "Transpose" => transpose(call),
        "Expand" => expand(call),
        "Slice" => slice(call),
        "Split" => split(call),
        "Concat" => concat(call),
        "Pad" => pad(call),
        "Tile" => tile(call),
        "Constant" => constant(call),
        "GatherElements" => one(Op::GatherElements, &[0, 1]),
        "GatherND" => gather_nd(call),
        "ScatterElements" | "ScatterND" | "Scatter" => one(Op::Scatter, &[0, 1, 2]),
        "ReverseSequence" => one(Op::Copy, &[0]),
        "DepthToSpace" => blocks(call, Blocks::Spread),
        "SpaceToDepth" => blocks(call, Blocks::Gather),
        "ConstantOfShape" => constant_of_shape(call),
        "Range" => range(call),
        "OneHot" => one_hot(call),
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => fill_like(call),
        "RandomNormal" | "RandomUniform" => random(call),
        _ => return None,
    })
}

fn reshaped(shape: Vec<Dim>) -> Plan {
    one(Op::Reshape { shape: Shape(shape) }, &[0])
}

fn reshape(call: &Call) -> Plan {
    // The target was an attribute in version 1.
    let wanted = match call.list("shape", 1) {
        Ok(Some(wanted)) => Ok(wanted.iter().map(|length| Dim::from(*length)).collect()),
        Ok(None) => Err("its target shape is missing".to_owned()),
        Err(_) => call.sizes(1),
    };
    match wanted {
        Ok(wanted) => reshaped(reshape_target(call.shape(0)?, &wanted, is_zero_kept(call))?),
        Err(reason) => reshaped(open_reshape(call).ok_or(reason)?),
    }
}

/// A target that only the run knows: its length gives the rank.
fn open_reshape(call: &Call) -> Option<Vec<Dim>> {
    let elements = Dim::product(call.shape(0).ok()?);
    match call.length(1) {
        Some(1) => Some(vec![elements]),
        Some(rank) if rank <= MAX_OPEN_RANK => Some(call.declared_or_open(rank, Some(&elements))),
        _ => call.declared_shape(),
    }
}

/// Whether a 0 in the target means an empty axis; otherwise it copies the input's length.
pub(in crate::import::onnx) fn is_zero_kept(call: &Call) -> bool {
    call.is_set("allowzero", false)
}

/// The shape that `wanted` stands for: 0 copies the input's length on that axis unless zeros are
/// kept, and one -1 takes what is left. <https://onnx.ai/onnx/operators/onnx__Reshape.html>
pub(in crate::import::onnx) fn reshape_target(
    input: &[Dim],
    wanted: &[Dim],
    is_zero_kept: bool,
) -> Result<Vec<Dim>, String> {
    let mut shape = wanted.to_vec();
    let mut inferred = None;
    for (axis, length) in shape.iter_mut().enumerate() {
        match length.as_constant() {
            Some(0) if !is_zero_kept => {
                let copied = input.get(axis).cloned();
                *length =
                    copied.ok_or_else(|| format!("copies axis {axis}, which is not there"))?;
            }
            Some(-1) if inferred.replace(axis).is_some() => {
                return Err("leaves more than one axis open".to_owned());
            }
            _ => {}
        }
    }
    if let Some(axis) = inferred {
        shape[axis] = Dim::ONE;
        let (total, rest) = (Dim::product(input), Dim::product(&shape));
        shape[axis] = match rest == Dim::ZERO {
            true => Dim::ZERO,
            false => total.floor_div(&rest),
        };
    }
    Ok(shape)
}

/// Two axes: those before `axis` and the rest.
fn flatten(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let axis = call.int("axis").unwrap_or(1);
    // Unlike elsewhere, an axis equal to the rank is lawful.
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|axis| *axis <= shape.len());
    let axis = axis.ok_or_else(|| format!("flattens around an axis of {}", shape.len()))?;
    reshaped(vec![Dim::product(&shape[..axis]), Dim::product(&shape[axis..])])
}

fn squeeze(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let axes = match call.axes(1, shape.len()) {
        Ok(axes) => axes,
        Err(reason) => return open_squeeze(call, shape).unwrap_or(Err(reason)),
    };
    let is_dropped = |axis: usize| match &axes {
        Some(axes) => axes.contains(&axis),
        None => shape[axis] == Dim::ONE,
    };
    let kept = (0..shape.len()).filter(|axis| !is_dropped(*axis));
    reshaped(kept.map(|axis| shape[axis].clone()).collect())
}

/// Axes that only the run knows: when as many go as have length 1, it is those.
fn open_squeeze(call: &Call, shape: &[Dim]) -> Option<Plan> {
    let n_axes = call.length(1)?;
    let rest: Vec<Dim> = shape.iter().filter(|length| **length != Dim::ONE).cloned().collect();
    if rest.len() + n_axes == shape.len() {
        return Some(reshaped(rest));
    }
    let rank = shape.len().checked_sub(n_axes)?;
    Some(reshaped(call.declared_or_open(rank, Some(&Dim::product(shape)))))
}

fn unsqueeze(call: &Call) -> Plan {
    let axes = match call.list("axes", 1) {
        Ok(axes) => axes.unwrap_or_default(),
        Err(reason) => {
            let shape = call.shape(0)?;
            let n_axes = call.length(1).filter(|n_axes| *n_axes <= MAX_OPEN_RANK).ok_or(reason)?;
            let rank = shape.len() + n_axes;
            return reshaped(match shape.iter().all(|length| *length == Dim::ONE) {
                true => vec![Dim::ONE; rank],
                false => call.declared_or_open(rank, Some(&Dim::product(shape))),
            });
        }
    };
    reshaped(unsqueezed(call.shape(0)?, &axes, Dim::ONE)?)
}

/// `lengths` with a `one` inserted so that it stands on each of `axes` of the result.
pub(in crate::import::onnx) fn unsqueezed<T: Clone>(
    lengths: &[T],
    axes: &[i64],
    one: T,
) -> Result<Vec<T>, String> {
    let rank = lengths.len() + axes.len();
    let axes = axes.iter().map(|axis| axis_of(*axis, rank).map_err(|error| error.to_string()));
    let axes: Vec<usize> = axes.collect::<Result<_, _>>()?;
    let mut rest = lengths.iter();
    let all = (0..rank).map(|axis| match axes.contains(&axis) {
        true => Some(one.clone()),
        false => rest.next().cloned(),
    });
    let all: Option<Vec<T>> = all.collect();
    all.ok_or_else(|| "inserts an axis twice".to_owned())
}

fn transpose(call: &Call) -> Plan {
    let rank = call.rank(0)?;
    let permutation = match call.ints("perm").filter(|perm| !perm.is_empty()) {
        Some(perm) => {
            let axes = perm.iter().map(|axis| axis_of(*axis, rank));
            axes.collect::<Result<_, _>>().map_err(|error| error.to_string())?
        }
        None => (0..rank).rev().collect(),
    };
    // Runtimes transpose a stored tensor once, when they load the model.
    let is_stored = call.operand(0).is_some_and(|operand| operand.is_weight);
    let storage = if is_stored { Storage::View } else { Storage::Copy };
    one(Op::Transpose { permutation, storage }, &[0])
}

fn expand(call: &Call) -> Plan {
    let shape = match call.sizes(1) {
        Ok(shape) => shape,
        Err(reason) => match call.length(1).filter(|rank| *rank <= MAX_OPEN_RANK) {
            Some(rank) => {
                let rank = rank.max(call.rank(0)?);
                call.declared_or_open(rank, None)
            }
            None => call.declared_shape().ok_or(reason)?,
        },
    };
    one(Op::Expand { shape: Shape(shape) }, &[0])
}

fn tile(call: &Call) -> Plan {
    let repeats = match (call.operator(), call.opset < 6) {
        // Version 1: so many times along one axis.
        (_, true) => {
            let rank = call.rank(0)?;
            let axis = call.numbers(2)?.first().copied().unwrap_or(0);
            let axis = axis_of(axis, rank).map_err(|error| error.to_string())?;
            let mut repeats = vec![Dim::ONE; rank];
            repeats[axis] = call.size(1)?;
            repeats
        }
        _ => match call.sizes(1) {
            Ok(repeats) => repeats,
            Err(_) => (0..call.rank(0)?).map(|axis| call.open(0, axis, None)).collect(),
        },
    };
    one(Op::Tile { repeats }, &[0])
}

fn slice(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let ranges = match ranges(call, shape) {
        Ok(ranges) => ranges,
        Err(reason) => match declared_ranges(call, shape) {
            Some(ranges) => ranges,
            None => open_ranges(call, shape).ok_or(reason)?,
        },
    };
    one(Op::Slice { ranges, storage: Storage::Copy }, &[0])
}

/// Starts, ends and axes are attributes before version 10.
fn ranges(call: &Call, shape: &[Dim]) -> Result<Vec<Range>, String> {
    let from_attribute = |name| {
        let list = call.ints(name).unwrap_or_default();
        list.iter().map(|number| Dim::from(*number)).collect::<Vec<Dim>>()
    };
    let (starts, ends) = match call.has(1) {
        true => (call.sizes(1)?, call.sizes(2)?),
        false => (from_attribute("starts"), from_attribute("ends")),
    };
    let axes = match call.list("axes", 3)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = if call.has(4) { call.numbers(4)? } else { vec![1; starts.len()] };
    if [ends.len(), axes.len(), steps.len()].iter().any(|length| *length != starts.len()) {
        return Err("its starts, ends, axes and steps are not equally many".to_owned());
    }
    let mut ranges = Vec::new();
    for (position, axis) in axes.iter().enumerate() {
        let axis = axis_of(*axis, shape.len()).map_err(|error| error.to_string())?;
        let bounds = (&starts[position], &ends[position]);
        ranges.push(clamped_range(axis, bounds, steps[position], &shape[axis])?);
    }
    Ok(ranges)
}

/// Where bounds are unknown but the file declares the result.
fn declared_ranges(call: &Call, shape: &[Dim]) -> Option<Vec<Range>> {
    let declared = call.declared_shape().filter(|declared| declared.len() == shape.len())?;
    let pairs = declared.into_iter().zip(shape).enumerate();
    let cut = pairs.filter(|(_, (end, length))| end != *length);
    Some(cut.map(|(axis, (end, _))| Range { axis, start: Dim::ZERO, end, step: 1 }).collect())
}

/// Where only the run knows the bounds: axes that are cut come out as long as it says, at most
/// whole.
fn open_ranges(call: &Call, shape: &[Dim]) -> Option<Vec<Range>> {
    let all = || (0..shape.len()).collect();
    let axes: Vec<usize> = match (call.has(3), call.numbers(3)) {
        (true, Ok(axes)) => {
            axes.iter().map(|axis| axis_of(*axis, shape.len()).ok()).collect::<Option<_>>()?
        }
        (true, Err(_)) => all(),
        (false, _) => (0..call.length(1)?.min(shape.len())).collect(),
    };
    let open = |axis: usize| {
        let end = call.open(0, axis, Some(shape[axis].clone()));
        Range { axis, start: Dim::ZERO, end, step: 1 }
    };
    Some(axes.into_iter().map(open).collect())
}

/// The part of an axis that `start..end` in steps stands for: negative bounds count from the end,
/// and bounds beyond the axis are cut. <https://onnx.ai/onnx/operators/onnx__Slice.html>
pub(in crate::import::onnx) fn clamped_range(
    axis: usize,
    (start, end): (&Dim, &Dim),
    step: i64,
    length: &Dim,
) -> Result<Range, String> {
    if step == 0 {
        return Err("slices in steps of 0".to_owned());
    }
    // Backwards, the first element taken is at most the last of the axis, and the end may lie
    // before the axis, at -1.
    let (low, last) = match 0 < step {
        true => (Dim::ZERO, length.clone()),
        false => (Dim::from(-1i64), length - &Dim::ONE),
    };
    let first_low = Dim::ZERO;
    let start = clamped(start, length, &first_low, &last)?;
    let end = clamped(end, length, &low, &last)?;
    Ok(Range { axis, start, end, step })
}

fn clamped(bound: &Dim, length: &Dim, low: &Dim, last: &Dim) -> Result<Dim, String> {
    if let Some(number) = bound.as_constant() {
        if FAR <= number {
            return Ok(last.clone());
        }
        if number < -FAR {
            return Ok(low.clone());
        }
    }
    match Dim::ZERO.is_at_most(bound) {
        Some(true) => Ok(bound.minimum(last)),
        Some(false) => Ok((length + bound).maximum(low)),
        None => Err(format!("slices at {bound}, which may count from either end")),
    }
}

/// Lengths are an attribute before version 13; without any, the parts are equal, the last one
/// shorter where it does not come out even (version 18).
fn split(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let axis = call.axis("axis", 0, shape.len())?;
    let sizes = match (call.has(1), call.ints("split")) {
        (true, _) => call.sizes(1).unwrap_or_else(|_| open_parts(call, axis, &shape[axis])),
        (false, Some(split)) => split.iter().map(|size| Dim::from(*size)).collect(),
        (false, None) => {
            let n_parts = call.int("num_outputs").unwrap_or(call.node.output.len() as i64);
            let n_parts = n_parts.clamp(1, call.node.output.len().max(1) as i64);
            equal_parts(&shape[axis], n_parts, call.opset)
        }
    };
    one(Op::Split { axis, sizes, storage: Storage::Copy }, &[0])
}

/// Before version 18 the axis must come out even.
fn equal_parts(length: &Dim, n_parts: i64, opset: i64) -> Vec<Dim> {
    if opset < 18 {
        return vec![length.floor_div(&Dim::from(n_parts)); n_parts as usize];
    }
    let part = length.ceil_div(&Dim::from(n_parts));
    let rest = length - &(&part * &Dim::from(n_parts - 1));
    let mut sizes = vec![part; n_parts as usize - 1];
    sizes.push(rest.maximum(&Dim::ZERO));
    sizes
}

/// Lengths that only the run knows: taken as equal where nobody says, since together they are the
/// axis and what moves is the same.
fn open_parts(call: &Call, axis: usize, length: &Dim) -> Vec<Dim> {
    let n_parts = call.node.output.len().max(1);
    let equal = length.floor_div(&Dim::from(n_parts as i64));
    let rest = length - &(&equal * &Dim::from(n_parts as i64 - 1));
    let part = |part_idx: usize| {
        let most = if part_idx + 1 == n_parts { &rest } else { &equal };
        call.open(part_idx, axis, Some(most.clone()))
    };
    if n_parts == 1 { vec![length.clone()] } else { (0..n_parts).map(part).collect() }
}

fn concat(call: &Call) -> Plan {
    let inputs = call.given();
    let first = inputs.first().copied().unwrap_or(0);
    let axis = call.axis("axis", 0, call.rank(first)?)?;
    one(Op::Concat { axis }, &inputs)
}

/// All beginnings, then all ends, of the axes listed since version 18 or of all.
fn pad(call: &Call) -> Plan {
    let rank = call.rank(0)?;
    let pads = match call.ints("pads").or_else(|| call.ints("paddings")) {
        Some(pads) => pads.iter().map(|pad| Dim::from(*pad)).collect(),
        None => match call.sizes(1) {
            Ok(pads) => pads,
            Err(_) => return open_pad(call, rank),
        },
    };
    let axes: Vec<usize> = match call.has(3) {
        true => {
            let axes = call.numbers(3)?;
            let axes = axes.iter().map(|axis| axis_of(*axis, rank));
            axes.collect::<Result<_, _>>().map_err(|error| error.to_string())?
        }
        false => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} paddings for {} axes", pads.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (position, axis) in axes.iter().enumerate() {
        before[*axis] = pads[position].clone();
        after[*axis] = pads[axes.len() + position].clone();
    }
    one(Op::Pad { before, after }, &[0])
}

/// Paddings that only the run knows: the file may declare the result.
fn open_pad(call: &Call, rank: usize) -> Plan {
    let shape = call.shape(0)?;
    let axes = if call.has(3) { call.numbers(3).ok() } else { None };
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    let declared = call.declared_shape().filter(|declared| declared.len() == rank);
    let mut after = vec![Dim::ZERO; rank];
    for axis in axes {
        let axis = axis_of(axis, rank).map_err(|error| error.to_string())?;
        let declared = declared.as_ref().map(|declared| declared[axis].clone());
        let whole = declared.unwrap_or_else(|| call.open(0, axis, None));
        after[axis] = &whole - &shape[axis];
    }
    one(Op::Pad { before: vec![Dim::ZERO; rank], after }, &[0])
}

fn gather_nd(call: &Call) -> Plan {
    let batch_axes = usize::try_from(call.int("batch_dims").unwrap_or(0)).unwrap_or(0);
    one(Op::GatherNd { batch_axes }, &[0, 1])
}

/// Which way elements move between the channel axis and blocks of space.
#[derive(Clone, Copy)]
enum Blocks {
    Spread,
    Gather,
}

fn blocks(call: &Call, direction: Blocks) -> Plan {
    let [batch, channels, height, width] = call.shape(0)? else {
        return Err("moves blocks of a tensor that has not 4 axes".to_owned());
    };
    let size = Dim::from(call.int("blocksize").unwrap_or(1).clamp(1, 1 << 16));
    let square = &size * &size;
    let shape = match direction {
        Blocks::Spread => [channels.floor_div(&square), height * &size, width * &size],
        Blocks::Gather => [channels * &square, height.floor_div(&size), width.floor_div(&size)],
    };
    let [channels, height, width] = shape;
    let shape = Shape(vec![batch.clone(), channels, height, width]);
    one(Op::Rearrange { shape }, &[0])
}

fn fill(shape: Vec<Dim>, format: Format) -> Plan {
    one(Op::Fill { shape: Shape(shape), format }, &[])
}

/// A constant that is no stored tensor: texts, or more numbers than are looked into.
fn constant(call: &Call) -> Plan {
    let list = |length: usize| vec![Dim::from(length as u128)];
    let (shape, format) = if let Some(numbers) = call.ints("value_ints") {
        (list(numbers.len()), Format::INT64)
    } else if let Some(numbers) = call.floats("value_floats") {
        (list(numbers.len()), Format::FP32)
    } else if call.has_attribute("value_string") {
        (Vec::new(), Format::TEXT)
    } else if call.has_attribute("value_strings") {
        (call.declared_or_open(1, None), Format::TEXT)
    } else {
        return Err("its value is of a kind that is not read".to_owned());
    };
    fill(shape, format)
}

fn constant_of_shape(call: &Call) -> Plan {
    let format = call.tensor("value").and_then(|value| symbols::format(value.data_type));
    let shape = match call.sizes(0) {
        Ok(shape) => shape,
        Err(reason) => match call.length(0).filter(|rank| *rank <= MAX_OPEN_RANK) {
            Some(rank) => call.declared_or_open(rank, None),
            None => call.declared_shape().ok_or(reason)?,
        },
    };
    fill(shape, format.unwrap_or(Format::FP32))
}

/// `ceil((limit - start) / delta)` numbers.
fn range(call: &Call) -> Plan {
    let format = call.tensor_type(0)?.format;
    let single = |slot: usize| call.value(slot).and_then(Value::single).and_then(Scalar::exact);
    let length = match (single(0), single(1), single(2)) {
        (Some(start), Some(limit), Some(delta)) => {
            let forwards = Dim::ZERO.is_at_most(delta).filter(|_| *delta != Dim::ZERO);
            let (span, step) = match forwards {
                Some(true) => (limit - start, delta.clone()),
                Some(false) => (start - limit, -delta),
                None => return Err(format!("counts in steps of {delta}")),
            };
            span.ceil_div(&step).maximum(&Dim::ZERO)
        }
        _ => {
            let declared = call.declared_or_open(1, None).into_iter().next();
            declared.ok_or("its length is computed at run time")?
        }
    };
    fill(vec![length], format)
}

/// The indices' shape with an axis for the classes.
fn one_hot(call: &Call) -> Plan {
    let axis = call.int("axis").unwrap_or(-1);
    let rank = call.rank(0)? + 1;
    let depth = call.size(1).or_else(|_| {
        let axis = axis_of(axis, rank).map_err(|error| error.to_string())?;
        Ok::<Dim, String>(call.open(0, axis, None))
    })?;
    fill(unsqueezed(call.shape(0)?, &[axis], depth)?, call.tensor_type(2)?.format)
}

fn fill_like(call: &Call) -> Plan {
    let TensorType { shape, format } = call.tensor_type(0)?.clone();
    let wanted = call.int("dtype").and_then(|dtype| i32::try_from(dtype).ok());
    let format = wanted.and_then(symbols::format).unwrap_or(format);
    one(Op::Fill { shape, format }, &[0])
}

fn random(call: &Call) -> Plan {
    let shape = call.ints("shape").unwrap_or_default().iter().map(|length| Dim::from(*length));
    let wanted = call.int("dtype").and_then(|dtype| i32::try_from(dtype).ok());
    fill(shape.collect(), wanted.and_then(symbols::format).unwrap_or(Format::FP32))
}
