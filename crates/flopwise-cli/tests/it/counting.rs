//! What `count` does beside counting once: comparisons, sweeps, masks, decoding, other formats.

use crate::run::{data, flopwise, flopwise_in, folder};
use serde_json::Value;
use std::fs;

fn json(args: &[&str]) -> Value {
    let ran = flopwise(args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

#[test]
fn two_models_side_by_side() {
    let ran = flopwise(&["count", "resnet18", "--versus", "resnet34"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ran.stdout);
    let both = json(&["count", "resnet18", "--versus", "resnet34", "--by", "module", "--json"]);
    assert_eq!(both["left"]["totals"]["macs"], 1_814_073_344u64);
    assert_eq!(both["right"]["totals"]["macs"], 3_663_761_408u64);
    let rows = both["rows"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(row("fc")["left"], row("fc")["right"]);
    assert_eq!(row("layer3.5.conv1")["left"], Value::Null);
    for (side, macs) in [("left", 1_814_073_344u64), ("right", 3_663_761_408)] {
        let sum: u64 = rows.iter().filter_map(|row| row[side]["macs"].as_u64()).sum();
        assert_eq!(sum, macs, "{side}");
    }
}

#[test]
fn one_model_at_two_sizes() {
    let args = ["count", "gpt2", "--bind", "seq=128", "--versus-bind", "seq=256", "--json"];
    let both = json(&args);
    assert_eq!(both["left"]["bindings"]["seq"], 128);
    assert_eq!(both["right"]["bindings"]["seq"], 256);
    let row = both["rows"].as_array().unwrap().iter().find(|row| row["name"] == "attention");
    let macs = |side: &str| row.unwrap()[side]["macs"].as_u64().unwrap();
    assert_eq!(macs("right"), 4 * macs("left"));
}

#[test]
fn a_sweep_is_tabulated_and_drawn() {
    let folder = folder();
    let args = ["count", "llama_small", "--sweep", "seq=128..1k", "--svg", "sweep.svg"];
    let ran = flopwise_in(folder.path(), &args);
    assert_eq!((ran.code, ran.stderr.trim()), (0, "wrote sweep.svg"));
    insta::assert_snapshot!(ran.stdout);
    let drawn = fs::read_to_string(folder.path().join("sweep.svg")).unwrap();
    assert_eq!(drawn.matches("<polyline").count(), 2);
    // The drawing may be drawn again; another file is left alone.
    assert_eq!(flopwise_in(folder.path(), &args).code, 0);
    fs::write(folder.path().join("sweep.svg"), "mine").unwrap();
    let ran = flopwise_in(folder.path(), &args);
    assert_eq!(ran.code, 2);
    assert_eq!(fs::read_to_string(folder.path().join("sweep.svg")).unwrap(), "mine");
}

#[test]
fn a_sweep_counts_what_single_counts_do() {
    for (sweep, values) in [("seq=10..40+10", [10, 20, 30, 40]), ("seq=7,1,9,512", [7, 1, 9, 512])]
    {
        let swept = json(&["count", "gpt2", "--bind", "batch=2", "--sweep", sweep, "--json"]);
        let rows = swept["rows"].as_array().unwrap();
        assert_eq!(rows.len(), values.len());
        for (row, value) in rows.iter().zip(values) {
            let bind = format!("batch=2,seq={value}");
            let totals = &json(&["count", "gpt2", "--bind", &bind, "--json"])["totals"];
            for field in ["macs", "other_ops", "bytes_read", "bytes_written", "activation_bytes"] {
                assert_eq!(row[field], totals[field], "{field} at {value}");
            }
        }
    }
}

#[test]
fn sweeps_that_cannot_be() {
    let check = |sweep: &str, expected: &str| {
        let ran = flopwise(&["count", "gpt2", "--sweep", sweep]);
        assert_eq!(ran.code, 2, "{sweep}");
        assert!(ran.stderr.contains(expected), "{sweep}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{sweep}");
    };
    check("seq", "is no sweep");
    check("seq=", "is no size");
    check("seq=0..8", "is no size");
    check("seq=8..4", "is no sweep");
    check("seq=1..1M+1", "more than 1000 points");
    check("seq=512..4k", "out of range");
    check("nothing=1..8", "is not a symbol");
}

#[test]
fn masks_and_decoding_from_the_command_line() {
    let macs = |args: &[&str]| {
        let all = [&["count", "llama_small"], args, &["--json"]].concat();
        json(&all)["totals"]["macs"].as_u64().unwrap()
    };
    let (per_token, per_pair) = (27_983_872, 4096);
    let tokens = 1024 * per_token;
    assert_eq!(macs(&["--bind", "seq=1k"]), tokens + per_pair * 1024 * 1024);
    let pairs =
        |mask: &str| (macs(&["--bind", "seq=1024", "--attention", mask]) - tokens) / per_pair;
    assert_eq!(pairs("full"), 1024 * 1024);
    assert_eq!(pairs("causal"), 1024 * 1025 / 2);
    assert_eq!(pairs("window=128"), 128 * 129 / 2 + 896 * 128);
    assert_eq!(pairs("chunk=256"), 4 * (256 * 257 / 2));
    let packed = macs(&["--packed", "512,256,256", "--attention", "causal"]);
    assert_eq!(packed, tokens + per_pair * (512 * 513 / 2 + 256 * 257));
    let decoded = macs(&["--mode", "decode", "--bind", "context=8192"]);
    assert_eq!(decoded, per_token + per_pair * 8192);
    let formula = flopwise(&["count", "llama_small", "--mode", "decode", "--formula"]).stdout;
    let first = formula.lines().next().unwrap();
    assert_eq!(first, "MACs               = 27983872*batch + 4096*batch*context");
    let ran = flopwise(&["count", "llama_small", "--attention", "window"]);
    assert!(ran.stderr.contains("window=N"), "{}", ran.stderr);
}

#[test]
fn a_file_that_writes_attention_out_decodes_the_same() {
    let file = data("onnx/llama_small.dynamo.dyn.onnx");
    let args = ["--mode", "decode", "--bind", "context=4096,batch=2", "--json"];
    let macs = |model: &str| {
        let all = [&["count", model], args.as_slice()].concat();
        json(&all)["totals"]["macs"].as_u64().unwrap()
    };
    assert_eq!(macs(file.to_str().unwrap()), macs("llama_small"));
}

#[test]
fn training_from_the_command_line() {
    let ran = flopwise(&["count", "resnet18", "--mode", "train", "--optimizer", "momentum"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ran.stdout);
    let totals = |args: &[&str]| {
        let all = [&["count", "resnet18", "--mode", "train"], args, &["--json"]].concat();
        json(&all)["totals"].clone()
    };
    assert_eq!(totals(&[])["model_flops"], 10_648_412_160u64);
    // All frozen but the classifier: its 512,000 MACs twice, everything else once.
    let frozen = totals(&["--train-only", "fc.*"]);
    assert_eq!(frozen["model_flops"], 2 * (1_814_073_344u64 + 512_000));
    let ran = flopwise(&["count", "resnet18", "--convention", "flopcounter", "--mode", "train"]);
    assert!(ran.stdout.contains("10,648,412,160"), "{}", ran.stdout);
    let refused: [(&[&str], &str); 4] = [
        (&["count", "resnet18", "--freeze", "fc.*"], "needs --mode train"),
        (&["count", "resnet18", "--mode", "train", "--versus", "vgg16"], "--versus"),
        (&["count", "resnet18", "--mode", "train", "--train-only", "nothing.*"], "nothing.*"),
        (&["estimate", "resnet18", "--mode", "train"], "not estimated"),
    ];
    for (args, expected) in refused {
        let ran = flopwise(args);
        assert_eq!(ran.code, 2, "{args:?}");
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn weights_in_another_format() {
    let bytes = |format: &str| {
        let count = json(&["count", "resnet18", "--weights", format, "--json"]);
        count["totals"]["weight_bytes"].as_u64().unwrap()
    };
    assert_eq!(bytes("bf16"), 2 * 11_689_512);
    // Kernels and the classifier: 11,678,912 elements; the others are 9,600 of batch norms and
    // 1,000 biases. Each row of a kernel is filled up to whole blocks: the first layer's 147
    // elements take five blocks.
    let kernels = 11_678_912;
    let filled = 64 * (160 - 147);
    assert_eq!(bytes("mxfp8_e4m3"), (kernels + filled) * 33 / 32 + 4 * 10_600);
    let ran = flopwise(&["count", "resnet18", "--weights", "fp5_e9m9"]);
    assert_eq!(ran.code, 2);
}
