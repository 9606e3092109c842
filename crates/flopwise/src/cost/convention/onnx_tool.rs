//! onnx-tool: multiply-accumulates of an ONNX file, other operators added with weights.

use super::Tally;
use super::seen::Seen;

pub(super) fn tally(_seen: &Seen) -> Result<Tally, String> {
    Err("not implemented".to_owned())
}
