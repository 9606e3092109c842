//! What happened to a value: its code, fields, class, errors and neighbours, and the steps that lead
//! there, in words.
//!
//! Not here: the conversion itself ([`crate::codec`]), and printing.

use crate::codec::{self, Encoded, Overflow, Rounding, Rules, Subnormals};
use crate::exact::{Exact, Rational};
use crate::format::{Float, Format, Layout, Nan};
use std::fmt;

/// One value in one format: what is stored, and how far that is from what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The format.
    pub format: Format,
    /// How it was converted.
    pub rules: Rules,
    /// What was asked.
    pub input: Exact,
    /// The code, and what happened on the way.
    pub encoded: Encoded,
    /// What the code stands for.
    pub stored: Exact,
    /// What kind of value the code is.
    pub class: Class,
    /// The code's fields; `None` where it has none.
    pub fields: Option<Fields>,
    /// Stored minus asked; `None` unless both are finite.
    pub error: Option<Rational>,
    /// The error over the asked value; `None` also for an asked zero.
    pub relative_error: Option<Rational>,
    /// The distance of codes at the stored value: one unit in the last place.
    pub ulp: Option<Rational>,
    /// The error in units in the last place.
    pub ulp_error: Option<Rational>,
    /// The next value below, and its code.
    pub below: Option<Neighbour>,
    /// The next value above, and its code.
    pub above: Option<Neighbour>,
}

/// A value beside the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its code.
    pub code: u128,
    /// Its value.
    pub value: Exact,
    /// How far it is from the asked value; `None` unless both are finite.
    pub distance: Option<Rational>,
}

/// What kind of value a code is (IEEE 754-2019 section 5.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// `0` or `-0`.
    Zero,
    /// Below the smallest normal value, with fewer significant bits.
    Subnormal,
    /// With all the format's precision.
    Normal,
    /// Infinite.
    Infinity,
    /// A NaN that raises no exception.
    QuietNan,
    /// A NaN whose quiet bit is clear.
    SignallingNan,
    /// A NaN of a format that does not tell the two apart.
    Nan,
    /// An integer, or an entry of a code book.
    Discrete,
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Class::Zero => "zero",
            Class::Subnormal => "subnormal",
            Class::Normal => "normal",
            Class::Infinity => "infinity",
            Class::QuietNan => "quiet NaN",
            Class::SignallingNan => "signalling NaN",
            Class::Nan => "NaN",
            Class::Discrete => "discrete",
        })
    }
}

/// The fields of a floating-point code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    /// The sign bit; `None` in an unsigned format.
    pub sign: Option<u8>,
    /// The exponent as stored, bias included.
    pub exponent: u32,
    /// The trailing significand.
    pub significand: u128,
}

/// One step of the working: a heading and what is said under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub title: &'static str,
    /// With the numbers.
    pub lines: Vec<String>,
}

/// Converts a value and says all about the result; `None` for complex pairs and text.
///
/// ```
/// use flopwise_formats::{Format, codec::Rules, decimal, explain};
/// let value = decimal::parse("0.052").unwrap().value;
/// let found = explain::convert(Format::FP16, &value, Rules::IEEE).unwrap();
/// assert_eq!(found.encoded.code, 0x2AA8);
/// assert_eq!(found.class, explain::Class::Normal);
/// assert_eq!(found.ulp_error.unwrap().to_scientific(3), "6.4e-2");
/// ```
pub fn convert(format: Format, input: &Exact, rules: Rules) -> Option<Conversion> {
    codec::decode(format, 0)?;
    Some(describe(format, input, rules, codec::encode(format, input, rules)))
}

/// Says all about a code that is taken to stand for `input`, wherever it came from.
pub fn describe(format: Format, input: &Exact, rules: Rules, encoded: Encoded) -> Conversion {
    let nan = Exact::Nan { is_negative: false, payload: 0 };
    let stored = codec::decode(format, encoded.code).unwrap_or(nan);
    let error = difference(&stored, input);
    let relative_error = match (&error, input.rational()) {
        (Some(error), Some(input)) => error.over(&input.abs()),
        (Some(_) | None, Some(_) | None) => None,
    };
    let ulp = ulp(format, encoded.code);
    let ulp_error = match (&error, &ulp) {
        (Some(error), Some(ulp)) => error.over(ulp),
        (Some(_) | None, Some(_) | None) => None,
    };
    let (below, above) = neighbours(format, encoded.code);
    let beside = |code: Option<u128>| {
        let code = code?;
        let value = codec::decode(format, code)?;
        let distance = difference(&value, input).map(|distance| distance.abs());
        Some(Neighbour { code, value, distance })
    };
    Conversion {
        format,
        rules,
        input: input.clone(),
        encoded,
        class: class(format, encoded.code),
        fields: fields(format, encoded.code),
        error,
        relative_error,
        ulp,
        ulp_error,
        below: beside(below),
        above: beside(above),
        stored,
    }
}

fn difference(stored: &Exact, input: &Exact) -> Option<Rational> {
    Some(stored.rational()?.minus(input.rational()?))
}

/// What kind of value a code is.
///
/// ```
/// use flopwise_formats::{Format, explain::{Class, class}};
/// assert_eq!(class(Format::FP32, 0x7f80_0001), Class::SignallingNan);
/// assert_eq!(class(Format::E4M3FN, 0x01), Class::Subnormal);
/// ```
pub fn class(format: Format, code: u128) -> Class {
    let (Some(float), Some(value)) = (format.float(), codec::decode(format, code)) else {
        return Class::Discrete;
    };
    match value {
        Exact::Nan { .. } if float.nan == Nan::Ieee => {
            let quiet = (code >> (float.significand_bits - 1)) & 1;
            if quiet == 1 { Class::QuietNan } else { Class::SignallingNan }
        }
        Exact::Nan { .. } => Class::Nan,
        Exact::Infinity { .. } => Class::Infinity,
        Exact::Finite(value) if value.is_zero() => Class::Zero,
        Exact::Finite(_) | Exact::Beyond { .. } => {
            let exponent = fields(format, code).map_or(0, |fields| fields.exponent);
            if float.has_zero && exponent == 0 { Class::Subnormal } else { Class::Normal }
        }
    }
}

