//! Vision transformers: ViT (arXiv 2010.11929), DeiT (2012.12877) and DINOv2 (2304.07193).

use super::super::config::Config;
use super::super::described::{class_of, function, labels, sides};
use super::super::layer::{CrossAttention, Dense, Gating};
use super::super::network::{Bias, Network, Norm};
use super::super::vision::{EncoderLayer, Patches};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Function, Graph, Mask, TensorId};

pub(super) const TYPES: &[(&str, Build)] = &[
    ("vit", vit),
    ("deit", deit),
    ("dinov2", dinov2),
    ("dinov2_with_registers", dinov2_with_registers),
];

/// The parts of one of these models.
struct Tower {
    patches: Patches,
    /// Trained tokens in front of the patches: name, shape without the width, how many.
    tokens: Vec<(&'static str, i64)>,
    /// Trained embeddings that only masked training reads.
    mask_token: bool,
    /// Whether positions are added before the registers are put in.
    registers: Option<i64>,
    layer: EncoderLayer,
    layers: i64,
    stack: &'static str,
}

impl Tower {
    /// `pixel_values` -> `[batch, tokens, hidden]`, normalised.
    fn build(&self, net: &mut Network, pixels: TensorId) -> Result<TensorId, Error> {
        let hidden = self.patches.hidden;
        let x = net.module("embeddings", "Embeddings", |net| {
            let mut tokens = Vec::new();
            for (name, count) in &self.tokens {
                tokens.push((net.parameter(name, &[1, *count, hidden])?, *count));
            }
            if self.mask_token {
                net.parameter("mask_token", &[1, hidden])?;
            }
            let patches = net.module("patch_embeddings", "PatchEmbeddings", |net| {
                self.patches.build(net, pixels)
            })?;
            let x = net.in_front(&tokens, patches)?;
            let count = self.patches.count()? + self.tokens.len() as i64;
            let positions = net.parameter("position_embeddings", &[1, count, hidden])?;
            let x = net.add(x, positions)?;
            match self.registers {
                Some(registers) => self.with_registers(net, x, registers),
                None => Ok(x),
            }
        })?;
        let x = self.layer.stack(net, x, self.stack, self.layers)?;
        net.norm("layernorm", x, Norm::Layer)
    }

    /// Registers stand between the class token and the patches, without positions (arXiv
    /// 2309.16588).
    fn with_registers(
        &self,
        net: &mut Network,
        x: TensorId,
        registers: i64,
    ) -> Result<TensorId, Error> {
        let hidden = self.patches.hidden;
        let trained = net.parameter("register_tokens", &[1, registers, hidden])?;
        let class = net.slice(x, 1, 0, 1)?;
        let patches = net.slice(x, 1, 1, 1 + self.patches.count()?)?;
        let rest = net.in_front(&[(trained, registers)], patches)?;
        net.concat(&[class, rest], 1)
    }
}

fn patches(config: &Config, image: i64, patch: i64) -> Result<Patches, Error> {
    Ok(Patches {
        channels: config.size_or("num_channels", 3)?,
        image: sides(config, "image_size", image)?,
        patch: sides(config, "patch_size", patch)?,
        hidden: config.size("hidden_size")?,
        name: "projection",
        bias: Bias::Added,
    })
}

fn layer(config: &Config, norms: [&'static str; 2], dense: Dense) -> Result<EncoderLayer, Error> {
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let bias = Bias::from(config.flag_or("qkv_bias", true)?);
    let attention = CrossAttention {
        class: "Attention",
        heads,
        head_dim: CrossAttention::even(hidden, heads)?,
        projections: [("q_proj", bias), ("k_proj", bias), ("v_proj", bias)],
        output: ("o_proj", Bias::Added),
        mask: Mask::Full,
    };
    Ok(EncoderLayer {
        class: "Layer",
        norms,
        attention: ("attention", attention),
        scales: None,
        dense,
    })
}

fn plain(config: &Config, width: i64) -> Result<Dense, Error> {
    Ok(Dense {
        class: "MLP",
        width,
        function: function(config, "hidden_act", "gelu")?,
        gating: Gating::Plain(["fc1", "fc2"]),
        bias: Bias::Added,
    })
}

fn vit_tower(config: &Config, tokens: &[&'static str]) -> Result<Tower, Error> {
    let dense = plain(config, config.size("intermediate_size")?)?;
    Ok(Tower {
        patches: patches(config, 224, 16)?,
        tokens: tokens.iter().map(|name| (*name, 1)).collect(),
        mask_token: false,
        registers: None,
        layer: layer(config, ["layernorm_before", "layernorm_after"], dense)?,
        layers: config.layers(&["num_hidden_layers"])?,
        stack: "layers",
    })
}

/// Heads of a classifier by name, or of the bare model its pooler.
enum Head {
    /// Linear layers of the class token; where there are two, of the first two tokens.
    Classifiers(&'static [&'static str]),
    /// A linear layer and a tanh (another function where the config says).
    Pooler,
}

fn image_model(
    config: &Config,
    request: &Request,
    (class, prefix): (&'static str, &str),
    tower: &Tower,
    head: &Head,
) -> Result<Graph, Error> {
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let hidden = tower.patches.hidden;
    let outputs = net.module("", class, |net| {
        let pixels = tower.patches.input(net, "pixel_values")?;
        let prefix = if let Head::Classifiers(_) = head { prefix } else { "" };
        let x = net.module(prefix, "Model", |net| tower.build(net, pixels))?;
        match head {
            Head::Classifiers(names) => {
                let mut results = Vec::new();
                for (token, name) in (0..).zip(*names) {
                    let (batch, width) = (net.axis(x, 3), net.width(x)?);
                    let cut = net.slice(x, 1, token, token + 1)?;
                    let flat = net.reshape(cut, &[batch, width.into()])?;
                    results.push(net.linear(name, flat, labels(config)?, Bias::Added)?);
                }
                Ok(results)
            }
            Head::Pooler => {
                let width = config.optional("pooler_output_size")?.unwrap_or(hidden);
                let bend = if config.has("pooler_act") {
                    function(config, "pooler_act", "tanh")?
                } else {
                    Function::Tanh
                };
                let pooled = net.module("pooler", "Pooler", |net| {
                    let first = net.first_token(x)?;
                    let dense = net.linear("dense", first, width, Bias::Added)?;
                    net.each(bend, &[dense])
                })?;
                Ok(vec![x, pooled])
            }
        }
    })?;
    Ok(net.finish(&outputs))
}

fn vit(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["ViTForImageClassification", "ViTModel"])?;
    let tower = vit_tower(config, &["cls_token"])?;
    let head = match class {
        "ViTModel" => Head::Pooler,
        _ => Head::Classifiers(&["classifier"]),
    };
    image_model(config, request, (class, "vit"), &tower, &head)
}

fn deit(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes =
        ["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher", "DeiTModel"];
    let class = class_of(config, &classes)?;
    let tower = vit_tower(config, &["cls_token", "distillation_token"])?;
    let head = match class {
        "DeiTModel" => Head::Pooler,
        "DeiTForImageClassificationWithTeacher" => {
            Head::Classifiers(&["cls_classifier", "distillation_classifier"])
        }
        _ => Head::Classifiers(&["classifier"]),
    };
    image_model(config, request, (class, "deit"), &tower, &head)
}

fn dinov2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["Dinov2Model", "Dinov2ForImageClassification"])?;
    dino(config, request, class, None)
}

