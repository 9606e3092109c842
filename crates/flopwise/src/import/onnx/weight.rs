//! Stored tensors: type, elements of the small ones, external data, and what they are to the model.
//!
//! Not here: reading bulk data; no byte of a large weight is touched, no external file opened.
//! External data: <https://onnx.ai/onnx/repo-docs/ExternalData.html>.

use super::symbols;
use super::value::{self, Scalar, Value};
use super::wire::TensorProto;
use crate::error::Error;
use crate::graph::{Role, Shape, TensorType};
use crate::import;
use bytes::Bytes;
use flopwise_formats::{Format, Layout, codec};
use std::path::Path;

/// `TensorProto.DataLocation.EXTERNAL`.
pub(super) const EXTERNAL: i32 = 1;

/// Shape and format; `None` for a format not known here.
pub(super) fn tensor_type(tensor: &TensorProto) -> Option<TensorType> {
    let format = symbols::format(tensor.data_type)?;
    Some(TensorType { shape: Shape::of(&tensor.dims), format })
}

/// Refuses external data outside the model's folder. Whether the file is there does not matter:
/// only sizes count.
pub(super) fn check_location(tensor: &TensorProto, folder: &Path) -> Result<(), Error> {
    let Some(location) = external(tensor, "location") else { return Ok(()) };
    if import::leaves_folder(location) {
        let what = format!("its data lies outside the model's folder, at `{location}`");
        let remedy = match folder.as_os_str().is_empty() {
            true => "keep weights beside the model".to_owned(),
            false => format!("keep weights in `{}`", folder.display()),
        };
        return Err(Error::new(what).at(format!("tensor `{}`", tensor.name)).remedy(remedy));
    }
    Ok(())
}

/// How many bytes the file says it stores for a tensor, where that differs from what its shape
/// takes.
pub(super) fn wrong_length(tensor: &TensorProto) -> Option<(u128, u128)> {
    let format = symbols::format(tensor.data_type)?;
    let stored = match (&tensor.raw_data, external(tensor, "length")) {
        (Some(raw), _) if tensor.data_location != EXTERNAL => raw.len() as u128,
        (_, Some(length)) => length.parse().ok()?,
        _ => return None,
    };
    let elements = tensor
        .dims
        .iter()
        .try_fold(1u128, |product, length| product.checked_mul(u128::try_from(*length).ok()?))?;
    let needed = format.bytes_for(elements)?;
    (format.bits != 0 && stored != needed).then_some((stored, needed))
}

pub(super) fn external<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let entry = tensor.external_data.iter().find(|entry| entry.key == key.as_bytes())?;
    std::str::from_utf8(&entry.value).ok()
}

/// The elements of a small tensor that is stored in the file itself.
pub(super) fn value(tensor: &TensorProto) -> Option<Value> {
    if tensor.data_location == EXTERNAL || !tensor.external_data.is_empty() {
        return None;
    }
    let format = symbols::format(tensor.data_type)?;
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|n| usize::try_from(*n).ok()).collect();
    let shape = shape?;
    if !value::may_be_known(format, &shape) {
        return None;
    }
    let n_elements = value::volume(&shape)?;
    let elements = match &tensor.raw_data {
        Some(raw) => from_raw(format, raw, n_elements),
        None => from_lists(format, tensor, n_elements),
    };
    Value::new(format, shape, elements?)
}

/// Elements laid out in bytes, little-endian.
fn from_raw(format: Format, raw: &[u8], n_elements: usize) -> Option<Vec<Scalar>> {
    let width = usize::from(format.bits / 8);
    if width == 0 || width.checked_mul(n_elements)? != raw.len() {
        return None;
    }
    raw.chunks_exact(width).map(|bytes| element(format, bytes)).collect()
}

