//! The experiments of a plan on a machine, in order, each with its purpose and its time.
//!
//! Not here: running them (`measure.rs`).

use crate::bench::{
    Abilities, ElementFormat, Experiment, GemmLoad, Library, Load, Mix, PeakAbility, PeakLoad,
    Place, StreamLoad, Values,
};
use crate::curve::curve_sizes;
use crate::plan::{GemmWish, Multipliers, Plan, StreamWish, Threads, Wish};
use flopwise::machine::{MemoryLevel, Stores};

/// The latency of loads is measured over sizes up to this one: more than the last-level cache that one
/// thread reaches on any processor of today but a few.
const CURVE_BYTES: u64 = 192 << 20;
/// The first experiment on all threads also shows how far the clock falls under load.
const SUSTAINED_TIMES: f64 = 5.0;

/// One experiment of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) experiment: Experiment,
    pub(crate) purpose: Purpose,
    pub(crate) budget_s: f64,
}

/// What becomes of an experiment's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A rate of the profile.
    Rate,
    /// A rate of the profile, with a look at how it changes while it runs.
    Sustained,
    /// One point of the latency of an instruction.
    Chains,
    /// How much slower unusual values are.
    Values,
    /// One point of the latency of memory over size.
    Curve,
    /// A further look at main memory.
    Round,
}

/// All experiments of a plan. Compute first, peak before GEMM: the clock and the 100 % are then known
/// early.
pub(crate) fn steps(plan: &Plan, abilities: &Abilities, n_logical_cpus: u32) -> Vec<Step> {
    let threads = thread_counts(plan, n_logical_cpus);
    let mut steps = peaks(plan, abilities, &threads);
    if plan.probes == Wish::Wanted {
        steps.extend(probes(plan, abilities));
    }
    let streams = |is_wanted: fn(&StreamWish) -> bool, purpose| {
        let wanted = plan.streams.iter().filter(move |wish| is_wanted(wish));
        let wanted = wanted.filter(|wish| {
            let has_stores = wish.stores == Stores::Plain || abilities.has_non_temporal_stores;
            abilities.levels.contains(&wish.level) && has_stores
        });
        let on_each = |wish: &StreamWish| {
            let place = Place::Level(wish.level);
            let load = Load::Stream(StreamLoad { op: wish.op, place, stores: wish.stores });
            threads.iter().map(move |&n_threads| Step {
                experiment: Experiment { load, n_threads },
                purpose,
                budget_s: plan.budget_s,
            })
        };
        wanted.flat_map(on_each).collect::<Vec<Step>>()
    };
    let is_dram = |wish: &StreamWish| wish.level == MemoryLevel::Dram;
    let round = || streams(is_dram, Purpose::Round);
    let products = products(plan, abilities, &threads);
    if plan.n_rounds <= 1 {
        steps.extend(products);
        steps.extend(streams(|_| true, Purpose::Rate));
    } else {
        steps.extend(streams(|_| true, Purpose::Rate));
        // The further looks are spread over the rest.
        let n_parts = plan.n_rounds as usize - 1;
        let part = products.len().div_ceil(n_parts).max(1);
        let mut parts = products.chunks(part);
        for _ in 0..n_parts {
            steps.extend(parts.next().unwrap_or_default());
            steps.extend(round());
        }
    }
    if plan.latency == Wish::Wanted {
        steps.extend(latency(plan, abilities));
    }
    steps
}

/// Whether two experiments are one product by two libraries: they take turns.
pub(crate) fn are_rivals(one: &Step, other: &Step) -> bool {
    let (Load::Gemm(first), Load::Gemm(second)) = (one.experiment.load, other.experiment.load)
    else {
        return false;
    };
    one.experiment.n_threads == other.experiment.n_threads
        && first == GemmLoad { library: first.library, ..second }
}

fn thread_counts(plan: &Plan, n_logical_cpus: u32) -> Vec<u32> {
    let mut counts: Vec<u32> = Vec::new();
    for threads in &plan.threads {
        let n_threads = match threads {
            Threads::One => 1,
            Threads::Exactly(n_threads) => (*n_threads).clamp(1, n_logical_cpus),
            Threads::All => n_logical_cpus,
        };
        if !counts.contains(&n_threads) {
            counts.push(n_threads);
        }
    }
    counts
}

