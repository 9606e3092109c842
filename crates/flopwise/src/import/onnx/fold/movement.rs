//! Known tensors through operators that move elements.
//!
//! Not here: arithmetic (`arithmetic.rs`).

use super::arithmetic::{broadcast, expanded};
use crate::graph::{Dim, axis_of};
use crate::import::onnx::call::Call;
use crate::import::onnx::ops::{clamped_range, reshape_target, unsqueezed};
use crate::import::onnx::value::{self, Scalar, Value, concrete, place_of, strides};
use crate::import::onnx::weight;
use flopwise_formats::Format;

pub(super) fn evaluate(call: &Call) -> Option<Value> {
    match call.operator() {
        "Gather" => gather(call),
        "GatherElements" => gather_elements(call),
        "GatherND" => gather_nd(call),
        "ScatterND" => scatter_nd(call),
        "ScatterElements" => scatter_elements(call),
        "Slice" => slice(call),
        "Concat" => concat(call),
        "Reshape" => reshape(call),
        "Flatten" => flatten(call),
        "Squeeze" => squeeze(call),
        "Unsqueeze" => {
            let value = call.value(0)?;
            let axes = call.list("axes", 1).ok()??;
            value.reshaped(unsqueezed(&value.shape, &axes, 1).ok()?)
        }
        "Transpose" => transpose(call),
        "Expand" => {
            let wanted = concrete(&call.value(1)?.dims()?)?;
            let value = call.value(0)?;
            expanded(value, &broadcast(&value.shape, &wanted)?)
        }
        "Tile" => tile(call),
        "ConstantOfShape" => constant_of_shape(call),
        "Range" => range(call),
        "NonZero" => non_zero(call.value(0)?),
        _ => None,
    }
}

