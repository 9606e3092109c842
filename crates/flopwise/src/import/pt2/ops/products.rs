//! Matrix products and convolutions: what MACs are counted of.
//!
//! Not here: attention (`attention.rs`) and recurrent networks (`recurrent.rs`).

use super::{Aten, Family, Input, Lowered, Plan, Result, Step, one};
use crate::graph::{
    Convolution, Dim, Direction, Einsum, Function, MatMul, Op, Orientation, Padding, Range,
    Storage, TensorId, axis_of,
};

/// Labels of axes.
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";

impl Aten<'_, '_, '_> {
    /// Matrix products and convolutions: what MACs are counted of.
    pub(super) fn products(&self, base: &str) -> Family {
        let (plain, transposed) = (Orientation::Plain, Orientation::Transposed);
        let matmul = |b| Op::MatMul(MatMul::new(plain, b));
        Ok(Some(match base {
            "linear" => one(matmul(transposed), &self.given(&["input", "weight", "bias"])),
            "matmul" | "mv" | "dot" | "vdot" | "linalg_vecdot" | "linalg_matmul" => {
                let names = ["self", "input", "x", "other", "vec", "tensor", "y"];
                one(matmul(plain), &self.given(&names))
            }
            "mm" | "bmm" => one(matmul(plain), &self.given(&["self", "mat2"])),
            "addmm" => one(matmul(plain), &self.given(&["mat1", "mat2", "self"])),
            "addmv" => one(matmul(plain), &self.given(&["mat", "vec", "self"])),
            "baddbmm" => one(matmul(plain), &self.given(&["batch1", "batch2", "self"])),
            "einsum" => self.einsum(),
            "addbmm" => self.added_batches(),
            "addr" | "outer" | "ger" => self.outer(base),
            "chain_matmul" | "linalg_multi_dot" => self.chain(),
            "_grouped_mm"
            | "_scaled_grouped_mm"
            | "_scaled_grouped_mm_v2"
            | "grouped_mm_fallback" => self.grouped(),
            "tensordot" => self.tensordot(),
            "_trilinear" => self.trilinear(),
            "inner" => self.inner(),
            "bilinear" => self.bilinear(),
            "conv1d"
            | "conv2d"
            | "conv3d"
            | "conv_transpose1d"
            | "conv_transpose2d"
            | "conv_transpose3d"
            | "convolution"
            | "_convolution"
            | "convolution_overrideable"
            | "mkldnn_convolution"
            | "cudnn_convolution"
            | "_conv_depthwise2d"
            | "conv_depthwise3d"
            | "slow_conv3d"
            | "thnn_conv2d"
            | "slow_conv_dilated2d"
            | "conv_tbc" => self.convolution(base),
            "embedding" => one(Op::Embedding, &self.given(&["weight", "indices"])),
            _ => return Ok(None),
        }?))
    }

    fn einsum(&self) -> Result<Lowered> {
        let equation = self.call.string("equation").ok_or("the equation is missing")?;
        let operands = self.call.tensor_list("tensors");
        let ranks: Result<Vec<usize>> = operands.iter().map(|id| self.rank(*id)).collect();
        let einsum = Einsum::parse(equation, &ranks?)?;
        one(Op::Einsum(einsum), &operands)
    }

    /// Sums over pairs of axes: an einsum in which the two axes of a pair share a label.
    fn tensordot(&self) -> Result<Lowered> {
        let operands = self.given(&["self", "other"]);
        let [left, right] = operands.as_slice() else {
            return Err("tensordot of other than two operands".to_owned());
        };
        let pairs = self.call.ints("dims_self").zip(self.call.ints("dims_other"));
        let (left_axes, right_axes) = pairs.ok_or("the summed axes are missing")?;
        let (left_rank, right_rank) = (self.rank(*left)?, self.rank(*right)?);
        let mut labels = ('a'..='z').chain('A'..='Z');
        let mut take = |n: usize| labels.by_ref().take(n).collect::<Vec<char>>();
        let (left_labels, mut right_labels) = (take(left_rank), take(right_rank));
        if left_labels.len() != left_rank || right_labels.len() != right_rank {
            return Err("tensordot of more axes than there are labels".to_owned());
        }
        let mut summed = Vec::new();
        for (left_axis, right_axis) in left_axes.into_iter().zip(right_axes) {
            let left_axis = axis_of(left_axis, left_rank).map_err(|error| error.to_string())?;
            let right_axis = axis_of(right_axis, right_rank).map_err(|error| error.to_string())?;
            right_labels[right_axis] = left_labels[left_axis];
            summed.push(left_labels[left_axis]);
        }
        let all = left_labels.iter().chain(&right_labels).copied();
        let output = all.filter(|label| !summed.contains(label)).collect();
        let einsum = Einsum { inputs: vec![left_labels, right_labels], output };
        one(Op::Einsum(einsum), &operands)
    }

    /// x1 W x2 per result, contracted from left to right, then the bias.
    fn bilinear(&self) -> Result<Lowered> {
        let (first, weight, second) =
            (self.call.tensor("input1")?, self.call.tensor("weight")?, self.call.tensor("input2")?);
        let ranks = [self.rank(first)?, self.rank(weight)?, self.rank(second)?];
        let einsum = Einsum::parse("...i,oij,...j->...o", &ranks)?;
        let inputs = [first, weight, second].map(Input::Tensor).into();
        let product = Step { op: Op::Einsum(einsum), inputs, n_outputs: 1, format: None };
        let mut steps = vec![product];
        if let Some(bias) = self.call.optional_tensor("bias") {
            let inputs = vec![Input::made(0), Input::Tensor(bias)];
            steps.push(Step {
                op: Op::Elementwise(Function::Add),
                inputs,
                n_outputs: 1,
                format: None,
            });
        }
        Ok(Lowered::last(steps))
    }

    /// `[time, batch, channels]` with a weight `[kernel, in, out]`.
    fn time_batch_convolution(&self) -> Result<Lowered> {
        let mut plan = Plan::default();
        let operand = |name: &str| self.call.tensor(name).map(Input::Tensor);
        let input = plan.permute(&[1, 2, 0], operand("self")?);
        let weight = plan.permute(&[2, 1, 0], operand("weight")?);
        let around = vec![self.call.int("pad").unwrap_or(0)];
        let convolution = Convolution {
            direction: Direction::Forward,
            stride: vec![1],
            padding: Padding::Explicit { before: around.clone(), after: around },
            dilation: vec![1],
            groups: 1,
        };
        let result = plan.step(Op::Convolution(convolution), &[input, weight, operand("bias")?]);
        plan.permute(&[2, 0, 1], result);
        Ok(plan.last())
    }

    /// Over the last axis of both, whatever axes stand before.
    fn inner(&self) -> Result<Lowered> {
        let (left, right) = (self.call.tensor("self")?, self.call.tensor("other")?);
        let labels = |rank: usize, from: char| (from..='z').take(rank.saturating_sub(1));
        let (left_rank, right_rank) = (self.rank(left)?, self.rank(right)?);
        if 12 < left_rank.max(right_rank) {
            return Err("inner of more axes than there are labels".to_owned());
        }
        let (mut first, mut second): (Vec<char>, Vec<char>) =
            (labels(left_rank, 'a').collect(), labels(right_rank, 'm').collect());
        let output = [first.clone(), second.clone()].concat();
        if 0 < left_rank && 0 < right_rank {
            first.push('z');
            second.push('z');
        }
        one(Op::Einsum(Einsum { inputs: vec![first, second], output }), &[left, right])
    }

    /// Three operands, each spread over some axes, multiplied; some axes summed over.
    fn trilinear(&self) -> Result<Lowered> {
        let operands = self.given(&["i1", "i2", "i3"]);
        let names = ["expand1", "expand2", "expand3"];
        let mut inputs = Vec::new();
        let mut rank = 0;
        for (id, name) in operands.iter().zip(names) {
            let added = self.call.ints(name).unwrap_or_default();
            rank = self.rank(*id)? + added.len();
            let is_own = |axis: &usize| !added.contains(&(*axis as i64));
            let labels = ALPHABET.chars().take(rank).enumerate();
            let own: Vec<char> =
                labels.filter(|(axis, _)| is_own(axis)).map(|(_, label)| label).collect();
            inputs.push(own);
        }
        let summed = self.call.ints("sumdim").unwrap_or_default();
        let kept = ALPHABET.chars().take(rank).enumerate();
        let kept = kept.filter(|(axis, _)| !summed.contains(&(*axis as i64)));
        let output = kept.map(|(_, label)| label).collect();
        one(Op::Einsum(Einsum { inputs, output }), &operands)
    }

    fn convolution(&self, base: &str) -> Result<Lowered> {
        let call = self.call;
        if base == "conv_tbc" {
            return self.time_batch_convolution();
        }
        let operands = self.given(&["input", "self", "weight", "bias"]);
        let weight = call.tensor("weight")?;
        let n_axes = self.rank(weight)?.saturating_sub(2);
        let is_transposed =
            base.starts_with("conv_transpose") || call.boolean("transposed").unwrap_or(false);
        let output_padding = call.per_axis("output_padding", n_axes, 0);
        let direction = match is_transposed {
            true => Direction::Transposed { output_padding },
            false => Direction::Forward,
        };
        let padding = match call.string("padding") {
            Some("same") => Padding::Same,
            _ => {
                let around = call.per_axis("padding", n_axes, 0);
                Padding::Explicit { before: around.clone(), after: around }
            }
        };
        let convolution = Convolution {
            direction,
            stride: call.per_axis("stride", n_axes, 1),
            padding,
            dilation: call.per_axis("dilation", n_axes, 1),
            groups: call.int("groups").unwrap_or(1),
        };
        one(Op::Convolution(convolution), &operands)
    }

    /// Matrices multiplied one after the other, from the left. PyTorch chooses the cheapest order
    /// of three and more; so is it done here.
    fn chain(&self) -> Result<Lowered> {
        let operands = match self.call.tensor_list("tensors") {
            operands if operands.is_empty() => self.call.tensor_list("matrices"),
            operands => operands,
        };
        if !(2..=MAX_CHAIN).contains(&operands.len()) {
            return Err(format!("a product of {} matrices", operands.len()));
        }
        let mut sizes = Vec::with_capacity(operands.len() + 1);
        for (place, id) in operands.iter().enumerate() {
            let shape = &self.shape(*id)?.0;
            // A vector at the end is a row or a column.
            match (shape.as_slice(), place) {
                ([columns], 0) => sizes.extend([Dim::ONE, columns.clone()]),
                ([_], _) => sizes.push(Dim::ONE),
                ([rows, columns], 0) => sizes.extend([rows.clone(), columns.clone()]),
                ([_, columns], _) => sizes.push(columns.clone()),
                _ => return Err(format!("a matrix of {} axes", shape.len())),
            }
        }
        let sizes: Option<Vec<i128>> = sizes.iter().map(Dim::as_constant).collect();
        let mut plan = Plan::default();
        let inputs: Vec<Input> = operands.iter().map(|id| Input::Tensor(*id)).collect();
        match sizes {
            Some(sizes) => {
                let cut = cheapest(&sizes);
                multiplied(&mut plan, &inputs, &cut, 0, inputs.len() - 1);
            }
            None if inputs.len() == 2 => {
                multiplied(&mut plan, &inputs, &[vec![0; 2], vec![0; 2]], 0, 1);
            }
            None => return Err("the cheapest order of its products hangs on open sizes".into()),
        }
        Ok(plan.last())
    }

    /// Products of batches, added up: one product over batch and inner axis.
    fn added_batches(&self) -> Result<Lowered> {
        let einsum = Einsum::parse("bij,bjk->ik", &[3, 3])?;
        let mut plan = Plan::default();
        let operands = self.given(&["batch1", "batch2"]);
        let inputs: Vec<Input> = operands.into_iter().map(Input::Tensor).collect();
        let product = plan.step(Op::Einsum(einsum), &inputs);
        plan.apply(Function::Add, &[product, Input::Tensor(self.call.tensor("self")?)]);
        Ok(plan.last())
    }

    fn outer(&self, base: &str) -> Result<Lowered> {
        let operands = self.given(&["vec1", "self", "vec2"]);
        let (left, right) = match base {
            "addr" => (self.call.tensor("vec1")?, self.call.tensor("vec2")?),
            _ => (*operands.first().ok_or("no operand")?, self.call.tensor("vec2")?),
        };
        let mut plan = Plan::default();
        let column = vec![self.length(left, 1)?, Dim::ONE];
        let column = plan.reshape(column, Input::Tensor(left));
        let product = plan.apply(Function::Mul, &[column, Input::Tensor(right)]);
        if base == "addr" {
            plan.apply(Function::Add, &[product, Input::Tensor(self.call.tensor("self")?)]);
        }
        Ok(plan.last())
    }

    /// Groups of rows, each with its own matrix; a tensor says where groups end. Every row meets
    /// one matrix, so that the products are those of one matrix, and all of them are read.
    fn grouped(&self) -> Result<Lowered> {
        let first = self.given(&["self", "input", "mat_a"]);
        let second = self.given(&["mat2", "weight", "mat_b"]);
        let (Some(a), Some(b)) = (first.first().copied(), second.first().copied()) else {
            return Err("two operands are needed".to_owned());
        };
        let (plain, mut plan) = (Orientation::Plain, Plan::default());
        let extra: Vec<Input> =
            self.given(&["offs", "scale_a", "scale_b"]).into_iter().map(Input::Tensor).collect();
        let format = Some(self.call.output_format()?);
        let product = |plan: &mut Plan, a: Input, b: Input, more: &[Input]| {
            let op = MatMul { a: plain, b: plain, scales: more.len() };
            let inputs = [&[a, b], more].concat();
            plan.steps.push(Step { op: Op::MatMul(op), inputs, n_outputs: 1, format });
        };
        let matrix = |plan: &mut Plan, stack: TensorId| {
            let shape = self.shape(stack)?.0.clone();
            let cut = |start: Dim, end: Dim| {
                let ranges = vec![Range { axis: 0, start, end, step: 1 }];
                Op::Slice { ranges, storage: Storage::View }
            };
            let one = plan.step(cut(Dim::ZERO, Dim::ONE), &[Input::Tensor(stack)]);
            let rest = plan.step(cut(Dim::ONE, shape[0].clone()), &[Input::Tensor(stack)]);
            Ok::<_, String>((plan.reshape(shape[1..].to_vec(), one), rest))
        };
        match (self.rank(a)?, self.rank(b)?) {
            // A tensor says where the rows of each group end.
            (2, 3) if !self.given(&["offs"]).is_empty() => {
                let op = Op::GroupedMatMul { stack: plain };
                let inputs = [&[Input::Tensor(a), Input::Tensor(b)], &extra[..]].concat();
                plan.steps.push(Step { op, inputs, n_outputs: 1, format });
            }
            (2, 3) => {
                let (one, rest) = matrix(&mut plan, b)?;
                product(&mut plan, Input::Tensor(a), one, &[&[rest], &extra[..]].concat());
            }
            (3, 2) => {
                let (one, rest) = matrix(&mut plan, a)?;
                product(&mut plan, one, Input::Tensor(b), &[&[rest], &extra[..]].concat());
            }
            (3, 3) => product(&mut plan, Input::Tensor(a), Input::Tensor(b), &extra),
            // Groups of the inner axis: together one product, but a result for each group.
            (2, 2) => {
                product(&mut plan, Input::Tensor(a), Input::Tensor(b), &extra);
                let product = Input::made(plan.steps.len() - 1);
                plan.step(self.declared_fill()?, &[product]);
            }
            (a, b) => return Err(format!("a grouped product of {a} and {b} axes")),
        }
        Ok(plan.last())
    }
}

