//! Which caches there are and how much of each a thread has to itself.
//!
//! Not here: how large they prove to be (`curve.rs`). Sizes come from the operating system, or from
//! the processor where that does not tell; what neither says is not there.

use super::nodes::cpu_list;
use flopwise::machine::{Cache, MemoryLevel};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The data and unified caches behind some processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caches(Vec<Found>);

/// One cache, or one of several alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    level: MemoryLevelNumber,
    n_bytes: u64,
    sharers: Sharers,
}

/// 1, 2 or 3.
type MemoryLevelNumber = u32;

/// Which processors use one cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sharers {
    /// These.
    Cpus(BTreeSet<usize>),
    /// So many, and others have caches alike.
    Count(u32),
}

impl Caches {
    /// The caches behind `cpus`, or behind any processor where those are not known.
    pub(super) fn detect(cpus: &[usize]) -> Caches {
        let listed = caches_in(Path::new("/sys/devices/system/cpu"), cpus);
        let ways: [&dyn Fn() -> Caches; 2] = [&from_sysctl, &from_cpuid];
        ways.iter().fold(listed, |found, way| if found.0.is_empty() { way() } else { found })
    }

    /// Their levels, the nearest first.
    pub(super) fn levels(&self) -> Vec<MemoryLevel> {
        let numbers: BTreeSet<u32> = self.0.iter().map(|cache| cache.level).collect();
        numbers.into_iter().filter_map(level).collect()
    }

    /// As a profile lists them: one entry for all that are alike.
    pub(super) fn listed(&self) -> Vec<Cache> {
        let mut listed: Vec<Cache> = Vec::new();
        for found in &self.0 {
            let Some(level) = level(found.level) else { continue };
            let shared_by = match &found.sharers {
                Sharers::Cpus(cpus) => cpus.len() as u32,
                Sharers::Count(count) => *count,
            };
            let cache = Cache {
                level,
                os_bytes: Some(found.n_bytes),
                measured_bytes: None,
                shared_by: Some(shared_by),
            };
            if !listed.contains(&cache) {
                listed.push(cache);
            }
        }
        listed
    }

    /// How much of a level each of `n_threads` has to itself while all of them run, the least of
    /// all; they run on the first of `cpus`.
    pub(super) fn share_bytes(
        &self,
        wanted: MemoryLevel,
        cpus: &[usize],
        n_threads: usize,
    ) -> Option<u64> {
        let running = &cpus[..n_threads.min(cpus.len())];
        let at_level = self.0.iter().filter(|cache| level(cache.level) == Some(wanted));
        let shares = at_level.filter_map(|cache| {
            let n_running = match &cache.sharers {
                Sharers::Cpus(sharers) => {
                    running.iter().filter(|cpu| sharers.contains(cpu)).count()
                }
                Sharers::Count(count) => n_threads.min(*count as usize),
            };
            (0 < n_running).then(|| cache.n_bytes / n_running as u64)
        });
        shares.min()
    }

    /// All last-level caches behind so many threads, added up.
    pub(super) fn last_level_bytes(&self, cpus: &[usize], n_threads: usize) -> Option<u64> {
        let running = &cpus[..n_threads.min(cpus.len())];
        let last = self.0.iter().map(|cache| cache.level).max()?;
        let at_last = self.0.iter().filter(|cache| cache.level == last);
        let reached = at_last.map(|cache| match &cache.sharers {
            Sharers::Cpus(sharers) if running.iter().any(|cpu| sharers.contains(cpu)) => {
                cache.n_bytes
            }
            Sharers::Cpus(_) => 0,
            Sharers::Count(count) => {
                cache.n_bytes * n_threads.div_ceil(1.max(*count as usize)) as u64
            }
        });
        Some(reached.sum()).filter(|&n_bytes| 0 < n_bytes)
    }
}

/// A fourth level, a memory beside the processor, has no name here.
fn level(number: MemoryLevelNumber) -> Option<MemoryLevel> {
    match number {
        1 => Some(MemoryLevel::L1),
        2 => Some(MemoryLevel::L2),
        3 => Some(MemoryLevel::L3),
        _ => None,
    }
}

/// In a folder as of `/sys/devices/system/cpu` (Linux,
/// Documentation/ABI/testing/sysfs-devices-system-cpu).
fn caches_in(folder: &Path, cpus: &[usize]) -> Caches {
    let mut found = BTreeSet::new();
    for cpu in cpus {
        let indices = fs::read_dir(folder.join(format!("cpu{cpu}/cache"))).into_iter().flatten();
        found.extend(indices.filter_map(Result::ok).filter_map(|index| {
            let read = |name: &str| fs::read_to_string(index.path().join(name)).ok();
            let is_for_data = matches!(read("type")?.trim(), "Data" | "Unified");
            let sharers = read("shared_cpu_list").and_then(|list| cpu_list(list.trim()));
            let number: u32 = read("level")?.trim().parse().ok()?;
            (is_for_data && level(number).is_some()).then_some(())?;
            Some(Found {
                level: number,
                n_bytes: cache_size(read("size")?.trim()).filter(|&n_bytes| 0 < n_bytes)?,
                sharers: Sharers::Cpus(sharers.unwrap_or_else(|| BTreeSet::from([*cpu]))),
            })
        }));
    }
    Caches(found.into_iter().collect())
}

