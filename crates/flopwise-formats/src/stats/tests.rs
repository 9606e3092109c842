//! A tally against the reference: each value by the codec, each error exact.

use super::sum::Sum;
use super::*;
use crate::codec::{Overflow, Rounding, Rules, Subnormals};
use crate::exact::Rational;

/// What the tally should say, value by value.
#[derive(Default)]
struct Expected {
    counts: [u64; 8],
    squares: Option<Rational>,
    signal: Option<Rational>,
    max_abs_error: f64,
    max_rel_error: f64,
}

fn plus(total: &mut Option<Rational>, term: &Rational) {
    // minus a negative: sums need no operator of their own.
    let negative = Rational::binary(true, 1, 0).times(term);
    *total = Some(total.take().map_or_else(|| term.clone(), |total| total.minus(&negative)));
}

fn expected(source: Format, format: Format, rules: Rules, codes: &[u128]) -> Expected {
    let mut expected = Expected::default();
    let float = format.float();
    for code in codes {
        let value = codec::decode(source, *code).unwrap();
        let encoded = codec::encode(format, &value, rules);
        let found = codec::decode(format, encoded.code).unwrap();
        let [changed, overflow, saturated, underflow, subnormal, invalid, lost, left_out] =
            &mut expected.counts;
        let Some(rational) = value.rational() else {
            let is_nan = matches!(value, Exact::Nan { .. });
            let is_kept = match is_nan {
                true => matches!(found, Exact::Nan { .. }),
                false => matches!(found, Exact::Infinity { .. }),
            };
            *lost += u64::from(!is_kept);
            continue;
        };
        *overflow += u64::from(encoded.flags.is_overflow);
        *invalid += u64::from(encoded.flags.is_invalid);
        let Some(result) = found.rational() else {
            *left_out += 1;
            *changed += 1;
            continue;
        };
        let error = rational.minus(result);
        *changed += u64::from(!error.is_zero());
        *saturated += u64::from(encoded.flags.is_overflow);
        *underflow += u64::from(result.is_zero() && !rational.is_zero());
        let is_subnormal = float.filter(|float| float.has_zero).is_some_and(|float| {
            result.floor_log2().is_some_and(|log2| log2 < i64::from(float.min_exponent()))
        });
        *subnormal += u64::from(is_subnormal);
        plus(&mut expected.squares, &error.times(&error));
        plus(&mut expected.signal, &rational.times(rational));
        expected.max_abs_error = expected.max_abs_error.max(error.abs().to_f64());
        if let Some(relative) = error.over(rational) {
            expected.max_rel_error = expected.max_rel_error.max(relative.abs().to_f64());
        }
    }
    expected
}

#[track_caller]
fn near(found: f64, expected: f64, what: &str) {
    let is_near = found == expected || (found - expected).abs() <= 1e-12 * expected.abs();
    assert!(is_near, "{what}: {found:e} not {expected:e}");
}

fn packed(source: Format, codes: &[u128]) -> Vec<u8> {
    let bits = usize::from(source.bits);
    let mut bytes = vec![0u8; (codes.len() * bits).div_ceil(8)];
    for (code_idx, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let at = code_idx * bits + bit;
            bytes[at / 8] |= ((code >> bit & 1) as u8) << (at % 8);
        }
    }
    bytes
}

fn tally(source: Format, targets: &[Target], codes: &[u128], pieces: usize) -> Stats {
    let mut tallies: Vec<Tally> = codes
        .chunks(codes.len().div_ceil(pieces).next_multiple_of(32).max(32))
        .map(|codes| {
            let mut tally = Tally::new(source, targets).unwrap();
            tally.add(&packed(source, codes), codes.len());
            tally
        })
        .collect();
    // The last first, to see that order does not matter.
    let mut whole = tallies.pop().unwrap_or_else(|| Tally::new(source, targets).unwrap());
    tallies.into_iter().for_each(|tally| whole.merge(tally));
    whole.finish()
}

