//! What the user says about a graph's attentions that the file does not: which keys are seen,
//! packed sequences, decoding against a KV cache. Changes the graph before it is counted.
//!
//! Not here: how many pairs a mask lets through (see [`Mask::twice_pairs`]).

use super::Kept;
use crate::error::Error;
use crate::graph::{
    Attention, Band, Compressed, Dim, Function, Graph, Keeps, Kind, Mask, Node, Op, Pass, Symbol,
    TensorId, fuse_attention,
};
use crate::note::Note;

/// The symbol that stands for the tokens that a decoded token sees, itself included.
pub const CONTEXT: &str = "context";
/// Steps from a key back to the projection it was repeated from.
const MAX_VIEWS: usize = 12;

/// Which keys are seen, where the file leaves it open or says causal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What the file says; where a tensor decides at run time, all.
    AsFile,
    /// All, whatever the file says.
    All,
    /// Those at or before the query.
    Causal,
    /// Of those the last so many, the query's own included.
    Window(u64),
    /// Of those the ones in the query's own chunk of so many positions.
    Chunk(u64),
    /// Those at or before the query, and the first so many.
    Prefix(u64),
}

impl Seen {
    fn mask(self, file: &Mask) -> Mask {
        let number = |keys: u64| Dim::from(u128::from(keys));
        match self {
            Seen::AsFile => file.clone(),
            Seen::All => Mask::Full,
            Seen::Causal => Mask::causal(),
            Seen::Window(keys) => Mask::window(&number(keys), Dim::ZERO),
            Seen::Chunk(length) => Mask::Chunk { length: number(length), offset: Dim::ZERO },
            Seen::Prefix(length) => Mask::Prefix { length: number(length), offset: Dim::ZERO },
        }
    }
}

/// What the user says about attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masking {
    /// Which keys are seen.
    pub seen: Seen,
    /// Lengths of several sequences put one behind the other; none for one sequence.
    pub packed: Vec<u64>,
    /// What a pass is.
    pub pass: Pass,
}

impl Masking {
    /// Attention as the file has it.
    #[must_use]
    pub fn as_file() -> Masking {
        Masking { seen: Seen::AsFile, packed: Vec::new(), pass: Pass::Whole }
    }
}

/// Applies it, and says which symbols have their values by it: the sequence is as long as the
/// packed ones together; a decoded token is a sequence of one.
///
/// Only self-attention is changed, where queries and keys have the same length; a cross-attention
/// sees all keys of the other sequence.
///
/// # Errors
/// Nothing that it applies to.
pub fn apply_masking(graph: &mut Graph, masking: &Masking) -> Result<Vec<(String, i128)>, Error> {
    let is_whole = masking.pass == Pass::Whole && masking.packed.is_empty();
    match (masking.seen, is_whole) {
        (Seen::AsFile, true) => return Ok(Vec::new()),
        (Seen::All, true) => {
            for (attention, _) in attentions(graph) {
                attention.mask = match &attention.mask {
                    Mask::Tensor => Mask::Tensor,
                    Mask::Compressed(compressed) => Mask::Compressed(compressed.all()),
                    Mask::Full
                    | Mask::Band(_)
                    | Mask::Chunk { .. }
                    | Mask::Prefix { .. }
                    | Mask::Best { .. }
                    | Mask::Packed { .. } => Mask::Full,
                };
            }
            return Ok(Vec::new());
        }
        _ => {}
    }
    let n_fused = fuse_attention(graph);
    if 0 < n_fused {
        graph.notes.push(Note::new(format!(
            "{n_fused} attentions that the file writes out as matrix products and a softmax are \
             counted as attentions, so that their masks can be"
        )));
    }
    set_seen(graph, masking.seen)?;
    let mut bound = Vec::new();
    if !masking.packed.is_empty() {
        bound.extend(pack(graph, &masking.packed)?);
    }
    if masking.pass == Pass::Decode {
        bound.push(decode(graph, masking.seen)?);
    }
    Ok(bound)
}

/// Every attention, with its node's operands.
fn attentions(graph: &mut Graph) -> impl Iterator<Item = (&mut Attention, &mut Vec<TensorId>)> {
    graph.nodes.iter_mut().filter_map(|Node { op, inputs, .. }| {
        if let Op::Attention(attention) | Op::IndexScores(attention) = op {
            Some((attention, inputs))
        } else {
            None
        }
    })
}

