//! The same bytes under another shape or other strides.
//!
//! Not here: whatever moves bytes (`copies.rs`).

use super::Results;
use super::{Aten, Family, Input, Lowered, Result, Step, one};
use crate::graph::{Dim, Op, Range, Storage, TensorId, axis_of};

impl Aten<'_, '_, '_> {
    /// The same bytes under another shape or other strides.
    pub(super) fn views(&self, base: &str) -> Family {
        Ok(Some(match base {
            "view" | "reshape" | "_unsafe_view" | "flatten" | "unflatten" | "squeeze"
            | "unsqueeze" | "view_as" | "reshape_as" | "ravel" | "atleast_1d" | "atleast_2d"
            | "atleast_3d" | "view_copy" | "reshape_copy" | "_reshape_alias" | "squeeze_copy"
            | "unsqueeze_copy" | "_reshape_copy" | "collapse_view" | "split_dim" => self.reshaped(),
            "alias"
            | "detach"
            | "lift_fresh"
            | "lift_fresh_copy"
            | "dropout"
            | "feature_dropout"
            | "alpha_dropout"
            | "lift"
            | "positive"
            | "resolve_conj"
            | "resolve_neg"
            | "native_dropout"
            | "feature_alpha_dropout"
            | "alias_copy"
            | "detach_copy"
            | "_fw_primal"
            | "view_of"
            | "requires_grad"
            | "_lazy_clone"
            | "set_data"
            | "pin_memory"
            | "_pin_memory"
            | "conj_copy"
            | "rename"
            | "_neg_view_copy" => {
                let given = self.given(&["self", "input", "a"]);
                one(Op::Identity, given.get(..1).ok_or("the input is missing")?)
            }
            "expand"
            | "expand_as"
            | "broadcast_to"
            | "expand_copy"
            | "_sparse_broadcast_to"
            | "broadcast_in_dim" => self.expanded(base),
            "as_strided" | "unfold" | "diagonal" | "linalg_diagonal" | "as_strided_copy"
            | "unfold_copy" | "diagonal_copy" => {
                one(Op::Restride { shape: self.call.output_shape()? }, &self.given(&["self", "A"]))
            }
            "permute" | "transpose" | "swapaxes" | "swapdims" | "t" | "numpy_T" | "mT"
            | "movedim" | "moveaxis" | "permute_copy" | "matrix_H" | "mH" | "adjoint"
            | "t_copy" | "transpose_copy" | "numpy_t" => self.transpose(base),
            _ => return Ok(None),
        }?))
    }

    /// Parts of a tensor.
    pub(super) fn parts(&self, base: &str) -> Family {
        let view = Storage::View;
        Ok(Some(match base {
            "slice" | "narrow" | "slice_copy" | "narrow_copy" => {
                let (op, input) = self.slice(base)?;
                one(op, &[input])
            }
            "select" | "select_copy" => self.select(),
            "split"
            | "split_with_sizes"
            | "chunk"
            | "tensor_split"
            | "unsafe_split"
            | "unsafe_chunk"
            | "unsafe_split_with_sizes"
            | "hsplit"
            | "vsplit"
            | "dsplit"
            | "split_copy"
            | "split_with_sizes_copy" => {
                let input = self.call.tensor("self")?;
                let default = match base {
                    "hsplit" if 1 < self.rank(input)? => 1,
                    "dsplit" => 2,
                    _ => 0,
                };
                let axis = self.axis("dim", input, default)?;
                let sizes = self.declared_sizes(axis)?;
                one(Op::Split { axis, sizes, storage: view }, &[input])
            }
            "unbind" | "unbind_copy" => {
                let input = self.call.tensor("self")?;
                let axis = self.axis("dim", input, 0)?;
                let n_outputs = self.call.outputs.len();
                let op = Op::Split { axis, sizes: vec![Dim::ONE; n_outputs], storage: view };
                let inputs = vec![Input::Tensor(input)];
                let steps = vec![Step { op, inputs, n_outputs, format: None }];
                Ok(Lowered { steps, results: Results::Reshaped })
            }
            _ => return Ok(None),
        }?))
    }

    /// The same elements; `view.dtype` sees the same bits as another format, and as more or fewer
    /// elements.
    fn reshaped(&self) -> Result<Lowered> {
        let input = *self.given(&["self", "a"]).first().ok_or("the input is missing")?;
        let output = self.call.output()?;
        let (shape, format) = (output.shape.clone(), output.format);
        let op = match self.format(input) {
            Some(before) if before != format => Op::Bitcast { shape, format },
            _ => Op::Reshape { shape },
        };
        one(op, &[input])
    }

    /// `broadcast_in_dim` may set axes anywhere.
    fn expanded(&self, base: &str) -> Result<Lowered> {
        let shape = self.call.output_shape()?;
        let input = self.given(&["self", "a"]);
        match base {
            "broadcast_in_dim" => one(Op::Restride { shape }, &input),
            _ => one(Op::Expand { shape }, &input),
        }
    }

    /// The length of each declared output along an axis.
    fn declared_sizes(&self, axis: usize) -> Result<Vec<Dim>> {
        let size = |declared: &Option<crate::graph::TensorType>| {
            declared.as_ref().and_then(|declared| declared.shape.0.get(axis).cloned())
        };
        let sizes: Option<Vec<Dim>> =
            self.call.outputs.iter().map(|(_, declared)| size(declared)).collect();
        sizes.ok_or_else(|| "the file does not give the sizes of the pieces".to_owned())
    }

    fn transpose(&self, base: &str) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let rank = self.rank(input)?;
        let mut permutation: Vec<usize> = (0..rank).collect();
        let as_axis = |axis: i64| axis_of(axis, rank).map_err(|error| error.to_string());
        match base {
            "permute" | "permute_copy" => {
                let axes = self.call.ints("dims").ok_or("argument `dims` is missing")?;
                permutation = axes.into_iter().map(as_axis).collect::<Result<_>>()?;
            }
            "t" | "numpy_T" | "t_copy" | "numpy_t" => permutation.reverse(),
            "mT" | "mH" | "matrix_H" | "adjoint" => permutation[rank.saturating_sub(2)..].reverse(),
            "movedim" | "moveaxis" => {
                let pairs = self.call.ints("source").zip(self.call.ints("destination"));
                let (from, to) = pairs.ok_or("argument `source` is missing")?;
                permutation = moved(rank, &from, &to)?;
            }
            _ => {
                let names = [("dim0", "dim1"), ("axis0", "axis1")];
                let pair =
                    names.iter().find_map(|(a, b)| Some((self.call.int(a)?, self.call.int(b)?)));
                let (a, b) = pair.ok_or("the two axes are missing")?;
                permutation.swap(as_axis(a)?, as_axis(b)?);
            }
        }
        one(Op::Transpose { permutation, storage: Storage::View }, &[input])
    }

    fn slice(&self, base: &str) -> Result<(Op, TensorId)> {
        let input = self.call.tensor("self")?;
        let axis = self.axis("dim", input, 0)?;
        let length = self.shape(input)?.0[axis].clone();
        // Counted from the back when negative, then clamped to the axis, as Python does.
        let place = |value: Option<Dim>, default: &Dim| {
            let value = value.unwrap_or_else(|| default.clone());
            let is_from_back = value.as_constant().is_some_and(|value| value < 0);
            let value = if is_from_back { &length + &value } else { value };
            value.maximum(&Dim::ZERO).minimum(&length)
        };
        let start = place(self.call.dim("start"), &Dim::ZERO);
        let end = match base {
            "narrow" => &start + &self.call.dim("length").ok_or("argument `length` is missing")?,
            _ => place(self.call.dim("end"), &length),
        };
        let step = self.call.int("step").unwrap_or(1);
        let ranges = vec![Range { axis, start, end, step }];
        Ok((Op::Slice { ranges, storage: Storage::View }, input))
    }

    /// One place of an axis, which goes.
    fn select(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let axis = self.axis("dim", input, 0)?;
        let index = self.call.dim("index").ok_or("argument `index` is missing")?;
        let is_from_back = index.as_constant().is_some_and(|index| index < 0);
        let start = if is_from_back { &self.shape(input)?.0[axis] + &index } else { index };
        let end = &start + &Dim::ONE;
        let ranges = vec![Range { axis, start, end, step: 1 }];
        let slice = Op::Slice { ranges, storage: Storage::View };
        let reshape = Op::Reshape { shape: self.call.output_shape()? };
        let steps = vec![
            Step { op: slice, inputs: vec![Input::Tensor(input)], n_outputs: 1, format: None },
            Step { op: reshape, inputs: vec![Input::made(0)], n_outputs: 1, format: None },
        ];
        Ok(Lowered::last(steps))
    }
}

/// Where each axis comes from when some are moved and the others keep their order.
fn moved(rank: usize, from: &[i64], to: &[i64]) -> Result<Vec<usize>> {
    let axes = |list: &[i64]| -> Result<Vec<usize>> {
        list.iter().map(|axis| axis_of(*axis, rank).map_err(|error| error.to_string())).collect()
    };
    let (from, to) = (axes(from)?, axes(to)?);
    if from.len() != to.len() {
        return Err("as many places as axes are needed".to_owned());
    }
    let mut rest = (0..rank).filter(|axis| !from.contains(axis));
    let place = |axis: usize| to.iter().position(|at| *at == axis).map(|at| from[at]);
    let found: Option<Vec<usize>> =
        (0..rank).map(|axis| place(axis).or_else(|| rest.next())).collect();
    found.ok_or_else(|| "axes moved twice".to_owned())
}
