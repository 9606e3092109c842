//! The scalar twins: what each instruction does to a register, one element after the other.
//!
//! Not here: which values are multiplied (`frame.rs`) and the instructions themselves.

/// Elements of a tile's side: 16 rows of 16 sums.
const TILE_EDGE: usize = 16;

#[allow(dead_code, reason = "each architecture has its own of them")]
/// What one multiply-add instruction, or the few that stand for one, does to one accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// sum + a * b, rounded once.
    Fused(Number),
    /// sum + a * b, the product rounded too.
    Split(Number),
    /// sum * a + b, the product rounded too: for compiled loops, whose optimiser would lift a
    /// product of constants out of them.
    Horner(Number),
    /// `vdpbf16ps`: two fused steps, the odd products first; subnormals in and out are zeros
    /// (Intel SDM, VDPBF16PS).
    PairBf16,
    /// `bfdot`: two products a sum. Order and rounding differ between cores with and without
    /// `FEAT_EBF16` (Arm ARM, `BFDotAdd`); [`frame`](super::frame) chooses factors whose sums are
    /// exact, so that all agree.
    DotBf16,
    /// `bfmmla`: 2 x 2 sums of four products, likewise exact.
    MatrixBf16,
    /// `tdpbf16ps`, `tdpfp16ps`: 16 x 16 sums of 32 products, likewise exact.
    Tile(Number),
    /// `tdpbssd`: 16 x 16 sums of 64 products of signed bytes.
    TileInt8,
    /// `vpdpbusd`: four products of an unsigned and a signed byte.
    QuadMixedInt8,
    /// `vpmaddubsw`, `vpmaddwd` by ones, `vpaddd`: as [`Arithmetic::QuadMixedInt8`], but the sums
    /// of two products saturate at 16 bits.
    QuadSaturatingInt8,
    /// `sdot`: four products of signed bytes.
    QuadInt8,
    /// `smmla`: 2 x 2 sums of eight products of signed bytes.
    MatrixInt8,
    /// `vpdpwssd`, or `vpmaddwd` and `vpaddd`: two products of 16-bit integers.
    PairInt16,
    /// `smlal`: one product of 16-bit integers for each sum, from the lower half of the factors.
    LongInt16,
    /// `fmopa` and its like, in the array of SME: an outer product of rows of so many sums, each
    /// of so many products, exact.
    Outer(OuterProduct),
}

/// An outer product: `edge` x `edge` sums of `depth` products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OuterProduct {
    pub(super) factor: Number,
    pub(super) sum: Number,
    pub(super) edge: usize,
    pub(super) depth: usize,
}

/// How the bits of an element read.
#[allow(dead_code, reason = "each architecture has its own of them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Fp64,
    Fp32,
    Fp16,
    Bf16,
    Int32,
    Int16,
    Int8,
    Uint8,
}

impl Number {
    pub(super) fn bytes(self) -> usize {
        match self {
            Number::Fp64 => 8,
            Number::Fp32 | Number::Int32 => 4,
            Number::Fp16 | Number::Bf16 | Number::Int16 => 2,
            Number::Int8 | Number::Uint8 => 1,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Number::Fp64 | Number::Fp32 | Number::Fp16 | Number::Bf16)
    }

    /// Exact: a double holds each of these formats.
    pub(super) fn value(self, bits: u64) -> f64 {
        match self {
            Number::Fp64 => f64::from_bits(bits),
            Number::Fp32 => f64::from(f32::from_bits(bits as u32)),
            Number::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
            Number::Fp16 => half_value(bits as u16),
            Number::Int32 => f64::from(bits as i32),
            Number::Int16 => f64::from(bits as i16),
            Number::Int8 => f64::from(bits as i8),
            Number::Uint8 => f64::from(bits as u8),
        }
    }

    /// Rounded to nearest even where it must be.
    pub(super) fn bits(self, value: f64) -> u64 {
        match self {
            Number::Fp64 => value.to_bits(),
            Number::Fp32 => u64::from((value as f32).to_bits()),
            Number::Bf16 => {
                let bits = (value as f32).to_bits();
                debug_assert!(value.is_nan() || bits & 0xffff == 0, "{value} is no bfloat16");
                u64::from(bits >> 16)
            }
            Number::Fp16 => u64::from(half_bits(value)),
            Number::Int32 => u64::from(value as i32 as u32),
            Number::Int16 => u64::from(value as i16 as u16),
            Number::Int8 => u64::from(value as i8 as u8),
            Number::Uint8 => u64::from(value as u8),
        }
    }

