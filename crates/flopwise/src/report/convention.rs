//! What other tools print for a model: one with the difference line by line, or a table of all.

use super::json::SCHEMA;
use super::text::{Page, bindings};
use crate::cost::convention::Convention;
use crate::note::Note;
use crate::units::grouped;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// What other tools print for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ConventionReport {
    /// The model's name.
    pub model: String,
    /// Values the user gave.
    pub bindings: BTreeMap<String, i128>,
    /// Values assumed because the user gave none.
    pub assumed: BTreeMap<String, i128>,
    /// Whether one convention was asked for, not all.
    pub is_one: bool,
    /// Whether the working is shown.
    pub is_explained: bool,
    /// One per convention.
    pub rows: Vec<ConventionRow>,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

/// One convention.
#[derive(Clone, Debug, PartialEq)]
pub struct ConventionRow {
    /// Which.
    pub convention: Convention,
    /// Its figure, or why there is none.
    pub figure: Result<ConventionFigure, String>,
}

/// A tool's figure beside the count here.
#[derive(Clone, Debug, PartialEq)]
pub struct ConventionFigure {
    /// The tool's own total, in its own unit.
    pub total: i128,
    /// The same in the model's symbols.
    pub formula: String,
    /// The count here, in the tool's unit.
    pub ours: i128,
    /// What `total - ours` is the sum of, the largest first.
    pub lines: Vec<ConventionLine>,
    /// What `total` is the sum of.
    pub groups: Vec<ConventionGroup>,
    /// Other figures of the same tool.
    pub also: Vec<(String, i128)>,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// A part of the difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConventionLine {
    /// Why.
    pub reason: String,
    /// By how much the tool counts more.
    pub amount: i128,
    /// Nodes that it concerns; 0 for the model as a whole.
    pub nodes: usize,
}

/// A part of a tool's total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConventionGroup {
    /// What the tool calls it.
    pub what: String,
    /// Its rule in words.
    pub rule: &'static str,
    /// Its sum in symbols.
    pub formula: String,
    /// Its sum.
    pub value: i128,
    /// Nodes counted so.
    pub nodes: usize,
}

impl ConventionFigure {
    /// The tool's figure as it prints it, with its unit.
    fn printed(&self, convention: Convention) -> String {
        match convention {
            // To the nearest million; halves go to even, as Python's `round` does.
            Convention::Torchvision => {
                let (millions, rest) = (self.total / 1_000_000, self.total % 1_000_000);
                let is_up = 500_000 < rest || (rest == 500_000 && millions % 2 == 1);
                let millions = millions + i128::from(is_up);
                format!("{}.{:03}", millions / 1000, millions % 1000)
            }
            Convention::Fvcore
            | Convention::Thop
            | Convention::Ptflops
            | Convention::PtflopsPytorch
            | Convention::Torchinfo
            | Convention::Deepspeed
            | Convention::FlopCounter
            | Convention::FlopCounterTraining
            | Convention::OnnxTool
            | Convention::Xla
            | Convention::SixN
            | Convention::Palm
            | Convention::Nanogpt
            | Convention::Torchtitan
            | Convention::Megatron => signed(self.total).trim_start_matches('+').to_owned(),
        }
    }
}

/// `+1,234` or `-1,234`.
fn signed(amount: i128) -> String {
    let sign = if amount < 0 { '-' } else { '+' };
    format!("{sign}{}", grouped(amount.unsigned_abs()))
}

/// The nearest hundredth of a percent.
fn percent(figure: &ConventionFigure) -> String {
    if figure.ours == 0 {
        return "-".to_owned();
    }
    let ratio = (figure.total - figure.ours) as f64 / figure.ours as f64;
    format!("{:+.2} %", ratio * 100.0)
}

/// Characters of a reason in the table of all conventions.
const MAX_REASON: usize = 64;

/// A reason that fits beside others: a long one without its explanation.
fn brief(reason: &str) -> &str {
    if reason.chars().count() <= MAX_REASON {
        return reason;
    }
    reason.split(':').next().unwrap_or(reason)
}

impl Page {
    pub(super) fn conventions(&mut self, report: &ConventionReport) {
        let at = bindings(&report.bindings, &report.assumed);
        self.heading(&format!("Model {}{at}", report.model));
        match report.rows.as_slice() {
            [row] if report.is_one => self.one_convention(row, report.is_explained),
            rows => self.all_conventions(rows),
        }
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }

    fn one_convention(&mut self, row: &ConventionRow, is_explained: bool) {
        let convention = row.convention;
        self.line(&format!("  {}", convention.title()));
        let figure = match &row.figure {
            Ok(figure) => figure,
            Err(why) => {
                self.line(&format!("  cannot be reproduced: {why}"));
                return;
            }
        };
        let difference = figure.total - figure.ours;
        self.fact(convention.name(), &figure.printed(convention), convention.printed_as());
        self.fact("flopwise", &grouped(figure.ours.unsigned_abs()), convention.unit().name());
        self.fact("difference", &signed(difference), &percent(figure));
        if is_explained {
            self.working(figure);
        }
        if !figure.lines.is_empty() {
            self.heading("Why they differ");
            let mut table = table(&["difference", "nodes", "reason"]);
            for line in &figure.lines {
                let nodes = if line.nodes == 0 { "-".to_owned() } else { line.nodes.to_string() };
                table.add_row([signed(line.amount), nodes, line.reason.clone()]);
            }
            self.table(table, &[0, 1]);
        }
        for (name, value) in &figure.also {
            self.line(&format!("  also: {} {name}", grouped(value.unsigned_abs())));
        }
        for remark in &figure.remarks {
            self.line(&format!("  {remark}"));
        }
    }