/// Lengths of queries and keys of each attention in which they are the same.
fn self_lengths(graph: &Graph) -> Vec<Option<Dim>> {
    let length = |id: &TensorId| {
        let shape = &graph.tensor(*id).tensor_type.as_ref()?.shape;
        shape.rank().checked_sub(2).map(|axis| shape.0[axis].clone())
    };
    let of = |node: &Node| {
        let [query, key, ..] = node.inputs.as_slice() else { return None };
        // Entries are of the queries' own sequence, though there are fewer of them.
        let is_own = is_of_entries(node);
        length(query).filter(|queries| is_own || length(key).as_ref() == Some(queries))
    };
    let is_attention = |node: &&Node| matches!(node.op, Op::Attention(_) | Op::IndexScores(_));
    graph.nodes.iter().filter(is_attention).map(of).collect()
}

fn is_of_entries(node: &Node) -> bool {
    matches!(&node.op, Op::IndexScores(Attention { mask: Mask::Compressed(_), .. }))
}

fn set_seen(graph: &mut Graph, seen: Seen) -> Result<(), Error> {
    if seen == Seen::AsFile {
        return Ok(());
    }
    let lengths = self_lengths(graph);
    let mut n_set = 0;
    for ((attention, _), length) in attentions(graph).zip(lengths) {
        let is_open = matches!(attention.mask, Mask::Tensor | Mask::Band(_));
        if is_open && length.is_some() {
            attention.mask = seen.mask(&attention.mask);
            n_set += 1;
        }
    }
    match n_set {
        0 => Err(Error::new(
            "has no self-attention that is causal or takes its mask as a tensor, so there is \
             nothing to set the mask of",
        )
        .remedy("leave --attention away")),
        _ => Ok(()),
    }
}

fn pack(graph: &mut Graph, packed: &[u64]) -> Result<Option<(String, i128)>, Error> {
    let total: i128 = packed.iter().map(|length| i128::from(*length)).sum();
    let lengths: Vec<Dim> = packed.iter().map(|length| Dim::from(u128::from(*length))).collect();
    let mut bound = None;
    let mut n_packed = 0;
    let mut n_open = 0;
    let of_nodes = self_lengths(graph);
    for ((attention, _), length) in attentions(graph).zip(of_nodes) {
        let Some(length) = length else { continue };
        match (length.as_constant(), length.symbols().as_slice()) {
            (Some(length), _) if length == total => {}
            (None, [symbol]) if length == Dim::symbol(symbol) => {
                bound = Some((symbol.to_string(), total));
            }
            _ => continue,
        }
        n_packed += 1;
        n_open += usize::from(attention.mask == Mask::Tensor);
        let is_open = attention.mask == Mask::Tensor;
        let within = if is_open { Mask::Full } else { attention.mask.clone() };
        attention.mask = Mask::Packed { lengths: lengths.clone(), within: Box::new(within) };
    }
    if n_packed == 0 {
        return Err(Error::new(format!(
            "has no self-attention over {total} tokens, the sum of the packed lengths"
        )));
    }
    if 0 < n_open {
        graph.notes.push(Note::new(format!(
            "{n_open} attentions take their mask as a tensor; within each packed sequence all keys \
             are counted (--attention causal, if that is what it holds)"
        )));
    }
    Ok(bound)
}

