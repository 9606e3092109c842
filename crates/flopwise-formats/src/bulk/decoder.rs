//! One code -> binary32, without a branch: the way back of [`super::kernel`].
//!
//! Covers floats whose every value is a binary32. Not here: slices and packing.

use crate::format::{Format, Nan};

/// Decoding of one format.
///
/// `value` is right for codes that are not [`Decoder::is_special`]; `careful_value` for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder {
    pub(crate) n_dropped: u32,
    pub(crate) magnitude_mask: u32,
    sign_shift: u32,
    sign_mask: u32,
    /// What is added to a normal code's exponent field, in place.
    pub(crate) rebias: u32,
    /// The magnitude of the smallest normal code, and its value.
    hidden: u32,
    lowest: u32,
    /// Larger magnitudes are infinity or NaN; -1 for E8M0, whose every code is a power of two.
    pub(crate) max: i32,
    /// The code of infinity, and that of minus zero where it is a NaN; [`NO_CODE`] without.
    infinity: u32,
    minus_zero: u32,
}

/// No format here has so wide a code.
const NO_CODE: u32 = u32::MAX;

impl Decoder {
    /// `None` where the codec must do it.
    pub(crate) fn new(format: Format) -> Option<Decoder> {
        let float = format.float()?;
        let is_power_of_two = Format::E8M0.float() == Some(float);
        if !(float.has_zero || is_power_of_two) || 23 < float.significand_bits {
            return None;
        }
        if 30 < float.magnitude_bits() && format != Format::FP32 {
            return None;
        }
        let highest = (float.max_finite_code() >> float.significand_bits) as i64;
        let is_within = -126 <= float.min_exponent() && highest - i64::from(float.bias) <= 127;
        if !(is_within || is_power_of_two) {
            return None;
        }
        let n_dropped = 23 - u32::from(float.significand_bits);
        let sign_mask = float.sign_code(true) as u32;
        let has_minus_zero_nan = float.nan == Nan::NegativeZero && sign_mask != 0;
        let rebias = ((127 - float.bias) as u32) << 23;
        let hidden = 1u32 << float.significand_bits;
        Some(Decoder {
            n_dropped,
            magnitude_mask: ((1u64 << float.magnitude_bits()) - 1) as u32,
            sign_shift: 31 - float.magnitude_bits(),
            sign_mask,
            rebias,
            hidden,
            lowest: (hidden << n_dropped).wrapping_add(rebias),
            max: if is_power_of_two { -1 } else { float.max_finite_code() as i32 },
            infinity: float.infinity_code().map_or(NO_CODE, |code| code as u32),
            minus_zero: if has_minus_zero_nan { sign_mask } else { NO_CODE },
        })
    }

    /// Whether [`super::avx2_decode`] knows these codes: 4 bits, or 6 or 8 whose exponents FP16 has
    /// too, of which only those of 8 may be special.
    pub(crate) fn is_plain(&self, bits: u16) -> bool {
        let is_full = self.sign_mask != 0 && u32::from(bits) == 32 - self.sign_shift;
        let has_special = self.max != self.magnitude_mask as i32 || self.has_minus_zero_nan();
        let half_infinity = 31 << (23 - self.n_dropped);
        let has_room = self.exponent_bits() <= 5 && self.max < half_infinity;
        match bits {
            4 => true,
            6 => is_full && has_room && self.half_factor().is_normal() && !has_special,
            8 => is_full && has_room && self.half_factor().is_normal() && 0 <= self.max,
            _ => false,
        }
    }

    /// How many times more a code stands for than in the fields of FP16.
    pub(crate) fn half_factor(&self) -> f32 {
        f32::from_bits(self.rebias.wrapping_add(15 << 23))
    }

    /// FP16 and BF16, with whatever special codes above their own.
    pub(crate) fn is_word(&self) -> bool {
        let is_fp16 = self.n_dropped == 13 && self.rebias == 112 << 23 && self.max < 0x7c00;
        let is_bf16 = self.n_dropped == 16 && self.rebias == 0 && self.max < 0x7f80;
        self.sign_mask == 0x8000 && (is_fp16 || is_bf16) && !self.has_minus_zero_nan()
    }

    pub(crate) fn has_minus_zero_nan(&self) -> bool {
        self.minus_zero != NO_CODE
    }

    pub(crate) fn exponent_bits(&self) -> u32 {
        (self.magnitude_mask + 1).trailing_zeros() + self.n_dropped - 23
    }

    #[inline(always)]
    pub(crate) fn is_special(&self, code: u32) -> bool {
        let is_above = self.max < (code & self.magnitude_mask) as i32;
        is_above | (code & (self.magnitude_mask | self.sign_mask) == self.minus_zero)
    }

    #[inline(always)]
    pub(crate) fn value(&self, code: u32) -> f32 {
        let magnitude = code & self.magnitude_mask;
        let in_place = magnitude << self.n_dropped;
        let normal = in_place.wrapping_add(self.rebias);
        // One above the smallest normal value, less that: no multiplication meets a subnormal.
        let sum = f32::from_bits(in_place.wrapping_add(self.lowest));
        let subnormal = (sum - f32::from_bits(self.lowest)).to_bits();
        let value = if (magnitude as i32) < self.hidden as i32 { subnormal } else { normal };
        f32::from_bits(value | ((code & self.sign_mask) << self.sign_shift))
    }

    #[inline(always)]
    pub(crate) fn careful_value(&self, code: u32) -> f32 {
        let magnitude = code & self.magnitude_mask;
        if self.max < 0 {
            let value = if magnitude == 0 { 0x0040_0000 } else { magnitude << 23 };
            return if magnitude == 0xff { f32::NAN } else { f32::from_bits(value) };
        }
        let sign = (code & self.sign_mask) << self.sign_shift;
        let infinity = f32::from_bits(f32::INFINITY.to_bits() | sign);
        let special = if magnitude == self.infinity { infinity } else { f32::NAN };
        if self.is_special(code) { special } else { self.value(code) }
    }
}
