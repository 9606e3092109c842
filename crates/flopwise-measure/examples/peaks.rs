//! Every kernel of the instruction peak in every number of chains: operations per cycle and second,
//! latency, and what the values multiplied change.
//!
//! Not a test: it prints what was seen. `cargo run --release --example peaks [fp32 ...] [threads=2]
//! [repeats=41]`.
#![allow(clippy::print_stdout)]

use flopwise_measure::{
    Bench, Cpu, Experiment, Load, Mix, PeakLoad, Slice, Values, latency_cycles,
};

/// Rate, work per cycle, kept and taken slices.
struct Seen {
    median_per_s: f64,
    best_per_s: f64,
    per_cycle: f64,
    n_kept: usize,
    n_taken: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u32| {
        let mut values = arguments.iter().filter_map(|argument| argument.strip_prefix(name));
        values.next().map_or(default, |value| value.parse().expect("a number after `=`"))
    };
    let (n_threads, n_repeats) = (number("threads=", 1), number("repeats=", 41));
    let formats: Vec<&String> = arguments.iter().filter(|name| !name.contains('=')).collect();
    let mut cpu = Cpu::new();
    println!("format isa             chains   op/cycle   median G/s  best G/s  kept  latency");
    for ability in cpu.abilities().peaks {
        if !formats.is_empty() && !formats.iter().any(|name| *name == ability.format.name()) {
            continue;
        }
        let plain = PeakLoad { isa: Some(ability.isa), ..PeakLoad::of(ability.format) };
        let mut loads: Vec<(String, PeakLoad)> = Vec::new();
        for &chains in &ability.chains {
            loads.push((chains.to_string(), PeakLoad { chains: Some(chains), ..plain }));
        }
        if ability.has_add_mix {
            loads.push(("+add".to_owned(), PeakLoad { mix: Mix::MultiplyAddAndAdd, ..plain }));
        }
        let special = [
            ("zero", Values::Zero),
            ("subnorm", Values::Subnormal),
            ("inf", Values::Infinite),
            ("nan", Values::NotANumber),
        ];
        if ability.is_float {
            loads.extend(special.map(|(name, values)| (name.into(), PeakLoad { values, ..plain })));
        }
        for (name, load) in loads {
            let Some(seen) = see(&mut cpu, load, n_threads, n_repeats) else { continue };
            let latency = match load.chains {
                Some(1) => {
                    let ops = f64::from(ability.ops_per_instruction);
                    format!(
                        "{:.2} cycles",
                        latency_cycles(seen.per_cycle / f64::from(n_threads), ops)
                    )
                }
                _ => String::new(),
            };
            println!(
                "{:<6} {:<15} {name:>7} {:>10.2} {:>12.2} {:>9.2} {:>2}/{:<2} {latency} {}",
                ability.format.name(),
                ability.isa,
                seen.per_cycle,
                seen.median_per_s / 1e9,
                seen.best_per_s / 1e9,
                seen.n_kept,
                seen.n_taken,
                ability.instruction,
            );
        }
    }
}

/// Load slices between clock slices, the undisturbed ones.
fn see(cpu: &mut Cpu, load: PeakLoad, n_threads: u32, n_repeats: u32) -> Option<Seen> {
    let experiment = Experiment { load: Load::Peak(load), n_threads };
    if let Err(reason) = cpu.prepare(&experiment) {
        println!("{} {}: {reason}", load.format.name(), load.isa.unwrap_or("?"));
        return None;
    }
    let (mut rates, mut per_cycle) = (Vec::new(), Vec::new());
    for _ in 0..n_repeats {
        let before = cpu.clock_slice().filter(Slice::is_clean);
        let slice = cpu.load_slice();
        assert_ne!(slice.outcome, flopwise_measure::Outcome::Wrong, "{load:?}");
        let after = cpu.clock_slice().filter(Slice::is_clean);
        if !slice.is_clean() {
            continue;
        }
        rates.push(slice.rate());
        let clocks = [before, after].map(|clock| clock.map(|clock| clock.rate()));
        let clock = match clocks {
            [Some(a), Some(b)] if 0.97 * a.max(b) < a.min(b) => Some(f64::midpoint(a, b)),
            [Some(a), Some(b)] => Some(a.max(b)), // the other saw a stolen moment
            [a, b] => a.or(b),
        };
        per_cycle.extend(clock.map(|clock| slice.rate() / clock * f64::from(n_threads)));
    }
    rates.sort_by(f64::total_cmp);
    per_cycle.sort_by(f64::total_cmp);
    Some(Seen {
        median_per_s: *rates.get(rates.len() / 2)?,
        best_per_s: *rates.last()?,
        per_cycle: *per_cycle.get(per_cycle.len() / 2)?,
        n_kept: rates.len(),
        n_taken: n_repeats as usize,
    })
}
