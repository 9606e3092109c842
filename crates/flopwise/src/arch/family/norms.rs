//! Decoders that differ from Llama in their norms, where these stand, or in the feed-forward network:
//! Phi, OLMo 1 to 3, StarCoder2, StableLM, Cohere, Nemotron, GLM-4, EXAONE 4, PaLM, Gopher.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer, Multiplied};
use super::super::layer::attention::Span;
use super::super::layer::{Dense, FeedForward, Gating, HeadNorm, Mixer, SelfAttention};
use super::super::network::{Bias, Norm};
use super::heads::finish;
use super::llama_kin::{gated, head_norm, layers_of, tied_unless_said, with_bias};
use super::parts::{self, function, n_layers, rotated, windowed};
use super::{Build, Request, llama};
use crate::error::Error;
use crate::graph::Graph;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("phi", phi),
    ("olmo", olmo),
    ("olmo2", olmo2),
    ("olmo3", olmo3),
    ("starcoder2", starcoder2),
    ("stablelm", stablelm),
    ("cohere", cohere),
    ("cohere2", cohere2),
    ("nemotron", nemotron),
    ("glm", glm),
    ("glm4", glm4),
    ("exaone4", exaone4),
    ("palm", palm),
    ("gopher", gopher),
];

/// Norms after each part and none before (OLMo 2, arXiv 2501.00656).
const AFTER: Arrangement = Arrangement::Residual {
    before_mixer: None,
    after_mixer: Some("post_attention_layernorm"),
    before_feed_forward: None,
    after_feed_forward: Some("post_feedforward_layernorm"),
};
const PARALLEL: Arrangement = Arrangement::Parallel { first: "input_layernorm", second: None };

fn flag(config: &Config, field: &str) -> Result<bool, Error> {
    Ok(config.flag(field)?.unwrap_or(false))
}

fn bias(config: &Config, field: &str) -> Result<Bias, Error> {
    flag(config, field).map(Bias::from)
}

fn layer(arrangement: Arrangement, norm: Norm, attention: SelfAttention, dense: Dense) -> Layer {
    Layer { arrangement, norm, ..llama::layer(attention, FeedForward::Dense(dense)) }
}

/// Two matrices with the activation of the config.
fn two(config: &Config, names: [&'static str; 2], bias: Bias, act: &str) -> Result<Dense, Error> {
    let function = function(config, "hidden_act", act)?;
    let gating = Gating::Plain(names);
    Ok(Dense { function, gating, bias, ..Dense::llama(config.size("intermediate_size")?) })
}

fn decoder(
    config: &Config,
    request: &Request,
    class: &str,
    norm: Norm,
    layers: Vec<Layer>,
) -> Result<Decoder, Error> {
    let decoder = llama::decoder(config, request, class, layers)?;
    Ok(Decoder { final_norm: Some(("norm", norm)), ..decoder })
}

/// All layers the same.
fn uniform(
    config: &Config,
    request: &Request,
    class: &str,
    layer: Layer,
) -> Result<Decoder, Error> {
    let norm = layer.norm;
    let layers = vec![layer; n_layers(config)? as usize];
    decoder(config, request, class, norm, layers)
}

fn phi(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = with_bias(parts::attention(config, None, None)?, Bias::Added, Bias::Added);
    let rotated = rotated(config, attention.head_dim, 0.5)?;
    let names = ["q_layernorm", "k_layernorm"];
    let head_norm = head_norm(Norm::Layer, names);
    let head_norm = if flag(config, "qk_layernorm")? { head_norm } else { None };
    let attention =
        SelfAttention { rotated, head_norm, output: ("dense", Bias::Added), ..attention };
    let dense = two(config, ["fc1", "fc2"], Bias::Added, "gelu_new")?;
    let layer = layer(PARALLEL, Norm::Layer, attention, dense);
    let mut decoder = uniform(config, request, "PhiForCausalLM", layer)?;
    decoder.final_norm = Some(("final_layernorm", Norm::Layer));
    if let Some(head) = &mut decoder.head {
        head.bias = Bias::Added;
        if head.is_tied {
            return Err(config.error("tie_word_embeddings", "is true, but Phi's head has a bias"));
        }
    }
    finish(decoder, config, request)
}

/// OLMo (arXiv 2402.00838): norms without weights.
fn olmo(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = bias(config, "attention_bias")?;
    let attention = with_bias(parts::attention(config, None, None)?, bias, bias);
    let layer = layer(Arrangement::PRE, Norm::PlainLayer, attention, gated(config, Bias::None)?);
    finish(uniform(config, request, "OlmoForCausalLM", layer)?, config, request)
}

/// Queries and keys of all heads normalised together.
fn olmo2_attention(config: &Config) -> Result<SelfAttention, Error> {
    let bias = bias(config, "attention_bias")?;
    let head_norm = HeadNorm { norm: Norm::Rms, names: ["q_norm", "k_norm"], span: Span::Token };
    let attention = with_bias(parts::attention(config, None, None)?, bias, bias);
    Ok(SelfAttention { head_norm: Some(head_norm), ..attention })
}

fn olmo2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = olmo2_attention(config)?;
    let layer = layer(AFTER, Norm::Rms, attention, gated(config, Bias::None)?);
    finish(uniform(config, request, "Olmo2ForCausalLM", layer)?, config, request)
}

