//! DeepSeek-V4 (transformers `models/deepseek_v4`): compressed attention, residual streams, experts
//! that the first layers choose by the token itself.
//!
//! Not here: the DeepSeek models before it (`deepseek.rs`).

use super::super::config::Config;
use super::super::layer::{
    Bounds, CompressedAttention, Compression, Correction, Dense, Experts, FeedForward, Gate,
    Gating, Grouped, HyperConnection, Scores, SharedExpert, compressed,
};
use super::super::mtp;
use super::super::network::{Bias, BuiltLayers, Made, Network, Norm};
use super::moe;
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Graph, TensorId};
use crate::note::Note;

pub(super) const TYPES: &[(&str, Build)] = &[("deepseek_v4", deepseek_v4)];

/// Norm weights, sinks, position biases and the weights of hyper-connections.
const IN_FP32: &str = "the reference implementation keeps hyper-connections, norms, sinks and position \
    biases in FP32; here their bytes are those of the other weights' format, too few below FP32";

/// One layer.
#[derive(PartialEq)]
struct Layer {
    attention: CompressedAttention,
    experts: Experts,
}

/// The model.
struct Model {
    vocabulary: i64,
    hyper: HyperConnection,
    layers: Vec<Layer>,
    is_tied: bool,
}

fn deepseek_v4(config: &Config, request: &Request) -> Result<Graph, Error> {
    let model = model(config)?;
    let format = config.format()?;
    let mut net = Network::new(request.name, format, request.options.pass);
    let logits = net.module("", "DeepseekV4ForCausalLM", |net| model.build(net))?;
    let mut graph = net.finish(&[logits]);
    if format.bits < 32 {
        graph.notes.push(Note::new(IN_FP32));
    }
    let offered = mtp::offered(config)?;
    if 0 < offered {
        graph.notes.push(Note::new(format!(
            "the config has {offered} modules that predict further tokens (MTP); the reference \
             implementation has none of them and none is counted"
        )));
    }
    Ok(graph)
}

impl Model {
    fn build(&self, net: &mut Network) -> Made {
        let batch = net.symbol("batch", None, "dim 0 of input_ids");
        let seq = net.symbol("seq", None, "dim 1 of input_ids");
        compressed::declare_context(net);
        let ids = net.token_input("input_ids", &[batch, seq])?;
        let hidden = self.hyper.hidden;
        let (x, table) = net.module("model", "DeepseekV4Model", |net| {
            let x = net.embedding("embed_tokens", ids, self.vocabulary, hidden)?;
            let table = net.parameter("embed_tokens.weight", &[self.vocabulary, hidden])?;
            let mut streams = self.hyper.spread(net, x)?;
            let mut built = BuiltLayers::new();
            for (layer_idx, layer) in self.layers.iter().enumerate() {
                let name = format!("layers.{layer_idx}");
                let place = (name.as_str(), "DecoderLayer");
                let build = |net: &mut Network| layer.build(net, self.hyper, streams);
                streams = net.layer(&mut built, place, layer, streams, build)?;
            }
            let x = self.hyper.close(net, streams)?;
            Ok((net.norm("norm", x, Norm::Rms)?, table))
        })?;
        match self.is_tied {
            true => net.linear_with("lm_head", x, table),
            false => net.linear("lm_head", x, self.vocabulary, Bias::None),
        }
    }
}

impl Layer {
    /// `streams [b, s, n, hidden]` -> the same shape.
    fn build(&self, net: &mut Network, hyper: HyperConnection, streams: TensorId) -> Made {
        let streams = hyper.around(net, "attn_hc", streams, |net, x| {
            let x = net.norm("input_layernorm", x, Norm::Rms)?;
            net.module("self_attn", "Attention", |net| self.attention.build(net, x))
        })?;
        hyper.around(net, "ffn_hc", streams, |net, x| {
            let x = net.norm("post_attention_layernorm", x, Norm::Rms)?;
            let experts = FeedForward::Experts(self.experts.clone());
            net.module("mlp", experts.class(), |net| experts.build(net, x))
        })
    }
}

