//! Bandwidth: reading, writing, copying and adding arrays in a cache or in main memory.
//!
//! Not here: how large the arrays are (`places.rs`). They are filled with numbers before they are
//! read: fresh pages are all one shared page of zeros, and reading them would measure cache.

mod kernels;
mod walk;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Runnable;
use super::os;
use super::places::{self, Room};
use super::words::Words;
use super::workers::{Build, Kernel};
use crate::bench::{StreamLoad, Unmeasurable};
use flopwise::machine::{MemoryOp, Stores};
use kernels::{BLOCK_BYTES, BLOCK_WORDS, Kernels, LINE_BYTES};
use std::ops::Range;
use walk::{Stretch, Walk};

/// Arrays begin at different places of their pages of 4 KiB: a load may wait for an earlier store
/// to the same place of another page.
const PAGE_WORDS: usize = 4096 / 8;
/// Words of each stretch that are looked at afterwards.
const N_CHECKED: usize = 64;
/// What a triad multiplies with.
const SCALE: f64 = 3.0;
/// Factors of a triad repeat with this period, so that sums stay exact; a prime, so that no two
/// blocks nearby are alike.
const PERIOD: usize = 1021;

/// Places that a spread read goes on at: more keep more rows of memory open and more prefetchers at
/// work, until those run out. Eight and six were the fastest of 1 to 16 on Zen 3.
const N_PLACES: usize = 8;

/// How many stretches of its arrays an operation goes through at once.
fn n_places(op: MemoryOp) -> usize {
    match op {
        MemoryOp::ReadSpread => N_PLACES,
        MemoryOp::Read | MemoryOp::Write | MemoryOp::Copy | MemoryOp::Triad => 1,
    }
}

/// The most arrays that an operation goes over.
pub(super) const MAX_ARRAYS: u64 = 3;

/// How many arrays an operation goes over.
fn n_arrays(op: MemoryOp) -> usize {
    match op {
        MemoryOp::Read | MemoryOp::ReadSpread | MemoryOp::Write => 1,
        MemoryOp::Copy => 2,
        MemoryOp::Triad => 3,
    }
}

/// Whether there are stores past the caches.
pub(super) fn has_non_temporal_stores() -> bool {
    kernels::best().has_stores(Stores::NonTemporal)
}

/// A stream on each of a number of threads.
pub(super) fn runnable(load: StreamLoad, room: Room<'_>) -> Result<Runnable, Unmeasurable> {
    let StreamLoad { op, place, stores } = load;
    let kernels = kernels::best();
    if stores == Stores::NonTemporal && matches!(op, MemoryOp::Read | MemoryOp::ReadSpread) {
        return Err(Unmeasurable("reading stores nothing".to_owned()));
    }
    if !kernels.has_stores(stores) {
        return Err(Unmeasurable("stores past the caches have no kernel here".to_owned()));
    }
    let each = places::array_bytes(room, place, n_arrays(op) as u64)?;
    let n_blocks = usize::try_from(each).unwrap_or(usize::MAX) / BLOCK_BYTES;
    let n_blocks = n_blocks / n_places(op) * n_places(op);
    if n_blocks == 0 {
        return Err(Unmeasurable(format!(
            "arrays of {each} bytes are smaller than a block of {BLOCK_BYTES} at each place"
        )));
    }
    let is_cached = places::is_cached(room, place) && stores == Stores::Plain;
    let build_one = || -> Build {
        Box::new(move || {
            let stream = Stream::new(op, stores, kernels, n_blocks)?;
            build(Stream { is_cached, ..stream })
        })
    };
    Ok(Runnable {
        builds: (0..room.n_threads).map(|_| build_one()).collect(),
        backend: kernels.backend.to_owned(),
        instruction: None,
        chains: None,
        array_bytes: Some((n_blocks * BLOCK_BYTES) as u64),
    })
}

