//! A tool's [`Tally`] beside the graph's own count: totals, working, and the difference by reasons.

use super::{Convention, Tally, Term, TermRole, tally};
use crate::cost::Work;
use crate::graph::{Bindings, Dim, Graph};
use std::collections::HashMap;

/// What a tool counts, what is counted here, and why they differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Which tool.
    pub convention: Convention,
    /// The tool's own total, in its own unit.
    pub total: Dim,
    /// The count here, in the same unit.
    pub ours: Dim,
    /// What the total is the sum of.
    pub groups: Vec<Group>,
    /// What the difference is the sum of: the lines add up to `total - ours`.
    pub lines: Vec<Line>,
    /// Other figures of the same tool.
    pub also: Vec<(String, Dim)>,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// A part of a tool's total.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What the tool calls it.
    pub what: String,
    /// Its rule in words.
    pub rule: &'static str,
    /// Its sum.
    pub total: Dim,
    /// Nodes counted so.
    pub nodes: usize,
}

/// A part of the difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Why.
    pub reason: String,
    /// By how much the tool counts more.
    pub amount: Dim,
    /// Nodes that it concerns; 0 for the model as a whole.
    pub nodes: usize,
}

/// Counts a graph as `convention` does. `training` is the multiply-accumulates of each node's
/// forward and backward pass, for conventions that count training; without it the backward pass
/// is taken as twice the forward one.
///
/// # Errors
/// Why there is no such figure for this model.
pub fn figure(
    convention: Convention,
    graph: &Graph,
    work: &Work,
    training: Option<&[Dim]>,
    bindings: &Bindings,
) -> Result<Figure, String> {
    let tally = tally(convention, graph, bindings)?;
    let factor = match (training, convention.unit()) {
        (Some(_), super::Unit::TrainingFlop) => Dim::from(2),
        (_, unit) => Dim::from(unit.per_mac()),
    };
    let forward = || work.nodes.iter().map(|node| node.cost.as_ref().map(|cost| &cost.macs.0));
    let macs: Vec<Option<Dim>> = match (training, convention.unit()) {
        (Some(training), super::Unit::TrainingFlop) => training.iter().cloned().map(Some).collect(),
        _ => forward().map(|macs| macs.ok().cloned()).collect(),
    };
    let ours: Vec<Option<Dim>> =
        macs.into_iter().map(|macs| macs.map(|macs| &macs * &factor)).collect();
    let mut remarks = tally.remarks.clone();
    let n_unknown = ours.iter().filter(|ours| ours.is_none()).count();
    if 0 < n_unknown {
        remarks.push(format!("{n_unknown} nodes could not be counted here; they stand as 0"));
    }
    if training.is_none() && convention.unit() == super::Unit::TrainingFlop {
        remarks.push("the backward pass here is taken as twice the forward pass".to_owned());
    }
    let ours: Vec<Dim> = ours.into_iter().map(Option::unwrap_or_default).collect();
    Ok(Figure {
        convention,
        total: tally.total(graph),
        ours: ours.iter().cloned().sum(),
        groups: groups(graph, &tally),
        lines: lines(graph, &tally, &ours),
        also: tally.also,
        remarks,
    })
}

fn times(graph: &Graph, node: Option<usize>, term: &Term) -> Dim {
    match node {
        Some(index) => &term.amount * &graph.nodes[index].repeat,
        None => term.amount.clone(),
    }
}

fn groups(graph: &Graph, tally: &Tally) -> Vec<Group> {
    let mut place: HashMap<(&str, &str), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (node, term) in &tally.terms {
        let at = *place.entry((term.what.as_ref(), term.rule)).or_insert_with(|| {
            let what = term.what.to_string();
            groups.push(Group { what, rule: term.rule, total: Dim::ZERO, nodes: 0 });
            groups.len() - 1
        });
        groups[at].total = &groups[at].total + &times(graph, *node, term);
        groups[at].nodes += usize::from(node.is_some());
    }
    groups.retain(|group| group.total != Dim::ZERO);
    groups
}

/// Sums of equal reasons, in the order of first appearance.
#[derive(Default)]
struct Lines {
    place: HashMap<String, usize>,
    lines: Vec<Line>,
}

impl Lines {
    fn add(&mut self, reason: String, amount: &Dim, nodes: usize) {
        if *amount == Dim::ZERO {
            return;
        }
        let at = *self.place.entry(reason.clone()).or_insert_with(|| {
            self.lines.push(Line { reason, amount: Dim::ZERO, nodes: 0 });
            self.lines.len() - 1
        });
        self.lines[at].amount = &self.lines[at].amount + amount;
        self.lines[at].nodes += nodes;
    }
}

/// Each node's terms for its products against its own count, and every other term by itself.
fn lines(graph: &Graph, tally: &Tally, ours: &[Dim]) -> Vec<Line> {
    let mut lines = Lines::default();
    let mut products: Vec<Option<(Dim, &Term)>> = vec![None; ours.len()];
    for (node, term) in &tally.terms {
        let amount = times(graph, *node, term);
        match (term.role, node) {
            (TermRole::Products, Some(index)) => {
                let before = products[*index].take().map_or(Dim::ZERO, |(sum, _)| sum);
                products[*index] = Some((&before + &amount, term));
            }
            (TermRole::Products | TermRole::Beside, _) => {
                let reason = format!("{}: {}", term.what, term.rule);
                lines.add(reason, &amount, usize::from(node.is_some()));
            }
        }
    }
    let misses: HashMap<usize, &str> = tally.misses.iter().copied().collect();
    for (index, ours) in ours.iter().enumerate() {
        let label = label(&graph.nodes[index].operator);
        match &products[index] {
            Some((counted, term)) => {
                let reason = format!("{}: {}", term.what, term.rule);
                lines.add(reason, &(counted - ours), 1);
            }
            None => {
                let why = misses.get(&index).copied().unwrap_or("not among what it counts");
                lines.add(format!("{label} not counted: {why}"), &-ours, 1);
            }
        }
    }
    lines.lines.retain(|line| line.amount != Dim::ZERO);
    lines.lines
}

/// `aten.linear.default` -> `linear`.
fn label(operator: &str) -> &str {
    let base = operator.strip_prefix("aten.").unwrap_or(operator);
    base.split('.').next().unwrap_or(base)
}
