//! GGUF's own blocks, decoded: what each element stands for, in binary32, in the order of
//! `gguf/quants.py` 0.19.0.
//!
//! Written an element at a time, so that each layout reads as its formula. Not here: the types of
//! 256 elements with scales of scales ([`super::gguf_k`]), encoding ([`super::gguf_encode`]), and
//! the types that take their values from grids.

use super::gguf_k;
use crate::codec;
use crate::format::Format;

/// A layout of llama.cpp's `ggml-common.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ggml {
    /// `block_q4_0`: scale, nibbles less 8.
    Q4_0,
    /// `block_q4_1`: scale, minimum, nibbles.
    Q4_1,
    /// `block_q5_0`: scale, fifth bits, nibbles; less 16.
    Q5_0,
    /// `block_q5_1`: scale, minimum, fifth bits, nibbles.
    Q5_1,
    /// `block_q8_0`: scale, signed bytes.
    Q8_0,
    /// `block_q8_1`: scale, scale times sum, signed bytes.
    Q8_1,
    /// `block_q2_K`: scales and minima of 4 bits, elements of 2.
    Q2K,
    /// `block_q3_K`: scales of 6 bits, elements of 3.
    Q3K,
    /// `block_q4_K`: scales and minima of 6 bits, elements of 4.
    Q4K,
    /// `block_q5_K`: scales and minima of 6 bits, elements of 5.
    Q5K,
    /// `block_q6_K`: scales of 8 bits, elements of 6.
    Q6K,
    /// `block_q8_K`: an FP32 scale, signed bytes, sums.
    Q8K,
    /// `block_iq4_nl`: scale, indices of 4 bits.
    Iq4Nl,
    /// `block_iq4_xs`: scales of 6 bits, indices of 4 bits.
    Iq4Xs,
    /// `block_tq1_0`: five ternary digits in a byte.
    Tq1_0,
    /// `block_tq2_0`: ternary digits of 2 bits.
    Tq2_0,
    /// `block_mxfp4`: an E8M0 scale, E2M1.
    Mxfp4,
    /// `block_nvfp4`: four UE4M3 scales, E2M1.
    Nvfp4,
    /// `block_q1_0`: scale, signs.
    Q1_0,
    /// `block_q2_0`: scale, 2 bits less 1.
    Q2_0,
}

impl Ggml {
    /// Whether `gguf/quants.py` 0.19.0 has a quantiser for it.
    pub fn can_encode(self) -> bool {
        match self {
            Ggml::Q4_0
            | Ggml::Q4_1
            | Ggml::Q5_0
            | Ggml::Q5_1
            | Ggml::Q8_0
            | Ggml::Tq1_0
            | Ggml::Tq2_0
            | Ggml::Mxfp4 => true,
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
            | Ggml::Q2_0 => false,
        }
    }
}

/// The values of IQ4's 16 codes: `kvalues_iq4nl` of `ggml-common.h`.
pub(super) const IQ4_VALUES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// E2M1 doubled, under scales that are halved; code 8 is 0, not -0: `kvalues_mxfp4`.
pub(super) const DOUBLED_E2M1: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// A block's bytes and what its two header numbers are, where it has them.
pub(super) struct Block<'a> {
    pub(super) bytes: &'a [u8],
    /// Multiplies elements or their scales.
    pub(super) scale: f32,
    /// Added to elements, or multiplies their minima.
    pub(super) minimum: f32,
}

