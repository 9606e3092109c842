//! [`Call`]: one node of the file with what is known about its inputs; the rules in `ops/` and
//! `fold/` read nothing else.
//!
//! Not here: the rules.

use super::value::Value;
use super::wire::{AttributeProto, NodeProto, TensorProto};
use crate::graph::{Dim, Op, TensorType, axis_of};

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

    /// The shape that the file declares for the first output, for a rule that cannot find it.
    pub(super) fn declared_shape(&self) -> Option<Vec<Dim>> {
        let declared = self.declared.first()?.as_ref()?;
        Some(declared.shape.0.clone())
    }
}
