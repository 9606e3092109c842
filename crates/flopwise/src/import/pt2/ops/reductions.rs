//! Sums, extremes, sorting: functions of many elements.
//!
//! Not here: losses (`losses.rs`).

use super::Results;
use super::{Aten, Family, Input, Lowered, Plan, Result, one};
use crate::graph::{Dim, Function, Keep, Op, Reduce, Reduction, axis_of};

impl Aten<'_, '_, '_> {
    pub(super) fn reductions(&self, base: &str) -> Family {
        let function = match base {
            "sum" | "nansum" | "trace" | "sum_to_size" => Reduction::Sum,
            "mean" | "nanmean" => Reduction::Mean,
            "prod" => Reduction::Product,
            "amax" | "amin" | "max" | "min" | "all" | "any" | "aminmax" => {
                if base.starts_with('m') && self.call.argument("other").is_some() {
                    let function =
                        if base == "max" { Function::Maximum } else { Function::Minimum };
                    return one(Op::Elementwise(function), &self.call.read_tensors()).map(Some);
                }
                Reduction::Extreme
            }
            "argmax" | "argmin" => Reduction::ArgExtreme,
            "var" | "std" | "var_mean" | "std_mean" => Reduction::Variance,
            "logsumexp" => Reduction::LogSumExp,
            "norm" | "linalg_norm" | "linalg_vector_norm" | "linalg_matrix_norm"
            | "frobenius_norm" | "native_norm" => Reduction::Norm2,
            "count_nonzero" => return self.counted().map(Some),
            "dist" => return self.distance().map(Some),
            "trapezoid" | "trapz" | "cumulative_trapezoid" => {
                return Err("a sum of trapezoids, which no export keeps whole".into());
            }
            "cumsum" | "cumprod" | "cummax" | "cummin" | "logcumsumexp" | "_cummax_helper"
            | "_cummin_helper" => {
                let input = self.call.tensor("self")?;
                return one(Op::Cumulative { axis: self.axis("dim", input, -1)? }, &[input])
                    .map(Some);
            }
            "topk" | "sort" | "argsort" | "msort" => return self.top_k().map(Some),
            "kthvalue" | "median" | "nanmedian" | "mode" => return self.one_of_many().map(Some),
            "quantile" | "nanquantile" => {
                return Err("a sort and an interpolation, which no export keeps whole".into());
            }
            _ => return Ok(None),
        };
        let input = *self.given(&["self", "inp", "A"]).first().ok_or("the input is missing")?;
        let rank = self.rank(input)?;
        let listed = self.call.ints("dim").filter(|axes| !axes.is_empty());
        let axes: std::result::Result<Vec<usize>, _> = match listed {
            Some(axes) => axes.into_iter().map(|axis| axis_of(axis, rank)).collect(),
            None => Ok((0..rank).collect()),
        };
        let is_kept = self.call.boolean("keepdim").unwrap_or(false);
        let keep = if is_kept { Keep::Axes } else { Keep::Nothing };
        let axes = axes.map_err(|error| error.to_string())?;
        if base == "trace" || base == "sum_to_size" {
            return self.tallied(&[Function::Add], input).map(Some);
        }
        one(Op::Reduce(Reduce { function, axes, keep }), &[input]).map(Some)
    }

    /// A comparison and an addition per element.
    fn counted(&self) -> Result<Lowered> {
        self.tallied(&[Function::Compare, Function::Add], self.call.tensor("self")?)
    }

    fn distance(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let operands = self.given(&["self", "other"]);
        let axes = (0..self.rank(*operands.first().ok_or("no operand")?)?).collect();
        let inputs: Vec<Input> = operands.into_iter().map(Input::Tensor).collect();
        let difference = plan.apply(Function::Sub, &inputs);
        let op = Reduce { function: Reduction::Norm2, axes, keep: Keep::Nothing };
        plan.step(Op::Reduce(op), &[difference]);
        Ok(plan.last())
    }

    /// One element of each row (of all, without an axis), and where it stood.
    fn one_of_many(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let mut plan = Plan::default();
        let (value, axis) = match self.call.int("dim") {
            Some(_) => (Input::Tensor(input), self.axis("dim", input, -1)?),
            None if self.call.outputs.len() == 2 => {
                (Input::Tensor(input), self.axis("dim", input, -1)?)
            }
            None => {
                let elements = self.shape(input)?.elements();
                (plan.reshape(vec![elements], Input::Tensor(input)), 0)
            }
        };
        plan.step_with_outputs(Op::TopK { axis, k: Dim::ONE }, &[value], 2);
        Ok(Lowered { steps: plan.steps, results: Results::Reshaped })
    }

    fn top_k(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let axis = self.axis("dim", input, -1)?;
        let k = match self.call.dim("k") {
            Some(k) => k,
            None => self.shape(input)?.0.get(axis).cloned().ok_or("no such axis")?,
        };
        one(Op::TopK { axis, k }, &[input])
    }
}
