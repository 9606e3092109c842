//! GGUF files -> [`Graph`]: their metadata become the config of the same architecture, which its
//! family builds; each weight is then stored as the file stores it.
//!
//! Not here: reading the file (`weights/gguf`), what the keys mean (`rows.rs`), and which tensor is
//! which weight (`tensors.rs`).

mod facts;
mod rows;
mod special;
mod tensors;

use super::config::Config;
use super::{Options, from_config};
use crate::error::Error;
use crate::graph::Graph;
use crate::note::Note;
use crate::weights::gguf::{self, Gguf, Storage, Value};
use bytes::Bytes;
use facts::Facts;
use flopwise_formats::Format;
use std::path::Path;

/// Reads the model that a GGUF file describes.
///
/// # Errors
/// [`Error`], naming the file: no GGUF, damaged, of an architecture without a rule, a key missing.
pub(super) fn open(path: &Path, options: &Options) -> Result<Graph, Error> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let graph = gguf::open(path).and_then(|gguf| graph(&name, &gguf, options));
    graph.map_err(|error| error.in_file(path))
}

/// As [`open`], of a file in memory.
pub(super) fn read(name: &str, file: Bytes, options: &Options) -> Result<Graph, Error> {
    graph(name, &gguf::from_bytes(file)?, options)
}

fn graph(name: &str, gguf: &Gguf, options: &Options) -> Result<Graph, Error> {
    let architecture = architecture(gguf)?;
    let row = rows::ROWS.iter().find(|row| row.name == architecture);
    let Some(row) = row else {
        let names = rows::ROWS.iter().map(|row| row.name);
        let near = super::nearest(architecture, names);
        let remedy = match near.is_empty() {
            true => "give an .onnx or .pt2 export of the model".to_owned(),
            false => format!("known ones near it: {}", near.join(", ")),
        };
        let shown: String = architecture.chars().take(64).collect();
        let what = format!("has architecture `{shown}`, which has no rule here");
        return Err(Error::new(what).remedy(remedy));
    };
    let facts = Facts::new(gguf, row.name);
    let mut config = Config::parse(b"{}")?;
    let activations = activations(gguf);
    rows::describe(row, &facts, activations, &mut config)?;
    let built = from_config(name, &config, options);
    let mut graph = built.map_err(|error| error.at(format!("architecture `{}`", row.name)))?;
    graph.notes.extend(gguf.notes.iter().cloned());
    graph.notes.push(Note::new(format!(
        "activations and states are counted as {activations}, which a GGUF file does not say"
    )));
    tensors::store(&mut graph, gguf);
    Ok(graph)
}

fn architecture(gguf: &Gguf) -> Result<&str, Error> {
    let key = "general.architecture";
    let is_model = match gguf.metadata.get("general.type") {
        Some(Value::Text(kind)) => kind == "model",
        Some(_) | None => true,
    };
    if !is_model {
        let what = "is no model, but an adapter, a projector or statistics for one";
        return Err(Error::new(what).at("metadata `general.type`"));
    }
    match gguf.metadata.get(key) {
        Some(Value::Text(text)) => Ok(text),
        Some(_) => Err(Error::new("is no text").at(format!("metadata `{key}`"))),
        None => Err(Error::new(format!("has no `{key}`, so the model is unknown"))
            .remedy("give the first file of a split model, or convert the model again")),
    }
}

/// The format in which the model was trained, as far as the file tells: BF16 or FP32 if most
/// elements are stored so, else FP16, as llama.cpp takes it for its caches.
fn activations(gguf: &Gguf) -> Format {
    let elements = |wanted: Format| -> u128 {
        let such = gguf.tensors.iter().filter(|tensor| tensor.storage == Storage::Plain(wanted));
        such.map(|tensor| u128::from(tensor.elements())).sum()
    };
    let all: u128 = gguf.tensors.iter().map(|tensor| u128::from(tensor.elements())).sum();
    let most = [Format::BF16, Format::FP32].into_iter().find(|format| all < 2 * elements(*format));
    most.unwrap_or(Format::FP16)
}
