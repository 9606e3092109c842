//! Streams for x86-64 in assembly: one text, in the registers of SSE2, AVX2 and AVX-512.
//!
//! Not here: when to run them; each is reachable only after its instructions were detected. The
//! sets differ in the names of registers and instructions alone, so that a test of one is a test
//! of the text of all.

/// Makes the kernels of one instruction set.
///
/// A block of 1024 bytes is a number of groups of eight registers: `\g` counts groups, `\i`
/// registers. Register 15 holds what all elements share.
macro_rules! stream_kernels {
    (
        $isa:ident, $features:literal, register: $register:literal x $bytes:literal,
        groups: $groups:literal, clear: $clear:literal, add: $add:literal,
        aligned: $aligned:literal, unaligned: $unaligned:literal, past_caches: $past_caches:literal,
        fill: $fill:literal, scale_and_add: $scale_and_add:literal, end: $end:literal $(,)?
    ) => {
        pub(super) mod $isa {
            use super::super::kernels::{Extent, StoreKernels};

            pub(in super::super) const PLAIN: StoreKernels =
                StoreKernels { write: plain::write, copy: plain::copy, triad: plain::triad };
            pub(in super::super) const PAST_CACHES: StoreKernels = StoreKernels {
                write: past_caches::write,
                copy: past_caches::copy,
                triad: past_caches::triad,
            };

            /// The wrapping sum, in eight chains of as many lanes as a register has.
            ///
            /// # Safety
            /// As of [`Read`](super::super::kernels::Read); the instruction set is there.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn read(words: *const u64, extent: Extent) -> u64 {
                let mut lanes = [0u64; $bytes];
                // SAFETY: reads the blocks of the extent, over and over; writes eight registers
                // into `lanes`, which has a word for each byte of a register.
                unsafe {
                    std::arch::asm!(
                        concat!(".irp i, 0,1,2,3,4,5,6,7\n", $clear, "\n.endr"),
                        "3:",
                        "mov {word}, {words}",
                        "mov {n}, {n_blocks}",
                        ".p2align 5",
                        "2:",
                        concat!(".irp g, ", $groups),
                        ".irp i, 0,1,2,3,4,5,6,7",
                        concat!($add, "[{word} + ", $bytes, "*(8*\\g + \\i)]"),
                        ".endr",
                        ".endr",
                        "add {word}, 1024",
                        "dec {n}",
                        "jnz 2b",
                        "dec {n_times}",
                        "jnz 3b",
                        ".irp i, 0,1,2,3,4,5,6,7",
                        concat!($unaligned, " [{lanes} + ", $bytes, "*\\i], ", $register, "\\i"),
                        ".endr",
                        $end,
                        words = in(reg) words,
                        word = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        lanes = in(reg) lanes.as_mut_ptr(),
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        options(nostack),
                    );
                }
                lanes.into_iter().fold(0, u64::wrapping_add)
            }

            store_kernels!(
                plain, $features, $register, $bytes, $groups, $aligned, $fill, $scale_and_add,
                $end, store: $aligned, fence: ""
            );
            // Stores past the caches count when they have left the processor.
            store_kernels!(
                past_caches, $features, $register, $bytes, $groups, $aligned, $fill,
                $scale_and_add, $end, store: $past_caches, fence: "sfence"
            );
        }
    };
}

