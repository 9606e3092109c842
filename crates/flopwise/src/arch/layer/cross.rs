//! [`CrossAttention`]: softmax attention whose keys and values may come from another sequence, as
//! the decoder of an encoder-decoder has it (arXiv 1706.03762), and every transformer without key
//! groups or rotary positions: encoders of text, images and sound, and the blocks of diffusion models.
//!
//! Not here: attention with grouped key heads or rotated heads (`attention.rs`).

use super::attention::{heads_first, heads_merged};
use crate::arch::network::{Bias, Made, Network, dim};
use crate::error::Error;
use crate::graph::{Attention, Dim, Keeps, Mask, TensorId};

/// Four projections around an attention.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct CrossAttention {
    /// The class in the reference implementation.
    pub(in crate::arch) class: &'static str,
    /// Heads of queries, keys and values.
    pub(in crate::arch) heads: i64,
    /// Elements of a head.
    pub(in crate::arch) head_dim: i64,
    /// Names and biases of the projections of queries, keys and values.
    pub(in crate::arch) projections: [(&'static str, Bias); 3],
    /// Name and bias of the output projection.
    pub(in crate::arch) output: (&'static str, Bias),
    /// Which keys a query sees.
    pub(in crate::arch) mask: Mask,
}

/// Where keys and values come from.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) enum Source {
    /// The sequence that asks.
    Itself,
    /// Another sequence, `[b, s, width]`.
    Other(TensorId),
    /// The cache: those of another sequence, of so many tokens, as an earlier pass left them.
    Cached(Dim),
}

impl CrossAttention {
    /// `width / heads`, which must go evenly.
    ///
    /// # Errors
    /// It does not.
    pub(in crate::arch) fn even(width: i64, heads: i64) -> Result<i64, Error> {
        match width % heads {
            0 => Ok(width / heads),
            _ => Err(Error::new(format!("{heads} heads do not divide a width of {width}"))),
        }
    }

    /// `x [b, s, hidden]` -> the same shape; `added` is added to the scores.
    pub(in crate::arch) fn build(
        &self,
        net: &mut Network,
        x: TensorId,
        source: &Source,
        added: Option<TensorId>,
    ) -> Made {
        let hidden = net.width(x)?;
        let inner = self.heads * self.head_dim;
        let heads = [self.heads, self.head_dim];
        let [q, k, v] = self.projections;
        let query = net.linear(q.0, x, inner, q.1)?;
        let query = heads_first(net, query, heads)?;
        let (key, value) = match source {
            Source::Cached(tokens) => {
                let shape = [net.axis(x, 3), dim(self.heads), tokens.clone(), dim(self.head_dim)];
                let format = net.format();
                let [key, value] = ["cached_keys", "cached_values"].map(|name| net.below(name));
                (net.input(&key, &shape, format)?, net.input(&value, &shape, format)?)
            }
            Source::Itself | Source::Other(_) => {
                let of = if let Source::Other(other) = source { *other } else { x };
                let key = net.linear(k.0, of, inner, k.1)?;
                let value = net.linear(v.0, of, inner, v.1)?;
                (heads_first(net, key, heads)?, heads_first(net, value, heads)?)
            }
        };
        let seen = net.attend([query, key, value], Attention::new(self.mask.clone()), added)?;
        let merged = heads_merged(net, seen)?;
        net.linear(self.output.0, merged, hidden, self.output.1)
    }

    /// Says that keys and values stay in a cache.
    pub(in crate::arch) fn keep(&self, net: &mut Network, keeps: Keeps) {
        let what = match keeps {
            Keeps::Other(_) => "keys and values of the encoder",
            Keeps::All | Keeps::Window(_) | Keeps::Chunk(_) | Keeps::Every(_) | Keeps::Once => {
                "keys and values"
            }
        };
        net.state(what, dim(2 * self.heads * self.head_dim), net.format(), keeps);
    }
}
