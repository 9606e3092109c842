//! A made-up machine of round numbers, what is asked of it, and what no machine can be.

use super::*;
use crate::units::Hertz;

pub(crate) fn sampled(median: f64) -> Sampled {
    let interval = [0.98 * median, 1.02 * median];
    Sampled { median, best: median, samples: 9, taken: 10, spread: 0.01, interval }
}

pub(crate) fn rate(format: &str, kind: ComputeKind, threads: u32, median: f64) -> ComputeRate {
    ComputeRate {
        format: format.to_owned(),
        kind,
        backend: "flopwise".to_owned(),
        threads,
        shape: None,
        instruction: None,
        chains: None,
        cache: None,
        padding: None,
        timed_by: TimedBy::Wall,
        flops_per_s: sampled(median),
        fraction_of_peak: None,
        fraction_of_roofline: None,
        flops_per_cycle: None,
    }
}

pub(crate) fn gemm(format: &str, shape: [u64; 3], threads: u32, median: f64) -> ComputeRate {
    let cache = Some(CacheState::Hot);
    let padding = Some(0);
    ComputeRate {
        shape: Some(shape),
        cache,
        padding,
        ..rate(format, ComputeKind::Gemm, threads, median)
    }
}

pub(crate) fn memory(level: MemoryLevel, op: MemoryOp, threads: u32, median: f64) -> MemoryRate {
    MemoryRate {
        level,
        op,
        threads,
        array_bytes: 1 << 20,
        stores: Stores::Plain,
        bytes_per_s: sampled(median),
        bytes_per_cycle: None,
        range: None,
    }
}

fn host() -> Host {
    let cache = |level, os_bytes| Cache {
        level,
        os_bytes: Some(os_bytes),
        measured_bytes: Some(os_bytes),
        shared_by: Some(1),
    };
    Host {
        name: "round".to_owned(),
        cpu: "Round CPU".to_owned(),
        logical_cpus: 2,
        clock_hz: Some(Hertz(4e9)),
        os_clock_hz: Some(Hertz(3e9)),
        isa: "avx512f".to_owned(),
        memory_bytes: Some(16 << 30),
        caches: vec![cache(MemoryLevel::L1, 32 << 10), cache(MemoryLevel::L2, 1 << 20)],
        numa_nodes: Some(1),
        libraries: vec![
            LibraryFound { name: "flopwise".to_owned(), version: "0.1.0".to_owned(), path: None },
            LibraryFound {
                name: "openblas".to_owned(),
                version: "0.3.21 Cooperlake".to_owned(),
                path: Some("/usr/lib/libopenblas.so.0".to_owned()),
            },
        ],
        os: "linux x86_64".to_owned(),
        measured_at: "2026-11-24T00:00:00Z".to_owned(),
        flopwise_version: "0.1.0".to_owned(),
    }
}

