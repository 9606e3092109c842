//! GPT-2 and the decoders of its time: learned or no positions, layer norms, two matrices: GPT-J,
//! GPT-Neo, GPT-NeoX, GPT-BigCode, OPT, BLOOM, Falcon, MPT.
//!
//! ALiBi's addition to each score (BLOOM, MPT) is not among the other operations counted.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Head, Layer, Multiplied, Paths, Positions};
use super::super::layer::{Dense, FeedForward, Gating, Mixer, Projections, SelfAttention};
use super::super::network::{Bias, Norm};
use super::heads::finish;
use super::parts::{even, function, mask, n_layers, rotated};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::Graph;

pub(super) const TYPES: &[(&str, Build)] = &[
    ("gpt2", gpt2),
    ("gpt_bigcode", gpt_bigcode),
    ("gptj", gptj),
    ("gpt_neo", gpt_neo),
    ("gpt_neox", gpt_neox),
    ("opt", opt),
    ("bloom", bloom),
    ("falcon", falcon),
    ("mpt", mpt),
];

const TRANSFORMER: Paths = Paths { stack: "transformer", embedding: "wte", layers: "h" };
const HIDDEN: &[&str] = &["n_embd", "hidden_size", "d_model"];
const HEADS: &[&str] = &["n_head", "num_attention_heads", "n_heads", "num_heads"];
const POSITIONS: &[&str] = &["n_positions", "max_position_embeddings", "max_seq_len"];

/// Width and heads, whose product is the width.
fn heads(config: &Config, kv_heads: Option<i64>) -> Result<(i64, SelfAttention), Error> {
    let hidden = config.size_of(HIDDEN)?;
    let heads = config.size_of(HEADS)?;
    let field = HEADS.iter().find(|field| config.has(field)).copied().unwrap_or("n_head");
    let head_dim = even(config, field, hidden, heads)?;
    let attention = SelfAttention::llama(heads, kv_heads.unwrap_or(heads), head_dim);
    Ok((hidden, SelfAttention { rotated: 0, ..attention }))
}

fn positions(config: &Config, name: &'static str) -> Result<Positions, Error> {
    Ok(Positions { name, rows: config.size_of(POSITIONS)? })
}

/// Layer norms throughout, a head without bias.
fn decoder(
    config: &Config,
    request: &Request,
    class: &str,
    paths: Paths,
    layers: Vec<Layer>,
) -> Result<Decoder, Error> {
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
    Ok(Decoder {
        name: request.name.to_owned(),
        class: class.to_owned(),
        format: config.format()?,
        vocabulary: config.size("vocab_size")?,
        hidden: config.size_of(HIDDEN)?,
        paths,
        positions: None,
        embedding_norm: None,
        embedding_width: None,
        layers,
        final_norm: Some(("ln_f", Norm::Layer)),
        head: Some(Head { name: "lm_head", is_tied, bias: Bias::None, is_soft_capped: false }),
        max_length: None,
        multiplied: Multiplied::default(),
        depth: None,
    })
}

fn learned(decoder: Decoder, positions: Positions) -> Decoder {
    Decoder { positions: Some(positions), max_length: Some(positions.rows), ..decoder }
}

fn before(mixer: &'static str, feed_forward: &'static str) -> Arrangement {
    Arrangement::Residual {
        before_mixer: Some(mixer),
        after_mixer: None,
        before_feed_forward: Some(feed_forward),
        after_feed_forward: None,
    }
}

fn layer(
    arrangement: Arrangement,
    (mixer, attention): (&'static str, SelfAttention),
    dense: Dense,
) -> Layer {
    Layer {
        class: "Block",
        arrangement,
        norm: Norm::Layer,
        mixer: Some((mixer, Mixer::Attention(attention))),
        feed_forward: Some(("mlp", FeedForward::Dense(dense))),
    }
}

/// `n_inner`, or four times the width.
fn inner(config: &Config, field: &str, hidden: i64) -> Result<i64, Error> {
    Ok(config.optional(field)?.unwrap_or(4 * hidden))
}

fn dense(width: i64, config: &Config, field: &str, gating: Gating) -> Result<Dense, Error> {
    let function = function(config, field, "gelu_new")?;
    Ok(Dense { class: "MLP", width, function, gating, bias: Bias::Added })
}

fn gpt2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (hidden, attention) = heads(config, None)?;
    let projections = Projections::JoinedPlain("c_attn");
    let attention = SelfAttention { projections, output: ("c_proj", Bias::Added), ..attention };
    let gating = Gating::PlainTransposed(["c_fc", "c_proj"]);
    let dense = dense(inner(config, "n_inner", hidden)?, config, "activation_function", gating)?;
    let layers =
        vec![layer(before("ln_1", "ln_2"), ("attn", attention), dense); n_layers(config)? as usize];
    let decoder = decoder(config, request, "GPT2LMHeadModel", TRANSFORMER, layers)?;
    finish(learned(decoder, positions(config, "wpe")?), config, request)
}

