//! What other tools print for a model, in numbers, and what the difference is made of.
//!
//! Not here: the tools' rules (see [`crate::cost::convention`]).

use super::{Opened, Working, assumed_bindings, notes};
use crate::cost::convention::{self, Convention, Figure, Unit};
use crate::cost::{self, Recompute, TrainSetup, Work};
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph};
use crate::report::{
    ConventionFigure, ConventionGroup, ConventionLine, ConventionReport, ConventionRow,
};

/// Which conventions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conventions {
    /// One, with every line of the difference.
    One(Convention),
    /// All, one row each.
    All,
}

impl Conventions {
    /// The tool's count of a training step, where it has one of its own.
    #[must_use]
    pub fn of_training(self) -> Conventions {
        match self == Conventions::One(Convention::FlopCounter) {
            true => Conventions::One(Convention::FlopCounterTraining),
            false => self,
        }
    }
}

/// Answers for a graph.
pub(super) fn compare(
    opened: &Opened,
    conventions: Conventions,
    working: Working,
) -> Result<ConventionReport, Error> {
    let Opened { graph, bindings: given, .. } = opened;
    let assumed = assumed_bindings(graph, given);
    let mut bindings = given.clone();
    bindings.0.extend(assumed.clone());
    let work = cost::work(graph);
    let wanted = match conventions {
        Conventions::One(convention) => vec![convention],
        Conventions::All => Convention::ALL.to_vec(),
    };
    let trains = |convention: &Convention| convention.unit() == Unit::TrainingFlop;
    let training = match wanted.iter().any(trains) {
        true => Some(training_macs(graph)?),
        false => None,
    };
    let training = training.as_deref();
    let rows =
        wanted.into_iter().map(|convention| row(convention, graph, &work, training, &bindings));
    Ok(ConventionReport {
        model: graph.name.clone(),
        bindings: given.0.clone(),
        assumed,
        is_one: matches!(conventions, Conventions::One(_)),
        is_explained: working == Working::Shown,
        rows: rows.collect(),
        notes: notes(graph),
    })
}

/// MACs of each node in forward and backward pass, all parameters trained.
fn training_macs(graph: &Graph) -> Result<Vec<Dim>, Error> {
    let setup = TrainSetup {
        is_trained: cost::select(graph, None, None)?,
        seeds: cost::seeds(graph, &[])?,
        recompute: Recompute::Nothing,
    };
    let training = cost::training(graph, &setup);
    let forward = training.forward.nodes.iter().zip(&training.nodes);
    let macs = forward.map(|(forward, node)| {
        let forward = forward.cost.as_ref().map_or(Dim::ZERO, |cost| cost.macs.0.clone());
        &(&forward + &node.dgrad_macs) + &node.wgrad_macs
    });
    Ok(macs.collect())
}

fn row(
    convention: Convention,
    graph: &Graph,
    work: &Work,
    training: Option<&[Dim]>,
    bindings: &Bindings,
) -> ConventionRow {
    let figure = convention::figure(convention, graph, work, training, bindings);
    ConventionRow { convention, figure: figure.and_then(|figure| numbers(figure, bindings)) }
}

/// The figure with values put in.
fn numbers(figure: Figure, bindings: &Bindings) -> Result<ConventionFigure, String> {
    let value = |dim: &Dim| {
        bindings.evaluate(dim).map_err(|error| format!("{error} (--bind gives sizes values)"))
    };
    let mut lines = Vec::new();
    for line in figure.lines {
        let amount = value(&line.amount)?;
        if amount != 0 {
            lines.push(ConventionLine { reason: line.reason, amount, nodes: line.nodes });
        }
    }
    // Stable, so that lines of equal size stand in the order of the graph.
    lines.sort_by_key(|line| std::cmp::Reverse(line.amount.unsigned_abs()));
    let mut groups = Vec::new();
    for group in figure.groups {
        let formula = group.total.to_string();
        let value = value(&group.total)?;
        let (what, rule, nodes) = (group.what, group.rule, group.nodes);
        groups.push(ConventionGroup { what, rule, formula, value, nodes });
    }
    let also = figure.also.iter().map(|(name, dim)| Ok((name.clone(), value(dim)?)));
    Ok(ConventionFigure {
        total: value(&figure.total)?,
        formula: figure.total.to_string(),
        ours: value(&figure.ours)?,
        lines,
        groups,
        also: also.collect::<Result<_, String>>()?,
        remarks: figure.remarks,
    })
}
