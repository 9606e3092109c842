//! Whether a file is a shared library that this process could hold, by its first bytes.
//!
//! Not here: loading it. The system's loader trusts a file that has the right first bytes: one cut
//! short kills the process that touches the missing pages, so its segments are checked too.
//! ELF: System V ABI, chapter 4; Mach-O: `<mach-o/loader.h>`; PE: `MZ` only.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Headers lie within so much of a file: 64 bytes and up to 1,000 program headers of 56.
const MAX_HEADER_BYTES: u64 = 1 << 16;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// `ET_DYN`: what can be loaded into a process.
const ELF_SHARED: u16 = 3;
const ELF_LOADED_SEGMENT: u32 = 1;
const MACH_64: u32 = 0xFEED_FACF;
/// Several Mach-O files in one, big-endian.
const MACH_FAT: u32 = 0xCAFE_BABE;

/// The kinds of file that loaders load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Elf,
    MachO,
    Pe,
}

/// An architecture's numbers in the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    elf: u16,
    mach_o: u32,
}

/// This process's architecture; `None` where its numbers are not known here.
pub(super) fn this_machine() -> Option<Machine> {
    let (elf, mach_o) = match std::env::consts::ARCH {
        "x86_64" => (62, 0x0100_0007),
        "aarch64" => (183, 0x0100_000C),
        "riscv64" => (243, u32::MAX),
        "powerpc64" => (21, u32::MAX),
        "s390x" => (22, u32::MAX),
        _ => return None,
    };
    Some(Machine { elf, mach_o })
}

/// Reads a file's head and judges it.
///
/// # Errors
/// Why it is no library for `machine`, as the end of a sentence that starts with the file's name.
pub(super) fn check_file(path: &Path, machine: Option<Machine>) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let described = file.metadata().map_err(unreadable)?;
    if !described.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut head = Vec::new();
    file.take(MAX_HEADER_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    check(&head, described.len(), machine)
}

/// Judges the first bytes of a file of `file_bytes`.
fn check(head: &[u8], file_bytes: u64, machine: Option<Machine>) -> Result<(), String> {
    let wanted = match std::env::consts::OS {
        "macos" | "ios" => Kind::MachO,
        "windows" => Kind::Pe,
        _ => Kind::Elf,
    };
    check_kind(wanted, head, file_bytes, machine)
}

fn check_kind(
    wanted: Kind,
    head: &[u8],
    file_bytes: u64,
    machine: Option<Machine>,
) -> Result<(), String> {
    if head.is_empty() {
        return Err("is empty".to_owned());
    }
    if head.iter().all(|&byte| byte == 0) {
        return Err("holds zeros, not a library".to_owned());
    }
    let Some(kind) = kind(head) else {
        let is_text =
            head.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        let what = if is_text { "text" } else { "something else" };
        return Err(format!("holds {what}, not a library"));
    };
    if kind != wanted {
        return Err("is a library of another operating system".to_owned());
    }
    match kind {
        Kind::Elf => check_elf(head, file_bytes, machine),
        Kind::MachO => check_mach_o(head, machine),
        Kind::Pe => Ok(()), // the loader of Windows judges the rest without touching it
    }
}

fn kind(head: &[u8]) -> Option<Kind> {
    let magic = [u32_at(head, 0, Order::Little)?, u32_at(head, 0, Order::Big)?];
    match (head.starts_with(&ELF_MAGIC), head.starts_with(b"MZ")) {
        (true, _) => Some(Kind::Elf),
        (_, true) => Some(Kind::Pe),
        _ => (magic[0] == MACH_64 || magic[1] == MACH_FAT).then_some(Kind::MachO),
    }
}

fn check_elf(head: &[u8], file_bytes: u64, machine: Option<Machine>) -> Result<(), String> {
    let cut = || "is cut short".to_owned();
    let (&class, &data) = (head.get(4).ok_or_else(cut)?, head.get(5).ok_or_else(cut)?);
    let order = if cfg!(target_endian = "big") { Order::Big } else { Order::Little };
    let own_class = if cfg!(target_pointer_width = "64") { 2 } else { 1 };
    let own_data = if order == Order::Big { 2 } else { 1 };
    let e_machine = u16_at(head, 18, order).ok_or_else(cut)?;
    let is_other = machine.is_some_and(|machine| machine.elf != e_machine);
    if class != own_class || data != own_data || is_other {
        return Err("is a library of another architecture".to_owned());
    }
    if u16_at(head, 16, order) != Some(ELF_SHARED) {
        return Err("is not a shared library".to_owned());
    }
    if class != 2 {
        return Ok(()); // 32-bit headers lie elsewhere, and no library for them is looked for
    }
    let first = u64_at(head, 32, order).ok_or_else(cut)?;
    let size = u64::from(u16_at(head, 54, order).ok_or_else(cut)?);
    let n_segments = u64::from(u16_at(head, 56, order).ok_or_else(cut)?);
    for segment_idx in 0..n_segments {
        let at = first.checked_add(segment_idx * size).ok_or_else(cut)?;
        let at = usize::try_from(at).map_err(|_| cut())?;
        if u32_at(head, at, order).ok_or_else(cut)? != ELF_LOADED_SEGMENT {
            continue;
        }
        let word = |offset: usize| u64_at(head, at.checked_add(offset)?, order);
        let (offset, n_bytes) = (word(8).ok_or_else(cut)?, word(32).ok_or_else(cut)?);
        if offset.checked_add(n_bytes).is_none_or(|end| file_bytes < end) {
            return Err(cut());
        }
    }
    Ok(())
}

