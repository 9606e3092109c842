//! One scale and zero point for a whole tensor: ONNX `QuantizeLinear` and `DequantizeLinear`,
//! exactly.
//!
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>. Not here: a scale per channel or
//! block, which is several of these, and blocks that hold their own scale ([`super`]).

use crate::codec::{self, Encoded, Flags, Rules};
use crate::decimal;
use crate::exact::{Exact, Rational};
use crate::format::{Format, Layout};
use crate::parse::{self, UnknownFormat};
use std::fmt;

/// An integer format with a scale and a zero point: code `q` stands for `(q - zero) * scale`.
///
/// ```
/// use flopwise_formats::{block::affine, decimal};
/// let affine = affine::parse("uint8(scale=0.05, zero=128)").unwrap();
/// let value = decimal::parse("-0.33").unwrap().value;
/// let stored = affine.quantize(&value);
/// assert_eq!(stored.code, 121); // round(-6.6) + 128
/// assert_eq!(affine.dequantize(stored.code).to_string(), "-0.35");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affine {
    format: Format,
    scale: Rational,
    zero_point: i64,
}

/// Wider than every format by more than every zero point, so that only the last step saturates.
const WIDE: Format = Format { name: "", bits: 80, layout: Layout::SignedInteger };

impl Affine {
    /// A scale and zero point for the codes of an integer format.
    ///
    /// # Errors
    /// [`UnknownFormat`] when the format is not one of integers of at most 64 bits, the scale is
    /// not above zero, or the zero point has no code.
    pub fn new(format: Format, scale: Rational, zero_point: i64) -> Result<Affine, UnknownFormat> {
        let refused = |problem: String| Err(UnknownFormat { name: format.to_string(), problem });
        let Some((least, largest)) = code_range(format) else {
            return refused("has no integer codes; take one such as int8".to_owned());
        };
        if scale.is_zero() || scale.is_negative() {
            return refused(format!("a scale of {scale} is not above zero"));
        }
        if i128::from(zero_point) < least || i128::from(zero_point) > largest {
            return refused(format!(
                "the zero point {zero_point} has no code; {least} to {largest} have"
            ));
        }
        Ok(Affine { format, scale, zero_point })
    }

    /// The format of the codes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The distance between the values of two neighbouring codes.
    pub fn scale(&self) -> &Rational {
        &self.scale
    }

    /// The code, as an integer, that stands for zero.
    pub fn zero_point(&self) -> i64 {
        self.zero_point
    }

    /// `saturate(round_half_even(value / scale) + zero)`, from the exact quotient.
    ///
    /// NaN, which ONNX leaves open, gives the code of zero and [`Flags::is_invalid`]; infinities
    /// saturate.
    pub fn quantize(&self, value: &Exact) -> Encoded {
        let quotient = match value {
            Exact::Finite(rational) => {
                let quotient = rational.over(&self.scale);
                Exact::Finite(quotient.expect("a constructor refuses a scale of zero"))
            }
            Exact::Infinity { .. } | Exact::Nan { .. } | Exact::Beyond { .. } => value.clone(),
        };
        let rounded = codec::encode(WIDE, &quotient, Rules::SATURATING);
        let steps = sign_extended(rounded.code, WIDE.bits);
        let wanted = steps + i128::from(self.zero_point);
        let (least, largest) = code_range(self.format).unwrap_or((0, 0));
        let held = wanted.clamp(least, largest);
        let is_overflow = rounded.flags.is_overflow || held != wanted;
        let is_inexact = rounded.flags.is_inexact || is_overflow;
        let flags = Flags { is_inexact, is_overflow, ..rounded.flags };
        Encoded { code: held as u128 & (u128::MAX >> (128 - self.format.bits)), flags }
    }

