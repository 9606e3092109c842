//! One element: the bits of a binary32 -> a code, or -> the value of that code, without a branch,
//! so that a compiler vectorises loops over it.
//!
//! Covers floats with subnormals, and E8M0, to nearest even; where no [`Kernel`] can be made, the
//! codec must do it. Not here: slices, packing and the choice of instructions.
//!
//! The rounding is one addition of the FPU. Beside a power of two whose last bit weighs as much as
//! the format's, a magnitude rounds to that last bit, to even, subnormal or not. So the FPU must be
//! in the mode that Rust assumes: to nearest, subnormals not flushed.

use crate::codec::{self, Overflow, Rounding, Rules, Subnormals};
use crate::format::{Float, Format};
use std::sync::OnceLock;

/// All but the sign of a binary32.
const MAGNITUDE: u32 = u32::MAX >> 1;
/// The magnitude of infinity; NaN lies above.
const INFINITY: u32 = 0x7f80_0000;
/// Where an anchored sum holds the code.
const CODE: u32 = 0xffff;

/// How magnitudes round. Loops are compiled for each, as `const WAY: u8`.
pub(crate) mod way {
    /// By adding an anchor: formats whose range leaves room for it.
    pub(crate) const ANCHORED: u8 = 0;
    /// By integers: formats whose smallest normal value is binary32's (BF16, TF32).
    pub(crate) const DIRECT: u8 = 1;
    /// E8M0; only the careful functions know it.
    pub(crate) const POWER_OF_TWO: u8 = 2;
}

/// What becomes of sources that the sum does not cover, for positive and negative ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Special {
    /// A source that is zero or becomes it.
    pub(crate) zero: [u32; 2],
    pub(crate) infinity: [u32; 2],
    pub(crate) nan: [u32; 2],
    /// A finite source beyond the largest value.
    pub(crate) beyond: [u32; 2],
    /// A finite source that stays finite, when negative, in a format without a sign.
    pub(crate) below: u32,
}

/// Conversion from binary32 to one format under one set of rules, for one element at a time.
///
/// `code` and `value` are right for sources whose [`Kernel::watched`] bits are at most `calm_code`
/// or `calm_value`; `careful_code` and `careful_value` are right for every source, and slower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) way: u8,
    /// Whether minus zero has a code; without, the sign depends on the result.
    pub(crate) has_minus_zero: bool,
    pub(crate) calm_code: u32,
    pub(crate) calm_value: u32,
    watch: u32,
    /// Larger magnitudes are replaced by this: the largest value, or what would follow it.
    pub(crate) clamp: i32,
    /// The smallest normal value.
    pub(crate) lowest: i32,
    /// How many of binary32's significand bits the format lacks.
    pub(crate) n_dropped: u32,
    /// What makes the anchor from a binade.
    lift: i32,
    /// [`way::DIRECT`]: half of the last kept bit, less one; whether there is a bit below it.
    half_less_one: u32,
    last_bit: u32,
    sign_shift: u32,
    pub(crate) sign_mask: u32,
    pub(crate) is_signed: bool,
    /// The largest value.
    max: i32,
    codes: Special,
    values: Special,
    has_values: bool,
}

/// The formats most asked for. To make their kernels takes longer than to encode 4 KiB, so they
/// are kept.
const KEPT: [Format; 7] = [
    Format::BF16,
    Format::FP16,
    Format::E4M3FN,
    Format::E5M2,
    Format::E2M1,
    Format::E2M3,
    Format::E3M2,
];

/// Where a kernel is kept, if it is.
fn kept(format: Format, rules: Rules) -> Option<&'static OnceLock<Option<Kernel>>> {
    static KERNELS: [[OnceLock<Option<Kernel>>; 4]; KEPT.len()] =
        [const { [const { OnceLock::new() }; 4] }; KEPT.len()];
    if rules.rounding != Rounding::NearestEven || rules.subnormals != Subnormals::Kept {
        return None;
    }
    let is_same = |kept: &Format| kept.bits == format.bits && kept.layout == format.layout;
    let idx = KEPT.iter().position(is_same)?;
    let overflow_idx = match rules.overflow {
        Overflow::ToInfinity => 0,
        Overflow::SaturateFinite => 1,
        Overflow::SaturatePropagate => 2,
        Overflow::Onnx => 3,
    };
    Some(&KERNELS[idx][overflow_idx])
}

