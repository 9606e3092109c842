//! Decoders of linear recurrences, most with attention between them: MiniMax, RWKV-4,
//! RecurrentGemma, LFM2.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Head, Layer, Paths};
use super::super::layer::linear::{GatedLinearUnit, Lightning, Rwkv, ShortConvolution};
use super::super::layer::{
    CausalConvolution, Correction, Dense, Experts, FeedForward, Gate, Gating, HeadNorm, Mixer,
    Projections, Recurrent, Scores, SelfAttention, attention::Span,
};
use super::super::network::{Bias, Norm};
use super::delta::attends;
use super::mamba::{decoder, named};
use super::{Build, Request, parts};
use crate::error::Error;
use crate::graph::Graph;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("lfm2", lfm2),
    ("lfm2_moe", lfm2_moe),
    ("minimax", minimax),
    ("recurrent_gemma", recurrent_gemma),
    ("rwkv", rwkv),
];

fn n_layers(config: &Config) -> Result<i64, Error> {
    config.layers(&["num_hidden_layers"])
}

fn minimax(config: &Config, request: &Request) -> Result<Graph, Error> {
    let attention = parts::attention(config, Some(8), None)?;
    // MiniMax-Text-01 gives the rotated elements as `rotary_dim`.
    let rotated = match config.optional("rotary_dim")? {
        Some(rotated) => rotated.min(attention.head_dim),
        None => parts::rotated(config, attention.head_dim, 1.0)?,
    };
    let mask = parts::mask(config.optional("sliding_window")?);
    let lightning = Lightning {
        heads: attention.heads,
        head_dim: attention.head_dim,
        block: config.size_or("block_size", 256)?,
    };
    let lightning = Mixer::Recurrent(Recurrent::Lightning(lightning));
    let attention = Mixer::Attention(SelfAttention { rotated, mask, ..attention });
    let experts = Experts::mixtral(
        config.size("num_local_experts")?,
        config.size("num_experts_per_tok")?,
        config.size("intermediate_size")?,
    );
    let function = parts::function(config, "hidden_act", "silu")?;
    let fed = FeedForward::Experts(Experts { function, ..experts });
    let n_layers = n_layers(config)?;
    let attends = match own_types(config, n_layers)? {
        Some(attends) => attends,
        None => attends(config, n_layers, |layer_idx| layer_idx % 2 == 0)?,
    };
    let layers = attends.into_iter().map(|is_attention| Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::PRE,
        norm: Norm::Rms,
        mixer: Some(("self_attn", if is_attention { &attention } else { &lightning }.clone())),
        feed_forward: Some(("mlp", fed.clone())),
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = decoder(config, request, "MiniMaxForCausalLM", false, layers)?;
    decoder.graph(request.options.pass)
}

/// `attn_type_list`, as the original checkpoint has it: 1 for attention, 0 for lightning attention.
fn own_types(config: &Config, n_layers: i64) -> Result<Option<Vec<bool>>, Error> {
    let field = "attn_type_list";
    let Some(list) = config.sizes(field)?.filter(|_| !config.has("layer_types")) else {
        return Ok(None);
    };
    if i64::try_from(list.len()) != Ok(n_layers) {
        let what = format!("has {} entries for {n_layers} layers", list.len());
        return Err(config.error(field, what));
    }
    let known = list.into_iter().map(|kind| match kind {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(config.error(field, format!("has {other}, neither 0 nor 1"))),
    });
    known.collect::<Result<Vec<bool>, Error>>().map(Some)
}

fn rwkv(config: &Config, request: &Request) -> Result<Graph, Error> {
    let hidden = config.size("hidden_size")?;
    let width = config.optional("attention_hidden_size")?.unwrap_or(hidden);
    let inner = config.optional("intermediate_size")?.unwrap_or(hidden.saturating_mul(4));
    let layer = Layer {
        class: "RwkvBlock",
        arrangement: Arrangement::Residual {
            before_mixer: Some("ln1"),
            after_mixer: None,
            before_feed_forward: Some("ln2"),
            after_feed_forward: None,
        },
        norm: Norm::Layer,
        mixer: Some(("attention", Mixer::Recurrent(Recurrent::Rwkv(Rwkv { width })))),
        feed_forward: Some(("feed_forward", FeedForward::ChannelMix(inner))),
    };
    let layers = vec![layer; n_layers(config)? as usize];
    let decoder = decoder(config, request, "RwkvForCausalLM", false, layers)?;
    let is_tied = decoder.head.is_some_and(|head| head.is_tied);
    let decoder = Decoder {
        paths: Paths { stack: "rwkv", embedding: "embeddings", layers: "blocks" },
        // The first block norms what comes into it.
        embedding_norm: Some(("blocks.0.pre_ln", Norm::Layer)),
        final_norm: Some(("ln_out", Norm::Layer)),
        head: Some(Head { name: "head", is_tied, bias: Bias::None, is_soft_capped: false }),
        ..decoder
    };
    decoder.graph(request.options.pass)
}

fn recurrent_gemma(config: &Config, request: &Request) -> Result<Graph, Error> {
    let function = parts::function(config, "hidden_activation", "gelu_pytorch_tanh")?;
    let attention = parts::attention(config, None, None)?;
    let window = config.size_or("attention_window_size", 2048)?;
    let bias = Bias::from(config.flag_or("attention_bias", false)?);
    let blocks = attention.heads;
    let attention = Mixer::Attention(SelfAttention {
        rotated: parts::rotated(config, attention.head_dim, 0.5)?,
        mask: parts::mask(Some(window)),
        projections: Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]),
        output: ("o_proj", Bias::Added),
        ..attention
    });
    let unit = GatedLinearUnit {
        width: config.optional("lru_width")?.unwrap_or(config.size("hidden_size")?),
        blocks,
        convolution: CausalConvolution {
            kernel: config.size_or("conv1d_width", 4)?,
            bias: Bias::Added,
            function: None,
        },
        function,
    };
    let unit = Mixer::Recurrent(Recurrent::GatedLinearUnit(unit));
    // Half of it: the field is the width of both matrices together.
    let width = config.size("intermediate_size")? / 2;
    let dense = Dense { function, bias: Bias::Added, ..Dense::llama(width.max(1)) };
    let types = block_types(config)?;
    let layers = (0..n_layers(config)? as usize).map(|layer_idx| Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::Residual {
            before_mixer: Some("temporal_pre_norm"),
            after_mixer: None,
            before_feed_forward: Some("channel_pre_norm"),
            after_feed_forward: None,
        },
        norm: Norm::Rms,
        mixer: Some(match types[layer_idx % types.len()] {
            true => ("temporal_block", attention.clone()),
            false => ("temporal_block", unit.clone()),
        }),
        feed_forward: Some(("mlp_block", FeedForward::Dense(dense.clone()))),
    });
    let layers: Vec<Layer> = layers.collect();
    let decoder = decoder(config, request, "RecurrentGemmaForCausalLM", true, layers)?;
    let is_soft_capped = parts::soft_capped(config, "logits_soft_cap", Some(30.0))?;
    let decoder = Decoder {
        final_norm: Some(("final_norm", Norm::Rms)),
        head: decoder.head.map(|head| Head { is_soft_capped, ..head }),
        ..decoder
    };
    decoder.graph(request.options.pass)
}

