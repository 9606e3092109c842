//! [`Exact`] -> code -> [`Exact`]: the reference conversion of every format, exact, by integers.
//!
//! There is one rounding, from the exact value. Not here: speed ([`crate::bulk`] is tested against
//! this), and what shares a scale ([`crate::block`]).

use crate::exact::{Exact, Normalized, Rational};
use crate::format::{CodeBook, Float, Format, Infinity, Layout, Nan};

/// How a value between two codes is decided.
///
/// The stochastic ones take the random bits from the caller. With `v` the fraction between the two
/// neighbours, N the number of random bits and R their value, IEEE P3109 (interim report 3.2,
/// section 4.6) rounds away from zero when: A, `floor(v*2^N) + R >= 2^N`; B,
/// `floor(v*2^(N+1)) + 2R + 1 >= 2^(N+1)`; C, `roundTiesToEven(v*2^N) + R >= 2^N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To the nearest, half to the even code: IEEE 754's roundTiesToEven, the default everywhere.
    NearestEven,
    /// To the nearest, half away from zero.
    NearestAway,
    /// Toward zero: truncation.
    TowardZero,
    /// Toward plus infinity.
    Up,
    /// Toward minus infinity.
    Down,
    /// To the neighbour whose code is odd: a second rounding to fewer bits then goes right.
    ToOdd,
    /// By given random bits.
    Stochastic(Stochastic),
}

/// Which of P3109's stochastic roundings, and the random bits given for this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stochastic {
    /// A, B or C.
    pub variant: StochasticVariant,
    /// How many random bits; at most [`Stochastic::MAX_BITS`], more are ignored.
    pub n_bits: u8,
    /// Their value, below `2^n_bits`.
    pub random: u64,
}

impl Stochastic {
    /// The most random bits.
    pub const MAX_BITS: u8 = 63;
}

/// How a stochastic rounding cuts the fraction off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StochasticVariant {
    /// Truncates to N bits (gfloat: `StochasticFastest`).
    A,
    /// Truncates to N + 1 bits, centred (gfloat: `StochasticFast`).
    B,
    /// Rounds to N bits (gfloat: `Stochastic`).
    C,
}

/// What becomes of a value beyond the largest, after rounding with an unbounded exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Infinity, or NaN without one, or the largest value without either, for both finite and
    /// infinite values; roundings that point toward zero there give the largest (IEEE 754-2019
    /// section 7.4). `ml_dtypes`, and PyTorch before 2.12.
    ToInfinity,
    /// The largest finite value, for infinite values too: OFP8's saturating mode, CUDA's
    /// `satfinite`, P3109's `SatFinite`.
    SaturateFinite,
    /// The largest finite value; infinity stays infinity where there is one: P3109's
    /// `SatPropagate`.
    SaturatePropagate,
    /// ONNX `Cast` with `saturate = 1`: the largest finite value, also for infinity, except in the
    /// `FNUZ` formats, whose answer to infinity is NaN (ONNX "Float stored in 8 bits").
    Onnx,
}

/// What becomes of values below the smallest normal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subnormals {
    /// They are kept (IEEE 754).
    Kept,
    /// A result that would be subnormal becomes zero with its sign.
    FlushedToZero,
    /// A value below the format's smallest normal one is taken for zero before rounding.
    TakenForZero,
}

/// How values are converted; there is no default beyond [`Rules::IEEE`], which is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Between two codes.
    pub rounding: Rounding,
    /// Beyond the largest.
    pub overflow: Overflow,
    /// Below the smallest normal.
    pub subnormals: Subnormals,
}

impl Rules {
    /// Nearest even, overflow to infinity, subnormals kept: IEEE 754's defaults.
    pub const IEEE: Rules = Rules {
        rounding: Rounding::NearestEven,
        overflow: Overflow::ToInfinity,
        subnormals: Subnormals::Kept,
    };

