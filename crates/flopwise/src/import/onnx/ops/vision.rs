//! Operators of vision models: sampling at given places, regions of interest, deformable
//! convolution, columns to images, crops.
//!
//! Not here: convolutions and pooling (`windows.rs`), resampling to a size (`resize.rs`).

use super::windows;
use crate::graph::{
    Dim, Kind, MatMul, Op, Orientation, Range, Shape, Stated, Storage, TensorType, axis_of,
};
use crate::import::onnx::call::{Call, Plan, Source, Step, one, stated};
use flopwise_formats::Format;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "GridSample" => grid_sample(call),
        "AffineGrid" => affine_grid(call),
        "RoiAlign" => roi_align(call),
        "MaxRoiPool" => Err("how many elements a region holds is decided at run time".to_owned()),
        "DeformConv" => deformable(call),
        "Col2Im" => columns_to_image(call),
        "CenterCropPad" => center(call),
        "MaxUnpool" => unpool(call),
        "NonMaxSuppression" => Err("how many boxes it compares is decided at run time".to_owned()),
        "ImageDecoder" => Err("decoding an image takes what the data decide".to_owned()),
        "Det" => determinant(call),
        _ => return None,
    })
}

/// A value between n samples takes n multiplies and n - 1 adds.
fn per_value(samples: i64) -> i64 {
    2 * samples - 1
}

/// Bilinear interpolation meets four samples.
const BILINEAR: i64 = 4;

/// `X [n, c, in..], grid [n, out.., axes]`: each coordinate takes two adds and two multiplies to
/// become a place in the input (nearest: and a rounding).
/// <https://onnx.ai/onnx/operators/onnx__GridSample.html>
fn grid_sample(call: &Call) -> Plan {
    let (input, grid) = (call.shape(0)?, call.shape(1)?);
    let n_axes = input.len().saturating_sub(2);
    if n_axes == 0 || 4 < n_axes || grid.len() != input.len() {
        return Err(format!("samples {} axes at a grid of {}", input.len(), grid.len()));
    }
    let shape = [&input[..2], &grid[1..=n_axes]].concat();
    let (samples, per_coordinate) = match call.text("mode") {
        Some("nearest") => (0, 5),
        Some("cubic" | "bicubic") => (4i64.pow(n_axes as u32), 4),
        _ => (2i64.pow(n_axes as u32), 4),
    };
    let coordinates = &Dim::product(grid) * &Dim::from(per_coordinate);
    let values = &Dim::product(&shape) * &Dim::from(per_value(samples).max(0));
    let sampled = Stated::new("grid_sample", Kind::Pooling, vec![call.like(0, shape)?]);
    stated(call, Stated { other: &coordinates + &values, ..sampled })
}

/// `theta [n, 2, 3] or [n, 3, 4], size`: every place of the output, with a 1, times theta.
/// <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>
fn affine_grid(call: &Call) -> Plan {
    let grid = affine_grid_result(call)?;
    let (shape, format) = (grid.shape.0, grid.format);
    let n_axes = shape.len() - 2;
    let places = Shape(vec![Dim::product(&shape[1..=n_axes]), Dim::from(n_axes as i64 + 1)]);
    let times_theta = MatMul::new(Orientation::Plain, Orientation::Transposed);
    Ok(vec![
        Step { op: Op::Fill { shape: places, format }, operands: Vec::new() },
        Step { op: Op::MatMul(times_theta), operands: vec![Source::Step(0), Source::Input(0)] },
        Step { op: Op::Reshape { shape: Shape(shape) }, operands: vec![Source::Step(1)] },
    ])
}

pub(super) fn affine_grid_result(call: &Call) -> Result<TensorType, String> {
    let [batch, axes, _] = call.shape(0)? else { return Err("theta has not 3 axes".to_owned()) };
    let n_axes = axes.as_constant().filter(|n_axes| matches!(n_axes, 2 | 3));
    let n_axes = n_axes.ok_or("theta is for neither 2 nor 3 axes")? as usize;
    let sizes = call.sizes(1).ok().filter(|sizes| sizes.len() == n_axes + 2);
    let spatial = (0..n_axes).map(|axis| match &sizes {
        Some(sizes) => sizes[2 + axis].clone(),
        None => call.open(0, 1 + axis, None),
    });
    let mut shape = vec![batch.clone()];
    shape.extend(spatial);
    shape.push(axes.clone());
    call.like(0, shape)
}

