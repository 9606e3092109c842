//! The end of a tally: what the tensor is, and what each target makes of it.
//!
//! Not here: gathering.

use super::blocks;
use super::cells::{self, Cell};
use super::codes::{self, Counts};
use super::loose::{Loose, floor_log2};
use super::outcome::{Errors, Scaled, SourceStats, Stats, TargetStats};
use super::quantizer::Quantizer;
use super::scale::{self, Tensor};
use super::slabs::Shared;
use super::sum::Sum;
use super::target::Judge;
use super::{Reading, Tally, add_loose};
use crate::codec::Rules;
use crate::format::{Format, Layout};
use std::collections::BTreeMap;

/// Formats of which it is said that they hold a tensor exactly, the narrowest first.
const NARROWER: &[Format] = &[
    Format::E2M1,
    Format::E2M3,
    Format::E3M2,
    Format::E4M3FN,
    Format::E5M2,
    Format::INT8,
    Format::FP16,
    Format::BF16,
    Format::TF32,
    Format::FP32,
];

/// Significand bits of the cells within which values are taken to be spread evenly, at most.
const FINE_BITS: u32 = 7;

pub(super) fn finish(mut tally: Tally) -> Stats {
    tally.settle();
    let (is_points, distinct_codes) = spread_codes(&mut tally);
    for (shared, cells) in &tally.cells {
        add_blocks(*shared, cells, &tally.judges, &mut tally.errors);
    }
    let cells = tally.cells.remove(&Shared::NONE).unwrap_or_default();
    let rounded = tally.rounded_cells.remove(&Shared::NONE).unwrap_or_default();
    let source = source_stats(&tally, &cells, distinct_codes);
    let tensor = Whole::new(&tally, &cells, &rounded, &source, is_points);
    let targets: Vec<TargetStats> = tally
        .judges
        .iter()
        .zip(&tally.errors)
        .map(|(judge, errors)| tensor.target(judge, errors.clone()))
        .collect();
    let exact_in = exact_in(&tally, &cells, is_points, &targets);
    Stats { source: SourceStats { exact_in, ..source }, targets }
}

/// Turns counted codes into cells of equal values. Whether that is what the cells are, and how many
/// codes came.
fn spread_codes(tally: &mut Tally) -> (bool, Option<u64>) {
    let reading = std::mem::replace(&mut tally.reading, Reading::Single);
    let codes = match reading {
        Reading::Single | Reading::Wide => return (false, None),
        Reading::Codes { codes, .. } => codes,
    };
    let counts = codes.counts();
    let all = counts.values().fold(Counts::new(), |all, more| codes::sum([all, more.clone()]));
    let n_codes = all.len() as u64;
    let (mut points, mut rounded) = (Vec::new(), Vec::new());
    let values = blocks::values(tally.source, all.iter().map(|(code, _)| *code));
    for ((code, n), value) in all.into_iter().zip(values) {
        (tally.or, tally.and) = (tally.or | u64::from(code), tally.and & u64::from(code));
        if is_single(value) {
            points.push(Cell::point((value as f32).to_bits(), n));
            continue;
        }
        rounded.push(Cell::point((value as f32).to_bits(), n));
        tally.loose.add(value, n);
        for (judge, errors) in tally.judges.iter().zip(&mut tally.errors) {
            add_loose(judge, value, None, n, errors);
        }
    }
    tally.rounded_cells.insert(Shared::NONE, in_order(rounded));
    tally.cells.insert(Shared::NONE, in_order(points));
    for (shared, counts) in counts.into_iter().filter(|(shared, _)| *shared != Shared::NONE) {
        let values = blocks::values(tally.source, counts.iter().map(|(code, _)| *code));
        let held = counts.into_iter().zip(values).filter(|(_, value)| is_single(*value));
        let points = held.map(|((_, n), value)| Cell::point((value as f32).to_bits(), n));
        tally.cells.insert(shared, in_order(points.collect()));
    }
    (true, Some(n_codes))
}

fn is_single(value: f64) -> bool {
    value.is_nan() || f64::from(value as f32) == value
}

/// What block formats make of the values of all blocks that share an exponent.
fn add_blocks(shared: Shared, cells: &[Cell], judges: &[Judge], errors: &mut [Errors]) {
    if shared == Shared::NONE {
        return;
    }
    let grids = judges.iter().filter_map(Judge::block_bits);
    let coarse = cells::coarsen_all(cells, grids);
    for (judge, errors) in judges.iter().zip(errors) {
        if let Judge::Mx(mx) = judge {
            mx.add_cells(shared, &coarse[&mx.grid_bits()], errors);
        }
    }
}

/// Several codes may stand for one value.
fn in_order(mut points: Vec<Cell>) -> Vec<Cell> {
    points.sort_by_key(|point| point.bits);
    cells::coarsen(&points, 23)
}

