//! Main-memory bandwidth: reading and copying arrays that no cache holds.
//!
//! Not here: cache levels. Arrays are filled with numbers before they are read: fresh pages are
//! all one shared page of zeros, and reading them would measure cache.

use super::workers::{Build, Kernel};
use super::{Runnable, os};
use crate::bench::{StreamLoad, Unmeasurable};
use flopwise::machine::{MemoryOp, Stores};
use std::alloc::Layout;

/// Arrays together are so many times the last-level caches that their threads reach, as STREAM's
/// rules ask (McCalpin, "STREAM: Sustainable Memory Bandwidth", run rules).
const CACHES: u64 = 4;
/// Assumed where the system does not tell.
const ASSUMED_CACHE_BYTES: u64 = 32 << 20;
/// Also where the system does not tell; arrays take at most an eighth of it.
const ASSUMED_MEMORY_BYTES: u64 = 4 << 30;
/// One huge page; arrays are whole pages.
const PAGE_BYTES: u64 = 2 << 20;
/// One round of a stream.
const ROUND_WORDS: usize = (64 << 10) / 8;
/// A copy's target begins so far from a page boundary: a load may wait for an earlier store to the
/// same offset within 4 KiB. Copies 4 % faster on Zen 3.
const TARGET_OFFSET_WORDS: usize = 2048 / 8;
/// Words of each copy slice that are looked at afterwards.
const N_CHECKED: usize = 64;

/// How large each array is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArraySize {
    pub(super) n_bytes: u64,
    /// What was assumed, or why it is smaller than it should be.
    pub(super) doubt: Option<String>,
}

/// The size of each of a thread's two arrays.
pub(super) fn array_size(
    n_threads: usize,
    cache_bytes: Option<u64>,
    memory_bytes: Option<u64>,
) -> ArraySize {
    let n_threads = n_threads.max(1) as u64;
    let wanted = CACHES * cache_bytes.unwrap_or(ASSUMED_CACHE_BYTES) / n_threads;
    let limit = memory_bytes.unwrap_or(ASSUMED_MEMORY_BYTES) / 8 / n_threads / 2;
    let doubt = if limit < wanted {
        Some(
            "little memory is free: arrays are smaller than four times the caches, and bandwidth \
              may be partly the caches'"
                .to_owned(),
        )
    } else if cache_bytes.is_none() {
        Some("the system does not tell its cache sizes: 32 MiB assumed".to_owned())
    } else {
        None
    };
    let n_bytes = wanted.min(limit).next_multiple_of(PAGE_BYTES);
    ArraySize { n_bytes: n_bytes.max(PAGE_BYTES), doubt }
}

/// A stream on each of so many threads, in arrays of so many bytes.
pub(super) fn runnable(
    load: StreamLoad,
    array_bytes: u64,
    n_threads: usize,
) -> Result<Runnable, Unmeasurable> {
    if load.stores == Stores::NonTemporal {
        return Err(Unmeasurable("stores past the caches have no kernel here".to_owned()));
    }
    let build_one = || -> Build { Box::new(move || build(load.op, array_bytes)) };
    Ok(Runnable {
        builds: (0..n_threads).map(|_| build_one()).collect(),
        backend: backend().to_owned(),
        instruction: None,
        chains: None,
        array_bytes: Some(array_bytes),
    })
}

/// Which kernel streams.
fn backend() -> &'static str {
    if has_avx2() { "asm-avx2" } else { "portable" }
}

