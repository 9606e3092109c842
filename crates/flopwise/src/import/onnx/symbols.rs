//! Sizes that an ONNX file leaves open: symbols of its inputs, and declared shapes.
//!
//! Not here: sizes that follow from operators (see [`crate::graph::infer`]). Sizes without a name
//! are named by where they stand. The texts are free in ONNX
//! (<https://onnx.ai/onnx/repo-docs/IR.html#static-tensor-shapes>); PyTorch's dynamo exporter writes
//! expressions such as `4*_height` or `seq + 1` into them.

use super::wire::{DimensionProto, TypeProto, ValueInfoProto};
use crate::graph::{Dim, MAX_DIM, Shape, Symbol, TensorType};
use flopwise_formats::Format;
use std::collections::HashMap;

/// Longer texts are names, not expressions.
const MAX_EXPRESSION_CHARS: usize = 256;
/// Deepest nesting of parentheses in an expression.
const MAX_DEPTH: u32 = 16;

/// The symbols that the inputs introduce, in order of appearance.
#[derive(Default)]
pub(super) struct Symbols {
    pub(super) found: Vec<Symbol>,
    /// Where each stands in `found`.
    known: HashMap<String, usize>,
}

impl Symbols {
    /// Whether an input has a size of this name.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// The type of a graph input; sizes left open become symbols.
    pub(super) fn input_type(&mut self, input: &ValueInfoProto) -> Option<TensorType> {
        let declared = input.r#type.as_ref()?;
        let tensor_type = declared.tensor_type.as_ref().or(declared.sparse_tensor_type.as_ref())?;
        let format = format(tensor_type.elem_type)?;
        let dims = tensor_type.shape.as_ref()?.dim.iter().enumerate();
        let lengths = dims.map(|(axis, dim)| self.input_dim(&input.name, format, axis, dim));
        Some(TensorType { shape: Shape(lengths.collect()), format })
    }

    fn input_dim(&mut self, input: &str, format: Format, axis: usize, dim: &DimensionProto) -> Dim {
        // 0 and negative lengths are how some exporters write "unknown".
        if let Some(value) = dim.dim_value.filter(|value| 0 < *value) {
            return Dim::from(value);
        }
        let usual = usual_name(format, axis);
        let text = dim.dim_param.as_deref().map(str::trim).unwrap_or_default();
        let is_unnamed = matches!(text, "" | "?" | "-1" | "None");
        let length = if is_unnamed {
            let name = usual.map_or_else(|| format!("{input}.dim{axis}"), str::to_owned);
            Dim::symbol(&name)
        } else {
            expression(text).unwrap_or_else(|| Dim::symbol(text))
        };
        let place = format!("dim {axis} of input {input}");
        for name in length.symbols() {
            let is_whole = length == Dim::symbol(&name);
            let place = if is_whole { place.clone() } else { format!("{place}, which is {text}") };
            self.introduce(&name, place, usual.filter(|_| is_whole));
        }
        length
    }

    fn introduce(&mut self, name: &str, place: String, alias: Option<&str>) {
        if self.known.contains_key(name) {
            return;
        }
        self.known.insert(name.to_owned(), self.found.len());
        let aliases = alias.into_iter().filter(|alias| *alias != name).map(str::to_owned).collect();
        let name = name.to_owned();
        self.found.push(Symbol { name, aliases, min: 1, max: None, place, at_most: None });
    }

    /// Takes back aliases that name another symbol, or two symbols.
    pub(super) fn settle_aliases(&mut self) {
        let mut taken: Vec<String> = self.known.keys().cloned().collect();
        for symbol in &mut self.found {
            symbol.aliases.retain(|alias| !taken.contains(alias));
            taken.extend(symbol.aliases.iter().cloned());
        }
    }

    /// The type that the file declares for a value, `tensor`. A size in terms of the inputs'
    /// symbols is kept; any other text is taken as a name, which the shape rules replace.
    pub(super) fn declared(&self, tensor: &str, declared: &TypeProto) -> Option<TensorType> {
        let tensor_type = declared.tensor_type.as_ref()?;
        let format = format(tensor_type.elem_type)?;
        let dims = tensor_type.shape.as_ref()?.dim.iter().enumerate();
        let lengths = dims.map(|(axis, dim)| match (dim.dim_value, &dim.dim_param) {
            (Some(value), _) if 0 <= value => Dim::from(value),
            (_, Some(text)) if !text.trim().is_empty() => self.declared_dim(text.trim()),
            _ => Dim::symbol(&format!("{tensor}.dim{axis}")),
        });
        Some(TensorType { shape: Shape(lengths.collect()), format })
    }

    fn declared_dim(&self, text: &str) -> Dim {
        if self.known.contains_key(text) {
            return Dim::symbol(text);
        }
        let is_known =
            |dim: &Dim| dim.symbols().iter().all(|name| self.known.contains_key(&**name));
        expression(text).filter(is_known).unwrap_or_else(|| Dim::symbol(text))
    }
}

