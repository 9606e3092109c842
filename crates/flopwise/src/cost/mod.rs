//! [`Graph`] -> [`Work`]: what each node costs, exactly, as formulas in the graph's symbols.
//!
//! One `match` over [`Op`], without a wildcard. Conventions: a MAC is one multiply and one add; bias
//! adds, norms and activations are "other ops", one per element per primitive; transcendental
//! operations (exp, log, roots, divisions ...) are counted apart. A node that cannot be counted
//! makes the totals lower bounds.
//!
//! Not here: machines and time (see [`crate::estimate`]).

mod active;
mod alike;
mod attention;
mod backward;
mod choice;
pub mod convention;
mod convolution;
mod explain;
mod fourier;
mod masking;
mod matmul;
mod memory;
mod movement;
mod normalization;
mod optimizer;
mod pages;
mod readings;
mod recurrent;
mod reduction;
mod state;
#[cfg(test)]
mod tests;
mod totals;
mod train;
mod weights;

pub use crate::graph::{Pass, StoredFormat};
pub use active::{Active, active, tokens};
pub use choice::take_costliest;
pub use explain::{Derivation, derive};
pub use masking::{CONTEXT, Masking, Seen, apply_masking};
pub use memory::{Memory, memory};
pub use optimizer::{Optimizer, StepCounts, step};
pub use pages::{Paged, PagedKind, paged};
pub use readings::{Reading, Readings, readings};
pub use state::{Kept, KeptLayer, KeptPart, kept};
pub use totals::{BoundWork, Counts, Stored};
pub use train::{
    BoundTraining, Lora, NodeGradient, NodeTraining, Patterns, Recompute, SavedTensor, TrainSetup,
    Training, TrainingCounts, add_lora, seeds, select, training,
};
pub use weights::{WeightRow, store_weights, weight_table};

use crate::graph::{Dim, Graph, Node, NodeId, Op, Positions, Role, TensorId, TensorType};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

/// What one node costs, in the graph's symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-accumulates of matrix products, convolutions and attention.
    pub macs: Count,
    /// Primitive adds, multiplies and compares outside those.
    pub other_ops: Count,
    /// exp, log, roots, divisions, erf, tanh, sin ...
    pub transcendental_ops: Count,
    /// Bytes of operands, each tensor once, as if nothing stayed in cache from the node before.
    pub bytes_read: Count,
    /// Bytes of results.
    pub bytes_written: Count,
}

/// A count as a formula; [`Dim`] holds any polynomial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count(pub Dim);

impl Default for Count {
    fn default() -> Count {
        Count(Dim::ZERO)
    }
}

/// What a whole model costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// One entry per node, in the graph's order.
    pub nodes: Vec<NodeWork>,
    /// The sum over all nodes that could be counted.
    pub total: Cost,
    /// Trained numbers; tied weights count once.
    pub parameters: Dim,
    /// Bytes of the parameters in the format they are stored in.
    pub weight_bytes: Dim,
    /// Bytes of untrained stored tensors.
    pub buffer_bytes: Dim,
}

/// What one node costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWork {
    /// Which node.
    pub node: NodeId,
    /// Its cost, or why it is unknown.
    pub cost: Result<Cost, String>,
    /// Parameters that no earlier node reads.
    pub parameters: Dim,
    /// An earlier node with the same cost.
    same_as: Option<usize>,
}

impl Work {
    /// Nodes whose cost is unknown; when there are any, every total is a lower bound.
    pub fn unknown(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.nodes.iter().filter_map(|node| Some((node.node, node.cost.as_ref().err()?.as_str())))
    }
}

/// Counts a whole graph.
///
/// ```
/// use flopwise::graph::{Builder, MatMul, Op, Orientation, Role, Shape, TensorType};
/// use flopwise_formats::Format;
/// let fp32 = |lengths: &[i64]| Some(TensorType { shape: Shape::of(lengths), format: Format::FP32 });
/// let mut builder = Builder::new("linear");
/// let x = builder.tensor("x", fp32(&[8, 512]), Role::Input)?;
/// let w = builder.tensor("w", fp32(&[1000, 512]), Role::Parameter)?;
/// let linear = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
/// let y = builder.apply("fc", linear, &[x, w])?;
/// let work = flopwise::cost::work(&builder.finish(vec![x], y));
/// assert_eq!(work.total.macs.0.to_string(), "4096000");
/// assert_eq!(work.parameters.to_string(), "512000");
/// # Ok::<(), flopwise::graph::BuildError>(())
/// ```
#[must_use]
pub fn work(graph: &Graph) -> Work {
    let unpacked = unpacked(graph);
    let elements = |graph: &Graph, id: TensorId| match unpacked.get(&id) {
        Some(elements) => elements.clone(),
        None => elements(graph, id),
    };
    let sizes = Sizes { graph, known: vec![OnceCell::new(); graph.tensors.len()] };
    let mut alike = alike::Alike::new(graph);
    let mut seen: HashSet<TensorId> = HashSet::new();
    let mut nodes: Vec<NodeWork> = Vec::with_capacity(graph.nodes.len());
    let mut total = Cost::default();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let mut parameters = Dim::ZERO;
        for id in &node.inputs {
            if graph.tensor(*id).role == Role::Parameter && seen.insert(*id) {
                parameters += &elements(graph, *id);
            }
        }
        let same_as = alike.find(node_idx);
        let cost = match same_as {
            Some(same_idx) => nodes[same_idx].cost.clone(),
            None => node_cost(graph, node, &sizes),
        };
        if let Ok(cost) = &cost {
            total.add(cost);
        }
        nodes.push(NodeWork { node: NodeId(node_idx), cost, parameters, same_as });
    }
    Work {
        nodes,
        total,
        parameters: stored(graph, Role::Parameter, elements),
        weight_bytes: stored(graph, Role::Parameter, tensor_bytes),
        buffer_bytes: stored(graph, Role::Buffer, tensor_bytes),
    }
}

