//! What Megatron-LM and Megatron-Bridge count of models with recurrent layers: their formula for
//! hybrids (`training/utils/flop_utils.py`, `hybrid_flops`) differs from the graph in a few places.
//!
//! Not here: products with weights and attention, which are counted as of any model
//! (`language.rs`).

use super::seen::{Seen, Site};
use super::{Tally, Term};
use crate::graph::{Dim, Op, TensorId};
use std::collections::{HashMap, HashSet};

/// Adds the recurrences to what was counted of the products with weights, and takes Megatron's
/// sizes for those of state spaces. Returns whether there are recurrences that its formula knows.
pub(super) fn megatron(seen: &Seen, tally: &mut Tally) -> bool {
    // A module that predicts further tokens may run several times.
    let mut by_module: HashMap<&str, Vec<usize>> = HashMap::new();
    for node in tally.terms.iter().filter_map(|(node, _)| *node) {
        let path = seen.graph.nodes[node].module.as_deref().unwrap_or("");
        by_module.entry(path).or_default().push(node);
    }
    let mut changed: HashMap<usize, Option<Term>> = HashMap::new();
    let mut added = Vec::new();
    for site in seen.sites() {
        match recurrence(&site) {
            Some("state_space_duality") => {
                let found = |name: &str| {
                    let path = site.node.module.as_deref().unwrap_or("");
                    let nodes = by_module.get(format!("{path}.{name}").as_str())?;
                    let nearest = nodes.iter().min_by_key(|node| node.abs_diff(site.index))?;
                    Some(seen.site(*nearest))
                };
                if let (Some(project), Some(out)) = (found("in_proj"), found("out_proj")) {
                    added.push((site.index, state_space(&site, &project, &out, &mut changed)));
                }
                if let Some(convolution) = found("conv1d") {
                    changed.insert(convolution.index, None);
                }
            }
            Some("selective_scan") => added.push((site.index, scan(&site))),
            Some("gated_delta_rule" | "kimi_delta_rule") => {
                added.push((site.index, delta_rule(&site)));
            }
            Some(_) | None => {}
        }
    }
    if added.is_empty() {
        return false;
    }
    for index in routers(seen) {
        changed.insert(index, None);
    }
    // The joint projection of what predicts a further token is not in the formula of hybrids.
    let joint = by_module.iter().filter(|(module, _)| module.ends_with(".eh_proj"));
    for node in joint.flat_map(|(_, nodes)| nodes) {
        changed.insert(*node, None);
    }
    let terms = std::mem::take(&mut tally.terms);
    tally.terms = terms
        .into_iter()
        .filter_map(|(node, term)| match node.and_then(|node| changed.remove(&node)) {
            Some(Some(other)) => Some((node, other)),
            Some(None) => None,
            None => Some((node, term)),
        })
        .collect();
    tally.terms.extend(added.into_iter().map(|(node, term)| (Some(node), term)));
    true
}

/// The name of an operator that only built architectures have.
fn recurrence(site: &Site) -> Option<&'static str> {
    if let Op::Stated(stated) = &site.node.op { Some(stated.name) } else { None }
}

/// Megatron takes `d_in = 2 h` channels whatever the heads make together: in_proj `2 T h (2 d_in +
/// 2 G N + H)`, scan `7 T d_in N`, out_proj `2 T d_in h`, no convolution. Three times that in
/// training.
fn state_space(
    site: &Site,
    project: &Site,
    out: &Site,
    changed: &mut HashMap<usize, Option<Term>>,
) -> Term {
    let hidden = project.last(0);
    let wide = &hidden * &Dim::from(2);
    // in_proj gives 2 d_inner + 2 G N + H elements, and out_proj takes d_inner.
    let beyond = &(&wide - &out.last(0)) * &Dim::from(2);
    let columns = &last_output(project) + &beyond;
    let inputs = project.input_elements(0);
    let rule = "3 passes x 2 x multiply-accumulates, with 2 h channels whatever the heads make";
    let six = Dim::from(6);
    let projected = Term::products("state spaces", rule, &(&inputs * &columns) * &six);
    changed.insert(project.index, Some(projected));
    let narrowed = Term::products("state spaces", rule, &(&inputs * &wide) * &six);
    changed.insert(out.index, Some(narrowed));
    // B is the third operand, [.., groups, state].
    let amount = &(&inputs * &Dim::from(2)) * &(&site.last(2) * &Dim::from(21));
    let rule = "3 passes x 7 per token, channel and element of the state, with 2 h channels";
    Term::products("scans", rule, amount)
}

fn last_output(site: &Site) -> Dim {
    site.output().and_then(|shape| shape.0.last()).cloned().unwrap_or(Dim::ONE)
}

/// `7 T d_in N` and three times that in training; the operands are x, the steps and B.
fn scan(site: &Site) -> Term {
    let amount = &site.input_elements(0) * &(&site.last(2) * &Dim::from(21));
    let rule = "3 passes x 7 per token, channel and element of the state";
    Term::products("scans", rule, amount)
}

/// `2 T H_v 4 d_v^2`, three times that in training; the values are the third operand.
fn delta_rule(site: &Site) -> Term {
    let amount = &site.input_elements(2) * &(&site.last(2) * &Dim::from(24));
    let rule = "3 passes x 2 x 4 d_v^2 per token and value head";
    Term::products("delta rules", rule, amount)
}

/// Products whose results choose experts.
fn routers(seen: &Seen) -> HashSet<usize> {
    let mut found = HashSet::new();
    for site in seen.sites().filter(|site| matches!(site.node.op, Op::TopK { .. })) {
        let mut open: Vec<TensorId> = site.node.inputs.iter().take(1).copied().collect();
        // A router is a product and a few elementwise operators; longer ways lead elsewhere.
        for _ in 0..16 {
            let Some(id) = open.pop() else { break };
            let Some(producer) = seen.graph.tensor(id).producer else { continue };
            let node = &seen.graph.nodes[producer.0];
            let is_small = matches!(
                node.op,
                Op::Elementwise(_) | Op::Softmax { .. } | Op::Reshape { .. } | Op::Cast(_)
            );
            if let Op::MatMul(_) = node.op {
                found.insert(producer.0);
            } else if is_small {
                open.extend(&node.inputs);
            }
        }
    }
    found
}
