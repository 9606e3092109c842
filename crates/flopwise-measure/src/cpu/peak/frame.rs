//! The memory that a kernel of the instruction peak starts from and ends in: accumulators, factors
//! and the states of the processor, at offsets that the assembly knows.
//!
//! Not here: what is done with them (`twin.rs`, `x86.rs`, `aarch64.rs`).

use super::twin::{Arithmetic, Number};
use crate::bench::Values;

/// Eight tiles of AMX, or 32 registers of 64 bytes and more.
const ACCUMULATOR_BYTES: usize = 8 * 1024;
/// One tile.
const FACTOR_BYTES: usize = 1024;

/// Nothing flushed, nothing trapped, round to nearest: Intel SDM vol. 1, 10.2.3.
const MXCSR_DEFAULT: u32 = 0x1f80;

/// What a kernel reads and writes.
#[repr(C, align(64))]
pub(super) struct Frame {
    /// Accumulators, one after the other without gaps.
    pub(super) accumulators: [u8; ACCUMULATOR_BYTES],
    /// The left factors, and what the additions of a mix add.
    pub(super) a: [u8; FACTOR_BYTES],
    /// The right factors.
    pub(super) b: [u8; FACTOR_BYTES],
    /// Palette and shapes for `ldtilecfg`.
    pub(super) tile_config: [u8; 64],
    /// The floating-point control register that the kernel runs under.
    pub(super) control: u32,
    /// What that register held before.
    pub(super) saved_control: u32,
}

/// How the accumulators of a kernel are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) arithmetic: Arithmetic,
    pub(super) register_bytes: usize,
    pub(super) n_registers: usize,
}

impl Frame {
    /// On the heap: ten KiB.
    pub(super) fn new(layout: Layout, values: Values) -> Box<Frame> {
        assert!(layout.n_registers * layout.register_bytes <= ACCUMULATOR_BYTES);
        let mut frame = Box::new(Frame {
            accumulators: [0; ACCUMULATOR_BYTES],
            a: [0; FACTOR_BYTES],
            b: [0; FACTOR_BYTES],
            tile_config: tile_config(),
            control: MXCSR_DEFAULT,
            saved_control: 0,
        });
        let arithmetic = layout.arithmetic;
        let [left, right] = arithmetic.factors();
        for idx in 0..FACTOR_BYTES / left.bytes() {
            left.write(&mut frame.a, idx, left_factor(arithmetic, values, idx));
        }
        for idx in 0..FACTOR_BYTES / right.bytes() {
            right.write(&mut frame.b, idx, right_factor(arithmetic, values, idx));
        }
        frame.restart(layout, values);
        frame
    }

    /// Every sum as it was in the beginning.
    pub(super) fn restart(&mut self, layout: Layout, values: Values) {
        let number = layout.arithmetic.sum();
        for (register_idx, register) in self.registers_mut(layout).enumerate() {
            for sum_idx in 0..register.len() / number.bytes() {
                let start = start(layout.arithmetic, values, register_idx, sum_idx);
                number.write(register, sum_idx, start);
            }
        }
    }

    /// The accumulators, one after the other.
    pub(super) fn registers_mut(&mut self, layout: Layout) -> impl Iterator<Item = &mut [u8]> {
        let n_bytes = layout.n_registers * layout.register_bytes;
        self.accumulators[..n_bytes].chunks_exact_mut(layout.register_bytes)
    }

    /// The bits of all sums.
    pub(super) fn sums(&self, layout: Layout) -> impl Iterator<Item = u64> {
        let number = layout.arithmetic.sum();
        let n_sums = layout.n_registers * layout.register_bytes / number.bytes();
        (0..n_sums).map(move |idx| number.read(&self.accumulators, idx))
    }
}

/// Palette 1, all eight tiles of 16 rows of 64 bytes (Intel SDM vol. 1, 18.3).
fn tile_config() -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for tile_idx in 0..8 {
        config[16 + 2 * tile_idx] = 64; // bytes a row, 16 bits each
        config[48 + tile_idx] = 16; // rows
    }
    config
}

/// Full significands, so that the multiplier works. Where a sum takes several products of floats
/// they nearly cancel: 251/256 * 255/256 - 253/256 * 253/256 = -2^-14, so that each partial sum
/// is a multiple of 2^-16 and, below 256, exact in single precision, in whatever order it is
/// formed.
fn left_factor(arithmetic: Arithmetic, values: Values, idx: usize) -> u64 {
    let [number, _] = arithmetic.factors();
    let is_horner = matches!(arithmetic, Arithmetic::Horner(_));
    let ordinary = match number {
        // So near 1 that the sum nears its limit over thousands of steps.
        Number::Fp64 | Number::Fp32 if is_horner => 0.999_755_86,
        Number::Fp64 => 0.731_058_578_630_004_9,
        Number::Fp32 => 0.731_058_6,
        Number::Fp16 if arithmetic.depth() == 1 => 0.731,
        Number::Bf16 | Number::Fp16 => [255.0 / 256.0, -253.0 / 256.0][idx % 2],
        Number::Int32 | Number::Int16 => [-32603.0, 28411.0][idx % 2],
        Number::Int8 => [-125.0, 113.0, 101.0, 119.0][idx % 4],
        Number::Uint8 => [251.0, 127.0, 249.0, 131.0][idx % 4],
    };
    match values {
        Values::Zero if !is_horner => 0,
        Values::Subnormal if !is_horner => 1,
        Values::Infinite if !is_horner => number.bits(f64::INFINITY),
        Values::NotANumber if !is_horner => number.bits(f64::NAN),
        Values::Ordinary
        | Values::Zero
        | Values::Subnormal
        | Values::Infinite
        | Values::NotANumber => number.bits(ordinary),
    }
}