    /// Nearest even, saturating, subnormals kept: what quantisers do.
    pub const SATURATING: Rules = Rules { overflow: Overflow::SaturateFinite, ..Rules::IEEE };
}

/// What happened on the way to a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The stored value differs from the asked one.
    pub is_inexact: bool,
    /// A value was beyond the largest one, rounded, and infinity is not what is stored for
    /// infinity.
    pub is_overflow: bool,
    /// A value was changed and is now subnormal or zero (tiny after rounding).
    pub is_underflow: bool,
    /// The format has no code for it at all: NaN without a NaN, a negative without a sign.
    pub is_invalid: bool,
}

/// A code and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoded {
    /// The bits, in the lowest [`Format::bits`].
    pub code: u128,
    /// What happened.
    pub flags: Flags,
}

/// The code that stands for `value` in `format` under `rules`.
///
/// Booleans take zero for false; complex pairs and text hold no single number and give code 0 with
/// [`Flags::is_invalid`].
///
/// ```
/// use flopwise_formats::{Format, codec::{self, Rules}, decimal};
/// let value = decimal::parse("0.052").unwrap().value;
/// assert_eq!(codec::encode(Format::FP32, &value, Rules::IEEE).code, 0x3D54FDF4);
/// assert_eq!(codec::encode(Format::FP16, &value, Rules::IEEE).code, 0x2AA8);
/// assert_eq!(codec::encode(Format::BF16, &value, Rules::IEEE).code, 0x3D55);
/// ```
pub fn encode(format: Format, value: &Exact, rules: Rules) -> Encoded {
    match format.layout {
        Layout::Float(float) => encode_float(float, Source::of(value), rules),
        Layout::SignedInteger => encode_integer(format.bits, true, value, rules.rounding),
        Layout::UnsignedInteger => encode_integer(format.bits, false, value, rules.rounding),
        Layout::CodeBook(book) => encode_entry(book, value),
        Layout::Boolean => Encoded { code: u128::from(!is_zero(value)), flags: Flags::default() },
        Layout::Complex | Layout::Text => Encoded { code: 0, flags: INVALID },
    }
}

/// [`encode`] of a binary64: rounds once.
///
/// ```
/// use flopwise_formats::{Format, codec::{self, Rules}};
/// // Through binary32 first, this would be a tie and give 0x3f80.
/// let value = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
/// assert_eq!(codec::encode_f64(Format::BF16, value, Rules::IEEE).code, 0x3f81);
/// ```
pub fn encode_f64(format: Format, value: f64, rules: Rules) -> Encoded {
    match format.layout {
        Layout::Float(float) => encode_float(float, Source::of_f64(value), rules),
        Layout::SignedInteger
        | Layout::UnsignedInteger
        | Layout::CodeBook(_)
        | Layout::Boolean
        | Layout::Complex
        | Layout::Text => encode(format, &Exact::from_f64(value), rules),
    }
}

/// [`encode`] of a binary32.
pub fn encode_f32(format: Format, value: f32, rules: Rules) -> Encoded {
    encode_f64(format, f64::from(value), rules)
}

/// The value that a code stands for; bits above [`Format::bits`] are ignored. `None` for complex
/// pairs and text.
///
/// ```
/// use flopwise_formats::{Format, codec};
/// assert_eq!(codec::decode(Format::E4M3FN, 0x7e).unwrap().to_string(), "448");
/// assert_eq!(codec::decode(Format::E8M0, 0xff).unwrap().to_string(), "nan");
/// ```
pub fn decode(format: Format, code: u128) -> Option<Exact> {
    match format.layout {
        Layout::Float(float) => Some(decode_float(float, code)),
        Layout::SignedInteger => {
            let code = masked(format.bits, code);
            let sign = 1u128 << (format.bits - 1);
            let is_negative = code & sign != 0;
            let magnitude = if is_negative { 2 * sign - code } else { code };
            Some(Exact::Finite(Rational::binary(is_negative, magnitude, 0)))
        }
        Layout::UnsignedInteger => {
            Some(Exact::Finite(Rational::binary(false, masked(format.bits, code), 0)))
        }
        Layout::CodeBook(book) => {
            let entry = book.values().get(masked(format.bits, code) as usize)?;
            Some(Exact::from_f64(f64::from(*entry)))
        }
        Layout::Boolean => Some(Exact::Finite(Rational::binary(false, u128::from(code != 0), 0))),
        Layout::Complex | Layout::Text => None,
    }
}

