//! `flopwise matmul-error` from outside.

use crate::run::flopwise;

#[track_caller]
fn refused(args: &[&str], expected: &str) {
    let ran = flopwise(&[&["matmul-error"], args].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
}

#[track_caller]
fn answered(args: &str) -> serde_json::Value {
    let ran = flopwise(&args.split_whitespace().collect::<Vec<_>>());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn every_combination_is_answered() {
    let json = answered(
        "matmul-error --format fp8_e4m3,mxfp4 --accumulate fp32,fp(8,13) --chunk none,32 --m 2 \
         --n 2 --k 64 --json",
    );
    assert_eq!(json["kind"], "matmul-error");
    assert_eq!(json["rows"].as_array().unwrap().len(), 8);
    assert_eq!(json["rows"][3]["outer"], "fp32");
    assert_eq!(json["rows"][3]["accumulate"], "fp(8,13)");
}

/// 2048 + 1 is no FP16 number; pairs never meet it.
#[test]
fn ones_stall_in_one_order_only() {
    let json = answered(
        "matmul-error --format fp16 --accumulate fp16 --distribution ones --m 1 --n 1 --order \
         sequential,pairwise,kahan --json",
    );
    let errors = [0, 1, 2].map(|row| json["rows"][row]["total"]["max"].as_f64().unwrap());
    assert_eq!(errors.map(|error| error as i64), [2048, 0, 0]);
}

#[test]
fn bad_values_are_refused() {
    refused(&["--format", "fp17"], "`fp17`: is unknown");
    refused(&["--accumulate", "int8"], "cannot hold partial sums");
    refused(&["--m", "100000", "--n", "100000"], "m = 100000");
    refused(&["--k", "0"], "each must be at least 1");
    refused(&["--m", "128", "--n", "128", "--k", "131072"], "more than 2^31");
    refused(&["--chunk", "0"], "write how many products");
    refused(&["--distribution", "cauchy"], "student-t");
    refused(&["--rounding", "stochastic", "--random-bits", "60"], "fp32 takes 1 to 27");
}
