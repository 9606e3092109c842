//! [`ExactSum`]: sums of products of binary32 values without any error, rounded once at the end.
//!
//! Kulisch's long accumulator ("Computer Arithmetic and Validity", 2nd ed. 2013, chapter 8): a
//! fixed-point number wide enough for every product. Not here: rounding to other formats than
//! binary64.

/// Bits of one digit; each lies in an `i64`, so that carries wait.
const DIGIT_BITS: i32 = 32;
/// The weight of the lowest bit, `2^-298`: the square of binary32's smallest subnormal.
const LOWEST: i32 = -298;
/// `2^-298` to `2^342`; the largest product is below `2^256`, which leaves 86 bits for carries.
const N_DIGITS: usize = 20;
/// Each addition adds less than `2^32` to a digit; after so many it could overflow `i64`.
const MAX_PENDING: u32 = 1 << 30;

/// An exact sum.
#[derive(Clone, Debug)]
pub struct ExactSum {
    digits: [i64; N_DIGITS],
    n_pending: u32,
}

impl Default for ExactSum {
    fn default() -> ExactSum {
        ExactSum::new()
    }
}

impl ExactSum {
    /// Zero.
    pub fn new() -> ExactSum {
        ExactSum { digits: [0; N_DIGITS], n_pending: 0 }
    }

    /// The exact inner product of two rows of finite values.
    ///
    /// ```
    /// use flopwise_formats::matmul::ExactSum;
    /// let sum = ExactSum::dot(&[1e20, 1.0, -1e20], &[1e10, 1.0, 1e10]);
    /// assert_eq!(sum.to_f64(), 1.0);
    /// ```
    pub fn dot(a: &[f32], b: &[f32]) -> ExactSum {
        let mut sum = ExactSum::new();
        for (x, y) in a.iter().zip(b) {
            // 24 bits by 24 bits are at most 48, and 2^-298 is far above binary64's smallest.
            sum.add(f64::from(*x) * f64::from(*y));
        }
        sum
    }

    /// Adds a finite number that is a multiple of `2^-298` and below `2^320`: every product of two
    /// binary32 values, and whatever adding such products gives.
    pub fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let field = ((bits >> 52) & 0x7ff) as i32;
        if field == 0 {
            return; // Zero; a subnormal binary64 is below 2^-298.
        }
        let significand = bits & ((1 << 52) - 1) | 1 << 52;
        // The place of the significand's last bit, which may be below 2^-298 if it is zero there.
        let place = field - 1075 - LOWEST;
        let (significand, place) =
            if place < 0 { (significand >> -place.max(-63), 0) } else { (significand, place) };
        debug_assert!(field - 1023 < 320, "{value} is too large");
        let first = (place / DIGIT_BITS) as usize;
        let shifted = u128::from(significand) << (place % DIGIT_BITS);
        let is_negative = bits >> 63 == 1;
        let digits = &mut self.digits[first..first + 3];
        for (digit_idx, digit) in digits.iter_mut().enumerate() {
            let part = ((shifted >> (DIGIT_BITS as usize * digit_idx)) as u32) as i64;
            *digit += if is_negative { -part } else { part };
        }
        self.n_pending += 1;
        if self.n_pending == MAX_PENDING {
            self.carry();
        }
    }

    /// Leaves `0 <= digit < 2^32` in all digits but the highest, which has the sign.
    fn carry(&mut self) {
        for digit_idx in 0..N_DIGITS - 1 {
            let carry = self.digits[digit_idx] >> DIGIT_BITS;
            self.digits[digit_idx] -= carry << DIGIT_BITS;
            self.digits[digit_idx + 1] += carry;
        }
        self.n_pending = 0;
    }

    /// The sum less `value` (as for [`ExactSum::add`]), rounded once.
    pub fn minus(&self, value: f64) -> f64 {
        let mut difference = self.clone();
        difference.add(-value);
        difference.to_f64()
    }

    /// The nearest binary64, ties to even.
    pub fn to_f64(&self) -> f64 {
        let mut sum = self.clone();
        sum.carry();
        let is_negative = sum.digits[N_DIGITS - 1] < 0;
        if is_negative {
            sum.digits = sum.digits.map(|digit| -digit);
            sum.carry();
        }
        let Some(top) = sum.digits.iter().rposition(|digit| *digit != 0) else { return 0.0 };
        // Three digits hold at least 65 bits; what lies below them only breaks ties.
        let lowest = top.saturating_sub(2);
        let leading = sum.digits[lowest..=top]
            .iter()
            .rev()
            .fold(0u128, |value, digit| value << DIGIT_BITS | *digit as u128);
        let is_sticky = sum.digits[..lowest].iter().any(|digit| *digit != 0);
        // The conversion rounds to nearest even, and a sticky bit 2^-64 below the first cannot
        // make a tie or hide one.
        let rounded = (leading | u128::from(is_sticky)) as f64;
        let magnitude = rounded * power_of_two(LOWEST + DIGIT_BITS * lowest as i32);
        if is_negative { -magnitude } else { magnitude }
    }
}