/// `32768K` as sysfs writes it.
fn cache_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// macOS: those of the fast cores where there are two kinds.
#[cfg(target_os = "macos")]
fn from_sysctl() -> Caches {
    let read = |name: &str| -> Option<u64> {
        let name = std::ffi::CString::new(name).ok()?;
        let mut value = 0u64;
        let mut n_bytes = std::mem::size_of::<u64>();
        // SAFETY: `name` ends with a NUL; `value` is valid for writes of `n_bytes`; nothing is set.
        let status = unsafe {
            libc::sysctlbyname(
                name.as_ptr(),
                (&raw mut value).cast(),
                &raw mut n_bytes,
                std::ptr::null_mut(),
                0,
            )
        };
        (status == 0 && 0 < value).then_some(value) // a 32-bit value fills the lower half
    };
    let of_kind =
        |name: &str| read(&format!("hw.perflevel0.{name}")).or_else(|| read(&format!("hw.{name}")));
    let sizes = [(1, "l1dcachesize"), (2, "l2cachesize"), (3, "l3cachesize")];
    let found = sizes.into_iter().filter_map(|(number, name)| {
        let count = if number == 1 { None } else { of_kind(&format!("cpusperl{number}")) };
        let sharers = Sharers::Count(count.unwrap_or(1).try_into().ok()?);
        Some(Found { level: number, n_bytes: of_kind(name)?, sharers })
    });
    Caches(found.collect())
}

/// Elsewhere there is no such call.
#[cfg(not(target_os = "macos"))]
fn from_sysctl() -> Caches {
    Caches::default()
}

/// The processor's own account: leaf 4, or 8000_001D, which AMD gave the same form (Intel SDM 2A,
/// CPUID; AMD APM 3, E.4.15).
#[cfg(target_arch = "x86_64")]
fn from_cpuid() -> Caches {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// More than any processor has.
    const MAX_CACHES: u32 = 16;
    let in_leaf = |leaf: u32| {
        let answers = (0..MAX_CACHES).map(|index| __cpuid_count(leaf, index));
        let listed = answers.take_while(|answer| answer.eax & 0x1f != 0);
        let found = listed.filter_map(|answer| cache_of_leaf([answer.eax, answer.ebx, answer.ecx]));
        Caches(found.collect())
    };
    let has_leaf_4 = 4 <= __cpuid(0).eax;
    let intel = if has_leaf_4 { in_leaf(4) } else { Caches::default() };
    // Topology extensions: without them the AMD leaf means nothing.
    let has_amd_leaf =
        0x8000_001d <= __cpuid(0x8000_0000).eax && __cpuid(0x8000_0001).ecx & (1 << 22) != 0;
    if intel.0.is_empty() && has_amd_leaf { in_leaf(0x8000_001d) } else { intel }
}

/// Elsewhere the processor does not tell a program.
#[cfg(not(target_arch = "x86_64"))]
fn from_cpuid() -> Caches {
    Caches::default()
}

