//! [`State`]: what one layer of a decoder keeps from one token to the next.
//!
//! Not here: how many bytes that makes for so many tokens (see [`crate::cost`]).

use super::dim::Dim;
use flopwise_formats::Format;
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
