//! Blocks against what others computed: an exact rational reference and Transformer Engine's order
//! of operations (MX, NVFP4), and gguf-py 0.19.0 (GGUF), in `tests/data/blocks.json.gz` and
//! `vectors.json.gz`.

use super::vectors::read;
use flopwise_formats::block::{
    self, Arithmetic, BlockError, BlockFormat, BlockRules, ScaleRule, TensorScale,
};
use flopwise_formats::{Format, codec};
use proptest::prelude::*;
use serde_json::Value;

fn number(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// `["0x3f800000", ...]`.
fn floats(values: &Value) -> Vec<f32> {
    let bits = values.as_array().unwrap().iter().map(|bits| number(bits.as_str().unwrap()));
    bits.map(f32::from_bits).collect()
}

fn bytes(values: &Value) -> Vec<u8> {
    values.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect()
}

/// Hexadecimal without spaces, `width` digits each.
fn packed(text: &Value, width: usize) -> Vec<u32> {
    let text = text.as_str().unwrap();
    (0..text.len() / width).map(|idx| number(&text[idx * width..][..width])).collect()
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The codes behind a block's scale byte, which are packed from the lowest bit up.
fn codes(block: &[u8], n_codes: usize) -> Vec<u8> {
    let bits = (block.len() - 1) * 8 / n_codes;
    let code = |idx: usize| {
        (0..bits).fold(0, |code, place| {
            let bit_idx = idx * bits + place;
            code | ((block[1 + bit_idx / 8] >> (bit_idx % 8)) & 1) << place
        })
    };
    (0..n_codes).map(code).collect()
}

/// One block under one rule; codes that are null are not defined.
fn check_mx(row: &Value, key: &str, scale: ScaleRule) -> usize {
    let Some(expected) = row.get(key) else { return 0 };
    let format = block::parse(row["format"].as_str().unwrap()).unwrap();
    let values = floats(&row["f32_bits"]);
    let found = format.encode(&values, BlockRules { scale, ..BlockRules::OCP }).unwrap();
    let place = format!("{format} {key} {} {values:?}", row["label"]);
    assert_eq!(u64::from(found[0]), expected["e8m0"].as_u64().unwrap(), "{place}");
    let mut decoded = [0.0; 32];
    format.decode(&found, 1.0, &mut decoded).unwrap();
    if expected["codes"].is_null() {
        assert!(decoded.iter().all(|value| value.is_nan()), "{place}");
    } else {
        assert_eq!(codes(&found, 32), bytes(&expected["codes"]), "{place}");
        assert!(!decoded.iter().any(|value| value.is_nan()), "{place}");
    }
    1
}

#[test]
fn mx_blocks() {
    let rules = [
        ("floor", ScaleRule::Floor),
        ("ceil", ScaleRule::Ceil),
        ("even", ScaleRule::Even),
        ("rceil", ScaleRule::Rceil),
        ("rceil_te", ScaleRule::RceilSaturating),
    ];
    let mut n_checked = 0;
    for (file, table) in [("vectors.json.gz", "mx_blocks"), ("blocks.json.gz", "mx")] {
        for row in read(file)[table].as_array().unwrap() {
            for (key, rule) in rules {
                n_checked += check_mx(row, key, rule);
            }
        }
    }
    assert!(n_checked >= 120 * 4 + 318 * 4, "{n_checked}");
}

/// One tensor, and what is expected of it under one arithmetic.
fn check_nvfp4(row: &Value, key: &str, arithmetic: Arithmetic) {
    let format = block::parse("nvfp4").unwrap();
    let values = floats(&row["f32_bits"]);
    let magnitude = TensorScale::FromMagnitude(block::largest_magnitude(&values));
    let place = format!("{key} {} {values:?}", row["label"]);
    for tensor in [TensorScale::FromValues, magnitude] {
        let rules = BlockRules { arithmetic, tensor, ..BlockRules::OCP };
        let found = format.encode(&values, rules).unwrap();
        let blocks = found.chunks_exact(format.bytes);
        let scales: Vec<u8> = blocks.clone().map(|block| block[0]).collect();
        assert_eq!(scales, bytes(&row[key]["scales_e4m3"]), "{place}");
        for (block, expected) in blocks.zip(row[key]["codes"].as_array().unwrap()) {
            assert_eq!(codes(block, 16), bytes(expected), "{place}");
        }
    }
}

#[test]
fn nvfp4_tensors() {
    for file in ["vectors.json.gz", "blocks.json.gz"] {
        for row in read(file)["nvfp4"].as_array().unwrap() {
            check_nvfp4(row, "exact", Arithmetic::Exact);
            check_nvfp4(row, "f32_order", Arithmetic::Float32);
        }
    }
}

/// Bytes to values, bit for bit; a grid type says that only its size is known.
fn check_dequantized(format: &BlockFormat, row: &Value) {
    let block: Vec<u8> = packed(&row[0], 2).into_iter().map(|byte| byte as u8).collect();
    let expected = packed(&row[1], 8);
    let mut values = vec![0.0; expected.len()];
    match format.decode(&block, 1.0, &mut values) {
        Ok(()) => assert_eq!(bits_of(&values), expected, "{format} {block:x?}"),
        Err(error) => {
            assert_eq!(error, BlockError::SizeOnly { name: format.name });
            assert_eq!(format.bytes_for(expected.len() as u128), Some(block.len() as u128));
        }
    }
}

/// Values to bytes.
fn check_quantized(format: &BlockFormat, row: &Value) {
    let values: Vec<f32> = packed(&row[1], 8).into_iter().map(f32::from_bits).collect();
    let expected: Vec<u8> = packed(&row[2], 2).into_iter().map(|byte| byte as u8).collect();
    let found = format.encode(&values, BlockRules::OCP).unwrap();
    if row[0] == "log2 rounds up" {
        // The logarithm of gguf-py rounds up there, exponent bits do not.
        assert_eq!(found[0] + 1, expected[0], "{format} {values:?}");
    } else {
        assert_eq!(found, expected, "{format} {} {values:?}", row[0]);
    }
}

#[test]
fn gguf_types() {
    for (name, table) in read("blocks.json.gz")["gguf"].as_object().unwrap() {
        let format = block::parse(&format!("ggml_type_{name}")).unwrap();
        assert_eq!(table["block"], format.elements, "{format}");
        assert_eq!(table["bytes"], format.bytes, "{format}");
        for row in table["dequantize"].as_array().unwrap() {
            check_dequantized(format, row);
        }
        let quantized = table.get("quantize").and_then(Value::as_array);
        assert_eq!(quantized.is_some(), format.can_encode(), "{format}");
        for row in quantized.into_iter().flatten() {
            check_quantized(format, row);
        }
    }
}

/// How far a value may be from what its block decodes to, in parts of the block's largest
/// magnitude: half the widest gap between elements, or what saturates.
const BOUNDS: &[(&str, f32)] = &[
    ("mxfp8_e4m3", 1.0 / 8.0),
    ("mxfp8_e5m2", 1.0 / 8.0),
    ("mxfp6_e2m3", 1.0 / 16.0),
    ("mxfp6_e3m2", 1.0 / 8.0),
    ("mxfp4", 1.0 / 4.0),
    ("mxint8", 1.0 / 64.0),
    // The E4M3 scale is off by a 16th at most.
    ("nvfp4", 17.0 / 96.0),
    ("nf4_g64", 0.152),
    ("int8_g32", 1.0 / 254.0),
    ("int8_g128", 1.0 / 254.0),
    ("int4_g32", 1.0 / 14.0),
    ("int4_g128", 1.0 / 14.0),
    ("q4_0", 1.0 / 8.0),
    ("q5_0", 1.0 / 16.0),
    // The range of values is twice the largest magnitude at most.
    ("q4_1", 2.0 / 30.0),
    ("q5_1", 2.0 / 62.0),
    ("q8_0", 1.0 / 254.0),
    ("tq1_0", 1.0 / 2.0),
    ("tq2_0", 1.0 / 2.0),
    ("gguf_mxfp4", 1.0 / 4.0),
];

#[test]
fn every_format_that_encodes_has_a_bound() {
    for format in block::ALL.iter().filter(|format| format.can_encode()) {
        assert!(BOUNDS.iter().any(|(name, _)| *name == format.name), "{format}");
    }
}

/// `value` or what a block makes of it.
fn round_trip(format: &BlockFormat, values: &[f32]) -> Vec<f32> {
    let encoded = format.encode(values, BlockRules::OCP).unwrap();
    let tensor_scale = match format.name {
        "nvfp4" => block::nvfp4_tensor_scale(block::largest_magnitude(values)),
        _ => 1.0,
    };
    let mut decoded = vec![0.0; values.len()];
    format.decode(&encoded, tensor_scale, &mut decoded).unwrap();
    decoded
}

proptest! {
    #[test]
    fn values_come_back_within_the_bound(
        values in proptest::collection::vec(-1e3f32..1e3, 256),
        magnitude in -4i32..6,
    ) {
        let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(magnitude)).collect();
        for (name, bound) in BOUNDS {
            let format = block::parse(name).unwrap();
            let values = &values[..format.elements];
            let largest = block::largest_magnitude(values);
            // Scales and minima of FP16 are off by 2^-11 of themselves, and so is what they make.
            let reach = largest * (bound + 2.5 / 2048.0);
            for (value, decoded) in values.iter().zip(round_trip(format, values)) {
                prop_assert!((value - decoded).abs() <= reach, "{name}: {value} -> {decoded}");
            }
        }
    }

    /// What a block decodes to is its own best block, where the scale is a power of two that the
    /// largest element still asks for.
    #[test]
    fn mx_blocks_encode_to_themselves(
        codes in proptest::collection::vec(0u8..16, 32),
        scale in 1u8..250,
    ) {
        let format = block::parse("mxfp4").unwrap();
        let mut encoded = vec![scale];
        encoded.extend(codes.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4));
        encoded[1] |= 7;
        let mut values = [0.0; 32];
        format.decode(&encoded, 1.0, &mut values).unwrap();
        prop_assert_eq!(format.encode(&values, BlockRules::OCP).unwrap(), encoded);
    }

    /// Any bit pattern goes through every format without a panic, NaN and infinity too.
    #[test]
    fn nothing_panics(bits in proptest::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
        let noise: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for format in block::ALL {
            let values = &values[..format.elements];
            prop_assert_eq!(format.encode(values, BlockRules::OCP).is_ok(), format.can_encode());
            let mut out = values.to_vec();
            let decoded = format.decode(&noise[..format.bytes], 1.0, &mut out);
            prop_assert_eq!(decoded.is_ok(), format.can_decode());
        }
    }
}

