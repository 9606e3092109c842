//! `ai.onnx.ml`: classic models (trees, support vectors, linear models) and the encoders around
//! them.
//!
//! Not here: neural networks. <https://onnx.ai/onnx/operators/index.html>

use crate::graph::{Dim, Kind, Shape, Stated, TensorType};
use crate::import::onnx::call::{Call, Plan, stated};
use flopwise_formats::Format;

pub(super) fn plan(call: &Call) -> Plan {
    match call.operator() {
        // A comparison with the threshold.
        "Binarizer" => elementwise(call, "binarizer", 1, call.tensor_type(0)?.format),
        // A subtraction and a multiplication.
        "Scaler" => elementwise(call, "scaler", 2, Format::FP32),
        // A comparison with the value to be replaced.
        "Imputer" => elementwise(call, "imputer", 1, call.tensor_type(0)?.format),
        "LabelEncoder" => match label_format(call) {
            Some(format) => elementwise(call, "label_encoder", 0, format),
            None => Err("it names no values".to_owned()),
        },
        "CategoryMapper" => {
            let is_text = call.tensor_type(0)?.format == Format::TEXT;
            let format = if is_text { Format::INT64 } else { Format::TEXT };
            elementwise(call, "category_mapper", 0, format)
        }
        "ArrayFeatureExtractor" => extract(call),
        "OneHotEncoder" => one_hot(call),
        "LinearRegressor" => linear(call, Format::FP32),
        "Normalizer"
        | "LinearClassifier"
        | "FeatureVectorizer"
        | "SVMClassifier"
        | "SVMRegressor"
        | "TreeEnsemble"
        | "TreeEnsembleClassifier"
        | "TreeEnsembleRegressor" => Err("what a classic model computes is not counted".to_owned()),
        "CastMap" | "DictVectorizer" | "ZipMap" => {
            Err("maps and dictionaries are no tensors".to_owned())
        }
        operator => Err(format!("no rule for {}::{operator}", call.node.domain)),
    }
}

fn elementwise(call: &Call, name: &'static str, each: i64, format: Format) -> Plan {
    let shape = call.tensor_type(0)?.shape.clone();
    let other = &shape.elements() * &Dim::from(each);
    let results = vec![TensorType { shape, format }];
    stated(call, Stated { other, ..Stated::new(name, Kind::Elementwise, results) })
}

/// The format of the values that labels become.
fn label_format(call: &Call) -> Option<Format> {
    let named = [
        ("values_strings", Format::TEXT),
        ("values_int64s", Format::INT64),
        ("values_floats", Format::FP32),
    ];
    let tensor = call.tensor("values_tensor");
    let in_tensor = tensor.and_then(crate::import::onnx::weight::tensor_type);
    let listed = named.into_iter().find(|(name, _)| call.has_attribute(name));
    // Version 1 maps texts to numbers and back with one list.
    let old = call.has_attribute("classes_strings").then(|| {
        let is_text = call.tensor_type(0).is_ok_and(|found| found.format == Format::TEXT);
        if is_text { Format::INT64 } else { Format::TEXT }
    });
    in_tensor.map(|found| found.format).or(listed.map(|(_, format)| format)).or(old)
}

/// Columns of the last axis; a list is taken as one row.
fn extract(call: &Call) -> Plan {
    let (input, columns) = (call.shape(0)?, Dim::product(call.shape(1)?));
    let rows = input.split_last().map_or(&[][..], |(_, rows)| rows);
    let rows = if rows.is_empty() { vec![Dim::ONE] } else { rows.to_vec() };
    let results = vec![call.like(0, [rows, vec![columns]].concat())?];
    stated(call, Stated::new("extract_features", Kind::Movement, results))
}

fn one_hot(call: &Call) -> Plan {
    let shape = call.shape(0)?;
    let listed = call.ints("cats_int64s").filter(|classes| !classes.is_empty());
    let classes = listed.map(|classes| Dim::from(classes.len() as i64));
    let classes = classes.unwrap_or_else(|| call.open(0, shape.len(), None));
    let shape = Shape([shape, std::slice::from_ref(&classes)].concat());
    let results = vec![TensorType { shape, format: Format::FP32 }];
    stated(call, Stated::new("one_hot", Kind::Movement, results))
}

/// One product per feature and target.
fn linear(call: &Call, format: Format) -> Plan {
    let [rows, features] = call.shape(0)? else {
        return Err("its input has not 2 axes".to_owned());
    };
    let targets = Dim::from(call.int("targets").unwrap_or(1));
    let macs = &(rows * features) * &targets;
    let other = if call.has_attribute("intercepts") { rows * &targets } else { Dim::ZERO };
    let results = vec![TensorType { shape: Shape(vec![rows.clone(), targets]), format }];
    stated(call, Stated { macs, other, ..Stated::new("linear_regressor", Kind::MatMul, results) })
}

/// Types of operators above that are not counted.
pub(super) fn results(call: &Call) -> Result<Vec<Option<TensorType>>, String> {
    let rows = || call.shape(0).map(|shape| shape.first().cloned().unwrap_or(Dim::ONE));
    let table = |columns: Dim, format| -> Result<_, String> {
        Ok(Some(TensorType { shape: Shape(vec![rows()?, columns]), format }))
    };
    let labels = |names: &str, texts: &str| -> Result<_, String> {
        let is_text = call.has_attribute(texts) && call.ints(names).is_none_or(<[i64]>::is_empty);
        let format = if is_text { Format::TEXT } else { Format::INT64 };
        Ok(Some(TensorType { shape: Shape(vec![rows()?]), format }))
    };
    let classes = |names: &str| {
        let listed = call.ints(names).filter(|classes| !classes.is_empty());
        let classes = listed.map(|classes| Dim::from(classes.len() as i64));
        classes.unwrap_or_else(|| call.open(1, 1, None))
    };
    let targets = Dim::from(call.int("n_targets").unwrap_or(1));
    Ok(match call.operator() {
        "Normalizer" => {
            vec![Some(TensorType { format: Format::FP32, ..call.tensor_type(0)?.clone() })]
        }
        "TreeEnsembleRegressor" => vec![table(targets, Format::FP32)?],
        "TreeEnsemble" => vec![table(targets, call.tensor_type(0)?.format)?],
        "SVMRegressor" => vec![table(Dim::ONE, Format::FP32)?],
        "FeatureVectorizer" => {
            let widths = call.ints("inputdimensions").unwrap_or_default();
            let total = widths.iter().fold(0i64, |sum, width| sum.saturating_add(*width));
            vec![table(Dim::from(total), Format::FP32)?]
        }
        // How many scores a machine for two classes gives hangs on its coefficients.
        "SVMClassifier" => vec![labels("classlabels_ints", "classlabels_strings")?],
        "LinearClassifier" => vec![
            labels("classlabels_ints", "classlabels_strings")?,
            table(classes("classlabels_ints"), Format::FP32)?,
        ],
        "TreeEnsembleClassifier" => vec![
            labels("classlabels_int64s", "classlabels_strings")?,
            table(classes("classlabels_int64s"), Format::FP32)?,
        ],
        _ => Vec::new(),
    })
}
