//! The FP32 instruction peak: multiply-adds from registers, as many chains as hide their latency.
//!
//! Not here: memory. The kernels of each architecture are in `x86.rs` and `aarch64.rs`; each is
//! verified against its scalar twin before it is timed.

use super::Runnable;
use super::workers::{Build, Kernel};
use crate::bench::{ElementFormat, PeakAbility, PeakLoad, Unmeasurable};

/// Each pass adds this product to every accumulator. Full mantissas, so that the multiplier works.
pub(super) const FACTORS: [f32; 2] = [0.731_058_6, 0.462_117_16];
/// The most floats any kernel keeps: 16 registers of 16.
const MAX_STATE: usize = 256;
/// Passes compared with the twin: odd, and many enough that rounding matters.
const N_VERIFIED: u64 = 1001;

/// One way of multiplying and adding. In existence only where the processor has its instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct FmaKernel {
    /// Its instruction set, as a profile names it.
    pub(super) isa: &'static str,
    /// Its name in a profile.
    pub(super) backend: &'static str,
    /// Floats in each register.
    pub(super) n_lanes: usize,
    /// Registers that accumulate.
    pub(super) n_accumulators: usize,
    /// Steps of each accumulator in one pass.
    pub(super) n_steps: u64,
    /// Runs so many passes, at least one, on `n_lanes` x `n_accumulators` floats.
    pub(super) run: unsafe fn(n_passes: u64, state: *mut f32),
    /// What one step does to one float: the scalar twin.
    pub(super) step: fn(f32) -> f32,
}

/// What can be asked for.
pub(super) fn abilities() -> Vec<PeakAbility> {
    let ability = |kernel: FmaKernel| PeakAbility {
        format: ElementFormat::Fp32,
        isa: kernel.isa,
        instruction: kernel.isa,
        ops_per_instruction: 2 * kernel.n_lanes as u32,
        chains: vec![kernel.n_accumulators as u32],
        has_add_mix: false,
        is_float: true,
    };
    available().into_iter().map(ability).collect()
}

/// The widest instruction set there are kernels for.
pub(super) fn widest_isa() -> &'static str {
    best().isa
}

/// The kernel that a load asks for, for each of so many threads.
pub(super) fn runnable(load: PeakLoad, n_threads: usize) -> Result<Runnable, Unmeasurable> {
    if load != PeakLoad::of(ElementFormat::Fp32) {
        return Err(Unmeasurable(format!("{} has no such kernel here", load.format.name())));
    }
    let fma = best();
    let build_one = || -> Build { Box::new(move || build(fma)) };
    Ok(Runnable {
        builds: (0..n_threads).map(|_| build_one()).collect(),
        backend: fma.backend.to_owned(),
        instruction: Some(fma.isa.to_owned()),
        chains: Some(fma.n_accumulators as u32),
        array_bytes: None,
    })
}

/// The widest that this processor has.
fn best() -> FmaKernel {
    *available().first().expect("the portable kernel is always available")
}

/// All that this processor has, the widest first.
fn available() -> Vec<FmaKernel> {
    #[cfg(target_arch = "x86_64")]
    let mut kernels = super::x86::fma_kernels();
    #[cfg(target_arch = "aarch64")]
    let mut kernels = super::aarch64::fma_kernels();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let mut kernels = Vec::new();
    kernels.push(PORTABLE);
    kernels
}

/// A fused step: rounded once.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn fused_step(accumulator: f32) -> f32 {
    FACTORS[0].mul_add(FACTORS[1], accumulator)
}

/// Plain Rust for processors without a kernel: the compiler chooses the instructions, so this is
/// a lower bound.
const PORTABLE: FmaKernel = FmaKernel {
    isa: "scalar",
    backend: "portable",
    n_lanes: 1,
    n_accumulators: 32,
    n_steps: 16,
    run: run_portable,
    step: portable_step,
};

/// Multiplies the accumulator, since a loop that only adds a product loses the multiplication to
/// the optimiser, and rounds twice, since without the instruction a fused step is a library call.
fn portable_step(accumulator: f32) -> f32 {
    accumulator * FACTORS[0] + FACTORS[1]
}

