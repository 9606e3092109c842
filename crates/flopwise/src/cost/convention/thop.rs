//! thop 0.1.1: hooks on modules of exactly these classes (thop/profile.py, vision/basic_hooks.py,
//! vision/calc_func.py, rnn_hooks.py). It does not see functions.

use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::graph::{Cell, Convolution, Dim, Direction, Op, Recurrent};

const NO_HOOK: &str = "its module is of a class that it has no hook for";
const FUNCTION: &str = "called as a function, and it hooks into modules only";

pub(super) fn tally(seen: &Seen) -> Tally {
    Tally::of_nodes(seen, node)
}

fn node(site: &Site) -> Verdict {
    let Some(class) = site.nn_class() else {
        let is_leaf = site.class.is_some_and(|class| class.contains("Conv1D"));
        return Verdict::Misses(if is_leaf { NO_HOOK } else { FUNCTION });
    };
    let beside =
        |what: &'static str, rule, amount| Verdict::Counts(vec![Term::beside(what, rule, amount)]);
    let of_output = |n: i64| &site.output_elements() * &Dim::from(n);
    match (class, &site.node.op) {
        ("linear.Linear", Op::MatMul(_)) => {
            let macs = products(site);
            Verdict::Counts(vec![Term::products("Linear", "multiply-accumulates", macs)])
        }
        (class, Op::Convolution(op)) if class.starts_with("conv.") => {
            Verdict::Counts(vec![convolution(site, op)])
        }
        (
            "batchnorm.BatchNorm1d"
            | "batchnorm.BatchNorm2d"
            | "batchnorm.BatchNorm3d"
            | "batchnorm.SyncBatchNorm"
            | "normalization.LayerNorm"
            | "instancenorm.InstanceNorm1d"
            | "instancenorm.InstanceNorm2d"
            | "instancenorm.InstanceNorm3d",
            Op::Normalization(_),
        ) => {
            let name = class.rsplit('.').next().unwrap_or(class).to_owned();
            let (n, rule) = match site.is_affine() {
                true => (4, "4 per element (with weights)"),
                false => (2, "2 per element (without weights)"),
            };
            let amount = &site.input_elements(0) * &Dim::from(n);
            Verdict::Counts(vec![Term::beside(name, rule, amount)])
        }
        ("activation.PReLU", Op::Elementwise(_)) => beside("PReLU", "1 per element", of_output(1)),
        ("activation.Softmax", Op::Softmax { axis }) => {
            let each = site.output().and_then(|shape| shape.0.get(*axis)).cloned();
            let each = each.unwrap_or(Dim::ONE);
            let rows = site.output_elements().floor_div(&each);
            let amount = &of_output(3) - &rows;
            beside("Softmax", "3 per element, less 1 per row", amount)
        }
        ("pooling.AvgPool1d" | "pooling.AvgPool2d" | "pooling.AvgPool3d", Op::Pool(_)) => {
            beside("AvgPool", "1 per result", of_output(1))
        }
        (
            "pooling.AdaptiveAvgPool1d" | "pooling.AdaptiveAvgPool2d" | "pooling.AdaptiveAvgPool3d",
            _,
        ) if site.base.contains("pool") || site.base == "mean" => {
            let amount = &site.input_elements(0) + &site.output_elements();
            beside("AdaptiveAvgPool", "1 per element and 1 per result", amount)
        }
        (class, Op::Resize { .. }) if class.starts_with("upsampling.") => upsample(site),
        (class, Op::Recurrent(op)) if class.starts_with("rnn.") => {
            Verdict::Counts(recurrent(site, op))
        }
        _ => Verdict::Misses(NO_HOOK),
    }
}

/// Results x input channels per group x kernel, whichever way the convolution runs.
fn convolution(site: &Site, op: &Convolution) -> Term {
    if op.direction == Direction::Forward {
        return Term::products("Conv", "multiply-accumulates", products(site));
    }
    let kernel = site.input(1).map_or(Dim::ZERO, |shape| Dim::product(shape.0.iter().skip(2)));
    let channels = site.input(0).and_then(|shape| shape.0.get(1)).cloned().unwrap_or_default();
    let each = &channels.floor_div(&Dim::from(op.groups)) * &kernel;
    let rule = "results x input channels per group x kernel, as if it were not transposed";
    Term::products("ConvTranspose", rule, &site.output_elements() * &each)
}

fn upsample(site: &Site) -> Verdict {
    let (n, rule) = match site.base {
        "upsample_nearest1d" | "upsample_nearest2d" | "upsample_nearest3d" => {
            (1, "nearest: 1 per result")
        }
        "upsample_linear1d" => (5, "linear: 5 per result"),
        "upsample_bilinear2d" => (11, "bilinear: 11 per result"),
        "upsample_bicubic2d" => (224 + 35, "bicubic: 259 per result"),
        _ => return Verdict::Misses("a mode that it has no rule for"),
    };
    let amount = &site.output_elements() * &Dim::from(n);
    Verdict::Counts(vec![Term::beside("Upsample", rule, amount)])
}

/// Products, and per element of the hidden state: of each gate one addition and two biases; LSTM
/// four more, GRU three more and one for the reset.
fn recurrent(site: &Site, op: &Recurrent) -> Vec<Term> {
    let each = match op.cell {
        Cell::Lstm => 4 * 3 + 4,
        Cell::Gru => 3 * 3 + 4,
        Cell::Plain => 3,
    };
    let times = &(&op.steps * &op.batch) * &Dim::from(op.directions);
    let beside = &(&times * &op.hidden) * &Dim::from(each);
    vec![
        Term::products("RNN", "multiply-accumulates", products(site)),
        Term::beside("RNN", "sums, biases and gates: 16 (LSTM), 13 (GRU), 3 per state", beside),
    ]
}
