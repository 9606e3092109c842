//! What is asked of the operating system: processors, pinning, preemptions, huge pages.
//!
//! Not here: what the machine is called (`host.rs`). Off Linux each question has the honest
//! answer "unknown", and [`caveats`] says what that costs.

use super::words::PAGE_BYTES;
use std::ptr::NonNull;

/// What this operating system cannot tell, one sentence each.
pub(super) fn caveats() -> Vec<String> {
    if cfg!(target_os = "linux") {
        return Vec::new();
    }
    vec![
        "this operating system does not count preemptions of a thread: samples disturbed by other \
         work are not dropped"
            .to_owned(),
        "this operating system does not pin threads: they may wander between processors".to_owned(),
    ]
}

/// The processors this thread may run on, ascending; `None` if the system does not say.
#[cfg(target_os = "linux")]
pub(super) fn allowed_cpus() -> Option<Vec<usize>> {
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is valid for `size` bytes; pid 0 is the calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size, &raw mut set) };
    if status != 0 {
        return None; // more processors than a `cpu_set_t` holds
    }
    let capacity = libc::CPU_SETSIZE as usize;
    // SAFETY: `cpu` is below the set's capacity.
    let cpus = (0..capacity).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    Some(cpus.collect())
}

/// Confines the calling thread to one processor; whether that was done.
#[cfg(target_os = "linux")]
pub(super) fn pin_to(cpu: usize) -> bool {
    confine_to(&[cpu])
}

/// Confines the calling thread, and those that it starts from now on, to these processors; whether
/// that was done.
#[cfg(target_os = "linux")]
pub(super) fn confine_to(cpus: &[usize]) -> bool {
    let capacity = libc::CPU_SETSIZE as usize;
    if cpus.is_empty() || cpus.iter().any(|&cpu| capacity <= cpu) {
        return false;
    }
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: `cpu` is below the set's capacity.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is valid for its size; pid 0 is the calling thread, no other is affected.
    unsafe {
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
}

/// Does something on processor `there`, so that what it touches first lies near that one, and
/// comes back to `here`; `None` if the thread could not be moved.
pub(super) fn elsewhere<T>(there: usize, here: usize, make: impl FnOnce() -> T) -> Option<T> {
    if !pin_to(there) {
        return None;
    }
    let made = make();
    pin_to(here).then_some(made)
}

/// Whose preemptions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The calling thread's.
    Thread,
    /// Those of all threads of the process together.
    Process,
}

/// How often it lost its processor against its will so far.
#[cfg(target_os = "linux")]
pub(super) fn n_preemptions(whose: Whose) -> Option<u64> {
    // SAFETY: an all-zero `rusage` is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let who = match whose {
        Whose::Thread => libc::RUSAGE_THREAD,
        Whose::Process => libc::RUSAGE_SELF,
    };
    // SAFETY: `usage` is valid for writes.
    let status = unsafe { libc::getrusage(who, &raw mut usage) };
    (status == 0).then_some(usage.ru_nivcsw.unsigned_abs())
}

/// Fresh pages of zeros from the system, `n_bytes` of them from a multiple of 2 MiB on; `None` if
/// there are no more. `n_bytes` is a multiple of 2 MiB and not 0.
///
/// Asks for pages of 2 MiB: a stream over 4 KiB pages measures page-table walks too. A wish that
/// may be refused; the figures then say what 4 KiB pages reach.
#[cfg(unix)]
pub(super) fn take_pages(n_bytes: usize) -> Option<NonNull<u8>> {
    use libc::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE};
    let n_taken = n_bytes.checked_add(PAGE_BYTES)?; // holds a multiple of 2 MiB wherever it begins
    let (access, kind) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
    let taken = unsafe { libc::mmap(std::ptr::null_mut(), n_taken, access, kind, -1, 0) };
    if taken == libc::MAP_FAILED {
        return None;
    }
    let before = taken.addr().next_multiple_of(PAGE_BYTES) - taken.addr();
    let start = taken.cast::<u8>().wrapping_add(before);
    // SAFETY: the parts of the new mapping before and after the `n_bytes` that stay; both are
    // whole small pages, since mappings begin on one.
    unsafe {
        if 0 < before {
            libc::munmap(taken, before);
        }
        libc::munmap(start.wrapping_add(n_bytes).cast(), PAGE_BYTES - before);
    }
    wish_for_huge_pages(start, n_bytes);
    NonNull::new(start)
}

/// Gives back what [`take_pages`] took.
///
/// # Safety
/// `start` came from [`take_pages`] with the same `n_bytes`, was not given back before, and is not
/// used any more.
#[cfg(unix)]
pub(super) unsafe fn give_pages_back(start: NonNull<u8>, n_bytes: usize) {
    // SAFETY: a whole mapping of ours, by contract.
    unsafe { libc::munmap(start.as_ptr().cast(), n_bytes) };
}

/// As on Unix, from the allocator.
#[cfg(not(unix))]
pub(super) fn take_pages(n_bytes: usize) -> Option<NonNull<u8>> {
    assert!(0 < n_bytes, "no page is no memory");
    let layout = std::alloc::Layout::from_size_align(n_bytes, PAGE_BYTES).ok()?;
    // SAFETY: the layout's size is not 0.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
}

