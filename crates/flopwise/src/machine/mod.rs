//! A machine as the estimate sees it: rates it was measured (or published) to reach.
//!
//! Not here: graphs, and the measuring itself (`flopwise-measure` does that and hands over a
//! [`Profile`]).

mod profile;

pub use profile::{
    ComputeKind, ComputeRate, Host, MemoryLevel, MemoryOp, MemoryRate, Profile, ProfileError,
    SCHEMA, Sampled,
};
