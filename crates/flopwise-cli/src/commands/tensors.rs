//! `flopwise tensors`: what number formats would do to the tensors of a file.
//!
//! Threads take runs of pieces of a tensor, each with a tally of its own; the one that brings the
//! last run of a tensor finishes it. Not here: reading files, and judging.

use super::number::split;
use crate::Outcome;
use crate::output;
use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use flopwise::error::Error;
use flopwise::note::Note;
use flopwise::report::{Report, TensorRow, TensorsReport, Verdict};
use flopwise::weights::{self, AxisOrder, Checkpoint, Meaning, Piece, Room, Scaled, StoredTensor};
use flopwise_formats::Format;
use flopwise_formats::stats::{Stats, Tally, Target};
use indicatif::{ProgressBar, ProgressStyle};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Read in one go: half of a level-2 cache, which the counters share.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that one tally takes at most, so that a large tensor keeps all threads busy.
const MAX_RUN_PIECES: usize = 128;
/// Runs for each thread, where one tensor is most of the file.
const RUNS_PER_THREAD: usize = 4;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise tensors model.safetensors
  flopwise tensors model.safetensors --to e4m3fn,e5m2,int8
  flopwise tensors model.safetensors --tensor '*.mlp.*' --json
  flopwise tensors path/to/model/
  flopwise tensors checkpoint.pt
  flopwise tensors activations.npy --to 'fp(5,2)'

Values beyond a format's largest become its largest. Blocks of mxfp4 and the like are 32 elements in
a row, scaled by OCP's rule. Codes that another tensor scales are judged with their scale (FP8 and INT8
in blocks, MXFP4), or not at all (zero points, tables, scales that are not found): alone they are not
the model's values.

Exit code: 1 when no tensor could be judged.")]
pub(crate) struct TensorsArgs {
    /// A file (.safetensors, .gguf, .pt, .bin, .onnx, .npy, .npz), an index of shards, or a
    /// model's folder
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Formats to judge: any that has a name, fp(e,m), mxfp4, mxfp6_e2m3, mxfp8_e4m3 ...
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 1,
        default_values = ["fp16", "bf16", "e4m3fn", "e5m2", "mxfp8_e4m3", "mxfp4"]
    )]
    to: Vec<String>,
    /// Only tensors whose name holds this, or fits it when it has a `*`
    #[arg(long, value_name = "PATTERN")]
    tensor: Vec<String>,
    /// Judge codes as they are, without the scales that belong to them
    #[arg(long)]
    raw: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TensorsArgs) -> anyhow::Result<Outcome> {
    let targets = targets(&args.to)?;
    let checkpoint = weights::open(&args.file)?;
    let chosen =
        chosen(&checkpoint, &args.tensor).with_context(|| args.file.display().to_string())?;
    let mut refused: Vec<Option<String>> = Vec::new();
    let mut sources: Vec<Source> = Vec::new();
    for tensor_idx in &chosen {
        let scaled = if args.raw { None } else { checkpoint.scaled(*tensor_idx) };
        let why = refusal(&checkpoint, &checkpoint.tensors()[*tensor_idx], args.raw);
        let why = why.filter(|_| scaled.is_none());
        if why.is_none() {
            sources.push(Source { tensor_idx: *tensor_idx, scaled });
        }
        refused.push(why);
    }
    let mut stats = judge(&checkpoint, &sources, &targets)?.into_iter();
    let tensors = chosen.iter().zip(refused).map(|(tensor_idx, refused)| {
        let verdict = match refused {
            Some(why) => Verdict::NotJudged(why),
            None => Verdict::Judged(Box::new(stats.next().expect("one for each tensor wanted"))),
        };
        let tensor = &checkpoint.tensors()[*tensor_idx];
        let StoredTensor { name, format, block, bytes, shape, elements, .. } = tensor.clone();
        TensorRow { name, format, block, bytes, shape, elements, verdict }
    });
    let report = TensorsReport {
        file: args.file.display().to_string(),
        kind: checkpoint.kind.name(),
        targets: targets.iter().map(Target::to_string).collect(),
        tensors: tensors.collect(),
        notes: notes(&checkpoint, &sources, &targets),
    };
    let outcome = if sources.is_empty() { Outcome::No } else { Outcome::Yes };
    output::print(&Report::Tensors(Box::new(report)), args.json)?;
    Ok(outcome)
}

/// Commas separate formats, but not within parentheses.
fn targets(names: &[String]) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    let names = names.iter().flat_map(|names| split(names));
    for name in names.filter(|name| !name.trim().is_empty()) {
        let target = Target::parse(&name).with_context(|| "--to".to_owned())?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        bail!("--to: name at least one format, for instance bf16");
    }
    Ok(targets)
}

