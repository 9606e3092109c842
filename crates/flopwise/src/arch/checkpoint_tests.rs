//! Descriptions with the weights that belong to them, written here: what is found, what disagrees.

use super::{Options, open};
use crate::cost;
use crate::graph::{Bindings, Graph};
use std::fs;
use std::path::Path;

const CONFIG: &str = r#"{"model_type":"llama","hidden_size":8,"intermediate_size":16,"vocab_size":10,
    "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"torch_dtype":"bfloat16",
    "tie_word_embeddings":false,"rms_norm_eps":1e-6,"hidden_act":"silu","max_position_embeddings":32}"#;

const MIXTRAL: &str = r#"{"model_type":"mixtral","hidden_size":8,"intermediate_size":16,
    "vocab_size":10,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,
    "num_local_experts":2,"num_experts_per_tok":1,"torch_dtype":"bfloat16","hidden_act":"silu",
    "tie_word_embeddings":false,"max_position_embeddings":32}"#;

/// Parameters outside the layers and those of one layer, without experts.
const ATTENTION: &[(&str, &[u64])] = &[
    ("model.embed_tokens.weight", &[10, 8]),
    ("lm_head.weight", &[10, 8]),
    ("model.norm.weight", &[8]),
    ("model.layers.0.input_layernorm.weight", &[8]),
    ("model.layers.0.post_attention_layernorm.weight", &[8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
    ("model.layers.0.self_attn.v_proj.weight", &[4, 8]),
    ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
];
const DENSE: &[(&str, &[u64])] = &[
    ("model.layers.0.mlp.gate_proj.weight", &[16, 8]),
    ("model.layers.0.mlp.up_proj.weight", &[16, 8]),
    ("model.layers.0.mlp.down_proj.weight", &[8, 16]),
];

type Row = (String, &'static str, Vec<u64>);

fn rows(tensors: &[(&str, &[u64])]) -> Vec<Row> {
    tensors.iter().map(|(name, shape)| ((*name).to_owned(), "BF16", shape.to_vec())).collect()
}

fn llama() -> Vec<Row> {
    rows(&[ATTENTION, DENSE].concat())
}

fn safetensors(rows: &[Row]) -> Vec<u8> {
    let mut at = 0;
    let entries: Vec<String> = rows
        .iter()
        .map(|(name, dtype, shape)| {
            let width = match *dtype {
                "F32" | "I32" => 4,
                "BF16" => 2,
                _ => 1,
            };
            let start = at;
            at += shape.iter().product::<u64>() * width;
            format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{at}]}}"#
            )
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let data = vec![0; at as usize];
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn model(config: &str, rows: &[Row]) -> Graph {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    let file = folder.path().join("model.safetensors");
    fs::write(&file, safetensors(rows)).unwrap();
    let graph = open(folder.path(), &Options::whole()).unwrap();
    let beside = open(&file, &Options::whole()).unwrap();
    assert_eq!(graph.tensors, beside.tensors, "by the folder and by the file");
    graph
}

/// Bytes of parameters and of buffers, and how many parameters.
fn stored(graph: &Graph) -> (u128, u128, u128) {
    let stored = cost::work(graph).stored(&Bindings::default()).unwrap();
    (stored.weight_bytes.0, stored.buffer_bytes.0, stored.parameters)
}

#[track_caller]
fn noted(graph: &Graph, expected: &str) {
    let notes: Vec<&str> = graph.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes.iter().any(|note| note.contains(expected)), "{notes:#?} lack {expected}");
}

#[test]
fn formats_are_those_of_the_weights() {
    let mut rows = llama();
    for (name, dtype, _) in &mut rows {
        if name.contains("norm") {
            *dtype = "F32";
        }
    }
    let graph = model(CONFIG, &rows);
    noted(&graph, "formats of 12 of 12 parameters are those of `model`: bf16 9, fp32 3");
    let elements = 2 * 80 + 2 * 64 + 2 * 32 + 3 * 128;
    assert_eq!(stored(&graph), (2 * elements + 4 * 24, 0, elements + 24));
}

#[test]
fn scales_of_fp8_are_counted_as_buffers() {
    let mut rows = llama();
    for (name, dtype, _) in &mut rows {
        if name.contains("proj") {
            *dtype = "F8_E4M3";
        }
    }
    rows.push(("model.layers.0.mlp.up_proj.weight_scale_inv".into(), "F32", vec![1, 1]));
    let graph = model(CONFIG, &rows);
    let (projections, others) = (2 * 64 + 2 * 32 + 3 * 128, 2 * 80 + 24);
    assert_eq!(stored(&graph), (projections + 2 * others, 4, projections + others));
    noted(&graph, "counted as buffers: 1 tensors");
}

#[test]
fn packed_codes_are_the_weight_they_stand_for() {
    let mut rows = llama();
    rows.retain(|(name, _, _)| !name.contains("up_proj") && !name.contains("q_proj"));
    // GPTQ: eight codes in each number of 32 bits, along the input.
    rows.push(("model.layers.0.mlp.up_proj.qweight".into(), "I32", vec![1, 16]));
    rows.push(("model.layers.0.mlp.up_proj.scales".into(), "BF16", vec![1, 16]));
    rows.push(("model.layers.0.mlp.up_proj.qzeros".into(), "I32", vec![1, 2]));
    // NVFP4 of ModelOpt: two codes a byte.
    rows.push(("model.layers.0.self_attn.q_proj.weight".into(), "U8", vec![8, 4]));
    rows.push(("model.layers.0.self_attn.q_proj.weight_scale".into(), "F8_E4M3", vec![8, 1]));
    let graph = model(CONFIG, &rows);
    noted(&graph, "bf16 10, e2m1 1, int4 1");
    let plain = 2 * 80 + 24 + 64 + 2 * 32 + 2 * 128;
    assert_eq!(stored(&graph), (2 * plain + 64 + 32, 32 + 8 + 8, plain + 128 + 64));
}

#[test]
fn experts_stored_one_by_one_are_the_stack() {
    let mut rows = rows(ATTENTION);
    rows.push(("model.layers.0.block_sparse_moe.gate.weight".into(), "BF16", vec![2, 8]));
    for expert in 0..2 {
        for (matrix, shape) in [("w1", [16, 8]), ("w2", [8, 16]), ("w3", [16, 8])] {
            let name = format!("model.layers.0.block_sparse_moe.experts.{expert}.{matrix}.weight");
            rows.push((name, "F8_E5M2", shape.to_vec()));
        }
    }
    let graph = model(MIXTRAL, &rows);
    noted(&graph, "formats of 12 of 12 parameters are those of `model`: bf16 10, e5m2 2");
    rows.pop();
    noted(
        &model(MIXTRAL, &rows),
        "parameters of another shape there: 1 (first: `model.layers.0.mlp",
    );
}

#[test]
fn another_prefix_is_found_out() {
    let mut base = llama();
    base.retain(|(name, _, _)| name != "lm_head.weight");
    for (name, _, _) in &mut base {
        *name = name.trim_start_matches("model.").to_owned();
    }
    let graph = model(CONFIG, &base);
    noted(&graph, "formats of 11 of 12 parameters");
    noted(&graph, "parameters not in the checkpoint: 1 (first: `lm_head.weight`)");
    let mut inner = llama();
    for (name, _, _) in &mut inner {
        *name = format!("language_model.{name}");
    }
    noted(&model(CONFIG, &inner), "formats of 12 of 12 parameters");
}

#[test]
fn disagreements_are_said() {
    let mut found = llama();
    found[5].2 = vec![8, 4];
    found.push(("model.layers.1.mlp.up_proj.weight".into(), "BF16", vec![16, 8]));
    found.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), "F32", vec![2]));
    let graph = model(CONFIG, &found);
    noted(&graph, "shape there: 1 (first: `model.layers.0.self_attn.q_proj.weight` is [8, 8] here");
    noted(&graph, "no place for: 1 with 128 elements (first: `model.layers.1.mlp.up_proj.weight`)");
    let graph = model(CONFIG, &rows(&[("other", &[3])]));
    noted(&graph, "none of the 12 parameters is found in `model` (1 tensors)");
}

#[test]
fn weights_that_cannot_be_read_are_a_note_and_alone_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("model.safetensors"), &safetensors(&llama())[..100]).unwrap();
    let error = open(&at("model.safetensors"), &Options::whole()).unwrap_err().to_string();
    assert!(error.contains("cut short"), "{error}");
    fs::write(at("model.safetensors"), safetensors(&llama())).unwrap();
    let error = open(&at("model.safetensors"), &Options::whole()).unwrap_err().to_string();
    assert!(error.contains("put the model's config.json beside it"), "{error}");
    fs::write(at("config.json"), CONFIG).unwrap();
    fs::write(at("model.safetensors"), &safetensors(&llama())[..100]).unwrap();
    let graph = open(folder.path(), &Options::whole()).unwrap();
    noted(&graph, "its weights are not looked at:");
    fs::remove_file(at("model.safetensors")).unwrap();
    let index = r#"{"weight_map":{"a":"model-1.safetensors"}}"#;
    fs::write(at("model.safetensors.index.json"), index).unwrap();
    let graph = open(folder.path(), &Options::whole()).unwrap();
    noted(&graph, "1 of 1 shards are not there: model-1.safetensors");
    assert!(super::is_description(Path::new(&at("model.safetensors.index.json"))));
}
