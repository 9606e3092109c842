//! PyTorch's `.pt`, `.pth`, `.bin` and `.ckpt`: a zip archive of a pickle and one member for each
//! storage, or, before version 1.6, a row of pickles and the storages behind them.
//!
//! The pickle is read as data (`pickle.rs`); here the calls that PyTorch's own tensors are made of
//! are recognised by name and their arguments read. No other call means anything.
//!
//! `torch/serialization.py` (`_save`, `_legacy_save`), `torch/_utils.py` (`_rebuild_*`).

use super::npz::Archive;
use super::pickle::{self, Id, Input, Object, Pickle, SAVE, Value};
use super::source::{Reader, Source};
use super::{AxisOrder, ByteOrder, Contents, Kind, MAX_RANK, Meaning, Place, StoredTensor};
use crate::error::Error;
use crate::note::Note;
use flopwise_formats::Format;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

/// Tensors of a file; the largest checkpoints have 100,000 in all their files together.
const MAX_TENSORS: usize = 500_000;
/// Dicts, lists and objects within each other; a module of modules is three for each level.
const MAX_DEPTH: usize = 200;
/// Bytes of one name, and of all of them together; real ones have about 60.
const MAX_NAME_BYTES: usize = 2048;
const MAX_NAMES_BYTES: usize = 64 << 20;
/// Calls of calls that make one tensor; PyTorch nests three.
const MAX_CALLS: usize = 8;

/// `0x1950a86a20f9469cfc6c`, the pickle that every file of the older kind begins with.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The one version of that kind.
const LEGACY_PROTOCOL: i64 = 1001;

/// Storages by class, and dtypes by name: `torch.HalfStorage` and `torch.float16`.
const TYPES: &[(&str, &str, Format)] = &[
    ("FloatStorage", "float32", Format::FP32),
    ("DoubleStorage", "float64", Format::FP64),
    ("HalfStorage", "float16", Format::FP16),
    ("BFloat16Storage", "bfloat16", Format::BF16),
    ("ByteStorage", "uint8", Format::UINT8),
    ("CharStorage", "int8", Format::INT8),
    ("ShortStorage", "int16", Format::INT16),
    ("IntStorage", "int32", Format::INT32),
    ("LongStorage", "int64", Format::INT64),
    ("BoolStorage", "bool", Format::BOOL),
    ("ComplexFloatStorage", "complex64", Format::COMPLEX64),
    ("ComplexDoubleStorage", "complex128", Format::COMPLEX128),
    ("QInt8Storage", "qint8", Format::INT8),
    ("QUInt8Storage", "quint8", Format::UINT8),
    ("QInt32Storage", "qint32", Format::INT32),
    ("UntypedStorage", "uint8", Format::UINT8),
    ("", "uint16", Format::UINT16),
    ("", "uint32", Format::UINT32),
    ("", "uint64", Format::UINT64),
    ("", "float8_e4m3fn", Format::E4M3FN),
    ("", "float8_e5m2", Format::E5M2),
    ("", "float8_e4m3fnuz", Format::E4M3FNUZ),
    ("", "float8_e5m2fnuz", Format::E5M2FNUZ),
    ("", "float8_e8m0fnu", Format::E8M0),
    ("", "float4_e2m1fn_x2", Format::E2M1),
];

/// A storage as the pickle names it.
struct Storage<'a> {
    key: &'a str,
    /// Of its class; `None` for one not known here.
    format: Option<Format>,
    /// Elements to skip: a view of another storage, in files of 2017.
    view_at: u64,
}

/// A tensor as the pickle describes it.
struct Found<'a> {
    name: String,
    storage: Storage<'a>,
    format: Format,
    /// The first element in the storage.
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
    /// How it is quantised.
    codes: Option<String>,
}

/// Where a storage lies, and how many bytes it has.
#[derive(Clone, Copy)]
struct Lies {
    place: Place,
    bytes: u64,
}

