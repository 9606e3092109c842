//! The sizes of caches, read off a curve of rates over sizes.
//!
//! Not here: measuring the curve. What an operating system says of a cache is what a hypervisor
//! told it; a walk over more bytes than a cache holds is slower, whatever anybody says.

use flopwise::machine::{Cache, MemoryLevel};

/// A plateau falls by at most this share from its first point to its last.
const LEVEL: f64 = 0.85;
/// The last size of a plateau is at least so many times the first; a shorter one is part of a step.
const WIDTH: f64 = 1.4;
/// Where one plateau begins less than so many times slower than the one before ends, they are one
/// that slopes, as page tables make main memory slope.
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
/// left out. Rates are best those of the fastest tenth of slices from several moments: neighbours
/// on a shared cache make it look smaller.
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
            Some(before) if curve[before.end - 1].1 < APART * curve[plateau.start].1 => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use MemoryLevel::{L1, L2, L3};

    /// Cycles of a dependent load over so many KiB on a Zen 3 core, the fastest tenth of 27 slices
    /// in three rounds: 32 KiB, 512 KiB and what others left of 32 MiB.
    const REAL: [(u64, f64); 61] = [
        (4, 3.99),
        (5, 3.89),
        (6, 4.0),
        (7, 3.65),
        (8, 3.52),
        (10, 3.86),
        (12, 3.62),
        (14, 3.97),
        (16, 3.93),
        (20, 3.74),
        (24, 4.0),
        (28, 4.0),
        (32, 4.02),
        (40, 9.9),
        (48, 11.62),
        (56, 11.4),
        (64, 10.86),
        (80, 11.74),
        (96, 11.94),
        (112, 12.03),
        (128, 11.95),
        (160, 12.04),
        (192, 12.04),
        (224, 11.82),
        (256, 12.05),
        (320, 13.82),
        (384, 16.62),
        (448, 19.13),
        (512, 22.38),
        (640, 30.37),
        (768, 37.87),
        (896, 42.2),
        (1024, 43.88),
        (1280, 45.44),
        (1536, 47.12),
        (1792, 45.43),
        (2048, 48.91),
        (2560, 51.67),
        (3072, 49.22),
        (3584, 52.02),
        (4096, 53.21),
        (5120, 55.27),
        (6144, 53.98),
        (7168, 51.78),
        (8192, 80.83),
        (10240, 114.38),
        (12288, 283.2),
        (14336, 267.83),
        (16384, 319.48),
        (20480, 377.78),
        (24576, 379.17),
        (28672, 399.57),
        (32768, 405.75),
        (40960, 421.02),
        (49152, 418.96),
        (57344, 410.03),
        (65536, 377.31),
        (81920, 419.5),
        (98304, 435.05),
        (114688, 423.09),
        (131072, 435.64),
    ];

    /// As above, medians of 21 slices in one round, while neighbours came and went.
    const NOISY: [(u64, f64); 59] = [
        (4, 4.11),
        (6, 4.09),
        (8, 4.03),
        (10, 4.0),
        (12, 4.11),
        (14, 4.14),
        (16, 4.13),
        (20, 4.07),
        (24, 4.0),
        (28, 4.13),
        (32, 4.14),
        (40, 10.39),
        (48, 11.66),
        (56, 12.03),
        (64, 12.04),
        (80, 12.03),
        (96, 12.03),
        (112, 12.07),
        (128, 12.07),
        (160, 14.82),
        (192, 12.14),
        (224, 12.05),
        (256, 12.55),
        (320, 13.74),
        (384, 16.3),
        (448, 17.63),
        (512, 23.45),
        (640, 34.8),
        (768, 41.76),
        (896, 45.62),
        (1024, 44.62),
        (1280, 48.85),
        (1536, 51.43),
        (1792, 51.46),
        (2048, 51.69),
        (2560, 52.83),
        (3072, 73.29),
        (3584, 276.96),
        (4096, 61.75),
        (5120, 90.1),
        (6144, 114.81),
        (7168, 286.36),
        (8192, 350.63),
        (10240, 357.78),
        (12288, 375.06),
        (14336, 364.05),
        (16384, 364.39),
        (20480, 389.47),
        (24576, 388.3),
        (28672, 435.55),
        (32768, 414.09),
        (40960, 396.3),
        (49152, 405.28),
        (57344, 428.46),
        (65536, 426.18),
        (81920, 443.97),
        (98304, 429.94),
        (114688, 470.26),
        (131072, 459.4),
    ];

    fn curve_of(cycles: &[(u64, f64)]) -> Vec<(u64, f64)> {
        cycles.iter().map(|&(kib, cycles)| (kib << 10, cycles.recip())).collect()
    }

    #[track_caller]
    fn check(points: &[(u64, f64)], expected_kib: &[u64]) -> Vec<CurveLevel> {
        let levels = levels_of_curve(points);
        let found: Vec<u64> = levels.iter().map(|level| level.largest_bytes >> 10).collect();
        assert_eq!(found, expected_kib, "{levels:?}");
        levels
    }

    /// Rates of steps at the given KiB, as if each level forgot all of a walk that it cannot hold.
    fn steps(steps: &[(u64, f64)], beyond: f64) -> Vec<(u64, f64)> {
        let rate = |bytes: u64| {
            let level = steps.iter().find(|&&(kib, _)| bytes <= kib << 10);
            level.map_or(beyond, |&(_, rate)| rate)
        };
        curve_sizes(256 << 20).into_iter().map(|bytes| (bytes, rate(bytes))).collect()
    }

    #[test]
    fn sharp_steps_are_found_where_they_are() {
        let levels = check(
            &steps(&[(32, 0.25), (1024, 0.07), (32 << 10, 0.02)], 0.0025),
            &[32, 1024, 32 << 10, 256 << 10],
        );
        let rates: Vec<f64> = levels.iter().map(|level| level.rate).collect();
        assert_eq!(rates, [0.25, 0.07, 0.02, 0.0025]);
        check(&steps(&[(128, 0.33), (12 << 10, 0.06)], 0.01), &[128, 12 << 10, 256 << 10]);
        check(&steps(&[(48, 0.2)], 0.01), &[48, 256 << 10]);
        check(&steps(&[], 0.01), &[256 << 10]);
        // Bytes per second: half at the second level, two thirds of that at the third.
        check(
            &steps(&[(32, 220.0), (512, 118.0), (8192, 80.0)], 30.0),
            &[32, 512, 8192, 256 << 10],
        );
    }

    #[test]
    fn sizes_between_the_grid_are_rounded_down() {
        check(&steps(&[(36, 0.25), (1200, 0.07)], 0.0025), &[32, 1024, 256 << 10]);
    }

    #[test]
    fn a_slope_of_main_memory_is_one_level() {
        let slope = |bytes: u64| match bytes {
            ..=32_768 => 4.0,
            _ => 300.0 + 30.0 * (bytes as f64 / 32_768.0).log2(),
        };
        let sizes = curve_sizes(256 << 20).into_iter();
        let points: Vec<_> = sizes.map(|bytes| (bytes, 1.0 / slope(bytes))).collect();
        check(&points, &[32, 256 << 10]);
    }

    #[test]
    fn what_a_neighbour_slowed_is_left_out() {
        let mut points = steps(&[(32, 0.25), (1024, 0.07), (32 << 10, 0.02)], 0.0025);
        for point_idx in [2, 9, 20, 21, 40, 50] {
            points[point_idx].1 /= 5.0;
        }
        points.reverse();
        points.extend([(1 << 16, f64::NAN), (1 << 17, 0.0), (0, 1.0)]);
        check(&points, &[32, 1024, 32 << 10, 256 << 10]);
    }

    #[test]
    fn a_real_machine_has_its_levels() {
        let levels = check(&curve_of(&REAL), &[32, 512, 10 << 10, 128 << 10]);
        let cycles: Vec<f64> = levels.iter().map(|level| level.rate.recip().round()).collect();
        assert_eq!(cycles, [4.0, 12.0, 49.0, 377.0]);
        check(&curve_of(&NOISY), &[32, 512, 6144, 128 << 10]);
    }

    #[test]
    fn too_few_points_are_no_levels() {
        assert_eq!(levels_of_curve(&[]), []);
        assert_eq!(levels_of_curve(&[(4096, 1.0)]), []);
        assert_eq!(levels_of_curve(&[(4096, 1.0), (5120, 0.5)]), []);
        assert_eq!(levels_of_curve(&[(u64::MAX, 1.0), (u64::MAX, 0.1)]), []);
    }

    #[test]
    fn measured_sizes_stand_beside_those_of_the_system() {
        let cache = |level, kib: u64| Cache {
            level,
            os_bytes: Some(kib << 10),
            measured_bytes: None,
            shared_by: Some(1),
        };
        let levels = |sizes: &[u64]| -> Vec<CurveLevel> {
            let level = |&kib: &u64| CurveLevel { largest_bytes: kib << 10, rate: 1.0 };
            sizes.iter().map(level).collect()
        };
        let check = |listed: &[(MemoryLevel, u64)], curve: &[u64], expected: &[Option<u64>]| {
            let mut caches: Vec<Cache> =
                listed.iter().map(|&(level, kib)| cache(level, kib)).collect();
            note_measured_sizes(&mut caches, &levels(curve));
            let measured = caches.iter().map(|cache| Some(cache.measured_bytes? >> 10));
            assert_eq!(measured.collect::<Vec<_>>(), expected, "{listed:?} {curve:?}");
        };
        let three = [(L1, 32), (L2, 512), (L3, 32 << 10)];
        check(&three, &[32, 448, 6144, 65_536], &[Some(32), Some(448), Some(6144)]);
        check(&three, &[32, 448, 65_536], &[Some(32), Some(448), None]);
        check(&three, &[], &[None, None, None]);
        let two_kinds = [(L1, 128), (L1, 64), (L2, 4096)];
        check(&two_kinds, &[128, 4096, 65_536], &[Some(128), Some(128), Some(4096)]);
        check(&[], &[64, 1024, 65_536], &[Some(64), Some(1024)]);
        check(&[], &[64], &[]);
    }
}
