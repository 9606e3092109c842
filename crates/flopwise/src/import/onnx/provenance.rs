//! Where in the model's source a node comes from, as far as PyTorch's exporters write it down.
//!
//! Not here: anything that changes a count.

use super::wire::NodeProto;
use crate::graph::SourceLine;
use std::collections::HashMap;
use std::sync::Arc;

/// Texts that many nodes share, each kept once.
#[derive(Default)]
pub(super) struct Texts {
    known: HashMap<String, Arc<str>>,
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
    from_scopes(node).or_else(|| from_name(&node.name)).filter(|path| !path.is_empty())
}

/// The dynamo exporter lists the modules around a node and the node itself:
/// `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']`.
fn from_scopes(node: &NodeProto) -> Option<String> {
    let scopes = property(node, "pkg.torch.onnx.name_scopes")?;
    let inner = scopes.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut names = inner.split(',').map(|name| name.trim().trim_matches(['\'', '"']));
    names.next_back()?;
    Some(names.next_back().unwrap_or("").to_owned())
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
