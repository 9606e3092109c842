//! Which part of its roofline a matrix product reaches, by its shape: interpolated between the
//! products that were measured.
//!
//! A part of the roofline changes little from shape to shape where a time changes a millionfold, so
//! that few points are enough. Products under the flat roof tell how well arithmetic is used, those
//! under the slope how well memory is. Not here: which shapes a node has (`shape.rs`).

use super::roofline::Bound;
use crate::machine::{self, Profile};
use crate::units::{BytesPerSec, FlopsPerSec};
use flopwise_formats::Format;

/// How fast the influence of a point falls with its distance: more than the number of axes, or
/// many points far away would outweigh the near one (Shepard 1968).
const FALL: i32 = 4;

/// One shape that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct UtilisationPoint {
    /// `[m, n, k]`.
    pub shape: [u64; 3],
    /// The fastest library at this shape.
    pub backend: String,
    /// What it reached.
    pub rate: FlopsPerSec,
    /// That over min(peak, intensity x bandwidth of main memory), at most 1.
    pub share: f64,
    /// Which of the two is the lower.
    pub bound: Bound,
}

/// Which part of the roofline products of one format reach on one number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Utilisation {
    /// Threads of the products.
    pub threads: u32,
    /// Two or more, by shape.
    pub points: Vec<UtilisationPoint>,
}

/// An answer of [`Utilisation::at`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Of the peak, where arithmetic is what the product waits for; 1 if no such product was
    /// measured.
    pub compute: f64,
    /// Of the bandwidth of main memory, where that is; 1 if no such product was measured.
    pub memory: f64,
    /// Whether the shape lies between those measured; if not, the nearest shape that does was
    /// taken.
    pub is_inside: bool,
}

impl Utilisation {
    /// The products of a profile in `format` at the most threads they were measured on, the
    /// fastest library at each shape; `None` with fewer than two shapes, or without a roofline.
    #[must_use]
    pub fn of(profile: &Profile, format: Format) -> Option<Utilisation> {
        let gemms = profile.best_gemms(format.name);
        let threads = gemms.iter().map(|rate| rate.threads).max()?;
        let peak = profile.peak_at(format.name, threads);
        let peak =
            peak.map(|rate| rate.flops_per_s.median).or(profile.peak(format.name).map(|p| p.0))?;
        let bandwidth = profile.dram_read_at(threads).map(|rate| rate.bytes_per_s.median);
        let bandwidth = BytesPerSec(bandwidth.or(profile.dram_read().map(|read| read.0))?);
        let same_threads = gemms.into_iter().filter(|rate| rate.threads == threads);
        let points = same_threads.filter_map(|rate| {
            let shape = rate.shape?;
            let reached = rate.flops_per_s.median;
            let roof = roof(shape, format, FlopsPerSec(peak), bandwidth);
            let bound = if roof.0 < peak { Bound::Memory } else { Bound::Compute };
            Some(UtilisationPoint {
                shape,
                backend: rate.backend.clone(),
                rate: FlopsPerSec(reached),
                // A product in a cache may be faster than main memory; a model's comes from there.
                share: (reached / roof.0).min(1.0),
                bound,
            })
        });
        let mut points: Vec<UtilisationPoint> = points.collect();
        points.sort_by_key(|point| point.shape);
        (1 < points.len()).then_some(Utilisation { threads, points })
    }

    /// The shares at `shape`.
    #[must_use]
    pub fn at(&self, shape: [u64; 3]) -> Shares {
        let mut axes = self.range().into_iter().zip(shape);
        Shares {
            compute: self.share(shape, Bound::Compute),
            memory: self.share(shape, Bound::Memory),
            is_inside: axes.all(|((low, high), length)| (low..=high).contains(&length)),
        }
    }

    /// The mean of all points under one roof, each weighed by its distance^-4 in the logarithms of
    /// m, n and k. Beyond their range its nearest shape is taken.
    fn share(&self, shape: [u64; 3], bound: Bound) -> f64 {
        let points: Vec<&UtilisationPoint> =
            self.points.iter().filter(|point| point.bound == bound).collect();
        let range = range(&points);
        let place = [0, 1, 2].map(|axis| {
            let (low, high) = range[axis];
            (shape[axis].clamp(low, high) as f64).log2()
        });
        let (mut sum, mut weights) = (0.0, 0.0);
        for point in points {
            let axes = point.shape.iter().zip(place);
            let squared: f64 =
                axes.map(|(at, wanted)| ((*at as f64).log2() - wanted).powi(2)).sum();
            if squared < 1e-12 {
                return point.share;
            }
            let weight = squared.sqrt().powi(-FALL);
            (sum, weights) = (sum + weight * point.share, weights + weight);
        }
        if 0.0 < weights { sum / weights } else { 1.0 }
    }

    /// Whether products were measured that wait for this.
    #[must_use]
    pub fn has(&self, bound: Bound) -> bool {
        self.points.iter().any(|point| point.bound == bound)
    }

    /// The smallest and largest m, n and k measured.
    #[must_use]
    pub fn range(&self) -> [(u64, u64); 3] {
        range(&self.points.iter().collect::<Vec<&UtilisationPoint>>())
    }

    /// The libraries that are fastest somewhere, each once.
    #[must_use]
    pub fn backends(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.points.iter().map(|point| point.backend.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn range(points: &[&UtilisationPoint]) -> [(u64, u64); 3] {
    [0, 1, 2].map(|axis| {
        let lengths = points.iter().map(|point| point.shape[axis]);
        let (low, high) =
            lengths.fold((u64::MAX, 1), |(low, high), length| (low.min(length), high.max(length)));
        (low.min(high), high)
    })
}

/// min(peak, intensity x bandwidth) of a product whose operands are read and written once.
pub(crate) fn roof(
    shape: [u64; 3],
    format: Format,
    peak: FlopsPerSec,
    bandwidth: BytesPerSec,
) -> FlopsPerSec {
    let factor_bytes = u64::from(format.bits).div_ceil(8);
    // What sums are kept in: FP32 or INT32 for everything narrower than FP64.
    let sum_bytes = factor_bytes.max(4);
    machine::roof(shape, [factor_bytes, sum_bytes], peak, bandwidth)
}
