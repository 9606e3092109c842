//! A part of a graph inserted again under another name: the layers of a model are mostly alike, and
//! copying one costs a fraction of inferring every shape again.
//!
//! Not here: which layers are alike (`arch/network.rs`).

use super::{BuildError, Builder, check_room};
use crate::graph::state::State;
use crate::graph::tensor::{Node, NodeId, Tensor, TensorId};
use std::ops::{Bound, Range};
use std::sync::Arc;

/// What one module inserted: its nodes, tensors and states.
#[derive(Clone, Debug)]
pub struct Section {
    path: String,
    nodes: Range<usize>,
    tensors: Range<usize>,
    states: Range<usize>,
    dropouts: Range<usize>,
    /// Names below the path, and their classes.
    modules: Vec<(String, Arc<str>)>,
}

impl Section {
    /// Whether it has inserted a tensor.
    #[must_use]
    pub fn holds(&self, id: TensorId) -> bool {
        self.tensors.contains(&id.0)
    }
}

/// Where a section begins, and what else there was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionStart {
    n_nodes: usize,
    n_tensors: usize,
    n_states: usize,
    n_dropouts: usize,
    /// What a section may not add to: symbols, constraints, choices, notes and disagreements.
    others: [usize; 5],
}

impl Builder {
    /// Where a section would begin.
    #[must_use]
    pub fn section_start(&self) -> SectionStart {
        let graph = &self.graph;
        SectionStart {
            n_nodes: graph.nodes.len(),
            n_tensors: graph.tensors.len(),
            n_states: graph.states.len(),
            n_dropouts: graph.dropouts.len(),
            others: [
                graph.symbols.len(),
                graph.constraints.len(),
                graph.choices.len(),
                graph.notes.len(),
                self.disagreements.len(),
            ],
        }
    }

    /// What the module at `path` has inserted since; `None` where inserting it again would not be
    /// the same: it has brought symbols or notes, or tensors that are not named below the path.
    #[must_use]
    pub fn section(&self, path: &str, start: &SectionStart) -> Option<Section> {
        let end = self.section_start();
        let graph = &self.graph;
        let is_below = |name: &str| below(path, name).is_some();
        let tensors = start.n_tensors..end.n_tensors;
        let nodes = start.n_nodes..end.n_nodes;
        let states = start.n_states..end.n_states;
        let is_whole = start.others == end.others
            && graph.tensors[tensors.clone()].iter().all(|tensor| is_below(&tensor.name))
            && graph.nodes[nodes.clone()].iter().all(|node| {
                is_below(&node.name) && node.module.as_ref().is_none_or(|module| is_below(module))
            })
            && graph.states[states.clone()].iter().all(|state| is_below(&state.module));
        let modules = graph.modules.range::<str, _>((Bound::Included(path), Bound::Unbounded));
        let modules = modules.map_while(|(name, class)| {
            name.starts_with(path).then(|| Some((below(path, name)?.to_owned(), Arc::clone(class))))
        });
        is_whole.then(|| Section {
            path: path.to_owned(),
            nodes,
            tensors,
            states,
            dropouts: start.n_dropouts..end.n_dropouts,
            modules: modules.flatten().collect(),
        })
    }

    /// Inserts a section again below `path`, reading `to` wherever it read `from`. Returns the new
    /// tensors' distance from the old ones.
    ///
    /// # Errors
    /// More nodes than a graph may have.
    pub fn replay(
        &mut self,
        section: &Section,
        path: &str,
        [from, to]: [TensorId; 2],
    ) -> Result<usize, BuildError> {
        let (n_nodes, n_tensors) = (self.graph.nodes.len(), self.graph.tensors.len());
        check_room(n_nodes + section.nodes.len())?;
        let renamed = |name: &str| {
            let rest = below(&section.path, name).unwrap_or(name);
            let mut renamed = String::with_capacity(path.len() + rest.len());
            renamed.push_str(path);
            renamed.push_str(rest);
            renamed
        };
        let (by_nodes, by_tensors) =
            (n_nodes - section.nodes.start, n_tensors - section.tensors.start);
        let moved = |id: &TensorId| match id {
            id if *id == from => to,
            id if section.tensors.contains(&id.0) => TensorId(id.0 + by_tensors),
            id => *id,
        };
        let graph = &mut self.graph;
        for tensor_idx in section.tensors.clone() {
            let tensor = &graph.tensors[tensor_idx];
            let copy = Tensor {
                name: renamed(&tensor.name),
                tensor_type: tensor.tensor_type.clone(),
                role: tensor.role,
                producer: tensor.producer.map(|node| NodeId(node.0 + by_nodes)),
                stored: tensor.stored.clone(),
            };
            graph.tensors.push(copy);
        }
        for node_idx in section.nodes.clone() {
            let node = &graph.nodes[node_idx];
            let copy = Node {
                name: renamed(&node.name),
                op: node.op.clone(),
                inputs: node.inputs.iter().map(moved).collect(),
                outputs: node.outputs.iter().map(moved).collect(),
                operator: Arc::clone(&node.operator),
                module: node.module.as_deref().map(|module| Arc::from(renamed(module))),
                line: node.line.clone(),
                repeat: node.repeat.clone(),
                in_place: node.in_place,
            };
            graph.nodes.push(copy);
        }
        for state_idx in section.states.clone() {
            let state = &graph.states[state_idx];
            let module = Arc::from(renamed(&state.module));
            let copy = State { module, ..state.clone() };
            graph.states.push(copy);
        }
        for dropout_idx in section.dropouts.clone() {
            let NodeId(node_idx) = graph.dropouts[dropout_idx];
            graph.dropouts.push(NodeId(node_idx + by_nodes));
        }
        for (name, class) in &section.modules {
            graph.modules.insert(Arc::from(format!("{path}{name}")), Arc::clone(class));
        }
        Ok(by_tensors)
    }

