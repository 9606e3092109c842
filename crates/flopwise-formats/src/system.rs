//! What the casts of other systems give for a value, where it is not what the codec gives, and why.
//!
//! Each rule was read off the system itself: `tests/data/casts.json.gz` holds the codes that
//! PyTorch 2.15 and 2.9, `ml_dtypes` 0.6, ONNX 1.23 and CUDA 13.2's headers give for hundreds of
//! binary32 and binary64 values, and the tests compare all of them.

use crate::codec::{self, Encoded, Overflow, Rounding, Rules};
use crate::exact::{Exact, Rational};
use crate::format::Format;
use crate::parse;
use std::fmt;

/// A system whose casts are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// `torch.tensor(x).to(dtype)` of PyTorch 2.12 and later, on a CPU.
    Pytorch,
    /// The same up to PyTorch 2.11, whose E4M3FN does not saturate.
    Pytorch2_11,
    /// The ONNX `Cast` operator with its defaults: `saturate = 1`, `round_mode = "up"` for E8M0. To
    /// infinity in an `FNUZ` format its text answers NaN, its reference evaluator (1.23) the largest
    /// value; here the text holds.
    Onnx,
    /// `numpy.float64(x).astype(dtype)` with the dtypes of `ml_dtypes`, and NumPy's own.
    MlDtypes,
    /// `__nv_cvt_double_to_...` with `__NV_SATFINITE`, as `cvt.rn.satfinite` does; E8M0 rounds up.
    Cuda,
    /// IEEE P3109's format of the same width and precision, saturating to finite.
    P3109,
}

impl System {
    /// Every system, in the order of the command line's help.
    pub const ALL: [System; 6] = [
        System::Pytorch,
        System::Pytorch2_11,
        System::Onnx,
        System::MlDtypes,
        System::Cuda,
        System::P3109,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            System::Pytorch => "pytorch",
            System::Pytorch2_11 => "pytorch-2.11",
            System::Onnx => "onnx",
            System::MlDtypes => "ml_dtypes",
            System::Cuda => "cuda",
            System::P3109 => "p3109",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            System::Pytorch => "PyTorch",
            System::Pytorch2_11 => "PyTorch 2.11",
            System::Onnx => "ONNX",
            System::MlDtypes => "ml_dtypes",
            System::Cuda => "CUDA",
            System::P3109 => "P3109",
        })
    }
}

/// What another system's cast gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The format there; another than asked for in P3109 alone.
    pub format: Format,
    /// Its code.
    pub code: u128,
    /// What the code stands for.
    pub value: Exact,
    /// The formats the value goes through: `fp64 -> fp32 -> e4m3fn`.
    pub path: String,
    /// Why this differs from one rounding of the exact value under the rules asked for; empty where
    /// it does not.
    pub why: String,
}

/// What `system` stores for `value` in `format`; `None` where it has no such format.
///
/// ```
/// use flopwise_formats::{Format, codec::Rules, decimal, system::{System, cast}};
/// let value = decimal::parse("465").unwrap().value;
/// let code = |system| cast(system, Format::E4M3FN, &value, Rules::IEEE).unwrap().code;
/// assert_eq!(code(System::Pytorch), 0x7e); // saturates
/// assert_eq!(code(System::Pytorch2_11), 0x7f); // NaN
/// ```
pub fn cast(system: System, format: Format, value: &Exact, rules: Rules) -> Option<Cast> {
    let target = target(system, format)?;
    let path = path(system, format);
    let mut source = value.clone();
    for step in path {
        let code = codec::encode(*step, &source, Rules::IEEE).code;
        source = codec::decode(*step, code)?;
    }
    let code = convert(system, target, &source)?;
    let stored = codec::decode(target, code)?;
    let mut names: Vec<String> = path.iter().map(Format::to_string).collect();
    names.push(target.to_string());
    let here = codec::encode(format, value, rules).code;
    let why = if target == format && here == code {
        String::new()
    } else {
        why(system, target, format, &source, value, rules)
    };
    Some(Cast { format: target, code, value: stored, path: names.join(" -> "), why })
}

