//! What models keep of a sequence: published bytes per token, masks, formats and pages.

use flopwise::arch::{self, Options};
use flopwise::cost::{self, Masking, Pass, Seen};
use flopwise::graph::{Bindings, Dim, Graph, StoredFormat};
use std::collections::BTreeMap;

fn config(more: &str) -> Graph {
    let text = format!(
        r#"{{"model_type": "llama", "hidden_size": 64, "intermediate_size": 16, "vocab_size": 10,
            "num_attention_heads": 4, "num_key_value_heads": 2, "torch_dtype": "bfloat16", {more}}}"#
    );
    arch::read("tiny", text.as_bytes(), &Options::whole()).expect("a config")
}

fn tiny() -> Graph {
    config(r#""num_hidden_layers": 3, "head_dim": 16"#)
}

fn value(dim: &Dim, seq: i128) -> i128 {
    let bound = ["seq", "context"].map(|name| (name.to_owned(), seq));
    let all: BTreeMap<String, i128> = bound.into_iter().chain([("batch".to_owned(), 1)]).collect();
    Bindings(all).evaluate(dim).expect("every symbol has a value")
}

#[test]
fn bytes_per_token_as_published() {
    // arXiv 2505.09343, table 1; 2 x 8 heads x 128 x 2 bytes x 32 layers.
    let check = |name: &str, expected: i128| {
        let Some(graph) = arch::built_in(name, &Options::whole()) else {
            panic!("{name} is not built in")
        };
        let kept = cost::kept(&graph.expect("what this test is made of"))
            .expect("what this test is made of");
        assert_eq!(value(&kept.per_token(), 1), expected, "{name}");
    };
    check("llama-3.1-405b", 516_096);
    check("llama-3.1-8b", 131_072);
    check("mixtral-8x7b", 131_072);
    check("deepseek-v3", 70_272);
}

#[test]
fn formats_take_their_scales_along() {
    // 3 layers of keys and values, 2 heads each, 16 elements a head.
    let check = |name: &str, expected: i128| {
        let mut graph = tiny();
        graph.cache_format = Some(name.parse::<StoredFormat>().expect("what this test is made of"));
        let kept = cost::kept(&graph).expect("what this test is made of");
        assert_eq!(value(&kept.per_token(), 1), expected, "{name}");
    };
    let heads = 3 * 2 * 2;
    check("bf16", heads * 16 * 2);
    check("fp8_e4m3", heads * 16);
    check("int8", heads * 16);
    check("int4", heads * 8);
    // A block of 16 under a byte; a block of 32 filled up.
    check("nvfp4", heads * 9);
    check("mxfp4", heads * 17);
    check("q8_0", heads * 34);
}

#[test]
fn decoding_reads_what_is_kept() {
    let decode = Masking { seen: Seen::AsFile, packed: Vec::new(), pass: Pass::Decode };
    let read = |format: Option<&str>, context: i128| {
        let options = Options { pass: Pass::Decode, mtp: 0 };
        let config = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 16,
            "vocab_size": 10, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "num_hidden_layers": 3, "torch_dtype": "bfloat16"}"#;
        let mut graph =
            arch::read("tiny", config.as_bytes(), &options).expect("what this test is made of");
        graph.cache_format = format.map(|name| name.parse().expect("what this test is made of"));
        let fixed = cost::apply_masking(&mut graph, &decode).expect("what this test is made of");
        let kept = cost::kept(&graph).expect("what this test is made of");
        let mut bound: BTreeMap<String, i128> = fixed.into_iter().collect();
        bound.extend([("batch".to_owned(), 1), ("context".to_owned(), context)]);
        let bound = Bindings(bound);
        let work = cost::work(&graph).bind(&graph, &bound).expect("what this test is made of");
        let state = bound.evaluate(&kept.per_sequence()).expect("what this test is made of");
        (work.total.bytes_read.0 as i128, work.total.bytes_written.0 as i128, state)
    };
    for format in [None, Some("fp8_e4m3"), Some("nvfp4"), Some("q8_0")] {
        let (short, long) = (read(format, 100), read(format, 1100));
        assert_eq!(long.0 - short.0, long.2 - short.2, "{format:?}: bytes read");
        assert_eq!(long.1, short.1, "{format:?}: bytes written");
        assert_eq!(long.2, short.2 * 11, "{format:?}: bytes kept");
        // Besides what is computed the new token is written in the format of the cache.
        let added = if format.is_some() { short.2 / 100 } else { 0 };
        assert_eq!(short.1 - read(None, 100).1, added, "{format:?}: the new token");
    }
}

#[test]
fn windows_and_chunks_keep_what_the_last_token_sees() {
    use flopwise::graph::Keeps;
    let check = |keeps: Keeps, context: i64, expected: i64| {
        assert_eq!(keeps.entries(&Dim::from(context)), Dim::from(expected), "{keeps:?} {context}");
    };
    check(Keeps::All, 10, 10);
    check(Keeps::Window(Dim::from(4i64)), 3, 3);
    check(Keeps::Window(Dim::from(4i64)), 10, 4);
    check(Keeps::Chunk(Dim::from(4i64)), 4, 4);
    check(Keeps::Chunk(Dim::from(4i64)), 5, 1);
    check(Keeps::Every(Dim::from(4i64)), 11, 2);
    check(Keeps::Other(Dim::from(1500i64)), 11, 1500);
    check(Keeps::Once, 11, 1);
}

