//! Operators that hold other graphs: `If`, and what it shares with loops (`rounds.rs`). They leave
//! no trace in the graph; what runs inside is inserted as if it stood outside. Where only the run
//! knows the condition, both branches are inserted and a [`Choice`] says so.
//!
//! Not here: sequences and optionals (`sequence.rs`), functions (`function.rs`).

use super::value::Scalar;
use super::walk::{Inputs, Origin, Walk, Wire};
use super::wire::{GraphProto, NodeProto};
use crate::error::Error;
use crate::graph::{Choice, Dim, Op, Role, Shape, Symbol, TensorType};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

impl<'a> Walk<'a> {
    /// Whether the node was one of those and is dealt with.
    pub(super) fn control(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        match node.op_type.as_str() {
            "If" => self.branch(node, node_idx, inputs, folder),
            "Loop" => self.repeat(node, node_idx, inputs, folder),
            "Scan" => self.scan(node, node_idx, inputs, folder),
            "SequenceMap" => self.sequence_map(node, node_idx, inputs, folder),
            _ => self.sequence(node, node_idx, inputs),
        }
    }

    /// The only element of an input, when it is known.
    pub(super) fn known(&self, inputs: &Inputs, slot: usize) -> Option<i128> {
        let wire_idx = inputs.get(slot).copied().flatten()?;
        self.wires[wire_idx].value.as_ref()?.single().and_then(Scalar::as_i128)
    }