    /// The bits of element `idx` of a register.
    pub(super) fn read(self, register: &[u8], idx: usize) -> u64 {
        let bytes = &register[idx * self.bytes()..][..self.bytes()];
        bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
    }

    /// Sets the bits of element `idx` of a register.
    pub(super) fn write(self, register: &mut [u8], idx: usize, bits: u64) {
        let bytes = &mut register[idx * self.bytes()..][..self.bytes()];
        bytes.copy_from_slice(&bits.to_le_bytes()[..bytes.len()]);
    }
}

impl Arithmetic {
    /// What is summed.
    pub(super) fn sum(self) -> Number {
        match self {
            Arithmetic::Fused(number) | Arithmetic::Split(number) | Arithmetic::Horner(number) => {
                number
            }
            Arithmetic::PairBf16
            | Arithmetic::DotBf16
            | Arithmetic::MatrixBf16
            | Arithmetic::Tile(_) => Number::Fp32,
            Arithmetic::TileInt8
            | Arithmetic::QuadMixedInt8
            | Arithmetic::QuadSaturatingInt8
            | Arithmetic::QuadInt8
            | Arithmetic::MatrixInt8
            | Arithmetic::PairInt16
            | Arithmetic::LongInt16 => Number::Int32,
            Arithmetic::Outer(outer) => outer.sum,
        }
    }

    /// What is multiplied: left and right.
    pub(super) fn factors(self) -> [Number; 2] {
        match self {
            Arithmetic::Fused(number)
            | Arithmetic::Split(number)
            | Arithmetic::Horner(number)
            | Arithmetic::Tile(number) => [number; 2],
            Arithmetic::PairBf16 | Arithmetic::DotBf16 | Arithmetic::MatrixBf16 => {
                [Number::Bf16; 2]
            }
            Arithmetic::QuadMixedInt8 | Arithmetic::QuadSaturatingInt8 => {
                [Number::Uint8, Number::Int8]
            }
            Arithmetic::TileInt8 | Arithmetic::QuadInt8 | Arithmetic::MatrixInt8 => {
                [Number::Int8; 2]
            }
            Arithmetic::PairInt16 | Arithmetic::LongInt16 => [Number::Int16; 2],
            Arithmetic::Outer(outer) => [outer.factor; 2],
        }
    }

    /// Products in each sum.
    pub(super) fn depth(self) -> usize {
        match self {
            Arithmetic::Fused(_)
            | Arithmetic::Split(_)
            | Arithmetic::Horner(_)
            | Arithmetic::LongInt16 => 1,
            Arithmetic::PairBf16 | Arithmetic::DotBf16 | Arithmetic::PairInt16 => 2,
            Arithmetic::MatrixBf16
            | Arithmetic::QuadMixedInt8
            | Arithmetic::QuadSaturatingInt8
            | Arithmetic::QuadInt8 => 4,
            Arithmetic::MatrixInt8 => 8,
            Arithmetic::Tile(_) => 32,
            Arithmetic::TileInt8 => 64,
            Arithmetic::Outer(outer) => outer.depth,
        }
    }

    /// Operations on an accumulator of so many bytes, two a product.
    pub(super) fn ops(self, register_bytes: usize) -> u64 {
        (2 * self.depth() * (register_bytes / self.sum().bytes())) as u64
    }

    /// One multiply-add instruction on one accumulator.
    pub(super) fn step(self, accumulator: &mut [u8], a: &[u8], b: &[u8]) {
        let number = self.sum();
        let [left, right] = self.factors();
        let mut products = [[0u64; 2]; 64];
        for sum_idx in 0..accumulator.len() / number.bytes() {
            let products = &mut products[..self.depth()];
            for (product_idx, product) in products.iter_mut().enumerate() {
                let [a_idx, b_idx] = self.factor_indices(sum_idx, product_idx);
                *product = [left.read(a, a_idx), right.read(b, b_idx)];
            }
            let sum = number.read(accumulator, sum_idx);
            number.write(accumulator, sum_idx, self.sum_of(sum, products));
        }
    }

