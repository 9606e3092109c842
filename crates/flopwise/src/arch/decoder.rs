//! [`Decoder`]: token embedding, a stack of layers, a final norm and a head, as data that a family
//! fills in.
//!
//! Not here: the parts of a layer (`layer/`) and the fields of a config (the families).

use super::layer::{FeedForward, Mixer};
use super::network::{Bias, BuiltLayers, Made, Network, Norm};
use crate::error::Error;
use crate::graph::{Dim, Graph, Pass, TensorId};
use flopwise_formats::Format;

/// A language model, described.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// The model's name.
    pub(super) name: String,
    /// The class in the reference implementation.
    pub(super) class: String,
    /// Of weights and activations.
    pub(super) format: Format,
    /// Tokens known.
    pub(super) vocabulary: i64,
    /// Elements per position.
    pub(super) hidden: i64,
    /// Where things stand.
    pub(super) paths: Paths,
    /// A table of trained positions: its name, its rows, and rows that are never used (OPT has 2).
    pub(super) positions: Option<Positions>,
    /// A norm of the embeddings (BLOOM).
    pub(super) embedding_norm: Option<(&'static str, Norm)>,
    /// Width of the embedding table, where a linear layer widens it: name of that layer and of the
    /// one that narrows the result again (OPT-350m).
    pub(super) embedding_width: Option<(i64, [&'static str; 2])>,
    /// The layers.
    pub(super) layers: Vec<Layer>,
    /// The norm after them.
    pub(super) final_norm: Option<(&'static str, Norm)>,
    /// What gives the logits; `None` for a bare stack.
    pub(super) head: Option<Head>,
    /// The longest sequence that the table of positions allows.
    pub(super) max_length: Option<i64>,
    /// Where constants multiply.
    pub(super) multiplied: Multiplied,
    /// Layers per block, where layers attend over the results of blocks before (`depth.rs`).
    pub(super) depth: Option<i64>,
}

/// Where a decoder multiplies by a constant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Multiplied {
    /// The embeddings (Gemma).
    pub(super) embedding: bool,
    /// The logits (Cohere).
    pub(super) logits: bool,
}

/// Where the parts of a decoder stand in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paths {
    /// The stack: `model`.
    pub(super) stack: &'static str,
    /// The token table below it: `embed_tokens`.
    pub(super) embedding: &'static str,
    /// The layers below it: `layers`.
    pub(super) layers: &'static str,
}

/// A table of trained positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    /// Its name below the stack.
    pub(super) name: &'static str,
    /// Its rows.
    pub(super) rows: i64,
}

/// The layer that gives the logits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Its name.
    pub(super) name: &'static str,
    /// Whether its weight is the token table.
    pub(super) is_tied: bool,
    /// Whether it adds a bias.
    pub(super) bias: Bias,
    /// Whether logits pass through a tanh (Gemma 2).
    pub(super) is_soft_capped: bool,
}

/// One layer: a mixer, a feed-forward network, or both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layer {
    /// The class in the reference implementation.
    pub(super) class: &'static str,
    /// How norms and residuals are arranged.
    pub(super) arrangement: Arrangement,
    /// The norms.
    pub(super) norm: Norm,
    /// Name and kind of the mixer.
    pub(super) mixer: Option<(&'static str, Mixer)>,
    /// Name and kind of the feed-forward network.
    pub(super) feed_forward: Option<(&'static str, FeedForward)>,
}

/// Norms and residuals of a layer, by the norms' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// `x += after(part(before(x)))`, for the mixer and then for the feed-forward network; a norm
    /// without a name is not there. Pre-norm (GPT-2, Llama), both (Gemma 2), after (OLMo 2).
    Residual {
        /// Before the mixer.
        before_mixer: Option<&'static str>,
        /// After the mixer.
        after_mixer: Option<&'static str>,
        /// Before the feed-forward network.
        before_feed_forward: Option<&'static str>,
        /// After the feed-forward network.
        after_feed_forward: Option<&'static str>,
    },
    /// `x += mixer(a(x)) + feed_forward(b(x))`; without a second norm both take the first (GPT-J).
    Parallel {
        /// Before the mixer.
        first: &'static str,
        /// Before the feed-forward network.
        second: Option<&'static str>,
    },
    /// As `Residual` with norms before, and `x += m * part(norm(x))` (Granite).
    Multiplied {
        /// Before the mixer.
        before_mixer: &'static str,
        /// Before the feed-forward network.
        before_feed_forward: &'static str,
    },
    /// `x = norm(x + part(x))` (the original transformer, arXiv 1706.03762).
    Post {
        /// After the mixer and its residual.
        first: &'static str,
        /// After the feed-forward network and its residual.
        second: &'static str,
    },
}

impl Arrangement {
    /// Llama's.
    pub(super) const PRE: Arrangement = Arrangement::Residual {
        before_mixer: Some("input_layernorm"),
        after_mixer: None,
        before_feed_forward: Some("post_attention_layernorm"),
        after_feed_forward: None,
    };
}

