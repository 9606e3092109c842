//! What a published rate was computed from, as text and JSON.
//!
//! Not here: how the numbers come about (see [`crate::query`]).

use super::json::SCHEMA;
use super::text::{Page, bindings, indented, percent, table};
use crate::note::Note;
use comfy_table::CellAlignment;
use serde::Serialize;
use std::collections::BTreeMap;

/// Readings shown of those that explain a claim, and of those nearest to it.
const MAX_SHOWN: usize = 6;

/// A published rate beside the ways to count.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditReport {
    /// The model's name.
    pub model: String,
    /// Values the user gave.
    pub bindings: BTreeMap<String, i128>,
    /// Values assumed because the user gave none.
    pub assumed: BTreeMap<String, i128>,
    /// Tokens of one step.
    pub tokens: i128,
    /// Tokens per second and accelerator, as claimed.
    pub tokens_per_second: f64,
    /// TFLOP per second and accelerator, as claimed.
    pub tflops: f64,
    /// FLOPs per token that both imply.
    pub implied: f64,
    /// From where to where that may be, before both were rounded.
    pub interval: (f64, f64),
    /// Every reading, nearest to this project's convention first.
    pub rows: Vec<ReadingRow>,
    /// This project's model FLOPs per token.
    pub model_flops_per_token: f64,
    /// TFLOP per second by this project's convention.
    pub achieved_tflops: f64,
    /// What the accelerator can do at most, where given.
    pub peak_tflops: Option<f64>,
    /// Whether formulas are shown.
    pub is_explained_at_length: bool,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

/// One way to count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadingRow {
    /// Its name, or what is counted differently.
    pub name: String,
    /// FLOPs per token.
    pub flops_per_token: f64,
    /// By how much that is more than the claim implies, as a share of it.
    pub off_by: f64,
    /// Whether it explains the claim: within what rounding allows, or, of the named conventions, the
    /// nearest and as near as rates averaged apart agree.
    #[serde(rename = "explains")]
    pub is_explaining: bool,
    /// Whether it lies within what rounding allows.
    #[serde(rename = "within_rounding")]
    pub is_within_rounding: bool,
    /// The working.
    pub formula: String,
    /// How far it is from this project's convention.
    pub distance: u32,
}

impl AuditReport {
    /// The reading nearest to this project's convention that explains the claim.
    #[must_use]
    pub fn explanation(&self) -> Option<&ReadingRow> {
        self.rows.iter().find(|row| row.is_explaining)
    }

    /// Model FLOPs utilisation by this project's convention, where a peak is given.
    #[must_use]
    pub fn mfu(&self) -> Option<f64> {
        self.peak_tflops.map(|peak| self.achieved_tflops / peak)
    }

    /// The named readings, and of the others those that explain the claim with as few differences
    /// as any, or else the nearest.
    fn shown(&self) -> Vec<&ReadingRow> {
        let is_named = |row: &&ReadingRow| row.distance < 2;
        let mut shown: Vec<&ReadingRow> = self.rows.iter().filter(is_named).collect();
        let others: Vec<&ReadingRow> = self.rows.iter().filter(|row| !is_named(row)).collect();
        let least = self.explanation().map(|row| row.distance);
        let alike = others.iter().filter(|row| row.is_explaining && Some(row.distance) == least);
        let alike: Vec<&ReadingRow> = alike.copied().take(MAX_SHOWN).collect();
        if !alike.is_empty() {
            shown.extend(alike);
            return shown;
        }
        let mut nearest = others;
        nearest.sort_by(|a, b| a.off_by.abs().total_cmp(&b.off_by.abs()));
        shown.extend(nearest.into_iter().filter(|row| row.distance <= 2).take(MAX_SHOWN));
        shown
    }
}

fn giga(flops: f64) -> String {
    format!("{:.3}", flops / 1e9)
}

