//! The slices of experiments: load and clock alternately, and of experiments that are to be compared
//! in turn, so that a neighbour or a falling clock takes from each alike.
//!
//! Not here: which experiments (`steps.rs`) and what their slices mean (`record.rs`).

use crate::bench::{Bench, Experiment, Load, Outcome, Place, Setup, Slice, Unmeasurable};
use crate::plan::Plan;
use crate::record::Series;
use crate::sample::Triple;
use crate::steps::{Purpose, Step};
use flopwise::machine::MemoryLevel;

/// No experiment takes more slices, whatever its machine says about time.
const MAX_SLICES: usize = 20_000;
/// Times its budget that an experiment may use while it has too few undisturbed slices.
const PATIENCE: f64 = 1.5;
/// Turns of each of several experiments.
const N_TURNS: u32 = 4;
/// Where a slice takes less than this share of a turn, the first of a turn is not counted: it finds
/// the caches as another experiment has left them.
const SMALL_SLICE: f64 = 0.25;

/// An experiment under way.
struct Run<'a> {
    step: &'a Step,
    /// Its place among the answers.
    place: usize,
    /// What the machine knows it by.
    number: usize,
    setup: Setup,
    triples: Vec<Triple>,
    spent_s: f64,
    n_clean: u32,
    flaw: Option<Unmeasurable>,
}

/// Runs experiments, several in turn. An answer for each, in order; `progress` hears the share of
/// all that is done.
pub(crate) fn run(
    machine: &mut dyn Bench,
    steps: &[Step],
    plan: &Plan,
    progress: &mut dyn FnMut(f64),
) -> Vec<Result<Series, Unmeasurable>> {
    progress(0.0);
    let mut runs: Vec<Run> = Vec::new();
    let mut refused = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let is_first = runs.is_empty();
        let prepared = match is_first {
            true => machine.prepare(&step.experiment),
            false => machine.prepare_beside(&step.experiment),
        };
        match prepared {
            Ok(setup) => runs.push(Run::new(step, place, runs.len(), setup)),
            Err(reason) => refused.push((place, is_first, reason)),
        }
    }
    let n_turns = if runs.len() <= 1 { 1 } else { N_TURNS };
    let n_runs = runs.len().max(1);
    for turn in 1..=n_turns {
        // There and back: who comes first in one turn comes last in the next.
        let order: Vec<usize> = match turn % 2 {
            1 => (0..runs.len()).collect(),
            _ => (0..runs.len()).rev().collect(),
        };
        for (n_before, run_idx) in order.into_iter().enumerate() {
            let before = f64::from(turn - 1) + n_before as f64 / n_runs as f64;
            let mut in_turn = |share: f64| {
                progress((before + share / n_runs as f64) / f64::from(n_turns));
            };
            runs[run_idx].turn(machine, plan, [turn, n_turns], &mut in_turn);
        }
    }
    let mut answers: Vec<Option<Result<Series, Unmeasurable>>> = Vec::new();
    answers.resize_with(steps.len(), || None);
    for finished in runs {
        let place = finished.place;
        answers[place] = Some(finished.answer());
    }
    for (place, is_first, reason) in refused {
        // There may be room for it alone.
        let mut alone = || run(machine, &steps[place..=place], plan, &mut |_share| ()).pop();
        answers[place] = if is_first { Some(Err(reason)) } else { alone() };
    }
    progress(1.0);
    answers.into_iter().map(|answer| answer.expect("each step ran or was refused")).collect()
}

impl<'a> Run<'a> {
    fn new(step: &'a Step, place: usize, number: usize, setup: Setup) -> Run<'a> {
        let (triples, spent_s, n_clean, flaw) = (Vec::new(), 0.0, 0, None);
        Run { step, place, number, setup, triples, spent_s, n_clean, flaw }
    }

    fn answer(self) -> Result<Series, Unmeasurable> {
        match self.flaw {
            Some(flaw) => Err(flaw),
            None => Ok(Series { setup: self.setup, triples: self.triples }),
        }
    }

    /// The undisturbed slices with which it has enough.
    fn enough(&self, plan: &Plan) -> u32 {
        match self.step.purpose {
            // A look at what happens over time must last.
            Purpose::Sustained => u32::MAX,
            Purpose::Rate | Purpose::Chains | Purpose::Values | Purpose::Curve | Purpose::Round => {
                plan.enough_samples
            }
        }
    }

    /// Alternates load and clock slices until this turn's share of them is there, or its share of
    /// the budget is spent. `turn` is which of how many, from 1.
    fn turn(
        &mut self,
        machine: &mut dyn Bench,
        plan: &Plan,
        [turn, n_turns]: [u32; 2],
        progress: &mut dyn FnMut(f64),
    ) {
        let share_by_now = f64::from(turn) / f64::from(n_turns);
        let enough = self.enough(plan);
        let enough_by_now = (share_by_now * f64::from(enough)).ceil() as u32;
        let begin_s = self.spent_s;
        let turn_s = share_by_now * self.step.budget_s - begin_s;
        machine.turn_to(self.number);
        let is_small =
            self.triples.last().is_some_and(|triple| triple.load.spent_s < SMALL_SLICE * turn_s);
        if is_small {
            self.spent_s += machine.load_slice().spent_s;
        }
        let mut before = self.clock_slice(machine);
        let mut reported_share = 0.0;
        while self.flaw.is_none() && self.triples.len() < MAX_SLICES && self.n_clean < enough_by_now
        {
            let is_last = turn == n_turns;
            let patience =
                if is_last && self.n_clean < plan.least_samples { PATIENCE } else { 1.0 };
            if patience * share_by_now * self.step.budget_s <= self.spent_s {
                break;
            }
            before = self.triple(machine, before);
            // Done by samples or by time, whichever is further.
            let by_samples = f64::from(self.n_clean) / f64::from(enough_by_now.max(1));
            let by_time = (self.spent_s - begin_s) / turn_s.max(f64::MIN_POSITIVE);
            let share = by_samples.max(by_time).min(1.0);
            if reported_share + 0.05 <= share {
                reported_share = share;
                progress(share);
            }
        }
    }

    /// A load slice and the clock after it, which is the clock before the next.
    fn triple(&mut self, machine: &mut dyn Bench, before: Option<Slice>) -> Option<Slice> {
        let load = machine.load_slice();
        self.spent_s += load.spent_s;
        if load.outcome == Outcome::Wrong {
            self.flaw = Some(Unmeasurable("a slice gave a wrong result".to_owned()));
            return None;
        }
        let after = self.clock_slice(machine);
        self.n_clean += u32::from(load.is_clean());
        self.triples.push(Triple { before, load, after });
        after
    }

    fn clock_slice(&mut self, machine: &mut dyn Bench) -> Option<Slice> {
        let slice = if is_clocked(&self.step.experiment) { machine.clock_slice() } else { None };
        self.spent_s += slice.map_or(0.0, |slice| slice.spent_s);
        slice
    }
}

/// Whether the clock is measured beside a load: main memory does not depend on it.
fn is_clocked(experiment: &Experiment) -> bool {
    match experiment.load {
        Load::Peak(_) | Load::Gemm(_) | Load::Chase(_) => true,
        Load::Stream(stream) => stream.place != Place::Level(MemoryLevel::Dram),
    }
}
