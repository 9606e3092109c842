//! Values and formats -> what becomes of them.

use crate::error::Error;
use crate::note::Note;
use crate::report::{
    FormatEntry, FormatsReport, NumberConversion, NumberReport, NumberValue, Report,
};
use flopwise_formats::codec::Rules;
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
    /// Whose casts to show beside.
    pub system: Option<System>,
    /// Whether to show the working.
    pub is_explained: bool,
}

/// Converts every value to every format.
pub(super) fn number(query: &NumberQuery) -> Result<Report, Error> {
    let formats = formats(&query.formats)?;
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
            formats.iter().filter_map(|format| conversion(*format, &literal.value, query));
        Ok(NumberValue {
            text: text.trim().to_owned(),
            conversions: conversions.collect(),
            exact: literal.value,
        })
    });
    let values = values.collect::<Result<Vec<_>, Error>>()?;
    Ok(Report::Number(Box::new(NumberReport {
        values,
        rules: query.rules,
        system: query.system,
        is_explained: query.is_explained,
        notes,
    })))
}

fn conversion(format: Format, value: &Exact, query: &NumberQuery) -> Option<NumberConversion> {
    let conversion = explain::convert(format, value, query.rules)?;
    let steps = if query.is_explained { steps::steps(&conversion) } else { Vec::new() };
    let cast = query.system.and_then(|system| system::cast(system, format, value, query.rules));
    Some(NumberConversion {
        format: format.to_string(),
        conversion,
        remark: String::new(),
        cast,
        steps,
    })
}

fn formats(names: &[String]) -> Result<Vec<Format>, Error> {
    let is_number = |format: &&Format| facts::facts(**format).is_some();
    if names.is_empty() {
        return Ok(ALL.iter().filter(|format| format.is_float()).copied().collect());
    }
    let mut found = Vec::new();
    for name in names {
        if name.trim().eq_ignore_ascii_case("all") {
            found.extend(ALL.iter().filter(is_number).copied());
            continue;
        }
        let format = named(name)?;
        if facts::facts(format).is_none() {
            return Err(Error::new(format!("format `{format}` holds no single number")));
        }
        found.push(format);
    }
    Ok(found)
}

fn named(name: &str) -> Result<Format, Error> {
    parse(name).map_err(|error| Error::new(error.to_string()))
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
    let formats = match name {
        Some(name) => vec![entry(named(name)?)],
        None => ALL.iter().copied().map(entry).collect(),
    };
    Ok(Report::Formats(Box::new(FormatsReport { formats, is_detailed: name.is_some() })))
}
