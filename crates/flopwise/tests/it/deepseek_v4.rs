//! DeepSeek-V4 against transformers: weights and multiply-accumulates of small models, what decoding
//! one token takes, the sizes of the published models, and what is said of a config that is wrong.
//!
//! Where transformers and the exact count differ: its eager attention computes every pair of a query
//! with every key and every entry, and masks afterwards; its indexer adds up the heads' scores
//! element by element, which PyTorch's FlopCounterMode does not see, while here that sum is one
//! multiply-accumulate per score.

use crate::architectures::{Case, bindings, built, cases};
use flopwise::arch::{self, Options};
use flopwise::cost::{self, Masking, Seen};
use flopwise::graph::{Bindings, Graph, Keeps, Pass};
use serde_json::Value;
use std::collections::BTreeMap;

const FILE: &str = "deepseek_v4.json";

/// The layers of a case: tokens of an entry, and whether an indexer chooses.
fn layers(config: &Value) -> Vec<Option<(i64, bool)>> {
    let number = |field: &str| config[field].as_i64();
    let listed = |kind: &str| config["compress_rates"][kind].as_i64();
    let sparse = listed("compressed_sparse_attention").or(number("compress_rate_csa")).unwrap_or(4);
    let heavy =
        listed("heavily_compressed_attention").or(number("compress_rate_hca")).unwrap_or(128);
    let n_layers = number("num_hidden_layers").expect("a number") as usize;
    let of = |layer_idx: usize| {
        let ratio = config["compress_ratios"][layer_idx].as_i64();
        let kind = config["layer_types"][layer_idx].as_str();
        match (ratio, kind) {
            (Some(0), _) | (_, Some("sliding_attention")) => None,
            (Some(4), _) | (_, Some("compressed_sparse_attention")) => Some((sparse, true)),
            (Some(_), _) | (_, Some(_)) => Some((heavy, false)),
            (None, None) => match 2 < layer_idx && layer_idx % 2 == 1 {
                true => Some((sparse, true)),
                false => Some((heavy, false)),
            },
        }
    };
    (0..n_layers).map(of).collect()
}

fn total(graph: &mut Graph, masking: &Masking, bound: &Bindings) -> i128 {
    cost::apply_masking(graph, masking).expect("a masking of a decoder");
    cost::work(graph).bind(graph, bound).expect("sizes").total.macs.0 as i128
}

/// (multiply-accumulates of a pair in all heads, those of an index score, keys in a window, entries
/// chosen at most).
fn sizes(config: &Value) -> [i64; 4] {
    let number = |field: &str| config[field].as_i64().expect("a number");
    let pair = 2 * number("num_attention_heads") * number("head_dim");
    let score = number("index_n_heads") * (number("index_head_dim") + 1);
    [pair, score, number("sliding_window"), number("index_topk")]
}

fn check_whole(case: &Case) {
    let oracle = i128::from(case.row["macs"].as_i64().expect("a count"));
    let bound = bindings(&case.row);
    let (batch, seq) = (bound.0["batch"] as i64, bound.0["seq"] as i64);
    let [pair, score, window, best] = sizes(&case.config);
    let heads = case.config["index_n_heads"].as_i64().expect("a number");
    // What the sum over the indexer's heads adds, and what the masks take away, query by query.
    let (mut sums, mut masked) = (0, 0);
    for layer in layers(&case.config) {
        for end in 1..=seq {
            masked += (seq - end.min(window)) * pair;
            let Some((tokens, is_chosen)) = layer else { continue };
            let (all, complete) = (seq / tokens, end / tokens);
            let seen = if is_chosen { complete.min(best) } else { complete };
            masked += (all - seen) * pair;
            if is_chosen {
                sums += all * heads;
                masked += (all - complete) * score;
            }
        }
    }
    let all = Masking { seen: Seen::All, ..Masking::as_file() };
    let every = oracle + i128::from(batch * sums);
    assert_eq!(total(&mut built(case), &all, &bound), every, "{}", case.name);
    let exact = every - i128::from(batch * masked);
    assert_eq!(total(&mut built(case), &Masking::as_file(), &bound), exact, "{}", case.name);
}

#[test]
fn weights_and_macs_are_those_of_transformers() {
    for case in cases(FILE) {
        check_whole(&case);
    }
}

/// The count of one token decoded after `context - 1` others in each of two sequences. transformers
/// trims its window, and computes the scores of all entries.
fn check_decoded(name: &str, context: i64, oracle: i128) {
    let all = cases(FILE);
    let case = all.iter().find(|case| case.name == name).expect("a case");
    let options = Options { pass: Pass::Decode, ..Options::whole() };
    let text = case.config.to_string();
    let mut graph = arch::read(name, text.as_bytes(), &options).expect("a graph");
    let [pair, _, _, best] = sizes(&case.config);
    let heads = case.config["index_n_heads"].as_i64().expect("a number");
    let of_layer = |layer: Option<(i64, bool)>| match layer {
        Some((tokens, true)) => {
            let entries = context / tokens;
            entries * heads - (entries - entries.min(best)) * pair
        }
        Some((_, false)) | None => 0,
    };
    let differs: i64 = layers(&case.config).into_iter().map(of_layer).sum();
    let sizes = [("batch", 2), ("seq", 1), ("context", i128::from(context))];
    let bound = Bindings(sizes.map(|(name, size)| (name.to_owned(), size)).into());
    let masking = Masking { pass: Pass::Decode, ..Masking::as_file() };
    let found = total(&mut graph, &masking, &bound);
    assert_eq!(found, oracle + i128::from(2 * differs), "{name} at {context}");
    assert_eq!(cost::work(&graph).unknown().count(), 0, "{name}");
}

