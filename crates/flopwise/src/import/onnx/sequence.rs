//! Sequences and optionals. A sequence whose members are known is a list of wires; of any other
//! only the type of its members and its length are known.
//!
//! Not here: maps, which no operator over tensors reads.

use super::control::{subgraph, with_axes};
use super::value::{Scalar, Value};
use super::walk::{Inputs, Origin, Walk, Wire};
use super::wire::{NodeProto, TypeProto, ValueInfoProto};
use crate::error::Error;
use crate::graph::{Dim, NewNode, Op, Role, Shape, Storage, TensorId, TensorType, axis_of};
use flopwise_formats::Format;
use std::path::Path;
use std::rc::Rc;

/// Tensors listed in one sequence; a longer one is known by its length.
const MAX_SEQUENCE: usize = 1024;

/// A sequence whose members only the run knows.
#[derive(Clone, Debug)]
pub(super) struct Many {
    /// What all members have in common, where that is known.
    pub(super) element: Option<TensorType>,
    /// How many there are.
    pub(super) length: Dim,
}

/// The pieces of an axis.
struct Cut {
    /// The length of each, where all are known.
    sizes: Option<Vec<Dim>>,
    /// What is known of the length of any of them.
    piece: Dim,
    /// How many there are.
    length: Dim,
}

