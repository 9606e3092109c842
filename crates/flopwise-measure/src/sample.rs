//! Statistics over slices: medians, quartiles and rates per cycle, from undisturbed slices only.
//!
//! Not here: taking slices.

use crate::bench::Slice;
use flopwise::machine::Sampled;

/// The rate of the clean slices; `None` without one.
pub(crate) fn sampled(slices: &[Slice]) -> Option<Sampled> {
    let rates = sorted(slices.iter().filter(|slice| slice.is_clean()).map(Slice::rate).collect());
    let median = quantile(&rates, 0.5)?;
    Some(Sampled {
        median,
        best: *rates.last()?,
        samples: rates.len() as u32,
        taken: slices.len() as u32,
        spread: (quantile(&rates, 0.75)? - quantile(&rates, 0.25)?) / median,
    })
}

/// A load slice and the clock slices before and after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Triple {
    pub(crate) before: Option<Slice>,
    pub(crate) load: Slice,
    pub(crate) after: Option<Slice>,
}

/// Work per cycle, the median over clean load slices with a clean clock slice at their side.
///
/// Both rates are totals over the same threads, so this is work per cycle and thread. The clock
/// wanders by some per cent within a second (boost, neighbours): the ratio to the adjacent clock
/// does not, the ratio of two medians would.
pub(crate) fn per_cycle(triples: &[Triple]) -> Option<f64> {
    let ratios = triples.iter().filter(|triple| triple.load.is_clean()).filter_map(|triple| {
        let clocks = [triple.before, triple.after].into_iter().flatten();
        let clocks: Vec<f64> = clocks.filter(Slice::is_clean).map(|slice| slice.rate()).collect();
        let clock = clocks.iter().sum::<f64>() / clocks.len() as f64;
        (!clocks.is_empty()).then(|| triple.load.rate() / clock)
    });
    quantile(&sorted(ratios.collect()), 0.5)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The `share` quantile of sorted values, linear between neighbours (definition 7 of Hyndman and
/// Fan 1996, "Sample Quantiles in Statistical Packages").
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last_idx = sorted.len().checked_sub(1)?;
    let position = share * last_idx as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Outcome;

    fn slice(rate: f64, outcome: Outcome) -> Slice {
        Slice { seconds: 0.5, work: rate * 0.5, spent_s: 0.5, outcome }
    }

    fn clean(rate: f64) -> Slice {
        slice(rate, Outcome::Clean)
    }

    #[test]
    fn quantiles_interpolate() {
        let check = |values: &[f64], share: f64, expected: Option<f64>| {
            assert_eq!(quantile(values, share), expected, "{values:?} at {share}");
        };
        check(&[], 0.5, None);
        check(&[7.0], 0.25, Some(7.0));
        check(&[1.0, 2.0], 0.5, Some(1.5));
        check(&[1.0, 2.0, 4.0], 0.5, Some(2.0));
        check(&[1.0, 2.0, 3.0, 4.0], 0.25, Some(1.75));
        check(&[1.0, 2.0, 3.0, 4.0], 0.75, Some(3.25));
        check(&[1.0, 9.0], 1.0, Some(9.0));
    }

    #[test]
    fn disturbed_slices_are_counted_but_not_used() {
        let mut slices = [4.0, 1.0, 3.0, 2.0].map(clean).to_vec();
        slices.push(slice(1000.0, Outcome::Disturbed));
        let expected = Sampled { median: 2.5, best: 4.0, samples: 4, taken: 5, spread: 0.6 };
        assert_eq!(sampled(&slices), Some(expected));
    }

    #[test]
    fn no_clean_slice_gives_no_rate() {
        assert_eq!(sampled(&[slice(1.0, Outcome::Disturbed)]), None);
        assert_eq!(sampled(&[]), None);
    }

    #[test]
    fn work_per_cycle_follows_a_wandering_clock() {
        // 32 per cycle throughout, while the clock falls from 4 to 2.
        let triple = |clock: f64| Triple {
            before: Some(clean(clock)),
            load: clean(32.0 * clock),
            after: Some(clean(clock)),
        };
        assert_eq!(per_cycle(&[4.0, 3.0, 2.0].map(triple)), Some(32.0));
    }

    #[test]
    fn work_per_cycle_needs_one_clean_clock_beside_a_clean_load() {
        let disturbed = |rate| slice(rate, Outcome::Disturbed);
        let check = |before, load, after, expected| {
            assert_eq!(per_cycle(&[Triple { before, load, after }]), expected);
        };
        check(Some(disturbed(1.0)), clean(64.0), Some(clean(2.0)), Some(32.0));
        check(Some(clean(2.0)), clean(64.0), None, Some(32.0));
        check(Some(clean(1.0)), clean(64.0), Some(clean(3.0)), Some(32.0));
        check(Some(disturbed(2.0)), clean(64.0), Some(disturbed(2.0)), None);
        check(Some(clean(2.0)), disturbed(64.0), Some(clean(2.0)), None);
        check(None, clean(64.0), None, None);
    }
}
