//! Formats and accumulations -> what they do to a matrix multiplication.
//!
//! Not here: the arithmetic, which is [`flopwise_formats::matmul`]'s.

use crate::error::Error;
use crate::note::Note;
use crate::report::{MatmulReport, MatmulRow, Report, StoredRow};
use flopwise_formats::block::{self, BlockLayout, ScaleRule};
use flopwise_formats::matmul::{
    self, Accumulation, Chunk, MAX_PRODUCTS, Multiplied, Order, Products, Scaling, Shape, Source,
    Storage, SumRounding,
};
use flopwise_formats::{Format, Layout, parse};

/// What formats and accumulations do to a matrix multiplication; every combination is a row.
#[derive(Clone, Debug, PartialEq)]
pub struct MatmulQuery {
    /// The sizes.
    pub shape: Shape,
    /// The entries of A.
    pub a: Source,
    /// The entries of B.
    pub b: Source,
    /// Of everything random.
    pub seed: u64,
    /// Names of the formats that A and B are stored in, plain or of blocks.
    pub formats: Vec<String>,
    /// By what entries of plain formats are divided; `None` for nothing in floats, and the row's
    /// largest magnitude in integers and tables of values.
    pub scaling: Option<Scaling>,
    /// Which power of two MX blocks get.
    pub rules: Vec<ScaleRule>,
    /// Names of the formats that hold partial sums.
    pub accumulate: Vec<String>,
    /// In which order.
    pub orders: Vec<Order>,
    /// How partial sums are rounded.
    pub roundings: Vec<SumRounding>,
    /// Whether products are rounded first.
    pub products: Products,
    /// Products in a chunk; `None` for all.
    pub chunks: Vec<Option<usize>>,
    /// Name of the format in which chunks are added.
    pub outer: String,
    /// Whether the working is shown.
    pub is_explained: bool,
}

/// Most rows of a comparison.
const MAX_ROWS: usize = 256;
/// A row whose additions did nothing more often than this has a note.
const MANY_STALLS: f64 = 0.1;
/// So many times the error of independent roundings is more than chance.
const CORRELATED: f64 = 3.0;

pub(super) fn matmul(query: &MatmulQuery) -> Result<Report, Error> {
    let products = query.shape.products().map_err(said)?;
    let storages = storages(query)?;
    let accumulations = accumulations(query)?;
    let n_rows = storages.len().saturating_mul(accumulations.len());
    if MAX_ROWS < n_rows {
        return Err(Error::new(format!("{n_rows} rows are more than {MAX_ROWS}"))
            .remedy("name fewer formats, orders or chunks"));
    }
    if MAX_PRODUCTS / n_rows.max(1) < products {
        let Shape { m, n, k } = query.shape;
        let what = format!("{n_rows} rows of {m} x {n} x {k} products are more than 2^31");
        return Err(Error::new(what).remedy("take a smaller --m, --n or --k, or fewer rows"));
    }
    let operands = matmul::operands(query.shape, query.a.clone(), query.b.clone(), query.seed)
        .map_err(said)?;
    let (mut stored_rows, mut rows) = (Vec::new(), Vec::new());
    for storage in &storages {
        let stored = matmul::store(&operands, storage).map_err(said)?;
        for accumulation in &accumulations {
            let multiplied = matmul::multiply(&operands, &stored, accumulation, query.seed);
            rows.push(MatmulRow {
                stored: stored_rows.len(),
                accumulation: *accumulation,
                multiplied: multiplied.map_err(said)?,
            });
        }
        stored_rows.push(StoredRow {
            storage: *storage,
            errors: stored.errors,
            n_saturated: stored.n_saturated,
            n_to_zero: stored.n_to_zero,
        });
    }
    let squares: f64 = operands.exact().iter().map(|exact| exact * exact).sum();
    Ok(Report::Matmul(Box::new(MatmulReport {
        shape: query.shape,
        a: source(&query.a),
        b: source(&query.b),
        seed: query.seed,
        exact_rms: (squares / operands.exact().len() as f64).sqrt(),
        exact_max: operands.exact().iter().fold(0.0, |max: f64, exact| max.max(exact.abs())),
        notes: notes(&stored_rows, &rows),
        stored: stored_rows,
        rows,
        is_explained: query.is_explained,
    })))
}

fn said(refused: matmul::Refused) -> Error {
    Error::new(refused.to_string())
}

fn source(source: &Source) -> String {
    match source {
        Source::Drawn(distribution) => distribution.about().to_owned(),
        Source::Values(values) => format!("{} given values", values.len()),
    }
}

