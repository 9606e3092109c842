//! Files that ONNX Runtime's optimisers and quantisers wrote: the MACs and parameters are those of
//! the model before. How they were made: `tests/data/onnxruntime/README.md`.
//!
//! Not here: files as PyTorch wrote them (`onnx.rs`).

use flopwise::cost;
use flopwise::graph::Graph;
use std::path::Path;

fn open(name: &str) -> Graph {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/onnxruntime"));
    flopwise::import::open(&folder.join(format!("{name}.onnx"))).expect(name)
}

/// MACs, parameters, bytes of parameters.
#[track_caller]
fn check(name: &str, expected: [u64; 3]) {
    let work = cost::work(&open(name));
    assert_eq!(work.unknown().next(), None, "{name}");
    let counts =
        [&work.total.macs.0, &work.parameters, &work.weight_bytes].map(ToString::to_string);
    assert_eq!(counts, expected.map(|count| count.to_string()), "{name}");
}

#[test]
fn optimised_files_count_as_before() {
    // 27*8*256 + 18*16*49 + 160 MACs; 216 + 8 + 288 + 16 + 160 + 10 parameters.
    check("cnn", [69_568, 698, 4 * 698]);
    check("cnn.ext", [69_568, 698, 4 * 698]);
    check("cnn.all", [69_568, 698, 4 * 698]);
    // Two layers: projections 4 * 16*32*32, attention 2 * 16*16*32, feed-forward 2 * 16*32*64; the
    // pooler's 32*32 is not used.
    check("bert", [294_912, 22_464, 4 * 22_464]);
    // It merges weights of equal value (biases of a model that is not trained), and looks the 64
    // positions of 32 up beforehand.
    check("bert.opt", [294_912, 19_776, 4 * 19_776]);
}

#[test]
fn quantised_files_count_as_before() {
    // Weights of one byte, biases of four.
    let bytes = 664 + 4 * 34;
    check("cnn.qdq", [69_568, 698, bytes]);
    check("cnn.qop", [69_568, 698, bytes]);
    check("cnn.dyn", [69_568, 698, bytes]);
    // 8 * 64*128 + 8 * 128*32 MACs; weights of half a byte.
    check("mm", [98_304, 12_288, 4 * 12_288]);
    check("mm.nbits", [98_304, 12_288, 12_288 / 2]);
}