const RULES: [Rules; 5] = [
    Rules::SATURATING,
    Rules::IEEE,
    Rules { rounding: Rounding::TowardZero, ..Rules::SATURATING },
    Rules { rounding: Rounding::Up, overflow: Overflow::SaturatePropagate, ..Rules::IEEE },
    Rules { rounding: Rounding::NearestAway, subnormals: Subnormals::TakenForZero, ..Rules::IEEE },
];

#[track_caller]
fn check(source: Format, codes: &[u128], pieces: usize, rules: &[Rules]) {
    let mut asked: Vec<(Format, Rules, Target)> = Vec::new();
    let described = ["binary8p3se", "fp(6,5)", "fp(8,3)", "fp(3,9)", "fp(4,0,nan=none,inf=none)"];
    let described = described.map(|name| crate::parse(name).unwrap());
    for format in crate::ALL.iter().chain(&described) {
        for rules in rules {
            if let Some(target) = Target::element(*format, *rules) {
                asked.push((*format, *rules, target));
            }
        }
    }
    let targets: Vec<Target> = asked.iter().map(|(.., target)| *target).collect();
    let stats = tally(source, &targets, codes, pieces);
    assert_eq!(stats.source.elements, codes.len() as u64);
    for ((format, rules, _), found) in asked.into_iter().zip(stats.targets) {
        let expected = expected(source, format, rules, codes);
        let place = format!("{source} -> {format} {rules:?}");
        let counts = [
            found.changed,
            found.overflow,
            found.saturated,
            found.underflow,
            found.subnormal,
            found.invalid,
            found.lost_specials,
            found.left_out,
        ];
        assert_eq!(counts, expected.counts, "{place}");
        let number = |total: Option<Rational>| total.map_or(0.0, |total| total.to_f64());
        near(found.sum_of_squared_errors, number(expected.squares), &place);
        near(found.sum_of_squares, number(expected.signal), &place);
        near(found.max_abs_error, expected.max_abs_error, &place);
        near(found.max_rel_error, expected.max_rel_error, &place);
    }
}

/// xorshift64* of Vigna.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn bell(n: usize, scale: f64) -> Vec<f64> {
    let mut seed = 7;
    let mut one = || (0..12).map(|_| (random(&mut seed) >> 11) as f64 / 2f64.powi(53)).sum::<f64>();
    (0..n).map(|_| (one() - 6.0) * scale).collect()
}

fn singles(values: &[f64]) -> Vec<u128> {
    values.iter().map(|value| u128::from((*value as f32).to_bits())).collect()
}

/// Values of every format, half way between them, beside both, and what is special.
fn nasty() -> Vec<u128> {
    let mut codes: Vec<u128> = [0.0, f32::MAX, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45]
        .iter()
        .map(|value: &f32| u128::from(value.to_bits()))
        .collect();
    codes.extend([0x7f80_0001, 0x7fff_ffff, 0x0040_0000, 0x0060_0000, 0x007f_ffff]);
    for format in [Format::E4M3FN, Format::E5M2, Format::E2M1, Format::FP16, Format::BF16] {
        let step = if format.bits == 16 { 509 } else { 1 };
        for code in (0..1u128 << (format.bits - 1)).step_by(step) {
            let low = codec::decode_f64(format, code);
            let middle = low + (codec::decode_f64(format, code + 1) - low) / 2.0;
            for value in [low, middle] {
                let bits = u128::from((value as f32).to_bits());
                codes.extend([bits, bits + 1, bits.max(1) - 1]);
            }
        }
    }
    let negative: Vec<u128> = codes.iter().map(|code| code | 1 << 31).collect();
    codes.extend(negative);
    codes
}

#[test]
fn a_bell_is_judged_as_the_reference_does() {
    for (scale, pieces) in [(0.02, 1), (1.0, 3), (200.0, 7)] {
        check(Format::FP32, &singles(&bell(700, scale)), pieces, &RULES[..2]);
    }
    check(Format::FP32, &singles(&bell(100, 3.0)), 1, &RULES);
}

