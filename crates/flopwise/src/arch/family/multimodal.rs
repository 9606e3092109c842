//! Models of text and images: their text part, which stands in `text_config`. What images go through
//! is left out, and said.

use super::super::config::Config;
use super::{Build, Request};
use crate::error::Error;
use crate::graph::Graph;
use crate::note::Note;

pub(super) const TYPES: &[(&str, Build)] =
    &[("gemma3", text_part), ("gemma4", text_part), ("mistral3", text_part)];

/// The decoder of `text_config`, under the names that the weights have in the whole model.
fn text_part(config: &Config, request: &Request) -> Result<Graph, Error> {
    let Some(mut text) = config.sub("text_config")? else {
        return Err(config
            .error("text_config", "is missing")
            .remedy("add it; it describes the decoder"));
    };
    for field in ["architectures", "torch_dtype", "dtype", "tie_word_embeddings"] {
        if let Some(value) = config.get(field).filter(|_| !text.has(field)) {
            text.set(field, value.clone());
        }
    }
    let model_type = match text.text("model_type")? {
        Some(model_type) => model_type.to_owned(),
        None => return Err(text.error("model_type", "is missing")),
    };
    if TYPES.iter().any(|(known, _)| *known == model_type) {
        return Err(
            text.error("model_type", format!("is `{model_type}`, which holds a text_config"))
        );
    }
    let build = super::build(&model_type).ok_or_else(|| {
        let shown: String = model_type.chars().take(64).collect();
        text.error("model_type", format!("is `{shown}`, which has no rule here"))
    })?;
    let mut graph = build(&text, request)?;
    graph.notes.push(Note::new("the text part alone: what images go through is not counted"));
    Ok(graph)
}
