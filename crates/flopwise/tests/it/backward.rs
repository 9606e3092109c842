//! Training counts against PyTorch: FlopCounterMode over forward and backward pass of the eager
//! model (loss = sum of all results; dW of grouped convolutions divided by their groups, which
//! PyTorch 2.15 forgets), and the bytes its autograd keeps, by `saved_tensors_hooks`, each storage
//! once, parameters and buffers left out, batch norms in training mode.

use flopwise::cost::{self, BoundTraining, Lora, Patterns, Recompute, TrainSetup, Training};
use flopwise::graph::{
    Bindings, Builder, Graph, Mask, NewNode, Op, Role, Shape, TensorId, TensorType,
};
use flopwise::import;
use flopwise::query::open_model;
use flopwise_formats::Format;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn open(name: &str) -> Graph {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let path = folder.join("backward").join(format!("{name}.pt2"));
    import::open(&path).expect("the file is whole")
}

/// The model with every mask opened up, since PyTorch counts no masks.
fn unmasked(mut graph: Graph) -> Graph {
    for node in &mut graph.nodes {
        if let Op::Attention(attention) = &mut node.op {
            attention.mask = Mask::Full;
        }
    }
    graph
}

fn patterns(text: &str) -> Option<Patterns> {
    let Ok(patterns) = text.parse::<Patterns>();
    (!text.is_empty()).then_some(patterns)
}

fn train(graph: &Graph, freeze: &str, results: &[&str], recompute: Recompute) -> Training {
    let results: Vec<String> = results.iter().map(|name| (*name).to_owned()).collect();
    let freeze = patterns(freeze);
    let setup = TrainSetup {
        is_trained: cost::select(graph, None, freeze.as_ref()).expect("the patterns match"),
        seeds: cost::seeds(graph, &results).expect("the results exist"),
        recompute,
    };
    cost::training(graph, &setup)
}

fn bind(graph: &Graph, training: &Training, bind: &[(&str, i128)]) -> BoundTraining {
    let typed: Vec<_> = bind.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let bindings = Bindings::resolve(graph, &typed).expect("the bindings are in range");
    assert_eq!(training.unknown().next(), None, "{}", graph.name);
    training.bind(graph, &bindings).expect("every symbol is bound")
}

const ONE: &[(&str, i128)] = &[("batch", 1)];
const TEXT: &[(&str, i128)] = &[("batch", 1), ("seq", 128)];

#[test]
fn built_in_models_match_the_hand_oracle_and_pytorch() {
    #[track_caller]
    fn check(name: &str, at: &[(&str, i128)], results: &[&str], hardware: u128, model: u128) {
        let graph = unmasked(open_model(name).expect("the model is built in"));
        let training = train(&graph, "", results, Recompute::Nothing);
        let total = bind(&graph, &training, at).total;
        assert_eq!((total.hardware_flops().0, total.model_flops().0), (hardware, model), "{name}");
    }
    // Hand oracle: no gradient of the image; dX and dW of grouped convolutions divided by groups.
    check("resnet18", ONE, &[], 10_648_412_160, 10_648_412_160);
    check("resnet50", ONE, &[], 24_299_077_632, 24_299_077_632);
    check("vgg16", ONE, &[], 92_648_177_664, 92_648_177_664);
    check("mobilenet_v2", ONE, &[], 1_782_969_600, 1_782_969_600);
    check("efficientnet_b0", ONE, &[], 2_293_212_480, 2_293_212_480);
    // FlopCounterMode. Its backward of fused attention is 2.5 times the forward: hardware FLOPs.
    // Model FLOPs are 6 per MAC, less the gradient of the image: 2 * 115,605,504 for the patches.
    check("vit_b_16", ONE, &[], 105_867_085_824, 6 * 17_563_828_224 - 231_211_008);
    check("swin_t", ONE, &[], 26_914_498_560, 26_914_498_560);
    check("gpt2", TEXT, &[], 96_684_539_904 + 12 * 2 * 12 * 128 * 128 * 64, 96_684_539_904);
    check("llama_small", TEXT, &[], 21_961_375_744, 6 * 3_649_044_480);
}

