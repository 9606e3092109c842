//! Values by intervals between which nothing rounds differently: exact integer sums, from which the
//! errors of a format follow exactly.
//!
//! Where all values `x = base + t` of an interval become the same `q`, the sum of `(x - q)^2` is
//! `n (base - q)^2 + 2 (base - q) sum(t) + sum(t^2)`, and in units of binary32's last bit there all
//! of these are integers. Not here: filling them ([`super::bins`], [`super::Tally`]).

use super::outcome::Errors;
use super::quantizer::{Fate, Quantizer, two_to};
use super::slabs::Shared;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Cells of each shared exponent, in the order of their bits; without one, those of all values.
pub(super) type ByShared = BTreeMap<Shared, Vec<Cell>>;

/// The values from one number up to the next of as many significand bits, the latter left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The interval's beginning (the end nearer to zero), as bits of binary32.
    pub(super) bits: u32,
    /// Values at the beginning.
    pub(super) n_at: u64,
    /// Values beyond it.
    pub(super) n_above: u64,
    /// The sum of the distances of those from the beginning, in binary32's last bit.
    pub(super) sum: u128,
    /// The sum of the squares of these distances.
    pub(super) squares: u128,
    /// The smallest of these distances; 0 if there is none.
    pub(super) lowest: u32,
    /// The largest of them.
    pub(super) highest: u32,
}

impl Cell {
    /// `n` values, all the same.
    pub(super) fn point(bits: u32, n: u64) -> Cell {
        Cell { bits, n_at: n, n_above: 0, sum: 0, squares: 0, lowest: 0, highest: 0 }
    }

    pub(super) fn n(&self) -> u64 {
        self.n_at + self.n_above
    }

    pub(super) fn is_negative(&self) -> bool {
        self.bits >> 31 == 1
    }

    /// Exponent field all ones: infinities at the beginning of the first, NaN otherwise.
    pub(super) fn is_special(&self) -> bool {
        self.bits << 1 >> 24 == 0xff
    }

    pub(super) fn is_infinite(&self) -> bool {
        self.bits << 1 == 0xff00_0000
    }

    /// The beginning, with its sign.
    pub(super) fn base(&self) -> f64 {
        f64::from(f32::from_bits(self.bits))
    }

    /// The weight of binary32's last bit here.
    pub(super) fn unit(&self) -> f64 {
        let field = (self.bits << 1 >> 24) as i32;
        two_to(field.max(1) - 150)
    }

    /// Sum of squares of the values in [`Cell::unit`]s, as an integer.
    fn signal(&self) -> u128 {
        let base = self.base_units();
        let n_above = u128::from(self.n_above);
        u128::from(self.n_at) * base * base
            + n_above * base * base
            + 2 * base * self.sum
            + self.squares
    }

    /// The beginning in [`Cell::unit`]s, without its sign.
    fn base_units(&self) -> u128 {
        let fraction = u128::from(self.bits & 0x7f_ffff);
        let is_normal = self.bits << 1 >> 24 != 0;
        fraction | u128::from(is_normal) << 23
    }

    /// Sum of squares of the values.
    pub(super) fn sum_of_squares(&self) -> f64 {
        let unit = self.unit();
        self.signal() as f64 * unit * unit
    }

    /// Sum of the magnitudes.
    pub(super) fn sum_of_magnitudes(&self) -> f64 {
        (u128::from(self.n()) * self.base_units() + self.sum) as f64 * self.unit()
    }

    fn absorb(&mut self, other: &Cell) {
        let (lowest, highest) = match (self.n_above, other.n_above) {
            (0, _) => (other.lowest, other.highest),
            (_, 0) => (self.lowest, self.highest),
            _ => (self.lowest.min(other.lowest), self.highest.max(other.highest)),
        };
        *self = Cell {
            bits: self.bits,
            n_at: self.n_at + other.n_at,
            n_above: self.n_above + other.n_above,
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
            lowest,
            highest,
        };
    }

