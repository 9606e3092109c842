//! Blocks of elements that share a scale: one table of them, their layout, decoding and encoding.
//!
//! In files scales and elements often are two tensors; here a block is its bytes in one piece, as
//! GGUF has them. For the others that is the scale (little-endian), then the elements in order,
//! packed from the lowest bit of the first byte up: of two nibbles the first element is the low
//! one. Not here: speed (this is the reference that bulk conversion is tested against), and one
//! scale with a zero point for a whole tensor ([`affine`]).
//!
//! Sources: OCP Microscaling Formats 1.0 (MX), NVIDIA's Transformer Engine (NVFP4), `ggml-common.h`
//! and `ggml-quants.c` of llama.cpp, and `gguf/quants.py` 0.19.0 (GGUF).

mod catalog;
mod gguf;
mod gguf_encode;
mod gguf_k;
mod group;
mod mx;
mod nvfp4;

pub mod affine;

use crate::exact::Rational;
use crate::format::Format;
use std::fmt;

pub use catalog::{ALL, by_ggml_type, parse};
pub use gguf::Ggml;
pub use mx::ScaleRule;
pub use nvfp4::{Arithmetic, TensorScale, largest_magnitude, nvfp4_tensor_scale};

/// One format of blocks, described as data: a row of [`ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockFormat {
    /// The catalogue's name: `mxfp4`, `q4_k`.
    pub name: &'static str,
    /// Elements in a block.
    pub elements: usize,
    /// Bytes of a block, scales and all.
    pub bytes: usize,
    /// What the bytes mean.
    pub layout: BlockLayout,
    /// Its number in `enum ggml_type` and so in GGUF files, where it has one.
    pub ggml_type: Option<u32>,
    /// In a sentence or two.
    pub what: &'static str,
    /// Who uses it, and for what.
    pub users: &'static str,
    /// Where the layout is written down.
    pub source: &'static str,
}

/// What the bytes of a block mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockLayout {
    /// An E8M0 scale, then elements of this format; [`Format::INT8`] elements count in 1/64.
    Mx(Format),
    /// A UE4M3 scale, then E2M1 elements; a second scale belongs to the tensor.
    Nvfp4,
    /// A scale, then elements that are multiplied by it.
    Group {
        /// The scale's format.
        scale: Format,
        /// The elements' format: an integer or a table of values.
        element: Format,
        /// How two elements share a byte.
        nibbles: Nibbles,
    },
    /// One of GGUF's own layouts.
    Ggml(Ggml),
    /// Indices into a grid of vectors, which this crate does not hold: only the size is known.
    Grid,
}

/// Which of two elements of 4 bits is in the low half of their byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nibbles {
    /// The first: safetensors, ONNX, this project.
    LowFirst,
    /// The second: bitsandbytes.
    HighFirst,
}

/// How values become blocks. Nothing here concerns GGUF's own types, whose quantisers have no
/// options, or groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockRules {
    /// Which power of two an MX block gets.
    pub scale: ScaleRule,
    /// How NVFP4 calculates.
    pub arithmetic: Arithmetic,
    /// NVFP4's scale of the whole tensor.
    pub tensor: TensorScale,
}

impl BlockRules {
    /// MX as OCP's specification has it; NVFP4 exactly, its tensor scale from the values given.
    pub const OCP: BlockRules = BlockRules {
        scale: ScaleRule::Floor,
        arithmetic: Arithmetic::Exact,
        tensor: TensorScale::FromValues,
    };
}