/// Bytes of each tensor, found when first asked for.
pub(crate) struct Sizes<'a> {
    graph: &'a Graph,
    known: Vec<OnceCell<Dim>>,
}

impl Sizes<'_> {
    fn of(&self, id: TensorId) -> &Dim {
        self.known[id.0].get_or_init(|| tensor_bytes(self.graph, id))
    }
}

fn stored(graph: &Graph, role: Role, size: impl Fn(&Graph, TensorId) -> Dim) -> Dim {
    let tensors = graph.tensors.iter().enumerate().filter(|(_, tensor)| tensor.role == role);
    tensors.map(|(tensor_idx, _)| size(graph, TensorId(tensor_idx))).sum()
}

/// Parameters that several to a byte are stored as bytes: how many numbers they are seen as.
fn unpacked(graph: &Graph) -> HashMap<TensorId, Dim> {
    let seen = graph.nodes.iter().filter_map(|node| match (&node.op, node.inputs.first()) {
        (Op::Bitcast { shape, .. }, Some(id)) => Some((*id, shape.elements())),
        _ => None,
    });
    seen.filter(|(id, _)| graph.tensor(*id).role == Role::Parameter).collect()
}

fn elements(graph: &Graph, id: TensorId) -> Dim {
    let known = graph.tensor(id).tensor_type.as_ref();
    known.map_or(Dim::ZERO, |known| known.shape.elements())
}

/// Bytes of a tensor as it is stored; none where its shape is unknown.
pub(crate) fn tensor_bytes(graph: &Graph, id: TensorId) -> Dim {
    let tensor = graph.tensor(id);
    match (&tensor.tensor_type, &tensor.stored) {
        (None, _) => Dim::ZERO,
        (Some(known), None) => bytes_of(known),
        (Some(known), Some(stored)) => stored.bytes(&known.shape),
    }
}

/// Bytes of a tensor packed without gaps, rounded up to a whole byte.
pub(crate) fn bytes_of(tensor_type: &TensorType) -> Dim {
    let elements = tensor_type.shape.elements();
    let bits = i64::from(tensor_type.format.bits);
    match bits % 8 {
        0 => &elements * &Dim::from(bits / 8),
        _ => (&elements * &Dim::from(bits)).ceil_div(&Dim::from(8i64)),
    }
}

impl Cost {
    fn add(&mut self, other: &Cost) {
        let pairs = [
            (&mut self.macs, &other.macs),
            (&mut self.other_ops, &other.other_ops),
            (&mut self.transcendental_ops, &other.transcendental_ops),
            (&mut self.bytes_read, &other.bytes_read),
            (&mut self.bytes_written, &other.bytes_written),
        ];
        for (total, count) in pairs {
            total.0 += &count.0;
        }
    }
}

/// Arithmetic of one node; traffic is added by [`node_cost`].
#[derive(Debug, Default)]
pub(crate) struct Arithmetic {
    macs: Dim,
    other: Dim,
    transcendental: Dim,
}

impl Arithmetic {
    fn none() -> Arithmetic {
        Arithmetic::default()
    }

    /// `other` and `transcendental` operations for each of `elements`.
    fn per_element(elements: &Dim, (other, transcendental): (i64, i64)) -> Arithmetic {
        Arithmetic {
            macs: Dim::ZERO,
            other: elements * &Dim::from(other),
            transcendental: elements * &Dim::from(transcendental),
        }
    }
}

/// The types a node works on; all known, or there is no cost.
pub(crate) struct Operands<'a> {
    positions: Positions,
    inputs: Vec<&'a TensorType>,
    outputs: Vec<&'a TensorType>,
}

