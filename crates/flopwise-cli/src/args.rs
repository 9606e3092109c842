//! What can be typed, and the help that teaches it.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use flopwise::query::AttentionCount;
use flopwise::report::Grouping;
use flopwise::units::Seconds;
use std::path::PathBuf;

/// What machine-learning numbers cost: counted exactly, measured truthfully, estimated with the
/// working shown.
#[derive(Debug, Parser)]
#[command(name = "flopwise", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  flopwise report resnet50                      the model, this machine, and the time on one page
  flopwise report model.onnx --html page.html   the same with the roofline drawn
  flopwise count gpt2                           a formula in batch and seq
  flopwise count gpt2 --bind batch=8,seq=512    exact numbers
  flopwise count model.pt2 --by module --json   every node, for other programs
  flopwise measure                              what this machine really does, in about 5 seconds
  flopwise model                                the built-in models

1 MAC = 2 FLOPs. FLOPs count work; FLOP/s is a rate.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Model, machine and time on one page
    Report(ReportArgs),
    /// Count the MACs, FLOPs, parameters and bytes of a model
    Count(CountArgs),
    /// Measure what this machine really does: clock, FLOP/s, bytes per second
    Measure(MeasureArgs),
    /// Estimate how long a model takes on a machine
    Estimate(EstimateArgs),
    /// List the built-in models
    Model(ModelArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Which model, at which sizes.
#[derive(Debug, ClapArgs)]
pub(crate) struct ModelChoice {
    /// A path (.onnx, .pt2) or a built-in name (`flopwise model` lists them)
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Values for the model's symbols
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', value_parser = binding)]
    pub(crate) bind: Vec<(String, i128)>,
    /// Pairs counted under a causal mask: those it lets through, or all
    #[arg(long, value_enum, default_value_t = Attention::Exact)]
    pub(crate) attention: Attention,
    /// Exit with 1 when something could not be counted
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise count resnet50.onnx                 totals, and rows by kind of operator
  flopwise count gpt2 --bind batch=8,seq=512   at these sizes
  flopwise count gpt2 --formula                MACs and bytes in the model's symbols
  flopwise count vit_b_16 --by module          rows by module (also op, line, node)
  flopwise count resnet50 --explain layer1.0.conv1   one node's counts, step by step")]
pub(crate) struct CountArgs {
    #[command(flatten)]
    pub(crate) choice: ModelChoice,
    /// What each row of the table is
    #[arg(long, value_enum, default_value_t = By::Kind)]
    pub(crate) by: By,
    /// Show the working: of one node (by name, result or module), or of the whole model
    #[arg(long, value_name = "NODE", num_args = 0..=1, conflicts_with = "formula")]
    pub(crate) explain: Option<Option<String>>,
    /// Print only the totals as formulas in the model's symbols
    #[arg(long, conflicts_with = "json")]
    pub(crate) formula: bool,
}

/// How masked attention is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attention {
    Exact,
    Full,
}

impl Attention {
    pub(crate) fn count(self) -> AttentionCount {
        match self {
            Attention::Exact => AttentionCount::Exact,
            Attention::Full => AttentionCount::Full,
        }
    }
}

/// What each row of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    Op,
    Kind,
    Module,
    Line,
    Node,
}

impl By {
    pub(crate) fn grouping(self) -> Grouping {
        match self {
            By::Op => Grouping::Op,
            By::Kind => Grouping::Kind,
            By::Module => Grouping::Module,
            By::Line => Grouping::Line,
            By::Node => Grouping::Node,
        }
    }
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise measure                        about 5 seconds; kept for `estimate` and `report`
  flopwise measure --output machine.json  to carry to another machine
  flopwise measure --json                 for other programs

Slices in which another process took the processor are dropped; how many were kept is printed.")]
pub(crate) struct MeasureArgs {
    /// The short measurement (about 5 seconds); the only one so far, and the default
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the profile here instead of into the user's data directory
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which machine.
#[derive(Debug, ClapArgs)]
pub(crate) struct MachineChoice {
    /// `this` (measured first if it never was) or a profile that `measure --output` wrote
    #[arg(long, value_name = "MACHINE", default_value = "this")]
    pub(crate) on: String,
    /// Time assumed for starting each kernel
    #[arg(long, value_name = "TIME", default_value = "5us", value_parser = overhead)]
    pub(crate) overhead: Seconds,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise estimate resnet50 --bind batch=32    on this machine
  flopwise estimate gpt2 --on machine.json      on the machine that was measured there")]
pub(crate) struct EstimateArgs {
    #[command(flatten)]
    pub(crate) choice: ModelChoice,
    #[command(flatten)]
    pub(crate) machine: MachineChoice,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise report resnet50
  flopwise report gpt2 --bind batch=1,seq=512 --html gpt2.html")]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) choice: ModelChoice,
    #[command(flatten)]
    pub(crate) machine: MachineChoice,
    /// Also write the report as one HTML page with the roofline drawn
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ModelArgs {
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  flopwise completions bash > ~/.local/share/bash-completion/completions/flopwise"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

fn binding(text: &str) -> Result<(String, i128), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=N, for instance batch=8")?;
    let value: i128 = value
        .trim()
        .replace('_', "")
        .parse()
        .map_err(|_| format!("`{value}` is not a whole number"))?;
    Ok((name.trim().to_owned(), value))
}

fn overhead(text: &str) -> Result<Seconds, String> {
    if !text.trim_end().ends_with('s') {
        return Err("write a time with its unit, for instance 5us".to_owned());
    }
    let time: Seconds = text.parse().map_err(|error| format!("{error}"))?;
    match time.0.is_finite() && 0.0 <= time.0 {
        true => Ok(time),
        false => Err("a time must be finite and not negative".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_argument_has_help() {
        for command in Args::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }

    #[test]
    fn bindings_parse() {
        let check = |text: &str, expected: Option<(&str, i128)>| {
            let found = binding(text).ok();
            assert_eq!(found.as_ref().map(|(name, value)| (name.as_str(), *value)), expected);
        };
        check("batch=8", Some(("batch", 8)));
        check("seq = 1_024", Some(("seq", 1024)));
        check("batch", None);
        check("batch=x", None);
        check("batch=1.5", None);
    }
}
