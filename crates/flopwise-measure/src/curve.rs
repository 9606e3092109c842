//! The sizes of caches, read off a curve of rates over sizes.
//!
//! Not here: measuring the curve. What an operating system says of a cache is what a hypervisor
//! told it; a walk over more bytes than a cache holds is slower, whatever anybody says.

use flopwise::machine::{Cache, MemoryLevel};

/// A rate belongs to a plateau down to this share of it: steps between levels are larger, since a
/// level that is hardly slower than the one before would not be built.
const SAME_PLATEAU: f64 = 0.85;
/// Between two plateaus the rate falls from point to point by at least this share; a fall slower
/// than that is a slope of one plateau, as that of main memory under small pages.
const STILL_FALLING: f64 = 0.90;
/// A plateau has at least so many points; one alone is a point of a step.
const MIN_POINTS: usize = 2;
/// A measured size is that of a listed cache if neither is more than so many times the other.
const SAME_CACHE: f64 = 1.6;
/// The smallest size of a curve.
const SMALLEST_BYTES: u64 = 4 << 10;

/// One level of memory on a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveLevel {
    /// The largest size that is still as fast; of the last level only the largest size tried.
    pub largest_bytes: u64,
    /// The median of its rates, in the unit of the curve.
    pub rate: f64,
}

/// Sizes for a curve: from 4 KiB on, eight to each doubling, up to `largest_bytes`.
///
/// ```
/// let sizes = flopwise_measure::curve_sizes(16 << 10);
/// assert_eq!(sizes.len(), 17);
/// assert_eq!((sizes[0], sizes[1], sizes[8]), (4096, 4608, 8192));
/// ```
#[must_use]
pub fn curve_sizes(largest_bytes: u64) -> Vec<u64> {
    let doublings = std::iter::successors(Some(SMALLEST_BYTES), |&bytes| bytes.checked_mul(2));
    let sizes = doublings.flat_map(|bytes| (0..8).map(move |part| bytes + bytes / 8 * part));
    sizes.take_while(|&bytes| bytes <= largest_bytes).collect()
}

/// The levels of memory on a curve of `(bytes, rate)`, the fastest first: loads per second of a
/// walk, or bytes per second of a stream, over arrays of so many bytes.
///
/// Each but the last is a cache, and its `largest_bytes` is the largest size before the rate
/// falls. Sizes need not be in order; those that could not be measured are left out.
///
/// ```
/// use flopwise_measure::levels_of_curve;
/// let curve = [(8, 4.0), (16, 4.0), (32, 4.0), (64, 1.0), (128, 1.0)].map(|(kib, rate)| (kib << 10, rate));
/// let levels = levels_of_curve(&curve);
/// assert_eq!(levels.len(), 2);
/// assert_eq!(levels[0].largest_bytes, 32 << 10);
/// ```
#[must_use]
pub fn levels_of_curve(points: &[(u64, f64)]) -> Vec<CurveLevel> {
    let mut curve: Vec<(u64, f64)> =
        points.iter().copied().filter(|&(_, rate)| 0.0 < rate && rate.is_finite()).collect();
    curve.sort_by_key(|&(bytes, _)| bytes);
    let mut plateaus: Vec<&[(u64, f64)]> = Vec::new();
    let mut rest = &curve[..];
    while let Some((plateau, after)) = next_plateau(rest) {
        plateaus.push(plateau);
        rest = after;
    }
    let mut levels: Vec<CurveLevel> = Vec::new();
    for plateau in plateaus {
        let level =
            CurveLevel { largest_bytes: plateau[plateau.len() - 1].0, rate: median(plateau) };
        match levels.last_mut() {
            // A dent in a plateau, or a step that was noise.
            Some(before) if SAME_PLATEAU * before.rate <= level.rate => {
                before.largest_bytes = level.largest_bytes;
            }
            Some(_) | None => levels.push(level),
        }
    }
    levels
}

/// The next plateau and what comes after it; `None` if nothing is level any more.
fn next_plateau(curve: &[(u64, f64)]) -> Option<(&[(u64, f64)], &[(u64, f64)])> {
    let is_level = |pair: &[(u64, f64)]| STILL_FALLING * pair[0].1 <= pair[1].1;
    let first = curve.windows(MIN_POINTS).position(is_level)?;
    let curve = &curve[first..];
    let mut n_points = MIN_POINTS;
    // One point below may be a neighbour's doing; the step is where the next one is below too.
    let belongs = |n_points: usize| {
        let floor = SAME_PLATEAU * median(&curve[..n_points]);
        curve[n_points..].iter().take(2).any(|&(_, rate)| floor <= rate)
    };
    while n_points < curve.len() && belongs(n_points) {
        n_points += 1;
    }
    let floor = SAME_PLATEAU * median(&curve[..n_points]);
    // The end of the plateau is a point of it.
    while MIN_POINTS < n_points && curve[n_points - 1].1 < floor {
        n_points -= 1;
    }
    Some(curve.split_at(n_points))
}

fn median(points: &[(u64, f64)]) -> f64 {
    let mut rates: Vec<f64> = points.iter().map(|&(_, rate)| rate).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Writes measured sizes beside those that the system tells. A cache that it does not tell is
/// listed in its turn, if the curve has at most three.
pub fn note_measured_sizes(caches: &mut Vec<Cache>, levels: &[CurveLevel]) {
    let [measured @ .., _main_memory] = levels else { return };
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
        let Some(os_bytes) = cache.os_bytes else { continue };
        let apart = |found: &&CurveLevel| {
            let ratio = found.largest_bytes as f64 / os_bytes as f64;
            ratio.max(ratio.recip())
        };
        let nearest = measured.iter().min_by(|a, b| apart(a).total_cmp(&apart(b)));
        let same = nearest.filter(|found| apart(found) <= SAME_CACHE);
        cache.measured_bytes = same.map(|found| found.largest_bytes);
    }
}
