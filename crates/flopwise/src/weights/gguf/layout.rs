//! Tensors of a GGUF file: their types and sizes, and whether they have room in the file.
//!
//! Not here: reading the header (`header.rs`), files in several pieces (`shards.rs`).

use super::super::ByteOrder;
use super::super::source::Source;
use super::header::{Header, Info, Metadata, Value};
use crate::error::Error;
use crate::note::Note;
use flopwise_formats::Format;
use flopwise_formats::block::{self, BlockFormat};
use std::collections::HashSet;

/// `GGUF_DEFAULT_ALIGNMENT`.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Types that are one number an element: `enum ggml_type`.
const PLAIN: &[(u32, Format)] = &[
    (0, Format::FP32),
    (1, Format::FP16),
    (24, Format::INT8),
    (25, Format::INT16),
    (26, Format::INT32),
    (27, Format::INT64),
    (28, Format::FP64),
    (30, Format::BF16),
];

/// Types that llama.cpp no longer has.
const REMOVED: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

/// `GGML_TYPE_Q8_1`, of which there are two sizes.
const Q8_1: u32 = 9;
/// A block of it with scale and sum in FP32, as before December 2023 and in gguf-py to this day.
const WIDE_Q8_1_BYTES: u64 = 40;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// One number an element.
    Plain(Format),
    /// Blocks of elements under shared scales.
    Blocks(&'static BlockFormat),
}

/// A tensor that has its room in the file.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// Its name.
    pub(crate) name: String,
    /// The slowest axis first.
    pub(crate) shape: Vec<u64>,
    /// How it is stored.
    pub(crate) storage: Storage,
    /// Bytes that it takes.
    pub(crate) bytes: u64,
    /// Its first byte.
    pub(super) at: u64,
    pub(super) order: ByteOrder,
}

/// The tensors of a header by position, and what is odd about them.
pub(super) fn tensors(
    header: Header,
    source: &Source,
) -> Result<(Metadata, Vec<Tensor>, Vec<Note>), Error> {
    let Header { order, metadata, infos, end } = header;
    let alignment = alignment(&metadata)?;
    let data_at = end.next_multiple_of(alignment);
    let mut names = HashSet::new();
    let mut tensors: Vec<Tensor> = Vec::with_capacity(infos.len());
    for info in &infos {
        let placed = tensor(info, order, alignment, data_at);
        let placed = placed.map_err(|error| error.at(format!("tensor `{}`", info.name)))?;
        if !names.insert(info.name.as_str()) {
            return Err(Error::new("stands twice").at(format!("tensor `{}`", info.name)));
        }
        tensors.push(placed);
    }
    tensors.sort_by_key(|tensor| (tensor.at, tensor.bytes));
    widen(&mut tensors, alignment, source.len());
    let notes = check_places(&tensors, (data_at, alignment), source.len())?;
    Ok((metadata, tensors, notes))
}

fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    let key = "general.alignment";
    match metadata.get(key) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Whole(given)) => {
            // The type that the specification gives it.
            let alignment = u32::try_from(*given).ok().filter(|given| given.is_power_of_two());
            alignment.map(u64::from).ok_or_else(|| {
                Error::new(format!("is {given}, no power of two")).at(format!("metadata `{key}`"))
            })
        }
        Some(
            Value::Real(_) | Value::Flag(_) | Value::Text(_) | Value::List(_) | Value::Long(_),
        ) => Err(Error::new("is no whole number").at(format!("metadata `{key}`"))),
    }
}

fn storage(type_id: u32) -> Result<Storage, Error> {
    if let Some((_, format)) = PLAIN.iter().find(|(known, _)| *known == type_id) {
        return Ok(Storage::Plain(*format));
    }
    if let Some(block) = block::by_ggml_type(type_id) {
        return Ok(Storage::Blocks(block));
    }
    match REMOVED.iter().find(|(removed, _)| *removed == type_id) {
        Some((_, name)) => Err(Error::new(format!("has type {type_id} ({name}), long removed"))
            .remedy("convert the model again with a current llama.cpp")),
        None => Err(Error::new(format!("has type {type_id}, which is not known"))),
    }
}

