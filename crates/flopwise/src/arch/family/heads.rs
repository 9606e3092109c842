//! What stands on top of a stack of layers: the first class in `architectures` says it.
//!
//! Not here: the layers (the families) and the heads of encoders (`encoder.rs`).

use super::super::config::Config;
use super::super::decoder::Decoder;
use super::super::network::{Bias, Network};
use super::Request;
use crate::error::Error;
use crate::graph::Graph;

/// What a class has on top of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Top {
    /// A score per known token.
    Logits,
    /// Nothing.
    Bare,
    /// A score per label.
    Labels(i64),
}

/// The class that is built: the first of `architectures`, or the given one where the config names none.
pub(super) fn class(config: &Config, otherwise: &str) -> Result<String, Error> {
    let named = config.texts("architectures")?.and_then(|all| all.first().copied());
    Ok(match named {
        Some(named) => named.to_owned(),
        None => {
            config.assume("architectures", format!("[{otherwise}]"));
            otherwise.to_owned()
        }
    })
}

/// An error about a class whose head is not known.
pub(super) fn unknown_class(config: &Config, class: &str, known: &str) -> Error {
    let shown: String = class.chars().take(64).collect();
    let what = format!("begins with `{shown}`, whose head has no rule here");
    config.error("architectures", what).remedy(format!("classes that end in {known} have one"))
}

/// How many labels a classifier tells apart, as `PreTrainedConfig` has it: two where nothing is said.
pub(super) fn labels(config: &Config) -> Result<i64, Error> {
    if let Some(labels) = config.optional("num_labels")? {
        return Ok(labels);
    }
    let named = config.get("id2label").and_then(|value| value.as_object());
    match named.and_then(|named| i64::try_from(named.len()).ok()).filter(|labels| *labels > 0) {
        Some(labels) => Ok(labels),
        None => config.size_or("num_labels", 2),
    }
}

pub(super) fn top(config: &Config, class: &str) -> Result<Top, Error> {
    let ends = |ends: &[&str]| ends.iter().any(|end| class.ends_with(end));
    if ends(&["ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "CausalLM"]) {
        return Ok(Top::Logits);
    }
    if ends(&["ForSequenceClassification"]) {
        return Ok(Top::Labels(labels(config)?));
    }
    match ends(&["Model"]) {
        true => Ok(Top::Bare),
        false => Err(unknown_class(
            config,
            class,
            "ForCausalLM, LMHeadModel, ForConditionalGeneration, ForSequenceClassification and Model",
        )),
    }
}

/// The graph of a decoder under the head that its class has.
pub(super) fn finish(
    mut decoder: Decoder,
    config: &Config,
    request: &Request,
) -> Result<Graph, Error> {
    decoder.class = class(config, &decoder.class)?;
    // The decoder of a model of text and images stands one module deeper.
    let is_part = decoder.class.ends_with("ForConditionalGeneration");
    if is_part && decoder.paths.stack == "model" {
        decoder.paths.stack = "model.language_model";
    }
    match top(config, &decoder.class)? {
        Top::Logits => decoder.graph(request.options.pass),
        Top::Bare => {
            // The stack is then the whole: `model.decoder` becomes `decoder`, `transformer` nothing.
            let (_, below) = decoder.paths.stack.split_once('.').unwrap_or_default();
            decoder.paths.stack = below;
            decoder.head = None;
            decoder.graph(request.options.pass)
        }
        Top::Labels(labels) => {
            decoder.head = None;
            let mut net = Network::new(&decoder.name, decoder.format, request.options.pass);
            let x = decoder.build(&mut net)?;
            let scores = net.linear("score", x, labels, Bias::None)?;
            Ok(net.finish(&[scores]))
        }
    }
}
