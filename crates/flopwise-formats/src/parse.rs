//! Text <-> [`Format`]: the catalogue's names, the names that other systems use, IEEE P3109's
//! family and formats that the user describes.
//!
//! | text | meaning |
//! |--|--|
//! | `bf16`, `e4m3fn`, `F8_E4M3`, `torch.float8_e5m2` | a catalogue row by its own or another's name |
//! | `binary8p4se` | P3109: 8 bits, precision 4, signed, extended |
//! | `fp(5,2)`, `fp(4,3,bias=8,inf=none,nan=negative-zero)` | exponent and significand bits |

use crate::catalog::ALL;
use crate::format::{Float, Format, Infinity, Nan, ieee_bias};
use std::fmt;

/// The largest bias, up or down, of a format that a user describes.
pub const MAX_BIAS: i32 = 32_767;

/// The text names no format, or more than one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat {
    /// What was asked for.
    pub name: String,
    /// Why it will not do, and what would.
    pub problem: String,
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "format `{}`: {}", self.name, self.problem)
    }
}

impl std::error::Error for UnknownFormat {}

/// Names that other systems give to catalogue rows: PyTorch, ONNX, NumPy, `ml_dtypes`, safetensors,
/// LLVM, PTX.
const ALIASES: &[(&str, &str)] = &[
    ("f64", "fp64"),
    ("float64", "fp64"),
    ("double", "fp64"),
    ("binary64", "fp64"),
    ("f32", "fp32"),
    ("float32", "fp32"),
    ("float", "fp32"),
    ("single", "fp32"),
    ("binary32", "fp32"),
    ("f16", "fp16"),
    ("float16", "fp16"),
    ("half", "fp16"),
    ("binary16", "fp16"),
    ("bfloat16", "bf16"),
    ("tensorfloat32", "tf32"),
    // OCP's, which most who write it so mean; LLVM's `f8E4M3` and ml_dtypes' `float8_e4m3` are
    // IEEE-like.
    ("fp8_e4m3", "e4m3fn"),
    ("f8_e4m3", "e4m3fn"),
    ("e8m0fnu", "e8m0"),
    ("ue8m0", "e8m0"),
    ("e2m3fn", "e2m3"),
    ("e3m2fn", "e3m2"),
    ("e2m1fn", "e2m1"),
    ("e2m1fn_x2", "e2m1"),
    ("f4", "e2m1"),
    ("fp4", "e2m1"),
    ("normalfloat4", "nf4"),
    ("i64", "int64"),
    ("long", "int64"),
    ("i32", "int32"),
    ("int", "int32"),
    ("i16", "int16"),
    ("short", "int16"),
    ("i8", "int8"),
    ("char", "int8"),
    ("i4", "int4"),
    ("i2", "int2"),
    ("u64", "uint64"),
    ("u32", "uint32"),
    ("u16", "uint16"),
    ("u8", "uint8"),
    ("byte", "uint8"),
    ("u4", "uint4"),
    ("u2", "uint2"),
    ("boolean", "bool"),
];

/// What others write before the fields: `float8_e5m2`, `f8E5M2`, `F6_E2M3`.
const PREFIXES: &[(&str, u16)] = &[
    ("float8", 8),
    ("fp8", 8),
    ("f8", 8),
    ("float6", 6),
    ("fp6", 6),
    ("f6", 6),
    ("float4", 4),
    ("fp4", 4),
    ("f4", 4),
];

/// Names that stand for several formats, and which.
const AMBIGUOUS: &[(&[&str], &str)] = &[
    (
        &["fp8", "f8", "float8"],
        "e4m3fn (OCP, largest 448), e5m2 (OCP, largest 57344), e4m3 (IEEE-like, largest 240), \
         e4m3fnuz, e5m2fnuz (AMD MI300), e4m3b11fnuz, e3m4",
    ),
    (&["fp6", "f6", "float6"], "e2m3 (largest 7.5), e3m2 (largest 28)"),
    (&["fnuz"], "e4m3fnuz, e5m2fnuz, e4m3b11fnuz"),
];

