//! Families of architectures: the fields of a config, by `model_type`, to what is built of them.
//!
//! Each family reads its fields as the reference implementation does (`transformers`, the file
//! `models/<model_type>/configuration_<model_type>.py`), and names what it assumes.

mod bart;
mod clip;
mod deepseek;
mod deepseek_v4;
mod delta;
mod encoder;
mod encoder_heads;
mod gemma;
mod gemma4;
mod gpt;
mod heads;
mod kimi_k3;
mod linear;
mod llama;
mod llama_kin;
mod mamba;
mod mamba_hybrid;
mod moe;
mod multimodal;
mod nemotron_h;
mod norms;
mod parts;
mod t5;
mod vit;

use super::Options;
use super::config::Config;
use crate::error::Error;
use crate::graph::Graph;

/// What a family's builder is given besides the config.
pub(super) struct Request<'a> {
    /// The model's name.
    pub(super) name: &'a str,
    /// What the user wants built.
    pub(super) options: &'a Options,
}

/// Builds the graph that a config describes.
pub(super) type Build = fn(&Config, &Request) -> Result<Graph, Error>;

/// Every `model_type` known, with its builder.
const FAMILIES: &[&[(&str, Build)]] = &[
    deepseek::TYPES,
    kimi_k3::TYPES,
    deepseek_v4::TYPES,
    llama::TYPES,
    moe::TYPES,
    llama_kin::TYPES,
    gemma::TYPES,
    gemma4::TYPES,
    multimodal::TYPES,
    gpt::TYPES,
    norms::TYPES,
    encoder::TYPES,
    bart::TYPES,
    clip::TYPES,
    t5::TYPES,
    vit::TYPES,
    delta::TYPES,
    linear::TYPES,
    mamba::TYPES,
    mamba_hybrid::TYPES,
    nemotron_h::TYPES,
];

/// The builder of a `model_type`.
pub(super) fn build(model_type: &str) -> Option<Build> {
    let mut all = FAMILIES.iter().flat_map(|family| family.iter());
    all.find(|(known, _)| *known == model_type).map(|(_, build)| *build)
}

/// Every `model_type` known.
pub(super) fn model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.iter()).map(|(known, _)| *known)
}
