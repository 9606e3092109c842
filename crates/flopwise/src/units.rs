//! Quantities with their units: exact counts (`u128`) and measured or derived rates (`f64`).
//!
//! Only the operators that physics has exist: `Flops / FlopsPerSec = Seconds` compiles,
//! `Flops + Bytes` does not. Every unit prints with an SI prefix to four digits (`{}`), or in full
//! (`{:#}`), and parses what it prints.
//!
//! ```
//! use flopwise::units::{Flops, FlopsPerSec, Macs, Seconds};
//! let work: Flops = Macs(4_089_184_256).to_flops();
//! assert_eq!(work.to_string(), "8.178 GFLOP");
//! let rate: FlopsPerSec = "312 TFLOP/s".parse().unwrap();
//! let time: Seconds = work / rate;
//! assert_eq!(time.to_string(), "26.21 µs");
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Div, Mul};

/// The text is not a quantity of the unit asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a quantity in {unit}; write for instance `{example}`")]
pub struct ParseUnitError {
    text: String,
    unit: &'static str,
    example: &'static str,
}

/// SI prefixes from 10^-9 to 10^30; index 3 is the bare unit.
const SI: [&str; 14] = ["n", "µ", "m", "", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"];
/// Binary prefixes (IEC 80000-13) for memory.
const IEC: [&str; 9] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal, $write:ident, $example:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u128);

        impl Add for $name {
            type Output = $name;
            /// # Panics
            /// Beyond `u128`, in every build: a wrapped count would be a wrong answer.
            fn add(self, other: $name) -> $name {
                $name(self.0.checked_add(other.0).expect("a count stays within u128"))
            }
        }

        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = $name>>(counts: I) -> $name {
                counts.fold($name(0), |total, count| total + count)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = if formatter.alternate() {
                    format!("{} {}", grouped(self.0), $symbol)
                } else {
                    $write(self.0, $symbol)
                };
                formatter.pad(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseUnitError;
            fn from_str(text: &str) -> Result<$name, ParseUnitError> {
                parse_count(text, $symbol).map($name).ok_or_else(|| ParseUnitError {
                    text: text.to_owned(),
                    unit: $symbol,
                    example: $example,
                })
            }
        }
    )*};
}

counts! {
    /// Floating-point operations: work, not a rate. One multiply-accumulate is two.
    Flops, "FLOP", si_count, "8.178 GFLOP";
    /// Multiply-accumulate operations.
    Macs, "MAC", si_count, "4.089 GMAC";
    /// Operations outside matrix products: one per element per primitive add, multiply, compare.
    Ops, "op", si_count, "11.1 Mop";
    /// Bytes of memory or traffic; print in powers of 1024.
    Bytes, "B", iec_count, "97.49 MiB";
}

macro_rules! rates {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal, $write:ident, $example:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub f64);

        impl Add for $name {
            type Output = $name;
            fn add(self, other: $name) -> $name {
                $name(self.0 + other.0)
            }
        }

        impl Mul<f64> for $name {
            type Output = $name;
            fn mul(self, factor: f64) -> $name {
                $name(self.0 * factor)
            }
        }

        impl Div for $name {
            type Output = f64;
            fn div(self, other: $name) -> f64 {
                self.0 / other.0
            }
        }

        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = $name>>(quantities: I) -> $name {
                quantities.fold($name(0.0), |total, quantity| total + quantity)
            }
        }

        impl $name {
            /// The larger of two, by IEEE 754 total order.
            #[must_use]
            pub fn max(self, other: $name) -> $name {
                if self.0.total_cmp(&other.0).is_lt() { other } else { self }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = if formatter.alternate() {
                    format!("{} {}", self.0, $symbol)
                } else {
                    $write(self.0, $symbol)
                };
                formatter.pad(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseUnitError;
            fn from_str(text: &str) -> Result<$name, ParseUnitError> {
                parse_quantity(text, $symbol).map($name).ok_or_else(|| ParseUnitError {
                    text: text.to_owned(),
                    unit: $symbol,
                    example: $example,
                })
            }
        }
    )*};
}

