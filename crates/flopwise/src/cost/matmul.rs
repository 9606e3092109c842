//! Matrix products: m * n * k multiply-accumulates per matrix; an addend is one add per element.

use super::{Arithmetic, Operands};
use crate::graph::{Dim, Einsum, MatMul, Orientation};
use std::collections::BTreeMap;

pub(super) fn matmul(op: MatMul, operands: &Operands) -> Result<Arithmetic, String> {
    let outputs = operands.output_elements()?;
    let has_addend = 2 + op.scales < operands.inputs.len();
    let other = if has_addend { outputs.clone() } else { Dim::ZERO };
    Ok(Arithmetic { macs: &outputs * &inner_size(op, operands)?, other, transcendental: Dim::ZERO })
}

/// How many products each result sums.
pub(super) fn inner_size(op: MatMul, operands: &Operands) -> Result<Dim, String> {
    let a = &operands.input(0)?.shape;
    let from_end = match op.a {
        Orientation::Transposed if a.rank() != 1 => 2,
        Orientation::Plain | Orientation::Transposed => 1,
    };
    let inner_axis = a.rank().checked_sub(from_end).ok_or("a scalar in a matrix product")?;
    Ok(a.0[inner_axis].clone())
}

/// Each row meets the matrix of its own group only.
pub(super) fn grouped(operands: &Operands) -> Result<Arithmetic, String> {
    let outputs = operands.output_elements()?;
    let inner = operands.input(0)?.shape.0.last().ok_or("a scalar in a matrix product")?;
    let other = if has_group_addend(operands) { outputs.clone() } else { Dim::ZERO };
    Ok(Arithmetic { macs: &outputs * inner, other, transcendental: Dim::ZERO })
}

/// Whether the third operand is added to the results, a row per group.
pub(super) fn has_group_addend(operands: &Operands) -> bool {
    operands.inputs.get(2).is_some_and(|addend| addend.shape.rank() == 2)
}

/// Operands are contracted pairwise from left to right. A step that sums over a label costs one
/// MAC per combination of all its labels, one that does not costs one multiply
/// (numpy.einsum_path counts the same way, halved).
pub(super) fn einsum(op: &Einsum, operands: &Operands) -> Result<Arithmetic, String> {
    let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
    for (labels, input) in op.inputs.iter().zip(&operands.inputs) {
        for (label, length) in labels.iter().zip(&input.shape.0) {
            let is_wider = sizes.get(label).is_none_or(|size| *size == Dim::ONE);
            if is_wider {
                sizes.insert(*label, length.clone());
            }
        }
    }
    let combinations = |labels: &[char]| Dim::product(labels.iter().filter_map(|l| sizes.get(l)));
    let mut arithmetic = Arithmetic::none();
    let Some(first) = op.inputs.first() else { return Err("einsum without inputs".to_owned()) };
    let mut left = distinct(first.clone());
    for (input_idx, right) in op.inputs.iter().enumerate().skip(1) {
        let all = distinct([left.as_slice(), right.as_slice()].concat());
        let needed_later = |label: &char| {
            op.output.contains(label)
                || op.inputs[input_idx + 1..].iter().flatten().any(|l| l == label)
        };
        let kept: Vec<char> = all.iter().copied().filter(needed_later).collect();
        match kept.len() == all.len() {
            true => arithmetic.other = &arithmetic.other + &combinations(&all),
            false => arithmetic.macs = &arithmetic.macs + &combinations(&all),
        }
        left = kept;
    }
    if op.inputs.len() == 1 && left.len() != op.output.len() {
        // A sum over the labels that go.
        arithmetic.other = &combinations(&left) - &combinations(&op.output);
    }
    Ok(arithmetic)
}

fn distinct(mut labels: Vec<char>) -> Vec<char> {
    labels.sort_unstable();
    labels.dedup();
    labels
}