    /// Inlines the branch that is taken, or both.
    fn branch(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let branches = ["then_branch", "else_branch"].map(|name| (name, subgraph(node, name)));
        let [(_, Some(then)), (_, Some(otherwise))] = branches else { return Ok(false) };
        if [then, otherwise].iter().any(|graph| graph.output.len() != node.output.len()) {
            return Ok(false);
        }
        if let Some(condition) = self.known(inputs, 0) {
            let taken = if condition == 0 { otherwise } else { then };
            let results = self.inner(taken, &[], folder)?;
            self.tally.n_evaluated += 1;
            self.point_all(node, results)?;
            return Ok(true);
        }
        let name = self.unique_name(node, node_idx);
        let first = self.builder.n_nodes();
        let of_then = self.inner(then, &[], folder)?;
        let between = self.builder.n_nodes();
        let of_else = self.inner(otherwise, &[], folder)?;
        let end = self.builder.n_nodes();
        let branches = vec![("then_branch", first..between), ("else_branch", between..end)];
        self.builder.choice(Choice { name: name.clone(), branches });
        for (slot, output) in node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            let joined = self.join(node, output, of_then[slot], of_else[slot])?;
            self.point(output, joined)?;
        }
        Ok(true)
    }

    /// Goes through an inner graph whose inputs are these wires; the wires of its outputs.
    pub(super) fn inner(
        &mut self,
        graph: &'a GraphProto,
        inputs: &[usize],
        folder: &Path,
    ) -> Result<Vec<usize>, Error> {
        self.functions.enter(&graph.node)?;
        self.scopes.push(HashMap::new());
        for (input, wire_idx) in graph.input.iter().zip(inputs) {
            self.point(&input.name, *wire_idx)?;
        }
        self.add_stored(graph, folder)?;
        self.run(&graph.node, folder)?;
        let results = self.results(graph)?;
        self.scopes.pop();
        self.functions.leave();
        Ok(results)
    }

    fn results(&self, graph: &GraphProto) -> Result<Vec<usize>, Error> {
        let missing =
            |name: &String| Error::new(format!("its inner output `{name}` is made by no node"));
        let outputs = graph.output.iter().map(|output| &output.name);
        outputs.map(|name| self.lookup(name).ok_or_else(|| missing(name))).collect()
    }

    pub(super) fn point_all(
        &mut self,
        node: &'a NodeProto,
        results: Vec<usize>,
    ) -> Result<(), Error> {
        for (name, wire_idx) in node.output.iter().zip(results) {
            if !name.is_empty() {
                self.point(name, wire_idx)?;
            }
        }
        Ok(())
    }

    /// One wire for what is one value or the other. Sizes in which the two differ are new symbols,
    /// at most the larger.
    fn join(
        &mut self,
        node: &'a NodeProto,
        output: &'a str,
        first: usize,
        second: usize,
    ) -> Result<usize, Error> {
        let (a, b) = (&self.wires[first], &self.wires[second]);
        if first == second || (a.value.is_some() && a.value == b.value) {
            return Ok(first);
        }
        match (&a.origin, &b.origin) {
            (Origin::Sequence(a), Origin::Sequence(b)) if a.len() == b.len() => {
                let (a, b) = (Rc::clone(a), Rc::clone(b));
                let mut members = Vec::with_capacity(a.len());
                for (a, b) in a.iter().zip(&*b) {
                    members.push(self.join(node, output, *a, *b)?);
                }
                return Ok(self.push(Wire::new(output, Origin::Sequence(members.into()))));
            }
            (Origin::Nothing, _) | (_, Origin::Nothing) => {
                let some = if matches!(a.origin, Origin::Nothing) { second } else { first };
                return Ok(self.uncertain(output, some));
            }
            _ => {}
        }
        if let (Some(a), Some(b)) = (self.many(first), self.many(second)) {
            return Ok(self.either_sequence(output, &a, &b));
        }
        self.either(node, output, [first, second])
    }

    fn either(
        &mut self,
        node: &'a NodeProto,
        output: &'a str,
        results: [usize; 2],
    ) -> Result<usize, Error> {
        let types = results.map(|wire_idx| self.tensor_type(wire_idx).cloned());
        let joined = match &types {
            [Some(a), Some(b)] => self.common_type(output, a, b),
            _ => None,
        };
        let Some(joined) = joined else {
            let declared = self.declared_type(output);
            let id = self.builder.tensor(output, declared, Role::Activation)?;
            return Ok(self.push(Wire::new(output, Origin::Made(id))));
        };
        let mut ids = Vec::with_capacity(2);
        for (wire_idx, tensor_type) in results.into_iter().zip(types) {
            let mut id = self.tensor(wire_idx, "If", 0)?;
            if tensor_type.as_ref() != Some(&joined) {
                // The same bytes, under the size that both branches share.
                let op = Op::Restride { shape: joined.shape.clone() };
                id = self.add(node, output, op, vec![id])?;
            }
            ids.push(id);
        }
        let id = self.add(node, output, Op::Either, ids)?;
        Ok(self.push(Wire::new(output, Origin::Made(id))))
    }

    /// What two types have in common; sizes that differ are left open.
    pub(super) fn common_type(
        &mut self,
        name: &str,
        a: &TensorType,
        b: &TensorType,
    ) -> Option<TensorType> {
        if a.format != b.format || a.shape.rank() != b.shape.rank() {
            return None;
        }
        let mut joined = a.clone();
        for (axis, (length, other)) in joined.shape.0.iter_mut().zip(&b.shape.0).enumerate() {
            if length.is_equal(other) != Some(true) {
                let most = length.maximum(other);
                *length = self.open(&format!("{name}.dim{axis}"), Some(most), name);
            }
        }
        Some(joined)
    }

    /// A new symbol for a size that only the run knows.
    pub(super) fn open(&mut self, stem: &str, at_most: Option<Dim>, place: &str) -> Dim {
        let mut name = stem.to_owned();
        while self.symbols.is_known(&name) || !self.opened.insert(name.clone()) {
            name = format!("{stem}.{}", self.opened.len());
        }
        let dim = Dim::symbol(&name);
        let place = format!("`{place}`, decided at run time");
        let at_most = at_most.filter(|most| !most.is_overflow());
        self.builder.symbol(Symbol {
            name,
            aliases: Vec::new(),
            min: 0,
            max: None,
            place,
            at_most,
        });
        dim
    }

    /// Writes a tensor of this type, into which pieces made elsewhere are collected.
    pub(super) fn collect(
        &mut self,
        node: &'a NodeProto,
        output: &'a str,
        collected: Option<TensorType>,
    ) -> Result<usize, Error> {
        let id = match collected {
            Some(TensorType { shape, format }) => {
                self.add(node, output, Op::Fill { shape, format }, Vec::new())?
            }
            None => {
                let declared = self.declared_type(output);
                self.builder.tensor(output, declared, Role::Activation)?
            }
        };
        Ok(self.push(Wire::new(output, Origin::Made(id))))
    }
}

/// A type with more axes of these lengths, from `axis` on.
pub(super) fn with_axes(tensor_type: &TensorType, axis: usize, lengths: &[Dim]) -> TensorType {
    let mut shape = tensor_type.shape.0.clone();
    let axis = axis.min(shape.len());
    shape.splice(axis..axis, lengths.iter().cloned());
    TensorType { shape: Shape(shape), format: tensor_type.format }
}

pub(super) fn subgraph<'a>(node: &'a NodeProto, name: &str) -> Option<&'a GraphProto> {
    let mut attributes = node.attribute.iter().filter(|attribute| attribute.name == name);
    attributes.next()?.g.as_deref()
}
