//! The seam behind which a machine is measured: [`Bench`], what is asked of it and what it answers.
//!
//! Not here: statistics (`sample.rs`) and the order of the experiments (`measure.rs`).

use flopwise::machine::{CacheState, Host, MemoryLevel, MemoryOp, Stores};

/// A machine that can be put under a load for a short slice of time.
///
/// Its two kinds are [`Cpu`](crate::Cpu), the machine at hand, and [`Mock`](crate::Mock), which
/// answers exact numbers at once.
pub trait Bench {
    /// The machine; the measured clock and the date are left open.
    fn host(&self) -> Host;

    /// What it can be asked to run.
    fn abilities(&self) -> Abilities;

    /// What was assumed or could not be had on this machine, one sentence each.
    fn caveats(&self) -> Vec<String>;

    /// Makes `experiment` the current one: data in memory, result verified, slice length chosen.
    /// All that were prepared before are forgotten.
    ///
    /// # Errors
    /// [`Unmeasurable`]: this machine cannot run it, or its result was wrong.
    fn prepare(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable>;

    /// The same beside those that are prepared, none of which is forgotten: what is to be compared
    /// takes turns.
    ///
    /// # Errors
    /// As [`prepare`](Bench::prepare); those prepared before are still there.
    fn prepare_beside(&mut self, experiment: &Experiment) -> Result<Setup, Unmeasurable>;

    /// Makes one of the experiments current that are prepared, counted from 0 in the order in which
    /// they were.
    fn turn_to(&mut self, number: usize);

    /// Runs a chain of dependent additions, one a cycle, on the threads of the current experiment;
    /// its work is in cycles. `None` where no such chain is known.
    ///
    /// # Panics
    /// If no experiment is prepared.
    fn clock_slice(&mut self) -> Option<Slice>;

    /// Runs the load of the current experiment for one slice on these of its threads, counted from
    /// 0, and no others; `None` where threads have no processors of their own.
    fn slice_on(&mut self, threads: &[u32]) -> Option<Slice>;

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
    /// Multiply-add instructions from registers; work in operations, two a multiply-add.
    Peak(PeakLoad),
    /// A matrix product through memory; work in operations, two a multiply-add.
    Gemm(GemmLoad),
    /// A stream through one level of memory; work in bytes, as STREAM counts them.
    Stream(StreamLoad),
    /// Dependent loads from places in random order; work in loads.
    Chase(Place),
}

/// Number formats that this crate has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementFormat {
    /// IEEE 754 binary64.
    Fp64,
    /// IEEE 754 binary32.
    Fp32,
    /// bfloat16 factors, FP32 sums.
    Bf16,
    /// IEEE 754 binary16 factors; FP16 sums from registers (`avx512fp16`, NEON), FP32 sums in AMX.
    Fp16,
    /// 8-bit integer factors, 32-bit sums.
    Int8,
    /// 16-bit integer factors, 32-bit sums.
    Int16,
}

impl ElementFormat {
    /// All of them, the widest floats first.
    pub const ALL: [ElementFormat; 6] = [
        ElementFormat::Fp64,
        ElementFormat::Fp32,
        ElementFormat::Bf16,
        ElementFormat::Fp16,
        ElementFormat::Int8,
        ElementFormat::Int16,
    ];

    /// Its name in the catalogue of formats.
    ///
    /// ```
    /// assert_eq!(flopwise_measure::ElementFormat::Fp32.name(), "fp32");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ElementFormat::Fp64 => "fp64",
            ElementFormat::Fp32 => "fp32",
            ElementFormat::Bf16 => "bf16",
            ElementFormat::Fp16 => "fp16",
            ElementFormat::Int8 => "int8",
            ElementFormat::Int16 => "int16",
        }
    }

    /// Bytes of a factor.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            ElementFormat::Fp64 => 8,
            ElementFormat::Fp32 => 4,
            ElementFormat::Bf16 | ElementFormat::Fp16 | ElementFormat::Int16 => 2,
            ElementFormat::Int8 => 1,
        }
    }

    /// Bytes of a result: what products are summed in.
    #[must_use]
    pub fn sum_bytes(self) -> u64 {
        match self {
            ElementFormat::Fp64 => 8,
            ElementFormat::Fp32
            | ElementFormat::Bf16
            | ElementFormat::Fp16
            | ElementFormat::Int8
            | ElementFormat::Int16 => 4,
        }
    }
}

/// Instructions from registers, in independent chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeakLoad {
    /// The format of the factors.
    pub format: ElementFormat,
    /// The instruction set, as [`PeakAbility::isa`] names it; `None` for the fastest.
    pub isa: Option<&'static str>,
    /// Independent chains of accumulation; `None` for as many as hide the latency.
    pub chains: Option<u32>,
    /// Which instructions.
    pub mix: Mix,
    /// What is multiplied.
    pub values: Values,
}

impl PeakLoad {
    /// The peak of a format: the widest multiply-adds that there are, of ordinary numbers.
    #[must_use]
    pub const fn of(format: ElementFormat) -> PeakLoad {
        PeakLoad {
            format,
            isa: None,
            chains: None,
            mix: Mix::MultiplyAdd,
            values: Values::Ordinary,
        }
    }
}

