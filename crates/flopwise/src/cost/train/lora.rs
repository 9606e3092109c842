//! Low-rank adapters (LoRA, arXiv 2106.09685): the graph with `B A x` added to the result of each
//! chosen linear layer, its own weights frozen.
//!
//! Not here: what the adapters cost; they are nodes like any other.

use crate::error::Error;
use crate::graph::{
    Dim, Function, Graph, MatMul, Node, NodeId, Op, Orientation, Role, Shape, Tensor, TensorId,
    TensorType,
};
use std::str::FromStr;
use std::sync::Arc;

/// Adapters of one rank on the linear layers that `targets` name.
///
/// A target is the last component of a module path (`q_proj`), a path's end (`attn.c_proj`), `all`
/// for every linear layer, or a short name for what families of models call the same thing: `q`,
/// `k`, `v`, `o`, `up`, `gate`, `down`. The short names `q`, `k` and `v` also take a layer that
/// computes all three at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lora {
    /// Rows of A and columns of B.
    pub rank: i64,
    /// What is adapted.
    pub targets: Vec<String>,
}

/// Largest rank taken; real adapters have up to a few hundred.
const MAX_RANK: i64 = 1 << 20;

impl FromStr for Lora {
    type Err = String;
    /// Reads `r=16,targets=q,v`: what follows `targets=` is a list to the end or the next `NAME=`.
    fn from_str(text: &str) -> Result<Lora, String> {
        let mut lora = Lora { rank: 0, targets: Vec::new() };
        let mut is_target = false;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("r" | "rank", rank)) => {
                    let rank = rank.parse().ok().filter(|rank| (1..=MAX_RANK).contains(rank));
                    lora.rank = rank.ok_or(format!("`{part}` is no rank from 1 to {MAX_RANK}"))?;
                    is_target = false;
                }
                Some(("targets" | "target", first)) => {
                    lora.targets.push(first.to_owned());
                    is_target = true;
                }
                // It scales the adapters' results and changes no count.
                Some(("alpha", _)) => is_target = false,
                None if is_target => lora.targets.push(part.to_owned()),
                Some(_) | None => return Err(format!("`{part}`: write r=16,targets=q,v")),
            }
        }
        match lora.rank != 0 && !lora.targets.is_empty() {
            true => Ok(lora),
            false => Err("a rank and targets are needed: r=16,targets=q,v".to_owned()),
        }
    }
}

/// What families of models call the layers with a short name.
const SHORT_NAMES: &[(&str, &[&str])] = &[
    ("q", &["q_proj", "query", "q_lin", "wq", "to_q", "q"]),
    ("k", &["k_proj", "key", "k_lin", "wk", "to_k", "k"]),
    ("v", &["v_proj", "value", "v_lin", "wv", "to_v", "v"]),
    ("o", &["o_proj", "out_proj", "out_lin", "wo", "to_out", "o"]),
    ("up", &["up_proj", "fc1", "c_fc", "w3", "wi", "lin1"]),
    ("gate", &["gate_proj", "w1"]),
    ("down", &["down_proj", "fc2", "w2", "lin2"]),
];
/// Layers that compute query, key and value at once.
const FUSED: &[&str] = &["qkv", "qkv_proj", "c_attn", "query_key_value", "Wqkv", "in_proj"];

impl Lora {
    /// Whether a module path is meant, and by which target.
    fn target(&self, path: &str) -> Option<&str> {
        let last = path.rsplit('.').next().unwrap_or(path);
        let is_meant = |target: &&String| {
            let target = target.as_str();
            let short = SHORT_NAMES.iter().find(|(short, _)| *short == target);
            let is_fused = matches!(target, "q" | "k" | "v") && FUSED.contains(&last);
            target == "all"
                || path == target
                || path.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
                || short.is_some_and(|(_, names)| names.contains(&last))
                || is_fused
        };
        self.targets.iter().find(is_meant).map(String::as_str)
    }
}

/// Adds the adapters; only they are trained. Returns the paths of the layers adapted.
///
/// For `y = x W^T + b`, `A` is `[r, d_in]`, `B` is `[d_out, r]`, and `B A x` is added to `y` (the
/// factor alpha / r is folded into B). Branches decided at run time must have been decided.
///
/// # Errors
/// A target that no linear layer has.
pub fn add_lora(graph: &mut Graph, lora: &Lora) -> Result<Vec<String>, Error> {
    let mut adapted: Vec<String> = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    let mut place: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    let mut linears: Vec<String> = Vec::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        let linear = linear(&graph.tensors, &node);
        let meant = linear.as_ref().and_then(|linear| Some((lora.target(&linear.path)?, linear)));
        linears.extend(linear.as_ref().map(|linear| linear.path.clone()));
        let Some((target, linear)) = meant else {
            place.push(nodes.len());
            nodes.push(node);
            continue;
        };
        used.push(target);
        adapted.push(linear.path.clone());
        let adapters = adapters(&mut graph.tensors, &mut node, linear, lora.rank);
        place.push(nodes.len());
        nodes.push(node);
        nodes.extend(adapters);
    }
    graph.nodes = nodes;
    // Every result again belongs to the node that now computes it.
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        for id in &node.outputs {
            graph.tensors[id.0].producer = Some(NodeId(node_idx));
        }
    }
    let new_place = |old: usize| place.get(old).copied().unwrap_or(graph.nodes.len());
    for choice in &mut graph.choices {
        for (_, range) in &mut choice.branches {
            *range = new_place(range.start)..new_place(range.end);
        }
    }
    match lora.targets.iter().find(|target| !used.contains(&target.as_str())) {
        None => Ok(adapted),
        Some(target) => {
            let mut last: Vec<&str> =
                linears.iter().map(|path| path.rsplit('.').next().unwrap_or(path)).collect();
            last.sort_unstable();
            last.dedup();
            last.truncate(12);
            let hint = format!("the model's linear layers are called {}", last.join(", "));
            // A layer matched by several targets uses the first; the others are met by it too.
            let is_met = adapted.iter().any(|path| {
                let alone = Lora { rank: lora.rank, targets: vec![target.clone()] };
                alone.target(path).is_some()
            });
            match is_met {
                true => Ok(adapted),
                false => Err(Error::new(format!("no linear layer matches the target `{target}`"))
                    .remedy(hint)),
            }
        }
    }
}