/// The kernels of [`stream_kernels`] that store, with one kind of store.
macro_rules! store_kernels {
    (
        $kind:ident, $features:literal, $register:literal, $bytes:literal, $groups:literal,
        $load:literal, $fill:literal, $scale_and_add:literal, $end:literal,
        store: $store:literal, fence: $fence:literal
    ) => {
        mod $kind {
            use super::super::super::kernels::Extent;

            /// # Safety
            /// As of [`Write`](super::super::super::kernels::Write); the instruction set is there.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn write(target: *mut u64, value: u64, extent: Extent) {
                // SAFETY: reads `value`, writes the blocks of the extent.
                unsafe {
                    std::arch::asm!(
                        $fill,
                        "3:",
                        "mov {a}, {target}",
                        "mov {n}, {n_blocks}",
                        ".p2align 5",
                        "2:",
                        concat!(".irp g, ", $groups),
                        ".irp i, 0,1,2,3,4,5,6,7",
                        concat!($store, " [{a} + ", $bytes, "*(8*\\g + \\i)], ", $register, "15"),
                        ".endr",
                        ".endr",
                        "add {a}, 1024",
                        "dec {n}",
                        "jnz 2b",
                        "dec {n_times}",
                        "jnz 3b",
                        $fence,
                        $end,
                        value = in(reg) &raw const value,
                        target = in(reg) target,
                        a = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        out("xmm15") _,
                        options(nostack),
                    );
                }
            }

            /// # Safety
            /// As of [`Copy`](super::super::super::kernels::Copy); the instruction set is there.
            #[target_feature(enable = $features)]
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
                        concat!(".irp g, ", $groups),
                        ".irp i, 0,1,2,3,4,5,6,7",
                        concat!($load, " ", $register, "\\i, [{b} + ", $bytes, "*(8*\\g + \\i)]"),
                        concat!($store, " [{a} + ", $bytes, "*(8*\\g + \\i)], ", $register, "\\i"),
                        ".endr",
                        ".endr",
                        "add {a}, 1024",
                        "add {b}, 1024",
                        "dec {n}",
                        "jnz 2b",
                        "dec {n_times}",
                        "jnz 3b",
                        $fence,
                        $end,
                        target = in(reg) target,
                        source = in(reg) source,
                        a = out(reg) _,
                        b = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        options(nostack),
                    );
                }
            }

            /// # Safety
            /// As of [`Triad`](super::super::super::kernels::Triad); the instruction set is there.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn triad(
                target: *mut u64,
                addend: *const u64,
                factor: *const u64,
                scale: f64,
                extent: Extent,
            ) {
                // SAFETY: reads `scale` and the blocks of the extent of two arrays, writes those
                // of the third.
                unsafe {
                    std::arch::asm!(
                        $fill,
                        "3:",
                        "mov {a}, {target}",
                        "mov {b}, {addend}",
                        "mov {c}, {factor}",
                        "mov {n}, {n_blocks}",
                        ".p2align 5",
                        "2:",
                        concat!(".irp g, ", $groups),
                        ".irp i, 0,1,2,3,4,5,6,7",
                        concat!($load, " ", $register, "\\i, [{c} + ", $bytes, "*(8*\\g + \\i)]"),
                        concat!($scale_and_add, " [{b} + ", $bytes, "*(8*\\g + \\i)]"),
                        concat!($store, " [{a} + ", $bytes, "*(8*\\g + \\i)], ", $register, "\\i"),
                        ".endr",
                        ".endr",
                        "add {a}, 1024",
                        "add {b}, 1024",
                        "add {c}, 1024",
                        "dec {n}",
                        "jnz 2b",
                        "dec {n_times}",
                        "jnz 3b",
                        $fence,
                        $end,
                        value = in(reg) &raw const scale,
                        target = in(reg) target,
                        addend = in(reg) addend,
                        factor = in(reg) factor,
                        a = out(reg) _,
                        b = out(reg) _,
                        c = out(reg) _,
                        n = out(reg) _,
                        n_blocks = in(reg) extent.n_blocks,
                        n_times = inout(reg) extent.n_times => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm15") _,
                        options(nostack),
                    );
                }
            }
        }
    };
}

stream_kernels!(
    avx512, "avx512f",
    register: "zmm" x 64,
    groups: "0,1",
    clear: "vpxorq zmm\\i, zmm\\i, zmm\\i",
    add: "vpaddq zmm\\i, zmm\\i, ",
    aligned: "vmovdqa64",
    unaligned: "vmovdqu64",
    past_caches: "vmovntdq",
    fill: "vpbroadcastq zmm15, qword ptr [{value}]",
    scale_and_add: "vfmadd213pd zmm\\i, zmm15, ",
    end: "vzeroupper",
);

stream_kernels!(
    avx2, "avx2,fma",
    register: "ymm" x 32,
    groups: "0,1,2,3",
    clear: "vpxor ymm\\i, ymm\\i, ymm\\i",
    add: "vpaddq ymm\\i, ymm\\i, ",
    aligned: "vmovdqa",
    unaligned: "vmovdqu",
    past_caches: "vmovntdq",
    fill: "vpbroadcastq ymm15, qword ptr [{value}]",
    scale_and_add: "vfmadd213pd ymm\\i, ymm15, ",
    end: "vzeroupper",
);

stream_kernels!(
    sse2, "sse2",
    register: "xmm" x 16,
    groups: "0,1,2,3,4,5,6,7",
    clear: "pxor xmm\\i, xmm\\i",
    add: "paddq xmm\\i, ",
    aligned: "movdqa",
    unaligned: "movdqu",
    past_caches: "movntdq",
    fill: "movq xmm15, qword ptr [{value}]\npunpcklqdq xmm15, xmm15",
    scale_and_add: "mulpd xmm\\i, xmm15\naddpd xmm\\i, ",
    end: "",
);
