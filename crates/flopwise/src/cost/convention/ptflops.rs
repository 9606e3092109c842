//! ptflops 0.7.5, PyTorch backend: hooks on modules of exactly these classes, and replaced functions
//! of `torch.nn.functional` and `torch` (ptflops/pytorch_engine.py, pytorch_ops.py). What the hooks
//! find is divided by the batch, what the functions find is not; a module that calls a replaced
//! function is counted twice.

use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::graph::{Cell, Convolution, Dim, Direction, Function, Op, Recurrent};
use std::collections::HashSet;

const MISSED: &str = "neither its module nor its function is among those it knows";
const SIGN: &str = "written as a sign (`@`), and it replaces functions only";
const ATTENTION: &str = "fused attention is not among the functions it knows";
const WITHIN: &str = "it stands in timm's Attention, whose hook replaces those of what is inside";
/// Begins the name of what is divided by the batch.
const HOOK: &str = "module ";

pub(super) fn tally(seen: &Seen) -> Tally {
    let replaced = replaced(seen);
    let mut tally = Tally::of_nodes(seen, |site| {
        let path = site.node.module.as_deref().unwrap_or("");
        let is_within = path.rsplit_once('.').is_some_and(|(parent, _)| replaced.contains(parent));
        node(site, is_within)
    });
    let hooks = tally.terms.iter().filter(|(_, term)| term.what.starts_with(HOOK));
    let hooked: Dim = hooks
        .map(|(node, term)| match node {
            Some(index) => &term.amount * &seen.graph.nodes[*index].repeat,
            None => term.amount.clone(),
        })
        .sum();
    if let Some(batch) = batch(seen)
        && batch != Dim::ONE
    {
        let rule = "what the hooks find is divided by the batch (the first axis of the input)";
        let amount = &hooked.floor_div(&batch) - &hooked;
        tally.terms.push((None, Term::beside("per sample", rule, amount)));
    }
    tally
}

/// The length of the first axis of the first input.
fn batch(seen: &Seen) -> Option<Dim> {
    let input = seen.graph.tensor(*seen.graph.inputs.first()?);
    input.tensor_type.as_ref()?.shape.0.first().cloned()
}

/// Paths of timm's attention modules: the hook of such a module has a formula for its scores, and
/// what the hooks of the modules inside it find is dropped.
fn replaced<'g>(seen: &Seen<'g>) -> HashSet<&'g str> {
    let modules = seen.graph.modules.iter();
    modules.filter(|(_, class)| TIMM.contains(&&***class)).map(|(path, _)| &**path).collect()
}

const TIMM: [&str; 2] =
    ["timm.layers.attention.Attention", "timm.models.vision_transformer.Attention"];

fn node(site: &Site, is_within: bool) -> Verdict {
    let mut terms = if is_within { Vec::new() } else { hook(site) };
    if site.class.is_some_and(|class| TIMM.contains(&class)) {
        terms.extend(timm_attention(site));
    }
    terms.extend(function(site));
    if !terms.is_empty() {
        return Verdict::Counts(terms);
    }
    if is_within {
        return Verdict::Misses(WITHIN);
    }
    match (&site.node.op, site.base) {
        (Op::MatMul(_), "matmul") => Verdict::Misses(SIGN),
        (Op::Attention(_), _) => Verdict::Misses(ATTENTION),
        _ => Verdict::Misses(MISSED),
    }
}

/// Scaling of the queries, scores, softmax and weighted sum.
fn timm_attention(site: &Site) -> Vec<Term> {
    if !matches!(site.node.op, Op::Attention(_) | Op::Softmax { .. }) {
        return Vec::new();
    }
    let Some((rows, queries, keys, size)) = attention_sizes(site) else { return Vec::new() };
    let name = format!("{HOOK}Attention");
    let pairs = &rows * &(&queries * &keys);
    let beside = &(&(&rows * &queries) * &size) + &pairs;
    let products = &(&pairs * &size) * &Dim::from(2);
    vec![
        Term::beside(name.clone(), "scaling, softmax", beside),
        Term::products(name, "scores and weighted sum", products),
    ]
}

