//! The delta rule with gates: Gated DeltaNet (arXiv 2412.06464) and Kimi Delta Attention
//! (arXiv 2510.26692).
//!
//! Weights lie as in `transformers` models/qwen3_next, models/qwen3_5, models/olmo_hybrid and
//! models/kimi_linear.

use super::mamba::negative_exponential;
use super::recurrent::{CausalConvolution, Tokens, keep, recurrence};
use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Dim, Function, Kind, Stated, TensorId};
use flopwise_formats::Format;

/// Gated DeltaNet: one decay per head and token.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct GatedDelta {
    /// Heads of queries and keys.
    pub(in crate::arch) key_heads: i64,
    /// Heads of values.
    pub(in crate::arch) value_heads: i64,
    /// Elements of a query or key.
    pub(in crate::arch) key_dim: i64,
    /// Elements of a value.
    pub(in crate::arch) value_dim: i64,
    /// The convolution before it.
    pub(in crate::arch) convolution: CausalConvolution,
    /// How queries, keys, values and gates come about.
    pub(in crate::arch) projections: DeltaProjections,
    /// Names of the norm and of the projection out.
    pub(in crate::arch) output: [&'static str; 2],
    /// The format of the state that is kept.
    pub(in crate::arch) state_format: Format,
}

/// How queries, keys, values and gates of a [`GatedDelta`] come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum DeltaProjections {
    /// `in_proj_qkvz` and `in_proj_ba` (Qwen3-Next).
    Joined,
    /// `in_proj_qkv`, `in_proj_z`, `in_proj_b`, `in_proj_a` (Qwen3.5).
    Parts,
    /// `q_proj`, `k_proj`, `v_proj`, `a_proj`, `b_proj`, `g_proj` (OLMo Hybrid).
    Apart,
}

/// What the projections give: queries, keys and values joined; the gate of the result; of each
/// value head how much is written (`beta`) and how much is forgotten.
struct Projected {
    mixed: TensorId,
    gate: TensorId,
    write: TensorId,
    forget: TensorId,
}

impl GatedDelta {
    fn widths(&self) -> [i64; 2] {
        let width = |heads: i64, size: i64| heads.saturating_mul(size);
        [width(self.key_heads, self.key_dim), width(self.value_heads, self.value_dim)]
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (value_heads, key_heads) = (self.value_heads, self.key_heads);
        if value_heads % key_heads != 0 {
            let what =
                format!("{value_heads} value heads do not share {key_heads} key heads evenly");
            return Err(Error::new(what));
        }
        let (hidden, tokens) = (net.width(x)?, Tokens::of(net, x));
        let [keys, values] = self.widths();
        let Projected { mixed, gate, write, forget } = self.project(net, x)?;
        let mixed = self.convolution.build(net, "conv1d", mixed)?;
        let parts = net.split(mixed, &[keys, keys, values])?;
        let of_keys = tokens.shape(&[key_heads, self.key_dim]);
        let of_values = tokens.shape(&[value_heads, self.value_dim]);
        let query = net.reshape(parts[0], &of_keys)?;
        let key = net.reshape(parts[1], &of_keys)?;
        let value = net.reshape(parts[2], &of_values)?;
        let write = net.each(Function::Sigmoid, &[write])?;
        let decay = self.decay(net, forget)?;
        let rule = DeltaRule {
            heads: [key_heads, value_heads],
            sizes: [self.key_dim, self.value_dim],
            decays: value_heads,
        };
        let rule = rule.stated(net, &tokens, "gated_delta_rule");
        let result = recurrence(net, rule, &[query, key, value, decay, write])?;
        keep(net, &[value_heads, self.key_dim, self.value_dim], self.state_format);
        let gate = net.reshape(gate, &of_values)?;
        let [norm, out] = self.output;
        let normed = net.norm(norm, result, Norm::Rms)?;
        let gate = net.each(Function::Silu, &[gate])?;
        let gated = net.mul(normed, gate)?;
        let flat = net.reshape(gated, &tokens.shape(&[values]))?;
        net.linear(out, flat, hidden, Bias::None)
    }

    /// `-exp(A_log) softplus(a + dt_bias)`.
    fn decay(&self, net: &mut Network, forget: TensorId) -> Made {
        let bias = net.parameter("dt_bias", &[self.value_heads])?;
        let step = net.add(forget, bias)?;
        let step = net.each(Function::Softplus, &[step])?;
        let rate = net.parameter("A_log", &[self.value_heads])?;
        let rate = negative_exponential(net, rate)?;
        net.mul(step, rate)
    }

