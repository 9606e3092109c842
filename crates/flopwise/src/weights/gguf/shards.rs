//! Models split over several files: `name-00001-of-00003.gguf` and its brothers.
//!
//! The keys are those of `gguf-split` in llama.cpp. Not here: reading one file.

use super::header::{MAX_TENSORS, Value};
use super::{Gguf, one};
use crate::error::Error;
use crate::import;
use crate::note::Note;
use crate::weights::source::Source;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Files of one model; a process may have about a thousand open.
const MAX_SHARDS: u64 = 512;

/// Adds the other files of a split model to one of them, as far as they are there.
pub(super) fn join(first: Gguf, path: Option<&Path>) -> Result<Gguf, Error> {
    let Some(count) = whole(&first, "split.count")?.filter(|count| 1 < *count) else {
        return Ok(first);
    };
    if MAX_SHARDS < count {
        let what = format!("is {count}; {MAX_SHARDS} are allowed");
        return Err(Error::new(what).at("metadata `split.count`"));
    }
    let own = whole(&first, "split.no")?.unwrap_or(0);
    let total = whole(&first, "split.tensors.count")?;
    let files: Vec<Option<PathBuf>> =
        (0..count).map(|no| path.and_then(|p| brother(p, no, count))).collect();
    let mut shards: Vec<Gguf> = Vec::new();
    let mut missing: Vec<u64> = Vec::new();
    let mut own_shard = Some(first);
    for (no, file) in (0..count).zip(files) {
        if no == own {
            shards.extend(own_shard.take());
            continue;
        }
        match file.filter(|file| file.is_file()) {
            Some(file) => shards.push(shard(&file, (no, count))?),
            None => missing.push(no),
        }
    }
    // A number beyond the count.
    shards.extend(own_shard);
    let mut joined = together(shards)?;
    let n_found = joined.tensors.len() as u64;
    if let Some(first) = missing.first() {
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        joined.notes.push(Note::new(format!(
            "{} of the {count} files that the model is split into are not there (first: number {}); \
             what is said is of {n_found}{of} tensors",
            missing.len(),
            first + 1
        )));
    } else if let Some(total) = total.filter(|total| *total != n_found) {
        joined.notes.push(Note::new(format!(
            "the files have {n_found} tensors, and say that they should have {total}"
        )));
    }
    Ok(joined)
}

fn whole(gguf: &Gguf, key: &str) -> Result<Option<u64>, Error> {
    match gguf.metadata.get(key) {
        None => Ok(None),
        Some(Value::Whole(number)) if u64::try_from(*number).is_ok() => {
            Ok(u64::try_from(*number).ok())
        }
        Some(other) => {
            let what = format!("is {other}, no count");
            Err(Error::new(what).at(format!("metadata `{key}`")))
        }
    }
}

/// The path of file `no`, counted from 0, beside that of another.
fn brother(path: &Path, no: u64, count: u64) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (stem, number) = stem.rsplit_once('-')?;
    let is_number = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| path.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", no + 1)))
}

fn shard(path: &Path, (no, count): (u64, u64)) -> Result<Gguf, Error> {
    let read = || {
        let (file, len) = import::open_file(path, ".gguf")?;
        let shard = one(Source::File { file: file.into(), len })?;
        let found = (whole(&shard, "split.no")?, whole(&shard, "split.count")?);
        if found != (Some(no), Some(count)) {
            let what = format!("is not number {} of {count}, as its name says", no + 1);
            return Err(Error::new(what).remedy("give the files of one model their own names"));
        }
        Ok(shard)
    };
    read().map_err(|error| error.in_file(path))
}

/// The files in order as one: keys that several have are those of the first.
fn together(shards: Vec<Gguf>) -> Result<Gguf, Error> {
    let mut shards = shards.into_iter();
    let Some(mut joined) = shards.next() else { return Err(Error::new("has no files")) };
    let mut sources = vec![joined.source.clone()];
    let mut start = joined.source.len();
    for shard in shards {
        let Gguf { metadata, tensors, notes, source } = shard;
        for (key, value) in metadata {
            joined.metadata.entry(key).or_insert(value);
        }
        for mut tensor in tensors {
            tensor.at += start;
            joined.tensors.push(tensor);
        }
        joined.notes.extend(notes);
        // Lengths of files are below 2^63, and the files few; their sum may still pass it.
        start = start
            .checked_add(source.len())
            .filter(|end| *end < 1 << 62)
            .ok_or_else(|| Error::new("the files of the model are too large to be read as one"))?;
        sources.push(source);
    }
    let mut names = HashSet::new();
    if let Some(twin) = joined.tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        return Err(Error::new("stands in two files").at(format!("tensor `{}`", twin.name)));
    }
    if MAX_TENSORS < joined.tensors.len() as u64 {
        return Err(Error::new(format!("has more than {MAX_TENSORS} tensors in all its files")));
    }
    joined.source = Source::joined(sources);
    Ok(joined)
}
