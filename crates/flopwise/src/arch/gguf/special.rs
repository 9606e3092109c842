//! What the tables of `rows.rs` cannot say: fields that follow from several keys, or from which
//! tensors there are.
//!
//! The sources are the converters of the same name in llama.cpp's `convert_hf_to_gguf.py`, and what
//! its `src/llama-model.cpp` takes where the file says nothing.

use super::facts::Facts;
use crate::arch::config::Config;
use crate::error::Error;

/// Llama, and what is stored as Llama: Mistral, Mixtral, decoders with biases of Qwen 2's kind.
pub(super) fn llama(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let experts = facts.number("expert_count")?.unwrap_or(0);
    let has_bias = |name: &str| facts.some_layer_has(name);
    if 0 < experts {
        config.set("model_type", "mixtral".into());
        config.set("num_local_experts", experts.into());
        config.set("num_experts_per_tok", facts.needed("expert_used_count")?.into());
    } else if has_bias("attn_q.bias") && !has_bias("attn_output.bias") {
        config.set("model_type", "qwen2".into());
    } else if has_bias("attn_q.bias") {
        config.set("attention_bias", true.into());
    } else if facts.number("attention.sliding_window")?.is_some_and(|window| 0 < window) {
        config.set("model_type", "mistral".into());
    }
    windowed(facts, config)
}

/// A window of 0 is none.
pub(super) fn windowed(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    if facts.number("attention.sliding_window")? == Some(0) {
        config.set("sliding_window", ().into());
    }
    Ok(())
}

/// Older files do not have the widths of the experts.
pub(super) fn qwen2_moe(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let widths = [
        ("moe_intermediate_size", "blk.0.ffn_down_exps.weight", 2),
        ("shared_expert_intermediate_size", "blk.0.ffn_down_shexp.weight", 1),
    ];
    for (field, tensor, axis) in widths {
        if let Some(width) = facts.axis(tensor, axis).filter(|_| !config.has(field)) {
            config.set(field, width.into());
        }
    }
    Ok(())
}

/// Three layers of linear attention, then one of full attention.
pub(super) fn qwen3_next(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let value_heads = facts.needed("ssm.time_step_rank")?;
    let value_dim = facts.needed("ssm.inner_size")?.checked_div(value_heads).unwrap_or(0);
    let sizes = [
        ("linear_conv_kernel_dim", facts.needed("ssm.conv_kernel")?),
        ("linear_key_head_dim", facts.needed("ssm.state_size")?),
        ("linear_num_key_heads", facts.needed("ssm.group_count")?),
        ("linear_num_value_heads", value_heads),
        ("linear_value_head_dim", value_dim),
        ("full_attention_interval", facts.number("full_attention_interval")?.unwrap_or(4)),
    ];
    for (field, size) in sizes {
        config.set(field, size.into());
    }
    let head = facts.needed("attention.key_length")?;
    if let Some(rotated) = facts.number("rope.dimension_count")?.filter(|_| 0 < head) {
        config.set("partial_rotary_factor", (rotated as f64 / head as f64).into());
    }
    Ok(())
}

/// Logits and scores that pass through a tanh.
pub(super) fn soft_caps(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    for name in ["final_logit_softcapping", "attn_logit_softcapping"] {
        match facts.real(name).filter(|cap| cap.is_finite() && *cap != 0.0) {
            Some(cap) => config.set(name, cap.into()),
            // Gemma 2 has both without being told, Gemma 3 none.
            None => config.set(name, ().into()),
        }
    }
    Ok(())
}

pub(super) fn phimoe(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    config.set("lm_head_bias", facts.has("output.bias").into());
    Ok(())
}

/// Attention and feed-forward network side by side.
pub(super) fn parallel(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    if let Some(is_parallel) = facts.flag("use_parallel_residual") {
        config.set("use_parallel_residual", is_parallel.into());
    }
    Ok(())
}

pub(super) fn falcon(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let kv_heads = facts.needed("attention.head_count_kv")?;
    config.set("num_kv_heads", kv_heads.into());
    config.set("multi_query", (kv_heads == 1).into());
    Ok(())
}

