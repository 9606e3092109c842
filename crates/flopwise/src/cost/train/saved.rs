//! What is kept from the forward pass for the backward pass, each buffer once.
//!
//! A tensor that several nodes keep counts once, a view counts as the buffer it looks at, and
//! stored tensors (parameters, running statistics) do not count: they are there anyway. What the
//! nodes of a recomputed block keep among themselves is not kept; the block's inputs are instead.
//!
//! Not here: what each operator keeps (see `cost::backward`).

use super::Rules;
use super::recompute::Regions;
use crate::cost::backward::Saved;
use crate::cost::memory::viewed;
use crate::cost::tensor_bytes;
use crate::graph::{Dim, Graph, NodeId, Role, TensorId};
use std::collections::HashMap;

/// Something kept for the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTensor {
    /// The tensor whose buffer it is; `None` for statistics and indices that no tensor holds.
    pub tensor: Option<TensorId>,
    /// The first node that keeps it.
    pub node: NodeId,
    /// Its bytes.
    pub bytes: Dim,
}

/// What is kept, and by whom.
pub(super) struct Kept {
    pub(super) tensors: Vec<SavedTensor>,
    pub(super) first_by_node: Vec<Dim>,
    /// For each recomputed block, the bytes its recomputation fills.
    pub(super) refilled: Vec<Dim>,
}

pub(super) fn saved(graph: &Graph, rules: &Rules, regions: &Regions) -> Kept {
    let mut keeping = Keeping {
        graph,
        owner: viewed(graph),
        seen: HashMap::new(),
        kept: Kept {
            tensors: Vec::new(),
            first_by_node: vec![Dim::ZERO; graph.nodes.len()],
            refilled: vec![Dim::ZERO; regions.names.len()],
        },
    };
    for (node_idx, rule) in rules.iter().enumerate() {
        let node = &graph.nodes[node_idx];
        let region = regions.of_node[node_idx];
        if let Some(region) = region {
            // The block is run again from what comes into it.
            for id in &node.inputs {
                let root = keeping.owner[id.0];
                let producer = graph.tensor(root).producer;
                if producer.is_none_or(|node| regions.of_node[node.0] != Some(region)) {
                    keeping.keep(NodeId(node_idx), root, None);
                }
            }
        }
        let Some(Ok(rule)) = rule else { continue };
        for saved in &rule.saved {
            let id = match saved {
                Saved::Input(input_idx) => node.inputs.get(*input_idx),
                Saved::Output(output_idx) => node.outputs.get(*output_idx),
                Saved::Bytes(bytes) => {
                    keeping.bytes(NodeId(node_idx), bytes * &node.repeat, region);
                    continue;
                }
            };
            let Some(id) = id else { continue };
            let root = keeping.owner[id.0];
            let producer = graph.tensor(root).producer;
            let is_refilled =
                region.is_some() && producer.is_some_and(|node| regions.of_node[node.0] == region);
            keeping.keep(NodeId(node_idx), root, region.filter(|_| is_refilled));
        }
    }
    keeping.kept
}

struct Keeping<'a> {
    graph: &'a Graph,
    owner: Vec<TensorId>,
    /// Whether a buffer is kept (`true`) or only refilled (`false`).
    seen: HashMap<TensorId, bool>,
    kept: Kept,
}

impl Keeping<'_> {
    /// Keeps a buffer, or notes that the block's recomputation fills it.
    fn keep(&mut self, node: NodeId, root: TensorId, refilled_by: Option<usize>) {
        let tensor = self.graph.tensor(root);
        match tensor.role {
            Role::Parameter | Role::Buffer => return,
            Role::Input | Role::Activation | Role::Internal => {}
        }
        let before = self.seen.get(&root).copied();
        if before == Some(true) || (before.is_some() && refilled_by.is_some()) {
            return;
        }
        self.seen.insert(root, refilled_by.is_none());
        let runs = tensor
            .producer
            .map_or(Dim::ONE, |producer| self.graph.nodes[producer.0].repeat.clone());
        let bytes = &tensor_bytes(self.graph, root) * &runs;
        self.add(node, Some(root), bytes, refilled_by);
    }

    fn bytes(&mut self, node: NodeId, bytes: Dim, refilled_by: Option<usize>) {
        self.add(node, None, bytes, refilled_by);
    }

    fn add(
        &mut self,
        node: NodeId,
        tensor: Option<TensorId>,
        bytes: Dim,
        refilled_by: Option<usize>,
    ) {
        if bytes == Dim::ZERO {
            return;
        }
        let total = match refilled_by {
            Some(region) => &mut self.kept.refilled[region],
            None => &mut self.kept.first_by_node[node.0],
        };
        *total = &*total + &bytes;
        if refilled_by.is_none() {
            self.kept.tensors.push(SavedTensor { tensor, node, bytes });
        }
    }
}