    fn project(&self, net: &mut Network, x: TensorId) -> Result<Projected, Error> {
        let ([keys, values], heads) = (self.widths(), self.value_heads);
        let mixed_width = keys.saturating_mul(2).saturating_add(values);
        let mut linear = |name: &str, out: i64| net.linear(name, x, out, Bias::None);
        match self.projections {
            DeltaProjections::Joined => {
                let both = linear("in_proj_qkvz", mixed_width.saturating_add(values))?;
                let gates = linear("in_proj_ba", heads.saturating_mul(2))?;
                let both = net.split(both, &[mixed_width, values])?;
                let gates = net.split(gates, &[heads, heads])?;
                Ok(Projected { mixed: both[0], gate: both[1], write: gates[0], forget: gates[1] })
            }
            DeltaProjections::Parts => Ok(Projected {
                mixed: linear("in_proj_qkv", mixed_width)?,
                gate: linear("in_proj_z", values)?,
                write: linear("in_proj_b", heads)?,
                forget: linear("in_proj_a", heads)?,
            }),
            DeltaProjections::Apart => {
                let parts =
                    [linear("q_proj", keys)?, linear("k_proj", keys)?, linear("v_proj", values)?];
                let gate = linear("g_proj", values)?;
                let (write, forget) = (linear("b_proj", heads)?, linear("a_proj", heads)?);
                Ok(Projected { mixed: net.concat(&parts, 2)?, gate, write, forget })
            }
        }
    }
}

/// Kimi Delta Attention: one decay per channel of the keys.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct KimiDelta {
    /// Heads.
    pub(in crate::arch) heads: i64,
    /// Elements of a query, key or value.
    pub(in crate::arch) head_dim: i64,
    /// The convolution before it.
    pub(in crate::arch) convolution: CausalConvolution,
    /// How its weights lie.
    pub(in crate::arch) weights: KimiWeights,
    /// Whether one projection makes the gate of the result, or two narrow ones.
    pub(in crate::arch) has_full_gate: bool,
    /// Whether decays have a bound: `bound sigmoid(exp(A_log) (f(x) + dt_bias))`.
    pub(in crate::arch) is_bounded: bool,
    /// The format of the state that is kept.
    pub(in crate::arch) state_format: Format,
}

/// How the weights of a [`KimiDelta`] lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum KimiWeights {
    /// One convolution for queries, keys and values, a module for the decay (transformers).
    Joined,
    /// A convolution each, and `A_log` with as many elements as a head has, of which the first are
    /// the heads' and the others zero (the checkpoint of Kimi K3).
    Apart,
}

