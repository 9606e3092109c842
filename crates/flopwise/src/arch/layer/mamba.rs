//! Selective state spaces: Mamba (arXiv 2312.00752) and Mamba-2 (arXiv 2405.21060).
//!
//! Weights lie as in `transformers` models/mamba, models/mamba2 and their kin.

use super::recurrent::{CausalConvolution, Tokens, keep, recurrence};
use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Function, Kind, Pass, Stated, TensorId};
use flopwise_formats::Format;

/// A selective state space.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct Mamba {
    /// Channels of the recurrence.
    pub(in crate::arch) inner: i64,
    /// Elements of the state per channel.
    pub(in crate::arch) state: i64,
    /// Width between the two projections that give the step sizes.
    pub(in crate::arch) step_rank: i64,
    /// The convolution before it.
    pub(in crate::arch) convolution: CausalConvolution,
    /// Bias of the projections in and out.
    pub(in crate::arch) bias: Bias,
    /// Norms of step sizes, B and C (Falcon Mamba: without weights, Jamba: with).
    pub(in crate::arch) inner_norm: Option<Norm>,
    /// The format of the state that is kept.
    pub(in crate::arch) state_format: Format,
}

impl Mamba {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (hidden, inner, state) = (net.width(x)?, self.inner, self.state);
        let both = net.linear("in_proj", x, 2 * inner, self.bias)?;
        let halves = net.split(both, &[inner, inner])?;
        let (mixed, gate) = (halves[0], halves[1]);
        let mixed = self.convolution.build(net, "conv1d", mixed)?;
        let selected = net.linear("x_proj", mixed, self.step_rank + 2 * state, Bias::None)?;
        let parts = net.split(selected, &[self.step_rank, state, state])?;
        let mut normed = Vec::new();
        for (part, name) in parts.iter().zip(["dt_layernorm", "b_layernorm", "c_layernorm"]) {
            normed.push(match self.inner_norm {
                Some(norm) => net.norm(name, *part, norm)?,
                None => *part,
            });
        }
        let step = net.linear("dt_proj", normed[0], inner, Bias::Added)?;
        let step = net.each(Function::Softplus, &[step])?;
        let decay = net.parameter("A_log", &[inner, state])?;
        let decay = negative_exponential(net, decay)?;
        let skip = net.parameter("D", &[inner])?;
        let scan = self.scan(net, &Tokens::of(net, x));
        let inputs = [mixed, step, normed[1], normed[2], decay, skip];
        let scanned = recurrence(net, scan, &inputs)?;
        keep(net, &[inner, state], self.state_format);
        let gate = net.each(Function::Silu, &[gate])?;
        let gated = net.mul(scanned, gate)?;
        net.linear("out_proj", gated, hidden, self.bias)
    }

    /// 9 operations per token, channel and element of the state: the author's count
    /// (github.com/state-spaces/mamba issue 110, `9 * B * L * D * N`). They are those of a parallel
    /// scan: `exp(dt A)` takes a multiplication and an exponential, `dt B x` two multiplications,
    /// the scan's `(a1 a2, a2 b1 + b2)` two multiplications and an addition, `C h` a multiplication
    /// and an addition. None of it is a matrix product, so none of it counts as
    /// multiply-accumulates. Token by token the scan's first multiplication is not needed, which
    /// leaves 8.
    ///
    /// The skip `D x` adds a multiplication and an addition per token and channel.
    fn scan(&self, net: &Network, tokens: &Tokens) -> Stated {
        let elements = &tokens.count() * &dim(self.inner);
        let states = &elements * &dim(self.state);
        let per_state = if net.pass == Pass::Decode { 7 } else { 8 };
        let result = net.tensor_type(&tokens.shape(&[self.inner]));
        Stated {
            other: &(&states * &dim(per_state)) + &(&elements * &dim(2)),
            transcendental: states,
            ..Stated::new("selective_scan", Kind::Recurrent, vec![result])
        }
    }
}

