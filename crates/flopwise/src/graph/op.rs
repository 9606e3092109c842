//! [`Op`]: the canonical operators. Every importer maps its own operators to these; shapes
//! (`shape.rs`) and costs (`crate::cost`) are one `match` each over this enum, without a wildcard,
//! so that a new variant does not compile until both know it.
//!
//! Not here: what an operator costs, and the names other systems give to it.

use super::dim::Dim;
use super::einsum::Einsum;
use super::mask::Attention;
use super::stated::Stated;
use super::tensor::Shape;
use flopwise_formats::Format;

/// What a node computes. The comment of each variant lists its inputs in order; `[x]` may be
/// absent.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `a, b, [addend], scales..`: matrix product over the last two axes, leading axes broadcast.
    MatMul(MatMul),
    /// `rows [n, in], stack [groups, in, out], [addend [groups, out]], [group of each row]`: each
    /// row times the matrix of its group (the experts of a mixture of experts).
    GroupedMatMul {
        /// How the last two axes of the stack lie.
        stack: Orientation,
    },
    /// One input per term of the equation.
    Einsum(Einsum),
    /// `input [n, c, spatial..], weight, [bias]`.
    Convolution(Convolution),
    /// `query [.., heads, length, d], key, value, [mask or sinks], [entries]`: scaled dot-product
    /// attention; sinks are a trained score per head that no value belongs to, entries are further
    /// keys that are values too ([`Mask::Compressed`](super::Mask::Compressed)).
    Attention(Attention),
    /// `query [.., heads, length, d], key [.., 1, keys, d], weight [.., length, heads]`: for each pair
    /// of a query and a key it may see `sum over heads of weight relu(query . key)` (the indexer of
    /// sparse attention, DeepSeek-V3.2). `[.., length, keys]`.
    IndexScores(Attention),
    /// `table [rows, width], indices`: one row per index.
    Embedding,
    /// `input, [parameters..]`.
    Normalization(Normalization),
    /// `input`: exp(x - max) over its sum, along one axis.
    Softmax {
        /// The axis summed over.
        axis: usize,
    },
    /// `inputs..`, broadcast together.
    Elementwise(Function),
    /// `x [time, batch, input], weights..`: LSTM, GRU or plain recurrent network; one layer.
    Recurrent(Recurrent),
    /// `input`: another number format.
    Cast(Format),
    /// `input, scale, [zero point]`: divided by its scale, rounded and clamped to a format. Scales
    /// may be one for all, one per axis or one per block.
    Quantize(Format),
    /// `input, scale, [zero point]`: back from that format.
    Dequantize(Format),
    /// `input`: the same bytes seen as another shape of another format (unpacking of 4-bit
    /// weights, `view(dtype)`); no byte moves.
    Bitcast {
        /// The shape seen.
        shape: Shape,
        /// The format seen.
        format: Format,
    },
    /// `input, [window]`: discrete Fourier transforms.
    Fourier {
        /// Elements of one transform.
        length: Dim,
        /// How many transforms.
        transforms: Dim,
        /// The result's shape.
        shape: Shape,
        /// The result's format.
        format: Format,
    },
    /// `first, second, ..`: the results of the branches of a choice made at run time
    /// ([`Choice`](super::Choice)); the result is one of them, no byte moves.
    Either,
    /// `input`.
    Reduce(Reduce),
    /// `input`: running sum or product along an axis.
    Cumulative {
        /// The axis run along.
        axis: usize,
    },
    /// `input [n, c, spatial..]`.
    Pool(Pool),
    /// `input`: the same elements in the same order under another shape; no byte moves.
    Reshape {
        /// The new shape.
        shape: Shape,
    },
    /// `input`: the very same tensor (dropout in inference, identity).
    Identity,
    /// `input`: axes in another order.
    Transpose {
        /// Output axis `i` is input axis `permutation[i]`.
        permutation: Vec<usize>,
        /// Whether bytes move.
        storage: Storage,
    },
    /// `input`: broadcast to a shape by strides of zero; no byte moves.
    Expand {
        /// The shape broadcast to.
        shape: Shape,
    },
    /// `input`: any other choice of strides over the same bytes (as_strided); no byte moves.
    Restride {
        /// The shape seen.
        shape: Shape,
    },
    /// `input`: a range of some axes.
    Slice {
        /// One range per axis that is cut.
        ranges: Vec<Range>,
        /// Whether bytes move.
        storage: Storage,
    },
    /// `input`: cut into pieces along an axis.
    Split {
        /// The axis cut.
        axis: usize,
        /// Length of each piece.
        sizes: Vec<Dim>,
        /// Whether bytes move.
        storage: Storage,
    },
    /// `inputs..`, joined along an axis.
    Concat {
        /// The axis joined along.
        axis: usize,
    },
    /// `input`: with elements added around it (removed, where negative).
    Pad {
        /// Elements added before, per axis.
        before: Vec<Dim>,
        /// Elements added after, per axis.
        after: Vec<Dim>,
    },
    /// `input`: repeated along each axis.
    Tile {
        /// Repeats per axis.
        repeats: Vec<Dim>,
    },
    /// `input`: a copy in which elements may change places but not shape (contiguous, roll, flip).
    Copy,
    /// `input`: a copy under another shape (space to depth, pixel shuffle).
    Rearrange {
        /// The new shape.
        shape: Shape,
    },
    /// `input, indices`: one slice of `axis` per index.
    Gather {
        /// The axis indexed.
        axis: usize,
    },
    /// `input, indices`: one element per index, at the index's own place in the other axes.
    GatherElements,
    /// `input, indices`: the last axis of the indices addresses the first axes of the input.
    GatherNd {
        /// Leading axes shared by both.
        batch_axes: usize,
    },
    /// `input, indices..`: PyTorch's advanced indexing.
    Index {
        /// The axis that each of the index tensors addresses.
        axes: Vec<usize>,
    },
    /// `input, indices.., updates`: a copy of the input with some elements replaced.
    Scatter,
    /// No input, or one that only lends its shape: zeros, ones, ranges, random numbers.
    Fill {
        /// The shape made.
        shape: Shape,
        /// The format made.
        format: Format,
    },
    /// `input [n, c, spatial..]`: resampled to another size.
    Resize {
        /// The new shape.
        shape: Shape,
        /// How values between samples are found.
        interpolation: Interpolation,
    },
    /// `input`: the k largest or smallest along an axis, and where they stood.
    TopK {
        /// The axis searched.
        axis: usize,
        /// How many are kept.
        k: Dim,
    },
    /// `inputs..`: an operator that only one kind of file has.
    Stated(Box<Stated>),
    /// An operator without a rule here, or one whose rule could not be applied. It keeps its name
    /// and place, costs nobody knows what, and turns totals into lower bounds.
    Opaque {
        /// The operator's name in the file.
        name: String,
        /// Why it could not be counted.
        reason: String,
    },
}

