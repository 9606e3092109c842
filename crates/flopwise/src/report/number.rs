//! What values become in number formats: the report, its text and its wire form.

use super::text::{Page, indented, table};
use crate::note::Note;
use flopwise_formats::block::BlockFormat;
use flopwise_formats::codec::{Flags, Rules};
use flopwise_formats::explain::{self, Conversion, Step};
use flopwise_formats::system::{Cast, System};
use flopwise_formats::{Exact, Rational};
use serde::Serialize;

/// What values become in number formats.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberReport {
    /// One entry a value, in the order given.
    pub values: Vec<NumberValue>,
    /// The values together, in each format of blocks asked for.
    pub blocks: Vec<BlockConversion>,
    /// How all were converted.
    pub rules: Rules,
    /// Whose casts are shown beside.
    pub system: Option<System>,
    /// Whether the working is shown.
    pub is_explained: bool,
    /// Doubts and remarks.
    pub notes: Vec<Note>,
}

/// One value in every format asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberValue {
    /// As it was typed.
    pub text: String,
    /// What that means, exactly.
    pub exact: Exact,
    /// One a format.
    pub conversions: Vec<NumberConversion>,
}

/// One value in one format.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberConversion {
    /// The format as it was asked for: `fp16`, `int8(scale=0.05,zero=3)`.
    pub format: String,
    /// The code and its value.
    pub conversion: Conversion,
    /// What another system's cast gives; `None` where it has no such format, or none was asked.
    pub cast: Option<Cast>,
    /// The working; empty unless asked for.
    pub steps: Vec<Step>,
}

/// The values given, in blocks that share a scale.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockConversion {
    /// The format.
    pub format: &'static BlockFormat,
    /// The bytes of each block; the last is filled up with zeros.
    pub blocks: Vec<Vec<u8>>,
    /// The scale of the whole tensor, where there is one.
    pub tensor_scale: Option<f32>,
    /// One a value.
    pub elements: Vec<BlockElement>,
}

/// One value of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockElement {
    /// As typed.
    pub text: String,
    /// Rounded to binary32, from which blocks are made.
    pub input: f32,
    /// What the block gives back.
    pub stored: f32,
}

impl BlockElement {
    /// Stored minus asked.
    pub fn error(&self) -> f64 {
        f64::from(self.stored) - f64::from(self.input)
    }
}

/// Characters of a value shown in the table before it is rounded.
const MAX_VALUE: usize = 30;
/// Significant digits of errors.
const ERROR_DIGITS: usize = 4;

impl Page {
    pub(super) fn number(&mut self, report: &NumberReport) {
        for value in report.values.iter().filter(|value| !value.conversions.is_empty()) {
            let exact = value.exact.to_string();
            let meaning = match exact == value.text || exact.len() > 2 * MAX_VALUE {
                true => String::new(),
                false => format!(" = {exact}"),
            };
            self.heading(&format!("Value {}{meaning}", shortened(&value.text)));
            if report.is_explained {
                self.number_steps(value);
            } else {
                self.number_table(value);
                self.number_bits(value);
            }
            if let Some(system) = report.system {
                self.number_casts(value, system);
            }
        }
        for block in &report.blocks {
            self.number_block(block);
        }
        self.heading("Conversion");
        let Rules { rounding, overflow, subnormals } = report.rules;
        let line = format!("  rounding {rounding}; overflow {overflow}; subnormals {subnormals}");
        self.line(&line);
        self.notes(report.notes.iter().map(|note| note.text.as_str()));
    }

    fn number_table(&mut self, value: &NumberValue) {
        let heads = ["format", "code", "value", "error", "relative", "ulp", "class"];
        let mut rows = table(&heads);
        for entry in &value.conversions {
            let conversion = &entry.conversion;
            let mut kind = conversion.class.to_string();
            for flag in flags(conversion.encoded.flags) {
                kind += &format!(", {flag}");
            }
            rows.add_row(vec![
                entry.format.clone(),
                explain::hexadecimal(conversion.format, conversion.encoded.code),
                shown(&conversion.stored),
                error(&conversion.error),
                error(&conversion.relative_error),
                error(&conversion.ulp_error),
                kind,
            ]);
        }
        left_aligned(&mut rows, heads.len() - 1);
        self.out.push_str(&indented(&rows));
    }

    fn number_bits(&mut self, value: &NumberValue) {
        let mut rows = table(&["format", "sign, exponent, significand"]);
        for entry in &value.conversions {
            let conversion = &entry.conversion;
            let bits = explain::bit_fields(conversion.format, conversion.encoded.code);
            rows.add_row(vec![entry.format.clone(), bits]);
        }
        left_aligned(&mut rows, 1);
        self.heading("Bits");
        self.out.push_str(&indented(&rows));
    }

