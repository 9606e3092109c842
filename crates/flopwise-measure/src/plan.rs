//! What to measure and for how long: plain data, handed to `measure`.
//!
//! Not here: clocks and machines, and the order of the experiments (`steps.rs`).

use crate::bench::ElementFormat;
use flopwise::machine::{CacheState, MemoryLevel, MemoryOp, Stores};

/// The experiments of one run and their limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// When, in UTC, as [`timestamp`](crate::timestamp) writes it.
    pub measured_at: String,
    /// Number formats for peak and GEMM; those that the machine lacks are left out, with a note.
    pub formats: Vec<ElementFormat>,
    /// Thread counts, in order; the same count twice is measured once.
    pub threads: Vec<Threads>,
    /// Whether the instruction peaks are measured.
    pub peaks: Wish,
    /// Matrix products.
    pub gemms: Vec<GemmWish>,
    /// Streams through memory.
    pub streams: Vec<StreamWish>,
    /// How often the streams through main memory are measured, spread over the run: main memory is
    /// shared with others.
    pub n_rounds: u32,
    /// Whether multiply-adds are also run in fewer chains (for their latency), on unusual values and
    /// mixed with additions, and whether processors share cores and clocks fall under load.
    pub probes: Wish,
    /// Whether the time of one dependent load is measured, over sizes from the first cache to main
    /// memory.
    pub latency: Wish,
    /// Undisturbed slices after which an experiment is done.
    pub enough_samples: u32,
    /// Undisturbed slices below which an experiment may use its budget and half as much again.
    pub least_samples: u32,
    /// Time for each experiment, its preparation not counted.
    pub budget_s: f64,
    /// Time for each of the many short ones that a probe or a curve consists of.
    pub probe_budget_s: f64,
}

/// Whether something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is.
    Wanted,
    /// It is not.
    Left,
}

/// How many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One.
    One,
    /// So many, where there are.
    Exactly(u32),
    /// One on each logical processor that the process may use.
    All,
}

/// A matrix product, in every format and on every number of threads of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmWish {
    /// Its shape.
    pub shape: GemmShape,
    /// Who multiplies.
    pub by: Multipliers,
    /// Where the operands are.
    pub cache: CacheState,
    /// Elements between rows.
    pub padding: u64,
}

impl GemmWish {
    /// By the built-in kernels and, as `by` says, others; hot, without gaps.
    #[must_use]
    pub fn of(shape: GemmShape, by: Multipliers) -> GemmWish {
        GemmWish { shape, by, cache: CacheState::Hot, padding: 0 }
    }
}

/// The shape of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GemmShape {
    /// A cube for one thread; more threads get a larger one with at least as much work for each.
    Cube(u64),
    /// `[m, n, k]`, whatever the threads.
    Exact([u64; 3]),
}

impl GemmShape {
    /// `[m, n, k]` on so many threads: a cube's edge times the cube root of the threads, rounded up
    /// to 64.
    ///
    /// ```
    /// use flopwise_measure::GemmShape;
    /// assert_eq!(GemmShape::Cube(384).on(1), [384, 384, 384]);
    /// assert_eq!(GemmShape::Cube(384).on(2), [512, 512, 512]);
    /// assert_eq!(GemmShape::Exact([1, 2, 3]).on(2), [1, 2, 3]);
    /// ```
    #[must_use]
    pub fn on(self, n_threads: u32) -> [u64; 3] {
        match self {
            GemmShape::Exact(shape) => shape,
            GemmShape::Cube(edge) => {
                let scaled = edge as f64 * f64::from(n_threads).cbrt();
                [(scaled.ceil() as u64).next_multiple_of(64); 3]
            }
        }
    }
}

/// Who multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multipliers {
    /// The built-in kernels.
    BuiltIn,
    /// They and every library found.
    All,
}

/// A stream, on every number of threads of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamWish {
    /// Which level.
    pub level: MemoryLevel,
    /// What is done with the bytes.
    pub op: MemoryOp,
    /// How results are stored.
    pub stores: Stores,
}

impl StreamWish {
    /// Main memory with plain stores.
    #[must_use]
    pub fn dram(op: MemoryOp) -> StreamWish {
        StreamWish { level: MemoryLevel::Dram, op, stores: Stores::Plain }
    }
}

