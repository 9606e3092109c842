//! Attention residuals (arXiv 2607.24653, Kimi K3): before each part of a layer, a softmax over
//! depth mixes the results of all blocks of layers so far with the sum of the block under way.
//!
//! Names and order are those of sglang's `KimiK3DecoderLayer` (`forward_attn_residual` and
//! `_apply_attn_res_torch`) and of the checkpoint. Not here: residuals that only add up
//! (`decoder.rs`).

use super::decoder::{Decoder, Layer};
use super::network::{Bias, BuiltLayers, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Dim, TensorId};

/// The sum of the block under way, and the results of those before as `[b, s, blocks, hidden]`.
#[derive(Clone, Copy)]
struct Depth {
    sum: TensorId,
    before: Option<TensorId>,
}

impl Decoder {
    /// All layers, of which every so many begin a block, and the mix that the head sees.
    pub(super) fn over_depth(&self, net: &mut Network, x: TensorId, every: i64) -> Made {
        let mut depth = Depth { sum: x, before: None };
        let mut built = BuiltLayers::new();
        for (layer_idx, layer) in (0_i64..).zip(&self.layers) {
            let name = format!("{}.{layer_idx}", self.paths.layers);
            let place = (name.as_str(), layer.class);
            depth = if layer_idx % every == 0 {
                net.module(&name, layer.class, |net| depth.begin(net, layer))?
            } else {
                let key = (layer, depth.before);
                let inside = |net: &mut Network| depth.within(net, layer);
                let sum = net.layer(&mut built, place, key, depth.sum, inside)?;
                Depth { sum, ..depth }
            };
        }
        depth.mixed(net, "output_attn_res")
    }
}

impl Depth {
    /// The first layer of a block. What the block begins with is only seen through the softmax.
    fn begin(self, net: &mut Network, layer: &Layer) -> Result<Depth, Error> {
        let read = self.mixed(net, "self_attention_res")?;
        let before = Some(self.closed(net)?);
        let inner = net.norm("input_layernorm", read, layer.norm)?;
        let sum = layer.mix(net, inner)?;
        Depth { sum, before }.fed(net, layer)
    }

    /// A further layer of the block.
    fn within(self, net: &mut Network, layer: &Layer) -> Made {
        let read = self.mixed(net, "self_attention_res")?;
        let inner = net.norm("input_layernorm", read, layer.norm)?;
        let mixed = layer.mix(net, inner)?;
        let sum = net.add(self.sum, mixed)?;
        Ok(Depth { sum, ..self }.fed(net, layer)?.sum)
    }

    /// The feed-forward network and what it adds to.
    fn fed(self, net: &mut Network, layer: &Layer) -> Result<Depth, Error> {
        let read = self.mixed(net, "mlp_res")?;
        let inner = net.norm("post_attention_layernorm", read, layer.norm)?;
        let fed = layer.feed(net, inner)?;
        Ok(Depth { sum: net.add(self.sum, fed)?, ..self })
    }
}

impl Depth {
    /// A softmax over blocks, scored by one trained direction, mixes them (`NAME_norm`,
    /// `NAME_proj`).
    fn mixed(self, net: &mut Network, name: &str) -> Made {
        let hidden = net.width(self.sum)?;
        let [norm, projection] = ["norm", "proj"].map(|part| format!("{name}_{part}"));
        let Some(before) = self.before else {
            // The first layer has the weights and nothing to choose from.
            net.parameter(&format!("{norm}.weight"), &[hidden])?;
            net.parameter(&format!("{projection}.weight"), &[1, hidden])?;
            return Ok(self.sum);
        };
        let (batch, seq) = (net.axis(self.sum, 3), net.axis(self.sum, 2));
        let values = self.with(net, before)?;
        let blocks = net.axis(values, 2);
        let keys = net.norm(&norm, values, Norm::Rms)?;
        let scores = net.linear(&projection, keys, 1, Bias::None)?;
        let scores = net.reshape(scores, &[batch.clone(), seq.clone(), Dim::ONE, blocks])?;
        let shares = net.softmax(scores)?;
        let mixed = net.matmul(shares, values)?;
        net.reshape(mixed, &[batch, seq, dim(hidden)])
    }

    /// The blocks, the one under way among them.
    fn closed(self, net: &mut Network) -> Made {
        match self.before {
            Some(before) => self.with(net, before),
            None => self.row(net),
        }
    }

    fn with(self, net: &mut Network, before: TensorId) -> Made {
        let row = self.row(net)?;
        net.concat(&[before, row], 2)
    }

    fn row(self, net: &mut Network) -> Result<TensorId, Error> {
        let (batch, seq) = (net.axis(self.sum, 3), net.axis(self.sum, 2));
        let hidden = dim(net.width(self.sum)?);
        net.reshape(self.sum, &[batch, seq, Dim::ONE, hidden])
    }
}
