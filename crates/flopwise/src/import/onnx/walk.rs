//! Goes through the nodes of a file in order and builds the graph: resolves names, evaluates shape
//! arithmetic, inserts the rest.
//!
//! Not here: what an operator means (`ops/`, `fold/`).

use super::call::{Call, Operand, Plan, Source, Step};
use super::function::{Functions, Kept};
use super::provenance::{self, Texts};
use super::sequence::Many;
use super::symbols::Symbols;
use super::tally::Tally;
use super::value::{Scalar, Value};
use super::wire::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto};
use super::{fold, ops, order, weight};
use crate::error::Error;
use crate::graph::TensorType;
use crate::graph::{
    Builder, Constraint, Dim, Graph, Mark, NewNode, Op, Relation, Role, Shape, TensorId,
};
use flopwise_formats::Format;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// Elements of known tensors kept in all; each takes some 50 bytes. The exports at hand need a
/// tenth. Beyond it nothing more is evaluated.
const MAX_KNOWN_ELEMENTS: usize = 2_000_000;
/// The operator set assumed where a file names none.
const NEWEST_OPSET: i64 = 24;

/// A value that flows through the file.
#[derive(Clone)]
pub(super) struct Wire<'a> {
    pub(super) name: &'a str,
    pub(super) origin: Origin<'a>,
    /// Of a value that is not (yet) a tensor of the graph.
    pub(super) tensor_type: Option<TensorType>,
    /// Its elements, where they are known.
    pub(super) value: Option<Value>,
    /// A bound that all its elements stay below, where one is known.
    pub(super) below: Option<Dim>,
    /// Whether it is an optional of which only the run knows if it holds something.
    pub(super) may_be_nothing: bool,
}

impl<'a> Wire<'a> {
    pub(super) fn new(name: &'a str, origin: Origin<'a>) -> Wire<'a> {
        Wire { name, origin, tensor_type: None, value: None, below: None, may_be_nothing: false }
    }

    pub(super) fn of_value(name: &'a str, value: Value) -> Wire<'a> {
        let tensor_type = Some(value.tensor_type());
        Wire { tensor_type, value: Some(value), ..Wire::new(name, Origin::Known(None)) }
    }
}

/// How far a walk had come: see [`Walk::checkpoint`].
#[derive(Clone, Copy)]
pub(super) struct Checkpoint {
    graph: Mark,
    n_wires: usize,
    n_evaluated: usize,
    n_copies: usize,
    n_fused_convolutions: usize,
    n_wrong: [usize; 2],
}

/// Where a value comes from, and its tensor in the graph once it has one.
#[derive(Clone)]
pub(super) enum Origin<'a> {
    /// An input, or the result of a node.
    Made(TensorId),
    /// In the file.
    Stored(&'a TensorProto, Option<TensorId>),
    /// Evaluated here.
    Known(Option<TensorId>),
    /// Other wires, in a sequence.
    Sequence(Rc<[usize]>),
    /// A sequence whose members only the run knows.
    Many(Rc<Many>),
    /// An optional that holds nothing, or an input of a function that is left out.
    Nothing,
}

/// Inputs of a node, as indices into the wires; `None` for an optional one left out.
pub(super) type Inputs = Vec<Option<usize>>;

pub(super) struct Walk<'a> {
    pub(super) builder: Builder,
    pub(super) opset: i64,
    pub(super) functions: Functions<'a>,
    pub(super) wires: Vec<Wire<'a>>,
    /// Which wire a name means, outermost graph first.
    pub(super) scopes: Vec<HashMap<&'a str, usize>>,
    declared: HashMap<&'a str, &'a TypeProto>,
    pub(super) symbols: Symbols,
    /// Names of the sizes that only the run knows.
    pub(super) opened: HashSet<String>,
    node_names: HashSet<String>,
    texts: Texts,
    n_known_elements: usize,
    /// Nodes inserted by loops so far.
    pub(super) n_unrolled: usize,
    pub(super) tally: Tally,
}

fn contradicts(ruled: &TensorType, declared: &TensorType) -> bool {
    let mut pairs = ruled.shape.0.iter().zip(&declared.shape.0);
    ruled.shape.rank() != declared.shape.rank()
        || pairs.any(|(ruled, declared)| {
            ruled.as_constant().zip(declared.as_constant()).is_some_and(|(a, b)| a != b)
        })
}

