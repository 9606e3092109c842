//! What a tool that watches a PyTorch model run sees of each node: the call, the class of the module
//! it stands in, the line of source, and whether inference fuses it away.

use crate::graph::{Bindings, Dim, Function, Graph, Node, Op, Role, Shape, TensorId};
use std::collections::HashMap;

const ATTENTION: &str = "torch.nn.modules.activation.MultiheadAttention";
const ENCODER_LAYER: &str = "torch.nn.modules.transformer.TransformerEncoderLayer";
const SWIN_V2: &str = "torchvision.models.swin_transformer.ShiftedWindowAttentionV2";

/// A graph with what had to be found out about it once.
pub(super) struct Seen<'g> {
    pub(super) graph: &'g Graph,
    pub(super) bindings: &'g Bindings,
    /// Nodes that inference runs as one fused operator per `nn.MultiheadAttention`.
    is_fused: Vec<bool>,
    /// Nodes of a `nn.TransformerEncoderLayer` that inference runs as one operator, unless something
    /// hooks into the modules of the layer.
    is_fused_layer: Vec<bool>,
    is_used: Vec<bool>,
}

impl<'g> Seen<'g> {
    pub(super) fn new(graph: &'g Graph, bindings: &'g Bindings) -> Seen<'g> {
        let is_fused = fused(graph);
        Seen {
            graph,
            bindings,
            is_fused_layer: fused_layers(graph, &is_fused),
            is_fused,
            is_used: used(graph),
        }
    }

    /// The same model with the fused paths of inference switched off.
    pub(super) fn without_fusion(&self) -> Seen<'g> {
        Seen {
            graph: self.graph,
            bindings: self.bindings,
            is_fused: vec![false; self.is_fused.len()],
            is_fused_layer: vec![false; self.is_fused.len()],
            is_used: self.is_used.clone(),
        }
    }

    pub(super) fn has_fused(&self) -> bool {
        self.is_fused.contains(&true)
    }

    /// Whether nodes are calls into PyTorch.
    pub(super) fn is_pytorch(&self) -> bool {
        let mut operators = self.graph.nodes.iter().map(|node| &*node.operator);
        operators.any(|operator| operator.starts_with("aten."))
    }

    pub(super) fn has_classes(&self) -> bool {
        !self.graph.modules.is_empty()
    }

    /// The nodes that run.
    pub(super) fn sites(&self) -> impl Iterator<Item = Site<'_>> {
        let indexes = 0..self.graph.nodes.len();
        let runs = indexes.filter(|index| self.graph.nodes[*index].repeat != Dim::ZERO);
        runs.map(|index| self.site(index))
    }

    pub(super) fn site(&self, index: usize) -> Site<'_> {
        let node = &self.graph.nodes[index];
        let path = node.module.as_deref().unwrap_or("");
        Site {
            graph: self.graph,
            node,
            index,
            base: base(&node.operator),
            class: self.graph.modules.get(path).map(|class| &**class),
            text: node.line.as_ref().and_then(|line| self.graph.source.get(line)).map(|t| &**t),
            is_fused: self.is_fused[index],
            is_fused_layer: self.is_fused_layer[index],
            is_used: self.is_used[index],
        }
    }
}

/// `aten.relu_.default` -> `relu`; names of other domains stay.
pub(super) fn base(operator: &str) -> &str {
    let Some(aten) = operator.strip_prefix("aten.") else { return operator };
    let base = aten.split('.').next().unwrap_or(aten);
    if base.ends_with("__") { base } else { base.strip_suffix('_').unwrap_or(base) }
}

/// One node as a tool sees it.
pub(super) struct Site<'g> {
    pub(super) graph: &'g Graph,
    pub(super) node: &'g Node,
    pub(super) index: usize,
    /// The operator's name without namespace, overload and in-place mark.
    pub(super) base: &'g str,
    /// The class of the innermost module.
    pub(super) class: Option<&'g str>,
    /// The line of the model's source.
    text: Option<&'g str>,
    pub(super) is_fused: bool,
    pub(super) is_fused_layer: bool,
    /// Whether a result of the model hangs on it.
    pub(super) is_used: bool,
}

