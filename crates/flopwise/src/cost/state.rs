//! What a model keeps of a sequence from one token to the next, in bytes: keys and values, latents,
//! recurrent states. From what the graph says ([`Graph::states`]), or else read off its causal
//! self-attentions.
//!
//! Not here: how an engine lays it out in pages (`pages.rs`), and what reading it costs
//! (`attention.rs`).

use super::CONTEXT;
use super::masking::unrepeated;
use super::movement::is_part;
use crate::graph::{
    Attention, Dim, Graph, Keeps, Node, Op, State, StoredFormat, TensorId, TensorType,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Symbols that a sequence's length may have, the first that the graph knows counting: a decoder
/// with an encoder before it generates a sequence of its own.
const LENGTHS: [&str; 3] = [CONTEXT, "target_seq", "seq"];

/// What a model keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How many sequences there are.
    pub sequences: Dim,
    /// How many tokens each has, the last one included.
    pub context: Dim,
    /// What each layer keeps of one sequence.
    pub layers: Vec<KeptLayer>,
}

/// What one layer keeps of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLayer {
    /// Path of the layer.
    pub module: Arc<str>,
    /// `keys and values`, `latent`, `convolution` ...
    pub what: &'static str,
    /// Of how many tokens.
    pub keeps: Keeps,
    /// The format it is kept in.
    pub format: StoredFormat,
    /// Bytes of one entry, scales included.
    pub entry_bytes: Dim,
}

/// Layers that keep the same thing of as many tokens in the same format, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPart {
    /// What it is.
    pub what: &'static str,
    /// Of how many tokens.
    pub keeps: Keeps,
    /// The format it is kept in.
    pub format: StoredFormat,
    /// How many layers.
    pub n_layers: usize,
    /// Bytes of one entry of each of the layers.
    pub entry_bytes: Dim,
}

impl Kept {
    /// Alike layers together, in the order of the first of each.
    #[must_use]
    pub fn parts(&self) -> Vec<KeptPart> {
        let mut parts: Vec<KeptPart> = Vec::new();
        for layer in &self.layers {
            let is_same = |part: &&mut KeptPart| {
                (part.what, &part.keeps, part.format) == (layer.what, &layer.keeps, layer.format)
            };
            if let Some(part) = parts.iter_mut().find(is_same) {
                part.n_layers += 1;
                part.entry_bytes = &part.entry_bytes + &layer.entry_bytes;
                continue;
            }
            let KeptLayer { what, keeps, format, entry_bytes, .. } = layer.clone();
            parts.push(KeptPart { what, keeps, format, n_layers: 1, entry_bytes });
        }
        parts
    }

    /// Bytes that one more token of a sequence adds before any window is full.
    #[must_use]
    pub fn per_token(&self) -> Dim {
        self.parts().iter().map(KeptPart::per_token).sum()
    }

    /// Bytes of one sequence.
    #[must_use]
    pub fn per_sequence(&self) -> Dim {
        self.parts().iter().map(|part| part.per_sequence(&self.context)).sum()
    }
}

impl KeptPart {
    /// Bytes that one more token adds, as long as no window is full.
    #[must_use]
    pub fn per_token(&self) -> Dim {
        match &self.keeps {
            Keeps::All | Keeps::Window(_) | Keeps::Chunk(_) => self.entry_bytes.clone(),
            Keeps::Every(tokens) => self.entry_bytes.floor_div(tokens),
            Keeps::Other(_) | Keeps::Once => Dim::ZERO,
        }
    }

    /// Bytes of one sequence of `context` tokens.
    #[must_use]
    pub fn per_sequence(&self, context: &Dim) -> Dim {
        &self.entry_bytes * &self.keeps.entries(context)
    }
}

/// What the graph keeps from token to token; `None` where nothing is generated token by token, or
/// nothing is known about it.
#[must_use]
pub fn kept(graph: &Graph) -> Option<Kept> {
    let symbol = |names: &[&str]| {
        let known = |name: &&&str| graph.symbols.iter().any(|symbol| symbol.name == **name);
        names.iter().find(known).map(|name| Dim::symbol(name))
    };
    if graph.states.is_empty() {
        return read_off(graph);
    }
    let operands = operands(graph);
    let layer = |state: &State| stated(graph, state, operands.get(&state.module));
    Some(Kept {
        sequences: symbol(&["batch"]).unwrap_or(Dim::ONE),
        context: symbol(&LENGTHS)?,
        layers: graph.states.iter().map(layer).collect(),
    })
}

