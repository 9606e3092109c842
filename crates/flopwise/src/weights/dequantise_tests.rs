//! Values from codes and scales, against products written out.

use super::tests::{index, safetensors};
use super::*;

/// The values of `w` in a file of these tensors, read in pieces of `max_bytes`.
fn values(header: &str, n_bytes: usize, max_bytes: usize) -> Option<Vec<f32>> {
    let checkpoint = from_bytes("test", safetensors(header, n_bytes).into()).unwrap();
    let tensor_idx = index(&checkpoint, "w");
    let scaled = checkpoint.scaled(tensor_idx)?;
    let (mut found, mut buffer, mut room) = (Vec::new(), Vec::new(), Room::default());
    let scaled = scaled.with_scales(&checkpoint).unwrap();
    for piece in checkpoint.pieces(tensor_idx, max_bytes) {
        checkpoint
            .read(&piece, &mut buffer, &mut |chunk| {
                let (bytes, n) = scaled.values(&checkpoint, &chunk, &mut room).unwrap();
                assert_eq!(bytes.len(), 4 * n);
                let values = bytes.as_chunks::<4>().0.iter();
                found.extend(values.map(|bytes| f32::from_le_bytes(*bytes)));
            })
            .unwrap();
    }

    Some(found)
}

/// An entry of a header.
fn entry(name: &str, dtype: &str, shape: &[u64], start: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
}

#[test]
fn mxfp4_of_gpt_oss_is_two_codes_a_byte_under_a_power_of_two() {
    // Bytes 0 to 31 are codes, the two scales are 2^(32 - 127) and 2^(33 - 127).
    let header = format!(
        "{{{},{}}}",
        entry("w_blocks", "U8", &[1, 2, 16], 0, 32),
        entry("w_scales", "U8", &[1, 2], 32, 34)
    );
    let checkpoint = from_bytes("test", safetensors(&header, 34).into()).unwrap();
    let tensor_idx = index(&checkpoint, "w_blocks");
    let scaled = checkpoint.scaled(tensor_idx).unwrap();
    let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0f32];
    let decode = |code: u8| {
        let magnitude = e2m1[usize::from(code % 8)];
        if 8 <= code { -magnitude } else { magnitude }
    };
    let expected: Vec<f32> = (0..32u8)
        .flat_map(|byte| {
            let scale = if byte < 16 { -95 } else { -94 };
            [byte % 16, byte / 16].map(|code| decode(code) * 2f32.powi(scale))
        })
        .collect();
    for max_bytes in [1, 3, 64] {
        let (mut found, mut buffer, mut room) = (Vec::new(), Vec::new(), Room::default());
        for piece in checkpoint.pieces(tensor_idx, max_bytes) {
            checkpoint
                .read(&piece, &mut buffer, &mut |chunk| {
                    let (bytes, _) = scaled.values(&checkpoint, &chunk, &mut room).unwrap();
                    let values = bytes.as_chunks::<4>().0.iter();
                    found.extend(values.map(|bytes| f32::from_le_bytes(*bytes).to_bits()));
                })
                .unwrap();
        }
        let expected: Vec<u32> = expected.iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, expected, "by {max_bytes}");
    }
}

#[test]
fn int8_is_scaled_by_rows_and_fp8_by_tensors() {
    // Codes 0 to 5; E8M0 scales of bytes 6 and 7: 2^-121, 2^-120.
    let rows = format!(
        "{{{},{}}}",
        entry("w", "I8", &[2, 3], 0, 6),
        entry("w_scale", "F8_E8M0", &[2, 1], 6, 8)
    );
    let expected: Vec<f32> = [(0, -121), (1, -121), (2, -121), (3, -120), (4, -120), (5, -120)]
        .map(|(code, power)| code as f32 * 2f32.powi(power))
        .to_vec();
    for max_bytes in [1, 2, 64] {
        assert_eq!(values(&rows, 8, max_bytes).unwrap(), expected);
    }
    let whole = format!(
        "{{{},{}}}",
        entry("w", "F8_E4M3", &[2, 2], 0, 4),
        entry("w_scale_inv", "F8_E8M0", &[1], 4, 5)
    );
    let expected: Vec<f32> =
        (0..4).map(|code| (f64::from(code) * 2f64.powi(-9 - 123)) as f32).collect();
    assert_eq!(values(&whole, 5, 1).unwrap(), expected);
}

#[test]
fn pairings_in_doubt_are_left_alone() {
    let with = |other: &str, dtype: &str, shape: &[u64], n_bytes: usize| {
        format!(
            "{{{},{}}}",
            entry("w", "F8_E4M3", &[2, 2], 0, 4),
            entry(other, dtype, shape, 4, 4 + n_bytes)
        )
    };
    assert!(values(&with("w_scale", "F32", &[1], 4), 8, 64).is_some());
    // Used both ways.
    assert!(values(&with("w_scales", "F32", &[1], 4), 8, 64).is_none());
    // Of no shape that divides the codes.
    assert!(values(&with("w_scale", "F32", &[3], 12), 16, 64).is_none());
    assert!(values(&with("other", "F32", &[1], 4), 8, 64).is_none());
}
