//! Decoders of gated delta rules and attention: Qwen3-Next, Qwen3.5, OLMo Hybrid, Kimi Linear.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer, Paths};
use super::super::layer::delta::{DeltaProjections, GatedDelta, KimiDelta, KimiWeights};
use super::super::layer::{
    CausalConvolution, Correction, Dense, Experts, FeedForward, Gate, HeadNorm, LatentAttention,
    Mixer, Projections, Recurrent, Scores, SelfAttention, SharedExpert, attention::Span,
};
use super::super::network::{Bias, Norm};
use super::mamba::{decoder, named, state_format};
use super::{Build, Request, parts};
use crate::error::Error;
use crate::graph::Graph;
use flopwise_formats::Format;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("kimi_linear", kimi_linear),
    ("olmo_hybrid", olmo_hybrid),
    ("qwen3_5", qwen3_5),
    ("qwen3_5_moe", qwen3_5),
    ("qwen3_5_moe_text", qwen3_5_text),
    ("qwen3_5_text", qwen3_5_text),
    ("qwen3_next", qwen3_next),
];

fn n_layers(config: &Config) -> Result<i64, Error> {
    config.layers(&["num_hidden_layers"])
}

/// Which layers have attention, by `layer_types` or as the reference implementation says.
pub(super) fn attends(
    config: &Config,
    layers: i64,
    otherwise: impl Fn(i64) -> bool,
) -> Result<Vec<bool>, Error> {
    let Some(types) = config.text_per_layer("layer_types", layers)? else {
        return Ok((0..layers).map(otherwise).collect());
    };
    let known = types.into_iter().map(|known| match known {
        "full_attention" | "attention" => Ok(true),
        "linear_attention" | "conv" => Ok(false),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(config.error("layer_types", format!("has `{shown}`, unknown here")))
        }
    });
    known.collect()
}

/// Every so many layers one with attention, the last of them.
fn interval(config: &Config) -> Result<i64, Error> {
    config.size_or("full_attention_interval", 4)
}

fn gated_delta(
    config: &Config,
    projections: DeltaProjections,
    output: [&'static str; 2],
    [key_heads, value_heads, key_dim, value_dim]: [i64; 4],
) -> Result<Mixer, Error> {
    let convolution = CausalConvolution {
        kernel: config.size_or("linear_conv_kernel_dim", 4)?,
        bias: Bias::None,
        function: Some(parts::function(config, "hidden_act", "silu")?),
    };
    Ok(Mixer::Recurrent(Recurrent::GatedDelta(GatedDelta {
        key_heads: config.size_or("linear_num_key_heads", key_heads)?,
        value_heads: config.size_or("linear_num_value_heads", value_heads)?,
        key_dim: config.size_or("linear_key_head_dim", key_dim)?,
        value_dim: config.size_or("linear_value_head_dim", value_dim)?,
        convolution,
        projections,
        output,
        state_format: state_format(config)?,
    })))
}

/// Attention with a gate, normed heads, and a quarter of each head rotated.
fn gated_attention(config: &Config, kv_heads: i64) -> Result<Mixer, Error> {
    let attention = parts::attention(config, Some(kv_heads), Some(256))?;
    let rotated = parts::rotated(config, attention.head_dim, 0.25)?;
    let bias = Bias::from(config.flag_or("attention_bias", false)?);
    Ok(Mixer::Attention(SelfAttention {
        rotated,
        is_gated: true,
        projections: Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]),
        output: ("o_proj", bias),
        head_norm: Some(HeadNorm {
            norm: Norm::Rms,
            names: ["q_norm", "k_norm"],
            span: Span::Head,
        }),
        ..attention
    }))
}