    /// The same values, seen from the beginning of a longer interval.
    fn seen_from(&self, bits: u32) -> Cell {
        let offset = self.bits - bits;
        if offset == 0 {
            return *self;
        }
        let distance = u128::from(offset);
        let (n, n_above) = (u128::from(self.n()), u128::from(self.n_above));
        let least = if 0 < self.n_at { 0 } else { self.lowest };
        Cell {
            bits,
            n_at: 0,
            n_above: self.n(),
            sum: self.sum + n * distance,
            squares: self.squares
                + 2 * distance * self.sum
                + n_above * distance * distance
                + u128::from(self.n_at) * distance * distance,
            lowest: offset + least,
            highest: offset + self.highest,
        }
    }
}

/// [`merge`] for each shared exponent.
pub(super) fn merge_all(whole: &mut ByShared, other: ByShared) {
    for (shared, cells) in other {
        let place = whole.entry(shared).or_default();
        *place = merge(std::mem::take(place), cells);
    }
}

/// Adds what bins held. Of blocks it keeps cells of `block_bits` significand bits alone, as there
/// may be many lists.
pub(super) fn keep(whole: &mut ByShared, shared: Shared, cells: Vec<Cell>, block_bits: u32) {
    let mut put = |shared, cells| {
        let place = whole.entry(shared).or_default();
        *place = merge(std::mem::take(place), cells);
    };
    if shared != Shared::NONE {
        put(shared, coarsen(&cells, block_bits));
    }
    put(Shared::NONE, cells);
}

/// Two lists in the order of their bits, made one.
pub(super) fn merge(one: Vec<Cell>, two: Vec<Cell>) -> Vec<Cell> {
    if one.is_empty() || two.is_empty() {
        return if one.is_empty() { two } else { one };
    }
    let mut merged = Vec::with_capacity(one.len().max(two.len()));
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    loop {
        let next = match (one.peek(), two.peek()) {
            (Some(left), Some(right)) => match left.bits.cmp(&right.bits) {
                Ordering::Less => one.next(),
                Ordering::Greater => two.next(),
                Ordering::Equal => one.next().zip(two.next()).map(|(mut left, right)| {
                    left.absorb(&right);
                    left
                }),
            },
            (Some(_), None) => one.next(),
            (None, _) => two.next(),
        };
        match next {
            Some(cell) => merged.push(cell),
            None => return merged,
        }
    }
}

/// The same values in longer intervals: those of numbers with `grid_bits` significand bits.
pub(super) fn coarsen(cells: &[Cell], grid_bits: u32) -> Vec<Cell> {
    let mask = u32::MAX << 23u32.saturating_sub(grid_bits);
    let mut coarse: Vec<Cell> = Vec::new();
    for cell in cells {
        let seen = cell.seen_from(cell.bits & mask);
        match coarse.last_mut() {
            Some(last) if last.bits == seen.bits => last.absorb(&seen),
            Some(_) | None => coarse.push(seen),
        }
    }
    coarse
}

/// [`coarsen`] for each of some numbers of bits, from the finest on.
pub(super) fn coarsen_all(
    cells: &[Cell],
    grids: impl Iterator<Item = u32>,
) -> BTreeMap<u32, Vec<Cell>> {
    let mut grids: Vec<u32> = grids.collect();
    grids.sort_unstable();
    grids.dedup();
    let mut coarse: BTreeMap<u32, Vec<Cell>> = BTreeMap::new();
    for bits in grids.into_iter().rev() {
        let finer = coarse.range(bits..).next().map(|(_, cells)| cells.as_slice());
        let made = coarsen(finer.unwrap_or(cells), bits);
        coarse.insert(bits, made);
    }
    coarse
}

/// Adds to `errors` what becomes of the values of `cells` times `2^power`, where nothing within a
/// cell rounds differently. Errors are those of the unscaled values.
pub(super) fn judge(cells: &[Cell], quantizer: &Quantizer, power: i32, errors: &mut Errors) {
    let scale = two_to(power);
    for cell in cells {
        if cell.is_special() {
            errors.specials(quantizer, cell);
            continue;
        }
        let parts = [at(cell, quantizer, scale), above(cell, quantizer, scale)];
        for part in parts.into_iter().flatten() {
            errors.count(quantizer, part.value, part.fate, part.n);
            if !part.fate.value.is_finite() {
                errors.left_out += part.n;
                continue;
            }
            if quantizer.leaves_out {
                errors.kept_squares.add(part.signal(cell));
            }
            if part.squares != 0.0 {
                errors.squares.add(part.squares);
                part.worst(cell, errors);
            }
        }
    }
}

