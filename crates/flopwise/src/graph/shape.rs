//! Shape rules: the types of an operator's outputs, from those of its inputs.
//!
//! One rule per [`Op`]. Sizes may be symbolic; where two that must agree cannot be compared, the
//! rule records a [`Constraint`] that is checked once the symbols are bound.

use super::dim::Dim;
use super::einsum::Einsum;
use super::op::{
    Convolution, Direction, Function, Keep, MatMul, Op, Orientation, Padding, Pool, Range,
    Recurrent, Reduce, Reduction, Rounding, Window,
};
use super::symbol::{Constraint, Relation};
use super::tensor::{Shape, TensorType};
use flopwise_formats::Format;
use std::collections::BTreeMap;

/// An operator's inputs do not fit it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShapeError(pub String);

type Types = Result<Vec<TensorType>, ShapeError>;

fn fail<T>(text: impl Into<String>) -> Result<T, ShapeError> {
    Err(ShapeError(text.into()))
}

/// The output types of `op`, and what must hold between sizes for it to run. `node` names the
/// constraints.
///
/// # Errors
/// [`ShapeError`] when the inputs cannot be what the operator takes.
pub fn infer(
    op: &Op,
    inputs: &[TensorType],
    node: &str,
    constraints: &mut Vec<Constraint>,
) -> Types {
    let mut rule = Rule { inputs, node, constraints };
    match op {
        Op::MatMul(matmul) => rule.matmul(*matmul),
        Op::GroupedMatMul { stack } => rule.grouped_matmul(*stack),
        Op::Einsum(einsum) => rule.einsum(einsum),
        Op::Convolution(convolution) => rule.convolution(convolution),
        Op::Attention(_) => rule.attention(),
        Op::IndexScores(_) => rule.index_scores(),
        Op::Embedding => rule.gather(0),
        Op::Gather { axis } => rule.gather(*axis),
        Op::Normalization(_)
        | Op::Softmax { .. }
        | Op::Cumulative { .. }
        | Op::Identity
        | Op::Copy
        | Op::Scatter => rule.same_as_first(),
        Op::Elementwise(function) => rule.elementwise(*function),
        Op::Cast(format) | Op::Quantize(format) | Op::Dequantize(format) => rule.cast(*format),
        Op::Recurrent(recurrent) => rule.recurrent(recurrent),
        Op::Bitcast { shape, format } | Op::Fourier { shape, format, .. } => {
            rule.input(0)?;
            Ok(vec![TensorType { shape: shape.clone(), format: *format }])
        }
        Op::Either => rule.either(),
        Op::Reduce(reduce) => rule.reduce(reduce),
        Op::Pool(pool) => rule.pool(pool),
        Op::Reshape { shape } | Op::Rearrange { shape } => rule.reshape(shape),
        Op::Transpose { permutation, .. } => rule.transpose(permutation),
        Op::Expand { shape } => rule.expand(shape),
        Op::Slice { ranges, .. } => rule.slice(ranges),
        Op::Split { axis, sizes, .. } => rule.split(*axis, sizes),
        Op::Concat { axis } => rule.concat(*axis),
        Op::Pad { before, after } => rule.pad(before, after),
        Op::Tile { repeats } => rule.tile(repeats),
        Op::GatherElements => rule.like_second(),
        Op::GatherNd { batch_axes } => rule.gather_nd(*batch_axes),
        Op::Index { axes } => rule.index(axes),
        Op::Fill { shape, format } => {
            Ok(vec![TensorType { shape: shape.clone(), format: *format }])
        }
        Op::Restride { shape } => rule.output(shape.0.clone()),
        Op::Resize { shape, .. } => rule.resize(shape),
        Op::TopK { axis, k } => rule.top_k(*axis, k),
        Op::Stated(stated) => Ok(stated.results.clone()),
        Op::Opaque { .. } => fail("an operator without a rule has no known output shape"),
    }
}

