//! Bandwidth of every level, operation and kind of store, and the latency of every level.
//!
//! Not the command line tool: medians only, nothing stored. `memory 5` gives all experiments their
//! turn five times, so that a neighbour disturbs all alike; `memory 5 L3` only those whose name
//! begins so; `memory curve` walks over arrays of growing size and says how large the caches are.
#![allow(clippy::print_stdout)]

use flopwise::machine::{MemoryLevel, MemoryOp, Stores};
use flopwise_measure::{
    Bench, Cpu, Experiment, Load, Place, Slice, StreamLoad, curve_sizes, levels_of_curve,
    note_measured_sizes,
};

/// Slices of an experiment in one round.
const SLICES_PER_ROUND: usize = 60;

/// Rates of an experiment's undisturbed slices.
#[derive(Default)]
struct Rates {
    per_s: Vec<f64>,
    /// By the clock measured beside each.
    per_cycle: Vec<f64>,
    array_bytes: u64,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn experiments(cpu: &Cpu) -> Vec<Experiment> {
    let abilities = cpu.abilities();
    let n_all = cpu.host().logical_cpus;
    let mut experiments = Vec::new();
    for n_threads in [1, n_all] {
        for &level in &abilities.levels {
            let place = Place::Level(level);
            let stream = |op, stores| Load::Stream(StreamLoad { op, place, stores });
            let mut loads = vec![Load::Chase(place), stream(MemoryOp::Read, Stores::Plain)];
            for op in [MemoryOp::Write, MemoryOp::Copy, MemoryOp::Triad] {
                loads.push(stream(op, Stores::Plain));
                if abilities.has_non_temporal_stores && level == MemoryLevel::Dram {
                    loads.push(stream(op, Stores::NonTemporal));
                }
            }
            experiments.extend(loads.into_iter().map(|load| Experiment { load, n_threads }));
        }
    }
    experiments
}

fn name(load: Load) -> String {
    match load {
        Load::Stream(StreamLoad { op, place: Place::Level(level), stores }) => {
            format!("{level:?} {op:?} {stores:?}")
        }
        Load::Chase(Place::Level(level)) => format!("{level:?} latency"),
        Load::Stream(_) | Load::Chase(_) | Load::Peak(_) | Load::Gemm(_) => format!("{load:?}"),
    }
}

/// The largest array of the curve.
const CURVE_BYTES: u64 = 128 << 20;
/// Slices for a point of it in each of three rounds.
const SLICES_PER_POINT: usize = 9;

/// The fastest of all moments: a neighbour only ever makes a walk slower.
fn curve(cpu: &mut Cpu) {
    let sizes = curve_sizes(CURVE_BYTES);
    let mut per_cycle: Vec<Vec<f64>> = vec![Vec::new(); sizes.len()];
    for _ in 0..3 {
        for (&bytes, per_cycle) in sizes.iter().zip(&mut per_cycle) {
            let experiment = Experiment { load: Load::Chase(Place::Bytes(bytes)), n_threads: 1 };
            if let Err(reason) = cpu.prepare(&experiment) {
                println!("{bytes}: {reason}");
                continue;
            }
            for _ in 0..SLICES_PER_POINT {
                let (load, clock) = (cpu.load_slice(), cpu.clock_slice());
                let clock = clock.filter(Slice::is_clean);
                if let (true, Some(clock)) = (load.is_clean(), clock) {
                    per_cycle.push(load.rate() / clock.rate());
                }
            }
        }
    }
    let points: Vec<(u64, f64)> = sizes
        .into_iter()
        .zip(&mut per_cycle)
        .map(|(bytes, per_cycle)| {
            let middle = median(per_cycle);
            let rate = per_cycle.get(per_cycle.len() * 9 / 10).copied().unwrap_or(f64::NAN);
            println!("{bytes:>10} {:8.2} cycles, median {:8.2}", rate.recip(), middle.recip());
            (bytes, rate)
        })
        .collect();
    let levels = levels_of_curve(&points);
    println!("{levels:?}");
    let mut caches = cpu.host().caches;
    note_measured_sizes(&mut caches, &levels);
    println!("{caches:?}");
}

fn main() {
    let argument = std::env::args().nth(1);
    let mut cpu = Cpu::new();
    if argument.as_deref() == Some("curve") {
        return curve(&mut cpu);
    }
    let n_rounds = argument.and_then(|text| text.parse().ok()).unwrap_or(3);
    for caveat in cpu.caveats() {
        println!("{caveat}");
    }
    println!("{:?} nodes {:?}", cpu.host().caches, cpu.host().numa_nodes);
    let mut experiments = experiments(&cpu);
    let wanted = std::env::args().nth(2).unwrap_or_default();
    experiments.retain(|experiment| name(experiment.load).starts_with(&wanted));
    let mut all: Vec<Rates> = experiments.iter().map(|_| Rates::default()).collect();
    for _ in 0..n_rounds {
        for (experiment, rates) in experiments.iter().zip(&mut all) {
            match cpu.prepare(experiment) {
                Ok(setup) => rates.array_bytes = setup.array_bytes.unwrap_or_default(),
                Err(reason) => {
                    println!("{}: {reason}", name(experiment.load));
                    continue;
                }
            }
            for _ in 0..SLICES_PER_ROUND {
                let (load, clock) = (cpu.load_slice(), cpu.clock_slice());
                if !load.is_clean() {
                    continue;
                }
                rates.per_s.push(load.rate());
                if let Some(clock) = clock.filter(Slice::is_clean) {
                    rates.per_cycle.push(load.rate() / clock.rate());
                }
            }
        }
    }
    for (experiment, rates) in experiments.iter().zip(&mut all) {
        let (per_s, per_cycle) = (median(&mut rates.per_s), median(&mut rates.per_cycle));
        let threads = experiment.n_threads;
        let what = format!("{:24} {threads}T {:>10} B", name(experiment.load), rates.array_bytes);
        let n_kept = rates.per_s.len();
        match experiment.load {
            Load::Chase(_) => {
                let ns = 1e9 * f64::from(threads) / per_s;
                println!("{what} {:8.1} cycles {ns:8.1} ns  ({n_kept} kept)", per_cycle.recip());
            }
            Load::Stream(_) | Load::Peak(_) | Load::Gemm(_) => {
                let best = rates.per_s.last().copied().unwrap_or(f64::NAN);
                println!(
                    "{what} {:8.1} GB/s {per_cycle:8.2} B/cycle  (best {:.1}, {n_kept} kept)",
                    per_s / 1e9,
                    best / 1e9
                );
            }
        }
    }
}
