//! `flopwise format`: the number formats.

use crate::Outcome;
use crate::args::FormatArgs;
use crate::output;
use flopwise::query::{Query, answer};

pub(super) fn run(args: &FormatArgs) -> anyhow::Result<Outcome> {
    output::print(&answer(&Query::Formats(args.name.clone()))?, args.json)?;
    Ok(Outcome::Yes)
}
