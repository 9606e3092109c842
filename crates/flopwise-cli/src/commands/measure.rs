//! `flopwise measure`: what this machine really does.

use crate::Outcome;
use crate::args::MeasureArgs;
use crate::{output, profiles};
use flopwise::report::Report;

pub(super) fn run(args: &MeasureArgs) -> anyhow::Result<Outcome> {
    if let Some(path) = &args.output {
        profiles::check_place(path)?;
    }
    let profile = profiles::measure_this();
    let stored = profiles::store(&profile, args.output.as_deref());
    let report = Report::Measure(Box::new(profile));
    // What took five seconds is shown even if it cannot be kept.
    output::print(&report, args.json)?;
    let path = stored?;
    output::say(&format!("wrote {}", path.display()));
    Ok(Outcome::Yes)
}
