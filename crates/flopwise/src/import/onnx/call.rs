//! [`Call`]: one node of the file with what is known about its inputs; the rules in `ops/` and
//! `fold/` read nothing else.
//!
//! Not here: the rules.

use super::symbols;
use super::value::Value;
use super::wire::{AttributeProto, NodeProto, TensorProto};
use crate::graph::{Dim, Op, Shape, Stated, Symbol, TensorType, axis_of, infer};
use flopwise_formats::Format;
use std::cell::RefCell;
use std::collections::HashSet;

/// What is known about one input.
pub(super) struct Operand<'a> {
    pub(super) tensor_type: Option<&'a TensorType>,
    pub(super) value: Option<&'a Value>,
    /// Whether it is stored in the file.
    pub(super) is_weight: bool,
}

/// A node, its inputs, and the version of the operator set that it follows.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) opset: i64,
    pub(super) operands: Vec<Option<Operand<'a>>>,
    /// What the file declares for each output.
    pub(super) declared: Vec<Option<TensorType>>,
    /// Names of sizes that other nodes left open.
    pub(super) taken: Option<&'a HashSet<String>>,
    /// Sizes that the rules for this node left open.
    pub(super) opened: RefCell<Vec<Symbol>>,
}

/// Where an operand of a step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// That input of the node.
    Input(usize),
    /// The first result of that step.
    Step(usize),
}

/// One canonical operator of the one or more that a node stands for; the results of the last step
/// are those of the node.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) op: Op,
    pub(super) operands: Vec<Source>,
}

/// What a node computes, or why that is not known.
pub(super) type Plan = Result<Vec<Step>, String>;

/// The plan of a node that is one operator over these of its inputs.
pub(super) fn one(op: Op, inputs: &[usize]) -> Plan {
    let operands = inputs.iter().map(|slot| Source::Input(*slot)).collect();
    Ok(vec![Step { op, operands }])
}

/// The plan of a node whose importer states what it costs, over all inputs given.
pub(super) fn stated(call: &Call, stated: Stated) -> Plan {
    one(Op::Stated(Box::new(stated)), &call.given())
}

