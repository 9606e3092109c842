//! The report of a training step: plain data, its text and its JSON.
//!
//! Not here: how the numbers come about (see [`crate::cost`]).

use super::json::SCHEMA;
use super::json::{SymbolJson, UnknownJson, symbol, unknown};
use super::text::{MAX_ROWS, Page, bindings, indented, percent, shortened, table};
use super::{Grouping, NodeRow, Unknown};
use crate::cost::{BoundTraining, StepCounts, Stored, TrainingCounts};
use crate::graph::Symbol;
use crate::note::Note;
use crate::units::{Flops, grouped};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What a training step of a model costs.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingReport {
    /// The model's name.
    pub model: String,
    /// Symbols of its shapes.
    pub symbols: Vec<Symbol>,
    /// Values the user gave.
    pub bindings: BTreeMap<String, i128>,
    /// Values assumed because the user gave none.
    pub assumed: BTreeMap<String, i128>,
    /// Totals in symbols.
    pub formula: TrainingFormula,
    /// Parameters and their bytes.
    pub stored: Option<Stored>,
    /// Totals in numbers; `None` while a symbol has no value.
    pub counted: Option<TrainingCounted>,
    /// Whether something could not be counted, so that every total is a lower bound.
    pub is_lower_bound: bool,
    /// What could not be counted, forward or backward.
    pub unknown: Vec<Unknown>,
    /// What is recomputed, as typed.
    pub recompute: String,
    /// Names of the blocks that are.
    pub recomputed_blocks: Vec<String>,
    /// The optimiser's name.
    pub optimizer: String,
    /// Paths of the layers that got adapters.
    pub adapted: Vec<String>,
    /// How the rows are grouped.
    pub grouping: Grouping,
    /// Every node, in order.
    pub nodes: Vec<TrainingNode>,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

/// Totals in symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingFormula {
    /// Forward pass and gradients.
    pub model_flops: String,
    /// What kernels execute.
    pub hardware_flops: String,
    /// Kept for the backward pass.
    pub saved_bytes: String,
}

/// Totals in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingCounted {
    /// Forward and backward pass.
    pub bound: BoundTraining,
    /// The optimiser's step.
    pub step: StepCounts,
    /// The rows asked for, most model FLOPs first.
    pub rows: Vec<TrainingRow>,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingNode {
    /// What it is; its own counts are empty.
    pub row: NodeRow,
    /// Its counts; `None` while a symbol is unbound or when it could not be counted.
    pub counts: Option<TrainingCounts>,
}

/// A group's counts.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingRow {
    /// The group.
    pub name: String,
    /// Nodes in it.
    pub n_nodes: usize,
    /// Their counts.
    pub counts: TrainingCounts,
}

/// Groups nodes; most model FLOPs first, then most bytes kept, then the file's order.
#[must_use]
pub fn group_training(nodes: &[TrainingNode], grouping: Grouping) -> Vec<TrainingRow> {
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut rows: Vec<TrainingRow> = Vec::new();
    for node in nodes {
        let Some(counts) = node.counts else { continue };
        let name = grouping.key(&node.row);
        let row_idx = *place.entry(name.clone()).or_insert_with(|| {
            rows.push(TrainingRow { name, n_nodes: 0, counts: TrainingCounts::default() });
            rows.len() - 1
        });
        rows[row_idx].n_nodes += 1;
        rows[row_idx].counts = rows[row_idx].counts + counts;
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.counts.model_flops(), row.counts.saved_bytes)));
    rows
}

impl Page {
    pub(super) fn training(&mut self, report: &TrainingReport) {
        let at = bindings(&report.bindings, &report.assumed);
        self.heading(&format!("Training step of {}{at}", report.model));
        let least = if report.is_lower_bound { "at least " } else { "" };
        if let Some(stored) = &report.stored {
            let weights = stored.weight_bytes.to_string();
            self.fact("parameters", &grouped(stored.parameters), &weights);
        }
        match &report.counted {
            Some(counted) => {
                self.training_totals(report, counted, least);
                self.step(report, counted);
            }
            None => self.line("  give every symbol a value with --bind for numbers"),
        }
        if !report.symbols.is_empty() {
            self.line(&format!("  model FLOPs = {least}{}", report.formula.model_flops));
        }
        self.unknown(&report.unknown);
        if let Some(counted) = &report.counted {
            self.training_rows(counted, report.grouping);
        }
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }

    fn training_totals(&mut self, report: &TrainingReport, counted: &TrainingCounted, least: &str) {
        let (bound, total) = (&counted.bound, &counted.bound.total);
        let exact = |count: u128| format!("{least}{}", grouped(count));
        let trained = match report.adapted.len() {
            0 => bound.trained_bytes.to_string(),
            n_layers => format!("{}, adapters on {n_layers} layers", bound.trained_bytes),
        };
        self.fact("trained", &grouped(bound.trained_parameters), &trained);
        let forward = total.forward.macs;
        self.fact("forward MACs", &exact(forward.0), &forward.to_string());
        let words = |macs: u128| match forward.0 {
            0 => String::new(),
            forward => format!("{:.3} x forward", macs as f64 / forward as f64),
        };
        self.fact("dgrad MACs", &exact(total.dgrad_macs.0), &words(total.dgrad_macs.0));
        self.fact("wgrad MACs", &exact(total.wgrad_macs.0), &words(total.wgrad_macs.0));
        let model = total.model_flops();
        self.fact("model FLOPs", &exact(model.0), &format!("{model}, 2 per MAC of all three"));
        let hardware = total.hardware_flops();
        let again = Flops(hardware.0 - model.0);
        self.fact("hardware FLOPs", &exact(hardware.0), &format!("{hardware}, {again} again"));
        if report.recompute != "none" {
            let n_blocks = report.recomputed_blocks.len();
            let recomputed = total.recomputed.macs.to_flops();
            let remark = format!("FLOP, {n_blocks} blocks once more ({})", report.recompute);
            self.fact("  of it recomputed", &grouped(recomputed.0), &remark);
        }
        self.fact("other ops", &exact(total.other_ops().0), "forward, backward, recomputed");
        let transcendental = exact(total.transcendental_ops().0);
        self.fact("transcendental ops", &transcendental, "exp, division, root, erf ...");
        let moved = total.bytes();
        let remark = format!("{moved}, no reuse between nodes");
        self.fact("bytes moved", &format!("{} B", exact(moved.0)), &remark);
        let saved = total.saved_bytes;
        let remark = format!("{saved}, each buffer once, parameters not");
        self.fact("saved for backward", &format!("{} B", exact(saved.0)), &remark);
        if bound.refilled_bytes.0 != 0 {
            let refilled = bound.refilled_bytes;
            let remark = format!("{refilled}, filled by the largest block recomputed");
            self.fact("  and at a time", &format!("{} B", grouped(refilled.0)), &remark);
        }
    }

    fn step(&mut self, report: &TrainingReport, counted: &TrainingCounted) {
        let step = &counted.step;
        self.heading(&format!("Optimiser step: {}", report.optimizer));
        let gradients = format!("{} B", grouped(step.gradient_bytes.0));
        self.fact("gradients", &gradients, &step.gradient_bytes.to_string());
        let state = format!("{} B", grouped(step.state_bytes.0));
        self.fact("state", &state, &step.state_bytes.to_string());
        if step.macs.0 != 0 {
            let flops = step.macs.to_flops();
            self.fact("matrix FLOPs", &grouped(flops.0), &format!("{flops}, no model FLOPs"));
        }
        self.fact("other ops", &grouped(step.other_ops.0), "add, multiply, compare");
        self.fact("transcendental ops", &grouped(step.transcendental_ops.0), "roots, divisions");
        let moved = step.bytes_read + step.bytes_written;
        self.fact("bytes moved", &format!("{} B", grouped(moved.0)), &moved.to_string());
    }