/// [`decode`] to a binary64: exact for every catalogue format of real numbers but 64-bit integers,
/// which round to nearest even. NaN for complex pairs and text.
pub fn decode_f64(format: Format, code: u128) -> f64 {
    match decode(format, code) {
        Some(Exact::Finite(rational)) => rational.to_f64(),
        Some(Exact::Infinity { is_negative: false }) => f64::INFINITY,
        Some(Exact::Infinity { is_negative: true }) => f64::NEG_INFINITY,
        Some(Exact::Nan { .. } | Exact::Beyond { .. }) | None => f64::NAN,
    }
}

const INVALID: Flags =
    Flags { is_inexact: true, is_overflow: false, is_underflow: false, is_invalid: true };

fn masked(bits: u16, code: u128) -> u128 {
    if bits >= 128 { code } else { code & ((1 << bits) - 1) }
}

fn is_zero(value: &Exact) -> bool {
    value.rational().is_some_and(Rational::is_zero)
}

/// A value, cut down to what rounding needs.
#[derive(Clone, Copy)]
enum Source {
    Nan { is_negative: bool, payload: u128 },
    Infinity { is_negative: bool },
    Zero { is_negative: bool },
    Finite { is_negative: bool, magnitude: Normalized },
}

/// Stands for a literal beyond every format.
const HUGE: i64 = 1 << 40;

impl Source {
    fn of(value: &Exact) -> Source {
        match value {
            Exact::Nan { is_negative, payload } => {
                Source::Nan { is_negative: *is_negative, payload: *payload }
            }
            Exact::Infinity { is_negative } => Source::Infinity { is_negative: *is_negative },
            Exact::Beyond { is_negative, is_huge } => {
                let exponent = if *is_huge { HUGE } else { -HUGE };
                let magnitude = Normalized { significand: 1 << 127, exponent, is_sticky: true };
                Source::Finite { is_negative: *is_negative, magnitude }
            }
            Exact::Finite(rational) => {
                let is_negative = rational.is_negative();
                match rational.normalized() {
                    None => Source::Zero { is_negative },
                    Some(magnitude) => Source::Finite { is_negative, magnitude },
                }
            }
        }
    }

    fn of_f64(value: f64) -> Source {
        let is_negative = value.is_sign_negative();
        if value.is_nan() {
            return Source::Nan { is_negative, payload: 0 };
        }
        if value.is_infinite() {
            return Source::Infinity { is_negative };
        }
        let bits = value.to_bits() & (u64::MAX >> 1);
        let (significand, exponent) = match bits >> 52 {
            0 if bits == 0 => return Source::Zero { is_negative },
            0 => (bits, -1074),
            field => (bits & ((1 << 52) - 1) | 1 << 52, field as i64 - 1075),
        };
        let spare = u128::from(significand).leading_zeros();
        let magnitude = Normalized {
            significand: u128::from(significand) << spare,
            exponent: exponent + 127 - i64::from(spare),
            is_sticky: false,
        };
        Source::Finite { is_negative, magnitude }
    }

    fn is_negative(self) -> bool {
        match self {
            Source::Nan { is_negative, .. }
            | Source::Infinity { is_negative }
            | Source::Zero { is_negative }
            | Source::Finite { is_negative, .. } => is_negative,
        }
    }
}

