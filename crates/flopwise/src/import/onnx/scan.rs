//! A pass over the raw bytes before decoding: is this an ONNX model, and how much memory would its
//! messages take?
//!
//! Not here: decoding. An empty submessage takes 2 bytes in a file and some 200 in memory, so a
//! file of 16 MB could ask for gigabytes; the scan adds that up without allocating and refuses it.
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>.

use super::wire;
use crate::error::Error;
use std::mem::size_of;

/// What decoded messages may take, whatever the size of the file.
const BASE_BYTES: u64 = 64 << 20;
/// And beyond that, per byte of the file. Exports of PyTorch need 2 to 5.
const BYTES_PER_FILE_BYTE: u64 = 8;
/// Never more than this: weights stay in the mapped file, so that only names and nodes count.
const MAX_BYTES: u64 = 2 << 30;
/// Deepest nesting; a subgraph in an attribute of a node takes three levels.
const MAX_DEPTH: u32 = 90;

#[derive(Clone, Copy)]
enum Message {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    ElementType,
    Shape,
    Flat,
}

/// Refuses what is no ONNX model, is cut off, or would take too much memory.
pub(super) fn check(file: &[u8]) -> Result<(), Error> {
    if file.starts_with(b"version https://git-lfs") {
        let error = Error::new("not an ONNX model but a pointer of Git LFS");
        return Err(error.remedy("fetch the file itself with `git lfs pull`"));
    }
    let head = &file[..file.len().min(256)];
    let is_text = head.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..0x7f));
    if is_text {
        return Err(not_onnx("it is text"));
    }
    let per_byte = (file.len() as u64).saturating_mul(BYTES_PER_FILE_BYTE);
    let mut budget = BASE_BYTES.saturating_add(per_byte).min(MAX_BYTES);
    weigh(file, Message::Model, 0, &mut budget)
}

pub(super) fn not_onnx(why: &str) -> Error {
    Error::new(format!("not an ONNX model, or cut off: {why}"))
        .remedy("download or export the file again")
}

fn weigh(bytes: &[u8], message: Message, depth: u32, budget: &mut u64) -> Result<(), Error> {
    if MAX_DEPTH < depth {
        return Err(Error::new(format!("messages are nested deeper than {MAX_DEPTH}")));
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                varint(&mut rest)?;
                charge(8, budget)?;
            }
            1 => {
                take(&mut rest, 8)?;
            }
            5 => {
                take(&mut rest, 4)?;
                charge(4, budget)?;
            }
            2 => {
                let length = varint(&mut rest)?;
                let inner = take(&mut rest, length)?;
                nested(inner, message, key >> 3, depth, budget)?;
            }
            _ => return Err(not_onnx("a field has no known kind")),
        }
    }
    Ok(())
}

/// Weighs a field that has a length: a message, a text, or a list of packed numbers.
fn nested(
    inner: &[u8],
    message: Message,
    field: u64,
    depth: u32,
    budget: &mut u64,
) -> Result<(), Error> {
    let child = match (message, field) {
        (Message::Model, 7) => (Message::Graph, size_of::<wire::GraphProto>()),
        (Message::Model, 8) | (Message::Function, 9) => {
            (Message::Flat, size_of::<wire::OperatorSetIdProto>())
        }
        (Message::Model, 25) => (Message::Function, size_of::<wire::FunctionProto>()),
        (Message::Function, 11) => (Message::Attribute, size_of::<wire::AttributeProto>()),
        (Message::Graph, 1) | (Message::Function, 7) => {
            (Message::Node, size_of::<wire::NodeProto>())
        }
        (Message::Graph, 5) => (Message::Tensor, size_of::<wire::TensorProto>()),
        (Message::Graph, 11..=13) => (Message::ValueInfo, size_of::<wire::ValueInfoProto>()),
        (Message::Graph, 15) => (Message::SparseTensor, size_of::<wire::SparseTensorProto>()),
        (Message::Node, 5) => (Message::Attribute, size_of::<wire::AttributeProto>()),
        (Message::Node, 9) | (Message::Tensor, 13) => {
            (Message::Flat, size_of::<wire::StringStringEntryProto>())
        }
        (Message::Attribute, 5) | (Message::SparseTensor, 1) => {
            (Message::Tensor, size_of::<wire::TensorProto>())
        }
        (Message::Attribute, 6 | 11) => (Message::Graph, size_of::<wire::GraphProto>()),
        (Message::ValueInfo, 2) | (Message::Attribute, 14) | (Message::ElementType, 1) => {
            (Message::Type, size_of::<wire::TypeProto>())
        }
        (Message::Type, 4 | 9) => (Message::ElementType, size_of::<wire::ElementTypeProto>()),
        (Message::Type, 1 | 8) => (Message::TensorType, size_of::<wire::TensorTypeProto>()),
        (Message::TensorType, 2) => (Message::Shape, size_of::<wire::TensorShapeProto>()),
        (Message::Shape, 1) => (Message::Flat, size_of::<wire::DimensionProto>()),
        // Packed numbers that are decoded, at 8 bytes for each that takes at least one.
        (Message::Attribute, 7 | 8) | (Message::Tensor | Message::SparseTensor, 1 | 3) => {
            return charge(8 * inner.len() as u64, budget);
        }
        // Bulk data is not copied; what else there is, is text.
        (Message::Tensor, _) => return charge(size_of::<bytes::Bytes>() as u64, budget),
        _ => return charge((size_of::<String>() + inner.len()) as u64, budget),
    };
    let (kind, bytes) = child;
    charge(bytes as u64, budget)?;
    weigh(inner, kind, depth + 1, budget)
}

fn charge(bytes: u64, budget: &mut u64) -> Result<(), Error> {
    *budget = budget.checked_sub(bytes).ok_or_else(|| {
        Error::new(
            "holds more messages than any model of its size: reading it would take too much memory",
        )
    })?;
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    prost::encoding::decode_varint(rest).map_err(|_| not_onnx("a number is broken off"))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Error> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, after) =
        split.ok_or_else(|| not_onnx("a field reaches over the end of the file"))?;
    *rest = after;
    Ok(taken)
}
