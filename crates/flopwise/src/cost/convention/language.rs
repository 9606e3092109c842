//! Formulas for language models: parameters times tokens, and attention by its sizes. `N`, `L`,
//! `H`, `Q`, `T` and the tokens are read off the graph: parameters, attention operators and their
//! operands, the indices that look tokens up.
//!
//! Sources: Kaplan et al. 2020 (arXiv 2001.08361) and Hoffmann et al. 2022 (2203.15556); Chowdhery et
//! al. 2022 (2204.02311), appendix B; karpathy/nanoGPT model.py `estimate_mfu`; pytorch/torchtitan
//! `get_nparams_and_flops`; NVIDIA/Megatron-LM training.py `num_floating_point_operations`, with the
//! windows that NVIDIA-NeMo/Megatron-Bridge flop_utils.py counts (Megatron-LM takes all for causal).

use super::seen::{Seen, Site, products};
use super::{Convention, Tally, Term, hybrid};
use crate::graph::{Attention, Band, Dim, Graph, Mask, Op, Role, TensorId};
use std::collections::{HashMap, HashSet};

pub(super) fn tally(convention: Convention, seen: &Seen) -> Result<Tally, String> {
    let Some(tokens) = tokens(seen) else {
        return Err("the formula is of models of tokens, and none are looked up here".to_owned());
    };
    let is_megatron = convention == Convention::Megatron;
    let mut tally = if is_megatron { megatron(seen) } else { weights(convention, seen, &tokens) };
    let has_recurrences = is_megatron && hybrid::megatron(seen, &mut tally);
    if convention != Convention::SixN {
        let n_layers = attention(convention, seen, &tokens, &mut tally)?;
        if n_layers == 0 && !has_recurrences {
            return Err(
                "layers and heads are read off fused attention operators, and there are none"
                    .to_owned(),
            );
        }
    }
    let counted: Vec<usize> = tally.terms.iter().filter_map(|(node, _)| *node).collect();
    let named: Vec<usize> = tally.misses.iter().map(|(node, _)| *node).collect();
    let is_rest = |site: &Site| !counted.contains(&site.index) && !named.contains(&site.index);
    for site in seen.sites().filter(is_rest) {
        tally.misses.push((site.index, "not in the formula"));
    }
    if let Some(each) = tally.total(seen.graph).exact_div(&tokens) {
        tally.also.push(("per token".to_owned(), each));
    }
    Ok(tally)
}

/// How many tokens a pass takes: the indices that come from an input and look up a table.
fn tokens(seen: &Seen) -> Option<Dim> {
    let found = seen.sites().find(|site| is_token_lookup(site));
    found.map(|site| site.input_elements(1))
}

fn is_token_lookup(site: &Site) -> bool {
    crate::cost::active::is_token_lookup(site.graph, site.node)
}

/// What a parameter is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A factor of the products of this node.
    Factor(usize),
    /// A table that tokens are looked up in.
    Tokens,
    /// A table that something else is looked up in: positions, kinds of sentences.
    Table,
}

fn uses(seen: &Seen) -> HashMap<TensorId, Use> {
    let mut uses: HashMap<TensorId, Use> = HashMap::new();
    for site in seen.sites() {
        let is_lookup = site.node.op == Op::Embedding;
        let has_products = products(&site) != Dim::ZERO;
        for id in site.node.inputs.iter().take(2) {
            if seen.graph.tensor(*id).role != Role::Parameter {
                continue;
            }
            let of_site = match (has_products, is_lookup) {
                (true, _) => Use::Factor(site.index),
                (false, true) if is_token_lookup(&site) => Use::Tokens,
                (false, true) => Use::Table,
                (false, false) => continue,
            };
            let is_first = uses.get(id).is_none_or(|known| !matches!(known, Use::Factor(_)));
            if is_first {
                uses.insert(*id, of_site);
            }
        }
    }
    uses
}

/// 6 per parameter and token, of the parameters that the formula's N holds.
fn weights(convention: Convention, seen: &Seen, tokens: &Dim) -> Tally {
    let uses = uses(seen);
    let looked_up: Vec<TensorId> = seen
        .sites()
        .filter(|site| site.node.op == Op::Embedding)
        .filter_map(|site| site.node.inputs.first().copied())
        .collect();
    let mut tally = Tally::default();
    for (index, tensor) in seen.graph.tensors.iter().enumerate() {
        let id = TensorId(index);
        let Some(known) = tensor.tensor_type.as_ref() else { continue };
        if tensor.role != Role::Parameter {
            continue;
        }
        let used = uses.get(&id).copied();
        let is_left_out = (convention == Convention::Nanogpt && used == Some(Use::Table))
            || (convention == Convention::Torchtitan && looked_up.contains(&id));
        if is_left_out {
            continue;
        }
        let visited = match (convention, used) {
            (Convention::Torchtitan, Some(Use::Factor(node))) => visits(&seen.site(node)),
            _ => None,
        };
        let each = visited.unwrap_or_else(|| &known.shape.elements() * tokens);
        let amount = &each * &Dim::from(6);
        let term = match used {
            Some(Use::Factor(node)) => {
                let rule = "6 per weight and token, as if every layer saw every token";
                (Some(node), Term::products("weights", rule, amount))
            }
            Some(Use::Tokens | Use::Table) => {
                let rule = "6 per entry and token, though entries are looked up, not multiplied";
                (None, Term::beside("embedding tables", rule, amount))
            }
            None => {
                let rule = "6 per parameter and token, though they are not part of products";
                (None, Term::beside("biases, norms and the like", rule, amount))
            }
        };
        tally.terms.push(term);
    }
    tally
}