/// `2^exponent`, for a normal binary64.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // what is emulated is exact

    use super::*;
    use crate::exact::{Exact, Rational};
    use crate::matmul::Random;

    fn rational(value: f64) -> Rational {
        Exact::from_f64(value).rational().unwrap().clone()
    }

    /// By big integers, rounded once.
    fn slow(a: &[f32], b: &[f32]) -> f64 {
        let zero = Rational::binary(false, 0, 0);
        let sum = a.iter().zip(b).fold(zero, |sum, (x, y)| {
            let product = rational(f64::from(*x)).times(&rational(-f64::from(*y)));
            sum.minus(&product)
        });
        sum.to_f64()
    }

    #[test]
    fn equals_rational_arithmetic_on_every_kind_of_bits() {
        let mut random = Random::new(11, 0);
        for round in 0..400 {
            let n = 1 + round % 60;
            let mut row = || -> Vec<f32> {
                let any = |bits: u64| f32::from_bits(bits as u32);
                let near = |bits: u64| any(bits & 0x80ff_ffff | 0x3f00_0000);
                let tiny = |bits: u64| any(bits & 0x80ff_ffff);
                let value = |bits: u64| match round % 3 {
                    0 => any(bits),
                    1 => near(bits),
                    _ => tiny(bits),
                };
                let values = (0..).map(|_| value(random.bits()));
                values.filter(|value| value.is_finite()).take(n).collect()
            };
            let (mut a, mut b) = (row(), row());
            if round % 2 == 0 {
                // Cancels but for the first.
                a = [&a[..], &a[1..]].concat();
                b = b.iter().copied().chain(b[1..].iter().map(|y| -y)).collect();
            }
            let sum = ExactSum::dot(&a, &b);
            assert_eq!(sum.to_f64().to_bits(), (slow(&a, &b) + 0.0).to_bits(), "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_extremes_fit() {
        let check = |a: &[f32], b: &[f32], expected: f64| {
            assert_eq!(ExactSum::dot(a, b).to_f64().to_bits(), expected.to_bits());
        };
        let tiny = f32::from_bits(1);
        check(&[tiny], &[tiny], power_of_two(-298));
        check(&[tiny], &[-tiny], -power_of_two(-298));
        check(&[], &[], 0.0);
        let max = f64::from(f32::MAX);
        check(&[f32::MAX; 3], &[f32::MAX, f32::MAX, -f32::MAX], max * max);
        check(&[f32::MAX, tiny, -f32::MAX], &[f32::MAX, tiny, f32::MAX], power_of_two(-298));
        // A tie that the last product breaks: 2^53 + 1 + tiny.
        let half = (1u64 << 26) as f32;
        let (a, b) = ([half, 1.0, tiny], [2.0 * half, 1.0, tiny]);
        check(&a, &b, power_of_two(53) + 2.0);
        check(&a[..2], &b[..2], power_of_two(53));
    }

    #[test]
    fn carries_wait_and_arrive() {
        let mut sum = ExactSum::new();
        let largest = power_of_two(255) * 1.999_999;
        for _ in 0..100_000 {
            sum.add(largest);
        }
        sum.n_pending = MAX_PENDING - 1;
        sum.add(1.0);
        assert_eq!(sum.n_pending, 0);
        for _ in 0..100_000 {
            sum.add(-largest);
        }
        assert_eq!(sum.to_f64(), 1.0);
        assert_eq!(sum.minus(1.0), 0.0);
    }
}
