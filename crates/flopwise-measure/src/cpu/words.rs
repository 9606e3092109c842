//! An array of words on pages of its own, as large ones as the system gives.
//!
//! Not here: what is in it. Pages come fresh from the system and go back to it: memory that an
//! allocator keeps may have been touched first by another thread, far from the one that uses it.

use super::os;
use crate::bench::Unmeasurable;
use std::ptr::NonNull;

/// One huge page; arrays are whole pages.
pub(super) const PAGE_BYTES: usize = 2 << 20;

/// Words in memory, zero at first, touched first by whoever writes them.
pub(super) struct Words {
    start: NonNull<u64>,
    n_words: usize,
}

impl Words {
    /// So many words. They begin on a page, and are not in memory before they are written.
    pub(super) fn zeroed(n_words: usize) -> Result<Words, Unmeasurable> {
        let taken = Words::size(n_words).and_then(os::take_pages);
        let start = taken.ok_or_else(|| {
            Unmeasurable(format!("no memory for an array of {} bytes", n_words.saturating_mul(8)))
        })?;
        Ok(Words { start: start.cast(), n_words })
    }

    /// Whole huge pages, at least one.
    fn size(n_words: usize) -> Option<usize> {
        n_words.max(1).checked_mul(8)?.checked_next_multiple_of(PAGE_BYTES)
    }

    pub(super) fn as_slice(&self) -> &[u64] {
        // SAFETY: `zeroed` took at least `n_words` zeros, which live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.n_words) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u64] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.n_words) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let n_bytes = Words::size(self.n_words).expect("it was a size when they were taken");
        // SAFETY: taken with this very size, and not given back since.
        unsafe { os::give_pages_back(self.start.cast(), n_bytes) };
    }
}

/// What it costs if the system refuses large pages: tried out, since a setting may say one thing
/// and a container another.
pub(super) fn page_caveat() -> Option<String> {
    let mut trial = Words::zeroed(2 * PAGE_BYTES / 8).ok()?;
    trial.as_mut_slice().fill(1);
    let n_bytes = os::huge_page_bytes(trial.as_slice().as_ptr().addr())?;
    (n_bytes < PAGE_BYTES as u64).then(|| {
        "the system refuses pages of 2 MiB: bandwidth and latency of arrays of many pages hold \
         what finding small pages costs"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_and_begin_on_a_page() {
        for n_words in [0, 1, PAGE_BYTES / 8, PAGE_BYTES / 8 + 1] {
            let mut words = Words::zeroed(n_words).unwrap();
            assert_eq!(words.as_slice().len(), n_words);
            assert!(words.as_slice().as_ptr().addr().is_multiple_of(PAGE_BYTES));
            assert!(words.as_slice().iter().all(|&word| word == 0));
            words.as_mut_slice().fill(7);
        }
    }

    #[test]
    fn too_many_words_are_an_error() {
        for n_words in [usize::MAX, usize::MAX / 8, 1 << 50] {
            assert!(Words::zeroed(n_words).is_err(), "{n_words}");
        }
    }
}