pub(super) fn roi_result(call: &Call) -> Result<TensorType, String> {
    let (input, regions) = (call.shape(0)?, call.shape(1)?);
    let size = |name| Dim::from(call.int(name).unwrap_or(1));
    let (height, width) = match call.ints("pooled_shape") {
        Some([height, width]) => (Dim::from(*height), Dim::from(*width)),
        _ => (size("output_height"), size("output_width")),
    };
    let channels = input.get(1).ok_or("its input has no channels")?;
    let regions = regions.first().ok_or("its regions have no axes")?;
    call.like(0, vec![regions.clone(), channels.clone(), height, width])
}

/// Each result is the mean (or largest) of `sampling_ratio` squared bilinear samples.
/// <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>
fn roi_align(call: &Call) -> Plan {
    let result = roi_result(call)?;
    let ratio = call.int("sampling_ratio").filter(|ratio| (1..1 << 16).contains(ratio));
    let ratio = ratio.ok_or("how many samples a region takes follows from its size at run time")?;
    let samples = ratio * ratio;
    let each = samples * per_value(BILINEAR) + samples - 1;
    let results = result.shape.elements();
    let other = &results * &Dim::from(each);
    let is_mean = call.text("mode") != Some("max");
    let transcendental = if is_mean { results } else { Dim::ZERO };
    let aligned = Stated::new("roi_align", Kind::Pooling, vec![result]);
    stated(call, Stated { other, transcendental, ..aligned })
}

/// `X, W, offset, [bias], [mask]`: a convolution whose inputs are sampled bilinearly at places
/// moved by the offsets, once per channel, kernel element and position.
/// <https://onnx.ai/onnx/operators/onnx__DeformConv.html>
fn deformable(call: &Call) -> Plan {
    let convolution = windows::forward(call)?;
    let result = call.ruled(&convolution, &[0, 1])?;
    let (input, weight) = (call.shape(0)?, call.shape(1)?);
    let positions = Dim::product(&result.shape.0[2..]);
    let kernel = Dim::product(&weight[2..]);
    let columns = &(&(&input[0] * &input[1]) * &kernel) * &positions;
    let masked = i64::from(call.has(4));
    let mut other = &columns * &Dim::from(per_value(BILINEAR) + masked);
    other = &other + &Dim::product(call.shape(2)?);
    if call.has(3) {
        other = &other + &result.shape.elements();
    }
    let macs = &result.shape.elements() * &Dim::product(&weight[1..]);
    let deformed = Stated::new("deformable_convolution", Kind::Convolution, vec![result]);
    stated(call, Stated { macs, other, ..deformed })
}

/// `[n, c * block, positions]`: blocks that overlap are added.
/// <https://onnx.ai/onnx/operators/onnx__Col2Im.html>
fn columns_to_image(call: &Call) -> Plan {
    let result = image_result(call)?;
    let other = Dim::product(call.shape(0)?);
    let image = Stated::new("columns_to_image", Kind::Movement, vec![result]);
    one(Op::Stated(Box::new(Stated { other, ..image })), &[0])
}

pub(super) fn image_result(call: &Call) -> Result<TensorType, String> {
    let [batch, columns, _] = call.shape(0)? else {
        return Err("its input has not 3 axes".to_owned());
    };
    let n_axes = call.length(1).ok_or("its image has an unknown number of axes")?;
    let image = call
        .sizes(1)
        .unwrap_or_else(|_| (0..n_axes).map(|axis| call.open(0, 2 + axis, None)).collect());
    let block = call.sizes(2).map(|block| columns.floor_div(&Dim::product(&block)));
    let channels = block.unwrap_or_else(|_| call.open(0, 1, Some(columns.clone())));
    call.like(0, [vec![batch.clone(), channels], image].concat())
}

/// Axes longer than wanted are cut, shorter ones padded.
/// <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>
fn center(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let wanted = center_result(call)?;
    let cut: Vec<Dim> =
        shape.iter().zip(&wanted).map(|(length, want)| length.minimum(want)).collect();
    let axes = shape.iter().zip(&cut).enumerate().filter(|(_, (length, cut))| length != cut);
    let ranges: Vec<Range> = axes
        .map(|(axis, (_, end))| Range { axis, start: Dim::ZERO, end: end.clone(), step: 1 })
        .collect();
    let after: Vec<Dim> = wanted.iter().zip(&cut).map(|(want, cut)| want - cut).collect();
    let is_padded = after.iter().any(|amount| *amount != Dim::ZERO);
    let mut steps = Vec::new();
    if !ranges.is_empty() || !is_padded {
        let op = Op::Slice { ranges, storage: Storage::Copy };
        steps.push(Step { op, operands: vec![Source::Input(0)] });
    }
    if is_padded {
        let source = if steps.is_empty() { Source::Input(0) } else { Source::Step(0) };
        let op = Op::Pad { before: vec![Dim::ZERO; after.len()], after };
        steps.push(Step { op, operands: vec![source] });
    }
    Ok(steps)
}