fn element(format: Format, bytes: &[u8]) -> Option<Scalar> {
    let mut wide = [0u8; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    let shift = 64 - 8 * bytes.len() as u32;
    let signed = ((unsigned << shift) as i64) >> shift;
    match format.layout {
        Layout::SignedInteger => Some(Scalar::Exact(signed.into())),
        Layout::UnsignedInteger => Some(Scalar::Exact(u128::from(unsigned).into())),
        Layout::Boolean => Some(Scalar::boolean(unsigned != 0)),
        Layout::Float(_) if format == Format::FP32 => {
            Some(Scalar::float(f64::from(f32::from_bits(unsigned as u32))))
        }
        Layout::Float(_) if format == Format::FP64 => Some(Scalar::float(f64::from_bits(unsigned))),
        Layout::Float(_) => Some(Scalar::float(codec::decode_f64(format, unsigned.into()))),
        Layout::CodeBook(_) | Layout::Complex | Layout::Text => None,
    }
}

/// Elements in the lists of the message, each list for several formats (onnx.proto, TensorProto).
fn from_lists(format: Format, tensor: &TensorProto, n_elements: usize) -> Option<Vec<Scalar>> {
    let is_integral = !format.is_float();
    let elements = if format == Format::FP32 {
        fixed(format, &tensor.float_data, n_elements)
    } else if format == Format::FP64 {
        fixed(format, &tensor.double_data, n_elements)
    } else if format == Format::INT64 {
        varints(&tensor.int64_data, n_elements)
    } else if format == Format::UINT64 || format == Format::UINT32 {
        varints(&tensor.uint64_data, n_elements)
    } else if is_integral {
        varints(&tensor.int32_data, n_elements)
    } else if format.is_float() && format.bits <= 16 {
        codes(format, &tensor.int32_data, n_elements)
    } else {
        None
    };
    elements.filter(|elements| elements.len() == n_elements)
}

fn fixed(format: Format, runs: &[Bytes], n_elements: usize) -> Option<Vec<Scalar>> {
    let joined = runs.concat();
    from_raw(format, &joined, n_elements)
}

/// Narrow floats are stored as their bits, one number each.
fn codes(format: Format, runs: &[Bytes], n_elements: usize) -> Option<Vec<Scalar>> {
    let codes = varints(runs, n_elements)?;
    let decoded = codes.iter().map(|code| {
        let code = u128::try_from(code.as_i128()?).ok()?;
        Some(Scalar::float(codec::decode_f64(format, code & ((1 << format.bits) - 1))))
    });
    decoded.collect()
}

fn varints(runs: &[Bytes], n_elements: usize) -> Option<Vec<Scalar>> {
    let mut elements = Vec::with_capacity(n_elements);
    for run in runs {
        let mut rest: &[u8] = run;
        while !rest.is_empty() && elements.len() < n_elements {
            let number = prost::encoding::decode_varint(&mut rest).ok()?;
            elements.push(Scalar::Exact((number as i64).into()));
        }
    }
    Some(elements)
}

/// What a stored tensor is to the model, judged by its name and by the operator that reads it as
/// its input number `slot`. ONNX does not say; a wrong guess moves it between two sums.
pub(super) fn role(name: &str, tensor_type: &TensorType, operator: &str, slot: usize) -> Role {
    let is_scalar = tensor_type.shape.elements().as_constant() == Some(1);
    if let Some(is_weight) = is_quantized_weight(name, operator, slot) {
        let is_parameter = is_weight && !is_scalar && !is_buffer_name(name);
        return if is_parameter { Role::Parameter } else { Role::Buffer };
    }
    if !tensor_type.format.is_float() || (operator == "BatchNormalization" && 3 <= slot) {
        return Role::Buffer;
    }
    let is_layer_weight = match operator {
        "MatMul" | "Einsum" | "Gather" | "GatherND" | "FusedMatMul" | "TransposeMatMul" => true,
        "Conv"
        | "ConvTranspose"
        | "FusedConv"
        | "NhwcConv"
        | "NhwcFusedConv"
        | "Gemm"
        | "FusedGemm"
        | "Attention"
        | "BatchNormalization"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "GroupNormalization"
        | "RMSNormalization"
        | "PRelu"
        | "RNN"
        | "LSTM"
        | "GRU" => 1 <= slot,
        _ => false,
    };
    let is_learned = !is_scalar && !is_made_by_exporter(name);
    match (is_layer_weight || is_learned) && !is_buffer_name(name) {
        true => Role::Parameter,
        false => Role::Buffer,
    }
}

/// For operators over quantised tensors, whether the input at `slot` is a weight rather than a
/// scale or zero point; a constant of the code that was quantised with them is none.
fn is_quantized_weight(name: &str, operator: &str, slot: usize) -> Option<bool> {
    let is_weight = match operator {
        "DequantizeLinear" => slot == 0,
        "QLinearConv" => matches!(slot, 3 | 8),
        "QLinearMatMul" => matches!(slot, 0 | 3),
        "QGemm" => matches!(slot, 0 | 3 | 6),
        "MatMulInteger" | "MatMulInteger16" | "ConvInteger" => slot < 2,
        "MatMulIntegerToFloat" => matches!(slot, 0 | 1 | 6),
        "DynamicQuantizeMatMul" => matches!(slot, 1 | 4),
        "QAttention" => matches!(slot, 1 | 2),
        "MatMulNBits" => matches!(slot, 1 | 5),
        "MatMulBnb4" | "MatMulFpQ4" => slot == 1,
        "GatherBlockQuantized" => slot == 0,
        "QMoE" => matches!(slot, 2 | 4 | 5 | 7 | 8 | 10),
        "QuantizeLinear" | "DynamicQuantizeLinear" => slot == 0 && !is_made_by_exporter(name),
        operator if operator.starts_with("QLinear") => false,
        _ => return None,
    };
    let layers = ["onnx::MatMul_", "onnx::Conv_", "onnx::Gemm_"];
    let is_layer = layers.iter().any(|prefix| name.starts_with(prefix));
    Some(is_weight && (is_layer || !is_made_by_exporter(name)))
}

/// Whether the exporter made up the name, for a constant that it folded or a literal of the code:
/// `val_12`, `onnx::Add_7735`, `/attn/Constant_3_output_0`, or a PyTorch function with a number.
fn is_made_by_exporter(name: &str) -> bool {
    const FUNCTIONS: [&str; 32] = [
        "val",
        "unsqueeze",
        "squeeze",
        "index",
        "index_select",
        "expand",
        "new_ones",
        "new_zeros",
        "new_full",
        "scalar_tensor_default",
        "full",
        "full_like",
        "arange",
        "zeros",
        "ones",
        "zeros_like",
        "ones_like",
        "view",
        "reshape",
        "permute",
        "transpose",
        "cat",
        "stack",
        "select",
        "slice",
        "mul",
        "add",
        "sub",
        "div",
        "clone",
        "triu",
        "tril",
    ];
    if name.starts_with('/') || name.starts_with("onnx::") || name.contains("lifted_tensor") {
        return true;
    }
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    FUNCTIONS.contains(&stem)
}

/// Whether a name is one that models give to tensors that are not trained.
fn is_buffer_name(name: &str) -> bool {
    const BUFFERS: [&str; 10] = [
        "inv_freq",
        "running_mean",
        "running_var",
        "mask",
        "position_ids",
        "relative_position_index",
        "cos_cached",
        "sin_cached",
        "freqs_cis",
        "anchors",
    ];
    let last = name.rsplit('.').next().unwrap_or(name);
    BUFFERS.iter().any(|buffer| last.ends_with(buffer))
}

/// Whether a name is a path of modules with a weight at its end, as PyTorch writes it.
pub(super) fn is_parameter_name(name: &str) -> bool {
    name.contains('.') && !name.starts_with('/') && !name.contains("::") && !is_buffer_name(name)
}
