//! OCP microscaling: blocks of 32 elements under one E8M0 power of two.
//!
//! <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>,
//! sections 5 and 6.3. Not here: GGUF's MXFP4, which orders its nibbles otherwise
//! ([`super::Ggml::Mxfp4`]).

use super::{finite_magnitude, floor_log2, pack, power_of_two, unpack};
use crate::codec::{self, Rules};
use crate::format::Format;

/// Which power of two becomes the scale of an MX block, from the largest magnitude `a` of the
/// block, the largest value `m` of the element format and its exponent `e = floor(log2 m)`.
///
/// The exponent is then cut to E8M0's -127 to 127; an all-zero block has code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleRule {
    /// `floor(log2 a) - e`: OCP MX 1.0 section 6.3; the largest elements may saturate.
    Floor,
    /// `ceil(log2 a) - e`: torchao's `CEIL`.
    Ceil,
    /// `floor(log2 r) - e` with `r` being `a` rounded to the element's significand bits, ties up:
    /// torchao's `EVEN`, without its overflow to NaN near the largest binary32.
    Even,
    /// The smallest power of two at or above `a / m`, so that nothing saturates: torchao's `RCEIL`.
    Rceil,
    /// [`ScaleRule::Rceil`], except that a block with an infinity but no NaN gets the largest scale
    /// and saturated elements: cuBLAS, Transformer Engine, PTX `cvt.rp.satfinite.ue8m0x2`.
    RceilSaturating,
}

/// E8M0's NaN.
const NAN_SCALE: u8 = 0xff;
/// E8M0's largest finite code.
const LARGEST_SCALE: u8 = 0xfe;
const BIAS: i32 = 127;
/// MXINT8 elements count in this (OCP MX 1.0 section 5.3.4: an implied scale of `2^-6`).
const INT8_STEP: f64 = 1.0 / 64.0;

pub(super) fn decode(element: Format, block: &[u8], tensor_scale: f32, out: &mut [f32]) {
    let (scale, codes) = block.split_at(1);
    let scale = codec::decode_f64(Format::E8M0, u128::from(scale[0])) * step(element);
    for (element_idx, value) in out.iter_mut().enumerate() {
        let code = unpack(codes, element.bits, element_idx);
        // At most 8 by 24 significant bits, within 2^-300 and 2^300: exact until `as` rounds.
        *value = (codec::decode_f64(element, code) * scale * f64::from(tensor_scale)) as f32;
    }
}

pub(super) fn encode(element: Format, values: &[f32], rule: ScaleRule, block: &mut [u8]) {
    let (scale, codes) = block.split_at_mut(1);
    scale[0] = scale_code(element, values, rule);
    if scale[0] == NAN_SCALE {
        return;
    }
    let inverse = power_of_two(BIAS - i32::from(scale[0])) / step(element);
    for (element_idx, value) in values.iter().enumerate() {
        // A power of two changes no significand, and binary64 has room for the exponent.
        let scaled = f64::from(*value) * inverse;
        let code = codec::encode_f64(element, scaled, Rules::SATURATING).code;
        pack(codes, element.bits, element_idx, code);
    }
}

/// What an element code of 1 stands for, where that is not 1.
fn step(element: Format) -> f64 {
    if element.is_float() { 1.0 } else { INT8_STEP }
}

fn scale_code(element: Format, values: &[f32], rule: ScaleRule) -> u8 {
    let Some(largest) = finite_magnitude(values) else {
        let is_nan = values.iter().any(|value| value.is_nan());
        return match rule {
            ScaleRule::RceilSaturating if !is_nan => LARGEST_SCALE,
            ScaleRule::Floor
            | ScaleRule::Ceil
            | ScaleRule::Even
            | ScaleRule::Rceil
            | ScaleRule::RceilSaturating => NAN_SCALE,
        };
    };
    if largest.to_bits() == 0 {
        return 0;
    }
    let exponent = scale_exponent(element, largest, rule);
    (exponent + BIAS).clamp(0, i32::from(LARGEST_SCALE)) as u8
}

