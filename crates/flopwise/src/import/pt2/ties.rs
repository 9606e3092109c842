//! Tied weights of PyTorch 2.8, which the file does not tell.
//!
//! Not here: versions that say which weights share their bytes.

use super::input_names;
use super::schema::GraphJson;
use crate::graph::Role;
use std::collections::{HashMap, HashSet};

/// PyTorch 2.8 writes nothing about tied weights, but lets every node read one of the two names: a
/// parameter that nothing reads, of the shape of one that is both embedding table and linear
/// weight, is its twin.
pub(super) fn unused_twins<'a>(
    graph: &'a GraphJson<'a>,
    stored: &HashMap<&str, (Role, &str)>,
) -> Vec<&'a str> {
    let weights_of = |target: &str| -> HashSet<&str> {
        let nodes = graph.nodes.iter().filter(|node| node.target.contains(target));
        let arguments = nodes.flat_map(|node| &node.inputs);
        let weights = arguments.filter(|argument| argument.name == "weight");
        weights.filter_map(|weight| weight.arg.as_tensor()).map(|t| &*t.name).collect()
    };
    let tables = weights_of("aten.embedding.");
    let heads = weights_of("aten.linear.");
    let sizes = |name: &str| {
        let meta = graph.tensor_values.get(name)?;
        Some(meta.sizes.iter().map(|size| size.as_int).collect::<Vec<_>>())
    };
    let tied: Vec<_> = tables.intersection(&heads).filter_map(|name| sizes(name)).collect();
    if tied.is_empty() {
        return Vec::new();
    }
    let arguments = graph.nodes.iter().flat_map(|node| &node.inputs);
    let read: HashSet<&str> = arguments.flat_map(|argument| input_names(&argument.arg)).collect();
    let inputs = graph.inputs.iter().flat_map(input_names);
    let parameters = inputs.filter(|name| stored.get(name).is_some_and(|s| s.0 == Role::Parameter));
    let unread = parameters.filter(|name| !read.contains(name));
    unread.filter(|name| sizes(name).is_some_and(|sizes| tied.contains(&sizes))).collect()
}