/// The value of one element.
type Element = fn(&Block<'_>, usize) -> f32;

pub(super) fn decode(kind: Ggml, bytes: &[u8], out: &mut [f32]) {
    // Where scale and minimum are.
    let (scale, minimum, element): (f32, f32, Element) = match kind {
        Ggml::Q4_0 => (half(bytes, 0), 0.0, q4_0),
        Ggml::Q4_1 => (half(bytes, 0), half(bytes, 2), q4_1),
        Ggml::Q5_0 => (half(bytes, 0), 0.0, q5_0),
        Ggml::Q5_1 => (half(bytes, 0), half(bytes, 2), q5_1),
        Ggml::Q8_0 => (half(bytes, 0), 0.0, q8_0),
        Ggml::Q8_1 => (half(bytes, 0), 0.0, q8_1),
        Ggml::Q2K => (half(bytes, 80), half(bytes, 82), gguf_k::q2_k),
        Ggml::Q3K => (half(bytes, 108), 0.0, gguf_k::q3_k),
        Ggml::Q4K => (half(bytes, 0), half(bytes, 2), gguf_k::q4_k),
        Ggml::Q5K => (half(bytes, 0), half(bytes, 2), gguf_k::q5_k),
        Ggml::Q6K => (half(bytes, 208), 0.0, gguf_k::q6_k),
        Ggml::Q8K => (single(bytes), 0.0, gguf_k::q8_k),
        Ggml::Iq4Nl => (half(bytes, 0), 0.0, iq4_nl),
        Ggml::Iq4Xs => (half(bytes, 0), 0.0, gguf_k::iq4_xs),
        Ggml::Tq1_0 => (half(bytes, 52), 0.0, gguf_k::tq1_0),
        Ggml::Tq2_0 => (half(bytes, 64), 0.0, gguf_k::tq2_0),
        Ggml::Mxfp4 => (half_e8m0(bytes[0]), 0.0, mxfp4),
        Ggml::Nvfp4 => (0.0, 0.0, nvfp4),
        Ggml::Q1_0 => (half(bytes, 0), 0.0, q1_0),
        Ggml::Q2_0 => (half(bytes, 0), 0.0, q2_0),
    };
    let block = Block { bytes, scale, minimum };
    for (element_idx, value) in out.iter_mut().enumerate() {
        *value = element(&block, element_idx);
    }
}

fn q4_0(block: &Block<'_>, element_idx: usize) -> f32 {
    block.scale * (f32::from(nibble(&block.bytes[2..], element_idx)) - 8.0)
}

fn q4_1(block: &Block<'_>, element_idx: usize) -> f32 {
    block.scale * f32::from(nibble(&block.bytes[4..], element_idx)) + block.minimum
}

fn q5_0(block: &Block<'_>, element_idx: usize) -> f32 {
    let low = nibble(&block.bytes[6..], element_idx);
    let code = low | bit(&block.bytes[2..], element_idx) << 4;
    block.scale * (f32::from(code) - 16.0)
}

fn q5_1(block: &Block<'_>, element_idx: usize) -> f32 {
    let low = nibble(&block.bytes[8..], element_idx);
    let code = low | bit(&block.bytes[4..], element_idx) << 4;
    block.scale * f32::from(code) + block.minimum
}

fn q8_0(block: &Block<'_>, element_idx: usize) -> f32 {
    signed(block.bytes[2 + element_idx]) * block.scale
}

fn q8_1(block: &Block<'_>, element_idx: usize) -> f32 {
    signed(block.bytes[4 + element_idx]) * block.scale
}

fn iq4_nl(block: &Block<'_>, element_idx: usize) -> f32 {
    block.scale * IQ4_VALUES[usize::from(nibble(&block.bytes[2..], element_idx))]
}

fn mxfp4(block: &Block<'_>, element_idx: usize) -> f32 {
    block.scale * DOUBLED_E2M1[usize::from(nibble(&block.bytes[1..], element_idx))]
}

fn nvfp4(block: &Block<'_>, element_idx: usize) -> f32 {
    let (group, within) = (element_idx / 16, element_idx % 16);
    let byte = block.bytes[4 + 8 * group + within % 8];
    let code = if within < 8 { byte & 15 } else { byte >> 4 };
    half_ue4m3(block.bytes[group]) * DOUBLED_E2M1[usize::from(code)]
}

fn q1_0(block: &Block<'_>, element_idx: usize) -> f32 {
    if bit(&block.bytes[2..], element_idx) == 1 { block.scale } else { -block.scale }
}

fn q2_0(block: &Block<'_>, element_idx: usize) -> f32 {
    let code = (block.bytes[2 + element_idx / 4] >> (2 * (element_idx % 4))) & 3;
    (f32::from(code) - 1.0) * block.scale
}

/// The 4 bits of an element in 16 bytes: low halves hold the first 16 elements, high ones the rest.
fn nibble(bytes: &[u8], element_idx: usize) -> u8 {
    let byte = bytes[element_idx % 16];
    if element_idx < 16 { byte & 15 } else { byte >> 4 }
}

fn bit(bytes: &[u8], bit_idx: usize) -> u8 {
    (bytes[bit_idx / 8] >> (bit_idx % 8)) & 1
}

/// Two's complement.
pub(super) fn signed(byte: u8) -> f32 {
    f32::from(byte as i8)
}

/// The FP16 at a byte offset, little-endian.
fn half(bytes: &[u8], at: usize) -> f32 {
    let code = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    codec::decode_f64(Format::FP16, u128::from(code)) as f32
}

/// The FP32 at the start, little-endian.
fn single(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Half of what an E8M0 code stands for, `2^(code - 128)`; its NaN is taken for `2^128`
/// (`ggml_e8m0_to_fp32_half`).
pub(super) fn half_e8m0(code: u8) -> f32 {
    match code {
        // Subnormals of binary32.
        0 | 1 => f32::from_bits(0x0020_0000 << code),
        _ => f32::from_bits((u32::from(code) - 1) << 23),
    }
}

/// Half of what a UE4M3 code stands for; the NaN `0x7f` is taken for 0, and `0xff` for 480
/// (`ggml_ue4m3_to_fp32`).
fn half_ue4m3(code: u8) -> f32 {
    let (exponent, significand) = ((code >> 3) & 15, f32::from(code & 7));
    let value = match exponent {
        0 => significand / 512.0,
        // 2^(exponent - 7), through its binary32 code.
        _ => (1.0 + significand / 8.0) * f32::from_bits((u32::from(exponent) + 120) << 23),
    };
    if code == 0x7f { 0.0 } else { value * 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halved_scales_are_half_of_the_scales() {
        for code in 0..=254u8 {
            let whole = codec::decode_f64(Format::E8M0, u128::from(code));
            assert_eq!(f64::from(half_e8m0(code)).to_bits(), (whole / 2.0).to_bits());
        }
        for code in (0..=255u8).filter(|code| code & 0x7f != 0x7f) {
            let whole = codec::decode_f64(Format::UE4M3, u128::from(code));
            assert_eq!(f64::from(half_ue4m3(code)).to_bits(), (whole / 2.0).to_bits());
        }
        assert_eq!(half_ue4m3(0x7f).to_bits(), 0);
        assert_eq!(half_ue4m3(0xff).to_bits(), 240f32.to_bits());
    }

    /// One block whose scale is 1 and whose other bytes count up, in formats without vectors.
    #[track_caller]
    fn check(name: &str, head: &[u8], expected: &[f32]) {
        let format = super::super::parse(name).unwrap();
        let mut bytes = head.to_vec();
        bytes.extend((0..format.bytes - head.len()).map(|idx| idx as u8 | 0x80));
        let mut values = vec![0.0; format.elements];
        format.decode(&bytes, 1.0, &mut values).unwrap();
        let found: Vec<u32> =
            values[..expected.len()].iter().map(|value| value.to_bits()).collect();
        let wanted: Vec<u32> = expected.iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, wanted, "{name}: {values:?}");
    }

    #[test]
    fn layouts_that_gguf_py_cannot_decode() {
        check("q8_1", &[0, 0x40, 0, 0], &[-256.0, -254.0, -252.0]);
        check("q8_k", &[0, 0, 0, 0x3f], &[-64.0, -63.5, -63.0]);
        check("q1_0", &[0, 0x40, 0b101], &[2.0, -2.0, 2.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0]);
        check("q2_0", &[0, 0x40, 0b11_10_01_00], &[-2.0, 0.0, 2.0, 4.0, -2.0, -2.0, -2.0, 2.0]);
    }
}