fn chosen(checkpoint: &Checkpoint, patterns: &[String]) -> anyhow::Result<Vec<usize>> {
    let names = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str());
    let is_chosen =
        |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, name));
    let chosen: Vec<usize> =
        names.enumerate().filter(|(_, name)| is_chosen(name)).map(|(idx, _)| idx).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    match checkpoint.tensors().first() {
        Some(first) => bail!(
            "no tensor has a name like `{}`; the first of {} is `{}`",
            patterns.join("` or `"),
            checkpoint.tensors().len(),
            first.name
        ),
        None => bail!("holds no tensors"),
    }
}

/// Whether `name` holds `pattern`, or, where that has a `*`, is made of its parts in order.
fn fits(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Why a tensor's elements are not values to judge.
fn refusal(checkpoint: &Checkpoint, tensor: &StoredTensor, is_raw: bool) -> Option<String> {
    if let Some(why) = &tensor.unread {
        return Some(why.clone());
    }
    if Tally::new(tensor.format, &[]).is_none() {
        return Some(format!("elements of {} are no single numbers", tensor.format));
    }
    match &tensor.meaning {
        _ if is_raw => None,
        Meaning::Values => None,
        Meaning::Scaled(companion) => {
            Some(format!("raw {} codes scaled by {companion}; --raw judges them", tensor.format))
        }
        Meaning::Codes { why } => Some(why.clone()),
        Meaning::Serves { tensor_idx, role } => {
            let served = checkpoint.tensors().get(*tensor_idx);
            let served = served.map_or("another tensor", |served| served.name.as_str());
            Some(format!("serves `{served}` ({role:?})"))
        }
    }
}

/// A tensor to judge: as it is stored, or its codes times their scales.
struct Source {
    tensor_idx: usize,
    scaled: Option<Scaled>,
}

impl Source {
    /// The format of what is judged.
    fn format(&self, checkpoint: &Checkpoint) -> Format {
        match self.scaled {
            Some(_) => Format::FP32,
            None => checkpoint.tensors()[self.tensor_idx].format,
        }
    }
}

fn notes(checkpoint: &Checkpoint, judged: &[Source], targets: &[Target]) -> Vec<Note> {
    let mut notes = checkpoint.notes.clone();
    let block = targets.iter().map(Target::block).max().unwrap_or(1) as u64;
    let is_ragged = |tensor: &&StoredTensor| {
        let last = tensor.shape.last().copied().unwrap_or(1);
        let is_split = 1 < tensor.shape.len() && !last.is_multiple_of(block);
        is_split || (1 < block && tensor.axis_order != AxisOrder::LastFastest)
    };
    let tensors = judged.iter().map(|source| &checkpoint.tensors()[source.tensor_idx]);
    let mut scaled = judged.iter().filter(|source| source.scaled.is_some());
    if let Some(first) = scaled.next() {
        notes.push(Note::new(format!(
            "judged with their scales applied, as values in fp32: {} tensors (first: `{}`)",
            scaled.count() + 1,
            checkpoint.tensors()[first.tensor_idx].name
        )));
    }
    let ragged: Vec<&StoredTensor> = tensors.filter(is_ragged).collect();
    if let Some(first) = ragged.first() {
        notes.push(Note::new(format!(
            "blocks of {block} follow the file's order and here do not end with rows: {} tensors \
             (first: `{}`)",
            ragged.len(),
            first.name
        )));
    }
    notes
}

/// Some pieces of one tensor, for one thread.
struct Run {
    /// Its place among the tensors wanted.
    place: usize,
    pieces: Vec<Piece>,
}

/// A tensor on its way.
struct Slot {
    tally: Option<Tally>,
    n_runs_left: usize,
    stats: Option<Stats>,
}

/// What all threads share.
struct Shared<'a> {
    checkpoint: &'a Checkpoint,
    wanted: &'a [Source],
    /// An empty tally for each format, as its tables take a while to make.
    empty: Vec<(Format, Tally)>,
    runs: &'a [Run],
    next_run: AtomicUsize,
    slots: Vec<Mutex<Slot>>,
    has_failed: AtomicBool,
    bar: ProgressBar,
}

impl Shared<'_> {
    /// Lets the other threads end.
    fn stop(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

fn judge(
    checkpoint: &Checkpoint,
    wanted: &[Source],
    targets: &[Target],
) -> anyhow::Result<Vec<Stats>> {
    let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
    let runs = runs(checkpoint, wanted, n_threads);
    let mut n_runs = vec![0; wanted.len()];
    runs.iter().for_each(|run| n_runs[run.place] += 1);
    let slot = |n_runs_left| Mutex::new(Slot { tally: None, n_runs_left, stats: None });
    let total: u64 =
        wanted.iter().map(|source| read_bytes(&checkpoint.tensors()[source.tensor_idx])).sum();
    let mut empty: Vec<(Format, Tally)> = Vec::new();
    for source in wanted {
        let format = source.format(checkpoint);
        if empty.iter().all(|(known, _)| *known != format) {
            empty.push((format, tally(format, targets)));
        }
    }
    let shared = Shared {
        checkpoint,
        wanted,
        empty,
        next_run: AtomicUsize::new(0),
        slots: n_runs.into_iter().map(slot).collect(),
        has_failed: AtomicBool::new(false),
        bar: bar(total),
        runs: &runs,
    };
    let failed = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..n_threads.min(runs.len())).map(|_| scope.spawn(|| work(&shared))).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended.filter_map(|ended| ended.expect("no worker panics").err()).next()
    });
    shared.bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error.into());
    }
    let stats = shared.slots.into_iter().zip(wanted).map(|(slot, source)| {
        let slot = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        let format = source.format(checkpoint);
        // An empty tensor has no run.
        slot.stats.unwrap_or_else(|| tally(format, targets).finish())
    });
    Ok(stats.collect())
}

