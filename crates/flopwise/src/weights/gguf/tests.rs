//! GGUF files by gguf-py (`tools/make_gguf_files.py`) are read to the byte; damaged and hostile ones,
//! written by hand, are refused with the place of the flaw.

use crate::weights::{Checkpoint, Kind, from_bytes, open};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf").join(file)
}

/// What `read` hands out of a tensor.
fn read_all(checkpoint: &Checkpoint, name: &str, max_bytes: usize) -> Vec<u8> {
    let tensor_idx = checkpoint.tensors().iter().position(|tensor| tensor.name == name).unwrap();
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    for piece in checkpoint.pieces(tensor_idx, max_bytes) {
        let take = &mut |chunk: crate::weights::Chunk<'_>| all.extend_from_slice(chunk.bytes);
        checkpoint.read(&piece, &mut buffer, take).unwrap();
    }
    all
}

/// The names of `tools/make_gguf_files.py` in its order.
const DECODED: &[&str] = &[
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k",
    "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4",
];

#[test]
fn blocks_stand_for_what_gguf_py_makes_of_them() {
    let checkpoint = open(&data("blocks.gguf")).unwrap();
    assert_eq!(checkpoint.kind, Kind::Gguf);
    let expected = std::fs::read(data("blocks.f32")).unwrap();
    for (name, expected) in DECODED.iter().zip(expected.chunks(1024)) {
        let name = format!("t.{name}");
        let tensor = checkpoint.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        for max_bytes in [1, 400, 1 << 20] {
            let found = read_all(&checkpoint, &name, max_bytes);
            let found: Vec<u8> = match tensor.format.bits {
                32 => found,
                _ => {
                    let mut values = vec![0.0f32; 256];
                    flopwise_formats::bulk::decode_f32(tensor.format, &found, &mut values).unwrap();
                    values.iter().flat_map(|value| value.to_le_bytes()).collect()
                }
            };
            assert!(found == expected, "{name} in pieces of {max_bytes}");
        }
    }
}

#[test]
fn every_type_has_the_bytes_of_gguf_py() {
    // `GGML_QUANT_SIZES` of gguf 0.19.0: bytes of 256 elements.
    let sizes = [
        ("f32", 1024),
        ("f16", 512),
        ("bf16", 512),
        ("q4_0", 144),
        ("q4_1", 160),
        ("q5_0", 176),
        ("q5_1", 192),
        ("q8_0", 272),
        ("q8_1", 320),
        ("q2_k", 84),
        ("q3_k", 110),
        ("q4_k", 144),
        ("q5_k", 176),
        ("q6_k", 210),
        ("q8_k", 292),
        ("iq2_xxs", 66),
        ("iq2_xs", 74),
        ("iq3_xxs", 98),
        ("iq1_s", 50),
        ("iq4_nl", 144),
        ("iq3_s", 110),
        ("iq2_s", 82),
        ("iq4_xs", 136),
        ("i8", 256),
        ("i16", 512),
        ("i32", 1024),
        ("i64", 2048),
        ("f64", 2048),
        ("iq1_m", 56),
        ("tq1_0", 54),
        ("tq2_0", 66),
        ("mxfp4", 136),
        ("nvfp4", 144),
    ];
    let checkpoint = open(&data("blocks.gguf")).unwrap();
    assert_eq!(checkpoint.tensors().len(), sizes.len());
    for (name, bytes) in sizes {
        let name = format!("t.{name}");
        let tensor = checkpoint.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!((tensor.elements, tensor.bytes), (256, bytes), "{name}");
        let is_known = DECODED.contains(&&name[2..]) || !name.contains('q') || name == "t.q8_k";
        assert_eq!(tensor.unread.is_none(), is_known, "{name}");
    }
    let note = &checkpoint.notes[0].text;
    assert!(note.starts_with("tensors whose values cannot be read: 8 of 33 (856 bytes"), "{note}");
}

#[test]
fn metadata_is_kept_where_it_is_short() {
    let checkpoint = open(&data("blocks.gguf")).unwrap();
    let check = |key: &str, expected: &str| {
        assert_eq!(checkpoint.metadata.get(key).map(String::as_str), Some(expected), "{key}");
    };
    check("general.architecture", "test");
    check("general.tags", "[a, b]");
    check("test.block_count", "3");
    check("test.scale", "0.5");
    check("test.flag", "true");
    check("test.attention.head_count", "[4, 4, 8]");
    check("tokenizer.ggml.tokens", "(300 entries or bytes)");
    check("tokenizer.ggml.scores", "(5000 entries or bytes)");
}

#[test]
fn big_endian_files_are_read_but_for_blocks() {
    let little = open(&data("blocks.gguf")).unwrap();
    let big = open(&data("big_endian.gguf")).unwrap();
    assert_eq!(big.metadata["test.attention.head_count"], "[4, 4, 8]");
    for name in ["t.f32", "t.f16", "t.i32"] {
        assert_eq!(read_all(&big, name, 1 << 20), read_all(&little, name, 1 << 20), "{name}");
    }
    let blocks = big.tensors().iter().find(|tensor| tensor.name == "t.q8_0").unwrap();
    assert_eq!((blocks.bytes, blocks.unread.is_none()), (272, false));
}

