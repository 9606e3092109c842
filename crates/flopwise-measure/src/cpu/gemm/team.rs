//! A product of one row by several threads: each takes a stretch of k, and all add up.
//!
//! Not here: the product of a stretch (`single_row.rs`). B is most of what such a product reads, and
//! a stretch of k is one piece of it, which the processor foresees; a stretch of columns is a piece
//! of each row, and each piece begins anew.

use super::Operands;
use super::matrix::Matrix;
use super::single_row::{RowCall, RowProduct};
use crate::bench::{ElementFormat, Unmeasurable};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Below so many factors a thread, waiting for each other costs more than it saves.
const MIN_DEPTHS: usize = 64;
/// Spins before the processor is offered to others.
const SPINS_BEFORE_YIELD: u32 = 1 << 14;
/// Partial rows begin on lines of their own.
const LINE_BYTES: usize = 64;

/// What the threads of one product share.
struct Team {
    n_seats: usize,
    /// Each seat's partial row, twice: nobody overwrites what others may still add.
    partials: Matrix,
    /// Counts up by one for each seat and round.
    n_arrived: AtomicUsize,
    /// A seat was given up: nobody waits for it.
    is_broken: AtomicBool,
}

/// One thread's place in a team.
pub(super) struct Seat {
    team: Arc<Team>,
    seat_idx: usize,
    depths: Range<usize>,
    n_rounds: usize,
}

/// A seat for each thread, if the product is one row, deep enough to be cut.
pub(super) fn seats(
    format: ElementFormat,
    [m, n, k]: [usize; 3],
    n_threads: usize,
) -> Result<Option<Vec<Seat>>, Unmeasurable> {
    if m != 1 || n_threads < 2 || k < n_threads.saturating_mul(MIN_DEPTHS) {
        return Ok(None);
    }
    let per_line = LINE_BYTES / format.sum_bytes() as usize;
    let padding = n.next_multiple_of(per_line) - n;
    let team = Arc::new(Team {
        n_seats: n_threads,
        partials: Matrix::zeros([2 * n_threads, n], padding, format.sum_bytes())?,
        n_arrived: AtomicUsize::new(0),
        is_broken: AtomicBool::new(false),
    });
    let edge = |seat_idx: usize| k * seat_idx / n_threads;
    let seat = |seat_idx: usize| Seat {
        team: Arc::clone(&team),
        seat_idx,
        depths: edge(seat_idx)..edge(seat_idx + 1),
        n_rounds: 0,
    };
    Ok(Some((0..n_threads).map(seat).collect()))
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.team.is_broken.store(true, Ordering::Release);
    }
}

impl Seat {
    /// Multiplies the seat's stretch of k, waits for the others and adds up these columns.
    ///
    /// # Safety
    /// The instructions are there; A, B and C are of one row and of the format that the seats were
    /// made for; `columns` lie in C and are this thread's alone.
    pub(super) unsafe fn multiply(
        &mut self,
        row_product: RowProduct,
        operands: &Operands,
        columns: &Range<usize>,
    ) {
        let Operands { format, a, b, c } = operands;
        let first_partial = self.n_rounds % 2 * self.team.n_seats;
        let sum_bytes = format.sum_bytes();
        let call = RowCall {
            a: a.entry(format.bytes(), 0, self.depths.start),
            depth: self.depths.len(),
            b: b.entry(format.bytes(), self.depths.start, 0),
            b_stride: b.stride,
            c: self.team.partials.entry(sum_bytes, first_partial + self.seat_idx, 0),
            n_columns: c.n_columns,
        };
        // SAFETY: the stretch lies in A and B; the partial row is as long as C's and this seat's
        // alone until all have arrived.
        unsafe { row_product(&call) };
        self.n_rounds += 1;
        if !self.wait() || columns.is_empty() {
            return;
        }
        let partial = |seat_idx: usize| {
            self.team.partials.entry(sum_bytes, first_partial + seat_idx, columns.start)
        };
        let target = c.entry(sum_bytes, 0, columns.start);
        let partials = (0..self.team.n_seats).map(partial);
        // SAFETY: all have arrived, so every partial row of this round is complete, and none is
        // written again before all have arrived once more, this thread among them.
        unsafe {
            match format {
                ElementFormat::Fp64 => {
                    add_up(partials, target, columns.len(), |sum: f64, part| sum + part);
                }
                ElementFormat::Fp32 | ElementFormat::Bf16 | ElementFormat::Fp16 => {
                    add_up(partials, target, columns.len(), |sum: f32, part| sum + part);
                }
                ElementFormat::Int8 | ElementFormat::Int16 => {
                    add_up(partials, target, columns.len(), i32::wrapping_add);
                }
            }
        }
    }

    /// Until every seat has made as many rounds; false if one never will.
    fn wait(&self) -> bool {
        let team = &*self.team;
        team.n_arrived.fetch_add(1, Ordering::AcqRel);
        let n_awaited = self.n_rounds * team.n_seats;
        let mut n_spins = 0u32;
        while team.n_arrived.load(Ordering::Acquire) < n_awaited {
            if team.is_broken.load(Ordering::Acquire) {
                return false;
            }
            std::hint::spin_loop();
            n_spins += 1;
            if n_spins.is_multiple_of(SPINS_BEFORE_YIELD) {
                std::thread::yield_now();
            }
        }
        true
    }
}

/// Overwrites `target` with the sum of the partial rows.
///
/// # Safety
/// All are valid for `n_columns` sums and aligned as such, `target` for writing by this thread
/// alone, and none overlap.
unsafe fn add_up<S: Copy>(
    partials: impl Iterator<Item = *mut u8>,
    target: *mut u8,
    n_columns: usize,
    add: impl Fn(S, S) -> S,
) {
    // SAFETY: the caller's promise.
    let target = unsafe { std::slice::from_raw_parts_mut(target.cast::<S>(), n_columns) };
    for (part_idx, partial) in partials.enumerate() {
        // SAFETY: as above.
        let partial = unsafe { std::slice::from_raw_parts(partial.cast::<S>(), n_columns) };
        match part_idx {
            0 => target.copy_from_slice(partial),
            _ => target.iter_mut().zip(partial).for_each(|(sum, part)| *sum = add(*sum, *part)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_single_rows_are_cut_and_nothing_else() {
        let check = |shape: [usize; 3], n_threads: usize, expected: Option<&[Range<usize>]>| {
            let found = seats(ElementFormat::Fp32, shape, n_threads).unwrap();
            let depths = |seats: &Vec<Seat>| {
                seats.iter().map(|seat| seat.depths.clone()).collect::<Vec<Range<usize>>>()
            };
            assert_eq!(found.as_ref().map(depths).as_deref(), expected, "{shape:?}");
        };
        check([1, 16, 128], 2, Some(&[0..64, 64..128]));
        check([1, 1, 200], 3, Some(&[0..66, 66..133, 133..200]));
        check([1, 16, 127], 2, None);
        check([1, 16, 4096], 1, None);
        check([2, 16, 4096], 2, None);
    }

    #[test]
    fn nobody_waits_for_a_seat_that_was_given_up() {
        let mut seats = seats(ElementFormat::Fp32, [1, 8, 256], 2).unwrap().unwrap();
        seats.truncate(1);
        seats[0].n_rounds = 1;
        assert!(!seats[0].wait());
    }
}
