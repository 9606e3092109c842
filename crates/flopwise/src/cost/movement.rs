//! Bytes read and written by each node, each operand once.

use super::{Operands, bytes_of};
use crate::graph::{Dim, Graph, Node, Op, TensorId};

/// (bytes read, bytes written).
pub(super) fn traffic(
    graph: &Graph,
    node: &Node,
    operands: &Operands,
) -> Result<(Dim, Dim), String> {
    if node.op.is_view() {
        return Ok((Dim::ZERO, Dim::ZERO));
    }
    let written: Dim = operands.outputs.iter().map(|output| bytes_of(output)).sum();
    let indices = || operands.inputs.iter().skip(1).map(|input| bytes_of(input)).sum::<Dim>();
    let read = match &node.op {
        // Only the rows or elements that are asked for are touched.
        Op::Embedding
        | Op::Gather { .. }
        | Op::GatherElements
        | Op::GatherNd { .. }
        | Op::Index { .. } => &written + &indices(),
        Op::Slice { .. } => written.clone(),
        Op::Fill { .. } => Dim::ZERO,
        Op::MatMul(_)
        | Op::Einsum(_)
        | Op::Convolution(_)
        | Op::Attention(_)
        | Op::Normalization(_)
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
        | Op::Opaque { .. } => every_input_once(graph, node),
    };
    Ok((read, written))
}

/// x * x reads x once.
fn every_input_once(graph: &Graph, node: &Node) -> Dim {
    let mut ids: Vec<TensorId> = node.inputs.clone();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| super::tensor_bytes(graph, id)).sum()
}
