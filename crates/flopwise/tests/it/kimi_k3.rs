//! Kimi K3: the tensors of its checkpoint, its published sizes, what it keeps per token, and its
//! products in closed form.

use flopwise::arch::{self, Options};
use flopwise::cost;
use flopwise::graph::{Bindings, Graph, Keeps, Pass, Role};
use serde_json::{Value, json};

fn named(options: &Options) -> Graph {
    arch::built_in("kimi-k3", options).expect("a built-in name").expect("a graph")
}

/// As the checkpoint at moonshotai/Kimi-K3 has them, one of each kind (tokenspeed,
/// `kimi_k3_checkpoint_plan`'s tests), without the prefix `language_model.`.
const TENSORS: &[(&str, &[i128])] = &[
    ("model.embed_tokens.weight", &[163_840, 7168]),
    ("lm_head.weight", &[163_840, 7168]),
    ("model.norm.weight", &[7168]),
    ("model.output_attn_res_norm.weight", &[7168]),
    ("model.output_attn_res_proj.weight", &[1, 7168]),
    ("model.layers.0.input_layernorm.weight", &[7168]),
    ("model.layers.0.post_attention_layernorm.weight", &[7168]),
    ("model.layers.0.self_attention_res_norm.weight", &[7168]),
    ("model.layers.0.self_attention_res_proj.weight", &[1, 7168]),
    ("model.layers.0.mlp_res_norm.weight", &[7168]),
    ("model.layers.0.mlp_res_proj.weight", &[1, 7168]),
    ("model.layers.0.mlp.gate_proj.weight", &[33_792, 7168]),
    ("model.layers.0.mlp.up_proj.weight", &[33_792, 7168]),
    ("model.layers.0.mlp.down_proj.weight", &[7168, 33_792]),
    ("model.layers.0.self_attn.A_log", &[128]),
    ("model.layers.0.self_attn.dt_bias", &[12_288]),
    ("model.layers.0.self_attn.b_proj.weight", &[96, 7168]),
    ("model.layers.0.self_attn.f_a_proj.weight", &[128, 7168]),
    ("model.layers.0.self_attn.f_b_proj.weight", &[12_288, 128]),
    ("model.layers.0.self_attn.g_proj.weight", &[12_288, 7168]),
    ("model.layers.0.self_attn.q_proj.weight", &[12_288, 7168]),
    ("model.layers.0.self_attn.k_proj.weight", &[12_288, 7168]),
    ("model.layers.0.self_attn.v_proj.weight", &[12_288, 7168]),
    ("model.layers.0.self_attn.o_proj.weight", &[7168, 12_288]),
    ("model.layers.0.self_attn.o_norm.weight", &[128]),
    ("model.layers.0.self_attn.q_conv1d.weight", &[12_288, 1, 4]),
    ("model.layers.0.self_attn.k_conv1d.weight", &[12_288, 1, 4]),
    ("model.layers.0.self_attn.v_conv1d.weight", &[12_288, 1, 4]),
    ("model.layers.1.block_sparse_moe.gate.weight", &[896, 7168]),
    ("model.layers.1.block_sparse_moe.gate.e_score_correction_bias", &[896]),
    ("model.layers.1.block_sparse_moe.routed_expert_down_proj.weight", &[3584, 7168]),
    ("model.layers.1.block_sparse_moe.routed_expert_up_proj.weight", &[7168, 3584]),
    ("model.layers.1.block_sparse_moe.routed_expert_norm.weight", &[3584]),
    ("model.layers.1.block_sparse_moe.shared_experts.gate_proj.weight", &[6144, 7168]),
    ("model.layers.1.block_sparse_moe.shared_experts.up_proj.weight", &[6144, 7168]),
    ("model.layers.1.block_sparse_moe.shared_experts.down_proj.weight", &[7168, 6144]),
    ("model.layers.3.self_attn.q_a_proj.weight", &[1536, 7168]),
    ("model.layers.3.self_attn.q_a_layernorm.weight", &[1536]),
    ("model.layers.3.self_attn.q_b_proj.weight", &[18_432, 1536]),
    ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight", &[576, 7168]),
    ("model.layers.3.self_attn.kv_a_layernorm.weight", &[512]),
    ("model.layers.3.self_attn.kv_b_proj.weight", &[24_576, 512]),
    ("model.layers.3.self_attn.g_proj.weight", &[12_288, 7168]),
];

#[test]
fn tensors_are_those_of_the_checkpoint() {
    let graph = named(&Options::whole());
    for (name, shape) in TENSORS {
        let found = graph.tensors.iter().find(|tensor| tensor.name == *name);
        let found = found.unwrap_or_else(|| panic!("no {name}"));
        let found = &found.tensor_type.as_ref().expect("a type").shape.0;
        let found: Vec<i128> = found.iter().map(|length| length.as_constant().unwrap()).collect();
        assert_eq!(found, *shape, "{name}");
    }
    let stands = |name: &str| graph.tensors.iter().any(|tensor| tensor.name == name);
    // The last layer attends, the one before it too; layer 4 counts from 1.
    for (layer_idx, attends) in [(0, false), (3, true), (4, false), (90, false), (91, true)] {
        let name = format!("model.layers.{layer_idx}.self_attn.kv_b_proj.weight");
        assert_eq!(stands(&name), attends, "{name}");
    }
    assert!(stands("model.layers.92.self_attn.kv_b_proj.weight"));
}

