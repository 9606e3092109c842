//! Every row of `tests/data/vectors.json.gz`: what an exact rational reference, gfloat 0.5.2 and
//! `ml_dtypes` 0.6.0 give (its `meta` says which agrees where).

use flate2::read::GzDecoder;
use flopwise_formats::codec::{
    self, Overflow, Rounding, Rules, Stochastic, StochasticVariant, decode_f64,
};
use flopwise_formats::{Exact, Format, parse};
use serde_json::Value;
use std::fs::File;
use std::path::Path;

/// A compressed JSON file of `tests/data`.
pub(crate) fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    serde_json::from_reader(GzDecoder::new(File::open(path).unwrap())).unwrap()
}

/// `f8_e4m3` there is LLVM's, which is IEEE-like; safetensors' of that name is not.
fn format_called(key: &str) -> Format {
    match key {
        "f8_e4m3" => Format::E4M3,
        other => parse(other).unwrap(),
    }
}

fn hexadecimal(value: &Value) -> u128 {
    u128::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn double(value: &Value) -> f64 {
    f64::from_bits(hexadecimal(value) as u64)
}

fn is_nan(format: Format, code: u128) -> bool {
    matches!(codec::decode(format, code), Some(Exact::Nan { .. }))
}

/// One expected code; `nan` is any NaN, and null what the format cannot express.
#[track_caller]
fn check(format: Format, value: f64, rules: Rules, expected: &Value) {
    let code = codec::encode_f64(format, value, rules).code;
    let slow = codec::encode(format, &Exact::from_f64(value), rules).code;
    assert_eq!(code, slow, "{format} {value:e} {rules:?}");
    match expected {
        Value::Null => {}
        Value::String(text) if text == "nan" => {
            assert!(is_nan(format, code), "{format} {value:e} {rules:?}: {code:#x}");
        }
        text => assert_eq!(code, hexadecimal(text), "{format} {value:e} {rules:?}"),
    }
}

#[test]
fn decoding_tables() {
    for (key, table) in read("vectors.json.gz")["decode"].as_object().unwrap() {
        let format = format_called(key);
        let values = table["f64_bits"].as_array().unwrap();
        assert_eq!(values.len(), 1 << format.bits);
        for (code, expected) in values.iter().enumerate() {
            let found = decode_f64(format, code as u128);
            let same = match expected.as_str() {
                Some("nan") => found.is_nan(),
                _ => {
                    found.to_bits() == double(expected).to_bits()
                        || (found.is_nan() && double(expected).is_nan())
                }
            };
            assert!(same, "{format} {code:#x}: {found:e}, expected {expected}");
        }
    }
}

#[test]
fn conversions() {
    let mut n_rows = 0;
    for (key, sources) in read("vectors.json.gz")["convert"].as_object().unwrap() {
        let format = format_called(key);
        for (source, rows) in sources.as_object().unwrap() {
            for row in rows.as_array().unwrap() {
                let bits = hexadecimal(&row[0]);
                let value = match source.as_str() {
                    "from_f32" => f64::from(f32::from_bits(bits as u32)),
                    _ => f64::from_bits(bits as u64),
                };
                check(format, value, Rules::IEEE, &row[1]);
                check(format, value, Rules::SATURATING, &row[2]);
                if format == Format::E8M0 {
                    // There `ml_dtypes` and PyTorch round ties up.
                    let up = |rules| Rules { rounding: Rounding::NearestAway, ..rules };
                    check(format, value, up(Rules::IEEE), &row[3]);
                    check(format, value, up(Rules::SATURATING), &row[4]);
                }
                n_rows += 1;
            }
        }
    }
    assert_eq!(n_rows, 66_000);
}

#[test]
fn rounding_modes() {
    const MODES: [Rounding; 6] = [
        Rounding::NearestEven,
        Rounding::NearestAway,
        Rounding::TowardZero,
        Rounding::Up,
        Rounding::Down,
        Rounding::ToOdd,
    ];
    for (key, table) in read("vectors.json.gz")["rounding_modes"].as_object().unwrap() {
        let format = format_called(key);
        for row in table["rows"].as_array().unwrap() {
            for (mode_idx, rounding) in MODES.into_iter().enumerate() {
                let rules = Rules { rounding, ..Rules::IEEE };
                check(format, double(&row[0]), rules, &row[mode_idx + 1]);
            }
        }
    }
}

#[test]
fn stochastic_rounding() {
    const COLUMNS: [(usize, StochasticVariant); 3] =
        [(4, StochasticVariant::C), (5, StochasticVariant::B), (6, StochasticVariant::A)];
    for row in read("vectors.json.gz")["stochastic"]["rows"].as_array().unwrap() {
        let format = format_called(row[0].as_str().unwrap());
        for (column, variant) in COLUMNS {
            let n_bits = row[2].as_u64().unwrap() as u8;
            let random = row[3].as_u64().unwrap();
            let rounding = Rounding::Stochastic(Stochastic { variant, n_bits, random });
            let rules = Rules { rounding, overflow: Overflow::SaturateFinite, ..Rules::IEEE };
            check(format, double(&row[1]), rules, &row[column]);
        }
    }
}
