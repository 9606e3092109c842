//! Descriptions of models -> [`Graph`]: a `config.json`, a GGUF file, or a built-in name.
//!
//! A built-in name is data: a table of config fields in `data/models/*.toml`, or an export of the
//! network without its weights (`exports.rs`).

mod checkpoint;
#[cfg(test)]
mod checkpoint_tests;
mod config;
mod decoder;
mod depth;
mod described;
mod diffusion;
mod encoder_decoder;
mod exports;
mod family;
mod gguf;
mod layer;
mod mtp;
mod names;
mod network;
mod quantization;
mod vision;

use crate::error::Error;
use crate::graph::{Graph, Pass};
use crate::import;
use crate::note::Note;
use crate::weights;
use bytes::Bytes;
use config::Config;
use family::Request;
use std::path::Path;

/// What the user wants built of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What a pass is: a decoded token goes through latent attention in its absorbed form.
    pub pass: Pass,
    /// How many of the modules that predict further tokens (MTP) are counted; inference without
    /// speculation runs none of them.
    pub mtp: u32,
}

impl Options {
    /// A whole pass of the model itself.
    #[must_use]
    pub fn whole() -> Options {
        Options { pass: Pass::Whole, mtp: 0 }
    }
}

/// A built-in name, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// The name to type.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What it is listed under.
    pub group: String,
    /// Where its description comes from.
    pub source: String,
}

enum Known {
    Export(exports::Export),
    Described(Result<names::Entry, Error>),
}

/// The graph of a built-in name, `None` if there is no such name. `-` and `_` are the same, and an
/// organisation in front (`meta-llama/Llama-3.1-8B`) may be left out.
#[must_use]
pub fn built_in(name: &str, options: &Options) -> Option<Result<Graph, Error>> {
    Some(match known(name)? {
        Known::Export(export) => export.graph(),
        Known::Described(entry) => {
            entry.and_then(|entry| from_config(&entry.name, &entry.config, options))
        }
    })
}

/// What is said of a built-in name, `None` if there is no such name.
#[must_use]
pub fn described(name: &str) -> Option<Result<BuiltIn, Error>> {
    Some(match known(name)? {
        Known::Export(export) => Ok(export.described()),
        Known::Described(entry) => entry.map(names::Entry::described),
    })
}

fn known(name: &str) -> Option<Known> {
    let whole = name.to_ascii_lowercase().replace('-', "_");
    let inside = whole.rsplit('/').next().filter(|_| !whole.starts_with(exports::TIMM));
    [Some(whole.as_str()), inside].into_iter().flatten().find_map(|wanted| {
        let described = || names::find(wanted).map(Known::Described);
        exports::find(wanted).map(Known::Export).or_else(described)
    })
}

/// Reads a GGUF file, a `config.json`, or the one in a folder or beside a file of weights. Weights in
/// the folder, or that file, say how the parameters are stored; a flaw of theirs is a note.
///
/// # Errors
/// [`Error`], naming the file and the field: missing, no JSON, an unknown `model_type`, a field that
/// is missing, out of range, or contradicts another; weights without a config.
pub fn open(path: &Path, options: &Options) -> Result<Graph, Error> {
    if import::starts_with(path, b"GGUF") {
        return gguf::open(path, options);
    }
    if path.is_file() && checkpoint::is_weights(path) {
        let weights = weights::open(path)?;
        let mut graph = open_config(&checkpoint::config_beside(path)?, options)?;
        checkpoint::apply(&mut graph, &weights);
        return Ok(graph);
    }
    if !path.is_dir() {
        return open_config(path, options);
    }
    let config = path.join("config.json");
    if !config.is_file() {
        return Err(Error::new("is a directory without a config.json")
            .remedy("put the model's config.json into it, or name an .onnx or .pt2 export")
            .in_file(path));
    }
    let mut graph = open_config(&config, options)?;
    match weights::open(path) {
        Ok(weights) => checkpoint::apply(&mut graph, &weights),
        Err(error) if weights::has_some(path) => {
            graph.notes.push(Note::new(format!("its weights are not looked at: {error}")));
        }
        Err(_) => {}
    }
    Ok(graph)
}

fn open_config(path: &Path, options: &Options) -> Result<Graph, Error> {
    let file = path.to_owned();
    let read = || {
        let text = import::read_small(&file, config::MAX_BYTES, "config.json")?;
        let config = Config::parse(&text)?;
        let named =
            file.parent().and_then(Path::file_name).filter(|_| file.ends_with("config.json"));
        let name = named.or(file.file_stem()).unwrap_or_default().to_string_lossy();
        from_config(&name, &config, options)
    };
    read().map_err(|error| error.in_file(&file))
}