/// `-exp(x)`: decays are kept as logarithms.
pub(super) fn negative_exponential(net: &mut Network, x: TensorId) -> Made {
    let power = net.each(Function::Exp, &[x])?;
    net.each(Function::Negate, &[power])
}

/// A state space whose decay is one number per head, computed in chunks.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct Mamba2 {
    /// Heads.
    pub(in crate::arch) heads: i64,
    /// Channels of a head.
    pub(in crate::arch) head_dim: i64,
    /// Groups of heads that share B and C.
    pub(in crate::arch) groups: i64,
    /// Elements of the state per channel.
    pub(in crate::arch) state: i64,
    /// Tokens of a chunk.
    pub(in crate::arch) chunk: i64,
    /// The convolution before it.
    pub(in crate::arch) convolution: CausalConvolution,
    /// Bias of the projection in.
    pub(in crate::arch) bias_in: Bias,
    /// Bias of the projection out.
    pub(in crate::arch) bias_out: Bias,
    /// What stands between the recurrence and the projection out.
    pub(in crate::arch) gate: GatedNorm,
    /// The format of the state that is kept.
    pub(in crate::arch) state_format: Format,
}

/// How the gate of a [`Mamba2`] meets its norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum GatedNorm {
    /// `norm(y silu(z))`, over each of so many groups of channels.
    After(i64),
    /// `norm(y) silu(z)`, likewise.
    Before(i64),
    /// `y silu(z)`.
    None,
}

