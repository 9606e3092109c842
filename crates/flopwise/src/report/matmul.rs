//! What formats do to a matrix multiplication: the report, its text and its wire form.
//!
//! Not here: how the numbers come about ([`flopwise_formats::matmul`]).

use super::text::{Page, indented, table};
use crate::note::Note;
use comfy_table::CellAlignment;
use flopwise_formats::matmul::{
    Accumulation, CONFIDENCE, Chunk, Errors, Multiplied, Order, Products, Scaling, Shape, Storage,
    SumRounding,
};
use serde::Serialize;

/// What formats and accumulations do to a matrix multiplication.
#[derive(Clone, Debug, PartialEq)]
pub struct MatmulReport {
    /// The sizes.
    pub shape: Shape,
    /// Where the entries of A come from, in words.
    pub a: String,
    /// Where those of B come from.
    pub b: String,
    /// Of everything random.
    pub seed: u64,
    /// Root of the mean square of the exact outputs.
    pub exact_rms: f64,
    /// The largest magnitude of an exact output.
    pub exact_max: f64,
    /// One a way of storing A and B.
    pub stored: Vec<StoredRow>,
    /// One a way of storing and accumulating.
    pub rows: Vec<MatmulRow>,
    /// Whether it is said how each number is defined.
    pub is_explained: bool,
    /// Doubts and remarks.
    pub notes: Vec<Note>,
}

/// A and B stored in a format.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// The format and how it is used.
    pub storage: Storage,
    /// What storing alone does to the exact product.
    pub errors: Option<Errors>,
    /// Entries beyond the largest value; `None` in blocks, where they are not counted.
    pub n_saturated: Option<u64>,
    /// Entries that were not zero and became zero.
    pub n_to_zero: u64,
}

/// Stored operands, multiplied.
#[derive(Clone, Debug, PartialEq)]
pub struct MatmulRow {
    /// Which of [`MatmulReport::stored`].
    pub stored: usize,
    /// How products are added.
    pub accumulation: Accumulation,
    /// What came out.
    pub multiplied: Multiplied,
}

/// What each number is, with its formula and source.
const DEFINITIONS: &[(&str, &str)] = &[
    ("C", "the exact product of the entries in binary32, rounded once to binary64"),
    ("C'", "the exact product of the entries as stored; C\" what is accumulated of those"),
    ("input error", "C' - C; accumulation error: C\" - C'; total: C\" - C, their sum, per output"),
    ("relative error", "sqrt(sum e^2 / sum C^2) over the finite outputs, for all three alike"),
    ("SNR", "-20 log10 of the total relative error, in dB"),
    ("one addition", "round(sum + a*b), rounded once; with products rounded"),
    ("", "round(sum + round(a*b))"),
    ("pairwise", "products rounded, then neighbours added, then pairs of them: a tree"),
    ("kahan", "y = ab - c, t = s + y, c = (t - s) - y, s = t, each of the four rounded"),
    ("", "(Kahan, CACM 8(1), 1965)"),
    ("by N in F", "sums of N products, then those sums one after the other in the format F"),
    ("", "(DeepSeek-V3 adds FP8 products by 128 in FP32: arXiv:2412.19437, 3.3.2)"),
    ("stochastic", "up if floor(v 2^N) + R >= 2^N for the fraction v, N random bits R (P3109, A)"),
    ("u", "2^-p for p significand bits; doubled where rounding is not to nearest"),
    ("expected", "if each rounding erred independently and uniformly within its last place:"),
    ("", "sqrt(1 / (8 ln 2)) u = 0.425 u times the root of the sum of the squared"),
    ("", "partial sums (1.41 times as much if stochastic)"),
    ("99 % bound", "exp(L sqrt(n) u + n u^2 / (1-u)) - 1 times sum |a||b|, n roundings deep, with"),
    ("", "1 - 2k exp(-L^2 (1-u)^2 / 2) = 0.99 for an output, if roundings are independent"),
    ("", "with mean zero (Higham and Mary, SISC 41(5), 2019, theorems 2.4, 3.1), as"),
    ("", "stochastic ones nearly are (Connolly, Higham and Mary, SISC 43(1), 2021)"),
    ("sure bound", "n u / (1 - n u) times sum |a||b| (Higham, Accuracy and Stability, 2002, 3.1);"),
    ("", "Kahan: 2u + k u^2 (ibid. 4.3); chunks: (1 + inner)(1 + outer) - 1 (Blanchard,"),
    ("", "Higham and Mary, SISC 42(3), 2020); all relative to C, as the errors are"),
    ("stalled", "additions of something not zero that left a finite sum as it was, of all"),
    ("mean", "the mean of e over the outputs: the bias"),
    ("drift", "sum (e sign C) / sum |C|: below 0 where outputs are too small in magnitude"),
];

