//! The architectures of llama.cpp and the fields of the configs that describe the same models.
//!
//! Names and keys are those of `gguf-py/gguf/constants.py`, fields those of `transformers`' classes
//! of the same `model_type`; which key becomes which field is what `convert_hf_to_gguf.py` does
//! the other way round. Not here: reading keys (`facts.rs`) and what cannot be said in a table
//! (`special.rs`).

use super::facts::Facts;
use super::special;
use crate::arch::config::Config;
use crate::error::Error;
use flopwise_formats::Format;

/// One architecture.
pub(super) struct Row {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// Of the config.
    model_type: &'static str,
    /// Fields and the keys that they come from, where the file has them.
    fields: &'static [Fields],
    /// Fields that llama.cpp has in its code.
    fixed: &'static [(&'static str, Fixed)],
    /// One layer in so many sees everything, the last of each group; the others have a window.
    /// 0 where the config says nothing of it.
    period: usize,
    /// What else there is to say.
    special: Option<Special>,
}

type Fields = &'static [(&'static str, &'static str)];
type Special = fn(&Facts<'_>, &mut Config) -> Result<(), Error>;

/// A value that is the same in all models of an architecture.
#[derive(Clone, Copy)]
pub(super) enum Fixed {
    /// A word.
    Word(&'static str),
    /// Yes or no.
    Flag(bool),
    /// Whether some layer has this tensor.
    Has(&'static str),
    /// The share of a head that is rotated: `rope.dimension_count` of the head's length.
    RotatedShare,
}

const DENSE: Fields = &[
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("max_position_embeddings", "context_length"),
    ("sliding_window", "attention.sliding_window"),
];
const HEAD: Fields = &[("head_dim", "attention.key_length")];
const QWEN_EXPERTS: Fields = &[
    ("num_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
];
const LOCAL_EXPERTS: Fields =
    &[("num_local_experts", "expert_count"), ("num_experts_per_tok", "expert_used_count")];
const EXPERT_WIDTH: Fields = &[("intermediate_size", "expert_feed_forward_length")];
const DEEPSEEK_EXPERTS: Fields = &[
    ("n_routed_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("n_shared_experts", "expert_shared_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("first_k_dense_replace", "leading_dense_block_count"),
    ("n_group", "expert_group_count"),
    ("topk_group", "expert_group_used_count"),
];
const GPT2: Fields = &[
    ("n_embd", "embedding_length"),
    ("n_layer", "block_count"),
    ("n_head", "attention.head_count"),
    ("n_inner", "feed_forward_length"),
    ("n_positions", "context_length"),
];
const BLOOM: Fields = &[
    ("hidden_size", "embedding_length"),
    ("n_layer", "block_count"),
    ("num_hidden_layers", "block_count"),
    ("n_head", "attention.head_count"),
    ("num_attention_heads", "attention.head_count"),
];
const MPT: Fields = &[
    ("d_model", "embedding_length"),
    ("n_layers", "block_count"),
    ("n_heads", "attention.head_count"),
    ("max_seq_len", "context_length"),
];
const T5: Fields = &[
    ("d_model", "embedding_length"),
    ("d_ff", "feed_forward_length"),
    ("num_layers", "block_count"),
    ("num_decoder_layers", "block_count"),
    ("num_heads", "attention.head_count"),
    ("d_kv", "attention.key_length"),
    ("relative_attention_num_buckets", "attention.relative_buckets_count"),
];
const SSM: Fields = &[
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("state_size", "ssm.state_size"),
    ("conv_kernel", "ssm.conv_kernel"),
    ("n_groups", "ssm.group_count"),
];

const PLAIN: Row =
    Row { name: "", model_type: "", fields: &[DENSE], fixed: &[], period: 0, special: None };

const fn row(name: &'static str, model_type: &'static str, fields: &'static [Fields]) -> Row {
    Row { name, model_type, fields, ..PLAIN }
}

const GEMMA: &[(&str, Fixed)] = &[
    ("hidden_activation", Fixed::Word("gelu_pytorch_tanh")),
    ("hidden_act", Fixed::Word("gelu_pytorch_tanh")),
];
const SILU: &[(&str, Fixed)] = &[("hidden_act", Fixed::Word("silu"))];
const BIASED: &[(&str, Fixed)] = &[
    ("hidden_act", Fixed::Word("silu")),
    ("attention_bias", Fixed::Has("attn_q.bias")),
    ("mlp_bias", Fixed::Has("ffn_up.bias")),
];

/// Every architecture with a translation.
pub(super) const ROWS: &[Row] = &[
    Row {
        fixed: &[("hidden_act", Fixed::Word("silu")), ("mlp_bias", Fixed::Has("ffn_up.bias"))],
        special: Some(special::llama),
        ..row("llama", "llama", &[DENSE, HEAD])
    },
    Row {
        fixed: SILU,
        special: Some(special::windowed),
        ..row("mistral3", "mistral", &[DENSE, HEAD])
    },
    Row { fixed: SILU, ..row("qwen2", "qwen2", &[DENSE, HEAD]) },
    Row {
        fixed: SILU,
        special: Some(special::qwen2_moe),
        ..row("qwen2moe", "qwen2_moe", &[DENSE, QWEN_EXPERTS])
    },
    Row { fixed: BIASED, ..row("qwen3", "qwen3", &[DENSE, HEAD]) },
    Row { fixed: BIASED, ..row("qwen3moe", "qwen3_moe", &[DENSE, HEAD, QWEN_EXPERTS]) },
    Row {
        fixed: SILU,
        special: Some(special::qwen3_next),
        ..row("qwen3next", "qwen3_next", &[DENSE, HEAD, QWEN_EXPERTS])
    },
    Row { fixed: GEMMA, ..row("gemma", "gemma", &[DENSE, HEAD]) },
    Row {
        fixed: GEMMA,
        period: 2,
        special: Some(special::soft_caps),
        ..row("gemma2", "gemma2", &[DENSE, HEAD])
    },
    Row {
        fixed: GEMMA,
        period: 6,
        special: Some(special::soft_caps),
        ..row("gemma3", "gemma3_text", &[DENSE, HEAD])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("gelu_new")),
            ("partial_rotary_factor", Fixed::RotatedShare),
        ],
        ..row("phi2", "phi", &[DENSE])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("partial_rotary_factor", Fixed::RotatedShare),
        ],
        ..row("phi3", "phi3", &[DENSE])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
            ("lm_head_bias", Fixed::Has("output.bias")),
        ],
        special: Some(special::phimoe),
        ..row("phimoe", "phimoe", &[DENSE, LOCAL_EXPERTS])
    },
    Row {
        fixed: &[("activation_function", Fixed::Word("gelu_new"))],
        ..row("gpt2", "gpt2", &[GPT2])
    },
    Row {
        fixed: &[("activation_function", Fixed::Word("gelu_new"))],
        ..row("gptj", "gptj", &[GPT2, &[("rotary_dim", "rope.dimension_count")]])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("gelu")),
            ("rotary_pct", Fixed::RotatedShare),
            ("attention_bias", Fixed::Has("attn_qkv.bias")),
        ],
        special: Some(special::parallel),
        ..row("gptneox", "gpt_neox", &[DENSE])
    },
    row("bloom", "bloom", &[BLOOM]),
    Row {
        fixed: &[
            ("activation", Fixed::Word("gelu")),
            ("bias", Fixed::Has("attn_qkv.bias")),
            ("new_decoder_architecture", Fixed::Has("attn_norm_2.weight")),
            ("parallel_attn", Fixed::Flag(true)),
            ("alibi", Fixed::Flag(false)),
        ],
        special: Some(special::falcon),
        ..row("falcon", "falcon", &[DENSE, &[("ffn_hidden_size", "feed_forward_length")]])
    },
    Row { special: Some(special::mpt), ..row("mpt", "mpt", &[MPT]) },
    Row {
        fixed: &[
            ("activation_function", Fixed::Word("gelu_pytorch_tanh")),
            ("multi_query", Fixed::Flag(true)),
        ],
        ..row("starcoder", "gpt_bigcode", &[GPT2])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("gelu_pytorch_tanh")),
            ("use_bias", Fixed::Has("attn_q.bias")),
        ],
        special: Some(special::windowed),
        ..row("starcoder2", "starcoder2", &[DENSE])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("partial_rotary_factor", Fixed::RotatedShare),
            ("use_qkv_bias", Fixed::Has("attn_q.bias")),
            ("qk_layernorm", Fixed::Has("attn_q_norm.weight")),
        ],
        special: Some(special::parallel),
        ..row("stablelm", "stablelm", &[DENSE])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
            ("use_qk_norm", Fixed::Has("attn_q_norm.weight")),
        ],
        ..row("command-r", "cohere", &[DENSE])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
        ],
        period: 4,
        ..row("cohere2", "cohere2", &[DENSE, HEAD])
    },
    Row { fixed: BIASED, ..row("olmo", "olmo", &[DENSE]) },
    Row {
        fixed: BIASED,
        special: Some(special::olmo2),
        period: 4,
        ..row("olmo2", "olmo2", &[DENSE])
    },
    Row { fixed: BIASED, ..row("olmoe", "olmoe", &[DENSE, QWEN_EXPERTS]) },
    Row {
        fixed: BIASED,
        special: Some(special::deepseek2),
        ..row("deepseek2", "deepseek_v2", &[DENSE, DEEPSEEK_EXPERTS, MLA])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
            ("partial_rotary_factor", Fixed::RotatedShare),
        ],
        ..row("glm4", "glm4", &[DENSE, HEAD])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
            ("partial_rotary_factor", Fixed::RotatedShare),
            ("use_qk_norm", Fixed::Has("attn_q_norm.weight")),
        ],
        special: Some(special::further_tokens),
        ..row("glm4moe", "glm4_moe", &[DENSE, HEAD, DEEPSEEK_EXPERTS])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
        ],
        period: 2,
        ..row("gpt-oss", "gpt_oss", &[DENSE, HEAD, LOCAL_EXPERTS, EXPERT_WIDTH])
    },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("silu")),
            ("use_qk_norm", Fixed::Has("attn_q_norm.weight")),
        ],
        ..row(
            "minimax-m2",
            "minimax_m2",
            &[DENSE, HEAD, LOCAL_EXPERTS, EXPERT_WIDTH, &[("rotary_dim", "rope.dimension_count")]],
        )
    },
    Row { fixed: BIASED, ..row("granite", "granite", &[DENSE]) },
    Row { fixed: BIASED, ..row("granitemoe", "granitemoe", &[DENSE, LOCAL_EXPERTS]) },
    Row { fixed: BIASED, ..row("smollm3", "smollm3", &[DENSE]) },
    Row { fixed: BIASED, ..row("seed_oss", "seed_oss", &[DENSE, HEAD]) },
    Row { fixed: BIASED, ..row("arcee", "arcee", &[DENSE, HEAD]) },
    Row {
        fixed: &[
            ("hidden_act", Fixed::Word("relu2")),
            ("attention_bias", Fixed::Has("attn_q.bias")),
            ("mlp_bias", Fixed::Has("ffn_up.bias")),
            ("partial_rotary_factor", Fixed::RotatedShare),
        ],
        ..row("nemotron", "nemotron", &[DENSE, HEAD])
    },
    Row { special: Some(special::mamba), ..row("mamba", "mamba", &[SSM]) },
    Row { special: Some(special::mamba2), ..row("mamba2", "mamba2", &[SSM]) },
    Row {
        fixed: &[("hidden_act", Fixed::Word("gelu"))],
        special: Some(special::bert),
        ..row("bert", "bert", &[DENSE])
    },
    Row { special: Some(special::t5), ..row("t5", "t5", &[T5]) },
];

