//! The files of one model -> one [`Checkpoint`]: an index (`model.safetensors.index.json`,
//! `pytorch_model.bin.index.json`) and the shards that it names, or a folder with either.
//!
//! An index is `{"metadata": {"total_size": N}, "weight_map": {"name": "file", ..}}`:
//! <https://huggingface.co/docs/transformers/en/big_models#sharded-checkpoints>. It is held against
//! the shards: what it says must be there, and nothing may stand twice.
//!
//! Not here: reading a single file.

use super::{Checkpoint, json, open_file};
use crate::error::Error;
use crate::import;
use crate::note::Note;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

/// The index of DeepSeek-V3, 91,991 tensors, has 9 MB.
const MAX_INDEX_BYTES: u64 = 32 << 20;
/// Files of one model; each stays open, and systems allow a process 1,024.
const MAX_SHARDS: usize = 1000;
/// Tensors of one model, as for a single file.
const MAX_TENSORS: usize = 500_000;
/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 20_000;
/// Names shown in an error.
const N_SHOWN: usize = 3;

/// Endings of an index, the better kind first.
const INDICES: &[&str] = &[".safetensors.index.json", ".bin.index.json"];
/// Endings of files of weights that a folder without an index may consist of.
const ENDINGS: &[&str] = &[".safetensors", ".bin", ".pth", ".pt"];

/// What an index says.
#[derive(serde::Deserialize)]
struct Index {
    #[serde(default)]
    metadata: Metadata,
    weight_map: WeightMap,
}

#[derive(Default, serde::Deserialize)]
struct Metadata {
    /// Some writers put a float here.
    total_size: Option<f64>,
}

/// Name -> file, by the names.
#[derive(Default)]
struct WeightMap {
    /// Each with the place of its file.
    names: Vec<(Box<str>, u32)>,
    files: Vec<String>,
}

impl WeightMap {
    fn file_of(&self, place: u32) -> &str {
        self.files.get(place as usize).map_or("", String::as_str)
    }
}

/// Opens the model in a folder.
pub(super) fn open_folder(folder: &Path) -> Result<Checkpoint, Error> {
    let names = import::file_names(folder, MAX_ENTRIES)?;
    for ending in INDICES {
        let found: Vec<&String> = names.iter().filter(|name| name.ends_with(ending)).collect();
        // Beside `model` there may be variants, `model.fp16`.
        let usual = [format!("model{ending}"), format!("pytorch_model{ending}")];
        let chosen = found.iter().find(|name| usual.contains(name)).or(found.first());
        if let Some(index) = chosen {
            let path = folder.join(index);
            return open_index(&path).map_err(|error| error.in_file(&path));
        }
    }
    for ending in ENDINGS {
        let is_weights = |name: &&String| {
            name.ends_with(ending) && name.as_str() != "training_args.bin" && !is_state(name)
        };
        let files: Vec<&str> = names.iter().filter(is_weights).map(String::as_str).collect();
        let files = match files.iter().find(|name| **name == format!("model{ending}")) {
            Some(whole) => vec![*whole],
            None => files,
        };
        if !files.is_empty() {
            return join(folder, &files);
        }
    }
    Err(Error::new("is a folder without weights")
        .remedy("one with .safetensors files, or an index of them, is read"))
}

/// Whether a folder has files that look like weights, or an index of them.
pub(super) fn has_some(folder: &Path) -> bool {
    let names = import::file_names(folder, MAX_ENTRIES).unwrap_or_default();
    let is_some = |name: &String| INDICES.iter().chain(ENDINGS).any(|end| name.ends_with(end));
    names.iter().any(is_some)
}

/// What training leaves beside the weights.
fn is_state(name: &str) -> bool {
    ["optimizer.", "scheduler.", "rng_state"].iter().any(|start| name.starts_with(start))
}