    fn number_steps(&mut self, value: &NumberValue) {
        for entry in &value.conversions {
            let conversion = &entry.conversion;
            let code = explain::hexadecimal(conversion.format, conversion.encoded.code);
            self.heading(&format!("{} of {}: {code}", entry.format, shortened(&value.text)));
            for (step_idx, step) in entry.steps.iter().enumerate() {
                self.line(&format!("  {}. {}", step_idx + 1, step.title));
                for line in &step.lines {
                    self.line(&format!("     {line}"));
                }
            }
        }
    }

    fn number_block(&mut self, block: &BlockConversion) {
        let BlockConversion { format, blocks, tensor_scale, elements } = block;
        self.heading(&format!("Blocks of {format}: {} values share a scale", format.elements));
        self.line(&format!("  {}", format.what));
        if let Some(scale) = tensor_scale {
            self.line(&format!("  scale of the tensor: {}", Exact::from_f64(f64::from(*scale))));
        }
        for bytes in blocks {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            for (line_idx, line) in bytes.chunks(32).enumerate() {
                let label = if line_idx == 0 { "bytes" } else { "" };
                self.line(&format!("  {label:<6} {}", line.join(" ")));
            }
        }
        let mut rows = table(&["value", "as fp32", "stored", "error", "relative"]);
        for element in elements {
            let error = Exact::from_f64(element.error());
            let relative = element.error() / f64::from(element.input).abs();
            rows.add_row(vec![
                shortened(&element.text),
                shown(&Exact::from_f64(f64::from(element.input))),
                shown(&Exact::from_f64(f64::from(element.stored))),
                self::error(&error.rational().cloned()),
                self::error(&Exact::from_f64(relative).rational().cloned()),
            ]);
        }
        self.out.push_str(&indented(&rows));
    }

    fn number_casts(&mut self, value: &NumberValue, system: System) {
        self.heading(&format!("As {system} casts {}", shortened(&value.text)));
        let mut rows = table(&["format", "here", "there", "value there", "why they differ"]);
        let mut n_same = 0usize;
        for entry in &value.conversions {
            let Some(cast) = &entry.cast else { continue };
            let here = entry.conversion.encoded.code;
            if here == cast.code {
                n_same += 1;
                continue;
            }
            let format = entry.conversion.format;
            rows.add_row(vec![
                entry.format.clone(),
                explain::hexadecimal(format, here),
                explain::hexadecimal(format, cast.code),
                shown(&cast.value),
                cast.why.clone(),
            ]);
        }
        let has_rows = rows.row_iter().next().is_some();
        if has_rows {
            left_aligned(&mut rows, 4);
            self.out.push_str(&indented(&rows));
        }
        let known = value.conversions.iter().filter(|entry| entry.cast.is_some()).count();
        let missing = value.conversions.len() - known;
        let others = if has_rows { "other " } else { "" };
        self.line(&format!("  the same code in {n_same} {others}of {known} formats it has"));
        if missing > 0 {
            self.line(&format!("  {missing} formats asked for are not {system}'s"));
        }
    }
}

fn left_aligned(rows: &mut comfy_table::Table, column_idx: usize) {
    if let Some(column) = rows.column_mut(column_idx) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
}

/// All digits, or as many as the table has room for.
fn shown(value: &Exact) -> String {
    let text = value.to_string();
    match value.rational() {
        Some(rational) if text.len() > MAX_VALUE => format!("≈{}", rational.to_scientific(17)),
        Some(_) | None => text,
    }
}

/// The start of a long literal.
fn shortened(text: &str) -> String {
    const MAX_TEXT: usize = 60;
    if text.chars().count() <= MAX_TEXT {
        return text.to_owned();
    }
    let start: String = text.chars().take(MAX_TEXT).collect();
    format!("{start}…")
}

fn error(value: &Option<Rational>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), |value| value.to_scientific(ERROR_DIGITS))
}

/// The names of what happened.
fn flags(flags: Flags) -> Vec<&'static str> {
    let Flags { is_inexact, is_overflow, is_underflow, is_invalid } = flags;
    let named = [
        (is_inexact, "inexact"),
        (is_overflow, "overflow"),
        (is_underflow, "underflow"),
        (is_invalid, "invalid"),
    ];
    named.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
}