impl Page {
    pub(super) fn matmul(&mut self, report: &MatmulReport) {
        let Shape { m, n, k } = report.shape;
        self.heading(&format!("Matrix multiplication C = A B of {m} x {k} by {k} x {n}"));
        self.fact("A", &report.a, "");
        self.fact("B", &report.b, "");
        let outputs = format!("{} outputs of {k} products", m * n);
        self.fact("C", &outputs, "");
        self.fact("seed", &report.seed.to_string(), "");
        let size = format!("rms {}, largest {}", short(report.exact_rms), short(report.exact_max));
        self.fact("exact C", &size, "");
        self.heading("Error relative to C, root of the mean square");
        let heads = ["stored in", "accumulated in", "input", "accumulation", "total", "SNR dB"];
        self.matmul_table(report, &heads, relative_cells);
        self.heading("Accumulation beside theory");
        let heads = [
            "stored in",
            "accumulated in",
            "measured",
            "expected",
            "99 % bound",
            "sure bound",
            "stalled",
        ];
        self.matmul_table(report, &heads, theory_cells);
        self.heading("Single outputs");
        let heads = [
            "stored in",
            "accumulated in",
            "largest |e|",
            "largest |e/C|",
            "mean e",
            "drift",
            "overflowed",
        ];
        self.matmul_table(report, &heads, output_cells);
        if report.is_explained {
            self.heading("What the numbers are");
            for (word, meaning) in DEFINITIONS {
                self.line(&format!("  {word:<15} {meaning}"));
            }
        }
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }

    fn matmul_table(
        &mut self,
        report: &MatmulReport,
        heads: &[&str],
        cells: fn(&StoredRow, &Multiplied) -> Vec<String>,
    ) {
        let mut table = table(heads);
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Left);
        }
        for row in &report.rows {
            let stored = &report.stored[row.stored];
            let names = vec![stored.storage.to_string(), row.accumulation.to_string()];
            table.add_row([names, cells(stored, &row.multiplied)].concat());
        }
        self.out.push_str(&indented(&table));
    }
}

fn relative_cells(stored: &StoredRow, multiplied: &Multiplied) -> Vec<String> {
    let rms = |errors: &Option<Errors>| maybe(errors.and_then(|errors| errors.relative_rms));
    let snr = multiplied.total.and_then(|errors| errors.snr_db);
    vec![
        rms(&stored.errors),
        rms(&multiplied.accumulation),
        rms(&multiplied.total),
        snr.map_or_else(|| "-".to_owned(), |snr| format!("{snr:.1}")),
    ]
}

fn theory_cells(_: &StoredRow, multiplied: &Multiplied) -> Vec<String> {
    let measured = multiplied.accumulation.and_then(|errors| errors.relative_rms);
    let theory = &multiplied.theory;
    let share = 100.0 * multiplied.n_stalls as f64 / multiplied.n_additions.max(1) as f64;
    vec![
        maybe(measured),
        maybe(theory.expected),
        maybe(theory.probable),
        maybe(theory.certain),
        format!("{share:.1} %"),
    ]
}

fn output_cells(_: &StoredRow, multiplied: &Multiplied) -> Vec<String> {
    let total = multiplied.total.as_ref();
    let n_outputs = multiplied.values.len().max(1) as f64;
    let overflowed = 100.0 * multiplied.n_overflowed as f64 / n_outputs;
    vec![
        maybe(total.map(|total| total.max)),
        maybe(total.and_then(|total| total.max_relative)),
        maybe(total.map(|total| total.mean)),
        maybe(total.and_then(|total| total.drift)),
        format!("{overflowed:.1} %"),
    ]
}

/// Two significant digits; a dash for what there is not.
fn maybe(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) => format!("{value:.1e}"),
    }
}

fn short(value: f64) -> String {
    if 0.01 <= value && value < 1e6 { format!("{value:.2}") } else { format!("{value:.2e}") }
}

#[derive(Serialize)]
pub(super) struct MatmulJson<'a> {
    schema: u32,
    kind: &'static str,
    m: usize,
    n: usize,
    k: usize,
    a: &'a str,
    b: &'a str,
    seed: u64,
    exact_rms: f64,
    exact_max: f64,
    confidence: f64,
    rows: Vec<RowJson>,
    definitions: Vec<DefinitionJson>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct DefinitionJson {
    name: &'static str,
    meaning: String,
}

