//! Real `.pt2` exports against PyTorch's own FlopCounterMode (eager model, eval mode, fast path of
//! nn.MultiheadAttention off; FLOPs halved) and against the model's own parameter count.

use flopwise::cost;
use flopwise::graph::{Bindings, Mask, Op};
use flopwise::import;
use flopwise::query::open_model;
use std::path::Path;

/// (bindings, MACs) at two bindings each.
type Truth<'t> = &'t [(&'t [(&'t str, i128)], u128)];

#[track_caller]
fn check_graph(graph: &flopwise::graph::Graph, parameters: u128, truth: Truth) {
    let work = cost::work(graph);
    assert_eq!(work.unknown().next(), None, "{}", graph.name);
    for (bind, macs) in truth {
        let typed: Vec<_> = bind.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let bindings = Bindings::resolve(graph, &typed).expect("the bindings are in range");
        let bound = work.bind(graph, &bindings).expect("every symbol is bound");
        assert_eq!(bound.total.macs.0, *macs, "{} at {bind:?}", graph.name);
        assert_eq!(bound.total.parameters, parameters, "{}", graph.name);
    }
}

#[track_caller]
fn check(file: &str, parameters: u128, truth: Truth) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2").join(file);
    check_graph(&import::open(&path).expect("the file is whole"), parameters, truth);
}

#[test]
fn built_in_models_match_pytorch() {
    let check = |name, parameters, truth| {
        check_graph(&open_model(name).expect("the model is built in"), parameters, truth);
    };
    const ONE: &[(&str, i128)] = &[("batch", 1)];
    const TEXT: &[(&str, i128)] = &[("batch", 1), ("seq", 128)];
    check("alexnet", 61_100_840, &[(ONE, 714_188_480)]);
    check("convnext_tiny", 28_589_128, &[(ONE, 4_455_531_264)]);
    check("densenet121", 7_978_856, &[(ONE, 2_834_161_664)]);
    check("efficientnet_b0", 5_288_548, &[(ONE, 385_814_752)]);
    check("mobilenet_v2", 3_504_872, &[(ONE, 300_774_272)]);
    check("mobilenet_v3_large", 5_483_032, &[(ONE, 216_589_760)]);
    check("resnet18", 11_689_512, &[(ONE, 1_814_073_344)]);
    check("resnet34", 21_797_672, &[(ONE, 3_663_761_408)]);
    check("resnet50", 25_557_032, &[(ONE, 4_089_184_256)]);
    check("resnet101", 44_549_160, &[(ONE, 7_801_405_440)]);
    check("swin_t", 28_288_354, &[(ONE, 4_490_566_656)]);
    check("vgg16", 138_357_544, &[(ONE, 15_470_264_320)]);
    check("vit_b_16", 86_567_656, &[(ONE, 17_563_828_224)]);
    check("gpt2", 124_439_808, &[(TEXT, 16_114_089_984)]);
    check("bert_base", 109_482_240, &[(TEXT, 11_174_215_680)]);
    check("llama_small", 44_372_480, &[(TEXT, 3_649_044_480)]);
    check("t5_small_encoder", 35_330_816, &[(TEXT, 2_516_582_400)]);
}

