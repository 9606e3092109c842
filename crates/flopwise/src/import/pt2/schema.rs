//! The JSON of an exported program, as far as counting needs it.
//!
//! Source: torch/_export/serde/schema.py, versions 7 (PyTorch 2.5) to 8.20 (2.15). Unions are
//! written `{"as_int": 3}`; a member added by a later version is passed over instead of failing the
//! file.
//!
//! Not here: what the operators mean (`ops/`).

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

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
    /// As it stands in the JSON: half a program is traces, of which one line each is looked at.
    #[serde(borrow, default)]
    pub(super) stack_trace: Option<&'a RawValue>,
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

/// A value given to or made by a node. A program of 100,000 nodes holds half a million of these.
pub(super) enum Argument<'a> {
    Tensor(NameRef<'a>),
    Tensors(Vec<NameRef<'a>>),
    OptionalTensors(Vec<OptionalTensor<'a>>),
    OptionalTensor(OptionalTensor<'a>),
    Int(i64),
    Ints(Vec<i64>),
    Float(FloatJson),
    Bool(bool),
    Bools(Vec<bool>),
    NestedTensors(Vec<Vec<NameRef<'a>>>),
    Operator(Text<'a>),
    String(Text<'a>),
    SymInt(SymArgument<'a>),
    SymInts(Vec<SymArgument<'a>>),
    Graph(Box<GraphArgument<'a>>),
    /// None, or a member that is not needed here or that a later version added.
    Other,
}

/// The names of the members.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    AsTensor,
    AsTensors,
    AsOptionalTensors,
    AsOptionalTensor,
    AsInt,
    AsInts,
    AsFloat,
    AsBool,
    AsBools,
    AsNestedTensors,
    AsOperator,
    AsString,
    AsSymInt,
    AsSymInts,
    AsGraph,
    #[serde(other)]
    Other,
}

struct ArgumentVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ArgumentVisitor<'a> {
    type Value = Argument<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with one member")
    }

    /// Borrowed text needs a wrapper, since a bare `Cow` is read as owned.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Argument<'a>, A::Error> {
        let mut found = None;
        while let Some(member) = map.next_key()? {
            let value = match member {
                Member::AsTensor => map.next_value::<Option<_>>()?.map(Argument::Tensor),
                Member::AsTensors => map.next_value::<Option<_>>()?.map(Argument::Tensors),
                Member::AsOptionalTensors => {
                    map.next_value::<Option<_>>()?.map(Argument::OptionalTensors)
                }
                Member::AsOptionalTensor => {
                    map.next_value::<Option<_>>()?.map(Argument::OptionalTensor)
                }
                Member::AsInt => map.next_value::<Option<_>>()?.map(Argument::Int),
                Member::AsInts => map.next_value::<Option<_>>()?.map(Argument::Ints),
                Member::AsFloat => map.next_value::<Option<_>>()?.map(Argument::Float),
                Member::AsBool => map.next_value::<Option<_>>()?.map(Argument::Bool),
                Member::AsBools => map.next_value::<Option<_>>()?.map(Argument::Bools),
                Member::AsNestedTensors => {
                    map.next_value::<Option<_>>()?.map(Argument::NestedTensors)
                }
                Member::AsOperator => {
                    map.next_value::<Option<Borrowed>>()?.map(|text| Argument::Operator(text.0))
                }
                Member::AsString => {
                    map.next_value::<Option<Borrowed>>()?.map(|text| Argument::String(text.0))
                }
                Member::AsSymInt => map.next_value::<Option<_>>()?.map(Argument::SymInt),
                Member::AsSymInts => map.next_value::<Option<_>>()?.map(Argument::SymInts),
                Member::AsGraph => map.next_value::<Option<_>>()?.map(Argument::Graph),
                Member::Other => map.next_value::<IgnoredAny>().map(|_| None)?,
            };
            found = found.or(value);
        }
        Ok(found.unwrap_or(Argument::Other))
    }
}

#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Argument<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Argument<'a>, D::Error> {
        deserializer.deserialize_map(ArgumentVisitor(PhantomData))
    }
}

macro_rules! members {
    ($($name:ident $variant:ident $type:ty;)*) => {
        /// Each member, where it is the one present.
        impl<'a> Argument<'a> {
            $(pub(super) fn $name(&self) -> Option<&$type> {
                if let Argument::$variant(value) = self { Some(value) } else { None }
            })*
        }
    };
}

members! {
    as_tensor Tensor NameRef<'a>;
    as_tensors Tensors Vec<NameRef<'a>>;
    as_optional_tensors OptionalTensors Vec<OptionalTensor<'a>>;
    as_optional_tensor OptionalTensor OptionalTensor<'a>;
    as_int Int i64;
    as_ints Ints Vec<i64>;
    as_float Float FloatJson;
    as_bool Bool bool;
    as_bools Bools Vec<bool>;
    as_nested_tensors NestedTensors Vec<Vec<NameRef<'a>>>;
    as_operator Operator Text<'a>;
    as_string String Text<'a>;
    as_sym_int SymInt SymArgument<'a>;
    as_sym_ints SymInts Vec<SymArgument<'a>>;
    as_graph Graph Box<GraphArgument<'a>>;
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