fn storages(query: &MatmulQuery) -> Result<Vec<Storage>, Error> {
    let mut storages = Vec::new();
    for name in &query.formats {
        match parse(name) {
            Ok(format) => {
                let scaling = query.scaling.unwrap_or_else(|| usual_scaling(format));
                storages.push(Storage::Plain { format, scaling });
            }
            Err(plain) => {
                let format = block::parse(name).map_err(|block| {
                    let is_of_blocks = block.problem.starts_with("is ambiguous")
                        && !plain.problem.starts_with("is ambiguous");
                    let error = if is_of_blocks { block } else { plain };
                    Error::new(error.to_string())
                        .remedy("blocks are mxfp8_e4m3, mxfp6_e2m3, mxfp4, nvfp4, int8_g32 ...")
                })?;
                let rules = match format.layout {
                    BlockLayout::Mx(_) => query.rules.as_slice(),
                    BlockLayout::Nvfp4
                    | BlockLayout::Group { .. }
                    | BlockLayout::Ggml(_)
                    | BlockLayout::Grid => &[ScaleRule::Floor],
                };
                storages.extend(rules.iter().map(|rule| Storage::Blocks { format, rule: *rule }));
            }
        }
    }
    Ok(storages)
}

/// An integer without a scale holds little of most tensors.
fn usual_scaling(format: Format) -> Scaling {
    match format.layout {
        Layout::SignedInteger | Layout::CodeBook(_) => Scaling::Row,
        Layout::Float(_)
        | Layout::UnsignedInteger
        | Layout::Boolean
        | Layout::Complex
        | Layout::Text => Scaling::None,
    }
}

fn accumulations(query: &MatmulQuery) -> Result<Vec<Accumulation>, Error> {
    let named = |name: &String| parse(name).map_err(|error| Error::new(error.to_string()));
    let outer = named(&query.outer)?;
    let mut accumulations = Vec::new();
    for name in &query.accumulate {
        let format = named(name)?;
        for order in &query.orders {
            for rounding in &query.roundings {
                for length in &query.chunks {
                    accumulations.push(Accumulation {
                        format,
                        order: *order,
                        rounding: *rounding,
                        products: query.products,
                        chunk: length.map(|length| Chunk { length, format: outer }),
                    });
                }
            }
        }
    }
    Ok(accumulations)
}

