//! Decoders of experts with ordinary attention: Qwen2-MoE, Qwen3-MoE, GLM-4.5, gpt-oss, Llama 4,
//! MiniMax-M2, OLMoE, Phi-3.5-MoE, Granite, ERNIE 4.5, Hunyuan, dots.llm1, AFMoE, Solar
//! (transformers `models/<model_type>`).
//!
//! Not here: Mixtral (`llama.rs`), and latent attention (`deepseek.rs`).

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer, Paths};
use super::super::layer::{
    Bounds, Correction, Dense, Experts, FeedForward, Gate, HeadNorm, Mixer, Projections, Scaled,
    Scores, SelfAttention, SharedExpert, attention::Span,
};
use super::super::mtp;
use super::super::network::{Bias, Norm};
use super::llama;
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Dim, Function, Graph, Mask, Orientation};
use crate::note::Note;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("afmoe", afmoe),
    ("dots1", dots1),
    ("ernie4_5_moe", ernie4_5_moe),
    ("glm4_moe", glm4_moe),
    ("gpt_oss", gpt_oss),
    ("granitemoe", granitemoe),
    ("hunyuan_v1_moe", hunyuan_v1_moe),
    ("llama4", llama4),
    ("llama4_text", llama4_text),
    ("minimax_m2", minimax_m2),
    ("olmoe", olmoe),
    ("phimoe", phimoe),
    ("qwen2_moe", qwen2_moe),
    ("qwen3_moe", qwen3_moe),
    ("solar_open", solar_open),
];

/// Which layers have experts.
#[derive(Clone, Debug)]
pub(super) struct Sparsity(Vec<bool>);

impl Sparsity {
    pub(super) fn is_sparse(&self, layer_idx: usize) -> bool {
        self.0.get(layer_idx).copied().unwrap_or(true)
    }

    /// All after the first `first_k_dense_replace`.
    pub(super) fn after(config: &Config, default: i64, n_layers: usize) -> Result<Sparsity, Error> {
        if let Some(every) = config.count("moe_layer_freq")?
            && every != 1
        {
            return Err(config.error("moe_layer_freq", format!("is {every}; only 1 has a rule")));
        }
        let dense = config.count_or("first_k_dense_replace", default)?;
        Ok(Sparsity((0..n_layers as i64).map(|layer_idx| dense <= layer_idx).collect()))
    }

    /// As `mlp_layer_types` lists them, or as [`Sparsity::after`].
    pub(super) fn listed(
        config: &Config,
        default: i64,
        n_layers: usize,
    ) -> Result<Sparsity, Error> {
        let Some(kinds) = config.text_per_layer("mlp_layer_types", n_layers as i64)? else {
            return Sparsity::after(config, default, n_layers);
        };
        let mut sparse = Vec::new();
        for kind in kinds {
            sparse.push(match kind {
                "sparse" => true,
                "dense" => false,
                other => {
                    let what = format!("holds `{other}`; sparse and dense are known");
                    return Err(config.error("mlp_layer_types", what));
                }
            });
        }
        Ok(Sparsity(sparse))
    }

    /// Every `decoder_sparse_step`-th, but for those in `mlp_only_layers` (Qwen).
    fn stepped(config: &Config, n_layers: usize) -> Result<Sparsity, Error> {
        let step = config.size_or("decoder_sparse_step", 1)?;
        let dense = config.sizes("mlp_only_layers")?.unwrap_or_default();
        let is_sparse = |layer_idx: i64| (layer_idx + 1) % step == 0 && !dense.contains(&layer_idx);
        Ok(Sparsity((0..n_layers as i64).map(is_sparse).collect()))
    }
}

/// A pre-norm layer with RMS norms, without a mixer yet.
pub(super) fn layer(feed_forward: FeedForward) -> Layer {
    Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::PRE,
        norm: Norm::Rms,
        mixer: None,
        feed_forward: Some(("mlp", feed_forward)),
    }
}

/// The function that `hidden_act` names (transformers `activations.py`).
pub(super) fn function(config: &Config) -> Result<Function, Error> {
    match config.text("hidden_act")? {
        Some("silu" | "swish") => Ok(Function::Silu),
        Some("gelu") => Ok(Function::GeluErf),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Function::GeluTanh),
        Some("relu") => Ok(Function::Relu),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(config.error("hidden_act", format!("is `{shown}`, which has no rule here")))
        }
        None => {
            config.assume("hidden_act", "silu");
            Ok(Function::Silu)
        }
    }
}