    /// `(code - zero) * scale`, exactly; bits above the format's are ignored.
    pub fn dequantize(&self, code: u128) -> Exact {
        let code = code & (u128::MAX >> (128 - self.format.bits));
        let integer = match self.format.layout {
            Layout::SignedInteger => sign_extended(code, self.format.bits),
            Layout::UnsignedInteger
            | Layout::Float(_)
            | Layout::CodeBook(_)
            | Layout::Boolean
            | Layout::Complex
            | Layout::Text => code as i128,
        };
        let steps = integer - i128::from(self.zero_point);
        let steps = Rational::binary(steps < 0, steps.unsigned_abs(), 0);
        Exact::Finite(steps.times(&self.scale))
    }
}

/// The least and largest integer that has a code.
fn code_range(format: Format) -> Option<(i128, i128)> {
    let bits = format.bits;
    match format.layout {
        Layout::SignedInteger if bits <= 64 => Some((-1 << (bits - 1), (1 << (bits - 1)) - 1)),
        Layout::UnsignedInteger if bits <= 64 => Some((0, (1 << bits) - 1)),
        Layout::SignedInteger
        | Layout::UnsignedInteger
        | Layout::Float(_)
        | Layout::CodeBook(_)
        | Layout::Boolean
        | Layout::Complex
        | Layout::Text => None,
    }
}

fn sign_extended(code: u128, bits: u16) -> i128 {
    let spare = 128 - bits;
    ((code << spare) as i128) >> spare
}

impl fmt::Display for Affine {
    /// What [`parse()`] reads back.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Affine { format, scale, zero_point } = self;
        write!(formatter, "{format}(scale={scale},zero={zero_point})")
    }
}

