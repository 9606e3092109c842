//! Convolutions of any number of axes: every output position times the whole kernel, padding
//! included, which is what the field counts (conventions 4).

use super::{Arithmetic, Operands};
use crate::graph::{Convolution, Dim, Direction};

/// Forward, weight `[c_out, c_in/g, K..]`: MACs = outputs * (c_in/g) * prod K.
/// Transposed, weight `[c_in, c_out/g, K..]`: MACs = inputs * (c_out/g) * prod K.
pub(super) fn convolution(op: &Convolution, operands: &Operands) -> Result<Arithmetic, String> {
    let weight = &operands.input(1)?.shape;
    let per_position = Dim::product(weight.0.get(1..).ok_or("a weight without axes")?);
    let outputs = operands.output_elements()?;
    let positions = match op.direction {
        Direction::Forward => outputs.clone(),
        Direction::Transposed { .. } => operands.input(0)?.shape.elements(),
    };
    let other = if operands.inputs.len() == 3 { outputs } else { Dim::ZERO };
    Ok(Arithmetic { macs: &positions * &per_position, other, transcendental: Dim::ZERO })
}