/// Types that the rules state go before those that the file declares.
fn stated_first(
    stated: Vec<Option<TensorType>>,
    mut declared: Vec<Option<TensorType>>,
) -> Vec<Option<TensorType>> {
    for (stated, declared) in stated.into_iter().zip(&mut declared) {
        *declared = stated.or(declared.take());
    }
    declared
}

/// The graph of a decoded model.
pub(super) fn build(
    name: &str,
    model: &ModelProto,
    graph: &GraphProto,
    folder: &Path,
) -> Result<Graph, Error> {
    let kept = Kept::default();
    let mut walk = Walk::new(name, model, &kept);
    let (n_nodes, n_stored) = (graph.node.len(), graph.initializer.len());
    walk.builder.reserve(n_nodes, n_nodes + n_stored);
    walk.wires.reserve(n_nodes + n_stored);
    walk.node_names.reserve(n_nodes);
    walk.add_stored(graph, folder)?;
    let inputs = walk.add_inputs(graph)?;
    walk.run(&graph.node, folder)?;
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in &graph.output {
        let missing = || Error::new("is made by no node").at(format!("output `{}`", output.name));
        let wire = walk.lookup(&output.name).ok_or_else(missing)?;
        outputs.push(walk.tensor(wire, "", 0)?);
    }
    walk.tally.report(&mut walk.builder);
    Ok(walk.builder.finish(inputs, outputs))
}

