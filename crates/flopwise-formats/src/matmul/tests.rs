//! Whole multiplications against figures computed elsewhere, and against one another.

#![allow(clippy::float_cmp)] // what is emulated is exact

use super::*;
use crate::block::{self, ScaleRule};
use crate::format::Format;

const SEEDS: u64 = 4;

fn plain(format: Format) -> Storage {
    Storage::Plain { format, scaling: Scaling::None }
}

fn blocks(name: &str, rule: ScaleRule) -> Storage {
    Storage::Blocks { format: block::parse(name).unwrap(), rule }
}

pub(super) fn fused(format: Format) -> Accumulation {
    Accumulation {
        format,
        order: Order::Sequential,
        rounding: SumRounding::Nearest,
        products: Products::Exact,
        chunk: None,
    }
}

fn drawn(distribution: Distribution, seed: u64, shape: Shape) -> Operands {
    let source = || Source::Drawn(distribution);
    operands(shape, source(), source(), seed).unwrap()
}

/// 1024 outputs over the seeds.
const SQUARE: Shape = Shape { m: 16, n: 16, k: 4096 };

/// The root of the mean square over the seeds is near what was found elsewhere.
#[track_caller]
fn near(found: impl Fn(u64) -> f64, expected: f64, within: f64) {
    let squares: f64 = (0..SEEDS).map(|seed| found(seed).powi(2)).sum();
    let found = (squares / SEEDS as f64).sqrt();
    assert!((found / expected - 1.0).abs() < within, "{found:.3e} is not near {expected:.3e}");
}

fn input_error(storage: &Storage) -> impl Fn(u64) -> f64 {
    move |seed| {
        let operands = drawn(Distribution::Normal, seed, SQUARE);
        store(&operands, storage).unwrap().errors.unwrap().relative_rms.unwrap()
    }
}

/// Normal entries, 4096 products in an output: simulated with NumPy 2.4.6 and `ml_dtypes` 0.6.0 on
/// 160,000 outputs of other numbers (400 rows, 400 columns).
#[test]
fn input_formats_err_as_simulated_elsewhere() {
    let check = |storage: Storage, expected: f64| near(input_error(&storage), expected, 0.08);
    check(plain(Format::BF16), 2.350e-3);
    check(plain(Format::E4M3FN), 3.746e-2);
    check(plain(Format::E5M2), 7.455e-2);
    check(plain(Format::E2M1), 0.215);
    check(blocks("mxfp8_e4m3", ScaleRule::Floor), 4.163e-2);
    check(blocks("mxfp8_e4m3", ScaleRule::Rceil), 3.746e-2);
    check(blocks("mxfp6_e2m3", ScaleRule::Floor), 4.011e-2);
    check(blocks("mxfp6_e2m3", ScaleRule::Rceil), 4.000e-2);
    check(blocks("mxfp6_e3m2", ScaleRule::Floor), 7.609e-2);
    check(blocks("mxfp4", ScaleRule::Floor), 0.162);
    check(blocks("mxfp4", ScaleRule::Rceil), 0.163);
    check(blocks("mxfp4", ScaleRule::Ceil), 0.203);
    check(blocks("nvfp4", ScaleRule::Floor), 0.134);
}

fn accumulated(
    distribution: Distribution,
    accumulation: Accumulation,
) -> impl Fn(u64) -> Multiplied {
    move |seed| {
        let operands = drawn(distribution, seed, SQUARE);
        let stored = store(&operands, &plain(Format::FP16)).unwrap();
        multiply(&operands, &stored, &accumulation, seed).unwrap()
    }
}

fn relative(multiplied: &Multiplied) -> f64 {
    multiplied.accumulation.unwrap().relative_rms.unwrap()
}

/// FP16 entries, 4096 products in an output: simulated with NumPy on 2500 outputs of other numbers.
#[test]
fn accumulations_err_as_simulated_elsewhere() {
    let check = |accumulation: Accumulation, normal: f64, positive: f64| {
        let both = [(Distribution::Normal, normal), (Distribution::Positive, positive)];
        for (distribution, expected) in both {
            let multiplied = accumulated(distribution, accumulation);
            near(|seed| relative(&multiplied(seed)), expected, 0.1);
        }
    };
    let (fp16, bf16) = (fused(Format::FP16), fused(Format::BF16));
    let rounded = |accumulation| Accumulation { products: Products::Rounded, ..accumulation };
    check(fused(Format::FP32), 1.100e-6, 8.468e-7);
    check(fused(Format::TF32), 9.256e-3, 7.300e-2);
    check(fp16, 9.256e-3, 7.300e-2);
    check(rounded(fp16), 9.151e-3, 7.304e-2);
    check(bf16, 7.414e-2, 7.502e-1);
    let kahan = Accumulation { order: Order::Kahan, ..fp16 };
    check(kahan, 2.965e-4, 2.220e-4);
    check(rounded(kahan), 3.625e-4, 2.221e-4);
    let pairwise = |format| Accumulation { order: Order::Pairwise, ..fused(format) };
    check(pairwise(Format::FP16), 8.167e-4, 3.495e-4);
    check(pairwise(Format::BF16), 6.356e-3, 2.838e-3);
    let chunked = |length, accumulation| Accumulation {
        chunk: Some(Chunk { length, format: Format::FP32 }),
        ..accumulation
    };
    check(chunked(32, fp16), 8.489e-4, 6.315e-5);
    check(chunked(32, rounded(fp16)), 8.899e-4, 6.359e-5);
    let stochastic = SumRounding::Stochastic { n_bits: 16 };
    check(Accumulation { rounding: stochastic, ..bf16 }, 9.951e-2, 4.686e-2);
    // What Hopper's tensor cores keep of FP8 products, about 14 bits.
    let hopper = fused(crate::parse("fp(8,13)").unwrap());
    let hopper = Accumulation { rounding: SumRounding::TowardZero, ..hopper };
    check(hopper, 9.677e-2, 7.756e-2);
    check(chunked(128, hopper), 3.256e-3, 2.717e-3);
}

