//! torchvision's operators: boxes, regions, deformable convolutions.
//!
//! Not here: what its models are made of otherwise, which is plain ATen.

use super::{Aten, Family, Input, Lowered, Plan, Result};
use crate::graph::{
    Convolution, Dim, Direction, Function, Interpolation, Op, Padding, Pool, PoolFunction,
    Rounding, Shape, Window,
};

impl Aten<'_, '_, '_> {
    pub(super) fn vision(&self, base: &str) -> Family {
        Ok(Some(match base {
            "nms" => self.suppression(),
            "roi_align" => self.regions(),
            "roi_pool" | "ps_roi_pool" | "ps_roi_align" => {
                Err("the size of its windows is that of each region, which only the data say"
                    .into())
            }
            "deform_conv2d" => self.deformable(),
            _ => return Ok(None),
        }?))
    }

    /// Boxes sorted by score, then the overlap of every pair (torchvision's CUDA kernel computes
    /// all n (n - 1) / 2; its CPU kernel passes over those already suppressed): two maxima and two
    /// minima for the corners, two differences and two clamps for the sides, a product, the union
    /// of the areas, a quotient and a comparison.
    fn suppression(&self) -> Result<Lowered> {
        use Function as F;
        let (boxes, scores) = (self.call.tensor("dets")?, self.call.tensor("scores")?);
        let n_boxes = self.length(scores, 1)?;
        let pairs = (&n_boxes * &(&n_boxes - &Dim::ONE)).floor_div(&Dim::from(2i64));
        let mut plan = Plan::default();
        plan.step(Op::TopK { axis: 0, k: n_boxes }, &[Input::Tensor(scores)]);
        let mut value = plan.restride(vec![pairs], Input::Tensor(boxes));
        let functions = [
            F::Maximum,
            F::Maximum,
            F::Minimum,
            F::Minimum,
            F::Sub,
            F::Sub,
            F::Relu,
            F::Relu,
            F::Mul,
            F::Add,
            F::Sub,
            F::Div,
            F::Compare,
        ];
        for function in functions {
            value = plan.apply(function, &[value]);
        }
        plan.step(self.declared_fill()?, &[value]);
        Ok(plan.last())
    }

    /// `sampling_ratio` squared samples for each element, each from four neighbours; their mean.
    fn regions(&self) -> Result<Lowered> {
        let call = self.call;
        let ratio = call.int("sampling_ratio").unwrap_or(-1);
        if ratio < 1 {
            return Err("how many samples it takes depends on the size of each region".into());
        }
        let output = call.output_shape()?;
        let [regions, channels, height, width] = output.0.as_slice() else {
            return Err(format!("regions of {} axes", output.rank()));
        };
        let times = Dim::from(ratio);
        let sampled =
            Shape(vec![regions.clone(), channels.clone(), height * &times, width * &times]);
        let mut plan = Plan::default();
        let operands = [Input::Tensor(call.tensor("input")?), Input::Tensor(call.tensor("rois")?)];
        let op = Op::Resize { shape: sampled, interpolation: Interpolation::Linear };
        let samples = plan.step(op, &operands);
        let window = Window::Sliding {
            kernel: vec![ratio; 2],
            stride: vec![ratio; 2],
            padding: Padding::Explicit { before: vec![0; 2], after: vec![0; 2] },
            dilation: vec![1; 2],
            rounding: Rounding::Down,
        };
        plan.step(Op::Pool(Pool { function: PoolFunction::Average, window }), &[samples]);
        Ok(plan.last())
    }

    /// Each element of each window sampled from four neighbours where the offsets say, then the
    /// convolution of those windows laid side by side.
    fn deformable(&self) -> Result<Lowered> {
        let call = self.call;
        let (input, weight) = (call.tensor("input")?, call.tensor("weight")?);
        let (kernel_height, kernel_width) = (self.length(weight, 2)?, self.length(weight, 1)?);
        let number = |dim: &Dim| dim.as_constant().and_then(|length| i64::try_from(length).ok());
        let kernel = number(&kernel_height).zip(number(&kernel_width));
        let kernel = kernel.ok_or("a kernel without a size")?;
        let output = call.output_shape()?;
        let [batch, _, height, width] = output.0.as_slice() else {
            return Err(format!("a result of {} axes", output.rank()));
        };
        let sampled = Shape(vec![
            batch.clone(),
            self.length(input, 3)?,
            height * &kernel_height,
            width * &kernel_width,
        ]);
        let mut plan = Plan::default();
        let mut operands = vec![Input::Tensor(input)];
        operands.extend(self.given(&["offset", "mask"]).into_iter().map(Input::Tensor));
        let op = Op::Resize { shape: sampled, interpolation: Interpolation::Linear };
        let mut windows = plan.step(op, &operands);
        if call.boolean("use_mask").unwrap_or(false) {
            windows = plan.apply(Function::Mul, &[windows]);
        }
        let convolution = Convolution {
            direction: Direction::Forward,
            stride: vec![kernel.0, kernel.1],
            padding: Padding::Explicit { before: vec![0; 2], after: vec![0; 2] },
            dilation: vec![1; 2],
            groups: call.int("groups").unwrap_or(1),
        };
        let mut operands = vec![windows, Input::Tensor(weight)];
        operands.extend(call.optional_tensor("bias").map(Input::Tensor));
        plan.step(Op::Convolution(convolution), &operands);
        Ok(plan.last())
    }
}
