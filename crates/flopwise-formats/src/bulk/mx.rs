//! OCP microscaling in slices: scales in one, codes in another, as safetensors keep them.
//!
//! Not here: how the scale follows from a block, step by step ([`crate::block`]).

use super::decoder::Decoder;
use super::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use super::kernel::way;
use super::lanes::{self, Instructions, Job, N};
use super::{BulkError, check_codes, decode_f32};
use crate::block::{self, BlockFormat, BlockLayout, BlockRules, ScaleRule};
use crate::codec::{self, Rules};
use crate::format::Format;

/// Elements under one scale.
const GROUP: usize = 32;
/// E8M0's NaN.
pub(crate) const NAN_SCALE: u8 = 0xff;
/// E8M0's largest number.
const LARGEST_SCALE: i32 = 0xfe;

/// The E8M0 scale of every 32 elements and the code of every element: [`BlockFormat::encode`] of
/// the MX format with these elements.
///
/// # Errors
/// If `src` is not a multiple of 32, `scales` a 32nd of that, or `codes` [`Format::bytes_for`] it;
/// or if no MX format has such elements.
///
/// ```
/// use flopwise_formats::{Format, bulk, block::ScaleRule};
/// let mut values = [0.0; 32];
/// values[..2].copy_from_slice(&[12.0, -1.0]);
/// let (mut scales, mut codes) = ([0; 1], [0; 16]);
/// bulk::encode_mx(Format::E2M1, ScaleRule::Floor, &values, &mut scales, &mut codes).unwrap();
/// assert_eq!((scales, codes[0]), ([128], 0x97));
/// let mut decoded = [1.0; 32];
/// bulk::decode_mx(Format::E2M1, &scales, &codes, &mut decoded).unwrap();
/// assert_eq!(decoded, values);
/// ```
pub fn encode_mx(
    element: Format,
    rule: ScaleRule,
    src: &[f32],
    scales: &mut [u8],
    codes: &mut [u8],
) -> Result<(), BulkError> {
    let format = check_blocks(element, src.len(), scales.len(), codes.len())?;
    let Some(kernel) = Kernel::new(element, Rules::SATURATING) else {
        let rules = BlockRules { scale: rule, ..BlockRules::OCP };
        let codes = codes.chunks_exact_mut(GROUP / 8 * usize::from(element.bits));
        for ((src, scale), codes) in src.chunks_exact(GROUP).zip(scales).zip(codes) {
            let block = format.encode(src, rules).expect("32 elements are a block, as checked");
            *scale = block[0];
            codes.copy_from_slice(&block[1..]);
        }
        return Ok(());
    };
    let (bits, scaling) = (element.bits, &Scaling::new(element, rule));
    let kernel = &kernel;
    let (whole, last) = src.split_at(src.len() - src.len() % N);
    let (whole_scales, last_scale) = scales.split_at_mut(whole.len() / GROUP);
    let (dst, last_dst) = codes.split_at_mut(whole.len() / 8 * usize::from(bits));
    let job = Job::EncodeMx { kernel, scaling, bits, src: whole, scales: whole_scales, dst };
    lanes::run(job, Instructions::Any);
    if let [last_scale] = last_scale {
        let mut padded = [0.0; N];
        padded[..GROUP].copy_from_slice(last);
        let (mut scales, mut codes) = ([0; 2], [0; N]);
        let dst = &mut codes[..N / 8 * usize::from(bits)];
        let job = Job::EncodeMx { kernel, scaling, bits, src: &padded, scales: &mut scales, dst };
        lanes::run(job, Instructions::Any);
        *last_scale = scales[0];
        last_dst.copy_from_slice(&codes[..last_dst.len()]);
    }
    Ok(())
}

/// The value of every element, rounded once to binary32: [`BlockFormat::decode`].
///
/// # Errors
/// As [`encode_mx`], with `dst` for `src`.
pub fn decode_mx(
    element: Format,
    scales: &[u8],
    codes: &[u8],
    dst: &mut [f32],
) -> Result<(), BulkError> {
    check_blocks(element, dst.len(), scales.len(), codes.len())?;
    let bits = element.bits;
    let Some(decoder) = &Decoder::new(element) else {
        decode_f32(element, codes, dst)?;
        // MXINT8 counts in 2^-6, which is exact to multiply by; the scale may not be.
        dst.iter_mut().for_each(|value| *value *= 0.015_625);
        unscale(scales, dst);
        return Ok(());
    };
    let n_whole = dst.len() - dst.len() % N;
    let (src, last_src) = codes.split_at(n_whole / 8 * usize::from(bits));
    let (whole_scales, last_scale) = scales.split_at(n_whole / GROUP);
    let (whole, last) = dst.split_at_mut(n_whole);
    let job = Job::DecodeMx { decoder, bits, scales: whole_scales, src, dst: whole };
    lanes::run(job, Instructions::Any);
    if let [last_scale] = last_scale {
        let (scales, mut codes, mut values) = ([*last_scale; 2], [0; N], [0.0; N]);
        codes[..last_src.len()].copy_from_slice(last_src);
        let src = &codes[..N / 8 * usize::from(bits)];
        let job = Job::DecodeMx { decoder, bits, scales: &scales, src, dst: &mut values };
        lanes::run(job, Instructions::Any);
        last.copy_from_slice(&values[..GROUP]);
    }
    Ok(())
}

