//! Two clocks: the processor's, from a chain of dependent additions, and the date in UTC.
//!
//! Not here: the clock that the operating system claims (`host.rs`), which is 41 % off in some
//! virtual machines.

use std::time::SystemTime;

/// Additions in one pass of the chain.
pub(crate) const ADDS_PER_PASS: u64 = 128;

/// Runs `n_passes` x [`ADDS_PER_PASS`] dependent additions: one a cycle, whatever the width of the
/// core. Returns their sum, `n_passes` x [`ADDS_PER_PASS`], wrapping.
///
/// Register operands, because recent Intel cores fold a chain of immediates at rename and pass
/// more than one a cycle.
#[cfg(target_arch = "x86_64")]
pub(crate) fn add_chain(n_passes: u64) -> u64 {
    let mut sum = 0u64;
    if n_passes == 0 {
        return sum;
    }
    // SAFETY: arithmetic on the named registers only; no memory, no stack. `n_passes` is not 0, so
    // the countdown ends.
    unsafe {
        std::arch::asm!(
            ".p2align 5",
            "2:",
            ".rept 128",
            "add {sum}, {one}",
            ".endr",
            "dec {n_passes}",
            "jnz 2b",
            sum = inout(reg) sum,
            one = in(reg) 1u64,
            n_passes = inout(reg) n_passes => _,
            options(nomem, nostack),
        );
    }
    sum
}

/// As on x86-64.
#[cfg(target_arch = "aarch64")]
pub(crate) fn add_chain(n_passes: u64) -> u64 {
    let mut sum = 0u64;
    if n_passes == 0 {
        return sum;
    }
    // SAFETY: arithmetic on the named registers only; no memory, no stack. `n_passes` is not 0, so
    // the countdown ends.
    unsafe {
        std::arch::asm!(
            ".p2align 5",
            "2:",
            ".rept 128",
            "add {sum}, {sum}, {one}",
            ".endr",
            "subs {n_passes}, {n_passes}, #1",
            "b.ne 2b",
            sum = inout(reg) sum,
            one = in(reg) 1u64,
            n_passes = inout(reg) n_passes => _,
            options(nomem, nostack),
        );
    }
    sum
}

/// Whether [`add_chain`] runs one addition a cycle here.
pub(crate) const HAS_ADD_CHAIN: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Elsewhere the chain is counted, not timed: the compiler folds it ([`HAS_ADD_CHAIN`] is false).
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn add_chain(n_passes: u64) -> u64 {
    n_passes.wrapping_mul(ADDS_PER_PASS)
}

/// `now` in UTC to the second, `2026-11-23T13:38:00Z`; a time before 1970 counts as 1970.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// let leap_day = UNIX_EPOCH + Duration::from_secs(951_782_400);
/// assert_eq!(flopwise_measure::timestamp(leap_day), "2000-02-29T00:00:00Z");
/// ```
#[must_use]
pub fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms"): years begin in March, so that the leap day is a year's last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // 0000-03-01 to 1970-01-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_chain_adds_what_it_says() {
        assert_eq!(add_chain(0), 0);
        assert_eq!(add_chain(1), 128);
        assert_eq!(add_chain(1001), 1001 * ADDS_PER_PASS);
    }

    #[test]
    fn dates_are_utc() {
        let check = |seconds: u64, expected: &str| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(now), expected);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(68_169_599, "1972-02-28T23:59:59Z");
        check(68_169_600, "1972-02-29T00:00:00Z");
        check(1_795_441_080, "2026-11-23T13:38:00Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }
}
