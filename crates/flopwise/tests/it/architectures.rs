//! Graphs built from a config against what the reference implementation builds of it: every weight by
//! name and shape, and the multiply-accumulates that PyTorch's FlopCounterMode sees
//! (`tools/arch_oracle.py`).

use flopwise::arch::{self, Options};
use flopwise::cost::{self, Masking, Seen};
use flopwise::graph::{Bindings, Graph, Role};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What the oracle found for one config.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) row: Value,
}

pub(crate) fn cases(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch").join(file);
    let text = std::fs::read(path).expect("what the oracle wrote");
    let all: Value = serde_json::from_slice(&text).expect("what the oracle wrote");
    let rows = all["cases"].as_array().expect("what the oracle wrote").iter().map(|row| Case {
        name: row["name"].as_str().expect("what the oracle wrote").to_owned(),
        config: row["config"].clone(),
        row: row.clone(),
    });
    rows.collect()
}

fn weights(graph: &Graph) -> BTreeMap<String, Vec<u64>> {
    let trained = graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter);
    let entry = |tensor: &flopwise::graph::Tensor| {
        let shape = &tensor.tensor_type.as_ref().expect("what the oracle wrote").shape.0;
        let lengths =
            shape.iter().map(|length| length.as_constant().expect("what the oracle wrote") as u64);
        (tensor.name.clone(), lengths.collect())
    };
    trained.map(entry).collect()
}

/// The sizes that the oracle ran with, by the graph's symbols.
pub(crate) fn bindings(row: &Value) -> Bindings {
    let mut bound = BTreeMap::new();
    let mut bind = |input: &str, symbols: &[&str]| {
        let Some(shape) = row["inputs"][input].as_array() else { return };
        for (symbol, length) in symbols.iter().zip(shape).filter(|(symbol, _)| !symbol.is_empty()) {
            bound.insert(
                (*symbol).to_owned(),
                i128::from(length.as_i64().expect("what the oracle wrote")),
            );
        }
    };
    bind("input_ids", &["batch", "seq"]);
    bind("decoder_input_ids", &["batch", "target_seq"]);
    bind("pixel_values", &["batch"]);
    bind("input_features", &["batch"]);
    bind("sample", &["batch"]);
    bind("hidden_states", &["batch"]);
    bind("encoder_hidden_states", &["batch", "text_seq"]);
    Bindings(bound)
}

/// The graph of a case, with the weights that the oracle found.
#[track_caller]
pub(crate) fn built(case: &Case) -> Graph {
    let text = case.config.to_string();
    let graph = arch::read(&case.name, text.as_bytes(), &Options::whole());
    let graph = graph.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let expected: BTreeMap<String, Vec<u64>> =
        serde_json::from_value(case.row["tensors"].clone()).expect("what the oracle wrote");
    let found = weights(&graph);
    for (name, shape) in &expected {
        assert_eq!(found.get(name), Some(shape), "{}: {name}", case.name);
    }
    for name in found.keys() {
        assert!(expected.contains_key(name), "{}: {name} is not in the model", case.name);
    }
    let work = cost::work(&graph);
    assert_eq!(work.unknown().count(), 0, "{}", case.name);
    let parameters = case.row["parameters"].as_u64().expect("what the oracle wrote");
    assert_eq!(work.parameters.to_string(), parameters.to_string(), "{}", case.name);
    graph
}

#[track_caller]
fn check(file: &str) {
    for case in cases(file) {
        let mut graph = built(&case);
        let Some(macs) = case.row["macs"].as_u64() else { continue };
        let full = Masking { seen: Seen::All, ..Masking::as_file() };
        cost::apply_masking(&mut graph, &full).expect("what the oracle wrote");
        let bound =
            cost::work(&graph).bind(&graph, &bindings(&case.row)).expect("what the oracle wrote");
        assert_eq!(bound.total.macs.0, u128::from(macs), "{}", case.name);
    }
}

#[test]
fn llama() {
    check("llama.json");
}

#[test]
fn moe() {
    check("moe.json");
}

#[test]
fn dense() {
    check("dense.json");
}

#[test]
fn gemma4() {
    check("gemma4.json");
}

#[test]
fn encoders() {
    check("encoders.json");
}

#[test]
fn encoder_decoders() {
    check("seq2seq.json");
}

#[test]
fn vision_transformers() {
    check("vision.json");
}

#[test]
fn diffusion_models() {
    check("diffusion.json");
}
