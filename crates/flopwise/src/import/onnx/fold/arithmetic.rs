//! Known tensors through arithmetic, comparisons, choices and sums.
//!
//! Not here: moving elements (`movement.rs`).

use crate::graph::Dim;
use crate::import::onnx::call::Call;
use crate::import::onnx::symbols;
use crate::import::onnx::value::{Scalar, Value, indices, place_of, strides};
use flopwise_formats::Format;
use flopwise_formats::codec::{self, Rules};

pub(super) fn evaluate(call: &Call) -> Option<Value> {
    match call.operator() {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Equal" | "Less" | "LessOrEqual"
        | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" => pairwise(call),
        "Min" | "Max" | "Sum" => folded(call),
        "Neg" | "Abs" | "Floor" | "Ceil" | "Round" | "Sqrt" | "Not" | "Reciprocal" => {
            let value = call.value(0)?;
            let format = value.format;
            mapped(value, format, |element| unary(call.operator(), element, format))
        }
        "Cast" => cast(call.value(0)?, symbols::format(i32::try_from(call.int("to")?).ok()?)?),
        "CastLike" => cast(call.value(0)?, call.tensor_type(1).ok()?.format),
        "Clip" => clip(call),
        "Where" => choose(call),
        "ReduceSum" | "ReduceProd" | "ReduceMax" | "ReduceMin" => reduce(call),
        "CumSum" => cumulative_sum(call),
        _ => None,
    }
}

fn mapped(
    value: &Value,
    format: Format,
    function: impl Fn(&Scalar) -> Option<Scalar>,
) -> Option<Value> {
    let elements: Option<Vec<Scalar>> = value.elements.iter().map(function).collect();
    Value::new(format, value.shape.clone(), elements?)
}

fn pairwise(call: &Call) -> Option<Value> {
    let (a, b) = (call.value(0)?, call.value(1)?);
    let is_truth = !matches!(call.operator(), "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow");
    let operands = a.format;
    let format = if is_truth { Format::BOOL } else { operands };
    // Python's sign of a remainder by default, C's with the flag.
    let operator = match call.operator() {
        "Mod" if call.is_set("fmod", false) => "Fmod",
        operator => operator,
    };
    combined(a, b, format, |a, b| binary(operator, a, b, operands))
}

fn folded(call: &Call) -> Option<Value> {
    let operator = if call.operator() == "Sum" { "Add" } else { call.operator() };
    let mut total = call.value(0)?.clone();
    let format = total.format;
    for slot in 1..call.operands.len() {
        total = combined(&total, call.value(slot)?, format, |a, b| binary(operator, a, b, format))?;
    }
    Some(total)
}

/// Both operands broadcast together, then `function` for each pair.
fn combined(
    a: &Value,
    b: &Value,
    format: Format,
    function: impl Fn(&Scalar, &Scalar) -> Option<Scalar>,
) -> Option<Value> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (a, b) = (expanded(a, &shape)?, expanded(b, &shape)?);
    let pairs = a.elements.iter().zip(b.elements.iter());
    let elements: Option<Vec<Scalar>> = pairs.map(|(a, b)| function(a, b)).collect();
    Value::new(format, shape, elements?)
}

pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(axis) => shape[axis],
        None => 1,
    };
    let lengths = (0..rank).map(|axis| match (at(a, axis), at(b, axis)) {
        (a, b) if a == b => Some(a),
        (1, length) | (length, 1) => Some(length),
        _ => None,
    });
    lengths.collect()
}

/// `value` repeated along axes of length 1 and new leading axes.
pub(super) fn expanded(value: &Value, shape: &[usize]) -> Option<Value> {
    if value.shape == shape {
        return Some(value.clone());
    }
    let missing = shape.len().checked_sub(value.shape.len())?;
    let mut steps = strides(&value.shape);
    for (step, length) in steps.iter_mut().zip(&value.shape) {
        *step = if *length == 1 { 0 } else { *step };
    }
    value.rearranged(shape.to_vec(), |index| Some(place_of(&index[missing..], &steps)))
}

fn binary(operator: &str, a: &Scalar, b: &Scalar, format: Format) -> Option<Scalar> {
    match (a, b) {
        (Scalar::Exact(a), Scalar::Exact(b)) => exact(operator, a, b, format),
        _ => real(operator, a.as_f64()?, b.as_f64()?, format),
    }
}

