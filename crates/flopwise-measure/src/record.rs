//! Results of experiments, written into the profile: rates, and what is left out and why.
//!
//! Not here: what several results together say (`findings.rs`).

use crate::bench::{
    ElementFormat, Experiment, GemmLoad, Library, Load, Mix, PeakLoad, Place, Setup, Slice,
    StreamLoad, Values,
};
use crate::sample::{Triple, drop_shared, per_cycle, sampled, sampled_by_processor};
use flopwise::machine::{
    CacheState, ComputeKind, ComputeRate, Latency, MemoryLevel, MemoryRate, Profile, Sampled,
    Stores, TimedBy,
};
use flopwise::units::Hertz;

/// With fewer undisturbed samples a product is timed by its time on the processor.
const FEW_CLEAN: u32 = 5;
/// Above this share of slices lost to others on the core a note says so.
const MANY_SHARED: f64 = 0.25;

/// The slices of one experiment.
pub(crate) struct Series {
    pub(crate) setup: Setup,
    pub(crate) triples: Vec<Triple>,
}

/// Writes one experiment's result into the profile, or a note why there is none.
pub(crate) fn add(profile: &mut Profile, experiment: &Experiment, mut series: Series) {
    let n_shared = match experiment.load {
        Load::Peak(_) => drop_shared(&mut series.triples),
        Load::Gemm(_) | Load::Stream(_) | Load::Chase(_) => 0,
    };
    let loads: Vec<Slice> = series.triples.iter().map(|triple| triple.load).collect();
    let clocks: Vec<Slice> = series.triples.iter().filter_map(|triple| triple.after).collect();
    if let (None, Some(clock)) = (profile.machine.clock_hz, sampled(&clocks)) {
        let hertz = clock.median / f64::from(experiment.n_threads);
        profile.machine.clock_hz = Some(Hertz(hertz));
    }
    let undisturbed = sampled(&loads);
    let few = undisturbed.is_none_or(|rate| rate.samples < FEW_CLEAN);
    let by_processor = match experiment.load {
        Load::Gemm(_) if few => sampled_by_processor(&loads),
        Load::Gemm(_) | Load::Peak(_) | Load::Stream(_) | Load::Chase(_) => None,
    };
    let timed_by = if by_processor.is_some() { TimedBy::Processor } else { TimedBy::Wall };
    let Some(rate) = by_processor.or(undisturbed) else {
        let step = label(experiment);
        let taken = loads.len();
        profile.notes.push(format!(
            "{step}: left out: none of {taken} samples was undisturbed; \
             other work holds the processors, try again when it has ended"
        ));
        return;
    };
    let shared = n_shared as f64 / loads.len() as f64;
    if MANY_SHARED < shared {
        profile.notes.push(format!(
            "{}: {n_shared} of {} samples ran below 95 % of the best and were left out: others on \
             the same cores, whom this system does not see, or an unsteady clock",
            label(experiment),
            loads.len()
        ));
    }
    push(profile, experiment, &series, (rate, timed_by));
}

fn push(
    profile: &mut Profile,
    experiment: &Experiment,
    series: &Series,
    (rate, timed_by): (Sampled, TimedBy),
) {
    // Beside a disturbed product there is no clock that ran at the same time.
    let per_cycle = per_cycle(&series.triples).filter(|_| timed_by == TimedBy::Wall);
    let compute = |format: ElementFormat, kind, shape| ComputeRate {
        format: format.name().to_owned(),
        kind,
        backend: series.setup.backend.clone(),
        threads: experiment.n_threads,
        shape,
        instruction: series.setup.instruction.clone(),
        chains: series.setup.chains,
        cache: None,
        padding: None,
        timed_by,
        flops_per_s: rate,
        fraction_of_peak: None,
        fraction_of_roofline: None,
        flops_per_cycle: per_cycle,
    };
    let array_bytes = series.setup.array_bytes.unwrap_or_default();
    match experiment.load {
        Load::Peak(peak) => {
            let kind = match peak.mix {
                Mix::MultiplyAdd => ComputeKind::Peak,
                Mix::MultiplyAddAndAdd => ComputeKind::FmaAdd,
            };
            profile.compute.push(compute(peak.format, kind, None));
        }
        Load::Gemm(gemm) => profile.compute.push(ComputeRate {
            cache: Some(gemm.cache),
            padding: Some(gemm.padding),
            ..compute(gemm.format, ComputeKind::Gemm, Some(gemm.shape))
        }),
        Load::Stream(stream) => profile.memory.push(MemoryRate {
            level: level(stream.place),
            op: stream.op,
            threads: experiment.n_threads,
            array_bytes,
            stores: stream.stores,
            bytes_per_s: rate,
            bytes_per_cycle: per_cycle,
            range: None,
        }),
        Load::Chase(place) => profile.latency.push(Latency {
            level: level(place),
            array_bytes,
            loads_per_s: rate,
            cycles: per_cycle.map(f64::recip),
        }),
    }
}

