//! Diffusion transformers (DiT, arXiv 2212.09748): the original (`facebookresearch/DiT`,
//! `models.py`) and diffusers' `DiTTransformer2DModel`, which has the same sizes but embeds the time
//! and the label anew in every block.

use super::super::config::Config;
use super::super::family::Request;
use super::super::layer::{CrossAttention, Dense, FeedForward, Gating, Source};
use super::super::network::{Bias, Made, Network, Norm};
use super::super::vision::Patches;
use super::only;
use crate::error::Error;
use crate::graph::{Attention, Dim, Function, Graph, Mask, TensorId};

/// Sines and cosines that the time becomes.
const WAVES: i64 = 256;
/// No layer is wider.
const MAX_WIDTH: i64 = 1 << 31;

/// The sizes of both.
struct Dit {
    patches: Patches,
    layers: i64,
    heads: i64,
    head_dim: i64,
    width: i64,
    out_channels: i64,
    labels: i64,
}

impl Dit {
    fn hidden(&self) -> i64 {
        self.patches.hidden
    }

    /// Image, times and labels, as the user gives them.
    fn inputs(&self, net: &mut Network) -> Result<[TensorId; 3], Error> {
        let image = self.patches.input(net, "hidden_states")?;
        let batch = net.axis(image, 4);
        let times = net.integers("timestep", &batch)?;
        Ok([image, times, net.integers("class_labels", &batch)?])
    }

    /// Scale and shift of a norm's result, per sample: `norm(x) (1 + scale) + shift`.
    fn modulated(net: &mut Network, x: TensorId, scale: TensorId, shift: TensorId) -> Made {
        let (scale, shift) = (Dit::per_sample(net, scale)?, Dit::per_sample(net, shift)?);
        let more = net.with_scalar(Function::Add, scale)?;
        let scaled = net.mul(x, more)?;
        net.add(scaled, shift)
    }

    /// `[b, width]` -> `[b, 1, width]`.
    fn per_sample(net: &mut Network, x: TensorId) -> Made {
        let (batch, width) = (net.axis(x, 2), net.axis(x, 1));
        net.reshape(x, &[batch, Dim::ONE, width])
    }

    /// `x + gate * part`.
    fn gated(net: &mut Network, x: TensorId, gate: TensorId, part: TensorId) -> Made {
        let gate = Dit::per_sample(net, gate)?;
        let scaled = net.mul(gate, part)?;
        net.add(x, scaled)
    }

    /// So many linear pieces of the condition, each as wide as the model.
    fn pieces(
        &self,
        net: &mut Network,
        name: &str,
        condition: TensorId,
        n_pieces: i64,
    ) -> Result<Vec<TensorId>, Error> {
        let bent = net.each(Function::Silu, &[condition])?;
        let all = net.linear(name, bent, n_pieces * self.hidden(), Bias::Added)?;
        let sizes: Vec<i64> = (0..n_pieces).map(|_| self.hidden()).collect();
        net.split(all, &sizes)
    }

    /// One block; `attend` and `feed` are its parts, of a normed input.
    fn block(
        net: &mut Network,
        x: TensorId,
        pieces: &[TensorId],
        attend: impl FnOnce(&mut Network, TensorId) -> Made,
        feed: impl FnOnce(&mut Network, TensorId) -> Made,
    ) -> Made {
        let [shift, scale, gate, feed_shift, feed_scale, feed_gate] = pieces else {
            return Err(Error::new("six pieces modulate a block"));
        };
        let normed = net.norm("norm1", x, Norm::PlainLayer)?;
        let inner = Dit::modulated(net, normed, *scale, *shift)?;
        let seen = attend(net, inner)?;
        let x = Dit::gated(net, x, *gate, seen)?;
        let normed = net.norm("norm2", x, Norm::PlainLayer)?;
        let inner = Dit::modulated(net, normed, *feed_scale, *feed_shift)?;
        let fed = feed(net, inner)?;
        Dit::gated(net, x, *feed_gate, fed)
    }

    /// Pieces of the patches' size back into an image.
    fn image(&self, net: &mut Network, x: TensorId) -> Made {
        let side = |axis: usize| self.patches.image[axis] / self.patches.patch[axis];
        let batch = net.axis(x, 3);
        let ([rows, columns], [high, wide]) = ([side(0), side(1)], self.patches.patch);
        let sizes = [rows, columns, high, wide, self.out_channels].map(Dim::from);
        let mut shape = vec![batch.clone()];
        shape.extend(sizes);
        let apart = net.reshape(x, &shape)?;
        let turned = net.permute(apart, &[0, 5, 1, 3, 2, 4])?;
        let copy = net.contiguous(turned)?;
        let [height, width] = [rows * high, columns * wide];
        net.reshape(copy, &[batch, self.out_channels.into(), height.into(), width.into()])
    }

