//! Reports as JSON: one object with `"schema": 1`. The fields are described in docs/json.md; they
//! are added to, never changed, under one schema number. Counts are integers written in full.

use super::{CountReport, EstimateReport, Explanation, ModuleRow, NodeRow, Report, Row};
use crate::cost::Counts;
use crate::graph::TensorType;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of every JSON answer but a machine profile's, which has [its own](crate::machine::SCHEMA).
pub(super) const SCHEMA: u32 = 1;

/// Prints a report as one JSON object, ending with a newline.
///
/// # Panics
/// Never: every field has a JSON form.
#[must_use]
pub fn json(report: &Report) -> String {
    let written = match report {
        Report::Count(report) => serde_json::to_string(&count(report)),
        Report::Versus(report) => serde_json::to_string(&super::versus::wire(report)),
        Report::Sweep(report) => serde_json::to_string(&super::sweep::wire(report)),
        Report::Measure(profile) => serde_json::to_string_pretty(&measured(profile)),
        Report::Estimate(report) => serde_json::to_string(&estimate("estimate", report)),
        Report::Page(report) => serde_json::to_string(&estimate("report", report)),
        Report::Explanation(explained) => serde_json::to_string(&explanation(explained)),
        Report::Convention(report) => serde_json::to_string(&super::convention::wire(report)),
        Report::Models(report) => serde_json::to_string(&super::models::list_wire(report)),
        Report::Model(model) => serde_json::to_string(&super::models::wire(model)),
        Report::Audit(report) => serde_json::to_string(&super::audit::wire(report)),
        Report::Number(report) => serde_json::to_string(&super::number::wire(report)),
        Report::Matmul(report) => serde_json::to_string(&super::matmul::wire(report)),
        Report::Formats(report) => serde_json::to_string(&super::formats::wire(report)),
        Report::Training(report) => serde_json::to_string(&super::training::wire(report)),
        Report::Figures(report) => serde_json::to_string(&super::figures::wire(report)),
        Report::Tensors(report) => serde_json::to_string(&super::tensors::wire(report)),
    };
    let mut text = written.expect("every field has a JSON form");
    text.push('\n');
    text
}

#[derive(Serialize)]
pub(super) struct CountJson<'a> {
    schema: u32,
    kind: &'static str,
    model: &'a str,
    bindings: BTreeMap<&'a str, i128>,
    assumed: Vec<&'a str>,
    inputs: Vec<TensorJson<'a>>,
    outputs: Vec<TensorJson<'a>>,
    symbols: Vec<SymbolJson<'a>>,
    totals: TotalsJson,
    active: Option<super::ActiveReport>,
    state: Option<&'a super::StateReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<&'a super::MemoryTable>,
    formula: BTreeMap<&'static str, &'a str>,
    lower_bound: bool,
    unknown: Vec<UnknownJson<'a>>,
    by: &'static str,
    rows: Vec<RowJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    modules: Vec<ModuleJson<'a>>,
    nodes: Vec<NodeJson<'a>>,
    notes: Vec<&'a str>,
}

/// `None` (null) while the type is not known.
#[derive(Serialize)]
struct TensorJson<'a> {
    name: &'a str,
    shape: Option<Vec<String>>,
    format: Option<String>,
}

#[derive(Serialize)]
pub(super) struct SymbolJson<'a> {
    name: &'a str,
    aliases: &'a [String],
    min: i128,
    max: Option<i128>,
    place: &'a str,
}

/// `None` (null) while a symbol has no value.
#[derive(Serialize, Default)]
struct TotalsJson {
    macs: Option<u128>,
    model_flops: Option<u128>,
    hardware_flops: Option<u128>,
    other_ops: Option<u128>,
    transcendental_ops: Option<u128>,
    parameters: Option<u128>,
    weight_bytes: Option<u128>,
    buffer_bytes: Option<u128>,
    activation_bytes: Option<u128>,
    bytes_read: Option<u128>,
    bytes_written: Option<u128>,
}

