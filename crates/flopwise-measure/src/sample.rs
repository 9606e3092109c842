//! Statistics over slices: medians, quartiles and rates per cycle, from undisturbed slices only.
//!
//! Not here: taking slices.

use crate::bench::{Outcome, Slice};
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
        interval: median_interval(&rates)?,
    })
}

/// The rate of all slices whose result was right, by the time for which threads held their
/// processors: for products so long that none ends before another process takes its turn. What a
/// neighbour leaves in the caches is in it, so that it is a little low; nothing makes it high.
pub(crate) fn sampled_by_processor(slices: &[Slice]) -> Option<Sampled> {
    let held = |slice: &Slice| {
        let seconds = slice.processor_s.filter(|seconds| 0.0 < *seconds)?;
        Some(Slice { seconds, outcome: Outcome::Clean, ..*slice })
    };
    let right = slices.iter().filter(|slice| slice.outcome != Outcome::Wrong);
    sampled(&right.filter_map(held).collect::<Vec<Slice>>())
}

/// The 95 % confidence interval of the median of sorted values: the ranks n/2 -+ 0.98 sqrt n, the
/// normal approximation of the binomial number of values below the median (Conover 1999, "Practical
/// Nonparametric Statistics", 3.2). Below six values no two of them are that far apart; the extremes
/// are given.
fn median_interval(sorted: &[f64]) -> Option<[f64; 2]> {
    let n = sorted.len() as f64;
    let half = 0.98 * n.sqrt();
    let low = (n / 2.0 - half).floor().max(0.0) as usize;
    let high = ((n / 2.0 + half).ceil() as usize).min(sorted.len().checked_sub(1)?);
    Some([*sorted.get(low)?, *sorted.get(high)?])
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
    quantile(&sorted(triples.iter().filter_map(Triple::per_cycle).collect()), 0.5)
}

impl Triple {
    /// Work per cycle of a clean load by the clean clock slices at its sides: their mean where they
    /// agree, else the faster, since a clock slice that lost time to a hypervisor reads low and
    /// nothing makes one read high.
    fn per_cycle(&self) -> Option<f64> {
        let clocks = [self.before, self.after].into_iter().flatten();
        let clocks = sorted(clocks.filter(Slice::is_clean).map(|slice| slice.rate()).collect());
        let (slower, faster) = (*clocks.first()?, *clocks.last()?);
        let agree = CLOCKS_AGREE * faster < slower;
        let clock = if agree { (slower + faster) / 2.0 } else { faster };
        self.load.is_clean().then(|| self.load.rate() / clock)
    }
}

/// Marks as disturbed what ran clearly below the best, and says how many. An instruction peak has
/// no spread but the clock's: whoever takes the missing slots shares the core from outside this
/// system (another guest on the other hyper-thread), where no counter shows it.
pub(crate) fn drop_shared(triples: &mut [Triple]) -> usize {
    let clean = triples.iter().filter(|triple| triple.load.is_clean());
    let rates = sorted(clean.map(|triple| triple.load.rate()).collect());
    let Some(best) = quantile(&rates, BEST_QUANTILE) else { return 0 };
    let mut n_dropped = 0;
    for triple in triples.iter_mut().filter(|triple| triple.load.is_clean()) {
        if triple.load.rate() < SHARED_BELOW * best {
            triple.load.outcome = Outcome::Disturbed;
            n_dropped += 1;
        }
    }
    n_dropped
}

/// Stands for the best, so that a single odd slice decides nothing.
const BEST_QUANTILE: f64 = 0.95;
/// The clock wanders by two or three per cent within a second, a shared core takes more.
const SHARED_BELOW: f64 = 0.95;
/// Neighbouring clock slices that differ by more did not see the same machine.
const CLOCKS_AGREE: f64 = 0.97;

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

    fn slice(rate: f64, outcome: Outcome) -> Slice {
        let (seconds, work) = (0.5, rate * 0.5);
        Slice { seconds, work, spent_s: 0.5, processor_s: Some(seconds / 2.0), outcome }
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
        let interval = [1.0, 4.0];
        let expected =
            Sampled { median: 2.5, best: 4.0, samples: 4, taken: 5, spread: 0.6, interval };
        assert_eq!(sampled(&slices), Some(expected));
    }

    /// The test's slices hold their processors half of the time.
    #[test]
    fn disturbed_slices_have_a_rate_by_the_time_on_their_processors() {
        let slices = [slice(1.0, Outcome::Disturbed), slice(3.0, Outcome::Wrong), clean(2.0)];
        let found = sampled_by_processor(&slices).map(|rate| (rate.median, rate.samples));
        assert_eq!(found, Some((3.0, 2)));
        let unknown = Slice { processor_s: None, ..clean(2.0) };
        assert_eq!(sampled_by_processor(&[unknown]), None);
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
    fn slots_taken_from_outside_are_noticed() {
        let triple = |per_cycle: f64| Triple {
            before: Some(clean(4.0)),
            load: clean(per_cycle * 4.0),
            after: Some(clean(4.0)),
        };
        let check = |ratios: &[f64], n_dropped: usize, expected: Option<f64>| {
            let mut triples: Vec<Triple> = ratios.iter().map(|ratio| triple(*ratio)).collect();
            assert_eq!(drop_shared(&mut triples), n_dropped);
            assert_eq!(per_cycle(&triples), expected);
        };
        check(&[], 0, None);
        check(&[32.0, 31.5, 31.75], 0, Some(31.75));
        check(&[16.0, 32.0, 22.0, 32.0, 16.0], 3, Some(32.0));
        // All alike: nothing tells that they are slow.
        check(&[22.0; 5], 0, Some(22.0));
    }

    #[test]
    fn work_per_cycle_needs_one_clean_clock_beside_a_clean_load() {
        let disturbed = |rate| slice(rate, Outcome::Disturbed);
        let check = |before, load, after, expected| {
            assert_eq!(per_cycle(&[Triple { before, load, after }]), expected);
        };
        check(Some(disturbed(1.0)), clean(64.0), Some(clean(2.0)), Some(32.0));
        check(Some(clean(2.0)), clean(64.0), None, Some(32.0));
        check(Some(clean(1.0)), clean(64.0), Some(clean(2.0)), Some(32.0));
        check(Some(disturbed(2.0)), clean(64.0), Some(disturbed(2.0)), None);
        check(Some(clean(2.0)), disturbed(64.0), Some(clean(2.0)), None);
        check(None, clean(64.0), None, None);
    }
}
