//! Bytes read and written by each node, each operand once.

use super::{Operands, Sizes, attention};
use crate::graph::{Dim, Graph, Node, Op, Role, TensorId};

/// (bytes read, bytes written); `sizes` are the bytes of each tensor.
pub(super) fn traffic(
    graph: &Graph,
    node: &Node,
    operands: &Operands,
    sizes: &Sizes,
) -> Result<(Dim, Dim), String> {
    if node.op.is_view() {
        return Ok((Dim::ZERO, Dim::ZERO));
    }
    let bytes = |id: &TensorId| match graph.tensor(*id).role {
        Role::Internal => Dim::ZERO,
        Role::Input | Role::Parameter | Role::Buffer | Role::Activation => sizes.of(*id).clone(),
    };
    let mut written: Dim = node.outputs.iter().map(bytes).sum();
    let indices = || node.inputs.iter().skip(1).map(bytes).sum::<Dim>();
    let read = match &node.op {
        // Only the rows or elements that are asked for are touched.
        Op::Embedding
        | Op::Gather { .. }
        | Op::GatherElements
        | Op::GatherNd { .. }
        | Op::Index { .. } => &written + &indices(),
        Op::Slice { .. } => written.clone(),
        Op::Attention(op) => {
            // MLA in its absorbed form: the values are a part of the keys, which are read once.
            let shared = node.inputs.get(2).filter(|value| is_part(graph, **value, node.inputs[1]));
            let apart = |id: &TensorId| if Some(id) == shared { Dim::ZERO } else { bytes(id) };
            let n_stored = shared.map_or(2, |_| 1);
            let added = attention::stored_bytes(op, operands, n_stored, graph.cache_format)?;
            written = &written + &added;
            &inputs_once(node, apart)
                + &attention::cached_bytes(op, operands, n_stored, graph.cache_format)?
        }
        Op::IndexScores(op) => {
            written = &written + &attention::stored_bytes(op, operands, 1, graph.cache_format)?;
            &inputs_once(node, bytes)
                + &attention::cached_bytes(op, operands, 1, graph.cache_format)?
        }
        Op::GroupedMatMul { .. } => grouped(node, operands, bytes)?,
        Op::Fill { .. } => Dim::ZERO,
        Op::MatMul(_)
        | Op::Einsum(_)
        | Op::Convolution(_)
        | Op::Normalization(_)
        | Op::Recurrent(_)
        | Op::Quantize(_)
        | Op::Dequantize(_)
        | Op::Fourier { .. }
        | Op::Either
        | Op::Bitcast { .. }
        | Op::Softmax { .. }
        | Op::Elementwise(_)
        | Op::Cast(_)
        | Op::Reduce(_)
        | Op::Cumulative { .. }
        | Op::Pool(_)
        | Op::Reshape { .. }
        | Op::Identity
        | Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Restride { .. }
        | Op::Split { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Tile { .. }
        | Op::Copy
        | Op::Rearrange { .. }
        | Op::Scatter
        | Op::Resize { .. }
        | Op::TopK { .. }
        | Op::Stated(_)
        | Op::Opaque { .. } => inputs_once(node, bytes),
    };
    Ok((read, written))
}

/// Of a stack, and of what is added, only the parts of the groups that rows fall into: at most one a
/// row.
fn grouped(
    node: &Node,
    operands: &Operands,
    bytes: impl Fn(&TensorId) -> Dim,
) -> Result<Dim, String> {
    let first = |slot: usize| {
        let length = operands.input(slot)?.shape.0.first().cloned();
        length.ok_or_else(|| "a scalar in a grouped product".to_owned())
    };
    let groups = first(1)?;
    let touched = first(0)?.minimum(&groups);
    let of_groups = |id: &TensorId| bytes(id).exact_div(&groups).map(|each| &each * &touched);
    let shared = node.inputs.iter().skip(1).take(2);
    let shared: Dim = shared.map(|id| of_groups(id).unwrap_or_else(|| bytes(id))).sum();
    let rest = node.inputs.iter().enumerate().filter(|(slot, _)| *slot == 0 || 2 < *slot);
    Ok(&shared + &rest.map(|(_, id)| bytes(id)).sum())
}

/// Whether a tensor is a view of another.
pub(super) fn is_part(graph: &Graph, id: TensorId, whole: TensorId) -> bool {
    let mut at = id;
    while let Some(producer) = graph.tensor(at).producer {
        let node = &graph.nodes[producer.0];
        match node.inputs.first().filter(|_| node.op.is_view()) {
            Some(source) => at = *source,
            None => return false,
        }
        if at == whole {
            return true;
        }
    }
    false
}

/// x * x reads x once.
fn inputs_once(node: &Node, bytes: impl Fn(&TensorId) -> Dim) -> Dim {
    let mut ids: Vec<TensorId> = node.inputs.clone();
    ids.sort_unstable();
    ids.dedup();
    ids.iter().map(bytes).sum()
}
