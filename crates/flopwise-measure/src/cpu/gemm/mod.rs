//! Matrix products by our own kernels: packed, blocked for the caches found, one area of C for each
//! thread.
//!
//! Not here: other people's libraries. FP64, FP32, BF16 (FP32 sums) and INT8 (factors without sign
//! times factors with sign, 32-bit sums), row-major, C overwritten; packing is part of the time, as
//! it is in BLAS.

mod driver;

mod blocking;
mod grid;
mod matrix;
mod memory;
mod pack;
mod single_row;
mod team;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(test)]
mod tests;

use super::Runnable;
use super::workers::{Build, Kernel};
use crate::bench::{ElementFormat, GemmLoad, Library, LibraryAbility, Unmeasurable};
use blocking::{Blocking, blocking, caches};
use driver::{Packed, Product};
use flopwise::machine::CacheState;
use grid::{Area, grid};
use matrix::{Expected, Matrix};
use std::sync::Arc;
use team::Seat;
use tile::TileKernel;

/// Entries of each area compared with the naive product, corners among them.
const N_VERIFIED: usize = 36;
/// What an entry holds before it is computed: NaN in each float format, -1 as an integer.
const UNWRITTEN: u8 = 0xFF;

/// What the built-in kernels multiply.
pub(super) fn ability() -> LibraryAbility {
    let is_there = |format: &ElementFormat| tile::best(*format).is_some();
    LibraryAbility {
        library: Library::BuiltIn,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        path: None,
        formats: ElementFormat::ALL.into_iter().filter(is_there).collect(),
    }
}

/// A product by the built-in kernels.
pub(super) fn runnable(load: GemmLoad, n_threads: usize) -> Result<Runnable, Unmeasurable> {
    let kernel = tile::best(load.format)
        .ok_or_else(|| Unmeasurable(format!("{} has no built-in product", load.format.name())))?;
    if load.cache == CacheState::Cold && !memory::CAN_FLUSH {
        return Err(Unmeasurable("caches cannot be flushed on this architecture".to_owned()));
    }
    Ok(Runnable {
        builds: builds(kernel, load, n_threads)?,
        backend: kernel.backend.to_owned(),
        instruction: Some(kernel.instruction.to_owned()),
        chains: None,
        array_bytes: None,
    })
}

/// A, B and C = A x B, shared by all threads.
struct Operands {
    format: ElementFormat,
    a: Matrix,
    b: Matrix,
    /// Each thread writes its own area and reads no other.
    c: Matrix,
}

/// One area of the product for each thread.
fn builds(
    kernel: TileKernel,
    load: GemmLoad,
    n_threads: usize,
) -> Result<Vec<Build>, Unmeasurable> {
    let sizes = load.shape.map(usize::try_from);
    let ([Ok(m), Ok(n), Ok(k)], Ok(padding)) = (sizes, usize::try_from(load.padding)) else {
        return Err(Unmeasurable("a matrix exceeds the address space".to_owned()));
    };
    if m == 0 || n == 0 || k == 0 {
        return Err(Unmeasurable("an empty product takes no time".to_owned()));
    }
    let format = load.format;
    let operands = Arc::new(Operands {
        format,
        a: Matrix::random([m, k], padding, format, 1)?,
        b: Matrix::random([k, n], padding, format, 2)?,
        c: Matrix::zeros([m, n], padding, format.sum_bytes())?,
    });
    let blocking = blocking(&kernel, &caches(n_threads));
    let seats = match team::seats(format, [m, n, k], n_threads)? {
        Some(seats) => seats.into_iter().map(Some).collect(),
        None => std::iter::repeat_with(|| None).take(n_threads).collect::<Vec<Option<Seat>>>(),
    };
    let areas = grid([m, n], n_threads, kernel.n_columns).into_iter();
    let build_one = |(area, seat): (Area, Option<Seat>)| -> Build {
        let operands = Arc::clone(&operands);
        Box::new(move || {
            let block = Block::new(kernel, blocking, operands, area, load.cache)?;
            build(Block { seat, ..block })
        })
    };
    Ok(areas.zip(seats).map(build_one).collect())
}

/// Multiplies once and verifies before anything is timed.
fn build(mut block: Block) -> Result<Box<dyn Kernel>, Unmeasurable> {
    block.run(1);
    block.verified = block.sample();
    match block.verified.iter().all(|entry| block.is_right(entry.row, entry.column)) {
        true => Ok(Box::new(block)),
        false => {
            Err(Unmeasurable(format!("{} differs from the naive product", block.kernel.backend)))
        }
    }
}

/// One thread's part of a product.
struct Block {
    kernel: TileKernel,
    blocking: Blocking,
    packed: Packed,
    operands: Arc<Operands>,
    area: Area,
    cache: CacheState,
    /// Its place among threads that multiply one row together.
    seat: Option<Seat>,
    /// Entries found right.
    verified: Vec<Entry>,
}

/// An entry of C and its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    row: usize,
    column: usize,
    bits: u64,
}

