//! Which nodes run again in the backward pass instead of keeping what they computed
//! (activation checkpointing): blocks of the model, or the core of attention.
//!
//! Not here: what that costs and saves (see [`super`]).

use super::Rules;
use crate::graph::{Dim, Graph, Node, NodeId, Op, Role, TensorId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

/// What is computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing: all that the backward pass needs is kept.
    Nothing,
    /// The core of attention: scores, softmax and their product with the values (selective
    /// recomputation, arXiv 2205.05198 section 5). A fused attention keeps no scores anyway; that
    /// its kernel computes them again is part of its backward pass and not counted here.
    AttentionCore,
    /// Every block: each runs forward once more, and only its inputs are kept. Without blocks, the
    /// whole model.
    Blocks {
        /// Only every so many-th block; 1 for all.
        every: usize,
    },
}

impl FromStr for Recompute {
    type Err = String;
    fn from_str(text: &str) -> Result<Recompute, String> {
        match text {
            "none" => Ok(Recompute::Nothing),
            "selective" => Ok(Recompute::AttentionCore),
            "full" => Ok(Recompute::Blocks { every: 1 }),
            _ => {
                let every = text.strip_prefix("blocks=").and_then(|every| every.parse().ok());
                let every = every.filter(|every| 0 < *every).ok_or_else(|| {
                    format!("`{text}`: write none, selective, full, or blocks=N for every Nth")
                })?;
                Ok(Recompute::Blocks { every })
            }
        }
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recompute::Nothing => formatter.write_str("none"),
            Recompute::AttentionCore => formatter.write_str("selective"),
            Recompute::Blocks { every: 1 } => formatter.write_str("full"),
            Recompute::Blocks { every } => write!(formatter, "blocks={every}"),
        }
    }
}

/// The parts of a graph that run again.
pub(super) struct Regions {
    /// For each node the part it belongs to.
    pub(super) of_node: Vec<Option<usize>>,
    /// What each part is called.
    pub(super) names: Vec<String>,
}

/// The parts that run again. A part in which nothing needs a gradient does not.
pub(super) fn regions(graph: &Graph, recompute: &Recompute, rules: &Rules) -> Regions {
    let keys: Vec<Option<String>> = match recompute {
        Recompute::Nothing => vec![None; graph.nodes.len()],
        Recompute::AttentionCore => attention_cores(graph),
        Recompute::Blocks { every } => every_nth(blocks(graph), *every),
    };
    let takes_part: HashSet<&str> = keys
        .iter()
        .zip(rules)
        .filter(|(_, rule)| rule.is_some())
        .filter_map(|(key, _)| key.as_deref())
        .collect();
    let mut regions = Regions { of_node: Vec::with_capacity(keys.len()), names: Vec::new() };
    let mut place: HashMap<&str, usize> = HashMap::new();
    for key in &keys {
        let key = key.as_deref().filter(|key| takes_part.contains(key));
        let region = key.map(|key| {
            *place.entry(key).or_insert_with(|| {
                regions.names.push(key.to_owned());
                regions.names.len() - 1
            })
        });
        regions.of_node.push(region);
    }
    regions
}

fn every_nth(blocks: Vec<Option<String>>, every: usize) -> Vec<Option<String>> {
    let mut order: HashMap<String, usize> = HashMap::new();
    let chosen = blocks.into_iter().map(|block| {
        let n_before = order.len();
        let place = *order.entry(block.clone()?).or_insert(n_before);
        block.filter(|_| (place + 1).is_multiple_of(every))
    });
    chosen.collect()
}

/// The block of each node: the repeated module it lies in, by its path. That is the path up to the
/// first component that is a number (`layers.0`, `h.5`, `features.3`, `layer1.0`) or ends in `_` and
/// a number (`encoder_layer_3`); where no path has one, up to the first that ends in a number and
/// has a sister with another (`denseblock1`). Without any, the whole model is one block.
fn blocks(graph: &Graph) -> Vec<Option<String>> {
    let paths: Vec<Option<&str>> = graph.nodes.iter().map(|node| node.module.as_deref()).collect();
    let by = |is_numbered: &dyn Fn(&str) -> Option<usize>| -> Vec<Option<String>> {
        let block = |path: &Option<&str>| {
            let path = (*path)?;
            let mut end = 0;
            for component in path.split('.') {
                end += component.len();
                if is_numbered(component).is_some() {
                    return Some(path[..end].to_owned());
                }
                end += 1;
            }
            None
        };
        let found: Vec<Option<String>> = paths.iter().map(block).collect();
        with_sisters(&found, is_numbered)
    };
    let numbered = |component: &str| {
        let stem = component.trim_end_matches(|c: char| c.is_ascii_digit());
        let has_number = stem.len() < component.len();
        (has_number && (stem.is_empty() || stem.ends_with('_'))).then_some(stem.len())
    };
    let found = by(&numbered);
    if found.iter().any(Option::is_some) {
        return found;
    }
    let named = |component: &str| {
        let stem = component.trim_end_matches(|c: char| c.is_ascii_digit());
        (stem.len() < component.len()).then_some(stem.len())
    };
    let found = by(&named);
    if found.iter().any(Option::is_some) {
        return found;
    }
    vec![Some("the whole model".to_owned()); graph.nodes.len()]
}