/// What users call a size that the file may call anything.
fn usual_name(format: Format, axis: usize) -> Option<&'static str> {
    match axis {
        0 => Some("batch"),
        1 if !format.is_float() => Some("seq"),
        _ => None,
    }
}

/// The format behind a `TensorProto.DataType`; `None` for one that is not known here.
pub(super) fn format(data_type: i32) -> Option<Format> {
    const FORMATS: [Format; 26] = [
        Format::FP32,
        Format::UINT8,
        Format::INT8,
        Format::UINT16,
        Format::INT16,
        Format::INT32,
        Format::INT64,
        Format::TEXT,
        Format::BOOL,
        Format::FP16,
        Format::FP64,
        Format::UINT32,
        Format::UINT64,
        Format::COMPLEX64,
        Format::COMPLEX128,
        Format::BF16,
        Format::E4M3FN,
        Format::E4M3FNUZ,
        Format::E5M2,
        Format::E5M2FNUZ,
        Format::UINT4,
        Format::INT4,
        Format::E2M1,
        Format::E8M0,
        Format::UINT2,
        Format::INT2,
    ];
    let index = usize::try_from(data_type).ok()?.checked_sub(1)?;
    FORMATS.get(index).copied()
}

/// The size that a text such as `4*_height + 1` or `seq//2` stands for; `None` when it is not an
/// expression.
pub(super) fn expression(text: &str) -> Option<Dim> {
    if MAX_EXPRESSION_CHARS < text.len() {
        return None;
    }
    let mut parser = Parser { rest: text, depth: 0 };
    let dim = parser.sum()?;
    let is_size = dim.as_constant().is_none_or(|number| 0 <= number && number <= MAX_DIM);
    (parser.rest.trim().is_empty() && is_size && !dim.is_overflow()).then_some(dim)
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn sum(&mut self) -> Option<Dim> {
        self.depth += 1;
        if MAX_DEPTH < self.depth {
            return None;
        }
        let mut total = self.product()?;
        loop {
            if self.eat("+") {
                total = &total + &self.product()?;
            } else if self.eat("-") {
                total = &total - &self.product()?;
            } else {
                self.depth -= 1;
                return Some(total);
            }
        }
    }

    fn product(&mut self) -> Option<Dim> {
        let mut total = self.power()?;
        loop {
            if self.rest.trim_start().starts_with("**") {
                return None;
            } else if self.eat("*") {
                total = &total * &self.power()?;
            } else if self.eat("//") || self.eat("/") {
                total = total.floor_div(&self.power()?);
            } else if self.eat("%") {
                total = total.modulo(&self.power()?);
            } else {
                return Some(total);
            }
        }
    }

    fn power(&mut self) -> Option<Dim> {
        let base = self.atom()?;
        if !self.eat("**") && !self.eat("^") {
            return Some(base);
        }
        let exponent = self.word().parse::<u32>().ok().filter(|exponent| *exponent <= 8)?;
        Some((0..exponent).fold(Dim::ONE, |total, _| &total * &base))
    }

    fn atom(&mut self) -> Option<Dim> {
        if self.eat("-") {
            self.depth += 1;
            return if MAX_DEPTH < self.depth { None } else { Some(-&self.atom()?) };
        }
        if self.eat("(") {
            let inner = self.sum()?;
            return self.eat(")").then_some(inner);
        }
        let word = self.word();
        if word.is_empty() {
            return None;
        }
        if let Ok(number) = word.parse::<i64>() {
            return Some(Dim::from(number));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        if self.eat("(") {
            let mut arguments = vec![self.sum()?];
            while self.eat(",") {
                arguments.push(self.sum()?);
            }
            return self.eat(")").then(|| call(word, &arguments))?;
        }
        Some(Dim::symbol(word))
    }

    fn word(&mut self) -> &'a str {
        let text = self.rest.trim_start();
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        word
    }
}

/// SymPy's functions, as PyTorch prints them.
fn call(name: &str, arguments: &[Dim]) -> Option<Dim> {
    match (name.to_lowercase().as_str(), arguments) {
        ("floor" | "toint" | "trunc", [dim]) => Some(dim.clone()),
        ("floordiv" | "cleandiv", [a, b]) => Some(a.floor_div(b)),
        ("ceildiv", [a, b]) => Some(a.ceil_div(b)),
        ("mod" | "pythonmod", [a, b]) => Some(a.modulo(b)),
        ("min", [first, rest @ ..]) => Some(rest.iter().fold(first.clone(), |a, b| a.minimum(b))),
        ("max", [first, rest @ ..]) => Some(rest.iter().fold(first.clone(), |a, b| a.maximum(b))),
        _ => None,
    }
}