/// Opens the shards that an index names.
pub(super) fn open_index(path: &Path) -> Result<Checkpoint, Error> {
    let (file, len) = import::open_file(path, "index of weights")?;
    if MAX_INDEX_BYTES < len {
        return Err(Error::new(format!("has {len} bytes, too many for an index of weights")));
    }
    let index = read_index(file.take(MAX_INDEX_BYTES))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let weight_map = index.weight_map;
    check_places(&weight_map)?;
    check_there(&weight_map.files, folder)?;
    let mut files: Vec<&str> = weight_map.files.iter().map(String::as_str).collect();
    files.sort_unstable();
    let mut checkpoint = join(folder, &files)?;
    fits(&weight_map, &files, &mut checkpoint)?;
    let total: u64 = checkpoint.tensors.iter().map(|tensor| tensor.bytes).sum();
    if let Some(claimed) = index.metadata.total_size
        && 0.5 < (claimed - total as f64).abs()
    {
        checkpoint.notes.push(Note::new(format!(
            "the index says {claimed} bytes in all, its files hold {total}"
        )));
    }
    Ok(checkpoint)
}

fn read_index(text: impl Read) -> Result<Index, Error> {
    json::read(text).map_err(|error| {
        Error::new(format!("is no index of weights: {error}"))
            .remedy("give the folder of the model, or its model.safetensors.index.json")
    })
}

/// Whether a text is an index of files within its folder, none of which need be there.
pub(super) fn check_index(text: &[u8]) -> Result<(), Error> {
    check_places(&read_index(text)?.weight_map)
}

/// Shards lie in the folder of the index.
fn check_places(weight_map: &WeightMap) -> Result<(), Error> {
    let leaves = |(_, place): &&(Box<str>, u32)| import::leaves_folder(weight_map.file_of(*place));
    if let Some((name, place)) = weight_map.names.iter().find(leaves) {
        let file = weight_map.file_of(*place);
        return Err(Error::new(format!("lies outside the index's folder, at `{file}`"))
            .at(format!("tensor `{name}`")));
    }
    match weight_map.files.is_empty() {
        true => Err(Error::new("names no files of weights")),
        false => Ok(()),
    }
}

fn check_there(files: &[String], folder: &Path) -> Result<(), Error> {
    let missing: Vec<&str> =
        files.iter().map(String::as_str).filter(|file| !folder.join(file).is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (n_missing, n_files) = (missing.len(), files.len());
    let more = if N_SHOWN < n_missing { ", .." } else { "" };
    let shown = missing.iter().take(N_SHOWN).copied().collect::<Vec<_>>().join(", ");
    Err(Error::new(format!("{n_missing} of {n_files} shards are not there: {shown}{more}"))
        .remedy("download them into the folder of the index"))
}

/// Holds the index against what the shards have.
fn fits(weight_map: &WeightMap, files: &[&str], checkpoint: &mut Checkpoint) -> Result<(), Error> {
    let by_name: HashMap<&str, usize> =
        checkpoint.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.file_idx)).collect();
    for (name, place) in &weight_map.names {
        let file = weight_map.file_of(*place);
        let file_idx = by_name.get(&**name);
        let held_by = file_idx.and_then(|file_idx| checkpoint.files.get(*file_idx));
        let path = held_by.and_then(|held_by| held_by.path.as_deref());
        let is_there = path.is_some_and(|path| path.ends_with(file));
        if !is_there {
            let elsewhere = match path.and_then(Path::file_name) {
                Some(other) => format!(", but in `{}`", other.to_string_lossy()),
                None => String::new(),
            };
            return Err(Error::new(format!("is not in `{file}`, as the index says{elsewhere}"))
                .at(format!("tensor `{name}`"))
                .remedy("download index and shards again, from one revision"));
        }
    }
    let mut surplus = by_name.keys().filter(|name| {
        let listed = weight_map.names.binary_search_by(|(listed, _)| (**listed).cmp(name));
        listed.is_err()
    });
    let n_surplus = surplus.clone().count();
    if let Some(first) = surplus.next() {
        let first = surplus.fold(*first, |first, name| first.min(*name));
        let n_files = files.len();
        checkpoint.notes.push(Note::new(format!(
            "tensors in the {n_files} shards that the index does not list: {n_surplus} (first: \
             `{first}`)"
        )));
    }
    Ok(())
}

