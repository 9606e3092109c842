//! Every library that multiplies matrices here: what it is and how fast, format by format.
//!
//! Not the command line tool. Arguments: files and folders to look into first.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use flopwise::machine::CacheState;
use flopwise_measure::{Bench, Cpu, Experiment, GemmLoad, Load, Slice};
use std::path::PathBuf;
use std::time::Instant;

const EDGES: [u64; 3] = [512, 1024, 2048];
/// Time for each figure, preparation not counted.
const BUDGET_S: f64 = 0.3;

fn main() {
    let named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let start = Instant::now();
    let mut cpu = Cpu::with_libraries(&named);
    println!("found in {:.2} s", start.elapsed().as_secs_f64());
    cpu.caveats().iter().for_each(|caveat| println!("! {caveat}"));
    let all = cpu.host().logical_cpus;
    for library in cpu.abilities().libraries {
        if cfg!(debug_assertions) && library.path.is_none() {
            continue; // our own code says nothing without optimisation; libraries have theirs
        }
        let path = library.path.unwrap_or_default();
        println!("{} {} {path}", library.library.name(), library.version);
        for format in library.formats {
            for n_threads in [1, all] {
                print!("  {:5} {n_threads} thread(s)", format.name());
                let cubes = EDGES.map(|edge| (GemmLoad::of(format, [edge; 3]), ""));
                let skinny = GemmLoad::of(format, [32, 4096, 4096]);
                let cold = GemmLoad { cache: CacheState::Cold, ..cubes[0].0 };
                let padded = GemmLoad { padding: 16, ..skinny };
                let others = [(skinny, "32x4k"), (padded, "padded"), (cold, "cold 512")];
                for (load, name) in cubes.into_iter().chain(others) {
                    let load = Load::Gemm(GemmLoad { library: library.library, ..load });
                    print!("  {name} {}", figure(&mut cpu, Experiment { load, n_threads }));
                }
                println!();
            }
        }
    }
}

/// Median of the clean slices and best of all, in GFLOP/s.
fn figure(cpu: &mut Cpu, experiment: Experiment) -> String {
    if let Err(reason) = cpu.prepare(&experiment) {
        return format!("({reason})");
    }
    let start = Instant::now();
    let mut slices: Vec<Slice> = Vec::new();
    while slices.len() < 3 || start.elapsed().as_secs_f64() < BUDGET_S {
        slices.push(cpu.load_slice());
    }
    let mut clean: Vec<f64> =
        slices.iter().filter(|slice| slice.is_clean()).map(Slice::rate).collect();
    clean.sort_by(f64::total_cmp);
    let best = slices.iter().map(Slice::rate).fold(0.0, f64::max);
    match clean.get(clean.len() / 2) {
        Some(median) => format!("{:.0}/{:.0}", median / 1e9, best / 1e9),
        None => format!("-/{:.0}", best / 1e9),
    }
}
