//! One value -> what a target makes of it, in binary64 and fast; the codec where that does not do.
//!
//! Not here: sums and counts ([`super::cells`], [`super::direct`]).

use crate::codec::{self, Overflow, Rounding, Rules, Subnormals};
use crate::exact::Exact;
use crate::format::{Format, Layout};

/// What became of one finite value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fate {
    /// The value that the code stands for; infinite or NaN when the format answers so.
    pub(super) value: f64,
    /// The value is another than the one asked.
    pub(super) is_changed: bool,
    /// The magnitude was beyond the largest, after rounding.
    pub(super) is_overflow: bool,
    /// The format has no value of that sign.
    pub(super) is_invalid: bool,
}

/// Beyond it the anchor would be infinite.
const MAX_EXPONENT: i32 = 960;

impl Fate {
    /// What is neither overflow nor invalid.
    pub(super) fn of(asked: f64, value: f64) -> Fate {
        Fate { value, is_changed: asked != value, is_overflow: false, is_invalid: false }
    }
}

/// Conversion to one format under one set of rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantizer {
    pub(super) format: Format,
    rules: Rules,
    way: Way,
    /// The largest finite value.
    pub(super) max: f64,
    /// The smallest normal magnitude; 0 for formats without subnormals.
    pub(super) min_normal: f64,
    /// What positive and negative finite values beyond the largest become.
    beyond: [f64; 2],
    /// What the two infinities become.
    infinities: [f64; 2],
    /// Whether the format has a NaN to keep NaN in.
    pub(super) keeps_nan: bool,
    /// Whether finite values may become infinite or NaN.
    pub(super) leaves_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The format holds every binary64.
    Identity,
    /// A signed float: one addition of the FPU rounds it, as the module of sums explains.
    Float { min_exponent: i32, significand_bits: i32 },
    /// An integer of at most 32 bits.
    Integer,
    /// Whatever else, by the reference.
    Codec,
}

impl Quantizer {
    /// `None` for what is no format of single numbers, and for stochastic rounding, which has no one
    /// answer.
    pub(super) fn new(format: Format, rules: Rules) -> Option<Quantizer> {
        if matches!(rules.rounding, Rounding::Stochastic(_)) {
            return None;
        }
        let max = max_finite(format)?;
        let plain = rules.rounding == Rounding::NearestEven && rules.subnormals == Subnormals::Kept;
        let fate =
            |value: f64| codec::decode_f64(format, codec::encode_f64(format, value, rules).code);
        let way = match format.layout {
            _ if format == Format::FP64 && rules.overflow == Overflow::ToInfinity => Way::Identity,
            Layout::Float(float)
                if plain
                    && float.has_zero
                    && float.sign_bits == 1
                    && (1..=50).contains(&float.significand_bits)
                    && -1000 <= float.min_exponent()
                    && max < 2f64.powi(1000) =>
            {
                let significand_bits = i32::from(float.significand_bits);
                Way::Float { min_exponent: float.min_exponent(), significand_bits }
            }
            Layout::SignedInteger | Layout::UnsignedInteger if plain && format.bits <= 32 => {
                Way::Integer
            }
            Layout::Float(_)
            | Layout::SignedInteger
            | Layout::UnsignedInteger
            | Layout::CodeBook(_)
            | Layout::Boolean
            | Layout::Complex
            | Layout::Text => Way::Codec,
        };
        let normals = format.float().filter(|float| float.has_zero);
        let min_normal = normals.map_or(0.0, |float| 2f64.powi(float.min_exponent()));
        let beyond = [fate(f64::MAX), fate(-f64::MAX)];
        Some(Quantizer {
            format,
            rules,
            way,
            max,
            min_normal,
            beyond,
            leaves_out: !beyond.iter().all(|beyond| beyond.is_finite()),
            infinities: [fate(f64::INFINITY), fate(f64::NEG_INFINITY)],
            keeps_nan: fate(f64::NAN).is_nan(),
        })
    }

    /// The same, where for another reason finite values may become NaN.
    pub(super) fn leaving_out(self) -> Quantizer {
        Quantizer { leaves_out: true, ..self }
    }

    /// What a finite value becomes.
    #[inline]
    pub(super) fn fate(&self, value: f64) -> Fate {
        match self.way {
            Way::Identity => Fate::of(value, value),
            Way::Float { min_exponent, significand_bits } => {
                let magnitude = value.abs();
                let exponent = exponent_of(magnitude).max(min_exponent);
                if MAX_EXPONENT < exponent {
                    return self.by_codec(value);
                }
                // Beside this power of two the last bit weighs as much as the format's, so that the
                // sum is rounded there, to nearest even.
                let anchor = two_to(exponent + 52 - significand_bits);
                let rounded = (magnitude + anchor) - anchor;
                if self.max < rounded {
                    let beyond = self.beyond[usize::from(value.is_sign_negative())];
                    return Fate { is_overflow: true, ..Fate::of(value, beyond) };
                }
                Fate::of(value, rounded.copysign(value))
            }
            Way::Integer => {
                const ANCHOR: f64 = (1u64 << 52) as f64;
                let magnitude = value.abs().min(2f64.powi(40));
                let rounded = ((magnitude + ANCHOR) - ANCHOR).copysign(value);
                let [most, least] = self.beyond;
                let clamped = rounded.min(most).max(least);
                Fate { is_overflow: clamped != rounded, ..Fate::of(value, clamped) }
            }
            Way::Codec => self.by_codec(value),
        }
    }

    fn by_codec(&self, value: f64) -> Fate {
        self.fate_of(&Exact::from_f64(value)).0
    }