/// See [`Op::MatMul`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul {
    /// How the last two axes of `a` lie.
    pub a: Orientation,
    /// How the last two axes of `b` lie; `Transposed` is PyTorch's linear weight `[out, in]`.
    pub b: Orientation,
    /// How many of the last inputs are scales and zero points of quantised operands: read, but
    /// neither multiplied nor added as matrices.
    pub scales: usize,
}

impl MatMul {
    /// A product without scales.
    #[must_use]
    pub fn new(a: Orientation, b: Orientation) -> MatMul {
        MatMul { a, b, scales: 0 }
    }
}

/// See [`Op::Recurrent`]. One layer; stacked layers are one node each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrent {
    /// What is computed at each step.
    pub cell: Cell,
    /// Steps in time.
    pub steps: Dim,
    /// Sequences.
    pub batch: Dim,
    /// Elements of each input.
    pub input: Dim,
    /// Elements of the hidden state.
    pub hidden: Dim,
    /// Elements that the hidden state is projected to before it is handed on (LSTM with
    /// `proj_size`).
    pub projection: Option<Dim>,
    /// 1, or 2 for both directions.
    pub directions: i64,
    /// Shapes of the results.
    pub outputs: Vec<Shape>,
}

/// The cell of a recurrent network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Four gates (Hochreiter and Schmidhuber 1997, with forget gate).
    Lstm,
    /// Three gates (arXiv 1406.1078).
    Gru,
    /// One.
    Plain,
}

