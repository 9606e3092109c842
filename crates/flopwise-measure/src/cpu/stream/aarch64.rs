//! Streams for 64-bit Arm in assembly: NEON, two registers an instruction.
//!
//! Not here: SVE; every such processor has NEON too, and the width of a load is not what limits
//! a stream. Stores past the caches are a hint there that a processor may ignore.

use super::kernels::{Extent, StoreKernels};

pub(super) const PLAIN: StoreKernels =
    StoreKernels { write: plain::write, copy: plain::copy, triad: plain::triad };
pub(super) const PAST_CACHES: StoreKernels =
    StoreKernels { write: past_caches::write, copy: past_caches::copy, triad: past_caches::triad };

/// The wrapping sum, in 16 chains of two lanes; a block of 1024 bytes is four times 16 registers.
///
/// # Safety
/// As of [`Read`](super::kernels::Read).
pub(super) unsafe fn read(words: *const u64, extent: Extent) -> u64 {
    let mut lanes = [0u64; 32];
    // SAFETY: reads the blocks of the extent, over and over; writes 16 registers of 16 bytes into
    // `lanes`, which are as many.
    unsafe {
        std::arch::asm!(
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movi v\\i\\().2d, #0",
            ".endr",
            "3:",
            "mov {word}, {words}",
            "mov {n}, {n_blocks}",
            ".p2align 5",
            "2:",
            ".irp g, 0,256,512,768",
            "ldp q16, q17, [{word}, #(\\g)]",
            "ldp q18, q19, [{word}, #(\\g + 32)]",
            "ldp q20, q21, [{word}, #(\\g + 64)]",
            "ldp q22, q23, [{word}, #(\\g + 96)]",
            "ldp q24, q25, [{word}, #(\\g + 128)]",
            "ldp q26, q27, [{word}, #(\\g + 160)]",
            "ldp q28, q29, [{word}, #(\\g + 192)]",
            "ldp q30, q31, [{word}, #(\\g + 224)]",
            "add v0.2d, v0.2d, v16.2d",
            "add v1.2d, v1.2d, v17.2d",
            "add v2.2d, v2.2d, v18.2d",
            "add v3.2d, v3.2d, v19.2d",
            "add v4.2d, v4.2d, v20.2d",
            "add v5.2d, v5.2d, v21.2d",
            "add v6.2d, v6.2d, v22.2d",
            "add v7.2d, v7.2d, v23.2d",
            "add v8.2d, v8.2d, v24.2d",
            "add v9.2d, v9.2d, v25.2d",
            "add v10.2d, v10.2d, v26.2d",
            "add v11.2d, v11.2d, v27.2d",
            "add v12.2d, v12.2d, v28.2d",
            "add v13.2d, v13.2d, v29.2d",
            "add v14.2d, v14.2d, v30.2d",
            "add v15.2d, v15.2d, v31.2d",
            ".endr",
            "add {word}, {word}, #1024",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            "subs {n_times}, {n_times}, #1",
            "b.ne 3b",
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "str q\\i, [{lanes}, #(16*\\i)]",
            ".endr",
            words = in(reg) words,
            word = out(reg) _,
            n = out(reg) _,
            n_blocks = in(reg) extent.n_blocks,
            n_times = inout(reg) extent.n_times => _,
            lanes = in(reg) lanes.as_mut_ptr(),
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _,
            out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
            out("v30") _, out("v31") _,
            options(nostack),
        );
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// The kernels that store, with one kind of store.
macro_rules! store_kernels {
    ($kind:ident, $store:literal, $fence:literal) => {
        mod $kind {
            use super::super::kernels::Extent;

            /// # Safety
            /// As of [`Write`](super::super::kernels::Write).
            pub(super) unsafe fn write(target: *mut u64, value: u64, extent: Extent) {
                // SAFETY: writes the blocks of the extent.
                unsafe {
                    std::arch::asm!(
                        "dup v0.2d, {value}",
                        "3:",
                        "mov {a}, {target}",
                        "mov {n}, {n_blocks}",
                        ".p2align 5",
                        "2:",
                        ".irp g, 0,128,256,384,512,640,768,896",
                        concat!($store, " q0, q0, [{a}, #(\\g)]"),
                        concat!($store, " q0, q0, [{a}, #(\\g + 32)]"),
                        concat!($store, " q0, q0, [{a}, #(\\g + 64)]"),
                        concat!($store, " q0, q0, [{a}, #(\\g + 96)]"),
                        ".endr",
                        "add {a}, {a}, #1024",
                        "subs {n}, {n}, #1",
                        "b.ne 2b",
                        "subs {n_times}, {n_times}, #1",
                        "b.ne 3b",
                        $fence,
                        value = in(reg) value,
                        target = in(reg) target,
                        a = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        out("v0") _,
                        options(nostack),
                    );
                }
            }

            /// # Safety
            /// As of [`Copy`](super::super::kernels::Copy).
            pub(super) unsafe fn copy(target: *mut u64, source: *const u64, extent: Extent) {
                // SAFETY: reads and writes the blocks of the extent.
                unsafe {
                    std::arch::asm!(
                        "3:",
                        "mov {a}, {target}",
                        "mov {b}, {source}",
                        "mov {n}, {n_blocks}",
                        ".p2align 5",
                        "2:",
                        ".irp g, 0,128,256,384,512,640,768,896",
                        "ldp q0, q1, [{b}, #(\\g)]",
                        "ldp q2, q3, [{b}, #(\\g + 32)]",
                        "ldp q4, q5, [{b}, #(\\g + 64)]",
                        "ldp q6, q7, [{b}, #(\\g + 96)]",
                        concat!($store, " q0, q1, [{a}, #(\\g)]"),
                        concat!($store, " q2, q3, [{a}, #(\\g + 32)]"),
                        concat!($store, " q4, q5, [{a}, #(\\g + 64)]"),
                        concat!($store, " q6, q7, [{a}, #(\\g + 96)]"),
                        ".endr",
                        "add {a}, {a}, #1024",
                        "add {b}, {b}, #1024",
                        "subs {n}, {n}, #1",
                        "b.ne 2b",
                        "subs {n_times}, {n_times}, #1",
                        "b.ne 3b",
                        $fence,
                        target = in(reg) target,
                        source = in(reg) source,
                        a = out(reg) _,
                        b = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                        out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                        options(nostack),
                    );
                }
            }

            /// # Safety
            /// As of [`Triad`](super::super::kernels::Triad).
            pub(super) unsafe fn triad(
                target: *mut u64,
                addend: *const u64,
                factor: *const u64,
                scale: f64,
                extent: Extent,
            ) {
                // SAFETY: reads the blocks of the extent of two arrays, writes those of the third.
                unsafe {
                    std::arch::asm!(
                        "dup v16.2d, {scale}",
                        "3:",
                        "mov {a}, {target}",
                        "mov {b}, {addend}",
                        "mov {c}, {factor}",
                        "mov {n}, {n_blocks}",
                        ".p2align 5",
                        "2:",
                        ".irp g, 0,64,128,192,256,320,384,448,512,576,640,704,768,832,896,960",
                        "ldp q0, q1, [{b}, #(\\g)]",
                        "ldp q2, q3, [{b}, #(\\g + 32)]",
                        "ldp q4, q5, [{c}, #(\\g)]",
                        "ldp q6, q7, [{c}, #(\\g + 32)]",
                        "fmla v0.2d, v4.2d, v16.2d",
                        "fmla v1.2d, v5.2d, v16.2d",
                        "fmla v2.2d, v6.2d, v16.2d",
                        "fmla v3.2d, v7.2d, v16.2d",
                        concat!($store, " q0, q1, [{a}, #(\\g)]"),
                        concat!($store, " q2, q3, [{a}, #(\\g + 32)]"),
                        ".endr",
                        "add {a}, {a}, #1024",
                        "add {b}, {b}, #1024",
                        "add {c}, {c}, #1024",
                        "subs {n}, {n}, #1",
                        "b.ne 2b",
                        "subs {n_times}, {n_times}, #1",
                        "b.ne 3b",
                        $fence,
                        scale = in(reg) scale.to_bits(),
                        target = in(reg) target,
                        addend = in(reg) addend,
                        factor = in(reg) factor,
                        a = out(reg) _,
                        b = out(reg) _,
                        c = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                        out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                        out("v16") _,
                        options(nostack),
                    );
                }
            }
        }
    };
}

store_kernels!(plain, "stp", "");
// What was stored past the caches counts when it has left the processor.
store_kernels!(past_caches, "stnp", "dsb ishst");