    fn training_rows(&mut self, counted: &TrainingCounted, grouping: Grouping) {
        self.heading(&format!("By {}", grouping.heading()));
        let shown = match grouping {
            Grouping::Node => counted.rows.len(),
            Grouping::Op | Grouping::Kind | Grouping::Module | Grouping::Line => MAX_ROWS,
        };
        let heads = [
            grouping.heading(),
            "nodes",
            "forward MACs",
            "dgrad MACs",
            "wgrad MACs",
            "share",
            "hardware FLOPs",
            "saved",
        ];
        let mut table = table(&heads);
        let all = counted.bound.total.model_flops().0;
        for row in counted.rows.iter().take(shown) {
            let counts = &row.counts;
            let share = if all == 0 { 0.0 } else { counts.model_flops().0 as f64 / all as f64 };
            table.add_row(vec![
                shortened(&row.name),
                row.n_nodes.to_string(),
                grouped(counts.forward.macs.0),
                grouped(counts.dgrad_macs.0),
                grouped(counts.wgrad_macs.0),
                percent(share),
                grouped(counts.hardware_flops().0),
                counts.saved_bytes.to_string(),
            ]);
        }
        self.out.push_str(&indented(&table));
        if let Some(rest) = counted.rows.get(shown..).filter(|rest| !rest.is_empty()) {
            self.line(&format!("  ... and {} more (--json has all)", rest.len()));
        }
    }
}

#[derive(Serialize)]
pub(super) struct TrainingJson<'a> {
    schema: u32,
    kind: &'static str,
    mode: &'static str,
    model: &'a str,
    bindings: BTreeMap<&'a str, i128>,
    assumed: Vec<&'a str>,
    symbols: Vec<SymbolJson<'a>>,
    totals: TotalsJson,
    formula: BTreeMap<&'static str, &'a str>,
    recompute: &'a str,
    recomputed_blocks: &'a [String],
    adapted: &'a [String],
    optimizer: StepJson<'a>,
    lower_bound: bool,
    unknown: Vec<UnknownJson<'a>>,
    by: &'static str,
    rows: Vec<RowJson<'a>>,
    nodes: Vec<NodeJson<'a>>,
    notes: Vec<&'a str>,
}

/// `None` (null) while a symbol has no value.
#[derive(Serialize, Default)]
struct TotalsJson {
    #[serde(flatten)]
    counts: CountsJson,
    parameters: Option<u128>,
    weight_bytes: Option<u128>,
    trained_parameters: Option<u128>,
    trained_bytes: Option<u128>,
    unreached_parameters: Option<u128>,
    refilled_bytes: Option<u128>,
}

#[derive(Serialize, Default)]
struct CountsJson {
    macs: Option<u128>,
    forward_macs: Option<u128>,
    dgrad_macs: Option<u128>,
    wgrad_macs: Option<u128>,
    model_flops: Option<u128>,
    hardware_flops: Option<u128>,
    recomputed_flops: Option<u128>,
    other_ops: Option<u128>,
    transcendental_ops: Option<u128>,
    bytes_read: Option<u128>,
    bytes_written: Option<u128>,
    saved_bytes: Option<u128>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    name: &'a str,
    macs: Option<u128>,
    other_ops: Option<u128>,
    transcendental_ops: Option<u128>,
    bytes_read: Option<u128>,
    bytes_written: Option<u128>,
    state_bytes: Option<u128>,
    gradient_bytes: Option<u128>,
}

#[derive(Serialize)]
struct RowJson<'a> {
    name: &'a str,
    nodes: usize,
    #[serde(flatten)]
    counts: CountsJson,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    name: &'a str,
    op: &'a str,
    operator: &'a str,
    kind: &'a str,
    module: Option<&'a str>,
    line: Option<&'a str>,
    output: Option<String>,
    #[serde(flatten)]
    counts: CountsJson,
}

