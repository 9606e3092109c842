//! The initialisers of a graph and where their bytes lie: in the file, beside it, or in lists of
//! numbers that are put into bytes here.
//!
//! Not here: reading bulk data, opening files of external data. `TensorProto` of
//! <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

use super::wire::{GraphProto, ModelProto, TensorProto};
use super::{scan, symbols, weight};
use crate::error::Error;
use bytes::Bytes;
use flopwise_formats::Format;
use prost::Message;
use std::path::Path;

/// Bytes made of lists of numbers, in all: small tensors are stored so, weights are not.
const MAX_MADE_BYTES: usize = 32 << 20;
/// Graphs within graphs (the branches of an `If`).
const MAX_DEPTH: usize = 8;

/// One initialiser.
#[derive(Debug)]
pub(crate) struct Initializer {
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) shape: Vec<u64>,
    pub(crate) data: Data,
}

/// Where its bytes are; little-endian.
#[derive(Debug)]
pub(crate) enum Data {
    /// From this byte of the file on, so many.
    At(u64, u64),
    /// In another file of the folder, from a byte on; so many where the file says.
    External { location: String, offset: u64, length: Option<u64> },
    /// Made of a list.
    Made(Bytes),
    /// Not had: why, as a clause.
    Unread(String),
}

/// Initialisers, and those left out: a name and why.
pub(crate) struct Found {
    pub(crate) initializers: Vec<Initializer>,
    pub(crate) left_out: Vec<(String, String)>,
}

/// The initialisers of a file, those of subgraphs behind the name of their node.
pub(crate) fn read(file: &Bytes, folder: &Path) -> Result<Found, Error> {
    scan::check(file)?;
    let model = ModelProto::decode(file.clone());
    let model = model.map_err(|error| scan::not_onnx(&error.to_string()))?;
    let graph = model.graph.ok_or_else(|| scan::not_onnx("it holds no graph"))?;
    let mut reader = Reader {
        file,
        folder,
        made_bytes: 0,
        found: Found { initializers: Vec::new(), left_out: Vec::new() },
    };
    reader.graph(graph, "", 0)?;
    Ok(reader.found)
}

struct Reader<'a> {
    file: &'a Bytes,
    folder: &'a Path,
    made_bytes: usize,
    found: Found,
}

impl Reader<'_> {
    fn graph(&mut self, graph: GraphProto, prefix: &str, depth: usize) -> Result<(), Error> {
        for tensor in graph.initializer {
            self.tensor(tensor, prefix)?;
        }
        for sparse in graph.sparse_initializer {
            let name = sparse.values.map(|values| values.name).unwrap_or_default();
            self.found.left_out.push((format!("{prefix}{name}"), "is sparse".into()));
        }
        for node in graph.node {
            for attribute in node.attribute {
                let graphs = attribute.g.map(|graph| *graph).into_iter().chain(attribute.graphs);
                for inner in graphs.filter(|_| depth < MAX_DEPTH) {
                    let prefix = format!("{prefix}{}/{}/", node.name, attribute.name);
                    self.graph(inner, &prefix, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: TensorProto, prefix: &str) -> Result<(), Error> {
        let name = format!("{prefix}{}", tensor.name);
        let mut leave_out = |why: String| {
            self.found.left_out.push((name.clone(), why));
            Ok(())
        };
        let Some(format) = symbols::format(tensor.data_type) else {
            return leave_out(format!("has the data type {}", tensor.data_type));
        };
        if format == Format::TEXT {
            return leave_out("holds text".into());
        }
        let shape: Option<Vec<u64>> = tensor.dims.iter().map(|n| u64::try_from(*n).ok()).collect();
        let Some(shape) = shape else {
            return Err(Error::new(format!("has the shape {:?}", tensor.dims))
                .at(format!("tensor `{name}`")));
        };
        let data = self.data(&tensor, format, &shape)?;
        self.found.initializers.push(Initializer { name, format, shape, data });
        Ok(())
    }

    fn data(&mut self, tensor: &TensorProto, format: Format, shape: &[u64]) -> Result<Data, Error> {
        if tensor.data_location == weight::EXTERNAL {
            weight::check_location(tensor, self.folder)?;
            let number = |key: &str| weight::external(tensor, key).and_then(|n| n.parse().ok());
            let Some(location) = weight::external(tensor, "location") else {
                return Err(Error::new("has external data at no place")
                    .at(format!("tensor `{}`", tensor.name)));
            };
            let location = location.to_owned();
            let offset = number("offset").unwrap_or(0);
            return Ok(Data::External { location, offset, length: number("length") });
        }
        if let Some(raw) = &tensor.raw_data {
            return Ok(self.slice(raw));
        }
        Ok(self.lists(tensor, format, shape))
    }

    /// A slice of the file as a place in it.
    fn slice(&self, bytes: &Bytes) -> Data {
        let at = bytes.as_ptr().addr().checked_sub(self.file.as_ptr().addr());
        match at.filter(|at| at + bytes.len() <= self.file.len()) {
            Some(at) => Data::At(at as u64, bytes.len() as u64),
            // Empty slices may point anywhere.
            None => Data::At(0, 0),
        }
    }

    /// The list that the format is kept in, each with its own packing.
    fn lists(&mut self, tensor: &TensorProto, format: Format, shape: &[u64]) -> Data {
        let is_wide = [Format::FP32, Format::COMPLEX64].contains(&format);
        let fixed = match format {
            _ if is_wide => Some(&tensor.float_data),
            Format::FP64 | Format::COMPLEX128 => Some(&tensor.double_data),
            _ => None,
        };
        if let Some(runs) = fixed {
            return match runs.as_slice() {
                [run] => self.slice(run),
                runs => self.made(runs.concat()),
            };
        }
        let runs = match format {
            Format::INT64 => &tensor.int64_data,
            Format::UINT64 | Format::UINT32 => &tensor.uint64_data,
            _ => &tensor.int32_data,
        };
        // Below a byte, each number is a byte of several elements.
        let width = usize::from(format.bits).div_ceil(8);
        let wanted = shape.iter().try_fold(u64::from(format.bits), |bits, n| bits.checked_mul(*n));
        let wanted = wanted.map_or(u64::MAX, |bits| bits.div_ceil(8));
        if ((MAX_MADE_BYTES - self.made_bytes) as u64) < wanted {
            let what = format!("stored number by number, over {MAX_MADE_BYTES} bytes in all");
            return Data::Unread(what);
        }
        let mut made = Vec::new();
        for run in runs {
            let mut rest: &[u8] = run;
            while !rest.is_empty() && (made.len() as u64) < wanted {
                let Ok(number) = prost::encoding::decode_varint(&mut rest) else {
                    return Data::Unread("a list of numbers that is damaged".into());
                };
                made.extend_from_slice(&number.to_le_bytes()[..width]);
            }
        }
        self.made(made)
    }

    fn made(&mut self, bytes: Vec<u8>) -> Data {
        self.made_bytes = (self.made_bytes + bytes.len()).min(MAX_MADE_BYTES);
        Data::Made(bytes.into())
    }
}
