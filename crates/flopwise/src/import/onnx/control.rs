//! Operators that hold other graphs, and sequences of tensors: `If` with a known condition, `Loop`
//! with a known number of rounds, and the sequence operators that go with them. They leave no
//! trace in the graph; what runs inside is inserted as if it stood outside.
//!
//! Not here: conditions and counts that only the run knows; such nodes stay opaque. The TorchScript
//! exporter writes `If` for shape tests and `Loop` over sequences for `tensor_split`.

use super::call::one;
use super::value::{Scalar, Value};
use super::walk::{Inputs, Origin, Walk, Wire};
use super::wire::{GraphProto, NodeProto};
use crate::error::Error;
use crate::graph::{Dim, Op};
use flopwise_formats::Format;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

/// Nodes inserted by unrolling loops, in one file.
const MAX_UNROLLED: usize = 100_000;
/// Tensors in one sequence.
const MAX_SEQUENCE: usize = 1024;

impl<'a> Walk<'a> {
    /// Whether the node was one of those above and is dealt with.
    pub(super) fn control(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        match node.op_type.as_str() {
            "If" => self.branch(node, inputs, folder),
            "Loop" => self.unroll(node, inputs, folder),
            "ConcatFromSequence" => self.concat_sequence(node, node_idx, inputs),
            operator if operator.starts_with("Sequence") => self.sequence(node, inputs),
            _ => Ok(false),
        }
    }

    /// The only element of an input, when it is known.
    fn known(&self, inputs: &Inputs, slot: usize) -> Option<i128> {
        let wire_idx = inputs.get(slot).copied().flatten()?;
        self.wires[wire_idx].value.as_ref()?.single()?.as_i128()
    }

    /// Inlines the branch that is taken.
    fn branch(
        &mut self,
        node: &'a NodeProto,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let Some(condition) = self.known(inputs, 0) else { return Ok(false) };
        let taken = if condition == 0 { "else_branch" } else { "then_branch" };
        let Some(graph) = subgraph(node, taken) else { return Ok(false) };
        if graph.output.len() != node.output.len() {
            return Ok(false);
        }
        self.scopes.push(HashMap::new());
        self.add_stored(graph, folder)?;
        self.run(graph, folder)?;
        let results = self.results(graph)?;
        self.scopes.pop();
        self.tally.n_evaluated += 1;
        self.point_all(node, results)?;
        Ok(true)
    }

    fn results(&self, graph: &GraphProto) -> Result<Vec<usize>, Error> {
        let missing = |name| Error::new(format!("its inner output `{name}` is made by no node"));
        let outputs = graph.output.iter().map(|output| &output.name);
        outputs.map(|name| self.lookup(name).ok_or_else(|| missing(name))).collect()
    }

    fn point_all(&mut self, node: &'a NodeProto, results: Vec<usize>) -> Result<(), Error> {
        for (name, wire_idx) in node.output.iter().zip(results) {
            if !name.is_empty() {
                self.point(name, wire_idx)?;
            }
        }
        Ok(())
    }

    /// Runs through the body as often as the loop would. Its inputs are the round, the condition
    /// and what each round hands to the next.
    /// <https://onnx.ai/onnx/operators/onnx__Loop.html>
    fn unroll(
        &mut self,
        node: &'a NodeProto,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let n_rounds = self.known(inputs, 0).and_then(|n_rounds| usize::try_from(n_rounds).ok());
        let begins = match inputs.get(1) {
            Some(Some(_)) => self.known(inputs, 1).map(|condition| condition != 0),
            _ => Some(true),
        };
        let (Some(n_rounds), Some(begins)) = (n_rounds, begins) else { return Ok(false) };
        let Some(body) = subgraph(node, "body") else { return Ok(false) };
        let carried: Option<Vec<usize>> = inputs.iter().skip(2).copied().collect();
        let Some(mut carried) = carried else { return Ok(false) };
        let n_carried = carried.len();
        // Results collected over all rounds would come after the carried ones.
        let is_plain = body.output.len() == n_carried + 1
            && body.input.len() == n_carried + 2
            && node.output.len() == n_carried;
        self.n_unrolled = self.n_unrolled.saturating_add(n_rounds.saturating_mul(body.node.len()));
        if !is_plain || MAX_UNROLLED < self.n_unrolled {
            return Ok(false);
        }
        self.scopes.push(HashMap::new());
        self.add_stored(body, folder)?;
        for round in 0..if begins { n_rounds } else { 0 } {
            self.scopes.push(HashMap::new());
            self.begin_round(body, round, &carried)?;
            self.run(body, folder)?;
            let results = self.results(body)?;
            self.scopes.pop();
            carried = results[1..].to_vec();
            match self.known(&vec![Some(results[0])], 0) {
                Some(0) => break,
                Some(_) => {}
                None => self.tally.is_loop_bounded = true,
            }
        }
        self.scopes.pop();
        self.tally.n_evaluated += 1;
        self.point_all(node, carried)?;
        Ok(true)
    }

