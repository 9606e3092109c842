//! What a model keeps in memory: its weights, and what it keeps of each sequence.
//!
//! Not here: arithmetic (see [`crate::cost`]).

use super::Working;
use super::explain::{parenthesised, value};
use crate::cost::{self, Kept, Paged, Work};
use crate::graph::{Bindings, Dim, Graph, Keeps, StoredFormat};
use crate::note::Note;
use crate::report::{
    ActiveReport, ExplainedStep, MemoryTable, PagedPart, PagedReport, StatePart, StateReport,
    WeightsIn,
};

/// What the user says about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryQuery {
    /// The format of keys and values in the cache; `None` for the one that they are computed in.
    pub cache: Option<StoredFormat>,
    /// Tokens in a page of the cache; `None` for no pages.
    pub page: Option<u64>,
    /// Whether a table of the weights in common formats is wanted.
    pub table: Working,
}

impl MemoryQuery {
    /// As the model has it, without pages or a table.
    #[must_use]
    pub fn plain() -> MemoryQuery {
        MemoryQuery { cache: None, page: None, table: Working::Hidden }
    }
}

/// What is kept of sequences; `None` where nothing is generated token by token.
pub(super) fn state(
    graph: &Graph,
    query: &MemoryQuery,
    bindings: &Bindings,
) -> Option<StateReport> {
    let kept = cost::kept(graph)?;
    let number = |dim: &Dim| value(dim, bindings);
    let per_sequence = kept.per_sequence();
    let parts = kept.parts().into_iter().map(|part| StatePart {
        what: part.what,
        keeps: part.keeps.words(),
        is_per_token: part.per_token() != Dim::ZERO,
        format: part.format.to_string(),
        n_layers: part.n_layers,
        entry_bytes: number(&part.entry_bytes),
        unit: match &part.keeps {
            Keeps::Every(_) => "B per entry",
            Keeps::All | Keeps::Window(_) | Keeps::Chunk(_) => "B per token",
            Keeps::Other(_) | Keeps::Once => "B",
        },
        bytes_per_sequence: number(&part.per_sequence(&kept.context)),
    });
    let paged = query.page.map(|page| {
        cost::paged(&kept, page).map(|paged| paged_report(page, &paged, &kept, bindings))
    });
    Some(StateReport {
        sequences: number(&kept.sequences),
        context: number(&kept.context),
        bytes_per_token: number(&kept.per_token()),
        bytes_per_sequence: number(&per_sequence),
        bytes: number(&(&per_sequence * &kept.sequences)),
        formula: (&per_sequence * &kept.sequences).to_string(),
        parts: parts.collect(),
        paged,
    })
}

fn paged_report(page: u64, paged: &Paged, kept: &Kept, bindings: &Bindings) -> PagedReport {
    let number = |dim: &Dim| value(dim, bindings);
    let kinds = paged.kinds.iter().map(|kind| PagedPart {
        keeps: kind.keeps.words(),
        n_layers: kind.n_layers,
        n_groups: kind.n_groups,
        page_tokens: kind.page_tokens,
        page_bytes: kind.page_bytes,
        pages: number(&kind.pages),
    });
    PagedReport {
        page_tokens: page,
        group_size: paged.group_size,
        bytes_per_sequence: number(&paged.per_sequence),
        bytes: number(&(&paged.per_sequence * &kept.sequences)),
        parts: kinds.collect(),
    }
}

/// What stays in its own format whatever `--kv-format` says, as notes.
pub(super) fn notes(graph: &Graph) -> Vec<Note> {
    let (Some(format), Some(kept)) = (graph.cache_format, cost::kept(graph)) else {
        return Vec::new();
    };
    let parts = kept.parts();
    let named = |in_format: bool| {
        let is_such = move |part: &&cost::KeptPart| (part.keeps != Keeps::Once) == in_format;
        let mut words: Vec<&str> = parts.iter().filter(is_such).map(|part| part.what).collect();
        words.dedup();
        words.join(", ")
    };
    let (stored, own) = (named(true), named(false));
    let mut text = match stored.is_empty() {
        true => format!("nothing is kept per token, so nothing is kept as {format}"),
        false => format!(
            "kept as {format}, scales included, blocks along a head's elements: {stored}; the \
             scale of a whole tensor is not part of it"
        ),
    };
    if !own.is_empty() {
        text.push_str(&format!("; in their own format stay: {own}"));
    }
    vec![Note::new(text)]
}

/// Parameters that work on each token, where tokens are looked up.
pub(super) fn active(graph: &Graph, work: &Work, bindings: &Bindings) -> Option<ActiveReport> {
    let active = cost::active(graph, work)?;
    Some(ActiveReport {
        has_experts: active.has_experts,
        parameters: value(&active.parameters, bindings)?,
        without_embedding: value(&active.without_embedding, bindings)?,
        in_products: active.in_products.and_then(|macs| value(&macs, bindings)),
    })
}

/// The weights in common formats, and the state beside them.
pub(super) fn table(
    graph: &Graph,
    query: &MemoryQuery,
    state: Option<&StateReport>,
    bindings: &Bindings,
) -> Option<MemoryTable> {
    if query.table == Working::Hidden {
        return None;
    }
    let rows = cost::weight_table(graph).into_iter().filter_map(|row| {
        let weight_bytes = value(&row.bytes, bindings)?;
        let (format, bits_per_weight) = (row.format, row.bits_per_weight);
        Some(WeightsIn { format, bits_per_weight, weight_bytes })
    });
    Some(MemoryTable { rows: rows.collect(), state_bytes: state.and_then(|state| state.bytes) })
}

/// How the state comes about.
pub(super) fn steps(graph: &Graph, bindings: &Bindings) -> Vec<ExplainedStep> {
    let Some(kept) = cost::kept(graph) else { return Vec::new() };
    let parts = kept.parts();
    let per_token = kept.per_token();
    let sum =
        |terms: Vec<String>| if terms.is_empty() { "0".to_owned() } else { terms.join(" + ") };
    let layers = |part: &cost::KeptPart| {
        format!("{} layers of {} as {}", part.n_layers, part.what, part.format)
    };
    let growing = || parts.iter().filter(|part| part.per_token() != Dim::ZERO);
    let total = &kept.per_sequence() * &kept.sequences;
    let of_parts = parts.iter().map(|part| {
        let entries = part.keeps.entries(&kept.context);
        format!("{} x {}", parenthesised(&part.entry_bytes), parenthesised(&entries))
    });
    vec![
        ExplainedStep {
            quantity: "state per token",
            words: sum(growing().map(&layers).collect()),
            factors: sum(growing().map(|part| parenthesised(&part.per_token())).collect()),
            formula: per_token.to_string(),
            value: value(&per_token, bindings),
            source: "bytes that one more token of a sequence adds, before any window is full"
                .to_owned(),
        },
        ExplainedStep {
            quantity: "state",
            words: format!(
                "sequences x ({})",
                sum(parts
                    .iter()
                    .map(|part| format!("{}: bytes x entries, {}", part.what, part.keeps.words()))
                    .collect())
            ),
            factors: format!("{} x ({})", parenthesised(&kept.sequences), sum(of_parts.collect())),
            formula: total.to_string(),
            value: value(&total, bindings),
            source: "what the attention of the last token reads, its own entry included".to_owned(),
        },
    ]
}