/// Reads a format's name, in any case, as this project or another system writes it.
///
/// # Errors
/// [`UnknownFormat`] says what is wrong; an ambiguous name lists its variants.
///
/// ```
/// use flopwise_formats::{Format, parse};
/// assert_eq!(parse("float16"), Ok(Format::FP16));
/// assert_eq!(parse("fp(5,10)"), Ok(Format::FP16));
/// assert_eq!(parse("binary8p4se").unwrap().to_string(), "binary8p4se");
/// assert!(parse("fp8").unwrap_err().problem.contains("e5m2fnuz"));
/// ```
pub fn parse(text: &str) -> Result<Format, UnknownFormat> {
    let trimmed = text.trim();
    let lower = trimmed.to_ascii_lowercase();
    let bare = ["torch.", "ml_dtypes.", "np.", "numpy.", "jnp.", "tensorproto."]
        .iter()
        .find_map(|prefix| lower.strip_prefix(prefix))
        .unwrap_or(&lower);
    if let Some(found) = row_called(bare).or_else(|| prefixed(bare)) {
        return Ok(found);
    }
    let described = match AMBIGUOUS.iter().find(|(names, _)| names.contains(&bare)) {
        Some((_, variants)) => Err(format!("is ambiguous; say which: {variants}")),
        None => described(bare),
    };
    described.map_err(|problem| {
        let name = trimmed.chars().take(60).collect();
        UnknownFormat { name, problem }
    })
}

/// The row of that name, its own or an alias.
fn row_called(name: &str) -> Option<Format> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    ALL.iter().find(|format| format.name == name).copied()
}

/// The row of that name behind its width.
fn prefixed(name: &str) -> Option<Format> {
    let of = |(prefix, bits): &(&str, u16)| {
        let rest = name.strip_prefix(prefix)?;
        let row = row_called(rest.strip_prefix('_').unwrap_or(rest))?;
        (row.bits == *bits && row.is_float()).then_some(row)
    };
    PREFIXES.iter().find_map(of)
}

/// A P3109 format, or one in the user's words.
fn described(text: &str) -> Result<Format, String> {
    let p3109 = text.strip_prefix("p3109_").unwrap_or(text);
    let p3109 = p3109.strip_prefix("binary").or_else(|| p3109.strip_prefix('k'));
    if let Some(rest) = p3109.filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    {
        return p3109_format(rest);
    }
    let inner = text.strip_prefix("fp").and_then(|rest| rest.split_once('('));
    let Some((width, arguments)) = inner else {
        return Err(format!(
            "is unknown; near it are {}; P3109's are called binary8p4se and the like, and fp(e,m) \
             describes any other",
            nearest(text).join(", ")
        ));
    };
    let Some(arguments) = arguments.strip_suffix(')') else {
        return Err("`)` is missing at the end".to_owned());
    };
    let float = user_float(arguments)?;
    let format = Format::from_float(float);
    if !width.is_empty() && width != format.bits.to_string() {
        return Err(format!("these fields make {} bits, not {width}", format.bits));
    }
    let known = ALL.iter().find(|known| known.layout == format.layout && known.bits == format.bits);
    Ok(known.copied().unwrap_or(format))
}

/// The three rows whose names are nearest.
fn nearest(text: &str) -> Vec<&'static str> {
    let start: String = text.chars().take(32).collect();
    let mut rows: Vec<&str> = ALL.iter().map(|format| format.name).collect();
    rows.sort_by_key(|name| strsim::levenshtein(&start, name));
    rows.truncate(3);
    rows
}