/// The attention of each module.
fn operands(graph: &Graph) -> HashMap<Arc<str>, &Node> {
    let attentions = graph.nodes.iter().filter(|node| matches!(node.op, Op::Attention(_)));
    attentions.filter_map(|node| Some((node.module.clone()?, node))).collect()
}

/// A state that the graph says. What is kept once for a whole sequence is read and written at every
/// token and stays in its own format.
fn stated(graph: &Graph, state: &State, attention: Option<&&Node>) -> KeptLayer {
    let format = match (graph.cache_format, &state.keeps) {
        (None, _) | (Some(_), Keeps::Once) => StoredFormat::Plain(state.format),
        (Some(format), _) => format,
    };
    // Blocks lie along a head's elements; without heads along all elements.
    let heads = attention.and_then(|node| rows(graph, node)).filter(|rows| {
        let elements: Dim = rows.iter().map(|(rows, width)| rows * width).sum();
        elements == state.elements
    });
    let rows = heads.unwrap_or_else(|| vec![(Dim::ONE, state.elements.clone())]);
    KeptLayer {
        module: state.module.clone(),
        what: state.what,
        keeps: state.keeps.clone(),
        format,
        entry_bytes: rows.iter().map(|(rows, width)| format.bytes(rows, width)).sum(),
    }
}

/// Heads and elements of each, of the stored keys and of the values.
fn rows(graph: &Graph, node: &Node) -> Option<Vec<(Dim, Dim)>> {
    let row = |slot: usize| {
        let known = cached_operand(graph, node, slot)?;
        let [.., heads, _, width] = known.shape.0.as_slice() else { return None };
        Some((heads.clone(), width.clone()))
    };
    let (key, value) = (*node.inputs.get(1)?, *node.inputs.get(2)?);
    // MLA in its absorbed form: the values are a part of the keys.
    match is_part(graph, value, key) {
        true => Some(vec![row(1)?]),
        false => Some(vec![row(1)?, row(2)?]),
    }
}

/// Keys (slot 1) or values (slot 2) as a cache holds them, with their own heads.
fn cached_operand<'g>(graph: &'g Graph, node: &Node, slot: usize) -> Option<&'g TensorType> {
    let id = unrepeated(graph, *node.inputs.get(slot)?);
    graph.tensor(id).tensor_type.as_ref()
}

/// Keys and values of the attentions whose queries see no keys behind them.
fn read_off(graph: &Graph) -> Option<Kept> {
    let mut found: Option<Kept> = None;
    for node in &graph.nodes {
        let Op::Attention(op) = &node.op else { continue };
        let Some((length, keeps)) = generated(graph, node, op) else { continue };
        let Some(known) = cached_operand(graph, node, 1) else { continue };
        let Some(rows) = rows(graph, node) else { continue };
        let format = graph.cache_format.unwrap_or(StoredFormat::Plain(known.format));
        let sequences = match known.shape.0.as_slice() {
            [before @ .., _, _, _] => Dim::product(before),
            _ => Dim::ONE,
        };
        let kept =
            found.get_or_insert(Kept { sequences, context: length.clone(), layers: Vec::new() });
        if kept.context != length {
            continue;
        }
        kept.layers.push(KeptLayer {
            module: node.module.clone().unwrap_or_else(|| Arc::from(node.name.as_str())),
            what: "keys and values",
            keeps,
            format,
            entry_bytes: rows.iter().map(|(rows, width)| format.bytes(rows, width)).sum(),
        });
    }
    found
}

/// How many tokens a generating attention has by its last query, and of how many it keeps keys.
fn generated(graph: &Graph, node: &Node, op: &Attention) -> Option<(Dim, Keeps)> {
    if op.cached != Dim::ZERO {
        // What a tensor hides from the last token of a sequence is nothing, as far as one can know.
        return Some((&op.cached + &Dim::ONE, op.mask.keeps().unwrap_or(Keeps::All)));
    }
    let length = |id: TensorId| {
        let shape = &graph.tensor(id).tensor_type.as_ref()?.shape;
        shape.rank().checked_sub(2).map(|axis| shape.0[axis].clone())
    };
    let [query, key, ..] = node.inputs.as_slice() else { return None };
    let queries = length(*query).filter(|queries| length(*key).as_ref() == Some(queries))?;
    Some((queries, op.mask.keeps()?))
}
