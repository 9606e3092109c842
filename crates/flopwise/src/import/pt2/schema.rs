//! The JSON of an exported program, as far as counting needs it.
//!
//! Source: torch/_export/serde/schema.py, versions 7 (PyTorch 2.5) to 8.20 (2.15). Unions are
//! written `{"as_int": 3}`; here they are structs of options, so that a member added by a later
//! version is passed over instead of failing the file.
//!
//! Not here: what the operators mean (`ops/`).

use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;

/// Text that borrows from the JSON when it holds no escapes.
type Text<'a> = Cow<'a, str>;

#[derive(Deserialize)]
pub(super) struct ExportedProgram<'a> {
    #[serde(borrow)]
    pub(super) graph_module: GraphModule<'a>,
    #[serde(borrow, default)]
    pub(super) range_constraints: HashMap<Text<'a>, RangeConstraint>,
}

/// Bounds of a symbol. Absent or beyond `i64` means none.
#[derive(Deserialize)]
pub(super) struct RangeConstraint {
    #[serde(default)]
    pub(super) min_val: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) max_val: Option<serde_json::Value>,
}

impl RangeConstraint {
    /// Both bounds, where they are numbers.
    pub(super) fn numbers(&self) -> [Option<i128>; 2] {
        [&self.min_val, &self.max_val]
            .map(|value| value.as_ref().and_then(serde_json::Value::as_i64).map(i128::from))
    }
}

/// One node written by hand.
#[cfg(test)]
pub(super) fn node(json: &str) -> NodeJson<'_> {
    serde_json::from_str(json).unwrap()
}

#[derive(Deserialize)]
pub(super) struct GraphModule<'a> {
    #[serde(borrow)]
    pub(super) graph: GraphJson<'a>,
    #[serde(borrow)]
    pub(super) signature: Signature<'a>,
}

#[derive(Deserialize)]
pub(super) struct GraphJson<'a> {
    #[serde(borrow)]
    pub(super) inputs: Vec<Argument<'a>>,
    #[serde(borrow)]
    pub(super) outputs: Vec<Argument<'a>>,
    #[serde(borrow)]
    pub(super) nodes: Vec<NodeJson<'a>>,
    #[serde(borrow, default)]
    pub(super) tensor_values: HashMap<Text<'a>, TensorMeta<'a>>,
    #[serde(borrow, default)]
    pub(super) sym_int_values: HashMap<Text<'a>, SymInt<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Signature<'a> {
    #[serde(borrow)]
    pub(super) input_specs: Vec<InputSpec<'a>>,
}

/// One of these is present.
#[derive(Deserialize)]
pub(super) struct InputSpec<'a> {
    #[serde(borrow, default)]
    pub(super) parameter: Option<NamedSpec<'a>>,
    #[serde(borrow, default)]
    pub(super) buffer: Option<NamedSpec<'a>>,
    #[serde(borrow, default)]
    pub(super) tensor_constant: Option<NamedSpec<'a>>,
}

#[derive(Deserialize)]
pub(super) struct NamedSpec<'a> {
    #[serde(borrow)]
    pub(super) arg: NameRef<'a>,
    #[serde(
        borrow,
        default,
        alias = "parameter_name",
        alias = "buffer_name",
        alias = "tensor_constant_name"
    )]
    pub(super) full_name: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct NameRef<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct NodeJson<'a> {
    #[serde(borrow)]
    pub(super) target: Text<'a>,
    #[serde(borrow)]
    pub(super) inputs: Vec<NamedArgument<'a>>,
    #[serde(borrow)]
    pub(super) outputs: Vec<Argument<'a>>,
    #[serde(borrow, default)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    pub(super) stack_trace: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) nn_module_stack: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct NamedArgument<'a> {
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) arg: Argument<'a>,
}

/// A value given to or made by a node; one member is present.
#[derive(Deserialize)]
pub(super) struct Argument<'a> {
    #[serde(borrow, default)]
    pub(super) as_tensor: Option<NameRef<'a>>,
    #[serde(borrow, default)]
    pub(super) as_tensors: Option<Vec<NameRef<'a>>>,
    #[serde(borrow, default)]
    pub(super) as_optional_tensors: Option<Vec<OptionalTensor<'a>>>,
    #[serde(borrow, default)]
    pub(super) as_optional_tensor: Option<OptionalTensor<'a>>,
    #[serde(default)]
    pub(super) as_int: Option<i64>,
    #[serde(default)]
    pub(super) as_ints: Option<Vec<i64>>,
    #[serde(default)]
    pub(super) as_float: Option<FloatJson>,
    #[serde(default)]
    pub(super) as_bool: Option<bool>,
    #[serde(default)]
    pub(super) as_bools: Option<Vec<bool>>,
    #[serde(borrow, default)]
    pub(super) as_nested_tensors: Option<Vec<Vec<NameRef<'a>>>>,
    #[serde(borrow, default)]
    pub(super) as_operator: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) as_string: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) as_sym_int: Option<SymArgument<'a>>,
    #[serde(borrow, default)]
    pub(super) as_sym_ints: Option<Vec<SymArgument<'a>>>,
    #[serde(borrow, default)]
    pub(super) as_graph: Option<Box<GraphArgument<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct OptionalTensor<'a> {
    #[serde(borrow, default)]
    pub(super) as_tensor: Option<NameRef<'a>>,
}

/// JSON has no infinity; the exporter writes `"Infinity"`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum FloatJson {
    Number(f64),
    Word(String),
}

impl FloatJson {
    pub(super) fn value(&self) -> f64 {
        match self {
            FloatJson::Number(number) => *number,
            FloatJson::Word(word) if word == "Infinity" => f64::INFINITY,
            FloatJson::Word(word) if word == "-Infinity" => f64::NEG_INFINITY,
            FloatJson::Word(_) => f64::NAN,
        }
    }
}

/// An integer, or the name of one in `sym_int_values`.
#[derive(Deserialize)]
pub(super) struct SymArgument<'a> {
    #[serde(borrow, default)]
    pub(super) as_name: Option<Text<'a>>,
    #[serde(default)]
    pub(super) as_int: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct GraphArgument<'a> {
    #[serde(borrow)]
    pub(super) graph: GraphJson<'a>,
}

/// An integer, or an expression in symbols.
#[derive(Deserialize)]
pub(super) struct SymInt<'a> {
    #[serde(borrow, default)]
    pub(super) as_expr: Option<SymExpression<'a>>,
    #[serde(default)]
    pub(super) as_int: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct SymExpression<'a> {
    #[serde(borrow)]
    pub(super) expr_str: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct TensorMeta<'a> {
    pub(super) dtype: i32,
    #[serde(borrow)]
    pub(super) sizes: Vec<SymInt<'a>>,
}

/// `data/weights/model_weights_config.json`: which file each weight lies in. Tied weights share one.
#[derive(Deserialize)]
pub(super) struct WeightsConfig<'a> {
    #[serde(borrow)]
    pub(super) config: HashMap<Text<'a>, WeightEntry<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WeightEntry<'a> {
    #[serde(borrow)]
    pub(super) path_name: Text<'a>,
}