/// `8p4se` (P3109 interim report 3.2, section 4.2: K bits, precision P, bias `2^(K-P-1)` signed,
/// `2^(K-P)` unsigned).
fn p3109_format(text: &str) -> Result<Format, String> {
    let shape = "a P3109 format is binaryKpP with s or u and e or f, such as binary8p4se";
    let (bits, rest) = text.split_once('p').ok_or(shape)?;
    let digits = rest.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let kind = &rest[digits.len()..];
    let bits: u8 = bits.parse().map_err(|_| shape)?;
    let precision: u8 = digits.parse().map_err(|_| shape)?;
    let (sign_bits, infinity) = match kind {
        "se" => (1, Infinity::Top),
        "sf" => (1, Infinity::Saturated),
        "ue" => (0, Infinity::Top),
        "uf" => (0, Infinity::Saturated),
        "" => {
            let name = format!("binary{bits}p{precision}");
            return Err(format!(
                "is ambiguous; say which: {name}se (signed, extended), {name}sf (signed, finite), \
                 {name}ue (unsigned, extended), {name}uf (unsigned, finite)"
            ));
        }
        _ => return Err(shape.to_owned()),
    };
    let most = bits.saturating_sub(sign_bits);
    if bits < 3 || bits > 64 || precision == 0 || precision > most {
        return Err(format!("K is 3 to 64 and P is 1 to K, less 1 if signed; here {most} at most"));
    }
    let exponent_bits = bits - sign_bits - (precision - 1);
    if exponent_bits > MAX_EXPONENT_BITS {
        return Err(format!("has {exponent_bits} exponent bits; at most {MAX_EXPONENT_BITS} do"));
    }
    Ok(Format::from_float(Float {
        sign_bits,
        exponent_bits,
        significand_bits: precision - 1,
        bias: 1 << (exponent_bits - 1),
        infinity,
        nan: if sign_bits == 1 { Nan::NegativeZero } else { Nan::AllOnes },
        has_zero: true,
    }))
}

const MAX_EXPONENT_BITS: u8 = 15;
const MAX_SIGNIFICAND_BITS: u8 = 112;

/// What stands between the parentheses of `fp(...)`.
fn user_float(arguments: &str) -> Result<Float, String> {
    let mut parts = arguments.split(',').map(str::trim);
    let mut field = |what: &str, least: u8, most: u8| {
        let value = parts.next().and_then(|part| part.parse::<u8>().ok());
        let fitting = value.filter(|value| (least..=most).contains(value));
        fitting.ok_or_else(|| format!("fp(e,m): {what} bits are {least} to {most}"))
    };
    let exponent_bits = field("exponent", 1, MAX_EXPONENT_BITS)?;
    let significand_bits = field("significand", 0, MAX_SIGNIFICAND_BITS)?;
    let mut float = Float {
        sign_bits: 1,
        exponent_bits,
        significand_bits,
        bias: ieee_bias(exponent_bits),
        infinity: Infinity::Ieee,
        // Beside infinity there is no code left for a NaN without a significand.
        nan: if significand_bits == 0 { Nan::None } else { Nan::Ieee },
        has_zero: true,
    };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        option(&mut float, key.trim(), value.trim())?;
    }
    check(float)?;
    Ok(float)
}

fn option(float: &mut Float, key: &str, value: &str) -> Result<(), String> {
    match key {
        "bias" => {
            let bias = value.parse().ok().filter(|bias: &i32| bias.abs() <= MAX_BIAS);
            float.bias = bias.ok_or(format!("bias={value}: an integer within ±{MAX_BIAS}"))?;
        }
        "inf" => {
            float.infinity = match value {
                "ieee" | "yes" => Infinity::Ieee,
                "none" | "no" => Infinity::None,
                "top" => Infinity::Top,
                "saturated" => Infinity::Saturated,
                _ => return Err(format!("inf={value}: ieee, none, top or saturated")),
            }
        }
        "nan" => {
            float.nan = match value {
                "ieee" | "yes" => Nan::Ieee,
                "none" | "no" => Nan::None,
                "all-ones" => Nan::AllOnes,
                "negative-zero" => Nan::NegativeZero,
                _ => return Err(format!("nan={value}: ieee, none, all-ones or negative-zero")),
            }
        }
        "sign" => float.sign_bits = u8::from(is_yes(key, value)?),
        "zero" => float.has_zero = is_yes(key, value)?,
        _ => return Err(format!("`{key}` is none of bias, inf, nan, sign, zero")),
    }
    Ok(())
}

fn is_yes(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{key}={value}: yes or no")),
    }
}