fn encode_float(float: Float, source: Source, rules: Rules) -> Encoded {
    match source {
        Source::Nan { is_negative, payload } => encode_nan(float, is_negative, payload),
        Source::Infinity { is_negative } => encode_infinity(float, is_negative, rules),
        Source::Zero { is_negative } => encode_zero(float, is_negative, rules.overflow),
        Source::Finite { .. } if below_normal(float, source) && is_taken_for_zero(rules) => {
            let zero = encode_zero(float, source.is_negative(), rules.overflow);
            let flags = Flags { is_inexact: true, is_underflow: true, ..zero.flags };
            Encoded { flags, ..zero }
        }
        Source::Finite { is_negative, magnitude } => {
            encode_finite(float, is_negative, magnitude, rules)
        }
    }
}

fn is_taken_for_zero(rules: Rules) -> bool {
    rules.subnormals == Subnormals::TakenForZero
}

fn below_normal(float: Float, source: Source) -> bool {
    match source {
        Source::Finite { magnitude, .. } => magnitude.exponent < i64::from(float.min_exponent()),
        Source::Nan { .. } | Source::Infinity { .. } | Source::Zero { .. } => false,
    }
}

/// A quiet NaN that keeps sign and payload where they fit; without a NaN, zero of the other sign,
/// as `ml_dtypes` gives it.
fn encode_nan(float: Float, is_negative: bool, payload: u128) -> Encoded {
    let Some(code) = float.signed_nan(is_negative) else {
        return Encoded { code: float.sign_code(!is_negative), flags: INVALID };
    };
    let payload = match float.nan {
        Nan::Ieee if payload < 1 << (float.significand_bits - 1) => payload,
        Nan::Ieee | Nan::None | Nan::AllOnes | Nan::NegativeZero => 0,
    };
    Encoded { code: code | payload, flags: Flags::default() }
}

fn encode_infinity(float: Float, is_negative: bool, rules: Rules) -> Encoded {
    if is_negative && float.sign_bits == 0 {
        return unsigned_negative(float, rules.overflow);
    }
    let sign = float.sign_code(is_negative);
    let exact = Flags::default();
    let inexact = Flags { is_inexact: true, is_overflow: true, ..exact };
    let largest = Encoded { code: sign | float.max_finite_code(), flags: inexact };
    let nan = || float.signed_nan(is_negative).map_or(largest, |code| Encoded { code, ..largest });
    let infinity = float.infinity_code().map(|code| Encoded { code: sign | code, flags: exact });
    match rules.overflow {
        Overflow::ToInfinity if float.infinity == Infinity::Saturated => largest,
        Overflow::ToInfinity => infinity.unwrap_or_else(nan),
        Overflow::SaturateFinite => largest,
        Overflow::SaturatePropagate => infinity.unwrap_or(largest),
        Overflow::Onnx if is_fnuz(float) => nan(),
        Overflow::Onnx => largest,
    }
}

fn is_fnuz(float: Float) -> bool {
    float.nan == Nan::NegativeZero && float.infinity == Infinity::None
}

/// Zero has no code in E8M0, and no sign in others.
fn encode_zero(float: Float, is_negative: bool, overflow: Overflow) -> Encoded {
    if !float.has_zero {
        return unsigned_negative(float, overflow);
    }
    let is_negative = is_negative && float.has_negative_zero();
    Encoded { code: float.sign_code(is_negative), flags: Flags::default() }
}

/// A value below everything an unsigned format holds: the smallest code when saturating, else NaN.
fn unsigned_negative(float: Float, overflow: Overflow) -> Encoded {
    let code = match overflow {
        Overflow::ToInfinity => float.nan_code().unwrap_or(0),
        Overflow::SaturateFinite | Overflow::SaturatePropagate | Overflow::Onnx => 0,
    };
    Encoded { code, flags: INVALID }
}

