//! Mixers that keep a state of fixed size instead of keys and values, and what they share: the
//! short convolution, the state they keep, and products within chunks of a sequence.
//!
//! Not here: the mixers themselves (`mamba.rs`, `delta.rs`, `linear.rs`).

use super::delta::{GatedDelta, KimiDelta};
use super::linear::{GatedLinearUnit, Lightning, Rwkv, ShortConvolution};
use super::mamba::{Mamba, Mamba2};
use crate::arch::network::{Bias, Conv, Made, Network, dim};
use crate::error::Error;
use crate::graph::{Dim, Function, Keeps, Stated, StatedGradient, TensorId};
use flopwise_formats::Format;

/// See [`super::Mixer::Recurrent`].
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) enum Recurrent {
    /// A selective state space (Mamba).
    Mamba(Mamba),
    /// The same with one decay per head (Mamba-2).
    Mamba2(Mamba2),
    /// The delta rule with a gate (Gated DeltaNet).
    GatedDelta(GatedDelta),
    /// The delta rule with a gate per channel (Kimi Delta Attention).
    KimiDelta(KimiDelta),
    /// Linear attention with a fixed decay per head (lightning attention).
    Lightning(Lightning),
    /// A weighted sum per channel (RWKV-4).
    Rwkv(Rwkv),
    /// A linear recurrence per channel with gates (RG-LRU).
    GatedLinearUnit(GatedLinearUnit),
    /// A gated convolution over the last few tokens (LFM2).
    ShortConvolution(ShortConvolution),
}

impl Recurrent {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        match self {
            Recurrent::Mamba(mamba) => mamba.build(net, x),
            Recurrent::Mamba2(mamba) => mamba.build(net, x),
            Recurrent::GatedDelta(delta) => delta.build(net, x),
            Recurrent::KimiDelta(delta) => delta.build(net, x),
            Recurrent::Lightning(lightning) => lightning.build(net, x),
            Recurrent::Rwkv(rwkv) => rwkv.build(net, x),
            Recurrent::GatedLinearUnit(unit) => unit.build(net, x),
            Recurrent::ShortConvolution(convolution) => convolution.build(net, x),
        }
    }

    /// The class in the reference implementation.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Recurrent::Mamba(_) => "MambaMixer",
            Recurrent::Mamba2(_) => "Mamba2Mixer",
            Recurrent::GatedDelta(_) => "GatedDeltaNet",
            Recurrent::KimiDelta(_) => "KimiDeltaAttention",
            Recurrent::Lightning(_) => "LightningAttention",
            Recurrent::Rwkv(_) => "RwkvSelfAttention",
            Recurrent::GatedLinearUnit(_) => "RecurrentBlock",
            Recurrent::ShortConvolution(_) => "ShortConv",
        }
    }
}

/// The length of a sequence and how many there are, of `x [b, s, ..]`.
pub(super) struct Tokens {
    pub(super) batch: Dim,
    pub(super) seq: Dim,
}

impl Tokens {
    /// Of `x [b, s, hidden]`.
    pub(super) fn of(net: &Network, x: TensorId) -> Tokens {
        Tokens { batch: net.axis(x, 3), seq: net.axis(x, 2) }
    }

    /// How many tokens there are.
    pub(super) fn count(&self) -> Dim {
        &self.batch * &self.seq
    }

    /// A shape over all tokens.
    pub(super) fn shape(&self, rest: &[i64]) -> Vec<Dim> {
        let sizes = rest.iter().map(|size| dim(*size));
        [self.batch.clone(), self.seq.clone()].into_iter().chain(sizes).collect()
    }

    /// Pairs of a token and one at or before it in its chunk of `chunk` tokens: `chunk (chunk + 1)
    /// / 2` of each whole chunk, `rest (rest + 1) / 2` of the last.
    pub(super) fn pairs(&self, chunk: i64) -> Dim {
        let chunk = dim(chunk);
        let rest = self.seq.modulo(&chunk);
        let triangle = |length: &Dim| (length * &(length + &Dim::ONE)).floor_div(&dim(2));
        let whole = &self.seq.floor_div(&chunk) * &triangle(&chunk);
        &self.batch * &(&whole + &triangle(&rest))
    }

    /// Chunks of `chunk` tokens, the last one perhaps shorter.
    pub(super) fn chunks(&self, chunk: i64) -> Dim {
        &self.batch * &self.seq.ceil_div(&dim(chunk))
    }
}

/// A convolution along the sequence that sees `kernel` tokens, one filter per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct CausalConvolution {
    /// Tokens seen.
    pub(in crate::arch) kernel: i64,
    /// Whether a bias is added.
    pub(in crate::arch) bias: Bias,
    /// The function after it.
    pub(in crate::arch) function: Option<Function>,
}

impl CausalConvolution {
    /// `x [b, s, channels]` -> the same shape. Of each channel the last `kernel - 1` elements stay
    /// for the next token, in the format of the activations, as vLLM keeps them
    /// (model_executor/layers/mamba/mamba_utils.py, `conv_kernel - 1`); transformers' cache holds
    /// `kernel` of them.
    pub(super) fn build(&self, net: &mut Network, name: &str, x: TensorId) -> Made {
        let channels = net.width(x)?;
        let turned = net.permute(x, &[0, 2, 1])?;
        let conv = Conv::causal_depthwise(channels, self.kernel, self.bias);
        let mut mixed = net.convolution(name, turned, &conv)?;
        if let Some(function) = self.function {
            mixed = net.each(function, &[mixed])?;
        }
        if 1 < self.kernel {
            let kept = &dim(channels) * &dim(self.kernel - 1);
            net.state("convolution", kept, net.format(), Keeps::Once);
        }
        net.permute(mixed, &[0, 2, 1])
    }
}

/// What a recurrence keeps from token to token.
pub(super) fn keep(net: &mut Network, elements: &[i64], format: Format) {
    let sizes: Vec<Dim> = elements.iter().map(|size| dim(*size)).collect();
    net.state("recurrent state", Dim::product(&sizes), format, Keeps::Once);
}

/// A recurrence of one result; each of its products has two factors.
pub(super) fn recurrence(net: &mut Network, stated: Stated, inputs: &[TensorId]) -> Made {
    let results = net.stated(stated, StatedGradient::Twice, inputs)?;
    results.first().copied().ok_or_else(|| Error::new("a recurrence without a result"))
}