rates! {
    /// Time.
    Seconds, "s", si_quantity, "4.2 ms";
    /// Floating-point operations per second, often written FLOPS.
    FlopsPerSec, "FLOP/s", si_quantity, "312 TFLOP/s";
    /// Bandwidth; prints in powers of 1000, as data sheets do.
    BytesPerSec, "B/s", si_quantity, "34.1 GB/s";
    /// Arithmetic intensity; a machine's ridge point has the same unit. Prints without prefix.
    FlopsPerByte, "FLOP/B", plain_quantity, "3.5 FLOP/B";
    /// Cycles per second.
    Hertz, "Hz", si_quantity, "3.67 GHz";
    /// Samples (images, sequences) per second. Prints without prefix.
    SamplesPerSec, "samples/s", plain_quantity, "117 samples/s";
}

impl Macs {
    /// The floating-point operations of these multiply-accumulates: one multiply and one add each.
    ///
    /// # Panics
    /// Beyond `u128`.
    #[must_use]
    pub fn to_flops(self) -> Flops {
        Flops(self.0.checked_mul(2).expect("a count stays within u128"))
    }
}

macro_rules! quotients {
    ($($numerator:ident / $denominator:ident = $quotient:ident;)*) => {$(
        impl Div<$denominator> for $numerator {
            type Output = $quotient;
            fn div(self, denominator: $denominator) -> $quotient {
                $quotient(self.0 as f64 / denominator.0 as f64)
            }
        }
    )*};
}

quotients! {
    Flops / FlopsPerSec = Seconds;
    Flops / Seconds = FlopsPerSec;
    Flops / Bytes = FlopsPerByte;
    Bytes / BytesPerSec = Seconds;
    Bytes / Seconds = BytesPerSec;
    FlopsPerSec / BytesPerSec = FlopsPerByte;
}

impl Mul<BytesPerSec> for FlopsPerByte {
    type Output = FlopsPerSec;
    fn mul(self, bandwidth: BytesPerSec) -> FlopsPerSec {
        FlopsPerSec(self.0 * bandwidth.0)
    }
}