#[test]
fn whole_blocks_are_judged_as_the_reference_does() {
    // Enough for the vectorised loops.
    check(Format::FP32, &singles(&bell(2200, 0.02)), 2, &RULES[..1]);
    check(Format::FP32, &singles(&bell(600, 1e-6)), 2, &RULES[..2]);
}

#[test]
fn nasty_values_are_judged_as_the_reference_does() {
    check(Format::FP32, &nasty(), 3, &RULES[..2]);
    let some: Vec<u128> = nasty().into_iter().step_by(13).collect();
    check(Format::FP32, &some, 1, &RULES);
}

#[test]
fn any_bits_are_judged_as_the_reference_does() {
    let mut seed = 3;
    let codes: Vec<u128> = (0..800).map(|_| u128::from(random(&mut seed) as u32)).collect();
    check(Format::FP32, &codes, 5, &RULES[..2]);
}

#[test]
fn narrow_sources_are_judged_as_the_reference_does() {
    for format in crate::ALL {
        if format.bits <= 8 && Tally::new(*format, &[]).is_some() {
            let codes: Vec<u128> = (0..1 << format.bits).chain(0..7).collect();
            check(*format, &codes, 2, &RULES[..2]);
        }
    }
    let mut seed = 5;
    let described = crate::parse("fp(11,4)").unwrap();
    for format in [Format::BF16, Format::FP16, Format::INT16, described] {
        let codes: Vec<u128> = (0..500).map(|_| u128::from(random(&mut seed) as u16)).collect();
        check(format, &codes, 2, &RULES[..2]);
    }
}

#[test]
fn wide_sources_are_judged_as_the_reference_does() {
    let doubles: Vec<u128> =
        bell(200, 0.02).iter().map(|value| u128::from(value.to_bits())).collect();
    check(Format::FP64, &doubles, 2, &RULES[..2]);
    let mut seed = 9;
    for format in [Format::INT32, Format::UINT32, Format::INT64, Format::UINT64] {
        let mask = (1u128 << format.bits) - 1;
        let codes: Vec<u128> =
            (0..100).map(|i| u128::from(random(&mut seed) >> (i % 60)) & mask).collect();
        check(format, &codes, 2, &RULES[..2]);
    }
}

