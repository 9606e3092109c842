//! `flopwise matmul-error`: what a precision does to a matrix multiplication.

use super::number::split;
use crate::Outcome;
use crate::args::Scale;
use crate::output;
use anyhow::{Context, bail};
use clap::{Args as ClapArgs, ValueEnum};
use flopwise::query::{MatmulQuery, Query, answer};
use flopwise::weights::{self, Checkpoint};
use flopwise_formats::matmul::{
    Distribution, Order, Products, Scaling, Shape, Source, SumRounding,
};
use std::path::Path;

/// Products in an output unless the user, or a file, says otherwise.
const USUAL_K: usize = 4096;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise matmul-error                                    usual formats, accumulated in FP32
  flopwise matmul-error --format fp8_e4m3 --accumulate fp32,fp16,bf16
  flopwise matmul-error --format fp16 --accumulate fp16 --order sequential,pairwise,kahan
  flopwise matmul-error --format fp8_e4m3 --accumulate 'fp(8,13)' --rounding toward-zero \\
                        --chunk none,128                   Hopper's FP8, as it is and promoted
  flopwise matmul-error --format mxfp4,nvfp4 --scale-rule floor,rceil --distribution outliers
  flopwise matmul-error --b-from model.safetensors:layers.0.mlp.weight --format mxfp4,nvfp4
  flopwise matmul-error --accumulate bf16 --rounding nearest,stochastic --distribution positive

Every combination of what is listed is a row. The default of 16 x 16 outputs tells an error to about
5 %; larger --m and --n tell it better and take longer.")]
pub(crate) struct MatmulErrorArgs {
    /// Formats of A and B: plain, or of blocks along k (mxfp4, nvfp4, int8_g32 ...)
    #[arg(
        long,
        value_name = "FORMATS",
        default_value = "bf16,fp16,fp8_e4m3,mxfp8_e4m3,mxfp4,nvfp4"
    )]
    format: Vec<String>,
    /// Formats of partial sums: fp32, fp16, bf16, tf32, fp64, fp(8,13) ...
    #[arg(long, value_name = "FORMATS", default_value = "fp32")]
    accumulate: Vec<String>,
    /// Which partial sums are made
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sequential")]
    order: Vec<OrderChoice>,
    /// What becomes of a partial sum between two values of its format
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nearest")]
    rounding: Vec<RoundingChoice>,
    /// Random bits of a stochastic rounding
    #[arg(long, value_name = "N", default_value_t = 16)]
    random_bits: u8,
    /// Whether a product is rounded before it is added
    #[arg(long, value_enum, default_value_t = ProductsChoice::Exact)]
    products: ProductsChoice,
    /// Products in a chunk whose sums are added in --outer; `none` for no chunks
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "none", value_parser = chunk)]
    chunk: Vec<ChunkChoice>,
    /// The format in which sums of chunks are added
    #[arg(long, value_name = "FORMAT", default_value = "fp32")]
    outer: String,
    /// By what entries of plain formats are divided first
    #[arg(long, value_enum, default_value_t = ScaleChoice::Auto)]
    scale: ScaleChoice,
    /// Which power of two scales an MX block
    #[arg(long, value_enum, value_delimiter = ',', default_value = "floor")]
    scale_rule: Vec<Scale>,
    /// What the entries of A and B are drawn from
    #[arg(long, value_enum, default_value = "normal")]
    distribution: DistributionChoice,
    /// What the entries of B are drawn from, if not the same
    #[arg(long, value_name = "DISTRIBUTION", value_enum, hide_possible_values = true)]
    distribution_b: Option<DistributionChoice>,
    /// Rows of A
    #[arg(long, value_name = "N", default_value_t = 16)]
    m: usize,
    /// Columns of B
    #[arg(long, value_name = "N", default_value_t = 16)]
    n: usize,
    /// Products in an output; 4096, or what the rows of a file hold if that is less
    #[arg(long, value_name = "N")]
    k: Option<usize>,
    /// Take the rows of A from a tensor of a .safetensors, .npy or .npz file
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "distribution")]
    a_from: Option<String>,
    /// Take the columns of B from the rows of a tensor: a linear layer's weight
    #[arg(long, value_name = "FILE[:TENSOR]", conflicts_with = "distribution_b")]
    b_from: Option<String>,
    /// Of everything random: the same seed gives the same answer everywhere
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Say how each number is defined, with formula and source
    #[arg(long)]
    explain: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// Products in a chunk, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkChoice(Option<usize>);

fn chunk(text: &str) -> Result<ChunkChoice, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(ChunkChoice(None));
    }
    let length = text.parse().ok().filter(|length: &usize| 0 < *length);
    let length = length.ok_or("write how many products, such as 32, or none")?;
    Ok(ChunkChoice(Some(length)))
}

/// Orders by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderChoice {
    /// One running sum
    Sequential,
    /// Neighbours, then pairs of them: a tree
    Pairwise,
    /// A running sum that keeps what rounding took
    Kahan,
}

/// Roundings by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoundingChoice {
    /// The nearest, ties to even
    Nearest,
    /// Truncation
    TowardZero,
    /// By random bits
    Stochastic,
}

/// What happens to products, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProductsChoice {
    /// Not rounded: fused multiply-add
    Exact,
    /// Rounded to the format of the partial sums
    Rounded,
}

/// Scalings by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScaleChoice {
    /// Nothing for floats, row for integers and tables
    Auto,
    /// Nothing
    None,
    /// So that the largest of a matrix becomes the largest of the format
    Tensor,
    /// The same for each row of A and column of B
    Row,
}

