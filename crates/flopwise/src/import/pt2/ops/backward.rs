//! Gradients that stand in a graph as operators of their own (core ATen has nine).
//!
//! Not here: the backward pass that is derived from a forward graph.

use super::{Aten, Family, Input, Lowered, Plan, Result, one};
use crate::graph::{
    Convolution, Dim, Direction, Einsum, Function, Op, Padding, Shape, TensorId, TensorType,
};

impl Aten<'_, '_, '_> {
    pub(super) fn backward(&self, base: &str) -> Family {
        use Function as F;
        Ok(Some(match base {
            "convolution_backward" => self.convolution_backward(),
            // Each gradient is added to what its window read; a mean divides first.
            "_adaptive_avg_pool2d_backward"
            | "_adaptive_avg_pool3d_backward"
            | "avg_pool2d_backward"
            | "avg_pool3d_backward" => self.spread(&[F::Mul, F::Add], self.call.tensor("self")?),
            "max_pool2d_with_indices_backward" | "max_pool3d_with_indices_backward" => {
                self.spread(&[F::Add], self.call.tensor("grad_output")?)
            }
            "embedding_dense_backward" => self.spread(&[F::Add], self.call.tensor("grad_output")?),
            // With y = (x - mean) rstd: sum g, sum g y per row; then g - (sum g + y sum gy) / n,
            // times weight and rstd; sums over rows for weight and bias.
            "native_layer_norm_backward" | "native_group_norm_backward" => {
                let functions = [
                    F::Sub,
                    F::Mul,
                    F::Mul,
                    F::Mul,
                    F::Add,
                    F::Add,
                    F::Mul,
                    F::Sub,
                    F::Sub,
                    F::Mul,
                    F::Mul,
                    F::Add,
                    F::Add,
                ];
                self.spread_to_all(&functions)
            }
            "_softmax_backward_data" | "_log_softmax_backward_data" => {
                let operands = self.given(&["grad_output", "output"]);
                let mut plan = Plan::default();
                let inputs: Vec<Input> = operands.into_iter().map(Input::Tensor).collect();
                let product = plan.apply(F::Mul, &inputs);
                let sum = plan.apply(F::Add, &[product]);
                let scaled = plan.apply(F::Mul, &[sum]);
                plan.apply(F::Sub, &[scaled, product]);
                Ok(plan.last())
            }
            // g (1 - y^2), g y (1 - y), g [x > 0]
            "threshold_backward" => one(Op::Elementwise(F::Select), &self.call.all_tensors()),
            "tanh_backward" | "sigmoid_backward" => {
                let inputs: Vec<Input> =
                    self.given(&["grad_output", "output"]).into_iter().map(Input::Tensor).collect();
                let mut plan = Plan::default();
                let square = plan.apply(F::Mul, inputs.get(1..).ok_or("no output")?);
                let rest = plan.apply(F::Sub, &[square]);
                plan.apply(F::Mul, &[inputs[0], rest]);
                Ok(plan.last())
            }
            _ => return Ok(None),
        }?))
    }

    fn spread(&self, functions: &[Function], counted: TensorId) -> Result<Lowered> {
        self.tallied(functions, counted)
    }

    /// `functions` of each element of the gradient, then every result as declared.
    fn spread_to_all(&self, functions: &[Function]) -> Result<Lowered> {
        let mut plan = Plan::default();
        let operands = self.given(&["grad_out", "input", "weight"]);
        let same = |id: &&TensorId| self.rank(**id) == self.rank(operands[0]);
        let first: Vec<Input> = operands.iter().filter(same).map(|id| Input::Tensor(*id)).collect();
        let mut value = plan.apply(functions[0], &first);
        for function in &functions[1..] {
            value = plan.apply(*function, &[value]);
        }
        let mut results = Vec::new();
        for (_, declared) in self.call.outputs {
            results.push(plan.step(fill_as(declared.as_ref())?, &[value]));
        }
        Ok(plan.results(results))
    }

    /// The gradient of the input is a convolution the other way; that of the weight one product
    /// per pair of an output element and a weight element; that of the bias a sum. A mask says
    /// which are asked for; the file names the others, too, but gives them no shape.
    fn convolution_backward(&self) -> Result<Lowered> {
        let call = self.call;
        let gradient = call.tensor("grad_output")?;
        let (input, weight) = (call.tensor("input")?, call.tensor("weight")?);
        let n_axes = self.rank(weight)?.saturating_sub(2);
        let groups = call.int("groups").unwrap_or(1).max(1);
        let is_transposed = call.boolean("transposed").unwrap_or(false);
        let wanted = call.booleans("output_mask").unwrap_or_else(|| vec![true; 3]);
        let mut plan = Plan::default();
        let mut results = Vec::new();
        let declared = |place: usize| call.outputs.get(place).and_then(|(_, t)| t.as_ref());
        let mut place = 0;
        for kind in 0..3usize {
            if !wanted.get(kind).copied().unwrap_or(true) {
                continue;
            }
            let value = match kind {
                0 => {
                    // The mirrored convolution has as many products as this one; its padding is
                    // whatever gives the declared size, and the shape below is declared.
                    let around = call.per_axis("padding", n_axes, 0);
                    let direction = match is_transposed {
                        true => Direction::Forward,
                        false => Direction::Transposed {
                            output_padding: self.lost(gradient, weight, input, n_axes)?,
                        },
                    };
                    let op = Convolution {
                        direction,
                        stride: call.per_axis("stride", n_axes, 1),
                        padding: Padding::Explicit { before: around.clone(), after: around },
                        dilation: call.per_axis("dilation", n_axes, 1),
                        groups,
                    };
                    plan.step(
                        Op::Convolution(op),
                        &[Input::Tensor(gradient), Input::Tensor(weight)],
                    )
                }
                1 => self.weight_gradient(&mut plan, [gradient, input, weight], groups)?,
                _ => {
                    let added = plan.apply(Function::Add, &[Input::Tensor(gradient)]);
                    plan.step(fill_as(declared(place))?, &[added])
                }
            };
            results.push(value);
            place += 1;
        }
        Ok(plan.results(results))
    }

    /// Rows at the end of the input that no window reached: what the stride left over.
    fn lost(
        &self,
        gradient: TensorId,
        weight: TensorId,
        input: TensorId,
        n_axes: usize,
    ) -> Result<Vec<i64>> {
        let call = self.call;
        let (stride, padding, dilation) = (
            call.per_axis("stride", n_axes, 1),
            call.per_axis("padding", n_axes, 0),
            call.per_axis("dilation", n_axes, 1),
        );
        let lost = (0..n_axes).map(|axis| {
            let from_back = n_axes - axis;
            let out = self.length(gradient, from_back)?;
            let kernel = self.length(weight, from_back)?;
            let at = |list: &[i64]| Dim::from(list.get(axis).copied().unwrap_or(0));
            let reached = &(&(&(&out - &Dim::ONE) * &at(&stride))
                + &(&at(&dilation) * &(&kernel - &Dim::ONE)))
                + &Dim::ONE;
            let reached = &reached - &(&at(&padding) * &Dim::from(2i64));
            let rest = &self.length(input, from_back)? - &reached;
            let rest = rest.as_constant().and_then(|rest| i64::try_from(rest).ok());
            rest.ok_or_else(|| "a size that hangs on a symbol is lost to the stride".to_owned())
        });
        lost.collect()
    }

    /// An einsum over windows: positions p, groups g, channels of both sides.
    fn weight_gradient(
        &self,
        plan: &mut Plan,
        [gradient, input, weight]: [TensorId; 3],
        groups: i64,
    ) -> Result<Input> {
        let is_transposed = self.call.boolean("transposed").unwrap_or(false);
        let shape = self.shape(weight)?.clone();
        let groups = Dim::from(groups);
        // Of a transposed convolution the input has the windows' places.
        let placed = self.shape(if is_transposed { input } else { gradient })?;
        let (Some(first), Some(rows)) = (shape.0.first(), placed.0.get(1)) else {
            return Err("too few axes".to_owned());
        };
        let positions = placed.elements().exact_div(rows).ok_or("positions are no whole number")?;
        let per_group = first.floor_div(&groups);
        let window = Dim::product(&shape.0[1..]);
        let (left, right) = if is_transposed { (input, gradient) } else { (gradient, input) };
        let left =
            plan.restride(vec![groups.clone(), per_group, positions.clone()], Input::Tensor(left));
        let right = plan.restride(vec![groups, positions, window], Input::Tensor(right));
        let einsum = Einsum::parse("gap,gpb->gab", &[3, 3])?;
        let product = plan.step(Op::Einsum(einsum), &[left, right]);
        Ok(plan.reshape(shape.0, product))
    }
}

fn fill_as(declared: Option<&TensorType>) -> Result<Op> {
    let declared = declared.ok_or("the file does not give the shapes of its results")?;
    let shape = Shape(declared.shape.0.clone());
    Ok(Op::Fill { shape, format: declared.format })
}
