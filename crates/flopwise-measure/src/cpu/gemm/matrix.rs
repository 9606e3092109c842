//! Matrices of random numbers in any format, and single entries of their products the slow way.
//!
//! Not here: fast products. The numbers are SplitMix64's (Steele, Lea, Flood 2014), so that every
//! run multiplies the same ones; constant matrices flatter some machines.

use super::memory::Memory;
use crate::bench::{ElementFormat, Unmeasurable};

/// A row-major matrix.
pub(super) struct Matrix {
    memory: Memory,
    pub(super) n_rows: usize,
    pub(super) n_columns: usize,
    /// Bytes between the starts of rows.
    pub(super) stride: usize,
}

/// Which factor of a product a matrix is: INT8 has no sign on the left and has one on the right,
/// as the instructions have it (`vpdpbusd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A.
    Left,
    /// B.
    Right,
}

impl Matrix {
    /// Zeros, rows `padding` entries apart.
    pub(super) fn zeros(
        [n_rows, n_columns]: [usize; 2],
        padding: usize,
        entry_bytes: u64,
    ) -> Result<Matrix, Unmeasurable> {
        let stride =
            n_columns.checked_add(padding).and_then(|n| n.checked_mul(entry_bytes as usize));
        let n_bytes = stride.and_then(|stride| stride.checked_mul(n_rows));
        match (stride, n_bytes) {
            (Some(stride), Some(n_bytes)) => {
                Ok(Matrix { memory: Memory::new(n_bytes)?, n_rows, n_columns, stride })
            }
            _ => Err(Unmeasurable("a matrix exceeds the address space".to_owned())),
        }
    }

    /// Random factors: floats uniform in [-1, 1), integers over their whole range.
    pub(super) fn random(
        shape: [usize; 2],
        padding: usize,
        format: ElementFormat,
        seed: u64,
    ) -> Result<Matrix, Unmeasurable> {
        let matrix = Matrix::zeros(shape, padding, format.bytes())?;
        let mut state = seed;
        for row in 0..matrix.n_rows {
            for column in 0..matrix.n_columns {
                // SAFETY: inside the matrix, which nobody else has yet.
                unsafe {
                    write_random(matrix.entry(format.bytes(), row, column), format, &mut state)
                };
            }
        }
        Ok(matrix)
    }

    /// Where an entry is.
    pub(super) fn entry(&self, entry_bytes: u64, row: usize, column: usize) -> *mut u8 {
        assert!(row < self.n_rows && column < self.n_columns, "row {row}, column {column}");
        self.memory.start().wrapping_add(row * self.stride + column * entry_bytes as usize)
    }

    /// All bytes, padding too.
    pub(super) fn bytes(&self) -> (*mut u8, usize) {
        (self.memory.start(), self.memory.n_bytes())
    }

    /// A factor as a number; all are exact.
    pub(super) fn factor(
        &self,
        format: ElementFormat,
        side: Side,
        row: usize,
        column: usize,
    ) -> f64 {
        let entry = self.entry(format.bytes(), row, column);
        // SAFETY: an entry of this matrix, written when it was made.
        unsafe {
            match format {
                ElementFormat::Fp64 => entry.cast::<f64>().read(),
                ElementFormat::Fp32 => f64::from(entry.cast::<f32>().read()),
                ElementFormat::Bf16 => {
                    let bits = u32::from(entry.cast::<u16>().read()) << 16;
                    f64::from(f32::from_bits(bits))
                }
                ElementFormat::Int8 if side == Side::Left => f64::from(entry.read()),
                ElementFormat::Int8 => f64::from(entry.cast::<i8>().read()),
                ElementFormat::Fp16 | ElementFormat::Int16 => {
                    unreachable!("no product of this format is ever built")
                }
            }
        }
    }
}

