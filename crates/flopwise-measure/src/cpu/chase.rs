//! Latency: loads of which each gives the next one's address, over lines of memory in random order.
//!
//! Not here: how large the array is (`places.rs`). One cycle goes through all lines, so that a
//! line comes up again only after all others: a cache smaller than the array has forgotten it.

use super::Runnable;
use super::places::{self, Room};
use super::words::Words;
use super::workers::{Build, Kernel};
use crate::bench::{Place, Unmeasurable};

/// Lines are 64 bytes on most processors; Apple's are 128, where two neighbours are one line.
const LINE_BYTES: usize =
    if cfg!(all(target_arch = "aarch64", target_vendor = "apple")) { 128 } else { 64 };
const LINE_WORDS: usize = LINE_BYTES / 8;
/// Loads in one round.
const LOADS_PER_ROUND: u64 = 128;
/// A first walk is no longer: some 20 ms in main memory.
const MAX_TRIAL_ROUNDS: u64 = 1 << 10;
/// Fewer lines would be no walk.
const MIN_LINES: u64 = 4;
/// Steps are numbered with 32 bits: lines of 256 GiB.
const MAX_LINES: u64 = u32::MAX as u64;

/// A walk on each of a number of threads.
pub(super) fn runnable(place: Place, room: Room<'_>) -> Result<Runnable, Unmeasurable> {
    let n_bytes = places::array_bytes(room, place, 1)?;
    let n_lines = n_bytes / LINE_BYTES as u64;
    if !(MIN_LINES..=MAX_LINES).contains(&n_lines) {
        return Err(Unmeasurable(format!(
            "{n_bytes} bytes are too few or too many to wander over"
        )));
    }
    let n_lines = n_lines as usize;
    let is_cached = places::is_cached(room, place);
    let build_one = |seed: u64| -> Build {
        Box::new(move || build(Chase { is_cached, ..Chase::new(n_lines, seed)? }))
    };
    Ok(Runnable {
        builds: (0..room.n_threads as u64).map(build_one).collect(),
        backend: if HAS_ASM { "asm-chase" } else { "portable" }.to_owned(),
        instruction: None,
        chains: None,
        array_bytes: Some((n_lines * LINE_BYTES) as u64),
    })
}

/// Goes once round, or a good way, on the thread that made the walk and will take it.
fn build(mut chase: Chase) -> Result<Box<dyn Kernel>, Unmeasurable> {
    let once = (chase.order.len() as u64).div_ceil(LOADS_PER_ROUND);
    chase.run(once.min(MAX_TRIAL_ROUNDS));
    match chase.is_correct() {
        true => Ok(Box::new(chase)),
        false => Err(Unmeasurable("the walk ended at a wrong line".to_owned())),
    }
}

/// The first word of each line is the address of the next line's.
struct Chase {
    /// Read through addresses only; kept alive.
    words: Words,
    /// The line of each step.
    order: Vec<u32>,
    /// Whether the lines are brought into the caches before each run.
    is_cached: bool,
    /// Address of the line that the last run ended at.
    line: usize,
    /// The step of that line.
    step: u64,
}

/// Lines 0 to n - 1 in random order (Fisher and Yates). Linked one to the next, the last to the
/// first, they are a random one of all cycles through all lines, as Sattolo's algorithm gives.
fn shuffled(n_lines: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n_lines as u32).collect();
    let mut state = seed;
    for last in (1..n_lines).rev() {
        // SplitMix64 (Steele, Lea, Flood 2014): every run walks the same way.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let random = mixed ^ (mixed >> 31);
        order.swap(last, ((u128::from(random) * (last as u128 + 1)) >> 64) as usize);
    }
    order
}

impl Chase {
    fn new(n_lines: usize, seed: u64) -> Result<Chase, Unmeasurable> {
        let mut words = Words::zeroed(n_lines * LINE_WORDS)?;
        let order = shuffled(n_lines, seed);
        let start = words.as_slice().as_ptr().expose_provenance();
        let address = |line: u32| start + line as usize * LINE_BYTES;
        for (step, &line) in order.iter().enumerate() {
            let next = order[(step + 1) % n_lines];
            words.as_mut_slice()[line as usize * LINE_WORDS] = address(next) as u64;
        }
        let line = address(order[0]);
        Ok(Chase { words, order, is_cached: false, line, step: 0 })
    }

    /// Where the walk is after its steps so far, by the order.
    fn expected(&self) -> usize {
        let line = self.order[(self.step % self.order.len() as u64) as usize];
        self.words.as_slice().as_ptr().addr() + line as usize * LINE_BYTES
    }
}

impl Kernel for Chase {
    /// Loads all lines, not waiting for each, in the order of the walk: the first one wanted is
    /// then the one used longest ago, as it is when the walk has gone round.
    fn make_ready(&mut self) {
        if !self.is_cached {
            return;
        }
        let words = self.words.as_slice();
        let (walked, ahead) = self.order.split_at((self.step % self.order.len() as u64) as usize);
        let loaded = ahead
            .iter()
            .chain(walked)
            .fold(0u64, |sum, &line| sum.wrapping_add(words[line as usize * LINE_WORDS]));
        std::hint::black_box(loaded);
    }