/// A width so many times, or an error where that is too much.
pub(super) fn times(config: &Config, width: i64, count: i64) -> Result<i64, Error> {
    let product = width.checked_mul(count).filter(|product| *product <= i64::from(i32::MAX));
    product
        .ok_or_else(|| config.error("n_shared_experts", format!("is {count}, which is too many")))
}

/// The fields of the language model, with the format of the whole where it has none.
pub(super) fn text_config(config: &Config) -> Result<Config, Error> {
    let Some(mut text) = config.sub("text_config")? else {
        return Err(config
            .error("text_config", "is missing")
            .remedy("it holds the language model"));
    };
    for field in ["torch_dtype", "dtype"] {
        let has_own = text.has("torch_dtype") || text.has("dtype");
        if let (false, Some(format)) = (has_own, config.get(field)) {
            text.set(field, format.clone());
        }
    }
    Ok(text)
}

fn biases(bias: Bias) -> Projections {
    Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)])
}

fn head_norm(names: [&'static str; 2], span: Span) -> Option<HeadNorm> {
    Some(HeadNorm { norm: Norm::Rms, names, span })
}

/// Attention with biases where `attention_bias` says so; `default` is what it is without the field.
fn attention(config: &Config, default: bool) -> Result<SelfAttention, Error> {
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(default));
    Ok(SelfAttention {
        projections: biases(bias),
        output: ("o_proj", bias),
        ..llama::attention(config)?
    })
}

/// Elements rotated of each head, by `partial_rotary_factor` or `rotary_dim`.
fn rotated(config: &Config, head_dim: i64, default: f64) -> Result<i64, Error> {
    if let Some(rotated) = config.count("rotary_dim")? {
        return in_head(config, "rotary_dim", rotated, head_dim);
    }
    let given = config.number("partial_rotary_factor")?;
    let within = match config.sub("rope_parameters")? {
        Some(rope) => rope.number("partial_rotary_factor")?,
        None => None,
    };
    let factor = given.or(within).unwrap_or(default);
    let rotated = (head_dim as f64 * factor) as i64;
    in_head(config, "partial_rotary_factor", rotated, head_dim)
}

fn in_head(config: &Config, field: &str, rotated: i64, head_dim: i64) -> Result<i64, Error> {
    match 0 <= rotated && rotated <= head_dim {
        true => Ok(rotated),
        false => Err(config.error(field, format!("rotates {rotated} elements of {head_dim}"))),
    }
}

/// Masks by `layer_types`, or by the rule of the reference implementation.
fn masks(
    config: &Config,
    n_layers: i64,
    (narrow_kind, narrow): (&str, Option<&Mask>),
    is_narrow: impl Fn(i64) -> bool,
) -> Result<Vec<Mask>, Error> {
    let of = |is_narrow: bool| match (is_narrow, narrow) {
        (true, Some(mask)) => Ok(mask.clone()),
        (true, None) => Err(config.error("sliding_window", "is missing, and layers have one")),
        (false, _) => Ok(Mask::causal()),
    };
    let Some(kinds) = config.text_per_layer("layer_types", n_layers)? else {
        return (0..n_layers).map(|layer_idx| of(is_narrow(layer_idx))).collect();
    };
    let one = |kind: &&str| match *kind {
        "full_attention" => of(false),
        kind if kind == narrow_kind => of(true),
        other => {
            let shown: String = other.chars().take(40).collect();
            let what = format!("holds `{shown}`; full_attention and {narrow_kind} are known");
            Err(config.error("layer_types", what))
        }
    };
    kinds.iter().map(one).collect()
}

/// The mask of layers with a window.
fn window(config: &Config) -> Result<Option<Mask>, Error> {
    let keys = config.optional("sliding_window")?;
    Ok(keys.map(|keys| Mask::window(&Dim::from(keys), Dim::ZERO)))
}

