//! [`BoundWork`](crate::cost::BoundWork) on a [`Profile`](crate::machine::Profile) -> [`Estimate`]: how
//! long a forward pass should take, and why.
//!
//! The simple roofline: a node takes the longer of its arithmetic at the achievable rate and its
//! traffic at the memory's bandwidth, plus a fixed overhead (Williams, Waterman, Patterson 2009).
//! A matrix product reaches a part of its roofline that hangs on its shape ([`Utilisation`]).
//! Every number assumed is in [`Estimate::assumptions`].

mod roofline;
mod shape;
#[cfg(test)]
mod tests;
mod utilisation;

pub use roofline::{Assumption, Bound, Estimate, NodeEstimate, Rates, Setup, estimate};
pub use shape::product_shapes;
pub(crate) use utilisation::roof;
pub use utilisation::{Shares, Utilisation, UtilisationPoint};