/// Distributions by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DistributionChoice(Distribution);

impl ValueEnum for DistributionChoice {
    fn value_variants<'a>() -> &'a [DistributionChoice] {
        const CHOICES: [DistributionChoice; Distribution::ALL.len()] = {
            let mut choices = [DistributionChoice(Distribution::Normal); Distribution::ALL.len()];
            let mut idx = 0;
            while idx < choices.len() {
                choices[idx] = DistributionChoice(Distribution::ALL[idx]);
                idx += 1;
            }
            choices
        };
        &CHOICES
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()).help(self.0.about()))
    }
}

pub(super) fn run(args: &MatmulErrorArgs) -> anyhow::Result<Outcome> {
    let a_file = args.a_from.as_deref().map(Operand::open).transpose()?;
    let b_file = args.b_from.as_deref().map(Operand::open).transpose()?;
    let shape = shape(args, [a_file.as_ref(), b_file.as_ref()]);
    let a = match &a_file {
        Some(file) => file.source(shape.m, shape.k)?,
        None => Source::Drawn(args.distribution.0),
    };
    let b = match &b_file {
        Some(file) => file.source(shape.n, shape.k)?,
        None => Source::Drawn(args.distribution_b.unwrap_or(args.distribution).0),
    };
    let names = |lists: &[String]| lists.iter().flat_map(|list| split(list)).collect();
    let query = MatmulQuery {
        shape,
        a,
        b,
        seed: args.seed,
        formats: names(&args.format),
        scaling: match args.scale {
            ScaleChoice::Auto => None,
            ScaleChoice::None => Some(Scaling::None),
            ScaleChoice::Tensor => Some(Scaling::Tensor),
            ScaleChoice::Row => Some(Scaling::Row),
        },
        rules: args.scale_rule.iter().map(|rule| rule.rule()).collect(),
        accumulate: names(&args.accumulate),
        orders: args.order.iter().map(|order| order.order()).collect(),
        roundings: args.rounding.iter().map(|rounding| rounding.rounding(args)).collect(),
        products: match args.products {
            ProductsChoice::Exact => Products::Exact,
            ProductsChoice::Rounded => Products::Rounded,
        },
        chunks: args.chunk.iter().map(|chunk| chunk.0).collect(),
        outer: args.outer.clone(),
        is_explained: args.explain,
    };
    output::print(&answer(&Query::Matmul(query))?, args.json)?;
    Ok(Outcome::Yes)
}

impl OrderChoice {
    fn order(self) -> Order {
        match self {
            OrderChoice::Sequential => Order::Sequential,
            OrderChoice::Pairwise => Order::Pairwise,
            OrderChoice::Kahan => Order::Kahan,
        }
    }
}

impl RoundingChoice {
    fn rounding(self, args: &MatmulErrorArgs) -> SumRounding {
        match self {
            RoundingChoice::Nearest => SumRounding::Nearest,
            RoundingChoice::TowardZero => SumRounding::TowardZero,
            RoundingChoice::Stochastic => SumRounding::Stochastic { n_bits: args.random_bits },
        }
    }
}

/// The sizes, as far as the files leave them open: k is at most the length of their rows.
fn shape(args: &MatmulErrorArgs, files: [Option<&Operand>; 2]) -> Shape {
    let longest = files.into_iter().flatten().map(|file| file.row_length).min();
    let k = args.k.unwrap_or_else(|| longest.unwrap_or(USUAL_K).min(USUAL_K));
    Shape { m: args.m, n: args.n, k }
}

/// A tensor of a file, as rows of A or columns of B.
struct Operand {
    checkpoint: Checkpoint,
    tensor_idx: usize,
    row_length: usize,
}

impl Operand {
    /// `FILE` or `FILE:TENSOR`.
    fn open(text: &str) -> anyhow::Result<Operand> {
        let (file, name) = match text.rsplit_once(':') {
            Some((file, name)) if !Path::new(text).exists() => (file, Some(name)),
            Some(_) | None => (text, None),
        };
        let checkpoint = weights::open(Path::new(file))?;
        let tensors = checkpoint.tensors();
        let found = match name {
            Some(name) => tensors.iter().position(|tensor| tensor.name == name),
            None => tensors.iter().position(|tensor| 1 < tensor.shape.len()).or(Some(0)),
        };
        let Some(tensor_idx) = found.filter(|idx| *idx < tensors.len()) else {
            let first = tensors.first().map_or("", |tensor| &tensor.name);
            bail!("{file}: no tensor `{}`; the first is `{first}`", name.unwrap_or(""));
        };
        let row_length = checkpoint.rows_of(tensor_idx).0 as usize;
        Ok(Operand { checkpoint, tensor_idx, row_length })
    }

    fn source(&self, rows: usize, k: usize) -> anyhow::Result<Source> {
        let numbers = self.checkpoint.matrix(self.tensor_idx, rows, k);
        let numbers = numbers.with_context(|| self.checkpoint.name.clone())?;
        Ok(Source::Values(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_parse() {
        let check = |text: &str, expected: Option<ChunkChoice>| {
            assert_eq!(chunk(text).ok(), expected, "{text}");
        };
        check("32", Some(ChunkChoice(Some(32))));
        check("none", Some(ChunkChoice(None)));
        check("0", None);
        check("-1", None);
        check("many", None);
    }
}
