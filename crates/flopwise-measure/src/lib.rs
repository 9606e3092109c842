//! What a machine really does: its clock, FLOP/s and bytes per second, true beside a busy neighbour.
//!
//! Not here: models, percentages of data-sheet numbers, printing. Nothing is computed from a
//! nominal clock: the clock is measured beside each rate.
//!
//! ```
//! use flopwise_measure::{Mock, Plan, measure, timestamp};
//! use std::time::SystemTime;
//!
//! let mut machine = Mock::default(); // `Cpu::new()` measures the machine at hand, in about 5 s
//! let plan = Plan::quick(timestamp(SystemTime::now()));
//! let profile = measure(&mut machine, &plan, &mut |_progress| ());
//! assert_eq!(profile.peak("fp32").unwrap().to_string(), "256 GFLOP/s");
//! ```

mod cliffs;
mod findings;
mod measure;
mod record;
mod steps;
mod turns;

mod bench;
mod plan;
mod sample;

mod curve;

mod clock;
mod cpu;
mod host;
mod mock;

pub use bench::{
    Abilities, Bench, ElementFormat, Experiment, GemmLoad, Library, LibraryAbility, Load, Mix,
    Outcome, PeakAbility, PeakLoad, Place, Setup, Slice, StreamLoad, Unmeasurable, Values,
    latency_cycles,
};
pub use cliffs::cliff_notes;
pub use clock::timestamp;
pub use cpu::Cpu;
pub use curve::{CurveLevel, curve_sizes, levels_of_curve, note_measured_sizes};
pub use measure::{Progress, measure, measure_until};
pub use mock::{Mock, MockRates};
pub use plan::{GemmShape, GemmWish, Multipliers, Plan, StreamWish, Threads, Wish};
