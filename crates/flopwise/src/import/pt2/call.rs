//! One node's arguments, by name, with the file's many ways of writing them made one.

use super::schema::{Argument, NodeJson, SymArgument};
use crate::graph::{Dim, Shape, TensorId, TensorType};
use flopwise_formats::Format;
use std::collections::HashMap;

pub(super) struct Call<'c, 'a> {
    pub(super) node: &'a NodeJson<'a>,
    pub(super) tensors: &'c HashMap<&'a str, TensorId>,
    /// Name and declared type of each output.
    pub(super) outputs: &'c [(&'a str, Option<TensorType>)],
    /// The value of a symbolic integer by name.
    pub(super) integer: &'c dyn Fn(&str) -> Option<Dim>,
}

impl<'a> Call<'_, 'a> {
    /// `torch.ops.aten.relu_.default` -> `aten` and `relu`: no overload or in-place mark.
    pub(super) fn operator(&self) -> (&'a str, &'a str) {
        let target: &str = &self.node.target;
        let target = target.strip_prefix("torch.ops.").unwrap_or(target);
        let (library, rest) = target.split_once('.').unwrap_or(("", target));
        let base = rest.split('.').next().unwrap_or(rest);
        // `__and__` is a name of its own; only one trailing underscore marks an in-place variant.
        let is_in_place = base.ends_with('_') && !base.ends_with("__");
        (library, if is_in_place { &base[..base.len() - 1] } else { base })
    }

    /// The operator that runs: the one that a wrapper (`auto_functionalized`, `with_effects`) is
    /// given, or the node's own.
    pub(super) fn wrapped(&self) -> &'a str {
        let arguments = self.node.inputs.iter().map(|argument| &argument.arg);
        let wrapped =
            arguments.filter_map(|argument| argument.as_operator().map(|name| &**name)).next();
        wrapped.unwrap_or(&self.node.target)
    }

    pub(super) fn argument(&self, name: &str) -> Option<&'a Argument<'a>> {
        let named = self.node.inputs.iter().find(|argument| argument.name == name);
        named.map(|argument| &argument.arg)
    }

    /// An operand that must be there.
    pub(super) fn tensor(&self, name: &str) -> Result<TensorId, String> {
        self.optional_tensor(name).ok_or_else(|| format!("argument `{name}` is missing"))
    }

    pub(super) fn optional_tensor(&self, name: &str) -> Option<TensorId> {
        let argument = self.argument(name)?;
        let optional = argument.as_optional_tensor().and_then(|o| o.as_tensor.as_ref());
        let named = argument.as_tensor().or(optional)?;
        self.tensors.get(&*named.name).copied()
    }

    /// The tensors of a list argument; absent members are left out.
    pub(super) fn tensor_list(&self, name: &str) -> Vec<TensorId> {
        let names = self.argument(name).into_iter().flat_map(super::input_names);
        names.filter_map(|name| self.tensors.get(name).copied()).collect()
    }

    /// Which members of a list of optional tensors are there.
    pub(super) fn present(&self, name: &str) -> Vec<bool> {
        let Some(argument) = self.argument(name) else { return Vec::new() };
        if let Some(tensors) = argument.as_tensors() {
            return vec![true; tensors.len()];
        }
        let optional = argument.as_optional_tensors().into_iter().flatten();
        optional.map(|member| member.as_tensor.is_some()).collect()
    }

    /// Every operand that is a tensor, in order.
    pub(super) fn all_tensors(&self) -> Vec<TensorId> {
        let names = self.node.inputs.iter().flat_map(|argument| super::input_names(&argument.arg));
        names.filter_map(|name| self.tensors.get(name).copied()).collect()
    }

    /// Every operand that is read: all but the tensors that an `out` variant writes to.
    pub(super) fn read_tensors(&self) -> Vec<TensorId> {
        let read = self.node.inputs.iter().filter(|argument| argument.name != "out");
        let names = read.flat_map(|argument| super::input_names(&argument.arg));
        names.filter_map(|name| self.tensors.get(name).copied()).collect()
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.argument(name)?.as_int().copied()
    }

    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        self.argument(name)?.as_bool().copied()
    }

    pub(super) fn booleans(&self, name: &str) -> Option<Vec<bool>> {
        self.argument(name)?.as_bools().cloned()
    }

    pub(super) fn float(&self, name: &str) -> Option<f64> {
        let argument = self.argument(name)?;
        let float = argument.as_float().map(super::schema::FloatJson::value);
        float.or_else(|| argument.as_int().map(|int| *int as f64))
    }

    pub(super) fn string(&self, name: &str) -> Option<&'a str> {
        self.argument(name)?.as_string().map(|text| &**text)
    }

    pub(super) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        let argument = self.argument(name)?;
        argument.as_ints().cloned().or_else(|| argument.as_int().map(|int| vec![*int]))
    }

    /// One number per spatial axis; a single number stands for all.
    pub(super) fn per_axis(&self, name: &str, n_axes: usize, default: i64) -> Vec<i64> {
        match self.ints(name) {
            Some(ints) if ints.len() == 1 => vec![ints[0]; n_axes],
            Some(ints) if !ints.is_empty() => ints,
            _ => vec![default; n_axes],
        }
    }

    fn sym(&self, argument: &SymArgument) -> Option<Dim> {
        match (&argument.as_name, argument.as_int) {
            (_, Some(number)) => Some(Dim::from(number)),
            (Some(name), None) => (self.integer)(name),
            (None, None) => None,
        }
    }

    /// An integer, symbolic or not.
    pub(super) fn dim(&self, name: &str) -> Option<Dim> {
        let argument = self.argument(name)?;
        let number = argument.as_int().copied().map(Dim::from);
        number.or_else(|| argument.as_sym_int().and_then(|sym| self.sym(sym)))
    }

    /// Integers, symbolic or not.
    pub(super) fn dims(&self, name: &str) -> Option<Vec<Dim>> {
        let argument = self.argument(name)?;
        match argument.as_sym_ints() {
            Some(syms) => syms.iter().map(|sym| self.sym(sym)).collect(),
            None => Some(self.ints(name)?.into_iter().map(Dim::from).collect()),
        }
    }

    /// The declared type of the first output.
    pub(super) fn output(&self) -> Result<&TensorType, String> {
        let declared = self.outputs.first().and_then(|(_, declared)| declared.as_ref());
        declared.ok_or_else(|| "the file does not give the output's shape".to_owned())
    }

    pub(super) fn output_shape(&self) -> Result<Shape, String> {
        self.output().map(|output| output.shape.clone())
    }

    pub(super) fn output_format(&self) -> Result<Format, String> {
        self.output().map(|output| output.format)
    }
}
