//! [`State`]: what one layer of a decoder keeps from one token to the next.
//!
//! Not here: how many bytes that makes for so many tokens (see [`crate::cost`]).

use super::dim::Dim;
use super::mask::{Band, Compressed, Mask};
use flopwise_formats::block::BlockFormat;
use flopwise_formats::{Format, block};
use std::sync::Arc;

/// What one layer keeps of one sequence: keys and values, a compressed latent, a recurrent state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Path of the layer that keeps it.
    pub module: Arc<str>,
    /// What it is: `keys and values`, `latent`, `convolution`.
    pub what: &'static str,
    /// Numbers kept: per token, or in all, as `keeps` says.
    pub elements: Dim,
    /// Their format.
    pub format: Format,
    /// Of how many tokens.
    pub keeps: Keeps,
}

/// Of how many tokens a layer keeps something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Of every token so far.
    All,
    /// Of the last so many (sliding window).
    Window(Dim),
    /// Of those in the chunk that the next token falls into, of so many positions.
    Chunk(Dim),
    /// One entry for every so many tokens (compressed keys).
    Every(Dim),
    /// Of the tokens of another sequence, of this length (cross-attention).
    Other(Dim),
    /// One state for the whole sequence.
    Once,
}

impl Keeps {
    /// How many entries the last of `context` tokens finds, its own included: exactly what its
    /// attention reads.
    #[must_use]
    pub fn entries(&self, context: &Dim) -> Dim {
        match self {
            Keeps::All => context.clone(),
            Keeps::Window(keys) => context.minimum(keys),
            Keeps::Chunk(length) => &(context - &Dim::ONE).modulo(length) + &Dim::ONE,
            Keeps::Every(tokens) => context.floor_div(tokens),
            Keeps::Other(length) => length.clone(),
            Keeps::Once => Dim::ONE,
        }
    }

    /// In words: `every token`, `window of 128`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Keeps::All => "every token".to_owned(),
            Keeps::Window(keys) => format!("window of {keys}"),
            Keeps::Chunk(length) => format!("chunk of {length}"),
            Keeps::Every(tokens) => format!("one for {tokens} tokens"),
            Keeps::Other(length) => format!("{length} tokens of the other sequence"),
            Keeps::Once => "once".to_owned(),
        }
    }
}

impl Mask {
    /// Of how many tokens such an attention keeps its keys; `None` where nothing is generated token
    /// by token, because queries see keys behind them.
    #[must_use]
    pub fn keeps(&self) -> Option<Keeps> {
        match self {
            Mask::Band(Band { left, right: Some(right), .. }) if *right == Dim::ZERO => {
                Some(match left {
                    Some(left) => Keeps::Window(left + &Dim::ONE),
                    None => Keeps::All,
                })
            }
            Mask::Chunk { length, .. } => Some(Keeps::Chunk(length.clone())),
            // Which keys are chosen hangs on the query, so all stay.
            Mask::Prefix { .. } | Mask::Best { .. } => Some(Keeps::All),
            Mask::Compressed(Compressed { own: Some(own), .. }) => own.keeps(),
            Mask::Compressed(Compressed { own: None, tokens, .. }) => {
                Some(Keeps::Every(tokens.clone()))
            }
            Mask::Full | Mask::Band(_) | Mask::Packed { .. } | Mask::Tensor => None,
        }
    }
}

/// A format that weights, or keys and values, can be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredFormat {
    /// One code per element.
    Plain(Format),
    /// Blocks of elements under a shared scale.
    Blocks(&'static BlockFormat),
}

impl std::str::FromStr for StoredFormat {
    type Err = String;

    /// A name of the catalogue: `bf16`, `fp8_e4m3`, `int4`, `mxfp4`, `nvfp4`, `q4_k`.
    fn from_str(text: &str) -> Result<StoredFormat, String> {
        if let Ok(blocks) = block::parse(text) {
            return Ok(StoredFormat::Blocks(blocks));
        }
        let format = flopwise_formats::parse(text).map_err(|error| error.to_string())?;
        match format.bits {
            0 => Err(format!("`{text}` holds no numbers")),
            _ => Ok(StoredFormat::Plain(format)),
        }
    }
}

impl std::fmt::Display for StoredFormat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoredFormat::Plain(format) => write!(formatter, "{format}"),
            StoredFormat::Blocks(blocks) => formatter.write_str(blocks.name),
        }
    }
}

impl StoredFormat {
    /// Bytes of so many rows of so many elements each, scales included: plain codes packed without
    /// gaps, the last block of each row filled up.
    #[must_use]
    pub fn bytes(&self, rows: &Dim, length: &Dim) -> Dim {
        match self {
            StoredFormat::Plain(format) => {
                let elements = rows * length;
                match i64::from(format.bits) {
                    bits if bits % 8 == 0 => &elements * &Dim::from(bits / 8),
                    bits => (&elements * &Dim::from(bits)).ceil_div(&Dim::from(8i64)),
                }
            }
            StoredFormat::Blocks(block) => {
                let blocks = rows * &length.ceil_div(&Dim::from(block.elements as u128));
                &blocks * &Dim::from(block.bytes as u128)
            }
        }
    }
}
