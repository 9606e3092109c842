//! [`Graph`] -> [`Training`]: what one training step costs, node by node: the forward pass, the
//! gradients of activations (dgrad) and of weights (wgrad), what is computed again, and what is kept
//! in between.
//!
//! Two totals that are never mixed: **model FLOPs** are the forward pass and its gradients as the
//! mathematics needs them; **hardware FLOPs** add what kernels do again: the scores of fused
//! attention and recomputed blocks (arXiv 2205.05198, section 5).
//!
//! Not here: the rules of the operators (see `cost::backward`) and the optimiser's step.

mod bound;
mod lora;
mod recompute;
mod saved;
mod select;

pub use bound::{BoundTraining, TrainingCounts};
pub use lora::{Lora, add_lora};
pub use recompute::Recompute;
pub use saved::SavedTensor;
pub use select::{Patterns, seeds, select};

use super::backward::{self, Flow};
use super::{Cost, Count, NodeWork, Work, elements, tensor_bytes, work};
use crate::graph::{Dim, Graph, NodeId, Role, TensorId};

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSetup {
    /// For each tensor of the graph whether it is a parameter that is trained.
    pub is_trained: Vec<bool>,
    /// The results that the loss is made of; each gets a gradient.
    pub seeds: Vec<TensorId>,
    /// What is computed again instead of being kept.
    pub recompute: Recompute,
}

/// What one training step costs, without the optimiser's.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The forward pass.
    pub forward: Work,
    /// One entry per node, in the graph's order.
    pub nodes: Vec<NodeTraining>,
    /// Parameters that get a gradient.
    pub trained: Vec<TensorId>,
    /// Parameters that were to be trained, but on which no result with a gradient depends.
    pub unreached: Vec<TensorId>,
    /// Tensors kept from the forward pass for the backward pass, each once.
    pub saved: Vec<SavedTensor>,
    /// Bytes that the recomputation of a block fills while its gradients are computed, block by
    /// block; the largest is needed on top of what is saved.
    pub refilled: Vec<Dim>,
    /// Names of the recomputed blocks, in order.
    pub recomputed_blocks: Vec<String>,
}

/// What the training of one node costs.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTraining {
    /// Which node.
    pub node: NodeId,
    /// MACs for the gradients of activations: model FLOPs.
    pub dgrad_macs: Dim,
    /// MACs for the gradients of weights, and of what is computed from weights alone.
    pub wgrad_macs: Dim,
    /// All backward work: `macs` is the sum of both. `Err` where a gradient is needed and the
    /// operator has no rule.
    pub backward: Result<Cost, String>,
    /// MACs of the forward pass that a fused backward kernel does again: hardware FLOPs.
    pub kernel_macs: Dim,
    /// The forward pass again, where its block is recomputed; nothing otherwise.
    pub recomputed: Cost,
    /// Bytes that this node is the first to keep.
    pub saved_bytes: Dim,
    /// The gradients it computes: which input, its MACs, whether it is one of weights.
    pub gradients: Vec<NodeGradient>,
}

/// The gradient of one input of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeGradient {
    /// The tensor.
    pub tensor: TensorId,
    /// Its MACs.
    pub macs: Dim,
    /// Whether the tensor is computed from stored tensors alone.
    pub is_weight: bool,
}

impl Training {
    /// Nodes whose forward or backward cost is unknown; when there are any, every total is a lower
    /// bound.
    pub fn unknown(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let forward = self.forward.nodes.iter().map(|node| node.cost.as_ref().err());
        forward.zip(&self.nodes).filter_map(|(forward, node)| {
            let reason = forward.or(node.backward.as_ref().err())?;
            Some((node.node, reason.as_str()))
        })
    }

    /// Multiply-accumulates of the forward pass and its gradients; two model FLOPs each.
    #[must_use]
    pub fn model_macs(&self) -> Dim {
        let gradients = self.nodes.iter().map(|node| &node.dgrad_macs + &node.wgrad_macs);
        &self.forward.total.macs.0 + &gradients.sum()
    }

    /// Multiply-accumulates that kernels execute; two hardware FLOPs each.
    #[must_use]
    pub fn hardware_macs(&self) -> Dim {
        let again = self.nodes.iter().map(|node| &node.kernel_macs + &node.recomputed.macs.0);
        &self.model_macs() + &again.sum()
    }

    /// Bytes kept from the forward pass for the backward pass.
    #[must_use]
    pub fn saved_bytes(&self) -> Dim {
        self.saved.iter().map(|saved| saved.bytes.clone()).sum()
    }

    /// Numbers in the parameters that get a gradient.
    #[must_use]
    pub fn trained_parameters(&self, graph: &Graph) -> Dim {
        self.trained.iter().map(|id| elements(graph, *id)).sum()
    }

    /// Bytes of the parameters that get a gradient, in the format they are stored in.
    #[must_use]
    pub fn trained_bytes(&self, graph: &Graph) -> Dim {
        self.trained.iter().map(|id| tensor_bytes(graph, *id)).sum()
    }
}

