//! [`Shape`], [`Tensor`], [`Node`] and the [`Graph`] they form: plain data.
//!
//! Not here: how a graph is put together (`build.rs`) and the rules that give shapes (`shape.rs`).

use super::dim::Dim;
use super::op::{Op, Positions};
use super::state::{State, StoredFormat};
use super::symbol::{Constraint, Symbol};
use crate::note::Note;
use flopwise_formats::Format;
use flopwise_formats::block::{BlockFormat, BlockLayout};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The length of each axis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape without symbols.
    #[must_use]
    pub fn of(lengths: &[i64]) -> Shape {
        Shape(lengths.iter().map(|length| Dim::from(*length)).collect())
    }

    /// Number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; 1 for a scalar.
    #[must_use]
    pub fn elements(&self) -> Dim {
        Dim::product(&self.0)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[")?;
        for (axis, dim) in self.0.iter().enumerate() {
            let separator = if axis == 0 { "" } else { ", " };
            write!(formatter, "{separator}{dim}")?;
        }
        formatter.write_str("]")
    }
}

/// Shape and number format of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// The length of each axis.
    pub shape: Shape,
    /// The format of each element.
    pub format: Format,
}

/// What a tensor is to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Given by the user at every run.
    Input,
    /// Trained.
    Parameter,
    /// Stored with the model but not trained: running statistics, position indices, masks.
    Buffer,
    /// Computed by a node.
    Activation,
    /// Computed and used up inside one operator of the file that is several nodes here: it never
    /// reaches memory.
    Internal,
}

/// Index into [`Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub usize);

/// Index into [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A value that flows through the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// Shape and format; `None` when they could not be found out.
    pub tensor_type: Option<TensorType>,
    /// What it is to the model.
    pub role: Role,
    /// The node that computes it, for an activation.
    pub producer: Option<NodeId>,
    /// How it is stored, where that is not one element after the other in its own format.
    pub stored: Option<Stored>,
}

/// How a tensor is stored that is not one element after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In blocks under shared scales.
    Blocks {
        /// Elements and bytes of a block.
        block: &'static BlockFormat,
        /// The axes that make up one row; blocks do not reach from one row into the next.
        row_axes: Vec<usize>,
    },
    /// In parts of several formats, which take so many bytes together.
    Parts {
        /// Of all parts.
        bytes: u64,
    },
}

impl Stored {
    /// Bytes of a tensor of this shape: each row in whole blocks, and 4 for the scale of the tensor
    /// that NVFP4 has besides.
    #[must_use]
    pub fn bytes(&self, shape: &Shape) -> Dim {
        let (block, row_axes) = match self {
            Stored::Blocks { block, row_axes } => (block, row_axes),
            Stored::Parts { bytes } => return Dim::from(u128::from(*bytes)),
        };
        let is_row = |axis: &usize| row_axes.contains(axis);
        let axes = |wanted: bool| {
            Dim::product((0..shape.rank()).filter(|a| is_row(a) == wanted).map(|a| &shape.0[a]))
        };
        let blocks = axes(true).ceil_div(&Dim::from(block.elements as u128));
        let bytes = &(&axes(false) * &blocks) * &Dim::from(block.bytes as u128);
        let has_tensor_scale = block.layout == BlockLayout::Nvfp4;
        if has_tensor_scale { &bytes + &Dim::from(4i64) } else { bytes }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name in the file, unique.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Operands, in the order that [`Op`] lists.
    pub inputs: Vec<TensorId>,
    /// Results.
    pub outputs: Vec<TensorId>,
    /// The operator's name in the file: `aten.conv2d.default`, `Conv`.
    pub operator: Arc<str>,
    /// Path of the module it belongs to (`layer1.0.conv1`), where the file has it.
    pub module: Option<Arc<str>>,
    /// The line of the model's source, where the file has it.
    pub line: Option<SourceLine>,
    /// How often it runs in one pass: 1, or the rounds of the loops around it.
    pub repeat: Dim,
    /// Whether the first result overwrites the first operand (`relu_`).
    pub in_place: bool,
}

/// Branches of which one runs; which one is decided at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The operator's name in the file.
    pub name: String,
    /// What each branch is called and the nodes it consists of, as a range of
    /// [`Graph::nodes`]. Choices within a branch have ranges within its range.
    pub branches: Vec<(&'static str, std::ops::Range<usize>)>,
}

/// A place in the model's source code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceLine {
    /// File as recorded by the exporter.
    pub file: Arc<str>,
    /// Line number, from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// A model: operations in an order in which they can run.
///
/// Every tensor an operation reads is an input, a weight, or the result of an earlier one; the
/// builder sees to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    /// All values.
    pub tensors: Vec<Tensor>,
    /// All operations, in order of execution.
    pub nodes: Vec<Node>,
    /// What the user gives.
    pub inputs: Vec<TensorId>,
    /// What the user gets.
    pub outputs: Vec<TensorId>,
    /// The symbols in its shapes, in order of first appearance.
    pub symbols: Vec<Symbol>,
    /// What must hold between sizes for the graph to run.
    pub constraints: Vec<Constraint>,
    /// How convolutions are counted.
    pub positions: Positions,
    /// Branches decided at run time, inner ones before those around them.
    pub choices: Vec<Choice>,
    /// The class of each module path (`layer1.0.conv1` -> `torch.nn.modules.conv.Conv2d`), where
    /// the file has them; the model itself has the path ``.
    pub modules: BTreeMap<Arc<str>, Arc<str>>,
    /// What stands at each line of the source, where the file quotes it.
    pub source: BTreeMap<SourceLine, Arc<str>>,
    /// What a decoder keeps from one token to the next, where the source says; empty where it is
    /// to be read off the attentions.
    pub states: Vec<State>,
    /// The format that keys and values are kept in from token to token; `None` for the one that
    /// they are computed in.
    pub cache_format: Option<StoredFormat>,
    /// Nodes that do nothing in inference and drop elements at random in training.
    pub dropouts: Vec<NodeId>,
    /// Flaws and doubts met on the way here.
    pub notes: Vec<Note>,
}

impl Graph {
    /// The tensor behind an id of this graph.
    #[must_use]
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The types of a node's inputs, `None` where unknown.
    pub fn input_types<'a>(
        &'a self,
        node: &'a Node,
    ) -> impl Iterator<Item = Option<&'a TensorType>> {
        node.inputs.iter().map(|id| self.tensor(*id).tensor_type.as_ref())
    }

    /// The types of a node's outputs, `None` where unknown.
    pub fn output_types<'a>(
        &'a self,
        node: &'a Node,
    ) -> impl Iterator<Item = Option<&'a TensorType>> {
        node.outputs.iter().map(|id| self.tensor(*id).tensor_type.as_ref())
    }
}
