//! The FP32 matrix product, through the `gemm` crate: what a model can hope for from memory.
//!
//! Not here: our own kernels. All threads work on one product: C is cut into a grid of blocks, one
//! for each thread, which start together and are preempted, if at all, where we see it.

use super::Runnable;
use super::workers::{Build, Kernel};
use crate::bench::{ElementFormat, GemmLoad, Library, LibraryAbility, Unmeasurable};
use flopwise::machine::CacheState;
use std::sync::Arc;

/// The library's name.
const BACKEND: &str = "gemm";

/// Entries of each block compared with the naive product, corners among them.
const N_VERIFIED: usize = 36;

/// A and B of C = A x B, column-major, shared by all threads.
struct Operands {
    m: usize,
    k: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// A rectangle of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    first_row: usize,
    n_rows: usize,
    first_column: usize,
    n_columns: usize,
}

/// What the built-in kernels multiply.
pub(super) fn ability() -> LibraryAbility {
    LibraryAbility {
        library: Library::BuiltIn,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        path: None,
        formats: vec![ElementFormat::Fp32],
    }
}

/// A product by the built-in kernels.
pub(super) fn runnable(load: GemmLoad, n_threads: usize) -> Result<Runnable, Unmeasurable> {
    if load.format != ElementFormat::Fp32 {
        return Err(Unmeasurable(format!("{} has no built-in product", load.format.name())));
    }
    if load.cache == CacheState::Cold || 0 < load.padding {
        return Err(Unmeasurable("operands are hot and without gaps here".to_owned()));
    }
    Ok(Runnable {
        builds: builds(load.shape, n_threads),
        backend: BACKEND.to_owned(),
        instruction: None,
        chains: None,
        array_bytes: None,
    })
}

/// One block of the product `[m, n, k]` for each thread.
fn builds([m, n, k]: [u64; 3], n_threads: usize) -> Vec<Build> {
    let (m, n, k) = (m as usize, n as usize, k as usize);
    let a = uniform(m * k, 1);
    let b = uniform(k * n, 2);
    let operands = Arc::new(Operands { m, k, a, b });
    let areas = grid(m, n, n_threads).into_iter();
    areas
        .map(|area| -> Build {
            let operands = Arc::clone(&operands);
            Box::new(move || build(operands, area))
        })
        .collect()
}

/// Cuts m x n into `n_threads` areas, as square as the divisors of `n_threads` allow.
fn grid(m: usize, n: usize, n_threads: usize) -> Vec<Area> {
    let is_fitting = |rows: &usize| n_threads.is_multiple_of(*rows) && rows * rows <= n_threads;
    let n_down = (1..=n_threads).filter(is_fitting).max().unwrap_or(1);
    let n_across = n_threads / n_down;
    let edge = |total: usize, part_idx: usize, n_parts: usize| total * part_idx / n_parts;
    let mut areas = Vec::with_capacity(n_threads);
    for across in 0..n_across {
        for down in 0..n_down {
            let (first_row, first_column) = (edge(m, down, n_down), edge(n, across, n_across));
            areas.push(Area {
                first_row,
                n_rows: edge(m, down + 1, n_down) - first_row,
                first_column,
                n_columns: edge(n, across + 1, n_across) - first_column,
            });
        }
    }
    areas
}

/// Uniform in [-1, 1): constant matrices flatter some machines. SplitMix64 (Steele, Lea, Flood
/// 2014), so that every run multiplies the same numbers.
fn uniform(n_values: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) >> 40 // 24 bits: exact in an f32
    };
    (0..n_values).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Multiplies once and verifies before anything is timed.
fn build(operands: Arc<Operands>, area: Area) -> Result<Box<dyn Kernel>, Unmeasurable> {
    let n_entries = area.n_rows * area.n_columns;
    // NaN: an entry that was never written cannot pass.
    let mut block = Block { operands, area, c: vec![f32::NAN; n_entries], verified: Vec::new() };
    block.run(1);
    block.verified = (0..N_VERIFIED.min(n_entries))
        .map(|sample_idx| {
            let last_sample = N_VERIFIED.min(n_entries).max(2) - 1;
            let entry_idx = sample_idx * (n_entries - 1) / last_sample;
            (entry_idx, block.c[entry_idx])
        })
        .collect();
    let is_near = |&(entry_idx, value): &(usize, f32)| {
        let (expected, tolerance) = block.naive(entry_idx);
        (f64::from(value) - expected).abs() <= tolerance
    };
    match block.verified.iter().all(is_near) {
        true => Ok(Box::new(block)),
        false => Err(Unmeasurable("the product differs from a naive one".to_owned())),
    }
}

/// One thread's part of C.
struct Block {
    operands: Arc<Operands>,
    area: Area,
    /// Column-major, `n_rows` apart.
    c: Vec<f32>,
    /// Entries found right, and their values.
    verified: Vec<(usize, f32)>,
}

