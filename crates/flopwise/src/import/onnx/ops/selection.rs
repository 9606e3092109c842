//! Operators whose results are as long as the data decide (non-zero, compress, unique), losses over
//! chosen classes, one-hot results, and texts.
//!
//! Not here: gathering at given indices (`movement.rs`), choosing boxes (`vision.rs`).

use crate::graph::{Dim, Function, Kind, Op, Shape, Stated, TensorType, axis_of};
use crate::import::onnx::call::{Call, Plan, stated};
use crate::import::onnx::value::Scalar;
use flopwise_formats::Format;

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "NonZero" => non_zero(call),
        "Compress" => compress(call),
        "Unique" => Err("how it finds equal elements is the runtime's choice".to_owned()),
        "Multinomial" => Err("how it draws its samples is the runtime's choice".to_owned()),
        "Hardmax" => hardmax(call),
        "NegativeLogLikelihoodLoss" => loss(call, Scores::LogProbabilities),
        "SoftmaxCrossEntropyLoss" => loss(call, Scores::Raw),
        "StringNormalizer" => text(call, string_normalizer_result(call)),
        "StringConcat" => text(call, string_concat_result(call)),
        "RegexFullMatch" => {
            text(call, call.shape(0).map(|shape| vec![typed(shape.to_vec(), Format::BOOL)]))
        }
        "StringSplit" => text(call, string_split_result(call)),
        "TfIdfVectorizer" => Err("how many n-grams match is decided at run time".to_owned()),
        _ => return None,
    })
}

fn typed(shape: Vec<Dim>, format: Format) -> TensorType {
    TensorType { shape: Shape(shape), format }
}

/// `[axes, found]`: one comparison per element.
fn non_zero(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let elements = Dim::product(shape);
    // A scalar is taken as a list of one.
    let rank = Dim::from(shape.len().max(1) as i64);
    let found = call.open(0, 1, Some(elements.clone()));
    let results = vec![typed(vec![rank, found], Format::INT64)];
    let non_zero = Stated::new("non_zero", Kind::Movement, results);
    stated(call, Stated { other: elements, ..non_zero })
}

/// `input, condition`: without an axis the elements are taken as one list. The condition may be
/// shorter than the axis.
fn compress(call: &Call) -> Plan {
    let (input, condition) = (call.shape(0)?, call.shape(1)?);
    let choices = Dim::product(condition);
    let chosen = call.value(1).and_then(|value| {
        let is_chosen = |element: &Scalar| element.as_i128().map(|truth| i128::from(truth != 0));
        let chosen: Option<i128> = value.elements.iter().map(is_chosen).sum();
        u128::try_from(chosen?).ok().map(Dim::from)
    });
    let found = |axis, most: Dim| chosen.clone().unwrap_or_else(|| call.open(0, axis, Some(most)));
    let shape = match call.int("axis") {
        Some(axis) => {
            let axis = axis_of(axis, input.len()).map_err(|error| error.to_string())?;
            let mut shape = input.to_vec();
            shape[axis] = found(axis, choices.minimum(&input[axis]));
            shape
        }
        None => vec![found(0, choices.minimum(&Dim::product(input)))],
    };
    let results = vec![call.like(0, shape)?];
    stated(call, Stated { other: choices, ..Stated::new("compress", Kind::Movement, results) })
}

/// Values, where each first stood, which value each element is, and how often each occurs.
/// <https://onnx.ai/onnx/operators/onnx__Unique.html>
pub(super) fn unique_results(call: &Call) -> Result<Vec<Option<TensorType>>, String> {
    let input = call.shape(0)?;
    let (values, found, length) = match call.int("axis") {
        Some(axis) => {
            let axis = axis_of(axis, input.len()).map_err(|error| error.to_string())?;
            let found = call.open(0, axis, Some(input[axis].clone()));
            let mut values = input.to_vec();
            values[axis] = found.clone();
            (values, found, input[axis].clone())
        }
        None => {
            let elements = Dim::product(input);
            let found = call.open(0, 0, Some(elements.clone()));
            (vec![found.clone()], found, elements)
        }
    };
    let list = |length: &Dim| Some(typed(vec![length.clone()], Format::INT64));
    Ok(vec![Some(call.like(0, values)?), list(&found), list(&length), list(&found)])
}

pub(super) fn multinomial_result(call: &Call) -> Result<TensorType, String> {
    let batch = call.shape(0)?.first().ok_or("its input has no axes")?;
    let samples = Dim::from(call.int("sample_size").unwrap_or(1));
    Ok(typed(vec![batch.clone(), samples], call.format("dtype").unwrap_or(Format::INT32)))
}

