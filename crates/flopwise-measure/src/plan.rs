//! What to measure and for how long: plain data, handed to `measure`.
//!
//! Not here: clocks and machines.

use crate::bench::ElementFormat;
use flopwise::machine::MemoryOp;

/// The experiments of one run and their limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// When, in UTC, as [`timestamp`](crate::timestamp) writes it.
    pub measured_at: String,
    /// Number formats for peak and GEMM.
    pub formats: Vec<ElementFormat>,
    /// Thread counts, in order; the same count twice is measured once.
    pub threads: Vec<Threads>,
    /// Edges of GEMM cubes for one thread. More threads get a larger cube with at least as much
    /// work for each ([`Plan::gemm_shape`]).
    pub gemm_edges: Vec<u64>,
    /// Streams through main memory.
    pub streams: Vec<MemoryOp>,
    /// Undisturbed slices after which an experiment is done.
    pub enough_samples: u32,
    /// Undisturbed slices below which an experiment may use its budget and half as much again.
    pub least_samples: u32,
    /// Time for each experiment, its preparation not counted.
    pub budget_s: f64,
}

/// How many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One.
    One,
    /// One on each logical processor that the process may use.
    All,
}

impl Plan {
    /// FP32 peak and GEMM and main-memory bandwidth on one thread and on all, in about 5 s.
    ///
    /// ```
    /// let plan = flopwise_measure::Plan::quick("2026-11-23T13:38:00Z".to_owned());
    /// assert_eq!(plan.formats.len() * plan.threads.len(), 2);
    /// ```
    #[must_use]
    pub fn quick(measured_at: String) -> Plan {
        Plan {
            measured_at,
            formats: vec![ElementFormat::Fp32],
            threads: vec![Threads::One, Threads::All],
            // 384 keeps a slice near 1 ms, so that some survive a busy neighbour; 768 is nearer to
            // a model's sizes but loses them.
            gemm_edges: vec![384, 768],
            streams: vec![MemoryOp::Read, MemoryOp::Copy],
            enough_samples: 301,
            least_samples: 5,
            budget_s: 0.38,
        }
    }

    /// The cube for `edge` on `n_threads`: edge x the cube root of the threads, rounded up to 64.
    ///
    /// ```
    /// assert_eq!(flopwise_measure::Plan::gemm_shape(384, 1), [384, 384, 384]);
    /// assert_eq!(flopwise_measure::Plan::gemm_shape(384, 2), [512, 512, 512]);
    /// ```
    #[must_use]
    pub fn gemm_shape(edge: u64, n_threads: u32) -> [u64; 3] {
        let scaled = edge as f64 * f64::from(n_threads).cbrt();
        [(scaled.ceil() as u64).next_multiple_of(64); 3]
    }
}
