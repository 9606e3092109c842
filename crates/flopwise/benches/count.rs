//! How far importing and counting is from the least work any reader of the file must do.
//!
//! For a .pt2 archive that is inflating it and scanning its JSON once; for .onnx reading each byte
//! once; for a model built from its config writing the name of each node and tensor once. Both run in
//! turn, so that their ratio holds when the machine's speed drifts.
//!
//! `cargo bench -p flopwise`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use bytes::Bytes;
use flopwise::arch::Options;
use flopwise::{cost, import, query};
use std::fs;
use std::hint::black_box;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Instant;

const N_ROUNDS: usize = 41;

fn main() {
    println!("{:<36} {:>10} {:>10} {:>7}", "file", "count", "limit", "ratio");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["data/models", "tests/data/onnx"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        // Tables and the collection of image networks lie beside them.
        let is_model =
            |path: &Path| path.extension().is_some_and(|kind| kind == "pt2" || kind == "onnx");
        paths.retain(|path| is_model(path));
        paths.sort();
        for path in paths {
            compare(&path);
        }
    }
    for name in ["llama-3.1-8b", "llama-3.1-405b", "deepseek-v3", "glm-5", "kimi-k3"] {
        compare_built(name);
    }
}

/// A graph built from its config, counted, beside the names in it copied once.
fn compare_built(name: &str) {
    let build = || query::open_model_as(name, &Options::whole()).unwrap();
    let graph = build();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..N_ROUNDS {
        times[0].push(seconds(|| {
            black_box(cost::work(&build()));
        }));
        times[1].push(seconds(|| {
            let nodes = graph.nodes.iter().map(|node| node.name.clone());
            let tensors = graph.tensors.iter().map(|tensor| tensor.name.clone());
            black_box(nodes.chain(tensors).collect::<Vec<String>>());
        }));
    }
    print_row(name, times);
}

fn compare(path: &Path) {
    let file = Bytes::from(fs::read(path).unwrap());
    let is_archive = file.starts_with(b"PK");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..N_ROUNDS {
        times[0].push(seconds(|| {
            let graph = import::from_bytes("bench", file.clone(), Path::new("")).unwrap();
            black_box(cost::work(&graph));
        }));
        times[1].push(seconds(|| match is_archive {
            true => scan_json(&file),
            false => read_bytes(&file),
        }));
    }
    print_row(&path.file_name().unwrap().to_string_lossy(), times);
}

fn print_row(name: &str, times: [Vec<f64>; 2]) {
    let [count, limit] = times.map(median);
    let ratio = count / limit;
    println!("{name:<36} {:>7.2} ms {:>7.2} ms {ratio:>7.1}", count * 1e3, limit * 1e3);
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn scan_json(file: &[u8]) {
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).unwrap();
    for member_idx in 0..archive.len() {
        let mut member = archive.by_index(member_idx).unwrap();
        let mut json = Vec::new();
        member.read_to_end(&mut json).unwrap();
        let _ = black_box(serde_json::from_slice::<serde::de::IgnoredAny>(&json));
    }
}

fn read_bytes(file: &[u8]) {
    black_box(file.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
}
