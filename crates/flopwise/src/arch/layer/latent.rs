//! Multi-head latent attention (MLA, DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values of
//! all heads come from one short latent per token, and a token keeps only that latent.
//!
//! A whole pass expands the latent to keys and values, as transformers does
//! (`models/deepseek_v3/modeling_deepseek_v3.py`). Decoding takes the absorbed form: the key half of
//! the expansion is applied to the query and the value half to the result, so that all heads attend
//! over the latents themselves.
//!
//! Not here: which keys an indexer chooses (`indexer.rs`).

use super::indexer::Indexer;
use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Attention, Dim, Function, Mask, MatMul, Op, Orientation, Pass, TensorId};

/// See [`super::Mixer::Latent`].
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct LatentAttention {
    /// The class in the reference implementation.
    pub(in crate::arch) class: &'static str,
    /// Heads.
    pub(in crate::arch) heads: i64,
    /// Elements of the query's latent; `None` where queries are projected at once.
    pub(in crate::arch) query_rank: Option<i64>,
    /// Elements of the latent of keys and values.
    pub(in crate::arch) rank: i64,
    /// Elements of a query head that are not rotated.
    pub(in crate::arch) plain: i64,
    /// Elements of a query head beside them, whose keys all heads share.
    pub(in crate::arch) rotary: i64,
    /// Whether those are rotated (Kimi Linear leaves them as they are).
    pub(in crate::arch) is_rotated: bool,
    /// Elements of a value head.
    pub(in crate::arch) value: i64,
    /// Of the projections to the latents and of the result.
    pub(in crate::arch) bias: Bias,
    /// Which keys a query sees.
    pub(in crate::arch) mask: Mask,
    /// What chooses them, where this layer runs it.
    pub(in crate::arch) indexer: Option<Indexer>,
    /// The name of a linear layer whose sigmoid scales the result before its projection.
    pub(in crate::arch) gate: Option<&'static str>,
}

impl LatentAttention {
    /// As DeepSeek-V3 has it.
    pub(in crate::arch) fn deepseek(
        heads: i64,
        [query_rank, rank]: [Option<i64>; 2],
        [plain, rotary, value]: [i64; 3],
    ) -> Result<LatentAttention, Error> {
        let rank = rank.ok_or_else(|| Error::new("`kv_lora_rank` is missing"))?;
        Ok(LatentAttention {
            class: "Attention",
            heads,
            query_rank,
            rank,
            plain,
            rotary,
            is_rotated: true,
            value,
            bias: Bias::None,
            mask: Mask::causal(),
            indexer: None,
            gate: None,
        })
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let hidden = net.width(x)?;
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let residual = match self.query_rank {
            Some(rank) => {
                let narrow = net.linear("q_a_proj", x, rank, self.bias)?;
                net.norm("q_a_layernorm", narrow, Norm::Rms)?
            }
            None => x,
        };
        let name = if self.query_rank.is_some() { "q_b_proj" } else { "q_proj" };
        let query_size = self.plain + self.rotary;
        let query = net.linear(name, residual, self.heads * query_size, Bias::None)?;
        let query = self.apart(net, query, query_size)?;
        let [plain, rotary] = self.halves(net, query, [self.plain, self.rotary])?;
        let rotary = self.turn(net, rotary)?;
        let both = net.linear("kv_a_proj_with_mqa", x, self.rank + self.rotary, self.bias)?;
        let [latent, shared] = self.halves(net, both, [self.rank, self.rotary])?;
        let latent = net.norm("kv_a_layernorm", latent, Norm::Rms)?;
        let one_head = |size: i64| [batch.clone(), Dim::ONE, seq.clone(), dim(size)];
        let latent = net.reshape(latent, &one_head(self.rank))?;
        let shared = net.reshape(shared, &one_head(self.rotary))?;
        let shared = self.turn(net, shared)?;
        let chosen = match &self.indexer {
            Some(indexer) => Some(net.module("indexer", "Indexer", |net| {
                indexer.build(net, x, residual, self.rotary)
            })?),
            None => None,
        };
        let seen = match net.pass {
            Pass::Whole => self.expanded(net, [plain, rotary, latent, shared], chosen)?,
            Pass::Decode => self.absorbed(net, [plain, rotary, latent, shared], chosen)?,
        };
        net.state("latent", dim(self.rank + self.rotary), net.format(), crate::graph::Keeps::All);
        let turned = net.permute(seen, &[0, 2, 1, 3])?;
        let copy = net.contiguous(turned)?;
        let mut merged = net.reshape(copy, &[batch, seq, dim(self.heads * self.value)])?;
        if let Some(gate) = self.gate {
            let gate = net.linear(gate, x, self.heads * self.value, Bias::None)?;
            let gate = net.each(Function::Sigmoid, &[gate])?;
            merged = net.mul(merged, gate)?;
        }
        net.linear("o_proj", merged, hidden, self.bias)
    }

