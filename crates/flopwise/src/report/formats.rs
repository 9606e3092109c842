//! The formats there are, and one of them in full: the report, its text and its wire form.

use super::text::{Page, indented, table};
use flopwise_formats::block::BlockFormat;
use flopwise_formats::facts::{Bound, Facts};
use flopwise_formats::{Exact, Float, Format, Infinity, Layout, Nan, Rational, codec, explain};
use serde::Serialize;

/// The formats there are, or one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatsReport {
    /// One a format.
    pub formats: Vec<FormatEntry>,
    /// Formats of blocks that share a scale.
    pub blocks: Vec<&'static BlockFormat>,
    /// Whether one is shown in full rather than a list.
    pub is_detailed: bool,
}

/// A format and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatEntry {
    /// The format.
    pub format: Format,
    /// What it is; empty if the catalogue does not hold it.
    pub what: &'static str,
    /// Who uses it.
    pub users: &'static str,
    /// Range, precision and special codes; `None` for pairs, booleans and text.
    pub facts: Option<Facts>,
}

/// Columns of the picture of a format's spacing.
const PICTURE_COLUMNS: usize = 64;
/// The second line of the picture ends at this many times the smallest normal value.
const NEAR_ZERO: i64 = 4;
/// The most codes of a format whose every value is drawn or listed.
const MAX_DRAWN: u128 = 256;
/// The most codes of a format whose values are written out.
const MAX_LISTED: u128 = 64;

