//! ATen operators -> canonical [`Op`]s.
//!
//! To add an operator: put its ATen name (no overload, no in-place underscore) into the family it
//! belongs to below. What it costs follows from the canonical operator.
//!
//! Not here: shapes of what is not declared, which the builder's rules give.
//! Argument names: pytorch/aten/src/ATen/native/native_functions.yaml.

use super::call::Call;
use crate::graph::{
    Attention, Builder, Convolution, Dim, Direction, Einsum, Function, Interpolation, Keep, Mask,
    MatMul, Normalization, Op, Orientation, Padding, Pool, PoolFunction, Range, Reduce, Reduction,
    Rounding, Shape, Storage, TensorId, Window, axis_of,
};

/// What a call becomes: operators to insert one after the other.
pub(super) struct Lowered {
    pub(super) steps: Vec<Step>,
    /// Whether each output of the last step is one output of the call, under its declared shape
    /// (`unbind` drops the axis it splits); otherwise the last step's outputs are the call's.
    pub(super) each_output: bool,
}

pub(super) struct Step {
    pub(super) op: Op,
    pub(super) inputs: Vec<Input>,
    pub(super) n_outputs: usize,
}

/// An operand of a step: a tensor of the graph, or the first output of an earlier step.
pub(super) enum Input {
    Tensor(TensorId),
    Made(usize),
}

impl Input {
    pub(super) fn resolve(&self, made: &[Vec<TensorId>]) -> TensorId {
        match self {
            Input::Tensor(id) => *id,
            Input::Made(step_idx) => made[*step_idx][0],
        }
    }
}

type Result<T> = std::result::Result<T, String>;

fn one(op: Op, inputs: &[TensorId]) -> Result<Lowered> {
    let inputs = inputs.iter().map(|id| Input::Tensor(*id)).collect();
    Ok(Lowered { steps: vec![Step { op, inputs, n_outputs: 1 }], each_output: false })
}

/// Turns a call into operators.
///
/// # Errors
/// The reason why it could not be counted.
pub(super) fn lower(call: &Call, builder: &Builder) -> Result<Lowered> {
    let aten = Aten { call, builder };
    let families = [
        Aten::products,
        Aten::networks,
        Aten::functions,
        Aten::reductions,
        Aten::views,
        Aten::copies,
    ];
    let lowered = families.iter().find_map(|family| family(&aten, call.base()).transpose());
    lowered.unwrap_or_else(|| {
        let target = &call.node.target;
        Err(format!("no rule for {}", target.strip_prefix("torch.ops.").unwrap_or(target)))
    })
}

struct Aten<'l, 'c, 'a> {
    call: &'l Call<'c, 'a>,
    builder: &'l Builder,
}

/// `None`: not of this family.
type Family = Result<Option<Lowered>>;

