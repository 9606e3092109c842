//! The order in which the nodes of a graph can run. ONNX demands that a file lists them so; not
//! every tool obeys.
//!
//! Not here: what the nodes do.

use super::wire::{GraphProto, NodeProto};
use crate::error::Error;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Indices of the nodes, each after those whose results it reads; the file's order where it will do.
pub(super) fn of(nodes: &[NodeProto]) -> Result<Vec<usize>, Error> {
    let producers = producers(nodes)?;
    let needs: Vec<Vec<usize>> = nodes.iter().map(|node| needs(node, &producers)).collect();
    let is_sorted = needs.iter().enumerate().all(|(idx, needs)| needs.iter().all(|n| *n < idx));
    if is_sorted {
        return Ok((0..nodes.len()).collect());
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (node_idx, needs) in needs.iter().enumerate() {
        for need in needs {
            readers[*need].push(node_idx);
        }
    }
    let mut n_waiting: Vec<usize> = needs.iter().map(Vec::len).collect();
    let ready = (0..nodes.len()).filter(|node_idx| n_waiting[*node_idx] == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(node_idx)) = ready.pop() {
        order.push(node_idx);
        for reader in &readers[node_idx] {
            n_waiting[*reader] -= 1;
            if n_waiting[*reader] == 0 {
                ready.push(Reverse(*reader));
            }
        }
    }
    if order.len() < nodes.len() {
        let node = &nodes[in_cycle(&needs, &n_waiting)];
        let name = if node.name.is_empty() { &node.op_type } else { &node.name };
        return Err(Error::new("depends on its own result").at(format!("node `{name}`")));
    }
    Ok(order)
}

/// Which node makes each tensor.
fn producers(nodes: &[NodeProto]) -> Result<HashMap<&str, usize>, Error> {
    let mut producers = HashMap::with_capacity(nodes.len());
    for (node_idx, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if producers.insert(output.as_str(), node_idx).is_some() {
                return Err(Error::new("is made by two nodes").at(format!("tensor `{output}`")));
            }
        }
    }
    Ok(producers)
}

/// The nodes that this one waits for, each once per tensor read.
fn needs(node: &NodeProto, producers: &HashMap<&str, usize>) -> Vec<usize> {
    let mut names = Vec::with_capacity(node.input.len());
    read_by(node, &mut names);
    names.into_iter().filter_map(|name| producers.get(name).copied()).collect()
}

fn read_by<'a>(node: &'a NodeProto, names: &mut Vec<&'a str>) {
    names.extend(node.input.iter().map(String::as_str));
    for attribute in &node.attribute {
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            add_captured(graph, names);
        }
    }
}

/// A branch reads tensors of the graph around it without listing them as inputs of the node. A
/// name that it gives a meaning of its own is none of them.
fn add_captured<'a>(graph: &'a GraphProto, names: &mut Vec<&'a str>) {
    let first = names.len();
    for node in &graph.node {
        read_by(node, names);
    }
    names.extend(graph.output.iter().map(|output| output.name.as_str()));
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let stored = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let made = graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str));
    let own: HashSet<&str> = inputs.chain(stored).chain(made).collect();
    let mut captured = names.split_off(first);
    captured.retain(|name| !own.contains(name));
    names.append(&mut captured);
}

/// A node on a cycle: going back from any that still waits must come round.
fn in_cycle(needs: &[Vec<usize>], n_waiting: &[usize]) -> usize {
    let is_stuck = |node_idx: &usize| 0 < n_waiting[*node_idx];
    let Some(mut at) = (0..needs.len()).find(is_stuck) else { return 0 };
    let mut seen = vec![false; needs.len()];
    while !seen[at] {
        seen[at] = true;
        match needs[at].iter().copied().find(is_stuck) {
            Some(before) => at = before,
            None => break,
        }
    }
    at
}