/// Bytes that reading a tensor hands out; those of blocks are the fewer.
fn read_bytes(tensor: &StoredTensor) -> u64 {
    match tensor.block {
        Some(_) => tensor.elements.saturating_mul(u64::from(tensor.format.bits) / 8),
        None => tensor.bytes,
    }
}

fn bar(total_bytes: u64) -> ProgressBar {
    let bar = match output::is_watched() {
        true => ProgressBar::new(total_bytes),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {percent:>3} % {binary_bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

fn tally(format: Format, targets: &[Target]) -> Tally {
    Tally::new(format, targets).expect("other formats were refused")
}

fn runs(checkpoint: &Checkpoint, wanted: &[Source], n_threads: usize) -> Vec<Run> {
    let tensors = wanted.iter().map(|source| &checkpoint.tensors()[source.tensor_idx]);
    let total: u64 = tensors.map(read_bytes).sum();
    let fair = total / (n_threads * RUNS_PER_THREAD * PIECE_BYTES) as u64;
    let n_pieces = (fair as usize).clamp(1, MAX_RUN_PIECES);
    let mut runs = Vec::new();
    for (place, source) in wanted.iter().enumerate() {
        let pieces: Vec<Piece> = checkpoint.pieces(source.tensor_idx, PIECE_BYTES).collect();
        let cut = pieces.chunks(n_pieces);
        runs.extend(cut.map(|pieces| Run { place, pieces: pieces.to_vec() }));
    }
    runs
}

/// What one thread does.
fn work(shared: &Shared<'_>) -> Result<(), Error> {
    let (mut buffer, mut room) = (Vec::new(), Room::default());
    loop {
        let run = shared.runs.get(shared.next_run.fetch_add(1, Ordering::Relaxed));
        let Some(run) = run.filter(|_| !shared.has_failed.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let source = &shared.wanted[run.place];
        let scaled = source.scaled.clone().map(|scaled| scaled.with_scales(shared.checkpoint));
        let scaled = scaled.transpose().inspect_err(|_| shared.stop())?;
        let format = source.format(shared.checkpoint);
        let known = shared.empty.iter().find(|(known, _)| *known == format);
        let (_, empty) = known.expect("a tally for each format wanted");
        let mut tally = empty.clone();
        for piece in &run.pieces {
            let mut flaw = Ok(());
            let read = shared.checkpoint.read(piece, &mut buffer, &mut |chunk| {
                match &scaled {
                    None => tally.add(chunk.bytes, chunk.elements as usize),
                    Some(scaled) => match scaled.values(shared.checkpoint, &chunk, &mut room) {
                        Ok((values, n_values)) => tally.add(values, n_values),
                        Err(error) => flaw = Err(error),
                    },
                }
                shared.bar.inc(chunk.bytes.len() as u64);
            });
            read.and(flaw).inspect_err(|_| shared.stop())?;
        }
        hand_in(&shared.slots[run.place], tally);
    }
}

/// Puts a run's tally to those of the same tensor, and finishes the tensor when it was the last.
fn hand_in(slot: &Mutex<Slot>, mut tally: Tally) {
    tally.settle();
    let lock = || slot.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = {
        let mut slot = lock();
        slot.n_runs_left -= 1;
        let tally = match slot.tally.take() {
            Some(mut whole) => {
                whole.merge(tally);
                whole
            }
            None => tally,
        };
        if 0 < slot.n_runs_left {
            slot.tally = Some(tally);
            return;
        }
        tally
    };
    let stats = whole.finish();
    lock().stats = Some(stats);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit() {
        let check =
            |pattern, name, expected| assert_eq!(fits(pattern, name), expected, "{pattern}");
        check("mlp", "layers.0.mlp.weight", true);
        check("mlp", "layers.0.attention", false);
        check("layers.*.weight", "layers.0.mlp.weight", true);
        check("layers.*.bias", "layers.0.mlp.weight", false);
        check("*weight*", "layers.0.mlp.weight", true);
        check("a*a", "a", false);
        check("*", "", true);
    }

    #[test]
    fn commas_within_parentheses_belong_to_a_format() {
        let names = |text: &str| {
            let found = targets(&[text.to_owned()]).unwrap();
            found.iter().map(Target::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names("bf16, fp(4,2),fp16"), "bf16 fp(4,2) fp16");
        assert!(targets(&["fp8".to_owned()]).is_err());
        assert!(targets(&[",".to_owned()]).is_err());
    }
}
