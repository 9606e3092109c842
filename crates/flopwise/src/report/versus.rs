//! Two counts side by side, as text and JSON.
//!
//! Not here: counting (see [`crate::query`]).

use super::json::SCHEMA;
use super::text::{Page, bindings, indented, table};
use super::{CountReport, Row};
use crate::cost::Counts;
use crate::units::grouped;
use comfy_table::CellAlignment;
use serde::Serialize;
use std::collections::HashMap;

/// Two models, or one at two sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct VersusReport {
    /// One count, with numbers.
    pub left: CountReport,
    /// The other.
    pub right: CountReport,
    /// Rows of either, under the same name where both have it, the costliest first.
    pub rows: Vec<VersusRow>,
}

/// A group of nodes in both.
#[derive(Clone, Debug, PartialEq)]
pub struct VersusRow {
    /// The kind, module, operator, line or node.
    pub name: String,
    /// Its counts in one; `None` where it has no such group.
    pub left: Option<Counts>,
    /// In the other.
    pub right: Option<Counts>,
}

/// Rows shown; JSON has all.
const MAX_ROWS: usize = 40;

/// Pairs the rows of two counts by name; most MACs in either first, then bytes.
#[must_use]
pub fn side_by_side(left: &CountReport, right: &CountReport) -> Vec<VersusRow> {
    let rows = |report: &CountReport| -> Vec<Row> {
        report.counted.as_ref().map(|counted| counted.rows.clone()).unwrap_or_default()
    };
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut pairs: Vec<VersusRow> = Vec::new();
    for row in rows(left) {
        place.insert(row.name.clone(), pairs.len());
        pairs.push(VersusRow { name: row.name, left: Some(row.counts), right: None });
    }
    for row in rows(right) {
        match place.get(&row.name) {
            Some(at) => pairs[*at].right = Some(row.counts),
            None => {
                pairs.push(VersusRow { name: row.name, left: None, right: Some(row.counts) });
            }
        }
    }
    let larger = |row: &VersusRow| {
        let of = |counts: Option<Counts>| counts.map(|counts| (counts.macs, counts.bytes()));
        of(row.left).max(of(row.right))
    };
    pairs.sort_by_key(|row| std::cmp::Reverse(larger(row)));
    pairs
}

/// A quantity of a whole model.
struct Total {
    name: &'static str,
    left: u128,
    right: u128,
}

fn totals(report: &VersusReport) -> Vec<Total> {
    let mut totals = Vec::new();
    let stored = report.left.stored.zip(report.right.stored);
    if let Some((left, right)) = stored {
        totals.push(Total { name: "parameters", left: left.parameters, right: right.parameters });
        let bytes = (left.weight_bytes.0, right.weight_bytes.0);
        totals.push(Total { name: "weight bytes", left: bytes.0, right: bytes.1 });
    }
    let counted = report.left.counted.as_ref().zip(report.right.counted.as_ref());
    if let Some((left, right)) = counted {
        let (l, r) = (&left.total, &right.total);
        let pairs = [
            ("MACs", l.macs.0, r.macs.0),
            ("model FLOPs", l.model_flops().0, r.model_flops().0),
            ("other ops", l.other_ops.0, r.other_ops.0),
            ("transcendental ops", l.transcendental_ops.0, r.transcendental_ops.0),
            ("bytes moved", l.bytes().0, r.bytes().0),
            ("peak activation bytes", left.peak_activation_bytes.0, right.peak_activation_bytes.0),
        ];
        totals.extend(pairs.map(|(name, left, right)| Total { name, left, right }));
    }
    totals
}

/// `x1.98`; nothing where there is nothing to divide by.
fn ratio(left: Option<u128>, right: Option<u128>) -> String {
    match (left, right) {
        (Some(left), Some(right)) if left == right => "same".to_owned(),
        (Some(left), Some(right)) if left != 0 => format!("x{:.4}", right as f64 / left as f64),
        (Some(_), None) => "only here".to_owned(),
        (None, Some(_)) => "only there".to_owned(),
        _ => String::new(),
    }
}

impl Page {
    pub(super) fn versus(&mut self, report: &VersusReport) {
        let title = |side: &CountReport| {
            let least = if side.is_lower_bound { ", at least" } else { "" };
            format!("{}{}{least}", side.model, bindings(&side.bindings, &side.assumed))
        };
        self.heading("A versus B");
        self.line(&format!("  A  {}", title(&report.left)));
        self.line(&format!("  B  {}", title(&report.right)));
        self.line("");
        let mut whole = table(&["", "A", "B", "B / A"]);
        for total in totals(report) {
            let ratio = ratio(Some(total.left), Some(total.right));
            let cells = [total.name.into(), grouped(total.left), grouped(total.right), ratio];
            whole.add_row(cells);
        }
        self.out.push_str(&indented(&whole));
        let grouping = report.left.grouping.heading();
        self.heading(&format!("By {grouping}"));
        let heads = [grouping, "MACs of A", "MACs of B", "B / A", "bytes of A", "bytes of B"];
        let mut rows = table(&heads);
        for row in report.rows.iter().take(MAX_ROWS) {
            let macs = |counts: Option<Counts>| counts.map(|counts| counts.macs.0);
            let bytes = |counts: Option<Counts>| counts.map(|counts| counts.bytes().0);
            let cell = |count: Option<u128>| count.map(grouped).unwrap_or_default();
            rows.add_row([
                row.name.clone(),
                cell(macs(row.left)),
                cell(macs(row.right)),
                ratio(macs(row.left), macs(row.right)),
                cell(bytes(row.left)),
                cell(bytes(row.right)),
            ]);
        }
        for column in rows.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.out.push_str(&indented(&rows));
        if MAX_ROWS < report.rows.len() {
            self.line(&format!("  ... and {} more (--json)", report.rows.len() - MAX_ROWS));
        }
        let notes = |side: &CountReport, name: &str| -> Vec<String> {
            side.notes.iter().map(|note| format!("{name}: {note}")).collect()
        };
        let mut all = notes(&report.left, "A");
        all.extend(notes(&report.right, "B"));
        self.notes(all.iter().map(String::as_str));
    }
}

#[derive(Serialize)]
pub(super) struct VersusJson<'a> {
    schema: u32,
    kind: &'static str,
    left: super::json::CountJson<'a>,
    right: super::json::CountJson<'a>,
    rows: Vec<VersusRowJson<'a>>,
}

#[derive(Serialize)]
struct VersusRowJson<'a> {
    name: &'a str,
    left: Option<super::json::CountsJson>,
    right: Option<super::json::CountsJson>,
}

pub(super) fn wire<'r>(report: &'r VersusReport) -> VersusJson<'r> {
    let side = |counts: &Option<Counts>| counts.as_ref().map(|c| super::json::counts(Some(c)));
    let row = |row: &'r VersusRow| -> VersusRowJson<'r> {
        let VersusRow { name, left, right } = row;
        VersusRowJson { name, left: side(left), right: side(right) }
    };
    VersusJson {
        schema: SCHEMA,
        kind: "versus",
        left: super::json::count(&report.left),
        right: super::json::count(&report.right),
        rows: report.rows.iter().map(row).collect(),
    }
}
