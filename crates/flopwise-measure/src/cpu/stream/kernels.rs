//! Streams as safe calls: kernels in assembly where there are some, and their portable twins.
//!
//! Not here: the assembly (`x86.rs`, `aarch64.rs`) and what is streamed (`mod.rs`). Each kernel
//! goes over whole blocks, a number of times, in one call: a call for each time round would cost
//! several per cent of a 16 KiB array.

use flopwise::machine::Stores;

/// What a kernel does between two taken branches: most processors take one branch in two cycles,
/// which halves a read of 32 bytes each.
pub(super) const BLOCK_BYTES: usize = 1024;
/// The same in words.
pub(super) const BLOCK_WORDS: usize = BLOCK_BYTES / 8;
/// Arrays begin on a cache line: some stores ask for it, and a load over two lines costs two.
pub(in crate::cpu) const LINE_BYTES: usize = 64;

/// How far and how often a kernel goes; neither is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) n_blocks: usize,
    pub(super) n_times: usize,
}

/// The wrapping sum of all words, each time round added.
///
/// # Safety
/// `words` is aligned to [`LINE_BYTES`] and valid for the blocks of the extent.
pub(super) type Read = unsafe fn(words: *const u64, extent: Extent) -> u64;
/// Stores `value` into all words.
///
/// # Safety
/// As of [`Read`], for writes.
pub(super) type Write = unsafe fn(target: *mut u64, value: u64, extent: Extent);
/// Copies all words.
///
/// # Safety
/// As of [`Read`] and [`Write`]; the two do not overlap.
pub(super) type Copy = unsafe fn(target: *mut u64, source: *const u64, extent: Extent);
/// a = b + scale * c, all binary64.
///
/// # Safety
/// As of [`Copy`].
pub(super) type Triad =
    unsafe fn(a: *mut u64, b: *const u64, c: *const u64, scale: f64, extent: Extent);

/// The kernels of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// What they are called: `asm-avx2`.
    pub(super) backend: &'static str,
    read: Read,
    plain: StoreKernels,
    /// With stores past the caches, where there are such.
    past_caches: Option<StoreKernels>,
}

/// Those that store, one way or the other.
#[derive(Clone, Copy)]
pub(super) struct StoreKernels {
    pub(super) write: Write,
    pub(super) copy: Copy,
    pub(super) triad: Triad,
}

/// Every set that this processor has, the widest first, the portable one last.
pub(super) fn all() -> Vec<Kernels> {
    let mut sets = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86;
        if is_x86_feature_detected!("avx512f") {
            sets.push(Kernels {
                backend: "asm-avx512",
                read: x86::avx512::read,
                plain: x86::avx512::PLAIN,
                past_caches: Some(x86::avx512::PAST_CACHES),
            });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(Kernels {
                backend: "asm-avx2",
                read: x86::avx2::read,
                plain: x86::avx2::PLAIN,
                past_caches: Some(x86::avx2::PAST_CACHES),
            });
        }
        // Part of every x86-64.
        sets.push(Kernels {
            backend: "asm-sse2",
            read: x86::sse2::read,
            plain: x86::sse2::PLAIN,
            past_caches: Some(x86::sse2::PAST_CACHES),
        });
    }
    #[cfg(target_arch = "aarch64")]
    sets.push(Kernels {
        backend: "asm-neon",
        read: super::aarch64::read,
        plain: super::aarch64::PLAIN,
        past_caches: Some(super::aarch64::PAST_CACHES),
    });
    sets.push(Kernels {
        backend: "portable",
        read: read_portable,
        plain: StoreKernels { write: write_portable, copy: copy_portable, triad: triad_portable },
        past_caches: None,
    });
    sets
}

/// The widest set.
pub(super) fn best() -> Kernels {
    *all().first().expect("the portable set is always there")
}

impl Kernels {
    /// Whether a stream can store so.
    pub(super) fn has_stores(&self, stores: Stores) -> bool {
        self.storing(stores).is_some()
    }

    fn storing(&self, stores: Stores) -> Option<&StoreKernels> {
        match stores {
            Stores::Plain => Some(&self.plain),
            Stores::NonTemporal => self.past_caches.as_ref(),
        }
    }

    fn storing_as_asked(&self, stores: Stores) -> &StoreKernels {
        self.storing(stores).expect("a stream is built with stores that there are")
    }