/// The sum of the squared errors alone, of finite values; `None` where some result is infinite or
/// NaN, or the format lacks the sign.
pub(super) fn squared_errors(cells: &[Cell], quantizer: &Quantizer, power: i32) -> Option<f64> {
    let (scale, mut total) = (two_to(power), 0.0);
    for cell in cells.iter().filter(|cell| !cell.is_special()) {
        for part in [at(cell, quantizer, scale), above(cell, quantizer, scale)] {
            let Some(part) = part else { continue };
            if part.fate.is_invalid || !part.fate.value.is_finite() {
                return None;
            }
            total += part.squares;
        }
    }
    Some(total)
}

/// Values of a cell that all became the same.
struct Part {
    n: u64,
    /// One of them.
    value: f64,
    fate: Fate,
    /// From the result to the beginning of the cell, in its units; of a value at it, the error.
    distance: f64,
    /// The sum of their squared errors.
    squares: f64,
    is_at: bool,
}

impl Part {
    fn signal(&self, cell: &Cell) -> f64 {
        match self.is_at {
            true => self.n as f64 * (self.value * self.value),
            false => Cell { n_at: 0, ..*cell }.sum_of_squares(),
        }
    }

    fn worst(&self, cell: &Cell, errors: &mut Errors) {
        if self.is_at {
            let relative = if self.value == 0.0 { 0.0 } else { self.distance / self.value };
            errors.worst(self.distance.abs(), relative.abs());
            return;
        }
        let (base, unit) = (cell.base().abs(), cell.unit());
        for end in [cell.lowest, cell.highest].map(f64::from) {
            let error = (self.distance + end).abs() * unit;
            errors.worst(error, error / (base + end * unit));
        }
    }
}

/// The values at the beginning.
#[inline]
fn at(cell: &Cell, quantizer: &Quantizer, scale: f64) -> Option<Part> {
    if cell.n_at == 0 {
        return None;
    }
    let value = cell.base();
    let fate = quantizer.fate(value * scale);
    let error = value - fate.value / scale;
    let squares = cell.n_at as f64 * (error * error);
    Some(Part { n: cell.n_at, value, fate, distance: error, squares, is_at: true })
}

/// The values beyond the beginning.
#[inline]
fn above(cell: &Cell, quantizer: &Quantizer, scale: f64) -> Option<Part> {
    if cell.n_above == 0 {
        return None;
    }
    let n = cell.n_above;
    let (base, unit) = (cell.base().abs(), cell.unit());
    let value = cell.base() + unit.copysign(cell.base());
    let fate = quantizer.fate(value * scale);
    let sign = if cell.is_negative() { -1.0 } else { 1.0 };
    let distance = (base - fate.value / scale * sign) / unit;
    let squares = sum_of_squares(cell, distance) * unit * unit;
    Some(Part { n, value, fate, distance, squares, is_at: false })
}

/// The sum of `(distance + t)^2` over the values beyond the beginning, in units.
fn sum_of_squares(cell: &Cell, distance: f64) -> f64 {
    let n = cell.n_above;
    let most = (distance.abs() + f64::from(cell.highest)).powi(2) * n as f64;
    // In units the distance is an integer, and where the result is far smaller or larger so that it
    // is none, nothing cancels.
    let is_whole = distance.abs() < 2f64.powi(40) && distance.trunc() == distance;
    match () {
        // No more than this, so that what runs over on the way does not matter.
        () if is_whole && most < 2f64.powi(62) => {
            let distance = distance as i64 as u64;
            let cross = distance.wrapping_mul(2).wrapping_mul(cell.sum as u64);
            let squares = n.wrapping_mul(distance).wrapping_mul(distance);
            squares.wrapping_add(cross).wrapping_add(cell.squares as u64) as f64
        }
        () if is_whole => {
            let distance = distance as i128;
            let cross = 2 * distance * cell.sum as i128;
            (i128::from(n) * distance * distance + cross + cell.squares as i128) as f64
        }
        () => {
            let cross = 2.0 * distance * cell.sum as f64;
            n as f64 * distance * distance + cross + cell.squares as f64
        }
    }
}