fn dinov2_with_registers(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"];
    let class = class_of(config, &classes)?;
    dino(config, request, class, Some(config.size_or("num_register_tokens", 4)?))
}

fn dino(
    config: &Config,
    request: &Request,
    class: &'static str,
    registers: Option<i64>,
) -> Result<Graph, Error> {
    let width = wide(config)?;
    let dense = match config.flag_or("use_swiglu_ffn", false)? {
        // Two thirds of the width, rounded up to a multiple of 8 (modeling_dinov2.py).
        true => {
            Dense { width: (width * 2 / 3 + 7) / 8 * 8, bias: Bias::Added, ..Dense::llama(width) }
        }
        false => plain(config, width)?,
    };
    let scales = Some(["layer_scale1", "layer_scale2"]);
    let tower = Tower {
        patches: patches(config, 224, 14)?,
        tokens: vec![("cls_token", 1)],
        mask_token: config.flag("use_mask_token")?.unwrap_or(true),
        registers,
        layer: EncoderLayer { scales, ..layer(config, ["norm1", "norm2"], dense)? },
        layers: config.layers(&["num_hidden_layers"])?,
        stack: "encoder.layer",
    };
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let is_classifier = class.ends_with("Classification");
    let prefix = match (is_classifier, registers) {
        (false, _) => "",
        (true, None) => "dinov2",
        (true, Some(_)) => "dinov2_with_registers",
    };
    let result = net.module("", class, |net| {
        let pixels = tower.patches.input(net, "pixel_values")?;
        let x = net.module(prefix, "Model", |net| tower.build(net, pixels))?;
        if !is_classifier {
            return Ok(x);
        }
        // The class token beside the mean of the patches; registers are left out.
        let class_token = net.first_token(x)?;
        let first = 1 + registers.unwrap_or(0);
        let patches = net.slice(x, 1, first, first + tower.patches.count()?)?;
        let mean = net.mean_of_positions(patches)?;
        let both = net.concat(&[class_token, mean], 1)?;
        net.linear("classifier", both, labels(config)?, Bias::Added)
    })?;
    Ok(net.finish(&[result]))
}

/// `int(hidden_size * mlp_ratio)`.
fn wide(config: &Config) -> Result<i64, Error> {
    let hidden = config.size("hidden_size")?;
    let ratio = match config.number("mlp_ratio")? {
        Some(ratio) if 0.0 < ratio && ratio <= 64.0 => ratio,
        Some(ratio) => {
            return Err(config.error("mlp_ratio", format!("is {ratio}; it must be 0 to 64")));
        }
        None => {
            config.assume("mlp_ratio", 4);
            4.0
        }
    };
    // A width of 2^31 times 64 is far below 2^53, so the product is rounded as Python rounds it.
    Ok(((hidden as f64 * ratio) as i64).max(1))
}
