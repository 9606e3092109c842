//! Memory of one forward pass: weights, and the most that activations take at any moment.

use super::bytes_of;
use super::totals::count;
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph, Node, NodeId, Role, Tensor, TensorId, TensorType};
use crate::units::Bytes;

/// Memory of one forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Inputs and results alive at once, at the worst moment of the file's own order: each buffer
    /// lives from the node that makes it to the last that reads it, views and operators in place
    /// share the buffer they look at, inputs and outputs stay to the end.
    pub peak_activation_bytes: Bytes,
    /// The node at which that is.
    pub peak_node: Option<NodeId>,
}

/// Finds the peak by exact liveness over the graph's order.
///
/// # Errors
/// A symbol without a value.
pub fn memory(graph: &Graph, bindings: &Bindings) -> Result<Memory, Error> {
    let owner = owners(graph);
    let never = usize::MAX;
    let mut last_use = vec![0usize; graph.tensors.len()];
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        for id in node.inputs.iter().chain(&node.outputs) {
            let root = owner[id.0].0;
            last_use[root] = last_use[root].max(node_idx);
        }
    }
    for id in graph.inputs.iter().chain(&graph.outputs) {
        last_use[owner[id.0].0] = never;
    }
    let size = |id: TensorId| match graph.tensor(id) {
        Tensor { role: Role::Internal, .. } | Tensor { tensor_type: None, .. } => Ok(0),
        Tensor { tensor_type: Some(known), .. } => bytes(known, bindings),
    };
    let mut live: u128 = 0;
    for id in &graph.inputs {
        live += size(*id)?;
    }
    let mut dies_at: Vec<Vec<u128>> = vec![Vec::new(); graph.nodes.len()];
    let (mut peak, mut peak_node) = (live, None);
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        for id in &node.outputs {
            if owner[id.0] != *id || node.repeat == Dim::ZERO {
                continue;
            }
            let bytes = size(*id)?;
            live = live.saturating_add(bytes);
            if let Some(dying) = dies_at.get_mut(last_use[id.0]) {
                dying.push(bytes);
            }
        }
        if peak < live {
            (peak, peak_node) = (live, Some(NodeId(node_idx)));
        }
        live -= dies_at[node_idx].iter().sum::<u128>();
    }
    Ok(Memory { peak_activation_bytes: Bytes(peak), peak_node })
}

/// Bytes of a tensor: the sizes are bound one by one, which is far quicker than their product.
fn bytes(known: &TensorType, bindings: &Bindings) -> Result<u128, Error> {
    let mut bits = u128::from(known.format.bits);
    for length in &known.shape.0 {
        bits = match bits.checked_mul(count(length, bindings)?) {
            Some(bits) => bits,
            None => return count(&bytes_of(known), bindings),
        };
    }
    Ok(bits.div_ceil(8))
}

/// For each tensor the one whose bytes it looks at: itself, unless a view or an operator in place
/// made it.
fn owners(graph: &Graph) -> Vec<TensorId> {
    owners_where(graph, |node| node.op.is_view() || node.in_place)
}

/// For each tensor the one that it is a view of: itself, unless a view made it. What an operator in
/// place overwrites is another value, which may have been kept before.
pub(super) fn viewed(graph: &Graph) -> Vec<TensorId> {
    owners_where(graph, |node| node.op.is_view())
}

fn owners_where(graph: &Graph, shares: impl Fn(&Node) -> bool) -> Vec<TensorId> {
    let mut owner: Vec<TensorId> = (0..graph.tensors.len()).map(TensorId).collect();
    for node in graph.nodes.iter().filter(|node| shares(node)) {
        let Some(source) = node.inputs.first() else { continue };
        let root = owner[source.0];
        // Besides its result an operator in place may have others of its own.
        let n_shared = if node.op.is_view() { node.outputs.len() } else { 1 };
        for output in node.outputs.iter().take(n_shared) {
            owner[output.0] = root;
        }
    }
    owner
}