/// Takes and fills the arrays on the thread that will use them.
fn build(op: MemoryOp, array_bytes: u64) -> Result<Box<dyn Kernel>, Unmeasurable> {
    let n_words = array_bytes as usize / 8;
    match op {
        MemoryOp::Read => {
            let words = Words::filled(n_words, |word_idx| word_idx as u64 + 1)?;
            let mut read = Read { walk: Walk::new(n_words), words, sum: 0, last: (0, 0) };
            read.run((n_words / ROUND_WORDS) as u64);
            match read.is_correct() {
                true => Ok(Box::new(read)),
                false => Err(Unmeasurable("reading gave a wrong checksum".to_owned())),
            }
        }
        MemoryOp::Copy => {
            let source = Words::filled(n_words, |word_idx| word_idx as u64 + 1)?;
            let target = Words::filled(n_words + TARGET_OFFSET_WORDS, |_| u64::MAX)?;
            let mut copy = Copy { walk: Walk::new(n_words), source, target, last: (0, 0) };
            copy.run((n_words / ROUND_WORDS) as u64);
            match copy.target.as_slice()[TARGET_OFFSET_WORDS..] == *copy.source.as_slice() {
                true => Ok(Box::new(copy)),
                false => Err(Unmeasurable("the copy differs from its source".to_owned())),
            }
        }
        MemoryOp::Write | MemoryOp::Triad => {
            Err(Unmeasurable(format!("{op:?} has no kernel here").to_lowercase()))
        }
    }
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The wrapping sum of the words; their number is a multiple of a round's.
fn sum(words: &[u64]) -> u64 {
    assert!(words.len().is_multiple_of(ROUND_WORDS));
    #[cfg(target_arch = "x86_64")]
    if has_avx2() && !words.is_empty() {
        // SAFETY: AVX2 is there; the slice holds its words, a multiple of 64 and not none.
        return unsafe { super::x86::sum_avx2(words.as_ptr(), words.len()) };
    }
    sum_portable(words)
}

/// The compiler makes it as wide as the target's baseline.
fn sum_portable(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, &word| sum.wrapping_add(word))
}

/// Copies with plain stores; the number of words is a multiple of a round's.
fn copy(source: &[u64], target: &mut [u64]) {
    assert!(source.len() == target.len() && source.len().is_multiple_of(ROUND_WORDS));
    #[cfg(target_arch = "x86_64")]
    if has_avx2() && !source.is_empty() {
        // SAFETY: AVX2 is there; both slices hold their words, a multiple of 32 and not none, and
        // cannot overlap.
        unsafe { super::x86::copy_avx2(source.as_ptr(), target.as_mut_ptr(), source.len()) };
        return;
    }
    copy_portable(source, target);
}

/// 4 KiB at a time, hidden from the optimiser: one large `memcpy` would go past the caches.
fn copy_portable(source: &[u64], target: &mut [u64]) {
    for (source, target) in source.chunks(512).zip(target.chunks_mut(512)) {
        std::hint::black_box(&mut *target).copy_from_slice(std::hint::black_box(source));
    }
}

/// Goes round an array, so that each slice takes up where the last one stopped and finds nothing
/// of its own in the caches.
struct Walk {
    n_rounds: usize,
    next_round: usize,
}

impl Walk {
    fn new(n_words: usize) -> Walk {
        assert!(n_words.is_multiple_of(ROUND_WORDS) && 0 < n_words);
        Walk { n_rounds: n_words / ROUND_WORDS, next_round: 0 }
    }

    /// The next `amount` rounds as ranges of words.
    fn advance(&mut self, amount: u64) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let first = self.next_round;
        let n_rounds = self.n_rounds;
        self.next_round = (first + (amount % n_rounds as u64) as usize) % n_rounds;
        ranges(first, amount, n_rounds)
    }
}

/// `amount` rounds from `first` on, cut where the array of `n_rounds` ends.
fn ranges(
    first: usize,
    amount: u64,
    n_rounds: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (mut position, mut left) = (first, amount as usize);
    std::iter::from_fn(move || {
        let taken = left.min(n_rounds - position);
        let range = position * ROUND_WORDS..(position + taken) * ROUND_WORDS;
        left -= taken;
        position = (position + taken) % n_rounds;
        (0 < taken).then_some(range)
    })
}

