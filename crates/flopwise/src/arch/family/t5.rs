//! T5 and what follows it: T5 (arXiv 1910.10683), its version 1.1 and Flan-T5, mT5 (2010.11934) and
//! UMT5 (2304.09151). Scores are not scaled; a trained bias per distance and head is added to them.

use super::super::config::Config;
use super::super::described::{Placement, class_of, function_named};
use super::super::layer::{CrossAttention, Dense, FeedForward, Gating, Source};
use super::super::network::{Bias, Made, Network, Norm};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{
    Dim, Function, Graph, Keeps, Kind, Mask, Pass, Shape, Stated, StatedGradient, TensorId,
    TensorType,
};
use flopwise_formats::Format;

pub(super) const TYPES: &[(&str, Build)] = &[("t5", t5), ("mt5", mt5), ("umt5", umt5)];

/// Where the bias per distance is trained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Biases {
    /// In the first layer, for all of them.
    First,
    /// In each layer (UMT5).
    Each,
}

/// A model of this family, described.
struct T5 {
    vocabulary: i64,
    hidden: i64,
    heads: i64,
    head_dim: i64,
    dense: Dense,
    /// Distances told apart.
    buckets: i64,
    biases: Biases,
}

impl T5 {
    fn read(config: &Config, biases: Biases, default: &str) -> Result<T5, Error> {
        Ok(T5 {
            vocabulary: config.size("vocab_size")?,
            hidden: config.size("d_model")?,
            heads: config.size("num_heads")?,
            head_dim: config.size("d_kv")?,
            dense: dense(config, default)?,
            buckets: config.size_or("relative_attention_num_buckets", 32)?,
            biases,
        })
    }

    fn table(&self, net: &mut Network) -> Made {
        net.parameter_at("shared.weight", &[self.vocabulary, self.hidden])
    }

    fn attention(&self, mask: Mask) -> CrossAttention {
        let none = Bias::None;
        CrossAttention {
            class: "T5Attention",
            heads: self.heads,
            head_dim: self.head_dim,
            projections: [("q", none), ("k", none), ("v", none)],
            output: ("o", none),
            mask,
        }
    }

    /// One part of a block: `name` is that of the module around it and its norm.
    fn part(
        net: &mut Network,
        x: TensorId,
        name: &str,
        inner: &str,
        build: impl FnOnce(&mut Network, TensorId) -> Made,
    ) -> Made {
        net.module(name, "T5Layer", |net| {
            net.residual(x, ("layer_norm", Norm::Rms), Placement::Before, |net, x| {
                net.module(inner, "T5Part", |net| build(net, x))
            })
        })
    }

    /// `ids [b, s]` through a stack; a decoder has `source`, and sees what the tokens so far are.
    fn stack(
        &self,
        net: &mut Network,
        ids: TensorId,
        layers: i64,
        source: Option<(&Source, &Dim)>,
    ) -> Made {
        let table = self.table(net)?;
        let mut x = net.embedding_of("embed_tokens", table, ids)?;
        let own = self.attention(if source.is_some() { Mask::causal() } else { Mask::Full });
        let other = self.attention(Mask::Full);
        let mut added = None;
        for layer_idx in 0..layers {
            let is_first = layer_idx == 0 || self.biases == Biases::Each;
            x = net.module(&format!("block.{layer_idx}"), "T5Block", |net| {
                let mut x = T5::part(net, x, "layer.0", "SelfAttention", |net, x| {
                    if is_first {
                        added = Some(self.bias(net, x, &own.mask)?);
                    }
                    let seen = own.build(net, x, &Source::Itself, added)?;
                    if source.is_some() {
                        own.keep(net, Keeps::All);
                    }
                    Ok(seen)
                })?;
                if let Some((source, tokens)) = source {
                    x = T5::part(net, x, "layer.1", "EncDecAttention", |net, x| {
                        let seen = other.build(net, x, source, None)?;
                        other.keep(net, Keeps::Other(tokens.clone()));
                        Ok(seen)
                    })?;
                }
                let last = if source.is_some() { "layer.2" } else { "layer.1" };
                let dense = FeedForward::Dense(self.dense.clone());
                T5::part(net, x, last, "DenseReluDense", |net, x| dense.build(net, x))
            })?;
        }
        net.norm("final_layer_norm", x, Norm::Rms)
    }

