//! Branches decided at run time: the costlier one is counted, and that is said.
//!
//! Not here: reading branches from files (see [`crate::import`]).

use super::work;
use crate::graph::{Bindings, Choice, Dim, Graph};
use crate::note::Note;
use std::ops::Range;

/// Sets the [`repeat`](crate::graph::Node::repeat) of every node of a branch that is not the
/// costliest of its choice to zero, inner choices first, and notes which was taken. Costs are MACs,
/// then other operations, then bytes, at these bindings; an open symbol counts as its smallest
/// value. A branch that holds something uncounted is taken before one that does not: it may cost
/// anything.
pub fn take_costliest(graph: &mut Graph, bindings: &Bindings) {
    if graph.choices.is_empty() {
        return;
    }
    let least = |name: &str| {
        let symbol = graph.symbols.iter().find(|symbol| symbol.name == name);
        let given = bindings.0.get(name).copied();
        given.or(symbol.map(|symbol| symbol.min.max(1)))
    };
    let work = work(graph);
    let prices: Vec<Price> = work
        .nodes
        .iter()
        .map(|node| match &node.cost {
            Ok(cost) => {
                let value = |dim: &Dim| dim.evaluate(&least).unwrap_or(0);
                let bytes = value(&cost.bytes_read.0).saturating_add(value(&cost.bytes_written.0));
                let other = [&cost.other_ops, &cost.transcendental_ops];
                let other = other.iter().fold(0i128, |sum, n| sum.saturating_add(value(&n.0)));
                [0, value(&cost.macs.0), other, bytes]
            }
            Err(_) => [1, 0, 0, 0],
        })
        .collect();
    let mut is_taken = vec![true; graph.nodes.len()];
    for choice in &graph.choices {
        let (taken, note) = decide(choice, &prices, &is_taken);
        graph.notes.extend(note);
        for (branch_idx, (_, nodes)) in choice.branches.iter().enumerate() {
            if branch_idx != taken {
                is_taken[nodes.clone()].fill(false);
            }
        }
    }
    for (node, is_taken) in graph.nodes.iter_mut().zip(is_taken) {
        if !is_taken {
            node.repeat = Dim::ZERO;
        }
    }
}

/// Uncounted nodes, MACs, other operations, bytes.
type Price = [i128; 4];

fn decide(choice: &Choice, prices: &[Price], is_taken: &[bool]) -> (usize, Option<Note>) {
    let price = |nodes: &Range<usize>| {
        let mut sum: Price = [0; 4];
        for node_idx in nodes.clone().filter(|node_idx| is_taken[*node_idx]) {
            for (total, part) in sum.iter_mut().zip(prices[node_idx]) {
                *total = total.saturating_add(part);
            }
        }
        sum
    };
    let priced: Vec<Price> = choice.branches.iter().map(|(_, nodes)| price(nodes)).collect();
    // The first of equals.
    let taken = (0..priced.len()).rev().max_by_key(|branch_idx| priced[*branch_idx]).unwrap_or(0);
    if priced.iter().all(|price| *price == [0; 4]) {
        return (taken, None);
    }
    let macs = choice.branches.iter().zip(&priced);
    let macs = macs.map(|((name, _), [unknown, macs, ..])| match unknown {
        0 => format!("{name} {macs} MACs"),
        _ => format!("{name} at least {macs} MACs"),
    });
    let macs: Vec<String> = macs.collect();
    let (name, branch) = (&choice.name, choice.branches[taken].0);
    let text = format!(
        "which branch of `{name}` runs is decided at run time; the costlier, {branch}, is counted \
         ({})",
        macs.join(", ")
    );
    (taken, Some(Note::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, Function, Op, Role, Shape, TensorType};
    use flopwise_formats::Format;

    /// A choice of branches that hold so many additions each; the second one holds a choice too.
    fn graph() -> Graph {
        let mut builder = Builder::new("choice");
        let x = TensorType { shape: Shape(vec![Dim::symbol("n")]), format: Format::FP32 };
        let x = builder.tensor("x", Some(x), Role::Input).unwrap();
        let add = |builder: &mut Builder, count: usize| {
            let first = builder.n_nodes();
            for _ in 0..count {
                let name = format!("add{}", builder.n_nodes());
                builder.apply(&name, Op::Elementwise(Function::Add), &[x, x]).unwrap();
            }
            first..builder.n_nodes()
        };
        let outer_then = add(&mut builder, 2);
        let inner_then = add(&mut builder, 3);
        let inner_else = add(&mut builder, 1);
        let outer_else = inner_then.start..inner_else.end;
        for (name, branches) in
            [("inner", [inner_then, inner_else]), ("outer", [outer_then, outer_else])]
        {
            let [first, second] = branches;
            let branches = vec![("then_branch", first), ("else_branch", second)];
            builder.choice(Choice { name: name.to_owned(), branches });
        }
        builder.finish(vec![x], vec![x])
    }

    #[test]
    fn the_costliest_branch_of_nested_choices_is_counted() {
        let mut graph = graph();
        take_costliest(&mut graph, &Bindings::default());
        // Of else only the inner then: three additions, more than the two of the outer then.
        assert_eq!(work(&graph).total.other_ops.0.to_string(), "3*n");
        assert_eq!(graph.notes.len(), 2);
        assert!(graph.notes[1].to_string().contains("else_branch"), "{:?}", graph.notes);
    }
}
