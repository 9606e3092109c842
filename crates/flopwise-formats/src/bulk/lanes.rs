//! Whole chunks of elements, in plain loops that vectorise; and the choice of instructions.
//!
//! A chunk is done the fast way and, if it held something special, again the careful way. Not here:
//! tails, and what the codec must do ([`super`]).

use super::decoder::Decoder;
use super::kernel::{Kernel, way};
use super::mx::{self, Scaling};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx2_decode};
use crate::stats::direct::{BLOCK, Fast, Found};

/// Elements in a chunk: a multiple of 8, so that codes of any width end on a byte; enough to fill
/// vectors of 64 bytes with codes of 8 bits.
pub(crate) const N: usize = 64;

/// A conversion of whole chunks.
pub(crate) enum Job<'a> {
    Encode {
        kernel: &'a Kernel,
        bits: u16,
        src: &'a [f32],
        dst: &'a mut [u8],
    },
    Round {
        kernel: &'a Kernel,
        src: &'a [f32],
        dst: &'a mut [f32],
    },
    Decode {
        decoder: &'a Decoder,
        bits: u16,
        src: &'a [u8],
        dst: &'a mut [f32],
    },
    /// Whole chunks of MX blocks: two of them.
    EncodeMx {
        kernel: &'a Kernel,
        scaling: &'a Scaling,
        bits: u16,
        src: &'a [f32],
        scales: &'a mut [u8],
        dst: &'a mut [u8],
    },
    /// The same back.
    DecodeMx {
        decoder: &'a Decoder,
        bits: u16,
        scales: &'a [u8],
        src: &'a [u8],
        dst: &'a mut [f32],
    },
    /// What a format makes of blocks of values, for statistics.
    Judge {
        fast: &'a Fast,
        blocks: &'a [[u32; BLOCK]],
        found: &'a mut [Option<Found>],
    },
    /// To binary32 with [`round_to_odd`].
    Narrow {
        src: &'a [f64],
        dst: &'a mut [f32],
    },
}

/// Which instructions a [`Job`] may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// The best of this machine.
    Any,
    /// What every machine of the target has.
    Portable,
}

