//! Statistics of the values that binary32 does not hold, one at a time.
//!
//! Not here: the others ([`super::bins`]), and errors.

use super::sum::Sum;
use std::collections::BTreeMap;

/// Finite values, none of which is zero.
#[derive(Clone, Debug)]
pub(super) struct Loose {
    pub(super) n: u64,
    pub(super) n_negative: u64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) amin: f64,
    pub(super) amax: f64,
    pub(super) sum: Sum,
    pub(super) squares: Sum,
    pub(super) exponents: BTreeMap<i32, u64>,
}

impl Loose {
    pub(super) fn new() -> Loose {
        Loose {
            n: 0,
            n_negative: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            amin: f64::INFINITY,
            amax: 0.0,
            sum: Sum::new(),
            squares: Sum::new(),
            exponents: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, value: f64, n: u64) {
        self.n += n;
        self.n_negative += if value < 0.0 { n } else { 0 };
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.amin = self.amin.min(value.abs());
        self.amax = self.amax.max(value.abs());
        self.sum.add_times(value, n);
        self.squares.add_times(value * value, n);
        *self.exponents.entry(floor_log2(value)).or_default() += n;
    }

    pub(super) fn merge(&mut self, other: Loose) {
        self.n += other.n;
        self.n_negative += other.n_negative;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.amin = self.amin.min(other.amin);
        self.amax = self.amax.max(other.amax);
        self.sum.merge(other.sum);
        self.squares.merge(other.squares);
        for (exponent, n) in other.exponents {
            *self.exponents.entry(exponent).or_default() += n;
        }
    }
}

/// Of a nonzero finite value, from its bits: a rounded logarithm is wrong beside powers of two.
pub(super) fn floor_log2(value: f64) -> i32 {
    let bits = value.abs().to_bits();
    match bits >> 52 {
        0 => 63 - bits.leading_zeros() as i32 - 1074,
        field => field as i32 - 1023,
    }
}
