//! Which nodes cost the same: the layers of a model are mostly alike, and a copied count costs a
//! fraction of one that is derived again.
//!
//! Not here: what they cost.

use super::movement::is_part;
use crate::graph::{Graph, Node, Op, Tensor, TensorId};
use std::collections::HashMap;

/// Different nodes of one operator that are remembered; comparing with more would cost more than
/// counting does.
const MAX_KNOWN: usize = 24;

/// Nodes counted so far, those that differ.
pub(super) struct Alike<'a> {
    graph: &'a Graph,
    known: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Alike<'a> {
    pub(super) fn new(graph: &'a Graph) -> Alike<'a> {
        Alike { graph, known: HashMap::new() }
    }

    /// An earlier node that costs what this one does; without one, this is remembered.
    pub(super) fn find(&mut self, node_idx: usize) -> Option<usize> {
        let graph = self.graph;
        let node = &graph.nodes[node_idx];
        let known = self.known.entry(&node.operator).or_default();
        let found =
            known.iter().find(|known| is_alike(graph, &graph.nodes[**known], node)).copied();
        if found.is_none() && known.len() < MAX_KNOWN {
            known.push(node_idx);
        }
        found
    }
}

/// The same operator, as often, on operands and results of the same types and formats, with the same
/// of them repeated.
fn is_alike(graph: &Graph, a: &Node, b: &Node) -> bool {
    let same_tensors = |a: &[TensorId], b: &[TensorId]| {
        let pairs = || a.iter().zip(b);
        let is_same =
            |(a, b): (&TensorId, &TensorId)| is_stored_alike(graph.tensor(*a), graph.tensor(*b));
        let repeats_alike = |(idx, (a_id, b_id)): (usize, (&TensorId, &TensorId))| {
            pairs().take(idx).all(|(before_a, before_b)| (before_a == a_id) == (before_b == b_id))
        };
        a.len() == b.len() && pairs().enumerate().all(repeats_alike) && pairs().all(is_same)
    };
    same_tensors(&a.inputs, &b.inputs)
        && same_tensors(&a.outputs, &b.outputs)
        && a.repeat == b.repeat
        && a.op == b.op
        && shares_values(graph, a) == shares_values(graph, b)
}

/// Whether an attention's values are a part of its keys, which the nodes before it decide.
fn shares_values(graph: &Graph, node: &Node) -> bool {
    match (&node.op, node.inputs.as_slice()) {
        (Op::Attention(_), [_, key, value, ..]) => is_part(graph, *value, *key),
        _ => false,
    }
}

fn is_stored_alike(a: &Tensor, b: &Tensor) -> bool {
    a.role == b.role && a.tensor_type == b.tensor_type && a.stored == b.stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, Function, Role, Shape, TensorType};
    use flopwise_formats::Format;

    #[test]
    fn only_equal_work_is_alike() {
        let mut builder = Builder::new("pairs");
        let mut input = |name: &str, format, role| {
            let tensor_type = TensorType { shape: Shape::of(&[4, 8]), format };
            builder.tensor(name, Some(tensor_type), role).unwrap()
        };
        let x = input("x", Format::FP32, Role::Input);
        let y = input("y", Format::FP32, Role::Input);
        let half = input("half", Format::FP16, Role::Input);
        let hidden = input("hidden", Format::FP32, Role::Internal);
        let mut add = |name: &str, a, b| {
            builder.apply(name, Op::Elementwise(Function::Add), &[a, b]).unwrap();
        };
        add("first", x, y);
        add("same", y, x);
        add("twice", x, x);
        add("twice again", y, y);
        add("other format", half, half);
        add("never in memory", x, hidden);
        let graph = builder.finish(vec![x, y, half], Vec::new());
        let mut alike = Alike::new(&graph);
        let found: Vec<Option<usize>> = (0..6).map(|node_idx| alike.find(node_idx)).collect();
        assert_eq!(found, [None, Some(0), None, Some(2), None, None]);
    }
}
