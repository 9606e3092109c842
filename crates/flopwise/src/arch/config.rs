//! [`Config`]: the description of a model (a `config.json`, or a row of the built-in names), read
//! strictly: a missing field is named, a value out of range is refused, and what is assumed for a
//! field that is not there is kept for a note.
//!
//! Not here: what the fields mean (the builders of `arch`).

use crate::error::Error;
use flopwise_formats::Format;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::rc::Rc;

/// No layer of any model is wider, nor its vocabulary larger.
const MAX_SIZE: i64 = (1 << 28) - 1;
/// More layers than this are damage or attack; the deepest models have about 200.
const MAX_LAYERS: i64 = 4096;
/// A description is a few kilobytes; lists of languages or labels make some a megabyte.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// A description's fields.
#[derive(Clone, Debug)]
pub(super) struct Config {
    fields: Map<String, Value>,
    /// Where it stands in the whole: empty, or `text_config`.
    place: String,
    assumed: Rc<RefCell<Vec<String>>>,
}

impl Config {
    /// Reads JSON text.
    pub(super) fn parse(text: &[u8]) -> Result<Config, Error> {
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            Error::new(format!("is not JSON: {error}")).remedy("save or download it again")
        })?;
        Config::from_value(value)
    }

    pub(super) fn from_value(value: Value) -> Result<Config, Error> {
        match value {
            Value::Object(fields) => {
                Ok(Config { fields, place: String::new(), assumed: Rc::default() })
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Error::new("is JSON, but no object of fields")
                .remedy("give the config.json of a model")),
        }
    }

    /// What was assumed so far, each as `field = value`.
    pub(super) fn assumed(&self) -> Vec<String> {
        self.assumed.borrow().clone()
    }

    /// Says what is assumed for a field that is not there.
    pub(super) fn assume(&self, field: &str, value: impl std::fmt::Display) {
        let line = format!("{} = {value}", self.path(field));
        let mut assumed = self.assumed.borrow_mut();
        if !assumed.contains(&line) {
            assumed.push(line);
        }
    }

    /// An error about a field.
    pub(super) fn error(&self, field: &str, what: impl std::fmt::Display) -> Error {
        Error::new(format!("`{}` {what}", self.path(field)))
    }

    fn path(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// Whether a field is there and null.
    pub(super) fn is_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Value::is_null)
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// Puts a field, as a builder's own default or under another name.
    pub(super) fn set(&mut self, field: &str, value: Value) {
        self.fields.insert(field.to_owned(), value);
    }

    /// Puts what the reference implementation takes for a size that is not there, and says so.
    pub(super) fn default(&mut self, field: &str, value: i64) -> Result<(), Error> {
        let size = self.size_or(field, value)?;
        self.set(field, Value::from(size));
        Ok(())
    }

    fn missing(&self, field: &str) -> Error {
        self.error(field, "is missing").remedy("add it; nothing is assumed for it")
    }

    /// A whole number between two bounds.
    fn whole(&self, field: &str, min: i64, max: i64) -> Result<Option<i64>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        // Some exporters write 4096.0.
        let number = value.as_i64().or_else(|| {
            let float = value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
            float.map(|float| float as i64)
        });
        match number {
            Some(number) if min <= number && number <= max => Ok(Some(number)),
            Some(_) | None => {
                let mut shown = value.to_string();
                if let Some((end, _)) = shown.char_indices().nth(40) {
                    shown.truncate(end);
                }
                Err(self.error(field, format!("is {shown}; it must be {min} to {max}")))
            }
        }
    }

    /// A size of 1 or more.
    pub(super) fn size(&self, field: &str) -> Result<i64, Error> {
        self.optional(field)?.ok_or_else(|| self.missing(field))
    }

    /// A size of 1 or more, where it is there.
    pub(super) fn optional(&self, field: &str) -> Result<Option<i64>, Error> {
        self.whole(field, 1, MAX_SIZE)
    }

    /// The first of several names that is there.
    pub(super) fn size_of(&self, fields: &[&str]) -> Result<i64, Error> {
        for field in fields {
            if let Some(size) = self.optional(field)? {
                return Ok(size);
            }
        }
        Err(self.missing(fields.first().copied().unwrap_or_default()))
    }

    /// A size, or what the reference implementation takes without it.
    pub(super) fn size_or(&self, field: &str, default: i64) -> Result<i64, Error> {
        Ok(self.optional(field)?.unwrap_or_else(|| {
            self.assume(field, default);
            default
        }))
    }

    /// A number that may be 0, or what the reference implementation takes without it.
    pub(super) fn count_or(&self, field: &str, default: i64) -> Result<i64, Error> {
        Ok(self.whole(field, 0, MAX_SIZE)?.unwrap_or_else(|| {
            self.assume(field, default);
            default
        }))
    }

    /// A number that may be 0, where it is there.
    pub(super) fn count(&self, field: &str) -> Result<Option<i64>, Error> {
        self.whole(field, 0, MAX_SIZE)
    }

    /// A number of layers.
    pub(super) fn layers(&self, fields: &[&str]) -> Result<i64, Error> {
        for field in fields {
            if let Some(layers) = self.whole(field, 1, MAX_LAYERS)? {
                return Ok(layers);
            }
        }
        Err(self.missing(fields.first().copied().unwrap_or_default()))
    }

    /// A number with a fraction, where it is there.
    pub(super) fn number(&self, field: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| self.error(field, "is no number"))
    }

    /// Yes or no, where it is there.
    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.error(field, "is neither true nor false"))
    }

    /// Yes or no, or what the reference implementation takes without it.
    pub(super) fn flag_or(&self, field: &str, default: bool) -> Result<bool, Error> {
        Ok(self.flag(field)?.unwrap_or_else(|| {
            self.assume(field, default);
            default
        }))
    }

    /// A word, where it is there.
    pub(super) fn text(&self, field: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.error(field, "is no text"))
    }

    /// A list, where it is there.
    pub(super) fn list(&self, field: &str) -> Result<Option<&[Value]>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let list = value.as_array().map(Vec::as_slice);
        list.map(Some).ok_or_else(|| self.error(field, "is no list"))
    }

    /// A list of words, where it is there.
    pub(super) fn texts(&self, field: &str) -> Result<Option<Vec<&str>>, Error> {
        let Some(list) = self.list(field)? else { return Ok(None) };
        let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
        texts.map(Some).ok_or_else(|| self.error(field, "is no list of words"))
    }

    /// A list of sizes that may be 0, where it is there.
    pub(super) fn sizes(&self, field: &str) -> Result<Option<Vec<i64>>, Error> {
        let Some(list) = self.list(field)? else { return Ok(None) };
        let size = |value: &Value| value.as_i64().filter(|size| 0 <= *size && *size <= MAX_SIZE);
        let sizes: Option<Vec<i64>> = list.iter().map(size).collect();
        sizes.map(Some).ok_or_else(|| self.error(field, "is no list of sizes"))
    }

    /// One word per layer, or an error that says how many there are.
    pub(super) fn text_per_layer(
        &self,
        field: &str,
        layers: i64,
    ) -> Result<Option<Vec<&str>>, Error> {
        let texts = self.texts(field)?;
        if let Some(texts) = &texts
            && i64::try_from(texts.len()) != Ok(layers)
        {
            let n_texts = texts.len();
            return Err(self.error(field, format!("has {n_texts} entries for {layers} layers")));
        }
        Ok(texts)
    }

    /// The fields below a field, where it is there.
    pub(super) fn sub(&self, field: &str) -> Result<Option<Config>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let Value::Object(fields) = value else {
            return Err(self.error(field, "is no object of fields"));
        };
        let (fields, place) = (fields.clone(), self.path(field));
        Ok(Some(Config { fields, place, assumed: Rc::clone(&self.assumed) }))
    }

    /// The format of weights and activations: `torch_dtype` or `dtype`.
    pub(super) fn format(&self) -> Result<Format, Error> {
        let field = if self.has("torch_dtype") { "torch_dtype" } else { "dtype" };
        let Some(name) = self.text(field)? else {
            self.assume("torch_dtype", "float32");
            return Ok(Format::FP32);
        };
        match name.trim_start_matches("torch.") {
            "float32" | "float" => Ok(Format::FP32),
            "float16" | "half" => Ok(Format::FP16),
            "bfloat16" => Ok(Format::BF16),
            "float64" | "double" => Ok(Format::FP64),
            other => Err(self
                .error(field, format!("is `{other}`, no format weights are known to have"))
                .remedy("float32, float16 and bfloat16 are")),
        }
    }
}