impl Block {
    fn new(
        kernel: TileKernel,
        blocking: Blocking,
        operands: Arc<Operands>,
        area: Area,
        cache: CacheState,
    ) -> Result<Block, Unmeasurable> {
        let shape = [area.rows.len(), area.columns.len(), operands.a.n_columns];
        let packed = Packed::new(&kernel, &blocking, shape)?;
        let (seat, verified) = (None, Vec::new());
        let block = Block { kernel, blocking, packed, operands, area, cache, seat, verified };
        for row in block.area.rows.clone() {
            for column in block.area.columns.clone() {
                block.wipe(row, column);
            }
        }
        Ok(block)
    }

    fn entry(&self, row: usize, column: usize) -> *mut u8 {
        assert!(self.area.rows.contains(&row) && self.area.columns.contains(&column));
        self.operands.c.entry(self.operands.format.sum_bytes(), row, column)
    }

    fn wipe(&self, row: usize, column: usize) {
        let n_bytes = self.operands.format.sum_bytes() as usize;
        // SAFETY: an entry of this thread's own area.
        unsafe { self.entry(row, column).write_bytes(UNWRITTEN, n_bytes) };
    }

    fn bits(&self, row: usize, column: usize) -> u64 {
        let entry = self.entry(row, column);
        // SAFETY: an entry of this thread's own area, of so many bytes.
        unsafe {
            match self.operands.format.sum_bytes() {
                8 => entry.cast::<u64>().read(),
                _ => u64::from(entry.cast::<u32>().read()),
            }
        }
    }

    fn is_right(&self, row: usize, column: usize) -> bool {
        let Operands { format, a, b, .. } = &*self.operands;
        let expected = Expected::of(*format, [a, b], row, column);
        // SAFETY: an entry of this thread's own area.
        unsafe { expected.is_met_by(*format, self.entry(row, column)) }
    }

    /// Entries spread over the area, first and last among them.
    fn sample(&self) -> Vec<Entry> {
        let Area { rows, columns } = &self.area;
        let n_entries = rows.len() * columns.len();
        let n_sampled = N_VERIFIED.min(n_entries);
        let entry = |sample_idx: usize| {
            let entry_idx = sample_idx * n_entries.saturating_sub(1) / (n_sampled.max(2) - 1);
            let row = rows.start + entry_idx / columns.len();
            let column = columns.start + entry_idx % columns.len();
            Entry { row, column, bits: self.bits(row, column) }
        };
        (0..n_sampled).map(entry).collect()
    }

    fn n_rounds(&self, amount: u64) -> u64 {
        match self.cache {
            CacheState::Hot => amount,
            // The second of several would find what the first has left.
            CacheState::Cold => amount.min(1),
        }
    }
}

impl Kernel for Block {
    fn make_ready(&mut self) {
        if self.cache == CacheState::Hot {
            return;
        }
        for matrix in [&self.operands.a, &self.operands.b, &self.operands.c] {
            let (start, n_bytes) = matrix.bytes();
            // SAFETY: the bytes of a matrix that lives; flushing changes none of them.
            unsafe { memory::flush(start, n_bytes) };
        }
    }

    fn run(&mut self, amount: u64) {
        let n_rounds = self.n_rounds(amount);
        if let Some(seat) = &mut self.seat {
            for _ in 0..n_rounds {
                let columns = &self.area.columns;
                // SAFETY: the kernel exists, so its instructions do; the seats were made for these
                // operands, and the area is no other thread's.
                unsafe { seat.multiply(self.kernel.row_product, &self.operands, columns) };
            }
            return;
        }
        if self.area.is_empty() {
            return;
        }
        let Operands { format, a, b, c } = &*self.operands;
        let Area { rows, columns } = &self.area;
        assert!(rows.end <= a.n_rows && columns.end <= b.n_columns && a.n_columns == b.n_rows);
        assert!(rows.end <= c.n_rows && columns.end <= c.n_columns);
        let product = Product {
            a: a.entry(format.bytes(), rows.start, 0),
            a_stride: a.stride,
            b: b.entry(format.bytes(), 0, columns.start),
            b_stride: b.stride,
            c: c.entry(format.sum_bytes(), rows.start, columns.start),
            c_stride: c.stride,
            shape: [rows.len(), columns.len(), a.n_columns],
        };
        for _ in 0..n_rounds {
            // SAFETY: the kernel exists, so its instructions do; the area lies within the matrices
            // by the assertions and is no other thread's; the packed memory was made for it.
            unsafe { driver::multiply(&self.kernel, &self.blocking, &mut self.packed, &product) };
        }
    }

    fn work(&self, amount: u64) -> f64 {
        let Area { rows, columns } = &self.area;
        let n_multiply_adds = [rows.len(), columns.len(), self.operands.a.n_columns];
        let per_round: f64 = n_multiply_adds.into_iter().map(|n| n as f64).product();
        2.0 * self.n_rounds(amount) as f64 * per_round
    }

    /// The verified entries have their bits again, from this run: they are wiped for the next.
    fn is_correct(&mut self) -> bool {
        let is_same = |entry: &Entry| self.bits(entry.row, entry.column) == entry.bits;
        let is_correct = self.verified.iter().all(is_same);
        for entry in &self.verified {
            self.wipe(entry.row, entry.column);
        }
        is_correct
    }
}