/// What a decoder of this file is made of.
struct Parts {
    class: &'static str,
    /// Of each layer.
    attentions: Vec<SelfAttention>,
    sparsity: Sparsity,
    experts: Experts,
    dense: Option<Dense>,
    /// Names of the attention and of what follows.
    names: [&'static str; 2],
    arrangement: Arrangement,
    norm: Norm,
}

impl Parts {
    fn new(class: &'static str, attentions: Vec<SelfAttention>, experts: Experts) -> Parts {
        Parts {
            class,
            attentions,
            sparsity: Sparsity(Vec::new()),
            experts,
            dense: None,
            names: ["self_attn", "mlp"],
            arrangement: Arrangement::PRE,
            norm: Norm::Rms,
        }
    }

    fn layers(&self) -> Vec<Layer> {
        let of_layer = |(layer_idx, attention): (usize, &SelfAttention)| {
            let feed_forward = match (&self.dense, self.sparsity.is_sparse(layer_idx)) {
                (Some(dense), false) => FeedForward::Dense(dense.clone()),
                (_, true) | (None, false) => FeedForward::Experts(self.experts.clone()),
            };
            self.layer(attention, feed_forward)
        };
        self.attentions.iter().enumerate().map(of_layer).collect()
    }

    fn layer(&self, attention: &SelfAttention, feed_forward: FeedForward) -> Layer {
        let [mixer, feed] = self.names;
        Layer {
            class: "DecoderLayer",
            arrangement: self.arrangement,
            norm: self.norm,
            mixer: Some((mixer, Mixer::Attention(attention.clone()))),
            feed_forward: Some((feed, feed_forward)),
        }
    }

    fn decoder(&self, config: &Config, request: &Request) -> Result<Decoder, Error> {
        llama::decoder(config, request, self.class, self.layers())
    }

    fn graph(&self, config: &Config, request: &Request) -> Result<Graph, Error> {
        let decoder = self.decoder(config, request)?;
        let attention = self.attentions.last().ok_or_else(|| Error::new("has no layers"))?;
        let last = self.layer(attention, FeedForward::Experts(self.experts.clone()));
        mtp::graph(&decoder, &last, config, request)
    }
}

/// The dense layers' network, where there are such layers.
fn dense(config: &Config, sparsity: &Sparsity) -> Result<Option<Dense>, Error> {
    if !sparsity.0.contains(&false) {
        return Ok(None);
    }
    let function = function(config)?;
    Ok(Some(Dense { function, ..Dense::llama(config.size("intermediate_size")?) }))
}

fn n_layers(config: &Config) -> Result<i64, Error> {
    config.layers(&["num_hidden_layers"])
}

fn qwen_experts(config: &Config) -> Result<Experts, Error> {
    let experts = Experts::mixtral(
        config.size_of(&["num_experts", "num_local_experts"])?,
        config.size("num_experts_per_tok")?,
        config.size("moe_intermediate_size")?,
    );
    Ok(Experts { function: function(config)?, ..experts })
}

fn qwen2_moe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)?;
    let bias = Bias::from(config.flag("qkv_bias")?.unwrap_or(true));
    let attention = SelfAttention { projections: biases(bias), ..llama::attention(config)? };
    let uses_window = config.flag("use_sliding_window")?.unwrap_or(false);
    let window = if uses_window { window(config)? } else { None };
    let last_narrow = match uses_window {
        true => config.count_or("max_window_layers", 28)?,
        false => 0,
    };
    let is_narrow = |layer_idx: i64| (layer_idx + 1) % 2 != 0 && layer_idx < last_narrow;
    let masks = masks(config, n_layers, ("sliding_attention", window.as_ref()), is_narrow)?;
    let attentions =
        masks.into_iter().map(|mask| SelfAttention { mask, ..attention.clone() }).collect();
    let function = function(config)?;
    let shared = SharedExpert {
        name: "shared_expert",
        dense: Dense { function, ..Dense::llama(config.size("shared_expert_intermediate_size")?) },
        gate: Some("shared_expert_gate"),
    };
    let experts = Experts { shared: Some(shared), ..qwen_experts(config)? };
    let sparsity = Sparsity::stepped(config, n_layers as usize)?;
    let parts = Parts {
        dense: dense(config, &sparsity)?,
        sparsity,
        ..Parts::new("Qwen2MoeForCausalLM", attentions, experts)
    };
    parts.graph(config, request)
}