impl Operands<'_> {
    fn input(&self, input_idx: usize) -> Result<&TensorType, String> {
        let input = self.inputs.get(input_idx).copied();
        input.ok_or_else(|| format!("input {input_idx} is missing"))
    }

    fn output(&self) -> Result<&TensorType, String> {
        self.outputs.first().copied().ok_or_else(|| "there is no output".to_owned())
    }

    fn output_elements(&self) -> Result<Dim, String> {
        Ok(self.output()?.shape.elements())
    }
}

fn node_cost(graph: &Graph, node: &Node, sizes: &Sizes) -> Result<Cost, String> {
    if node.repeat == Dim::ZERO {
        return Ok(Cost::default());
    }
    if let Op::Opaque { reason, .. } = &node.op {
        return Err(reason.clone());
    }
    let operands = node_operands(graph, node)?;
    let arithmetic = arithmetic(&node.op, &operands)?;
    let (bytes_read, bytes_written) = movement::traffic(graph, node, &operands, sizes)?;
    let is_once = node.repeat == Dim::ONE;
    let runs = |once: Dim| Count(if is_once { once } else { &once * &node.repeat });
    let cost = Cost {
        macs: runs(arithmetic.macs),
        other_ops: runs(arithmetic.other),
        transcendental_ops: runs(arithmetic.transcendental),
        bytes_read: runs(bytes_read),
        bytes_written: runs(bytes_written),
    };
    let counts = [&cost.macs, &cost.other_ops, &cost.bytes_read, &cost.bytes_written];
    match counts.iter().any(|count| count.0.is_overflow()) {
        true => Err("its exact count is beyond 127 bits".to_owned()),
        false => Ok(cost),
    }
}

/// Multiply-accumulates of one run of a node, `None` if it cannot be counted.
fn node_macs(graph: &Graph, node: &Node) -> Option<Dim> {
    let operands = node_operands(graph, node).ok()?;
    arithmetic(&node.op, &operands).ok().map(|arithmetic| arithmetic.macs)
}

fn node_operands<'a>(graph: &'a Graph, node: &'a Node) -> Result<Operands<'a>, String> {
    let inputs: Option<Vec<&TensorType>> = graph.input_types(node).collect();
    Ok(Operands {
        positions: graph.positions,
        inputs: inputs.ok_or_else(|| "a shape is unknown".to_owned())?,
        // A second output that nothing declares (saved statistics) has no size to count.
        outputs: graph.output_types(node).flatten().collect(),
    })
}

/// Every operator's arithmetic; a new [`Op`] does not compile until it stands here.
fn arithmetic(op: &Op, operands: &Operands) -> Result<Arithmetic, String> {
    match op {
        Op::MatMul(op) => matmul::matmul(*op, operands),
        Op::GroupedMatMul { .. } => matmul::grouped(operands),
        Op::Einsum(op) => matmul::einsum(op, operands),
        Op::Convolution(op) => convolution::convolution(op, operands),
        Op::Attention(op) => attention::attention(op, operands),
        Op::IndexScores(op) => attention::index_scores(op, operands),
        Op::Recurrent(op) => Ok(recurrent::recurrent(op)),
        Op::Fourier { length, transforms, .. } => fourier::fourier(length, transforms),
        Op::Normalization(op) => normalization::normalization(*op, operands),
        Op::Softmax { .. } => {
            // max, subtract, add; exp, divide
            Ok(Arithmetic::per_element(&operands.output_elements()?, (3, 2)))
        }
        Op::Elementwise(function) => {
            let operations = function.operations_per_element();
            Ok(Arithmetic::per_element(&operands.output_elements()?, operations))
        }
        Op::Quantize(_) => {
            // round, add the zero point, clamp to both ends; divide by the scale
            Ok(Arithmetic::per_element(&operands.output_elements()?, (4, 1)))
        }
        // subtract the zero point, multiply by the scale
        Op::Dequantize(_) => Ok(Arithmetic::per_element(&operands.output_elements()?, (2, 0))),
        Op::Reduce(op) => reduction::reduce(op, operands),
        Op::Cumulative { .. } | Op::TopK { .. } => {
            // At least one add or compare per element; how many more is the kernel's choice.
            Ok(Arithmetic::per_element(&operands.input(0)?.shape.elements(), (1, 0)))
        }
        Op::Pool(op) => reduction::pool(op, operands),
        Op::Resize { interpolation, .. } => reduction::resize(*interpolation, operands),
        Op::Embedding
        | Op::Cast(_)
        | Op::Reshape { .. }
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
        | Op::Fill { .. } => Ok(Arithmetic::none()),
        Op::Stated(stated) => Ok(Arithmetic {
            macs: stated.macs.clone(),
            other: stated.other.clone(),
            transcendental: stated.transcendental.clone(),
        }),
        Op::Opaque { reason, .. } => Err(reason.clone()),
    }
}
