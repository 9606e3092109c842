//! What is asked of a profile: the peak of a format, the best product of a shape, the bandwidth of a
//! level, and where they meet.
//!
//! Not here: what a profile holds (`profile.rs`), and what a model makes of it (`estimate`).

use super::{
    CacheState, ComputeKind, ComputeRate, Latency, MemoryLevel, MemoryOp, MemoryRate, Profile,
    Stores,
};
use crate::units::{BytesPerSec, FlopsPerByte, FlopsPerSec};

/// Where a compute roof meets the slope of a memory level.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    /// Number format by catalogue name.
    pub format: String,
    /// Where the bytes come from.
    pub level: MemoryLevel,
    /// Below it a kernel waits for that level.
    pub intensity: FlopsPerByte,
}

/// The bytes that a product of `[m, n, k]` must move when each factor is read once and each sum
/// written once: `(m k + k n) factor_bytes + m n sum_bytes`.
///
/// ```
/// assert_eq!(flopwise::machine::moved_bytes([2, 3, 4], 2, 4), 64.0); // (8 + 12) 2 + 6 4
/// ```
#[must_use]
pub fn moved_bytes([m, n, k]: [u64; 3], factor_bytes: u64, sum_bytes: u64) -> f64 {
    let [m, n, k] = [m, n, k].map(|length| length as f64);
    (m * k + k * n) * factor_bytes as f64 + m * n * sum_bytes as f64
}

/// min(peak, intensity x bandwidth) of a product `[m, n, k]` whose operands are moved once (Williams,
/// Waterman, Patterson 2009, "Roofline").
///
/// ```
/// use flopwise::units::{BytesPerSec, FlopsPerSec};
/// // 2 x 2 x 3 x 4 operations over 64 bytes.
/// let peak = FlopsPerSec(9.0);
/// let roof = |read| flopwise::machine::roof([2, 3, 4], [2, 4], peak, BytesPerSec(read));
/// assert_eq!((roof(4.0).0, roof(64.0).0), (3.0, 9.0));
/// ```
#[must_use]
pub fn roof(
    shape: [u64; 3],
    [factor_bytes, sum_bytes]: [u64; 2],
    peak: FlopsPerSec,
    bandwidth: BytesPerSec,
) -> FlopsPerSec {
    let flops = 2.0 * shape.map(|length| length as f64).iter().product::<f64>();
    let by_memory = flops / moved_bytes(shape, factor_bytes, sum_bytes) * bandwidth.0;
    FlopsPerSec(peak.0.min(by_memory))
}

impl Profile {
    /// The median rate of `kind` in `format` at the most threads measured.
    #[must_use]
    pub fn compute_rate(&self, format: &str, kind: ComputeKind) -> Option<&ComputeRate> {
        let matching =
            self.compute.iter().filter(|rate| rate.format == format && rate.kind == kind);
        matching.max_by(|a, b| {
            let by_threads = a.threads.cmp(&b.threads);
            by_threads.then(a.flops_per_s.median.total_cmp(&b.flops_per_s.median))
        })
    }

