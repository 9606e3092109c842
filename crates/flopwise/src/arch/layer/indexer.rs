//! The lightning indexer of sparse attention (DSA, DeepSeek-V3.2): it scores every key that a query
//! may see with a few small heads, and attention then takes the best few of them
//! (transformers `models/deepseek_v32/modeling_deepseek_v32.py`).
//!
//! Not here: the attention itself (`latent.rs`).

use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::graph::{Attention, Dim, Keeps, Mask, Op, TensorId};

/// What chooses keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Indexer {
    /// Heads.
    pub(in crate::arch) heads: i64,
    /// Elements of a head.
    pub(in crate::arch) head_dim: i64,
    /// How many keys of each query are chosen.
    pub(in crate::arch) best: i64,
}

impl Indexer {
    /// Positions `[b, s, best]` of the keys chosen; `residual` is the latent of the query.
    pub(super) fn build(
        &self,
        net: &mut Network,
        x: TensorId,
        residual: TensorId,
        rotary: i64,
    ) -> Made {
        let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
        let query = net.linear("wq_b", residual, self.heads * self.head_dim, Bias::None)?;
        let shape = [batch.clone(), seq.clone(), dim(self.heads), dim(self.head_dim)];
        let query = net.reshape(query, &shape)?;
        let query = net.permute(query, &[0, 2, 1, 3])?;
        let query = net.rotary(query, rotary)?;
        let key = net.linear("wk", x, self.head_dim, Bias::None)?;
        let key = net.norm("k_norm", key, Norm::Layer)?;
        let key = net.reshape(key, &[batch, Dim::ONE, seq.clone(), dim(self.head_dim)])?;
        let key = net.rotary(key, rotary)?;
        let weights = net.linear("weights_proj", x, self.heads, Bias::None)?;
        let op = Op::IndexScores(Attention::new(Mask::causal()));
        let scores = net.apply("scores", "index_scores", op, &[query, key, weights])?;
        net.state("index keys", dim(self.head_dim), net.format(), Keeps::All);
        let op = Op::TopK { axis: 2, k: dim(self.best).minimum(&seq) };
        let chosen = net.apply_many("topk", "aten.topk.default", op, &[scores], 2)?;
        chosen.get(1).copied().ok_or_else(|| crate::error::Error::new("no positions"))
    }
}