/// An index into an axis, negative ones counted from the end.
fn position(index: &Scalar, length: usize) -> Option<usize> {
    let index = index.as_i128()?;
    let index = if index < 0 { index + length as i128 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn axis(call: &Call, rank: usize) -> Option<usize> {
    call.axis("axis", 0, rank).ok()
}

fn gather(call: &Call) -> Option<Value> {
    let (data, indices) = (call.value(0)?, call.value(1)?);
    let axis = axis(call, data.shape.len())?;
    let n_indexed = indices.shape.len();
    let shape = [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat();
    let (in_data, in_indices) = (strides(&data.shape), strides(&indices.shape));
    data.rearranged(shape, |index| {
        let (before, rest) = index.split_at(axis);
        let (chosen, after) = rest.split_at(n_indexed);
        let row = indices.elements.get(place_of(chosen, &in_indices))?;
        let row = position(row, data.shape[axis])?;
        let outside = place_of(before, &in_data) + place_of(after, &in_data[axis + 1..]);
        Some(outside + row * in_data[axis])
    })
}

fn gather_elements(call: &Call) -> Option<Value> {
    let (data, indices) = (call.value(0)?, call.value(1)?);
    let axis = axis(call, data.shape.len())?;
    let (in_data, in_indices) = (strides(&data.shape), strides(&indices.shape));
    if data.shape.len() != indices.shape.len() {
        return None;
    }
    data.rearranged(indices.shape.clone(), |index| {
        let row = indices.elements.get(place_of(index, &in_indices))?;
        let mut index = index.to_vec();
        index[axis] = position(row, data.shape[axis])?;
        Some(place_of(&index, &in_data))
    })
}

/// Where the row `row` of index tuples points: a place, the first of the elements meant.
fn tuple_place(data: &Value, indices: &Value, row: usize, depth: usize) -> Option<usize> {
    let tuple = indices.elements.get(row * depth..(row + 1) * depth)?;
    let steps = strides(&data.shape);
    let places = tuple
        .iter()
        .enumerate()
        .map(|(axis, index)| Some(position(index, *data.shape.get(axis)?)? * steps[axis]));
    places.sum()
}

fn gather_nd(call: &Call) -> Option<Value> {
    let (data, indices) = (call.value(0)?, call.value(1)?);
    let (depth, rows) = indices.shape.split_last()?;
    let rest = data.shape.get(*depth..)?;
    if call.int("batch_dims").unwrap_or(0) != 0 {
        return None;
    }
    let (in_rows, in_rest) = (strides(rows), strides(rest));
    data.rearranged([rows, rest].concat(), |index| {
        let (row, inner) = index.split_at(rows.len());
        let first = tuple_place(data, indices, place_of(row, &in_rows), *depth)?;
        Some(first + place_of(inner, &in_rest))
    })
}

fn scatter_nd(call: &Call) -> Option<Value> {
    let (data, indices, updates) = (call.value(0)?, call.value(1)?, call.value(2)?);
    if !matches!(call.text("reduction"), None | Some("none")) {
        return None;
    }
    let (depth, rows) = indices.shape.split_last()?;
    let n_inner = value::volume(data.shape.get(*depth..)?)?;
    let mut elements = data.elements.to_vec();
    for row in 0..value::volume(rows)? {
        let first = tuple_place(data, indices, row, *depth)?;
        let update = updates.elements.get(row * n_inner..(row + 1) * n_inner)?;
        elements.get_mut(first..first + n_inner)?.clone_from_slice(update);
    }
    Value::new(data.format, data.shape.clone(), elements)
}

fn scatter_elements(call: &Call) -> Option<Value> {
    let (data, indices, updates) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let axis = axis(call, data.shape.len())?;
    let fits = data.shape.len() == indices.shape.len() && updates.shape == indices.shape;
    if !fits || !matches!(call.text("reduction"), None | Some("none")) {
        return None;
    }
    let steps = strides(&data.shape);
    let mut elements = data.elements.to_vec();
    let updates = indices.elements.iter().zip(updates.elements.iter());
    for (mut index, (row, update)) in value::indices(&indices.shape).zip(updates) {
        index[axis] = position(row, data.shape[axis])?;
        *elements.get_mut(place_of(&index, &steps))? = update.clone();
    }
    Value::new(data.format, data.shape.clone(), elements)
}

/// One axis of a slice: the first place taken, the step, and how many.
fn taken(bounds: (&Dim, &Dim), step: i64, length: usize) -> Option<(i128, i128, usize)> {
    let length = Dim::from(length as u128);
    let range = clamped_range(0, bounds, step, &length).ok()?;
    let (start, end) = (range.start.as_constant()?, range.end.as_constant()?);
    let step = i128::from(step);
    let span = if 0 < step { end - start } else { start - end };
    let n_taken = usize::try_from(span.max(0).div_euclid(step.abs())).ok()?;
    let is_uneven = span.max(0).rem_euclid(step.abs()) != 0;
    Some((start, step, n_taken + usize::from(is_uneven)))
}

fn slice(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let rank = value.shape.len();
    let attribute = |name| {
        let list = call.ints(name).unwrap_or_default();
        list.iter().map(|number| Dim::from(*number)).collect::<Vec<Dim>>()
    };
    let (starts, ends) = match call.has(1) {
        true => (call.sizes(1).ok()?, call.sizes(2).ok()?),
        false => (attribute("starts"), attribute("ends")),
    };
    let axes = call.list("axes", 3).ok()?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = if call.has(4) { call.numbers(4).ok()? } else { vec![1; starts.len()] };
    let whole = value.shape.iter().map(|length| (0, 1, *length));
    let mut cuts: Vec<(i128, i128, usize)> = whole.collect();
    for (place, axis) in axes.iter().enumerate() {
        let axis = axis_of(*axis, rank).ok()?;
        let bounds = (starts.get(place)?, ends.get(place)?);
        cuts[axis] = taken(bounds, *steps.get(place)?, value.shape[axis])?;
    }
    let in_value = strides(&value.shape);
    let shape = cuts.iter().map(|(_, _, n_taken)| *n_taken).collect();
    value.rearranged(shape, |index| {
        let axes = index.iter().zip(&cuts).zip(&in_value);
        let places = axes.map(|((at, (start, step, _)), stride)| {
            let at = usize::try_from(start + *at as i128 * step).ok()?;
            Some(at * stride)
        });
        places.sum()
    })
}

pub(super) fn split(call: &Call) -> Option<Vec<Value>> {
    let value = call.value(0)?;
    let axis = axis(call, value.shape.len())?;
    let n_parts = call.node.output.len().max(1);
    let sizes: Vec<usize> = match call.list("split", 1).ok()? {
        Some(sizes) => sizes.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?,
        None => {
            let part = value.shape[axis].div_ceil(n_parts);
            let ends = (0..=n_parts).map(|place| (place * part).min(value.shape[axis]));
            let ends: Vec<usize> = ends.collect();
            ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
        }
    };
    let in_value = strides(&value.shape);
    let mut before = 0usize;
    let parts = sizes.into_iter().map(|size| {
        let mut shape = value.shape.clone();
        shape[axis] = size;
        let first = before.checked_mul(in_value[axis])?;
        before = before.checked_add(size)?;
        value.rearranged(shape, |index| first.checked_add(place_of(index, &in_value)))
    });
    parts.collect::<Option<Vec<Value>>>().filter(|parts| parts.len() == n_parts)
}

fn concat(call: &Call) -> Option<Value> {
    let parts: Option<Vec<&Value>> = (0..call.operands.len()).map(|s| call.value(s)).collect();
    let parts = parts?;
    let first = parts.first()?;
    let axis = axis(call, first.shape.len())?;
    // Everything before the axis is an outer loop; each part gives one run per round.
    let n_outer = value::volume(&first.shape[..axis])?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for part in &parts {
        let mut beside = part.shape.clone();
        shape[axis] = shape[axis].checked_add(*beside.get(axis)?)?;
        beside[axis] = shape[axis];
        if beside != shape {
            return None;
        }
    }
    let mut elements = Vec::new();
    for outer in 0..n_outer {
        for part in &parts {
            let run = part.elements.len() / n_outer;
            elements.extend_from_slice(part.elements.get(outer * run..(outer + 1) * run)?);
        }
    }
    Value::new(first.format, shape, elements)
}

fn reshape(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let wanted = match call.has(1) {
        true => call.sizes(1).ok()?,
        false => call.ints("shape")?.iter().map(|length| Dim::from(*length)).collect(),
    };
    let lengths: Vec<Dim> = value.tensor_type().shape.0;
    let target = reshape_target(&lengths, &wanted, call.is_set("allowzero", false)).ok()?;
    value.reshaped(concrete(&target)?)
}

fn flatten(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let rank = value.shape.len() as i64;
    let axis = call.int("axis").unwrap_or(1);
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let (before, after) = value.shape.split_at_checked(axis)?;
    value.reshaped(vec![value::volume(before)?, value::volume(after)?])
}

fn squeeze(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let axes = call.axes(1, value.shape.len()).ok()?;
    let lengths = value.shape.iter().enumerate();
    let kept = lengths.filter(|(axis, length)| match &axes {
        Some(axes) => !axes.contains(axis),
        None => **length != 1,
    });
    value.reshaped(kept.map(|(_, length)| *length).collect())
}

fn transpose(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let rank = value.shape.len();
    let permutation: Vec<usize> = match call.ints("perm").filter(|perm| !perm.is_empty()) {
        Some(perm) => perm.iter().map(|axis| axis_of(*axis, rank).ok()).collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    if permutation.len() != rank {
        return None;
    }
    let in_value = strides(&value.shape);
    let steps: Vec<usize> = permutation.iter().map(|axis| in_value[*axis]).collect();
    let shape = permutation.iter().map(|axis| value.shape[*axis]).collect();
    value.rearranged(shape, |index| Some(place_of(index, &steps)))
}

fn tile(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let repeats = concrete(&call.value(1)?.dims()?)?;
    if repeats.len() != value.shape.len() {
        return None;
    }
    let lengths = value.shape.iter().zip(&repeats);
    let shape: Option<Vec<usize>> = lengths.map(|(n, repeat)| n.checked_mul(*repeat)).collect();
    let in_value = strides(&value.shape);
    value.rearranged(shape?, |index| {
        let axes = index.iter().zip(&value.shape).zip(&in_value);
        Some(axes.map(|((at, length), stride)| at % length * stride).sum())
    })
}

fn constant_of_shape(call: &Call) -> Option<Value> {
    let shape = concrete(&call.value(0)?.dims()?)?;
    let element = match call.tensor("value") {
        Some(tensor) => weight::value(tensor)?,
        None => Value::scalar(Format::FP32, Scalar::Exact(Dim::ZERO)),
    };
    let element = element.reshaped(Vec::new())?;
    expanded(&element, &shape)
}

fn range(call: &Call) -> Option<Value> {
    /// Beyond this no value is kept anyway.
    const MAX_LENGTH: i128 = 1 << 16;
    let single = |slot| call.value(slot).and_then(Value::single).and_then(Scalar::as_i128);
    let (start, limit, delta) = (single(0)?, single(1)?, single(2)?);
    let span = if 0 < delta { limit.checked_sub(start)? } else { start.checked_sub(limit)? };
    let step = delta.checked_abs().filter(|step| *step != 0)?;
    let length = span.max(0).div_euclid(step) + i128::from(span.max(0).rem_euclid(step) != 0);
    if MAX_LENGTH < length {
        return None;
    }
    let format = call.value(0)?.format;
    let numbers = (0..length).map(|place| i64::try_from(start + place * delta).ok());
    let elements: Option<Vec<Scalar>> =
        numbers.map(|number| Some(Scalar::Exact(number?.into()))).collect();
    Value::new(format, vec![length as usize], elements?)
}

/// The index of each element that is not zero, one column each.
fn non_zero(value: &Value) -> Option<Value> {
    let mut columns = Vec::new();
    for (index, element) in value::indices(&value.shape).zip(value.elements.iter()) {
        let is_zero = match element {
            Scalar::Exact(dim) => dim.is_equal(&Dim::ZERO)?,
            Scalar::Float(_) => false,
        };
        columns.extend((!is_zero).then_some(index));
    }
    let rank = value.shape.len();
    let rows = (0..rank).flat_map(|axis| columns.iter().map(move |index| index[axis]));
    let elements = rows.map(|at| Scalar::Exact(Dim::from(at as u128))).collect();
    Value::new(Format::INT64, vec![rank, columns.len()], elements)
}
