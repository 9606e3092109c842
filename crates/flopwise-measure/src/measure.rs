//! The measurement: each experiment of a plan on a machine, gathered into a profile.
//!
//! Not here: how a machine runs a load (`cpu/`, `mock.rs`) and what a median is (`sample.rs`).
//! Time is taken from the slices, so a mock machine makes the whole run exact.

use crate::bench::{
    Bench, ElementFormat, Experiment, GemmLoad, Load, Outcome, PeakLoad, Place, Setup, Slice,
    StreamLoad, Unmeasurable,
};
use crate::plan::{Plan, Threads};
use crate::sample::{Triple, drop_shared, per_cycle, sampled};
use flopwise::machine::{
    ComputeKind, ComputeRate, Host, Latency, MemoryLevel, MemoryRate, Profile, SCHEMA, Sampled,
    Stores,
};
use flopwise::units::{FlopsPerSec, Hertz};

/// No experiment takes more slices, whatever its machine says about time.
const MAX_SLICES: usize = 20_000;
/// Times its budget that an experiment may use while it has too few undisturbed slices.
const PATIENCE: f64 = 1.5;
/// Below this share of undisturbed slices a note says so.
const FEW_KEPT: f64 = 0.3;
/// Two FLOP-per-cycle figures further apart than this mean shared multipliers: hyper-threads
/// sharing a core give 0.5, separate cores 1.
const SHARED_CORE: f64 = 0.75;
/// Second looks at a peak that no core has.
const MAX_LOOKS: u32 = 3;
/// A peak within this of a power of two per cycle is one.
const POWER_TOLERANCE: f64 = 0.03;
/// A second look replaces the first if it is higher by more than noise.
const BETTER_MOMENT: f64 = 0.95;
/// Above this share of slices lost to others on the core a note says so.
const MANY_SHARED: f64 = 0.25;
/// An operating system's clock further off than this is worth a note.
const CLOCK_TOLERANCE: f64 = 0.05;

/// How far a measurement is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is being measured: `fp32 peak, 2 threads`.
    pub step: String,
    /// Share of the whole plan that is done, 0 to 1.
    pub fraction: f64,
}

/// Measures `machine` as `plan` says.
///
/// Always answers: what could not be had is missing from the profile and named in its notes.
///
/// ```
/// use flopwise::machine::ComputeKind;
/// use flopwise_measure::{Mock, Plan, measure};
///
/// let plan = Plan::quick("2026-11-23T13:38:00Z".to_owned());
/// let mut steps = Vec::new();
/// let profile = measure(&mut Mock::default(), &plan, &mut |progress| steps.push(progress.step));
/// assert_eq!(steps[0], "fp32 peak, 1 thread");
/// let peak = profile.compute_rate("fp32", ComputeKind::Peak).unwrap();
/// assert_eq!(peak.flops_per_cycle, Some(32.0));
/// ```
pub fn measure(
    machine: &mut dyn Bench,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Profile {
    let host = Host { measured_at: plan.measured_at.clone(), ..machine.host() };
    let experiments = experiments(plan, host.logical_cpus.max(1));
    let mut profile = Profile {
        schema: SCHEMA,
        kind: "measure".to_owned(),
        machine: host,
        compute: Vec::new(),
        memory: Vec::new(),
        latency: Vec::new(),
        probes: Vec::new(),
        notes: machine.caveats(),
    };
    for (step_idx, experiment) in experiments.iter().enumerate() {
        let step = label(experiment);
        let mut report = |share: f64| {
            let fraction = (step_idx as f64 + share) / experiments.len() as f64;
            progress(Progress { step: step.clone(), fraction });
        };
        match run(machine, experiment, plan, &mut report) {
            Ok(series) => add(&mut profile, experiment, series),
            Err(reason) => profile.notes.push(format!("{step}: left out: {reason}")),
        }
    }
    for experiment in &experiments {
        for _ in 0..MAX_LOOKS {
            if is_plausible(&profile, experiment) {
                break;
            }
            look_again(machine, experiment, plan, &mut profile);
        }
    }
    relate_to_peaks(&mut profile);
    note_doubts(&mut profile);
    profile
}

/// Whether a peak is one that cores have: a power of two per cycle on one thread (lanes x units x
/// 2), and on several not much less each than on one.
fn is_plausible(profile: &Profile, experiment: &Experiment) -> bool {
    let Load::Peak(PeakLoad { format, .. }) = experiment.load else { return true };
    let per_cycle = |n_threads: u32| {
        let peaks = profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak);
        let mut matching = peaks.filter(|rate| rate.format == format.name());
        matching.find(|rate| rate.threads == n_threads)?.flops_per_cycle
    };
    let Some(each) = per_cycle(experiment.n_threads) else { return true };
    match per_cycle(1) {
        Some(alone) if experiment.n_threads != 1 => SHARED_CORE <= each / alone,
        _ => (each / each.log2().round().exp2() - 1.0).abs() < POWER_TOLERANCE,
    }
}