/// Resolves a negative axis.
///
/// # Errors
/// An axis outside the rank.
pub fn axis_of(axis: i64, rank: usize) -> Result<usize, ShapeError> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_front) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => fail(format!("axis {axis} of a tensor with {rank} axes")),
    }
}

struct Rule<'a> {
    inputs: &'a [TensorType],
    node: &'a str,
    constraints: &'a mut Vec<Constraint>,
}

impl Rule<'_> {
    fn input(&self, input_idx: usize) -> Result<&TensorType, ShapeError> {
        let found = self.inputs.get(input_idx);
        found.ok_or_else(|| ShapeError(format!("input {input_idx} is missing")))
    }

    fn output(&self, lengths: Vec<Dim>) -> Types {
        let format = self.input(0)?.format;
        Ok(vec![TensorType { shape: Shape(lengths), format }])
    }

    fn same_as_first(&self) -> Types {
        Ok(vec![self.input(0)?.clone()])
    }

    fn require(&mut self, relation: Relation, left: &Dim, right: &Dim) {
        let (left, right, node) = (left.clone(), right.clone(), self.node.to_owned());
        self.constraints.push(Constraint { relation, left, right, node });
    }

    /// The one size that two equal sizes have; the simpler way of writing it.
    fn same(&mut self, a: &Dim, b: &Dim, what: &str) -> Result<Dim, ShapeError> {
        match a.is_equal(b) {
            Some(true) => Ok(a.clone()),
            Some(false) => fail(format!("{what} must agree, got {a} and {b}")),
            None => {
                self.require(Relation::Equal, a, b);
                Ok(simpler(a, b).clone())
            }
        }
    }

    /// The size that two sizes broadcast to.
    fn broadcast_dim(&mut self, a: &Dim, b: &Dim) -> Result<Dim, ShapeError> {
        if *a == Dim::ONE || a == b {
            return Ok(b.clone());
        }
        if *b == Dim::ONE {
            return Ok(a.clone());
        }
        match a.is_equal(b) {
            Some(true) => Ok(a.clone()),
            Some(false) if is_surely_not_one(a) && is_surely_not_one(b) => {
                fail(format!("sizes {a} and {b} do not broadcast"))
            }
            _ => {
                let chosen = if is_surely_not_one(a) && !is_surely_not_one(b) {
                    a
                } else if is_surely_not_one(b) && !is_surely_not_one(a) {
                    b
                } else {
                    simpler(a, b)
                };
                let other = if chosen == a { b } else { a };
                self.require(Relation::Broadcast, chosen, other);
                Ok(chosen.clone())
            }
        }
    }

    fn broadcast(&mut self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, ShapeError> {
        let rank = a.len().max(b.len());
        let at = |lengths: &[Dim], axis: usize| {
            let missing = rank - lengths.len();
            if axis < missing { Dim::ONE } else { lengths[axis - missing].clone() }
        };
        (0..rank).map(|axis| self.broadcast_dim(&at(a, axis), &at(b, axis))).collect()
    }

    fn elementwise(&mut self, function: Function) -> Types {
        let mut lengths = Vec::new();
        for input in self.inputs {
            lengths = self.broadcast(&lengths, &input.shape.0)?;
        }
        let is_predicate =
            matches!(function, Function::Compare | Function::Logical | Function::Classify);
        let format = if is_predicate {
            Format::BOOL
        } else if function == Function::Select {
            self.input(1).or_else(|_| self.input(0))?.format
        } else {
            let float = self.inputs.iter().map(|input| input.format).find(|f| f.is_float());
            float.unwrap_or(self.input(0)?.format)
        };
        Ok(vec![TensorType { shape: Shape(lengths), format }])
    }

    fn cast(&self, format: Format) -> Types {
        Ok(vec![TensorType { shape: self.input(0)?.shape.clone(), format }])
    }

    fn matmul(&mut self, matmul: MatMul) -> Types {
        let (a, b) = (self.input(0)?.shape.0.clone(), self.input(1)?.shape.0.clone());
        let (a_batch, a_matrix) = split_matrix(&a, Vector::Row)?;
        let (b_batch, b_matrix) = split_matrix(&b, Vector::Column)?;
        let [m, k] = oriented(a_matrix, if a.len() == 1 { Orientation::Plain } else { matmul.a });
        let [k_again, n] =
            oriented(b_matrix, if b.len() == 1 { Orientation::Plain } else { matmul.b });
        self.same(&k, &k_again, "inner sizes of a matrix product")?;
        let mut lengths = self.broadcast(a_batch, b_batch)?;
        if a.len() != 1 {
            lengths.push(m);
        }
        if b.len() != 1 {
            lengths.push(n);
        }
        if let Some(addend) = self.inputs.get(2).filter(|_| 2 + matmul.scales < self.inputs.len()) {
            lengths = self.broadcast(&lengths, &addend.shape.0.clone())?;
        }
        self.output(lengths)
    }

    fn grouped_matmul(&mut self, orientation: Orientation) -> Types {
        let (rows, stack) = (self.input(0)?.shape.0.clone(), self.input(1)?.shape.0.clone());
        let ([n, inner], [groups, first, last]) = (rows.as_slice(), stack.as_slice()) else {
            let (rows, stack) = (rows.len(), stack.len());
            return fail(format!("a grouped product of {rows} and {stack} axes"));
        };
        let [inner_again, out] = oriented([first.clone(), last.clone()], orientation);
        self.same(inner, &inner_again, "inner sizes of a grouped product")?;
        if let Some(addend) = self.inputs.get(2).filter(|addend| addend.shape.rank() == 2) {
            let (addend_groups, width) = (addend.shape.0[0].clone(), addend.shape.0[1].clone());
            self.same(groups, &addend_groups, "groups of a grouped product")?;
            self.same(&out, &width, "the width of a grouped product's addend")?;
        }
        self.output(vec![n.clone(), out])
    }

    fn einsum(&mut self, einsum: &Einsum) -> Types {
        let sizes = self.einsum_sizes(einsum)?;
        let lengths = einsum.output.iter().map(|label| {
            let size = sizes.get(label).cloned();
            size.ok_or_else(|| ShapeError(format!("output label `{label}` is in no input")))
        });
        let lengths: Result<Vec<Dim>, ShapeError> = lengths.collect();
        self.output(lengths?)
    }

    fn einsum_sizes(&mut self, einsum: &Einsum) -> Result<BTreeMap<char, Dim>, ShapeError> {
        let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
        for (input_idx, labels) in einsum.inputs.iter().enumerate() {
            let lengths = self.input(input_idx)?.shape.0.clone();
            if lengths.len() != labels.len() {
                let (labels, rank) = (labels.len(), lengths.len());
                return fail(format!("einsum names {labels} axes of an input with {rank}"));
            }
            for (label, length) in labels.iter().zip(lengths) {
                let size = match sizes.get(label).cloned() {
                    Some(size) => self.broadcast_dim(&size, &length)?,
                    None => length,
                };
                sizes.insert(*label, size);
            }
        }
        Ok(sizes)
    }

    fn convolution(&mut self, convolution: &Convolution) -> Types {
        let (input, weight) = (self.input(0)?.shape.0.clone(), self.input(1)?.shape.0.clone());
        let n_spatial = weight.len().saturating_sub(2);
        if n_spatial == 0 || (input.len() != weight.len() && input.len() + 1 != weight.len()) {
            let (input, weight) = (input.len(), weight.len());
            return fail(format!("a convolution of {input} axes with a weight of {weight}"));
        }
        let per_axis = [&convolution.stride, &convolution.dilation];
        if per_axis.iter().any(|list| list.len() != n_spatial) {
            return fail(format!("strides or dilations are not one per {n_spatial} spatial axes"));
        }
        if convolution.groups < 1 || convolution.stride.iter().any(|stride| *stride < 1) {
            return fail("groups and strides of a convolution must be positive");
        }
        let channel_axis = input.len() - n_spatial - 1;
        let groups = Dim::from(convolution.groups);
        let (c_in, c_out) = match convolution.direction {
            Direction::Forward => (&weight[1] * &groups, weight[0].clone()),
            Direction::Transposed { .. } => (weight[0].clone(), &weight[1] * &groups),
        };
        self.same(&input[channel_axis], &c_in, "input channels of a convolution")?;
        let mut lengths = input[..channel_axis].to_vec();
        lengths.push(c_out);
        for spatial in 0..n_spatial {
            let (length, kernel) = (&input[channel_axis + 1 + spatial], &weight[2 + spatial]);
            lengths.push(convolved(convolution, spatial, length, kernel)?);
        }
        self.output(lengths)
    }

    fn attention(&mut self) -> Types {
        let query = self.input(0)?.shape.0.clone();
        let (key, value) = (self.input(1)?.shape.0.clone(), self.input(2)?.shape.0.clone());
        let rank = query.len();
        if rank < 2 || key.len() != rank || value.len() != rank {
            return fail("query, key and value of an attention must have the same number of axes");
        }
        self.same(&query[rank - 1], &key[rank - 1], "head sizes of query and key")?;
        self.same(&key[rank - 2], &value[rank - 2], "lengths of key and value")?;
        let mut lengths = query[..rank - 1].to_vec();
        lengths.push(value[rank - 1].clone());
        self.output(lengths)
    }

    fn index_scores(&mut self) -> Types {
        let (query, key) = (self.input(0)?.shape.0.clone(), self.input(1)?.shape.0.clone());
        let weight = self.input(2)?.shape.0.clone();
        let ([batch @ .., heads, queries, d], [.., keys, d_again], [.., n_weights]) =
            (query.as_slice(), key.as_slice(), weight.as_slice())
        else {
            return fail("index scores take queries, keys and a weight per head");
        };
        self.same(d, d_again, "head sizes of query and key")?;
        self.same(heads, n_weights, "heads and their weights")?;
        let lengths = batch.iter().chain([queries, keys]).cloned().collect();
        self.output(lengths)
    }

    fn recurrent(&self, recurrent: &Recurrent) -> Types {
        let format = self.input(0)?.format;
        let output = |shape: &Shape| TensorType { shape: shape.clone(), format };
        Ok(recurrent.outputs.iter().map(output).collect())
    }

    fn either(&self) -> Types {
        let first = self.input(0)?;
        let differs = |other: &&TensorType| *other != first;
        match self.inputs.iter().find(differs) {
            Some(other) => fail(format!(
                "its branches give {} and {}, and which one runs is decided at run time",
                first.shape, other.shape
            )),
            None => Ok(vec![first.clone()]),
        }
    }

    fn gather(&self, axis: usize) -> Types {
        let (input, indices) = (&self.input(0)?.shape.0, &self.input(1)?.shape.0);
        if input.len() <= axis {
            return fail(format!("axis {axis} of a tensor with {} axes", input.len()));
        }
        let lengths = [&input[..axis], indices, &input[axis + 1..]].concat();
        self.output(lengths)
    }

    fn reduce(&self, reduce: &Reduce) -> Types {
        let input = self.input(0)?;
        let is_reduced = |axis: &usize| reduce.axes.contains(axis);
        let lengths = input.shape.0.iter().enumerate();
        let kept = lengths.filter_map(|(axis, length)| match (is_reduced(&axis), reduce.keep) {
            (false, _) => Some(length.clone()),
            (true, Keep::Axes) => Some(Dim::ONE),
            (true, Keep::Nothing) => None,
        });
        let is_position = reduce.function == Reduction::ArgExtreme;
        let format = if is_position { Format::INT64 } else { input.format };
        Ok(vec![TensorType { shape: Shape(kept.collect()), format }])
    }

    fn pool(&self, pool: &Pool) -> Types {
        let input = &self.input(0)?.shape.0;
        let n_spatial = match &pool.window {
            Window::Sliding { kernel, .. } => kernel.len(),
            Window::Adaptive { output } => output.len(),
        };
        if input.len() <= n_spatial {
            return fail(format!("pooling {n_spatial} axes of a tensor with {}", input.len()));
        }
        let first = input.len() - n_spatial;
        let mut lengths = input[..first].to_vec();
        for (spatial, length) in input[first..].iter().enumerate() {
            lengths.push(pooled(&pool.window, spatial, length)?);
        }
        self.output(lengths)
    }

    fn reshape(&mut self, shape: &Shape) -> Types {
        let before = self.input(0)?.shape.elements();
        self.same(&before, &shape.elements(), "element counts before and after a reshape")?;
        self.output(shape.0.clone())
    }

    fn transpose(&self, permutation: &[usize]) -> Types {
        let input = &self.input(0)?.shape.0;
        let mut seen = permutation.to_vec();
        seen.sort_unstable();
        if !seen.iter().copied().eq(0..input.len()) {
            return fail(format!("{permutation:?} does not permute {} axes", input.len()));
        }
        self.output(permutation.iter().map(|axis| input[*axis].clone()).collect())
    }

    fn expand(&mut self, shape: &Shape) -> Types {
        let input = self.input(0)?.shape.0.clone();
        let lengths = self.broadcast(&input, &shape.0)?;
        self.output(lengths)
    }

    fn slice(&self, ranges: &[Range]) -> Types {
        let mut lengths = self.input(0)?.shape.0.clone();
        for range in ranges {
            if lengths.len() <= range.axis || range.step == 0 {
                return fail(format!("axis {} by steps of {}", range.axis, range.step));
            }
            let span = match 0 < range.step {
                true => &range.end - &range.start,
                false => &range.start - &range.end,
            };
            let step = Dim::from(i64::try_from(range.step.unsigned_abs()).unwrap_or(i64::MAX));
            lengths[range.axis] = span.ceil_div(&step).maximum(&Dim::ZERO);
        }
        self.output(lengths)
    }

    fn split(&mut self, axis: usize, sizes: &[Dim]) -> Types {
        let input = self.input(0)?.clone();
        let Some(length) = input.shape.0.get(axis) else {
            return fail(format!("axis {axis} of a tensor with {} axes", input.shape.rank()));
        };
        self.same(length, &sizes.iter().cloned().sum(), "an axis and the sum of its parts")?;
        let part = |size: &Dim| {
            let mut part = input.clone();
            part.shape.0[axis] = size.clone();
            part
        };
        Ok(sizes.iter().map(part).collect())
    }

    fn concat(&mut self, axis: usize) -> Types {
        let mut lengths = self.input(0)?.shape.0.clone();
        for input in self.inputs.iter().skip(1) {
            // PyTorch's cat accepts an empty tensor of one axis beside any other.
            if input.shape.0 == [Dim::ZERO] {
                continue;
            }
            if input.shape.rank() != lengths.len() || lengths.len() <= axis {
                return fail(format!("{} joined to rank {}", input.shape, lengths.len()));
            }
            for other_axis in 0..lengths.len() {
                lengths[other_axis] = match other_axis == axis {
                    true => &lengths[axis] + &input.shape.0[axis],
                    false => self.same(
                        &lengths[other_axis],
                        &input.shape.0[other_axis],
                        "sizes beside the joined axis",
                    )?,
                };
            }
        }
        self.output(lengths)
    }

    fn pad(&self, before: &[Dim], after: &[Dim]) -> Types {
        let input = &self.input(0)?.shape.0;
        if before.len() != input.len() || after.len() != input.len() {
            return fail(format!("{} paddings for {} axes", before.len(), input.len()));
        }
        let around = before.iter().zip(after);
        let padded = input.iter().zip(around).map(|(length, (b, a))| &(length + b) + a);
        self.output(padded.collect())
    }

    fn tile(&self, repeats: &[Dim]) -> Types {
        let input = &self.input(0)?.shape.0;
        if repeats.len() < input.len() {
            return fail(format!("{} repeats for {} axes", repeats.len(), input.len()));
        }
        let missing = repeats.len() - input.len();
        let lengths = repeats.iter().enumerate().map(|(axis, repeat)| match axis < missing {
            true => repeat.clone(),
            false => repeat * &input[axis - missing],
        });
        self.output(lengths.collect())
    }

    fn like_second(&self) -> Types {
        self.output(self.input(1)?.shape.0.clone())
    }

    fn gather_nd(&self, batch_axes: usize) -> Types {
        let (input, indices) = (&self.input(0)?.shape.0, &self.input(1)?.shape.0);
        let depth = indices.last().and_then(Dim::as_constant);
        let Some(depth) = depth.and_then(|depth| usize::try_from(depth).ok()) else {
            return fail("the last size of the indices must be a known number");
        };
        let Some(rest) = input.get(batch_axes + depth..) else {
            return fail(format!("indices address {depth} axes of {}", input.len()));
        };
        let lengths = [&indices[..indices.len() - 1], rest].concat();
        self.output(lengths)
    }

    fn index(&mut self, axes: &[usize]) -> Types {
        let input = self.input(0)?.shape.0.clone();
        let mut indexed = Vec::new();
        for indices in self.inputs.iter().skip(1) {
            indexed = self.broadcast(&indexed, &indices.shape.0)?;
        }
        if axes.iter().any(|axis| input.len() <= *axis) || axes.len() + 1 != self.inputs.len() {
            return fail(format!("{} index tensors for {} axes", axes.len(), input.len()));
        }
        // NumPy's rule: adjacent indexed axes are replaced in place, others go to the front.
        let is_adjacent = axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let place = if is_adjacent { axes.first().copied().unwrap_or(0) } else { 0 };
        let is_kept = |axis: &usize| !axes.contains(axis);
        let kept: Vec<Dim> =
            (0..input.len()).filter(is_kept).map(|axis| input[axis].clone()).collect();
        self.output([&kept[..place], &indexed, &kept[place..]].concat())
    }

    fn resize(&self, shape: &Shape) -> Types {
        if self.input(0)?.shape.rank() != shape.rank() {
            return fail(format!("resizing {} to {shape}", self.input(0)?.shape));
        }
        self.output(shape.0.clone())
    }

    fn top_k(&self, axis: usize, k: &Dim) -> Types {
        let mut values = self.input(0)?.clone();
        let Some(length) = values.shape.0.get_mut(axis) else {
            return fail(format!("axis {axis} of a tensor with fewer axes"));
        };
        *length = k.clone();
        let positions = TensorType { shape: values.shape.clone(), format: Format::INT64 };
        Ok(vec![values, positions])
    }
}

