//! GGUF files: header, metadata, tensors in blocks, files in several pieces.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Big-endian files are read too; only
//! the values of their blocks are not, because writers differ in what they swap there. Not here:
//! what blocks stand for (`flopwise_formats::block`), and the model that the metadata describe
//! (`arch/gguf.rs`).

mod header;
mod layout;
mod shards;
#[cfg(test)]
mod tests;

pub(crate) use header::{Metadata, Value};
pub(crate) use layout::{Storage, Tensor};

use super::source::Source;
use super::{Contents, Kind, Place, StoredTensor};
use crate::error::Error;
use crate::import;
use crate::note::Note;
use bytes::Bytes;
use flopwise_formats::Format;
use std::path::Path;

/// The first bytes of a file.
pub(crate) const MAGIC: &[u8] = b"GGUF";

/// A file, or all files of a split model.
#[derive(Clone, Debug)]
pub(crate) struct Gguf {
    /// What the model says of itself.
    pub(crate) metadata: Metadata,
    /// The tensors by position, file after file.
    pub(crate) tensors: Vec<Tensor>,
    /// What is odd.
    pub(crate) notes: Vec<Note>,
    source: Source,
}

/// Reads the headers of the file at `path`, and of those that belong to it.
///
/// # Errors
/// [`Error`], naming the file: no GGUF, cut short, damaged.
pub(crate) fn open(path: &Path) -> Result<Gguf, Error> {
    let read = || {
        let (file, len) = import::open_file(path, ".gguf")?;
        read(Source::File { file: file.into(), len }, Some(path))
    };
    read().map_err(|error| error.in_file(path))
}

/// As [`open`], of a file in memory, by itself.
pub(crate) fn from_bytes(file: Bytes) -> Result<Gguf, Error> {
    read(Source::Memory(file), None)
}

/// Reads the header at the start of `source`, and, where the model is split and the file's path is
/// known, those of the other files.
pub(super) fn read(source: Source, path: Option<&Path>) -> Result<Gguf, Error> {
    let first = one(source)?;
    shards::join(first, path)
}

/// One file by itself.
fn one(source: Source) -> Result<Gguf, Error> {
    let (metadata, tensors, notes) = layout::tensors(header::read(&source)?, &source)?;
    Ok(Gguf { metadata, tensors, notes, source })
}

impl Gguf {
    /// The same as the contents of a checkpoint.
    pub(super) fn contents(self) -> (Contents, Source) {
        let Gguf { metadata, tensors, mut notes, source } = self;
        let unread: Vec<&Tensor> =
            tensors.iter().filter(|tensor| tensor.unknown_values().is_some()).collect();
        if let Some(first) = unread.first() {
            let bytes: u64 = unread.iter().map(|tensor| tensor.bytes).sum();
            notes.push(Note::new(format!(
                "tensors whose values cannot be read: {} of {} ({bytes} bytes; first: `{}`)",
                unread.len(),
                tensors.len(),
                first.name
            )));
        }
        let texts = metadata.iter().map(|(key, value)| (key.clone(), value.to_string()));
        let contents = Contents {
            kind: Kind::Gguf,
            tensors: tensors.into_iter().filter_map(stored).collect(),
            notes,
            metadata: texts.collect(),
            archive: None,
        };
        (contents, source)
    }
}

/// Sizes were checked, so that there always is one.
fn stored(tensor: Tensor) -> Option<StoredTensor> {
    let unread = tensor.unknown_values();
    let (format, block) = match tensor.storage {
        Storage::Plain(format) => (format, None),
        Storage::Blocks(block) => (Format::FP32, Some(block)),
    };
    let Tensor { name, shape, bytes, at, order, .. } = tensor;
    let plain = StoredTensor::new(name, format, shape, Place::At(at))?;
    Some(StoredTensor { bytes, byte_order: order, block, unread, ..plain })
}

impl std::fmt::Display for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Whole(number) => write!(formatter, "{number}"),
            Value::Real(number) => write!(formatter, "{number}"),
            Value::Flag(flag) => write!(formatter, "{flag}"),
            Value::Text(text) => formatter.write_str(text),
            Value::List(values) => {
                let shown: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(formatter, "[{}]", shown.join(", "))
            }
            Value::Long(entries) => write!(formatter, "({entries} entries or bytes)"),
        }
    }
}
