//! BERT (arXiv 1810.04805) and its kin: RoBERTa, DistilBERT, ELECTRA, ALBERT (one layer's weights for
//! all), ModernBERT.
//!
//! Every token sees every other, so nothing is kept from token to token.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Layer};
use super::super::layer::{Dense, FeedForward, Gating, Mixer, Projections, SelfAttention};
use super::super::network::{Bias, BuiltLayers, Made, Network, Norm, dim};
use super::encoder_heads::{self as heads, Top};
use super::parts::{even, function, windowed};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Band, Dim, Graph, Mask, TensorId};

pub(super) const TYPES: &[(&str, Build)] = &[
    ("bert", bert),
    ("roberta", roberta),
    ("xlm-roberta", roberta),
    ("camembert", roberta),
    ("electra", electra),
    ("distilbert", distilbert),
    ("albert", albert),
    ("modernbert", modernbert),
];

/// An encoder of one family.
pub(super) struct Family {
    /// The class that is built where the config names none.
    otherwise: &'static str,
    /// The stack's module below a head.
    prefix: &'static str,
    /// Builds the stack; whether a pooler is wanted is the last argument.
    stack: fn(&mut Network, &Config, bool) -> Result<Stack, Error>,
    /// Builds what a class has on top.
    head: fn(&mut Network, &Config, Top, &Stack) -> Made,
    /// For which heads the stack pools.
    pools: fn(Top) -> bool,
}

/// What a stack gives.
pub(super) struct Stack {
    /// `[b, s, hidden]`.
    pub(super) x: TensorId,
    /// The first token through a layer and a tanh.
    pub(super) pooled: Option<TensorId>,
    /// The token table.
    pub(super) table: TensorId,
}

fn graph(config: &Config, request: &Request, family: &Family) -> Result<Graph, Error> {
    let class = super::heads::class(config, family.otherwise)?;
    let top = heads::top(config, &class)?;
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let results = net.module("", &class, |net| {
        let prefix = if top == Top::Bare { "" } else { family.prefix };
        let pools = (family.pools)(top);
        let stack = net.module(prefix, "Model", |net| (family.stack)(net, config, pools))?;
        Ok(match top {
            Top::Bare => [stack.x].into_iter().chain(stack.pooled).collect(),
            Top::Masked | Top::Pretraining | Top::Sequence(_) | Top::Token(_) | Top::Span => {
                vec![(family.head)(net, config, top, &stack)?]
            }
        })
    })?;
    Ok(net.finish(&results))
}

fn bert(config: &Config, request: &Request) -> Result<Graph, Error> {
    let family = Family {
        otherwise: "BertModel",
        prefix: "bert",
        stack: |net, config, pools| bert_stack(net, config, pools, config.size("hidden_size")?, 0),
        head: heads::bert,
        pools: |top| matches!(top, Top::Bare | Top::Sequence(_) | Top::Pretraining),
    };
    graph(config, request, &family)
}

/// Two positions of the table are never used: those up to the padding's.
fn roberta(config: &Config, request: &Request) -> Result<Graph, Error> {
    let family = Family {
        otherwise: "RobertaModel",
        prefix: "roberta",
        stack: |net, config, pools| bert_stack(net, config, pools, config.size("hidden_size")?, 2),
        head: heads::roberta,
        pools: |top| top == Top::Bare,
    };
    graph(config, request, &family)
}

fn electra(config: &Config, request: &Request) -> Result<Graph, Error> {
    let family = Family {
        otherwise: "ElectraModel",
        prefix: "electra",
        stack: |net, config, _| {
            bert_stack(net, config, false, config.size_or("embedding_size", 128)?, 0)
        },
        head: heads::electra,
        pools: |_| false,
    };
    graph(config, request, &family)
}

/// Words, token types and positions added up and normalised; the table, and the sum.
fn embed(
    net: &mut Network,
    config: &Config,
    width: i64,
    n_unused: i64,
) -> Result<(TensorId, TensorId), Error> {
    let rows = config.size("max_position_embeddings")?;
    let n_types = config.count_or("type_vocab_size", 2)?;
    let batch = net.symbol("batch", None, "dim 0 of input_ids");
    let longest = Some(rows - n_unused).filter(|longest| *longest > 0);
    let seq = net.symbol("seq", longest, "dim 1 of input_ids");
    let ids = net.token_input("input_ids", &[batch, seq.clone()])?;
    let vocabulary = config.size("vocab_size")?;
    net.module("embeddings", "Embeddings", |net| {
        let mut x = net.embedding("word_embeddings", ids, vocabulary, width)?;
        let table = net.parameter("word_embeddings.weight", &[vocabulary, width])?;
        if n_types > 0 {
            let types = net.positions(&seq)?;
            let types = net.embedding("token_type_embeddings", types, n_types, width)?;
            x = net.add(x, types)?;
        }
        let positions = net.positions(&seq)?;
        let positions = net.embedding("position_embeddings", positions, rows, width)?;
        let x = net.add(x, positions)?;
        Ok((net.norm("LayerNorm", x, Norm::Layer)?, table))
    })
}

