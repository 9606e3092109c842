//! How a measured figure comes about: work over time, clock times operations a cycle, roofline.
//!
//! Not here: figures of their own; each step starts from what the profile holds.

use super::json::SCHEMA;
use super::machine::{interval, is_integer, operations, per_cycle};
use super::text::{Page, percent};
use crate::error::Error;
use crate::estimate::roof;
use crate::machine::{
    ComputeKind, ComputeRate, Latency, MemoryOp, MemoryRate, Profile, Sampled, Stores, moved_bytes,
};
use crate::units::{Bytes, BytesPerSec, FlopsPerByte, FlopsPerSec, Seconds, grouped};
use flopwise_formats::parse;
use serde::Serialize;

/// Names of figures that an error lists.
const MAX_NAMES: usize = 8;

/// Measured figures with their working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiguresReport {
    /// The machine's name.
    pub machine: String,
    /// Those that were asked for.
    pub figures: Vec<Figure>,
}

/// One measured figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// `fp32 peak, 2 threads, vfmadd231ps zmm`.
    pub name: String,
    /// `232.9 GFLOP/s`.
    pub value: String,
    /// Its working, a line a step.
    pub steps: Vec<String>,
}

/// The figures of a profile whose names hold every word of `wanted`: `fp32 peak`, `l1 read 2`; all
/// of them if there is no word.
///
/// # Errors
/// No figure has such a name; the error lists some that there are.
pub fn figures(profile: &Profile, wanted: &str) -> Result<FiguresReport, Error> {
    let all = all(profile);
    let words: Vec<String> = words(wanted).collect();
    let is_wanted = |figure: &&Figure| {
        let name: Vec<String> = self::words(&figure.name).collect();
        words.iter().all(|word| name.iter().any(|other| is_match(word, other)))
    };
    let found: Vec<Figure> = all.iter().filter(is_wanted).cloned().collect();
    if found.is_empty() {
        let names: Vec<&str> = all.iter().take(MAX_NAMES).map(|each| each.name.as_str()).collect();
        let name = &profile.machine.name;
        return Err(Error::new(format!("the profile of {name} holds no figure `{wanted}`"))
            .remedy(format!("ask for words of one of these: {} ...", names.join("; "))));
    }
    Ok(FiguresReport { machine: profile.machine.name.clone(), figures: found })
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(str::to_lowercase)
}

/// `thread` for `threads`, but not `1` for `1024x1024x1024`.
fn is_match(word: &str, other: &str) -> bool {
    word == other || (3 <= word.len() && other.starts_with(word))
}

fn all(profile: &Profile) -> Vec<Figure> {
    let compute = profile.compute.iter().map(|rate| match rate.kind {
        ComputeKind::Peak | ComputeKind::FmaAdd => issued(rate, profile),
        ComputeKind::Gemm => product(rate, profile),
    });
    let memory = profile.memory.iter().map(|rate| stream(rate, profile));
    let latency = profile.latency.iter().map(latency);
    let ridges = profile.ridge_points().into_iter().map(|ridge| {
        let (format, level) = (&ridge.format, ridge.level);
        let peak = profile.peak(format).map_or(0.0, |peak| peak.0);
        let bandwidth = profile.read_bandwidth(level).map_or(0.0, |read| read.0);
        Figure {
            name: format!("ridge point, {format}, {}", level.name()),
            value: per_byte(format, ridge.intensity),
            steps: vec![format!(
                "peak / read bandwidth = {} / {} = {}",
                operations(format, peak),
                BytesPerSec(bandwidth),
                per_byte(format, ridge.intensity)
            )],
        }
    });
    compute.chain(memory).chain(latency).chain(ridges).collect()
}

fn per_byte(format: &str, intensity: FlopsPerByte) -> String {
    let text = intensity.to_string();
    if is_integer(format) { text.replace("FLOP/B", "op/B") } else { text }
}

pub(super) fn threads(count: u32) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

fn medians(sampled: &Sampled, print: &dyn Fn(f64) -> String) -> String {
    format!(
        "median of work / time over {} clean slices of {}: {}; its 95 % interval: {}",
        sampled.samples,
        sampled.taken,
        print(sampled.median),
        interval(sampled.interval, print)
    )
}

fn issued(rate: &ComputeRate, profile: &Profile) -> Figure {
    let print = |figure: f64| operations(&rate.format, figure);
    let what = if rate.kind == ComputeKind::Peak { "peak" } else { "FMA+ADD" };
    let instruction = rate.instruction.as_deref().unwrap_or(&rate.backend);
    let mut steps = vec![medians(&rate.flops_per_s, &print)];
    if let (Some(clock), Some(figure)) = (profile.machine.clock_hz, rate.flops_per_cycle) {
        let whole = per_cycle(figure);
        let product = clock.0 * whole.parse().unwrap_or(figure) * f64::from(rate.threads);
        let verdict = if whole.contains('.') { "rounded" } else { "the integer" };
        steps.push(format!(
            "operations a cycle = rate / clock beside it / threads = {figure:.2}, {verdict} {whole}"
        ));
        steps.push(format!(
            "clock x operations a cycle x threads = {clock} x {whole} x {} = {}: the figure is {} of it",
            rate.threads,
            print(product),
            percent(rate.flops_per_s.median / product)
        ));
    }
    if let Some(chains) = rate.chains {
        steps.push(format!(
            "{chains} chains of {instruction}, each waiting for itself only; a multiply-add is two \
             operations"
        ));
    }
    Figure {
        name: format!("{} {what}, {}, {instruction}", rate.format, threads(rate.threads)),
        value: print(rate.flops_per_s.median),
        steps,
    }
}

