//! The conversions most asked for, by x86-64's AVX2, FMA and F16C.
//!
//! The same steps as [`super::kernel`]'s, in an order and with packing that compilers do not find:
//! twice their speed on Zen 3. Not here: tails, other widths, and special values, which go to
//! [`lanes`].

use super::avx2_decode::load_bytes;
use super::kernel::Kernel;
use super::lanes::{self, N};
use super::mx::{self, Scaling};
use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_cvtsi32_si128,
    _mm_cvtsi128_si32, _mm_max_epi32, _mm_setr_epi8, _mm_shuffle_epi32, _mm256_add_epi32,
    _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_ps, _mm256_broadcastsi128_si256,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps,
    _mm256_cmpeq_epi8, _mm256_cvtps_ph, _mm256_extract_epi64, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_epi32, _mm256_max_epu8,
    _mm256_max_ps, _mm256_min_epi32, _mm256_min_ps, _mm256_movemask_epi8, _mm256_movemask_ps,
    _mm256_mul_ps, _mm256_or_ps, _mm256_or_si256, _mm256_packs_epi16, _mm256_packs_epi32,
    _mm256_packus_epi16, _mm256_packus_epi32, _mm256_permute4x64_epi64,
    _mm256_permutevar8x32_epi32, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setr_epi64x, _mm256_setr_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srl_epi16,
    _mm256_srli_epi32,
};

/// Codes of 4, 6 or 8 bits; [`Kernel::is_plain`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn encode_bytes(kernel: &Kernel, bits: u16, src: &[f32], dst: &mut [u8]) {
    match (bits, kernel.has_minus_zero) {
        (4, _) => encode_bytes_as::<4, true>(kernel, src, dst),
        (6, _) => encode_bytes_as::<6, true>(kernel, src, dst),
        (_, true) => encode_bytes_as::<8, true>(kernel, src, dst),
        (_, false) => encode_bytes_as::<8, false>(kernel, src, dst),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn encode_bytes_as<const BITS: usize, const MINUS_ZERO: bool>(
    kernel: &Kernel,
    src: &[f32],
    dst: &mut [u8],
) {
    let lanes = Lanes::new(kernel);
    let mut chunks = src.as_chunks::<N>().0.iter().zip(dst.chunks_exact_mut(BITS * N / 8));
    while let Some((src, dst)) = encode_calm::<BITS, MINUS_ZERO>(kernel, &lanes, &mut chunks) {
        let mut bytes = [0; N];
        lanes::careful_codes(kernel, src, &mut bytes);
        put::<BITS>([load_bytes(&bytes[..32]), load_bytes(&bytes[32..])], dst);
    }
}

/// Up to a chunk that holds something special, which is returned. A loop of its own, as one that
/// calls nothing keeps its constants in registers.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn encode_calm<'a, const BITS: usize, const MINUS_ZERO: bool>(
    kernel: &Kernel,
    lanes: &Lanes,
    chunks: &mut impl Iterator<Item = (&'a [f32; N], &'a mut [u8])>,
) -> Option<(&'a [f32; N], &'a mut [u8])> {
    for (src, dst) in chunks {
        let halves = src.as_chunks().0;
        let (first, first_most) = lanes.codes::<MINUS_ZERO, false>(&halves[0], 1.0);
        let (second, second_most) = lanes.codes::<MINUS_ZERO, false>(&halves[1], 1.0);
        // NaN and infinity round to the last code, as large values do: so only then look closer.
        let most = _mm256_max_epu8(first_most, second_most);
        let suspects = _mm256_cmpeq_epi8(most, lanes.suspect);
        if _mm256_movemask_epi8(suspects) != 0 && !kernel.is_calm(src) {
            return Some((src, dst));
        }
        put::<BITS>([first, second], dst);
    }
    None
}