#[test]
fn a_tensor_is_described() {
    let values = [0.0f32, -0.0, 1.5, -3.0, 0.25, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let codes: Vec<u128> = values.iter().map(|value| u128::from(value.to_bits())).collect();
    let targets = [Target::parse("fp16").unwrap()];
    let stats = tally(Format::FP32, &targets, &codes, 2).source;
    assert_eq!((stats.elements, stats.finite, stats.nan, stats.infinite), (8, 5, 1, 2));
    assert_eq!((stats.zeros, stats.negative), (2, 1));
    assert_eq!((stats.min, stats.max), (Some(-3.0), Some(1.5)));
    assert_eq!((stats.amax, stats.amin), (Some(3.0), Some(0.25)));
    assert_eq!((stats.mean, stats.sum_of_squares), (Some(-0.25), 11.3125));
    assert_eq!(stats.exponents, [(-2, 1), (0, 1), (1, 1)]);
    assert_eq!(stats.trailing_zero_bits, 22);
    let names: Vec<&str> = stats.exact_in.iter().map(|format| format.name).collect();
    assert_eq!(names, ["e5m2", "fp16", "bf16", "tf32"]);
}

#[test]
fn splitting_changes_nothing() {
    let codes = singles(&bell(20_000, 0.3));
    let targets = ["fp16", "bf16", "e4m3fn", "e5m2", "int8", "tf32", "mxfp4", "nf4"];
    let targets = targets.map(|name| Target::parse(name).unwrap());
    let add = |pieces: &[usize]| {
        let mut whole = Tally::new(Format::FP32, &targets).unwrap();
        let mut start = 0;
        for end in pieces.iter().copied().chain([codes.len()]) {
            let mut tally = Tally::new(Format::FP32, &targets).unwrap();
            tally.add(&packed(Format::FP32, &codes[start..end]), end - start);
            whole.merge(tally);
            start = end;
        }
        whole.finish()
    };
    // At multiples of 256 the sums of finer formats are cut nowhere.
    assert_eq!(add(&[]), add(&[256, 512, 4096, 9984]));
}

#[test]
fn full_bins_are_emptied() {
    let mut tally = Tally::new(Format::FP32, &[Target::parse("e4m3fn").unwrap()]).unwrap();
    let piece = 1.25001f32.to_le_bytes().repeat(1 << 20);
    for _ in 0..17 {
        tally.add(&piece, 1 << 20);
    }
    let stats = tally.finish();
    let error = f64::from(1.25001f32) - 1.25;
    let expected = 17.0 * 2f64.powi(20) * error * error;
    near(stats.targets[0].sum_of_squared_errors, expected, "sum");
    assert_eq!(stats.targets[0].changed, 17 << 20);
}

/// OCP MX by the rule of its specification, with rationals.
#[test]
fn mx_blocks_are_judged_by_the_rule() {
    let values = bell(32 * 40 + 5, 0.7);
    for (name, element) in [("mxfp4", Format::E2M1), ("mxfp8_e4m3", Format::E4M3FN)] {
        let target = Target::parse(name).unwrap();
        let found = tally(Format::FP32, &[target], &singles(&values), 1).targets[0].clone();
        let emax = if element == Format::E2M1 { 2 } else { 8 };
        let (mut squares, mut underflow) = (0.0, 0);
        for block in values.chunks(32) {
            let block: Vec<f64> = block.iter().map(|value| f64::from(*value as f32)).collect();
            let amax = block.iter().fold(0.0, |amax: f64, value| amax.max(value.abs()));
            let Exact::Finite(exact) = Exact::from_f64(amax) else { unreachable!() };
            let scale = 2f64.powi(exact.floor_log2().unwrap() as i32 - emax);
            for value in block {
                let code = codec::encode_f64(element, value / scale, Rules::SATURATING).code;
                let result = codec::decode_f64(element, code) * scale;
                squares += (value - result).powi(2);
                underflow += u64::from(result == 0.0);
            }
        }
        near(found.sum_of_squared_errors, squares, name);
        assert_eq!(found.underflow, underflow);
    }
}

/// Scaling the values before is the same as the search's scale.
#[test]
fn scales_are_what_scaled_values_give() {
    let values = bell(5000, 0.003);
    let targets =
        ["e4m3fn", "e5m2", "e2m1", "int8", "fp16"].map(|name| Target::parse(name).unwrap());
    let unscaled = tally(Format::FP32, &targets, &singles(&values), 1);
    for (target, found) in targets.iter().zip(&unscaled.targets) {
        let best = found.best_power.unwrap();
        assert!(best.sum_of_squared_errors <= found.sum_of_squared_errors, "{target}");
        let judged = |scale: f64| {
            let scaled: Vec<f64> =
                values.iter().map(|value| f64::from(*value as f32) * scale).collect();
            let codes: Vec<u128> = scaled.iter().map(|value| u128::from(value.to_bits())).collect();
            let stats = tally(Format::FP64, &[*target], &codes, 1);
            stats.targets[0].sum_of_squared_errors / scale / scale
        };
        let exact = judged(best.scale);
        let tolerance = if best.is_exact { 1e-9 } else { 0.02 };
        let off = best.sum_of_squared_errors / exact - 1.0;
        assert!(off.abs() < tolerance, "{target} {best:?} {exact}");
        let by_amax = found.by_amax.unwrap();
        let off = by_amax.sum_of_squared_errors / judged(by_amax.scale) - 1.0;
        assert!(off.abs() < 0.02, "{target} {by_amax:?}");
    }
}

/// Blocks as [`crate::block`] makes them of the same values.
#[track_caller]
fn check_blocks(source: Format, codes: &[u128], pieces: usize) {
    let names = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8"];
    let targets = names.map(|name| Target::parse(name).unwrap());
    let stats = tally(source, &targets, codes, pieces);
    let mut values: Vec<f32> =
        codes.iter().map(|code| codec::decode_f64(source, *code) as f32).collect();
    values.resize(values.len().next_multiple_of(32), 0.0);
    for (name, found) in names.into_iter().zip(&stats.targets) {
        let format = crate::block::parse(name).unwrap();
        let mut results = vec![0.0; values.len()];
        for (values, results) in values.chunks(32).zip(results.chunks_mut(32)) {
            let block = format.encode(values, crate::block::BlockRules::OCP).unwrap();
            format.decode(&block, 1.0, results).unwrap();
        }
        let (mut counts, mut squares, mut signal) = ([0; 4], Sum::new(), Sum::new());
        let (mut worst, mut relative) = (0.0f64, 0.0f64);
        for (value, result) in values.iter().zip(results).take(codes.len()) {
            let (value, result) = (f64::from(*value), f64::from(result));
            counts[0] += u64::from(value.is_finite() && value != result);
            counts[1] += u64::from(value.is_finite() && value != 0.0 && result == 0.0);
            counts[2] += u64::from(value.is_finite() && !result.is_finite());
            counts[3] += u64::from(value.is_infinite());
            if value.is_finite() && result.is_finite() {
                let error = (value - result).abs();
                squares.add(error * error);
                signal.add(value * value);
                worst = worst.max(error);
                relative = relative.max(if value == 0.0 { 0.0 } else { error / value.abs() });
            }
        }
        let found_counts = [found.changed, found.underflow, found.left_out, found.lost_specials];
        assert_eq!(found_counts, counts, "{source} {name}");
        let place = format!("{source} {name}");
        near(found.sum_of_squared_errors, squares.to_f64(), &place);
        near(found.sum_of_squares, signal.to_f64(), &place);
        near(found.max_abs_error, worst, &place);
        near(found.max_rel_error, relative, &place);
    }
}

#[test]
fn mx_blocks_are_those_of_the_block_formats() {
    for (scale, pieces) in [(0.02, 1), (3.0, 3), (1e-30, 2), (1e-37, 1)] {
        check_blocks(Format::FP32, &singles(&bell(3000, scale)), pieces);
    }
    // A decoded element may be beyond binary32 where the value is not.
    let mut seed = 11;
    let is_low = |code: &u128| code >> 23 & 0xff != 0xfe;
    let nasty: Vec<u128> = nasty().into_iter().filter(is_low).collect();
    check_blocks(Format::FP32, &nasty, 1);
    let shuffled: Vec<u128> =
        (0..4000).map(|_| nasty[random(&mut seed) as usize % nasty.len()]).collect();
    check_blocks(Format::FP32, &shuffled, 3);
    // Each block has another magnitude: more than there are tables.
    let steps = (0..240 * 32).map(|i| 1.37f64.powi(i % 32) * 2f64.powi(i / 32 - 126));
    let spread: Vec<f64> = steps.map(|value| value.min(1e38)).collect();
    check_blocks(Format::FP32, &singles(&spread), 2);
    for format in crate::ALL {
        if format.bits <= 16 && Tally::new(*format, &[]).is_some() {
            let mask = (1u64 << format.bits) - 1;
            let any = (0..3000).map(|_| u128::from(random(&mut seed) & mask)).collect::<Vec<_>>();
            check_blocks(*format, &any, 2);
        }
    }
    for format in [Format::BF16, Format::FP16] {
        let values = bell(9000, 0.02);
        let code = |value: &f64| codec::encode_f64(format, *value, Rules::SATURATING).code;
        check_blocks(format, &values.iter().map(code).collect::<Vec<_>>(), 3);
    }
}

#[test]
fn what_one_pass_cannot_judge_is_refused() {
    let refused = Target::parse("NVFP4").unwrap_err().to_string();
    assert!(refused.contains("tensor scale"), "{refused}");
    assert!(Target::parse("mxfp8").unwrap_err().to_string().contains("mxfp8_e5m2"));
}
