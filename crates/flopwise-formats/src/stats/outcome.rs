//! What is known of a tensor and of each target at the end: plain data.
//!
//! Not here: how it was gathered.

use super::cells::Cell;
use super::quantizer::{Fate, Quantizer};
use super::sum::Sum;
use crate::format::Format;

/// What is known of a tensor, and what each target would do to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The tensor as it is.
    pub source: SourceStats,
    /// One for each target, in the order asked.
    pub targets: Vec<TargetStats>,
}

/// A tensor as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceStats {
    /// The format of its elements.
    pub format: Format,
    /// Elements in all.
    pub elements: u64,
    /// Elements that are numbers: neither infinite nor NaN.
    pub finite: u64,
    /// NaN.
    pub nan: u64,
    /// Infinities of either sign.
    pub infinite: u64,
    /// Zeros of either sign.
    pub zeros: u64,
    /// Elements below zero, `-0` and `-inf` left out.
    pub negative: u64,
    /// The smallest finite value; `None` without any.
    pub min: Option<f64>,
    /// The largest finite value.
    pub max: Option<f64>,
    /// The largest finite magnitude.
    pub amax: Option<f64>,
    /// The smallest magnitude other than zero.
    pub amin: Option<f64>,
    /// The mean of the finite values.
    pub mean: Option<f64>,
    /// The root of the mean of their squares.
    pub rms: Option<f64>,
    /// The sum of their squares.
    pub sum_of_squares: f64,
    /// How many nonzero finite values have which `floor(log2 |x|)`, rising.
    pub exponents: Vec<(i32, u64)>,
    /// Bits of the code that differ among elements: all others are the same in all. Of integers and
    /// formats above 64 bits nothing is said, as if all differed.
    pub varying_bits: u64,
    /// Lowest bits of the code that are 0 in every element.
    pub trailing_zero_bits: u32,
    /// Different codes that occur; known for formats of at most 16 bits.
    pub distinct_codes: Option<u64>,
    /// Narrower formats known to hold every element exactly, the narrowest first.
    pub exact_in: Vec<Format>,
}

/// What a target makes of a tensor. A count is of elements; values are the finite elements.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetStats {
    /// Values that change, those counted below included.
    pub changed: u64,
    /// Values beyond the largest, after rounding.
    pub overflow: u64,
    /// Those of them that become the largest value, not infinity or NaN.
    pub saturated: u64,
    /// Values other than zero that become zero.
    pub underflow: u64,
    /// Values whose result is below the smallest normal one and not zero.
    pub subnormal: u64,
    /// Values for which the format has no sign.
    pub invalid: u64,
    /// Infinities that do not stay infinite, and NaN that become numbers.
    pub lost_specials: u64,
    /// Values whose result is infinite or NaN, which the errors leave out.
    pub left_out: u64,
    /// Values that the errors are about: the finite ones whose result is finite.
    pub judged: u64,
    /// The largest `|x - q|`.
    pub max_abs_error: f64,
    /// The largest `|x - q| / |x|` over nonzero values; 1 for a value that became zero.
    pub max_rel_error: f64,
    /// The sum of `(x - q)^2`.
    pub sum_of_squared_errors: f64,
    /// The sum of `x^2` over the same values.
    pub sum_of_squares: f64,
    /// The power of two that suits the tensor best; `None` where none was looked for: no value but
    /// zero, a block format, or a source that was not kept in bins.
    pub best_power: Option<Scaled>,
    /// The scale at which the largest magnitude becomes the largest value.
    pub by_amax: Option<Scaled>,
}

/// A tensor multiplied by a scale before, and divided by it after conversion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled {
    /// What values are multiplied by.
    pub scale: f64,
    /// The sum of the squared errors then.
    pub sum_of_squared_errors: f64,
    /// The sum of the squares of the values judged.
    pub sum_of_squares: f64,
    /// Whether that is exact: otherwise values are taken to be spread evenly within short
    /// intervals, of 1/128 of a binade or an eighth of a step of the format.
    pub is_exact: bool,
}

/// Signal to noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Snr {
    /// There is no error.
    Exact,
    /// `10 log10(sum x^2 / sum (x - q)^2)`.
    Decibels(f64),
    /// There is nothing to judge: no value, or none whose result is finite.
    Nothing,
}

fn snr(judged: u64, squares: f64, errors: f64) -> Snr {
    match () {
        () if judged == 0 => Snr::Nothing,
        () if errors == 0.0 => Snr::Exact,
        () => Snr::Decibels(10.0 * (squares / errors).log10()),
    }
}

impl TargetStats {
    /// The signal-to-noise ratio over [`TargetStats::judged`].
    pub fn snr(&self) -> Snr {
        snr(self.judged, self.sum_of_squares, self.sum_of_squared_errors)
    }

    /// The mean squared error over [`TargetStats::judged`]; `None` when there are none.
    pub fn mse(&self) -> Option<f64> {
        (0 < self.judged).then(|| self.sum_of_squared_errors / self.judged as f64)
    }

    /// The same for several tensors together. Scales are not: each tensor has its own.
    pub fn merge(&mut self, other: &TargetStats) {
        *self = TargetStats {
            changed: self.changed + other.changed,
            overflow: self.overflow + other.overflow,
            saturated: self.saturated + other.saturated,
            underflow: self.underflow + other.underflow,
            subnormal: self.subnormal + other.subnormal,
            invalid: self.invalid + other.invalid,
            lost_specials: self.lost_specials + other.lost_specials,
            left_out: self.left_out + other.left_out,
            judged: self.judged + other.judged,
            max_abs_error: self.max_abs_error.max(other.max_abs_error),
            max_rel_error: self.max_rel_error.max(other.max_rel_error),
            sum_of_squared_errors: self.sum_of_squared_errors + other.sum_of_squared_errors,
            sum_of_squares: self.sum_of_squares + other.sum_of_squares,
            best_power: None,
            by_amax: None,
        };
    }
}

