//! A loop of the instruction peak as a load: verified, then run and watched.
//!
//! Not here: which loop (`mod.rs`), and its instructions.

use super::super::workers::Kernel;
use super::frame::Frame;
use super::twin::{self, Number};
use super::{Choice, STEPS_PER_PASS};
use crate::bench::Unmeasurable;
use std::num::FpCategory;

/// Passes compared with the twin: odd, and many enough that rounding matters.
const N_VERIFIED: u64 = 101;
/// Products that the twin may take: some 20 ms of them.
const MAX_TWIN_PRODUCTS: u64 = 1 << 20;

/// Verifies the loop on this thread.
pub(super) fn build(choice: Choice) -> Result<Box<dyn Kernel>, Unmeasurable> {
    let layout = choice.layout();
    let mut frame = Frame::new(layout, choice.values);
    let mut expected = Frame::new(layout, choice.values);
    let n_passes = n_verified(&choice);
    run_twin(&choice, n_passes, &mut expected);
    // SAFETY: the choice exists, so the processor has its instructions; the frame was laid out for
    // it; the passes are not 0.
    unsafe { (choice.run)(n_passes, &raw mut *frame) };
    let number = layout.arithmetic.sum();
    let is_same =
        |(a, b): (u64, u64)| a == b || number.value(a).is_nan() && number.value(b).is_nan();
    if !frame.sums(layout).zip(expected.sums(layout)).all(is_same) {
        let (isa, instruction) = (choice.kernel.isa, choice.kernel.instruction);
        return Err(Unmeasurable(format!(
            "{instruction} ({isa}) differs from its scalar twin: not timed"
        )));
    }
    let categories = expected.sums(layout).map(|sum| category(number, sum)).collect();
    Ok(Box::new(Peak { choice, frame, categories, n_passes: 0, last: None }))
}

/// So many passes that the twin is done soon.
fn n_verified(choice: &Choice) -> u64 {
    let per_pass = choice.ops_per_pass() / 2;
    (MAX_TWIN_PRODUCTS / per_pass.max(1)).clamp(1, N_VERIFIED) | 1
}

/// What the loop must do.
fn run_twin(choice: &Choice, n_passes: u64, frame: &mut Frame) {
    let Choice { kernel, n_chains, n_adding, .. } = *choice;
    let (a, b) = (frame.a, frame.b);
    for (chain_idx, register) in frame.registers_mut(choice.layout()).enumerate() {
        for _ in 0..n_passes * STEPS_PER_PASS {
            match chain_idx < n_chains - n_adding {
                true => kernel.arithmetic.step(register, &a, &b),
                false => twin::add(kernel.arithmetic.sum(), register, &a),
            }
        }
    }
}

/// Integers have one category only.
fn category(number: Number, bits: u64) -> FpCategory {
    match number {
        Number::Fp64 => f64::from_bits(bits).classify(),
        Number::Fp32 => f32::from_bits(bits as u32).classify(),
        Number::Fp16 => match bits & 0x7fff {
            0 => FpCategory::Zero,
            magnitude if magnitude < 0x400 => FpCategory::Subnormal,
            magnitude if magnitude < 0x7c00 => FpCategory::Normal,
            0x7c00 => FpCategory::Infinite,
            _ => FpCategory::Nan,
        },
        Number::Bf16 | Number::Int32 | Number::Int16 | Number::Int8 | Number::Uint8 => {
            FpCategory::Normal
        }
    }
}

struct Peak {
    choice: Choice,
    frame: Box<Frame>,
    /// Of each sum, what kind of number the twin found: subnormals stay subnormal, and the sums of
    /// ordinary numbers finite.
    categories: Vec<FpCategory>,
    /// Passes since the frame was restarted.
    n_passes: u64,
    /// What so many passes led to before.
    last: Option<(u64, Vec<u64>)>,
}

impl Kernel for Peak {
    fn make_ready(&mut self) {
        self.frame.restart(self.choice.layout(), self.choice.values);
        self.n_passes = 0;
    }

    fn run(&mut self, amount: u64) {
        if amount == 0 {
            return;
        }
        self.n_passes += amount;
        // SAFETY: the choice exists, so the processor has its instructions; the frame was laid out
        // for it; `amount` is not 0.
        unsafe { (self.choice.run)(amount, &raw mut *self.frame) };
    }

    fn work(&self, amount: u64) -> f64 {
        amount as f64 * self.choice.ops_per_pass() as f64
    }

    /// The twin would take too long for a whole slice. So: every sum must be the kind of number
    /// that the twin found, and so many passes must lead to the same bits each time.
    fn is_correct(&mut self) -> bool {
        let layout = self.choice.layout();
        let number = layout.arithmetic.sum();
        let sums: Vec<u64> = self.frame.sums(layout).collect();
        let mut pairs = sums.iter().zip(&self.categories);
        let are_alike = pairs.all(|(&sum, &expected)| category(number, sum) == expected);
        let is_repeated = self
            .last
            .as_ref()
            .is_none_or(|(passes, last)| *passes != self.n_passes || *last == sums);
        self.last = Some((self.n_passes, sums));
        are_alike && is_repeated
    }
}
