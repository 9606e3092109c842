//! `Loop` and `Scan`: the body is gone through once and its nodes repeat as often as the loop runs,
//! which may be a number, a size of the inputs, or a symbol that only the run knows. Where sizes
//! change from round to round and the rounds are few, each round is inserted on its own.
//!
//! Not here: branches (`control.rs`). Operators: <https://onnx.ai/onnx/operators/onnx__Loop.html>,
//! <https://onnx.ai/onnx/operators/onnx__Scan.html>.

use super::control::{subgraph, with_axes};
use super::sequence::Many;
use super::value::{Scalar, Value};
use super::walk::{Inputs, Origin, Walk, Wire};
use super::wire::{GraphProto, NodeProto};
use crate::error::Error;
use crate::graph::{Dim, MAX_DIM, Op, ROUNDS, Role, Shape, TensorType, axis_of};
use flopwise_formats::Format;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

/// Nodes inserted by loops whose rounds are inserted one by one, in one file.
const MAX_UNROLLED: usize = 100_000;
/// How often a body is gone through to find what stays the same from round to round.
const MAX_ATTEMPTS: usize = 4;

/// A body and what goes into each round, in the order of its inputs.
struct Rounds<'a, 'p> {
    node: &'a NodeProto,
    body: &'a GraphProto,
    /// Before the values handed from round to round: the round and the condition of a `Loop`.
    lead: Vec<Entry>,
    /// Wires of those values before the first round.
    carried: Vec<usize>,
    /// After them: the slices that a `Scan` takes.
    trail: Vec<Entry>,
    /// Results of the body before those that are handed on: the condition of a `Loop`.
    n_before: usize,
    folder: &'p Path,
}

/// What a round gets that comes from no other round.
#[derive(Clone)]
enum Entry {
    Tensor(Option<TensorType>),
    Value(Value),
}

/// What is known about a value handed from round to round.
#[derive(Clone)]
enum Carry {
    /// It never changes.
    Same,
    /// A tensor of this type, but for the sizes along these axes, which change.
    Tensor(Option<TensorType>, BTreeSet<usize>),
    /// A sequence.
    Sequence(Many),
}

/// A body gone through.
struct Once {
    results: Vec<usize>,
    carries: Vec<Carry>,
    first_node: usize,
}

/// How often a loop runs.
enum Count {
    Exactly(Dim),
    /// Only the run knows; at most so often.
    Open(Option<Dim>),
}

impl<'a> Walk<'a> {
    /// Inputs: most rounds, condition, carried values. The body takes the round, the condition and
    /// those values; it gives the condition, the values, and what is collected over all rounds.
    pub(super) fn repeat(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let Some(body) = subgraph(node, "body") else { return Ok(false) };
        let carried: Option<Vec<usize>> = inputs.iter().skip(2).copied().collect();
        let Some(carried) = carried else { return Ok(false) };
        let n_carried = carried.len();
        let fits = body.input.len() == n_carried + 2 && n_carried < body.output.len();
        if !fits || body.output.len() - 1 < node.output.len() {
            return Ok(false);
        }
        let declared = body.input[0].r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let rank = declared.and_then(|t| t.shape.as_ref()).map_or(0, |shape| shape.dim.len());
        let round = TensorType { shape: Shape(vec![Dim::ONE; rank.min(1)]), format: Format::INT64 };
        let goes_on = Value::scalar(Format::BOOL, Scalar::boolean(true));
        let lead = vec![Entry::Tensor(Some(round)), Entry::Value(goes_on)];
        let rounds = Rounds { node, body, lead, carried, trail: Vec::new(), n_before: 1, folder };
        let start = self.checkpoint();
        let name = self.unique_name(node, node_idx);
        let once = self.once(&rounds)?;
        let count = self.count(inputs, once.results[0]);
        if self.is_better_unrolled(&once) && self.unroll(&rounds, &count, &start)? {
            return Ok(true);
        }
        // Unrolling may have been tried in vain.
        let (once, name) = match self.builder.n_nodes() == once.first_node {
            true => (self.once(&rounds)?, name),
            false => (once, name),
        };
        let count = match count {
            Count::Exactly(count) => count,
            Count::Open(at_most) => {
                self.tally.is_loop_bounded |= at_most.is_some();
                self.open(&format!("{name}{ROUNDS}"), at_most, &name)
            }
        };
        self.builder.multiply_repeat(once.first_node, &count);
        self.hand_out(&rounds, &once, &count)?;
        let collected = node.output.iter().enumerate().skip(n_carried);
        for (slot, output) in collected.filter(|(_, output)| !output.is_empty()) {
            let piece = self.tensor_type(once.results[slot + 1]).cloned();
            let all = piece.map(|piece| with_axes(&piece, 0, std::slice::from_ref(&count)));
            let wire_idx = self.collect(node, output, all)?;
            self.point(output, wire_idx)?;
        }
        Ok(true)
    }

