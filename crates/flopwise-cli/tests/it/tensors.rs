//! `flopwise tensors` on small files made here.

use crate::run::{flopwise, folder};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A safetensors file: names, dtypes, shapes and bytes.
fn write(path: &Path, tensors: &[(&str, &str, &str, Vec<u8>)]) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}"
        ));
        data.extend(bytes);
    }
    let header = format!("{{{}}}", entries.join(","));
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &data].concat()).unwrap();
}

fn singles(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn every_tensor_is_judged_or_refused_with_a_reason() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let weights = singles(&[0.5, 1.0, 500.0, 1e-6]);
    let tensors = [
        ("a.weight", "F32", "[2,2]", weights),
        ("b.weight", "F8_E4M3", "[4]", vec![0x38, 0x7e, 0, 1]),
        ("b.weight_scale", "F32", "[1]", singles(&[0.25])),
        ("mask", "BOOL", "[2]", vec![0, 1]),
    ];
    write(&path, &tensors);
    let name = path.to_str().unwrap();
    let ran = flopwise(&["tensors", name, "--to", "e4m3fn,bf16", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let tensor = |name: &str| {
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().find(|tensor| tensor["name"] == name).unwrap().clone()
    };
    let e4m3 = &tensor("a.weight")["targets"][0];
    assert_eq!((e4m3["overflow"].as_u64(), e4m3["underflow"].as_u64()), (Some(1), Some(1)));
    assert_eq!(e4m3["max_abs_error"], 52.0);
    // 0x7e is 448, and the scale 1/4.
    assert_eq!(tensor("b.weight")["source"]["amax"], 112.0);
    let refused = tensor("b.weight_scale");
    assert!(refused["not_judged"].as_str().unwrap().contains("serves `b.weight`"), "{refused}");
    assert!(tensor("mask")["not_judged"].is_string());

    let raw = flopwise(&["tensors", name, "--raw", "--tensor", "b.weight", "--json"]);
    let json: Value = serde_json::from_str(&raw.stdout).unwrap();
    assert_eq!(json["tensors"][0]["source"]["amax"], 448.0);
    let text = flopwise(&["tensors", name]);
    assert_eq!((text.code, text.stderr.as_str()), (0, ""));
    assert!(text.stdout.contains("Not judged"), "{}", text.stdout);
}

#[test]
fn what_cannot_be_answered_is_one_line() {
    let folder = folder();
    let path = folder.path().join("mask.safetensors");
    write(&path, &[("mask", "BOOL", "[2]", vec![0, 1])]);
    let name = path.to_str().unwrap();
    assert_eq!(flopwise(&["tensors", name]).code, 1);
    let check = |args: &[&str], expected: &str| {
        let ran = flopwise(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    };
    check(&["tensors", name, "--to", "fp8"], "ambiguous");
    check(&["tensors", name, "--tensor", "absent"], "no tensor has a name like `absent`");
    check(&["tensors", "absent.npy"], "absent.npy");
}
