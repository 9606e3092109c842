//! The table of known formats, each a row, and what is said about each.
//!
//! Widths, biases and special codes: IEEE 754-2019 table 3.5 (FP64, FP32, FP16), the bfloat16 white
//! paper (BF16), NVIDIA's PTX ISA (TF32, UE4M3, UE5M3), OCP OFP8 1.0 section 5 (E4M3FN, E5M2), OCP
//! Microscaling 1.0 section 5.3 (E2M3, E3M2, E2M1, E8M0), ONNX `TensorProto.DataType` (the FNUZ
//! variants), LLVM's `APFloat` and `ml_dtypes` (E4M3, E3M4, E4M3B11FNUZ).

use crate::format::{CodeBook, Float, Format, Infinity, Layout, Nan, ieee_bias};

const fn ieee(name: &'static str, exponent_bits: u8, significand_bits: u8) -> Format {
    let bias = ieee_bias(exponent_bits);
    float(name, exponent_bits, significand_bits, bias, Infinity::Ieee, Nan::Ieee)
}

const fn float(
    name: &'static str,
    exponent_bits: u8,
    significand_bits: u8,
    bias: i32,
    infinity: Infinity,
    nan: Nan,
) -> Format {
    let (sign_bits, has_zero) = (1, true);
    let float = Float { sign_bits, exponent_bits, significand_bits, bias, infinity, nan, has_zero };
    Format { name, ..Format::from_float(float) }
}

/// Eight bits without a sign.
const fn unsigned_float(
    name: &'static str,
    exponent_bits: u8,
    significand_bits: u8,
    bias: i32,
    has_zero: bool,
) -> Format {
    let (infinity, nan) = (Infinity::None, Nan::AllOnes);
    let layout =
        Float { sign_bits: 0, exponent_bits, significand_bits, bias, infinity, nan, has_zero };
    Format { name, bits: 8, layout: Layout::Float(layout) }
}

const fn signed(name: &'static str, bits: u16) -> Format {
    Format { name, bits, layout: Layout::SignedInteger }
}

const fn unsigned(name: &'static str, bits: u16) -> Format {
    Format { name, bits, layout: Layout::UnsignedInteger }
}

