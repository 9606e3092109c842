//! `.npz`: a zip archive of `.npy` members. Stored members are read in place, by many threads;
//! deflated ones are inflated from their start each time, in bounded memory.
//!
//! Not here: what a `.npy` header says (`npy.rs`).

use super::source::{Reader, Source};
use super::{Contents, Kind, Place, StoredTensor, npy};
use crate::error::Error;
use crate::note::Note;
use std::collections::BTreeMap;

/// The archive's directory, and a reader of its own for every clone.
pub(super) type Archive = zip::ZipArchive<Reader>;

/// Members of an archive; a real one has one per array.
const MAX_MEMBERS: usize = 500_000;

/// Reads the directory.
pub(super) fn archive(source: &Source) -> Result<Archive, Error> {
    // The archive starts at byte 0, as its first bytes said. Left to guess, the reader is misled by
    // zip64 records as long as a member's header.
    let config = zip::read::Config { archive_offset: zip::read::ArchiveOffset::Known(0) };
    let archive = zip::ZipArchive::with_config(config, Reader::new(source.clone()));
    let archive = archive.map_err(|error| {
        Error::new(format!("is a damaged zip file: {error}")).remedy("download or save it again")
    })?;
    if MAX_MEMBERS < archive.len() {
        return Err(Error::new(format!("holds {} members, more than are read", archive.len())));
    }
    Ok(archive)
}

/// Reads the header of each array.
pub(super) fn read(mut archive: Archive, source: &Source) -> Result<Contents, Error> {
    let mut notes = Vec::new();
    if archive.has_duplicate_names() {
        notes.push(Note::new("several members have one name; the last of each is read"));
    }
    let mut tensors = Vec::new();
    let mut others: Vec<String> = Vec::new();
    let mut unread: Vec<Error> = Vec::new();
    for member_idx in 0..archive.len() {
        let member_name = match archive.name_for_index(member_idx) {
            Some(Ok(name)) => name.into_owned(),
            Some(Err(_)) | None => {
                return Err(Error::new("its name is not text").at(format!("member {member_idx}")));
            }
        };
        let Some(name) = member_name.strip_suffix(".npy") else {
            others.push(member_name);
            continue;
        };
        match member(&mut archive, member_idx, name, source)? {
            Member::Tensor(tensor, doubts) => {
                tensors.push(tensor);
                notes.extend(doubts);
            }
            Member::Unread(error) => unread.push(error),
        }
    }
    if tensors.is_empty() {
        refuse(&others, unread.first())?;
    }
    notes.extend(unread.iter().map(|error| Note::new(format!("{error}; it is left out"))));
    if let Some(first) = others.first() {
        let n_others = others.len();
        let text = format!("{n_others} members are no .npy arrays and left out (first: `{first}`)");
        notes.push(Note::new(text));
    }
    let metadata = BTreeMap::new();
    Ok(Contents { kind: Kind::Npz, tensors, notes, metadata, archive: Some(archive) })
}

/// Says what an archive without arrays is; one without members is merely empty.
fn refuse(others: &[String], unread: Option<&Error>) -> Result<(), Error> {
    match (unread, others.first()) {
        (Some(error), _) => Err(error.clone()),
        (None, Some(first)) => {
            let what = format!("is a zip file without .npy arrays (it holds `{first}`)");
            Err(Error::new(what).remedy("give a .safetensors, .pt, .npy or .npz file"))
        }
        (None, None) => Ok(()),
    }
}

enum Member {
    Tensor(StoredTensor, Vec<Note>),
    Unread(Error),
}

fn member(
    archive: &mut Archive,
    member_idx: usize,
    name: &str,
    source: &Source,
) -> Result<Member, Error> {
    let place = || format!("member `{name}.npy`");
    let mut file = archive.by_index(member_idx).map_err(|error| {
        let error = Error::new(format!("cannot be read: {error}")).at(place());
        error.remedy("save it again with numpy.savez")
    })?;
    let mut array = match npy::header(name, &mut file)? {
        npy::Found::Array(array) => array,
        npy::Found::Unread(error) => return Ok(Member::Unread(error)),
    };
    let mut doubts: Vec<Note> = array.note.iter().map(Note::new).collect();
    doubts.extend(npy::surplus(&array, file.size())?);
    let header_bytes = array.header_bytes;
    array.tensor.place = if file.compression() == zip::CompressionMethod::Stored {
        let data_at = file.data_start();
        let data_at = data_at.filter(|_| file.compressed_size() == file.size());
        let end = data_at.and_then(|data_at| data_at.checked_add(file.size()));
        let is_inside = end.is_some_and(|end| end <= source.len());
        let (Some(data_at), true) = (data_at, is_inside) else {
            return Err(Error::new("its bytes are not all in the file")
                .at(place())
                .remedy("the file is cut short: download or save it again"));
        };
        Place::At(data_at + header_bytes)
    } else {
        Place::Inflated { member_idx, header_bytes }
    };
    Ok(Member::Tensor(array.tensor, doubts))
}
