//! [`Network`]: layers in PyTorch's terms (`linear`, `embedding`, `rms_norm` ...) under module paths,
//! put together node by node. Weights have the names of the checkpoint, operators those of an
//! export, so that what is built here can be laid beside both.
//!
//! Not here: what a model consists of (`layer/`, `decoder.rs` and the families).

use crate::error::Error;
use crate::graph::{
    Attention, Builder, Convolution, Dim, Direction, Function, Graph, Keeps, MatMul, NewNode,
    Normalization, Op, Orientation, Padding, Pass, Range, Role, Section, Shape, State, Stated,
    StatedGradient, Storage, Symbol, TensorId, TensorType,
};
use flopwise_formats::Format;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One tensor, or why there is none.
pub(super) type Made = Result<TensorId, Error>;

/// A graph that grows layer by layer.
pub(super) struct Network {
    builder: Builder,
    /// Of weights and activations.
    format: Format,
    /// What a pass is: decoding builds some layers differently (MLA).
    pub(super) pass: Pass,
    path: String,
    n_named: HashMap<String, usize>,
    weights: BTreeMap<String, TensorId>,
    inputs: Vec<TensorId>,
}

/// Layers that later ones can be copied from.
pub(super) struct BuiltLayers<K>(Vec<BuiltLayer<K>>);

struct BuiltLayer<K> {
    key: K,
    section: Section,
    input: TensorId,
    output: TensorId,
}

impl<K> BuiltLayers<K> {
    /// None yet.
    pub(super) fn new() -> BuiltLayers<K> {
        BuiltLayers(Vec::new())
    }
}

/// What PyTorch calls the functions whose name there is not the one here.
const OPERATORS: &[(Function, &str)] = &[
    (Function::Add, "aten.add.Tensor"),
    (Function::Mul, "aten.mul.Tensor"),
    (Function::Silu, "aten.silu.default"),
    (Function::GeluErf, "aten.gelu.default"),
    (Function::GeluTanh, "aten.gelu.default"),
    (Function::Relu, "aten.relu.default"),
    (Function::Sigmoid, "aten.sigmoid.default"),
    (Function::Tanh, "aten.tanh.default"),
    (Function::Softplus, "aten.softplus.default"),
    (Function::Square, "aten.square.default"),
];

/// A normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    /// Root mean square, with a scale.
    Rms,
    /// Root mean square without a scale.
    PlainRms,
    /// Mean and variance, with a scale and a bias.
    Layer,
    /// Mean and variance, with a scale.
    LayerWithoutBias,
    /// Mean and variance, without either.
    PlainLayer,
}

/// Whether a linear layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    /// It does.
    Added,
    /// It does not.
    None,
}

impl From<bool> for Bias {
    fn from(is_added: bool) -> Bias {
        if is_added { Bias::Added } else { Bias::None }
    }
}

pub(super) fn dim(size: i64) -> Dim {
    Dim::from(size)
}

impl Network {
    pub(super) fn new(name: &str, format: Format, pass: Pass) -> Network {
        Network {
            builder: Builder::new(name),
            format,
            pass,
            path: String::new(),
            n_named: HashMap::new(),
            weights: BTreeMap::new(),
            inputs: Vec::new(),
        }
    }

    /// The format of weights and activations.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// A size that the user binds.
    pub(super) fn symbol(&mut self, name: &str, max: Option<i64>, place: &str) -> Dim {
        self.builder.symbol(Symbol {
            name: name.to_owned(),
            aliases: Vec::new(),
            min: 1,
            max: max.map(i128::from),
            place: place.to_owned(),
            at_most: None,
        });
        Dim::symbol(name)
    }

    /// What the user gives: token ids.
    pub(super) fn token_input(&mut self, name: &str, shape: &[Dim]) -> Made {
        self.input(name, shape, Format::INT64)
    }

    /// What the user gives.
    pub(super) fn input(&mut self, name: &str, shape: &[Dim], format: Format) -> Made {
        let tensor_type = TensorType { shape: Shape(shape.to_vec()), format };
        let id = self.builder.tensor(name, Some(tensor_type), Role::Input)?;
        self.inputs.push(id);
        Ok(id)
    }

    /// What the user gives first: the tokens, in a language model.
    pub(super) fn first_input(&self) -> Made {
        self.inputs.first().copied().ok_or_else(|| Error::new("has no input"))
    }