fn qwen3_moe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)?;
    let mask = match config.flag("use_sliding_window")?.unwrap_or(false) {
        true => window(config)?.unwrap_or_else(Mask::causal),
        false => Mask::causal(),
    };
    let attention = SelfAttention {
        mask,
        head_norm: head_norm(["q_norm", "k_norm"], Span::Head),
        ..attention(config, false)?
    };
    let sparsity = Sparsity::stepped(config, n_layers as usize)?;
    let parts = Parts {
        dense: dense(config, &sparsity)?,
        sparsity,
        ..Parts::new(
            "Qwen3MoeForCausalLM",
            vec![attention; n_layers as usize],
            qwen_experts(config)?,
        )
    };
    parts.graph(config, request)
}

/// GLM-4.5: DeepSeek's experts, grouped attention of which half is rotated.
fn glm4_moe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = attention(config, false)?;
    let has_norm = config.flag_or("use_qk_norm", false)?;
    let attention = SelfAttention {
        output: ("o_proj", Bias::None),
        head_norm: head_norm(["q_norm", "k_norm"], Span::Head).filter(|_| has_norm),
        rotated: rotated(config, attention.head_dim, 0.5)?,
        ..attention
    };
    let experts = super::deepseek::experts(config, Scores::Sigmoid)?;
    let sparsity = Sparsity::after(config, 1, n_layers)?;
    let parts = Parts {
        dense: dense(config, &sparsity)?,
        sparsity,
        ..Parts::new("Glm4MoeForCausalLM", vec![attention; n_layers], experts)
    };
    parts.graph(config, request)
}

/// Solar Open: GLM-4.5's experts in every layer.
fn solar_open(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = attention(config, false)?;
    let rotated = rotated(config, attention.head_dim, 1.0)?;
    let attention = SelfAttention { output: ("o_proj", Bias::None), rotated, ..attention };
    let experts = super::deepseek::experts(config, Scores::Sigmoid)?;
    let parts = Parts::new("SolarOpenForCausalLM", vec![attention; n_layers], experts);
    parts.graph(config, request)
}

fn dots1(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)?;
    let window = window(config)?;
    let first_narrow = match window {
        Some(_) => config.count_or("max_window_layers", 62)?,
        None => n_layers,
    };
    let is_narrow = |layer_idx: i64| first_narrow <= layer_idx;
    let masks = masks(config, n_layers, ("sliding_attention", window.as_ref()), is_narrow)?;
    let attention = SelfAttention {
        head_norm: head_norm(["q_norm", "k_norm"], Span::Head),
        ..attention(config, false)?
    };
    let attentions =
        masks.into_iter().map(|mask| SelfAttention { mask, ..attention.clone() }).collect();
    let experts = super::deepseek::experts(config, Scores::Sigmoid)?;
    let sparsity = Sparsity::after(config, 0, n_layers as usize)?;
    let parts = Parts {
        dense: dense(config, &sparsity)?,
        sparsity,
        ..Parts::new("Dots1ForCausalLM", attentions, experts)
    };
    parts.graph(config, request)
}

fn gpt_oss(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)?;
    let window = window(config)?;
    let is_narrow = |layer_idx: i64| window.is_some() && (layer_idx + 1) % 2 != 0;
    let masks = masks(config, n_layers, ("sliding_attention", window.as_ref()), is_narrow)?;
    let attention = SelfAttention { has_sinks: true, ..attention(config, true)? };
    let attentions =
        masks.into_iter().map(|mask| SelfAttention { mask, ..attention.clone() }).collect();
    let experts = Experts::mixtral(
        config.size_of(&["num_local_experts", "num_experts"])?,
        config.size_of(&["num_experts_per_tok", "experts_per_token"])?,
        config.size("intermediate_size")?,
    );
    let gate = Gate {
        name: "router",
        bias: Bias::Added,
        correction: None,
        scores: Scores::SoftmaxOfChosen,
    };
    let experts = Experts {
        class: "GptOssMLP",
        bounds: Bounds::Clamped,
        bias: Bias::Added,
        orientation: Orientation::Plain,
        gate,
        ..experts
    };
    Parts::new("GptOssForCausalLM", attentions, experts).graph(config, request)
}