/// Fewer symbols, then the smaller in the total order: a stable choice.
fn simpler<'a>(a: &'a Dim, b: &'a Dim) -> &'a Dim {
    let key = |dim: &Dim| (dim.as_constant().is_none(), dim.to_string().len());
    if key(b) < key(a) { b } else { a }
}

fn is_surely_not_one(dim: &Dim) -> bool {
    dim.is_equal(&Dim::ONE) == Some(false)
}

/// How a one-axis operand of a matrix product is read.
#[derive(Clone, Copy)]
enum Vector {
    Row,
    Column,
}

/// Leading axes, and the two of the matrix; a vector gets an axis of length 1.
fn split_matrix(lengths: &[Dim], vector: Vector) -> Result<(&[Dim], [Dim; 2]), ShapeError> {
    match (lengths, vector) {
        ([], _) => fail("a scalar in a matrix product"),
        ([k], Vector::Row) => Ok((&[], [Dim::ONE, k.clone()])),
        ([k], Vector::Column) => Ok((&[], [k.clone(), Dim::ONE])),
        ([batch @ .., rows, columns], _) => Ok((batch, [rows.clone(), columns.clone()])),
    }
}

fn oriented([rows, columns]: [Dim; 2], orientation: Orientation) -> [Dim; 2] {
    match orientation {
        Orientation::Plain => [rows, columns],
        Orientation::Transposed => [columns, rows],
    }
}