/// A product with a trained matrix.
struct Linear {
    path: String,
    input: TensorType,
    output: TensorType,
    a: Orientation,
}

/// A linear layer: a product whose second factor is a parameter of two axes.
fn linear(tensors: &[Tensor], node: &Node) -> Option<Linear> {
    let Op::MatMul(matmul) = &node.op else { return None };
    let (x, weight) = (&tensors[node.inputs.first()?.0], &tensors[node.inputs.get(1)?.0]);
    let is_matrix = weight.tensor_type.as_ref().is_some_and(|known| known.shape.rank() == 2);
    if !is_matrix || weight.role != Role::Parameter {
        return None;
    }
    let path = weight_path(&weight.name);
    let path = match &node.module {
        // The weight's own name is sharper where a module reads several (nn.MultiheadAttention).
        Some(module) if !path.starts_with(&**module) => module.to_string(),
        Some(_) | None => path,
    };
    Some(Linear {
        path,
        input: x.tensor_type.clone()?,
        output: tensors[node.outputs.first()?.0].tensor_type.clone()?,
        a: matmul.a,
    })
}

/// `h.0.attn.c_attn.weight` -> `h.0.attn.c_attn`; `attention.in_proj_weight` -> `attention.in_proj`.
fn weight_path(name: &str) -> String {
    let stem = name.strip_suffix(".weight").or_else(|| name.strip_suffix("_weight"));
    stem.unwrap_or(name).to_owned()
}

/// The two products and the addition; the node's own result becomes the sum's operand, so that all
/// that read it read the sum.
fn adapters(tensors: &mut Vec<Tensor>, node: &mut Node, linear: &Linear, rank: i64) -> [Node; 3] {
    let path = &linear.path;
    let d_in = linear.input.shape.0.last().cloned().unwrap_or(Dim::ONE);
    let d_out = linear.output.shape.0.last().cloned().unwrap_or(Dim::ONE);
    let format = linear.output.format;
    let mut tensor = |name: String, lengths: Vec<Dim>, role: Role| {
        let tensor_type = Some(TensorType { shape: Shape(lengths), format });
        tensors.push(Tensor { name, tensor_type, role, producer: None, stored: None });
        TensorId(tensors.len() - 1)
    };
    let rank = Dim::from(rank);
    let narrow = |wide: &Shape| {
        let mut lengths = wide.0.clone();
        if let Some(last) = lengths.last_mut() {
            *last = rank.clone();
        }
        lengths
    };
    let (small, wide) = (narrow(&linear.output.shape), linear.output.shape.0.clone());
    let a = tensor(format!("{path}.lora_A.weight"), vec![rank.clone(), d_in], Role::Parameter);
    let b = tensor(format!("{path}.lora_B.weight"), vec![d_out, rank.clone()], Role::Parameter);
    let base = tensor(format!("{}.base", node.name), wide.clone(), Role::Activation);
    let low = tensor(format!("{}.lora_A", node.name), small, Role::Activation);
    let high = tensor(format!("{}.lora_B", node.name), wide, Role::Activation);
    let x = node.inputs[0];
    let result = std::mem::replace(&mut node.outputs[0], base);
    let product = |a| Op::MatMul(MatMul::new(a, Orientation::Transposed));
    let new = |part: &str, op: Op, inputs: Vec<TensorId>, output: TensorId| Node {
        name: format!("{}.{part}", node.name),
        operator: Arc::from(op.name()),
        op,
        inputs,
        outputs: vec![output],
        module: Some(Arc::from(format!("{path}.{part}").as_str())),
        line: None,
        in_place: false,
        repeat: node.repeat.clone(),
    };
    [
        new("lora_A", product(linear.a), vec![x, a], low),
        new("lora_B", product(Orientation::Plain), vec![low, b], high),
        new("lora_add", Op::Elementwise(Function::Add), vec![base, high], result),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(i64, &[&str])>) {
        let found = text.parse::<Lora>().ok();
        let expected = expected.map(|(rank, targets)| Lora {
            rank,
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn adapters_are_read_as_typed() {
        check("r=16,targets=q,v", Some((16, &["q", "v"])));
        check("targets=q_proj,v_proj,r=8,alpha=32", Some((8, &["q_proj", "v_proj"])));
        check("rank=4,targets=all", Some((4, &["all"])));
        check("r=16", None);
        check("targets=q", None);
        check("r=0,targets=q", None);
        check("r=-1,targets=q", None);
        check("r=99999999999999999999,targets=q", None);
        check("q,v", None);
        check("", None);
    }

    #[test]
    fn targets_match_the_ends_of_paths() {
        let lora: Lora = "r=1,targets=q,attn.c_proj,fc".parse().unwrap();
        for path in ["m.layers.0.q_proj", "b.query", "h.0.attn.c_attn", "h.0.attn.c_proj", "fc"] {
            assert!(lora.target(path).is_some(), "{path}");
        }
        for path in ["m.layers.0.k_proj", "h.0.mlp.c_proj", "fc1", "xfc"] {
            assert!(lora.target(path).is_none(), "{path}");
        }
    }
}
