//! `UNet2DConditionModel`: the U-Net of Stable Diffusion 1, 2 and XL (arXiv 2112.10752,
//! 2307.01952), as diffusers builds it (`models/unets/unet_2d_condition.py`).

use super::super::config::Config;
use super::super::described::sides;
use super::super::family::Request;
use super::super::layer::{CrossAttention, Source};
use super::super::network::{Bias, Conv, Made, Network, Norm};
use super::{block_channels, check_layers, only, per_block};
use crate::error::Error;
use crate::graph::{Dim, Function, Graph, Mask, TensorId};

/// What is not built here; each field with what it may be, as JSON.
const VARIANTS: &[(&str, &[&str])] = &[
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("attention_type", &["\"default\""]),
    ("center_input_sample", &["false"]),
    ("class_embed_type", &[]),
    ("class_embeddings_concat", &["false"]),
    ("cross_attention_norm", &[]),
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim", &[]),
    ("encoder_hid_dim_type", &[]),
    ("mid_block_only_cross_attention", &["false"]),
    ("mid_block_type", &["\"UNetMidBlock2DCrossAttn\""]),
    ("num_attention_heads", &[]),
    ("num_class_embeds", &[]),
    ("only_cross_attention", &["false"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("reverse_transformer_layers_per_block", &[]),
    ("time_cond_proj_dim", &[]),
    ("time_embedding_act_fn", &[]),
    ("time_embedding_type", &["\"positional\""]),
    ("timestep_post_act", &[]),
];

/// One resolution, on the way down or up.
#[derive(Clone, Copy)]
struct Block {
    channels: i64,
    layers: i64,
    /// Heads, width of the text, and transformer layers behind each residual block.
    attention: Option<Attended>,
}

#[derive(Clone, Copy)]
struct Attended {
    heads: i64,
    text_width: i64,
    layers: i64,
}

/// The network, described.
struct Unet {
    input: [i64; 2],
    in_channels: i64,
    out_channels: i64,
    /// Kernels of the first and the last convolution.
    kernels: [i64; 2],
    groups: i64,
    down: Vec<Block>,
    up: Vec<Block>,
    mid: Block,
    padding: i64,
    linear: Projection,
    time_width: i64,
    /// SDXL: width per size and of all that is added to the time.
    added: Option<[i64; 2]>,
}

/// How a transformer's input and output are projected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Projection {
    Convolution,
    Linear,
}

impl Unet {
    fn read(config: &Config) -> Result<Unet, Error> {
        for (field, allowed) in VARIANTS {
            only(config, field, allowed)?;
        }
        let channels = block_channels(config, &[320, 640, 1280, 1280])?;
        let n_blocks = channels.len();
        let heads = per_block(config, "attention_head_dim", n_blocks, 8)?;
        let text_width = per_block(config, "cross_attention_dim", n_blocks, 1280)?;
        let layers = per_block(config, "layers_per_block", n_blocks, 2)?;
        let depths = per_block(config, "transformer_layers_per_block", n_blocks, 1)?;
        let pairs = layers.iter().zip(&depths);
        let of_each = pairs.map(|(layers, depth)| layers.saturating_mul(depth.saturating_add(1)));
        check_layers(config, "layers_per_block", of_each)?;
        let block = |at: usize, extra: i64, is_attended: bool| {
            let attended =
                Attended { heads: heads[at], text_width: text_width[at], layers: depths[at] };
            Block {
                channels: channels[at],
                layers: layers[at] + extra,
                attention: is_attended.then_some(attended),
            }
        };
        let types = |field, plain: &str, attended: &str| {
            attended_blocks(config, field, n_blocks, [plain, attended])
        };
        let down = types("down_block_types", "DownBlock2D", "CrossAttnDownBlock2D")?;
        let up = types("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D")?;
        let is_linear = config.flag("use_linear_projection")?.unwrap_or(false);
        let added = match config.text("addition_embed_type")? {
            None => None,
            Some("text_time") => Some([
                config.size("addition_time_embed_dim")?,
                config.size("projection_class_embeddings_input_dim")?,
            ]),
            Some(other) => {
                let shown: String = other.chars().take(48).collect();
                let what = format!("is `{shown}`, which has no rule here");
                return Err(config.error("addition_embed_type", what));
            }
        };
        if !config.has("sample_size") {
            return Err(config.error("sample_size", "is missing").remedy("add the latents' size"));
        }
        let last = n_blocks - 1;
        Ok(Unet {
            input: sides(config, "sample_size", 1)?,
            in_channels: config.size_or("in_channels", 4)?,
            out_channels: config.size_or("out_channels", 4)?,
            kernels: [config.size_or("conv_in_kernel", 3)?, config.size_or("conv_out_kernel", 3)?],
            groups: config.size_or("norm_num_groups", 32)?,
            down: (0..n_blocks).map(|at| block(at, 0, down[at])).collect(),
            up: (0..n_blocks).map(|at| block(last - at, 1, up[at])).collect(),
            mid: block(last, 0, true),
            padding: config.count_or("downsample_padding", 1)?,
            linear: if is_linear { Projection::Linear } else { Projection::Convolution },
            time_width: config.optional("time_embedding_dim")?.unwrap_or(4 * channels[0]),
            added,
        })
    }

    fn build(&self, net: &mut Network) -> Made {
        let batch = net.symbol("batch", None, "dim 0 of sample");
        let text_seq = net.symbol("text_seq", None, "dim 1 of encoder_hidden_states");
        let [height, width] = self.input;
        let format = net.format();
        let shape = [batch.clone(), self.in_channels.into(), height.into(), width.into()];
        let sample = net.input("sample", &shape, format)?;
        let text = self.text(net, &batch, &text_seq)?;
        let time = self.time(net, &batch)?;
        let first = &self.down[0];
        let kernel = |at: usize, out: i64| {
            let kernel = self.kernels[at];
            Conv::square(out, kernel, 1, (kernel - 1) / 2, Bias::Added)
        };
        let mut x = net.convolution("conv_in", sample, &kernel(0, first.channels))?;
        let mut kept = vec![x];
        for (at, block) in self.down.iter().enumerate() {
            let name = format!("down_blocks.{at}");
            x = net.module(&name, "DownBlock2D", |net| {
                let mut x = x;
                for idx in 0..block.layers {
                    x = self.layer(net, x, block, idx, [time, text])?;
                    kept.push(x);
                }
                if at + 1 < self.down.len() {
                    let conv = Conv::square(block.channels, 3, 2, self.padding, Bias::Added);
                    x = net.convolution("downsamplers.0.conv", x, &conv)?;
                    kept.push(x);
                }
                Ok(x)
            })?;
        }
        x = net.module("mid_block", "UNetMidBlock2DCrossAttn", |net| {
            let (channels, groups) = (self.mid.channels, self.groups);
            let x = net.resnet("resnets.0", x, (channels, groups), Some(time))?;
            let x = match self.mid.attention {
                Some(attended) => self.transformer(net, "attentions.0", x, attended, text)?,
                None => x,
            };
            net.resnet("resnets.1", x, (channels, groups), Some(time))
        })?;
        for (at, block) in self.up.iter().enumerate() {
            let name = format!("up_blocks.{at}");
            x = net.module(&name, "UpBlock2D", |net| {
                let mut x = x;
                for idx in 0..block.layers {
                    let skip = kept.pop().ok_or_else(|| Error::new("more layers up than down"))?;
                    x = net.concat(&[x, skip], 1)?;
                    x = self.layer(net, x, block, idx, [time, text])?;
                }
                match kept.last() {
                    // The size of what it is joined with, should an odd one have been halved.
                    Some(next) if at + 1 < self.up.len() => {
                        net.upsampled("upsamplers.0", x, Some(*next))
                    }
                    Some(_) | None => Ok(x),
                }
            })?;
        }
        let normed = net.group_norm("conv_norm_out", x, self.groups)?;
        let bent = net.each(Function::Silu, &[normed])?;
        net.convolution("conv_out", bent, &kernel(1, self.out_channels))
    }

    /// What the text encoder made of the prompt.
    fn text(&self, net: &mut Network, batch: &Dim, text_seq: &Dim) -> Made {
        let all = self.down.iter().chain(&self.up).filter_map(|block| block.attention);
        let mut widths = all.map(|attended| attended.text_width);
        let width = widths.next().or(self.mid.attention.map(|mid| mid.text_width)).unwrap_or(1);
        if widths.any(|other| other != width) {
            return Err(Error::new("texts of several widths have no rule here"));
        }
        let format = net.format();
        let shape = [batch.clone(), text_seq.clone(), width.into()];
        net.input("encoder_hidden_states", &shape, format)
    }

    /// The embedding of the time, with SDXL's sizes and pooled text added to it.
    fn time(&self, net: &mut Network, batch: &Dim) -> Made {
        let times = net.integers("timestep", batch)?;
        let waves = net.time_waves(times, self.down[0].channels)?;
        let names = ["linear_1", "linear_2"];
        let time = net.time_layers("time_embedding", waves, self.time_width, names)?;
        let Some([per_size, all]) = self.added else { return Ok(time) };
        // Original size, corner of the crop and target size: two numbers each.
        let sizes = 6 * per_size;
        if all <= sizes {
            return Err(Error::new(format!("{all} elements do not hold 6 sizes of {per_size}")));
        }
        let format = net.format();
        let flat = net.integers("time_ids", &(batch * &Dim::from(6)))?;
        let waves = net.time_waves(flat, per_size)?;
        let waves = net.reshape(waves, &[batch.clone(), sizes.into()])?;
        let pooled = net.input("text_embeds", &[batch.clone(), (all - sizes).into()], format)?;
        let joined = net.concat(&[pooled, waves], 1)?;
        let added = net.time_layers("add_embedding", joined, self.time_width, names)?;
        net.add(time, added)
    }

    fn layer(
        &self,
        net: &mut Network,
        x: TensorId,
        block: &Block,
        idx: i64,
        [time, text]: [TensorId; 2],
    ) -> Made {
        let sizes = (block.channels, self.groups);
        let x = net.resnet(&format!("resnets.{idx}"), x, sizes, Some(time))?;
        match block.attention {
            Some(attended) => {
                self.transformer(net, &format!("attentions.{idx}"), x, attended, text)
            }
            None => Ok(x),
        }
    }

    /// `Transformer2DModel`: every pixel is a token.
    fn transformer(
        &self,
        net: &mut Network,
        name: &str,
        image: TensorId,
        attended: Attended,
        text: TensorId,
    ) -> Made {
        let channels = net.channels(image)?;
        let head_dim = CrossAttention::even(channels, attended.heads)?;
        let attention = CrossAttention {
            class: "Attention",
            heads: attended.heads,
            head_dim,
            projections: [("to_q", Bias::None), ("to_k", Bias::None), ("to_v", Bias::None)],
            output: ("to_out.0", Bias::Added),
            mask: Mask::Full,
        };
        net.module(name, "Transformer2DModel", |net| {
            let normed = net.group_norm("norm", image, self.groups)?;
            let mut x = match self.linear {
                Projection::Convolution => {
                    let inner = net.conv1("proj_in", normed, channels)?;
                    net.flattened(inner)?
                }
                Projection::Linear => {
                    let flat = net.flattened(normed)?;
                    net.linear("proj_in", flat, channels, Bias::Added)?
                }
            };
            for idx in 0..attended.layers {
                let name = format!("transformer_blocks.{idx}");
                x = net.module(&name, "BasicTransformerBlock", |net| {
                    basic_block(net, x, &attention, text)
                })?;
            }
            let back = match self.linear {
                Projection::Convolution => {
                    let inner = net.unflattened(x, image)?;
                    net.conv1("proj_out", inner, channels)?
                }
                Projection::Linear => {
                    let inner = net.linear("proj_out", x, channels, Bias::Added)?;
                    net.unflattened(inner, image)?
                }
            };
            net.add(back, image)
        })
    }
}

/// Self-attention, attention on the text, and a feed-forward network with a gate.
fn basic_block(net: &mut Network, x: TensorId, attention: &CrossAttention, text: TensorId) -> Made {
    let channels = net.width(x)?;
    let mut x = x;
    for (norm, name, source) in
        [("norm1", "attn1", Source::Itself), ("norm2", "attn2", Source::Other(text))]
    {
        let inner = net.norm(norm, x, Norm::Layer)?;
        let seen =
            net.module(name, attention.class, |net| attention.build(net, inner, &source, None))?;
        x = net.add(seen, x)?;
    }
    let inner = net.norm("norm3", x, Norm::Layer)?;
    let fed = net.module("ff", "FeedForward", |net| {
        let both = net.linear("net.0.proj", inner, 8 * channels, Bias::Added)?;
        let halves = net.split(both, &[4 * channels, 4 * channels])?;
        let gate = net.each(Function::GeluErf, &[halves[1]])?;
        let product = net.mul(halves[0], gate)?;
        net.linear("net.2", product, channels, Bias::Added)
    })?;
    net.add(fed, x)
}

/// Which of the blocks attend to the text.
fn attended_blocks(
    config: &Config,
    field: &str,
    n_blocks: usize,
    [plain, attended]: [&str; 2],
) -> Result<Vec<bool>, Error> {
    let Some(types) = config.texts(field)? else {
        return Err(config.error(field, "is missing").remedy("add it; nothing is assumed for it"));
    };
    if types.len() != n_blocks {
        let n_types = types.len();
        return Err(config.error(field, format!("has {n_types} entries for {n_blocks} blocks")));
    }
    let is_attended = |name: &&str| match *name {
        name if name == attended => Ok(true),
        name if name == plain => Ok(false),
        other => {
            let shown: String = other.chars().take(48).collect();
            Err(config.error(field, format!("has `{shown}`, which has no rule here")))
        }
    };
    types.iter().map(is_attended).collect()
}

pub(super) fn build(config: &Config, request: &Request) -> Result<Graph, Error> {
    let unet = Unet::read(config)?;
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let result = net.module("", "UNet2DConditionModel", |net| unet.build(net))?;
    Ok(net.finish(&[result]))
}
