//! `quantization_config`: how the weights of a checkpoint are stored, with their scales.
//!
//! Not here: what a format does to values (`flopwise-formats`), and formats that the user asks for
//! (`cost/weights.rs`).

use super::config::Config;
use crate::error::Error;
use crate::graph::{
    Dim, Graph, Op, Orientation, Role, Shape, Stored, Tensor, TensorId, TensorType,
};
use crate::note::Note;
use flopwise_formats::Format;
use flopwise_formats::block::{self, BlockFormat};

/// How weights are stored.
#[derive(Clone, Copy)]
enum Storage {
    /// In blocks along what a product sums over.
    Blocks(&'static BlockFormat),
    /// One code per element, and one FP32 for each tile of so many rows and columns.
    Tiles(Format, [i64; 2]),
    /// One code per element, and one FP32 for the tensor.
    Tensor(Format),
}

/// Which products' weights a method converts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The stacks of experts alone.
    Stacks,
    /// Those and linear layers.
    Linear,
}

/// Stores the weights as the config says, or notes what it says and is not applied.
///
/// # Errors
/// A field of another type than it must have.
pub(super) fn apply(graph: &mut Graph, config: &Config) -> Result<(), Error> {
    let text = config.sub("text_config")?;
    let own = config.sub("quantization_config")?;
    let inner = match &text {
        Some(text) => text.sub("quantization_config")?,
        None => None,
    };
    let Some(quantization) = own.or(inner) else { return Ok(()) };
    let method = quantization.text("quant_method")?.unwrap_or("unnamed").to_owned();
    let shown: String = method.chars().take(40).collect();
    let Some((storage, reach)) = storage(&method, &quantization)? else {
        graph.notes.push(Note::new(format!(
            "`quantization_config` ({shown}) is not applied: weights are counted in the format that \
             the config names beside it (--weights stores them in another)"
        )));
        return Ok(());
    };
    let Some(left_out) = left_out(&quantization)? else {
        graph.notes.push(Note::new(format!(
            "`quantization_config` ({shown}) leaves layers out by regular expressions, which are not \
             read; it is not applied"
        )));
        return Ok(());
    };
    let n_stored = store(graph, storage, reach, &left_out);
    let what = match storage {
        Storage::Blocks(block) => block.name.to_owned(),
        Storage::Tiles(format, [rows, columns]) => {
            format!("{format} with an FP32 for each {rows} x {columns}")
        }
        Storage::Tensor(format) => format!("{format} with an FP32 for each"),
    };
    graph.notes.push(Note::new(format!(
        "`quantization_config` ({shown}): {n_stored} weights are stored as {what}"
    )));
    Ok(())
}

/// The storage that a method has, `None` where it is not known or has parts that no format here has
/// (zero points, scales of scales).
fn storage(method: &str, config: &Config) -> Result<Option<(Storage, Reach)>, Error> {
    let named = |name: &str| block::parse(name).ok().map(Storage::Blocks);
    Ok(match method {
        // transformers integrations/mxfp4.py: the experts alone
        "mxfp4" => named("mxfp4").map(|blocks| (blocks, Reach::Stacks)),
        // transformers integrations/finegrained_fp8.py
        "fp8" => match config.sizes("weight_block_size")?.as_deref() {
            Some([rows, columns]) if 0 < *rows && 0 < *columns => {
                Some((Storage::Tiles(Format::E4M3FN, [*rows, *columns]), Reach::Linear))
            }
            Some(_) => {
                return Err(config.error("weight_block_size", "must be two sizes of 1 or more"));
            }
            None => Some((Storage::Tensor(Format::E4M3FN), Reach::Linear)),
        },
        "bitsandbytes" => {
            let is_nf4 = config.flag("load_in_4bit")? == Some(true)
                && config.text("bnb_4bit_quant_type")? == Some("nf4")
                && config.flag("bnb_4bit_use_double_quant")? != Some(true);
            named("nf4_g64").filter(|_| is_nf4).map(|blocks| (blocks, Reach::Linear))
        }
        "compressed-tensors" => grouped(config)?.map(|blocks| (blocks, Reach::Linear)),
        _ => None,
    })
}

