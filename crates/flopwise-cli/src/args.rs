//! What can be typed, and the help that teaches it.

mod measure;
mod memory;
mod number;

pub(crate) use measure::{MeasureArgs, is_short};
pub(crate) use memory::MemoryChoice;
pub(crate) use number::{CastSystem, FormatArgs, NumberArgs, Scale};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use flopwise::cost::convention::Convention;
use flopwise::cost::{Lora, Masking, Optimizer, Pass, Patterns, Recompute, Seen, StoredFormat};
use flopwise::graph::Positions;
use flopwise::query::Conventions;
use flopwise::report::Grouping;
use flopwise::units::Seconds;
use std::ffi::OsString;
use std::path::PathBuf;

/// What machine-learning numbers cost: counted exactly, measured truthfully, estimated with the
/// working shown.
#[derive(Debug, Parser)]
#[command(name = "flopwise", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Stands for the minus sign of a value while the command line is read; also a minus sign to
/// [`flopwise_formats::decimal`].
const MINUS: char = '\u{2212}';

/// The command line as typed, with the sign of each negative value of `number` put so that it is not
/// taken for an option: `-0`, `-1/3`, `-inf`.
pub(crate) fn typed() -> Vec<OsString> {
    let args = std::env::args_os().collect::<Vec<_>>();
    if args.get(1).is_none_or(|command| command != "number") {
        return args;
    }
    let value = |arg: OsString| match arg.to_str().and_then(|text| text.strip_prefix('-')) {
        Some(rest) if starts_a_number(rest) => format!("{MINUS}{rest}").into(),
        Some(_) | None => arg,
    };
    args.into_iter().map(value).collect()
}

fn starts_a_number(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_digit = |first: char| first.is_ascii_digit() || first == '.';
    lower.starts_with(is_digit) || lower.starts_with("inf") || lower.starts_with("nan")
}

/// A value as the user typed it.
pub(crate) fn as_typed(value: &str) -> String {
    match value.strip_prefix(MINUS) {
        Some(rest) => format!("-{rest}"),
        None => value.to_owned(),
    }
}

const EXAMPLES: &str = "\
Examples:
  flopwise report resnet50                      the model, this machine, and the time on one page
  flopwise report model.onnx --html page.html   the same with the roofline drawn
  flopwise count gpt2                           a formula in batch and seq
  flopwise count gpt2 --bind batch=8,seq=512    exact numbers
  flopwise count model.pt2 --by module --json   every node, for other programs
  flopwise number 0.052                         what a value becomes in every format
  flopwise number 0.052 --format fp16 --explain the steps, bit by bit
  flopwise matmul-error --format fp8_e4m3,mxfp4 the error of A B in low precision
  flopwise measure                              what this machine really does, in about 5 seconds
  flopwise tensors model.safetensors            what FP16, BF16, FP8, MXFP4 would do to its values
  flopwise model                                the built-in models

