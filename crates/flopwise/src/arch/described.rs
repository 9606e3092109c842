//! Fields that encoders, encoder-decoders and diffusion models share: the class among those of a
//! family, the function of a layer, sizes that may be given for both sides of an image at once.
//!
//! Not here: what the fields of one family mean.

use super::config::Config;
use super::network::{Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Function, Normalization, Op, TensorId};

/// Longer words in messages are cut.
const MAX_SHOWN: usize = 48;

/// Which of the classes of a family the config is of; the first where it does not say.
pub(super) fn class_of(config: &Config, known: &[&'static str]) -> Result<&'static str, Error> {
    let named = config.texts("architectures")?.and_then(|named| named.first().copied());
    match named {
        Some(named) => known.iter().find(|class| **class == named).copied().ok_or_else(|| {
            let shown: String = named.chars().take(MAX_SHOWN).collect();
            config
                .error("architectures", format!("is `{shown}`, which has no rule here"))
                .remedy(format!("known of this family: {}", known.join(", ")))
        }),
        None => {
            let first = known.first().copied().unwrap_or_default();
            config.assume("architectures", first);
            Ok(first)
        }
    }
}

/// The function that a field names, as `transformers` does (`activations.py`, `ACT2FN`).
pub(super) fn function(
    config: &Config,
    field: &str,
    default: &'static str,
) -> Result<Function, Error> {
    let name = match config.text(field)? {
        Some(name) => name,
        None => {
            config.assume(field, default);
            default
        }
    };
    function_named(name).ok_or_else(|| {
        let shown: String = name.chars().take(MAX_SHOWN).collect();
        config.error(field, format!("is `{shown}`, which has no rule here"))
    })
}

/// The function of a name.
pub(super) fn function_named(name: &str) -> Option<Function> {
    Some(match name {
        "gelu" => Function::GeluErf,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu-approximate" => Function::GeluTanh,
        "quick_gelu" => Function::QuickGelu,
        "relu" => Function::Relu,
        "silu" | "swish" => Function::Silu,
        "tanh" => Function::Tanh,
        "sigmoid" => Function::Sigmoid,
        "mish" => Function::Mish,
        _ => return None,
    })
}

/// A size, or one for height and one for width.
pub(super) fn sides(config: &Config, field: &str, default: i64) -> Result<[i64; 2], Error> {
    let is_list = config.get(field).is_some_and(|value| value.is_array());
    if !is_list {
        let side = config.size_or(field, default)?;
        return Ok([side, side]);
    }
    match config.sizes(field)?.as_deref() {
        Some([height, width]) if 0 < *height && 0 < *width => Ok([*height, *width]),
        _ => Err(config.error(field, "is neither a size nor two")),
    }
}

/// Classes to tell apart: `num_labels`, or as many as have a name.
pub(super) fn labels(config: &Config) -> Result<i64, Error> {
    let named = config.get("id2label").and_then(|names| names.as_object()).map(|names| names.len());
    match named.and_then(|n_names| i64::try_from(n_names).ok()).filter(|n_names| 0 < *n_names) {
        Some(n_names) => Ok(n_names),
        None => config.size_or("num_labels", 2),
    }
}

/// Where the norm of a residual part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// `x + part(norm(x))`.
    Before,
    /// `norm(x + part(x))`.
    After,
}

impl Network {
    /// A part of a layer with its norm and its residual.
    pub(super) fn residual(
        &mut self,
        x: TensorId,
        (name, norm): (&str, Norm),
        placement: Placement,
        part: impl FnOnce(&mut Network, TensorId) -> Made,
    ) -> Made {
        match placement {
            Placement::Before => {
                let inner = self.norm(name, x, norm)?;
                let result = part(self, inner)?;
                self.add(x, result)
            }
            Placement::After => {
                let result = part(self, x)?;
                let sum = self.add(x, result)?;
                self.norm(name, sum, norm)
            }
        }
    }

    /// Every element times a number, or a number more.
    pub(super) fn with_scalar(&mut self, function: Function, x: TensorId) -> Made {
        self.each(function, &[x])
    }

    /// `x [n, c, ..]` normalised over groups of channels, with a scale and a bias per channel.
    pub(super) fn group_norm(&mut self, name: &str, x: TensorId, groups: i64) -> Made {
        let channels = self.shape(x).get(1).and_then(|channels| channels.as_constant());
        let channels = channels.and_then(|channels| i64::try_from(channels).ok()).unwrap_or(0);
        if channels < 1 || channels % groups != 0 {
            return Err(Error::new(format!("{groups} groups do not divide {channels} channels")));
        }
        self.module(name, "torch.nn.modules.normalization.GroupNorm", |net| {
            let inputs =
                [x, net.parameter("weight", &[channels])?, net.parameter("bias", &[channels])?];
            let op = Op::Normalization(Normalization::Group { groups });
            net.apply("", "aten.group_norm.default", op, &inputs)
        })
    }

    /// `x [b, s, width]` -> the first of each sequence, `[b, width]`.
    pub(super) fn first_token(&mut self, x: TensorId) -> Made {
        let (batch, width) = (self.axis(x, 3), self.width(x)?);
        let first = self.slice(x, 1, 0, 1)?;
        self.reshape(first, &[batch, dim(width)])
    }
}
