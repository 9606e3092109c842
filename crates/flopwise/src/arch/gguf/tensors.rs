//! Which tensors of a GGUF file are which weight of the graph, and how they store it.
//!
//! Tensors are named as in `gguf-py/gguf/tensor_mapping.py`, weights as in `transformers`. Some
//! tensors are several weights (`attn_qkv` of a model whose graph has three projections), some
//! weights several tensors (experts' gates and ups); what counts is that elements come out even.

use crate::graph::{Dim, Graph, Role, Stored, TensorType};
use crate::note::Note;
use crate::weights::gguf::{Gguf, Storage, Tensor};
use std::collections::HashMap;

/// Weights outside of the layers: ending of the name, and the tensor.
const OUTER: &[(&str, &str)] = &[
    ("lm_head", "output"),
    ("embed_out", "output"),
    ("word_embeddings_layernorm", "token_embd_norm"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("position_embeddings", "position_embd"),
    ("token_type_embeddings", "token_types"),
    ("wpe", "position_embd"),
    ("embed_positions", "position_embd"),
    ("embed_tokens", "token_embd"),
    ("word_embeddings", "token_embd"),
    ("embed_in", "token_embd"),
    ("wte", "token_embd"),
    ("shared", "token_embd"),
    ("embeddings", "token_embd"),
    ("encoder.final_layer_norm", "enc.output_norm"),
    ("decoder.final_layer_norm", "dec.output_norm"),
    ("embedding_norm", "output_norm|token_embd_norm"),
    ("norm", "output_norm"),
    ("norm_f", "output_norm"),
    ("ln_f", "output_norm"),
    ("final_layer_norm", "output_norm"),
    ("final_layernorm", "output_norm"),
];

/// Weights of a layer: ending of the name, and the tensors. `a|b` is the first of them that the
/// file has, `a+b` both together.
const INNER: &[(&str, &str)] = &[
    // Experts.
    ("experts.gate_up_proj", "ffn_gate_up_exps|ffn_gate_exps+ffn_up_exps|ffn_gate.*+ffn_up.*"),
    ("experts.up_proj", "ffn_up_exps|ffn_up.*"),
    ("experts.down_proj", "ffn_down_exps|ffn_down.*"),
    ("shared_expert.gate_proj", "ffn_gate_shexp"),
    ("shared_expert.up_proj", "ffn_up_shexp"),
    ("shared_expert.down_proj", "ffn_down_shexp"),
    ("shared_experts.gate_proj", "ffn_gate_shexp"),
    ("shared_experts.up_proj", "ffn_up_shexp"),
    ("shared_experts.down_proj", "ffn_down_shexp"),
    ("shared_mlp.input_linear", "ffn_gate_shexp+ffn_up_shexp"),
    ("shared_mlp.output_linear", "ffn_down_shexp"),
    ("shared_expert_gate", "ffn_gate_inp_shexp"),
    ("e_score_correction", "exp_probs_b"),
    ("block_sparse_moe.input_linear", "ffn_gate_exps+ffn_up_exps"),
    ("block_sparse_moe.output_linear", "ffn_down_exps"),
    ("router.layer", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    // Latent attention.
    ("q_a_proj", "attn_q_a"),
    ("q_a_layernorm", "attn_q_a_norm"),
    ("q_b_proj", "attn_q_b"),
    ("kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("kv_a_layernorm", "attn_kv_a_norm"),
    ("kv_b_proj", "attn_kv_b|attn_k_b+attn_v_b"),
    ("indexer.wq_b", "indexer.attn_q_b"),
    ("indexer.wk", "indexer.attn_k"),
    ("indexer.k_norm", "indexer.k_norm"),
    ("indexer.weights_proj", "indexer.proj"),
    // Recurrent layers.
    ("linear_attn.in_proj_qkvz", "ssm_in|attn_qkv+attn_gate"),
    ("linear_attn.in_proj_ba", "ssm_ba|ssm_beta+ssm_alpha"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("linear_attn.out_proj", "ssm_out"),
    ("linear_attn.norm", "ssm_norm"),
    ("mixer.out_proj", "ssm_out"),
    ("mamba.out_proj", "ssm_out"),
    ("mixer.norm", "ssm_norm"),
    ("mamba.norm", "ssm_norm"),
    ("in_proj", "ssm_in"),
    ("conv1d", "ssm_conv1d"),
    ("x_proj", "ssm_x"),
    ("dt_proj", "ssm_dt"),
    ("dt", "ssm_dt"),
    ("A_log", "ssm_a"),
    ("D", "ssm_d"),
    // Attention.
    ("sinks", "attn_sinks"),
    ("q_norm", "attn_q_norm"),
    ("k_norm", "attn_k_norm"),
    ("q_layernorm", "attn_q_norm"),
    ("k_layernorm", "attn_k_norm"),
    ("q_proj", "attn_q|attn_qkv"),
    ("k_proj", "attn_k|attn_qkv"),
    ("v_proj", "attn_v|attn_qkv"),
    ("attention.self.query", "attn_q|attn_qkv"),
    ("attention.self.key", "attn_k|attn_qkv"),
    ("attention.self.value", "attn_v|attn_qkv"),
    ("qkv_proj", "attn_qkv|attn_q+attn_k+attn_v"),
    ("query_key_value", "attn_qkv|attn_q+attn_k+attn_v"),
    ("Wqkv", "attn_qkv|attn_q+attn_k+attn_v"),
    ("c_attn", "attn_qkv|attn_q+attn_k+attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("attention.dense", "attn_output"),
    ("self_attention.dense", "attn_output"),
    ("self_attn.dense", "attn_output"),
    ("attn.c_proj", "attn_output"),
    ("attn.out_proj", "attn_output"),
    ("self_attn.out_proj", "attn_output"),
    ("o_proj", "attn_output"),
    // Encoder and decoder of T5.
    ("EncDecAttention.q", "cross_attn_q"),
    ("EncDecAttention.k", "cross_attn_k"),
    ("EncDecAttention.v", "cross_attn_v"),
    ("EncDecAttention.o", "cross_attn_o"),
    ("SelfAttention.q", "attn_q"),
    ("SelfAttention.k", "attn_k"),
    ("SelfAttention.v", "attn_v"),
    ("SelfAttention.o", "attn_o"),
    ("relative_attention_bias", "attn_rel_b"),
    ("wi_0", "ffn_gate"),
    ("wi_1", "ffn_up"),
    ("wi", "ffn_up"),
    ("wo", "ffn_down"),
    ("layer.0.layer_norm", "attn_norm"),
    ("layer.1.layer_norm", "cross_attn_norm|ffn_norm"),
    ("layer.2.layer_norm", "ffn_norm"),
    // Feed-forward networks.
    ("gate_up_proj", "ffn_up|ffn_gate+ffn_up"),
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
    ("dense_h_to_4h", "ffn_up"),
    ("dense_4h_to_h", "ffn_down"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    ("c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("fc1", "ffn_up"),
    ("fc2", "ffn_down"),
    ("fc_in", "ffn_up"),
    ("fc_out", "ffn_down"),
    // Norms.
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("ln_attn", "attn_norm_2"),
    ("ln_mlp", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm|post_attention_norm"),
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    ("ln_2", "ffn_norm"),
    ("norm_1", "attn_norm"),
    ("norm_2", "ffn_norm"),
    ("norm", "attn_norm"),
];

/// Where a network has a norm of its own in front (Gemma 2), this one is behind the attention.
const POST_NORMS: (&str, &str) = ("post_attention_layernorm", "post_attention_norm|ffn_norm");

/// Tables of angles, which the graph does not hold.
const ANGLES: &[&str] = &["rope_freqs", "rope_factors_long", "rope_factors_short", "attn_rot_embd"];

/// Weights and the tensors that hold them.
struct Match<'a> {
    /// For each weight, by its place in the graph, its tensors.
    tensors: HashMap<usize, Vec<&'a Tensor>>,
    /// For each tensor, how many weights and how many of their elements it holds.
    users: HashMap<&'a str, (usize, u128)>,
}

/// Stores each weight as the file does, and says what has no counterpart.
pub(super) fn store(graph: &mut Graph, gguf: &Gguf) {
    let by_name = gguf.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let matched = matches(graph, &by_name);
    let mut odd: Vec<String> = Vec::new();
    let mut unmatched: Vec<&str> = Vec::new();
    for (tensor_idx, weight) in graph.tensors.iter_mut().enumerate() {
        let Some(known) = weight.tensor_type.as_mut().filter(|_| weight.role == Role::Parameter)
        else {
            continue;
        };
        let Some(tensors) = matched.tensors.get(&tensor_idx) else {
            unmatched.push(&weight.name);
            continue;
        };
        let elements = elements(known);
        let is_even = match tensors.as_slice() {
            [tensor] => {
                let used = matched.users.get(tensor.name.as_str()).map_or(0, |(_, used)| *used);
                used == u128::from(tensor.elements())
            }
            several => elements == several.iter().map(|one| u128::from(one.elements())).sum(),
        };
        let is_shared = tensors.iter().any(|tensor| {
            matched.users.get(tensor.name.as_str()).is_some_and(|(users, _)| 1 < *users)
        });
        if !is_even {
            odd.push(format!("`{}` {:?}", tensors[0].name, tensors[0].shape));
        }
        weight.stored = stored(known, tensors, elements, is_even && is_shared);
    }
    let notes = notes(gguf, &matched, &unmatched, &odd);
    let angles = angles(gguf, &matched);
    graph.notes.extend(notes);
    graph.tensors.extend(angles);
}

/// The format of a weight, and how it is stored where that is not its format alone.
fn stored(
    known: &mut TensorType,
    tensors: &[&Tensor],
    elements: u128,
    is_shared: bool,
) -> Option<Stored> {
    let bytes: u64 = tensors.iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
    let of_file: u128 = tensors.iter().map(|tensor| u128::from(tensor.elements())).sum();
    // The share of a tensor that holds several weights; their rows are whole, so that it is exact.
    let bytes = match is_shared && 0 < of_file {
        true => u64::try_from(u128::from(bytes) * elements / of_file).unwrap_or(u64::MAX),
        false => bytes,
    };
    let first = tensors.first()?.storage;
    let is_one = tensors.iter().all(|tensor| tensor.storage == first);
    match first {
        Storage::Plain(format) if is_one && (is_shared || of_file == elements) => {
            known.format = format;
            None
        }
        Storage::Blocks(block) if is_one => {
            let axes = (0..known.shape.rank()).rev().map(|axis| vec![axis]);
            let mut ways = axes.map(|row_axes| Stored::Blocks { block, row_axes });
            let way = ways.find(|way| way.bytes(&known.shape) == Dim::from(u128::from(bytes)));
            Some(way.unwrap_or(Stored::Parts { bytes }))
        }
        Storage::Plain(_) | Storage::Blocks(_) => Some(Stored::Parts { bytes }),
    }
}

fn elements(known: &TensorType) -> u128 {
    let elements = known.shape.elements().as_constant();
    elements.and_then(|elements| u128::try_from(elements).ok()).unwrap_or(0)
}

fn matches<'a>(graph: &Graph, by_name: &HashMap<&'a str, &'a Tensor>) -> Match<'a> {
    let mut found = Match { tensors: HashMap::new(), users: HashMap::new() };
    let is_weight = |role: Role| role == Role::Parameter;
    let has_pre_norm =
        graph.tensors.iter().any(|weight| weight.name.contains("pre_feedforward_layernorm."));
    let weights = graph.tensors.iter().enumerate().filter(|(_, weight)| is_weight(weight.role));
    for (tensor_idx, weight) in weights {
        let Some(tensors) = tensors_of(&weight.name, has_pre_norm, by_name) else { continue };
        let share = weight.tensor_type.as_ref().map_or(0, elements);
        for tensor in &tensors {
            let (users, used) = found.users.entry(tensor.name.as_str()).or_insert((0, 0));
            (*users, *used) = (*users + 1, *used + share);
        }
        found.tensors.insert(tensor_idx, tensors);
    }
    found
}

/// The tensors that hold a weight.
fn tensors_of<'a>(
    weight: &str,
    has_pre_norm: bool,
    by_name: &HashMap<&'a str, &'a Tensor>,
) -> Option<Vec<&'a Tensor>> {
    let (path, suffix) = match weight.rsplit_once('.') {
        Some((path, "weight")) => (path, "weight"),
        Some((path, "bias")) => (path, "bias"),
        _ => match weight.strip_suffix("_bias") {
            Some(path) => (path, "bias"),
            None => (weight, "weight"),
        },
    };
    let (prefix, tail) = match layer_of(path) {
        Some((prefix, tail)) => (prefix, tail),
        None => (String::new(), path),
    };
    let table = if prefix.is_empty() { OUTER } else { INNER };
    let ends = |ending: &str| {
        tail.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let (ending, ways) = table.iter().find(|(ending, _)| ends(ending))?;
    let is_post = has_pre_norm && *ending == POST_NORMS.0;
    let ways = if is_post { POST_NORMS.1 } else { ways };
    ways.split('|').find_map(|way| {
        let parts = way.split('+').map(|name| part(&prefix, name, suffix, by_name));
        let parts: Option<Vec<Vec<&Tensor>>> = parts.collect();
        parts.map(|parts| parts.into_iter().flatten().collect())
    })
}

/// The tensor of a name; of `ffn_up.*` all of `ffn_up.0`, `ffn_up.1` ...
fn part<'a>(
    prefix: &str,
    name: &str,
    suffix: &str,
    by_name: &HashMap<&'a str, &'a Tensor>,
) -> Option<Vec<&'a Tensor>> {
    if let Some(stem) = name.strip_suffix('*') {
        let one = |idx: usize| format!("{prefix}{stem}{idx}.{suffix}");
        let all = (0..).map_while(|idx| by_name.get(one(idx).as_str()).copied());
        let all: Vec<&Tensor> = all.collect();
        return (!all.is_empty()).then_some(all);
    }
    let names = [format!("{prefix}{name}.{suffix}"), format!("{prefix}{name}")];
    names.iter().find_map(|name| by_name.get(name.as_str())).map(|tensor| vec![*tensor])
}

/// `model.layers.3.mlp.up_proj` -> `blk.3.` and `mlp.up_proj`.
fn layer_of(path: &str) -> Option<(String, &str)> {
    let mut rest = path;
    loop {
        let (part, after) = rest.split_once('.')?;
        rest = after;
        if let Ok(number) = part.parse::<u32>() {
            let stack = match path {
                _ if path.starts_with("encoder.block.") => "enc.blk",
                _ if path.starts_with("decoder.block.") => "dec.blk",
                _ => "blk",
            };
            return Some((format!("{stack}.{number}."), rest));
        }
    }
}

fn is_angles(tensor: &Tensor) -> bool {
    ANGLES.iter().any(|name| tensor.name.contains(name))
}

/// Tables of angles as stored tensors that are not trained.
fn angles(gguf: &Gguf, matched: &Match<'_>) -> Vec<crate::graph::Tensor> {
    let unused = gguf.tensors.iter().filter(|one| !matched.users.contains_key(one.name.as_str()));
    let tables = unused.filter(|one| is_angles(one)).map(|one| {
        let format = match one.storage {
            Storage::Plain(format) => format,
            Storage::Blocks(_) => flopwise_formats::Format::FP32,
        };
        let lengths = one.shape.iter().map(|length| Dim::from(u128::from(*length)));
        let shape = crate::graph::Shape(lengths.collect());
        crate::graph::Tensor {
            name: one.name.clone(),
            tensor_type: Some(TensorType { shape, format }),
            role: Role::Buffer,
            producer: None,
            stored: matches!(one.storage, Storage::Blocks(_))
                .then_some(Stored::Parts { bytes: one.bytes }),
        }
    });
    tables.collect()
}

fn notes(gguf: &Gguf, matched: &Match<'_>, unmatched: &[&str], odd: &[String]) -> Vec<Note> {
    let mut notes = Vec::new();
    let unused = gguf.tensors.iter().filter(|one| !matched.users.contains_key(one.name.as_str()));
    let unused: Vec<&Tensor> = unused.filter(|one| !is_angles(one)).collect();
    if let Some(first) = unused.first() {
        let bytes: u128 = unused.iter().map(|one| u128::from(one.bytes)).sum();
        notes.push(Note::new(format!(
            "tensors of the file that are no weight of the graph, and not counted: {} of {} ({bytes} \
             bytes; first: `{}`)",
            unused.len(),
            gguf.tensors.len(),
            first.name
        )));
    }
    if let Some(first) = unmatched.first() {
        notes.push(Note::new(format!(
            "weights of the architecture that the file does not have, counted all the same: {} \
             (first: `{first}`)",
            unmatched.len()
        )));
    }
    if let Some(first) = odd.first() {
        notes.push(Note::new(format!(
            "tensors of another size than the architecture's weights: {} (first: {first}); their \
             bytes are the file's, their elements the architecture's",
            odd.len()
        )));
    }
    notes
}