    /// The wrapping sum of the words, `n_times` over.
    ///
    /// # Panics
    /// Here and below: if an array is not whole blocks or does not begin on a cache line.
    pub(super) fn read(&self, words: &[u64], n_times: usize) -> u64 {
        let Some(extent) = extent(words, n_times) else { return 0 };
        // SAFETY: the slice is as long as the extent that was made of it, and aligned.
        unsafe { (self.read)(words.as_ptr(), extent) }
    }

    /// Fills the words with `value`.
    pub(super) fn write(&self, stores: Stores, target: &mut [u64], value: u64, n_times: usize) {
        let Some(extent) = extent(target, n_times) else { return };
        let write = self.storing_as_asked(stores).write;
        // SAFETY: as in `read`; the slice is borrowed exclusively.
        unsafe { write(target.as_mut_ptr(), value, extent) };
    }

    /// Copies the words.
    pub(super) fn copy(&self, stores: Stores, target: &mut [u64], source: &[u64], n_times: usize) {
        assert_eq!(extent(source, n_times), extent(target, n_times));
        let Some(extent) = extent(target, n_times) else { return };
        let copy = self.storing_as_asked(stores).copy;
        // SAFETY: both slices are as long as the extent and aligned; they cannot overlap.
        unsafe { copy(target.as_mut_ptr(), source.as_ptr(), extent) };
    }

    /// a = b + `scale` * c; words are the bits of binary64 numbers.
    pub(super) fn triad(
        &self,
        stores: Stores,
        a: &mut [u64],
        [b, c]: [&[u64]; 2],
        scale: f64,
        n_times: usize,
    ) {
        assert!(extent(a, n_times) == extent(b, n_times) && b.len() == c.len());
        let (Some(extent), Some(_)) = (extent(a, n_times), extent(c, n_times)) else { return };
        let triad = self.storing_as_asked(stores).triad;
        // SAFETY: all slices are as long as the extent and aligned; `a` overlaps neither other.
        unsafe { triad(a.as_mut_ptr(), b.as_ptr(), c.as_ptr(), scale, extent) };
    }
}

/// How far a kernel goes over `words`; `None` is nowhere.
fn extent(words: &[u64], n_times: usize) -> Option<Extent> {
    assert!(words.len().is_multiple_of(BLOCK_WORDS), "kernels go over whole blocks");
    assert!(words.is_empty() || words.as_ptr().addr().is_multiple_of(LINE_BYTES));
    let n_blocks = words.len() / BLOCK_WORDS;
    (0 < n_blocks && 0 < n_times).then_some(Extent { n_blocks, n_times })
}

/// One word after the other; the compiler makes it as wide as the target's baseline.
///
/// # Safety
/// As [`Read`] says.
unsafe fn read_portable(words: *const u64, extent: Extent) -> u64 {
    // SAFETY: valid for the extent, by contract.
    let words = unsafe { std::slice::from_raw_parts(words, extent.n_blocks * BLOCK_WORDS) };
    let once = || std::hint::black_box(words).iter().fold(0, |sum: u64, &w| sum.wrapping_add(w));
    (0..extent.n_times).fold(0, |sum, _| sum.wrapping_add(once()))
}

/// 1 KiB at a time, hidden from the optimiser: one large `memset` would go past the caches.
///
/// # Safety
/// As [`Write`] says.
unsafe fn write_portable(target: *mut u64, value: u64, extent: Extent) {
    // SAFETY: valid for the extent, by contract.
    let target = unsafe { std::slice::from_raw_parts_mut(target, extent.n_blocks * BLOCK_WORDS) };
    for _ in 0..extent.n_times {
        for block in target.chunks_mut(BLOCK_WORDS) {
            std::hint::black_box(&mut *block).fill(value);
        }
    }
}

/// As [`write_portable`].
///
/// # Safety
/// As [`Copy`] says.
unsafe fn copy_portable(target: *mut u64, source: *const u64, extent: Extent) {
    let n_words = extent.n_blocks * BLOCK_WORDS;
    // SAFETY: valid for the extent and apart, by contract.
    let (target, source) = unsafe {
        (
            std::slice::from_raw_parts_mut(target, n_words),
            std::slice::from_raw_parts(source, n_words),
        )
    };
    for _ in 0..extent.n_times {
        for (target, source) in target.chunks_mut(BLOCK_WORDS).zip(source.chunks(BLOCK_WORDS)) {
            std::hint::black_box(&mut *target).copy_from_slice(std::hint::black_box(source));
        }
    }
}

