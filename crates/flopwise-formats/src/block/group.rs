//! Groups: integers or table entries under one floating-point scale, without a zero point.
//!
//! Not here: groups with a minimum (GGUF's `_1` and K types), and a scale of the whole tensor
//! ([`super::affine`]).

use super::{Nibbles, finite_magnitude, pack, unpack};
use crate::codec::{self, Rules};
use crate::exact::{Exact, Rational};
use crate::format::{Format, Layout};

pub(super) fn decode(
    scale: Format,
    element: Format,
    nibbles: Nibbles,
    block: &[u8],
    tensor_scale: f32,
    out: &mut [f32],
) {
    let (scale_bytes, codes) = block.split_at(usize::from(scale.bits / 8));
    let scale = codec::decode_f64(scale, unpack(scale_bytes, scale.bits, 0));
    for (element_idx, value) in out.iter_mut().enumerate() {
        let code = unpack(codes, element.bits, place(element, nibbles, element_idx));
        // 24 by 24 significant bits at most: exact until `as` rounds, and 1 changes nothing.
        let product = codec::decode_f64(element, code) * scale;
        *value = (product * f64::from(tensor_scale)) as f32;
    }
}

/// The scale takes the largest magnitude to the largest element: the nearest value of the scale's
/// format to `a / 127`, `a / 7` or, for NF4, `a / 1`, saturating. Elements are then the nearest to
/// `x / scale` with the scale as stored, ties to even (NF4: to the lower entry), saturating. A
/// scale of zero has zeros.
///
/// For NF4 this is bitsandbytes but for rounding: that multiplies by a rounded reciprocal and
/// compares with rounded midpoints.
pub(super) fn encode(
    scale: Format,
    element: Format,
    nibbles: Nibbles,
    values: &[f32],
    block: &mut [u8],
) {
    let (scale_bytes, codes) = block.split_at_mut(usize::from(scale.bits / 8));
    let Some(largest) = finite_magnitude(values) else {
        let nan = scale.float().and_then(|float| float.nan_code()).unwrap_or(0);
        pack(scale_bytes, scale.bits, 0, nan);
        return;
    };
    let wanted = rational(f64::from(largest)).over(&largest_element(element));
    let wanted = Exact::Finite(wanted.expect("the largest element is not zero"));
    let code = codec::encode(scale, &wanted, Rules::SATURATING).code;
    pack(scale_bytes, scale.bits, 0, code);
    let stored = rational(codec::decode_f64(scale, code));
    for (element_idx, value) in values.iter().enumerate() {
        let scaled = rational(f64::from(*value)).over(&stored);
        let scaled = scaled.map_or(Exact::zero(false), Exact::Finite);
        let code = codec::encode(element, &scaled, Rules::SATURATING).code;
        pack(codes, element.bits, place(element, nibbles, element_idx), code);
    }
}

fn largest_element(element: Format) -> Rational {
    match element.layout {
        Layout::SignedInteger => Rational::binary(false, (1 << (element.bits - 1)) - 1, 0),
        Layout::Float(_)
        | Layout::UnsignedInteger
        | Layout::CodeBook(_)
        | Layout::Boolean
        | Layout::Complex
        | Layout::Text => Rational::binary(false, 1, 0),
    }
}

/// Where an element's code is, counted in codes from the low bits of the first byte.
fn place(element: Format, nibbles: Nibbles, element_idx: usize) -> usize {
    match nibbles {
        Nibbles::HighFirst if element.bits == 4 => element_idx ^ 1,
        Nibbles::HighFirst | Nibbles::LowFirst => element_idx,
    }
}

/// A finite binary64 as a rational number.
fn rational(value: f64) -> Rational {
    let exact = Exact::from_f64(value);
    exact.rational().cloned().expect("callers pass finite values only")
}

#[cfg(test)]
mod tests {
    use super::super::{BlockRules, parse};

    /// The first bytes of a block that starts with these values and ends in zeros.
    #[track_caller]
    fn check(name: &str, firsts: &[f32], expected: &[u8], decoded: &[f32]) {
        let format = parse(name).unwrap();
        let mut values = vec![0.0; format.elements];
        values[..firsts.len()].copy_from_slice(firsts);
        let bytes = format.encode(&values, BlockRules::OCP).unwrap();
        assert_eq!(bytes[..expected.len()], *expected, "{name}");
        format.decode(&bytes, 1.0, &mut values).unwrap();
        let found: Vec<u32> = values[..decoded.len()].iter().map(|value| value.to_bits()).collect();
        let wanted: Vec<u32> = decoded.iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, wanted, "{name}: {values:?}");
    }

    #[test]
    fn blocks_by_hand() {
        // 14 / 7 = 2 = 0x4000 in FP16; 1/2, -3/2 and 5/2 tie to 0, -2 and 2.
        check("int4_g32", &[14.0, 1.0, -3.0, 5.0], &[0x00, 0x40, 0x07, 0x2e], &[14.0, 0.0, -4.0]);
        check("int8_g128", &[-127.0, 1.5], &[0x00, 0x3c, 0x81, 0x02], &[-127.0, 2.0]);
        // -1 is entry 0, 0 entry 7, 1 entry 15; the first element is the high nibble.
        check("nf4_g64", &[2.0, -2.0, 0.0, 0.2], &[0, 0, 0, 0x40, 0xf0, 0x78], &[2.0, -2.0, 0.0]);
        check("int4_g128", &[0.0; 2], &[0; 66], &[0.0; 128]);
        // The scale of 1e-9 / 7 is below half the smallest FP16.
        check("int4_g32", &[1e-9], &[0; 18], &[0.0; 32]);
        // Beyond 7 * 65504 the scale saturates, and then the element.
        check("int4_g32", &[1e6], &[0xff, 0x7b, 0x07], &[458_528.0]);
    }

    #[test]
    fn a_block_with_a_hole_is_nan() {
        for name in ["int4_g32", "int8_g128", "nf4_g64"] {
            for hole in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let format = parse(name).unwrap();
                let mut values = vec![1.0; format.elements];
                values[3] = hole;
                let bytes = format.encode(&values, BlockRules::OCP).unwrap();
                format.decode(&bytes, 1.0, &mut values).unwrap();
                // An integer or entry of zero times NaN is NaN too.
                assert!(values.iter().all(|value| value.is_nan()), "{name}");
            }
        }
    }
}
