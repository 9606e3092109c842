//! Dense decoders and encoders against figures that others published or count: parameters, training
//! FLOPs, bytes of the KV cache.

use flopwise::arch::{self, Options};
use flopwise::cost::{self, Masking, Seen};
use flopwise::graph::{Bindings, Graph, Keeps};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

fn built_in(name: &str) -> Graph {
    let graph = arch::built_in(name, &Options::whole());
    graph
        .unwrap_or_else(|| panic!("{name} is no built-in name"))
        .expect("what this test is made of")
}

fn from(config: &Value) -> Graph {
    arch::read("test", config.to_string().as_bytes(), &Options::whole())
        .expect("what this test is made of")
}

fn parameters(graph: &Graph) -> u128 {
    cost::work(graph).parameters.to_string().parse().expect("what this test is made of")
}

fn data(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    serde_json::from_slice(&std::fs::read(path).expect("what this test is made of"))
        .expect("what this test is made of")
}

fn bindings(seq: i128) -> Bindings {
    Bindings(BTreeMap::from([("batch".to_owned(), 1), ("seq".to_owned(), seq)]))
}

/// Multiply-accumulates of one pass of one sequence.
fn macs(graph: &Graph, seq: i128) -> f64 {
    cost::work(graph).bind(graph, &bindings(seq)).expect("what this test is made of").total.macs.0
        as f64
}

#[track_caller]
fn near(found: f64, published: f64, tolerance: f64) {
    let off = found / published - 1.0;
    assert!(off.abs() <= tolerance, "{found} is off {published} by {:.3} %", 100.0 * off);
}

#[track_caller]
fn check(name: &str, published: u128) {
    assert_eq!(parameters(&built_in(name)), published, "{name}");
}

/// Counts on the cards of the models (Hugging Face) and in the papers that print them whole.
#[test]
fn published_parameters() {
    check("gpt2-medium", 354_823_168);
    check("gpt2-large", 774_030_080);
    check("gpt2-xl", 1_557_611_200);
    check("llama-7b", 6_738_415_616);
    check("llama-65b", 65_285_660_672);
    check("llama-2-7b", 6_738_415_616);
    check("llama-2-13b", 13_015_864_320);
    check("llama-2-70b", 68_976_648_192);
    check("llama-3.1-8b", 8_030_261_248);
    check("llama-3.1-70b", 70_553_706_496);
    check("llama-3.1-405b", 405_853_388_800);
    check("mistral-7b", 7_241_732_096);
    check("qwen3-0.6b", 596_049_920);
    check("qwen3-1.7b", 1_720_574_976);
    check("qwen3-8b", 8_190_735_360);
    check("qwen3-32b", 32_762_123_264);
    check("qwen2.5-7b", 7_615_616_512);
    check("qwen2.5-72b", 72_706_203_648);
    check("gemma-2-9b", 9_241_705_984);
    check("bert-base-uncased", 109_482_240);
    check("bert-large", 335_141_888);
    // Model card of bigscience/bloom; a count without the norm of the embeddings is 28,672 less.
    check("bloom-176b", 176_247_271_424);
    // Table of EleutherAI/pythia, total parameters.
    check("pythia-70m", 70_426_624);
    check("pythia-160m", 162_322_944);
    check("pythia-410m", 405_334_016);
    check("pythia-1b", 1_011_781_632);
    check("pythia-1.4b", 1_414_647_808);
    check("pythia-2.8b", 2_775_208_960);
    check("pythia-6.9b", 6_857_302_016);
    check("pythia-12b", 11_846_072_320);
}

/// EleutherAI prints 6,053,381,344 for GPT-J, of the JAX code, whose 8 shards each hold norms and the
/// biases of `fc_out`, and whose embedding has a bias; the model released for PyTorch has these once.
#[test]
fn gpt_j_as_released_and_as_trained() {
    let (layers, width, shards) = (28, 4096, 8);
    let released = parameters(&built_in("gpt-j-6b"));
    let norms = (2 * layers + 2) * width;
    let again = (shards - 1) * (norms + layers * width);
    assert_eq!(released + again + shards * width, 6_053_381_344);
}