/// A hypervisor may let others onto a core for a second, unseen by any counter of the guest. A
/// look at another moment tells that from cores that are always shared.
fn look_again(
    machine: &mut dyn Bench,
    experiment: &Experiment,
    plan: &Plan,
    profile: &mut Profile,
) {
    let Ok(series) = run(machine, experiment, plan, &mut |_share| ()) else { return };
    let mut second = Profile { compute: Vec::new(), notes: Vec::new(), ..profile.clone() };
    add(&mut second, experiment, series);
    let Some(second) = second.compute.pop() else { return };
    let is_same = |rate: &&mut ComputeRate| {
        rate.kind == second.kind && rate.threads == second.threads && rate.format == second.format
    };
    let Some(first) = profile.compute.iter_mut().find(is_same) else { return };
    let (before, after) = (first.flops_per_s.median, second.flops_per_s.median);
    if after * BETTER_MOMENT < before {
        // No better moment: the first look stays, so that looking more often is no advantage.
        return;
    }
    *first = second;
    profile.notes.push(format!(
        "{}: at one moment {}, at another {}; something outside this system had taken part of the \
         cores for a while, and other figures may have suffered",
        label(experiment),
        FlopsPerSec(before),
        FlopsPerSec(after)
    ));
}

/// Compute first, peak before GEMM: the clock and the 100 % are then known early.
fn experiments(plan: &Plan, n_logical_cpus: u32) -> Vec<Experiment> {
    let mut thread_counts: Vec<u32> = Vec::new();
    for threads in &plan.threads {
        let n_threads = match threads {
            Threads::One => 1,
            Threads::All => n_logical_cpus,
        };
        if !thread_counts.contains(&n_threads) {
            thread_counts.push(n_threads);
        }
    }
    let on_each = |loads: &dyn Fn(u32) -> Vec<Load>| -> Vec<Experiment> {
        let each = thread_counts.iter();
        each.flat_map(|&n_threads| {
            loads(n_threads).into_iter().map(move |load| Experiment { load, n_threads })
        })
        .collect()
    };
    let mut experiments = Vec::new();
    for &format in &plan.formats {
        experiments.extend(on_each(&|_| vec![Load::Peak(PeakLoad::of(format))]));
        experiments.extend(on_each(&|n_threads| {
            let edges = plan.gemm_edges.iter();
            let shapes = edges.map(|&edge| Plan::gemm_shape(edge, n_threads));
            shapes.map(|shape| Load::Gemm(GemmLoad::of(format, shape))).collect()
        }));
    }
    for &op in &plan.streams {
        let place = Place::Level(MemoryLevel::Dram);
        let stream = StreamLoad { op, place, stores: Stores::Plain };
        experiments.extend(on_each(&|_| vec![Load::Stream(stream)]));
    }
    experiments
}

/// The level that a place is; arrays of a given size may lie in several, and count as main memory.
fn level(place: Place) -> MemoryLevel {
    match place {
        Place::Level(level) => level,
        Place::Bytes(_) => MemoryLevel::Dram,
    }
}

fn label(experiment: &Experiment) -> String {
    let load = match experiment.load {
        Load::Peak(peak) => format!("{} peak", peak.format.name()),
        Load::Gemm(GemmLoad { format, shape: [m, n, k], .. }) => {
            format!("{} GEMM {m}x{n}x{k}", format.name())
        }
        Load::Stream(stream) => format!("memory {:?}", stream.op).to_lowercase(),
        Load::Chase(_) => "memory latency".to_owned(),
    };
    let plural = if experiment.n_threads == 1 { "" } else { "s" };
    format!("{load}, {} thread{plural}", experiment.n_threads)
}

/// The slices of one experiment.
struct Series {
    setup: Setup,
    triples: Vec<Triple>,
}

/// Alternates load and clock slices until there are enough clean ones or the budget is spent.
fn run(
    machine: &mut dyn Bench,
    experiment: &Experiment,
    plan: &Plan,
    progress: &mut dyn FnMut(f64),
) -> Result<Series, Unmeasurable> {
    progress(0.0);
    let setup = machine.prepare(experiment)?;
    let clocked = match experiment.load {
        Load::Peak(_) | Load::Gemm(_) => true,
        Load::Stream(stream) => stream.place != Place::Level(MemoryLevel::Dram),
        Load::Chase(_) => true,
    };
    let take_clock = |machine: &mut dyn Bench| match clocked {
        true => machine.clock_slice(),
        false => None,
    };
    let mut triples: Vec<Triple> = Vec::new();
    let mut before = take_clock(machine);
    let mut spent_s = before.map_or(0.0, |slice| slice.spent_s);
    let mut n_clean = 0;
    let mut reported_share = 0.0;
    while triples.len() < MAX_SLICES && n_clean < plan.enough_samples {
        let patience = if n_clean < plan.least_samples { PATIENCE } else { 1.0 };
        if patience * plan.budget_s <= spent_s {
            break;
        }
        let load = machine.load_slice();
        if load.outcome == Outcome::Wrong {
            return Err(Unmeasurable("a slice gave a wrong result".to_owned()));
        }
        let after = take_clock(machine);
        n_clean += u32::from(load.is_clean());
        spent_s += load.spent_s + after.map_or(0.0, |slice| slice.spent_s);
        triples.push(Triple { before, load, after });
        before = after;
        let share = share_done(n_clean, spent_s, plan);
        if reported_share + 0.05 <= share {
            reported_share = share;
            progress(share);
        }
    }
    progress(1.0);
    Ok(Series { setup, triples })
}

