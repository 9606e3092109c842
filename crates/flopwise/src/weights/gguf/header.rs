//! The header of a GGUF file: counts, metadata, and where each tensor lies.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; versions 1 (lengths of 32 bits), 2
//! and 3, and either byte order. Long lists (the words of a tokenizer) are walked over, not kept.
//! Not here: what the types of tensors are, and whether they fit the file (`layout.rs`).

use super::super::source::Source;
use super::super::{ByteOrder, unreadable};
use crate::error::Error;
use std::collections::BTreeMap;

/// Read in one go. The metadata of a tokenizer of 128,000 words takes 8 MB.
const BUFFER_BYTES: usize = 256 << 10;
/// No known header has more than 30 MB; this much is read in a tenth of a second.
const MAX_HEADER_BYTES: u64 = 256 << 20;
/// The largest models have about 2,000 tensors in all their files together.
pub(super) const MAX_TENSORS: u64 = 65_536;
/// Real files have fewer than 100 keys.
const MAX_KEYS: u64 = 16_384;
/// The specification's own limit for the length of a key.
const MAX_KEY_BYTES: u64 = 65_535;
/// `GGML_MAX_NAME` is 64, and 128 in some builds.
const MAX_NAME_BYTES: u64 = 255;
/// `GGML_MAX_DIMS`.
const MAX_DIMS: u32 = 4;
/// Texts and lists within lists, over all metadata: the largest tokenizers have a million.
const MAX_WALKED: u64 = 4 << 20;
/// Lists of lists: no known key has any.
const MAX_DEPTH: u32 = 8;
/// Numbers of a list that is kept: one for each layer, with room.
const MAX_NUMBERS: u64 = 4096;
/// Texts of a list that is kept: tags and languages of the model.
const MAX_TEXTS: u64 = 64;
/// Bytes of a text that is kept; a chat template has more and is not.
const MAX_TEXT_BYTES: u64 = 1024;
/// Bytes kept of all metadata.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Of any width, signed or not.
    Whole(i128),
    /// FP32 or FP64.
    Real(f64),
    /// True or false.
    Flag(bool),
    /// A short text.
    Text(String),
    /// A short list.
    List(Vec<Value>),
    /// A long text or list, of so many bytes or entries, that was walked over.
    Long(u64),
}

/// The metadata by key.
pub(crate) type Metadata = BTreeMap<String, Value>;

/// What a header says of one tensor.
#[derive(Clone, Debug)]
pub(super) struct Info {
    pub(super) name: String,
    /// The fastest axis first.
    pub(super) dims: Vec<u64>,
    pub(super) type_id: u32,
    /// From the start of the data.
    pub(super) offset: u64,
}

/// A whole header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) order: ByteOrder,
    pub(super) metadata: Metadata,
    pub(super) infos: Vec<Info>,
    /// Where the header ends.
    pub(super) end: u64,
}

/// Reads the header at the start of a file.
pub(super) fn read(source: &Source) -> Result<Header, Error> {
    let mut cursor = Cursor {
        source,
        buffer: Vec::new(),
        start: 0,
        position: 0,
        order: ByteOrder::Little,
        is_first_version: false,
        walked: 0,
        kept_bytes: 0,
    };
    let at_counts = |error: Error| error.at("header");
    cursor.version().map_err(at_counts)?;
    let n_tensors = cursor.length().map_err(at_counts)?;
    let n_keys = cursor.length().map_err(at_counts)?;
    // A name without characters, no axes, a type, an offset; a key likewise.
    cursor.check_count("tensors", n_tensors, MAX_TENSORS, 20).map_err(at_counts)?;
    cursor.check_count("keys", n_keys, MAX_KEYS, 9).map_err(at_counts)?;
    let mut metadata = Metadata::new();
    for key_idx in 0..n_keys {
        let place = || format!("metadata, key {} of {n_keys}", key_idx + 1);
        let key = cursor.name("key", MAX_KEY_BYTES).map_err(|error| error.at(place()))?;
        let value = cursor.any_value().map_err(|error| error.at(format!("metadata `{key}`")))?;
        if metadata.contains_key(&key) {
            return Err(Error::new("stands twice").at(format!("metadata `{key}`")));
        }
        metadata.insert(key, value);
    }
    let mut infos = Vec::new();
    for tensor_idx in 0..n_tensors {
        let place = || format!("tensor {} of {n_tensors}", tensor_idx + 1);
        let name = cursor.name("name", MAX_NAME_BYTES).map_err(|error| error.at(place()))?;
        let info = cursor.info(name.clone());
        infos.push(info.map_err(|error| error.at(format!("tensor `{name}`")))?);
    }
    Ok(Header { order: cursor.order, metadata, infos, end: cursor.at() })
}

