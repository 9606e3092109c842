//! Conversion of whole slices, fast, bit for bit what [`codec`] gives.
//!
//! Codes are packed as [`Format::bytes_for`] counts them: without gaps, little-endian, the first
//! code in the lowest bits, as safetensors has its `F16`, `F8_E4M3`, `F6_E2M3` and `F4`. Roundings
//! other than to nearest even, subnormals that are not kept, integers and code books go through the
//! codec, right but slow.
//!
//! The FPU must be in the mode that Rust assumes: round to nearest, subnormals not flushed. Not
//! here: shared scales ([`crate::block`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_decode;
mod decoder;
pub(crate) mod kernel;
pub(crate) mod lanes;
mod mx;

use crate::codec::{self, Rules};
use crate::format::{Format, Layout};
use decoder::Decoder;
use kernel::Kernel;
use lanes::{Instructions, Job, N, get_bits, put_bits};
use std::fmt;

pub use mx::{decode_mx, encode_mx};

/// Why a slice was not converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkError {
    /// The destination, or the codes to decode, are too long or too short.
    Length {
        /// How many elements or bytes they must be.
        expected: usize,
        /// How many they are.
        found: usize,
    },
    /// Complex pairs and text are not one number per element; or no MX block has such elements.
    NoNumbers,
}

impl fmt::Display for BulkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BulkError::Length { expected, found } => {
                write!(formatter, "the slice has {found} elements, but {expected} are needed")
            }
            BulkError::NoNumbers => {
                write!(formatter, "the format does not hold one number per element")
            }
        }
    }
}

impl std::error::Error for BulkError {}

/// The code of every element: [`codec::encode_f32`].
///
/// # Errors
/// If `dst` does not have [`Format::bytes_for`] the elements, or the format holds no numbers.
///
/// ```
/// use flopwise_formats::{Format, bulk, codec::Rules};
/// let mut codes = [0; 3];
/// bulk::encode_f32(Format::E4M3FN, Rules::SATURATING, &[1.0, -0.052, 1e9], &mut codes).unwrap();
/// assert_eq!(codes, [0x38, 0x95, 0x7e]);
/// let mut packed = [0; 2];
/// bulk::encode_f32(Format::E2M1, Rules::SATURATING, &[0.5, -6.0, 1.0], &mut packed).unwrap();
/// assert_eq!(packed, [0xf1, 0x02]);
/// ```
pub fn encode_f32(
    format: Format,
    rules: Rules,
    src: &[f32],
    dst: &mut [u8],
) -> Result<(), BulkError> {
    encode_f32_with(format, rules, src, dst, Instructions::Any)
}

/// The code of every element, rounded once: [`codec::encode_f64`].
///
/// # Errors
/// As [`encode_f32`].
///
/// ```
/// use flopwise_formats::{Format, bulk, codec::Rules};
/// let mut codes = [0; 2];
/// let value = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
/// bulk::encode_f64(Format::BF16, Rules::IEEE, &[value], &mut codes).unwrap();
/// assert_eq!(codes, 0x3f81u16.to_le_bytes());
/// ```
pub fn encode_f64(
    format: Format,
    rules: Rules,
    src: &[f64],
    dst: &mut [u8],
) -> Result<(), BulkError> {
    check_codes(format, src.len(), dst.len())?;
    let kernel = Kernel::new(format, rules).filter(Kernel::can_follow_odd);
    let Some(kernel) = kernel else {
        dst.fill(0);
        for (idx, value) in src.iter().enumerate() {
            put_bits(dst, idx, format.bits, codec::encode_f64(format, *value, rules).code);
        }
        return Ok(());
    };
    let mut narrow = [0.0; BLOCK];
    let dst = dst.chunks_mut(usize::from(format.bits) * BLOCK / 8);
    for (src, dst) in src.chunks(BLOCK).zip(dst) {
        let narrow = &mut narrow[..src.len()];
        lanes::run(Job::Narrow { src, dst: narrow }, Instructions::Any);
        encode_by(&kernel, format.bits, narrow, dst, Instructions::Any);
    }
    Ok(())
}

