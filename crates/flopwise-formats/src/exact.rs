//! An exact real number, and its printing to any number of digits.
//!
//! Not here: text to number ([`crate::decimal`]), number to code ([`crate::codec`]).

use dashu_int::UBig;
use dashu_int::ops::{BitTest, Gcd};
use std::cmp::Ordering;
use std::fmt;

/// A value that a format is asked to hold: exact, whatever it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exact {
    /// A rational number; zero has a sign.
    Finite(Rational),
    /// Positive or negative infinity.
    Infinity {
        /// Whether it is `-inf`.
        is_negative: bool,
    },
    /// Not a number.
    Nan {
        /// The sign bit, which IEEE 754 gives no meaning.
        is_negative: bool,
        /// The integer below the quiet bit (IEEE 754-2019 section 9.7, `setPayload`); 0 if none.
        payload: u128,
    },
    /// A literal beyond `10^±20000`: larger than the largest, or smaller than the smallest value of
    /// every format, so that its digits do not matter.
    Beyond {
        /// Whether it has a minus sign.
        is_negative: bool,
        /// Whether it is huge rather than tiny.
        is_huge: bool,
    },
}

/// `±numerator / denominator * 2^exponent`, exact.
///
/// Numerator (unless zero) and denominator are odd, so that a binary fraction has denominator 1
/// whatever its exponent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rational {
    is_negative: bool,
    numerator: UBig,
    denominator: UBig,
    exponent: i64,
}

/// `2^exponent * significand / 2^127 * (1 + something below the last bit if sticky)`.
///
/// The top bit of `significand` is set: all that rounding to at most 113 bits needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Normalized {
    pub(crate) significand: u128,
    pub(crate) exponent: i64,
    pub(crate) is_sticky: bool,
}

impl Exact {
    /// The value of a binary64, exactly; a NaN loses its payload.
    ///
    /// ```
    /// use flopwise_formats::Exact;
    /// assert_eq!(Exact::from_f64(0.1).to_string(),
    ///     "0.1000000000000000055511151231257827021181583404541015625");
    /// ```
    pub fn from_f64(value: f64) -> Exact {
        let is_negative = value.is_sign_negative();
        if value.is_nan() {
            return Exact::Nan { is_negative, payload: 0 };
        }
        if value.is_infinite() {
            return Exact::Infinity { is_negative };
        }
        let bits = value.to_bits();
        let field = (bits >> 52) & 0x7ff;
        let trailing = bits & ((1 << 52) - 1);
        let (significand, exponent) = match field {
            0 => (trailing, -1074),
            field => (trailing | 1 << 52, field as i64 - 1075),
        };
        Exact::Finite(Rational::binary(is_negative, u128::from(significand), exponent))
    }

    /// Zero with a sign.
    pub fn zero(is_negative: bool) -> Exact {
        Exact::Finite(Rational::binary(is_negative, 0, 0))
    }

    /// The rational number; `None` for the others.
    pub fn rational(&self) -> Option<&Rational> {
        match self {
            Exact::Finite(rational) => Some(rational),
            Exact::Infinity { .. } | Exact::Nan { .. } | Exact::Beyond { .. } => None,
        }
    }

    /// Whether the sign is minus; `-0` and `-nan` have it too.
    pub fn is_negative(&self) -> bool {
        match self {
            Exact::Finite(rational) => rational.is_negative,
            Exact::Infinity { is_negative }
            | Exact::Nan { is_negative, .. }
            | Exact::Beyond { is_negative, .. } => *is_negative,
        }
    }
}

impl fmt::Display for Exact {
    /// Every digit of a decimal fraction that ends; another rational as `numerator/denominator`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative() { "-" } else { "" };
        match self {
            Exact::Finite(rational) => write!(formatter, "{rational}"),
            Exact::Infinity { .. } => write!(formatter, "{sign}inf"),
            Exact::Nan { payload: 0, .. } => write!(formatter, "{sign}nan"),
            Exact::Nan { payload, .. } => write!(formatter, "{sign}nan({payload:#x})"),
            Exact::Beyond { is_huge: true, .. } => write!(formatter, "{sign}(over 1e20000)"),
            Exact::Beyond { is_huge: false, .. } => write!(formatter, "{sign}(under 1e-20000)"),
        }
    }
}

