//! Fields that many families read alike: the activation, the rotated part of a head, the layers that
//! see a window only.

use super::super::config::Config;
use super::super::layer::SelfAttention;
use crate::error::Error;
use crate::graph::{Dim, Function, Mask};

/// The number of layers under its usual names.
pub(super) fn n_layers(config: &Config) -> Result<i64, Error> {
    config.layers(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"])
}

/// An activation by the names of `transformers/activations.py`.
pub(super) fn function(config: &Config, field: &str, default: &str) -> Result<Function, Error> {
    let name = match config.text(field)? {
        Some(name) => name,
        None => {
            config.assume(field, default);
            default
        }
    };
    Ok(match name {
        "silu" | "swish" => Function::Silu,
        "gelu" | "gelu_python" => Function::GeluErf,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Function::GeluTanh,
        "quick_gelu" => Function::QuickGelu,
        "relu" => Function::Relu,
        "relu2" => Function::SquaredRelu,
        "tanh" => Function::Tanh,
        "sigmoid" => Function::Sigmoid,
        "mish" => Function::Mish,
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(config.error(field, format!("is `{shown}`, no activation known here")));
        }
    })
}

/// Head sizes and counts. `kv_heads` and `head_dim` are what the reference implementation takes where
/// the config has none; without them there are as many key heads as query heads, and the heads share
/// the width.
pub(super) fn attention(
    config: &Config,
    kv_heads: Option<i64>,
    head_dim: Option<i64>,
) -> Result<SelfAttention, Error> {
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    // A null is what transformers' `__post_init__` replaces; a missing field has the class's default.
    let kv_heads = match (config.is_null("num_key_value_heads"), kv_heads) {
        (false, Some(default)) => config.size_or("num_key_value_heads", default)?,
        (true, _) | (_, None) => config.optional("num_key_value_heads")?.unwrap_or(heads),
    };
    let head_dim = match (config.optional("head_dim")?, head_dim) {
        (Some(head_dim), _) => head_dim,
        (None, Some(default)) if !config.is_null("head_dim") => {
            config.size_or("head_dim", default)?
        }
        (None, _) => even(config, "num_attention_heads", hidden, heads)?,
    };
    Ok(SelfAttention::llama(heads, kv_heads, head_dim))
}

/// `hidden / heads`, which must come out even.
pub(super) fn even(config: &Config, field: &str, hidden: i64, heads: i64) -> Result<i64, Error> {
    match hidden % heads {
        0 => Ok(hidden / heads),
        _ => Err(config.error(field, format!("is {heads}, which does not divide {hidden}"))),
    }
}

/// How many elements of each head are rotated: a fraction of them, rounded down.
pub(super) fn rotated(config: &Config, head_dim: i64, default: f64) -> Result<i64, Error> {
    let mut factor = None;
    for field in ["partial_rotary_factor", "rotary_pct"] {
        factor = factor.or(config.number(field)?);
    }
    for field in ["rope_parameters", "rope_scaling"] {
        if let Some(rope) = config.sub(field)? {
            factor = factor.or(rope.number("partial_rotary_factor")?);
        }
    }
    let factor = factor.unwrap_or_else(|| {
        if default < 1.0 {
            config.assume("partial_rotary_factor", default);
        }
        default
    });
    if !(0.0..=1.0).contains(&factor) {
        return Err(config.error("partial_rotary_factor", format!("is {factor}, not 0 to 1")));
    }
    Ok((head_dim as f64 * factor) as i64)
}

/// Which layers see a window only, by `layer_types` or as the reference implementation says.
pub(super) fn windowed(
    config: &Config,
    layers: i64,
    otherwise: impl Fn(i64) -> bool,
) -> Result<Vec<bool>, Error> {
    match config.text_per_layer("layer_types", layers)? {
        None => Ok((0..layers).map(otherwise).collect()),
        Some(types) => types
            .into_iter()
            .map(|known| match known {
                "full_attention" => Ok(false),
                "sliding_attention" => Ok(true),
                other => {
                    let shown: String = other.chars().take(40).collect();
                    Err(config.error("layer_types", format!("has `{shown}`, unknown here")))
                }
            })
            .collect(),
    }
}

/// A window of so many keys, or all before.
pub(super) fn mask(window: Option<i64>) -> Mask {
    match window {
        Some(keys) => Mask::window(&Dim::from(keys), Dim::ZERO),
        None => Mask::causal(),
    }
}

/// A field that may also be null, which is not the same as missing: then there is none.
pub(super) fn nullable(config: &Config, field: &str, default: i64) -> Result<Option<i64>, Error> {
    match config.is_null(field) {
        true => Ok(None),
        false => config.size_or(field, default).map(Some),
    }
}

/// Whether a soft cap is given; null is none, and a missing one what the reference takes.
pub(super) fn soft_capped(
    config: &Config,
    field: &str,
    default: Option<f64>,
) -> Result<bool, Error> {
    if config.is_null(field) {
        return Ok(false);
    }
    match (config.number(field)?, default) {
        (Some(_), _) => Ok(true),
        (None, Some(cap)) => {
            config.assume(field, cap);
            Ok(true)
        }
        (None, None) => Ok(false),
    }
}