/// One query per sequence, which sees the whole context; keys and values of all but itself come
/// from the cache, with as many heads as are stored (GQA).
fn decode(graph: &mut Graph, seen: Seen) -> Result<(String, i128), Error> {
    let lengths = self_lengths(graph);
    let symbol = |length: &Dim| match length.symbols().as_slice() {
        [symbol] if *length == Dim::symbol(symbol) => Some(symbol.to_string()),
        _ => None,
    };
    let sequence = lengths.iter().flatten().find_map(symbol).or_else(|| recurring(graph));
    let sequence = sequence.ok_or_else(|| {
        Error::new("has no self-attention over a sequence of open length, so it cannot decode")
            .remedy(
                "export it with a dynamic sequence length; a model that takes its KV cache as \
                 input is decoded by binding its own sizes (--bind)",
            )
    })?;
    let cached = &Dim::symbol(CONTEXT) - &Dim::ONE;
    let is_decoded: Vec<bool> =
        lengths.iter().map(|length| *length == Some(Dim::symbol(&sequence))).collect();
    if seen != Seen::All {
        refuse_encoder(graph, &is_decoded)?;
    }
    let mut sources = Vec::new();
    for node in &graph.nodes {
        let n_kept = if let Op::Attention(_) = node.op {
            2
        } else if let Op::IndexScores(_) = node.op {
            1
        } else {
            continue;
        };
        let kept = node.inputs[1..=n_kept].iter();
        sources.push(kept.map(|id| unrepeated(graph, *id)).collect::<Vec<TensorId>>());
    }
    for (((attention, inputs), operands), is_decoded) in
        attentions(graph).zip(&sources).zip(&is_decoded)
    {
        if *is_decoded {
            attention.cached = cached.clone();
            attention.mask = at_the_end(&attention.mask, &cached);
            inputs[1..=operands.len()].copy_from_slice(operands);
        }
    }
    if graph.symbols.iter().all(|symbol| symbol.name != CONTEXT) {
        graph.symbols.push(Symbol {
            name: CONTEXT.to_owned(),
            aliases: Vec::new(),
            min: 1,
            max: None,
            place: "tokens that the decoded token sees, itself included".to_owned(),
            at_most: None,
        });
    }
    graph.notes.push(Note::new(decoded(super::kept(graph).as_ref())));
    graph.notes.extend(beside_tokens(graph, &sequence));
    Ok((sequence, 1))
}

/// A model all of whose attentions see every token computes each token anew when one is added:
/// nothing of it can be kept, so there is no decoding.
fn refuse_encoder(graph: &Graph, is_decoded: &[bool]) -> Result<(), Error> {
    let is_attention = |node: &&Node| matches!(node.op, Op::Attention(_) | Op::IndexScores(_));
    let is_full =
        |node: &Node| matches!(&node.op, Op::Attention(Attention { mask: Mask::Full, .. }));
    let mut decoded = graph.nodes.iter().filter(is_attention).zip(is_decoded);
    let sees_all = decoded.all(|(node, is_decoded)| !is_decoded || is_full(node));
    match is_decoded.contains(&true) && sees_all && graph.states.is_empty() {
        true => Err(Error::new(
            "is an encoder: each token sees all others, so a further one changes them all, and \
             nothing can be kept from token to token",
        )
        .remedy("count it without --mode decode")),
        false => Ok(()),
    }
}

/// What one decoded token reads of those before it.
fn decoded(kept: Option<&Kept>) -> String {
    let (mut growing, mut fixed) = (Dim::ZERO, Dim::ZERO);
    if let Some(kept) = kept {
        growing = &kept.per_token() * &kept.sequences;
        let parts = kept.parts();
        let once = parts.iter().filter(|part| part.keeps == Keeps::Once);
        fixed = &once.map(|part| part.per_sequence(&kept.context)).sum::<Dim>() * &kept.sequences;
    }
    let state = format!("a state of {fixed} bytes, which each pass reads and writes");
    let cache = format!(
        "a KV cache of {growing} bytes per token of context; each pass reads it and adds one token \
         to it"
    );
    match (growing == Dim::ZERO, fixed == Dim::ZERO) {
        (true, false) => {
            format!("one token is decoded with {state}; nothing grows with the context")
        }
        (false, false) => format!("one token is decoded against {cache}; beside it {state}"),
        (_, true) => format!("one token is decoded against {cache}"),
    }
}

