//! What several results together say about the machine: latencies, shares of roofs, capacities of
//! caches, doubts.
//!
//! Not here: single rates (`record.rs`).

use crate::bench::{
    Abilities, ElementFormat, Experiment, Load, PeakLoad, Place, Values, latency_cycles,
};
use crate::curve::{levels_of_curve, note_measured_sizes};
use crate::record::Series;
use crate::sample::{per_cycle, sampled};
use flopwise::machine::{
    ComputeKind, ComputeRate, MemoryLevel, Probe, Profile, Sampled, Stores, TimedBy, roof,
};
use flopwise::units::{BytesPerSec, FlopsPerSec};

/// Two FLOP-per-cycle figures further apart than this mean shared multipliers: hyper-threads
/// sharing a core give 0.5, separate cores 1.
pub(crate) const SHARED_CORE: f64 = 0.75;
/// An operating system's clock further off than this is worth a note.
const CLOCK_TOLERANCE: f64 = 0.05;
/// Below this share of undisturbed slices over the whole run the machine was too busy to answer.
const TOO_BUSY: f64 = 0.1;
/// Rates with a smaller share of undisturbed slices are counted in a note.
const FEW_KEPT: f64 = 0.3;
/// What of a long run under load counts as its beginning.
const BEGINNING_S: f64 = 0.1;
/// Main memory whose looks differ by more is shared with others.
const SHARED_MEMORY: f64 = 1.15;

/// Points gathered while the run goes on.
#[derive(Default)]
pub(crate) struct Findings {
    /// Chains and operations per cycle, of each format.
    chains: Vec<(ElementFormat, u32, f64)>,
    /// Bytes and dependent loads per second.
    pub(crate) curve: Vec<(u64, f64)>,
    n_clean: u64,
    n_taken: u64,
}

impl Findings {
    /// Counts the slices of an experiment.
    pub(crate) fn count(&mut self, series: &Series) {
        self.n_taken += series.triples.len() as u64;
        self.n_clean +=
            series.triples.iter().filter(|triple| triple.load.is_clean()).count() as u64;
    }

    /// One point of the latency of an instruction.
    pub(crate) fn chains(&mut self, experiment: &Experiment, series: &Series) {
        if let (Load::Peak(PeakLoad { format, chains: Some(chains), .. }), Some(rate)) =
            (experiment.load, per_cycle(&series.triples))
        {
            self.chains.push((format, chains, rate));
        }
    }

    /// One point of the latency of memory.
    pub(crate) fn point(&mut self, experiment: &Experiment, series: &Series) {
        let loads: Vec<_> = series.triples.iter().map(|triple| triple.load).collect();
        if let (Load::Chase(Place::Bytes(bytes)), Some(rate)) = (experiment.load, sampled(&loads)) {
            // The best, since on a shared cache most samples find it half taken.
            self.curve.push((bytes, rate.best));
        }
    }

    /// What the points say.
    pub(crate) fn conclude(&self, profile: &mut Profile, abilities: &Abilities) {
        for ability in &abilities.peaks {
            let of_one = self
                .chains
                .iter()
                .find(|(format, chains, _)| *format == ability.format && *chains == 1);
            let is_first = |other: &&crate::bench::PeakAbility| other.format == ability.format;
            let is_best = abilities.peaks.iter().find(is_first) == Some(ability);
            // The chain of several instructions goes through the last of them only.
            let is_one = !ability.instruction.contains('+');
            let (Some((format, _, rate)), true) = (of_one, is_best && is_one) else { continue };
            let cycles = latency_cycles(*rate, f64::from(ability.ops_per_instruction));
            let enough = self.enough_chains(*format);
            profile.probes.push(Probe {
                name: format!("{} latency of {}", format.name(), ability.instruction),
                value: cycles,
                unit: "cycles".to_owned(),
                meaning: format!("one chain: {rate:.2} op/cycle; {enough} chains for the peak"),
            });
        }
        if !self.curve.is_empty() {
            note_measured_sizes(&mut profile.machine.caches, &levels_of_curve(&self.curve));
        }
        let kept = self.n_clean as f64 / self.n_taken.max(1) as f64;
        if 0 < self.n_taken && kept < TOO_BUSY {
            profile.notes.push(format!(
                "this machine was too busy to answer well: {} of {} samples were undisturbed",
                self.n_clean, self.n_taken
            ));
        }
    }

