//! Finds attention that a file writes out as matrix product, softmax, matrix product, and puts one
//! [`Op::Attention`] in its place, so that masks and a KV cache can be counted exactly.
//!
//! Not here: any change of what is counted by default; exports are counted as they stand until the
//! user says what their masks are (see [`crate::cost`]).

use super::mask::{Attention, Mask};
use super::op::{Function, MatMul, Op, Orientation, Storage};
use super::tensor::{Graph, Node, NodeId, Shape, Tensor, TensorId, TensorType};
use super::{Dim, Role};
use std::collections::HashMap;

/// Nodes between a matrix product and the softmax that are looked through: scale, soft cap, mask,
/// casts, reshapes. Real exports have at most six.
const MAX_BETWEEN: usize = 16;

/// Replaces every attention found; says how many.
///
/// Found is `softmax(f(Q K^T)) V` where `f` works on each score (scales, adds, casts, selects) and
/// nothing else reads the scores or the probabilities. A tensor that `f` adds or selects by is the
/// attention's mask.
pub fn fuse_attention(graph: &mut Graph) -> usize {
    let readers = Readers::new(graph);
    let softmaxes = (0..graph.nodes.len())
        .filter(|node_idx| matches!(graph.nodes[*node_idx].op, Op::Softmax { .. }));
    let found: Vec<Found> =
        softmaxes.filter_map(|softmax| find(graph, &readers, softmax)).collect();
    let n_found = found.len();
    if 0 < n_found {
        rebuild(graph, found);
    }
    n_found
}

/// Which nodes read each tensor; a graph's output counts as a reader beyond the last node.
struct Readers(Vec<Vec<usize>>);

impl Readers {
    fn new(graph: &Graph) -> Readers {
        let mut readers = vec![Vec::new(); graph.tensors.len()];
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            for id in &node.inputs {
                readers[id.0].push(node_idx);
            }
        }
        for id in &graph.outputs {
            readers[id.0].push(graph.nodes.len());
        }
        Readers(readers)
    }
}

/// An attention written out.
struct Found {
    /// The product of probabilities and values, which becomes the attention.
    last: usize,
    /// All its nodes but the last.
    absorbed: Vec<usize>,
    query: TensorId,
    /// Keys, and whether they lie as `[.., d, keys]`.
    key: (TensorId, Orientation),
    value: TensorId,
    mask: Option<TensorId>,
}

fn find(graph: &Graph, readers: &Readers, softmax: usize) -> Option<Found> {
    let node = &graph.nodes[softmax];
    let Op::Softmax { axis } = node.op else { return None };
    let scores = *node.inputs.first()?;
    if axis + 1 != shape(graph, scores)?.rank() {
        return None;
    }
    let mut absorbed = vec![softmax];
    let mut budget = MAX_BETWEEN;
    let back = walk_back(graph, readers, scores, &mut budget)?;
    let last = walk_on(graph, readers, *node.outputs.first()?, &mut absorbed)?;
    absorbed.extend(&back.absorbed);
    let Op::MatMul(product) = graph.nodes[back.product].op else { return None };
    let [query, key] = *graph.nodes[back.product].inputs.as_slice() else { return None };
    let value = graph.nodes[last].inputs[1];
    let heads = |id| shape(graph, id).map(|shape| shape.0[..shape.rank().max(2) - 2].to_vec());
    let rank = shape(graph, query)?.rank();
    let fits = 3 <= rank
        && shape(graph, key)?.rank() == rank
        && shape(graph, value)?.rank() == rank
        && heads(query) == heads(scores)
        && product.a == Orientation::Plain;
    fits.then_some(Found { last, absorbed, query, key: (key, product.b), value, mask: back.mask })
}

fn shape(graph: &Graph, id: TensorId) -> Option<&Shape> {
    graph.tensor(id).tensor_type.as_ref().map(|found| &found.shape)
}

struct Back {
    product: usize,
    absorbed: Vec<usize>,
    mask: Option<TensorId>,
}

/// From the softmax back to the product of queries and keys.
fn walk_back(graph: &Graph, readers: &Readers, from: TensorId, budget: &mut usize) -> Option<Back> {
    *budget = budget.checked_sub(1)?;
    if readers.0[from.0].len() != 1 {
        return None;
    }
    let NodeId(node_idx) = graph.tensor(from).producer?;
    let node = &graph.nodes[node_idx];
    if matches!(node.op, Op::MatMul(MatMul { scales: 0, .. })) && node.inputs.len() == 2 {
        return Some(Back { product: node_idx, absorbed: vec![node_idx], mask: None });
    }
    if !works_on_each(&node.op) {
        return None;
    }
    let from_operand = |operand: &TensorId| {
        let is_main = keeps_keys(graph, *operand, from);
        let mut back = walk_back(graph, readers, *operand, budget).filter(|_| is_main)?;
        let others = node.inputs.iter().filter(|other| *other != operand);
        let mask = others.copied().find(|other| is_per_key(graph, *other, from));
        back.mask = back.mask.or(mask);
        back.absorbed.push(node_idx);
        Some(back)
    };
    node.inputs.iter().find_map(from_operand)
}

