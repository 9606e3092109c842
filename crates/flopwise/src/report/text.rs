//! Reports as text for a terminal, at most 100 columns where names allow.

use super::{
    Costly, CountReport, Counted, EstimateReport, Explanation, FoldedRow, Grouping, Report, Row,
    Unknown, folded,
};
use crate::units::{Bytes, SamplesPerSec, grouped};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::collections::BTreeMap;

/// Whether headings are bold and notes yellow. Colour never carries meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// No escape codes.
    Plain,
    /// ANSI escape codes.
    Colour,
}

/// Rows of a grouped table shown; the rest is summed up in one line.
pub(super) const MAX_ROWS: usize = 30;
/// Rows of a tree shown when no depth is asked for.
const MAX_TREE_ROWS: usize = 60;
/// Rows of a tree shown in any case.
const MAX_TREE_LINES: usize = 2000;
/// Characters of a name shown in a table.
const MAX_NAME: usize = 48;

/// Prints a report; ends with a newline.
#[must_use]
pub fn text(report: &Report, paint: Paint) -> String {
    let mut page = Page { out: String::new(), paint };
    match report {
        Report::Count(count) => page.count(count),
        Report::Measure(profile) => page.profile(profile),
        Report::Versus(report) => page.versus(report),
        Report::Sweep(report) => page.sweep(report),
        Report::Estimate(report) => {
            page.model_line(&report.count);
            page.unknown(&report.count.unknown);
            page.answer(report);
            page.notes(report.count.notes.iter().map(|note| note.text.as_str()));
        }
        Report::Page(report) => {
            page.model(&report.count);
            page.profile_summary(&report.profile);
            page.answer(report);
            page.notes(report.count.notes.iter().map(|note| note.text.as_str()));
        }
        Report::Explanation(explanation) => page.explanation(explanation),
        Report::Convention(report) => page.conventions(report),
        Report::Models(report) => page.models(report),
        Report::Model(model) => page.built_in_model(model),
        Report::Audit(report) => page.audit(report),
        Report::Number(report) => page.number(report),
        Report::Matmul(report) => page.matmul(report),
        Report::Formats(report) => page.formats(report),
        Report::Tensors(report) => page.tensors(report),
        Report::Training(report) => page.training(report),
        Report::Figures(report) => page.figures(report),
    }
    page.out
}

/// A page being written.
pub(super) struct Page {
    pub(super) out: String,
    paint: Paint,
}

impl Page {
    pub(super) fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    pub(super) fn heading(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        match self.paint {
            Paint::Plain => self.line(text),
            Paint::Colour => self.line(&format!("\u{1b}[1m{text}\u{1b}[0m")),
        }
    }

    /// `  label    value    remark`, aligned.
    pub(super) fn fact(&mut self, label: &str, value: &str, remark: &str) {
        self.line(&format!("  {label:<21} {value:<24} {remark}"));
    }

