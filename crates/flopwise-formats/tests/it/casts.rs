//! What other systems give, as they gave it themselves (`tests/data/casts.json.gz`).

use crate::vectors::{assert_code, double, hexadecimal, read};
use flopwise_formats::codec::{self, Rules};
use flopwise_formats::system::{System, cast};
use flopwise_formats::{Exact, Format, parse};
use serde_json::Value;

/// The system that a row was taken from; `None` for settings that are not the defaults modelled.
fn system_of(row: &Value) -> Option<System> {
    let is = |key: &str, value: Value| row.get(key).is_none_or(|found| *found == value);
    match (row["system"].as_str().unwrap(), row["version"].as_str().unwrap()) {
        ("torch", "2.15.0") => Some(System::Pytorch),
        ("torch", _) => Some(System::Pytorch2_11),
        ("onnx", _) if is("saturate", 1.into()) && is("round_mode", "up".into()) => {
            Some(System::Onnx)
        }
        ("cuda", _) if is("mode", "sat".into()) || is("mode", "sat-up".into()) => {
            Some(System::Cuda)
        }
        ("ml_dtypes" | "numpy", _) => Some(System::MlDtypes),
        _ => None,
    }
}

#[test]
fn casts_are_those_of_the_systems() {
    let table = read("casts.json.gz");
    let mut n_checked = 0;
    for row in table["casts"].as_array().unwrap() {
        let Some(system) = system_of(row) else { continue };
        let format = parse(row["format"].as_str().unwrap()).unwrap();
        let source = row["source"].as_str().unwrap();
        let probes = table["probes"][source].as_array().unwrap();
        for (probe, expected) in probes.iter().zip(row["codes"].as_array().unwrap()) {
            let value = match source {
                "f32" => codec::decode(Format::FP32, hexadecimal(probe)).unwrap(),
                _ => Exact::from_f64(double(probe)),
            };
            let found = cast(system, format, &value, Rules::IEEE).unwrap();
            let what = format!("{system} {probe} {source}");
            let is_fnuz = [Format::E4M3FNUZ, Format::E5M2FNUZ].contains(&format);
            let single = codec::encode(Format::FP32, &value, Rules::IEEE).code & 0x7fff_ffff;
            if system == System::Onnx && is_fnuz && single == 0x7f80_0000 {
                // The evaluator contradicts the operator's text, which we follow.
                assert!(matches!(found.value, Exact::Nan { .. }), "{what}");
                continue;
            }
            let is_nan = matches!(value, Exact::Nan { .. });
            let has_nan = format.float().unwrap().nan_code().is_some();
            if is_nan && has_nan && (format.bits >= 16 || source == "f64") {
                // Which payload and sign depends on the processor and the vector width there.
                assert!(matches!(found.value, Exact::Nan { .. }), "{what}");
            } else {
                assert_code(format, found.code, expected, &what);
            }
            n_checked += 1;
        }
    }
    assert!(n_checked > 10_000, "{n_checked}");
}
