//! The instruction peak: multiply-adds from registers, as many chains as are asked for.
//!
//! Not here: memory, and what the chains' rates mean (`measure.rs`). The kernels of each
//! architecture are in `x86.rs`, `amx.rs`, `aarch64.rs` and `sme.rs`; each is verified against its
//! scalar twin (`twin.rs`) before it is timed (`load.rs`).

mod frame;
mod load;
mod portable;
mod twin;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod sme;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Runnable;
use super::workers::Build;
use crate::bench::{ElementFormat, Mix, PeakAbility, PeakLoad, Unmeasurable, Values};
use frame::{Frame, Layout};
use twin::Arithmetic;

/// One way of multiplying and adding.
#[derive(Clone, Copy, Debug)]
struct PeakKernel {
    /// The format of its factors.
    format: ElementFormat,
    /// Its instruction set, as a profile names it.
    isa: &'static str,
    /// Its instruction and width; the several that stand for one where there is none.
    instruction: &'static str,
    /// The features of the processor that it needs, all of them.
    needs: &'static [&'static str],
    /// What a step does to an accumulator: the scalar twin.
    arithmetic: Arithmetic,
    /// Bytes of an accumulator.
    register_bytes: usize,
    /// Its loops, the fewest chains first; the last hides the latency.
    loops: &'static [Loop],
    /// The loop that mixes multiply-adds with additions, if there is one.
    add_mix: Option<MixLoop>,
}

/// Runs so many passes, at least one, on the frame.
type RunPasses = unsafe fn(n_passes: u64, frame: *mut Frame);

/// A loop over so many accumulators.
#[derive(Clone, Copy, Debug)]
struct Loop {
    n_chains: usize,
    run: RunPasses,
}

/// A loop of as many multiply-adds as additions, each on accumulators of its own.
#[derive(Clone, Copy, Debug)]
struct MixLoop {
    /// In all: the first half are multiplied and added, the others added to.
    n_chains: usize,
    run: RunPasses,
}

/// Steps of each chain in one pass of any loop.
const STEPS_PER_PASS: u64 = 4;

/// One loop of one kernel, on one kind of values. In existence only where the processor has its
/// instructions.
#[derive(Clone, Copy, Debug)]
struct Choice {
    kernel: PeakKernel,
    run: RunPasses,
    n_chains: usize,
    /// How many of the chains add only: the last ones.
    n_adding: usize,
    values: Values,
}

impl Choice {
    fn layout(&self) -> Layout {
        Layout {
            arithmetic: self.kernel.arithmetic,
            register_bytes: self.kernel.register_bytes,
            n_registers: self.n_chains,
        }
    }

    /// Operations of one pass: two a multiply-add, one an addition.
    fn ops_per_pass(&self) -> u64 {
        let arithmetic = self.kernel.arithmetic;
        let n_sums = (self.kernel.register_bytes / arithmetic.sum().bytes()) as u64;
        let multiplying = (self.n_chains - self.n_adding) as u64;
        let ops = multiplying * arithmetic.ops(self.kernel.register_bytes)
            + self.n_adding as u64 * n_sums;
        ops * STEPS_PER_PASS
    }

    fn backend(&self) -> String {
        match self.kernel.isa {
            portable::ISA => "portable".to_owned(),
            isa => format!("asm-{}", isa.replace('+', "-")),
        }
    }
}

/// What can be asked for.
pub(super) fn abilities() -> Vec<PeakAbility> {
    let ability = |kernel: PeakKernel| PeakAbility {
        format: kernel.format,
        isa: kernel.isa,
        instruction: kernel.instruction,
        ops_per_instruction: kernel.arithmetic.ops(kernel.register_bytes) as u32,
        chains: kernel.loops.iter().map(|chains| chains.n_chains as u32).collect(),
        has_add_mix: kernel.add_mix.is_some(),
        is_float: kernel.arithmetic.sum().is_float(),
    };
    let mut abilities: Vec<PeakAbility> = available(features()).into_iter().map(ability).collect();
    abilities.sort_by_key(|ability| ability.format); // stable: the fastest stay first
    abilities
}

