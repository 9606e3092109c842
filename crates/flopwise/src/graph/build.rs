//! [`Builder`]: puts a graph together and checks each node as it is inserted.

mod replay;

pub use replay::{Section, SectionStart};

use super::dim::Dim;
use super::op::{Op, Positions};
use super::shape::{self, ShapeError};
use super::state::State;
use super::symbol::{Constraint, Symbol};
use super::tensor::{
    Choice, Graph, Node, NodeId, Role, Shape, SourceLine, Tensor, TensorId, TensorType,
};
use crate::note::Note;
use flopwise_formats::Format;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// No axis is longer: larger numbers in files are damage or attack, and products of a few such
/// sizes would not fit 127 bits.
pub const MAX_DIM: i128 = 1 << 48;
/// No tensor has more axes: ONNX and PyTorch runtimes stop well below.
const MAX_RANK: usize = 64;
/// No graph has more nodes; the largest exports known have about 10^5.
const MAX_NODES: usize = 2_000_000;
/// Different constraints kept; a real graph has a handful.
const MAX_CONSTRAINTS: usize = 10_000;

/// A graph that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A size no real tensor has.
    #[error("tensor `{tensor}`: axis {axis} has size {size}, the limit is 2^48")]
    DimTooLarge {
        /// The tensor.
        tensor: String,
        /// Which axis.
        axis: usize,
        /// Its size.
        size: String,
    },
    /// A size below zero.
    #[error("tensor `{tensor}`: axis {axis} has negative size {size}")]
    DimNegative {
        /// The tensor.
        tensor: String,
        /// Which axis.
        axis: usize,
        /// Its size.
        size: String,
    },
    /// More axes than any real tensor.
    #[error("tensor `{tensor}` has {rank} axes, the limit is {MAX_RANK}")]
    RankTooLarge {
        /// The tensor.
        tensor: String,
        /// How many axes.
        rank: usize,
    },
    /// More nodes than any real graph.
    #[error("the graph has more than {MAX_NODES} nodes")]
    TooManyNodes,
}

/// A node to be inserted.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Unique name.
    pub name: String,
    /// What it computes, or the reason why no canonical operator could be given.
    pub op: Result<Op, String>,
    /// Operands.
    pub inputs: Vec<TensorId>,
    /// Names of the results and their types where the file declares them.
    pub outputs: Vec<(String, Option<TensorType>)>,
    /// The operator's name in the file.
    pub operator: Arc<str>,
    /// Module path.
    pub module: Option<Arc<str>>,
    /// Source line.
    pub line: Option<SourceLine>,
    /// How often it runs in one pass.
    pub repeat: Dim,
    /// Whether the first result overwrites the first operand.
    pub in_place: bool,
    /// The format of the first result, where it is not the one that the operator's rule gives
    /// (an integer product with a wider sum).
    pub format: Option<Format>,
}

/// Puts a [`Graph`] together.
///
/// ```
/// use flopwise::graph::{Builder, Dim, Op, Role, Shape, TensorType, Function};
/// use flopwise_formats::Format;
/// let fp32 = |shape| TensorType { shape, format: Format::FP32 };
/// let mut builder = Builder::new("example");
/// let x = builder.tensor("x", Some(fp32(Shape(vec![Dim::symbol("batch"), 8.into()]))), Role::Input)?;
/// let y = builder.apply("relu", Op::Elementwise(Function::Relu), &[x])?;
/// let graph = builder.finish(vec![x], vec![y[0]]);
/// assert_eq!(graph.tensor(y[0]).tensor_type.as_ref().unwrap().shape.to_string(), "[batch, 8]");
/// # Ok::<(), flopwise::graph::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    constraints_seen: HashSet<Constraint>,
    disagreements: Vec<String>,
}

/// How far a graph had come: see [`Builder::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// How many nodes there were.
    pub n_nodes: usize,
    /// How many tensors there were.
    pub n_tensors: usize,
    n_choices: usize,
    n_constraints: usize,
    n_disagreements: usize,
}

