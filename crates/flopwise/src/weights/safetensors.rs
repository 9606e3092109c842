//! The header of a safetensors file, held to the rules of its format: 8 bytes of length, a JSON
//! object, then bytes that belong to exactly one tensor each.
//!
//! <https://github.com/huggingface/safetensors#format>; the limits and the list of dtypes are those
//! of `safetensors/src/tensor.rs`.

use super::source::{Reader, Source};
use super::{Contents, Kind, MAX_RANK, Place, StoredTensor, json, unreadable};
use crate::error::Error;
use flopwise_formats::Format;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Read;

/// The reference implementation reads no larger header; one of 100,000 tensors has about 12 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The largest checkpoints have 140,000 tensors (Kimi K2), and those in all their files together.
const MAX_TENSORS: usize = 200_000;
/// Entries under `__metadata__`, and the bytes of all; real files have a handful.
const MAX_METADATA: usize = 10_000;
const MAX_METADATA_BYTES: usize = 16 << 20;
/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;

const DTYPES: &[(&str, Format)] = &[
    ("BOOL", Format::BOOL),
    ("F4", Format::E2M1),
    ("F6_E2M3", Format::E2M3),
    ("F6_E3M2", Format::E3M2),
    ("U8", Format::UINT8),
    ("I8", Format::INT8),
    ("F8_E5M2", Format::E5M2),
    ("F8_E4M3", Format::E4M3FN), // torch.float8_e4m3fn, in spite of its name
    ("F8_E8M0", Format::E8M0),
    ("F8_E4M3FNUZ", Format::E4M3FNUZ),
    ("F8_E5M2FNUZ", Format::E5M2FNUZ),
    ("I16", Format::INT16),
    ("U16", Format::UINT16),
    ("F16", Format::FP16),
    ("BF16", Format::BF16),
    ("I32", Format::INT32),
    ("U32", Format::UINT32),
    ("F32", Format::FP32),
    ("C64", Format::COMPLEX64),
    ("F64", Format::FP64),
    ("I64", Format::INT64),
    ("U64", Format::UINT64),
];

/// Reads and checks the header.
pub(super) fn read(source: &Source) -> Result<Contents, Error> {
    let header_bytes = header_bytes(source)?;
    let text = Reader::at(source.clone(), LENGTH_BYTES).take(header_bytes);
    let header: Header = json::read(text)
        .map_err(|error| Error::new(format!("is not as safetensors defines it: {error}")))
        .map_err(|error| error.at("header").remedy("save it again with the safetensors library"))?;
    let mut names = HashSet::new();
    if let Some((twin, _)) = header.tensors.iter().find(|(name, _)| !names.insert(name)) {
        return Err(broken(twin, "stands twice in the header"));
    }
    drop(names);
    let data_at = LENGTH_BYTES + header_bytes;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for (name, entry) in header.tensors {
        tensors.push((entry.data_offsets, tensor(&name, entry, data_at)?));
    }
    // By position, so that whoever reads them in order reads the file in order.
    tensors.sort_by_key(|(offsets, _)| *offsets);
    without_holes(&tensors, source.len() - data_at)?;
    Ok(Contents {
        kind: Kind::Safetensors,
        tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect(),
        notes: Vec::new(),
        metadata: header.metadata,
        archive: None,
    })
}

/// Bytes of the JSON text, once they are plausible.
fn header_bytes(source: &Source) -> Result<u64, Error> {
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_exact_at(&mut length, 0).map_err(|error| unreadable(&error))?;
    let n_bytes = u64::from_le_bytes(length);
    let room = source.len() - LENGTH_BYTES;
    if MAX_HEADER_BYTES < n_bytes {
        let what = format!("claims {n_bytes} bytes, more than the {MAX_HEADER_BYTES} allowed");
        return Err(Error::new(what)
            .at("header")
            .remedy("this is no safetensors file, or damaged"));
    }
    if room < n_bytes {
        let what = format!("claims {n_bytes} bytes, but {room} follow its length");
        return Err(Error::new(what)
            .at("header")
            .remedy("the file is cut short: download it again"));
    }
    Ok(n_bytes)
}

fn broken(name: &str, what: impl Into<String>) -> Error {
    Error::new(what)
        .at(format!("tensor `{name}`"))
        .remedy("save it again with the safetensors library")
}

