//! The matrices of a product, row-major, of random numbers; and the naive product that tells
//! whether a library multiplied them right.
//!
//! Not here: who multiplies.

use crate::bench::{ElementFormat, Unmeasurable};
use crate::cpu::os;
use std::alloc::Layout as Allocation;
use std::ptr::NonNull;

/// One huge page; operands this large or larger begin on one.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Operands begin on a cache line.
const LINE_BYTES: usize = 64;
/// Entries of C compared with the naive product, corners among them.
const N_VERIFIED: usize = 36;
/// Where nothing was written: NaN as a float, -1 as an integer.
const UNWRITTEN: u8 = 0xFF;

/// The sizes of C = A x B; rows of each matrix are `padding` elements longer than they need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// What the factors are.
    pub(super) format: ElementFormat,
    /// Rows of A and C.
    pub(super) m: usize,
    /// Columns of B and C.
    pub(super) n: usize,
    /// Columns of A, rows of B.
    pub(super) k: usize,
    /// Elements between the end of one row and the start of the next.
    pub(super) padding: usize,
}

impl Layout {
    /// From one row of A to the next, in elements.
    pub(super) fn a_stride(&self) -> usize {
        self.k + self.padding
    }

    /// From one row of B or C to the next, in elements.
    pub(super) fn b_stride(&self) -> usize {
        self.n + self.padding
    }

    /// Bytes of A, B and C together; `None` if there is no such number.
    pub(super) fn n_bytes(&self) -> Option<usize> {
        let matrix = |n_rows: usize, n_columns: usize, element: u64| {
            let stride = n_columns.checked_add(self.padding)?;
            n_rows.checked_mul(stride)?.checked_mul(element as usize)
        };
        let factor_bytes = self.format.bytes();
        let a = matrix(self.m, self.k, factor_bytes)?;
        let b = matrix(self.k, self.n, factor_bytes)?;
        let c = matrix(self.m, self.n, self.format.sum_bytes())?;
        let total = a.checked_add(b)?.checked_add(c)?;
        isize::try_from(total).ok()?;
        Some(total)
    }

    /// Operations of one product, two a multiply-add.
    pub(super) fn n_operations(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }
}

/// Bytes on huge pages where they can be had.
struct Buffer {
    start: NonNull<u8>,
    allocation: Allocation,
}

// SAFETY: it owns its bytes alone, like a `Vec<u8>`.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(n_bytes: usize) -> Result<Buffer, Unmeasurable> {
        let align = if HUGE_PAGE_BYTES <= n_bytes { HUGE_PAGE_BYTES } else { LINE_BYTES };
        let no_memory = || Unmeasurable(format!("no memory for a matrix of {n_bytes} bytes"));
        // A library may read its last vector whole: a line more than the matrix is ours.
        let size = n_bytes.checked_add(LINE_BYTES).ok_or_else(no_memory)?;
        let allocation = Allocation::from_size_align(size, align).map_err(|_| no_memory())?;
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc(allocation) };
        let start = NonNull::new(start).ok_or_else(no_memory)?;
        if HUGE_PAGE_BYTES <= n_bytes {
            os::wish_for_huge_pages(start.as_ptr(), size);
        }
        // SAFETY: within the allocation.
        unsafe { start.as_ptr().write_bytes(UNWRITTEN, size) };
        Ok(Buffer { start, allocation })
    }

    fn read<const N: usize>(&self, element_idx: usize) -> [u8; N] {
        assert!((element_idx + 1) * N <= self.allocation.size());
        // SAFETY: within the allocation, whose every byte was written.
        unsafe { self.start.as_ptr().add(element_idx * N).cast::<[u8; N]>().read() }
    }

    fn write<const N: usize>(&mut self, element_idx: usize, bytes: [u8; N]) {
        assert!((element_idx + 1) * N <= self.allocation.size());
        // SAFETY: within the allocation, which is borrowed mutably.
        unsafe { self.start.as_ptr().add(element_idx * N).cast::<[u8; N]>().write(bytes) };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout, and not freed since.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.allocation) };
    }
}

/// A, B and C.
pub(super) struct Operands {
    layout: Layout,
    a: Buffer,
    b: Buffer,
    c: Buffer,
}

/// An entry of C and what it must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Expected {
    row: usize,
    column: usize,
    sum: f64,
    tolerance: f64,
}

