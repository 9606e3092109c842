//! No silent zero: an operator whose rule is taken away makes every total a lower bound that says
//! so, names the operator, and is not above the true total.
//!
//! A rule is taken away by renaming its operator in the bytes of a real file, so that the whole way
//! from file to report is walked.

use flopwise::cost::{self, Work};
use flopwise::graph::Bindings;
use flopwise::import::from_bytes;
use std::collections::BTreeSet;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn work(bytes: Vec<u8>) -> (flopwise::graph::Graph, Work) {
    let graph = from_bytes("renamed", bytes.into(), Path::new("")).expect("only a name changed");
    let work = cost::work(&graph);
    (graph, work)
}

/// MACs and other operations with small numbers for all symbols.
fn totals(graph: &flopwise::graph::Graph, work: &Work) -> [u128; 2] {
    let typed: Vec<_> = graph.symbols.iter().map(|s| (s.name.clone(), s.min.max(2))).collect();
    let bindings = Bindings::resolve(graph, &typed).expect("the smallest sizes are allowed");
    let total = work.bind(graph, &bindings).expect("every symbol is bound").total;
    [total.macs.0, total.other_ops.0]
}

/// Renames each operator of a file in turn.
#[track_caller]
fn check(original: Vec<u8>, operators: &BTreeSet<String>, rename: impl Fn(&str) -> Vec<u8>) {
    let (graph, counted) = work(original);
    assert_eq!(counted.unknown().next(), None, "the file is known whole");
    let truth = totals(&graph, &counted);
    assert!(5 < operators.len(), "{operators:?}");
    for operator in operators {
        let (graph, counted) = work(rename(operator));
        let missing = counted.unknown().map(|(id, _)| graph.nodes[id.0].operator.to_string());
        let missing: BTreeSet<String> = missing.collect();
        assert!(!missing.is_empty(), "without {operator} nothing is said to be missing");
        let lower = totals(&graph, &counted);
        assert!(lower[0] <= truth[0] && lower[1] <= truth[1], "{operator}: {lower:?} {truth:?}");
    }
}

/// Field 4 of an ONNX node is the operator's name: tag 0x22, length, text.
fn onnx_name(operator: &str) -> Vec<u8> {
    [&[0x22, operator.len() as u8], operator.as_bytes()].concat()
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    for at in 0..out.len().saturating_sub(from.len() - 1) {
        if &out[at..at + from.len()] == from {
            out[at..at + from.len()].copy_from_slice(to);
        }
    }
    out
}

#[test]
fn onnx_operators_without_a_rule_are_said() {
    for file in ["resnet18.legacy.dyn", "vit_b_16.legacy.dyn", "mobilenet_v2.dynamo.dyn"] {
        let path = root().join(format!("tests/data/onnx/{file}.onnx"));
        let bytes = std::fs::read(path).expect("the file is in the repository");
        let graph = from_bytes("whole", bytes.clone().into(), Path::new("")).expect("it is whole");
        // Those that cost nothing but decide shapes are renamed as well as those that cost.
        let operators = graph.nodes.iter().map(|node| node.operator.to_string()).collect();
        check(bytes.clone(), &operators, |operator| {
            let unknown = format!("Z{}", &operator[1..]);
            replaced(&bytes, &onnx_name(operator), &onnx_name(&unknown))
        });
    }
}

#[test]
fn aten_operators_without_a_rule_are_said() {
    for model in ["resnet18", "gpt2", "swin_t"] {
        let path = root().join(format!("data/models/{model}.pt2"));
        let bytes = std::fs::read(path).expect("the file is in the repository");
        let graph = from_bytes("whole", bytes.clone().into(), Path::new("")).expect("it is whole");
        let operators = graph.nodes.iter().map(|node| node.operator.to_string()).collect();
        check(bytes.clone(), &operators, |operator| {
            let from = format!("\"torch.ops.{operator}\"");
            let to = from.replacen("ops.", "ops.z", 1);
            rezipped(&bytes, |json| json.replace(&from, &to))
        });
    }
}

/// An archive with its JSON members changed.
fn rezipped(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for member_idx in 0..archive.len() {
        let mut member = archive.by_index(member_idx).expect("a member");
        let name = member.name().expect("a name in UTF-8").to_string();
        let mut content = Vec::new();
        member.read_to_end(&mut content).expect("a whole member");
        if name.ends_with("models/model.json") {
            content = change(std::str::from_utf8(&content).expect("JSON")).into_bytes();
        }
        out.start_file(name, options).expect("room for a member");
        out.write_all(&content).expect("memory takes all");
    }
    out.finish().expect("memory takes all").into_inner()
}
