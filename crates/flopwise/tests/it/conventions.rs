//! Conventions against the tools themselves: figures that fvcore 0.1.5, thop 0.1.1, ptflops 0.7.5,
//! torchinfo 1.8, calflops 0.3.2, onnx-tool 1.0.1 and PyTorch 2.15 gave for the very models whose
//! exports are counted here (`tools/convention_oracle.py`), and formulas worked out by hand.

use flopwise::cost::convention::Convention;
use flopwise::query::{Conventions, CountQuery, Query, Working, answer};
use flopwise::report::{ConventionFigure, ConventionReport, Report};
use std::path::PathBuf;

fn data(file: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    folder.join(file).to_string_lossy().into_owned()
}

fn asked(model: &str, bind: &[(&str, i128)], conventions: Conventions) -> ConventionReport {
    let query = CountQuery {
        bindings: bind.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        ..CountQuery::of(model)
    };
    let report = answer(&Query::Convention(query, conventions, Working::Hidden));
    let Report::Convention(report) = report.expect("the model is counted") else {
        panic!("a convention query has a convention report")
    };
    *report
}

/// The figure, whose lines and terms must add up.
fn figure(model: &str, bind: &[(&str, i128)], convention: &str) -> ConventionFigure {
    let named = Convention::ALL.into_iter().find(|known| known.name() == convention);
    let conventions = Conventions::One(named.expect("a convention"));
    let mut report = asked(model, bind, conventions);
    let row = report.rows.pop().expect("one row");
    let figure = row.figure.unwrap_or_else(|why| panic!("{model} {convention}: {why}"));
    adds_up(&figure, model);
    figure
}

#[track_caller]
fn adds_up(figure: &ConventionFigure, model: &str) {
    let lines: i128 = figure.lines.iter().map(|line| line.amount).sum();
    assert_eq!(lines, figure.total - figure.ours, "{model}: {:?}", figure.lines);
    let terms: i128 = figure.groups.iter().map(|group| group.value).sum();
    assert_eq!(terms, figure.total, "{model}: {:?}", figure.groups);
}

#[track_caller]
fn check(model: &str, convention: &str, total: i128) {
    assert_eq!(figure(model, &[], convention).total, total, "{model} {convention}");
}

fn also(figure: &ConventionFigure, name: &str) -> Option<i128> {
    figure.also.iter().find(|(known, _)| known.contains(name)).map(|(_, value)| *value)
}

#[test]
fn small_models_come_out_as_the_tools_count_them() {
    let text = std::fs::read_to_string(data("conventions/counts.json")).expect("the figures");
    let counts: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (model, tools) in counts.as_object().expect("models") {
        let file = data(&format!("conventions/{model}.pt2"));
        for (tool, total) in tools.as_object().expect("tools") {
            let Some(total) = total.as_i64().map(i128::from) else { continue };
            let counted = match tool.as_str() {
                "deepspeed MACs" => also(&figure(&file, &[], "deepspeed"), "MACs"),
                "fvcore activations" => also(&figure(&file, &[], "fvcore"), "activations"),
                tool => Some(figure(&file, &[], tool).total),
            };
            assert_eq!(counted, Some(total), "{model}: {tool}");
        }
    }
}

#[test]
fn images_come_out_as_the_tools_count_them() {
    check("resnet18", "fvcore", 1_819_065_856);
    check("resnet18", "thop", 1_824_033_792);
    check("resnet18", "ptflops", 1_814_074_344);
    check("resnet18", "ptflops-pytorch", 1_825_313_768);
    check("resnet18", "deepspeed", 3_636_250_112);
    check("resnet18", "flopcounter", 3_628_146_688);
    check("resnet18", "flopcounter-train", 10_648_412_160);
    check("resnet50", "fvcore", 4_111_512_576);
    check("resnet50", "ptflops-pytorch", 4_132_436_968);
    check("resnet50", "thop", 4_133_742_592);
    check("resnet50", "deepspeed", 8_211_108_352);
    check("mobilenet_v2", "fvcore", 314_193_216);
    check("mobilenet_v2", "ptflops-pytorch", 320_300_008);
    check("mobilenet_v2", "thop", 327_486_720);
    check("mobilenet_v2", "deepspeed", 614_967_488);
    // Its gradient of grouped weights is not divided by the groups: 6.9 times too much.
    check("mobilenet_v2", "flopcounter-train", 12_279_700_992);
    check("efficientnet_b0", "fvcore", 401_659_392);
    check("efficientnet_b0", "torchinfo", 385_867_108);
    check("convnext_tiny", "ptflops", 4_468_966_888);
    check("convnext_tiny", "torchinfo", 322_371_592);
    check("vgg16", "ptflops-pytorch", 15_523_225_576);
    check("vgg16", "thop", 15_470_314_496);
    check("swin_t", "fvcore", 4_509_232_128);
    check("swin_t", "ptflops", 4_503_738_856);
    check("swin_t", "ptflops-pytorch", 3_128_183_416);
    check("swin_t", "thop", 2_978_099_712);
    check("swin_t", "deepspeed", 9_008_009_616);
    check("swin_t", "flopcounter-train", 26_914_498_560);
}

#[test]
fn attention_that_inference_fuses_is_not_seen() {
    check("vit_b_16", "fvcore", 11_290_036_992);
    check("vit_b_16", "thop", 11_286_254_592);
    check("vit_b_16", "ptflops", 11_280_354_280);
    check("vit_b_16", "ptflops-pytorch", 17_606_030_584);
    check("vit_b_16", "deepspeed", 22_568_574_720);
    check("vit_b_16", "flopcounter", 22_542_249_984);
    check("vit_b_16", "flopcounter-train", 105_867_085_824);
    let slow = "set_fastpath_enabled(False)";
    assert_eq!(also(&figure("vit_b_16", &[], "flopcounter"), slow), Some(35_127_656_448));
    assert_eq!(also(&figure("vit_b_16", &[], "fvcore"), slow), Some(16_867_412_736));
}

