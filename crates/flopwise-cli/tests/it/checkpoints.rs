//! Files of weights through the program: of PyTorch, ONNX and several files, with scales, and hostile
//! ones.

use crate::run::{data, flopwise, folder};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A header of this length, its text, and data.
fn safetensors(header: &str, length: u64, n_bytes: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], header.as_bytes(), &vec![0; n_bytes]].concat()
}

#[track_caller]
fn refused(args: &[&str], expected: &str) {
    let start = Instant::now();
    let ran = flopwise(args);
    // Unoptimised and beside other tests; optimised, the longest takes a tenth of a second.
    assert!(start.elapsed() < Duration::from_secs(60), "{args:?} took {:?}", start.elapsed());
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(expected), "{} lacks {expected}", ran.stderr);
}

#[test]
fn hostile_headers_are_one_line() {
    let folder = folder();
    let check = |header: &str, n_bytes: usize, expected: &str| {
        let path = folder.path().join("hostile.safetensors");
        // Padded to a length whose first byte is a brace, as that of JSON.
        let header = format!("{header:<379}");
        fs::write(&path, safetensors(&header, header.len() as u64, n_bytes)).unwrap();
        refused(&["tensors", path.to_str().unwrap()], expected);
        refused(&["count", path.to_str().unwrap()], expected);
    };
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},
                 "b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#
        )
    };
    check(&two("[0,8]", "[8,16]"), 8, "holds 8 of the 16 bytes");
    check(&two("[0,8]", "[4,12]"), 12, "tensor `b`: overlaps `a`");
    check(&two("[0,8]", "[12,20]"), 20, "belong to no tensor");
    check(&two("[0,8]", "[8,16]").replace("\"b\"", "\"a\""), 16, "tensor `a`: stands twice");
    check(&two("[0,8]", "[8,12]"), 12, "takes 8 bytes, its offsets span 4");
    check(&format!("{{\"a\":{}", "[".repeat(370)), 8, "invalid type");
    let path = folder.path().join("long.safetensors");
    let name = path.to_str().unwrap();
    fs::write(&path, safetensors("{}", 1 << 63, 0)).unwrap();
    refused(&["tensors", name], "claims 9223372036854775808 bytes");
    let long = format!("{{\"{}\":1}}", "x".repeat(5 << 20));
    fs::write(&path, safetensors(&long, long.len() as u64, 0)).unwrap();
    refused(&["tensors", name], "a text of it has more than");
    let entry = r#"":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let many: Vec<String> = (0..200_001).map(|place| format!("\"{place}{entry}")).collect();
    let many = format!("{{{}}}", many.join(","));
    fs::write(&path, safetensors(&many, many.len() as u64, 0)).unwrap();
    refused(&["tensors", name], "more than 200000 tensors");
}

/// The tensors of a JSON report by name.
fn judged(args: &[&str]) -> Value {
    let ran = flopwise(args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

fn tensor(report: &Value, name: &str) -> Value {
    let tensors = report["tensors"].as_array().unwrap();
    tensors.iter().find(|tensor| tensor["name"] == name).unwrap().clone()
}

#[test]
fn checkpoints_of_every_kind_are_judged() {
    let check = |file: &str, kind: &str, name: &str, amax: f64| {
        let path = data("tensors/checkpoints").join(file);
        let report = judged(&["tensors", path.to_str().unwrap(), "--to", "bf16", "--json"]);
        assert_eq!(report["file_kind"], kind, "{file}: {report}");
        assert_eq!(tensor(&report, name)["source"]["amax"], amax, "{file} {name}");
    };
    check("views.pt", "pytorch", "whole", 23.0);
    check("views_legacy.pt", "pytorch", "transposed", 5.0);
    check("zip4.pt", "pytorch", "history.1", 2.0);
    check("external.onnx", "onnx", "w2", 7.0);
    check("sharded", "safetensors", "c.weight", 3.0);
    check("sharded/model.safetensors.index.json", "safetensors", "a.weight", 3.0);
    check("sharded_bin", "pytorch", "b.weight", 3.0);
}

#[test]
fn a_malicious_pickle_runs_nothing() {
    let ran = Path::new("/tmp/flopwise_was_run");
    for file in ["malicious.pt", "malicious_legacy.pt"] {
        let path = data("tensors/checkpoints").join(file);
        let report = judged(&["tensors", path.to_str().unwrap(), "--to", "bf16", "--json"]);
        assert_eq!(report["tensors"].as_array().unwrap().len(), 4);
        assert!(report["notes"].to_string().contains("posix.system"), "{}", report["notes"]);
    }
    let plain = data("tensors/checkpoints/plain.pkl");
    refused(&["tensors", plain.to_str().unwrap()], "pickles are never run");
    assert!(!ran.exists());
}

#[test]
fn views_that_are_not_read_are_said() {
    let path = data("tensors/checkpoints/views.pt");
    let report = judged(&["tensors", path.to_str().unwrap(), "--to", "bf16", "--json", "--raw"]);
    let why = tensor(&report, "column")["not_judged"].to_string();
    assert!(why.contains("do not lie side by side"), "{why}");
}

#[test]
fn codes_are_judged_with_their_scales() {
    let folder = folder();
    let path = folder.path().join("scaled.safetensors");
    // E4M3 codes of 1 and 2 in blocks of 1 x 2 under scales of 0.5 and 3.
    let header = r#"{"w.weight":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]},
        "w.weight_scale_inv":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]}}"#;
    let codes = [0x38u8, 0x40, 0x38, 0x40];
    let scales = [0.5f32.to_le_bytes(), 3f32.to_le_bytes()].concat();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &codes, &scales];
    fs::write(&path, file.concat()).unwrap();
    let report = judged(&["tensors", path.to_str().unwrap(), "--to", "e4m3fn", "--json"]);
    let weight = tensor(&report, "w.weight");
    assert_eq!(weight["source"]["amax"], 6.0, "{weight}");
    assert!(report["notes"].to_string().contains("with their scales applied"));
    let raw = judged(&["tensors", path.to_str().unwrap(), "--to", "e4m3fn", "--json", "--raw"]);
    assert_eq!(tensor(&raw, "w.weight")["source"]["amax"], 2.0);
}

#[test]
fn weights_alone_are_no_model() {
    let path = data("tensors/checkpoints/views.pt");
    refused(&["count", path.to_str().unwrap()], "put the model's config.json beside it");
    let path = data("tensors/checkpoints/sharded/model.safetensors.index.json");
    refused(&["count", path.to_str().unwrap()], "put the model's config.json beside it");
}