fn scale_exponent(element: Format, largest: f32, rule: ScaleRule) -> i32 {
    let largest_element = match element.float() {
        Some(float) => codec::decode_f64(element, float.max_finite_code()),
        None => 127.0 * INT8_STEP,
    };
    let element_exponent = floor_log2(largest_element as f32);
    let floor = floor_log2(largest) - element_exponent;
    let is_above = |power: f64| f64::from(largest) > power;
    match rule {
        ScaleRule::Floor => floor,
        ScaleRule::Ceil => floor + i32::from(is_above(power_of_two(floor_log2(largest)))),
        ScaleRule::Even => {
            let significand_bits = element.float().map_or(6, |float| float.significand_bits);
            // Half of the last kept bit, added, carries into the exponent where rounding does.
            let unit = power_of_two(floor_log2(largest) - i32::from(significand_bits));
            let reach = f64::from(largest) + unit / 2.0;
            floor + i32::from(reach >= power_of_two(floor_log2(largest) + 1))
        }
        ScaleRule::Rceil | ScaleRule::RceilSaturating => {
            floor + i32::from(is_above(largest_element * power_of_two(floor)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlockFormat, BlockLayout, BlockRules, parse};
    use super::*;

    /// The scale code of a block whose largest magnitude is `largest`, under the four rules.
    #[track_caller]
    fn check(name: &str, largest: f32, expected: [u8; 4]) {
        let format = parse(name).unwrap();
        let mut values = [0.0; 32];
        values[7] = largest;
        let rules = [ScaleRule::Floor, ScaleRule::Ceil, ScaleRule::Even, ScaleRule::Rceil];
        let found = rules.map(|scale| {
            format.encode(&values, BlockRules { scale, ..BlockRules::OCP }).unwrap()[0]
        });
        assert_eq!(found, expected, "{name} {largest}");
    }

    #[test]
    fn scales() {
        check("mxfp4", 0.0, [0; 4]);
        check("mxfp4", 4.0, [127; 4]);
        check("mxfp4", 6.0, [127, 128, 127, 127]);
        check("mxfp4", -6.0, [127, 128, 127, 127]);
        check("mxfp4", 6.5, [127, 128, 127, 128]);
        check("mxfp4", 7.0, [127, 128, 128, 128]);
        check("mxfp8_e4m3", 448.0, [127, 128, 127, 127]);
        check("mxfp8_e4m3", 449.0, [127, 128, 127, 128]);
        check("mxint8", 1.0, [127; 4]);
        check("mxint8", 127.0 / 64.0, [127, 128, 127, 127]);
        check("mxint8", 1.99, [127, 128, 127, 128]);
        check("mxint8", 1.993, [127, 128, 128, 128]);
        check("mxfp6_e3m2", f32::from_bits(1), [0; 4]);
        check("mxfp6_e2m3", f32::MAX, [252, 253, 253, 253]);
        check("mxfp4", f32::INFINITY, [255; 4]);
        check("mxfp4", f32::NAN, [255; 4]);
    }

    #[test]
    fn every_code_under_every_scale_decodes_exactly() {
        let names = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8"];
        for name in names {
            let format = parse(name).unwrap();
            let BlockLayout::Mx(element) = format.layout else { panic!("{name}") };
            for scale in 0..=255u8 {
                for first in (0..1u128 << element.bits).step_by(32) {
                    every_code_from(format, element, scale, first);
                }
            }
        }
    }

    /// A block of codes that count up.
    fn every_code_from(format: &BlockFormat, element: Format, scale: u8, first: u128) {
        let mut block = vec![0; format.bytes];
        block[0] = scale;
        (0..32).for_each(|idx| pack(&mut block[1..], element.bits, idx, first + idx as u128));
        let mut values = [1.0; 32];
        format.decode(&block, 1.0, &mut values).unwrap();
        for (idx, value) in values.into_iter().enumerate() {
            let exact = codec::decode_f64(element, first + idx as u128)
                * codec::decode_f64(Format::E8M0, u128::from(scale))
                * step(element);
            if exact.is_nan() {
                assert!(value.is_nan());
                continue;
            }
            assert_eq!(value.to_bits(), (exact as f32).to_bits());
            let is_held = f64::from(value).to_bits() == exact.to_bits();
            assert!(is_held || exact.abs() > f64::from(f32::MAX));
        }
    }
}
