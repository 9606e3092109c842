//! Attention over a window and compressed entries (CSA and HCA, DeepSeek-V4, transformers
//! `models/deepseek_v4/modeling_deepseek_v4.py`): one latent of a token is the key and the value of
//! all heads; behind it lie entries that each join several tokens, of which an indexer may choose the
//! best.
//!
//! Not here: the residual streams around it (`hyper.rs`).

use super::hyper::plain;
use crate::arch::network::{Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{
    Attention, Compressed, Dim, Entries, Keeps, Kind, Mask, MatMul, Op, Orientation, Pass, Stated,
    StatedGradient, TensorId,
};

/// The tokens that a decoded token sees; what the count of a decoded token binds (`cost::CONTEXT`).
const CONTEXT: &str = "context";

/// The attention of one layer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct CompressedAttention {
    /// Heads.
    pub(in crate::arch) heads: i64,
    /// Elements of a head, and of the latent.
    pub(in crate::arch) head_dim: i64,
    /// Elements of each head that are rotated.
    pub(in crate::arch) rotary: i64,
    /// Elements of the latent of the queries.
    pub(in crate::arch) query_rank: i64,
    /// Tokens whose latents a query sees.
    pub(in crate::arch) window: i64,
    /// How results are projected.
    pub(in crate::arch) output: Grouped,
    /// What lies behind the window, where this layer has it.
    pub(in crate::arch) compression: Option<Compression>,
}

/// Groups of heads are projected apart, and their results together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Grouped {
    /// Groups.
    pub(in crate::arch) groups: i64,
    /// Elements of each group's result.
    pub(in crate::arch) rank: i64,
}

/// Entries of several tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Compression {
    /// Tokens of one.
    pub(in crate::arch) tokens: i64,
    /// The indexer: heads, elements of a head, entries chosen. With it each entry joins its own
    /// tokens and those of the entry before.
    pub(in crate::arch) indexer: Option<[i64; 3]>,
}

/// What one series of entries is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    tokens: i64,
    width: i64,
    rotary: i64,
    /// 2 where an entry reaches into the tokens of the one before.
    reach: i64,
}

impl CompressedAttention {
    /// `x [b, s, hidden]` -> the same shape.
    pub(in crate::arch) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let hidden = net.width(x)?;
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let (heads, head_dim) = (dim(self.heads), dim(self.head_dim));
        let residual = plain(net, "q_a_proj", x, self.query_rank)?;
        let residual = net.norm("q_a_norm", residual, Norm::Rms)?;
        let query = plain(net, "q_b_proj", residual, self.heads * self.head_dim)?;
        let shape = [batch.clone(), seq.clone(), heads, head_dim.clone()];
        let query = net.reshape(query, &shape)?;
        let query = net.permute(query, &[0, 2, 1, 3])?;
        let query = net.norm("q_b_norm", query, Norm::PlainRms)?;
        let query = net.rotary(query, self.rotary)?;
        let key = plain(net, "kv_proj", x, self.head_dim)?;
        let key = net.norm("kv_norm", key, Norm::Rms)?;
        let key = net.reshape(key, &[batch, Dim::ONE, seq, head_dim])?;
        let key = net.rotary(key, self.rotary)?;
        // The same tensor: read once, and kept once.
        let value = net.slice(key, 3, 0, self.head_dim)?;
        let sinks = net.parameter("sinks", &[self.heads])?;
        let entries = match self.compression {
            Some(compression) => {
                let class = if compression.indexer.is_some() { "CSA" } else { "HCA" };
                net.module("compressor", class, |net| {
                    self.compress(net, compression, [x, residual])
                })?
            }
            None => Vec::new(),
        };
        let inputs: Vec<TensorId> = [query, key, value, sinks].into_iter().chain(entries).collect();
        let op = Op::Attention(Attention::new(self.mask()));
        let operator = "aten.scaled_dot_product_attention.default";
        let seen = net.apply("attention", operator, op, &inputs)?;
        net.state("keys", dim(self.head_dim), net.format(), Keeps::Window(dim(self.window)));
        let seen = net.rotary(seen, self.rotary)?;
        self.project(net, seen, hidden)
    }

    fn mask(&self) -> Mask {
        let own = Mask::window(&dim(self.window), Dim::ZERO);
        match self.compression {
            Some(Compression { tokens, indexer }) => Mask::Compressed(Compressed {
                own: Some(Box::new(own)),
                tokens: dim(tokens),
                best: indexer.map(|[_, _, best]| dim(best)),
                from: Entries::Complete,
                offset: Dim::ZERO,
            }),
            None => own,
        }
    }

    /// `[b, heads, s, d]` -> `[b, s, hidden]`.
    fn project(&self, net: &mut Network, seen: TensorId, hidden: i64) -> Made {
        let Grouped { groups, rank } = self.output;
        let (batch, seq) = (net.axis(seen, 4), net.axis(seen, 2));
        let width = self.heads * self.head_dim / groups;
        let n_tokens = &batch * &seq;
        let turned = net.permute(seen, &[0, 2, 1, 3])?;
        let copy = net.contiguous(turned)?;
        let grouped = net.reshape(copy, &[n_tokens, dim(groups), dim(width)])?;
        let grouped = net.permute(grouped, &[1, 0, 2])?;
        let narrow = net.module("o_a_proj", "GroupedLinear", |net| {
            let weight = net.parameter("weight", &[groups * rank, width])?;
            let weight = net.reshape(weight, &[dim(groups), dim(rank), dim(width)])?;
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
            net.apply("", "aten.bmm.default", op, &[grouped, weight])
        })?;
        let narrow = net.permute(narrow, &[1, 0, 2])?;
        let narrow = net.contiguous(narrow)?;
        let narrow = net.reshape(narrow, &[batch, seq, dim(groups * rank)])?;
        plain(net, "o_b_proj", narrow, hidden)
    }

    /// The entries `[b, 1, n, d]`, and where an indexer runs, which of them are chosen.
    fn compress(
        &self,
        net: &mut Network,
        compression: Compression,
        [x, residual]: [TensorId; 2],
    ) -> Result<Vec<TensorId>, Error> {
        let Compression { tokens, indexer } = compression;
        let reach = if indexer.is_some() { 2 } else { 1 };
        let entry = Entry { tokens, width: self.head_dim, rotary: self.rotary, reach };
        let entries = entry.build(net, x)?;
        net.state("compressed keys", dim(self.head_dim), net.format(), Keeps::Every(dim(tokens)));
        let Some(indexer) = indexer else { return Ok(vec![entries]) };
        let chosen =
            net.module("indexer", "Indexer", |net| self.index(net, entry, indexer, [x, residual]))?;
        Ok(vec![entries, chosen])
    }

    /// Which entries each query sees: `[b, s, best]`.
    fn index(
        &self,
        net: &mut Network,
        entry: Entry,
        [heads, head_dim, best]: [i64; 3],
        [x, residual]: [TensorId; 2],
    ) -> Made {
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let keys = Entry { width: head_dim, ..entry }.build(net, x)?;
        let tokens = dim(entry.tokens);
        net.state("index keys", dim(head_dim), net.format(), Keeps::Every(tokens.clone()));
        let query = plain(net, "q_b_proj", residual, heads * head_dim)?;
        let shape = [batch.clone(), seq.clone(), dim(heads), dim(head_dim)];
        let query = net.reshape(query, &shape)?;
        let query = net.permute(query, &[0, 2, 1, 3])?;
        let query = net.rotary(query, self.rotary)?;
        let weights =
            net.module("scorer", "IndexerScorer", |net| plain(net, "weights_proj", x, heads))?;
        let mask = Mask::Compressed(Compressed {
            own: None,
            tokens: tokens.clone(),
            best: None,
            from: Entries::Complete,
            offset: Dim::ZERO,
        });
        let op = Op::IndexScores(Attention::new(mask));
        let scores = net.apply("scores", "index_scores", op, &[query, keys, weights])?;
        // One compare per entry at least, as for every choice of the largest.
        let there = length(net, &seq).floor_div(&tokens);
        let results = net.tensor_type(&[batch.clone(), seq.clone(), there.minimum(&dim(best))]);
        let topk = Stated::new("topk", Kind::Reduction, vec![results]);
        let other = Dim::product(&[batch, seq, there]);
        let topk = Stated { other, ..topk };
        let chosen = net.stated(topk, StatedGradient::Nothing, &[scores])?;
        chosen.first().copied().ok_or_else(|| Error::new("no entries are chosen"))
    }
}

