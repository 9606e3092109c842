//! A machine as the estimate sees it: rates it was measured (or published) to reach.
//!
//! Not here: graphs, and the measuring itself (`flopwise-measure` does that and hands over a
//! [`Profile`]).

mod check;
mod profile;
mod rates;
#[cfg(test)]
pub(crate) mod tests;

pub use profile::{
    Cache, CacheState, ComputeKind, ComputeRate, Host, Latency, LibraryFound, MemoryLevel,
    MemoryOp, MemoryRate, Probe, Profile, ProfileError, SCHEMA, Sampled, Stores, TimedBy,
};
pub use rates::{Ridge, moved_bytes, roof};
