//! NVFP4: blocks of 16 E2M1 elements under a UE4M3 scale, under one FP32 scale for the tensor.
//!
//! Three roundings lead to a block, in the order of NVIDIA's Transformer Engine
//! (`quantize_nvfp4.cuh`): `S = 448 * 6 / (largest magnitude of the tensor)`; the block's scale is
//! the E4M3 nearest to `(largest magnitude of the block) * S / 6`; an element is the E2M1 nearest
//! to `x * S / scale`. A value is `element * scale / S`. Not here: GGUF's NVFP4, whose blocks hold
//! 64 ([`super::Ggml::Nvfp4`]).

use super::{BlockError, BlockRules, finite_magnitude, pack, unpack};
use crate::codec::{self, Rules};
use crate::exact::{Exact, Rational};
use crate::format::Format;

/// The largest E4M3 times the largest E2M1: what the tensor's largest magnitude becomes.
const LARGEST: f32 = 448.0 * 6.0;

/// How the three roundings of NVFP4 are calculated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// In rational numbers: only the scale and the elements are rounded, each once.
    Exact,
    /// In binary32, each operation rounded, as Transformer Engine does: `S` first and cut to the
    /// largest binary32, then `S * f32(1/6)`, then `S / scale`. Gives the codes of `Exact` nearly
    /// always; not where `S` is cut (tensors whose largest magnitude is below `7.9e-36`).
    Float32,
}

/// Where NVFP4's scale of the tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TensorScale {
    /// The largest finite magnitude among the values that are encoded.
    FromValues,
    /// This largest magnitude, of a tensor of which the values are a part; `S` is 1 if it is 0.
    FromMagnitude(f32),
    /// This scale, which multiplies when decoding: `S` is its reciprocal.
    Given(f32),
}

/// The scale that goes with blocks of a tensor of this largest magnitude, for
/// [`BlockFormat::decode`](super::BlockFormat::decode) and files' `weight_scale_2`:
/// `magnitude / (448 * 6)`, or 1 for 0.
///
/// ```
/// use flopwise_formats::block::{self, BlockRules};
/// let nvfp4 = block::parse("nvfp4").unwrap();
/// let values: Vec<f32> = (0..16).map(|idx| idx as f32).collect();
/// let bytes = nvfp4.encode(&values, BlockRules::OCP).unwrap();
/// let tensor_scale = block::nvfp4_tensor_scale(block::largest_magnitude(&values));
/// let mut decoded = [0.0; 16];
/// nvfp4.decode(&bytes, tensor_scale, &mut decoded).unwrap();
/// assert_eq!(bytes[0], 0x7e);
/// assert_eq!(decoded[15], 15.0);
/// ```
pub fn nvfp4_tensor_scale(magnitude: f32) -> f32 {
    if magnitude.to_bits() << 1 == 0 { 1.0 } else { magnitude / LARGEST }
}

/// The largest finite magnitude among values; NaN and infinities are passed over, and 0 is the
/// answer where nothing is left.
pub fn largest_magnitude(values: &[f32]) -> f32 {
    let magnitudes = values.iter().map(|value| value.abs());
    magnitudes.filter(|value| value.is_finite()).fold(0.0, f32::max)
}

/// `S`, what values are multiplied by before blocks are made.
pub(super) enum EncodeScale {
    Exact(Rational),
    Float32(f32),
}

pub(super) fn encode_scale(rules: BlockRules, values: &[f32]) -> Result<EncodeScale, BlockError> {
    let (over, below) = match rules.tensor {
        TensorScale::FromValues => (LARGEST, largest_magnitude(values)),
        TensorScale::FromMagnitude(magnitude) => (LARGEST, magnitude),
        TensorScale::Given(scale) if scale > 0.0 => (1.0, scale),
        TensorScale::Given(given) => return Err(BlockError::BadTensorScale { given }),
    };
    if !below.is_finite() || below < 0.0 {
        return Err(BlockError::BadTensorScale { given: below });
    }
    let is_zero = below.to_bits() << 1 == 0;
    Ok(match rules.arithmetic {
        Arithmetic::Exact if is_zero => EncodeScale::Exact(rational(1.0)),
        Arithmetic::Exact => {
            let scale = rational(over).over(&rational(below));
            EncodeScale::Exact(scale.expect("a magnitude of zero was answered above"))
        }
        Arithmetic::Float32 if is_zero => EncodeScale::Float32(1.0),
        Arithmetic::Float32 => EncodeScale::Float32((over / below).min(f32::MAX)),
    })
}

pub(super) fn decode(block: &[u8], tensor_scale: f32, out: &mut [f32]) {
    let (scale, codes) = block.split_at(1);
    let scale = codec::decode_f64(Format::UE4M3, u128::from(scale[0]));
    for (element_idx, value) in out.iter_mut().enumerate() {
        let element = codec::decode_f64(Format::E2M1, unpack(codes, 4, element_idx));
        // 2, 4 and 24 significant bits: exact until `as` rounds.
        *value = (element * scale * f64::from(tensor_scale)) as f32;
    }
}

pub(super) fn encode(values: &[f32], tensor: &EncodeScale, block: &mut [u8]) {
    let (scale, codes) = block.split_at_mut(1);
    let Some(largest) = finite_magnitude(values) else {
        scale[0] = 0x7f;
        return;
    };
    match tensor {
        EncodeScale::Exact(tensor) => encode_exact(values, largest, tensor, scale, codes),
        EncodeScale::Float32(tensor) => encode_f32(values, largest, *tensor, scale, codes),
    }
}