/// Elements of the kinds of layers, added up by hand from the shapes above. Published: 2.8 T, of
/// which 104 B compute a token (arXiv 2607.24653); the token table, which is looked up, is not
/// among the latter.
#[test]
fn parameters_are_the_published_ones() {
    let (hidden, wide, table) = (7168_i128, 12_288, 163_840 * 7168);
    let gates = 128 * (hidden + wide) + 96 * hidden + wide + 128 + 128;
    let delta = 5 * hidden * wide + gates + 3 * 4 * wide;
    let latent = hidden * 1536 + 1536 + 1536 * 18_432 + hidden * 576 + 512 + 512 * 24_576;
    let latent = latent + 2 * hidden * wide;
    let expert = 3 * 3584 * 3072;
    let beside = 896 * hidden + 2 * hidden * 3584 + 3584 + 3 * hidden * 6144;
    let without_experts = 2 * table + 3 * hidden + 93 * 6 * hidden + 69 * delta + 24 * latent;
    let without_experts = without_experts + 3 * hidden * 33_792 + 92 * beside;
    let total = without_experts + 92 * 896 * expert;
    let found = cost::work(&named(&Options::whole())).parameters.as_constant();
    assert_eq!(found, Some(total));
    let active = without_experts + 92 * 16 * expert - table;
    let rounded = |count: i128, unit: i128| (10 * count / unit + 5) / 10;
    assert_eq!((rounded(total, 100_000_000_000), rounded(active, 1_000_000_000)), (28, 104));
}

/// The checkpoint's files are published as 1.56 TB: experts in MXFP4, 17 bytes for 32 elements.
#[test]
fn experts_are_stored_in_mxfp4() {
    let work = cost::work(&named(&Options::whole()));
    let total = work.parameters.as_constant().expect("the test's own input");
    let experts = 92 * 896 * 3 * 3584 * 3072_i128;
    let bytes = work.weight_bytes.as_constant().expect("the test's own input");
    assert_eq!(bytes, 2 * (total - experts) + experts / 32 * 17);
    assert_eq!((bytes + 5_000_000_000) / 10_000_000_000, 156);
}

#[test]
fn what_a_token_and_a_sequence_keep() {
    let graph = named(&Options::whole());
    let bytes = |keeps: Keeps| {
        let kept = graph.states.iter().filter(|state| state.keeps == keeps);
        let bits =
            kept.map(|state| state.elements.as_constant().unwrap() * i128::from(state.format.bits));
        bits.sum::<i128>() / 8
    };
    // 24 layers of a latent of 512 and 64 elements beside it, in bf16.
    assert_eq!(bytes(Keeps::All), 24 * 576 * 2);
    // 69 layers: a matrix per head in float32, and 3 tokens of three convolutions in bf16.
    assert_eq!(bytes(Keeps::Once), 69 * (96 * 128 * 128 * 4 + 3 * 12_288 * 3 * 2));
}

/// MACs of one token in closed form: its matrices, `4 H d d` for each delta rule, four taps of each
/// convolution channel, one key for each attention, and for each of 186 softmaxes over depth a
/// score and a share of each block it sees.
#[test]
fn products_of_one_token() {
    let graph = named(&Options::whole());
    let bound = Bindings([("batch".to_owned(), 1), ("seq".to_owned(), 1)].into_iter().collect());
    let value = |name: &str| bound.0.get(name).copied();
    let found = cost::work(&graph).total.macs.0.evaluate(&value).expect("bound");
    let (hidden, wide) = (7168_i128, 12_288_i128);
    let delta = 5 * hidden * wide + 128 * (hidden + wide) + 96 * hidden;
    let delta = delta + 3 * 4 * wide + 4 * 96 * 128 * 128;
    let latent = hidden * 1536 + 1536 * 18_432 + hidden * 576 + 512 * 24_576 + 2 * hidden * wide;
    let latent = latent + 96 * (192 + 128);
    let expert = 3 * 3584 * 3072;
    let sparse = 896 * hidden + 2 * hidden * 3584 + 3 * hidden * 6144 + 16 * expert;
    // Layer l mixes ceil(l / 12) blocks and the sum before attention, one block more where it
    // begins one before its experts; the head sees all eight.
    let seen = (1..93).map(|layer| (layer + 11) / 12 + 1).sum::<i128>()
        + (0..93).map(|layer| layer / 12 + 2).sum::<i128>()
        + 9;
    let depth = 2 * hidden * seen;
    let expected = 69 * delta + 24 * latent + 3 * hidden * 33_792 + 92 * sparse;
    assert_eq!(found, expected + 163_840 * hidden + depth);
}