1 MAC = 2 FLOPs. FLOPs count work; FLOP/s is a rate.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Model, machine and time on one page
    Report(ReportArgs),
    /// Count the MACs, FLOPs, parameters and bytes of a model
    Count(Box<CountArgs>),
    /// Find out what a published TFLOP/s was computed from
    Audit(Box<AuditArgs>),
    /// Show what a value becomes in FP32, FP16, BF16, FP8, FP4 ..., bit by bit
    Number(NumberArgs),
    /// List the number formats, or show one: layout, range, special codes, spacing
    Format(FormatArgs),
    /// Show what formats do to a matrix multiplication, against exact arithmetic
    MatmulError(MatmulErrorArgs),
    /// Measure what this machine really does: clock, FLOP/s, bytes per second
    Measure(MeasureArgs),
    /// Estimate how long a model takes on a machine
    Estimate(EstimateArgs),
    /// What number formats would do to the tensors of a file: overflow, underflow, error, SNR
    Tensors(TensorsArgs),
    /// List the built-in models, or show one
    Model(ModelArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Which model, at which sizes.
#[derive(Debug, ClapArgs)]
pub(crate) struct ModelChoice {
    /// A path (.onnx, .pt2) or a built-in name (`flopwise model` lists them)
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Values for the model's symbols
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', value_parser = binding)]
    pub(crate) bind: Vec<(String, i128)>,
    #[command(flatten)]
    pub(crate) masking: MaskingChoice,
    /// Positions of a convolution's kernel: all (padding included), or valid (inside only, as XLA)
    #[arg(long, value_enum, default_value_t = Conv::All)]
    pub(crate) conv: Conv,
    /// Store the parameters in another format, scales included: bf16, fp8_e4m3, mxfp4, q4_k ...
    #[arg(long, value_name = "FORMAT", value_parser = |text: &str| text.parse::<StoredFormat>())]
    pub(crate) weights: Option<StoredFormat>,
    #[command(flatten)]
    pub(crate) state: MemoryChoice,
    /// Count so many of the modules that predict further tokens (multi-token prediction)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) mtp: u32,
    /// Exit with 1 when something could not be counted
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the user says about attention.
#[derive(Debug, ClapArgs)]
pub(crate) struct MaskingChoice {
    /// Keys each query sees: exact (as the file says), full, or, where the file leaves it to a mask
    /// tensor: causal, window=N, chunk=N, prefix=N
    #[arg(long, value_name = "MASK", value_parser = seen, default_value = "exact")]
    pub(crate) attention: Seen,
    /// Lengths of sequences packed one behind the other, none of which sees another
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', value_parser = count)]
    pub(crate) packed: Vec<u64>,
    /// One forward pass, one token decoded with a KV cache (--bind context=N), or one training step
    #[arg(long, value_enum, default_value_t = Mode::Forward)]
    pub(crate) mode: Mode,
}

impl MaskingChoice {
    pub(crate) fn masking(&self) -> Masking {
        let pass = match self.mode {
            Mode::Forward | Mode::Train => Pass::Whole,
            Mode::Decode => Pass::Decode,
        };
        Masking { seen: self.attention, packed: self.packed.clone(), pass }
    }
}

/// Which positions of a convolution's kernel are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Conv {
    All,
    Valid,
}

impl Conv {
    pub(crate) fn positions(self) -> Positions {
        match self {
            Conv::All => Positions::All,
            Conv::Valid => Positions::Valid,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// One forward pass
    Forward,
    /// One token more, against a KV cache
    Decode,
    /// One training step: forward, backward and the optimiser's update
    Train,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise count resnet50.onnx                 totals, and rows by kind of operator
  flopwise count gpt2 --bind batch=8,seq=512   at these sizes
  flopwise count gpt2 --formula                MACs and bytes in the model's symbols
  flopwise count gpt2 --mode train --lora r=16,targets=q,v   one training step
  flopwise count vit_b_16 --by module          a tree of modules (also op, line, node)
  flopwise count gpt2 --versus gpt2 --versus-bind seq=1024   two sizes side by side
  flopwise count gpt2 --sweep seq=64..1k       how it grows
  flopwise count model.onnx --mode decode --bind context=4096   one token with a KV cache
  flopwise count model.pt2 --attention causal --packed 1024,512,512
  flopwise count llama-3.1-8b --memory         weights in every format, with the KV cache
  flopwise count llama-3.1-8b --kv-format fp8_e4m3 --kv-page 16   the cache in FP8, and in pages
  flopwise count gpt2 --weights mxfp4          bytes with the weights in another format
  flopwise count resnet50 --explain layer1.0.conv1   one node's counts, step by step
  flopwise count resnet50 --convention fvcore  what fvcore prints, and why it differs
  flopwise count resnet50 --convention all     what every other tool prints")]
pub(crate) struct CountArgs {
    #[command(flatten)]
    pub(crate) choice: ModelChoice,
    /// What each row of the table is
    #[arg(long, value_enum, default_value_t = By::Kind)]
    pub(crate) by: By,
    /// With --by module: how deep to show the tree; the default is as deep as a screen allows
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// Add a table of the weights in common formats, with the state of the sequences beside them
    #[arg(long, conflicts_with_all = ["explain", "formula", "convention"])]
    pub(crate) memory: bool,
    /// Show the working: of one node (by name, result or module), or of the whole model
    #[arg(long, value_name = "NODE", num_args = 0..=1, conflicts_with = "formula")]
    pub(crate) explain: Option<Option<String>>,
    /// Print what another tool prints, and why it differs, line by line; `all` for a table
    #[arg(long, value_name = "NAME", value_parser = convention_names(), conflicts_with = "formula")]
    pub(crate) convention: Option<Conventions>,
    /// Print only the totals as formulas in the model's symbols
    #[arg(long, conflicts_with = "json")]
    pub(crate) formula: bool,
    /// Compare with another model, or with the same at the sizes of --versus-bind
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["explain", "formula"])]
    pub(crate) versus: Option<String>,
    /// Values for the symbols of the other model
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', value_parser = binding)]
    #[arg(conflicts_with_all = ["explain", "formula"])]
    pub(crate) versus_bind: Vec<(String, i128)>,
    /// Count at many values of a symbol: seq=1k..128k doubles (k is 1024), seq=1,8,64 lists
    #[arg(long, value_name = "NAME=N..N", value_parser = sweep)]
    #[arg(conflicts_with_all = ["explain", "formula", "versus", "versus_bind"])]
    pub(crate) sweep: Option<(String, Vec<i128>)>,
    /// Draw the sweep
    #[arg(long, value_name = "FILE", requires = "sweep")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) train: TrainChoice,
}

/// What is trained, and how.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "With --mode train")]
pub(crate) struct TrainChoice {
    /// Train only parameters with these names: `layer4.*,fc.*`, `!*.bias` for all others
    #[arg(long, value_name = "PATTERN")]
    pub(crate) train_only: Option<Patterns>,
    /// Do not train parameters with these names
    #[arg(long, value_name = "PATTERN")]
    pub(crate) freeze: Option<Patterns>,
    /// Train low-rank adapters on these linear layers instead: `r=16,targets=q,v`
    #[arg(long, value_name = "SPEC")]
    pub(crate) lora: Option<Lora>,
    /// Results that the loss is made of [default: all]
    #[arg(long, value_name = "RESULT", value_delimiter = ',')]
    pub(crate) loss: Vec<String>,
    /// Computed again instead of kept: none, selective (attention), full, blocks=N (every Nth)
    #[arg(long, value_name = "WHAT")]
    pub(crate) recompute: Option<Recompute>,
    /// none, sgd, momentum, adam, adamw, adam8bit, adafactor, lion or muon [default: adamw]
    #[arg(long, value_name = "NAME")]
    pub(crate) optimizer: Option<Optimizer>,
}

impl TrainChoice {
    /// Whether anything was typed that only training knows.
    pub(crate) fn is_given(&self) -> bool {
        let TrainChoice { train_only, freeze, lora, loss, recompute, optimizer } = self;
        train_only.is_some()
            || freeze.is_some()
            || lora.is_some()
            || !loss.is_empty()
            || recompute.is_some()
            || optimizer.is_some()
    }
}

/// What can be typed after `--convention`.
fn convention_names() -> impl TypedValueParser<Value = Conventions> {
    let names = Convention::ALL.into_iter().map(|convention| {
        let value = PossibleValue::new(convention.name());
        // calflops is a copy of the profiler.
        if convention == Convention::Deepspeed { value.alias("calflops") } else { value }
    });
    let names: Vec<PossibleValue> = names.chain([PossibleValue::new("all")]).collect();
    PossibleValuesParser::new(names).map(|typed| {
        let typed = if typed == "calflops" { Convention::Deepspeed.name() } else { &typed };
        let named = Convention::ALL.into_iter().find(|convention| convention.name() == typed);
        named.map_or(Conventions::All, Conventions::One)
    })
}

/// What `--attention` takes.
fn seen(text: &str) -> Result<Seen, String> {
    let (word, size) = match text.split_once('=') {
        Some((word, size)) => (word, Some(count(size)?)),
        None => (text, None),
    };
    match (word, size) {
        ("exact", None) => Ok(Seen::AsFile),
        ("full", None) => Ok(Seen::All),
        ("causal", None) => Ok(Seen::Causal),
        ("window", Some(keys)) => Ok(Seen::Window(keys)),
        ("chunk", Some(length)) => Ok(Seen::Chunk(length)),
        ("prefix", Some(length)) => Ok(Seen::Prefix(length)),
        _ => Err("one of exact, full, causal, window=N, chunk=N, prefix=N".to_owned()),
    }
}

/// A positive count: `4096`, `4k` (4 x 1024), `1M` (1024 x 1024).
pub(crate) fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let number = number.filter(|number| 0 < *number && *number <= MAX_COUNT);
    number.ok_or_else(|| format!("`{text}` is no size; 4096 or 4k is"))
}

/// No sequence is longer.
const MAX_COUNT: u64 = 1 << 48;
/// Points of a sweep.
const MAX_POINTS: usize = 1000;

/// `seq=1k..128k` (doubling), `seq=0..100+10`, `seq=128,512,2048`.
fn sweep(text: &str) -> Result<(String, Vec<i128>), String> {
    let usage =
        || format!("`{text}` is no sweep; seq=1k..128k, seq=100..1000+100 or seq=1,8,64 is");
    let (symbol, values) = text.split_once('=').ok_or_else(usage)?;
    let values: Vec<i128> = match values.split_once("..") {
        None => {
            let values = values.split(',').map(|value| count(value).map(i128::from));
            values.collect::<Result<_, _>>()?
        }
        Some((first, rest)) => {
            let (last, step) = match rest.split_once('+') {
                Some((last, step)) => (last, Some(i128::from(count(step)?))),
                None => (rest, None),
            };
            let (first, last) = (i128::from(count(first)?), i128::from(count(last)?));
            let next = |value: &i128| Some(step.map_or(2 * value, |step| value + step));
            let values = std::iter::successors(Some(first), next);
            values.take_while(|value| *value <= last).take(MAX_POINTS + 1).collect()
        }
    };
    match values.len() {
        0 => Err(usage()),
        n if MAX_POINTS < n => Err(format!("a sweep of more than {MAX_POINTS} points")),
        _ => Ok((symbol.to_owned(), values)),
    }
}

/// What each row of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    Op,
    Kind,
    Module,
    Line,
    Node,
}