/// Freezes what the pattern names. Expected: hardware FLOPs, since PyTorch counts the scores that
/// fused attention computes again; model FLOPs where it ran unfused.
#[track_caller]
fn check(name: &str, freeze: &str, hardware: u128) {
    let graph = unmasked(open(name));
    let training = train(&graph, freeze, &[], Recompute::Nothing);
    let total = bind(&graph, &training, &[]).total;
    // Its query and value have heads of different sizes, for which PyTorch has no fused kernel.
    let found = if name == "mlp" { total.model_flops() } else { total.hardware_flops() };
    assert_eq!(found.0, hardware, "{name} without {freeze}");
}

#[test]
fn held_out_models_match_pytorch() {
    check("ct", "", 1_366_272);
    check("ct13", "", 180_352);
    check("ein", "", 85_760);
    check("bmm", "", 35_240);
    check("mlp", "", 2_015_232);
    check("mlp", "up.*,k_proj.*", 1_851_392);
    check("mlp", "!head*", 876_544);
    check("resnet18", "", 1_744_158_720);
    check("resnext50_32x4d", "", 4_128_178_176);
    check("shufflenet_v2_x1_0", "", 150_581_376);
    check("squeezenet1_1", "", 252_372_480);
    check("regnet_y_400mf", "", 402_256_512);
    check("mobilenet_v3_small", "", 76_428_288);
    check("googlenet", "", 1_440_546_816);
    check("vgg11_bn", "", 8_787_984_384);
    check("r3d_18", "", 5_225_496_576);
    check("resnet18", "!layer4.*,!fc.*", 845_791_232);
    check("resnet18", "layer3.*", 1_609_940_992);
    check("shufflenet_v2_x1_0", "conv*", 138_844_288);
    check("opt", "", 23_150_592);
    check("distilbert", "", 24_330_240);
    check("qwen2", "", 25_509_888);
    check("qwen2_eager", "", 25_214_976);
    check("roberta", "", 24_330_240);
}

/// By hand, for 7 steps of 2 sequences: two bidirectional LSTM layers of 8 -> 16 -> 16, a GRU of
/// 32 -> 12 and a linear layer of 12 -> 3. The first layer needs no gradient of its input, but of its
/// state.
#[test]
fn recurrent_networks_learn_through_their_states() {
    let (steps, both) = (7 * 2, 2 * 4 * 16);
    let first = steps * both * (3 * (8 + 16) - 8);
    let second = 3 * steps * both * (32 + 16);
    let gru = 3 * steps * 3 * 12 * (32 + 12);
    let linear = 3 * steps * 12 * 3;
    check("lstm", "", 2 * (first + second + gru + linear));
}

#[test]
fn saved_bytes_match_autograd() {
    #[track_caller]
    fn check(name: &str, saved: u128) {
        let graph = open(name);
        let training = train(&graph, "", &[], Recompute::Nothing);
        assert_eq!(bind(&graph, &training, &[]).total.saved_bytes.0, saved, "{name}");
    }
    check("ct", 71_072);
    check("ct13", 19_008);
    check("resnet18", 3_663_360);
    check("resnext50_32x4d", 18_606_592);
    check("shufflenet_v2_x1_0", 3_400_400);
    check("squeezenet1_1", 2_893_632);
    check("regnet_y_400mf", 5_672_064);
    check("mobilenet_v3_small", 2_761_984);
    check("googlenet", 7_929_728);
    check("vgg11_bn", 13_084_160);
    check("r3d_18", 3_522_048);
}

#[test]
fn adapters_cost_what_hand_written_ones_do() {
    // PyTorch counts 1,263,616 FLOPs for the model with adapters of rank 4 written into it.
    let mut graph = open("mlp");
    let n_before = graph.tensors.len();
    let lora: Lora = "r=4,targets=q,v".parse().expect("it is well formed");
    let adapted = cost::add_lora(&mut graph, &lora).expect("both layers exist");
    assert_eq!(adapted, ["q_proj", "v_proj"]);
    let is_adapter =
        |(idx, t): (usize, &flopwise::graph::Tensor)| n_before <= idx && t.role == Role::Parameter;
    let is_trained = graph.tensors.iter().enumerate().map(is_adapter).collect();
    let seeds = cost::seeds(&graph, &[]).expect("there are results");
    let setup = TrainSetup { is_trained, seeds, recompute: Recompute::Nothing };
    let bound = bind(&graph, &cost::training(&graph, &setup), &[]);
    assert_eq!((bound.total.model_flops().0, bound.trained_parameters), (1_263_616, 480));
}

