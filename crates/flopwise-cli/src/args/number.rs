//! What can be typed after `flopwise number` and `flopwise format`.

use clap::{Args as ClapArgs, ValueEnum};
use flopwise_formats::block::ScaleRule;
use flopwise_formats::codec::{
    Overflow, Rounding, Rules, Stochastic, StochasticVariant, Subnormals,
};
use flopwise_formats::system::System;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise number 0.052                            in every float of the catalogue
  flopwise number 0.052 1/3 1e-400 --format fp16,bf16
  flopwise number 0x2AA8:fp16 --format fp32        what these bits are
  flopwise number 0.052 --format fp32 --explain    every step, bit by bit
  flopwise number 465 --format e4m3fn --as pytorch what another system's cast gives
  flopwise number 7 --format 'fp(3,2,inf=none,nan=none)'
  flopwise number 0.3 --format 'int8(scale=0.05,zero=3)'
  flopwise number 1 2 3.3 -0.7 --format mxfp4      together in one block
  seq 10 | flopwise number - --format e2m1         values from stdin

Values: 0.052, -1e-400, 0x1.a9fbe7p-5 (hexadecimal float), 0x3D54FDF4:fp32 or 0b0011...:fp16 (bits),
1/3, inf, nan(0x12), -0. The exact value is rounded once.")]
pub(crate) struct NumberArgs {
    /// Values; `-` reads them from stdin, apart by blanks or lines
    #[arg(value_name = "VALUE", required = true)]
    pub(crate) values: Vec<String>,
    /// Formats by name (`flopwise format` lists them), P3109's, fp(e,m,...), or `all`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Vec<String>,
    #[command(flatten)]
    pub(crate) rules: RulesChoice,
    /// How an MX block's power of two is chosen from its largest magnitude
    #[arg(long, value_enum, default_value_t = Scale::Floor)]
    pub(crate) scale_rule: Scale,
    /// Also show what this system's cast gives where that differs, and why
    #[arg(long = "as", value_name = "SYSTEM", value_enum)]
    pub(crate) system: Option<CastSystem>,
    /// Show every step from the value to its bits
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

/// How values are converted.
#[derive(Debug, ClapArgs)]
pub(crate) struct RulesChoice {
    /// Between two codes
    #[arg(long, value_enum, default_value_t = Round::NearestEven)]
    pub(crate) round: Round,
    /// Beyond the largest value
    #[arg(long, value_enum, default_value_t = Beyond::Infinity)]
    pub(crate) overflow: Beyond,
    /// Below the smallest normal value
    #[arg(long, value_enum, default_value_t = Small::Kept)]
    pub(crate) subnormals: Small,
    /// The random bits of a stochastic rounding, as VALUE/COUNT: 5/8 is 00000101
    #[arg(long, value_name = "R/N", value_parser = random_bits)]
    pub(crate) random: Option<(u64, u8)>,
}

/// Roundings by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Round {
    /// To the nearest, ties to the even code
    NearestEven,
    /// To the nearest, ties away from zero
    NearestAway,
    /// Truncation
    TowardZero,
    /// Toward plus infinity
    Up,
    /// Toward minus infinity
    Down,
    /// To the odd code of the two neighbours
    Odd,
    /// P3109's StochasticA, with --random
    StochasticA,
    /// P3109's StochasticB, with --random
    StochasticB,
    /// P3109's StochasticC, with --random
    StochasticC,
}

/// Overflow conventions by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Beyond {
    /// Infinity, or NaN without one, or the largest without either
    Infinity,
    /// The largest finite value, for infinity too
    #[value(alias = "saturate")]
    SaturateFinite,
    /// The largest finite value; infinity stays
    SaturatePropagate,
    /// ONNX Cast with saturate=1: the largest, but NaN for infinity in FNUZ formats
    Onnx,
}

/// What becomes of subnormals, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Small {
    /// Kept
    Kept,
    /// A subnormal result becomes zero (FTZ)
    Flush,
    /// A value below the smallest normal is taken for zero (DAZ)
    Daz,
}