#[derive(Serialize)]
struct RowJson {
    format: String,
    scale: Option<&'static str>,
    scale_rule: Option<String>,
    accumulate: String,
    order: &'static str,
    rounding: &'static str,
    random_bits: Option<u8>,
    products: &'static str,
    chunk: Option<usize>,
    outer: Option<String>,
    input: Option<ErrorsJson>,
    accumulation: Option<ErrorsJson>,
    total: Option<ErrorsJson>,
    expected: Option<f64>,
    probable_bound: Option<f64>,
    sure_bound: Option<f64>,
    outputs: usize,
    overflowed: u64,
    additions: u64,
    stalls: u64,
    entries_saturated: Option<u64>,
    entries_to_zero: u64,
}

#[derive(Serialize)]
struct ErrorsJson {
    relative_rms: Option<f64>,
    snr_db: Option<f64>,
    max: f64,
    max_relative: Option<f64>,
    mean: f64,
    drift: Option<f64>,
}

pub(super) fn wire(report: &MatmulReport) -> MatmulJson<'_> {
    let definitions = if report.is_explained { definitions() } else { Vec::new() };
    MatmulJson {
        schema: super::json::SCHEMA,
        kind: "matmul-error",
        m: report.shape.m,
        n: report.shape.n,
        k: report.shape.k,
        a: &report.a,
        b: &report.b,
        seed: report.seed,
        exact_rms: report.exact_rms,
        exact_max: report.exact_max,
        confidence: CONFIDENCE,
        rows: report.rows.iter().map(|row| row_json(&report.stored[row.stored], row)).collect(),
        definitions,
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

/// Lines without a name continue the one before.
fn definitions() -> Vec<DefinitionJson> {
    let mut definitions: Vec<DefinitionJson> = Vec::new();
    for (name, meaning) in DEFINITIONS {
        match definitions.last_mut() {
            Some(last) if name.is_empty() => last.meaning += &format!(" {meaning}"),
            Some(_) | None => {
                definitions.push(DefinitionJson { name, meaning: (*meaning).to_owned() });
            }
        }
    }
    definitions
}

fn row_json(stored: &StoredRow, row: &MatmulRow) -> RowJson {
    let (format, scale, scale_rule) = storage_json(&stored.storage);
    let Accumulation { order, rounding, products, chunk, .. } = row.accumulation;
    let (rounding, random_bits) = match rounding {
        SumRounding::Nearest => ("nearest", None),
        SumRounding::TowardZero => ("toward-zero", None),
        SumRounding::Stochastic { n_bits } => ("stochastic", Some(n_bits)),
    };
    let multiplied = &row.multiplied;
    RowJson {
        format,
        scale,
        scale_rule,
        accumulate: row.accumulation.format.to_string(),
        order: match order {
            Order::Sequential => "sequential",
            Order::Pairwise => "pairwise",
            Order::Kahan => "kahan",
        },
        rounding,
        random_bits,
        products: match products {
            Products::Exact => "exact",
            Products::Rounded => "rounded",
        },
        chunk: chunk.map(|Chunk { length, .. }| length),
        outer: chunk.map(|Chunk { format, .. }| format.to_string()),
        input: stored.errors.map(errors_json),
        accumulation: multiplied.accumulation.map(errors_json),
        total: multiplied.total.map(errors_json),
        expected: multiplied.theory.expected,
        probable_bound: multiplied.theory.probable,
        sure_bound: multiplied.theory.certain,
        outputs: multiplied.values.len(),
        overflowed: multiplied.n_overflowed,
        additions: multiplied.n_additions,
        stalls: multiplied.n_stalls,
        entries_saturated: stored.n_saturated,
        entries_to_zero: stored.n_to_zero,
    }
}

fn storage_json(storage: &Storage) -> (String, Option<&'static str>, Option<String>) {
    match storage {
        Storage::Plain { format, scaling } => {
            let scale = match scaling {
                Scaling::None => "none",
                Scaling::Tensor => "tensor",
                Scaling::Row => "row",
            };
            (format.to_string(), Some(scale), None)
        }
        Storage::Blocks { format, .. } => {
            let name = storage.to_string();
            let rule = name.split_once('/').map(|(_, rule)| rule.to_owned());
            (format.to_string(), None, rule)
        }
    }
}

fn errors_json(errors: Errors) -> ErrorsJson {
    ErrorsJson {
        relative_rms: errors.relative_rms,
        snr_db: errors.snr_db,
        max: errors.max,
        max_relative: errors.max_relative,
        mean: errors.mean,
        drift: errors.drift,
    }
}