/// Cubes, and the shapes of a language model's layers: a few tokens, one token, a small model's
/// feed-forward layer.
const SHAPES: [GemmShape; 7] = [
    GemmShape::Exact([256, 256, 256]),
    GemmShape::Exact([512, 512, 512]),
    GemmShape::Exact([1024, 1024, 1024]),
    GemmShape::Exact([2048, 2048, 2048]),
    GemmShape::Exact([128, 768, 3072]),
    GemmShape::Exact([32, 4096, 4096]),
    GemmShape::Exact([1, 4096, 4096]),
];
/// Those on which libraries are compared: the others would take minutes with four libraries.
const COMPARED: [GemmShape; 3] = [SHAPES[2], SHAPES[5], SHAPES[6]];

impl Plan {
    /// FP32 peak and GEMM and main-memory bandwidth on one thread and on all, in about 5 s.
    ///
    /// ```
    /// let plan = flopwise_measure::Plan::quick("2026-11-23T13:38:00Z".to_owned());
    /// assert_eq!(plan.formats.len() * plan.threads.len(), 2);
    /// ```
    #[must_use]
    pub fn quick(measured_at: String) -> Plan {
        // 384 keeps a slice near 1 ms, so that some survive a busy neighbour; 768 is nearer to
        // a model's sizes but loses them.
        let cubes = [384, 768].map(GemmShape::Cube);
        Plan {
            measured_at,
            formats: vec![ElementFormat::Fp32],
            threads: vec![Threads::One, Threads::All],
            peaks: Wish::Wanted,
            gemms: cubes.map(|cube| GemmWish::of(cube, Multipliers::BuiltIn)).to_vec(),
            streams: [MemoryOp::Read, MemoryOp::ReadSpread, MemoryOp::Copy]
                .map(StreamWish::dram)
                .to_vec(),
            n_rounds: 1,
            probes: Wish::Left,
            latency: Wish::Left,
            enough_samples: 301,
            least_samples: 5,
            budget_s: 0.38,
            probe_budget_s: 0.1,
        }
    }

    /// Every format, level and probe, on one thread and on all, in about a minute.
    ///
    /// ```
    /// let plan = flopwise_measure::Plan::full("2026-11-23T13:38:00Z".to_owned());
    /// assert_eq!(plan.formats.len(), 6);
    /// ```
    #[must_use]
    pub fn full(measured_at: String) -> Plan {
        let gemms = SHAPES.into_iter().map(|shape| match COMPARED.contains(&shape) {
            true => GemmWish::of(shape, Multipliers::All),
            false => GemmWish::of(shape, Multipliers::BuiltIn),
        });
        let levels = [MemoryLevel::L1, MemoryLevel::L2, MemoryLevel::L3, MemoryLevel::Dram];
        let ops = [MemoryOp::Read, MemoryOp::Write, MemoryOp::Copy, MemoryOp::Triad];
        let plain = levels
            .into_iter()
            .flat_map(|level| ops.map(|op| StreamWish { level, op, stores: Stores::Plain }));
        let past = ops[1..]
            .iter()
            .map(|op| StreamWish { stores: Stores::NonTemporal, ..StreamWish::dram(*op) });
        Plan {
            formats: ElementFormat::ALL.to_vec(),
            gemms: gemms.collect(),
            streams: plain.chain([StreamWish::dram(MemoryOp::ReadSpread)]).chain(past).collect(),
            n_rounds: 3,
            probes: Wish::Wanted,
            latency: Wish::Wanted,
            budget_s: 0.25,
            ..Plan::quick(measured_at)
        }
    }

    /// Only these matrix products, and the peaks and the bandwidth that they are compared with.
    #[must_use]
    pub fn products(measured_at: String, shapes: &[[u64; 3]]) -> Plan {
        let wishes =
            shapes.iter().map(|shape| GemmWish::of(GemmShape::Exact(*shape), Multipliers::All));
        Plan {
            formats: ElementFormat::ALL.to_vec(),
            gemms: wishes.collect(),
            streams: [MemoryOp::Read, MemoryOp::ReadSpread].map(StreamWish::dram).to_vec(),
            budget_s: 0.6,
            ..Plan::quick(measured_at)
        }
    }
}