/// Packs a chunk.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn put<const BITS: usize>(codes: [__m256i; 2], dst: &mut [u8]) {
    match BITS {
        4 => {
            let weights = _mm256_set1_epi16(0x1001);
            let [first, second] = codes.map(|codes| _mm256_maddubs_epi16(codes, weights));
            let packed = _mm256_packus_epi16(first, second);
            store(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed), &mut dst.as_chunks_mut().0[0]);
        }
        6 => {
            // Pairs to 12 bits, fours to 24 of 32.
            let (to_pair, to_four) = (_mm256_set1_epi16(0x4001), _mm256_set1_epi32(0x1000_0001));
            let three_of_four = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
            ));
            let order = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
            for (codes, dst) in codes.into_iter().zip(dst.as_chunks_mut::<24>().0) {
                let fours = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, to_pair), to_four);
                let packed = _mm256_shuffle_epi8(fours, three_of_four);
                let packed = _mm256_permutevar8x32_epi32(packed, order);
                let mut bytes = [0; 32];
                store(packed, &mut bytes);
                dst.copy_from_slice(&bytes[..24]);
            }
        }
        _ => {
            for (codes, dst) in codes.into_iter().zip(dst.as_chunks_mut().0) {
                store(codes, dst);
            }
        }
    }
}

/// MX blocks with elements of 4, 6 or 8 bits: two blocks at a time.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn encode_mx(
    (kernel, scaling): (&Kernel, &Scaling),
    bits: u16,
    src: &[f32],
    scales: &mut [u8],
    dst: &mut [u8],
) {
    match bits {
        4 => encode_mx_as::<4>((kernel, scaling), src, scales, dst),
        6 => encode_mx_as::<6>((kernel, scaling), src, scales, dst),
        _ => encode_mx_as::<8>((kernel, scaling), src, scales, dst),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn encode_mx_as<const BITS: usize>(
    (kernel, scaling): (&Kernel, &Scaling),
    src: &[f32],
    scales: &mut [u8],
    dst: &mut [u8],
) {
    let lanes = Lanes::new(kernel);
    let dst = dst.chunks_exact_mut(BITS * N / 8);
    let blocks = src.as_chunks::<N>().0.iter().zip(scales.as_chunks_mut::<2>().0);
    for ((src, scales), dst) in blocks.zip(dst) {
        let halves = src.as_chunks().0;
        let largest = [largest(&halves[0]), largest(&halves[1])];
        *scales = largest.map(|largest| scaling.code(largest));
        let codes = if largest[0].max(largest[1]) < f32::INFINITY.to_bits() {
            let (first, _) = lanes.codes::<true, true>(&halves[0], mx::inverse(scales[0]));
            let (second, _) = lanes.codes::<true, true>(&halves[1], mx::inverse(scales[1]));
            [first, second]
        } else {
            let mut bytes = [0; N];
            for ((src, scale), dst) in halves.iter().zip(&*scales).zip(bytes.as_chunks_mut().0) {
                mx::encode_special(kernel, *scale, src, dst);
            }
            [load_bytes(&bytes[..32]), load_bytes(&bytes[32..])]
        };
        put::<BITS>(codes, dst);
    }
}

/// The bits of the largest magnitude.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn largest(src: &[f32; 32]) -> u32 {
    let src = src.as_chunks().0;
    let four = [&src[0], &src[1], &src[2], &src[3]].map(|src| magnitude(load(src)));
    let two = [_mm256_max_epi32(four[0], four[1]), _mm256_max_epi32(four[2], four[3])];
    let eight = _mm256_max_epi32(two[0], two[1]);
    let four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two))) as u32
}

/// A [`Kernel`] of an anchored format, spread over lanes.
struct Lanes {
    clamp: __m256i,
    lowest: __m256i,
    weights: __m256i,
    upper_weights: __m256i,
    evens_first: __m256i,
    n_spare: __m128i,
    scale: __m256,
    scale_if_negative: __m256,
    suspect: __m256i,
    sign: __m256i,
    order: __m256i,
}

