//! `number` and `format`: whole outputs, and what nonsense is answered.

use crate::run::{flopwise, flopwise_with_stdin};
use serde_json::Value;

#[track_caller]
fn stdout(args: &[&str]) -> String {
    let ran = flopwise(args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    ran.stdout
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

#[test]
fn a_value_in_every_format() {
    insta::assert_snapshot!(stdout(&["number", "0.052"]));
}

#[test]
fn the_working_of_a_conversion() {
    insta::assert_snapshot!(stdout(&["number", "0.052", "--format", "fp32", "--explain"]));
}

#[test]
fn values_in_blocks() {
    let args = ["number", "1", "2", "3.3", "-0.7", "--format", "mxfp4,nvfp4"];
    insta::assert_snapshot!(stdout(&args));
}

#[test]
fn the_list_of_formats() {
    insta::assert_snapshot!(stdout(&["format"]));
}

#[test]
fn a_format_in_full() {
    insta::assert_snapshot!(stdout(&["format", "e4m3fn"]));
}

/// The code and value of one value in one format.
#[track_caller]
fn check(args: &[&str], bits: &str, value: &str) {
    let found = json(&[&["number", "--json"], args].concat());
    let row = &found["results"][0];
    assert_eq!(
        (row["bits"].as_str(), row["value"].as_str()),
        (Some(bits), Some(value)),
        "{args:?}"
    );
}

#[test]
fn values_in_every_notation() {
    check(&["0.052", "--format", "fp32"], "0x3d54fdf4", "0.05200000107288360595703125");
    check(&["0.052", "--format", "fp16"], "0x2aa8", "0.052001953125");
    check(&["0.052", "--format", "bf16"], "0x3d55", "0.052001953125");
    check(&["0x1.a9fbe7p-5", "--format", "fp32"], "0x3d54fdf4", "0.05200000107288360595703125");
    check(&["0x3D54FDF4:fp32", "--format", "fp16"], "0x2aa8", "0.052001953125");
    check(&["0b0010101010101000:fp16", "--format", "bf16"], "0x3d55", "0.052001953125");
    check(&["1/3", "--format", "e2m1"], "0x1", "0.5");
    check(&["-0", "--format", "e4m3fnuz"], "0x00", "0");
    check(&["-1/3", "--format", "e5m2"], "0xb5", "-0.3125");
    check(&["-inf", "--format", "e5m2"], "0xfc", "-inf");
    check(&["nan(0x12)", "--format", "fp32"], "0x7fc00012", "nan(0x12)");
    check(&["1e-400", "--format", "fp64"], "0x0000000000000000", "0");
    check(&["1e-400", "--format", "fp64", "--round", "up"], "0x0000000000000001", &tiny());
    check(&["7", "--format", "fp(3,2,inf=none,nan=none)"], "0x17", "7");
    check(&["7", "--format", "binary8p4se"], "0x56", "7");
    check(&["0.3", "--format", "int8(scale=0.05,zero=3)"], "0x09", "0.3");
}

/// 2^-1074.
fn tiny() -> String {
    format!("{:.1074}", f64::from_bits(1))
}

#[test]
fn conventions_have_names() {
    let e4m3 = |args: &[&'static str]| [&["465", "--format", "e4m3fn"], args].concat();
    check(&e4m3(&[]), "0x7f", "nan");
    check(&e4m3(&["--overflow", "saturate-finite"]), "0x7e", "448");
    check(&["inf", "--format", "e5m2", "--overflow", "saturate-propagate"], "0x7c", "inf");
    check(&["inf", "--format", "e5m2fnuz", "--overflow", "onnx"], "0x80", "nan");
    check(&["464", "--format", "e4m3fn", "--round", "nearest-away"], "0x7f", "nan");
    check(&["1e-3", "--format", "e4m3fn", "--subnormals", "flush"], "0x00", "0");
    let random = |bits| ["1.1", "--format", "e5m2", "--round", "stochastic-a", "--random", bits];
    check(&random("100/8"), "0x3c", "1");
    check(&random("200/8"), "0x3d", "1.25");
}

#[test]
fn casts_of_other_systems_are_told() {
    let cast = |system| {
        let args = ["number", "465", "--format", "e4m3fn", "--as", system, "--json"];
        json(&args)["results"][0]["cast"]["bits"].as_str().unwrap().to_owned()
    };
    assert_eq!(cast("pytorch"), "0x7e");
    assert_eq!(cast("pytorch-2.11"), "0x7f");
    assert_eq!(cast("onnx"), "0x7e");
    assert_eq!(cast("ml_dtypes"), "0x7f");
    assert_eq!(cast("cuda"), "0x7e");
    assert_eq!(cast("p3109"), "0x7e");
    // Two roundings: 1 + 2^-8 + 2^-40 is a tie in binary32.
    let twice = ["number", "0x1.0100000001p0", "--format", "bf16", "--as", "ml_dtypes"];
    let told = stdout(&twice);
    assert!(told.contains("0x3F80") && told.contains("rounds twice"), "{told}");
}

#[test]
fn json_holds_what_the_documents_promise() {
    let found = json(&["number", "0.052", "--format", "fp32", "--explain", "--json"]);
    assert_eq!((found["schema"].as_u64(), found["kind"].as_str()), (Some(1), Some("number")));
    assert_eq!(found["input"], "0.052");
    let row = &found["results"][0];
    assert_eq!(row["format"], "fp32");
    assert_eq!(row["sign"], 0);
    assert_eq!(row["exponent_field"], 122);
    assert_eq!(row["significand_field"], 5_570_036);
    assert_eq!(row["class"], "normal");
    assert_eq!(row["flags"], serde_json::json!(["inexact"]));
    assert_eq!(row["exact_error"], "0.00000000107288360595703125");
    assert_eq!(row["below"]["bits"], "0x3d54fdf3");
    let last = row["steps"].as_array().unwrap().last().unwrap();
    assert!(last["lines"][1].as_str().unwrap().contains("0x3D540000, 65,012 ulp away"), "{last}");
    let formats = json(&["format", "--json"]);
    assert_eq!(formats["kind"], "formats");
    assert!(formats["formats"].as_array().unwrap().len() > 30);
}

#[test]
fn values_come_from_stdin() {
    let ran = flopwise_with_stdin(&["number", "-", "--format", "e2m1", "--json"], "1 2.6\n-7\n");
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    let values: Vec<&str> = found["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["value"].as_str().unwrap())
        .collect();
    assert_eq!(values, ["1", "3", "-6"]);
}

#[test]
fn nonsense_gets_one_line() {
    #[track_caller]
    fn check(args: &[&str], expected: &str) {
        let ran = flopwise(&[&["number"], args].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    check(&["0x"], "`0x` is not a number: at character 3, hexadecimal digits are missing");
    check(&["1e"], "at character 3, the digits of the exponent are missing");
    check(&["nan("], "`)` is missing");
    check(&[""], "a number is missing");
    check(&["."], "digits are missing");
    check(&["1..2"], "at character 3");
    check(&["1/0"], "the denominator is zero");
    check(&["0.1.2.3"], "`.` stands where");
    check(&["0x1.8"], "needs its exponent");
    check(&["0x12345:fp16"], "fp16 has 16 bits only");
    check(&["3:fp16"], "start with 0x or 0b");
    check(&["0x1:text"], "text");
    check(&["1", "--format", "fp8"], "is ambiguous; say which: e4m3fn");
    check(&["1", "--format", "mxfp8"], "mxfp8_e5m2");
    check(&["1", "--format", "fp(0,0)"], "exponent bits are 1 to 15");
    check(&["1", "--format", "complex64"], "holds no single number");
    check(&["1", "--format", "q4_k"], "decoded only");
    check(&["1", "--format", "int8(scale=0)"], "not above zero");
    check(&["1", "--round", "stochastic-a"], "--random 5/8");
    check(&["1", "--random", "1/2"], "--round stochastic");
    let long = "9".repeat(10_001);
    check(&[&long], "more than 10,000 digits");
}
