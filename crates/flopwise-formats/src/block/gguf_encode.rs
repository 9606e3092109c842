//! GGUF's reference quantisers: the bytes that `gguf.quants.quantize` 0.19.0 gives on x86.
//!
//! Binary32 throughout, each operation rounded, in its order. Values it was not made for go the
//! same way: scales beyond FP16 are stored as infinity, and what is no number or too large for a
//! 32-bit integer becomes element code 0. Not here: what `llama-quantize` does for the K and I
//! types, which searches for scales.

use super::floor_log2;
use super::gguf::{DOUBLED_E2M1, Ggml, half_e8m0};
use crate::codec::{self, Rules};
use crate::format::Format;

pub(super) fn encode(kind: Ggml, values: &[f32], block: &mut [u8]) {
    match kind {
        Ggml::Q4_0 => symmetric(values, 8, block),
        Ggml::Q5_0 => symmetric(values, 16, block),
        Ggml::Q4_1 => with_minimum(values, 15, block),
        Ggml::Q5_1 => with_minimum(values, 31, block),
        Ggml::Q8_0 => q8_0(values, block),
        Ggml::Tq1_0 => tq1_0(values, block),
        Ggml::Tq2_0 => tq2_0(values, block),
        Ggml::Mxfp4 => mxfp4(values, block),
        // `Ggml::can_encode` says no to these, and `BlockFormat::encode` asks it.
        Ggml::Q8_1
        | Ggml::Q2K
        | Ggml::Q3K
        | Ggml::Q4K
        | Ggml::Q5K
        | Ggml::Q6K
        | Ggml::Q8K
        | Ggml::Iq4Nl
        | Ggml::Iq4Xs
        | Ggml::Nvfp4
        | Ggml::Q1_0
        | Ggml::Q2_0 => {}
    }
}

/// Q4_0 and Q5_0: the value of largest magnitude becomes code 0, so that -8 or -16 is used.
fn symmetric(values: &[f32], zero_code: u8, block: &mut [u8]) {
    let largest = values
        .iter()
        .copied()
        .reduce(|best, value| if is_over(value.abs(), best.abs()) { value } else { best });
    let zero = f32::from(zero_code);
    let scale = largest.unwrap_or(0.0) / -zero;
    let inverse = inverse(scale);
    let code = |value: &f32| (value * inverse + (zero + 0.5)).trunc();
    let codes: Vec<u8> =
        values.iter().map(|value| truncated(code(value)).min(2 * zero_code - 1)).collect();
    put_half(block, 0, scale);
    put_codes(&mut block[2..], &codes);
}

/// Q4_1 and Q5_1: the least value becomes code 0, the largest the largest.
fn with_minimum(values: &[f32], largest_code: u8, block: &mut [u8]) {
    let pick = |is_better: fn(f32, f32) -> bool| {
        let best = |best, value| if is_better(value, best) { value } else { best };
        values.iter().copied().reduce(best).unwrap_or(0.0)
    };
    let minimum = pick(|value, best| is_over(-value, -best));
    let scale = (pick(is_over) - minimum) / f32::from(largest_code);
    let inverse = inverse(scale);
    let code = |value: &f32| ((value - minimum) * inverse + 0.5).trunc();
    let codes: Vec<u8> =
        values.iter().map(|value| truncated(code(value)).min(largest_code)).collect();
    put_half(block, 0, scale);
    put_half(block, 2, minimum);
    put_codes(&mut block[4..], &codes);
}

fn q8_0(values: &[f32], block: &mut [u8]) {
    let scale = largest_magnitude(values) / 127.0;
    let inverse = inverse(scale);
    put_half(block, 0, scale);
    for (byte, value) in block[2..].iter_mut().zip(values) {
        *byte = truncated(rounded_away(value * inverse));
    }
}

fn tq1_0(values: &[f32], block: &mut [u8]) {
    let scale = largest_magnitude(values);
    let digits = ternary_digits(values, scale);
    // Runs of elements, and how many of their bytes: five digits a byte, four in the last run.
    let runs = [(0, 32), (160, 16), (240, 4)];
    let mut byte_idx = 0;
    for (first, n_bytes) in runs {
        for within in 0..n_bytes {
            let places = [81, 27, 9, 3, 1].into_iter().enumerate();
            let digit = |place: usize| digits.get(first + place * n_bytes + within);
            let number =
                places.filter_map(|(place, weight)| Some(u16::from(*digit(place)?) * weight));
            // The fraction number / 243 in 256ths, rounded up so that truncation gives it back.
            block[byte_idx] = (number.sum::<u16>() * 256).div_ceil(243) as u8;
            byte_idx += 1;
        }
    }
    put_half(block, 52, scale);
}

