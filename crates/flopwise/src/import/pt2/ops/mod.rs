//! Operators of PyTorch -> canonical [`Op`]s.
//!
//! To add an operator: put its name (no overload, no in-place underscore) into the family it
//! belongs to. What it costs follows from the canonical operator. One that is known and still
//! cannot be counted stands in `reasons.rs`, with the reason.
//!
//! Not here: shapes of what is not declared, which the builder's rules give; operators that hold
//! graphs (`control.rs`).
//! Argument names: pytorch/aten/src/ATen/native/native_functions.yaml.

mod attention;
mod backward;
mod copies;
mod data;
mod functions;
mod layers;
mod losses;
mod products;
mod quantized;
mod reasons;
mod recurrent;
mod reductions;
mod signal;
#[cfg(test)]
mod tests;
mod views;
mod vision;

pub(super) use data::most_results;

use super::call::Call;
use crate::graph::{Builder, Dim, Function, Op, Shape, Storage, TensorId, axis_of};
use flopwise_formats::Format;

/// What a call becomes: operators to insert one after the other.
pub(super) struct Lowered {
    pub(super) steps: Vec<Step>,
    pub(super) results: Results,
}

/// What the results of a call are.
pub(super) enum Results {
    /// The outputs of the last step.
    Last,
    /// Each output of the last step under its declared shape (`unbind` drops the axis it splits).
    Reshaped,
    /// These.
    Listed(Vec<Input>),
}

impl Lowered {
    fn last(steps: Vec<Step>) -> Lowered {
        Lowered { steps, results: Results::Last }
    }
}

pub(super) struct Step {
    pub(super) op: Op,
    pub(super) inputs: Vec<Input>,
    pub(super) n_outputs: usize,
    /// See [`crate::graph::NewNode::format`].
    pub(super) format: Option<Format>,
}

/// An operand of a step: a tensor of the graph, or an output of an earlier step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Tensor(TensorId),
    Made { step_idx: usize, output_idx: usize },
}

impl Input {
    fn made(step_idx: usize) -> Input {
        Input::Made { step_idx, output_idx: 0 }
    }

    pub(super) fn resolve(&self, made: &[Vec<TensorId>]) -> TensorId {
        match *self {
            Input::Tensor(id) => id,
            Input::Made { step_idx, output_idx } => made[step_idx][output_idx],
        }
    }
}

/// Steps being put together.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    fn step(&mut self, op: Op, inputs: &[Input]) -> Input {
        self.steps.push(Step { op, inputs: inputs.to_vec(), n_outputs: 1, format: None });
        Input::made(self.steps.len() - 1)
    }

    fn apply(&mut self, function: Function, inputs: &[Input]) -> Input {
        self.step(Op::Elementwise(function), inputs)
    }

    fn reshape(&mut self, shape: Vec<Dim>, input: Input) -> Input {
        self.step(Op::Reshape { shape: Shape(shape) }, &[input])
    }

    /// The same bytes by other strides.
    fn restride(&mut self, shape: Vec<Dim>, input: Input) -> Input {
        self.step(Op::Restride { shape: Shape(shape) }, &[input])
    }

    fn permute(&mut self, permutation: &[usize], input: Input) -> Input {
        let permutation = permutation.to_vec();
        self.step(Op::Transpose { permutation, storage: Storage::View }, &[input])
    }

    fn step_with_outputs(&mut self, op: Op, inputs: &[Input], n_outputs: usize) -> Vec<Input> {
        self.steps.push(Step { op, inputs: inputs.to_vec(), n_outputs, format: None });
        let step_idx = self.steps.len() - 1;
        (0..n_outputs).map(|output_idx| Input::Made { step_idx, output_idx }).collect()
    }

    fn last(self) -> Lowered {
        Lowered::last(self.steps)
    }

    fn results(self, results: Vec<Input>) -> Lowered {
        Lowered { steps: self.steps, results: Results::Listed(results) }
    }
}

type Result<T> = std::result::Result<T, String>;