/// The formats that a number typed by a user goes through on its way.
fn path(system: System, format: Format) -> &'static [Format] {
    let is_wide = format == Format::FP64;
    let is_numpy = format == Format::FP32 || format == Format::FP16;
    match system {
        // A Python float is binary64, and `torch.tensor` makes it the default dtype, binary32.
        System::Pytorch | System::Pytorch2_11 if is_wide => &[],
        System::Pytorch | System::Pytorch2_11 => &[Format::FP64, Format::FP32],
        // NumPy's own types are converted directly, those of ml_dtypes by way of binary32; the
        // evaluator of ONNX is made of both.
        System::MlDtypes | System::Onnx if is_wide => &[],
        System::MlDtypes | System::Onnx if is_numpy => &[Format::FP64],
        System::MlDtypes | System::Onnx => &[Format::FP64, Format::FP32],
        // There is a conversion from double, which rounds once.
        System::Cuda if is_wide => &[],
        System::Cuda => &[Format::FP64],
        System::P3109 => &[],
    }
}

/// What all systems but P3109 have.
const EVERYWHERE: &[Format] = &[
    Format::FP64,
    Format::FP32,
    Format::BF16,
    Format::FP16,
    Format::E4M3FN,
    Format::E5M2,
    Format::E8M0,
];

/// The format there; `None` where there is none.
fn target(system: System, format: Format) -> Option<Format> {
    let others: &[Format] = match system {
        System::P3109 => return p3109_sibling(format),
        System::Pytorch | System::Pytorch2_11 => &[Format::E4M3FNUZ, Format::E5M2FNUZ],
        System::Onnx => &[Format::E4M3FNUZ, Format::E5M2FNUZ, Format::E2M1],
        System::Cuda => &[Format::E2M3, Format::E3M2, Format::E2M1],
        System::MlDtypes => &[
            Format::E4M3,
            Format::E4M3FNUZ,
            Format::E4M3B11FNUZ,
            Format::E5M2FNUZ,
            Format::E3M4,
            Format::E2M3,
            Format::E3M2,
            Format::E2M1,
        ],
    };
    [EVERYWHERE, others].concat().contains(&format).then_some(format)
}

/// P3109's extended format of the same width, signedness and precision.
fn p3109_sibling(format: Format) -> Option<Format> {
    let float = format.float()?;
    if float.p3109_name().is_some() {
        return Some(format);
    }
    let bits = float.magnitude_bits() + u32::from(float.sign_bits);
    let sign = if float.sign_bits == 1 { 's' } else { 'u' };
    parse(&format!("binary{bits}p{}{sign}e", float.precision())).ok()
}

/// The code of a value that has come to the last step of its path.
fn convert(system: System, format: Format, source: &Exact) -> Option<u128> {
    if let Exact::Nan { is_negative, .. } = source {
        return nan(system, format, *is_negative);
    }
    if format == Format::E8M0 && system != System::P3109 {
        return Some(power_of_two(system, source));
    }
    let Encoded { code, .. } = codec::encode(format, source, rules(system, format));
    Some(code)
}

fn rules(system: System, format: Format) -> Rules {
    let is_small = format.bits <= 8;
    let overflow = match system {
        System::Pytorch if format == Format::E4M3FN => Overflow::SaturateFinite,
        System::Pytorch | System::Pytorch2_11 => Overflow::ToInfinity,
        System::Onnx if is_small => Overflow::Onnx,
        System::Cuda | System::P3109 if is_small => Overflow::SaturateFinite,
        System::Onnx | System::Cuda | System::P3109 | System::MlDtypes => Overflow::ToInfinity,
    };
    Rules { overflow, ..Rules::IEEE }
}

fn nan(system: System, format: Format, is_negative: bool) -> Option<u128> {
    let exact = Exact::Nan { is_negative, payload: 0 };
    let own = codec::encode(format, &exact, Rules::IEEE).code;
    let all_ones = |float: crate::Float| (1 << float.magnitude_bits()) - 1;
    let float = format.float()?;
    Some(match system {
        // c10/util/Float8_e5m2.h: every bit below the sign.
        System::Pytorch | System::Pytorch2_11 if format == Format::E5M2 => {
            all_ones(float) | float.sign_code(is_negative)
        }
        // cuda_fp8.h, cuda_fp16.h, cuda_bf16.h: one NaN, positive, all ones.
        System::Cuda if format.bits == 8 || format.bits == 16 => all_ones(float),
        // cuda_fp6.h, cuda_fp4.h: the largest, positive.
        System::Cuda if format.bits < 8 => float.max_finite_code(),
        System::Pytorch
        | System::Pytorch2_11
        | System::Onnx
        | System::MlDtypes
        | System::Cuda
        | System::P3109 => own,
    })
}

