//! Blocks of codes of at most 16 bits: which exponent they share.
//!
//! Not here: counting them ([`super::codes`]), and what becomes of them ([`super::mx`]).

use super::codes::{Codes, each_code};
use super::mx::BLOCK;
use super::slabs::Shared;
use crate::bulk;
use crate::codec;
use crate::format::{Format, Nan};

/// What the codes of a format are to a block.
#[derive(Debug)]
pub(super) struct CodeBlocks {
    format: Format,
    values: Vec<f64>,
    /// The exponent field of each code's value in binary32: 0 for zeros alone, 255 for what
    /// binary32 does not hold, infinities and NaN.
    fields: Vec<u8>,
    /// The sign is the first of 16 bits, and the others rise with the magnitude.
    is_ordered: bool,
}

impl CodeBlocks {
    pub(super) fn new(format: Format) -> CodeBlocks {
        let values = values(format, 0..1 << format.bits);
        CodeBlocks {
            format,
            fields: values.iter().map(|value| field(*value)).collect(),
            values,
            is_ordered: format.bits == 16
                && format
                    .float()
                    .is_some_and(|float| float.sign_bits == 1 && float.nan != Nan::NegativeZero),
        }
    }

    /// Counts codes by the exponents of their blocks, and hands the values of those out that must
    /// be judged by themselves.
    pub(super) fn add(
        &self,
        codes: &mut Codes,
        bytes: &[u8],
        elements: usize,
        mut alone: impl FnMut(&[f64]),
    ) {
        codes.make_room(elements);
        let mut rest = bytes;
        if self.is_ordered {
            let (blocks, short) = bytes.as_chunks::<{ 2 * BLOCK }>();
            rest = short;
            for block in blocks {
                self.add_words(codes, block, &mut alone);
            }
        }
        let bits = u32::from(self.format.bits);
        let n_rest = elements.min(rest.len() * 8 / bits as usize);
        let mut block = Vec::with_capacity(BLOCK);
        each_code(rest, bits, n_rest, |code| {
            block.push(code);
            if block.len() == BLOCK {
                self.add_block(codes, &block, &mut alone);
                block.clear();
            }
        });
        if !block.is_empty() {
            self.add_block(codes, &block, &mut alone);
        }
    }

    #[inline]
    fn add_words(
        &self,
        codes: &mut Codes,
        bytes: &[u8; 2 * BLOCK],
        alone: &mut impl FnMut(&[f64]),
    ) {
        let mut words = [0u16; BLOCK];
        let pairs = bytes.as_chunks::<2>().0;
        for idx in 0..BLOCK {
            words[idx] = u16::from_le_bytes(pairs[idx]);
        }
        let largest = words.iter().fold(0, |most: i16, word| most.max((word & 0x7fff) as i16));
        let field = self.fields[largest as usize];
        let shared = if field == 0 { Some(Shared::NONE) } else { Shared::of(field) };
        if shared.is_some_and(|shared| codes.add_words(shared, &words)) {
            return;
        }
        codes.add_words(Shared::NONE, &words);
        alone(&words.map(|word| self.values[usize::from(word)]));
    }

    fn add_block(&self, codes: &mut Codes, block: &[u32], alone: &mut impl FnMut(&[f64])) {
        let field = block.iter().map(|code| self.fields[*code as usize]).max().unwrap_or(0);
        let shared = if field == 0 { Some(Shared::NONE) } else { Shared::of(field) };
        if shared.is_some_and(|shared| codes.add_codes(shared, block)) {
            return;
        }
        codes.add_codes(Shared::NONE, block);
        let values: Vec<f64> = block.iter().map(|code| self.values[*code as usize]).collect();
        alone(&values);
    }
}

/// The values of codes of at most 16 bits.
pub(super) fn values(format: Format, codes: impl Iterator<Item = u32>) -> Vec<f64> {
    if !matches!(format.bits, 8 | 16) {
        return codes.map(|code| codec::decode_f64(format, u128::from(code))).collect();
    }
    let n_bytes = usize::from(format.bits / 8);
    let mut bytes = Vec::new();
    codes.for_each(|code| bytes.extend_from_slice(&code.to_le_bytes()[..n_bytes]));
    let mut values = vec![0.0; bytes.len() / n_bytes];
    bulk::decode_f64(format, &bytes, &mut values).expect("as many, and numbers");
    values
}

fn field(value: f64) -> u8 {
    let single = value as f32;
    match () {
        () if f64::from(single) != value => u8::MAX,
        () if value == 0.0 => 0,
        () => ((single.to_bits() >> 23) as u8).max(1),
    }
}
