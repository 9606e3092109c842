//! The graph that `arch` builds of a config against the export of the same config
//! (`tools/arch_exports.py`): multiply-accumulates by kind of node as formulas, parameters by kind,
//! and every weight by name and shape.

use flopwise::arch::{self, Options};
use flopwise::cost::{self, Masking, Seen};
use flopwise::graph::{Dim, Graph, Kind, Role, TensorId};
use flopwise::import;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch").join(name)
}

/// Multiply-accumulates of each kind of node that has any. The export of a Llama has the causal mask
/// as a flag of the operator, that of a T5 as a tensor, which cannot be read; so all pairs count.
fn macs(graph: &mut Graph) -> BTreeMap<Kind, String> {
    let full = Masking { seen: Seen::All, ..Masking::as_file() };
    cost::apply_masking(graph, &full).expect("a file of this test");
    let work = cost::work(graph);
    let mut by_kind: BTreeMap<Kind, Dim> = BTreeMap::new();
    for node in &work.nodes {
        let macs = &node.cost.as_ref().expect("every node has a rule").macs.0;
        let sum = by_kind.entry(graph.nodes[node.node.0].op.kind()).or_insert(Dim::ZERO);
        *sum = &*sum + macs;
    }
    by_kind.retain(|_, macs| *macs != Dim::ZERO);
    by_kind.into_iter().map(|(kind, macs)| (kind, macs.to_string())).collect()
}

/// The kind of the first node that computes with a weight, seen through views of it.
///
/// A norm is one node here; transformers writes the root mean square out, and what is left of the
/// norm that the scale meets is a multiplication. Both count as normalization.
fn kind_of(graph: &Graph, weight: TensorId) -> Kind {
    let reader = graph.nodes.iter().find(|node| node.inputs.contains(&weight));
    let node = reader.unwrap_or_else(|| panic!("{} is not read", graph.tensor(weight).name));
    let kind = node.op.kind();
    if node.op.is_view() {
        return kind_of(graph, node.outputs[0]);
    }
    if kind == Kind::Elementwise { Kind::Normalization } else { kind }
}

fn weights(graph: &Graph) -> BTreeMap<String, (String, Kind)> {
    let trained = graph.tensors.iter().enumerate().filter(|(_, one)| one.role == Role::Parameter);
    let entry = |(id, one): (usize, &flopwise::graph::Tensor)| {
        let shape = one.tensor_type.as_ref().expect("a file of this test").shape.to_string();
        (one.name.clone(), (shape, kind_of(graph, TensorId(id))))
    };
    trained.map(entry).collect()
}

#[track_caller]
fn check(name: &str) {
    let config = std::fs::read(file(&format!("{name}.config.json"))).expect("a file of this test");
    let mut built = arch::read(name, &config, &Options::whole()).expect("a file of this test");
    let mut export = import::open(&file(&format!("{name}.pt2"))).expect("a file of this test");
    assert_eq!(weights(&built), weights(&export), "{name}");
    let parameters = |graph: &Graph| cost::work(graph).parameters.to_string();
    assert_eq!(parameters(&built), parameters(&export), "{name}");
    assert_eq!(macs(&mut built), macs(&mut export), "{name}");
}

#[test]
fn an_architecture_is_its_export() {
    check("gpt2");
    check("llama");
    check("mixtral");
    check("bert");
    check("vit");
    check("t5_encoder");
    check("clip_vision");
}