fn model(config: &Config) -> Result<Model, Error> {
    let n_layers = config.layers(&["num_hidden_layers"])?;
    let vocabulary = config.size("vocab_size")?;
    let attention = attention(config)?;
    let experts = experts(config)?;
    let compressions = compressions(config, n_layers)?;
    let hashed = hashed(config, n_layers)?;
    let of_layer = |(compression, is_hashed): (Option<Compression>, bool)| {
        let correction = match is_hashed {
            true => Correction::Table("gate.tid2eid", vocabulary),
            false => Correction::DEEPSEEK,
        };
        let gate = Gate { correction: Some(correction), ..experts.gate };
        Layer {
            attention: CompressedAttention { compression, ..attention.clone() },
            experts: Experts { gate, ..experts.clone() },
        }
    };
    let hyper = HyperConnection {
        streams: config.size_or("hc_mult", 4)?,
        hidden: config.size("hidden_size")?,
        iterations: config.size_or("hc_sinkhorn_iters", 20)?,
    };
    Ok(Model {
        vocabulary,
        hyper,
        layers: compressions.into_iter().zip(hashed).map(of_layer).collect(),
        is_tied: config.flag_or("tie_word_embeddings", false)?,
    })
}

/// The attention without its compression, which each layer has of its own.
fn attention(config: &Config) -> Result<CompressedAttention, Error> {
    let heads = config.size("num_attention_heads")?;
    let head_dim = config.size("head_dim")?;
    let kv_heads = config.size_or("num_key_value_heads", 1)?;
    if kv_heads != 1 {
        return Err(config.error("num_key_value_heads", format!("is {kv_heads}; it must be 1")));
    }
    let groups = config.size("o_groups")?;
    if (heads * head_dim) % groups != 0 {
        let what = format!("is {groups}, which does not divide {heads} heads of {head_dim}");
        return Err(config.error("o_groups", what));
    }
    Ok(CompressedAttention {
        heads,
        head_dim,
        rotary: rotary(config, head_dim)?,
        query_rank: config.size("q_lora_rank")?,
        window: config.size_or("sliding_window", 128)?,
        output: Grouped { groups, rank: config.size("o_lora_rank")? },
        compression: None,
    })
}

/// `partial_rotary_factor`, or else `qk_rope_head_dim`, or else 64 of 512 elements.
fn rotary(config: &Config, head_dim: i64) -> Result<i64, Error> {
    let rotated =
        match (config.number("partial_rotary_factor")?, config.optional("qk_rope_head_dim")?) {
            (Some(factor), _) if (0.0..=1.0).contains(&factor) => (head_dim as f64 * factor) as i64,
            (Some(factor), _) => {
                let what = format!("is {factor}; it must be 0 to 1");
                return Err(config.error("partial_rotary_factor", what));
            }
            (None, Some(rotated)) => rotated,
            (None, None) => {
                config.assume("partial_rotary_factor", 0.125);
                head_dim / 8
            }
        };
    if rotated < 2 || head_dim < rotated || rotated % 2 != 0 {
        let what = format!("is {rotated}; it must be even and 2 to head_dim {head_dim}");
        return Err(config.error("qk_rope_head_dim", what));
    }
    Ok(rotated)
}