impl Lanes {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new(kernel: &Kernel) -> Lanes {
        // Instead of adding the anchor's parts, multiply the binade by them: `2^n_dropped`, and in
        // its last 16 bits what is to be taken from the sum of the sum's own exponent and those.
        let scale = (127 + kernel.n_dropped) << 23;
        let lift = 0x1_0000 - kernel.excess();
        // The upper half of a sum holds the exponent from bit 7.
        let n_spare = 7 - kernel.n_kept();
        Lanes {
            clamp: _mm256_set1_epi32(kernel.clamp),
            lowest: _mm256_set1_epi32(kernel.lowest),
            weights: _mm256_set1_epi32(1 << 16 | 1 << n_spare),
            upper_weights: _mm256_set1_epi32(1 << (16 + 8 - n_spare) | 1 << 8),
            evens_first: _mm256_broadcastsi128_si256(_mm_setr_epi8(
                0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,
            )),
            n_spare: _mm_cvtsi32_si128(n_spare as i32),
            scale: _mm256_set1_ps(f32::from_bits(scale | lift)),
            scale_if_negative: _mm256_set1_ps(f32::from_bits(scale | (lift + kernel.sign_mask))),
            suspect: _mm256_set1_epi8(kernel.clamp_code() as i8),
            sign: _mm256_set1_epi8(kernel.sign_mask as i8),
            order: _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7),
        }
    }

    /// The codes of 32 calm sources, in order, each source multiplied first if it is to be; and the
    /// codes of their magnitudes, in none.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn codes<const MINUS_ZERO: bool, const SCALED: bool>(
        &self,
        src: &[f32; 32],
        factor: f32,
    ) -> (__m256i, __m256i) {
        let src = src.as_chunks().0;
        let factor = _mm256_set1_ps(factor);
        let times = |x| if SCALED { _mm256_mul_ps(x, factor) } else { x };
        let (x0, x1) = (times(load(&src[0])), times(load(&src[1])));
        let (x2, x3) = (times(load(&src[2])), times(load(&src[3])));
        let lower = |x| _mm256_madd_epi16(self.sum::<MINUS_ZERO>(x), self.weights);
        let upper = |x| _mm256_madd_epi16(self.sum::<MINUS_ZERO>(x), self.upper_weights);
        let even = _mm256_srl_epi16(_mm256_packus_epi32(lower(x0), lower(x1)), self.n_spare);
        let odd = _mm256_packus_epi32(upper(x2), upper(x3));
        let packed = _mm256_shuffle_epi8(_mm256_or_si256(even, odd), self.evens_first);
        let (codes, magnitudes) = if MINUS_ZERO {
            (packed, _mm256_andnot_si256(self.sign, packed))
        } else {
            let bits = |x| _mm256_castps_si256(x);
            let signs = _mm256_packs_epi16(
                _mm256_packs_epi32(bits(x0), bits(x1)),
                _mm256_packs_epi32(bits(x2), bits(x3)),
            );
            let is_zero = _mm256_cmpeq_epi8(packed, _mm256_setzero_si256());
            let signs = _mm256_andnot_si256(is_zero, _mm256_and_si256(signs, self.sign));
            (_mm256_or_si256(packed, signs), packed)
        };
        (_mm256_permutevar8x32_epi32(codes, self.order), magnitudes)
    }

    /// [`Kernel::code`] times the lower weight; without the sign if minus zero has no code.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn sum<const MINUS_ZERO: bool>(&self, x: __m256) -> __m256i {
        let infinity = _mm256_castps_si256(_mm256_set1_ps(f32::INFINITY));
        let magnitude = _mm256_min_epi32(magnitude(x), self.clamp);
        let binade = _mm256_max_epi32(_mm256_and_si256(magnitude, infinity), self.lowest);
        let scale = if MINUS_ZERO {
            _mm256_blendv_ps(self.scale, self.scale_if_negative, x)
        } else {
            self.scale
        };
        let magnitude = _mm256_castsi256_ps(magnitude);
        let sum = _mm256_fmadd_ps(_mm256_castsi256_ps(binade), scale, magnitude);
        _mm256_castps_si256(sum)
    }
}

