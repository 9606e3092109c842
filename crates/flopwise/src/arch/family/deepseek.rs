//! DeepSeek and the decoders with its latent attention: DeepSeek-V2, V3, V3.2, Kimi K2 and K2.5, GLM-5,
//! GLM-4.7-Flash (transformers `models/{deepseek_v2, deepseek_v3, deepseek_v32, glm_moe_dsa,
//! glm4_moe_lite, kimi_k25}`).

use super::super::config::Config;
use super::super::decoder::Layer;
use super::super::layer::{
    Correction, Dense, Experts, FeedForward, Gate, Indexer, LatentAttention, Mixer, Scores,
    SharedExpert,
};
use super::super::mtp;
use super::super::network::Bias;
use super::llama;
use super::moe::{self, Sparsity};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Dim, Graph, Mask};
use crate::note::Note;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("deepseek_v2", deepseek_v2),
    ("deepseek_v3", deepseek_v3),
    ("deepseek_v32", deepseek_v32),
    ("glm4_moe_lite", glm4_moe_lite),
    ("glm_moe_dsa", glm_moe_dsa),
    ("kimi_k2", deepseek_v3),
    ("kimi_k25", kimi_k25),
];

/// Ranks and head sizes, read as `DeepseekV3Config` does.
pub(super) fn attention(config: &Config) -> Result<LatentAttention, Error> {
    let heads = config.size("num_attention_heads")?;
    // Some write 0 for none.
    let query_rank = match config.count("q_lora_rank")? {
        Some(0) => None,
        Some(rank) => Some(rank),
        None if config.is_null("q_lora_rank") => None,
        None => return Err(config.error("q_lora_rank", "is missing").remedy("null for none")),
    };
    let attention = LatentAttention::deepseek(
        heads,
        [query_rank, Some(config.size("kv_lora_rank")?)],
        [
            config.size("qk_nope_head_dim")?,
            config.size("qk_rope_head_dim")?,
            config.size("v_head_dim")?,
        ],
    )?;
    let kv_heads = config.size_or("num_key_value_heads", heads)?;
    if heads % kv_heads != 0 {
        let what = format!("is {kv_heads}, which does not divide num_attention_heads {heads}");
        return Err(config.error("num_key_value_heads", what));
    }
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    Ok(LatentAttention { bias, ..attention })
}

/// Experts as DeepSeek has them, and the shared ones in one.
pub(super) fn experts(config: &Config, scores: Scores) -> Result<Experts, Error> {
    let width = config.size("moe_intermediate_size")?;
    let function = moe::function(config)?;
    let experts = Experts::mixtral(
        config.size_of(&["n_routed_experts", "num_local_experts", "num_experts"])?,
        config.size("num_experts_per_tok")?,
        width,
    );
    let correction = match scores {
        Scores::Sigmoid => Some(Correction::DEEPSEEK),
        Scores::Softmax
        | Scores::RootSoftplus
        | Scores::SoftmaxOfChosen
        | Scores::SigmoidOfChosen => None,
    };
    let shared = match config.count_or("n_shared_experts", 1)? {
        0 => None,
        shared => Some(SharedExpert {
            name: "shared_experts",
            dense: Dense { function, ..Dense::llama(moe::times(config, width, shared)?) },
            gate: None,
        }),
    };
    let gate = Gate { name: "gate", bias: Bias::None, correction, scores };
    Ok(Experts { class: "MoE", function, gate, shared, ..experts })
}

fn layer(attention: LatentAttention, feed_forward: FeedForward) -> Layer {
    Layer { mixer: Some(("self_attn", Mixer::Latent(attention))), ..moe::layer(feed_forward) }
}

/// What the layers are made of.
struct Parts {
    class: &'static str,
    /// Of each layer.
    attentions: Vec<LatentAttention>,
    sparsity: Sparsity,
    experts: Experts,
}

fn build(parts: &Parts, config: &Config, request: &Request) -> Result<Graph, Error> {
    let function = moe::function(config)?;
    let dense = Dense { function, ..Dense::llama(config.size("intermediate_size")?) };
    let of_layer = |(layer_idx, attention): (usize, &LatentAttention)| {
        let feed_forward = match parts.sparsity.is_sparse(layer_idx) {
            true => FeedForward::Experts(parts.experts.clone()),
            false => FeedForward::Dense(dense.clone()),
        };
        layer(attention.clone(), feed_forward)
    };
    let layers: Vec<Layer> = parts.attentions.iter().enumerate().map(of_layer).collect();
    let mut last = layers.last().cloned().ok_or_else(|| Error::new("has no layers"))?;
    last.feed_forward = Some(("mlp", FeedForward::Experts(parts.experts.clone())));
    let decoder = llama::decoder(config, request, parts.class, layers)?;
    mtp::graph(&decoder, &last, config, request)
}

fn deepseek_v2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = config.layers(&["num_hidden_layers"])? as usize;
    let attention = LatentAttention { bias: Bias::None, ..attention(config)? };
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    let parts = Parts {
        class: "DeepseekV2ForCausalLM",
        attentions: vec![LatentAttention { bias, ..attention }; n_layers],
        sparsity: Sparsity::after(config, 0, n_layers)?,
        experts: experts(config, scores(config, Scores::Softmax)?)?,
    };
    build(&parts, config, request)
}

