//! Decoders that are Llama but for a few fields: Qwen 2 and 3, Phi-3, Granite, SmolLM3, Seed-OSS,
//! InternLM 3, Ministral.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Layer, Multiplied};
use super::super::layer::{
    Dense, FeedForward, Gating, HeadNorm, Mixer, Projections, SelfAttention, attention::Span,
};
use super::super::network::{Bias, Norm};
use super::heads::finish;
use super::parts::{self, function, mask, n_layers, rotated, windowed};
use super::{Build, Request, llama};
use crate::error::Error;
use crate::graph::Graph;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("qwen2", qwen2),
    ("qwen3", qwen3),
    ("phi3", phi3),
    ("granite", granite),
    ("smollm3", smollm3),
    ("seed_oss", seed_oss),
    ("internlm3", internlm3),
    ("ministral", ministral),
    ("ministral3", ministral3),
];

/// Projections of queries, keys and values with one bias, and of the result with another.
pub(super) fn with_bias(attention: SelfAttention, bias: Bias, output: Bias) -> SelfAttention {
    SelfAttention {
        projections: Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]),
        output: ("o_proj", output),
        ..attention
    }
}

/// Llama's gated network with its activation and bias.
pub(super) fn gated(config: &Config, bias: Bias) -> Result<Dense, Error> {
    let width = config.size("intermediate_size")?;
    Ok(Dense { function: function(config, "hidden_act", "silu")?, bias, ..Dense::llama(width) })
}

/// Norms of each query and key head.
pub(super) fn head_norm(norm: Norm, names: [&'static str; 2]) -> Option<HeadNorm> {
    Some(HeadNorm { norm, names, span: Span::Head })
}

/// A layer per entry, with a window or without.
pub(super) fn layers_of(
    windowed: &[bool],
    window: Option<i64>,
    attention: &SelfAttention,
    layer: impl Fn(SelfAttention) -> Layer,
) -> Vec<Layer> {
    let layers = windowed.iter().map(|is_windowed| {
        let mask = mask(window.filter(|_| *is_windowed));
        layer(SelfAttention { mask, ..attention.clone() })
    });
    layers.collect()
}

/// The windows of Qwen: only where they are switched on, and from a layer on.
fn qwen_windows(config: &Config) -> Result<(Vec<bool>, Option<i64>), Error> {
    let layers = n_layers(config)?;
    let window = match config.flag_or("use_sliding_window", false)? {
        true => parts::nullable(config, "sliding_window", 4096)?,
        false => None,
    };
    let first = match window {
        Some(_) => config.count_or("max_window_layers", 28)?,
        None => layers,
    };
    Ok((windowed(config, layers, |layer| layer >= first)?, window))
}

fn qwen(
    config: &Config,
    request: &Request,
    attention: &SelfAttention,
    class: &str,
) -> Result<Graph, Error> {
    let dense = gated(config, Bias::None)?;
    let (windowed, window) = qwen_windows(config)?;
    let layers = layers_of(&windowed, window, attention, |attention| {
        llama::layer(attention, FeedForward::Dense(dense.clone()))
    });
    finish(llama::decoder(config, request, class, layers)?, config, request)
}

fn qwen2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = with_bias(parts::attention(config, Some(32), None)?, Bias::Added, Bias::None);
    qwen(config, request, &attention, "Qwen2ForCausalLM")
}

fn qwen3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    let attention = with_bias(parts::attention(config, Some(32), Some(128))?, bias, bias);
    let attention =
        SelfAttention { head_norm: head_norm(Norm::Rms, ["q_norm", "k_norm"]), ..attention };
    qwen(config, request, &attention, "Qwen3ForCausalLM")
}

fn phi3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, None, None)?;
    let rotated = rotated(config, attention.head_dim, 1.0)?;
    let attention = SelfAttention {
        projections: Projections::Joined("qkv_proj", Bias::None),
        rotated,
        mask: llama::window(config)?,
        ..attention
    };
    let gating = Gating::GatedJoined(["gate_up_proj", "down_proj"]);
    let dense = Dense { gating, ..gated(config, Bias::None)? };
    let layer = llama::layer(attention, FeedForward::Dense(dense));
    let layers = vec![layer; n_layers(config)? as usize];
    finish(llama::decoder(config, request, "Phi3ForCausalLM", layers)?, config, request)
}

fn granite(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    let attention = with_bias(parts::attention(config, None, None)?, bias, bias);
    let dense = gated(config, Bias::from(config.flag("mlp_bias")?.unwrap_or(false)))?;
    let layer = Layer {
        arrangement: Arrangement::Multiplied {
            before_mixer: "input_layernorm",
            before_feed_forward: "post_attention_layernorm",
        },
        ..llama::layer(attention, FeedForward::Dense(dense))
    };
    let layers = vec![layer; n_layers(config)? as usize];
    let mut decoder = llama::decoder(config, request, "GraniteForCausalLM", layers)?;
    decoder.multiplied = Multiplied { embedding: true, logits: true };
    finish(decoder, config, request)
}