/// Symmetric INT4 in groups of 32 or 128 (compressed-tensors `pack-quantized`).
fn grouped(config: &Config) -> Result<Option<Storage>, Error> {
    let Some(groups) = config.sub("config_groups")? else { return Ok(None) };
    let Some(group) = groups.sub("group_0")? else { return Ok(None) };
    let Some(weights) = group.sub("weights")? else { return Ok(None) };
    let is_plain = !groups.has("group_1")
        && weights.text("type")? == Some("int")
        && weights.count("num_bits")? == Some(4)
        && weights.flag("symmetric")? == Some(true);
    let name = match weights.count("group_size")? {
        Some(32) if is_plain => "int4_g32",
        Some(128) if is_plain => "int4_g128",
        Some(_) | None => return Ok(None),
    };
    Ok(block::parse(name).ok().map(Storage::Blocks))
}

/// The modules that stay as they are; `None` where they are named in a way that is not read.
fn left_out(config: &Config) -> Result<Option<Vec<String>>, Error> {
    let mut all = vec!["lm_head".to_owned()];
    for field in ["modules_to_not_convert", "ignore", "ignored_layers"] {
        for pattern in config.texts(field)?.unwrap_or_default() {
            if pattern.starts_with("re:") {
                return Ok(None);
            }
            all.push(pattern.to_owned());
        }
    }
    Ok(Some(all))
}

/// Whether a pattern names a module or one around it, as transformers `should_convert_module` has it:
/// the start or the end of its path; `*` is any one part.
fn names(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), path.split('.').collect());
    let fits = |parts: &[&str]| {
        parts.iter().zip(&pattern).all(|(part, wanted)| *wanted == "*" || part == wanted)
    };
    path.windows(pattern.len()).any(fits)
}

/// Routers and the indexer's weights stay as they are in every checkpoint.
const SMALL: &[&str] =
    &["gate", "router", "wg", "weights_proj", "shared_expert_gate", "classifier"];

fn store(graph: &mut Graph, storage: Storage, reach: Reach, left_out: &[String]) -> usize {
    let mut n_stored = 0;
    for node_idx in 0..graph.nodes.len() {
        let node = &graph.nodes[node_idx];
        let (slot, orientation) = if let Op::GroupedMatMul { stack } = node.op {
            (1, stack)
        } else if let (Op::MatMul(matmul), Reach::Linear) = (&node.op, reach) {
            (1, matmul.b)
        } else if let (Op::Reshape { .. }, Reach::Linear) = (&node.op, reach) {
            // MLA in its absorbed form sees the expansion as a stack.
            (0, Orientation::Transposed)
        } else {
            continue;
        };
        let Some(id) = node.inputs.get(slot).copied() else { continue };
        let tensor = &graph.tensors[id.0];
        let Some(known) = tensor.tensor_type.as_ref() else { continue };
        let module = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        let last = module.rsplit('.').next().unwrap_or(module);
        let is_meant = tensor.role == Role::Parameter
            && tensor.stored.is_none()
            && known.format.is_float()
            && 16 <= known.format.bits
            && 2 <= known.shape.rank()
            && !SMALL.contains(&last)
            && !last.starts_with("embed")
            && !left_out.iter().any(|pattern| names(pattern, module));
        if is_meant {
            n_stored += 1;
            store_one(graph, (node_idx, id), storage, orientation);
        }
    }
    n_stored
}

fn store_one(
    graph: &mut Graph,
    (node_idx, id): (usize, TensorId),
    storage: Storage,
    orientation: Orientation,
) {
    let tensor = &mut graph.tensors[id.0];
    let name = format!("{}_scale_inv", tensor.name);
    let Some(known) = &mut tensor.tensor_type else { return };
    let rank = known.shape.rank();
    let scales = match storage {
        Storage::Blocks(block) => {
            let summed = match orientation {
                Orientation::Plain => rank - 2,
                Orientation::Transposed => rank - 1,
            };
            tensor.stored = Some(Stored::Blocks { block, row_axes: vec![summed] });
            return;
        }
        Storage::Tiles(format, tile) => {
            known.format = format;
            let mut lengths = known.shape.0.clone();
            for (length, tile) in lengths[rank - 2..].iter_mut().zip(tile) {
                *length = length.ceil_div(&Dim::from(tile));
            }
            lengths
        }
        Storage::Tensor(format) => {
            known.format = format;
            let stack = known.shape.0[..rank - 2].to_vec();
            if stack.is_empty() { vec![Dim::ONE] } else { stack }
        }
    };
    let scale = TensorId(graph.tensors.len());
    graph.tensors.push(Tensor {
        name,
        tensor_type: Some(TensorType { shape: Shape(scales), format: Format::FP32 }),
        role: Role::Buffer,
        producer: None,
        stored: None,
    });
    let node = &mut graph.nodes[node_idx];
    if let Op::MatMul(matmul) = &mut node.op {
        matmul.scales += 1;
        node.inputs.push(scale);
    }
}
