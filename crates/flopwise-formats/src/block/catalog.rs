//! The one table of block formats, and finding rows in it.
//!
//! Not here: formats of single numbers ([`crate::ALL`]).

use super::{BlockFormat, BlockLayout, Ggml, Nibbles};
use crate::format::Format;
use crate::parse::UnknownFormat;

const OCP_MX: &str = "OCP Microscaling Formats (MX) 1.0, section 5.2";
const GGML: &str = "llama.cpp ggml-common.h; gguf/quants.py 0.19.0";
/// Layouts that gguf-py has no code for.
const GGML_ONLY: &str = "llama.cpp ggml-common.h and ggml-quants.c";

const fn mx(
    name: &'static str,
    bytes: usize,
    element: Format,
    what: &'static str,
    users: &'static str,
) -> BlockFormat {
    let layout = BlockLayout::Mx(element);
    BlockFormat { name, elements: 32, bytes, layout, ggml_type: None, what, users, source: OCP_MX }
}

/// Two's complement under an FP16 scale.
const fn integers(
    name: &'static str,
    elements: usize,
    element: Format,
    what: &'static str,
) -> BlockFormat {
    let layout = BlockLayout::Group { scale: Format::FP16, element, nibbles: Nibbles::LowFirst };
    BlockFormat {
        name,
        elements,
        bytes: 2 + elements * element.bits as usize / 8,
        layout,
        ggml_type: None,
        what,
        users: "GPTQ, AWQ and compressed-tensors checkpoints without zero points",
        source: "this project; files keep codes and scales as two tensors",
    }
}

const fn ggml(
    name: &'static str,
    size: (usize, usize),
    number: u32,
    kind: Ggml,
    what: &'static str,
    users: &'static str,
) -> BlockFormat {
    let (elements, bytes) = size;
    let layout = BlockLayout::Ggml(kind);
    BlockFormat {
        name,
        elements,
        bytes,
        layout,
        ggml_type: Some(number),
        what,
        users,
        source: GGML,
    }
}

/// A GGUF type of which the size is known and the grid of values is not held.
const fn grid(name: &'static str, bytes: usize, number: u32, what: &'static str) -> BlockFormat {
    BlockFormat {
        name,
        elements: 256,
        bytes,
        layout: BlockLayout::Grid,
        ggml_type: Some(number),
        what,
        users: "llama.cpp, the smallest files, made with an importance matrix",
        source: GGML,
    }
}