#[test]
fn text_comes_out_as_the_tools_count_it() {
    // Of the first result only: tracing drops the pooler, which nothing hangs on.
    let bert = data("conventions/bert_base_first.pt2");
    check(&bert, "fvcore", 10_883_923_968);
    check(&bert, "flopcounter-train", 67_042_934_784);
    check("bert_base", "thop", 10_882_056_192);
    check("bert_base", "ptflops", 10_882_843_392);
    check("bert_base", "ptflops-pytorch", 10_885_300_992);
    check("bert_base", "deepspeed", 21_756_739_584);
    check("bert_base", "flopcounter", 22_348_431_360);
    check("gpt2", "fvcore", 15_824_388_096);
    check("gpt2", "thop", 4_950_294_528);
    check("gpt2", "ptflops", 15_822_716_928);
    check("gpt2", "ptflops-pytorch", 15_814_640_640);
    check("gpt2", "deepspeed", 31_636_571_136);
    check("gpt2", "flopcounter", 32_228_179_968);
    check("gpt2", "flopcounter-train", 96_684_539_904);
    check("llama_small", "fvcore", 3_581_935_616);
    check("llama_small", "thop", 3_581_935_616);
    check("llama_small", "ptflops-pytorch", 3_582_640_128);
    check("llama_small", "deepspeed", 7_164_575_744);
    check("llama_small", "flopcounter", 7_298_088_960);
    check("llama_small", "flopcounter-train", 21_961_375_744);
    // All that fvcore counts of GPT-2 is per token.
    let bound = figure("gpt2", &[("batch", 3), ("seq", 40)], "fvcore");
    assert_eq!(bound.total, 15_824_388_096 / 128 * 120);
}

#[test]
fn torchvision_prints_three_decimals() {
    let check = |model: &str, printed: &str| {
        let report = asked(model, &[], Conventions::One(Convention::Torchvision));
        let text = flopwise::report::json(&Report::Convention(Box::new(report)));
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["convention"]["printed"], printed, "{model}");
    };
    check("resnet18", "1.814");
    check("resnet50", "4.089");
    check("mobilenet_v2", "0.301");
    check("vit_b_16", "17.564");
    check("swin_t", "4.491");
    check("vgg16", "15.470");
}

#[test]
fn experts_in_formulas() {
    // pytorch/torchtitan PR 4300 prints 37,578,559,488 FLOPs per token for this model and length: the
    // experts that a token visits, and attention of every pair.
    let bind = [("batch", 1), ("seq", 8192)];
    let counted = figure("qwen3-30b-a3b", &bind, "torchtitan");
    assert_eq!(counted.total, 37_578_559_488 * 8192);
    // FlopCounterMode gave 267,264 MACs for the export: it does not see grouped products.
    check(&data("pt2/hf_mixtral.pt2"), "flopcounter", 2 * 267_264);
}

#[test]
fn formulas_of_language_models() {
    // 44,372,480 parameters, 4 layers of 8 heads of 64, 128 tokens, a table of 32,000 x 512.
    let (n, attention, tokens) = (44_372_480i128, 12 * 4 * 8 * 64 * 128i128, 128i128);
    let table = 32_000 * 512;
    check("llama_small", "6n", 6 * n * tokens);
    check("llama_small", "palm", (6 * n + attention) * tokens);
    check("llama_small", "nanogpt", (6 * n + attention) * tokens);
    check("llama_small", "torchtitan", (6 * (n - table) + attention) * tokens);
    // Nine norms of 512 are not multiplied as matrices; half of all pairs.
    let gemms = 6 * (n - table - 9 * 512);
    check("llama_small", "megatron", (gemms + attention / 2) * tokens);
    // GPT-2: nanoGPT leaves out 1,024 x 768 positions.
    let (n, attention) = (124_439_808i128, 12 * 12 * 12 * 64 * 128i128);
    check("gpt2", "palm", (6 * n + attention) * tokens);
    check("gpt2", "nanogpt", (6 * (n - 1024 * 768) + attention) * tokens);
}

#[test]
fn what_a_file_cannot_tell_is_said() {
    let resnet = data("onnx/resnet18.legacy.dyn.onnx");
    let report = asked(&resnet, &[], Conventions::All);
    for row in &report.rows {
        let needs_pytorch = !matches!(
            row.convention,
            Convention::Torchvision | Convention::Xla | Convention::OnnxTool
        );
        assert_eq!(row.figure.is_err(), needs_pytorch, "{:?}: {:?}", row.convention, row.figure);
    }
    // What onnx-tool says of the same export with a fixed batch of 1, and MobileNet's.
    check(&resnet, "onnx-tool", 1_821_452_264);
    check(&data("onnx/mobilenet_v2.dynamo.dyn.onnx"), "onnx-tool", 313_264_960);
    let report = asked("resnet18", &[], Conventions::One(Convention::Megatron));
    assert!(report.rows[0].figure.as_ref().is_err_and(|why| why.contains("tokens")));
}

#[test]
fn every_convention_of_every_built_in_model_adds_up() {
    // timm's networks have the operators of torchvision's, and are too many for every convention.
    let names = flopwise::arch::names().filter(|(model, _)| !model.starts_with("timm/"));
    for (model, _) in names {
        for row in asked(&model, &[], Conventions::All).rows {
            if let Ok(figure) = &row.figure {
                adds_up(figure, &model);
            }
        }
    }
}
