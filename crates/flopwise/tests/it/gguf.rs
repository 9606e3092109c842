//! Graphs of GGUF files against graphs of the configs of the same models
//! (`tools/make_gguf_files.py`): the same weights and operations, and the bytes of the file.

use flopwise::arch::{self, Options};
use flopwise::cost;
use flopwise::graph::{Bindings, Graph, Role};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf").join(file)
}

fn weights(graph: &Graph) -> BTreeMap<String, String> {
    let trained = graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter);
    let shape = |tensor: &flopwise::graph::Tensor| {
        tensor.tensor_type.as_ref().expect("a file of this test").shape.clone()
    };
    trained.map(|tensor| (tensor.name.clone(), shape(tensor).to_string())).collect()
}

/// What a file need not have: poolers and the like, which llama.cpp leaves out.
const LEFT_OUT: &[&str] = &[];

fn check(file: &str, bytes: &[u8], row: &Value) {
    let config = row["config"].to_string();
    let expected = arch::read(file, config.as_bytes(), &Options::whole());
    let found = arch::read(file, bytes, &Options::whole());
    let expected = match expected {
        Ok(expected) => expected,
        Err(error) => {
            // A family that does not exist is said of both.
            assert!(error.to_string().contains("has no rule here"), "{file}: {error}");
            assert!(found.expect_err("no rule").to_string().contains("has no rule here"), "{file}");
            return;
        }
    };
    let found = found.unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(weights(&found), weights(&expected), "{file}");
    let (work, wanted) = (cost::work(&found), cost::work(&expected));
    assert_eq!(work.total.macs, wanted.total.macs, "{file}");
    assert_eq!(work.total.other_ops, wanted.total.other_ops, "{file}");
    assert_eq!(work.total.bytes_written, wanted.total.bytes_written, "{file}");
    let stored = work.stored(&Bindings::default()).expect("a file of this test");
    assert_eq!(Some(stored.parameters as u64), row["parameters"].as_u64(), "{file}");
    let all = stored.weight_bytes.0 + stored.buffer_bytes.0 - buffers(&expected);
    let notes: Vec<&str> = found.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(Some(all as u64), row["bytes"].as_u64(), "{file}: {notes:#?}");
    let is_odd = |note: &&&str| {
        ["no weight of the graph", "that the file does not have", "another size"]
            .iter()
            .any(|odd| note.contains(odd))
    };
    assert_eq!(notes.iter().find(is_odd).filter(|_| !LEFT_OUT.contains(&file)), None, "{file}");
}

fn buffers(graph: &Graph) -> u128 {
    cost::work(graph).stored(&Bindings::default()).expect("a file of this test").buffer_bytes.0
}

#[test]
fn files_of_models_are_the_models_of_their_configs() {
    let rows: Value =
        serde_json::from_slice(&std::fs::read(data("models.json")).expect("a file of this test"))
            .expect("a file of this test");
    let archive = std::fs::File::open(data("models.zip")).expect("a file of this test");
    let mut archive = zip::ZipArchive::new(archive).expect("a file of this test");
    for row in rows.as_array().expect("a file of this test") {
        let file = row["file"].as_str().expect("a file of this test");
        let mut bytes = Vec::new();
        archive
            .by_name(file)
            .expect("a file of this test")
            .read_to_end(&mut bytes)
            .expect("a file of this test");
        check(file, &bytes, row);
    }
}

/// A file of version 3 with these keys (whole numbers of 32 bits, or text) and tensors of FP32.
fn file(keys: &[(&str, Result<u32, &str>)], tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        file.extend(text(key));
        match value {
            Ok(number) => file.extend([4u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Err(word) => file.extend([&8u32.to_le_bytes()[..], &text(word)].concat()),
        }
    }
    let mut offset = 0u64;
    for (name, dims) in tensors {
        file.extend(text(name));
        file.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += (4 * dims.iter().product::<u64>()).next_multiple_of(32);
    }
    file.resize(file.len().next_multiple_of(32) + offset as usize, 0);
    file
}

const LLAMA: &[(&str, Result<u32, &str>)] = &[
    ("general.architecture", Err("llama")),
    ("llama.embedding_length", Ok(8)),
    ("llama.feed_forward_length", Ok(16)),
    ("llama.block_count", Ok(1)),
    ("llama.attention.head_count", Ok(2)),
    ("llama.attention.head_count_kv", Ok(1)),
    ("llama.vocab_size", Ok(10)),
];

fn with(changed: &str, value: Option<Result<u32, &'static str>>) -> Vec<u8> {
    let keys = LLAMA.iter().filter(|(key, _)| *key != changed).copied();
    let added = value.map(|value| {
        (LLAMA.iter().find(|(key, _)| *key == changed).expect("a file of this test").0, value)
    });
    file(&keys.chain(added).collect::<Vec<_>>(), &[])
}

#[test]
fn what_the_keys_lack_is_named() {
    let check = |file: &[u8], expected: &str| {
        let error = arch::read("m", file, &Options::whole()).expect_err("no rule").to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error} lacks {expected}");
    };
    check(&with("general.architecture", None), "has no `general.architecture`");
    check(&with("general.architecture", Some(Ok(3))), "`general.architecture`: is no text");
    check(
        &with("general.architecture", Some(Err("llamas"))),
        "has architecture `llamas`, which has no rule here; known ones near it: llama",
    );
    check(&with("llama.block_count", None), "`num_hidden_layers` is missing");
    check(&with("llama.block_count", Some(Ok(u32::MAX))), "it must be 1 to 4096");
    check(&with("llama.block_count", Some(Err("two"))), "`llama.block_count`: is two, no whole");
    check(&with("llama.attention.head_count", Some(Ok(0))), "`num_attention_heads` is 0");
    check(&with("llama.attention.head_count", Some(Ok(3))), "which does not divide hidden_size 8");
    check(&with("llama.vocab_size", None), "`vocab_size` is missing");
}

#[test]
fn what_has_no_counterpart_is_said() {
    let notes = |tensors: &[(&str, &[u64])]| {
        let graph =
            arch::read("m", &file(LLAMA, tensors), &Options::whole()).expect("a file of this test");
        let notes: Vec<&str> = graph.notes.iter().map(|note| note.text.as_str()).collect();
        notes.join("\n")
    };
    let found = notes(&[("token_embd.weight", &[8, 10]), ("blk.0.extra.weight", &[4])]);
    assert!(
        found.contains("not counted: 1 of 2 (16 bytes; first: `blk.0.extra.weight`)"),
        "{found}"
    );
    assert!(found.contains("that the file does not have, counted all the same: 10"), "{found}");
    let found = notes(&[("blk.0.attn_q.weight", &[8, 9])]);
    assert!(found.contains("of another size than the architecture's weights: 1"), "{found}");
}

#[test]
fn changed_bytes_of_a_model_do_no_harm() {
    let whole = file(LLAMA, &[("token_embd.weight", &[8, 10]), ("output.weight", &[8, 10])]);
    for place in 8..whole.len().min(600) {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut file = whole.clone();
            file[place] = byte;
            if let Ok(graph) = arch::read("m", &file, &Options::whole()) {
                let _ = cost::work(&graph);
            }
        }
    }
}
