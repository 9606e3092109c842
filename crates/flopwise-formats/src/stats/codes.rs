//! Counting the codes of formats of at most 16 bits: everything else follows exactly, for any number
//! of targets.
//!
//! Not here: what a code stands for.

use super::slabs::{Shared, Slabs};
use std::collections::BTreeMap;

/// How often each code came that came at all, rising.
pub(super) type Counts = Vec<(u32, u64)>;

/// How often each code came, by the shared exponent of its block.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// Bits of a code, at most 16.
    bits: u32,
    slabs: Slabs<[Vec<u32>; N_WAYS]>,
    /// Since the counters were last emptied.
    n_counted: usize,
    totals: BTreeMap<Shared, Counts>,
}

/// How many counters a code has: used in turn, as an addition waits for the one before to the same
/// place.
const N_WAYS: usize = 2;
/// Codes after which the counters, of 32 bits, are emptied.
const MAX_CODES: usize = 1 << 30;

impl Codes {
    pub(super) fn new(bits: u32) -> Codes {
        Codes { bits, slabs: Slabs::new(), n_counted: 0, totals: BTreeMap::new() }
    }

    /// Counts `elements` codes, packed from the lowest bit of the first byte up, of no blocks.
    pub(super) fn add(&mut self, bytes: &[u8], elements: usize) {
        self.make_room(elements);
        let bits = self.bits;
        let n_codes = 1usize << bits;
        let ways = self.slabs.get(Shared::NONE, || new_ways(n_codes)).expect("never without place");
        match bits {
            16 => words(ways, bytes),
            8 => bytes_of(ways, bytes),
            _ => each_code(bytes, bits, elements, |code| ways[0][code as usize] += 1),
        }
    }

    /// Before codes are counted, as many.
    pub(super) fn make_room(&mut self, elements: usize) {
        if MAX_CODES - self.n_counted < elements {
            self.empty();
        }
        self.n_counted += elements;
    }

    /// Counts a block of words. False, with nothing counted, where the exponent has no place.
    #[inline]
    pub(super) fn add_words<const N: usize>(&mut self, shared: Shared, words: &[u16; N]) -> bool {
        let Some(ways) = self.slabs.get(shared, || new_ways(1 << 16)) else { return false };
        let [one, two] = sized::<{ 1 << 16 }>(ways);
        for [first, second] in words.as_chunks::<2>().0 {
            one[usize::from(*first)] += 1;
            two[usize::from(*second)] += 1;
        }
        true
    }

    /// [`Codes::add_words`] for codes of any width.
    pub(super) fn add_codes(&mut self, shared: Shared, codes: &[u32]) -> bool {
        let n_codes = 1usize << self.bits;
        let Some(ways) = self.slabs.get(shared, || new_ways(n_codes)) else { return false };
        let [one, two] = ways;
        for pair in codes.chunks(2) {
            one[pair[0] as usize] += 1;
            if let Some(code) = pair.get(1) {
                two[*code as usize] += 1;
            }
        }
        true
    }

    fn empty(&mut self) {
        for (shared, [one, two]) in self.slabs.iter_mut() {
            let mut counts = Counts::new();
            for (code, (one, two)) in (0..).zip(one.iter_mut().zip(two)) {
                let n = u64::from(std::mem::take(one)) + u64::from(std::mem::take(two));
                if n != 0 {
                    counts.push((code, n));
                }
            }
            add_counts(&mut self.totals, shared, counts);
        }
        self.n_counted = 0;
    }

    /// Empties the counters and gives their memory back.
    pub(super) fn settle(&mut self) {
        self.empty();
        self.slabs.clear();
    }

    pub(super) fn merge(&mut self, mut other: Codes) {
        other.settle();
        for (shared, counts) in other.totals {
            add_counts(&mut self.totals, shared, counts);
        }
    }

    pub(super) fn counts(mut self) -> BTreeMap<Shared, Counts> {
        self.settle();
        self.totals
    }
}

#[cold]
fn new_ways(n_codes: usize) -> [Vec<u32>; N_WAYS] {
    std::array::from_fn(|_| vec![0; n_codes])
}

fn sized<const N: usize>(ways: &mut [Vec<u32>; N_WAYS]) -> [&mut [u32; N]; N_WAYS] {
    const WHY: &str = "a counter for each code";
    let [one, two] = ways;
    [one.as_mut_slice().try_into().expect(WHY), two.as_mut_slice().try_into().expect(WHY)]
}

fn words(ways: &mut [Vec<u32>; N_WAYS], bytes: &[u8]) {
    let [one, two] = sized::<{ 1 << 16 }>(ways);
    let (pairs, rest) = bytes.as_chunks::<4>();
    for [a, b, c, d] in pairs {
        one[usize::from(u16::from_le_bytes([*a, *b]))] += 1;
        two[usize::from(u16::from_le_bytes([*c, *d]))] += 1;
    }
    for code in rest.as_chunks::<2>().0 {
        one[usize::from(u16::from_le_bytes(*code))] += 1;
    }
}

fn bytes_of(ways: &mut [Vec<u32>; N_WAYS], bytes: &[u8]) {
    let [one, two] = sized::<{ 1 << 8 }>(ways);
    let (pairs, rest) = bytes.as_chunks::<2>();
    for [first, second] in pairs {
        one[usize::from(*first)] += 1;
        two[usize::from(*second)] += 1;
    }
    for code in rest {
        one[usize::from(*code)] += 1;
    }
}

fn add_counts(totals: &mut BTreeMap<Shared, Counts>, shared: Shared, counts: Counts) {
    let place = totals.entry(shared).or_default();
    *place = sum([std::mem::take(place), counts]);
}

/// The counts of several lists together.
pub(super) fn sum<const N: usize>(lists: [Counts; N]) -> Counts {
    let mut lists = lists.into_iter().filter(|counts| !counts.is_empty());
    let mut whole = lists.next().unwrap_or_default();
    for counts in lists {
        whole.extend(counts);
        // Two sorted runs are merged.
        whole.sort_by_key(|(code, _)| *code);
        whole.dedup_by(|(code, n), (kept, total)| {
            let is_same = code == kept;
            *total += if is_same { *n } else { 0 };
            is_same
        });
    }
    whole
}

/// Hands out codes of at most 16 bits, packed from the lowest bit of the first byte up.
pub(super) fn each_code(bytes: &[u8], bits: u32, elements: usize, mut take: impl FnMut(u32)) {
    let (mut waiting, mut n_waiting) = (0u32, 0);
    let mut bytes = bytes.iter();
    for _ in 0..elements {
        while n_waiting < bits {
            let Some(byte) = bytes.next() else { return };
            waiting |= u32::from(*byte) << n_waiting;
            n_waiting += 8;
        }
        take(waiting & ((1 << bits) - 1));
        waiting >>= bits;
        n_waiting -= bits;
    }
}