/// What rounding found.
struct Rounded {
    /// Exponent and significand as one integer, as if the exponent had no bounds.
    code: i128,
    is_inexact: bool,
}

fn encode_finite(float: Float, is_negative: bool, magnitude: Normalized, rules: Rules) -> Encoded {
    let rounded = round(float, is_negative, magnitude, rules.rounding);
    let mut flags = Flags { is_inexact: rounded.is_inexact, ..Flags::default() };
    let smallest = i128::from(!float.has_zero);
    if rounded.code < 1 - smallest {
        // Rounded to zero, or below the smallest power of two of E8M0.
        let zero = encode_zero(float, is_negative, rules.overflow);
        let flags = Flags { is_inexact: true, is_underflow: true, ..zero.flags };
        return Encoded { code: zero.code, flags };
    }
    if is_negative && float.sign_bits == 0 {
        return unsigned_negative(float, rules.overflow);
    }
    let is_subnormal = float.has_zero && rounded.code < 1 << float.significand_bits;
    flags.is_underflow = is_subnormal && rounded.is_inexact;
    if is_subnormal && rules.subnormals == Subnormals::FlushedToZero {
        let zero = encode_zero(float, is_negative, rules.overflow);
        let flags = Flags { is_inexact: true, is_underflow: true, ..flags };
        return Encoded { code: zero.code, flags };
    }
    if rounded.code > float.max_finite_code() as i128 {
        flags.is_overflow = true;
        flags.is_inexact = true;
        let code = overflowed(float, is_negative, rules);
        return Encoded { code, flags };
    }
    Encoded { code: float.sign_code(is_negative) | rounded.code as u128, flags }
}

fn overflowed(float: Float, is_negative: bool, rules: Rules) -> u128 {
    let largest = float.sign_code(is_negative) | float.max_finite_code();
    let stays_finite = match rules.rounding {
        Rounding::NearestEven | Rounding::NearestAway | Rounding::Stochastic(_) => false,
        Rounding::TowardZero => true,
        Rounding::Up => is_negative,
        Rounding::Down => !is_negative,
        // Of the largest and the code above it, the odd one.
        Rounding::ToOdd => float.max_finite_code() % 2 == 1,
    };
    match rules.overflow {
        Overflow::ToInfinity if stays_finite => largest,
        Overflow::ToInfinity => encode_infinity(float, is_negative, rules).code,
        Overflow::SaturateFinite | Overflow::SaturatePropagate | Overflow::Onnx => largest,
    }
}

fn round(float: Float, is_negative: bool, magnitude: Normalized, rounding: Rounding) -> Rounded {
    let significand_bits = i64::from(float.significand_bits);
    let lowest = i64::from(float.min_exponent());
    // Anything this large overflows; beyond it the code would not fit its integer.
    let highest = lowest + (1 << float.exponent_bits) - 1;
    let magnitude = Normalized { exponent: magnitude.exponent.min(highest), ..magnitude };
    let exponent = if float.has_zero { magnitude.exponent.max(lowest) } else { magnitude.exponent };
    // Where the last kept bit lies in the 128.
    let n_dropped = 127 - significand_bits + (exponent - magnitude.exponent);
    let dropped = Dropped::new(magnitude, n_dropped);
    // With the hidden bit counted in, a carry out of the significand raises the exponent by itself.
    let field = i128::from(exponent - lowest) << significand_bits;
    let base = if float.has_zero { field } else { field - (1 << significand_bits) };
    let truncated = base.saturating_add(dropped.kept as i128);
    let is_odd = truncated % 2 != 0;
    let is_inexact = dropped.fraction != 0 || dropped.is_sticky;
    let is_away = match rounding {
        Rounding::NearestEven => dropped.is_over_half() || (dropped.is_half() && is_odd),
        Rounding::NearestAway => dropped.is_over_half() || dropped.is_half(),
        Rounding::TowardZero => false,
        Rounding::Up => is_inexact && !is_negative,
        Rounding::Down => is_inexact && is_negative,
        Rounding::ToOdd => is_inexact && !is_odd,
        Rounding::Stochastic(stochastic) => dropped.is_away_by(stochastic),
    };
    Rounded { code: truncated.saturating_add(i128::from(is_away)), is_inexact }
}

