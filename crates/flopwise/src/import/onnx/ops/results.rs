//! Types of results that the shape rule of a plan does not give: second and further results, other
//! formats, and what is known of a result whose operator is not counted or whose sizes only the
//! run knows.
//!
//! Not here: what the operators compute (the other files).

use super::{attention, classic, contrib, quantized, selection, signal, vision};
use crate::graph::{Dim, Function, Op, Shape, TensorType};
use crate::import::onnx::call::Call;
use flopwise_formats::Format;

type Results = Result<Vec<Option<TensorType>>, String>;

/// The types of a node's results, as far as this file knows them; what it says goes before the
/// file's own declaration.
pub(super) fn of(call: &Call) -> Vec<Option<TensorType>> {
    let results = match call.node.domain.as_str() {
        "" | "ai.onnx" => standard(call),
        "com.microsoft" => contrib::results(call),
        "ai.onnx.ml" => classic::results(call),
        "ai.onnx.preview.training" => derivatives(call),
        "ai.onnx.preview" => {
            call.ruled(&Op::Softmax { axis: 0 }, &[0]).map(|query| flex_result(call, query))
        }
        _ => Ok(Vec::new()),
    };
    results.unwrap_or_default()
}

fn standard(call: &Call) -> Results {
    let only = |found: TensorType| vec![Some(found)];
    let boolean = |shape: &Shape| TensorType { shape: shape.clone(), format: Format::BOOL };
    Ok(match call.operator() {
        "MaxPool" => vec![None, Some(positions(call)?)],
        "Dropout" => {
            let data = call.tensor_type(0)?;
            let mask = if call.opset < 10 { data.clone() } else { boolean(&data.shape) };
            vec![None, Some(mask)]
        }
        "BatchNormalization" => statistics(call)?,
        "LayerNormalization" => moments(call)?,
        "Attention" => attention::results(call)?,
        // The base decides, also where the exponent is a float.
        "Pow" => {
            let powers = call.ruled(&Op::Elementwise(Function::Power), &[0, 1])?;
            only(call.like(0, powers.shape.0)?)
        }
        "Unique" => selection::unique_results(call)?,
        "Multinomial" => only(selection::multinomial_result(call)?),
        "TfIdfVectorizer" => only(selection::n_gram_result(call)?),
        "NonMaxSuppression" => only(vision::suppression_result(call)?),
        "ImageDecoder" => only(vision::decoder_result(call)),
        "RoiAlign" | "MaxRoiPool" => only(vision::roi_result(call)?),
        "DFT" => only(signal::transform_result(call)?),
        "STFT" => only(signal::short_time_result(call)?),
        "MelWeightMatrix" => only(signal::mel_result(call)),
        "Size" => only(TensorType { shape: Shape::default(), format: Format::INT64 }),
        operator if operator.starts_with("Reduce") => only(reduced(call)?),
        _ => quantized::results(call)?,
    })
}

/// Where the largest elements stood.
fn positions(call: &Call) -> Result<TensorType, String> {
    let plan = super::windows::plan(call).ok_or("it has no rule")??;
    let pooled = call.ruled(&plan.last().ok_or("it has no steps")?.op, &[0])?;
    Ok(TensorType { format: Format::INT64, ..pooled })
}

/// Running mean and variance, and before version 14 those of the batch: one number per channel.
fn statistics(call: &Call) -> Results {
    let mean = call.tensor_type(3)?;
    Ok([None].into_iter().chain((1..5).map(|_| Some(mean.clone()))).collect())
}

/// Mean and inverse deviation of each row.
fn moments(call: &Call) -> Results {
    let mut shape = call.shape(0)?.to_vec();
    let axis = call.axis("axis", -1, shape.len())?;
    shape[axis..].fill(Dim::ONE);
    let format = match call.int("stash_type") {
        Some(_) => call.format("stash_type").unwrap_or(Format::FP32),
        None => Format::FP32,
    };
    let moment = TensorType { shape: Shape(shape), format };
    Ok(vec![None, Some(moment.clone()), Some(moment)])
}

/// Over axes that only the run knows: with their number the rank is known, and which sizes there
/// may be.
fn reduced(call: &Call) -> Result<TensorType, String> {
    let shape = call.shape(0)?;
    let n_axes = if call.has(1) { call.length(1) } else { None };
    if call.operator() == "ReduceSum" && call.opset < 13 || !call.has(1) || call.numbers(1).is_ok()
    {
        return Err("the operator's rule gives it".to_owned());
    }
    let is_kept = call.is_set("keepdims", true);
    let is_noop = call.is_set("noop_with_empty_axes", false);
    let n_reduced = match n_axes {
        Some(0) if !is_noop => shape.len(),
        Some(n_axes) => n_axes,
        // Any axis may go.
        None if is_kept => shape.len().saturating_sub(1),
        None => return Err("how many axes go is not known".to_owned()),
    };
    let sizes: Vec<Dim> = if n_reduced == 0 {
        shape.to_vec()
    } else if is_kept {
        let kept = |(axis, length): (usize, &Dim)| match n_reduced < shape.len() {
            true if *length != Dim::ONE => call.open(0, axis, Some(length.clone())),
            _ => Dim::ONE,
        };
        shape.iter().enumerate().map(kept).collect()
    } else {
        let rank = shape.len().checked_sub(n_reduced).ok_or("more axes go than there are")?;
        let most = Dim::product(shape);
        match rank {
            0 => Vec::new(),
            _ if shape.iter().all(|length| *length == shape[0]) => vec![shape[0].clone(); rank],
            _ => (0..rank).map(|axis| call.open(0, axis, Some(most.clone()))).collect(),
        }
    };
    call.like(0, sizes)
}

/// Each derivative is as large as what it is taken by: the first inputs.
fn derivatives(call: &Call) -> Results {
    if call.operator() != "Gradient" {
        return Ok(Vec::new());
    }
    let n_results = call.node.output.len().min(call.operands.len());
    Ok((0..n_results).map(|slot| call.tensor_type(slot).ok().cloned()).collect())
}

/// `[batch, heads, length, d_v]`.
fn flex_result(call: &Call, mut query: TensorType) -> Vec<Option<TensorType>> {
    let size = call.shape(2).ok().and_then(|value| value.last().cloned());
    let (Some(last), Some(size)) = (query.shape.0.last_mut(), size) else { return Vec::new() };
    *last = size;
    vec![Some(query)]
}
