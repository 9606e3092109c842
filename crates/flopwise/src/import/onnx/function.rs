//! Functions that a file defines, inlined where they are called.
//! <https://onnx.ai/onnx/repo-docs/IR.html#functions>
//!
//! Not here: functions that the ONNX standard defines for its own operators; those have rules.

use super::walk::{Inputs, Origin, Walk, Wire};
use super::wire::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use crate::error::Error;
use prost::Message;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Nodes gone through in bodies of functions, loops and branches, in one file. A body is gone
/// through once for each call, so that 60 functions that call each other twice would take 2^60.
const MAX_BODY_NODES: usize = 100_000;
/// Bytes of names in those bodies.
const MAX_BODY_BYTES: usize = 256 << 20;
/// Bytes of functions kept with the attributes of a call put in.
const MAX_RESOLVED_BYTES: usize = 64 << 20;
/// Functions, branches and loops inside each other. PyTorch's exports nest some 10 deep.
const MAX_NESTING: usize = 64;
/// Longest path of calls that names the nodes of a body.
const MAX_PREFIX_BYTES: usize = 200;

/// Functions with the attributes of a call put in, kept as long as the walk borrows from them.
#[derive(Default)]
pub(super) struct Kept {
    link: OnceCell<Box<(FunctionProto, Kept)>>,
}

impl Kept {
    /// The kept function, and where the next one goes.
    fn keep(&self, function: FunctionProto) -> (&FunctionProto, &Kept) {
        let link = self.link.get_or_init(|| Box::new((function, Kept::default())));
        (&link.0, &link.1)
    }
}

impl Drop for Kept {
    /// Link by link: a long chain must not need a deep stack.
    fn drop(&mut self) {
        let mut next = self.link.take();
        while let Some(mut link) = next {
            next = link.1.link.take();
        }
    }
}

/// The functions of a file, and the calls that are being inlined.
pub(super) struct Functions<'a> {
    known: HashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>,
    kept: &'a Kept,
    /// From the outermost call.
    calls: Vec<&'a FunctionProto>,
    n_resolved_bytes: usize,
    n_body_nodes: usize,
    n_body_bytes: usize,
    depth: usize,
    /// Path of the calls, before the names of the nodes inside.
    pub(super) prefix: String,
    /// Module of the call, for nodes that name none.
    pub(super) module: Option<Arc<str>>,
}

fn domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

impl<'a> Functions<'a> {
    pub(super) fn new(model: &'a ModelProto, kept: &'a Kept) -> Functions<'a> {
        let key = |f: &'a FunctionProto| (domain(&f.domain), f.name.as_str(), f.overload.as_str());
        Functions {
            known: model.functions.iter().map(|function| (key(function), function)).collect(),
            kept,
            calls: Vec::new(),
            n_resolved_bytes: 0,
            n_body_nodes: 0,
            n_body_bytes: 0,
            depth: 0,
            prefix: String::new(),
            module: None,
        }
    }

    /// Counts a body that is about to be gone through.
    pub(super) fn enter(&mut self, nodes: &[NodeProto]) -> Result<(), Error> {
        if MAX_NESTING <= self.depth {
            return Err(Error::new(format!(
                "functions, branches and loops are nested deeper than {MAX_NESTING}"
            )));
        }
        let bytes =
            |node: &NodeProto| node.name.len() + node.output.iter().map(String::len).sum::<usize>();
        self.n_body_nodes = self.n_body_nodes.saturating_add(nodes.len());
        self.n_body_bytes = self.n_body_bytes.saturating_add(nodes.iter().map(bytes).sum());
        if MAX_BODY_NODES < self.n_body_nodes || MAX_BODY_BYTES < self.n_body_bytes {
            return Err(Error::new(format!(
                "functions, branches and loops unfold to more than {MAX_BODY_NODES} nodes"
            )));
        }
        self.depth += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn called(&self, node: &NodeProto) -> Option<&'a FunctionProto> {
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&(domain(&node.domain), &node.op_type, &node.overload)).copied()
    }

    /// The body with the attributes of the call put in where it refers to them.
    fn resolved(
        &mut self,
        function: &'a FunctionProto,
        call: &NodeProto,
    ) -> Result<&'a FunctionProto, Error> {
        if !function.node.iter().any(refers) {
            return Ok(function);
        }
        let mut copy = function.clone();
        for node in &mut copy.node {
            put_in(node, call, function);
        }
        self.n_resolved_bytes = self.n_resolved_bytes.saturating_add(copy.encoded_len());
        if MAX_RESOLVED_BYTES < self.n_resolved_bytes {
            return Err(Error::new("its functions take too much memory once they are inlined"));
        }
        let (resolved, next) = self.kept.keep(copy);
        self.kept = next;
        Ok(resolved)
    }
}