/// Every table of dense.toml as transformers builds it (`tools/built_in_parameters.py`).
#[test]
fn built_in_names_have_the_parameters_of_transformers() {
    let counted = data("arch/built_in.json");
    let counted = counted["parameters"].as_object().expect("what this test is made of");
    assert!(counted.len() > 130);
    for (name, expected) in counted {
        assert_eq!(
            parameters(&built_in(name)),
            u128::from(expected.as_u64().expect("what this test is made of")),
            "{name}"
        );
    }
}

/// Rounded figures of papers: Megatron's shapes (arXiv 2205.05198, 2201.11990, 2104.04473), PaLM
/// (2204.02311 table 1), Chinchilla, GPT-3, OPT-175B.
#[test]
fn parameters_printed_rounded() {
    for (name, printed, tolerance) in [
        ("megatron-22b", 22e9, 0.005),
        ("mt-nlg-530b", 530e9, 0.001),
        ("megatron-1t", 1008e9, 0.0001),
        ("palm-540b", 540.35e9, 0.0001),
        ("chinchilla-70b", 70e9, 0.001),
        ("gpt3-175b", 175e9, 0.005),
        ("opt-175b", 175e9, 0.005),
        ("gemma-4-31b", 30.7e9, 0.001),
    ] {
        near(parameters(&built_in(name)) as f64, printed, tolerance);
    }
}

/// llama-3.1-405b and the like keep so many bytes per token.
#[test]
fn bytes_of_the_cache_per_token() {
    #[track_caller]
    fn check(name: &str, expected: i128) {
        let graph = built_in(name);
        let per_state = graph.states.iter().map(|state| {
            assert_eq!(state.keeps, Keeps::All, "{name}");
            state.elements.as_constant().expect("what this test is made of")
                * i128::from(state.format.bits)
                / 8
        });
        assert_eq!(per_state.sum::<i128>(), expected, "{name}");
    }
    check("qwen2.5-72b", 327_680);
    check("llama-3.1-405b", 516_096);
    check("llama-3.1-8b", 131_072);
    check("palm-540b", 120_832);
    check("bloom-176b", 4_014_080);
}

/// Layers of Gemma 3 that keep a window and layers that keep all; encoders keep nothing.
#[test]
fn windows_of_the_cache() {
    let kept = |name: &str| {
        let graph = built_in(name);
        let all = graph.states.iter().filter(|state| state.keeps == Keeps::All).count();
        (graph.states.len() - all, all)
    };
    assert_eq!(kept("gemma-3-27b-text"), (52, 10));
    assert_eq!(kept("gemma-2-9b"), (21, 21));
    assert_eq!(kept("gemma-4-26b-a4b"), (25, 5));
    assert_eq!(kept("mistral-7b"), (32, 0));
    assert_eq!(kept("bert-large"), (0, 0));
}

/// MPT of each size by width, layers and heads (llm-foundry scripts/train/yamls/pretrain): learned
/// positions and biases, the parameters exact for every length of sequences.
#[test]
fn mpt_of_every_size_and_length() {
    let shapes = BTreeMap::from([
        ("125m", [768, 12, 12]),
        ("350m", [1024, 24, 16]),
        ("760m", [1536, 24, 12]),
        ("1b", [2048, 24, 16]),
        ("3b", [2560, 32, 20]),
        ("7b", [4096, 32, 32]),
        ("13b", [5120, 40, 40]),
        ("30b", [7168, 48, 56]),
        ("70b", [8192, 80, 64]),
    ]);
    let published = data("published/mpt.json");
    let rows = published["rows"].as_array().expect("what this test is made of");
    assert_eq!(rows.len(), 61);
    for row in rows {
        let [width, layers, heads] = shapes[row[0].as_str().expect("what this test is made of")];
        let graph = from(&json!({
            "model_type": "mpt", "d_model": width, "n_layers": layers, "n_heads": heads,
            "expansion_ratio": 4, "vocab_size": 50368, "max_seq_len": row[1], "no_bias": false,
            "learned_pos_emb": true, "attn_config": {"alibi": false}, "torch_dtype": "bfloat16",
        }));
        assert_eq!(
            parameters(&graph),
            u128::from(row[2].as_u64().expect("what this test is made of")),
            "{row}"
        );
    }
}