    /// How often a `Loop` runs whose body gives this condition.
    fn count(&self, inputs: &Inputs, condition: usize) -> Count {
        let given = |slot: usize| inputs.get(slot).copied().flatten();
        let most = given(0).map(|wire_idx| {
            let value = self.wires[wire_idx].value.as_ref().and_then(Value::single);
            value.and_then(Scalar::exact).map(|most| most.maximum(&Dim::ZERO))
        });
        let begins = match given(1) {
            Some(_) => self.known(inputs, 1).map(|condition| condition != 0),
            None => Some(true),
        };
        let goes_on = self.known(&vec![Some(condition)], 0).map(|condition| condition != 0);
        // A limit beyond any size is how exporters write "no limit".
        let limit = |most: &Option<Option<Dim>>| {
            let most = most.clone().flatten();
            most.filter(|most| most.as_constant().is_none_or(|number| number <= MAX_DIM))
        };
        match (begins, goes_on, &most) {
            (Some(false), ..) => Count::Exactly(Dim::ZERO),
            (Some(true), Some(false), None) => Count::Exactly(Dim::ONE),
            (Some(true), Some(false), Some(Some(most))) => Count::Exactly(most.minimum(&Dim::ONE)),
            (_, Some(false), _) => Count::Open(Some(Dim::ONE)),
            (Some(true), Some(true), Some(Some(most))) => Count::Exactly(most.clone()),
            _ => Count::Open(limit(&most)),
        }
    }

    /// Goes through the body until what it hands on has the types it was given.
    fn once(&mut self, rounds: &Rounds<'a, '_>) -> Result<Once, Error> {
        let n_lead = rounds.lead.len();
        let mut carries = Vec::with_capacity(rounds.carried.len());
        for (slot, wire_idx) in rounds.carried.iter().enumerate() {
            let input = &rounds.body.input[n_lead + slot].name;
            let output = &rounds.body.output[rounds.n_before + slot].name;
            carries.push(match (is_passed_through(rounds.body, input, output), *wire_idx) {
                (true, _) => Carry::Same,
                (false, wire_idx) => match self.many(wire_idx) {
                    Some(mut many) => {
                        many.length = self.open(&format!("{input}.length"), None, input);
                        Carry::Sequence(many)
                    }
                    None => Carry::Tensor(self.tensor_type(wire_idx).cloned(), BTreeSet::new()),
                },
            });
        }
        for attempt in 1.. {
            let start = self.checkpoint();
            let first_node = self.builder.n_nodes();
            let entries = self.entries(rounds, &carries)?;
            let results = self.inner(rounds.body, &entries, rounds.folder)?;
            let is_last = MAX_ATTEMPTS <= attempt;
            let is_stable = self.widen(rounds, &mut carries, &results, is_last);
            if is_stable || MAX_ATTEMPTS < attempt {
                return Ok(Once { results, carries, first_node });
            }
            self.rewind(start);
        }
        unreachable!("the last attempt returns")
    }

    fn entries(&mut self, rounds: &Rounds<'a, '_>, carries: &[Carry]) -> Result<Vec<usize>, Error> {
        let mut wires = Vec::with_capacity(rounds.body.input.len());
        let n_lead = rounds.lead.len();
        for (slot, input) in rounds.body.input.iter().enumerate() {
            let name = input.name.as_str();
            let entry = if slot < n_lead {
                rounds.lead[slot].clone()
            } else if let Some(carry) = carries.get(slot - n_lead) {
                match carry {
                    Carry::Same => {
                        wires.push(rounds.carried[slot - n_lead]);
                        continue;
                    }
                    Carry::Sequence(many) => {
                        let origin = Origin::Many(Rc::new(many.clone()));
                        wires.push(self.push(Wire::new(name, origin)));
                        continue;
                    }
                    Carry::Tensor(tensor_type, _) => Entry::Tensor(tensor_type.clone()),
                }
            } else {
                rounds.trail[slot - n_lead - carries.len()].clone()
            };
            let wire = match entry {
                Entry::Tensor(tensor_type) => {
                    let id = self.builder.tensor(name, tensor_type, Role::Activation)?;
                    Wire::new(name, Origin::Made(id))
                }
                Entry::Value(value) => Wire::of_value(name, value),
            };
            wires.push(self.push(wire));
        }
        Ok(wires)
    }