/// Every block format, in the order of this file.
pub const ALL: &[BlockFormat] = &[
    mx(
        "mxfp8_e4m3",
        33,
        Format::E4M3FN,
        "32 E4M3 under a power of two.",
        "inference and training on Blackwell and MI350",
    ),
    mx(
        "mxfp8_e5m2",
        33,
        Format::E5M2,
        "32 E5M2 under a power of two.",
        "gradients on Blackwell and MI350",
    ),
    mx(
        "mxfp6_e2m3",
        25,
        Format::E2M3,
        "32 E2M3 under a power of two.",
        "inference on Blackwell and MI350",
    ),
    mx(
        "mxfp6_e3m2",
        25,
        Format::E3M2,
        "32 E3M2 under a power of two.",
        "inference on Blackwell and MI350",
    ),
    mx(
        "mxfp4",
        17,
        Format::E2M1,
        "32 E2M1 under a power of two.",
        "gpt-oss; inference on Blackwell and MI350",
    ),
    mx(
        "mxint8",
        33,
        Format::INT8,
        "32 two's complement bytes in 1/64 under a power of two.",
        "research",
    ),
    BlockFormat {
        name: "nvfp4",
        elements: 16,
        bytes: 9,
        layout: BlockLayout::Nvfp4,
        ggml_type: None,
        what: "16 E2M1 under an unsigned E4M3, under one FP32 for the tensor.",
        users: "inference and training on Blackwell",
        source: "NVIDIA Transformer Engine, quantize_nvfp4.cuh; TensorRT documentation",
    },
    BlockFormat {
        name: "nf4_g64",
        elements: 64,
        bytes: 36,
        layout: BlockLayout::Group {
            scale: Format::FP32,
            element: Format::NF4,
            nibbles: Nibbles::HighFirst,
        },
        ggml_type: None,
        what: "64 NF4 times the FP32 of the largest magnitude among them.",
        users: "QLoRA; bitsandbytes, there without double quantisation",
        source: "arXiv:2305.14314; bitsandbytes csrc/kernels.cu, in which codes and scales are two \
                 arrays",
    },
    integers("int8_g32", 32, Format::INT8, "32 INT8 times an FP16."),
    integers("int8_g128", 128, Format::INT8, "128 INT8 times an FP16."),
    integers("int4_g32", 32, Format::INT4, "32 INT4 times an FP16."),
    integers("int4_g128", 128, Format::INT4, "128 INT4 times an FP16."),
    ggml("q4_0", (32, 18), 2, Ggml::Q4_0, "FP16 times (4 bits - 8).", "llama.cpp, early files"),
    ggml(
        "q4_1",
        (32, 20),
        3,
        Ggml::Q4_1,
        "FP16 times 4 bits, plus FP16.",
        "llama.cpp, early files",
    ),
    ggml("q5_0", (32, 22), 6, Ggml::Q5_0, "FP16 times (5 bits - 16).", "llama.cpp, early files"),
    ggml(
        "q5_1",
        (32, 24),
        7,
        Ggml::Q5_1,
        "FP16 times 5 bits, plus FP16.",
        "llama.cpp, early files",
    ),
    ggml(
        "q8_0",
        (32, 34),
        8,
        Ggml::Q8_0,
        "FP16 times a signed byte.",
        "llama.cpp, nearly lossless files and KV caches",
    ),
    BlockFormat {
        source: GGML_ONLY,
        // gguf-py 0.19.0 still says 40 bytes, from when scale and sum were FP32 each.
        ..ggml(
            "q8_1",
            (32, 36),
            9,
            Ggml::Q8_1,
            "FP16 times a signed byte, beside the FP16 of that scale times the sum of the bytes.",
            "llama.cpp, activations while multiplying; not in files",
        )
    },
    ggml(
        "q2_k",
        (256, 84),
        10,
        Ggml::Q2K,
        "16 groups of 16: (FP16 times 4 bits) times 2 bits, less FP16 times 4 bits.",
        "llama.cpp, small files",
    ),
    ggml(
        "q3_k",
        (256, 110),
        11,
        Ggml::Q3K,
        "16 groups of 16: (FP16 times 6 bits) times (3 bits - 4).",
        "llama.cpp, small files",
    ),
    ggml(
        "q4_k",
        (256, 144),
        12,
        Ggml::Q4K,
        "8 groups of 32: (FP16 times 6 bits) times 4 bits, less FP16 times 6 bits.",
        "llama.cpp, most files: Q4_K_M and Q4_K_S",
    ),
    ggml(
        "q5_k",
        (256, 176),
        13,
        Ggml::Q5K,
        "8 groups of 32: (FP16 times 6 bits) times 5 bits, less FP16 times 6 bits.",
        "llama.cpp, files Q5_K_M and Q5_K_S",
    ),
    ggml(
        "q6_k",
        (256, 210),
        14,
        Ggml::Q6K,
        "16 groups of 16: (FP16 times a signed byte) times (6 bits - 32).",
        "llama.cpp, files Q6_K; the larger tensors of Q4_K_M",
    ),
    BlockFormat {
        source: GGML_ONLY,
        ..ggml(
            "q8_k",
            (256, 292),
            15,
            Ggml::Q8K,
            "FP32 times a signed byte, beside 16-bit sums of 16 bytes.",
            "llama.cpp, activations while multiplying; not in files",
        )
    },
    ggml(
        "iq4_nl",
        (32, 18),
        20,
        Ggml::Iq4Nl,
        "FP16 times an entry of a table of 16.",
        "llama.cpp, rows that no 256 divides",
    ),
    ggml(
        "iq4_xs",
        (256, 136),
        23,
        Ggml::Iq4Xs,
        "8 groups of 32: (FP16 times (6 bits - 32)) times an entry of a table of 16.",
        "llama.cpp, files IQ4_XS",
    ),
    ggml(
        "tq1_0",
        (256, 54),
        34,
        Ggml::Tq1_0,
        "FP16 times -1, 0 or 1, five to a byte.",
        "llama.cpp, BitNet and TriLM",
    ),
    ggml(
        "tq2_0",
        (256, 66),
        35,
        Ggml::Tq2_0,
        "FP16 times (2 bits - 1).",
        "llama.cpp, BitNet and TriLM",
    ),
    ggml(
        "gguf_mxfp4",
        (32, 17),
        39,
        Ggml::Mxfp4,
        "MXFP4 with the second half of the block in the high nibbles.",
        "llama.cpp, gpt-oss",
    ),
    ggml(
        "gguf_nvfp4",
        (64, 36),
        40,
        Ggml::Nvfp4,
        "4 groups of 16 E2M1 under an unsigned E4M3, second halves in the high nibbles.",
        "llama.cpp",
    ),
    BlockFormat {
        source: GGML_ONLY,
        ..ggml(
            "q1_0",
            (128, 18),
            41,
            Ggml::Q1_0,
            "FP16 times -1 or 1.",
            "llama.cpp, models trained at that width",
        )
    },
    BlockFormat {
        source: GGML_ONLY,
        ..ggml(
            "q2_0",
            (64, 18),
            42,
            Ggml::Q2_0,
            "FP16 times (2 bits - 1).",
            "llama.cpp, models trained at that width",
        )
    },
    grid("iq2_xxs", 66, 16, "8 values from a grid of 256, signs apart. Only its size is known."),
    grid("iq2_xs", 74, 17, "8 values from a grid of 512, signs apart. Only its size is known."),
    grid("iq3_xxs", 98, 18, "4 values from a grid of 256, signs apart. Only its size is known."),
    grid("iq1_s", 50, 19, "8 of -1, 0, 1 from a grid of 2048. Only its size is known."),
    grid("iq3_s", 110, 21, "4 values from a grid of 512, signs apart. Only its size is known."),
    grid("iq2_s", 82, 22, "8 values from a grid of 1024, signs apart. Only its size is known."),
    grid("iq1_m", 56, 29, "8 of -1, 0, 1 from a grid of 2048. Only its size is known."),
];

