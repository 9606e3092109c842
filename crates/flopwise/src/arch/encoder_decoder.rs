//! What encoder-decoders have in common (arXiv 1706.03762): a decoder whose layers see their own
//! tokens so far and every token of the encoder.
//!
//! In a decoded token's pass the encoder does not run: its keys and values lie in a cache, and are
//! inputs of the graph.
//!
//! Not here: the parts of a layer (`layer/`) and the fields of a config (the families).

use super::described::Placement;
use super::layer::{CrossAttention, Dense, FeedForward, Gating, Source};
use super::network::{Bias, Conv, Made, Network, Norm};
use crate::error::Error;
use crate::graph::{Dim, Function, Graph, Keeps, Mask, Op, Pass, Shape, TensorId};
use flopwise_formats::Format;

/// A model of the BART kind (`modeling_bart.py` and those copied from it), described.
#[derive(Clone, Debug)]
pub(super) struct EncoderDecoder {
    /// The model's name.
    pub(super) name: String,
    /// The class in the reference implementation.
    pub(super) class: &'static str,
    /// Of weights and activations.
    pub(super) format: Format,
    /// Elements per position.
    pub(super) hidden: i64,
    /// Tokens known.
    pub(super) vocabulary: i64,
    /// What the encoder reads.
    pub(super) front: Front,
    /// Layers, heads and widths of both.
    pub(super) encoder: Stack,
    /// As `encoder`.
    pub(super) decoder: Stack,
    /// Before a part or after its residual.
    pub(super) placement: Placement,
    /// Whether keys are projected without a bias (Whisper).
    pub(super) key_bias: Bias,
    /// The function between the feed-forward matrices.
    pub(super) function: Function,
    /// Name of a norm of the embeddings.
    pub(super) embedding_norm: Option<&'static str>,
    /// Name of the norm after the last layer.
    pub(super) final_norm: Option<&'static str>,
    /// Whether embeddings are scaled by the root of the width.
    pub(super) is_scaled: bool,
    /// The head.
    pub(super) head: Head,
}

/// Sizes of one of both stacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) layers: i64,
    pub(super) heads: i64,
    pub(super) width: i64,
    /// Rows of the table of positions; `None` where they are computed.
    pub(super) positions: Option<i64>,
    /// The longest sequence.
    pub(super) max_length: Option<i64>,
}

/// What the encoder reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Front {
    /// Token ids.
    Tokens,
    /// A spectrogram of so many bands, through two convolutions, the second with a step of 2
    /// (Whisper, arXiv 2212.04356), which leave so many frames.
    Spectrogram { bands: i64, frames: i64 },
}

/// What gives the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The bare model.
    None,
    /// A linear layer of this name.
    Linear {
        name: &'static str,
        is_tied: bool,
        /// Whether a stored row is added to the logits.
        has_offset: bool,
    },
}

