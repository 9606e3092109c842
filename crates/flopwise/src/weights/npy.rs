//! The header of a `.npy` array: magic, version, length, and a Python dict as text. Nothing of it
//! is run; an array of Python objects is a pickle and is refused.
//!
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use super::source::{Reader, Source};
use super::{
    AxisOrder, ByteOrder, Contents, Kind, MAX_RANK, Meaning, Place, StoredTensor, unreadable,
};
use crate::error::Error;
use crate::note::Note;
use flopwise_formats::Format;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The first bytes of every array.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself evaluates no longer header than 10,000 characters; fields of a record can be many.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// What a header says.
pub(super) struct Array {
    /// Named, shaped, and placed where the caller said.
    pub(super) tensor: StoredTensor,
    /// Bytes before the first element.
    pub(super) header_bytes: u64,
    /// What is assumed of it.
    pub(super) note: Option<String>,
}

/// A whole array, or one that can be told apart but not read.
pub(super) enum Found {
    /// An array of numbers.
    Array(Array),
    /// An array of something else: what, and what to do.
    Unread(Error),
}

/// Reads the header of a lone array, which is named like its file.
pub(super) fn read(name: &str, source: &Source) -> Result<Contents, Error> {
    let mut array = match header(name, &mut Reader::new(source.clone()))? {
        Found::Array(array) => array,
        Found::Unread(error) => return Err(error),
    };
    array.tensor.place = Place::At(array.header_bytes);
    let mut notes: Vec<Note> = array.note.iter().map(Note::new).collect();
    notes.extend(surplus(&array, source.len())?);
    Ok(Contents {
        kind: Kind::Npy,
        tensors: vec![array.tensor],
        notes,
        metadata: BTreeMap::new(),
        archive: None,
    })
}

/// Holds the array against the bytes that are there; more of them than it takes are a note.
pub(super) fn surplus(array: &Array, file_bytes: u64) -> Result<Option<Note>, Error> {
    let given = file_bytes.saturating_sub(array.header_bytes);
    let (wanted, name) = (array.tensor.bytes, &array.tensor.name);
    if given < wanted {
        let what = format!("{given} of its {wanted} bytes are there");
        return Err(Error::new(what)
            .at(format!("array `{name}`"))
            .remedy("the file is cut short: download or save it again"));
    }
    let surplus = given - wanted;
    let text = format!(
        "`{name}` is followed by {surplus} bytes that are left out (another array in one file?)"
    );
    Ok((0 < surplus).then(|| Note::new(text)))
}

/// Reads a header and stops before the first element.
pub(super) fn header(name: &str, file: &mut dyn Read) -> Result<Found, Error> {
    let place = || format!("array `{name}`, header");
    let short = |error: io::Error| unreadable(&error).at(place());
    let malformed =
        |what: String| Error::new(what).at(place()).remedy("save the array again with numpy.save");
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(short)?;
    let version = start[MAGIC.len()];
    if !start.starts_with(MAGIC) || version < 1 || 3 < version {
        return Err(malformed("is none of the versions 1 to 3 of .npy".into()));
    }
    let mut length = [0; 4];
    let length_bytes = if version == 1 { 2 } else { 4 };
    file.read_exact(&mut length[..length_bytes]).map_err(short)?;
    let n_bytes = u32::from_le_bytes(length);
    if MAX_HEADER_BYTES < n_bytes {
        let what = format!("claims {n_bytes} bytes, more than the {MAX_HEADER_BYTES} allowed");
        return Err(malformed(what));
    }
    let mut text = vec![0; n_bytes as usize];
    file.read_exact(&mut text).map_err(short)?;
    // Only names of fields may be other than ASCII, and arrays with fields are not read.
    let text = String::from_utf8_lossy(&text);
    let fields = dict(&text).map_err(malformed)?;
    let header_bytes = (start.len() + length_bytes) as u64 + u64::from(n_bytes);
    array(name, fields, header_bytes)
}

