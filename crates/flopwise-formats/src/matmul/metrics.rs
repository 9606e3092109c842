//! [`Errors`]: how far values are from exact ones.
//!
//! Not here: which values.

/// How far computed values are from exact ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// `sqrt(sum e^2 / sum c^2)`; `None` where every c is 0.
    pub relative_rms: Option<f64>,
    /// Signal to noise, `-20 log10` of it, in dB; `None` without error as well.
    pub snr_db: Option<f64>,
    /// The largest `|e|`.
    pub max: f64,
    /// The largest `|e| / |c|` among the c that are not 0.
    pub max_relative: Option<f64>,
    /// The mean of e: the bias.
    pub mean: f64,
    /// `sum (e * sign c) / sum |c|`: below 0 where results are too small in magnitude.
    pub drift: Option<f64>,
}

impl Errors {
    /// Of pairs `(e, c)`; `None` without any.
    pub(super) fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Errors> {
        let (mut n, mut squares, mut exact_squares) = (0u64, 0.0, 0.0);
        let (mut max, mut max_relative, mut sum) = (0.0f64, None::<f64>, 0.0);
        let (mut along, mut magnitudes) = (0.0, 0.0);
        for (error, exact) in pairs {
            n += 1;
            squares += error * error;
            exact_squares += exact * exact;
            max = max.max(error.abs());
            sum += error;
            if exact != 0.0 {
                let relative = (error / exact).abs();
                max_relative = Some(max_relative.map_or(relative, |max| max.max(relative)));
                along += error * exact.signum();
                magnitudes += exact.abs();
            }
        }
        let over = |part: f64, whole: f64| (whole != 0.0).then(|| part / whole);
        let relative_rms = over(squares, exact_squares).map(f64::sqrt);
        (n != 0).then(|| Errors {
            relative_rms,
            snr_db: relative_rms.filter(|rms| *rms != 0.0).map(|rms| -20.0 * rms.log10()),
            max,
            max_relative,
            mean: sum / n as f64,
            drift: over(along, magnitudes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let errors = Errors::of([(0.3, 3.0), (-0.4, 4.0)].into_iter()).unwrap();
        assert!((errors.relative_rms.unwrap() - 0.1).abs() < 1e-15);
        assert!((errors.snr_db.unwrap() - 20.0).abs() < 1e-12);
        assert!((errors.mean + 0.05).abs() < 1e-15);
        assert!((errors.max - 0.4).abs() < 1e-15);
        assert!((errors.drift.unwrap() + 0.1 / 7.0).abs() < 1e-15);
        let exact = Errors::of([(0.0, 1.0)].into_iter()).unwrap();
        assert_eq!((exact.relative_rms, exact.snr_db), (Some(0.0), None));
        let zero = Errors::of([(1.0, 0.0)].into_iter()).unwrap();
        assert_eq!((zero.relative_rms, zero.max_relative, zero.max), (None, None, 1.0));
        assert!(Errors::of([].into_iter()).is_none());
    }
}
