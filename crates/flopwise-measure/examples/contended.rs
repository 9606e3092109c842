//! The FP32 peak on one thread and on all, quiet and beside a spinning process on the same processor.
//!
//! Not a test: it prints what was seen. `cargo run --release --example contended` on Linux.
#![allow(clippy::print_stdout)]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this example pins a process, which it can on Linux only");
}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    linux::run()
}

#[cfg(target_os = "linux")]
mod linux {
    use flopwise::units::FlopsPerSec;
    use flopwise_measure::{Cpu, Plan, Threads, measure, timestamp};
    use std::process::Command;
    use std::time::{Duration, Instant, SystemTime};

    /// A spinner that outlives a parent killed half-way would disturb the machine for good.
    const SPIN_LIMIT: Duration = Duration::from_secs(20);

    pub(super) fn run() -> std::io::Result<()> {
        if std::env::args().nth(1).as_deref() == Some("spin") {
            spin_on_the_first_cpu();
            return Ok(());
        }
        print_peak("quiet");
        let mut spinner = Command::new(std::env::current_exe()?).arg("spin").spawn()?;
        std::thread::sleep(Duration::from_millis(200));
        print_peak("contended");
        spinner.kill()?;
        spinner.wait()?;
        Ok(())
    }

    fn print_peak(situation: &str) {
        let plan = Plan {
            threads: vec![Threads::One, Threads::All],
            gemms: Vec::new(),
            streams: Vec::new(),
            budget_s: 1.0,
            ..Plan::quick(timestamp(SystemTime::now()))
        };
        let profile = measure(&mut Cpu::new(), &plan, &mut |_progress| ());
        let clock = profile.machine.clock_hz.map_or("?".to_owned(), |clock| clock.to_string());
        for peak in &profile.compute {
            let rate = peak.flops_per_s;
            println!(
                "{situation:>9} {}T: clock {clock}, median {}, best {}, {:.2} FLOP/cycle, \
                 {} of {} samples kept, spread {:.1} %",
                peak.threads,
                FlopsPerSec(rate.median),
                FlopsPerSec(rate.best),
                peak.flops_per_cycle.unwrap_or(f64::NAN),
                rate.samples,
                rate.taken,
                100.0 * rate.spread,
            );
        }
        for note in &profile.notes {
            println!("{situation:>9} note: {note}");
        }
    }

    /// Where the measurement's first thread runs too: the lowest processor that affinity allows.
    fn spin_on_the_first_cpu() {
        // SAFETY: all-zero sets are empty sets; each call has a set of its size; pid 0 is this
        // thread; `cpu` stays below the capacity.
        unsafe {
            let size = std::mem::size_of::<libc::cpu_set_t>();
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size, &raw mut allowed);
            let capacity = libc::CPU_SETSIZE as usize;
            let first = (0..capacity).find(|&cpu| libc::CPU_ISSET(cpu, &allowed));
            let mut chosen: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(first.unwrap_or(0), &mut chosen);
            libc::sched_setaffinity(0, size, &raw const chosen);
        }
        let start = Instant::now();
        while start.elapsed() < SPIN_LIMIT {
            std::hint::spin_loop();
        }
    }
}