/// Whether an archive is one of PyTorch's: it has a pickle called `data.pkl`.
pub(super) fn pickle_member(archive: &Archive) -> Option<String> {
    let mut names = archive.file_names().filter_map(Result::ok);
    let found = names.find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    found.map(Into::into)
}

/// Reads the zip format.
pub(super) fn read_zip(
    mut archive: Archive,
    source: &Source,
    pkl: &str,
) -> Result<Contents, Error> {
    let prefix = pkl.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let pickle = {
        let member = archive.by_name(pkl).map_err(|error| unzip(pkl, &error))?;
        pickle::read(&mut Input::new(member))
            .map_err(|error| error.at(format!("member `{pkl}`")))?
    };
    let byte_order = byte_order(&mut archive, &prefix)?;
    let mut known: HashMap<String, Lies> = HashMap::new();
    let mut find = |key: &str| -> Result<Lies, Error> {
        if let Some(lies) = known.get(key) {
            return Ok(*lies);
        }
        let lies = storage_member(&mut archive, source, &format!("{prefix}data/{key}"))?;
        known.insert(key.to_owned(), lies);
        Ok(lies)
    };
    let mut contents = contents(&pickle, &mut find)?;
    for tensor in &mut contents.tensors {
        tensor.byte_order = byte_order;
    }
    contents.archive = Some(archive);
    Ok(contents)
}

fn unzip(member: &str, error: &zip::result::ZipError) -> Error {
    Error::new(format!("cannot be read: {error}"))
        .at(format!("member `{member}`"))
        .remedy("download or save it again")
}

/// Files of before 2023 do not say, and are little-endian where not written on a mainframe.
fn byte_order(archive: &mut Archive, prefix: &str) -> Result<ByteOrder, Error> {
    let name = format!("{prefix}byteorder");
    let Some(member_idx) = archive.index_for_name(&name) else { return Ok(ByteOrder::Little) };
    let member = archive.by_index(member_idx).map_err(|error| unzip(&name, &error))?;
    let mut text = Vec::new();
    member.take(16).read_to_end(&mut text).map_err(|error| super::unreadable(&error))?;
    match text.as_slice() {
        b"little" => Ok(ByteOrder::Little),
        b"big" => Ok(ByteOrder::Big),
        _ => Err(Error::new("is neither `little` nor `big`").at(format!("member `{name}`"))),
    }
}

fn storage_member(archive: &mut Archive, source: &Source, name: &str) -> Result<Lies, Error> {
    let place = || format!("member `{name}`");
    let member_idx = archive.index_for_name(name).ok_or_else(|| {
        Error::new("is not there, though a tensor lies in it")
            .at(place())
            .remedy("download or save the file again")
    })?;
    let member = archive.by_index(member_idx).map_err(|error| unzip(name, &error))?;
    let bytes = member.size();
    if member.compression() != zip::CompressionMethod::Stored {
        return Ok(Lies { place: Place::Inflated { member_idx, header_bytes: 0 }, bytes });
    }
    let data_at = member.data_start().filter(|_| member.compressed_size() == bytes);
    let end = data_at.and_then(|data_at| data_at.checked_add(bytes));
    match data_at.filter(|_| end.is_some_and(|end| end <= source.len())) {
        Some(data_at) => Ok(Lies { place: Place::At(data_at), bytes }),
        None => Err(Error::new("its bytes are not all in the file")
            .at(place())
            .remedy("the file is cut short: download or save it again")),
    }
}

