//! Checkpoints written by PyTorch (`tools/make_checkpoint_files.py`) and by hand: what is whole is
//! read to the byte, what is damaged is refused, and nothing that a pickle names is run.

use super::tests::{index, read_all};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;

/// What is in the files of the folder, as the libraries that wrote them say.
#[derive(serde::Deserialize)]
struct Expected {
    format: String,
    shape: Vec<u64>,
    /// In hexadecimal; of a view that is not read, nothing.
    bytes: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tensors/checkpoints")
}

/// Holds a file or folder against `expected.json`.
#[track_caller]
pub(super) fn check(file: &str) -> Checkpoint {
    let text = fs::read(folder().join("expected.json")).unwrap();
    let all: BTreeMap<String, BTreeMap<String, Expected>> = serde_json::from_slice(&text).unwrap();
    let checkpoint = open(&folder().join(file)).unwrap();
    let expected = &all[file];
    let mut names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, expected.keys().map(String::as_str).collect::<Vec<_>>(), "{file}");
    for (name, expected) in expected {
        let tensor_idx = index(&checkpoint, name);
        let tensor = &checkpoint.tensors()[tensor_idx];
        assert_eq!(tensor.format.to_string(), expected.format, "{file} {name}");
        assert_eq!(tensor.shape, expected.shape, "{file} {name}");
        let Some(bytes) = &expected.bytes else {
            assert!(tensor.unread.is_some(), "{file} {name}");
            assert_eq!(checkpoint.pieces(tensor_idx, 64).len(), 0);
            continue;
        };
        for max_bytes in [0, 7, 1 << 20] {
            let read = read_all(&checkpoint, tensor_idx, max_bytes);
            let hex: String = read.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, *bytes, "{file} {name} by {max_bytes}");
        }
    }
    checkpoint
}

#[test]
fn every_dtype_of_pytorch_is_read() {
    assert_eq!(check("dtypes.pt").kind, Kind::Torch);
    check("deflated.pt");
    check("big_endian.pt");
}

#[test]
fn every_protocol_is_read_in_both_formats() {
    for protocol in 2..=5 {
        check(&format!("zip{protocol}.pt"));
        check(&format!("legacy{protocol}.pt"));
    }
}

#[test]
fn views_are_read_where_their_elements_lie_side_by_side() {
    for file in ["views.pt", "views_legacy.pt"] {
        let checkpoint = check(file);
        let order = |name: &str| checkpoint.tensors()[index(&checkpoint, name)].axis_order;
        assert_eq!(order("part"), AxisOrder::LastFastest);
        assert_eq!(order("transposed"), AxisOrder::FirstFastest);
        assert_eq!(order("channels_last"), AxisOrder::Permuted);
        let notes: Vec<&str> = checkpoint.notes.iter().map(|note| note.text.as_str()).collect();
        assert!(
            notes.iter().any(|note| note.contains("`head.weight` is `embedding.weight`")),
            "{notes:?}"
        );
        let column = &checkpoint.tensors()[index(&checkpoint, "column")];
        assert!(column.unread.as_ref().unwrap().contains("strides [3]"));
        assert!(checkpoint.matrix(index(&checkpoint, "column"), 1, 1).is_err());
    }
}

#[test]
fn a_whole_module_is_read_as_data() {
    for file in ["module.pt", "module_legacy.pt"] {
        let checkpoint = check(file);
        let note = &checkpoint.notes[0].text;
        assert!(note.contains("nothing in it is run") && note.contains("Sequential"), "{note}");
    }
}

#[test]
fn a_malicious_pickle_runs_nothing_and_its_tensors_are_listed() {
    for file in ["malicious.pt", "malicious_legacy.pt"] {
        let checkpoint = check(file);
        let note = &checkpoint.notes[0].text;
        assert!(note.contains("posix.system") && note.contains("not made"), "{note}");
    }
    let error = open(&folder().join("plain.pkl")).unwrap_err().to_string();
    assert!(error.contains("none of PyTorch's"), "{error}");
    assert!(!Path::new("/tmp/flopwise_was_run").exists());
}

/// An archive of this pickle and one storage of 16 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let members = [("a/data.pkl", pickle.to_vec()), ("a/data/0", (0..16).collect())];
    super::tests::npz(&members, zip::CompressionMethod::Stored)
}

/// A pickle of `{"w": tensor}` with this offset, shape and strides.
fn tensor(class: &str, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |number: i32| [&b"J"[..], &number.to_le_bytes()].concat();
    let tuple = |sizes: &[i32]| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| int(*size)).collect();
        [&b"("[..], &sizes, b"t"].concat()
    };
    let text = |text: &str| [&b"U"[..], &[text.len() as u8], text.as_bytes()].concat();
    [
        &b"\x80\x02}"[..],
        &text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        format!("ctorch\n{class}\n").as_bytes(),
        &text("0"),
        &text("cpu"),
        b"K\x04tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"NNtRs.",
    ]
    .concat()
}

