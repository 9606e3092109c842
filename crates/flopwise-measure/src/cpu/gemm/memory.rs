//! Memory for matrices: whole pages of 2 MiB where they are large, so that what is measured is the
//! product and not the page-table walks.
//!
//! Not here: what is in it (`matrix.rs`).

use crate::bench::Unmeasurable;
use crate::cpu::os;
use std::alloc::Layout;

/// One huge page.
const PAGE_BYTES: usize = 2 << 20;
/// One cache line, and the widest register.
const LINE_BYTES: usize = 64;

/// Bytes from the allocator, zeroed, aligned to a cache line or a huge page.
pub(super) struct Memory {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: owns its bytes; whoever writes through `start` answers for what else uses them.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// So many bytes, of zeros.
    pub(super) fn new(n_bytes: usize) -> Result<Memory, Unmeasurable> {
        let refuse = || Unmeasurable(format!("no memory for {n_bytes} bytes of a matrix"));
        let alignment = if n_bytes < PAGE_BYTES { LINE_BYTES } else { PAGE_BYTES };
        let layout = Layout::from_size_align(n_bytes.max(1), alignment).map_err(|_| refuse())?;
        let layout = layout.pad_to_align();
        // SAFETY: the layout has a size.
        let start = unsafe { std::alloc::alloc(layout) };
        if start.is_null() {
            return Err(refuse());
        }
        if PAGE_BYTES <= layout.size() {
            os::wish_for_huge_pages(start, layout.size());
        }
        // SAFETY: just allocated with this size.
        unsafe { start.write_bytes(0, layout.size()) };
        Ok(Memory { start, layout })
    }

    /// The first byte.
    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    /// All of them.
    pub(super) fn n_bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
    }
}

/// Whether [`flush`] can.
pub(super) const CAN_FLUSH: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Puts a range out of all caches, its changes written back.
///
/// # Safety
/// The range is valid.
pub(super) unsafe fn flush(start: *const u8, n_bytes: usize) {
    for offset in (0..n_bytes).step_by(LINE_BYTES) {
        // SAFETY: inside the range.
        unsafe { flush_line(start.add(offset)) };
    }
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// # Safety
/// The address is valid.
#[cfg(target_arch = "x86_64")]
unsafe fn flush_line(address: *const u8) {
    // SAFETY: the caller's promise; part of SSE2, which every x86-64 has.
    unsafe { std::arch::x86_64::_mm_clflush(address) };
}

/// # Safety
/// The address is valid.
#[cfg(target_arch = "aarch64")]
unsafe fn flush_line(address: *const u8) {
    // SAFETY: the caller's promise; allowed to programs where the system sets SCTLR_EL1.UCI, as
    // Linux, Windows and macOS do.
    unsafe { std::arch::asm!("dc civac, {address}", address = in(reg) address) };
}

/// Nothing known.
///
/// # Safety
/// None.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn flush_line(_address: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_zero_and_survives_a_flush() {
        for n_bytes in [0, 1, 100, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1] {
            let memory = Memory::new(n_bytes).unwrap();
            assert!(n_bytes <= memory.n_bytes());
            assert!((memory.start() as usize).is_multiple_of(LINE_BYTES));
            // SAFETY: the memory's own bytes, nobody else's.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start(), memory.n_bytes()) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(7);
            // SAFETY: the memory's own bytes.
            unsafe { flush(memory.start(), memory.n_bytes()) };
            assert!(bytes.iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(Memory::new(usize::MAX / 2).is_err());
        assert!(Memory::new(usize::MAX).is_err());
    }
}
