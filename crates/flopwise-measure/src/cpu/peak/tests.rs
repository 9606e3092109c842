//! Tests of the choice of kernels and of the kernels that this processor has.

use super::twin::Number;
use super::*;
use crate::bench::ElementFormat::{Bf16, Fp16, Fp32, Fp64, Int8, Int16};

const ALL_VALUES: [Values; 5] =
    [Values::Ordinary, Values::Zero, Values::Subnormal, Values::Infinite, Values::NotANumber];

fn loads(kernel: &PeakKernel) -> Vec<PeakLoad> {
    let plain = PeakLoad { isa: Some(kernel.isa), ..PeakLoad::of(kernel.format) };
    let chains = kernel.loops.iter().map(|chains| Some(chains.n_chains as u32));
    let mut loads: Vec<PeakLoad> = chains.map(|chains| PeakLoad { chains, ..plain }).collect();
    if kernel.add_mix.is_some() {
        loads.push(PeakLoad { mix: Mix::MultiplyAddAndAdd, ..plain });
    }
    if kernel.arithmetic.sum().is_float() {
        loads.extend(ALL_VALUES.map(|values| PeakLoad { values, ..plain }));
    }
    loads
}

#[test]
fn every_loop_equals_its_scalar_twin() {
    for kernel in available(features()) {
        for load in loads(&kernel) {
            let choice = choose(features(), load).unwrap();
            let mut built = load::build(choice).unwrap_or_else(|error| panic!("{load:?}: {error}"));
            for _ in 0..2 {
                built.make_ready();
                built.run(1000);
                assert!(built.is_correct(), "{load:?}");
            }
        }
    }
}

#[test]
fn a_loop_of_other_instructions_is_found_out() {
    let swaps = [
        (Arithmetic::Fused(Number::Fp64), Arithmetic::Split(Number::Fp64)),
        (Arithmetic::Fused(Number::Fp32), Arithmetic::Split(Number::Fp32)),
        (Arithmetic::Fused(Number::Fp16), Arithmetic::Split(Number::Fp16)),
        (Arithmetic::Split(Number::Fp64), Arithmetic::Fused(Number::Fp64)),
        (Arithmetic::Split(Number::Fp32), Arithmetic::Fused(Number::Fp32)),
        (Arithmetic::QuadMixedInt8, Arithmetic::QuadInt8),
        (Arithmetic::QuadSaturatingInt8, Arithmetic::QuadInt8),
    ];
    for kernel in available(features()) {
        let load = PeakLoad { isa: Some(kernel.isa), ..PeakLoad::of(kernel.format) };
        let mut choice = choose(features(), load).unwrap();
        let swap = swaps.iter().find(|(arithmetic, _)| *arithmetic == kernel.arithmetic);
        let Some((_, other)) = swap else { continue };
        choice.kernel.arithmetic = *other;
        let error = load::build(choice).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("differs from its scalar twin"), "{load:?}: {error}");
    }
}

#[test]
fn a_loop_that_leaves_a_chain_out_is_found_out() {
    let mut choice = choose(features(), PeakLoad::of(Fp32)).unwrap();
    choice.run = choice.kernel.loops[0].run;
    assert_eq!(load::build(choice).is_err(), choice.kernel.loops[0].n_chains < choice.n_chains);
}

#[test]
fn work_counts_two_per_multiply_add_and_one_per_addition() {
    let load = |mix, chains| PeakLoad { mix, chains, ..PeakLoad::of(Fp32) };
    let check = |choice: Choice, expected: u64| assert_eq!(choice.ops_per_pass(), expected);
    let portable = choose(&[], load(Mix::MultiplyAdd, None)).unwrap();
    check(portable, 32 * 2 * 4);
    #[cfg(target_arch = "x86_64")]
    {
        let features = ["avx2", "fma"];
        check(choose(&features, load(Mix::MultiplyAdd, Some(2))).unwrap(), 2 * 8 * 2 * 4);
        let mix = choose(&features, load(Mix::MultiplyAddAndAdd, None)).unwrap();
        check(mix, 7 * 8 * 3 * 4);
    }
}

