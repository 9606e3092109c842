//! `flopwise audit`: what a published rate of training was computed from.

use crate::Outcome;
use crate::args::binding;
use crate::output;
use clap::Args as ClapArgs;
use flopwise::query::{AuditQuery, CountQuery, Printed, Query, Working, answer};
use flopwise::report::Report;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise audit --model llama-3.1-405b --bind seq=8192 --tokens-per-second-per-gpu 968 \\
                 --tflops-per-gpu 2443
  flopwise audit --model deepseek-v3 --mtp 1 --bind seq=4096 --tokens-per-second-per-gpu 4,965 \\
                 --tflops-per-gpu 1,290 --gpu-peak-tflops 4500

Both numbers are taken for rounded at their last digit; 5248+-64 says how much rounding may hide.
Where no way to count lies within that, the nearest named convention is taken if it is within 0.3 %.
Exit code 1: no way to count explains the claim.")]
pub(crate) struct AuditArgs {
    /// A path or a built-in name (`flopwise model` lists them)
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Values for the model's symbols: seq=4096
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', value_parser = binding)]
    bind: Vec<(String, i128)>,
    /// Tokens per second and accelerator, as published
    #[arg(long, value_name = "T", value_parser = |text: &str| text.parse::<Printed>())]
    tokens_per_second_per_gpu: Printed,
    /// TFLOP per second and accelerator, as published
    #[arg(long, value_name = "F", value_parser = |text: &str| text.parse::<Printed>())]
    tflops_per_gpu: Printed,
    /// The accelerator's dense peak in TFLOP per second, for the MFU
    #[arg(long, value_name = "P", value_parser = |text: &str| text.parse::<Printed>())]
    gpu_peak_tflops: Option<Printed>,
    /// Count so many of the modules that predict further tokens (multi-token prediction)
    #[arg(long, value_name = "N", default_value_t = 0)]
    mtp: u32,
    /// Show the formulas
    #[arg(long)]
    explain: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &AuditArgs) -> anyhow::Result<Outcome> {
    let bindings = args.bind.clone();
    let count = CountQuery { bindings, mtp: args.mtp, ..CountQuery::of(&args.model) };
    let query = AuditQuery {
        count,
        tokens_per_second: args.tokens_per_second_per_gpu,
        tflops: args.tflops_per_gpu,
        peak_tflops: args.gpu_peak_tflops.map(|peak| peak.value),
        working: if args.explain { Working::Shown } else { Working::Hidden },
    };
    let report = answer(&Query::Audit(Box::new(query)))?;
    output::print(&report, args.json)?;
    let Report::Audit(audit) = &report else { unreachable!("an audit query has an audit report") };
    Ok(if audit.explanation().is_some() { Outcome::Yes } else { Outcome::No })
}