/// One element after the other.
///
/// # Safety
/// As [`Triad`] says.
unsafe fn triad_portable(a: *mut u64, b: *const u64, c: *const u64, scale: f64, extent: Extent) {
    let n_words = extent.n_blocks * BLOCK_WORDS;
    // SAFETY: valid for the extent, and `a` apart from the others, by contract.
    let (a, b, c) = unsafe {
        (
            std::slice::from_raw_parts_mut(a, n_words),
            std::slice::from_raw_parts(b, n_words),
            std::slice::from_raw_parts(c, n_words),
        )
    };
    for _ in 0..extent.n_times {
        for ((a, b), c) in std::hint::black_box(&mut *a).iter_mut().zip(b).zip(c) {
            *a = (f64::from_bits(*b) + scale * f64::from_bits(*c)).to_bits();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::words::Words;
    use super::*;

    const SIZES: [usize; 4] = [0, 1, 3, 17];
    const BOTH: [Stores; 2] = [Stores::Plain, Stores::NonTemporal];

    fn numbers(n_blocks: usize, seed: u64) -> Words {
        let value = |word_idx: usize| (word_idx as u64 + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let n_words = n_blocks * BLOCK_WORDS;
        let mut words = Words::zeroed(n_words).unwrap();
        (0..n_words).for_each(|word_idx| words.as_mut_slice()[word_idx] = value(word_idx));
        words
    }

    #[test]
    fn sums_equal_those_taken_word_by_word() {
        for kernels in all() {
            for n_blocks in SIZES {
                let words = numbers(n_blocks, 1);
                let once = words.as_slice().iter().fold(0u64, |sum, &word| sum.wrapping_add(word));
                for n_times in [0, 1, 5] {
                    let sum = kernels.read(words.as_slice(), n_times);
                    assert_eq!(sum, once.wrapping_mul(n_times as u64), "{}", kernels.backend);
                }
            }
        }
    }

    /// Calls `stream` on a target between two blocks that must stay as they are.
    fn within_bounds(n_blocks: usize, stream: impl FnOnce(&mut [u64])) -> Vec<u64> {
        let mut around = numbers(n_blocks + 2, 9);
        let before = around.as_slice().to_vec();
        let inner = BLOCK_WORDS..(n_blocks + 1) * BLOCK_WORDS;
        stream(&mut around.as_mut_slice()[inner.clone()]);
        let after = around.as_slice();
        assert_eq!(after[..inner.start], before[..inner.start]);
        assert_eq!(after[inner.end..], before[inner.end..]);
        after[inner].to_vec()
    }

    #[test]
    fn writes_write_every_word_and_no_other() {
        for kernels in all() {
            for stores in BOTH.into_iter().filter(|&stores| kernels.has_stores(stores)) {
                for n_blocks in SIZES {
                    let written = within_bounds(n_blocks, |target| {
                        kernels.write(stores, target, 0x0123_4567_89AB_CDEF, 2);
                    });
                    let right = written.iter().all(|&word| word == 0x0123_4567_89AB_CDEF);
                    assert!(right, "{} {stores:?}", kernels.backend);
                }
            }
        }
    }

    #[test]
    fn copies_copy_every_word_and_no_other() {
        for kernels in all() {
            for stores in BOTH.into_iter().filter(|&stores| kernels.has_stores(stores)) {
                for n_blocks in SIZES {
                    let source = numbers(n_blocks, 3);
                    let copied = within_bounds(n_blocks, |target| {
                        kernels.copy(stores, target, source.as_slice(), 2);
                    });
                    assert_eq!(copied, source.as_slice(), "{} {stores:?}", kernels.backend);
                }
            }
        }
    }

    #[test]
    fn triads_add_and_scale() {
        for kernels in all() {
            for stores in BOTH.into_iter().filter(|&stores| kernels.has_stores(stores)) {
                for n_blocks in SIZES {
                    let [mut b, mut c] = [numbers(n_blocks, 0), numbers(n_blocks, 0)];
                    for (word_idx, word) in b.as_mut_slice().iter_mut().enumerate() {
                        *word = (word_idx as f64).to_bits();
                    }
                    for (word_idx, word) in c.as_mut_slice().iter_mut().enumerate() {
                        *word = (word_idx as f64 - 40.0).to_bits();
                    }
                    let sums = within_bounds(n_blocks, |a| {
                        kernels.triad(stores, a, [b.as_slice(), c.as_slice()], 5.0, 2);
                    });
                    let expected = |word_idx: usize| 6.0 * word_idx as f64 - 200.0;
                    let mut pairs = sums.iter().enumerate();
                    let right = pairs.all(|(word_idx, sum)| *sum == expected(word_idx).to_bits());
                    assert!(right, "{} {stores:?}", kernels.backend);
                }
            }
        }
    }
}