pub(crate) fn run(job: Job<'_>, instructions: Instructions) {
    #[cfg(target_arch = "x86_64")]
    if instructions == Instructions::Any
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
    {
        // SAFETY: `run_avx2` asks for nothing but these three features, which were just found. The
        // gain over the portable loops is 4 to 9 times (benches/bulk.rs, E4M3FN and FP16 in cache).
        #[allow(unsafe_code)]
        return unsafe { run_avx2(job) };
    }
    let _ = instructions;
    run_portable(job);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2(job: Job<'_>) {
    match job {
        Job::Encode { kernel, bits: bits @ (4 | 6 | 8), src, dst } if kernel.is_plain() => {
            avx2::encode_bytes(kernel, bits, src, dst);
        }
        Job::Encode { kernel, bits: 16, src, dst } if kernel.is_fp16() || kernel.is_bf16() => {
            avx2::encode_words(kernel, src, dst);
        }
        Job::EncodeMx { kernel, scaling, bits, src, scales, dst } => {
            avx2::encode_mx((kernel, scaling), bits, src, scales, dst);
        }
        Job::Decode { decoder, bits, src, dst } if decoder.is_plain(bits) => {
            avx2_decode::decode_bytes(decoder, bits, None, src, dst);
        }
        Job::Decode { decoder, bits: 16, src, dst } if decoder.is_word() => {
            avx2_decode::decode_words(decoder, src, dst);
        }
        Job::DecodeMx { decoder, bits, scales, src, dst } if decoder.is_plain(bits) => {
            avx2_decode::decode_bytes(decoder, bits, Some(scales), src, dst);
        }
        job @ (Job::Encode { .. }
        | Job::Round { .. }
        | Job::Decode { .. }
        | Job::DecodeMx { .. }
        | Job::Judge { .. }
        | Job::Narrow { .. }) => run_portable(job),
    }
}

// Inlined, so that it is compiled anew for each set of instructions.
#[inline(always)]
fn run_portable(job: Job<'_>) {
    const ANCHORED: u8 = way::ANCHORED;
    const DIRECT: u8 = way::DIRECT;
    const POWER_OF_TWO: u8 = way::POWER_OF_TWO;
    match job {
        Job::Encode { kernel, bits, src, dst } => match (kernel.way, kernel.has_minus_zero) {
            (ANCHORED, true) => encode::<ANCHORED, true>(kernel, bits, src, dst),
            (ANCHORED, false) => encode::<ANCHORED, false>(kernel, bits, src, dst),
            (DIRECT, true) => encode::<DIRECT, true>(kernel, bits, src, dst),
            (DIRECT, false) => encode::<DIRECT, false>(kernel, bits, src, dst),
            _ => encode::<POWER_OF_TWO, true>(kernel, bits, src, dst),
        },
        Job::Round { kernel, src, dst } => match (kernel.way, kernel.has_minus_zero) {
            (ANCHORED, true) => round::<ANCHORED, true>(kernel, src, dst),
            (ANCHORED, false) => round::<ANCHORED, false>(kernel, src, dst),
            (DIRECT, true) => round::<DIRECT, true>(kernel, src, dst),
            (DIRECT, false) => round::<DIRECT, false>(kernel, src, dst),
            _ => round::<POWER_OF_TWO, true>(kernel, src, dst),
        },
        Job::Decode { decoder, bits, src, dst } => decode(*decoder, bits, src, dst),
        Job::EncodeMx { kernel, scaling, bits, src, scales, dst } => {
            let dst = dst.chunks_exact_mut(usize::from(bits) * N / 8);
            let blocks = src.as_chunks::<N>().0.iter().zip(scales.as_chunks_mut::<2>().0);
            for ((src, scales), dst) in blocks.zip(dst) {
                let mut scaled = [0.0; N];
                mx::scale(scaling, src, scales, &mut scaled);
                encode::<ANCHORED, true>(kernel, bits, &scaled, dst);
            }
        }
        Job::DecodeMx { decoder, bits, scales, src, dst } => {
            let src = src.chunks_exact(usize::from(bits) * N / 8);
            let blocks = src.zip(scales.as_chunks::<2>().0);
            for ((src, scales), dst) in blocks.zip(dst.as_chunks_mut::<N>().0) {
                decode(*decoder, bits, src, dst);
                mx::unscale(scales, dst);
            }
        }
        Job::Judge { fast, blocks, found } => fast.judge(blocks, found),
        Job::Narrow { src, dst } => {
            for (dst, src) in dst.iter_mut().zip(src) {
                *dst = round_to_odd(*src);
            }
        }
    }
}

#[inline(always)]
fn encode<const WAY: u8, const MINUS_ZERO: bool>(
    kernel: &Kernel,
    bits: u16,
    src: &[f32],
    dst: &mut [u8],
) {
    let dst = dst.chunks_exact_mut(usize::from(bits) * N / 8);
    for (src, dst) in src.as_chunks::<N>().0.iter().zip(dst) {
        match bits {
            4 | 6 | 8 => {
                let mut bytes = [0u8; N];
                chunk::<WAY, MINUS_ZERO, u8>(kernel, src, &mut bytes);
                match bits {
                    4 => pack4(&bytes, dst),
                    6 => pack6(&bytes, dst),
                    _ => dst.copy_from_slice(&bytes),
                }
            }
            16 => {
                let mut words = [0u16; N];
                chunk::<WAY, MINUS_ZERO, u16>(kernel, src, &mut words);
                put_words(&words, dst);
            }
            _ => {
                let mut codes = [0u32; N];
                careful::<WAY, u32>(kernel, src, &mut codes);
                dst.fill(0);
                for (idx, code) in codes.into_iter().enumerate() {
                    put_bits(dst, idx, bits, code.into());
                }
            }
        }
    }
}

/// The lower bits of a code. Not `From`: the rest is cut off.
pub(crate) trait Code {
    fn cut(code: u32) -> Self;
}

impl Code for u8 {
    #[inline(always)]
    fn cut(code: u32) -> u8 {
        code as u8
    }
}

impl Code for u16 {
    #[inline(always)]
    fn cut(code: u32) -> u16 {
        code as u16
    }
}

impl Code for u32 {
    #[inline(always)]
    fn cut(code: u32) -> u32 {
        code
    }
}

#[inline(always)]
fn chunk<const WAY: u8, const MINUS_ZERO: bool, C: Code>(
    kernel: &Kernel,
    src: &[f32; N],
    dst: &mut [C; N],
) {
    let mut worst = 0;
    if WAY != way::POWER_OF_TWO {
        for (dst, src) in dst.iter_mut().zip(src) {
            let bits = src.to_bits();
            worst = worst.max(kernel.watched(bits));
            *dst = C::cut(kernel.code::<WAY, MINUS_ZERO>(bits));
        }
    }
    if WAY == way::POWER_OF_TWO || kernel.calm_code < worst {
        careful::<WAY, C>(kernel, src, dst);
    }
}

#[inline(always)]
fn careful<const WAY: u8, C: Code>(kernel: &Kernel, src: &[f32; N], dst: &mut [C]) {
    for (dst, src) in dst.iter_mut().zip(src) {
        *dst = C::cut(kernel.careful_code::<WAY>(src.to_bits()));
    }
}

/// The careful way for kernels that are anchored or direct.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(crate) fn careful_codes<C: Code>(kernel: &Kernel, src: &[f32; N], dst: &mut [C]) {
    match kernel.way {
        way::ANCHORED => careful::<{ way::ANCHORED }, C>(kernel, src, dst),
        _ => careful::<{ way::DIRECT }, C>(kernel, src, dst),
    }
}