/// 1 where the largest of an axis stands, 0 elsewhere: n - 1 comparisons per row of n. Before
/// version 13 a row is all axes from the given one on.
fn hardmax(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let lengths = &input.shape.0;
    let axis = call.axis("axis", if call.opset < 13 { 1 } else { -1 }, lengths.len())?;
    let others = lengths.iter().enumerate().filter(|(at, _)| match call.opset < 13 {
        true => *at < axis,
        false => *at != axis,
    });
    let rows = Dim::product(others.map(|(_, length)| length));
    let other = &input.shape.elements() - &rows;
    let hardmax = Stated::new("hardmax", Kind::Softmax, vec![input.clone()]);
    stated(call, Stated { other, ..hardmax })
}

/// What a loss gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scores {
    LogProbabilities,
    Raw,
}

/// `scores [n, classes, ..], classes [n, ..], [weights]`: per position one score is taken, negated
/// and, with weights, multiplied; a sum adds them, a mean divides by their number or the sum of
/// their weights. Raw scores go through a softmax first, counted like the operator.
/// <https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>
fn loss(call: &Call, scores: Scores) -> Plan {
    let input = call.tensor_type(0)?;
    let positions = Dim::product(call.shape(1)?);
    let is_weighted = call.has(2);
    let joins = if positions == Dim::ZERO { Dim::ZERO } else { &positions - &Dim::ONE };
    let (sums, divisions) = match (call.text("reduction").unwrap_or("mean"), is_weighted) {
        ("none", _) => (Dim::ZERO, Dim::ZERO),
        ("sum", _) => (joins, Dim::ZERO),
        (_, false) => (joins, Dim::ONE),
        (_, true) => (&joins * &Dim::from(2), Dim::ONE),
    };
    let each = if is_weighted { 2 } else { 1 };
    let mut other = &(&positions * &Dim::from(each)) + &sums;
    let mut transcendental = divisions;
    let mut results = vec![call.like(0, loss_shape(call)?)?];
    if scores == Scores::Raw {
        let elements = input.shape.elements();
        other = &other + &(&elements * &Dim::from(3));
        transcendental = &transcendental + &(&elements * &Dim::from(2));
        results.push(input.clone());
    }
    let (name, kind) = match scores {
        Scores::LogProbabilities => ("nll_loss", Kind::Reduction),
        Scores::Raw => ("cross_entropy", Kind::Softmax),
    };
    stated(call, Stated { other, transcendental, ..Stated::new(name, kind, results) })
}

fn loss_shape(call: &Call) -> Result<Vec<Dim>, String> {
    Ok(match call.text("reduction") {
        Some("none") => call.shape(1)?.to_vec(),
        _ => Vec::new(),
    })
}

/// Nothing is computed with texts; that their bytes move is not known here either, since their
/// length is not.
fn text(call: &Call, results: Result<Vec<TensorType>, String>) -> Plan {
    stated(call, Stated::new("text", Kind::Movement, results?))
}

/// Words on a list are left out; of a text without any other one empty word stays.
fn string_normalizer_result(call: &Call) -> Result<Vec<TensorType>, String> {
    let mut shape = call.shape(0)?.to_vec();
    let Some(axis) = shape.len().checked_sub(1) else { return Err("a scalar".to_owned()) };
    if call.has_attribute("stopwords") {
        shape[axis] = call.open(0, axis, Some(shape[axis].clone()));
    }
    Ok(vec![typed(shape, Format::TEXT)])
}

fn string_concat_result(call: &Call) -> Result<Vec<TensorType>, String> {
    let joined = call.ruled(&Op::Elementwise(Function::Add), &[0, 1])?;
    Ok(vec![typed(joined.shape.0, Format::TEXT)])
}

/// As many parts as the longest text has, and how many each has.
fn string_split_result(call: &Call) -> Result<Vec<TensorType>, String> {
    let shape = call.shape(0)?;
    let most =
        call.int("maxsplit").filter(|most| 0 <= *most).map(|most| &Dim::from(most) + &Dim::ONE);
    let parts = call.open(0, shape.len(), most);
    let split = [shape, std::slice::from_ref(&parts)].concat();
    Ok(vec![typed(split, Format::TEXT), typed(shape.to_vec(), Format::INT64)])
}

/// One result per n-gram on the list.
pub(super) fn n_gram_result(call: &Call) -> Result<TensorType, String> {
    let shape = call.shape(0)?;
    let batch = &shape[..shape.len().saturating_sub(1)];
    let last = call.ints("ngram_indexes").unwrap_or_default().iter().copied().max();
    let last = last.filter(|last| 0 <= *last).ok_or("its list of n-grams is empty")?;
    let grams = &Dim::from(last) + &Dim::ONE;
    Ok(typed([batch, std::slice::from_ref(&grams)].concat(), Format::FP32))
}