impl Operands {
    /// Random factors; a C that was never written. The same numbers in every run.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn new(layout: Layout) -> Result<Operands, Unmeasurable> {
        let factor_bytes = layout.format.bytes() as usize;
        let a = Buffer::new(layout.m * layout.a_stride() * factor_bytes)?;
        let b = Buffer::new(layout.k * layout.b_stride() * factor_bytes)?;
        let c = Buffer::new(layout.m * layout.b_stride() * layout.format.sum_bytes() as usize)?;
        let mut operands = Operands { layout, a, b, c };
        let (a_stride, b_stride) = (layout.a_stride(), layout.b_stride());
        fill(&mut operands.a, [layout.m, layout.k, a_stride], 1, left(layout.format));
        fill(&mut operands.b, [layout.k, layout.n, b_stride], 2, right(layout.format));
        Ok(operands)
    }

    /// Where A, B and C begin.
    pub(super) fn pointers(&mut self) -> (*const u8, *const u8, *mut u8) {
        (self.a.start.as_ptr(), self.b.start.as_ptr(), self.c.start.as_ptr())
    }

    /// A sample of C's entries the slow, obvious way.
    pub(super) fn expected(&self) -> Vec<Expected> {
        let Layout { m, n, .. } = self.layout;
        let n_entries = m * n;
        let n_samples = N_VERIFIED.min(n_entries);
        let entries = (0..n_samples).map(|idx| idx * (n_entries - 1) / (n_samples.max(2) - 1));
        entries.map(|entry_idx| self.naive(entry_idx / n, entry_idx % n)).collect()
    }

    /// One entry in f64, and how far a sum in any order may be from it: k x u x sum |a||b|, u being
    /// half a unit in the last place of the sum's format (Higham 2002, "Accuracy and Stability",
    /// 3.1); twice that for a sum of pairs that are rounded first, as BF16 units do. Integers are
    /// exact.
    fn naive(&self, row: usize, column: usize) -> Expected {
        let Layout { format, k, .. } = self.layout;
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for depth in 0..k {
            let a = value(&self.a, row * self.layout.a_stride() + depth, left(format));
            let b = value(&self.b, depth * self.layout.b_stride() + column, right(format));
            sum += a * b;
            magnitude += (a * b).abs();
        }
        let half_ulp = match format {
            ElementFormat::Fp64 => f64::EPSILON,
            ElementFormat::Fp32 | ElementFormat::Bf16 | ElementFormat::Fp16 => {
                f64::from(f32::EPSILON)
            }
            ElementFormat::Int8 | ElementFormat::Int16 => 0.0,
        };
        Expected { row, column, sum, tolerance: k as f64 * half_ulp * magnitude }
    }

    /// Whether each of these entries is what it must be.
    pub(super) fn holds(&self, expected: &[Expected]) -> bool {
        expected.iter().all(|one| {
            let element_idx = one.row * self.layout.b_stride() + one.column;
            let found = match self.layout.format {
                ElementFormat::Fp64 => f64::from_ne_bytes(self.c.read(element_idx)),
                ElementFormat::Fp32 | ElementFormat::Bf16 | ElementFormat::Fp16 => {
                    f64::from(f32::from_ne_bytes(self.c.read(element_idx)))
                }
                ElementFormat::Int8 | ElementFormat::Int16 => {
                    f64::from(i32::from_ne_bytes(self.c.read(element_idx)))
                }
            };
            (found - one.sum).abs() <= one.tolerance // a NaN is not
        })
    }

    /// Forgets these entries: a product that writes nothing is then found out.
    pub(super) fn wipe(&mut self, expected: &[Expected]) {
        for one in expected {
            let element_idx = one.row * self.layout.b_stride() + one.column;
            match self.layout.format {
                ElementFormat::Fp64 => self.c.write(element_idx, [UNWRITTEN; 8]),
                ElementFormat::Fp32
                | ElementFormat::Bf16
                | ElementFormat::Fp16
                | ElementFormat::Int8
                | ElementFormat::Int16 => self.c.write(element_idx, [UNWRITTEN; 4]),
            }
        }
    }
}

/// What an element is, bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Fp64,
    Fp32,
    Bf16,
    Fp16,
    /// Unsigned, seven bits used: processors without an instruction for four products at once add
    /// two in 16 bits, and 255 x 127 x 2 would not fit (oneDNN, "Nuances of int8 computations").
    Unsigned7,
    Signed8,
    /// Nine bits used, so that a sum of thousands of products fits 32 bits.
    Signed16,
}