/// OLMo 2 with a window in three layers of four.
fn olmo3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = olmo2_attention(config)?;
    let dense = gated(config, Bias::None)?;
    let window = parts::nullable(config, "sliding_window", 4096)?;
    let windowed = windowed(config, n_layers(config)?, |layer| (layer + 1) % 4 != 0)?;
    let layers = layers_of(&windowed, window, &attention, |attention| {
        layer(AFTER, Norm::Rms, attention, dense.clone())
    });
    let decoder = decoder(config, request, "Olmo3ForCausalLM", Norm::Rms, layers)?;
    finish(decoder, config, request)
}

fn starcoder2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = Bias::from(config.flag_or("use_bias", true)?);
    let attention = with_bias(parts::attention(config, Some(2), None)?, bias, bias);
    let attention = SelfAttention { mask: llama::window(config)?, ..attention };
    let dense = two(config, ["c_fc", "c_proj"], bias, "gelu_pytorch_tanh")?;
    let layer = layer(Arrangement::PRE, Norm::Layer, attention, dense);
    let mut decoder = uniform(config, request, "Starcoder2ForCausalLM", layer)?;
    tied_unless_said(config, &mut decoder)?;
    finish(decoder, config, request)
}

fn stablelm(config: &Config, request: &Request) -> Result<Graph, Error> {
    let bias = bias(config, "use_qkv_bias")?;
    let attention = with_bias(parts::attention(config, Some(32), None)?, bias, Bias::None);
    let rotated = rotated(config, attention.head_dim, 0.25)?;
    let head_norm = flag(config, "qk_layernorm")?.then_some(HeadNorm {
        norm: Norm::LayerWithoutBias,
        names: ["q_layernorm", "k_layernorm"],
        span: Span::OwnNorms,
    });
    let attention = SelfAttention { rotated, head_norm, ..attention };
    let arrangement = match flag(config, "use_parallel_residual")? {
        true => PARALLEL,
        false => Arrangement::PRE,
    };
    let layer = layer(arrangement, Norm::Layer, attention, gated(config, Bias::None)?);
    finish(uniform(config, request, "StableLmForCausalLM", layer)?, config, request)
}

fn cohere_attention(config: &Config) -> Result<SelfAttention, Error> {
    let bias = bias(config, "attention_bias")?;
    Ok(with_bias(parts::attention(config, None, None)?, bias, bias))
}

