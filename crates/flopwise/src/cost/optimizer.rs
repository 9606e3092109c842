//! What one step of an optimiser costs: operations, bytes and state, from its update equations.
//!
//! The state is kept in FP32; parameters and gradients have the parameter's own format. Nothing here
//! is model FLOPs. Regimes with master weights are not here.

use super::totals::count;
use super::train::Training;
use crate::error::Error;
use crate::graph::{Bindings, Graph, NodeId, Op, Role, TensorId};
use crate::units::{Bytes, Macs, Ops};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// An optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// Only gradients are made.
    None,
    /// `w -= a g`.
    Sgd,
    /// `m = b m + g; w -= a m`.
    Momentum,
    /// Adam (arXiv 1412.6980).
    Adam,
    /// Adam with weight decay of its own (arXiv 1711.05101).
    AdamW,
    /// [`Optimizer::AdamW`] with its state in 8 bits per element (arXiv 2110.02861).
    Adam8bit,
    /// Second moments of matrices as sums of rows and columns, no first (arXiv 1804.04235).
    Adafactor,
    /// Sign of a momentum (arXiv 2302.06675).
    Lion,
    /// Orthogonalised momentum for the matrices inside (Jordan 2024,
    /// kellerjordan.github.io/posts/muon), [`Optimizer::AdamW`] for the rest.
    Muon,
}

/// Every optimiser with the name to type.
const NAMES: &[(&str, Optimizer)] = &[
    ("none", Optimizer::None),
    ("sgd", Optimizer::Sgd),
    ("momentum", Optimizer::Momentum),
    ("adam", Optimizer::Adam),
    ("adamw", Optimizer::AdamW),
    ("adam8bit", Optimizer::Adam8bit),
    ("adafactor", Optimizer::Adafactor),
    ("lion", Optimizer::Lion),
    ("muon", Optimizer::Muon),
];

impl FromStr for Optimizer {
    type Err = String;
    fn from_str(text: &str) -> Result<Optimizer, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, optimizer)| *optimizer).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("`{text}` is not an optimiser known here: {}", names.join(", "))
        })
    }
}

impl fmt::Display for Optimizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(_, optimizer)| optimizer == self);
        formatter.write_str(named.map_or("", |(name, _)| name))
    }
}

/// What one step costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Multiply-accumulates: only Muon's matrix products.
    pub macs: Macs,
    /// Adds, multiplies and compares.
    pub other_ops: Ops,
    /// Roots and divisions.
    pub transcendental_ops: Ops,
    /// Parameters, gradients and state read.
    pub bytes_read: Bytes,
    /// Parameters and state written.
    pub bytes_written: Bytes,
    /// State kept from step to step.
    pub state_bytes: Bytes,
    /// Gradients of all trained parameters, in their parameters' format.
    pub gradient_bytes: Bytes,
}

/// A trained parameter, as optimisers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parameter {
    elements: u128,
    /// Matrices in it, and the rows and columns of each; `None` for vectors.
    matrix: Option<[u128; 3]>,
    /// Bits of an element.
    bits: u128,
    /// A matrix inside the model: neither a table that is looked up nor the last layer.
    is_hidden: bool,
}

/// One step over all parameters that get a gradient.
///
/// # Errors
/// A parameter whose size hangs on a symbol without a value.
pub fn step(
    graph: &Graph,
    training: &Training,
    optimizer: Optimizer,
    bindings: &Bindings,
) -> Result<StepCounts, Error> {
    let uses = Uses::new(graph);
    let mut total = StepCounts::default();
    for id in &training.trained {
        let parameter = uses.parameter(graph, *id, bindings)?;
        let Some(update) = parameter.update(optimizer) else {
            return Err(Error::new("an optimiser's step is beyond 128 bits")
                .at(format!("parameter `{}`", graph.tensor(*id).name)));
        };
        total = total + update;
    }
    Ok(total)
}

impl std::ops::Add for StepCounts {
    type Output = StepCounts;
    fn add(self, other: StepCounts) -> StepCounts {
        StepCounts {
            macs: self.macs + other.macs,
            other_ops: self.other_ops + other.other_ops,
            transcendental_ops: self.transcendental_ops + other.transcendental_ops,
            bytes_read: self.bytes_read + other.bytes_read,
            bytes_written: self.bytes_written + other.bytes_written,
            state_bytes: self.state_bytes + other.state_bytes,
            gradient_bytes: self.gradient_bytes + other.gradient_bytes,
        }
    }
}

/// Operations of an update: MACs, other, transcendental; and bytes of state.
type Update = [u128; 4];

/// Bytes of a state element.
const STATE_BYTES: u128 = 4;
/// Newton-Schulz iterations of Muon.
const MUON_ITERATIONS: u128 = 5;
/// Elements that share a scale in 8-bit states (bitsandbytes, `blocksize`).
const BLOCK: u128 = 256;
/// Smaller parameters keep 32-bit states (bitsandbytes, `min_8bit_size`).
const MIN_8BIT: u128 = 4096;

