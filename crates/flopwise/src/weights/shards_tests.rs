//! Indices and folders of shards: whole ones are one checkpoint, those that lie are refused.

use super::torch_tests::check;
use super::*;
use std::fs;

/// A safetensors file of these tensors, each of one UINT8.
fn shard(names: &[&str]) -> Vec<u8> {
    let entries: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(place, name)| {
            let end = place + 1;
            format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{place},{end}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let data = vec![7; names.len()];
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A folder of an index with this map, and of shards `1.safetensors` (a, b) and `2.safetensors` (c).
fn model(weight_map: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1.safetensors"), shard(&["a", "b"])).unwrap();
    fs::write(folder.path().join("2.safetensors"), shard(&["c"])).unwrap();
    let index = format!(r#"{{"metadata":{{"total_size":3}},"weight_map":{weight_map}}}"#);
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

const WHOLE: &str = r#"{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}"#;

#[track_caller]
fn refused(folder: &tempfile::TempDir, expected: &str) {
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
}

#[test]
fn shards_are_one_checkpoint_and_scales_are_found_across_them() {
    for name in ["sharded", "sharded_bin"] {
        let checkpoint = check(name);
        assert_eq!((checkpoint.name.as_str(), checkpoint.n_files()), (name, 2));
        let codes = checkpoint.tensors().iter().find(|tensor| tensor.name == "b.weight").unwrap();
        let scale = codes.meaning.scale().unwrap();
        assert_eq!(scale.parts[0].name, "b.weight_scale_inv");
        assert!(checkpoint.notes.is_empty(), "{:?}", checkpoint.notes);
    }
}

#[test]
fn an_index_and_its_folder_are_the_same() {
    let folder = model(WHOLE);
    let by_index = open(&folder.path().join("model.safetensors.index.json")).unwrap();
    let by_folder = open(folder.path()).unwrap();
    for checkpoint in [by_index, by_folder] {
        let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(checkpoint.notes.is_empty(), "{:?}", checkpoint.notes);
    }
}

#[test]
fn a_folder_without_an_index_is_all_its_files() {
    let folder = model(WHOLE);
    fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    assert_eq!(open(folder.path()).unwrap().tensors().len(), 3);
    fs::write(folder.path().join("model.safetensors"), shard(&["a"])).unwrap();
    assert_eq!(open(folder.path()).unwrap().tensors().len(), 1, "the whole model wins");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::write(folder.path().join("3.safetensors"), shard(&["b"])).unwrap();
    refused(&folder, "tensor `b`: stands in `1.safetensors` and in `3.safetensors`");
    let empty = tempfile::tempdir().unwrap();
    refused(&empty, "is a folder without weights");
}

#[test]
fn an_index_that_lies_is_refused() {
    let check = |weight_map: &str, expected: &str| refused(&model(weight_map), expected);
    check(r#"{"a":"1.safetensors","c":"1.safetensors"}"#, "tensor `c`: is not in `1.safetensors`");
    check(
        r#"{"a":"2.safetensors","c":"1.safetensors"}"#,
        "tensor `a`: is not in `2.safetensors`, as the index says, but in `1.safetensors`",
    );
    check(r#"{"a":"/etc/passwd"}"#, "lies outside the index's folder, at `/etc/passwd`");
    check(r#"{"a":"../1.safetensors"}"#, "lies outside the index's folder");
    check(r#"{"a":"x/../../1.safetensors"}"#, "lies outside the index's folder");
    check(r#"{"a":"C:\\x"}"#, "lies outside the index's folder");
    check(
        r#"{"a":"1.safetensors","b":"3.safetensors","d":"4.safetensors"}"#,
        "2 of 3 shards are not there: 3.safetensors, 4.safetensors",
    );
    check(r#"{"a":"1.safetensors","a":"2.safetensors"}"#, "`a` stands twice");
    check("{}", "names no files of weights");
    check("[]", "is no index of weights");
    check(r#"{"a":{"b":{}}}"#, "is no index of weights");
    check(&format!(r#"{{"a":{}1"#, "[".repeat(1000)), "is no index of weights");
}

#[test]
fn what_the_index_leaves_out_or_miscounts_is_noted() {
    let folder = model(r#"{"a":"1.safetensors","c":"2.safetensors"}"#);
    let checkpoint = open(folder.path()).unwrap();
    assert!(checkpoint.notes[0].text.ends_with("does not list: 1 (first: `b`)"));
    let index = format!(r#"{{"metadata":{{"total_size":5}},"weight_map":{WHOLE}}}"#);
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let checkpoint = open(folder.path()).unwrap();
    assert_eq!(checkpoint.notes[0].text, "the index says 5 bytes in all, its files hold 3");
}

#[test]
fn a_damaged_shard_is_named() {
    let folder = model(WHOLE);
    fs::write(folder.path().join("2.safetensors"), &shard(&["c"])[..20]).unwrap();
    refused(&folder, "2.safetensors: header: claims");
}
