//! How large arrays must be to lie where they are asked to.
//!
//! Not here: the caches themselves (`caches.rs`). Everything is for one thread while all of an
//! experiment's threads run.

use super::caches::Caches;
use super::words::PAGE_BYTES;
use crate::bench::{Place, Unmeasurable};
use flopwise::machine::MemoryLevel;

/// Each array in main memory is so many times the last-level caches that its threads reach, shared
/// among them, as STREAM's rules ask (McCalpin, "STREAM: Sustainable Memory Bandwidth", run rules).
const CACHES: u64 = 4;
/// Assumed where the system does not tell.
const ASSUMED_CACHE_BYTES: u64 = 32 << 20;
/// Also where the system does not tell; arrays take at most an eighth of it.
const ASSUMED_MEMORY_BYTES: u64 = 4 << 30;
/// A last-level cache is asked for no more than so many times the level before: a walk over that
/// finds nothing there any more, and others, unseen, may use the rest. Of 32 MiB on a busy host
/// 2 MiB were always at hand, 4 MiB half of the time.
const INNER_CACHES: u64 = 4;

/// Where arrays are to be put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room<'a> {
    pub(super) caches: &'a Caches,
    /// The processors that the process may use, threads on the first of them.
    pub(super) cpus: &'a [usize],
    pub(super) n_threads: usize,
    /// What may be taken; `None` if the system does not tell.
    pub(super) memory_bytes: Option<u64>,
}

/// How large each array is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArraySize {
    pub(super) n_bytes: u64,
    /// What was assumed, or why it is smaller than it should be.
    pub(super) doubt: Option<String>,
}

/// The size of each of `n_arrays` of one thread.
pub(super) fn array_bytes(
    room: Room<'_>,
    place: Place,
    n_arrays: u64,
) -> Result<u64, Unmeasurable> {
    match place {
        Place::Level(MemoryLevel::Dram) => Ok(in_main_memory(room, n_arrays).n_bytes),
        Place::Level(level) => Ok(in_cache(room, level)? / n_arrays),
        Place::Bytes(n_bytes) => {
            let n_threads = room.n_threads.max(1) as u64;
            let limit = room.memory_bytes.unwrap_or(ASSUMED_MEMORY_BYTES) / 2 / n_threads;
            match n_bytes <= limit {
                true => Ok(n_bytes / n_arrays),
                false => Err(Unmeasurable(format!(
                    "{n_bytes} bytes a thread asked for, at most {limit} can be had"
                ))),
            }
        }
    }
}

/// Whether arrays are to be found in a cache, and must be brought there before a slice: between
/// two slices neighbours, seen and unseen, push lines out of a cache that they share.
pub(super) fn is_cached(room: Room<'_>, place: Place) -> bool {
    match place {
        Place::Level(MemoryLevel::Dram) => false,
        Place::Level(MemoryLevel::L1 | MemoryLevel::L2 | MemoryLevel::L3) => true,
        Place::Bytes(n_bytes) => {
            let last = room.caches.levels().last().copied();
            let share =
                last.and_then(|last| room.caches.share_bytes(last, room.cpus, room.n_threads));
            share.is_some_and(|share| n_bytes <= share)
        }
    }
}

/// The size of each of a thread's arrays in main memory.
pub(super) fn in_main_memory(room: Room<'_>, n_arrays: u64) -> ArraySize {
    let n_threads = room.n_threads.max(1) as u64;
    let cache_bytes = room.caches.last_level_bytes(room.cpus, room.n_threads);
    let wanted = CACHES * cache_bytes.unwrap_or(ASSUMED_CACHE_BYTES) / n_threads;
    let memory_bytes = room.memory_bytes.unwrap_or(ASSUMED_MEMORY_BYTES);
    let limit = memory_bytes / 8 / n_threads / n_arrays.max(1);
    let doubt = if limit < wanted {
        Some(
            "little memory is free: arrays are smaller than four times the caches, and bandwidth \
              may be partly the caches'"
                .to_owned(),
        )
    } else if cache_bytes.is_none() {
        Some("the system does not tell its cache sizes: 32 MiB assumed".to_owned())
    } else {
        None
    };
    let page = PAGE_BYTES as u64;
    ArraySize { n_bytes: wanted.min(limit).next_multiple_of(page).max(page), doubt }
}

