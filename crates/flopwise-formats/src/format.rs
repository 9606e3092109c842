//! What one number format is: its width and the layout of its bits.
//!
//! Not here: conversion between formats ([`crate::codec`]), and shared scales ([`crate::block`]).

use std::fmt;

/// One number format, described as data.
///
/// Sizes are in bits, because formats of 4 and 6 bits have no size in bytes; only a whole tensor
/// has bytes ([`Format::bytes_for`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format {
    /// The catalogue's name, `fp32`, `bf16`, `int8`; empty for a format that the catalogue does not
    /// hold, which [`Display`](fmt::Display) spells out: `fp(6,9)`, `binary8p4se`.
    pub name: &'static str,
    /// Bits of one element's code.
    pub bits: u16,
    /// What the bits mean.
    pub layout: Layout,
}

/// What the bits of a [`Format`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// Sign, exponent, significand, from the most significant bit down.
    Float(Float),
    /// Two's complement.
    SignedInteger,
    /// Plain binary.
    UnsignedInteger,
    /// Each code stands for an entry of a table of values.
    CodeBook(CodeBook),
    /// True or false, one value in each element's storage.
    Boolean,
    /// A pair of floats: real, then imaginary.
    Complex,
    /// Text of no fixed size; only its element count is known.
    Text,
}

/// A binary floating-point layout.
///
/// With exponent field `E`, trailing significand `T` and `m` bits of it, a code that is not special
/// stands for `2^(E - bias) * (1 + T / 2^m)`, or, where `E` is 0 and [`Float::has_zero`],
/// `2^(1 - bias) * T / 2^m` (IEEE 754-2019 section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Float {
    /// Bits of the sign: 1, or 0 for an unsigned format.
    pub sign_bits: u8,
    /// Bits of the exponent field.
    pub exponent_bits: u8,
    /// Bits of the trailing significand (the leading one is not stored).
    pub significand_bits: u8,
    /// What is subtracted from the exponent field.
    pub bias: i32,
    /// Which code is infinity.
    pub infinity: Infinity,
    /// Which codes are NaN.
    pub nan: Nan,
    /// Whether exponent field 0 holds zero and the subnormals; only E8M0 has it hold a power of two.
    pub has_zero: bool,
}

/// Which code of a [`Float`] is infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Infinity {
    /// None.
    None,
    /// Exponent all ones, significand zero (IEEE 754).
    Ieee,
    /// The largest magnitude that is not NaN (IEEE P3109 extended formats).
    Top,
    /// None, and what would overflow to it gives the largest value although there may be a NaN
    /// (IEEE P3109 finite formats).
    Saturated,
}

/// Which codes of a [`Float`] are NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nan {
    /// None.
    None,
    /// Exponent all ones, significand not zero (IEEE 754).
    Ieee,
    /// Exponent and significand all ones, with either sign (`FN` formats, E8M0).
    AllOnes,
    /// The code that would be minus zero (`FNUZ` formats, signed P3109 formats).
    NegativeZero,
}

/// A table of values that codes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeBook {
    /// NF4 of QLoRA (arXiv:2305.14314 appendix E), as bitsandbytes stores it.
    Nf4,
}

impl CodeBook {
    /// The values, in the order of their codes, rising.
    pub fn values(self) -> &'static [f32] {
        match self {
            CodeBook::Nf4 => &NF4,
        }
    }
}

/// bitsandbytes `csrc/kernels.cu`, table `nf4_data`.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

impl Format {
    /// Bytes that `elements` elements take when packed without gaps, rounded up to a whole byte;
    /// `None` when the count does not fit `u128`.
    ///
    /// ```
    /// use flopwise_formats::Format;
    /// assert_eq!(Format::FP32.bytes_for(3), Some(12));
    /// assert_eq!(Format::INT4.bytes_for(3), Some(2));
    /// ```
    pub fn bytes_for(self, elements: u128) -> Option<u128> {
        elements.checked_mul(u128::from(self.bits)).map(|bits| bits.div_ceil(8))
    }

    /// Whether an element stands for a real number with a fraction.
    pub fn is_float(self) -> bool {
        matches!(self.layout, Layout::Float(_))
    }

    /// The floating-point layout; `None` for integers, code books, pairs and text.
    ///
    /// ```
    /// use flopwise_formats::Format;
    /// assert_eq!(Format::BF16.float().unwrap().bias, 127);
    /// assert!(Format::INT8.float().is_none());
    /// ```
    pub fn float(self) -> Option<Float> {
        match self.layout {
            Layout::Float(float) => Some(float),
            Layout::SignedInteger
            | Layout::UnsignedInteger
            | Layout::CodeBook(_)
            | Layout::Boolean
            | Layout::Complex
            | Layout::Text => None,
        }
    }

    /// An unsigned or signed float that the catalogue need not hold.
    pub const fn from_float(float: Float) -> Format {
        let bits =
            float.sign_bits as u16 + float.exponent_bits as u16 + float.significand_bits as u16;
        Format { name: "", bits, layout: Layout::Float(float) }
    }
}

impl Float {
    /// Significant bits of a normal value, the hidden one included: IEEE 754's `p`.
    pub const fn precision(self) -> u32 {
        self.significand_bits as u32 + 1
    }

    /// The exponent of the smallest normal value.
    pub const fn min_exponent(self) -> i32 {
        if self.has_zero { 1 - self.bias } else { -self.bias }
    }

    /// Bits of exponent and significand together.
    pub const fn magnitude_bits(self) -> u32 {
        self.exponent_bits as u32 + self.significand_bits as u32
    }

