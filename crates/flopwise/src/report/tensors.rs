//! The answer of `flopwise tensors`: what formats would do to each tensor of a file, its text and
//! its JSON.
//!
//! Not here: reading tensors and judging them ([`flopwise_formats::stats`]).

use super::json::SCHEMA;
use super::text::{Page, indented, shortened, table};
use crate::note::Note;
use crate::units::grouped;
use flopwise_formats::Format;
use flopwise_formats::block::BlockFormat;
use flopwise_formats::stats::{Scaled, Snr, SourceStats, Stats, TargetStats};
use serde::Serialize;

/// Tensors shown in a table; the rest is counted in one line.
const MAX_ROWS: usize = 30;

/// What formats would do to the tensors of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorsReport {
    /// The file, as it was named.
    pub file: String,
    /// `safetensors`, `gguf`, `npy`, `npz`.
    pub kind: &'static str,
    /// The formats asked about, by name.
    pub targets: Vec<String>,
    /// The tensors asked about, in the file's order.
    pub tensors: Vec<TensorRow>,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorRow {
    /// Its name in the file.
    pub name: String,
    /// The format of its elements.
    pub format: Format,
    /// The blocks that it is stored in, if any.
    pub block: Option<&'static BlockFormat>,
    /// Bytes that it takes in the file.
    pub bytes: u64,
    /// Its sizes.
    pub shape: Vec<u64>,
    /// Elements in all.
    pub elements: u64,
    /// What was found.
    pub verdict: Verdict,
}

/// Whether a tensor could be judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its statistics, with one entry for each format asked about.
    Judged(Box<Stats>),
    /// Why its elements are no values to judge.
    NotJudged(String),
}

/// One format over all tensors judged.
#[derive(Clone, Debug, PartialEq)]
struct Total<'a> {
    target: &'a str,
    stats: TargetStats,
    /// Each tensor with its own best power of two; `None` if some tensor has none.
    best_power: Option<Snr>,
    /// Each tensor with its own scale to the largest value.
    by_amax: Option<Snr>,
}

impl TensorRow {
    /// The name of what the file holds: of the blocks, or of the elements.
    fn stored(&self) -> String {
        self.block.map_or_else(|| self.format.to_string(), |block| block.name.to_owned())
    }
}

impl TensorsReport {
    /// The tensors that were judged.
    fn judged(&self) -> impl Iterator<Item = (&TensorRow, &Stats)> {
        self.tensors.iter().filter_map(|row| match &row.verdict {
            Verdict::Judged(stats) => Some((row, stats.as_ref())),
            Verdict::NotJudged(_) => None,
        })
    }

    /// How many tensors were judged.
    pub fn n_judged(&self) -> usize {
        self.judged().count()
    }

    fn totals(&self) -> Vec<Total<'_>> {
        let totals = self.targets.iter().enumerate().filter_map(|(target_idx, target)| {
            let all: Vec<&TargetStats> =
                self.judged().filter_map(|(_, stats)| stats.targets.get(target_idx)).collect();
            let (first, rest) = all.split_first()?;
            let mut stats = (*first).clone();
            rest.iter().for_each(|other| stats.merge(other));
            let best_power = together(&all, |stats| stats.best_power);
            let by_amax = together(&all, |stats| stats.by_amax);
            Some(Total { target, stats, best_power, by_amax })
        });
        totals.collect()
    }
}

/// The ratio over several tensors, each with its scale; zeros alone need none.
fn together(all: &[&TargetStats], pick: fn(&TargetStats) -> Option<Scaled>) -> Option<Snr> {
    let (mut squares, mut errors) = (0.0, 0.0);
    for stats in all {
        match pick(stats) {
            Some(scaled) => {
                squares += scaled.sum_of_squares;
                errors += scaled.sum_of_squared_errors;
            }
            None if stats.sum_of_squares == 0.0 && stats.changed == 0 => {}
            None => return None,
        }
    }
    let together = Scaled {
        scale: 1.0,
        sum_of_squared_errors: errors,
        sum_of_squares: squares,
        is_exact: false,
    };
    Some(together.snr())
}