/// What the hook of the node's module counts.
fn hook(site: &Site) -> Vec<Term> {
    let Some(class) = site.nn_class() else { return Vec::new() };
    let name = |class: &str| format!("{HOOK}{}", class.rsplit('.').next().unwrap_or(class));
    let one = |rule, amount| vec![Term::beside(name(class), rule, amount)];
    match (class, &site.node.op) {
        ("linear.Linear", Op::MatMul(_)) => {
            let mut terms =
                vec![Term::products(name(class), "multiply-accumulates", products(site))];
            if site.has_bias() {
                let rule = "bias: 1 per result";
                terms.push(Term::beside(name(class), rule, site.output_elements()));
            }
            terms
        }
        (_, Op::Convolution(op)) if class.starts_with("conv.") => {
            convolution(site, op, name(class))
        }
        (_, Op::Normalization(_))
            if ["batchnorm.BatchNorm", "instancenorm.InstanceNorm"]
                .iter()
                .any(|known| class.starts_with(known))
                || class == "normalization.GroupNorm"
                || class == "normalization.LayerNorm" =>
        {
            // Layer norms have no attribute `affine`, so theirs does not count.
            match site.is_affine() && class != "normalization.LayerNorm" {
                true => one("2 per element", &site.input_elements(0) * &Dim::from(2)),
                false => one("1 per element", site.input_elements(0)),
            }
        }
        (
            "activation.ReLU"
            | "activation.PReLU"
            | "activation.ELU"
            | "activation.LeakyReLU"
            | "activation.ReLU6"
            | "activation.GELU",
            Op::Elementwise(_),
        ) => one("1 per element", site.output_elements()),
        (_, _) if class.starts_with("pooling.") && is_pool(site) => {
            one("1 per element", site.input_elements(0))
        }
        ("upsampling.Upsample", Op::Resize { .. }) => {
            let first =
                site.output().map_or(Dim::ZERO, |shape| Dim::product(shape.0.iter().skip(1)));
            one("1 per result of the first sample", first)
        }
        ("activation.MultiheadAttention", Op::Attention(_) | Op::Softmax { .. }) => {
            attention(site, name(class))
        }
        ("activation.MultiheadAttention", Op::MatMul(_)) => {
            vec![Term::products(name(class), "multiply-accumulates", products(site))]
        }
        (_, Op::Recurrent(op)) if class.starts_with("rnn.") => recurrent(site, op, name(class)),
        _ => Vec::new(),
    }
}

fn is_pool(site: &Site) -> bool {
    site.base.contains("pool") || (site.base == "mean" && matches!(site.node.op, Op::Reduce(_)))
}

fn convolution(site: &Site, op: &Convolution, name: String) -> Vec<Term> {
    let kernel = site.input(1).map_or(Dim::ZERO, |shape| Dim::product(shape.0.iter().skip(2)));
    let channels = site.input(0).and_then(|shape| shape.0.get(1)).cloned().unwrap_or_default();
    let filters = site.output().and_then(|shape| shape.0.get(1)).cloned().unwrap_or_default();
    let each = &(&channels * &filters.floor_div(&Dim::from(op.groups))) * &kernel;
    let shape = if op.direction == Direction::Forward { site.output() } else { site.input(0) };
    let positions = shape.map_or(Dim::ZERO, |shape| {
        let spatial = Dim::product(shape.0.iter().skip(2));
        shape.0.first().map_or(Dim::ZERO, |batch| batch * &spatial)
    });
    let mut terms = vec![Term::products(name.clone(), "multiply-accumulates", &positions * &each)];
    if site.has_bias() {
        terms.push(Term::beside(name, "bias: 1 per result", site.output_elements()));
    }
    terms
}

/// Beside the products of `nn.MultiheadAttention`: scaling of the queries, the biases of the four
/// projections, the softmax; by the module's sizes, whichever way it runs.
fn attention(site: &Site, name: String) -> Vec<Term> {
    let Some((rows, queries, keys, size)) = attention_sizes(site) else { return Vec::new() };
    let tokens = &(&queries * &Dim::from(3)) + &(&keys * &Dim::from(2));
    let beside = &(&(&rows * &size) * &tokens) + &(&rows * &(&queries * &keys));
    let rule = "scaling, biases, softmax";
    let mut terms = vec![Term::beside(name.clone(), rule, beside)];
    if matches!(site.node.op, Op::Attention(_)) {
        terms.push(Term::products(name, "multiply-accumulates, whatever the mask", products(site)));
    }
    terms
}

