//! `flopwise model`: the built-in models.

use crate::Outcome;
use crate::args::ModelArgs;
use crate::output;
use flopwise::query::{Query, answer};

pub(super) fn run(args: &ModelArgs) -> anyhow::Result<Outcome> {
    output::print(&answer(&Query::Models(args.name.clone()))?, args.json)?;
    Ok(Outcome::Yes)
}
