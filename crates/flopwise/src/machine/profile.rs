//! A machine profile: what `flopwise measure` found, as it is written, read and printed.
//!
//! Not here: which numbers are possible (`check.rs`), and what is asked of a profile (`rates.rs`).
//! The fields are described in docs/json.md.

use crate::units::Hertz;
use serde::{Deserialize, Serialize};

/// The version of the JSON this build writes and reads.
pub const SCHEMA: u32 = 2;

/// The largest profile file read: a full one is a few hundred KiB.
const MAX_PROFILE_BYTES: usize = 16 << 20;

/// Everything measured on one machine in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`SCHEMA`] when it was written.
    pub schema: u32,
    /// Always `measure`.
    pub kind: String,
    /// What was measured.
    pub machine: Host,
    /// FLOP rates, the instruction peak first.
    pub compute: Vec<ComputeRate>,
    /// Bandwidths.
    pub memory: Vec<MemoryRate>,
    /// Times of one dependent load.
    #[serde(default)]
    pub latency: Vec<Latency>,
    /// What else was found out about the machine.
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// Doubts: a busy neighbour, few clean samples, a result that could not be had.
    pub notes: Vec<String>,
}

/// The machine that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Host name, or the name given by the user.
    pub name: String,
    /// The processor's own name for itself.
    pub cpu: String,
    /// Logical processors this process may run on (affinity and cgroup quota respected).
    pub logical_cpus: u32,
    /// The clock seen while measuring, from a chain of dependent additions; `None` if unmeasured.
    pub clock_hz: Option<Hertz>,
    /// What the operating system says the clock is, for comparison; often wrong in a VM.
    pub os_clock_hz: Option<Hertz>,
    /// Instruction sets the kernels used: `avx512f`, `avx2+fma`, `neon`, `scalar`.
    pub isa: String,
    /// Physical memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Caches of one processor, the smallest level first.
    #[serde(default)]
    pub caches: Vec<Cache>,
    /// NUMA nodes that the process may use.
    #[serde(default)]
    pub numa_nodes: Option<u32>,
    /// Libraries found that multiply matrices.
    #[serde(default)]
    pub libraries: Vec<LibraryFound>,
    /// Operating system and architecture.
    pub os: String,
    /// When, in UTC: `2026-11-23T13:38:00Z`.
    pub measured_at: String,
    /// The version that measured.
    pub flopwise_version: String,
}

/// A data or unified cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Its level.
    pub level: MemoryLevel,
    /// Its size as the operating system tells it.
    pub os_bytes: Option<u64>,
    /// Its size by the bandwidth and latency seen: the largest array that was still as fast.
    pub measured_bytes: Option<u64>,
    /// Processors that share it.
    pub shared_by: Option<u32>,
}

/// A library that multiplies matrices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LibraryFound {
    /// `openblas`, `mkl` ...
    pub name: String,
    /// Its own account of itself.
    pub version: String,
    /// Where it was loaded from; `None` for the built-in kernels.
    pub path: Option<String>,
}

/// What a [`ComputeRate`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeKind {
    /// Multiply-add instructions from registers: the most the machine can issue.
    Peak,
    /// Multiply-adds and additions in turn: more than the peak where a core has units for both.
    #[serde(rename = "fma_add")]
    FmaAdd,
    /// A matrix product through memory: what a model can hope for.
    Gemm,
}

/// Where the operands of a product are when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// As the product before it left them.
    Hot,
    /// In main memory.
    Cold,
}

/// What is taken for the time of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimedBy {
    /// Time as it passed, in samples that nothing disturbed.
    #[default]
    Wall,
    /// Time for which the slowest thread held its processor, where no sample was undisturbed.
    Processor,
}

/// How results reach memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stores {
    /// Through the caches; a line may be fetched before it is written.
    #[default]
    Plain,
    /// Past the caches.
    NonTemporal,
}

