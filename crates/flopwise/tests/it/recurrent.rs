//! State spaces, linear attention and hybrids: weights as transformers has them, products against
//! what its PyTorch path runs, named models against published sizes, and Megatron's published
//! figures.

use crate::architectures::{bindings, built, cases};
use flopwise::arch::{self, Options};
use flopwise::cost::convention::Convention;
use flopwise::cost::{self, Masking, Seen};
use flopwise::graph::{Bindings, Graph, Keeps, Node, Op, Pass};
use flopwise::query::{Conventions, CountQuery, Query, Working, answer};
use flopwise::report::Report;
use serde_json::Value;
use std::collections::BTreeMap;

/// Chunks of the PyTorch path of the delta rules, whatever the config says.
const DELTA_CHUNK: u64 = 64;

fn lengths(graph: &Graph, node: &Node, input_idx: usize, bound: &Bindings) -> Vec<u64> {
    let shape = &graph.tensor(node.inputs[input_idx]).tensor_type.as_ref().expect("a type").shape.0;
    let value = |name: &str| bound.0.get(name).copied();
    shape.iter().map(|length| length.evaluate(&value).expect("bound") as u64).collect()
}

/// Multiply-accumulates that FlopCounterMode sees of a recurrence in transformers' PyTorch path,
/// which is written for any machine: it pads to whole chunks, computes every pair of a chunk and
/// not only the causal ones, repeats groups for each head, and does elementwise what kernels do as
/// products.
fn recurrence_in_pytorch(
    graph: &Graph,
    node: &Node,
    bound: &Bindings,
    config: &Value,
) -> Option<u64> {
    let Op::Stated(stated) = &node.op else { return None };
    let shape = |input_idx| lengths(graph, node, input_idx, bound);
    Some(match stated.name {
        // `C h` at each step (mamba_selective_scan).
        "selective_scan" => shape(0).iter().product::<u64>() * shape(2)[2],
        // mamba2_chunk_scan: per head C B^T and its product with X, the states of chunks, the
        // states handed on (a product over pairs of chunks), and C h.
        "state_space_duality" => {
            let [batch, seq, heads, size] = shape(0)[..] else { panic!("x has four axes") };
            let state = shape(2)[3];
            let field =
                if config["mamba_chunk_size"].is_u64() { "mamba_chunk_size" } else { "chunk_size" };
            let chunk = config[field].as_u64().expect("a chunk");
            let chunks = seq.div_ceil(chunk);
            let pairs = chunks * chunk * chunk;
            let states = heads * size * state;
            let across = 2 * chunks * chunk * states + (chunks + 1) * (chunks + 1) * states;
            batch * (pairs * heads * (state + size) + across)
        }
        // torch_chunk_gated_delta_rule: keys with keys and queries with keys, then per chunk three
        // products with the state and one within; the triangular system is solved, which is not
        // seen.
        "gated_delta_rule" => {
            let [batch, seq, heads, value] = shape(2)[..] else { panic!("values have four axes") };
            let key = shape(0)[3];
            let tokens = seq.div_ceil(DELTA_CHUNK) * DELTA_CHUNK;
            batch * heads * tokens * (DELTA_CHUNK * (2 * key + value) + 3 * key * value)
        }
        // chunk_kimi_delta_attention: scores are sums of elementwise products; the inverse times
        // values and times keys, three products with the state and one within.
        "kimi_delta_rule" => {
            let [batch, seq, heads, size] = shape(2)[..] else { panic!("values have four axes") };
            let tokens = seq.div_ceil(DELTA_CHUNK) * DELTA_CHUNK;
            batch * heads * tokens * (DELTA_CHUNK * 3 * size + 3 * size * size)
        }
        // MiniMaxLightningAttention: within each block every pair twice, and two products with the
        // state.
        "lightning_attention" => {
            let [batch, seq, heads, size] = shape(0)[..] else { panic!("queries have four axes") };
            let block = config["block_size"].as_u64().expect("a block");
            let (whole, rest) = (seq / block, seq % block);
            let pairs = whole * block * block + rest * rest;
            batch * heads * (2 * pairs * size + 2 * seq * size * size)
        }
        _ => 0,
    })
}