    /// Leaves open what the body changes; whether nothing had to be.
    fn widen(
        &mut self,
        rounds: &Rounds<'a, '_>,
        carries: &mut [Carry],
        results: &[usize],
        is_last: bool,
    ) -> bool {
        let mut is_stable = true;
        for (slot, carry) in carries.iter_mut().enumerate() {
            let result = results[rounds.n_before + slot];
            match carry {
                Carry::Same => {}
                Carry::Tensor(expected, open) => {
                    let Some(known) = expected else { continue };
                    let found = self.tensor_type(result).cloned();
                    let fits = found.as_ref().filter(|found| {
                        found.format == known.format && found.shape.rank() == known.shape.rank()
                    });
                    let Some(found) = fits.filter(|_| !is_last) else {
                        is_stable &= found.as_ref() == Some(known);
                        if found.as_ref() != Some(known) {
                            *expected = None;
                        }
                        continue;
                    };
                    let name = &rounds.body.input[rounds.lead.len() + slot].name;
                    for (axis, length) in known.shape.0.iter_mut().enumerate() {
                        if length != &found.shape.0[axis] && open.insert(axis) {
                            *length = self.open(&format!("{name}.dim{axis}"), None, name);
                            is_stable = false;
                        }
                    }
                }
                Carry::Sequence(expected) => {
                    let found = self.many(result).and_then(|many| many.element);
                    if expected.element != found {
                        let both = expected.element.take().zip(found.clone());
                        let name = &rounds.body.input[rounds.lead.len() + slot].name;
                        let is_empty = self
                            .many(rounds.carried[slot])
                            .is_some_and(|many| many.length == Dim::ZERO);
                        expected.element = match both {
                            Some((a, b)) if !is_last => self.common_type(name, &a, &b),
                            None if is_empty && !is_last => found,
                            _ => None,
                        };
                        is_stable = false;
                    }
                }
            }
        }
        is_stable
    }

    /// Whether the rounds differ in what could be known of each.
    fn is_better_unrolled(&self, once: &Once) -> bool {
        let changes = |carry: &Carry| match carry {
            Carry::Same => false,
            Carry::Tensor(tensor_type, open) => tensor_type.is_none() || !open.is_empty(),
            Carry::Sequence(_) => true,
        };
        once.carries.iter().any(changes) || self.builder.has_opaque(once.first_node)
    }

    /// Inserts each round, if they are few and none may be the last by surprise.
    fn unroll(
        &mut self,
        rounds: &Rounds<'a, '_>,
        count: &Count,
        start: &super::walk::Checkpoint,
    ) -> Result<bool, Error> {
        let Count::Exactly(count) = count else { return Ok(false) };
        let count = count.as_constant().and_then(|count| usize::try_from(count).ok());
        let Some(count) = count else { return Ok(false) };
        let n_nodes = count.saturating_mul(rounds.body.node.len().max(1));
        if MAX_UNROLLED < self.n_unrolled.saturating_add(n_nodes) {
            return Ok(false);
        }
        self.n_unrolled += n_nodes;
        self.rewind(*start);
        let (body, node) = (rounds.body, rounds.node);
        let mut carried = rounds.carried.clone();
        let mut collected: Vec<Option<usize>> = vec![None; body.output.len() - 1 - carried.len()];
        for round in 0..count {
            let round = Scalar::Exact(Dim::from(round as u128));
            let round = match &rounds.lead[0] {
                Entry::Tensor(Some(known)) if known.shape.rank() == 1 => {
                    Value::new(Format::INT64, vec![1], vec![round])
                }
                Entry::Tensor(_) | Entry::Value(_) => Some(Value::scalar(Format::INT64, round)),
            };
            let Some(round) = round else { return Ok(false) };
            let round = Wire::of_value(&body.input[0].name, round);
            let truth = Value::scalar(Format::BOOL, Scalar::boolean(true));
            let truth = Wire::of_value(&body.input[1].name, truth);
            let mut entries = vec![self.push(round), self.push(truth)];
            entries.extend(&carried);
            let results = self.inner(body, &entries, rounds.folder)?;
            let (handed_on, pieces) = results[1..].split_at(carried.len());
            carried = handed_on.to_vec();
            collected = pieces.iter().map(|piece| Some(*piece)).collect();
        }
        self.tally.n_evaluated += 1;
        let (of_carried, of_collected) = node.output.split_at(carried.len().min(node.output.len()));
        for (output, wire_idx) in of_carried.iter().zip(carried).filter(|(o, _)| !o.is_empty()) {
            self.point(output, wire_idx)?;
        }
        for (output, piece) in of_collected.iter().zip(collected).filter(|(o, _)| !o.is_empty()) {
            let piece = piece.and_then(|piece| self.tensor_type(piece)).cloned();
            let all = piece.map(|piece| with_axes(&piece, 0, &[Dim::from(count as u128)]));
            let wire_idx = self.collect(node, output, all)?;
            self.point(output, wire_idx)?;
        }
        Ok(true)
    }