impl Rational {
    /// `±significand * 2^exponent`.
    pub fn binary(is_negative: bool, significand: u128, exponent: i64) -> Rational {
        let twos = if significand == 0 { 0 } else { significand.trailing_zeros() };
        Rational {
            is_negative,
            numerator: UBig::from(significand >> twos),
            denominator: UBig::ONE,
            exponent: if significand == 0 { 0 } else { exponent + i64::from(twos) },
        }
    }

    /// `±numerator / denominator * 2^exponent`; the denominator is not zero.
    pub(crate) fn new(
        is_negative: bool,
        numerator: UBig,
        denominator: UBig,
        exponent: i64,
    ) -> Rational {
        let Some(twos) = numerator.trailing_zeros() else {
            return Rational::binary(is_negative, 0, 0);
        };
        let below = denominator.trailing_zeros().unwrap_or(0);
        Rational {
            is_negative,
            numerator: numerator >> twos,
            denominator: denominator >> below,
            exponent: exponent + twos as i64 - below as i64,
        }
    }

    /// Whether the value is `0` or `-0`.
    pub fn is_zero(&self) -> bool {
        self.numerator.is_zero()
    }

    /// Whether the sign is minus; `-0` has it too.
    pub fn is_negative(&self) -> bool {
        self.is_negative
    }

    /// Whether the value is an integer times a power of two, so that its binary expansion ends.
    pub fn is_binary_fraction(&self) -> bool {
        self.denominator.is_one() || (&self.numerator % &self.denominator).is_zero()
    }

    /// The same without its sign.
    pub fn abs(&self) -> Rational {
        Rational { is_negative: false, ..self.clone() }
    }

    /// The same with the other sign.
    pub fn negated(&self) -> Rational {
        Rational { is_negative: !self.is_negative, ..self.clone() }
    }

    /// The magnitude's whole part, with the sign.
    pub fn floor(&self) -> Rational {
        let whole = self.whole_part(0);
        Rational::new(self.is_negative, whole, UBig::ONE, 0)
    }

    /// `floor(|x| * 2^power)`.
    fn whole_part(&self, power: i64) -> UBig {
        let shift = self.exponent + power;
        if shift >= 0 {
            (&self.numerator << shift as usize) / &self.denominator
        } else {
            &self.numerator / (&self.denominator << (-shift) as usize)
        }
    }

    /// The weight `2^w` of the last digit of a binary expansion that ends, or of the first that
    /// belongs to the repeating part.
    pub(crate) fn first_repeating_weight(&self) -> i64 {
        if self.is_binary_fraction() {
            return self.exponent.min(0);
        }
        self.exponent.min(0) - 1
    }

    /// `self * 2^power`.
    pub fn scaled(&self, power: i64) -> Rational {
        let exponent = if self.is_zero() { 0 } else { self.exponent + power };
        Rational { exponent, ..self.clone() }
    }

    /// `self - other`; a difference of zero is `+0`.
    pub fn minus(&self, other: &Rational) -> Rational {
        let exponent = self.exponent.min(other.exponent);
        let one = (&self.numerator * &other.denominator) << (self.exponent - exponent) as usize;
        let two = (&other.numerator * &self.denominator) << (other.exponent - exponent) as usize;
        let denominator = &self.denominator * &other.denominator;
        let (is_negative, numerator) = match (self.is_negative, other.is_negative) {
            (false, true) => (false, one + two),
            (true, false) => (true, one + two),
            (sign, _) if one >= two => (sign, one - two),
            (sign, _) => (!sign, two - one),
        };
        let is_negative = is_negative && !numerator.is_zero();
        Rational::new(is_negative, numerator, denominator, exponent)
    }

    /// `self * other`.
    pub fn times(&self, other: &Rational) -> Rational {
        Rational::new(
            self.is_negative != other.is_negative,
            &self.numerator * &other.numerator,
            &self.denominator * &other.denominator,
            self.exponent + other.exponent,
        )
    }

