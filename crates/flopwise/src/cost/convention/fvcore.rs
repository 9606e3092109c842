//! fvcore 0.1.5: handles for the operators of a TorchScript trace (fvcore/nn/flop_count.py,
//! jit_handles.py). Every other operator is skipped with a line in its log.

use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::graph::{Dim, Einsum, Normalization, Op, Shape};

const UNKNOWN: &str = "the operator is not among those it knows";
const FUSED: &str = "inference fuses nn.MultiheadAttention into one operator that it does not know";
const UNUSED: &str = "no result of the model hangs on it, and tracing drops it";

pub(super) fn tally(seen: &Seen) -> Result<Tally, String> {
    if let Some(why) = stops(seen) {
        return Err(why);
    }
    let mut tally = Tally::of_nodes(seen, node);
    if seen.has_fused() {
        let slow = Tally::of_nodes(&seen.without_fusion(), node);
        let name = "with torch.backends.mha.set_fastpath_enabled(False)";
        tally.also.push((name.to_owned(), slow.total(seen.graph)));
    }
    let activations = Tally::of_nodes(seen, activations).total(seen.graph);
    tally.also.push(("activations (results of products and convolutions)".to_owned(), activations));
    Ok(tally)
}

/// What makes the tool stop with an error.
fn stops(seen: &Seen) -> Option<String> {
    let vector = seen.sites().find(|site| {
        let is_vector = |index| site.input(index).is_some_and(|shape: &Shape| shape.rank() < 2);
        site.is_used && !site.is_fused && site.base == "matmul" && (is_vector(0) || is_vector(1))
    });
    let vector = vector?;
    Some(format!("it stops with an error at a product with a vector (node `{}`)", vector.node.name))
}

fn node(site: &Site) -> Verdict {
    if site.is_fused {
        return Verdict::Misses(FUSED);
    }
    if !site.is_used {
        return Verdict::Misses(UNUSED);
    }
    let of_input = |n: i64| &site.input_elements(0) * &Dim::from(n);
    let of_output = |n: i64| &site.output_elements() * &Dim::from(n);
    let beside =
        |what: &'static str, rule, amount| Verdict::Counts(vec![Term::beside(what, rule, amount)]);
    if let Some(product) = product(site) {
        return product;
    }
    // In training it is counted as any other norm (fvcore/nn/jit_handles.py, `batchnorm_flop_jit`):
    // NFNets standardise their weights by such a one.
    let training = matches!(site.node.op, Op::Normalization(Normalization::Batch))
        .then(|| site.scales_in_training())
        .flatten();
    if let Some(scales) = training {
        let (n, rule) = per_norm(scales);
        return beside("batch_norm", rule, of_input(n));
    }
    match (&site.node.op, site.base) {
        (Op::Normalization(Normalization::Batch), _) if site.is_affine() => {
            beside("batch_norm", "2 per element", of_input(2))
        }
        (Op::Normalization(Normalization::Batch), _) => {
            beside("batch_norm", "1 per element", of_input(1))
        }
        (Op::Normalization(Normalization::Layer { .. }), _) => {
            let (n, rule) = per_norm(site.is_affine());
            beside("layer_norm", rule, of_input(n))
        }
        (Op::Normalization(Normalization::Group { groups }), _) => {
            let (n, rule) = per_norm(site.is_affine());
            let name = if *groups == 0 { "instance_norm" } else { "group_norm" };
            beside(name, rule, of_input(n))
        }
        (_, "upsample_nearest2d") => beside("upsample_nearest2d", "1 per result", of_output(1)),
        (_, "upsample_bilinear2d") => beside("upsample_bilinear2d", "4 per result", of_output(4)),
        (_, "grid_sampler") => beside("grid_sampler", "4 per result", of_output(4)),
        (_, "adaptive_avg_pool2d") => beside("adaptive_avg_pool2d", "1 per element", of_input(1)),
        _ => Verdict::Misses(UNKNOWN),
    }
}

fn per_norm(has_weights: bool) -> (i64, &'static str) {
    match has_weights {
        true => (5, "5 per element (with weights)"),
        false => (4, "4 per element (without weights)"),
    }
}