/// The short convolutions pad at both ends and cut the end off again.
fn convolution_in_pytorch(graph: &Graph, node: &Node, bound: &Bindings) -> Option<u64> {
    let Op::Convolution(_) = node.op else { return None };
    let input = lengths(graph, node, 0, bound);
    let kernel = lengths(graph, node, 1, bound)[2];
    Some(input[0] * input[1] * kernel * (input[2] + kernel - 1))
}

#[test]
fn weights_and_products_are_those_of_transformers() {
    let mut n_run = 0;
    for case in cases("recurrent.json") {
        let mut graph = built(&case);
        let Some(macs) = case.row["macs"].as_u64() else { continue };
        n_run += 1;
        let full = Masking { seen: Seen::All, ..Masking::as_file() };
        cost::apply_masking(&mut graph, &full).expect("what this test is made of");
        let bound = bindings(&case.row);
        let whole = cost::work(&graph).bind(&graph, &bound).expect("what this test is made of");
        let mut expected = whole.total.macs.0 as u64;
        for (id, counts) in &whole.nodes {
            let node = &graph.nodes[id.0];
            let other = recurrence_in_pytorch(&graph, node, &bound, &case.config)
                .or_else(|| convolution_in_pytorch(&graph, node, &bound));
            if let Some(other) = other {
                expected = expected
                    - counts.as_ref().expect("what this test is made of").macs.0 as u64
                    + other;
            }
        }
        assert_eq!(expected, macs, "{}", case.name);
    }
    assert_eq!(n_run, 28);
}

/// The products of Mamba-2 by going through the chunks of a sequence pair by pair (arXiv
/// 2405.21060, section 6), per layer of one sequence.
fn chunked_by_hand([heads, size, groups, state, chunk]: [u64; 5], seq: u64) -> u64 {
    let mut macs = 0;
    for token in 0..seq {
        for _before in (token / chunk * chunk)..=token {
            macs += groups * state + heads * size;
        }
        macs += 2 * heads * size * state;
    }
    macs
}

fn read(config: &str, pass: Pass) -> Graph {
    let options = Options { pass, ..Options::whole() };
    arch::read("test", config.as_bytes(), &options).expect("a model")
}

fn scan_macs(graph: &Graph, seq: i128) -> u64 {
    let bound = Bindings(BTreeMap::from([("batch".into(), 1), ("seq".into(), seq)]));
    let work = cost::work(graph).bind(graph, &bound).expect("bound");
    let scan = |node: &Node| matches!(&node.op, Op::Stated(op) if op.name == "state_space_duality");
    let of_scans = work.nodes.iter().filter(|(id, _)| scan(&graph.nodes[id.0]));
    of_scans.map(|(_, counts)| counts.as_ref().expect("counts").macs.0 as u64).sum()
}

const SMALL_MAMBA2: &str = r#"{"model_type": "mamba2", "hidden_size": 64, "num_heads": 8, "head_dim": 16,
    "n_groups": 2, "state_size": 12, "chunk_size": 8, "num_hidden_layers": 1, "vocab_size": 10,
    "torch_dtype": "float32"}"#;

#[test]
fn chunks_are_causal_to_the_token() {
    let graph = read(SMALL_MAMBA2, Pass::Whole);
    for seq in [1, 2, 7, 8, 9, 16, 21] {
        let expected = chunked_by_hand([8, 16, 2, 12, 8], seq);
        assert_eq!(scan_macs(&graph, i128::from(seq)), expected, "{seq}");
    }
    // One token more: the outer product that is added to the state, and C h.
    let decoded = read(SMALL_MAMBA2, Pass::Decode);
    assert_eq!(scan_macs(&decoded, 1), 2 * 8 * 16 * 12);
}

fn named(name: &str, options: &Options) -> Graph {
    arch::built_in(name, options).unwrap_or_else(|| panic!("no {name}")).expect("a model")
}

#[track_caller]
fn check_parameters(name: &str, expected: u64) {
    let graph = named(name, &Options::whole());
    let work = cost::work(&graph);
    assert_eq!(work.parameters.to_string(), expected.to_string(), "{name}");
    assert_eq!(work.unknown().count(), 0, "{name}");
}

/// Parameters that transformers 5.23 builds on the meta device of the same fields.
#[test]
fn named_models_have_the_parameters_of_transformers() {
    for (name, parameters) in PARAMETERS {
        check_parameters(name, *parameters);
    }
}