#[test]
fn operators_beyond_the_built_in_models() {
    // Transposed convolutions with groups, strides and output padding in 1, 2 and 3 dimensions.
    const B1: &[(&str, i128)] = &[("batch", 1)];
    const B3: &[(&str, i128)] = &[("batch", 3)];
    check("convtranspose_1d3d.pt2", 894, &[(B1, 72_144), (B3, 216_432)]);
    check("dcgan.pt2", 200_547, &[(B1, 6_715_904), (B3, 20_147_712)]);
    // Three-dimensional convolutions; einsum attention.
    check("r3d_18.pt2", 33_371_472, &[(B1, 20_348_379_136), (B3, 61_045_137_408)]);
    check("maxvit_t.pt2", 30_919_624, &[(B1, 5_558_046_720), (B3, 16_674_140_160)]);
    // Core ATen after decompositions; a mixture of experts by gathered weights.
    const TEXT: &[(&str, i128)] = &[("batch", 3), ("seq", 77)];
    check("distilbert_tiny_core.pt2", 590_336, &[(TEXT, 99_939_840)]);
    check("t5_small_encoder.pt2", 35_330_816, &[(TEXT, 4_469_262_336)]);
    const TOKENS: &[(&str, i128)] = &[("batch", 3), ("x.dim1", 77)];
    check("topk_moe.pt2", 33_024, &[(TOKENS, 1_951_488)]);
    // tensordot, einsum, bilinear, baddbmm, addmv and others. FlopCounterMode does not see the
    // bilinear layer of 16 x 24 -> 7: 16 * 24 * 7 + 24 * 7 MACs for each of 3 * 77 positions.
    const MIXED: &[(&str, i128)] = &[("batch", 3), ("x.dim1", 77)];
    check("ops_mix.pt2", 48_103, &[(MIXED, 20_582_424)]);
    assert_eq!(19_922_688 + (16 * 24 * 7 + 24 * 7) * 3 * 77, 20_582_424);
    // Height and width are four times a symbol.
    const SMALL: &[(&str, i128)] = &[("batch", 1), ("x.dim2", 64), ("x.dim3", 96)];
    const WIDE: &[(&str, i128)] = &[("batch", 2), ("x.dim2", 128), ("x.dim3", 36)];
    check("unet_hw.pt2", 116_373, &[(SMALL, 149_618_688), (WIDE, 224_428_032)]);
}

#[test]
fn every_layout_since_2_5() {
    const SQUARE: &[(&str, i128)] = &[("batch", 1), ("x.dim2", 224), ("x.dim3", 224)];
    const WIDE: &[(&str, i128)] = &[("batch", 2), ("x.dim2", 256), ("x.dim3", 320)];
    const TEXT: &[(&str, i128)] = &[("batch", 1), ("seq", 128)];
    for version in ["2.5", "2.7", "2.8", "2.9"] {
        let resnet = format!("torch_{version}_resnet18_hw32.pt2");
        check(&resnet, 11_689_512, &[(SQUARE, 1_814_073_344), (WIDE, 5_922_856_960)]);
        // FlopCounterMode ignores the causal mask and says 75,104,256. Of that, attention is
        // 2 layers * 4 heads * 128^2 pairs * (32 + 32) = 8,388,608; with 128 * 129 / 2 pairs it is
        // 4,227,072. The head is tied to the embedding: 557,568 parameters, not 685,568.
        let causal = 75_104_256 - 8_388_608 + 4_227_072;
        assert_eq!(causal, 70_942_720);
        check(&format!("torch_{version}_tiny_gpt_causal.pt2"), 557_568, &[(TEXT, 70_942_720)]);
    }
}

#[test]
fn an_archive_begins_where_it_begins() {
    // Without that fixed, this file's first member is looked for 76 bytes too late.
    check("abcdefgh.pt2", 15, &[(&[("batch", 5)], 60)]);
}

#[test]
fn modules_and_source_lines_are_kept() {
    let graph = open_model("resnet18").expect("the model is built in");
    let node = graph.nodes.iter().find(|node| node.name == "conv2d_1").expect("a second conv");
    assert_eq!(node.module.as_deref(), Some("layer1.0.conv1"));
    let line = node.line.as_ref().expect("the file has stack traces").to_string();
    assert!(line.starts_with("torchvision/models/resnet.py:"), "{line}");
}

