//! Which tensor scales which, by their names: a stored code times its scale is the weight, and the
//! codes of FP8 or packed 4-bit weights alone say nothing of the model.
//!
//! Not here: reading or applying a scale.

use super::StoredTensor;
use crate::note::Note;
use flopwise_formats::Format;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What the elements of a tensor stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// They are the numbers themselves.
    Values,
    /// They are codes; other tensors of the file turn them into values.
    Scaled(Companion),
    /// They are codes, and what they stand for was not found: not to be judged as values.
    Codes {
        /// Why they are taken for codes, as a clause.
        why: String,
    },
    /// They serve another tensor: as its scale, zero point, table.
    Serves {
        /// That tensor's place among [`super::Checkpoint::tensors`]; the first, if several.
        tensor_idx: usize,
        /// As what.
        role: Role,
    },
}

/// The tensors that turn codes into values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Each of them, the scale first; at least one is a scale.
    pub parts: Vec<Part>,
    /// The format of one code, where names and formats tell it. With fewer bits than the stored
    /// element, codes are packed from the lowest bit up (E2M1 in UINT8: two a byte).
    pub codes: Option<Format>,
}

/// One tensor that serves another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its place among [`super::Checkpoint::tensors`].
    pub tensor_idx: usize,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// For a scale: how a value comes from a code.
    pub how: How,
    /// For a scale: stored elements of the codes' tensor along each axis that share one scale; the
    /// last block of an axis may be short. `None` when the shapes do not tell.
    pub block: Option<Vec<u64>>,
    /// What its elements are, where it is not the format that the file says: E8M0 in UINT8.
    pub format: Format,
}

/// What a tensor does for the codes of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// One factor for each block, row or tensor.
    Scale,
    /// A second factor, for the whole tensor, beside the block scales (NVFP4).
    GlobalScale,
    /// Subtracted from codes before scaling, packed like them (GPTQ, AWQ).
    ZeroPoint,
    /// Added after scaling (MLX `biases`).
    Offset,
    /// What each code means before scaling (bitsandbytes `quant_map`).
    CodeTable,
    /// The scale and table of the scale itself (bitsandbytes double quantization).
    ScaleOfScale,
    /// Scales what the layer is given, not its weight.
    ActivationScale,
    /// Says in words or numbers how the codes are laid out.
    Description,
}

/// How a value comes from a code and its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `code * scale`, whatever the name says of inverses.
    Multiply,
    /// `code / scale`.
    Divide,
    /// The name is used both ways, or with a further constant.
    Unknown,
}

/// Ending of the codes' name, what stands there in the other's name, and what that one is.
struct Row(&'static str, &'static str, Role, How);

/// Spellings in use. An empty ending is any name: `X.weight` and `X.weight_scale`.
const ROWS: &[Row] = &[
    // compressed-tensors, ModelOpt, torchao, ComfyUI: dequantised = code * weight_scale.
    Row("", "_scale", Role::Scale, How::Multiply),
    // DeepSeek-V3 and Transformer Engine: the inverse of the factor that was multiplied by when
    // quantising, so it too is multiplied by.
    Row("", "_scale_inv", Role::Scale, How::Multiply),
    Row("", "_scales", Role::Scale, How::Unknown),
    // ComfyUI's first FP8 files.
    Row("weight", "scale_weight", Role::Scale, How::Multiply),
    Row("weight", "scale", Role::Scale, How::Unknown),
    // MLX: code * scale + bias.
    Row("weight", "scales", Role::Scale, How::Multiply),
    Row("weight", "biases", Role::Offset, How::Unknown),
    // NVFP4. ModelOpt stores the factor, compressed-tensors its inverse (vLLM takes 1 / it).
    Row("", "_scale_2", Role::GlobalScale, How::Multiply),
    Row("weight_packed", "weight_scale", Role::Scale, How::Multiply),
    Row("weight_packed", "weight_global_scale", Role::GlobalScale, How::Divide),
    Row("weight_packed", "weight_zero_point", Role::ZeroPoint, How::Unknown),
    Row("weight_packed", "weight_g_idx", Role::Description, How::Unknown),
    Row("weight_packed", "weight_shape", Role::Description, How::Unknown),
    Row("", "_zero_point", Role::ZeroPoint, How::Unknown),
    // GPTQ and AWQ.
    Row("qweight", "scales", Role::Scale, How::Multiply),
    Row("qweight", "qzeros", Role::ZeroPoint, How::Unknown),
    Row("qweight", "g_idx", Role::Description, How::Unknown),
    // gpt-oss MXFP4: bytes of two codes, and exponents with bias 127.
    Row("_blocks", "_scales", Role::Scale, How::Multiply),
    // ONNX Runtime's quantiser.
    Row("_quantized", "_scale", Role::Scale, How::Multiply),
    Row("_quantized", "_zero_point", Role::ZeroPoint, How::Unknown),
    // bitsandbytes: table[code] * absmax; INT8 rows are code * SCB / 127.
    Row("", ".absmax", Role::Scale, How::Multiply),
    Row("", ".quant_map", Role::CodeTable, How::Unknown),
    Row("", ".nested_absmax", Role::ScaleOfScale, How::Unknown),
    Row("", ".nested_quant_map", Role::ScaleOfScale, How::Unknown),
    Row("", ".quant_state.bitsandbytes__nf4", Role::Description, How::Unknown),
    Row("", ".quant_state.bitsandbytes__fp4", Role::Description, How::Unknown),
    Row("weight", "SCB", Role::Scale, How::Unknown),
    Row("weight", "weight_format", Role::Description, How::Unknown),
    Row("weight", "comfy_quant", Role::Description, How::Unknown),
    Row("weight", "weight_codebook", Role::CodeTable, How::Unknown),
    Row("weight", "input_scale", Role::ActivationScale, How::Unknown),
    Row("weight", "scale_input", Role::ActivationScale, How::Unknown),
    Row("weight", "pre_quant_scale", Role::ActivationScale, How::Unknown),
    Row("weight_packed", "input_global_scale", Role::ActivationScale, How::Unknown),
];