/// The right factors; of a Horner step, what it adds.
fn right_factor(arithmetic: Arithmetic, values: Values, idx: usize) -> u64 {
    let [_, number] = arithmetic.factors();
    let is_horner = matches!(arithmetic, Arithmetic::Horner(_));
    let ordinary = match number {
        // Products of these whose own rounding shows within 400 sums.
        Number::Fp64 => 0.462_117_157_260_010_5,
        Number::Fp32 => 0.462_117_88,
        Number::Fp16 if arithmetic.depth() == 1 => 0.4624,
        Number::Bf16 | Number::Fp16 => [251.0 / 256.0, 253.0 / 256.0][idx % 2],
        Number::Int32 | Number::Int16 => [31337.0, -29989.0][idx % 2],
        Number::Int8 | Number::Uint8 => [-57.0, 119.0, 61.0, -43.0][idx % 4],
    };
    match (values, is_horner) {
        (Values::Ordinary | Values::Zero, false) => number.bits(ordinary),
        // Below half of the smallest spacing: a subnormal sum stays one however often it is added.
        (Values::Subnormal, false) => number.bits(0.25),
        (Values::Infinite | Values::NotANumber, false) => number.bits(1.0),
        (Values::Ordinary, true) => number.bits(ordinary),
        (Values::Zero, true) => 0,
        (Values::Subnormal, true) => 1,
        (Values::Infinite, true) => number.bits(f64::INFINITY),
        (Values::NotANumber, true) => number.bits(f64::NAN),
    }
}

/// What a sum begins with: a value of its own. That of a float is a multiple of 2^-15 but none of
/// 2^-14, in which the sums of several products move, so that they never come to rest at zero.
fn start(arithmetic: Arithmetic, values: Values, register_idx: usize, sum_idx: usize) -> u64 {
    let number = arithmetic.sum();
    match values {
        Values::Zero => 0,
        Values::Subnormal => 1 + register_idx as u64,
        Values::Ordinary | Values::Infinite | Values::NotANumber if number.is_float() => {
            // Horner multiplies its sum, and infinity times zero is no infinity.
            let own = register_idx as f64 / 8.0 + sum_idx as f64 / 256.0;
            number.bits(1.0 + own + 2f64.powi(-15))
        }
        Values::Ordinary | Values::Infinite | Values::NotANumber => {
            number.bits((1_000_003 * register_idx + 7919 * sum_idx) as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arithmetic whose twin takes sums for exact must be given sums that are.
    #[test]
    fn several_products_of_floats_add_up_exactly_in_any_order() {
        let check = |arithmetic: Arithmetic| {
            let [left, right] = arithmetic.factors();
            let product = |idx| {
                let a = left.value(left_factor(arithmetic, Values::Ordinary, idx));
                a * right.value(right_factor(arithmetic, Values::Ordinary, idx))
            };
            let pair = product(0) + product(1);
            assert!((pair + 2f64.powi(-14)).abs() < 1e-15, "{arithmetic:?}");
            for part in [product(0), product(1), pair] {
                assert!((part * 65536.0).fract().abs() < 1e-15, "{arithmetic:?}");
            }
            for (register_idx, sum_idx) in [(0, 0), (23, 15), (5, 255)] {
                let start = start(arithmetic, Values::Ordinary, register_idx, sum_idx);
                let n_pairs = arithmetic.sum().value(start) / 2f64.powi(-14);
                assert!((n_pairs.fract() - 0.5).abs() < 1e-15, "comes to rest at zero");
            }
        };
        check(Arithmetic::PairBf16);
        check(Arithmetic::DotBf16);
        check(Arithmetic::MatrixBf16);
        check(Arithmetic::Tile(Number::Bf16));
        check(Arithmetic::Tile(Number::Fp16));
    }

    #[test]
    fn values_are_what_they_are_called() {
        use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
        let check = |values: Values, expected_factor, expected_start| {
            type Classify = fn(u64) -> std::num::FpCategory;
            let numbers: [(Number, Classify); 2] = [
                (Number::Fp64, |bits| f64::from_bits(bits).classify()),
                (Number::Fp32, |bits| f32::from_bits(bits as u32).classify()),
            ];
            for (number, classify) in numbers {
                let fused = Arithmetic::Fused(number);
                assert_eq!(classify(left_factor(fused, values, 3)), expected_factor);
                assert_eq!(classify(start(fused, values, 2, 1)), expected_start);
            }
        };
        check(Values::Ordinary, Normal, Normal);
        check(Values::Zero, Zero, Zero);
        check(Values::Subnormal, Subnormal, Subnormal);
        check(Values::Infinite, Infinite, Normal);
        check(Values::NotANumber, Nan, Normal);
    }

    #[test]
    fn restarting_undoes_a_run() {
        let arithmetic = Arithmetic::Fused(Number::Fp32);
        let layout = Layout { arithmetic, register_bytes: 32, n_registers: 12 };
        let mut frame = Frame::new(layout, Values::Ordinary);
        let before: Vec<u64> = frame.sums(layout).collect();
        assert_eq!(before.len(), 96);
        frame.accumulators.fill(0xaa);
        frame.restart(layout, Values::Ordinary);
        assert!(frame.sums(layout).eq(before));
    }
}