/// Reads the format of before version 1.6: pickles of a magic number, a version, the machine, the
/// objects and the keys of the storages, then each storage behind the number of its elements.
pub(super) fn read_legacy(source: &Source) -> Result<Contents, Error> {
    let mut input = Input::new(Reader::new(source.clone()));
    let magic = pickle::read(&mut input)?;
    let is_magic = matches!(magic.get(magic.root), Value::Long(bytes) if **bytes == MAGIC);
    if !is_magic {
        let what = "is a Python pickle, but none of PyTorch's; pickles are never run";
        return Err(Error::new(what).remedy(SAVE));
    }
    let version = pickle::read(&mut input)?;
    if version.whole(version.root) != Some(LEGACY_PROTOCOL) {
        return Err(Error::new("is a PyTorch file of an unknown version").remedy(SAVE));
    }
    let _machine = pickle::read(&mut input)?;
    let objects = pickle::read(&mut input)?;
    let keys = pickle::read(&mut input)?;
    let known = legacy_storages(source, input.at, &objects, &keys)?;
    let mut find = |key: &str| {
        known.get(key).copied().ok_or_else(|| {
            Error::new("is not there, though a tensor lies in it")
                .at(format!("storage `{key}`"))
                .remedy("download or save the file again")
        })
    };
    contents(&objects, &mut find)
}

fn legacy_storages(
    source: &Source,
    first_at: u64,
    objects: &Pickle,
    keys: &Pickle,
) -> Result<HashMap<String, Lies>, Error> {
    let mut widths: HashMap<&str, u64> = HashMap::new();
    for value in objects.values() {
        if let Value::Persistent(id) = value
            && let Some(storage) = storage_at(objects, *id)
            && let Some(format) = storage.format
        {
            widths.insert(storage.key, u64::from(format.bits / 8));
        }
    }
    let mut at = first_at;
    let mut known = HashMap::new();
    let list = keys.elements(keys.root).unwrap_or_default();
    for id in list {
        let key = keys.text(*id).unwrap_or_default();
        let place = || format!("storage `{key}`");
        let Some(width) = widths.get(key) else {
            return Err(Error::new("is of no class known here").at(place()).remedy(SAVE));
        };
        let mut length = [0; 8];
        source
            .read_exact_at(&mut length, at)
            .map_err(|error| super::unreadable(&error).at(place()))?;
        let data_at = at + 8;
        let bytes = u64::from_le_bytes(length).checked_mul(*width);
        let end = bytes.and_then(|bytes| data_at.checked_add(bytes));
        let (Some(bytes), Some(end)) = (bytes, end.filter(|end| *end <= source.len())) else {
            return Err(Error::new("its bytes are not all in the file")
                .at(place())
                .remedy("the file is cut short: download or save it again"));
        };
        known.insert(key.to_owned(), Lies { place: Place::At(data_at), bytes });
        at = end;
    }
    Ok(known)
}

/// The tensors of a pickle, each where its storage lies.
fn contents(
    pickle: &Pickle,
    find: &mut dyn FnMut(&str) -> Result<Lies, Error>,
) -> Result<Contents, Error> {
    let mut walk = Walk {
        pickle,
        seen: HashSet::new(),
        found: Vec::new(),
        names_bytes: 0,
        unread: Vec::new(),
        unknown: Vec::new(),
        n_too_deep: 0,
    };
    walk.visit(pickle.root, &mut String::new(), 0)?;
    let mut tensors = Vec::with_capacity(walk.found.len());
    let mut first_with: HashMap<(&str, u64), &Found<'_>> = HashMap::new();
    let mut tied: Vec<(&str, &str)> = Vec::new();
    for found in &walk.found {
        let lies = find(found.storage.key).map_err(|error| {
            let place = format!("tensor `{}`", found.name);
            Error::new(error.to_string()).at(place)
        })?;
        tensors.push(stored(found, lies)?);
        let at = (found.storage.key, found.offset.saturating_add(found.storage.view_at));
        match first_with.get(&at) {
            Some(first) => {
                let is_same = (&first.shape, &first.strides) == (&found.shape, &found.strides);
                if is_same && !found.shape.contains(&0) {
                    tied.push((&found.name, &first.name));
                }
            }
            None => drop(first_with.insert(at, found)),
        }
    }
    let notes = walk.notes(&tied);
    Ok(Contents { kind: Kind::Torch, tensors, notes, metadata: BTreeMap::new(), archive: None })
}