/// The fastest kernel of a format.
fn best(abilities: &Abilities, format: ElementFormat) -> Option<&PeakAbility> {
    abilities.peaks.iter().find(|ability| ability.format == format)
}

fn peaks(plan: &Plan, abilities: &Abilities, threads: &[u32]) -> Vec<Step> {
    let mut steps = Vec::new();
    if plan.peaks == Wish::Left {
        return steps;
    }
    let formats = plan.formats.iter().filter(|format| best(abilities, **format).is_some());
    for (format_idx, format) in formats.enumerate() {
        for &n_threads in threads {
            let is_long = plan.probes == Wish::Wanted && format_idx == 0 && 1 < n_threads;
            steps.push(Step {
                experiment: Experiment { load: Load::Peak(PeakLoad::of(*format)), n_threads },
                purpose: if is_long { Purpose::Sustained } else { Purpose::Rate },
                budget_s: if is_long { SUSTAINED_TIMES * plan.budget_s } else { plan.budget_s },
            });
        }
    }
    steps
}

/// On one thread: chains, unusual values, mixtures.
fn probes(plan: &Plan, abilities: &Abilities) -> Vec<Step> {
    let step = |load, purpose| Step {
        experiment: Experiment { load: Load::Peak(load), n_threads: 1 },
        purpose,
        budget_s: plan.probe_budget_s,
    };
    let mut steps = Vec::new();
    for ability in plan.formats.iter().filter_map(|format| best(abilities, *format)) {
        let plain = PeakLoad::of(ability.format);
        let chains = ability.chains.iter();
        steps.extend(
            chains.map(|chains| step(PeakLoad { chains: Some(*chains), ..plain }, Purpose::Chains)),
        );
        if ability.has_add_mix {
            let mixed = PeakLoad { mix: Mix::MultiplyAddAndAdd, ..plain };
            steps.push(Step { budget_s: plan.budget_s, ..step(mixed, Purpose::Rate) });
        }
        if ability.is_float {
            let unusual = [Values::Zero, Values::Subnormal, Values::Infinite, Values::NotANumber];
            let unusual = unusual.map(|values| step(PeakLoad { values, ..plain }, Purpose::Values));
            steps.extend(unusual);
        }
    }
    steps
}

fn products(plan: &Plan, abilities: &Abilities, threads: &[u32]) -> Vec<Step> {
    let mut steps = Vec::new();
    for &format in &plan.formats {
        for &n_threads in threads {
            for wish in &plan.gemms {
                steps.extend(abilities.libraries.iter().filter_map(|found| {
                    let GemmWish { shape, by, cache, padding } = *wish;
                    let is_wanted = match (by, found.library) {
                        (Multipliers::All, _) | (_, Library::BuiltIn) => true,
                        (Multipliers::BuiltIn, _) => false,
                    };
                    let (shape, library) = (shape.on(n_threads), found.library);
                    let load = GemmLoad { format, shape, library, cache, padding };
                    (is_wanted && found.formats.contains(&format)).then_some(Step {
                        experiment: Experiment { load: Load::Gemm(load), n_threads },
                        purpose: Purpose::Rate,
                        budget_s: plan.budget_s,
                    })
                }));
            }
        }
    }
    steps
}

/// Each level, and the curve over sizes, on one thread.
fn latency(plan: &Plan, abilities: &Abilities) -> Vec<Step> {
    let step = |place, purpose| Step {
        experiment: Experiment { load: Load::Chase(place), n_threads: 1 },
        purpose,
        budget_s: plan.probe_budget_s,
    };
    let levels = abilities.levels.iter();
    let levels = levels.map(|level| step(Place::Level(*level), Purpose::Rate));
    let sizes = curve_sizes(CURVE_BYTES).into_iter();
    let curve = sizes.map(|bytes| Step {
        budget_s: plan.probe_budget_s / 2.0,
        ..step(Place::Bytes(bytes), Purpose::Curve)
    });
    levels.chain(curve).collect()
}