fn product(rate: &ComputeRate, profile: &Profile) -> Figure {
    let print = |figure: f64| operations(&rate.format, figure);
    let reached = rate.flops_per_s.median;
    let mut steps = vec![medians(&rate.flops_per_s, &print)];
    let mut name = format!("{} GEMM", rate.format);
    if let Some([m, n, k]) = rate.shape {
        name.push_str(&format!(" {m}x{n}x{k}"));
        let work = [2, m, n, k]
            .iter()
            .try_fold(1u128, |work, length| work.checked_mul(u128::from(*length)));
        if let Some(work) = work {
            steps.push(format!(
                "work = 2 m n k = 2 x {m} x {n} x {k} = {} operations; time = work / rate = {}",
                grouped(work),
                Seconds(work as f64 / reached)
            ));
        }
        steps.extend(roofline_steps(rate, [m, n, k], profile).into_iter().flatten());
    }
    if let Some(share) = rate.fraction_of_peak {
        steps.push(format!("rate / instruction peak on as many threads = {}", percent(share)));
    }
    if let Some(share) = rate.fraction_of_roofline {
        steps.push(format!("rate / roofline at this shape = {}", percent(share)));
    }
    Figure {
        name: format!("{name}, {}, {}", threads(rate.threads), rate.backend),
        value: print(reached),
        steps,
    }
}

fn roofline_steps(rate: &ComputeRate, shape: [u64; 3], profile: &Profile) -> Option<Vec<String>> {
    let format = parse(&rate.format).ok()?;
    let peak = profile.peak_at(&rate.format, rate.threads)?.flops_per_s.median;
    let read = profile.dram_read_at(rate.threads)?.bytes_per_s.median;
    let factor_bytes = u64::from(format.bits).div_ceil(8);
    let moved = moved_bytes(shape, factor_bytes, factor_bytes.max(4));
    let flops = 2.0 * shape.map(|length| length as f64).iter().product::<f64>();
    let intensity = per_byte(&rate.format, FlopsPerByte(flops / moved));
    let lower = roof(shape, format, FlopsPerSec(peak), BytesPerSec(read));
    Some(vec![
        format!(
            "intensity = work / ((m k + k n) x {factor_bytes} B + m n x {} B) = {intensity}",
            factor_bytes.max(4)
        ),
        format!(
            "roofline = min(peak, intensity x memory read) = min({}, {intensity} x {}) = {}",
            operations(&rate.format, peak),
            BytesPerSec(read),
            operations(&rate.format, lower.0)
        ),
    ])
}

fn stream(rate: &MemoryRate, profile: &Profile) -> Figure {
    let print = |figure: f64| BytesPerSec(figure).to_string();
    let counted = match rate.op {
        MemoryOp::Read => "each byte loaded once",
        MemoryOp::ReadSpread => "each byte loaded once, 1 KiB at each of eight places in turn",
        MemoryOp::Write => "each byte stored once",
        MemoryOp::Copy => "a load and a store for each element, both counted",
        MemoryOp::Triad => "two loads and a store for each element, all counted",
    };
    let past = match rate.stores {
        Stores::Plain => "",
        Stores::NonTemporal => ", non-temporal stores",
    };
    let arrays = Bytes(u128::from(rate.array_bytes));
    let mut steps = vec![
        medians(&rate.bytes_per_s, &print),
        format!("work: {counted}, in arrays of {arrays} a thread{past}"),
    ];
    if let (Some(clock), Some(figure)) = (profile.machine.clock_hz, rate.bytes_per_cycle) {
        let product = clock.0 * figure * f64::from(rate.threads);
        steps.push(format!(
            "clock x bytes a cycle x threads = {clock} x {figure:.2} x {} = {}",
            rate.threads,
            print(product)
        ));
    }
    if let Some([low, high]) = rate.range {
        steps.push(format!("repeats over the run: from {} to {}", print(low), print(high)));
    }
    let (level, op) = (rate.level.name(), rate.op.name());
    Figure {
        name: format!("{level} {op}, {}{past}", threads(rate.threads)),
        value: print(rate.bytes_per_s.median),
        steps,
    }
}

fn latency(latency: &Latency) -> Figure {
    let time = Seconds(1.0 / latency.loads_per_s.median);
    let print = |rate: f64| Seconds(1.0 / rate).to_string();
    // A longer time is a lower rate.
    let [low, high] = latency.loads_per_s.interval;
    let mut steps = vec![
        medians(&Sampled { interval: [high, low], ..latency.loads_per_s }, &print),
        format!(
            "each load's address is the result of the one before; they wander over {}",
            Bytes(u128::from(latency.array_bytes))
        ),
    ];
    if let Some(cycles) = latency.cycles {
        steps.push(format!("time x clock beside it = {cycles:.1} cycles"));
    }
    let name = format!("{} latency", latency.level.name());
    Figure { name, value: time.to_string(), steps }
}

impl Page {
    pub(super) fn figures(&mut self, report: &FiguresReport) {
        for figure in &report.figures {
            self.heading(&format!("{} on {}: {}", figure.name, report.machine, figure.value));
            for step in &figure.steps {
                self.line(&format!("  {step}"));
            }
        }
    }
}

#[derive(Serialize)]
pub(super) struct FiguresJson<'a> {
    schema: u32,
    kind: &'static str,
    machine: &'a str,
    figures: &'a [Figure],
}

pub(super) fn wire(report: &FiguresReport) -> FiguresJson<'_> {
    let (machine, figures) = (report.machine.as_str(), report.figures.as_slice());
    FiguresJson { schema: SCHEMA, kind: "figures", machine, figures }
}
