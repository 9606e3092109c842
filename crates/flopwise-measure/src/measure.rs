//! The measurement: each experiment of a plan on a machine, gathered into a profile.
//!
//! Not here: which experiments (`steps.rs`), how a machine runs a load (`cpu/`, `mock.rs`), what a
//! median is (`sample.rs`) and what results mean (`record.rs`, `findings.rs`). Time is taken from
//! the slices, so a mock machine makes the whole run exact.

use crate::bench::{Bench, Experiment, Load, Mix, Outcome, PeakLoad, Place, Slice, Unmeasurable};
use crate::cliffs::cliff_notes;
use crate::findings::{self, Findings, SHARED_CORE};
use crate::plan::{Plan, Wish};
use crate::record::{Series, add, label};
use crate::sample::{Triple, sampled};
use crate::steps::{Purpose, Step, steps};
use flopwise::machine::{ComputeKind, Host, MemoryLevel, Probe, Profile, SCHEMA};
use flopwise::units::FlopsPerSec;

/// No experiment takes more slices, whatever its machine says about time.
const MAX_SLICES: usize = 20_000;
/// Times its budget that an experiment may use while it has too few undisturbed slices.
const PATIENCE: f64 = 1.5;
/// Second looks at a peak that no core has.
const MAX_LOOKS: u32 = 3;
/// A peak within this of so many per cycle is one.
const POWER_TOLERANCE: f64 = 0.03;
/// A second look replaces the first if it is higher by more than noise.
const BETTER_MOMENT: f64 = 0.95;
/// Slices of each side of a pair of processors.
const PAIR_SLICES: usize = 25;
/// Below this two threads of a pair get less than two cores' worth.
const ONE_CORE: f64 = 1.5;

/// How far a measurement is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is being measured: `fp32 peak, 2 threads`.
    pub step: String,
    /// Share of the whole plan that is done, 0 to 1.
    pub fraction: f64,
    /// Time that the rest may take at most, if nothing is disturbed.
    pub remaining_s: f64,
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
    measure_until(machine, plan, progress, &|| false)
}

/// As [`measure`], until `stop` says so: what was measured by then is kept, and a note says how much
/// is missing.
pub fn measure_until(
    machine: &mut dyn Bench,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
    stop: &dyn Fn() -> bool,
) -> Profile {
    let abilities = machine.abilities();
    let host = Host { measured_at: plan.measured_at.clone(), ..machine.host() };
    let steps = steps(plan, &abilities, host.logical_cpus.max(1));
    let mut profile = empty(host, machine.caveats());
    note_missing_formats(&mut profile, plan, &abilities);
    let mut findings = Findings::default();
    let mut n_done = 0;
    for (step_idx, step) in steps.iter().enumerate() {
        if stop() {
            break;
        }
        let name = label(&step.experiment);
        let after: f64 = steps[step_idx + 1..].iter().map(|step| step.budget_s).sum();
        let mut report = |share: f64| {
            let fraction = (step_idx as f64 + share) / steps.len() as f64;
            let remaining_s = after + (1.0 - share) * step.budget_s;
            progress(Progress { step: name.clone(), fraction, remaining_s });
        };
        match run(machine, step, plan, &mut report) {
            Ok(series) => conclude(&mut profile, &mut findings, step, series),
            Err(reason) => profile.notes.push(format!("{name}: left out: {reason}")),
        }
        if step.purpose == Purpose::Sustained && !stop() {
            probe_pairs(machine, &mut profile);
        }
        n_done = step_idx + 1;
    }
    for step in steps.iter().filter(|_| !stop()) {
        for _ in 0..MAX_LOOKS {
            if is_plausible(&profile, step) {
                break;
            }
            look_again(machine, step, plan, &mut profile);
        }
    }
    if n_done < steps.len() {
        profile.notes.push(format!(
            "stopped after {n_done} of {} experiments; the others are missing",
            steps.len()
        ));
    }
    findings.conclude(&mut profile, &abilities);
    findings::relate_to_roofs(&mut profile);
    findings::note_doubts(&mut profile);
    let cliffs = cliff_notes(&profile);
    profile.notes.extend(cliffs);
    profile
}

fn empty(machine: Host, notes: Vec<String>) -> Profile {
    Profile {
        schema: SCHEMA,
        kind: "measure".to_owned(),
        machine,
        compute: Vec::new(),
        memory: Vec::new(),
        latency: Vec::new(),
        probes: Vec::new(),
        notes,
    }
}

fn note_missing_formats(profile: &mut Profile, plan: &Plan, abilities: &crate::bench::Abilities) {
    let is_missing = |format: &&crate::bench::ElementFormat| {
        abilities.peaks.iter().all(|ability| ability.format != **format)
    };
    if plan.peaks == Wish::Wanted {
        let missing: Vec<&str> =
            plan.formats.iter().filter(is_missing).map(|format| format.name()).collect();
        if !missing.is_empty() {
            profile.notes.push(format!(
                "this processor has no multiply-adds of {}: nothing is measured of it",
                missing.join(", ")
            ));
        }
    }
}

/// What becomes of one experiment's slices.
fn conclude(profile: &mut Profile, findings: &mut Findings, step: &Step, series: Series) {
    let experiment = &step.experiment;
    findings.count(&series);
    match step.purpose {
        Purpose::Rate => add(profile, experiment, series),
        Purpose::Sustained => {
            findings::sustained(profile, experiment, &series);
            add(profile, experiment, series);
        }
        Purpose::Chains => findings.chains(experiment, &series),
        Purpose::Values => findings::values(profile, experiment, &series),
        Purpose::Curve => findings.point(experiment, &series),
        Purpose::Round => {
            let mut again = empty(profile.machine.clone(), Vec::new());
            add(&mut again, experiment, series);
            findings::round(profile, again);
        }
    }
}

