//! Convolutions of any number of axes: every output position times the whole kernel, padding
//! included, which is what the field counts (conventions 4).

use super::{Arithmetic, Operands};
use crate::graph::{Convolution, Dim, Direction};

/// MACs are positions times the weights that each position meets.
pub(super) fn convolution(op: &Convolution, operands: &Operands) -> Result<Arithmetic, String> {
    let (positions, weights_each) = factors(op, operands)?;
    let other = match operands.inputs.len() {
        3 => operands.output_elements()?,
        _ => Dim::ZERO,
    };
    Ok(Arithmetic { macs: &positions * &weights_each, other, transcendental: Dim::ZERO })
}

/// Forward, weight `[c_out, c_in/g, K..]`: outputs, and (c_in/g) * prod K for each.
/// Transposed, weight `[c_in, c_out/g, K..]`: inputs, and (c_out/g) * prod K for each.
pub(super) fn factors(op: &Convolution, operands: &Operands) -> Result<(Dim, Dim), String> {
    let weight = &operands.input(1)?.shape;
    let weights_each = Dim::product(weight.0.get(1..).ok_or("a weight without axes")?);
    let positions = match op.direction {
        Direction::Forward => operands.output_elements()?,
        Direction::Transposed { .. } => operands.input(0)?.shape.elements(),
    };
    Ok((positions, weights_each))
}
