//! What a precision does to a matrix multiplication, against exact arithmetic.
//!
//! `C = A B`, A of m rows and B of n columns, each of k entries in binary32. Three things are
//! compared, output by output:
//!
//! 1. `C`, the exact product of the entries as they are ([`operands`]);
//! 2. `C'`, the exact product of the entries as a format stores them ([`store`]);
//! 3. `C"`, what an accumulator of few bits makes of the stored entries ([`multiply`]).
//!
//! `C' - C` is the error of the input format, `C" - C'` that of the accumulation, and they add up
//! to the whole. Exact sums are [`ExactSum`]s, rounded once to binary64.
//!
//! ```
//! use flopwise_formats::Format;
//! use flopwise_formats::matmul::{self, Distribution, Order, Products, Scaling, Shape, Source};
//! let ones = || Source::Drawn(Distribution::Ones);
//! let shape = Shape { m: 1, n: 1, k: 4096 };
//! let operands = matmul::operands(shape, ones(), ones(), 0).unwrap();
//! let storage = matmul::Storage::Plain { format: Format::E4M3FN, scaling: Scaling::None };
//! let stored = matmul::store(&operands, &storage).unwrap();
//! let accumulation = matmul::Accumulation {
//!     format: Format::FP16,
//!     order: Order::Sequential,
//!     rounding: matmul::SumRounding::Nearest,
//!     products: Products::Exact,
//!     chunk: None,
//! };
//! let multiplied = matmul::multiply(&operands, &stored, &accumulation, 0).unwrap();
//! assert_eq!(multiplied.values, [2048.0]); // 2049 is no FP16 number
//! assert_eq!(multiplied.n_stalls, 2048);
//! ```
//!
//! Not here: threads and clocks; files (their values arrive as [`Source::Values`]); and how a given
//! processor aligns the products of one instruction, which few makers publish.

mod accumulate;
mod exact;
mod input;
mod metrics;
mod random;
mod round;
#[cfg(test)]
mod tests;
mod theory;

pub use accumulate::{Accumulation, Chunk, Order, Products, SumRounding};
pub use exact::ExactSum;
pub use input::{Scaling, Storage};
pub use metrics::Errors;
pub use random::{CHANNELS_PER_OUTLIER, Distribution, OUTLIER_FACTOR, Random};
pub use theory::CONFIDENCE;

use accumulate::Summing;
use random::Side;
use std::fmt;
use theory::Moments;

/// The sizes of `C = A B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A and rows of B: the products in one output.
    pub k: usize,
}

/// Most entries of A and B together: 2^26 take 256 MiB, and as much again when stored.
pub const MAX_ENTRIES: usize = 1 << 26;
/// Most outputs: an exact sum takes 168 bytes, 2^18 of them 42 MiB.
pub const MAX_OUTPUTS: usize = 1 << 18;
/// Most products: half a minute's work for a running sum, some minutes for Kahan's.
pub const MAX_PRODUCTS: usize = 1 << 31;

impl Shape {
    /// `m * n * k`.
    ///
    /// # Errors
    /// A size is zero, or over one of the limits.
    pub fn products(self) -> Result<usize, Refused> {
        let Shape { m, n, k } = self;
        let shape = format!("m = {m}, n = {n}, k = {k}");
        if m == 0 || n == 0 || k == 0 {
            return Err(Refused::new(format!("{shape}: each must be at least 1")));
        }
        let within = |count: Option<usize>, limit: usize, what: &str| {
            let count = count.filter(|count| *count <= limit);
            count.ok_or_else(|| Refused::new(format!("{shape}: more than {limit} {what}")))
        };
        let entries = m.checked_add(n).and_then(|rows| rows.checked_mul(k));
        within(entries, MAX_ENTRIES, "entries of A and B")?;
        let outputs = within(m.checked_mul(n), MAX_OUTPUTS, "outputs")?;
        within(outputs.checked_mul(k), MAX_PRODUCTS, "products")
    }
}

/// Where the entries of an operand come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Drawn.
    Drawn(Distribution),
    /// Given, each row of A, or each column of B, as k values in a piece. (A linear layer's weight,
    /// of shape `[out, in]`, has the columns of B so.)
    Values(Vec<f32>),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    problem: String,
}