fn minimax_m2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = llama::attention(config)?;
    let attention = SelfAttention {
        head_norm: head_norm(["q_norm", "k_norm"], Span::Token),
        rotated: rotated(config, attention.head_dim, 1.0)?,
        ..attention
    };
    let experts = Experts::mixtral(
        config.size_of(&["num_local_experts", "num_experts"])?,
        config.size("num_experts_per_tok")?,
        config.size("intermediate_size")?,
    );
    let gate = Gate {
        correction: Some(Correction::Buffer("e_score_correction_bias")),
        scores: Scores::Sigmoid,
        ..experts.gate
    };
    let experts = Experts { function: function(config)?, gate, ..experts };
    Parts::new("MiniMaxM2ForCausalLM", vec![attention; n_layers], experts).graph(config, request)
}

fn olmoe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = SelfAttention {
        head_norm: head_norm(["q_norm", "k_norm"], Span::Token),
        ..attention(config, false)?
    };
    let experts = Experts::mixtral(
        config.size_of(&["num_experts", "num_local_experts"])?,
        config.size("num_experts_per_tok")?,
        config.size("intermediate_size")?,
    );
    let experts = Experts { function: function(config)?, ..experts };
    Parts::new("OlmoeForCausalLM", vec![attention; n_layers], experts).graph(config, request)
}

fn phimoe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = attention(config, false)?;
    let attention = SelfAttention { mask: llama::window(config)?, ..attention };
    let experts = Experts::mixtral(
        config.size_of(&["num_local_experts", "num_experts"])?,
        config.size("num_experts_per_tok")?,
        config.size("intermediate_size")?,
    );
    let gate = Gate { name: "router", ..experts.gate };
    let experts = Experts { function: function(config)?, gate, ..experts };
    let parts = Parts {
        norm: Norm::Layer,
        ..Parts::new("PhimoeForCausalLM", vec![attention; n_layers], experts)
    };
    let mut decoder = parts.decoder(config, request)?;
    decoder.final_norm = Some(("norm", Norm::Layer));
    let bias = Bias::from(config.flag_or("lm_head_bias", false)?);
    decoder.head = decoder.head.map(|head| super::super::decoder::Head { bias, ..head });
    decoder.graph(request.options.pass)
}

fn granitemoe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = attention(config, false)?;
    let experts = Experts::mixtral(
        config.size_of(&["num_local_experts", "num_experts"])?,
        config.size("num_experts_per_tok")?,
        config.size("intermediate_size")?,
    );
    let gate = Gate { name: "router", scores: Scores::SoftmaxOfChosen, ..experts.gate };
    let experts = Experts { function: function(config)?, gate, ..experts };
    let parts = Parts {
        names: ["self_attn", "block_sparse_moe"],
        ..Parts::new("GraniteMoeForCausalLM", vec![attention; n_layers], experts)
    };
    let mut graph = parts.graph(config, request)?;
    graph.notes.push(Note::new(
        "the multipliers of embeddings, residuals and logits are constants and taken as folded into \
         the layers beside them",
    ));
    Ok(graph)
}

fn ernie4_5_moe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)?;
    let bias = Bias::from(config.flag("use_bias")?.unwrap_or(false));
    let attention = SelfAttention {
        projections: biases(bias),
        output: ("o_proj", bias),
        ..llama::attention(config)?
    };
    let width = config.size("moe_intermediate_size")?;
    let function = function(config)?;
    let experts = Experts::mixtral(
        config.size_of(&["moe_num_experts", "num_experts"])?,
        config.size_of(&["moe_k", "num_experts_per_tok"])?,
        width,
    );
    let shared = match config.count_or("moe_num_shared_experts", 2)? {
        0 => None,
        shared => Some(SharedExpert {
            name: "shared_experts",
            dense: Dense { function, bias, ..Dense::llama(times(config, width, shared)?) },
            gate: None,
        }),
    };
    let correction = Some(Correction::Row("gate.moe_statics.e_score_correction_bias"));
    let gate = Gate { correction, ..experts.gate };
    let experts = Experts { function, shared, gate, ..experts };
    let every = config.size_or("moe_layer_interval", 1)?;
    let start = config.count_or("moe_layer_start_index", 1)?;
    // -1 is the last layer.
    let end = match config.number("moe_layer_end_index")? {
        Some(end) if -1.0 <= end && end < 0.0 => n_layers - 1,
        Some(_) => config.count("moe_layer_end_index")?.unwrap_or(n_layers - 1),
        None => n_layers - 1,
    };
    let is_sparse =
        |layer_idx: i64| (layer_idx + 1) % every == 0 && start <= layer_idx && layer_idx <= end;
    let sparsity = Sparsity((0..n_layers).map(is_sparse).collect());
    let parts = Parts {
        dense: dense(config, &sparsity)?.map(|dense| Dense { bias, ..dense }),
        sparsity,
        ..Parts::new("Ernie4_5_MoeForCausalLM", vec![attention; n_layers as usize], experts)
    };
    let mut decoder = parts.decoder(config, request)?;
    let is_tied = config.flag_or("tie_word_embeddings", true)?;
    decoder.head = decoder.head.map(|head| super::super::decoder::Head { is_tied, bias, ..head });
    decoder.graph(request.options.pass)
}