/// Where roundings do not depend on one another, the error is the expected one; a bound is above.
#[test]
fn theory_stands_beside_the_measured_error() {
    let fp16 = fused(Format::FP16);
    let chunk = Some(Chunk { length: 64, format: Format::FP32 });
    let cases = [
        fused(Format::FP32),
        fp16,
        Accumulation { products: Products::Rounded, ..fp16 },
        Accumulation { order: Order::Pairwise, ..fp16 },
        Accumulation { order: Order::Kahan, ..fp16 },
        Accumulation { chunk, ..fp16 },
        Accumulation { rounding: SumRounding::Stochastic { n_bits: 12 }, ..fp16 },
        Accumulation { rounding: SumRounding::TowardZero, ..fused(Format::FP32) },
    ];
    for accumulation in cases {
        let multiplied = accumulated(Distribution::Normal, accumulation)(1);
        let (found, theory) = (relative(&multiplied), multiplied.theory);
        if let Some(expected) = theory.expected {
            let ratio = found / expected;
            assert!(0.7 < ratio && ratio < 1.3, "{accumulation:?}: {found} and {expected}");
        }
        for bound in [theory.probable, theory.certain].into_iter().flatten() {
            assert!(found < bound, "{accumulation:?}: {found} and {bound}");
        }
    }
}

/// A sum of 65,536 numbers from [0, 1), near 32,768, stays at 256 in BF16 from where an addend
/// below 1 is less than half an ulp.
#[test]
fn sums_of_positive_numbers_stall() {
    let shape = Shape { m: 16, n: 1, k: 65_536 };
    let ones = Source::Drawn(Distribution::Ones);
    let operands = operands(shape, Source::Drawn(Distribution::Positive), ones, 3).unwrap();
    let stored = store(&operands, &plain(Format::FP32)).unwrap();
    for exact in operands.exact() {
        assert!((exact / 32_768.0 - 1.0).abs() < 0.02);
    }
    let bf16 = multiply(&operands, &stored, &fused(Format::BF16), 3).unwrap();
    assert!(bf16.values.iter().all(|value| *value == 256.0), "{:?}", bf16.values);
    assert!(60_000 * 16 < bf16.n_stalls);
    assert!(bf16.total.unwrap().drift.unwrap() < -0.99);
    // 16 runs elsewhere: 32,704 give or take 2,073.
    let stochastic = SumRounding::Stochastic { n_bits: 16 };
    let stochastic = Accumulation { rounding: stochastic, ..fused(Format::BF16) };
    let multiplied = multiply(&operands, &stored, &stochastic, 3).unwrap();
    let mean = multiplied.values.iter().sum::<f64>() / 16.0;
    assert!((mean - 32_768.0).abs() < 2_000.0, "{mean}");
}

#[test]
fn the_parts_add_up_and_exact_formats_have_none() {
    let operands = drawn(Distribution::Normal, 9, Shape { m: 5, n: 7, k: 300 });
    let exact = store(&operands, &plain(Format::FP32)).unwrap();
    assert_eq!(exact.errors.unwrap().relative_rms, Some(0.0));
    let fp64 = multiply(&operands, &exact, &fused(Format::FP64), 0).unwrap();
    let error = relative(&fp64);
    assert!(0.0 < error && error < 1e-15, "{error}");
    let stored = store(&operands, &plain(Format::E4M3FN)).unwrap();
    // Sums of products of 4-bit significands fit binary64.
    let fp64 = multiply(&operands, &stored, &fused(Format::FP64), 0).unwrap();
    assert_eq!(relative(&fp64), 0.0);
    assert_eq!(fp64.total, stored.errors);
    let fp16 = multiply(&operands, &stored, &fused(Format::FP16), 0).unwrap();
    let mean = |errors: Option<Errors>| errors.unwrap().mean;
    let sum = mean(stored.errors) + mean(fp16.accumulation);
    assert!((mean(fp16.total) - sum).abs() < 1e-12);
}