/// Weights times tokens that visit them, of a stack of experts: torchtitan counts those that compute a
/// token (`get_moe_model_nparams_and_flops`).
fn visits(site: &Site) -> Option<Dim> {
    let Op::GroupedMatMul { .. } = site.node.op else { return None };
    let (rows, stack) = (site.input(0)?.0.first()?, site.input(1)?);
    Some(&stack.elements().exact_div(stack.0.first()?)? * rows)
}

/// What Megatron counts besides core attention.
fn megatron(seen: &Seen) -> Tally {
    let routers = routers(seen.graph);
    let mut tally = gemms(seen, &routers);
    latent_norms(seen, &mut tally);
    for index in routers {
        tally.misses.push((index, "routers are not in the formula"));
    }
    tally
}

/// The products whose results choose experts: what a `topk` reads, but for functions and corrections
/// in between.
fn routers(graph: &Graph) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut waiting: Vec<TensorId> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::TopK { .. }))
        .filter_map(|node| node.inputs.first().copied())
        .collect();
    while let Some(id) = waiting.pop() {
        let Some(producer) = graph.tensor(id).producer.filter(|at| seen.insert(*at)) else {
            continue;
        };
        let node = &graph.nodes[producer.0];
        let passes_on = matches!(node.op, Op::Elementwise(_) | Op::Softmax { .. } | Op::Cast(_));
        if matches!(node.op, Op::MatMul(_)) {
            found.push(producer.0);
        } else if passes_on || node.op.is_view() {
            waiting.extend(node.inputs.iter().copied());
        }
    }
    found.sort_unstable();
    found
}

/// Norms that Megatron counts as a product of one row each: those of the latents of MLA, and the three
/// of each module that predicts a further token.
fn latent_norms(seen: &Seen, tally: &mut Tally) {
    const COUNTED: &[&str] =
        &[".q_a_layernorm", ".kv_a_layernorm", ".enorm", ".hnorm", ".shared_head.norm"];
    for site in seen.sites().filter(|site| matches!(site.node.op, Op::Normalization(_))) {
        let path = site.node.module.as_deref().unwrap_or("");
        if COUNTED.iter().any(|end| path.ends_with(end)) {
            let amount = &site.input_elements(0) * &Dim::from(6);
            let term = Term::beside("norms of latents", "3 passes x 2 per element", amount);
            tally.terms.push((Some(site.index), term));
        }
    }
}

/// Twice the pairs that Megatron takes: all for two halves, or exactly those of a window shorter than
/// the sequence.
fn twice_megatron_pairs(op: &Attention, queries: &Dim, keys: &Dim) -> Dim {
    let all = queries * keys;
    let Mask::Band(Band { left: Some(left), right: Some(right), .. }) = &op.mask else {
        return all;
    };
    if *right != Dim::ZERO {
        return all;
    }
    // w of each query less the triangle before the first w; w (w - 1), or w^2 where w is all keys.
    let window = left + &Dim::ONE;
    let seen = window.minimum(keys);
    let is_shorter = &(&window + &Dim::ONE).minimum(keys) - &seen;
    let triangle = &(&seen * &seen) - &(&seen * &is_shorter);
    &(&(&seen * queries) * &Dim::from(2)) - &triangle
}

/// 6 per multiply-accumulate of products with weights.
fn gemms(seen: &Seen, left_out: &[usize]) -> Tally {
    let mut tally = Tally::default();
    for site in seen.sites().filter(|site| !left_out.contains(&site.index)) {
        let is_weight = |id: &TensorId| seen.graph.tensor(*id).role == Role::Parameter;
        let macs = products(&site);
        if macs != Dim::ZERO && site.node.inputs.iter().take(2).any(is_weight) {
            let rule = "3 passes x 2 x multiply-accumulates";
            let term = Term::products("GEMMs with weights", rule, &macs * &Dim::from(6));
            tally.terms.push((Some(site.index), term));
        }
    }
    tally
}

/// 3 passes x heads x (d_qk + d_v) x twice the pairs.
fn megatron_core(site: &Site) -> Option<Dim> {
    let Op::Attention(op) = &site.node.op else { return None };
    let ([.., queries, _], [.., keys, _]) =
        (site.input(0)?.0.as_slice(), site.input(1)?.0.as_slice())
    else {
        return None;
    };
    let every = products(site);
    let twice = twice_megatron_pairs(op, queries, keys);
    let per_pair = every.exact_div(&(queries * keys))?;
    Some(&(&per_pair * &twice) * &Dim::from(3))
}

/// 12 H Q T per token and layer; Megatron takes half of all pairs, whatever the mask. Returns how many
/// attentions there are.
fn attention(
    convention: Convention,
    seen: &Seen,
    tokens: &Dim,
    tally: &mut Tally,
) -> Result<usize, String> {
    let mut n_layers = 0;
    for site in seen.sites().filter(|site| matches!(site.node.op, Op::Attention(_))) {
        let ([.., heads, _, size], [.., keys, _]) = (
            site.input(0).map_or(&[][..], |shape| &shape.0),
            site.input(1).map_or(&[][..], |shape| &shape.0),
        ) else {
            return Err("the heads of an attention cannot be told from its operands".to_owned());
        };
        n_layers += 1;
        let term = if convention == Convention::Megatron {
            let rule = "3 passes x 2 x multiply-accumulates, of s^2 / 2 pairs or of a window's";
            Term::products("core attention", rule, megatron_core(&site).unwrap_or_default())
        } else {
            let rule = "12 H Q T per token, every pair";
            let each = &(&(heads * size) * keys) * &Dim::from(12);
            Term::products("attention", rule, &each * tokens)
        };
        tally.terms.push((Some(site.index), term));
    }
    Ok(n_layers)
}
