//! The way back of [`super::avx2`]: packed codes of 4, 6, 8 or 16 bits -> binary32.
//!
//! Codes of 4 bits are looked up. Those of 6 and 8 become FP16's with another bias, by shifts; after
//! F16C has widened them, one multiplication by a power of two makes up for it. (Putting them where
//! binary32 has its fields needs fewer steps, but meets subnormals, after which Zen 3 halts.) Not
//! here: special values, which go to [`Decoder::careful_value`].

use super::decoder::Decoder;
use super::mx;
use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_cvtsi32_si128, _mm_set_epi64x, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_cmpgt_epi16, _mm256_cvtph_ps,
    _mm256_extract_epi64, _mm256_extracti128_si256, _mm256_max_epi16, _mm256_movemask_epi8,
    _mm256_mul_ps, _mm256_mullo_epi16, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setr_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_sra_epi16,
    _mm256_srli_epi16, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};

/// Elements at a time: an MX block.
const GROUP: usize = 32;

/// Codes of 4, 6 or 8 bits, and their scales if they have some; [`Decoder::is_plain`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn decode_bytes(
    decoder: &Decoder,
    bits: u16,
    scales: Option<&[u8]>,
    src: &[u8],
    dst: &mut [f32],
) {
    match (bits, scales) {
        (4, None) => decode_nibbles::<false>(decoder, &[], src, dst),
        (4, Some(scales)) => decode_nibbles::<true>(decoder, scales, src, dst),
        (6, None) => decode_bytes_as::<6, false>(decoder, &[], src, dst),
        (6, Some(scales)) => decode_bytes_as::<6, true>(decoder, scales, src, dst),
        (_, None) => decode_bytes_as::<8, false>(decoder, &[], src, dst),
        (_, Some(scales)) => decode_bytes_as::<8, true>(decoder, scales, src, dst),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn decode_nibbles<const SCALED: bool>(
    decoder: &Decoder,
    scales: &[u8],
    src: &[u8],
    dst: &mut [f32],
) {
    // The lower half of each value's bits is zero.
    let upper: [u32; 16] = std::array::from_fn(|code| decoder.careful_value(code as u32).to_bits());
    let [high, low] = [24, 16].map(|shift| upper.map(|bits| (bits >> shift) as u8));
    let tables = [broadcast(&low), broadcast(&high)];
    // Where 32 bits come to hold elements n and n + 8: the bytes with these two, twice. Below, from
    // the lower two bytes the lower halves are taken, from the upper the upper: elements n + 1.
    let order = _mm256_setr_epi32(
        0x0400_0400,
        0x0501_0501,
        0x0c08_0c08,
        0x0d09_0d09,
        0x0602_0602,
        0x0703_0703,
        0x0e0a_0e0a,
        0x0f0b_0f0b,
    );
    let (lower, upper) = (_mm256_set1_epi32(0x0f0f), _mm256_set1_epi32(0x0f0f_0000));
    let second = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let groups = src.as_chunks::<{ GROUP / 2 }>().0.iter().zip(dst.as_chunks_mut::<GROUP>().0);
    for (idx, (src, dst)) in groups.enumerate() {
        let bytes = _mm256_shuffle_epi8(broadcast(src), order);
        let shifted = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), upper);
        let codes = _mm256_or_si256(_mm256_and_si256(bytes, lower), shifted);
        let [low, high] = tables.map(|table| _mm256_shuffle_epi8(table, codes));
        let pairs = [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)];
        let scale = _mm256_set1_ps(if SCALED { mx::scale_value(scales[idx]) } else { 1.0 });
        for (pair, dst) in pairs.into_iter().zip(dst.as_chunks_mut::<16>().0) {
            let values = [_mm256_slli_epi32::<16>(pair), _mm256_and_si256(pair, second)];
            for (value, dst) in values.into_iter().zip(dst.as_chunks_mut().0) {
                let value = _mm256_castsi256_ps(value);
                store(if SCALED { _mm256_mul_ps(value, scale) } else { value }, dst);
            }
        }
        if SCALED && scales[idx] == mx::NAN_SCALE {
            dst.fill(f32::NAN);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn decode_bytes_as<const BITS: usize, const SCALED: bool>(
    decoder: &Decoder,
    scales: &[u8],
    src: &[u8],
    dst: &mut [f32],
) {
    let lanes = Lanes::new::<BITS>(decoder);
    let src = src.chunks_exact(BITS * GROUP / 8);
    for (idx, (src, dst)) in src.zip(dst.as_chunks_mut::<GROUP>().0).enumerate() {
        let scale = if SCALED { mx::scale_value(scales[idx]) } else { 1.0 };
        if scale.is_nan() {
            dst.fill(f32::NAN);
            continue;
        }
        if BITS == 8 && lanes.has_special(src) {
            for (dst, code) in dst.iter_mut().zip(src) {
                *dst = decoder.careful_value(u32::from(*code)) * scale;
            }
            continue;
        }
        let scale = _mm256_set1_ps(scale);
        let (dst, _) = dst.as_chunks_mut();
        for idx in 0..2 {
            let halves = lanes.halves::<BITS>(src, idx);
            let first = _mm256_castsi256_si128(halves);
            let second = _mm256_extracti128_si256::<1>(halves);
            for (half, dst) in [first, second].into_iter().zip(&mut dst[2 * idx..]) {
                let value = _mm256_mul_ps(_mm256_cvtph_ps(half), lanes.factor);
                store(if SCALED { _mm256_mul_ps(value, scale) } else { value }, dst);
            }
        }
    }
}

/// A [`Decoder`], spread over lanes.
struct Lanes {
    /// For each half of a group: which bytes of the source go where.
    bytes: [__m256i; 2],
    /// What brings a code of 6 bits to the top.
    left: __m256i,
    right: __m128i,
    mask: __m256i,
    factor: __m256,
    most: __m256i,
    minus_zero: __m256i,
}

impl Lanes {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn new<const BITS: usize>(decoder: &Decoder) -> Lanes {
        let field = decoder.magnitude_mask << (decoder.n_dropped - 13);
        let minus_zero = if decoder.has_minus_zero_nan() { 0xff } else { 0 };
        Lanes {
            bytes: [source_bytes::<BITS>(0), source_bytes::<BITS>(1)],
            left: _mm256_set1_epi64x(1 << 10 | 1 << (16 + 4) | 1 << (32 + 6) | 1 << (48 + 8)),
            right: _mm_cvtsi32_si128(5 - decoder.exponent_bits() as i32),
            mask: _mm256_set1_epi16((field | 0x8000) as i16),
            factor: _mm256_set1_ps(decoder.half_factor()),
            most: _mm256_set1_epi8(decoder.max as i8),
            minus_zero: _mm256_set1_epi8(minus_zero as u8 as i8),
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn has_special(&self, src: &[u8]) -> bool {
        let codes = load_bytes(src);
        let magnitudes = _mm256_and_si256(codes, _mm256_set1_epi8(0x7f));
        let is_above = _mm256_cmpgt_epi8(magnitudes, self.most);
        let is_minus_zero = _mm256_cmpeq_epi8(codes, _mm256_set1_epi8(i8::MIN));
        let is_special =
            _mm256_or_si256(is_above, _mm256_and_si256(is_minus_zero, self.minus_zero));
        _mm256_movemask_epi8(is_special) != 0
    }

    /// Half a group in the fields of FP16.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn halves<const BITS: usize>(&self, src: &[u8], idx: usize) -> __m256i {
        // The last 12 bytes of 24 are in the last 16.
        let first = if BITS == 8 { 16 * idx } else { 8 * idx };
        let bytes = _mm256_shuffle_epi8(broadcast(&src[first..]), self.bytes[idx]);
        let at_top = if BITS == 8 { bytes } else { _mm256_mullo_epi16(bytes, self.left) };
        _mm256_and_si256(_mm256_sra_epi16(at_top, self.right), self.mask)
    }
}

/// For [`Lanes::halves`], of 16 bytes that are in both halves of a vector: a code of 8 bits to the
/// upper byte of each word, or the two bytes that hold one of 6.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn source_bytes<const BITS: usize>(half: usize) -> __m256i {
    let word = |idx: usize| {
        if BITS == 8 {
            return u16::from_le_bytes([0x80, idx as u8]);
        }
        let first = 4 * half + idx * 6 / 8;
        u16::from_le_bytes([first as u8, (first + 1).min(15) as u8])
    };
    let four = |first: usize| {
        let words = [first, first + 1, first + 2, first + 3].map(word);
        words.into_iter().rev().fold(0, |four, word| four << 16 | i64::from(word))
    };
    _mm256_setr_epi64x(four(0), four(4), four(8), four(12))
}

/// FP16 and BF16, or what differs from them only in what is special.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn decode_words(decoder: &Decoder, src: &[u8], dst: &mut [f32]) {
    if decoder.n_dropped == 13 {
        decode_words_as::<true>(decoder, src, dst);
    } else {
        decode_words_as::<false>(decoder, src, dst);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn decode_words_as<const HALF: bool>(decoder: &Decoder, src: &[u8], dst: &mut [f32]) {
    // A word to the top of each lane; zeros below.
    let lane = |idx: i32| (2 * idx + 1) << 24 | (2 * idx) << 16 | 0x8080;
    let words = [lane(0), lane(1), lane(2), lane(3), lane(4), lane(5), lane(6), lane(7)];
    let [a, b, c, d, e, f, g, h] = words;
    let words = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
    let most = _mm256_set1_epi16(decoder.max as i16);
    for (src, dst) in src.as_chunks::<{ 2 * GROUP }>().0.iter().zip(dst.as_chunks_mut::<GROUP>().0)
    {
        let mut worst = _mm256_setzero_si256();
        for src in src.as_chunks::<32>().0 {
            let magnitudes = _mm256_and_si256(load_bytes(src), _mm256_set1_epi16(i16::MAX));
            worst = _mm256_max_epi16(worst, magnitudes);
        }
        if _mm256_movemask_epi8(_mm256_cmpgt_epi16(worst, most)) != 0 {
            for (dst, word) in dst.iter_mut().zip(src.as_chunks::<2>().0) {
                *dst = decoder.careful_value(u16::from_le_bytes(*word).into());
            }
            continue;
        }
        for (src, dst) in src.as_chunks::<16>().0.iter().zip(dst.as_chunks_mut().0) {
            if HALF {
                store(_mm256_cvtph_ps(load_half(src)), dst);
            } else {
                let values = _mm256_shuffle_epi8(broadcast(src), words);
                store(_mm256_castsi256_ps(values), dst);
            }
        }
    }
}

/// The first 16 bytes, in both halves.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn broadcast(src: &[u8]) -> __m256i {
    _mm256_broadcastsi128_si256(load_half(src))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load_half(src: &[u8]) -> __m128i {
    let words = src[..16].as_chunks().0;
    _mm_set_epi64x(i64::from_le_bytes(words[1]), i64::from_le_bytes(words[0]))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(crate) fn load_bytes(src: &[u8]) -> __m256i {
    let words = src[..32].as_chunks().0;
    let [a, b, c, d] = [words[0], words[1], words[2], words[3]].map(i64::from_le_bytes);
    _mm256_setr_epi64x(a, b, c, d)
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn store(lanes: __m256, dst: &mut [f32; 8]) {
    let lanes = _mm256_castps_si256(lanes);
    let words = [
        _mm256_extract_epi64::<0>(lanes),
        _mm256_extract_epi64::<1>(lanes),
        _mm256_extract_epi64::<2>(lanes),
        _mm256_extract_epi64::<3>(lanes),
    ];
    for (dst, word) in dst.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        *dst = [f32::from_bits(word as u32), f32::from_bits((word >> 32) as u32)];
    }
}