/// Done by samples or by time, whichever is further.
fn share_done(n_clean: u32, spent_s: f64, plan: &Plan) -> f64 {
    let by_samples = f64::from(n_clean) / f64::from(plan.enough_samples.max(1));
    by_samples.max(spent_s / plan.budget_s).min(1.0)
}

/// Writes one experiment's result into the profile, or a note why there is none.
fn add(profile: &mut Profile, experiment: &Experiment, mut series: Series) {
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
    let Some(rate) = sampled(&loads) else {
        let step = label(experiment);
        let taken = loads.len();
        profile.notes.push(format!(
            "{step}: left out: none of {taken} samples was undisturbed; \
             other work holds the processors, try again when it has ended"
        ));
        return;
    };
    note_few_kept(profile, experiment, rate);
    let shared = n_shared as f64 / loads.len() as f64;
    if MANY_SHARED < shared {
        profile.notes.push(format!(
            "{}: {n_shared} of {} samples ran below 95 % of the best and were left out: others on \
             the same cores, whom this system does not see, or an unsteady clock",
            label(experiment),
            loads.len()
        ));
    }
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
        flops_per_s: rate,
        fraction_of_peak: None,
        fraction_of_roofline: None,
        flops_per_cycle: per_cycle(&series.triples),
    };
    let array_bytes = series.setup.array_bytes.unwrap_or_default();
    match experiment.load {
        Load::Peak(peak) => profile.compute.push(compute(peak.format, ComputeKind::Peak, None)),
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
            bytes_per_cycle: per_cycle(&series.triples),
            range: None,
        }),
        Load::Chase(place) => profile.latency.push(Latency {
            level: level(place),
            array_bytes,
            loads_per_s: rate,
            cycles: per_cycle(&series.triples).map(f64::recip),
        }),
    }
}

fn note_few_kept(profile: &mut Profile, experiment: &Experiment, rate: Sampled) {
    let kept = f64::from(rate.samples) / f64::from(rate.taken);
    if kept < FEW_KEPT {
        profile.notes.push(format!(
            "{}: only {} of {} samples were undisturbed: other work runs on these processors",
            label(experiment),
            rate.samples,
            rate.taken
        ));
    }
}

/// Fills `fraction_of_peak` of each GEMM: its median over the peak's at the same threads.
fn relate_to_peaks(profile: &mut Profile) {
    let peaks: Vec<ComputeRate> =
        profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak).cloned().collect();
    for rate in profile.compute.iter_mut().filter(|rate| rate.kind == ComputeKind::Gemm) {
        let peak =
            peaks.iter().find(|peak| peak.format == rate.format && peak.threads == rate.threads);
        rate.fraction_of_peak = peak.map(|peak| rate.flops_per_s.median / peak.flops_per_s.median);
    }
}

/// What the figures together say about the machine.
fn note_doubts(profile: &mut Profile) {
    let host = &profile.machine;
    if let (Some(clock), Some(os_clock)) = (host.clock_hz, host.os_clock_hz) {
        let error = os_clock / clock - 1.0;
        if CLOCK_TOLERANCE < error.abs() {
            profile.notes.push(format!(
                "the operating system says the clock is {os_clock}, measured is {clock}: \
                 a percentage of the former would be {:.0} % off",
                100.0 * (clock / os_clock - 1.0).abs()
            ));
        }
    }
    let mut notes = Vec::new();
    for single in profile.compute.iter().filter(|rate| rate.threads == 1) {
        let several = profile.compute.iter().filter(|rate| 1 < rate.threads);
        let is_same_peak = |rate: &&ComputeRate| {
            rate.kind == ComputeKind::Peak
                && rate.kind == single.kind
                && rate.format == single.format
        };
        for all in several.filter(is_same_peak) {
            let (Some(alone), Some(shared)) = (single.flops_per_cycle, all.flops_per_cycle) else {
                continue;
            };
            if shared / alone < SHARED_CORE {
                notes.push(format!(
                    "{} threads issue {shared:.1} {} FLOP per cycle each, one alone {alone:.1}: \
                     logical processors share cores",
                    all.threads, all.format
                ));
            }
        }
    }
    profile.notes.append(&mut notes);
}
