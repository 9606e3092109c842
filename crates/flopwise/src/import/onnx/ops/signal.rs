//! Signals: Fourier transforms, windows and the mel scale.
//!
//! Not here: what a transform costs (`cost/fourier.rs`).

use crate::graph::{Dim, Kind, Op, Shape, Stated, TensorType, axis_of};
use crate::import::onnx::call::{Call, Plan, Source, Step, one};
use flopwise_formats::Format;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "DFT" => transform(call),
        "STFT" => short_time(call),
        // One cosine of a multiple of the position: three multiplies, a subtraction.
        "HannWindow" | "HammingWindow" => window(call, (3, 1)),
        "BlackmanWindow" => window(call, (6, 2)),
        "MelWeightMatrix" => Err("how a runtime computes its triangles is not defined".to_owned()),
        _ => return None,
    })
}

fn half_and_one(length: &Dim) -> Dim {
    &length.floor_div(&Dim::from(2)) + &Dim::ONE
}

/// The last axis holds real and imaginary part. The axis is an attribute before version 20.
/// <https://onnx.ai/onnx/operators/onnx__DFT.html>
fn transform(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let mut lengths = input.shape.0.clone();
    let axis = match call.opset < 20 {
        true => call.int("axis").unwrap_or(1),
        false if call.has(2) => call.numbers(2)?.first().copied().unwrap_or(-2),
        false => -2,
    };
    let axis = axis_of(axis, lengths.len()).map_err(|error| error.to_string())?;
    let is_one_sided = call.is_set("onesided", false);
    let is_back_to_real = is_one_sided && call.is_set("inverse", false);
    let length = match (call.has(1), is_back_to_real) {
        (true, _) => call.size(1)?,
        (false, true) => &(&lengths[axis] - &Dim::ONE) * &Dim::from(2),
        (false, false) => lengths[axis].clone(),
    };
    let parts = lengths.len() - 1;
    let others = (0..parts).filter(|other| *other != axis).map(|other| &lengths[other]);
    let transforms = Dim::product(others);
    lengths[axis] = match is_one_sided && !is_back_to_real {
        true => half_and_one(&length),
        false => length.clone(),
    };
    lengths[parts] = Dim::from(if is_back_to_real { 1 } else { 2 });
    let (shape, format) = (Shape(lengths), input.format);
    one(Op::Fourier { length, transforms, shape, format }, &[0])
}

/// What is known of the result of a transform whose length or axis only the run knows.
pub(super) fn transform_result(call: &Call) -> Result<TensorType, String> {
    let lengths = call.shape(0)?;
    let last = lengths.len().checked_sub(1).ok_or("transforms a scalar")?;
    let is_back_to_real = call.is_set("onesided", false) && call.is_set("inverse", false);
    let parts = Dim::from(if is_back_to_real { 1 } else { 2 });
    let is_changed = call.has(1) || call.is_set("onesided", false);
    let is_axis_known = call.opset < 20 || !call.has(2) || call.numbers(2).is_ok();
    let axis = match (call.opset < 20, call.has(2)) {
        (true, _) => call.int("axis").unwrap_or(1),
        (false, true) => call.numbers(2).ok().and_then(|axes| axes.first().copied()).unwrap_or(0),
        (false, false) => -2,
    };
    let axis = axis_of(axis, lengths.len()).map_err(|error| error.to_string())?;
    let sizes = lengths.iter().enumerate().map(|(at, length)| {
        if at == last {
            parts.clone()
        } else if is_changed && (at == axis || !is_axis_known) {
            call.open(0, at, None)
        } else {
            length.clone()
        }
    });
    call.like(0, sizes.collect())
}

/// `signal [batch, length, 1 or 2], frame_step, [window], [frame_length]`.
/// <https://onnx.ai/onnx/operators/onnx__STFT.html>
fn short_time(call: &Call) -> Plan {
    let signal = call.tensor_type(0)?;
    let [batch, samples, ..] = signal.shape.0.as_slice() else {
        return Err("its signal has no axis of samples".to_owned());
    };
    let length = match (call.has(3), call.has(2)) {
        (true, _) => call.size(3)?,
        (false, true) => call.shape(2)?.first().cloned().ok_or("its window has no axis")?,
        (false, false) => return Err("the length of its frames is missing".to_owned()),
    };
    let step = call.size(1)?;
    let frames = &(samples - &length).floor_div(&step) + &Dim::ONE;
    let bins = match call.is_set("onesided", true) {
        true => half_and_one(&length),
        false => length.clone(),
    };
    let cut = vec![batch.clone(), frames.clone(), length.clone()];
    let other = if call.has(2) { Dim::product(&cut) } else { Dim::ZERO };
    let framed = Stated::new("frame", Kind::Movement, vec![call.like(0, cut)?]);
    let framed = Op::Stated(Box::new(Stated { other, ..framed }));
    let operands = call.given_of_first(3).into_iter().filter(|slot| *slot != 1);
    let shape = Shape(vec![batch.clone(), frames.clone(), bins, Dim::from(2)]);
    let transforms = batch * &frames;
    let op = Op::Fourier { length, transforms, shape, format: signal.format };
    Ok(vec![
        Step { op: framed, operands: operands.map(Source::Input).collect() },
        Step { op, operands: vec![Source::Step(0)] },
    ])
}

/// Batch and parts of a short-time transform are known without its frames.
pub(super) fn short_time_result(call: &Call) -> Result<TensorType, String> {
    let batch = call.shape(0)?.first().cloned().ok_or("its signal is a scalar")?;
    let length = if call.has(3) { call.size(3).ok() } else { None };
    let window = call.shape(2).ok().and_then(|window| window.first().cloned());
    let bins = length
        .or(window.filter(|_| !call.has(3)))
        .map(|length| if call.is_set("onesided", true) { half_and_one(&length) } else { length });
    let bins = bins.unwrap_or_else(|| call.open(0, 2, None));
    call.like(0, vec![batch, call.open(0, 1, None), bins, Dim::from(2)])
}

/// The type of a window, also where its length is left open.
pub(super) fn window_result(call: &Call) -> TensorType {
    let length = call.size(0).unwrap_or_else(|_| call.open(0, 0, None));
    let format = call.format("output_datatype").unwrap_or(Format::FP32);
    TensorType { shape: Shape(vec![length]), format }
}

fn window(call: &Call, (other, transcendental): (i64, i64)) -> Plan {
    let result = window_result(call);
    let elements = result.shape.elements();
    let stated = Stated {
        other: &elements * &Dim::from(other),
        transcendental: &elements * &Dim::from(transcendental),
        ..Stated::new("window", Kind::Elementwise, vec![result])
    };
    one(Op::Stated(Box::new(stated)), &[])
}

/// `[dft_length / 2 + 1, num_mel_bins]`.
pub(super) fn mel_result(call: &Call) -> TensorType {
    let bins = call.size(0).unwrap_or_else(|_| call.open(0, 1, None));
    let spectrum = call.size(1).map(|length| half_and_one(&length));
    let spectrum = spectrum.unwrap_or_else(|_| call.open(0, 0, None));
    let format = call.format("output_datatype").unwrap_or(Format::FP32);
    TensorType { shape: Shape(vec![spectrum, bins]), format }
}