/// Whether a node, or one inside it, takes the value of an attribute from the call.
fn refers(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| {
        let mut graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs);
        !attribute.ref_attr_name.is_empty() || graphs.any(|graph| graph.node.iter().any(refers))
    })
}

/// Puts in what the call says, or the function's default; an attribute that neither gives goes.
fn put_in(node: &mut NodeProto, call: &NodeProto, function: &FunctionProto) {
    let value = |name: &str| {
        let named = |attribute: &&AttributeProto| attribute.name == name;
        let given = call.attribute.iter().find(named);
        given.or_else(|| function.attribute_proto.iter().find(named))
    };
    node.attribute.retain_mut(|attribute| {
        if attribute.ref_attr_name.is_empty() {
            let graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
            let inner = graphs.flat_map(|graph: &mut GraphProto| &mut graph.node);
            inner.for_each(|node| put_in(node, call, function));
            return true;
        }
        let Some(found) = value(&attribute.ref_attr_name) else { return false };
        let name = std::mem::take(&mut attribute.name);
        *attribute = AttributeProto { name, ref_attr_name: String::new(), ..found.clone() };
        true
    });
}

impl<'a> Walk<'a> {
    /// Whether the node calls a function of the file, which is then gone through in its place.
    pub(super) fn inline(
        &mut self,
        node: &'a NodeProto,
        node_idx: usize,
        inputs: &Inputs,
        folder: &Path,
    ) -> Result<bool, Error> {
        let Some(function) = self.functions.called(node) else { return Ok(false) };
        if self.functions.calls.iter().any(|call| std::ptr::eq(*call, function)) {
            return Err(Error::new(format!("the function `{}` calls itself", function.name)));
        }
        self.functions.enter(&function.node)?;
        let body = self.functions.resolved(function, node)?;
        let name = self.unique_name(node, node_idx);
        let mut opsets = body.opset_import.iter().filter(|opset| domain(&opset.domain).is_empty());
        let opset = opsets.next().map_or(self.opset, |opset| opset.version);
        let outer_opset = std::mem::replace(&mut self.opset, opset);
        let outer_scopes = std::mem::replace(&mut self.scopes, vec![HashMap::new()]);
        let prefix = match name.len() < MAX_PREFIX_BYTES {
            true => format!("{name}/"),
            false => self.functions.prefix.clone(),
        };
        let outer_prefix = std::mem::replace(&mut self.functions.prefix, prefix);
        let module = self.module(node);
        let outer_module = std::mem::replace(&mut self.functions.module, module);
        self.functions.calls.push(function);
        for (slot, formal) in body.input.iter().enumerate() {
            match inputs.get(slot).copied().flatten() {
                Some(wire_idx) => self.point(formal, wire_idx)?,
                // Optional, and left out.
                None => {
                    self.define(Wire::new(formal, Origin::Nothing))?;
                }
            }
        }
        self.run(&body.node, folder)?;
        let results: Vec<Option<usize>> =
            body.output.iter().map(|output| self.lookup(output)).collect();
        self.functions.calls.pop();
        self.functions.module = outer_module;
        self.functions.prefix = outer_prefix;
        self.functions.leave();
        self.scopes = outer_scopes;
        self.opset = outer_opset;
        for (slot, output) in node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            let result = results.get(slot).copied().flatten();
            let missing = || Error::new(format!("the function does not make its output {slot}"));
            self.point(output, result.ok_or_else(missing)?)?;
        }
        Ok(true)
    }
}