impl<'g> Site<'g> {
    /// The shape of an operand.
    pub(super) fn input(&self, input_idx: usize) -> Option<&'g Shape> {
        let id = self.node.inputs.get(input_idx)?;
        self.graph.tensor(*id).tensor_type.as_ref().map(|known| &known.shape)
    }

    /// The shape of the first result.
    pub(super) fn output(&self) -> Option<&'g Shape> {
        let id = self.node.outputs.first()?;
        self.graph.tensor(*id).tensor_type.as_ref().map(|known| &known.shape)
    }

    pub(super) fn input_elements(&self, input_idx: usize) -> Dim {
        self.input(input_idx).map_or(Dim::ZERO, Shape::elements)
    }

    pub(super) fn output_elements(&self) -> Dim {
        self.output().map_or(Dim::ZERO, Shape::elements)
    }

    /// Last axis of an operand.
    pub(super) fn last(&self, input_idx: usize) -> Dim {
        self.input(input_idx).and_then(|shape| shape.0.last()).cloned().unwrap_or(Dim::ONE)
    }

    /// Whether the node scales and shifts by weights of its own: the second operand is one.
    pub(super) fn is_affine(&self) -> bool {
        let second = self.node.inputs.get(1);
        second.is_some_and(|id| self.graph.tensor(*id).role == Role::Parameter)
    }

    /// Of a batch norm in training, whose last operand is the batch's variance: whether it scales.
    pub(super) fn scales_in_training(&self) -> Option<bool> {
        let operands = self.node.inputs.get(1..)?;
        let role = |id: &TensorId| self.graph.tensor(*id).role;
        let is_training = matches!(role(operands.last()?), Role::Activation | Role::Internal);
        let scales = 1 < operands.len() && role(&operands[0]) != Role::Buffer;
        is_training.then_some(scales)
    }

    /// Whether a third operand is added to a product or convolution.
    pub(super) fn has_bias(&self) -> bool {
        2 < self.node.inputs.len()
    }

    /// The class below `torch.nn.modules.`, if it is of PyTorch's own.
    pub(super) fn nn_class(&self) -> Option<&'g str> {
        self.class.and_then(|full| full.strip_prefix("torch.nn.modules."))
    }

    pub(super) fn quotes(&self, part: &str) -> bool {
        self.text.is_some_and(|text| text.contains(part))
    }

    /// Whether the call went through `torch.nn.functional` where it can be replaced: PyTorch's own
    /// modules call it there; of other code the line of source tells. `unclear` where it does not.
    pub(super) fn is_functional(&self, name: &str, unclear: bool) -> bool {
        if self.nn_class().is_some_and(|class| !class.starts_with("transformer.")) {
            return true;
        }
        let calls = |prefix: &str| self.quotes(&format!("{prefix}{name}("));
        if calls("F.") || calls("functional.") {
            return true;
        }
        let otherwise = calls("torch.") || calls(".");
        unclear && !otherwise
    }

    /// Whether a product was written with `@`. Swin V2 calls a function for its attention, so that
    /// the file quotes another line; there the scores are written so.
    pub(super) fn is_sign(&self) -> bool {
        let is_of_scores = || {
            let right = self.node.inputs.get(1).and_then(|id| self.graph.tensor(*id).producer);
            let right = right.map(|producer| &self.graph.nodes[producer.0].op);
            matches!(right, Some(Op::Transpose { .. }))
        };
        self.quotes(" @ ") || (self.class == Some(SWIN_V2) && is_of_scores())
    }

    /// Whether an `addmm` or `baddbmm` goes through a function that profilers replace:
    /// `torch.addmm`, `x.addmm` and `torch.baddbmm`, not `x.baddbmm`.
    pub(super) fn is_replaced_addmm(&self) -> bool {
        self.base == "addmm" || self.nn_class().is_some() || self.quotes("torch.baddbmm(")
    }

    /// Whether it was written as a call, `torch.NAME(..)` or `x.NAME(..)`, and not as a sign between
    /// operands.
    pub(super) fn is_call(&self, name: &str) -> bool {
        self.quotes(&format!("torch.{name}(")) || self.quotes(&format!(".{name}("))
    }
}

/// Nodes on which a result of the model hangs. Tracing drops the others.
fn used(graph: &Graph) -> Vec<bool> {
    let mut is_used = vec![false; graph.nodes.len()];
    let mut is_needed = vec![false; graph.tensors.len()];
    for id in &graph.outputs {
        is_needed[id.0] = true;
    }
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        is_used[index] = node.outputs.iter().any(|id| is_needed[id.0]);
        if is_used[index] {
            for id in &node.inputs {
                is_needed[id.0] = true;
            }
        }
    }
    is_used
}

/// Nodes by module path, of modules of one class.
fn by_path<'g>(graph: &'g Graph, class: &str) -> Vec<(&'g str, Vec<usize>)> {
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut modules: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Some(path) = node.module.as_deref() else { continue };
        if graph.modules.get(path).is_none_or(|known| **known != *class) {
            continue;
        }
        let at = *place.entry(path).or_insert_with(|| {
            modules.push((path, Vec::new()));
            modules.len() - 1
        });
        modules[at].1.push(index);
    }
    modules
}

