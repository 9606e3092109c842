//! What can be said of a format without a value: its range, precision and special codes.

use crate::codec;
use crate::exact::{Exact, Rational};
use crate::explain;
use crate::format::{Float, Format, Layout, Nan};

/// Range, precision and special codes of a format of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The largest finite value, and its code.
    pub max: Bound,
    /// The smallest positive normal value; `None` for integers and code books.
    pub min_normal: Option<Bound>,
    /// The smallest positive subnormal; `None` without subnormals.
    pub min_subnormal: Option<Bound>,
    /// The smallest value: minus the largest, the most negative integer, or zero.
    pub lowest: Bound,
    /// Significant binary digits of a normal value; `None` for code books.
    pub precision: Option<u32>,
    /// The distance from 1 to the next value; `None` where 1 is out of range or has no next.
    pub epsilon: Option<Exact>,
    /// The smallest magnitude that rounds (nearest even) beyond the largest value, and whether that
    /// magnitude itself does, or only what is above; `None` for integers and code books.
    pub first_overflow: Option<(Exact, bool)>,
    /// Codes of finite values; `-0` counts beside `0`.
    pub finite_codes: u128,
    /// Codes of NaN.
    pub nan_codes: u128,
    /// The code of positive infinity.
    pub infinity: Option<u128>,
    /// The code of the NaN that conversions give.
    pub nan: Option<u128>,
    /// The code of `-0`.
    pub negative_zero: Option<u128>,
}

/// A value and its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The code.
    pub code: u128,
    /// The value.
    pub value: Exact,
}

/// All that can be said of a format; `None` for complex pairs, text and booleans.
///
/// ```
/// use flopwise_formats::{Format, facts::facts};
/// let found = facts(Format::E4M3FN).unwrap();
/// assert_eq!(found.max.value.to_string(), "448");
/// assert_eq!(found.first_overflow.unwrap().0.to_string(), "464");
/// assert_eq!(found.finite_codes, 254);
/// ```
pub fn facts(format: Format) -> Option<Facts> {
    match format.layout {
        Layout::Float(float) => float_facts(format, float),
        Layout::SignedInteger => {
            let lowest = 1u128 << (format.bits - 1);
            discrete_facts(format, lowest - 1, lowest, Some(u32::from(format.bits) - 1))
        }
        Layout::UnsignedInteger => {
            discrete_facts(format, (1u128 << format.bits) - 1, 0, Some(u32::from(format.bits)))
        }
        Layout::CodeBook(book) => discrete_facts(format, book.values().len() as u128 - 1, 0, None),
        Layout::Boolean | Layout::Complex | Layout::Text => None,
    }
}

fn bound(format: Format, code: u128) -> Option<Bound> {
    Some(Bound { code, value: codec::decode(format, code)? })
}

fn discrete_facts(
    format: Format,
    max: u128,
    lowest: u128,
    precision: Option<u32>,
) -> Option<Facts> {
    Some(Facts {
        max: bound(format, max)?,
        min_normal: None,
        min_subnormal: None,
        lowest: bound(format, lowest)?,
        precision,
        epsilon: None,
        first_overflow: None,
        finite_codes: 1 << format.bits,
        nan_codes: 0,
        infinity: None,
        nan: None,
        negative_zero: None,
    })
}

fn float_facts(format: Format, float: Float) -> Option<Facts> {
    let max = bound(format, float.max_finite_code())?;
    let smallest_normal = if float.has_zero { 1u128 << float.significand_bits } else { 0 };
    let has_subnormals = float.has_zero && float.significand_bits > 0;
    let is_normal = smallest_normal <= max.code;
    let sign = float.sign_code(true);
    let lowest = if sign == 0 { 0 } else { sign | max.code };
    let signs = 1u128 << float.sign_bits;
    let nan_codes = match float.nan {
        Nan::None => 0,
        Nan::Ieee => signs * ((1 << float.significand_bits) - 1),
        Nan::AllOnes => signs,
        Nan::NegativeZero => 1,
    };
    Some(Facts {
        min_normal: is_normal.then(|| bound(format, smallest_normal)).flatten(),
        min_subnormal: has_subnormals.then(|| bound(format, 1)).flatten(),
        lowest: bound(format, lowest)?,
        precision: Some(float.precision()),
        epsilon: epsilon(format),
        first_overflow: first_overflow(format, &max),
        finite_codes: float.finite_codes(),
        nan_codes,
        infinity: float.infinity_code(),
        nan: float.nan_code(),
        negative_zero: float.has_negative_zero().then_some(sign),
        max,
    })
}

