//! Part of a tensor as rows of numbers.
//!
//! Not here: what the numbers are used for.

use super::{AxisOrder, Checkpoint, Meaning};
use crate::error::Error;
use flopwise_formats::bulk;

/// Numbers read at most: 256 MiB of them.
const MAX_NUMBERS: u64 = 1 << 26;
/// Bytes read in one go.
const PIECE_BYTES: usize = 1 << 20;

impl Checkpoint {
    /// The length of a tensor's rows, along its last dimension, and how many there are; a tensor
    /// without dimensions has one row.
    pub fn rows_of(&self, tensor_idx: usize) -> (u64, u64) {
        let tensor = &self.tensors()[tensor_idx];
        let length = tensor.shape.last().copied().unwrap_or(1);
        (length, tensor.elements.checked_div(length).unwrap_or(0))
    }

    /// The first `columns` numbers of each of the first `rows` rows, row after row, rounded to
    /// binary32 where they are wider.
    ///
    /// # Errors
    /// The tensor is smaller, holds codes rather than values, is stored column by column, or cannot
    /// be read; or more than 2^26 numbers would be passed over.
    pub fn matrix(
        &self,
        tensor_idx: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<f32>, Error> {
        let tensor = &self.tensors()[tensor_idx];
        let refused = |what: String| Error::new(what).at(format!("tensor `{}`", tensor.name));
        let (length, n_rows) = self.rows_of(tensor_idx);
        if tensor.meaning != Meaning::Values {
            return Err(refused("holds codes or scales, not values".to_owned())
                .remedy("name a tensor of plain floats"));
        }
        if let Some(why) = &tensor.unread {
            return Err(refused(why.clone()));
        }
        if tensor.axis_order != AxisOrder::LastFastest && 1 < tensor.shape.len() {
            return Err(refused("is not stored row by row".to_owned())
                .remedy("save it in C order (numpy.ascontiguousarray)"));
        }
        if n_rows < rows as u64 || length < columns as u64 {
            let asked = format!("{rows} rows of {columns} numbers");
            return Err(refused(format!("has {n_rows} rows of {length}; {asked} are asked for"))
                .remedy("take a smaller --m, --n or --k, or a larger tensor"));
        }
        let wanted = length.checked_mul(rows as u64).filter(|wanted| *wanted <= MAX_NUMBERS);
        let wanted = wanted.ok_or_else(|| refused("more than 2^26 numbers to read".to_owned()))?;
        let numbers = self.first_numbers(tensor_idx, wanted as usize)?;
        let kept = numbers.chunks(length as usize).flat_map(|row| &row[..columns]);
        Ok(kept.copied().collect())
    }

    fn first_numbers(&self, tensor_idx: usize, wanted: usize) -> Result<Vec<f32>, Error> {
        let tensor = &self.tensors()[tensor_idx];
        let mut numbers: Vec<f32> = Vec::new();
        let mut buffer = Vec::new();
        let mut flaw = None;
        for piece in self.pieces(tensor_idx, PIECE_BYTES) {
            if wanted <= numbers.len() {
                break;
            }
            self.read(&piece, &mut buffer, &mut |chunk| {
                if wanted <= numbers.len() || flaw.is_some() {
                    return;
                }
                let start = numbers.len();
                numbers.resize(start + chunk.elements as usize, 0.0);
                let decoded = bulk::decode_f32(tensor.format, chunk.bytes, &mut numbers[start..]);
                flaw = decoded.err();
            })?;
        }
        if let Some(flaw) = flaw {
            let place = format!("tensor `{}`", tensor.name);
            return Err(Error::new(flaw.to_string()).at(place));
        }
        numbers.truncate(wanted);
        Ok(numbers)
    }
}
