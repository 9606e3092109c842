//! Nodes put together by operator, kind, module, source line, or not at all.

use super::NodeRow;
use crate::cost::Counts;
use std::collections::HashMap;

/// What rows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// One row per operator name.
    Op,
    /// One row per kind of operator.
    Kind,
    /// One row per module.
    Module,
    /// One row per line of the model's source.
    Line,
    /// One row per node.
    Node,
}

impl Grouping {
    /// The heading of the first column.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Grouping::Op => "op",
            Grouping::Kind => "kind",
            Grouping::Module => "module",
            Grouping::Line => "line",
            Grouping::Node => "node",
        }
    }

    /// The group a node belongs to.
    #[must_use]
    pub fn key(self, node: &NodeRow) -> String {
        let missing = || "(not in the file)".to_owned();
        match self {
            Grouping::Op => node.op.clone(),
            Grouping::Kind => node.kind.name().to_owned(),
            Grouping::Module => node.module.clone().unwrap_or_else(missing),
            Grouping::Line => node.line.clone().unwrap_or_else(missing),
            Grouping::Node => node.name.clone(),
        }
    }
}

/// A group's counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The group.
    pub name: String,
    /// The operator of a single node; the number of nodes otherwise says enough.
    pub op: Option<String>,
    /// Nodes in it.
    pub n_nodes: usize,
    /// Their counts.
    pub counts: Counts,
}

/// Groups nodes; most MACs first, then most bytes, then the file's order.
#[must_use]
pub fn group(nodes: &[NodeRow], grouping: Grouping) -> Vec<Row> {
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut rows: Vec<Row> = Vec::new();
    for node in nodes {
        let Some(counts) = node.counts else { continue };
        let name = grouping.key(node);
        let row_idx = *place.entry(name.clone()).or_insert_with(|| {
            let op = (grouping == Grouping::Node).then(|| node.op.clone());
            rows.push(Row { name, op, n_nodes: 0, counts: Counts::default() });
            rows.len() - 1
        });
        rows[row_idx].n_nodes += 1;
        rows[row_idx].counts = rows[row_idx].counts + counts;
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.counts.macs, row.counts.bytes())));
    rows
}
