//! Mamba, Mamba-2 and Falcon Mamba: stacks of state spaces without attention; and what the hybrids
//! (`nemotron_h.rs`, `mamba_hybrid.rs`) share with them.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Head, Layer, Paths};
use super::super::layer::mamba::{GatedNorm, Mamba, Mamba2};
use super::super::layer::{CausalConvolution, Mixer, Recurrent};
use super::super::network::{Bias, Norm};
use super::{Build, Request, llama, parts};
use crate::error::Error;
use crate::graph::Graph;
use flopwise_formats::Format;

pub(super) const TYPES: &[(&str, Build)] =
    &[("mamba", mamba), ("mamba2", mamba2), ("falcon_mamba", falcon_mamba)];

/// Where these models have their parts.
const BACKBONE: Paths = Paths { stack: "backbone", embedding: "embeddings", layers: "layers" };

/// One norm before the mixer and nothing else.
pub(super) const MIXER_ONLY: Arrangement = Arrangement::Residual {
    before_mixer: Some("norm"),
    after_mixer: None,
    before_feed_forward: None,
    after_feed_forward: None,
};

/// A decoder whose head shares the token table unless the config says otherwise, or the other way
/// round.
pub(super) fn decoder(
    config: &Config,
    request: &Request,
    class: &str,
    is_tied: bool,
    layers: Vec<Layer>,
) -> Result<Decoder, Error> {
    let is_tied = config.flag_or("tie_word_embeddings", is_tied)?;
    let mut own = config.clone();
    own.set("tie_word_embeddings", is_tied.into());
    let decoder = llama::decoder(&own, request, class, layers)?;
    Ok(Decoder { head: Some(head(is_tied)), ..decoder })
}

fn head(is_tied: bool) -> Head {
    Head { name: "lm_head", is_tied, bias: Bias::None, is_soft_capped: false }
}

/// A count under one of several names, or what the reference implementation takes.
pub(super) fn named(config: &Config, fields: &[&str], default: i64) -> Result<i64, Error> {
    for field in fields {
        if let Some(size) = config.optional(field)? {
            return Ok(size);
        }
    }
    config.size_or(fields.first().copied().unwrap_or_default(), default)
}

/// `factor * size`, where the factor may have a fraction, rounded down.
pub(super) fn expanded(config: &Config, field: &str, size: i64) -> Result<i64, Error> {
    let factor = match config.number(field)? {
        Some(factor) => factor,
        None => {
            config.assume(field, 2);
            2.0
        }
    };
    let wide = factor * size as f64;
    // Sizes are below 2^31; more of them is no model.
    if !(1.0..=f64::from(i32::MAX)).contains(&wide) {
        return Err(config.error(field, format!("is {factor}, which makes {size} channels {wide}")));
    }
    Ok(wide as i64)
}

/// The format of a state, by a field of the config; the kernels of Mamba and their kin return
/// states in float32 (state-spaces/mamba, ops/triton/ssd_combined.py), so that is what is taken
/// without.
pub(super) fn state_format(config: &Config) -> Result<Format, Error> {
    for field in ["mamba_ssm_cache_dtype", "mamba_ssm_dtype"] {
        let Some(name) = config.text(field)? else { continue };
        return match name {
            "float32" => Ok(Format::FP32),
            "bfloat16" => Ok(Format::BF16),
            "float16" => Ok(Format::FP16),
            "auto" => config.format(),
            other => {
                let shown: String = other.chars().take(40).collect();
                Err(config
                    .error(field, format!("is `{shown}`, no format a state is known to have")))
            }
        };
    }
    Ok(Format::FP32)
}

/// A layer of one mixer after a norm.
pub(super) fn mixer_layer(recurrent: Recurrent) -> Layer {
    Layer {
        class: "Block",
        arrangement: MIXER_ONLY,
        norm: Norm::Rms,
        mixer: Some(("mixer", Mixer::Recurrent(recurrent))),
        feed_forward: None,
    }
}