/// The wire form of docs/json.md.
#[derive(Serialize)]
pub(super) struct NumberJson<'a> {
    schema: u32,
    kind: &'static str,
    input: &'a str,
    rounding: String,
    overflow: String,
    subnormals: String,
    results: Vec<ResultJson<'a>>,
    blocks: Vec<BlockJson<'a>>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct ResultJson<'a> {
    input: &'a str,
    exact_input: String,
    format: &'a str,
    bits: String,
    sign: Option<u8>,
    exponent_field: Option<u32>,
    significand_field: Option<u128>,
    value: String,
    error: Option<f64>,
    relative_error: Option<f64>,
    ulp_error: Option<f64>,
    exact_error: Option<String>,
    class: String,
    flags: Vec<&'static str>,
    below: Option<NeighbourJson>,
    above: Option<NeighbourJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cast: Option<CastJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepJson<'a>>,
}

#[derive(Serialize)]
struct BlockJson<'a> {
    format: &'a str,
    elements_per_block: usize,
    bytes: Vec<String>,
    tensor_scale: Option<f64>,
    elements: Vec<ElementJson>,
}

#[derive(Serialize)]
struct ElementJson {
    input: String,
    fp32: String,
    value: String,
    error: f64,
}

#[derive(Serialize)]
struct NeighbourJson {
    bits: String,
    value: String,
}

#[derive(Serialize)]
struct CastJson<'a> {
    system: String,
    bits: String,
    value: String,
    path: &'a str,
    why: &'a str,
}

#[derive(Serialize)]
struct StepJson<'a> {
    title: &'a str,
    lines: &'a [String],
}

/// One object; several values share its `results`, each row with its own `input`.
pub(super) fn wire(report: &NumberReport) -> NumberJson<'_> {
    let results = report.values.iter().flat_map(|value| {
        value.conversions.iter().map(move |entry| result(value, entry, report.system))
    });
    NumberJson {
        schema: super::json::SCHEMA,
        kind: "number",
        input: report.values.first().map_or("", |value| &value.text),
        rounding: report.rules.rounding.to_string(),
        overflow: report.rules.overflow.to_string(),
        subnormals: report.rules.subnormals.to_string(),
        results: results.collect(),
        blocks: report.blocks.iter().map(block).collect(),
        notes: report.notes.iter().map(|note| note.text.as_str()).collect(),
    }
}

fn block(block: &BlockConversion) -> BlockJson<'_> {
    let written = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let element = |element: &BlockElement| ElementJson {
        input: element.text.clone(),
        fp32: Exact::from_f64(f64::from(element.input)).to_string(),
        value: Exact::from_f64(f64::from(element.stored)).to_string(),
        error: element.error(),
    };
    BlockJson {
        format: block.format.name,
        elements_per_block: block.format.elements,
        bytes: block.blocks.iter().map(written).collect(),
        tensor_scale: block.tensor_scale.map(f64::from),
        elements: block.elements.iter().map(element).collect(),
    }
}

fn result<'a>(
    value: &'a NumberValue,
    entry: &'a NumberConversion,
    system: Option<System>,
) -> ResultJson<'a> {
    let conversion = &entry.conversion;
    let format = conversion.format;
    let bits = |code: u128| explain::hexadecimal(format, code).to_lowercase();
    let beside = |neighbour: &Option<explain::Neighbour>| {
        let neighbour = neighbour.as_ref()?;
        let value = neighbour.value.to_string();
        Some(NeighbourJson { bits: bits(neighbour.code), value })
    };
    let cast = entry.cast.as_ref().map(|cast| CastJson {
        system: system.map_or_else(String::new, |system| system.to_string()),
        bits: bits(cast.code),
        value: cast.value.to_string(),
        path: &cast.path,
        why: &cast.why,
    });
    ResultJson {
        input: &value.text,
        exact_input: value.exact.to_string(),
        format: &entry.format,
        bits: bits(conversion.encoded.code),
        sign: conversion.fields.and_then(|fields| fields.sign),
        exponent_field: conversion.fields.map(|fields| fields.exponent),
        significand_field: conversion.fields.map(|fields| fields.significand),
        value: conversion.stored.to_string(),
        error: conversion.error.as_ref().map(Rational::to_f64),
        relative_error: conversion.relative_error.as_ref().map(Rational::to_f64),
        ulp_error: conversion.ulp_error.as_ref().map(Rational::to_f64),
        exact_error: conversion.error.as_ref().map(Rational::to_string),
        class: conversion.class.to_string(),
        flags: flags(conversion.encoded.flags),
        below: beside(&conversion.below),
        above: beside(&conversion.above),
        cast,
        steps: entry
            .steps
            .iter()
            .map(|step| StepJson { title: step.title, lines: &step.lines })
            .collect(),
    }
}