impl Builder {
    /// An empty graph.
    #[must_use]
    pub fn new(name: &str) -> Builder {
        let graph = Graph {
            name: name.to_owned(),
            tensors: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            symbols: Vec::new(),
            constraints: Vec::new(),
            positions: Positions::All,
            choices: Vec::new(),
            modules: BTreeMap::new(),
            source: BTreeMap::new(),
            states: Vec::new(),
            cache_format: None,
            dropouts: Vec::new(),
            notes: Vec::new(),
        };
        Builder { graph, constraints_seen: HashSet::new(), disagreements: Vec::new() }
    }

    /// Adds an input or weight.
    ///
    /// # Errors
    /// A size beyond the limits.
    pub fn tensor(
        &mut self,
        name: &str,
        tensor_type: Option<TensorType>,
        role: Role,
    ) -> Result<TensorId, BuildError> {
        if let Some(tensor_type) = &tensor_type {
            check_sizes(name, &tensor_type.shape)?;
        }
        let id = TensorId(self.graph.tensors.len());
        self.graph.tensors.push(Tensor {
            name: name.to_owned(),
            tensor_type,
            role,
            producer: None,
            stored: None,
        });
        Ok(id)
    }

    /// The tensor behind an id.
    #[must_use]
    pub fn get(&self, id: TensorId) -> &Tensor {
        self.graph.tensor(id)
    }

    /// Changes what a tensor is to the model, when its first use tells.
    pub fn set_role(&mut self, id: TensorId, role: Role) {
        self.graph.tensors[id.0].role = role;
    }

    /// Says that results of a node are used up inside one operator of the file and never reach
    /// memory ([`Role::Internal`]); a view of something in memory stays in memory.
    pub fn hide(&mut self, ids: &[TensorId]) {
        for id in ids {
            let producer = self.get(*id).producer.map(|node| &self.graph.nodes[node.0]);
            let is_in_memory = producer.is_none_or(|node| {
                let source = node.inputs.first().filter(|_| node.op.is_view());
                source.is_some_and(|source| self.get(*source).role != Role::Internal)
            });
            if !is_in_memory {
                self.set_role(*id, Role::Internal);
            }
        }
    }

    /// Adds a note.
    pub fn note(&mut self, text: impl Into<String>) {
        self.graph.notes.push(Note::new(text));
    }

    /// Adds a symbol, in order of first appearance.
    pub fn symbol(&mut self, symbol: Symbol) {
        self.graph.symbols.push(symbol);
    }

    /// Says how large a size that only the data decide can be.
    pub fn bound_symbol(&mut self, name: &str, at_most: Dim) {
        let mut named = self.graph.symbols.iter_mut().rev().filter(|symbol| symbol.name == name);
        if let Some(symbol) = named.next() {
            symbol.at_most = Some(at_most);
        }
    }

    /// Adds something that must hold between sizes, once.
    pub fn constraint(&mut self, constraint: Constraint) {
        let is_room = self.constraints_seen.len() < MAX_CONSTRAINTS;
        if is_room && self.constraints_seen.insert(constraint.clone()) {
            self.graph.constraints.push(constraint);
        }
    }

    /// Makes room for so many nodes and tensors more, where the caller holds as many; growing step by
    /// step copies a large graph several times.
    pub fn reserve(&mut self, n_nodes: usize, n_tensors: usize) {
        self.graph.nodes.reserve(n_nodes.min(MAX_NODES));
        self.graph.tensors.reserve(n_tensors.min(2 * MAX_NODES));
    }

