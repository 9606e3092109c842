//! The seam behind which a machine is measured: [`Bench`], what is asked of it and what it answers.
//!
//! Not here: statistics (`sample.rs`) and the order of the experiments (`measure.rs`).

use flopwise::machine::{Host, MemoryOp};

/// A machine that can be put under a load for a short slice of time.
///
/// Its two kinds are [`Cpu`](crate::Cpu), the machine at hand, and [`Mock`](crate::Mock), which
/// answers exact numbers at once.
pub trait Bench {
    /// The machine; the measured clock and the date are left open.
    fn host(&self) -> Host;

    /// What was assumed or could not be had on this machine, one sentence each.
    fn caveats(&self) -> Vec<String>;

    /// Makes `experiment` the current one: data in memory, result verified, slice length chosen.
    ///
    /// # Errors
    /// [`Unmeasurable`]: this machine cannot run it, or its result was wrong.
    fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable>;

    /// Runs a chain of dependent additions, one a cycle, on the threads of the current experiment;
    /// its work is in cycles. `None` where no such chain is known.
    ///
    /// # Panics
    /// If no experiment is prepared.
    fn clock_slice(&mut self) -> Option<Slice>;

    /// Runs the load of the current experiment for one slice.
    ///
    /// # Panics
    /// If no experiment is prepared.
    fn load_slice(&mut self) -> Slice;
}

/// A load on a number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experiment {
    /// What runs.
    pub load: Load,
    /// On how many threads, each on a logical processor of its own.
    pub n_threads: u32,
}

/// What runs in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Multiply-add instructions from registers; work in FLOP.
    Peak(ElementFormat),
    /// A matrix product `[m, n, k]` through memory; work in FLOP.
    Gemm(ElementFormat, [u64; 3]),
    /// A stream through main memory; work in bytes.
    Dram(Stream),
}

/// Number formats that this crate has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementFormat {
    /// IEEE 754 binary32.
    Fp32,
}

impl ElementFormat {
    /// Its name in the catalogue of formats.
    ///
    /// ```
    /// assert_eq!(flopwise_measure::ElementFormat::Fp32.name(), "fp32");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ElementFormat::Fp32 => "fp32",
        }
    }
}

/// What is done with the bytes of main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Loads only.
    Read,
    /// Loads and plain stores; both are counted, as STREAM does. Where a store first fetches its
    /// line, the bus carries 3/2 of the count.
    Copy,
}

impl Stream {
    /// The same in a profile's words.
    #[must_use]
    pub fn memory_op(self) -> MemoryOp {
        match self {
            Stream::Read => MemoryOp::Read,
            Stream::Copy => MemoryOp::Copy,
        }
    }
}

/// What preparing found.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// What will run: `asm-avx2-fma`, `gemm` (the library's name).
    pub backend: String,
    /// Bytes of each array per thread, for a stream.
    pub array_bytes: Option<u64>,
    /// What preparing cost.
    pub spent_s: f64,
}

/// One short run under load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// From the first thread's start to the last one's end.
    pub seconds: f64,
    /// What all threads did, in the unit of the [`Load`].
    pub work: f64,
    /// What the slice cost in all, waiting included: the budget is charged with this, so that a
    /// deadline needs no clock.
    pub spent_s: f64,
    /// Whether it may be believed.
    pub outcome: Outcome,
}

impl Slice {
    /// Work per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.work / self.seconds
    }

    /// Nothing disturbed it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.outcome == Outcome::Clean
    }
}

/// Whether a slice may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No thread lost its processor.
    Clean,
    /// A thread was preempted or started late: dropped.
    Disturbed,
    /// The result was wrong: the experiment is given up.
    Wrong,
}

/// Why an experiment has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unmeasurable(pub String);