fn source_stats(tally: &Tally, cells: &[Cell], distinct_codes: Option<u64>) -> SourceStats {
    let Loose { n, n_negative, min, max, amin, amax, .. } = tally.loose;
    let mut stats = SourceStats {
        format: tally.source,
        elements: tally.elements,
        finite: n,
        nan: 0,
        infinite: 0,
        zeros: 0,
        negative: n_negative,
        min: (0 < n).then_some(min),
        max: (0 < n).then_some(max),
        amax: (0 < n).then_some(amax),
        amin: (0 < n).then_some(amin),
        mean: None,
        rms: None,
        sum_of_squares: 0.0,
        exponents: Vec::new(),
        varying_bits: tally.or & !tally.and,
        trailing_zero_bits: tally.or.trailing_zeros().min(u32::from(tally.source.bits)),
        distinct_codes,
        exact_in: Vec::new(),
    };
    if tally.elements == 0 {
        (stats.varying_bits, stats.trailing_zero_bits) = (0, 0);
    }
    let mut sum = tally.loose.sum.clone();
    let mut squares = tally.loose.squares.clone();
    let mut exponents = tally.loose.exponents.clone();
    for cell in cells {
        add_cell(&mut stats, cell, &mut sum, &mut squares, &mut exponents);
    }
    stats.exponents = exponents.into_iter().collect();
    stats.sum_of_squares = squares.to_f64();
    if 0 < stats.finite {
        stats.mean = Some(sum.to_f64() / stats.finite as f64);
        stats.rms = Some((stats.sum_of_squares / stats.finite as f64).sqrt());
    }
    stats
}

fn add_cell(
    stats: &mut SourceStats,
    cell: &Cell,
    sum: &mut Sum,
    squares: &mut Sum,
    exponents: &mut BTreeMap<i32, u64>,
) {
    if cell.is_special() {
        let n_infinite = if cell.is_infinite() { cell.n_at } else { 0 };
        stats.infinite += n_infinite;
        stats.nan += cell.n() - n_infinite;
        return;
    }
    let sign = if cell.is_negative() { -1.0 } else { 1.0 };
    stats.finite += cell.n();
    let base = cell.base().abs();
    let n_zeros = if base == 0.0 { cell.n_at } else { 0 };
    stats.zeros += n_zeros;
    stats.negative += if cell.is_negative() { cell.n() - n_zeros } else { 0 };
    sum.add(sign * cell.sum_of_magnitudes());
    squares.add(cell.sum_of_squares());
    let at = (0 < cell.n_at).then_some((0, 0));
    let beyond = (0 < cell.n_above).then_some((cell.lowest, cell.highest));
    for (low, high) in at.into_iter().chain(beyond) {
        let [low, high] = [low, high].map(|steps| base + f64::from(steps) * cell.unit());
        let (least, most) = if cell.is_negative() { (-high, -low) } else { (low, high) };
        stats.min = Some(stats.min.map_or(least, |min| min.min(least)));
        stats.max = Some(stats.max.map_or(most, |max| max.max(most)));
        stats.amax = Some(stats.amax.map_or(high, |amax| amax.max(high)));
        if low != 0.0 {
            stats.amin = Some(stats.amin.map_or(low, |amin| amin.min(low)));
        }
    }
    for (n, value) in [(cell.n_at, base), (cell.n_above, base + cell.unit())] {
        if 0 < n && value != 0.0 {
            *exponents.entry(floor_log2(value)).or_default() += n;
        }
    }
}

/// The whole tensor, as targets are judged from it.
struct Whole<'a> {
    cells: &'a [Cell],
    /// With the rounded ones, for estimates.
    fine: Vec<Cell>,
    /// By how many significand bits, 23 and [`Whole::cells`] left out.
    coarse: BTreeMap<u32, Vec<Cell>>,
    /// [`Whole::fine`] by [`spread_bits`], unless all values of a cell are one.
    spread: BTreeMap<u32, Vec<Cell>>,
    is_points: bool,
    has_loose: bool,
    finite: u64,
    amax: f64,
    squares: f64,
}