fn cohere_head(config: &Config, mut decoder: Decoder) -> Result<Decoder, Error> {
    tied_unless_said(config, &mut decoder)?;
    decoder.multiplied = Multiplied { embedding: false, logits: true };
    Ok(decoder)
}

fn cohere(config: &Config, request: &Request) -> Result<Graph, Error> {
    let head_norm = flag(config, "use_qk_norm")?.then_some(HeadNorm {
        norm: Norm::LayerWithoutBias,
        names: ["q_norm", "k_norm"],
        span: Span::OwnScales,
    });
    let attention = SelfAttention { head_norm, ..cohere_attention(config)? };
    let dense = gated(config, Bias::None)?;
    let layer = layer(PARALLEL, Norm::LayerWithoutBias, attention, dense);
    let decoder = uniform(config, request, "CohereForCausalLM", layer)?;
    finish(cohere_head(config, decoder)?, config, request)
}

/// Three layers of four see a window, and only those rotate.
fn cohere2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = cohere_attention(config)?;
    let dense = gated(config, Bias::None)?;
    let n_layers = n_layers(config)?;
    let pattern = match config.has("layer_types") {
        true => 1,
        false => config.size_or("sliding_window_pattern", 4)?,
    };
    let window = parts::nullable(config, "sliding_window", 4096)?;
    let windowed = windowed(config, n_layers, |layer| (layer + 1) % pattern != 0)?;
    let mut layers = layers_of(&windowed, window, &attention, |attention| {
        layer(PARALLEL, Norm::LayerWithoutBias, attention, dense.clone())
    });
    rotate_only(&mut layers, &windowed, window.is_some());
    let decoder = decoder(config, request, "Cohere2ForCausalLM", Norm::LayerWithoutBias, layers)?;
    finish(cohere_head(config, decoder)?, config, request)
}

/// Layers without a window rotate nothing; where there is no window at all, none does.
fn rotate_only(layers: &mut [Layer], windowed: &[bool], has_window: bool) {
    for (layer, is_windowed) in layers.iter_mut().zip(windowed) {
        if let Some((_, Mixer::Attention(attention))) = &mut layer.mixer
            && !(has_window && *is_windowed)
        {
            attention.rotated = 0;
        }
    }
}

fn nemotron(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention_bias = bias(config, "attention_bias")?;
    let attention = parts::attention(config, None, None)?;
    let attention = with_bias(attention, attention_bias, attention_bias);
    let rotated = rotated(config, attention.head_dim, 0.5)?;
    let attention = SelfAttention { rotated, ..attention };
    let dense = two(config, ["up_proj", "down_proj"], bias(config, "mlp_bias")?, "relu2")?;
    let layer = layer(Arrangement::PRE, Norm::Layer, attention, dense);
    finish(uniform(config, request, "NemotronForCausalLM", layer)?, config, request)
}

fn glm_parts(config: &Config) -> Result<(SelfAttention, Dense), Error> {
    let bias = Bias::from(config.flag_or("attention_bias", true)?);
    let attention = with_bias(parts::attention(config, Some(2), Some(128))?, bias, Bias::None);
    let rotated = rotated(config, attention.head_dim, 0.5)?;
    let gating = Gating::GatedJoined(["gate_up_proj", "down_proj"]);
    let dense = Dense { gating, ..gated(config, Bias::None)? };
    Ok((SelfAttention { rotated, ..attention }, dense))
}

fn glm(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (attention, dense) = glm_parts(config)?;
    let layer = layer(Arrangement::PRE, Norm::Rms, attention, dense);
    finish(uniform(config, request, "GlmForCausalLM", layer)?, config, request)
}

fn glm4(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (attention, dense) = glm_parts(config)?;
    let arrangement = Arrangement::Residual {
        before_mixer: Some("input_layernorm"),
        after_mixer: Some("post_self_attn_layernorm"),
        before_feed_forward: Some("post_attention_layernorm"),
        after_feed_forward: Some("post_mlp_layernorm"),
    };
    let layer = layer(arrangement, Norm::Rms, attention, dense);
    finish(uniform(config, request, "Glm4ForCausalLM", layer)?, config, request)
}

