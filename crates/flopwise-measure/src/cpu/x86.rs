//! Streams for x86-64 in assembly, so that no compiler can collapse, split or serialise them.
//!
//! Not here: multiply-adds (`peak/x86.rs`), and when to run; each is reachable only after its
//! instructions were detected.

use std::arch::asm;

/// The wrapping sum of the words: 512 bytes of loads a pass, in four chains.
///
/// # Safety
/// AVX2 is there; `n_words` is a multiple of 64 and not 0; `words` holds so many.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn sum_avx2(words: *const u64, n_words: usize) -> u64 {
    let mut partial = [0u64; 4];
    // SAFETY: reads `n_words` words, 64 in each of `n_words` / 64 passes; writes `partial`.
    unsafe {
        asm!(
            "vpxor ymm0, ymm0, ymm0",
            "vpxor ymm1, ymm1, ymm1",
            "vpxor ymm2, ymm2, ymm2",
            "vpxor ymm3, ymm3, ymm3",
            ".p2align 5",
            "2:",
            ".irp i, 0,4,8,12",
            "vpaddq ymm0, ymm0, ymmword ptr [{words} + 32*\\i]",
            "vpaddq ymm1, ymm1, ymmword ptr [{words} + 32*\\i + 32]",
            "vpaddq ymm2, ymm2, ymmword ptr [{words} + 32*\\i + 64]",
            "vpaddq ymm3, ymm3, ymmword ptr [{words} + 32*\\i + 96]",
            ".endr",
            "add {words}, 512",
            "dec {n_passes}",
            "jnz 2b",
            "vpaddq ymm0, ymm0, ymm1",
            "vpaddq ymm2, ymm2, ymm3",
            "vpaddq ymm0, ymm0, ymm2",
            "vmovdqu ymmword ptr [{partial}], ymm0",
            "vzeroupper",
            words = inout(reg) words => _,
            n_passes = inout(reg) n_words / 64 => _,
            partial = in(reg) partial.as_mut_ptr(),
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }
    partial.into_iter().fold(0, u64::wrapping_add)
}

/// Copies words with plain stores: 256 bytes a pass. `memcpy` would switch to stores past the
/// cache at a size of its own choosing.
///
/// # Safety
/// AVX2 is there; `n_words` is a multiple of 32 and not 0; `source` and `target` hold so many and
/// do not overlap.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn copy_avx2(source: *const u64, target: *mut u64, n_words: usize) {
    // SAFETY: reads and writes `n_words` words, 32 in each of `n_words` / 32 passes.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            ".irp i, 0,1,2,3,4,5,6,7",
            "vmovdqu ymm\\i, ymmword ptr [{source} + 32*\\i]",
            ".endr",
            ".irp i, 0,1,2,3,4,5,6,7",
            "vmovdqu ymmword ptr [{target} + 32*\\i], ymm\\i",
            ".endr",
            "add {source}, 256",
            "add {target}, 256",
            "dec {n_passes}",
            "jnz 2b",
            "vzeroupper",
            source = inout(reg) source => _,
            target = inout(reg) target => _,
            n_passes = inout(reg) n_words / 32 => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }
}
