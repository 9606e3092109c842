//! The quick measurement of this machine as JSON, its steps and duration on stderr.
//!
//! Not the command line tool: no options, no table, nothing stored.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use flopwise_measure::{Cpu, Plan, measure, timestamp};
use std::time::{Instant, SystemTime};

fn main() {
    let start = Instant::now();
    let plan = Plan::quick(timestamp(SystemTime::now()));
    let mut step = String::new();
    let profile = measure(&mut Cpu::new(), &plan, &mut |progress| {
        if step != progress.step {
            eprintln!(
                "{:5.2} s {:3.0} % {}",
                start.elapsed().as_secs_f64(),
                100.0 * progress.fraction,
                progress.step
            );
            step = progress.step;
        }
    });
    eprintln!("{:5.2} s in all", start.elapsed().as_secs_f64());
    print!("{}", profile.to_json());
}