    /// What the values handed from round to round are after the last one.
    fn hand_out(&mut self, rounds: &Rounds<'a, '_>, once: &Once, count: &Dim) -> Result<(), Error> {
        let outputs = rounds.node.output.iter().zip(&once.carries).enumerate();
        for (slot, (output, carry)) in outputs.filter(|(_, (output, _))| !output.is_empty()) {
            let (before, result) = (rounds.carried[slot], once.results[rounds.n_before + slot]);
            let after = match carry {
                _ if *count == Dim::ZERO => before,
                Carry::Same => before,
                Carry::Tensor(None, _) => self.collect(rounds.node, output, None)?,
                Carry::Tensor(Some(_), open) if open.is_empty() => self.plain(output, result)?,
                Carry::Tensor(Some(inside), open) => {
                    let first = self.tensor_type(before).cloned();
                    let last = self.tensor_type(result).cloned();
                    let (Some(first), Some(mut last)) = (first, last) else { continue };
                    for axis in open {
                        let [a, b, c] = [&first, inside, &last].map(|t| t.shape.0[*axis].clone());
                        last.shape.0[*axis] = self.grown(output, [&a, &b, &c], count);
                    }
                    let id = self.tensor(result, "Loop", 0)?;
                    let op = Op::Restride { shape: last.shape };
                    let id = self.add(rounds.node, output, op, vec![id])?;
                    self.push(Wire::new(output, Origin::Made(id)))
                }
                Carry::Sequence(inside) => {
                    let lengths = [self.many(before), self.many(result)];
                    let [Some(first), Some(last)] = lengths else { continue };
                    let lengths = [&first.length, &inside.length, &last.length];
                    let length = self.grown(output, lengths, count);
                    let element = last.element;
                    let origin = Origin::Many(Rc::new(Many { element, length }));
                    self.push(Wire::new(output, origin))
                }
            };
            self.point(output, after)?;
        }
        Ok(())
    }

    /// The result of the last round, whose elements are not those of one round for certain.
    fn plain(&mut self, output: &'a str, result: usize) -> Result<usize, Error> {
        let id = self.tensor(result, "Loop", 0)?;
        Ok(self.push(Wire::new(output, Origin::Made(id))))
    }

    /// A size after so many rounds that was `first` before them and of which each round makes
    /// `after` out of `inside`: it grows by the same amount each time, or only the run knows.
    fn grown(&mut self, name: &str, [first, inside, after]: [&Dim; 3], count: &Dim) -> Dim {
        let step = after - inside;
        let own = inside.symbols();
        if step.symbols().iter().any(|symbol| own.contains(symbol)) {
            return self.open(&format!("{name}.last"), None, name);
        }
        let last = first + &(&step * count);
        let shrinks = step.as_constant().is_some_and(|step| step < 0);
        if let [symbol] = own.as_slice() {
            let most = if shrinks { first.clone() } else { last.clone() };
            self.builder.bound_symbol(symbol, most);
        }
        last
    }

