//! One inner product as a machine with few bits accumulates it.
//!
//! Not here: which bits ([`super::round`]), and what the result is compared with.

use super::Refused;
use super::random::Random;
use super::round::Grid;
use crate::codec::{Overflow, StochasticVariant};
use crate::format::Format;
use std::fmt;

/// How the products of one output are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulation {
    /// The format that holds partial sums.
    pub format: Format,
    /// Which partial sums are made.
    pub order: Order,
    /// What becomes of a partial sum between two values.
    pub rounding: SumRounding,
    /// Whether a product is rounded before it is added.
    pub products: Products,
    /// Whether partial sums move to another format now and then.
    pub chunk: Option<Chunk>,
}

/// Which partial sums are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One running sum, in the order of k.
    Sequential,
    /// Neighbours first, then neighbouring pairs: a tree of depth `ceil(log2 k)`.
    Pairwise,
    /// One running sum with a second that holds what rounding took from it (Kahan, "Further remarks
    /// on reducing truncation errors", CACM 8(1), 1965).
    Kahan,
}

/// What becomes of a partial sum between two values of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumRounding {
    /// The nearest, ties to even.
    Nearest,
    /// Truncation, as tensor cores do.
    TowardZero,
    /// Up or down by that many random bits, IEEE P3109's variant A.
    Stochastic {
        /// How many random bits.
        n_bits: u8,
    },
}

/// Whether a product is rounded before it is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Exact, so that an addition has one rounding, as in a fused multiply-add.
    Exact,
    /// Rounded to the format of the partial sums first.
    Rounded,
}

/// Products are added in chunks, and the sums of chunks in a wider format.
///
/// DeepSeek-V3 promotes partial sums of Hopper's FP8 tensor cores to FP32 every 128 products
/// (arXiv:2412.19437 section 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Products in a chunk; the last may be shorter.
    pub length: usize,
    /// The format in which the sums of chunks are added, one after the other, to nearest.
    pub format: Format,
}

impl fmt::Display for Accumulation {
    /// The format, and what differs from a plain running sum: `fp16 pairwise`, `fp16, by 32 in
    /// fp32`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.format)?;
        match self.order {
            Order::Sequential => {}
            Order::Pairwise => write!(formatter, " pairwise")?,
            Order::Kahan => write!(formatter, " kahan")?,
        }
        match self.rounding {
            SumRounding::Nearest => {}
            SumRounding::TowardZero => write!(formatter, ", toward zero")?,
            SumRounding::Stochastic { n_bits } => {
                write!(formatter, ", stochastic {n_bits} bits")?;
            }
        }
        if self.products == Products::Rounded {
            write!(formatter, ", products rounded")?;
        }
        match self.chunk {
            None => Ok(()),
            Some(Chunk { length, format }) => write!(formatter, ", by {length} in {format}"),
        }
    }
}

/// What happened in one inner product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summed {
    pub(super) value: f64,
    pub(super) n_additions: u64,
    pub(super) n_stalls: u64,
}

/// An accumulation that can be carried out.
pub(super) struct Summing {
    rounding: SumRounding,
    order: Order,
    products: Products,
    inner: Grid,
    outer: Option<(usize, Grid)>,
}

impl Summing {
    pub(super) fn new(accumulation: &Accumulation) -> Result<Summing, Refused> {
        let inner = grid(accumulation.format)?;
        match accumulation.rounding {
            SumRounding::Nearest => {}
            SumRounding::TowardZero | SumRounding::Stochastic { .. } if !inner.is_narrow() => {
                let problem = format!(
                    "{}: only rounding to nearest is emulated in a format as wide as binary64",
                    accumulation.format
                );
                return Err(Refused::new(problem));
            }
            SumRounding::TowardZero => {}
            SumRounding::Stochastic { n_bits } => {
                let most = inner.max_random_bits();
                if n_bits == 0 || most < n_bits {
                    let format = accumulation.format;
                    let problem = format!("{n_bits} random bits: {format} takes 1 to {most}");
                    return Err(Refused::new(problem));
                }
            }
        }
        let outer = match accumulation.chunk {
            None => None,
            Some(Chunk { length: 0, .. }) => {
                return Err(Refused::new("a chunk has at least 1 product".to_owned()));
            }
            Some(chunk) => Some((chunk.length, grid(chunk.format)?)),
        };
        let (rounding, order) = (accumulation.rounding, accumulation.order);
        Ok(Summing { rounding, order, products: accumulation.products, inner, outer })
    }

    /// The inner product of two rows.
    pub(super) fn dot(&self, a: &[f32], b: &[f32], random: &mut Random) -> Summed {
        let mut unit =
            Unit { grid: self.inner, rounding: self.rounding, random, n_additions: 0, n_stalls: 0 };
        let Some((length, outer)) = self.outer else {
            let value = self.part(&mut unit, a, b);
            return Summed { value, n_additions: unit.n_additions, n_stalls: unit.n_stalls };
        };
        let mut sum = 0.0;
        for (a, b) in a.chunks(length).zip(b.chunks(length)) {
            let part = self.part(&mut unit, a, b);
            let rounded = outer.nearest(outer.sum(sum, part));
            unit.count(sum, part, rounded);
            sum = rounded;
        }
        Summed { value: sum, n_additions: unit.n_additions, n_stalls: unit.n_stalls }
    }

