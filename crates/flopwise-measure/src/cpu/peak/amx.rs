//! Products of tiles (AMX) for x86-64 in assembly, and whether the system lets them run.
//!
//! Not here: what the instructions do (`twin.rs`).

use super::frame::Frame;
use super::twin::{Arithmetic, Number};
use super::{Loop, PeakKernel, STEPS_PER_PASS};
use crate::bench::ElementFormat;
use std::arch::asm;
use std::mem::offset_of;

/// Bytes between the rows of a tile.
const ROW_BYTES: usize = 64;
const TILE_BYTES: usize = 1024;

/// The features, of those that kernels here need, that this processor and system have.
///
/// Asks the system for the state of the tiles, for this process and all its threads.
pub(super) fn features() -> Vec<&'static str> {
    let claimed = claimed_features(leaf_7(0), leaf_7(1));
    if claimed.is_empty() || !are_tiles_saved() || !request_tile_data() {
        return Vec::new();
    }
    claimed
}

/// EAX and EDX of leaf 7 of CPUID.
type EaxEdx = [u32; 2];

/// What CPUID says of the instructions (Intel SDM vol. 2A, CPUID, leaf 7).
fn claimed_features([_, edx]: EaxEdx, [eax_of_1, _]: EaxEdx) -> Vec<&'static str> {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const AMX_FP16: u32 = 1 << 21; // EAX of subleaf 1
    if edx & AMX_TILE == 0 {
        return Vec::new();
    }
    let claims = [
        ("amx-bf16", edx & AMX_BF16),
        ("amx-int8", edx & AMX_INT8),
        ("amx-fp16", eax_of_1 & AMX_FP16),
    ];
    claims.into_iter().filter(|(_, bit)| *bit != 0).map(|(name, _)| name).collect()
}

fn leaf_7(subleaf: u32) -> EaxEdx {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).eax < subleaf {
        return [0, 0];
    }
    let leaf = __cpuid_count(7, subleaf);
    [leaf.eax, leaf.edx]
}

/// Whether the system saves the tiles and their shapes: bits 17 and 18 of XCR0.
fn are_tiles_saved() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u32 = 0b11 << 17;
    if std::arch::x86_64::__cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let xcr0: u32;
    // SAFETY: OSXSAVE says that XGETBV exists for register 0; it changes EAX and EDX only.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") xcr0, out("edx") _, options(nomem, nostack));
    }
    xcr0 & TILES == TILES
}

/// Asks for the 8 KiB of state, which Linux gives each thread only on request
/// (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn request_tile_data() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: two integers in, no memory; an old kernel answers EINVAL.
    let answer =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    answer == 0
}

/// How other systems are asked is not known here, and unasked the first tile may be a fault.
#[cfg(not(target_os = "linux"))]
fn request_tile_data() -> bool {
    false
}

/// A loop over so many tiles of sums; tiles 6 and 7 are the factors.
macro_rules! tiles {
    ($step:literal $($n_chains:literal $list:literal)+) => {
        &[$(Loop {
            n_chains: $n_chains,
            run: {
                /// # Safety
                /// The instruction is there and the system saves tiles; `frame` is laid out for
                /// these tiles; `n_passes` is not 0.
                unsafe fn run(n_passes: u64, frame: *mut Frame) {
                    // SAFETY: reads and writes the frame only; tiles are left as they are found
                    // outside: released. The arithmetic does not consult MXCSR.
                    unsafe {
                        asm!(
                            "ldtilecfg [{frame} + {config}]",
                            "tileloadd tmm6, [{frame} + {row} + {a}]",
                            "tileloadd tmm7, [{frame} + {row} + {b}]",
                            concat!(".irp i, ", $list),
                            "tileloadd tmm\\i, [{frame} + {row} + {tile}*\\i]",
                            ".endr",
                            ".p2align 5",
                            "2:",
                            ".rept {steps}",
                            concat!(".irp i, ", $list),
                            concat!($step, " tmm\\i, tmm6, tmm7"),
                            ".endr",
                            ".endr",
                            "dec rcx",
                            "jnz 2b",
                            concat!(".irp i, ", $list),
                            "tilestored [{frame} + {row} + {tile}*\\i], tmm\\i",
                            ".endr",
                            "tilerelease",
                            frame = in(reg) frame,
                            row = in(reg) ROW_BYTES,
                            inout("rcx") n_passes => _,
                            a = const offset_of!(Frame, a),
                            b = const offset_of!(Frame, b),
                            config = const offset_of!(Frame, tile_config),
                            tile = const TILE_BYTES,
                            steps = const STEPS_PER_PASS,
                            clobber_abi("sysv64"),
                            options(nostack),
                        );
                    }
                }
                run
            },
        }),+]
    };
    ($step:literal) => {
        tiles!($step 1 "0" 2 "0,1" 4 "0,1,2,3" 6 "0,1,2,3,4,5")
    };
}

/// One kernel for each format.
pub(super) const KERNELS: &[PeakKernel] = &[
    PeakKernel {
        format: ElementFormat::Bf16,
        isa: "amx-bf16",
        instruction: "tdpbf16ps tmm",
        needs: &["amx-bf16"],
        arithmetic: Arithmetic::Tile(Number::Bf16),
        register_bytes: TILE_BYTES,
        loops: tiles!("tdpbf16ps"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp16,
        isa: "amx-fp16",
        instruction: "tdpfp16ps tmm",
        needs: &["amx-fp16"],
        arithmetic: Arithmetic::Tile(Number::Fp16),
        register_bytes: TILE_BYTES,
        loops: tiles!("tdpfp16ps"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "amx-int8",
        instruction: "tdpbssd tmm",
        needs: &["amx-int8"],
        arithmetic: Arithmetic::TileInt8,
        register_bytes: TILE_BYTES,
        loops: tiles!("tdpbssd"),
        add_mix: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_there_only_with_their_shapes() {
        let check = |edx: u32, eax_of_1: u32, expected: &[&str]| {
            assert_eq!(claimed_features([0, edx], [eax_of_1, 0]), expected);
        };
        check(0, 0, &[]);
        check(1 << 22 | 1 << 25, 1 << 21, &[]); // no tiles
        check(1 << 24, 0, &[]);
        check(1 << 22 | 1 << 24 | 1 << 25, 0, &["amx-bf16", "amx-int8"]); // Sapphire Rapids
        check(7 << 22, 1 << 21, &["amx-bf16", "amx-fp16"]);
    }
}