    /// How many nodes there are so far: where the next one will stand.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.graph.nodes.len()
    }

    /// Adds branches of which one runs; the nodes of each have been inserted one after the other.
    pub fn choice(&mut self, choice: Choice) {
        self.graph.choices.push(choice);
    }

    /// Multiplies how often the nodes from `first` on run: they stand in a loop of so many rounds.
    pub fn multiply_repeat(&mut self, first: usize, rounds: &Dim) {
        for node in self.graph.nodes.iter_mut().skip(first) {
            node.repeat = &node.repeat * rounds;
        }
    }

    /// Whether a node from `first` on could not be given a rule.
    #[must_use]
    pub fn has_opaque(&self, first: usize) -> bool {
        let mut added = self.graph.nodes.iter().skip(first);
        added.any(|node| matches!(node.op, Op::Opaque { .. }))
    }

    /// Where the graph stands, to [`Builder::rewind`] to.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            n_nodes: self.graph.nodes.len(),
            n_tensors: self.graph.tensors.len(),
            n_choices: self.graph.choices.len(),
            n_constraints: self.graph.constraints.len(),
            n_disagreements: self.disagreements.len(),
        }
    }

    /// Takes back what was added since; the names of the nodes taken back. Symbols stay: those that
    /// nothing names are dropped at the end.
    pub fn rewind(&mut self, mark: &Mark) -> Vec<String> {
        self.graph.tensors.truncate(mark.n_tensors);
        self.graph.choices.truncate(mark.n_choices);
        for constraint in self.graph.constraints.drain(mark.n_constraints..) {
            self.constraints_seen.remove(&constraint);
        }
        self.disagreements.truncate(mark.n_disagreements);
        self.graph.nodes.drain(mark.n_nodes..).map(|node| node.name).collect()
    }

    /// Says of which class a module is.
    pub fn module(&mut self, path: Arc<str>, class: Arc<str>) {
        self.graph.modules.insert(path, class);
    }

    /// Says what a layer keeps from one token to the next.
    pub fn state(&mut self, state: State) {
        self.graph.states.push(state);
    }

    /// Says that the last node drops elements in training.
    pub fn drops(&mut self) {
        let last = self.graph.nodes.len().checked_sub(1).map(NodeId);
        self.graph.dropouts.extend(last);
    }

    /// Says what stands at a line of the source.
    pub fn quote(&mut self, line: SourceLine, text: &str) {
        self.graph.source.entry(line).or_insert_with(|| Arc::from(text));
    }

    /// Inserts `op` over `inputs` under `name`; its one or more outputs are named after it.
    ///
    /// # Errors
    /// A size beyond the limits.
    pub fn apply(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[TensorId],
    ) -> Result<Vec<TensorId>, BuildError> {
        self.insert(NewNode {
            name: name.to_owned(),
            operator: Arc::from(op.name()),
            op: Ok(op),
            inputs: inputs.to_vec(),
            outputs: vec![(name.to_owned(), None)],
            module: None,
            line: None,
            repeat: Dim::ONE,
            in_place: false,
            format: None,
        })
    }

    /// Inserts a node. Its shape rule gives the output types; where the rule cannot be applied the
    /// node becomes [`Op::Opaque`], with the types the file declares, if any.
    ///
    /// # Errors
    /// A size beyond the limits.
    pub fn insert(&mut self, new: NewNode) -> Result<Vec<TensorId>, BuildError> {
        check_room(self.graph.nodes.len() + 1)?;
        let ruled = new.op.and_then(|op| match self.infer(&op, &new.inputs, &new.name) {
            Ok(mut types) => {
                if let (Some(format), Some(first)) = (new.format, types.first_mut()) {
                    first.format = format;
                }
                Ok((op, types))
            }
            Err(ShapeError(reason)) => Err(reason),
        });
        let (op, ruled) = ruled.unwrap_or_else(|reason| {
            (Op::Opaque { name: new.operator.to_string(), reason }, Vec::new())
        });
        let node_id = NodeId(self.graph.nodes.len());
        let mut outputs = Vec::with_capacity(new.outputs.len());
        for (output_idx, (name, declared)) in new.outputs.into_iter().enumerate() {
            let tensor_type = self.settle(&name, ruled.get(output_idx), declared);
            let id = self.tensor(&name, tensor_type, Role::Activation)?;
            self.graph.tensors[id.0].producer = Some(node_id);
            outputs.push(id);
        }
        self.graph.nodes.push(Node {
            name: new.name,
            op,
            inputs: new.inputs,
            outputs: outputs.clone(),
            operator: new.operator,
            module: new.module,
            line: new.line,
            repeat: new.repeat,
            in_place: new.in_place,
        });
        Ok(outputs)
    }

    /// Which output types a rule gives, and the constraints it needs (kept only if it holds).
    fn infer(
        &mut self,
        op: &Op,
        inputs: &[TensorId],
        node: &str,
    ) -> Result<Vec<TensorType>, ShapeError> {
        let mut types = Vec::with_capacity(inputs.len());
        for id in inputs {
            let tensor = self.get(*id);
            match &tensor.tensor_type {
                Some(tensor_type) => types.push(tensor_type.clone()),
                None => {
                    return Err(ShapeError(format!("the shape of `{}` is unknown", tensor.name)));
                }
            }
        }
        let mut constraints = Vec::new();
        let outputs = shape::infer(op, &types, node, &mut constraints)?;
        for constraint in constraints {
            self.constraint(constraint);
        }
        Ok(outputs)
    }

    /// The type of an output: what the file declares, made sharper by the rule where the file
    /// leaves a size open. A real disagreement is kept for a note.
    fn settle(
        &mut self,
        name: &str,
        ruled: Option<&TensorType>,
        declared: Option<TensorType>,
    ) -> Option<TensorType> {
        let (Some(ruled), Some(mut declared)) = (ruled, declared.clone()) else {
            return ruled.cloned().or(declared);
        };
        if ruled.shape.rank() != declared.shape.rank() {
            self.disagreements
                .push(format!("{name} ({} by rule, {})", ruled.shape, declared.shape));
            return Some(declared);
        }
        for axis in 0..declared.shape.rank() {
            let (by_rule, by_file) = (&ruled.shape.0[axis], &declared.shape.0[axis]);
            if by_rule.is_equal(by_file) == Some(false) {
                let shapes = format!("{name} ({} by rule, {})", ruled.shape, declared.shape);
                self.disagreements.push(shapes);
                return Some(declared);
            }
            let is_sharper = by_file.as_constant().is_none();
            if is_sharper {
                declared.shape.0[axis] = by_rule.clone();
            }
        }
        Some(declared)
    }

    /// The finished graph. Symbols that no shape names any more are dropped; symbols that no input
    /// introduced are added, since a value is needed for them.
    #[must_use]
    pub fn finish(mut self, inputs: Vec<TensorId>, outputs: Vec<TensorId>) -> Graph {
        if let Some(first) = self.disagreements.first() {
            let n_disagreements = self.disagreements.len();
            self.graph.notes.push(Note::new(format!(
                "{n_disagreements} shapes in the file differ from what their operators give; the \
                 file's were taken; the first is {first}"
            )));
        }
        self.graph.inputs = inputs;
        self.graph.outputs = outputs;
        let mut used = BTreeSet::new();
        for tensor in &self.graph.tensors {
            let lengths = tensor.tensor_type.iter().flat_map(|found| &found.shape.0);
            used.extend(lengths.flat_map(Dim::symbols));
        }
        used.extend(self.graph.nodes.iter().flat_map(|node| node.repeat.symbols()));
        let bounds: Vec<_> = self.graph.symbols.iter().filter_map(|s| s.at_most.clone()).collect();
        used.extend(bounds.iter().flat_map(Dim::symbols));
        self.graph.symbols.retain(|symbol| used.contains(symbol.name.as_str()));
        let mut known: BTreeSet<String> =
            self.graph.symbols.iter().map(|symbol| symbol.name.clone()).collect();
        for name in used {
            if known.insert(name.to_string()) {
                self.graph.symbols.push(Symbol {
                    name: name.to_string(),
                    aliases: Vec::new(),
                    min: 0,
                    max: None,
                    at_most: None,
                    place: "computed at run time".to_owned(),
                });
            }
        }
        self.graph
    }
}

fn check_room(n_nodes: usize) -> Result<(), BuildError> {
    if MAX_NODES < n_nodes { Err(BuildError::TooManyNodes) } else { Ok(()) }
}

fn check_sizes(name: &str, shape: &Shape) -> Result<(), BuildError> {
    let tensor = name.to_owned();
    if MAX_RANK < shape.rank() {
        return Err(BuildError::RankTooLarge { tensor, rank: shape.rank() });
    }
    for (axis, dim) in shape.0.iter().enumerate() {
        let size = dim.as_constant();
        if size.is_some_and(|size| size < 0) {
            return Err(BuildError::DimNegative { tensor, axis, size: dim.to_string() });
        }
        if dim.is_overflow() || size.is_some_and(|size| MAX_DIM < size) {
            return Err(BuildError::DimTooLarge { tensor, axis, size: dim.to_string() });
        }
    }
    Ok(())
}
