//! Each command's whole output, and what it promises about streams and exit codes.

use crate::run::{data, flopwise, flopwise_in, folder};
use serde_json::Value;
use std::fs;

/// A profile with round numbers, so that estimates are the same everywhere.
const PROFILE: &str = include_str!("../data/profile.json");

fn json(args: &[&str]) -> Value {
    let ran = flopwise(args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

#[test]
fn count_prints_totals_and_rows() {
    let ran = flopwise(&["count", "resnet18", "--bind", "batch=8"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn count_prints_the_formula_of_an_open_model() {
    let ran = flopwise(&["count", "gpt2", "--formula"]);
    let macs = ran.stdout.lines().next().unwrap();
    assert_eq!(macs, "MACs               = 123532032*batch*seq + 18432*batch*seq^2");
    let half = flopwise(&["count", "gpt2", "--formula", "--bind", "seq=1024"]);
    let macs = half.stdout.lines().next().unwrap();
    assert_eq!(macs, "MACs               = 145824153600*batch");
}

#[test]
fn count_json_holds_what_the_documents_promise() {
    let count = json(&["count", "gpt2", "--bind", "batch=1,seq=128", "--json"]);
    assert_eq!(count["schema"], 1);
    assert_eq!(count["kind"], "count");
    assert_eq!(count["bindings"], serde_json::json!({"batch": 1, "seq": 128}));
    assert_eq!(count["assumed"], serde_json::json!([]));
    assert_eq!(count["totals"]["macs"], 16_114_089_984u64);
    assert_eq!(count["totals"]["model_flops"], 32_228_179_968u64);
    assert_eq!(count["totals"]["hardware_flops"], 32_228_179_968u64);
    assert_eq!(count["totals"]["parameters"], 124_439_808);
    assert_eq!(count["totals"]["weight_bytes"], 497_759_232);
    assert_eq!(count["formula"]["macs"], "123532032*batch*seq + 18432*batch*seq^2");
    assert_eq!(count["lower_bound"], false);
    let nodes = count["nodes"].as_array().unwrap();
    let sum: u64 = nodes.iter().map(|node| node["macs"].as_u64().unwrap()).sum();
    assert_eq!(sum, 16_114_089_984);
    let rows = count["rows"].as_array().unwrap();
    let sum: u64 = rows.iter().map(|row| row["macs"].as_u64().unwrap()).sum();
    assert_eq!(sum, 16_114_089_984);
}

#[test]
fn count_prints_what_another_tool_prints_and_why() {
    let ran = flopwise(&["count", "vit_b_16", "--convention", "fvcore", "--explain"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in ["11,290,036,992", "17,563,828,224", "How it comes about", "Why they differ"] {
        assert!(ran.stdout.contains(part), "{part} in\n{}", ran.stdout);
    }
    let all = flopwise(&["count", "resnet50", "--convention", "all"]);
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
    for part in ["4,111,512,576", "4,133,742,592", "onnx-tool", "megatron"] {
        assert!(all.stdout.contains(part), "{part} in\n{}", all.stdout);
    }
}

#[test]
fn a_convention_in_json_holds_what_the_documents_promise() {
    let one = json(&["count", "resnet50", "--convention", "fvcore", "--json"]);
    assert_eq!((&one["schema"], &one["kind"]), (&1.into(), &"convention".into()));
    let one = &one["convention"];
    assert_eq!((&one["name"], &one["unit"]), (&"fvcore".into(), &"MACs".into()));
    assert_eq!(one["total"], 4_111_512_576u64);
    assert_eq!(one["ours"], 4_089_184_256u64);
    assert_eq!(one["lines"][0]["reason"], "batch_norm: 2 per element");
    assert_eq!(one["lines"][0]["amount"], 22_227_968);
    assert_eq!(one["lines"][0]["nodes"], 53);
    let all = json(&["count", "resnet50", "--convention", "all", "--json"]);
    let names = all["conventions"].as_array().unwrap().iter().map(|row| row["name"].as_str());
    let names: Vec<&str> = names.map(Option::unwrap).collect();
    assert!(["thop", "torchinfo", "6n", "megatron"].iter().all(|name| names.contains(name)));
}

#[test]
fn an_unknown_convention_is_refused_with_the_names() {
    let ran = flopwise(&["count", "resnet50", "--convention", "flops"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("fvcore") && ran.stderr.contains("megatron"), "{}", ran.stderr);
    let copy = json(&["count", "resnet50", "--convention", "calflops", "--json"]);
    assert_eq!(copy["convention"]["name"], "deepspeed");
}

#[test]
fn what_is_assumed_is_said() {
    let count = json(&["count", "gpt2", "--json"]);
    assert_eq!(count["assumed"], serde_json::json!(["batch", "seq"]));
    assert_eq!(count["bindings"], serde_json::json!({"batch": 1, "seq": 128}));
    let text = flopwise(&["count", "gpt2"]).stdout;
    assert!(text.starts_with("Model gpt2 at batch=1, seq=128 (assumed"), "{text}");
}

#[test]
fn the_files_own_symbol_names_are_accepted() {
    let ours = json(&["count", "gpt2", "--bind", "batch=2,seq=64", "--json"]);
    let symbols = ours["symbols"].as_array().unwrap();
    let bind: Vec<String> = symbols
        .iter()
        .zip([2, 64])
        .map(|(symbol, value)| format!("{}={value}", symbol["aliases"][0].as_str().unwrap()))
        .collect();
    let theirs = json(&["count", "gpt2", "--bind", &bind.join(","), "--json"]);
    assert_eq!(ours["totals"], theirs["totals"]);
}

#[test]
fn bindings_that_contradict_are_errors() {
    let check = |bind: &str, expected: &str| {
        let ran = flopwise(&["count", "bert_base", "--bind", bind]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    };
    check("seq=513", "seq=513 is out of range: this model takes seq from 1 to 512");
    check("height=3", "`height` is not a symbol of this model; its symbols are batch");
    check("batch=0", "batch=0 is out of range");
    check("batch=1,batch=2", "`batch` is bound to both 1 and 2");
}

#[test]
fn an_unknown_operator_makes_a_lower_bound() {
    let file = data("onnx/unknown_operator.onnx");
    let file = file.to_str().unwrap();
    let ran = flopwise(&["count", file]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("at least"), "{}", ran.stdout);
    assert!(ran.stdout.contains("1 x Mystery, first `mystery`"), "{}", ran.stdout);
    assert_eq!(flopwise(&["count", file, "--strict"]).code, 1);
    let count = json(&["count", file, "--json"]);
    assert_eq!(count["lower_bound"], true);
    assert_eq!(count["unknown"][0]["count"], 1);
    assert_eq!(flopwise(&["count", "resnet18", "--strict"]).code, 0);
}

#[test]
fn causal_attention_is_exact_unless_asked_otherwise() {
    let file = data("pt2/torch_2.9_tiny_gpt_causal.pt2");
    let macs = |attention: &str| {
        let args = ["count", file.to_str().unwrap(), "--attention", attention, "--json"];
        json(&args)["totals"]["macs"].as_u64()
    };
    // At batch=1, seq=128 FlopCounterMode, which ignores the mask, says 75,104,256.
    assert_eq!(macs("full"), Some(75_104_256));
    assert_eq!(macs("exact"), Some(70_942_720));
}

#[test]
fn explain_shows_the_working() {
    let ran = flopwise(&["count", "resnet18", "--explain", "layer1.0.conv1"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ran.stdout);
    let whole = json(&["count", "gpt2", "--explain", "--json"]);
    assert_eq!(whole["kind"], "explanation");
    assert_eq!(whole["steps"][0]["factors"], "123532032*batch*seq + 18432*batch*seq^2");
    assert_eq!(whole["steps"][0]["value"], 16_114_089_984u64);
    let missing = flopwise(&["count", "resnet18", "--explain", "layer9"]);
    assert!(missing.code == 2 && missing.stderr.contains("no node, result or module called"));
}

#[test]
fn estimate_on_a_given_machine() {
    let folder = folder();
    fs::write(folder.path().join("machine.json"), PROFILE).unwrap();
    let args = ["estimate", "resnet18", "--on", "machine.json", "--bind", "batch=1"];
    let ran = flopwise_in(folder.path(), &args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn report_prints_one_page_and_draws_the_roofline() {
    let folder = folder();
    fs::write(folder.path().join("machine.json"), PROFILE).unwrap();
    let args =
        ["report", "gpt2", "--on", "machine.json", "--bind", "batch=1,seq=128", "--html", "p.html"];
    let ran = flopwise_in(folder.path(), &args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "wrote p.html\n"));
    insta::assert_snapshot!(ran.stdout);
    let page = fs::read_to_string(folder.path().join("p.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("ridge"), "no roofline");
    // A page of ours is replaced; anything else is not.
    assert_eq!(flopwise_in(folder.path(), &args).code, 0);
    fs::write(folder.path().join("p.html"), "my diary").unwrap();
    let ran = flopwise_in(folder.path(), &args);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("was not written by flopwise"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("p.html")).unwrap(), "my diary");
}

#[test]
fn estimate_json_adds_up() {
    let folder = folder();
    fs::write(folder.path().join("machine.json"), PROFILE).unwrap();
    let args = ["estimate", "resnet18", "--on", "machine.json", "--json"];
    let ran = flopwise_in(folder.path(), &args);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let estimate = &report["estimate"];
    let time = estimate["time_s"].as_f64().unwrap();
    let parts = estimate["time_by_bound_s"].as_object().unwrap().values();
    let sum: f64 = parts.map(|part| part.as_f64().unwrap()).sum();
    assert!((sum - time).abs() < 1e-9 * time);
    let flops = report["count"]["totals"]["model_flops"].as_f64().unwrap();
    let achieved = estimate["achieved_flops_per_s"].as_f64().unwrap();
    assert!((achieved * time / flops - 1.0).abs() < 1e-9);
    assert!(4 < estimate["assumptions"].as_array().unwrap().len());
}

#[test]
fn models_are_listed_and_each_opens() {
    let models = json(&["model", "--json"]);
    let listed = models["models"].as_array().unwrap();
    let text = |model: &Value, field: &str| model[field].as_str().unwrap().to_owned();
    let names: Vec<String> = listed.iter().map(|m| text(m, "name")).collect();
    for wanted in
        ["resnet50", "resnet18", "mobilenet_v2", "vgg16", "vit_b_16", "swin_t", "gpt2", "bert_base"]
    {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is missing");
    }
    // Every image network is opened in the library's own tests.
    let others = listed.iter().filter(|m| !text(m, "group").starts_with("Image networks"));
    for name in others.map(|m| text(m, "name")) {
        let ran = flopwise(&["count", &name, "--strict"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
    }
}

#[test]
fn one_model_or_those_of_a_part_are_shown() {
    let ran = flopwise(&["model", "Swin_V2_"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout);
    let ran = flopwise(&["model", "timm_resnet18"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout);
    let shown = json(&["model", "resnet18", "--json"]);
    assert_eq!(shown["kind"], "model");
    assert_eq!(shown["parameters"], 11_689_512);
    assert_eq!(shown["macs"], "1814073344*batch");
    let ran = flopwise(&["model", "resnt18"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("did you mean resnet18"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[test]
fn measure_writes_a_profile_that_estimate_reads() {
    let folder = folder();
    let ran = flopwise_in(folder.path(), &["measure", "--quick", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut profile: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(profile["kind"], "measure");
    let roofline = profile.as_object_mut().unwrap().remove("roofline").unwrap();
    assert_eq!(roofline["roofs"][0]["format"], "fp32");
    let stored = fs::read_to_string(folder.path().join("flopwise/this.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), profile);
    let ran = flopwise_in(folder.path(), &["estimate", "resnet18"]);
    assert!(ran.code == 0 || ran.stderr.contains("flopwise measure"), "{}", ran.stderr);
}

#[test]
fn help_teaches_and_completions_complete() {
    let help = flopwise(&["--help"]);
    assert_eq!(help.code, 0);
    insta::assert_snapshot!(help.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let ran = flopwise(&["completions", shell]);
        assert!(ran.code == 0 && ran.stdout.contains("report"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_flopwise"))
        .args(["count", "swin_t", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}
