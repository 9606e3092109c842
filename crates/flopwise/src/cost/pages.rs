//! What a model keeps of a sequence in an engine that hands memory out in pages of equal size: vLLM's
//! rule (vllm/v1/core/kv_cache_utils.py, `get_kv_cache_groups` and
//! `_max_memory_usage_bytes_from_groups`; single_type_kv_cache_manager.py,
//! `get_num_skipped_tokens`).
//!
//! Layers that keep every token share one table of blocks, whatever their sizes. Where kinds of
//! layers differ, all have pages of the same bytes: the smaller kinds take more tokens into a page,
//! and a recurrent state fills one page, for which attention pages grow in steps of 16 tokens
//! (vllm/model_executor/models/config.py, `HybridAttentionMambaModelConfig`). Layers of a kind are
//! split into groups of equal size, the last filled up with unused ones.
//!
//! Not here: what is kept (`state.rs`).

use super::state::Kept;
use crate::graph::{Dim, Keeps};
use std::collections::BTreeMap;

/// Tokens in steps of which a page of attention grows to the size of a recurrent state.
const KERNEL_TOKENS: u128 = 16;

/// A sequence's state in pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged {
    /// Bytes of one sequence.
    pub per_sequence: Dim,
    /// Layers in a group; 0 where all layers share one table of blocks.
    pub group_size: usize,
    /// The kinds of layers.
    pub kinds: Vec<PagedKind>,
}

/// Layers that keep as many tokens in as many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedKind {
    /// Of how many tokens.
    pub keeps: Keeps,
    /// Layers of this kind.
    pub n_layers: usize,
    /// Groups that they are split into.
    pub n_groups: usize,
    /// Tokens in a page; 1 for a recurrent state.
    pub page_tokens: u128,
    /// Bytes of a page of one layer.
    pub page_bytes: u128,
    /// Pages of one sequence.
    pub pages: Dim,
}

/// The state in pages of `page_tokens`, or of as many more as the rule asks for.
///
/// # Errors
/// Why the engine has no such layout.
pub fn paged(kept: &Kept, page_tokens: u64) -> Result<Paged, String> {
    let mut kinds = kinds(kept)?;
    let page_tokens = u128::from(page_tokens);
    let is_once = |kind: &PagedKind| kind.keeps == Keeps::Once;
    let is_uniform = kinds.windows(2).all(|pair| pair[0].keeps == pair[1].keeps);
    if is_uniform {
        // Blocks of one table; a recurrent state alone is a block of its own size.
        for kind in &mut kinds {
            let tokens = if is_once(kind) { 1 } else { page_tokens };
            resize(kind, tokens, kind.page_bytes * tokens, &kept.context);
        }
        return Ok(summed(kinds, 0));
    }
    let largest_state = kinds.iter().filter(|kind| is_once(kind)).map(|kind| kind.page_bytes).max();
    let per_token = || kinds.iter().filter(|kind| !is_once(kind)).map(|kind| kind.page_bytes);
    let most = per_token().max().unwrap_or(1).max(1);
    let needed = largest_state.unwrap_or(0).div_ceil(most * KERNEL_TOKENS);
    let page_tokens = page_tokens.max(needed * KERNEL_TOKENS);
    let page_bytes = most * page_tokens;
    if let Some(odd) = per_token().find(|bytes| *bytes == 0 || most % bytes != 0) {
        return Err(format!(
            "some layers keep {most} bytes of a token and some {odd}, and pages of one size need \
             one to divide the other"
        ));
    }
    for kind in &mut kinds {
        let tokens = if is_once(kind) { 1 } else { page_bytes / kind.page_bytes };
        resize(kind, tokens, page_bytes, &kept.context);
    }
    let n_layers = || kinds.iter().map(|kind| kind.n_layers);
    let (fewest, most) = (n_layers().min().unwrap_or(1), n_layers().max().unwrap_or(1));
    let group_size = if 2 * most < 3 * fewest { most } else { fewest };
    Ok(summed(kinds, group_size))
}

/// Layers of equal entries together; what a layer keeps once for the sequence is one state. Until
/// pages are known `page_bytes` is what one entry takes.
fn kinds(kept: &Kept) -> Result<Vec<PagedKind>, String> {
    let mut entries: Vec<(Keeps, u128)> = Vec::new();
    let mut states: BTreeMap<&str, u128> = BTreeMap::new();
    for layer in &kept.layers {
        let bytes = layer.entry_bytes.as_constant().and_then(|bytes| u64::try_from(bytes).ok());
        let bytes =
            bytes.map(u128::from).ok_or_else(|| format!("{} keeps no fixed size", layer.module))?;
        match layer.keeps {
            Keeps::Once => *states.entry(&layer.module).or_default() += bytes,
            Keeps::All | Keeps::Window(_) | Keeps::Chunk(_) | Keeps::Every(_) | Keeps::Other(_) => {
                entries.push((layer.keeps.clone(), bytes));
            }
        }
    }
    entries.extend(states.into_values().map(|bytes| (Keeps::Once, bytes)));
    let mut kinds: Vec<PagedKind> = Vec::new();
    for (keeps, page_bytes) in entries {
        let is_same = |kind: &&mut PagedKind| kind.keeps == keeps && kind.page_bytes == page_bytes;
        if let Some(kind) = kinds.iter_mut().find(is_same) {
            kind.n_layers += 1;
            continue;
        }
        let (n_layers, pages) = (1, Dim::ZERO);
        kinds.push(PagedKind { keeps, n_layers, n_groups: 1, page_tokens: 1, page_bytes, pages });
    }
    Ok(kinds)
}

fn resize(kind: &mut PagedKind, page_tokens: u128, page_bytes: u128, context: &Dim) {
    (kind.page_tokens, kind.page_bytes) = (page_tokens, page_bytes);
    let tokens = &Dim::from(page_tokens);
    let up_to = |length: &Dim| length.ceil_div(tokens);
    // Blocks all of whose tokens no later query sees are handed back.
    let less = |skipped: Dim| &up_to(context) - &skipped.floor_div(tokens);
    kind.pages = match &kind.keeps {
        Keeps::All => up_to(context),
        Keeps::Window(keys) => less((context - keys).maximum(&Dim::ZERO)),
        Keeps::Chunk(length) => less(&(context - &Dim::ONE).floor_div(length) * length),
        Keeps::Every(_) | Keeps::Other(_) => up_to(&kind.keeps.entries(context)),
        Keeps::Once => Dim::ONE,
    };
}

/// `group_size` layers to a group; 0 for one table of blocks for all layers.
fn summed(mut kinds: Vec<PagedKind>, group_size: usize) -> Paged {
    let mut per_sequence = Dim::ZERO;
    for kind in &mut kinds {
        let n_stored = match group_size {
            0 => kind.n_layers,
            size => {
                kind.n_groups = kind.n_layers.div_ceil(size);
                kind.n_groups * size
            }
        };
        let page = &Dim::from(kind.page_bytes) * &Dim::from(n_stored as u128);
        per_sequence = &per_sequence + &(&page * &kind.pages);
    }
    Paged { per_sequence, group_size, kinds }
}
