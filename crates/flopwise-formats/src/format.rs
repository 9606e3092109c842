//! What one number format is: its width and the layout of its bits.
//!
//! Not here: conversion between formats.

use std::fmt;

/// One number format, described as data.
///
/// Sizes are in bits, because formats of 4 and 6 bits have no size in bytes; only a whole tensor
/// has bytes ([`Format::bytes_for`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format {
    /// The short name, as printed and parsed: `fp32`, `bf16`, `int8`.
    pub name: &'static str,
    /// Bits of one element.
    pub bits: u16,
    /// What the bits mean.
    pub layout: Layout,
}

/// What the bits of a [`Format`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// Sign, exponent, significand, from the most significant bit down.
    Float {
        /// Bits of the sign: 1, or 0 for an unsigned format.
        sign_bits: u8,
        /// Bits of the exponent field.
        exponent_bits: u8,
        /// Bits of the trailing significand (the leading one is not stored).
        significand_bits: u8,
        /// What is subtracted from the exponent field.
        bias: i16,
    },
    /// Two's complement.
    SignedInteger,
    /// Plain binary.
    UnsignedInteger,
    /// True or false, one value in each element's storage.
    Boolean,
    /// A pair of floats: real, then imaginary.
    Complex,
    /// Text of no fixed size; only its element count is known.
    Text,
}

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
        matches!(self.layout, Layout::Float { .. })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name)
    }
}