    fn run(&mut self, amount: u64) {
        // SAFETY: `line` is the address of a line of `words`, as is the first word of each line.
        self.line = unsafe { chase(self.line, amount) };
        self.step += amount * LOADS_PER_ROUND;
    }

    fn work(&self, amount: u64) -> f64 {
        (amount * LOADS_PER_ROUND) as f64
    }

    fn is_correct(&mut self) -> bool {
        self.line == self.expected()
    }
}

/// Whether the loads are in assembly.
const HAS_ASM: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Follows `n_rounds` x [`LOADS_PER_ROUND`] addresses from `line` on.
///
/// # Safety
/// There is an address at each address met, that of `line` included.
#[cfg(target_arch = "x86_64")]
unsafe fn chase(line: usize, n_rounds: u64) -> usize {
    let mut line = line;
    if n_rounds == 0 {
        return line;
    }
    // SAFETY: reads where `line` and its successors point, by contract; `n_rounds` is not 0, so
    // the countdown ends.
    unsafe {
        std::arch::asm!(
            ".p2align 5",
            "2:",
            ".rept 128",
            "mov {line}, [{line}]",
            ".endr",
            "dec {n_rounds}",
            "jnz 2b",
            line = inout(reg) line,
            n_rounds = inout(reg) n_rounds => _,
            options(nostack, readonly),
        );
    }
    line
}

/// As on x86-64.
///
/// # Safety
/// As on x86-64.
#[cfg(target_arch = "aarch64")]
unsafe fn chase(line: usize, n_rounds: u64) -> usize {
    let mut line = line;
    if n_rounds == 0 {
        return line;
    }
    // SAFETY: reads where `line` and its successors point, by contract; `n_rounds` is not 0, so
    // the countdown ends.
    unsafe {
        std::arch::asm!(
            ".p2align 5",
            "2:",
            ".rept 128",
            "ldr {line}, [{line}]",
            ".endr",
            "subs {n_rounds}, {n_rounds}, #1",
            "b.ne 2b",
            line = inout(reg) line,
            n_rounds = inout(reg) n_rounds => _,
            options(nostack, readonly),
        );
    }
    line
}

/// One load after the other: no compiler knows what it finds.
///
/// # Safety
/// As on x86-64.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn chase(line: usize, n_rounds: u64) -> usize {
    let mut line = line;
    for _ in 0..n_rounds * LOADS_PER_ROUND {
        // SAFETY: reads where `line` points, by contract.
        line = unsafe { std::ptr::with_exposed_provenance::<u64>(line).read_volatile() } as usize;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_meets_every_line_once() {
        for n_lines in [4, 5, 64, 1000] {
            let chase = Chase::new(n_lines, 7).unwrap();
            let start = chase.words.as_slice().as_ptr().addr();
            let mut met = vec![0; n_lines];
            let mut line = chase.line;
            for step in 0..n_lines {
                assert_eq!(line, start + chase.order[step] as usize * LINE_BYTES);
                met[(line - start) / LINE_BYTES] += 1;
                line = chase.words.as_slice()[(line - start) / 8] as usize;
            }
            assert_eq!(line, chase.line, "the walk is closed");
            assert!(met.iter().all(|&n_times| n_times == 1), "{n_lines} lines");
        }
    }

    #[test]
    fn orders_are_random_and_repeatable() {
        assert_eq!(shuffled(1000, 3), shuffled(1000, 3));
        assert_ne!(shuffled(1000, 3), shuffled(1000, 4));
        let order = shuffled(1000, 3);
        let n_neighbours = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 4).count();
        assert!(n_neighbours < 50, "{n_neighbours} of 1000 steps are short"); // 8 expected
        // Every line comes first about as often: 4 lines, 4000 seeds, 1000 each expected.
        let mut n_firsts = [0u32; 4];
        (0..4000).for_each(|seed| n_firsts[shuffled(4, seed * 77)[0] as usize] += 1);
        assert!(n_firsts.iter().all(|n| (850..1150).contains(n)), "{n_firsts:?}");
    }

    #[test]
    fn the_walk_ends_where_the_order_says() {
        let mut chase = Chase::new(100, 1).unwrap();
        chase.is_cached = true;
        for amount in [0, 1, 2, 7, 1000] {
            chase.make_ready();
            chase.run(amount);
            assert!(chase.is_correct(), "{amount}");
        }
        assert!((chase.work(3) - 384.0).abs() < 1e-9);
        chase.step += 1; // as if a load had been left out
        assert!(!chase.is_correct());
    }

    #[test]
    fn a_wrong_link_is_found_out() {
        let mut chase = Chase::new(64, 1).unwrap();
        let skipped = chase.order[10] as usize * LINE_WORDS;
        let over = chase.order[11] as usize * LINE_WORDS;
        chase.words.as_mut_slice()[skipped] = chase.words.as_slice()[over];
        chase.run(1);
        assert!(!chase.is_correct());
    }
}
