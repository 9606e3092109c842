//! The FLOPs profiler of DeepSpeed, as calflops 0.3.2 copies it: functions of `torch.nn.functional`
//! and a few of `torch` are replaced while the model runs (calflops/pytorch_ops.py). What is called
//! otherwise (`@`, `+`, fused attention, functions kept by the model before) is not seen.

use super::seen::{Seen, Site, products};
use super::{Tally, Term, TermRole, Verdict};
use crate::graph::{
    Cell, Convolution, Dim, Direction, Function, Normalization, Op, Padding, Recurrent,
};

const MISSED: &str = "not called through a function that it replaces";
const FUSED: &str = "inference fuses nn.MultiheadAttention into one call that it does not replace";
const FUSED_ATTENTION: &str =
    "F.scaled_dot_product_attention is not among the functions it replaces";

pub(super) fn tally(seen: &Seen) -> Tally {
    let mut tally = Tally::of_nodes(seen, node);
    // It says of each call how many multiply-accumulates are in it; of einsum and of recurrent
    // networks it does not.
    let macs = tally.terms.iter().filter(|(_, term)| {
        let is_said = !matches!(term.what.as_ref(), "torch.einsum" | "RNN");
        term.role == TermRole::Products && is_said
    });
    let macs: Dim = macs
        .map(|(node, term)| match node {
            Some(index) => &term.amount * &seen.graph.nodes[*index].repeat,
            None => term.amount.clone(),
        })
        .sum();
    tally.also.push(("MACs".to_owned(), macs.floor_div(&Dim::from(2))));
    if seen.has_fused() {
        let slow = Tally::of_nodes(&seen.without_fusion(), node).total(seen.graph);
        let name = "with torch.backends.mha.set_fastpath_enabled(False)";
        tally.also.push((name.to_owned(), slow));
    }
    tally
}

fn node(site: &Site) -> Verdict {
    if site.is_fused {
        return Verdict::Misses(FUSED);
    }
    if let Some(terms) = product(site) {
        return Verdict::Counts(terms);
    }
    let amount = |n: i64| &site.input_elements(0) * &Dim::from(n);
    let one =
        |what: &'static str, rule, amount| Verdict::Counts(vec![Term::beside(what, rule, amount)]);
    match (&site.node.op, site.base) {
        (Op::Normalization(Normalization::Batch), _) => match site.is_affine() {
            true => one("F.batch_norm", "2 per element", amount(2)),
            false => one("F.batch_norm", "1 per element", amount(1)),
        },
        (Op::Normalization(Normalization::Layer { .. } | Normalization::Group { .. }), _) => {
            match site.is_affine() {
                true => one("norms", "5 per element (with weights)", amount(5)),
                false => one("norms", "4 per element (without weights)", amount(4)),
            }
        }
        (Op::Elementwise(_), "relu" | "prelu" | "elu" | "leaky_relu" | "silu" | "gelu")
            if site.is_functional(site.base, false) =>
        {
            one("activation functions", "1 per element", amount(1))
        }
        (Op::Elementwise(_), "hardtanh" | "relu6")
            if site.quotes("F.relu6(") || site.quotes("functional.relu6(") =>
        {
            one("activation functions", "1 per element", amount(1))
        }
        (Op::Elementwise(Function::Add), _) if site.is_call("add") => {
            one("torch.add", "1 per result", site.output_elements())
        }
        (Op::Elementwise(Function::Mul), _) if site.is_call("mul") => {
            one("torch.mul", "1 per result", site.output_elements())
        }
        (Op::Softmax { .. }, "softmax") if site.is_functional("softmax", true) => {
            one("F.softmax", "1 per element", amount(1))
        }
        (Op::Resize { .. }, _) => resize(site),
        (_, base) if base.contains("_pool") && site.is_functional(base, true) => {
            one("pooling", "1 per element", amount(1))
        }
        (Op::Attention(_), _) => Verdict::Misses(FUSED_ATTENTION),
        _ => Verdict::Misses(MISSED),
    }
}

/// What it makes of products and convolutions it sees; `None` for anything else.
fn product(site: &Site) -> Option<Vec<Term>> {
    let flops = || &products(site) * &Dim::from(2);
    match (&site.node.op, site.base) {
        (Op::MatMul(_), "linear") => {
            Some(vec![Term::products("F.linear", "2 x multiply-accumulates", flops())])
        }
        (Op::MatMul(_), "matmul") if !site.is_sign() => {
            let rule = "2 x elements of the left matrix x columns of the right";
            let macs = &site.input_elements(0) * &site.last(1);
            Some(vec![Term::products("torch.matmul", rule, &macs * &Dim::from(2))])
        }
        (Op::MatMul(_), "addmm" | "baddbmm") if site.is_replaced_addmm() => Some(vec![
            Term::products("torch.addmm", "2 x multiply-accumulates", flops()),
            Term::beside("torch.addmm", "elements of the addend", site.input_elements(2)),
        ]),
        (Op::Einsum(_), "einsum") => {
            let (amount, rule) = match flops().as_constant() {
                Some(exact) => {
                    let printed = super::fvcore::numpy_count(exact.unsigned_abs());
                    (Dim::from(printed), "NumPy's count, which is printed with four digits")
                }
                None => (flops(), "NumPy's count (the tool reads four digits of it)"),
            };
            Some(vec![Term::products("torch.einsum", rule, amount)])
        }
        (Op::Convolution(op), _) => Some(match op.direction {
            Direction::Forward => convolution(site, op),
            Direction::Transposed { .. } => transposed(site, op),
        }),
        (Op::Recurrent(op), _)
            if site.nn_class().is_some_and(|class| class.starts_with("rnn.")) =>
        {
            Some(recurrent(site, op))
        }
        _ => None,
    }
}