/// # Safety
/// `state` holds 32 floats.
unsafe fn run_portable(n_passes: u64, state: *mut f32) {
    // SAFETY: the caller's promise; floats need no more alignment than the pointer's type has.
    let state: &mut [f32; 32] = unsafe { &mut *state.cast() };
    let mut accumulators = *state;
    for _ in 0..n_passes {
        for _ in 0..16 {
            for accumulator in &mut accumulators {
                *accumulator = portable_step(*accumulator);
            }
        }
        // A fixed point once reached must not be found out by the optimiser.
        accumulators = std::hint::black_box(accumulators);
    }
    *state = accumulators;
}

/// Verifies the kernel on this thread.
pub(super) fn build(fma: FmaKernel) -> Result<Box<dyn Kernel>, Unmeasurable> {
    let mut peak = Peak { fma, state: start_state(&fma) };
    peak.run(N_VERIFIED);
    let is_right = peak.state.0[..peak.n_floats()].iter().enumerate().all(|(float_idx, &float)| {
        let n_steps = N_VERIFIED * fma.n_steps;
        let expected =
            (0..n_steps).fold(start_value(&fma, float_idx), |float, _| (fma.step)(float));
        float.to_bits() == expected.to_bits()
    });
    match is_right {
        true => Ok(Box::new(peak)),
        false => Err(Unmeasurable(format!("{} differs from its scalar twin", fma.backend))),
    }
}

/// Aligned to the widest register.
#[derive(Clone)]
#[repr(align(64))]
struct State([f32; MAX_STATE]);

struct Peak {
    fma: FmaKernel,
    state: State,
}

/// Each accumulator starts with a value of its own.
fn start_value(fma: &FmaKernel, float_idx: usize) -> f32 {
    (float_idx / fma.n_lanes) as f32 * 0.125
}

fn start_state(fma: &FmaKernel) -> State {
    let mut state = State([0.0; MAX_STATE]);
    for (float_idx, float) in state.0.iter_mut().enumerate() {
        *float = start_value(fma, float_idx);
    }
    state
}

impl Peak {
    fn n_floats(&self) -> usize {
        self.fma.n_lanes * self.fma.n_accumulators
    }
}

impl Kernel for Peak {
    fn run(&mut self, amount: u64) {
        assert!(self.n_floats() <= MAX_STATE);
        if amount == 0 {
            return;
        }
        self.state = start_state(&self.fma);
        // SAFETY: the kernel exists, so the processor has its instructions; the state holds its
        // floats by the assertion above; `amount` is not 0.
        unsafe { (self.fma.run)(amount, self.state.0.as_mut_ptr()) };
    }

    fn work(&self, amount: u64) -> f64 {
        let n_multiply_adds = amount as f64 * self.fma.n_steps as f64 * self.n_floats() as f64;
        2.0 * n_multiply_adds
    }

    /// All floats of one register began equal and must end so, different from how they began.
    fn is_correct(&mut self) -> bool {
        let registers = self.state.0[..self.n_floats()].chunks_exact(self.fma.n_lanes);
        registers.enumerate().all(|(register_idx, lanes)| {
            let start = start_value(&self.fma, register_idx * self.fma.n_lanes);
            let is_alike = lanes.iter().all(|lane| lane.to_bits() == lanes[0].to_bits());
            is_alike && lanes[0].is_finite() && lanes[0].to_bits() != start.to_bits()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_equals_its_scalar_twin() {
        for kernel in available() {
            assert!(build(kernel).is_ok(), "{}", kernel.backend);
        }
    }

    #[test]
    fn a_kernel_that_skips_a_step_is_found_out() {
        let mut kernel = best();
        kernel.n_steps -= 1;
        assert!(build(kernel).is_err());
    }

    #[test]
    fn work_counts_two_per_multiply_add() {
        let peak = Peak { fma: PORTABLE, state: start_state(&PORTABLE) };
        assert!((peak.work(3) - (3 * 16 * 32 * 2) as f64).abs() < 1e-9);
    }
}
