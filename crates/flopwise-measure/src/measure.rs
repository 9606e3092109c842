//! The measurement: each experiment of a plan on a machine, gathered into a profile.
//!
//! Not here: which experiments (`steps.rs`), their slices (`turns.rs`), how a machine runs a load
//! (`cpu/`, `mock.rs`), what a median is (`sample.rs`) and what results mean (`record.rs`, `findings.rs`). Time is taken from
//! the slices, so a mock machine makes the whole run exact.

use crate::bench::{Bench, Load, Mix, PeakLoad, Slice};
use crate::cliffs::cliff_notes;
use crate::findings::{self, Findings, SHARED_CORE};
use crate::plan::{Plan, Wish};
use crate::record::{Series, add, label, label_of_rivals};
use crate::sample::sampled;
use crate::steps::{Purpose, Step, are_rivals, steps};
use crate::turns::run;
use flopwise::machine::{ComputeKind, Host, Probe, Profile, SCHEMA};
use flopwise::units::FlopsPerSec;

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
    for together in steps.chunk_by(are_rivals) {
        if stop() {
            break;
        }
        let name = match together {
            [only] => label(&only.experiment),
            several => label_of_rivals(several.iter().map(|step| &step.experiment)),
        };
        let budget_s = |steps: &[Step]| steps.iter().map(|step| step.budget_s).sum::<f64>();
        let after_s = budget_s(&steps[n_done + together.len()..]);
        let mut report = |share: f64| {
            let fraction = (n_done as f64 + share * together.len() as f64) / steps.len() as f64;
            let remaining_s = after_s + (1.0 - share) * budget_s(together);
            progress(Progress { step: name.clone(), fraction, remaining_s });
        };
        let answers = run(machine, together, plan, &mut report);
        for (step, answer) in together.iter().zip(answers) {
            match answer {
                Ok(series) => conclude(&mut profile, &mut findings, step, series),
                Err(reason) => {
                    let name = label(&step.experiment);
                    profile.notes.push(format!("{name}: left out: {reason}"));
                }
            }
        }
        if together.iter().any(|step| step.purpose == Purpose::Sustained) && !stop() {
            probe_pairs(machine, &mut profile);
        }
        n_done += together.len();
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
    let again = run(machine, std::slice::from_ref(step), plan, &mut |_share| ()).pop();
    let Some(Ok(series)) = again else { return };
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