#[test]
fn split_models_are_one_model() {
    for file in ["split-00001-of-00003.gguf", "split-00003-of-00003.gguf"] {
        let checkpoint = open(&data(file)).unwrap();
        assert_eq!(checkpoint.tensors().len(), 5, "{file}");
        assert!(checkpoint.notes.is_empty(), "{:?}", checkpoint.notes);
        for idx in 0..5u8 {
            let found = read_all(&checkpoint, &format!("s.{idx}"), 64);
            assert_eq!(found, f32::from(idx).to_le_bytes().repeat(32), "{file} {idx}");
        }
    }
    let alone = std::fs::read(data("split-00002-of-00003.gguf")).unwrap();
    let checkpoint = from_bytes("alone", alone.clone().into()).unwrap();
    let note = &checkpoint.notes[0].text;
    assert!(note.starts_with("2 of the 3 files") && note.ends_with("of 2 of 5 tensors"), "{note}");
    // A brother that is another file under its name.
    let folder = tempfile::tempdir().unwrap();
    for no in 1..4 {
        std::fs::write(folder.path().join(format!("m-0000{no}-of-00003.gguf")), &alone).unwrap();
    }
    let error = open(&folder.path().join("m-00002-of-00003.gguf")).unwrap_err().to_string();
    assert!(error.contains("m-00001-of-00003.gguf: is not number 1 of 3"), "{error}");
}

/// A header of version 3, little-endian.
struct File(Vec<u8>);

impl File {
    fn new(n_tensors: u64, n_keys: u64) -> File {
        let mut file = File(b"GGUF\x03\0\0\0".to_vec());
        file.u64(n_tensors);
        file.u64(n_keys);
        file
    }