#[test]
fn overflow_is_counted_and_left_out() {
    let a = Source::Values(vec![300.0, 300.0, 1.0, 1.0]);
    let b = Source::Values(vec![300.0, 1.0]);
    let operands = operands(Shape { m: 2, n: 1, k: 2 }, a, b, 0).unwrap();
    assert_eq!(operands.exact(), [90_300.0, 301.0]);
    let stored = store(&operands, &plain(Format::FP16)).unwrap();
    let fp16 = multiply(&operands, &stored, &fused(Format::FP16), 0).unwrap();
    assert_eq!((fp16.n_overflowed, fp16.values[1]), (1, 301.0));
    assert_eq!(fp16.total.unwrap().max, 0.0);
    // E4M3FN has no infinity, but a NaN.
    let fp8 = multiply(&operands, &stored, &fused(Format::E4M3FN), 0).unwrap();
    assert_eq!(fp8.n_overflowed, 1);
    assert!(fp8.values[0].is_nan());
    assert_eq!(fp8.values[1], 288.0);
}

#[test]
fn scaling_uses_the_whole_range() {
    let shape = Shape { m: 2, n: 1, k: 2 };
    let a = Source::Values(vec![1000.0, 1.0, 4.0, 0.01]);
    let operands = operands(shape, a, Source::Values(vec![1.0, 1.0]), 0).unwrap();
    let saturated = |scaling| {
        let storage = Storage::Plain { format: Format::E4M3FN, scaling };
        let stored = store(&operands, &storage).unwrap();
        (stored.n_saturated, stored.errors.unwrap().relative_rms.unwrap())
    };
    assert_eq!(saturated(Scaling::None).0, Some(1));
    assert!(saturated(Scaling::Tensor).1 < 0.03);
    assert!(saturated(Scaling::Row).1 < saturated(Scaling::Tensor).1);
    assert_eq!(saturated(Scaling::Row).0, Some(0));
    let int8 = Storage::Plain { format: Format::INT8, scaling: Scaling::Row };
    let stored = store(&operands, &int8).unwrap();
    // 1 of 1000 and 0.01 of 4 are below half a step of 1/127.
    assert_eq!(stored.n_to_zero, 2);
    assert!(
        store(&operands, &Storage::Plain { format: Format::NF4, scaling: Scaling::Row }).is_ok()
    );
}

#[test]
fn choices_print_as_they_read() {
    let check = |storage: Storage, expected: &str| assert_eq!(storage.to_string(), expected);
    check(plain(Format::E4M3FN), "e4m3fn");
    check(Storage::Plain { format: Format::INT8, scaling: Scaling::Row }, "int8/row");
    check(blocks("mxfp4", ScaleRule::Rceil), "mxfp4/rceil");
    check(blocks("nvfp4", ScaleRule::Rceil), "nvfp4");
    let check = |accumulation: Accumulation, expected: &str| {
        assert_eq!(accumulation.to_string(), expected);
    };
    let fp16 = fused(Format::FP16);
    check(fp16, "fp16");
    let chunk = Some(Chunk { length: 32, format: Format::FP32 });
    let rounding = SumRounding::Stochastic { n_bits: 8 };
    let (order, products) = (Order::Kahan, Products::Rounded);
    let all = Accumulation { chunk, rounding, order, products, ..fp16 };
    check(all, "fp16 kahan, stochastic 8 bits, products rounded, by 32 in fp32");
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let run = |seed| {
        let operands = drawn(Distribution::StudentT, seed, Shape { m: 3, n: 3, k: 100 });
        let stored = store(&operands, &blocks("mxfp4", ScaleRule::Floor)).unwrap();
        let rounding = SumRounding::Stochastic { n_bits: 8 };
        let accumulation = Accumulation { rounding, ..fused(Format::BF16) };
        multiply(&operands, &stored, &accumulation, seed).unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn what_is_refused() {
    let check = |shape: Shape, a: Source, said: &str| {
        let refused = operands(shape, a, Source::Drawn(Distribution::Ones), 0).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
    };
    let ones = || Source::Drawn(Distribution::Ones);
    let shape = Shape { m: 1, n: 1, k: 2 };
    check(Shape { m: 0, ..shape }, ones(), "each must be at least 1");
    check(Shape { k: usize::MAX, ..shape }, ones(), "entries of A and B");
    check(Shape { m: 1 << 10, n: 1 << 10, k: 1 }, ones(), "outputs");
    check(Shape { m: 512, n: 512, k: 1 << 14 }, ones(), "products");
    check(shape, Source::Values(vec![1.0]), "A has 1 values, not 1 x 2");
    check(shape, Source::Values(vec![1.0, f32::NAN]), "value 1 of A is NaN");
    let operands = operands(shape, ones(), ones(), 0).unwrap();
    for format in [Format::UINT8, Format::BOOL, Format::E8M0, Format::TEXT] {
        let refused = store(&operands, &plain(format)).unwrap_err();
        assert!(refused.to_string().contains("cannot hold the entries"), "{refused}");
    }
}
