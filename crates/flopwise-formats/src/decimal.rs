//! Text -> [`Exact`], never through a machine float.
//!
//! | text | meaning |
//! |--|--|
//! | `0.052`, `-1e-400`, `.5`, `1_000` | decimal |
//! | `0x1.a9fbe7p-5` | hexadecimal float (C17 section 6.4.4.2) |
//! | `0x3D54FDF4:fp32`, `0b0011110000000000:fp16` | the bits of a format |
//! | `1/3` | a ratio of two of the above that are numbers |
//! | `inf`, `-infinity`, `nan`, `nan(0x12)` | special values |

use crate::codec;
use crate::exact::{Exact, Rational};
use crate::parse::{self, UnknownFormat};
use dashu_int::UBig;
use dashu_int::ops::BitTest;
use std::fmt;

/// Digits read of one number, leading and trailing zeros included.
const MAX_DIGITS: usize = 10_000;
/// Beyond this decimal exponent a literal is [`Exact::Beyond`]: the widest format a user can
/// describe has 15 exponent bits and a bias of at most [`parse::MAX_BIAS`], so ends before
/// `2^±65600 = 10^±19748`.
const MAX_DECIMAL_EXPONENT: i64 = 20_000;
/// The same in binary, for hexadecimal literals: `10^20000 = 2^66438`.
const MAX_BINARY_EXPONENT: i64 = 66_438;

/// A text that is no number: what was expected, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNumber {
    /// The text, cut short if long.
    pub text: String,
    /// Characters before the flaw.
    pub at: usize,
    /// What is wrong there and what would do.
    pub problem: String,
}

impl fmt::Display for BadNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadNumber { text, at, problem } = self;
        write!(formatter, "`{text}` is not a number: at character {}, {problem}", at + 1)
    }
}

impl std::error::Error for BadNumber {}

/// What a number was written as: its value, and the format if its bits were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    /// The value, exact.
    pub value: Exact,
    /// The format and code, where the text gave those.
    pub code: Option<(crate::Format, u128)>,
}

/// Reads a number, exactly.
///
/// # Errors
/// [`BadNumber`] names the place and what was expected there.
///
/// ```
/// use flopwise_formats::decimal;
/// assert_eq!(decimal::parse("0.052").unwrap().value.to_string(), "0.052");
/// let bits = decimal::parse("0x3D54FDF4:fp32").unwrap();
/// assert_eq!(bits.value.to_string(), "0.05200000107288360595703125");
/// assert_eq!(decimal::parse("1e").unwrap_err().at, 2);
/// ```
pub fn parse(text: &str) -> Result<Literal, BadNumber> {
    let trimmed = text.trim();
    let mut cursor = Cursor { text: trimmed, at: 0 };
    if trimmed.is_empty() {
        return Err(cursor.flaw("a number is missing; write one such as 0.052"));
    }
    if let Some((bits, format)) = trimmed.split_once(':') {
        return bits_of(&mut cursor, bits, format);
    }
    let value = cursor.special_or_ratio()?;
    Ok(Literal { value, code: None })
}

/// `0x3D54FDF4:fp32`.
fn bits_of(cursor: &mut Cursor<'_>, bits: &str, format: &str) -> Result<Literal, BadNumber> {
    let found = match parse::parse(format) {
        Ok(found) => found,
        Err(error) => return Err(cursor.bad_format(bits.len() + 1, &error)),
    };
    let (radix, name) = match bits.get(..2) {
        Some("0x" | "0X") => (16, "hexadecimal"),
        Some("0b" | "0B") => (2, "binary"),
        Some(_) | None => {
            return Err(cursor.flaw("bits before a `:` start with 0x or 0b, as in 0x2AA8:fp16"));
        }
    };
    cursor.at = 2;
    let mut code = 0u128;
    for symbol in bits.chars().skip(2) {
        if symbol != '_' {
            let Some(digit) = symbol.to_digit(radix) else {
                return Err(cursor.flaw(&format!("`{symbol}` is no {name} digit")));
            };
            let wider = code.checked_mul(u128::from(radix)).map(|code| code + u128::from(digit));
            let fits = wider.filter(|code| found.bits == 128 || code >> found.bits == 0);
            let Some(fits) = fits else {
                return Err(cursor.flaw(&format!("{found} has {} bits only", found.bits)));
            };
            code = fits;
        }
        cursor.at += 1;
    }
    if bits.len() == 2 {
        return Err(cursor.flaw(&format!("{name} digits are missing")));
    }
    let Some(value) = codec::decode(found, code) else {
        cursor.at = bits.len() + 1;
        return Err(cursor.flaw(&format!("{found} is not a format of numbers")));
    };
    Ok(Literal { value, code: Some((found, code)) })
}

