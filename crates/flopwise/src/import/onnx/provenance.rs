//! Where in the model's source a node comes from, as far as PyTorch's exporters write it down.
//!
//! Not here: anything that changes a count.

use super::wire::NodeProto;
use crate::graph::SourceLine;
use std::collections::HashMap;
use std::sync::Arc;

/// The property that lists the modules around a node.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";
/// What PyTorch writes for nodes outside all modules.
const NO_MODULE: &str = "_empty_nn_module";

/// Texts that many nodes share, each kept once.
#[derive(Default)]
pub(super) struct Texts {
    known: HashMap<String, Arc<str>>,
    /// The modules around the last node, as the file writes them.
    modules: String,
}

impl Texts {
    pub(super) fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        self.known.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// The module path (`layer1.0.conv1`).
pub(super) fn module(node: &NodeProto) -> Option<String> {
    let path = from_scopes(node).or_else(|| from_name(&node.name));
    path.filter(|path| !path.is_empty() && !path.starts_with(NO_MODULE))
}

/// The dynamo exporter lists the modules around a node and the node itself:
/// `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']`.
fn from_scopes(node: &NodeProto) -> Option<String> {
    let mut names = list(node, SCOPES)?;
    names.pop()?;
    Some(names.pop().unwrap_or("").to_owned())
}

/// Path and class of the modules around a node, outermost first; nothing when the node before was
/// in the same module, as most are. The dynamo exporter lists the
/// classes beside the names: `['ResNet', 'torch.nn.modules.conv.Conv2d', 'aten.conv2d.default']`.
pub(super) fn classes<'a>(node: &'a NodeProto, texts: &mut Texts) -> Vec<(&'a str, &'a str)> {
    let around = property(node, SCOPES).and_then(|scopes| scopes.rsplit_once(','));
    let Some((around, _)) = around.filter(|(around, _)| *around != texts.modules) else {
        return Vec::new();
    };
    texts.modules = around.to_owned();
    let lists = list(node, SCOPES).zip(list(node, "pkg.torch.onnx.class_hierarchy"));
    let Some((mut names, classes)) = lists.filter(|(n, classes)| n.len() == classes.len()) else {
        return Vec::new();
    };
    names.pop();
    let is_module = |(path, _): &(&str, &str)| !path.starts_with(NO_MODULE);
    names.into_iter().zip(classes).filter(is_module).collect()
}

/// A list of texts as Python writes it.
fn list<'a>(node: &'a NodeProto, key: &str) -> Option<Vec<&'a str>> {
    let inner = property(node, key)?.trim().strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split(',').map(|name| name.trim().trim_matches(['\'', '"'])).collect())
}

/// The TorchScript exporter writes the modules into the node's name:
/// `/layer1/layer1.0/conv1/Conv`. A part that repeats the one before it replaces it.
fn from_name(name: &str) -> Option<String> {
    let (modules, _) = name.strip_prefix('/')?.rsplit_once('/')?;
    let mut parts: Vec<&str> = Vec::new();
    for part in modules.split('/') {
        let repeats =
            |before: &&str| part.strip_prefix(before).is_some_and(|rest| rest.starts_with('.'));
        if parts.last().is_some_and(repeats) {
            parts.pop();
        }
        parts.push(part);
    }
    Some(parts.join("."))
}

/// The innermost line of the recorded stack: `File "model.py", line 9, in forward`.
pub(super) fn line(node: &NodeProto, texts: &mut Texts) -> Option<SourceLine> {
    let stack = property(node, "pkg.torch.onnx.stack_trace")?;
    let (_, last) = stack.rsplit_once("File \"")?;
    let (file, rest) = last.split_once("\", line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(SourceLine { file: texts.shared(file), line: digits.parse().ok()? })
}

fn property<'a>(node: &'a NodeProto, key: &str) -> Option<&'a str> {
    let entry = node.metadata_props.iter().find(|entry| entry.key == key.as_bytes())?;
    std::str::from_utf8(&entry.value).ok()
}
