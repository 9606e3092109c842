//! The weights beside a `config.json` -> what the graph knows of its parameters: the format each is
//! stored in, its scales, and where the checkpoint and the description disagree.
//!
//! Names of checkpoints are those of `transformers`, with three liberties: a prefix more or less
//! (`model.`, `transformer.`), experts stored one by one (`mlp.experts.7.gate_proj.weight`) where the
//! graph has a stack (`mlp.experts.gate_up_proj`), and packed codes under a name of their own
//! (`qweight`, `weight_packed`, `_blocks`).
//!
//! Not here: reading the files (`weights`).

use crate::error::Error;
use crate::graph::{Graph, Role, Shape, Stored, Tensor, TensorType};
use crate::note::Note;
use crate::weights::{Checkpoint, Companion, Meaning, StoredTensor};
use flopwise_formats::{Format, block};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Parameters whose names are tried under each prefix.
const N_TRIED: usize = 24;
/// What stands before the names of one side and not of the other.
const PREFIXES: &[&str] = &[
    "",
    "model.",
    "transformer.",
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.text_model.",
    "text_model.",
    "bert.",
    "roberta.",
    "gpt_neox.",
    "backbone.",
    "encoder.",
    "decoder.",
    "vit.",
    "module.",
    "state_dict.",
    "model_state_dict.",
    "state_dict.model.",
];
/// What a module is called in files, and in the graph: `transformers` renames these when loading.
const RENAMED: &[(&str, &str)] = &[("block_sparse_moe.", "mlp."), ("feed_forward.", "mlp.")];
/// A stack of the graph, and the matrices of one expert that it is made of.
const STACKS: &[(&str, &[&str])] = &[
    ("gate_up_proj", &["gate_proj", "up_proj"]),
    ("gate_up_proj", &["w1", "w3"]),
    ("down_proj", &["down_proj"]),
    ("down_proj", &["w2"]),
    ("up_proj", &["up_proj"]),
    ("gate_proj", &["gate_proj"]),
];
/// Experts of one layer.
const MAX_EXPERTS: usize = 4096;
/// Stored, but made anew when a model is loaded.
const MADE: &[&str] =
    &["rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "position_ids"];

/// Whether a path is that of weights which a `config.json` beside them describes.
pub(super) fn is_weights(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let endings = [".safetensors", ".index.json", ".pt", ".pth", ".bin", ".ckpt"];
    endings.iter().any(|ending| name.ends_with(ending))
}

/// The `config.json` beside a file of weights.
///
/// # Errors
/// There is none: weights alone do not say what is computed with them.
pub(super) fn config_beside(weights: &Path) -> Result<PathBuf, Error> {
    let config = weights.with_file_name("config.json");
    if config.is_file() {
        return Ok(config);
    }
    Err(Error::new("holds weights, which do not say what is computed with them")
        .remedy(
            "put the model's config.json beside it, or give an .onnx or .pt2 export; `flopwise \
             tensors` lists what is in it",
        )
        .in_file(weights))
}

/// What became of the graph's parameters.
#[derive(Default)]
struct Matched {
    /// Parameters found, and how many.
    n_found: usize,
    /// Those that are not there.
    missing: Vec<String>,
    /// Those whose shape is another: a description of the first, and how many.
    unlike: Vec<String>,
    /// Places in the checkpoint that a parameter was found at.
    used: HashSet<usize>,
    /// Parameters by the format they are stored in.
    formats: BTreeMap<String, usize>,
    /// Scales, zero points and tables of the weights found.
    companions: Vec<Tensor>,
}

/// Takes over what the checkpoint says of the graph's parameters, and notes where the two disagree.
pub(super) fn apply(graph: &mut Graph, checkpoint: &Checkpoint) {
    let names = Names::new(graph, checkpoint);
    let mut matched = Matched::default();
    for tensor in &mut graph.tensors {
        let (Role::Parameter, Some(known)) = (tensor.role, &mut tensor.tensor_type) else {
            continue;
        };
        match names.find(&tensor.name) {
            Some(places) => {
                matched.used.extend(&places);
                match fits(known, &tensor.name, &places, checkpoint) {
                    Ok(storage) => {
                        matched.n_found += 1;
                        let name = storage.name();
                        *matched.formats.entry(name).or_insert(0) += 1;
                        storage.set(known, &mut tensor.stored);
                    }
                    Err(why) => matched.unlike.push(why),
                }
                for place in places {
                    matched.take_companions(checkpoint, place);
                }
            }
            None => matched.missing.push(tensor.name.clone()),
        }
    }
    let notes = matched.notes(checkpoint);
    graph.notes.extend(notes);
    graph.tensors.append(&mut matched.companions);
}

/// How a parameter is stored.
enum Storage {
    /// One code per element.
    Plain(Format),
    /// In blocks under a shared scale, along one axis.
    Blocks(Stored),
}

impl Storage {
    fn name(&self) -> String {
        match self {
            Storage::Plain(format) => format.to_string(),
            Storage::Blocks(Stored::Blocks { block, .. }) => block.name.to_owned(),
            Storage::Blocks(Stored::Parts { .. }) => "several formats".to_owned(),
        }
    }

    fn set(self, known: &mut TensorType, stored: &mut Option<Stored>) {
        match self {
            Storage::Plain(format) => (known.format, *stored) = (format, None),
            Storage::Blocks(blocks) => *stored = Some(blocks),
        }
    }
}

/// How the tensors at `places` store a parameter, or why they cannot be it.
fn fits(
    known: &TensorType,
    name: &str,
    places: &[usize],
    checkpoint: &Checkpoint,
) -> Result<Storage, String> {
    let tensors = || places.iter().map(|place| &checkpoint.tensors()[*place]);
    let shape = constants(&known.shape);
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let elements = elements.filter(|_| shape.len() == known.shape.rank());
    let first = &checkpoint.tensors()[places[0]];
    let held = tensors().try_fold(0u64, |sum, tensor| sum.checked_add(tensor.elements));
    let bits = tensors().try_fold(0u64, |sum, tensor| sum.checked_add(tensor.bytes * 8));
    let unlike = || {
        let n_more = places.len() - 1;
        let more = if n_more == 0 { String::new() } else { format!(" and {n_more} more") };
        format!("`{name}` is {} here, `{}` {:?}{more}", known.shape, first.name, first.shape)
    };
    let (Some(elements), Some(held), Some(bits)) = (elements, held, bits) else {
        return Err(unlike());
    };
    if let Some(companion) = first.meaning.scale()
        && (held != elements || companion.codes == Some(Format::E2M1))
    {
        return packed(&shape, elements, bits, first, companion).ok_or_else(unlike);
    }
    let is_same = places.len() == 1 && first.shape == shape;
    let is_stack = 1 < places.len() && held == elements;
    if is_same || is_stack { Ok(Storage::Plain(first.format)) } else { Err(unlike()) }
}

/// Codes of fewer bits than the elements they are packed in.
fn packed(
    shape: &[u64],
    elements: u64,
    bits: u64,
    first: &StoredTensor,
    companion: &Companion,
) -> Option<Storage> {
    let each = bits.checked_div(elements).filter(|each| each * elements == bits)?;
    let scale = companion.parts.first()?;
    let has_table = companion.parts.iter().any(|part| part.name.ends_with("quant_map"));
    match each {
        4 if companion.codes == Some(Format::E2M1) && scale.format == Format::E8M0 => {
            // `[.., blocks, 16 bytes]`: the axis that is so many blocks of 32.
            let n_blocks = first.shape.iter().rev().nth(1)?;
            let is_row = |axis: &usize| shape[*axis] == n_blocks * 32;
            let row = (1..shape.len()).find(is_row)?;
            Some(Storage::Blocks(Stored::Blocks {
                block: block::parse("mxfp4").ok()?,
                row_axes: vec![row],
            }))
        }
        4 if companion.codes == Some(Format::E2M1) => Some(Storage::Plain(Format::E2M1)),
        4 if has_table => Some(Storage::Plain(Format::NF4)),
        2 => Some(Storage::Plain(Format::INT2)),
        4 => Some(Storage::Plain(Format::INT4)),
        8 => Some(Storage::Plain(Format::INT8)),
        _ => None,
    }
}

/// The sizes of a shape without symbols; fewer than its axes otherwise.
fn constants(shape: &Shape) -> Vec<u64> {
    let size =
        |dim: &crate::graph::Dim| dim.as_constant().and_then(|size| u64::try_from(size).ok());
    shape.0.iter().filter_map(size).collect()
}

impl Matched {
    /// What must be stored besides the codes counts as buffers: MXFP4's scales are in its blocks.
    fn take_companions(&mut self, checkpoint: &Checkpoint, place: usize) {
        let Some(companion) = checkpoint.tensors()[place].meaning.scale() else { return };
        let is_mxfp4 = companion.codes == Some(Format::E2M1)
            && companion.parts.first().is_some_and(|scale| scale.format == Format::E8M0);
        for part in &companion.parts {
            if !self.used.insert(part.tensor_idx) || is_mxfp4 {
                continue;
            }
            let stored = &checkpoint.tensors()[part.tensor_idx];
            let sizes: Option<Vec<i64>> =
                stored.shape.iter().map(|size| i64::try_from(*size).ok()).collect();
            let Some(sizes) = sizes else { continue };
            self.companions.push(Tensor {
                name: stored.name.clone(),
                tensor_type: Some(TensorType { shape: Shape::of(&sizes), format: stored.format }),
                role: Role::Buffer,
                producer: None,
                stored: None,
            });
        }
    }

    fn notes(&self, checkpoint: &Checkpoint) -> Vec<Note> {
        let mut lines = Vec::new();
        let n_parameters = self.n_found + self.missing.len() + self.unlike.len();
        let files = match checkpoint.n_files() {
            1 => format!("`{}`", checkpoint.name),
            n_files => format!("{n_files} files"),
        };
        if self.n_found == 0 {
            lines.push(format!(
                "none of the {n_parameters} parameters is found in {files} ({} tensors), so that \
                 formats are those of the config",
                checkpoint.tensors().len()
            ));
        } else {
            let formats: Vec<String> =
                self.formats.iter().map(|(format, n)| format!("{format} {n}")).collect();
            lines.push(format!(
                "formats of {} of {n_parameters} parameters are those of {files}: {}",
                self.n_found,
                formats.join(", ")
            ));
        }
        if let Some(first) = self.missing.first().filter(|_| 0 < self.n_found) {
            let n_missing = self.missing.len();
            lines.push(format!("parameters not in the checkpoint: {n_missing} (first: `{first}`)"));
        }
        if let Some(first) = self.unlike.first() {
            let n_unlike = self.unlike.len();
            lines.push(format!("parameters of another shape there: {n_unlike} (first: {first})"));
        }
        lines.extend(self.surplus(checkpoint));
        if !self.companions.is_empty() {
            let n_parts = self.companions.len();
            lines.push(format!(
                "scales and what else belongs to quantised weights are counted as buffers: {n_parts} \
                 tensors"
            ));
        }
        lines.into_iter().map(Note::new).collect()
    }

    /// What the checkpoint has and the graph has not.
    fn surplus(&self, checkpoint: &Checkpoint) -> Option<String> {
        let is_left = |place: &usize, tensor: &StoredTensor| {
            let serves = matches!(tensor.meaning, Meaning::Serves { .. });
            let is_made = MADE.iter().any(|ending| tensor.name.ends_with(ending));
            !(self.used.contains(place) || serves || is_made)
        };
        let left = checkpoint.tensors().iter().enumerate();
        let left: Vec<&StoredTensor> =
            left.filter(|(place, t)| is_left(place, t)).map(|(_, t)| t).collect();
        let first = left.first().filter(|_| 0 < self.n_found)?;
        let elements: u64 = left.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.elements));
        Some(format!(
            "tensors of the checkpoint that the graph has no place for: {} with {elements} elements \
             (first: `{}`)",
            left.len(),
            first.name
        ))
    }
}