fn deepseek_v3(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = config.layers(&["num_hidden_layers"])? as usize;
    let parts = Parts {
        class: "DeepseekV3ForCausalLM",
        attentions: vec![attention(config)?; n_layers],
        sparsity: Sparsity::after(config, 3, n_layers)?,
        experts: experts(config, scores(config, Scores::Sigmoid)?)?,
    };
    build(&parts, config, request)
}

fn glm4_moe_lite(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = config.layers(&["num_hidden_layers"])? as usize;
    let parts = Parts {
        class: "Glm4MoeLiteForCausalLM",
        attentions: vec![attention(config)?; n_layers],
        sparsity: Sparsity::listed(config, 1, n_layers)?,
        experts: experts(config, scores(config, Scores::Sigmoid)?)?,
    };
    build(&parts, config, request)
}

fn deepseek_v32(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = config.layers(&["num_hidden_layers"])? as usize;
    let attention = indexed(config)?;
    let parts = Parts {
        class: "DeepseekV32ForCausalLM",
        attentions: vec![attention; n_layers],
        sparsity: Sparsity::listed(config, 3, n_layers)?,
        experts: experts(config, scores(config, Scores::Sigmoid)?)?,
    };
    build(&parts, config, request)
}

/// Layers either run an indexer or take over the choice of the layer before.
fn glm_moe_dsa(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = config.layers(&["num_hidden_layers"])?;
    let attention = indexed(config)?;
    let runs = runs_indexer(config, n_layers)?;
    let of_layer = |runs: &bool| {
        let indexer = attention.indexer.filter(|_| *runs);
        LatentAttention { indexer, ..attention.clone() }
    };
    let parts = Parts {
        class: "GlmMoeDsaForCausalLM",
        attentions: runs.iter().map(of_layer).collect(),
        sparsity: Sparsity::listed(config, 3, n_layers as usize)?,
        experts: experts(config, scores(config, Scores::Sigmoid)?)?,
    };
    build(&parts, config, request)
}

/// Latent attention over the keys that an indexer chooses.
fn indexed(config: &Config) -> Result<LatentAttention, Error> {
    let attention = attention(config)?;
    if attention.query_rank.is_none() {
        return Err(config.error("q_lora_rank", "is none, but the indexer needs that latent"));
    }
    let indexer = Indexer {
        heads: config.size("index_n_heads")?,
        head_dim: config.size("index_head_dim")?,
        best: config.size("index_topk")?,
    };
    if indexer.head_dim < attention.rotary {
        let what = format!("is {}, less than qk_rope_head_dim", indexer.head_dim);
        return Err(config.error("index_head_dim", what));
    }
    let mask = Mask::Best { keys: Dim::from(indexer.best), offset: Dim::ZERO };
    Ok(LatentAttention { mask, indexer: Some(indexer), ..attention })
}

/// Which layers run an indexer of their own (`GlmMoeDsaConfig.__post_init__`).
fn runs_indexer(config: &Config, n_layers: i64) -> Result<Vec<bool>, Error> {
    if let Some(kinds) = config.text_per_layer("indexer_types", n_layers)? {
        let mut runs = Vec::new();
        for kind in kinds {
            runs.push(match kind {
                "full" => true,
                "shared" => false,
                other => {
                    let what = format!("holds `{other}`; full and shared are known");
                    return Err(config.error("indexer_types", what));
                }
            });
        }
        return Ok(runs);
    }
    if config.has("index_topk_pattern") {
        let pattern = config.text("index_topk_pattern")?.unwrap_or_default();
        let runs: Vec<bool> = pattern.chars().map(|letter| letter == 'F').collect();
        let is_known = pattern.chars().all(|letter| matches!(letter, 'F' | 'S'));
        if !is_known || i64::try_from(runs.len()) != Ok(n_layers) {
            let what = format!("must have {n_layers} letters F or S");
            return Err(config.error("index_topk_pattern", what));
        }
        return Ok(runs);
    }
    let every = config.count("index_topk_freq")?.unwrap_or(1).max(1);
    let offset = config.count("index_skip_topk_offset")?.unwrap_or(2);
    Ok((0..n_layers).map(|layer_idx| (layer_idx - offset + 1).max(0) % every == 0).collect())
}

/// What `scoring_func` says, which transformers takes as given by the `model_type`.
fn scores(config: &Config, usual: Scores) -> Result<Scores, Error> {
    match config.text("scoring_func")? {
        Some("softmax") => Ok(Scores::Softmax),
        Some("sigmoid") => Ok(Scores::Sigmoid),
        Some(other) => {
            Err(config
                .error("scoring_func", format!("is `{other}`; softmax and sigmoid are known")))
        }
        None => Ok(usual),
    }
}

/// The language model of a model that also sees.
fn kimi_k25(config: &Config, request: &Request) -> Result<Graph, Error> {
    let text = moe::text_config(config)?;
    let mut graph = deepseek_v3(&text, request)?;
    graph.notes.push(Note::new("the language model alone is counted, not the vision tower"));
    Ok(graph)
}