/// A finite or infinite binary32 as E8M0.
fn power_of_two(system: System, source: &Exact) -> u128 {
    const NAN: u128 = 0xff;
    const LARGEST: u128 = 0xfe;
    let Some(value) = source.rational() else {
        return if system == System::Cuda { LARGEST } else { NAN };
    };
    if system == System::MlDtypes && (value.is_negative() || value.is_zero()) {
        return NAN;
    }
    if value.is_zero() {
        return 0;
    }
    let is_up = matches!(system, System::Onnx | System::Cuda);
    let is_subnormal = value.floor_log2() < Some(-126);
    let smallest = Rational::binary(false, 1, -127);
    match system {
        // onnx.numpy_helper: exponent field 0, and any bit below it rounds up to 1.
        System::Onnx if is_subnormal => return 1,
        // c10/util/Float8_e8m0fnu.h rounds the fields: over half of the significand is up to 1.
        System::Pytorch | System::Pytorch2_11 | System::MlDtypes if is_subnormal => {
            return u128::from(value.cmp_magnitude(&smallest).is_gt());
        }
        System::Pytorch
        | System::Pytorch2_11
        | System::Onnx
        | System::MlDtypes
        | System::Cuda
        | System::P3109 => {}
    }
    let rounding = if is_up { Rounding::Up } else { Rounding::NearestAway };
    let overflow = match system {
        System::Cuda | System::Onnx => Overflow::SaturateFinite,
        System::Pytorch | System::Pytorch2_11 | System::MlDtypes | System::P3109 => {
            Overflow::ToInfinity
        }
    };
    let magnitude = Exact::Finite(value.abs());
    let code = codec::encode(Format::E8M0, &magnitude, Rules { rounding, overflow, ..Rules::IEEE });
    // Below the smallest power of two all of them stop at it.
    if code.flags.is_underflow { 0 } else { code.code }
}

/// Why a cast differs from one rounding of the exact value.
fn why(
    system: System,
    target: Format,
    format: Format,
    source: &Exact,
    value: &Exact,
    rules: Rules,
) -> String {
    if target != format {
        return format!("{target} has another bias, range and special codes than {format}");
    }
    let once = codec::encode(format, value, rules).code;
    let twice = codec::encode(format, source, rules).code;
    if once != twice {
        return "rounds twice: to fp32 first, then to the format".to_owned();
    }
    let saturating = Rules { overflow: Overflow::SaturateFinite, ..rules };
    let there = self::rules(system, format).overflow;
    let flags = codec::encode(format, source, saturating).flags;
    match source {
        Exact::Nan { .. } => format!("{system} has one pattern for NaN here"),
        _ if format == Format::E8M0 => e8m0_why(system, source),
        Exact::Infinity { .. } | Exact::Beyond { .. } => format!("overflow is {there} there"),
        Exact::Finite(_) if flags.is_overflow => format!("overflow is {there} there"),
        Exact::Finite(_) => format!("{system} rounds to nearest, ties to even"),
    }
}

fn e8m0_why(system: System, source: &Exact) -> String {
    let is_positive =
        source.rational().is_some_and(|value| !value.is_zero() && !value.is_negative());
    match system {
        System::Onnx | System::Cuda if is_positive => "rounds up to a power of two".to_owned(),
        System::Pytorch | System::Pytorch2_11 | System::MlDtypes if is_positive => {
            "ties go up, not to the even code; below 2^-127 it stops there".to_owned()
        }
        System::MlDtypes => "zero, negatives and infinity are NaN".to_owned(),
        System::Pytorch | System::Pytorch2_11 | System::Onnx | System::Cuda | System::P3109 => {
            "the sign is ignored, and zero is the smallest power of two".to_owned()
        }
    }
}