    /// Elements of a patch of the result.
    fn per_patch(&self) -> Result<i64, Error> {
        let [high, wide] = self.patches.patch;
        product(&[high, wide, self.out_channels])
    }
}

/// 28, where the config does not say.
fn layers(config: &Config, field: &str) -> Result<i64, Error> {
    if config.has(field) { config.layers(&[field]) } else { config.size_or(field, 28) }
}

/// A width made of several sizes.
///
/// # Errors
/// It is wider than any layer.
fn product(sizes: &[i64]) -> Result<i64, Error> {
    let whole = sizes.iter().try_fold(1i64, |all, size| all.checked_mul(*size));
    whole.filter(|whole| *whole <= MAX_WIDTH).ok_or_else(|| {
        let shown: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        Error::new(format!("a width of {} is more than 2^31", shown.join(" x ")))
    })
}

/// `facebookresearch/DiT`: the arguments of its class `DiT` are the fields.
pub(super) fn original(config: &Config, request: &Request) -> Result<Graph, Error> {
    let hidden = config.size_or("hidden_size", 1152)?;
    let heads = config.size_or("num_heads", 16)?;
    let ratio = config.size_or("mlp_ratio", 4)?;
    let (side, patch) = (config.size_or("input_size", 32)?, config.size_or("patch_size", 2)?);
    let channels = config.size_or("in_channels", 4)?;
    let is_learned = config.flag_or("learn_sigma", true)?;
    let dit = Dit {
        patches: Patches {
            channels,
            image: [side, side],
            patch: [patch, patch],
            hidden,
            name: "proj",
            bias: Bias::Added,
        },
        layers: layers(config, "depth")?,
        heads,
        head_dim: CrossAttention::even(hidden, heads)?,
        width: product(&[ratio, hidden])?,
        out_channels: if is_learned { 2 * channels } else { channels },
        // One more row stands for no label (classifier-free guidance).
        labels: config.size_or("num_classes", 1000)? + 1,
    };
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let result = net.module("", "DiT", |net| dit.original(net))?;
    Ok(net.finish(&[result]))
}

impl Dit {
    fn original(&self, net: &mut Network) -> Made {
        let [image, times, labels] = self.inputs(net)?;
        let hidden = self.hidden();
        let patches =
            net.module("x_embedder", "PatchEmbed", |net| self.patches.build(net, image))?;
        let positions = net.parameter("pos_embed", &[1, self.patches.count()?, hidden])?;
        let mut x = net.add(patches, positions)?;
        let time = net.module("t_embedder", "TimestepEmbedder", |net| {
            let waves = net.time_waves(times, WAVES)?;
            net.time_layers("mlp", waves, hidden, ["0", "2"])
        })?;
        let label = net.module("y_embedder", "LabelEmbedder", |net| {
            net.embedding("embedding_table", labels, self.labels, hidden)
        })?;
        let condition = net.add(time, label)?;
        for idx in 0..self.layers {
            let name = format!("blocks.{idx}");
            x = net.module(&name, "DiTBlock", |net| {
                let pieces = self.pieces(net, "adaLN_modulation.1", condition, 6)?;
                Dit::block(
                    net,
                    x,
                    &pieces,
                    |net, x| net.module("attn", "Attention", |net| self.attend_joined(net, x)),
                    |net, x| self.feed(net, x, "mlp", ["fc1", "fc2"]),
                )
            })?;
        }
        let x = net.module("final_layer", "FinalLayer", |net| {
            let pieces = self.pieces(net, "adaLN_modulation.1", condition, 2)?;
            let normed = net.norm("norm_final", x, Norm::PlainLayer)?;
            let inner = Dit::modulated(net, normed, pieces[1], pieces[0])?;
            net.linear("linear", inner, self.per_patch()?, Bias::Added)
        })?;
        self.image(net, x)
    }

    /// Attention with one projection for queries, keys and values (timm's).
    fn attend_joined(&self, net: &mut Network, x: TensorId) -> Made {
        let (batch, seq, hidden) = (net.axis(x, 3), net.axis(x, 2), self.hidden());
        let joined = net.linear("qkv", x, 3 * hidden, Bias::Added)?;
        let mut turned = Vec::new();
        for part in net.split(joined, &[hidden, hidden, hidden])? {
            let shape = [batch.clone(), seq.clone(), self.heads.into(), self.head_dim.into()];
            let apart = net.reshape(part, &shape)?;
            turned.push(net.permute(apart, &[0, 2, 1, 3])?);
        }
        let operands = [turned[0], turned[1], turned[2]];
        let seen = net.attend(operands, Attention::new(Mask::Full), None)?;
        let back = net.permute(seen, &[0, 2, 1, 3])?;
        let copy = net.contiguous(back)?;
        let merged = net.reshape(copy, &[batch, seq, hidden.into()])?;
        net.linear("proj", merged, hidden, Bias::Added)
    }

