//! `AutoencoderKL`: between images and the latents that Stable Diffusion works on (arXiv
//! 2112.10752), as diffusers builds it (`models/autoencoders/vae.py`).
//!
//! Besides the fields of diffusers, `part` may be `encoder` or `decoder`, for that half alone.

use super::super::config::Config;
use super::super::described::sides;
use super::super::family::Request;
use super::super::layer::{CrossAttention, Source};
use super::super::network::{Bias, Conv, Made, Network};
use super::{block_channels, check_layers, only};
use crate::error::Error;
use crate::graph::{Dim, Function, Graph, Mask, Op, TensorId};

/// The autoencoder, described.
struct Autoencoder {
    image: [i64; 2],
    in_channels: i64,
    out_channels: i64,
    latent_channels: i64,
    channels: Vec<i64>,
    layers: i64,
    groups: i64,
    has_attention: bool,
    /// 1 x 1 convolutions on the latents, after the encoder and before the decoder.
    has_quantisers: [bool; 2],
}

/// Which half runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Encoder,
    Decoder,
}

impl Autoencoder {
    fn read(config: &Config) -> Result<Autoencoder, Error> {
        only(config, "act_fn", &["\"silu\"", "\"swish\""])?;
        let channels = block_channels(config, &[64])?;
        for (field, only) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let types = config.texts(field)?.unwrap_or_else(|| vec![only; channels.len()]);
            if types.len() != channels.len() || types.iter().any(|found| *found != only) {
                let what = format!("is not {} times `{only}`; others have no rule", channels.len());
                return Err(config.error(field, what));
            }
        }
        let layers = config.layers(&["layers_per_block"])?;
        check_layers(config, "layers_per_block", channels.iter().map(|_| layers))?;
        Ok(Autoencoder {
            image: sides(config, "sample_size", 32)?,
            in_channels: config.size_or("in_channels", 3)?,
            out_channels: config.size_or("out_channels", 3)?,
            latent_channels: config.size_or("latent_channels", 4)?,
            channels,
            layers,
            groups: config.size_or("norm_num_groups", 32)?,
            has_attention: config.flag("mid_block_add_attention")?.unwrap_or(true),
            has_quantisers: [
                config.flag("use_quant_conv")?.unwrap_or(true),
                config.flag("use_post_quant_conv")?.unwrap_or(true),
            ],
        })
    }

    fn widest(&self) -> i64 {
        self.channels.last().copied().unwrap_or(1)
    }

    fn encode(&self, net: &mut Network, image: TensorId) -> Made {
        let moments = 2 * self.latent_channels;
        let x = net.module("encoder", "Encoder", |net| {
            let mut x = net.conv3("conv_in", image, self.channels[0])?;
            for (at, channels) in self.channels.iter().enumerate() {
                let name = format!("down_blocks.{at}");
                x = net.module(&name, "DownEncoderBlock2D", |net| {
                    let x = self.resnets(net, x, *channels, self.layers)?;
                    if at + 1 == self.channels.len() {
                        return Ok(x);
                    }
                    net.module("downsamplers.0", "Downsample2D", |net| {
                        // A row below and a column to the right.
                        let (none, one) = (Dim::ZERO, Dim::ONE);
                        let before = vec![none.clone(); 4];
                        let after = vec![none.clone(), none, one.clone(), one];
                        let pad = Op::Pad { before, after };
                        let padded = net.apply("pad", "aten.pad.default", pad, &[x])?;
                        let conv = Conv::square(*channels, 3, 2, 0, Bias::Added);
                        net.convolution("conv", padded, &conv)
                    })
                })?;
            }
            let x = self.mid(net, x)?;
            self.out(net, x, moments)
        })?;
        if self.has_quantisers[0] { net.conv1("quant_conv", x, moments) } else { Ok(x) }
    }

    fn decode(&self, net: &mut Network, latents: TensorId) -> Made {
        let x = match self.has_quantisers[1] {
            true => net.conv1("post_quant_conv", latents, self.latent_channels)?,
            false => latents,
        };
        net.module("decoder", "Decoder", |net| {
            let x = net.conv3("conv_in", x, self.widest())?;
            let mut x = self.mid(net, x)?;
            for (at, channels) in self.channels.iter().rev().enumerate() {
                let name = format!("up_blocks.{at}");
                x = net.module(&name, "UpDecoderBlock2D", |net| {
                    let x = self.resnets(net, x, *channels, self.layers + 1)?;
                    match at + 1 == self.channels.len() {
                        true => Ok(x),
                        false => net.upsampled("upsamplers.0", x, None),
                    }
                })?;
            }
            self.out(net, x, self.out_channels)
        })
    }

    fn resnets(&self, net: &mut Network, x: TensorId, channels: i64, layers: i64) -> Made {
        let mut x = x;
        for idx in 0..layers {
            x = net.resnet(&format!("resnets.{idx}"), x, (channels, self.groups), None)?;
        }
        Ok(x)
    }

    fn out(&self, net: &mut Network, x: TensorId, channels: i64) -> Made {
        let normed = net.group_norm("conv_norm_out", x, self.groups)?;
        let bent = net.each(Function::Silu, &[normed])?;
        net.conv3("conv_out", bent, channels)
    }

    fn mid(&self, net: &mut Network, x: TensorId) -> Made {
        let sizes = (self.widest(), self.groups);
        net.module("mid_block", "UNetMidBlock2D", |net| {
            let mut x = net.resnet("resnets.0", x, sizes, None)?;
            if self.has_attention {
                x = net.module("attentions.0", "Attention", |net| self.attend(net, x))?;
            }
            net.resnet("resnets.1", x, sizes, None)
        })
    }

    /// One head over all pixels.
    fn attend(&self, net: &mut Network, image: TensorId) -> Made {
        let bias = Bias::Added;
        let attention = CrossAttention {
            class: "Attention",
            heads: 1,
            head_dim: self.widest(),
            projections: [("to_q", bias), ("to_k", bias), ("to_v", bias)],
            output: ("to_out.0", bias),
            mask: Mask::Full,
        };
        let normed = net.group_norm("group_norm", image, self.groups)?;
        let flat = net.flattened(normed)?;
        let seen = attention.build(net, flat, &Source::Itself, None)?;
        let back = net.unflattened(seen, image)?;
        let sum = net.add(back, image)?;
        net.apply("div", "aten.div.Tensor", Op::Elementwise(Function::Div), &[sum])
    }

    /// `[batch, channels, height, width]`; each block but the last halves the height and width.
    fn input(&self, net: &mut Network, part: Part) -> Made {
        let batch = net.symbol("batch", None, "dim 0 of sample");
        let halvings = self.channels.len() - 1;
        let (channels, [height, width]) = match part {
            Part::Whole | Part::Encoder => (self.in_channels, self.image),
            Part::Decoder => (self.latent_channels, self.image.map(|side| side >> halvings)),
        };
        if height < 1 || width < 1 {
            let [height, width] = self.image;
            let what = format!("{height} x {width} cannot be halved {halvings} times");
            return Err(Error::new(format!("an image of {what}")));
        }
        let format = net.format();
        net.input("sample", &[batch, channels.into(), height.into(), width.into()], format)
    }
}

pub(super) fn build(config: &Config, request: &Request) -> Result<Graph, Error> {
    only(config, "part", &["\"encoder\"", "\"decoder\""])?;
    let part = match config.text("part")? {
        Some("encoder") => Part::Encoder,
        Some(_) => Part::Decoder,
        None => Part::Whole,
    };
    let model = Autoencoder::read(config)?;
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let result = net.module("", "AutoencoderKL", |net| {
        let input = model.input(net, part)?;
        match part {
            Part::Encoder => model.encode(net, input),
            Part::Decoder => model.decode(net, input),
            Part::Whole => {
                let moments = model.encode(net, input)?;
                // The mean of the latents; their variance is not drawn from.
                let mean = net.slice(moments, 1, 0, model.latent_channels)?;
                model.decode(net, mean)
            }
        }
    })?;
    Ok(net.finish(&[result]))
}