fn tensor(info: &Info, order: ByteOrder, alignment: u64, data_at: u64) -> Result<Tensor, Error> {
    let storage = storage(info.type_id)?;
    let too_large = || Error::new(format!("{:?} is too large to have a size", info.dims));
    // An axis of 0 does not hide an overflow of the others.
    let mut sizes = info.dims.iter().filter(|size| **size != 0);
    let product = sizes.try_fold(1u64, |product, size| product.checked_mul(*size));
    let product = product.ok_or_else(too_large)?;
    let elements = if info.dims.contains(&0) { 0 } else { product };
    let (block_elements, block_bytes) = match storage {
        Storage::Plain(format) => (1, u64::from(format.bits) / 8),
        Storage::Blocks(block) => (block.elements as u64, block.bytes as u64),
    };
    let row = info.dims.first().copied().unwrap_or(1);
    if !row.is_multiple_of(block_elements) {
        let what = format!("has rows of {row} elements, no whole blocks of {block_elements}");
        return Err(Error::new(what));
    }
    let bytes = elements / block_elements;
    let bytes = bytes.checked_mul(block_bytes).ok_or_else(too_large)?;
    if !info.offset.is_multiple_of(alignment) {
        let what =
            format!("begins at byte {} of the data, not aligned to {alignment}", info.offset);
        return Err(Error::new(what));
    }
    let at = data_at.checked_add(info.offset).filter(|at| at.checked_add(bytes).is_some());
    let at = at.ok_or_else(|| Error::new(format!("begins at byte {} of the data", info.offset)))?;
    let shape = info.dims.iter().rev().copied().collect();
    Ok(Tensor { name: info.name.clone(), shape, storage, bytes, at, order })
}

/// Takes Q8_1 for its larger form where that is what fills the room up to the next tensor.
fn widen(tensors: &mut [Tensor], alignment: u64, len: u64) {
    for tensor_idx in 0..tensors.len() {
        let next = tensors.get(tensor_idx + 1).map_or(len, |next| next.at);
        let tensor = &mut tensors[tensor_idx];
        let Storage::Blocks(block) = tensor.storage else { continue };
        if block.ggml_type != Some(Q8_1) {
            continue;
        }
        let wide = (tensor.bytes / block.bytes as u64).saturating_mul(WIDE_Q8_1_BYTES);
        let ends = |bytes: u64| {
            let end = tensor.at.saturating_add(bytes);
            [Some(end), end.checked_next_multiple_of(alignment)].contains(&Some(next))
        };
        if ends(wide) && !ends(tensor.bytes) {
            tensor.bytes = wide;
        }
    }
}

/// Tensors in order of position must not overlap or reach beyond the file.
fn check_places(
    tensors: &[Tensor],
    (data_at, alignment): (u64, u64),
    len: u64,
) -> Result<Vec<Note>, Error> {
    let mut end = data_at;
    let mut before: Option<&Tensor> = None;
    let mut unused = 0;
    for tensor in tensors.iter().filter(|tensor| 0 < tensor.bytes) {
        let place = || format!("tensor `{}`", tensor.name);
        if let Some(before) = before.filter(|_| tensor.at < end) {
            let what = format!("begins at byte {}, within `{}`", tensor.at, before.name);
            return Err(Error::new(what).at(place()).remedy("convert the model again"));
        }
        let gap = tensor.at - end;
        unused += if gap < alignment { 0 } else { gap };
        end = tensor.at + tensor.bytes;
        if len < end {
            let what = format!("ends at byte {end}, the file has {len}");
            let remedy = "the file is cut short: download it again";
            return Err(Error::new(what).at(place()).remedy(remedy));
        }
        before = Some(tensor);
    }
    let surplus = len.saturating_sub(end);
    unused += if surplus < alignment { 0 } else { surplus };
    if unused == 0 || before.is_none() {
        return Ok(Vec::new());
    }
    Ok(vec![Note::new(format!("{unused} bytes between or behind the tensors belong to none"))])
}

impl Tensor {
    /// Elements in all.
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Why its values are not known, where they are not.
    pub(super) fn unknown_values(&self) -> Option<String> {
        let Storage::Blocks(block) = self.storage else { return None };
        if !block.can_decode() {
            return Some(format!("{block} takes its values from grids that are not held here"));
        }
        if self.order == ByteOrder::Big {
            let why = "in big-endian files some writers swap the bytes within blocks, others not";
            return Some(format!("{block}: {why}"));
        }
        let own = self.elements() / block.elements as u64 * block.bytes as u64;
        let why = "blocks of 40 bytes, which llama.cpp has not had since 2023";
        (self.bytes != own).then(|| format!("{block}: {why}"))
    }
}
