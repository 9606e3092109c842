//! Codes and their scales -> values, for pairings without doubt: one scale that multiplies (or
//! divides) blocks of whole codes, or MXFP4's bytes of two.
//!
//! Not here: which tensor scales which (`scales.rs`); zero points, tables and further scales, whose
//! codes are refused.

use super::{AxisOrder, Checkpoint, Chunk, How, Meaning, Piece, Place, Role};
use crate::error::Error;
use flopwise_formats::{Format, bulk};

/// Scales of a tensor that are read at once; those of more come with each chunk.
const MAX_KEPT_SCALES: u64 = 1 << 20;
/// Read in one go.
const PIECE_BYTES: usize = 1 << 18;

/// How the values of one tensor come from its codes.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// The format of one code.
    codes: Format,
    /// Codes in one stored element.
    codes_each: u64,
    /// Of the stored elements.
    shape: Vec<u64>,
    /// Stored elements along each axis that share a scale.
    block: Vec<u64>,
    scale_idx: usize,
    scale_format: Format,
    how: How,
    /// All scales, where they are few.
    kept: Option<Vec<f32>>,
}

impl Checkpoint {
    /// How the values of a tensor come from its codes and their scale; `None` where they cannot be
    /// had that simply. No scale is read.
    pub fn scaled(&self, tensor_idx: usize) -> Option<Scaled> {
        let tensor = self.tensors().get(tensor_idx)?;
        let Meaning::Scaled(companion) = &tensor.meaning else { return None };
        let mut parts = companion.parts.iter().filter(|part| part.role != Role::ActivationScale);
        let part = parts.next().filter(|part| part.role == Role::Scale)?;
        let scales = self.tensors().get(part.tensor_idx)?;
        let codes = companion.codes?;
        let codes_each = u64::from(tensor.format.bits).checked_div(u64::from(codes.bits))?;
        let is_plain = parts.next().is_none()
            && part.how != How::Unknown
            && tensor.axis_order == AxisOrder::LastFastest
            && scales.axis_order == AxisOrder::LastFastest
            && tensor.unread.is_none()
            && scales.unread.is_none()
            && (codes == tensor.format || (codes == Format::E2M1 && codes_each == 2));
        let block = part.block.clone().filter(|_| is_plain)?;
        let per_axis = tensor.shape.iter().zip(&block);
        let n_scales =
            per_axis.map(|(size, each)| Some(size.div_ceil(*(0 < *each).then_some(each)?)));
        let n_scales: Option<u64> = n_scales.product();
        // Scales of chunks are read where they lie, and must lie in the order of the codes.
        let is_in_order = block.iter().rev().skip(1).all(|each| *each == 1)
            && matches!(scales.place, Place::At(_));
        let is_right = n_scales == Some(scales.elements)
            && (scales.elements <= MAX_KEPT_SCALES || is_in_order);
        is_right.then(|| Scaled {
            codes,
            codes_each,
            shape: tensor.shape.clone(),
            block,
            scale_idx: part.tensor_idx,
            scale_format: part.format,
            how: part.how,
            kept: None,
        })
    }

    /// Reads scales as binary32.
    fn scales(
        &self,
        piece: &Piece,
        format: Format,
        buffer: &mut Vec<u8>,
        into: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let mut flaw = None;
        self.read(piece, buffer, &mut |chunk| {
            let start = into.len();
            into.resize(start + chunk.elements as usize, 0.0);
            flaw = bulk::decode_f32(format, chunk.bytes, &mut into[start..]).err();
        })?;
        match flaw {
            Some(flaw) => Err(Error::new(flaw.to_string())
                .at(format!("tensor `{}`", self.tensors()[piece.tensor_idx].name))),
            None => Ok(()),
        }
    }
}

/// Buffers that are used again from chunk to chunk.
#[derive(Debug, Default)]
pub struct Room {
    codes: Vec<f32>,
    scales: Vec<f32>,
    buffer: Vec<u8>,
    values: Vec<u8>,
}

impl Scaled {
    /// Reads the scales, where they are few enough to be kept while chunks are read.
    ///
    /// # Errors
    /// The scales cannot be read.
    pub fn with_scales(mut self, checkpoint: &Checkpoint) -> Result<Scaled, Error> {
        if checkpoint.tensors()[self.scale_idx].elements <= MAX_KEPT_SCALES {
            let (mut kept, mut buffer) = (Vec::new(), Vec::new());
            for piece in checkpoint.pieces(self.scale_idx, PIECE_BYTES) {
                checkpoint.scales(&piece, self.scale_format, &mut buffer, &mut kept)?;
            }
            self.kept = Some(kept);
        }
        Ok(self)
    }

    /// The values of a chunk of codes, as binary32, little-endian, and how many they are. Each is
    /// the product of code and scale, rounded once.
    ///
    /// # Errors
    /// The scales cannot be read.
    pub fn values<'a>(
        &self,
        checkpoint: &Checkpoint,
        chunk: &Chunk<'_>,
        room: &'a mut Room,
    ) -> Result<(&'a [u8], usize), Error> {
        let n_codes = (chunk.elements * self.codes_each) as usize;
        room.codes.clear();
        room.codes.resize(n_codes, 0.0);
        bulk::decode_f32(self.codes, chunk.bytes, &mut room.codes)
            .map_err(|flaw| Error::new(flaw.to_string()))?;
        let end = chunk.first_element + chunk.elements;
        let (scales, first_scale) = match &self.kept {
            Some(kept) => (kept.as_slice(), 0),
            None => {
                let first = self.scale_of(chunk.first_element);
                let elements = self.scale_of(end.saturating_sub(1)) + 1 - first;
                let piece = Piece {
                    tensor_idx: self.scale_idx,
                    first_element: first,
                    elements,
                    chunk_elements: elements,
                };
                room.scales.clear();
                let (format, buffer) = (self.scale_format, &mut room.buffer);
                checkpoint.scales(&piece, format, buffer, &mut room.scales)?;
                (room.scales.as_slice(), first)
            }
        };
        let row = self.shape.last().copied().unwrap_or(1).max(1);
        let each = self.block.last().copied().unwrap_or(1).max(1);
        let (mut element, mut code) = (chunk.first_element, 0);
        while element < end {
            let column = element % row;
            let run = (each - column % each).min(row - column).min(end - element);
            let scale = scales.get((self.scale_of(element) - first_scale) as usize);
            let scale = *scale.ok_or_else(|| Error::new("a scale is missing"))?;
            let n_run = (run * self.codes_each) as usize;
            for value in &mut room.codes[code..code + n_run] {
                *value = if self.how == How::Divide { *value / scale } else { *value * scale };
            }
            (element, code) = (element + run, code + n_run);
        }
        room.values.clear();
        room.values.extend(room.codes.iter().flat_map(|value| value.to_le_bytes()));
        Ok((&room.values, n_codes))
    }

    /// The place of the scale of a stored element.
    fn scale_of(&self, element: u64) -> u64 {
        let (mut left, mut scale_idx, mut stride) = (element, 0, 1);
        for (size, each) in self.shape.iter().zip(&self.block).rev() {
            scale_idx += left % size / each * stride;
            stride *= size.div_ceil(*each);
            left /= size;
        }
        scale_idx
    }
}
