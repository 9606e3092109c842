//! Linear recurrences with a fixed or gated decay: lightning attention (arXiv 2401.04658), RWKV-4
//! (arXiv 2305.13048), RG-LRU (arXiv 2402.19427), and the short convolutions of LFM2.
//!
//! Weights lie as in `transformers` models/minimax, models/rwkv, models/recurrent_gemma,
//! models/lfm2.

use super::recurrent::{CausalConvolution, Tokens, keep, recurrence};
use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Dim, Function, Kind, MatMul, Op, Orientation, Pass, Stated, TensorId};
use flopwise_formats::Format;

/// Lightning attention: linear attention with one fixed decay per head, in blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Lightning {
    /// Heads.
    pub(in crate::arch) heads: i64,
    /// Elements of a head.
    pub(in crate::arch) head_dim: i64,
    /// Tokens of a block.
    pub(in crate::arch) block: i64,
}

impl Lightning {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (hidden, tokens) = (net.width(x)?, Tokens::of(net, x));
        let width = self.heads.saturating_mul(self.head_dim);
        let joined = net.linear("qkv_proj", x, width.saturating_mul(3), Bias::None)?;
        let joined = net.each(Function::Silu, &[joined])?;
        let parts = net.split(joined, &[width, width, width])?;
        let apart = tokens.shape(&[self.heads, self.head_dim]);
        let mut operands = Vec::new();
        for part in parts {
            operands.push(net.reshape(part, &apart)?);
        }
        let stated = self.stated(net, &tokens);
        let result = recurrence(net, stated, &operands)?;
        keep(net, &[self.heads, self.head_dim, self.head_dim], net.format());
        let flat = net.reshape(result, &tokens.shape(&[width]))?;
        let normed = net.norm("norm", flat, Norm::Rms)?;
        let gate = net.linear("output_gate", x, width, Bias::None)?;
        let gate = net.each(Function::Sigmoid, &[gate])?;
        let gated = net.mul(gate, normed)?;
        net.linear("out_proj", gated, hidden, Bias::None)
    }

    /// Over the pairs of a block `Q K^T` and its product with `V`, the causal mask exact; over all
    /// tokens `Q (K^T V)` and the block's own `K^T V`. Beside them a decay per pair and head,
    /// decays of queries and keys and the sum of both results, and per block the state's decay and
    /// sum.
    ///
    /// One token more is `S = decay S + k^T v` and `q S`: two multiply-accumulates and a
    /// multiplication per element of the state.
    fn stated(&self, net: &Network, tokens: &Tokens) -> Stated {
        let heads = dim(self.heads);
        let width = &heads * &dim(self.head_dim);
        let states = &width * &dim(self.head_dim);
        let n_tokens = tokens.count();
        let result = net.tensor_type(&tokens.shape(&[self.heads, self.head_dim]));
        let stated = Stated::new("lightning_attention", Kind::Recurrent, vec![result]);
        let across = &n_tokens * &(&states * &dim(2));
        match net.pass {
            Pass::Decode => Stated { macs: across, other: &n_tokens * &states, ..stated },
            Pass::Whole => {
                let (pairs, blocks) = (tokens.pairs(self.block), tokens.chunks(self.block));
                let elementwise = &(&pairs * &heads) + &(&(&n_tokens * &width) * &dim(3));
                Stated {
                    macs: &(&(&pairs * &width) * &dim(2)) + &across,
                    other: &elementwise + &(&blocks * &(&states * &dim(2))),
                    transcendental: &blocks * &heads,
                    ..stated
                }
            }
        }
    }
}

/// The weighted sum of RWKV-4, per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Rwkv {
    /// Channels of the sum.
    pub(in crate::arch) width: i64,
}

impl Rwkv {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (hidden, tokens, width) = (net.width(x)?, Tokens::of(net, x), self.width);
        let [key, value, receptance] = ["key", "value", "receptance"].map(|name| {
            let mixed = token_shift(net, x, &format!("time_mix_{name}"))?;
            net.linear(name, mixed, width, Bias::None)
        });
        let receptance = net.each(Function::Sigmoid, &[receptance?])?;
        let decay = net.parameter("time_decay", &[width])?;
        let first = net.parameter("time_first", &[width])?;
        let result = net.tensor_type(&tokens.shape(&[width]));
        let elements = &tokens.count() * &dim(width);
        // `rwkv_linear_attention_cpu` of transformers models/rwkv: per token and channel 18
        // additions, subtractions, multiplications and maxima, four exponentials and a division;
        // and the decay.
        let sum = Stated {
            other: &(&elements * &dim(18)) + &dim(width),
            transcendental: &(&elements * &dim(5)) + &dim(width),
            ..Stated::new("weighted_key_value", Kind::Recurrent, vec![result])
        };
        let summed = recurrence(net, sum, &[key?, value?, decay, first])?;
        // Numerator, denominator and the largest exponent so far, in float32.
        keep(net, &[3, width], Format::FP32);
        keep_last(net, hidden);
        let gated = net.mul(receptance, summed)?;
        net.linear("output", gated, hidden, Bias::None)
    }
}

