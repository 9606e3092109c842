//! Norms, in primitive operations per element and per row that shares statistics.

use super::{Arithmetic, Operands};
use crate::graph::{Dim, Normalization};

pub(super) fn normalization(op: Normalization, operands: &Operands) -> Result<Arithmetic, String> {
    let input = &operands.input(0)?.shape;
    let elements = input.elements();
    let is_affine = operands.inputs.len() != 1;
    let channels = || input.0.get(1).cloned().ok_or("a norm over channels needs two axes");
    // (per element), rows, (per row)
    let (per_element, rows, per_row) = match op {
        // Per element scale and shift; per channel add eps, rsqrt, and three to fold the affine.
        Normalization::Batch => ((2, 0), channels()?, (4, 1)),
        // Sum, subtract, square, sum, multiply (+ weight, bias); per row two divisions, eps, rsqrt.
        Normalization::Layer { axes } => {
            ((if is_affine { 7 } else { 5 }, 0), rows_over(&input.0, axes)?, (1, 3))
        }
        // Square, sum, multiply (+ weight); per row one division, eps, rsqrt.
        Normalization::Rms { axes } => {
            ((if is_affine { 4 } else { 3 }, 0), rows_over(&input.0, axes)?, (1, 2))
        }
        Normalization::Group { groups } => {
            let per_sample = if groups == 0 { channels()? } else { Dim::from(groups) };
            let samples = input.0.first().cloned().unwrap_or(Dim::ONE);
            ((if is_affine { 7 } else { 5 }, 0), &samples * &per_sample, (1, 3))
        }
        // Square and add over the window, scale, add; power, divide.
        Normalization::LocalResponse { size } => ((size + 3, 2), Dim::ZERO, (0, 0)),
    };
    let elementwise = Arithmetic::per_element(&elements, per_element);
    let rowwise = Arithmetic::per_element(&rows, per_row);
    Ok(Arithmetic {
        macs: Dim::ZERO,
        other: &elementwise.other + &rowwise.other,
        transcendental: &elementwise.transcendental + &rowwise.transcendental,
    })
}

fn rows_over(lengths: &[Dim], axes: usize) -> Result<Dim, String> {
    let leading = lengths.len().checked_sub(axes).ok_or("a norm over more axes than there are")?;
    Ok(Dim::product(&lengths[..leading]))
}

/// How many groups of elements share statistics; none for local response norms.
pub(super) fn rows(op: Normalization, operands: &Operands) -> Result<Dim, String> {
    let input = &operands.input(0)?.shape.0;
    let channels = || input.get(1).cloned().ok_or("a norm over channels needs two axes");
    Ok(match op {
        Normalization::Batch => channels()?,
        Normalization::Layer { axes } | Normalization::Rms { axes } => rows_over(input, axes)?,
        Normalization::Group { groups } => {
            let per_sample = if groups == 0 { channels()? } else { Dim::from(groups) };
            input.first().unwrap_or(&Dim::ONE) * &per_sample
        }
        Normalization::LocalResponse { .. } => Dim::ZERO,
    })
}