/// A position in a header, with a piece of it in memory.
struct Cursor<'a> {
    source: &'a Source,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    position: usize,
    order: ByteOrder,
    /// Whether counts and lengths have 32 bits.
    is_first_version: bool,
    walked: u64,
    kept_bytes: usize,
}

impl Cursor<'_> {
    fn at(&self) -> u64 {
        self.start + self.position as u64
    }

    /// Bytes of the file from here on.
    fn left(&self) -> u64 {
        self.source.len() - self.at()
    }

    /// Sees to it that the next bytes are in the buffer, which is larger than they are.
    fn fill(&mut self, n_bytes: usize) -> Result<(), Error> {
        if n_bytes <= self.buffer.len() - self.position {
            return Ok(());
        }
        self.check_left(n_bytes as u64)?;
        let size = self.left().min(BUFFER_BYTES as u64) as usize;
        (self.start, self.position) = (self.at(), 0);
        self.buffer.resize(size, 0);
        let read = self.source.read_exact_at(&mut self.buffer, self.start);
        read.map_err(|error| unreadable(&error))
    }

    fn check_left(&self, n_bytes: u64) -> Result<(), Error> {
        let len = self.source.len();
        if self.left() < n_bytes {
            let what = format!("takes {n_bytes} bytes at byte {}, the file has {len}", self.at());
            return Err(Error::new(what).remedy("the file is cut short: download it again"));
        }
        if MAX_HEADER_BYTES - self.at().min(MAX_HEADER_BYTES) < n_bytes {
            let what = format!("the header is longer than {MAX_HEADER_BYTES} bytes");
            return Err(Error::new(what).remedy("the file is damaged"));
        }
        Ok(())
    }

    fn skip(&mut self, n_bytes: u64) -> Result<(), Error> {
        let buffered = (self.buffer.len() - self.position) as u64;
        if n_bytes <= buffered {
            self.position += n_bytes as usize;
            return Ok(());
        }
        self.check_left(n_bytes)?;
        (self.start, self.position) = (self.at() + n_bytes, 0);
        self.buffer.clear();
        Ok(())
    }

    /// The next bytes, least significant first.
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.fill(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[self.position..self.position + N]);
        self.position += N;
        match self.order {
            ByteOrder::Little => {}
            ByteOrder::Big => bytes.reverse(),
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.bytes().map(u32::from_le_bytes)
    }

    /// A count or a length.
    fn length(&mut self) -> Result<u64, Error> {
        match self.is_first_version {
            true => self.u32().map(u64::from),
            false => self.bytes().map(u64::from_le_bytes),
        }
    }

    fn length_bytes(&self) -> u64 {
        if self.is_first_version { 4 } else { 8 }
    }

    /// The magic and the version, which also tells the byte order.
    fn version(&mut self) -> Result<(), Error> {
        self.skip(super::MAGIC.len() as u64)?;
        let bytes: [u8; 4] = self.bytes()?;
        let (little, big) = (u32::from_le_bytes(bytes), u32::from_be_bytes(bytes));
        let version = match (little, big) {
            (1..=3, _) => little,
            (_, 1..=3) => {
                self.order = ByteOrder::Big;
                big
            }
            _ => {
                let what = format!("says version {little}; 1, 2 and 3 are known");
                return Err(Error::new(what));
            }
        };
        self.is_first_version = version == 1;
        Ok(())
    }

    /// Refuses more things than are sensible, or than have room in the file.
    fn check_count(&self, what: &str, n: u64, most: u64, least_bytes: u64) -> Result<(), Error> {
        if most < n {
            return Err(Error::new(format!("claims {n} {what}, more than the {most} allowed")));
        }
        if self.left() / least_bytes < n {
            let what = format!("claims {n} {what}, for which {} bytes are too few", self.left());
            return Err(Error::new(what).remedy("the file is cut short or damaged"));
        }
        Ok(())
    }

    fn walk(&mut self, entries: u64) -> Result<(), Error> {
        self.walked = self.walked.saturating_add(entries);
        if MAX_WALKED < self.walked {
            let what = format!("texts and lists within lists are more than {MAX_WALKED}");
            return Err(Error::new(what).remedy("the file is damaged"));
        }
        Ok(())
    }

    fn name(&mut self, what: &str, most: u64) -> Result<String, Error> {
        let n_bytes = self.length()?;
        if most < n_bytes {
            return Err(Error::new(format!("has a {what} of {n_bytes} bytes; {most} are allowed")));
        }
        let bytes = self.text(n_bytes as usize)?;
        self.kept_bytes += bytes.len();
        if MAX_KEPT_BYTES < self.kept_bytes && most == MAX_KEY_BYTES {
            return Err(Error::new(format!("keys take more than {MAX_KEPT_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| Error::new(format!("has a {what} that is no UTF-8")))
    }

    fn text(&mut self, n_bytes: usize) -> Result<Vec<u8>, Error> {
        self.fill(n_bytes)?;
        let bytes = self.buffer[self.position..self.position + n_bytes].to_vec();
        self.position += n_bytes;
        Ok(bytes)
    }

    fn any_value(&mut self) -> Result<Value, Error> {
        let kind = self.u32()?;
        self.value(kind, 0)
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, Error> {
        self.kept_bytes += size_of::<Value>();
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.bytes()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Whole(self.u32()?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Real(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Flag(self.bytes()? != [0]),
            8 => self.text_value()?,
            9 => self.list(depth)?,
            10 => Value::Whole(u64::from_le_bytes(self.bytes()?).into()),
            11 => Value::Whole(i64::from_le_bytes(self.bytes()?).into()),
            12 => Value::Real(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(Error::new(format!("has values of type {kind}; 0 to 12 are known"))),
        })
    }

    fn text_value(&mut self) -> Result<Value, Error> {
        let n_bytes = self.length()?;
        if MAX_TEXT_BYTES < n_bytes || MAX_KEPT_BYTES < self.kept_bytes {
            self.skip(n_bytes)?;
            return Ok(Value::Long(n_bytes));
        }
        let bytes = self.text(n_bytes as usize)?;
        self.kept_bytes += bytes.len();
        Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn list(&mut self, depth: u32) -> Result<Value, Error> {
        if depth == MAX_DEPTH {
            return Err(Error::new(format!("lists lie more than {MAX_DEPTH} deep in lists")));
        }
        let kind = self.u32()?;
        let entries = self.length()?;
        // The shortest entry: a number, the length of a text, the kind and length of a list.
        let entry_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => self.length_bytes(),
            9 => self.length_bytes() + 4,
            _ => return Err(Error::new(format!("has entries of type {kind}; 0 to 12 are known"))),
        };
        let is_walked = [8, 9].contains(&kind);
        self.check_count("entries", entries, u64::MAX, entry_bytes)?;
        let most = if is_walked { MAX_TEXTS } else { MAX_NUMBERS };
        if entries <= most && self.kept_bytes <= MAX_KEPT_BYTES {
            self.walk(if is_walked { entries } else { 0 })?;
            let values = (0..entries).map(|_| self.value(kind, depth + 1));
            return values.collect::<Result<_, _>>().map(Value::List);
        }
        if !is_walked {
            self.skip(entries * entry_bytes)?;
            return Ok(Value::Long(entries));
        }
        self.walk(entries)?;
        match kind {
            8 => self.skip_texts(entries)?,
            _ => {
                for _ in 0..entries {
                    self.list(depth + 1)?;
                }
            }
        }
        Ok(Value::Long(entries))
    }

    /// Walks over texts. Those that lie in the buffer, nearly all, take a few instructions each.
    fn skip_texts(&mut self, entries: u64) -> Result<(), Error> {
        let mut left = entries;
        while 0 < left {
            let is_usual = !self.is_first_version && self.order == ByteOrder::Little;
            let mut rest = &self.buffer[self.position..];
            while let Some((length, after)) = rest.split_first_chunk::<8>()
                && is_usual
                && 0 < left
                && let Ok(n_bytes) = usize::try_from(u64::from_le_bytes(*length))
                && let Some(after) = after.get(n_bytes..)
            {
                (rest, left) = (after, left - 1);
            }
            self.position = self.buffer.len() - rest.len();
            if 0 < left {
                let n_bytes = self.length()?;
                self.skip(n_bytes)?;
                left -= 1;
            }
        }
        Ok(())
    }

    fn info(&mut self, name: String) -> Result<Info, Error> {
        let n_dims = self.u32()?;
        if MAX_DIMS < n_dims {
            return Err(Error::new(format!("has {n_dims} axes; {MAX_DIMS} are allowed")));
        }
        let dims: Result<Vec<u64>, Error> = (0..n_dims).map(|_| self.length()).collect();
        let (dims, type_id) = (dims?, self.u32()?);
        let offset = u64::from_le_bytes(self.bytes()?);
        Ok(Info { name, dims, type_id, offset })
    }
}
