//! The way of a stream round its arrays: each slice takes up where the last one stopped.
//!
//! Not here: memory. Positions are in blocks, so that one walk serves all arrays of a stream. In
//! main memory a slice then finds nothing of its own in the caches; in a cache it goes round often.

use std::ops::Range;

/// A place on a ring of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    n_blocks: usize,
    next_block: usize,
}

/// Neighbouring blocks, gone over a number of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) blocks: Range<usize>,
    pub(super) n_times: usize,
}

impl Walk {
    /// At the start of so many blocks.
    pub(super) fn new(n_blocks: usize) -> Walk {
        assert!(0 < n_blocks, "a stream has at least one block");
        Walk { n_blocks, next_block: 0 }
    }

    /// How many there are.
    pub(super) fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// The next `amount` blocks: to the end, round and round, and the rest.
    pub(super) fn stretches(&self, amount: u64) -> impl Iterator<Item = Stretch> + use<> {
        let Walk { n_blocks, next_block: first } = *self;
        let head = to_usize(amount).min(n_blocks - first);
        let left = to_usize(amount) - head;
        let stretches = [
            Stretch { blocks: first..first + head, n_times: 1 },
            Stretch { blocks: 0..n_blocks, n_times: left / n_blocks },
            Stretch { blocks: 0..left % n_blocks, n_times: 1 },
        ];
        stretches.into_iter().filter(|stretch| !stretch.blocks.is_empty() && 0 < stretch.n_times)
    }

    /// The blocks that the next `amount` touch, each once.
    pub(super) fn touched(&self, amount: u64) -> impl Iterator<Item = Range<usize>> + use<> {
        let Walk { n_blocks, next_block: first } = *self;
        let amount = to_usize(amount);
        let head = amount.min(n_blocks - first);
        let ranges = match n_blocks <= amount {
            true => [0..n_blocks, 0..0],
            false => [first..first + head, 0..amount - head],
        };
        ranges.into_iter().filter(|range| !range.is_empty())
    }

    /// Goes on by `amount` blocks.
    pub(super) fn advance(&mut self, amount: u64) {
        let step = (amount % self.n_blocks as u64) as usize;
        self.next_block = (self.next_block + step) % self.n_blocks;
    }
}

/// Blocks of one slice; on 32 bits no slice has as many as would not fit.
fn to_usize(amount: u64) -> usize {
    usize::try_from(amount).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_round() {
        let mut walk = Walk::new(4);
        let mut check = |amount, expected: &[(usize, usize, usize)], touched: &[(usize, usize)]| {
            let stretches: Vec<_> = walk
                .stretches(amount)
                .map(|stretch| (stretch.blocks.start, stretch.blocks.end, stretch.n_times))
                .collect();
            assert_eq!(stretches, expected);
            let n_blocks: usize =
                stretches.iter().map(|(start, end, n_times)| (end - start) * n_times).sum();
            assert_eq!(n_blocks as u64, amount);
            let ranges: Vec<_> =
                walk.touched(amount).map(|range| (range.start, range.end)).collect();
            assert_eq!(ranges, touched);
            walk.advance(amount);
        };
        check(3, &[(0, 3, 1)], &[(0, 3)]);
        check(2, &[(3, 4, 1), (0, 1, 1)], &[(3, 4), (0, 1)]);
        check(9, &[(1, 4, 1), (0, 4, 1), (0, 2, 1)], &[(0, 4)]);
        check(0, &[], &[]);
        check(1, &[(2, 3, 1)], &[(2, 3)]);
        check(4001, &[(3, 4, 1), (0, 4, 1000)], &[(0, 4)]);
        check(8, &[(0, 4, 1), (0, 4, 1)], &[(0, 4)]);
        check(2, &[(0, 2, 1)], &[(0, 2)]);
        check(4, &[(2, 4, 1), (0, 2, 1)], &[(0, 4)]);
    }
}