    /// `self / other`; `None` when `other` is zero.
    pub fn over(&self, other: &Rational) -> Option<Rational> {
        if other.is_zero() {
            return None;
        }
        Some(Rational::new(
            self.is_negative != other.is_negative,
            &self.numerator * &other.denominator,
            &self.denominator * &other.numerator,
            self.exponent - other.exponent,
        ))
    }

    /// Which is nearer to zero.
    pub fn cmp_magnitude(&self, other: &Rational) -> Ordering {
        let difference = self.abs().minus(&other.abs());
        match (difference.is_zero(), difference.is_negative) {
            (true, _) => Ordering::Equal,
            (false, true) => Ordering::Less,
            (false, false) => Ordering::Greater,
        }
    }

    /// The power of two at or below the magnitude: `floor(log2 |x|)`; `None` for zero.
    pub fn floor_log2(&self) -> Option<i64> {
        self.normalized().map(|normalized| normalized.exponent)
    }

    /// The leading 128 bits; `None` for zero.
    pub(crate) fn normalized(&self) -> Option<Normalized> {
        if self.is_zero() {
            return None;
        }
        // One bit more than needed, as the quotient of an N-bit by a D-bit number has N - D or
        // N - D + 1 bits.
        let shift = 129 + self.denominator.bit_len() as i64 - self.numerator.bit_len() as i64;
        let (dividend, divisor) = if shift >= 0 {
            (&self.numerator << shift as usize, self.denominator.clone())
        } else {
            (self.numerator.clone(), &self.denominator << (-shift) as usize)
        };
        let quotient = &dividend / &divisor;
        let is_exact = &quotient * &divisor == dividend;
        let spare = quotient.bit_len() - 128;
        let lost = quotient.trailing_zeros().is_some_and(|zeros| zeros < spare);
        let leading = u128::try_from(&quotient >> spare).unwrap_or(u128::MAX);
        Some(Normalized {
            significand: leading,
            exponent: self.exponent - shift + spare as i64 + 127,
            is_sticky: !is_exact || lost,
        })
    }

    /// The digits of the magnitude's binary expansion from weight `2^first` down, `n_bits` of them.
    pub(crate) fn bits_from(&self, first: i64, n_bits: usize) -> Vec<bool> {
        // floor(|x| / 2^(first - n_bits + 1)) holds the bits wanted in its lowest places.
        let whole = self.whole_part(n_bits as i64 - 1 - first);
        (0..n_bits).rev().map(|place| whole.bit(place)).collect()
    }

    /// Length of the repeating part of the binary expansion: the order of 2 modulo the denominator
    /// in lowest terms; `None` beyond `limit`, 0 if the expansion ends.
    pub fn binary_period(&self, limit: usize) -> Option<usize> {
        let common = (&self.numerator).gcd(&self.denominator);
        let modulus = &self.denominator / common;
        if modulus.is_one() {
            return Some(0);
        }
        let mut power = UBig::from(2u8) % &modulus;
        for length in 1..=limit {
            if power.is_one() {
                return Some(length);
            }
            power = (power << 1) % &modulus;
        }
        None
    }

    /// Rounded to `n_digits` significant decimal digits, half to even, as `d.ddde±x`; zero is `0`.
    pub fn to_scientific(&self, n_digits: usize) -> String {
        let Some(log2) = self.floor_log2() else { return "0".to_owned() };
        let sign = if self.is_negative { "-" } else { "" };
        // At most one too small: log10(2) cut off after six digits errs by 2e-7 * 66,000 bits.
        let mut power = log2 * 301_030 / 1_000_000 - 1;
        let mut digits;
        loop {
            digits = self.digits_at(n_digits as i64 - 1 - power).to_string();
            if digits.len() <= n_digits {
                break;
            }
            power += 1;
        }
        let (first, rest) = digits.split_at(1);
        let rest = rest.trim_end_matches('0');
        let point = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{point}{rest}e{power}")
    }