/// Counts a training step of a whole graph.
///
/// ```
/// use flopwise::cost::{self, Recompute, TrainSetup};
/// let graph = flopwise::query::open_model("resnet18")?;
/// let is_trained = cost::select(&graph, None, None)?;
/// let seeds = cost::seeds(&graph, &[])?;
/// let setup = TrainSetup { is_trained, seeds, recompute: Recompute::Nothing };
/// let training = cost::training(&graph, &setup);
/// // Three times the forward pass, less the gradient of the image that no one needs.
/// let first_dgrad = 118_013_952;
/// let macs = format!("{}*batch", 3 * 1_814_073_344u64 - first_dgrad);
/// assert_eq!(training.model_macs().to_string(), macs);
/// # Ok::<(), flopwise::error::Error>(())
/// ```
#[must_use]
pub fn training(graph: &Graph, setup: &TrainSetup) -> Training {
    let forward = work(graph);
    let flow = backward::flow(graph, &setup.is_trained, &setup.seeds);
    let rules = rules(graph, &flow);
    let regions = recompute::regions(graph, &setup.recompute, &rules);
    let mut nodes = node_trainings(graph, setup, &flow, &rules);
    let kept = saved::saved(graph, &rules, &regions);
    for (node, work) in nodes.iter_mut().zip(&forward.nodes) {
        node.saved_bytes = kept.first_by_node[node.node.0].clone();
        if regions.of_node[node.node.0].is_some()
            && let Ok(cost) = &work.cost
        {
            node.recomputed = cost.clone();
        }
    }
    let is_given = |id: &usize| setup.is_trained[*id] && graph.tensors[*id].role == Role::Parameter;
    let given: Vec<usize> = (0..graph.tensors.len()).filter(is_given).collect();
    let (trained, unreached) = given.into_iter().map(TensorId).partition(|id| flow.reached[id.0]);
    Training {
        forward,
        nodes,
        trained,
        unreached,
        saved: kept.tensors,
        refilled: kept.refilled,
        recomputed_blocks: regions.names,
    }
}

/// Each node's rule; `None` where it has no part in the backward pass.
type Rules = Vec<Option<Result<backward::Rule, String>>>;

fn rules(graph: &Graph, flow: &Flow) -> Rules {
    let rules = graph.nodes.iter().map(|node| {
        let wanted = flow.wanted(node);
        let takes_part = node.repeat != Dim::ZERO && wanted.contains(&true);
        takes_part.then(|| backward::rule(graph, node, &wanted))
    });
    rules.collect()
}

/// Every node's backward cost. From the last node to the first, since a tensor that several nodes
/// read gets as many gradients, and each after the first is added to those before.
fn node_trainings(
    graph: &Graph,
    setup: &TrainSetup,
    flow: &Flow,
    rules: &Rules,
) -> Vec<NodeTraining> {
    let mut has_gradient = vec![false; graph.tensors.len()];
    for id in &setup.seeds {
        has_gradient[id.0] = true;
    }
    let mut nodes: Vec<NodeTraining> = Vec::with_capacity(graph.nodes.len());
    for (node_idx, rule) in rules.iter().enumerate().rev() {
        let mut training = NodeTraining {
            node: NodeId(node_idx),
            dgrad_macs: Dim::ZERO,
            wgrad_macs: Dim::ZERO,
            backward: Ok(Cost::default()),
            kernel_macs: Dim::ZERO,
            recomputed: Cost::default(),
            saved_bytes: Dim::ZERO,
            gradients: Vec::new(),
        };
        match rule {
            None => {}
            Some(Err(reason)) => training.backward = Err(reason.clone()),
            Some(Ok(rule)) => add_rule(graph, flow, rule, &mut has_gradient, &mut training),
        }
        nodes.push(training);
    }
    nodes.reverse();
    nodes
}

fn add_rule(
    graph: &Graph,
    flow: &Flow,
    rule: &backward::Rule,
    has_gradient: &mut [bool],
    training: &mut NodeTraining,
) {
    let node = &graph.nodes[training.node.0];
    let runs = |once: &Dim| once * &node.repeat;
    let reached: Vec<TensorId> =
        node.outputs.iter().copied().filter(|id| flow.reached[id.0]).collect();
    let mut cost = rule.cost(rule.traffic(graph, node, &reached));
    training.dgrad_macs = runs(&rule.shared.macs);
    for gradient in &rule.gradients {
        let tensor = node.inputs[gradient.input];
        let (macs, is_weight) = (runs(&gradient.arithmetic.macs), flow.is_weight[tensor.0]);
        let total = if is_weight { &mut training.wgrad_macs } else { &mut training.dgrad_macs };
        *total = &*total + &macs;
        training.gradients.push(NodeGradient { tensor, macs, is_weight });
        if std::mem::replace(&mut has_gradient[tensor.0], true) {
            accumulate(graph, tensor, &reached, &mut cost);
        }
    }
    training.kernel_macs = runs(&rule.recomputed_macs);
    let counts = [
        &mut cost.macs,
        &mut cost.other_ops,
        &mut cost.transcendental_ops,
        &mut cost.bytes_read,
        &mut cost.bytes_written,
    ];
    for count in counts {
        *count = Count(runs(&count.0));
    }
    let is_too_large = [&cost.macs, &cost.other_ops, &cost.bytes_read, &cost.bytes_written]
        .iter()
        .any(|count| count.0.is_overflow());
    training.backward = match is_too_large {
        true => Err("its exact count is beyond 127 bits".to_owned()),
        false => Ok(cost),
    };
}

/// One add per element, of as many as the node hands on: both gradients are read, the sum written.
fn accumulate(graph: &Graph, tensor: TensorId, reached: &[TensorId], cost: &mut Cost) {
    let results: Dim = reached.iter().map(|id| elements(graph, *id)).sum();
    let bytes: Dim = tensor_bytes(graph, tensor);
    let adds = elements(graph, tensor).minimum(&results);
    cost.other_ops.0 = &cost.other_ops.0 + &adds;
    cost.bytes_read.0 = &(&cost.bytes_read.0 + &bytes) + &bytes;
    cost.bytes_written.0 = &cost.bytes_written.0 + &bytes;
}

/// Forward work and training of each node, side by side.
pub(super) fn pairs(training: &Training) -> impl Iterator<Item = (&NodeWork, &NodeTraining)> {
    training.forward.nodes.iter().zip(&training.nodes)
}
