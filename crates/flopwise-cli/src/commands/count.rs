//! `flopwise count`: what a model costs.

use super::{count_query, outcome};
use crate::Outcome;
use crate::args::{CountArgs, Mode};
use crate::output;
use flopwise::cost::{Optimizer, Recompute};
use flopwise::query::{Query, SweepQuery, TrainQuery, Working, answer};
use flopwise::report::{Formula, Report, TrainingReport, sweep_svg};

/// What every drawing written here holds near its beginning.
const MARK: &str = "<!-- drawn by flopwise -->";

pub(super) fn run(args: &CountArgs) -> anyhow::Result<Outcome> {
    if let Some(conventions) = args.convention {
        let trains = args.choice.masking.mode == Mode::Train;
        let conventions = if trains { conventions.of_training() } else { conventions };
        let query = count_query(&args.choice, args.by.grouping());
        let working = if args.explain.is_some() { Working::Shown } else { Working::Hidden };
        let report = answer(&Query::Convention(query, conventions, working))?;
        output::print(&report, args.choice.json)?;
        return Ok(Outcome::Yes);
    }
    match args.choice.masking.mode {
        Mode::Train if args.versus.is_some() || args.sweep.is_some() => {
            anyhow::bail!("--versus and --sweep compare passes; leave --mode train away");
        }
        Mode::Train => return train(args),
        Mode::Forward | Mode::Decode if args.train.is_given() => {
            anyhow::bail!("what is trained, and how, needs --mode train");
        }
        Mode::Forward | Mode::Decode => {}
    }
    if let Some(node) = &args.explain {
        let query = count_query(&args.choice, args.by.grouping());
        let report = answer(&Query::Explain(query, node.clone()))?;
        output::print(&report, args.choice.json)?;
        return Ok(Outcome::Yes);
    }
    if args.versus.is_some() || !args.versus_bind.is_empty() {
        return versus(args);
    }
    if let Some((symbol, values)) = &args.sweep {
        return sweep(args, symbol, values);
    }
    let mut query = count_query(&args.choice, args.by.grouping());
    let table = if args.memory { Working::Shown } else { Working::Hidden };
    query.memory = args.choice.state.query(table);
    let mut report = answer(&Query::Count(query))?;
    if let Report::Count(count) = &mut report {
        count.depth = args.depth;
    }
    let Report::Count(count) = &report else { unreachable!("a count query has a count report") };
    if args.formula {
        output::write_stdout(&formulas(&count.formula, count.is_lower_bound))?;
    } else {
        output::print(&report, args.choice.json)?;
    }
    Ok(outcome(&args.choice, count))
}

fn versus(args: &CountArgs) -> anyhow::Result<Outcome> {
    let left = count_query(&args.choice, args.by.grouping());
    let mut right = left.clone();
    if let Some(model) = &args.versus {
        right.model.clone_from(model);
    }
    if !args.versus_bind.is_empty() {
        right.bindings.clone_from(&args.versus_bind);
    }
    let report = answer(&Query::Versus(left, right))?;
    output::print(&report, args.choice.json)?;
    let Report::Versus(both) = &report else { unreachable!("a comparison has two sides") };
    let sides = [&both.left, &both.right];
    let is_no = sides.iter().any(|side| outcome(&args.choice, side) == Outcome::No);
    Ok(if is_no { Outcome::No } else { Outcome::Yes })
}

fn sweep(args: &CountArgs, symbol: &str, values: &[i128]) -> anyhow::Result<Outcome> {
    if let Some(path) = &args.svg {
        output::check_place(path, MARK)?;
    }
    let count = count_query(&args.choice, args.by.grouping());
    let query = SweepQuery { count, symbol: symbol.to_owned(), values: values.to_vec() };
    let report = answer(&Query::Sweep(query))?;
    output::print(&report, args.choice.json)?;
    let Report::Sweep(sweep) = &report else { unreachable!("a sweep query has a sweep report") };
    if let Some(path) = &args.svg {
        output::write_file(path, &sweep_svg(sweep), MARK)?;
        output::say(&format!("wrote {}", path.display()));
    }
    let is_no = args.choice.strict && sweep.is_lower_bound;
    Ok(if is_no { Outcome::No } else { Outcome::Yes })
}

fn train(args: &CountArgs) -> anyhow::Result<Outcome> {
    let choice = &args.train;
    let query = Box::new(TrainQuery {
        count: count_query(&args.choice, args.by.grouping()),
        train_only: choice.train_only.clone(),
        freeze: choice.freeze.clone(),
        lora: choice.lora.clone(),
        loss: choice.loss.clone(),
        recompute: choice.recompute.unwrap_or(Recompute::Nothing),
        optimizer: choice.optimizer.unwrap_or(Optimizer::AdamW),
    });
    if let Some(node) = &args.explain {
        let report = answer(&Query::ExplainTrain(query, node.clone()))?;
        output::print(&report, args.choice.json)?;
        return Ok(Outcome::Yes);
    }
    let report = answer(&Query::Train(query))?;
    let Report::Training(trained) = &report else {
        unreachable!("a training query has a training report")
    };
    if args.formula {
        output::write_stdout(&training_formulas(trained))?;
    } else {
        output::print(&report, args.choice.json)?;
    }
    let is_refused = args.choice.strict && trained.is_lower_bound;
    Ok(if is_refused { Outcome::No } else { Outcome::Yes })
}

fn training_formulas(report: &TrainingReport) -> String {
    let relation = if report.is_lower_bound { ">=" } else { "=" };
    let formula = &report.formula;
    let lines = [
        ("model FLOPs", &formula.model_flops),
        ("hardware FLOPs", &formula.hardware_flops),
        ("saved bytes", &formula.saved_bytes),
    ];
    lines.map(|(name, formula)| format!("{name:<18} {relation} {formula}\n")).concat()
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
