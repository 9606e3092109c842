//! The initialisers of an ONNX file as tensors, with external data in files of the same folder.
//!
//! Not here: the messages (`import/onnx`).

use super::source::Source;
use super::{Contents, File, Kind, MAX_RANK, Place, StoredTensor, unreadable};
use crate::error::Error;
use crate::import;
use crate::import::initializers::{self, Data, Initializer};
use crate::note::Note;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What a file begins with: the tag of `ir_version`, the first field of a model.
pub(super) const FIRST_TAG: u8 = 0x08;
/// Files of external data of one model; each stays open.
const MAX_FILES: usize = 500;

/// Reads the initialisers; files of external data are added to `others`. Without a folder, they
/// are not looked for.
pub(super) fn read(
    source: &Source,
    folder: Option<&Path>,
    others: &mut Vec<File>,
) -> Result<Contents, Error> {
    let file = match source {
        Source::File { file, .. } => import::map(file).map_err(|error| unreadable(&error))?,
        Source::Memory(bytes) => bytes.clone(),
        Source::Joined { .. } => return Err(Error::new("lies in several files")),
    };
    let found = initializers::read(&file, folder.unwrap_or(Path::new("")))?;
    let mut places = Places { source, folder, others, known: HashMap::new() };
    let mut tensors = Vec::with_capacity(found.initializers.len());
    for initializer in found.initializers {
        tensors.push(places.tensor(initializer)?);
    }
    let mut notes = Vec::new();
    if let Some((name, why)) = found.left_out.first() {
        let n_left = found.left_out.len();
        notes.push(Note::new(format!("initialisers left out: {n_left} (first: `{name}` {why})")));
    }
    Ok(Contents { kind: Kind::Onnx, tensors, notes, metadata: BTreeMap::new(), archive: None })
}

struct Places<'a> {
    source: &'a Source,
    folder: Option<&'a Path>,
    others: &'a mut Vec<File>,
    /// Files of external data opened, by location.
    known: HashMap<String, usize>,
}

impl Places<'_> {
    fn tensor(&mut self, initializer: Initializer) -> Result<StoredTensor, Error> {
        let Initializer { name, format, shape, data } = initializer;
        let place = format!("tensor `{name}`");
        let broken = |what: String| Error::new(what).at(place.clone()).remedy("export it again");
        if MAX_RANK < shape.len() {
            return Err(broken(format!("has over {MAX_RANK} axes")));
        }
        let too_large = format!("{format} {shape:?} is too large to have a size");
        let tensor = StoredTensor::new(name, format, shape, Place::At(0));
        let mut tensor = tensor.ok_or_else(|| broken(too_large))?;
        let (file_idx, at, given) = match data {
            Data::At(at, given) => (0, at, given),
            Data::Made(bytes) => (self.make(bytes.clone()), 0, bytes.len() as u64),
            Data::Unread(why) => {
                tensor.unread = Some(why);
                return Ok(tensor);
            }
            Data::External { location, offset, length } => {
                let Some(folder) = self.folder else {
                    tensor.unread = Some(format!("its bytes lie in `{location}`"));
                    return Ok(tensor);
                };
                let file_idx = self.open(folder, &location).map_err(|e| e.at(place.clone()))?;
                let len = self.len(file_idx);
                let given = length.unwrap_or(tensor.bytes);
                if offset.checked_add(given).is_none_or(|end| len < end) {
                    let what = format!(
                        "{given} bytes from byte {offset} on are not all in `{location}`, which has \
                         {len}"
                    );
                    return Err(broken(what));
                }
                (file_idx, offset, given)
            }
        };
        if given != tensor.bytes {
            let (wanted, shape) = (tensor.bytes, &tensor.shape);
            return Err(broken(format!("{format} {shape:?} takes {wanted} bytes, not {given}")));
        }
        (tensor.file_idx, tensor.place) = (file_idx, Place::At(at));
        Ok(tensor)
    }

    fn make(&mut self, bytes: Bytes) -> usize {
        self.others.push(File { path: None, source: Source::Memory(bytes), archive: None });
        self.others.len()
    }

    fn open(&mut self, folder: &Path, location: &str) -> Result<usize, Error> {
        if let Some(known) = self.known.get(location) {
            return Ok(*known);
        }
        if self.known.len() == MAX_FILES {
            return Err(Error::new(format!("has its data in more than {MAX_FILES} files")));
        }
        let path = folder.join(location);
        let (file, len) = import::open_file(&path, "data").map_err(|error| error.in_file(&path))?;
        let source = Source::File { file: file.into(), len };
        self.others.push(File { path: Some(path), source, archive: None });
        self.known.insert(location.to_owned(), self.others.len());
        Ok(self.others.len())
    }

    /// Bytes of a file, of which the first is the model itself.
    fn len(&self, file_idx: usize) -> u64 {
        let other = file_idx.checked_sub(1).and_then(|other| self.others.get(other));
        other.map_or(self.source, |other| &other.source).len()
    }
}