impl Refused {
    fn new(problem: String) -> Refused {
        Refused { problem }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for Refused {}

/// A and B as they are, and their exact product.
#[derive(Clone, Debug)]
pub struct Operands {
    shape: Shape,
    a: Vec<f32>,
    b: Vec<f32>,
    exact: Vec<f64>,
}

impl Operands {
    /// The sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The exact product, rounded once, row by row.
    pub fn exact(&self) -> &[f64] {
        &self.exact
    }
}

/// Streams of random numbers of one seed.
const STREAM_A: u64 = 0;
const STREAM_B: u64 = 1;
const STREAM_ROUNDING: u64 = 2;

/// Draws or takes the operands, and multiplies them exactly.
///
/// # Errors
/// Sizes over the limits; values that are not as many as the shape says, or not finite.
pub fn operands(shape: Shape, a: Source, b: Source, seed: u64) -> Result<Operands, Refused> {
    shape.products()?;
    let a = entries(a, Side::A, shape.m, shape.k, &mut Random::new(seed, STREAM_A))?;
    let b = entries(b, Side::B, shape.n, shape.k, &mut Random::new(seed, STREAM_B))?;
    let exact = outputs(&a, &b, shape.k).map(|(a, b)| ExactSum::dot(a, b).to_f64()).collect();
    Ok(Operands { shape, a, b, exact })
}

fn entries(
    source: Source,
    side: Side,
    n_rows: usize,
    k: usize,
    random: &mut Random,
) -> Result<Vec<f32>, Refused> {
    let values = match source {
        Source::Drawn(distribution) => random::matrix(distribution, side, n_rows, k, random),
        Source::Values(values) => values,
    };
    if values.len() != n_rows * k {
        let n_values = values.len();
        return Err(Refused::new(format!("{side:?} has {n_values} values, not {n_rows} x {k}")));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Refused::new(format!("value {at} of {side:?} is {}", values[at]))),
        None => Ok(values),
    }
}

/// The row of A and the column of B of each output, row by row.
fn outputs<'m>(
    a: &'m [f32],
    b: &'m [f32],
    k: usize,
) -> impl Iterator<Item = (&'m [f32], &'m [f32])> {
    a.chunks(k).flat_map(move |row| b.chunks(k).map(move |column| (row, column)))
}

/// A and B as a format stores them, and the exact product of that.
#[derive(Clone, Debug)]
pub struct Stored {
    a: Vec<f32>,
    b: Vec<f32>,
    /// What multiplies each output.
    factors: Vec<f64>,
    sums: Vec<ExactSum>,
    exact: Vec<f64>,
    /// Of each output, `sum |a||b|` squared, over all.
    magnitude_squares: f64,
    moments: Moments,
    /// The error of storing alone, `C' - C`.
    pub errors: Option<Errors>,
    /// Entries of A and B that were beyond the format's largest value; `None` for blocks, where
    /// they are not counted.
    pub n_saturated: Option<u64>,
    /// Entries that were not zero and became zero.
    pub n_to_zero: u64,
}

/// Stores the operands in a format.
///
/// # Errors
/// The format cannot hold the entries of a matrix.
pub fn store(operands: &Operands, storage: &Storage) -> Result<Stored, Refused> {
    let k = operands.shape.k;
    let a = input::store(&operands.a, k, storage)?;
    let b = input::store(&operands.b, k, storage)?;
    let sums: Vec<ExactSum> =
        outputs(&a.entries, &b.entries, k).map(|(a, b)| ExactSum::dot(a, b)).collect();
    let factors: Vec<f64> =
        a.factors.iter().flat_map(|a| b.factors.iter().map(move |b| a * b)).collect();
    let exact: Vec<f64> =
        sums.iter().zip(&factors).map(|(sum, factor)| sum.to_f64() * factor).collect();
    let pairs = exact.iter().zip(&operands.exact).map(|(stored, exact)| (stored - exact, *exact));
    let magnitudes = outputs(&a.entries, &b.entries, k).zip(&factors).map(|((a, b), factor)| {
        let products = a.iter().zip(b).map(|(x, y)| (f64::from(*x) * f64::from(*y)).abs());
        (products.sum::<f64>() * factor).powi(2)
    });
    Ok(Stored {
        errors: Errors::of(pairs),
        n_saturated: a.n_saturated.zip(b.n_saturated).map(|(a, b)| a + b),
        n_to_zero: a.n_to_zero + b.n_to_zero,
        magnitude_squares: magnitudes.sum(),
        moments: moments(&a, &b, k),
        a: a.entries,
        b: b.entries,
        factors,
        sums,
        exact,
    })
}

