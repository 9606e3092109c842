//! The matrix products that a node consists of: `[m, n, k]` of each and its share of the FLOPs.
//!
//! Not here: how many FLOPs those are (`cost`), and how fast they run (`utilisation.rs`).

use crate::graph::{
    Attention, Bindings, Convolution, Dim, Direction, Einsum, Graph, MatMul, Node, Op, Orientation,
    Recurrent, Shape,
};

/// A product of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Product {
    /// `[m, n, k]`.
    pub(super) shape: [u64; 3],
    /// The part of the node's FLOPs.
    pub(super) share: f64,
}

/// Lengths by name, and the types of a node's operands as shapes.
struct Lengths<'a> {
    inputs: Vec<Option<&'a Shape>>,
    output: Option<&'a Shape>,
    bindings: &'a Bindings,
}

impl Lengths<'_> {
    fn value(&self, dim: &Dim) -> Option<u64> {
        let length = dim.evaluate(&|name| self.bindings.0.get(name).copied()).ok()?;
        u64::try_from(length).ok().filter(|length| *length != 0)
    }

    fn input(&self, input_idx: usize) -> Option<Vec<u64>> {
        self.values(self.inputs.get(input_idx).copied()??)
    }

    fn output(&self) -> Option<Vec<u64>> {
        self.values(self.output?)
    }

    fn values(&self, shape: &Shape) -> Option<Vec<u64>> {
        shape.0.iter().map(|dim| self.value(dim)).collect()
    }
}

/// The matrix products that a graph consists of, each shape `[m, n, k]` once, in the order of
/// their first appearance: what a machine should be measured on for this model.
#[must_use]
pub fn product_shapes(graph: &Graph, bindings: &Bindings) -> Vec<[u64; 3]> {
    let mut shapes = Vec::new();
    for node in &graph.nodes {
        for product in products(graph, node, bindings) {
            if !shapes.contains(&product.shape) {
                shapes.push(product.shape);
            }
        }
    }
    shapes
}

