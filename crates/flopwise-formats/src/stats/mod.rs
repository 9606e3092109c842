//! What formats would do to a tensor: streamed, in one pass, for many formats at once.
//!
//! Elements of at most 16 bits are counted by code. Binary32 values are counted by their first 17
//! bits with exact sums of the others, from which every format of up to 8 significant bits is
//! judged exactly at the end; finer formats (FP16, TF32) convert each value. Counts are integers
//! and sums are rounded at the end alone, so that the order in which pieces come does not matter.
//!
//! Not here: files and threads. A [`Tally`] for each thread, merged, does what one would.

// Whether a value is what it was, to the last bit, is the question of this module.
#![allow(clippy::float_cmp)]

mod bins;
mod blocks;
mod cells;
mod codes;
pub(crate) mod direct;
mod loose;
mod mx;
mod outcome;
mod quantizer;
mod scale;
mod slabs;
mod source;
mod sum;
mod target;
#[cfg(test)]
mod tests;

pub use outcome::{Scaled, Snr, SourceStats, Stats, TargetStats};
pub use target::Target;

use crate::codec;
use crate::exact::Exact;
use crate::format::{Format, Layout};
use bins::Bins;
use blocks::CodeBlocks;
use cells::ByShared;
use codes::Codes;
use loose::Loose;
use outcome::Errors;
use slabs::Shared;
use std::sync::Arc;
use target::Judge;

/// Values taken in one go: small enough for a level-1 cache, and a multiple of every block.
const CHUNK: usize = 1024;
/// All but the sign of a binary32.
const MAGNITUDE: u32 = u32::MAX >> 1;

/// What is known so far of one tensor, and of what targets would make of it.
///
/// ```
/// use flopwise_formats::{Format, codec::Rules, stats::{Snr, Tally, Target}};
/// let target = Target::element(Format::E4M3FN, Rules::SATURATING).unwrap();
/// let mut tally = Tally::new(Format::FP32, &[target]).unwrap();
/// let values = [0.5f32, 1.0, 500.0, 1e-6];
/// tally.add(&values.map(f32::to_le_bytes).concat(), 4);
/// let stats = tally.finish();
/// let e4m3 = &stats.targets[0];
/// assert_eq!((e4m3.overflow, e4m3.underflow, e4m3.changed), (1, 1, 2));
/// assert_eq!(e4m3.max_abs_error, 52.0); // 500 became 448
/// assert_eq!(stats.source.exponents, [(-20, 1), (-1, 1), (0, 1), (8, 1)]);
/// ```
#[derive(Clone, Debug)]
pub struct Tally {
    source: Format,
    reading: Reading,
    judges: Vec<Judge>,
    /// Significand bits of cells that serve all targets with blocks; `None` without such.
    block_bits: Option<u32>,
    errors: Vec<Errors>,
    bins: Bins,
    /// What earlier fillings of the bins held.
    cells: ByShared,
    /// Values that binary32 does not hold, and these rounded to it.
    loose: Loose,
    rounded: Bins,
    rounded_cells: ByShared,
    elements: u64,
    /// Bits that are 1 in some code, and those that are 1 in all.
    or: u64,
    and: u64,
}

/// How elements are read.
#[derive(Clone, Debug)]
enum Reading {
    /// Codes of at most 16 bits, counted; by the exponents of their blocks where a target has any.
    Codes { codes: Codes, blocks: Option<Arc<CodeBlocks>> },
    /// Binary32.
    Single,
    /// Binary64, and integers of 32 and 64 bits.
    Wide,
}

impl Tally {
    /// Nothing yet. `None` for a source whose elements are no single numbers (booleans, complex
    /// pairs, text) or have a width other than 64, 32 and up to 16 bits.
    pub fn new(source: Format, targets: &[Target]) -> Option<Tally> {
        let is_number = match source.layout {
            Layout::Float(_)
            | Layout::SignedInteger
            | Layout::UnsignedInteger
            | Layout::CodeBook(_) => true,
            Layout::Boolean | Layout::Complex | Layout::Text => false,
        };
        let judges: Vec<Judge> = targets.iter().map(Target::judge).collect();
        let block_bits = judges.iter().filter_map(Judge::block_bits).max();
        let reading = match source.bits {
            _ if !is_number => return None,
            1..=16 => {
                let blocks = block_bits.map(|_| Arc::new(CodeBlocks::new(source)));
                Reading::Codes { codes: Codes::new(u32::from(source.bits)), blocks }
            }
            32 if source == Format::FP32 => Reading::Single,
            64 if source == Format::FP64 => Reading::Wide,
            32 | 64 if !source.is_float() => Reading::Wide,
            _ => return None,
        };
        Some(Tally {
            source,
            reading,
            errors: judges.iter().map(|_| Errors::new()).collect(),
            block_bits,
            judges,
            bins: Bins::new(),
            cells: ByShared::new(),
            loose: Loose::new(),
            rounded: Bins::new(),
            rounded_cells: ByShared::new(),
            elements: 0,
            or: 0,
            and: u64::MAX,
        })
    }

