//! How many parameters of a language model work on each token, and how many tokens a pass takes.
//!
//! Not here: how many parameters are stored ([`super::Work::parameters`]).

use super::{Work, elements};
use crate::graph::{Dim, Graph, Node, Op, Role, TensorId};
use std::collections::{BTreeMap, BTreeSet};

/// Parameters by their part in computing one token. Published "active" parameters leave out
/// different parts: model cards of gpt-oss the input embedding, DeepSeek-V3's 37 B nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// All that a token meets: of each stack of experts as many as compute it, everything else
    /// whole.
    pub parameters: Dim,
    /// Those without tables that tokens are looked up in, unless the same table is also the head.
    pub without_embedding: Dim,
    /// Multiply-accumulates with weights per token: the N of 2 N FLOPs.
    pub in_products: Option<Dim>,
    /// Whether some experts rest while others compute.
    pub has_experts: bool,
}

/// How many tokens a pass takes: the indices that come from an input and look up a table.
#[must_use]
pub fn tokens(graph: &Graph) -> Option<Dim> {
    let lookup = graph.nodes.iter().find(|node| is_token_lookup(graph, node))?;
    lookup.inputs.get(1).map(|id| elements(graph, *id))
}

/// The active parameters of a graph and its work; `None` for a model that looks no tokens up.
#[must_use]
pub fn active(graph: &Graph, work: &Work) -> Option<Active> {
    let tokens = tokens(graph)?;
    let mut resting: BTreeMap<TensorId, Dim> = BTreeMap::new();
    let (mut tables, mut factors) = (BTreeSet::new(), BTreeSet::new());
    let mut macs = Dim::ZERO;
    for (node, counted) in graph.nodes.iter().zip(&work.nodes) {
        let is_weight = |id: &&TensorId| graph.tensor(**id).role == Role::Parameter;
        if let Op::GroupedMatMul { .. } = node.op {
            for id in node.inputs.iter().skip(1).filter(is_weight) {
                if let Some(idle) = idle(graph, node, *id, &tokens) {
                    resting.insert(*id, idle);
                }
            }
        }
        if node.op == Op::Embedding {
            let is_of_tokens = is_token_lookup(graph, node);
            tables.extend(node.inputs.iter().take(1).filter(is_weight).filter(|_| is_of_tokens));
            continue;
        }
        let mut weights = node.inputs.iter().take(2).filter(is_weight).peekable();
        let is_attention = matches!(node.op, Op::Attention(_));
        if weights.peek().is_some() && !is_attention {
            let of_node = counted.cost.as_ref().map(|cost| &cost.macs.0);
            if let Ok(of_node) = of_node
                && *of_node != Dim::ZERO
            {
                factors.extend(weights);
                macs = &macs + of_node;
            }
        }
    }
    let has_experts = !resting.is_empty();
    let idle: Dim = resting.values().cloned().sum();
    let parameters = &work.parameters - &idle;
    let looked_up: Dim = tables.difference(&factors).map(|id| elements(graph, *id)).sum();
    Some(Active {
        without_embedding: &parameters - &looked_up,
        parameters,
        in_products: macs.exact_div(&tokens),
        has_experts,
    })
}

/// Elements of a stack that a token does not meet: each row belongs to one expert, and each token
/// has as many rows as experts.
fn idle(graph: &Graph, node: &Node, stack: TensorId, tokens: &Dim) -> Option<Dim> {
    let shape = |id: TensorId| graph.tensor(id).tensor_type.as_ref().map(|known| &known.shape.0);
    let experts = shape(stack)?.first()?;
    let rows = shape(*node.inputs.first()?)?.first()?;
    let chosen = rows.exact_div(tokens)?;
    let each = elements(graph, stack).exact_div(experts)?;
    let resting = experts - &chosen;
    let is_some = resting.as_constant().is_some_and(|resting| 0 < resting);
    is_some.then(|| &each * &resting)
}

/// Whether a node looks up the rows of tokens that the user gives.
pub(super) fn is_token_lookup(graph: &Graph, node: &Node) -> bool {
    let indices = node.inputs.get(1).copied();
    node.op == Op::Embedding && indices.is_some_and(|id| is_given(graph, id))
}

/// Whether a tensor is an input of the model, perhaps under another shape.
fn is_given(graph: &Graph, id: TensorId) -> bool {
    let mut id = id;
    while let Some(producer) = graph.tensor(id).producer {
        let node = &graph.nodes[producer.0];
        let is_same = node.op.is_view() || matches!(node.op, Op::Cast(_) | Op::Copy);
        match node.inputs.first() {
            Some(source) if is_same => id = *source,
            Some(_) | None => return false,
        }
    }
    graph.tensor(id).role == Role::Input
}