    /// What the total is the sum of, in words, symbols and numbers.
    fn working(&mut self, figure: &ConventionFigure) {
        self.heading("How it comes about");
        for group in &figure.groups {
            let nodes = match group.nodes {
                0 => String::new(),
                1 => ", 1 node".to_owned(),
                n => format!(", {n} nodes"),
            };
            self.line(&format!("  {}: {}{nodes}", group.what, group.rule));
            let value = signed(group.value);
            let value = value.trim_start_matches('+');
            match group.formula.parse::<i128>() {
                Ok(_) => self.line(&format!("      = {value}")),
                Err(_) => {
                    self.line(&format!("      = {}", group.formula));
                    self.line(&format!("      = {value}"));
                }
            }
        }
        self.line(&format!("  total = {}", figure.formula));
        self.line(&format!("        = {}", signed(figure.total).trim_start_matches('+')));
    }

    fn all_conventions(&mut self, rows: &[ConventionRow]) {
        let mut table = table(&["convention", "figure", "unit", "difference", "mainly because"]);
        for row in rows {
            let (name, unit) = (row.convention.name(), row.convention.unit().name());
            let cells = match &row.figure {
                Ok(figure) => {
                    let reason = figure.lines.first().map_or("-", |line| brief(&line.reason));
                    [
                        name.to_owned(),
                        figure.printed(row.convention),
                        unit.to_owned(),
                        percent(figure),
                        reason.to_owned(),
                    ]
                }
                Err(why) => {
                    let none = || "-".to_owned();
                    [name.to_owned(), none(), none(), none(), format!("no figure: {why}")]
                }
            };
            table.add_row(cells);
        }
        self.table(table, &[1, 3]);
        self.line("  --convention NAME shows a difference line by line");
    }

    fn table(&mut self, mut table: Table, right: &[usize]) {
        for column in right {
            if let Some(column) = table.column_mut(*column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.to_string().lines() {
            self.line(&format!(" {line}"));
        }
    }
}

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().copied());
    table
}

#[derive(Serialize)]
pub(super) struct Wire<'a> {
    schema: u32,
    kind: &'static str,
    model: &'a str,
    bindings: BTreeMap<&'a str, i128>,
    assumed: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    convention: Option<RowJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conventions: Option<Vec<RowJson<'a>>>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct RowJson<'a> {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    printed_as: &'static str,
    total: Option<i128>,
    printed: Option<String>,
    formula: Option<&'a str>,
    ours: Option<i128>,
    lines: Vec<LineJson<'a>>,
    terms: Vec<TermJson<'a>>,
    also: Vec<AlsoJson<'a>>,
    remarks: &'a [String],
    unavailable: Option<&'a str>,
}

#[derive(Serialize)]
struct LineJson<'a> {
    reason: &'a str,
    amount: i128,
    nodes: usize,
}

#[derive(Serialize)]
struct TermJson<'a> {
    what: &'a str,
    rule: &'a str,
    formula: &'a str,
    value: i128,
    nodes: usize,
}

#[derive(Serialize)]
struct AlsoJson<'a> {
    name: &'a str,
    value: i128,
}

pub(super) fn wire(report: &ConventionReport) -> Wire<'_> {
    let given = report.bindings.iter().chain(&report.assumed);
    let mut rows: Vec<RowJson> = report.rows.iter().map(row).collect();
    let one = if report.is_one { rows.pop() } else { None };
    Wire {
        schema: SCHEMA,
        kind: "convention",
        model: &report.model,
        bindings: given.map(|(name, value)| (name.as_str(), *value)).collect(),
        assumed: report.assumed.keys().map(String::as_str).collect(),
        convention: one,
        conventions: (!report.is_one).then_some(rows),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

fn row(row: &ConventionRow) -> RowJson<'_> {
    let convention = row.convention;
    let figure = row.figure.as_ref().ok();
    let lines = figure.map_or(&[][..], |figure| &figure.lines);
    let groups = figure.map_or(&[][..], |figure| &figure.groups);
    let also = figure.map_or(&[][..], |figure| &figure.also);
    let lines = lines.iter().map(|line| LineJson {
        reason: &line.reason,
        amount: line.amount,
        nodes: line.nodes,
    });
    let terms = groups.iter().map(|group| TermJson {
        what: &group.what,
        rule: group.rule,
        formula: &group.formula,
        value: group.value,
        nodes: group.nodes,
    });
    RowJson {
        name: convention.name(),
        title: convention.title(),
        unit: convention.unit().name(),
        printed_as: convention.printed_as(),
        total: figure.map(|figure| figure.total),
        printed: figure.map(|figure| figure.printed(convention)),
        formula: figure.map(|figure| figure.formula.as_str()),
        ours: figure.map(|figure| figure.ours),
        lines: lines.collect(),
        terms: terms.collect(),
        also: also.iter().map(|(name, value)| AlsoJson { name, value: *value }).collect(),
        remarks: figure.map_or(&[][..], |figure| &figure.remarks),
        unavailable: row.figure.as_ref().err().map(String::as_str),
    }
}
