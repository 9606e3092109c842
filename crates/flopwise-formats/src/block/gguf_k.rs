//! The elements of GGUF's blocks of 256: the K types, with scales of scales, IQ4_XS, and the
//! ternary types.
//!
//! `gguf/quants.py` 0.19.0, classes of the same names. Not here: which header a block has
//! ([`super::gguf`]).

use super::gguf::{Block, IQ4_VALUES, signed};

/// Scales and minima of 16 elements (4 bits each), elements (2 bits), scale, minimum.
pub(super) fn q2_k(block: &Block<'_>, element_idx: usize) -> f32 {
    let code = two_bits(&block.bytes[16..80], element_idx);
    let scales = block.bytes[element_idx / 16];
    let scale = block.scale * f32::from(scales & 15);
    let minimum = block.minimum * f32::from(scales >> 4);
    scale * f32::from(code) - minimum
}

/// High bits, low 2 bits, scales of 16 elements (6 bits in 12 bytes, less 32), scale.
///
/// A high bit of 0 takes 4 away.
pub(super) fn q3_k(block: &Block<'_>, element_idx: usize) -> f32 {
    let low = two_bits(&block.bytes[32..96], element_idx);
    let high = (block.bytes[element_idx % 32] >> (element_idx / 32)) & 1;
    let (scales, group) = (&block.bytes[96..108], element_idx / 16);
    let low_scale = if group < 8 { scales[group] & 15 } else { scales[group - 8] >> 4 };
    let high_scale = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    let scale = block.scale * (f32::from(low_scale | high_scale << 4) - 32.0);
    scale * (f32::from(low | high << 2) - 4.0)
}

/// Scale, minimum, scales and minima of 32 elements (6 bits in 12 bytes), elements (4 bits).
pub(super) fn q4_k(block: &Block<'_>, element_idx: usize) -> f32 {
    let code = paired_nibble(&block.bytes[16..], element_idx);
    scaled_less_minimum(block, element_idx, code)
}

/// As Q4_K, with fifth bits before the elements.
pub(super) fn q5_k(block: &Block<'_>, element_idx: usize) -> f32 {
    let low = paired_nibble(&block.bytes[48..], element_idx);
    let high = (block.bytes[16 + element_idx % 32] >> (element_idx / 32)) & 1;
    scaled_less_minimum(block, element_idx, low | high << 4)
}

/// Low 4 bits, high 2 bits, scales of 16 elements (signed bytes), scale; less 32.
pub(super) fn q6_k(block: &Block<'_>, element_idx: usize) -> f32 {
    let (half, quarter) = (element_idx / 128, element_idx % 128 / 32);
    let byte = block.bytes[64 * half + 32 * (quarter % 2) + element_idx % 32];
    let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
    let high = two_bits(&block.bytes[128..192], element_idx);
    let scale = block.scale * signed(block.bytes[192 + element_idx / 16]);
    scale * (f32::from(low | high << 4) - 32.0)
}

/// An FP32 scale, signed bytes, sums.
pub(super) fn q8_k(block: &Block<'_>, element_idx: usize) -> f32 {
    block.scale * signed(block.bytes[4 + element_idx])
}

/// Scale, high 2 bits and low 4 bits of the scales of 32 elements (less 32), indices.
pub(super) fn iq4_xs(block: &Block<'_>, element_idx: usize) -> f32 {
    let group = element_idx / 32;
    let low = (block.bytes[4 + group / 2] >> (4 * (group % 2))) & 15;
    let high = (block.bytes[2 + group / 4] >> (2 * (group % 4))) & 3;
    let scale = block.scale * (f32::from(low | high << 4) - 32.0);
    let byte = block.bytes[8 + 16 * group + element_idx % 16];
    let code = if element_idx % 32 < 16 { byte & 15 } else { byte >> 4 };
    scale * IQ4_VALUES[usize::from(code)]
}

/// Five ternary digits in a byte (four in the last 4 bytes), read off the byte as a fraction in
/// base 3; scale.
pub(super) fn tq1_0(block: &Block<'_>, element_idx: usize) -> f32 {
    let (byte_idx, place) = match element_idx {
        ..160 => (element_idx % 32, element_idx / 32),
        160..240 => (32 + element_idx % 16, (element_idx - 160) / 16),
        _ => (48 + element_idx % 4, (element_idx - 240) / 4),
    };
    let fraction = block.bytes[byte_idx].wrapping_mul([1, 3, 9, 27, 81][place]);
    let digit = (u16::from(fraction) * 3) >> 8;
    block.scale * (f32::from(digit) - 1.0)
}

/// Elements (2 bits, less 1), scale.
pub(super) fn tq2_0(block: &Block<'_>, element_idx: usize) -> f32 {
    block.scale * (f32::from(two_bits(&block.bytes[..64], element_idx)) - 1.0)
}

/// The 2 bits of an element in 64 bytes: each run of 32 bytes holds 128 elements, 32 in each pair
/// of bits from the lowest up.
fn two_bits(bytes: &[u8], element_idx: usize) -> u8 {
    let byte = bytes[32 * (element_idx / 128) + element_idx % 32];
    (byte >> (2 * (element_idx % 128 / 32))) & 3
}

/// The 4 bits of an element in 128 bytes: each run of 32 bytes holds 64 elements, the first 32 in
/// the low halves.
fn paired_nibble(bytes: &[u8], element_idx: usize) -> u8 {
    let group = element_idx / 32;
    let byte = bytes[32 * (group / 2) + element_idx % 32];
    if group.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
}

/// What Q4_K and Q5_K make of a code: 6-bit scales and minima of 8 groups share the 12 bytes from
/// 4 on. Groups 0 to 3 have a byte each for both, whose top bits are the top bits of groups 4 to 7.
fn scaled_less_minimum(block: &Block<'_>, element_idx: usize, code: u8) -> f32 {
    let (packed, group) = (&block.bytes[4..16], element_idx / 32);
    let (scale, minimum) = match group {
        ..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => {
            let low = packed[group + 4];
            let (scale_top, minimum_top) = (packed[group - 4] >> 6, packed[group] >> 6);
            (low & 15 | scale_top << 4, low >> 4 | minimum_top << 4)
        }
    };
    let scale = block.scale * f32::from(scale);
    let minimum = block.minimum * f32::from(minimum);
    scale * f32::from(code) - minimum
}
