//! Losses and distances.
//!
//! Not here: their gradients.

use super::{Aten, Family, Input, Lowered, Plan, Result};
use crate::graph::{Dim, Function, Keep, Op, Reduce, Reduction, TensorId};

/// `reduction` of PyTorch's losses: 0 none, 1 mean, 2 sum.
const NO_REDUCTION: i64 = 0;
const SUM: i64 = 2;

impl Aten<'_, '_, '_> {
    pub(super) fn losses(&self, base: &str) -> Family {
        use Function as F;
        let functions: &[Function] = match base {
            "mse_loss" => &[F::Sub, F::Square],
            "l1_loss" => &[F::Sub, F::Absolute],
            // |x - y| < beta ? (x - y)^2 / (2 beta) : |x - y| - beta / 2
            "smooth_l1_loss" | "huber_loss" => {
                &[F::Sub, F::Absolute, F::Square, F::Mul, F::Sub, F::Compare, F::Select]
            }
            // -(y log x + (1 - y) log (1 - x))
            "binary_cross_entropy" => {
                &[F::Log, F::Mul, F::Sub, F::Sub, F::Log, F::Mul, F::Add, F::Negate]
            }
            // (1 - y) x + max(-x, 0) + log(exp(-max) + exp(-x - max))
            "binary_cross_entropy_with_logits" => {
                &[F::Sub, F::Mul, F::Negate, F::Relu, F::Softplus, F::Add, F::Add]
            }
            // y (log y - x)
            "kl_div" => &[F::Log, F::Sub, F::Mul],
            "soft_margin_loss" => &[F::Mul, F::Negate, F::Softplus],
            "hinge_embedding_loss" => &[F::Sub, F::Relu, F::Compare, F::Select],
            "poisson_nll_loss" => &[F::Exp, F::Mul, F::Sub],
            "margin_ranking_loss" => &[F::Sub, F::Mul, F::Negate, F::Add, F::Relu],
            "nll_loss" | "nll_loss_nd" | "nll_loss2d" | "nll_loss_forward"
            | "nll_loss2d_forward" | "cross_entropy_loss" => {
                return self.likelihood(base).map(Some);
            }
            "cdist" | "_cdist_forward" => return self.distances().map(Some),
            "pdist" | "_pdist_forward" => return self.own_distances().map(Some),
            "pairwise_distance" => &[F::Sub, F::Add, F::Square],
            "cosine_similarity" | "cosine_embedding_loss" => return self.cosine().map(Some),
            _ => return Ok(None),
        };
        self.elementwise_loss(base, functions).map(Some)
    }

    /// `functions` of each element, then as the reduction says.
    fn elementwise_loss(&self, base: &str, functions: &[Function]) -> Result<Lowered> {
        let names = ["self", "input", "input1", "x1", "target", "other", "input2", "x2", "weight"];
        let operands: Vec<Input> = self.given(&names).into_iter().map(Input::Tensor).collect();
        let Some(Input::Tensor(first)) = operands.first().copied() else {
            return Err("the input is missing".to_owned());
        };
        let mut plan = Plan::default();
        let (function, rest) = functions.split_first().ok_or("no functions")?;
        let mut value = plan.apply(*function, &operands);
        for function in rest {
            value = plan.apply(*function, &[value]);
        }
        if base == "pairwise_distance" {
            let axes = vec![self.rank(first)?.saturating_sub(1)];
            let op = Reduce { function: Reduction::Sum, axes, keep: Keep::Nothing };
            let sum = plan.step(Op::Reduce(op), &[value]);
            plan.apply(Function::Sqrt, &[sum]);
        } else if self.call.int("reduction") != Some(NO_REDUCTION) {
            let axes = (0..self.rank(first)?).collect();
            plan.step(self.reduction(axes), &[value]);
        }
        Ok(plan.last())
    }

    fn reduction(&self, axes: Vec<usize>) -> Op {
        let is_sum = self.call.int("reduction") == Some(SUM);
        let function = if is_sum { Reduction::Sum } else { Reduction::Mean };
        Op::Reduce(Reduce { function, axes, keep: Keep::Nothing })
    }

    /// The log-probability of each target, picked, weighted and reduced; of cross entropy the
    /// softmax before it, too.
    fn likelihood(&self, base: &str) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let target = self.call.tensor("target")?;
        let rank = self.rank(input)?;
        let axis = if rank < 2 { 0 } else { 1 };
        let mut plan = Plan::default();
        let mut value = Input::Tensor(input);
        if base == "cross_entropy_loss" {
            value = plan.step(Op::Softmax { axis }, &[value]);
        }
        if self.format(target).is_some_and(|format| format.is_float()) {
            // Targets are probabilities: one product per class.
            let product = plan.apply(Function::Mul, &[value, Input::Tensor(target)]);
            plan.step(self.reduction((0..rank).collect()), &[product]);
            return Ok(plan.last());
        }
        let picked = plan.step(Op::GatherElements, &[value, Input::Tensor(target)]);
        let weighted = plan.apply(Function::Mul, &[picked]);
        if self.call.int("reduction") == Some(NO_REDUCTION) {
            return Ok(plan.last());
        }
        let axes = (0..self.rank(target)?).collect();
        plan.step(self.reduction(axes), &[weighted]);
        Ok(plan.last())
    }

    /// Of every row of one to every row of the other: subtract, square (or a power), add up, root.
    fn distances(&self) -> Result<Lowered> {
        let (first, second) = (self.call.tensor("x1")?, self.call.tensor("x2")?);
        let mut left = self.shape(first)?.0.clone();
        let mut right = self.shape(second)?.0.clone();
        if left.len() < 2 || right.len() < 2 {
            return Err("rows of fewer than two axes".to_owned());
        }
        left.insert(left.len() - 1, Dim::ONE);
        right.insert(right.len() - 2, Dim::ONE);
        let rank = left.len().max(right.len());
        let mut plan = Plan::default();
        let left = plan.reshape(left, Input::Tensor(first));
        let right = plan.reshape(right, Input::Tensor(second));
        self.norm_of_difference(&mut plan, left, right, rank - 1);
        Ok(plan.last())
    }

    /// Of every row to every later one: n (n - 1) / 2 pairs.
    fn own_distances(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let pairs = self.call.output_shape()?.elements();
        let width = self.length(input, 1)?;
        let mut plan = Plan::default();
        let rows = plan.restride(vec![pairs, width], Input::Tensor(input));
        self.norm_of_difference(&mut plan, rows, rows, 1);
        Ok(plan.last())
    }

    fn norm_of_difference(&self, plan: &mut Plan, left: Input, right: Input, axis: usize) {
        let is_euclidean = self.call.float("p").is_none_or(|p| p.total_cmp(&2.0).is_eq());
        let (power, root) = match is_euclidean {
            true => (Function::Square, Function::Sqrt),
            false => (Function::Power, Function::Power),
        };
        let difference = plan.apply(Function::Sub, &[left, right]);
        let powers = plan.apply(power, &[difference]);
        let op = Reduce { function: Reduction::Sum, axes: vec![axis], keep: Keep::Nothing };
        let sum = plan.step(Op::Reduce(op), &[powers]);
        plan.apply(root, &[sum]);
    }

    /// The product of both over both lengths.
    fn cosine(&self) -> Result<Lowered> {
        let operands = self.given(&["x1", "input1", "x2", "input2"]);
        let [first, second]: [TensorId; 2] =
            operands.try_into().map_err(|_| "two operands are needed".to_owned())?;
        let rank = self.rank(first)?.max(self.rank(second)?);
        let default = self.call.int("dim").unwrap_or(1);
        let axis = crate::graph::axis_of(default, rank).map_err(|error| error.to_string())?;
        let sum = |function| Op::Reduce(Reduce { function, axes: vec![axis], keep: Keep::Nothing });
        let mut plan = Plan::default();
        let (a, b) = (Input::Tensor(first), Input::Tensor(second));
        let product = plan.apply(Function::Mul, &[a, b]);
        let dot = plan.step(sum(Reduction::Sum), &[product]);
        let lengths = [a, b].map(|operand| plan.step(sum(Reduction::Norm2), &[operand]));
        let both = plan.apply(Function::Mul, &lengths);
        plan.apply(Function::Div, &[dot, both]);
        Ok(plan.last())
    }
}
