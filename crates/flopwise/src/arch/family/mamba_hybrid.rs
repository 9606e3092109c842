//! Decoders of state spaces and attention: Jamba, Bamba, Falcon-H1, Granite 4.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer};
use super::super::layer::mamba::{GatedNorm, Mamba, Mamba2};
use super::super::layer::{
    Dense, Experts, FeedForward, Gate, Gating, Mixer, Projections, Recurrent, Scores, SelfAttention,
};
use super::super::network::{Bias, Norm};
use super::mamba::{Fields, Fields2, decoder, dual, expanded, selective};
use super::{Build, Request, parts};
use crate::error::Error;
use crate::graph::Graph;

pub(super) const TYPES: &[(&str, Build)] =
    &[("bamba", bamba), ("falcon_h1", falcon_h1), ("granitemoehybrid", granite), ("jamba", jamba)];

/// Norms under the names that Jamba gave them.
const JAMBA: Arrangement = Arrangement::Residual {
    before_mixer: Some("input_layernorm"),
    after_mixer: None,
    before_feed_forward: Some("pre_ff_layernorm"),
    after_feed_forward: None,
};

/// Fields of the Mamba-2 of all but Jamba.
const DUAL: Fields2 = Fields2 {
    heads: (&["mamba_n_heads"], 128),
    groups: (&["mamba_n_groups"], 1),
    state: (&["mamba_d_state"], 256),
    chunk: (&["mamba_chunk_size"], 256),
    kernel: (&["mamba_d_conv"], 4),
    conv_bias: "mamba_conv_bias",
    bias: "mamba_proj_bias",
    function: "hidden_act",
};

fn n_layers(config: &Config) -> Result<i64, Error> {
    config.layers(&["num_hidden_layers"])
}

/// A Mamba-2 of so many channels: a head's size is their share unless the config says it.
fn mamba2(config: &Config, inner: i64) -> Result<Mamba2, Error> {
    dual(config, &DUAL, |heads| {
        let is_given =
            config.get("mamba_d_head").is_some_and(|value| value.as_str() != Some("auto"));
        let head_dim = match is_given {
            true => config.size("mamba_d_head")?,
            false => inner / heads,
        };
        match heads.checked_mul(head_dim) == Some(inner) {
            true => Ok(head_dim),
            false => {
                let what = format!("is {heads}; heads of {head_dim} do not make {inner} channels");
                Err(config.error("mamba_n_heads", what))
            }
        }
    })
}

/// Attention with as many elements rotated as a fraction of a head says.
fn attention(config: &Config, kv_heads: Option<i64>, rotated: f64) -> Result<SelfAttention, Error> {
    let attention = parts::attention(config, kv_heads, None)?;
    let rotated = parts::rotated(config, attention.head_dim, rotated)?;
    let bias = Bias::from(config.flag_or("attention_bias", false)?);
    Ok(SelfAttention {
        rotated,
        projections: Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]),
        output: ("o_proj", bias),
        ..attention
    })
}

fn gated(config: &Config) -> Result<FeedForward, Error> {
    Ok(FeedForward::Dense(Dense {
        bias: Bias::from(config.flag_or("mlp_bias", false)?),
        function: parts::function(config, "hidden_act", "silu")?,
        ..Dense::llama(config.size("intermediate_size")?)
    }))
}

fn finished(decoder: Decoder, request: &Request) -> Result<Graph, Error> {
    let decoder = Decoder { final_norm: Some(("final_layernorm", Norm::Rms)), ..decoder };
    decoder.graph(request.options.pass)
}