fn exact(operator: &str, a: &Dim, b: &Dim, format: Format) -> Option<Scalar> {
    let truth = |truth: Option<bool>| truth.map(Scalar::boolean);
    // Between integers, a < b is a + 1 <= b.
    let is_below = |a: &Dim, b: &Dim| (a + &Dim::ONE).is_at_most(b);
    let is_true = |dim: &Dim| dim.is_equal(&Dim::ZERO).map(|is_zero| !is_zero);
    let dim = match operator {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" if format.is_float() => return real_quotient(a, b, format),
        "Div" => truncated_quotient(a, b)?,
        "Mod" => modulo(a, b)?,
        "Fmod" => a - &(&truncated_quotient(a, b)? * b),
        "Pow" => power(a, b, format)?,
        "Min" => a.minimum(b),
        "Max" => a.maximum(b),
        "Equal" => return truth(a.is_equal(b)),
        "Less" => return truth(is_below(a, b)),
        "LessOrEqual" => return truth(a.is_at_most(b)),
        "Greater" => return truth(is_below(b, a)),
        "GreaterOrEqual" => return truth(b.is_at_most(a)),
        "And" => return truth(Some(is_true(a)? && is_true(b)?)),
        "Or" => return truth(Some(is_true(a)? || is_true(b)?)),
        "Xor" => return truth(Some(is_true(a)? != is_true(b)?)),
        _ => return None,
    };
    (!dim.is_overflow()).then_some(Scalar::Exact(dim))
}

fn real_quotient(a: &Dim, b: &Dim, format: Format) -> Option<Scalar> {
    if let Some(quotient) = a.exact_div(b) {
        return Some(Scalar::Exact(quotient));
    }
    real("Div", a.as_constant()? as f64, b.as_constant()? as f64, format)
}

/// Integer division rounds towards zero; that is rounding down where neither side is negative.
fn truncated_quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    if let (Some(a), Some(b)) = (a.as_constant(), b.as_constant()) {
        return i64::try_from(a.checked_div(b)?).ok().map(Dim::from);
    }
    let is_plain = Dim::ZERO.is_at_most(a) == Some(true) && Dim::ONE.is_at_most(b) == Some(true);
    is_plain.then(|| a.floor_div(b))
}

fn modulo(a: &Dim, b: &Dim) -> Option<Dim> {
    if let (Some(a), Some(b)) = (a.as_constant(), b.as_constant()) {
        let remainder = a.checked_rem(b)?;
        let is_other_sign = remainder != 0 && (remainder < 0) != (b < 0);
        let remainder = if is_other_sign { remainder + b } else { remainder };
        return i64::try_from(remainder).ok().map(Dim::from);
    }
    (Dim::ONE.is_at_most(b) == Some(true)).then(|| a.modulo(b))
}

fn power(a: &Dim, b: &Dim, format: Format) -> Option<Dim> {
    const MAX_EXPONENT: i128 = 16;
    let exponent = b.as_constant()?;
    if 0 <= exponent && exponent <= MAX_EXPONENT {
        return Some((0..exponent).fold(Dim::ONE, |product, _| &product * a));
    }
    real("Pow", a.as_constant()? as f64, exponent as f64, format)?.exact().cloned()
}

fn real(operator: &str, a: f64, b: f64, format: Format) -> Option<Scalar> {
    let number = match operator {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" => a / b,
        "Fmod" => a % b,
        "Pow" => a.powf(b),
        "Min" => a.min(b),
        "Max" => a.max(b),
        "Equal" => return Some(Scalar::boolean(a.partial_cmp(&b)?.is_eq())),
        "Less" => return Some(Scalar::boolean(a < b)),
        "LessOrEqual" => return Some(Scalar::boolean(a <= b)),
        "Greater" => return Some(Scalar::boolean(b < a)),
        "GreaterOrEqual" => return Some(Scalar::boolean(b <= a)),
        _ => return None,
    };
    Some(rounded(number, format))
}

/// As a runtime would store it: one operation in f64 on f32 operands, rounded to f32, is the f32
/// operation.
fn rounded(number: f64, format: Format) -> Scalar {
    // Rounding to f32 first would round twice.
    if format.is_float() && format.bits < 32 {
        let code = codec::encode_f64(format, number, Rules::IEEE).code;
        return Scalar::float(codec::decode_f64(format, code));
    }
    let is_single = format == Format::FP32;
    Scalar::float(if is_single { f64::from(number as f32) } else { number })
}

fn unary(operator: &str, element: &Scalar, format: Format) -> Option<Scalar> {
    match (operator, element) {
        ("Floor" | "Ceil" | "Round", Scalar::Exact(_)) => Some(element.clone()),
        ("Neg", Scalar::Exact(dim)) => Some(Scalar::Exact(-dim)),
        ("Abs", Scalar::Exact(dim)) => match Dim::ZERO.is_at_most(dim)? {
            true => Some(element.clone()),
            false => Some(Scalar::Exact(-dim)),
        },
        ("Not", Scalar::Exact(dim)) => dim.is_equal(&Dim::ZERO).map(Scalar::boolean),
        _ => {
            let number = element.as_f64()?;
            let number = match operator {
                "Floor" => number.floor(),
                "Ceil" => number.ceil(),
                "Round" => number.round_ties_even(),
                "Neg" => -number,
                "Abs" => number.abs(),
                "Sqrt" => number.sqrt(),
                "Reciprocal" => 1.0 / number,
                _ => return None,
            };
            Some(rounded(number, format))
        }
    }
}

