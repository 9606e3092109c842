//! Operator tests of the ONNX project, one model each: the types found for their outputs are those
//! that the project declares (tests/data/README.md says where they are from).
//!
//! Not here: all of them (`tools/onnx_node_tests.py` needs the Python package).

use bytes::Bytes;
use flopwise::graph::{Graph, TensorId};
use std::path::Path;

const MODELS: &[u8] = include_bytes!("../data/onnx_node/models.bin");
const EXPECTED: &str = include_str!("../data/onnx_node/expected.txt");

fn type_of(graph: &Graph, id: TensorId) -> String {
    match &graph.tensor(id).tensor_type {
        Some(found) => format!("{}{}", found.format, found.shape),
        None => "unknown".to_owned(),
    }
}

/// The types of a model's outputs, as `fp32[2, 3]; int64[]`.
fn types(name: &str, model: &'static [u8]) -> String {
    match flopwise::import::from_bytes(name, Bytes::from_static(model), Path::new("")) {
        Ok(graph) => {
            let types: Vec<String> =
                graph.outputs.iter().map(|output| type_of(&graph, *output)).collect();
            types.join("; ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn outputs_of_every_operator_have_the_types_that_onnx_declares() {
    let mut rest = MODELS;
    let mut wrong = Vec::new();
    for line in EXPECTED.lines() {
        let [name, length, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("`{line}` has not three fields")
        };
        let (model, after) = rest.split_at(length.parse().expect("a number of bytes"));
        rest = after;
        let found = types(name, model);
        if found != expected {
            wrong.push(format!("{name}: {found}, declared {expected}"));
        }
    }
    assert!(rest.is_empty(), "models without an expectation");
    assert!(200 <= EXPECTED.lines().count());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