fn hunyuan_v1_moe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)? as usize;
    let attention = SelfAttention {
        head_norm: head_norm(["query_layernorm", "key_layernorm"], Span::Head),
        ..attention(config, false)?
    };
    let width = config.size("intermediate_size")?;
    let function = function(config)?;
    let experts = Experts::mixtral(
        config.size_of(&["num_experts", "num_local_experts"])?,
        config.size_of(&["moe_topk", "num_experts_per_tok"])?,
        width,
    );
    let dense = Dense { function, ..Dense::llama(width) };
    let shared = Some(SharedExpert { name: "shared_mlp", dense, gate: None });
    let gate = Gate { name: "gate.wg", ..experts.gate };
    let experts = Experts { function, shared, gate, ..experts };
    Parts::new("HunYuanMoEV1ForCausalLM", vec![attention; n_layers], experts).graph(config, request)
}

/// Full attention in every fourth layer, without rotation; a gate on every attention's result.
fn afmoe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let n_layers = n_layers(config)?;
    let every = config.size_or("global_attn_every_n_layers", 4)?;
    let window = window(config)?;
    let is_narrow = |layer_idx: i64| (layer_idx + 1) % every != 0;
    let masks = masks(config, n_layers, ("sliding_attention", window.as_ref()), is_narrow)?;
    let attention = SelfAttention {
        head_norm: head_norm(["q_norm", "k_norm"], Span::Head),
        ..attention(config, false)?
    };
    let of = |mask: Mask| {
        let rotated = if mask == Mask::causal() { 0 } else { attention.rotated };
        SelfAttention { mask, rotated, gate: Some("gate_proj"), ..attention.clone() }
    };
    let width = config.size("moe_intermediate_size")?;
    let function = function(config)?;
    let experts =
        Experts::mixtral(config.size("num_experts")?, config.size("num_experts_per_tok")?, width);
    let shared = match config.count_or("num_shared_experts", 2)? {
        0 => None,
        shared => Some(SharedExpert {
            name: "shared_experts",
            dense: Dense { function, ..Dense::llama(times(config, width, shared)?) },
            gate: None,
        }),
    };
    let gate = Gate {
        name: "router.gate",
        bias: Bias::None,
        correction: Some(Correction::Parameter("expert_bias")),
        scores: Scores::Sigmoid,
    };
    let experts = Experts { function, shared, gate, ..experts };
    let dense_layers = config.count_or("num_dense_layers", 1)?;
    let sparsity = Sparsity((0..n_layers).map(|layer_idx| dense_layers <= layer_idx).collect());
    let parts = Parts {
        dense: dense(config, &sparsity)?,
        sparsity,
        arrangement: Arrangement::Residual {
            before_mixer: Some("input_layernorm"),
            after_mixer: Some("post_attention_layernorm"),
            before_feed_forward: Some("pre_mlp_layernorm"),
            after_feed_forward: Some("post_mlp_layernorm"),
        },
        ..Parts::new("AfmoeForCausalLM", masks.into_iter().map(of).collect(), experts)
    };
    parts.graph(config, request)
}

