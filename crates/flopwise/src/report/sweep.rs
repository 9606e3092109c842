//! A count at many sizes, as text, JSON and a drawing.
//!
//! Not here: counting (see [`crate::query`]).

use super::Formula;
use super::json::SCHEMA;
use super::text::{Page, bindings, indented, table};
use crate::cost::Counts;
use crate::note::Note;
use crate::units::{Bytes, grouped};
use comfy_table::CellAlignment;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a model costs as one of its symbols grows.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepReport {
    /// The model's name.
    pub model: String,
    /// The symbol that grows.
    pub symbol: String,
    /// Values of the other symbols, as given.
    pub bindings: BTreeMap<String, i128>,
    /// Values assumed for those not given.
    pub assumed: BTreeMap<String, i128>,
    /// Totals in symbols, those given put in.
    pub formula: Formula,
    /// Whether something could not be counted.
    pub is_lower_bound: bool,
    /// One for each value.
    pub rows: Vec<SweepRow>,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

/// A count at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepRow {
    /// The symbol's value.
    pub value: i128,
    /// The totals.
    pub counts: Counts,
    /// The most that inputs and results take at once.
    pub peak_activation_bytes: Bytes,
}

/// Characters of the longest bar.
const BAR: f64 = 24.0;

/// The power that a quantity grows with from one row to the next: 1 is linear, 2 quadratic.
fn growth(before: (i128, u128), after: (i128, u128)) -> Option<f64> {
    let positive = 0 < before.0 && before.0 != after.0 && 0 < before.1 && 0 < after.1;
    let ratio = |a: f64, b: f64| (b / a).ln();
    positive
        .then(|| ratio(before.1 as f64, after.1 as f64) / ratio(before.0 as f64, after.0 as f64))
}

/// A bar whose length is the logarithm of a value between the least and the most.
fn bar(value: u128, least: u128, most: u128) -> String {
    if value == 0 {
        return String::new();
    }
    let log = |value: u128| (value.max(1) as f64).log2();
    let (low, high) = (log(least), log(most));
    let share = if low < high { (log(value) - low) / (high - low) } else { 1.0 };
    "#".repeat(1 + (share * BAR).round() as usize)
}

impl Page {
    pub(super) fn sweep(&mut self, report: &SweepReport) {
        let at = bindings(&report.bindings, &report.assumed);
        self.heading(&format!("Model {}{at}, by {}", report.model, report.symbol));
        let relation = if report.is_lower_bound { ">=" } else { "=" };
        let Formula { macs, bytes_read, bytes_written, .. } = &report.formula;
        self.line(&format!("  MACs          {relation} {macs}"));
        self.line(&format!("  bytes read    {relation} {bytes_read}"));
        self.line(&format!("  bytes written {relation} {bytes_written}"));
        self.line("");
        let heads =
            [report.symbol.as_str(), "MACs", "growth", "bytes moved", "FLOP/byte", "peak", "MACs"];
        let mut table = table(&heads);
        let macs = || report.rows.iter().map(|row| row.counts.macs.0);
        let least = macs().filter(|macs| 0 < *macs).min().unwrap_or(0);
        let most = macs().max().unwrap_or(0);
        let mut before: Option<&SweepRow> = None;
        for row in &report.rows {
            let counts = &row.counts;
            let power =
                before.and_then(|b| growth((b.value, b.counts.macs.0), (row.value, counts.macs.0)));
            let traffic = counts.bytes().0;
            let intensity = match traffic {
                0 => String::new(),
                _ => format!("{:.1}", counts.model_flops().0 as f64 / traffic as f64),
            };
            table.add_row([
                grouped(row.value.unsigned_abs()),
                grouped(counts.macs.0),
                power.map(|power| format!("^{power:.2}")).unwrap_or_default(),
                counts.bytes().to_string(),
                intensity,
                row.peak_activation_bytes.to_string(),
                bar(counts.macs.0, least, most),
            ]);
            before = Some(row);
        }
        if let Some(bars) = table.column_mut(heads.len() - 1) {
            bars.set_cell_alignment(CellAlignment::Left);
        }
        self.out.push_str(&indented(&table));
        self.line("  growth: the power of the symbol from row to row; bars are logarithmic");
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }
}

#[derive(Serialize)]
pub(super) struct SweepJson<'a> {
    schema: u32,
    kind: &'static str,
    model: &'a str,
    symbol: &'a str,
    bindings: &'a BTreeMap<String, i128>,
    assumed: &'a BTreeMap<String, i128>,
    formula: BTreeMap<&'static str, &'a str>,
    lower_bound: bool,
    rows: Vec<SweepRowJson>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct SweepRowJson {
    value: i128,
    activation_bytes: u128,
    #[serde(flatten)]
    counts: super::json::CountsJson,
}