/// Softmax router, and a shared expert with a gate.
fn experts(config: &Config) -> Result<FeedForward, Error> {
    let function = parts::function(config, "hidden_act", "silu")?;
    let shared =
        Dense { function, ..Dense::llama(config.size("shared_expert_intermediate_size")?) };
    let experts = Experts::mixtral(
        config.size("num_experts")?,
        config.size("num_experts_per_tok")?,
        config.size("moe_intermediate_size")?,
    );
    Ok(FeedForward::Experts(Experts {
        function,
        shared: Some(SharedExpert {
            name: "shared_expert",
            dense: shared,
            gate: Some("shared_expert_gate"),
        }),
        ..experts
    }))
}

fn dense(config: &Config) -> Result<FeedForward, Error> {
    Ok(FeedForward::Dense(Dense {
        function: parts::function(config, "hidden_act", "silu")?,
        ..Dense::llama(config.size("intermediate_size")?)
    }))
}

fn hybrid_layer(is_attention: bool, [delta, attention]: [&Mixer; 2], fed: &FeedForward) -> Layer {
    Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::PRE,
        norm: Norm::Rms,
        mixer: Some(match is_attention {
            true => ("self_attn", attention.clone()),
            false => ("linear_attn", delta.clone()),
        }),
        feed_forward: Some(("mlp", fed.clone())),
    }
}