    /// The fewest chains within 2 % of the most.
    fn enough_chains(&self, format: ElementFormat) -> u32 {
        let of = || self.chains.iter().filter(|(other, _, _)| *other == format);
        let best = of().map(|(_, _, rate)| *rate).fold(0.0, f64::max);
        of().find(|(_, _, rate)| 0.98 * best <= *rate).map_or(0, |(_, chains, _)| *chains)
    }
}

/// How much slower a processor is on unusual values.
pub(crate) fn values(profile: &mut Profile, experiment: &Experiment, series: &Series) {
    let Load::Peak(PeakLoad { format, values, .. }) = experiment.load else { return };
    let ordinary = profile.compute.iter().find(|rate| {
        rate.kind == ComputeKind::Peak && rate.format == format.name() && rate.threads == 1
    });
    let ordinary = ordinary.and_then(|rate| rate.flops_per_cycle);
    let (Some(ordinary), Some(found)) = (ordinary, per_cycle(&series.triples)) else { return };
    let what = match values {
        Values::Ordinary => "ordinary numbers",
        Values::Zero => "zeros",
        Values::Subnormal => "subnormals",
        Values::Infinite => "infinities",
        Values::NotANumber => "NaN",
    };
    profile.probes.push(Probe {
        name: format!("{} multiply-add of {what}", format.name()),
        value: ordinary / found,
        unit: "x".to_owned(),
        meaning: format!("times as long as on ordinary numbers: {found:.1} op/cycle"),
    });
}

/// How the rate changes under a load that lasts: boost clocks fall as a chip gets warm.
pub(crate) fn sustained(profile: &mut Profile, experiment: &Experiment, series: &Series) {
    let mut elapsed = 0.0;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let total: f64 = series.triples.iter().map(|triple| triple.load.spent_s).sum();
    for triple in &series.triples {
        if elapsed < BEGINNING_S {
            first.push(triple.load);
        } else if 0.5 * total < elapsed {
            last.push(triple.load);
        }
        elapsed += triple.load.spent_s;
    }
    if let (Some(first), Some(last)) = (sampled(&first), sampled(&last)) {
        profile.probes.push(Probe {
            name: format!("{}: first 100 ms over sustained", crate::record::label(experiment)),
            value: first.median / last.median,
            unit: "x".to_owned(),
            meaning: format!(
                "{} at first, {} after {:.1} s",
                FlopsPerSec(first.median),
                FlopsPerSec(last.median),
                0.5 * total
            ),
        });
    }
}

/// A further look at main memory: the range of medians, and the profile keeps the better moment, in
/// which fewer others used it.
pub(crate) fn round(profile: &mut Profile, mut again: Profile) {
    let Some(again) = again.memory.pop() else { return };
    let known = profile.memory.iter_mut().find(|known| {
        (known.level, known.op, known.threads, known.stores)
            == (again.level, again.op, again.threads, again.stores)
    });
    let Some(known) = known else { return };
    let medians = [known.bytes_per_s.median, again.bytes_per_s.median];
    let [low, high] = known.range.unwrap_or([medians[0]; 2]);
    let range = [low.min(medians[1]), high.max(medians[1])];
    if medians[0] < medians[1] {
        *known = again;
    }
    known.range = Some(range);
}

/// Fills the shares of peak and roofline of each GEMM, at the same number of threads.
pub(crate) fn relate_to_roofs(profile: &mut Profile) {
    let peaks: Vec<ComputeRate> =
        profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Peak).cloned().collect();
    let bandwidths = profile.clone();
    for rate in profile.compute.iter_mut().filter(|rate| rate.kind == ComputeKind::Gemm) {
        let peak =
            peaks.iter().find(|peak| peak.format == rate.format && peak.threads == rate.threads);
        let Some(peak) = peak.map(|peak| peak.flops_per_s.median) else { continue };
        rate.fraction_of_peak = Some(rate.flops_per_s.median / peak);
        rate.fraction_of_roofline =
            roof_of(&bandwidths, rate, peak).map(|roof| rate.flops_per_s.median / roof);
    }
}