/// Whole blocks of elements times their scales, each product rounded once.
#[inline(always)]
pub(crate) fn unscale(scales: &[u8], dst: &mut [f32]) {
    for (scale, dst) in scales.iter().zip(dst.as_chunks_mut::<GROUP>().0) {
        let scale = scale_value(*scale);
        // A loop of its own, as NaN times NaN might keep a sign.
        if scale.is_nan() {
            dst.fill(f32::NAN);
        } else {
            dst.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// What a scale stands for; the smallest is a subnormal binary32.
#[inline(always)]
pub(crate) fn scale_value(scale: u8) -> f32 {
    match scale {
        0 => f32::from_bits(0x0040_0000),
        NAN_SCALE => f32::NAN,
        _ => f32::from_bits(u32::from(scale) << 23),
    }
}

fn check_blocks(
    element: Format,
    n_elements: usize,
    n_scales: usize,
    n_bytes: usize,
) -> Result<&'static BlockFormat, BulkError> {
    let is_asked = |format: &&BlockFormat| format.layout == BlockLayout::Mx(element);
    let format = block::ALL.iter().find(is_asked).ok_or(BulkError::NoNumbers)?;
    let (expected, found) = (n_elements.next_multiple_of(GROUP), n_elements);
    if expected != found {
        return Err(BulkError::Length { expected, found });
    }
    let (expected, found) = (n_elements / GROUP, n_scales);
    if expected != found {
        return Err(BulkError::Length { expected, found });
    }
    check_codes(element, n_elements, n_bytes)?;
    Ok(format)
}

/// A [`ScaleRule`] for one element format, on the bits of the largest magnitude of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaling {
    rule: ScaleRule,
    /// Added to the bits, it carries into the exponent where the rule goes up.
    lift: u32,
    /// The exponent of the element format's largest value.
    element_exponent: i32,
}

impl Scaling {
    fn new(element: Format, rule: ScaleRule) -> Scaling {
        const ONE: u32 = 1 << 23;
        let float = element.float();
        let max = float.map_or(0.0, |float| codec::decode_f64(element, float.max_finite_code()));
        let max = (max as f32).to_bits();
        let significand_bits = float.map_or(0, |float| u32::from(float.significand_bits));
        let lift = match rule {
            ScaleRule::Floor => 0,
            ScaleRule::Ceil => ONE - 1,
            ScaleRule::Even => ONE >> (significand_bits + 1),
            ScaleRule::Rceil | ScaleRule::RceilSaturating => ONE - 1 - (max & (ONE - 1)),
        };
        Scaling { rule, lift, element_exponent: (max >> 23) as i32 - 127 }
    }

    /// From the largest magnitude's bits. Subnormals get the smallest scale either way, as no
    /// element format's largest value is below 2.
    pub(crate) fn code(&self, largest: u32) -> u8 {
        let infinity = f32::INFINITY.to_bits();
        let is_saturated = self.rule == ScaleRule::RceilSaturating && largest == infinity;
        if is_saturated {
            return LARGEST_SCALE as u8;
        }
        if infinity <= largest {
            return NAN_SCALE;
        }
        let exponent = ((largest + self.lift) >> 23) as i32 - self.element_exponent;
        exponent.clamp(0, LARGEST_SCALE) as u8
    }
}

/// The scales of whole blocks, and their elements divided by them.
#[inline(always)]
pub(crate) fn scale(scaling: &Scaling, src: &[f32], scales: &mut [u8], dst: &mut [f32]) {
    let src = src.as_chunks::<GROUP>().0;
    let dst = dst.as_chunks_mut::<GROUP>().0;
    for (src, scale) in src.iter().zip(&mut *scales) {
        let mut most = [0; 8];
        for eight in src.as_chunks::<8>().0 {
            for (most, value) in most.iter_mut().zip(eight) {
                *most = (value.to_bits() as i32 & i32::MAX).max(*most);
            }
        }
        *scale = scaling.code(most.into_iter().fold(0, i32::max) as u32);
    }
    for ((src, scale), dst) in src.iter().zip(scales).zip(dst) {
        let inverse = inverse(*scale);
        // Through an array of its own, since that is known not to overlap the source.
        *dst = src.map(|value| value * inverse);
        if *scale == NAN_SCALE {
            dst.fill(0.0);
        }
    }
}

/// What the elements are multiplied by. Where a product is subnormal and so inexact, it is far
/// below every element's smallest code.
#[inline(always)]
pub(crate) fn inverse(scale: u8) -> f32 {
    scale_value((LARGEST_SCALE as u8).saturating_sub(scale))
}

/// The codes of a block that may hold NaN or infinity, one to a byte that was 0.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(crate) fn encode_special(kernel: &Kernel, scale: u8, src: &[f32; 32], dst: &mut [u8; 32]) {
    if scale != NAN_SCALE {
        for (dst, src) in dst.iter_mut().zip(src) {
            let scaled = src * inverse(scale);
            *dst = kernel.careful_code::<{ way::ANCHORED }>(scaled.to_bits()) as u8;
        }
    }
}