/// Two cores of 4 GHz: fp32 32 and int8 128 operations a cycle; 8 products, 4 levels of memory.
pub(crate) fn round() -> Profile {
    let peak = |format: &str, threads: u32, per_cycle: f64| ComputeRate {
        backend: "asm-avx512".to_owned(),
        instruction: Some("vfma zmm".to_owned()),
        chains: Some(12),
        flops_per_cycle: Some(per_cycle * 1.003),
        ..rate(format, ComputeKind::Peak, threads, 4e9 * per_cycle * f64::from(threads))
    };
    let shares = |share: f64, gemm: ComputeRate| ComputeRate {
        fraction_of_peak: Some(share),
        fraction_of_roofline: Some(share),
        ..gemm
    };
    let mut compute = vec![
        peak("fp32", 1, 32.0),
        peak("fp32", 2, 32.0),
        peak("int8", 1, 128.0),
        peak("int8", 2, 128.0),
        ComputeRate { flops_per_cycle: Some(40.0), ..rate("fp32", ComputeKind::FmaAdd, 1, 160e9) },
        shares(0.75, gemm("fp32", [512, 512, 512], 2, 192e9)),
        shares(0.5, gemm("fp32", [1024, 1024, 1024], 2, 128e9)),
        shares(0.875, gemm("fp32", [1024, 1024, 1024], 2, 224e9)),
        shares(0.5, gemm("int8", [1024, 1024, 1024], 2, 512e9)),
    ];
    compute[7].backend = "openblas".to_owned();
    let each = [(MemoryLevel::L1, 480e9), (MemoryLevel::L2, 240e9), (MemoryLevel::L3, 200e9)];
    let mut rates: Vec<MemoryRate> = each
        .into_iter()
        .map(|(level, rate)| MemoryRate {
            bytes_per_cycle: Some(rate / 8e9),
            ..memory(level, MemoryOp::Read, 2, rate)
        })
        .collect();
    rates.push(memory(MemoryLevel::Dram, MemoryOp::Read, 1, 32e9));
    let range = Some([50e9, 66e9]);
    rates.push(MemoryRate { range, ..memory(MemoryLevel::Dram, MemoryOp::Read, 2, 64e9) });
    rates.push(memory(MemoryLevel::Dram, MemoryOp::Copy, 2, 48e9));
    let past = Stores::NonTemporal;
    rates.push(MemoryRate { stores: past, ..memory(MemoryLevel::Dram, MemoryOp::Copy, 2, 72e9) });
    Profile {
        schema: SCHEMA,
        kind: "measure".to_owned(),
        machine: host(),
        compute,
        memory: rates,
        latency: vec![Latency {
            level: MemoryLevel::L1,
            array_bytes: 16 << 10,
            loads_per_s: sampled(1e9),
            cycles: Some(4.0),
        }],
        probes: vec![Probe {
            name: "fp32 multiply-add of subnormals".to_owned(),
            value: 1.0,
            unit: "x".to_owned(),
            meaning: "as fast as ordinary numbers".to_owned(),
        }],
        notes: vec!["a busy neighbour".to_owned()],
    }
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-12, "{found} is not {expected}");
}

#[test]
fn rates_are_found() {
    let profile = round();
    assert_eq!(profile.formats(), ["fp32", "int8"]);
    assert_eq!(profile.peak("fp32").unwrap().to_string(), "256 GFLOP/s");
    close(profile.peak_at("int8", 1).unwrap().flops_per_s.median, 512e9);
    assert_eq!(profile.peak("bf16"), None);
    let best = profile.best_gemm("fp32", [1024; 3]).unwrap();
    assert_eq!(best.backend, "openblas");
    close(best.flops_per_s.median, 224e9);
    assert_eq!(profile.best_gemm("fp32", [1, 2, 3]), None);
    assert_eq!(profile.best_gemms("fp32").len(), 2);
    let copy = |stores| profile.memory_rate(MemoryLevel::Dram, MemoryOp::Copy, stores);
    close(copy(Stores::Plain).unwrap().bytes_per_s.median, 48e9);
    close(copy(Stores::NonTemporal).unwrap().bytes_per_s.median, 72e9);
    let mut with_small = profile.clone();
    let small =
        MemoryRate { array_bytes: 1 << 14, ..memory(MemoryLevel::Dram, MemoryOp::Read, 2, 99e9) };
    with_small.memory.push(small);
    assert_eq!(with_small.dram_read(), profile.dram_read());
    assert_eq!(profile.latency_of(MemoryLevel::L1).unwrap().cycles, Some(4.0));
    assert_eq!(profile.latency_of(MemoryLevel::L2), None);
}