fn epsilon(format: Format) -> Option<Exact> {
    let one = Exact::Finite(Rational::binary(false, 1, 0));
    let conversion = explain::convert(format, &one, codec::Rules::IEEE)?;
    let above = conversion.above?;
    let step = above.value.rational()?.minus(one.rational()?);
    (conversion.stored == one).then_some(Exact::Finite(step))
}

/// Half a unit above the largest value; that tie is beyond it only if the largest code is odd.
fn first_overflow(format: Format, max: &Bound) -> Option<(Exact, bool)> {
    let largest = max.value.rational()?;
    let half_above = largest.minus(&explain::ulp(format, max.code)?.scaled(-1).negated());
    Some((Exact::Finite(half_above), max.code % 2 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, expected: &str) {
        let facts = facts(format).unwrap();
        let subnormal = facts.min_subnormal.map_or("-".to_owned(), |bound| short(&bound.value));
        let normal = facts.min_normal.map_or("-".to_owned(), |bound| short(&bound.value));
        let overflow = facts.first_overflow.map_or("-".to_owned(), |(value, is_included)| {
            format!("{}{}", if is_included { ">=" } else { ">" }, short(&value))
        });
        let found = format!("{subnormal} {normal} {} {overflow}", short(&facts.max.value));
        assert_eq!(found, expected, "{format}");
        if format.bits <= 16 {
            let n_codes = 1u128 << format.bits.min(15 + format.bits / 16);
            let total = facts.finite_codes
                + facts.nan_codes
                + u128::from(facts.infinity.is_some()) * if facts.lowest.code == 0 { 1 } else { 2 };
            assert_eq!(total, if format == Format::UE4M3 { 128 } else { n_codes }, "{format}");
        }
    }

    fn short(value: &Exact) -> String {
        value.rational().unwrap().to_scientific(6)
    }

    /// The table of reference facts: min subnormal, min normal, max finite, first overflow.
    #[test]
    fn ranges_are_those_of_the_standards() {
        check(Format::FP32, "1.4013e-45 1.17549e-38 3.40282e38 >=3.40282e38");
        check(Format::TF32, "1.14794e-41 1.17549e-38 3.40116e38 >=3.40199e38");
        check(Format::BF16, "9.18355e-41 1.17549e-38 3.38953e38 >=3.39618e38");
        check(Format::FP16, "5.96046e-8 6.10352e-5 6.5504e4 >=6.552e4");
        check(Format::E4M3, "1.95312e-3 1.5625e-2 2.4e2 >=2.48e2");
        check(Format::E4M3FN, "1.95312e-3 1.5625e-2 4.48e2 >4.64e2");
        check(Format::E4M3FNUZ, "9.76562e-4 7.8125e-3 2.4e2 >=2.48e2");
        check(Format::E4M3B11FNUZ, "1.2207e-4 9.76562e-4 3e1 >=3.1e1");
        check(Format::E5M2, "1.52588e-5 6.10352e-5 5.7344e4 >=6.144e4");
        check(Format::E5M2FNUZ, "7.62939e-6 3.05176e-5 5.7344e4 >=6.144e4");
        check(Format::E3M4, "1.5625e-2 2.5e-1 1.55e1 >=1.575e1");
        check(Format::E8M0, "- 5.87747e-39 1.70141e38 >2.55212e38");
        check(Format::UE4M3, "1.95312e-3 1.5625e-2 4.48e2 >4.64e2");
        check(Format::UE5M3, "7.62939e-6 6.10352e-5 1.14688e5 >1.18784e5");
        check(Format::E2M3, "1.25e-1 1e0 7.5e0 >=7.75e0");
        check(Format::E3M2, "6.25e-2 2.5e-1 2.8e1 >=3e1");
        check(Format::E2M1, "5e-1 1e0 6e0 >=7e0");
    }
}