impl<'a> Walk<'a> {
    fn new(name: &str, model: &'a ModelProto, kept: &'a Kept) -> Walk<'a> {
        let mut builder = Builder::new(name);
        let is_default = |domain: &str| matches!(domain, "" | "ai.onnx");
        let mut opsets = model.opset_import.iter().filter(|opset| is_default(&opset.domain));
        let opset = opsets.next().map(|opset| opset.version).unwrap_or_else(|| {
            builder.note(
                "the file names no version of the ONNX operators; the newest rules were taken, \
                 check that it is complete",
            );
            NEWEST_OPSET
        });
        Walk {
            builder,
            opset,
            functions: Functions::new(model, kept),
            wires: Vec::new(),
            scopes: vec![HashMap::new()],
            declared: HashMap::new(),
            symbols: Symbols::default(),
            opened: HashSet::new(),
            node_names: HashSet::new(),
            texts: Texts::default(),
            n_known_elements: 0,
            n_unrolled: 0,
            tally: Tally::default(),
        }
    }

    /// Gives a name a meaning in the innermost graph.
    pub(super) fn define(&mut self, wire: Wire<'a>) -> Result<usize, Error> {
        let name = wire.name;
        let wire_idx = self.push(wire);
        self.point(name, wire_idx)?;
        Ok(wire_idx)
    }

    /// Adds a wire that no name means yet.
    pub(super) fn push(&mut self, wire: Wire<'a>) -> usize {
        self.wires.push(wire);
        self.wires.len() - 1
    }

    /// Where the walk stands, to [`Walk::rewind`] to.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            graph: self.builder.mark(),
            n_wires: self.wires.len(),
            n_evaluated: self.tally.n_evaluated,
            n_copies: self.tally.n_copies,
            n_fused_convolutions: self.tally.n_fused_convolutions,
            n_wrong: [self.tally.wrong_lengths.len(), self.tally.wrong_shapes.len()],
        }
    }

    /// Takes back all that was inserted since; no scope has been opened or closed meanwhile.
    pub(super) fn rewind(&mut self, to: Checkpoint) {
        for name in self.builder.rewind(&to.graph) {
            self.node_names.remove(&name);
        }
        self.wires.truncate(to.n_wires);
        for wire in &mut self.wires {
            match &mut wire.origin {
                Origin::Stored(_, id) | Origin::Known(id) => {
                    *id = id.filter(|id| id.0 < to.graph.n_tensors);
                }
                Origin::Made(_) | Origin::Sequence(_) | Origin::Many(_) | Origin::Nothing => {}
            }
        }
        let tally = &mut self.tally;
        tally.n_evaluated = to.n_evaluated;
        tally.n_copies = to.n_copies;
        tally.n_fused_convolutions = to.n_fused_convolutions;
        tally.wrong_lengths.truncate(to.n_wrong[0]);
        tally.wrong_shapes.truncate(to.n_wrong[1]);
        tally.readers.split_off(&TensorId(to.graph.n_tensors));
    }

    pub(super) fn point(&mut self, name: &'a str, wire_idx: usize) -> Result<(), Error> {
        let scope = self.scopes.last_mut().expect("the outermost scope is never left");
        match scope.insert(name, wire_idx) {
            None => Ok(()),
            Some(_) => Err(Error::new("is defined twice").at(format!("tensor `{name}`"))),
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Option<usize> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name).copied())
    }

    pub(super) fn tensor_type(&self, wire_idx: usize) -> Option<&TensorType> {
        let wire = &self.wires[wire_idx];
        match wire.origin {
            Origin::Made(id) => self.builder.get(id).tensor_type.as_ref(),
            Origin::Stored(..)
            | Origin::Known(_)
            | Origin::Sequence(_)
            | Origin::Many(_)
            | Origin::Nothing => wire.tensor_type.as_ref(),
        }
    }

    /// Stored tensors become tensors of the graph when a node reads them.
    pub(super) fn add_stored(&mut self, graph: &'a GraphProto, folder: &Path) -> Result<(), Error> {
        for tensor in &graph.initializer {
            self.store(&tensor.name, tensor, folder)?;
        }
        for sparse in &graph.sparse_initializer {
            let Some(values) = &sparse.values else { continue };
            let wire_idx = self.store(&values.name, values, folder)?;
            let wire = &mut self.wires[wire_idx];
            wire.value = None;
            if let Some(tensor_type) = &mut wire.tensor_type {
                tensor_type.shape = Shape::of(&sparse.dims);
            }
        }
        let declared = graph.value_info.iter().chain(&graph.output);
        let typed = declared.filter_map(|info| Some((info.name.as_str(), info.r#type.as_ref()?)));
        self.declared.extend(typed);
        Ok(())
    }

    fn store(
        &mut self,
        name: &'a str,
        tensor: &'a TensorProto,
        folder: &Path,
    ) -> Result<usize, Error> {
        weight::check_location(tensor, folder)?;
        if let Some((stored, needed)) = weight::wrong_length(tensor) {
            let text = format!("`{name}` has {stored} bytes where its shape takes {needed}");
            self.tally.wrong_lengths.push(text);
        }
        let value = weight::value(tensor).filter(|value| self.affords(value));
        let tensor_type = weight::tensor_type(tensor);
        let origin = Origin::Stored(tensor, None);
        self.define(Wire { tensor_type, value, ..Wire::new(name, origin) })
    }

    /// Counts a value against what may be kept.
    fn affords(&mut self, value: &Value) -> bool {
        self.n_known_elements = self.n_known_elements.saturating_add(value.elements.len());
        self.n_known_elements <= MAX_KNOWN_ELEMENTS
    }

    /// Up to IR version 3 stored tensors are listed among the inputs too.
    fn add_inputs(&mut self, graph: &'a GraphProto) -> Result<Vec<TensorId>, Error> {
        let given = graph.input.iter().filter(|input| self.lookup(&input.name).is_none());
        let given: Vec<_> = given.collect();
        let mut inputs = Vec::with_capacity(given.len());
        for input in given {
            inputs.push(self.add_input(input)?);
        }
        self.symbols.settle_aliases();
        for symbol in &self.symbols.found {
            self.builder.symbol(symbol.clone());
        }
        Ok(inputs)
    }

    /// Goes through the nodes of a graph whose inputs and stored tensors are defined.
    pub(super) fn run(&mut self, nodes: &'a [NodeProto], folder: &Path) -> Result<(), Error> {
        for node_idx in order::of(nodes)? {
            let node = &nodes[node_idx];
            let place = || match node.name.as_str() {
                "" => format!("node {node_idx} ({})", node.op_type),
                name => format!("node `{name}` ({})", node.op_type),
            };
            self.node(node, node_idx, folder).map_err(|error| error.at(place()))?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, node_idx: usize, folder: &Path) -> Result<(), Error> {
        let inputs = self.inputs(node)?;
        if self.inline(node, node_idx, &inputs, folder)? {
            return Ok(());
        }
        let is_standard = matches!(node.domain.as_str(), "" | "ai.onnx");
        match node.op_type.as_str() {
            "Constant" if is_standard && self.constant(node, folder)? => return Ok(()),
            "Identity" if is_standard && self.stored_copy(node, &inputs)? => return Ok(()),
            _ if is_standard && self.control(node, node_idx, &inputs, folder)? => return Ok(()),
            _ => {}
        }
        let is_parameter = self.reads_parameter(&inputs);
        let mut call = self.call(node, &inputs);
        if !is_parameter
            && let Some(values) = fold::evaluate(&call).filter(|v| v.len() == node.output.len())
        {
            drop(call);
            if values.iter().all(|value| self.affords(value)) {
                return self.add_known(node, values);
            }
            call = self.call(node, &inputs);
        }
        call.declared = node.output.iter().map(|output| self.declared_type(output)).collect();
        let plan = ops::plan(&call);
        let results = ops::results(&call);
        let opened = call.opened.take();
        let format = results.first().and_then(Option::as_ref).map(|first| first.format);
        let declared = stated_first(results, std::mem::take(&mut call.declared));
        let (constraint, below) = (self.index_bound(&call, &inputs), self.bound(&call, &inputs));
        drop(call);
        for symbol in opened {
            self.opened.insert(symbol.name.clone());
            self.builder.symbol(symbol);
        }
        let name = self.unique_name(node, node_idx);
        if let Some((below, rows)) = constraint {
            let (relation, node) = (Relation::AtMost, name.clone());
            self.builder.constraint(Constraint { relation, left: below, right: rows, node });
        }
        self.insert_as(node, name, &inputs, plan, declared, format)?;
        if let Some(below) = below
            && let Some(output) = self.lookup(&node.output[0])
        {
            self.wires[output].below = Some(below);
        }
        Ok(())
    }

    /// A trained tensor, however small, stays one: a bias of few channels under another shape is
    /// no shape arithmetic.
    fn reads_parameter(&self, inputs: &Inputs) -> bool {
        let Some(Some(first)) = inputs.first() else { return false };
        let wire = &self.wires[*first];
        let is_stored = matches!(wire.origin, Origin::Stored(..));
        let is_list = wire.tensor_type.as_ref().is_some_and(|known| {
            known.format.is_float() && known.shape.elements().as_constant() != Some(1)
        });
        is_stored && is_list && weight::is_parameter_name(wire.name)
    }

    fn inputs(&self, node: &NodeProto) -> Result<Inputs, Error> {
        let resolve = |name: &String| match name.as_str() {
            "" => Ok(None),
            name => match self.lookup(name) {
                Some(wire_idx) => {
                    let is_nothing = matches!(self.wires[wire_idx].origin, Origin::Nothing);
                    Ok((!is_nothing).then_some(wire_idx))
                }
                None => Err(Error::new(format!(
                    "reads `{name}`, which is no input, no stored tensor and no node's result"
                ))),
            },
        };
        node.input.iter().map(resolve).collect()
    }

    pub(super) fn call<'s>(&'s self, node: &'s NodeProto, inputs: &Inputs) -> Call<'s> {
        let operand = |wire_idx: usize| Operand {
            tensor_type: self.tensor_type(wire_idx),
            value: self.wires[wire_idx].value.as_ref(),
            is_weight: matches!(self.wires[wire_idx].origin, Origin::Stored(..)),
        };
        let operands = inputs.iter().map(|input| input.map(operand)).collect();
        let (declared, opened) = (Vec::new(), RefCell::default());
        let taken = Some(&self.opened);
        Call { node, opset: self.opset, operands, declared, taken, opened }
    }

    pub(super) fn declared_type(&self, output: &str) -> Option<TensorType> {
        self.symbols.declared(output, self.declared.get(output)?)
    }

    fn add_known(&mut self, node: &'a NodeProto, values: Vec<Value>) -> Result<(), Error> {
        self.tally.n_evaluated += 1;
        for (name, value) in node.output.iter().zip(values) {
            if !name.is_empty() {
                self.add_value(name, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn add_value(&mut self, name: &'a str, value: Value) -> Result<(), Error> {
        self.define(Wire::of_value(name, value))?;
        Ok(())
    }

    /// A constant is a stored tensor, or one written as attribute; whether it could be taken so.
    fn constant(&mut self, node: &'a NodeProto, folder: &Path) -> Result<bool, Error> {
        let [output] = node.output.as_slice() else { return Ok(false) };
        let (operands, declared, opened) = (Vec::new(), Vec::new(), RefCell::default());
        let call = Call { node, opset: self.opset, operands, declared, taken: None, opened };
        if let Some(tensor) = call.tensor("value") {
            let tensor = node.attribute.iter().find_map(|attribute| {
                attribute.t.as_deref().filter(|found| std::ptr::eq(*found, tensor))
            });
            let Some(tensor) = tensor else { return Ok(false) };
            self.store(output, tensor, folder)?;
            return Ok(true);
        }
        let float = |number: &f32| Scalar::float(f64::from(*number));
        let value = if let Some(number) = call.int("value_int") {
            Some(Value::scalar(Format::INT64, Scalar::Exact(number.into())))
        } else if let Some(number) = call.float("value_float") {
            Some(Value::scalar(Format::FP32, float(&number)))
        } else if let Some(numbers) = call.ints("value_ints") {
            Some(Value::sizes(numbers.iter().map(|number| Dim::from(*number))))
        } else {
            let numbers = call.floats("value_floats").unwrap_or_default();
            Value::new(Format::FP32, vec![numbers.len()], numbers.iter().map(float).collect())
        };
        let Some(value) = value.filter(|value| self.affords(value)) else { return Ok(false) };
        self.add_value(output, value)?;
        Ok(true)
    }

    /// A copy of a stored tensor is no work. The TorchScript exporter stores parameters of equal
    /// value once and writes `Identity` for the others, under the names they had in the model; in
    /// a model that is not trained yet all biases are equal. Each of those is a parameter.
    fn stored_copy(&mut self, node: &'a NodeProto, inputs: &Inputs) -> Result<bool, Error> {
        let ([Some(source)], [output]) = (inputs.as_slice(), node.output.as_slice()) else {
            return Ok(false);
        };
        let Origin::Stored(tensor, _) = self.wires[*source].origin else { return Ok(false) };
        if !weight::is_parameter_name(output) {
            self.point(output, *source)?;
            return Ok(true);
        }
        self.tally.n_copies += 1;
        let (tensor_type, value) = {
            let wire = &self.wires[*source];
            (wire.tensor_type.clone(), wire.value.clone())
        };
        let origin = Origin::Stored(tensor, None);
        self.define(Wire { tensor_type, value, ..Wire::new(output, origin) })?;
        Ok(true)
    }

    /// The tensor of the graph for a value that a node reads as its input number `slot`.
    pub(super) fn tensor(
        &mut self,
        wire_idx: usize,
        operator: &str,
        slot: usize,
    ) -> Result<TensorId, Error> {
        let wire = &self.wires[wire_idx];
        let role = match (&wire.origin, &wire.tensor_type) {
            (Origin::Made(id) | Origin::Known(Some(id)), _) => return Ok(*id),
            (Origin::Stored(..), Some(tensor_type)) => {
                weight::role(wire.name, tensor_type, operator, slot)
            }
            (Origin::Known(None) | Origin::Stored(..), _) => Role::Buffer,
            (Origin::Sequence(_) | Origin::Many(_) | Origin::Nothing, _) => Role::Activation,
        };
        if let Origin::Stored(_, Some(id)) = wire.origin {
            // Whoever first reads it as a weight decides.
            if role == Role::Parameter {
                self.builder.set_role(id, role);
            }
            return Ok(id);
        }
        let id = self.builder.tensor(wire.name, wire.tensor_type.clone(), role)?;
        self.wires[wire_idx].origin = match wire.origin {
            Origin::Stored(tensor, _) => Origin::Stored(tensor, Some(id)),
            Origin::Made(_) | Origin::Known(_) => Origin::Known(Some(id)),
            // Its members are needed later.
            Origin::Sequence(ref members) => Origin::Sequence(Rc::clone(members)),
            Origin::Many(ref many) => Origin::Many(Rc::clone(many)),
            Origin::Nothing => Origin::Nothing,
        };
        Ok(id)
    }

    pub(super) fn unique_name(&mut self, node: &NodeProto, node_idx: usize) -> String {
        let prefix = &self.functions.prefix;
        let mut name = match node.name.as_str() {
            "" => format!("{prefix}{}_{node_idx}", node.op_type),
            name => format!("{prefix}{name}"),
        };
        while !self.node_names.insert(name.clone()) {
            name = format!("{name}_{}", self.node_names.len());
        }
        name
    }

    /// Inserts what a plan says; the results of its last step get the names of the file. `format`
    /// is that of the first result where it is not the one that the rule gives.
    fn insert_as(
        &mut self,
        node: &'a NodeProto,
        name: String,
        inputs: &Inputs,
        plan: Plan,
        declared: Vec<Option<TensorType>>,
        format: Option<Format>,
    ) -> Result<(), Error> {
        self.spot_fused_convolution(node);
        for (path, class) in provenance::classes(node, &mut self.texts) {
            self.builder.module(self.texts.shared(path), self.texts.shared(class));
        }
        let all = || (0..inputs.len()).filter(|slot| inputs[*slot].is_some()).map(Source::Input);
        let (mut steps, failure) = match plan {
            Ok(steps) => (steps, "has no meaning".to_owned()),
            Err(reason) => (Vec::new(), reason),
        };
        let last = steps.pop();
        let mut new = self.new_node(node);
        let mut made = Vec::with_capacity(steps.len());
        for (step_idx, Step { op, operands }) in steps.into_iter().enumerate() {
            let mut step = new.clone();
            step.name = format!("{name}:{step_idx}");
            step.outputs = vec![(step.name.clone(), None)];
            step.inputs = self.operand_ids(&operands, node, inputs, &made)?;
            step.op = Ok(op);
            let ids = self.builder.insert(step)?;
            self.builder.hide(&ids);
            made.extend(ids);
        }
        let (op, operands) = match last {
            Some(Step { op, operands }) => (Ok(op), operands),
            None => (Err(failure), all().collect()),
        };
        new.inputs = self.operand_ids(&operands, node, inputs, &made)?;
        self.note_readers(&new);
        let mut declared = self.without_ruled(&op, &new.inputs, declared);
        declared.resize(node.output.len(), None);
        let outputs = node.output.iter().zip(declared).enumerate();
        let outputs = outputs.map(|(output_idx, (output, declared))| match output.as_str() {
            "" => (format!("{name}:unused{output_idx}"), declared),
            output => (output.to_owned(), declared),
        });
        (new.outputs, new.op, new.name, new.format) = (outputs.collect(), op, name, format);
        let ids = self.builder.insert(new)?;
        for (name, id) in node.output.iter().zip(ids).filter(|(output, _)| !output.is_empty()) {
            let origin = Origin::Made(id);
            self.define(Wire::new(name, origin))?;
        }
        Ok(())
    }

    /// The module that a node belongs to: its own, or that of the call around it.
    pub(super) fn module(&mut self, node: &NodeProto) -> Option<Arc<str>> {
        let own = provenance::module(node).map(|path| self.texts.shared(&path));
        own.or_else(|| self.functions.module.clone())
    }

    /// What all nodes inserted for one of the file have in common.
    pub(super) fn new_node(&mut self, node: &NodeProto) -> NewNode {
        NewNode {
            name: String::new(),
            op: Err(String::new()),
            inputs: Vec::new(),
            outputs: Vec::new(),
            operator: self.texts.shared(&node.op_type),
            module: self.module(node),
            line: provenance::line(node, &mut self.texts),
            repeat: Dim::ONE,
            in_place: false,
            format: None,
        }
    }

    /// Inserts an operator that belongs to a node; its results.
    pub(super) fn add_all(
        &mut self,
        node: &NodeProto,
        output: &str,
        op: Op,
        inputs: Vec<TensorId>,
        n_outputs: usize,
    ) -> Result<Vec<TensorId>, Error> {
        let mut name = format!("{}{output}", self.functions.prefix);
        while !self.node_names.insert(name.clone()) {
            name = format!("{name}_{}", self.node_names.len());
        }
        let outputs = (0..n_outputs).map(|output_idx| match output_idx {
            0 => (output.to_owned(), None),
            _ => (format!("{output}.{output_idx}"), None),
        });
        let outputs = outputs.collect();
        let new = NewNode { name, op: Ok(op), inputs, outputs, ..self.new_node(node) };
        Ok(self.builder.insert(new)?)
    }

    /// Inserts an operator that belongs to a node; its only result.
    pub(super) fn add(
        &mut self,
        node: &NodeProto,
        output: &str,
        op: Op,
        inputs: Vec<TensorId>,
    ) -> Result<TensorId, Error> {
        Ok(self.add_all(node, output, op, inputs, 1)?[0])
    }

    fn note_readers(&mut self, new: &NewNode) {
        let Some(module) = &new.module else { return };
        for id in &new.inputs {
            if self.builder.get(*id).role == Role::Parameter {
                self.tally.readers.entry(*id).or_default().insert(Arc::clone(module));
            }
        }
    }

    /// Declared types of the results that the operator's rule gives no type to. Where it does, the
    /// rule is what a runtime will compute; a declared shape is a remark of the exporter, and some
    /// are wrong.
    fn without_ruled(
        &mut self,
        op: &Result<Op, String>,
        inputs: &[TensorId],
        mut declared: Vec<Option<TensorType>>,
    ) -> Vec<Option<TensorType>> {
        let (Ok(op), true) = (op, declared.iter().any(Option::is_some)) else { return declared };
        let types = inputs.iter().map(|id| self.builder.get(*id).tensor_type.clone());
        let Some(types) = types.collect::<Option<Vec<TensorType>>>() else { return declared };
        // Constraints are those that the builder will find again.
        let Ok(ruled) = crate::graph::infer(op, &types, "", &mut Vec::new()) else {
            return declared;
        };
        for (ruled, declared) in ruled.iter().zip(&mut declared) {
            if let Some(wrong) = declared.take().filter(|found| contradicts(ruled, found)) {
                let text = format!("{} by rule, {}", ruled.shape, wrong.shape);
                self.tally.wrong_shapes.push(text);
            }
        }
        declared
    }

    fn operand_ids(
        &mut self,
        operands: &[Source],
        node: &NodeProto,
        inputs: &Inputs,
        made: &[TensorId],
    ) -> Result<Vec<TensorId>, Error> {
        let mut ids = Vec::with_capacity(operands.len());
        for operand in operands {
            ids.push(match operand {
                Source::Step(step_idx) => made[*step_idx],
                Source::Input(slot) => match inputs.get(*slot).copied().flatten() {
                    Some(wire_idx) => self.tensor(wire_idx, &node.op_type, *slot)?,
                    None => return Err(Error::new(format!("input {slot} is missing"))),
                },
            });
        }
        Ok(ids)
    }

    /// The TorchScript exporter names a weight that it multiplied with a batch normalisation's
    /// scale `onnx::Conv_123`.
    fn spot_fused_convolution(&mut self, node: &NodeProto) {
        let weight = node.input.get(1).filter(|_| node.op_type == "Conv");
        let is_fused = weight.is_some_and(|weight| weight.starts_with("onnx::Conv_"));
        self.tally.n_fused_convolutions += usize::from(is_fused);
    }

    /// For a lookup: a bound of the indices that must not exceed the rows there are.
    fn index_bound(&self, call: &Call, inputs: &Inputs) -> Option<(Dim, Dim)> {
        if call.operator() != "Gather" {
            return None;
        }
        let below = self.wires[inputs.get(1).copied().flatten()?].below.clone()?;
        let shape = call.shape(0).ok()?;
        let rows = &shape[call.axis("axis", 0, shape.len()).ok()?];
        (below.is_at_most(rows) != Some(true)).then(|| (below, rows.clone()))
    }

    /// A bound of the elements of a node's result: that of a range, or of what it only moves.
    fn bound(&self, call: &Call, inputs: &Inputs) -> Option<Dim> {
        match call.operator() {
            "Range" if call.tensor_type(0).is_ok_and(|first| !first.format.is_float()) => {
                let delta = call.value(2)?.single()?.as_i128()?;
                let limit = call.value(1)?.single()?.exact()?;
                (0 < delta).then(|| limit.clone())
            }
            "Unsqueeze" | "Squeeze" | "Reshape" | "Flatten" | "Expand" | "Identity" | "Cast"
            | "Transpose" | "Slice" | "Tile" => {
                self.wires[inputs.first().copied().flatten()?].below.clone()
            }
            _ => None,
        }
    }
}
