//! Encoders of images and texts that meet in one space: CLIP (arXiv 2103.00020) and SigLIP
//! (2303.15343), each part alone or both.

use super::super::config::Config;
use super::super::described::{class_of, function, sides};
use super::super::layer::{CrossAttention, Dense, FeedForward, Gating};
use super::super::network::{Bias, Made, Network, Norm};
use super::super::vision::{EncoderLayer, Patches};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{
    Attention, Dim, Function, Graph, Mask, MatMul, Op, Orientation, Reduce, Reduction, TensorId,
};

pub(super) const TYPES: &[(&str, Build)] = &[
    ("clip", clip),
    ("clip_text_model", clip_text),
    ("clip_vision_model", clip_vision),
    ("siglip", siglip),
    ("siglip_text_model", siglip_text),
    ("siglip_vision_model", siglip_vision),
];

/// Which of both models; they differ in little.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kin {
    Clip,
    Siglip,
}

impl Kin {
    fn function(self) -> &'static str {
        match self {
            Kin::Clip => "quick_gelu",
            Kin::Siglip => "gelu_pytorch_tanh",
        }
    }
}

fn layer(config: &Config, kin: Kin, mask: Mask) -> Result<EncoderLayer, Error> {
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let bias = Bias::Added;
    let attention = CrossAttention {
        class: "Attention",
        heads,
        head_dim: CrossAttention::even(hidden, heads)?,
        projections: [("q_proj", bias), ("k_proj", bias), ("v_proj", bias)],
        output: ("out_proj", bias),
        mask,
    };
    Ok(EncoderLayer {
        class: "EncoderLayer",
        norms: ["layer_norm1", "layer_norm2"],
        attention: ("self_attn", attention),
        scales: None,
        dense: dense(config, kin)?,
    })
}

fn dense(config: &Config, kin: Kin) -> Result<Dense, Error> {
    Ok(Dense {
        class: "MLP",
        width: config.size("intermediate_size")?,
        function: function(config, "hidden_act", kin.function())?,
        gating: Gating::Plain(["fc1", "fc2"]),
        bias: Bias::Added,
    })
}

/// `input_ids [batch, seq]` -> the sequence and the one token that stands for it.
///
/// `batch` is how many there are, where another input already says so.
fn text(
    net: &mut Network,
    config: &Config,
    kin: Kin,
    batch: Option<Dim>,
) -> Result<[TensorId; 2], Error> {
    let default = if kin == Kin::Clip { 77 } else { 64 };
    let rows = config.size_or("max_position_embeddings", default)?;
    let hidden = config.size("hidden_size")?;
    let batch = batch.unwrap_or_else(|| net.symbol("batch", None, "dim 0 of input_ids"));
    let seq = net.symbol("seq", Some(rows), "dim 1 of input_ids");
    let ids = net.token_input("input_ids", &[batch, seq.clone()])?;
    let x = net.module("embeddings", "TextEmbeddings", |net| {
        let tokens = net.embedding("token_embedding", ids, config.size("vocab_size")?, hidden)?;
        let positions = net.table_of_positions("position_embedding", rows, &seq, hidden)?;
        net.add(tokens, positions)
    })?;
    // CLIP's texts are read from left to right, SigLIP's from both sides.
    let mask = if kin == Kin::Clip { Mask::causal() } else { Mask::Full };
    let layers = config.layers(&["num_hidden_layers"])?;
    let x = net.module("encoder", "Encoder", |net| {
        layer(config, kin, mask)?.stack(net, x, "layers", layers)
    })?;
    let x = net.norm("final_layer_norm", x, Norm::Layer)?;
    // One token of each sequence, the end of the text; which one does not change the cost.
    let last = net.first_token(x)?;
    match kin {
        Kin::Clip => Ok([x, last]),
        Kin::Siglip => {
            let width = config.optional("projection_size")?.unwrap_or(hidden);
            Ok([x, net.linear("head", last, width, Bias::Added)?])
        }
    }
}

