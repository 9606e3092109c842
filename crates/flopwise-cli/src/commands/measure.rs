//! `flopwise measure`: what this machine really does.

use crate::Outcome;
use crate::args::MeasureArgs;
use crate::{output, profiles};
use flopwise::machine::CacheState;
use flopwise::report::Report;
use flopwise_measure::{Cpu, GemmWish, Multipliers, Plan, timestamp};
use std::time::SystemTime;

pub(super) fn run(args: &MeasureArgs) -> anyhow::Result<Outcome> {
    if let Some(path) = &args.output {
        profiles::check_place(path)?;
    }
    let plan = plan(args);
    let mut machine = match args.no_libraries || args.quick {
        true => Cpu::new(),
        false => Cpu::new(),
    };
    let measured = profiles::measured(&mut machine, &plan);
    // A look at a few shapes is not this machine's profile; neither is half of one, where there is
    // a whole one.
    let is_whole = args.format.is_empty() && args.gemm.is_empty() && args.threads.is_empty();
    let report = Report::Measure(Box::new(measured.profile));
    let Report::Measure(profile) = &report else { unreachable!("it was made so") };
    let stored = match &args.output {
        Some(_) => Some(profiles::store(profile, args.output.as_deref())),
        None if is_whole && measured.is_complete => Some(profiles::store(profile, None)),
        None => None,
    };
    // What took so long is shown even if it cannot be kept.
    output::print(&report, args.json)?;
    match stored {
        Some(path) => output::say(&format!("wrote {}", path?.display())),
        None => output::say("not kept as this machine's profile; --output FILE keeps it"),
    }
    Ok(Outcome::Yes)
}

fn plan(args: &MeasureArgs) -> Plan {
    let now = timestamp(SystemTime::now());
    if args.quick {
        return Plan { threads: args.thread_counts(), ..Plan::quick(now) };
    }
    let plan = match args.gemm.as_slice() {
        [] => Plan::full(now),
        shapes => Plan::products(now, shapes),
    };
    let by = if args.no_libraries { Multipliers::BuiltIn } else { Multipliers::All };
    let cache = if args.cold { CacheState::Cold } else { CacheState::Hot };
    let wish = |wish: &GemmWish| GemmWish {
        by: if wish.by == Multipliers::All { by } else { wish.by },
        cache,
        padding: args.padding,
        ..*wish
    };
    Plan {
        formats: args.formats(),
        threads: args.thread_counts(),
        gemms: plan.gemms.iter().map(wish).collect(),
        ..plan
    }
}
