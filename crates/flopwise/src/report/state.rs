//! What a model keeps in memory, in all forms: active parameters, state of sequences, weights in
//! common formats.

use super::CountReport;
use super::text::{Page, indented, table};
use crate::units::{Bytes, grouped};
use serde::Serialize;

/// Parameters by their part in computing one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveReport {
    /// Whether some experts rest while others compute.
    #[serde(skip)]
    pub has_experts: bool,
    /// All that a token meets.
    pub parameters: u128,
    /// Those without tables that tokens are looked up in and nothing else.
    pub without_embedding: u128,
    /// Multiply-accumulates with weights per token: the N of 2 N.
    pub in_products: Option<u128>,
}

/// What a model keeps of its sequences. Numbers are `None` while a symbol has no value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateReport {
    /// How many sequences.
    pub sequences: Option<u128>,
    /// Tokens of each.
    pub context: Option<u128>,
    /// Bytes that one more token of a sequence adds before any window is full.
    pub bytes_per_token: Option<u128>,
    /// Bytes of one sequence.
    pub bytes_per_sequence: Option<u128>,
    /// Bytes of all sequences.
    pub bytes: Option<u128>,
    /// The same in symbols.
    pub formula: String,
    /// What it is the sum of.
    pub parts: Vec<StatePart>,
    /// The same in pages, where asked for; or why there is no such layout.
    #[serde(serialize_with = "page_or_reason")]
    pub paged: Option<Result<PagedReport, String>>,
}

/// Layers that keep the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatePart {
    /// `keys and values`, `latent`, `convolution` ...
    pub what: &'static str,
    /// Of how many tokens, in words.
    pub keeps: String,
    /// Whether it grows with the sequence, at first.
    #[serde(rename = "per_token")]
    pub is_per_token: bool,
    /// The format.
    pub format: String,
    /// How many layers.
    #[serde(rename = "layers")]
    pub n_layers: usize,
    /// Bytes of one entry of all of them: per token, per entry of several tokens, or in all.
    pub entry_bytes: Option<u128>,
    /// Which of these, for tables; `keeps` says the same.
    #[serde(skip)]
    pub unit: &'static str,
    /// Bytes of one sequence.
    pub bytes_per_sequence: Option<u128>,
}

/// The state in pages of equal size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PagedReport {
    /// Tokens in a page, as asked for.
    pub page_tokens: u64,
    /// Layers that share a table of blocks, where kinds of layers differ; 0 for all of them.
    pub group_size: usize,
    /// Bytes of one sequence.
    pub bytes_per_sequence: Option<u128>,
    /// Bytes of all sequences.
    pub bytes: Option<u128>,
    /// The kinds of layers.
    pub parts: Vec<PagedPart>,
}

/// Layers with the same pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PagedPart {
    /// Of how many tokens, in words.
    pub keeps: String,
    /// Layers.
    #[serde(rename = "layers")]
    pub n_layers: usize,
    /// Groups of them.
    #[serde(rename = "groups")]
    pub n_groups: usize,
    /// Tokens in a page.
    pub page_tokens: u128,
    /// Bytes of a page of one layer.
    pub page_bytes: u128,
    /// Pages of a sequence.
    pub pages: Option<u128>,
}

/// Weights in common formats, and the state beside them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryTable {
    /// One row a format.
    pub rows: Vec<WeightsIn>,
    /// Bytes of all sequences' state.
    pub state_bytes: Option<u128>,
}

/// The weights in one format.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightsIn {
    /// The format.
    pub format: String,
    /// Bits of one weight of a matrix, scales included.
    pub bits_per_weight: f64,
    /// Bytes of all parameters.
    pub weight_bytes: u128,
}

fn page_or_reason<S: serde::Serializer>(
    paged: &Option<Result<PagedReport, String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match paged {
        None => serializer.serialize_none(),
        Some(Ok(paged)) => paged.serialize(serializer),
        Some(Err(reason)) => {
            std::collections::BTreeMap::from([("reason", reason)]).serialize(serializer)
        }
    }
}

