//! Initialisers written by the ONNX library (`tools/make_checkpoint_files.py`), and broken ones.

use super::torch_tests::{check, survive};
use super::*;
use proptest::prelude::*;
use std::fs;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tensors/checkpoints").join(name)
}

#[test]
fn every_data_type_is_read_raw_and_from_lists() {
    assert_eq!(check("initializers.onnx").kind, Kind::Onnx);
}

#[test]
fn external_data_is_read_from_the_folder() {
    let checkpoint = check("external.onnx");
    assert_eq!(checkpoint.files.len(), 2, "one file of data is opened once");
    let bytes = fs::read(file("external.onnx")).unwrap();
    let alone = from_bytes("external", bytes.clone().into()).unwrap();
    let why = alone.tensors()[0].unread.as_ref().unwrap();
    assert!(why.contains("external.data"), "{why}");

    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("external.onnx");
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(&model, bytes).unwrap();
        let error = open(&model).unwrap_err().to_string();
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    };
    refused(&bytes, "cannot be opened");
    fs::write(folder.path().join("external.data"), [0; 50]).unwrap();
    refused(&bytes, "`external.data`, which has 50");
    fs::write(folder.path().join("external.data"), [0; 72]).unwrap();
    open(&model).unwrap();
    let elsewhere = String::from_utf8_lossy(&bytes).contains("external.data");
    assert!(elsewhere);
    let replace = |with: &[u8; 13]| {
        let mut changed = bytes.clone();
        let at = changed.windows(13).position(|window| window == b"external.data").unwrap();
        changed[at..at + 13].copy_from_slice(with);
        changed
    };
    refused(&replace(b"/etc/password"), "outside the model's folder");
    refused(&replace(b"../ernal.data"), "outside the model's folder");
}

#[test]
fn a_model_cut_short_is_refused() {
    let whole = fs::read(file("initializers.onnx")).unwrap();
    for len in 0..whole.len() {
        survive(whole[..len].to_vec());
    }
    assert!(from_bytes("cut", whole[..whole.len() / 2].to_vec().into()).is_err());
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = fs::read(file("initializers.onnx")).unwrap();
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        survive(bytes);
    }
}