/// What it makes of products and convolutions; `None` for anything else.
fn product(site: &Site) -> Option<Verdict> {
    let counted = |what: &'static str, rule, amount| {
        Verdict::Counts(vec![Term::products(what, rule, amount)])
    };
    let rule = "multiply-accumulates";
    match (&site.node.op, site.base) {
        (Op::MatMul(_), "linear") => Some(counted("linear", rule, products(site))),
        (Op::MatMul(_), "addmm") => Some(counted("addmm", rule, products(site))),
        (Op::MatMul(_), "bmm") => Some(counted("bmm", rule, products(site))),
        (Op::MatMul(_), "mm" | "matmul") => {
            let rule = "elements of the left matrix x columns of the right";
            Some(counted("matmul", rule, &site.input_elements(0) * &site.last(1)))
        }
        (Op::Einsum(einsum), "einsum") => Some(einsum_term(site, einsum)),
        (Op::Einsum(_), "tensordot") => Some(counted("matmul", rule, products(site))),
        (Op::Convolution(_), _) if site.node.operator.ends_with(".padding") => {
            Some(Verdict::Misses(
                "padding by name is traced as _convolution_mode, which it does not know",
            ))
        }
        (Op::Convolution(_), _) => Some(counted("conv", rule, products(site))),
        (Op::MatMul(_) | Op::Einsum(_) | Op::Attention(_) | Op::Recurrent(_), _) => {
            Some(Verdict::Misses(UNKNOWN))
        }
        _ => None,
    }
}

/// Two equations have formulas; the rest goes through NumPy's report of the path, which prints four
/// digits.
fn einsum_term(site: &Site, einsum: &Einsum) -> Verdict {
    let macs = products(site);
    let renamed = rename(einsum);
    let is_special = [["abc", "abd", "acd"], ["abc", "adc", "adb"]]
        .iter()
        .any(|known| renamed.iter().map(String::as_str).eq(known.iter().copied()));
    let (amount, rule) = match (is_special, macs.as_constant()) {
        (true, _) => (macs, "multiply-accumulates"),
        (false, Some(exact)) => (
            Dim::from(numpy_count(exact.unsigned_abs() * 2) / 2),
            "half of NumPy's count, which is printed with four digits",
        ),
        (false, None) => (macs, "half of NumPy's count (the tool reads four digits of it)"),
    };
    Verdict::Counts(vec![Term::products("einsum", rule, amount)])
}

/// Labels in order of first appearance.
fn rename(einsum: &Einsum) -> Vec<String> {
    let mut order: Vec<char> = Vec::new();
    let terms = einsum.inputs.iter().chain(std::iter::once(&einsum.output));
    let renamed = terms.map(|term| {
        let labels = term.iter().map(|label| {
            let known = order.iter().position(|other| other == label);
            let at = known.unwrap_or_else(|| {
                order.push(*label);
                order.len() - 1
            });
            u8::try_from(at).map_or('?', |at| (b'a'.saturating_add(at)) as char)
        });
        labels.collect()
    });
    renamed.collect()
}

/// What `numpy.einsum_path` reports: one more than the count, as `1.234e+05`, so rounded to four
/// digits, halves to even (numpy/_core/einsumfunc.py, 2.4).
pub(super) fn numpy_count(exact: u128) -> u128 {
    let exact = exact.saturating_add(1);
    let mut unit = 1u128;
    while 10_000 <= exact / unit {
        unit *= 10;
    }
    let (digits, rest) = (exact / unit, exact % unit);
    let is_up = unit < 2 * rest || (unit == 2 * rest && digits % 2 == 1);
    (digits + u128::from(is_up)) * unit
}

/// Elements of the results that `ActivationCountAnalysis` counts.
fn activations(site: &Site) -> Verdict {
    let is_counted = match (&site.node.op, site.base) {
        (Op::MatMul(_), base) => matches!(base, "linear" | "addmm" | "bmm" | "matmul"),
        (Op::Einsum(_), base) => base == "einsum",
        (Op::Convolution(_), _) => !site.node.operator.ends_with(".padding"),
        _ => false,
    };
    match is_counted && site.is_used && !site.is_fused {
        true => {
            let amount = site.output_elements();
            Verdict::Counts(vec![Term::beside("activations", "elements of results", amount)])
        }
        false => Verdict::Misses(UNKNOWN),
    }
}