/// Which instructions fill the pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Multiply-adds alone: what the 100 % of a machine mean.
    MultiplyAdd,
    /// Multiply-adds and additions, one for one: some cores have units for both at once.
    MultiplyAddAndAdd,
}

/// What is multiplied: some processors are slower on some values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Numbers with full significands, sums that stay finite.
    Ordinary,
    /// Zeros.
    Zero,
    /// Subnormal factors and sums. Nothing is set to flush them to zero while they are multiplied;
    /// the products of bfloat16 flush them by definition.
    Subnormal,
    /// Infinities.
    Infinite,
    /// NaN.
    NotANumber,
}

/// A matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmLoad {
    /// The format of the factors.
    pub format: ElementFormat,
    /// `[m, n, k]`: A is m x k, B is k x n.
    pub shape: [u64; 3],
    /// Who multiplies.
    pub library: Library,
    /// Where the operands are when it begins.
    pub cache: CacheState,
    /// Elements between the end of one row and the start of the next.
    pub padding: u64,
}

impl GemmLoad {
    /// The built-in product, operands as the last one left them, rows without gaps.
    #[must_use]
    pub const fn of(format: ElementFormat, shape: [u64; 3]) -> GemmLoad {
        GemmLoad { format, shape, library: Library::BuiltIn, cache: CacheState::Hot, padding: 0 }
    }
}

/// Who multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Library {
    /// The kernels of this crate.
    BuiltIn,
    /// OpenBLAS.
    OpenBlas,
    /// BLIS, AOCL's too.
    Blis,
    /// Intel's oneMKL.
    Mkl,
    /// oneDNN.
    OneDnn,
    /// Apple's Accelerate.
    Accelerate,
}

impl Library {
    /// Its name in a profile.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Library::BuiltIn => "flopwise",
            Library::OpenBlas => "openblas",
            Library::Blis => "blis",
            Library::Mkl => "mkl",
            Library::OneDnn => "onednn",
            Library::Accelerate => "accelerate",
        }
    }
}

/// A stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLoad {
    /// What is done with them.
    pub op: MemoryOp,
    /// Where they are.
    pub place: Place,
    /// How results are stored.
    pub stores: Stores,
}

/// Where bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In arrays that lie in this level: half of a cache that one thread has to itself, or several
    /// times the last level for main memory.
    Level(MemoryLevel),
    /// In arrays that together have so many bytes a thread, wherever those lie.
    Bytes(u64),
}

/// What a machine can be asked to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Kernels of the instruction peak, the fastest of each format first.
    pub peaks: Vec<PeakAbility>,
    /// Libraries that multiply matrices, the built-in one first.
    pub libraries: Vec<LibraryAbility>,
    /// Levels of memory, the fastest first, main memory last.
    pub levels: Vec<MemoryLevel>,
    /// Whether there are stores that go past the caches.
    pub has_non_temporal_stores: bool,
}

/// One kernel of the instruction peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeakAbility {
    /// The format of its factors.
    pub format: ElementFormat,
    /// Instruction set and width: `avx512bf16`, `avx2+fma`, `amx-int8`.
    pub isa: &'static str,
    /// The instruction: `vdpbf16ps zmm`.
    pub instruction: &'static str,
    /// Operations of one such instruction (of the few that stand for one), two a multiply-add.
    pub ops_per_instruction: u32,
    /// The numbers of chains that it can run in, ascending.
    pub chains: Vec<u32>,
    /// Whether it can be mixed with additions.
    pub has_add_mix: bool,
    /// Whether its factors can be subnormal, infinite or NaN.
    pub is_float: bool,
}

/// The latency of an instruction in cycles, from the operations per cycle of one chain of it alone:
/// each instruction of a chain waits for the one before. Where a few instructions stand for a
/// multiply-add, the chain runs through the addition alone, and it is the addition's latency.
///
/// ```
/// // FP32 multiply-adds of 16 lanes, one chain: 8 operations a cycle.
/// assert_eq!(flopwise_measure::latency_cycles(8.0, 32.0), 4.0);
/// ```
#[must_use]
pub fn latency_cycles(ops_per_cycle_of_one_chain: f64, ops_per_instruction: f64) -> f64 {
    ops_per_instruction / ops_per_cycle_of_one_chain
}

/// One library that multiplies matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryAbility {
    /// Which.
    pub library: Library,
    /// Its own account of itself: version, kernels chosen.
    pub version: String,
    /// The file it was loaded from; `None` for the built-in one.
    pub path: Option<String>,
    /// What it multiplies.
    pub formats: Vec<ElementFormat>,
}

/// What preparing found.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// What will run: `asm-avx2-fma`, `flopwise` (a library's name).
    pub backend: String,
    /// The instruction of a peak: `vfmadd231ps zmm`.
    pub instruction: Option<String>,
    /// Chains of a peak.
    pub chains: Option<u32>,
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
    /// How long the slowest thread held its processor; `None` where the system does not tell, or
    /// where threads wait for each other.
    pub processor_s: Option<f64>,
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
