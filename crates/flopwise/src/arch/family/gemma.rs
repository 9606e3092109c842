//! Gemma 1, 2 and 3 (arXiv 2403.08295, 2408.00118, 2503.19786): wide heads, a GELU gate, embeddings
//! multiplied by the root of their width; since Gemma 2 norms on both sides and windows in most layers.
//!
//! Not here: Gemma 4 (`gemma4.rs`).

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer, Multiplied};
use super::super::layer::{Dense, FeedForward, SelfAttention};
use super::super::network::{Bias, Norm};
use super::heads::finish;
use super::llama_kin::{head_norm, layers_of, tied_unless_said, with_bias};
use super::parts::{self, function, n_layers, soft_capped, windowed};
use super::{Build, Request, llama};
use crate::error::Error;
use crate::graph::Graph;

pub(super) const TYPES: &[(&str, Build)] =
    &[("gemma", gemma), ("gemma2", gemma2), ("gemma3_text", gemma3)];

/// Norms before and after each part.
pub(super) const SANDWICH: Arrangement = Arrangement::Residual {
    before_mixer: Some("input_layernorm"),
    after_mixer: Some("post_attention_layernorm"),
    before_feed_forward: Some("pre_feedforward_layernorm"),
    after_feed_forward: Some("post_feedforward_layernorm"),
};

fn attention(config: &Config, kv_heads: i64) -> Result<SelfAttention, Error> {
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    Ok(with_bias(parts::attention(config, Some(kv_heads), Some(256))?, bias, bias))
}

/// Gemma's gated network. `hidden_act` of the first Gemma's checkpoints says `gelu`; `hidden_activation`
/// is what counts.
pub(super) fn dense(config: &Config) -> Result<Dense, Error> {
    let function = function(config, "hidden_activation", "gelu_pytorch_tanh")?;
    Ok(Dense { function, ..Dense::llama(config.size("intermediate_size")?) })
}

fn decoder(
    config: &Config,
    request: &Request,
    class: &str,
    layers: Vec<Layer>,
) -> Result<Decoder, Error> {
    let mut decoder = llama::decoder(config, request, class, layers)?;
    tied_unless_said(config, &mut decoder)?;
    decoder.multiplied = Multiplied { embedding: true, logits: false };
    Ok(decoder)
}

fn gemma(config: &Config, request: &Request) -> Result<Graph, Error> {
    let field = if config.has("hidden_activation") { "hidden_activation" } else { "hidden_act" };
    let function = function(config, field, "gelu_pytorch_tanh")?;
    let dense = Dense { function, ..Dense::llama(config.size("intermediate_size")?) };
    let layer = llama::layer(attention(config, 16)?, FeedForward::Dense(dense));
    let layers = vec![layer; n_layers(config)? as usize];
    finish(decoder(config, request, "GemmaForCausalLM", layers)?, config, request)
}

fn sandwich(attention: SelfAttention, dense: Dense) -> Layer {
    Layer { arrangement: SANDWICH, ..llama::layer(attention, FeedForward::Dense(dense)) }
}

/// Every second layer sees a window.
fn gemma2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let is_soft_capped = soft_capped(config, "attn_logit_softcapping", Some(50.0))?;
    let attention = SelfAttention { is_soft_capped, ..attention(config, 4)? };
    let dense = dense(config)?;
    let window = parts::nullable(config, "sliding_window", 4096)?;
    let windowed = windowed(config, n_layers(config)?, |layer| layer % 2 == 0)?;
    let layers =
        layers_of(&windowed, window, &attention, |attention| sandwich(attention, dense.clone()));
    let mut decoder = decoder(config, request, "Gemma2ForCausalLM", layers)?;
    if let Some(head) = &mut decoder.head {
        head.is_soft_capped = soft_capped(config, "final_logit_softcapping", Some(30.0))?;
    }
    finish(decoder, config, request)
}

/// Five layers of six see a window. Checkpoints of Gemma 3 leave out what the class has as default.
fn gemma3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let mut config = config.clone();
    config.default("num_attention_heads", 8)?;
    config.default("vocab_size", 262_208)?;
    let config = &config;
    let attention = SelfAttention {
        is_soft_capped: soft_capped(config, "attn_logit_softcapping", None)?,
        head_norm: head_norm(Norm::Rms, ["q_norm", "k_norm"]),
        ..attention(config, 4)?
    };
    let dense = dense(config)?;
    let n_layers = n_layers(config)?;
    let pattern = match config.has("layer_types") {
        true => 1,
        false => config.size_or("sliding_window_pattern", 6)?,
    };
    let window = parts::nullable(config, "sliding_window", 4096)?;
    let windowed = windowed(config, n_layers, |layer| (layer + 1) % pattern != 0)?;
    let layers =
        layers_of(&windowed, window, &attention, |attention| sandwich(attention, dense.clone()));
    let mut decoder = decoder(config, request, "Gemma3ForCausalLM", layers)?;
    if let Some(head) = &mut decoder.head {
        head.is_soft_capped = soft_capped(config, "final_logit_softcapping", None)?;
    }
    finish(decoder, config, request)
}