/// Active parameters and the state: label, value and remark of each fact.
pub(super) fn facts(report: &CountReport) -> Vec<[String; 3]> {
    let mut facts = Vec::new();
    if let Some(active) = report.active.filter(|active| active.has_experts) {
        let in_products = active.in_products.map(|n| format!(", {} in products", grouped(n)));
        facts.push([
            "active per token".to_owned(),
            grouped(active.parameters),
            format!(
                "{} without the embedding{}",
                grouped(active.without_embedding),
                in_products.unwrap_or_default()
            ),
        ]);
    }
    if let Some(state) = &report.state {
        facts.extend(state_facts(state));
    }
    facts
}

fn state_facts(state: &StateReport) -> Vec<[String; 3]> {
    let mut facts = Vec::new();
    let of = match (state.sequences, state.context) {
        (Some(1), Some(context)) => format!("for 1 sequence of {context}"),
        (Some(n), Some(context)) => format!("for {n} sequences of {context}"),
        _ => "while the length is open".to_owned(),
    };
    let sized = |bytes: Option<u128>, else_: &str| match bytes {
        Some(bytes) => Bytes(bytes).to_string(),
        None => else_.to_owned(),
    };
    let label = match (state.bytes_per_token, state.parts.iter().any(|part| part.is_per_token)) {
        (_, true) => "KV cache",
        (_, false) => "state",
    };
    let each = match state.bytes_per_token.filter(|bytes| *bytes != 0) {
        Some(bytes) => format!("{} B per token", grouped(bytes)),
        None => match state.bytes_per_sequence {
            Some(bytes) => format!("{} B", grouped(bytes)),
            None => String::new(),
        },
    };
    let whole = sized(state.bytes, &state.formula);
    facts.push([label.to_owned(), each, format!("{whole} {of}")]);
    let is_one = matches!(state.parts.as_slice(), [part] if part.keeps == "every token");
    for part in state.parts.iter().filter(|_| !is_one) {
        let entry = part.entry_bytes.map(|bytes| format!("{} {}", grouped(bytes), part.unit));
        let (n, format, keeps) = (part.n_layers, &part.format, &part.keeps);
        let layers = if n == 1 { "layer" } else { "layers" };
        let bytes = part.bytes_per_sequence.map(|bytes| format!(": {}", Bytes(bytes)));
        facts.push([
            format!("  {}", part.what),
            entry.unwrap_or_default(),
            format!("{n} {layers}, {format}, {keeps}{}", bytes.unwrap_or_default()),
        ]);
    }
    match &state.paged {
        None => {}
        Some(Err(reason)) => {
            facts.push(["  in pages".to_owned(), "no such layout".to_owned(), reason.clone()]);
        }
        Some(Ok(paged)) => {
            let each = paged.bytes_per_sequence;
            let each = each.map(|bytes| format!("{} B", grouped(bytes)));
            facts.push([
                format!("  in pages of {}", paged.page_tokens),
                each.unwrap_or_default(),
                format!("{} {of}, as vLLM lays it out", sized(paged.bytes, "open")),
            ]);
            facts.extend(paged.parts.iter().filter(|_| 1 < paged.parts.len()).map(page_fact));
        }
    }
    facts
}

fn page_fact(part: &PagedPart) -> [String; 3] {
    let pages = part.pages.map(|pages| format!("{} pages", grouped(pages)));
    let (tokens, bytes) = (part.page_tokens, grouped(part.page_bytes));
    let (layers, groups) = (part.n_layers, part.n_groups);
    let groups = if groups == 1 { "one group".to_owned() } else { format!("{groups} groups") };
    [
        format!("    {}", part.keeps),
        pages.unwrap_or_default(),
        format!("of {tokens} tokens, {bytes} B a layer; {layers} layers in {groups}"),
    ]
}

impl Page {
    pub(super) fn memory_table(&mut self, memory: &MemoryTable) {
        self.heading("Memory, by the format of the weights");
        let mut cells = table(&["weights in", "bits", "weights", "state", "together"]);
        let shown = |bytes: Option<u128>| match bytes {
            Some(bytes) => Bytes(bytes).to_string(),
            None => "-".to_owned(),
        };
        for row in &memory.rows {
            let together = memory
                .state_bytes
                .map_or(Some(row.weight_bytes), |state| row.weight_bytes.checked_add(state));
            cells.add_row(vec![
                row.format.clone(),
                bits(row.bits_per_weight),
                Bytes(row.weight_bytes).to_string(),
                shown(memory.state_bytes),
                shown(together),
            ]);
        }
        self.out.push_str(&indented(&cells));
    }
}

fn bits(bits: f64) -> String {
    let text = format!("{bits:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