/// The part of a significand that does not fit, as a fraction of the last kept bit.
struct Dropped {
    kept: u128,
    /// In units of 2^-128.
    fraction: u128,
    /// Whether something is left below that.
    is_sticky: bool,
}

impl Dropped {
    fn new(magnitude: Normalized, n_dropped: i64) -> Dropped {
        let Normalized { significand, is_sticky, .. } = magnitude;
        match n_dropped {
            ..=0 => Dropped { kept: significand, fraction: 0, is_sticky },
            1..=127 => {
                let kept = significand >> n_dropped;
                Dropped { kept, fraction: significand << (128 - n_dropped), is_sticky }
            }
            128 => Dropped { kept: 0, fraction: significand, is_sticky },
            129..=255 => {
                let excess = n_dropped - 128;
                let lost = significand << (128 - excess) != 0;
                Dropped { kept: 0, fraction: significand >> excess, is_sticky: is_sticky || lost }
            }
            256.. => Dropped { kept: 0, fraction: 0, is_sticky: true },
        }
    }

    const HALF: u128 = 1 << 127;

    fn is_half(&self) -> bool {
        self.fraction == Self::HALF && !self.is_sticky
    }

    fn is_over_half(&self) -> bool {
        self.fraction > Self::HALF || (self.fraction == Self::HALF && self.is_sticky)
    }

    fn is_away_by(&self, stochastic: Stochastic) -> bool {
        let n_bits = u32::from(stochastic.n_bits.min(Stochastic::MAX_BITS));
        let full = 1u128 << n_bits;
        let random = u128::from(stochastic.random) & (full - 1);
        let cut = |n_bits: u32| self.fraction.checked_shr(128 - n_bits).unwrap_or(0);
        match stochastic.variant {
            StochasticVariant::A => cut(n_bits) + random >= full,
            StochasticVariant::B => cut(n_bits + 1) + 2 * random + 1 >= 2 * full,
            StochasticVariant::C => {
                let whole = cut(n_bits);
                let rest = self.fraction << n_bits;
                let is_half = rest == Self::HALF && !self.is_sticky;
                let is_up = (rest >= Self::HALF && !is_half) || (is_half && whole % 2 == 1);
                whole + u128::from(is_up) + random >= full
            }
        }
    }
}

fn decode_float(float: Float, code: u128) -> Exact {
    let magnitude = masked(float.magnitude_bits() as u16, code);
    let is_negative = float.sign_bits == 1 && (code >> float.magnitude_bits()) & 1 == 1;
    if float.nan == Nan::NegativeZero && is_negative && magnitude == 0 {
        return Exact::Nan { is_negative: false, payload: 0 };
    }
    if float.infinity_code() == Some(magnitude) {
        return Exact::Infinity { is_negative };
    }
    if magnitude > float.max_finite_code() {
        let below_quiet_bit = (1u128 << float.significand_bits.max(1) >> 1) - 1;
        let payload = match float.nan {
            Nan::Ieee => magnitude & below_quiet_bit,
            Nan::AllOnes | Nan::NegativeZero | Nan::None => 0,
        };
        return Exact::Nan { is_negative, payload };
    }
    let trailing = magnitude & ((1u128 << float.significand_bits) - 1);
    let field = (magnitude >> float.significand_bits) as i64;
    let unit = i64::from(float.min_exponent()) - i64::from(float.significand_bits);
    let (significand, exponent) = match field {
        0 if float.has_zero => (trailing, unit),
        _ => {
            let steps = if float.has_zero { field - 1 } else { field };
            (trailing | 1 << float.significand_bits, unit + steps)
        }
    };
    Exact::Finite(Rational::binary(is_negative, significand, exponent))
}