#[derive(Serialize)]
pub(super) struct UnknownJson<'a> {
    op: &'a str,
    node: &'a str,
    module: Option<&'a str>,
    count: usize,
    reason: &'a str,
}

#[derive(Serialize)]
struct RowJson<'a> {
    name: &'a str,
    nodes: usize,
    #[serde(flatten)]
    counts: CountsJson,
}

/// A module with all beneath it.
#[derive(Serialize)]
struct ModuleJson<'a> {
    path: &'a str,
    class: Option<&'a str>,
    depth: usize,
    nodes: usize,
    #[serde(flatten)]
    counts: CountsJson,
}

fn module(row: &ModuleRow) -> ModuleJson<'_> {
    ModuleJson {
        path: &row.path,
        class: row.class.as_deref(),
        depth: row.depth,
        nodes: row.n_nodes,
        counts: counts(Some(&row.counts)),
    }
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

#[derive(Serialize, Default)]
pub(super) struct CountsJson {
    macs: Option<u128>,
    model_flops: Option<u128>,
    other_ops: Option<u128>,
    transcendental_ops: Option<u128>,
    bytes_read: Option<u128>,
    bytes_written: Option<u128>,
    parameters: Option<u128>,
}

pub(super) fn counts(counts: Option<&Counts>) -> CountsJson {
    let Some(counts) = counts else { return CountsJson::default() };
    CountsJson {
        macs: Some(counts.macs.0),
        model_flops: Some(counts.model_flops().0),
        other_ops: Some(counts.other_ops.0),
        transcendental_ops: Some(counts.transcendental_ops.0),
        bytes_read: Some(counts.bytes_read.0),
        bytes_written: Some(counts.bytes_written.0),
        parameters: Some(counts.parameters),
    }
}

pub(super) fn count(report: &CountReport) -> CountJson<'_> {
    let given = report.bindings.iter().chain(&report.assumed);
    CountJson {
        schema: SCHEMA,
        kind: "count",
        model: &report.model,
        bindings: given.map(|(name, value)| (name.as_str(), *value)).collect(),
        assumed: report.assumed.keys().map(String::as_str).collect(),
        inputs: report.inputs.iter().map(tensor).collect(),
        outputs: report.outputs.iter().map(tensor).collect(),
        symbols: report.symbols.iter().map(symbol).collect(),
        totals: totals(report),
        active: report.active,
        state: report.state.as_ref(),
        memory: report.memory.as_ref(),
        formula: formula(&report.formula),
        lower_bound: report.is_lower_bound,
        unknown: report.unknown.iter().map(unknown).collect(),
        by: report.grouping.heading(),
        rows: report.counted.iter().flat_map(|counted| &counted.rows).map(row).collect(),
        modules: report.modules.iter().map(module).collect(),
        nodes: report.nodes.iter().map(node).collect(),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

pub(super) fn formula(formula: &super::Formula) -> BTreeMap<&'static str, &str> {
    BTreeMap::from([
        ("macs", formula.macs.as_str()),
        ("other_ops", formula.other_ops.as_str()),
        ("transcendental_ops", formula.transcendental_ops.as_str()),
        ("bytes_read", formula.bytes_read.as_str()),
        ("bytes_written", formula.bytes_written.as_str()),
    ])
}

fn tensor((name, known): &(String, Option<TensorType>)) -> TensorJson<'_> {
    let shape = known.as_ref().map(|known| known.shape.0.iter().map(ToString::to_string).collect());
    TensorJson { name, shape, format: known.as_ref().map(|known| known.format.to_string()) }
}

pub(super) fn symbol(symbol: &crate::graph::Symbol) -> SymbolJson<'_> {
    SymbolJson {
        name: &symbol.name,
        aliases: &symbol.aliases,
        min: symbol.min,
        max: symbol.max,
        place: &symbol.place,
    }
}