/// Opens files of a folder as one checkpoint.
fn join(folder: &Path, names: &[&str]) -> Result<Checkpoint, Error> {
    if MAX_SHARDS < names.len() {
        let n_files = names.len();
        return Err(Error::new(format!("names {n_files} files, more than {MAX_SHARDS}")));
    }
    let mut whole: Option<Checkpoint> = None;
    for name in names {
        let next = open_file(&folder.join(name))?;
        whole = Some(match whole {
            None => next,
            Some(whole) => put_together(whole, next, name)?,
        });
    }
    let mut whole = whole.ok_or_else(|| Error::new("names no files of weights"))?;
    if 1 < names.len() {
        refuse_twins(&whole, names)?;
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        whole.name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    }
    // Only now, as scales may lie in another shard than their codes.
    Ok(whole.with_meanings())
}

fn put_together(mut whole: Checkpoint, next: Checkpoint, name: &str) -> Result<Checkpoint, Error> {
    if whole.kind != next.kind {
        return Err(Error::new(format!("`{name}` is of another kind than the files before it")));
    }
    if MAX_TENSORS < whole.tensors.len() + next.tensors.len() {
        return Err(Error::new(format!("holds more than {MAX_TENSORS} tensors")));
    }
    let n_files = whole.files.len();
    whole.tensors.extend(next.tensors.into_iter().map(|mut tensor| {
        tensor.file_idx += n_files;
        tensor
    }));
    whole.files.extend(next.files);
    for note in next.notes {
        if !whole.notes.contains(&note) {
            whole.notes.push(note);
        }
    }
    for (key, text) in next.metadata {
        whole.metadata.entry(key).or_insert(text);
    }
    Ok(whole)
}

fn refuse_twins(whole: &Checkpoint, names: &[&str]) -> Result<(), Error> {
    let mut files: HashMap<&str, usize> = HashMap::new();
    for tensor in &whole.tensors {
        if let Some(other) = files.insert(&tensor.name, tensor.file_idx) {
            let name = |file_idx: usize| names.get(file_idx).copied().unwrap_or_default();
            let (one, two) = (name(other), name(tensor.file_idx));
            return Err(Error::new(format!("stands in `{one}` and in `{two}`"))
                .at(format!("tensor `{}`", tensor.name))
                .remedy("name one of the files, or keep one model in a folder"));
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = WeightMap;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of names and files")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut weight_map = WeightMap::default();
                let mut places: HashMap<String, u32> = HashMap::new();
                while let Some((name, file)) = map.next_entry::<String, String>()? {
                    if weight_map.names.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let place = match places.get(&file) {
                        Some(place) => *place,
                        None if places.len() == MAX_SHARDS => {
                            return Err(de::Error::custom(format!("more than {MAX_SHARDS} files")));
                        }
                        None => {
                            let place = places.len() as u32;
                            weight_map.files.push(file.clone());
                            places.insert(file, place);
                            place
                        }
                    };
                    weight_map.names.push((name.into(), place));
                }
                weight_map.names.sort_unstable();
                let mut pairs = weight_map.names.windows(2);
                if let Some([(twin, _), _]) = pairs.find(|pair| pair[0].0 == pair[1].0) {
                    return Err(de::Error::custom(format!("`{twin}` stands twice")));
                }
                Ok(weight_map)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl Checkpoint {
    /// How many files it lies in.
    pub fn n_files(&self) -> usize {
        self.files.iter().filter(|file| file.path.is_some()).count().max(1)
    }
}