/// The feed-forward network of RWKV-4: it mixes each token with the one before.
pub(super) fn channel_mix(net: &mut Network, x: TensorId, width: i64) -> Made {
    let hidden = net.width(x)?;
    let key = token_shift(net, x, "time_mix_key")?;
    let receptance = token_shift(net, x, "time_mix_receptance")?;
    keep_last(net, hidden);
    let key = net.linear("key", key, width, Bias::None)?;
    let key = net.each(Function::Relu, &[key])?;
    let key = net.each(Function::Square, &[key])?;
    let value = net.linear("value", key, hidden, Bias::None)?;
    let receptance = net.linear("receptance", receptance, hidden, Bias::None)?;
    let receptance = net.each(Function::Sigmoid, &[receptance])?;
    net.mul(receptance, value)
}

fn keep_last(net: &mut Network, hidden: i64) {
    keep(net, &[hidden], net.format());
}

/// `x mix + before (1 - mix)`, where `before` is the token before.
fn token_shift(net: &mut Network, x: TensorId, name: &str) -> Made {
    let hidden = net.width(x)?;
    let mix = net.parameter(name, &[1, 1, hidden])?;
    let elements = Dim::product(&net.shape(x));
    let shift = Stated {
        other: &(&elements * &dim(3)) + &dim(hidden),
        ..Stated::new("token_shift", Kind::Elementwise, vec![net.tensor_type(&net.shape(x))])
    };
    recurrence(net, shift, &[x, mix])
}

/// RG-LRU and the gated branch beside it (Griffin's recurrent block).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct GatedLinearUnit {
    /// Channels of the recurrence.
    pub(in crate::arch) width: i64,
    /// Blocks that the gates' matrices are made of.
    pub(in crate::arch) blocks: i64,
    /// The convolution before it.
    pub(in crate::arch) convolution: CausalConvolution,
    /// The function of the branch beside it.
    pub(in crate::arch) function: Function,
}

impl GatedLinearUnit {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let hidden = net.width(x)?;
        if self.width % self.blocks != 0 {
            let what = format!("{} channels are not {} even blocks", self.width, self.blocks);
            return Err(Error::new(what));
        }
        let beside = net.linear("linear_y", x, self.width, Bias::Added)?;
        let beside = net.each(self.function, &[beside])?;
        let mixed = net.linear("linear_x", x, self.width, Bias::Added)?;
        let mixed = self.convolution.build(net, "conv_1d", mixed)?;
        let result = net.module("rg_lru", "RGLRU", |net| self.recur(net, mixed))?;
        let gated = net.mul(result, beside)?;
        net.linear("linear_out", gated, hidden, Bias::Added)
    }

    fn recur(&self, net: &mut Network, x: TensorId) -> Made {
        let tokens = Tokens::of(net, x);
        let input = self.gate(net, x, "input_gate")?;
        let forget = self.gate(net, x, "recurrent_gate")?;
        let rate = net.parameter("recurrent_param", &[self.width])?;
        let rate = net.each(Function::Softplus, &[rate])?;
        let elements = &tokens.count() * &dim(self.width);
        let result = net.tensor_type(&tokens.shape(&[self.width]));
        // Per element, with `l = -8 forget rate`: two multiplications, `a = exp(l)`, `exp(2 l)`
        // with a multiplication, the root of one less that, `x input` and its product with the
        // root, and `h = a h + ..`: a multiplication and an addition (arXiv 2402.19427, equations 1
        // to 4).
        let unit = Stated {
            other: &elements * &dim(8),
            transcendental: &elements * &dim(3),
            ..Stated::new("gated_linear_recurrence", Kind::Recurrent, vec![result])
        };
        // transformers and vLLM accumulate in float32 and keep that.
        keep(net, &[self.width], Format::FP32);
        recurrence(net, unit, &[x, input, forget, rate])
    }

    /// A sigmoid of a linear layer whose matrix has blocks on its diagonal only.
    fn gate(&self, net: &mut Network, x: TensorId, name: &str) -> Made {
        let tokens = Tokens::of(net, x);
        let (blocks, size) = (self.blocks, self.width / self.blocks);
        let weight = net.parameter(&format!("{name}_weight"), &[blocks, size, size])?;
        let bias = net.parameter(&format!("{name}_bias"), &[blocks, size])?;
        let bias = net.reshape(bias, &[dim(blocks), Dim::ONE, dim(size)])?;
        let apart = net.reshape(x, &[tokens.count(), dim(blocks), dim(size)])?;
        let turned = net.permute(apart, &[1, 0, 2])?;
        let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
        let inputs = [turned, weight, bias];
        let product = net.apply(name, "aten.baddbmm.default", op, &inputs)?;
        let turned = net.permute(product, &[1, 0, 2])?;
        let flat = net.reshape(turned, &tokens.shape(&[self.width]))?;
        net.each(Function::Sigmoid, &[flat])
    }
}

/// A convolution over the last few tokens between two gates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct ShortConvolution {
    /// The convolution.
    pub(in crate::arch) convolution: CausalConvolution,
}

impl ShortConvolution {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (hidden, bias) = (net.width(x)?, self.convolution.bias);
        let all = net.linear("in_proj", x, hidden.saturating_mul(3), bias)?;
        let parts = net.split(all, &[hidden, hidden, hidden])?;
        let gated = net.mul(parts[0], parts[2])?;
        let mixed = self.convolution.build(net, "conv", gated)?;
        let gated = net.mul(parts[1], mixed)?;
        net.linear("out_proj", gated, hidden, bias)
    }
}