/// Sign, exponent and significand of a floating-point code.
pub fn fields(format: Format, code: u128) -> Option<Fields> {
    let float = format.float()?;
    let significand = code & ((1u128 << float.significand_bits) - 1);
    let exponent = (code >> float.significand_bits) & ((1 << float.exponent_bits) - 1);
    let sign = (float.sign_bits == 1).then_some(((code >> float.magnitude_bits()) & 1) as u8);
    Some(Fields { sign, exponent: exponent as u32, significand })
}

/// The code as bits with its fields apart: `0 01111010 10101001111110111110100`.
pub fn bit_fields(format: Format, code: u128) -> String {
    let Some(Fields { sign, exponent, significand }) = fields(format, code) else {
        return format!("{code:0width$b}", width = usize::from(format.bits.max(1)));
    };
    let mut groups = Vec::new();
    if let Some(sign) = sign {
        groups.push(sign.to_string());
    }
    let Some(float) = format.float() else { return String::new() };
    groups.push(format!("{exponent:0width$b}", width = usize::from(float.exponent_bits)));
    if float.significand_bits > 0 {
        let width = usize::from(float.significand_bits);
        groups.push(format!("{significand:0width$b}"));
    }
    groups.join(" ")
}

/// The code in hexadecimal, as wide as the format: `0x3D54FDF4`.
pub fn hexadecimal(format: Format, code: u128) -> String {
    format!("0x{code:0width$X}", width = usize::from(format.bits.div_ceil(4)))
}

/// The distance of neighbouring codes around a finite one: one unit in the last place. `None` for
/// what is not finite, and for code books, booleans, pairs and text.
///
/// ```
/// use flopwise_formats::{Format, explain};
/// assert_eq!(explain::ulp(Format::FP16, 0x3c00).unwrap().to_string(), "0.0009765625");
/// ```
pub fn ulp(format: Format, code: u128) -> Option<Rational> {
    match format.layout {
        Layout::Float(float) => {
            codec::decode(format, code)?.rational()?;
            let field = i64::from(fields(format, code)?.exponent);
            let above = if float.has_zero { (field - 1).max(0) } else { field };
            let exponent = i64::from(float.min_exponent()) + above;
            Some(Rational::binary(false, 1, exponent - i64::from(float.significand_bits)))
        }
        Layout::SignedInteger | Layout::UnsignedInteger => Some(Rational::binary(false, 1, 0)),
        Layout::CodeBook(_) | Layout::Boolean | Layout::Complex | Layout::Text => None,
    }
}

/// The codes of the next value below and above; infinities count, NaNs do not, and from either zero
/// the neighbours are the smallest magnitudes.
fn neighbours(format: Format, code: u128) -> (Option<u128>, Option<u128>) {
    match format.layout {
        Layout::Float(float) => float_neighbours(float, code),
        Layout::SignedInteger => {
            let (lowest, mask) = (1u128 << (format.bits - 1), (1u128 << format.bits) - 1);
            let below = (code != lowest).then_some(code.wrapping_sub(1) & mask);
            (below, (code != lowest - 1).then_some((code + 1) & mask))
        }
        Layout::UnsignedInteger | Layout::CodeBook(_) => {
            let most = (1u128 << format.bits) - 1;
            (code.checked_sub(1), (code < most).then_some(code + 1))
        }
        Layout::Boolean | Layout::Complex | Layout::Text => (None, None),
    }
}

fn float_neighbours(float: Float, code: u128) -> (Option<u128>, Option<u128>) {
    let sign = float.sign_code(true);
    let magnitude = code & ((1u128 << float.magnitude_bits()) - 1);
    let is_negative = sign != 0 && code & sign != 0;
    let largest = float.infinity_code().unwrap_or(float.max_finite_code());
    if magnitude > largest || (is_negative && magnitude == 0 && !float.has_negative_zero()) {
        return (None, None);
    }
    let outer = (magnitude < largest).then_some(magnitude + 1);
    if magnitude == 0 && float.has_zero {
        let below = (sign != 0).then_some(sign | 1);
        return (below, Some(1));
    }
    // Toward zero of the smallest negative is +0 where there is no -0.
    let inner_sign = if magnitude == 1 && !float.has_negative_zero() { 0 } else { sign };
    let inner = magnitude.checked_sub(1);
    if is_negative {
        (outer.map(|outer| sign | outer), inner.map(|inner| inner_sign | inner))
    } else {
        (inner, outer)
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Rounding::NearestEven => "nearest, ties to even",
            Rounding::NearestAway => "nearest, ties away from zero",
            Rounding::TowardZero => "toward zero",
            Rounding::Up => "up",
            Rounding::Down => "down",
            Rounding::ToOdd => "to odd",
            Rounding::Stochastic(_) => "stochastic",
        })
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Overflow::ToInfinity => "to infinity, or NaN without one",
            Overflow::SaturateFinite => "saturate-finite",
            Overflow::SaturatePropagate => "saturate-propagate",
            Overflow::Onnx => "ONNX saturate=1",
        })
    }
}

impl fmt::Display for Subnormals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Subnormals::Kept => "kept",
            Subnormals::FlushedToZero => "flushed to zero",
            Subnormals::TakenForZero => "taken for zero",
        })
    }
}
