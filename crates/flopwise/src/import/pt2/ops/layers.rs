//! Normalisation, softmax, pooling, resampling: layers that are no matrix product.
//!
//! Not here: functions of single elements (`functions.rs`).

use super::{Aten, Family, Input, Lowered, Plan, Result, one};
use crate::graph::{
    Dim, Function, Interpolation, Keep, MatMul, Normalization, Op, Orientation, Padding, Pool,
    PoolFunction, Reduce, Reduction, Rounding, Shape, Window, axis_of,
};

impl Aten<'_, '_, '_> {
    /// Normalisation, softmax, pooling, resampling: layers that are no matrix product.
    pub(super) fn layers(&self, base: &str) -> Family {
        let call = self.call;
        let normalization = |kind, names: &[&str]| one(Op::Normalization(kind), &self.given(names));
        let affine = ["input", "weight", "bias"];
        let n_axes = || call.ints("normalized_shape").map_or(1, |shape| shape.len());
        Ok(Some(match base {
            "batch_norm"
            | "native_batch_norm"
            | "_native_batch_norm_legit_no_training"
            | "_native_batch_norm_legit"
            | "_native_batch_norm_legit_functional"
            | "_batch_norm_no_update"
            | "_batch_norm_with_update"
            | "_batch_norm_with_update_functional"
            | "cudnn_batch_norm" => self.batch_norm(base),
            "layer_norm" | "native_layer_norm" => {
                normalization(Normalization::Layer { axes: n_axes() }, &affine)
            }
            "rms_norm" | "_fused_rms_norm" => {
                normalization(Normalization::Rms { axes: n_axes() }, &affine)
            }
            "group_norm" => {
                let groups = call.int("num_groups").unwrap_or(1);
                normalization(Normalization::Group { groups }, &affine)
            }
            "native_group_norm" => {
                let groups = call.int("group").unwrap_or(1);
                normalization(Normalization::Group { groups }, &affine)
            }
            "instance_norm" => normalization(Normalization::Group { groups: 0 }, &affine),
            "softmax" | "_softmax" | "log_softmax" | "_log_softmax" | "_safe_softmax" => {
                let input = call.tensor("self")?;
                one(Op::Softmax { axis: self.axis("dim", input, -1)? }, &[input])
            }
            "_weight_norm" | "_weight_norm_interface" => self.weight_norm(),
            "renorm" => self.renorm(),
            "_embedding_bag" | "_embedding_bag_forward_only" | "embedding_bag" => self.bag(),
            _ => return Ok(None),
        }?))
    }

    /// Windows and samples of images.
    pub(super) fn windowed_layers(&self, base: &str) -> Family {
        let call = self.call;
        Ok(Some(match base {
            "grid_sampler" | "grid_sampler_2d" | "grid_sampler_3d" => self.grid_sample(),
            "affine_grid_generator" => self.affine_grid(),
            "im2col" => self.windows(),
            "col2im" => self.tallied(&[Function::Add], call.tensor("self")?),
            "max_pool1d"
            | "max_pool2d"
            | "max_pool3d"
            | "max_pool2d_with_indices"
            | "max_pool3d_with_indices"
            | "max_pool1d_with_indices"
            | "mkldnn_max_pool2d"
            | "avg_pool1d"
            | "avg_pool2d"
            | "avg_pool3d" => self.sliding_pool(base),
            "adaptive_avg_pool1d"
            | "adaptive_avg_pool2d"
            | "adaptive_avg_pool3d"
            | "_adaptive_avg_pool2d"
            | "_adaptive_avg_pool3d"
            | "adaptive_max_pool1d"
            | "adaptive_max_pool2d"
            | "adaptive_max_pool3d" => self.adaptive_pool(base),
            "max_unpool2d" | "max_unpool3d" => {
                one(self.declared_fill()?, &[call.tensor("self")?, call.tensor("indices")?])
            }
            "fractional_max_pool2d" | "fractional_max_pool3d" => {
                let n_axes = spatial_axes(base)?;
                let output = call.output_shape()?.0;
                let first = output.len().checked_sub(n_axes).ok_or("too few axes")?;
                let window = Window::Adaptive { output: output[first..].to_vec() };
                let function = PoolFunction::Max;
                one(Op::Pool(Pool { function, window }), &[call.tensor("self")?])
            }
            "upsample_nearest1d"
            | "upsample_nearest2d"
            | "upsample_nearest3d"
            | "_upsample_nearest_exact1d"
            | "_upsample_nearest_exact2d"
            | "_upsample_nearest_exact3d" => self.resize(Interpolation::Nearest),
            "upsample_linear1d"
            | "upsample_bilinear2d"
            | "_upsample_bilinear2d_aa"
            | "upsample_trilinear3d" => self.resize(Interpolation::Linear),
            "upsample_bicubic2d" | "_upsample_bicubic2d_aa" | "_upsample_lanczos2d_aa" => {
                self.resize(Interpolation::Cubic)
            }
            _ => return Ok(None),
        }?))
    }

    /// In training the statistics come from the batch: mean and variance over all but channels.
    fn batch_norm(&self, base: &str) -> Result<Lowered> {
        let call = self.call;
        let input = call.tensor("input")?;
        let is_stored = base.ends_with("no_training") || base == "_batch_norm_no_update";
        let is_training = call.boolean("training").or_else(|| call.boolean("train"));
        let is_counted = is_training.unwrap_or(base.contains("_with_update")) && !is_stored;
        let names = ["weight", "bias", "running_mean", "running_var"];
        let mut operands = vec![Input::Tensor(input)];
        operands.extend(self.given(&names).into_iter().map(Input::Tensor));
        let mut plan = Plan::default();
        if is_counted {
            let axes = (0..self.rank(input)?).filter(|axis| *axis != 1).collect();
            let reduce = Reduce { function: Reduction::Variance, axes, keep: Keep::Nothing };
            operands.push(plan.step(Op::Reduce(reduce), &[Input::Tensor(input)]));
        }
        plan.step(Op::Normalization(Normalization::Batch), &operands);
        Ok(plan.last())
    }

    /// v g / |v|, the length taken over all axes but one.
    fn weight_norm(&self) -> Result<Lowered> {
        let (direction, length) = (self.call.tensor("v")?, self.call.tensor("g")?);
        let rank = self.rank(direction)?;
        let axis = self.call.int("dim").unwrap_or(0);
        let kept = axis_of(axis, rank).map_err(|error| error.to_string())?;
        let axes = (0..rank).filter(|axis| *axis != kept).collect();
        let mut plan = Plan::default();
        let norm = Op::Reduce(Reduce { function: Reduction::Norm2, axes, keep: Keep::Axes });
        let norm = plan.step(norm, &[Input::Tensor(direction)]);
        let scale = plan.apply(Function::Div, &[Input::Tensor(length), norm]);
        plan.apply(Function::Mul, &[Input::Tensor(direction), scale]);
        Ok(plan.last())
    }

    /// Rows longer than a limit are shortened to it.
    fn renorm(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let kept = self.axis("dim", input, 0)?;
        let axes = (0..self.rank(input)?).filter(|axis| *axis != kept).collect();
        let mut plan = Plan::default();
        let norm = Op::Reduce(Reduce { function: Reduction::Norm2, axes, keep: Keep::Axes });
        let norm = plan.step(norm, &[Input::Tensor(input)]);
        let scale = plan.apply(Function::Div, &[norm]);
        let chosen = plan.apply(Function::Select, &[scale]);
        plan.apply(Function::Mul, &[Input::Tensor(input), chosen]);
        Ok(plan.last())
    }

    /// One row per index, added up bag by bag.
    fn bag(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let table = Input::Tensor(self.call.tensor("weight")?);
        let indices = Input::Tensor(self.call.tensor("indices")?);
        let mut rows = plan.step(Op::Embedding, &[table, indices]);
        if self.call.optional_tensor("per_sample_weights").is_some() {
            rows = plan.apply(Function::Mul, &[rows]);
        }
        let added = plan.apply(Function::Add, &[rows]);
        plan.step(self.declared_fill()?, &[added]);
        Ok(plan.last())
    }

    /// Samples at places that a tensor gives: ((place + 1) size - 1) / 2, then interpolation.
    fn grid_sample(&self) -> Result<Lowered> {
        let input = Input::Tensor(self.call.tensor("input")?);
        let grid = Input::Tensor(self.call.tensor("grid")?);
        let interpolation = match self.call.int("interpolation_mode") {
            Some(1) => Interpolation::Nearest,
            Some(2) => Interpolation::Cubic,
            _ => Interpolation::Linear,
        };
        let mut plan = Plan::default();
        let scaled = plan.apply(Function::MultiplyAdd, &[grid]);
        let places = plan.apply(Function::MultiplyAdd, &[scaled]);
        let shape = self.call.output_shape()?;
        plan.step(Op::Resize { shape, interpolation }, &[input, places]);
        Ok(plan.last())
    }

    /// Homogeneous coordinates of every place times a matrix per sample.
    fn affine_grid(&self) -> Result<Lowered> {
        let matrix = self.call.tensor("theta")?;
        let output = self.call.output()?;
        let shape = &output.shape;
        let batch = shape.0.first().ok_or("a grid of no axes")?;
        let places = Dim::product(&shape.0[1..shape.rank().saturating_sub(1).max(1)]);
        let base = Shape(vec![batch.clone(), places, self.length(matrix, 1)?]);
        let mut plan = Plan::default();
        let base = plan.step(Op::Fill { shape: base, format: output.format }, &[]);
        let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
        let grid = plan.step(op, &[base, Input::Tensor(matrix)]);
        plan.reshape(shape.0.clone(), grid);
        Ok(plan.last())
    }

    /// Sliding windows laid side by side, copied.
    fn windows(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let input = Input::Tensor(self.call.tensor("self")?);
        let seen = plan.restride(self.call.output_shape()?.0, input);
        plan.step(Op::Copy, &[seen]);
        Ok(plan.last())
    }

    fn resize(&self, interpolation: Interpolation) -> Result<Lowered> {
        let input = self.given(&["input", "self"]);
        one(Op::Resize { shape: self.call.output_shape()?, interpolation }, &input)
    }

    fn sliding_pool(&self, base: &str) -> Result<Lowered> {
        let call = self.call;
        let n_axes = spatial_axes(base)?;
        let kernel = call.per_axis("kernel_size", n_axes, 1);
        let stride = match call.ints("stride").filter(|stride| !stride.is_empty()) {
            Some(_) => call.per_axis("stride", n_axes, 1),
            None => kernel.clone(),
        };
        let around = call.per_axis("padding", n_axes, 0);
        let is_ceil = call.boolean("ceil_mode").unwrap_or(false);
        let window = Window::Sliding {
            kernel,
            stride,
            padding: Padding::Explicit { before: around.clone(), after: around },
            dilation: call.per_axis("dilation", n_axes, 1),
            rounding: if is_ceil { Rounding::Up } else { Rounding::Down },
        };
        one(Op::Pool(Pool { function: pool_function(base), window }), &[call.tensor("self")?])
    }

    fn adaptive_pool(&self, base: &str) -> Result<Lowered> {
        let n_axes = spatial_axes(base)?;
        let output = self.call.output_shape()?.0;
        let first = output.len().checked_sub(n_axes).ok_or("too few axes")?;
        let window = Window::Adaptive { output: output[first..].to_vec() };
        let function = pool_function(base);
        one(Op::Pool(Pool { function, window }), &[self.call.tensor("self")?])
    }
}

fn spatial_axes(base: &str) -> Result<usize> {
    // `adaptive_avg_pool2d`: the digit before a d.
    let pairs = base.bytes().zip(base.bytes().skip(1));
    match pairs.filter(|(digit, d)| digit.is_ascii_digit() && *d == b'd').map(|(n, _)| n).next() {
        Some(b'1') => Ok(1),
        Some(b'2') => Ok(2),
        Some(b'3') => Ok(3),
        _ => Err(format!("`{base}` does not say how many axes it pools")),
    }
}

fn pool_function(base: &str) -> PoolFunction {
    if base.contains("max") { PoolFunction::Max } else { PoolFunction::Average }
}