    /// Where the factors of a product stand in their registers.
    fn factor_indices(self, sum_idx: usize, product_idx: usize) -> [usize; 2] {
        let depth = self.depth();
        match self {
            Arithmetic::Fused(_)
            | Arithmetic::Split(_)
            | Arithmetic::Horner(_)
            | Arithmetic::PairBf16
            | Arithmetic::DotBf16
            | Arithmetic::QuadMixedInt8
            | Arithmetic::QuadSaturatingInt8
            | Arithmetic::QuadInt8
            | Arithmetic::PairInt16
            | Arithmetic::LongInt16 => [sum_idx * depth + product_idx; 2],
            Arithmetic::MatrixBf16 | Arithmetic::MatrixInt8 => {
                [sum_idx / 2 * depth + product_idx, sum_idx % 2 * depth + product_idx]
            }
            Arithmetic::Outer(OuterProduct { edge, .. }) => {
                [sum_idx / edge * depth + product_idx, sum_idx % edge * depth + product_idx]
            }
            Arithmetic::Tile(_) | Arithmetic::TileInt8 => {
                // The right tile holds as many consecutive products of a sum as fit four bytes.
                let group = 4 / self.factors()[1].bytes();
                let (row, column) = (sum_idx / TILE_EDGE, sum_idx % TILE_EDGE);
                let b_row = product_idx / group * TILE_EDGE * group;
                [row * depth + product_idx, b_row + column * group + product_idx % group]
            }
        }
    }

    /// The sum with its products added.
    fn sum_of(self, sum: u64, products: &[[u64; 2]]) -> u64 {
        let number = self.sum();
        let [left, right] = self.factors();
        let values = products.iter().map(|&[a, b]| [left.value(a), right.value(b)]);
        match self {
            Arithmetic::Fused(number) => fused(number, sum, products[0]),
            Arithmetic::Split(number) => split(number, sum, products[0]),
            Arithmetic::Horner(number) => horner(number, sum, products[0]),
            Arithmetic::PairBf16 => {
                let sum = Number::Fp32.value(sum) as f32;
                let step = |sum: f32, [a, b]: [f64; 2]| {
                    flushed((flushed(a as f32)).mul_add(flushed(b as f32), flushed(sum)))
                };
                u64::from(values.rev().fold(sum, step).to_bits())
            }
            Arithmetic::DotBf16 | Arithmetic::MatrixBf16 | Arithmetic::Tile(_) => {
                exact_dot(left, sum, products)
            }
            Arithmetic::Outer(OuterProduct { depth: 1, .. }) => fused(number, sum, products[0]),
            Arithmetic::Outer(OuterProduct { sum: Number::Fp32, .. }) => {
                exact_dot(left, sum, products)
            }
            Arithmetic::QuadSaturatingInt8 => {
                let products: Vec<i32> = values.map(|[a, b]| (a * b) as i32).collect();
                let pair = |pair: &[i32]| {
                    (pair[0] + pair[1]).clamp(i32::from(i16::MIN), i32::from(i16::MAX))
                };
                let pairs: i32 = products.chunks_exact(2).map(pair).sum();
                u64::from((sum as u32).wrapping_add(pairs as u32))
            }
            Arithmetic::TileInt8
            | Arithmetic::QuadMixedInt8
            | Arithmetic::QuadInt8
            | Arithmetic::MatrixInt8
            | Arithmetic::PairInt16
            | Arithmetic::LongInt16
            | Arithmetic::Outer(_) => {
                // Each product fits 32 bits; only the sum wraps.
                let products = values.map(|[a, b]| (a * b) as i64 as u32);
                u64::from(products.fold(sum as u32, u32::wrapping_add))
            }
        }
    }
}

/// What one addition does to one accumulator.
pub(super) fn add(number: Number, accumulator: &mut [u8], addend: &[u8]) {
    for idx in 0..accumulator.len() / number.bytes() {
        let [sum, term] = [&*accumulator, addend].map(|register| number.read(register, idx));
        let added = match number {
            Number::Fp64 => (f64::from_bits(sum) + f64::from_bits(term)).to_bits(),
            Number::Fp32 => {
                let added = f32::from_bits(sum as u32) + f32::from_bits(term as u32);
                u64::from(added.to_bits())
            }
            Number::Fp16
            | Number::Bf16
            | Number::Int32
            | Number::Int16
            | Number::Int8
            | Number::Uint8 => number.bits(number.value(sum) + number.value(term)),
        };
        number.write(accumulator, idx, added);
    }
}

