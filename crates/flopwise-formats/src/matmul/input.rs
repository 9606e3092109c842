//! What becomes of the entries of A and B when they are stored in a format.
//!
//! Not here: the products.

use super::Refused;
use super::round::Grid;
use crate::block::{self, BlockFormat, BlockLayout, BlockRules, ScaleRule};
use crate::codec::{self, Overflow, Rules};
use crate::format::{Format, Layout};
use std::fmt;

/// How the entries of A and B are stored. Finite values beyond the largest become the largest, as
/// quantisers have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Storage {
    /// One by one, rounded to nearest even.
    Plain {
        /// The format of an entry.
        format: Format,
        /// By what entries are divided first.
        scaling: Scaling,
    },
    /// In blocks along k that share a scale; the last block of a row is filled up with zeros.
    Blocks {
        /// The format of a block.
        format: &'static BlockFormat,
        /// Which power of two an MX block gets.
        rule: ScaleRule,
    },
}

/// By what entries are divided before they are rounded. The factor leaves the sum over k and
/// multiplies the result, exactly here; entries divided by it are rounded to binary64 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// By nothing.
    None,
    /// The largest magnitude of the matrix becomes the format's largest.
    Tensor,
    /// The same for each row of A and column of B.
    Row,
}

impl fmt::Display for Storage {
    /// The format, and what else was chosen: `e4m3fn/row`, `mxfp4/floor`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::Plain { format, scaling: Scaling::None } => write!(formatter, "{format}"),
            Storage::Plain { format, scaling: Scaling::Tensor } => {
                write!(formatter, "{format}/tensor")
            }
            Storage::Plain { format, scaling: Scaling::Row } => write!(formatter, "{format}/row"),
            Storage::Blocks { format, rule } => match format.layout {
                BlockLayout::Mx(_) => write!(formatter, "{format}/{}", rule_name(*rule)),
                BlockLayout::Nvfp4
                | BlockLayout::Group { .. }
                | BlockLayout::Ggml(_)
                | BlockLayout::Grid => write!(formatter, "{format}"),
            },
        }
    }
}

fn rule_name(rule: ScaleRule) -> &'static str {
    match rule {
        ScaleRule::Floor => "floor",
        ScaleRule::Ceil => "ceil",
        ScaleRule::Even => "even",
        ScaleRule::Rceil | ScaleRule::RceilSaturating => "rceil",
    }
}

/// A matrix as rows along k: entries times the factor of their row.
pub(super) struct Matrix {
    pub(super) entries: Vec<f32>,
    pub(super) factors: Vec<f64>,
    /// `None` where it is not counted, in blocks.
    pub(super) n_saturated: Option<u64>,
    pub(super) n_to_zero: u64,
}

pub(super) fn store(entries: &[f32], k: usize, storage: &Storage) -> Result<Matrix, Refused> {
    match storage {
        Storage::Plain { format, scaling } => plain(entries, k, *format, *scaling),
        Storage::Blocks { format, rule } => blocks(entries, k, format, *rule),
    }
}

/// Rounding to one plain format.
struct Rounding {
    format: Format,
    grid: Option<Grid>,
    max: f64,
}

impl Rounding {
    fn new(format: Format) -> Result<Rounding, Refused> {
        let grid = Grid::new(format, Overflow::SaturateFinite);
        let max = match format.layout {
            Layout::Float(_) => grid.map(|grid| grid.max()),
            Layout::SignedInteger => Some((1u64 << (format.bits - 1)) as f64 - 1.0),
            Layout::CodeBook(book) => book.values().last().map(|value| f64::from(*value)),
            Layout::UnsignedInteger | Layout::Boolean | Layout::Complex | Layout::Text => None,
        };
        let max = max.ok_or_else(|| {
            let what = "cannot hold the entries of a matrix here";
            Refused::new(format!("{format} {what}; take a signed float, a signed integer or nf4"))
        })?;
        Ok(Rounding { format, grid, max })
    }

    fn round(&self, value: f64) -> f64 {
        match self.grid {
            Some(grid) => grid.nearest(value),
            None => {
                let code = codec::encode_f64(self.format, value, Rules::SATURATING).code;
                codec::decode_f64(self.format, code)
            }
        }
    }
}

fn plain(entries: &[f32], k: usize, format: Format, scaling: Scaling) -> Result<Matrix, Refused> {
    let rounding = Rounding::new(format)?;
    let factor = |entries: &[f32]| {
        let largest = f64::from(block::largest_magnitude(entries));
        // The scale is stored in binary32; one of zero would divide by zero.
        let factor = f64::from((largest / rounding.max) as f32);
        if factor == 0.0 { 1.0 } else { factor }
    };
    let factors: Vec<f64> = match scaling {
        Scaling::None => vec![1.0; entries.len() / k],
        Scaling::Tensor => vec![factor(entries); entries.len() / k],
        Scaling::Row => entries.chunks(k).map(factor).collect(),
    };
    let mut stored = Vec::with_capacity(entries.len());
    let (mut n_saturated, mut n_to_zero) = (0, 0);
    for (row, factor) in entries.chunks(k).zip(&factors) {
        for entry in row {
            let scaled = f64::from(*entry) / factor;
            let rounded = rounding.round(scaled);
            n_saturated += u64::from(rounding.max < scaled.abs());
            n_to_zero += u64::from(rounded == 0.0 && *entry != 0.0);
            stored.push(rounded as f32);
        }
    }
    if let Some(wide) = stored.iter().find(|entry| !entry.is_finite()) {
        return Err(Refused::new(format!("{format}: an entry becomes {wide} in binary32")));
    }
    Ok(Matrix { entries: stored, factors, n_saturated: Some(n_saturated), n_to_zero })
}

fn blocks(
    entries: &[f32],
    k: usize,
    format: &BlockFormat,
    rule: ScaleRule,
) -> Result<Matrix, Refused> {
    let largest = block::largest_magnitude(entries);
    let rules = BlockRules {
        scale: rule,
        arithmetic: block::Arithmetic::Float32,
        tensor: block::TensorScale::FromMagnitude(largest),
    };
    let factor = match format.layout {
        BlockLayout::Nvfp4 => f64::from(block::nvfp4_tensor_scale(largest)),
        BlockLayout::Mx(_)
        | BlockLayout::Group { .. }
        | BlockLayout::Ggml(_)
        | BlockLayout::Grid => 1.0,
    };
    let refuse = |error: block::BlockError| Refused::new(error.to_string());
    let mut stored = Vec::with_capacity(entries.len());
    let mut padded = vec![0.0; k.next_multiple_of(format.elements)];
    let mut n_to_zero = 0;
    for row in entries.chunks(k) {
        padded[..k].copy_from_slice(row);
        padded[k..].fill(0.0);
        let bytes = format.encode(&padded, rules).map_err(refuse)?;
        format.decode(&bytes, 1.0, &mut padded).map_err(refuse)?;
        let lost = row.iter().zip(&padded).filter(|(entry, kept)| **entry != 0.0 && **kept == 0.0);
        n_to_zero += lost.count() as u64;
        stored.extend_from_slice(&padded[..k]);
    }
    let factors = vec![factor; entries.len() / k];
    Ok(Matrix { entries: stored, factors, n_saturated: None, n_to_zero })
}