/// A place in the text.
struct Cursor<'a> {
    text: &'a str,
    /// In bytes; only ever moved past whole characters.
    at: usize,
}

impl Cursor<'_> {
    /// Characters of a text quoted in an error.
    const QUOTED: usize = 40;

    fn flaw(&self, problem: &str) -> BadNumber {
        let mut text: String = self.text.chars().take(Self::QUOTED).collect();
        if text.len() < self.text.len() {
            text.push_str("...");
        }
        let at = self.text.get(..self.at).unwrap_or(self.text).chars().count();
        BadNumber { text, at, problem: problem.to_owned() }
    }

    fn bad_format(&mut self, at: usize, error: &UnknownFormat) -> BadNumber {
        self.at = at;
        self.flaw(&error.to_string())
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, wanted: &[char]) -> Option<char> {
        let found = self.peek().filter(|found| wanted.contains(&found.to_ascii_lowercase()))?;
        self.at += found.len_utf8();
        Some(found)
    }

    fn sign(&mut self) -> bool {
        self.eat(&['+', '-', '\u{2212}']).is_some_and(|sign| sign != '+')
    }

    fn end(&self, expected: &str) -> Result<(), BadNumber> {
        match self.peek() {
            None => Ok(()),
            Some(found) => Err(self.flaw(&format!("`{found}` stands where {expected}"))),
        }
    }

    fn special_or_ratio(&mut self) -> Result<Exact, BadNumber> {
        let is_negative = self.sign();
        let start = self.at;
        let word = self.rest().to_ascii_lowercase();
        if word == "inf" || word == "infinity" {
            return Ok(Exact::Infinity { is_negative });
        }
        if word.starts_with("nan") {
            self.at += 3;
            let payload = self.payload()?;
            return Ok(Exact::Nan { is_negative, payload });
        }
        self.at = start;
        let numerator = self.number(is_negative)?;
        if self.eat(&['/']).is_none() {
            self.end("a digit, `.`, an exponent or `/` would do")?;
            return Ok(numerator);
        }
        let below = self.at;
        let is_negative = self.sign();
        let denominator = self.number(is_negative)?;
        self.end("a digit, `.` or an exponent would do")?;
        self.at = below;
        let (Some(numerator), Some(denominator)) = (numerator.rational(), denominator.rational())
        else {
            return Err(self.flaw("a ratio of numbers beyond 1e±20000 is not worked out"));
        };
        let ratio = numerator.over(denominator);
        ratio.map(Exact::Finite).ok_or_else(|| self.flaw("the denominator is zero"))
    }

    /// `(0x12)`, `(18)` or nothing.
    fn payload(&mut self) -> Result<u128, BadNumber> {
        if self.peek().is_none() {
            return Ok(0);
        }
        if self.eat(&['(']).is_none() {
            self.end("nothing or a payload such as (0x12) would do")?;
        }
        let inner = self.rest().to_owned();
        let Some(digits) = inner.strip_suffix(')') else {
            self.at = self.text.len();
            return Err(self.flaw("`)` is missing after the payload of the NaN"));
        };
        let parsed = match digits.strip_prefix("0x") {
            Some(hexadecimal) => u128::from_str_radix(hexadecimal, 16),
            None => digits.parse(),
        };
        parsed.map_err(|_| self.flaw("the payload of a NaN is an integer such as 18 or 0x12"))
    }

    fn number(&mut self, is_negative: bool) -> Result<Exact, BadNumber> {
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            return self.hexadecimal(is_negative);
        }
        let (digits, places) = self.digits(10)?;
        let exponent = if self.eat(&['e']).is_some() { self.exponent()? } else { 0 };
        Ok(decimal(is_negative, &digits, exponent.saturating_sub(places as i64)))
    }

    fn hexadecimal(&mut self, is_negative: bool) -> Result<Exact, BadNumber> {
        let (digits, places) = self.digits(16)?;
        let exponent = match self.eat(&['p']) {
            Some(_) => self.exponent()?,
            None if places == 0 => {
                return Err(self.flaw(
                    "a hexadecimal float needs its exponent, as in 0x1.8p0, and bits their \
                     format, as in 0x3C00:fp16",
                ));
            }
            None => return Err(self.flaw("a hexadecimal float needs its exponent, as in 0x1.8p0")),
        };
        let significand = UBig::from_str_radix(&digits, 16).unwrap_or(UBig::ZERO);
        let exponent = exponent.saturating_sub(4 * places as i64);
        let log2 = exponent.saturating_add(significand.bit_len() as i64);
        if !significand.is_zero() && log2.abs() > MAX_BINARY_EXPONENT {
            return Ok(Exact::Beyond { is_negative, is_huge: log2 > 0 });
        }
        let exponent = if significand.is_zero() { 0 } else { exponent };
        Ok(Exact::Finite(Rational::new(is_negative, significand, UBig::ONE, exponent)))
    }

    /// Digits without their point, and how many stood after it.
    fn digits(&mut self, radix: u32) -> Result<(String, usize), BadNumber> {
        let mut digits = String::new();
        let mut point = None;
        while let Some(symbol) = self.peek() {
            match symbol {
                '.' if point.is_none() => point = Some(digits.len()),
                '_' if !digits.is_empty() => {}
                digit if digit.is_digit(radix) => digits.push(digit),
                _ => break,
            }
            self.at += 1;
            if digits.len() > MAX_DIGITS {
                return Err(self.flaw("more than 10,000 digits are not read"));
            }
        }
        if digits.is_empty() {
            let expected = match (radix, self.at) {
                (16, _) => "hexadecimal digits are missing",
                (_, 0) => "a digit, a sign, inf or nan would do",
                (_, _) => "digits are missing",
            };
            return Err(self.flaw(expected));
        }
        let places = point.map_or(0, |point| digits.len() - point);
        Ok((digits, places))
    }

    /// An exponent after its letter; a huge one is cut off at what is beyond every format.
    fn exponent(&mut self) -> Result<i64, BadNumber> {
        let is_negative = self.sign();
        let start = self.at;
        let mut exponent = 0i64;
        while let Some(digit) = self.peek().and_then(|symbol| symbol.to_digit(10)) {
            exponent = exponent.saturating_mul(10).saturating_add(i64::from(digit));
            self.at += 1;
        }
        if self.at == start {
            return Err(self.flaw("the digits of the exponent are missing"));
        }
        Ok(if is_negative { -exponent } else { exponent })
    }
}

/// `±digits * 10^exponent`.
fn decimal(is_negative: bool, digits: &str, exponent: i64) -> Exact {
    let stripped = digits.trim_start_matches('0');
    if stripped.is_empty() {
        return Exact::zero(is_negative);
    }
    // Trailing zeros would only make the integers larger.
    let significant = stripped.trim_end_matches('0');
    let exponent = exponent.saturating_add((stripped.len() - significant.len()) as i64);
    let log10 = exponent.saturating_add(significant.len() as i64);
    if log10.abs() > MAX_DECIMAL_EXPONENT {
        return Exact::Beyond { is_negative, is_huge: log10 > 0 };
    }
    let significand = UBig::from_str_radix(significant, 10).unwrap_or(UBig::ZERO);
    let fives = UBig::from(5u8).pow(exponent.unsigned_abs() as usize);
    Exact::Finite(if exponent >= 0 {
        Rational::new(is_negative, significand * fives, UBig::ONE, exponent)
    } else {
        Rational::new(is_negative, significand, fives, exponent)
    })
}
