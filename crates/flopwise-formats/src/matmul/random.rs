//! Random numbers that are the same on every machine, and the distributions drawn from them.
//!
//! xoshiro256++ seeded by SplitMix64 (Blackman and Vigna, "Scrambled linear pseudorandom number
//! generators", ACM TOMS 47(4), 2021; <https://prng.di.unimi.it>). Logarithm and exponential are
//! computed here from `+ - * /` and `sqrt` alone, which IEEE 754 fixes to the last bit; those of
//! the system's library differ between machines. Not here: cryptography.

use std::f64::consts::{LN_2, SQRT_2};

/// A stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of that number under a seed; streams of one seed are independent.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut state = seed ^ split_mix(stream);
        let next = |_| {
            state = state.wrapping_add(GOLDEN);
            split_mix(state)
        };
        Random { state: std::array::from_fn(next) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform on `[0, 1)`, a multiple of `2^-53`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and variance 1: Marsaglia's polar method (Marsaglia and Bray, "A
    /// convenient method for generating normal variables", SIAM Review 6(3), 1964).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if 0.0 < square && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }
}

/// SplitMix64's increment, `2^64` over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function.
fn split_mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// The natural logarithm of a positive normal number, within a few units in the last place:
/// `x = 2^e * m` with `m` in `[sqrt(1/2), sqrt(2))`, and `ln m = 2 atanh((m - 1) / (m + 1))`.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if SQRT_2 <= mantissa {
        mantissa /= 2.0;
        exponent += 1;
    }
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    // |ratio| <= 0.172, and 0.172^22 / 23 is below 2^-57.
    let series = (0..=10).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    f64::from(exponent) * LN_2 + 2.0 * ratio * series
}

/// The exponential of a number of moderate size: `exp(x) = exp(x / 64)^64`, by its series.
fn exp(x: f64) -> f64 {
    let small = x / 64.0;
    let series = (1..=16).rev().fold(1.0, |sum, term| 1.0 + sum * small / f64::from(term));
    (0..6).fold(series, |power, _| power * power)
}

/// What the entries of a matrix are drawn from, each rounded to binary32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Normal, mean 0, variance 1.
    Normal,
    /// Uniform on `[-1, 1)`.
    Uniform,
    /// Uniform on `[0, 1)`: every product is positive, so that sums only grow.
    Positive,
    /// Student's t with 3 degrees of freedom: heavy tails, the variance is 3.
    StudentT,
    /// The exponential of a normal number: positive, with a heavy tail.
    Lognormal,
    /// Normal, with some channels (places along k) of A [`OUTLIER_FACTOR`] times as large.
    Outliers,
    /// Every entry is 1, as when a sum is a count.
    Ones,
}

/// How much larger outlier channels are: "up to 20 times larger than in other dimensions", Dettmers
/// et al., "LLM.int8()", arXiv:2208.07339 section 1.
pub const OUTLIER_FACTOR: f32 = 20.0;
/// One channel of this many has outliers, at least one: "0.1% of all input features", ibid.
pub const CHANNELS_PER_OUTLIER: usize = 1000;

impl Distribution {
    /// Every distribution.
    pub const ALL: [Distribution; 7] = [
        Distribution::Normal,
        Distribution::Uniform,
        Distribution::Positive,
        Distribution::StudentT,
        Distribution::Lognormal,
        Distribution::Outliers,
        Distribution::Ones,
    ];

    /// The name to type.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Normal => "normal",
            Distribution::Uniform => "uniform",
            Distribution::Positive => "positive",
            Distribution::StudentT => "student-t",
            Distribution::Lognormal => "lognormal",
            Distribution::Outliers => "outliers",
            Distribution::Ones => "ones",
        }
    }

    /// What it is.
    pub fn about(self) -> &'static str {
        match self {
            Distribution::Normal => "normal, mean 0, variance 1",
            Distribution::Uniform => "uniform on [-1, 1)",
            Distribution::Positive => "uniform on [0, 1), so that sums only grow",
            Distribution::StudentT => "Student's t with 3 degrees of freedom (heavy tails)",
            Distribution::Lognormal => "exp of a normal number (positive, heavy tail)",
            Distribution::Outliers => "normal; 1 in 1000 channels of A is 20 times as large",
            Distribution::Ones => "every entry 1",
        }
    }

    fn draw(self, random: &mut Random) -> f64 {
        match self {
            Distribution::Normal | Distribution::Outliers => random.normal(),
            Distribution::Uniform => 2.0 * random.unit() - 1.0,
            Distribution::Positive => random.unit(),
            Distribution::StudentT => {
                let normal = random.normal();
                let squares = (0..3).map(|_| random.normal()).map(|x| x * x).sum::<f64>();
                // Three squares of which the first is at least 1e-300 or so; never zero in practice,
                // and an infinite entry is drawn again below.
                normal / (squares / 3.0).sqrt()
            }
            Distribution::Lognormal => exp(random.normal()),
            Distribution::Ones => 1.0,
        }
    }
}