/// Word i holds i + 1, so that the checksum of any range is known.
struct Read {
    walk: Walk,
    words: Words,
    sum: u64,
    /// First round and number of rounds of the last run.
    last: (usize, u64),
}

impl Kernel for Read {
    fn run(&mut self, amount: u64) {
        self.last = (self.walk.next_round, amount);
        let words = self.words.as_slice();
        let ranges = self.walk.advance(amount);
        self.sum = ranges.fold(0, |total, range| total.wrapping_add(sum(&words[range])));
    }

    fn work(&self, amount: u64) -> f64 {
        (amount * ROUND_WORDS as u64 * 8) as f64
    }

    fn is_correct(&mut self) -> bool {
        let (first, amount) = self.last;
        // 1 + 2 + ... + n = n (n + 1) / 2; the checksum is its low 64 bits.
        let sum_to = |n: usize| n as u128 * (n as u128 + 1) / 2;
        let sums = ranges(first, amount, self.walk.n_rounds)
            .map(|range| sum_to(range.end) - sum_to(range.start));
        self.sum == sums.sum::<u128>() as u64
    }
}

/// Source word i holds i + 1.
struct Copy {
    walk: Walk,
    source: Words,
    target: Words,
    last: (usize, u64),
}

impl Kernel for Copy {
    fn run(&mut self, amount: u64) {
        self.last = (self.walk.next_round, amount);
        let source = self.source.as_slice();
        let target = &mut self.target.as_mut_slice()[TARGET_OFFSET_WORDS..];
        for range in self.walk.advance(amount) {
            copy(&source[range.clone()], &mut target[range]);
        }
    }

    /// Bytes read and bytes written, as STREAM counts.
    fn work(&self, amount: u64) -> f64 {
        (amount * ROUND_WORDS as u64 * 8 * 2) as f64
    }

    /// Some words of the last run are their source's, and are wiped for the next time round.
    fn is_correct(&mut self) -> bool {
        let (first, amount) = self.last;
        let target = &mut self.target.as_mut_slice()[TARGET_OFFSET_WORDS..];
        ranges(first, amount, self.walk.n_rounds).take(N_CHECKED).all(|range| {
            let step = (range.len() / N_CHECKED).max(1);
            range.step_by(step).all(|word_idx| {
                let copied = std::mem::replace(&mut target[word_idx], u64::MAX);
                copied == word_idx as u64 + 1
            })
        })
    }
}

/// A page-aligned array on huge pages where they can be had.
struct Words {
    start: std::ptr::NonNull<u64>,
    n_words: usize,
}

impl Words {
    fn filled(n_words: usize, value: impl Fn(usize) -> u64) -> Result<Words, Unmeasurable> {
        let no_memory = || Unmeasurable(format!("no memory for an array of {} bytes", 8 * n_words));
        let layout = Words::layout(n_words).ok_or_else(no_memory)?;
        assert!(0 < layout.size());
        // SAFETY: the layout's size is not 0.
        let start = unsafe { std::alloc::alloc(layout) }.cast::<u64>();
        let start = std::ptr::NonNull::new(start).ok_or_else(no_memory)?;
        os::wish_for_huge_pages(start.as_ptr().cast(), layout.size());
        for word_idx in 0..n_words {
            // SAFETY: within the allocation, which holds at least `n_words`.
            unsafe { start.add(word_idx).write(value(word_idx)) };
        }
        Ok(Words { start, n_words })
    }

    /// Whole huge pages.
    fn layout(n_words: usize) -> Option<Layout> {
        let page = PAGE_BYTES as usize;
        let n_bytes = n_words.checked_mul(8)?.checked_next_multiple_of(page)?;
        Layout::from_size_align(n_bytes, page).ok()
    }

    fn as_slice(&self) -> &[u64] {
        // SAFETY: `filled` wrote all `n_words`; they live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.n_words) }
    }