/// Formats too narrow to hold weights without a scale.
const NARROW: &[Format] = &[
    Format::E4M3FN,
    Format::E4M3FNUZ,
    Format::E5M2,
    Format::E5M2FNUZ,
    Format::E2M3,
    Format::E3M2,
    Format::E2M1,
    Format::E8M0,
];

/// Integers that weights are packed into.
const PACKED: &[Format] = &[Format::INT8, Format::UINT8, Format::INT32, Format::UINT32];

/// A key of `__metadata__` under which ComfyUI says how each layer is quantised.
const COMFY: &str = "_quantization_metadata";

/// Finds the companions of every tensor and sets its [`Meaning`].
pub(super) fn recognise(
    tensors: &mut [StoredTensor],
    metadata: &BTreeMap<String, String>,
) -> Vec<Note> {
    let by_name: HashMap<&str, usize> =
        tensors.iter().enumerate().map(|(idx, tensor)| (tensor.name.as_str(), idx)).collect();
    let is_described = metadata.contains_key(COMFY);
    let parts: Vec<Vec<Part>> = tensors
        .iter()
        .map(|tensor| match may_be_codes(tensor) {
            true => parts(tensor, tensors, &by_name, is_described),
            false => Vec::new(),
        })
        .collect();
    let mut serves: Vec<Option<Meaning>> = vec![None; tensors.len()];
    for (tensor_idx, parts) in parts.iter().enumerate() {
        for Part { tensor_idx: part_idx, role, .. } in parts {
            serves[*part_idx].get_or_insert(Meaning::Serves { tensor_idx, role: *role });
        }
    }
    let mut raw: Vec<&str> = Vec::new();
    for ((tensor, parts), serves) in tensors.iter_mut().zip(parts).zip(serves) {
        // A file that says less of a tensor than its format has the last word.
        if let Meaning::Codes { .. } = tensor.meaning {
            continue;
        }
        tensor.meaning = serves.unwrap_or_else(|| meaning(tensor, parts));
        if let Meaning::Codes { .. } = tensor.meaning {
            raw.push(&tensor.name);
        }
    }
    notes(&raw, is_described)
}

fn may_be_codes(tensor: &StoredTensor) -> bool {
    let is_filled = 0 < tensor.elements;
    is_filled && (NARROW.contains(&tensor.format) || PACKED.contains(&tensor.format))
}

fn parts(
    codes: &StoredTensor,
    tensors: &[StoredTensor],
    by_name: &HashMap<&str, usize>,
    is_described: bool,
) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    for Row(ending, other, role, how) in ROWS {
        let Some(stem) = codes.name.strip_suffix(ending) else { continue };
        let name = format!("{stem}{other}");
        let Some(&tensor_idx) = by_name.get(name.as_str()) else { continue };
        if found.iter().any(|part| part.tensor_idx == tensor_idx) {
            continue;
        }
        let scale = &tensors[tensor_idx];
        let block = match role {
            Role::Scale | Role::GlobalScale => block(&codes.shape, &scale.shape),
            Role::ZeroPoint
            | Role::Offset
            | Role::CodeTable
            | Role::ScaleOfScale
            | Role::ActivationScale
            | Role::Description => None,
        };
        let (role, how, format) = (*role, *how, scale.format);
        found.push(Part { tensor_idx, name, role, how, block, format });
    }
    let has_table = found.iter().any(|part| part.role == Role::CodeTable);
    let is_swizzled = is_described || found.iter().any(|part| part.name.ends_with("comfy_quant"));
    for part in found.iter_mut().filter(|part| part.role == Role::Scale) {
        // MX scales are powers of two, whose bytes older files call integers. Those of
        // bitsandbytes beside a table are codes themselves.
        if part.format == Format::UINT8 && !has_table {
            part.format = Format::E8M0;
        }
        if part.format == Format::E8M0 && part.how == How::Unknown {
            part.how = How::Multiply;
        }
        // ComfyUI keeps the scales of MXFP8 and NVFP4 in the order in which the GPU wants them.
        let is_of_block = [Format::E8M0, Format::E4M3FN].contains(&part.format);
        if is_swizzled && is_of_block {
            part.block = None;
        }
    }
    found.sort_by_key(|part| part.role);
    found
}

