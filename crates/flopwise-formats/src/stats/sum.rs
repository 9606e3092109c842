//! A sum of binary64 numbers without rounding, so that its order does not matter.
//!
//! Not here: what is summed.

/// The sum of finite numbers, exact: a fixed-point number as wide as binary64 reaches (Kulisch's
/// accumulator).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// Digits of 32 bits, the first weighs `2^-1074`; each may run over into its upper half.
    digits: Box<[i64; N_DIGITS]>,
    /// Additions since the digits were last put in order.
    n_pending: u32,
    /// An infinity or a NaN was added.
    is_infinite: bool,
}

/// 2098 bits of binary64 and 64 more for carries.
const N_DIGITS: usize = 68;
/// Each adds less than `2^32` to a digit.
const MAX_PENDING: u32 = 1 << 30;

impl Sum {
    pub(super) fn new() -> Sum {
        Sum { digits: Box::new([0; N_DIGITS]), n_pending: 0, is_infinite: false }
    }

    /// Adds a number; with an infinity or a NaN the sum is infinite.
    pub(super) fn add(&mut self, value: f64) {
        if value != 0.0 {
            self.add_times(value, 1);
        }
    }

    /// Adds `value` `n` times.
    pub(super) fn add_times(&mut self, value: f64, n: u64) {
        let bits = value.to_bits();
        let field = (bits >> 52) & 0x7ff;
        if n == 0 || value == 0.0 {
            return;
        }
        if field == 0x7ff {
            self.is_infinite = true;
            return;
        }
        let fraction = bits & ((1 << 52) - 1);
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        let shift = field.max(1) as usize - 1;
        let product = u128::from(significand) * u128::from(n);
        let (first, offset) = (shift / 32, shift % 32);
        let low = (product & ((1 << 64) - 1)) << offset;
        let high = (product >> 64) << offset;
        let sign = if value < 0.0 { -1 } else { 1 };
        for (at, part) in [(first, low), (first + 2, high)] {
            for place in 0..3 {
                let digit = (part >> (32 * place)) as u32;
                if let Some(place) = self.digits.get_mut(at + place) {
                    *place += sign * i64::from(digit);
                }
            }
        }
        self.n_pending += 2;
        if MAX_PENDING <= self.n_pending {
            self.carry();
        }
    }

    pub(super) fn merge(&mut self, mut other: Sum) {
        self.carry();
        other.carry();
        self.is_infinite |= other.is_infinite;
        for (digit, other) in self.digits.iter_mut().zip(other.digits.iter()) {
            *digit += other;
        }
        self.carry();
    }

    /// Leaves 32 bits in every digit; the last keeps the sign.
    fn carry(&mut self) {
        let mut carried = 0;
        let (last, digits) = self.digits.split_last_mut().expect("there are digits");
        for digit in digits {
            let whole = *digit + carried;
            *digit = whole & 0xffff_ffff;
            carried = whole >> 32;
        }
        *last += carried;
        self.n_pending = 0;
    }

    /// The sum, rounded to within an ulp.
    pub(super) fn to_f64(&self) -> f64 {
        if self.is_infinite {
            return f64::INFINITY;
        }
        let mut sum = self.clone();
        sum.carry();
        let is_negative = sum.digits[N_DIGITS - 1] < 0;
        if is_negative {
            sum.digits.iter_mut().for_each(|digit| *digit = -*digit);
            sum.carry();
        }
        let top = sum.digits.iter().rposition(|digit| *digit != 0).unwrap_or(0);
        let mut total = 0.0;
        // Four digits hold at least 97 bits; from the smallest, so that one rounding matters.
        for place in top.saturating_sub(3)..=top {
            total += sum.digits[place] as f64 * scale(32 * place as i32 - 1074);
        }
        if is_negative { -total } else { total }
    }
}

/// `2^exponent` down to the smallest subnormal.
fn scale(exponent: i32) -> f64 {
    2f64.powi(exponent.max(-1000)) * 2f64.powi((exponent + 1000).min(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let mut sum = Sum::new();
        for value in [1e300, 1.0, -1e300, 5e-324, 1e-200] {
            sum.add(value);
        }
        assert_eq!(sum.to_f64(), 1.0);
        sum.add(-1.0);
        assert_eq!(sum.to_f64(), 1e-200);
        sum.add(-1e-200);
        assert_eq!(sum.to_f64(), 5e-324);
        sum.add_times(-5e-324, 3);
        assert_eq!(sum.to_f64(), -1e-323);
    }

    #[test]
    fn order_does_not_matter() {
        let values: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 0.7).sin().powi(3)).collect();
        let add = |values: &mut dyn Iterator<Item = &f64>| {
            let mut sum = Sum::new();
            values.for_each(|value| sum.add(*value));
            sum
        };
        let forward = add(&mut values.iter());
        let mut halves = add(&mut values[500..].iter());
        halves.merge(add(&mut values[..500].iter().rev()));
        assert_eq!(forward.to_f64().to_bits(), halves.to_f64().to_bits());
        let mut times = Sum::new();
        times.add_times(0.1, u64::MAX);
        assert_eq!(times.to_f64(), 0.1 * u64::MAX as f64);
    }
}
