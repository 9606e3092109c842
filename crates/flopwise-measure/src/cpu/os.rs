//! What is asked of the operating system: processors, pinning, preemptions, huge pages.
//!
//! Not here: what the machine is called (`host.rs`). Off Linux each question has the honest
//! answer "unknown", and [`caveats`] says what that costs.

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
    if libc::CPU_SETSIZE as usize <= cpu {
        return false;
    }
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below the set's capacity.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is valid for its size; pid 0 is the calling thread, no other is affected.
    unsafe {
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
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

/// Unknown here.
#[cfg(not(target_os = "linux"))]
pub(super) fn n_preemptions(_whose: Whose) -> Option<u64> {
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
    fn preemptions_are_counted() {
        assert!(n_preemptions(Whose::Thread) <= n_preemptions(Whose::Process));
        assert!(n_preemptions(Whose::Thread).is_some());
    }
}
