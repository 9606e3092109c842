//! Slices against the codec, element by element.

use flopwise_formats::block::{self, BlockFormat, BlockLayout, BlockRules, ScaleRule};
use flopwise_formats::bulk::{self, BulkError, portable};
use flopwise_formats::codec::{self, Overflow, Rounding, Rules, Subnormals};
use flopwise_formats::{ALL, Format, parse};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

const OVERFLOWS: [Overflow; 4] =
    [Overflow::ToInfinity, Overflow::SaturateFinite, Overflow::SaturatePropagate, Overflow::Onnx];

/// Every float of the catalogue up to 16 bits, every P3109 format up to 8, and some that a user
/// might describe.
fn formats() -> Vec<Format> {
    let is_small = |format: &Format| format.bits <= 16 && format.is_float();
    let mut formats: Vec<Format> = ALL.iter().copied().filter(is_small).collect();
    for bits in 3..=8 {
        for precision in 1..=bits {
            for domain in ["se", "sf", "ue", "uf"] {
                formats.extend(parse(&format!("binary{bits}p{precision}{domain}")));
            }
        }
    }
    let described = [
        "fp(8,4)",
        "fp(6,9)",
        "fp(5,10,inf=none,nan=all-ones)",
        "fp(5,10,bias=20)",
        "fp(8,7,inf=none,nan=negative-zero)",
        "fp(8,7,inf=none,nan=all-ones)",
        "fp(4,3,bias=140)",
        "fp(4,3,bias=-100)",
        "fp(7,8,inf=none,nan=none)",
        "fp(11,4)",
        "fp(6,1,bias=100)",
        "fp(5,2,bias=126)",
    ];
    formats.extend(described.map(|name| parse(name).unwrap()));
    formats
}

fn bytes_for(format: Format, n_elements: usize) -> usize {
    format.bytes_for(n_elements as u128).unwrap() as usize
}

/// The codes of a packed slice, bit by bit.
fn unpacked(format: Format, packed: &[u8], n_elements: usize) -> Vec<u128> {
    let bits = usize::from(format.bits);
    let bit = |position: usize| u128::from(packed[position / 8] >> (position % 8) & 1);
    let code = |idx: usize| (0..bits).map(|bit_idx| bit(idx * bits + bit_idx) << bit_idx).sum();
    (0..n_elements).map(code).collect()
}

/// What the slice functions must give for one format and one set of rules.
#[track_caller]
fn check(format: Format, rules: Rules, sources: &[f32]) {
    let mut packed = vec![0xa5; bytes_for(format, sources.len())];
    let mut plain = packed.clone();
    bulk::encode_f32(format, rules, sources, &mut packed).unwrap();
    portable::encode_f32(format, rules, sources, &mut plain).unwrap();
    assert!(packed == plain, "{format} {rules:?}");
    let mut rounded = vec![1.0; sources.len()];
    let mut plain = rounded.clone();
    bulk::round_f32(format, rules, sources, &mut rounded).unwrap();
    portable::round_f32(format, rules, sources, &mut plain).unwrap();
    let codes = unpacked(format, &packed, sources.len());
    for (idx, source) in sources.iter().enumerate() {
        let expected = codec::encode_f32(format, *source, rules).code;
        let place = || format!("{format} {rules:?} {:#x}", source.to_bits());
        assert_eq!(codes[idx], expected, "{}", place());
        let value = codec::decode_f64(format, expected) as f32;
        assert_eq!(rounded[idx].to_bits(), value.to_bits(), "{}", place());
        assert_eq!(plain[idx].to_bits(), value.to_bits(), "{}", place());
    }
}