    /// Adds the next elements, little-endian; those below a byte packed from the lowest bit up.
    ///
    /// Blocks of a block format begin with each piece: let all but the last hold a multiple of 32
    /// elements. Errors of FP16 and the like are summed in binary64 over 256 values from the
    /// beginning of the piece on; all else does not depend on how a tensor is cut.
    ///
    /// # Panics
    /// When `bytes` has not the size of so many elements.
    pub fn add(&mut self, bytes: &[u8], elements: usize) {
        let expected = self.source.bytes_for(elements as u128);
        assert_eq!(expected, Some(bytes.len() as u128), "bytes of {elements} elements");
        self.elements += elements as u64;
        match &mut self.reading {
            Reading::Codes { codes, blocks: None } => codes.add(bytes, elements),
            Reading::Codes { codes, blocks: Some(blocks) } => {
                let (judges, errors) = (&self.judges, &mut self.errors);
                blocks.add(codes, bytes, elements, |block| add_alone(judges, errors, block));
            }
            Reading::Single => {
                let mut chunk = [0; CHUNK];
                for values in bytes.as_chunks::<4>().0.chunks(CHUNK) {
                    for (bits, value) in chunk.iter_mut().zip(values) {
                        *bits = u32::from_le_bytes(*value);
                    }
                    self.add_single(&chunk[..values.len()]);
                }
            }
            Reading::Wide if self.source.bits == 64 => {
                for values in bytes.as_chunks::<8>().0.chunks(CHUNK) {
                    let codes: Vec<u64> =
                        values.iter().map(|code| u64::from_le_bytes(*code)).collect();
                    self.add_wide(&codes);
                }
            }
            Reading::Wide => {
                for values in bytes.as_chunks::<4>().0.chunks(CHUNK) {
                    let code = |code: &[u8; 4]| u64::from(u32::from_le_bytes(*code));
                    let codes: Vec<u64> = values.iter().map(code).collect();
                    self.add_wide(&codes);
                }
            }
        }
    }

    fn add_single(&mut self, values: &[u32]) {
        let (or, and) =
            values.iter().fold((0, u32::MAX), |(or, and), bits| (or | bits, and & bits));
        (self.or, self.and) = (self.or | u64::from(or), self.and & u64::from(and));
        self.make_room(values.len());
        match self.block_bits {
            Some(_) => values.chunks(mx::BLOCK).for_each(|block| self.add_block(block)),
            None => self.add_binned(values),
        }
        self.add_direct(values);
    }

    /// Counts the binary32 values of one block by its exponent.
    #[inline]
    fn add_block(&mut self, block: &[u32]) {
        let largest = block.iter().fold(0, |most: i32, bits| most.max((bits & MAGNITUDE) as i32));
        let shared = match largest {
            0 => Some(Shared::NONE),
            _ => Shared::of((largest >> 23) as u8),
        };
        if shared.is_some_and(|shared| self.bins.add(shared, block)) {
            return;
        }
        self.add_binned(block);
        let values: Vec<f64> = block.iter().map(|bits| f64::from(f32::from_bits(*bits))).collect();
        add_alone(&self.judges, &mut self.errors, &values);
    }

    /// Before as many values are counted.
    fn make_room(&mut self, n_values: usize) {
        if self.bins.room() < n_values {
            let bits = self.block_bits.unwrap_or(bins::BIN_BITS);
            self.bins.drain(|shared, cells| cells::keep(&mut self.cells, shared, cells, bits));
        }
    }

    fn add_binned(&mut self, values: &[u32]) {
        let is_added = self.bins.add(Shared::NONE, values);
        debug_assert!(is_added, "there is always a place for what shares nothing");
    }

    fn add_direct(&mut self, values: &[u32]) {
        for (judge, errors) in self.judges.iter().zip(&mut self.errors) {
            if let Judge::Direct(direct) = judge {
                direct.add(values, errors);
            }
        }
    }