pub(super) fn mpt(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let hidden = facts.needed("embedding_length")?;
    let ratio = facts.needed("feed_forward_length")?.checked_div(hidden).unwrap_or(0);
    config.set("expansion_ratio", ratio.into());
    config.set("no_bias", (!facts.some_layer_has("attn_qkv.bias")).into());
    Ok(())
}

/// OLMo 3 is stored as OLMo 2 with a window.
pub(super) fn olmo2(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    if facts.number("attention.sliding_window")?.is_some_and(|window| 0 < window) {
        config.set("model_type", "olmo3".into());
    }
    Ok(())
}

/// DeepSeek V2 and V3. Since 2025 keys and values count as one head of the latent width, and the
/// lengths of a head stand under keys of their own.
pub(super) fn deepseek2(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let own_or = |own: &str, plain: &str| match facts.number(own)? {
        Some(length) => Ok(length),
        None => facts.needed(plain),
    };
    let key = own_or("attention.key_length_mla", "attention.key_length")?;
    let value = own_or("attention.value_length_mla", "attention.value_length")?;
    let rotated = facts.needed("rope.dimension_count")?;
    config.set("qk_nope_head_dim", key.saturating_sub(rotated).into());
    config.set("v_head_dim", value.into());
    config.set("num_key_value_heads", facts.needed("attention.head_count")?.into());
    if facts.number("attention.q_lora_rank")?.is_none_or(|rank| rank == 0) {
        config.set("q_lora_rank", ().into());
    }
    // `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID`, and the correction of scores that came with it.
    let is_sigmoid = facts.number("expert_gating_func")? == Some(2);
    if is_sigmoid || facts.some_layer_has("exp_probs_b.bias") {
        config.set("model_type", "deepseek_v3".into());
    }
    further_tokens(facts, config)
}

/// Layers that predict further tokens are counted among the layers of the file.
pub(super) fn further_tokens(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let Some(further) = facts.number("nextn_predict_layers")?.filter(|layers| 0 < *layers) else {
        return Ok(());
    };
    let layers = facts.needed("block_count")?.saturating_sub(further);
    config.set("num_hidden_layers", layers.into());
    config.set("num_nextn_predict_layers", further.into());
    Ok(())
}

pub(super) fn mamba(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let inner = facts.needed("ssm.inner_size")?;
    config.set("intermediate_size", inner.into());
    config.set("time_step_rank", facts.needed("ssm.time_step_rank")?.into());
    config.set("use_bias", facts.some_layer_has("ssm_in.bias").into());
    config.set("use_conv_bias", facts.some_layer_has("ssm_conv1d.bias").into());
    expand(facts, inner, config)
}

pub(super) fn mamba2(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    let inner = facts.needed("ssm.inner_size")?;
    let heads = facts.needed("ssm.time_step_rank")?;
    config.set("num_heads", heads.into());
    config.set("head_dim", inner.checked_div(heads).unwrap_or(0).into());
    config.set("use_bias", facts.some_layer_has("ssm_in.bias").into());
    config.set("use_conv_bias", facts.some_layer_has("ssm_conv1d.bias").into());
    expand(facts, inner, config)
}

fn expand(facts: &Facts<'_>, inner: i64, config: &mut Config) -> Result<(), Error> {
    let hidden = facts.needed("embedding_length")?;
    if 0 < hidden {
        match inner % hidden {
            0 => config.set("expand", (inner / hidden).into()),
            _ => config.set("expand", (inner as f64 / hidden as f64).into()),
        }
    }
    Ok(())
}

pub(super) fn bert(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    if let Some(types) = facts.axis("token_types.weight", 0) {
        // A table of one row is stored without that axis.
        let is_table = facts.tensor("token_types.weight").is_some_and(|t| t.shape.len() == 2);
        config.set("type_vocab_size", if is_table { types } else { 1 }.into());
    }
    if let Some(positions) = facts.axis("position_embd.weight", 0) {
        config.set("max_position_embeddings", positions.into());
    }
    Ok(())
}

pub(super) fn t5(facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    if let Some(layers) = facts.number("decoder_block_count")? {
        config.set("num_decoder_layers", layers.into());
    }
    let is_gated = facts.has("enc.blk.0.ffn_gate.weight");
    config.set("feed_forward_proj", if is_gated { "gated-gelu" } else { "relu" }.into());
    Ok(())
}