/// The value of every code: [`codec::decode_f64`], to nearest even where a binary32 does not hold
/// it (no code of up to 16 bits in the catalogue). NaN is [`f32::NAN`].
///
/// # Errors
/// If `src` does not have [`Format::bytes_for`] the elements of `dst`, or the format holds no
/// numbers.
///
/// ```
/// use flopwise_formats::{Format, bulk};
/// let mut values = [0.0; 3];
/// bulk::decode_f32(Format::E2M1, &[0xf1, 0x02], &mut values).unwrap();
/// assert_eq!(values, [0.5, -6.0, 1.0]);
/// ```
pub fn decode_f32(format: Format, src: &[u8], dst: &mut [f32]) -> Result<(), BulkError> {
    decode_f32_with(format, src, dst, Instructions::Any)
}

/// The value of every code: [`codec::decode_f64`].
///
/// # Errors
/// As [`decode_f32`].
///
/// ```
/// use flopwise_formats::{Format, bulk};
/// let mut values = [0.0];
/// bulk::decode_f64(Format::FP16, &0x2aa8u16.to_le_bytes(), &mut values).unwrap();
/// assert_eq!(values, [0.052001953125]);
/// ```
pub fn decode_f64(format: Format, src: &[u8], dst: &mut [f64]) -> Result<(), BulkError> {
    check_codes(format, dst.len(), src.len())?;
    let Some(decoder) = Decoder::new(format) else {
        for (idx, value) in dst.iter_mut().enumerate() {
            *value = codec::decode_f64(format, get_bits(src, idx, format.bits));
        }
        return Ok(());
    };
    let mut narrow = [0.0; BLOCK];
    let src = src.chunks(usize::from(format.bits) * BLOCK / 8);
    for (src, dst) in src.zip(dst.chunks_mut(BLOCK)) {
        let narrow = &mut narrow[..dst.len()];
        decode_by(&decoder, format.bits, src, narrow, Instructions::Any);
        for (wide, narrow) in dst.iter_mut().zip(narrow) {
            *wide = f64::from(*narrow);
        }
    }
    Ok(())
}

/// Every element as it comes back from the format: [`encode_f32`], then [`decode_f32`].
///
/// # Errors
/// If the slices differ in length, or the format holds no numbers.
///
/// ```
/// use flopwise_formats::{Format, bulk, codec::Rules};
/// let mut values = [0.0; 3];
/// bulk::round_f32(Format::BF16, Rules::IEEE, &[0.052, 1.0, 1e-50], &mut values).unwrap();
/// assert_eq!(values, [0.052001953, 1.0, 0.0]);
/// ```
pub fn round_f32(
    format: Format,
    rules: Rules,
    src: &[f32],
    dst: &mut [f32],
) -> Result<(), BulkError> {
    round_f32_with(format, rules, src, dst, Instructions::Any)
}

/// Elements per step of conversions that need room between: 4 KiB stay in the first cache.
const BLOCK: usize = 16 * N;

fn check_codes(format: Format, n_elements: usize, n_bytes: usize) -> Result<(), BulkError> {
    match format.layout {
        Layout::Complex | Layout::Text => return Err(BulkError::NoNumbers),
        Layout::Float(_)
        | Layout::SignedInteger
        | Layout::UnsignedInteger
        | Layout::CodeBook(_)
        | Layout::Boolean => {}
    }
    let expected = format.bytes_for(n_elements as u128).and_then(|n| usize::try_from(n).ok());
    let expected = expected.unwrap_or(usize::MAX);
    let found = n_bytes;
    if expected == found { Ok(()) } else { Err(BulkError::Length { expected, found }) }
}

fn encode_f32_with(
    format: Format,
    rules: Rules,
    src: &[f32],
    dst: &mut [u8],
    instructions: Instructions,
) -> Result<(), BulkError> {
    check_codes(format, src.len(), dst.len())?;
    match Kernel::new(format, rules) {
        Some(kernel) => encode_by(&kernel, format.bits, src, dst, instructions),
        None => {
            dst.fill(0);
            for (idx, value) in src.iter().enumerate() {
                put_bits(dst, idx, format.bits, codec::encode_f32(format, *value, rules).code);
            }
        }
    }
    Ok(())
}

fn encode_by(kernel: &Kernel, bits: u16, src: &[f32], dst: &mut [u8], instructions: Instructions) {
    let (whole, tail) = src.split_at(src.len() - src.len() % N);
    let (whole_dst, tail_dst) = dst.split_at_mut(whole.len() / 8 * usize::from(bits));
    lanes::run(Job::Encode { kernel, bits, src: whole, dst: whole_dst }, instructions);
    if tail.is_empty() {
        return;
    }
    let mut padded = [0.0; N];
    padded[..tail.len()].copy_from_slice(tail);
    let mut codes = [0; N * 4];
    let codes = &mut codes[..N / 8 * usize::from(bits)];
    lanes::run(Job::Encode { kernel, bits, src: &padded, dst: codes }, instructions);
    // The padding's codes are zeros or lie beyond the last byte: kernels narrower than a byte have
    // a zero.
    tail_dst.copy_from_slice(&codes[..tail_dst.len()]);
}

