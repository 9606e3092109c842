//! Operators that compute each element on its own: arithmetic, comparisons, activations, casts.
//!
//! Not here: what one element costs (the table in `graph/op.rs`).

use crate::graph::{Dim, Function, Kind, Op, Shape, Stated, TensorType, axis_of};
use crate::import::onnx::call::{Call, Plan, Source, Step, one, stated};
use crate::import::onnx::symbols;
use crate::import::onnx::value::{Scalar, Value};
use flopwise_formats::Format;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    if let Some(aligned) = aligned(call) {
        return Some(aligned);
    }
    if let Some(function) = unary(call) {
        return Some(one(Op::Elementwise(function), &[0]));
    }
    if let Some(function) = variadic(call.operator()) {
        return Some(one(Op::Elementwise(function), &call.given()));
    }
    Some(match call.operator() {
        "Pow" => power(call),
        "PRelu" => one(Op::Elementwise(Function::LeakyRelu), &[0, 1]),
        "Cast" => cast(call),
        "CastLike" => call.tensor_type(1).and_then(|like| one(Op::Cast(like.format), &[0])),
        "BitCast" => bit_cast(call),
        "Dropout" if is_dropping(call) => dropout(call),
        "Identity" | "Dropout" => one(Op::Identity, &[0]),
        "Trilu" => one(Op::Copy, &[0]),
        _ => return None,
    })
}

/// Functions of the first input; others, if any, only set their bounds.
fn unary(call: &Call) -> Option<Function> {
    Some(match call.operator() {
        "Abs" => Function::Absolute,
        "Neg" => Function::Negate,
        "Sign" => Function::Sign,
        "Ceil" | "Floor" | "Round" => Function::Round,
        "Exp" => Function::Exp,
        "Log" => Function::Log,
        "Sqrt" => Function::Sqrt,
        "Reciprocal" => Function::Reciprocal,
        "Erf" => Function::Erf,
        "Sin" | "Cos" | "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh" | "Asinh" | "Acosh"
        | "Atanh" => Function::Trigonometric,
        "Not" => Function::Logical,
        "BitwiseNot" => Function::Bitwise,
        "IsInf" | "IsNaN" => Function::Classify,
        "Relu" => Function::Relu,
        "ThresholdedRelu" | "LeakyRelu" => Function::LeakyRelu,
        "Shrink" | "Clip" => Function::Clamp,
        "Sigmoid" => Function::Sigmoid,
        "HardSigmoid" => Function::HardSigmoid,
        "HardSwish" => Function::HardSwish,
        "Swish" if call.float("alpha").is_none_or(|alpha| alpha.total_cmp(&1.0).is_eq()) => {
            Function::Silu
        }
        "Swish" => Function::QuickGelu,
        "Gelu" if call.text("approximate") == Some("tanh") => Function::GeluTanh,
        "Gelu" => Function::GeluErf,
        "Elu" | "Celu" | "Selu" => Function::Elu,
        "Tanh" => Function::Tanh,
        "Softplus" => Function::Softplus,
        "Softsign" => Function::Softsign,
        "Mish" => Function::Mish,
        _ => return None,
    })
}

/// Functions of all inputs, broadcast together.
fn variadic(operator: &str) -> Option<Function> {
    Some(match operator {
        "Add" | "Sum" | "Mean" => Function::Add,
        "Sub" => Function::Sub,
        "Mul" => Function::Mul,
        "Div" => Function::Div,
        "Mod" => Function::Modulo,
        "Min" => Function::Minimum,
        "Max" => Function::Maximum,
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => Function::Compare,
        "And" | "Or" | "Xor" => Function::Logical,
        "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "BitShift" => Function::Bitwise,
        "Where" => Function::Select,
        "SwiGLU" => Function::SwiGlu,
        _ => return None,
    })
}

/// Before version 7 the second operand is aligned with the first at `axis`, or at the end, and a
/// slope per channel at the channels.
fn aligned(call: &Call) -> Option<Plan> {
    if 7 <= call.opset {
        return None;
    }
    let function = match call.operator() {
        "PRelu" => Function::LeakyRelu,
        "Pow" => Function::Power,
        operator => variadic(operator)?,
    };
    let (first, second) = (call.shape(0).ok()?, call.shape(1).ok()?);
    let axis = match (call.operator(), call.int("axis")) {
        ("PRelu", _) if second.len() == 1 && second[0] != Dim::ONE => 1,
        (_, Some(axis)) => axis_of(axis, first.len()).ok()?,
        _ => return None,
    };
    let n_after = first.len().checked_sub(axis + second.len()).filter(|n_after| *n_after != 0)?;
    let shape = Shape([second, &vec![Dim::ONE; n_after]].concat());
    Some(Ok(vec![
        Step { op: Op::Reshape { shape }, operands: vec![Source::Input(1)] },
        Step { op: Op::Elementwise(function), operands: vec![Source::Input(0), Source::Step(0)] },
    ]))
}

/// Exporters write squares and roots as powers.
fn power(call: &Call) -> Plan {
    let exponent = call.value(1).and_then(Value::single);
    let twice = exponent.and_then(|exponent| exponent.as_f64()).map(|exponent| 2.0 * exponent);
    let is_half = twice.is_some_and(|twice| twice.fract().total_cmp(&0.0).is_eq());
    let function = match twice.filter(|_| is_half).map(|twice| twice as i64) {
        Some(6) => Function::Cube,
        Some(4) => Function::Square,
        Some(2) => return one(Op::Identity, &[0]),
        Some(1) => Function::Sqrt,
        Some(-1) => Function::Rsqrt,
        Some(-2) => Function::Reciprocal,
        _ => return one(Op::Elementwise(Function::Power), &[0, 1]),
    };
    one(Op::Elementwise(function), &[0])
}

/// Since version 12 an input tells; before, inference is taken, as it is where only the run knows.
fn is_dropping(call: &Call) -> bool {
    let mode = call.value(2).and_then(Value::single).and_then(Scalar::as_i128);
    12 <= call.opset && mode.is_some_and(|mode| mode != 0)
}

/// A comparison with the ratio, and products with the mask and the scale; how random numbers are
/// drawn is the runtime's choice and not counted.
fn dropout(call: &Call) -> Plan {
    let data = call.tensor_type(0)?;
    let mask = TensorType { shape: data.shape.clone(), format: Format::BOOL };
    let other = &data.shape.elements() * &Dim::from(3);
    let dropout = Stated::new("dropout", Kind::Elementwise, vec![data.clone(), mask]);
    stated(call, Stated { other, ..dropout })
}

fn bit_cast(call: &Call) -> Plan {
    let shape = call.tensor_type(0)?.shape.clone();
    let format = call.format("to").ok_or("casts to a data type that is not known")?;
    one(Op::Bitcast { shape, format }, &[0])
}

fn cast(call: &Call) -> Plan {
    let data_type = call.int("to").and_then(|to| i32::try_from(to).ok()).unwrap_or(0);
    match symbols::format(data_type) {
        Some(format) => one(Op::Cast(format), &[0]),
        None => Err(format!("casts to data type {data_type}, which is not known")),
    }
}