/// Matrices in one chain: the search for the best order is cubic.
const MAX_CHAIN: usize = 64;

/// Where to part each run of matrices so that multiplying takes fewest products (Cormen et al.,
/// "Introduction to Algorithms", 15.2, as in `torch.linalg.multi_dot`).
pub(super) fn cheapest(sizes: &[i128]) -> Vec<Vec<usize>> {
    let n = sizes.len() - 1;
    let mut price = vec![vec![0i128; n]; n];
    let mut cut = vec![vec![0usize; n]; n];
    for span in 1..n {
        for first in 0..n - span {
            let last = first + span;
            price[first][last] = i128::MAX;
            for middle in first..last {
                let here = sizes[first].saturating_mul(sizes[middle + 1]);
                let here = here.saturating_mul(sizes[last + 1]);
                let total = price[first][middle].saturating_add(price[middle + 1][last]);
                let total = total.saturating_add(here);
                if total < price[first][last] {
                    (price[first][last], cut[first][last]) = (total, middle);
                }
            }
        }
    }
    cut
}

/// At most [`MAX_CHAIN`] deep.
fn multiplied(
    plan: &mut Plan,
    inputs: &[Input],
    cut: &[Vec<usize>],
    first: usize,
    last: usize,
) -> Input {
    if first == last {
        return inputs[first];
    }
    let middle = cut[first][last];
    let left = multiplied(plan, inputs, cut, first, middle);
    let right = multiplied(plan, inputs, cut, middle + 1, last);
    plan.step(Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain)), &[left, right])
}