pub(super) fn unknown(unknown: &super::Unknown) -> UnknownJson<'_> {
    UnknownJson {
        op: &unknown.operator,
        node: &unknown.node,
        module: unknown.module.as_deref(),
        count: unknown.count,
        reason: &unknown.reason,
    }
}

fn row(row: &Row) -> RowJson<'_> {
    RowJson { name: &row.name, nodes: row.n_nodes, counts: counts(Some(&row.counts)) }
}

fn node(node: &NodeRow) -> NodeJson<'_> {
    NodeJson {
        name: &node.name,
        op: &node.op,
        operator: &node.operator,
        kind: node.kind.name(),
        module: node.module.as_deref(),
        line: node.line.as_deref(),
        output: node.output.as_ref().map(ToString::to_string),
        counts: counts(node.counts.as_ref()),
    }
}

fn totals(report: &CountReport) -> TotalsJson {
    let stored = TotalsJson {
        parameters: report.stored.map(|stored| stored.parameters),
        weight_bytes: report.stored.map(|stored| stored.weight_bytes.0),
        buffer_bytes: report.stored.map(|stored| stored.buffer_bytes.0),
        ..TotalsJson::default()
    };
    let Some(counted) = &report.counted else { return stored };
    let total = &counted.total;
    TotalsJson {
        macs: Some(total.macs.0),
        model_flops: Some(total.model_flops().0),
        hardware_flops: Some(total.hardware_flops().0),
        other_ops: Some(total.other_ops.0),
        transcendental_ops: Some(total.transcendental_ops.0),
        activation_bytes: Some(counted.peak_activation_bytes.0),
        bytes_read: Some(total.bytes_read.0),
        bytes_written: Some(total.bytes_written.0),
        ..stored
    }
}

/// A profile, and what follows from it: readers of profiles pass over the rest.
#[derive(Serialize)]
struct MeasureJson<'a> {
    #[serde(flatten)]
    profile: &'a crate::machine::Profile,
    roofline: super::Roofline,
}

fn measured(profile: &crate::machine::Profile) -> MeasureJson<'_> {
    MeasureJson { profile, roofline: super::roofline(profile) }
}

#[derive(Serialize)]
struct EstimateJson<'a> {
    schema: u32,
    kind: &'static str,
    count: CountJson<'a>,
    profile: &'a crate::machine::Profile,
    estimate: AnswerJson<'a>,
    costliest: Vec<CostlyJson<'a>>,
    roofline: super::Roofline,
    points: Vec<PointJson<'a>>,
}

/// A node on the roofline.
#[derive(Serialize)]
struct PointJson<'a> {
    name: &'a str,
    kind: &'static str,
    ops_per_byte: f64,
    ops_per_s: f64,
    time_s: f64,
    bound: &'static str,
    utilisation: Option<f64>,
}

#[derive(Serialize)]
struct AnswerJson<'a> {
    machine: &'a str,
    batch: i128,
    time_s: f64,
    passes_per_s: f64,
    samples_per_s: f64,
    achieved_flops_per_s: f64,
    share_of_peak: f64,
    intensity_flops_per_byte: f64,
    ridge_point_flops_per_byte: f64,
    bound: &'static str,
    time_by_bound_s: BTreeMap<&'static str, f64>,
    rates: RatesJson,
    utilisation: Option<UtilisationJson<'a>>,
    assumptions: Vec<&'a str>,
}

#[derive(Serialize)]
struct UtilisationJson<'a> {
    threads: u32,
    points: Vec<UtilisationPointJson<'a>>,
}

#[derive(Serialize)]
struct UtilisationPointJson<'a> {
    shape: [u64; 3],
    backend: &'a str,
    ops_per_s: f64,
    share: f64,
    bound: &'static str,
}

fn utilisation(known: &crate::estimate::Utilisation) -> UtilisationJson<'_> {
    let points = known.points.iter().map(|point| UtilisationPointJson {
        shape: point.shape,
        backend: &point.backend,
        ops_per_s: point.rate.0,
        share: point.share,
        bound: point.bound.name(),
    });
    UtilisationJson { threads: known.threads, points: points.collect() }
}

