//! Bytes move: joins, gathers, scatters, fills.
//!
//! Not here: views (`views.rs`).

use super::{Aten, Family, Input, Lowered, Plan, Result, Step, one};
use crate::graph::{Dim, Function, Op, TensorId, axis_of};

impl Aten<'_, '_, '_> {
    /// Bytes move.
    pub(super) fn copies(&self, base: &str) -> Family {
        let call = self.call;
        let input = || call.tensor("self");
        Ok(Some(match base {
            "contiguous" | "clone" | "roll" | "flip" | "fliplr" | "flipud" | "conj_physical"
            | "_to_sparse" | "resize" | "resize_as" => one(Op::Copy, &[input()?]),
            "copy" => self.copy_into(),
            "rot90" | "native_channel_shuffle" | "_make_dual" => {
                one(Op::Rearrange { shape: call.output_shape()? }, &[input()?])
            }
            "pixel_shuffle" | "pixel_unshuffle" | "channel_shuffle" => {
                one(Op::Rearrange { shape: call.output_shape()? }, &[input()?])
            }
            "cat" | "concat" | "concatenate" | "_cat" => {
                let parts = call.tensor_list("tensors");
                let first = *parts.first().ok_or("nothing to join")?;
                one(Op::Concat { axis: self.axis("dim", first, 0)? }, &parts)
            }
            "stack" | "_stack" => self.stack(),
            "hstack" | "vstack" | "dstack" | "column_stack" | "row_stack" | "block_diag"
            | "cartesian_prod" | "combinations" | "meshgrid" | "pad_sequence" => self.assembled(),
            "pad" | "constant_pad_nd" | "reflection_pad1d" | "reflection_pad2d"
            | "reflection_pad3d" | "replication_pad1d" | "replication_pad2d"
            | "replication_pad3d" | "_pad_circular" | "_pad_enum" => self.pad(),
            "repeat" | "tile" => {
                let repeats = call.dims("repeats").or_else(|| call.dims("dims"));
                one(Op::Tile { repeats: repeats.ok_or("the repeats are missing")? }, &[input()?])
            }
            _ => return Ok(None),
        }?))
    }

    /// Elements picked by indices or conditions.
    pub(super) fn picks(&self, base: &str) -> Family {
        let call = self.call;
        let input = || call.tensor("self");
        Ok(Some(match base {
            "index_select" => {
                let source = input()?;
                let axis = self.axis("dim", source, 0)?;
                one(Op::Gather { axis }, &[source, call.tensor("index")?])
            }
            "gather" => one(Op::GatherElements, &[input()?, call.tensor("index")?]),
            "index" | "_unsafe_index" => self.index(),
            "take" | "take_along_dim" => {
                let indices = self.given(&["index", "indices"]);
                one(Op::GatherElements, &[input()?, *indices.first().ok_or("no indices")?])
            }
            "scatter" | "scatter_add" | "scatter_reduce" | "index_put" | "_unsafe_index_put"
            | "_index_put_impl" | "index_copy" | "index_add" | "index_fill" | "index_reduce"
            | "masked_scatter" | "slice_scatter" | "select_scatter" | "diagonal_scatter"
            | "as_strided_scatter" | "put" | "fill_diagonal" => self.scatter(base),
            "masked_fill" | "_masked_fill" => {
                one(Op::Elementwise(Function::Select), &self.masked_fill()?)
            }
            "where" if call.optional_tensor("self").is_none() && call.outputs.len() != 1 => {
                self.tallied(&[Function::Compare], call.tensor("condition")?)
            }
            "where" => {
                let names = ["condition", "self", "other"];
                one(Op::Elementwise(Function::Select), &self.given(&names))
            }
            "tril" | "triu" => one(Op::Elementwise(Function::Select), &[input()?]),
            _ => return Ok(None),
        }?))
    }

    /// Results that no operand is copied to: constants, ranges, random numbers.
    pub(super) fn fills(&self, base: &str) -> Family {
        let call = self.call;
        Ok(Some(match base {
            "arange"
            | "range"
            | "iota"
            | "zeros"
            | "ones"
            | "full"
            | "empty"
            | "new_zeros"
            | "new_ones"
            | "new_full"
            | "new_empty"
            | "new_empty_strided"
            | "zeros_like"
            | "ones_like"
            | "full_like"
            | "empty_like"
            | "empty_permuted"
            | "empty_strided"
            | "_efficientzerotensor"
            | "rand"
            | "randn"
            | "randint"
            | "randperm"
            | "rand_like"
            | "randn_like"
            | "randint_like"
            | "eye"
            | "linspace"
            | "logspace"
            | "scalar_tensor"
            | "fill"
            | "zero"
            | "tril_indices"
            | "triu_indices"
            | "vander"
            | "bernoulli"
            | "normal"
            | "normal_functional"
            | "uniform"
            | "exponential"
            | "random"
            | "log_normal"
            | "geometric"
            | "cauchy"
            | "poisson"
            | "binomial"
            | "multinomial"
            | "_standard_gamma"
            | "one_hot"
            | "hann_window"
            | "hamming_window"
            | "blackman_window"
            | "kaiser_window"
            | "bartlett_window"
            | "fft_fftfreq"
            | "fft_rfftfreq"
            | "diag_embed"
            | "diag"
            | "diagflat"
            | "_shape_as_tensor" => one(self.declared_fill()?, &[]),
            // Of one tensor, the repeats themselves; their sum is the declared size.
            "repeat_interleave" => one(self.declared_fill()?, &call.read_tensors()),
            _ => return Ok(None),
        }?))
    }

    /// `src` over all of `self`.
    fn copy_into(&self) -> Result<Lowered> {
        let (target, source) = (self.call.tensor("self")?, self.call.tensor("src")?);
        let mut plan = Plan::default();
        let mut value = Input::Tensor(source);
        if self.shape(target)? != self.shape(source)? {
            let shape = self.shape(target)?.clone();
            value = plan.step(Op::Expand { shape }, &[value]);
        }
        plan.step(Op::Copy, &[value]);
        Ok(plan.last())
    }

    /// Joins whose shape the file gives: every result is a copy.
    fn assembled(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let parts: Vec<Input> = self.call.read_tensors().into_iter().map(Input::Tensor).collect();
        let mut results = Vec::new();
        for (_, declared) in self.call.outputs {
            let declared = declared.as_ref().ok_or("the file does not give the shapes")?;
            let (shape, format) = (declared.shape.clone(), declared.format);
            results.push(plan.step(Op::Fill { shape, format }, &parts));
        }
        Ok(plan.results(results))
    }

    /// Where elements are added to what stands there, one addition each.
    fn scatter(&self, base: &str) -> Result<Lowered> {
        let call = self.call;
        let mut inputs: Vec<Input> = call.read_tensors().into_iter().map(Input::Tensor).collect();
        let reduces = call.string("reduce").is_some_and(|reduce| reduce != "none");
        let is_added = base == "scatter_add"
            || base == "index_add"
            || reduces
            || call.boolean("accumulate").unwrap_or(false);
        let mut plan = Plan::default();
        let updates = self.given(&["src", "values", "source"]);
        if let (true, Some(updates)) = (is_added, updates.first()) {
            let added = plan.apply(Function::Add, &[Input::Tensor(*updates)]);
            inputs.retain(|input| *input != Input::Tensor(*updates));
            inputs.push(added);
        }
        plan.step(Op::Scatter, &inputs);
        Ok(plan.last())
    }

    fn masked_fill(&self) -> Result<Vec<TensorId>> {
        // The output takes the format of the second operand of a selection.
        Ok(vec![self.call.tensor("mask")?, self.call.tensor("self")?])
    }

    fn stack(&self) -> Result<Lowered> {
        let parts = self.call.tensor_list("tensors");
        let first = *parts.first().ok_or("nothing to join")?;
        let mut shape = self.shape(first)?.clone();
        let rank = shape.rank() + 1;
        let axis = axis_of(self.call.int("dim").unwrap_or(0), rank).map_err(|e| e.to_string())?;
        shape.0.insert(axis, Dim::ONE);
        let mut steps = Vec::with_capacity(parts.len() + 1);
        for part in &parts {
            let op = Op::Reshape { shape: shape.clone() };
            steps.push(Step { op, inputs: vec![Input::Tensor(*part)], n_outputs: 1, format: None });
        }
        let inputs = (0..parts.len()).map(Input::made).collect();
        steps.push(Step { op: Op::Concat { axis }, inputs, n_outputs: 1, format: None });
        Ok(Lowered::last(steps))
    }

    /// PyTorch lists paddings from the last axis forward: before, after, before, after ...
    fn pad(&self) -> Result<Lowered> {
        let input = self.given(&["self", "input"]);
        let rank = self.rank(*input.first().ok_or("the input is missing")?)?;
        let names = ["pad", "padding"];
        let pads = names.iter().find_map(|name| self.call.dims(name)).ok_or("no paddings")?;
        let mut before = vec![Dim::ZERO; rank];
        let mut after = vec![Dim::ZERO; rank];
        for (pair_idx, pair) in pads.chunks(2).enumerate() {
            let axis = rank.checked_sub(pair_idx + 1).ok_or("more paddings than axes")?;
            let [first, last] = pair else { return Err("an odd number of paddings".to_owned()) };
            (before[axis], after[axis]) = (first.clone(), last.clone());
        }
        one(Op::Pad { before, after }, &input)
    }

    fn index(&self) -> Result<Lowered> {
        let present = self.call.present("indices");
        let is_present = |axis: &usize| present[*axis];
        let axes: Vec<usize> = (0..present.len()).filter(is_present).collect();
        let indices = self.call.tensor_list("indices");
        let is_mask = indices.iter().any(|id| {
            let found = self.builder.get(*id).tensor_type.as_ref();
            found.is_some_and(|found| found.format == flopwise_formats::Format::BOOL)
        });
        if is_mask {
            return self.masked_index(self.call.tensor("self")?, &indices);
        }
        let mut inputs = vec![self.call.tensor("self")?];
        inputs.extend(indices);
        one(Op::Index { axes }, &inputs)
    }
}