/// Nodes of every `nn.MultiheadAttention` that takes the fast path of inference
/// (torch/nn/modules/activation.py): self-attention with one packed projection, batch first, an even
/// number of heads. The file holds the slow path, since exporting records gradients.
fn fused(graph: &Graph) -> Vec<bool> {
    let mut is_fused = vec![false; graph.nodes.len()];
    for (path, nodes) in by_path(graph, ATTENTION) {
        if takes_fast_path(graph, path, &nodes) {
            for index in nodes {
                is_fused[index] = true;
            }
        }
    }
    is_fused
}

fn takes_fast_path(graph: &Graph, path: &str, nodes: &[usize]) -> bool {
    let shape = |id: TensorId| graph.tensor(id).tensor_type.as_ref().map(|known| &known.shape);
    let projects = |index: &&usize| {
        let node = &graph.nodes[**index];
        let is_weight = |id: &TensorId| graph.tensor(*id).role == Role::Parameter;
        matches!(node.op, Op::MatMul(_)) && node.inputs.iter().skip(1).any(is_weight)
    };
    let projections: Vec<usize> = nodes.iter().filter(projects).copied().collect();
    let softmaxes = nodes
        .iter()
        .filter(|index| matches!(graph.nodes[**index].op, Op::Attention(_) | Op::Softmax { .. }));
    let calls: Vec<usize> = softmaxes.copied().collect();
    // One projection of query, key and value together, and one of the result.
    if calls.is_empty() || projections.len() != 2 * calls.len() {
        return false;
    }
    let Some(input) = graph.nodes[projections[0]].inputs.first().copied() else { return false };
    // `batch_first` swaps the first two axes before the projection.
    let swaps = graph.tensor(input).producer.is_some_and(|producer| {
        let node = &graph.nodes[producer.0];
        node.module.as_deref() == Some(path) && matches!(node.op, Op::Transpose { .. })
    });
    let width = shape(input).and_then(|shape| shape.0.last().cloned());
    let heads = calls.first().and_then(|index| {
        let node = &graph.nodes[*index];
        let first = shape(*node.inputs.first()?)?;
        if matches!(node.op, Op::Attention(_)) {
            // [.., heads, queries, d]
            return first.0.len().checked_sub(3).map(|axis| first.0[axis].clone());
        }
        // Scores without a head axis of their own: the head size is the inner size of the product
        // before.
        let scores = graph.tensor(*node.inputs.first()?).producer?;
        let query = shape(*graph.nodes[scores.0].inputs.first()?)?;
        width?.exact_div(query.0.last()?)
    });
    let is_even = heads.and_then(|heads| heads.as_constant()).is_some_and(|heads| heads % 2 == 0);
    swaps && is_even
}

/// Nodes of every `nn.TransformerEncoderLayer` whose attention is fused and whose activation is one
/// that the fused layer knows (torch/nn/modules/transformer.py).
fn fused_layers(graph: &Graph, is_fused: &[bool]) -> Vec<bool> {
    let mut inside = vec![false; graph.nodes.len()];
    let layers: Vec<&str> = graph
        .modules
        .iter()
        .filter(|(_, class)| ***class == *ENCODER_LAYER)
        .map(|(path, _)| &**path)
        .collect();
    for layer in layers {
        let is_in = |node: &Node| {
            let path = node.module.as_deref().unwrap_or("");
            let below = path.strip_prefix(layer);
            below.is_some_and(|rest| layer.is_empty() || rest.is_empty() || rest.starts_with('.'))
        };
        let nodes: Vec<usize> = graph
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| is_in(node))
            .map(|(index, _)| index)
            .collect();
        let knows = |index: &usize| {
            let op = &graph.nodes[*index].op;
            matches!(op, Op::Elementwise(Function::Relu | Function::GeluErf | Function::GeluTanh))
        };
        if nodes.iter().any(|index| is_fused[*index]) && nodes.iter().any(knows) {
            for index in nodes {
                inside[index] = true;
            }
        }
    }
    inside
}

/// The multiply-accumulates of one run of a node; of attention those of every pair, whatever the
/// mask.
pub(super) fn products(site: &Site) -> Dim {
    if matches!(site.node.op, Op::Attention(_)) {
        return attention_pairs(site).unwrap_or_default();
    }
    crate::cost::node_macs(site.graph, site.node).unwrap_or_default()
}

/// Heads x queries x keys x (d_qk + d_v), every pair.
fn attention_pairs(site: &Site) -> Option<Dim> {
    let ([heads @ .., queries, d_qk], [.., keys, _], [.., d_v]) =
        (site.input(0)?.0.as_slice(), site.input(1)?.0.as_slice(), site.input(2)?.0.as_slice())
    else {
        return None;
    };
    Some(&(&Dim::product(heads) * &(queries * keys)) * &(d_qk + d_v))
}