/// The kinds of layers, which repeat: whether each is attention.
fn block_types(config: &Config) -> Result<Vec<bool>, Error> {
    let field = if config.has("block_types") { "block_types" } else { "_block_types" };
    let Some(words) = config.texts(field)? else {
        config.assume("block_types", "recurrent, recurrent, attention");
        return Ok(vec![false, false, true]);
    };
    let known = words.into_iter().map(|word| match word {
        "recurrent" => Ok(false),
        "attention" => Ok(true),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(config.error(field, format!("has `{shown}`, unknown here")))
        }
    });
    let known = known.collect::<Result<Vec<bool>, Error>>()?;
    match known.is_empty() {
        true => Err(config.error(field, "is empty")),
        false => Ok(known),
    }
}

/// Attention with normed heads, or a short convolution.
fn lfm2_mixers(config: &Config) -> Result<[(&'static str, Mixer); 2], Error> {
    let attention = parts::attention(config, Some(8), None)?;
    let attention = SelfAttention {
        rotated: parts::rotated(config, attention.head_dim, 1.0)?,
        output: ("out_proj", Bias::None),
        head_norm: Some(HeadNorm {
            norm: Norm::Rms,
            names: ["q_layernorm", "k_layernorm"],
            span: Span::Head,
        }),
        ..attention
    };
    let convolution = CausalConvolution {
        kernel: config.size_or("conv_L_cache", 3)?,
        bias: config.flag_or("conv_bias", false)?.into(),
        function: None,
    };
    let short = Recurrent::ShortConvolution(ShortConvolution { convolution });
    Ok([("self_attn", Mixer::Attention(attention)), ("conv", Mixer::Recurrent(short))])
}

fn lfm2_dense(width: i64) -> FeedForward {
    FeedForward::Dense(Dense { gating: Gating::Gated(["w1", "w3", "w2"]), ..Dense::llama(width) })
}

fn lfm2_graph(
    config: &Config,
    request: &Request,
    class: &str,
    fed: impl Fn(i64) -> FeedForward,
) -> Result<Graph, Error> {
    let [attention, short] = lfm2_mixers(config)?;
    let n_layers = n_layers(config)?;
    let full = config.sizes("full_attn_idxs")?;
    let is_full = |layer_idx: i64| full.as_ref().is_none_or(|full| full.contains(&layer_idx));
    let attends = attends(config, n_layers, is_full)?;
    let layers = (0..n_layers).zip(attends).map(|(layer_idx, is_attention)| Layer {
        class: "DecoderLayer",
        arrangement: Arrangement::Residual {
            before_mixer: Some("operator_norm"),
            after_mixer: None,
            before_feed_forward: Some("ffn_norm"),
            after_feed_forward: None,
        },
        norm: Norm::Rms,
        mixer: Some(if is_attention { &attention } else { &short }.clone()),
        feed_forward: Some(("feed_forward", fed(layer_idx))),
    });
    let layers: Vec<Layer> = layers.collect();
    let mut own = config.clone();
    if let Some(is_tied) = config.flag("tie_embedding")? {
        own.set("tie_word_embeddings", is_tied.into());
    }
    let decoder = decoder(&own, request, class, true, layers)?;
    let decoder = Decoder { final_norm: Some(("embedding_norm", Norm::Rms)), ..decoder };
    decoder.graph(request.options.pass)
}

fn lfm2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let mut width = named(config, &["block_ff_dim", "intermediate_size"], 12288)?;
    if config.flag_or("block_auto_adjust_ff_dim", true)? {
        width = 2 * width / 3;
        if let Some(factor) = config.number("block_ffn_dim_multiplier")? {
            width = (factor * width as f64) as i64;
        }
        let multiple = config.size_or("block_multiple_of", 256)?;
        width = width.saturating_add(multiple - 1) / multiple * multiple;
    }
    if !(1..=i64::from(i32::MAX)).contains(&width) {
        return Err(config.error("intermediate_size", format!("comes to {width} after adjusting")));
    }
    lfm2_graph(config, request, "Lfm2ForCausalLM", |_| lfm2_dense(width))
}

fn lfm2_moe(config: &Config, request: &Request) -> Result<Graph, Error> {
    let dense = lfm2_dense(config.size("intermediate_size")?);
    let experts = Experts::mixtral(
        config.size("num_experts")?,
        config.size("num_experts_per_tok")?,
        config.size("moe_intermediate_size")?,
    );
    let correction =
        config.flag_or("use_expert_bias", true)?.then_some(Correction::Buffer("expert_bias"));
    let gate = Gate { correction, scores: Scores::Sigmoid, ..experts.gate };
    let experts = FeedForward::Experts(Experts { gate, ..experts });
    let n_dense = config.count_or("num_dense_layers", 2)?;
    lfm2_graph(config, request, "Lfm2MoeForCausalLM", |layer_idx| {
        if layer_idx < n_dense { dense.clone() } else { experts.clone() }
    })
}