#[test]
fn classes_of_modules_are_kept() {
    let check = |graph: &flopwise::graph::Graph, path: &str, class: &str| {
        assert_eq!(graph.modules.get(path).map(|class| &**class), Some(class), "`{path}`");
    };
    let graph = open_model("resnet18").expect("the model is built in");
    check(&graph, "", "torchvision.models.resnet.ResNet");
    check(&graph, "layer1", "torch.nn.modules.container.Sequential");
    check(&graph, "layer1.0", "torchvision.models.resnet.BasicBlock");
    check(&graph, "layer1.0.conv1", "torch.nn.modules.conv.Conv2d");
    for version in ["2.5", "2.7", "2.8", "2.9"] {
        let file = format!("tests/data/pt2/torch_{version}_tiny_gpt_causal.pt2");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let graph = import::open(&path).expect("the file is whole");
        check(&graph, "", "models.TinyGPT");
        check(&graph, "ln_f", "torch.nn.modules.normalization.LayerNorm");
    }
}

#[test]
fn operators_that_hold_graphs() {
    const B4: &[(&str, i128)] = &[("batch", 4)];
    const ROUNDS: &[(&str, i128)] = &[("batch", 4), ("while_loop.rounds", 5)];
    const MANY: &[(&str, i128)] = &[("batch", 64), ("while_loop.rounds", 1000)];
    const SCANNED: &[(&str, i128)] = &[("batch", 5), ("x.dim1", 3)];
    // One linear layer of 8 x 8 for each row of each round.
    check("hop_while.pt2", 72, &[(ROUNDS, 5 * 4 * 64), (MANY, 1000 * 64 * 64)]);
    check("hop_scan.pt2", 72, &[(SCANNED, 5 * 3 * 64)]);
    check("hop_map.pt2", 72, &[(SCANNED, 5 * 3 * 64)]);
    check("hop_vmap.pt2", 72, &[(&[], 4 * 3 * 64)]);
    check("hop_nograd.pt2", 72, &[(B4, 2 * 4 * 64)]);
    check("hop_invoke.pt2", 72, &[(&[], 2 * 4 * 64)]);
    // Every branch stands in the graph: then [2, 1] layers, else 3.
    check("hop_cond_nest.pt2", 144, &[(B4, 6 * 4 * 64)]);
}

#[test]
fn the_costliest_branch_is_taken_and_said() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2/hop_cond_nest.pt2");
    let mut graph = import::open(&path).expect("the file is whole");
    assert_eq!(graph.choices.len(), 2);
    cost::take_costliest(&mut graph, &Bindings::default());
    assert_eq!(cost::work(&graph).total.macs.0.to_string(), "192*batch");
    let notes: Vec<String> = graph.notes.iter().map(|note| note.text.clone()).collect();
    assert!(notes.iter().any(|note| note.contains("the costlier, false_fn")), "{notes:?}");
}

#[test]
fn a_loop_without_an_end_is_a_lower_bound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2/hop_while.pt2");
    let graph = import::open(&path).expect("the file is whole");
    assert_eq!(cost::work(&graph).total.macs.0.to_string(), "64*batch*while_loop.rounds");
    assert!(graph.symbols.iter().any(|symbol| symbol.name == "while_loop.rounds"));
}

#[test]
fn recurrent_networks() {
    // Per step and sequence gates * hidden * (input + state), both layers, 3 x 5 steps.
    let lstm = |hidden: u128, input: u128, state: u128| 4 * hidden * (input + state);
    let both_ways = 15 * 2 * (lstm(16, 8, 16) + lstm(16, 32, 16));
    check("rnn_lstm_bi.pt2", 9728, &[(&[], both_ways)]);
    // A state of 4 made of 16: its own product at each step.
    let projected = 15 * (lstm(16, 8, 4) + lstm(16, 4, 4) + 2 * 16 * 4);
    check("rnn_lstm_proj.pt2", 1664, &[(&[], projected)]);
    let gru = 15 * 3 * 16 * ((8 + 16) + (16 + 16));
    check("rnn_gru.pt2", 2880, &[(&[], gru)]);
    // FlopCounterMode on the cells.
    check("rnn_cells.pt2", 3384, &[(&[], 9_456)]);
}

