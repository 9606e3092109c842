//! C cut into one area for each thread.
//!
//! Not here: blocks within an area. Threads share nothing and wait for nobody: at the sizes where a
//! barrier's price shows, packing a factor twice is cheaper.

use std::ops::Range;

/// A rectangle of C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Area {
    /// A thread without work.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() || self.columns.is_empty()
    }
}

/// An entry packed costs about as much as so many multiply-adds.
const PACKING_COST: usize = 8;

/// Cuts `n_rows` x `n_columns` into `n_threads` areas, in the shape in which the slowest is done
/// first; between columns only at multiples of `column_unit`, so that no panel is cut.
pub(super) fn grid(
    [n_rows, n_columns]: [usize; 2],
    n_threads: usize,
    column_unit: usize,
) -> Vec<Area> {
    let cost = |n_down: usize| {
        let n_across = n_threads / n_down;
        let rows = n_rows.div_ceil(n_down);
        let columns = n_columns.div_ceil(column_unit).div_ceil(n_across) * column_unit;
        rows * columns + PACKING_COST * (rows + columns)
    };
    let ways = (1..=n_threads).filter(|n_down| n_threads.is_multiple_of(*n_down));
    // Of equals the first: few cuts between rows, so that few threads pack the same of B.
    let n_down = ways.min_by_key(|&n_down| cost(n_down)).unwrap_or(1);
    let n_across = n_threads / n_down;
    let n_panels = n_columns.div_ceil(column_unit);
    let row = |part_idx: usize| n_rows * part_idx / n_down;
    let column = |part_idx: usize| (n_panels * part_idx / n_across * column_unit).min(n_columns);
    let areas = (0..n_threads).map(|thread_idx| {
        let (down, across) = (thread_idx / n_across, thread_idx % n_across);
        Area { rows: row(down)..row(down + 1), columns: column(across)..column(across + 1) }
    });
    areas.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_cover_the_product_once() {
        for n_threads in 1..=12 {
            for [n_rows, n_columns] in [[64, 48], [1, 100], [7, 3], [33, 65]] {
                let mut n_covers = vec![0; n_rows * n_columns];
                let areas = grid([n_rows, n_columns], n_threads, 16);
                assert_eq!(areas.len(), n_threads);
                for area in areas {
                    for row in area.rows {
                        for column in area.columns.clone() {
                            n_covers[row * n_columns + column] += 1;
                        }
                    }
                }
                assert!(n_covers.iter().all(|&n| n == 1), "{n_threads}: {n_rows}x{n_columns}");
            }
        }
    }

    #[test]
    fn areas_are_cut_where_the_slowest_is_fastest() {
        let check = |shape, n_threads, expected: [usize; 2]| {
            let first = &grid(shape, n_threads, 16)[0];
            assert_eq!([first.rows.len(), first.columns.len()], expected, "{shape:?}");
        };
        check([512, 512], 2, [512, 256]);
        check([512, 512], 4, [256, 256]);
        check([1, 4096], 2, [1, 2048]);
        check([4096, 16], 2, [2048, 16]);
        check([32, 4096], 4, [32, 1024]);
    }
}
