//! Weights stored in another format than the file's, scales included.
//!
//! Not here: what a format does to their values (see the crate `flopwise-formats`).

use super::{bytes_of, tensor_bytes};
use crate::graph::{
    Convolution, Dim, Direction, Graph, MatMul, Node, Op, Orientation, Role, Stored, StoredFormat,
    TensorId, TensorType,
};
use crate::note::Note;
use std::collections::HashMap;

/// Stores the parameters in a format: all that hold floats, where it has 16 bits or more; otherwise
/// only matrices and kernels, because biases and the scales of normalisations stay as they are
/// wherever weights are quantised. Blocks lie along the axes that a product sums over, the last one
/// of each row filled up.
pub fn store_weights(graph: &mut Graph, format: StoredFormat) {
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
            StoredFormat::Plain(format) if 16 <= format.bits || row.is_some() => {
                known.format = format;
                tensor.stored = None;
            }
            StoredFormat::Blocks(block) if row.is_some() => {
                let row_axes = row.cloned().unwrap_or_default();
                tensor.stored = Some(Stored::Blocks { block, row_axes });
            }
            StoredFormat::Plain(_) | StoredFormat::Blocks(_) => continue,
        }
        n_stored += 1;
        elements = &elements + &known.shape.elements();
        bytes = &bytes + &tensor_bytes(graph, id);
    }
    let (name, each) = match format {
        StoredFormat::Plain(format) => (format.to_string(), format!("{} bits", format.bits)),
        StoredFormat::Blocks(block) => {
            (block.name.to_owned(), format!("{} bits, scales included", block.bits_per_weight()))
        }
    };
    graph.notes.push(Note::new(format!(
        "{elements} parameters in {n_stored} tensors are stored as {name} ({each}): {bytes} bytes; \
         the others as in the file"
    )));
}

/// Formats that weights are commonly stored in, for a table: their names here, and what they are
/// called elsewhere where that differs.
const TABLED: [(&str, &str); 13] = [
    ("fp32", ""),
    ("bf16", ""),
    ("fp8_e4m3", ""),
    ("mxfp8_e4m3", ""),
    ("int8", "no scales"),
    ("q8_0", "GGUF"),
    ("q6_k", "GGUF"),
    ("q5_k", "GGUF"),
    ("q4_k", "GGUF"),
    ("nf4_g64", "bitsandbytes"),
    ("nvfp4", ""),
    ("mxfp4", ""),
    ("int4_g128", "symmetric"),
];
/// Elements under a scale and a zero point in GPTQ's and AWQ's usual checkpoints.
const GROUP: i64 = 128;
/// Bits of a group: 4 each, an FP16 scale, a zero point of 4 bits; 4.15625 per weight.
const GROUP_BITS: i64 = 4 * GROUP + 16 + 4;

/// What a model's weights take in one format.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightRow {
    /// The format; with what else it is called, or how it is meant.
    pub format: String,
    /// Bits of one weight of a matrix, scales included.
    pub bits_per_weight: f64,
    /// Bytes of all parameters, those included that keep the format of the file.
    pub bytes: Dim,
}

/// The weights in common formats, by the rule of [`store_weights`].
#[must_use]
pub fn weight_table(graph: &Graph) -> Vec<WeightRow> {
    let rows = summed_axes(graph);
    let mut table = Vec::new();
    for (name, also) in TABLED {
        let Ok(format) = name.parse::<StoredFormat>() else { continue };
        let bytes = total(graph, &rows, |known, row| match (format, row) {
            (StoredFormat::Plain(format), row) if 16 <= format.bits || row.is_some() => {
                Some(bytes_of(&TensorType { shape: known.shape.clone(), format }))
            }
            (StoredFormat::Blocks(block), Some(row)) => {
                Some(Stored::Blocks { block, row_axes: row.clone() }.bytes(&known.shape))
            }
            (StoredFormat::Plain(_) | StoredFormat::Blocks(_), _) => None,
        });
        let bits_per_weight = match format {
            StoredFormat::Plain(format) => f64::from(format.bits),
            StoredFormat::Blocks(block) => 8.0 * block.bytes as f64 / block.elements as f64,
        };
        let format = if also.is_empty() { name.to_owned() } else { format!("{name} ({also})") };
        table.push(WeightRow { format, bits_per_weight, bytes });
    }
    let grouped = total(graph, &rows, |known, row| {
        let is_row = |axis: usize| row.is_some_and(|row| row.contains(&axis));
        let axes = |wanted: bool| {
            let lengths = known.shape.0.iter().enumerate();
            Dim::product(lengths.filter(|(axis, _)| is_row(*axis) == wanted).map(|(_, n)| n))
        };
        let groups = &axes(false) * &axes(true).ceil_div(&Dim::from(GROUP));
        row.map(|_| (&groups * &Dim::from(GROUP_BITS)).ceil_div(&Dim::from(8i64)))
    });
    table.push(WeightRow {
        format: "int4 g128 with zero points (GPTQ, AWQ)".to_owned(),
        bits_per_weight: GROUP_BITS as f64 / GROUP as f64,
        bytes: grouped,
    });
    table
}

/// Bytes of all parameters; of those that hold floats what `of` says of their type and the axes of a
/// row, unless it says nothing.
fn total(
    graph: &Graph,
    rows: &HashMap<TensorId, Vec<usize>>,
    of: impl Fn(&TensorType, Option<&Vec<usize>>) -> Option<Dim>,
) -> Dim {
    let each = graph.tensors.iter().enumerate().filter_map(|(tensor_idx, tensor)| {
        let known = tensor.tensor_type.as_ref().filter(|_| tensor.role == Role::Parameter)?;
        let id = TensorId(tensor_idx);
        let stored = known.format.is_float().then(|| of(known, rows.get(&id))).flatten();
        Some(stored.unwrap_or_else(|| tensor_bytes(graph, id)))
    });
    each.sum()
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
