//! Counting binary32 values by their first 17 bits, with exact sums of the other 15: enough for
//! every statistic of every format of up to 8 significant bits, at one cost for all of them.
//!
//! Not here: what the bins say ([`super::cells`]).

use super::cells::Cell;
use super::slabs::{Shared, Slabs};

/// Bits of a value below those that choose its bin.
pub(super) const LOW_BITS: u32 = 15;
/// Significand bits that choose a bin.
pub(super) const BIN_BITS: u32 = 23 - LOW_BITS;
const N_BINS: usize = 1 << (32 - LOW_BITS);
const LOW_MASK: u32 = (1 << LOW_BITS) - 1;
/// A count is kept in the 24 bits above a sum of at most 40.
const COUNT_SHIFT: u32 = 40;
/// Values after which a count, or the sum below it, could run over.
const MAX_VALUES: usize = (1 << 24) - 1;

/// The counters of all bins. Those that a tensor of weights touches fit a level-2 cache.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    slabs: Slabs<Tables>,
    n_values: usize,
}

#[derive(Clone, Debug)]
struct Tables {
    /// The sum of the squares of the low bits; their sum, and above it the count.
    sums: Box<[[u64; 2]; N_BINS]>,
    /// What low bits other than 0 came: `2^15` less the smallest, and above it largest less
    /// smallest. 0 while none came.
    spans: Box<[u32; N_BINS]>,
    /// Values whose low bits are all 0: between bins, and alone able to be ties.
    ties: Box<[u32; N_BINS]>,
    /// Which bins hold anything.
    seen: Box<[u64; N_BINS / 64]>,
}

fn zeros<T: Clone, const N: usize>(zero: T) -> Box<[T; N]> {
    let zeros = vec![zero; N].into_boxed_slice();
    zeros.try_into().unwrap_or_else(|_| unreachable!("the vector has N elements"))
}

impl Bins {
    /// Takes memory when the first value comes.
    pub(super) fn new() -> Bins {
        Bins { slabs: Slabs::new(), n_values: 0 }
    }

    /// How many more values may be added before [`Bins::take`].
    pub(super) fn room(&self) -> usize {
        MAX_VALUES - self.n_values
    }

    /// Counts values of blocks that share an exponent, given as the bits of binary32. At most
    /// [`Bins::room`] of them. False, with nothing counted, where that exponent has no place.
    #[inline]
    pub(super) fn add(&mut self, shared: Shared, values: &[u32]) -> bool {
        let Some(tables) = self.slabs.get(shared, Tables::new) else { return false };
        self.n_values += values.len();
        tables.add(values);
        true
    }

    /// [`Bins::drain`], and gives the memory back.
    pub(super) fn take(&mut self, keep: impl FnMut(Shared, Vec<Cell>)) {
        self.drain(keep);
        self.slabs.clear();
    }

    /// Hands what the bins hold out as cells, in the order of their bits, and empties them. One
    /// table at a time, as cells of all of them take much memory.
    pub(super) fn drain(&mut self, mut keep: impl FnMut(Shared, Vec<Cell>)) {
        self.n_values = 0;
        self.slabs.iter_mut().for_each(|(shared, tables)| keep(shared, tables.drain()));
    }
}

impl Tables {
    #[cold]
    fn new() -> Tables {
        Tables { sums: zeros([0; 2]), spans: zeros(0), ties: zeros(0), seen: zeros(0) }
    }

    #[inline]
    fn add(&mut self, values: &[u32]) {
        let Tables { sums, spans, ties, seen } = self;
        for bits in values {
            let bin_idx = (bits >> LOW_BITS) as usize;
            let low = u64::from(bits & LOW_MASK);
            let sum = &mut sums[bin_idx];
            sum[0] += low * low;
            sum[1] += low | 1 << COUNT_SHIFT;
            let span = spans[bin_idx];
            // low - smallest, which is huge when low is smaller, is 0, or came first.
            let above = (bits | !LOW_MASK).wrapping_add(span & 0xffff);
            if span >> 16 < above {
                widen(bin_idx, low as u32, spans, ties, seen);
            }
        }
    }

    fn drain(&mut self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for word_idx in 0..self.seen.len() {
            let mut word = std::mem::take(&mut self.seen[word_idx]);
            while word != 0 {
                cells.push(cell(self, word_idx * 64 + word.trailing_zeros() as usize));
                word &= word - 1;
            }
        }
        cells
    }
}

/// Rare once a few values came, unless values are ties.
#[cold]
#[inline(never)]
fn widen(
    bin_idx: usize,
    low: u32,
    spans: &mut [u32; N_BINS],
    ties: &mut [u32; N_BINS],
    seen: &mut [u64; N_BINS / 64],
) {
    seen[bin_idx / 64] |= 1 << (bin_idx % 64);
    if low == 0 {
        ties[bin_idx] += 1;
        return;
    }
    let (smallest, largest) = range(spans[bin_idx]).unwrap_or((low, low));
    let (smallest, largest) = (smallest.min(low), largest.max(low));
    spans[bin_idx] = (largest - smallest) << 16 | ((1 << LOW_BITS) - smallest);
}

fn range(span: u32) -> Option<(u32, u32)> {
    if span == 0 {
        return None;
    }
    let smallest = (1 << LOW_BITS) - (span & 0xffff);
    Some((smallest, smallest + (span >> 16)))
}

fn cell(tables: &mut Tables, bin_idx: usize) -> Cell {
    let [squares, packed] = std::mem::take(&mut tables.sums[bin_idx]);
    let n_ties = std::mem::take(&mut tables.ties[bin_idx]);
    let (lowest, highest) = range(std::mem::take(&mut tables.spans[bin_idx])).unwrap_or((0, 0));
    Cell {
        bits: (bin_idx as u32) << LOW_BITS,
        n_at: u64::from(n_ties),
        n_above: (packed >> COUNT_SHIFT) - u64::from(n_ties),
        sum: u128::from(packed & ((1 << COUNT_SHIFT) - 1)),
        squares: u128::from(squares),
        lowest,
        highest,
    }
}