impl EncoderDecoder {
    /// The graph: `input_ids [batch, seq]` or `input_features`, and `decoder_input_ids [batch,
    /// target_seq]` -> logits.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub(super) fn graph(&self, pass: Pass) -> Result<Graph, Error> {
        let mut net = Network::new(&self.name, self.format, pass);
        let result = net.module("", self.class, |net| {
            let prefix = if self.head == Head::None { "" } else { "model" };
            let x = net.module(prefix, "Model", |net| self.model(net))?;
            self.logits(net, x)
        })?;
        Ok(net.finish(&[result]))
    }

    fn model(&self, net: &mut Network) -> Made {
        let batch = net.symbol("batch", None, "dim 0 of every input");
        let tokens = match self.front {
            Front::Tokens => net.symbol("seq", self.encoder.max_length, "dim 1 of input_ids"),
            Front::Spectrogram { frames, .. } => Dim::from(frames),
        };
        let source = match net.pass {
            Pass::Whole => Source::Other(
                net.module("encoder", "Encoder", |net| self.encode(net, &batch, &tokens))?,
            ),
            Pass::Decode => Source::Cached(tokens.clone()),
        };
        let place = "dim 1 of decoder_input_ids";
        let length = net.symbol("target_seq", self.decoder.max_length, place);
        let ids = net.token_input("decoder_input_ids", &[batch, length.clone()])?;
        net.module("decoder", "Decoder", |net| {
            let mut x = self.embedded(net, ids, &length, self.decoder)?;
            for layer_idx in 0..self.decoder.layers {
                let path = format!("layers.{layer_idx}");
                x = net.module(&path, "DecoderLayer", |net| {
                    self.decoder_layer(net, x, &source, &tokens)
                })?;
            }
            self.final_normed(net, x)
        })
    }

    /// The table of tokens: encoder and decoder share it, except where the encoder has none.
    fn table(&self, net: &mut Network) -> Made {
        let stack = if self.head == Head::None { "" } else { "model." };
        let path = match self.front {
            Front::Tokens => format!("{stack}shared.weight"),
            Front::Spectrogram { .. } => format!("{stack}decoder.embed_tokens.weight"),
        };
        net.parameter_at(&path, &[self.vocabulary, self.hidden])
    }

    /// Tokens with their positions, normalised where the model does that.
    fn embedded(&self, net: &mut Network, ids: TensorId, length: &Dim, stack: Stack) -> Made {
        let table = self.table(net)?;
        let mut x = net.embedding_of("embed_tokens", table, ids)?;
        if self.is_scaled {
            x = net.with_scalar(Function::Mul, x)?;
        }
        let positions = match stack.positions {
            Some(rows) => net.table_of_positions("embed_positions", rows, length, self.hidden)?,
            None => net.computed_positions(length, self.hidden)?,
        };
        x = net.add(x, positions)?;
        match self.embedding_norm {
            Some(name) => net.norm(name, x, Norm::Layer),
            None => Ok(x),
        }
    }

    fn final_normed(&self, net: &mut Network, x: TensorId) -> Made {
        match self.final_norm {
            Some(name) => net.norm(name, x, Norm::Layer),
            None => Ok(x),
        }
    }

    fn encode(&self, net: &mut Network, batch: &Dim, tokens: &Dim) -> Made {
        let mut x = match self.front {
            Front::Tokens => {
                let ids = net.token_input("input_ids", &[batch.clone(), tokens.clone()])?;
                self.embedded(net, ids, tokens, self.encoder)?
            }
            Front::Spectrogram { bands, frames } => {
                self.listened(net, &[batch.clone(), bands.into(), (2 * frames).into()])?
            }
        };
        let attention = self.attention(self.encoder.heads, Mask::Full)?;
        for layer_idx in 0..self.encoder.layers {
            let path = format!("layers.{layer_idx}");
            x = net.module(&path, "EncoderLayer", |net| {
                let norm = ("self_attn_layer_norm", Norm::Layer);
                let x = net.residual(x, norm, self.placement, |net, x| {
                    net.module("self_attn", attention.class, |net| {
                        attention.build(net, x, &Source::Itself, None)
                    })
                })?;
                self.feed_forward(net, x, self.encoder.width)
            })?;
        }
        self.final_normed(net, x)
    }

    /// The convolutions in front of Whisper's encoder.
    fn listened(&self, net: &mut Network, shape: &[Dim]) -> Made {
        let format = net.format();
        let mut x = net.input("input_features", shape, format)?;
        for (name, stride) in [("conv1", 1), ("conv2", 2)] {
            let conv = Conv {
                out: self.hidden,
                kernel: vec![3],
                stride: vec![stride],
                before: vec![1],
                after: vec![1],
                groups: 1,
                bias: Bias::Added,
            };
            x = net.convolution(name, x, &conv)?;
            x = net.each(Function::GeluErf, &[x])?;
        }
        let x = net.permute(x, &[0, 2, 1])?;
        let frames = net.axis(x, 2);
        let rows = self.encoder.positions.unwrap_or(0);
        let positions = net.table_of_positions("embed_positions", rows, &frames, self.hidden)?;
        net.add(x, positions)
    }

    fn attention(&self, heads: i64, mask: Mask) -> Result<CrossAttention, Error> {
        Ok(CrossAttention {
            class: "Attention",
            heads,
            head_dim: CrossAttention::even(self.hidden, heads)?,
            projections: [
                ("q_proj", Bias::Added),
                ("k_proj", self.key_bias),
                ("v_proj", Bias::Added),
            ],
            output: ("out_proj", Bias::Added),
            mask,
        })
    }

    fn decoder_layer(&self, net: &mut Network, x: TensorId, source: &Source, tokens: &Dim) -> Made {
        let own = self.attention(self.decoder.heads, Mask::causal())?;
        let other = self.attention(self.decoder.heads, Mask::Full)?;
        let norm = ("self_attn_layer_norm", Norm::Layer);
        let x = net.residual(x, norm, self.placement, |net, x| {
            net.module("self_attn", own.class, |net| {
                let seen = own.build(net, x, &Source::Itself, None)?;
                own.keep(net, Keeps::All);
                Ok(seen)
            })
        })?;
        let norm = ("encoder_attn_layer_norm", Norm::Layer);
        let x = net.residual(x, norm, self.placement, |net, x| {
            net.module("encoder_attn", other.class, |net| {
                let seen = other.build(net, x, source, None)?;
                other.keep(net, Keeps::Other(tokens.clone()));
                Ok(seen)
            })
        })?;
        self.feed_forward(net, x, self.decoder.width)
    }

    fn feed_forward(&self, net: &mut Network, x: TensorId, width: i64) -> Made {
        // Its matrices stand in the layer itself.
        let dense = FeedForward::Dense(Dense {
            class: "",
            width,
            function: self.function,
            gating: Gating::Plain(["fc1", "fc2"]),
            bias: Bias::Added,
        });
        net.residual(x, ("final_layer_norm", Norm::Layer), self.placement, |net, x| {
            dense.build(net, x)
        })
    }

    fn logits(&self, net: &mut Network, x: TensorId) -> Made {
        let Head::Linear { name, is_tied, has_offset } = self.head else { return Ok(x) };
        let logits = match is_tied {
            true => {
                let table = self.table(net)?;
                net.linear_with(name, x, table)?
            }
            false => net.linear(name, x, self.vocabulary, Bias::None)?,
        };
        if !has_offset {
            return Ok(logits);
        }
        let format = net.format();
        let offset = net.buffer("final_logits_bias", &[1, self.vocabulary], format)?;
        net.add(logits, offset)
    }
}

impl Network {
    /// One row per index of a table that another module has.
    pub(super) fn embedding_of(&mut self, name: &str, table: TensorId, ids: TensorId) -> Made {
        self.module(name, "torch.nn.modules.sparse.Embedding", |net| {
            net.apply("", "aten.embedding.default", Op::Embedding, &[table, ids])
        })
    }

    /// Sines and cosines of positions (arXiv 1706.03762, section 3.5), which are stored.
    fn computed_positions(&mut self, length: &Dim, width: i64) -> Made {
        let (shape, format) = (Shape(vec![length.clone(), width.into()]), self.format());
        let op = Op::Fill { shape, format };
        self.apply("embed_positions", "aten.index_select.default", op, &[])
    }
}