    /// [`Quantizer::fate`] of any exact value, with its exact error, by the reference.
    pub(super) fn fate_of(&self, value: &Exact) -> (Fate, f64) {
        let encoded = codec::encode(self.format, value, self.rules);
        let found = codec::decode(self.format, encoded.code);
        let rationals = found.as_ref().and_then(Exact::rational).zip(value.rational());
        let error = rationals.map_or(0.0, |(found, value)| value.minus(found).to_f64());
        let is_number = found.as_ref().is_some_and(|found| found.rational().is_some());
        let fate = Fate {
            value: codec::decode_f64(self.format, encoded.code),
            is_changed: encoded.flags.is_inexact || error != 0.0 || !is_number,
            is_overflow: encoded.flags.is_overflow,
            is_invalid: encoded.flags.is_invalid,
        };
        (fate, error)
    }

    /// What an infinity becomes.
    pub(super) fn infinity(&self, is_negative: bool) -> f64 {
        self.infinities[usize::from(is_negative)]
    }

    /// How many significand bits below the leading one tell apart what rounds differently: between
    /// two neighbours of that many bits all values become the same. `None` where no such grid is
    /// known.
    pub(super) fn grid_bits(&self) -> Option<u32> {
        match self.format.layout {
            // Halves of the last bit, so one more than the significand.
            Layout::Float(float) if float.has_zero && -126 <= float.min_exponent() => {
                Some(u32::from(float.significand_bits) + 1)
            }
            // The outermost boundaries are -2^(b-1) - 1/2 and 2^b - 1/2, of b + 1 bits.
            Layout::SignedInteger | Layout::UnsignedInteger => Some(u32::from(self.format.bits)),
            Layout::Float(_)
            | Layout::CodeBook(_)
            | Layout::Boolean
            | Layout::Complex
            | Layout::Text => None,
        }
    }

    /// How far apart results are where `value` lies; `None` where that is not known.
    pub(super) fn step_at(&self, value: f64) -> Option<f64> {
        match self.way {
            Way::Float { min_exponent, significand_bits } => {
                let exponent = exponent_of(value.abs()).max(min_exponent);
                Some(two_to(exponent - significand_bits))
            }
            Way::Integer => Some(1.0),
            Way::Identity | Way::Codec => None,
        }
    }

    /// Whether every finite value of `source` stays what it is.
    pub(super) fn holds(&self, source: Format) -> bool {
        let (Some(own), Some(other)) = (self.format.float(), source.float()) else {
            return self.format == source;
        };
        let is_kept = self.rules.subnormals == Subnormals::Kept;
        let lowest = |float: crate::Float| {
            float.min_exponent() - i32::from(float.significand_bits) * i32::from(float.has_zero)
        };
        // Where subnormals begin must be seen from the cells.
        let is_seen = !(-148..-126).contains(&own.min_exponent());
        is_kept
            && is_seen
            && own.has_zero
            && own.sign_bits == 1
            && other.significand_bits <= own.significand_bits
            && own.min_exponent() <= other.min_exponent()
            && lowest(own) <= lowest(other)
            && max_finite(source).is_some_and(|max| max <= self.max)
    }
}

/// The largest finite value; `None` where the format holds no single numbers.
pub(super) fn max_finite(format: Format) -> Option<f64> {
    match format.layout {
        Layout::Float(float) => Some(codec::decode_f64(format, float.max_finite_code())),
        Layout::SignedInteger => Some(codec::decode_f64(format, (1 << (format.bits - 1)) - 1)),
        Layout::UnsignedInteger => Some(codec::decode_f64(format, (1 << format.bits) - 1)),
        Layout::CodeBook(book) => book.values().last().map(|value| f64::from(*value)),
        Layout::Boolean | Layout::Complex | Layout::Text => None,
    }
}

/// `floor(log2 magnitude)`; -1023 for zero and subnormals.
#[inline]
fn exponent_of(magnitude: f64) -> i32 {
    (magnitude.to_bits() >> 52) as i32 - 1023
}

/// `2^exponent`, for -1022 to 1023.
#[inline]
pub(super) fn two_to(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ALL;

    #[track_caller]
    fn check(quantizer: &Quantizer, value: f64) {
        let (format, rules) = (quantizer.format, quantizer.rules);
        let encoded = codec::encode_f64(format, value, rules);
        let expected = codec::decode_f64(format, encoded.code);
        let found = quantizer.fate(value);
        let is_same = found.value == expected || (found.value.is_nan() && expected.is_nan());
        assert!(is_same, "{format} {value:e}: {} not {expected}", found.value);
        assert_eq!(found.is_overflow, encoded.flags.is_overflow, "{format} {value:e}");
        assert_eq!(found.is_invalid, encoded.flags.is_invalid, "{format} {value:e}");
    }

    /// Each value of the format, half way to the next, and just beside both.
    #[test]
    fn rounds_as_the_codec_does() {
        for format in ALL {
            for rules in [Rules::IEEE, Rules::SATURATING] {
                let Some(quantizer) = Quantizer::new(*format, rules) else { continue };
                let n_codes = 1u128 << format.bits.min(16);
                let step = if format.bits <= 10 { 1 } else { 61 };
                for code in (0..n_codes).step_by(step) {
                    let code = code << (format.bits - format.bits.min(16));
                    let (low, high) =
                        (codec::decode_f64(*format, code), codec::decode_f64(*format, code + 1));
                    for value in [low, low + (high - low) / 2.0, low / 3.0, 2.0 * low] {
                        if !value.is_finite() {
                            continue;
                        }
                        check(&quantizer, value);
                        check(&quantizer, value.next_up());
                        check(&quantizer, -value.next_down());
                    }
                }
                for value in [1e300, -1e300, 1e-300, 0.0, -0.0, f64::MAX, 5e-324] {
                    check(&quantizer, value);
                }
            }
        }
    }
}