    fn begin_round(
        &mut self,
        body: &'a GraphProto,
        round: usize,
        carried: &[usize],
    ) -> Result<(), Error> {
        let round = Scalar::Exact(Dim::from(round as u128));
        self.add_value(&body.input[0].name, Value::scalar(Format::INT64, round))?;
        let truth = Value::scalar(Format::BOOL, Scalar::boolean(true));
        self.add_value(&body.input[1].name, truth)?;
        for (input, wire_idx) in body.input.iter().skip(2).zip(carried) {
            self.point(&input.name, *wire_idx)?;
        }
        Ok(())
    }

    fn members(&self, inputs: &Inputs) -> Option<Rc<[usize]>> {
        match &self.wires[inputs.first().copied().flatten()?].origin {
            Origin::Sequence(members) => Some(Rc::clone(members)),
            Origin::Made(_) | Origin::Stored(..) | Origin::Known(_) => None,
        }
    }

    fn sequence(&mut self, node: &'a NodeProto, inputs: &Inputs) -> Result<bool, Error> {
        let [output] = node.output.as_slice() else { return Ok(false) };
        let members = match node.op_type.as_str() {
            "SequenceEmpty" => Some(Vec::new()),
            "SequenceConstruct" => inputs.iter().copied().collect(),
            "SequenceInsert" => self.inserted(inputs),
            "SequenceErase" => self.erased(inputs),
            "SequenceAt" => {
                let Some(member) = self.member(inputs) else { return Ok(false) };
                self.point(output, member)?;
                return Ok(true);
            }
            "SequenceLength" => {
                let Some(members) = self.members(inputs) else { return Ok(false) };
                let length = Scalar::Exact(Dim::from(members.len() as u128));
                self.add_value(output, Value::scalar(Format::INT64, length))?;
                return Ok(true);
            }
            _ => None,
        };
        let Some(members) = members.filter(|members| members.len() <= MAX_SEQUENCE) else {
            return Ok(false);
        };
        let origin = Origin::Sequence(members.into());
        self.define(Wire { name: output, origin, tensor_type: None, value: None, below: None })?;
        self.tally.n_evaluated += 1;
        Ok(true)
    }

    /// The place that input `slot` names, from the end where negative; `default` without it.
    fn place(&self, inputs: &Inputs, slot: usize, length: usize, default: usize) -> Option<usize> {
        if inputs.get(slot).copied().flatten().is_none() {
            return Some(default);
        }
        let place = self.known(inputs, slot)?;
        let place = if place < 0 { place + length as i128 } else { place };
        usize::try_from(place).ok().filter(|place| *place <= length)
    }

    fn inserted(&self, inputs: &Inputs) -> Option<Vec<usize>> {
        let mut members = self.members(inputs)?.to_vec();
        let place = self.place(inputs, 2, members.len(), members.len())?;
        members.insert(place, inputs.get(1).copied().flatten()?);
        Some(members)
    }

    fn erased(&self, inputs: &Inputs) -> Option<Vec<usize>> {
        let mut members = self.members(inputs)?.to_vec();
        let place = self.place(inputs, 1, members.len(), members.len().checked_sub(1)?)?;
        if place < members.len() {
            members.remove(place);
        }
        Some(members)
    }

    fn member(&self, inputs: &Inputs) -> Option<usize> {
        let members = self.members(inputs)?;
        let place = self.place(inputs, 1, members.len(), 0)?;
        members.get(place).copied()
    }

    fn concat_sequence(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
    ) -> Result<bool, Error> {
        let Some(members) = self.members(inputs) else { return Ok(false) };
        let inputs: Inputs = members.iter().map(|member| Some(*member)).collect();
        let slots: Vec<usize> = (0..inputs.len()).collect();
        let plan = {
            let call = self.call(node, &inputs);
            let is_stacked = call.is_set("new_axis", false);
            match call.axis("axis", 0, call.rank(0).unwrap_or(0)) {
                Ok(axis) if !is_stacked => one(Op::Concat { axis }, &slots),
                _ => return Ok(false),
            }
        };
        let name = self.unique_name(node, node_idx);
        self.insert(node, name, &inputs, plan, Vec::new())?;
        Ok(true)
    }
}

fn subgraph<'a>(node: &'a NodeProto, name: &str) -> Option<&'a GraphProto> {
    let mut attributes = node.attribute.iter().filter(|attribute| attribute.name == name);
    attributes.next()?.g.as_deref()
}