fn encode_exact(
    values: &[f32],
    largest: f32,
    tensor: &Rational,
    scale: &mut [u8],
    codes: &mut [u8],
) {
    let wanted = rational(largest).times(tensor).over(&rational(6.0));
    let wanted = Exact::Finite(wanted.expect("6 is not 0"));
    scale[0] = codec::encode(Format::UE4M3, &wanted, Rules::SATURATING).code as u8;
    let stored = rational(codec::decode_f64(Format::UE4M3, u128::from(scale[0])) as f32);
    for (element_idx, value) in values.iter().enumerate() {
        let scaled = rational(*value).times(tensor).over(&stored);
        let scaled = scaled.map_or(Exact::zero(value.is_sign_negative()), Exact::Finite);
        let code = codec::encode(Format::E2M1, &scaled, Rules::SATURATING).code;
        pack(codes, 4, element_idx, code);
    }
}

fn encode_f32(values: &[f32], largest: f32, tensor: f32, scale: &mut [u8], codes: &mut [u8]) {
    let wanted = (largest * (tensor * (1.0f32 / 6.0))).min(f32::MAX);
    scale[0] = codec::encode_f32(Format::UE4M3, wanted, Rules::SATURATING).code as u8;
    let stored = codec::decode_f64(Format::UE4M3, u128::from(scale[0])) as f32;
    // Transformer Engine cuts the quotient by zero too and so gives elements of ±6 times 0; zeros
    // say the same and compress.
    let factor = if scale[0] == 0 { 0.0 } else { (tensor / stored).min(f32::MAX) };
    for (element_idx, value) in values.iter().enumerate() {
        let code = codec::encode_f32(Format::E2M1, value * factor, Rules::SATURATING).code;
        pack(codes, 4, element_idx, code);
    }
}

/// A finite binary32 as a rational number.
fn rational(value: f32) -> Rational {
    let exact = Exact::from_f64(f64::from(value));
    exact.rational().cloned().expect("callers pass finite values only")
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// Encodes with both arithmetics; the two agree in all of these.
    #[track_caller]
    fn check(values: &[f32], tensor: TensorScale, scales: &[u8], first_codes: &[u8]) {
        for arithmetic in [Arithmetic::Exact, Arithmetic::Float32] {
            let rules = BlockRules { arithmetic, tensor, ..BlockRules::OCP };
            let bytes = parse("nvfp4").unwrap().encode(values, rules).unwrap();
            let blocks = bytes.chunks_exact(9);
            let found: Vec<u8> = blocks.clone().map(|block| block[0]).collect();
            assert_eq!(found, scales, "{arithmetic:?}");
            let found: Vec<u8> = blocks.map(|block| block[1] & 15).collect();
            assert_eq!(found, first_codes, "{arithmetic:?}");
        }
    }

    fn blocks(firsts: &[f32]) -> Vec<f32> {
        firsts.iter().flat_map(|first| std::iter::once(*first).chain([0.0; 15])).collect()
    }

    #[test]
    fn corners() {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        check(&blocks(&[0.0, -0.0]), TensorScale::FromValues, &[0, 0], &[0, 8]);
        check(&blocks(&[6.0, -3.0]), TensorScale::FromValues, &[0x7e, 0x76], &[7, 15]);
        check(
            &blocks(&[nan, 1.0, infinity]),
            TensorScale::FromValues,
            &[0x7f, 0x7e, 0x7f],
            &[0, 7, 0],
        );
        // The second block's scale is below half the smallest E4M3.
        check(&blocks(&[1.0, -1e-7]), TensorScale::FromValues, &[0x7e, 0], &[7, 8]);
        check(&blocks(&[6.0]), TensorScale::FromMagnitude(0.0), &[0x38], &[7]);
        check(&blocks(&[6.0]), TensorScale::FromMagnitude(2688.0), &[0x38], &[7]);
        check(&blocks(&[6.0]), TensorScale::Given(0.5), &[0x40], &[7]);
        // Larger than the tensor was said to be: saturates.
        check(&blocks(&[60.0]), TensorScale::FromMagnitude(6.0), &[0x7e], &[7]);
    }

    #[test]
    fn tensor_scales_that_are_none() {
        for tensor in [
            TensorScale::Given(0.0),
            TensorScale::Given(-1.0),
            TensorScale::Given(f32::NAN),
            TensorScale::Given(f32::INFINITY),
            TensorScale::FromMagnitude(-1.0),
            TensorScale::FromMagnitude(f32::NAN),
        ] {
            let rules = BlockRules { tensor, ..BlockRules::OCP };
            let error = parse("nvfp4").unwrap().encode(&[1.0; 16], rules).unwrap_err();
            assert!(matches!(error, BlockError::BadTensorScale { .. }), "{error}");
        }
    }

    #[test]
    fn every_scale_and_code_decodes_exactly() {
        for scale in 0..=255u8 {
            let mut block = [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe].to_vec();
            block.insert(0, scale);
            let mut values = [0.0; 16];
            parse("nvfp4").unwrap().decode(&block, 1.0, &mut values).unwrap();
            let scale = codec::decode_f64(Format::UE4M3, u128::from(scale & 0x7f));
            for (code, value) in values.iter().enumerate() {
                let exact = codec::decode_f64(Format::E2M1, code as u128) * scale;
                let is_same = f64::from(*value).to_bits() == exact.to_bits();
                assert!(is_same || (exact.is_nan() && value.is_nan()));
            }
        }
    }
}