/// Length of a spatial axis after a convolution (arXiv 1603.07285, relationships 6 and 14).
fn convolved(
    convolution: &Convolution,
    spatial: usize,
    length: &Dim,
    kernel: &Dim,
) -> Result<Dim, ShapeError> {
    let stride = Dim::from(convolution.stride[spatial]);
    let dilation = Dim::from(convolution.dilation[spatial]);
    let reach = &(&dilation * &(kernel - &Dim::ONE)) + &Dim::ONE;
    match (&convolution.padding, &convolution.direction) {
        (Padding::Same, Direction::Forward) => Ok(length.ceil_div(&stride)),
        (Padding::Same, Direction::Transposed { .. }) => Ok(length * &stride),
        (Padding::Explicit { before, after }, Direction::Forward) => {
            let padded = &(length + &around(before, spatial)?) + &around(after, spatial)?;
            sliding(&(&padded - &reach), &stride)
        }
        (Padding::Explicit { before, after }, Direction::Transposed { output_padding }) => {
            let spread = &(&(length - &Dim::ONE) * &stride) + &reach;
            let cut = &around(before, spatial)? + &around(after, spatial)?;
            Ok(&(&spread - &cut) + &around(output_padding, spatial)?)
        }
    }
}

fn around(padding: &[i64], spatial: usize) -> Result<Dim, ShapeError> {
    let found = padding.get(spatial).map(|amount| Dim::from(*amount));
    found.ok_or_else(|| ShapeError(format!("no padding for spatial axis {spatial}")))
}