const MLA: Fields = &[
    ("q_lora_rank", "attention.q_lora_rank"),
    ("kv_lora_rank", "attention.kv_lora_rank"),
    ("qk_rope_head_dim", "rope.dimension_count"),
];

/// Fills in the config that describes the model of a file.
pub(super) fn describe(
    row: &Row,
    facts: &Facts<'_>,
    activations: Format,
    config: &mut Config,
) -> Result<(), Error> {
    config.set("model_type", row.model_type.into());
    for (field, key) in row.fields.iter().flat_map(|fields| fields.iter()) {
        if let Some(number) = facts.number(key)? {
            config.set(field, number.into());
        }
    }
    let dtype = match activations {
        Format::BF16 => "bfloat16",
        Format::FP32 => "float32",
        _ => "float16",
    };
    config.set("torch_dtype", dtype.into());
    config.set("tie_word_embeddings", (!facts.has("output.weight")).into());
    // Rows of the table count, not words of the tokenizer, which some tables are padded beyond.
    let rows = facts.axis("token_embd.weight", 0);
    let rows = match rows {
        Some(rows) => Some(rows),
        None => facts.number("vocab_size")?,
    };
    if let Some(rows) = rows {
        config.set("vocab_size", rows.into());
    }
    for (field, fixed) in row.fixed {
        match fixed {
            Fixed::Word(word) => config.set(field, (*word).into()),
            Fixed::Flag(flag) => config.set(field, (*flag).into()),
            Fixed::Has(tensor) => config.set(field, facts.some_layer_has(tensor).into()),
            Fixed::RotatedShare => {
                if let Some(share) = rotated_share(facts)? {
                    config.set(field, share.into());
                }
            }
        }
    }
    if 0 < row.period {
        windows(row.period, facts, config)?;
    }
    match row.special {
        Some(special) => special(facts, config),
        None => Ok(()),
    }
}

