//! A count with its working: one node, or the whole model by kinds of operators.

use super::{Opened, assumed_bindings, memory, node_rows, notes};
use crate::cost::{self, Work};
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph, Kind, NodeId, Role, Tensor};
use crate::report::{ExplainedStep, Explanation};
use std::collections::BTreeMap;

/// Explains the node called `name`, or the whole model.
pub(super) fn explain(opened: &Opened, name: Option<&str>) -> Result<Explanation, Error> {
    let graph = &opened.graph;
    let mut bindings = opened.bindings.clone();
    bindings.0.extend(assumed_bindings(graph, &bindings));
    let work = cost::work(graph);
    let whole = Explanation {
        model: graph.name.clone(),
        node: None,
        operands: Vec::new(),
        steps: [kind_steps(graph, &work, &bindings), memory::steps(graph, &bindings)].concat(),
        bindings: bindings.0.clone(),
        notes: notes(graph),
    };
    let Some(name) = name else { return Ok(whole) };
    let id = find(graph, name)?;
    if let Err(reason) = &work.nodes[id.0].cost {
        return Err(
            Error::new(format!("could not be counted: {reason}")).at(format!("node `{name}`"))
        );
    }
    let bound = work.bind(graph, &bindings).ok();
    let row = node_rows(graph, bound.as_ref()).swap_remove(id.0);
    Ok(Explanation {
        node: Some(row),
        operands: operands(graph, id),
        steps: node_steps(graph, &work, id, &bindings),
        notes: Vec::new(),
        ..whole
    })
}

/// A node by its own name, by its module's, or by an output's.
pub(super) fn find(graph: &Graph, name: &str) -> Result<NodeId, Error> {
    let gives =
        |node: &crate::graph::Node| node.outputs.iter().any(|id| graph.tensor(*id).name == name);
    let by_name = graph.nodes.iter().position(|node| node.name == name);
    let by_output = || graph.nodes.iter().position(gives);
    let by_module = || graph.nodes.iter().position(|node| node.module.as_deref() == Some(name));
    by_name.or_else(by_output).or_else(by_module).map(NodeId).ok_or_else(|| {
        Error::new(format!("has no node, result or module called `{name}`"))
            .remedy("`flopwise count MODEL --by node` lists the nodes")
    })
}

pub(super) fn operands(graph: &Graph, id: NodeId) -> Vec<String> {
    let node = &graph.nodes[id.0];
    let describe = |verb: &str, tensor: &Tensor| {
        let known = tensor.tensor_type.as_ref();
        let shape = known.map_or_else(String::new, |t| format!(" {} {}", t.shape, t.format));
        let role = match tensor.role {
            Role::Input => ", an input",
            Role::Parameter => ", a parameter",
            Role::Buffer => ", stored but not trained",
            Role::Activation => "",
            Role::Internal => ", inside the operator",
        };
        format!("{verb} {}{shape}{role}", tensor.name)
    };
    let reads = node.inputs.iter().map(|id| describe("reads", graph.tensor(*id)));
    let gives = node.outputs.iter().map(|id| describe("gives", graph.tensor(*id)));
    reads.chain(gives).collect()
}

pub(super) fn node_steps(
    graph: &Graph,
    work: &Work,
    id: NodeId,
    bindings: &Bindings,
) -> Vec<ExplainedStep> {
    let steps = cost::derive(graph, &work.nodes[id.0]).into_iter().map(|derivation| {
        let words: Vec<&str> = derivation.factors.iter().map(|(words, _)| *words).collect();
        let factors: Vec<String> = match derivation.factors.as_slice() {
            [(_, only)] => vec![only.to_string()],
            several => several.iter().map(|(_, dim)| parenthesised(dim)).collect(),
        };
        ExplainedStep {
            quantity: derivation.quantity,
            words: words.join(" x "),
            factors: factors.join(" x "),
            formula: derivation.total.to_string(),
            value: value(&derivation.total, bindings),
            source: derivation.source.to_owned(),
        }
    });
    steps.collect()
}

/// A sum needs brackets beside a multiplication sign.
pub(super) fn parenthesised(dim: &Dim) -> String {
    let text = dim.to_string();
    if text.contains(' ') && !text.ends_with(')') { format!("({text})") } else { text }
}

pub(super) fn value(dim: &Dim, bindings: &Bindings) -> Option<u128> {
    bindings.evaluate(dim).ok().and_then(|value| u128::try_from(value).ok())
}

/// The whole model's MACs as a sum over kinds of operators, and its parameters.
fn kind_steps(graph: &Graph, work: &Work, bindings: &Bindings) -> Vec<ExplainedStep> {
    let mut kinds: BTreeMap<Kind, (usize, Dim)> = BTreeMap::new();
    for node in &work.nodes {
        let Ok(cost) = &node.cost else { continue };
        if cost.macs.0 != Dim::ZERO {
            let kind = graph.nodes[node.node.0].op.kind();
            let (n_nodes, macs) = kinds.entry(kind).or_default();
            *n_nodes += 1;
            *macs = &*macs + &cost.macs.0;
        }
    }
    let words = kinds.iter().map(|(kind, (n_nodes, _))| format!("{n_nodes} {}", kind.name()));
    let factors = kinds.values().map(|(_, macs)| parenthesised(macs));
    let macs = &work.total.macs.0;
    let is_least = work.unknown().next().is_some();
    let least =
        if is_least { "; a lower bound, since not every node could be counted" } else { "" };
    vec![
        ExplainedStep {
            quantity: "MACs",
            words: words.collect::<Vec<_>>().join(" + "),
            factors: factors.collect::<Vec<_>>().join(" + "),
            formula: macs.to_string(),
            value: value(macs, bindings),
            source: format!("--explain NODE shows a node's own working{least}"),
        },
        ExplainedStep {
            quantity: "model FLOPs",
            words: "2 x MACs".to_owned(),
            factors: format!("2 x {}", parenthesised(macs)),
            formula: (macs * &Dim::from(2)).to_string(),
            value: value(macs, bindings).and_then(|macs| macs.checked_mul(2)),
            source: "a MAC is one multiply and one add".to_owned(),
        },
    ]
}