fn jamba(config: &Config, request: &Request) -> Result<Graph, Error> {
    let fields = Fields {
        state: ("mamba_d_state", 16),
        kernel: ("mamba_d_conv", 4),
        expand: "mamba_expand",
        step_rank: "mamba_dt_rank",
        bias: "mamba_proj_bias",
        conv_bias: "mamba_conv_bias",
    };
    let mamba = Mamba { inner_norm: Some(Norm::Rms), ..selective(config, &fields)? };
    let mamba = Mixer::Recurrent(Recurrent::Mamba(mamba));
    let attention = parts::attention(config, Some(8), None)?;
    let attention = Mixer::Attention(SelfAttention { rotated: 0, ..attention });
    let dense = Dense {
        function: parts::function(config, "hidden_act", "silu")?,
        ..Dense::llama(config.size("intermediate_size")?)
    };
    let n_experts = config.size_or("num_experts", 16)?;
    let experts =
        Experts::mixtral(n_experts, config.size_or("num_experts_per_tok", 2)?, dense.width);
    let gate = Gate { name: "router", ..experts.gate };
    let experts = Experts { gate, function: dense.function, ..experts };
    let has_attention = every(config, "attn_layer", [8, 4])?;
    let has_experts = every(config, "expert_layer", [2, 1])?;
    let layers = (0..n_layers(config)?).map(|layer_idx| Layer {
        class: "DecoderLayer",
        arrangement: JAMBA,
        norm: Norm::Rms,
        mixer: Some(match has_attention(layer_idx) {
            true => ("self_attn", attention.clone()),
            false => ("mamba", mamba.clone()),
        }),
        feed_forward: Some(match has_experts(layer_idx) && 1 < n_experts {
            true => ("feed_forward", FeedForward::Experts(experts.clone())),
            false => ("feed_forward", FeedForward::Dense(dense.clone())),
        }),
    });
    let layers: Vec<Layer> = layers.collect();
    finished(decoder(config, request, "JambaForCausalLM", false, layers)?, request)
}

/// Whether a layer is one of those with `index % period == offset`.
fn every(
    config: &Config,
    what: &str,
    [period, offset]: [i64; 2],
) -> Result<impl Fn(i64) -> bool + use<>, Error> {
    let (period_field, offset_field) = (format!("{what}_period"), format!("{what}_offset"));
    let period = config.size_or(&period_field, period)?;
    let offset = config.count_or(&offset_field, offset)?;
    if period <= offset {
        let what = format!("is {offset}, which must be below {period_field} {period}");
        return Err(config.error(&offset_field, what));
    }
    Ok(move |layer_idx: i64| layer_idx % period == offset)
}

fn bamba(config: &Config, request: &Request) -> Result<Graph, Error> {
    let inner = expanded(config, "mamba_expand", config.size("hidden_size")?)?;
    let mamba = Mixer::Recurrent(Recurrent::Mamba2(mamba2(config, inner)?));
    // `BambaConfig` sets the rotated fraction to a half, whatever the file says.
    let attention = attention(config, Some(8), 0.5)?;
    let rotated = attention.head_dim / 2;
    let attention = Mixer::Attention(SelfAttention { rotated, ..attention });
    let chosen = config.sizes("attn_layer_indices")?.unwrap_or_default();
    let n_layers = n_layers(config)?;
    if let Some(beyond) = chosen.iter().find(|index| n_layers <= **index) {
        let what = format!("has {beyond}, but there are {n_layers} layers");
        return Err(config.error("attn_layer_indices", what));
    }
    let feed_forward = gated(config)?;
    let layers = (0..n_layers).map(|layer_idx| Layer {
        class: "DecoderLayer",
        arrangement: JAMBA,
        norm: Norm::Rms,
        mixer: Some(match chosen.contains(&layer_idx) {
            true => ("self_attn", attention.clone()),
            false => ("mamba", mamba.clone()),
        }),
        feed_forward: Some(("feed_forward", feed_forward.clone())),
    });
    let layers: Vec<Layer> = layers.collect();
    finished(decoder(config, request, "BambaForCausalLM", false, layers)?, request)
}