    /// The finished graph.
    pub(super) fn finish(self, outputs: &[TensorId]) -> Graph {
        self.builder.finish(self.inputs, outputs.to_vec())
    }

    /// Runs `build` below a module of this name; an empty name adds nothing to the path.
    pub(super) fn module<T>(
        &mut self,
        name: &str,
        class: &str,
        build: impl FnOnce(&mut Network) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let len = self.path.len();
        if !name.is_empty() {
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(name);
            self.builder.module(Arc::from(self.path.as_str()), Arc::from(class));
        }
        let built = build(self);
        let built = built.map_err(|error| error.at(format!("`{}`", self.path)));
        self.path.truncate(len);
        built
    }

    /// A layer below a module of its own. One whose `key` is that of an earlier one, on an input of the
    /// same type, is copied from it: `build` must depend on nothing but key and input.
    pub(super) fn layer<K: PartialEq>(
        &mut self,
        built: &mut BuiltLayers<K>,
        (name, class): (&str, &'static str),
        key: K,
        x: TensorId,
        build: impl FnOnce(&mut Network) -> Made,
    ) -> Made {
        let path = self.below(name);
        let input_type = |id: TensorId| &self.builder.get(id).tensor_type;
        let is_alike =
            |known: &&BuiltLayer<K>| known.key == key && input_type(known.input) == input_type(x);
        if let Some(known) = built.0.iter().find(is_alike) {
            let distance = self.builder.replay(&known.section, &path, [known.input, x])?;
            for (id, tensor) in self.builder.copies(&known.section, distance) {
                if tensor.role == Role::Parameter {
                    self.weights.insert(tensor.name.clone(), id);
                }
            }
            return Ok(TensorId(known.output.0 + distance));
        }
        let start = self.builder.section_start();
        let output = self.module(name, class, build)?;
        let section = self.builder.section(&path, &start);
        let section = section.filter(|section| section.holds(output));
        built.0.extend(section.map(|section| BuiltLayer { key, section, input: x, output }));
        Ok(output)
    }

    /// Path of something below the module.
    pub(super) fn below(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    pub(super) fn shape(&self, id: TensorId) -> Vec<Dim> {
        let known = self.builder.get(id).tensor_type.as_ref();
        known.map_or_else(Vec::new, |known| known.shape.0.clone())
    }

    /// The length of an axis counted from the end: 1 is the last.
    pub(super) fn axis(&self, id: TensorId, from_end: usize) -> Dim {
        let shape = self.shape(id);
        let axis = shape.len().checked_sub(from_end);
        axis.and_then(|axis| shape.get(axis).cloned()).unwrap_or(Dim::ONE)
    }

    /// A trained tensor. The same path again is the same tensor.
    pub(super) fn parameter(&mut self, name: &str, sizes: &[i64]) -> Made {
        let path = self.below(name);
        self.parameter_at(&path, sizes)
    }

    /// A trained tensor by its whole path.
    pub(super) fn parameter_at(&mut self, path: &str, sizes: &[i64]) -> Made {
        if let Some(known) = self.weights.get(path) {
            return Ok(*known);
        }
        let tensor_type = TensorType { shape: Shape::of(sizes), format: self.format };
        let id = self.builder.tensor(path, Some(tensor_type), Role::Parameter)?;
        self.weights.insert(path.to_owned(), id);
        Ok(id)
    }

    /// A stored tensor that is not trained.
    pub(super) fn buffer(&mut self, name: &str, sizes: &[i64], format: Format) -> Made {
        let tensor_type = TensorType { shape: Shape::of(sizes), format };
        let path = self.below(name);
        Ok(self.builder.tensor(&path, Some(tensor_type), Role::Buffer)?)
    }

    /// Inserts an operator. `name` is where it stands below the module.
    pub(super) fn apply(
        &mut self,
        name: &str,
        operator: &'static str,
        op: Op,
        inputs: &[TensorId],
    ) -> Made {
        let results = self.apply_many(name, operator, op, inputs, 1)?;
        results.first().copied().ok_or_else(|| Error::new("an operator without results"))
    }

    /// Inserts an operator of several results.
    pub(super) fn apply_many(
        &mut self,
        name: &str,
        operator: &'static str,
        op: Op,
        inputs: &[TensorId],
        n_results: usize,
    ) -> Result<Vec<TensorId>, Error> {
        let path = self.below(name);
        let count = self.n_named.entry(path.clone()).or_insert(0);
        let unique = if *count == 0 { path.clone() } else { format!("{path}_{count}") };
        *count += 1;
        let outputs = match n_results {
            1 => vec![(unique.clone(), None)],
            _ => (0..n_results).map(|idx| (format!("{unique}.{idx}"), None)).collect(),
        };
        let first = self.builder.n_nodes();
        let results = self.builder.insert(NewNode {
            name: unique,
            op: Ok(op),
            inputs: inputs.to_vec(),
            outputs,
            operator: Arc::from(operator),
            module: Some(Arc::from(self.path.as_str())),
            line: None,
            repeat: Dim::ONE,
            in_place: false,
            format: None,
        })?;
        if self.builder.has_opaque(first) {
            return Err(Error::new(format!("`{path}` does not fit: sizes in the config disagree")));
        }
        Ok(results)
    }

    /// Says what a layer keeps from token to token.
    pub(super) fn state(
        &mut self,
        what: &'static str,
        elements: Dim,
        format: Format,
        keeps: Keeps,
    ) {
        let module = Arc::from(self.path.as_str());
        self.builder.state(State { module, what, elements, format, keeps });
    }

    /// `x w^T + b`, with `w [out, in]`.
    pub(super) fn linear(&mut self, name: &str, x: TensorId, out: i64, bias: Bias) -> Made {
        let width = self.width(x)?;
        self.module(name, "torch.nn.modules.linear.Linear", |net| {
            let weight = net.parameter("weight", &[out, width])?;
            let mut inputs = vec![x, weight];
            if bias == Bias::Added {
                inputs.push(net.parameter("bias", &[out])?);
            }
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
            net.apply("", "aten.linear.default", op, &inputs)
        })
    }

    /// `x w + b`, with `w [in, out]` (GPT-2's `Conv1D`).
    pub(super) fn linear_plain(&mut self, name: &str, x: TensorId, out: i64) -> Made {
        let width = self.width(x)?;
        self.module(name, "transformers.pytorch_utils.Conv1D", |net| {
            let weight = net.parameter("weight", &[width, out])?;
            let bias = net.parameter("bias", &[out])?;
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
            net.apply("", "aten.addmm.default", op, &[x, weight, bias])
        })
    }

    /// `x w^T` with a weight that another layer has (tied embeddings).
    pub(super) fn linear_with(&mut self, name: &str, x: TensorId, weight: TensorId) -> Made {
        self.module(name, "torch.nn.modules.linear.Linear", |net| {
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
            net.apply("", "aten.linear.default", op, &[x, weight])
        })
    }

    /// The length of the last axis, which must be a number.
    pub(super) fn width(&self, x: TensorId) -> Result<i64, Error> {
        let width = self.axis(x, 1).as_constant().and_then(|width| i64::try_from(width).ok());
        width.ok_or_else(|| Error::new("the width of a layer's input is open"))
    }

    /// One row of a table per index.
    pub(super) fn embedding(&mut self, name: &str, ids: TensorId, rows: i64, width: i64) -> Made {
        self.module(name, "torch.nn.modules.sparse.Embedding", |net| {
            let table = net.parameter("weight", &[rows, width])?;
            net.apply("", "aten.embedding.default", Op::Embedding, &[table, ids])
        })
    }

    /// A normalisation over the last axis.
    pub(super) fn norm(&mut self, name: &str, x: TensorId, norm: Norm) -> Made {
        let width = self.width(x)?;
        let (class, operator, op) = match norm {
            Norm::Rms | Norm::PlainRms => (
                "torch.nn.modules.normalization.RMSNorm",
                "aten.rms_norm.default",
                Normalization::Rms { axes: 1 },
            ),
            Norm::Layer | Norm::LayerWithoutBias | Norm::PlainLayer => (
                "torch.nn.modules.normalization.LayerNorm",
                "aten.layer_norm.default",
                Normalization::Layer { axes: 1 },
            ),
        };
        self.module(name, class, |net| {
            let mut inputs = vec![x];
            if matches!(norm, Norm::Rms | Norm::Layer | Norm::LayerWithoutBias) {
                inputs.push(net.parameter("weight", &[width])?);
            }
            if norm == Norm::Layer {
                inputs.push(net.parameter("bias", &[width])?);
            }
            net.apply("", operator, Op::Normalization(op), &inputs)
        })
    }

    /// A function applied to each element of its operands.
    pub(super) fn each(&mut self, function: Function, operands: &[TensorId]) -> Made {
        let known = OPERATORS.iter().find(|(known, _)| *known == function);
        let operator = known.map_or(function.name(), |(_, operator)| operator);
        self.apply(function.name(), operator, Op::Elementwise(function), operands)
    }

    pub(super) fn add(&mut self, a: TensorId, b: TensorId) -> Made {
        self.each(Function::Add, &[a, b])
    }

    pub(super) fn mul(&mut self, a: TensorId, b: TensorId) -> Made {
        self.each(Function::Mul, &[a, b])
    }

    /// The same elements under another shape.
    pub(super) fn reshape(&mut self, x: TensorId, shape: &[Dim]) -> Made {
        let shape = Shape(shape.to_vec());
        self.apply("view", "aten.view.default", Op::Reshape { shape }, &[x])
    }

    /// Axes in another order, as a view.
    pub(super) fn permute(&mut self, x: TensorId, permutation: &[usize]) -> Made {
        let op = Op::Transpose { permutation: permutation.to_vec(), storage: Storage::View };
        self.apply("permute", "aten.permute.default", op, &[x])
    }

    /// A range of one axis, as a view.
    pub(super) fn slice(&mut self, x: TensorId, axis: usize, start: i64, end: i64) -> Made {
        let range = Range { axis, start: dim(start), end: dim(end), step: 1 };
        let op = Op::Slice { ranges: vec![range], storage: Storage::View };
        self.apply("slice", "aten.slice.Tensor", op, &[x])
    }

    /// Pieces along the last axis, as views.
    pub(super) fn split(&mut self, x: TensorId, sizes: &[i64]) -> Result<Vec<TensorId>, Error> {
        let axis = self.shape(x).len().saturating_sub(1);
        let sizes: Vec<Dim> = sizes.iter().map(|size| dim(*size)).collect();
        let n_pieces = sizes.len();
        let op = Op::Split { axis, sizes, storage: Storage::View };
        self.apply_many("split", "aten.split_with_sizes.default", op, &[x], n_pieces)
    }

    /// Joined along an axis.
    pub(super) fn concat(&mut self, parts: &[TensorId], axis: usize) -> Made {
        self.apply("cat", "aten.cat.default", Op::Concat { axis }, parts)
    }

    /// Broadcast to a shape, as a view.
    pub(super) fn expand(&mut self, x: TensorId, shape: &[Dim]) -> Made {
        let shape = Shape(shape.to_vec());
        self.apply("expand", "aten.expand.default", Op::Expand { shape }, &[x])
    }

    /// Position ids `0 .. seq`.
    pub(super) fn positions(&mut self, seq: &Dim) -> Made {
        let op = Op::Fill { shape: Shape(vec![seq.clone()]), format: Format::INT64 };
        self.apply("positions", "aten.arange.default", op, &[])
    }

    /// Each element times a constant.
    pub(super) fn scale(&mut self, x: TensorId) -> Made {
        self.apply("scale", "aten.mul.Scalar", Op::Elementwise(Function::Mul), &[x])
    }

    /// `cap * tanh(x / cap)`: two multiplications around a tanh.
    pub(super) fn soft_cap(&mut self, x: TensorId) -> Made {
        let scaled = self.scale(x)?;
        let bent = self.each(Function::Tanh, &[scaled])?;
        self.scale(bent)
    }

    /// A softmax over the last axis.
    pub(super) fn softmax(&mut self, x: TensorId) -> Made {
        let axis = self.shape(x).len().saturating_sub(1);
        self.apply("softmax", "aten.softmax.int", Op::Softmax { axis }, &[x])
    }

    /// The product of two matrices, or of two stacks of them.
    pub(super) fn matmul(&mut self, a: TensorId, b: TensorId) -> Made {
        let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
        self.apply("matmul", "aten.matmul.default", op, &[a, b])
    }

    /// A copy of a view whose elements then lie one after the other.
    pub(super) fn contiguous(&mut self, x: TensorId) -> Made {
        self.apply("contiguous", "aten.contiguous.default", Op::Copy, &[x])
    }

    /// Rotary position embedding of the first `rotated` elements of each head `[.., d]`: two
    /// multiplications and an addition per element (arXiv 2104.09864, equation 34).
    pub(super) fn rotary(&mut self, x: TensorId, rotated: i64) -> Made {
        let known = TensorType { shape: Shape(self.shape(x)), format: self.format };
        let heads = Dim::product(known.shape.0.iter().rev().skip(1));
        let other = &heads * &dim(3 * rotated);
        let rotary = Stated { other, ..Stated::rotary_embedding(vec![known]) };
        self.apply("rotary", "rotary_embedding", Op::Stated(Box::new(rotary)), &[x])
    }

    /// An operator with counts of its own; `counts` are MACs, other and transcendental operations.
    pub(super) fn stated(
        &mut self,
        stated: Stated,
        gradient: StatedGradient,
        inputs: &[TensorId],
    ) -> Result<Vec<TensorId>, Error> {
        let (name, n_results) = (stated.name, stated.results.len());
        let op = Op::Stated(Box::new(Stated { gradient, ..stated }));
        self.apply_many(name, name, op, inputs, n_results)
    }

    /// A type of this network's format.
    pub(super) fn tensor_type(&self, shape: &[Dim]) -> TensorType {
        TensorType { shape: Shape(shape.to_vec()), format: self.format }
    }

    /// `query [b, heads, s, d], key, value`, and what is added to the scores.
    pub(super) fn attend(
        &mut self,
        operands: [TensorId; 3],
        attention: Attention,
        added: Option<TensorId>,
    ) -> Made {
        let inputs: Vec<TensorId> = operands.into_iter().chain(added).collect();
        let operator = "aten.scaled_dot_product_attention.default";
        self.apply("attention", operator, Op::Attention(attention), &inputs)
    }

    /// A convolution over the last axes of `x [n, c, spatial..]`, `weight [out, c / groups, kernel..]`.
    pub(super) fn convolution(&mut self, name: &str, x: TensorId, conv: &Conv) -> Made {
        let rank = conv.kernel.len();
        let channels = self.axis(x, rank + 1).as_constant().unwrap_or(0);
        let channels = i64::try_from(channels).unwrap_or(0);
        let per_group = channels.checked_div(conv.groups).unwrap_or(0);
        let class = match rank {
            1 => "torch.nn.modules.conv.Conv1d",
            2 => "torch.nn.modules.conv.Conv2d",
            _ => "torch.nn.modules.conv.Conv3d",
        };
        self.module(name, class, |net| {
            let shape: Vec<i64> =
                [conv.out, per_group].into_iter().chain(conv.kernel.iter().copied()).collect();
            let mut inputs = vec![x, net.parameter("weight", &shape)?];
            if conv.bias == Bias::Added {
                inputs.push(net.parameter("bias", &[conv.out])?);
            }
            let op = Op::Convolution(Convolution {
                direction: Direction::Forward,
                stride: conv.stride.clone(),
                padding: Padding::Explicit {
                    before: conv.before.clone(),
                    after: conv.after.clone(),
                },
                dilation: vec![1; rank],
                groups: conv.groups,
            });
            let operator = if rank == 1 { "aten.conv1d.default" } else { "aten.conv2d.default" };
            net.apply("", operator, op, &inputs)
        })
    }
}

/// See [`Network::convolution`].
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// Channels of the result.
    pub(super) out: i64,
    /// Length per spatial axis.
    pub(super) kernel: Vec<i64>,
    /// Step per spatial axis.
    pub(super) stride: Vec<i64>,
    /// Elements added before, per spatial axis.
    pub(super) before: Vec<i64>,
    /// Elements added after, per spatial axis.
    pub(super) after: Vec<i64>,
    /// Groups of channels.
    pub(super) groups: i64,
    /// Whether a bias is added.
    pub(super) bias: Bias,
}

impl Conv {
    /// A square kernel with the same padding on every side.
    pub(super) fn square(out: i64, kernel: i64, stride: i64, padding: i64, bias: Bias) -> Conv {
        let both = |size: i64| vec![size, size];
        let (before, after) = (both(padding), both(padding));
        Conv { out, kernel: both(kernel), stride: both(stride), before, after, groups: 1, bias }
    }

    /// One kernel per channel along a sequence, which sees only what comes before (`k - 1` zeros in
    /// front): the short convolutions of Mamba and its kin.
    pub(super) fn causal_depthwise(channels: i64, kernel: i64, bias: Bias) -> Conv {
        Conv {
            out: channels,
            kernel: vec![kernel],
            stride: vec![1],
            before: vec![kernel - 1],
            after: vec![0],
            groups: channels,
            bias,
        }
    }
}