fn stored(found: &Found<'_>, lies: Lies) -> Result<StoredTensor, Error> {
    let broken = |what: String| {
        Error::new(what)
            .at(format!("tensor `{}`", found.name))
            .remedy("download or save the file again")
    };
    let format = found.format;
    // Two of E2M1 are one element of PyTorch's, a byte.
    let item_bits = if format == Format::E2M1 { 8 } else { u64::from(format.bits) };
    let mut shape = found.shape.clone();
    if format == Format::E2M1
        && let Some(last) = shape.last_mut()
    {
        *last = last.saturating_mul(2);
    }
    let tensor = StoredTensor::new(found.name.clone(), format, shape, lies.place)
        .ok_or_else(|| broken(format!("{format} {:?} is too large to have a size", found.shape)));
    let mut tensor = tensor?;
    let reach = reach(&found.shape, &found.strides);
    let first = found.offset.checked_add(found.storage.view_at);
    let end = reach.zip(first).and_then(|(reach, first)| reach.checked_add(first));
    let end_bytes = end.and_then(|end| end.checked_mul(item_bits / 8));
    if end_bytes.is_none_or(|end_bytes| lies.bytes < end_bytes) {
        let held = lies.bytes;
        return Err(broken(format!("reaches beyond the {held} bytes of its storage")));
    }
    let skipped = first.unwrap_or(0) * (item_bits / 8);
    tensor.place = match lies.place {
        Place::At(at) => Place::At(at + skipped),
        Place::Inflated { member_idx, header_bytes } => {
            Place::Inflated { member_idx, header_bytes: header_bytes + skipped }
        }
    };
    match axis_order(&found.shape, &found.strides) {
        Some(AxisOrder::LastFastest) => {}
        Some(order) if format != Format::E2M1 => tensor.axis_order = order,
        Some(_) | None => {
            tensor.unread = Some(format!(
                "a view whose elements do not lie side by side (strides {:?}); save it with \
                 .contiguous()",
                found.strides
            ));
        }
    }
    if let Some(why) = &found.codes {
        tensor.meaning = Meaning::Codes { why: why.clone() };
    }
    Ok(tensor)
}

/// Elements of the storage from the first of a view to its last.
fn reach(shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1u64, |reach, (size, stride)| reach.checked_add((size - 1).checked_mul(*stride)?))
}

/// How the elements of a view lie, where they lie side by side.
fn axis_order(shape: &[u64], strides: &[u64]) -> Option<AxisOrder> {
    if shape.contains(&0) {
        return Some(AxisOrder::LastFastest);
    }
    let axes = shape.iter().zip(strides).filter(|(size, _)| **size != 1);
    let axes: Vec<(u64, u64)> = axes.map(|(size, stride)| (*size, *stride)).collect();
    if is_dense(axes.iter().rev()) {
        return Some(AxisOrder::LastFastest);
    }
    if is_dense(axes.iter()) {
        return Some(AxisOrder::FirstFastest);
    }
    let mut sorted = axes;
    sorted.sort_by_key(|(_, stride)| *stride);
    is_dense(sorted.iter()).then_some(AxisOrder::Permuted)
}

/// Whether axes, the fastest first, leave nothing out between their elements.
fn is_dense<'a>(mut axes: impl Iterator<Item = &'a (u64, u64)>) -> bool {
    let mut expected = 1u64;
    axes.all(|(size, stride)| {
        let is_next = *stride == expected;
        expected = expected.saturating_mul(*size);
        is_next
    })
}