impl Parameter {
    fn update(&self, optimizer: Optimizer) -> Option<StepCounts> {
        let [macs, other, transcendental, state] = match optimizer {
            Optimizer::None => [0; 4],
            // scale, subtract
            Optimizer::Sgd => self.each(2, 0, 0)?,
            // scale, add; scale, subtract
            Optimizer::Momentum => self.each(4, 0, 1)?,
            Optimizer::Adam => self.each(11, 2, 2)?,
            Optimizer::AdamW => self.adamw()?,
            Optimizer::Adam8bit => self.adam_8bit()?,
            Optimizer::Adafactor => self.adafactor()?,
            // b m + (1 - b) g 3, its sign 1; m again 3; w -= a (sign + l w) 4
            Optimizer::Lion => self.each(11, 0, 1)?,
            Optimizer::Muon => match self.matrix {
                Some(matrix) if self.is_hidden => self.muon(matrix)?,
                Some(_) | None => self.adamw()?,
            },
        };
        let bytes = self.elements.checked_mul(self.bits)?.div_ceil(8);
        let touched = if optimizer == Optimizer::None { 0 } else { bytes };
        Some(StepCounts {
            macs: Macs(macs),
            other_ops: Ops(other),
            transcendental_ops: Ops(transcendental),
            // parameter, gradient, state
            bytes_read: Bytes(touched.checked_mul(2)?.checked_add(state)?),
            bytes_written: Bytes(touched.checked_add(state)?),
            state_bytes: Bytes(state),
            gradient_bytes: Bytes(bytes),
        })
    }

    /// Operations and state elements per element.
    fn each(&self, other: u128, transcendental: u128, state: u128) -> Option<Update> {
        let times = |each: u128| self.elements.checked_mul(each);
        Some([0, times(other)?, times(transcendental)?, times(state * STATE_BYTES)?])
    }

    /// m = b1 m + (1 - b1) g: 3; v = b2 v + (1 - b2) g g: 4; sqrt(v) scaled for its bias, plus
    /// epsilon: a root and 2; w -= a m / that: a division and 2. (Adam's 11 and 2.) Decay
    /// w *= 1 - a l: 1. Powers of b1 and b2 are one number per step.
    fn adamw(&self) -> Option<Update> {
        self.each(12, 2, 2)
    }

    /// AdamW, and for each of both states: a code looked up and scaled 1, the largest magnitude of
    /// the block 2, divided by it 1, and the nearest of 256 codes found in 8 comparisons.
    fn adam_8bit(&self) -> Option<Update> {
        if self.elements < MIN_8BIT {
            return self.adamw();
        }
        let [macs, other, transcendental, _] = self.each(12 + 2 * 11, 2 + 2, 0)?;
        let scales = self.elements.div_ceil(BLOCK).checked_mul(STATE_BYTES)?;
        let state = self.elements.checked_add(scales)?.checked_mul(2)?;
        Some([macs, other, transcendental, state])
    }

    /// g g + e: 2; row and column means of it: 2; u = g times the reciprocal roots of both: 2; clip
    /// by the root mean square of u: 3; the root mean square of w for the step's size: 2;
    /// w -= a u: 2. Rows and columns: an average of 3, a root each. A vector keeps all second
    /// moments: 2, 3, a root, 1, 3, 2, 2.
    fn adafactor(&self) -> Option<Update> {
        let Some([n_matrices, rows, columns]) = self.matrix else {
            return self.each(13, 1, 1);
        };
        let sides = rows.checked_add(columns)?.checked_mul(n_matrices)?;
        let [macs, other, ..] = self.each(13, 0, 0)?;
        let other = other.checked_add(sides.checked_mul(3)?)?;
        Some([macs, other, sides, sides.checked_mul(STATE_BYTES)?])
    }

    /// m = b m + g and g + b m: 4; divided by its norm: 2 and a division; w -= a s X with decay: 4.
    /// Each iteration, for an m x n matrix with m the shorter side: A = X X^T, B = b A + c A A,
    /// X = a X + B X, which is 2 m m n + m m m MACs (5 (4 m m n + 2 m m m) FLOPs for five), and
    /// 3 m m and 2 m n other operations.
    fn muon(&self, [n_matrices, rows, columns]: [u128; 3]) -> Option<Update> {
        let (short, long) = (rows.min(columns), rows.max(columns));
        let square = short.checked_mul(short)?;
        let products =
            square.checked_mul(long)?.checked_mul(2)?.checked_add(square.checked_mul(short)?)?;
        let sums = square.checked_mul(3)?.checked_add(short.checked_mul(long)?.checked_mul(2)?)?;
        let iterations = n_matrices.checked_mul(MUON_ITERATIONS)?;
        let [_, other, transcendental, state] = self.each(10, 1, 1)?;
        Some([
            iterations.checked_mul(products)?,
            other.checked_add(iterations.checked_mul(sums)?)?,
            transcendental,
            state,
        ])
    }
}