impl Kernel {
    /// For codes; `None` where the codec must do it. For values see [`Kernel::with_values`].
    pub(crate) fn new(format: Format, rules: Rules) -> Option<Kernel> {
        match kept(format, rules) {
            Some(kept) => *kept.get_or_init(|| {
                Kernel::made(format, rules).map(|kernel| kernel.with_values(format))
            }),
            None => Kernel::made(format, rules),
        }
    }

    fn made(format: Format, rules: Rules) -> Option<Kernel> {
        let float = format.float()?;
        let is_plain =
            rules.rounding == Rounding::NearestEven && rules.subnormals == Subnormals::Kept;
        if !is_plain || float.significand_bits > 23 || float.magnitude_bits() > 31 {
            return None;
        }
        // The reference itself says what becomes of what.
        let codes = specials(format, rules);
        let max_code = float.max_finite_code() as u32;
        let clamp_code = if codes.beyond[0] == max_code { max_code } else { max_code + 1 };
        if codes.beyond[0] != clamp_code || max_code >> float.significand_bits == 0 {
            return None;
        }
        let clamp = value_bits(float, clamp_code);
        let way = way_of(float, clamp)?;
        let is_signed = float.sign_bits == 1;
        let sign_mask = if is_signed { 1 << float.magnitude_bits() } else { 0 };
        let follows = [clamp_code, clamp_code | sign_mask];
        let calm_code = match (codes.infinity == follows, codes.nan == follows) {
            (true, true) if is_signed => u32::MAX,
            (true, _) => INFINITY,
            (false, _) => INFINITY - 1,
        };
        let max = value_bits(float, max_code) as u32;
        let calm_value = if clamp_code == max_code { calm_code.min(INFINITY) } else { max };
        let n_dropped = 23 - u32::from(float.significand_bits);
        let lowest = value_bits(float, 1 << float.significand_bits) as i32;
        Some(Kernel {
            way,
            has_minus_zero: !is_signed || float.has_negative_zero(),
            calm_code,
            calm_value,
            watch: if is_signed { MAGNITUDE } else { u32::MAX },
            clamp: clamp as i32,
            lowest,
            n_dropped,
            lift: (n_dropped << 23) as i32 - (lowest >> n_dropped),
            half_less_one: if n_dropped == 0 { 0 } else { (1 << (n_dropped - 1)) - 1 },
            last_bit: u32::from(n_dropped != 0),
            sign_shift: 31 - float.magnitude_bits(),
            sign_mask,
            is_signed,
            max: max as i32,
            codes,
            values: Special::default(),
            has_values: false,
        })
    }

    /// With what [`Kernel::careful_value`] needs, which takes longer to find than a short slice to
    /// encode.
    pub(crate) fn with_values(self, format: Format) -> Kernel {
        if self.has_values {
            return self;
        }
        let of_code = |code: u32| (codec::decode_f64(format, code.into()) as f32).to_bits();
        let values = Special {
            zero: self.codes.zero.map(of_code),
            infinity: self.codes.infinity.map(of_code),
            nan: self.codes.nan.map(of_code),
            beyond: self.codes.beyond.map(of_code),
            below: of_code(self.codes.below),
        };
        Kernel { values, has_values: true, ..self }
    }

    /// Whether [`Kernel::code`] is right for all of them.
    #[inline]
    pub(crate) fn is_calm(&self, src: &[f32]) -> bool {
        let watched = src.iter().map(|source| self.watched(source.to_bits()));
        watched.fold(0, u32::max) <= self.calm_code
    }

    /// Whether a source that was rounded to odd binary32 gets the code of what it was before: with
    /// at most 22 significant bits.
    pub(crate) fn can_follow_odd(&self) -> bool {
        2 <= self.n_dropped
    }

    /// Whether the code fits a byte of an anchored sum whose last bits hold only the significand:
    /// with at least one bit of it, a sign, and this either plain or the byte's first. What is taken
    /// from those bits must exceed what they hold, or there is a carry beyond 16 of them.
    pub(crate) fn is_plain(&self) -> bool {
        let is_sign_simple = self.has_minus_zero || self.sign_mask == 0x80;
        let is_simple = self.way == way::ANCHORED && self.is_signed && is_sign_simple;
        is_simple && self.n_dropped < 23 && self.sign_mask + (2 << self.n_kept()) < self.excess()
    }

