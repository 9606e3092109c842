//! `flopwise count`: what a model costs.

use super::{count_query, outcome};
use crate::Outcome;
use crate::args::CountArgs;
use crate::output;
use flopwise::query::{Query, answer};
use flopwise::report::{Formula, Report};

pub(super) fn run(args: &CountArgs) -> anyhow::Result<Outcome> {
    if let Some(node) = &args.explain {
        let query = count_query(&args.choice, args.by.grouping());
        let report = answer(&Query::Explain(query, node.clone()))?;
        output::print(&report, args.choice.json)?;
        return Ok(Outcome::Yes);
    }
    let report = answer(&Query::Count(count_query(&args.choice, args.by.grouping())))?;
    let Report::Count(count) = &report else { unreachable!("a count query has a count report") };
    if args.formula {
        output::write_stdout(&formulas(&count.formula, count.is_lower_bound))?;
    } else {
        output::print(&report, args.choice.json)?;
    }
    Ok(outcome(&args.choice, count))
}

fn formulas(formula: &Formula, is_lower_bound: bool) -> String {
    let relation = if is_lower_bound { ">=" } else { "=" };
    let lines = [
        ("MACs", &formula.macs),
        ("other ops", &formula.other_ops),
        ("transcendental ops", &formula.transcendental_ops),
        ("bytes read", &formula.bytes_read),
        ("bytes written", &formula.bytes_written),
    ];
    lines.map(|(name, formula)| format!("{name:<18} {relation} {formula}\n")).concat()
}