impl Aten<'_, '_, '_> {
    fn shape(&self, id: TensorId) -> Result<&Shape> {
        let tensor = self.builder.get(id);
        let known = tensor.tensor_type.as_ref().map(|tensor_type| &tensor_type.shape);
        known.ok_or_else(|| format!("the shape of `{}` is unknown", tensor.name))
    }

    fn rank(&self, id: TensorId) -> Result<usize> {
        self.shape(id).map(Shape::rank)
    }

    /// The argument `name` as an axis of tensor `id`.
    fn axis(&self, name: &str, id: TensorId, default: i64) -> Result<usize> {
        let axis = self.call.int(name).unwrap_or(default);
        axis_of(axis, self.rank(id)?).map_err(|error| error.to_string())
    }

    /// Operands by name, those that are there.
    fn given(&self, names: &[&str]) -> Vec<TensorId> {
        names.iter().filter_map(|name| self.call.optional_tensor(name)).collect()
    }

    /// Matrix products, convolutions, attention: what MACs are counted of.
    fn products(&self, base: &str) -> Family {
        let (plain, transposed) = (Orientation::Plain, Orientation::Transposed);
        let matmul = |b| Op::MatMul(MatMul::new(plain, b));
        Ok(Some(match base {
            "linear" => one(matmul(transposed), &self.given(&["input", "weight", "bias"])),
            "matmul" | "mv" | "dot" | "inner" => {
                let names = ["self", "other", "vec", "tensor"];
                one(matmul(plain), &self.given(&names))
            }
            "mm" | "bmm" => one(matmul(plain), &self.given(&["self", "mat2"])),
            "addmm" => one(matmul(plain), &self.given(&["mat1", "mat2", "self"])),
            "addmv" => one(matmul(plain), &self.given(&["mat", "vec", "self"])),
            "baddbmm" => one(matmul(plain), &self.given(&["batch1", "batch2", "self"])),
            "einsum" => self.einsum(),
            "tensordot" => self.tensordot(),
            "bilinear" => self.bilinear(),
            "conv1d" | "conv2d" | "conv3d" | "conv_transpose1d" | "conv_transpose2d"
            | "conv_transpose3d" | "convolution" | "_convolution" => self.convolution(base),
            "scaled_dot_product_attention"
            | "_scaled_dot_product_flash_attention"
            | "_scaled_dot_product_flash_attention_for_cpu"
            | "_scaled_dot_product_efficient_attention"
            | "_scaled_dot_product_cudnn_attention" => self.attention(),
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
        let product = Step { op: Op::Einsum(einsum), inputs, n_outputs: 1 };
        let mut steps = vec![product];
        if let Some(bias) = self.call.optional_tensor("bias") {
            let inputs = vec![Input::Made(0), Input::Tensor(bias)];
            steps.push(Step { op: Op::Elementwise(Function::Add), inputs, n_outputs: 1 });
        }
        Ok(Lowered { steps, each_output: false })
    }

    fn convolution(&self, base: &str) -> Result<Lowered> {
        let call = self.call;
        let operands = self.given(&["input", "weight", "bias"]);
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

    fn attention(&self) -> Result<Lowered> {
        let mask = match self.call.boolean("is_causal") {
            Some(true) => Mask::causal(),
            _ if self.call.optional_tensor("attn_mask").is_some() => Mask::Tensor,
            _ => Mask::Full,
        };
        one(
            Op::Attention(Attention::new(mask)),
            &self.given(&["query", "key", "value", "attn_mask"]),
        )
    }

    /// Normalisation, softmax, pooling, resampling: layers that are no matrix product.
    fn networks(&self, base: &str) -> Family {
        let call = self.call;
        let normalization = |kind, names: &[&str]| one(Op::Normalization(kind), &self.given(names));
        let affine = ["input", "weight", "bias"];
        let n_axes = || call.ints("normalized_shape").map_or(1, |shape| shape.len());
        Ok(Some(match base {
            "batch_norm"
            | "native_batch_norm"
            | "_native_batch_norm_legit_no_training"
            | "cudnn_batch_norm" => {
                let names = ["input", "weight", "bias", "running_mean", "running_var"];
                normalization(Normalization::Batch, &names)
            }
            "layer_norm" | "native_layer_norm" => {
                normalization(Normalization::Layer { axes: n_axes() }, &affine)
            }
            "rms_norm" | "_fused_rms_norm" => {
                normalization(Normalization::Rms { axes: n_axes() }, &affine)
            }
            "group_norm" => {
                let groups = call.int("num_groups").unwrap_or(1);
                normalization(Normalization::Group { groups }, &affine)
            }
            "native_group_norm" => {
                let groups = call.int("group").unwrap_or(1);
                normalization(Normalization::Group { groups }, &affine)
            }
            "instance_norm" => normalization(Normalization::Group { groups: 0 }, &affine),
            "softmax" | "_softmax" | "log_softmax" | "_log_softmax" | "_safe_softmax" => {
                let input = call.tensor("self")?;
                one(Op::Softmax { axis: self.axis("dim", input, -1)? }, &[input])
            }
            "max_pool1d"
            | "max_pool2d"
            | "max_pool3d"
            | "max_pool2d_with_indices"
            | "max_pool3d_with_indices"
            | "avg_pool1d"
            | "avg_pool2d"
            | "avg_pool3d" => self.sliding_pool(base),
            "adaptive_avg_pool1d"
            | "adaptive_avg_pool2d"
            | "adaptive_avg_pool3d"
            | "_adaptive_avg_pool2d"
            | "_adaptive_avg_pool3d"
            | "adaptive_max_pool1d"
            | "adaptive_max_pool2d"
            | "adaptive_max_pool3d" => self.adaptive_pool(base),
            "upsample_nearest1d" | "upsample_nearest2d" | "upsample_nearest3d" => {
                self.resize(Interpolation::Nearest)
            }
            "upsample_linear1d"
            | "upsample_bilinear2d"
            | "_upsample_bilinear2d_aa"
            | "upsample_trilinear3d" => self.resize(Interpolation::Linear),
            "upsample_bicubic2d" | "_upsample_bicubic2d_aa" => self.resize(Interpolation::Cubic),
            _ => return Ok(None),
        }?))
    }

    fn resize(&self, interpolation: Interpolation) -> Result<Lowered> {
        let input = self.given(&["input", "self"]);
        one(Op::Resize { shape: self.call.output_shape()?, interpolation }, &input)
    }

    fn sliding_pool(&self, base: &str) -> Result<Lowered> {
        let call = self.call;
        let n_axes = spatial_axes(base)?;
        let kernel = call.per_axis("kernel_size", n_axes, 1);
        let stride = match call.ints("stride").filter(|stride| !stride.is_empty()) {
            Some(_) => call.per_axis("stride", n_axes, 1),
            None => kernel.clone(),
        };
        let around = call.per_axis("padding", n_axes, 0);
        let is_ceil = call.boolean("ceil_mode").unwrap_or(false);
        let window = Window::Sliding {
            kernel,
            stride,
            padding: Padding::Explicit { before: around.clone(), after: around },
            dilation: call.per_axis("dilation", n_axes, 1),
            rounding: if is_ceil { Rounding::Up } else { Rounding::Down },
        };
        one(Op::Pool(Pool { function: pool_function(base), window }), &[call.tensor("self")?])
    }

    fn adaptive_pool(&self, base: &str) -> Result<Lowered> {
        let n_axes = spatial_axes(base)?;
        let output = self.call.output_shape()?.0;
        let first = output.len().checked_sub(n_axes).ok_or("too few axes")?;
        let window = Window::Adaptive { output: output[first..].to_vec() };
        let function = pool_function(base);
        one(Op::Pool(Pool { function, window }), &[self.call.tensor("self")?])
    }

    /// Functions of each element.
    fn functions(&self, base: &str) -> Family {
        let function = match base {
            "gelu" => match self.call.string("approximate") {
                Some("tanh") => Function::GeluTanh,
                _ => Function::GeluErf,
            },
            "pow" => power(self.call.float("exponent")),
            "to" | "_to_copy" | "type_as" | "float" | "half" | "bfloat16" | "double" => {
                let input = self.call.tensor("self")?;
                let before = self.builder.get(input).tensor_type.as_ref().map(|t| t.format);
                let after = self.call.output_format()?;
                let op = if before == Some(after) { Op::Identity } else { Op::Cast(after) };
                return one(op, &[input]).map(Some);
            }
            "diff" => return self.difference().map(Some),
            "glu" => return self.gated(Function::Sigmoid).map(Some),
            _ => match function_of(base) {
                Some(function) => function,
                None => return Ok(None),
            },
        };
        one(Op::Elementwise(function), &self.call.all_tensors()).map(Some)
    }

    /// x[1:] - x[:-1] along an axis, after joining what is to stand before and after.
    fn difference(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        if self.call.int("n").unwrap_or(1) != 1 {
            return Err("diff of an order above 1".to_owned());
        }
        let axis = self.axis("dim", input, -1)?;
        let parts = self.given(&["prepend", "self", "append"]);
        let mut length = Dim::ZERO;
        for part in &parts {
            length = &length + &self.shape(*part)?.0[axis];
        }
        let cut = |start: Dim, end: Dim| Op::Slice {
            ranges: vec![Range { axis, start, end, step: 1 }],
            storage: Storage::View,
        };
        let less = &length - &Dim::ONE;
        let joined = parts.into_iter().map(Input::Tensor).collect();
        let step = |op, inputs| Step { op, inputs, n_outputs: 1 };
        let steps = vec![
            step(Op::Concat { axis }, joined),
            step(cut(Dim::ONE, length), vec![Input::Made(0)]),
            step(cut(Dim::ZERO, less), vec![Input::Made(0)]),
            step(Op::Elementwise(Function::Sub), vec![Input::Made(1), Input::Made(2)]),
        ];
        Ok(Lowered { steps, each_output: false })
    }

    /// First half times a function of the second half.
    fn gated(&self, function: Function) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let axis = self.axis("dim", input, -1)?;
        let length = &self.shape(input)?.0[axis];
        let half = length.floor_div(&Dim::from(2i64));
        let cut = |start: Dim, end: Dim| Op::Slice {
            ranges: vec![Range { axis, start, end, step: 1 }],
            storage: Storage::View,
        };
        let step = |op, inputs| Step { op, inputs, n_outputs: 1 };
        let steps = vec![
            step(cut(Dim::ZERO, half.clone()), vec![Input::Tensor(input)]),
            step(cut(half, length.clone()), vec![Input::Tensor(input)]),
            step(Op::Elementwise(function), vec![Input::Made(1)]),
            step(Op::Elementwise(Function::Mul), vec![Input::Made(0), Input::Made(2)]),
        ];
        Ok(Lowered { steps, each_output: false })
    }

    fn reductions(&self, base: &str) -> Family {
        let function = match base {
            "sum" | "nansum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            "prod" => Reduction::Product,
            "amax" | "amin" | "max" | "min" | "all" | "any" | "aminmax" => {
                if base.starts_with('m') && self.call.argument("other").is_some() {
                    let function =
                        if base == "max" { Function::Maximum } else { Function::Minimum };
                    return one(Op::Elementwise(function), &self.call.all_tensors()).map(Some);
                }
                Reduction::Extreme
            }
            "argmax" | "argmin" => Reduction::ArgExtreme,
            "var" | "std" | "var_mean" | "std_mean" => Reduction::Variance,
            "logsumexp" => Reduction::LogSumExp,
            "norm" | "linalg_vector_norm" => Reduction::Norm2,
            "cumsum" | "cumprod" | "cummax" | "logcumsumexp" => {
                let input = self.call.tensor("self")?;
                return one(Op::Cumulative { axis: self.axis("dim", input, -1)? }, &[input])
                    .map(Some);
            }
            "topk" | "sort" | "argsort" => return self.top_k().map(Some),
            _ => return Ok(None),
        };
        let input = self.call.tensor("self")?;
        let rank = self.rank(input)?;
        let listed = self.call.ints("dim").filter(|axes| !axes.is_empty());
        let axes: std::result::Result<Vec<usize>, _> = match listed {
            Some(axes) => axes.into_iter().map(|axis| axis_of(axis, rank)).collect(),
            None => Ok((0..rank).collect()),
        };
        let is_kept = self.call.boolean("keepdim").unwrap_or(false);
        let keep = if is_kept { Keep::Axes } else { Keep::Nothing };
        let axes = axes.map_err(|error| error.to_string())?;
        one(Op::Reduce(Reduce { function, axes, keep }), &[input]).map(Some)
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

    /// The same bytes under another shape or other strides.
    fn views(&self, base: &str) -> Family {
        let view = Storage::View;
        Ok(Some(match base {
            "view" | "reshape" | "_unsafe_view" | "flatten" | "unflatten" | "squeeze"
            | "unsqueeze" | "view_as" | "reshape_as" | "ravel" | "atleast_1d" | "view_copy" => {
                // `view.dtype` reinterprets bits: the element count changes with the format.
                let input = self.call.tensor("self")?;
                one(Op::Reshape { shape: self.call.output_shape()? }, &[input])
            }
            "alias" | "detach" | "lift_fresh" | "lift_fresh_copy" | "dropout"
            | "feature_dropout" | "alpha_dropout" | "lift" | "positive" | "resolve_conj"
            | "resolve_neg" | "native_dropout" => {
                let given = self.given(&["self", "input"]);
                one(Op::Identity, given.get(..1).ok_or("the input is missing")?)
            }
            "expand" | "expand_as" | "broadcast_to" | "expand_copy" => {
                one(Op::Expand { shape: self.call.output_shape()? }, &self.given(&["self"]))
            }
            "as_strided" | "unfold" | "diagonal" => {
                one(Op::Restride { shape: self.call.output_shape()? }, &self.given(&["self"]))
            }
            "permute" | "transpose" | "swapaxes" | "swapdims" | "t" | "numpy_T" | "mT"
            | "movedim" | "moveaxis" | "permute_copy" => self.transpose(base),
            "slice" | "narrow" | "slice_copy" => {
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
            | "split_with_sizes_copy" => {
                let input = self.call.tensor("self")?;
                let axis = self.axis("dim", input, 0)?;
                let sizes = self.declared_sizes(axis)?;
                one(Op::Split { axis, sizes, storage: view }, &[input])
            }
            "unbind" | "unbind_copy" => {
                let input = self.call.tensor("self")?;
                let axis = self.axis("dim", input, 0)?;
                let n_outputs = self.call.outputs.len();
                let op = Op::Split { axis, sizes: vec![Dim::ONE; n_outputs], storage: view };
                let inputs = vec![Input::Tensor(input)];
                Ok(Lowered { steps: vec![Step { op, inputs, n_outputs }], each_output: true })
            }
            _ => return Ok(None),
        }?))
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
            "t" | "numpy_T" => permutation.reverse(),
            "mT" => permutation[rank.saturating_sub(2)..].reverse(),
            "movedim" | "moveaxis" => {
                let (from, to) = (self.call.ints("source"), self.call.ints("destination"));
                let (Some([from]), Some([to])) = (from.as_deref(), to.as_deref()) else {
                    return Err("movedim of several axes".to_owned());
                };
                let moved = permutation.remove(as_axis(*from)?);
                permutation.insert(as_axis(*to)?, moved);
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
            Step { op: slice, inputs: vec![Input::Tensor(input)], n_outputs: 1 },
            Step { op: reshape, inputs: vec![Input::Made(0)], n_outputs: 1 },
        ];
        Ok(Lowered { steps, each_output: false })
    }

    /// Bytes move.
    fn copies(&self, base: &str) -> Family {
        let call = self.call;
        let input = || call.tensor("self");
        Ok(Some(match base {
            "contiguous" | "clone" | "roll" | "flip" | "copy" => one(Op::Copy, &[input()?]),
            "pixel_shuffle" | "pixel_unshuffle" | "channel_shuffle" => {
                one(Op::Rearrange { shape: call.output_shape()? }, &[input()?])
            }
            "cat" | "concat" | "concatenate" => {
                let parts = call.tensor_list("tensors");
                let first = *parts.first().ok_or("nothing to join")?;
                one(Op::Concat { axis: self.axis("dim", first, 0)? }, &parts)
            }
            "stack" => self.stack(),
            "pad" | "constant_pad_nd" | "reflection_pad1d" | "reflection_pad2d"
            | "reflection_pad3d" | "replication_pad1d" | "replication_pad2d"
            | "replication_pad3d" => self.pad(),
            "repeat" | "tile" => {
                let repeats = call.dims("repeats").or_else(|| call.dims("dims"));
                one(Op::Tile { repeats: repeats.ok_or("the repeats are missing")? }, &[input()?])
            }
            "index_select" => {
                let source = input()?;
                let axis = self.axis("dim", source, 0)?;
                one(Op::Gather { axis }, &[source, call.tensor("index")?])
            }
            "gather" => one(Op::GatherElements, &[input()?, call.tensor("index")?]),
            "index" => self.index(),
            "scatter" | "scatter_add" | "scatter_reduce" | "index_put" | "_unsafe_index_put"
            | "index_copy" | "index_add" | "index_fill" | "masked_scatter" | "slice_scatter"
            | "select_scatter" => one(Op::Scatter, &call.all_tensors()),
            "masked_fill" => one(Op::Elementwise(Function::Select), &self.masked_fill()?),
            "where" => {
                let names = ["condition", "self", "other"];
                one(Op::Elementwise(Function::Select), &self.given(&names))
            }
            "tril" | "triu" => one(Op::Elementwise(Function::Select), &[input()?]),
            "arange" | "zeros" | "ones" | "full" | "empty" | "new_zeros" | "new_ones"
            | "new_full" | "new_empty" | "zeros_like" | "ones_like" | "full_like"
            | "empty_like" | "rand" | "randn" | "randint" | "rand_like" | "randn_like" | "eye"
            | "linspace" | "scalar_tensor" | "fill" | "zero" | "tril_indices" | "triu_indices"
            | "empty_strided" | "bernoulli" | "normal" | "uniform" | "one_hot" => {
                one(Op::Fill { shape: call.output_shape()?, format: call.output_format()? }, &[])
            }
            "repeat_interleave" => {
                let source = input()?;
                let is_plain = call.argument("self").is_some() && call.int("repeats").is_some();
                if !is_plain {
                    return Err("repeats that are only known at run time".to_owned());
                }
                one(
                    Op::Fill { shape: call.output_shape()?, format: call.output_format()? },
                    &[source],
                )
            }
            _ => return Ok(None),
        }?))
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
            steps.push(Step { op, inputs: vec![Input::Tensor(*part)], n_outputs: 1 });
        }
        let inputs = (0..parts.len()).map(Input::Made).collect();
        steps.push(Step { op: Op::Concat { axis }, inputs, n_outputs: 1 });
        Ok(Lowered { steps, each_output: false })
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
            return Err("a boolean mask selects a number of elements known only at run time".into());
        }
        let mut inputs = vec![self.call.tensor("self")?];
        inputs.extend(indices);
        one(Op::Index { axes }, &inputs)
    }
}

fn spatial_axes(base: &str) -> Result<usize> {
    // `adaptive_avg_pool2d`: the digit before a d.
    let pairs = base.bytes().zip(base.bytes().skip(1));
    match pairs.filter(|(digit, d)| digit.is_ascii_digit() && *d == b'd').map(|(n, _)| n).next() {
        Some(b'1') => Ok(1),
        Some(b'2') => Ok(2),
        Some(b'3') => Ok(3),
        _ => Err(format!("`{base}` does not say how many axes it pools")),
    }
}

fn pool_function(base: &str) -> PoolFunction {
    if base.contains("max") { PoolFunction::Max } else { PoolFunction::Average }
}

/// x^2 and x^3 are multiplications, x^0.5 a root; others need exp and log.
fn power(exponent: Option<f64>) -> Function {
    let is = |value: f64| exponent.is_some_and(|e| e.total_cmp(&value).is_eq());
    if is(2.0) {
        Function::Square
    } else if is(3.0) {
        Function::Cube
    } else if is(0.5) {
        Function::Sqrt
    } else if is(-0.5) {
        Function::Rsqrt
    } else if is(-1.0) {
        Function::Reciprocal
    } else {
        Function::Power
    }
}

/// Functions of each element, by ATen name.
fn function_of(base: &str) -> Option<Function> {
    Some(match base {
        "add" => Function::Add,
        "sub" | "rsub" => Function::Sub,
        "mul" => Function::Mul,
        "div" | "true_divide" | "floor_divide" => Function::Div,
        "remainder" | "fmod" => Function::Modulo,
        "square" => Function::Square,
        "neg" => Function::Negate,
        "abs" => Function::Absolute,
        "sign" | "sgn" => Function::Sign,
        "floor" | "ceil" | "round" | "trunc" | "frac" => Function::Round,
        "minimum" | "fmin" => Function::Minimum,
        "maximum" | "fmax" => Function::Maximum,
        "addcmul" => Function::MultiplyAdd,
        "addcdiv" => Function::DivideAdd,
        "lerp" => Function::Interpolate,
        "exp" | "exp2" | "expm1" => Function::Exp,
        "log" | "log2" | "log10" | "log1p" => Function::Log,
        "sqrt" => Function::Sqrt,
        "rsqrt" => Function::Rsqrt,
        "reciprocal" => Function::Reciprocal,
        "sin" | "cos" | "tan" | "asin" | "acos" | "atan" | "atan2" | "sinh" | "cosh" | "asinh"
        | "acosh" | "atanh" => Function::Trigonometric,
        "erf" | "erfc" | "erfinv" => Function::Erf,
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "isclose" => Function::Compare,
        "logical_and" | "logical_or" | "logical_not" | "logical_xor" | "__and__" | "__or__"
        | "__xor__" => Function::Logical,
        "bitwise_and"
        | "bitwise_or"
        | "bitwise_xor"
        | "bitwise_not"
        | "__lshift__"
        | "__rshift__"
        | "bitwise_left_shift"
        | "bitwise_right_shift" => Function::Bitwise,
        "isnan" | "isinf" | "isfinite" | "nan_to_num" => Function::Classify,
        "relu" | "threshold" => Function::Relu,
        "relu6" | "hardtanh" | "clamp" | "clip" => Function::Clamp,
        "clamp_min" => Function::Maximum,
        "clamp_max" => Function::Minimum,
        "leaky_relu" | "prelu" | "rrelu" | "_prelu_kernel" => Function::LeakyRelu,
        "sigmoid" | "log_sigmoid" | "logit" => Function::Sigmoid,
        "hardsigmoid" => Function::HardSigmoid,
        "hardswish" => Function::HardSwish,
        "silu" => Function::Silu,
        "elu" | "selu" | "celu" => Function::Elu,
        "tanh" => Function::Tanh,
        "softplus" => Function::Softplus,
        "softsign" => Function::Softsign,
        "mish" => Function::Mish,
        _ => return None,
    })
}
