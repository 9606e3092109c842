//! The built-in matrix products of this machine: a table per format, shape and thread count.
//!
//! Not the command line tool: no profile, no libraries. Arguments, all optional, in this order:
//! formats (`fp32,int8`), shapes (`512x512x512,1x4096x4096`), threads (`1,2`), seconds a cell.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use flopwise_measure::{
    Bench, Cpu, ElementFormat, Experiment, GemmLoad, Load, Outcome, PeakLoad, Slice,
};
use std::time::Instant;

const SHAPES: &str = "512x512x512,1024x1024x1024,2048x2048x2048,4096x4096x4096,32x4096x4096,\
                      1x4096x4096,128x768x3072";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |idx: usize, default: &str| -> Vec<String> {
        let text = arguments.get(idx).map_or(default, String::as_str);
        text.split(',').map(str::to_owned).collect()
    };
    let formats = argument(0, "fp32,bf16,int8,fp64");
    let threads = argument(2, "1,2");
    let seconds: f64 = argument(3, "1")[0].parse().expect("seconds are a number");
    let mut cpu = Cpu::new();
    println!("format threads shape G/s-median best per-cycle %peak clean/taken");
    for format in ElementFormat::ALL.into_iter().filter(|f| formats.iter().any(|n| n == f.name())) {
        for n_threads in threads.iter().map(|n| n.parse().expect("threads are a number")) {
            let peak = Load::Peak(PeakLoad::of(format));
            let peak = rates(&mut cpu, Experiment { load: peak, n_threads }, 0.2);
            for shape in argument(1, SHAPES) {
                let sizes: Vec<u64> =
                    shape.split('x').map(|n| n.parse().expect("sizes are numbers")).collect();
                let load = GemmLoad::of(format, [sizes[0], sizes[1], sizes[2]]);
                let experiment = Experiment { load: Load::Gemm(load), n_threads };
                let Some(found) = rates(&mut cpu, experiment, seconds) else { continue };
                let share =
                    peak.as_ref().map_or(f64::NAN, |peak| 100.0 * found.median / peak.median);
                println!(
                    "{} {n_threads} {shape} {:.1} {:.1} {:.2} {share:.1} {}/{}",
                    format.name(),
                    found.median / 1e9,
                    found.best / 1e9,
                    found.per_cycle,
                    found.n_clean,
                    found.n_taken,
                );
            }
        }
    }
}

struct Rates {
    median: f64,
    best: f64,
    per_cycle: f64,
    n_clean: usize,
    n_taken: usize,
}

/// Of the clean slices; of all where a product takes so long that none is clean.
fn rates(cpu: &mut Cpu, experiment: Experiment, seconds: f64) -> Option<Rates> {
    if let Err(reason) = cpu.prepare(&experiment) {
        eprintln!("{experiment:?}: {reason}");
        return None;
    }
    let start = Instant::now();
    let mut slices: Vec<(Slice, f64)> = Vec::new();
    while slices.len() < 3 || start.elapsed().as_secs_f64() < seconds {
        let before = cpu.clock_slice();
        let slice = cpu.load_slice();
        let after = cpu.clock_slice();
        assert_ne!(slice.outcome, Outcome::Wrong, "{experiment:?}");
        let clocks = [before, after].into_iter().flatten().map(|clock| clock.rate());
        slices.push((slice, clocks.fold(f64::NAN, f64::max)));
    }
    let n_taken = slices.len();
    let clean: Vec<_> = slices.iter().filter(|(slice, _)| slice.is_clean()).copied().collect();
    let n_clean = clean.len();
    let used = if clean.is_empty() { slices } else { clean };
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let all: Vec<f64> = used.iter().map(|(slice, _)| slice.rate()).collect();
    let best = all.iter().copied().fold(0.0, f64::max);
    let per_cycle = median(used.iter().map(|(slice, clock)| slice.rate() / clock).collect());
    Some(Rates { median: median(all), best, per_cycle, n_clean, n_taken })
}