/// The widest instruction set there are kernels for: that of FP32, which every processor has.
pub(super) fn widest_isa() -> &'static str {
    let fp32 = choose(features(), PeakLoad::of(ElementFormat::Fp32));
    fp32.map_or(portable::ISA, |choice| choice.kernel.isa)
}

/// The kernel that a load asks for, for each of so many threads.
pub(super) fn runnable(load: PeakLoad, n_threads: usize) -> Result<Runnable, Unmeasurable> {
    let choice = choose(features(), load)?;
    let build_one = || -> Build { Box::new(move || load::build(choice)) };
    let instruction = match load.mix {
        Mix::MultiplyAdd => choice.kernel.instruction.to_owned(),
        Mix::MultiplyAddAndAdd => format!("{} and additions 1:1", choice.kernel.instruction),
    };
    Ok(Runnable {
        builds: (0..n_threads).map(|_| build_one()).collect(),
        backend: choice.backend(),
        instruction: Some(instruction),
        chains: Some(choice.n_chains as u32),
        array_bytes: None,
    })
}

/// The first kernel, of those that so many features allow, that does what is asked.
fn choose(features: &[&str], load: PeakLoad) -> Result<Choice, Unmeasurable> {
    let format = load.format.name();
    let available = available(features);
    let mut kernels = available.iter().filter(|kernel| {
        kernel.format == load.format && load.isa.is_none_or(|isa| isa == kernel.isa)
    });
    let missing = || match load.isa {
        None => Unmeasurable(format!("this processor has no {format} arithmetic of its own")),
        Some(isa) => Unmeasurable(format!("this processor has no {format} kernel for {isa}")),
    };
    let kernel = *match load.mix {
        Mix::MultiplyAdd => kernels.next().ok_or_else(missing)?,
        Mix::MultiplyAddAndAdd => kernels
            .find(|kernel| kernel.add_mix.is_some())
            .ok_or_else(|| Unmeasurable(format!("{format} has no mix with additions here")))?,
    };
    let is_float = kernel.arithmetic.sum().is_float();
    if !is_float && !matches!(load.values, Values::Ordinary | Values::Zero) {
        return Err(Unmeasurable(format!("{format} has no such values")));
    }
    let wanted = load.chains.map(|chains| chains as usize);
    let (run, n_chains, n_adding) = match load.mix {
        Mix::MultiplyAdd => {
            let mut loops = kernel.loops.iter().rev();
            let found = loops.find(|chains| wanted.is_none_or(|wanted| wanted == chains.n_chains));
            found.map(|chains| (chains.run, chains.n_chains, 0))
        }
        Mix::MultiplyAddAndAdd => kernel
            .add_mix
            .filter(|mix| wanted.is_none_or(|wanted| wanted == mix.n_chains))
            .map(|mix| (mix.run, mix.n_chains, mix.n_chains / 2)),
    }
    .ok_or_else(|| {
        let chains = wanted.unwrap_or(0);
        Unmeasurable(format!("{} has no loop of {chains} chains", kernel.instruction))
    })?;
    Ok(Choice { kernel, run, n_chains, n_adding, values: load.values })
}

/// The kernels that so many features allow, the fastest of each format first.
fn available(features: &[&str]) -> Vec<PeakKernel> {
    #[cfg(target_arch = "x86_64")]
    let tables = [amx::KERNELS, x86::KERNELS, portable::KERNELS];
    #[cfg(target_arch = "aarch64")]
    let tables = [sme::KERNELS, aarch64::KERNELS, portable::KERNELS];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let tables = [portable::KERNELS];
    let is_here = |kernel: &&PeakKernel| kernel.needs.iter().all(|need| features.contains(need));
    tables.into_iter().flatten().filter(is_here).copied().collect()
}

/// What this processor and its operating system allow, as [`PeakKernel::needs`] names it.
fn features() -> &'static [&'static str] {
    static FEATURES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    FEATURES.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return [x86::features(), amx::features()].concat();
        #[cfg(target_arch = "aarch64")]
        return [aarch64::features(), sme::features()].concat();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Vec::new();
    })
}

#[cfg(test)]
mod tests;