#[test]
fn what_is_missing_is_said() {
    let check = |features: &[&str], load: PeakLoad, expected: &str| {
        let error = choose(features, load).map(|choice| choice.kernel.isa).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let plain = PeakLoad::of;
    check(&[], plain(Bf16), "this processor has no bf16 arithmetic of its own");
    let isa = Some("amx-int8");
    let tiles = PeakLoad { isa, ..plain(Int8) };
    check(&[], tiles, "this processor has no int8 kernel for amx-int8");
    let chains = Some(5);
    let odd = PeakLoad { chains, ..plain(Fp64) };
    check(&[], odd, "compiled multiplication and addition of f64 has no loop of 5 chains");
    let mixed = PeakLoad { mix: Mix::MultiplyAddAndAdd, ..plain(Fp32) };
    check(&[], mixed, "fp32 has no mix with additions here");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn integers_have_no_subnormals() {
    let load = |values| PeakLoad { values, ..PeakLoad::of(Int8) };
    assert!(choose(&["avx2"], load(Values::Zero)).is_ok());
    let error = choose(&["avx2"], load(Values::Subnormal)).unwrap_err();
    assert_eq!(error.to_string(), "int8 has no such values");
}

/// The kernel of each format on processors of all ages.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_fastest_kernel_is_the_first() {
    let check = |features: &[&str], expected: [Option<&str>; 6]| {
        let isas = ElementFormat::ALL.map(|format| {
            choose(features, PeakLoad::of(format)).ok().map(|kernel| kernel.kernel.isa)
        });
        assert_eq!(isas, expected, "{features:?}");
    };
    assert_eq!(ElementFormat::ALL, [Fp64, Fp32, Bf16, Fp16, Int8, Int16]);
    let portable = Some(portable::ISA);
    check(&[], [portable, portable, None, None, None, None]);
    let sse2 = Some("sse2");
    check(&["sse2"], [sse2, sse2, None, None, None, sse2]);
    let sandy_bridge = ["sse2", "avx"];
    check(&sandy_bridge, [Some("avx"), Some("avx"), None, None, None, sse2]);
    let zen_3 = ["sse2", "avx", "avx2", "fma"];
    let (fma, avx2) = (Some("avx2+fma"), Some("avx2"));
    check(&zen_3, [fma, fma, None, None, avx2, avx2]);
    let alder_lake = [zen_3.as_slice(), &["avxvnni"]].concat();
    let vnni = Some("avxvnni");
    check(&alder_lake, [fma, fma, None, None, vnni, vnni]);
    let skylake_x = [zen_3.as_slice(), &["avx512f", "avx512bw", "avx512vl"]].concat();
    let (f, bw) = (Some("avx512f"), Some("avx512bw"));
    check(&skylake_x, [f, f, None, None, bw, bw]);
    let zen_4 = [skylake_x.as_slice(), &["avx512bf16", "avx512vnni"]].concat();
    let vnni = Some("avx512vnni");
    check(&zen_4, [f, f, Some("avx512bf16"), None, vnni, vnni]);
    let sapphire_rapids = [zen_4.as_slice(), &["avx512fp16", "amx-bf16", "amx-int8"]].concat();
    let (bf16, int8) = (Some("amx-bf16"), Some("amx-int8"));
    check(&sapphire_rapids, [f, f, bf16, Some("avx512fp16"), int8, vnni]);
    let granite_rapids = [sapphire_rapids.as_slice(), &["amx-fp16"]].concat();
    check(&granite_rapids, [f, f, bf16, Some("amx-fp16"), int8, vnni]);
}

/// A name stands for one kernel of a format; every kernel has a chain alone, for its latency.
#[test]
fn kernels_are_told_apart_by_format_and_instruction_set() {
    let mut names = Vec::new();
    for kernel in available(features()) {
        names.push((kernel.format, kernel.isa));
        assert!(kernel.loops.is_sorted_by_key(|chains| chains.n_chains));
        let is_swept = kernel.isa != portable::ISA;
        assert_eq!(kernel.loops[0].n_chains == 1, is_swept, "{}", kernel.instruction);
    }
    let n_names = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n_names);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_floating_point_state_is_put_back() {
    use std::arch::asm;
    const FLUSH_TO_ZERO: u32 = 1 << 15;
    let choice =
        choose(features(), PeakLoad { values: Values::Subnormal, ..PeakLoad::of(Fp32) }).unwrap();
    let mut built = load::build(choice).unwrap();
    let mut state = 0u32;
    built.make_ready();
    // SAFETY: stores and loads the control word from `state`; no float is computed in Rust between
    // the two changes, and the second undoes the first.
    unsafe {
        asm!("stmxcsr [{0}]", in(reg) &raw mut state, options(nostack));
        let flushing = state | FLUSH_TO_ZERO;
        asm!("ldmxcsr [{0}]", in(reg) &raw const flushing, options(nostack));
    }
    let before = state | FLUSH_TO_ZERO;
    built.run(10);
    // SAFETY: as above.
    unsafe {
        let saved = state;
        asm!("stmxcsr [{0}]", in(reg) &raw mut state, options(nostack));
        asm!("ldmxcsr [{0}]", in(reg) &raw const saved, options(nostack));
    }
    assert_eq!(state, before);
    assert!(built.is_correct(), "subnormals were flushed");
}
