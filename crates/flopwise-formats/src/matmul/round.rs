//! [`Grid`]: rounding a binary64 to the values of a narrower format, fast and exactly.
//!
//! [`crate::codec`] is the reference it is tested against. A sum of two numbers is first rounded to
//! odd in binary64, which keeps what a second rounding to fewer bits must know (Boldo and
//! Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
//! odd", IEEE Transactions on Computers 57(4), 2008), so that `a * b + c` is rounded once. Not
//! here: integers, code books, and formats as wide as binary64.

use super::exact::power_of_two;
use crate::codec::{self, Overflow, Rules, StochasticVariant};
use crate::format::Format;

/// The values of a signed floating-point format of fewer bits than binary64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    kind: Kind,
    significand_bits: i32,
    min_exponent: i32,
    max: f64,
    /// What a result beyond `max` becomes.
    beyond: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Binary64 itself: every operation of the processor is rounded once.
    Binary64,
    /// Binary32 with infinities: the processor converts.
    Binary32,
    Other,
}

/// Exponents within which sums and scales stay far from the ends of binary64.
const MAX_EXPONENT: i64 = 400;
/// Rounding to odd needs two bits more than the format (Boldo and Melquiond, theorem 3).
const MAX_PRECISION: u32 = 51;

impl Grid {
    /// The grid of a format; `None` for one that is not a signed float with a zero, or is too wide.
    pub(super) fn new(format: Format, overflow: Overflow) -> Option<Grid> {
        let float = format.float()?;
        let max = codec::decode_f64(format, float.max_finite_code());
        let rules = Rules { overflow, ..Rules::IEEE };
        let huge = codec::encode_f64(format, power_of_two(1000), rules).code;
        let kind = match (format, overflow) {
            (Format::FP64, _) => Kind::Binary64,
            (Format::FP32, Overflow::ToInfinity) => Kind::Binary32,
            _ => Kind::Other,
        };
        let lowest = i64::from(float.min_exponent()) - i64::from(float.significand_bits);
        let is_narrow = float.precision() <= MAX_PRECISION
            && -MAX_EXPONENT <= lowest
            && max < power_of_two(MAX_EXPONENT as i32);
        let is_usable = float.sign_bits == 1 && float.has_zero;
        (is_usable && (is_narrow || kind == Kind::Binary64)).then(|| Grid {
            kind,
            significand_bits: i32::from(float.significand_bits),
            min_exponent: float.min_exponent(),
            max,
            beyond: codec::decode_f64(format, huge),
        })
    }

    /// Whether values between the grid's are known, as all roundings but the processor's need.
    pub(super) fn is_narrow(&self) -> bool {
        self.kind != Kind::Binary64
    }

    /// The largest finite value.
    pub(super) fn max(&self) -> f64 {
        self.max
    }

    /// `x + y` in binary64 if the grid is binary64, else rounded to odd, for one more rounding.
    #[inline]
    pub(super) fn sum(&self, x: f64, y: f64) -> f64 {
        match self.kind {
            Kind::Binary64 => x + y,
            Kind::Binary32 | Kind::Other => odd_sum(x, y),
        }
    }