/// Elements along each axis that share a scale, from the two shapes. A scale of fewer axes runs
/// along the first ones; DeepSeek's last block of 128 may be short, so a power of two is preferred
/// to an even split.
fn block(codes: &[u64], scale: &[u64]) -> Option<Vec<u64>> {
    if scale.iter().all(|size| *size == 1) {
        return Some(codes.to_vec());
    }
    let surplus = scale.get(codes.len()..).unwrap_or_default();
    if surplus.iter().any(|size| *size != 1) {
        return None;
    }
    let scale = scale.iter().copied().chain(std::iter::repeat(1));
    codes.iter().zip(scale).map(|(size, n_scales)| along(*size, n_scales)).collect()
}

fn along(size: u64, n_scales: u64) -> Option<u64> {
    if n_scales == 1 {
        return Some(size);
    }
    if n_scales == 0 || size < n_scales {
        return None;
    }
    let powers = (0..u64::BITS).map(|exponent| 1u64 << exponent);
    let power = powers.take_while(|power| *power < size);
    let power = power.into_iter().find(|power| size.div_ceil(*power) == n_scales);
    power.or_else(|| size.is_multiple_of(n_scales).then(|| size / n_scales))
}

fn meaning(tensor: &StoredTensor, parts: Vec<Part>) -> Meaning {
    if parts.iter().any(|part| part.role == Role::Scale) {
        let codes = code_format(tensor, &parts);
        return Meaning::Scaled(Companion { parts, codes });
    }
    let is_packed_weight = PACKED.contains(&tensor.format)
        && 2 <= tensor.shape.len()
        && ["weight", "weight_packed", "_blocks"].iter().any(|end| tensor.name.ends_with(end));
    if tensor.elements == 0 || !(NARROW.contains(&tensor.format) || is_packed_weight) {
        return Meaning::Values;
    }
    let stem = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
    let why = format!(
        "raw {} codes, scale not found: no tensor is named like `{}_scale` or `{stem}scale_weight`",
        tensor.format, tensor.name
    );
    Meaning::Codes { why }
}

/// What one code is, if the stored format is only its container.
fn code_format(tensor: &StoredTensor, parts: &[Part]) -> Option<Format> {
    if NARROW.contains(&tensor.format) {
        return Some(tensor.format);
    }
    let is_own = |part: &Part| [Role::CodeTable, Role::Description].contains(&part.role);
    let scale = parts.iter().find(|part| part.role == Role::Scale)?;
    let is_byte = tensor.format == Format::UINT8;
    // NVFP4 has E4M3 scales and MXFP4 E8M0, each over bytes of two codes.
    let is_nvfp4 = scale.format == Format::E4M3FN;
    let is_mxfp4 = scale.format == Format::E8M0
        && ["_blocks", "weight_packed"].iter().any(|end| tensor.name.ends_with(end));
    if is_byte && (is_nvfp4 || is_mxfp4) {
        return Some(Format::E2M1);
    }
    let is_plain = tensor.format == Format::INT8 && !parts.iter().any(is_own);
    is_plain.then_some(Format::INT8)
}

fn notes(raw: &[&str], is_described: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(first) = raw.first() {
        notes.push(Note::new(format!(
            "tensors of raw codes, whose scale was not found: {} (first: `{first}`)",
            raw.len()
        )));
    }
    if is_described {
        notes.push(Note::new(format!(
            "`{COMFY}` of the file says how its layers are quantised; companions are found by name \
             alone"
        )));
    }
    notes
}

impl Meaning {
    /// The companions of codes that have them.
    pub fn scale(&self) -> Option<&Companion> {
        match self {
            Meaning::Scaled(companion) => Some(companion),
            Meaning::Values | Meaning::Codes { .. } | Meaning::Serves { .. } => None,
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            How::Multiply => "multiply",
            How::Divide => "divide",
            How::Unknown => "direction unknown",
        })
    }
}

/// `` `x.weight_scale_inv` (multiply, blocks of 128x128) ``; what is no scale is left out.
impl fmt::Display for Companion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_scale = |part: &&Part| matches!(part.role, Role::Scale | Role::GlobalScale);
        for (part_idx, part) in self.parts.iter().filter(is_scale).enumerate() {
            let separator = if part_idx == 0 { "" } else { " and " };
            write!(formatter, "{separator}`{}` ({}", part.name, part.how)?;
            if let Some(block) = &part.block {
                let sizes: Vec<String> = block.iter().map(u64::to_string).collect();
                write!(formatter, ", blocks of {}", sizes.join("x"))?;
            }
            formatter.write_str(")")?;
        }
        Ok(())
    }
}