/// Only blocks whose number is not the only one of its name.
fn with_sisters(
    found: &[Option<String>],
    is_numbered: &dyn Fn(&str) -> Option<usize>,
) -> Vec<Option<String>> {
    let family = |block: &str| {
        let start = block.rfind('.').map_or(0, |dot| dot + 1);
        let stem = is_numbered(&block[start..]).unwrap_or(0);
        block[..start + stem].to_owned()
    };
    let mut members: BTreeMap<String, HashSet<&str>> = BTreeMap::new();
    for block in found.iter().flatten() {
        members.entry(family(block)).or_default().insert(block);
    }
    let has_sister = |block: &String| members.get(&family(block)).is_some_and(|m| 1 < m.len());
    found.iter().map(|block| block.clone().filter(|block| has_sister(block))).collect()
}

/// Steps from a softmax to the products on its two sides: scale, mask, cast, dropout, views.
const MAX_CORE_STEPS: usize = 32;

/// Attention written out as a product of activations, a softmax and another such product.
fn attention_cores(graph: &Graph) -> Vec<Option<String>> {
    let mut readers: HashMap<TensorId, Vec<NodeId>> = HashMap::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        for id in &node.inputs {
            readers.entry(*id).or_default().push(NodeId(node_idx));
        }
    }
    let mut cores = vec![None; graph.nodes.len()];
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        if !matches!(node.op, Op::Softmax { .. }) {
            continue;
        }
        let before = path_back(graph, node);
        let after = path_ahead(graph, node, &readers);
        if let (Some(before), Some(after)) = (before, after) {
            for member in before.into_iter().chain([NodeId(node_idx)]).chain(after) {
                cores[member.0] = Some(node.name.clone());
            }
        }
    }
    cores
}

/// Nodes from a product of two activations to the softmax.
fn path_back(graph: &Graph, softmax: &Node) -> Option<Vec<NodeId>> {
    let mut path = Vec::new();
    let mut at = graph.tensor(*softmax.inputs.first()?).producer?;
    for _ in 0..MAX_CORE_STEPS {
        path.push(at);
        let node = &graph.nodes[at.0];
        if is_product_of_activations(graph, node) {
            return Some(path);
        }
        if !is_step(&node.op) {
            return None;
        }
        // The scores are the largest operand; a mask or a scale is broadcast to them.
        let computed = node.inputs.iter().filter_map(|id| graph.tensor(*id).producer);
        let rank = |id: &NodeId| {
            let first = graph.nodes[id.0].outputs.first();
            let known = first.and_then(|id| graph.tensor(*id).tensor_type.as_ref());
            known.map_or(0, |known| known.shape.0.iter().filter(|d| **d != Dim::ONE).count())
        };
        at = computed.rev().max_by_key(rank)?;
    }
    None
}

/// Nodes from the softmax to a product of two activations.
fn path_ahead(
    graph: &Graph,
    softmax: &Node,
    readers: &HashMap<TensorId, Vec<NodeId>>,
) -> Option<Vec<NodeId>> {
    let mut path = Vec::new();
    let mut tensor = *softmax.outputs.first()?;
    for _ in 0..MAX_CORE_STEPS {
        let at = *readers.get(&tensor)?.first()?;
        path.push(at);
        let node = &graph.nodes[at.0];
        if is_product_of_activations(graph, node) {
            return Some(path);
        }
        if !is_step(&node.op) {
            return None;
        }
        tensor = *node.outputs.first()?;
    }
    None
}

fn is_product_of_activations(graph: &Graph, node: &Node) -> bool {
    let is_computed = |id: &TensorId| match graph.tensor(*id).role {
        Role::Activation | Role::Internal | Role::Input => true,
        Role::Parameter | Role::Buffer => false,
    };
    matches!(node.op, Op::MatMul(_) | Op::Einsum(_)) && node.inputs.iter().take(2).all(is_computed)
}

fn is_step(op: &Op) -> bool {
    op.is_view() || matches!(op, Op::Elementwise(_) | Op::Cast(_) | Op::Copy | Op::Transpose { .. })
}