fn check_mach_o(head: &[u8], machine: Option<Machine>) -> Result<(), String> {
    let Some(machine) = machine else { return Ok(()) };
    let types: Vec<Option<u32>> = match u32_at(head, 0, Order::Big) {
        Some(MACH_FAT) => {
            let n_files = u32_at(head, 4, Order::Big).unwrap_or(0).min(16) as usize;
            (0..n_files).map(|file_idx| u32_at(head, 8 + 20 * file_idx, Order::Big)).collect()
        }
        _ => vec![u32_at(head, 4, Order::Little)],
    };
    match types.contains(&Some(machine.mach_o)) {
        true => Ok(()),
        false => Err("is a library of another architecture".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

fn bytes_at<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(head: &[u8], at: usize, order: Order) -> Option<u16> {
    let bytes = bytes_at(head, at)?;
    Some(if order == Order::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

fn u32_at(head: &[u8], at: usize, order: Order) -> Option<u32> {
    let bytes = bytes_at(head, at)?;
    Some(if order == Order::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

fn u64_at(head: &[u8], at: usize, order: Order) -> Option<u64> {
    let bytes = bytes_at(head, at)?;
    Some(if order == Order::Big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: Machine = Machine { elf: 62, mach_o: 0x0100_0007 };
    const AARCH64: Machine = Machine { elf: 183, mach_o: 0x0100_000C };

    /// An ELF header with one loaded segment of `n_bytes` from the start of the file.
    fn elf(machine: u16, kind: u16, n_bytes: u64) -> Vec<u8> {
        let mut head = vec![0u8; 64 + 56];
        head[..4].copy_from_slice(&ELF_MAGIC);
        (head[4], head[5]) = (2, 1);
        head[16..18].copy_from_slice(&kind.to_le_bytes());
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head[32..40].copy_from_slice(&64u64.to_le_bytes());
        head[54..56].copy_from_slice(&56u16.to_le_bytes());
        head[56..58].copy_from_slice(&1u16.to_le_bytes());
        head[64..68].copy_from_slice(&ELF_LOADED_SEGMENT.to_le_bytes());
        head[64 + 32..64 + 40].copy_from_slice(&n_bytes.to_le_bytes());
        head
    }

    fn mach_o(magic: [u8; 4], cpu_type_at: usize, cpu_type: [u8; 4]) -> Vec<u8> {
        let mut head = vec![0u8; 64];
        head[..4].copy_from_slice(&magic);
        head[7] = 1; // one file in a fat one
        head[cpu_type_at..cpu_type_at + 4].copy_from_slice(&cpu_type);
        head
    }

    #[test]
    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    fn only_whole_libraries_of_this_machine_pass() {
        let check = |wanted: Kind, head: &[u8], expected: &str| {
            let result = check_kind(wanted, head, 4096, Some(X86_64));
            assert_eq!(result.err().unwrap_or_default(), expected, "{wanted:?} {head:?}");
        };
        check(Kind::Elf, &elf(62, ELF_SHARED, 4096), "");
        check(Kind::Elf, &elf(62, ELF_SHARED, 4097), "is cut short");
        check(Kind::Elf, &elf(62, ELF_SHARED, u64::MAX), "is cut short");
        check(Kind::Elf, &elf(62, ELF_SHARED, 4096)[..100], "is cut short");
        check(Kind::Elf, &elf(62, ELF_SHARED, 4096)[..5], "is cut short");
        check(Kind::Elf, &elf(62, 2, 64), "is not a shared library");
        check(Kind::Elf, &elf(183, ELF_SHARED, 64), "is a library of another architecture");
        check(Kind::Elf, b"", "is empty");
        check(Kind::Elf, &[0; 4096], "holds zeros, not a library");
        check(Kind::Elf, b"INPUT(-lopenblas)\n", "holds text, not a library");
        check(Kind::Elf, b"\x01\x02\x03\x04", "holds something else, not a library");
        check(Kind::Elf, b"\x01", "holds something else, not a library");
        check(Kind::Pe, b"MZ\x90\x00", "");
        check(Kind::Elf, b"MZ\x90\x00", "is a library of another operating system");
        let thin = [0xCF, 0xFA, 0xED, 0xFE];
        check(Kind::MachO, &mach_o(thin, 4, [7, 0, 0, 1]), "");
        check(Kind::MachO, &mach_o(thin, 4, [12, 0, 0, 1]), "is a library of another architecture");
        let fat = [0xCA, 0xFE, 0xBA, 0xBE];
        check(Kind::MachO, &mach_o(fat, 8, [1, 0, 0, 7]), "");
        check(Kind::MachO, &mach_o(fat, 8, [1, 0, 0, 12]), "is a library of another architecture");
    }

    #[test]
    #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
    fn every_truncation_of_a_header_is_refused() {
        let whole = elf(183, ELF_SHARED, 64);
        for n_bytes in 0..whole.len() {
            let head = &whole[..n_bytes];
            let result = check_kind(Kind::Elf, head, n_bytes as u64, Some(AARCH64));
            // The last bytes of a program header are its alignment, which nobody reads.
            assert_eq!(result.is_ok(), 64 + 40 <= n_bytes, "{n_bytes} bytes");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_program_s_own_file_is_of_this_machine() {
        let own = std::env::current_exe().unwrap();
        // Position-independent or not: it is no other architecture and whole.
        let verdict = check_file(&own, this_machine());
        assert!(verdict.as_ref().err().is_none_or(|reason| reason == "is not a shared library"));
        let folder = own.parent().unwrap();
        assert_eq!(check_file(folder, this_machine()).unwrap_err(), "is not a file");
    }
}
