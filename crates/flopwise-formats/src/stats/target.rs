//! What a tensor might be converted to.
//!
//! Not here: the conversions.

use super::direct::Direct;
use super::mx::Mx;
use super::quantizer::Quantizer;
use crate::codec::Rules;
use crate::format::Format;
use crate::parse::{UnknownFormat, parse};
use std::fmt;

/// A format to judge, and how values are converted to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Element { format: Format, rules: Rules },
    Mx { element: Format },
}

/// MX formats by name (OCP Microscaling Formats 1.0, table 1).
const MX: &[(&str, Format)] = &[
    ("mxfp4", Format::E2M1),
    ("mxfp6_e2m3", Format::E2M3),
    ("mxfp6_e3m2", Format::E3M2),
    ("mxfp8_e4m3", Format::E4M3FN),
    ("mxfp8_e5m2", Format::E5M2),
    ("mxint8", Format::INT8),
];

/// The way in which errors are found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judge {
    /// The format holds every binary32.
    Held(Quantizer),
    /// From cells of so many significand bits.
    Binned(Quantizer, u32),
    /// Binary32 values one at a time.
    Direct(Direct),
    /// By blocks.
    Mx(Mx),
}

impl Judge {
    /// `None` for blocks.
    pub(super) fn by_element(&self) -> Option<&Quantizer> {
        match self {
            Judge::Held(quantizer) | Judge::Binned(quantizer, _) => Some(quantizer),
            Judge::Direct(direct) => Some(&direct.quantizer),
            Judge::Mx(_) => None,
        }
    }

    /// Significand bits of the cells that a target with blocks is judged from.
    pub(super) fn block_bits(&self) -> Option<u32> {
        match self {
            Judge::Mx(mx) => Some(mx.grid_bits()),
            Judge::Held(_) | Judge::Binned(..) | Judge::Direct(_) => None,
        }
    }
}

/// The most significand bits that cells of binary32 values have.
pub(super) const MAX_GRID_BITS: u32 = super::bins::BIN_BITS;

impl Target {
    /// Each element by itself. `None` when the format holds no single numbers, or rounding is
    /// stochastic.
    pub fn element(format: Format, rules: Rules) -> Option<Target> {
        Quantizer::new(format, rules).map(|_| Target(Kind::Element { format, rules }))
    }

    /// A format by name: `mxfp4` and the like, or what [`parse`] reads, saturating.
    ///
    /// # Errors
    /// [`UnknownFormat`] as [`parse`] has it, and for what holds no single numbers.
    ///
    /// ```
    /// use flopwise_formats::stats::Target;
    /// assert_eq!(Target::parse("MXFP8_E4M3").unwrap().to_string(), "mxfp8_e4m3");
    /// assert_eq!(Target::parse("half").unwrap().to_string(), "fp16");
    /// ```
    pub fn parse(text: &str) -> Result<Target, UnknownFormat> {
        let lower = text.trim().to_ascii_lowercase();
        if let Some((_, element)) = MX.iter().find(|(name, _)| *name == lower) {
            return Ok(Target(Kind::Mx { element: *element }));
        }
        let unusable = |problem: &str| UnknownFormat {
            name: text.trim().chars().take(60).collect(),
            problem: problem.to_owned(),
        };
        if ["mxfp8", "mxfp6"].contains(&lower.as_str()) {
            return Err(unusable(
                "is ambiguous; say which: mxfp8_e4m3, mxfp8_e5m2, mxfp6_e2m3, mxfp6_e3m2",
            ));
        }
        if lower == "nvfp4" {
            return Err(unusable(
                "cannot be judged in one pass: its tensor scale follows from the largest magnitude",
            ));
        }
        let format = parse(text)?;
        Target::element(format, Rules::SATURATING)
            .ok_or_else(|| unusable("holds no single numbers to judge"))
    }

    /// The format of one element; of a block format, without the shared scale.
    pub fn format(&self) -> Format {
        match self.0 {
            Kind::Element { format, .. } | Kind::Mx { element: format } => format,
        }
    }

    /// How many elements share a scale; 1 where none is shared.
    pub fn block(&self) -> usize {
        match self.0 {
            Kind::Element { .. } => 1,
            Kind::Mx { .. } => super::mx::BLOCK,
        }
    }

    pub(super) fn judge(&self) -> Judge {
        match self.0 {
            Kind::Element { format, rules } => {
                let quantizer = Quantizer::new(format, rules).expect("`element` has made one");
                let grid_bits = quantizer.grid_bits().filter(|bits| *bits <= MAX_GRID_BITS);
                match grid_bits {
                    _ if quantizer.holds(Format::FP32) => Judge::Held(quantizer),
                    Some(bits) => Judge::Binned(quantizer, bits),
                    None => Judge::Direct(Direct::new(format, rules, quantizer)),
                }
            }
            Kind::Mx { element } => {
                Judge::Mx(Mx::new(element).expect("elements of MX are in the catalogue"))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Element { format, .. } => write!(formatter, "{format}"),
            Kind::Mx { element } => {
                let row = MX.iter().find(|(_, format)| *format == element);
                formatter.pad(row.map_or("mx", |(name, _)| name))
            }
        }
    }
}