    /// The instruction peak in `format` on so many threads.
    #[must_use]
    pub fn peak_at(&self, format: &str, threads: u32) -> Option<&ComputeRate> {
        let peaks = self.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak);
        let matching = peaks.filter(|rate| rate.format == format && rate.threads == threads);
        matching.max_by(|a, b| a.flops_per_s.median.total_cmp(&b.flops_per_s.median))
    }

    /// The formats that have a peak, in the order of the profile.
    #[must_use]
    pub fn formats(&self) -> Vec<&str> {
        let mut formats: Vec<&str> = Vec::new();
        for rate in self.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak) {
            if !formats.contains(&rate.format.as_str()) {
                formats.push(&rate.format);
            }
        }
        formats
    }

    /// Matrix products in `format` as a model's are: rows without gaps, operands where the product
    /// before left them. Each shape and thread count once: the fastest library's.
    #[must_use]
    pub fn best_gemms(&self, format: &str) -> Vec<&ComputeRate> {
        let mut best: Vec<&ComputeRate> = Vec::new();
        let gemms = self.compute.iter().filter(|rate| rate.kind == ComputeKind::Gemm);
        let ordinary = gemms.filter(|rate| {
            rate.shape.is_some()
                && rate.cache != Some(CacheState::Cold)
                && rate.padding.unwrap_or(0) == 0
        });
        for rate in ordinary.filter(|rate| rate.format == format) {
            let is_same = |other: &&mut &ComputeRate| {
                (other.shape, other.threads) == (rate.shape, rate.threads)
            };
            match best.iter_mut().find(is_same) {
                Some(other) if other.flops_per_s.median < rate.flops_per_s.median => *other = rate,
                Some(_) => {}
                None => best.push(rate),
            }
        }
        best
    }

    /// The fastest product of this format and shape at the most threads that it was measured on.
    #[must_use]
    pub fn best_gemm(&self, format: &str, shape: [u64; 3]) -> Option<&ComputeRate> {
        let gemms = self.best_gemms(format).into_iter();
        gemms.filter(|rate| rate.shape == Some(shape)).max_by_key(|rate| rate.threads)
    }

    /// The bandwidth of a level at the most threads measured; of several sizes the largest arrays,
    /// of which a nearer level holds the least.
    #[must_use]
    pub fn memory_rate(
        &self,
        level: MemoryLevel,
        op: MemoryOp,
        stores: Stores,
    ) -> Option<&MemoryRate> {
        let matching = self.memory.iter().filter(|rate| (rate.level, rate.op) == (level, op));
        let matching = matching.filter(|rate| rate.stores == stores);
        matching.max_by_key(|rate| (rate.threads, rate.array_bytes))
    }

    /// Reading a level on so many threads, in whichever order is faster: what a roof is made of.
    #[must_use]
    pub fn read_rate_at(&self, level: MemoryLevel, threads: u32) -> Option<&MemoryRate> {
        let by = |op: MemoryOp| {
            let rates = self.memory.iter().filter(move |rate| (rate.level, rate.op) == (level, op));
            rates.filter(|rate| rate.threads == threads).max_by_key(|rate| rate.array_bytes)
        };
        let both = [by(MemoryOp::Read), by(MemoryOp::ReadSpread)].into_iter().flatten();
        both.max_by(|a, b| a.bytes_per_s.median.total_cmp(&b.bytes_per_s.median))
    }

    /// The same at the most threads measured.
    #[must_use]
    pub fn read_rate(&self, level: MemoryLevel) -> Option<&MemoryRate> {
        let reads = self.memory.iter().filter(|rate| {
            rate.level == level && matches!(rate.op, MemoryOp::Read | MemoryOp::ReadSpread)
        });
        self.read_rate_at(level, reads.map(|rate| rate.threads).max()?)
    }

    /// The read bandwidth of main memory on so many threads.
    pub(crate) fn dram_read_at(&self, threads: u32) -> Option<&MemoryRate> {
        self.read_rate_at(MemoryLevel::Dram, threads)
    }

    /// The main-memory bandwidth of `op`, through the caches, at the most threads measured.
    #[must_use]
    pub fn dram_rate(&self, op: MemoryOp) -> Option<&MemoryRate> {
        self.memory_rate(MemoryLevel::Dram, op, Stores::Plain)
    }

    /// The instruction peak in `format`, all threads.
    #[must_use]
    pub fn peak(&self, format: &str) -> Option<FlopsPerSec> {
        let rate = self.compute_rate(format, ComputeKind::Peak)?;
        Some(FlopsPerSec(rate.flops_per_s.median))
    }

    /// Read bandwidth of a level, all threads, in whichever order is faster.
    #[must_use]
    pub fn read_bandwidth(&self, level: MemoryLevel) -> Option<BytesPerSec> {
        let rate = self.read_rate(level)?;
        Some(BytesPerSec(rate.bytes_per_s.median))
    }

    /// Main-memory read bandwidth, all threads.
    #[must_use]
    pub fn dram_read(&self) -> Option<BytesPerSec> {
        self.read_bandwidth(MemoryLevel::Dram)
    }

    /// Where the compute roof meets the roof of main memory: peak over read bandwidth
    /// (Williams, Waterman, Patterson 2009, "Roofline").
    #[must_use]
    pub fn ridge_point(&self, format: &str) -> Option<FlopsPerByte> {
        self.ridge_point_at(format, MemoryLevel::Dram)
    }

    /// Where the compute roof of a format meets the slope of a level.
    #[must_use]
    pub fn ridge_point_at(&self, format: &str, level: MemoryLevel) -> Option<FlopsPerByte> {
        Some(self.peak(format)? / self.read_bandwidth(level)?)
    }

    /// The ridge points of every format with every level, in the order of [`Profile::formats`].
    #[must_use]
    pub fn ridge_points(&self) -> Vec<Ridge> {
        let mut ridges = Vec::new();
        for format in self.formats() {
            for level in MemoryLevel::ALL {
                if let Some(intensity) = self.ridge_point_at(format, level) {
                    ridges.push(Ridge { format: format.to_owned(), level, intensity });
                }
            }
        }
        ridges
    }

    /// The time of one dependent load from a level.
    #[must_use]
    pub fn latency_of(&self, level: MemoryLevel) -> Option<&Latency> {
        self.latency.iter().find(|latency| latency.level == level)
    }
}