/// Why there are no blocks, or no values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BlockError {
    /// The elements do not fill whole blocks.
    PartialBlock {
        /// The format's name.
        name: &'static str,
        /// Elements given.
        elements: usize,
        /// Elements of a block.
        block: usize,
    },
    /// That many elements do not take that many bytes.
    WrongSize {
        /// The format's name.
        name: &'static str,
        /// Bytes that the elements take.
        expected: u128,
        /// Bytes given.
        found: usize,
    },
    /// No reference quantiser exists for this format in this crate; it can be decoded.
    DecodeOnly {
        /// The format's name.
        name: &'static str,
    },
    /// The format's grid is not in this crate: neither decoded nor encoded.
    SizeOnly {
        /// The format's name.
        name: &'static str,
    },
    /// A scale or largest magnitude of a tensor is negative, infinite, NaN, or a scale of zero.
    BadTensorScale {
        /// What was given.
        given: f32,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::PartialBlock { name, elements, block } => write!(
                formatter,
                "{name}: {elements} elements do not fill whole blocks of {block}; pad them with \
                 zeros"
            ),
            BlockError::WrongSize { name, expected, found } => {
                write!(formatter, "{name}: these elements take {expected} bytes, not {found}")
            }
            BlockError::DecodeOnly { name } => {
                write!(formatter, "{name}: can be decoded only; no reference quantiser is known")
            }
            BlockError::SizeOnly { name } => {
                write!(formatter, "{name}: only its size is known; its grid of values is not held")
            }
            BlockError::BadTensorScale { given } => {
                write!(formatter, "the tensor's scale {given} is no positive finite number")
            }
        }
    }
}

impl std::error::Error for BlockError {}

impl BlockFormat {
    /// Bits that an element takes, its share of the scales included, exactly.
    ///
    /// ```
    /// use flopwise_formats::block;
    /// assert_eq!(block::parse("mxfp4").unwrap().bits_per_weight().to_string(), "4.25");
    /// assert_eq!(block::parse("tq1_0").unwrap().bits_per_weight().to_string(), "1.6875");
    /// ```
    pub fn bits_per_weight(&self) -> Rational {
        let bits = Rational::binary(false, self.bytes as u128 * 8, 0);
        let elements = Rational::binary(false, self.elements as u128, 0);
        bits.over(&elements).expect("no row has blocks of 0 elements, as a test of the table sees")
    }

    /// Bytes that `elements` elements take in whole blocks, the last filled up; `None` when the
    /// count does not fit `u128`. A scale of the whole tensor is not counted.
    ///
    /// ```
    /// use flopwise_formats::block;
    /// assert_eq!(block::parse("q4_k").unwrap().bytes_for(257), Some(288));
    /// ```
    pub fn bytes_for(&self, elements: u128) -> Option<u128> {
        elements.div_ceil(self.elements as u128).checked_mul(self.bytes as u128)
    }

    /// Whether [`BlockFormat::decode`] gives values: not for formats whose grid is not held.
    pub fn can_decode(&self) -> bool {
        !matches!(self.layout, BlockLayout::Grid)
    }

    /// Whether [`BlockFormat::encode`] gives bytes.
    pub fn can_encode(&self) -> bool {
        match self.layout {
            BlockLayout::Mx(_) | BlockLayout::Nvfp4 | BlockLayout::Group { .. } => true,
            BlockLayout::Ggml(kind) => kind.can_encode(),
            BlockLayout::Grid => false,
        }
    }