/// A's elements: unsigned bytes, since that is what the 8-bit instructions of x86 and all
/// libraries take.
fn left(format: ElementFormat) -> Element {
    match format {
        ElementFormat::Int8 => Element::Unsigned7,
        ElementFormat::Fp64
        | ElementFormat::Fp32
        | ElementFormat::Bf16
        | ElementFormat::Fp16
        | ElementFormat::Int16 => right(format),
    }
}

/// B's elements.
fn right(format: ElementFormat) -> Element {
    match format {
        ElementFormat::Fp64 => Element::Fp64,
        ElementFormat::Fp32 => Element::Fp32,
        ElementFormat::Bf16 => Element::Bf16,
        ElementFormat::Fp16 => Element::Fp16,
        ElementFormat::Int8 => Element::Signed8,
        ElementFormat::Int16 => Element::Signed16,
    }
}

/// Uniform in [-1, 1), or over the integers there are, in as many bits as the format holds
/// exactly: constant matrices flatter some machines. SplitMix64 (Steele, Lea, Flood 2014).
fn fill(buffer: &mut Buffer, [n_rows, n_columns, stride]: [usize; 3], seed: u64, kind: Element) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    for row in 0..n_rows {
        for at in row * stride..row * stride + n_columns {
            let random = next();
            let centred = |n_bits: u32| {
                let one = (1u64 << (n_bits - 1)) as f64;
                (random >> (64 - n_bits)) as f64 / one - 1.0
            };
            match kind {
                Element::Fp64 => buffer.write(at, centred(53).to_ne_bytes()),
                Element::Fp32 => buffer.write(at, (centred(24) as f32).to_ne_bytes()),
                Element::Bf16 => {
                    let bits = (centred(9) as f32).to_bits() >> 16; // eight bits and a sign: exact
                    buffer.write(at, (bits as u16).to_ne_bytes());
                }
                Element::Fp16 => buffer.write(at, half_bits(centred(12) as f32).to_ne_bytes()),
                Element::Unsigned7 => buffer.write(at, [(random >> 57) as u8]),
                Element::Signed8 => buffer.write(at, [(random >> 56) as u8]),
                Element::Signed16 => {
                    let value = (random >> 55) as i16 - 256;
                    buffer.write(at, value.to_ne_bytes());
                }
            }
        }
    }
}

/// The bits of a binary16 of the same value: zero or at least 2^-14, with eleven bits.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    if value.abs() < 2f32.powi(-14) {
        return sign;
    }
    let exponent = (bits >> 23 & 0xFF) as u16 + 15 - 127;
    sign | exponent << 10 | (bits >> 13 & 0x3FF) as u16
}

