//! What theory says of the error of an accumulation, to stand beside the measured one.
//!
//! Unit roundoff `u = 2^-p`. A term that passes through n roundings comes out multiplied by n
//! factors `1 + d`, `|d| <= u` (twice u where rounding is not to nearest), hence:
//!
//! - surely `|error| <= g * sum |a||b|` with `g = n u / (1 - n u)` (Higham, "Accuracy and Stability
//!   of Numerical Algorithms", 2nd ed. 2002, lemma 3.1 and sections 3.1, 4.2); for Kahan
//!   `g = 2u + k u^2` to leading terms (ibid. section 4.3);
//! - if the d are independent with mean zero, `g = exp(L sqrt(n) u + n u^2 / (1 - u)) - 1` with
//!   probability at least `1 - 2 k exp(-L^2 (1 - u)^2 / 2)` (Higham and Mary, "A new approach to
//!   probabilistic rounding error analysis", SISC 41(5), 2019, theorems 2.4 and 3.1); stochastic
//!   rounding has the assumption for granted (Connolly, Higham and Mary, SISC 43(1), 2021);
//! - chunks are two such sums in a row (Blanchard, Higham and Mary, "A class of fast and accurate
//!   summation algorithms", SISC 42(3), 2020).
//!
//! Beside the bounds an expectation: each rounding errs independently and uniformly within its
//! last place. Overflow, underflow and stalls are outside all three.

use super::accumulate::{Accumulation, Order, Products, SumRounding};

/// A bound of the probabilistic kind holds for an output with this probability.
pub const CONFIDENCE: f64 = 0.99;

/// Mean and variance of the products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    pub(super) mean: f64,
    pub(super) variance: f64,
}

/// Factors: the first two multiply `sum |a||b|`, the third is an error itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Factors {
    pub(super) certain: Option<f64>,
    pub(super) probable: Option<f64>,
    /// Root of the mean square of the error of an output.
    pub(super) expected: Option<f64>,
}

pub(super) fn factors(accumulation: &Accumulation, k: usize, moments: Moments) -> Factors {
    let chunk = accumulation.chunk;
    let length = chunk.map_or(k, |chunk| chunk.length.min(k));
    let n_chunks = k.div_ceil(length.max(1));
    let inner = Sum::new(accumulation, length, k);
    let expected_inner = inner.expected(moments).map(|square| square * n_chunks as f64);
    let Some(chunk) = chunk else {
        let (certain, probable) = (inner.certain(), inner.probable());
        return Factors { certain, probable, expected: expected_inner.map(f64::sqrt) };
    };
    let outer = Sum {
        unit: roundoff(chunk.format.float().map_or(53, |float| float.precision())),
        rounding: SumRounding::Nearest,
        order: Order::Sequential,
        products: Products::Exact,
        n_terms: n_chunks,
        k,
    };
    let size = length as f64;
    let of_chunks = Moments { mean: moments.mean * size, variance: moments.variance * size };
    let both = |inner: Option<f64>, outer: Option<f64>| Some((1.0 + inner?) * (1.0 + outer?) - 1.0);
    let square = expected_inner.zip(outer.expected(of_chunks)).map(|(inner, outer)| inner + outer);
    Factors {
        certain: both(inner.certain(), outer.certain()),
        probable: both(inner.probable(), outer.probable()),
        expected: square.map(f64::sqrt),
    }
}

/// `2^-p`.
fn roundoff(precision: u32) -> f64 {
    0.5f64.powi(precision as i32)
}

/// One sum in one format.
struct Sum {
    unit: f64,
    rounding: SumRounding,
    order: Order,
    products: Products,
    n_terms: usize,
    /// Products of an output, for the probability.
    k: usize,
}

impl Sum {
    fn new(accumulation: &Accumulation, n_terms: usize, k: usize) -> Sum {
        let precision = accumulation.format.float().map_or(53, |float| float.precision());
        let Accumulation { rounding, order, products, .. } = *accumulation;
        Sum { unit: roundoff(precision), rounding, order, products, n_terms, k }
    }

    /// The largest relative error of one rounding.
    fn largest(&self) -> f64 {
        match self.rounding {
            SumRounding::Nearest => self.unit,
            SumRounding::TowardZero | SumRounding::Stochastic { .. } => 2.0 * self.unit,
        }
    }

    /// The most roundings that a product passes through.
    fn n_roundings(&self) -> f64 {
        let n_extra = match self.products {
            Products::Exact => 0,
            Products::Rounded => 1,
        };
        let n = match self.order {
            Order::Sequential | Order::Kahan => self.n_terms + n_extra,
            // The leaves are rounded products.
            Order::Pairwise => self.n_terms.next_power_of_two().trailing_zeros() as usize + 1,
        };
        n as f64
    }

    fn certain(&self) -> Option<f64> {
        let (n, u) = (self.n_roundings(), self.largest());
        match self.order {
            Order::Kahan => {
                let product = match self.products {
                    Products::Exact => 0.0,
                    Products::Rounded => u,
                };
                Some(2.0 * u + self.n_terms as f64 * u * u + product)
            }
            Order::Sequential | Order::Pairwise => (n * u < 1.0).then(|| n * u / (1.0 - n * u)),
        }
    }