    /// Keys and values of every head.
    fn expanded(
        &self,
        net: &mut Network,
        [plain, rotary, latent, shared]: [TensorId; 4],
        chosen: Option<TensorId>,
    ) -> Made {
        let query = net.concat(&[plain, rotary], 3)?;
        let (batch, seq) = (net.axis(latent, 4), net.axis(latent, 2));
        let size = self.plain + self.value;
        let wide = net.linear("kv_b_proj", latent, self.heads * size, Bias::None)?;
        let wide = net.reshape(wide, &[batch.clone(), seq.clone(), dim(self.heads), dim(size)])?;
        let wide = net.permute(wide, &[0, 2, 1, 3])?;
        let [key, value] = self.halves(net, wide, [self.plain, self.value])?;
        let of_all = [batch, dim(self.heads), seq, dim(self.rotary)];
        let shared = net.expand(shared, &of_all)?;
        let key = net.concat(&[key, shared], 3)?;
        net.attend([query, key, value], Attention::new(self.mask.clone()), chosen)
    }

    /// `q_plain W_UK` meets the latents, which are keys and values of all heads at once; `W_UV` makes
    /// values of what is seen.
    fn absorbed(
        &self,
        net: &mut Network,
        [plain, rotary, latent, shared]: [TensorId; 4],
        chosen: Option<TensorId>,
    ) -> Made {
        let size = self.plain + self.value;
        let class = "torch.nn.modules.linear.Linear";
        let (query, of_values) = net.module("kv_b_proj", class, |net| {
            let weight = net.parameter("weight", &[self.heads * size, self.rank])?;
            let apart = net.reshape(weight, &[dim(self.heads), dim(size), dim(self.rank)])?;
            let of_keys = net.slice(apart, 1, 0, self.plain)?;
            let of_values = net.slice(apart, 1, self.plain, size)?;
            Ok((net.matmul(plain, of_keys)?, of_values))
        })?;
        let query = net.concat(&[query, rotary], 3)?;
        let key = net.concat(&[latent, shared], 3)?;
        let value = net.slice(key, 3, 0, self.rank)?;
        let seen = net.attend([query, key, value], Attention::new(self.mask.clone()), chosen)?;
        net.module("kv_b_proj", class, |net| {
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
            net.apply("matmul", "aten.matmul.default", op, &[seen, of_values])
        })
    }

    fn turn(&self, net: &mut Network, x: TensorId) -> Made {
        if self.is_rotated { net.rotary(x, self.rotary) } else { Ok(x) }
    }

    fn halves(
        &self,
        net: &mut Network,
        x: TensorId,
        sizes: [i64; 2],
    ) -> Result<[TensorId; 2], Error> {
        let pieces = net.split(x, &sizes)?;
        match pieces.as_slice() {
            [first, second] => Ok([*first, *second]),
            _ => Err(Error::new("a split into two gave another number")),
        }
    }

    /// `[b, s, heads * size]` -> `[b, heads, s, size]`.
    fn apart(&self, net: &mut Network, x: TensorId, size: i64) -> Made {
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let apart = net.reshape(x, &[batch, seq, dim(self.heads), dim(size)])?;
        net.permute(apart, &[0, 2, 1, 3])
    }
}
