//! `flopwise completions`: a completion script.

use crate::Outcome;
use crate::args::{Args, CompletionsArgs};
use crate::output;
use clap::CommandFactory;

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "flopwise", &mut script);
    output::write_stdout(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Yes)
}