    fn probable(&self) -> Option<f64> {
        let is_unbiased = match self.rounding {
            SumRounding::Nearest | SumRounding::Stochastic { .. } => true,
            SumRounding::TowardZero => false,
        };
        let (n, u) = (self.n_roundings(), self.largest());
        let is_bounded = is_unbiased && self.order != Order::Kahan;
        let width = (2.0 * (2.0 * self.k as f64 / (1.0 - CONFIDENCE)).ln()).sqrt() / (1.0 - u);
        is_bounded.then(|| (width * n.sqrt() * u + n * u * u / (1.0 - u)).exp_m1())
    }

    /// The mean square of the error, if roundings err independently.
    ///
    /// A rounding of x errs by `ulp(x)` over root 12 in the root of the mean square (root 6 if
    /// stochastic), and `ulp(x) = 2 u |x| / f` with the significand f in [1, 2); with log f uniform
    /// the mean of `1 / f^2` is `3 / (8 ln 2)`. The square of a sum of i terms has the mean
    /// `i^2 mean^2 + i variance`.
    fn expected(&self, moments: Moments) -> Option<f64> {
        let twelfth = match self.rounding {
            SumRounding::Nearest => 1.0 / 12.0,
            SumRounding::Stochastic { .. } => 1.0 / 6.0,
            SumRounding::TowardZero => return None,
        };
        let relative = 4.0 * self.unit * self.unit * twelfth * 3.0 / (8.0 * std::f64::consts::LN_2);
        let square = |i: f64| i * i * moments.mean * moments.mean + i * moments.variance;
        let n = self.n_terms as f64;
        let of_products = match self.products {
            Products::Exact => 0.0,
            Products::Rounded => n * square(1.0),
        };
        let of_sums = match self.order {
            // Partial sums of 1, 2 ... n terms.
            Order::Sequential => {
                let (mean, variance) = (moments.mean * moments.mean, moments.variance);
                mean * n * (n + 1.0) * (2.0 * n + 1.0) / 6.0 + variance * n * (n + 1.0) / 2.0
            }
            // Every addend once, and the result.
            Order::Kahan => n * square(1.0) + square(n),
            Order::Pairwise => {
                let depth = self.n_roundings() as i32 - 1;
                let levels = (1..=depth).map(|level| {
                    let size = 2f64.powi(level).min(n);
                    n / size * square(size)
                });
                n * square(1.0) + levels.sum::<f64>()
            }
        };
        let of_products = if self.order == Order::Pairwise { 0.0 } else { of_products };
        Some(relative * (of_products + of_sums))
    }
}

#[cfg(test)]
mod tests {
    use super::super::accumulate::Chunk;
    use super::super::tests::fused;
    use super::*;
    use crate::format::Format;

    #[track_caller]
    fn near(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} is not {expected}");
    }

    const NORMAL: Moments = Moments { mean: 0.0, variance: 1.0 };

    /// By hand: u = 2^-24, k = 4096.
    #[test]
    fn running_sums_in_binary32() {
        let factors = factors(&fused(Format::FP32), 4096, NORMAL);
        near(factors.certain, 4096.0 / 16_777_216.0 / (1.0 - 4096.0 / 16_777_216.0));
        // L = sqrt(2 ln(8192 / 0.01)) = 5.2175, sqrt(k) = 64.
        near(factors.probable, 5.2175 * 64.0 / 16_777_216.0);
        // 0.42466 u sqrt(k (k + 1) / 2).
        near(factors.expected, 0.424_66 / 16_777_216.0 * (4096.0 * 4097.0 / 2.0f64).sqrt());
    }

    #[test]
    fn what_has_no_bound() {
        let check = |accumulation: Accumulation, has: [bool; 3]| {
            let found = factors(&accumulation, 4096, NORMAL);
            let found = [found.certain, found.probable, found.expected].map(|f| f.is_some());
            assert_eq!(found, has, "{accumulation:?}");
        };
        let bf16 = fused(Format::BF16);
        check(bf16, [false, true, true]);
        check(fused(Format::FP16), [false, true, true]);
        let rounding = SumRounding::TowardZero;
        check(Accumulation { rounding, ..fused(Format::FP32) }, [true, false, false]);
        check(Accumulation { order: Order::Kahan, ..bf16 }, [true, false, true]);
        let chunk = Some(Chunk { length: 32, format: Format::FP32 });
        check(Accumulation { chunk, ..bf16 }, [true, true, true]);
    }

    #[test]
    fn pairwise_and_chunks_by_hand() {
        let u = 2f64.powi(-11);
        let pairwise = Accumulation { order: Order::Pairwise, ..fused(Format::FP16) };
        near(factors(&pairwise, 4096, NORMAL).certain, 13.0 * u / (1.0 - 13.0 * u));
        let chunk = Some(Chunk { length: 32, format: Format::FP32 });
        let chunked = Accumulation { chunk, ..fused(Format::FP16) };
        let (inner, outer) = (32.0 * u / (1.0 - 32.0 * u), 128.0 * 2f64.powi(-24));
        near(factors(&chunked, 4096, NORMAL).certain, inner + outer + inner * outer);
        // 128 chunks of 32 * 33 / 2 partial sums.
        near(
            factors(&chunked, 4096, NORMAL).expected,
            0.424_66 * u * (128.0 * 32.0 * 33.0 / 2.0f64).sqrt(),
        );
    }
}
