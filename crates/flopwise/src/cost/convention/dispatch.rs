//! Tools that see the ATen operators that PyTorch dispatches to: FlopCounterMode, ptflops' ATen
//! backend, torchvision's `_ops`.
//!
//! Sources: torch/utils/flop_counter.py (2.15), ptflops/aten_engine.py and aten_ops.py (0.7.5),
//! pytorch/vision test/common_extended_utils.py. What an exported call dispatches to:
//! aten/src/ATen/native/Linear.cpp, LinearAlgebra.cpp.

use super::layout::Layouts;
use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::graph::{Cell, Dim, Op, Role};

const FUSED: &str = "inference fuses nn.MultiheadAttention into one operator that it does not know";
const FUSED_LAYER: &str =
    "inference fuses nn.TransformerEncoderLayer into one operator that it does not know";
const LSTM: &str = "on a CPU it runs as one operator that is not among those it knows";
const UNKNOWN: &str = "the operator is not among those it knows";
const NO_PRODUCT: &str = "it counts products and convolutions only";

/// FLOPs of one forward pass.
pub(super) fn flop_counter(seen: &Seen) -> Tally {
    let mut tally = Tally::of_nodes(seen, flop_counter_node);
    if seen.has_fused() {
        let slow = seen.without_fusion();
        let slow = Tally::of_nodes(&slow, flop_counter_node);
        let name = "with torch.backends.mha.set_fastpath_enabled(False), or with gradients";
        tally.also.push((name.to_owned(), slow.total(seen.graph)));
    }
    tally
}

fn flop_counter_node(site: &Site) -> Verdict {
    if site.is_fused_layer {
        return Verdict::Misses(FUSED_LAYER);
    }
    if site.is_fused {
        return Verdict::Misses(FUSED);
    }
    let flops = &products(site) * &Dim::from(2);
    match dispatched(site) {
        Ok(()) => Verdict::Counts(vec![Term::products(site.base.to_owned(), rule(site), flops)]),
        Err(why) => Verdict::Misses(why),
    }
}

fn rule(site: &Site) -> &'static str {
    match matches!(site.node.op, Op::Attention(_)) {
        true => "2 x heads x queries x keys x (d_qk + d_v), whatever the mask",
        false => "2 x multiply-accumulates",
    }
}

/// Whether a node comes down to products that FlopCounterMode knows.
fn dispatched(site: &Site) -> Result<(), &'static str> {
    match (&site.node.op, site.base) {
        (Op::MatMul(_), _) if is_vector_product(site) => {
            Err("it runs as mv or dot, which it does not know")
        }
        (Op::MatMul(_) | Op::Convolution(_) | Op::Attention(_), _) => Ok(()),
        (Op::GroupedMatMul { .. }, _) => Err("it runs as _grouped_mm, which it does not know"),
        (Op::Einsum(_), "bilinear") => Err("it runs as _trilinear, which it does not know"),
        (Op::Einsum(_), _) => Ok(()),
        (Op::Recurrent(recurrent), _) if recurrent.cell == Cell::Lstm => Err(LSTM),
        (Op::Recurrent(_), _) => Ok(()),
        _ => Err(NO_PRODUCT),
    }
}

/// A product whose right side is a vector.
fn is_vector_product(site: &Site) -> bool {
    site.input(1).is_some_and(|right| right.rank() < 2)
}

/// Multiply-accumulates, and biases where they are part of the operator.
pub(super) fn ptflops(seen: &Seen) -> Tally {
    let layouts = Layouts::new(seen);
    let mut tally = Tally::of_nodes(seen, |site| ptflops_node(site, &layouts));
    if seen.has_fused() {
        let slow = Tally::of_nodes(&seen.without_fusion(), |site| ptflops_node(site, &layouts));
        let name = "with torch.backends.mha.set_fastpath_enabled(False)";
        tally.also.push((name.to_owned(), slow.total(seen.graph)));
    }
    tally
}

fn ptflops_node(site: &Site, layouts: &Layouts) -> Verdict {
    // It hooks into the modules right below the model, which keeps those from being fused.
    let is_hooked = site.node.module.as_deref().is_some_and(|path| !path.contains('.'));
    if site.is_fused_layer && !is_hooked {
        return Verdict::Misses(FUSED_LAYER);
    }
    if site.is_fused {
        return Verdict::Misses(FUSED);
    }
    if let Err(why) = dispatched(site) {
        return Verdict::Misses(why);
    }
    if matches!(site.node.op, Op::Attention(_)) || site.base == "baddbmm" {
        return Verdict::Misses(UNKNOWN);
    }
    let name = site.base.to_owned();
    let mut terms = vec![Term::products(name, "multiply-accumulates", products(site))];
    let bias = if let Op::Recurrent(recurrent) = &site.node.op {
        let gates = &recurrent.hidden * &Dim::from(2 * recurrent.cell.gates());
        let runs = &(&recurrent.steps * &recurrent.batch) * &Dim::from(recurrent.directions);
        &gates * &runs
    } else if site.has_bias() && adds_in_operator(site, layouts) {
        site.output_elements()
    } else {
        Dim::ZERO
    };
    if bias != Dim::ZERO {
        terms.push(Term::beside("bias", "1 x results of the operators that add one", bias));
    }
    Verdict::Counts(terms)
}