/// What all arrays of a thread have together in a cache: half of its share, and clearly more than
/// the level before holds.
fn in_cache(room: Room<'_>, level: MemoryLevel) -> Result<u64, Unmeasurable> {
    let share_of = |level| room.caches.share_bytes(level, room.cpus, room.n_threads);
    let Some(share) = share_of(level) else {
        return Err(Unmeasurable(format!(
            "this machine has no {level:?} cache, or does not tell how large it is"
        )));
    };
    let inner = match level {
        MemoryLevel::L1 => None,
        MemoryLevel::L2 => share_of(MemoryLevel::L1),
        MemoryLevel::L3 | MemoryLevel::Dram => share_of(MemoryLevel::L2),
    };
    let Some(inner) = inner else { return Ok(share / 2) };
    let half = match level {
        MemoryLevel::L1 | MemoryLevel::L2 => share / 2,
        MemoryLevel::L3 | MemoryLevel::Dram => (share / 2).min(INNER_CACHES * inner),
    };
    if 2 * inner <= half {
        Ok(half)
    } else if inner / 2 <= share {
        // A last level hardly larger than the one before keeps only what that has pushed out, or
        // the one before would be useless: together they hold both.
        Ok(inner + share / 2)
    } else {
        Err(Unmeasurable(format!(
            "the share of the {level:?} cache that {} threads have each, {share} bytes, is less \
             than half of the level before",
            room.n_threads
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::caches::tests::alike;
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    #[test]
    fn arrays_exceed_the_caches_but_not_the_memory() {
        let check = |n_threads, cache: Option<u64>, memory_bytes, expected, doubt: &str| {
            let caches = cache.map_or_else(Caches::default, |n_bytes| alike(&[(3, n_bytes, 96)]));
            let room = Room { caches: &caches, cpus: &[], n_threads, memory_bytes };
            let size = in_main_memory(room, 2);
            assert_eq!(size.n_bytes, expected * MIB);
            let said = size.doubt.unwrap_or_default();
            assert!(said.contains(doubt) && said.is_empty() == doubt.is_empty(), "{said}");
        };
        check(1, Some(32 * MIB), Some(16 << 30), 128, "");
        check(2, Some(32 * MIB), Some(16 << 30), 64, "");
        check(96, Some(384 * MIB), Some(256 << 30), 16, "");
        check(1, None, Some(16 << 30), 128, "32 MiB assumed");
        check(1, Some(32 * MIB), Some(1 << 30), 64, "little memory");
        check(2, Some(33 * MIB), None, 66, "");
    }

    #[test]
    fn arrays_lie_in_the_level_asked_for() {
        let check = |sizes: &[(u32, u64, u32)], n_threads, expected: [Option<u64>; 3]| {
            let caches = alike(sizes);
            let room = Room { caches: &caches, cpus: &[], n_threads, memory_bytes: Some(8 << 30) };
            let levels = [MemoryLevel::L1, MemoryLevel::L2, MemoryLevel::L3];
            let found = levels.map(|level| in_cache(room, level).ok());
            assert_eq!(found, expected.map(|kibibytes| kibibytes.map(|size| size * KIB)));
        };
        // Zen 4: eight cores to 32 MiB.
        let zen = [(1, 32 * KIB, 1), (2, MIB, 1), (3, 32 * MIB, 8)];
        check(&zen, 1, [Some(16), Some(512), Some(4096)]);
        check(&zen, 8, [Some(16), Some(512), Some(2048)]);
        // Two threads to a core: the last level is still twice the share of the one before.
        let threaded = [(1, 32 * KIB, 2), (2, MIB, 2), (3, 32 * MIB, 16)];
        check(&threaded, 16, [Some(8), Some(256), Some(1024)]);
        // Sapphire Rapids: less of the last level a core than of the second.
        let wide = [(1, 48 * KIB, 1), (2, 2 * MIB, 1), (3, 105 * MIB, 56)];
        check(&wide, 56, [Some(24), Some(1024), Some(2048 + 960)]);
        // Of the last level almost nothing a core, or nothing at all.
        check(&[(2, 2 * MIB, 1), (3, 32 * MIB, 64)], 64, [None, Some(1024), None]);
        check(&[(1, 128 * KIB, 1), (2, 12 * MIB, 4)], 4, [Some(64), Some(1536), None]);
    }

    #[test]
    fn sizes_asked_for_are_for_all_arrays_and_within_memory() {
        let caches = Caches::default();
        let room = Room { caches: &caches, cpus: &[], n_threads: 2, memory_bytes: Some(MIB) };
        let each = |n_bytes, n_arrays| array_bytes(room, Place::Bytes(n_bytes), n_arrays).ok();
        assert_eq!(each(48 * KIB, 3), Some(16 * KIB));
        assert_eq!(each(MIB / 4, 1), Some(MIB / 4));
        assert_eq!(each(MIB / 4 + 1, 1), None);
        assert_eq!(each(u64::MAX, 1), None);
    }

    #[test]
    fn what_fits_a_share_of_the_last_level_is_cached() {
        let caches = alike(&[(1, 32 * KIB, 1), (2, MIB, 1), (3, 32 * MIB, 8)]);
        let room = Room { caches: &caches, cpus: &[], n_threads: 2, memory_bytes: None };
        assert!(is_cached(room, Place::Bytes(16 * MIB)));
        assert!(!is_cached(room, Place::Bytes(16 * MIB + 1)));
        assert!(is_cached(room, Place::Level(MemoryLevel::L3)));
        assert!(!is_cached(room, Place::Level(MemoryLevel::Dram)));
        let unknown = Caches::default();
        assert!(!is_cached(Room { caches: &unknown, ..room }, Place::Bytes(1)));
    }
}