impl Page {
    pub(super) fn audit(&mut self, report: &AuditReport) {
        let at = bindings(&report.bindings, &report.assumed);
        self.heading(&format!("Claim about {}{at}", report.model));
        let per_second = |value: f64, unit: &str| format!("{value} {unit}");
        let each = "per accelerator";
        self.fact("tokens", &per_second(report.tokens_per_second, "per second"), each);
        self.fact("claimed", &per_second(report.tflops, "TFLOP/s"), each);
        let (least, most) = report.interval;
        let between = format!("{} to {} before rounding", giga(least), giga(most));
        self.fact("implied", &format!("{} GFLOP per token", giga(report.implied)), &between);
        let ours = format!("{} GFLOP per token", giga(report.model_flops_per_token));
        let off = report.model_flops_per_token / report.implied - 1.0;
        self.fact("model FLOPs here", &ours, &format!("{:+.2} %", 100.0 * off));
        let achieved = format!("{:.1} TFLOP/s", report.achieved_tflops);
        let share = match (report.mfu(), report.peak_tflops) {
            (Some(mfu), Some(peak)) => format!("{} of {peak} TFLOP/s (MFU)", percent(mfu)),
            _ => "by the convention here; --gpu-peak-tflops P gives the MFU".to_owned(),
        };
        self.fact("achieved", &achieved, &share);
        match report.explanation() {
            Some(row) if row.is_within_rounding => self.fact("explained by", &row.name, ""),
            Some(row) => {
                let off = 100.0 * row.off_by;
                let why = format!("{off:+.2} %: rates averaged apart agree to 0.3 %");
                self.fact("explained by", &row.name, &why);
            }
            None => {
                let nearest =
                    report.rows.iter().min_by(|a, b| a.off_by.abs().total_cmp(&b.off_by.abs()));
                let nearest = nearest.map(|row| {
                    format!("the nearest is {:+.2} % off: {}", 100.0 * row.off_by, row.name)
                });
                self.fact("explained by", "none does", &nearest.unwrap_or_default());
            }
        }
        self.heading("Ways to count");
        let mut cells = table(&["GFLOP per token", "off by", "explains", "counted"]);
        for row in report.shown() {
            cells.add_row(vec![
                giga(row.flops_per_token),
                format!("{:+.2} %", 100.0 * row.off_by),
                if row.is_explaining { "yes" } else { "no" }.to_owned(),
                row.name.clone(),
            ]);
        }
        if let Some(column) = cells.column_mut(3) {
            column.set_cell_alignment(CellAlignment::Left);
        }
        self.out.push_str(&indented(&cells));
        if report.explanation().is_some_and(|row| 2 < row.distance) {
            self.line("  Several differences together may also agree by chance.");
        }
        if report.is_explained_at_length {
            self.heading("How they come about");
            for row in report.shown() {
                self.line(&format!("  {}: {}", row.name, row.formula));
            }
        }
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }
}

#[derive(Serialize)]
pub(super) struct AuditJson<'a> {
    schema: u32,
    kind: &'static str,
    model: &'a str,
    bindings: BTreeMap<&'a str, i128>,
    assumed: Vec<&'a str>,
    tokens: i128,
    tokens_per_second: f64,
    tflops: f64,
    implied_flops_per_token: f64,
    least_flops_per_token: f64,
    most_flops_per_token: f64,
    model_flops_per_token: f64,
    achieved_tflops: f64,
    peak_tflops: Option<f64>,
    mfu: Option<f64>,
    explained_by: Option<&'a str>,
    readings: &'a [ReadingRow],
    notes: Vec<&'a str>,
}

pub(super) fn wire(report: &AuditReport) -> AuditJson<'_> {
    let given = report.bindings.iter().chain(&report.assumed);
    AuditJson {
        schema: SCHEMA,
        kind: "audit",
        model: &report.model,
        bindings: given.map(|(name, value)| (name.as_str(), *value)).collect(),
        assumed: report.assumed.keys().map(String::as_str).collect(),
        tokens: report.tokens,
        tokens_per_second: report.tokens_per_second,
        tflops: report.tflops,
        implied_flops_per_token: report.implied,
        least_flops_per_token: report.interval.0,
        most_flops_per_token: report.interval.1,
        model_flops_per_token: report.model_flops_per_token,
        achieved_tflops: report.achieved_tflops,
        peak_tflops: report.peak_tflops,
        mfu: report.mfu(),
        explained_by: report.explanation().map(|row| row.name.as_str()),
        readings: &report.rows,
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}