    /// The bias of each pair and head, `[1, heads, s, s]` (`T5Attention.compute_bias`).
    fn bias(&self, net: &mut Network, x: TensorId, mask: &Mask) -> Made {
        let seq = net.axis(x, 2);
        let shape = Shape(vec![seq.clone(), seq.clone()]);
        let pairs = shape.elements();
        // Per pair: the distance, whether it is small, the logarithm's bucket and the choice
        // between both; in an encoder the sign besides (`_relative_position_bucket`).
        let other = if *mask == Mask::Full { 11 } else { 9 };
        let result = TensorType { shape, format: Format::INT64 };
        let buckets = Stated {
            other: &pairs * &Dim::from(other),
            transcendental: &pairs * &Dim::from(3),
            ..Stated::new("relative_position_bucket", Kind::Elementwise, vec![result])
        };
        let found = net.stated(buckets, StatedGradient::Nothing, &[])?;
        let found = found.first().copied().ok_or_else(|| Error::new("no result"))?;
        let name = "relative_attention_bias";
        let values = net.embedding(name, found, self.buckets, self.heads)?;
        let turned = net.permute(values, &[2, 0, 1])?;
        net.reshape(turned, &[Dim::ONE, self.heads.into(), seq.clone(), seq])
    }
}

/// `feed_forward_proj`: a function, with `gated-` before it where a gate multiplies.
fn dense(config: &Config, default: &str) -> Result<Dense, Error> {
    let named = match config.text("feed_forward_proj")? {
        Some(named) => named,
        None => {
            config.assume("feed_forward_proj", default);
            default
        }
    };
    let (is_gated, name) = match named.strip_prefix("gated-") {
        Some(name) => (true, name),
        None => (false, named),
    };
    let function = match (is_gated, name) {
        // transformers takes the tanh form here (configuration_t5.py).
        (true, "gelu") => Some(Function::GeluTanh),
        _ => function_named(name),
    };
    let Some(function) = function else {
        let shown: String = named.chars().take(48).collect();
        let what = format!("is `{shown}`, which has no rule here");
        return Err(config.error("feed_forward_proj", what).remedy("relu and gated-gelu are"));
    };
    let gating = match is_gated {
        true => Gating::Gated(["wi_0", "wi_1", "wo"]),
        false => Gating::Plain(["wi", "wo"]),
    };
    let width = config.size("d_ff")?;
    Ok(Dense { class: "", width, function, gating, bias: Bias::None })
}

fn t5(config: &Config, request: &Request) -> Result<Graph, Error> {
    // The third is an older name of the first.
    let classes = ["T5ForConditionalGeneration", "T5EncoderModel", "T5WithLMHeadModel"];
    build(config, request, &T5::read(config, Biases::First, "relu")?, &classes)
}

fn mt5(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["MT5ForConditionalGeneration", "MT5EncoderModel"];
    build(config, request, &T5::read(config, Biases::First, "gated-gelu")?, &classes)
}

fn umt5(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["UMT5ForConditionalGeneration", "UMT5EncoderModel"];
    build(config, request, &T5::read(config, Biases::Each, "gated-gelu")?, &classes)
}

/// Whether the head is the table of tokens. In version 1.1, Flan-T5 and mT5 it is not, and their
/// checkpoints hold both; transformers 5 builds one all the same.
fn is_tied(config: &Config) -> Result<bool, Error> {
    Ok(config.flag("tie_word_embeddings")?.unwrap_or(true))
}

fn build(
    config: &Config,
    request: &Request,
    t5: &T5,
    classes: &[&'static str],
) -> Result<Graph, Error> {
    let class = class_of(config, classes)?;
    let layers = config.layers(&["num_layers"])?;
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let batch = net.symbol("batch", None, "dim 0 of every input");
    let seq = net.symbol("seq", None, "dim 1 of input_ids");
    let encode = |net: &mut Network| {
        let ids = net.token_input("input_ids", &[batch.clone(), seq.clone()])?;
        net.module("encoder", "T5Stack", |net| t5.stack(net, ids, layers, None))
    };
    if class == classes[1] {
        let result = net.module("", class, encode)?;
        return Ok(net.finish(&[result]));
    }
    let decoder_layers = match config.has("num_decoder_layers") {
        true => config.layers(&["num_decoder_layers"])?,
        false => layers,
    };
    let result = net.module("", class, |net| {
        let source = match net.pass {
            Pass::Whole => Source::Other(encode(net)?),
            Pass::Decode => Source::Cached(seq.clone()),
        };
        let target = net.symbol("target_seq", None, "dim 1 of decoder_input_ids");
        let ids = net.token_input("decoder_input_ids", &[batch.clone(), target])?;
        let mut x = net.module("decoder", "T5Stack", |net| {
            t5.stack(net, ids, decoder_layers, Some((&source, &seq)))
        })?;
        if is_tied(config)? {
            // The decoder's result is scaled before the table of tokens scores it.
            x = net.with_scalar(Function::Mul, x)?;
            let table = t5.table(net)?;
            return net.linear_with("lm_head", x, table);
        }
        net.linear("lm_head", x, t5.vocabulary, Bias::None)
    })?;
    Ok(net.finish(&[result]))
}
