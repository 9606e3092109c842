//! `flopwise measure`: what this machine really does.

use crate::Outcome;
use crate::args::{MeasureArgs, is_short};
use crate::{output, profiles};
use flopwise::machine::{CacheState, Profile};
use flopwise::query::{CountQuery, product_shapes};
use flopwise::report::{Report, figures, measure_html};
use flopwise_measure::{Cpu, GemmWish, Multipliers, Plan, timestamp};
use std::time::SystemTime;

/// What every page written here holds near its beginning.
const MARK: &str = "content=\"flopwise";

pub(super) fn run(args: &MeasureArgs) -> anyhow::Result<Outcome> {
    if let Some(path) = &args.output {
        profiles::check_place(path)?;
    }
    if let Some(path) = &args.html {
        output::check_place(path, MARK)?;
    }
    if let Some(machine) = &args.on {
        show(&profiles::stored(machine)?, args)?;
        return Ok(Outcome::Yes);
    }
    let plan = plan(args)?;
    let mut machine = match args.no_libraries || args.quick {
        true => Cpu::new(),
        false => Cpu::with_libraries(&args.library_path),
    };
    let measured = profiles::measured(&mut machine, &plan);
    // A look at some shapes, formats or thread counts is not this machine's profile; neither is half
    // of a run.
    let is_whole = args.format.is_empty()
        && args.gemm.is_empty()
        && args.gemm_from.is_none()
        && args.threads.is_empty()
        && !args.cold
        && args.padding == 0;
    let profile = measured.profile;
    let kept = match &args.output {
        Some(_) => Some(profiles::store(&profile, args.output.as_deref())),
        None if is_whole && measured.is_complete => Some(profiles::store(&profile, None)),
        None => None,
    };
    // What took so long is shown even if it cannot be kept.
    show(&profile, args)?;
    match kept {
        Some(path) => output::say(&format!("wrote {}", path?.display())),
        None => output::say("not kept as this machine's profile; --output FILE keeps it"),
    }
    Ok(Outcome::Yes)
}

fn show(profile: &Profile, args: &MeasureArgs) -> anyhow::Result<()> {
    let report = match &args.explain {
        Some(words) => Report::Figures(Box::new(figures(profile, &words.join(" "))?)),
        None => Report::Measure(Box::new(profile.clone())),
    };
    output::print(&report, args.json)?;
    if let Some(path) = &args.html {
        output::write_file(path, &measure_html(profile), MARK)?;
        output::say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn plan(args: &MeasureArgs) -> anyhow::Result<Plan> {
    let now = timestamp(SystemTime::now());
    if args.quick {
        return Ok(Plan { threads: args.thread_counts(), ..Plan::quick(now) });
    }
    let shapes = match &args.gemm_from {
        Some(model) => products_of(model, args)?,
        None => args.gemm.clone(),
    };
    let plan = match shapes.as_slice() {
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
    Ok(Plan {
        formats: args.formats(),
        threads: args.thread_counts(),
        gemms: plan.gemms.iter().map(wish).collect(),
        ..plan
    })
}

/// The products of a model, but those that would take minutes.
fn products_of(model: &str, args: &MeasureArgs) -> anyhow::Result<Vec<[u64; 3]>> {
    let query = CountQuery { bindings: args.bind.clone(), ..CountQuery::of(model) };
    let (short, long): (Vec<_>, Vec<_>) =
        product_shapes(&query)?.into_iter().partition(|shape| is_short(*shape));
    for [m, n, k] in long {
        output::say(&format!("note: {m}x{n}x{k} is left out, it takes minutes"));
    }
    match short.is_empty() {
        true => anyhow::bail!("{model}: every product takes minutes; bind smaller sizes (--bind)"),
        false => Ok(short),
    }
}