/// Scale rules of MX blocks by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scale {
    /// OCP's: the exponent of the largest magnitude, less the element's largest
    Floor,
    /// One more unless the magnitude is a power of two (torchao)
    Ceil,
    /// From the magnitude rounded to the element's bits (torchao)
    Even,
    /// The smallest that clips nothing (cuBLAS, Transformer Engine)
    Rceil,
}

impl Scale {
    pub(crate) fn rule(self) -> ScaleRule {
        match self {
            Scale::Floor => ScaleRule::Floor,
            Scale::Ceil => ScaleRule::Ceil,
            Scale::Even => ScaleRule::Even,
            Scale::Rceil => ScaleRule::Rceil,
        }
    }
}

/// Systems whose casts are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CastSystem {
    /// PyTorch 2.12 and later
    Pytorch,
    /// PyTorch up to 2.11
    #[value(name = "pytorch-2.11")]
    Pytorch211,
    /// The ONNX Cast operator
    Onnx,
    /// NumPy with ml_dtypes
    #[value(name = "ml_dtypes", alias = "ml-dtypes")]
    MlDtypes,
    /// CUDA's satfinite conversions
    Cuda,
    /// IEEE P3109's format of the same width and precision
    P3109,
}

impl CastSystem {
    pub(crate) fn system(self) -> System {
        match self {
            CastSystem::Pytorch => System::Pytorch,
            CastSystem::Pytorch211 => System::Pytorch2_11,
            CastSystem::Onnx => System::Onnx,
            CastSystem::MlDtypes => System::MlDtypes,
            CastSystem::Cuda => System::Cuda,
            CastSystem::P3109 => System::P3109,
        }
    }
}

impl RulesChoice {
    /// The rules of the codec; an error where random bits are missing or not wanted.
    pub(crate) fn rules(&self) -> anyhow::Result<Rules> {
        let stochastic = |variant| match self.random {
            Some((random, n_bits)) => {
                Ok(Rounding::Stochastic(Stochastic { variant, n_bits, random }))
            }
            None => anyhow::bail!("a stochastic rounding needs its random bits: --random 5/8"),
        };
        let rounding = match self.round {
            Round::NearestEven => Rounding::NearestEven,
            Round::NearestAway => Rounding::NearestAway,
            Round::TowardZero => Rounding::TowardZero,
            Round::Up => Rounding::Up,
            Round::Down => Rounding::Down,
            Round::Odd => Rounding::ToOdd,
            Round::StochasticA => stochastic(StochasticVariant::A)?,
            Round::StochasticB => stochastic(StochasticVariant::B)?,
            Round::StochasticC => stochastic(StochasticVariant::C)?,
        };
        if self.random.is_some() && !matches!(rounding, Rounding::Stochastic(_)) {
            anyhow::bail!("--random goes with --round stochastic-a, -b or -c");
        }
        let overflow = match self.overflow {
            Beyond::Infinity => Overflow::ToInfinity,
            Beyond::SaturateFinite => Overflow::SaturateFinite,
            Beyond::SaturatePropagate => Overflow::SaturatePropagate,
            Beyond::Onnx => Overflow::Onnx,
        };
        let subnormals = match self.subnormals {
            Small::Kept => Subnormals::Kept,
            Small::Flush => Subnormals::FlushedToZero,
            Small::Daz => Subnormals::TakenForZero,
        };
        Ok(Rules { rounding, overflow, subnormals })
    }
}

fn random_bits(text: &str) -> Result<(u64, u8), String> {
    let shape = "write the value and the count of the bits, for instance 5/8";
    let (random, n_bits) = text.split_once('/').ok_or(shape)?;
    let random: u64 = random.parse().map_err(|_| shape)?;
    let n_bits: u8 = n_bits.parse().map_err(|_| shape)?;
    let most = Stochastic::MAX_BITS;
    if n_bits == 0 || n_bits > most || random >> n_bits != 0 {
        return Err(format!("the count is 1 to {most} and the value fits that many bits"));
    }
    Ok((random, n_bits))
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise format                list every format
  flopwise format e4m3fn         one in full
  flopwise format binary8p4se    IEEE P3109
  flopwise format 'fp(5,2,bias=10)'")]
pub(crate) struct FormatArgs {
    /// A format's name
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}
