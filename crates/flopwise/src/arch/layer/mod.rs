//! The parts of a layer: mixers, which let positions see each other, and feed-forward networks,
//! which do not.
//!
//! Not here: how parts are put together with norms and residuals (`decoder.rs`).

pub(super) mod attention;
pub(super) mod compressed;
pub(super) mod cross;
pub(super) mod delta;
pub(super) mod feed_forward;
pub(super) mod hyper;
pub(super) mod indexer;
pub(super) mod latent;
pub(super) mod linear;
pub(super) mod mamba;
pub(super) mod moe;
pub(super) mod recurrent;

pub(super) use attention::{HeadNorm, Projections, SelfAttention};
pub(super) use compressed::{CompressedAttention, Compression, Grouped};
pub(super) use cross::{CrossAttention, Source};
pub(super) use feed_forward::{Dense, Gating};
pub(super) use hyper::HyperConnection;
pub(super) use indexer::Indexer;
pub(super) use latent::LatentAttention;
pub(super) use moe::{Bounds, Correction, Experts, Gate, Latent, Scaled, Scores, SharedExpert};
pub(super) use recurrent::{CausalConvolution, Recurrent};

use super::network::{Made, Network};
use crate::error::Error;
use crate::graph::TensorId;

/// What lets the positions of a sequence see each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mixer {
    /// Softmax attention with any number of key heads.
    Attention(SelfAttention),
    /// Attention over one latent per token.
    Latent(LatentAttention),
    /// A state of fixed size.
    Recurrent(Recurrent),
    /// Several by name, on the same input; their results are added up (Falcon-H1).
    Sum(Vec<(&'static str, Mixer)>),
}

impl Mixer {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        match self {
            Mixer::Attention(attention) => attention.build(net, x),
            Mixer::Latent(attention) => attention.build(net, x),
            Mixer::Recurrent(recurrent) => recurrent.build(net, x),
            Mixer::Sum(parts) => sum(net, parts, |net, (name, part)| {
                net.module(name, part.class(), |net| {
                    part.check()?;
                    part.build(net, x)
                })
            }),
        }
    }

    /// The class in the reference implementation.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Mixer::Attention(attention) => attention.class,
            Mixer::Latent(attention) => attention.class,
            Mixer::Recurrent(recurrent) => recurrent.class(),
            Mixer::Sum(_) => "",
        }
    }

    /// Whether the heads fit the width.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Mixer::Attention(attention) => attention.check(),
            Mixer::Latent(_) | Mixer::Recurrent(_) | Mixer::Sum(_) => Ok(()),
        }
    }
}

/// What works on each position alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FeedForward {
    /// The same matrices for every token.
    Dense(Dense),
    /// A router sends each token to a few experts.
    Experts(Experts),
    /// Mixes each token with the one before (RWKV-4), with so many elements between its matrices.
    ChannelMix(i64),
    /// Several by name, on the same input; their results are added up (Granite 4).
    Sum(Vec<(&'static str, FeedForward)>),
}

impl FeedForward {
    /// The class in the reference implementation.
    pub(super) fn class(&self) -> &'static str {
        match self {
            FeedForward::Dense(dense) => dense.class,
            FeedForward::Experts(experts) => experts.class,
            FeedForward::ChannelMix(_) => "RwkvFeedForward",
            FeedForward::Sum(_) => "",
        }
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        match self {
            FeedForward::Dense(dense) => dense.build(net, x),
            FeedForward::Experts(experts) => experts.build(net, x),
            FeedForward::ChannelMix(width) => linear::channel_mix(net, x, *width),
            FeedForward::Sum(parts) => sum(net, parts, |net, (name, part)| {
                net.module(name, part.class(), |net| part.build(net, x))
            }),
        }
    }
}

/// The results of several parts, added up.
fn sum<P>(net: &mut Network, parts: &[P], mut build: impl FnMut(&mut Network, &P) -> Made) -> Made {
    let mut total = None;
    for part in parts {
        let result = build(net, part)?;
        total = Some(match total {
            Some(before) => net.add(before, result)?,
            None => result,
        });
    }
    total.ok_or_else(|| Error::new("a sum of no parts"))
}