/// Rounds to an integer and saturates; NaN becomes 0 (as ONNX `QuantizeLinear` leaves undefined and
/// most systems give).
fn encode_integer(bits: u16, is_signed: bool, value: &Exact, rounding: Rounding) -> Encoded {
    let value_bits = if is_signed { bits - 1 } else { bits };
    let largest = masked(value_bits, u128::MAX);
    let lowest = if is_signed { largest + 1 } else { 0 };
    let is_negative = value.is_negative();
    let clamped = |is_negative: bool| {
        let code = if is_negative { lowest } else { largest };
        let flags = Flags { is_inexact: true, is_overflow: true, ..Flags::default() };
        Encoded { code, flags }
    };
    let rational = match value {
        Exact::Nan { .. } => return Encoded { code: 0, flags: INVALID },
        Exact::Infinity { is_negative } | Exact::Beyond { is_negative, is_huge: true } => {
            return clamped(*is_negative);
        }
        Exact::Beyond { is_huge: false, .. } => {
            let flags = Flags { is_inexact: true, ..Flags::default() };
            return Encoded { code: 0, flags };
        }
        Exact::Finite(rational) => rational,
    };
    let Some(magnitude) = rational.normalized() else {
        return Encoded { code: 0, flags: Flags::default() };
    };
    if magnitude.exponent > i64::from(bits) {
        return clamped(is_negative);
    }
    // The subnormals of a float whose unit is 1 are the integers.
    let fixed = Float {
        sign_bits: 1,
        exponent_bits: 5,
        significand_bits: 90,
        bias: 1 - 90,
        infinity: Infinity::None,
        nan: Nan::None,
        has_zero: true,
    };
    let rounded = round(fixed, is_negative, magnitude, rounding);
    let limit = if is_negative { lowest } else { largest };
    if rounded.code > limit as i128 {
        return clamped(is_negative);
    }
    let code = if is_negative { -rounded.code } else { rounded.code };
    let flags = Flags { is_inexact: rounded.is_inexact, ..Flags::default() };
    Encoded { code: masked(bits, code as u128), flags }
}

/// The nearest entry; of two equally near the lower, as bitsandbytes' `dQuantizeNF4` decides.
fn encode_entry(book: CodeBook, value: &Exact) -> Encoded {
    let values = book.values();
    let last = values.len() - 1;
    let wanted = match value {
        Exact::Finite(rational) => rational,
        Exact::Infinity { is_negative } | Exact::Beyond { is_negative, is_huge: true } => {
            let code = if *is_negative { 0 } else { last as u128 };
            let flags = Flags { is_inexact: true, is_overflow: true, ..Flags::default() };
            return Encoded { code, flags };
        }
        Exact::Beyond { is_huge: false, .. } => &Rational::binary(false, 0, 0),
        Exact::Nan { .. } => return Encoded { code: 0, flags: INVALID },
    };
    let distance = |entry: &f32| match Exact::from_f64(f64::from(*entry)) {
        Exact::Finite(entry) => entry.minus(wanted).abs(),
        Exact::Infinity { .. } | Exact::Nan { .. } | Exact::Beyond { .. } => wanted.abs(),
    };
    let distances: Vec<Rational> = values.iter().map(distance).collect();
    let nearest = (0..=last).reduce(|best, idx| {
        let is_nearer = distances[idx].cmp_magnitude(&distances[best]).is_lt();
        if is_nearer { idx } else { best }
    });
    let code = nearest.unwrap_or(0);
    let is_overflow = wanted.cmp_magnitude(&Rational::binary(false, 1, 0)).is_gt();
    let is_inexact = !distances[code].is_zero();
    let flags = Flags { is_inexact, is_overflow, ..Flags::default() };
    Encoded { code: code as u128, flags }
}
