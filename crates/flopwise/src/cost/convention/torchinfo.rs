//! torchinfo 1.8: for every module without children, its parameters times the sizes of its result
//! (torchinfo/layer_info.py, `calculate_macs`). It does not look at what the module computes.

use super::seen::{Seen, Site, products};
use super::{Tally, Term};
use crate::graph::{Dim, Role, Shape, TensorId};
use std::collections::HashSet;

const NO_PARAMETERS: &str = "its operands are no parameters of a module without children";

pub(super) fn tally(seen: &Seen) -> Tally {
    let mut tally = Tally::default();
    let with_children = with_children(seen);
    let sites: Vec<Site> = seen.sites().collect();
    // The nodes of one call stand together: nothing else runs inside a module without children.
    for call in sites.chunk_by(|a, b| a.node.module == b.node.module) {
        let path = call[0].node.module.as_deref().unwrap_or("");
        let mut counted = None;
        if !with_children.contains(path)
            && let Some((node_idx, term)) = layer(call)
        {
            counted = Some(node_idx);
            tally.terms.push((Some(node_idx), term));
        }
        for site in call {
            if counted != Some(site.index) {
                tally.misses.push((site.index, NO_PARAMETERS));
            }
        }
    }
    tally
}

/// Paths that have modules below them: those of nodes, and those that parameters name.
fn with_children<'g>(seen: &Seen<'g>) -> HashSet<&'g str> {
    let mut parents = HashSet::new();
    let add = |parents: &mut HashSet<&'g str>, path: &'g str| {
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('.') {
            parents.insert(parent);
            rest = parent;
        }
        if !path.is_empty() {
            parents.insert("");
        }
    };
    for (path, class) in &seen.graph.modules {
        add(&mut parents, path);
        // A norm with an activation below it, which leaves no node where it does nothing.
        if class.starts_with("timm.layers.norm_act.") {
            parents.insert(&**path);
        }
    }
    for tensor in seen.graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter) {
        if let Some((module, _)) = tensor.name.rsplit_once('.') {
            add(&mut parents, module);
        }
    }
    parents
}

/// The figure of one call, and the node whose products it stands for.
fn layer(call: &[Site]) -> Option<(usize, Term)> {
    let class = call[0].class?.rsplit('.').next()?;
    let output = call.last()?.output()?;
    let mut parameters: Vec<TensorId> = Vec::new();
    for id in call.iter().flat_map(|site| &site.node.inputs) {
        if call[0].graph.tensor(*id).role == Role::Parameter && !parameters.contains(id) {
            parameters.push(*id);
        }
    }
    let product = call.iter().find(|site| products(site) != Dim::ZERO);
    let is_convolution = class.contains("Conv");
    let mut amount = Dim::ZERO;
    let mut rule = "parameters x first axis of the result";
    for id in parameters {
        let tensor = call[0].graph.tensor(id);
        let size = tensor.tensor_type.as_ref()?.shape.elements();
        let name = tensor.name.rsplit('.').next().unwrap_or(&tensor.name);
        let times = match name {
            "weight" | "bias" if is_convolution => {
                rule = "parameters x positions of the result";
                &axes(output, 0, 1) * &axes(output, 2, usize::MAX)
            }
            "weight" | "bias" => axes(output, 0, 1),
            _ if name.contains("weight") || name.contains("bias") => {
                rule = "parameters x first two axes of the result";
                axes(output, 0, 2)
            }
            _ => continue,
        };
        amount = &amount + &(&size * &times);
    }
    if amount == Dim::ZERO {
        return None;
    }
    let what = class.to_owned();
    Some(match product {
        Some(site) => (site.index, Term::products(what, rule, amount)),
        None => (call[0].index, Term::beside(what, rule, amount)),
    })
}

fn axes(shape: &Shape, first: usize, end: usize) -> Dim {
    Dim::product(shape.0.iter().take(end).skip(first))
}
