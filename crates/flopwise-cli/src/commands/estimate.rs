//! `flopwise estimate`: how long a model takes on a machine.

use super::{estimate_query, outcome};
use crate::Outcome;
use crate::args::EstimateArgs;
use crate::output;
use flopwise::query::{Query, answer};
use flopwise::report::Report;

pub(super) fn run(args: &EstimateArgs) -> anyhow::Result<Outcome> {
    let report = answer(&Query::Estimate(estimate_query(&args.choice, &args.machine)?))?;
    output::print(&report, args.choice.json)?;
    let Report::Estimate(estimate) = &report else {
        unreachable!("an estimate query has an estimate report")
    };
    Ok(outcome(&args.choice, &estimate.count))
}