/// Every code's value as binary32 and the middle between neighbours, each with its own neighbours,
/// and the special values.
fn boundaries(format: Format) -> Vec<f32> {
    let codes = 0..1u128 << format.bits.min(11);
    let spread = |code: u128| code << (format.bits - format.bits.min(11));
    let mut values: Vec<f64> = codes
        .flat_map(|code| [spread(code), spread(code) + 1])
        .map(|code| codec::decode_f64(format, code))
        .filter(|value| value.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let step = |pair: &[f64]| [pair[0], (pair[0] + pair[1]) / 2.0, 2.0 * pair[1] - pair[0]];
    let near: Vec<f64> = values.windows(2).flat_map(step).collect();
    let mut sources = special();
    for value in near {
        let value = value as f32;
        sources.extend([value.next_down(), value, value.next_up()]);
    }
    sources
}

/// Every exponent with significands at the edges, zeros, infinities and NaN of many kinds.
fn special() -> Vec<f32> {
    let significands = [0, 1, 0x3f_ffff, 0x40_0000, 0x40_0001, 0x7f_fffe, 0x7f_ffff];
    let signed = (0..512u32).map(|high| high << 23);
    signed.flat_map(|high| significands.map(|low| f32::from_bits(high | low))).collect()
}

/// Every upper half with lower halves at the edges.
fn halves(step: usize) -> Vec<f32> {
    let lows = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let highs = (0..=0xffffu32).step_by(step);
    highs.flat_map(|high| lows.map(|low| f32::from_bits(high << 16 | low))).collect()
}

#[test]
fn every_code_decodes_as_the_codec_says() {
    let integers = ALL.iter().copied().filter(|format| {
        !format.is_float() && 0 < format.bits && format.bits <= 16 && *format != Format::COMPLEX32
    });
    for format in formats().into_iter().chain(integers) {
        let n_codes = 1usize << format.bits;
        let mut packed = vec![0; bytes_for(format, n_codes)];
        for code in 0..n_codes {
            for bit in (0..usize::from(format.bits)).filter(|bit| code >> bit & 1 == 1) {
                let position = code * usize::from(format.bits) + bit;
                packed[position / 8] |= 1 << (position % 8);
            }
        }
        let (mut values, mut plain) = (vec![0f32; n_codes], vec![0f32; n_codes]);
        let mut wide = vec![0f64; n_codes];
        bulk::decode_f32(format, &packed, &mut values).unwrap();
        portable::decode_f32(format, &packed, &mut plain).unwrap();
        bulk::decode_f64(format, &packed, &mut wide).unwrap();
        for code in 0..n_codes {
            let expected = codec::decode_f64(format, code as u128);
            assert_eq!(wide[code].to_bits(), expected.to_bits(), "{format} {code:#x}");
            let expected = expected as f32;
            assert_eq!(values[code].to_bits(), expected.to_bits(), "{format} {code:#x}");
            assert_eq!(plain[code].to_bits(), expected.to_bits(), "{format} {code:#x}");
        }
    }
}

#[test]
fn encoding_at_every_boundary() {
    for format in formats() {
        let sources = boundaries(format);
        for overflow in OVERFLOWS {
            check(format, Rules { overflow, ..Rules::IEEE }, &sources);
        }
    }
}

#[test]
fn encoding_every_upper_half() {
    let all = halves(1);
    for format in [Format::FP16, Format::BF16, Format::E4M3FN, Format::E5M2, Format::E4M3FNUZ] {
        check(format, Rules::IEEE, &all);
    }
    // A step that meets every exponent and, over them, every upper significand.
    let some = halves(13);
    for format in ALL.iter().filter(|format| format.bits <= 16 && format.is_float()) {
        for overflow in OVERFLOWS {
            check(*format, Rules { overflow, ..Rules::IEEE }, &some);
        }
    }
}

#[test]
fn other_rules_and_formats_go_through_the_codec() {
    let sources: Vec<f32> = special().into_iter().step_by(7).collect();
    let rules = [
        Rules { rounding: Rounding::TowardZero, ..Rules::IEEE },
        Rules { rounding: Rounding::ToOdd, ..Rules::SATURATING },
        Rules { subnormals: Subnormals::FlushedToZero, ..Rules::IEEE },
        Rules { subnormals: Subnormals::TakenForZero, ..Rules::IEEE },
    ];
    for format in [Format::FP16, Format::E4M3FN, Format::E2M1, Format::E8M0] {
        for rules in rules {
            check(format, rules, &sources);
        }
    }
    for format in [
        Format::FP64,
        Format::FP32,
        Format::TF32,
        Format::NF4,
        Format::INT8,
        Format::UINT2,
        Format::INT32,
        Format::BOOL,
    ] {
        check(format, Rules::IEEE, &sources);
        check(format, Rules::SATURATING, &sources);
    }
}

#[test]
fn tails_of_every_length() {
    for format in [Format::FP16, Format::BF16, Format::E5M2, Format::E2M3, Format::E2M1] {
        for n_elements in 0..=200 {
            let sources: Vec<f32> = (0..n_elements).map(|idx| idx as f32 * -0.037).collect();
            check(format, Rules::SATURATING, &sources);
            let mut packed = vec![0; bytes_for(format, n_elements)];
            bulk::encode_f32(format, Rules::SATURATING, &sources, &mut packed).unwrap();
            let mut values = vec![f32::NAN; n_elements];
            bulk::decode_f32(format, &packed, &mut values).unwrap();
            let mut rounded = vec![f32::NAN; n_elements];
            bulk::round_f32(format, Rules::SATURATING, &sources, &mut rounded).unwrap();
            assert_eq!(values, rounded);
        }
    }
}

#[track_caller]
fn check_f64(format: Format, rules: Rules, sources: &[f64]) {
    let mut packed = vec![0; bytes_for(format, sources.len())];
    bulk::encode_f64(format, rules, sources, &mut packed).unwrap();
    let codes = unpacked(format, &packed, sources.len());
    for (source, code) in sources.iter().zip(codes) {
        let expected = codec::encode_f64(format, *source, rules).code;
        assert_eq!(code, expected, "{format} {rules:?} {:#x}", source.to_bits());
    }
}

#[test]
fn binary64_rounds_once() {
    let bait = |value: f64| {
        let nudge = value.abs().max(f64::MIN_POSITIVE) * 2f64.powi(-40);
        [value, value + nudge, value - nudge, value.next_up(), value.next_down()]
    };
    let extremes = [f64::MAX, f64::MIN_POSITIVE, 5e-324, 3.5e38, 1e-46, f64::INFINITY, f64::NAN];
    for format in formats() {
        let finite = boundaries(format).into_iter().step_by(3).map(f64::from);
        let mut sources: Vec<f64> = finite.flat_map(bait).collect();
        sources.extend(extremes.into_iter().flat_map(|value| [value, -value]));
        for overflow in [Overflow::ToInfinity, Overflow::SaturatePropagate] {
            check_f64(format, Rules { overflow, ..Rules::IEEE }, &sources);
        }
    }
}

#[test]
fn lengths_and_formats_that_do_not_fit_are_refused() {
    let refused = |result: Result<(), BulkError>, expected, found| {
        assert_eq!(result, Err(BulkError::Length { expected, found }));
    };
    refused(bulk::encode_f32(Format::FP16, Rules::IEEE, &[1.0; 3], &mut [0; 5]), 6, 5);
    refused(bulk::encode_f64(Format::E2M1, Rules::IEEE, &[1.0; 3], &mut [0; 3]), 2, 3);
    refused(bulk::decode_f32(Format::E3M2, &[0; 3], &mut [0.0; 5]), 4, 3);
    refused(bulk::decode_f64(Format::FP16, &[0; 3], &mut [0.0; 1]), 2, 3);
    refused(bulk::round_f32(Format::FP16, Rules::IEEE, &[1.0; 3], &mut [0.0; 2]), 3, 2);
    let text = bulk::decode_f32(Format::TEXT, &[], &mut []);
    assert_eq!(text, Err(BulkError::NoNumbers));
}

fn any_bits() -> impl Strategy<Value = f64> {
    let near_float = any::<(u32, i8)>().prop_map(|(bits, nudge)| {
        let value = f64::from(f32::from_bits(bits & 0xffff_8000));
        f64::from_bits(value.to_bits().wrapping_add_signed(nudge.into()))
    });
    prop_oneof![any::<u64>().prop_map(f64::from_bits), near_float]
}

proptest! {
    #[test]
    fn any_binary64_of_any_format(
        format_idx in 0..formats().len(),
        overflow_idx in 0..OVERFLOWS.len(),
        sources in proptest::collection::vec(any_bits(), 0..200),
    ) {
        let rules = Rules { overflow: OVERFLOWS[overflow_idx], ..Rules::IEEE };
        let format = formats()[format_idx];
        check_f64(format, rules, &sources);
        let sources: Vec<f32> = sources.iter().map(|source| *source as f32).collect();
        check(format, rules, &sources);
    }
}

/// The slices against the blocks of the reference, whose scale stands before the codes.
fn check_mx(element: Format, rule: ScaleRule, sources: &[f32]) {
    let is_asked = |format: &&BlockFormat| format.layout == BlockLayout::Mx(element);
    let format = block::ALL.iter().find(is_asked).unwrap();
    let rules = BlockRules { scale: rule, ..BlockRules::OCP };
    let blocks = format.encode(sources, rules).unwrap();
    let mut expected = vec![0.0; sources.len()];
    format.decode(&blocks, 1.0, &mut expected).unwrap();
    let mut scales = vec![0; sources.len() / 32];
    let mut codes = vec![0xa5; bytes_for(element, sources.len())];
    bulk::encode_mx(element, rule, sources, &mut scales, &mut codes).unwrap();
    let mut values = vec![1.0; sources.len()];
    bulk::decode_mx(element, &scales, &codes, &mut values).unwrap();
    for (idx, block) in blocks.chunks_exact(format.bytes).enumerate() {
        let found = &codes[idx * (block.len() - 1)..][..block.len() - 1];
        let place = || format!("{format} {rule:?} {:?}", &sources[32 * idx..][..32]);
        assert_eq!((scales[idx], found), (block[0], &block[1..]), "{}", place());
    }
    for (value, expected) in values.iter().zip(expected) {
        assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
    }
}

#[test]
fn mx_blocks() {
    let scrambled = |idx: u32| idx.wrapping_mul(0x9e37_79b9).rotate_left(7).wrapping_mul(idx | 1);
    let mut sources = Vec::new();
    // Blocks of one binade and a few below; the largest at every edge, NaN and infinity included.
    for (block_idx, largest) in special().into_iter().step_by(5).enumerate() {
        let of_block = (0..32u32).map(|idx| {
            let noise = scrambled(block_idx as u32 * 32 + idx);
            let exponent = (largest.to_bits() >> 23 & 0xff).min(254).saturating_sub(noise % 9);
            f32::from_bits(noise & 0x807f_ffff & largest.to_bits().max(1 << 31) | exponent << 23)
        });
        sources.extend(of_block);
        sources[32 * block_idx + block_idx % 32] = largest;
    }
    let rules = [
        ScaleRule::Floor,
        ScaleRule::Ceil,
        ScaleRule::Even,
        ScaleRule::Rceil,
        ScaleRule::RceilSaturating,
    ];
    for element in
        [Format::E4M3FN, Format::E5M2, Format::E2M3, Format::E3M2, Format::E2M1, Format::INT8]
    {
        for rule in rules {
            check_mx(element, rule, &sources);
        }
        check_mx(element, ScaleRule::Floor, &[0.0; 64]);
        check_mx(element, ScaleRule::Floor, &[-0.0; 32]);
    }
    for n_blocks in 0..5 {
        check_mx(Format::E2M1, ScaleRule::Floor, &sources[..32 * n_blocks]);
    }
    let refused = bulk::decode_mx(Format::FP16, &[0], &[0; 64], &mut [0.0; 32]);
    assert_eq!(refused, Err(BulkError::NoNumbers));
    let refused = bulk::decode_mx(Format::E2M1, &[0; 2], &[0; 16], &mut [0.0; 32]);
    assert_eq!(refused, Err(BulkError::Length { expected: 1, found: 2 }));
}

/// All of binary32. Between two sources with the same code there can be no other, as rounding keeps
/// order; so of 256 neighbours the codec is asked for the first and the last, and for all where
/// these differ.
#[test]
#[ignore = "2^32 sources for each of eight conversions take minutes; `just long` runs it"]
fn every_binary32() {
    const BLOCK: usize = 1 << 16;
    let formats = [Format::FP16, Format::BF16, Format::E4M3FN, Format::E5M2];
    for (format, rules) in
        formats.map(|format| [Rules::IEEE, Rules::SATURATING].map(|rules| (format, rules))).concat()
    {
        let mut packed = vec![0; bytes_for(format, BLOCK)];
        for first in (0..=u32::MAX).step_by(BLOCK) {
            let sources: Vec<f32> =
                (0..BLOCK as u32).map(|idx| f32::from_bits(first + idx)).collect();
            bulk::encode_f32(format, rules, &sources, &mut packed).unwrap();
            let n_bytes = packed.len() / (BLOCK / 256);
            for (sources, packed) in sources.chunks(256).zip(packed.chunks(n_bytes)) {
                check_neighbours(format, rules, sources, packed);
            }
        }
    }
}

fn check_neighbours(format: Format, rules: Rules, sources: &[f32], packed: &[u8]) {
    let expected = |source: f32| codec::encode_f32(format, source, rules).code as u16;
    let bounds = [expected(sources[0]), expected(sources[sources.len() - 1])];
    let code = |idx: usize| match format.bits {
        8 => packed[idx].into(),
        _ => u16::from_le_bytes([packed[2 * idx], packed[2 * idx + 1]]),
    };
    if bounds[0] == bounds[1] {
        assert!((0..sources.len()).all(|idx| code(idx) == bounds[0]), "{format} {sources:?}");
    } else {
        for (idx, source) in sources.iter().enumerate() {
            assert_eq!(code(idx), expected(*source), "{format} {rules:?} {source:e}");
        }
    }
}