/// From the softmax on to the product of probabilities and values; the nodes between are absorbed.
fn walk_on(
    graph: &Graph,
    readers: &Readers,
    from: TensorId,
    absorbed: &mut Vec<usize>,
) -> Option<usize> {
    let mut from = from;
    for _ in 0..MAX_BETWEEN {
        let reader = match readers.0[from.0].as_slice() {
            [reader] => *reader,
            // Rows that see no key are NaN; exporters put zeros there: where(isnan(p), 0, p).
            [first, second] => {
                let (test, select) = (graph.nodes.get(*first)?, graph.nodes.get(*second)?);
                let is_guard = test.op == Op::Elementwise(Function::Classify)
                    && select.op == Op::Elementwise(Function::Select)
                    && test.outputs.iter().all(|id| readers.0[id.0] == [*second]);
                absorbed.extend(is_guard.then_some(*first));
                is_guard.then_some(*second)?
            }
            _ => return None,
        };
        let node = graph.nodes.get(reader)?;
        if let Op::MatMul(product) = node.op {
            let plain = MatMul::new(Orientation::Plain, Orientation::Plain);
            let is_last = product == plain && node.inputs.len() == 2 && node.inputs[0] == from;
            return is_last.then_some(reader);
        }
        let output = *node.outputs.first()?;
        if !works_on_each(&node.op) || !keeps_keys(graph, from, output) {
            return None;
        }
        absorbed.push(reader);
        from = output;
    }
    None
}

/// Whether an operator changes scores one by one.
fn works_on_each(op: &Op) -> bool {
    if let Op::Elementwise(function) = op {
        return !matches!(
            function,
            Function::Compare | Function::Logical | Function::Bitwise | Function::Classify
        );
    }
    matches!(op, Op::Cast(_) | Op::Identity | Op::Reshape { .. })
}

/// Whether two tensors have the same last two axes and as many elements.
fn keeps_keys(graph: &Graph, a: TensorId, b: TensorId) -> bool {
    let (Some(a), Some(b)) = (shape(graph, a), shape(graph, b)) else { return false };
    let last = |shape: &Shape| shape.0.get(shape.rank().wrapping_sub(2)..).map(<[Dim]>::to_vec);
    last(a).is_some() && last(a) == last(b) && a.elements() == b.elements()
}

/// Whether an operand differs from key to key, as a mask does and a scale does not.
fn is_per_key(graph: &Graph, operand: TensorId, scores: TensorId) -> bool {
    let last = |id| shape(graph, id).and_then(|shape| shape.0.last().cloned());
    last(operand).is_some_and(|keys| keys != Dim::ONE && Some(keys) == last(scores))
}

fn rebuild(graph: &mut Graph, found: Vec<Found>) {
    let mut is_absorbed = vec![false; graph.nodes.len()];
    let mut by_last: HashMap<usize, Found> = HashMap::new();
    for found in found {
        found.absorbed.iter().for_each(|node_idx| is_absorbed[*node_idx] = true);
        by_last.insert(found.last, found);
    }
    let nodes = std::mem::take(&mut graph.nodes);
    // Where each old node, and the end, comes to stand.
    let mut places = Vec::with_capacity(nodes.len() + 1);
    for (node_idx, node) in nodes.into_iter().enumerate() {
        places.push(graph.nodes.len());
        if is_absorbed[node_idx] {
            continue;
        }
        match by_last.remove(&node_idx) {
            Some(found) => push_attention(graph, node, &found),
            None => push(graph, node),
        }
    }
    places.push(graph.nodes.len());
    for (_, nodes) in graph.choices.iter_mut().flat_map(|choice| &mut choice.branches) {
        *nodes = places[nodes.start]..places[nodes.end];
    }
}

fn push(graph: &mut Graph, node: Node) {
    let id = NodeId(graph.nodes.len());
    for output in &node.outputs {
        graph.tensors[output.0].producer = Some(id);
    }
    graph.nodes.push(node);
}

fn push_attention(graph: &mut Graph, last: Node, found: &Found) {
    let key = match found.key {
        (key, Orientation::Transposed) => key,
        (key, Orientation::Plain) => push_transposed(graph, &last, key),
    };
    let mask = if found.mask.is_some() { Mask::Tensor } else { Mask::Full };
    let inputs = [found.query, key, found.value].into_iter().chain(found.mask).collect();
    push(graph, Node { op: Op::Attention(Attention::new(mask)), inputs, in_place: false, ..last });
}

/// A view of `[.., d, keys]` as `[.., keys, d]`.
fn push_transposed(graph: &mut Graph, last: &Node, key: TensorId) -> TensorId {
    let known = graph.tensor(key).tensor_type.clone();
    let mut permutation: Vec<usize> = (0..known.as_ref().map_or(0, |k| k.shape.rank())).collect();
    let rank = permutation.len();
    let swap = |mut shape: Shape| {
        shape.0.swap(rank - 2, rank - 1);
        shape
    };
    permutation.swap(rank - 2, rank - 1);
    let id = TensorId(graph.tensors.len());
    let name = format!("{}:key", last.name);
    graph.tensors.push(Tensor {
        name: name.clone(),
        tensor_type: known.map(|known| TensorType { shape: swap(known.shape), ..known }),
        role: Role::Activation,
        producer: None,
        stored: None,
    });
    let op = Op::Transpose { permutation, storage: Storage::View };
    push(graph, Node { name, op, inputs: vec![key], outputs: vec![id], ..last.clone() });
    id
}
