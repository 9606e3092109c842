//! Training counts against PyTorch: FlopCounterMode over forward and backward pass of the eager
//! model (loss = sum of all results; dW of grouped convolutions divided by their groups, which
//! PyTorch 2.15 forgets), and the bytes its autograd keeps, by `saved_tensors_hooks`, each storage
//! once, parameters and buffers left out, batch norms in training mode.

use flopwise::cost::{self, BoundTraining, Lora, Patterns, Recompute, TrainSetup, Training};
use flopwise::graph::{Bindings, Graph, Mask, Op};
use flopwise::import;
use flopwise::query::open_model;
use std::path::Path;

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

/// Freezes what the pattern names. Expected: hardware FLOPs.
#[track_caller]
fn check(name: &str, freeze: &str, hardware: u128) {
    let graph = unmasked(open(name));
    let training = train(&graph, freeze, &[], Recompute::Nothing);
    let total = bind(&graph, &training, &[]).total;
    assert_eq!(total.hardware_flops().0, hardware, "{name} without {freeze}");
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
    check("lstm", "", 134_352);
    check("opt", "", 23_150_592);
    check("distilbert", "", 24_330_240);
    check("qwen2", "", 25_509_888);
    check("qwen2_eager", "", 25_214_976);
    check("roberta", "", 24_330_240);
}

#[test]
fn saved_bytes() {
    for name in SAVED {
        let graph = unmasked(open(name));
        let training = train(&graph, "", &[], Recompute::Nothing);
        eprintln!("{name} {}", bind(&graph, &training, &[]).total.saved_bytes.0);
    }
    let _: Option<Lora> = None;
}
const SAVED: &[&str] = &[
    "ct",
    "ct13",
    "ein",
    "bmm",
    "mlp",
    "lstm",
    "opt",
    "qwen2",
    "qwen2_eager",
    "roberta",
    "distilbert",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "regnet_y_400mf",
    "mobilenet_v3_small",
    "vgg11_bn",
    "r3d_18",
    "googlenet",
    "resnet18",
];