/// Sequences times heads, queries, keys and the size of a head: of the fused operator, or, where
/// the weights are asked for, of the product before the softmax.
fn attention_sizes(site: &Site) -> Option<(Dim, Dim, Dim, Dim)> {
    let (query, keys) = if matches!(site.node.op, Op::Attention(_)) {
        (site.input(0)?, site.input(1)?.0.iter().rev().nth(1)?.clone())
    } else {
        let product = site.graph.tensor(*site.node.inputs.first()?).producer?;
        let query = *site.graph.nodes[product.0].inputs.first()?;
        (&site.graph.tensor(query).tensor_type.as_ref()?.shape, site.output()?.0.last()?.clone())
    };
    let [rows @ .., queries, size] = query.0.as_slice() else { return None };
    Some((Dim::product(rows), queries.clone(), keys, size.clone()))
}

/// Weights once per step and sequence, sums and gates, biases; twice if bidirectional.
fn recurrent(site: &Site, op: &Recurrent, name: String) -> Vec<Term> {
    let each = match op.cell {
        Cell::Lstm => 10 + 8,
        Cell::Gru => 7 + 6,
        Cell::Plain => 1 + 2,
    };
    let times = &(&op.steps * &op.batch) * &Dim::from(op.directions);
    let beside = &(&times * &op.hidden) * &Dim::from(each);
    vec![
        Term::products(name.clone(), "multiply-accumulates", products(site)),
        Term::beside(name, "sums, gates and biases: 18 (LSTM), 13 (GRU), 3 per state", beside),
    ]
}

/// What the replaced function counts that the node was called by.
fn function(site: &Site) -> Vec<Term> {
    if site.is_fused {
        return Vec::new();
    }
    let one = |what: &'static str, rule, amount| vec![Term::beside(what, rule, amount)];
    let input = || site.input_elements(0);
    match (&site.node.op, site.base) {
        (Op::MatMul(_), "matmul") if !site.is_sign() => {
            let amount = &input() * &site.last(1);
            vec![Term::products("torch.matmul", "elements of the left matrix x columns", amount)]
        }
        (Op::MatMul(_), "mm" | "bmm") => {
            let amount = &input() * &site.last(1);
            vec![Term::products("torch.bmm", "elements of the left matrix x columns", amount)]
        }
        (Op::MatMul(_), "addmm" | "baddbmm") if site.is_replaced_addmm() => vec![
            Term::products("torch.addmm", "multiply-accumulates", products(site)),
            Term::beside("torch.addmm", "elements of the addend", site.input_elements(2)),
        ],
        (Op::Elementwise(Function::Add), _) if site.is_call("add") => {
            one("torch.add", "1 per result", site.output_elements())
        }
        (Op::Elementwise(Function::Mul), _) if site.is_call("mul") => {
            one("torch.mul", "1 per result", site.output_elements())
        }
        (Op::Elementwise(_), "relu" | "prelu" | "elu" | "gelu" | "silu")
            if is_replaced(site, site.base) =>
        {
            one("activation function", "1 per element", input())
        }
        (Op::Elementwise(_), "hardtanh" | "relu6")
            if site.quotes("F.relu6(") || site.quotes("functional.relu6(") =>
        {
            one("activation function", "1 per element", input())
        }
        (Op::Softmax { .. }, "softmax") if site.is_functional("softmax", true) => {
            one("F.softmax", "1 per element", input())
        }
        (Op::Resize { .. }, _) => one("F.interpolate", "1 per result", site.output_elements()),
        (_, _) if is_pool(site) && site.base != "mean" && site.is_functional(site.base, true) => {
            one("pooling function", "1 per element", input())
        }
        _ => Vec::new(),
    }
}

fn is_replaced(site: &Site, name: &str) -> bool {
    site.is_functional(name, false)
}