impl Page {
    pub(super) fn tensors(&mut self, report: &TensorsReport) {
        let elements: u128 = report.judged().map(|(row, _)| u128::from(row.elements)).sum();
        let n_judged = report.n_judged();
        self.heading(&format!("Tensors of {} ({})", report.file, report.kind));
        let of = format!("of {}", grouped(report.tensors.len() as u128));
        self.fact("tensors judged", &grouped(n_judged as u128), &of);
        self.fact("elements", &grouped(elements), "");
        let single = if n_judged == 1 { report.judged().next() } else { None };
        match single {
            Some((row, stats)) => self.tensor(row, &stats.source),
            None if 0 < n_judged => self.tensor_rows(report),
            None => {}
        }
        if 0 < n_judged {
            self.totals_by_format(report);
            self.scales(report);
            self.heading("How to read this");
            self.line(
                "  SNR = 10 log10(sum x^2 / sum (x - q)^2); values too large become the largest.",
            );
            self.line(
                "  2^k: each tensor times the power of two with the least error (ties to 2^0);",
            );
            self.line("  amax: times largest value / largest magnitude. ~ is an estimate.");
        }
        self.not_judged(report);
        self.stored_too_wide(report);
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }

    fn tensor(&mut self, row: &TensorRow, source: &SourceStats) {
        self.heading(&format!("Tensor {}", shortened(&row.name)));
        let shape: Vec<String> = row.shape.iter().map(u64::to_string).collect();
        self.fact("stored", &format!("{} [{}]", row.stored(), shape.join(", ")), "");
        let counts = [
            ("zeros", source.zeros),
            ("negative", source.negative),
            ("NaN", source.nan),
            ("infinite", source.infinite),
        ];
        for (label, count) in counts {
            self.fact(label, &grouped(u128::from(count)), &share(count, row.elements));
        }
        let numbers = [
            ("smallest", source.min),
            ("largest", source.max),
            ("largest magnitude", source.amax),
            ("smallest, not zero", source.amin),
            ("mean", source.mean),
            ("root mean square", source.rms),
        ];
        for (label, number) in numbers {
            self.fact(label, &number.map_or_else(|| "none".to_owned(), short), "");
        }
        if let Some(codes) = source.distinct_codes {
            self.fact("different codes", &grouped(u128::from(codes)), "");
        }
        self.exponents(source);
    }

    /// Binades, at most 24 of them in rows; the smaller ones together.
    fn exponents(&mut self, source: &SourceStats) {
        const MAX_BINADES: usize = 24;
        let nonzero: u64 = source.exponents.iter().map(|(_, n)| n).sum();
        if nonzero == 0 {
            return;
        }
        self.heading("Magnitudes, by power of two");
        let most = source.exponents.iter().map(|(_, n)| *n).max().unwrap_or(1);
        for (exponent, n) in source.exponents.iter().rev().take(MAX_BINADES) {
            let bar = "#".repeat((40 * u128::from(*n)).div_ceil(u128::from(most)) as usize);
            let count = grouped(u128::from(*n));
            self.line(&format!("  2^{exponent:<5} {count:>16} {bar}"));
        }
        if MAX_BINADES < source.exponents.len() {
            let rest = &source.exponents[..source.exponents.len() - MAX_BINADES];
            let n: u64 = rest.iter().map(|(_, n)| n).sum();
            self.line(&format!("  smaller {:>16}", grouped(u128::from(n))));
        }
    }

    fn tensor_rows(&mut self, report: &TensorsReport) {
        self.heading("Signal to noise in dB, by tensor");
        let mut heads = vec!["tensor", "stored", "elements", "largest"];
        heads.extend(report.targets.iter().map(String::as_str));
        let mut rows = table(&heads);
        for (row, stats) in report.judged().take(MAX_ROWS) {
            let mut cells = vec![
                shortened(&row.name),
                row.stored(),
                grouped(u128::from(row.elements)),
                stats.source.amax.map_or_else(|| "none".to_owned(), short),
            ];
            cells.extend(stats.targets.iter().map(|target| decibels(target.snr())));
            rows.add_row(cells);
        }
        self.out.push_str(&indented(&rows));
        let n_judged = report.n_judged();
        if MAX_ROWS < n_judged {
            self.line(&format!("  ... and {} more (--json has all)", n_judged - MAX_ROWS));
        }
    }

    fn totals_by_format(&mut self, report: &TensorsReport) {
        self.heading("By format");
        let heads = [
            "format",
            "SNR dB",
            "max error",
            "max relative",
            "changed",
            "too large",
            "to zero",
            "subnormal",
        ];
        let mut rows = table(&heads);
        for total in report.totals() {
            let stats = &total.stats;
            let count = |count: u64| grouped(u128::from(count));
            rows.add_row(vec![
                total.target.to_owned(),
                decibels(stats.snr()),
                short(stats.max_abs_error),
                short(stats.max_rel_error),
                count(stats.changed),
                count(stats.overflow),
                count(stats.underflow),
                count(stats.subnormal),
            ]);
        }
        self.out.push_str(&indented(&rows));
    }