/// # Safety
/// `entry` is valid for writing one of the format.
unsafe fn write_random(entry: *mut u8, format: ElementFormat, state: &mut u64) {
    let bits = next(state);
    // SAFETY: the caller's promise; rows and entries keep their type's alignment.
    unsafe {
        match format {
            ElementFormat::Fp64 => {
                entry.cast::<f64>().write((bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0);
            }
            ElementFormat::Fp32 => entry.cast::<f32>().write(uniform(bits)),
            ElementFormat::Bf16 => entry.cast::<u16>().write(round_to_bf16(uniform(bits))),
            ElementFormat::Int8 => entry.write((bits >> 56) as u8),
            ElementFormat::Fp16 | ElementFormat::Int16 => {
                unreachable!("no product of this format is ever built")
            }
        }
    }
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Uniform in [-1, 1): 24 bits, exact in FP32.
fn uniform(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// To the nearest, ties to even; the number is finite.
fn round_to_bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    let is_odd = (bits >> 16) & 1;
    ((bits + 0x7FFF + is_odd) >> 16) as u16
}

/// What an entry of a product must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) value: f64,
    /// How far a sum in any order may be from it.
    pub(super) tolerance: f64,
}

impl Expected {
    /// One entry the slow, obvious way, in FP64, where integers are exact.
    ///
    /// A sum of k products in any order is within k x unit roundoff x sum |a||b| of the true one
    /// (Higham 2002, "Accuracy and Stability", 3.1); twice that for BF16, whose instruction rounds
    /// a pair's sum before it adds it, and for FP64, since this sum is not exact either.
    pub(super) fn of(
        format: ElementFormat,
        [a, b]: [&Matrix; 2],
        row: usize,
        column: usize,
    ) -> Expected {
        let terms = (0..a.n_columns).map(|depth| {
            a.factor(format, Side::Left, row, depth) * b.factor(format, Side::Right, depth, column)
        });
        let (value, magnitude) =
            terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
        let roundoff = match format {
            ElementFormat::Fp64 => f64::EPSILON,
            ElementFormat::Fp32 => f64::from(f32::EPSILON) / 2.0,
            ElementFormat::Bf16 | ElementFormat::Fp16 => f64::from(f32::EPSILON),
            ElementFormat::Int8 | ElementFormat::Int16 => 0.0,
        };
        Expected { value, tolerance: a.n_columns as f64 * roundoff * magnitude }
    }

    /// Whether the entry of C at `entry` is near enough.
    ///
    /// # Safety
    /// `entry` is valid for reading a sum of the format.
    pub(super) unsafe fn is_met_by(self, format: ElementFormat, entry: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match format {
                ElementFormat::Fp64 => self.is_near(entry.cast::<f64>().read()),
                ElementFormat::Fp32 | ElementFormat::Bf16 | ElementFormat::Fp16 => {
                    self.is_near(f64::from(entry.cast::<f32>().read()))
                }
                // Sums beyond 32 bits wrap, here as there; below 2^53 the number is exact.
                ElementFormat::Int8 | ElementFormat::Int16 => {
                    entry.cast::<i32>().read() == self.value as i64 as i32
                }
            }
        }
    }

    fn is_near(self, found: f64) -> bool {
        (found - self.value).abs() <= self.tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let check = |number: f32, expected: f32| {
            let found = f32::from_bits(u32::from(round_to_bf16(number)) << 16);
            assert_eq!(found.to_bits(), expected.to_bits(), "{number}");
        };
        check(1.0, 1.0);
        check(1.0 + 1.0 / 256.0, 1.0);
        check(1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0);
        check(1.0 + 1.1 / 256.0, 1.0 + 2.0 / 256.0);
        check(-0.3, -0.300_781_25);
        check(0.0, 0.0);
    }

    #[test]
    fn entries_are_sums_of_products() {
        let format = ElementFormat::Fp32;
        let (a, b) = (Matrix::zeros([2, 2], 3, 4).unwrap(), Matrix::zeros([2, 2], 0, 4).unwrap());
        for (idx, (left, right)) in
            [(1.0, 5.0), (2.0, 6.0), (3.0, 7.0), (4.0, 8.0)].iter().enumerate()
        {
            // SAFETY: entries of matrices that are ours alone.
            unsafe {
                a.entry(4, idx / 2, idx % 2).cast::<f32>().write(*left);
                b.entry(4, idx / 2, idx % 2).cast::<f32>().write(*right);
            }
        }
        let entry = |row, column| Expected::of(format, [&a, &b], row, column).value as i64;
        // [1 2; 3 4] x [5 6; 7 8]
        assert_eq!([entry(0, 0), entry(0, 1), entry(1, 0), entry(1, 1)], [19, 22, 43, 50]);
    }

    #[test]
    fn integers_have_a_sign_on_the_right_only() {
        let matrix = Matrix::random([64, 64], 0, ElementFormat::Int8, 5).unwrap();
        let all = |side| {
            let factor = |idx: usize| matrix.factor(ElementFormat::Int8, side, idx / 64, idx % 64);
            let range = (0..64 * 64).map(factor);
            range.fold((0.0f64, 0.0f64), |(low, high), x| (low.min(x), high.max(x)))
        };
        assert_eq!((all(Side::Left), all(Side::Right)), ((0.0, 255.0), (-128.0, 127.0)));
    }

    #[test]
    fn floats_are_spread_over_their_range() {
        for format in [ElementFormat::Fp64, ElementFormat::Fp32, ElementFormat::Bf16] {
            let matrix = Matrix::random([32, 32], 1, format, 9).unwrap();
            let factors =
                (0..1024).map(|idx| matrix.factor(format, Side::Left, idx / 32, idx % 32));
            let (low, high) = factors.fold((0.0f64, 0.0f64), |(l, h), x| (l.min(x), h.max(x)));
            assert!((-1.0..-0.98).contains(&low) && (0.98..=1.0).contains(&high), "{format:?}");
        }
    }
}