/// The products of a node; empty where it has none, or a length is not known.
pub(super) fn products(graph: &Graph, node: &Node, bindings: &Bindings) -> Vec<Product> {
    let lengths = Lengths {
        inputs: graph.input_types(node).map(|known| known.map(|known| &known.shape)).collect(),
        output: graph.output_types(node).next().flatten().map(|known| &known.shape),
        bindings,
    };
    let one = |shape: Option<[u64; 3]>| shape.map(|shape| vec![Product { shape, share: 1.0 }]);
    let found = match &node.op {
        Op::MatMul(op) => one(matmul(*op, &lengths)),
        Op::GroupedMatMul { stack } => one(grouped(*stack, &lengths)),
        Op::Einsum(op) => one(einsum(op, &lengths)),
        Op::Convolution(op) => one(convolution(op, &lengths)),
        Op::Attention(op) => attention(op, &lengths),
        Op::IndexScores(op) => one(index_scores(op, &lengths)),
        Op::Recurrent(op) => recurrent(op, &lengths),
        Op::Embedding
        | Op::Normalization(_)
        | Op::Softmax { .. }
        | Op::Elementwise(_)
        | Op::Cast(_)
        | Op::Quantize(_)
        | Op::Dequantize(_)
        | Op::Bitcast { .. }
        | Op::Fourier { .. }
        | Op::Either
        | Op::Reduce(_)
        | Op::Cumulative { .. }
        | Op::Pool(_)
        | Op::Reshape { .. }
        | Op::Identity
        | Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Restride { .. }
        | Op::Slice { .. }
        | Op::Split { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::Tile { .. }
        | Op::Copy
        | Op::Rearrange { .. }
        | Op::Gather { .. }
        | Op::GatherElements
        | Op::GatherNd { .. }
        | Op::Index { .. }
        | Op::Scatter
        | Op::Fill { .. }
        | Op::Resize { .. }
        | Op::TopK { .. }
        | Op::Stated(_)
        | Op::Opaque { .. } => None,
    };
    found.unwrap_or_default()
}

fn product(lengths: &[u64]) -> u64 {
    lengths.iter().fold(1, |product, length| product.saturating_mul(*length))
}

/// Leading axes that both operands have are matrices of their own; those of `a` alone are rows.
fn matmul(op: MatMul, lengths: &Lengths) -> Option<[u64; 3]> {
    let (a, b) = (lengths.input(0)?, lengths.input(1)?);
    let k = match (op.a, a.as_slice()) {
        (Orientation::Transposed, [.., k, _]) | (_, [.., k]) => *k,
        (_, []) => return None,
    };
    let n = match (op.b, b.as_slice()) {
        (Orientation::Plain, [.., _, n]) | (Orientation::Transposed, [.., n, _]) => *n,
        (_, [_]) => 1,
        (_, []) => return None,
    };
    let matrices = product(&b[..b.len().saturating_sub(2)]);
    let outputs = product(&lengths.output()?);
    Some([(outputs / n / matrices).max(1), n, k])
}

/// Rows divide evenly among the groups that can have one.
fn grouped(stack: Orientation, lengths: &Lengths) -> Option<[u64; 3]> {
    let rows = lengths.input(0)?;
    let [groups, first, second] = lengths.input(1)?.try_into().ok()?;
    let (k, n) = match stack {
        Orientation::Plain => (first, second),
        Orientation::Transposed => (second, first),
    };
    let n_rows = product(&rows[..rows.len().checked_sub(1)?]);
    Some([n_rows.div_ceil(groups).max(1), n, k])
}

/// Of two operands: labels of one alone are its rows or columns, of both and the result matrices of
/// their own.
fn einsum(op: &Einsum, lengths: &Lengths) -> Option<[u64; 3]> {
    let [a, b] = op.inputs.as_slice() else { return None };
    let sizes = [lengths.input(0)?, lengths.input(1)?];
    let size = |label: &char| {
        let in_a = a.iter().position(|other| other == label).map(|axis| sizes[0][axis]);
        let in_b = b.iter().position(|other| other == label).map(|axis| sizes[1][axis]);
        in_a.unwrap_or(1).max(in_b.unwrap_or(1))
    };
    let over = |labels: &[char], is_wanted: &dyn Fn(&char) -> bool| {
        let wanted: Vec<u64> = labels.iter().filter(|label| is_wanted(label)).map(size).collect();
        product(&wanted)
    };
    let m = over(a, &|label| !b.contains(label));
    let n = over(b, &|label| !a.contains(label));
    let k = over(a, &|label| b.contains(label) && !op.output.contains(label));
    Some([m, n, k])
}

/// As im2col makes it: a row is an output position, a column an output channel, and the sum is over
/// the kernel times the input channels of the group.
fn convolution(op: &Convolution, lengths: &Lengths) -> Option<[u64; 3]> {
    let weight = lengths.input(1)?;
    let [first, second, kernel @ ..] = weight.as_slice() else { return None };
    let groups = u64::try_from(op.groups).ok().filter(|groups| *groups != 0)?;
    match op.direction {
        Direction::Forward => {
            let positions = product(&lengths.output()?) / first;
            Some([positions.max(1), (first / groups).max(1), second * product(kernel)])
        }
        // Each input position gives a kernel of every output channel.
        Direction::Transposed { .. } => {
            let positions = product(&lengths.input(0)?) / first;
            Some([positions.max(1), second * product(kernel), (first / groups).max(1)])
        }
    }
}

/// Scores, queries x keys, and their sum of values, queries x d; the mask hides work, not shape.
fn attention(op: &Attention, lengths: &Lengths) -> Option<Vec<Product>> {
    let (query, key, value) = (lengths.input(0)?, lengths.input(1)?, lengths.input(2)?);
    let ([.., queries, d_qk], [.., keys, _], [.., d_v]) =
        (query.as_slice(), key.as_slice(), value.as_slice())
    else {
        return None;
    };
    let cached = lengths.value(&op.cached).unwrap_or(0);
    let keys = keys + cached;
    let share = *d_qk as f64 / (*d_qk + *d_v) as f64;
    Some(vec![
        Product { shape: [*queries, keys, *d_qk], share },
        Product { shape: [*queries, *d_v, keys], share: 1.0 - share },
    ])
}

fn index_scores(op: &Attention, lengths: &Lengths) -> Option<[u64; 3]> {
    let (query, key) = (lengths.input(0)?, lengths.input(1)?);
    let ([.., queries, d], [.., keys, _]) = (query.as_slice(), key.as_slice()) else {
        return None;
    };
    Some([*queries, keys + lengths.value(&op.cached).unwrap_or(0), *d])
}

/// The input's products of all steps are one; those of the state wait for each other.
fn recurrent(op: &Recurrent, lengths: &Lengths) -> Option<Vec<Product>> {
    let value = |dim: &Dim| lengths.value(dim);
    let (steps, batch) = (value(&op.steps)?, value(&op.batch)?);
    let (input, hidden) = (value(&op.input)?, value(&op.hidden)?);
    let n = u64::try_from(op.cell.gates()).ok()? * hidden;
    let share = input as f64 / (input + hidden) as f64;
    Some(vec![
        Product { shape: [steps * batch, n, input], share },
        Product { shape: [batch, n, hidden], share: 1.0 - share },
    ])
}