    fn feed(&self, net: &mut Network, x: TensorId, name: &str, names: [&'static str; 2]) -> Made {
        let dense = FeedForward::Dense(Dense {
            class: "FeedForward",
            width: self.width,
            function: Function::GeluTanh,
            gating: Gating::Plain(names),
            bias: Bias::Added,
        });
        net.module(name, dense.class(), |net| dense.build(net, x))
    }

    /// Time and label of diffusers' model, which every block has of its own.
    fn condition(&self, net: &mut Network, times: TensorId, labels: TensorId) -> Made {
        let hidden = self.hidden();
        net.module("emb", "CombinedTimestepLabelEmbeddings", |net| {
            let waves = net.time_waves(times, WAVES)?;
            let names = ["linear_1", "linear_2"];
            let time = net.time_layers("timestep_embedder", waves, hidden, names)?;
            let name = "class_embedder.embedding_table";
            let label = net.embedding(name, labels, self.labels, hidden)?;
            net.add(time, label)
        })
    }

    fn diffusers(&self, net: &mut Network, bias: Bias) -> Made {
        let [image, times, labels] = self.inputs(net)?;
        let hidden = self.hidden();
        let mut x = net.module("pos_embed", "PatchEmbed", |net| {
            let patches = self.patches.build(net, image)?;
            let format = net.format();
            let positions = net.buffer("pos_embed", &[1, self.patches.count()?, hidden], format)?;
            net.add(patches, positions)
        })?;
        let attention = CrossAttention {
            class: "Attention",
            heads: self.heads,
            head_dim: self.head_dim,
            projections: [("to_q", bias), ("to_k", bias), ("to_v", bias)],
            output: ("to_out.0", Bias::Added),
            mask: Mask::Full,
        };
        for idx in 0..self.layers {
            let name = format!("transformer_blocks.{idx}");
            x = net.module(&name, "BasicTransformerBlock", |net| {
                let pieces = net.module("norm1", "AdaLayerNormZero", |net| {
                    let condition = self.condition(net, times, labels)?;
                    self.pieces(net, "linear", condition, 6)
                })?;
                Dit::block(
                    net,
                    x,
                    &pieces,
                    |net, x| {
                        net.module("attn1", attention.class, |net| {
                            attention.build(net, x, &Source::Itself, None)
                        })
                    },
                    |net, x| self.feed(net, x, "ff", ["net.0.proj", "net.2"]),
                )
            })?;
        }
        // The first block's embedding, once more.
        let condition = net.module("transformer_blocks.0.norm1", "AdaLayerNormZero", |net| {
            self.condition(net, times, labels)
        })?;
        let pieces = self.pieces(net, "proj_out_1", condition, 2)?;
        let normed = net.norm("norm_out", x, Norm::PlainLayer)?;
        let inner = Dit::modulated(net, normed, pieces[1], pieces[0])?;
        let x = net.linear("proj_out_2", inner, self.per_patch()?, Bias::Added)?;
        self.image(net, x)
    }
}

/// diffusers' `DiTTransformer2DModel`.
pub(super) fn diffusers(config: &Config, request: &Request) -> Result<Graph, Error> {
    only(config, "norm_type", &["\"ada_norm_zero\""])?;
    only(config, "norm_elementwise_affine", &["false"])?;
    only(config, "activation_fn", &["\"gelu-approximate\""])?;
    let heads = config.size_or("num_attention_heads", 16)?;
    let head_dim = config.size_or("attention_head_dim", 72)?;
    let hidden = product(&[heads, head_dim])?;
    let (side, patch) = (config.size_or("sample_size", 32)?, config.size_or("patch_size", 2)?);
    let channels = config.size_or("in_channels", 4)?;
    let dit = Dit {
        patches: Patches {
            channels,
            image: [side, side],
            patch: [patch, patch],
            hidden,
            name: "proj",
            bias: Bias::Added,
        },
        layers: layers(config, "num_layers")?,
        heads,
        head_dim,
        width: 4 * hidden,
        out_channels: config.optional("out_channels")?.unwrap_or(channels),
        labels: config.size_or("num_embeds_ada_norm", 1000)? + 1,
    };
    let bias = Bias::from(config.flag_or("attention_bias", true)?);
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let result = net.module("", "DiTTransformer2DModel", |net| dit.diffusers(net, bias))?;
    Ok(net.finish(&[result]))
}