    /// The values that blocks stand for, times `tensor_scale`, which is 1 unless the tensor has a
    /// scale of its own beside the blocks (NVFP4's `weight_scale_2`).
    ///
    /// MX, NVFP4 and groups round once, from the exact product to binary32; beyond its range they
    /// are infinite. GGUF's types are calculated in binary32 in the order of `gguf/quants.py`
    /// 0.19.0, bit for bit (the payload of a NaN aside), and then multiplied by `tensor_scale`.
    ///
    /// # Errors
    /// When `bytes` is not the size of `out`'s elements, or nothing can be decoded.
    ///
    /// ```
    /// use flopwise_formats::block;
    /// let mxfp4 = block::parse("mxfp4").unwrap();
    /// let mut bytes = [0x00; 17];
    /// bytes[0] = 128; // the scale: 2^(128 - 127)
    /// bytes[1] = 0xf7; // the codes of 6 and -6
    /// let mut values = [0.0; 32];
    /// mxfp4.decode(&bytes, 1.0, &mut values).unwrap();
    /// assert_eq!(values[..3], [12.0, -12.0, 0.0]);
    /// ```
    pub fn decode(
        &self,
        bytes: &[u8],
        tensor_scale: f32,
        out: &mut [f32],
    ) -> Result<(), BlockError> {
        self.check_whole(out.len())?;
        let n_blocks = out.len() / self.elements;
        if n_blocks.checked_mul(self.bytes) != Some(bytes.len()) {
            let expected = n_blocks as u128 * self.bytes as u128;
            return Err(BlockError::WrongSize { name: self.name, expected, found: bytes.len() });
        }
        if self.layout == BlockLayout::Grid {
            return Err(BlockError::SizeOnly { name: self.name });
        }
        let blocks = bytes.chunks_exact(self.bytes).zip(out.chunks_exact_mut(self.elements));
        for (block, values) in blocks {
            match self.layout {
                BlockLayout::Mx(element) => mx::decode(element, block, tensor_scale, values),
                BlockLayout::Nvfp4 => nvfp4::decode(block, tensor_scale, values),
                BlockLayout::Group { scale, element, nibbles } => {
                    group::decode(scale, element, nibbles, block, tensor_scale, values);
                }
                BlockLayout::Ggml(kind) => {
                    gguf::decode(kind, block, values);
                    values.iter_mut().for_each(|value| *value *= tensor_scale);
                }
                BlockLayout::Grid => {}
            }
        }
        Ok(())
    }

    /// The blocks that stand for values, by the reference algorithm of each format.
    ///
    /// MX, NVFP4 and groups: an all-zero block has the scale code 0 (scale 0, or `2^-127` for MX)
    /// and zeros with their signs where the element has one; a block that holds a NaN or an
    /// infinity gets a NaN scale and element codes 0, so that all of it decodes to NaN (but see
    /// [`ScaleRule::RceilSaturating`]). GGUF's types give what `gguf.quants.quantize` 0.19.0 gives
    /// on x86, NaN and infinity too, but for `gguf_mxfp4` just below a power of two, where that
    /// takes a rounded logarithm.
    ///
    /// # Errors
    /// When the values do not fill whole blocks, the tensor's scale is no positive number, or the
    /// format cannot be encoded.
    ///
    /// ```
    /// use flopwise_formats::block::{self, BlockRules};
    /// let q8_0 = block::parse("q8_0").unwrap();
    /// let mut values = [0.0; 32];
    /// values[1] = -127.0;
    /// let bytes = q8_0.encode(&values, BlockRules::OCP).unwrap();
    /// assert_eq!(bytes[..4], [0x00, 0x3c, 0, 0x81]); // the scale 1 in FP16, 0, -127
    /// ```
    pub fn encode(&self, values: &[f32], rules: BlockRules) -> Result<Vec<u8>, BlockError> {
        self.check_whole(values.len())?;
        let tensor = match self.layout {
            BlockLayout::Nvfp4 => nvfp4::encode_scale(rules, values)?,
            BlockLayout::Mx(_) | BlockLayout::Group { .. } => nvfp4::EncodeScale::Float32(1.0),
            BlockLayout::Ggml(kind) if kind.can_encode() => nvfp4::EncodeScale::Float32(1.0),
            BlockLayout::Ggml(_) => return Err(BlockError::DecodeOnly { name: self.name }),
            BlockLayout::Grid => return Err(BlockError::SizeOnly { name: self.name }),
        };
        let mut bytes = vec![0; values.len() / self.elements * self.bytes];
        let blocks = bytes.chunks_exact_mut(self.bytes).zip(values.chunks_exact(self.elements));
        for (block, values) in blocks {
            match self.layout {
                BlockLayout::Mx(element) => mx::encode(element, values, rules.scale, block),
                BlockLayout::Nvfp4 => nvfp4::encode(values, &tensor, block),
                BlockLayout::Group { scale, element, nibbles } => {
                    group::encode(scale, element, nibbles, values, block);
                }
                BlockLayout::Ggml(kind) => gguf_encode::encode(kind, values, block),
                BlockLayout::Grid => {}
            }
        }
        Ok(bytes)
    }