#[test]
fn recomputation_adds_hardware_flops_and_drops_what_is_kept() {
    let graph = unmasked(open_model("gpt2").expect("the model is built in"));
    let at = |recompute| bind(&graph, &train(&graph, "", &[], recompute), TEXT).total;
    let (none, full) = (at(Recompute::Nothing), at(Recompute::Blocks { every: 1 }));
    // All but the head, 768 x 50257 per token, runs again.
    let blocks = 16_114_089_984 - 128 * 768 * 50_257;
    assert_eq!(full.hardware_flops().0 - none.hardware_flops().0, 2 * blocks);
    assert_eq!(full.model_flops(), none.model_flops());
    let third = at(Recompute::Blocks { every: 3 });
    assert_eq!(third.recomputed.macs.0 * 3, full.recomputed.macs.0);
    assert!(full.saved_bytes < third.saved_bytes && third.saved_bytes < none.saved_bytes);
    // Written out, the core is two products of 2 x 4 x 24 x 24 x 16 in each of two layers.
    let eager = open("qwen2_eager");
    let training = train(&eager, "", &[], Recompute::AttentionCore);
    let total = bind(&eager, &training, &[]).total;
    assert_eq!(total.recomputed.macs.0, 2 * 2 * (2 * 4 * 24 * 24 * 16));
}

/// `x -> w1 -> an operator -> w2`; what is uncounted in training, and its MACs.
fn with_between(operator: &str, op: Result<Op, String>) -> (usize, String) {
    use flopwise::graph::{MatMul, Orientation};
    let fp32 =
        |lengths: &[i64]| Some(TensorType { shape: Shape::of(lengths), format: Format::FP32 });
    let mut builder = Builder::new("between");
    let mut tensor = |name, lengths: &[i64], role| {
        builder.tensor(name, fp32(lengths), role).expect("a small tensor")
    };
    let x = tensor("x", &[2, 4], Role::Input);
    let weights: Vec<TensorId> =
        ["w1", "w2"].map(|name| tensor(name, &[4, 4], Role::Parameter)).to_vec();
    let linear = || Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
    let first = builder.apply("first", linear(), &[x, weights[0]]).expect("it fits");
    let between = NewNode {
        name: "between".to_owned(),
        op,
        inputs: first,
        outputs: vec![("between".to_owned(), fp32(&[2, 4]))],
        operator: Arc::from(operator),
        module: None,
        line: None,
        repeat: 1i64.into(),
        in_place: false,
        format: None,
    };
    let between = builder.insert(between).expect("it fits");
    let last = builder.apply("last", linear(), &[between[0], weights[1]]).expect("it fits");
    let graph = builder.finish(vec![x], last);
    let training = train(&graph, "", &[], Recompute::Nothing);
    (training.unknown().count(), training.model_macs().to_string())
}

/// Of 2 x 4 x 4 each: both forward, both weights, and the one activation between them.
#[test]
fn an_operator_without_a_rule_makes_the_total_a_lower_bound() {
    let between = with_between("custom::hole", Err("no rule".to_owned()));
    assert_eq!(between, (1, (5 * 32).to_string()));
    assert_eq!(with_between("aten.alias.default", Ok(Op::Identity)), (0, (5 * 32).to_string()));
}

/// Nothing behind it learns: both forward and the last weight.
#[test]
fn a_detached_tensor_stops_the_gradient() {
    assert_eq!(with_between("aten.detach.default", Ok(Op::Identity)), (0, (3 * 32).to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A step costs at least its forward pass, is linear in the batch, and freezing more never
    /// makes it dearer.
    #[test]
    fn training_is_linear_in_batch_and_cheaper_frozen(batch in 1i128..512, layer in 1usize..5) {
        let graph = open_model("resnet18").expect("the model is built in");
        let frozen: Vec<String> = (1..=layer).map(|n| format!("layer{n}.*")).collect();
        let (fewer, more) = (frozen[..layer - 1].join(","), frozen.join(","));
        let flops = |freeze: &str, batch| {
            let training = train(&graph, freeze, &[], Recompute::Nothing);
            bind(&graph, &training, &[("batch", batch)]).total
        };
        let total = flops(&more, batch);
        prop_assert!(total.forward.model_flops() <= total.model_flops());
        prop_assert!(total.model_flops() <= flops(&fewer, batch).model_flops());
        prop_assert_eq!(total.model_flops().0, flops(&more, 1).model_flops().0 * batch as u128);
    }
}