/// Reading on one thread, on processor `here`, what was touched first on processor `there`.
pub(super) fn remote_read(
    room: Room<'_>,
    here: usize,
    there: usize,
) -> Result<Runnable, Unmeasurable> {
    let kernels = kernels::best();
    let n_bytes = places::in_main_memory(Room { n_threads: 1, ..room }, 1).n_bytes;
    let n_blocks = usize::try_from(n_bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
    let make = move || Stream::new(MemoryOp::Read, Stores::Plain, kernels, n_blocks);
    let build_there: Build = Box::new(move || match os::elsewhere(there, here, make) {
        Some(stream) => build(stream?),
        None => Err(Unmeasurable("a thread could not be moved to the other node".to_owned())),
    });
    Ok(Runnable {
        builds: vec![build_there],
        backend: kernels.backend.to_owned(),
        instruction: None,
        chains: None,
        array_bytes: Some((n_blocks * BLOCK_BYTES) as u64),
    })
}

/// Runs once over all of the arrays, on the thread that filled them and will use them.
fn build(mut stream: Stream) -> Result<Box<dyn Kernel>, Unmeasurable> {
    stream.run(stream.walk.n_blocks() as u64);
    match stream.is_right_everywhere() {
        true => Ok(Box::new(stream)),
        false => {
            let op = format!("{:?}", stream.op).to_lowercase();
            Err(Unmeasurable(format!("the {op} gave a wrong result")))
        }
    }
}

/// Arrays of so many blocks each in one piece of memory: the target first, then the sources.
struct Arrays {
    words: Words,
    n_words: usize,
}

impl Arrays {
    fn new(n_arrays: usize, n_words: usize) -> Result<Arrays, Unmeasurable> {
        let no_memory =
            || Unmeasurable(format!("no memory for {n_arrays} arrays of {n_words} words"));
        let with_gap = n_words.checked_add(2 * PAGE_WORDS).ok_or_else(no_memory)?;
        let n_all = with_gap.checked_mul(n_arrays).ok_or_else(no_memory)?;
        Ok(Arrays { words: Words::zeroed(n_all)?, n_words })
    }

    /// Where array 0, 1 or 2 begins: on a line, a third of a page further than the one before.
    fn range(&self, array_idx: usize) -> Range<usize> {
        let line = LINE_BYTES / 8;
        let shift = (array_idx * PAGE_WORDS / 3).next_multiple_of(line);
        let first = array_idx * (self.n_words.next_multiple_of(PAGE_WORDS)) + shift;
        first..first + self.n_words
    }

    fn fill(&mut self, array_idx: usize, value: impl Fn(usize) -> u64) {
        let range = self.range(array_idx);
        let array = &mut self.words.as_mut_slice()[range];
        array.iter_mut().enumerate().for_each(|(word_idx, word)| *word = value(word_idx));
    }

    /// The same part of all three; those that an operation does not have are empty.
    fn parts(&mut self, n_arrays: usize, part: Range<usize>) -> (&mut [u64], [&[u64]; 2]) {
        let [first, second, third] = [self.range(0), self.range(1), self.range(2)];
        let (target, sources) = self.words.as_mut_slice().split_at_mut(first.end);
        let source = |range: Range<usize>, array_idx: usize| match array_idx < n_arrays {
            true => &sources[range.start - first.end..][part.clone()],
            false => &[],
        };
        (&mut target[part.clone()], [source(second, 1), source(third, 2)])
    }
}

/// One thread's stream.
struct Stream {
    op: MemoryOp,
    stores: Stores,
    kernels: Kernels,
    arrays: Arrays,
    /// Whether the arrays are brought into the caches before each run.
    is_cached: bool,
    /// Where the next run begins: through all blocks, or where there are several places, through
    /// those of each at once.
    walk: Walk,
    /// Where the last run began, and how many blocks it went over.
    last: (Walk, u64),
    /// What the last run read.
    sum: u64,
    /// What the last run wrote; each writes another.
    pattern: u64,
}

/// Word i of a source to read or copy.
fn counted(word_idx: usize) -> u64 {
    word_idx as u64 + 1
}

/// b + scale * c of a triad at word i: b counts, c counts to a prime. All exact.
fn triad_sum(word_idx: usize) -> f64 {
    addend(word_idx) + SCALE * factor(word_idx)
}

fn addend(word_idx: usize) -> f64 {
    counted(word_idx) as f64
}

fn factor(word_idx: usize) -> f64 {
    (word_idx % PERIOD) as f64
}

impl Stream {
    fn new(
        op: MemoryOp,
        stores: Stores,
        kernels: Kernels,
        n_blocks: usize,
    ) -> Result<Stream, Unmeasurable> {
        let mut arrays = Arrays::new(n_arrays(op), n_blocks * BLOCK_WORDS)?;
        match op {
            MemoryOp::Read | MemoryOp::ReadSpread => arrays.fill(0, counted),
            MemoryOp::Write => arrays.fill(0, |_| u64::MAX),
            MemoryOp::Copy => {
                arrays.fill(0, |_| u64::MAX);
                arrays.fill(1, counted);
            }
            MemoryOp::Triad => {
                arrays.fill(0, |_| u64::MAX);
                arrays.fill(1, |word_idx| addend(word_idx).to_bits());
                arrays.fill(2, |word_idx| factor(word_idx).to_bits());
            }
        }
        let walk = Walk::new(n_blocks / n_places(op));
        Ok(Stream {
            op,
            stores,
            kernels,
            arrays,
            is_cached: false,
            walk,
            last: (walk, 0),
            sum: 0,
            pattern: 0,
        })
    }

    /// What word i of the target is after the last run.
    fn expected(&self, word_idx: usize) -> u64 {
        match self.op {
            MemoryOp::Read | MemoryOp::ReadSpread | MemoryOp::Copy => counted(word_idx),
            MemoryOp::Write => self.pattern,
            MemoryOp::Triad => triad_sum(word_idx).to_bits(),
        }
    }

    /// The wrapping sum of what the last run read: 1 + 2 + ... + n = n (n + 1) / 2.
    fn expected_sum(&self) -> u64 {
        let sum_to = |n_blocks: usize| {
            let n_words = (n_blocks * BLOCK_WORDS) as u128;
            n_words * (n_words + 1) / 2
        };
        let (walk, amount) = self.last;
        let sums = walk.stretches(amount).flat_map(|stretch| {
            (0..n_places(self.op)).map(move |place| {
                let first = place * walk.n_blocks();
                let [start, end] = [stretch.blocks.start, stretch.blocks.end];
                let once = sum_to(first + end) - sum_to(first + start);
                (once as u64).wrapping_mul(stretch.n_times as u64)
            })
        });
        sums.fold(0, u64::wrapping_add)
    }

    /// The wrapping sum of one block at each place, then the next of each.
    fn read_spread(&self, stretch: &Stretch) -> u64 {
        let words = &self.arrays.words.as_slice()[self.arrays.range(0)];
        let n_words = self.walk.n_blocks() * BLOCK_WORDS;
        let mut sum = 0u64;
        for _ in 0..stretch.n_times {
            for block in stretch.blocks.clone() {
                for place in 0..N_PLACES {
                    let first = place * n_words + block * BLOCK_WORDS;
                    let read = self.kernels.read(&words[first..first + BLOCK_WORDS], 1);
                    sum = sum.wrapping_add(read);
                }
            }
        }
        sum
    }

    /// After a run over all blocks: every word of the target.
    fn is_right_everywhere(&mut self) -> bool {
        let n_words = self.arrays.n_words;
        let mut pairs = self.arrays.words.as_slice()[..n_words].iter().enumerate();
        let is_right = pairs.all(|(word_idx, &word)| word == self.expected(word_idx));
        is_right && self.is_correct()
    }
}

impl Kernel for Stream {
    /// Reads all arrays, in the order in which they will be wanted. Reads only: what a run has to
    /// write must not stand there before.
    fn make_ready(&mut self) {
        if !self.is_cached {
            return;
        }
        for stretch in self.walk.stretches(self.walk.n_blocks() as u64) {
            if self.op == MemoryOp::ReadSpread {
                std::hint::black_box(self.read_spread(&stretch));
                continue;
            }
            let part = stretch.blocks.start * BLOCK_WORDS..stretch.blocks.end * BLOCK_WORDS;
            let (target, sources) = self.arrays.parts(n_arrays(self.op), part);
            for array in [sources[0], sources[1], target] {
                std::hint::black_box(self.kernels.read(array, 1));
            }
        }
    }

    fn run(&mut self, amount: u64) {
        let Stream { op, stores, kernels, .. } = *self;
        self.last = (self.walk, amount);
        self.pattern = self.pattern.wrapping_add(0x9E37_79B9_7F4A_7C15); // odd: never the same soon
        let mut sum = 0u64;
        for stretch in self.walk.stretches(amount) {
            let part = stretch.blocks.start * BLOCK_WORDS..stretch.blocks.end * BLOCK_WORDS;
            let (target, sources) = self.arrays.parts(n_arrays(op), part);
            let n_times = stretch.n_times;
            match op {
                MemoryOp::Read => sum = sum.wrapping_add(kernels.read(target, n_times)),
                MemoryOp::ReadSpread => sum = sum.wrapping_add(self.read_spread(&stretch)),
                MemoryOp::Write => kernels.write(stores, target, self.pattern, n_times),
                MemoryOp::Copy => kernels.copy(stores, target, sources[0], n_times),
                MemoryOp::Triad => kernels.triad(stores, target, sources, SCALE, n_times),
            }
        }
        self.sum = sum;
        self.walk.advance(amount);
    }

    /// Bytes of all arrays, as STREAM counts.
    fn work(&self, amount: u64) -> f64 {
        amount as f64 * (n_arrays(self.op) * n_places(self.op) * BLOCK_BYTES) as f64
    }

    /// What was read adds up; some words that were written are right, and are wiped for the next
    /// time round.
    fn is_correct(&mut self) -> bool {
        if matches!(self.op, MemoryOp::Read | MemoryOp::ReadSpread) {
            return self.sum == self.expected_sum();
        }
        let (walk, amount) = self.last;
        walk.touched(amount).all(|blocks| {
            let words = blocks.start * BLOCK_WORDS..blocks.end * BLOCK_WORDS;
            // An odd step: each lane of a register has its turn.
            let step = (words.len() / N_CHECKED) | 1;
            words.step_by(step).all(|word_idx| {
                let expected = self.expected(word_idx);
                let word = &mut self.arrays.words.as_mut_slice()[word_idx];
                std::mem::replace(word, u64::MAX) == expected
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPS: [MemoryOp; 5] =
        [MemoryOp::Read, MemoryOp::ReadSpread, MemoryOp::Write, MemoryOp::Copy, MemoryOp::Triad];

    /// Each stream that there is, of so many blocks at each place.
    fn streams(n_blocks: usize) -> Vec<Stream> {
        let mut streams = Vec::new();
        for kernels in kernels::all() {
            for stores in [Stores::Plain, Stores::NonTemporal] {
                for op in OPS.into_iter().filter(|_| kernels.has_stores(stores)) {
                    let n_all = n_blocks * n_places(op);
                    streams.push(Stream::new(op, stores, kernels, n_all).unwrap());
                }
            }
        }
        streams
    }

    fn name(stream: &Stream) -> String {
        format!("{} {:?} {:?}", stream.kernels.backend, stream.op, stream.stores)
    }

    #[test]
    fn arrays_lie_apart_in_their_memory() {
        for n_words in [BLOCK_WORDS, 5 * BLOCK_WORDS, PAGE_WORDS, 9 * PAGE_WORDS] {
            let arrays = Arrays::new(3, n_words).unwrap();
            let ranges = [0, 1, 2].map(|array_idx| arrays.range(array_idx));
            assert!(ranges[0].end <= ranges[1].start && ranges[1].end <= ranges[2].start);
            assert!(ranges[2].end <= arrays.words.as_slice().len());
            assert!(ranges.iter().all(|range| range.len() == n_words));
            let in_page = ranges.map(|range| range.start % PAGE_WORDS);
            assert_eq!(in_page, [0, 176, 344]); // thirds of 512 words, on lines of 8
        }
    }

    #[test]
    fn every_stream_verifies_whatever_it_went_over() {
        for n_blocks in [1, 5, 70] {
            for mut stream in streams(n_blocks) {
                stream.run(n_blocks as u64);
                assert!(stream.is_right_everywhere(), "{}", name(&stream));
                for amount in [1, 3, 0, 64, 70, 71, 500] {
                    stream.run(amount);
                    assert!(stream.is_correct(), "{} {amount}", name(&stream));
                }
            }
        }
    }

    #[test]
    fn a_stream_that_does_nothing_is_found_out() {
        for mut stream in streams(4) {
            stream.is_cached = true;
            stream.run(5);
            assert!(stream.is_correct());
            stream.make_ready();
            let nothing = Stream { sum: 0, pattern: stream.pattern + 1, ..stream };
            stream = nothing; // as if a run had been counted, and not made
            assert!(!stream.is_correct(), "{}", name(&stream));
        }
    }

    #[test]
    fn a_triad_that_adds_nothing_is_found_out() {
        for mut stream in streams(4).into_iter().filter(|stream| stream.op == MemoryOp::Triad) {
            stream.arrays.fill(2, |_| 0.0f64.to_bits());
            stream.run(4);
            assert!(!stream.is_correct(), "{}", name(&stream));
        }
    }

    #[test]
    fn a_wrong_word_is_found_out() {
        for mut stream in streams(4)
            .into_iter()
            .filter(|stream| n_arrays(stream.op) == 1 && stream.op != MemoryOp::Write)
        {
            stream.run(7);
            assert!(stream.is_correct());
            stream.arrays.words.as_mut_slice()[3 * BLOCK_WORDS] += 1;
            stream.run(7);
            assert!(!stream.is_correct());
        }
    }

    #[test]
    fn bytes_are_counted_as_stream_does() {
        let per_block = |op| {
            let stream = Stream::new(op, Stores::Plain, kernels::best(), n_places(op)).unwrap();
            stream.work(1)
        };
        assert!((per_block(MemoryOp::ReadSpread) - 8192.0).abs() < 1e-9);
        assert!((per_block(MemoryOp::Read) - 1024.0).abs() < 1e-9);
        assert!((per_block(MemoryOp::Write) - 1024.0).abs() < 1e-9);
        assert!((per_block(MemoryOp::Copy) - 2048.0).abs() < 1e-9);
        assert!((per_block(MemoryOp::Triad) - 3072.0).abs() < 1e-9);
    }
}