/// StarCoder (arXiv 2305.06161): GPT-2 with one key head.
fn gpt_bigcode(config: &Config, request: &Request) -> Result<Graph, Error> {
    let kv_heads = if config.flag_or("multi_query", true)? { Some(1) } else { None };
    let (hidden, attention) = heads(config, kv_heads)?;
    let projections = Projections::Joined("c_attn", Bias::Added);
    let attention = SelfAttention { projections, output: ("c_proj", Bias::Added), ..attention };
    let gating = Gating::Plain(["c_fc", "c_proj"]);
    let dense = dense(inner(config, "n_inner", hidden)?, config, "activation_function", gating)?;
    let layers =
        vec![layer(before("ln_1", "ln_2"), ("attn", attention), dense); n_layers(config)? as usize];
    let decoder = decoder(config, request, "GPTBigCodeForCausalLM", TRANSFORMER, layers)?;
    finish(learned(decoder, positions(config, "wpe")?), config, request)
}

fn gptj(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (hidden, attention) = heads(config, None)?;
    let rotated = match config.is_null("rotary_dim") {
        true => attention.head_dim,
        false => config.size_or("rotary_dim", 64)?.min(attention.head_dim),
    };
    let attention = SelfAttention { rotated, output: ("out_proj", Bias::None), ..attention };
    let gating = Gating::Plain(["fc_in", "fc_out"]);
    let dense = dense(inner(config, "n_inner", hidden)?, config, "activation_function", gating)?;
    let arrangement = Arrangement::Parallel { first: "ln_1", second: None };
    let layers = vec![layer(arrangement, ("attn", attention), dense); n_layers(config)? as usize];
    let mut decoder = decoder(config, request, "GPTJForCausalLM", TRANSFORMER, layers)?;
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(false);
    if is_tied {
        return Err(
            config.error("tie_word_embeddings", "is true, which GPT-J's head with a bias is not")
        );
    }
    decoder.head = decoder.head.map(|head| Head { is_tied, bias: Bias::Added, ..head });
    finish(decoder, config, request)
}

fn gpt_neo(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (hidden, attention) = heads(config, None)?;
    let attention = SelfAttention { output: ("out_proj", Bias::Added), ..attention };
    let gating = Gating::Plain(["c_fc", "c_proj"]);
    let width = inner(config, "intermediate_size", hidden)?;
    let dense = dense(width, config, "activation_function", gating)?;
    let n_layers = n_layers(config)?;
    let local = local_layers(config, n_layers)?;
    let window = config.size_or("window_size", 256)?;
    let layers = local.into_iter().map(|is_local| {
        let mask = mask(Some(window).filter(|_| is_local));
        let attention = SelfAttention { mask, ..attention.clone() };
        layer(before("ln_1", "ln_2"), ("attn.attention", attention), dense.clone())
    });
    let layers = layers.collect();
    let decoder = decoder(config, request, "GPTNeoForCausalLM", TRANSFORMER, layers)?;
    finish(learned(decoder, positions(config, "wpe")?), config, request)
}

/// `attention_types`: `[[["global", "local"], 12]]` is twelve times the two.
fn local_layers(config: &Config, n_layers: i64) -> Result<Vec<bool>, Error> {
    let Some(groups) = config.list("attention_types")? else {
        config.assume("attention_types", "[[[\"global\", \"local\"], 12]]");
        return repeated(config, n_layers, vec![(vec![false, true], 12)]);
    };
    let unknown = || config.error("attention_types", "is no list of [kinds, times]");
    let mut known = Vec::new();
    for group in groups {
        let kinds = group.get(0).and_then(|kinds| kinds.as_array()).ok_or_else(unknown)?;
        let times = group.get(1).and_then(|times| times.as_i64()).ok_or_else(unknown)?;
        let kinds = kinds.iter().map(|kind| match kind.as_str() {
            Some("global") => Ok(false),
            Some("local") => Ok(true),
            Some(_) | None => Err(config.error("attention_types", "has a kind unknown here")),
        });
        known.push((kinds.collect::<Result<Vec<bool>, Error>>()?, times));
    }
    repeated(config, n_layers, known)
}

fn repeated(
    config: &Config,
    n_layers: i64,
    groups: Vec<(Vec<bool>, i64)>,
) -> Result<Vec<bool>, Error> {
    let limit = usize::try_from(n_layers).unwrap_or(0);
    let mut all: Vec<bool> = Vec::new();
    for (kinds, times) in groups {
        for _ in 0..times.min(n_layers) {
            all.extend(&kinds);
            if all.len() > limit {
                break;
            }
        }
    }
    match all.len() == limit {
        true => Ok(all),
        false => {
            let what = format!("gives {} layers, not {n_layers}", all.len());
            Err(config.error("attention_types", what))
        }
    }
}