fn patches(config: &Config, kin: Kin) -> Result<Patches, Error> {
    let patch = if kin == Kin::Clip { 32 } else { 16 };
    Ok(Patches {
        channels: config.size_or("num_channels", 3)?,
        image: sides(config, "image_size", 224)?,
        patch: sides(config, "patch_size", patch)?,
        hidden: config.size("hidden_size")?,
        name: "patch_embedding",
        bias: Bias::from(kin == Kin::Siglip),
    })
}

/// `pixel_values` -> the sequence and what stands for the image.
fn vision(net: &mut Network, config: &Config, kin: Kin) -> Result<[TensorId; 2], Error> {
    let patches = patches(config, kin)?;
    let hidden = patches.hidden;
    let pixels = patches.input(net, "pixel_values")?;
    let x = net.module("embeddings", "VisionEmbeddings", |net| {
        let mut x = patches.build(net, pixels)?;
        let mut count = patches.count()?;
        if kin == Kin::Clip {
            let class = net.parameter("class_embedding", &[hidden])?;
            x = net.in_front(&[(class, 1)], x)?;
            count += 1;
        }
        let positions =
            net.table_of_positions("position_embedding", count, &Dim::from(count), hidden)?;
        net.add(x, positions)
    })?;
    let x = if kin == Kin::Clip { net.norm("pre_layrnorm", x, Norm::Layer)? } else { x };
    let layers = config.layers(&["num_hidden_layers"])?;
    let x = net.module("encoder", "Encoder", |net| {
        layer(config, kin, Mask::Full)?.stack(net, x, "layers", layers)
    })?;
    match kin {
        Kin::Clip => {
            let first = net.first_token(x)?;
            Ok([x, net.norm("post_layernorm", first, Norm::Layer)?])
        }
        Kin::Siglip => {
            let x = net.norm("post_layernorm", x, Norm::Layer)?;
            if !config.flag_or("vision_use_head", true)? {
                return Ok([x, x]);
            }
            let pooled = net.module("head", "AttentionPooling", |net| pool(net, config, x))?;
            Ok([x, pooled])
        }
    }
}

/// A trained query that sees every patch (`SiglipMultiheadAttentionPoolingHead`).
fn pool(net: &mut Network, config: &Config, x: TensorId) -> Made {
    let (hidden, heads) = (net.width(x)?, config.size("num_attention_heads")?);
    let head_dim = CrossAttention::even(hidden, heads)?;
    let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
    let probe = net.parameter("probe", &[1, 1, hidden])?;
    let probe = net.expand(probe, &[batch.clone(), Dim::ONE, hidden.into()])?;
    let pooled =
        net.module("attention", "torch.nn.modules.activation.MultiheadAttention", |net| {
            // One weight for all three: its first rows are those of the queries.
            let weight = net.parameter("in_proj_weight", &[3 * hidden, hidden])?;
            let offset = net.parameter("in_proj_bias", &[3 * hidden])?;
            let mut part = |from: i64, to: i64, x: TensorId| {
                let rows = net.slice(weight, 0, from * hidden, to * hidden)?;
                let added = net.slice(offset, 0, from * hidden, to * hidden)?;
                let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
                net.apply("in_proj", "aten.linear.default", op, &[x, rows, added])
            };
            let query = part(0, 1, probe)?;
            let both = part(1, 3, x)?;
            let halves = net.split(both, &[hidden, hidden])?;
            let mut turned = |x: TensorId, length: Dim| {
                let apart =
                    net.reshape(x, &[batch.clone(), length, heads.into(), head_dim.into()])?;
                net.permute(apart, &[0, 2, 1, 3])
            };
            let operands = [
                turned(query, Dim::ONE)?,
                turned(halves[0], seq.clone())?,
                turned(halves[1], seq)?,
            ];
            let seen = net.attend(operands, Attention::new(Mask::Full), None)?;
            let merged = net.reshape(seen, &[batch, Dim::ONE, hidden.into()])?;
            net.linear("out_proj", merged, hidden, Bias::Added)
        })?;
    let inner = net.norm("layernorm", pooled, Norm::Layer)?;
    let dense = FeedForward::Dense(dense(config, Kin::Siglip)?);
    let fed = net.module("mlp", dense.class(), |net| dense.build(net, inner))?;
    let sum = net.add(pooled, fed)?;
    net.first_token(sum)
}