    /// How many of binary32's significand bits the format has.
    pub(crate) fn n_kept(&self) -> u32 {
        23 - self.n_dropped
    }

    /// With [`way::ANCHORED`]: the exponent of a sum of the smallest binade, counted in codes.
    pub(crate) fn excess(&self) -> u32 {
        ((self.lowest as u32 >> 23) + self.n_dropped) << self.n_kept()
    }

    pub(crate) fn is_fp16(&self) -> bool {
        // The bits of 2^-14.
        self.is_signed_word(13) && self.lowest == 0x3880_0000 && self.has_nan_at_top()
    }

    pub(crate) fn is_bf16(&self) -> bool {
        self.way == way::DIRECT && self.is_signed_word(16) && self.has_nan_at_top()
    }

    fn is_signed_word(&self, n_dropped: u32) -> bool {
        self.is_signed && self.sign_mask == 0x8000 && self.n_dropped == n_dropped
    }

    /// As IEEE 754 has it; the other places are taken by large values.
    fn has_nan_at_top(&self) -> bool {
        let infinity = ((self.sign_mask - 1) >> (23 - self.n_dropped)) << (23 - self.n_dropped);
        self.has_minus_zero && self.max_code() == infinity - 1
    }

    /// The code of the largest value.
    fn max_code(&self) -> u32 {
        self.magnitude_of(self.max)
    }

    /// The code that every larger magnitude gets.
    pub(crate) fn clamp_code(&self) -> u32 {
        self.magnitude_of(self.clamp)
    }

    fn magnitude_of(&self, value: i32) -> u32 {
        ((value - self.lowest) as u32 >> self.n_dropped) + (1 << (23 - self.n_dropped))
    }

    /// The bits that decide whether a source is calm.
    #[inline(always)]
    pub(crate) fn watched(&self, bits: u32) -> u32 {
        bits & self.watch
    }

    /// The code of a calm source; with [`way::ANCHORED`] there is noise above the lowest 16 bits.
    #[inline(always)]
    pub(crate) fn code<const WAY: u8, const MINUS_ZERO: bool>(&self, bits: u32) -> u32 {
        let sign = (bits >> self.sign_shift) & self.sign_mask;
        let rounded = self.magnitude_code::<WAY>(bits);
        if MINUS_ZERO {
            rounded | sign
        } else {
            rounded | if rounded & CODE == 0 { 0 } else { sign }
        }
    }

    /// The bits of the value that a calm source becomes.
    #[inline(always)]
    pub(crate) fn value<const WAY: u8, const MINUS_ZERO: bool>(&self, bits: u32) -> u32 {
        let sign = bits & !MAGNITUDE;
        let rounded = self.magnitude_value::<WAY>(bits);
        if MINUS_ZERO { rounded | sign } else { rounded | if rounded == 0 { 0 } else { sign } }
    }

    /// The code of any source; above its bits, nothing.
    #[inline(always)]
    pub(crate) fn careful_code<const WAY: u8>(&self, bits: u32) -> u32 {
        let rounded = self.magnitude_code::<WAY>(bits);
        let rounded = if WAY == way::ANCHORED { rounded & CODE } else { rounded };
        let is_zero = match WAY {
            // Half way between 2^-128 and 2^-127, of which the former has no code.
            way::POWER_OF_TWO => bits & MAGNITUDE < 0x0030_0000,
            _ => rounded == 0,
        };
        let is_negative = bits & !MAGNITUDE != 0;
        let sign = if is_negative { self.sign_mask } else { 0 };
        self.chosen(&self.codes, bits, rounded | sign, is_zero)
    }

    /// The bits of the value that any source becomes.
    #[inline(always)]
    pub(crate) fn careful_value<const WAY: u8>(&self, bits: u32) -> u32 {
        if WAY == way::POWER_OF_TWO {
            let code = self.careful_code::<WAY>(bits);
            let value = if code == 0 { 0x0040_0000 } else { code << 23 };
            return if code == 0xff { f32::NAN.to_bits() } else { value };
        }
        let rounded = self.magnitude_value::<WAY>(bits);
        let is_negative = bits & !MAGNITUDE != 0;
        let signed = rounded | (bits & !MAGNITUDE);
        let beyond = if is_negative { self.values.beyond[1] } else { self.values.beyond[0] };
        let value = if self.max < rounded as i32 { beyond } else { signed };
        self.chosen(&self.values, bits, value, rounded == 0)
    }

