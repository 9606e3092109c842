//! [`Work`] with its symbols bound: exact integers.

use super::{Cost, Count, Work};
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph, NodeId};
use crate::units::{Bytes, Flops, Macs, Ops};

/// Exact counts of one node, module or model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Multiply-accumulates.
    pub macs: Macs,
    /// Primitive adds, multiplies and compares outside matrix products.
    pub other_ops: Ops,
    /// exp, log, roots, divisions ...
    pub transcendental_ops: Ops,
    /// Bytes of operands.
    pub bytes_read: Bytes,
    /// Bytes of results.
    pub bytes_written: Bytes,
    /// Trained numbers, each counted at the first node that reads it.
    pub parameters: u128,
}

impl Counts {
    /// Matrix products, convolutions and attention at two FLOPs per MAC: what MFU is based on.
    #[must_use]
    pub fn model_flops(&self) -> Flops {
        self.macs.to_flops()
    }

    /// What kernels execute. Forward without recomputation that is the model FLOPs.
    #[must_use]
    pub fn hardware_flops(&self) -> Flops {
        self.macs.to_flops()
    }

    /// Every arithmetic operation: two per MAC, and one per other and transcendental operation. For
    /// drawings only; totals keep the three apart.
    ///
    /// # Panics
    /// Beyond `u128`.
    #[must_use]
    pub fn every_operation(&self) -> Flops {
        self.macs.to_flops() + Flops(self.other_ops.0) + Flops(self.transcendental_ops.0)
    }

    /// Bytes read and written.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes_read + self.bytes_written
    }
}

impl std::ops::Add for Counts {
    type Output = Counts;
    fn add(self, other: Counts) -> Counts {
        Counts {
            macs: self.macs + other.macs,
            other_ops: self.other_ops + other.other_ops,
            transcendental_ops: self.transcendental_ops + other.transcendental_ops,
            bytes_read: self.bytes_read + other.bytes_read,
            bytes_written: self.bytes_written + other.bytes_written,
            parameters: self.parameters.saturating_add(other.parameters),
        }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), std::ops::Add::add)
    }
}

/// A model's work in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundWork {
    /// One entry per node, in the graph's order; `None` where the cost is unknown.
    pub nodes: Vec<(NodeId, Option<Counts>)>,
    /// The sum; a lower bound when any node is `None`.
    pub total: Counts,
}

/// What a model stores, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Trained numbers; tied weights count once.
    pub parameters: u128,
    /// Bytes of the parameters as stored.
    pub weight_bytes: Bytes,
    /// Bytes of untrained stored tensors.
    pub buffer_bytes: Bytes,
}

impl Work {
    /// What the model stores; `None` only if a weight's size hangs on an open symbol.
    #[must_use]
    pub fn stored(&self, bindings: &Bindings) -> Option<Stored> {
        let value = |dim: &Dim| count(dim, bindings).ok();
        Some(Stored {
            parameters: value(&self.parameters)?,
            weight_bytes: Bytes(value(&self.weight_bytes)?),
            buffer_bytes: Bytes(value(&self.buffer_bytes)?),
        })
    }

    /// Evaluates every count.
    ///
    /// # Errors
    /// A symbol without a value, or a count that is negative or beyond 127 bits; names the node.
    pub fn bind(&self, graph: &Graph, bindings: &Bindings) -> Result<BoundWork, Error> {
        let mut nodes: Vec<(NodeId, Option<Counts>)> = Vec::with_capacity(self.nodes.len());
        let mut total = Counts::default();
        for node in &self.nodes {
            let place =
                |error: Error| error.at(format!("node `{}`", graph.nodes[node.node.0].name));
            let known = node.same_as.and_then(|same_idx| nodes[same_idx].1);
            let counts = match (&node.cost, known) {
                (Ok(_), Some(known)) => {
                    let parameters = count(&node.parameters, bindings).map_err(place)?;
                    Some(Counts { parameters, ..known })
                }
                (Ok(cost), None) => {
                    Some(bind_cost(cost, &node.parameters, bindings).map_err(place)?)
                }
                (Err(_), _) => None,
            };
            total = total + counts.unwrap_or_default();
            nodes.push((node.node, counts));
        }
        // Weights that only an uncounted node reads, or that nothing reads, are still parameters.
        total.parameters = count(&self.parameters, bindings)?;
        Ok(BoundWork { nodes, total })
    }
}

pub(super) fn bind_cost(
    cost: &Cost,
    parameters: &Dim,
    bindings: &Bindings,
) -> Result<Counts, Error> {
    let value = |formula: &Count| count(&formula.0, bindings);
    Ok(Counts {
        macs: Macs(value(&cost.macs)?),
        other_ops: Ops(value(&cost.other_ops)?),
        transcendental_ops: Ops(value(&cost.transcendental_ops)?),
        bytes_read: Bytes(value(&cost.bytes_read)?),
        bytes_written: Bytes(value(&cost.bytes_written)?),
        parameters: count(parameters, bindings)?,
    })
}

/// Largest count of one node: sums over [`crate::graph`]'s largest number of nodes, doubled to
/// FLOPs, still fit `u128`.
const MAX_COUNT: u128 = 1 << 100;

/// The value of a formula as a count.
pub(super) fn count(formula: &Dim, bindings: &Bindings) -> Result<u128, Error> {
    let value = bindings.evaluate(formula)?;
    let positive = u128::try_from(value).ok().filter(|count| *count <= MAX_COUNT);
    positive.ok_or_else(|| Error::new(format!("{formula} comes out as {value}, which is no count")))
}
