//! [`Training`] with its symbols bound: exact integers.

use super::{NodeTraining, Training, pairs};
use crate::cost::totals::{bind_cost, count};
use crate::cost::{Counts, NodeWork};
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph};
use crate::units::{Bytes, Flops, Macs, Ops};

/// What the training of one node, module or model costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainingCounts {
    /// The forward pass.
    pub forward: Counts,
    /// MACs of the gradients of activations.
    pub dgrad_macs: Macs,
    /// MACs of the gradients of weights.
    pub wgrad_macs: Macs,
    /// The whole backward pass; its MACs are the sum of both.
    pub backward: Counts,
    /// MACs that a fused backward kernel does again.
    pub kernel_macs: Macs,
    /// The part of the forward pass that is recomputed.
    pub recomputed: Counts,
    /// Bytes kept for the backward pass.
    pub saved_bytes: Bytes,
}

impl TrainingCounts {
    /// Forward pass and gradients, two FLOPs per MAC: what MFU is based on.
    #[must_use]
    pub fn model_flops(&self) -> Flops {
        (self.forward.macs + self.dgrad_macs + self.wgrad_macs).to_flops()
    }

    /// What kernels execute: the scores of fused attention again, and recomputed blocks.
    #[must_use]
    pub fn hardware_flops(&self) -> Flops {
        let again = self.kernel_macs + self.recomputed.macs;
        self.model_flops() + again.to_flops()
    }

    /// Adds, multiplies and compares outside matrix products, of everything executed.
    #[must_use]
    pub fn other_ops(&self) -> Ops {
        self.forward.other_ops + self.backward.other_ops + self.recomputed.other_ops
    }

    /// exp, log, roots, divisions ... of everything executed.
    #[must_use]
    pub fn transcendental_ops(&self) -> Ops {
        let parts = [&self.forward, &self.backward, &self.recomputed];
        parts.iter().map(|part| part.transcendental_ops).sum()
    }

    /// Bytes read and written by everything executed.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        [&self.forward, &self.backward, &self.recomputed].iter().map(|part| part.bytes()).sum()
    }
}

impl std::ops::Add for TrainingCounts {
    type Output = TrainingCounts;
    fn add(self, other: TrainingCounts) -> TrainingCounts {
        TrainingCounts {
            forward: self.forward + other.forward,
            dgrad_macs: self.dgrad_macs + other.dgrad_macs,
            wgrad_macs: self.wgrad_macs + other.wgrad_macs,
            backward: self.backward + other.backward,
            kernel_macs: self.kernel_macs + other.kernel_macs,
            recomputed: self.recomputed + other.recomputed,
            saved_bytes: self.saved_bytes + other.saved_bytes,
        }
    }
}

/// A training step in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTraining {
    /// One entry per node, in the graph's order; `None` where a part of the cost is unknown.
    pub nodes: Vec<Option<TrainingCounts>>,
    /// The sum of everything known.
    pub total: TrainingCounts,
    /// Bytes that the largest recomputed block fills while its gradients are computed.
    pub refilled_bytes: Bytes,
    /// Numbers in the parameters that get a gradient.
    pub trained_parameters: u128,
    /// Bytes of those parameters.
    pub trained_bytes: Bytes,
    /// Numbers in parameters that were to be trained and get no gradient.
    pub unreached_parameters: u128,
}

impl Training {
    /// Evaluates every count.
    ///
    /// # Errors
    /// A symbol without a value, or a count that is negative or too large; names the node.
    pub fn bind(&self, graph: &Graph, bindings: &Bindings) -> Result<BoundTraining, Error> {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut total = TrainingCounts::default();
        for (work, node) in pairs(self) {
            let place = || format!("node `{}`", graph.nodes[node.node.0].name);
            let counts = bind_node(work, node, bindings).map_err(|error| error.at(place()))?;
            total = total + counts;
            let is_known = work.cost.is_ok() && node.backward.is_ok();
            nodes.push(is_known.then_some(counts));
        }
        total.forward.parameters = count(&self.forward.parameters, bindings)?;
        let mut refilled = 0;
        for block in &self.refilled {
            refilled = count(block, bindings)?.max(refilled);
        }
        let size_of = |ids: &[crate::graph::TensorId]| {
            let sizes: Dim = ids.iter().map(|id| crate::cost::elements(graph, *id)).sum();
            count(&sizes, bindings)
        };
        Ok(BoundTraining {
            nodes,
            total,
            refilled_bytes: Bytes(refilled),
            trained_parameters: size_of(&self.trained)?,
            trained_bytes: Bytes(count(&self.trained_bytes(graph), bindings)?),
            unreached_parameters: size_of(&self.unreached)?,
        })
    }
}

fn bind_node(
    work: &NodeWork,
    node: &NodeTraining,
    bindings: &Bindings,
) -> Result<TrainingCounts, Error> {
    let nothing = Dim::ZERO;
    let macs = |dim: &Dim| Ok::<Macs, Error>(Macs(count(dim, bindings)?));
    let mut counts = TrainingCounts {
        recomputed: bind_cost(&node.recomputed, &nothing, bindings)?,
        kernel_macs: macs(&node.kernel_macs)?,
        saved_bytes: Bytes(count(&node.saved_bytes, bindings)?),
        ..TrainingCounts::default()
    };
    if let Ok(cost) = &work.cost {
        counts.forward = bind_cost(cost, &work.parameters, bindings)?;
    }
    if let Ok(cost) = &node.backward {
        counts.backward = bind_cost(cost, &nothing, bindings)?;
        counts.dgrad_macs = macs(&node.dgrad_macs)?;
        counts.wgrad_macs = macs(&node.wgrad_macs)?;
    }
    Ok(counts)
}
