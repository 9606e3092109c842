//! What OCP MX blocks make of values: 32 in a row share a power of two.
//!
//! Not here: their layout in bytes. Source: OCP Microscaling Formats 1.0, sections 5.2 and 6.3.

use super::cells::{self, Cell};
use super::outcome::Errors;
use super::quantizer::{Fate, Quantizer, max_finite, two_to};
use super::slabs::Shared;
use crate::codec::Rules;
use crate::format::Format;

/// Elements of a block.
pub(super) const BLOCK: usize = 32;
/// The exponents that E8M0 holds.
const SCALE_EXPONENTS: std::ops::RangeInclusive<i32> = -127..=127;

/// MX with elements of one format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mx {
    pub(super) quantizer: Quantizer,
    /// `floor(log2)` of the largest element value.
    max_exponent: i32,
    /// What an element counts in: `2^-6` for INT8.
    step: f64,
}

impl Mx {
    pub(super) fn new(element: Format) -> Option<Mx> {
        let quantizer = Quantizer::new(element, Rules::SATURATING)?;
        // A block with a NaN takes its neighbours with it.
        let quantizer = quantizer.leaving_out();
        let step = if element == Format::INT8 { two_to(-6) } else { 1.0 };
        let max_exponent = (max_finite(element)? * step).log2().floor() as i32;
        Some(Mx { quantizer, max_exponent, step })
    }

    /// How many significand bits of the cells tell apart what rounds differently.
    pub(super) fn grid_bits(&self) -> u32 {
        self.quantizer.grid_bits().expect("elements of MX are floats or integers")
    }

    /// Judges the values of all blocks that share an exponent, of at least
    /// [`Mx::grid_bits`] and exactly.
    pub(super) fn add_cells(&self, shared: Shared, cells: &[Cell], errors: &mut Errors) {
        if let Some(exponent) = shared.exponent() {
            let power = self.step.recip().log2() as i32 - self.scale_exponent(exponent);
            cells::judge(cells, &self.quantizer, power, errors);
        }
    }

    fn scale_exponent(&self, exponent: i32) -> i32 {
        let (least, most) = (*SCALE_EXPONENTS.start(), *SCALE_EXPONENTS.end());
        (exponent - self.max_exponent).clamp(least, most)
    }

    /// Judges values in whole blocks; the last may be short, as if filled up with zeros. For the
    /// few blocks that cells do not serve.
    pub(super) fn add(&self, values: &[f64], errors: &mut Errors) {
        for block in values.chunks(BLOCK) {
            let amax = block.iter().fold(0.0, |amax: f64, value| amax.max(value.abs()));
            let is_finite = block.iter().all(|value| value.is_finite());
            if !is_finite {
                self.lost(block, errors);
                continue;
            }
            // binary64 zeros and subnormals have the exponent -1023, which is cut off too.
            let exponent = self.scale_exponent((amax.to_bits() >> 52) as i32 - 1023);
            let scale = two_to(-exponent) / self.step;
            self.judge(block, scale, errors);
        }
    }

    /// Sums within a block are of binary64; all blocks together are summed exactly.
    fn judge(&self, block: &[f64], scale: f64, errors: &mut Errors) {
        let (mut squares, mut kept_squares, mut worst, mut relative) = (0.0, 0.0, 0.0f64, 0.0f64);
        for value in block {
            let fate = self.quantizer.fate(value * scale);
            errors.count(&self.quantizer, *value, fate, 1);
            let error = (value - fate.value / scale).abs();
            squares += error * error;
            kept_squares += value * value;
            worst = worst.max(error);
            // A zero has no error.
            relative = relative.max(error / value.abs().max(f64::MIN_POSITIVE));
        }
        errors.squares.add(squares);
        errors.kept_squares.add(kept_squares);
        errors.worst(worst, relative);
    }

    /// The scale of a block with an infinity or a NaN is NaN, and so is all of it.
    fn lost(&self, block: &[f64], errors: &mut Errors) {
        for value in block {
            if value.is_finite() {
                errors.add(&self.quantizer, *value, Fate::of(*value, f64::NAN), 1.0, 1);
            }
            errors.lost_specials += u64::from(value.is_infinite());
        }
    }
}