fn center_result(call: &Call) -> Result<Vec<Dim>, String> {
    let mut shape = call.shape(0)?.to_vec();
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|axis| axis_of(*axis, shape.len())).collect(),
        None => (0..shape.len()).map(Ok).collect::<Result<Vec<usize>, _>>(),
    };
    let axes = axes.map_err(|error| error.to_string())?;
    let sizes = call.sizes(1);
    for (position, axis) in axes.into_iter().enumerate() {
        let known = sizes.as_ref().ok().and_then(|sizes| sizes.get(position).cloned());
        shape[axis] = known.unwrap_or_else(|| call.open(0, axis, None));
    }
    Ok(shape)
}

/// The inverse of a pooling: what is not named by an index is zero. `I` may address an output
/// larger than the pooled one, which is then given as input 2.
/// <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>
fn unpool(call: &Call) -> Plan {
    let input = call.shape(0)?;
    let kernel = call.ints("kernel_shape").unwrap_or_default();
    let n_spatial = kernel.len();
    let first = input.len().checked_sub(n_spatial).ok_or("unpools more axes than there are")?;
    let stride = windows::per_axis(call, "strides", n_spatial, 1)?;
    let pads = windows::per_axis(call, "pads", 2 * n_spatial, 0)?;
    let mut shape = input[..first].to_vec();
    for axis in 0..n_spatial {
        let spread = &(&input[first + axis] - &Dim::ONE) * &Dim::from(stride[axis]);
        let around = &Dim::from(pads[axis]) + &Dim::from(pads[n_spatial + axis]);
        shape.push(&(&spread + &Dim::from(kernel[axis])) - &around);
    }
    if call.has(2) {
        let whole = call.sizes(2).ok().filter(|whole| whole.len() == input.len());
        shape = whole.unwrap_or_else(|| call.declared_or_open(input.len(), None));
    }
    let zeros = Op::Fill { shape: Shape(shape), format: call.tensor_type(0)?.format };
    let operands = vec![Source::Step(0), Source::Input(1), Source::Input(0)];
    Ok(vec![Step { op: zeros, operands: Vec::new() }, Step { op: Op::Scatter, operands }])
}

/// `[selected, 3]`: at most so many boxes per image and class; none where that input is left out.
/// <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>
pub(super) fn suppression_result(call: &Call) -> Result<TensorType, String> {
    let [images, boxes, _] = call.shape(0)? else {
        return Err("its boxes have not 3 axes".to_owned());
    };
    let classes = call.shape(1)?.get(1).ok_or("its scores have not 3 axes")?;
    let most = match call.has(2) {
        true => call.size(2).map_or(boxes.clone(), |most| most.minimum(boxes)),
        false => Dim::ZERO,
    };
    let at_most = &(images * classes) * &most;
    let selected = if call.has(2) { call.open(0, 0, Some(at_most)) } else { Dim::ZERO };
    Ok(TensorType { shape: Shape(vec![selected, Dim::from(3)]), format: Format::INT64 })
}

/// Height and width of an image are in its data.
pub(super) fn decoder_result(call: &Call) -> TensorType {
    let channels = if call.text("pixel_format") == Some("Grayscale") { 1 } else { 3 };
    let shape = vec![call.open(0, 0, None), call.open(0, 1, None), Dim::from(channels)];
    TensorType { shape: Shape(shape), format: Format::UINT8 }
}

/// By LU decomposition: column j of n divides n - j elements by the pivot and subtracts a multiple
/// of its row from as many others, n (n - 1) / 2 divisions and n (n - 1) (2 n - 1) / 3 multiplies
/// and subtractions in all; then the product of the diagonal.
/// <https://onnx.ai/onnx/operators/onnx__Det.html>
fn determinant(call: &Call) -> Plan {
    let [batch @ .., _, n] = call.shape(0)? else {
        return Err("the determinant of a tensor without two axes".to_owned());
    };
    let matrices = Dim::product(batch);
    let square = n * &(n - &Dim::ONE);
    let divisions = square.floor_div(&Dim::from(2));
    let doubled = &(n * &Dim::from(2)) - &Dim::ONE;
    let updates = (&square * &doubled).floor_div(&Dim::from(3));
    let other = &matrices * &(&updates + &(n - &Dim::ONE));
    let results = vec![call.like(0, batch.to_vec())?];
    let determinant = Stated::new("determinant", Kind::Elementwise, results);
    stated(call, Stated { other, transcendental: &matrices * &divisions, ..determinant })
}
