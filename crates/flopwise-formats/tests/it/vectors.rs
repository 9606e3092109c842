//! Every row of `tests/data/vectors.json.gz`: what an exact rational reference, gfloat 0.5.2 and
//! `ml_dtypes` 0.6.0 give (its `meta` says which agrees where).

use flate2::read::GzDecoder;
use flopwise_formats::codec::{
    self, Overflow, Rounding, Rules, Stochastic, StochasticVariant, Subnormals, decode_f64,
};
use flopwise_formats::{Exact, Format, decimal, parse};
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

pub(crate) fn hexadecimal(value: &Value) -> u128 {
    u128::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

pub(crate) fn double(value: &Value) -> f64 {
    f64::from_bits(hexadecimal(value) as u64)
}

fn is_nan(format: Format, code: u128) -> bool {
    matches!(codec::decode(format, code), Some(Exact::Nan { .. }))
}

#[track_caller]
pub(crate) fn assert_code(format: Format, code: u128, expected: &Value, what: &str) {
    match expected.as_str() {
        Some("nan") => assert!(is_nan(format, code), "{format} {what}: {code:#x}"),
        _ => assert_eq!(code, hexadecimal(expected), "{format} {what}: {code:#x}, {expected}"),
    }
}

/// One expected code; `nan` is any NaN, and null what the format cannot express.
#[track_caller]
fn check(format: Format, value: f64, rules: Rules, expected: &Value) {
    let code = codec::encode_f64(format, value, rules).code;
    let slow = codec::encode(format, &Exact::from_f64(value), rules).code;
    assert_eq!(code, slow, "{format} {value:e} {rules:?}");
    match expected {
        Value::Null => {}
        expected => assert_code(format, code, expected, &format!("{value:e} {rules:?}")),
    }
}

#[test]
fn decoding_tables() {
    for (key, table) in read("vectors.json.gz")["decode"].as_object().unwrap() {
        check_table(format_called(key), table["f64_bits"].as_array().unwrap());
    }
}

#[test]
fn the_120_value_tables_of_p3109() {
    let tables = read("p3109.json.gz");
    let tables = tables["formats"].as_object().unwrap();
    assert_eq!(tables.len(), 120);
    for (name, values) in tables {
        let format = parse(name).unwrap();
        assert_eq!(format.to_string(), *name);
        check_table(format, values.as_array().unwrap());
    }
}

/// Each code decodes to its value, and each value encodes to its code.
#[track_caller]
fn check_table(format: Format, values: &[Value]) {
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
        let back = codec::encode_f64(format, found, Rules::IEEE).code;
        assert!(found.is_nan() || back == code as u128, "{format} {code:#x} -> {back:#x}");
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

/// Every rounding that needs no random bits, in the order of the file's columns.
pub(crate) const MODES: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::NearestAway,
    Rounding::TowardZero,
    Rounding::Up,
    Rounding::Down,
    Rounding::ToOdd,
];

#[test]
fn rounding_modes() {
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

fn rules_called(rounding: &str, overflow: &str, subnormals: &str) -> Rules {
    Rules {
        rounding: match rounding {
            "nearest-even" => Rounding::NearestEven,
            "nearest-away" => Rounding::NearestAway,
            "toward-zero" => Rounding::TowardZero,
            "up" => Rounding::Up,
            "down" => Rounding::Down,
            "odd" => Rounding::ToOdd,
            other => panic!("{other}"),
        },
        overflow: match overflow {
            "overflow" => Overflow::ToInfinity,
            "saturate" => Overflow::SaturateFinite,
            "saturate-propagate" => Overflow::SaturatePropagate,
            "onnx" => Overflow::Onnx,
            other => panic!("{other}"),
        },
        subnormals: match subnormals {
            "on" => Subnormals::Kept,
            "flush" => Subnormals::FlushedToZero,
            "daz" => Subnormals::TakenForZero,
            other => panic!("{other}"),
        },
    }
}

/// Texts in every notation, rounded once by an implementation with exact fractions.
#[test]
fn text_to_code() {
    let table = read("exact.json.gz");
    let rows = table["rows"].as_array().unwrap();
    let mut wrong = Vec::new();
    for row in rows {
        let [name, text, rounding, overflow, subnormals] =
            [0, 1, 2, 3, 4].map(|column| row[column].as_str().unwrap());
        let format = parse(name).unwrap();
        let value = decimal::parse(text).unwrap().value;
        let found = codec::encode(format, &value, rules_called(rounding, overflow, subnormals));
        let expected = &row[5];
        let same = match expected.as_str() {
            Some("nan") => is_nan(format, found.code),
            _ => found.code == hexadecimal(expected),
        };
        let flags = row[6].as_array().unwrap();
        let has = |name: &str| flags.iter().any(|flag| flag == name);
        let same_flags = (has("overflow"), has("underflow"), has("inexact"))
            == (found.flags.is_overflow, found.flags.is_underflow, found.flags.is_inexact);
        // What an unsigned format cannot hold is called overflow there, invalid here.
        if !same || !(same_flags || found.flags.is_invalid) {
            let text: String = text.chars().take(60).collect();
            wrong.push(format!(
                "{name} {text} {rounding} {overflow} {subnormals}: {:#x} {:?}, expected {expected} {flags:?}",
                found.code, found.flags
            ));
        }
    }
    assert!(rows.len() > 10_000);
    assert!(
        wrong.is_empty(),
        "{} rows, the first {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
}