fn tq2_0(values: &[f32], block: &mut [u8]) {
    let scale = largest_magnitude(values);
    for (element_idx, digit) in ternary_digits(values, scale).into_iter().enumerate() {
        let byte = &mut block[32 * (element_idx / 128) + element_idx % 32];
        *byte |= digit << (2 * (element_idx % 128 / 32));
    }
    put_half(block, 64, scale);
}

/// -1, 0 and 1 as 0, 1 and 2.
fn ternary_digits(values: &[f32], scale: f32) -> Vec<u8> {
    let inverse = inverse(scale);
    let digit = |value: &f32| truncated(rounded_away(value * inverse)).wrapping_add(1);
    values.iter().map(digit).collect()
}

/// OCP's floor rule, then the nearest element of doubled E2M1, of two the first in the table.
///
/// `quants.py` takes the logarithm in binary32, which just below a power of two rounds up and so
/// doubles the scale; exponent bits do not. Below `2^-125` its exponent wraps round as a byte does,
/// and so here; the elements are then zeros.
fn mxfp4(values: &[f32], block: &mut [u8]) {
    let largest = largest_magnitude(values);
    let exponent = match largest.is_finite() && largest > 0.0 {
        true => (floor_log2(largest) - 2 + 127) as u8,
        false => 0,
    };
    let scale = half_e8m0(exponent);
    let nearest = |value: &f32| {
        let distance = |code: usize| (scale * DOUBLED_E2M1[code] - value).abs();
        let nearer = |best, code| if distance(code) < distance(best) { code } else { best };
        (0..16).reduce(nearer).unwrap_or(0) as u8
    };
    let codes: Vec<u8> = values.iter().map(nearest).collect();
    block[0] = exponent;
    put_codes(&mut block[1..], &codes);
}

/// NumPy's order of a maximum: NaN is above all, and the first of equals stays.
fn is_over(value: f32, best: f32) -> bool {
    !best.is_nan() && (value.is_nan() || value > best)
}

fn largest_magnitude(values: &[f32]) -> f32 {
    let over = |best: f32, value: f32| if is_over(value, best) { value } else { best };
    values.iter().map(|value| value.abs()).reduce(over).unwrap_or(0.0)
}

/// `1 / scale`; 0 for 0.
fn inverse(scale: f32) -> f32 {
    if scale.to_bits() << 1 == 0 { 0.0 } else { 1.0 / scale }
}

/// Rounded to an integer, half away from zero, as `np_roundf` of `quants.py`.
fn rounded_away(value: f32) -> f32 {
    let magnitude = value.abs();
    let floor = magnitude.floor();
    let rounded = floor + (2.0 * (magnitude - floor)).floor();
    if value < 0.0 { -rounded } else { rounded }
}

/// The low byte of the integer part; 0 for what does not fit a 32-bit integer (x86 `cvttss2si`).
fn truncated(value: f32) -> u8 {
    let fits = value.abs() < 2_147_483_648.0;
    if fits { value as i32 as u8 } else { 0 }
}

fn put_half(block: &mut [u8], at: usize, value: f32) {
    let code = codec::encode_f32(Format::FP16, value, Rules::IEEE).code as u16;
    block[at..at + 2].copy_from_slice(&code.to_le_bytes());
}

/// Codes of 4 bits into 16 bytes, the second half of the elements in the high nibbles; before them
/// 4 bytes of fifth bits if there is room for those.
fn put_codes(bytes: &mut [u8], codes: &[u8]) {
    let (fifths, nibbles) = bytes.split_at_mut(bytes.len() - 16);
    for (element_idx, code) in codes.iter().enumerate() {
        nibbles[element_idx % 16] |= (code & 15) << (4 * (element_idx / 16));
        if let Some(byte) = fifths.get_mut(element_idx / 8) {
            *byte |= (code >> 4) << (element_idx % 8);
        }
    }
}