impl Block {
    /// One entry the slow, obvious way, in f64, and how far an f32 sum in any order may be from
    /// it: k x 2^-24 x sum |a||b| (Higham 2002, "Accuracy and Stability", 3.1).
    fn naive(&self, entry_idx: usize) -> (f64, f64) {
        let Operands { m, k, a, b } = &*self.operands;
        let row = self.area.first_row + entry_idx % self.area.n_rows;
        let column = self.area.first_column + entry_idx / self.area.n_rows;
        let terms =
            (0..*k).map(|depth| f64::from(a[depth * m + row]) * f64::from(b[column * k + depth]));
        let (sum, magnitude) =
            terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
        (sum, *k as f64 * f64::from(f32::EPSILON) / 2.0 * magnitude)
    }
}

impl Kernel for Block {
    fn run(&mut self, amount: u64) {
        let Operands { m, k, a, b } = &*self.operands;
        let Area { first_row, n_rows, first_column, n_columns } = self.area;
        let b_columns = &b[first_column * k..(first_column + n_columns) * k];
        assert!(first_row + n_rows <= *m && a.len() == m * k && self.c.len() == n_rows * n_columns);
        for _ in 0..amount {
            // SAFETY: C is `n_rows` x `n_columns` with columns `n_rows` apart, A's rows from
            // `first_row` are `n_rows` of m in each of k columns, B's columns are k long: all
            // lengths asserted or sliced above. C is ours alone.
            unsafe {
                gemm::gemm(
                    n_rows,
                    n_columns,
                    *k,
                    self.c.as_mut_ptr(),
                    n_rows as isize,
                    1,
                    false,
                    a[first_row..].as_ptr(),
                    *m as isize,
                    1,
                    b_columns.as_ptr(),
                    *k as isize,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
    }

    fn work(&self, amount: u64) -> f64 {
        2.0 * amount as f64 * self.c.len() as f64 * self.operands.k as f64
    }

    /// The verified entries have their values again, from this run: they are wiped for the next.
    fn is_correct(&mut self) -> bool {
        let is_same =
            |&(entry_idx, value): &(usize, f32)| self.c[entry_idx].to_bits() == value.to_bits();
        let is_correct = self.verified.iter().all(is_same);
        for &(entry_idx, _) in &self.verified {
            self.c[entry_idx] = f32::NAN;
        }
        is_correct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(m: usize, n: usize, k: usize, area: Area) -> Block {
        let operands = Operands { m, k, a: uniform(m * k, 3), b: uniform(k * n, 4) };
        let c = vec![f32::NAN; area.n_rows * area.n_columns];
        Block { operands: Arc::new(operands), area, c, verified: Vec::new() }
    }

    #[test]
    fn every_entry_of_every_block_equals_the_naive_product() {
        for n_threads in [1, 2, 3, 4, 6] {
            for area in grid(37, 29, n_threads) {
                let mut block = block(37, 29, 50, area);
                block.run(1);
                for entry_idx in 0..block.c.len() {
                    let (expected, tolerance) = block.naive(entry_idx);
                    let error = (f64::from(block.c[entry_idx]) - expected).abs();
                    assert!(error <= tolerance, "{area:?} entry {entry_idx}: {error}");
                }
            }
        }
    }

    #[test]
    fn naive_multiplies() {
        let operands =
            Operands { m: 2, k: 2, a: vec![1.0, 3.0, 2.0, 4.0], b: vec![5.0, 7.0, 6.0, 8.0] };
        let area = Area { first_row: 0, n_rows: 2, first_column: 0, n_columns: 2 };
        let block =
            Block { operands: Arc::new(operands), area, c: Vec::new(), verified: Vec::new() };
        let product: Vec<f64> = (0..4).map(|entry_idx| block.naive(entry_idx).0).collect();
        assert_eq!(product, [19.0, 43.0, 22.0, 50.0]); // [1 2; 3 4] x [5 6; 7 8], by columns
    }

    #[test]
    fn blocks_cover_the_product_once() {
        for n_threads in 1..=12 {
            let areas = grid(64, 48, n_threads);
            assert_eq!(areas.len(), n_threads);
            let mut n_covers = vec![0; 64 * 48];
            for area in areas {
                for column in area.first_column..area.first_column + area.n_columns {
                    for row in area.first_row..area.first_row + area.n_rows {
                        n_covers[column * 64 + row] += 1;
                    }
                }
            }
            assert!(n_covers.iter().all(|&n| n == 1), "{n_threads} threads");
        }
        assert_eq!(grid(64, 48, 4)[3].first_row, 32);
    }

    #[test]
    fn a_run_that_writes_nothing_is_found_out() {
        let area = Area { first_row: 0, n_rows: 16, first_column: 0, n_columns: 16 };
        let mut block = block(16, 16, 16, area);
        block.run(1);
        block.verified = vec![(7, block.c[7])];
        assert!(block.is_correct());
        block.run(0);
        assert!(!block.is_correct());
        block.run(1);
        assert!(block.is_correct());
    }

    #[test]
    fn work_counts_two_per_multiply_add() {
        let area = Area { first_row: 0, n_rows: 3, first_column: 0, n_columns: 5 };
        assert!((block(3, 5, 7, area).work(2) - 420.0).abs() < 1e-9);
    }
}