impl KimiDelta {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (hidden, tokens) = (net.width(x)?, Tokens::of(net, x));
        let width = self.heads.saturating_mul(self.head_dim);
        let mut parts = Vec::new();
        for name in ["q_proj", "k_proj", "v_proj"] {
            parts.push(net.linear(name, x, width, Bias::None)?);
        }
        let parts = self.convolve(net, &parts, width)?;
        let apart = tokens.shape(&[self.heads, self.head_dim]);
        let mut operands = Vec::new();
        for part in parts {
            operands.push(net.reshape(part, &apart)?);
        }
        operands.push(self.decay(net, x, &tokens)?);
        let write = net.linear("b_proj", x, self.heads, Bias::None)?;
        operands.push(net.each(Function::Sigmoid, &[write])?);
        let rule = DeltaRule {
            heads: [self.heads, self.heads],
            sizes: [self.head_dim, self.head_dim],
            decays: width,
        };
        let rule = rule.stated(net, &tokens, "kimi_delta_rule");
        let result = recurrence(net, rule, &operands)?;
        keep(net, &[self.heads, self.head_dim, self.head_dim], self.state_format);
        let gate = match self.has_full_gate {
            true => net.linear("g_proj", x, width, Bias::None)?,
            false => {
                let narrow = net.linear("g_a_proj", x, self.head_dim, Bias::None)?;
                net.linear("g_b_proj", narrow, width, Bias::None)?
            }
        };
        let gate = net.reshape(gate, &apart)?;
        let gate = net.each(Function::Sigmoid, &[gate])?;
        let normed = net.norm("o_norm", result, Norm::Rms)?;
        let gated = net.mul(normed, gate)?;
        let flat = net.reshape(gated, &tokens.shape(&[width]))?;
        net.linear("o_proj", flat, hidden, Bias::None)
    }

    /// The convolutions of queries, keys and values.
    fn convolve(
        &self,
        net: &mut Network,
        parts: &[TensorId],
        width: i64,
    ) -> Result<Vec<TensorId>, Error> {
        match self.weights {
            KimiWeights::Joined => {
                let joined = net.concat(parts, 2)?;
                let mixed = self.convolution.build(net, "conv1d", joined)?;
                net.split(mixed, &[width, width, width])
            }
            KimiWeights::Apart => {
                let named = parts.iter().zip(["q_conv1d", "k_conv1d", "v_conv1d"]);
                named.map(|(part, name)| self.convolution.build(net, name, *part)).collect()
            }
        }
    }

    fn decay(&self, net: &mut Network, x: TensorId, tokens: &Tokens) -> Made {
        match self.weights {
            KimiWeights::Joined => {
                net.module("forget_gate", "ForgetGate", |net| self.decays(net, x, tokens))
            }
            KimiWeights::Apart => self.decays(net, x, tokens),
        }
    }

    /// `-exp(A_log) softplus(f(x) + dt_bias)`, with `f` two narrow projections; or bounded.
    fn decays(&self, net: &mut Network, x: TensorId, tokens: &Tokens) -> Made {
        let width = self.heads.saturating_mul(self.head_dim);
        let narrow = net.linear("f_a_proj", x, self.head_dim, Bias::None)?;
        let wide = net.linear("f_b_proj", narrow, width, Bias::None)?;
        let bias = net.parameter("dt_bias", &[width])?;
        let step = net.add(wide, bias)?;
        let of_heads = tokens.shape(&[self.heads, self.head_dim]);
        if self.is_bounded {
            let step = net.reshape(step, &of_heads)?;
            let rate = self.rate(net)?;
            let rate = net.each(Function::Exp, &[rate])?;
            let step = net.mul(step, rate)?;
            let step = net.each(Function::Sigmoid, &[step])?;
            return net.scale(step);
        }
        let step = net.each(Function::Softplus, &[step])?;
        let step = net.reshape(step, &of_heads)?;
        let rate = self.rate(net)?;
        let rate = negative_exponential(net, rate)?;
        net.mul(step, rate)
    }

    /// `A_log` of each head.
    fn rate(&self, net: &mut Network) -> Made {
        match self.weights {
            KimiWeights::Joined => net.parameter("A_log", &[1, 1, self.heads, 1]),
            KimiWeights::Apart => {
                if self.head_dim < self.heads {
                    let (heads, size) = (self.heads, self.head_dim);
                    let what = format!("A_log has {size} elements, too few for {heads} heads");
                    return Err(Error::new(what));
                }
                let padded = net.parameter("A_log", &[self.head_dim])?;
                let rates = net.slice(padded, 0, 0, self.heads)?;
                net.reshape(rates, &[Dim::ONE, Dim::ONE, dim(self.heads), Dim::ONE])
            }
        }
    }
}

/// The recurrence of both.
struct DeltaRule {
    /// Heads of keys and of values.
    heads: [i64; 2],
    /// Elements of a key and of a value.
    sizes: [i64; 2],
    /// Decays per token.
    decays: i64,
}

impl DeltaRule {
    /// Token by token the state `S [d_k, d_v]` of each value head is gone through four times: it
    /// decays, `S^T k` reads what it holds for the key, the outer product of the key with what is
    /// missing is added, `S^T q` reads the result. Each is taken as one multiply-accumulate per
    /// element: `4 H_v d_k d_v` per token, which Megatron-Bridge (training/utils/flop_utils.py,
    /// `gdn_layer_flops`: `num_v_heads * v_head_dim^2 * 4`) and MaxText count as well. Kernels that
    /// work in chunks of 64 tokens do other products instead, as many as the chunk makes them.
    ///
    /// Beside them: queries and keys are brought to length 1 (a square, a sum, a multiplication
    /// each, and a root per head), queries are scaled, the difference to the value is taken and
    /// scaled.
    fn stated(&self, net: &Network, tokens: &Tokens, name: &'static str) -> Stated {
        let ([key_heads, value_heads], [key, value]) = (self.heads.map(dim), self.sizes.map(dim));
        let n_tokens = tokens.count();
        let states = &(&value_heads * &key) * &value;
        let keys = &key_heads * &key;
        let values = &value_heads * &value;
        let other = &(&keys * &dim(7)) + &(&values * &dim(2));
        let roots = &(&key_heads * &dim(2)) + &dim(self.decays);
        let [_, value_heads] = self.heads;
        let result = net.tensor_type(&tokens.shape(&[value_heads, self.sizes[1]]));
        let per_token = |count: &Dim| &n_tokens * count;
        Stated {
            macs: per_token(&(&states * &dim(4))),
            other: per_token(&other),
            transcendental: per_token(&roots),
            ..Stated::new(name, Kind::Recurrent, vec![result])
        }
    }
}
