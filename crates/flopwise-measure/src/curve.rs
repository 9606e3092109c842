//! The sizes of caches, read off a curve of rates over sizes.
//!
//! Not here: measuring the curve. What an operating system says of a cache is what a hypervisor
//! told it; a walk over more bytes than a cache holds is slower, whatever anybody says.

use flopwise::machine::{Cache, MemoryLevel};

/// A plateau falls by at most this share from its first point to its last.
const LEVEL: f64 = 0.85;
/// The last size of a plateau is at least so many times the first; a shorter one is part of a step.
const WIDTH: f64 = 1.4;
/// Plateaus nearer to each other than this are one: a level that is hardly slower than the one
/// before would not be built, while page tables and slow rows make main memory slope.
const APART: f64 = 1.35;
/// A measured size is that of a listed cache if neither is more than so many times the other.
const SAME_CACHE: f64 = 1.6;
/// The smallest size of a curve.
const SMALLEST_BYTES: u64 = 4 << 10;
/// Sizes to each doubling.
const PER_DOUBLING: u64 = 4;

/// One level of memory on a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveLevel {
    /// The largest size whose rate is nearer to this level's than to the next one's; of the last
    /// level the largest size tried.
    pub largest_bytes: u64,
    /// The median of its rates, in the unit of the curve.
    pub rate: f64,
}

/// Sizes for a curve: from 4 KiB on, four to each doubling, up to `largest_bytes`.
///
/// ```
/// let sizes = flopwise_measure::curve_sizes(16 << 10);
/// assert_eq!(sizes, [4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336, 16384]);
/// ```
#[must_use]
pub fn curve_sizes(largest_bytes: u64) -> Vec<u64> {
    let doublings = std::iter::successors(Some(SMALLEST_BYTES), |&bytes| bytes.checked_mul(2));
    let parts = |bytes| (0..PER_DOUBLING).map(move |part| bytes + bytes / PER_DOUBLING * part);
    doublings.flat_map(parts).take_while(|&bytes| bytes <= largest_bytes).collect()
}

/// The levels of memory on a curve of `(bytes, rate)`, the fastest first: loads per second or per
/// cycle of a walk over so many bytes. Streams will do, but in some machines they hardly step from
/// the second level to the third.
///
/// Each but the last is a cache. Sizes need not be in order; those that could not be measured are
/// left out.
///
/// ```
/// use flopwise_measure::levels_of_curve;
/// let curve = [(8, 4.0), (16, 4.0), (32, 4.0), (64, 1.0), (128, 1.0)];
/// let levels = levels_of_curve(&curve.map(|(kib, rate)| (kib << 10, rate)));
/// assert_eq!(levels.len(), 2);
/// assert_eq!(levels[0].largest_bytes, 32 << 10);
/// ```
#[must_use]
pub fn levels_of_curve(points: &[(u64, f64)]) -> Vec<CurveLevel> {
    let curve = falling(points);
    let mut plateaus: Vec<std::ops::Range<usize>> = Vec::new();
    let mut first = 0;
    while let Some(plateau) = next_plateau(&curve, first) {
        first = plateau.end;
        match plateaus.last_mut() {
            Some(before)
                if median(&curve[before.clone()]) < APART * median(&curve[plateau.clone()]) =>
            {
                before.end = plateau.end;
            }
            Some(_) | None => plateaus.push(plateau),
        }
    }
    let rates: Vec<f64> = plateaus.iter().map(|plateau| median(&curve[plateau.clone()])).collect();
    let mut levels = Vec::new();
    for (level_idx, &rate) in rates.iter().enumerate() {
        let still = rates.get(level_idx + 1).map_or(0.0, |next| (rate * next).sqrt());
        let mut fast = curve.iter().rev().filter(|&&(_, rate)| still <= rate);
        let largest = fast.next().expect("a plateau has a point");
        levels.push(CurveLevel { largest_bytes: largest.0, rate });
    }
    levels
}

/// The curve in order of size, without what neighbours did to it: they only ever make a point
/// slower, and fewer bytes are never slower, so each rate is at least that of every larger size.
fn falling(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let is_measured = |&&(bytes, rate): &&(u64, f64)| 0 < bytes && 0.0 < rate && rate.is_finite();
    let mut curve: Vec<(u64, f64)> = points.iter().filter(is_measured).copied().collect();
    curve.sort_by_key(|&(bytes, _)| bytes);
    let mut fastest = 0.0;
    for (_, rate) in curve.iter_mut().rev() {
        fastest = rate.max(fastest);
        *rate = fastest;
    }
    curve
}

/// The next plateau from `first` on: points from the earliest on that has enough about as fast.
fn next_plateau(curve: &[(u64, f64)], first: usize) -> Option<std::ops::Range<usize>> {
    (first..curve.len()).find_map(|first| {
        let (bytes, rate) = curve[first];
        let end = first + curve[first..].partition_point(|point| LEVEL * rate <= point.1);
        (WIDTH * bytes as f64 <= curve[end - 1].0 as f64).then_some(first..end)
    })
}

/// Of points that fall, the one in the middle.
fn median(points: &[(u64, f64)]) -> f64 {
    points[points.len() / 2].1
}

/// Writes measured sizes beside those that the system tells.
///
/// If there are as many caches on the curve as levels in the list, each is the one at its place,
/// however small others leave it; if not, the one of about its size. A list without caches gets
/// those of the curve, if they are at most three.
pub fn note_measured_sizes(caches: &mut Vec<Cache>, levels: &[CurveLevel]) {
    let [measured @ .., _main_memory] = levels else { return };
    let mut listed: Vec<MemoryLevel> = caches.iter().map(|cache| cache.level).collect();
    listed.dedup();
    if caches.is_empty() && measured.len() <= 3 {
        let names = [MemoryLevel::L1, MemoryLevel::L2, MemoryLevel::L3];
        caches.extend(names.into_iter().zip(measured).map(|(level, found)| Cache {
            level,
            os_bytes: None,
            measured_bytes: Some(found.largest_bytes),
            shared_by: None,
        }));
        return;
    }
    for cache in caches {
        let at_its_place = listed
            .iter()
            .position(|&level| level == cache.level)
            .filter(|_| listed.len() == measured.len())
            .map(|level_idx| measured[level_idx]);
        let found = at_its_place.or_else(|| nearest(measured, cache.os_bytes?));
        cache.measured_bytes = found.map(|found| found.largest_bytes);
    }
}

/// The level of about so many bytes.
fn nearest(measured: &[CurveLevel], os_bytes: u64) -> Option<CurveLevel> {
    let apart = |found: &CurveLevel| {
        let ratio = found.largest_bytes as f64 / os_bytes as f64;
        ratio.max(ratio.recip())
    };
    let nearest = measured.iter().copied().min_by(|a, b| apart(a).total_cmp(&apart(b)));
    nearest.filter(|found| apart(found) <= SAME_CACHE)
}