/// As [`open`], of the text of a `config.json`, or a GGUF file in memory.
///
/// # Errors
/// As [`open`]; no file is named.
///
/// ```
/// use flopwise::arch::{Options, read};
/// let config = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "vocab_size": 10,
///     "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "torch_dtype": "bfloat16"}"#;
/// let work = flopwise::cost::work(&read("tiny", config.as_bytes(), &Options::whole())?);
/// // two tables of 10 x 8, three norms of 8, q and o of 8 x 8, k and v of 4 x 8, three matrices of 16 x 8
/// assert_eq!(work.parameters.to_string(), "760");
/// # Ok::<(), flopwise::error::Error>(())
/// ```
pub fn read(name: &str, text: &[u8], options: &Options) -> Result<Graph, Error> {
    if text.starts_with(b"GGUF") {
        return gguf::read(name, Bytes::copy_from_slice(text), options);
    }
    from_config(name, &Config::parse(text)?, options)
}

/// Whether a path is that of a description: a folder, a file of JSON, a GGUF file, or weights, which
/// a config beside them may describe.
#[must_use]
pub fn is_description(path: &Path) -> bool {
    let is_weights = path.is_file() && checkpoint::is_weights(path);
    let is_gguf = import::starts_with(path, b"GGUF");
    path.is_dir() || is_gguf || is_weights || import::starts_as_json(path)
}

fn from_config(name: &str, config: &Config, options: &Options) -> Result<Graph, Error> {
    let request = Request { name, options };
    let mut graph = match (config.text("model_type")?, config.text("_class_name")?) {
        (Some(model_type), _) => {
            let build = family::build(model_type).ok_or_else(|| unknown_model_type(model_type))?;
            build(config, &request)?
        }
        (None, Some(class)) => diffusion::build(config, class, &request)?,
        (None, None) => {
            return Err(Error::new("has no `model_type`, so the architecture is unknown")
                .remedy("add it; `llama`, `qwen3` and `bert` are some"));
        }
    };
    mtp::check(&graph, config, options)?;
    quantization::apply(&mut graph, config)?;
    let assumed = config.assumed();
    if !assumed.is_empty() {
        graph.notes.push(Note::new(format!(
            "not in the config and taken as the reference implementation does: {}",
            assumed.join(", ")
        )));
    }
    Ok(graph)
}

fn unknown_model_type(model_type: &str) -> Error {
    let shown: String = model_type.chars().take(64).collect();
    let near = nearest(&shown, family::model_types());
    let remedy = match near.is_empty() {
        true => "give an .onnx or .pt2 export of the model".to_owned(),
        false => format!("known ones near it: {}", near.join(", ")),
    };
    Error::new(format!("`model_type` is `{shown}`, which has no rule here")).remedy(remedy)
}

/// Every built-in model, by name.
#[must_use]
pub fn list() -> Vec<BuiltIn> {
    let exports = exports::every().map(|export| export.described());
    let described = names::all().into_iter().map(names::Entry::described);
    let mut all: Vec<BuiltIn> = exports.chain(described).collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    all
}

/// Name and description of every built-in model, by name.
pub fn names() -> impl Iterator<Item = (String, String)> {
    list().into_iter().map(|model| (model.name, model.about))
}

/// Up to three of the words that a mistyped one may have meant.
fn nearest<W: AsRef<str>>(typed: &str, words: impl Iterator<Item = W>) -> Vec<String> {
    let mut near: Vec<(usize, String)> = words
        .map(|known| (strsim::levenshtein(typed, known.as_ref()), known.as_ref().to_owned()))
        .filter(|(far, _)| *far <= 4)
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, word)| word).collect()
}

/// Says that there is neither such a file nor such a name, and which names are near.
#[must_use]
pub fn unknown_model(model: &str) -> Error {
    unknown("no such file, and no built-in model of that name", model)
}

/// Says that no built-in model has that name, or holds it in its name, and which names are near.
#[must_use]
pub fn unknown_name(name: &str) -> Error {
    unknown("no built-in model of that name", name)
}

fn unknown(what: &str, typed: &str) -> Error {
    // Longer names than these are paths.
    let start: String = typed.to_lowercase().chars().take(64).collect();
    // timm's are found without their prefix too.
    let plain = |name: &str| name.strip_prefix(exports::TIMM).unwrap_or(name).to_owned();
    let mut known: Vec<String> = names().map(|(name, _)| plain(&name)).collect();
    known.sort_unstable();
    known.dedup();
    let close = nearest(plain(&start).as_str(), known.iter());
    let remedy = match close.is_empty() {
        true => "`flopwise model` lists the built-in ones".to_owned(),
        false => format!("did you mean {}?", close.join(", ")),
    };
    Error::new(what).in_file(Path::new(typed)).remedy(remedy)
}