/// EAX, EBX and ECX of one answer of the leaf; `None` for instruction caches.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn cache_of_leaf([eax, ebx, ecx]: [u32; 3]) -> Option<Found> {
    let bits = |register: u32, lowest: u32, n_bits: u32| (register >> lowest) & ((1 << n_bits) - 1);
    let (kind, number) = (bits(eax, 0, 5), bits(eax, 5, 3));
    let is_for_data = kind == 1 || kind == 3;
    level(number).filter(|_| is_for_data)?;
    let (line, parts, ways) = (bits(ebx, 0, 12) + 1, bits(ebx, 12, 10) + 1, bits(ebx, 22, 10) + 1);
    let n_bytes = u64::from(line) * u64::from(parts) * u64::from(ways) * (u64::from(ecx) + 1);
    let sharers = Sharers::Count(bits(eax, 14, 12) + 1);
    Some(Found { level: number, n_bytes, sharers })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use MemoryLevel::{Dram, L1, L2, L3};

    /// Caches of (level, bytes, sharers), as many alike as there are threads.
    pub(in crate::cpu) fn alike(sizes: &[(u32, u64, u32)]) -> Caches {
        let found = sizes.iter().map(|&(level, n_bytes, count)| Found {
            level,
            n_bytes,
            sharers: Sharers::Count(count),
        });
        Caches(found.collect())
    }

    #[test]
    fn cache_sizes_parse() {
        assert_eq!(cache_size("32768K"), Some(32 << 20));
        assert_eq!(cache_size("16M"), Some(16 << 20));
        assert_eq!(cache_size("512"), Some(512));
        assert_eq!(cache_size("32KiB"), None);
        assert_eq!(cache_size(""), None);
    }

    #[test]
    fn leaves_decode() {
        // Worked by hand: 64-byte lines, 8 ways, 64 sets, one processor, data, level 1.
        let l1 = [1 | 1 << 5, 63 | 7 << 22, 63];
        let expected = Found { level: 1, n_bytes: 32 << 10, sharers: Sharers::Count(1) };
        assert_eq!(cache_of_leaf(l1), Some(expected));
        // 16 ways, 32768 sets, 16 processors, unified, level 3.
        let l3 = [3 | 3 << 5 | 15 << 14, 63 | 15 << 22, 32767];
        let expected = Found { level: 3, n_bytes: 32 << 20, sharers: Sharers::Count(16) };
        assert_eq!(cache_of_leaf(l3), Some(expected));
        let instructions = [2 | 1 << 5, 63 | 7 << 22, 63];
        assert_eq!(cache_of_leaf(instructions), None);
        let level_4 = [3 | 4 << 5, 63 | 15 << 22, 131_071];
        assert_eq!(cache_of_leaf(level_4), None);
    }

    /// Four processors, two to a core: 32 KiB and 1 MiB a core, 16 MiB each two cores.
    fn four() -> Caches {
        let found = |level, n_bytes, cpus: &[usize]| Found {
            level,
            n_bytes,
            sharers: Sharers::Cpus(cpus.iter().copied().collect()),
        };
        Caches(vec![
            found(1, 32 << 10, &[0, 4]),
            found(1, 32 << 10, &[1, 5]),
            found(1, 48 << 10, &[2, 6]),
            found(2, 1 << 20, &[0, 4]),
            found(2, 1 << 20, &[1, 5]),
            found(3, 16 << 20, &[0, 1, 4, 5]),
            found(3, 16 << 20, &[2, 6]),
        ])
    }

    #[test]
    fn a_thread_has_what_the_others_leave() {
        let check = |level, n_threads, expected: Option<u64>| {
            let share = four().share_bytes(level, &[0, 1, 2, 4], n_threads);
            assert_eq!(share, expected, "{level:?} {n_threads}");
        };
        check(L1, 1, Some(32 << 10));
        check(L1, 3, Some(32 << 10));
        check(L1, 4, Some(16 << 10));
        check(L2, 2, Some(1 << 20));
        check(L3, 1, Some(16 << 20));
        check(L3, 2, Some(8 << 20));
        check(L3, 4, Some((16 << 20) / 3));
        check(Dram, 1, None);
        let last = |n_threads| four().last_level_bytes(&[0, 1, 2, 4], n_threads);
        assert_eq!([last(1), last(2), last(3)], [Some(16 << 20), Some(16 << 20), Some(32 << 20)]);
    }

    #[test]
    fn counts_of_sharers_serve_where_processors_have_no_numbers() {
        let caches = alike(&[(1, 64 << 10, 1), (2, 12 << 20, 4)]);
        assert_eq!(caches.share_bytes(L1, &[], 8), Some(64 << 10));
        assert_eq!(caches.share_bytes(L2, &[], 1), Some(12 << 20));
        assert_eq!(caches.share_bytes(L2, &[], 8), Some(3 << 20));
        assert_eq!(caches.share_bytes(L3, &[], 8), None);
        assert_eq!(caches.last_level_bytes(&[], 4), Some(12 << 20));
        assert_eq!(caches.last_level_bytes(&[], 5), Some(24 << 20));
        assert_eq!(caches.levels(), [L1, L2]);
        assert_eq!(Caches::default().last_level_bytes(&[], 1), None);
    }

    #[test]
    fn caches_alike_are_listed_once() {
        let listed: Vec<_> = four()
            .listed()
            .into_iter()
            .map(|cache| (cache.level, cache.os_bytes.unwrap() >> 10, cache.shared_by.unwrap()))
            .collect();
        let expected = [(L1, 32, 2), (L1, 48, 2), (L2, 1024, 2), (L3, 16_384, 4), (L3, 16_384, 2)];
        assert_eq!(listed, expected);
    }

    #[test]
    fn caches_are_read_from_their_folder() {
        let name = format!("flopwise-caches-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let write = |index: &str, files: [&str; 4]| {
            let index = folder.join("cpu3/cache").join(index);
            fs::create_dir_all(&index).unwrap();
            let names = ["level", "type", "size", "shared_cpu_list"];
            for (name, text) in names.into_iter().zip(files) {
                fs::write(index.join(name), text).unwrap();
            }
        };
        write("index0", ["1\n", "Data\n", "48K\n", "3,35\n"]);
        write("index1", ["1\n", "Instruction\n", "32K\n", "3,35\n"]);
        write("index2", ["2\n", "Unified\n", "lots\n", "3,35\n"]);
        write("index3", ["3\n", "Unified\n", "36864K\n", "0-63\n"]);
        write("index4", ["4\n", "Unified\n", "131072K\n", "0-63\n"]);
        let caches = caches_in(&folder, &[3, 4]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(caches.levels(), [L1, L3]);
        assert_eq!(caches.share_bytes(L1, &[3, 35], 2), Some(24 << 10));
        assert_eq!(caches.share_bytes(L3, &[3, 4], 1), Some(36 << 20));
    }
}