/// One FLOP rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComputeRate {
    /// Number format by catalogue name: `fp32`.
    pub format: String,
    /// Peak or GEMM.
    pub kind: ComputeKind,
    /// What ran: `asm-avx2-fma`, `gemm` (the library's name).
    pub backend: String,
    /// Threads, one per logical processor used.
    pub threads: u32,
    /// `[m, n, k]` of a GEMM; `None` for a peak.
    pub shape: Option<[u64; 3]>,
    /// The instruction of a peak: `vdpbf16ps zmm`.
    #[serde(default)]
    pub instruction: Option<String>,
    /// Independent chains of a peak.
    #[serde(default)]
    pub chains: Option<u32>,
    /// Where a GEMM's operands were.
    #[serde(default)]
    pub cache: Option<CacheState>,
    /// Elements between a GEMM's rows.
    #[serde(default)]
    pub padding: Option<u64>,
    /// What was taken for its time.
    #[serde(default)]
    pub timed_by: TimedBy,
    /// The rate, FLOP/s, one multiply-add being two.
    pub flops_per_s: Sampled,
    /// Share of the instruction peak at the same format and thread count.
    pub fraction_of_peak: Option<f64>,
    /// Share of what peak and main memory allow at a GEMM's shape: min(peak, intensity x
    /// bandwidth), each operand read once and the result written once.
    #[serde(default)]
    pub fraction_of_roofline: Option<f64>,
    /// FLOP per measured clock cycle and thread; for a peak an integer up to noise.
    pub flops_per_cycle: Option<f64>,
}

/// Where the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemoryLevel {
    /// First-level cache.
    L1,
    /// Second-level cache.
    L2,
    /// Last-level cache.
    L3,
    /// Main memory.
    #[serde(rename = "DRAM")]
    Dram,
}

impl MemoryLevel {
    /// All of them, the fastest first.
    pub const ALL: [MemoryLevel; 4] =
        [MemoryLevel::L1, MemoryLevel::L2, MemoryLevel::L3, MemoryLevel::Dram];

    /// The name in a profile.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MemoryLevel::L1 => "L1",
            MemoryLevel::L2 => "L2",
            MemoryLevel::L3 => "L3",
            MemoryLevel::Dram => "DRAM",
        }
    }
}

/// What is done with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryOp {
    /// Loads only, one after the other.
    Read,
    /// Loads only, at eight places in turn: more rows of memory are open at once, and several
    /// prefetchers at work. What a kernel can reach that reads that way.
    ReadSpread,
    /// Stores only.
    Write,
    /// One load and one store per element; both are counted, as STREAM does.
    Copy,
    /// a = b + s * c; three streams counted, as STREAM does.
    Triad,
}

impl MemoryOp {
    /// The name in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MemoryOp::Read => "read",
            MemoryOp::ReadSpread => "read, 8 places",
            MemoryOp::Write => "write",
            MemoryOp::Copy => "copy",
            MemoryOp::Triad => "triad",
        }
    }
}

/// One bandwidth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRate {
    /// Which level of the hierarchy.
    pub level: MemoryLevel,
    /// Which access.
    pub op: MemoryOp,
    /// Threads.
    pub threads: u32,
    /// Bytes of each array, per thread.
    pub array_bytes: u64,
    /// How results are stored.
    #[serde(default)]
    pub stores: Stores,
    /// Application bytes per second.
    pub bytes_per_s: Sampled,
    /// Bytes per measured clock cycle and thread; for a cache near an integer.
    #[serde(default)]
    pub bytes_per_cycle: Option<f64>,
    /// The lowest and highest median of repeats spread over the whole run, for what is shared with
    /// others.
    #[serde(default)]
    pub range: Option<[f64; 2]>,
}

/// The time of one load whose address is the result of the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Which level of the hierarchy.
    pub level: MemoryLevel,
    /// Bytes that the loads wander over.
    pub array_bytes: u64,
    /// Loads per second.
    pub loads_per_s: Sampled,
    /// Measured clock cycles per load.
    pub cycles: Option<f64>,
}