impl Cell {
    /// Matrix products per step, of the input and of the state each.
    #[must_use]
    pub fn gates(self) -> i64 {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Plain => 1,
        }
    }
}

/// How a matrix lies in memory with respect to the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// Rows, then columns, as the product is written.
    Plain,
    /// Swapped.
    Transposed,
}

/// See [`Op::Convolution`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Forward (weight `[c_out, c_in/groups, kernel..]`) or transposed
    /// (weight `[c_in, c_out/groups, kernel..]`).
    pub direction: Direction,
    /// Step per spatial axis.
    pub stride: Vec<i64>,
    /// Elements around the input.
    pub padding: Padding,
    /// Distance of kernel elements per spatial axis.
    pub dilation: Vec<i64>,
    /// Channels are split into this many independent groups.
    pub groups: i64,
}

/// Which positions of a convolution's kernel are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Every output position times the whole kernel, as the field does.
    All,
    /// Only those inside the input, not on its padding, as XLA does.
    Valid,
}

/// Which way a convolution runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Output elements gather from the input.
    Forward,
    /// Input elements scatter to the output ("deconvolution").
    Transposed {
        /// Elements added to one side of the output, per spatial axis.
        output_padding: Vec<i64>,
    },
}

/// Elements added around each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many before and after, per spatial axis.
    Explicit {
        /// Before the first element.
        before: Vec<i64>,
        /// After the last element.
        after: Vec<i64>,
    },
    /// As many as make the output `ceil(input / stride)` long.
    Same,
}

/// See [`Op::Normalization`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Per channel with stored statistics: a multiply and an add per element.
    Batch,
    /// Over the last `axes` axes: mean and variance.
    Layer {
        /// How many trailing axes.
        axes: usize,
    },
    /// Over the last `axes` axes: root mean square only.
    Rms {
        /// How many trailing axes.
        axes: usize,
    },
    /// Over groups of channels of each sample; `groups` 0 means one per channel (instance norm).
    Group {
        /// How many groups.
        groups: i64,
    },
    /// Each element over the squares of `size` neighbouring channels (AlexNet's LRN).
    LocalResponse {
        /// Channels in the window.
        size: i64,
    },
}

/// See [`Op::Reduce`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What is computed over the axes.
    pub function: Reduction,
    /// The axes that go.
    pub axes: Vec<usize>,
    /// Whether they stay as axes of length 1.
    pub keep: Keep,
}

/// Whether reduced axes stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As axes of length 1.
    Axes,
    /// They go.
    Nothing,
}

/// A function over many elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Product.
    Product,
    /// Largest or smallest, `any`, `all`.
    Extreme,
    /// Where the largest or smallest stands.
    ArgExtreme,
    /// Sum of absolute values (L1 norm).
    SumAbsolute,
    /// Sum of squares.
    SumSquare,
    /// Square root of the sum of squares (L2 norm).
    Norm2,
    /// Logarithm of the sum.
    LogSum,
    /// Logarithm of the sum of exponentials.
    LogSumExp,
    /// Variance or standard deviation.
    Variance,
}

/// See [`Op::Pool`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Largest or mean.
    pub function: PoolFunction,
    /// Which windows.
    pub window: Window,
}

/// What a pooling window yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolFunction {
    /// The largest element.
    Max,
    /// The mean.
    Average,
}

/// The windows of a pooling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// Of a given size, sliding.
    Sliding {
        /// Length per spatial axis.
        kernel: Vec<i64>,
        /// Step per spatial axis.
        stride: Vec<i64>,
        /// Elements around the input.
        padding: Padding,
        /// Distance of window elements per spatial axis.
        dilation: Vec<i64>,
        /// What becomes of a last window that reaches over the edge.
        rounding: Rounding,
    },
    /// As many as give this output size, each of about the same length.
    Adaptive {
        /// Output length per spatial axis.
        output: Vec<Dim>,
    },
}

