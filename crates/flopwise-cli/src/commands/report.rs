//! `flopwise report`: model, machine and time on one page.

use super::{estimate_query, outcome};
use crate::Outcome;
use crate::args::ReportArgs;
use crate::output;
use flopwise::query::{Query, answer};
use flopwise::report::{Report, html};

/// What every page written here holds near its beginning.
const MARK: &str = "content=\"flopwise";

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<Outcome> {
    if let Some(path) = &args.html {
        output::check_place(path, MARK)?;
    }
    let report = answer(&Query::Page(estimate_query(&args.choice, &args.machine)?))?;
    let Report::Page(page) = &report else { unreachable!("a page query has a page report") };
    output::print(&report, args.choice.json)?;
    if let Some(path) = &args.html {
        output::write_file(path, &html(page), MARK)?;
        output::say(&format!("wrote {}", path.display()));
    }
    Ok(outcome(&args.choice, &page.count))
}