/// Products of halves or of bfloat16 added to a single-precision sum, where neither order nor
/// rounding matters. Subnormal sums are zeros, and so are subnormal bfloat16 factors; halves are
/// normal numbers in single precision (Intel SDM, TDPBF16PS and TDPFP16PS; Arm ARM, BFMul).
fn exact_dot(factor: Number, sum: u64, products: &[[u64; 2]]) -> u64 {
    let read = |bits: u64| match factor {
        Number::Bf16 => f64::from(flushed(factor.value(bits) as f32)),
        Number::Fp64
        | Number::Fp32
        | Number::Fp16
        | Number::Int32
        | Number::Int16
        | Number::Int8
        | Number::Uint8 => factor.value(bits),
    };
    let sum = f64::from(flushed(f32::from_bits(sum as u32)));
    let sum = products.iter().fold(sum, |sum, &[a, b]| read(a).mul_add(read(b), sum));
    u64::from(flushed(sum as f32).to_bits())
}

fn fused(number: Number, sum: u64, [a, b]: [u64; 2]) -> u64 {
    match number {
        Number::Fp32 => {
            let [sum, a, b] = [sum, a, b].map(|bits| f32::from_bits(bits as u32));
            u64::from(a.mul_add(b, sum).to_bits())
        }
        // In a double the product of two halves is exact, and so is its sum with a half of like
        // size, which is what the factors are: rounded once, at the end.
        Number::Fp64
        | Number::Fp16
        | Number::Bf16
        | Number::Int32
        | Number::Int16
        | Number::Int8
        | Number::Uint8 => {
            let [sum, a, b] = [sum, a, b].map(|bits| number.value(bits));
            number.bits(a.mul_add(b, sum))
        }
    }
}

fn split(number: Number, sum: u64, [a, b]: [u64; 2]) -> u64 {
    let [a, b] = [a, b].map(|bits| number.value(bits));
    let product = number.bits(a * b);
    number.bits(number.value(sum) + number.value(product))
}

fn horner(number: Number, sum: u64, [a, b]: [u64; 2]) -> u64 {
    let product = number.bits(number.value(sum) * number.value(a));
    number.bits(number.value(product) + number.value(b))
}

/// A zero of its sign for a subnormal.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

