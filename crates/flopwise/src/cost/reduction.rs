//! Reductions, pooling and resampling.

use super::{Arithmetic, Operands};
use crate::graph::{Dim, Interpolation, Pool, PoolFunction, Reduce, Reduction, Window};

/// Adding n numbers takes n - 1 adds; what comes before and after per function is in the table.
pub(super) fn reduce(op: &Reduce, operands: &Operands) -> Result<Arithmetic, String> {
    let inputs = operands.input(0)?.shape.elements();
    let outputs = operands.output_elements()?;
    // Of nothing there is nothing to join, and the result is the function's neutral element.
    let joins = if inputs == Dim::ZERO { Dim::ZERO } else { &inputs - &outputs };
    let times = |dim: &Dim, factor: i64| dim * &Dim::from(factor);
    let (other, transcendental) = match op.function {
        Reduction::Sum | Reduction::Product | Reduction::Extreme | Reduction::ArgExtreme => {
            (joins, Dim::ZERO)
        }
        Reduction::Mean | Reduction::LogSum => (joins, outputs),
        Reduction::SumAbsolute | Reduction::SumSquare => (&inputs + &joins, Dim::ZERO),
        Reduction::Norm2 => (&inputs + &joins, outputs),
        // max, subtract, sum, add the max back; exp each, one log
        Reduction::LogSumExp => (&(&times(&joins, 2) + &inputs) + &outputs, &inputs + &outputs),
        // mean, subtract, square, sum; two divisions
        Reduction::Variance => (&times(&joins, 2) + &times(&inputs, 2), times(&outputs, 2)),
    };
    Ok(Arithmetic { macs: Dim::ZERO, other, transcendental })
}

/// A window of n elements takes n - 1 compares or adds, an average one division more.
pub(super) fn pool(op: &Pool, operands: &Operands) -> Result<Arithmetic, String> {
    let outputs = operands.output_elements()?;
    let in_windows = match &op.window {
        Window::Sliding { kernel, .. } => {
            let volume: i64 =
                kernel.iter().try_fold(1i64, |v, k| v.checked_mul(*k)).ok_or("a huge kernel")?;
            &outputs * &Dim::from(volume)
        }
        Window::Adaptive { output } => {
            let lengths = &operands.input(0)?.shape.0;
            let first = lengths.len().checked_sub(output.len()).ok_or("too few axes to pool")?;
            let mut total = Dim::product(&lengths[..first]);
            for (length, count) in lengths[first..].iter().zip(output) {
                total = &total * &adaptive_elements(length, count);
            }
            total
        }
    };
    let transcendental = match op.function {
        PoolFunction::Max => Dim::ZERO,
        PoolFunction::Average => outputs.clone(),
    };
    Ok(Arithmetic { macs: Dim::ZERO, other: &in_windows - &outputs, transcendental })
}

/// Longest axis whose adaptive windows are summed one by one.
const MAX_ADAPTIVE_WINDOWS: i128 = 1 << 16;

/// Elements in all windows of an adaptive pooling along one axis. Window i runs from
/// floor(i * length / count) to ceil((i + 1) * length / count) (PyTorch, AdaptiveAveragePooling).
fn adaptive_elements(length: &Dim, count: &Dim) -> Dim {
    if length.exact_div(count).is_some() {
        return length.clone();
    }
    let (Some(length_now), Some(count_now)) = (length.as_constant(), count.as_constant()) else {
        return length.maximum(count);
    };
    if count_now < 1 || MAX_ADAPTIVE_WINDOWS < count_now {
        return length.maximum(count);
    }
    let window =
        |i: i128| ((i + 1) * length_now + count_now - 1) / count_now - i * length_now / count_now;
    let total: i128 = (0..count_now).map(window).sum();
    u128::try_from(total).map_or(Dim::OVERFLOW, Dim::from)
}

/// A value between n samples takes n multiplies and n - 1 adds.
pub(super) fn resize(
    interpolation: Interpolation,
    operands: &Operands,
) -> Result<Arithmetic, String> {
    let before = &operands.input(0)?.shape.0;
    let after = &operands.output()?.shape.0;
    let n_resized = before.iter().zip(after).filter(|(before, after)| before != after).count();
    let n_axes = u32::try_from(n_resized).unwrap_or(u32::MAX).min(8);
    let samples = match interpolation {
        Interpolation::Nearest => return Ok(Arithmetic::none()),
        Interpolation::Linear => 2i64.pow(n_axes),
        Interpolation::Cubic => 4i64.pow(n_axes),
    };
    Ok(Arithmetic::per_element(&operands.output_elements()?, (2 * samples - 1, 0)))
}