#[test]
fn fused_and_quantised_operators() {
    // The fast path of nn.TransformerEncoderLayer; FlopCounterMode with the fast path off.
    check("mha_enc.pt2", 4448, &[(&[], 53_760)]);
    // 64 rows, each times one of four matrices of 32 x 16.
    check("op_gmm.pt2", 0, &[(&[], 64 * 32 * 16)]);
    check("op_quant.pt2", 0, &[(&[], 32 * 32 * 16)]);
    check("op_fft.pt2", 0, &[(&[], 0)]);
}

#[test]
fn networks_of_transformers() {
    // FlopCounterMode, which counts attention in full, as these masks are tensors or full.
    check("hf_t5.pt2", 44_800, &[(&[], 893_952)]);
    check("hf_mamba.pt2", 20_064, &[(&[], 473_088)]);
    // FlopCounterMode (267,264) does not see the grouped products of the experts: 24 tokens with
    // 2 experts each, through 32 x 128 and 64 x 32, in 2 layers.
    let experts = 2 * 24 * 2 * (32 * 128 + 64 * 32);
    check_full("hf_mixtral.pt2", 267_264 + experts);
}

/// Whatever the mask, attention of every pair.
#[track_caller]
fn check_full(file: &str, macs: u128) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2").join(file);
    let mut graph = import::open(&path).expect("the file is whole");
    for node in &mut graph.nodes {
        if let Op::Attention(attention) = &mut node.op {
            attention.mask = Mask::Full;
        }
    }
    let counted = cost::work(&graph).total.macs.0.as_constant().map(|macs| macs as u128);
    assert_eq!(counted, Some(macs), "{file}");
}

#[test]
fn core_operators_are_shaped_as_pytorch_shapes_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2/core_aten.pt2");
    let graph = import::open(&path).expect("the file is whole");
    let work = cost::work(&graph);
    let unknown: Vec<String> =
        work.unknown().map(|(id, why)| format!("{}: {why}", graph.nodes[id.0].operator)).collect();
    assert_eq!(unknown, Vec::<String>::new());
    // A shape that our rule and PyTorch's disagree on is told in a note.
    let notes: Vec<&str> = graph.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(!notes.iter().any(|note| note.contains("differ")), "{notes:?}");
    // The gradients of a convolution cost as much as it does, each.
    let macs = |name: &str| -> i128 {
        let is_it = |node: &&cost::NodeWork| &*graph.nodes[node.node.0].operator == name;
        let costs = work.nodes.iter().filter(is_it).filter_map(|node| node.cost.as_ref().ok());
        costs.filter_map(|cost| cost.macs.0.as_constant()).sum()
    };
    let forward = macs("aten.convolution.default");
    assert_eq!(forward, 6 * 4 * 4 * 2 * 9);
    assert_eq!(macs("aten.convolution_backward.default"), 2 * forward);
}

#[test]
fn sizes_that_the_data_decide_are_taken_at_their_most() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2/hop_data.pt2");
    let graph = import::open(&path).expect("the file is whole");
    let most = |name: &str| {
        let symbol = graph.symbols.iter().find(|symbol| symbol.name == name).expect("the symbol");
        symbol.at_most.as_ref().map(ToString::to_string)
    };
    // Of x [batch, 8]: nonzero elements, those of a mask, different ones.
    for name in ["u0", "u1", "u2"] {
        assert_eq!(most(name).as_deref(), Some("8*batch"), "{name}");
    }
    assert_eq!(cost::work(&graph).unknown().next(), None);
}

#[test]
fn custom_operators_are_named() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pt2/hop_customin_d.pt2");
    let graph = import::open(&path).expect("the file is whole");
    let work = cost::work(&graph);
    let (id, reason) = work.unknown().next().expect("one is unknown");
    assert_eq!(&*graph.nodes[id.0].operator, "mylib.inplace.default");
    assert!(reason.contains("an operator of the model's own"), "{reason}");
}
