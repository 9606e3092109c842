//! Llama and the decoders that differ from it in little: Mistral, Mixtral.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Head, Layer, Multiplied, Paths};
use super::super::layer::{Dense, Experts, FeedForward, Mixer, Projections, SelfAttention};
use super::super::network::{Bias, Norm};
use super::heads::finish;
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Dim, Graph, Mask};

pub(super) const TYPES: &[(&str, Build)] =
    &[("llama", llama), ("mistral", mistral), ("mixtral", mixtral)];

/// Where Llama and most decoders since have their parts.
pub(super) const PATHS: Paths =
    Paths { stack: "model", embedding: "embed_tokens", layers: "layers" };

/// Head sizes and counts, read as `LlamaConfig` does.
pub(super) fn attention(config: &Config) -> Result<SelfAttention, Error> {
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let kv_heads = config.size_or("num_key_value_heads", heads)?;
    let head_dim = match config.optional("head_dim")? {
        Some(head_dim) => head_dim,
        None if hidden % heads == 0 => hidden / heads,
        None => {
            let what = format!("is {heads}, which does not divide hidden_size {hidden}");
            return Err(config.error("num_attention_heads", what).remedy("give head_dim"));
        }
    };
    Ok(SelfAttention::llama(heads, kv_heads, head_dim))
}

/// What all Llama-like decoders share; the layers are the family's own.
pub(super) fn decoder(
    config: &Config,
    request: &Request,
    class: &str,
    layers: Vec<Layer>,
) -> Result<Decoder, Error> {
    let is_tied = config.flag_or("tie_word_embeddings", false)?;
    Ok(Decoder {
        name: request.name.to_owned(),
        class: class.to_owned(),
        format: config.format()?,
        vocabulary: config.size("vocab_size")?,
        hidden: config.size("hidden_size")?,
        paths: PATHS,
        positions: None,
        embedding_norm: None,
        embedding_width: None,
        layers,
        final_norm: Some(("norm", Norm::Rms)),
        head: Some(Head { name: "lm_head", is_tied, bias: Bias::None, is_soft_capped: false }),
        max_length: None,
        multiplied: Multiplied::default(),
        depth: None,
    })
}

/// A pre-norm layer with RMS norms.
pub(super) fn layer(attention: SelfAttention, feed_forward: FeedForward) -> Layer {
    Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::PRE,
        norm: Norm::Rms,
        mixer: Some(("self_attn", Mixer::Attention(attention))),
        feed_forward: Some(("mlp", feed_forward)),
    }
}

fn llama(config: &Config, request: &Request) -> Result<Graph, Error> {
    let mut attention = attention(config)?;
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    attention.projections =
        Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]);
    attention.output = ("o_proj", bias);
    let dense = Dense {
        bias: Bias::from(config.flag("mlp_bias")?.unwrap_or(false)),
        ..Dense::llama(config.size("intermediate_size")?)
    };
    let layer = layer(attention, FeedForward::Dense(dense));
    let layers = vec![layer; config.layers(&["num_hidden_layers"])? as usize];
    finish(decoder(config, request, "LlamaForCausalLM", layers)?, config, request)
}

/// All layers have the same window, if any.
pub(super) fn window(config: &Config) -> Result<Mask, Error> {
    Ok(match config.optional("sliding_window")? {
        Some(keys) => Mask::window(&Dim::from(keys), Dim::ZERO),
        None => Mask::causal(),
    })
}

fn mistral(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = SelfAttention { mask: window(config)?, ..attention(config)? };
    let dense = Dense::llama(config.size("intermediate_size")?);
    let layer = layer(attention, FeedForward::Dense(dense));
    let layers = vec![layer; config.layers(&["num_hidden_layers"])? as usize];
    finish(decoder(config, request, "MistralForCausalLM", layers)?, config, request)
}

fn mixtral(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = SelfAttention { mask: window(config)?, ..attention(config)? };
    let experts = Experts::mixtral(
        config.size("num_local_experts")?,
        config.size("num_experts_per_tok")?,
        config.size("intermediate_size")?,
    );
    let layer = layer(attention, FeedForward::Experts(experts));
    let layers = vec![layer; config.layers(&["num_hidden_layers"])? as usize];
    finish(decoder(config, request, "MixtralForCausalLM", layers)?, config, request)
}