#[test]
fn every_layer_decodes() {
    let graph = named(&Options { pass: Pass::Decode, ..Options::whole() });
    assert_eq!(cost::work(&graph).unknown().count(), 0);
    let parameters = |graph: &Graph| {
        graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter).count()
    };
    assert_eq!(parameters(&graph), parameters(&named(&Options::whole())));
}

/// Two layers of K3's kinds, one field changed.
fn small(field: &str, value: Value) -> Value {
    let mut text = json!({
        "model_type": "kimi_linear", "torch_dtype": "bfloat16", "vocab_size": 32,
        "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 4,
        "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4, "mla_use_nope": true,
        "mla_use_output_gate": true, "num_experts": 4, "num_experts_per_token": 2,
        "num_shared_experts": 1, "routed_expert_hidden_size": 8, "latent_moe_use_norm": true,
        "first_k_dense_replace": 1, "hidden_act": "situ", "activation_situ_linear_beta": 25.0,
        "attn_res_block_size": 1, "tie_word_embeddings": false,
        "linear_attn_config": {
            "num_heads": 2, "head_dim": 4, "short_conv_kernel_size": 4,
            "use_full_rank_gate": true, "full_attn_layers": [2], "kda_layers": [1],
        },
    });
    match field.split_once('.') {
        Some((outer, inner)) => text[outer][inner] = value,
        None => text[field] = value,
    }
    text
}

fn read(config: &Value) -> Result<Graph, String> {
    let text = config.to_string();
    arch::read("k3", text.as_bytes(), &Options::whole()).map_err(|error| error.to_string())
}

#[test]
fn the_whole_model_is_its_text_part() {
    let text = small("tie_word_embeddings", false.into());
    let part = read(&text).expect("the text part");
    let whole = read(&json!({ "model_type": "kimi_k3", "text_config": text })).expect("the whole");
    assert_eq!(cost::work(&part), cost::work(&whole));
    assert!(whole.notes.iter().any(|note| note.to_string().contains("vision tower")));
}

#[test]
fn fields_change_what_is_built() {
    let count = |field: &str, value: Value| {
        let graph = read(&small(field, value)).unwrap_or_else(|error| panic!("{error}"));
        cost::work(&graph).parameters.as_constant().unwrap()
    };
    let full = count("tie_word_embeddings", false.into());
    // the gate of attention; two narrow projections for one wide; the norm of latents; two norms
    // and two projections of each layer, one of the head
    assert_eq!(full - count("mla_use_output_gate", false.into()), 16 * 8);
    let narrow = count("linear_attn_config.use_full_rank_gate", false.into());
    assert_eq!(full - narrow, 16 * 8 - 4 * (16 + 8));
    assert_eq!(full - count("latent_moe_use_norm", false.into()), 8);
    assert_eq!(full - count("attn_res_block_size", Value::Null), 16 * (2 * 4 + 2));
    // experts over whole tokens: no projections and no norm, wider experts
    let whole = count("routed_expert_hidden_size", Value::Null);
    assert_eq!(full - whole, 2 * 16 * 8 + 8 - 4 * 3 * 8 * 8);
    let silu = read(&small("hidden_act", "silu".into())).expect("a graph");
    let capped = read(&small("hidden_act", "situ".into())).expect("a graph");
    assert_ne!(
        cost::work(&silu).total.transcendental_ops,
        cost::work(&capped).total.transcendental_ops
    );
}

#[track_caller]
fn check_refused(field: &str, value: Value, expected: &str) {
    let text = read(&small(field, value)).map(|_| ()).expect_err("a refusal");
    assert!(text.contains(expected), "{text}");
}

#[test]
fn refusals_name_field_and_value() {
    check_refused("linear_attn_config", Value::Null, "`linear_attn_config` is missing");
    check_refused("linear_attn_config.full_attn_layers", Value::Null, "full_attn_layers");
    check_refused("linear_attn_config.kda_layers", json!([1, 2]), "what layer 2 is");
    check_refused("linear_attn_config.num_heads", 5.into(), "too few for 5 heads");
    check_refused("mla_use_nope", false.into(), "`mla_use_nope` is false");
    check_refused("latent_moe_use_norm", Value::Null, "`latent_moe_use_norm` is missing");
    check_refused("first_k_dense_replace", Value::Null, "`first_k_dense_replace` is missing");
    check_refused("moe_router_activation_func", "tanh".into(), "is `tanh`");
    check_refused("attn_res_block_size", 0.into(), "`attn_res_block_size` is 0");
    check_refused("num_experts_per_token", 9.into(), "9 of 4 experts");
    check_refused("num_hidden_layers", 1_000_000_000_000_i64.into(), "`num_hidden_layers`");
}