impl Scaled {
    /// The signal-to-noise ratio with this scale.
    pub fn snr(&self) -> Snr {
        snr(1, self.sum_of_squares, self.sum_of_squared_errors)
    }
}

/// What a target did so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Errors {
    pub(super) changed: u64,
    pub(super) overflow: u64,
    pub(super) saturated: u64,
    pub(super) underflow: u64,
    pub(super) subnormal: u64,
    pub(super) invalid: u64,
    pub(super) lost_specials: u64,
    pub(super) left_out: u64,
    /// Squares of the values judged, summed where some may be left out.
    pub(super) kept_squares: Sum,
    pub(super) max_abs_error: f64,
    pub(super) max_rel_error: f64,
    pub(super) squares: Sum,
}

impl Errors {
    pub(super) fn new() -> Errors {
        Errors {
            changed: 0,
            overflow: 0,
            saturated: 0,
            underflow: 0,
            subnormal: 0,
            invalid: 0,
            lost_specials: 0,
            left_out: 0,
            kept_squares: Sum::new(),
            max_abs_error: 0.0,
            max_rel_error: 0.0,
            squares: Sum::new(),
        }
    }

    /// `n` finite values of `value`, whose fate times `scale` is known.
    pub(super) fn add(
        &mut self,
        quantizer: &Quantizer,
        value: f64,
        fate: Fate,
        scale: f64,
        n: u64,
    ) {
        self.count(quantizer, value, fate, n);
        if !fate.value.is_finite() {
            self.left_out += n;
            return;
        }
        if quantizer.leaves_out {
            self.kept_squares.add_times(value * value, n);
        }
        self.error(value, value - fate.value / scale, n);
    }

    /// `n` values near `value`, which binary64 does not hold, with their exact error.
    pub(super) fn add_inexact(
        &mut self,
        quantizer: &Quantizer,
        value: f64,
        fate: Fate,
        error: f64,
        n: u64,
    ) {
        self.count(quantizer, value, fate, n);
        match fate.value.is_finite() {
            true => self.error(value, error, n),
            false => self.left_out += n,
        }
        if quantizer.leaves_out && fate.value.is_finite() {
            self.kept_squares.add_times(value * value, n);
        }
    }

    /// The error of `n` equal values.
    fn error(&mut self, value: f64, error: f64, n: u64) {
        if error != 0.0 {
            self.squares.add_times(error * error, n);
            let relative = if value == 0.0 { 0.0 } else { (error / value).abs() };
            self.worst(error.abs(), relative);
        }
    }

    /// Counts `n` values that became the same; `value` is one of them.
    pub(super) fn count(&mut self, quantizer: &Quantizer, value: f64, fate: Fate, n: u64) {
        let result = fate.value.abs();
        let is = |yes: bool| if yes { n } else { 0 };
        self.changed += is(fate.is_changed);
        self.overflow += is(fate.is_overflow);
        self.saturated += is(fate.is_overflow && result.is_finite());
        self.underflow += is(result == 0.0 && value != 0.0);
        self.subnormal += is(result != 0.0 && result < quantizer.min_normal);
        self.invalid += is(fate.is_invalid);
    }

    /// Infinities and NaN.
    pub(super) fn specials(&mut self, quantizer: &Quantizer, cell: &Cell) {
        let n_infinite = if cell.is_infinite() { cell.n_at } else { 0 };
        self.special(quantizer, cell.is_negative(), n_infinite, cell.n() - n_infinite);
    }

    pub(super) fn special(
        &mut self,
        quantizer: &Quantizer,
        is_negative: bool,
        n_infinite: u64,
        n_nan: u64,
    ) {
        if 0 < n_infinite && !quantizer.infinity(is_negative).is_infinite() {
            self.lost_specials += n_infinite;
        }
        if 0 < n_nan && !quantizer.keeps_nan {
            self.lost_specials += n_nan;
        }
    }

    pub(super) fn worst(&mut self, error: f64, relative: f64) {
        self.max_abs_error = self.max_abs_error.max(error);
        self.max_rel_error = self.max_rel_error.max(relative);
    }

    pub(super) fn merge(&mut self, other: Errors) {
        self.changed += other.changed;
        self.overflow += other.overflow;
        self.saturated += other.saturated;
        self.underflow += other.underflow;
        self.subnormal += other.subnormal;
        self.invalid += other.invalid;
        self.lost_specials += other.lost_specials;
        self.left_out += other.left_out;
        self.kept_squares.merge(other.kept_squares);
        self.worst(other.max_abs_error, other.max_rel_error);
        self.squares.merge(other.squares);
    }

    /// For a tensor of so many finite values and such a sum of their squares.
    pub(super) fn finish(&self, finite: u64, squares: f64) -> TargetStats {
        TargetStats {
            changed: self.changed,
            overflow: self.overflow,
            saturated: self.saturated,
            underflow: self.underflow,
            subnormal: self.subnormal,
            invalid: self.invalid,
            lost_specials: self.lost_specials,
            left_out: self.left_out,
            judged: finite - self.left_out,
            max_abs_error: self.max_abs_error,
            max_rel_error: self.max_rel_error,
            sum_of_squared_errors: self.squares.to_f64(),
            sum_of_squares: self.judged_squares(squares),
            best_power: None,
            by_amax: None,
        }
    }

    /// The sum of the squares of the values judged, of `squares` in all.
    pub(super) fn judged_squares(&self, squares: f64) -> f64 {
        match self.left_out {
            0 => squares,
            _ => self.kept_squares.to_f64(),
        }
    }
}
