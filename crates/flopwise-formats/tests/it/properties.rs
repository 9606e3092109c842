//! What must hold for any format, also for those that users describe.

use crate::vectors::MODES;
use flopwise_formats::codec::{self, Overflow, Rounding, Rules, decode_f64};
use flopwise_formats::{ALL, Exact, Format, decimal, explain, parse, steps};
use proptest::prelude::*;

/// A format that a user could describe, of at most 12 bits.
fn described() -> impl Strategy<Value = Format> {
    let infinity = prop::sample::select(vec!["ieee", "none", "top", "saturated"]);
    let nan = prop::sample::select(vec!["ieee", "none", "all-ones", "negative-zero"]);
    let fields = (1u8..=6, 0u8..=5, -40i32..=40, infinity, nan, prop::bool::ANY);
    fields.prop_filter_map("a layout whose codes mean one thing", |fields| {
        let (exponent, significand, bias, infinity, nan, is_signed) = fields;
        let sign = if is_signed { "yes" } else { "no" };
        let name = format!(
            "fp({exponent},{significand},bias={bias},inf={infinity},nan={nan},sign={sign})"
        );
        parse(&name).ok()
    })
}

/// A real number near the range of such formats, often exactly between two codes.
fn real() -> impl Strategy<Value = f64> {
    let fine = (-(1i64 << 40)..(1i64 << 40), -90i32..60);
    let coarse = (-64i64..64, -48i32..48);
    let value = |(significand, exponent): (i64, i32)| significand as f64 * 2f64.powi(exponent);
    prop_oneof![fine.prop_map(value), coarse.prop_map(value)]
}

fn is_nan(value: &Exact) -> bool {
    matches!(value, Exact::Nan { .. })
}

proptest! {
    /// Every code comes back from its value, and its name comes back from its print.
    #[test]
    fn codes_are_values(format in described()) {
        prop_assert_eq!(parse(&format.to_string()), Ok(format));
        for code in 0..1u128 << format.bits {
            let value = codec::decode(format, code).unwrap();
            let back = codec::encode(format, &value, Rules::IEEE);
            prop_assert!(is_nan(&value) || back.code == code, "{} {:#x} -> {:#x}", format, code, back.code);
            prop_assert!(!back.flags.is_inexact, "{} {:#x}", format, code);
        }
    }

    /// No other code is nearer.
    #[test]
    fn the_nearest_is_taken(format in described(), value in real()) {
        let float = format.float().unwrap();
        let found = codec::encode_f64(format, value, Rules::SATURATING);
        let exact = codec::encode(format, &Exact::from_f64(value), Rules::SATURATING);
        prop_assert_eq!(found, exact);
        let stored = decode_f64(format, found.code);
        let sign = if float.sign_bits == 1 { 2 } else { 1 };
        for code in 0..sign * (1u128 << float.magnitude_bits()) {
            let other = decode_f64(format, code);
            if other.is_finite() {
                prop_assert!((stored - value).abs() <= (other - value).abs(), "{other:e} is nearer");
            }
        }
    }

    /// Directed roundings enclose the value, and to odd takes the odd end of the two.
    #[test]
    fn directed_roundings_enclose(format in described(), value in real()) {
        let rounded = |rounding| {
            let rules = Rules { rounding, overflow: Overflow::ToInfinity, ..Rules::IEEE };
            codec::encode_f64(format, value, rules)
        };
        let (down, up) = (rounded(Rounding::Down), rounded(Rounding::Up));
        if down.flags.is_overflow || up.flags.is_overflow || down.flags.is_invalid || up.flags.is_invalid {
            return Ok(());
        }
        let (low, high) = (decode_f64(format, down.code), decode_f64(format, up.code));
        prop_assert!(low <= value && value <= high, "{low:e} {high:e}");
        let odd = rounded(Rounding::ToOdd).code;
        prop_assert!(odd == down.code || odd == up.code);
        let truncated = rounded(Rounding::TowardZero).code;
        prop_assert_eq!(truncated, if value < 0.0 { up.code } else { down.code });
    }

    /// A decimal print of any length reads back to the same value.
    #[test]
    fn prints_read_back(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(!value.is_nan());
        let printed = Exact::from_f64(value).to_string();
        let read = decimal::parse(&printed).unwrap().value;
        prop_assert_eq!(codec::encode(Format::FP64, &read, Rules::IEEE).code, u128::from(bits));
    }

    /// Any text is a number or an error with a place in it.
    #[test]
    fn any_text_is_answered(text in "[-+0-9a-fxpnEi./():_ \\u{2212}\\PC]{0,24}") {
        if let Err(error) = decimal::parse(&text) {
            prop_assert!(error.at <= text.chars().count());
        }
        let _ = parse(&text);
    }

    /// The neighbours of a code stand around it.
    #[test]
    fn neighbours_stand_around(format in described(), code in 0u128..1 << 12) {
        let code = code & ((1 << format.bits) - 1);
        let value = codec::decode(format, code).unwrap();
        prop_assume!(!is_nan(&value));
        let found = explain::convert(format, &value, Rules::IEEE).unwrap();
        let stored = decode_f64(format, found.encoded.code);
        for (neighbour, is_below) in [(&found.below, true), (&found.above, false)] {
            let Some(neighbour) = neighbour else { continue };
            let beside = decode_f64(format, neighbour.code);
            prop_assert!(if is_below { beside < stored } else { stored < beside }, "{beside:e} {stored:e}");
        }
    }
}

/// Every code of every catalogue format of at most 16 bits is what its value encodes to, under every
/// rounding that needs no random bits.
#[test]
fn every_code_of_the_catalogue_comes_back() {
    let floats = ALL.iter().filter(|format| format.is_float() && format.bits <= 16);
    for format in floats {
        for code in 0..1u128 << format.bits {
            let value = codec::decode(*format, code).unwrap();
            if is_nan(&value) || (*format == Format::UE4M3 && code >= 0x80) {
                continue;
            }
            for rounding in MODES {
                let found = codec::encode(*format, &value, Rules { rounding, ..Rules::IEEE });
                assert_eq!(found.code, code, "{format} {rounding}");
                assert_eq!(found.flags, codec::Flags::default(), "{format} {code:#x} {rounding}");
            }
        }
    }
}

/// Long ends of the range: the working is printed for these too.
#[test]
fn extremes_are_explained() {
    for text in
        ["1e-4000", "1e4000", "1e-19999", "-7e19999", "1/3", "0x1p-66000", "1e19000/3", "255/256"]
    {
        let value = decimal::parse(text).unwrap().value;
        for format in ["fp64", "e4m3fn", "e8m0", "fp(15,112)", "int8", "nf4"] {
            let format = parse(format).unwrap();
            let found = explain::convert(format, &value, Rules::IEEE).unwrap();
            assert!(steps::steps(&found).len() >= 2, "{text} {format}");
        }
    }
}

/// bitsandbytes 95f9af30, `nf4_data`, with all its digits.
#[test]
fn the_table_of_nf4() {
    let table = [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ];
    for (code, value) in table.into_iter().enumerate() {
        assert_eq!(
            decode_f64(Format::NF4, code as u128).to_bits(),
            f64::from(value as f32).to_bits()
        );
        assert_eq!(codec::encode_f64(Format::NF4, value, Rules::IEEE).code, code as u128);
    }
}