    /// Names and ids of the tensors that a section's copy brought, by their distance from its own.
    pub fn copies<'a>(
        &'a self,
        section: &Section,
        distance: usize,
    ) -> impl Iterator<Item = (TensorId, &'a Tensor)> {
        let ids = section.tensors.clone().map(move |tensor_idx| TensorId(tensor_idx + distance));
        ids.map(|id| (id, self.get(id)))
    }
}

/// What follows a module's path in a name: nothing, or a dot and a name.
fn below<'a>(path: &str, name: &'a str) -> Option<&'a str> {
    let rest = name.strip_prefix(path)?;
    // `layers.1` is no part of `layers.10`, but `layers.1_2` is its third unnamed operator.
    (rest.is_empty() || rest.starts_with(['.', '_'])).then_some(rest)
}

#[cfg(test)]
mod tests {
    use crate::graph::{Builder, Function, Op, Role, Shape, Symbol, TensorType};
    use flopwise_formats::Format;

    fn fp32(lengths: &[i64]) -> Option<TensorType> {
        Some(TensorType { shape: Shape::of(lengths), format: Format::FP32 })
    }

    #[test]
    fn a_section_is_inserted_again() {
        let mut builder = Builder::new("two layers");
        let x = builder.tensor("x", fp32(&[4, 8]), Role::Input).unwrap();
        let start = builder.section_start();
        let w = builder.tensor("layers.1.w", fp32(&[4, 8]), Role::Parameter).unwrap();
        let y = builder.apply("layers.1.add", Op::Elementwise(Function::Add), &[x, w]).unwrap()[0];
        builder.module("layers.1".into(), "Layer".into());
        let section = builder.section("layers.1", &start).unwrap();
        let distance = builder.replay(&section, "layers.10", [x, y]).unwrap();
        let names: Vec<&str> =
            builder.copies(&section, distance).map(|(_, tensor)| tensor.name.as_str()).collect();
        assert_eq!(names, ["layers.10.w", "layers.10.add"]);
        let graph = builder.finish(vec![x], vec![y]);
        assert_eq!(graph.nodes[1].inputs[0], y);
        assert_eq!(graph.nodes[1].outputs[0].0, y.0 + distance);
        assert_eq!(graph.tensor(graph.nodes[1].outputs[0]).producer.map(|node| node.0), Some(1));
        assert_eq!(
            graph.modules.keys().map(|path| &**path).collect::<Vec<_>>(),
            ["layers.1", "layers.10"]
        );
    }

    #[test]
    fn what_is_named_elsewhere_or_brings_a_symbol_is_no_section() {
        let mut builder = Builder::new("others");
        let start = builder.section_start();
        builder.tensor("shared.w", fp32(&[4]), Role::Parameter).unwrap();
        assert!(builder.section("layers.0", &start).is_none());
        let start = builder.section_start();
        builder.tensor("layers.10.w", fp32(&[4]), Role::Parameter).unwrap();
        assert!(builder.section("layers.1", &start).is_none());
        assert!(builder.section("layers.10", &start).is_some());
        builder.symbol(Symbol {
            name: "n".to_owned(),
            aliases: Vec::new(),
            min: 1,
            max: None,
            place: "nowhere".to_owned(),
            at_most: None,
        });
        assert!(builder.section("layers.10", &start).is_none());
    }
}
