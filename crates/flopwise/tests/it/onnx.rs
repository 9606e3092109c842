//! Real ONNX files, as PyTorch 2.15's two exporters write them, weights left out; counts are those
//! of the same models in PyTorch (`torch.utils.flop_counter`, torchvision's published figures).
//!
//! Not here: single operators (`src/import/onnx/tests.rs`).

use flopwise::cost;
use flopwise::graph::{Bindings, Graph};
use std::path::Path;

fn open(name: &str) -> Graph {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/onnx"));
    flopwise::import::open(&folder.join(format!("{name}.onnx"))).expect(name)
}

#[track_caller]
fn check(name: &str, macs: &str, parameters: u64) {
    let graph = open(name);
    let work = cost::work(&graph);
    assert_eq!(work.unknown().next(), None, "{name}");
    assert_eq!(work.total.macs.0.to_string(), macs, "{name}");
    assert_eq!(work.parameters.to_string(), parameters.to_string(), "{name}");
}

#[test]
fn counts_are_exact() {
    // PyTorch has 11689512, 3504872 and 138357544 parameters here. The exporters fold batch
    // normalisation, and the dynamo one merges parameters of equal value, such as the zero biases
    // of a model that is not trained.
    check("resnet18.legacy.dyn", "1814073344*batch", 11_680_872);
    check("mobilenet_v2.dynamo.dyn", "300774272*batch", 3_469_760);
    check("vgg16.dynamo.dyn", "15470264320*batch", 138_344_128);
    check("vit_b_16.legacy.dyn", "17563828224*batch", 86_567_656);
    // 109482240 less the pooler, whose output is not used.
    check("bert_base.legacy.dyn", "84934656*batch*seq + 18432*batch*seq^2", 108_891_648);
    // 44372480 less 8 of the 9 norm weights, which are all ones.
    check("llama_small.dynamo.dyn", "27983872*batch*seq + 4096*batch*seq^2", 44_368_384);
}

fn bind(graph: &Graph, typed: &[(&str, i128)]) -> Result<Bindings, String> {
    let typed: Vec<(String, i128)> = typed.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
    Bindings::resolve(graph, &typed).map_err(|error| error.to_string())
}

#[test]
fn lengths_that_a_model_cannot_take_are_refused() {
    let bert = open("bert_base.legacy.dyn");
    assert!(bind(&bert, &[("batch", 2), ("seq", 512)]).is_ok());
    let error = bind(&bert, &[("batch", 2), ("seq", 513)]).expect_err("it has 512 positions");
    assert!(error.contains("seq=513 contradicts the model"), "{error}");
}

#[test]
fn what_the_exporter_did_is_told() {
    let notes = |name: &str| {
        let notes: Vec<String> = open(name).notes.into_iter().map(|note| note.text).collect();
        notes.join("; ")
    };
    let resnet = notes("resnet18.legacy.dyn");
    assert!(resnet.contains("folded what followed 20 convolutions"), "{resnet}");
    let bert = notes("bert_base.legacy.dyn");
    assert!(bert.contains("119 parameters stored as a copy"), "{bert}");
    let llama = notes("llama_small.dynamo.dyn");
    assert!(llama.contains("1 parameter read by several modules"), "{llama}");
    assert!(llama.contains("there are 4096 more if they are not shared"), "{llama}");
}

#[test]
fn nodes_know_where_they_come_from() {
    let llama = open("llama_small.dynamo.dyn");
    let node = llama.nodes.iter().find(|node| node.name == "node_linear").expect("the node");
    assert_eq!(node.module.as_deref(), Some("m.model.layers.0.self_attn.q_proj"));
    let line = node.line.as_ref().expect("a source line");
    assert!(line.file.ends_with("linear.py"), "{line}");
    let resnet = open("resnet18.legacy.dyn");
    let modules = resnet.nodes.iter().filter_map(|node| node.module.as_deref());
    assert!(modules.into_iter().any(|module| module == "layer2.0.downsample.0"));
}

#[test]
fn classes_of_modules_are_kept() {
    let graph = open("llama_small.dynamo.dyn");
    let class = |path: &str| graph.modules.get(path).map(|class| &**class);
    assert_eq!(class("m.model.layers.0.self_attn.q_proj"), Some("torch.nn.modules.linear.Linear"));
    let attention = "transformers.models.llama.modeling_llama.LlamaAttention";
    assert_eq!(class("m.model.layers.0.self_attn"), Some(attention));
    assert!(!graph.modules.keys().any(|path| path.starts_with('_')), "{:?}", graph.modules);
}