/// Reads `int8(scale=0.05,zero=3)`: an integer format by any of its names, a scale above zero,
/// decimal, hexadecimal or a ratio, exactly, and a zero point, 0 if left out.
///
/// # Errors
/// [`UnknownFormat`] says what is wrong.
///
/// ```
/// use flopwise_formats::block::affine;
/// assert_eq!(affine::parse("INT8( scale = 1/3 )").unwrap().to_string(), "int8(scale=1/3,zero=0)");
/// assert!(affine::parse("int8(scale=-0.05)").unwrap_err().problem.contains("not above zero"));
/// ```
pub fn parse(text: &str) -> Result<Affine, UnknownFormat> {
    let refused =
        |problem: String| UnknownFormat { name: text.trim().chars().take(60).collect(), problem };
    let shape = "is written like int8(scale=0.05,zero=3)";
    let (format, rest) = text.trim().split_once('(').ok_or_else(|| refused(shape.to_owned()))?;
    let arguments = rest.strip_suffix(')').ok_or_else(|| refused(shape.to_owned()))?;
    let format = parse::parse(format)?;
    let (mut scale, mut zero_point) = (None, None);
    for argument in arguments.split(',') {
        let (key, value) = argument.split_once('=').ok_or_else(|| refused(shape.to_owned()))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "scale" if scale.is_none() => {
                let literal = decimal::parse(value).map_err(|flaw| refused(flaw.to_string()))?;
                let rational = literal.value.rational().cloned();
                let problem = || refused(format!("a scale of {value} is not a finite number"));
                scale = Some(rational.ok_or_else(problem)?);
            }
            "zero" | "zero_point" if zero_point.is_none() => {
                let problem = |_| refused(format!("the zero point {value} is not an integer"));
                zero_point = Some(value.parse::<i64>().map_err(problem)?);
            }
            key => {
                return Err(refused(format!("`{key}` is none of scale and zero, or twice there")));
            }
        }
    }
    let scale = scale.ok_or_else(|| refused(format!("the scale is missing: it {shape}")))?;
    let affine = Affine::new(format, scale, zero_point.unwrap_or(0));
    affine.map_err(|error| refused(error.problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a value, and what it is afterwards.
    #[track_caller]
    fn check(affine: &str, value: &str, code: u128, back: &str) {
        let affine = parse(affine).unwrap();
        let stored = affine.quantize(&decimal::parse(value).unwrap().value);
        let decoded = affine.dequantize(stored.code).to_string();
        assert_eq!((stored.code, decoded.as_str()), (code, back), "{affine} {value}");
    }

    #[test]
    fn quantizing_is_exact() {
        check("int8(scale=0.05,zero=3)", "0", 3, "0");
        check("int8(scale=0.05,zero=3)", "0.05", 4, "0.05");
        // 0.125 / 0.05 = 2.5 is a tie in decimal, and not in binary.
        check("int8(scale=0.05,zero=3)", "0.125", 5, "0.1");
        check("int8(scale=0.05,zero=3)", "0.175", 7, "0.2");
        // A tie is even before the zero point is added (ONNX), not after.
        check("uint8(scale=1,zero=1)", "0.5", 1, "0");
        check("uint8(scale=1,zero=1)", "1.5", 3, "2");
        check("int8(scale=0.05,zero=3)", "-1", 0xef, "-1");
        check("int8(scale=0.05,zero=3)", "1e9", 127, "6.2");
        check("int8(scale=0.05,zero=3)", "-inf", 0x80, "-6.55");
        check("int8(scale=0.05,zero=3)", "nan", 3, "0");
        check("int8(scale=0.05,zero=3)", "1e-30000", 3, "0");
        check("uint8(scale=0.5)", "-1", 0, "0");
        check("uint4(scale=2,zero=8)", "13", 14, "12");
        check("int2(scale=1)", "-2", 2, "-2");
        check("int32(scale=1e-9,zero=-2147483648)", "4.294967295", 0x7fff_ffff, "4.294967295");
        check(
            "uint64(scale=1)",
            "18446744073709551614",
            u128::from(u64::MAX) - 1,
            "18446744073709551614",
        );
        check(
            "int64(scale=1,zero=-9223372036854775808)",
            "1e30",
            (1 << 63) - 1,
            "18446744073709551615",
        );
    }

    #[test]
    fn flags_say_what_happened() {
        let affine = parse("int8(scale=0.5)").unwrap();
        let flags = |text: &str| affine.quantize(&decimal::parse(text).unwrap().value).flags;
        assert_eq!(flags("1.5"), Flags::default());
        assert!(flags("1.6").is_inexact && !flags("1.6").is_overflow);
        assert!(flags("64").is_overflow && flags("64").is_inexact);
        assert!(!flags("-64").is_overflow);
        assert!(flags("nan").is_invalid);
    }

    #[test]
    fn every_code_comes_back_and_every_name_parses_back() {
        for text in
            ["int8(scale=0.05,zero=3)", "uint8(scale=1/3,zero=255)", "int4(scale=3e-5,zero=-8)"]
        {
            let affine = parse(text).unwrap();
            assert_eq!(parse(&affine.to_string()), Ok(affine.clone()));
            for code in 0..1u128 << affine.format().bits {
                let stored = affine.quantize(&affine.dequantize(code));
                assert_eq!((stored.code, stored.flags), (code, Flags::default()));
            }
        }
    }

    #[track_caller]
    fn refuse(text: &str, expected: &str) {
        let problem = parse(text).unwrap_err().problem;
        assert!(problem.contains(expected), "{text}: {problem}");
    }

    #[test]
    fn nonsense_is_answered() {
        refuse("int8", "is written like");
        refuse("int8(scale=1", "is written like");
        refuse("int8(1)", "is written like");
        refuse("int8()", "is written like");
        refuse("int8(zero=1)", "the scale is missing");
        refuse("int8(scale=0)", "not above zero");
        refuse("int8(scale=-1)", "not above zero");
        refuse("int8(scale=inf)", "not a finite number");
        refuse("int8(scale=1e99999)", "not a finite number");
        refuse("int8(scale=x)", "is not a number");
        refuse("int8(scale=1,zero=1.5)", "is not an integer");
        refuse("int8(scale=1,zero=128)", "-128 to 127 have");
        refuse("uint8(scale=1,zero=-1)", "0 to 255 have");
        refuse("int8(scale=1,scale=2)", "twice");
        refuse("int8(scale=1,axis=0)", "`axis` is none of");
        refuse("fp16(scale=1)", "has no integer codes");
        refuse("int9(scale=1)", "is unknown");
    }
}
