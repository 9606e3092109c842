//! Which tensors a gradient reaches: those that depend on a trained parameter and on which a result
//! depends, through operators that have a derivative.
//!
//! Not here: what the gradients cost.

use crate::graph::{
    Dim, Function, Graph, Node, Op, Reduction, Role, StatedGradient, TensorId, TensorType,
};

/// The flow of gradients through a graph, one entry per tensor each.
pub(in crate::cost) struct Flow {
    /// A trained parameter, or computed from one through operators with a derivative.
    pub(in crate::cost) needs: Vec<bool>,
    /// Needed, and a result with a gradient depends on it.
    pub(in crate::cost) reached: Vec<bool>,
    /// Computed from stored tensors alone: a gradient that flows here is one of weights.
    pub(in crate::cost) is_weight: Vec<bool>,
}

impl Flow {
    /// Which inputs of a node get a gradient from it.
    pub(in crate::cost) fn wanted(&self, node: &Node) -> Vec<bool> {
        let is_reached = node.outputs.iter().any(|id| self.reached[id.0]);
        let wanted = node.inputs.iter().enumerate().map(|(input_idx, id)| {
            is_reached && self.needs[id.0] && stop(node, input_idx).is_none()
        });
        wanted.collect()
    }
}

/// Follows gradients from `seeds` (the results a loss is made of) back to the trained parameters.
pub(in crate::cost) fn flow(graph: &Graph, is_trained: &[bool], seeds: &[TensorId]) -> Flow {
    let mut needs: Vec<bool> = is_trained.to_vec();
    let mut is_weight: Vec<bool> =
        graph.tensors.iter().map(|tensor| is_stored(tensor.role)).collect();
    for node in graph.nodes.iter().filter(|node| runs(node)) {
        let carried = node.inputs.iter().enumerate();
        let is_needed = carried
            .filter(|(_, id)| needs[id.0])
            .any(|(input_idx, _)| stop(node, input_idx).is_none());
        let is_from_weights =
            !node.inputs.is_empty() && node.inputs.iter().all(|id| is_weight[id.0]);
        for id in &node.outputs {
            needs[id.0] = is_needed && is_float(graph.tensor(*id).tensor_type.as_ref());
            is_weight[id.0] = is_from_weights;
        }
    }
    let mut reached = vec![false; graph.tensors.len()];
    for id in seeds {
        reached[id.0] = needs[id.0];
    }
    let mut flow = Flow { needs, reached, is_weight };
    for node in graph.nodes.iter().rev().filter(|node| runs(node)) {
        for (id, is_wanted) in node.inputs.iter().zip(flow.wanted(node)) {
            flow.reached[id.0] |= is_wanted;
        }
    }
    flow
}

fn runs(node: &Node) -> bool {
    node.repeat != Dim::ZERO
}

fn is_stored(role: Role) -> bool {
    match role {
        Role::Parameter | Role::Buffer => true,
        Role::Input | Role::Activation | Role::Internal => false,
    }
}

/// Only floating-point tensors have gradients; one of unknown type may be one.
pub(in crate::cost) fn is_float(tensor_type: Option<&TensorType>) -> bool {
    tensor_type.is_none_or(|known| known.format.is_float())
}

/// Why no gradient passes from a node's results to one of its inputs; `None` where it passes. That
/// indices and conditions are integers stops their gradients by itself. An operator without a rule
/// is taken to have a derivative: what lies before it is trained through it, if at all.
pub(in crate::cost) fn stop(node: &Node, input_idx: usize) -> Option<&'static str> {
    if node.operator.contains("detach") {
        return Some("it is detached");
    }
    match &node.op {
        Op::Elementwise(function) => stops(*function),
        Op::Quantize(_) => Some("rounding has a derivative of zero"),
        Op::Dequantize(_) | Op::Bitcast { .. } => Some("what it reads are codes, not numbers"),
        Op::Fill { .. } => Some("it only takes the shape of its input"),
        Op::Reduce(reduce) => match reduce.function {
            Reduction::ArgExtreme => Some("a position has no derivative"),
            Reduction::Sum
            | Reduction::Mean
            | Reduction::Product
            | Reduction::Extreme
            | Reduction::SumAbsolute
            | Reduction::SumSquare
            | Reduction::Norm2
            | Reduction::LogSum
            | Reduction::LogSumExp
            | Reduction::Variance => None,
        },
        // Quantised operands' scales and zero points; tables of indices.
        Op::MatMul(matmul) => {
            let first_scale = node.inputs.len().saturating_sub(matmul.scales).max(2);
            (first_scale <= input_idx).then_some("scales of quantised operands are not trained")
        }
        Op::Embedding | Op::Gather { .. } | Op::GatherElements | Op::GatherNd { .. } => {
            (input_idx != 0).then_some("an index has no derivative")
        }
        Op::Normalization(_) => (2 < input_idx).then_some("running statistics are not trained"),
        Op::Stated(stated) => match stated.gradient {
            StatedGradient::Nothing => Some("its result steers and has no derivative"),
            StatedGradient::Unknown | StatedGradient::Once | StatedGradient::Twice => None,
        },
        Op::IndexScores(_) => Some("its result chooses keys and has no derivative"),
        Op::GroupedMatMul { .. }
        | Op::Einsum(_)
        | Op::Convolution(_)
        | Op::Attention(_)
        | Op::Softmax { .. }
        | Op::Recurrent(_)
        | Op::Cast(_)
        | Op::Fourier { .. }
        | Op::Either
        | Op::Cumulative { .. }
        | Op::Pool(_)
        | Op::Reshape { .. }
        | Op::Identity
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
        | Op::Index { .. }
        | Op::Scatter
        | Op::Resize { .. }
        | Op::TopK { .. }
        | Op::Opaque { .. } => None,
    }
}

fn stops(function: Function) -> Option<&'static str> {
    match function {
        Function::Sign | Function::Round => Some("its derivative is zero"),
        Function::Compare | Function::Logical | Function::Bitwise | Function::Classify => {
            Some("its result is no number")
        }
        Function::Add
        | Function::Sub
        | Function::Mul
        | Function::Div
        | Function::Modulo
        | Function::Power
        | Function::Square
        | Function::Cube
        | Function::Negate
        | Function::Absolute
        | Function::Minimum
        | Function::Maximum
        | Function::MultiplyAdd
        | Function::DivideAdd
        | Function::Interpolate
        | Function::Exp
        | Function::Log
        | Function::Sqrt
        | Function::Rsqrt
        | Function::Reciprocal
        | Function::Trigonometric
        | Function::Erf
        | Function::Select
        | Function::Relu
        | Function::SquaredRelu
        | Function::Clamp
        | Function::LeakyRelu
        | Function::Sigmoid
        | Function::HardSigmoid
        | Function::HardSwish
        | Function::Silu
        | Function::GeluErf
        | Function::GeluTanh
        | Function::QuickGelu
        | Function::Elu
        | Function::Tanh
        | Function::Softplus
        | Function::Softsign
        | Function::Mish
        | Function::SwiGlu => None,
    }
}