fn rotated_share(facts: &Facts<'_>) -> Result<Option<f64>, Error> {
    let Some(rotated) = facts.number("rope.dimension_count")? else { return Ok(None) };
    let head = match facts.number("attention.key_length")? {
        Some(head) => head,
        None => {
            let hidden = facts.needed("embedding_length")?;
            hidden.checked_div(facts.needed("attention.head_count")?).unwrap_or(0)
        }
    };
    Ok((0 < head).then(|| rotated as f64 / head as f64))
}

/// One word per layer: from the file's pattern, or by the period that llama.cpp has in its code.
fn windows(period: usize, facts: &Facts<'_>, config: &mut Config) -> Result<(), Error> {
    /// More layers are refused when the config is read.
    const MAX_LAYERS: i64 = 4096;
    if facts.number("attention.sliding_window")?.is_none_or(|window| window == 0) {
        return Ok(());
    }
    let layers = facts.needed("block_count")?.clamp(0, MAX_LAYERS) as usize;
    let key = "attention.sliding_window_pattern";
    let pattern = facts.numbers(key)?;
    let period = match pattern {
        Some(_) => period,
        None => facts.number(key)?.and_then(|own| usize::try_from(own).ok()).unwrap_or(period),
    };
    let has_window = |layer_idx: usize| match &pattern {
        Some(pattern) => pattern.get(layer_idx).is_some_and(|has_window| *has_window != 0),
        None => layer_idx % period.max(1) < period.max(1) - 1,
    };
    let words = (0..layers).map(|layer_idx| match has_window(layer_idx) {
        true => "sliding_attention",
        false => "full_attention",
    });
    config.set("layer_types", words.collect::<Vec<_>>().into());
    Ok(())
}
