//! Hyper-connections (arXiv 2409.19606) with mixing matrices that Sinkhorn's iteration makes doubly
//! stochastic (DeepSeek-V4, transformers `models/deepseek_v4/modeling_deepseek_v4.py`,
//! `DeepseekV4HyperConnection` and `DeepseekV4HyperHead`): the residual is several streams, which are
//! joined into one before each part of a layer and mixed with its result after it.
//!
//! Not here: the parts of the layer.

use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{
    Dim, Function, Keep, Kind, MatMul, Op, Orientation, Reduce, Reduction, Stated, StatedGradient,
    TensorId,
};

/// How the streams of a residual are joined and mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct HyperConnection {
    /// Streams.
    pub(in crate::arch) streams: i64,
    /// Elements of each.
    pub(in crate::arch) hidden: i64,
    /// Steps of Sinkhorn's iteration.
    pub(in crate::arch) iterations: i64,
}

impl HyperConnection {
    /// `x [b, s, hidden]` -> `[b, s, streams, hidden]`, all streams alike.
    pub(in crate::arch) fn spread(&self, net: &mut Network, x: TensorId) -> Made {
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let hidden = dim(self.hidden);
        let one = net.reshape(x, &[batch.clone(), seq.clone(), Dim::ONE, hidden.clone()])?;
        let all = net.expand(one, &[batch, seq, dim(self.streams), hidden])?;
        net.contiguous(all)
    }

    /// `streams [b, s, n, hidden]` -> the same shape, after `part` has worked on what they are joined
    /// into; the weights stand below `name`.
    pub(in crate::arch) fn around(
        &self,
        net: &mut Network,
        name: &str,
        streams: TensorId,
        part: impl FnOnce(&mut Network, TensorId) -> Made,
    ) -> Made {
        let [joined, post, mixing] =
            net.module(name, "HyperConnection", |net| self.weigh(net, streams))?;
        let result = part(net, joined)?;
        let (batch, seq) = (net.axis(result, 3), net.axis(result, 2));
        let result = net.reshape(result, &[batch, seq, Dim::ONE, dim(self.hidden)])?;
        let spread = net.mul(post, result)?;
        let mixing = net.permute(mixing, &[0, 1, 3, 2])?;
        let mixed = net.matmul(mixing, streams)?;
        net.add(spread, mixed)
    }

    /// `streams [b, s, n, hidden]` -> `[b, s, hidden]` at the end of the stack.
    pub(in crate::arch) fn close(&self, net: &mut Network, streams: TensorId) -> Made {
        let n = self.streams;
        net.module("hc_head", "HyperHead", |net| {
            let logits = self.project(net, streams, "hc_fn", n)?;
            let scale = net.parameter("hc_scale", &[1])?;
            let base = net.parameter("hc_base", &[n])?;
            let pre = self.gate(net, [logits, scale, base])?;
            let pre = net.each(Function::Add, &[pre])?;
            self.join(net, pre, streams)
        })
    }

    /// What goes into the part, the weights of its result, and the mixing matrices.
    fn weigh(&self, net: &mut Network, streams: TensorId) -> Result<[TensorId; 3], Error> {
        let n = self.streams;
        let logits = self.project(net, streams, "fn", (2 + n) * n)?;
        let pieces = net.split(logits, &[n, n, n * n])?;
        let base = net.parameter("base", &[(2 + n) * n])?;
        let scale = net.parameter("scale", &[3])?;
        let of = |net: &mut Network, piece: i64, start: i64, end: i64| {
            let scale = net.slice(scale, 0, piece, piece + 1)?;
            let base = net.slice(base, 0, start, end)?;
            Ok::<_, Error>([scale, base])
        };
        let [pre_scale, pre_base] = of(net, 0, 0, n)?;
        let [post_scale, post_base] = of(net, 1, n, 2 * n)?;
        let [mix_scale, mix_base] = of(net, 2, 2 * n, (2 + n) * n)?;
        let pre = self.gate(net, [pieces[0], pre_scale, pre_base])?;
        let pre = net.each(Function::Add, &[pre])?;
        let post = self.gate(net, [pieces[1], post_scale, post_base])?;
        let post = net.scale(post)?;
        let (batch, seq) = (net.axis(logits, 3), net.axis(logits, 2));
        let post = net.reshape(post, &[batch.clone(), seq.clone(), dim(n), Dim::ONE])?;
        let mixing = net.mul(pieces[2], mix_scale)?;
        let mixing = net.add(mixing, mix_base)?;
        let mixing = net.reshape(mixing, &[batch, seq, dim(n), dim(n)])?;
        let mixing = net.softmax(mixing)?;
        let mixing = net.each(Function::Add, &[mixing])?;
        let mixing = self.sinkhorn(net, mixing)?;
        Ok([self.join(net, pre, streams)?, post, mixing])
    }

    /// The normalised streams of a token, side by side, times a matrix `[out, n * hidden]`.
    fn project(&self, net: &mut Network, streams: TensorId, name: &str, out: i64) -> Made {
        let (batch, seq) = (net.axis(streams, 4), net.axis(streams, 3));
        let width = self.streams * self.hidden;
        let flat = net.reshape(streams, &[batch, seq, dim(width)])?;
        let flat = net.norm("input_norm", flat, Norm::PlainRms)?;
        let weight = net.parameter(name, &[out, width])?;
        let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
        net.apply("linear", "aten.linear.default", op, &[flat, weight])
    }

    /// `sigmoid(x scale + base)`.
    fn gate(&self, net: &mut Network, [x, scale, base]: [TensorId; 3]) -> Made {
        let scaled = net.mul(x, scale)?;
        let moved = net.add(scaled, base)?;
        net.each(Function::Sigmoid, &[moved])
    }

    /// The sum of the streams, each times its weight.
    fn join(&self, net: &mut Network, weights: TensorId, streams: TensorId) -> Made {
        let (batch, seq) = (net.axis(streams, 4), net.axis(streams, 3));
        let weights = net.reshape(weights, &[batch, seq, dim(self.streams), Dim::ONE])?;
        let weighted = net.mul(weights, streams)?;
        let op =
            Op::Reduce(Reduce { function: Reduction::Sum, axes: vec![2], keep: Keep::Nothing });
        net.apply("sum", "aten.sum.dim_IntList", op, &[weighted])
    }

    /// Columns are divided by their sums, and after that rows and columns in turn: `2 t - 1` times
    /// for `t` iterations. Each takes `n (n - 1)` additions for the sums, `n` of a small number, and
    /// `n^2` divisions.
    fn sinkhorn(&self, net: &mut Network, mixing: TensorId) -> Made {
        let shape = net.shape(mixing);
        let elements = Dim::product(&shape);
        let count = &elements * &dim(2 * self.iterations - 1);
        let stated = Stated {
            other: count.clone(),
            transcendental: count,
            ..Stated::new("sinkhorn", Kind::Normalization, vec![net.tensor_type(&shape)])
        };
        let results = net.stated(stated, StatedGradient::Unknown, &[mixing])?;
        results.first().copied().ok_or_else(|| Error::new("no mixing matrices"))
    }
}

/// A linear layer without a bias, as all of this family.
pub(super) fn plain(net: &mut Network, name: &str, x: TensorId, out: i64) -> Made {
    net.linear(name, x, out, Bias::None)
}