    /// To the nearest, ties to even.
    #[inline]
    pub(super) fn nearest(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Binary64 => value,
            Kind::Binary32 => f64::from(value as f32),
            Kind::Other => self.nearest_other(value),
        }
    }

    #[inline]
    fn nearest_other(&self, value: f64) -> f64 {
        if !value.is_finite() {
            return value;
        }
        // Among the numbers beside 1.5 * 2^52 * ulp the spacing is the ulp, so that adding it
        // rounds, and ties go to the even multiple.
        let shift = 1.5 * power_of_two(self.last_place(value) + 52);
        let magnitude = (value.abs() + shift) - shift;
        self.bounded(magnitude, self.beyond).copysign(value)
    }

    /// The exponent of the last kept place of a result near `value`.
    #[inline]
    fn last_place(&self, value: f64) -> i32 {
        let exponent = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        exponent.max(self.min_exponent) - self.significand_bits
    }

    #[inline]
    fn bounded(&self, magnitude: f64, beyond: f64) -> f64 {
        if self.max < magnitude { beyond } else { magnitude }
    }

    /// Toward zero: truncation; never beyond the largest value.
    #[inline]
    pub(super) fn toward_zero(&self, value: f64) -> f64 {
        if !value.is_finite() {
            return value;
        }
        let ulp = power_of_two(self.last_place(value));
        let magnitude = (value.abs() / ulp).floor() * ulp;
        self.bounded(magnitude, self.max).copysign(value)
    }

    /// By the `n_bits` lowest bits of `random` (IEEE P3109; see [`codec::Rounding`]).
    #[inline]
    pub(super) fn stochastic(
        &self,
        value: f64,
        variant: StochasticVariant,
        n_bits: u8,
        random: u64,
    ) -> f64 {
        if !value.is_finite() {
            return value;
        }
        let ulp = power_of_two(self.last_place(value));
        let steps = value.abs() / ulp;
        let whole = steps.floor();
        let (fraction, full) = (steps - whole, (1u64 << n_bits) as f64);
        let random = (random & ((1 << n_bits) - 1)) as f64;
        let is_up = match variant {
            StochasticVariant::A => full <= (fraction * full).floor() + random,
            StochasticVariant::B => {
                2.0 * full <= (fraction * 2.0 * full).floor() + 2.0 * random + 1.0
            }
            StochasticVariant::C => full <= (fraction * full).round_ties_even() + random,
        };
        let magnitude = (whole + f64::from(u8::from(is_up))) * ulp;
        self.bounded(magnitude, self.beyond).copysign(value)
    }

    /// The most random bits that see all of the fraction that binary64 keeps.
    pub(super) fn max_random_bits(&self) -> u8 {
        (50 - self.significand_bits).max(0) as u8
    }
}