/// Other names of rows.
const ALIASES: &[(&str, &str)] = &[
    ("mxfp4_e2m1", "mxfp4"),
    ("nf4", "nf4_g64"),
    // The files' names say which mix of types they hold; most of their tensors are of this one.
    ("q3_k_s", "q3_k"),
    ("q4_k_s", "q4_k"),
    ("q5_k_s", "q5_k"),
];

/// Names that stand for several rows.
const AMBIGUOUS: &[(&str, &str)] = &[
    ("mxfp8", "mxfp8_e4m3 (weights, activations), mxfp8_e5m2 (gradients)"),
    ("mxfp6", "mxfp6_e2m3 (largest 7.5), mxfp6_e3m2 (largest 28)"),
    ("mx", "mxfp8_e4m3, mxfp8_e5m2, mxfp6_e2m3, mxfp6_e3m2, mxfp4, mxint8"),
    ("int8", "int8_g32 (groups of 32), int8_g128 (groups of 128)"),
    ("int4", "int4_g32 (groups of 32), int4_g128 (groups of 128)"),
];

/// Reads a block format's name, in any case; llama.cpp's types with or without `ggml_type_` or
/// `gguf_` before them.
///
/// # Errors
/// [`UnknownFormat`] says what is wrong; an ambiguous name lists its variants.
///
/// ```
/// use flopwise_formats::block;
/// assert_eq!(block::parse("Q4_K").unwrap().bytes, 144);
/// assert!(block::parse("MXFP8").unwrap_err().problem.contains("mxfp8_e5m2"));
/// ```
pub fn parse(text: &str) -> Result<&'static BlockFormat, UnknownFormat> {
    let trimmed = text.trim();
    let lower = trimmed.to_ascii_lowercase();
    let prefixed = ["ggml_type_", "gguf_"].iter().find_map(|prefix| lower.strip_prefix(prefix));
    let found = match prefixed {
        None => row_called(&lower),
        // MXFP4 and NVFP4 are other rows without the prefix.
        Some(bare) => row_called(&format!("gguf_{bare}"))
            .or_else(|| row_called(bare))
            .filter(|row| row.ggml_type.is_some()),
    };
    if let Some(row) = found {
        return Ok(row);
    }
    let problem = match AMBIGUOUS.iter().find(|(name, _)| *name == lower) {
        Some((_, variants)) => format!("is ambiguous; say which: {variants}"),
        None => {
            let names: Vec<&str> = ALL.iter().map(|row| row.name).collect();
            format!("is no known block format; known are {}", names.join(", "))
        }
    };
    Err(UnknownFormat { name: trimmed.chars().take(60).collect(), problem })
}