impl Page {
    pub(super) fn formats(&mut self, report: &FormatsReport) {
        if report.is_detailed {
            for entry in &report.formats {
                self.format(entry);
            }
            for block in &report.blocks {
                self.block_format(block);
            }
            return;
        }
        self.heading("Formats");
        let heads = ["name", "bits", "fields", "bias", "largest", "smallest", "values", "what"];
        let mut rows = table(&heads);
        for entry in &report.formats {
            rows.add_row(format_cells(entry));
        }
        if let Some(column) = rows.column_mut(heads.len() - 1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Left);
        }
        self.out.push_str(&indented(&rows));
        self.line("");
        self.line(
            "  IEEE P3109's family too: binaryKpP with s or u, and e or f (binary8p4se), and your",
        );
        self.line(
            "  own: fp(e,m), with bias=N, inf=ieee|none|top, nan=ieee|none|all-ones|negative-zero,",
        );
        self.line("  sign=no. Integers with a scale: int8(scale=0.05,zero=3).");
        self.block_list(&report.blocks);
    }

    fn block_list(&mut self, blocks: &[&'static BlockFormat]) {
        self.heading("Blocks that share a scale");
        let heads = ["name", "values", "bytes", "bits a value", "ggml type", "converts", "what"];
        let mut rows = table(&heads);
        for block in blocks {
            rows.add_row(vec![
                block.name.to_owned(),
                block.elements.to_string(),
                block.bytes.to_string(),
                block.bits_per_weight().to_string(),
                block.ggml_type.map_or("-".to_owned(), |number| number.to_string()),
                converts(block).to_owned(),
                first_clause(block.what).to_owned(),
            ]);
        }
        if let Some(column) = rows.column_mut(heads.len() - 1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Left);
        }
        self.out.push_str(&indented(&rows));
    }

    fn block_format(&mut self, block: &BlockFormat) {
        self.heading(&format!("Format {block}"));
        self.line(&format!("  {}", block.what));
        self.line(&format!("  used for: {}", block.users));
        self.fact("values in a block", &block.elements.to_string(), "");
        let bits = format!("{} bits a value", block.bits_per_weight());
        self.fact("bytes of a block", &block.bytes.to_string(), &bits);
        if let Some(number) = block.ggml_type {
            self.fact("ggml type", &number.to_string(), "");
        }
        self.fact("converts", converts(block), "");
        self.line(&format!("  source: {}", block.source));
    }

    fn format(&mut self, entry: &FormatEntry) {
        let FormatEntry { format, what, users, facts } = entry;
        self.heading(&format!("Format {format}"));
        if !what.is_empty() {
            self.line(&format!("  {what}"));
            self.line(&format!("  used for: {users}"));
        }
        self.fact("bits", &format.bits.to_string(), &layout_picture(*format));
        if let Some(float) = format.float() {
            self.fact("exponent bias", &float.bias.to_string(), "");
        }
        let Some(facts) = facts else { return };
        if let Some(precision) = facts.precision {
            let digits = f64::from(precision) * std::f64::consts::LOG10_2;
            self.fact("precision", &format!("{precision} bits"), &format!("{digits:.1} digits"));
        }
        self.bounds(*format, facts);
        self.specials(*format, facts);
        self.spacing(*format, facts);
    }

    fn bounds(&mut self, format: Format, facts: &Facts) {
        let mut bound = |label: &str, bound: &Bound| {
            let code = explain::hexadecimal(format, bound.code);
            self.fact(label, &short(&bound.value), &code);
        };
        bound("largest", &facts.max);
        if let Some(normal) = &facts.min_normal {
            bound("smallest normal", normal);
        }
        if let Some(subnormal) = &facts.min_subnormal {
            bound("smallest subnormal", subnormal);
        }
        bound("lowest", &facts.lowest);
        if let Some(epsilon) = &facts.epsilon {
            self.fact("step at 1", &short(epsilon), "");
        }
        if let Some((beyond, is_included)) = &facts.first_overflow {
            let from = if *is_included { "from" } else { "above" };
            self.fact(
                "overflows",
                &format!("{from} {}", short(beyond)),
                "rounding to nearest even",
            );
        }
    }

    fn specials(&mut self, format: Format, facts: &Facts) {
        let code = |code: &Option<u128>| match code {
            Some(code) => explain::hexadecimal(format, *code),
            None => "none".to_owned(),
        };
        self.fact("finite values", &crate::units::grouped(facts.finite_codes), "codes; -0 counts");
        self.fact(
            "NaN",
            &code(&facts.nan),
            &format!("{} codes", crate::units::grouped(facts.nan_codes)),
        );
        self.fact("infinity", &code(&facts.infinity), "");
        self.fact("-0", &code(&facts.negative_zero), "");
    }

    fn spacing(&mut self, format: Format, facts: &Facts) {
        let positive = positive_values(format, facts);
        if facts.finite_codes <= MAX_LISTED {
            self.heading("Values (positive)");
            let listed: Vec<String> = positive.iter().map(short).collect();
            for line in listed.chunks(12) {
                self.line(&format!("  {}", line.join("  ")));
            }
        }
        if !positive.is_empty() && facts.finite_codes > 2 {
            self.heading("Spacing (| one value, █ several)");
            self.picture(&positive, facts.max.value.rational());
            let normal = facts.min_normal.as_ref().and_then(|bound| bound.value.rational());
            let near = normal.map(|normal| normal.scaled(NEAR_ZERO.ilog2().into()));
            self.picture(&positive, near.as_ref());
        }
        let Some(float) = format.float() else { return };
        self.heading("Steps");
        for (from, step, n_values) in steps(format, float) {
            let values = if n_values == 1 { "value" } else { "values" };
            let count = crate::units::grouped(n_values);
            self.line(&format!("  from {from:<14} step {step:<14} {count} {values} to the next"));
        }
    }

    /// The values from zero to `top` on a line: a mark where a column holds one, a heavier one where
    /// it holds several.
    fn picture(&mut self, positive: &[Exact], top: Option<&Rational>) {
        let Some(top) = top else { return };
        let mut counts = [0u32; PICTURE_COLUMNS + 1];
        for value in positive.iter().filter_map(Exact::rational) {
            let Some(share) = value.over(top) else { continue };
            let share = share.to_f64();
            if share <= 1.0 {
                counts[(share * PICTURE_COLUMNS as f64) as usize] += 1;
            }
        }
        let mark = |count: &u32| match count {
            0 => '·',
            1 => '|',
            _ => '█',
        };
        let drawn: String = counts.iter().map(mark).collect();
        self.line(&format!("  0 {drawn} {}", short(&Exact::Finite(top.clone()))));
    }
}

fn converts(block: &BlockFormat) -> &'static str {
    match (block.can_decode(), block.can_encode()) {
        (true, true) => "both ways",
        (true, false) => "decodes",
        (false, _) => "size only",
    }
}