/// FP16 and BF16.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn encode_words(kernel: &Kernel, src: &[f32], dst: &mut [u8]) {
    let limit = f32::from_bits(kernel.clamp as u32);
    match (kernel.n_dropped, limit) {
        (13, 65536.0) => encode_words_as::<true, false>(kernel, src, dst),
        (13, _) => encode_words_as::<true, true>(kernel, src, dst),
        (_, f32::INFINITY) => encode_words_as::<false, false>(kernel, src, dst),
        (_, _) => encode_words_as::<false, true>(kernel, src, dst),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn encode_words_as<const HALF: bool, const CLAMPED: bool>(
    kernel: &Kernel,
    src: &[f32],
    dst: &mut [u8],
) {
    if f32::INFINITY.to_bits() <= kernel.calm_code {
        encode_words_calm::<HALF, CLAMPED, false>(kernel, src, dst);
    } else {
        encode_words_calm::<HALF, CLAMPED, true>(kernel, src, dst);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn encode_words_calm<const HALF: bool, const CLAMPED: bool, const INFINITY_IS_SPECIAL: bool>(
    kernel: &Kernel,
    src: &[f32],
    dst: &mut [u8],
) {
    let limit = f32::from_bits(kernel.clamp as u32);
    let (least, most) = (_mm256_set1_ps(-limit), _mm256_set1_ps(limit));
    let zero = _mm256_setzero_ps();
    let mut chunks = src.as_chunks::<N>().0.iter().zip(dst.as_chunks_mut::<{ 2 * N }>().0);
    // As with `encode_calm`, the loop within calls nothing.
    while let Some((src, dst)) = chunks.find_map(|(src, dst)| {
        let mut worst = zero;
        for (src, dst) in src.as_chunks::<16>().0.iter().zip(dst.as_chunks_mut().0) {
            let src = src.as_chunks().0;
            let (x0, x1) = (load(&src[0]), load(&src[1]));
            // Zero times infinity is NaN.
            let marked = |x| if INFINITY_IS_SPECIAL { _mm256_mul_ps(x, zero) } else { x };
            let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(marked(x0), marked(x1));
            worst = _mm256_or_ps(worst, is_nan);
            let clamp = |x| if CLAMPED { _mm256_max_ps(least, _mm256_min_ps(most, x)) } else { x };
            let (x0, x1) = (clamp(x0), clamp(x1));
            store(if HALF { halves(x0, x1) } else { brains(x0, x1) }, dst);
        }
        (_mm256_movemask_ps(worst) != 0).then_some((src, dst))
    }) {
        let mut words = [0; N];
        lanes::careful_codes(kernel, src, &mut words);
        lanes::put_words(&words, dst);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn halves(x0: __m256, x1: __m256) -> __m256i {
    let half = |x| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
    _mm256_set_m128i(half(x1), half(x0))
}

/// By integers: VCVTNEPS2BF16 would flush subnormals.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn brains(x0: __m256, x1: __m256) -> __m256i {
    let round = |x| {
        let x = _mm256_castps_si256(x);
        let is_odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), _mm256_set1_epi32(1));
        let sum = _mm256_add_epi32(x, _mm256_set1_epi32(0x7fff));
        _mm256_add_epi32(sum, is_odd)
    };
    // Upper halves to the first or the last eight bytes.
    let first = _mm256_setr_epi64x(0x0f0e_0b0a_0706_0302, -1, 0x0f0e_0b0a_0706_0302, -1);
    let last = _mm256_setr_epi64x(-1, 0x0f0e_0b0a_0706_0302, -1, 0x0f0e_0b0a_0706_0302);
    let (first, last) =
        (_mm256_shuffle_epi8(round(x0), first), _mm256_shuffle_epi8(round(x1), last));
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_or_si256(first, last))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn magnitude(x: __m256) -> __m256i {
    _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX))
}

/// One instruction, as is [`store`]; the intrinsics for it take pointers.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load(src: &[f32; 8]) -> __m256 {
    let [a, b, c, d, e, f, g, h] = *src;
    _mm256_setr_ps(a, b, c, d, e, f, g, h)
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn store(lanes: __m256i, dst: &mut [u8; 32]) {
    let words = [
        _mm256_extract_epi64::<0>(lanes),
        _mm256_extract_epi64::<1>(lanes),
        _mm256_extract_epi64::<2>(lanes),
        _mm256_extract_epi64::<3>(lanes),
    ];
    for (dst, word) in dst.as_chunks_mut().0.iter_mut().zip(words) {
        *dst = word.to_le_bytes();
    }
}