/// EXAONE 4: windows in three layers of four, which alone rotate; without windows all do.
fn exaone4(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, Some(32), None)?;
    let attention =
        SelfAttention { head_norm: head_norm(Norm::Rms, ["q_norm", "k_norm"]), ..attention };
    let dense = gated(config, Bias::None)?;
    let n_layers = n_layers(config)?;
    let window = parts::nullable(config, "sliding_window", 4096)?;
    let pattern = exaone_pattern(config, n_layers, window)?;
    let windowed = windowed(config, n_layers, |layer| {
        usize::try_from(layer).ok().and_then(|layer| pattern.get(layer)).copied().unwrap_or(false)
    })?;
    let mut layers = layers_of(&windowed, window, &attention, |attention| {
        layer(AFTER, Norm::Rms, attention, dense.clone())
    });
    if window.is_some() {
        rotate_only(&mut layers, &windowed, true);
    }
    let decoder = decoder(config, request, "Exaone4ForCausalLM", Norm::Rms, layers)?;
    finish(decoder, config, request)
}

/// `sliding_window_pattern` is a number, or letters such as `LLLG`.
fn exaone_pattern(config: &Config, n_layers: i64, window: Option<i64>) -> Result<Vec<bool>, Error> {
    let none = || vec![false; usize::try_from(n_layers).unwrap_or(0)];
    if window.is_none() || config.has("layer_types") {
        return Ok(none());
    }
    let letters = config.get("sliding_window_pattern").and_then(|pattern| pattern.as_str());
    if let Some(letters) = letters {
        let is_local = |letter| match letter {
            'L' => Ok(true),
            'G' => Ok(false),
            _ => Err(config.error("sliding_window_pattern", "has letters other than L and G")),
        };
        let kinds: Vec<bool> = letters.chars().map(is_local).collect::<Result<_, _>>()?;
        // The last layer sees everything.
        let local = kinds.iter().cycle().take(usize::try_from(n_layers).unwrap_or(0)).copied();
        let mut local: Vec<bool> = local.collect();
        if let Some(last) = local.last_mut() {
            *last = false;
        }
        return Ok(if kinds.is_empty() { none() } else { local });
    }
    let period = config.size_or("sliding_window_pattern", 4)?;
    Ok((0..n_layers).map(|layer| (layer + 1) % period != 0).collect())
}

/// PaLM (arXiv 2204.02311, section 2): one key head, a gated network beside the attention, layer norms
/// without bias, tied embeddings, rotated positions. No reference implementation is public; the names of
/// fields and weights are Llama's.
fn palm(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, Some(1), None)?;
    let dense = gated(config, Bias::None)?;
    let layer = layer(PARALLEL, Norm::LayerWithoutBias, attention, dense);
    let mut decoder = uniform(config, request, "PaLMForCausalLM", layer)?;
    tied_unless_said(config, &mut decoder)?;
    finish(decoder, config, request)
}

/// Gopher and Chinchilla (arXiv 2112.11446 section 3.1, 2203.15556): two matrices, RMS norms, relative
/// positions as in Transformer-XL, tied embeddings. Biases are not described and are left out; the
/// parameters printed in 2203.15556 table A9 agree. Names of fields and weights are Llama's.
fn gopher(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, None, None)?;
    let attention = SelfAttention { rotated: 0, relative: Some("r_proj"), ..attention };
    let dense = two(config, ["up_proj", "down_proj"], Bias::None, "gelu")?;
    let layer = layer(Arrangement::PRE, Norm::Rms, attention, dense);
    let mut decoder = uniform(config, request, "GopherForCausalLM", layer)?;
    tied_unless_said(config, &mut decoder)?;
    finish(decoder, config, request)
}
