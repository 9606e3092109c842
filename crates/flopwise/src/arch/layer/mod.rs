//! The parts of a layer: mixers, which let positions see each other, and feed-forward networks,
//! which do not.
//!
//! Not here: how parts are put together with norms and residuals (`decoder.rs`).

pub(super) mod attention;
pub(super) mod cross;
pub(super) mod feed_forward;
pub(super) mod indexer;
pub(super) mod latent;
pub(super) mod moe;

pub(super) use attention::{HeadNorm, Projections, SelfAttention};
pub(super) use cross::{CrossAttention, Source};
pub(super) use feed_forward::{Dense, Gating};
pub(super) use indexer::Indexer;
pub(super) use latent::LatentAttention;
pub(super) use moe::{Correction, Experts, Gate, Scaled, Scores, SharedExpert};

use super::network::{Made, Network};
use crate::error::Error;
use crate::graph::TensorId;

/// What lets the positions of a sequence see each other.
#[derive(Clone, Debug)]
pub(super) enum Mixer {
    /// Softmax attention with any number of key heads.
    Attention(SelfAttention),
    /// Attention over one latent per token.
    Latent(LatentAttention),
}

impl Mixer {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        match self {
            Mixer::Attention(attention) => attention.build(net, x),
            Mixer::Latent(attention) => attention.build(net, x),
        }
    }

    /// The class in the reference implementation.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Mixer::Attention(attention) => attention.class,
            Mixer::Latent(attention) => attention.class,
        }
    }

    /// Whether the heads fit the width.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Mixer::Attention(attention) => attention.check(),
            Mixer::Latent(_) => Ok(()),
        }
    }
}

/// What works on each position alone.
#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    /// The same matrices for every token.
    Dense(Dense),
    /// A router sends each token to a few experts.
    Experts(Experts),
}

impl FeedForward {
    /// The class in the reference implementation.
    pub(super) fn class(&self) -> &'static str {
        match self {
            FeedForward::Dense(dense) => dense.class,
            FeedForward::Experts(experts) => experts.class,
        }
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        match self {
            FeedForward::Dense(dense) => dense.build(net, x),
            FeedForward::Experts(experts) => experts.build(net, x),
        }
    }
}