/// What becomes of a window that reaches over the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// It is left out.
    Down,
    /// It is kept if it starts inside the padded input.
    Up,
}

/// Whether the result of a movement shares the bytes of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Shared: only strides change, as in PyTorch.
    View,
    /// Its own: every element is read and written, as in ONNX runtimes.
    Copy,
}

/// A part of one axis: `start..end` in steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The axis cut.
    pub axis: usize,
    /// First element, already counted from the front.
    pub start: Dim,
    /// One past the last, already counted from the front and clamped to the axis.
    pub end: Dim,
    /// Distance between elements taken; negative walks backwards from `start` down to `end`.
    pub step: i64,
}

/// How a resize finds values between samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest sample.
    Nearest,
    /// Two samples per spatial axis.
    Linear,
    /// Four samples per spatial axis.
    Cubic,
}

macro_rules! functions {
    ($($variant:ident $name:literal $kind:ident $other:literal $transcendental:literal;)*) => {
        /// A function applied to each element. The table in op.rs gives, per element, the primitive
        /// adds, multiplies and compares, and apart from them the transcendental operations
        /// (exp, log, sqrt, rsqrt, division, erf, tanh, sin ...).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the names are the mathematical ones, the table says what they cost
        pub enum Function { $($variant),* }

        impl Function {
            /// The name printed in tables.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Function::$variant => $name),* }
            }

            /// Primitive and transcendental operations per output element.
            #[must_use]
            pub fn operations_per_element(self) -> (i64, i64) {
                match self { $(Function::$variant => ($other, $transcendental)),* }
            }

            /// Whether it is used as a layer's nonlinearity or as plain arithmetic.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Function::$variant => Kind::$kind),* }
            }
        }
    };
}

functions! {
    // arithmetic
    Add "add" Elementwise 1 0;
    Sub "sub" Elementwise 1 0;
    Mul "mul" Elementwise 1 0;
    Div "div" Elementwise 0 1;
    Modulo "mod" Elementwise 0 1;
    Power "pow" Elementwise 0 1;
    Square "square" Elementwise 1 0;
    Cube "cube" Elementwise 2 0;
    Negate "neg" Elementwise 1 0;
    Absolute "abs" Elementwise 1 0;
    Sign "sign" Elementwise 1 0;
    Round "round" Elementwise 1 0;
    Minimum "min" Elementwise 1 0;
    Maximum "max" Elementwise 1 0;
    MultiplyAdd "addcmul" Elementwise 2 0;
    DivideAdd "addcdiv" Elementwise 2 1;
    Interpolate "lerp" Elementwise 3 0;
    // transcendental
    Exp "exp" Elementwise 0 1;
    Log "log" Elementwise 0 1;
    Sqrt "sqrt" Elementwise 0 1;
    Rsqrt "rsqrt" Elementwise 0 1;
    Reciprocal "reciprocal" Elementwise 0 1;
    Trigonometric "sin/cos" Elementwise 0 1;
    Erf "erf" Elementwise 0 1;
    // comparisons and choice
    Compare "compare" Elementwise 1 0;
    Logical "logical" Elementwise 1 0;
    Bitwise "bitwise" Elementwise 1 0;
    Classify "isnan" Elementwise 1 0;
    Select "where" Elementwise 1 0;
    // activations, from their definitions
    Relu "relu" Activation 1 0;            // max(x, 0)
    SquaredRelu "relu2" Activation 2 0;    // max(x, 0)^2
    Clamp "clamp" Activation 2 0;          // min(max(x, a), b)
    LeakyRelu "leaky_relu" Activation 2 0; // max(x, a x)
    Sigmoid "sigmoid" Activation 2 2;      // 1 / (1 + exp(-x)): neg, add; exp, div
    HardSigmoid "hard_sigmoid" Activation 4 0; // clamp(a x + b)
    HardSwish "hard_swish" Activation 5 0; // x hard_sigmoid(x)
    Silu "silu" Activation 3 2;            // x sigmoid(x)
    GeluErf "gelu" Activation 4 1;         // x/2 (1 + erf(x / sqrt 2))
    GeluTanh "gelu_tanh" Activation 8 1;   // x/2 (1 + tanh(c (x + 0.044715 x^3)))
    QuickGelu "quick_gelu" Activation 4 2; // x sigmoid(1.702 x)
    Elu "elu" Activation 3 1;              // x < 0 ? a (exp x - 1) : x
    Tanh "tanh" Activation 0 1;
    Softplus "softplus" Activation 1 2;    // log(1 + exp x)
    Softsign "softsign" Activation 2 1;    // x / (1 + |x|)
    Mish "mish" Activation 2 3;            // x tanh(softplus x)
    SwiGlu "swiglu" Activation 4 2;        // silu(a) b
}

