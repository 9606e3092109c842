//! Vision transformers and the encoders of text that are built like them: images cut into patches
//! (ViT, arXiv 2010.11929), and pre-norm layers.
//!
//! Not here: the fields of a config (the families).

use super::layer::{CrossAttention, Dense, FeedForward, Source};
use super::network::{Bias, Conv, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Dim, Interpolation, Keep, Op, Reduce, Reduction, Shape, TensorId};

/// How an image becomes a sequence.
#[derive(Clone, Debug)]
pub(super) struct Patches {
    /// Channels of the image.
    pub(super) channels: i64,
    /// Height and width of the image.
    pub(super) image: [i64; 2],
    /// Height and width of a patch.
    pub(super) patch: [i64; 2],
    /// Elements per patch.
    pub(super) hidden: i64,
    /// The convolution's name.
    pub(super) name: &'static str,
    /// Whether it adds a bias.
    pub(super) bias: Bias,
}

impl Patches {
    /// How many there are; what is left over at the edges is not seen.
    ///
    /// # Errors
    /// None.
    pub(super) fn count(&self) -> Result<i64, Error> {
        let along = |axis: usize| self.image[axis].checked_div(self.patch[axis]).unwrap_or(0);
        match along(0).checked_mul(along(1)) {
            Some(count) if 0 < count => Ok(count),
            _ => Err(Error::new(format!(
                "an image of {} x {} has no patch of {} x {}",
                self.image[0], self.image[1], self.patch[0], self.patch[1]
            ))),
        }
    }

    /// `pixel_values [batch, channels, height, width]`, what the user gives.
    pub(super) fn input(&self, net: &mut Network, name: &str) -> Made {
        let batch = net.symbol("batch", None, &format!("dim 0 of {name}"));
        let [height, width] = self.image;
        let shape = [batch, dim(self.channels), dim(height), dim(width)];
        let format = net.format();
        net.input(name, &shape, format)
    }

    /// `[b, channels, height, width]` -> `[b, patches, hidden]`.
    pub(super) fn build(&self, net: &mut Network, pixels: TensorId) -> Made {
        let count = self.count()?;
        let patch = self.patch.to_vec();
        let conv = Conv {
            out: self.hidden,
            kernel: patch.clone(),
            stride: patch,
            before: vec![0, 0],
            after: vec![0, 0],
            groups: 1,
            bias: self.bias,
        };
        let cut = net.convolution(self.name, pixels, &conv)?;
        let batch = net.axis(cut, 4);
        let flat = net.reshape(cut, &[batch, dim(self.hidden), dim(count)])?;
        net.permute(flat, &[0, 2, 1])
    }
}

/// One pre-norm layer: attention, then a feed-forward network.
#[derive(Clone, Debug)]
pub(super) struct EncoderLayer {
    /// The class in the reference implementation.
    pub(super) class: &'static str,
    /// Names of the norms.
    pub(super) norms: [&'static str; 2],
    /// Name and sizes of the attention.
    pub(super) attention: (&'static str, CrossAttention),
    /// Names of trained scales of both results (LayerScale, arXiv 2103.17239).
    pub(super) scales: Option<[&'static str; 2]>,
    /// The feed-forward network, `mlp`.
    pub(super) dense: Dense,
}

impl EncoderLayer {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (name, attention) = &self.attention;
        let inner = net.norm(self.norms[0], x, Norm::Layer)?;
        let seen = net.module(name, attention.class, |net| {
            attention.build(net, inner, &Source::Itself, None)
        })?;
        let seen = self.scaled(net, seen, 0)?;
        let x = net.add(x, seen)?;
        let inner = net.norm(self.norms[1], x, Norm::Layer)?;
        let dense = FeedForward::Dense(self.dense.clone());
        let fed = net.module("mlp", dense.class(), |net| dense.build(net, inner))?;
        let fed = self.scaled(net, fed, 1)?;
        net.add(x, fed)
    }

    fn scaled(&self, net: &mut Network, x: TensorId, which: usize) -> Made {
        let Some(names) = self.scales else { return Ok(x) };
        let width = net.width(x)?;
        net.module(names[which], "LayerScale", |net| {
            let scale = net.parameter("lambda1", &[width])?;
            net.mul(x, scale)
        })
    }

    /// So many of them below a name.
    pub(super) fn stack(&self, net: &mut Network, x: TensorId, name: &str, layers: i64) -> Made {
        let mut x = x;
        for layer_idx in 0..layers {
            let path = format!("{name}.{layer_idx}");
            x = net.module(&path, self.class, |net| self.build(net, x))?;
        }
        Ok(x)
    }
}

impl Network {
    /// Trained tokens `[1, 1, width]` or `[width]`, the same for every image, before a sequence.
    pub(super) fn in_front(&mut self, tokens: &[(TensorId, i64)], x: TensorId) -> Made {
        let (batch, width) = (self.axis(x, 3), self.width(x)?);
        let mut parts = Vec::new();
        for (token, count) in tokens {
            parts.push(self.expand(*token, &[batch.clone(), dim(*count), dim(width)])?);
        }
        parts.push(x);
        self.concat(&parts, 1)
    }

    /// A table of one row per position, looked up for the first `count`.
    pub(super) fn table_of_positions(
        &mut self,
        name: &str,
        rows: i64,
        count: &Dim,
        width: i64,
    ) -> Made {
        let positions = self.positions(count)?;
        self.embedding(name, positions, rows, width)
    }

    /// The mean over the positions of `x [b, s, width]`.
    pub(super) fn mean_of_positions(&mut self, x: TensorId) -> Made {
        let reduce = Reduce { function: Reduction::Mean, axes: vec![1], keep: Keep::Nothing };
        self.apply("mean", "aten.mean.dim", Op::Reduce(reduce), &[x])
    }

    /// Images `[b, c, h, w]` of `factor` times the height and width, each element repeated.
    pub(super) fn enlarged(&mut self, x: TensorId, factor: i64) -> Made {
        let mut lengths = self.shape(x);
        for length in lengths.iter_mut().skip(2) {
            *length = &*length * &dim(factor);
        }
        self.nearest(x, lengths)
    }

    /// The nearest sample for each element of another size.
    pub(super) fn nearest(&mut self, x: TensorId, lengths: Vec<Dim>) -> Made {
        let op = Op::Resize { shape: Shape(lengths), interpolation: Interpolation::Nearest };
        self.apply("interpolate", "aten.upsample_nearest2d.vec", op, &[x])
    }
}