/// Positions of a window whose first and last place lie `room` apart.
fn sliding(room: &Dim, stride: &Dim) -> Result<Dim, ShapeError> {
    if room.is_at_most(&Dim::from(-1i64)) == Some(true) {
        return fail("the kernel is larger than the padded input");
    }
    Ok(&room.floor_div(stride) + &Dim::ONE)
}

fn pooled(window: &Window, spatial: usize, length: &Dim) -> Result<Dim, ShapeError> {
    let (kernel, stride, padding, dilation, rounding) = match window {
        Window::Adaptive { output } => return Ok(output[spatial].clone()),
        Window::Sliding { kernel, stride, padding, dilation, rounding } => {
            (kernel, stride, padding, dilation, rounding)
        }
    };
    let at = |list: &[i64]| {
        let positive = list.get(spatial).copied().filter(|value| 1 <= *value);
        positive.ok_or_else(|| ShapeError("a pooling size is missing or not positive".to_owned()))
    };
    let stride = Dim::from(at(stride)?);
    let Padding::Explicit { before, after } = padding else {
        return Ok(length.ceil_div(&stride));
    };
    let reach = &(&Dim::from(at(dilation)?) * &Dim::from(at(kernel)? - 1)) + &Dim::ONE;
    let before = around(before, spatial)?;
    let room = &(&(length + &before) + &around(after, spatial)?) - &reach;
    match rounding {
        Rounding::Down => sliding(&room, &stride),
        Rounding::Up => {
            // The last window must start inside the input or its left padding (PyTorch's rule).
            let windows = &room.ceil_div(&stride) + &Dim::ONE;
            let starts = &(&(length + &before) - &Dim::ONE).floor_div(&stride) + &Dim::ONE;
            Ok(windows.minimum(&starts))
        }
    }
}
