//! What a model keeps in memory, and audits of published rates, through the command line.

use crate::run::flopwise;
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    let ran = flopwise(args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("the program writes JSON")
}

fn line<'t>(text: &'t str, start: &str) -> &'t str {
    let found = text.lines().find(|line| line.trim_start().starts_with(start));
    found.unwrap_or_else(|| panic!("no line starts with {start}:\n{text}"))
}

#[test]
fn the_cache_is_a_fact_of_the_count() {
    let ran = flopwise(&["count", "llama-3.1-8b", "--bind", "batch=1,seq=8192"]);
    assert_eq!(
        line(&ran.stdout, "KV cache"),
        "  KV cache              131,072 B per token      1.000 GiB for 1 sequence of 8192"
    );
    let ran = flopwise(&["count", "resnet50"]);
    assert!(!ran.stdout.contains("KV cache"), "{}", ran.stdout);
    let ran = flopwise(&["count", "llama-3.1-8b", "--explain"]);
    line(&ran.stdout, "state per token = 32 layers of keys and values as bf16");
}

#[test]
fn decoding_says_what_a_token_reads() {
    let note = |model: &str| {
        let ran = flopwise(&["count", model, "--mode", "decode", "--bind", "context=100"]);
        ran.stdout + &ran.stderr
    };
    let check = |model: &str, expected: &str| {
        let found = note(model);
        assert!(found.contains(expected), "{model}: {found}");
    };
    check("llama-3.1-8b", "against a KV cache of 131072*batch bytes per token of context");
    check("mamba-2.8b", "bytes, which each pass reads and writes; nothing grows with the context");
    check("bert-base-uncased", "is an encoder: each token sees all others");
    check("clip-vit-base-patch32", "86 products, the first `vision_model");
    let ran = flopwise(&["count", "t5-small"]);
    assert!(ran.stdout.contains("seq=128, target_seq=128 (assumed"), "{}", ran.stdout);
}

#[test]
fn the_cache_in_other_formats_and_in_pages() {
    let state = |args: &[&str]| {
        let all = [&["count", "llama-3.1-8b", "--json"], args].concat();
        json(&all)["state"].clone()
    };
    let plain = state(&["--bind", "batch=2,seq=100"]);
    assert_eq!(plain["bytes_per_token"], 131_072);
    assert_eq!(plain["bytes_per_sequence"], 13_107_200);
    assert_eq!(plain["bytes"], 26_214_400);
    assert_eq!(plain["parts"][0]["what"], "keys and values");
    assert!(plain["paged"].is_null());
    let paged = state(&["--bind", "seq=100", "--kv-page", "16"]);
    assert_eq!(paged["paged"]["bytes_per_sequence"], 112 * 131_072);
    let decoded = state(&["--mode", "decode", "--bind", "context=100", "--kv-format", "q8_0"]);
    // 34 bytes for 32 elements.
    assert_eq!(decoded["bytes_per_sequence"], 13_107_200 / 2 * 34 / 32);
    let ran = flopwise(&["count", "llama-3.1-8b", "--kv-format", "fp9"]);
    assert_eq!((ran.code, ran.stderr.lines().count() < 8), (2, true), "{}", ran.stderr);
    let ran = flopwise(&["count", "llama-3.1-8b", "--kv-page", "0"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn weights_in_every_format() {
    let report = json(&["count", "llama-3.1-8b", "--bind", "seq=8192", "--memory", "--json"]);
    let memory = &report["memory"];
    assert_eq!(memory["state_bytes"], 1 << 30);
    let bytes = |format: &str| {
        let rows = memory["rows"].as_array().expect("rows").iter();
        let mut found = rows.filter(|row| row["format"] == format);
        found.next().expect(format)["weight_bytes"].as_u64().expect("bytes")
    };
    assert_eq!(bytes("bf16"), report["totals"]["weight_bytes"].as_u64().expect("bytes"));
    // 65 norms of 4096 stay in bf16; everything else is matrices.
    let matrices = 8_030_261_248 - 65 * 4096;
    let norms = 65 * 4096 * 2;
    assert_eq!(bytes("fp8_e4m3"), matrices + norms);
    assert_eq!(bytes("mxfp4"), matrices / 32 * 17 + norms);
    // 4 bits each, and 20 bits for 128.
    let grouped = bytes("int4 g128 with zero points (GPTQ, AWQ)");
    assert_eq!(grouped, matrices / 128 * 532 / 8 + norms);
    let same = json(&["count", "llama-3.1-8b", "--weights", "q4_k", "--json"]);
    assert_eq!(bytes("q4_k (GGUF)"), same["totals"]["weight_bytes"].as_u64().expect("bytes"));
}

#[test]
fn experts_at_rest_are_not_active() {
    let report = json(&["count", "mixtral-8x7b", "--json"]);
    assert_eq!(report["active"]["parameters"], 12_879_925_248u64);
    let ran = flopwise(&["count", "mixtral-8x7b"]);
    assert!(line(&ran.stdout, "active per token").contains("12,879,925,248"));
    assert!(json(&["count", "resnet50", "--json"])["active"].is_null());
}

#[test]
fn a_published_rate_is_audited() {
    let claim = |tflops: &str, more: &[&str]| {
        let rates = ["--tokens-per-second-per-gpu", "968", "--tflops-per-gpu", tflops];
        let model = ["audit", "--model", "llama-3.1-405b", "--bind", "seq=8192"];
        flopwise(&[&model, rates.as_slice(), more].concat())
    };
    let ran = claim("2,443", &["--gpu-peak-tflops", "4,900"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout);
    let ran = claim("1000", &[]);
    assert_eq!(ran.code, 1);
    assert!(line(&ran.stdout, "explained by").contains("none does"), "{}", ran.stdout);
    let ran = claim("2443", &["--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).expect("the program writes JSON");
    assert_eq!(report["kind"], "audit");
    assert_eq!(report["explained_by"], "model FLOPs");
    assert_eq!(report["tokens"], 8192);
    for (wrong, says) in [("-5", "--tflops-per-gpu"), ("0", "no rate"), ("1e9", "no rate")] {
        let ran = claim(wrong, &[]);
        assert_eq!(ran.code, 2, "{wrong}");
        assert!(ran.stderr.contains(says) || ran.stderr.contains("unexpected"), "{}", ran.stderr);
    }
    let ran = flopwise(&[
        "audit",
        "--model",
        "resnet50",
        "--tokens-per-second-per-gpu",
        "1",
        "--tflops-per-gpu",
        "1",
    ]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{}", ran.stderr);
}