impl Decoder {
    /// The graph: `input_ids [batch, seq]` -> `logits [batch, seq, vocabulary]`.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub(super) fn graph(&self, pass: Pass) -> Result<Graph, Error> {
        let mut net = Network::new(&self.name, self.format, pass);
        let result = net.module("", &self.class, |net| self.build(net))?;
        Ok(net.finish(&[result]))
    }

    pub(super) fn build(&self, net: &mut Network) -> Made {
        let batch = net.symbol("batch", None, "dim 0 of input_ids");
        let seq = net.symbol("seq", self.max_length, "dim 1 of input_ids");
        let ids = net.token_input("input_ids", &[batch, seq.clone()])?;
        let (x, table) = net.module(self.paths.stack, "Model", |net| self.stack(net, ids, &seq))?;
        self.logits(net, x, table)
    }

    /// The result of the last layer, and the token table.
    pub(super) fn stack(
        &self,
        net: &mut Network,
        ids: TensorId,
        seq: &Dim,
    ) -> Result<(TensorId, TensorId), Error> {
        let width = self.embedding_width.map_or(self.hidden, |(width, _)| width);
        let mut x = net.embedding(self.paths.embedding, ids, self.vocabulary, width)?;
        let table_path = net.below(&format!("{}.weight", self.paths.embedding));
        let table = net.parameter_at(&table_path, &[self.vocabulary, width])?;
        if self.multiplied.embedding {
            x = net.scale(x)?;
        }
        if let Some((_, [widen, _])) = self.embedding_width {
            x = net.linear(widen, x, self.hidden, Bias::None)?;
        }
        if let Some(Positions { name, rows }) = self.positions {
            let ids = net.positions(seq)?;
            let position = net.embedding(name, ids, rows, self.hidden)?;
            x = net.add(x, position)?;
        }
        if let Some((name, norm)) = self.embedding_norm {
            x = net.norm(name, x, norm)?;
        }
        x = match self.depth {
            Some(every) => self.over_depth(net, x, every)?,
            None => {
                let mut built = BuiltLayers::new();
                for (layer_idx, layer) in self.layers.iter().enumerate() {
                    let name = format!("{}.{layer_idx}", self.paths.layers);
                    let place = (name.as_str(), layer.class);
                    x = net.layer(&mut built, place, layer, x, |net| layer.build(net, x))?;
                }
                x
            }
        };
        if let Some((name, norm)) = self.final_norm {
            x = net.norm(name, x, norm)?;
        }
        if let Some((width, [_, narrow])) = self.embedding_width {
            x = net.linear(narrow, x, width, Bias::None)?;
        }
        Ok((x, table))
    }

    pub(super) fn logits(&self, net: &mut Network, x: TensorId, table: TensorId) -> Made {
        let Some(head) = &self.head else { return Ok(x) };
        let mut logits = match head.is_tied {
            true => net.linear_with(head.name, x, table)?,
            false => net.linear(head.name, x, self.vocabulary, head.bias)?,
        };
        if self.multiplied.logits {
            logits = net.scale(logits)?;
        }
        if head.is_soft_capped { net.soft_cap(logits) } else { Ok(logits) }
    }
}

impl Layer {
    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        match self.arrangement {
            Arrangement::Residual {
                before_mixer,
                after_mixer,
                before_feed_forward,
                after_feed_forward,
            } => {
                let mut x = x;
                if self.mixer.is_some() {
                    let inner = self.normed(net, x, before_mixer)?;
                    let mixed = self.mix(net, inner)?;
                    let mixed = self.normed(net, mixed, after_mixer)?;
                    x = net.add(x, mixed)?;
                }
                if self.feed_forward.is_some() {
                    let inner = self.normed(net, x, before_feed_forward)?;
                    let fed = self.feed(net, inner)?;
                    let fed = self.normed(net, fed, after_feed_forward)?;
                    x = net.add(x, fed)?;
                }
                Ok(x)
            }
            Arrangement::Multiplied { before_mixer, before_feed_forward } => {
                let inner = net.norm(before_mixer, x, self.norm)?;
                let mixed = self.mix(net, inner)?;
                let mixed = net.scale(mixed)?;
                let x = net.add(x, mixed)?;
                let inner = net.norm(before_feed_forward, x, self.norm)?;
                let fed = self.feed(net, inner)?;
                let fed = net.scale(fed)?;
                net.add(x, fed)
            }
            Arrangement::Parallel { first, second } => {
                let inner = net.norm(first, x, self.norm)?;
                let mixed = self.mix(net, inner)?;
                let inner = match second {
                    Some(second) => net.norm(second, x, self.norm)?,
                    None => inner,
                };
                let fed = self.feed(net, inner)?;
                let both = net.add(mixed, fed)?;
                net.add(x, both)
            }
            Arrangement::Post { first, second } => {
                let mixed = self.mix(net, x)?;
                let sum = net.add(x, mixed)?;
                let x = net.norm(first, sum, self.norm)?;
                let fed = self.feed(net, x)?;
                let sum = net.add(x, fed)?;
                net.norm(second, sum, self.norm)
            }
        }
    }

    fn normed(&self, net: &mut Network, x: TensorId, name: Option<&str>) -> Made {
        match name {
            Some(name) => net.norm(name, x, self.norm),
            None => Ok(x),
        }
    }

    pub(super) fn mix(&self, net: &mut Network, x: TensorId) -> Made {
        match &self.mixer {
            Some((name, mixer)) => net.module(name, mixer.class(), |net| {
                mixer.check()?;
                mixer.build(net, x)
            }),
            None => Ok(x),
        }
    }

    pub(super) fn feed(&self, net: &mut Network, x: TensorId) -> Made {
        match &self.feed_forward {
            Some((name, part)) => net.module(name, part.class(), |net| part.build(net, x)),
            None => Ok(x),
        }
    }
}
