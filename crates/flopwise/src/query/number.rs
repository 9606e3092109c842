//! Values and formats -> what becomes of them.

use crate::error::Error;
use crate::note::Note;
use crate::report::{
    BlockConversion, BlockElement, FormatEntry, FormatsReport, NumberConversion, NumberReport,
    NumberValue, Report,
};
use flopwise_formats::block::affine::{self, Affine};
use flopwise_formats::block::{self, BlockFormat, BlockRules};
use flopwise_formats::codec::{self, Rules};
use flopwise_formats::explain::{Class, Conversion, Neighbour};
use flopwise_formats::system::{self, System};
use flopwise_formats::{ALL, Exact, Format, about, decimal, explain, facts, parse, steps};

/// What values become in number formats.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberQuery {
    /// The values as typed: `0.052`, `0x3D54FDF4:fp32`, `1/3`.
    pub values: Vec<String>,
    /// The formats' names; none for every float of the catalogue, `all` for every format of
    /// numbers.
    pub formats: Vec<String>,
    /// How to convert.
    pub rules: Rules,
    /// How formats of blocks choose their scale; the values given are one tensor for these.
    pub block_rules: BlockRules,
    /// Whose casts to show beside.
    pub system: Option<System>,
    /// Whether to show the working.
    pub is_explained: bool,
}

