//! The table of known formats, each a row.
//!
//! Widths and biases: IEEE 754-2019 table 3.5 (FP64, FP32, FP16), the bfloat16 white paper (BF16),
//! OCP OFP8 1.0 section 5 (E4M3FN, E5M2), OCP Microscaling 1.0 section 5.3 (E2M3, E3M2, E2M1, E8M0),
//! ONNX `TensorProto.DataType` (the FNUZ variants).

use crate::format::{Format, Layout};

const fn float(name: &'static str, exponent_bits: u8, significand_bits: u8, bias: i16) -> Format {
    let bits = 1 + exponent_bits as u16 + significand_bits as u16;
    let layout = Layout::Float { sign_bits: 1, exponent_bits, significand_bits, bias };
    Format { name, bits, layout }
}

const fn signed(name: &'static str, bits: u16) -> Format {
    Format { name, bits, layout: Layout::SignedInteger }
}

const fn unsigned(name: &'static str, bits: u16) -> Format {
    Format { name, bits, layout: Layout::UnsignedInteger }
}

macro_rules! catalog {
    ($($(#[$doc:meta])* $constant:ident = $format:expr;)*) => {
        impl Format {
            $($(#[$doc])* pub const $constant: Format = $format;)*
        }
        /// Every format in the catalogue, in the order of this file.
        pub const ALL: &[Format] = &[$(Format::$constant),*];
    };
}

catalog! {
    /// IEEE 754 binary64.
    FP64 = float("fp64", 11, 52, 1023);
    /// IEEE 754 binary32.
    FP32 = float("fp32", 8, 23, 127);
    /// bfloat16: binary32 with the low 16 bits gone.
    BF16 = float("bf16", 8, 7, 127);
    /// IEEE 754 binary16.
    FP16 = float("fp16", 5, 10, 15);
    /// OCP FP8 E4M3: no infinities, largest value 448.
    E4M3FN = float("e4m3fn", 4, 3, 7);
    /// FP8 E4M3 with bias 8, no infinities, no negative zero.
    E4M3FNUZ = float("e4m3fnuz", 4, 3, 8);
    /// OCP FP8 E5M2, IEEE-like.
    E5M2 = float("e5m2", 5, 2, 15);
    /// FP8 E5M2 with bias 16, no infinities, no negative zero.
    E5M2FNUZ = float("e5m2fnuz", 5, 2, 16);
    /// OCP FP6 E2M3.
    E2M3 = float("e2m3", 2, 3, 1);
    /// OCP FP6 E3M2.
    E3M2 = float("e3m2", 3, 2, 3);
    /// OCP FP4 E2M1.
    E2M1 = float("e2m1", 2, 1, 1);
    /// OCP E8M0: an unsigned power of two, the scale of MX blocks.
    E8M0 = Format {
        name: "e8m0",
        bits: 8,
        layout: Layout::Float { sign_bits: 0, exponent_bits: 8, significand_bits: 0, bias: 127 },
    };
    /// 64-bit signed integer.
    INT64 = signed("int64", 64);
    /// 32-bit signed integer.
    INT32 = signed("int32", 32);
    /// 16-bit signed integer.
    INT16 = signed("int16", 16);
    /// 8-bit signed integer.
    INT8 = signed("int8", 8);
    /// 4-bit signed integer.
    INT4 = signed("int4", 4);
    /// 2-bit signed integer.
    INT2 = signed("int2", 2);
    /// 64-bit unsigned integer.
    UINT64 = unsigned("uint64", 64);
    /// 32-bit unsigned integer.
    UINT32 = unsigned("uint32", 32);
    /// 16-bit unsigned integer.
    UINT16 = unsigned("uint16", 16);
    /// 8-bit unsigned integer.
    UINT8 = unsigned("uint8", 8);
    /// 4-bit unsigned integer.
    UINT4 = unsigned("uint4", 4);
    /// 2-bit unsigned integer.
    UINT2 = unsigned("uint2", 2);
    /// True or false, a byte each.
    BOOL = Format { name: "bool", bits: 8, layout: Layout::Boolean };
    /// A pair of FP16.
    COMPLEX32 = Format { name: "complex32", bits: 32, layout: Layout::Complex };
    /// A pair of FP32.
    COMPLEX64 = Format { name: "complex64", bits: 64, layout: Layout::Complex };
    /// A pair of FP64.
    COMPLEX128 = Format { name: "complex128", bits: 128, layout: Layout::Complex };
    /// Strings: counted, never measured in bytes.
    TEXT = Format { name: "text", bits: 0, layout: Layout::Text };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_as_wide_as_its_fields() {
        for format in ALL {
            if let Layout::Float { sign_bits, exponent_bits, significand_bits, .. } = format.layout
            {
                let fields = u16::from(sign_bits + exponent_bits + significand_bits);
                assert_eq!(fields, format.bits, "{format}");
            }
        }
    }
}