#[derive(Serialize)]
struct RatesJson {
    peak_flops_per_s: f64,
    matmul_flops_per_s: f64,
    vector_ops_per_s: f64,
    bandwidth_bytes_per_s: f64,
}

#[derive(Serialize)]
struct CostlyJson<'a> {
    name: &'a str,
    kind: &'static str,
    nodes: usize,
    time_s: f64,
    share: f64,
    bound: &'static str,
    #[serde(flatten)]
    counts: CountsJson,
}

fn estimate<'a>(kind: &'static str, report: &'a EstimateReport) -> EstimateJson<'a> {
    let estimate = &report.estimate;
    let rates = &estimate.rates;
    EstimateJson {
        schema: SCHEMA,
        kind,
        count: count(&report.count),
        profile: &report.profile,
        estimate: AnswerJson {
            machine: &estimate.machine,
            batch: report.batch,
            time_s: estimate.time.0,
            passes_per_s: estimate.passes.0,
            samples_per_s: report.batch as f64 * estimate.passes.0,
            achieved_flops_per_s: estimate.achieved.0,
            share_of_peak: estimate.share_of_peak,
            intensity_flops_per_byte: estimate.intensity.0,
            ridge_point_flops_per_byte: estimate.ridge_point.0,
            bound: estimate.bound.name(),
            time_by_bound_s: estimate.time_by_bound.iter().map(|(b, t)| (b.name(), t.0)).collect(),
            rates: RatesJson {
                peak_flops_per_s: rates.peak.0,
                matmul_flops_per_s: rates.matmul.0,
                vector_ops_per_s: rates.vector.0,
                bandwidth_bytes_per_s: rates.bandwidth.0,
            },
            utilisation: estimate.utilisation.as_ref().map(utilisation),
            assumptions: estimate.assumptions.iter().map(|a| a.text.as_str()).collect(),
        },
        costliest: report.costliest.iter().map(costly).collect(),
        roofline: super::roofline(&report.profile),
        points: report.points.iter().map(point).collect(),
    }
}

fn point(point: &super::Point) -> PointJson<'_> {
    PointJson {
        name: &point.name,
        kind: point.kind.name(),
        ops_per_byte: point.intensity.0,
        ops_per_s: point.rate.0,
        time_s: point.seconds.0,
        bound: point.bound.name(),
        utilisation: point.utilisation,
    }
}

fn costly(row: &super::Costly) -> CostlyJson<'_> {
    CostlyJson {
        name: &row.name,
        kind: row.kind.name(),
        nodes: row.n_nodes,
        time_s: row.seconds.0,
        share: row.share,
        bound: row.bound.name(),
        counts: counts(Some(&row.counts)),
    }
}

#[derive(Serialize)]
struct ExplanationJson<'a> {
    schema: u32,
    kind: &'static str,
    model: &'a str,
    node: Option<NodeJson<'a>>,
    operands: &'a [String],
    bindings: &'a BTreeMap<String, i128>,
    steps: Vec<StepJson<'a>>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    quantity: &'static str,
    words: &'a str,
    factors: &'a str,
    formula: &'a str,
    value: Option<u128>,
    source: &'a str,
}

fn explanation(explanation: &Explanation) -> ExplanationJson<'_> {
    let steps = explanation.steps.iter().map(|step| StepJson {
        quantity: step.quantity,
        words: &step.words,
        factors: &step.factors,
        formula: &step.formula,
        value: step.value,
        source: &step.source,
    });
    ExplanationJson {
        schema: SCHEMA,
        kind: "explanation",
        model: &explanation.model,
        node: explanation.node.as_ref().map(node),
        operands: &explanation.operands,
        bindings: &explanation.bindings,
        steps: steps.collect(),
        notes: explanation.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}
