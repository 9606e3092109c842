//! Fourier transforms and spectrograms; complex numbers as pairs of real ones.
//!
//! Not here: what a transform costs (`cost/fourier.rs`).

use super::{Aten, Family, Input, Lowered, Plan, Result, one};
use crate::graph::{Dim, Function, Op, TensorId, axis_of};

impl Aten<'_, '_, '_> {
    pub(super) fn signal(&self, base: &str) -> Family {
        Ok(Some(match base {
            "fft_fft" | "fft_ifft" | "fft_rfft" | "fft_irfft" | "fft_hfft" | "fft_ihfft"
            | "fft_fft2" | "fft_ifft2" | "fft_rfft2" | "fft_irfft2" | "fft_hfft2"
            | "fft_ihfft2" | "fft_fftn" | "fft_ifftn" | "fft_rfftn" | "fft_irfftn"
            | "fft_hfftn" | "fft_ihfftn" | "_fft_r2c" | "_fft_c2r" | "_fft_c2c" => {
                self.fourier(base)
            }
            "fft_fftshift" | "fft_ifftshift" => one(Op::Copy, &[self.call.tensor("self")?]),
            "stft" => self.spectrogram(),
            "istft" => self.inverse_spectrogram(),
            "real" | "imag" => {
                let shape = self.call.output_shape()?;
                let format = self.call.output_format()?;
                let mut plan = Plan::default();
                let input = Input::Tensor(self.call.tensor("self")?);
                // Every second number.
                let mut pairs = shape.clone();
                pairs.0.push(Dim::from(2i64));
                let pairs = plan.step(Op::Bitcast { shape: pairs, format }, &[input]);
                plan.restride(shape.0, pairs);
                Ok(plan.last())
            }
            "view_as_real" | "view_as_complex" | "_conj" | "conj" | "_neg_view" => {
                let (shape, format) = (self.call.output_shape()?, self.call.output_format()?);
                one(Op::Bitcast { shape, format }, &[self.call.tensor("self")?])
            }
            "complex" => self.made_of(&["real", "imag"]),
            "polar" => self.polar(),
            _ => return Ok(None),
        }?))
    }

    /// A complex result made of two real operands.
    fn made_of(&self, names: &[&str]) -> Result<Lowered> {
        let mut plan = Plan::default();
        let inputs: Vec<Input> = self.given(names).into_iter().map(Input::Tensor).collect();
        plan.step(Op::Copy, inputs.get(..1).ok_or("an operand is missing")?);
        plan.step(self.declared_fill()?, &inputs);
        Ok(plan.last())
    }

    /// abs (cos angle + i sin angle).
    fn polar(&self) -> Result<Lowered> {
        let (length, angle) = (self.call.tensor("abs")?, self.call.tensor("angle")?);
        let mut plan = Plan::default();
        let mut parts = Vec::new();
        for _ in 0..2 {
            let turned = plan.apply(Function::Trigonometric, &[Input::Tensor(angle)]);
            parts.push(plan.apply(Function::Mul, &[turned, Input::Tensor(length)]));
        }
        plan.step(self.declared_fill()?, &parts);
        Ok(plan.last())
    }

    /// The axes transformed, of tensor `id`.
    fn transformed_axes(&self, base: &str, id: TensorId) -> Result<Vec<usize>> {
        let rank = self.rank(id)?;
        let listed = self.call.ints("dim").filter(|axes| !axes.is_empty());
        let axes = match listed {
            Some(axes) => axes,
            None if base.ends_with('2') => vec![-2, -1],
            None if base.ends_with('n') => match self.call.ints("s") {
                Some(sizes) => (1..=sizes.len() as i64).map(|from_back| -from_back).collect(),
                None => (0..rank as i64).collect(),
            },
            None => vec![-1],
        };
        let axes: std::result::Result<Vec<usize>, _> =
            axes.into_iter().map(|axis| axis_of(axis, rank)).collect();
        axes.map_err(|error| error.to_string())
    }

    /// A transform along several axes is one along each: with n = n1 n2 that is
    /// n2 (5 n1 log n1) + n1 (5 n2 log n2), and so one node per axis. The longer of the lengths
    /// before and after is the transform's: a real one keeps half of it.
    fn fourier(&self, base: &str) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let output = self.call.output()?;
        let (before, after) = (self.shape(input)?.clone(), output.shape.clone());
        let axes = self.transformed_axes(base, input)?;
        if before.rank() != after.rank() {
            return Err(format!("a transform from {before} to {after}"));
        }
        let lengths: Vec<Dim> =
            axes.iter().map(|axis| before.0[*axis].maximum(&after.0[*axis])).collect();
        let mut plan = Plan::default();
        let mut value = Input::Tensor(input);
        for (axis, length) in axes.iter().zip(lengths) {
            let beside = (0..after.rank()).filter(|other| other != axis);
            let transforms = Dim::product(beside.map(|other| &after.0[other]));
            let (shape, format) = (after.clone(), output.format);
            value = plan.step(Op::Fourier { length, transforms, shape, format }, &[value]);
        }
        Ok(plan.last())
    }

    /// Frames times the window, each transformed.
    fn spectrogram(&self) -> Result<Lowered> {
        let call = self.call;
        let input = call.tensor("self")?;
        let length = call.dim("n_fft").ok_or("argument `n_fft` is missing")?;
        let output = call.output()?;
        let is_complex = call.boolean("return_complex").unwrap_or(true);
        let from_back = if is_complex { 1 } else { 2 };
        let rank = output.shape.rank();
        let frames = rank.checked_sub(from_back).map(|axis| output.shape.0[axis].clone());
        let frames = frames.ok_or("a result of too few axes")?;
        let batch = if self.rank(input)? < 2 { Dim::ONE } else { self.length(input, 2)? };
        let transforms = &batch * &frames;
        let mut plan = Plan::default();
        let mut value =
            plan.restride(vec![transforms.clone(), length.clone()], Input::Tensor(input));
        if let Some(window) = call.optional_tensor("window") {
            // A shorter window stands in the middle of zeros.
            let window = plan.restride(vec![length.clone()], Input::Tensor(window));
            value = plan.apply(Function::Mul, &[value, window]);
        }
        let (shape, format) = (output.shape.clone(), output.format);
        plan.step(Op::Fourier { length, transforms, shape, format }, &[value]);
        Ok(plan.last())
    }

    /// Each frame transformed back, times the window, added where frames overlap, over the sum of
    /// the squares of the windows.
    fn inverse_spectrogram(&self) -> Result<Lowered> {
        let call = self.call;
        let input = call.tensor("self")?;
        let length = call.dim("n_fft").ok_or("argument `n_fft` is missing")?;
        let frames = self.length(input, 1)?;
        let batch = if self.rank(input)? < 3 { Dim::ONE } else { self.length(input, 3)? };
        let transforms = &batch * &frames;
        let shape = crate::graph::Shape(vec![transforms.clone(), length.clone()]);
        let format = call.output_format()?;
        let mut plan = Plan::default();
        let op = Op::Fourier { length: length.clone(), transforms, shape, format };
        let mut value = plan.step(op, &[Input::Tensor(input)]);
        if let Some(window) = call.optional_tensor("window") {
            let window = plan.restride(vec![length], Input::Tensor(window));
            value = plan.apply(Function::Mul, &[value, window]);
        }
        let added = plan.apply(Function::Add, &[value]);
        let sum = plan.step(self.declared_fill()?, &[added]);
        plan.apply(Function::Div, &[sum]);
        Ok(plan.last())
    }
}
