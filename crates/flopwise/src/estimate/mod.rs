//! [`BoundWork`](crate::cost::BoundWork) on a [`Profile`](crate::machine::Profile) -> [`Estimate`]: how
//! long a forward pass should take, and why.
//!
//! The simple roofline: a node takes the longer of its arithmetic at the achievable rate and its
//! traffic at the memory's bandwidth, plus a fixed overhead (Williams, Waterman, Patterson 2009).
//! Every number assumed is in [`Estimate::assumptions`].

mod roofline;
#[cfg(test)]
mod tests;

pub use roofline::{Assumption, Bound, Estimate, NodeEstimate, Rates, Setup, estimate};