fn array(name: &str, fields: Fields, header_bytes: u64) -> Result<Found, Error> {
    let place = format!("array `{name}`");
    let Fields { descr, fortran_order, shape } = fields;
    let dtype = match dtype(&descr) {
        Ok(dtype) => dtype,
        Err((what, remedy)) => return Ok(Found::Unread(Error::new(what).at(place).remedy(remedy))),
    };
    let (place_later, text) =
        (Place::At(0), format!("{descr} {shape:?} is too large to have a size"));
    let tensor = StoredTensor::new(name.to_owned(), dtype.format, shape, place_later);
    let mut tensor = tensor.ok_or_else(|| Error::new(text).at(place))?;
    tensor.byte_order = dtype.byte_order;
    if fortran_order {
        tensor.axis_order = AxisOrder::FirstFastest;
    }
    if let Some(why) = dtype.unknown {
        tensor.meaning = Meaning::Codes { why: why.to_owned() };
    }
    let doubt = dtype.unknown.or(dtype.assumed);
    let note = doubt.map(|doubt| format!("`{name}` has the dtype `{descr}`: {doubt}"));
    Ok(Found::Array(Array { tensor, header_bytes, note }))
}

/// What a type description says of one element.
struct Dtype {
    format: Format,
    byte_order: ByteOrder,
    /// What is taken for granted of a dtype that lost its name.
    assumed: Option<&'static str>,
    /// Why the format is the width alone.
    unknown: Option<&'static str>,
}

// ml_dtypes 0.6.0: numpy.save writes every type of it as a bare width. `<V2` is bfloat16 alone and
// `<f1` float8_e5m2 alone; `<V1` is any of sixteen types.
const WAS_BFLOAT16: &str =
    "numpy.save lost its name; it is read as bf16, the one type of ml_dtypes of this width";
const WAS_E5M2: &str =
    "numpy.save lost its name; it is read as e5m2, the one type of ml_dtypes saved like this";
const WAS_ANY_BYTE: &str = "numpy.save lost its name; it may be e4m3fn, another 8-bit float, or a \
    type of fewer bits with a byte for each element: say which it is, or save it with safetensors";

/// The format of a type description; an error is what it is instead, and a remedy.
fn dtype(descr: &str) -> Result<Dtype, (String, &'static str)> {
    let save = "save it as an array of numbers";
    let plain = descr.trim_start_matches(['<', '>', '|', '=']);
    let kind = plain.chars().next().unwrap_or(' ');
    let exact = |format| (format, None, None);
    let (format, assumed, unknown) = match plain {
        "b1" => exact(Format::BOOL),
        "i1" => exact(Format::INT8),
        "i2" => exact(Format::INT16),
        "i4" => exact(Format::INT32),
        "i8" => exact(Format::INT64),
        "u1" => exact(Format::UINT8),
        "u2" => exact(Format::UINT16),
        "u4" => exact(Format::UINT32),
        "u8" => exact(Format::UINT64),
        "f2" => exact(Format::FP16),
        "f4" => exact(Format::FP32),
        "f8" => exact(Format::FP64),
        "c8" => exact(Format::COMPLEX64),
        "c16" => exact(Format::COMPLEX128),
        "V2" => (Format::BF16, Some(WAS_BFLOAT16), None),
        "f1" => (Format::E5M2, Some(WAS_E5M2), None),
        "V1" => (Format::UINT8, None, Some(WAS_ANY_BYTE)),
        "O" => {
            let what =
                "holds Python objects, which only a pickle can restore; pickles are never run";
            return Err((what.into(), save));
        }
        STRUCTURED => return Err(("holds records of several fields".into(), save)),
        "f12" | "f16" | "c24" | "c32" => {
            let what = format!("holds long doubles (`{descr}`), whose layout hangs on the machine");
            return Err((what, "save it with .astype(numpy.float64)"));
        }
        _ => {
            let holds = match kind {
                'U' | 'S' | 'a' => "text",
                'M' | 'm' => "dates or times",
                'V' | 'W' => "elements of a type that lost its name",
                _ => "elements of a type not known here",
            };
            return Err((format!("holds {holds} (`{descr}`)"), save));
        }
    };
    let byte_order = if descr.starts_with('>') { ByteOrder::Big } else { ByteOrder::Little };
    Ok(Dtype { format, byte_order, assumed, unknown })
}

