//! Operators whose results have as many elements as the data say.
//!
//! Not here: the symbols of those sizes, which the importer adds with the most they can be.

use super::{Aten, Family, Input, Lowered, Plan, Result};
use crate::graph::{Dim, Function, Op, TensorId};
use flopwise_formats::Format;

impl Aten<'_, '_, '_> {
    pub(super) fn data_decided(&self, base: &str) -> Family {
        Ok(Some(match base {
            "nonzero" | "nonzero_static" | "nonzero_numpy" | "argwhere" => {
                self.tallied(&[Function::Compare], self.call.tensor("self")?)
            }
            "masked_select" => {
                let mut plan = Plan::default();
                let (input, mask) = (self.call.tensor("self")?, self.call.tensor("mask")?);
                let chosen =
                    plan.apply(Function::Select, &[Input::Tensor(mask), Input::Tensor(input)]);
                plan.step(self.declared_fill()?, &[chosen]);
                Ok(plan.last())
            }
            "unique"
            | "_unique"
            | "_unique2"
            | "unique_dim"
            | "unique_consecutive"
            | "unique_dim_consecutive" => self.unique(),
            "bincount" => {
                let operands = self.given(&["self", "weights"]);
                self.tallied(&[Function::Add], *operands.first().ok_or("no input")?)
            }
            // Less the lowest, times bins over width, rounded down; one added to that bin.
            "histc" => {
                let functions = [Function::Sub, Function::Mul, Function::Round, Function::Add];
                self.tallied(&functions, self.call.tensor("self")?)
            }
            // A search by halves takes log2 of the boundaries; at least one comparison.
            "bucketize" | "searchsorted" => {
                let input = *self.given(&["self", "input"]).last().ok_or("no input")?;
                self.tallied(&[Function::Compare], input)
            }
            "segment_reduce" => self.tallied(&[Function::Add], self.call.tensor("data")?),
            _ => return Ok(None),
        }?))
    }

    /// Sorted, and each element compared with the one before it.
    fn unique(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let elements = self.shape(input)?.elements();
        let mut plan = Plan::default();
        let flat = plan.reshape(vec![elements.clone()], Input::Tensor(input));
        let sorted = plan.step(Op::TopK { axis: 0, k: elements }, &[flat]);
        let found = plan.apply(Function::Compare, &[sorted]);
        let mut results = Vec::new();
        for (_, declared) in self.call.outputs {
            let declared = declared.as_ref().ok_or("the file does not give the shapes")?;
            let (shape, format) = (declared.shape.clone(), declared.format);
            results.push(plan.step(Op::Fill { shape, format }, &[found]));
        }
        Ok(plan.results(results))
    }

    /// The elements where a mask is true: an index by one boolean tensor.
    pub(super) fn masked_index(&self, input: TensorId, indices: &[TensorId]) -> Result<Lowered> {
        let masks = indices.iter().filter(|id| self.format(**id) == Some(Format::BOOL));
        let mut plan = Plan::default();
        let mut found = Input::Tensor(input);
        for mask in masks {
            found = plan.apply(Function::Compare, &[Input::Tensor(*mask)]);
        }
        plan.step(self.declared_fill()?, &[found]);
        Ok(plan.last())
    }
}

/// The most results that an operator over `input` can have along an axis that the data decide.
pub(in super::super) fn most_results(base: &str, input: &[Dim]) -> Option<Dim> {
    match base {
        "nonzero" | "nonzero_numpy" | "argwhere" | "masked_select" | "unique" | "_unique"
        | "_unique2" | "unique_consecutive" | "index" | "where" => Some(Dim::product(input)),
        "nms" => input.first().cloned(),
        _ => None,
    }
}
