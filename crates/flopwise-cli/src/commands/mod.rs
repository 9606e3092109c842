//! One file a command.

pub(crate) mod audit;
mod completions;
mod count;
mod estimate;
mod format;
pub(crate) mod matmul_error;
mod measure;
mod model;
mod number;
mod report;
pub(crate) mod tensors;

use crate::Outcome;
use crate::args::{Args, Command, MachineChoice, Mode, ModelChoice};
use crate::profiles;
use flopwise::estimate::Setup;
use flopwise::query::{CountQuery, EstimateQuery, Working};
use flopwise::report::{CountReport, Grouping};

/// Runs the command asked for.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Report(args) => report::run(args),
        Command::Count(args) => count::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Number(args) => number::run(args),
        Command::Format(args) => format::run(args),
        Command::MatmulError(args) => matmul_error::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Estimate(args) => estimate::run(args),
        Command::Tensors(args) => tensors::run(args),
        Command::Model(args) => model::run(args),
        Command::Completions(args) => completions::run(args),
    }
}

fn count_query(choice: &ModelChoice, grouping: Grouping) -> CountQuery {
    CountQuery {
        model: choice.model.clone(),
        bindings: choice.bind.clone(),
        grouping,
        masking: choice.masking.masking(),
        positions: choice.conv.positions(),
        mtp: choice.mtp,
        weights: choice.weights,
        memory: choice.state.query(Working::Hidden),
    }
}

/// The model is counted first, so that a mistyped name does not wait for a measurement.
fn estimate_query(choice: &ModelChoice, machine: &MachineChoice) -> anyhow::Result<EstimateQuery> {
    if choice.masking.mode == Mode::Train {
        anyhow::bail!(
            "the time of a training step is not estimated; `count --mode train` counts it"
        );
    }
    let count = count_query(choice, Grouping::Module);
    flopwise::query::answer(&flopwise::query::Query::Count(count.clone()))?;
    let profile = profiles::machine(&machine.on)?;
    Ok(EstimateQuery { count, profile, setup: Setup { overhead: machine.overhead } })
}

/// What `--strict` makes of a lower bound.
fn outcome(choice: &ModelChoice, report: &CountReport) -> Outcome {
    if choice.strict && report.is_lower_bound { Outcome::No } else { Outcome::Yes }
}
