//! Tests of whole products: every kernel, every small shape, against the naive product.

use super::*;

fn load(format: ElementFormat, shape: [u64; 3]) -> GemmLoad {
    GemmLoad::of(format, shape)
}

/// Block sizes so small that a small product has several along each dimension.
fn small_blocks(kernel: &TileKernel) -> Blocking {
    Blocking { n_steps: 8, n_rows: kernel.n_rows() + 1, n_columns: 2 * kernel.n_columns }
}

fn operands(format: ElementFormat, [m, n, k]: [usize; 3], padding: usize) -> Arc<Operands> {
    Arc::new(Operands {
        format,
        a: Matrix::random([m, k], padding, format, 1).unwrap(),
        b: Matrix::random([k, n], padding, format, 2).unwrap(),
        c: Matrix::zeros([m, n], padding, format.sum_bytes()).unwrap(),
    })
}

/// A copy of all bytes of a matrix, those between its rows too.
fn bytes(matrix: &Matrix) -> Vec<u8> {
    let (start, n_bytes) = matrix.bytes();
    // SAFETY: the matrix holds so many bytes, all of them written, and nobody writes them now.
    unsafe { std::slice::from_raw_parts(start, n_bytes) }.to_vec()
}

/// Every entry of the product, by areas for `n_threads`; and nothing beside it is written.
fn check(
    kernel: TileKernel,
    blocking: Blocking,
    shape: [usize; 3],
    padding: usize,
    n_threads: usize,
) {
    let operands = operands(kernel.format, shape, padding);
    let before = [bytes(&operands.a), bytes(&operands.b)];
    let mut found = Vec::new();
    for area in grid([shape[0], shape[1]], n_threads, kernel.n_columns) {
        let shared = Arc::clone(&operands);
        let mut block =
            Block::new(kernel, blocking, shared, area.clone(), CacheState::Hot).unwrap();
        block.run(1);
        for row in area.rows.clone() {
            for column in area.columns.clone() {
                let is_right = block.is_right(row, column);
                assert!(
                    is_right,
                    "{} {:?} {shape:?} {row},{column}",
                    kernel.backend, kernel.format
                );
                found.push((row, column, block.bits(row, column)));
            }
        }
    }
    assert!(before == [bytes(&operands.a), bytes(&operands.b)], "a factor has changed");
    let c = bytes(&operands.c);
    let size = operands.format.sum_bytes() as usize;
    let mut is_entry = vec![false; c.len()];
    for (row, column, bits) in found {
        let start = row * operands.c.stride + column * size;
        is_entry[start..start + size].fill(true);
        assert_eq!(c[start..start + size], bits.to_le_bytes()[..size], "another area wrote it");
    }
    let is_clean = c.iter().zip(&is_entry).all(|(&byte, &is_entry)| is_entry || byte == 0);
    assert!(is_clean, "{} {:?} {shape:?} beside C", kernel.backend, kernel.format);
}

#[test]
fn every_kernel_multiplies_every_small_shape() {
    // Every number of rows and columns with some depth, every depth with some rows and columns.
    for kernel in tile::available() {
        let blocking = blocking(&kernel, &caches(1));
        for m in 1..=40 {
            for n in 1..=40 {
                check(kernel, blocking, [m, n, 1 + (m * 7 + n * 3) % 40], 0, 1);
            }
        }
        for k in 1..=40 {
            check(kernel, blocking, [1 + k % 15, 1 + (k * 5) % 40, k], 0, 1);
            check(kernel, blocking, [40, 40, k], 0, 1);
        }
    }
}

#[test]
fn blocks_of_any_size_add_up() {
    for kernel in tile::available() {
        let blocks = small_blocks(&kernel);
        for n_threads in 1..=4 {
            for padding in [0, 3] {
                check(kernel, blocks, [37, 71, 53], padding, n_threads);
                check(kernel, blocks, [1, 71, 53], padding, n_threads);
                check(kernel, blocks, [29, 1, 130], padding, n_threads);
                check(kernel, blocks, [64, 128, 64], padding, n_threads);
            }
        }
    }
}