    fn as_mut_slice(&mut self) -> &mut [u64] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.n_words) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let layout = Words::layout(self.n_words).expect("it was a layout when it was allocated");
        // SAFETY: allocated with this very layout, and not freed since.
        unsafe { std::alloc::dealloc(self.start.as_ptr().cast(), layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn arrays_exceed_the_caches_but_not_the_memory() {
        let check = |n_threads, cache: Option<u64>, memory: Option<u64>, expected, doubt: &str| {
            let size = array_size(n_threads, cache, memory);
            assert_eq!(size.n_bytes, expected * MIB);
            let said = size.doubt.unwrap_or_default();
            assert!(said.contains(doubt) && said.is_empty() == doubt.is_empty(), "{said}");
        };
        check(1, Some(32 * MIB), Some(16 << 30), 128, "");
        check(2, Some(32 * MIB), Some(16 << 30), 64, "");
        check(96, Some(384 * MIB), Some(256 << 30), 16, "");
        check(1, None, Some(16 << 30), 128, "32 MiB assumed");
        check(1, Some(32 * MIB), Some(1 << 30), 64, "little memory");
        check(2, Some(33 * MIB), None, 66, "");
    }

    fn numbers(n_words: usize) -> Vec<u64> {
        (0..n_words as u64).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect()
    }

    #[test]
    fn sums_equal_their_portable_twin() {
        for n_rounds in [0, 1, 3] {
            let words = numbers(n_rounds * ROUND_WORDS);
            assert_eq!(sum(&words), sum_portable(&words));
        }
    }

    #[test]
    fn copies_copy() {
        let source = numbers(3 * ROUND_WORDS);
        for copy in [copy, copy_portable] {
            let mut target = vec![0; source.len()];
            copy(&source, &mut target);
            assert_eq!(target, source);
        }
        copy(&[], &mut []);
    }

    #[test]
    fn a_walk_goes_round() {
        let round = ROUND_WORDS;
        let mut walk = Walk::new(4 * round);
        let mut check = |amount, expected: &[(usize, usize)]| {
            let ranges = walk.advance(amount);
            let rounds: Vec<_> =
                ranges.map(|range| (range.start / round, range.end / round)).collect();
            assert_eq!(rounds, expected);
        };
        check(3, &[(0, 3)]);
        check(2, &[(3, 4), (0, 1)]);
        check(9, &[(1, 4), (0, 4), (0, 2)]);
        check(0, &[]);
        check(1, &[(2, 3)]);
    }

    #[test]
    fn a_wrong_word_is_found_out() {
        let n_words = 4 * ROUND_WORDS;
        let words = Words::filled(n_words, |word_idx| word_idx as u64 + 1).unwrap();
        let mut read = Read { walk: Walk::new(n_words), words, sum: 0, last: (0, 0) };
        read.run(7);
        assert!(read.is_correct());
        read.words.as_mut_slice()[3 * ROUND_WORDS] += 1;
        read.run(7);
        assert!(!read.is_correct());
    }

    #[test]
    fn a_copy_that_copies_nothing_is_found_out() {
        let n_words = 2 * ROUND_WORDS;
        let source = Words::filled(n_words, |word_idx| word_idx as u64 + 1).unwrap();
        let target = Words::filled(n_words + TARGET_OFFSET_WORDS, |_| u64::MAX).unwrap();
        let mut copy = Copy { walk: Walk::new(n_words), source, target, last: (0, 0) };
        copy.run(2);
        assert!(copy.is_correct());
        copy.last = (0, 1); // as if a run had done nothing
        assert!(!copy.is_correct());
    }

    #[test]
    fn both_streams_build() {
        for op in [MemoryOp::Read, MemoryOp::Copy] {
            let mut kernel = build(op, 4 * MIB).unwrap();
            kernel.run(5);
            assert!(kernel.is_correct());
            let n_streams = if op == MemoryOp::Copy { 2.0 } else { 1.0 };
            assert!((kernel.work(2) - n_streams * (128 << 10) as f64).abs() < 1e-9);
        }
    }
}
