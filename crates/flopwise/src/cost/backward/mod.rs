//! What the gradients of one node cost: one `match` over [`Op`], without a wildcard.
//!
//! Each rule says, for the inputs that need a gradient, how many MACs and other operations that
//! gradient takes, and which tensors the node keeps from the forward pass for it. The formulas of
//! the derivatives and what is kept follow PyTorch's `tools/autograd/derivatives.yaml`; matrix
//! products and convolutions its `torch/utils/flop_counter.py`, with the weight gradient of a
//! grouped convolution divided by its groups, as it is computed.
//!
//! Not here: which inputs need a gradient (`flow.rs`), sums over a graph (see `cost::train`), and
//! rules that do not fit a file of their own family.

mod elementwise;
mod flow;
mod layers;
mod products;

pub(super) use flow::{Flow, flow, is_float};

use super::{Arithmetic, Cost, Count, Operands, node_operands};
use crate::graph::{Dim, Graph, Node, Op, Role, Stated, StatedGradient, TensorId};

/// What a node's gradients take.
#[derive(Debug, Default)]
pub(super) struct Rule {
    /// One entry per input that needs a gradient.
    pub(super) gradients: Vec<Gradient>,
    /// Steps that serve all of them.
    pub(super) shared: Arithmetic,
    /// MACs of the forward pass that the backward kernel does again: hardware FLOPs only.
    pub(super) recomputed_macs: Dim,
    /// What is kept from the forward pass.
    pub(super) saved: Vec<Saved>,
    /// How the gradients are computed.
    pub(super) kernels: Kernels,
}

/// The gradient of one input.
#[derive(Debug)]
pub(super) struct Gradient {
    /// Which input of the node.
    pub(super) input: usize,
    /// What it takes.
    pub(super) arithmetic: Arithmetic,
}

/// Something kept for the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Saved {
    /// An input of the node.
    Input(usize),
    /// A result of the node.
    Output(usize),
    /// So many bytes that no tensor of the graph holds: statistics, indices of maxima.
    Bytes(Dim),
}

/// How often operands are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kernels {
    /// One kernel computes all gradients of the node.
    #[default]
    One,
    /// One kernel per gradient, each reading what it needs: products and convolutions.
    Each,
}

/// Bytes of a statistic (mean, reciprocal deviation, logarithm of a sum), kept in FP32.
const STATISTIC_BYTES: i64 = 4;
/// Bytes of an index, as PyTorch keeps it (int64).
const INDEX_BYTES: i64 = 8;

/// A node whose gradients are asked for.
pub(super) struct Case<'a> {
    node: &'a Node,
    operands: Operands<'a>,
    /// Which inputs need a gradient; at least one.
    wanted: &'a [bool],
}

impl Case<'_> {
    fn wants(&self, input_idx: usize) -> bool {
        self.wanted.get(input_idx).copied().unwrap_or(false)
    }

    fn wanted_inputs(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.wanted.len()).filter(|input_idx| self.wanted[*input_idx])
    }

    fn input_elements(&self, input_idx: usize) -> Result<Dim, String> {
        Ok(self.operands.input(input_idx)?.shape.elements())
    }

    fn n_inputs(&self) -> usize {
        self.operands.inputs.len()
    }

    /// Adds for the gradient of an input that was broadcast: as many terms as results fall on its
    /// elements, less one each.
    fn broadcast_sum(&self, input_idx: usize) -> Result<Dim, String> {
        Ok(&self.operands.output_elements()? - &self.input_elements(input_idx)?)
    }
}

/// The rule of a node for the inputs wanted.
pub(super) fn rule(graph: &Graph, node: &Node, wanted: &[bool]) -> Result<Rule, String> {
    if let Op::Opaque { reason, .. } = &node.op {
        return Err(reason.clone());
    }
    let case = Case { node, operands: node_operands(graph, node)?, wanted };
    rule_of(&node.op, &case)
}