fn attention(config: &Config, names: [&'static str; 4]) -> Result<SelfAttention, Error> {
    let hidden = config.size_of(&["hidden_size", "dim"])?;
    let heads = config.size_of(&["num_attention_heads", "n_heads"])?;
    let head_dim = even(config, "num_attention_heads", hidden, heads)?;
    let [query, key, value, output] = names;
    let mask = match config.flag("is_decoder")?.unwrap_or(false) {
        true => Mask::causal(),
        false => Mask::Full,
    };
    Ok(SelfAttention {
        projections: Projections::Apart([
            (query, Bias::Added),
            (key, Bias::Added),
            (value, Bias::Added),
        ]),
        output: (output, Bias::Added),
        rotated: 0,
        mask,
        ..SelfAttention::llama(heads, heads, head_dim)
    })
}

fn post(
    [first, second]: [&'static str; 2],
    mixer: (&'static str, SelfAttention),
    feed_forward: (&'static str, Dense),
) -> Layer {
    Layer {
        class: "Layer",
        arrangement: Arrangement::Post { first, second },
        norm: Norm::Layer,
        mixer: Some((mixer.0, Mixer::Attention(mixer.1))),
        feed_forward: Some((feed_forward.0, FeedForward::Dense(feed_forward.1))),
    }
}

fn two(config: &Config, names: [&'static str; 2], act: &'static str) -> Result<Dense, Error> {
    Ok(Dense {
        class: "MLP",
        width: config.size_of(&["intermediate_size", "hidden_dim"])?,
        function: function(config, act, "gelu")?,
        gating: Gating::Plain(names),
        bias: Bias::Added,
    })
}

fn bert_stack(
    net: &mut Network,
    config: &Config,
    pools: bool,
    width: i64,
    n_unused: i64,
) -> Result<Stack, Error> {
    let hidden = config.size("hidden_size")?;
    let (mut x, table) = embed(net, config, width, n_unused)?;
    if width != hidden {
        x = net.linear("embeddings_project", x, hidden, Bias::Added)?;
    }
    let attention = attention(config, ["self.query", "self.key", "self.value", "output.dense"])?;
    let dense = two(config, ["intermediate.dense", "output.dense"], "hidden_act")?;
    let norms = ["attention.output.LayerNorm", "output.LayerNorm"];
    let layer = post(norms, ("attention", attention), ("", dense));
    let mut built = BuiltLayers::new();
    for layer_idx in 0..config.layers(&["num_hidden_layers"])? {
        let name = format!("encoder.layer.{layer_idx}");
        let place = (name.as_str(), "Layer");
        x = net.layer(&mut built, place, (), x, |net| layer.build(net, x))?;
    }
    let pooled = match pools {
        true => Some(heads::pooled(net, x, "pooler.dense", hidden)?),
        false => None,
    };
    Ok(Stack { x, pooled, table })
}

fn distilbert(config: &Config, request: &Request) -> Result<Graph, Error> {
    let family = Family {
        otherwise: "DistilBertModel",
        prefix: "distilbert",
        stack: distilbert_stack,
        head: heads::distilbert,
        pools: |_| false,
    };
    let mut config = config.clone();
    config.set("type_vocab_size", 0.into());
    graph(&config, request, &family)
}

fn distilbert_stack(net: &mut Network, config: &Config, _: bool) -> Result<Stack, Error> {
    let (mut x, table) = embed(net, config, config.size_of(&["dim", "hidden_size"])?, 0)?;
    let attention = attention(config, ["q_lin", "k_lin", "v_lin", "out_lin"])?;
    let dense = two(config, ["lin1", "lin2"], "activation")?;
    let norms = ["sa_layer_norm", "output_layer_norm"];
    let layer = post(norms, ("attention", attention), ("ffn", dense));
    for layer_idx in 0..config.layers(&["n_layers", "num_hidden_layers"])? {
        let name = format!("transformer.layer.{layer_idx}");
        x = net.module(&name, "TransformerBlock", |net| layer.build(net, x))?;
    }
    Ok(Stack { x, pooled: None, table })
}

/// ALBERT (arXiv 1909.11942): layers share their weights in groups.
fn albert(config: &Config, request: &Request) -> Result<Graph, Error> {
    let family = Family {
        otherwise: "AlbertModel",
        prefix: "albert",
        stack: albert_stack,
        head: heads::albert,
        pools: |top| matches!(top, Top::Bare | Top::Sequence(_) | Top::Pretraining),
    };
    graph(config, request, &family)
}

fn albert_stack(net: &mut Network, config: &Config, pools: bool) -> Result<Stack, Error> {
    let hidden = config.size("hidden_size")?;
    let (x, table) = embed(net, config, config.size_or("embedding_size", 128)?, 0)?;
    let n_layers = config.layers(&["num_hidden_layers"])?;
    let n_groups = config.size_or("num_hidden_groups", 1)?;
    let n_inner = config.layers(&["inner_group_num"]).or_else(|error| {
        match config.has("inner_group_num") {
            true => Err(error),
            false => config.size_or("inner_group_num", 1),
        }
    })?;
    if n_groups > n_layers {
        let what = format!("is {n_groups}, more than the {n_layers} layers");
        return Err(config.error("num_hidden_groups", what));
    }
    let names = ["attention.query", "attention.key", "attention.value", "attention.dense"];
    let attention = attention(config, names)?;
    let dense = Dense {
        function: function(config, "hidden_act", "gelu_new")?,
        ..two(config, ["ffn", "ffn_output"], "hidden_act")?
    };
    let norms = ["attention.LayerNorm", "full_layer_layer_norm"];
    let layer = post(norms, ("", attention), ("", dense));
    let x = net.module("encoder", "AlbertTransformer", |net| {
        let mut x = net.linear("embedding_hidden_mapping_in", x, hidden, Bias::Added)?;
        for layer_idx in 0..n_layers {
            // int(i / (layers / groups)), as the reference implementation has it
            let group = layer_idx * n_groups / n_layers;
            for inner in 0..n_inner {
                let name = format!("albert_layer_groups.{group}.albert_layers.{inner}");
                x = net.module(&name, "AlbertLayer", |net| layer.build(net, x))?;
            }
        }
        Ok(x)
    })?;
    let pooled = match pools {
        true => Some(heads::pooled(net, x, "pooler", hidden)?),
        false => None,
    };
    Ok(Stack { x, pooled, table })
}

/// ModernBERT (arXiv 2412.13663): pre-norm, gated, rotated, every third layer sees everything.
fn modernbert(config: &Config, request: &Request) -> Result<Graph, Error> {
    let family = Family {
        otherwise: "ModernBertModel",
        prefix: "model",
        stack: modernbert_stack,
        head: heads::modernbert,
        pools: |_| false,
    };
    graph(config, request, &family)
}

fn modernbert_stack(net: &mut Network, config: &Config, _: bool) -> Result<Stack, Error> {
    let (hidden, vocabulary) = (config.size("hidden_size")?, config.size("vocab_size")?);
    let n_layers = config.layers(&["num_hidden_layers"])?;
    let norm = heads::modernbert_norm(config)?;
    let period = match config.has("layer_types") {
        true => 1,
        false => config.size_or("global_attn_every_n_layers", 3)?,
    };
    let windowed = windowed(config, n_layers, |layer| layer % period != 0)?;
    let side = dim(config.size_or("local_attention", 128)? / 2);
    let window =
        Mask::Band(Band { left: Some(side.clone()), right: Some(side), offset: Dim::ZERO });
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    let whole = SelfAttention {
        projections: Projections::Joined("Wqkv", bias),
        output: ("Wo", bias),
        ..attention(config, ["", "", "", ""])?
    };
    let whole = SelfAttention { rotated: whole.head_dim, ..whole };
    let dense = Dense {
        gating: Gating::GatedJoined(["Wi", "Wo"]),
        bias: Bias::from(config.flag("mlp_bias")?.unwrap_or(false)),
        ..two(config, ["", ""], "hidden_activation")?
    };
    let batch = net.symbol("batch", None, "dim 0 of input_ids");
    let seq = net.symbol("seq", None, "dim 1 of input_ids");
    let ids = net.token_input("input_ids", &[batch, seq])?;
    let table_path = net.below("embeddings.tok_embeddings.weight");
    let mut x = net.embedding("embeddings.tok_embeddings", ids, vocabulary, hidden)?;
    let table = net.parameter_at(&table_path, &[vocabulary, hidden])?;
    x = net.norm("embeddings.norm", x, norm)?;
    for (layer_idx, is_windowed) in windowed.into_iter().enumerate() {
        let mask = if is_windowed { window.clone() } else { Mask::Full };
        let layer = Layer {
            class: "ModernBertEncoderLayer",
            // The embeddings have been normalised before the first layer.
            arrangement: Arrangement::Residual {
                before_mixer: Some("attn_norm").filter(|_| layer_idx > 0),
                after_mixer: None,
                before_feed_forward: Some("mlp_norm"),
                after_feed_forward: None,
            },
            norm,
            mixer: Some(("attn", Mixer::Attention(SelfAttention { mask, ..whole.clone() }))),
            feed_forward: Some(("mlp", FeedForward::Dense(dense.clone()))),
        };
        x = net.module(&format!("layers.{layer_idx}"), layer.class, |net| layer.build(net, x))?;
    }
    let x = net.norm("final_norm", x, norm)?;
    Ok(Stack { x, pooled: None, table })
}
