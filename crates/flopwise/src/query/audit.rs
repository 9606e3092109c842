//! What a published rate was computed from: tokens per second beside FLOP per second give FLOPs per
//! token, and the readings of the model's step say which way of counting gives as many.
//!
//! Not here: the readings (see [`crate::cost::readings`]).

use super::{CountQuery, Opened, assumed_bindings, name_model, notes, opened};
use crate::cost::{self, Reading};
use crate::error::Error;
use crate::report::{AuditReport, ReadingRow, Report};
use std::str::FromStr;

/// A published rate of training.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditQuery {
    /// The model, its sequence length bound.
    pub count: CountQuery,
    /// Tokens per second and accelerator.
    pub tokens_per_second: Printed,
    /// TFLOP per second and accelerator.
    pub tflops: Printed,
    /// What the accelerator can do at most, in TFLOP per second, dense.
    pub peak_tflops: Option<f64>,
    /// Whether the formulas are shown.
    pub working: super::Working,
}

/// A number as printed, with what rounding may have hidden.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Printed {
    /// The number.
    pub value: f64,
    /// How far the number before rounding may be from it.
    pub within: f64,
}

impl FromStr for Printed {
    type Err = String;

    /// Reads `33,024` (half of the last digit hidden), `1030.67`, or `5248+-64`.
    fn from_str(text: &str) -> Result<Printed, String> {
        let usage = || format!("`{text}` is no rate; 33024, 1,077, 51.5 or 5248+-64 is");
        let (number, within) = match text.split_once("+-") {
            Some((number, within)) => (number, Some(within)),
            None => (text, None),
        };
        let plain = |text: &str| {
            let digits: String = text.trim().chars().filter(|c| !matches!(c, ',' | '_')).collect();
            let is_plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
            let value = digits.parse::<f64>().ok().filter(|_| is_plain);
            value.filter(|value| value.is_finite()).map(|value| (value, digits))
        };
        let (value, digits) = plain(number).ok_or_else(usage)?;
        let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let within = match within {
            Some(within) => plain(within).ok_or_else(usage)?.0,
            None => 0.5 / 10f64.powi(i32::try_from(decimals).map_err(|_| usage())?),
        };
        match within < value {
            true => Ok(Printed { value, within }),
            false => Err(usage()),
        }
    }
}

/// Two rates that were averaged apart, each over its own steps, agree no better than this: so far do
/// rows of one model differ in Megatron-Bridge's performance summaries.
const APART: f64 = 0.003;

/// Where rounding leaves only readings with two things counted differently or more, or none, the
/// convention nearest to the claim explains it if it is near enough.
fn accept_nearly(rows: &mut [ReadingRow]) {
    const PLAIN: u32 = 1;
    if rows.iter().any(|row| row.is_explaining && row.distance <= PLAIN + 1) {
        return;
    }
    let plain = rows.iter_mut().filter(|row| row.distance <= PLAIN);
    let nearest = plain.min_by(|a, b| a.off_by.abs().total_cmp(&b.off_by.abs()));
    if let Some(nearest) = nearest.filter(|row| row.off_by.abs() <= APART) {
        nearest.is_explaining = true;
    }
}

pub(super) fn audit(query: &AuditQuery) -> Result<Report, Error> {
    let report = run(query).map_err(|error| name_model(error, &query.count))?;
    Ok(Report::Audit(Box::new(report)))
}

fn run(query: &AuditQuery) -> Result<AuditReport, Error> {
    let Opened { graph, bindings: given, .. } = opened(&query.count)?;
    let assumed = assumed_bindings(&graph, &given);
    let mut bindings = given.clone();
    bindings.0.extend(assumed.clone());
    let readings = cost::readings(&graph, &bindings)?;
    let (rate, flops) = (query.tokens_per_second, query.tflops);
    let implied = 1e12 * flops.value / rate.value;
    let least = 1e12 * (flops.value - flops.within) / (rate.value + rate.within);
    let most = 1e12 * (flops.value + flops.within) / (rate.value - rate.within);
    let row = |reading: &Reading| {
        let per_token = reading.flops as f64 / readings.tokens as f64;
        ReadingRow {
            name: reading.name.clone(),
            flops_per_token: per_token,
            off_by: per_token / implied - 1.0,
            is_explaining: least <= per_token && per_token <= most,
            is_within_rounding: least <= per_token && per_token <= most,
            formula: reading.formula.clone(),
            distance: reading.distance,
        }
    };
    let mut rows: Vec<ReadingRow> = readings.all.iter().map(row).collect();
    // Of equally distant readings the one that agrees best stands first.
    rows.sort_by(|a, b| {
        let off = |row: &ReadingRow| row.off_by.abs();
        a.distance.cmp(&b.distance).then(off(a).total_cmp(&off(b)))
    });
    accept_nearly(&mut rows);
    let ours = readings.model_flops as f64 / readings.tokens as f64;
    Ok(AuditReport {
        model: graph.name.clone(),
        bindings: given.0.clone(),
        assumed,
        tokens: readings.tokens,
        tokens_per_second: rate.value,
        tflops: flops.value,
        implied,
        interval: (least, most),
        rows,
        model_flops_per_token: ours,
        achieved_tflops: ours * rate.value / 1e12,
        peak_tflops: query.peak_tflops,
        is_explained_at_length: query.working == super::Working::Shown,
        notes: notes(&graph),
    })
}