/// Where a checkpoint keeps what.
struct Names {
    by_name: HashMap<String, usize>,
    /// The matrices of experts stored one by one: module and matrix, and their places.
    experts: HashMap<(String, String), Vec<usize>>,
    /// What the graph's names begin with, and the checkpoint's instead.
    prefix: (&'static str, &'static str),
}

impl Names {
    fn new(graph: &Graph, checkpoint: &Checkpoint) -> Names {
        let mut names =
            Names { by_name: HashMap::new(), experts: HashMap::new(), prefix: ("", "") };
        for (place, tensor) in checkpoint.tensors().iter().enumerate() {
            if matches!(tensor.meaning, Meaning::Serves { .. }) {
                continue;
            }
            let name = RENAMED.iter().fold(tensor.name.clone(), |name, (from, to)| {
                if name.contains(from) { name.replace(from, to) } else { name }
            });
            if let Some(key) = expert(&name) {
                let places = names.experts.entry(key).or_default();
                if places.len() < MAX_EXPERTS {
                    places.push(place);
                }
            }
            names.by_name.entry(name).or_insert(place);
        }
        let parameters = graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter);
        let all: Vec<&str> = parameters.map(|tensor| tensor.name.as_str()).collect();
        let step = all.len().div_ceil(N_TRIED).max(1);
        let tried: Vec<&str> = all.iter().step_by(step).copied().collect();
        let (mut best, mut prefix) = (0, ("", ""));
        for ours in PREFIXES.iter().filter(|ours| tried.iter().any(|name| name.starts_with(**ours)))
        {
            for theirs in PREFIXES {
                names.prefix = (*ours, *theirs);
                let n_found = tried.iter().filter(|name| names.find(name).is_some()).count();
                if best < n_found {
                    (best, prefix) = (n_found, (*ours, *theirs));
                }
            }
        }
        names.prefix = prefix;
        names
    }

    /// The places of a parameter: one, or those of its experts.
    fn find(&self, name: &str) -> Option<Vec<usize>> {
        let (ours, theirs) = self.prefix;
        let renamed = name.strip_prefix(ours).map(|rest| format!("{theirs}{rest}"));
        let outer = theirs.strip_suffix("model.").map(|outer| format!("{outer}{name}"));
        [renamed, outer, Some(name.to_owned())]
            .into_iter()
            .flatten()
            .find_map(|name| self.at(&name))
    }

    fn at(&self, name: &str) -> Option<Vec<usize>> {
        if let Some(place) = self.by_name.get(name) {
            return Some(vec![*place]);
        }
        let stem = name.strip_suffix("weight");
        let packed = stem
            .into_iter()
            .flat_map(|stem| ["qweight", "weight_packed"].map(|ending| format!("{stem}{ending}")));
        let blocks = std::iter::once(format!("{name}_blocks"));
        if let Some(place) = packed.chain(blocks).find_map(|name| self.by_name.get(&name).copied())
        {
            return Some(vec![place]);
        }
        let (module, stack) = name.rsplit_once('.')?;
        if !module.ends_with("experts") {
            return None;
        }
        STACKS.iter().filter(|(known, _)| *known == stack).find_map(|(_, parts)| {
            let mut places = Vec::new();
            for part in *parts {
                places.extend(self.experts.get(&(module.to_owned(), (*part).to_owned()))?);
            }
            Some(places)
        })
    }
}

/// `x.experts.7.gate_proj.weight` -> (`x.experts`, `gate_proj`).
fn expert(name: &str) -> Option<(String, String)> {
    let (module, rest) = name.split_once(".experts.")?;
    let (number, rest) = rest.split_once('.')?;
    let matrix = rest.strip_suffix(".weight").or_else(|| rest.strip_suffix(".qweight"))?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| (format!("{module}.experts"), matrix.to_owned()))
}