/// 256 and 1024 Gop/s over 480, 240, 200 and 64 GB/s.
#[test]
fn roofs_meet_slopes() {
    let ridges = round().ridge_points();
    let found: Vec<String> = ridges
        .iter()
        .map(|ridge| format!("{} {} {}", ridge.format, ridge.level.name(), ridge.intensity))
        .collect();
    let expected = [
        "fp32 L1 0.5333 FLOP/B",
        "fp32 L2 1.067 FLOP/B",
        "fp32 L3 1.28 FLOP/B",
        "fp32 DRAM 4 FLOP/B",
        "int8 L1 2.133 FLOP/B",
        "int8 L2 4.267 FLOP/B",
        "int8 L3 5.12 FLOP/B",
        "int8 DRAM 16 FLOP/B",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_cold_or_padded_is_not_what_a_model_has() {
    let mut profile = round();
    profile.compute[7].cache = Some(CacheState::Cold);
    close(profile.best_gemm("fp32", [1024; 3]).unwrap().flops_per_s.median, 128e9);
    profile.compute[6].padding = Some(16);
    assert_eq!(profile.best_gemm("fp32", [1024; 3]), None);
}

#[test]
fn profiles_are_read_back_from_json_and_toml() {
    let profile = round();
    assert_eq!(Profile::from_text(&profile.to_json()).unwrap(), profile);
    assert_eq!(Profile::from_text(&profile.to_toml()).unwrap(), profile);
    let found = |text: &str| Profile::from_text(text).unwrap_err().to_string();
    assert!(found("").starts_with("not a machine profile"));
    assert!(found("dear diary").starts_with("not a machine profile"));
    assert_eq!(found("dear diary").lines().count(), 1);
    assert!(found("kind = \"measure\"\nschema = 1").contains("run `flopwise measure` again"));
    assert!(found(r#"{"kind": "measure", "schema": 1}"#).contains("schema 1"));
    assert!(found(r#"{"kind": "count", "schema": 2}"#).contains("its kind is `count`"));
}

#[test]
fn no_machine_has_these_numbers() {
    let check = |spoil: fn(&mut Profile), expected: &str| {
        let mut profile = round();
        spoil(&mut profile);
        let found = Profile::from_toml(&profile.to_toml()).unwrap_err().to_string();
        assert!(found.contains(expected), "{found}");
        assert!(found.ends_with("run `flopwise measure` again"), "{found}");
    };
    check(|p| p.compute[0].flops_per_s.median = -1.0, "the median -1 of `fp32 asm-avx512`");
    check(|p| p.compute[0].flops_per_s.best = f64::INFINITY, "the best inf");
    check(|p| p.compute[0].flops_per_s.interval = [2.0, 1.0], "interval from 2 to 1");
    check(|p| p.compute[0].flops_per_s.samples = 11, "11 samples kept of 10 taken");
    check(|p| p.compute[0].flops_per_s.spread = f64::NAN, "the spread NaN");
    check(|p| p.compute[0].flops_per_cycle = Some(0.0), "flops_per_cycle 0");
    check(|p| p.compute[0].threads = 0, "threads 0");
    check(|p| p.compute[0].chains = Some(0), "chains 0");
    check(|p| p.compute[5].shape = Some([1, 0, 1]), "a length of the shape 0");
    check(|p| p.compute[5].fraction_of_peak = Some(-0.1), "fraction_of_peak -0.1");
    check(|p| p.compute[5].fraction_of_roofline = Some(f64::NAN), "fraction_of_roofline NaN");
    check(|p| p.memory[0].bytes_per_cycle = Some(-1.0), "bytes_per_cycle -1 of `L1 read`");
    check(|p| p.memory[0].range = Some([3.0, 2.0]), "range from 3 to 2");
    check(|p| p.latency[0].cycles = Some(0.0), "cycles 0 of `L1 latency`");
    check(|p| p.latency[0].loads_per_s.median = 0.0, "the median 0 of `L1 latency`");
    check(|p| p.probes[0].value = f64::NAN, "the value NaN of the probe");
    check(|p| p.machine.clock_hz = Some(Hertz(0.0)), "the measured clock 0");
    check(|p| p.machine.caches[1].measured_bytes = Some(0), "measured_bytes 0 of the L2 cache");
}