/// What a persistent id says of a storage: `('storage', class, key, device, elements[, view])`.
fn storage_at(pickle: &Pickle, id: Id) -> Option<Storage<'_>> {
    let parts = pickle.elements(id)?;
    if pickle.text(*parts.first()?)? != "storage" {
        return None;
    }
    let (module, class) = pickle.global(*parts.get(1)?)?;
    let known = TYPES.iter().find(|(name, _, _)| *name == class && !class.is_empty());
    let is_torch = module == "torch" || module == "torch.storage" || module == "torch.cuda";
    let view = parts.get(5).and_then(|id| pickle.elements(*id));
    let view_at = view.and_then(|view| pickle.whole(*view.get(1)?));
    Some(Storage {
        key: pickle.text(*parts.get(2)?)?,
        format: known.filter(|_| is_torch).map(|(_, _, format)| *format),
        view_at: view_at.and_then(|at| u64::try_from(at).ok()).unwrap_or(0),
    })
}

/// A way through everything that a pickle holds.
struct Walk<'a> {
    pickle: &'a Pickle,
    /// Dicts, lists and objects met.
    seen: HashSet<Id>,
    found: Vec<Found<'a>>,
    names_bytes: usize,
    /// Tensors left out: name and reason.
    unread: Vec<(String, String)>,
    /// Calls not recognised.
    unknown: Vec<(&'a str, &'a str)>,
    n_too_deep: usize,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, id: Id, name: &mut String, depth: usize) -> Result<(), Error> {
        let pickle = self.pickle;
        if MAX_DEPTH < depth {
            self.n_too_deep += 1;
            return Ok(());
        }
        match pickle.get(id) {
            Value::Dict(entries) if self.seen.insert(id) => self.entries(entries, name, depth),
            Value::List(elements) if self.seen.insert(id) => self.elements(elements, name, depth),
            Value::Tuple(elements) if self.seen.insert(id) => self.elements(elements, name, depth),
            Value::Object(object) => self.object(id, object, name, depth),
            Value::Dict(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Other
            | Value::Whole(_)
            | Value::Long(_)
            | Value::Text(_)
            | Value::Global(_)
            | Value::Persistent(_) => Ok(()),
        }
    }

    fn may_hold(&self, id: Id) -> bool {
        let value = self.pickle.get(id);
        matches!(value, Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Object(_))
    }

    fn entries(&mut self, entries: &[(Id, Id)], name: &mut String, depth: usize) -> Visited {
        let pickle = self.pickle;
        for (place, (key, value)) in entries.iter().enumerate() {
            if !self.may_hold(*value) {
                continue;
            }
            let key = match pickle.get(*key) {
                Value::Text(text) => text.to_string(),
                Value::Whole(number) => number.to_string(),
                Value::Other
                | Value::Long(_)
                | Value::Tuple(_)
                | Value::List(_)
                | Value::Dict(_)
                | Value::Global(_)
                | Value::Persistent(_)
                | Value::Object(_) => place.to_string(),
            };
            self.below(&key, *value, name, depth)?;
        }
        Ok(())
    }

    fn elements(&mut self, elements: &[Id], name: &mut String, depth: usize) -> Visited {
        for (place, element) in elements.iter().enumerate() {
            if self.may_hold(*element) {
                self.below(&place.to_string(), *element, name, depth)?;
            }
        }
        Ok(())
    }

    fn below(&mut self, key: &str, value: Id, name: &mut String, depth: usize) -> Visited {
        // What nn.Module keeps its parts in is no part of their names.
        let is_slot = ["_parameters", "_buffers", "_modules"].contains(&key);
        let len = name.len();
        if !is_slot {
            if MAX_NAME_BYTES < len + key.len() {
                return Err(Error::new(format!("a name has more than {MAX_NAME_BYTES} bytes"))
                    .at("pickle")
                    .remedy(SAVE));
            }
            if 0 < len {
                name.push('.');
            }
            name.push_str(key);
        }
        let visited = self.visit(value, name, depth + 1);
        name.truncate(len);
        visited
    }

    fn object(&mut self, id: Id, object: &'a Object, name: &mut String, depth: usize) -> Visited {
        let pickle = self.pickle;
        let callee = pickle.callee(object).unwrap_or_default();
        match self.tensor(callee, object.args, name, 0) {
            Ok(Some(found)) => return self.keep(found),
            Err(why) => {
                self.unread.push((name.clone(), why));
                return Ok(());
            }
            Ok(None) => {}
        }
        if !self.seen.insert(id) {
            return Ok(());
        }
        if !is_plain(callee) {
            self.unknown.push(callee);
        }
        // OrderedDict([[key, value], ..]) of Python 2.
        if callee == ("collections", "OrderedDict")
            && let Some([pairs]) = pickle.elements(object.args)
            && let Some(pairs) = pickle.elements(*pairs)
        {
            let pairs: Vec<(Id, Id)> = pairs
                .iter()
                .filter_map(|pair| match pickle.elements(*pair)? {
                    [key, value] => Some((*key, *value)),
                    _ => None,
                })
                .collect();
            self.entries(&pairs, name, depth)?;
        }
        self.entries(&object.items, name, depth)?;
        match object.state {
            // A dict, and one of slots.
            Some(state) => match pickle.get(state) {
                Value::Tuple(states) => {
                    states.iter().try_for_each(|state| self.visit(*state, name, depth + 1))
                }
                Value::Other
                | Value::Whole(_)
                | Value::Long(_)
                | Value::Text(_)
                | Value::List(_)
                | Value::Dict(_)
                | Value::Global(_)
                | Value::Persistent(_)
                | Value::Object(_) => self.visit(state, name, depth + 1),
            },
            None => Ok(()),
        }
    }

    fn keep(&mut self, found: Found<'a>) -> Visited {
        self.names_bytes += found.name.len();
        if self.found.len() == MAX_TENSORS || MAX_NAMES_BYTES < self.names_bytes {
            return Err(Error::new(format!("holds more than {MAX_TENSORS} tensors")));
        }
        self.found.push(found);
        Ok(())
    }

    /// The tensor that a call makes: `None` where it makes none, an error for one not read.
    fn tensor(
        &self,
        callee: (&str, &str),
        args: Id,
        name: &str,
        calls: usize,
    ) -> Result<Option<Found<'a>>, String> {
        let pickle = self.pickle;
        let args = pickle.elements(args).unwrap_or_default();
        let inner = |id: Option<&Id>| -> Result<Option<Found<'a>>, String> {
            if let Some(Value::Object(object)) = id.map(|id| pickle.get(*id))
                && calls < MAX_CALLS
            {
                let callee = pickle.callee(object).unwrap_or_default();
                return self.tensor(callee, object.args, name, calls + 1);
            }
            Err("is no tensor where one is expected".to_owned())
        };
        let (module, function) = callee;
        if !["torch._utils", "torch._tensor", "torch.nn.parameter", "torch"].contains(&module) {
            return Ok(None);
        }
        match function {
            "_rebuild_tensor" | "_rebuild_tensor_v2" => self.dense(args, None, name).map(Some),
            "_rebuild_tensor_v3" => self.dense(args, args.get(6), name).map(Some),
            "_rebuild_qtensor" => {
                let mut found = self.dense(args, None, name)?;
                found.codes = Some("quantised by PyTorch, its scale is in the pickle".to_owned());
                Ok(Some(found))
            }
            "_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter" | "Buffer" => {
                inner(args.first())
            }
            "_rebuild_from_type" | "_rebuild_from_type_v2" => {
                let function = args.first().and_then(|id| pickle.global(*id)).unwrap_or_default();
                match args.get(2) {
                    Some(args) if calls < MAX_CALLS => {
                        self.tensor(function, *args, name, calls + 1)
                    }
                    Some(_) | None => Ok(None),
                }
            }
            "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => Err("is sparse".into()),
            "_rebuild_nested_tensor" => Err("is a nested tensor".into()),
            "_rebuild_meta_tensor_no_storage" => Err("has no storage (device meta)".into()),
            _ if function.starts_with("_rebuild_") => Err(format!("is made by `{function}`")),
            _ => Ok(None),
        }
    }

    /// `(storage, offset, shape, strides, ..)`.
    fn dense(&self, args: &[Id], dtype: Option<&Id>, name: &str) -> Result<Found<'a>, String> {
        let pickle = self.pickle;
        let id = |place: usize| args.get(place).copied().ok_or("has too few arguments");
        let Value::Persistent(storage) = pickle.get(id(0)?) else {
            return Err("has no storage".to_owned());
        };
        let storage = storage_at(pickle, *storage).ok_or("has a storage that is none")?;
        let format = match dtype {
            Some(dtype) => {
                let (_, dtype) = pickle.global(*dtype).unwrap_or_default();
                let known = TYPES.iter().find(|(_, name, _)| *name == dtype);
                known.map(|(_, _, format)| *format).ok_or(format!("has the dtype `{dtype}`"))?
            }
            None => storage.format.ok_or("has a storage of a class not known here")?,
        };
        let sizes = |place: usize| -> Result<Vec<u64>, String> {
            let sizes = self.sizes(id(place)?).ok_or("has a shape or strides of no sizes")?;
            if MAX_RANK < sizes.len() {
                Err(format!("has over {MAX_RANK} axes"))
            } else {
                Ok(sizes)
            }
        };
        let (shape, strides) = (sizes(2)?, sizes(3)?);
        let offset = pickle.whole(id(1)?).and_then(|offset| u64::try_from(offset).ok());
        let offset = offset.ok_or("begins before its storage")?;
        if shape.len() != strides.len() {
            return Err("has strides for other axes than its shape".to_owned());
        }
        let name = name.to_owned();
        Ok(Found { name, storage, format, offset, shape, strides, codes: None })
    }

    /// A tuple of sizes, or `torch.Size` of one.
    fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let pickle = self.pickle;
        let list = if let Value::Object(object) = pickle.get(id)
            && pickle.global(object.callee) == Some(("torch", "Size"))
        {
            pickle.elements(*pickle.elements(object.args)?.first()?)?
        } else {
            pickle.elements(id)?
        };
        let size = |id: &Id| u64::try_from(pickle.whole(*id)?).ok();
        if MAX_RANK < list.len() {
            return None;
        }
        list.iter().map(size).collect()
    }

    fn notes(&self, tied: &[(&str, &str)]) -> Vec<Note> {
        let mut notes = Vec::new();
        if let Some((name, first)) = tied.first() {
            let n_tied = tied.len();
            notes.push(Note::new(format!(
                "tensors stored once under several names: {n_tied} (first: `{name}` is `{first}`)"
            )));
        }
        if let Some((name, why)) = self.unread.first() {
            let n_unread = self.unread.len();
            notes.push(Note::new(format!("tensors left out: {n_unread} (first: `{name}` {why})")));
        }
        if let Some((module, name)) = self.unknown.first() {
            let n_unknown = self.unknown.len();
            notes.push(Note::new(format!(
                "objects of the pickle that are no tensors and were not made, as nothing in it is \
                 run: {n_unknown} (first: `{module}.{name}`)"
            )));
        }
        if 0 < self.n_too_deep {
            notes.push(Note::new(format!(
                "{} values lie deeper than {MAX_DEPTH} levels and are left out",
                self.n_too_deep
            )));
        }
        notes
    }
}

/// What a visit ends with.
type Visited = Result<(), Error>;

/// Calls that make containers and small values of no interest.
fn is_plain(callee: (&str, &str)) -> bool {
    const PLAIN: &[(&str, &str)] = &[
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "Counter"),
        ("collections", "deque"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch.serialization", "_get_layout"),
        ("_codecs", "encode"),
        ("builtins", "set"),
        ("__builtin__", "set"),
        ("builtins", "bytearray"),
        ("argparse", "Namespace"),
        ("copyreg", "_reconstructor"),
        ("copy_reg", "_reconstructor"),
    ];
    PLAIN.contains(&callee)
}
