//! Feed-forward networks: two matrices with a function between them, or three where a gate
//! multiplies (GLU, arXiv 2002.05202).

use crate::arch::network::{Bias, Made, Network};
use crate::graph::{Function, TensorId};

/// See [`super::FeedForward::Dense`].
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct Dense {
    /// The class in the reference implementation.
    pub(in crate::arch) class: &'static str,
    /// Elements between the matrices.
    pub(in crate::arch) width: i64,
    /// The function between them.
    pub(in crate::arch) function: Function,
    /// The matrices.
    pub(in crate::arch) gating: Gating,
    /// Whether they have biases.
    pub(in crate::arch) bias: Bias,
}

/// The matrices of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) enum Gating {
    /// `down(f(gate(x)) * up(x))`: names of gate, up, down.
    Gated([&'static str; 3]),
    /// The same with gate and up in one matrix: names of both and of down.
    GatedJoined([&'static str; 2]),
    /// SiTU-GLU, see [`situ`]: names of gate, up, down, and whether up is capped too.
    Situ([&'static str; 3], bool),
    /// As `Gated`, with the results of gate and up clamped (DeepSeek-V4).
    GatedLimited([&'static str; 3]),
    /// `down(f(up(x)))`: names of up, down.
    Plain([&'static str; 2]),
    /// The same with weights `[in, out]` (GPT-2).
    PlainTransposed([&'static str; 2]),
}

impl Dense {
    /// As Llama has it: gated, SiLU, no bias.
    pub(in crate::arch) fn llama(width: i64) -> Dense {
        Dense {
            class: "MLP",
            width,
            function: Function::Silu,
            gating: Gating::Gated(["gate_proj", "up_proj", "down_proj"]),
            bias: Bias::None,
        }
    }

    /// `x [.., hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let hidden = net.width(x)?;
        match self.gating {
            Gating::Gated([gate, up, down]) => {
                let gate = net.linear(gate, x, self.width, self.bias)?;
                let gate = net.each(self.function, &[gate])?;
                let up = net.linear(up, x, self.width, self.bias)?;
                let product = net.mul(gate, up)?;
                net.linear(down, product, hidden, self.bias)
            }
            Gating::Situ([gate, up, down], is_capped) => {
                let gate = net.linear(gate, x, self.width, self.bias)?;
                let up = net.linear(up, x, self.width, self.bias)?;
                let product = situ(net, gate, up, is_capped)?;
                net.linear(down, product, hidden, self.bias)
            }
            Gating::GatedLimited([gate, up, down]) => {
                let gate = net.linear(gate, x, self.width, self.bias)?;
                let gate = net.each(Function::Clamp, &[gate])?;
                let gate = net.each(self.function, &[gate])?;
                let up = net.linear(up, x, self.width, self.bias)?;
                let up = net.each(Function::Clamp, &[up])?;
                let product = net.mul(gate, up)?;
                net.linear(down, product, hidden, self.bias)
            }
            Gating::GatedJoined([both, down]) => {
                let both = net.linear(both, x, 2 * self.width, self.bias)?;
                let halves = net.split(both, &[self.width, self.width])?;
                let gate = net.each(self.function, &[halves[0]])?;
                let product = net.mul(gate, halves[1])?;
                net.linear(down, product, hidden, self.bias)
            }
            Gating::Plain([up, down]) => {
                let up = net.linear(up, x, self.width, self.bias)?;
                let up = net.each(self.function, &[up])?;
                net.linear(down, up, hidden, self.bias)
            }
            Gating::PlainTransposed([up, down]) => {
                let up = net.linear_plain(up, x, self.width)?;
                let up = net.each(self.function, &[up])?;
                net.linear_plain(down, up, hidden)
            }
        }
    }
}

/// SiTU-GLU, `cap(gate) sigmoid(gate) cap(up)` with `cap(x) = beta tanh(x / beta)` (Kimi K3, arXiv
/// 2607.24653; `SituAndMul` in the checkpoint's modeling_kimi_linear.py); without a second beta up
/// is not capped.
pub(super) fn situ(net: &mut Network, gate: TensorId, up: TensorId, is_capped: bool) -> Made {
    let bent = net.soft_cap(gate)?;
    let opened = net.each(Function::Sigmoid, &[gate])?;
    let gate = net.mul(bent, opened)?;
    let up = if is_capped { net.soft_cap(up)? } else { up };
    net.mul(gate, up)
}
