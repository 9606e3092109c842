//! How a count comes about: each quantity of a node as a product of named factors.
//!
//! Not here: the counting itself. A test multiplies every derivation out against it.

use super::{
    Cost, Count, NodeWork, Operands, attention, convolution, matmul, node_operands, recurrent,
};
use crate::graph::{Dim, Direction, Graph, Op, Positions};

/// One quantity of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// `MACs`, `other ops`, ...
    pub quantity: &'static str,
    /// What is multiplied, in words and in symbols. A single factor is a plain sum.
    pub factors: Vec<(&'static str, Dim)>,
    /// The product, as it was counted.
    pub total: Dim,
    /// Why it is so, or where the rule is from.
    pub source: &'static str,
}

/// Derives what `work` counted for its node; empty if it could not be counted.
#[must_use]
pub fn derive(graph: &Graph, work: &NodeWork) -> Vec<Derivation> {
    let node = &graph.nodes[work.node.0];
    let (Ok(cost), Ok(operands)) = (&work.cost, node_operands(graph, node)) else {
        return Vec::new();
    };
    let Cost { macs, other_ops, transcendental_ops, bytes_read, bytes_written } = cost;
    let (factors, source) = macs_factors(&node.op, &operands, macs);
    let mut derivations =
        vec![Derivation { quantity: "MACs", factors, total: macs.0.clone(), source }];
    // Only functions of each element are a product; other operators sum different steps.
    let each = if let Op::Elementwise(function) = &node.op {
        Some(function.operations_per_element())
    } else {
        matches!(node.op, Op::Softmax { .. }).then_some((3, 2))
    };
    let results = operands.output_elements().unwrap_or_default();
    let per_result = |count: &Count, each: Option<i64>, words| match each {
        Some(each) => vec![("results", results.clone()), (words, Dim::from(each))],
        None => vec![("sum over the operator's steps", count.0.clone())],
    };
    let convention = "one for each add, multiply or compare; exp, division, roots apart";
    let rest = [
        ("other ops", other_ops, per_result(other_ops, each.map(|e| e.0), "operations each")),
        (
            "transcendental ops",
            transcendental_ops,
            per_result(transcendental_ops, each.map(|e| e.1), "operations each"),
        ),
    ];
    for (quantity, count, factors) in rest {
        let total = count.0.clone();
        derivations.push(Derivation { quantity, factors, total, source: convention });
    }
    let traffic = "each tensor once, as if no cache kept anything between nodes";
    for (quantity, count, words) in
        [("bytes read", bytes_read, "operands"), ("bytes written", bytes_written, "results")]
    {
        let total = count.0.clone();
        let factors = vec![(words, total.clone())];
        derivations.push(Derivation { quantity, factors, total, source: traffic });
    }
    derivations.retain(|derivation| derivation.total != Dim::ZERO);
    derivations
}

fn macs_factors(
    op: &Op,
    operands: &Operands,
    macs: &Count,
) -> (Vec<(&'static str, Dim)>, &'static str) {
    let results = operands.output_elements().unwrap_or_default();
    if let Op::MatMul(op) = op
        && let Ok(inner) = matmul::inner_size(*op, operands)
    {
        let factors = vec![("results", results), ("inner size", inner)];
        return (factors, "each result sums as many products as the inner size");
    }
    if let (Op::GroupedMatMul { .. }, Ok(rows)) = (op, operands.input(0)) {
        let inner = rows.shape.0.last().cloned().unwrap_or_default();
        let factors = vec![("results", results), ("inner size", inner)];
        return (factors, "each row meets the matrix of its own group alone");
    }
    if let Op::Convolution(op) = op
        && let Ok(factors) = convolution::factors(op, operands)
    {
        let source = match (operands.positions, &op.direction) {
            (Positions::Valid, _) => "kernel elements that meet the input, not its padding",
            (Positions::All, Direction::Forward) => {
                "every output position times the whole kernel, padding included"
            }
            (Positions::All, Direction::Transposed { .. }) => {
                "every input position times the whole kernel"
            }
        };
        return (factors, source);
    }
    if let Op::Attention(op) = op
        && let Ok(factors) = attention::factors(op, operands)
    {
        return (factors.to_vec(), "QK^T takes d_qk per pair, PV takes d_v");
    }
    if let Op::IndexScores(op) = op
        && let Ok(factors) = attention::index_factors(op, operands)
    {
        return (factors.to_vec(), "query . key takes d per pair and head, the sum over heads 1");
    }
    if let Op::Recurrent(op) = op {
        return (recurrent::factors(op), "each gate multiplies the input and the state");
    }
    if let Op::Stated(_) = op {
        let whole = vec![("sum over the operator's steps", macs.0.clone())];
        return (whole, "from the operator's definition");
    }
    let whole = vec![("combinations of the labels", macs.0.clone())];
    (whole, "pairwise contraction from left to right")
}