/// A state space and an attention side by side in each layer. Its many constant factors are not
/// counted.
fn falcon_h1(config: &Config, request: &Request) -> Result<Graph, Error> {
    let inner = match config.is_null("mamba_d_ssm") {
        true => expanded(config, "mamba_expand", config.size("hidden_size")?)?,
        false => config.size_or("mamba_d_ssm", 1024)?,
    };
    let mamba = mamba2(config, inner)?;
    let gate = match (
        config.flag_or("mamba_rms_norm", false)?,
        config.flag("mamba_norm_before_gate")?.unwrap_or(true),
    ) {
        (false, _) => GatedNorm::None,
        (true, true) => GatedNorm::Before(mamba.groups),
        (true, false) => GatedNorm::After(mamba.groups),
    };
    let bias_out = Bias::from(config.flag_or("projectors_bias", false)?);
    let mamba = Mixer::Recurrent(Recurrent::Mamba2(Mamba2 { gate, bias_out, ..mamba }));
    let attention = Mixer::Attention(attention(config, Some(8), 1.0)?);
    let layer = Layer {
        class: "DecoderLayer",
        arrangement: JAMBA,
        norm: Norm::Rms,
        mixer: Some(("", Mixer::Sum(vec![("mamba", mamba), ("self_attn", attention)]))),
        feed_forward: Some(("feed_forward", gated(config)?)),
    };
    let layers = vec![layer; n_layers(config)? as usize];
    finished(decoder(config, request, "FalconH1ForCausalLM", false, layers)?, request)
}

/// State spaces or attention, and experts beside a dense network. Its constant factors are not
/// counted.
fn granite(config: &Config, request: &Request) -> Result<Graph, Error> {
    let inner = expanded(config, "mamba_expand", config.size("hidden_size")?)?;
    let mamba = Mixer::Recurrent(Recurrent::Mamba2(mamba2(config, inner)?));
    let attention = attention(config, None, 1.0)?;
    let rotated = match config.text("position_embedding_type")? {
        Some("rope") => attention.rotated,
        Some(_) | None => 0,
    };
    let attention = Mixer::Attention(SelfAttention { rotated, ..attention });
    let feed_forward = granite_feed_forward(config)?;
    let n_layers = n_layers(config)?;
    let is_attention = match config.text_per_layer("layer_types", n_layers)? {
        None => {
            config.assume("layer_types", "all mamba");
            vec![false; n_layers as usize]
        }
        Some(types) => {
            let known = types.into_iter().map(|known| match known {
                "attention" | "full_attention" => Ok(true),
                "mamba" | "linear_attention" => Ok(false),
                other => {
                    let shown: String = other.chars().take(40).collect();
                    Err(config.error("layer_types", format!("has `{shown}`, unknown here")))
                }
            });
            known.collect::<Result<Vec<bool>, Error>>()?
        }
    };
    let layers = is_attention.into_iter().map(|is_attention| Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::PRE,
        norm: Norm::Rms,
        mixer: Some(match is_attention {
            true => ("self_attn", attention.clone()),
            false => ("mamba", mamba.clone()),
        }),
        feed_forward: Some(("", feed_forward.clone())),
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = decoder(config, request, "GraniteMoeHybridForCausalLM", false, layers)?;
    decoder.graph(request.options.pass)
}

fn granite_feed_forward(config: &Config) -> Result<FeedForward, Error> {
    let function = parts::function(config, "hidden_act", "silu")?;
    let shared = Dense {
        function,
        gating: Gating::GatedJoined(["input_linear", "output_linear"]),
        ..Dense::llama(config.size("shared_intermediate_size")?)
    };
    let mut all = Vec::new();
    let n_experts = config.count_or("num_local_experts", 8)?;
    if 0 < n_experts {
        let top_k = config.size("num_experts_per_tok")?;
        let experts = Experts::mixtral(n_experts, top_k, config.size("intermediate_size")?);
        let gate = Gate { name: "router", scores: Scores::SoftmaxOfChosen, ..experts.gate };
        let experts = Experts { function, gate, ..experts };
        all.push(("block_sparse_moe", FeedForward::Experts(experts)));
    }
    all.push(("shared_mlp", FeedForward::Dense(shared)));
    Ok(FeedForward::Sum(all))
}