    fn scales(&mut self, report: &TensorsReport) {
        let totals = report.totals();
        if totals.iter().all(|total| total.best_power.is_none() && total.by_amax.is_none()) {
            return;
        }
        let single = if report.n_judged() == 1 { report.judged().next() } else { None };
        self.heading("SNR in dB with a scale for each tensor");
        let mut rows = table(&["format", "no scale", "2^k", "amax", "best 2^k"]);
        for (target_idx, total) in totals.iter().enumerate() {
            let scaled = |snr: Option<Snr>| snr.map_or_else(|| "none".to_owned(), decibels);
            let stats = single.and_then(|(_, stats)| stats.targets.get(target_idx));
            let best = match (stats, stats.and_then(|stats| stats.best_power)) {
                (Some(_), Some(best)) => {
                    format!("{}2^{}", approximate(best.is_exact), best.scale.log2())
                }
                (Some(_), None) => "none".to_owned(),
                (None, _) => "by tensor".to_owned(),
            };
            let unscaled = decibels(total.stats.snr());
            let name = total.target.to_owned();
            rows.add_row(vec![
                name,
                unscaled,
                scaled(total.best_power),
                scaled(total.by_amax),
                best,
            ]);
        }
        self.out.push_str(&indented(&rows));
    }

    fn not_judged(&mut self, report: &TensorsReport) {
        let refused = report.tensors.iter().filter_map(|row| match &row.verdict {
            Verdict::Judged(_) => None,
            Verdict::NotJudged(why) => Some((row, why)),
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() {
            return;
        }
        let elements: u128 = refused.iter().map(|(row, _)| u128::from(row.elements)).sum();
        let (n_refused, elements) = (refused.len(), grouped(elements));
        self.heading(&format!("Not judged ({n_refused} tensors, {elements} elements)"));
        for (row, why) in refused.iter().take(MAX_ROWS) {
            self.line(&format!("  {}: {why}", shortened(&row.name)));
        }
        if MAX_ROWS < n_refused {
            self.line(&format!("  ... and {} more (--json has all)", n_refused - MAX_ROWS));
        }
    }

    fn stored_too_wide(&mut self, report: &TensorsReport) {
        let mut found: Vec<(Format, Format, usize, &str)> = Vec::new();
        for (row, stats) in report.judged().filter(|(row, _)| row.block.is_none()) {
            // Codes judged with their scale are narrower than most of what holds their values.
            let mut exact_in = stats.source.exact_in.iter();
            let Some(narrow) = exact_in.find(|format| format.bits < row.format.bits) else {
                continue;
            };
            let known = found
                .iter_mut()
                .find(|(stored, exact, ..)| *stored == row.format && exact == narrow);
            match known {
                Some((_, _, count, _)) => *count += 1,
                None => found.push((row.format, *narrow, 1, &row.name)),
            }
        }
        if found.is_empty() {
            return;
        }
        self.heading("Stored wider than needed");
        for (stored, exact, count, first) in found {
            let tensors = if count == 1 { "tensor" } else { "tensors" };
            let first = shortened(first);
            self.line(&format!(
                "  {count} {tensors} stored as {stored}, every value exactly {exact} (first {first})"
            ));
        }
    }
}

fn approximate(is_exact: bool) -> &'static str {
    if is_exact { "" } else { "~" }
}

fn decibels(snr: Snr) -> String {
    match snr {
        Snr::Exact => "exact".to_owned(),
        Snr::Decibels(ratio) => format!("{ratio:.2}"),
        Snr::Nothing => "none".to_owned(),
    }
}

/// Four digits.
fn short(number: f64) -> String {
    let magnitude = number.abs();
    match magnitude {
        0.0 => "0".to_owned(),
        1e-3..1e4 => {
            let places = 3 - (magnitude.log10().floor() as i32).min(3);
            let text = format!("{number:.*}", places as usize);
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
        _ => format!("{number:.3e}"),
    }
}

fn share(count: u64, of: u64) -> String {
    match (count, of) {
        (0, _) | (_, 0) => String::new(),
        _ => format!("{:.4} %", 100.0 * count as f64 / of as f64),
    }
}

/// The report as it is written in JSON.
#[derive(Serialize)]
pub(super) struct TensorsJson<'a> {
    schema: u32,
    kind: &'static str,
    file: &'a str,
    file_kind: &'static str,
    targets: &'a [String],
    elements_judged: u128,
    totals: Vec<TargetJson<'a>>,
    tensors: Vec<TensorJson<'a>>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct TensorJson<'a> {
    name: &'a str,
    format: String,
    shape: &'a [u64],
    elements: u64,
    bytes: u64,
    not_judged: Option<&'a str>,
    source: Option<SourceJson>,
    targets: Vec<TargetJson<'a>>,
}

#[derive(Serialize)]
struct SourceJson {
    finite: u64,
    nan: u64,
    infinite: u64,
    zeros: u64,
    negative: u64,
    min: Option<f64>,
    max: Option<f64>,
    amax: Option<f64>,
    amin: Option<f64>,
    mean: Option<f64>,
    rms: Option<f64>,
    exponents: Vec<(i32, u64)>,
    varying_bits: String,
    trailing_zero_bits: u32,
    distinct_codes: Option<u64>,
    exact_in: Vec<String>,
}

#[derive(Serialize)]
struct TargetJson<'a> {
    format: &'a str,
    judged: u64,
    changed: u64,
    overflow: u64,
    saturated: u64,
    underflow: u64,
    subnormal: u64,
    invalid: u64,
    lost_specials: u64,
    left_out: u64,
    max_abs_error: f64,
    max_rel_error: f64,
    mse: Option<f64>,
    snr_db: Option<f64>,
    exact: bool,
    best_power_of_two: Option<ScaledJson>,
    by_amax: Option<ScaledJson>,
}

#[derive(Serialize)]
struct ScaledJson {
    scale: Option<f64>,
    snr_db: Option<f64>,
    exact: bool,
    estimate: bool,
}

pub(super) fn wire(report: &TensorsReport) -> TensorsJson<'_> {
    let totals = report.totals().into_iter().map(|total| TargetJson {
        best_power_of_two: total.best_power.map(|snr| scaled_json(None, snr, true)),
        by_amax: total.by_amax.map(|snr| scaled_json(None, snr, true)),
        ..target_json(total.target, &total.stats)
    });
    TensorsJson {
        schema: SCHEMA,
        kind: "tensors",
        file: &report.file,
        file_kind: report.kind,
        targets: &report.targets,
        elements_judged: report.judged().map(|(row, _)| u128::from(row.elements)).sum(),
        totals: totals.collect(),
        tensors: report.tensors.iter().map(|row| tensor_json(row, &report.targets)).collect(),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

fn tensor_json<'a>(row: &'a TensorRow, targets: &'a [String]) -> TensorJson<'a> {
    let (stats, not_judged) = match &row.verdict {
        Verdict::Judged(stats) => (Some(stats.as_ref()), None),
        Verdict::NotJudged(why) => (None, Some(why.as_str())),
    };
    let judged = stats.map_or(&[][..], |stats| &stats.targets);
    TensorJson {
        name: &row.name,
        format: row.stored(),
        shape: &row.shape,
        elements: row.elements,
        bytes: row.bytes,
        not_judged,
        source: stats.map(|stats| source_json(&stats.source)),
        targets: targets.iter().zip(judged).map(|(name, stats)| target_json(name, stats)).collect(),
    }
}

fn source_json(source: &SourceStats) -> SourceJson {
    SourceJson {
        finite: source.finite,
        nan: source.nan,
        infinite: source.infinite,
        zeros: source.zeros,
        negative: source.negative,
        min: source.min,
        max: source.max,
        amax: source.amax,
        amin: source.amin,
        mean: source.mean,
        rms: source.rms,
        exponents: source.exponents.clone(),
        varying_bits: format!("{:#x}", source.varying_bits),
        trailing_zero_bits: source.trailing_zero_bits,
        distinct_codes: source.distinct_codes,
        exact_in: source.exact_in.iter().map(Format::to_string).collect(),
    }
}

fn target_json<'a>(format: &'a str, stats: &TargetStats) -> TargetJson<'a> {
    let scaled = |scaled: Option<Scaled>| {
        scaled.map(|scaled| scaled_json(Some(scaled.scale), scaled.snr(), !scaled.is_exact))
    };
    let (snr_db, exact) = ratio(stats.snr());
    TargetJson {
        format,
        judged: stats.judged,
        changed: stats.changed,
        overflow: stats.overflow,
        saturated: stats.saturated,
        underflow: stats.underflow,
        subnormal: stats.subnormal,
        invalid: stats.invalid,
        lost_specials: stats.lost_specials,
        left_out: stats.left_out,
        max_abs_error: stats.max_abs_error,
        max_rel_error: stats.max_rel_error,
        mse: stats.mse(),
        snr_db,
        exact,
        best_power_of_two: scaled(stats.best_power),
        by_amax: scaled(stats.by_amax),
    }
}

fn scaled_json(scale: Option<f64>, snr: Snr, estimate: bool) -> ScaledJson {
    let (snr_db, exact) = ratio(snr);
    ScaledJson { scale, snr_db, exact, estimate }
}

/// In decibels, and whether there is no error at all.
fn ratio(snr: Snr) -> (Option<f64>, bool) {
    match snr {
        Snr::Exact => (None, true),
        Snr::Decibels(ratio) => (Some(ratio), false),
        Snr::Nothing => (None, false),
    }
}