/// Mean and variance of the products, each with the factor of its output; over all outputs the
/// products of a place along k are those of two independent columns of entries.
fn moments(a: &input::Matrix, b: &input::Matrix, k: usize) -> Moments {
    let columns = |matrix: &input::Matrix| {
        let n_rows = matrix.factors.len() as f64;
        let mut means = vec![(0.0, 0.0); k];
        for (row, factor) in matrix.entries.chunks(k).zip(&matrix.factors) {
            for (entry, (mean, square)) in row.iter().zip(&mut means) {
                let entry = f64::from(*entry) * factor;
                *mean += entry / n_rows;
                *square += entry * entry / n_rows;
            }
        }
        means
    };
    let pairs = columns(a).into_iter().zip(columns(b));
    let (mean, square) = pairs.fold((0.0, 0.0), |(mean, square), (a, b)| {
        (mean + a.0 * b.0 / k as f64, square + a.1 * b.1 / k as f64)
    });
    Moments { mean, variance: (square - mean * mean).max(0.0) }
}

/// What an accumulation made of stored operands, and how far that is from exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Multiplied {
    /// The outputs, row by row.
    pub values: Vec<f64>,
    /// The error of the accumulation alone, `C" - C'`, relative to C; over the finite outputs.
    pub accumulation: Option<Errors>,
    /// The whole error, `C" - C`; over the finite outputs.
    pub total: Option<Errors>,
    /// What theory says of the relative error of the accumulation, in the root of the mean square.
    pub theory: Theory,
    /// Outputs that are infinite or not a number.
    pub n_overflowed: u64,
    /// Additions of something not zero that left a finite sum as it was.
    pub n_stalls: u64,
    /// All additions.
    pub n_additions: u64,
}

/// What theory says of the relative error of an accumulation, in the root of the mean square: the
/// bounds of each output, taken together. See the sources in `theory.rs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Theory {
    /// What it is if roundings err independently and uniformly; `None` for truncation.
    pub expected: Option<f64>,
    /// A bound for each output with probability [`CONFIDENCE`], if roundings err independently
    /// with mean zero; `None` for truncation and for Kahan's sum.
    pub probable: Option<f64>,
    /// A bound that always holds if nothing overflows or underflows; `None` where there is none.
    pub certain: Option<f64>,
}

/// Multiplies stored operands as an accumulation does.
///
/// # Errors
/// The accumulation's format cannot hold sums, or its options contradict one another.
pub fn multiply(
    operands: &Operands,
    stored: &Stored,
    accumulation: &Accumulation,
    seed: u64,
) -> Result<Multiplied, Refused> {
    let summing = Summing::new(accumulation)?;
    let mut random = Random::new(seed, STREAM_ROUNDING);
    let k = operands.shape.k;
    let mut values = Vec::with_capacity(stored.sums.len());
    let mut errors = Vec::with_capacity(stored.sums.len());
    let (mut n_stalls, mut n_additions) = (0, 0);
    let rows = outputs(&stored.a, &stored.b, k).zip(&stored.sums).zip(&stored.factors);
    for (((a, b), sum), factor) in rows {
        let summed = summing.dot(a, b, &mut random);
        n_stalls += summed.n_stalls;
        n_additions += summed.n_additions;
        values.push(summed.value * factor);
        let is_finite = summed.value.is_finite();
        errors.push(if is_finite { -sum.minus(summed.value) * factor } else { f64::NAN });
    }
    let finite = || {
        let all = errors.iter().zip(&stored.exact).zip(&operands.exact);
        all.filter(|((error, _), _)| error.is_finite())
    };
    let total = finite().map(|((error, stored), exact)| (error + (stored - exact), *exact));
    Ok(Multiplied {
        accumulation: Errors::of(finite().map(|((error, _), exact)| (*error, *exact))),
        total: Errors::of(total),
        theory: theory(operands, stored, accumulation),
        n_overflowed: values.iter().filter(|value| !value.is_finite()).count() as u64,
        n_stalls,
        n_additions,
        values,
    })
}

fn theory(operands: &Operands, stored: &Stored, accumulation: &Accumulation) -> Theory {
    let factors = theory::factors(accumulation, operands.shape.k, stored.moments);
    let exact_squares: f64 = operands.exact.iter().map(|exact| exact * exact).sum();
    let rms = (exact_squares / operands.exact.len() as f64).sqrt();
    let condition = (stored.magnitude_squares / exact_squares).sqrt();
    let relative = |factor: Option<f64>, scale: f64| {
        factor.map(|factor| factor * scale).filter(|bound| bound.is_finite())
    };
    Theory {
        expected: relative(factors.expected, 1.0 / rms),
        probable: relative(factors.probable, condition),
        certain: relative(factors.certain, condition),
    }
}