/// What a value can be asked to be in.
enum Encoding {
    /// By itself.
    Element(Format),
    /// An integer with a scale and a zero point.
    Affine(Affine),
    /// Together with the others given.
    Block(&'static BlockFormat),
}

/// Converts every value to every format.
pub(super) fn number(query: &NumberQuery) -> Result<Report, Error> {
    let encodings = encodings(&query.formats)?;
    let mut notes = Vec::new();
    if query.formats.iter().any(|name| name.trim().eq_ignore_ascii_case("e4m3")) {
        notes.push(Note::new(
            "e4m3 is the IEEE-like format with infinities and largest value 240 (LLVM, ml_dtypes); \
             OCP's and PyTorch's, with largest value 448, is e4m3fn",
        ));
    }
    let values = query.values.iter().map(|text| {
        let literal = decimal::parse(text).map_err(|error| Error::new(error.to_string()))?;
        let conversions =
            encodings.iter().filter_map(|encoding| conversion(encoding, &literal.value, query));
        Ok(NumberValue {
            text: text.trim().to_owned(),
            conversions: conversions.collect(),
            exact: literal.value,
        })
    });
    let values = values.collect::<Result<Vec<_>, Error>>()?;
    let blocks = encodings.iter().filter_map(|encoding| match encoding {
        Encoding::Block(format) => Some(blocks(format, &values, query)),
        Encoding::Element(_) | Encoding::Affine(_) => None,
    });
    let blocks = blocks.collect::<Result<Vec<_>, Error>>()?;
    Ok(Report::Number(Box::new(NumberReport {
        blocks,
        values,
        rules: query.rules,
        system: query.system,
        is_explained: query.is_explained,
        notes,
    })))
}

fn conversion(encoding: &Encoding, value: &Exact, query: &NumberQuery) -> Option<NumberConversion> {
    let (name, conversion, cast) = match encoding {
        Encoding::Element(format) => {
            let found = explain::convert(*format, value, query.rules)?;
            let cast = |system| system::cast(system, *format, value, query.rules);
            (format.to_string(), found, query.system.and_then(cast))
        }
        Encoding::Affine(affine) => (affine.to_string(), scaled(affine, value, query.rules), None),
        Encoding::Block(_) => return None,
    };
    let mut steps = Vec::new();
    if query.is_explained {
        steps = match encoding {
            Encoding::Affine(affine) => steps::affine_steps(affine, &conversion),
            Encoding::Element(_) | Encoding::Block(_) => steps::steps(&conversion),
        };
    }
    Some(NumberConversion { format: name, conversion, cast, steps })
}

/// A value as a scaled integer: all that a conversion says, in units of the scale.
fn scaled(affine: &Affine, value: &Exact, rules: Rules) -> Conversion {
    let format = affine.format();
    let encoded = affine.quantize(value);
    let plain = explain::describe(format, value, rules, encoded);
    let stored = affine.dequantize(encoded.code);
    let apart = |stored: &Exact| Some(stored.rational()?.minus(value.rational()?));
    let error = apart(&stored);
    let beside = |neighbour: Option<Neighbour>| {
        let code = neighbour?.code;
        let value = affine.dequantize(code);
        let distance = apart(&value).map(|distance| distance.abs());
        Some(Neighbour { code, value, distance })
    };
    Conversion {
        relative_error: error.as_ref().and_then(|error| error.over(&value.rational()?.abs())),
        ulp_error: error.as_ref().and_then(|error| error.over(affine.scale())),
        ulp: Some(affine.scale().clone()),
        class: Class::Discrete,
        below: beside(plain.below.clone()),
        above: beside(plain.above.clone()),
        error,
        stored,
        ..plain
    }
}

/// The values, as binary32, in blocks that share a scale.
fn blocks(
    format: &'static BlockFormat,
    values: &[NumberValue],
    query: &NumberQuery,
) -> Result<BlockConversion, Error> {
    let single = |value: &NumberValue| {
        let code = codec::encode(Format::FP32, &value.exact, Rules::IEEE).code;
        f32::from_bits(code as u32)
    };
    let inputs: Vec<f32> = values.iter().map(single).collect();
    let mut padded = inputs.clone();
    padded.resize(inputs.len().next_multiple_of(format.elements), 0.0);
    let refused = |error: block::BlockError| Error::new(format!("format `{format}`: {error}"));
    let bytes = format.encode(&padded, query.block_rules).map_err(refused)?;
    let is_two_level = format.layout == block::BlockLayout::Nvfp4;
    let tensor_scale =
        is_two_level.then(|| block::nvfp4_tensor_scale(block::largest_magnitude(&padded)));
    let mut stored = vec![0.0; padded.len()];
    format.decode(&bytes, tensor_scale.unwrap_or(1.0), &mut stored).map_err(refused)?;
    let elements = values.iter().zip(&inputs).zip(&stored).map(|((value, input), stored)| {
        BlockElement { text: value.text.clone(), input: *input, stored: *stored }
    });
    Ok(BlockConversion {
        format,
        blocks: bytes.chunks(format.bytes).map(<[u8]>::to_vec).collect(),
        tensor_scale,
        elements: elements.collect(),
    })
}

fn encodings(names: &[String]) -> Result<Vec<Encoding>, Error> {
    let elements = |wanted: fn(&Format) -> bool| {
        let formats = ALL.iter().filter(move |format| wanted(format)).copied();
        formats.map(Encoding::Element)
    };
    if names.is_empty() {
        return Ok(elements(|format| format.is_float()).collect());
    }
    let mut found = Vec::new();
    for name in names {
        if name.trim().eq_ignore_ascii_case("all") {
            found.extend(elements(|format| facts::facts(*format).is_some()));
            continue;
        }
        found.push(encoding(name)?);
    }
    Ok(found)
}

/// An element's name, one of blocks, or an integer's with its scale. Each parser says what is wrong
/// with a name that only it could have meant.
fn encoding(name: &str) -> Result<Encoding, Error> {
    if name.contains("scale") {
        let affine = affine::parse(name).map_err(|error| Error::new(error.to_string()))?;
        return Ok(Encoding::Affine(affine));
    }
    match (parse(name), block::parse(name)) {
        (Ok(format), _) if facts::facts(format).is_none() => {
            Err(Error::new(format!("format `{format}` holds no single number")))
        }
        (Ok(format), _) => Ok(Encoding::Element(format)),
        (Err(_), Ok(block)) => Ok(Encoding::Block(block)),
        (Err(_), Err(error)) if error.problem.contains("ambiguous") => {
            Err(Error::new(error.to_string()))
        }
        (Err(error), Err(_)) => {
            Err(Error::new(error.to_string()).remedy("`flopwise format` lists all"))
        }
    }
}

/// Every format of the catalogue, or the one named.
pub(super) fn show_formats(name: Option<&str>) -> Result<Report, Error> {
    let entry = |format: Format| {
        let said = about(format);
        FormatEntry {
            format,
            what: said.map_or("", |said| said.what),
            users: said.map_or("", |said| said.users),
            facts: facts::facts(format),
        }
    };
    let (formats, blocks) = match name.map(encoding).transpose()? {
        None => (ALL.iter().copied().map(entry).collect(), block::ALL.iter().collect()),
        Some(Encoding::Element(format)) => (vec![entry(format)], Vec::new()),
        Some(Encoding::Affine(affine)) => (vec![entry(affine.format())], Vec::new()),
        Some(Encoding::Block(block)) => (Vec::new(), vec![block]),
    };
    Ok(Report::Formats(Box::new(FormatsReport { formats, blocks, is_detailed: name.is_some() })))
}
