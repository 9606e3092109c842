//! Diffusion models, by the `_class_name` of a diffusers config: the network that removes noise
//! (a U-Net or a transformer), and the autoencoder between images and latents.
//!
//! Counts are those of one step; a picture takes as many as its schedule has, and twice that with
//! classifier-free guidance (arXiv 2207.12598), which is a batch of two.
//!
//! Not here: the encoders of the text, which are models of their own (CLIP, T5).

mod dit;
mod unet;
mod vae;

use super::config::Config;
use super::family::{Build, Request};
use super::network::{Bias, Conv, Made, Network};
use crate::error::Error;
use crate::graph::{
    Dim, Function, Graph, Kind, Op, Shape, Stated, StatedGradient, TensorId, TensorType,
};

/// Every class known, with its builder.
const CLASSES: &[(&str, Build)] = &[
    ("UNet2DConditionModel", unet::build),
    ("AutoencoderKL", vae::build),
    ("DiTTransformer2DModel", dit::diffusers),
    ("DiT", dit::original),
];

/// The graph of a config with this `_class_name`.
pub(super) fn build(config: &Config, class: &str, request: &Request) -> Result<Graph, Error> {
    if let Some((_, build)) = CLASSES.iter().find(|(known, _)| *known == class) {
        return build(config, request);
    }
    let shown: String = class.chars().take(64).collect();
    let known: Vec<&str> = CLASSES.iter().map(|(known, _)| *known).collect();
    Err(config
        .error("_class_name", format!("is `{shown}`, which has no rule here"))
        .remedy(format!("known: {}", known.join(", "))))
}

/// Refuses a variant that is not built here: a field that is there and none of the values allowed,
/// each as JSON.
fn only(config: &Config, field: &str, allowed: &[&str]) -> Result<(), Error> {
    let Some(value) = config.get(field) else { return Ok(()) };
    let text = value.to_string();
    if allowed.contains(&text.as_str()) {
        return Ok(());
    }
    let shown: String = text.chars().take(48).collect();
    Err(config.error(field, format!("is {shown}, which has no rule here")))
}

/// More layers than this, all blocks together, are damage or attack.
const MAX_LAYERS: i64 = 4096;

/// Refuses more layers than any network has.
fn check_layers(
    config: &Config,
    field: &str,
    layers: impl Iterator<Item = i64>,
) -> Result<(), Error> {
    let all = layers.fold(0i64, i64::saturating_add);
    if all <= MAX_LAYERS {
        return Ok(());
    }
    Err(config.error(field, format!("makes {all} layers; at most {MAX_LAYERS} are built")))
}

/// One size per block: a list of them, or one for all.
fn per_block(config: &Config, field: &str, blocks: usize, default: i64) -> Result<Vec<i64>, Error> {
    if !config.get(field).is_some_and(|value| value.is_array()) {
        return Ok(vec![config.size_or(field, default)?; blocks]);
    }
    let sizes = config.sizes(field)?.unwrap_or_default();
    if sizes.len() != blocks || sizes.contains(&0) {
        return Err(config.error(field, format!("is no list of {blocks} sizes")));
    }
    Ok(sizes)
}

/// Channels of each block; every one must be a multiple of the groups of a norm.
fn block_channels(config: &Config, default: &[i64]) -> Result<Vec<i64>, Error> {
    /// The deepest have seven.
    const MAX_BLOCKS: usize = 64;
    match config.sizes("block_out_channels")? {
        Some(sizes) if sizes.is_empty() || sizes.contains(&0) || MAX_BLOCKS < sizes.len() => {
            Err(config.error("block_out_channels", "is no list of 1 to 64 sizes"))
        }
        Some(sizes) => Ok(sizes),
        None => {
            config.assume("block_out_channels", format!("{default:?}"));
            Ok(default.to_vec())
        }
    }
}

impl Network {
    /// Sines and cosines of a time at `channels / 2` frequencies (`get_timestep_embedding`): the
    /// frequencies are a multiplication, a division and an exp each, and every one of them is
    /// multiplied by each time and by a scale.
    fn time_waves(&mut self, times: TensorId, channels: i64) -> Made {
        let (batch, half) = (self.axis(times, 1), Dim::from(channels / 2));
        let waves = &batch * &half;
        let result = self.tensor_type(&[batch, channels.into()]);
        let two = Dim::from(2);
        let stated = Stated {
            other: &half + &(&waves * &two),
            transcendental: &(&half * &two) + &(&waves * &two),
            ..Stated::new("timestep_embedding", Kind::Elementwise, vec![result])
        };
        let results = self.stated(stated, StatedGradient::Nothing, &[times])?;
        results.first().copied().ok_or_else(|| Error::new("no result"))
    }