fn decode_f32_with(
    format: Format,
    src: &[u8],
    dst: &mut [f32],
    instructions: Instructions,
) -> Result<(), BulkError> {
    check_codes(format, dst.len(), src.len())?;
    match Decoder::new(format) {
        Some(decoder) => decode_by(&decoder, format.bits, src, dst, instructions),
        None => {
            for (idx, value) in dst.iter_mut().enumerate() {
                *value = nearest_f32(format, get_bits(src, idx, format.bits));
            }
        }
    }
    Ok(())
}

fn nearest_f32(format: Format, code: u128) -> f32 {
    let value = codec::decode(format, code);
    let bits = value.map(|value| codec::encode(Format::FP32, &value, Rules::IEEE).code as u32);
    bits.map(f32::from_bits).filter(|value| !value.is_nan()).unwrap_or(f32::NAN)
}

fn decode_by(
    decoder: &Decoder,
    bits: u16,
    src: &[u8],
    dst: &mut [f32],
    instructions: Instructions,
) {
    let n_whole = dst.len() - dst.len() % N;
    let (whole, tail) = src.split_at(n_whole / 8 * usize::from(bits));
    let (whole_dst, tail_dst) = dst.split_at_mut(n_whole);
    lanes::run(Job::Decode { decoder, bits, src: whole, dst: whole_dst }, instructions);
    if tail_dst.is_empty() {
        return;
    }
    let mut codes = [0; N * 4];
    codes[..tail.len()].copy_from_slice(tail);
    let codes = &codes[..N / 8 * usize::from(bits)];
    let mut values = [0.0; N];
    lanes::run(Job::Decode { decoder, bits, src: codes, dst: &mut values }, instructions);
    tail_dst.copy_from_slice(&values[..tail_dst.len()]);
}

fn round_f32_with(
    format: Format,
    rules: Rules,
    src: &[f32],
    dst: &mut [f32],
    instructions: Instructions,
) -> Result<(), BulkError> {
    check_codes(format, 0, 0)?;
    if src.len() != dst.len() {
        return Err(BulkError::Length { expected: src.len(), found: dst.len() });
    }
    let Some(kernel) = Kernel::new(format, rules) else {
        for (rounded, value) in dst.iter_mut().zip(src) {
            *rounded = nearest_f32(format, codec::encode_f32(format, *value, rules).code);
        }
        return Ok(());
    };
    let kernel = &kernel.with_values(format);
    let (whole, tail) = src.split_at(src.len() - src.len() % N);
    let (whole_dst, tail_dst) = dst.split_at_mut(whole.len());
    lanes::run(Job::Round { kernel, src: whole, dst: whole_dst }, instructions);
    let mut padded = [0.0; N];
    padded[..tail.len()].copy_from_slice(tail);
    let mut values = [0.0; N];
    lanes::run(Job::Round { kernel, src: &padded, dst: &mut values }, instructions);
    tail_dst.copy_from_slice(&values[..tail.len()]);
    Ok(())
}

/// The same without the machine's special instructions, for tests to compare.
#[doc(hidden)]
pub mod portable {
    use super::{BulkError, Format, Instructions, Rules};

    /// [`super::encode_f32`].
    ///
    /// # Errors
    /// The same.
    pub fn encode_f32(
        format: Format,
        rules: Rules,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<(), BulkError> {
        super::encode_f32_with(format, rules, src, dst, Instructions::Portable)
    }

    /// [`super::decode_f32`].
    ///
    /// # Errors
    /// The same.
    pub fn decode_f32(format: Format, src: &[u8], dst: &mut [f32]) -> Result<(), BulkError> {
        super::decode_f32_with(format, src, dst, Instructions::Portable)
    }

    /// [`super::round_f32`].
    ///
    /// # Errors
    /// The same.
    pub fn round_f32(
        format: Format,
        rules: Rules,
        src: &[f32],
        dst: &mut [f32],
    ) -> Result<(), BulkError> {
        super::round_f32_with(format, rules, src, dst, Instructions::Portable)
    }
}