/// Stands for a dtype that is a list of fields.
const STRUCTURED: &str = "[...]";

/// The three entries that every header has.
struct Fields {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// A value of the dict.
enum Value {
    Text(String),
    Truth(bool),
    Sizes(Vec<u64>),
}

fn dict(text: &str) -> Result<Fields, String> {
    let mut literal = Literal { rest: text };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    literal.expect('{')?;
    while !literal.eat('}') {
        let key = literal.text()?;
        literal.expect(':')?;
        let is_new = match (key.as_str(), literal.value()?) {
            ("descr", Value::Text(text)) => descr.replace(text).is_none(),
            ("fortran_order", Value::Truth(truth)) => fortran_order.replace(truth).is_none(),
            ("shape", Value::Sizes(sizes)) => shape.replace(sizes).is_none(),
            (key, _) => return Err(format!("its entry `{key}` is not understood")),
        };
        if !is_new {
            return Err(format!("its entry `{key}` stands twice"));
        }
        if !literal.eat(',') {
            literal.expect('}')?;
            break;
        }
    }
    if !literal.rest.trim().is_empty() {
        return Err("has text behind the closing brace".into());
    }
    let missing = |key: &str| format!("has no entry `{key}`");
    Ok(Fields {
        descr: descr.ok_or_else(|| missing("descr"))?,
        fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
    })
}

/// The part of a Python literal that is not read yet.
struct Literal<'a> {
    rest: &'a str,
}

impl Literal<'_> {
    /// The next character that is not blank.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        is_next
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) {
            return Ok(());
        }
        let found: String = self.rest.chars().take(8).collect();
        Err(format!("has `{found}` where `{wanted}` belongs"))
    }

    fn text(&mut self) -> Result<String, String> {
        let quote = if self.peek() == Some('"') { '"' } else { '\'' };
        self.expect(quote)?;
        let end = self.rest.find(quote).ok_or("has a text without an end")?;
        let text = self.rest[..end].to_owned();
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some('\'' | '"') => self.text().map(Value::Text),
            Some('(') => self.sizes().map(Value::Sizes),
            Some('[') => self.skip_list().map(|()| Value::Text(STRUCTURED.into())),
            _ if self.rest.starts_with("True") => self.word("True", true),
            _ if self.rest.starts_with("False") => self.word("False", false),
            _ => self.expect('(').map(|()| Value::Truth(false)),
        }
    }

    fn word(&mut self, word: &str, truth: bool) -> Result<Value, String> {
        self.rest = &self.rest[word.len()..];
        Ok(Value::Truth(truth))
    }

    /// `()`, `(3,)`, `(2, 3)`; Python 2 wrote `3L`.
    fn sizes(&mut self) -> Result<Vec<u64>, String> {
        let mut sizes = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            self.peek();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let digits = &self.rest[..end];
            let size = digits.parse().map_err(|_| {
                let found: String = self.rest.chars().take(24).collect();
                format!("has `{found}` where a size belongs")
            })?;
            if sizes.len() == MAX_RANK {
                return Err(format!("has more than {MAX_RANK} axes"));
            }
            sizes.push(size);
            self.rest = self.rest[end..].trim_start_matches('L');
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }

    /// Passes over a list, whatever it nests.
    fn skip_list(&mut self) -> Result<(), String> {
        let mut depth = 0usize;
        while let Some(next) = self.peek() {
            match next {
                '\'' | '"' => {
                    self.text()?;
                    continue;
                }
                '[' | '(' => depth += 1,
                ']' | ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.eat(next);
            if depth == 0 {
                return Ok(());
            }
        }
        Err("has a list without an end".into())
    }
}