/// What reads each parameter.
struct Uses {
    readers: HashMap<TensorId, Vec<NodeId>>,
    /// Tensors that are results of the model, or views through which one is seen.
    is_result: Vec<bool>,
}

impl Uses {
    fn new(graph: &Graph) -> Uses {
        let mut readers: HashMap<TensorId, Vec<NodeId>> = HashMap::new();
        let mut is_result = vec![false; graph.tensors.len()];
        for id in &graph.outputs {
            is_result[id.0] = true;
        }
        for (node_idx, node) in graph.nodes.iter().enumerate().rev() {
            let shows_result = node.op.is_view() && node.outputs.iter().any(|id| is_result[id.0]);
            for id in &node.inputs {
                is_result[id.0] |= shows_result;
                if graph.tensor(*id).role == Role::Parameter {
                    readers.entry(*id).or_default().push(NodeId(node_idx));
                }
            }
        }
        Uses { readers, is_result }
    }

    fn parameter(
        &self,
        graph: &Graph,
        id: TensorId,
        bindings: &Bindings,
    ) -> Result<Parameter, Error> {
        let known = graph.tensor(id).tensor_type.as_ref();
        let known = known.ok_or_else(|| Error::new("a parameter without a shape"))?;
        let lengths: Result<Vec<u128>, Error> =
            known.shape.0.iter().map(|length| count(length, bindings)).collect();
        let lengths = lengths?;
        let readers = || self.readers.get(&id).into_iter().flatten().map(|id| &graph.nodes[id.0]);
        let is_filter = readers().any(|node| matches!(node.op, Op::Convolution(_)));
        let is_table = readers().any(|node| matches!(node.op, Op::Embedding | Op::Gather { .. }));
        let is_last = readers().any(|node| {
            matches!(node.op, Op::MatMul(_)) && node.outputs.iter().any(|id| self.is_result[id.0])
        });
        let matrix = match lengths.as_slice() {
            [] | [_] => None,
            // A filter is a matrix of its outputs by all else, as Muon's author takes it.
            [rows, rest @ ..] if is_filter => Some([1, *rows, rest.iter().product()]),
            [matrices @ .., rows, columns] => Some([matrices.iter().product(), *rows, *columns]),
        };
        Ok(Parameter {
            elements: count(&known.shape.elements(), bindings)?,
            matrix,
            bits: u128::from(known.format.bits),
            is_hidden: !is_table && !is_last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected: MACs, other ops, transcendental ops, bytes read, bytes written, bytes of state.
    #[track_caller]
    fn check(optimizer: &str, parameter: Parameter, expected: [u128; 6]) {
        let optimizer: Optimizer = optimizer.parse().unwrap();
        let found = parameter.update(optimizer).unwrap();
        let found = [
            found.macs.0,
            found.other_ops.0,
            found.transcendental_ops.0,
            found.bytes_read.0,
            found.bytes_written.0,
            found.state_bytes.0,
        ];
        assert_eq!(found, expected, "{optimizer}");
        assert_eq!(optimizer.to_string().parse(), Ok(optimizer));
    }

    #[test]
    fn updates_follow_their_equations() {
        let matrix = |rows, columns| Parameter {
            elements: rows * columns,
            matrix: Some([1, rows, columns]),
            bits: 32,
            is_hidden: true,
        };
        let m = matrix(20, 50);
        check("none", m, [0, 0, 0, 0, 0, 0]);
        check("sgd", m, [0, 2000, 0, 8000, 4000, 0]);
        check("momentum", m, [0, 4000, 0, 12_000, 8000, 4000]);
        check("adam", m, [0, 11_000, 2000, 16_000, 12_000, 8000]);
        check("adamw", m, [0, 12_000, 2000, 16_000, 12_000, 8000]);
        // 4 bytes for each of 70 rows and columns.
        check("adafactor", m, [0, 13_210, 70, 8280, 4280, 280]);
        check("lion", m, [0, 11_000, 0, 12_000, 8000, 4000]);
        // 5 (2 * 400 * 50 + 8000) MACs; 5 (3 * 400 + 2 * 1000) adds and multiplies beside them.
        check("muon", m, [240_000, 10_000 + 16_000, 1000, 12_000, 8000, 4000]);
        check("muon", matrix(50, 20), [240_000, 26_000, 1000, 12_000, 8000, 4000]);
        let table = Parameter { is_hidden: false, ..m };
        check("muon", table, [0, 12_000, 2000, 16_000, 12_000, 8000]);
        // 16-bit weights and gradients; states of 4 bytes all the same.
        check("adamw", Parameter { bits: 16, ..m }, [0, 12_000, 2000, 12_000, 10_000, 8000]);
        // Below 4096 elements the states stay 32-bit; above, a byte each and 4 per 256.
        check("adam8bit", m, [0, 12_000, 2000, 16_000, 12_000, 8000]);
        let state = 2 * (10_000 + 4 * 40);
        let large = matrix(100, 100);
        check("adam8bit", large, [0, 340_000, 40_000, 80_000 + state, 40_000 + state, state]);
    }
}
