//! Binary32 values -> a format too fine for bins, one value at a time, in loops that a compiler
//! vectorises.
//!
//! Not here: rounding itself ([`crate::bulk`]'s kernel, and [`super::quantizer`] for what that does
//! not cover).

use super::outcome::Errors;
use super::quantizer::Quantizer;
use crate::bulk::kernel::{Kernel, way};
use crate::bulk::lanes::{self, Instructions, Job};
use crate::codec::Rules;
use crate::format::Format;

/// Values converted at once; either all of them are ordinary, or each is done with care.
pub(crate) const BLOCK: usize = 256;
/// Blocks converted in one call.
const N_BLOCKS: usize = 16;
/// All but the sign of a binary32.
const MAGNITUDE: u32 = u32::MAX >> 1;

/// A format to which binary32 values are converted one at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    pub(super) quantizer: Quantizer,
    fast: Option<Fast>,
}

/// What a binary32 of ordinary size is compared with on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fast {
    kernel: Kernel,
    /// The largest finite value and the smallest normal one, as bits of binary32.
    max: i32,
    lowest: i32,
    /// No more than the largest relative error so far: a division for each value takes longer than
    /// the conversion.
    relative: f32,
}

/// What a block of ordinary values gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    n_changed: u32,
    n_zeros: u32,
    n_zero_results: u32,
    /// Results below the smallest normal one, zeros among them.
    n_small_results: u32,
    worst: f32,
    /// Whether some relative error may be above [`Fast::relative`].
    is_worse: bool,
    squares: f64,
}

impl Direct {
    pub(super) fn new(format: Format, rules: Rules, quantizer: Quantizer) -> Direct {
        let kernel = Kernel::new(format, rules).filter(|kernel| kernel.way != way::POWER_OF_TWO);
        let is_signed = format.float().is_some_and(|float| float.sign_bits == 1);
        let fast = kernel.filter(|_| is_signed).map(|kernel| Fast {
            kernel,
            max: (quantizer.max as f32).to_bits() as i32,
            lowest: (quantizer.min_normal as f32).to_bits() as i32,
            relative: 0.0,
        });
        Direct { quantizer, fast }
    }

    /// Judges finite values; the others are counted elsewhere.
    pub(super) fn add(&self, values: &[u32], errors: &mut Errors) {
        let (blocks, rest) = values.as_chunks::<BLOCK>();
        for blocks in blocks.chunks(N_BLOCKS) {
            let mut found = [None; N_BLOCKS];
            if let Some(fast) = &self.fast {
                let fast = &Fast { relative: just_below(errors.max_rel_error), ..*fast };
                let found = &mut found[..blocks.len()];
                lanes::run(Job::Judge { fast, blocks, found }, Instructions::Any);
            }
            for (block, found) in blocks.iter().zip(found) {
                match found {
                    Some(found) => self.take(block, &found, errors),
                    None => self.carefully(block, errors),
                }
            }
        }
        self.carefully(rest, errors);
    }

    fn carefully(&self, values: &[u32], errors: &mut Errors) {
        for bits in values {
            let value = f64::from(f32::from_bits(*bits));
            if value.is_finite() {
                errors.add(&self.quantizer, value, self.quantizer.fate(value), 1.0, 1);
            }
        }
    }

    fn take(&self, block: &[u32; BLOCK], found: &Found, errors: &mut Errors) {
        errors.changed += u64::from(found.n_changed);
        errors.underflow += u64::from(found.n_zero_results - found.n_zeros);
        errors.subnormal += u64::from(found.n_small_results - found.n_zero_results);
        errors.squares.add(found.squares);
        errors.worst(f64::from(found.worst), 0.0);
        if found.is_worse {
            for bits in block {
                let value = f64::from(f32::from_bits(*bits));
                if value != 0.0 {
                    let error = value - self.quantizer.fate(value).value;
                    errors.worst(0.0, (error / value).abs());
                }
            }
        }
        if self.quantizer.leaves_out {
            let squares = block.iter().map(|bits| f64::from(f32::from_bits(*bits)).powi(2));
            errors.kept_squares.add(squares.sum());
        }
    }
}

/// The products that this is a factor of have errors of `2^-24` of themselves. Above 1 there is no
/// relative error, and products with it are exact.
fn just_below(relative: f64) -> f32 {
    const NEARLY: f64 = 1.0 - 1.0 / (1 << 22) as f64;
    if relative < 1.0 { (relative * NEARLY) as f32 } else { 1.0 }
}

impl Fast {
    /// Leaves `None` where some value of a block is infinite, NaN, beyond the largest, or subnormal
    /// in binary32.
    #[inline(always)]
    pub(crate) fn judge(&self, blocks: &[[u32; BLOCK]], found: &mut [Option<Found>]) {
        let fast = *self;
        for (block, found) in blocks.iter().zip(found) {
            *found = match (fast.kernel.way, fast.kernel.has_minus_zero) {
                (way::DIRECT, _) => fast.judge_as::<{ way::DIRECT }>(block),
                _ => fast.judge_as::<{ way::ANCHORED }>(block),
            };
        }
    }

    // Loops over integers and without sums of floats, which a compiler may not reorder, become
    // vector instructions; so magnitudes are compared as integers, and the sum has lanes.
    #[inline(always)]
    fn judge_as<const WAY: u8>(&self, block: &[u32; BLOCK]) -> Option<Found> {
        const LANES: usize = 8;
        let (mut largest, mut n_tiny, mut n_zeros) = (0i32, 0u32, 0u32);
        for bits in block {
            let magnitude = (bits & MAGNITUDE) as i32;
            largest = largest.max(magnitude);
            n_tiny += u32::from(magnitude < 0x0080_0000);
            n_zeros += u32::from(magnitude == 0);
        }
        if self.max < largest || n_zeros < n_tiny {
            return None;
        }
        let mut errors = [0f32; BLOCK];
        let (mut n_changed, mut n_zero_results, mut n_small_results) = (0u32, 0u32, 0u32);
        let (mut worst, mut n_worse) = (0i32, 0u32);
        for (error, bits) in errors.iter_mut().zip(block) {
            let magnitude = bits & MAGNITUDE;
            // The sign of a zero does not matter here.
            let result = self.kernel.value::<WAY, true>(magnitude);
            let value = f32::from_bits(magnitude);
            *error = (value - f32::from_bits(result)).abs();
            n_changed += u32::from(result != magnitude);
            n_zero_results += u32::from(result == 0);
            n_small_results += u32::from((result as i32) < self.lowest);
            worst = worst.max(error.to_bits() as i32);
            n_worse += u32::from(value * self.relative < *error);
        }
        let mut squares = [0f64; LANES];
        for errors in errors.as_chunks::<LANES>().0 {
            // Not zipped: that takes longer than the sums.
            for lane in 0..LANES {
                let error = f64::from(errors[lane]);
                squares[lane] += error * error;
            }
        }
        Some(Found {
            n_changed,
            n_zeros,
            n_zero_results,
            n_small_results,
            worst: f32::from_bits(worst as u32),
            is_worse: n_worse != 0,
            squares: squares.iter().sum(),
        })
    }
}