/// Layers of (of how many tokens, bytes of an entry).
fn kept(layers: &[(flopwise::graph::Keeps, i64)], context: i64) -> cost::Kept {
    let bf16 = "bf16".parse::<StoredFormat>().expect("a format");
    let layer = |(at, (keeps, bytes)): (usize, &(flopwise::graph::Keeps, i64))| cost::KeptLayer {
        module: format!("layers.{at}").into(),
        what: "keys and values",
        keeps: keeps.clone(),
        format: bf16,
        entry_bytes: Dim::from(*bytes),
    };
    cost::Kept {
        sequences: Dim::ONE,
        context: Dim::from(context),
        layers: layers.iter().enumerate().map(layer).collect(),
    }
}

#[test]
fn pages_as_vllm_lays_them_out() {
    use flopwise::graph::Keeps;
    let check = |layers: &[(Keeps, i64)], context: i64, page: u64, expected: i64| {
        let paged = cost::paged(&kept(layers, context), page).expect("what this test is made of");
        assert_eq!(paged.per_sequence, Dim::from(expected), "{layers:?} {context} {page}");
    };
    let window = |keys: i64| Keeps::Window(Dim::from(keys));
    let (all, once) = (Keeps::All, Keeps::Once);
    // 17 tokens are two blocks of 16, in layers of different sizes too.
    check(&[(all.clone(), 100), (all.clone(), 100)], 17, 16, 2 * 32 * 100);
    check(&[(all.clone(), 100), (all.clone(), 60)], 17, 16, 32 * 160);
    // 100 tokens, a window of 20: 7 blocks less the 5 before token 80; one full layer to two of
    // windows is three groups of one.
    let gemma = [(all.clone(), 100), (window(20), 100), (window(20), 100)];
    check(&gemma, 100, 16, 1600 * (7 + 2 * (7 - 5)));
    // 4 of one kind and 5 of the other are two groups of 5, one of them filled up.
    let odd: Vec<(Keeps, i64)> =
        (0..9).map(|at| (if at < 4 { all.clone() } else { window(16) }, 10)).collect();
    check(&odd, 32, 16, 5 * 160 * (2 + (2 - 1)));
    // A recurrent state of 5000 bytes: attention of 100 bytes a token takes pages of 64 tokens.
    check(&[(all.clone(), 100), (once.clone(), 5000)], 65, 16, 6400 * (2 + 1));
    // A smaller kind takes more tokens into a page of the same bytes: 65 are 3 pages of 32, not 5.
    check(&[(all.clone(), 100), (window(1000), 50)], 65, 16, 1600 * (5 + 3));
    // Only recurrent states: nothing to page.
    check(&[(once.clone(), 5000), (once, 300)], 65, 16, 5300);
    let refused = cost::paged(&kept(&[(all, 100), (window(8), 30)], 64), 16);
    assert!(refused.is_err());
}

#[test]
fn exports_keep_what_their_causal_attentions_do() {
    // 4 layers, 8 heads of 64, fp32: an export, so read off its attentions.
    let mut graph = flopwise::query::open_model("llama_small").expect("what this test is made of");
    let seen = Masking { seen: Seen::Causal, ..Masking::as_file() };
    let before = cost::kept(&graph).map(|kept| value(&kept.per_token(), 1));
    if before.is_none() {
        cost::apply_masking(&mut graph, &seen).expect("what this test is made of");
    }
    let kept = cost::kept(&graph).expect("what this test is made of");
    assert_eq!(kept.layers.len(), 4);
    let decode = Masking { seen: Seen::AsFile, packed: Vec::new(), pass: Pass::Decode };
    let mut decoded =
        flopwise::query::open_model("llama_small").expect("what this test is made of");
    cost::apply_masking(&mut decoded, &decode).expect("what this test is made of");
    let decoded = cost::kept(&decoded).expect("what this test is made of");
    assert_eq!(value(&kept.per_token(), 1), value(&decoded.per_token(), 1));
    assert_eq!(value(&kept.per_sequence(), 77), value(&decoded.per_sequence(), 77));
    // A network that generates nothing keeps nothing.
    for model in ["resnet50", "bert_base", "vit_b_16"] {
        assert!(
            cost::kept(&flopwise::query::open_model(model).expect("what this test is made of"))
                .is_none(),
            "{model}"
        );
    }
}

#[test]
fn active_parameters() {
    let check = |name: &str, expected: [u128; 2]| {
        let graph = arch::built_in(name, &Options::whole())
            .expect("what this test is made of")
            .expect("what this test is made of");
        let active = cost::active(&graph, &cost::work(&graph)).expect("what this test is made of");
        let found = [&active.parameters, &active.without_embedding];
        assert_eq!(
            found.map(|dim| dim.as_constant().expect("what this test is made of") as u128),
            expected,
            "{name}"
        );
    };
    // 46.7 B with 6 of 8 experts at rest in 32 layers: 3 x 14336 x 4096 each.
    let rest = 32 * 6 * 3 * 14336 * 4096;
    check("mixtral-8x7b", [46_702_792_704 - rest, 46_702_792_704 - rest - 32000 * 4096]);
    check("llama-3.1-8b", [8_030_261_248, 8_030_261_248 - 128_256 * 4096]);
    let published = |name: &str, billions: f64, is_without: bool| {
        let graph = arch::built_in(name, &Options::whole())
            .expect("what this test is made of")
            .expect("what this test is made of");
        let active = cost::active(&graph, &cost::work(&graph)).expect("what this test is made of");
        let found = if is_without { active.without_embedding } else { active.parameters };
        let found = found.as_constant().expect("what this test is made of") as f64 / 1e9;
        assert!((found - billions).abs() < 0.005, "{name}: {found}");
    };
    // The model card of gpt-oss, table 1; it leaves the input embedding out.
    published("gpt-oss-120b", 5.13, true);
    published("deepseek-v3", 37.55, false);
}