/// Which operand is drawn; only the first has outlier channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

/// `n_rows` rows of `k` entries.
pub(super) fn matrix(
    distribution: Distribution,
    side: Side,
    n_rows: usize,
    k: usize,
    random: &mut Random,
) -> Vec<f32> {
    let is_outlier = match (distribution, side) {
        (Distribution::Outliers, Side::A) => outlier_channels(k, random),
        _ => vec![false; k],
    };
    let mut entries = Vec::with_capacity(n_rows * k);
    for _ in 0..n_rows {
        for outlier in &is_outlier {
            let entry = loop {
                let entry = distribution.draw(random) as f32;
                if entry.is_finite() {
                    break entry;
                }
            };
            entries.push(if *outlier { OUTLIER_FACTOR * entry } else { entry });
        }
    }
    entries
}

fn outlier_channels(k: usize, random: &mut Random) -> Vec<bool> {
    let mut is_outlier = vec![false; k];
    for _ in 0..k.div_ceil(CHANNELS_PER_OUTLIER) {
        let channel = (random.unit() * k as f64) as usize;
        is_outlier[channel.min(k - 1)] = true;
    }
    is_outlier
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementations' first outputs: SplitMix64 from 0, and xoshiro256++ from the
    /// state 1, 2, 3, 4.
    #[test]
    fn the_generators_are_the_published_ones() {
        assert_eq!(split_mix(GOLDEN), 0xe220_a839_7b1d_cdaf);
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!([(); 4].map(|()| random.bits()), expected);
    }

    #[test]
    fn logarithm_and_exponential_are_near_the_systems() {
        let mut random = Random::new(1, 0);
        for _ in 0..100_000 {
            let x = random.unit() + 1e-9;
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(0.5), "{x}");
            let y = 10.0 * (x - 0.5);
            assert!((exp(y) / y.exp() - 1.0).abs() < 3e-14, "{y}");
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let check = |distribution: Distribution, mean: f64, variance: f64, within: f64| {
            let values = matrix(distribution, Side::B, 1, 400_000, &mut Random::new(7, 1));
            let n = values.len() as f64;
            let found = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let squares = values.iter().map(|x| (f64::from(*x) - found).powi(2)).sum::<f64>() / n;
            assert!((found - mean).abs() < within, "{distribution:?} mean {found}");
            assert!((squares / variance.max(1e-9) - 1.0).abs() < 20.0 * within || variance == 0.0);
        };
        check(Distribution::Normal, 0.0, 1.0, 0.005);
        check(Distribution::Uniform, 0.0, 1.0 / 3.0, 0.005);
        check(Distribution::Positive, 0.5, 1.0 / 12.0, 0.005);
        check(Distribution::StudentT, 0.0, 3.0, 0.02);
        let e = std::f64::consts::E;
        check(Distribution::Lognormal, e.sqrt(), e * (e - 1.0), 0.02);
        check(Distribution::Outliers, 0.0, 1.0, 0.005);
        check(Distribution::Ones, 1.0, 0.0, 0.005);
    }

    #[test]
    fn outliers_are_whole_channels_of_a() {
        let (n_rows, k) = (64, 2000);
        let values = matrix(Distribution::Outliers, Side::A, n_rows, k, &mut Random::new(3, 0));
        let square = |channel: usize| {
            (0..n_rows).map(|row| f64::from(values[row * k + channel]).powi(2)).sum::<f64>()
        };
        let n_outliers = (0..k).filter(|channel| 40.0 * 64.0 < square(*channel)).count();
        assert_eq!(n_outliers, 2);
    }
}