/// `x + y` in binary64, rounded to odd: where inexact, the neighbour with an odd significand.
#[inline]
pub(super) fn odd_sum(x: f64, y: f64) -> f64 {
    let sum = x + y;
    // Knuth's TwoSum: the error of the addition, exactly (The Art of Computer Programming 2, 3rd
    // ed., section 4.2.2, theorem B).
    let y_part = sum - x;
    let error = (x - (sum - y_part)) + (y - y_part);
    // Not so for a NaN, which comes of an infinite sum.
    if 0.0 < error.abs() {
        // Truncate, then set the last bit.
        let is_above = error.is_sign_negative() != sum.is_sign_negative();
        return f64::from_bits((sum.to_bits() - u64::from(is_above)) | 1);
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // what is emulated is exact

    use super::*;
    use crate::codec::{Rounding, Stochastic};
    use crate::exact::{Exact, Rational};
    use crate::matmul::Random;

    const FORMATS: [Format; 9] = [
        Format::FP32,
        Format::FP16,
        Format::BF16,
        Format::TF32,
        Format::E4M3FN,
        Format::E5M2,
        Format::E4M3FNUZ,
        Format::E3M4,
        Format::E2M1,
    ];

    fn rational(value: f64) -> Rational {
        Exact::from_f64(value).rational().unwrap().clone()
    }

    #[track_caller]
    fn same(found: f64, format: Format, value: &Rational, rules: Rules) {
        let code = codec::encode(format, &Exact::Finite(value.clone()), rules).code;
        let expected = codec::decode_f64(format, code);
        // A sum of zero has the sign that binary64 gives it, which no error depends on.
        let is_same = found == expected || (found.is_nan() && expected.is_nan());
        assert!(is_same, "{format} {rules:?}: {value} gave {found}, not {expected}");
    }

    /// Pairs of an accumulator in the format and a product, random and chosen to hurt.
    fn pairs(format: Format, random: &mut Random) -> Vec<(f64, f64)> {
        let code = |random: &mut Random| {
            let code = u128::from(random.bits()) & ((1 << format.bits.min(127)) - 1);
            codec::decode_f64(format, code)
        };
        let mut found = Vec::new();
        while found.len() < 6000 {
            let acc = code(random);
            let factor = |random: &mut Random| match random.bits() % 3 {
                0 => code(random) as f32,
                1 => f32::from_bits(random.bits() as u32),
                _ => random.normal() as f32,
            };
            let product = f64::from(factor(random)) * f64::from(factor(random));
            // Half an ulp of the accumulator, and a hair more or less than it.
            let ulp =
                acc.abs() * power_of_two(-1 - i32::from(format.float().unwrap().significand_bits));
            let hair = 1.0 + (random.bits() % 3) as f64 * power_of_two(-40) - power_of_two(-40);
            let sign = if random.bits().is_multiple_of(2) { 1.0 } else { -1.0 };
            let chosen = if random.bits().is_multiple_of(2) { product } else { sign * ulp * hair };
            if acc.is_finite() && chosen.is_finite() && chosen.abs() < 1e60 {
                found.push((acc, chosen));
            }
        }
        found
    }

    #[test]
    fn one_rounding_of_a_sum_is_the_codecs() {
        for format in FORMATS {
            let mut random = Random::new(5, 0);
            let grid = Grid::new(format, Overflow::ToInfinity).unwrap();
            let clamping = Grid::new(format, Overflow::SaturateFinite).unwrap();
            for (acc, product) in pairs(format, &mut random) {
                let exact = rational(acc).minus(&rational(-product));
                let sum = grid.sum(acc, product);
                let with = |rounding| Rules { rounding, ..Rules::IEEE };
                same(grid.nearest(sum), format, &exact, Rules::IEEE);
                same(clamping.nearest(sum), format, &exact, Rules::SATURATING);
                same(grid.toward_zero(sum), format, &exact, with(Rounding::TowardZero));
                let bits = random.bits();
                for variant in [StochasticVariant::A, StochasticVariant::B, StochasticVariant::C] {
                    for n_bits in [1, 8, grid.max_random_bits()] {
                        let stochastic = Stochastic { variant, n_bits, random: bits };
                        let rules = with(Rounding::Stochastic(stochastic));
                        let found = grid.stochastic(sum, variant, n_bits, bits);
                        same(found, format, &exact, rules);
                    }
                }
            }
        }
    }

    #[test]
    fn every_sixteen_bit_value_and_every_middle_between_two() {
        for format in [Format::FP16, Format::BF16, Format::E4M3FN, Format::E5M2] {
            let grid = Grid::new(format, Overflow::ToInfinity).unwrap();
            let largest = format.float().unwrap().max_finite_code();
            for code in 0..largest {
                let (low, high) =
                    (codec::decode_f64(format, code), codec::decode_f64(format, code + 1));
                let middle = (low + high) / 2.0;
                assert_eq!(grid.nearest(low), low);
                assert_eq!(grid.nearest(middle), if code % 2 == 0 { low } else { high });
                assert_eq!(grid.nearest(-middle.next_down()), -low);
                assert_eq!(grid.nearest(middle.next_up()), high);
            }
        }
    }

    #[test]
    fn what_has_no_grid() {
        for format in [Format::INT8, Format::NF4, Format::E8M0, Format::UE4M3, Format::TEXT] {
            assert!(Grid::new(format, Overflow::ToInfinity).is_none(), "{format}");
        }
        let wide = crate::parse("fp(15,112)").unwrap();
        assert!(Grid::new(wide, Overflow::ToInfinity).is_none());
        let binary64 = Grid::new(Format::FP64, Overflow::ToInfinity).unwrap();
        assert!(!binary64.is_narrow());
    }
}