/// Groups of operators, for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Matrix products of any rank.
    MatMul,
    /// Recurrent networks.
    Recurrent,
    /// Convolutions.
    Convolution,
    /// Scaled dot-product attention.
    Attention,
    /// Table lookups.
    Embedding,
    /// Batch, layer, group, RMS norm.
    Normalization,
    /// Softmax.
    Softmax,
    /// Nonlinearities.
    Activation,
    /// Arithmetic per element.
    Elementwise,
    /// Reductions and running sums.
    Reduction,
    /// Pooling and resampling.
    Pooling,
    /// Fourier transforms.
    Fourier,
    /// Bytes move, nothing is computed.
    Movement,
    /// Not counted.
    Opaque,
}

impl Kind {
    /// The name printed in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::MatMul => "matmul",
            Kind::Recurrent => "recurrent",
            Kind::Convolution => "convolution",
            Kind::Attention => "attention",
            Kind::Embedding => "embedding",
            Kind::Normalization => "normalization",
            Kind::Softmax => "softmax",
            Kind::Activation => "activation",
            Kind::Elementwise => "elementwise",
            Kind::Reduction => "reduction",
            Kind::Pooling => "pooling",
            Kind::Fourier => "fourier",
            Kind::Movement => "data movement",
            Kind::Opaque => "not counted",
        }
    }
}

