//! The roofline of a machine for all its formats and levels of memory, as data for the drawing and
//! for JSON: Williams, Waterman, Patterson 2009, "Roofline".
//!
//! Not here: the drawing (`machine_svg.rs`), and the operators of a model.

use crate::machine::{MemoryLevel, Profile, moved_bytes};
use flopwise_formats::parse;
use serde::Serialize;

/// Roofs, slopes, where they meet, and the matrix products measured under them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// The instruction peak of each format at the most threads.
    pub roofs: Vec<Roof>,
    /// Read bandwidth of each level at the most threads, the fastest level first.
    pub slopes: Vec<Slope>,
    /// The operations per byte at which each roof meets each slope.
    pub ridges: Vec<RidgePoint>,
    /// The fastest product of each format and shape at the most threads.
    pub gemms: Vec<RooflineGemm>,
}

/// A flat roof.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roof {
    /// Number format by catalogue name.
    pub format: String,
    /// Threads.
    pub threads: u32,
    /// Operations per second, two a multiply-add.
    pub ops_per_s: f64,
}

/// A sloped roof.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// Where the bytes come from.
    pub level: MemoryLevel,
    /// Threads.
    pub threads: u32,
    /// Bytes per second.
    pub bytes_per_s: f64,
}

/// Where a roof meets a slope.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RidgePoint {
    /// Number format by catalogue name.
    pub format: String,
    /// Where the bytes come from.
    pub level: MemoryLevel,
    /// Operations per byte.
    pub ops_per_byte: f64,
}

/// A measured product.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RooflineGemm {
    /// Number format by catalogue name.
    pub format: String,
    /// `[m, n, k]`.
    pub shape: [u64; 3],
    /// The fastest library.
    pub backend: String,
    /// Threads.
    pub threads: u32,
    /// Operations per byte, each operand read once and the result written once.
    pub ops_per_byte: f64,
    /// Operations per second.
    pub ops_per_s: f64,
}

/// The roofline of a profile; what was not measured is not in it.
///
/// ```
/// use flopwise::machine::{MemoryLevel, Profile};
/// use flopwise::report::roofline;
/// fn fp32_ridge(profile: &Profile) -> Option<f64> {
///     let ridges = roofline(profile).ridges;
///     let found = ridges.iter().find(|ridge| ridge.format == "fp32" && ridge.level == MemoryLevel::Dram);
///     found.map(|ridge| ridge.ops_per_byte)
/// }
/// ```
#[must_use]
pub fn roofline(profile: &Profile) -> Roofline {
    let mut drawn =
        Roofline { roofs: Vec::new(), slopes: Vec::new(), ridges: Vec::new(), gemms: Vec::new() };
    for format in profile.formats() {
        let peak = profile.compute_rate(format, crate::machine::ComputeKind::Peak);
        drawn.roofs.extend(peak.map(|rate| Roof {
            format: format.to_owned(),
            threads: rate.threads,
            ops_per_s: rate.flops_per_s.median,
        }));
        drawn.gemms.extend(gemms(profile, format));
    }
    for level in MemoryLevel::ALL {
        drawn.slopes.extend(profile.read_rate(level).map(|rate| Slope {
            level,
            threads: rate.threads,
            bytes_per_s: rate.bytes_per_s.median,
        }));
    }
    drawn.ridges.extend(profile.ridge_points().into_iter().map(|ridge| RidgePoint {
        format: ridge.format,
        level: ridge.level,
        ops_per_byte: ridge.intensity.0,
    }));
    drawn
}

fn gemms(profile: &Profile, format: &str) -> Vec<RooflineGemm> {
    let Ok(known) = parse(format) else { return Vec::new() };
    let factor_bytes = u64::from(known.bits).div_ceil(8);
    let best = profile.best_gemms(format);
    let most = best.iter().map(|rate| rate.threads).max();
    let widest = best.into_iter().filter(|rate| Some(rate.threads) == most);
    let points = widest.filter_map(|rate| {
        let shape = rate.shape?;
        let work = 2.0 * shape.map(|length| length as f64).iter().product::<f64>();
        Some(RooflineGemm {
            format: format.to_owned(),
            shape,
            backend: rate.backend.clone(),
            threads: rate.threads,
            ops_per_byte: work / moved_bytes(shape, factor_bytes, factor_bytes.max(4)),
            ops_per_s: rate.flops_per_s.median,
        })
    });
    points.collect()
}