    pub(super) fn notes<'n>(&mut self, notes: impl Iterator<Item = &'n str>) {
        for (note_idx, note) in notes.enumerate() {
            if note_idx == 0 {
                self.heading("Notes");
            }
            match self.paint {
                Paint::Plain => self.line(&format!("  - {note}")),
                Paint::Colour => self.line(&format!("  \u{1b}[33m-\u{1b}[0m {note}")),
            }
        }
    }

    fn count(&mut self, report: &CountReport) {
        self.model(report);
        if let Some(counted) = &report.counted {
            match report.grouping {
                Grouping::Module => self.modules(report, counted),
                Grouping::Op | Grouping::Kind | Grouping::Line | Grouping::Node => {
                    self.rows(counted, report.grouping);
                }
            }
        }
        if let Some(memory) = &report.memory {
            self.memory_table(memory);
        }
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }

    fn model_line(&mut self, report: &CountReport) {
        let at = bindings(&report.bindings, &report.assumed);
        self.heading(&format!("Model {}{at}", report.model));
    }

    fn model(&mut self, report: &CountReport) {
        self.model_line(report);
        let least = if report.is_lower_bound { "at least " } else { "" };
        if let Some(stored) = &report.stored {
            let weights = stored.weight_bytes.to_string();
            self.fact("parameters", &grouped(stored.parameters), &weights);
            if stored.buffer_bytes != Bytes(0) {
                let buffers = stored.buffer_bytes;
                self.fact("buffers", &format!("{} B", grouped(buffers.0)), &buffers.to_string());
            }
        }
        for [label, value, remark] in super::state::facts(report) {
            self.fact(&label, &value, &remark);
        }
        match &report.counted {
            Some(counted) => self.totals(counted, least),
            None => {
                let open = report.symbols.iter().filter(|symbol| {
                    !report.bindings.contains_key(&symbol.name)
                        && !report.assumed.contains_key(&symbol.name)
                });
                let names: Vec<String> = open.map(|symbol| format!("{}=N", symbol.name)).collect();
                let hint = format!("  add --bind {} for numbers", names.join(","));
                self.line(&hint);
            }
        }
        let is_symbolic = !report.symbols.is_empty();
        if is_symbolic {
            self.line(&format!("  MACs = {least}{}", report.formula.macs));
            for symbol in &report.symbols {
                let max = symbol.max.map_or_else(|| "any".to_owned(), |max| max.to_string());
                let range = format!("{} to {max}", symbol.min);
                self.line(&format!("    {:<18} {range:<12} {}", symbol.name, symbol.place));
            }
        }
        self.unknown(&report.unknown);
    }

    fn totals(&mut self, counted: &Counted, least: &str) {
        let total = &counted.total;
        let exact = |count: u128| format!("{least}{}", grouped(count));
        self.fact("MACs", &exact(total.macs.0), &total.macs.to_string());
        let flops = total.model_flops();
        self.fact("model FLOPs", &exact(flops.0), &format!("{flops}, 2 per MAC"));
        self.fact("other ops", &exact(total.other_ops.0), "add, multiply, compare");
        let transcendental = exact(total.transcendental_ops.0);
        self.fact("transcendental ops", &transcendental, "exp, division, root, erf ...");
        let traffic = total.bytes();
        let moved = format!("{traffic}, no reuse between nodes");
        self.fact("bytes moved", &format!("{} B", exact(traffic.0)), &moved);
        let peak = counted.peak_activation_bytes;
        self.fact("peak activations", &format!("{} B", exact(peak.0)), &peak.to_string());
    }

    pub(super) fn unknown(&mut self, unknown: &[Unknown]) {
        if unknown.is_empty() {
            return;
        }
        let n_nodes: usize = unknown.iter().map(|unknown| unknown.count).sum();
        let nodes = if n_nodes == 1 { "node" } else { "nodes" };
        self.heading(&format!("Not counted ({n_nodes} {nodes}): every total is a lower bound"));
        for each in unknown {
            let place =
                each.module.as_ref().map_or(String::new(), |module| format!(" in {module}"));
            let (count, operator, node) = (each.count, &each.operator, &each.node);
            self.line(&format!("  {count} x {operator}, first `{node}`{place}: {}", each.reason));
        }
    }

    fn rows(&mut self, counted: &Counted, grouping: Grouping) {
        self.heading(&format!("By {}", grouping.heading()));
        let shown = match grouping {
            Grouping::Node => counted.rows.len(),
            Grouping::Op | Grouping::Kind | Grouping::Module | Grouping::Line => MAX_ROWS,
        };
        let heads = [
            grouping.heading(),
            "nodes",
            "MACs",
            "share",
            "other ops",
            "bytes moved",
            "parameters",
        ];
        let mut table = table(&heads);
        for row in counted.rows.iter().take(shown) {
            table.add_row(row_cells(row, counted));
        }
        self.out.push_str(&indented(&table));
        if let Some(rest) = counted.rows.get(shown..).filter(|rest| !rest.is_empty()) {
            let macs: u128 = rest.iter().map(|row| row.counts.macs.0).sum();
            let n_rest = rest.len();
            self.line(&format!(
                "  ... and {n_rest} more with {} MACs (--json has all)",
                grouped(macs)
            ));
        }
    }

    /// The tree of modules, down to the depth asked for, or else as deep as a screen allows.
    fn modules(&mut self, report: &CountReport, counted: &Counted) {
        self.heading("By module, each with all beneath it");
        let deepest = report.modules.iter().map(|row| row.depth).max().unwrap_or(0);
        let mut depth = report.depth.unwrap_or(deepest).min(deepest);
        let mut rows = folded(&report.modules, depth);
        while report.depth.is_none() && MAX_TREE_ROWS < rows.len() && 1 < depth {
            depth -= 1;
            rows = folded(&report.modules, depth);
        }
        let mut table =
            table(&["module", "class", "nodes", "MACs", "share", "other ops", "parameters"]);
        table.set_content_arrangement(ContentArrangement::Disabled);
        for row in rows.iter().take(MAX_TREE_LINES) {
            table.add_row(module_cells(row, report, counted));
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Left);
        }
        self.out.push_str(&indented(&table));
        if let Some(n_rest) = rows.len().checked_sub(MAX_TREE_LINES).filter(|n| *n != 0) {
            self.line(&format!("  ... and {n_rest} more (--depth N shows less, --json has all)"));
        }
        if depth < deepest {
            let shown = format!("  down to depth {depth} of {deepest}; --depth N shows more");
            self.line(&shown);
        }
    }

    fn answer(&mut self, report: &EstimateReport) {
        let estimate = &report.estimate;
        let least = if report.count.is_lower_bound { "at least " } else { "" };
        self.heading(&format!("Estimate on {}", estimate.machine));
        self.fact("time", &format!("{least}{}", estimate.time), "one forward pass");
        let samples = SamplesPerSec(report.batch as f64 * estimate.passes.0);
        let samples = match report.count.is_lower_bound {
            true => format!("at most {samples}"),
            false => samples.to_string(),
        };
        self.fact("throughput", &samples, &format!("{} a pass", report.batch));
        let counted = if report.count.is_lower_bound { "the counted part: " } else { "" };
        let share = format!("{counted}{:.1} % of peak (MFU)", 100.0 * estimate.share_of_peak);
        self.fact("achieved", &estimate.achieved.to_string(), &share);
        let side = if estimate.intensity < estimate.ridge_point { "below" } else { "above" };
        let ridge = format!("{side} the ridge point, {}", estimate.ridge_point);
        self.fact("intensity", &estimate.intensity.to_string(), &ridge);
        let parts = estimate.time_by_bound.iter().filter(|(_, time)| 0.0 < time.0);
        let parts: Vec<String> = parts
            .map(|(bound, time)| {
                format!("{} {:.0} %", bound.name(), 100.0 * (*time / estimate.time))
            })
            .collect();
        self.fact(
            "limited by",
            estimate.bound.name(),
            &format!("time in nodes bound by {}", parts.join(", ")),
        );
        self.costliest(&report.costliest);
        self.heading("Assumed");
        for assumption in &estimate.assumptions {
            self.line(&format!("  - {}", assumption.text));
        }
    }

    fn costliest(&mut self, costliest: &[Costly]) {
        self.heading("Costliest");
        let heads =
            ["module or node", "mostly", "time", "share", "MACs", "bytes moved", "bound by"];
        let mut table = table(&heads);
        for row in costliest {
            table.add_row(vec![
                shortened(&row.name),
                row.kind.name().to_owned(),
                row.seconds.to_string(),
                percent(row.share),
                row.counts.macs.to_string(),
                row.counts.bytes().to_string(),
                row.bound.name().to_owned(),
            ]);
        }
        self.out.push_str(&indented(&table));
    }

    fn explanation(&mut self, explanation: &Explanation) {
        match &explanation.node {
            None => self.heading(&format!("How the counts of {} come about", explanation.model)),
            Some(node) => {
                self.heading(&format!("How the counts of node {} come about", node.name));
                self.fact("operator", &node.op, &format!("in the file {}", node.operator));
                let place = [("module", &node.module), ("line", &node.line)];
                for (label, text) in place {
                    self.fact(label, text.as_deref().unwrap_or("not in the file"), "");
                }
            }
        }
        for operand in &explanation.operands {
            self.line(&format!("  {operand}"));
        }
        let values = bindings(&explanation.bindings, &BTreeMap::new());
        for step in &explanation.steps {
            self.heading(&format!("{} = {}", step.quantity, step.words));
            let margin = " ".repeat(step.quantity.chars().count());
            if step.factors != step.formula {
                self.line(&format!("{margin} = {}", step.factors));
            }
            self.line(&format!("{margin} = {}", step.formula));
            if let Some(value) = step.value {
                self.line(&format!("{margin} = {}{values}", grouped(value)));
            }
            if !step.source.is_empty() {
                self.line(&format!("  ({})", step.source));
            }
        }
        self.notes(explanation.notes.iter().map(|note| note.text.as_str()));
    }
}