impl Mamba2 {
    /// Channels of the recurrence.
    pub(in crate::arch) fn inner(&self) -> i64 {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Whether groups go evenly into heads.
    pub(super) fn check(&self) -> Result<(), Error> {
        let (heads, groups) = (self.heads, self.groups);
        match heads % groups {
            0 => Ok(()),
            _ => Err(Error::new(format!("{heads} heads do not share {groups} groups evenly"))),
        }
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        self.check()?;
        let (hidden, tokens) = (net.width(x)?, Tokens::of(net, x));
        let inner = self.inner();
        let shared = self.groups.saturating_mul(self.state);
        let mixed_width = inner.saturating_add(shared.saturating_mul(2));
        let width = inner.saturating_add(mixed_width).saturating_add(self.heads);
        let all = net.linear("in_proj", x, width, self.bias_in)?;
        let parts = net.split(all, &[inner, mixed_width, self.heads])?;
        let (gate, step) = (parts[0], parts[2]);
        let mixed = self.convolution.build(net, "conv1d", parts[1])?;
        let mixed = net.split(mixed, &[inner, shared, shared])?;
        let bias = net.parameter("dt_bias", &[self.heads])?;
        let step = net.add(step, bias)?;
        let step = net.each(Function::Softplus, &[step])?;
        let decay = net.parameter("A_log", &[self.heads])?;
        let decay = negative_exponential(net, decay)?;
        let skip = net.parameter("D", &[self.heads])?;
        let values = net.reshape(mixed[0], &tokens.shape(&[self.heads, self.head_dim]))?;
        let groups = tokens.shape(&[self.groups, self.state]);
        let (key, query) = (net.reshape(mixed[1], &groups)?, net.reshape(mixed[2], &groups)?);
        let scan = self.scan(net, &tokens);
        let scanned = recurrence(net, scan, &[values, step, key, query, decay, skip])?;
        keep(net, &[self.heads, self.head_dim, self.state], self.state_format);
        let flat = net.reshape(scanned, &tokens.shape(&[inner]))?;
        let gated = self.gated(net, flat, gate)?;
        net.linear("out_proj", gated, hidden, self.bias_out)
    }

    fn gated(&self, net: &mut Network, x: TensorId, gate: TensorId) -> Made {
        let gate = net.each(Function::Silu, &[gate])?;
        match self.gate {
            GatedNorm::After(groups) => {
                let gated = net.mul(x, gate)?;
                grouped_norm(net, gated, groups)
            }
            GatedNorm::Before(groups) => {
                let normed = grouped_norm(net, x, groups)?;
                net.mul(normed, gate)
            }
            GatedNorm::None => net.mul(x, gate),
        }
    }

    fn scan(&self, net: &Network, tokens: &Tokens) -> Stated {
        let result = net.tensor_type(&tokens.shape(&[self.heads, self.head_dim]));
        let stated = Stated::new("state_space_duality", Kind::Recurrent, vec![result]);
        match net.pass {
            Pass::Whole => self.in_chunks(tokens, stated),
            Pass::Decode => self.step(tokens, stated),
        }
    }

    /// The products of arXiv 2405.21060, section 6, with the causal mask of a chunk exact: over the
    /// pairs of a chunk `C B^T` (per group) and the result times `X`; over all tokens `B^T X`, the
    /// chunk's contribution to the state, and `C h`, what the state adds to the result.
    ///
    /// Beside them, per pair and head the decay between the two: a subtraction of running sums, an
    /// exponential, and its product with the score. Per token and channel `dt x`, the decay to the
    /// end of the chunk, the decay from its start and the sum of both results, `D x` and its sum:
    /// 6. Per token and head `dt A`, its running sum, the distance to the end, and two
    /// exponentials. Per chunk and element of the state a multiplication and an addition, and per
    /// chunk and head an exponential.
    fn in_chunks(&self, tokens: &Tokens, stated: Stated) -> Stated {
        let (n_tokens, pairs) = (tokens.count(), tokens.pairs(self.chunk));
        let (heads, state) = (dim(self.heads), dim(self.state));
        let inner = &heads * &dim(self.head_dim);
        let scores = &pairs * &(&dim(self.groups) * &state);
        let within = &pairs * &inner;
        let states = &inner * &state;
        let across = &n_tokens * &(&states * &dim(2));
        let chunks = tokens.chunks(self.chunk);
        let (pairs, per_head) = (&pairs * &heads, &n_tokens * &heads);
        let elementwise = &(&pairs * &dim(2)) + &(&(&n_tokens * &inner) * &dim(6));
        let handed_on = &chunks * &(&states * &dim(2));
        Stated {
            macs: &(&scores + &within) + &across,
            other: &(&elementwise + &(&per_head * &dim(3))) + &handed_on,
            transcendental: &(&pairs + &(&per_head * &dim(2))) + &(&chunks * &heads),
            ..stated
        }
    }

    /// One token: `h = a h + (dt x) B^T` and `y = C h + D x`. The sum over the outer product and
    /// the product with C are multiply-accumulates, one each per element of the state, and `a h` is
    /// a multiplication: 5 FLOPs in all; kernels that multiply `dt B` for each channel take 6.
    fn step(&self, tokens: &Tokens, stated: Stated) -> Stated {
        let heads = &tokens.count() * &dim(self.heads);
        let elements = &heads * &dim(self.head_dim);
        let states = &elements * &dim(self.state);
        let other = &(&states + &(&elements * &dim(3))) + &heads;
        Stated { macs: &states * &dim(2), other, transcendental: heads, ..stated }
    }
}

/// A root mean square over each of so many groups of channels, and one scale per channel.
fn grouped_norm(net: &mut Network, x: TensorId, groups: i64) -> Made {
    if groups == 1 {
        return net.norm("norm", x, Norm::Rms);
    }
    let (width, shape) = (net.width(x)?, net.shape(x));
    if width % groups != 0 {
        return Err(Error::new(format!("{width} channels are not {groups} even groups")));
    }
    net.module("norm", "RMSNormGated", |net| {
        let weight = net.parameter("weight", &[width])?;
        let mut apart = shape.clone();
        apart.pop();
        apart.extend([dim(groups), dim(width / groups)]);
        let apart = net.reshape(x, &apart)?;
        let normed = net.norm("", apart, Norm::PlainRms)?;
        let flat = net.reshape(normed, &shape)?;
        net.mul(flat, weight)
    })
}