    fn add_wide(&mut self, codes: &[u64]) {
        let mut singles = Vec::with_capacity(codes.len());
        let mut rounded = Vec::new();
        let mut values = Vec::with_capacity(codes.len());
        for code in codes {
            (self.or, self.and) = (self.or | code, self.and & code);
            let (value, is_exact) = number(self.source, *code);
            values.push(value);
            let single = value as f32;
            if is_exact && (f64::from(single) == value || value.is_nan()) {
                singles.push(single.to_bits());
                continue;
            }
            rounded.push(single.to_bits());
            self.loose.add(value, 1);
            let exact = if is_exact { None } else { codec::decode(self.source, u128::from(*code)) };
            for (judge, errors) in self.judges.iter().zip(&mut self.errors) {
                add_loose(judge, value, exact.as_ref(), 1, errors);
            }
        }
        if self.rounded.room() < rounded.len() {
            let kept = &mut self.rounded_cells;
            self.rounded.drain(|shared, cells| cells::keep(kept, shared, cells, bins::BIN_BITS));
        }
        self.rounded.add(Shared::NONE, &rounded);
        self.make_room(singles.len());
        self.add_binned(&singles);
        self.add_direct(&singles);
        add_alone(&self.judges, &mut self.errors, &values);
    }

    /// Adds what another tally of the same source and targets has found.
    ///
    /// # Panics
    /// When source or targets differ.
    pub fn merge(&mut self, mut other: Tally) {
        let is_alike = self.source == other.source && self.judges.len() == other.judges.len();
        assert!(is_alike, "tallies of one source and the same targets");
        self.settle();
        other.settle();
        cells::merge_all(&mut self.cells, other.cells);
        cells::merge_all(&mut self.rounded_cells, other.rounded_cells);
        match (&mut self.reading, other.reading) {
            (Reading::Codes { codes, .. }, Reading::Codes { codes: other, .. }) => {
                codes.merge(other);
            }
            (Reading::Single | Reading::Wide, _) | (Reading::Codes { .. }, _) => {}
        }
        for (errors, other) in self.errors.iter_mut().zip(other.errors) {
            errors.merge(other);
        }
        self.loose.merge(other.loose);
        self.elements += other.elements;
        (self.or, self.and) = (self.or | other.or, self.and & other.and);
    }

    /// Empties the bins and gives their memory back; the tally takes little then.
    pub fn settle(&mut self) {
        let bits = self.block_bits.unwrap_or(bins::BIN_BITS);
        self.bins.take(|shared, cells| cells::keep(&mut self.cells, shared, cells, bits));
        let kept = &mut self.rounded_cells;
        self.rounded.take(|shared, cells| cells::keep(kept, shared, cells, bins::BIN_BITS));
        if let Reading::Codes { codes, .. } = &mut self.reading {
            codes.settle();
        }
    }

    /// Everything about the elements added.
    pub fn finish(self) -> Stats {
        source::finish(self)
    }
}

/// The value of a code of a wide format, and whether binary64 holds it.
fn number(source: Format, code: u64) -> (f64, bool) {
    const EXACT: u64 = 1 << 53;
    match source.layout {
        Layout::SignedInteger => {
            let value = if source.bits == 32 { i64::from(code as i32) } else { code as i64 };
            (value as f64, value.unsigned_abs() <= EXACT)
        }
        Layout::UnsignedInteger => (code as f64, code <= EXACT),
        Layout::Float(_)
        | Layout::CodeBook(_)
        | Layout::Boolean
        | Layout::Complex
        | Layout::Text => (f64::from_bits(code), true),
    }
}

/// Judges blocks of values one at a time.
#[cold]
fn add_alone(judges: &[Judge], errors: &mut [Errors], values: &[f64]) {
    for (judge, errors) in judges.iter().zip(errors) {
        if let Judge::Mx(mx) = judge {
            mx.add(values, errors);
        }
    }
}

/// Judges `n` equal finite values that binary32 does not hold.
fn add_loose(judge: &Judge, value: f64, exact: Option<&Exact>, n: u64, errors: &mut Errors) {
    let Some(quantizer) = judge.by_element() else { return };
    let Some(exact) = exact else {
        errors.add(quantizer, value, quantizer.fate(value), 1.0, n);
        return;
    };
    let (fate, error) = quantizer.fate_of(exact);
    errors.add_inexact(quantizer, value, fate, error, n);
}
