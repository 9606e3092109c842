//! Text <-> [`Format`]: the catalogue's names and the names that other systems use.

use crate::catalog::ALL;
use crate::format::Format;
use std::fmt;

/// The text names no format of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat {
    /// What was asked for.
    pub name: String,
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unknown format `{}`; known are ", self.name)?;
        for (format_idx, format) in ALL.iter().enumerate() {
            let separator = if format_idx == 0 { "" } else { ", " };
            write!(formatter, "{separator}{format}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownFormat {}

/// Reads a format's name, in any case, as this project or PyTorch, ONNX and NumPy write it.
///
/// # Errors
/// [`UnknownFormat`], which lists the names that are known.
///
/// ```
/// use flopwise_formats::{Format, parse};
/// assert_eq!(parse("float16"), Ok(Format::FP16));
/// assert!(parse("fp17").is_err());
/// ```
pub fn parse(text: &str) -> Result<Format, UnknownFormat> {
    let lower = text.trim().to_ascii_lowercase();
    let name = match lower.as_str() {
        "f64" | "float64" | "double" => "fp64",
        "f32" | "float32" | "float" | "single" => "fp32",
        "f16" | "float16" | "half" => "fp16",
        "bfloat16" => "bf16",
        "fp8" | "e4m3" | "float8_e4m3fn" | "f8_e4m3" => "e4m3fn",
        "float8_e5m2" | "f8_e5m2" => "e5m2",
        "float8_e4m3fnuz" => "e4m3fnuz",
        "float8_e5m2fnuz" => "e5m2fnuz",
        "fp4" | "float4_e2m1fn" | "f4" => "e2m1",
        "i64" | "long" => "int64",
        "i32" | "int" => "int32",
        "i16" | "short" => "int16",
        "i8" => "int8",
        "i4" => "int4",
        "u8" | "byte" => "uint8",
        "boolean" => "bool",
        other => other,
    };
    let found = ALL.iter().find(|format| format.name == name);
    found.copied().ok_or_else(|| UnknownFormat { name: text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printed_name_parses_back() {
        for format in ALL {
            assert_eq!(parse(&format.to_string()), Ok(*format));
        }
    }
}