#[inline(always)]
fn round<const WAY: u8, const MINUS_ZERO: bool>(kernel: &Kernel, src: &[f32], dst: &mut [f32]) {
    for (src, dst) in src.as_chunks::<N>().0.iter().zip(dst.as_chunks_mut::<N>().0) {
        let mut worst = 0;
        if WAY != way::POWER_OF_TWO {
            for (dst, src) in dst.iter_mut().zip(src) {
                let bits = src.to_bits();
                worst = worst.max(kernel.watched(bits));
                *dst = f32::from_bits(kernel.value::<WAY, MINUS_ZERO>(bits));
            }
        }
        if WAY == way::POWER_OF_TWO || kernel.calm_value < worst {
            for (dst, src) in dst.iter_mut().zip(src) {
                *dst = f32::from_bits(kernel.careful_value::<WAY>(src.to_bits()));
            }
        }
    }
}

#[inline(always)]
fn decode(decoder: Decoder, bits: u16, src: &[u8], dst: &mut [f32]) {
    let src = src.chunks_exact(usize::from(bits) * N / 8);
    for (src, dst) in src.zip(dst.as_chunks_mut::<N>().0) {
        match bits {
            4 => decode_chunk(decoder, &unpack4(src), |code| code.into(), dst),
            6 => decode_chunk(decoder, &unpack6(src), |code| code.into(), dst),
            8 => decode_chunk(decoder, src, |code| code.into(), dst),
            16 => {
                let words = src.as_chunks::<2>().0;
                decode_chunk(decoder, words, |word| u16::from_le_bytes(word).into(), dst);
            }
            32 => {
                let words = src.as_chunks::<4>().0;
                decode_chunk(decoder, words, u32::from_le_bytes, dst);
            }
            _ => {
                let codes: [u32; N] = std::array::from_fn(|idx| get_bits(src, idx, bits) as u32);
                decode_chunk(decoder, &codes, |code| code, dst);
            }
        }
    }
}

#[inline(always)]
fn decode_chunk<T: Copy>(
    decoder: Decoder,
    codes: &[T],
    code_of: impl Fn(T) -> u32,
    dst: &mut [f32; N],
) {
    let mut n_special = 0;
    for (dst, code) in dst.iter_mut().zip(codes) {
        let code = code_of(*code);
        n_special += u32::from(decoder.is_special(code));
        *dst = decoder.value(code);
    }
    if n_special != 0 {
        for (dst, code) in dst.iter_mut().zip(codes) {
            *dst = decoder.careful_value(code_of(*code));
        }
    }
}

