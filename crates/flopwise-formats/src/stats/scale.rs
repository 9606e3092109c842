//! Which factor before conversion, undone after it, makes the error least.
//!
//! Powers of two move values from cell to cell, so that their errors are exact wherever those of the
//! format are. For others, values are taken to be spread evenly within a cell that is cut.
//! Not here: scales of blocks ([`super::mx`]).

use super::cells::{self, Cell};
use super::outcome::{Scaled, TargetStats};
use super::quantizer::{Quantizer, two_to};

/// Powers tried, from the largest by which the largest magnitude still fits: one below, and some
/// above, where a few outliers are clipped for the sake of the rest.
const POWERS: std::ops::RangeInclusive<i32> = -1..=3;
/// Beyond these neither tensors nor formats of practice reach.
const MAX_POWER: i32 = 300;

/// The tensor as the search sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tensor<'a> {
    /// Cells within which the format may round differently.
    pub(super) fine: &'a [Cell],
    /// Cells within which it does not; `None` where there are none so fine.
    pub(super) exact: Option<&'a [Cell]>,
    pub(super) amax: f64,
    /// The sum of the squares of all finite values.
    pub(super) squares: f64,
}

/// The power of two with the least error among 1 and [`POWERS`]; of equals the nearest to 1.
pub(super) fn best_power(
    tensor: Tensor<'_>,
    quantizer: &Quantizer,
    unscaled: &TargetStats,
) -> Option<Scaled> {
    let is_usable = 0.0 < tensor.amax && unscaled.left_out == 0 && unscaled.invalid == 0;
    let one = is_usable.then_some(Scaled {
        scale: 1.0,
        sum_of_squared_errors: unscaled.sum_of_squared_errors,
        sum_of_squares: unscaled.sum_of_squares,
        is_exact: true,
    });
    // Between subnormals and the largest value the error does not depend on the exponent.
    let is_inside = unscaled.overflow + unscaled.underflow + unscaled.subnormal == 0;
    if one.is_some() && (is_inside && quantizer.format.is_float() || unscaled.changed == 0) {
        return one;
    }
    let fits = (quantizer.max / tensor.amax).log2().floor();
    if !fits.is_finite() {
        return one;
    }
    let mut powers: Vec<i32> = POWERS
        .map(|power| (fits as i32 + power).clamp(-MAX_POWER, MAX_POWER))
        .filter(|power| *power != 0)
        .collect();
    powers.sort_by_key(|power| power.abs());
    let tried = powers.into_iter().filter_map(|power| match tensor.exact {
        Some(cells) => exactly(cells, quantizer, power, tensor.squares),
        None => evenly(tensor, quantizer, two_to(power)),
    });
    one.into_iter().chain(tried).reduce(|best, next| {
        let is_better = next.sum_of_squared_errors < best.sum_of_squared_errors;
        if is_better { next } else { best }
    })
}

/// The scale at which the largest magnitude becomes the format's largest value.
pub(super) fn by_amax(tensor: Tensor<'_>, quantizer: &Quantizer) -> Option<Scaled> {
    let scale = quantizer.max / tensor.amax;
    (scale.is_normal()).then(|| evenly(tensor, quantizer, scale)).flatten()
}

/// `None` where some result is infinite or NaN.
fn exactly(cells: &[Cell], quantizer: &Quantizer, power: i32, squares: f64) -> Option<Scaled> {
    let sum_of_squared_errors = cells::squared_errors(cells, quantizer, power)?;
    // Subnormals of binary32 have cells of one width, which a format with a wider range may cut.
    let has_subnormals = cells.iter().any(|cell| cell.bits << 1 >> 24 == 0 && 0 < cell.n_above);
    let is_cut = has_subnormals && quantizer.min_normal < two_to(power - 126);
    let (scale, sum_of_squares) = (two_to(power), squares);
    Some(Scaled { scale, sum_of_squared_errors, sum_of_squares, is_exact: !is_cut })
}

/// `None` where some result is infinite or NaN.
fn evenly(tensor: Tensor<'_>, quantizer: &Quantizer, scale: f64) -> Option<Scaled> {
    let (mut total, mut is_exact) = (0.0, true);
    for cell in tensor.fine.iter().filter(|cell| !cell.is_special()) {
        if 0 < cell.n_at {
            let fate = quantizer.fate(cell.base() * scale);
            let error = cell.base() - fate.value / scale;
            total += cell.n_at as f64 * error * error;
        }
        if 0 < cell.n_above {
            let (squares, is_cut) = above(cell, quantizer, scale);
            total += squares;
            is_exact &= !is_cut;
        }
    }
    total.is_finite().then_some(Scaled {
        scale,
        sum_of_squared_errors: total,
        sum_of_squares: tensor.squares,
        is_exact,
    })
}

/// The squared errors of the values beyond a cell's beginning, and whether they became several
/// values, so that it is an estimate.
fn above(cell: &Cell, quantizer: &Quantizer, scale: f64) -> (f64, bool) {
    let (base, unit) = (cell.base().abs(), cell.unit());
    let sign = if cell.is_negative() { -1.0 } else { 1.0 };
    let ends = [cell.lowest, cell.highest].map(|end| base + f64::from(end) * unit);
    let results = ends.map(|end| quantizer.fate(sign * end * scale).value * sign / scale);
    let n = cell.n_above as f64;
    let [low, high] = results;
    if low == high {
        let distance = (base - low) / unit;
        let squares =
            n * distance * distance + 2.0 * distance * cell.sum as f64 + cell.squares as f64;
        return (squares * unit * unit, false);
    }
    let [first, last] = ends;
    if cell.n_above == 2 {
        return ((first - low).powi(2) + (last - high).powi(2), false);
    }
    let step = quantizer.step_at(last * scale).map(|step| step / scale);
    if let Some(step) = step.filter(|step| 1.5 * step < high - low) {
        // Errors spread evenly from -1/2 to 1/2 of a step.
        return (n * step * step / 12.0, true);
    }
    let middle = ((low + high) / 2.0).clamp(first, last);
    let cube = |x: f64, q: f64| (x - q).powi(3) / 3.0;
    let lower = cube(middle, low) - cube(first, low);
    let upper = cube(last, high) - cube(middle, high);
    (n * (lower + upper) / (last - first), true)
}