impl Op {
    /// The group it belongs to.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Op::MatMul(_) | Op::GroupedMatMul { .. } | Op::Einsum(_) => Kind::MatMul,
            Op::Convolution(_) => Kind::Convolution,
            Op::Attention(_) | Op::IndexScores(_) => Kind::Attention,
            Op::Embedding => Kind::Embedding,
            Op::Normalization(_) => Kind::Normalization,
            Op::Softmax { .. } => Kind::Softmax,
            Op::Elementwise(function) => function.kind(),
            Op::Recurrent(_) => Kind::Recurrent,
            Op::Cast(_) | Op::Quantize(_) | Op::Dequantize(_) => Kind::Elementwise,
            Op::Fourier { .. } => Kind::Fourier,
            Op::Reduce(_) | Op::Cumulative { .. } | Op::TopK { .. } => Kind::Reduction,
            Op::Pool(_) | Op::Resize { .. } => Kind::Pooling,
            Op::Reshape { .. }
            | Op::Identity
            | Op::Either
            | Op::Bitcast { .. }
            | Op::Transpose { .. }
            | Op::Expand { .. }
            | Op::Restride { .. }
            | Op::Slice { .. }
            | Op::Split { .. }
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Tile { .. }
            | Op::Copy
            | Op::Rearrange { .. }
            | Op::Gather { .. }
            | Op::GatherElements
            | Op::GatherNd { .. }
            | Op::Index { .. }
            | Op::Scatter
            | Op::Fill { .. } => Kind::Movement,
            Op::Stated(stated) => stated.kind,
            Op::Opaque { .. } => Kind::Opaque,
        }
    }

    /// The canonical name printed in tables and JSON.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Op::MatMul(_) => "matmul",
            Op::GroupedMatMul { .. } => "grouped_matmul",
            Op::Einsum(_) => "einsum",
            Op::Convolution(Convolution { direction: Direction::Forward, .. }) => "convolution",
            Op::Convolution(_) => "convolution_transposed",
            Op::Attention(_) => "attention",
            Op::IndexScores(_) => "index_scores",
            Op::Embedding => "embedding",
            Op::Normalization(Normalization::Batch) => "batch_norm",
            Op::Normalization(Normalization::Layer { .. }) => "layer_norm",
            Op::Normalization(Normalization::Rms { .. }) => "rms_norm",
            Op::Normalization(Normalization::Group { .. }) => "group_norm",
            Op::Normalization(Normalization::LocalResponse { .. }) => "local_response_norm",
            Op::Softmax { .. } => "softmax",
            Op::Elementwise(function) => function.name(),
            Op::Recurrent(Recurrent { cell: Cell::Lstm, .. }) => "lstm",
            Op::Recurrent(Recurrent { cell: Cell::Gru, .. }) => "gru",
            Op::Recurrent(Recurrent { cell: Cell::Plain, .. }) => "rnn",
            Op::Cast(_) => "cast",
            Op::Quantize(_) => "quantize",
            Op::Dequantize(_) => "dequantize",
            Op::Bitcast { .. } => "bitcast",
            Op::Fourier { .. } => "fourier",
            Op::Either => "either",
            Op::Reduce(_) => "reduce",
            Op::Cumulative { .. } => "cumulative",
            Op::Pool(Pool { function: PoolFunction::Max, .. }) => "max_pool",
            Op::Pool(Pool { function: PoolFunction::Average, .. }) => "average_pool",
            Op::Reshape { .. } => "reshape",
            Op::Identity => "identity",
            Op::Transpose { .. } => "transpose",
            Op::Expand { .. } => "expand",
            Op::Restride { .. } => "restride",
            Op::Slice { .. } => "slice",
            Op::Split { .. } => "split",
            Op::Concat { .. } => "concat",
            Op::Pad { .. } => "pad",
            Op::Tile { .. } => "tile",
            Op::Copy => "copy",
            Op::Rearrange { .. } => "rearrange",
            Op::Gather { .. } => "gather",
            Op::GatherElements => "gather_elements",
            Op::GatherNd { .. } => "gather_nd",
            Op::Index { .. } => "index",
            Op::Scatter => "scatter",
            Op::Fill { .. } => "fill",
            Op::Resize { .. } => "resize",
            Op::TopK { .. } => "top_k",
            Op::Stated(stated) => stated.name,
            Op::Opaque { name, .. } => name,
        }
    }

    /// Whether the outputs share the bytes of the first input.
    #[must_use]
    pub fn is_view(&self) -> bool {
        match self {
            Op::Reshape { .. }
            | Op::Identity
            | Op::Either
            | Op::Bitcast { .. }
            | Op::Expand { .. }
            | Op::Restride { .. } => true,
            Op::Transpose { storage, .. }
            | Op::Slice { storage, .. }
            | Op::Split { storage, .. } => *storage == Storage::View,
            Op::MatMul(_)
            | Op::GroupedMatMul { .. }
            | Op::Einsum(_)
            | Op::Convolution(_)
            | Op::Attention(_)
            | Op::IndexScores(_)
            | Op::Embedding
            | Op::Normalization(_)
            | Op::Softmax { .. }
            | Op::Elementwise(_)
            | Op::Recurrent(_)
            | Op::Cast(_)
            | Op::Quantize(_)
            | Op::Dequantize(_)
            | Op::Fourier { .. }
            | Op::Reduce(_)
            | Op::Cumulative { .. }
            | Op::Pool(_)
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Tile { .. }
            | Op::Copy
            | Op::Rearrange { .. }
            | Op::Gather { .. }
            | Op::GatherElements
            | Op::GatherNd { .. }
            | Op::Index { .. }
            | Op::Scatter
            | Op::Fill { .. }
            | Op::Resize { .. }
            | Op::TopK { .. }
            | Op::Stated(_)
            | Op::Opaque { .. } => false,
        }
    }
}