/// To binary32, and where that is inexact to its neighbour whose last bit is 1: a second rounding
/// to at most 22 significant bits then goes as from the source (Boldo and Melquiond, "When double
/// rounding is odd", 2005). Beyond the range that is the largest finite value.
#[inline(always)]
pub(crate) fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let is_away = value.abs() < back.abs();
    let is_inexact = back < value || value < back;
    f32::from_bits((nearest.to_bits() - u32::from(is_away)) | u32::from(is_inexact))
}

/// Two codes to a byte, the first in the low half.
#[inline(always)]
pub(crate) fn pack4(codes: &[u8; N], dst: &mut [u8]) {
    for (dst, pair) in dst.iter_mut().zip(codes.as_chunks::<2>().0) {
        let pair = u16::from_le_bytes(*pair);
        *dst = (pair | (pair >> 4)) as u8;
    }
}

/// Eight codes to six bytes, the first lowest.
#[inline(always)]
pub(crate) fn pack6(codes: &[u8; N], dst: &mut [u8]) {
    for (dst, codes) in dst.as_chunks_mut::<6>().0.iter_mut().zip(codes.as_chunks::<8>().0) {
        // Pairs to 12 bits, pairs of these to 24, and those to 48.
        let codes = u64::from_le_bytes(*codes);
        let pairs = (codes & 0x003f_003f_003f_003f) | ((codes & 0x3f00_3f00_3f00_3f00) >> 2);
        let fours = (pairs & 0x0000_0fff_0000_0fff) | ((pairs & 0x0fff_0000_0fff_0000) >> 4);
        let eight = (fours & 0x00ff_ffff) | ((fours >> 8) & 0xffff_ff00_0000);
        let [a, b, c, d, e, f, _, _] = eight.to_le_bytes();
        *dst = [a, b, c, d, e, f];
    }
}

#[inline(always)]
fn unpack4(src: &[u8]) -> [u8; N] {
    let mut codes = [0; N];
    for (pair, byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(src) {
        *pair = ((u16::from(*byte) | u16::from(*byte) << 4) & 0x0f0f).to_le_bytes();
    }
    codes
}

#[inline(always)]
fn unpack6(src: &[u8]) -> [u8; N] {
    let mut codes = [0; N];
    for (codes, src) in codes.as_chunks_mut::<8>().0.iter_mut().zip(src.as_chunks::<6>().0) {
        let [a, b, c, d, e, f] = *src;
        let eight = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let fours = (eight & 0x00ff_ffff) | ((eight << 8) & 0x00ff_ffff_0000_0000);
        let pairs = (fours & 0x0000_0fff_0000_0fff) | ((fours << 4) & 0x0fff_0000_0fff_0000);
        let ones = (pairs & 0x003f_003f_003f_003f) | ((pairs << 2) & 0x3f00_3f00_3f00_3f00);
        *codes = ones.to_le_bytes();
    }
    codes
}

#[inline(always)]
pub(crate) fn put_words(codes: &[u16; N], dst: &mut [u8]) {
    for (dst, code) in dst.as_chunks_mut().0.iter_mut().zip(codes) {
        *dst = code.to_le_bytes();
    }
}

/// Writes a code of any width into zeros, the first code lowest.
pub(crate) fn put_bits(dst: &mut [u8], idx: usize, bits: u16, code: u128) {
    let bits = usize::from(bits);
    for bit_idx in 0..bits {
        let position = idx * bits + bit_idx;
        dst[position / 8] |= ((code >> bit_idx & 1) as u8) << (position % 8);
    }
}

/// What [`put_bits`] wrote.
pub(crate) fn get_bits(src: &[u8], idx: usize, bits: u16) -> u128 {
    let bits = usize::from(bits);
    let bit = |bit_idx: usize| {
        let position = idx * bits + bit_idx;
        u128::from(src[position / 8] >> (position % 8) & 1) << bit_idx
    };
    (0..bits).map(bit).sum()
}
