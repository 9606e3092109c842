//! Which tensors lie in memory in the order of their axes, without gaps, when PyTorch runs: what
//! decides between kernels. Strides are followed through views as ATen follows them
//! (aten/src/ATen/TensorUtils.cpp, `computeStride`; TensorIterator.cpp).
//!
//! Not here: what hangs on it.

use super::seen::Seen;
use crate::graph::{Dim, Node, Normalization, Op, Storage, TensorId};

/// Sizes and strides of a tensor; `None` once a size has no value.
type Layout = Option<Vec<(i128, i128)>>;

pub(super) struct Layouts(Vec<Layout>);

impl Layouts {
    pub(super) fn new(seen: &Seen) -> Layouts {
        let graph = seen.graph;
        // A symbol without a value is taken for a number that is no other size.
        let value = |dim: &Dim| {
            let known = |name: &str| seen.bindings.0.get(name).copied().or(Some(37));
            dim.evaluate(&known).ok()
        };
        let sizes = |id: TensorId| -> Option<Vec<i128>> {
            graph.tensor(id).tensor_type.as_ref()?.shape.0.iter().map(value).collect()
        };
        let tensors = (0..graph.tensors.len()).map(TensorId);
        let mut layouts: Vec<Layout> =
            tensors.map(|id| sizes(id).map(|sizes| in_order(&sizes))).collect();
        for node in &graph.nodes {
            for id in &node.outputs {
                let Some(sizes) = sizes(*id) else { continue };
                if let Some(layout) = result(node, &sizes, &layouts) {
                    layouts[id.0] = Some(layout);
                }
            }
        }
        Layouts(layouts)
    }

    pub(super) fn is_contiguous(&self, id: TensorId) -> bool {
        self.0[id.0].as_ref().is_none_or(|layout| is_in_order(layout))
    }
}

/// Strides of a tensor without gaps, the last axis fastest.
fn in_order(sizes: &[i128]) -> Vec<(i128, i128)> {
    let mut stride = 1i128;
    let mut layout: Vec<(i128, i128)> = Vec::with_capacity(sizes.len());
    for size in sizes.iter().rev() {
        layout.push((*size, stride));
        stride = stride.saturating_mul((*size).max(1));
    }
    layout.reverse();
    layout
}

fn is_in_order(layout: &[(i128, i128)]) -> bool {
    let sizes: Vec<i128> = layout.iter().map(|(size, _)| *size).collect();
    let dense = in_order(&sizes);
    layout.iter().zip(dense).all(|((size, stride), (_, wanted))| *size == 1 || *stride == wanted)
}

/// The result's layout, where it is not simply in order.
fn result(node: &Node, sizes: &[i128], layouts: &[Layout]) -> Layout {
    let first = layouts[node.inputs.first()?.0].as_ref()?;
    match (&node.op, sizes.len()) {
        (Op::Transpose { permutation, storage: Storage::View }, _) => {
            permutation.iter().map(|axis| first.get(*axis).copied()).collect()
        }
        (Op::Slice { ranges, storage: Storage::View }, rank) => {
            let mut strides = first.clone();
            for range in ranges {
                strides.get_mut(range.axis)?.1 *= i128::from(range.step);
            }
            (strides.len() == rank)
                .then(|| sizes.iter().zip(strides).map(|(size, (_, s))| (*size, s)).collect())
        }
        (Op::Split { storage: Storage::View, .. }, rank) if first.len() == rank => {
            Some(sizes.iter().zip(first).map(|(size, (_, stride))| (*size, *stride)).collect())
        }
        (Op::Expand { .. }, rank) => {
            let added = rank.checked_sub(first.len())?;
            let strides = sizes.iter().enumerate().map(|(axis, size)| {
                let before = axis.checked_sub(added).map(|axis| first[axis]);
                match before {
                    Some((known, stride)) if known == *size => (*size, stride),
                    Some(_) | None => (*size, 0),
                }
            });
            Some(strides.collect())
        }
        (Op::Reshape { .. }, _) => view(first, sizes),
        (Op::Identity, _) => Some(first.clone()),
        (Op::Elementwise(_) | Op::Cast(_), _) => {
            let shaped = node.inputs.iter().find_map(|id| {
                let layout = layouts[id.0].as_ref()?;
                let is_whole = layout.iter().map(|(size, _)| size).eq(sizes);
                is_whole.then_some(layout)
            });
            shaped.map(|layout| packed(layout))
        }
        // Kernels for images keep the channels last where the input has them last.
        (Op::Convolution(_) | Op::Pool(_) | Op::Normalization(Normalization::Batch), 4)
            if is_channels_last(first) =>
        {
            let [n, c, h, w] = sizes else { return None };
            Some(vec![(*n, c * h * w), (*c, 1), (*h, c * w), (*w, *c)])
        }
        _ => None,
    }
}

fn is_channels_last(layout: &[(i128, i128)]) -> bool {
    let [_, (channels, channel_stride), _, (width, width_stride)] = layout else { return false };
    1 < *channels && *channel_stride == 1 && (*width == 1 || *width_stride == *channels)
}

/// The same order of axes without gaps; broadcast axes go to where they stand.
fn packed(layout: &[(i128, i128)]) -> Vec<(i128, i128)> {
    let mut axes: Vec<usize> = (0..layout.len()).collect();
    if layout.iter().any(|(size, stride)| *stride == 0 && *size != 1) {
        let sizes: Vec<i128> = layout.iter().map(|(size, _)| *size).collect();
        return in_order(&sizes);
    }
    // Stable: of axes with equal strides (length 1) the later is the faster.
    axes.sort_by_key(|axis| std::cmp::Reverse(layout[*axis].1));
    let mut stride = 1i128;
    let mut packed = layout.to_vec();
    for axis in axes.into_iter().rev() {
        packed[axis].1 = stride;
        stride = stride.saturating_mul(layout[axis].0.max(1));
    }
    packed
}

/// The strides under which the same bytes have other sizes; in order if they must be copied.
fn view(layout: &[(i128, i128)], sizes: &[i128]) -> Layout {
    let copied = || Some(in_order(sizes));
    if sizes.contains(&0) || layout.is_empty() {
        return copied();
    }
    let mut strides = vec![0i128; sizes.len()];
    let mut next = sizes.len();
    let mut base = layout[layout.len() - 1].1;
    let (mut chunk, mut filled) = (1i128, 1i128);
    for axis in (0..layout.len()).rev() {
        chunk = chunk.saturating_mul(layout[axis].0);
        let is_end = axis == 0
            || (layout[axis - 1].0 != 1 && layout[axis - 1].1 != chunk.saturating_mul(base));
        if !is_end {
            continue;
        }
        while 0 < next && (filled < chunk || sizes[next - 1] == 1) {
            strides[next - 1] = filled.saturating_mul(base);
            filled = filled.saturating_mul(sizes[next - 1]);
            next -= 1;
        }
        if filled != chunk {
            return copied();
        }
        if 0 < axis {
            base = layout[axis - 1].1;
            (chunk, filled) = (1, 1);
        }
    }
    match next {
        0 => Some(sizes.iter().copied().zip(strides).collect()),
        _ => copied(),
    }
}