fn alone(
    config: &Config,
    request: &Request,
    class: &'static str,
    build: impl FnOnce(&mut Network) -> Result<Vec<TensorId>, Error>,
) -> Result<Graph, Error> {
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let results = net.module("", class, build)?;
    Ok(net.finish(&results))
}

fn clip_text(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["CLIPTextModel", "CLIPTextModelWithProjection"])?;
    alone(config, request, class, |net| {
        if class == "CLIPTextModel" {
            return Ok(text(net, config, Kin::Clip, None)?.to_vec());
        }
        let width = config.size_or("projection_dim", 512)?;
        let [x, last] =
            net.module("text_model", "CLIPTextModel", |net| text(net, config, Kin::Clip, None))?;
        Ok(vec![net.linear("text_projection", last, width, Bias::None)?, x])
    })
}

fn clip_vision(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["CLIPVisionModel", "CLIPVisionModelWithProjection"])?;
    alone(config, request, class, |net| {
        if class == "CLIPVisionModel" {
            return Ok(vision(net, config, Kin::Clip)?.to_vec());
        }
        let width = config.size_or("projection_dim", 512)?;
        let [x, pooled] =
            net.module("vision_model", "CLIPVisionModel", |net| vision(net, config, Kin::Clip))?;
        Ok(vec![net.linear("visual_projection", pooled, width, Bias::None)?, x])
    })
}

fn siglip_text(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["SiglipTextModel"])?;
    alone(config, request, class, |net| Ok(text(net, config, Kin::Siglip, None)?.to_vec()))
}

fn siglip_vision(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["SiglipVisionModel"])?;
    alone(config, request, class, |net| Ok(vision(net, config, Kin::Siglip)?.to_vec()))
}

fn clip(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["CLIPModel"])?;
    both(config, request, class, Kin::Clip)
}

fn siglip(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["SiglipModel"])?;
    both(config, request, class, Kin::Siglip)
}

/// As many texts as images, each compared with each.
fn both(config: &Config, request: &Request, class: &'static str, kin: Kin) -> Result<Graph, Error> {
    let part = |field: &str| {
        config.sub(field)?.ok_or_else(|| config.error(field, "is missing").remedy("add it"))
    };
    let (of_text, of_vision) = (part("text_config")?, part("vision_config")?);
    alone(config, request, class, |net| {
        let [_, mut image] =
            net.module("vision_model", "VisionModel", |net| vision(net, &of_vision, kin))?;
        let batch = Some(net.axis(image, 2));
        let [_, mut words] =
            net.module("text_model", "TextModel", |net| text(net, &of_text, kin, batch))?;
        if kin == Kin::Clip {
            let width = config.size_or("projection_dim", 512)?;
            image = net.linear("visual_projection", image, width, Bias::None)?;
            words = net.linear("text_projection", words, width, Bias::None)?;
        }
        let (image, words) = (unit(net, image)?, unit(net, words)?);
        let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
        let mut logits = net.apply("logits", "aten.matmul.default", op, &[words, image])?;
        let scalar: &[i64] = if kin == Kin::Clip { &[] } else { &[1] };
        let scale = net.parameter("logit_scale", scalar)?;
        let scale =
            net.apply("exp", "aten.exp.default", Op::Elementwise(Function::Exp), &[scale])?;
        logits = net.mul(logits, scale)?;
        if kin == Kin::Siglip {
            let offset = net.parameter("logit_bias", scalar)?;
            logits = net.add(logits, offset)?;
        }
        Ok(vec![logits, words, image])
    })
}

/// Each row divided by its length.
fn unit(net: &mut Network, x: TensorId) -> Made {
    let keep = crate::graph::Keep::Axes;
    let norm = Reduce { function: Reduction::Norm2, axes: vec![1], keep };
    let length = net.apply("norm", "aten.linalg_vector_norm.default", Op::Reduce(norm), &[x])?;
    net.apply("div", "aten.div.Tensor", Op::Elementwise(Function::Div), &[x, length])
}