#[test]
fn decoding_takes_what_transformers_takes() {
    // FlopCounterMode over one further token of each case, behind a `DynamicCache` of the others.
    for (context, oracle) in
        [(1, 406_176), (5, 420_320), (28, 434_528), (130, 481_696), (256, 541_856)]
    {
        check_decoded("deepseek_v4, ratios", context, oracle);
    }
    for (context, oracle) in
        [(1, 383_424), (5, 396_640), (28, 405_280), (130, 429_248), (256, 459_712)]
    {
        check_decoded("deepseek_v4, ratios, short", context, oracle);
    }
    for (context, oracle) in
        [(1, 487_872), (5, 504_160), (28, 527_712), (130, 602_272), (256, 696_544)]
    {
        check_decoded("deepseek_v4, alternating", context, oracle);
    }
    for (context, oracle) in
        [(1, 406_176), (5, 422_176), (28, 449_824), (130, 554_464), (256, 683_680)]
    {
        check_decoded("deepseek_v4, listed", context, oracle);
    }
    for (context, oracle) in
        [(1, 163_936), (5, 168_608), (28, 196_384), (130, 287_328), (256, 309_344)]
    {
        check_decoded("deepseek_v4, other sizes", context, oracle);
    }
    for (context, oracle) in
        [(1, 182_496), (5, 188_640), (28, 190_176), (130, 190_176), (256, 190_176)]
    {
        check_decoded("deepseek_v4, windows alone", context, oracle);
    }
}

#[test]
fn states_are_windows_and_entries() {
    // deepseek-v4-flash: 43 windows of 128 latents of 512, 21 layers with an entry for 4 tokens and
    // an index key of 128 beside it, 20 with an entry for 128.
    let graph = arch::built_in("deepseek-v4-flash", &Options::whole());
    let graph = graph.expect("a name").expect("a graph");
    let mut found: BTreeMap<(&str, String), (usize, i128)> = BTreeMap::new();
    for state in graph.states.iter().filter(|state| state.keeps != Keeps::Once) {
        let elements = state.elements.as_constant().expect("a number");
        let entry = found.entry((state.what, state.keeps.words())).or_default();
        *entry = (entry.0 + 1, elements);
    }
    let check = |what: &'static str, keeps: &str, expected: (usize, i128)| {
        assert_eq!(found.get(&(what, keeps.to_owned())), Some(&expected), "{what}, {keeps}");
    };
    check("keys", "window of 128", (43, 512));
    check("compressed keys", "one for 4 tokens", (21, 512));
    check("compressed keys", "one for 128 tokens", (20, 512));
    check("index keys", "one for 4 tokens", (21, 128));
    assert_eq!(found.len(), 4);
}

#[test]
fn published_models_have_their_sizes() {
    // transformers 5.23 on the `meta` device; 284 B and 1.57 T are the published roundings (MaxText
    // `deepseek4-284b`; onnx-tool's table).
    let check = |name: &str, expected: i128, published: (f64, f64)| {
        let graph = arch::built_in(name, &Options::whole()).expect("a name").expect("a graph");
        let parameters = cost::work(&graph).parameters.as_constant();
        assert_eq!(parameters, Some(expected), "{name}");
        let (rounded, half_digit) = published;
        assert!((expected as f64 - rounded).abs() <= half_digit, "{name}");
    };
    check("deepseek-v4-flash", 284_332_230_231, (284e9, 0.5e9));
    check("deepseek-v4-pro", 1_572_997_179_491, (1.57e12, 0.005e12));
}

#[test]
fn a_field_that_is_wrong_is_named() {
    let check = |field: &str, value: &str, expected: &str| {
        let mut config = cases(FILE)[0].config.clone();
        config[field] = serde_json::from_str(value).expect("JSON");
        let found = arch::read("wrong", config.to_string().as_bytes(), &Options::whole());
        let found = found.expect_err(field).to_string();
        assert!(found.contains(expected), "{field} {value}: {found}");
    };
    for (field, value) in [
        ("num_hidden_layers", "1000000000000"),
        ("num_attention_heads", "0"),
        ("head_dim", "null"),
        ("q_lora_rank", "\"many\""),
        ("num_key_value_heads", "2"),
        ("o_groups", "5"),
        ("o_groups", "0"),
        ("o_lora_rank", "null"),
        ("qk_rope_head_dim", "64"),
        ("qk_rope_head_dim", "7"),
        ("partial_rotary_factor", "1.5"),
        ("index_head_dim", "4"),
        ("index_topk", "0"),
        ("sliding_window", "0"),
        ("hc_mult", "-1"),
        ("hc_sinkhorn_iters", "0"),
        ("compress_ratios", "[0, 4, 128]"),
        ("compress_ratios", "[0, 4, 128, 8]"),
        ("compress_ratios", "[0, 4, 128, -4]"),
        ("compress_rate_csa", "0"),
        ("layer_types", "[\"full_attention\", \"x\", \"y\", \"z\"]"),
        ("mlp_layer_types", "[\"moe\"]"),
        ("mlp_layer_types", "[\"moe\", \"moe\", \"sparse\", \"moe\"]"),
        ("num_hash_layers", "-1"),
        ("scoring_func", "\"tanh\""),
        ("hidden_act", "\"snake\""),
        ("n_shared_experts", "2"),
        ("moe_intermediate_size", "null"),
        ("n_routed_experts", "2.5"),
    ] {
        check(field, value, &format!("`{field}`"));
    }
    check("compress_rates", "{\"heavily_compressed_attention\": 8}", "compressed_sparse_attention");
    check("num_experts_per_tok", "9", "9 of 8 experts");
    check("hc_mult", "200000000", "model");
}