/// The JSON of a report.
pub(super) fn wire(report: &TrainingReport) -> TrainingJson<'_> {
    let given = report.bindings.iter().chain(&report.assumed);
    let formula = &report.formula;
    TrainingJson {
        schema: SCHEMA,
        kind: "count",
        mode: "train",
        model: &report.model,
        bindings: given.map(|(name, value)| (name.as_str(), *value)).collect(),
        assumed: report.assumed.keys().map(String::as_str).collect(),
        symbols: report.symbols.iter().map(symbol).collect(),
        totals: totals(report),
        formula: BTreeMap::from([
            ("model_flops", formula.model_flops.as_str()),
            ("hardware_flops", formula.hardware_flops.as_str()),
            ("saved_bytes", formula.saved_bytes.as_str()),
        ]),
        recompute: &report.recompute,
        recomputed_blocks: &report.recomputed_blocks,
        adapted: &report.adapted,
        optimizer: step(report),
        lower_bound: report.is_lower_bound,
        unknown: report.unknown.iter().map(unknown).collect(),
        by: report.grouping.heading(),
        rows: report.counted.iter().flat_map(|counted| &counted.rows).map(row).collect(),
        nodes: report.nodes.iter().map(node).collect(),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

fn totals(report: &TrainingReport) -> TotalsJson {
    let stored = TotalsJson {
        parameters: report.stored.map(|stored| stored.parameters),
        weight_bytes: report.stored.map(|stored| stored.weight_bytes.0),
        ..TotalsJson::default()
    };
    let Some(counted) = &report.counted else { return stored };
    let bound = &counted.bound;
    TotalsJson {
        counts: counts(Some(&bound.total)),
        trained_parameters: Some(bound.trained_parameters),
        trained_bytes: Some(bound.trained_bytes.0),
        unreached_parameters: Some(bound.unreached_parameters),
        refilled_bytes: Some(bound.refilled_bytes.0),
        ..stored
    }
}

fn step(report: &TrainingReport) -> StepJson<'_> {
    let step = report.counted.as_ref().map(|counted| &counted.step);
    StepJson {
        name: &report.optimizer,
        macs: step.map(|step| step.macs.0),
        other_ops: step.map(|step| step.other_ops.0),
        transcendental_ops: step.map(|step| step.transcendental_ops.0),
        bytes_read: step.map(|step| step.bytes_read.0),
        bytes_written: step.map(|step| step.bytes_written.0),
        state_bytes: step.map(|step| step.state_bytes.0),
        gradient_bytes: step.map(|step| step.gradient_bytes.0),
    }
}

fn counts(counts: Option<&TrainingCounts>) -> CountsJson {
    let Some(counts) = counts else { return CountsJson::default() };
    let parts = [&counts.forward, &counts.backward, &counts.recomputed];
    CountsJson {
        macs: Some((counts.forward.macs + counts.dgrad_macs + counts.wgrad_macs).0),
        forward_macs: Some(counts.forward.macs.0),
        dgrad_macs: Some(counts.dgrad_macs.0),
        wgrad_macs: Some(counts.wgrad_macs.0),
        model_flops: Some(counts.model_flops().0),
        hardware_flops: Some(counts.hardware_flops().0),
        recomputed_flops: Some(counts.recomputed.macs.to_flops().0),
        other_ops: Some(counts.other_ops().0),
        transcendental_ops: Some(counts.transcendental_ops().0),
        bytes_read: Some(parts.iter().map(|part| part.bytes_read.0).sum()),
        bytes_written: Some(parts.iter().map(|part| part.bytes_written.0).sum()),
        saved_bytes: Some(counts.saved_bytes.0),
    }
}

fn row(row: &TrainingRow) -> RowJson<'_> {
    RowJson { name: &row.name, nodes: row.n_nodes, counts: counts(Some(&row.counts)) }
}

fn node(node: &TrainingNode) -> NodeJson<'_> {
    let row = &node.row;
    NodeJson {
        name: &row.name,
        op: &row.op,
        operator: &row.operator,
        kind: row.kind.name(),
        module: row.module.as_deref(),
        line: row.line.as_deref(),
        output: row.output.as_ref().map(ToString::to_string),
        counts: counts(node.counts.as_ref()),
    }
}