impl<'a> Call<'a> {
    pub(super) fn operator(&self) -> &'a str {
        &self.node.op_type
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name)?.f
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.attribute(name)?.t.as_deref()
    }

    /// The format that an attribute names by its number in ONNX.
    pub(super) fn format(&self, name: &str) -> Option<Format> {
        symbols::format(i32::try_from(self.int(name)?).ok()?)
    }

    /// Whether an attribute is there at all.
    pub(super) fn has_attribute(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// Whether an attribute holds a graph.
    pub(super) fn has_graph(&self, name: &str) -> bool {
        self.attribute(name).is_some_and(|attribute| attribute.g.is_some())
    }

    /// Whether a flag is set; `default` where the file does not say.
    pub(super) fn is_set(&self, name: &str, default: bool) -> bool {
        self.int(name).map_or(default, |value| value != 0)
    }

    pub(super) fn operand(&self, slot: usize) -> Option<&Operand<'a>> {
        self.operands.get(slot)?.as_ref()
    }

    /// Whether an optional input is given.
    pub(super) fn has(&self, slot: usize) -> bool {
        self.operand(slot).is_some()
    }

    /// All inputs that are given.
    pub(super) fn given(&self) -> Vec<usize> {
        (0..self.operands.len()).filter(|slot| self.has(*slot)).collect()
    }

    /// The first `n_inputs` inputs, as far as they are given.
    pub(super) fn given_of_first(&self, n_inputs: usize) -> Vec<usize> {
        (0..n_inputs).filter(|slot| self.has(*slot)).collect()
    }

    pub(super) fn value(&self, slot: usize) -> Option<&'a Value> {
        self.operand(slot)?.value
    }

    pub(super) fn tensor_type(&self, slot: usize) -> Result<&'a TensorType, String> {
        let operand = self.operand(slot).ok_or_else(|| format!("input {slot} is missing"))?;
        let name = &self.node.input[slot];
        operand.tensor_type.ok_or_else(|| format!("the shape of `{name}` is unknown"))
    }

    pub(super) fn shape(&self, slot: usize) -> Result<&'a [Dim], String> {
        self.tensor_type(slot).map(|tensor_type| tensor_type.shape.0.as_slice())
    }

    pub(super) fn rank(&self, slot: usize) -> Result<usize, String> {
        self.shape(slot).map(<[Dim]>::len)
    }

    /// An axis given as attribute, counted from the front.
    pub(super) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, String> {
        axis_of(self.int(name).unwrap_or(default), rank).map_err(|error| error.to_string())
    }

    /// A list of sizes that arrives as an input; an error when it is not known before the run.
    pub(super) fn sizes(&self, slot: usize) -> Result<Vec<Dim>, String> {
        let sizes = self.value(slot).and_then(Value::dims);
        sizes.ok_or_else(|| self.unknown(slot))
    }

    /// A list of plain numbers that arrives as an input.
    pub(super) fn numbers(&self, slot: usize) -> Result<Vec<i64>, String> {
        let numbers = self.value(slot).and_then(Value::integers);
        numbers.ok_or_else(|| self.unknown(slot))
    }

    fn unknown(&self, slot: usize) -> String {
        match self.node.input.get(slot) {
            Some(name) if !name.is_empty() => {
                format!("`{name}`, which decides its shape, is computed at run time")
            }
            _ => format!("input {slot} is missing"),
        }
    }

    /// Numbers that older operator sets give as attribute and newer ones as input; `None` when
    /// neither is there.
    pub(super) fn list(&self, name: &str, slot: usize) -> Result<Option<Vec<i64>>, String> {
        if self.has(slot) {
            return self.numbers(slot).map(Some);
        }
        Ok(self.ints(name).map(<[i64]>::to_vec))
    }

    /// Axes given as attribute or input, counted from the front, sorted, each once.
    pub(super) fn axes(&self, slot: usize, rank: usize) -> Result<Option<Vec<usize>>, String> {
        let Some(axes) = self.list("axes", slot)? else { return Ok(None) };
        let axes = axes.iter().map(|axis| axis_of(*axis, rank).map_err(|error| error.to_string()));
        let mut axes: Vec<usize> = axes.collect::<Result<_, _>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(Some(axes))
    }

    /// A size that only the data decide, of an axis of a result; at most so much, where that is
    /// known. Asked twice for the same axis it is the same size.
    pub(super) fn open(&self, output_idx: usize, axis: usize, at_most: Option<Dim>) -> Dim {
        let output = self.node.output.get(output_idx).filter(|name| !name.is_empty());
        let tensor = output.map_or(self.node.name.as_str(), String::as_str);
        let place = format!("dim {axis} of `{tensor}`, which the data decide");
        let stem = format!("{tensor}.dim{axis}");
        let mut name = stem.clone();
        // The same node again, in another round of a loop: a number that no other has.
        let mut n_before = self.taken.map_or(0, HashSet::len);
        while self.taken.is_some_and(|taken| taken.contains(&name)) {
            name = format!("{stem}.{n_before}");
            n_before += 1;
        }
        let mut opened = self.opened.borrow_mut();
        let dim = Dim::symbol(&name);
        if opened.iter().all(|symbol| symbol.name != name) {
            opened.push(Symbol { name, aliases: Vec::new(), min: 0, max: None, place, at_most });
        }
        dim
    }

    /// The shape declared for the first output, or one of `rank` open sizes.
    pub(super) fn declared_or_open(&self, rank: usize, at_most: Option<&Dim>) -> Vec<Dim> {
        let declared = self.declared_shape().filter(|declared| declared.len() == rank);
        let open = || (0..rank).map(|axis| self.open(0, axis, at_most.cloned())).collect();
        declared.unwrap_or_else(open)
    }

    /// How many elements a list that arrives as an input has.
    pub(super) fn length(&self, slot: usize) -> Option<usize> {
        let elements = Dim::product(self.shape(slot).ok()?);
        elements.as_constant().and_then(|length| usize::try_from(length).ok())
    }

    /// The first result that an operator gives over some of the inputs.
    pub(super) fn ruled(&self, op: &Op, slots: &[usize]) -> Result<TensorType, String> {
        let inputs = slots.iter().map(|slot| self.tensor_type(*slot).cloned());
        let inputs: Vec<TensorType> = inputs.collect::<Result<_, _>>()?;
        let types = infer(op, &inputs, "", &mut Vec::new()).map_err(|error| error.to_string())?;
        types.into_iter().next().ok_or_else(|| "it has no result".to_owned())
    }

    /// A type in the format of an input.
    pub(super) fn like(&self, slot: usize, shape: Vec<Dim>) -> Result<TensorType, String> {
        Ok(TensorType { shape: Shape(shape), format: self.tensor_type(slot)?.format })
    }

    /// The only number of a list or scalar that arrives as an input.
    pub(super) fn size(&self, slot: usize) -> Result<Dim, String> {
        let size = self.value(slot).and_then(|value| value.single()?.exact().cloned());
        size.ok_or_else(|| self.unknown(slot))
    }

    /// The shape that the file declares for the first output, for a rule that cannot find it.
    pub(super) fn declared_shape(&self) -> Option<Vec<Dim>> {
        let declared = self.declared.first()?.as_ref()?;
        Some(declared.shape.0.clone())
    }
}