const PARAMETERS: &[(&str, u64)] = &[
    ("mamba-130m", 129_135_360),
    ("mamba-370m", 371_516_416),
    ("mamba-790m", 793_204_224),
    ("mamba-1.4b", 1_372_178_432),
    ("mamba-2.8b", 2_768_345_600),
    ("nemotron-h-56b", 56_324_350_464),
    ("nvidia-nemotron-3-nano-30b-a3b-bf16", 31_577_937_344),
    ("nvidia-nemotron-3-super-120b-a12b-fp8", 120_668_687_360),
    ("nemotron-h-47b", 46_791_554_816),
    ("nemotron-h-8b", 8_100_852_736),
    ("nemotron-nano-9b-v2", 8_888_227_328),
    ("nemotron-nano-12b-v2", 12_310_001_152),
    ("qwen3.5-35b-a3b", 34_660_610_688),
    ("qwen3.5-397b-a17b", 396_346_350_336),
    ("qwen3-next-80b-a3b", 79_674_391_296),
    ("mamba2-130m", 128_989_632),
    ("mamba2-370m", 368_346_624),
    ("mamba2-780m", 780_161_280),
    ("mamba2-1.3b", 1_343_757_312),
    ("mamba2-2.7b", 2_702_599_680),
    ("falcon-mamba-7b", 7_272_665_088),
    ("jamba-v0.1", 51_570_323_328),
    ("minimax-text-01", 456_089_655_296),
    ("rwkv-4-169m", 169_342_464),
    ("rwkv-4-430m", 430_397_440),
    ("rwkv-4-1b5", 1_515_106_304),
    ("rwkv-4-3b", 2_984_627_200),
    ("rwkv-4-7b", 7_392_649_216),
    ("rwkv-4-14b", 14_148_597_760),
    ("recurrentgemma-2b", 2_682_862_080),
    ("lfm2-350m", 354_483_968),
    ("lfm2-700m", 742_489_344),
    ("lfm2-1.2b", 1_170_340_608),
];

#[track_caller]
fn check_state(name: &str, bytes: i128) {
    let graph = named(name, &Options::whole());
    let kept = graph.states.iter().filter(|state| state.keeps == Keeps::Once);
    let bits = kept.map(|state| {
        state.elements.as_constant().expect("a number") * i128::from(state.format.bits)
    });
    assert_eq!(bits.sum::<i128>(), 8 * bytes, "{name}");
}

/// Bytes per sequence: the state in float32, and of the convolution's channels the last `kernel -
/// 1` elements in bfloat16 (mamba-130m: 24 x 1536 x (16 x 4 + 3 x 2)).
#[test]
fn states_of_fixed_size() {
    check_state("mamba-130m", 2_580_480);
    check_state("mamba-2.8b", 22_937_600);
    check_state("nemotron-h-56b", 912_605_184);
    // 30 layers of 32 x 128 x 128 in float32 and 8192 channels x 3 in bfloat16.
    check_state("qwen3.5-35b-a3b", 30 * (32 * 128 * 128 * 4 + 8192 * 3 * 2));
    // 10 layers of 2048 channels x 2 in bfloat16.
    check_state("lfm2-1.2b", 10 * 2048 * 2 * 2);
}

/// GFLOP per token and pass of training under Megatron's convention, and ours.
fn megatron(model: &str, seq: i128, mtp: u32) -> [f64; 2] {
    let query = CountQuery {
        bindings: vec![("batch".to_owned(), 1), ("seq".to_owned(), seq)],
        mtp,
        ..CountQuery::of(model)
    };
    let conventions = Conventions::One(Convention::Megatron);
    let report =
        answer(&Query::Convention(query, conventions, Working::Hidden)).expect("an answer");
    let Report::Convention(mut report) = report else { panic!("a convention query") };
    let figure = report.rows.pop().expect("a row").figure.expect("a figure");
    [figure.total, figure.ours].map(|flops| flops as f64 / seq as f64 / 1e9)
}