fn tensor(name: &str, entry: Entry, data_at: u64) -> Result<StoredTensor, Error> {
    let (dtype, format) = match entry.dtype {
        Dtype::Known(place) => DTYPES[usize::from(place)],
        Dtype::Unknown(dtype) => {
            let names: Vec<&str> = DTYPES.iter().map(|(dtype, _)| *dtype).collect();
            let what = format!("has dtype `{dtype}`; known are {}", names.join(", "));
            return Err(Error::new(what).at(format!("tensor `{name}`")));
        }
    };
    let shape = entry.shape.0;
    let (start, end) = entry.data_offsets;
    if end < start {
        return Err(broken(name, format!("ends at byte {end}, before it begins at {start}")));
    }
    let place = data_at.checked_add(start).map(Place::At);
    let tensor = place
        .and_then(|place| StoredTensor::new(name.to_owned(), format, shape.to_vec(), place))
        .ok_or_else(|| broken(name, format!("{dtype} {shape:?} is too large to have a size")))?;
    let bits = u128::from(tensor.elements) * u128::from(format.bits);
    if !bits.is_multiple_of(8) {
        return Err(broken(name, format!("{dtype} {shape:?} does not end on a whole byte")));
    }
    if tensor.bytes != end - start {
        let (wanted, given) = (tensor.bytes, end - start);
        let what = format!("{dtype} {shape:?} takes {wanted} bytes, its offsets span {given}");
        return Err(broken(name, what));
    }
    Ok(tensor)
}

/// Tensors in order of position must touch, from the first byte after the header to the last of
/// the file: hidden bytes could be another file.
fn without_holes(tensors: &[((u64, u64), StoredTensor)], data_bytes: u64) -> Result<(), Error> {
    let mut expected = 0;
    let mut before: Option<&str> = None;
    for ((start, end), tensor) in tensors {
        if *start < expected {
            let before = before.unwrap_or_default();
            return Err(broken(
                &tensor.name,
                format!("overlaps `{before}`, which ends at {expected}"),
            ));
        }
        if expected < *start {
            let what = format!("bytes {expected} to {start} before it belong to no tensor");
            return Err(broken(&tensor.name, what));
        }
        (expected, before) = (*end, Some(tensor.name.as_str()));
    }
    if data_bytes < expected {
        let what = format!("holds {data_bytes} of the {expected} bytes that its header describes");
        return Err(Error::new(what).remedy("the file is cut short: download it again"));
    }
    if expected < data_bytes {
        let surplus = data_bytes - expected;
        return Err(Error::new(format!("{surplus} bytes behind the last tensor belong to none"))
            .remedy("save it again with the safetensors library"));
    }
    Ok(())
}

/// The JSON object, in the file's order. What it holds is kept small: a header may have many.
struct Header {
    tensors: Vec<(Box<str>, Entry)>,
    metadata: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A dtype by its place among [`DTYPES`], or by its name.
enum Dtype {
    Known(u8),
    Unknown(Box<str>),
}

/// Sizes of at most [`MAX_RANK`] axes.
struct Shape(Box<[u64]>);

struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let place = DTYPES.iter().position(|(dtype, _)| *dtype == name);
        let place = place.and_then(|place| u8::try_from(place).ok());
        Ok(place.map_or_else(|| Dtype::Unknown(name.into()), Dtype::Known))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut header = Header { tensors: Vec::new(), metadata: BTreeMap::new() };
                let mut has_metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    let within = |error| de::Error::custom(format!("`{name}`: {error}"));
                    if name == "__metadata__" {
                        let Metadata(metadata) = map.next_value().map_err(within)?;
                        if std::mem::replace(&mut has_metadata, true) {
                            return Err(de::Error::duplicate_field("__metadata__"));
                        }
                        header.metadata = metadata;
                        continue;
                    }
                    let entry = map.next_value().map_err(within)?;
                    if header.tensors.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    header.tensors.push((name.into(), entry));
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut metadata = BTreeMap::new();
                let mut n_bytes = 0;
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    n_bytes += name.len() + text.len();
                    if MAX_METADATA_BYTES < n_bytes {
                        let what = format!("more than {MAX_METADATA_BYTES} bytes of metadata");
                        return Err(de::Error::custom(what));
                    }
                    if metadata.len() == MAX_METADATA {
                        return Err(de::Error::custom(format!("more than {MAX_METADATA} entries")));
                    }
                    if let Some(twin) = metadata.insert(name, text) {
                        let what = format!("a name stands twice, first with `{twin}`");
                        return Err(de::Error::custom(what));
                    }
                }
                Ok(Metadata(metadata))
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Self::Value, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(de::Error::custom(format!("more than {MAX_RANK} axes")));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape.into()))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}
