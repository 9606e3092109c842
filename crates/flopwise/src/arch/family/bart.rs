//! Encoder-decoders of the BART kind: BART (arXiv 1910.13461), mBART (2001.08210), Marian, Pegasus
//! (1912.08777), M2M-100 and NLLB (2010.11125, 2207.04672), and Whisper (2212.04356).

use super::super::config::Config;
use super::super::described::{Placement, class_of, function};
use super::super::encoder_decoder::{EncoderDecoder, Front, Head, Stack};
use super::super::network::Bias;
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Function, Graph};

pub(super) const TYPES: &[(&str, Build)] = &[
    ("bart", bart),
    ("mbart", mbart),
    ("marian", marian),
    ("pegasus", pegasus),
    ("m2m_100", m2m_100),
    ("whisper", whisper),
];

/// Sizes of the encoder (`which` = "encoder") or the decoder.
fn stack(config: &Config, which: &str, positions: Option<i64>) -> Result<Stack, Error> {
    Ok(Stack {
        layers: config.layers(&[&format!("{which}_layers")])?,
        heads: config.size(&format!("{which}_attention_heads"))?,
        width: config.size(&format!("{which}_ffn_dim"))?,
        positions,
        max_length: None,
    })
}

fn linear(config: &Config, has_offset: bool) -> Result<Head, Error> {
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
    Ok(Head::Linear { name: "lm_head", is_tied, has_offset })
}

/// BART; the others differ from it in little. `classes` are the class with a head and the bare one.
fn like_bart(
    config: &Config,
    request: &Request,
    classes: [&'static str; 2],
    offset: i64,
) -> Result<EncoderDecoder, Error> {
    let class = class_of(config, &classes)?;
    let rows = config.size_or("max_position_embeddings", 1024)?;
    let sized = |which: &str| -> Result<Stack, Error> {
        let stack = stack(config, which, Some(rows + offset))?;
        Ok(Stack { max_length: Some(rows), ..stack })
    };
    Ok(EncoderDecoder {
        name: request.name.to_owned(),
        class,
        format: config.format()?,
        hidden: config.size("d_model")?,
        vocabulary: config.size("vocab_size")?,
        front: Front::Tokens,
        encoder: sized("encoder")?,
        decoder: sized("decoder")?,
        placement: Placement::After,
        key_bias: Bias::Added,
        function: function(config, "activation_function", "gelu")?,
        embedding_norm: None,
        final_norm: None,
        is_scaled: config.flag("scale_embedding")?.unwrap_or(false),
        head: if class == classes[0] { linear(config, true)? } else { Head::None },
    })
}

fn bart(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["BartForConditionalGeneration", "BartModel"];
    // Two rows stand before position 0 (`BartLearnedPositionalEmbedding`).
    let described = like_bart(config, request, classes, 2)?;
    let embedding_norm = Some("layernorm_embedding");
    EncoderDecoder { embedding_norm, ..described }.graph(request.options.pass)
}

fn mbart(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["MBartForConditionalGeneration", "MBartModel"];
    let described = EncoderDecoder {
        embedding_norm: Some("layernorm_embedding"),
        final_norm: Some("layer_norm"),
        placement: Placement::Before,
        ..like_bart(config, request, classes, 2)?
    };
    described.graph(request.options.pass)
}

fn marian(config: &Config, request: &Request) -> Result<Graph, Error> {
    if !config.flag("share_encoder_decoder_embeddings")?.unwrap_or(true) {
        let what = "is false; a model with two tables of tokens has no rule here";
        return Err(config.error("share_encoder_decoder_embeddings", what));
    }
    let classes = ["MarianMTModel", "MarianModel"];
    like_bart(config, request, classes, 0)?.graph(request.options.pass)
}

fn pegasus(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["PegasusForConditionalGeneration", "PegasusModel"];
    let described = EncoderDecoder {
        final_norm: Some("layer_norm"),
        placement: Placement::Before,
        ..like_bart(config, request, classes, 0)?
    };
    described.graph(request.options.pass)
}

fn m2m_100(config: &Config, request: &Request) -> Result<Graph, Error> {
    let classes = ["M2M100ForConditionalGeneration", "M2M100Model"];
    let described = like_bart(config, request, classes, 0)?;
    let computed = |stack: Stack| Stack { positions: None, ..stack };
    let (encoder, decoder) = (computed(described.encoder), computed(described.decoder));
    let described = EncoderDecoder {
        encoder,
        decoder,
        function: function(config, "activation_function", "relu")?,
        final_norm: Some("layer_norm"),
        placement: Placement::Before,
        is_scaled: config.flag("scale_embedding")?.unwrap_or(true),
        head: if described.head == Head::None { Head::None } else { linear(config, false)? },
        ..described
    };
    described.graph(request.options.pass)
}

fn whisper(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class_of(config, &["WhisperForConditionalGeneration", "WhisperModel"])?;
    let frames = config.size_or("max_source_positions", 1500)?;
    let rows = config.size_or("max_target_positions", 448)?;
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
    let described = EncoderDecoder {
        name: request.name.to_owned(),
        class,
        format: config.format()?,
        hidden: config.size("d_model")?,
        vocabulary: config.size("vocab_size")?,
        front: Front::Spectrogram { bands: config.size_or("num_mel_bins", 80)?, frames },
        encoder: stack(config, "encoder", Some(frames))?,
        decoder: Stack { max_length: Some(rows), ..stack(config, "decoder", Some(rows))? },
        placement: Placement::Before,
        key_bias: Bias::None,
        function: match config.text("activation_function")? {
            None => Function::GeluErf,
            Some(_) => function(config, "activation_function", "gelu")?,
        },
        embedding_norm: None,
        final_norm: Some("layer_norm"),
        is_scaled: config.flag("scale_embedding")?.unwrap_or(false),
        head: match class {
            "WhisperModel" => Head::None,
            _ => Head::Linear { name: "proj_out", is_tied, has_offset: false },
        },
    };
    described.graph(request.options.pass)
}