fn one(op: Op, inputs: &[TensorId]) -> Result<Lowered> {
    let inputs = inputs.iter().map(|id| Input::Tensor(*id)).collect();
    Ok(Lowered::last(vec![Step { op, inputs, n_outputs: 1, format: None }]))
}

/// Turns a call into operators.
///
/// # Errors
/// The reason why it could not be counted.
pub(super) fn lower<'l, 'c, 'a>(call: &'l Call<'c, 'a>, builder: &'l Builder) -> Result<Lowered> {
    let operators = Aten { call, builder };
    let (library, base) = call.operator();
    let families: &[Rules<'l, 'c, 'a>] = match library {
        "aten" => &[
            Aten::products,
            Aten::attentions,
            Aten::recurrent,
            Aten::layers,
            Aten::windowed_layers,
            Aten::functions,
            Aten::reductions,
            Aten::views,
            Aten::parts,
            Aten::copies,
            Aten::picks,
            Aten::fills,
            Aten::data_decided,
            Aten::signal,
            Aten::losses,
            Aten::quantized,
            Aten::backward,
        ],
        "quantized_decomposed" | "torchao" => &[Aten::quantized],
        "torchvision" => &[Aten::vision],
        "transformers" => &[Aten::products],
        "prims" => &[Aten::functions, Aten::views, Aten::copies, Aten::fills, Aten::reductions],
        "torch_attn" => &[Aten::attentions],
        _ => &[],
    };
    let lowered = families.iter().find_map(|family| family(&operators, base).transpose());
    lowered.unwrap_or_else(|| Err(reasons::uncounted(library, base, call.wrapped())))
}

struct Aten<'l, 'c, 'a> {
    call: &'l Call<'c, 'a>,
    builder: &'l Builder,
}

/// `None`: not of this family.
type Family = Result<Option<Lowered>>;

/// The rules of one family.
type Rules<'l, 'c, 'a> = fn(&Aten<'l, 'c, 'a>, &str) -> Family;

impl Aten<'_, '_, '_> {
    fn shape(&self, id: TensorId) -> Result<&Shape> {
        let tensor = self.builder.get(id);
        let known = tensor.tensor_type.as_ref().map(|tensor_type| &tensor_type.shape);
        known.ok_or_else(|| format!("the shape of `{}` is unknown", tensor.name))
    }

    fn rank(&self, id: TensorId) -> Result<usize> {
        self.shape(id).map(Shape::rank)
    }

    /// The length of an axis, counted from the back.
    fn length(&self, id: TensorId, from_back: usize) -> Result<Dim> {
        let shape = self.shape(id)?;
        let axis = shape.rank().checked_sub(from_back);
        axis.map(|axis| shape.0[axis].clone()).ok_or_else(|| "too few axes".to_owned())
    }

    fn format(&self, id: TensorId) -> Option<Format> {
        self.builder.get(id).tensor_type.as_ref().map(|known| known.format)
    }

    /// The argument `name` as an axis of tensor `id`.
    fn axis(&self, name: &str, id: TensorId, default: i64) -> Result<usize> {
        let axis = self.call.int(name).unwrap_or(default);
        axis_of(axis, self.rank(id)?).map_err(|error| error.to_string())
    }

    /// Operands by name, those that are there.
    fn given(&self, names: &[&str]) -> Vec<TensorId> {
        names.iter().filter_map(|name| self.call.optional_tensor(name)).collect()
    }

    /// A result of the declared shape, filled from what the steps so far found out.
    fn declared_fill(&self) -> Result<Op> {
        Ok(Op::Fill { shape: self.call.output_shape()?, format: self.call.output_format()? })
    }

    /// `function` of each element of `input`, gathered into a result of the declared shape:
    /// counting, choosing and bagging.
    fn tallied(&self, functions: &[Function], input: TensorId) -> Result<Lowered> {
        let mut plan = Plan::default();
        let mut value = Input::Tensor(input);
        for function in functions {
            value = plan.apply(*function, &[value]);
        }
        plan.step(self.declared_fill()?, &[value]);
        Ok(plan.last())
    }
}