    /// The largest magnitude code, all ones.
    const fn all_ones(self) -> u128 {
        (1 << self.magnitude_bits()) - 1
    }

    /// The code with exponent all ones and significand zero.
    const fn ieee_infinity(self) -> u128 {
        ((1 << self.exponent_bits) - 1) << self.significand_bits
    }

    /// The code of positive infinity.
    pub const fn infinity_code(self) -> Option<u128> {
        match self.infinity {
            Infinity::None | Infinity::Saturated => None,
            Infinity::Ieee => Some(self.ieee_infinity()),
            Infinity::Top => match self.nan {
                Nan::AllOnes => Some(self.all_ones() - 1),
                Nan::Ieee => Some(self.ieee_infinity()),
                Nan::None | Nan::NegativeZero => Some(self.all_ones()),
            },
        }
    }

    /// The code of the NaN that conversions give: quiet, positive, without payload.
    pub const fn nan_code(self) -> Option<u128> {
        match self.nan {
            Nan::None => None,
            // The quiet bit is the significand's first (IEEE 754-2019 section 6.2.1).
            Nan::Ieee => Some(self.ieee_infinity() | (1 << (self.significand_bits - 1))),
            Nan::AllOnes => Some(self.all_ones()),
            Nan::NegativeZero => Some(1 << self.magnitude_bits()),
        }
    }

    /// The code of the NaN that conversions give, with a sign where that NaN has one.
    pub(crate) fn signed_nan(self, is_negative: bool) -> Option<u128> {
        let code = self.nan_code()?;
        match self.nan {
            Nan::NegativeZero => Some(code),
            Nan::None | Nan::Ieee | Nan::AllOnes => Some(code | self.sign_code(is_negative)),
        }
    }

    /// The sign bit, where it is set and there is one.
    pub(crate) fn sign_code(self, is_negative: bool) -> u128 {
        if is_negative && self.sign_bits == 1 { 1 << self.magnitude_bits() } else { 0 }
    }

    /// The code of the largest finite value.
    pub const fn max_finite_code(self) -> u128 {
        let below_nan = match self.nan {
            Nan::Ieee => self.ieee_infinity(),
            Nan::AllOnes => self.all_ones() - 1,
            Nan::None | Nan::NegativeZero => self.all_ones(),
        };
        match self.infinity_code() {
            Some(infinity) => infinity - 1,
            // Without infinity its place under an IEEE NaN is one more finite value.
            None => below_nan,
        }
    }

    /// Whether `-0` has a code of its own.
    pub const fn has_negative_zero(self) -> bool {
        self.sign_bits == 1 && self.has_zero && !matches!(self.nan, Nan::NegativeZero)
    }

    /// How many values, infinities and NaN left out, have a code; `-0` counts beside `0`.
    ///
    /// ```
    /// use flopwise_formats::Format;
    /// assert_eq!(Format::E4M3FN.float().unwrap().finite_codes(), 254);
    /// ```
    pub const fn finite_codes(self) -> u128 {
        let positive = self.max_finite_code() + 1;
        if self.sign_bits == 0 {
            positive
        } else if self.has_negative_zero() {
            2 * positive
        } else {
            2 * positive - 1
        }
    }

    /// The IEEE P3109 name of this layout (`binary8p4se`: K, P, signed, extended), where it is one
    /// (P3109 interim report 3.2, section 4.2).
    pub fn p3109_name(self) -> Option<String> {
        let is_signed = self.sign_bits == 1;
        let nan = if is_signed { Nan::NegativeZero } else { Nan::AllOnes };
        let centre = 1i32.checked_shl(u32::from(self.exponent_bits) - 1)?;
        if self.nan != nan || self.bias != centre || !self.has_zero {
            return None;
        }
        let domain = match self.infinity {
            Infinity::Top => 'e',
            Infinity::Saturated => 'f',
            Infinity::None | Infinity::Ieee => return None,
        };
        let bits = self.magnitude_bits() + u32::from(self.sign_bits);
        let sign = if is_signed { 's' } else { 'u' };
        Some(format!("binary{bits}p{}{sign}{domain}", self.precision()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            return formatter.pad(self.name);
        }
        match self.float() {
            Some(float) => formatter.pad(&float.spelled()),
            None => formatter.pad("unnamed"),
        }
    }
}

impl Float {
    /// The name that [`crate::parse`] reads back: P3109's, or `fp(e,m,...)` with what differs from
    /// an IEEE layout.
    fn spelled(self) -> String {
        if let Some(name) = self.p3109_name() {
            return name;
        }
        let mut text = format!("fp({},{}", self.exponent_bits, self.significand_bits);
        if self.bias != ieee_bias(self.exponent_bits) {
            text += &format!(",bias={}", self.bias);
        }
        match self.infinity {
            Infinity::Ieee => {}
            Infinity::None => text += ",inf=none",
            Infinity::Top => text += ",inf=top",
            Infinity::Saturated => text += ",inf=saturated",
        }
        match self.nan {
            Nan::Ieee => {}
            Nan::None if self.significand_bits == 0 => {}
            Nan::None => text += ",nan=none",
            Nan::AllOnes => text += ",nan=all-ones",
            Nan::NegativeZero => text += ",nan=negative-zero",
        }
        if self.sign_bits == 0 {
            text += ",sign=no";
        }
        if !self.has_zero {
            text += ",zero=no";
        }
        text + ")"
    }
}

/// IEEE 754-2019 table 3.5: `2^(e-1) - 1`.
pub(crate) const fn ieee_bias(exponent_bits: u8) -> i32 {
    (1 << (exponent_bits - 1)) - 1
}