/// What peak and main memory allow at the shape of a product.
fn roof_of(profile: &Profile, rate: &ComputeRate, peak: f64) -> Option<f64> {
    let is_named = |format: &&ElementFormat| format.name() == rate.format;
    let format = ElementFormat::ALL.iter().find(is_named)?;
    let bytes = [format.bytes(), format.sum_bytes()];
    let read = profile.read_rate_at(MemoryLevel::Dram, rate.threads)?;
    let bandwidth = BytesPerSec(read.bytes_per_s.median);
    Some(roof(rate.shape?, bytes, FlopsPerSec(peak), bandwidth).0)
}

/// How many rates come from few of their samples, and how many from time on the processor.
fn few_kept(profile: &Profile) -> Vec<String> {
    let by_wall = profile.compute.iter().filter(|rate| rate.timed_by == TimedBy::Wall);
    let compute = by_wall.clone().map(|rate| rate.flops_per_s);
    let rates = compute.chain(profile.memory.iter().map(|rate| rate.bytes_per_s));
    let is_few = |rate: &Sampled| f64::from(rate.samples) < FEW_KEPT * f64::from(rate.taken);
    let n_few = rates.clone().filter(is_few).count();
    let n_by_processor = profile.compute.len() - by_wall.count();
    let mut notes = Vec::new();
    if 0 < n_few {
        notes.push(format!(
            "{n_few} of {} rates come from less than {:.0} % of their samples: other work ran on \
             these processors",
            rates.count(),
            100.0 * FEW_KEPT
        ));
    }
    if 0 < n_by_processor {
        notes.push(format!(
            "{n_by_processor} products had hardly a sample that nothing disturbed, and are timed by \
             how long the slowest thread held its processor; what others left in the caches makes \
             them a little low"
        ));
    }
    notes
}

/// What the figures together say about the machine.
pub(crate) fn note_doubts(profile: &mut Profile) {
    let host = &profile.machine;
    let mut notes = Vec::new();
    if let (Some(clock), Some(os_clock)) = (host.clock_hz, host.os_clock_hz) {
        let error = os_clock / clock - 1.0;
        if CLOCK_TOLERANCE < error.abs() {
            notes.push(format!(
                "the operating system says the clock is {os_clock}, measured is {clock}: \
                 a percentage of the former would be {:.0} % off",
                100.0 * (clock / os_clock - 1.0).abs()
            ));
        }
    }
    for single in profile.compute.iter().filter(|rate| rate.threads == 1) {
        let several = profile.compute.iter().filter(|rate| 1 < rate.threads);
        let is_same_peak = |rate: &&ComputeRate| {
            rate.kind == ComputeKind::Peak
                && rate.kind == single.kind
                && rate.format == single.format
        };
        for all in several.filter(is_same_peak) {
            let (Some(alone), Some(shared)) = (single.flops_per_cycle, all.flops_per_cycle) else {
                continue;
            };
            if shared / alone < SHARED_CORE {
                notes.push(format!(
                    "{} threads issue {shared:.1} {} FLOP per cycle each, one alone {alone:.1}: \
                     logical processors share cores",
                    all.threads, all.format
                ));
            }
        }
    }
    notes.extend(few_kept(profile));
    let shared = profile.memory.iter().filter_map(|rate| {
        let [low, high] = rate.range?;
        (SHARED_MEMORY * low < high).then(|| {
            format!(
                "main memory, {}{} on {}: {} in one look, {} in another; others use it too",
                format!("{:?}", rate.op).to_lowercase(),
                if rate.stores == Stores::NonTemporal { " past the caches" } else { "" },
                if rate.threads == 1 {
                    "1 thread".to_owned()
                } else {
                    format!("{} threads", rate.threads)
                },
                BytesPerSec(low),
                BytesPerSec(high)
            )
        })
    });
    notes.extend(shared);
    profile.notes.append(&mut notes);
}