pub(super) fn cast(value: &Value, format: Format) -> Option<Value> {
    mapped(value, format, |element| match element {
        Scalar::Exact(dim) if format == Format::BOOL => {
            dim.is_equal(&Dim::ZERO).map(|is_zero| Scalar::boolean(!is_zero))
        }
        Scalar::Exact(_) => Some(element.clone()),
        Scalar::Float(number) if format.is_float() => Some(rounded(*number, format)),
        // No fraction is zero.
        Scalar::Float(_) if format == Format::BOOL => Some(Scalar::boolean(true)),
        Scalar::Float(number) => {
            Some(Scalar::float(number.trunc())).filter(|cast| cast.exact().is_some())
        }
    })
}

/// Bounds are attributes before version 11.
fn clip(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let format = value.format;
    let attribute = |name| call.float(name).map(|bound| Scalar::float(f64::from(bound)));
    let bound = |slot, name| match call.has(slot) {
        true => call.value(slot).and_then(Value::single).cloned().map(Some),
        false => Some(attribute(name)),
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    mapped(value, format, |element| {
        let mut element = element.clone();
        if let Some(low) = &low {
            element = binary("Max", &element, low, format)?;
        }
        if let Some(high) = &high {
            element = binary("Min", &element, high, format)?;
        }
        Some(element)
    })
}

fn choose(call: &Call) -> Option<Value> {
    let (condition, yes, no) = (call.value(0)?, call.value(1)?, call.value(2)?);
    let shape = broadcast(&broadcast(&condition.shape, &yes.shape)?, &no.shape)?;
    let condition = expanded(condition, &shape)?;
    let (yes, no) = (expanded(yes, &shape)?, expanded(no, &shape)?);
    let choices = condition.elements.iter().zip(yes.elements.iter().zip(no.elements.iter()));
    let chosen = choices.map(|(condition, (yes, no))| match condition.as_i128()? {
        0 => Some(no.clone()),
        _ => Some(yes.clone()),
    });
    let chosen: Option<Vec<Scalar>> = chosen.collect();
    Value::new(yes.format, shape, chosen?)
}

fn reduce(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let operator = match call.operator() {
        "ReduceSum" => "Add",
        "ReduceProd" => "Mul",
        "ReduceMax" => "Max",
        _ => "Min",
    };
    let rank = value.shape.len();
    let axes = call.axes(1, rank).ok()?.filter(|axes| !axes.is_empty());
    if axes.is_none() && call.is_set("noop_with_empty_axes", false) {
        return Some(value.clone());
    }
    let is_reduced = |axis: &usize| axes.as_ref().is_none_or(|axes| axes.contains(axis));
    let ones = (0..rank).map(|axis| if is_reduced(&axis) { 1 } else { value.shape[axis] });
    let shape: Vec<usize> = ones.collect();
    let mut steps = strides(&shape);
    for axis in (0..rank).filter(is_reduced) {
        steps[axis] = 0;
    }
    let mut totals: Vec<Option<Scalar>> = vec![None; shape.iter().product()];
    for (index, element) in indices(&value.shape).zip(value.elements.iter()) {
        let total = totals.get_mut(place_of(&index, &steps))?;
        *total = Some(match total.take() {
            Some(before) => binary(operator, &before, element, value.format)?,
            None => element.clone(),
        });
    }
    let empty = match operator {
        "Add" => Some(Scalar::Exact(Dim::ZERO)),
        "Mul" => Some(Scalar::Exact(Dim::ONE)),
        _ => None,
    };
    let totals: Option<Vec<Scalar>> =
        totals.into_iter().map(|total| total.or_else(|| empty.clone())).collect();
    let kept: Vec<usize> = match call.is_set("keepdims", true) {
        true => shape,
        false => {
            let kept = (0..rank).filter(|axis| !is_reduced(axis));
            kept.map(|axis| value.shape[axis]).collect()
        }
    };
    Value::new(value.format, kept, totals?)
}

fn cumulative_sum(call: &Call) -> Option<Value> {
    let value = call.value(0)?;
    let is_plain = !call.is_set("exclusive", false) && !call.is_set("reverse", false);
    // Exporters number positions along a list; other forms do not occur in shapes.
    if value.shape.len() != 1 || !is_plain {
        return None;
    }
    let mut total = Scalar::Exact(Dim::ZERO);
    let sums = value.elements.iter().map(|element| {
        total = binary("Add", &total, element, value.format)?;
        Some(total.clone())
    });
    let sums: Option<Vec<Scalar>> = sums.collect();
    Value::new(value.format, value.shape.clone(), sums?)
}
