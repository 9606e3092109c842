//! Kimi K3 (arXiv 2607.24653): Kimi Delta Attention and gated latent attention, experts over
//! latents, SiTU-GLU, attention residuals.
//!
//! transformers has no such model; fields, names and order are those of sglang's
//! `KimiK3LinearForCausalLM` and of the checkpoint, except that the experts of a layer lie in one
//! stack. Not here: what images go through.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer};
use super::super::layer::delta::{KimiDelta, KimiWeights};
use super::super::layer::{
    Bounds, CausalConvolution, Correction, Dense, Experts, FeedForward, Gate, Gating, Latent,
    LatentAttention, Mixer, Recurrent, Scores, SharedExpert,
};
use super::super::network::{Bias, Norm};
use super::{Build, Request, deepseek, delta, mamba, moe, parts};
use crate::error::Error;
use crate::graph::{Function, Graph};
use crate::note::Note;
use flopwise_formats::Format;

pub(super) const TYPES: &[(&str, Build)] = &[("kimi_k3", whole)];

/// Whether a config of the model_type `kimi_linear` is the text part of a Kimi K3: whether it has
/// something that Kimi Linear has not.
pub(super) fn is_meant(config: &Config) -> Result<bool, Error> {
    let has_size = ["attn_res_block_size", "routed_expert_hidden_size"];
    let linear = config.sub("linear_attn_config")?;
    let has_full_gate = match &linear {
        Some(linear) => linear.flag("use_full_rank_gate")? == Some(true),
        None => false,
    };
    Ok(has_size.iter().any(|field| config.has(field))
        || config.flag("mla_use_output_gate")? == Some(true)
        || config.text("hidden_act")? == Some("situ")
        || has_full_gate)
}

/// The language model of a model that also sees.
fn whole(config: &Config, request: &Request) -> Result<Graph, Error> {
    let config = moe::text_config(config)?;
    let mut graph = text(&config, request)?;
    graph.notes.push(Note::new("the language model alone is counted, not the vision tower"));
    Ok(graph)
}

/// The language model.
pub(super) fn text(config: &Config, request: &Request) -> Result<Graph, Error> {
    let Some(linear) = config.sub("linear_attn_config")? else {
        return Err(config
            .error("linear_attn_config", "is missing")
            .remedy("add it; it says which layers attend"));
    };
    let n_layers = config.layers(&["num_hidden_layers"])?;
    let Some(attends) = delta::full_layers(config, Some(&linear), n_layers)? else {
        let what = "is missing: it and kda_layers say which layers attend";
        return Err(linear.error("full_attn_layers", what));
    };
    let (delta, latent) = (delta_attention(&linear)?, latent_attention(config)?);
    let act = Act::read(config)?;
    let dense = FeedForward::Dense(act.dense(config.size("intermediate_size")?));
    let experts = FeedForward::Experts(experts(config, act)?);
    let Some(n_dense) = config.count("first_k_dense_replace")? else {
        return Err(config.error("first_k_dense_replace", "is missing"));
    };
    let every = config.size_or("moe_layer_freq", 1)?;
    let layers = (0..n_layers).zip(attends).map(|(layer_idx, is_attention)| Layer {
        class: "KimiK3DecoderLayer",
        arrangement: Arrangement::PRE,
        norm: Norm::Rms,
        mixer: Some(("self_attn", if is_attention { latent.clone() } else { delta.clone() })),
        feed_forward: Some(match n_dense <= layer_idx && layer_idx % every == 0 {
            true => ("block_sparse_moe", experts.clone()),
            false => ("mlp", dense.clone()),
        }),
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = mamba::decoder(config, request, "KimiK3ForCausalLM", false, layers)?;
    let decoder = Decoder { depth: config.optional("attn_res_block_size")?, ..decoder };
    decoder.graph(request.options.pass)
}

fn delta_attention(linear: &Config) -> Result<Mixer, Error> {
    Ok(Mixer::Recurrent(Recurrent::KimiDelta(KimiDelta {
        heads: linear.size("num_heads")?,
        head_dim: linear.size("head_dim")?,
        convolution: CausalConvolution {
            kernel: linear.size("short_conv_kernel_size")?,
            bias: Bias::None,
            function: Some(Function::Silu),
        },
        weights: KimiWeights::Apart,
        has_full_gate: linear.flag_or("use_full_rank_gate", false)?,
        is_bounded: linear.number("gate_lower_bound")?.is_some(),
        state_format: Format::FP32,
    })))
}

/// Without rotation, whose elements are there all the same.
fn latent_attention(config: &Config) -> Result<Mixer, Error> {
    if config.flag("mla_use_nope")? == Some(false) {
        return Err(config.error("mla_use_nope", "is false; only true is known here"));
    }
    let has_gate = config.flag_or("mla_use_output_gate", false)?;
    Ok(Mixer::Latent(LatentAttention {
        is_rotated: false,
        bias: Bias::None,
        gate: has_gate.then_some("g_proj"),
        ..deepseek::attention(config)?
    }))
}

/// What stands between the matrices.
#[derive(Clone, Copy)]
struct Act {
    function: Function,
    /// Of a SiTU: whether up is capped.
    situ: Option<bool>,
}

impl Act {
    fn read(config: &Config) -> Result<Act, Error> {
        if config.text("hidden_act")? == Some("situ") {
            let is_capped = config.number("activation_situ_linear_beta")?.is_some();
            return Ok(Act { function: Function::Silu, situ: Some(is_capped) });
        }
        Ok(Act { function: parts::function(config, "hidden_act", "silu")?, situ: None })
    }

    fn dense(self, width: i64) -> Dense {
        let names = ["gate_proj", "up_proj", "down_proj"];
        let gating = match self.situ {
            Some(is_capped) => Gating::Situ(names, is_capped),
            None => Gating::Gated(names),
        };
        Dense { function: self.function, gating, ..Dense::llama(width) }
    }
}

fn experts(config: &Config, act: Act) -> Result<Experts, Error> {
    let width = config.size("moe_intermediate_size")?;
    let experts = Experts::mixtral(
        config.size("num_experts")?,
        config.size_of(&["num_experts_per_token", "num_experts_per_tok"])?,
        width,
    );
    let latent = match config.optional("routed_expert_hidden_size")? {
        None => None,
        Some(width) => {
            let Some(is_normed) = config.flag("latent_moe_use_norm")? else {
                return Err(config.error("latent_moe_use_norm", "is missing"));
            };
            let names = ["routed_expert_down_proj", "routed_expert_up_proj"];
            Some(Latent { width, names, norm: is_normed.then_some("routed_expert_norm") })
        }
    };
    let shared = match config.count("num_shared_experts")?.unwrap_or(0) {
        0 => None,
        n_shared => Some(SharedExpert {
            name: "shared_experts",
            dense: act.dense(width.saturating_mul(n_shared)),
            gate: None,
        }),
    };
    let scores = match config.text("moe_router_activation_func")? {
        Some("sigmoid") | None => Scores::Sigmoid,
        Some("softmax") => Scores::Softmax,
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            let what = format!("is `{shown}`; sigmoid and softmax are known");
            return Err(config.error("moe_router_activation_func", what));
        }
    };
    Ok(Experts {
        function: act.function,
        bounds: act.situ.map_or(Bounds::None, Bounds::Situ),
        gate: Gate { correction: Some(Correction::DEEPSEEK), scores, ..experts.gate },
        shared,
        latent,
        ..experts
    })
}