macro_rules! catalog {
    ($($(#[doc = $doc:expr])* $constant:ident = $format:expr, $users:expr;)*) => {
        impl Format {
            $($(#[doc = $doc])* pub const $constant: Format = $format;)*
        }
        /// Every format in the catalogue, in the order of this file.
        pub const ALL: &[Format] = &[$(Format::$constant),*];

        /// What a catalogue row says about its format: what it is, and who uses it. `None` for a
        /// format that the catalogue does not hold.
        ///
        /// ```
        /// use flopwise_formats::{Format, about};
        /// assert_eq!(about(Format::FP16).unwrap().what, "IEEE 754 binary16.");
        /// ```
        pub fn about(format: Format) -> Option<About> {
            let rows = [$((Format::$constant, concat!($($doc),*), $users)),*];
            let row = rows.into_iter().find(|(known, ..)| *known == format);
            row.map(|(_, what, users)| About { what: what.trim_start(), users })
        }
    };
}

/// What a catalogue row says about its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// In a sentence or two.
    pub what: &'static str,
    /// Who uses it, and for what.
    pub users: &'static str,
}

catalog! {
    /// IEEE 754 binary64.
    FP64 = ieee("fp64", 11, 52), "scientific computing; NumPy's and Python's default";
    /// IEEE 754 binary32.
    FP32 = ieee("fp32", 8, 23), "master weights, accumulators, optimiser states";
    /// NVIDIA's TensorFloat-32: the range of binary32 with the precision of binary16, 19 bits kept in a
    /// 32-bit register.
    TF32 = ieee("tf32", 8, 10), "FP32 matrix multiplications on NVIDIA tensor cores since A100";
    /// bfloat16: binary32 with the low 16 bits gone.
    BF16 = ieee("bf16", 8, 7), "training and inference on TPU, GPU and CPU; most released weights";
    /// IEEE 754 binary16.
    FP16 = ieee("fp16", 5, 10), "inference, mixed-precision training with loss scaling";
    /// OCP FP8 E4M3: no infinities, largest value 448.
    E4M3FN = float("e4m3fn", 4, 3, 7, Infinity::None, Nan::AllOnes),
        "weights and activations on H100 and later, MI350; safetensors calls it F8_E4M3";
    /// FP8 E4M3 as IEEE 754 would have it: infinities, largest value 240.
    E4M3 = ieee("e4m3", 4, 3), "AWS Trainium; LLVM Float8E4M3, ml_dtypes float8_e4m3";
    /// FP8 E4M3 with bias 8, no infinities, no negative zero, largest value 240.
    E4M3FNUZ = float("e4m3fnuz", 4, 3, 8, Infinity::None, Nan::NegativeZero), "AMD MI300";
    /// FP8 E4M3 with bias 11, no infinities, no negative zero, largest value 30.
    E4M3B11FNUZ = float("e4m3b11fnuz", 4, 3, 11, Infinity::None, Nan::NegativeZero), "Google TPU";
    /// OCP FP8 E5M2, IEEE-like.
    E5M2 = ieee("e5m2", 5, 2), "gradients on H100 and later";
    /// FP8 E5M2 with bias 16, no infinities, no negative zero.
    E5M2FNUZ = float("e5m2fnuz", 5, 2, 16, Infinity::None, Nan::NegativeZero),
        "gradients on AMD MI300";
    /// FP8 E3M4, IEEE-like.
    E3M4 = ieee("e3m4", 3, 4), "AWS Trainium";
    /// OCP E8M0: an unsigned power of two without zero, the scale of MX blocks.
    E8M0 = unsigned_float("e8m0", 8, 0, 127, false), "the scale of MX blocks";
    /// E4M3FN without its sign: eight bits of which the top one is ignored.
    UE4M3 = unsigned_float("ue4m3", 4, 3, 7, true), "the scale of NVFP4 blocks";
    /// Eight bits without a sign, 5 of exponent and 3 of significand, largest value 114688.
    UE5M3 = unsigned_float("ue5m3", 5, 3, 15, true), "a scale of 4-bit blocks with more range";
    /// OCP FP6 E2M3: finite values only.
    E2M3 = float("e2m3", 2, 3, 1, Infinity::None, Nan::None), "elements of MXFP6 blocks";
    /// OCP FP6 E3M2: finite values only.
    E3M2 = float("e3m2", 3, 2, 3, Infinity::None, Nan::None), "elements of MXFP6 blocks";
    /// OCP FP4 E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
    E2M1 = float("e2m1", 2, 1, 1, Infinity::None, Nan::None),
        "elements of MXFP4 and NVFP4 blocks; gpt-oss, Blackwell";
    /// NormalFloat 4: sixteen values, quantiles of a normal distribution, times the largest magnitude
    /// of a block of 64.
    NF4 = Format { name: "nf4", bits: 4, layout: Layout::CodeBook(CodeBook::Nf4) },
        "QLoRA; bitsandbytes";
    /// 64-bit signed integer.
    INT64 = signed("int64", 64), "token ids, indices";
    /// 32-bit signed integer.
    INT32 = signed("int32", 32), "indices; accumulators of integer matrix multiplications";
    /// 16-bit signed integer.
    INT16 = signed("int16", 16), "audio";
    /// 8-bit signed integer.
    INT8 = signed("int8", 8), "quantised weights and activations";
    /// 4-bit signed integer.
    INT4 = signed("int4", 4), "quantised weights (GPTQ, AWQ)";
    /// 2-bit signed integer.
    INT2 = signed("int2", 2), "quantised weights";
    /// 64-bit unsigned integer.
    UINT64 = unsigned("uint64", 64), "hashes";
    /// 32-bit unsigned integer.
    UINT32 = unsigned("uint32", 32), "indices";
    /// 16-bit unsigned integer.
    UINT16 = unsigned("uint16", 16), "images";
    /// 8-bit unsigned integer.
    UINT8 = unsigned("uint8", 8), "images; quantised activations with a zero point";
    /// 4-bit unsigned integer.
    UINT4 = unsigned("uint4", 4), "quantised weights with a zero point";
    /// 2-bit unsigned integer.
    UINT2 = unsigned("uint2", 2), "quantised weights with a zero point";
    /// True or false, a byte each.
    BOOL = Format { name: "bool", bits: 8, layout: Layout::Boolean }, "masks";
    /// A pair of FP16.
    COMPLEX32 = Format { name: "complex32", bits: 32, layout: Layout::Complex }, "signals";
    /// A pair of FP32.
    COMPLEX64 = Format { name: "complex64", bits: 64, layout: Layout::Complex }, "signals";
    /// A pair of FP64.
    COMPLEX128 = Format { name: "complex128", bits: 128, layout: Layout::Complex }, "signals";
    /// Strings: counted, never measured in bytes.
    TEXT = Format { name: "text", bits: 0, layout: Layout::Text }, "vocabularies";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_as_wide_as_its_fields() {
        for format in ALL {
            let Some(float) = format.float() else { continue };
            let fields = float.magnitude_bits() + u32::from(float.sign_bits);
            // The byte of a UE4M3 has a bit to spare.
            let spare = u32::from(*format == Format::UE4M3);
            assert_eq!(fields + spare, u32::from(format.bits), "{format}");
        }
    }

    #[test]
    fn every_row_says_what_it_is() {
        for format in ALL {
            let about = about(*format).unwrap();
            assert!(about.what.ends_with('.') && !about.users.is_empty(), "{format}");
        }
    }
}
