//! The table of micro-kernels: each multiplies a few rows of A by one panel of B into a tile of C.
//!
//! Not here: blocking and loops (`driver.rs`), and the assembly itself (`avx2.rs`, `avx512.rs`).
//!
//! A's rows are read as they lie, so that packing A is a copy without transposition: one step
//! takes as many neighbouring factors of a row as fill one lane of a register (one FP32 or FP64,
//! two BF16, four INT8) and broadcasts them. A panel of B holds, step by step, the same factors of
//! each of its columns. Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix
//! Multiplication"; Van Zee and van de Geijn 2015, "BLIS".

use super::pack::{PackPanel, PackRow};
use super::single_row::RowProduct;
use crate::bench::ElementFormat;

/// What a micro-kernel is told; it reads the fields by their offsets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Call {
    /// First factor of the first row of A.
    pub(super) a: *const u8,
    /// Bytes between rows of A.
    pub(super) a_stride: usize,
    /// First step of a panel of B.
    pub(super) b: *const u8,
    /// Bytes between its steps.
    pub(super) b_stride: usize,
    /// First entry of the tile.
    pub(super) c: *mut u8,
    /// Bytes between rows of C.
    pub(super) c_stride: usize,
    /// Steps along k.
    pub(super) n_steps: usize,
    /// What will be read next, rows of A or of B: fetched meanwhile, never dereferenced.
    pub(super) next: *const u8,
    /// 1 to add to C, 0 to overwrite it.
    pub(super) accumulates: usize,
    /// Where a packing tile stores the panel that it reads; others leave it alone.
    pub(super) packed: *mut u8,
    /// Rows of B that will be packed later, asked for meanwhile by tiles that do not pack, half as
    /// many as the tile has steps; never dereferenced.
    pub(super) later: *const u8,
    /// Bytes between those rows.
    pub(super) later_stride: usize,
}

/// Rows of B that packing tiles look ahead: some hundred cycles, what main memory takes.
pub(super) const ROWS_AHEAD: usize = 24;

/// Computes the tile of a [`Call`].
///
/// # Safety
/// The instructions of its [`TileKernel`] are there. With r the rows of this micro-kernel and c the
/// columns of its kernel, `a` is valid for r rows of `n_steps` steps, `b` for `n_steps` steps of c
/// lanes, `c` for r rows of c sums, for writing too and by this thread alone; so is `packed`, of a
/// packing tile, for `n_steps` steps of c lanes.
pub(super) type Tile = unsafe fn(&Call);

/// One way of multiplying matrices of a format. In existence only where the processor has its
/// instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileKernel {
    /// The format of the factors.
    pub(super) format: ElementFormat,
    /// Its name in a profile.
    pub(super) backend: &'static str,
    /// What it multiplies with.
    pub(super) instruction: &'static str,
    /// Columns of a tile.
    pub(super) n_columns: usize,
    /// Factors of a row of A in one step.
    pub(super) step: usize,
    /// Bytes of a row of packed A in one step, and of each column of packed B.
    pub(super) step_bytes: usize,
    /// Whether A may be read where it lies when k fills its steps: packing changes no factor.
    pub(super) reads_plain_a: bool,
    /// The tiles of 1, 2, 3 ... rows.
    pub(super) tiles: &'static [Tile],
    /// Tiles that read B where it lies and store it as a panel on the way, `next` being so many
    /// rows of B ahead as [`ROWS_AHEAD`] says; where packing changes no factor.
    pub(super) packing_tiles: Option<&'static [Tile]>,
    /// Packs part of a row of A.
    pub(super) pack_row: PackRow,
    /// Packs a panel of B.
    pub(super) pack_panel: PackPanel,
    /// A product of one row, without packing.
    pub(super) row_product: RowProduct,
}

impl TileKernel {
    /// The most rows of a tile.
    pub(super) fn n_rows(&self) -> usize {
        self.tiles.len()
    }

    /// Bytes of a step of a panel.
    pub(super) fn panel_step_bytes(&self) -> usize {
        self.n_columns * self.step_bytes
    }

    /// Bytes of a sum.
    pub(super) fn sum_bytes(&self) -> usize {
        self.format.sum_bytes() as usize
    }

    /// Bytes of a factor.
    pub(super) fn factor_bytes(&self) -> usize {
        self.format.bytes() as usize
    }
}

/// The kernel for a format that this processor runs fastest.
pub(super) fn best(format: ElementFormat) -> Option<TileKernel> {
    available().into_iter().find(|kernel| kernel.format == format)
}

/// All that this processor has, the fastest of each format first.
pub(super) fn available() -> Vec<TileKernel> {
    let mut kernels = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        kernels.extend(super::avx512::kernels());
        kernels.extend(super::avx2::kernels());
    }
    kernels.extend(super::portable::KERNELS);
    kernels
}
