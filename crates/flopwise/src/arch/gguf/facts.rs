//! [`Facts`]: the keys of one architecture in the metadata of a GGUF file, read strictly, and which
//! tensors there are.
//!
//! Not here: what they mean (`rows.rs`).

use crate::error::Error;
use crate::weights::gguf::{Gguf, Tensor, Value};
use std::collections::HashMap;

/// Keys and tensors.
pub(super) struct Facts<'a> {
    gguf: &'a Gguf,
    architecture: &'static str,
    by_name: HashMap<&'a str, &'a Tensor>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(gguf: &'a Gguf, architecture: &'static str) -> Facts<'a> {
        let by_name = gguf.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Facts { gguf, architecture, by_name }
    }

    fn error(&self, key: &str, what: &str) -> Error {
        Error::new(what).at(format!("metadata `{}.{key}`", self.architecture))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.gguf.metadata.get(&format!("{}.{key}", self.architecture))
    }

    /// A whole number; of one per layer, that which all layers have.
    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Value::List(_) = value {
            let list = self.numbers(key)?.unwrap_or_default();
            let Some(first) = list.first() else {
                return Err(self.error(key, "is an empty list"));
            };
            return match list.iter().all(|number| number == first) {
                true => Ok(Some(*first)),
                false => {
                    Err(self.error(key, "differs from layer to layer, for which no rule is known"))
                }
            };
        }
        self.whole(key, value).map(Some)
    }

    /// As [`Facts::number`]; must be there.
    pub(super) fn needed(&self, key: &str) -> Result<i64, Error> {
        let missing = || self.error(key, "is missing").remedy("convert the model again");
        self.number(key)?.ok_or_else(missing)
    }

    fn whole(&self, key: &str, value: &Value) -> Result<i64, Error> {
        let number = match value {
            Value::Whole(number) => i64::try_from(*number).ok(),
            Value::Flag(flag) => Some(i64::from(*flag)),
            Value::Real(_) | Value::Text(_) | Value::List(_) | Value::Long(_) => None,
        };
        number.ok_or_else(|| self.error(key, &format!("is {value}, no whole number")))
    }

    /// One whole number per layer, where the key has a list.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<i64>>, Error> {
        match self.get(key) {
            Some(Value::List(values)) => values
                .iter()
                .map(|value| self.whole(key, value))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(Value::Long(_)) => Err(self.error(key, "is a list of too many entries")),
            Some(Value::Whole(_) | Value::Real(_) | Value::Flag(_) | Value::Text(_)) | None => {
                Ok(None)
            }
        }
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// A number with a fraction.
    pub(super) fn real(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            Some(Value::Real(number)) => Some(*number),
            _ => None,
        }
    }

    /// A tensor by its whole name.
    pub(super) fn tensor(&self, name: &str) -> Option<&'a Tensor> {
        self.by_name.get(name).copied()
    }

    /// Whether there is such a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether any layer has a tensor of this name.
    pub(super) fn some_layer_has(&self, name: &str) -> bool {
        self.gguf.tensors.iter().any(|tensor| {
            let rest = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            rest.is_some_and(|(_, rest)| rest == name)
        })
    }

    /// The length of an axis of a tensor.
    pub(super) fn axis(&self, name: &str, axis: usize) -> Option<i64> {
        let length = self.tensor(name)?.shape.get(axis)?;
        i64::try_from(*length).ok()
    }
}