/// What lies behind the window of each layer: `layer_types`, or else `compress_ratios`, or else one
/// kind after the other. Entries beyond the last layer are those of MTP modules.
fn compressions(config: &Config, n_layers: i64) -> Result<Vec<Option<Compression>>, Error> {
    let [chosen, heavy] = rates(config)?;
    let indexer = [
        config.size_or("index_n_heads", 64)?,
        config.size_or("index_head_dim", 128)?,
        config.size_or("index_topk", 512)?,
    ];
    let sparse = Some(Compression { tokens: chosen, indexer: Some(indexer) });
    let heavy = Some(Compression { tokens: heavy, indexer: None });
    let of = |field: &str, what: &str| match what {
        "sliding_attention" | "0" => Ok(None),
        "compressed_sparse_attention" | "4" => Ok(sparse),
        "heavily_compressed_attention" | "128" => Ok(heavy),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(config.error(field, format!("holds `{shown}`, which has no rule here")))
        }
    };
    let (field, kinds) = match (config.texts("layer_types")?, config.sizes("compress_ratios")?) {
        (Some(kinds), _) => ("layer_types", kinds.into_iter().map(str::to_owned).collect()),
        (None, Some(ratios)) => {
            ("compress_ratios", ratios.iter().map(i64::to_string).collect::<Vec<String>>())
        }
        (None, None) => {
            config.assume("layer_types", "heavily compressed twice, then sparse every second");
            let is_sparse = |layer_idx: i64| 2 < layer_idx && layer_idx % 2 == 1;
            let of = |layer_idx| if is_sparse(layer_idx) { "4" } else { "128" };
            ("layer_types", (0..n_layers).map(|layer_idx| of(layer_idx).to_owned()).collect())
        }
    };
    if (kinds.len() as i64) < n_layers {
        let n_kinds = kinds.len();
        return Err(config.error(field, format!("has {n_kinds} entries for {n_layers} layers")));
    }
    let kinds = kinds.iter().take(n_layers as usize);
    let found: Vec<Option<Compression>> =
        kinds.map(|kind| of(field, kind)).collect::<Result<_, _>>()?;
    let rotary = rotary(config, config.size("head_dim")?)?;
    let has_indexer = found.iter().flatten().any(|compression| compression.indexer.is_some());
    if has_indexer && indexer[1] < rotary {
        let what = format!("is {}, less than the {rotary} elements that are rotated", indexer[1]);
        return Err(config.error("index_head_dim", what));
    }
    Ok(found)
}

/// Tokens of an entry, of those that an indexer chooses from and of those it does not.
fn rates(config: &Config) -> Result<[i64; 2], Error> {
    let listed = config.sub("compress_rates")?;
    let of = |field: &str, kind: &str, default: i64| match (config.optional(field)?, &listed) {
        (Some(tokens), _) => Ok(tokens),
        (None, Some(listed)) => listed.size(kind),
        (None, None) => config.size_or(field, default),
    };
    Ok([
        of("compress_rate_csa", "compressed_sparse_attention", 4)?,
        of("compress_rate_hca", "heavily_compressed_attention", 128)?,
    ])
}

/// Which layers' experts are chosen by the token itself.
fn hashed(config: &Config, n_layers: i64) -> Result<Vec<bool>, Error> {
    let Some(kinds) = config.texts("mlp_layer_types")? else {
        let hashed = config.count_or("num_hash_layers", 3)?;
        return Ok((0..n_layers).map(|layer_idx| layer_idx < hashed).collect());
    };
    if (kinds.len() as i64) < n_layers {
        let what = format!("has {} entries for {n_layers} layers", kinds.len());
        return Err(config.error("mlp_layer_types", what));
    }
    let of = |kind: &str| match kind {
        "hash_moe" => Ok(true),
        "moe" => Ok(false),
        other => {
            let shown: String = other.chars().take(40).collect();
            let what = format!("holds `{shown}`; hash_moe and moe are known");
            Err(config.error("mlp_layer_types", what))
        }
    };
    kinds.into_iter().take(n_layers as usize).map(of).collect()
}

fn experts(config: &Config) -> Result<Experts, Error> {
    let width = config.size("moe_intermediate_size")?;
    let function = moe::function(config)?;
    match config.text("scoring_func")? {
        Some("sqrtsoftplus") => {}
        None => config.assume("scoring_func", "sqrtsoftplus"),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            let what = format!("is `{shown}`; sqrtsoftplus is known");
            return Err(config.error("scoring_func", what));
        }
    }
    let shared = config.count_or("n_shared_experts", 1)?;
    if shared != 1 {
        return Err(config.error("n_shared_experts", format!("is {shared}; it must be 1")));
    }
    let dense = Dense {
        function,
        gating: Gating::GatedLimited(["gate_proj", "up_proj", "down_proj"]),
        bias: Bias::from(config.flag("mlp_bias")?.unwrap_or(false)),
        ..Dense::llama(width)
    };
    let experts = Experts::mixtral(
        config.size_of(&["n_routed_experts", "num_local_experts"])?,
        config.size("num_experts_per_tok")?,
        width,
    );
    Ok(Experts {
        class: "MoE",
        function,
        bounds: Bounds::Limited,
        gate: Gate { scores: Scores::RootSoftplus, ..experts.gate },
        shared: Some(SharedExpert { name: "shared_experts", dense, gate: None }),
        ..experts
    })
}