fn llama4(config: &Config, request: &Request) -> Result<Graph, Error> {
    let text = text_config(config)?;
    let mut decoder = llama4_decoder(&text, request)?;
    decoder.class = "Llama4ForConditionalGeneration".to_owned();
    decoder.paths = Paths { stack: "language_model.model", ..decoder.paths };
    decoder.head = decoder
        .head
        .map(|head| super::super::decoder::Head { name: "language_model.lm_head", ..head });
    let mut graph = decoder.graph(request.options.pass)?;
    graph.notes.push(Note::new("the language model alone is counted, not the vision tower"));
    Ok(graph)
}

fn llama4_text(config: &Config, request: &Request) -> Result<Graph, Error> {
    llama4_decoder(config, request)?.graph(request.options.pass)
}

/// Chunks in layers that rotate, everything in those that do not; experts in every
/// `interleave_moe_layer_step`-th layer.
fn llama4_decoder(config: &Config, request: &Request) -> Result<Decoder, Error> {
    let n_layers = n_layers(config)?;
    let rotates = rotating(config, n_layers)?;
    let chunk = config.optional("attention_chunk_size")?;
    let chunk = chunk.map(|length| Mask::Chunk { length: Dim::from(length), offset: Dim::ZERO });
    let is_narrow = |layer_idx: i64| chunk.is_some() && rotates[layer_idx as usize];
    let masks = masks(config, n_layers, ("chunked_attention", chunk.as_ref()), is_narrow)?;
    let attention = attention(config, false)?;
    let has_norm = config.flag_or("use_qk_norm", true)?;
    let plain = HeadNorm { norm: Norm::PlainRms, names: ["qk_norm", "qk_norm"], span: Span::Head };
    let of = |(mask, rotates): (Mask, &bool)| SelfAttention {
        mask,
        rotated: if *rotates { attention.rotated } else { 0 },
        head_norm: Some(plain).filter(|_| has_norm && *rotates),
        ..attention.clone()
    };
    let attentions = masks.into_iter().zip(&rotates).map(of).collect();
    let width = config.size("intermediate_size")?;
    let function = function(config)?;
    let experts = Experts::mixtral(
        config.size_of(&["num_local_experts", "num_experts"])?,
        config.size("num_experts_per_tok")?,
        width,
    );
    let gate = Gate { name: "router", scores: Scores::SigmoidOfChosen, ..experts.gate };
    let dense = Dense { function, ..Dense::llama(width) };
    let experts = Experts {
        class: "Llama4TextMoe",
        function,
        scaled: Scaled::Inputs,
        orientation: Orientation::Plain,
        gate,
        shared: Some(SharedExpert { name: "shared_expert", dense, gate: None }),
        ..experts
    };
    let sparse = match config.sizes("moe_layers")? {
        Some(sparse) => sparse,
        None => {
            let step = config.size_or("interleave_moe_layer_step", 1)?;
            (0..n_layers).filter(|layer_idx| (layer_idx + 1) % step == 0).collect()
        }
    };
    let is_sparse: Vec<bool> = (0..n_layers).map(|idx| sparse.contains(&idx)).collect();
    let dense = match is_sparse.contains(&false) {
        true => Some(Dense { function, ..Dense::llama(config.size("intermediate_size_mlp")?) }),
        false => None,
    };
    let parts = Parts {
        sparsity: Sparsity(is_sparse),
        dense,
        names: ["self_attn", "feed_forward"],
        ..Parts::new("Llama4ForCausalLM", attentions, experts)
    };
    parts.decoder(config, request)
}

/// Which layers of a Llama 4 rotate queries and keys: 1 in `no_rope_layers` means that it does.
fn rotating(config: &Config, n_layers: i64) -> Result<Vec<bool>, Error> {
    let listed = config.sizes("no_rope_layers")?.filter(|listed| !listed.is_empty());
    let Some(listed) = listed else {
        let every = config.size_or("no_rope_layer_interval", 4)?;
        return Ok((0..n_layers).map(|layer_idx| (layer_idx + 1) % every != 0).collect());
    };
    if (listed.len() as i64) < n_layers {
        let what = format!("has {} entries for {n_layers} layers", listed.len());
        return Err(config.error("no_rope_layers", what));
    }
    Ok(listed.iter().take(n_layers as usize).map(|rotates| *rotates != 0).collect())
}
