//! One count at many values of a symbol.

use super::{CountQuery, assumed_bindings, formula, name_model, notes, opened};
use crate::cost;
use crate::error::Error;
use crate::graph::Bindings;
use crate::report::{Report, SweepReport, SweepRow};

/// What a model costs as one of its symbols grows.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepQuery {
    /// The model; the symbol swept is not bound.
    pub count: CountQuery,
    /// The symbol, by its name in the graph or in the file.
    pub symbol: String,
    /// Its values.
    pub values: Vec<i128>,
}

/// Counts at every value.
pub(super) fn sweep(query: &SweepQuery) -> Result<Report, Error> {
    run(query).map_err(|error| name_model(error, &query.count))
}

fn run(query: &SweepQuery) -> Result<Report, Error> {
    let mut rows = Vec::with_capacity(query.values.len());
    let opened = opened(&query.count)?;
    let graph = &opened.graph;
    let work = cost::work(graph);
    let mut assumed = assumed_bindings(graph, &opened.bindings);
    let mut swept = query.symbol.clone();
    for value in &query.values {
        // Each value is checked against the file's range and constraints like a typed one.
        let mut typed: Vec<(String, i128)> =
            query.count.bindings.iter().map(|(name, value)| (name.clone(), *value)).collect();
        typed.push((query.symbol.clone(), *value));
        let mut bindings = Bindings::resolve(graph, &typed)?;
        let added = bindings.0.keys().find(|name| !opened.bindings.0.contains_key(*name));
        swept = added.cloned().unwrap_or(swept);
        bindings.0.extend(opened.bindings.0.clone());
        assumed.remove(&swept);
        bindings.0.extend(assumed_bindings(graph, &bindings));
        rows.push(SweepRow {
            value: *value,
            counts: work.bind(graph, &bindings)?.total,
            peak_activation_bytes: cost::memory(graph, &bindings)?.peak_activation_bytes,
        });
    }
    let given = &opened.bindings;
    Ok(Report::Sweep(Box::new(SweepReport {
        model: graph.name.clone(),
        symbol: swept,
        bindings: given.0.clone(),
        assumed,
        formula: formula(&opened, &work),
        is_lower_bound: work.unknown().next().is_some(),
        rows,
        notes: notes(graph),
    })))
}
