//! The loops around the micro-kernels: blocks that fit the caches, packed, tile by tile.
//!
//! Not here: block sizes (`blocking.rs`), threads (`mod.rs`: each has a product of its own).

use super::blocking::Blocking;
use super::memory::Memory;
use super::pack::Panel;
use super::single_row::RowCall;
use super::tile::{Call, ROWS_AHEAD, Tile, TileKernel};
use crate::bench::Unmeasurable;
use std::ops::Range;

/// Rows of C below which packing A costs more than it saves: a tile or two.
const PLAIN_A_PANELS: usize = 2;
/// The largest tile is 14 rows of 128 bytes.
const MAX_TILE_BYTES: usize = 14 * 128;

/// C = A x B, row-major; strides in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) a: *const u8,
    pub(super) a_stride: usize,
    pub(super) b: *const u8,
    pub(super) b_stride: usize,
    pub(super) c: *mut u8,
    pub(super) c_stride: usize,
    /// Rows of A, columns of B, columns of A; none is 0.
    pub(super) shape: [usize; 3],
}

/// Where blocks of A and B are packed.
pub(super) struct Packed {
    a: Memory,
    b: Memory,
}

impl Packed {
    /// Room for products of a shape.
    pub(super) fn new(
        kernel: &TileKernel,
        blocking: &Blocking,
        [m, n, k]: [usize; 3],
    ) -> Result<Packed, Unmeasurable> {
        let n_steps = blocking.n_steps.min(k.div_ceil(kernel.step).next_multiple_of(STEP_UNIT));
        let n_rows = blocking.n_rows.min(m);
        let n_columns = blocking.n_columns.min(n.next_multiple_of(kernel.n_columns));
        Ok(Packed {
            a: Memory::new(n_rows * packed_row_bytes(kernel, n_steps))?,
            b: Memory::new(n_columns * n_steps * kernel.step_bytes)?,
        })
    }
}

/// Blocks along k are multiples of so many steps: the micro-kernels take four at a time.
pub(super) const STEP_UNIT: usize = 4;

/// A packed row; whole cache lines.
fn packed_row_bytes(kernel: &TileKernel, n_steps: usize) -> usize {
    (n_steps * kernel.step_bytes).next_multiple_of(64)
}

/// Multiplies.
///
/// # Safety
/// The kernel's instructions are there; A, B and C are valid for the product's shape and strides
/// and of the kernel's format, C for writing by this thread alone; `packed` was made for this
/// kernel, blocking and shape.
pub(super) unsafe fn multiply(
    kernel: &TileKernel,
    blocking: &Blocking,
    packed: &mut Packed,
    product: &Product,
) {
    let [m, n, k] = product.shape;
    if m == 1 {
        let Product { a, b, b_stride, c, .. } = *product;
        let call = RowCall { a, depth: k, b, b_stride, c, n_columns: n };
        // SAFETY: the caller's promise.
        unsafe { (kernel.row_product)(&call) };
        return;
    }
    let n_steps = k.div_ceil(kernel.step);
    for columns in parts(n, blocking.n_columns, kernel.n_columns) {
        for steps in parts(n_steps, blocking.n_steps, STEP_UNIT) {
            for rows in parts(m, blocking.n_rows, 1) {
                let columns = columns.clone();
                let mut block =
                    Block { kernel, packed, product, rows, columns, steps: steps.clone() };
                // SAFETY: the caller's promise; the ranges lie within the shape.
                unsafe { block.multiply() };
            }
        }
    }
}

/// Cuts `0..total` into the fewest parts of at most `limit`, equal but for being multiples of
/// `unit`.
pub(super) fn parts(total: usize, limit: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let n_parts = total.div_ceil(limit).max(1);
    let size = total.div_ceil(n_parts).next_multiple_of(unit);
    (0..total).step_by(size.max(1)).map(move |start| start..total.min(start + size))
}

/// One block of A times one block of B.
struct Block<'a> {
    kernel: &'a TileKernel,
    packed: &'a mut Packed,
    product: &'a Product,
    rows: Range<usize>,
    columns: Range<usize>,
    steps: Range<usize>,
}

/// Rows of A as micro-kernels read them.
#[derive(Clone, Copy)]
struct Rows {
    start: *const u8,
    stride: usize,
}