fn gpt_neox(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (_, attention) = heads(config, None)?;
    let rotated = rotated(config, attention.head_dim, 0.25)?;
    let bias = Bias::from(config.flag_or("attention_bias", true)?);
    let projections = Projections::Joined("query_key_value", bias);
    let attention = SelfAttention { projections, output: ("dense", bias), rotated, ..attention };
    let function = function(config, "hidden_act", "gelu")?;
    let width = config.size("intermediate_size")?;
    let gating = Gating::Plain(["dense_h_to_4h", "dense_4h_to_h"]);
    let dense = Dense { class: "MLP", width, function, gating, bias: Bias::Added };
    let (first, second) = ("input_layernorm", "post_attention_layernorm");
    let arrangement = match config.flag_or("use_parallel_residual", true)? {
        true => Arrangement::Parallel { first, second: Some(second) },
        false => before(first, second),
    };
    let layers =
        vec![layer(arrangement, ("attention", attention), dense); n_layers(config)? as usize];
    let paths = Paths { stack: "gpt_neox", embedding: "embed_in", layers: "layers" };
    let mut decoder = decoder(config, request, "GPTNeoXForCausalLM", paths, layers)?;
    let is_tied = config.flag_or("tie_word_embeddings", false)?;
    // Checkpoints name the head `embed_out`; the class has named it `lm_head` since.
    decoder.head = decoder.head.map(|head| Head { is_tied, ..head });
    decoder.final_norm = Some(("final_layer_norm", Norm::Layer));
    finish(decoder, config, request)
}

/// OPT (arXiv 2205.01068). The table of positions has two rows that are never used; 350m has norms
/// after its parts and a narrower embedding.
fn opt(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (hidden, attention) = heads(config, None)?;
    let bias = Bias::from(config.flag("enable_bias")?.unwrap_or(true));
    let norm = match config.flag("layer_norm_elementwise_affine")?.unwrap_or(true) {
        true => Norm::Layer,
        false => Norm::PlainLayer,
    };
    let projections = Projections::Apart([("q_proj", bias), ("k_proj", bias), ("v_proj", bias)]);
    let attention = SelfAttention { projections, output: ("out_proj", bias), ..attention };
    let (width, function) =
        (config.size("ffn_dim")?, function(config, "activation_function", "relu")?);
    let dense =
        Dense { class: "MLP", width, function, gating: Gating::Plain(["fc1", "fc2"]), bias };
    let is_before = config.flag("do_layer_norm_before")?.unwrap_or(true);
    let (first, second) = ("self_attn_layer_norm", "final_layer_norm");
    let arrangement = match is_before {
        true => before(first, second),
        false => Arrangement::Post { first, second },
    };
    let layer = layer(arrangement, ("self_attn", attention), dense.clone());
    let layer = Layer { norm, feed_forward: Some(("", FeedForward::Dense(dense))), ..layer };
    let layers = vec![layer; n_layers(config)? as usize];
    let paths = Paths { stack: "model.decoder", embedding: "embed_tokens", layers: "layers" };
    let mut decoder = decoder(config, request, "OPTForCausalLM", paths, layers)?;
    let is_removed = config.flag("_remove_final_layer_norm")?.unwrap_or(false);
    decoder.final_norm = Some(("final_layer_norm", norm)).filter(|_| is_before && !is_removed);
    decoder.embedding_width = config
        .optional("word_embed_proj_dim")?
        .filter(|width| *width != hidden)
        .map(|width| (width, ["project_in", "project_out"]));
    let longest = config.size("max_position_embeddings")?;
    decoder.positions = Some(Positions { name: "embed_positions", rows: longest + 2 });
    decoder.max_length = Some(longest);
    finish(decoder, config, request)
}

/// BLOOM (arXiv 2211.05100): the embedding has a norm of its own, positions are ALiBi's.
fn bloom(config: &Config, request: &Request) -> Result<Graph, Error> {
    let (hidden, attention) = heads(config, None)?;
    let projections = Projections::Joined("query_key_value", Bias::Added);
    let attention = SelfAttention { projections, output: ("dense", Bias::Added), ..attention };
    let gating = Gating::Plain(["dense_h_to_4h", "dense_4h_to_h"]);
    let (width, function) = (4 * hidden, crate::graph::Function::GeluTanh);
    let dense = Dense { class: "MLP", width, function, gating, bias: Bias::Added };
    let arrangement = before("input_layernorm", "post_attention_layernorm");
    let layers =
        vec![layer(arrangement, ("self_attention", attention), dense); n_layers(config)? as usize];
    let paths = Paths { embedding: "word_embeddings", ..TRANSFORMER };
    let mut decoder = decoder(config, request, "BloomForCausalLM", paths, layers)?;
    decoder.embedding_norm = Some(("word_embeddings_layernorm", Norm::Layer));
    finish(decoder, config, request)
}

