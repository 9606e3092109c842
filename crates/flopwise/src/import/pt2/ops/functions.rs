//! Functions of each element.
//!
//! Not here: what an element costs, which `graph/op.rs` tabulates.

use super::{Aten, Family, Input, Lowered, Plan, Result, Step, one};
use crate::graph::{Dim, Function, Op, Range, Storage};

impl Aten<'_, '_, '_> {
    /// Functions of each element.
    pub(super) fn functions(&self, base: &str) -> Family {
        use Function as F;
        let function = match base {
            "gelu" => match self.call.string("approximate") {
                Some("tanh") => Function::GeluTanh,
                _ => Function::GeluErf,
            },
            "pow" | "float_power" => power(self.call.float("exponent")),
            "logaddexp" | "logaddexp2" => return self.composed(&LOG_ADD_EXP).map(Some),
            "hypot" => return self.composed(&[F::Square, F::Add, F::Sqrt]).map(Some),
            "sinc" => return self.composed(&[F::Mul, F::Trigonometric, F::Div]).map(Some),
            "xlogy" | "special_xlogy" | "special_xlog1py" => {
                return self.composed(&[F::Log, F::Mul]).map(Some);
            }
            "special_entr" => return self.composed(&[F::Log, F::Mul, F::Negate]).map(Some),
            "gcd" | "lcm" | "lgamma" | "digamma" | "polygamma" | "mvlgamma" | "igamma"
            | "igammac" | "i0" | "special_i0e" | "special_i1" | "special_i1e"
            | "special_bessel_j0" | "special_bessel_j1" | "special_zeta" | "nextafter" => {
                return Err("a series or an iteration whose length depends on the data".into());
            }
            "_thnn_fused_lstm_cell" => {
                return Err("a kernel of GPUs that is only made while running".into());
            }
            "reglu" => return self.gated(Function::Relu).map(Some),
            "to"
            | "_to_copy"
            | "type_as"
            | "float"
            | "half"
            | "bfloat16"
            | "double"
            | "convert_element_type"
            | "to_dense"
            | "_autocast_to_reduced_precision"
            | "_autocast_to_full_precision" => {
                let input = *self.given(&["self", "a"]).first().ok_or("the input is missing")?;
                let before = self.builder.get(input).tensor_type.as_ref().map(|t| t.format);
                let after = self.call.output_format()?;
                let op = if before == Some(after) { Op::Identity } else { Op::Cast(after) };
                return one(op, &[input]).map(Some);
            }
            "diff" => return self.difference().map(Some),
            "glu" => return self.gated(Function::Sigmoid).map(Some),
            _ => match function_of(base) {
                Some(function) => function,
                None => return Ok(None),
            },
        };
        one(Op::Elementwise(function), &self.call.read_tensors()).map(Some)
    }

    /// One function after the other: the first of all operands, the others of its result.
    fn composed(&self, functions: &[Function]) -> Result<Lowered> {
        let operands: Vec<Input> =
            self.call.read_tensors().into_iter().map(Input::Tensor).collect();
        let mut plan = Plan::default();
        let mut inputs = operands;
        for function in functions {
            inputs = vec![plan.apply(*function, &inputs)];
        }
        Ok(plan.last())
    }

    /// x[1:] - x[:-1] along an axis, after joining what is to stand before and after.
    fn difference(&self) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        if self.call.int("n").unwrap_or(1) != 1 {
            return Err("diff of an order above 1".to_owned());
        }
        let axis = self.axis("dim", input, -1)?;
        let parts = self.given(&["prepend", "self", "append"]);
        let mut length = Dim::ZERO;
        for part in &parts {
            length = &length + &self.shape(*part)?.0[axis];
        }
        let cut = |start: Dim, end: Dim| Op::Slice {
            ranges: vec![Range { axis, start, end, step: 1 }],
            storage: Storage::View,
        };
        let less = &length - &Dim::ONE;
        let joined = parts.into_iter().map(Input::Tensor).collect();
        let step = |op, inputs| Step { op, inputs, n_outputs: 1, format: None };
        let steps = vec![
            step(Op::Concat { axis }, joined),
            step(cut(Dim::ONE, length), vec![Input::made(0)]),
            step(cut(Dim::ZERO, less), vec![Input::made(0)]),
            step(Op::Elementwise(Function::Sub), vec![Input::made(1), Input::made(2)]),
        ];
        Ok(Lowered::last(steps))
    }

    /// First half times a function of the second half.
    fn gated(&self, function: Function) -> Result<Lowered> {
        let input = self.call.tensor("self")?;
        let axis = self.axis("dim", input, -1)?;
        let length = &self.shape(input)?.0[axis];
        let half = length.floor_div(&Dim::from(2i64));
        let cut = |start: Dim, end: Dim| Op::Slice {
            ranges: vec![Range { axis, start, end, step: 1 }],
            storage: Storage::View,
        };
        let step = |op, inputs| Step { op, inputs, n_outputs: 1, format: None };
        let steps = vec![
            step(cut(Dim::ZERO, half.clone()), vec![Input::Tensor(input)]),
            step(cut(half, length.clone()), vec![Input::Tensor(input)]),
            step(Op::Elementwise(function), vec![Input::made(1)]),
            step(Op::Elementwise(Function::Mul), vec![Input::made(0), Input::made(2)]),
        ];
        Ok(Lowered::last(steps))
    }
}

