//! Quantised tensors: to and from them, and products of them.
//!
//! Not here: how weights lie in a packed format, beyond their number of elements.

use super::{Aten, Family, Input, Lowered, Plan, Result, Step, one};
use crate::graph::{Function, Keep, MatMul, Op, Orientation, Reduce, Reduction, Shape, TensorId};
use flopwise_formats::Format;

impl Aten<'_, '_, '_> {
    pub(super) fn quantized(&self, base: &str) -> Family {
        let (plain, transposed) = (Orientation::Plain, Orientation::Transposed);
        Ok(Some(match base {
            "quantize_per_tensor"
            | "quantize_per_channel"
            | "quantize_per_token"
            | "quantize_per_channel_group"
            | "quantize_affine"
            | "quantize_per_tensor_dynamic" => {
                one(Op::Quantize(self.call.output_format()?), &self.with_scales()?)
            }
            "dequantize_per_tensor"
            | "dequantize_per_channel"
            | "dequantize_per_token"
            | "dequantize_per_channel_group"
            | "dequantize_affine"
            | "dequantize" => one(Op::Dequantize(self.call.output_format()?), &self.with_scales()?),
            "fake_quantize_per_tensor_affine"
            | "fake_quantize_per_channel_affine"
            | "fake_quantize_per_tensor_affine_cachemask"
            | "fake_quantize_per_channel_affine_cachemask"
            | "fake_quant_per_channel" => self.fake_quantize(),
            "choose_qparams"
            | "choose_qparams_symmetric"
            | "choose_qparams_per_token"
            | "choose_qparams_per_token_asymmetric"
            | "choose_qparams_affine"
            | "_choose_qparams_per_token_asymmetric_impl" => self.choose_parameters(),
            "_int_mm" => self.product(plain, &["self", "mat2"], &[], &[]),
            "_scaled_mm" | "_scaled_mm_v2" => {
                self.product(plain, &["self", "mat2"], &["bias"], &["scale_a", "scale_b"])
            }
            "_weight_int8pack_mm" => self.product(transposed, &["self", "mat2"], &[], &["scales"]),
            "_weight_int4pack_mm"
            | "_weight_int4pack_mm_for_cpu"
            | "_weight_int4pack_mm_with_scales_and_zeros" => self.int4_product(),
            _ => return Ok(None),
        }?))
    }

    fn with_scales(&self) -> Result<Vec<TensorId>> {
        let input = self.given(&["input", "self"]);
        let mut operands = vec![*input.first().ok_or("the input is missing")?];
        let names = ["scale", "scales", "zero_point", "zero_points"];
        operands.extend(self.given(&names));
        Ok(operands)
    }

    /// There and back again, in the format of the input.
    fn fake_quantize(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let operands: Vec<Input> = self.with_scales()?.into_iter().map(Input::Tensor).collect();
        let format = self.call.output_format()?;
        let levels = plan.step(Op::Quantize(format), &operands);
        let back: Vec<Input> = std::iter::once(levels).chain(operands[1..].to_vec()).collect();
        plan.step(Op::Dequantize(format), &back);
        Ok(plan.last())
    }

    /// The smallest and the largest element of each group, from which a scale and a zero point
    /// follow.
    fn choose_parameters(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let input = *self.given(&["input", "self"]).first().ok_or("the input is missing")?;
        let axes: Vec<usize> = (0..self.rank(input)?).collect();
        let op = Op::Reduce(Reduce { function: Reduction::Extreme, axes, keep: Keep::Nothing });
        let smallest = plan.step(op.clone(), &[Input::Tensor(input)]);
        let largest = plan.step(op, &[Input::Tensor(input)]);
        let span = plan.apply(Function::Sub, &[largest, smallest]);
        let mut results = Vec::new();
        for (_, declared) in self.call.outputs {
            let declared = declared.as_ref().ok_or("the file does not give the shapes")?;
            let (shape, format) = (declared.shape.clone(), declared.format);
            results.push(plan.step(Op::Fill { shape, format }, &[span]));
        }
        Ok(plan.results(results))
    }

    /// A product whose result has the declared format and whose operands have scales.
    fn product(
        &self,
        b: Orientation,
        operands: &[&str],
        addends: &[&str],
        scales: &[&str],
    ) -> Result<Lowered> {
        let scales: Vec<TensorId> = scales
            .iter()
            .flat_map(|name| match self.call.optional_tensor(name) {
                Some(id) => vec![id],
                None => self.call.tensor_list(name),
            })
            .collect();
        let mut inputs = self.given(operands);
        inputs.extend(self.given(addends));
        let matmul = MatMul { a: Orientation::Plain, b, scales: scales.len() };
        inputs.extend(scales);
        let inputs = inputs.into_iter().map(Input::Tensor).collect();
        let format = Some(self.call.output_format()?);
        let step = Step { op: Op::MatMul(matmul), inputs, n_outputs: 1, format };
        Ok(Lowered::last(vec![step]))
    }

    /// Weights of 4 bits, packed in an order of the kernel's own: `[out, in]`, however they lie.
    fn int4_product(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let scales = self.given(&["qScaleAndZeros", "qScale", "qZeros"]);
        let output = self.call.output_shape()?;
        let columns = output.0.last().cloned().ok_or("a scalar result")?;
        let shape = Shape(vec![columns, self.length(input, 1)?]);
        let mut plan = Plan::default();
        let packed = Input::Tensor(self.call.tensor("mat2")?);
        let weight = plan.step(Op::Bitcast { shape, format: Format::INT4 }, &[packed]);
        let (a, b) = (Orientation::Plain, Orientation::Transposed);
        let op = Op::MatMul(MatMul { a, b, scales: scales.len() });
        let mut inputs = vec![Input::Tensor(input), weight];
        inputs.extend(scales.into_iter().map(Input::Tensor));
        plan.step(op, &inputs);
        Ok(plan.last())
    }
}