/// A linear layer with bias is one `addmm` if its input is a matrix or lies in memory without gaps,
/// in order; otherwise the bias is added apart, where the tool does not see it.
fn adds_in_operator(site: &Site, layouts: &Layouts) -> bool {
    if site.base != "linear" {
        return true;
    }
    let Some(input) = site.node.inputs.first() else { return false };
    site.input(0).is_some_and(|shape| shape.rank() == 2) || layouts.is_contiguous(*input)
}

/// Products and convolutions, fused paths off, to three decimals of a billion.
pub(super) fn torchvision(seen: &Seen) -> Result<Tally, String> {
    let mut tally = Tally::of_nodes(seen, |site| {
        let macs = products(site);
        match macs == Dim::ZERO {
            true => Verdict::Misses(NO_PRODUCT),
            false => {
                let name = super::seen::base(&site.node.operator).to_owned();
                Verdict::Counts(vec![Term::products(name, "multiply-accumulates, no mask", macs)])
            }
        }
    });
    tally.remarks.push("torchvision prints it divided by 10^9, to three decimals".to_owned());
    Ok(tally)
}

/// FLOPs of a forward and a backward pass in which all parameters learn and inputs do not.
pub(super) fn flop_counter_training(seen: &Seen) -> Tally {
    let slow = seen.without_fusion();
    let learns = learns(&slow);
    let drops = !seen.graph.dropouts.is_empty();
    let mut tally = Tally::of_nodes(&slow, |site| match dispatched(site) {
        Ok(()) => training_node(site, &learns, drops),
        Err(why) => Verdict::Misses(why),
    });
    if drops && seen.sites().any(|site| matches!(site.node.op, Op::Attention(_))) {
        let text = "the model has dropout, so attention is taken to drop out too, which on a CPU \
                    runs it as plain products";
        tally.remarks.push(text.to_owned());
    }
    tally.remarks.push(
        "all parameters learn, the inputs do not; gradients switch the fused paths off".to_owned(),
    );
    tally
}

/// Which tensors a gradient flows back to.
fn learns(seen: &Seen) -> Vec<bool> {
    let graph = seen.graph;
    let is_float = |index: usize| {
        let known = graph.tensors[index].tensor_type.as_ref();
        known.is_some_and(|known| known.format.is_float())
    };
    let mut learns: Vec<bool> = (0..graph.tensors.len())
        .map(|index| graph.tensors[index].role == Role::Parameter && is_float(index))
        .collect();
    for node in &graph.nodes {
        let flows = node.inputs.iter().any(|id| learns[id.0]);
        for id in &node.outputs {
            learns[id.0] = flows && is_float(id.0);
        }
    }
    learns
}

/// Forward, and as much again for the gradient of each operand that needs one.
fn training_node(site: &Site, learns: &[bool], drops: bool) -> Verdict {
    let flops = &products(site) * &Dim::from(2);
    let name = site.base.to_owned();
    let flows = |input_idx: usize| {
        site.node.inputs.get(input_idx).is_some_and(|id| learns[id.0]) && site.is_used
    };
    let term = |rule, passes| {
        Verdict::Counts(vec![Term::products(name, rule, &flops * &Dim::from(passes))])
    };
    if matches!(site.node.op, Op::Attention(_)) && drops && (flows(0) || flows(1)) {
        return term("3 x forward, whatever the mask", 3);
    }
    if matches!(site.node.op, Op::Attention(_)) && (flows(0) || flows(1) || flows(2)) {
        // Recomputed scores and four gradients: five products where forward has two.
        let flops = (&flops * &Dim::from(7)).floor_div(&Dim::from(2));
        let rule = "3.5 x forward (the backward pass recomputes the scores), whatever the mask";
        return Verdict::Counts(vec![Term::products("attention", rule, flops)]);
    }
    if let Op::Convolution(convolution) = &site.node.op
        && flows(1)
        && 1 < convolution.groups
    {
        let rule = "the gradient of the weights is not divided by the groups";
        return term(rule, i64::from(flows(0)) + convolution.groups + 1);
    }
    match (flows(0), flows(1)) {
        (true, true) => term("3 x forward", 3),
        (false, false) => term("forward only: neither operand needs a gradient", 1),
        (true, false) | (false, true) => term("2 x forward: one operand needs no gradient", 2),
    }
}