/// Refuses layouts in which a code would mean two things, or none.
fn check(float: Float) -> Result<(), String> {
    let Float { sign_bits, exponent_bits, significand_bits, infinity, nan, .. } = float;
    let bits = u32::from(sign_bits) + float.magnitude_bits();
    if bits < 2 {
        return Err("a format has at least 2 bits".to_owned());
    }
    if nan == Nan::Ieee && significand_bits == 0 {
        return Err("nan=ieee needs a bit of significand beside infinity".to_owned());
    }
    if nan == Nan::NegativeZero && (sign_bits == 0 || !float.has_zero) {
        return Err("nan=negative-zero needs a sign and a zero".to_owned());
    }
    if infinity == Infinity::Ieee && nan != Nan::Ieee && significand_bits != 0 {
        return Err("the codes above inf=ieee are nan=ieee; say inf=none or inf=top".to_owned());
    }
    if nan == Nan::AllOnes && infinity == Infinity::Ieee {
        return Err("infinity and NaN would share a code; say inf=none or inf=top".to_owned());
    }
    let is_wide = exponent_bits == MAX_EXPONENT_BITS && significand_bits == MAX_SIGNIFICAND_BITS;
    if is_wide && infinity != Infinity::Ieee {
        return Err("128 bits are read with inf=ieee only".to_owned());
    }
    let specials = u128::from(float.infinity_code().is_some()) + u128::from(nan == Nan::AllOnes);
    if (1u128 << float.magnitude_bits()) < specials + 2 || float.max_finite_code() == 0 {
        return Err("no code is left for a number beside zero".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printed_name_parses_back() {
        for format in ALL {
            assert_eq!(parse(&format.to_string()), Ok(*format));
        }
        for bits in 3..=16 {
            for precision in 1..=bits {
                for kind in ["se", "sf", "ue", "uf"] {
                    let name = format!("binary{bits}p{precision}{kind}");
                    let Ok(format) = parse(&name) else { continue };
                    assert_eq!(format.to_string(), name);
                    assert_eq!(format.bits, bits);
                }
            }
        }
    }

    #[test]
    fn every_alias_names_a_row_that_no_row_is_called() {
        for (alias, name) in ALIASES {
            assert_eq!(parse(alias).map(|format| format.name), Ok(*name));
            assert!(!ALL.iter().any(|format| format.name == *alias), "{alias}");
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let printed = match parse(text) {
            Ok(format) => format.to_string(),
            Err(error) => error.problem,
        };
        assert!(printed.contains(expected), "{text}: {printed}");
    }

    #[test]
    fn names_in_the_users_words() {
        check("torch.float8_e4m3fn", "e4m3fn");
        check("F8_E4M3", "e4m3fn");
        check("E4M3", "e4m3");
        check("float8_e4m3", "e4m3");
        check("Float8E4M3B11FNUZ", "e4m3b11fnuz");
        check("float8_e8m0fnu", "e8m0");
        check("F6_E3M2", "e3m2");
        check("torch.float4_e2m1fn_x2", "e2m1");
        check("fp(8,23)", "fp32");
        check("fp8(4,3,bias=8,inf=none,nan=negative-zero)", "e4m3fnuz");
        check("fp(6,9)", "fp(6,9)");
        check("fp(3,0)", "fp(3,0)");
        check("fp( 4 , 3 , bias=-3 )", "fp(4,3,bias=-3)");
        check("fp(15,112)", "fp(15,112)");
        check("fp(4,3,inf=top,nan=none,sign=no)", "fp(4,3,inf=top,nan=none,sign=no)");
        check("k8p3se", "binary8p3se");
        check("p3109_k8p3se", "binary8p3se");
    }

    #[test]
    fn nonsense_is_answered() {
        check("fp17", "is unknown");
        check("", "is unknown");
        check("fp8", "e4m3fnuz");
        check("fp(0,0)", "exponent bits are 1 to 15");
        check("fp(4)", "significand bits are 0 to 112");
        check("fp(4,3", "`)` is missing");
        check("fp(1,0)", "no code is left");
        check("fp(16,3)", "exponent bits are 1 to 15");
        check("fp9(4,3)", "make 8 bits, not 9");
        check("fp(4,3,bias=x)", "an integer within");
        check("fp(4,3,bogus=1)", "`bogus` is none of");
        check("fp(4,3,nan=none)", "the codes above inf=ieee");
        check("fp(4,0,nan=ieee)", "needs a bit of significand");
        check("binary8p4", "is ambiguous");
        check("binary8p9se", "7 at most");
        check("binary8p4xx", "a P3109 format is");
        check("binary300p4se", "a P3109 format is");
    }
}
