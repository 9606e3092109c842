//! Weights stored in another format than the file's, scales included.
//!
//! Not here: what a format does to their values (see the crate `flopwise-formats`).

use super::tensor_bytes;
use crate::graph::{
    Convolution, Dim, Direction, Graph, MatMul, Node, Op, Orientation, Role, Stored, TensorId,
};
use crate::note::Note;
use flopwise_formats::block::BlockFormat;
use flopwise_formats::{Format, block};
use std::collections::HashMap;

/// A format that weights can be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// One code per element.
    Plain(Format),
    /// Blocks of elements under a shared scale.
    Blocks(&'static BlockFormat),
}

impl std::str::FromStr for WeightFormat {
    type Err = String;

    /// A name of the catalogue: `bf16`, `fp8_e4m3`, `int4`, `mxfp4`, `nvfp4`, `q4_k`.
    fn from_str(text: &str) -> Result<WeightFormat, String> {
        if let Ok(blocks) = block::parse(text) {
            return Ok(WeightFormat::Blocks(blocks));
        }
        let format = flopwise_formats::parse(text).map_err(|error| error.to_string())?;
        match format.bits {
            0 => Err(format!("`{text}` holds no numbers")),
            _ => Ok(WeightFormat::Plain(format)),
        }
    }
}

/// Stores the parameters in a format: all that hold floats, where it has 16 bits or more; otherwise
/// only matrices and kernels, because biases and the scales of normalisations stay as they are
/// wherever weights are quantised. Blocks lie along the axes that a product sums over, the last one
/// of each row filled up.
pub fn store_weights(graph: &mut Graph, format: WeightFormat) {
    let rows = summed_axes(graph);
    let (mut n_stored, mut elements, mut bytes) = (0usize, Dim::ZERO, Dim::ZERO);
    for tensor_idx in 0..graph.tensors.len() {
        let id = TensorId(tensor_idx);
        let tensor = &mut graph.tensors[tensor_idx];
        let Some(known) = &mut tensor.tensor_type else { continue };
        if tensor.role != Role::Parameter || !known.format.is_float() {
            continue;
        }
        let row = rows.get(&id);
        match format {
            WeightFormat::Plain(format) if 16 <= format.bits || row.is_some() => {
                known.format = format;
                tensor.stored = None;
            }
            WeightFormat::Blocks(block) if row.is_some() => {
                let row_axes = row.cloned().unwrap_or_default();
                tensor.stored = Some(Stored { block, row_axes });
            }
            WeightFormat::Plain(_) | WeightFormat::Blocks(_) => continue,
        }
        n_stored += 1;
        elements = &elements + &known.shape.elements();
        bytes = &bytes + &tensor_bytes(graph, id);
    }
    let (name, each) = match format {
        WeightFormat::Plain(format) => (format.to_string(), format!("{} bits", format.bits)),
        WeightFormat::Blocks(block) => {
            (block.name.to_owned(), format!("{} bits, scales included", block.bits_per_weight()))
        }
    };
    graph.notes.push(Note::new(format!(
        "{elements} parameters in {n_stored} tensors are stored as {name} ({each}): {bytes} bytes; \
         the others as in the file"
    )));
}

/// For each parameter that a product or a lookup reads, the axes of one row: those summed over.
fn summed_axes(graph: &Graph) -> HashMap<TensorId, Vec<usize>> {
    // Tensors that are a parameter seen with its axes in another order.
    let mut seen: HashMap<TensorId, (TensorId, Vec<usize>)> = HashMap::new();
    for (tensor_idx, tensor) in graph.tensors.iter().enumerate() {
        if let (Role::Parameter, Some(known)) = (tensor.role, &tensor.tensor_type) {
            let id = TensorId(tensor_idx);
            seen.insert(id, (id, (0..known.shape.rank()).collect()));
        }
    }
    let mut rows: HashMap<TensorId, Vec<usize>> = HashMap::new();
    for node in &graph.nodes {
        for (slot, operand) in node.inputs.iter().enumerate() {
            let Some((parameter, axes)) = seen.get(operand).cloned() else { continue };
            if let Some(summed) = summed_by(node, slot, axes.len()) {
                let summed = summed.into_iter().map(|axis| axes[axis]).collect();
                rows.entry(parameter).or_insert(summed);
            }
            if let (0, [output]) = (slot, node.outputs.as_slice())
                && let Some(axes) = passed_on(&node.op, axes)
            {
                seen.insert(*output, (parameter, axes));
            }
        }
    }
    rows
}

/// The axes of operand `slot`, of so many, that the node sums over; for a lookup, one row's.
fn summed_by(node: &Node, slot: usize, rank: usize) -> Option<Vec<usize>> {
    let last = rank.checked_sub(1)?;
    let last_but_one = rank.checked_sub(2)?;
    Some(match (&node.op, slot) {
        (Op::MatMul(MatMul { a, .. }), 0) => match a {
            Orientation::Plain => vec![last],
            Orientation::Transposed => vec![last_but_one],
        },
        (Op::MatMul(MatMul { b, .. }) | Op::GroupedMatMul { stack: b }, 1) => match b {
            Orientation::Plain => vec![last_but_one],
            Orientation::Transposed => vec![last],
        },
        (Op::Convolution(Convolution { direction: Direction::Forward, .. }), 1) => {
            (1..rank).collect()
        }
        (Op::Convolution(_), 1) => (0..rank).filter(|axis| *axis != 1).collect(),
        (Op::Embedding | Op::Gather { axis: 0 }, 0) => vec![last],
        (Op::Recurrent(_), 1..) => vec![last],
        (Op::Einsum(einsum), _) => {
            let labels = einsum.inputs.get(slot)?.iter().enumerate();
            labels.filter(|(_, l)| !einsum.output.contains(l)).map(|(axis, _)| axis).collect()
        }
        _ => return None,
    })
}

/// The axes of a parameter behind a node that only passes it on.
fn passed_on(op: &Op, axes: Vec<usize>) -> Option<Vec<usize>> {
    if let Op::Transpose { permutation, .. } = op {
        return permutation.iter().map(|axis| axes.get(*axis).copied()).collect();
    }
    matches!(op, Op::Identity | Op::Cast(_)).then_some(axes)
}