fn half_value(bits: u16) -> f64 {
    let significand = f64::from(bits & 0x3ff);
    let magnitude = match bits >> 10 & 0x1f {
        0 => significand * 2f64.powi(-24),
        0x1f if bits & 0x3ff == 0 => f64::INFINITY,
        0x1f => f64::NAN,
        exponent => (1024.0 + significand) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn half_bits(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    if 65520.0 <= magnitude {
        return sign | 0x7c00; // half-way beyond the largest: rounds to infinity
    }
    // The spacing of halves at this magnitude, never below that of subnormals; the count of
    // spacings is exact and rounds to even, and a carry runs into the exponent as it should.
    let exponent = (magnitude.max(2f64.powi(-14)).to_bits() >> 52) as i32 - 1023;
    let n_spacings = (magnitude * 2f64.powi(10 - exponent)).round_ties_even() as u16;
    sign | (((exponent + 14) as u16) << 10).wrapping_add(n_spacings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One register of little-endian elements.
    fn register(number: Number, values: &[f64]) -> Vec<u8> {
        let mut register = vec![0; values.len() * number.bytes()];
        for (idx, &value) in values.iter().enumerate() {
            number.write(&mut register, idx, number.bits(value));
        }
        register
    }

    #[track_caller]
    fn check(arithmetic: Arithmetic, sums: &[f64], a: &[f64], b: &[f64], expected: &[f64]) {
        let [left, right] = arithmetic.factors();
        let mut accumulator = register(arithmetic.sum(), sums);
        arithmetic.step(&mut accumulator, &register(left, a), &register(right, b));
        assert_eq!(accumulator, register(arithmetic.sum(), expected), "{arithmetic:?}");
    }

    #[test]
    fn halves_equal_their_definition() {
        let check = |bits: u16, value: f64| {
            assert_eq!(half_value(bits).to_bits(), value.to_bits(), "{bits:#x}");
            assert_eq!(half_bits(value), bits, "{value}");
        };
        check(0x0000, 0.0);
        check(0x8000, -0.0);
        check(0x0001, 2f64.powi(-24));
        check(0x03ff, 1023.0 * 2f64.powi(-24));
        check(0x0400, 2f64.powi(-14));
        check(0x3c00, 1.0);
        check(0xc000, -2.0);
        check(0x7bff, 65504.0);
        check(0x7c00, f64::INFINITY);
        for bits in 0..0x7c00 {
            assert_eq!(half_bits(half_value(bits)), bits);
        }
    }

    #[test]
    fn halves_round_to_nearest_even() {
        let check = |value: f64, expected: f64| {
            assert_eq!(half_value(half_bits(value)).to_bits(), expected.to_bits(), "{value}");
        };
        check(2049.0, 2048.0);
        check(2051.0, 2052.0);
        check(2047.75, 2048.0);
        check(1.5 * 2f64.powi(-24), 2f64.powi(-23));
        check(2f64.powi(-25), 0.0);
        check(65519.9, 65504.0);
        check(65520.0, f64::INFINITY);
    }

    #[test]
    fn a_fused_step_rounds_once_and_a_split_one_twice() {
        // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, whose last bit a product of its own loses.
        let factor = 1.0 + 2f64.powi(-12);
        let exact = 2f64.powi(-11) + 2f64.powi(-24);
        let fp32 = Number::Fp32;
        check(Arithmetic::Fused(fp32), &[-1.0], &[factor], &[factor], &[exact]);
        check(Arithmetic::Split(fp32), &[-1.0], &[factor], &[factor], &[2f64.powi(-11)]);
        check(Arithmetic::Horner(fp32), &[factor], &[factor], &[-1.0], &[2f64.powi(-11)]);
        let factor = 1.0 + 2f64.powi(-5);
        let exact = 2f64.powi(-4) + 2f64.powi(-10);
        check(Arithmetic::Fused(Number::Fp16), &[-1.0], &[factor], &[factor], &[exact]);
        let factor = 1.0 + 2f64.powi(-27);
        let exact = 2f64.powi(-26) + 2f64.powi(-54);
        check(Arithmetic::Fused(Number::Fp64), &[-1.0], &[factor], &[factor], &[exact]);
        check(Arithmetic::Split(Number::Fp64), &[-1.0], &[factor], &[factor], &[2f64.powi(-26)]);
    }

    #[test]
    fn pairs_of_bfloat16_take_the_odd_product_first_and_flush() {
        let pair = Arithmetic::PairBf16;
        check(pair, &[1.0], &[3.0, 5.0], &[2.0, 7.0], &[42.0]);
        // 2^24 + 1 rounds to 2^24; then -2^24: the other order would leave 1.
        let big = 2f64.powi(24);
        check(pair, &[big], &[-big, 1.0], &[1.0, 1.0], &[0.0]);
        check(pair, &[1.0], &[-1.0, big], &[1.0, 1.0], &[big - 1.0]);
        let tiny = 2f64.powi(-127); // subnormal, in bfloat16 as in FP32
        check(pair, &[tiny], &[0.0, 0.0], &[1.0, 1.0], &[0.0]);
        check(pair, &[0.0], &[tiny, 0.0], &[4.0, 1.0], &[0.0]);
        let small = 2f64.powi(-64);
        check(pair, &[0.0], &[small, 0.0], &[small, 0.0], &[0.0]);
    }

    #[test]
    fn integers_wrap_and_the_old_way_saturates() {
        let (top, bottom) = (f64::from(i32::MAX), f64::from(i32::MIN));
        let quad = Arithmetic::QuadMixedInt8;
        check(quad, &[7.0], &[255.0, 1.0, 2.0, 3.0], &[-128.0, 1.0, 2.0, 3.0], &[-32619.0]);
        check(quad, &[top], &[1.0, 0.0, 0.0, 0.0], &[1.0, 0.0, 0.0, 0.0], &[bottom]);
        let (a, b) = ([255.0, 255.0, 1.0, 1.0], [127.0, 127.0, 2.0, 3.0]);
        check(quad, &[0.0], &a, &b, &[64775.0]);
        check(Arithmetic::QuadSaturatingInt8, &[0.0], &a, &b, &[32772.0]);
        let minus = [-128.0; 4];
        check(Arithmetic::QuadInt8, &[1.0], &minus, &minus, &[65537.0]);
        check(Arithmetic::PairInt16, &[top], &[1.0, 1.0], &[1.0, 1.0], &[bottom + 1.0]);
        check(Arithmetic::PairInt16, &[0.0], &[-32768.0; 2], &[-32768.0; 2], &[bottom]);
        check(Arithmetic::LongInt16, &[5.0], &[-3.0], &[7.0], &[-16.0]);
    }

    #[test]
    fn matrices_multiply_rows_by_rows() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [1.0; 8]);
        check(Arithmetic::MatrixBf16, &[0.5; 4], &a, &b, &[10.5, 10.5, 26.5, 26.5]);
        let a: Vec<f64> = (0..16).map(f64::from).collect();
        let b: Vec<f64> = (0..16).map(|idx| if idx < 8 { 1.0 } else { -2.0 }).collect();
        check(Arithmetic::MatrixInt8, &[1.0; 4], &a, &b, &[29.0, -55.0, 93.0, -183.0]);
        check(Arithmetic::DotBf16, &[1.0], &[3.0, 5.0], &[2.0, 7.0], &[42.0]);
        let outer = Arithmetic::Outer(OuterProduct {
            factor: Number::Int8,
            sum: Number::Int32,
            edge: 2,
            depth: 4,
        });
        let a = [1.0, 2.0, 3.0, 4.0, -1.0, -1.0, -1.0, -1.0];
        let b = [1.0, 1.0, 1.0, 1.0, 5.0, 0.0, 0.0, 0.0];
        check(outer, &[100.0; 4], &a, &b, &[110.0, 105.0, 96.0, 95.0]);
    }

    /// A tile product against three plain loops over matrices laid out by hand.
    #[test]
    fn tiles_multiply_interleaved_rows() {
        let check_tile = |arithmetic: Arithmetic, group: usize| {
            let depth = arithmetic.depth();
            let left = |row: usize, k: usize| {
                (row as f64 - 7.0) * if k.is_multiple_of(3) { 1.0 } else { 2.0 }
            };
            let right = |k: usize, column: usize| (column as f64 - 3.0) + (k % 5) as f64;
            let mut a = vec![0.0; 16 * depth];
            let mut b = vec![0.0; 16 * depth];
            let mut expected = vec![0.0; 256];
            for k in 0..depth {
                for edge in 0..16 {
                    a[edge * depth + k] = left(edge, k);
                    b[k / group * 16 * group + edge * group + k % group] = right(k, edge);
                }
            }
            for (idx, sum) in expected.iter_mut().enumerate() {
                *sum = idx as f64
                    + (0..depth).map(|k| left(idx / 16, k) * right(k, idx % 16)).sum::<f64>();
            }
            let start: Vec<f64> = (0..256).map(f64::from).collect();
            check(arithmetic, &start, &a, &b, &expected);
        };
        check_tile(Arithmetic::Tile(Number::Bf16), 2);
        check_tile(Arithmetic::Tile(Number::Fp16), 2);
        check_tile(Arithmetic::TileInt8, 4);
    }

    #[test]
    fn operations_are_two_a_product() {
        let check = |arithmetic: Arithmetic, register_bytes: usize, expected: u64| {
            assert_eq!(arithmetic.ops(register_bytes), expected, "{arithmetic:?}");
        };
        check(Arithmetic::Fused(Number::Fp32), 64, 32);
        check(Arithmetic::Fused(Number::Fp64), 16, 4);
        check(Arithmetic::PairBf16, 64, 64);
        check(Arithmetic::QuadMixedInt8, 64, 128);
        check(Arithmetic::PairInt16, 32, 32);
        check(Arithmetic::Tile(Number::Bf16), 1024, 2 * 16 * 16 * 32);
        check(Arithmetic::TileInt8, 1024, 2 * 16 * 16 * 64);
        check(Arithmetic::MatrixInt8, 16, 64);
        check(Arithmetic::LongInt16, 16, 8);
    }
}