fn qwen3_next(config: &Config, request: &Request) -> Result<Graph, Error> {
    let delta =
        gated_delta(config, DeltaProjections::Joined, ["norm", "out_proj"], [16, 32, 128, 128])?;
    let attention = gated_attention(config, 2)?;
    let (n_layers, interval) = (n_layers(config)?, interval(config)?);
    let attends = attends(config, n_layers, |layer_idx| (layer_idx + 1) % interval == 0)?;
    let step = config.size_or("decoder_sparse_step", 1)?;
    let plain = config.sizes("mlp_only_layers")?.unwrap_or_default();
    let has_experts = config.count_or("num_experts", 512)? != 0;
    let is_sparse =
        |layer_idx: i64| has_experts && (layer_idx + 1) % step == 0 && !plain.contains(&layer_idx);
    let all = || 0..n_layers;
    let experts = all().any(is_sparse).then(|| experts(config)).transpose()?;
    let dense = all().any(|layer_idx| !is_sparse(layer_idx)).then(|| dense(config)).transpose()?;
    let layers = all().zip(attends).filter_map(|(layer_idx, is_attention)| {
        let fed = if is_sparse(layer_idx) { &experts } else { &dense };
        Some(hybrid_layer(is_attention, [&delta, &attention], fed.as_ref()?))
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = decoder(config, request, "Qwen3NextForCausalLM", false, layers)?;
    decoder.graph(request.options.pass)
}

/// The whole model with its vision part, of which only the language model is built.
fn qwen3_5(config: &Config, request: &Request) -> Result<Graph, Error> {
    let Some(mut text) = config.sub("text_config")? else {
        return Err(config
            .error("text_config", "is missing")
            .remedy("add it; it describes the layers"));
    };
    for field in ["torch_dtype", "dtype"] {
        if let (Some(value), false) = (config.get(field), text.has("torch_dtype")) {
            text.set("torch_dtype", value.clone());
        }
    }
    // The head belongs to the whole model, so its own field says whether it is tied.
    if let Some(value) = config.get("tie_word_embeddings") {
        text.set("tie_word_embeddings", value.clone());
    }
    let stack = "model.language_model";
    let has_experts = config.text("model_type")? == Some("qwen3_5_moe");
    let paths = Paths { stack, ..super::llama::PATHS };
    let mut graph = qwen3_5_graph(&text, request, paths, has_experts)?;
    if config.has("vision_config") {
        graph.notes.push(crate::note::Note::new(
            "only the language model is built; what vision_config describes is left out",
        ));
    }
    Ok(graph)
}

fn qwen3_5_text(config: &Config, request: &Request) -> Result<Graph, Error> {
    let has_experts = config.text("model_type")? == Some("qwen3_5_moe_text");
    qwen3_5_graph(config, request, super::llama::PATHS, has_experts)
}

fn qwen3_5_graph(
    config: &Config,
    request: &Request,
    paths: Paths,
    has_experts: bool,
) -> Result<Graph, Error> {
    let delta =
        gated_delta(config, DeltaProjections::Parts, ["norm", "out_proj"], [16, 32, 128, 128])?;
    let attention = gated_attention(config, if has_experts { 2 } else { 4 })?;
    let (n_layers, interval) = (n_layers(config)?, interval(config)?);
    let attends = attends(config, n_layers, |layer_idx| (layer_idx + 1) % interval == 0)?;
    let (class, fed) = match has_experts {
        true => ("Qwen3_5MoeForCausalLM", experts(config)?),
        false => ("Qwen3_5ForCausalLM", dense(config)?),
    };
    let layer = |is_attention| hybrid_layer(is_attention, [&delta, &attention], &fed);
    let layers: Vec<Layer> = attends.into_iter().map(layer).collect();
    let decoder = Decoder { paths, ..decoder(config, request, class, false, layers)? };
    decoder.graph(request.options.pass)
}

fn olmo_hybrid(config: &Config, request: &Request) -> Result<Graph, Error> {
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let key_heads = config.size_or("linear_num_key_heads", heads)?;
    let key_dim = config.size_or("linear_key_head_dim", (3 * hidden / (4 * key_heads)).max(1))?;
    let sizes = [key_heads, heads, key_dim, 2 * key_dim];
    let delta = gated_delta(config, DeltaProjections::Apart, ["o_norm", "o_proj"], sizes)?;
    let attention = parts::attention(config, None, None)?;
    let bias = Bias::from(config.flag_or("attention_bias", false)?);
    // Without a rope there is no rotation (configuration_olmo_hybrid.py).
    let has_rope = config.has("rope_parameters") || config.has("rope_theta");
    let attention = Mixer::Attention(SelfAttention {
        rotated: if has_rope { attention.head_dim } else { 0 },
        projections: Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]),
        output: ("o_proj", bias),
        head_norm: Some(HeadNorm {
            norm: Norm::Rms,
            names: ["q_norm", "k_norm"],
            span: Span::Token,
        }),
        ..attention
    });
    let n_layers = n_layers(config)?;
    let last = n_layers - 1;
    let attends = attends(config, n_layers, |layer_idx| {
        layer_idx % 4 == 3 || (layer_idx == last && n_layers < 4)
    })?;
    let fed = dense(config)?;
    let layers = attends.into_iter().map(|is_attention| {
        let layer = hybrid_layer(is_attention, [&delta, &attention], &fed);
        match is_attention {
            true => Layer { arrangement: AFTER, ..layer },
            false => layer,
        }
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = decoder(config, request, "OlmoHybridForCausalLM", false, layers)?;
    decoder.graph(request.options.pass)
}

/// Norms after each part (OLMo 2).
const AFTER: Arrangement = Arrangement::Residual {
    before_mixer: None,
    after_mixer: Some("post_attention_layernorm"),
    before_feed_forward: None,
    after_feed_forward: Some("post_feedforward_layernorm"),
};

fn kimi_linear(config: &Config, request: &Request) -> Result<Graph, Error> {
    // The text part of Kimi K3 has the same model_type.
    if super::kimi_k3::is_meant(config)? {
        return super::kimi_k3::text(config, request);
    }
    let linear = config.sub("linear_attn_config")?;
    let size = |field: &str, own: &str, default: i64| match &linear {
        Some(linear) if linear.has(field) => linear.size(field),
        Some(_) | None => config.size_or(own, default),
    };
    let delta = Mixer::Recurrent(Recurrent::KimiDelta(KimiDelta {
        heads: size("num_heads", "linear_num_heads", 32)?,
        head_dim: size("head_dim", "linear_head_dim", 128)?,
        convolution: CausalConvolution {
            kernel: size("short_conv_kernel_size", "linear_conv_kernel_dim", 4)?,
            bias: Bias::None,
            function: Some(parts::function(config, "hidden_act", "silu")?),
        },
        weights: KimiWeights::Joined,
        has_full_gate: false,
        is_bounded: false,
        state_format: Format::FP32,
    }));
    let latent = LatentAttention::deepseek(
        config.size("num_attention_heads")?,
        [config.optional("q_lora_rank")?, Some(config.size_or("kv_lora_rank", 512)?)],
        [
            config.size_or("qk_nope_head_dim", 128)?,
            config.size_or("qk_rope_head_dim", 64)?,
            config.size_or("v_head_dim", 128)?,
        ],
    )?;
    let bias = Bias::from(config.flag_or("attention_bias", false)?);
    let latent = Mixer::Latent(LatentAttention { is_rotated: false, bias, ..latent });
    let n_layers = n_layers(config)?;
    let attends = match full_layers(config, linear.as_ref(), n_layers)? {
        Some(attends) => attends,
        None => attends(config, n_layers, |layer_idx| layer_idx != 0 && layer_idx % 4 == 0)?,
    };
    let is_sparse = sparse(config, n_layers)?;
    let (dense, experts) = (dense(config)?, kimi_experts(config)?);
    let layers = attends.into_iter().zip(is_sparse).map(|(is_attention, is_sparse)| {
        let fed = if is_sparse { &experts } else { &dense };
        let layer = hybrid_layer(is_attention, [&delta, &latent], fed);
        Layer { mixer: layer.mixer.map(|(_, mixer)| ("self_attn", mixer)), ..layer }
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = decoder(config, request, "KimiLinearForCausalLM", false, layers)?;
    decoder.graph(request.options.pass)
}

/// Which layers the checkpoint's own lists, counted from 1, give to attention; `layer_types` comes
/// first.
pub(super) fn full_layers(
    config: &Config,
    linear: Option<&Config>,
    n_layers: i64,
) -> Result<Option<Vec<bool>>, Error> {
    let Some(linear) = linear.filter(|_| !config.has("layer_types")) else { return Ok(None) };
    let (Some(full), Some(delta)) =
        (linear.sizes("full_attn_layers")?, linear.sizes("kda_layers")?)
    else {
        return Ok(None);
    };
    let mut attends = Vec::new();
    for number in 1..=n_layers {
        match (full.contains(&number), delta.contains(&number)) {
            (true, false) => attends.push(true),
            (false, true) => attends.push(false),
            _ => {
                let what = format!("and kda_layers do not say once what layer {number} is");
                return Err(linear.error("full_attn_layers", what));
            }
        }
    }
    Ok(Some(attends))
}

fn sparse(config: &Config, n_layers: i64) -> Result<Vec<bool>, Error> {
    if let Some(types) = config.text_per_layer("mlp_layer_types", n_layers)? {
        let known = types.into_iter().map(|known| match known {
            "sparse" => Ok(true),
            "dense" => Ok(false),
            other => {
                let shown: String = other.chars().take(40).collect();
                Err(config.error("mlp_layer_types", format!("has `{shown}`, unknown here")))
            }
        });
        return known.collect();
    }
    let dense = config.count_or("first_k_dense_replace", 1)?;
    Ok((0..n_layers).map(|layer_idx| dense <= layer_idx).collect())
}

fn kimi_experts(config: &Config) -> Result<FeedForward, Error> {
    let function = parts::function(config, "hidden_act", "silu")?;
    let width = config.size("moe_intermediate_size")?;
    let n_shared = named(config, &["num_shared_experts", "n_shared_experts"], 1)?;
    let experts = Experts::mixtral(
        named(config, &["num_experts", "num_local_experts"], 256)?,
        named(config, &["num_experts_per_token", "num_experts_per_tok"], 8)?,
        width,
    );
    let shared = Dense { function, ..Dense::llama(width.saturating_mul(n_shared)) };
    Ok(FeedForward::Experts(Experts {
        function,
        gate: Gate {
            correction: Some(Correction::DEEPSEEK),
            scores: Scores::Sigmoid,
            ..experts.gate
        },
        shared: Some(SharedExpert { name: "shared_experts", dense: shared, gate: None }),
        ..experts
    }))
}