fn format_cells(entry: &FormatEntry) -> Vec<String> {
    let format = entry.format;
    let fields = match format.float() {
        Some(float) => {
            let sign = if float.sign_bits == 1 { "s" } else { "" };
            format!("{sign}e{}m{}", float.exponent_bits, float.significand_bits)
        }
        None => "-".to_owned(),
    };
    let bias = format.float().map_or("-".to_owned(), |float| float.bias.to_string());
    let unknown = || "-".to_owned();
    let smallest = entry.facts.as_ref().and_then(|facts| {
        facts.min_subnormal.as_ref().or(facts.min_normal.as_ref()).map(|bound| short(&bound.value))
    });
    vec![
        format.to_string(),
        format.bits.to_string(),
        fields,
        bias,
        entry.facts.as_ref().map_or_else(unknown, |facts| short(&facts.max.value)),
        smallest.unwrap_or_else(unknown),
        entry.facts.as_ref().map_or_else(unknown, |facts| few(facts.finite_codes)),
        first_clause(entry.what).to_owned(),
    ]
}

/// A count that fits a column.
fn few(count: u128) -> String {
    if count < 1_000_000 { crate::units::grouped(count) } else { format!("{:.1e}", count as f64) }
}

/// The words before the first stop or colon.
fn first_clause(what: &str) -> &str {
    what.split([':', '.', ',']).next().unwrap_or(what)
}

/// `s eeeeeeee mmmmmmm`.
fn layout_picture(format: Format) -> String {
    match format.layout {
        Layout::Float(float) => {
            let n_unused = u32::from(format.bits) - float.magnitude_bits();
            let sign =
                if float.sign_bits == 1 { "s ".to_owned() } else { "- ".repeat(n_unused as usize) };
            let exponent = "e".repeat(usize::from(float.exponent_bits));
            let significand = "m".repeat(usize::from(float.significand_bits));
            format!("{sign}{exponent} {significand}")
        }
        Layout::SignedInteger => "two's complement".to_owned(),
        Layout::UnsignedInteger => "plain binary".to_owned(),
        Layout::CodeBook(_) => "an index into a table".to_owned(),
        Layout::Boolean | Layout::Complex | Layout::Text => String::new(),
    }
}

/// Every positive finite value and zero, of a format small enough.
fn positive_values(format: Format, facts: &Facts) -> Vec<Exact> {
    let is_small = format.float().is_some() && facts.finite_codes <= MAX_DRAWN;
    let last = if is_small { facts.max.code + 1 } else { 0 };
    (0..last).filter_map(|code| codec::decode(format, code)).collect()
}

/// Where the step changes: from which value, the step, and how many values until it doubles. Of many
/// binades the first, those at 1 and the last are told.
fn steps(format: Format, float: Float) -> Vec<(String, String, u128)> {
    let per_binade = 1u128 << float.significand_bits;
    let last = float.max_finite_code() >> float.significand_bits;
    let one = i64::from(float.bias) as u128;
    let fields = (0..=last).filter(|field| {
        let is_few = last < 16;
        is_few || *field < 2 || *field == one || field + 1 > last
    });
    let told = fields.filter_map(|field| {
        let first = field << float.significand_bits;
        let value = codec::decode(format, first)?;
        let end = (first + per_binade).min(float.max_finite_code() + 1);
        let ulp = explain::ulp(format, first)?;
        Some((short(&value), ulp.to_scientific(4), end - first))
    });
    told.collect()
}

/// Up to six digits, plain where that is short.
fn short(value: &Exact) -> String {
    let text = value.to_string();
    match value.rational() {
        Some(rational) if text.len() > 10 => rational.to_scientific(6),
        Some(_) | None => text,
    }
}

/// The wire form of docs/json.md.
#[derive(Serialize)]
pub(super) struct FormatsJson {
    schema: u32,
    kind: &'static str,
    formats: Vec<FormatJson>,
    blocks: Vec<BlockJson>,
}