/// One row by threads that wait for each other, round after round.
#[test]
fn one_row_by_a_team_is_right() {
    for kernel in tile::available() {
        for (n_threads, n, k) in [(2, 71, 128), (3, 5, 700), (4, 200, 259)] {
            let load = load(kernel.format, [1, n, k]);
            let builds = builds(kernel, load, n_threads).unwrap();
            std::thread::scope(|scope| {
                for build in builds {
                    scope.spawn(move || {
                        let mut block = build().unwrap();
                        for n_rounds in 1..20 {
                            block.run(n_rounds);
                            assert!(block.is_correct(), "{} {n}x{k}", kernel.backend);
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn integers_of_the_largest_magnitude_are_exact() {
    for kernel in tile::available().into_iter().filter(|k| k.format == ElementFormat::Int8) {
        let shape = [5, 40, 67];
        let operands = operands(ElementFormat::Int8, shape, 0);
        for matrix in [&operands.a, &operands.b] {
            let (start, n_bytes) = matrix.bytes();
            // SAFETY: the matrix's own bytes; nobody reads them yet. 255 on the left.
            unsafe { start.write_bytes(255, n_bytes) };
        }
        let (start, n_bytes) = operands.b.bytes();
        // SAFETY: as above; -128 on the right.
        unsafe { start.write_bytes(128, n_bytes) };
        let area = Area { rows: 0..5, columns: 0..40 };
        let blocks = small_blocks(&kernel);
        let mut block = Block::new(kernel, blocks, operands, area, CacheState::Hot).unwrap();
        block.run(1);
        assert_eq!(block.bits(4, 39) as u32 as i32, 255 * -128 * 67, "{}", kernel.backend);
    }
}

#[test]
fn every_format_has_a_product() {
    let formats = ability().formats;
    let [fp64, fp32, bf16, int8] =
        [ElementFormat::Fp64, ElementFormat::Fp32, ElementFormat::Bf16, ElementFormat::Int8];
    assert_eq!(formats, [fp64, fp32, bf16, int8]);
    for format in ElementFormat::ALL {
        assert_eq!(runnable(load(format, [8, 8, 8]), 2).is_ok(), formats.contains(&format));
    }
}

#[test]
fn what_cannot_be_multiplied_is_refused() {
    for shape in [[0, 8, 8], [8, 0, 8], [8, 8, 0], [u64::MAX, 2, 2], [1 << 40, 1 << 40, 1]] {
        assert!(runnable(load(ElementFormat::Fp32, shape), 1).is_err(), "{shape:?}");
    }
}

fn block(cache: CacheState) -> Block {
    let kernel = tile::best(ElementFormat::Fp32).unwrap();
    let blocking = blocking(&kernel, &caches(1));
    let area = Area { rows: 0..16, columns: 0..16 };
    let operands = operands(ElementFormat::Fp32, [16, 16, 16], 0);
    Block::new(kernel, blocking, operands, area, cache).unwrap()
}

#[test]
fn a_run_that_writes_nothing_is_found_out() {
    let mut block = block(CacheState::Hot);
    block.run(1);
    block.verified = block.sample();
    assert!(block.is_correct());
    block.run(0);
    assert!(!block.is_correct());
    block.run(1);
    assert!(block.is_correct());
}

#[test]
fn a_kernel_that_skips_a_step_is_found_out() {
    unsafe fn nothing(_call: &tile::Call) {}
    let mut kernel = tile::best(ElementFormat::Fp32).unwrap();
    kernel.tiles = &[nothing];
    let blocking = blocking(&kernel, &caches(1));
    let operands = operands(ElementFormat::Fp32, [16, 16, 16], 0);
    let area = Area { rows: 0..16, columns: 0..16 };
    let block = Block::new(kernel, blocking, operands, area, CacheState::Hot).unwrap();
    assert!(build(block).is_err());
}

#[test]
fn work_counts_two_per_multiply_add_and_cold_products_once() {
    assert!((block(CacheState::Hot).work(2) - 2.0 * 2.0 * 4096.0).abs() < 1e-9);
    let mut cold = block(CacheState::Cold);
    assert!((cold.work(2) - 2.0 * 4096.0).abs() < 1e-9);
    cold.make_ready();
    cold.run(5);
    assert!(cold.is_right(3, 4));
}