fn notes(stored: &[StoredRow], rows: &[MatmulRow]) -> Vec<Note> {
    let mut notes = Vec::new();
    for row in stored {
        if let Some(n_saturated) = row.n_saturated.filter(|n_saturated| 0 < *n_saturated) {
            let storage = row.storage;
            notes.push(Note::new(format!(
                "{storage}: {n_saturated} entries were beyond its largest value and were cut to \
                 it; --scale row divides them first"
            )));
        }
    }
    for row in rows {
        let name = format!("{} in {}", stored[row.stored].storage, row.accumulation);
        let Multiplied { n_overflowed, n_stalls, n_additions, .. } = row.multiplied;
        if 0 < n_overflowed {
            let n_outputs = row.multiplied.values.len();
            notes.push(Note::new(format!(
                "{name}: {n_overflowed} of {n_outputs} outputs overflowed to infinity or NaN; the \
                 errors are of the others"
            )));
        }
        let share = n_stalls as f64 / n_additions.max(1) as f64;
        // What Kahan's sum does not add it keeps, and random bits make up for it.
        let is_lost = row.accumulation.order != Order::Kahan
            && !matches!(row.accumulation.rounding, SumRounding::Stochastic { .. });
        if MANY_STALLS < share && is_lost {
            notes.push(Note::new(format!(
                "{name}: {:.1} % of additions left the sum as it was, as the addend was below half \
                 of its last place; chunks, pairs or Kahan's sum help",
                100.0 * share
            )));
        }
        let measured = row.multiplied.accumulation.and_then(|errors| errors.relative_rms);
        if let Some((measured, expected)) = measured.zip(row.multiplied.theory.expected)
            && CORRELATED * expected < measured
        {
            notes.push(Note::new(format!(
                "{name}: the error is {:.0} times that of independent roundings: they point the \
                 same way",
                measured / expected
            )));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use flopwise_formats::matmul::Distribution;

    fn query() -> MatmulQuery {
        MatmulQuery {
            shape: Shape { m: 2, n: 2, k: 64 },
            a: Source::Drawn(Distribution::Normal),
            b: Source::Drawn(Distribution::Normal),
            seed: 1,
            formats: vec!["bf16".into()],
            scaling: None,
            rules: vec![ScaleRule::Floor],
            accumulate: vec!["fp32".into()],
            orders: vec![Order::Sequential],
            roundings: vec![SumRounding::Nearest],
            products: Products::Exact,
            chunks: vec![None],
            outer: "fp32".into(),
            is_explained: false,
        }
    }

    #[track_caller]
    fn rows(query: &MatmulQuery) -> Vec<String> {
        let Report::Matmul(report) = matmul(query).unwrap() else { panic!() };
        let name = |row: &MatmulRow| {
            format!("{} in {}", report.stored[row.stored].storage, row.accumulation)
        };
        report.rows.iter().map(name).collect()
    }

    #[test]
    fn every_combination_is_a_row() {
        let formats = ["mxfp4", "int8", "nvfp4"].map(str::to_owned).to_vec();
        let rules = vec![ScaleRule::Floor, ScaleRule::Rceil];
        let query = MatmulQuery { formats, rules, chunks: vec![None, Some(16)], ..query() };
        assert_eq!(
            rows(&query),
            [
                "mxfp4/floor in fp32",
                "mxfp4/floor in fp32, by 16 in fp32",
                "mxfp4/rceil in fp32",
                "mxfp4/rceil in fp32, by 16 in fp32",
                "int8/row in fp32",
                "int8/row in fp32, by 16 in fp32",
                "nvfp4 in fp32",
                "nvfp4 in fp32, by 16 in fp32",
            ]
        );
    }

    #[test]
    fn what_is_refused() {
        let check = |query: MatmulQuery, said: &str| {
            let error = matmul(&query).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        };
        let formats = |name: &str| MatmulQuery { formats: vec![name.to_owned()], ..query() };
        check(formats("fp17"), "`fp17`: is unknown");
        check(formats("fp8"), "e4m3fn (OCP");
        check(formats("mxfp8"), "mxfp8_e4m3 (weights");
        check(formats("iq2_xs"), "only its size is known");
        check(formats("uint8"), "cannot hold the entries");
        check(MatmulQuery { accumulate: vec!["int32".into()], ..query() }, "partial sums");
        check(MatmulQuery { outer: "fp17".into(), ..query() }, "`fp17`");
        check(MatmulQuery { chunks: vec![Some(0)], ..query() }, "at least 1 product");
        check(MatmulQuery { chunks: vec![None; 300], ..query() }, "more than 256");
        let shape = Shape { m: 64, n: 64, k: 1 << 18 };
        check(MatmulQuery { shape, chunks: vec![None; 5], ..query() }, "more than 2^31");
    }

    /// Small enough to follow by hand: 303 is exact and 291 is stored; FP16 holds 291, and E4M3FN
    /// stays at 288 three times.
    #[test]
    fn the_text_and_the_wire_form_say_the_same() {
        let given = |values: &[f32]| Source::Values(values.to_vec());
        let query = MatmulQuery {
            shape: Shape { m: 1, n: 1, k: 4 },
            a: given(&[300.0, 1.0, 1.0, 1.0]),
            b: given(&[1.0; 4]),
            formats: vec!["fp8_e4m3".into()],
            accumulate: vec!["fp16".into(), "e4m3fn".into()],
            is_explained: true,
            ..query()
        };
        let report = matmul(&query).unwrap();
        let text = crate::report::text(&report, crate::report::Paint::Plain);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("  e4m3fn")).collect();
        let words = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(rows[0]), "e4m3fn fp16 4.0e-2 0 4.0e-2 28.0");
        assert_eq!(words(rows[1]), "e4m3fn e4m3fn 4.0e-2 9.9e-3 5.0e-2 26.1");
        assert!(words(rows[3]).ends_with("75.0 %"), "{}", rows[3]);
        assert_eq!(words(rows[5]), "e4m3fn e4m3fn 1.5e1 5.0e-2 -1.5e1 -5.0e-2 0.0 %");
        assert!(text.lines().all(|line| line.starts_with("  - ") || line.len() <= 100), "{text}");
        let json = crate::report::json(&report);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["schema"], &json["kind"]), (&1.into(), &"matmul-error".into()));
        assert_eq!(json["rows"][1]["total"]["max"], 15.0);
        assert_eq!(json["rows"][1]["stalls"], 3);
        assert_eq!(json["rows"][0]["accumulation"]["snr_db"], serde_json::Value::Null);
        assert_eq!(json["definitions"][0]["name"], "C");
    }

    #[test]
    fn stalls_overflows_and_cut_entries_are_noted() {
        let ones = || Source::Drawn(Distribution::Ones);
        let shape = Shape { m: 1, n: 1, k: 4096 };
        let accumulate = vec!["bf16".into(), "e3m4".into()];
        let query = MatmulQuery { shape, accumulate, a: ones(), b: ones(), ..query() };
        let Report::Matmul(report) = matmul(&query).unwrap() else { panic!() };
        let notes: Vec<&str> = report.notes.iter().map(|note| note.text.as_str()).collect();
        assert!(notes[0].starts_with("bf16 in bf16: 93.8 % of additions"), "{notes:?}");
        assert!(notes[1].contains("times that of independent roundings"), "{notes:?}");
        assert!(notes[2].starts_with("bf16 in e3m4: 1 of 1 outputs overflowed"), "{notes:?}");
        let cut = MatmulQuery {
            a: Source::Values(vec![1e6]),
            b: Source::Values(vec![1.0]),
            shape: Shape { m: 1, n: 1, k: 1 },
            formats: vec!["fp16".into()],
            ..query
        };
        let Report::Matmul(report) = matmul(&cut).unwrap() else { panic!() };
        assert!(report.notes[0].text.starts_with("fp16: 1 entries were beyond"));
    }
}