impl Entry {
    /// `x [b, s, hidden]` -> the entries that are completed, `[b, 1, n, width]`.
    ///
    /// Of each token come as many candidates as the entries it goes into, and as many scores, to
    /// which a trained bias of its place is added. An entry is the sum of the candidates of its
    /// tokens, weighed by the softmax of their scores, for each element apart.
    fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let wide = self.reach * self.width;
        let candidates = plain(net, "kv_proj", x, wide)?;
        let scores = plain(net, "gate_proj", x, wide)?;
        let bias = net.parameter("position_bias", &[self.tokens, wide])?;
        let tokens = dim(self.tokens);
        let completed = match net.pass {
            Pass::Whole => seq.floor_div(&tokens),
            Pass::Decode => {
                let context = length(net, &seq);
                let before = (&context - &Dim::ONE).floor_div(&tokens);
                &context.floor_div(&tokens) - &before
            }
        };
        let shape = [batch.clone(), completed.clone(), dim(self.width)];
        let elements = Dim::product(&shape);
        let joined = &elements * &dim(self.reach * self.tokens);
        // Per candidate: the bias, max, subtract, add, a product and a sum, the last but for the
        // first candidate of each sum; exp and divide.
        let stated = Stated {
            other: &(&joined * &dim(6)) - &elements,
            transcendental: &joined * &dim(2),
            ..Stated::new("compress", Kind::Reduction, vec![net.tensor_type(&shape)])
        };
        let inputs = [candidates, scores, bias];
        let entries = net.stated(stated, StatedGradient::Unknown, &inputs)?;
        let entries = entries.first().copied().ok_or_else(|| Error::new("no entries"))?;
        // Candidates and scores of the tokens that the next entry waits for; where entries reach
        // back, those of the entry before too, which are half as wide.
        let waiting = &(&dim(2) * &dim(wide)) * &tokens;
        let before = &(&dim(2 * (self.reach - 1)) * &dim(self.width)) * &tokens;
        net.state("tokens of the next entry", &waiting + &before, net.format(), Keeps::Once);
        let entries = net.norm("kv_norm", entries, Norm::Rms)?;
        let entries = net.reshape(entries, &[batch, Dim::ONE, completed, dim(self.width)])?;
        net.rotary(entries, self.rotary)
    }
}

/// Tokens of the sequence up to the last one of this pass.
fn length(net: &mut Network, seq: &Dim) -> Dim {
    match net.pass {
        Pass::Whole => seq.clone(),
        Pass::Decode => Dim::symbol(CONTEXT),
    }
}

/// Says that sizes hang on the context, where they do.
pub(in crate::arch) fn declare_context(net: &mut Network) {
    if net.pass == Pass::Decode {
        net.symbol(CONTEXT, None, "tokens that the decoded token sees, itself included");
    }
}