pub(super) fn wire(report: &SweepReport) -> SweepJson<'_> {
    let row = |row: &SweepRow| SweepRowJson {
        value: row.value,
        activation_bytes: row.peak_activation_bytes.0,
        counts: super::json::counts(Some(&row.counts)),
    };
    SweepJson {
        schema: SCHEMA,
        kind: "sweep",
        model: &report.model,
        symbol: &report.symbol,
        bindings: &report.bindings,
        assumed: &report.assumed,
        formula: super::json::formula(&report.formula),
        lower_bound: report.is_lower_bound,
        rows: report.rows.iter().map(row).collect(),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

/// Width and height of the drawing, and the margins around its plot, in pixels.
const SIZE: (f64, f64) = (720.0, 420.0);
const MARGIN: (f64, f64) = (80.0, 50.0);

/// Draws MACs and bytes over the symbol, both axes logarithmic; ends with a newline.
#[must_use]
pub fn sweep_svg(report: &SweepReport) -> String {
    let points: Vec<(f64, [f64; 2])> = report
        .rows
        .iter()
        .filter(|row| 0 < row.value && row.counts.macs.0 != 0 && row.counts.bytes().0 != 0)
        .map(|row| {
            let counts = [row.counts.macs.0 as f64, row.counts.bytes().0 as f64];
            ((row.value as f64).log10(), counts.map(f64::log10))
        })
        .collect();
    let plot = Plot {
        x: decades(points.iter().map(|point| point.0)),
        y: decades(points.iter().flat_map(|point| point.1)),
    };
    let escaped = super::svg::escaped;
    let (model, symbol) = (escaped(&report.model), escaped(&report.symbol));
    let (width, height) = SIZE;
    let mut lines = vec![
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" font-family=\"sans-serif\" font-size=\"12\">"
        ),
        format!("<!-- drawn by flopwise --><title>{model} over {symbol}</title>"),
        "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>".to_owned(),
    ];
    plot.grid(&mut lines);
    let series = [("MACs", "#b8480b"), ("bytes moved", "#0b62c4")];
    for (series_idx, (name, colour)) in series.into_iter().enumerate() {
        let places = points.iter().map(|(value, counts)| plot.place(*value, counts[series_idx]));
        let places: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let label_y = MARGIN.1 + 18.0 * (series_idx as f64 + 1.0);
        lines.push(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            places.join(" ")
        ));
        lines.push(format!(
            "<text x=\"{}\" y=\"{label_y}\" fill=\"{colour}\">{name}</text>",
            MARGIN.0 + 10.0
        ));
    }
    lines.push(format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{symbol}</text></svg>",
        width / 2.0,
        height - 10.0
    ));
    lines.join("\n") + "\n"
}

/// Ranges of both axes, in powers of ten.
struct Plot {
    x: (i32, i32),
    y: (i32, i32),
}

/// The whole powers of ten around some logarithms.
fn decades(logs: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let low = logs.clone().min_by(f64::total_cmp).unwrap_or(0.0).floor() as i32;
    let high = logs.max_by(f64::total_cmp).unwrap_or(1.0).ceil() as i32;
    (low, high.max(low + 1))
}

impl Plot {
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let share =
            |log: f64, (low, high): (i32, i32)| (log - f64::from(low)) / f64::from(high - low);
        let (width, height) = (SIZE.0 - 2.0 * MARGIN.0, SIZE.1 - 2.0 * MARGIN.1);
        (MARGIN.0 + share(x, self.x) * width, SIZE.1 - MARGIN.1 - share(y, self.y) * height)
    }

    fn grid(&self, lines: &mut Vec<String>) {
        let ((left, right), (bottom, top)) = (self.x, self.y);
        for decade in left..=right {
            let (x, low) = self.place(decade.into(), bottom.into());
            let (_, high) = self.place(decade.into(), top.into());
            lines.push(format!(
                "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">1e{decade}</text>",
                low + 18.0
            ));
        }
        for decade in bottom..=top {
            let (first, y) = self.place(left.into(), decade.into());
            let (last, _) = self.place(right.into(), decade.into());
            lines.push(format!(
                "<path d=\"M{first:.1} {y:.1}H{last:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">1e{decade}</text>",
                first - 6.0,
                y + 4.0
            ));
        }
    }
}