    #[inline(always)]
    fn chosen(&self, special: &Special, bits: u32, finite: u32, is_zero: bool) -> u32 {
        let magnitude = (bits & MAGNITUDE) as i32;
        let is_negative = bits & !MAGNITUDE != 0;
        let of = |pair: [u32; 2]| if is_negative { pair[1] } else { pair[0] };
        let finite = if is_negative && !self.is_signed { special.below } else { finite };
        let finite = if is_zero { of(special.zero) } else { finite };
        let number = if magnitude == INFINITY as i32 { of(special.infinity) } else { finite };
        if (INFINITY as i32) < magnitude { of(special.nan) } else { number }
    }

    /// Exponent and significand of the result; noise as in [`Kernel::code`].
    #[inline(always)]
    fn magnitude_code<const WAY: u8>(&self, bits: u32) -> u32 {
        let magnitude = self.clamped(bits);
        match WAY {
            way::ANCHORED => {
                let anchor = self.anchor(magnitude);
                (f32::from_bits(magnitude as u32) + anchor).to_bits()
            }
            way::DIRECT => self.rounded(magnitude as u32) >> self.n_dropped,
            _ => {
                let normal = self.rounded(magnitude as u32) >> self.n_dropped;
                // 2^-127 is a subnormal of binary32; 1.5 times that is a tie with the even code 0.
                let subnormal = u32::from(0x0060_0000 < magnitude);
                if magnitude < 0x0080_0000 { subnormal } else { normal }
            }
        }
    }

    /// The magnitude of the result.
    #[inline(always)]
    fn magnitude_value<const WAY: u8>(&self, bits: u32) -> u32 {
        let magnitude = self.clamped(bits);
        if WAY == way::ANCHORED {
            let anchor = self.anchor(magnitude);
            ((f32::from_bits(magnitude as u32) + anchor) - anchor).to_bits()
        } else {
            self.rounded(magnitude as u32) >> self.n_dropped << self.n_dropped
        }
    }

    #[inline(always)]
    fn clamped(&self, bits: u32) -> i32 {
        ((bits & MAGNITUDE) as i32).min(self.clamp)
    }

    /// `2^(n_dropped)` times the magnitude's binade, whose own last bits hold the code of that
    /// binade: after the addition they hold the code of the sum, and are even where the code is.
    #[inline(always)]
    fn anchor(&self, magnitude: i32) -> f32 {
        let binade = (magnitude & INFINITY as i32).max(self.lowest);
        f32::from_bits((binade + (binade >> self.n_dropped) + self.lift) as u32)
    }

    #[inline(always)]
    fn rounded(&self, magnitude: u32) -> u32 {
        magnitude + self.half_less_one + ((magnitude >> self.n_dropped) & self.last_bit)
    }
}

/// The codes that the reference gives to what is not simply rounded.
fn specials(format: Format, rules: Rules) -> Special {
    let both = |value: f64| {
        [value, -value].map(|value| codec::encode_f64(format, value, rules).code as u32)
    };
    // No format here reaches as far as binary64.
    let beyond = both(f64::MAX);
    Special {
        zero: both(0.0),
        infinity: both(f64::INFINITY),
        nan: both(f64::NAN),
        beyond,
        below: beyond[1],
    }
}

fn way_of(float: Float, clamp: i64) -> Option<u8> {
    if !float.has_zero {
        let is_e8m0 = Format::E8M0.float() == Some(float);
        return is_e8m0.then_some(way::POWER_OF_TWO);
    }
    if float.min_exponent() == -126 && clamp <= i64::from(INFINITY) {
        return Some(way::DIRECT);
    }
    let n_dropped = 23 - i64::from(float.significand_bits);
    let has_room = -126 < float.min_exponent() && (clamp >> 23) + n_dropped < 255;
    (has_room && float.magnitude_bits() <= 15).then_some(way::ANCHORED)
}

/// The bits of a binary32 with unbounded exponent that has the value of a magnitude code above the
/// subnormals.
fn value_bits(float: Float, code: u32) -> i64 {
    let n_dropped = 23 - u32::from(float.significand_bits);
    (i64::from(code) << n_dropped) + (i64::from(127 - float.bias) << 23)
}