    fn check_whole(&self, elements: usize) -> Result<(), BlockError> {
        if elements.is_multiple_of(self.elements) {
            return Ok(());
        }
        Err(BlockError::PartialBlock { name: self.name, elements, block: self.elements })
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name)
    }
}

/// Element codes of `bits` bits, the first in the lowest bits.
fn unpack(bytes: &[u8], bits: u16, element_idx: usize) -> u128 {
    let first = element_idx * usize::from(bits);
    let bit = |bit_idx: usize| (bytes[bit_idx / 8] >> (bit_idx % 8)) & 1;
    (0..usize::from(bits)).map(|place| u128::from(bit(first + place)) << place).sum()
}

/// Puts a code where [`unpack`] finds it; the place holds zeros.
fn pack(bytes: &mut [u8], bits: u16, element_idx: usize, code: u128) {
    let first = element_idx * usize::from(bits);
    for place in 0..usize::from(bits) {
        let bit_idx = first + place;
        bytes[bit_idx / 8] |= (((code >> place) & 1) as u8) << (bit_idx % 8);
    }
}

/// `floor(log2 |value|)` of a finite value that is not zero, from its exponent bits.
///
/// A logarithm in floating point rounds up just below powers of two.
fn floor_log2(value: f32) -> i32 {
    let bits = value.abs().to_bits();
    match bits >> 23 {
        // A subnormal is its significand times 2^-149.
        0 => 31 - bits.leading_zeros() as i32 - 149,
        field => field as i32 - 127,
    }
}

/// The largest magnitude of a block; `None` if it holds a NaN or an infinity.
fn finite_magnitude(values: &[f32]) -> Option<f32> {
    let is_finite = values.iter().all(|value| value.is_finite());
    is_finite.then(|| values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs())))
}

/// `2^exponent`, for exponents of normal binary64 numbers.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips() {
        for bits in [1, 2, 3, 4, 6, 8] {
            let codes: Vec<u128> = (0..32).map(|idx| (idx * 37 + 11) % (1 << bits)).collect();
            let mut bytes = vec![0; 32 * usize::from(bits) / 8];
            for (idx, code) in codes.iter().enumerate() {
                pack(&mut bytes, bits, idx, *code);
            }
            let found: Vec<u128> = (0..32).map(|idx| unpack(&bytes, bits, idx)).collect();
            assert_eq!(found, codes);
        }
    }

    #[test]
    fn logarithms_come_from_the_exponent() {
        for exponent in -149i32..128 {
            let power = power_of_two(exponent) as f32;
            assert_eq!(floor_log2(power), exponent);
            assert_eq!(floor_log2(-power), exponent);
            if exponent > -149 {
                assert_eq!(floor_log2(power.next_down()), exponent - 1);
            }
        }
    }

    #[test]
    fn errors_say_what_would_do() {
        let mxfp4 = parse("mxfp4").unwrap();
        let few = mxfp4.encode(&[0.0; 31], BlockRules::OCP).unwrap_err();
        assert!(few.to_string().contains("whole blocks of 32"), "{few}");
        let wrong = mxfp4.decode(&[0; 16], 1.0, &mut [0.0; 32]).unwrap_err();
        assert!(wrong.to_string().contains("17 bytes, not 16"), "{wrong}");
        for format in ALL {
            let values = vec![1.0; format.elements];
            let encoded = format.encode(&values, BlockRules::OCP);
            assert_eq!(encoded.is_ok(), format.can_encode(), "{format}");
            let mut values = values;
            let decoded = format.decode(&vec![0; format.bytes], 1.0, &mut values);
            assert_eq!(decoded.is_ok(), format.can_decode(), "{format}");
            assert_eq!(format.decode(&[], 1.0, &mut []).is_ok(), format.can_decode());
        }
    }
}