/// GFLOP per trained token of Megatron-Bridge's summary of performance (TFLOP/s per GPU over tokens/s
/// per GPU): three times the forward pass, causal, sequences of 8192.
#[test]
fn training_flops_per_token_of_megatron_bridge() {
    for (name, published) in
        [("llama-3-8b", 51.47), ("llama-3-70b", 449.23), ("llama-3.1-405b", 2523.97)]
    {
        let seq = 8192;
        let per_token = 3.0 * 2.0 * macs(&built_in(name), seq) / seq as f64;
        near(per_token / 1e9, published, 0.003);
    }
}

/// Table D.1 of arXiv 2005.14165: 6 FLOPs per parameter and token, attention left out, N all trained
/// parameters with both tables; 300 billion tokens.
#[test]
fn training_flops_of_gpt_3() {
    for (name, millions, flops) in [
        ("gpt3-125m", 125.0, 2.25e20),
        ("gpt3-350m", 356.0, 6.41e20),
        ("gpt3-760m", 760.0, 1.37e21),
        ("gpt3-1.3b", 1320.0, 2.38e21),
        ("gpt3-2.7b", 2650.0, 4.77e21),
        ("gpt3-6.7b", 6660.0, 1.20e22),
        ("gpt3-13b", 12850.0, 2.31e22),
        ("gpt3-175b", 174_600.0, 3.14e23),
    ] {
        let n = parameters(&built_in(name)) as f64;
        near(n, millions * 1e6, 0.004);
        near(6.0 * n * 300e9, flops, 0.006);
    }
}

/// Table A4 of arXiv 2203.15556: FLOPs by the equations of its appendix F over `6 N D`. The ratios
/// printed come out where N is all parameters (tied tables once, the projections of relative positions
/// too), and the FLOPs are those of the layers: full attention, 3 per score for the softmax, no
/// embedding, no logits, no relative positions.
#[test]
fn flops_over_6nd_of_chinchilla() {
    for (layers, width, inner, heads, head_dim, ratio) in [
        (10, 640, 2560, 10, 64, 1.03),
        (20, 1024, 4096, 16, 64, 1.10),
        (24, 1280, 5120, 10, 128, 1.08),
        (26, 1792, 7168, 14, 128, 1.04),
        (28, 2048, 8192, 16, 128, 1.03),
        (40, 3584, 14336, 28, 128, 0.99),
    ] {
        let mut graph = from(&json!({
            "model_type": "gopher", "hidden_size": width, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": head_dim,
            "vocab_size": 32000, "torch_dtype": "bfloat16",
        }));
        let n = parameters(&graph) as f64;
        cost::apply_masking(&mut graph, &Masking { seen: Seen::All, ..Masking::as_file() })
            .expect("what this test is made of");
        let seq = 2048.0;
        let [layers, width, heads, head_dim] = [layers, width, heads, head_dim].map(f64::from);
        let logits = seq * width * 32000.0;
        let relative = layers * heads * head_dim * (seq * width + seq * seq);
        let macs = macs(&graph, 2048) - logits - relative;
        let forward = 2.0 * macs + 3.0 * layers * heads * seq * seq;
        let found = 3.0 * forward / (6.0 * n * seq);
        assert!((found - ratio).abs() <= 0.0051, "{found} is not {ratio}");
    }
}

/// The decoder of a model of text and images stands in `text_config`; its weights have the names of
/// `Gemma3ForConditionalGeneration` in transformers, and what is left out is said.
#[test]
fn text_part_of_a_model_of_text_and_images() {
    let text = json!({
        "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "head_dim": 16,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
    });
    let whole = from(&json!({
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": text, "vision_config": {}, "torch_dtype": "bfloat16",
    }));
    assert_eq!(parameters(&whole), parameters(&from(&text)));
    let name = "model.language_model.layers.0.self_attn.q_norm.weight";
    assert!(whole.tensors.iter().any(|tensor| tensor.name == name));
    assert!(whole.notes.iter().any(|note| format!("{note:?}").contains("images")));
}