    fn u32(&mut self, number: u32) -> &mut File {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut File {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut File {
        self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }

    fn key(&mut self, key: &str, kind: u32) -> &mut File {
        self.text(key).u32(kind)
    }

    fn tensor(&mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> &mut File {
        self.text(name).u32(dims.len() as u32);
        for dim in dims {
            self.u64(*dim);
        }
        self.u32(kind).u64(offset)
    }

    fn data(&mut self, n_bytes: usize) -> &mut File {
        let padded = self.0.len().next_multiple_of(32) + n_bytes;
        self.0.resize(padded, 0);
        self
    }

    #[track_caller]
    fn is_refused(&self, expected: &str) {
        let error = from_bytes("hostile", self.0.clone().into()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error} lacks {expected}");
    }
}

#[test]
fn hostile_counts_and_versions_are_refused() {
    File(b"GGUF".to_vec()).is_refused("header: takes 4 bytes at byte 4, the file has 4");
    File(b"GGUF\x04\0\0\0".to_vec()).is_refused("header: says version 4; 1, 2 and 3 are known");
    for count in [100_000, 1_000_000_000, 1 << 63, u64::MAX] {
        File::new(count, 0).is_refused(&format!("header: claims {count} tensors"));
        File::new(0, count).is_refused(&format!("header: claims {count} keys"));
    }
    File::new(1000, 0).is_refused("claims 1000 tensors, for which 0 bytes are too few");
}

#[test]
fn hostile_metadata_are_refused() {
    let refused = |build: fn(&mut File) -> &mut File, expected: &str| {
        let mut file = File::new(0, 1);
        build(&mut file).data(64).is_refused(expected);
    };
    refused(|f| f.u64(1 << 40), "metadata, key 1 of 1: has a key of 1099511627776 bytes");
    refused(|f| f.u64(60_000), "metadata, key 1 of 1: takes 60000 bytes at byte 32");
    refused(|f| f.key("k", 13), "metadata `k`: has values of type 13");
    refused(|f| f.key("k", 8).u64(u64::MAX), "metadata `k`: takes 18446744073709551615");
    refused(|f| f.key("k", 9).u32(4).u64(1 << 63), "claims 9223372036854775808 entries");
    refused(|f| f.key("k", 9).u32(8).u64(1_000_000_000), "claims 1000000000 entries");
    refused(|f| f.key("k", 9).u32(77).u64(1), "has entries of type 77");
    refused(|f| f.key("general.alignment", 4).u32(3), "is 3, no power of two");
    refused(|f| f.key("general.alignment", 4).u32(0), "is 0, no power of two");
    refused(|f| f.key("general.alignment", 8).text("32"), "is no whole number");
    let mut twice = File::new(0, 2);
    twice.key("k", 4).u32(1).key("k", 4).u32(2);
    twice.is_refused("metadata `k`: stands twice");
    let mut deep = File::new(0, 1);
    deep.key("k", 9);
    for _ in 0..1_000_000 {
        deep.u32(9).u64(1);
    }
    deep.is_refused("metadata `k`: lists lie more than 8 deep in lists");
    // Lists without entries, more of them than are walked over.
    let mut many = File::new(0, 1);
    many.key("k", 9).u32(9).u64(5 << 20);
    many.0.resize(64 << 20, 0);
    many.is_refused("metadata `k`: texts and lists within lists are more than");
}

#[test]
fn hostile_tensors_are_refused() {
    let refused = |dims: &[u64], kind: u32, offset: u64, expected: &str| {
        let mut file = File::new(1, 0);
        file.tensor("w", dims, kind, offset).data(128);
        file.is_refused(expected);
    };
    refused(&[32], 0, 32, "tensor `w`: ends at byte 224, the file has 192; the file is cut short");
    refused(&[32], 0, 1 << 40, "tensor `w`: ends at byte 1099511627968");
    refused(&[32], 0, 3, "tensor `w`: begins at byte 3 of the data, not aligned to 32");
    refused(&[32], 0, u64::MAX - 31, "tensor `w`: begins at byte 18446744073709551584");
    refused(&[1 << 40, 1 << 40], 0, 0, "is too large to have a size");
    refused(&[1 << 40, 1 << 40, 0], 0, 0, "is too large to have a size");
    refused(&[1 << 62, 2], 0, 0, "is too large to have a size");
    refused(&[33], 2, 0, "tensor `w`: has rows of 33 elements, no whole blocks of 32");
    refused(&[16, 2], 2, 0, "has rows of 16 elements, no whole blocks of 32");
    refused(&[1, 1, 1, 1, 1], 0, 0, "tensor `w`: has 5 axes; 4 are allowed");
    refused(&[32], 4, 0, "tensor `w`: has type 4 (Q4_2), long removed");
    refused(&[32], 99, 0, "tensor `w`: has type 99, which is not known");
    let mut overlapping = File::new(2, 0);
    overlapping.tensor("a", &[16], 0, 0).tensor("b", &[16], 0, 32).data(128);
    overlapping.is_refused("tensor `b`: begins at byte 128, within `a`");
    let mut twins = File::new(2, 0);
    twins.tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32).data(128);
    twins.is_refused("tensor `a`: stands twice");
    let mut long = File::new(1, 0);
    long.tensor(&"n".repeat(300), &[8], 0, 0).data(128);
    long.is_refused("tensor 1 of 1: has a name of 300 bytes; 255 are allowed");
}

#[test]
fn what_is_odd_but_whole_is_read() {
    let mut gap = File::new(2, 0);
    gap.tensor("a", &[8], 0, 0).tensor("b", &[2, 4], 0, 96).data(128);
    let checkpoint = from_bytes("gap", gap.0.clone().into()).unwrap();
    assert_eq!(checkpoint.notes[0].text, "64 bytes between or behind the tensors belong to none");
    assert_eq!(checkpoint.tensors()[1].shape, [4, 2]);
    let empty = from_bytes("empty", File::new(0, 0).0.into()).unwrap();
    assert!(empty.tensors().is_empty());
    // Lists in lists, and none of them kept.
    let mut nested = File::new(0, 1);
    nested.key("k", 9).u32(9).u64(100);
    for _ in 0..100 {
        nested.u32(8).u64(2).text("a").text("bc");
    }
    let checkpoint = from_bytes("nested", nested.0.into()).unwrap();
    assert_eq!(checkpoint.metadata["k"], "(100 entries or bytes)");
}

#[test]
fn the_first_version_has_short_lengths() {
    let mut file = File(b"GGUF\x01\0\0\0".to_vec());
    file.u32(1).u32(1).u32(1).0.push(b'k');
    file.u32(4).u32(7).u32(1).0.push(b'w');
    file.u32(2).u32(4).u32(2).u32(0).u64(0).data(32);
    let checkpoint = from_bytes("first", file.0.into()).unwrap();
    assert_eq!(checkpoint.metadata["k"], "7");
    assert_eq!(checkpoint.tensors()[0].shape, [2, 4]);
}

#[test]
fn cut_anywhere_a_file_is_refused() {
    for (file, step) in [("big_endian.gguf", 1), ("blocks.gguf", 101)] {
        let whole = std::fs::read(data(file)).unwrap();
        for len in (4..whole.len()).step_by(step) {
            assert!(from_bytes("cut", whole[..len].to_vec().into()).is_err(), "{len} bytes");
        }
    }
}

proptest! {
    #[test]
    fn changed_bytes_do_no_harm(changes in prop::collection::vec((8..4000usize, any::<u8>()), 1..4)) {
        let mut file = std::fs::read(data("big_endian.gguf")).unwrap();
        for (place, byte) in changes {
            let place = place % file.len();
            file[place] = byte;
        }
        if let Ok(checkpoint) = from_bytes("changed", file.into()) {
            for tensor_idx in 0..checkpoint.tensors().len() {
                let mut buffer = Vec::new();
                for piece in checkpoint.pieces(tensor_idx, 1000) {
                    let _ = checkpoint.read(&piece, &mut buffer, &mut |_| ());
                }
            }
        }
    }
}