/// Every row of Megatron-Bridge's releases that says TFLOP/s and tokens/s of these models
/// (`tests/data/published/nemotron.json`).
#[test]
fn megatron_bridge_published_nemotron() {
    let text = include_str!("../data/published/nemotron.json");
    let data: Value = serde_json::from_str(text).expect("what this test is made of");
    // The release trains Nemotron 3 Super with two steps of its one MTP module: without it the
    // formula gives 75.37, with one step 80.05, with two 84.73.
    let [nano, _] = megatron("nvidia-nemotron-3-nano-30b-a3b-bf16", 8192, 0);
    let [without, _] = megatron("nvidia-nemotron-3-super-120b-a12b-fp8", 8192, 0);
    let [with, _] = megatron("nvidia-nemotron-3-super-120b-a12b-fp8", 8192, 2);
    let is_near = |found: f64, wanted: f64, percent: f64| {
        assert!((found / wanted - 1.0).abs() < percent / 100.0, "{found} is not {wanted}");
    };
    is_near(nano, 22.278_094_848, 1e-3);
    is_near(without, 75.371_642_88, 1e-3);
    is_near(with, 84.727_037_952, 1e-3);
    for row in data["rows"].as_array().expect("what this test is made of") {
        let found = if row["model"] == "Nemotron_3_Nano" { nano } else { with };
        // Rates are printed with three digits at least; 26.04.01 rounds tokens to a multiple of 32.
        let percent = if row["container"] == "26.04.01 NeMo Container" { 1.0 } else { 0.3 };
        is_near(
            found,
            row["gflop_per_token"].as_f64().expect("what this test is made of"),
            percent,
        );
    }
}

#[test]
fn a_state_space_without_attention_decodes() {
    let mut graph = read(SMALL_MAMBA2, Pass::Decode);
    let masking = Masking { pass: Pass::Decode, ..Masking::as_file() };
    let bound = cost::apply_masking(&mut graph, &masking).expect("what this test is made of");
    assert_eq!(bound, [("seq".to_owned(), 1)]);
}

/// The config with one field changed, and what the refusal must say.
#[track_caller]
fn check_refused(name: &str, field: &str, value: Value, expected: &str) {
    let case = cases("recurrent.json").into_iter().find(|case| case.name == name).expect("a case");
    let mut config = case.config;
    config[field] = value;
    let refusal = arch::read(name, config.to_string().as_bytes(), &Options::whole());
    let text = refusal.map(|_| ()).expect_err("a refusal").to_string();
    assert!(text.contains(expected), "{text}");
}

#[test]
fn refusals_name_field_and_value() {
    check_refused("mamba", "hidden_size", Value::Null, "`hidden_size` is missing");
    check_refused(
        "mamba",
        "num_hidden_layers",
        1_000_000_000_000_i64.into(),
        "`num_hidden_layers`",
    );
    check_refused("mamba", "expand", 1e300.into(), "`expand` is");
    check_refused("mamba", "hidden_act", "sinus".into(), "`hidden_act` is `sinus`");
    check_refused("mamba2", "num_heads", 0.into(), "`num_heads` is 0");
    check_refused("mamba2", "num_heads", 7.into(), "`num_heads` is 7");
    check_refused("mamba2", "n_groups", 3.into(), "8 heads do not share 3 groups");
    check_refused("mamba2", "chunk_size", "big".into(), "`chunk_size`");
    check_refused("nemotron_h", "hybrid_override_pattern", "M?".into(), "has `?`");
    check_refused("nemotron_h", "hybrid_override_pattern", Value::Null, "is missing");
    check_refused("nemotron_h", "num_hidden_layers", 5.into(), "the pattern has 6 layers");
    check_refused("nemotron_h", "mamba_ssm_cache_dtype", "int3".into(), "`int3`");
    check_refused("jamba", "attn_layer_offset", 9.into(), "must be below");
    check_refused("bamba", "attn_layer_indices", vec![7].into(), "there are 3 layers");
    check_refused("bamba", "mamba_n_heads", 7.into(), "`mamba_n_heads` is 7");
    check_refused("granitemoehybrid", "layer_types", vec!["mamba"].into(), "has 1 entries");
    check_refused("qwen3_next", "linear_num_value_heads", 3.into(), "do not share");
    check_refused("qwen3_next", "layer_types", vec!["odd"; 3].into(), "has `odd`");
    check_refused("kimi_linear", "linear_attn_config", 3.into(), "is no object");
    check_refused("recurrent_gemma", "block_types", Value::Array(Vec::new()), "is empty");
    check_refused("recurrent_gemma", "lru_width", 65.into(), "are not 4 even blocks");
    check_refused("lfm2", "block_ffn_dim_multiplier", 1e300.into(), "after adjusting");
}