/// What a declared type is, behind optionals.
enum Declared<'t> {
    Tensor(&'t TypeProto),
    Sequence(&'t TypeProto),
    Other,
}

fn peeled(declared: &TypeProto) -> (Declared<'_>, bool) {
    let (mut declared, mut is_optional) = (declared, false);
    // The scan of the file bounds how deep types are nested.
    while let Some(inner) = declared.optional_type.as_ref().and_then(|t| t.elem_type.as_deref()) {
        (declared, is_optional) = (inner, true);
    }
    let sequence = declared.sequence_type.as_ref().and_then(|t| t.elem_type.as_deref());
    let kind = match (sequence, &declared.tensor_type, &declared.sparse_tensor_type) {
        (Some(element), ..) => Declared::Sequence(element),
        (None, Some(_), _) | (None, _, Some(_)) => Declared::Tensor(declared),
        (None, None, None) => Declared::Other,
    };
    (kind, is_optional)
}

impl<'a> Walk<'a> {
    /// Defines an input of the graph; its tensor.
    pub(super) fn add_input(&mut self, input: &'a ValueInfoProto) -> Result<TensorId, Error> {
        let name = input.name.as_str();
        let (kind, is_optional) = input.r#type.as_ref().map_or((Declared::Other, false), peeled);
        let inner = match kind {
            Declared::Tensor(inner) | Declared::Sequence(inner) => Some(inner),
            Declared::Other => None,
        };
        let named = ValueInfoProto { name: name.to_owned(), r#type: inner.cloned() };
        let tensor_type = self.symbols.input_type(&named);
        let (tensor_type, element) = match kind {
            Declared::Sequence(_) => (None, tensor_type),
            Declared::Tensor(_) | Declared::Other => (tensor_type, None),
        };
        let id = self.builder.tensor(name, tensor_type, Role::Input)?;
        let origin = match kind {
            Declared::Sequence(_) => {
                let length = self.open(&format!("{name}.length"), None, name);
                Origin::Many(Rc::new(Many { element, length }))
            }
            Declared::Tensor(_) | Declared::Other => Origin::Made(id),
        };
        let wire_idx = self.define(Wire::new(name, origin))?;
        self.wires[wire_idx].may_be_nothing = is_optional;
        Ok(id)
    }

    /// The same wire, which may also be nothing.
    pub(super) fn uncertain(&mut self, output: &'a str, wire_idx: usize) -> usize {
        let mut wire = self.wires[wire_idx].clone();
        (wire.name, wire.may_be_nothing) = (output, true);
        self.push(wire)
    }

    /// A wire as a sequence of which no member is known.
    pub(super) fn many(&mut self, wire_idx: usize) -> Option<Many> {
        let members = match &self.wires[wire_idx].origin {
            Origin::Many(many) => return Some(Many::clone(many)),
            Origin::Sequence(members) => Rc::clone(members),
            Origin::Made(_) | Origin::Stored(..) | Origin::Known(_) | Origin::Nothing => {
                return None;
            }
        };
        let mut element = members.first().and_then(|first| self.tensor_type(*first)).cloned();
        for member in members.iter().skip(1) {
            let other = self.tensor_type(*member).cloned();
            element = match (element, other) {
                (Some(a), Some(b)) => self.common_type("element", &a, &b),
                _ => None,
            };
        }
        Some(Many { element, length: Dim::from(members.len() as u128) })
    }

    pub(super) fn either_sequence(&mut self, output: &'a str, a: &Many, b: &Many) -> usize {
        let element = self.common_element(output, a, b);
        let length = match a.length.is_equal(&b.length) {
            Some(true) => a.length.clone(),
            _ => {
                let most = a.length.maximum(&b.length);
                self.open(&format!("{output}.length"), Some(most), output)
            }
        };
        self.push(Wire::new(output, Origin::Many(Rc::new(Many { element, length }))))
    }

    /// The type of the members of two sequences; an empty one says nothing.
    fn common_element(&mut self, name: &str, a: &Many, b: &Many) -> Option<TensorType> {
        match (&a.element, &b.element) {
            (element, None) if b.length == Dim::ZERO => element.clone(),
            (None, element) if a.length == Dim::ZERO => element.clone(),
            (Some(a), Some(b)) => self.common_type(name, a, b),
            _ => None,
        }
    }

    pub(super) fn sequence(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
    ) -> Result<bool, Error> {
        let [output] = node.output.as_slice() else { return Ok(false) };
        let first = inputs.first().copied().flatten();
        match node.op_type.as_str() {
            "SequenceEmpty" => self.list(output, Vec::new())?,
            "SequenceConstruct" => {
                let Some(members) = inputs.iter().copied().collect() else { return Ok(false) };
                self.list(output, members)?;
            }
            "SequenceInsert" => return self.insert_member(output, inputs),
            "SequenceErase" => return self.erase_member(output, inputs),
            "SequenceAt" => return self.at(node, output, inputs),
            "SequenceLength" => {
                let Some(many) = first.and_then(|first| self.many(first)) else {
                    return Ok(false);
                };
                let length = Value::scalar(Format::INT64, Scalar::Exact(many.length));
                self.add_value(output, length)?;
            }
            "SplitToSequence" => return self.split_to_sequence(node, output, inputs),
            "ConcatFromSequence" => return self.join_sequence(node, node_idx, output, inputs),
            "Optional" | "OptionalGetElement" => {
                let element = match first {
                    Some(first) => self.wires[first].clone(),
                    None => Wire::new(output, Origin::Nothing),
                };
                self.define(Wire { name: output, may_be_nothing: false, ..element })?;
            }
            // A copy of a tensor is a node like any other.
            "Identity" => {
                let Some(first) = first.filter(|first| {
                    self.members(*first).is_some()
                        || matches!(self.wires[*first].origin, Origin::Many(_))
                }) else {
                    return Ok(false);
                };
                self.point(output, first)?;
            }
            "OptionalHasElement" => return self.has_element(output, first),
            _ => return Ok(false),
        }
        self.tally.n_evaluated += 1;
        Ok(true)
    }

    fn list(&mut self, output: &'a str, members: Vec<usize>) -> Result<(), Error> {
        let is_long = MAX_SEQUENCE < members.len();
        let mut origin = Origin::Sequence(members.into());
        if is_long {
            let wire_idx = self.push(Wire::new(output, origin.clone()));
            if let Some(many) = self.many(wire_idx) {
                origin = Origin::Many(Rc::new(many));
            }
        }
        self.define(Wire::new(output, origin))?;
        Ok(())
    }

    fn define_many(&mut self, output: &'a str, many: Many) -> Result<bool, Error> {
        self.define(Wire::new(output, Origin::Many(Rc::new(many))))?;
        Ok(true)
    }

    fn members(&self, wire_idx: usize) -> Option<Rc<[usize]>> {
        match &self.wires[wire_idx].origin {
            Origin::Sequence(members) => Some(Rc::clone(members)),
            Origin::Made(_)
            | Origin::Stored(..)
            | Origin::Known(_)
            | Origin::Many(_)
            | Origin::Nothing => None,
        }
    }

    fn has_element(&mut self, output: &'a str, first: Option<usize>) -> Result<bool, Error> {
        let has = match first.map(|first| &self.wires[first]) {
            None => Some(false),
            Some(Wire { origin: Origin::Nothing, .. }) => Some(false),
            Some(wire) => (!wire.may_be_nothing).then_some(true),
        };
        match has {
            Some(has) => {
                self.add_value(output, Value::scalar(Format::BOOL, Scalar::boolean(has)))?;
            }
            None => {
                let scalar = TensorType { shape: Shape(Vec::new()), format: Format::BOOL };
                let id = self.builder.tensor(output, Some(scalar), Role::Activation)?;
                self.define(Wire::new(output, Origin::Made(id)))?;
            }
        }
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

    fn insert_member(&mut self, output: &'a str, inputs: &Inputs) -> Result<bool, Error> {
        let (Some(Some(first)), Some(Some(added))) = (inputs.first(), inputs.get(1)) else {
            return Ok(false);
        };
        if let Some(members) = self.members(*first)
            && let Some(place) = self.place(inputs, 2, members.len(), members.len())
        {
            let mut members = members.to_vec();
            members.insert(place, *added);
            self.list(output, members)?;
            self.tally.n_evaluated += 1;
            return Ok(true);
        }
        let Some(many) = self.many(*first) else { return Ok(false) };
        let one = Many { element: self.tensor_type(*added).cloned(), length: Dim::ONE };
        let element = self.common_element(output, &many, &one);
        self.define_many(output, Many { element, length: &many.length + &Dim::ONE })
    }

    fn erase_member(&mut self, output: &'a str, inputs: &Inputs) -> Result<bool, Error> {
        let Some(Some(first)) = inputs.first() else { return Ok(false) };
        if let Some(members) = self.members(*first)
            && let Some(last) = members.len().checked_sub(1)
            && let Some(place) = self.place(inputs, 1, members.len(), last)
        {
            let mut members = members.to_vec();
            if place < members.len() {
                members.remove(place);
            }
            self.list(output, members)?;
            self.tally.n_evaluated += 1;
            return Ok(true);
        }
        let Some(many) = self.many(*first) else { return Ok(false) };
        let length = (&many.length - &Dim::ONE).maximum(&Dim::ZERO);
        self.define_many(output, Many { element: many.element, length })
    }

    fn at(&mut self, node: &'a NodeProto, output: &'a str, inputs: &Inputs) -> Result<bool, Error> {
        let Some(Some(first)) = inputs.first() else { return Ok(false) };
        if let Some(members) = self.members(*first)
            && let Some(place) = self.place(inputs, 1, members.len(), 0)
            && let Some(member) = members.get(place)
        {
            self.point(output, *member)?;
            self.tally.n_evaluated += 1;
            return Ok(true);
        }
        let Some(many) = self.many(*first) else { return Ok(false) };
        let element = many.element.or_else(|| self.declared_type(&node.output[0]));
        let id = self.builder.tensor(output, element, Role::Activation)?;
        self.define(Wire::new(output, Origin::Made(id)))?;
        Ok(true)
    }

    /// <https://onnx.ai/onnx/operators/onnx__SplitToSequence.html>
    fn split_to_sequence(
        &mut self,
        node: &'a NodeProto,
        output: &'a str,
        inputs: &Inputs,
    ) -> Result<bool, Error> {
        let Some(Some(source)) = inputs.first().copied() else { return Ok(false) };
        let split = inputs.get(1).copied().flatten();
        let (axis, keeps) = {
            let call = self.call(node, inputs);
            let Ok(axis) = call.rank(0).and_then(|rank| call.axis("axis", 0, rank)) else {
                let length = self.open(&format!("{output}.length"), None, output);
                return self.define_many(output, Many { element: None, length });
            };
            (axis, split.is_some() || call.is_set("keepdims", true))
        };
        let whole = self.tensor_type(source).expect("its rank is known").clone();
        let total = whole.shape.0[axis].clone();
        let Some(Cut { sizes, piece, length }) = self.cut(output, axis, &total, split) else {
            return Ok(false);
        };
        let n_pieces = length.as_constant().and_then(|length| usize::try_from(length).ok());
        let sizes = sizes.or_else(|| {
            let is_known = piece.as_constant().is_some();
            n_pieces.filter(|n| is_known && *n <= MAX_SEQUENCE).map(|n| vec![piece.clone(); n])
        });
        let source_id = self.tensor(source, &node.op_type, 0)?;
        let Some(sizes) = sizes.filter(|sizes| sizes.len() <= MAX_SEQUENCE) else {
            // Every piece is a copy.
            self.add(node, output, Op::Copy, vec![source_id])?;
            let mut element = whole;
            match keeps {
                true => element.shape.0[axis] = piece,
                false => {
                    element.shape.0.remove(axis);
                }
            }
            return self.define_many(output, Many { element: Some(element), length });
        };
        let op = Op::Split { axis, sizes: sizes.clone(), storage: Storage::Copy };
        let ids = self.add_all(node, output, op, vec![source_id], sizes.len())?;
        let mut members = Vec::with_capacity(ids.len());
        for mut id in ids {
            if !keeps && let Some(piece) = self.builder.get(id).tensor_type.clone() {
                let mut shape = piece.shape;
                shape.0.remove(axis);
                id = self.add(node, output, Op::Reshape { shape }, vec![id])?;
            }
            members.push(self.push(Wire::new(output, Origin::Made(id))));
        }
        self.list(output, members)?;
        Ok(true)
    }

    /// Into which pieces an axis of so many elements is cut; `None` for sizes that cannot be.
    fn cut(
        &mut self,
        output: &'a str,
        axis: usize,
        total: &Dim,
        split: Option<usize>,
    ) -> Option<Cut> {
        let value = split.map(|split| self.wires[split].value.clone());
        // Sizes of the pieces, or how many there are of which size.
        let (sizes, piece, length) = match value {
            None => (None, Dim::ONE, total.clone()),
            Some(Some(value)) if value.shape.is_empty() => {
                let piece = value.dims()?.first()?.clone();
                if piece.is_at_most(&Dim::ZERO) != Some(false) {
                    return None;
                }
                let is_even = total.modulo(&piece) == Dim::ZERO;
                let length = total.ceil_div(&piece);
                let open = |walk: &mut Walk<'a>| {
                    walk.open(&format!("{output}.dim{axis}"), Some(piece.clone()), output)
                };
                let common = if is_even { piece.clone() } else { open(self) };
                (pieces(total, &piece), common, length)
            }
            Some(Some(value)) => {
                let sizes = value.dims()?;
                let length = Dim::from(sizes.len() as u128);
                let open = self.open(&format!("{output}.dim{axis}"), Some(total.clone()), output);
                (Some(sizes), open, length)
            }
            Some(None) => {
                let piece = self.open(&format!("{output}.dim{axis}"), Some(total.clone()), output);
                let known = split.and_then(|split| self.tensor_type(split)).cloned();
                let lengths = known.map(|known| known.shape.0);
                let length = match lengths.as_deref() {
                    Some([length]) => length.clone(),
                    _ => self.open(&format!("{output}.length"), Some(total.clone()), output),
                };
                (None, piece, length)
            }
        };
        Some(Cut { sizes, piece, length })
    }

    /// <https://onnx.ai/onnx/operators/onnx__ConcatFromSequence.html>
    fn join_sequence(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        output: &'a str,
        inputs: &Inputs,
    ) -> Result<bool, Error> {
        let Some(Some(first)) = inputs.first().copied() else { return Ok(false) };
        let (axis, is_stacked) = {
            let call = self.call(node, inputs);
            (call.int("axis").unwrap_or(0), call.is_set("new_axis", false))
        };
        let members = self.members(first).filter(|members| !members.is_empty());
        let Some(many) = self.many(first) else { return Ok(false) };
        let rank = match members.as_ref().map_or(many.element.as_ref(), |m| self.tensor_type(m[0]))
        {
            Some(element) => element.shape.rank() + usize::from(is_stacked),
            None => {
                let collected = self.collect(node, output, None)?;
                self.point(output, collected)?;
                return Ok(true);
            }
        };
        let axis = axis_of(axis, rank)?;
        let Some(members) = members else {
            let Some(element) = &many.element else { return Ok(false) };
            let joined = if is_stacked {
                with_axes(element, axis, std::slice::from_ref(&many.length))
            } else {
                let mut joined = element.clone();
                joined.shape.0[axis] = match element.shape.0[axis].as_constant() {
                    Some(_) => &element.shape.0[axis] * &many.length,
                    // Members may differ in an open size.
                    None => self.open(&format!("{output}.dim{axis}"), None, output),
                };
                joined
            };
            let pool = self.builder.tensor(output, Some(joined), Role::Activation)?;
            let id = self.add(node, output, Op::Copy, vec![pool])?;
            self.define(Wire::new(output, Origin::Made(id)))?;
            return Ok(true);
        };
        let mut ids = Vec::with_capacity(members.len());
        for member in members.iter() {
            let mut id = self.tensor(*member, &node.op_type, 0)?;
            if is_stacked && let Some(member) = self.builder.get(id).tensor_type.clone() {
                let shape = with_axes(&member, axis, &[Dim::ONE]).shape;
                id = self.add(node, output, Op::Reshape { shape }, vec![id])?;
            }
            ids.push(id);
        }
        let name = self.unique_name(node, node_idx);
        let outputs = vec![(output.to_owned(), None)];
        let op = Ok(Op::Concat { axis });
        let new = NewNode { name, op, inputs: ids, outputs, ..self.new_node(node) };
        let id = self.builder.insert(new)?[0];
        self.define(Wire::new(output, Origin::Made(id)))?;
        Ok(true)
    }

    /// Runs the body for each member. <https://onnx.ai/onnx/operators/onnx__SequenceMap.html>
    pub(super) fn sequence_map(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let Some(body) = subgraph(node, "body") else { return Ok(false) };
        let given: Option<Vec<usize>> = inputs.iter().copied().collect();
        let Some(given) = given.filter(|given| given.len() == body.input.len()) else {
            return Ok(false);
        };
        if body.output.len() != node.output.len() {
            return Ok(false);
        }
        let Some(first) = given.first().and_then(|first| self.many(*first)) else {
            return Ok(false);
        };
        if let Some(members) = self.members(given[0]) {
            return self.map_each(node, &given, members.len(), folder);
        }
        let mut entries = Vec::with_capacity(given.len());
        for (wire_idx, input) in given.iter().zip(&body.input) {
            entries.push(match self.many(*wire_idx) {
                Some(many) => {
                    let id = self.builder.tensor(&input.name, many.element, Role::Activation)?;
                    self.push(Wire::new(&input.name, Origin::Made(id)))
                }
                None => *wire_idx,
            });
        }
        let start = self.builder.n_nodes();
        self.unique_name(node, node_idx);
        let results = self.inner(body, &entries, folder)?;
        self.builder.multiply_repeat(start, &first.length);
        for (output, result) in node.output.iter().zip(results).filter(|(o, _)| !o.is_empty()) {
            let element = self.tensor_type(result).cloned();
            self.define_many(output, Many { element, length: first.length.clone() })?;
        }
        Ok(true)
    }

    fn map_each(
        &mut self,
        node: &'a NodeProto,
        given: &[usize],
        n_members: usize,
        folder: &Path,
    ) -> Result<bool, Error> {
        let Some(body) = subgraph(node, "body") else { return Ok(false) };
        let mut made: Vec<Vec<usize>> = vec![Vec::new(); body.output.len()];
        for place in 0..n_members {
            let entry = |wire_idx: &usize| match self.members(*wire_idx) {
                Some(members) => members.get(place).copied(),
                None => Some(*wire_idx),
            };
            let Some(entries) = given.iter().map(entry).collect::<Option<Vec<usize>>>() else {
                return Err(Error::new("maps over sequences of different lengths"));
            };
            let results = self.inner(body, &entries, folder)?;
            for (made, result) in made.iter_mut().zip(results) {
                made.push(result);
            }
        }
        for (output, members) in node.output.iter().zip(made).filter(|(o, _)| !o.is_empty()) {
            self.list(output, members)?;
        }
        Ok(true)
    }
}

/// Pieces of the same length, the last one shorter, where they are few.
fn pieces(total: &Dim, piece: &Dim) -> Option<Vec<Dim>> {
    let (total, piece) = (total.as_constant()?, piece.as_constant()?);
    let n_pieces = usize::try_from((total + piece - 1) / piece).ok()?;
    let length = |place: usize| piece.min(total - place as i128 * piece);
    let length = |place| Dim::from(u128::try_from(length(place)).unwrap_or(0));
    (n_pieces <= MAX_SEQUENCE).then(|| (0..n_pieces).map(length).collect())
}
