//! Discrete Fourier transforms, by the usual count of the fast algorithm.

use super::Arithmetic;
use crate::graph::Dim;

/// 5 n log2 n real additions and multiplications for a complex transform of n elements (radix 2,
/// the figure that FFTW's benchmark and the field use); log2 rounded up where n is no power of two.
///
/// # Errors
/// A length that is not a number: the logarithm is no polynomial.
pub(super) fn fourier(length: &Dim, transforms: &Dim) -> Result<Arithmetic, String> {
    let known = length.as_constant().and_then(|length| u64::try_from(length).ok());
    let known = known.filter(|length| 0 < *length).ok_or_else(|| {
        format!("the length of its transform, {length}, is not a number, and log2 of it is needed")
    })?;
    let levels = i64::from(known.next_power_of_two().trailing_zeros());
    let other = &(transforms * length) * &Dim::from(5 * levels);
    Ok(Arithmetic { macs: Dim::ZERO, other, transcendental: Dim::ZERO })
}