fn row_called(name: &str) -> Option<&'static BlockFormat> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    ALL.iter().find(|row| row.name == name)
}

/// The row of a number in `enum ggml_type`, as GGUF files store it; `None` for types that are not
/// blocks and unknown ones.
///
/// ```
/// use flopwise_formats::block;
/// assert_eq!(block::by_ggml_type(12).unwrap().name, "q4_k");
/// assert!(block::by_ggml_type(0).is_none()); // FP32
/// ```
pub fn by_ggml_type(number: u32) -> Option<&'static BlockFormat> {
    ALL.iter().find(|row| row.ggml_type == Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_and_parses_back() {
        for row in ALL {
            assert_eq!(parse(&row.name.to_ascii_uppercase()), Ok(row));
            assert_eq!(ALL.iter().filter(|other| other.name == row.name).count(), 1);
            assert!(row.what.ends_with('.') && !row.users.is_empty() && !row.source.is_empty());
            let Some(number) = row.ggml_type else { continue };
            assert_eq!(by_ggml_type(number), Some(row));
        }
        for (alias, name) in ALIASES {
            assert_eq!(parse(alias).map(|row| row.name), Ok(*name));
            assert!(ALL.iter().all(|row| row.name != *alias));
        }
    }

    #[test]
    fn bytes_are_what_the_layout_needs() {
        for row in ALL {
            let bits = match row.layout {
                BlockLayout::Mx(element) => 8 + row.elements * usize::from(element.bits),
                BlockLayout::Nvfp4 => 8 + row.elements * 4,
                BlockLayout::Group { scale, element, .. } => {
                    usize::from(scale.bits) + row.elements * usize::from(element.bits)
                }
                BlockLayout::Ggml(_) | BlockLayout::Grid => row.bytes * 8,
            };
            assert_eq!(bits, row.bytes * 8, "{row}");
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match parse(text) {
            Ok(row) => format!("{row} {}", row.bits_per_weight()),
            Err(error) => error.problem,
        };
        assert!(found.contains(expected), "{text}: {found}");
    }

    #[test]
    fn names_in_the_users_words() {
        check("mxfp8_e4m3", "mxfp8_e4m3 8.25");
        check(" MXFP6_E3M2 ", "mxfp6_e3m2 6.25");
        check("mxfp4_e2m1", "mxfp4 4.25");
        check("NVFP4", "nvfp4 4.5");
        check("nf4", "nf4_g64 4.5");
        check("int4_g128", "int4_g128 4.125");
        check("int8_g32", "int8_g32 8.5");
        check("GGML_TYPE_Q6_K", "q6_k 6.5625");
        check("gguf_q8_0", "q8_0 8.5");
        check("GGML_TYPE_MXFP4", "gguf_mxfp4 4.25");
        check("q3_k", "q3_k 3.4375");
        check("iq1_s", "iq1_s 1.5625");
        check("mxfp6", "is ambiguous; say which: mxfp6_e2m3");
        check("Int4", "int4_g128");
        check("gguf_nf4", "is no known block format");
        check("", "is no known block format");
    }
}