/// Every fourth layer, or those that `no_rope_layers` marks with 0, rotates nothing.
fn smollm3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    let attention = with_bias(parts::attention(config, Some(4), None)?, bias, bias);
    let dense = gated(config, Bias::from(config.flag("mlp_bias")?.unwrap_or(false)))?;
    let n_layers = n_layers(config)?;
    let rotates = rotating(config, n_layers)?;
    let window = match config.flag_or("use_sliding_window", false)? {
        true => config.optional("sliding_window")?,
        false => None,
    };
    let windowed = windowed(config, n_layers, |layer| {
        let rotates = usize::try_from(layer).ok().and_then(|layer| rotates.get(layer));
        window.is_some() && rotates == Some(&false)
    })?;
    let mut layers = layers_of(&windowed, window, &attention, |attention| {
        llama::layer(attention, FeedForward::Dense(dense.clone()))
    });
    for (layer, rotates) in layers.iter_mut().zip(rotates) {
        if let Some((_, Mixer::Attention(attention))) = &mut layer.mixer
            && !rotates
        {
            attention.rotated = 0;
        }
    }
    let mut decoder = llama::decoder(config, request, "SmolLM3ForCausalLM", layers)?;
    tied_unless_said(config, &mut decoder)?;
    finish(decoder, config, request)
}

fn rotating(config: &Config, n_layers: i64) -> Result<Vec<bool>, Error> {
    let marks = config.sizes("no_rope_layers")?;
    let interval = match &marks {
        Some(_) => 1,
        None => config.size_or("no_rope_layer_interval", 4)?,
    };
    let rotates: Vec<bool> = match marks {
        Some(marks) => marks.iter().map(|mark| *mark != 0).collect(),
        None => (0..n_layers).map(|layer| (layer + 1) % interval != 0).collect(),
    };
    match i64::try_from(rotates.len()) == Ok(n_layers) {
        true => Ok(rotates),
        false => {
            let what = format!("has {} entries for {n_layers} layers", rotates.len());
            Err(config.error("no_rope_layers", what))
        }
    }
}

/// Sets the head of families whose `tie_word_embeddings` is true where it is missing.
pub(super) fn tied_unless_said(
    config: &Config,
    decoder: &mut super::super::decoder::Decoder,
) -> Result<(), Error> {
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
    if let Some(head) = &mut decoder.head {
        head.is_tied = is_tied;
    }
    Ok(())
}

fn seed_oss(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = Bias::from(config.flag_or("attention_bias", true)?);
    let output = Bias::from(config.flag("attention_out_bias")?.unwrap_or(false));
    let attention = with_bias(parts::attention(config, Some(8), Some(128))?, bias, output);
    plain(config, request, attention, "SeedOssForCausalLM")
}

fn internlm3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let either = |fields: [&str; 2]| -> Result<Bias, Error> {
        let [first, second] = [config.flag(fields[0])?, config.flag(fields[1])?];
        Ok(Bias::from(first.or(second).unwrap_or(false)))
    };
    let bias = either(["qkv_bias", "attention_bias"])?;
    let attention = with_bias(parts::attention(config, Some(2), Some(128))?, bias, bias);
    let dense = gated(config, either(["bias", "mlp_bias"])?)?;
    let layer = llama::layer(attention, FeedForward::Dense(dense));
    let layers = vec![layer; n_layers(config)? as usize];
    finish(llama::decoder(config, request, "InternLM3ForCausalLM", layers)?, config, request)
}

fn ministral(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, Some(8), None)?;
    let dense = gated(config, Bias::None)?;
    let window = parts::nullable(config, "sliding_window", 4096)?;
    let windowed = windowed(config, n_layers(config)?, |_| true)?;
    let layers = layers_of(&windowed, window, &attention, |attention| {
        llama::layer(attention, FeedForward::Dense(dense.clone()))
    });
    finish(llama::decoder(config, request, "MinistralForCausalLM", layers)?, config, request)
}

fn ministral3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, Some(8), Some(128))?;
    let attention = SelfAttention { mask: llama::window(config)?, ..attention };
    plain(config, request, attention, "Ministral3ForCausalLM")
}

/// All layers the same, a gated network, RMS norms.
fn plain(
    config: &Config,
    request: &Request,
    attention: SelfAttention,
    class: &str,
) -> Result<Graph, Error> {
    let dense = gated(config, Bias::from(config.flag("mlp_bias")?.unwrap_or(false)))?;
    let layer = llama::layer(attention, FeedForward::Dense(dense));
    let layers = vec![layer; n_layers(config)? as usize];
    finish(llama::decoder(config, request, class, layers)?, config, request)
}