#[derive(Serialize)]
struct BlockJson {
    name: &'static str,
    elements: usize,
    bytes: usize,
    bits_per_weight: f64,
    ggml_type: Option<u32>,
    decodes: bool,
    encodes: bool,
    what: &'static str,
    users: &'static str,
    source: &'static str,
}

#[derive(Serialize)]
struct FormatJson {
    name: String,
    bits: u16,
    what: &'static str,
    users: &'static str,
    layout: &'static str,
    sign_bits: Option<u8>,
    exponent_bits: Option<u8>,
    significand_bits: Option<u8>,
    bias: Option<i32>,
    infinity_rule: Option<&'static str>,
    nan_rule: Option<&'static str>,
    max: Option<BoundJson>,
    min_normal: Option<BoundJson>,
    min_subnormal: Option<BoundJson>,
    lowest: Option<BoundJson>,
    epsilon: Option<String>,
    first_overflow: Option<String>,
    finite_codes: Option<u128>,
    nan_codes: Option<u128>,
    infinity: Option<String>,
    nan: Option<String>,
    negative_zero: Option<String>,
}

#[derive(Serialize)]
struct BoundJson {
    bits: String,
    value: String,
}

pub(super) fn wire(report: &FormatsReport) -> FormatsJson {
    let formats = report.formats.iter().map(entry_json).collect();
    let block = |block: &&'static BlockFormat| BlockJson {
        name: block.name,
        elements: block.elements,
        bytes: block.bytes,
        bits_per_weight: block.bits_per_weight().to_f64(),
        ggml_type: block.ggml_type,
        decodes: block.can_decode(),
        encodes: block.can_encode(),
        what: block.what,
        users: block.users,
        source: block.source,
    };
    let blocks = report.blocks.iter().map(block).collect();
    FormatsJson { schema: super::json::SCHEMA, kind: "formats", formats, blocks }
}

fn entry_json(entry: &FormatEntry) -> FormatJson {
    let format = entry.format;
    let float = format.float();
    let facts = entry.facts.as_ref();
    let bits = |code: u128| explain::hexadecimal(format, code).to_lowercase();
    let bound =
        |bound: &Bound| BoundJson { bits: bits(bound.code), value: bound.value.to_string() };
    FormatJson {
        name: format.to_string(),
        bits: format.bits,
        what: entry.what,
        users: entry.users,
        layout: match format.layout {
            Layout::Float(_) => "float",
            Layout::SignedInteger => "signed integer",
            Layout::UnsignedInteger => "unsigned integer",
            Layout::CodeBook(_) => "code book",
            Layout::Boolean => "boolean",
            Layout::Complex => "complex",
            Layout::Text => "text",
        },
        sign_bits: float.map(|float| float.sign_bits),
        exponent_bits: float.map(|float| float.exponent_bits),
        significand_bits: float.map(|float| float.significand_bits),
        bias: float.map(|float| float.bias),
        infinity_rule: float.map(|float| match float.infinity {
            Infinity::None => "none",
            Infinity::Ieee => "ieee",
            Infinity::Top => "top",
            Infinity::Saturated => "saturated",
        }),
        nan_rule: float.map(|float| match float.nan {
            Nan::None => "none",
            Nan::Ieee => "ieee",
            Nan::AllOnes => "all-ones",
            Nan::NegativeZero => "negative-zero",
        }),
        max: facts.map(|facts| bound(&facts.max)),
        min_normal: facts.and_then(|facts| facts.min_normal.as_ref()).map(bound),
        min_subnormal: facts.and_then(|facts| facts.min_subnormal.as_ref()).map(bound),
        lowest: facts.map(|facts| bound(&facts.lowest)),
        epsilon: facts.and_then(|facts| facts.epsilon.as_ref()).map(Exact::to_string),
        first_overflow: facts
            .and_then(|facts| facts.first_overflow.as_ref())
            .map(|(value, _)| value.to_string()),
        finite_codes: facts.map(|facts| facts.finite_codes),
        nan_codes: facts.map(|facts| facts.nan_codes),
        infinity: facts.and_then(|facts| facts.infinity).map(bits),
        nan: facts.and_then(|facts| facts.nan).map(bits),
        negative_zero: facts.and_then(|facts| facts.negative_zero).map(bits),
    }
}