/// Says what is computed from other inputs than the tokens, such as an image: it stands in the graph
/// and is counted, though an engine computes it once and not with each token.
fn beside_tokens(graph: &Graph, sequence: &str) -> Option<Note> {
    let has_sequence = |id: &TensorId| {
        let known = graph.tensor(*id).tensor_type.as_ref();
        known.is_none_or(|known| {
            known
                .shape
                .0
                .iter()
                .any(|length| length.symbols().iter().any(|name| &**name == sequence))
        })
    };
    let mut of_tokens = vec![false; graph.tensors.len()];
    let mut of_others = vec![false; graph.tensors.len()];
    for id in &graph.inputs {
        of_tokens[id.0] = has_sequence(id);
        of_others[id.0] = !of_tokens[id.0];
    }
    let (mut n_products, mut first) = (0usize, None);
    for node in &graph.nodes {
        let from = |reached: &[bool]| node.inputs.iter().any(|id| reached[id.0]);
        let (tokens, others) = (from(&of_tokens), from(&of_others));
        for id in &node.outputs {
            (of_tokens[id.0], of_others[id.0]) = (tokens, others);
        }
        let is_product =
            matches!(node.op.kind(), Kind::MatMul | Kind::Convolution | Kind::Attention);
        if !tokens && others && is_product {
            n_products += 1;
            first = first.or(Some(&node.name));
        }
    }
    first.map(|first| {
        Note::new(format!(
            "{n_products} products, the first `{first}`, depend on other inputs than the tokens; they \
             are counted here, though they need to run once, not with each token"
        ))
    })
}

/// The sequence of a model that keeps a state of fixed size and has no attention: that of its
/// tokens.
fn recurring(graph: &Graph) -> Option<String> {
    let keeps = graph.states.iter().any(|state| state.keeps == Keeps::Once);
    let tokens = graph.inputs.first().filter(|_| keeps)?;
    let shape = &graph.tensor(*tokens).tensor_type.as_ref()?.shape;
    let last = shape.0.last()?;
    match last.symbols().as_slice() {
        [symbol] if *last == Dim::symbol(symbol) => Some(symbol.to_string()),
        _ => None,
    }
}

/// The mask of the last of so many queries.
fn at_the_end(mask: &Mask, before: &Dim) -> Mask {
    let moved = |offset: &Dim| offset + before;
    match mask {
        // What a tensor hides from the last token of a sequence is nothing, as far as one can know.
        Mask::Full | Mask::Tensor | Mask::Packed { .. } => Mask::Full,
        Mask::Band(Band { left, right, offset }) => {
            Mask::Band(Band { left: left.clone(), right: right.clone(), offset: moved(offset) })
        }
        Mask::Chunk { length, offset } => {
            Mask::Chunk { length: length.clone(), offset: moved(offset) }
        }
        Mask::Prefix { length, offset } => {
            Mask::Prefix { length: length.clone(), offset: moved(offset) }
        }
        Mask::Best { keys, offset } => Mask::Best { keys: keys.clone(), offset: moved(offset) },
        Mask::Compressed(compressed) => {
            let own = compressed.own.as_ref().map(|own| Box::new(at_the_end(own, before)));
            let offset = moved(&compressed.offset);
            Mask::Compressed(Compressed { own, offset, ..compressed.clone() })
        }
    }
}

/// Keys as they were before each head was repeated for its group of queries: what a cache holds.
pub(super) fn unrepeated(graph: &Graph, id: TensorId) -> TensorId {
    let known = |id: TensorId| graph.tensor(id).tensor_type.as_ref();
    let Some(whole) = known(id) else { return id };
    let rank = whole.shape.rank();
    let (mut at, mut has_repeated) = (id, false);
    for _ in 0..MAX_VIEWS {
        let Some(node) = graph.tensor(at).producer else { return id };
        let node = &graph.nodes[node.0];
        let is_alone = |id: &&TensorId| {
            known(**id).is_some_and(|operand| operand.shape.elements() != Dim::ONE)
        };
        let mut operands = node.inputs.iter().filter(is_alone);
        let (Some(source), other) = (operands.next(), operands.next()) else { return id };
        match (&node.op, other) {
            (Op::Expand { .. } | Op::Tile { .. }, _) => has_repeated = true,
            (Op::Reshape { .. } | Op::Transpose { .. } | Op::Identity | Op::Cast(_), _) => {}
            // A scale.
            (Op::Elementwise(Function::Mul | Function::Div), None) => {}
            _ => return id,
        }
        at = *source;
        let Some(found) = known(at) else { return id };
        let is_same = |axis: usize| found.shape.0[axis] == whole.shape.0[axis];
        let fits = found.shape.rank() == rank && is_same(rank - 1) && is_same(rank - 2);
        if has_repeated && fits {
            return at;
        }
    }
    id
}