pub(super) fn bindings(given: &BTreeMap<String, i128>, assumed: &BTreeMap<String, i128>) -> String {
    let write = |pairs: &BTreeMap<String, i128>| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
    };
    let assumed =
        (!assumed.is_empty()).then(|| format!("{} (assumed; --bind changes it)", write(assumed)));
    let given = (!given.is_empty()).then(|| write(given));
    match (given, assumed) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => format!(" at {one}"),
        (Some(given), Some(assumed)) => format!(" at {given}, {assumed}"),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn module_cells(row: &FoldedRow, report: &CountReport, counted: &Counted) -> Vec<String> {
    let share = match counted.total.macs.0 {
        0 => 0.0,
        total => row.counts.macs.0 as f64 / total as f64,
    };
    let name = if row.depth == 0 { &report.model } else { &row.name };
    let is_range = row.name.contains('-') && row.copies != 1;
    let copies = if is_range { format!(" ({}x)", row.copies) } else { String::new() };
    // A blank that no table trims.
    let indent = "\u{a0}\u{a0}".repeat(row.depth);
    let class = row.class.as_deref().unwrap_or("");
    vec![
        format!("{indent}{}{copies}", shortened(name)),
        shortened(class.rsplit('.').next().unwrap_or(class)),
        row.n_nodes.to_string(),
        grouped(row.counts.macs.0),
        percent(share),
        row.counts.other_ops.to_string(),
        grouped(row.counts.parameters),
    ]
}

fn row_cells(row: &Row, counted: &Counted) -> Vec<String> {
    let share = match counted.total.macs.0 {
        0 => 0.0,
        total => row.counts.macs.0 as f64 / total as f64,
    };
    let name = match &row.op {
        Some(op) => format!("{} ({op})", row.name),
        None => row.name.clone(),
    };
    vec![
        shortened(&name),
        row.n_nodes.to_string(),
        grouped(row.counts.macs.0),
        percent(share),
        row.counts.other_ops.to_string(),
        row.counts.bytes().to_string(),
        grouped(row.counts.parameters),
    ]
}

/// The end of a long name tells more than its beginning.
pub(super) fn shortened(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let n_chars = name.chars().count();
    if n_chars <= MAX_NAME {
        return name;
    }
    let tail: String = name.chars().skip(n_chars - MAX_NAME + 1).collect();
    format!("…{tail}")
}

pub(super) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn indented(table: &Table) -> String {
    table.lines().map(|line| format!(" {}\n", line.trim_end())).collect()
}