impl<'a> Whole<'a> {
    fn new(
        tally: &Tally,
        cells: &'a [Cell],
        rounded: &[Cell],
        source: &SourceStats,
        is_points: bool,
    ) -> Whole<'a> {
        let fine = match rounded.is_empty() {
            true => Vec::new(),
            false => cells::merge(cells.to_vec(), rounded.to_vec()),
        };
        let grids = tally.judges.iter().filter_map(|judge| grid(judge, is_points));
        let by_element = tally.judges.iter().filter_map(Judge::by_element);
        let spread_grids = by_element.filter(|_| !is_points).map(spread_bits);
        Whole {
            coarse: cells::coarsen_all(cells, grids),
            spread: match rounded.is_empty() {
                true => cells::coarsen_all(cells, spread_grids),
                false => cells::coarsen_all(&fine, spread_grids),
            },
            cells,
            fine,
            is_points,
            has_loose: !rounded.is_empty(),
            finite: source.finite,
            amax: source.amax.unwrap_or(0.0),
            squares: source.sum_of_squares,
        }
    }

    fn target(&self, judge: &Judge, mut errors: Errors) -> TargetStats {
        let Some(quantizer) = judge.by_element() else {
            return errors.finish(self.finite, self.squares);
        };
        let exact = match judge {
            _ if self.is_points => Some(
                grid(judge, true)
                    .and_then(|bits| self.coarse.get(&bits))
                    .map_or(self.cells, |cells| cells),
            ),
            Judge::Binned(_, bits) => self.coarse.get(bits).map(Vec::as_slice),
            Judge::Held(_) | Judge::Direct(_) | Judge::Mx(_) => None,
        };
        match exact {
            Some(cells) => cells::judge(cells, quantizer, 0, &mut errors),
            None => self.not_binned(matches!(judge, Judge::Held(_)), quantizer, &mut errors),
        }
        let unscaled = errors.finish(self.finite, self.squares);
        let fine = if self.has_loose { &self.fine } else { self.cells };
        let bits = spread_bits(quantizer);
        let coarse = self.spread.get(&bits).filter(|_| !self.is_points);
        let tensor = Tensor {
            fine: coarse.map_or(fine, Vec::as_slice),
            exact: exact.filter(|_| !self.has_loose),
            amax: self.amax,
            squares: self.squares,
        };
        let estimate =
            |scaled: Scaled| Scaled { is_exact: scaled.is_exact && !self.has_loose, ..scaled };
        TargetStats {
            best_power: scale::best_power(tensor, quantizer, &unscaled).map(estimate),
            by_amax: scale::by_amax(tensor, quantizer).map(estimate),
            ..unscaled
        }
    }

    /// What direct conversion leaves to be counted from cells.
    fn not_binned(&self, is_held: bool, quantizer: &Quantizer, errors: &mut Errors) {
        for cell in self.cells {
            if cell.is_special() {
                errors.specials(quantizer, cell);
                continue;
            }
            let base = cell.base().abs();
            for (n, value) in [(cell.n_at, base), (cell.n_above, base + cell.unit())] {
                let is_subnormal = value != 0.0 && value < quantizer.min_normal;
                errors.subnormal += if is_held && is_subnormal { n } else { 0 };
            }
        }
    }
}

/// Within cells of so many bits values are taken to be spread evenly: an eighth of a step is fine
/// enough.
fn spread_bits(quantizer: &Quantizer) -> u32 {
    quantizer.grid_bits().map_or(FINE_BITS, |bits| (bits + 3).min(FINE_BITS))
}

/// How coarse the cells may be for a judge.
fn grid(judge: &Judge, is_points: bool) -> Option<u32> {
    match judge {
        Judge::Held(quantizer) if is_points => quantizer.grid_bits().filter(|bits| *bits < 23),
        Judge::Direct(direct) if is_points => {
            direct.quantizer.grid_bits().filter(|bits| *bits < 23)
        }
        Judge::Binned(_, bits) => Some(*bits),
        Judge::Held(_) | Judge::Direct(_) | Judge::Mx(_) => None,
    }
}

/// Which narrower formats are known to hold every element, infinities and NaN too.
fn exact_in(
    tally: &Tally,
    cells: &[Cell],
    is_points: bool,
    targets: &[TargetStats],
) -> Vec<Format> {
    if tally.elements == 0 || 0 < tally.loose.n {
        return Vec::new();
    }
    let between = cells.iter().any(|cell| 0 < cell.n_above && !cell.is_special());
    let by_trailing_bits = |format: Format| {
        let bits = match format {
            Format::BF16 => 16,
            Format::TF32 => 13,
            _ => return false,
        };
        !is_points && tally.source == Format::FP32 && bits <= tally.or.trailing_zeros()
    };
    let by_target = |format: Format| {
        let mut judged = tally.judges.iter().zip(targets);
        judged.any(|(judge, target)| match judge {
            Judge::Direct(direct) if direct.quantizer.format == format => {
                target.changed == 0 && target.lost_specials == 0
            }
            Judge::Direct(_) | Judge::Held(_) | Judge::Binned(..) | Judge::Mx(_) => false,
        })
    };
    let by_points = |format: Format| {
        let quantizer = Quantizer::new(format, Rules::IEEE).filter(|_| !between)?;
        Some(cells.iter().all(|cell| {
            if !cell.is_special() {
                return !quantizer.fate(cell.base()).is_changed;
            }
            let mut errors = Errors::new();
            errors.specials(&quantizer, cell);
            errors.lost_specials == 0
        }))
    };
    let is_narrower = |format: &&Format| {
        let is_same_kind = format.is_float() || !matches!(tally.source.layout, Layout::CodeBook(_));
        format.bits < tally.source.bits && is_same_kind
    };
    let holds = |format: &&Format| {
        **format == Format::FP32
            || by_trailing_bits(**format)
            || by_points(**format).unwrap_or(false)
            || by_target(**format)
    };
    NARROWER.iter().filter(is_narrower).filter(holds).copied().collect()
}