    fn part(&self, unit: &mut Unit<'_>, a: &[f32], b: &[f32]) -> f64 {
        // 24 bits by 24 bits are at most 48: exact in binary64.
        let exact = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y));
        match (self.order, self.products) {
            (Order::Sequential, Products::Exact) => sequential(unit, exact, |_, p| p),
            (Order::Sequential, Products::Rounded) => {
                sequential(unit, exact, |unit: &mut Unit<'_>, p| unit.round(p))
            }
            (Order::Kahan, Products::Exact) => kahan(unit, exact, |_, p| p),
            (Order::Kahan, Products::Rounded) => {
                kahan(unit, exact, |unit: &mut Unit<'_>, p| unit.round(p))
            }
            (Order::Pairwise, _) => pairwise(unit, exact),
        }
    }
}

fn grid(format: Format) -> Result<Grid, Refused> {
    Grid::new(format, Overflow::ToInfinity).ok_or_else(|| {
        Refused::new(format!(
            "{format} cannot hold partial sums here; take a signed float such as fp32, fp16, bf16, \
             tf32, fp64 or fp(8,13)"
        ))
    })
}

/// The adder.
struct Unit<'r> {
    grid: Grid,
    rounding: SumRounding,
    random: &'r mut Random,
    n_additions: u64,
    n_stalls: u64,
}

impl Unit<'_> {
    #[inline]
    fn round(&mut self, value: f64) -> f64 {
        match self.rounding {
            SumRounding::Nearest => self.grid.nearest(value),
            SumRounding::TowardZero => self.grid.toward_zero(value),
            SumRounding::Stochastic { n_bits } => {
                let random = self.random.bits();
                self.grid.stochastic(value, StochasticVariant::A, n_bits, random)
            }
        }
    }

    /// `x + y`, rounded once.
    #[inline]
    fn add(&mut self, x: f64, y: f64) -> f64 {
        let sum = self.grid.sum(x, y);
        self.round(sum)
    }

    #[inline]
    fn count(&mut self, sum: f64, addend: f64, result: f64) {
        self.n_additions += 1;
        // Bits, so that the NaN of an overflowed sum is not compared.
        let is_stall = sum.to_bits() == result.to_bits() && addend != 0.0 && result.is_finite();
        self.n_stalls += u64::from(is_stall);
    }
}