/// max + log(1 + exp(min - max))
const LOG_ADD_EXP: [Function; 4] =
    [Function::Maximum, Function::Sub, Function::Softplus, Function::Add];

/// x^2 and x^3 are multiplications, x^0.5 a root; others need exp and log.
fn power(exponent: Option<f64>) -> Function {
    let is = |value: f64| exponent.is_some_and(|e| e.total_cmp(&value).is_eq());
    if is(2.0) {
        Function::Square
    } else if is(3.0) {
        Function::Cube
    } else if is(0.5) {
        Function::Sqrt
    } else if is(-0.5) {
        Function::Rsqrt
    } else if is(-1.0) {
        Function::Reciprocal
    } else {
        Function::Power
    }
}

/// Functions of each element, by ATen name.
fn function_of(base: &str) -> Option<Function> {
    Some(match base {
        "add" | "_add_relu" => Function::Add,
        "sub" | "subtract" | "rsub" => Function::Sub,
        "mul" | "multiply" | "ldexp" => Function::Mul,
        "div" | "divide" | "true_divide" | "floor_divide" | "nan_divide" => Function::Div,
        "remainder" | "fmod" => Function::Modulo,
        "square" => Function::Square,
        "neg" | "negative" => Function::Negate,
        "abs" | "absolute" | "angle_abs" => Function::Absolute,
        "sign" | "sgn" | "copysign" | "heaviside" => Function::Sign,
        "floor" | "ceil" | "round" | "trunc" | "fix" | "frac" => Function::Round,
        "minimum" | "fmin" => Function::Minimum,
        "maximum" | "fmax" => Function::Maximum,
        "addcmul" => Function::MultiplyAdd,
        "addcdiv" => Function::DivideAdd,
        "lerp" => Function::Interpolate,
        "exp" | "exp2" | "special_exp2" | "expm1" | "special_expm1" => Function::Exp,
        "log" | "log2" | "log10" | "log1p" | "special_log1p" => Function::Log,
        "sqrt" => Function::Sqrt,
        "rsqrt" => Function::Rsqrt,
        "reciprocal" => Function::Reciprocal,
        "sin" | "cos" | "tan" | "asin" | "acos" | "atan" | "atan2" | "sinh" | "cosh" | "asinh"
        | "acosh" | "atanh" | "arcsin" | "arccos" | "arctan" | "arctan2" | "arcsinh"
        | "arccosh" | "arctanh" | "angle" | "deg2rad" | "rad2deg" => Function::Trigonometric,
        "erf" | "erfc" | "erfinv" | "special_erf" | "special_erfc" | "special_ndtr" => {
            Function::Erf
        }
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "isclose" | "not_equal" | "less"
        | "less_equal" | "greater" | "greater_equal" | "isin" | "equal" | "allclose" => {
            Function::Compare
        }
        "logical_and" | "logical_or" | "logical_not" | "logical_xor" | "__and__" | "__or__"
        | "__xor__" | "__iand__" | "__ior__" => Function::Logical,
        "bitwise_and"
        | "bitwise_or"
        | "bitwise_xor"
        | "bitwise_not"
        | "__lshift__"
        | "__rshift__"
        | "bitwise_left_shift"
        | "bitwise_right_shift" => Function::Bitwise,
        "isnan" | "isinf" | "isfinite" | "isposinf" | "isneginf" | "isreal" | "signbit"
        | "nan_to_num" => Function::Classify,
        "relu" | "threshold" | "hardshrink" => Function::Relu,
        "relu6" | "hardtanh" | "clamp" | "clip" | "softshrink" => Function::Clamp,
        "clamp_min" => Function::Maximum,
        "clamp_max" => Function::Minimum,
        "leaky_relu"
        | "prelu"
        | "rrelu"
        | "_prelu_kernel"
        | "rrelu_with_noise"
        | "rrelu_with_noise_functional" => Function::LeakyRelu,
        "sigmoid"
        | "log_sigmoid"
        | "log_sigmoid_forward"
        | "logit"
        | "special_expit"
        | "special_logit" => Function::Sigmoid,
        "hardsigmoid" => Function::HardSigmoid,
        "hardswish" => Function::HardSwish,
        "silu" => Function::Silu,
        "elu" | "selu" | "celu" => Function::Elu,
        "tanh" => Function::Tanh,
        "softplus" => Function::Softplus,
        "softsign" => Function::Softsign,
        "mish" => Function::Mish,
        _ => return None,
    })
}