impl By {
    pub(crate) fn grouping(self) -> Grouping {
        match self {
            By::Op => Grouping::Op,
            By::Kind => Grouping::Kind,
            By::Module => Grouping::Module,
            By::Line => Grouping::Line,
            By::Node => Grouping::Node,
        }
    }
}

/// Which machine.
#[derive(Debug, ClapArgs)]
pub(crate) struct MachineChoice {
    /// `this` (measured first if it never was) or a profile that `measure --output` wrote
    #[arg(long, value_name = "MACHINE", default_value = "this")]
    pub(crate) on: String,
    /// Time assumed for starting each kernel
    #[arg(long, value_name = "TIME", default_value = "5us", value_parser = overhead)]
    pub(crate) overhead: Seconds,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise estimate resnet50 --bind batch=32    on this machine
  flopwise estimate gpt2 --on machine.json      on the machine that was measured there")]
pub(crate) struct EstimateArgs {
    #[command(flatten)]
    pub(crate) choice: ModelChoice,
    #[command(flatten)]
    pub(crate) machine: MachineChoice,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise report resnet50
  flopwise report gpt2 --bind batch=1,seq=512 --html gpt2.html")]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) choice: ModelChoice,
    #[command(flatten)]
    pub(crate) machine: MachineChoice,
    /// Also write the report as one HTML page with the roofline drawn
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

pub(crate) use crate::commands::audit::AuditArgs;
pub(crate) use crate::commands::matmul_error::MatmulErrorArgs;
pub(crate) use crate::commands::tensors::TensorsArgs;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise model                 every name
  flopwise model resnet50        what one of them is
  flopwise model swin            those with `swin` in their name")]
pub(crate) struct ModelArgs {
    /// A model's name, or a part of names
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  flopwise completions bash > ~/.local/share/bash-completion/completions/flopwise"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

pub(crate) fn binding(text: &str) -> Result<(String, i128), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=N, for instance batch=8")?;
    let plain = value.trim().replace('_', "");
    let number = plain.parse::<i128>().or_else(|_| count(&plain).map(i128::from));
    let number = number.map_err(|_| format!("`{value}` is not a whole number"))?;
    Ok((name.trim().to_owned(), number))
}

fn overhead(text: &str) -> Result<Seconds, String> {
    if !text.trim_end().ends_with('s') {
        return Err("write a time with its unit, for instance 5us".to_owned());
    }
    let time: Seconds = text.parse().map_err(|error| format!("{error}"))?;
    match time.0.is_finite() && 0.0 <= time.0 {
        true => Ok(time),
        false => Err("a time must be finite and not negative".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_argument_has_help() {
        for command in Args::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }

    #[test]
    fn bindings_parse() {
        let check = |text: &str, expected: Option<(&str, i128)>| {
            let found = binding(text).ok();
            assert_eq!(found.as_ref().map(|(name, value)| (name.as_str(), *value)), expected);
        };
        check("batch=8", Some(("batch", 8)));
        check("seq = 1_024", Some(("seq", 1024)));
        check("batch", None);
        check("batch=x", None);
        check("batch=1.5", None);
    }
}