impl Block<'_> {
    /// # Safety
    /// As [`multiply`] says.
    unsafe fn multiply(&mut self) {
        let Block { kernel, product, .. } = *self;
        // SAFETY: the caller's promise.
        let a = unsafe { self.rows_of_a() };
        let panel_bytes = self.steps.len() * kernel.panel_step_bytes();
        let [m, ..] = product.shape;
        // What no later rows need makes room for the next: it stays in the nearest cache.
        let kept_bytes = if self.rows.len() == m { 0 } else { panel_bytes };
        for (panel_idx, first_column) in self.columns.clone().step_by(kernel.n_columns).enumerate()
        {
            let n_columns = kernel.n_columns.min(self.columns.end - first_column);
            let b = self.packed.b.start().wrapping_add(panel_idx * kept_bytes);
            // SAFETY: the columns lie in B; the target was made for all panels of a block.
            let source = unsafe { self.begin_panel(first_column, n_columns, b) };
            let next_column = first_column + kernel.n_columns;
            let is_next_packed = self.rows.start == 0 && next_column < self.columns.end;
            let next_source = is_next_packed.then(|| self.plain_b(self.steps.start, next_column));
            let c = product.c.wrapping_add(first_column * kernel.sum_bytes());
            // SAFETY: A's rows and the panel are packed, or the first tile packs it.
            unsafe { self.multiply_panel(a, Strip { b, source, next_source, c, n_columns }) };
        }
    }

    /// Packs a panel that the first rows meet, unless their first tile does so itself.
    ///
    /// # Safety
    /// As [`multiply`] says; `target` is valid for a panel.
    unsafe fn begin_panel(
        &self,
        first_column: usize,
        n_columns: usize,
        target: *mut u8,
    ) -> Option<(*const u8, &'static [Tile])> {
        if self.rows.start != 0 {
            return None;
        }
        if let (Some(tiles), true) = (self.kernel.packing_tiles, n_columns == self.kernel.n_columns)
        {
            return Some((self.plain_b(self.steps.start, first_column), tiles));
        }
        // SAFETY: the caller's promise.
        unsafe { self.pack_panel(first_column, n_columns, target) };
        None
    }

    /// This block's part of A: packed, or as it lies where few panels would profit.
    ///
    /// # Safety
    /// As [`multiply`] says.
    unsafe fn rows_of_a(&mut self) -> Rows {
        let Block { kernel, product, .. } = *self;
        let [_, _, k] = product.shape;
        let first_factor = self.steps.start * kernel.step;
        let n_factors = (self.steps.len() * kernel.step).min(k - first_factor);
        let offset = self.rows.start * product.a_stride + first_factor * kernel.factor_bytes();
        let source = product.a.wrapping_add(offset);
        let is_whole = n_factors.is_multiple_of(kernel.step);
        let n_panels = self.columns.len().div_ceil(kernel.n_columns);
        if kernel.reads_plain_a && is_whole && n_panels <= PLAIN_A_PANELS {
            return Rows { start: source, stride: product.a_stride };
        }
        let n_bytes = self.steps.len() * kernel.step_bytes;
        let stride = packed_row_bytes(kernel, self.steps.len());
        let target = self.packed.a.start();
        for row_idx in 0..self.rows.len() {
            // SAFETY: the row lies in A; the target was made for the rows of a block.
            unsafe {
                let source = source.add(row_idx * product.a_stride);
                (kernel.pack_row)(source, n_factors, target.add(row_idx * stride), n_bytes);
            }
        }
        Rows { start: target, stride }
    }

    /// # Safety
    /// As [`multiply`] says; `target` is valid for a panel.
    unsafe fn pack_panel(&self, first_column: usize, n_columns: usize, target: *mut u8) {
        let Block { kernel, product, .. } = *self;
        let [_, _, k] = product.shape;
        let panel = Panel {
            source: self.plain_b(self.steps.start, first_column),
            stride: product.b_stride,
            depth: (self.steps.len() * kernel.step).min(k - self.steps.start * kernel.step),
            n_columns,
            target,
        };
        // SAFETY: the caller's promise; the rows and columns lie in B.
        unsafe { (kernel.pack_panel)(&panel) };
    }

    /// Where a step of a panel begins in B.
    fn plain_b(&self, step: usize, first_column: usize) -> *const u8 {
        let Block { kernel, product, .. } = *self;
        let offset = step * kernel.step * product.b_stride + first_column * kernel.factor_bytes();
        product.b.wrapping_add(offset)
    }

    /// All tiles of one panel.
    ///
    /// # Safety
    /// As [`multiply`] says; `a` and `strip` are packed for this block.
    unsafe fn multiply_panel(&self, a: Rows, strip: Strip) {
        let Block { kernel, product, .. } = *self;
        let n_rows = self.rows.len();
        let n_tiles = n_rows.div_ceil(kernel.n_rows());
        let edge = |tile_idx: usize| n_rows * tile_idx / n_tiles;
        for tile_idx in 0..n_tiles {
            let (first_row, end_row) = (edge(tile_idx), edge(tile_idx + 1));
            let row_in_c = self.rows.start + first_row;
            let mut call = Call {
                a: a.start.wrapping_add(first_row * a.stride),
                a_stride: a.stride,
                b: strip.b,
                b_stride: kernel.panel_step_bytes(),
                c: strip.c.wrapping_add(row_in_c * product.c_stride),
                c_stride: product.c_stride,
                n_steps: self.steps.len(),
                next: a.start.wrapping_add(end_row * a.stride),
                accumulates: usize::from(0 < self.steps.start),
                packed: strip.b,
                later: a.start,
                later_stride: 0,
            };
            if let (Some(source), true) = (strip.next_source, n_tiles <= tile_idx + 2) {
                // The last two tiles ask for one half each of what the next panel is packed from.
                let first_step = if tile_idx + 1 == n_tiles { self.steps.len() / 2 } else { 0 };
                let offset = first_step * kernel.step * product.b_stride;
                call.later = source.wrapping_add(offset);
                call.later_stride = product.b_stride;
            }
            let mut tiles = kernel.tiles;
            if let (0, Some((source, packing_tiles))) = (tile_idx, strip.source) {
                (call.b, call.b_stride) = (source, product.b_stride);
                call.next = source.wrapping_add(ROWS_AHEAD * product.b_stride);
                tiles = packing_tiles;
            }
            let tile = tiles[end_row - first_row - 1];
            // SAFETY: the rows and the panel hold the block's steps; C's rows hold the columns.
            unsafe {
                match strip.n_columns == kernel.n_columns {
                    true => tile(&call),
                    false => self.multiply_edge(&call, end_row - first_row, strip.n_columns),
                }
            }
        }
    }

    /// A tile that is wider than what is left of C: computed beside it.
    ///
    /// # Safety
    /// As [`multiply`] says; the call holds but for C, which has `n_columns` columns.
    unsafe fn multiply_edge(&self, call: &Call, n_rows: usize, n_columns: usize) {
        let sum_bytes = self.kernel.sum_bytes();
        let (stride, n_bytes) = (self.kernel.n_columns * sum_bytes, n_columns * sum_bytes);
        let mut whole = Aligned([0; MAX_TILE_BYTES]);
        assert!(n_rows * stride <= MAX_TILE_BYTES && n_bytes <= stride);
        let whole = whole.0.as_mut_ptr();
        // SAFETY: rows of both hold `n_bytes`, by the assertion and the caller's promise.
        unsafe {
            for row_idx in 0..n_rows {
                let part = call.c.add(row_idx * call.c_stride);
                whole.add(row_idx * stride).copy_from_nonoverlapping(part, n_bytes);
            }
            (self.kernel.tiles[n_rows - 1])(&Call { c: whole, c_stride: stride, ..*call });
            for row_idx in 0..n_rows {
                let part = call.c.add(row_idx * call.c_stride);
                part.copy_from_nonoverlapping(whole.add(row_idx * stride), n_bytes);
            }
        }
    }
}

/// A panel of B and the columns of C below it.
#[derive(Clone, Copy)]
struct Strip {
    b: *mut u8,
    /// Where it lies in B, and the tiles that pack it, if that is yet to be done.
    source: Option<(*const u8, &'static [Tile])>,
    /// Where the next one lies in B, if that is yet to be packed.
    next_source: Option<*const u8>,
    c: *mut u8,
    n_columns: usize,
}

/// As registers are.
#[repr(align(64))]
struct Aligned([u8; MAX_TILE_BYTES]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_their_total_in_equal_pieces() {
        let check = |total: usize, limit: usize, unit: usize, expected: &[usize]| {
            let ends: Vec<usize> = parts(total, limit, unit).map(|part| part.end).collect();
            assert_eq!(ends, expected, "{total} by {limit}");
            let mut next = 0;
            for part in parts(total, limit, unit) {
                assert_eq!(part.start, next, "{total} by {limit}");
                next = part.end;
            }
        };
        check(10, 10, 4, &[10]);
        check(11, 10, 1, &[6, 11]);
        check(512, 400, 4, &[256, 512]);
        check(9, 8, 4, &[8, 9]);
        check(1, 100, 4, &[1]);
    }
}