    /// Two linear layers with a SiLU between them.
    fn time_layers(&mut self, name: &str, x: TensorId, width: i64, names: [&str; 2]) -> Made {
        self.module(name, "TimestepEmbedding", |net| {
            let first = net.linear(names[0], x, width, Bias::Added)?;
            let bent = net.each(Function::Silu, &[first])?;
            net.linear(names[1], bent, width, Bias::Added)
        })
    }

    /// A 3 x 3 convolution that keeps height and width.
    fn conv3(&mut self, name: &str, x: TensorId, out: i64) -> Made {
        self.convolution(name, x, &Conv::square(out, 3, 1, 1, Bias::Added))
    }

    /// A 1 x 1 convolution.
    fn conv1(&mut self, name: &str, x: TensorId, out: i64) -> Made {
        self.convolution(name, x, &Conv::square(out, 1, 1, 0, Bias::Added))
    }

    /// `[b, c, h, w]` -> `[b, h * w, c]`.
    fn flattened(&mut self, x: TensorId) -> Made {
        let shape = self.shape(x);
        let [batch, channels, height, width] = shape.as_slice() else {
            return Err(Error::new("an image has four axes"));
        };
        let turned = self.permute(x, &[0, 2, 3, 1])?;
        self.reshape(turned, &[batch.clone(), height * width, channels.clone()])
    }

    /// `[b, h * w, c]` -> `[b, c, h, w]`, of the height and width of `like`.
    fn unflattened(&mut self, x: TensorId, like: TensorId) -> Made {
        let (batch, channels) = (self.axis(x, 3), self.axis(x, 1));
        let (height, width) = (self.axis(like, 2), self.axis(like, 1));
        let apart = self.reshape(x, &[batch, height, width, channels])?;
        let turned = self.permute(apart, &[0, 3, 1, 2])?;
        self.contiguous(turned)
    }

    /// Nearest samples at twice the height and width, or at those of `like`; then a convolution.
    fn upsampled(&mut self, name: &str, x: TensorId, like: Option<TensorId>) -> Made {
        let channels = self.channels(x)?;
        self.module(name, "Upsample2D", |net| {
            let large = match like {
                None => net.enlarged(x, 2)?,
                Some(like) => {
                    let mut lengths = net.shape(x);
                    let wanted = net.shape(like);
                    for (length, wanted) in lengths.iter_mut().zip(&wanted).skip(2) {
                        length.clone_from(wanted);
                    }
                    net.nearest(x, lengths)?
                }
            };
            net.conv3("conv", large, channels)
        })
    }

    /// Channels of an image.
    fn channels(&self, x: TensorId) -> Result<i64, Error> {
        let channels = self.axis(x, 3).as_constant();
        let channels = channels.and_then(|channels| i64::try_from(channels).ok());
        channels.ok_or_else(|| Error::new("the channels of a layer's input are open"))
    }

    /// GroupNorm and SiLU, twice a convolution, and a shortcut (`ResnetBlock2D`); a time is added
    /// between both convolutions.
    fn resnet(
        &mut self,
        name: &str,
        x: TensorId,
        (out, groups): (i64, i64),
        time: Option<TensorId>,
    ) -> Made {
        let channels = self.channels(x)?;
        self.module(name, "ResnetBlock2D", |net| {
            let normed = net.group_norm("norm1", x, groups)?;
            let bent = net.each(Function::Silu, &[normed])?;
            let mut inner = net.conv3("conv1", bent, out)?;
            if let Some(time) = time {
                let bent = net.each(Function::Silu, &[time])?;
                let added = net.linear("time_emb_proj", bent, out, Bias::Added)?;
                let batch = net.axis(added, 2);
                let added = net.reshape(added, &[batch, out.into(), Dim::ONE, Dim::ONE])?;
                inner = net.add(inner, added)?;
            }
            let normed = net.group_norm("norm2", inner, groups)?;
            let bent = net.each(Function::Silu, &[normed])?;
            let inner = net.conv3("conv2", bent, out)?;
            let kept = match channels == out {
                true => x,
                false => net.conv1("conv_shortcut", x, out)?,
            };
            let sum = net.add(kept, inner)?;
            // By `output_scale_factor`, also where that is 1.
            net.apply("div", "aten.div.Tensor", Op::Elementwise(Function::Div), &[sum])
        })
    }

    /// A tensor type of one axis of integers: times, or labels.
    fn integers(&mut self, name: &str, batch: &Dim) -> Made {
        let known = TensorType {
            shape: Shape(vec![batch.clone()]),
            format: flopwise_formats::Format::INT64,
        };
        self.input(name, &known.shape.0, known.format)
    }
}