#[test]
fn a_hole_in_a_block_is_seen_after_decoding() {
    let formats = block::ALL.iter().filter(|format| format.ggml_type.is_none());
    for (format, hole) in formats
        .flat_map(|format| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|hole| (format, hole)))
    {
        let mut values = vec![1.0; format.elements];
        values[5] = hole;
        assert!(round_trip(format, &values).iter().all(|value| value.is_nan()), "{format} {hole}");
    }
}

#[test]
fn every_code_of_a_group_decodes_to_its_multiple() {
    for (name, element) in [
        ("int8_g32", Format::INT8),
        ("int8_g128", Format::INT8),
        ("int4_g32", Format::INT4),
        ("int4_g128", Format::INT4),
        ("nf4_g64", Format::NF4),
    ] {
        let format = block::parse(name).unwrap();
        // A scale of 3, in FP16 or FP32.
        let head = if name == "nf4_g64" { vec![0, 0, 0x40, 0x40] } else { vec![0, 0x42] };
        for byte in 0..=255u8 {
            let mut encoded = vec![byte; format.bytes];
            encoded[..head.len()].copy_from_slice(&head);
            let mut values = vec![0.0; format.elements];
            format.decode(&encoded, 1.0, &mut values).unwrap();
            let pair = match element.bits {
                8 => [byte, byte],
                _ if name == "nf4_g64" => [byte >> 4, byte & 15],
                _ => [byte & 15, byte >> 4],
            };
            let wanted = pair.map(|code| codec::decode_f64(element, u128::from(code)) * 3.0);
            let wanted = wanted.map(|value| (value as f32).to_bits());
            assert_eq!(bits_of(&values[..2]), wanted, "{format} {byte:#x}");
        }
    }
}