/// Decimal digits in groups of three: `4,089,184,256`.
#[must_use]
pub fn grouped(count: u128) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (digit_idx, digit) in digits.chars().enumerate() {
        if digit_idx != 0 && (digits.len() - digit_idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn si_count(count: u128, symbol: &str) -> String {
    if count < 10_000 {
        return format!(
            "{} {symbol}",
            if count < 1000 { count.to_string() } else { grouped(count) }
        );
    }
    // Integer rounding to four digits, half up: exact where f64 would already have rounded.
    let n_digits = count.ilog10();
    let unit = 10u128.pow(n_digits - 3);
    let mut four = (count / unit) + u128::from(count % unit >= unit.div_ceil(2));
    let mut exponent = n_digits;
    if four == 10_000 {
        four = 1000;
        exponent += 1;
    }
    with_prefix(four, i64::from(exponent), symbol)
}

fn si_quantity(quantity: f64, symbol: &str) -> String {
    if !quantity.is_finite() || quantity == 0.0 {
        return format!("{quantity} {symbol}");
    }
    let scientific = format!("{:.3e}", quantity.abs());
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` always writes an e");
    let four: u128 = mantissa.replace('.', "").parse().expect("`{:.3e}` writes four digits");
    let exponent: i64 = exponent.parse().expect("`{:e}` writes an integer exponent");
    let sign = if quantity < 0.0 { "-" } else { "" };
    format!("{sign}{}", with_prefix(four, exponent, symbol))
}

/// Four digits without a prefix, for units that nobody scales: `0.24 FLOP/B`, `7,213 samples/s`.
fn plain_quantity(quantity: f64, symbol: &str) -> String {
    if !quantity.is_finite() || quantity == 0.0 {
        return format!("{quantity} {symbol}");
    }
    let magnitude = quantity.abs().log10().floor();
    if 3.0 <= magnitude && magnitude < 30.0 {
        return format!("{} {symbol}", grouped(quantity.round() as u128));
    }
    let n_decimals = (3.0 - magnitude).clamp(0.0, 12.0) as usize;
    let number = format!("{quantity:.n_decimals$}");
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    format!("{number} {symbol}")
}

/// Writes `four` / 1000 x 10^`exponent` under the largest prefix not above it.
fn with_prefix(four: u128, exponent: i64, symbol: &str) -> String {
    let prefix_idx = (exponent.div_euclid(3) + 3).clamp(0, SI.len() as i64 - 1);
    let shift = exponent - 3 * (prefix_idx - 3);
    let scaled = four as f64 / 1000.0 * 10f64.powi(shift as i32);
    let n_decimals = (3 - shift).clamp(0, 3) as usize;
    let number = format!("{scaled:.n_decimals$}");
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    format!("{number} {}{symbol}", SI[prefix_idx as usize])
}

fn iec_count(count: u128, symbol: &str) -> String {
    let mut scaled = count as f64;
    let mut prefix_idx = 0;
    while 1023.95 <= scaled && prefix_idx + 1 < IEC.len() {
        scaled /= 1024.0;
        prefix_idx += 1;
    }
    let n_decimals = match (prefix_idx, scaled) {
        (0, _) => 0,
        (_, scaled) if scaled < 10.0 => 3,
        (_, scaled) if scaled < 100.0 => 2,
        _ => 1,
    };
    format!("{scaled:.n_decimals$} {}{symbol}", IEC[prefix_idx])
}

/// Splits `12.5 GiB` into number text and power: (`12.5`, base 10 exponent or base 1024 exponent).
fn split_unit<'a>(text: &'a str, symbol: &str) -> Option<(&'a str, Scale)> {
    let text = text.trim();
    let number_len = text
        .char_indices()
        .find(|(at, letter)| !is_number_part(text, *at, *letter))
        .map_or(text.len(), |(at, _)| at);
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim();
    if unit.is_empty() {
        return Some((number, Scale::Decimal(0)));
    }
    let prefix = unit.strip_suffix(symbol).or_else(|| (symbol != "s").then_some(unit))?;
    if let Some(power) = IEC.iter().position(|iec| !prefix.is_empty() && *iec == prefix) {
        return Some((number, Scale::Binary(power as u32)));
    }
    let prefix = match prefix {
        "u" | "μ" => "µ",
        "K" => "k",
        other => other,
    };
    let power = SI.iter().position(|si| *si == prefix)? as i64 - 3;
    Some((number, Scale::Decimal(3 * power)))
}

/// Digits, separators, sign and an exponent (`1e9`) belong to the number, not to the unit.
fn is_number_part(text: &str, at: usize, letter: char) -> bool {
    let next_is_digit = || {
        let rest = &text[at + letter.len_utf8()..];
        let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_digit())
    };
    letter.is_ascii_digit()
        || matches!(letter, '.' | ',' | '_' | '+' | '-')
        || (matches!(letter, 'e' | 'E') && 0 < at && next_is_digit())
}

enum Scale {
    Decimal(i64),
    Binary(u32),
}

fn parse_count(text: &str, symbol: &str) -> Option<u128> {
    let (number, scale) = split_unit(text, symbol)?;
    let number = number.replace([',', '_'], "");
    let (number, exponent) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
        None => (number.as_str(), 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let n_fraction = fraction.len() as i64;
    match scale {
        Scale::Decimal(power) => shift_decimal(digits, power + exponent - n_fraction),
        Scale::Binary(power) => {
            // 1.5 KiB is 1536 B: multiply first, then drop the decimal places if they are zero,
            // rounding where a printed four-digit figure does not name a whole byte.
            let unit = 10u128.checked_pow(n_fraction.try_into().ok()?)?;
            let scaled =
                shift_decimal(digits, exponent)?.checked_mul(1024u128.checked_pow(power)?)?;
            Some((scaled + unit / 2) / unit)
        }
    }
}

fn shift_decimal(digits: u128, power: i64) -> Option<u128> {
    let scale = 10u128.checked_pow(power.unsigned_abs().try_into().ok()?)?;
    if 0 <= power {
        return digits.checked_mul(scale);
    }
    digits.is_multiple_of(scale).then_some(digits / scale)
}

fn parse_quantity(text: &str, symbol: &str) -> Option<f64> {
    let (number, scale) = split_unit(text, symbol)?;
    let number: f64 = number.replace([',', '_'], "").parse().ok()?;
    // Division by an exact power rounds once; multiplying by 1e-9 would round twice.
    Some(match scale {
        Scale::Decimal(power) if power < 0 => number / 10f64.powi(-power as i32),
        Scale::Decimal(power) => number * 10f64.powi(power as i32),
        Scale::Binary(power) => number * 1024f64.powi(power as i32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_print() {
        let check = |count: u128, expected: &str| assert_eq!(Flops(count).to_string(), expected);
        check(0, "0 FLOP");
        check(999, "999 FLOP");
        check(1000, "1,000 FLOP");
        check(9_999, "9,999 FLOP");
        check(10_000, "10 kFLOP");
        check(12_345, "12.35 kFLOP");
        check(99_995, "100 kFLOP");
        check(999_949, "999.9 kFLOP");
        check(999_950, "1 MFLOP");
        check(8_178_368_512, "8.178 GFLOP");
        check(3_000_000_000_000_000_000_000_000, "3 YFLOP");
        assert_eq!(format!("{:#}", Macs(4_089_184_256)), "4,089,184,256 MAC");
    }

    #[test]
    fn memory_prints_in_powers_of_1024() {
        let check = |count: u128, expected: &str| assert_eq!(Bytes(count).to_string(), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.000 KiB");
        check(102_228_128, "97.49 MiB");
        check(1 << 40, "1.000 TiB");
    }

    #[test]
    fn quantities_print() {
        let check =
            |seconds: f64, expected: &str| assert_eq!(Seconds(seconds).to_string(), expected);
        check(0.0, "0 s");
        check(1.5, "1.5 s");
        check(0.004_2, "4.2 ms");
        check(26.213e-6, "26.21 µs");
        check(2.5e-12, "0.003 ns");
        check(-3.0, "-3 s");
        check(f64::INFINITY, "inf s");
    }

    #[test]
    fn intensities_print_without_prefix() {
        let check = |value: f64, expected: &str| {
            assert_eq!(FlopsPerByte(value).to_string(), expected);
            assert_eq!(expected.parse::<FlopsPerByte>().unwrap().to_string(), expected);
        };
        check(0.24, "0.24 FLOP/B");
        check(0.001_234_6, "0.001235 FLOP/B");
        check(5.696_1, "5.696 FLOP/B");
        check(192.04, "192 FLOP/B");
        check(7213.4, "7,213 FLOP/B");
    }

    #[test]
    fn texts_parse() {
        let check = |text: &str, expected: Option<u128>| {
            assert_eq!(text.parse::<Flops>().ok(), expected.map(Flops), "{text}");
        };
        check("8.178 GFLOP", Some(8_178_000_000));
        check("1e9", Some(1_000_000_000));
        check("1,024", Some(1024));
        check("2T", Some(2_000_000_000_000));
        check("1.5 FLOP", None);
        check("1 GMAC", None);
        check("", None);
        check("99e99 GFLOP", None);
        assert_eq!("1.5 KiB".parse::<Bytes>().ok(), Some(Bytes(1536)));
        assert_eq!("5us".parse::<Seconds>().ok(), Some(Seconds(5e-6)));
        assert!("5 m/s".parse::<Seconds>().is_err());
    }

    proptest! {
        #[test]
        fn what_a_count_prints_in_full_parses_back(count: u128) {
            prop_assert_eq!(format!("{:#}", Flops(count)).parse::<Flops>().unwrap(), Flops(count));
        }

        #[test]
        fn what_a_count_prints_parses_to_what_prints_the_same(count in 0u128..1 << 110) {
            let text = Macs(count).to_string();
            prop_assert_eq!(text.parse::<Macs>().unwrap().to_string(), text);
            let text = Bytes(count >> 32).to_string();
            prop_assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }

        #[test]
        fn what_a_rate_prints_parses_to_what_prints_the_same(rate in 1e-9f64..1e30) {
            let text = FlopsPerSec(rate).to_string();
            prop_assert_eq!(text.parse::<FlopsPerSec>().unwrap().to_string(), text);
        }
    }
}