/// Every operator's gradients; a new [`Op`] does not compile until it stands here.
fn rule_of(op: &Op, case: &Case) -> Result<Rule, String> {
    match op {
        Op::MatMul(op) => products::matmul(*op, case),
        Op::GroupedMatMul { .. } => products::grouped(case),
        Op::Einsum(op) => products::einsum(op, case),
        Op::Convolution(op) => products::convolution(op, case),
        Op::Attention(op) => products::attention(op, case),
        Op::Recurrent(op) => products::recurrent(op, case),
        Op::Normalization(op) => layers::normalization(*op, case),
        // y (g - sum(g y)): multiply, add, subtract, multiply
        Op::Softmax { .. } => per_output(case, (4, 0), vec![Saved::Output(0)]),
        Op::Elementwise(function) => elementwise::elementwise(*function, case),
        Op::Reduce(op) => layers::reduce(op, case),
        Op::Pool(op) => layers::pool(op, case),
        Op::Resize { interpolation, .. } => layers::resize(*interpolation, case),
        // The transform of the gradient, the other way.
        Op::Fourier { length, transforms, .. } => {
            whole(case, super::fourier::fourier(length, transforms)?, Vec::new())
        }
        // A running sum from the other end. (A running product or maximum takes more; the
        // graph does not tell them apart.)
        Op::Cumulative { .. } => per_output(case, (1, 0), Vec::new()),
        // Each result's gradient goes to where the result stood.
        Op::TopK { .. } => per_output(case, (0, 0), vec![Saved::Output(1)]),
        Op::Embedding
        | Op::Gather { .. }
        | Op::GatherElements
        | Op::GatherNd { .. }
        | Op::Index { .. } => {
            // Scatter-add: an index may occur several times.
            let indices = (1..case.n_inputs()).map(Saved::Input).collect();
            per_output(case, (1, 0), indices)
        }
        Op::Scatter => {
            // The input's gradient is zero where it was replaced; the updates' is gathered there.
            let indices = (1..case.n_inputs().saturating_sub(1)).map(Saved::Input).collect();
            per_output(case, (0, 0), indices)
        }
        Op::Expand { .. } | Op::Tile { .. } => {
            whole(case, other(case.broadcast_sum(0)?), Vec::new())
        }
        // Overlapping strides sum; others pick.
        Op::Restride { .. } => {
            whole(case, other(case.broadcast_sum(0)?.maximum(&Dim::ZERO)), Vec::new())
        }
        // The gradient is cut, joined, padded or moved as the result was, the other way.
        Op::Cast(_)
        | Op::Either
        | Op::Reshape { .. }
        | Op::Identity
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Split { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Copy
        | Op::Rearrange { .. } => per_output(case, (0, 0), Vec::new()),
        // No gradient passes these (`flow.rs` says why).
        Op::Quantize(_)
        | Op::Dequantize(_)
        | Op::Bitcast { .. }
        | Op::Fill { .. }
        | Op::IndexScores(_) => Ok(Rule::default()),
        Op::Stated(stated) => stated_gradient(stated, case),
        Op::Opaque { reason, .. } => Err(reason.clone()),
    }
}

/// What the operator's definition says of its gradients.
fn stated_gradient(stated: &Stated, case: &Case) -> Result<Rule, String> {
    let times = |n: i64| Arithmetic {
        macs: &stated.macs * &Dim::from(n),
        other: &stated.other * &Dim::from(n),
        transcendental: &stated.transcendental * &Dim::from(n),
    };
    let kept = |first: usize| (first..case.n_inputs()).map(Saved::Input).collect();
    match stated.gradient {
        StatedGradient::Unknown => Err(format!("its gradient ({}) has no rule", stated.name)),
        StatedGradient::Once => whole(case, times(1), kept(1)),
        StatedGradient::Twice => Ok(Rule {
            gradients: case
                .wanted_inputs()
                .map(|input| Gradient { input, arithmetic: Arithmetic::none() })
                .collect(),
            shared: times(2),
            saved: kept(0),
            ..Rule::default()
        }),
        StatedGradient::Nothing => Ok(Rule::default()),
    }
}

/// Operations per result for each input wanted.
fn per_output(case: &Case, each: (i64, i64), saved: Vec<Saved>) -> Result<Rule, String> {
    let outputs = case.operands.output_elements()?;
    let gradient = |input| Gradient { input, arithmetic: Arithmetic::per_element(&outputs, each) };
    let gradients = case.wanted_inputs().map(gradient).collect();
    Ok(Rule { gradients, saved, ..Rule::default() })
}

/// The same arithmetic for the first input wanted; there is one input that carries gradients.
fn whole(case: &Case, arithmetic: Arithmetic, saved: Vec<Saved>) -> Result<Rule, String> {
    let input = case.wanted_inputs().next().ok_or("no input needs a gradient")?;
    let gradients = vec![Gradient { input, arithmetic }];
    Ok(Rule { gradients, saved, ..Rule::default() })
}

fn other(other: Dim) -> Arithmetic {
    Arithmetic { other, ..Arithmetic::none() }
}

impl Rule {
    /// Bytes read and written by the backward kernels: the gradients of the results and what was
    /// kept are read, the gradients of the inputs written, in the formats of the tensors. Views
    /// hand on the gradient itself, unless they broadcast or cut.
    pub(super) fn traffic(&self, graph: &Graph, node: &Node, reached: &[TensorId]) -> (Dim, Dim) {
        let bytes = |id: &TensorId| match graph.tensor(*id).role {
            Role::Internal => Dim::ZERO,
            Role::Input | Role::Parameter | Role::Buffer | Role::Activation => {
                super::tensor_bytes(graph, *id)
            }
        };
        let is_cut_or_spread = matches!(
            node.op,
            Op::Expand { .. } | Op::Restride { .. } | Op::Slice { .. } | Op::Split { .. }
        );
        if node.op.is_view() && !is_cut_or_spread {
            return (Dim::ZERO, Dim::ZERO);
        }
        let results: Dim = reached.iter().map(bytes).sum();
        let kept = |except: Option<usize>| -> Dim {
            let saved = self.saved.iter().map(|saved| match saved {
                Saved::Input(input_idx) if Some(*input_idx) == except => Dim::ZERO,
                Saved::Input(input_idx) => node.inputs.get(*input_idx).map_or(Dim::ZERO, bytes),
                Saved::Output(idx) => node.outputs.get(*idx).map_or(Dim::ZERO, bytes),
                Saved::Bytes(bytes) => bytes.clone(),
            });
            saved.sum()
        };
        let written = self.gradients.iter().filter_map(|gradient| node.inputs.get(gradient.input));
        let written: Dim = written.map(bytes).sum();
        let read = match self.kernels {
            Kernels::One => &results + &kept(None),
            Kernels::Each => {
                let each = self.gradients.iter().map(|g| &results + &kept(Some(g.input)));
                each.sum()
            }
        };
        (read, written)
    }

    /// All of the node's backward work, for one run of it.
    pub(super) fn cost(&self, (read, written): (Dim, Dim)) -> Cost {
        let mut cost = Cost {
            macs: Count(self.shared.macs.clone()),
            other_ops: Count(self.shared.other.clone()),
            transcendental_ops: Count(self.shared.transcendental.clone()),
            bytes_read: Count(read),
            bytes_written: Count(written),
        };
        for Gradient { arithmetic, .. } in &self.gradients {
            cost.macs.0 = &cost.macs.0 + &arithmetic.macs;
            cost.other_ops.0 = &cost.other_ops.0 + &arithmetic.other;
            cost.transcendental_ops.0 = &cost.transcendental_ops.0 + &arithmetic.transcendental;
        }
        cost
    }
}