/// The value of a binary16 that is zero or at least 2^-14 and finite.
fn half_value(bits: u16) -> f64 {
    let magnitude = match bits & 0x7FFF {
        0 => 0.0,
        bits => {
            let significand = 1.0 + f64::from(bits & 0x3FF) / 1024.0;
            significand * 2f64.powi(i32::from(bits >> 10) - 15)
        }
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// An element's value, exactly.
fn value(buffer: &Buffer, element_idx: usize, kind: Element) -> f64 {
    match kind {
        Element::Fp64 => f64::from_ne_bytes(buffer.read(element_idx)),
        Element::Fp32 => f64::from(f32::from_ne_bytes(buffer.read(element_idx))),
        Element::Bf16 => {
            let bits = u16::from_ne_bytes(buffer.read(element_idx));
            f64::from(f32::from_bits(u32::from(bits) << 16))
        }
        Element::Fp16 => half_value(u16::from_ne_bytes(buffer.read(element_idx))),
        Element::Unsigned7 => f64::from(u8::from_ne_bytes(buffer.read(element_idx))),
        Element::Signed8 => f64::from(i8::from_ne_bytes(buffer.read(element_idx))),
        Element::Signed16 => f64::from(i16::from_ne_bytes(buffer.read(element_idx))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(format: ElementFormat, [m, n, k]: [usize; 3], padding: usize) -> Layout {
        Layout { format, m, n, k, padding }
    }

    #[test]
    fn sizes_are_counted_with_their_padding() {
        let check = |format, shape, padding, expected: Option<usize>| {
            assert_eq!(layout(format, shape, padding).n_bytes(), expected, "{format:?} {shape:?}");
        };
        check(ElementFormat::Fp32, [2, 3, 5], 0, Some(4 * (10 + 15 + 6)));
        check(ElementFormat::Int8, [2, 3, 5], 1, Some(2 * 6 + 5 * 4 + 4 * 2 * 4));
        check(ElementFormat::Fp64, [usize::MAX, 3, 5], 0, None);
        check(ElementFormat::Fp64, [1, 1, 1], usize::MAX, None);
    }

    #[test]
    fn halves_round_trip() {
        for step in -2048..2048 {
            let value = step as f32 / 2048.0;
            assert_eq!(
                half_value(half_bits(value)).to_bits() << 1,
                f64::from(value).to_bits() << 1
            );
        }
        assert_eq!((half_bits(-1.0), half_bits(0.5)), (0xBC00, 0x3800));
    }

    #[test]
    fn elements_fill_their_range_and_nothing_beside() {
        let check = |kind: Element, n_bytes: usize, low: f64, high: f64| {
            let mut buffer = Buffer::new(64 * 65 * n_bytes).unwrap();
            fill(&mut buffer, [64, 64, 65], 7, kind);
            let row = |row: usize| (row * 65..row * 65 + 64).collect::<Vec<_>>();
            let values: Vec<f64> =
                (0..64).flat_map(row).map(|at| value(&buffer, at, kind)).collect();
            let (least, most) = values
                .iter()
                .fold((f64::INFINITY, -f64::INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
            assert!(low <= least && most <= high, "{kind:?}: {least} to {most}");
            let near = 0.05 * (high - low); // of 4096 values some lie near each end
            assert!(least < low + near && high - near < most, "{kind:?}: {least} to {most}");
            for gap in (64..64 * 65).step_by(65) {
                assert!(
                    (0..n_bytes)
                        .all(|byte| { buffer.read::<1>(gap * n_bytes + byte) == [UNWRITTEN] })
                );
            }
        };
        check(Element::Fp64, 8, -1.0, 1.0);
        check(Element::Fp32, 4, -1.0, 1.0);
        check(Element::Bf16, 2, -1.0, 1.0);
        check(Element::Fp16, 2, -1.0, 1.0);
        check(Element::Unsigned7, 1, 0.0, 127.0);
        check(Element::Signed8, 1, -128.0, 127.0);
        check(Element::Signed16, 2, -256.0, 255.0);
    }

    #[test]
    fn the_naive_product_multiplies() {
        let mut operands = Operands::new(layout(ElementFormat::Fp32, [2, 2, 2], 1)).unwrap();
        let factors = [([1.0f32, 2.0, 3.0, 4.0], 0), ([5.0, 6.0, 7.0, 8.0], 1)];
        for (values, matrix) in factors {
            for (at, value) in [0, 1, 3, 4].into_iter().zip(values) {
                let buffer = if matrix == 0 { &mut operands.a } else { &mut operands.b };
                buffer.write(at, value.to_ne_bytes());
            }
        }
        let sums: Vec<f64> = operands.expected().iter().map(|one| one.sum).collect();
        assert_eq!(sums, [19.0, 22.0, 43.0, 50.0]); // [1 2; 3 4] x [5 6; 7 8]
    }

    #[test]
    fn only_a_right_and_written_result_holds() {
        for format in ElementFormat::ALL {
            let mut operands = Operands::new(layout(format, [5, 7, 9], 2)).unwrap();
            let expected = operands.expected();
            assert_eq!(expected.len(), 35.min(N_VERIFIED));
            assert!(!operands.holds(&expected), "{format:?}: nothing was written");
            for one in &expected {
                let at = one.row * operands.layout.b_stride() + one.column;
                match format.sum_bytes() {
                    8 => operands.c.write(at, one.sum.to_ne_bytes()),
                    _ if one.tolerance == 0.0 => {
                        operands.c.write(at, (one.sum as i32).to_ne_bytes());
                    }
                    _ => operands.c.write(at, (one.sum as f32).to_ne_bytes()),
                }
            }
            assert!(operands.holds(&expected), "{format:?}");
            operands.wipe(&expected[3..4]);
            assert!(!operands.holds(&expected), "{format:?}: one entry was wiped");
        }
    }
}
