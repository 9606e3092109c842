//! Files -> [`Graph`]. `open_file` is the only place in this crate that opens a file.
//!
//! An importer never panics and never allocates what a header merely claims. Flaws become notes
//! of the graph; an [`Error`] means that there is no answer.

mod onnx;
mod pt2;

pub(crate) use onnx::initializers;

use crate::error::Error;
use crate::graph::Graph;
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads the model in `path`, whatever its kind; the content decides, not the name.
///
/// # Errors
/// [`Error`], naming the file: missing, a directory, empty, no kind of model known here, damaged.
pub fn open(path: &Path) -> Result<Graph, Error> {
    read(path).map_err(|error| error.in_file(path))
}

fn read(path: &Path) -> Result<Graph, Error> {
    let (file, _) = open_file(path, ".onnx or .pt2")?;
    let name =
        path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let bytes = map(&file).map_err(cannot_open)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    from_bytes(&name, bytes, folder)
}

/// Opens a regular file that is not empty, and says how many bytes it has. `kinds` are those that
/// the caller reads (`.onnx or .pt2`), for the remedy. The error does not name the file.
pub(crate) fn open_file(path: &Path, kinds: &str) -> Result<(File, u64), Error> {
    // Opening a named pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(cannot_open)?;
    if metadata.is_dir() {
        return Err(Error::new("is a directory").remedy(format!("name the {kinds} file in it")));
    }
    if !metadata.is_file() {
        return Err(Error::new("is not a regular file"));
    }
    let file = File::open(path).map_err(cannot_open)?;
    let len = file.metadata().map_err(cannot_open)?.len();
    if len == 0 {
        return Err(Error::new("is empty").remedy("save or download it again"));
    }
    Ok((file, len))
}

/// The whole of a file that must not be larger than `max_bytes`. `kinds` as for [`open_file`].
pub(crate) fn read_small(path: &Path, max_bytes: u64, kinds: &str) -> Result<Bytes, Error> {
    let (file, len) = open_file(path, kinds)?;
    if max_bytes < len {
        return Err(Error::new(format!("has {len} bytes, too many for a {kinds}")));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes).map_err(cannot_open)?;
    Ok(bytes.into())
}

/// Names of what lies in a folder, in order; at most `max` of them.
pub(crate) fn file_names(folder: &Path, max: usize) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_open)?.take(max) {
        names.push(entry.map_err(cannot_open)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Whether a location that a file names would lie outside the file's own folder.
pub(crate) fn leaves_folder(location: &str) -> bool {
    let is_drive = location.as_bytes().get(1) == Some(&b':');
    let mut depth = 0i64;
    let leaves = location.split(['/', '\\']).any(|part| {
        depth += match part {
            ".." => -1,
            "" | "." => 0,
            _ => 1,
        };
        depth < 0
    });
    location.starts_with(['/', '\\']) || is_drive || leaves
}

/// Whether the first character of a file that is not blank opens a JSON object.
pub(crate) fn starts_as_json(path: &Path) -> bool {
    // The length before a safetensors header may look like a brace; JSON has no byte of zeros.
    let is_json =
        |first: Vec<u8>| first.trim_ascii_start().starts_with(b"{") && !first.contains(&0);
    first_bytes(path).is_some_and(is_json)
}

/// Whether a file begins with these bytes, of which there are at most 64.
pub(crate) fn starts_with(path: &Path, bytes: &[u8]) -> bool {
    first_bytes(path).is_some_and(|first| first.starts_with(bytes))
}

/// The first bytes of a regular file.
fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut first = vec![0; 64];
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return None;
    }
    let len = File::open(path).ok()?.read(&mut first).ok()?;
    first.truncate(len);
    Some(first)
}

fn cannot_open(error: std::io::Error) -> Error {
    Error::new(format!("cannot be opened: {error}"))
}

/// Maps a file: its pages are read when touched, and dropped by the system at will, so that the
/// weights of a large model cost no memory.
pub(crate) fn map(file: &File) -> std::io::Result<Bytes> {
    mmap(file).map(Bytes::from_owner)
}

#[allow(unsafe_code)]
fn mmap(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is only read. A file that another process truncates meanwhile raises SIGBUS,
    // the accepted price of mapping; nothing is written through it and no `&str` outlives it.
    unsafe { memmap2::Mmap::map(file) }
}

/// Reads a model that is already in memory, as [`open`] does. `folder` is where external weights
/// would lie; nothing in it is opened.
///
/// # Errors
/// As [`open`].
pub fn from_bytes(name: &str, bytes: Bytes, folder: &Path) -> Result<Graph, Error> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return pt2::import(name, &bytes);
    }
    if let Some(kind) = unread_kind(&bytes) {
        return Err(Error::new(format!("is {kind}, which this version does not read"))
            .remedy("give an .onnx or .pt2 export of the model"));
    }
    onnx::import(name, bytes, folder)
}

/// Reads one exported program out of a zip file of many: the JSON `member`, and nothing else of it.
///
/// # Errors
/// As [`open`]; also when there is no such member.
pub(crate) fn from_collection(name: &str, archive: &[u8], member: &str) -> Result<Graph, Error> {
    pt2::import_member(name, archive, member)
}

/// Files people have beside a graph, told by their first bytes.
fn unread_kind(bytes: &[u8]) -> Option<&'static str> {
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    // 8 bytes of length, then a JSON header (safetensors format description).
    let is_safetensors = bytes.get(5..9) == Some(b"\0\0\0{");
    match bytes {
        _ if bytes.starts_with(b"GGUF") => Some("a GGUF file"),
        _ if is_safetensors => Some("a safetensors file"),
        _ if is_json => Some("a JSON file"),
        _ if bytes.starts_with(b"\x89HDF") => Some("an HDF5 (Keras) file"),
        _ if bytes.get(4..8) == Some(b"TFL3") => Some("a TensorFlow Lite file"),
        _ => None,
    }
}
