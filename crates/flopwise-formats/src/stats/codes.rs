//! Counting the codes of formats of at most 16 bits: everything else follows exactly, for any number
//! of targets.
//!
//! Not here: what a code stands for.

/// How often each code came.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// Bits of a code, at most 16.
    bits: u32,
    /// Several counters for each code in turn, as an addition waits for the one before to the same
    /// place.
    counters: Vec<Vec<u32>>,
    /// Since the counters were last emptied.
    n_counted: usize,
    totals: Vec<u64>,
}

/// How many counters a code has.
const N_WAYS: usize = 4;
/// Codes after which the counters, of 32 bits, are emptied.
const MAX_CODES: usize = 1 << 30;

impl Codes {
    pub(super) fn new(bits: u32) -> Codes {
        let n_codes = 1usize << bits.min(16);
        let counters = vec![vec![0; n_codes]; N_WAYS];
        Codes { bits, counters, n_counted: 0, totals: vec![0; n_codes] }
    }

    /// Counts `elements` codes, packed from the lowest bit of the first byte up.
    pub(super) fn add(&mut self, bytes: &[u8], elements: usize) {
        if MAX_CODES - self.n_counted < elements {
            self.empty();
        }
        self.n_counted += elements;
        match self.bits {
            16 => self.words(bytes),
            8 => self.bytes(bytes),
            _ => self.packed(bytes, elements),
        }
    }

    fn words(&mut self, bytes: &[u8]) {
        let [one, two, three, four] = ways::<{ 1 << 16 }>(&mut self.counters);
        let (groups, rest) = bytes.as_chunks::<8>();
        for group in groups {
            let group = u64::from_le_bytes(*group);
            one[group as usize & 0xffff] += 1;
            two[(group >> 16) as usize & 0xffff] += 1;
            three[(group >> 32) as usize & 0xffff] += 1;
            four[(group >> 48) as usize] += 1;
        }
        for code in rest.as_chunks::<2>().0 {
            one[usize::from(u16::from_le_bytes(*code))] += 1;
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let [one, two, three, four] = ways::<{ 1 << 8 }>(&mut self.counters);
        let (groups, rest) = bytes.as_chunks::<4>();
        for group in groups {
            one[usize::from(group[0])] += 1;
            two[usize::from(group[1])] += 1;
            three[usize::from(group[2])] += 1;
            four[usize::from(group[3])] += 1;
        }
        for code in rest {
            one[usize::from(*code)] += 1;
        }
    }

    fn packed(&mut self, bytes: &[u8], elements: usize) {
        let counters = &mut self.counters[0];
        each_code(bytes, self.bits, elements, |code| counters[code as usize] += 1);
    }

    fn empty(&mut self) {
        for counters in &mut self.counters {
            for (total, counter) in self.totals.iter_mut().zip(counters) {
                *total += u64::from(std::mem::take(counter));
            }
        }
        self.n_counted = 0;
    }

    pub(super) fn merge(&mut self, mut other: Codes) {
        other.empty();
        for (total, other) in self.totals.iter_mut().zip(other.totals) {
            *total += other;
        }
    }

    /// Each code that came, with its count, rising.
    pub(super) fn counts(mut self) -> Vec<(u32, u64)> {
        self.empty();
        let counts = (0..).zip(self.totals);
        counts.filter(|(_, count)| 0 < *count).collect()
    }
}

fn ways<const N: usize>(counters: &mut [Vec<u32>]) -> [&mut [u32; N]; N_WAYS] {
    let mut counters = counters.iter_mut().map(|counters| counters.as_mut_slice());
    std::array::from_fn(|_| {
        let counters = counters.next().expect("there are N_WAYS counters");
        counters.try_into().expect("a counter for each code")
    })
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