fn sequential(
    unit: &mut Unit<'_>,
    products: impl Iterator<Item = f64>,
    prepare: impl Fn(&mut Unit<'_>, f64) -> f64,
) -> f64 {
    let mut sum = 0.0;
    for product in products {
        let product = prepare(unit, product);
        let next = unit.add(sum, product);
        unit.count(sum, product, next);
        sum = next;
    }
    sum
}

/// With exact products the first of the four operations is a fused multiply-add.
fn kahan(
    unit: &mut Unit<'_>,
    products: impl Iterator<Item = f64>,
    prepare: impl Fn(&mut Unit<'_>, f64) -> f64,
) -> f64 {
    let (mut sum, mut lost) = (0.0, 0.0);
    for product in products {
        let product = prepare(unit, product);
        let addend = unit.add(product, -lost);
        let next = unit.add(sum, addend);
        unit.count(sum, addend, next);
        let added = unit.add(next, -sum);
        lost = unit.add(added, -addend);
        sum = next;
    }
    sum
}

/// The leaves are rounded products; a subtree waits until its neighbour of the same size is there.
fn pairwise(unit: &mut Unit<'_>, products: impl Iterator<Item = f64>) -> f64 {
    let mut waiting: Vec<(u32, f64)> = Vec::new();
    for product in products {
        let mut tree = (0, unit.round(product));
        while let Some((depth, left)) = waiting.pop_if(|(depth, _)| *depth == tree.0) {
            tree = (depth + 1, join(unit, left, tree.1));
        }
        waiting.push(tree);
    }
    let rest =
        waiting.iter().rev().map(|(_, sum)| *sum).reduce(|right, left| join(unit, left, right));
    rest.unwrap_or(0.0)
}

fn join(unit: &mut Unit<'_>, left: f64, right: f64) -> f64 {
    let sum = unit.add(left, right);
    if sum.to_bits() == right.to_bits() {
        unit.count(right, left, sum)
    } else {
        unit.count(left, right, sum)
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // what is emulated is exact

    use super::*;

    #[track_caller]
    fn sum(format: Format, order: Order, chunk: Option<Chunk>, values: &[f32]) -> Summed {
        let (rounding, products) = (SumRounding::Nearest, Products::Exact);
        let accumulation = Accumulation { format, order, rounding, products, chunk };
        let ones = vec![1.0; values.len()];
        Summing::new(&accumulation).unwrap().dot(values, &ones, &mut Random::new(0, 0))
    }

    /// A sum of ones stops where 1 is half an ulp: `2^p`, and where the format ends.
    #[test]
    fn adding_ones_stalls() {
        let check = |format: &str, last: f64, n_stalls: u64| {
            let format = crate::parse(format).unwrap();
            let summed = sum(format, Order::Sequential, None, &[1.0; 4096]);
            assert_eq!(summed.value, last, "{format}");
            assert_eq!(summed.n_stalls, n_stalls, "{format}");
            assert_eq!(summed.n_additions, 4096);
        };
        check("fp32", 4096.0, 0);
        check("fp16", 2048.0, 2048);
        check("bf16", 256.0, 3840);
        check("e4m3fn", 16.0, 4080);
        check("e5m2", 8.0, 4088);
        check("e3m4", f64::INFINITY, 0);
        check("tf32", 2048.0, 2048);
        check("fp64", 4096.0, 0);
    }

    #[test]
    fn other_orders_do_not_stall() {
        let chunk = |length| Some(Chunk { length, format: Format::FP32 });
        let check = |order, chunk, last: f64| {
            let summed = sum(Format::BF16, order, chunk, &[1.0; 4096]);
            assert_eq!((summed.value, summed.n_stalls), (last, 0), "{order:?} {chunk:?}");
        };
        check(Order::Pairwise, None, 4096.0);
        check(Order::Sequential, chunk(32), 4096.0);
        check(Order::Sequential, chunk(256), 4096.0);
        assert_eq!(sum(Format::BF16, Order::Kahan, None, &[1.0; 4096]).value, 4096.0);
        assert_eq!(sum(Format::BF16, Order::Sequential, chunk(512), &[1.0; 4096]).value, 2048.0);
    }

    /// By hand, in FP16, whose values are 2 apart from 2048 on.
    #[test]
    fn small_sums_by_hand() {
        let check = |order, chunk, values: &[f32], expected: f64| {
            let summed = sum(Format::FP16, order, chunk, values);
            assert_eq!(summed.value, expected, "{order:?} {values:?}");
        };
        // 2049 is a tie and goes to 2048, twice.
        check(Order::Sequential, None, &[2048.0, 1.0, 1.0], 2048.0);
        // (2048 + 1) + 1: three leaves are a pair and a single.
        check(Order::Pairwise, None, &[2048.0, 1.0, 1.0], 2048.0);
        check(Order::Pairwise, None, &[2048.0, 0.0, 1.0, 1.0], 2050.0);
        check(Order::Kahan, None, &[2048.0, 1.0, 1.0], 2050.0);
        let chunk = Some(Chunk { length: 1, format: Format::FP32 });
        check(Order::Sequential, chunk, &[2048.0, 1.0, 1.0], 2050.0);
        // 2051 is a tie and goes to 2052, whose last bit is even.
        check(Order::Sequential, None, &[2050.0, 1.0], 2052.0);
        check(Order::Sequential, None, &[65504.0, 16.0], f64::INFINITY);
        check(Order::Sequential, None, &[65504.0, 15.99, -65504.0], 0.0);
        check(Order::Sequential, None, &[], 0.0);
        check(Order::Pairwise, None, &[], 0.0);
    }

    #[test]
    fn fused_and_rounded_products_differ() {
        // (1 + 2^-10)^2 = 1 + 2^-9 + 2^-20 in FP16: its tail survives the cancellation if fused.
        let x = 1.0 + 2f32.powi(-10);
        let (a, b) = ([-1.0 - 2f32.powi(-9), x], [1.0, x]);
        let check = |products, expected: f64| {
            let accumulation = Accumulation {
                format: Format::FP16,
                order: Order::Sequential,
                rounding: SumRounding::Nearest,
                products,
                chunk: None,
            };
            let summed = Summing::new(&accumulation).unwrap().dot(&a, &b, &mut Random::new(0, 0));
            assert_eq!(summed.value, expected);
        };
        check(Products::Exact, 2f64.powi(-20));
        check(Products::Rounded, 0.0);
    }

    #[test]
    fn what_is_refused() {
        let check = |format, rounding, chunk, said: &str| {
            let (order, products) = (Order::Sequential, Products::Exact);
            let accumulation = Accumulation { format, order, rounding, products, chunk };
            let refused = Summing::new(&accumulation).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        };
        check(Format::INT32, SumRounding::Nearest, None, "int32 cannot hold partial sums");
        check(Format::E8M0, SumRounding::Nearest, None, "take a signed float");
        check(Format::FP64, SumRounding::TowardZero, None, "as wide as binary64");
        let many = SumRounding::Stochastic { n_bits: 40 };
        check(Format::FP32, many, None, "fp32 takes 1 to 27");
        let none = Some(Chunk { length: 0, format: Format::FP32 });
        check(Format::FP16, SumRounding::Nearest, none, "at least 1");
    }
}