    /// `|x| * 10^places`, rounded half to even.
    fn digits_at(&self, places: i64) -> UBig {
        let ten = UBig::from(10u8);
        let mut numerator = self.numerator.clone();
        let mut denominator = self.denominator.clone();
        match places >= 0 {
            true => numerator *= ten.pow(places as usize),
            false => denominator *= ten.pow((-places) as usize),
        }
        match self.exponent >= 0 {
            true => numerator <<= self.exponent as usize,
            false => denominator <<= (-self.exponent) as usize,
        }
        let quotient = &numerator / &denominator;
        let twice = (numerator - &quotient * &denominator) << 1;
        let is_odd = quotient.trailing_zeros() == Some(0);
        match twice.cmp(&denominator) {
            Ordering::Greater => quotient + UBig::ONE,
            Ordering::Equal if is_odd => quotient + UBig::ONE,
            Ordering::Equal | Ordering::Less => quotient,
        }
    }

    /// The nearest binary64, ties to even; infinite if beyond its range.
    pub fn to_f64(&self) -> f64 {
        let rules = crate::codec::Rules::IEEE;
        let value = Exact::Finite(self.clone());
        let code = crate::codec::encode(crate::Format::FP64, &value, rules).code;
        f64::from_bits(code as u64)
    }

    /// The whole decimal expansion; `None` if it never ends.
    fn decimal_digits(&self) -> Option<String> {
        let five = UBig::from(5u8);
        let mut fives = 0usize;
        let mut rest = &self.denominator / (&self.numerator).gcd(&self.denominator);
        while !rest.is_one() {
            if !(&rest % &five).is_zero() {
                return None;
            }
            rest /= &five;
            fives += 1;
        }
        let twos = usize::try_from(-self.exponent).unwrap_or(0);
        let places = fives.max(twos);
        let digits = self.digits_at(places as i64).to_string();
        if places == 0 {
            return Some(digits);
        }
        // Padding by a format string ends at 65,535.
        let padded = "0".repeat((places + 1).saturating_sub(digits.len())) + &digits;
        let (whole, fraction) = padded.split_at(padded.len() - places);
        Some(format!("{whole}.{}", fraction.trim_end_matches('0')).trim_end_matches('.').to_owned())
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        if let Some(digits) = self.decimal_digits() {
            return write!(formatter, "{sign}{digits}");
        }
        let numerator = &self.numerator << usize::try_from(self.exponent).unwrap_or(0);
        let denominator = &self.denominator << usize::try_from(-self.exponent).unwrap_or(0);
        write!(formatter, "{sign}{numerator}/{denominator}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: Rational, digits: &str, scientific: &str) {
        assert_eq!(value.to_string(), digits);
        assert_eq!(value.to_scientific(4), scientific);
    }

    fn ratio(numerator: u32, denominator: u32) -> Rational {
        Rational::new(false, numerator.into(), denominator.into(), 0)
    }

    #[test]
    fn digits_are_exact() {
        check(ratio(52, 1000), "0.052", "5.2e-2");
        check(ratio(1, 3), "1/3", "3.333e-1");
        check(ratio(2, 3), "2/3", "6.667e-1");
        check(ratio(6, 3), "2", "2e0");
        check(ratio(1000, 1), "1000", "1e3");
        check(ratio(99_999, 1), "99999", "1e5");
        check(Rational::binary(true, 3, -2), "-0.75", "-7.5e-1");
        check(Rational::binary(false, 1, 70), "1180591620717411303424", "1.181e21");
        check(Rational::binary(true, 0, 9), "-0", "0");
        check(Rational::binary(false, 1, -1074).abs(), &tiny(), "4.941e-324");
    }

    /// 2^-1074 = 5^1074 / 10^1074.
    fn tiny() -> String {
        format!("0.{:0>1074}", UBig::from(5u8).pow(1074))
    }

    #[test]
    fn arithmetic_is_exact() {
        let (third, half) = (ratio(1, 3), ratio(1, 2));
        assert_eq!(half.minus(&third), ratio(1, 6));
        assert_eq!(third.minus(&half).to_string(), "-1/6");
        assert_eq!(half.minus(&half).to_string(), "0");
        assert_eq!(third.over(&half), Some(ratio(2, 3)));
        assert_eq!(half.times(&half).floor_log2(), Some(-2));
        assert_eq!(ratio(52, 1000).binary_period(1000), Some(100));
        assert_eq!(ratio(52, 1000).to_f64().to_bits(), 0.052f64.to_bits());
    }
}