#[track_caller]
fn refused(pickle: &[u8], expected: &str) {
    let error = from_bytes("test", archive(pickle).into()).unwrap_err().to_string();
    assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
}

#[test]
fn what_lies_about_its_storage_is_refused() {
    let whole = archive(&tensor("FloatStorage", 0, &[2, 2], &[2, 1]));
    let checkpoint = from_bytes("test", whole.into()).unwrap();
    assert_eq!(read_all(&checkpoint, 0, 64), (0..16).collect::<Vec<u8>>());
    refused(&tensor("FloatStorage", 1, &[2, 2], &[2, 1]), "reaches beyond the 16 bytes");
    refused(&tensor("FloatStorage", 0, &[i32::MAX], &[1]), "reaches beyond the 16 bytes");
    refused(&tensor("DoubleStorage", 0, &[2, 2], &[2, 1]), "reaches beyond the 16 bytes");
    let huge = [i32::MAX, i32::MAX, i32::MAX, 4];
    refused(&tensor("FloatStorage", 0, &huge, &[0, 0, 0, 0]), "too large to have a size");
    let left_out = |class: &str, offset, shape: &[i32], strides: &[i32]| {
        let file = archive(&tensor(class, offset, shape, strides));
        let checkpoint = from_bytes("test", file.into()).unwrap();
        assert!(checkpoint.tensors().is_empty());
        checkpoint.notes[0].text.clone()
    };
    assert!(left_out("FloatStorage", -1, &[1], &[1]).contains("begins before"));
    assert!(left_out("FloatStorage", 0, &[-1], &[1]).contains("no sizes"));
    assert!(left_out("FloatStorage", 0, &[2, 2], &[1]).contains("other axes"));
    assert!(left_out("NoStorage", 0, &[2, 2], &[2, 1]).contains("not known here"));
}

#[test]
fn damaged_pickles_are_refused() {
    refused(b"\x80\x06N.", "protocol");
    refused(b"\x80\x02", "ends too early");
    refused(b"0.", "takes more than it has put down");
    refused(b"t.", "a mark is missing");
    refused(b"}Nu.", "a mark is missing");
    refused(b"}(Nu.", "a key has no value");
    refused(b"N(NNu.", "no dict");
    refused(b"h\x05.", "has not kept");
    refused(b"\xff.", "opcode 0xff");
    refused(b"X\xff\xff\xff\0.", "ends too early");
    refused(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "more than 268435456 bytes");
}

#[test]
fn pickles_without_end_are_refused_in_bounded_memory() {
    refused(&b"(".repeat(1 << 17), "begins more than it ends");
    refused(&b"N".repeat((1 << 20) + 2), "its stack has no end");
    refused(&b"]0".repeat(3 << 20), "values take more than");
    // A list of itself, and a list of lists of lists, each twice: all are walked once.
    let mut doubled = b"]q\x00h\x00a".to_vec();
    doubled.extend(b"2\x86".repeat(40));
    doubled.push(b'.');
    assert!(from_bytes("test", archive(&doubled).into()).unwrap().tensors().is_empty());
    let deep = [&b"]".repeat(5000)[..], &b"a".repeat(4999), b"."].concat();
    let checkpoint = from_bytes("test", archive(&deep).into()).unwrap();
    assert!(checkpoint.notes[0].text.contains("deeper than"));
}

#[test]
fn a_name_longer_than_names_are_is_passed_over() {
    let long = [&b"\x80\x02X"[..], &70_000u32.to_le_bytes(), &b"x".repeat(70_000), b"."].concat();
    assert!(from_bytes("test", archive(&long).into()).unwrap().tensors().is_empty());
}

#[test]
fn files_cut_short_are_refused() {
    for name in ["views.pt", "views_legacy.pt", "malicious_legacy.pt", "big_endian.pt"] {
        let whole = fs::read(folder().join(name)).unwrap();
        for len in 0..whole.len() {
            let cut = from_bytes("cut", whole[..len].to_vec().into());
            assert!(cut.is_err(), "{name} cut to {len} bytes");
        }
    }
}

/// Lists and reads whatever the bytes are.
pub(super) fn survive(bytes: Vec<u8>) {
    let Ok(checkpoint) = from_bytes("flipped", bytes.into()) else { return };
    for (tensor_idx, tensor) in checkpoint.tensors().iter().enumerate() {
        for piece in checkpoint.pieces(tensor_idx, 4096).take(4) {
            let _ = checkpoint.read(&piece, &mut Vec::new(), &mut |chunk| {
                assert!(chunk.elements <= tensor.elements);
            });
        }
    }
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(
        file in prop::sample::select(vec!["views.pt", "views_legacy.pt", "malicious.pt", "module.pt"]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = fs::read(folder().join(file)).unwrap();
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        survive(bytes);
    }

    #[test]
    fn any_opcodes_never_panic(opcodes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(archive(&opcodes));
    }
}