/// The level that a place is; arrays of a given size may lie in several, and count as main memory.
fn level(place: Place) -> MemoryLevel {
    match place {
        Place::Level(level) => level,
        Place::Bytes(_) => MemoryLevel::Dram,
    }
}

/// An experiment in words: `fp32 peak, 2 threads`.
pub(crate) fn label(experiment: &Experiment) -> String {
    let load = match experiment.load {
        Load::Peak(peak) => peak_label(peak),
        Load::Gemm(gemm) => gemm_label(gemm),
        Load::Stream(StreamLoad { op, place, stores }) => {
            let past = if stores == Stores::NonTemporal { ", stores past the caches" } else { "" };
            format!("{} {}{past}", place_label(place), op.name())
        }
        Load::Chase(place) => format!("{} latency", place_label(place)),
    };
    let plural = if experiment.n_threads == 1 { "" } else { "s" };
    format!("{load}, {} thread{plural}", experiment.n_threads)
}

/// Experiments that take turns, in words: `fp32 GEMM 512x512x512, 1 thread, 3 libraries in turn`.
pub(crate) fn label_of_rivals<'a>(rivals: impl ExactSizeIterator<Item = &'a Experiment>) -> String {
    let n_rivals = rivals.len();
    let first = rivals.into_iter().next().map(label).unwrap_or_default();
    format!("{first}, {n_rivals} libraries in turn")
}

fn peak_label(peak: PeakLoad) -> String {
    let what = match (peak.mix, peak.values) {
        (Mix::MultiplyAddAndAdd, _) => " multiply-adds and additions",
        (Mix::MultiplyAdd, Values::Ordinary) => " peak",
        (Mix::MultiplyAdd, Values::Zero) => " peak on zeros",
        (Mix::MultiplyAdd, Values::Subnormal) => " peak on subnormals",
        (Mix::MultiplyAdd, Values::Infinite) => " peak on infinities",
        (Mix::MultiplyAdd, Values::NotANumber) => " peak on NaN",
    };
    let chains = match peak.chains {
        Some(1) => " in 1 chain".to_owned(),
        Some(chains) => format!(" in {chains} chains"),
        None => String::new(),
    };
    format!("{}{what}{chains}", peak.format.name())
}

fn gemm_label(gemm: GemmLoad) -> String {
    let GemmLoad { format, shape: [m, n, k], library, cache, padding } = gemm;
    let cold = if cache == CacheState::Cold { " cold" } else { "" };
    let padded = if 0 < padding { format!(" padded by {padding}") } else { String::new() };
    let by = match library {
        Library::BuiltIn => String::new(),
        other @ (Library::OpenBlas
        | Library::Blis
        | Library::Mkl
        | Library::OneDnn
        | Library::Accelerate) => format!(" by {}", other.name()),
    };
    format!("{} GEMM {m}x{n}x{k}{cold}{padded}{by}", format.name())
}

fn place_label(place: Place) -> String {
    match place {
        Place::Level(MemoryLevel::Dram) => "memory".to_owned(),
        Place::Level(level) => format!("{level:?}"),
        Place::Bytes(bytes) if bytes < 1 << 20 => format!("{} KiB", bytes >> 10),
        Place::Bytes(bytes) => format!("{} MiB", bytes >> 20),
    }
}