/// Falcon (arXiv 2311.16867): 7b has one key head and one norm per layer, 40b and 180b have groups of
/// key heads and two norms. The KV cache holds the key heads that there are; transformers' copies them
/// to all query heads first.
fn falcon(config: &Config, request: &Request) -> Result<Graph, Error> {
    let is_new = config.flag_or("new_decoder_architecture", false)?;
    let is_multi_query = config.flag_or("multi_query", true)?;
    let n_heads = config.size_of(HEADS)?;
    let kv_heads = match (is_new, is_multi_query) {
        (true, _) => {
            config.optional("num_kv_heads")?.or(config.optional("n_head_kv")?).unwrap_or(n_heads)
        }
        (false, true) => 1,
        (false, false) => n_heads,
    };
    let (hidden, attention) = heads(config, Some(kv_heads))?;
    let bias = Bias::from(config.flag_or("bias", false)?);
    let rotated = if config.flag_or("alibi", false)? { 0 } else { attention.head_dim };
    let projections = Projections::Joined("query_key_value", bias);
    let attention = SelfAttention { projections, output: ("dense", bias), rotated, ..attention };
    let function = function(config, "activation", "gelu")?;
    let gating = Gating::Plain(["dense_h_to_4h", "dense_4h_to_h"]);
    let width = inner(config, "ffn_hidden_size", hidden)?;
    let dense = Dense { class: "MLP", width, function, gating, bias };
    let arrangement = falcon_norms(config, is_new)?;
    let layers =
        vec![layer(arrangement, ("self_attention", attention), dense); n_layers(config)? as usize];
    let paths = Paths { embedding: "word_embeddings", ..TRANSFORMER };
    finish(decoder(config, request, "FalconForCausalLM", paths, layers)?, config, request)
}

fn falcon_norms(config: &Config, is_new: bool) -> Result<Arrangement, Error> {
    let n_norms = config.optional("num_ln_in_parallel_attn")?.unwrap_or(if is_new { 2 } else { 1 });
    let one = Arrangement::Parallel { first: "input_layernorm", second: None };
    Ok(match (config.flag_or("parallel_attn", true)?, n_norms) {
        (true, 2) if is_new => Arrangement::Parallel { first: "ln_attn", second: Some("ln_mlp") },
        (true, 1) => one,
        (false, _) if !is_new => before("input_layernorm", "post_attention_layernorm"),
        (is_parallel, n_norms) => {
            let what = format!(
                "is {n_norms}, which does not go with parallel_attn {is_parallel} and \
                 new_decoder_architecture {is_new}"
            );
            return Err(config.error("num_ln_in_parallel_attn", what));
        }
    })
}

/// MPT. Biases (`no_bias` false) and learned positions (`attn_config.alibi` false) are as llm-foundry
/// builds them; transformers' class has neither.
fn mpt(config: &Config, request: &Request) -> Result<Graph, Error> {
    let inner_config = config.sub("attn_config")?;
    let flag = |field: &str, default: bool| -> Result<bool, Error> {
        match &inner_config {
            Some(inner) => inner.flag_or(field, default),
            None => Ok(default),
        }
    };
    let is_alibi = flag("alibi", true)?;
    if flag("qk_ln", false)? {
        return Err(config.error("attn_config", "has `qk_ln`, which has no rule here"));
    }
    let (hidden, attention) = heads(config, None)?;
    let bias = Bias::from(!config.flag_or("no_bias", true)?);
    let projections = Projections::Joined("Wqkv", bias);
    let attention = SelfAttention { projections, output: ("out_proj", bias), ..attention };
    let width = hidden * config.size_or("expansion_ratio", 4)?;
    let (function, gating) =
        (crate::graph::Function::GeluErf, Gating::Plain(["up_proj", "down_proj"]));
    let dense = Dense { class: "MLP", width, function, gating, bias };
    let norm = if bias == Bias::Added { Norm::Layer } else { Norm::LayerWithoutBias };
    let layer = layer(before("norm_1", "norm_2"), ("attn", attention), dense.clone());
    let layer = Layer { norm, feed_forward: Some(("ffn", FeedForward::Dense(dense))), ..layer };
    let layers = vec![layer; n_layers(config)? as usize];
    let paths = Paths { layers: "blocks", ..TRANSFORMER };
    let mut decoder = decoder(config, request, "MptForCausalLM", paths, layers)?;
    decoder.final_norm = Some(("norm_f", norm));
    if !is_alibi && config.flag_or("learned_pos_emb", true)? {
        decoder = learned(decoder, positions(config, "wpe")?);
    }
    finish(decoder, config, request)
}