    /// Inputs: values handed on, then tensors cut into slices along an axis, one per round.
    pub(super) fn scan(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let Some(body) = subgraph(node, "body") else { return Ok(false) };
        // Version 8: lengths of the sequences come first, and the first axis is a batch.
        let n_batch = usize::from(self.opset < 9);
        let given: Option<Vec<usize>> = inputs.iter().skip(n_batch).copied().collect();
        let Some(given) = given else { return Ok(false) };
        let (n_scanned, axes, result_axes) = {
            let call = self.call(node, inputs);
            let n_scanned = call.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok());
            let list = |name| call.ints(name).unwrap_or_default().to_vec();
            (n_scanned.unwrap_or(0), list("scan_input_axes"), list("scan_output_axes"))
        };
        let n_carried = given.len().saturating_sub(n_scanned);
        let fits = 0 < n_scanned && n_scanned <= given.len() && body.input.len() == given.len();
        if !fits || body.output.len() < n_carried.max(node.output.len()) {
            return Ok(false);
        }
        let (before, scanned) = given.split_at(n_carried);
        let mut count: Option<Dim> = None;
        let mut batch: Option<Dim> = None;
        let mut trail = Vec::with_capacity(n_scanned);
        for (slot, wire_idx) in scanned.iter().enumerate() {
            let Some(mut piece) = self.tensor_type(*wire_idx).cloned() else {
                trail.push(Entry::Tensor(None));
                continue;
            };
            if n_batch == 1 {
                axis_of(0, piece.shape.rank())?;
                batch = batch.or(Some(piece.shape.0.remove(0)));
            }
            let axis = axis_of(axes.get(slot).copied().unwrap_or(0), piece.shape.rank())?;
            let length = piece.shape.0.remove(axis);
            count = count.or(Some(length));
            trail.push(Entry::Tensor(Some(piece)));
        }
        let name = self.unique_name(node, node_idx);
        let carried = self.per_sequence(before, n_batch)?;
        let rounds = Rounds { node, body, lead: Vec::new(), carried, trail, n_before: 0, folder };
        let once = self.once(&rounds)?;
        let count = match count {
            Some(count) => count,
            None => self.open(&format!("{name}{ROUNDS}"), None, &name),
        };
        let leading: Vec<Dim> = batch.into_iter().collect();
        let runs = leading.iter().fold(count.clone(), |product, batch| &product * batch);
        self.builder.multiply_repeat(once.first_node, &runs);
        if n_batch == 0 {
            self.hand_out(&rounds, &once, &count)?;
        }
        for (slot, output) in node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            let Some(place) = slot.checked_sub(n_carried * (1 - n_batch)) else { continue };
            let mut all = self.tensor_type(once.results[slot]).cloned();
            if n_carried <= slot
                && let Some(piece) = &all
            {
                let axis = result_axes.get(place).copied().unwrap_or(0);
                let axis = axis_of(axis, piece.shape.rank() + 1)?;
                all = Some(with_axes(piece, axis, std::slice::from_ref(&count)));
            }
            let all = all.map(|piece| with_axes(&piece, 0, &leading));
            let wire_idx = self.collect(node, output, all)?;
            self.point(output, wire_idx)?;
        }
        Ok(true)
    }

    /// Values handed on without the axis of the batch.
    fn per_sequence(&mut self, wires: &[usize], n_batch: usize) -> Result<Vec<usize>, Error> {
        if n_batch == 0 {
            return Ok(wires.to_vec());
        }
        let mut one = Vec::with_capacity(wires.len());
        for wire_idx in wires {
            let name = self.wires[*wire_idx].name;
            let tensor_type = self.tensor_type(*wire_idx).cloned();
            let tensor_type =
                tensor_type.filter(|known| 0 < known.shape.rank()).map(|mut known| {
                    known.shape.0.remove(0);
                    known
                });
            let id = self.builder.tensor(name, tensor_type, Role::Activation)?;
            one.push(self.push(Wire::new(name, Origin::Made(id))));
        }
        Ok(one)
    }
}

/// Whether a body hands on an input as it is.
fn is_passed_through(body: &GraphProto, input: &str, output: &str) -> bool {
    /// Copies of copies looked through.
    const MAX_COPIES: usize = 4;
    let mut output = output;
    for _ in 0..MAX_COPIES {
        if output == input {
            return true;
        }
        let makes = |node: &&NodeProto| node.output.iter().any(|made| made == output);
        match body.node.iter().find(makes) {
            Some(NodeProto { op_type, input, .. }) if op_type == "Identity" => {
                let [source] = input.as_slice() else { return false };
                output = source;
            }
            _ => return false,
        }
    }
    false
}
