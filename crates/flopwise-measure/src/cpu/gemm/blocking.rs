//! Block sizes from cache sizes: what stays in which cache while it is used again.
//!
//! Not here: the loops (`driver.rs`). The reasoning is Low et al. 2016, "Analytical Modeling Is
//! Enough for High-Performance BLIS": a panel of B stays in the first cache while A's rows pass by,
//! a block of A in the second while B's panels pass by, a block of B in the last.

use super::driver::STEP_UNIT;
use super::tile::TileKernel;
use std::fs;

/// Sizes of the caches that one thread sees, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caches {
    pub(super) first: usize,
    pub(super) second: usize,
    /// One thread's share of the last.
    pub(super) last: usize,
}

/// How much of each matrix is one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocking {
    /// Along k, in steps of the micro-kernel.
    pub(super) n_steps: usize,
    /// Of A and C.
    pub(super) n_rows: usize,
    /// Of B and C.
    pub(super) n_columns: usize,
}

/// Along k at least so many steps, even if a panel then outgrows the first cache: each block along
/// k costs a pass over C, and a second cache is fast enough for one panel.
const MIN_STEPS: usize = 256;
/// More gains nothing: the pass over C is then below half a per cent.
const MAX_STEPS: usize = 512;

/// The blocks for a kernel.
pub(super) fn blocking(kernel: &TileKernel, caches: &Caches) -> Blocking {
    let in_first = caches.first / 2 / kernel.panel_step_bytes();
    let n_steps = in_first.clamp(MIN_STEPS, MAX_STEPS) / STEP_UNIT * STEP_UNIT;
    let step_bytes = n_steps * kernel.step_bytes;
    let n_rows = (caches.second / 2 / step_bytes).max(kernel.n_rows());
    let n_columns = (caches.last / 2 / step_bytes) / kernel.n_columns * kernel.n_columns;
    let n_columns = n_columns.max(kernel.n_columns);
    Blocking { n_steps, n_rows, n_columns }
}

/// The caches of processor 0, the last one shared by so many threads; where the system does not
/// tell, what most processors have at least.
pub(super) fn caches(n_threads: usize) -> Caches {
    let first = cache_bytes(1).unwrap_or(32 << 10);
    let second = cache_bytes(2).unwrap_or(256 << 10).max(first);
    let last = cache_bytes(3).unwrap_or(2 << 20) / n_threads.max(1);
    Caches { first, second, last: last.max(second) }
}

/// The data cache of a level, as Linux tells.
fn cache_bytes(level: u32) -> Option<usize> {
    let indices = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    indices.filter_map(Result::ok).find_map(|index| {
        let read = |name: &str| fs::read_to_string(index.path().join(name)).ok();
        let is_level = read("level")?.trim().parse() == Ok(level);
        let holds_data = read("type")?.trim() != "Instruction";
        if !(is_level && holds_data) {
            return None;
        }
        let n_kib: usize = read("size")?.trim().strip_suffix('K')?.parse().ok()?;
        n_kib.checked_mul(1 << 10)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::tile;

    #[test]
    fn blocks_fit_their_caches() {
        let zen3 = Caches { first: 32 << 10, second: 512 << 10, last: 16 << 20 };
        let tiny = Caches { first: 4 << 10, second: 8 << 10, last: 8 << 10 };
        for kernel in tile::available() {
            for caches in [zen3, tiny] {
                let blocks = blocking(&kernel, &caches);
                assert!(MIN_STEPS <= blocks.n_steps && blocks.n_steps.is_multiple_of(STEP_UNIT));
                assert!(kernel.n_rows() <= blocks.n_rows);
                assert!(blocks.n_columns.is_multiple_of(kernel.n_columns));
                assert!(0 < blocks.n_columns);
            }
            let step_bytes = blocking(&kernel, &zen3).n_steps * kernel.step_bytes;
            assert!(blocking(&kernel, &zen3).n_rows * step_bytes <= zen3.second);
            assert!(blocking(&kernel, &zen3).n_columns * step_bytes <= zen3.last);
        }
    }

    #[test]
    fn the_last_cache_is_shared() {
        assert!(caches(4).last <= caches(1).last);
        assert!(caches(1).first <= caches(1).second && caches(1).second <= caches(1).last);
    }
}