fn convolution(site: &Site, op: &Convolution) -> Vec<Term> {
    let flops = &products(site) * &Dim::from(2);
    let mut terms = vec![Term::products("F.conv", "2 x multiply-accumulates", flops)];
    if site.has_bias() {
        let positions = output_positions(site, op);
        let filters = site.input(1).and_then(|weight| weight.0.first()).cloned();
        let amount = &positions * &filters.unwrap_or_default();
        terms.push(Term::beside("F.conv", "bias: 1 per result", amount));
    }
    terms
}

/// Kernel x input channels x (output channels / groups), divided by the groups once more; the bias
/// on an output as large as if it were not transposed.
fn transposed(site: &Site, op: &Convolution) -> Vec<Term> {
    let groups = Dim::from(op.groups);
    let (Some(input), Some(weight)) = (site.input(0), site.input(1)) else { return Vec::new() };
    let channels = weight.0.get(1).cloned().unwrap_or_default();
    let kernel = Dim::product(weight.0.iter().skip(2));
    let each = &(&kernel * weight.0.first().unwrap_or(&Dim::ZERO)) * &channels.floor_div(&groups);
    let positions = &Dim::product(input.0.iter().skip(2)) * input.0.first().unwrap_or(&Dim::ZERO);
    let rule = match op.groups {
        1 => "2 x multiply-accumulates",
        _ => "2 x multiply-accumulates, divided by the groups twice",
    };
    let flops = &(&positions * &each) * &Dim::from(2);
    let mut terms = vec![Term::products("F.conv_transpose", rule, flops)];
    if site.has_bias() {
        let rule = "bias, on an output as large as if it were not transposed";
        let amount = &output_positions(site, op) * &channels;
        terms.push(Term::beside("F.conv_transpose", rule, amount));
    }
    terms
}

/// `batch x prod((n + 2 p - (d (k - 1) + 1)) / s + 1)`.
fn output_positions(site: &Site, op: &Convolution) -> Dim {
    let (Some(input), Some(weight)) = (site.input(0), site.input(1)) else { return Dim::ZERO };
    let mut positions = input.0.first().cloned().unwrap_or_default();
    for (axis, stride) in op.stride.iter().enumerate() {
        let (Some(n), Some(kernel)) = (input.0.get(axis + 2), weight.0.get(axis + 2)) else {
            return Dim::ZERO;
        };
        let dilation = Dim::from(op.dilation.get(axis).copied().unwrap_or(1));
        let reach = &dilation * &(kernel - &Dim::ONE);
        let padding = match &op.padding {
            Padding::Explicit { before, .. } => Dim::from(before.get(axis).copied().unwrap_or(0)),
            Padding::Same => reach.floor_div(&Dim::from(2)),
        };
        let free = &(&(n + &(&padding * &Dim::from(2))) - &reach) - &Dim::ONE;
        positions = &positions * &(&free.floor_div(&Dim::from(*stride)) + &Dim::ONE);
    }
    positions
}

/// With a size it forgets batch and channels, with a factor it forgets the factor.
fn resize(site: &Site) -> Verdict {
    let by_factor = site.quotes("scale_factor")
        || site.nn_class().is_some_and(|class| class.starts_with("upsampling."));
    let (rule, amount) = match by_factor {
        true => ("1 per element of the input (it drops the factor)", site.input_elements(0)),
        false => (
            "1 per position of the result (it drops batch and channels)",
            site.output().map_or(Dim::ZERO, |shape| Dim::product(shape.0.iter().skip(2))),
        ),
    };
    Verdict::Counts(vec![Term::beside("F.interpolate", rule, amount)])
}

/// Products, sums and gates.
fn recurrent(site: &Site, op: &Recurrent) -> Vec<Term> {
    // Two biases per gate are added and two additions per gate left out of the products.
    let each = match op.cell {
        Cell::Lstm => 10,
        Cell::Gru => 7,
        Cell::Plain => 1,
    };
    let times = &(&op.steps * &op.batch) * &Dim::from(op.directions);
    let beside = &(&times * &op.hidden) * &Dim::from(each);
    let flops = &products(site) * &Dim::from(2);
    vec![
        Term::products("RNN", "2 x multiply-accumulates", flops),
        Term::beside("RNN", "sums and gates: 10 (LSTM), 7 (GRU), 1 per state", beside),
    ]
}
