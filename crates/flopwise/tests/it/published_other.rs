//! Built-in encoder-decoders, encoders of images and texts, and diffusion models: parameters and
//! multiply-accumulates of PyTorch's FlopCounterMode on transformers' and diffusers' own models on the
//! meta device (`tools/built_in_oracle.py`), and what papers and model cards print.

use flopwise::arch::Options;
use flopwise::cost::{self, Masking, Seen};
use flopwise::graph::{Bindings, Graph, Keeps, Pass};
use flopwise::query::open_model_as;

/// Sizes bound.
type Sizes<'s> = &'s [(&'s str, i128)];

const ONE: Sizes = &[("batch", 1)];
const TEXT: Sizes = &[("batch", 1), ("seq", 77)];
const PAIR: Sizes = &[("batch", 1), ("seq", 64)];
const BOTH: Sizes = &[("batch", 1), ("seq", 128), ("target_seq", 64)];
const SPOKEN: Sizes = &[("batch", 1), ("target_seq", 64)];
const PROMPT: Sizes = &[("batch", 1), ("text_seq", 77)];

/// Parameters, and multiply-accumulates with every pair of an attention counted.
fn counted(name: &str, sizes: Sizes) -> (u128, u128) {
    let mut graph = open_model_as(name, &Options::whole()).expect("what this test is made of");
    let full = Masking { seen: Seen::All, ..Masking::as_file() };
    cost::apply_masking(&mut graph, &full).expect("what this test is made of");
    bound(&graph, sizes)
}

fn bound(graph: &Graph, sizes: Sizes) -> (u128, u128) {
    let work = cost::work(graph);
    assert_eq!(work.unknown().count(), 0, "{}", graph.name);
    let sizes = Bindings(sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect());
    let bound = work.bind(graph, &sizes).expect("what this test is made of");
    (bound.total.parameters, bound.total.macs.0)
}

#[track_caller]
fn check(name: &str, parameters: u128, sizes: Sizes, macs: u128) {
    assert_eq!(counted(name, sizes), (parameters, macs), "{name}");
}

#[test]
fn text_to_text() {
    check("t5-small", 60_506_624, BOTH, 5_456_789_504);
    check("t5-base", 222_903_552, BOTH, 21_133_000_704);
    check("t5-large", 737_668_096, BOTH, 71_160_561_664);
    check("t5-3b", 2_851_598_336, BOTH, 278_325_624_832);
    check("t5-11b", 11_307_321_344, BOTH, 1_106_985_877_504);
    check("flan-t5-small", 76_961_152, BOTH, 5_456_789_504);
    check("flan-t5-base", 247_577_856, BOTH, 21_133_000_704);
    check("flan-t5-large", 783_150_080, BOTH, 72_368_521_216);
    check("flan-t5-xl", 2_849_757_184, BOTH, 267_948_916_736);
    check("flan-t5-xxl", 11_135_332_352, BOTH, 1_057_736_359_936);
    check("mt5-small", 300_176_768, BOTH, 12_599_689_216);
    check("mt5-base", 582_401_280, BOTH, 31_847_350_272);
    check("mt5-large", 1_229_581_312, BOTH, 86_654_320_640);
    check("mt5-xl", 3_742_619_648, BOTH, 296_520_515_584);
    check("mt5-xxl", 12_921_057_280, BOTH, 1_114_879_557_632);
    check("bart-base", 139_420_416, BOTH, 12_247_547_904);
    check("bart-large", 406_291_456, BOTH, 37_821_677_568);
    check("m2m100-418m", 483_905_536, BOTH, 42_923_458_560);
    check("nllb-200-distilled-600m", 615_073_792, BOTH, 51_318_226_944);
}

#[test]
fn speech_to_text() {
    check("whisper-tiny", 37_760_640, SPOKEN, 22_348_947_456);
    check("whisper-base", 72_593_920, SPOKEN, 52_126_220_288);
    check("whisper-small", 241_734_912, SPOKEN, 204_050_841_600);
    check("whisper-medium", 763_857_920, SPOKEN, 675_397_697_536);
    check("whisper-large", 1_543_304_960, SPOKEN, 1_353_044_049_920);
    check("whisper-large-v2", 1_543_304_960, SPOKEN, 1_353_044_049_920);
    check("whisper-large-v3", 1_543_490_560, SPOKEN, 1_353_597_091_840);
    check("whisper-large-v3-turbo", 808_878_080, SPOKEN, 1_167_692_431_360);
}

#[test]
fn encoders_of_images_and_texts() {
    check("vit-base-patch16-224", 86_567_656, ONE, 17_563_828_224);
    check("vit-base-patch16-384", 86_859_496, ONE, 55_484_350_464);
    check("vit-base-patch32-384", 88_297_192, ONE, 13_043_564_544);
    check("vit-large-patch16-224", 304_326_632, ONE, 61_554_712_576);
    check("vit-huge-patch14-224-in21k", 632_404_480, ONE, 167_295_467_520);
    check("deit-tiny-patch16-224", 5_717_416, ONE, 1_253_683_200);
    check("deit-small-patch16-224", 22_050_664, ONE, 4_598_882_304);
    check("deit-base-distilled-patch16-224", 87_338_192, ONE, 17_656_811_520);
    check("dinov2-small", 22_056_576, ONE, 46_696_739_328);
    check("dinov2-base", 86_580_480, ONE, 151_573_718_016);
    check("dinov2-large", 304_368_640, ONE, 506_803_826_688);
    check("dinov2-giant", 1_136_480_768, ONE, 1_783_342_958_592);
    check("clip-vit-base-patch32", 151_277_313, PAIR, 6_875_324_928);
    check("clip-vit-base-patch16", 149_620_737, PAIR, 20_029_966_848);
    check("clip-vit-large-patch14", 427_616_513, PAIR, 86_524_674_816);
    check("clip-vit-large-patch14-336", 427_944_193, PAIR, 196_471_800_576);
    check("siglip-base-patch16-224", 203_155_970, PAIR, 23_220_198_144);
    check("siglip-large-patch16-256", 652_150_786, PAIR, 100_809_573_376);
    check("siglip-so400m-patch14-384", 877_960_498, PAIR, 361_737_866_880);
}

#[test]
fn stable_diffusion() {
    check("sd-v1-text-encoder", 123_060_480, TEXT, 6_649_251_840);
    check("sd-v1-unet", 859_520_964, PROMPT, 401_636_720_640);
    check("sd-v1-vae-encoder", 34_163_664, ONE, 558_329_233_408);
    check("sd-v1-vae-decoder", 49_490_199, ONE, 1_257_259_466_752);
    check("sd-v2-1-unet", 865_910_724, PROMPT, 1_074_552_872_960);
    check("sdxl-unet", 2_567_463_684, PROMPT, 3_380_618_199_040);
    check("sdxl-text-encoder-2", 694_659_840, TEXT, 48_931_553_280);
    check("sdxl-vae-encoder", 34_163_664, ONE, 2_439_475_363_840);
    check("sdxl-vae-decoder", 49_490_199, ONE, 5_235_196_297_216);
}

/// diffusers' model, less the embeddings of time and label that it has in every block and the
/// original (facebookresearch/DiT) has once, and with the positions, which only the original stores.
#[test]
fn diffusion_transformers() {
    check("dit-s-2", 32_963_360, ONE, 6_055_673_856);
    check("dit-s-4", 32_945_024, ONE, 1_412_579_328);
    check("dit-s-8", 33_148_160, ONE, 357_974_016);
    check("dit-b-2", 130_512_416, ONE, 23_005_102_080);
    check("dit-b-4", 130_475_648, ONE, 5_565_186_048);
    check("dit-b-8", 130_881_536, ONE, 1_417_543_680);
    check("dit-l-2", 458_102_816, ONE, 80_697_622_528);
    check("dit-l-4", 458_053_760, ONE, 19_695_665_152);
    check("dit-l-8", 458_594_816, ONE, 5_011_406_848);
    check("dit-xl-2", 675_129_632, ONE, 118_621_421_568);
    check("dit-xl-2-512", 676_014_368, ONE, 524_538_298_368);
    check("dit-xl-4", 675_074_432, ONE, 29_043_671_040);
    check("dit-xl-8", 675_683_072, ONE, 7_392_411_648);
}

/// Table 4 and section 5 of arXiv 2212.09748, in millions of parameters and in multiply-accumulates
/// (its "Gflops"), which count something further of about 0.02%.
#[test]
fn diffusion_transformers_as_published() {
    let check = |name: &str, millions: f64, giga: f64| {
        let (parameters, macs) = counted(name, ONE);
        assert!((parameters as f64 / 1e6 - millions).abs() <= 0.6, "{name}: {parameters}");
        let off = (macs as f64 / 1e9 - giga).abs();
        assert!(off <= 0.006 + 2e-4 * giga, "{name}: {macs} MACs, {giga} printed");
    };
    check("dit-s-8", 33.0, 0.36);
    check("dit-s-4", 33.0, 1.41);
    check("dit-s-2", 33.0, 6.06);
    check("dit-b-8", 131.0, 1.42);
    check("dit-b-4", 130.0, 5.56);
    check("dit-b-2", 130.0, 23.01);
    check("dit-l-8", 459.0, 5.01);
    check("dit-l-4", 458.0, 19.70);
    check("dit-l-2", 458.0, 80.71);
    check("dit-xl-8", 676.0, 7.39);
    check("dit-xl-4", 675.0, 29.05);
    check("dit-xl-2", 675.0, 118.64);
    check("dit-xl-2-512", 676.0, 524.60);
}

/// The README of openai/whisper, in millions. Its round figures lie above what the checkpoints hold, by
/// 3.2% for the smallest and by 0.02% for the newest.
#[test]
fn speech_models_as_published() {
    let check = |name: &str, millions: f64, within: f64| {
        let (parameters, _) = counted(name, SPOKEN);
        let off = millions / (parameters as f64 / 1e6) - 1.0;
        assert!(0.0 < off && off < within, "{name}: {parameters}, {millions} M printed");
    };
    check("whisper-tiny", 39.0, 0.033);
    check("whisper-base", 74.0, 0.020);
    check("whisper-small", 244.0, 0.010);
    check("whisper-medium", 769.0, 0.007);
    check("whisper-large", 1550.0, 0.005);
    check("whisper-large-v3-turbo", 809.0, 0.000_2);
}

/// The README of onnx-tool, in millions of multiply-accumulates and of parameters. It counts every other
/// operator as some of them too: 1% to 2% for the three without much attention, and 10.7% for the U-Net,
/// whose attentions have a softmax over 4096 x 4096 scores per head. Its U-Net runs both halves of
/// classifier-free guidance: a batch of two.
#[test]
fn stable_diffusion_as_onnx_tool_prints_it() {
    let check = |name: &str, sizes: Sizes, millions: f64, printed: f64, more: [f64; 2]| {
        let (parameters, macs) = counted(name, sizes);
        let off = (parameters as f64 / 1e6 - millions).abs();
        assert!(off < 0.08, "{name}: {parameters}, {millions} M printed");
        let ratio = printed / (macs as f64 / 1e6);
        assert!(more[0] < ratio && ratio < more[1], "{name}: {macs}, {printed} M printed");
    };
    const TWO: Sizes = &[("batch", 2), ("text_seq", 77)];
    check("sd-v1-text-encoder", TEXT, 123.13, 6_782.0, [1.019, 1.021]);
    check("sd-v1-unet", TWO, 859.52, 888_870.0, [1.106, 1.107]);
    check("sd-v1-vae-encoder", ONE, 34.16, 566_371.0, [1.014, 1.015]);
    check("sd-v1-vae-decoder", ONE, 49.49, 1_271_959.0, [1.011, 1.012]);
}

/// A token of Whisper's decoder: the encoder does not run, and its keys and values are read.
#[test]
fn a_decoded_token_runs_no_encoder() {
    let options = Options { pass: Pass::Decode, mtp: 0 };
    let mut graph = open_model_as("whisper-tiny", &options).expect("what this test is made of");
    let masking = Masking { pass: Pass::Decode, ..Masking::as_file() };
    let fixed = cost::apply_masking(&mut graph, &masking).expect("what this test is made of");
    assert_eq!(fixed, [("target_seq".to_owned(), 1)]);
    let (width, context) = (384u128, 100u128);
    // Projections of the token itself, of its question to the encoder, and the feed-forward network.
    let layer = (4 + 2 + 8) * width * width + 2 * width * context + 2 * width * 1500;
    let sizes: Sizes = &[("batch", 1), ("target_seq", 1), ("context", 100)];
    assert_eq!(bound(&graph, sizes).1, 4 * layer + width * 51865);
}

/// Per layer twice the width: of each token so far, and of each of the 1500 frames heard.
#[test]
fn a_speech_model_keeps_both_sequences() {
    let graph =
        open_model_as("whisper-tiny", &Options::whole()).expect("what this test is made of");
    let kept = |wanted: &Keeps| {
        let of = graph.states.iter().filter(|state| state.keeps == *wanted);
        of.map(|state| state.elements.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kept(&Keeps::All), ["768"; 4]);
    assert_eq!(kept(&Keeps::Other(1500.into())), ["768"; 4]);
    assert_eq!(graph.states.len(), 8);
}