/// The names of the fields of a Mamba, with what the reference implementation takes without them.
pub(super) struct Fields<'a> {
    /// Elements of the state.
    pub(super) state: (&'a str, i64),
    /// Tokens that the convolution sees.
    pub(super) kernel: (&'a str, i64),
    /// Channels per element of the width.
    pub(super) expand: &'a str,
    /// Width between the projections of the step sizes.
    pub(super) step_rank: &'a str,
    /// Whether the projections have biases.
    pub(super) bias: &'a str,
    /// Whether the convolution has one.
    pub(super) conv_bias: &'a str,
}

/// A selective state space, read as `MambaConfig` and its kin do.
pub(super) fn selective(config: &Config, fields: &Fields) -> Result<Mamba, Error> {
    let hidden = config.size("hidden_size")?;
    let is_automatic = !config.has(fields.step_rank)
        || config.get(fields.step_rank).is_some_and(|value| value.as_str() == Some("auto"));
    let step_rank = match is_automatic {
        true => (hidden + 15) / 16,
        false => config.size(fields.step_rank)?,
    };
    let convolution = CausalConvolution {
        kernel: config.size_or(fields.kernel.0, fields.kernel.1)?,
        bias: config.flag_or(fields.conv_bias, true)?.into(),
        function: Some(parts::function(config, "hidden_act", "silu")?),
    };
    Ok(Mamba {
        inner: expanded(config, fields.expand, hidden)?,
        state: config.size_or(fields.state.0, fields.state.1)?,
        step_rank,
        convolution,
        bias: config.flag_or(fields.bias, false)?.into(),
        inner_norm: None,
        state_format: state_format(config)?,
    })
}

const MAMBA: Fields = Fields {
    state: ("state_size", 16),
    kernel: ("conv_kernel", 4),
    expand: "expand",
    step_rank: "time_step_rank",
    bias: "use_bias",
    conv_bias: "use_conv_bias",
};

fn stack(
    config: &Config,
    request: &Request,
    class: &str,
    is_tied: bool,
    recurrent: Recurrent,
) -> Result<Graph, Error> {
    let layers = vec![mixer_layer(recurrent); config.layers(&["num_hidden_layers"])? as usize];
    let decoder = decoder(config, request, class, is_tied, layers)?;
    let decoder = Decoder { paths: BACKBONE, final_norm: Some(("norm_f", Norm::Rms)), ..decoder };
    decoder.graph(request.options.pass)
}

fn mamba(config: &Config, request: &Request) -> Result<Graph, Error> {
    let mamba = selective(config, &MAMBA)?;
    stack(config, request, "MambaForCausalLM", true, Recurrent::Mamba(mamba))
}

fn falcon_mamba(config: &Config, request: &Request) -> Result<Graph, Error> {
    let mamba = Mamba { inner_norm: Some(Norm::PlainRms), ..selective(config, &MAMBA)? };
    stack(config, request, "FalconMambaForCausalLM", true, Recurrent::Mamba(mamba))
}

/// The names of the fields of a Mamba-2, with what the reference implementation takes without them.
pub(super) struct Fields2<'a> {
    pub(super) heads: (&'a [&'a str], i64),
    pub(super) groups: (&'a [&'a str], i64),
    pub(super) state: (&'a [&'a str], i64),
    pub(super) chunk: (&'a [&'a str], i64),
    pub(super) kernel: (&'a [&'a str], i64),
    /// Whether the convolution has a bias.
    pub(super) conv_bias: &'a str,
    /// Whether the projections have biases.
    pub(super) bias: &'a str,
    pub(super) function: &'a str,
}

/// A Mamba-2 with heads of this size, read as `Mamba2Config` and its kin do.
pub(super) fn dual(
    config: &Config,
    fields: &Fields2,
    head_dim: impl Fn(i64) -> Result<i64, Error>,
) -> Result<Mamba2, Error> {
    let heads = named(config, fields.heads.0, fields.heads.1)?;
    let groups = named(config, fields.groups.0, fields.groups.1)?;
    let bias: Bias = config.flag_or(fields.bias, false)?.into();
    Ok(Mamba2 {
        heads,
        head_dim: head_dim(heads)?,
        groups,
        state: named(config, fields.state.0, fields.state.1)?,
        chunk: named(config, fields.chunk.0, fields.chunk.1)?,
        convolution: CausalConvolution {
            kernel: named(config, fields.kernel.0, fields.kernel.1)?,
            bias: config.flag_or(fields.conv_bias, true)?.into(),
            function: Some(parts::function(config, fields.function, "silu")?),
        },
        bias_in: bias,
        bias_out: bias,
        gate: GatedNorm::After(groups),
        state_format: state_format(config)?,
    })
}

fn mamba2(config: &Config, request: &Request) -> Result<Graph, Error> {
    let fields = Fields2 {
        heads: (&["num_heads"], 128),
        groups: (&["n_groups"], 8),
        state: (&["state_size"], 128),
        chunk: (&["chunk_size"], 256),
        kernel: (&["conv_kernel"], 4),
        conv_bias: "use_conv_bias",
        bias: "use_bias",
        function: "hidden_act",
    };
    let mamba = dual(config, &fields, |_| config.size_or("head_dim", 64))?;
    let inner = expanded(config, "expand", config.size("hidden_size")?)?;
    if mamba.inner() != inner {
        let (heads, head_dim) = (mamba.heads, mamba.head_dim);
        let what = format!("is {heads}, which times head_dim {head_dim} is not {inner}");
        return Err(config.error("num_heads", what));
    }
    stack(config, request, "Mamba2ForCausalLM", false, Recurrent::Mamba2(mamba))
}