/// Whether logical processors are cores of their own: two of them against one, with the load of the
/// experiment that was prepared last.
fn probe_pairs(machine: &mut dyn Bench, profile: &mut Profile) {
    let n_cpus = profile.machine.logical_cpus;
    // Systems number the threads of a core next to each other, or all first threads first.
    let mut others = vec![1, n_cpus / 2];
    others.dedup();
    for other in others.into_iter().filter(|other| (1..n_cpus).contains(other)) {
        let mut slices = [Vec::new(), Vec::new()];
        for _ in 0..PAIR_SLICES {
            for (side, cpus) in slices.iter_mut().zip([&[0][..], &[0, other][..]]) {
                side.extend(machine.slice_on(cpus));
            }
        }
        let [alone, both] = slices.map(|slices: Vec<Slice>| sampled(&slices));
        let (Some(alone), Some(both)) = (alone, both) else { continue };
        let gain = both.median / alone.median;
        profile.probes.push(Probe {
            name: format!("processors 0 and {other} together"),
            value: gain,
            unit: "x".to_owned(),
            meaning: match gain < ONE_CORE {
                true => "times the rate of one: they share a core".to_owned(),
                false => "times the rate of one: each is a core".to_owned(),
            },
        });
    }
}

/// Whether a peak is one that cores have: a power of two per cycle on one thread (lanes x units x
/// 2), or three of them, and on several not much less each than on one.
fn is_plausible(profile: &Profile, step: &Step) -> bool {
    let Load::Peak(PeakLoad { format, mix: Mix::MultiplyAdd, .. }) = step.experiment.load else {
        return true;
    };
    if !matches!(step.purpose, Purpose::Rate | Purpose::Sustained) {
        return true;
    }
    let per_cycle = |n_threads: u32| {
        let peaks = profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak);
        let mut matching = peaks.filter(|rate| rate.format == format.name());
        matching.find(|rate| rate.threads == n_threads)?.flops_per_cycle
    };
    let n_threads = step.experiment.n_threads;
    let Some(each) = per_cycle(n_threads) else { return true };
    let is_near = |rate: f64| (rate / rate.log2().round().exp2() - 1.0).abs() < POWER_TOLERANCE;
    match per_cycle(1) {
        Some(alone) if n_threads != 1 => SHARED_CORE <= each / alone,
        _ => is_near(each) || is_near(each / 3.0),
    }
}

/// A hypervisor may let others onto a core for a second, unseen by any counter of the guest. A
/// look at another moment tells that from cores that are always shared.
fn look_again(machine: &mut dyn Bench, step: &Step, plan: &Plan, profile: &mut Profile) {
    let Ok(series) = run(machine, step, plan, &mut |_share| ()) else { return };
    let mut second = Profile { compute: Vec::new(), notes: Vec::new(), ..profile.clone() };
    add(&mut second, &step.experiment, series);
    let Some(second) = second.compute.pop() else { return };
    let first = profile.compute.iter_mut().find(|rate| {
        rate.kind == second.kind && rate.threads == second.threads && rate.format == second.format
    });
    let Some(first) = first else { return };
    let (before, after) = (first.flops_per_s.median, second.flops_per_s.median);
    if after * BETTER_MOMENT < before {
        // No better moment: the first look stays, so that looking more often is no advantage.
        return;
    }
    *first = second;
    profile.notes.push(format!(
        "{}: at one moment {}, at another {}; something outside this system had taken part of the \
         cores for a while, and other figures may have suffered",
        label(&step.experiment),
        FlopsPerSec(before),
        FlopsPerSec(after)
    ));
}

/// Whether the clock is measured beside a load: main memory does not depend on it.
fn is_clocked(experiment: &Experiment) -> bool {
    match experiment.load {
        Load::Peak(_) | Load::Gemm(_) | Load::Chase(_) => true,
        Load::Stream(stream) => stream.place != Place::Level(MemoryLevel::Dram),
    }
}

/// Alternates load and clock slices until there are enough clean ones or the budget is spent.
fn run(
    machine: &mut dyn Bench,
    step: &Step,
    plan: &Plan,
    progress: &mut dyn FnMut(f64),
) -> Result<Series, Unmeasurable> {
    progress(0.0);
    let setup = machine.prepare(&step.experiment)?;
    let clocked = is_clocked(&step.experiment);
    let take_clock = |machine: &mut dyn Bench| match clocked {
        true => machine.clock_slice(),
        false => None,
    };
    // A look at what happens over time must last.
    let enough = match step.purpose {
        Purpose::Sustained => u32::MAX,
        Purpose::Rate | Purpose::Chains | Purpose::Values | Purpose::Curve | Purpose::Round => {
            plan.enough_samples
        }
    };
    let mut triples: Vec<Triple> = Vec::new();
    let mut before = take_clock(machine);
    let mut spent_s = before.map_or(0.0, |slice| slice.spent_s);
    let mut n_clean = 0;
    let mut reported_share = 0.0;
    while triples.len() < MAX_SLICES && n_clean < enough {
        let patience = if n_clean < plan.least_samples { PATIENCE } else { 1.0 };
        if patience * step.budget_s <= spent_s {
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
        // Done by samples or by time, whichever is further.
        let by_samples = f64::from(n_clean) / f64::from(enough.max(1));
        let share = by_samples.max(spent_s / step.budget_s).min(1.0);
        if reported_share + 0.05 <= share {
            reported_share = share;
            progress(share);
        }
    }
    progress(1.0);
    Ok(Series { setup, triples })
}