/// As on Unix.
///
/// # Safety
/// As on Unix.
#[cfg(not(unix))]
pub(super) unsafe fn give_pages_back(start: NonNull<u8>, n_bytes: usize) {
    let layout = std::alloc::Layout::from_size_align(n_bytes, PAGE_BYTES);
    let layout = layout.expect("it was a layout when they were taken");
    // SAFETY: allocated with this very layout, and not freed since, by contract.
    unsafe { std::alloc::dealloc(start.as_ptr(), layout) };
}

/// Bytes on pages of 2 MiB in the mapping that `address` lies in; `None` if the system does not
/// say.
pub(super) fn huge_page_bytes(address: usize) -> Option<u64> {
    huge_page_bytes_in(&std::fs::read_to_string("/proc/self/smaps").ok()?, address)
}

/// In a text as of `/proc/self/smaps` (proc(5)): a line `start-end ...` in hexadecimal heads the
/// lines of each mapping.
fn huge_page_bytes_in(smaps: &str, address: usize) -> Option<u64> {
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let hexadecimal = |text: &str| usize::from_str_radix(text, 16).ok();
        Some(hexadecimal(start)?..hexadecimal(end)?)
    };
    let is_ours = |line: &&str| range(line).is_some_and(|range| range.contains(&address));
    let mut lines = smaps.lines().skip_while(|line| !is_ours(line)).skip(1);
    let kibibytes = lines.find_map(|line| line.strip_prefix("AnonHugePages:"))?;
    kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Processor time used so far, seconds.
#[cfg(target_os = "linux")]
pub(super) fn processor_s(whose: Whose) -> Option<f64> {
    let clock = match whose {
        Whose::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
        Whose::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
    };
    // SAFETY: an all-zero `timespec` is a valid value.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is valid for writes.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (status == 0).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

/// Asks for 2 MiB pages: a stream over 4 KiB pages measures page-table walks too. A wish that may
/// be refused; the figures then say what 4 KiB pages reach.
#[cfg(target_os = "linux")]
pub(super) fn wish_for_huge_pages(start: *mut u8, n_bytes: usize) {
    // SAFETY: advice on a mapped range owned by the caller; it changes no contents.
    unsafe { libc::madvise(start.cast(), n_bytes, libc::MADV_HUGEPAGE) };
}

/// Unknown here.
#[cfg(not(target_os = "linux"))]
pub(super) fn allowed_cpus() -> Option<Vec<usize>> {
    None
}

/// Not done here.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin_to(_cpu: usize) -> bool {
    false
}

/// Not done here.
#[cfg(not(target_os = "linux"))]
pub(super) fn confine_to(_cpus: &[usize]) -> bool {
    false
}

/// Unknown here.
#[cfg(not(target_os = "linux"))]
pub(super) fn n_preemptions(_whose: Whose) -> Option<u64> {
    None
}

/// Unknown here.
#[cfg(not(target_os = "linux"))]
pub(super) fn processor_s(_whose: Whose) -> Option<f64> {
    None
}

/// Not done here.
#[cfg(not(target_os = "linux"))]
pub(super) fn wish_for_huge_pages(_start: *mut u8, _n_bytes: usize) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn pinning_confines_the_calling_thread_only() {
        let before = allowed_cpus().unwrap();
        let last = *before.last().unwrap();
        let pinned = std::thread::spawn(move || {
            assert!(pin_to(last));
            allowed_cpus().unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        assert_eq!(allowed_cpus().unwrap(), before);
        assert!(!pin_to(usize::MAX));
    }

    #[test]
    fn a_thread_that_went_elsewhere_is_back() {
        let cpus = allowed_cpus().unwrap();
        let (here, there) = (cpus[0], cpus[cpus.len() - 1]);
        let made = std::thread::spawn(move || {
            let seen = elsewhere(there, here, || allowed_cpus().unwrap());
            (seen, elsewhere(usize::MAX, here, || ()), allowed_cpus().unwrap())
        });
        assert_eq!(made.join().unwrap(), (Some(vec![there]), None, vec![here]));
    }

    #[test]
    fn preemptions_are_counted() {
        assert!(n_preemptions(Whose::Thread) <= n_preemptions(Whose::Process));
        assert!(n_preemptions(Whose::Thread).is_some());
    }

    #[test]
    fn huge_pages_are_found_in_their_mapping() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nSize: 4 kB\nAnonHugePages: 0 kB\n\
                     200000-600000 rw-p 00000000 00:00 0 [anon]\nRss: 4096 kB\n\
                     AnonHugePages:      2048 kB\n700000-800000 r--p 0 0:0 0\nSize: 8 kB\n";
        assert_eq!(huge_page_bytes_in(smaps, 0x1fff), Some(0));
        assert_eq!(huge_page_bytes_in(smaps, 0x200000), Some(2 << 20));
        assert_eq!(huge_page_bytes_in(smaps, 0x5fffff), Some(2 << 20));
        assert_eq!(huge_page_bytes_in(smaps, 0x600000), None);
        assert_eq!(huge_page_bytes_in(smaps, 0x700000), None);
        assert_eq!(huge_page_bytes_in("", 0x1000), None);
    }
}