/// One more finding about the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What was asked: `fp32 multiply-add of subnormals`.
    pub name: String,
    /// What came out.
    pub value: f64,
    /// Its unit: `x`, `cycles`.
    pub unit: String,
    /// What it means, in words.
    pub meaning: String,
}

/// A rate from many short samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Median of the samples kept.
    pub median: f64,
    /// The best sample kept.
    pub best: f64,
    /// Samples kept: those during which the thread was never preempted.
    pub samples: u32,
    /// Samples taken.
    pub taken: u32,
    /// Interquartile range over median: 0.02 means the middle half lies within 2 %.
    pub spread: f64,
    /// The 95 % confidence interval of the median, from order statistics without any assumption
    /// about the distribution; the extremes where there are fewer than six samples.
    pub interval: [f64; 2],
}

/// What every schema has.
#[derive(Deserialize)]
struct Stamp {
    schema: u32,
    kind: String,
}

impl Stamp {
    fn check(&self) -> Result<(), ProfileError> {
        if self.kind != "measure" {
            return Err(ProfileError::Malformed(format!("its kind is `{}`", self.kind)));
        }
        if self.schema != SCHEMA {
            return Err(ProfileError::Schema(self.schema));
        }
        Ok(())
    }
}

/// A profile that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not the JSON of a profile.
    #[error("not a machine profile: {0}")]
    Malformed(String),
    /// Written by another version.
    #[error("profile has schema {0}, this build reads {SCHEMA}; run `flopwise measure` again")]
    Schema(u32),
    /// A number that no machine has; says which.
    #[error("profile holds an impossible number, {0}; run `flopwise measure` again")]
    Impossible(String),
    /// Larger than any profile.
    #[error("profile is larger than {MAX_PROFILE_BYTES} bytes")]
    TooLarge,
}

impl Profile {
    /// Reads a profile: JSON if it begins with a brace, else TOML of the same fields.
    ///
    /// # Errors
    /// As [`from_json`](Profile::from_json).
    pub fn from_text(text: &str) -> Result<Profile, ProfileError> {
        match text.trim_start_matches('\u{feff}').trim_start() {
            json if json.is_empty() || json.starts_with('{') => Profile::from_json(json),
            toml => Profile::from_toml(toml),
        }
    }

    /// Reads a profile's JSON.
    ///
    /// # Errors
    /// [`ProfileError`]: not a profile, another schema, or a number that no machine has.
    pub fn from_json(text: &str) -> Result<Profile, ProfileError> {
        if MAX_PROFILE_BYTES < text.len() {
            return Err(ProfileError::TooLarge);
        }
        let malformed = |error: serde_json::Error| ProfileError::Malformed(error.to_string());
        // Another schema lacks fields of this one; its number tells more than their names.
        let stamp: Stamp = serde_json::from_str(text).map_err(malformed)?;
        stamp.check()?;
        let profile: Profile = serde_json::from_str(text).map_err(malformed)?;
        super::check::check(&profile).map_err(ProfileError::Impossible)?;
        Ok(profile)
    }

    /// Reads a profile written as TOML: the same fields, those that are null left out.
    ///
    /// # Errors
    /// As [`from_json`](Profile::from_json).
    pub fn from_toml(text: &str) -> Result<Profile, ProfileError> {
        if MAX_PROFILE_BYTES < text.len() {
            return Err(ProfileError::TooLarge);
        }
        // Its `Display` is a drawing of several lines.
        let malformed =
            |error: toml::de::Error| ProfileError::Malformed(error.message().replace('\n', " "));
        let stamp: Stamp = toml::from_str(text).map_err(malformed)?;
        stamp.check()?;
        let profile: Profile = toml::from_str(text).map_err(malformed)?;
        super::check::check(&profile).map_err(ProfileError::Impossible)?;
        Ok(profile)
    }

    /// The same as TOML, what is not known left out.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every field has a TOML form")
    }

    /// The JSON of a profile file, one trailing newline.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("every field has a JSON form");
        text.push('\n');
        text
    }
}
