//! `.onnx` files -> [`Graph`].
//!
//! Where things are: `scan` looks at the raw bytes, `wire` is the decoded file, `order` sorts its
//! nodes, `walk` goes through them and builds the graph; for each node `fold` tries to compute its
//! results at once (shape arithmetic) and `ops` maps it to a canonical operator. An operator is
//! added in the file of its group in `ops/`.
//!
//! Not here: weights. They stay in the file; an external file is never opened. The format:
//! <https://onnx.ai/onnx/repo-docs/IR.html>.

mod call;
#[cfg(test)]
mod contrib_tests;
mod control;
#[cfg(test)]
mod control_tests;
mod fold;
mod function;
pub(crate) mod initializers;
#[cfg(test)]
mod operator_tests;
mod ops;
mod order;
mod provenance;
mod rounds;
mod scan;
mod sequence;
mod symbols;
mod tally;
#[cfg(test)]
mod tests;
mod value;
mod walk;
mod weight;
mod wire;

use crate::error::Error;
use crate::graph::Graph;
use bytes::Bytes;
use prost::Message;
use std::path::Path;

/// Reads a model. `folder` is where its external weights would lie.
pub(super) fn import(name: &str, file: Bytes, folder: &Path) -> Result<Graph, Error> {
    scan::check(&file)?;
    let model = wire::ModelProto::decode(file);
    let model = model.map_err(|error| scan::not_onnx(&error.to_string()))?;
    let graph = model.graph.as_ref().ok_or_else(|| scan::not_onnx("it holds no graph"))?;
    walk::build(name, &model, graph, folder)
}
