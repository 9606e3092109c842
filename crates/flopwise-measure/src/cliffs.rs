//! Where a library falls far below another, or below itself in a wider format: the cliffs that a
//! program falls off without noticing.
//!
//! Not here: measuring. A pure function of a profile's results, one sentence for each cliff.

use flopwise::machine::{CacheState, ComputeKind, ComputeRate, Profile};
use flopwise::units::FlopsPerSec;
use std::collections::BTreeMap;

/// A library below this share of what another reaches has no kernel for the machine: good ones are
/// within a fifth of each other.
const FAR_BELOW: f64 = 0.5;
/// A narrower format below this share of FP32's rate is slower by more than noise.
const SLOWER: f64 = 0.9;
/// The format that narrower ones are measured by.
const WIDE: &str = "fp32";
/// Formats with fewer bits than that.
const NARROW: [&str; 4] = ["bf16", "fp16", "int8", "int16"];

/// A product as it was asked for, whoever multiplies: `fp32` 512x512x512 on one thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    shape: [u64; 3],
    threads: u32,
    is_cold: bool,
    padding: u64,
}

/// One library far below another at the same question, or below its own FP32.
#[derive(Clone, Debug)]
struct Cliff<'a> {
    question: Question,
    low: &'a ComputeRate,
    high: &'a ComputeRate,
}

impl Cliff<'_> {
    fn share(&self) -> f64 {
        self.low.flops_per_s.median / self.high.flops_per_s.median
    }
}

/// What is found: a sentence for each library, format and thread count, at the shape where it is
/// furthest below, and at how many more it is.
///
/// ```
/// use flopwise_measure::{Mock, Plan, cliff_notes, measure};
/// let profile = measure(&mut Mock::default(), &Plan::quick(String::new()), &mut |_progress| ());
/// assert!(cliff_notes(&profile).is_empty()); // one library has nobody to fall below
/// ```
#[must_use]
pub fn cliff_notes(profile: &Profile) -> Vec<String> {
    let products = profile.compute.iter().filter(|rate| rate.kind == ComputeKind::Gemm);
    let asked: Vec<(Question, &ComputeRate)> =
        products.filter_map(|rate| Some((question(rate)?, rate))).collect();
    let mut notes = notes(below_others(&asked), &|cliff| {
        format!("where {} reaches {}", cliff.high.backend, reached(cliff.high))
    });
    notes.extend(self::notes(below_wide(&asked), &|cliff| {
        format!("and {WIDE} {}: the wider format is faster there", reached(cliff.high))
    }));
    notes
}

fn question(rate: &ComputeRate) -> Option<Question> {
    Some(Question {
        shape: rate.shape?,
        threads: rate.threads,
        is_cold: rate.cache == Some(CacheState::Cold),
        padding: rate.padding.unwrap_or(0),
    })
}

/// Each library far below the best at the same question in the same format.
fn below_others<'a>(asked: &[(Question, &'a ComputeRate)]) -> Vec<Cliff<'a>> {
    let mut best: BTreeMap<(&Question, &str), &'a ComputeRate> = BTreeMap::new();
    for (question, rate) in asked {
        let entry = best.entry((question, &rate.format)).or_insert(rate);
        if entry.flops_per_s.median < rate.flops_per_s.median {
            *entry = rate;
        }
    }
    let cliffs = asked.iter().filter_map(|(question, low)| {
        let high = best.get(&(question, low.format.as_str()))?;
        let cliff = Cliff { question: question.clone(), low, high };
        (cliff.share() < FAR_BELOW).then_some(cliff)
    });
    cliffs.collect()
}

/// Each library slower in a narrow format than in FP32 at the same question.
fn below_wide<'a>(asked: &[(Question, &'a ComputeRate)]) -> Vec<Cliff<'a>> {
    let narrow = asked.iter().filter(|(_, rate)| NARROW.contains(&rate.format.as_str()));
    let cliffs = narrow.filter_map(|(question, low)| {
        let is_wide = |(other, rate): &&(Question, &ComputeRate)| {
            other == question && rate.backend == low.backend && rate.format == WIDE
        };
        let (_, high) = asked.iter().find(is_wide)?;
        let cliff = Cliff { question: question.clone(), low, high };
        (cliff.share() < SLOWER).then_some(cliff)
    });
    cliffs.collect()
}

/// One sentence for those of one library, format and thread count, in the order in which they were
/// measured.
fn notes(cliffs: Vec<Cliff>, against: &dyn Fn(&Cliff) -> String) -> Vec<String> {
    let key = |cliff: &Cliff| {
        (cliff.low.backend.clone(), cliff.low.format.clone(), cliff.question.threads)
    };
    let mut groups: Vec<Vec<Cliff>> = Vec::new();
    for cliff in cliffs {
        match groups.iter_mut().find(|group| key(&group[0]) == key(&cliff)) {
            Some(group) => group.push(cliff),
            None => groups.push(vec![cliff]),
        }
    }
    let sentences = groups.iter().filter_map(|group| {
        let deepest = group.iter().min_by(|a, b| a.share().total_cmp(&b.share()))?;
        let more = match group.len() - 1 {
            0 => String::new(),
            1 => "; so at 1 more shape".to_owned(),
            n_more => format!("; so at {n_more} more shapes"),
        };
        let Cliff { question, low, .. } = deepest;
        let (backend, format) = (&low.backend, &low.format);
        let (reached, against) = (reached(low), against(deepest));
        Some(format!("{backend} reaches {reached} in {format} at {} {against}{more}", at(question)))
    });
    sentences.collect()
}

/// `46.9 GFLOP/s (10 % of the peak)`.
fn reached(rate: &ComputeRate) -> String {
    let speed = FlopsPerSec(rate.flops_per_s.median);
    match rate.fraction_of_peak {
        Some(share) if 0.095 <= share => format!("{speed} ({:.0} % of the peak)", 100.0 * share),
        Some(share) => format!("{speed} ({:.1} % of the peak)", 100.0 * share),
        None => speed.to_string(),
    }
}

/// `1024x1024x1024 on 1 thread, operands cold, 16 elements between rows`.
fn at(question: &Question) -> String {
    let [m, n, k] = question.shape;
    let plural = if question.threads == 1 { "" } else { "s" };
    let cold = if question.is_cold { ", operands cold" } else { "" };
    let padding = match question.padding {
        0 => String::new(),
        padding => format!(", {padding} elements between rows"),
    };
    let more = if question.is_cold || 0 < question.padding { "," } else { "" };
    format!("{m}x{n}x{k} on {} thread{plural}{cold}{padding}{more}", question.threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mock, Plan, measure};
    use flopwise::machine::{Sampled, TimedBy};

    /// A product of `edge` cubed at `gigaflops`, the peak of its format being `peak`.
    fn rate(backend: &str, format: &str, edge: u64, gigaflops: f64, peak: f64) -> ComputeRate {
        let median = gigaflops * 1e9;
        let flops_per_s = Sampled {
            median,
            best: median,
            samples: 9,
            taken: 9,
            spread: 0.0,
            interval: [median, median],
        };
        ComputeRate {
            format: format.to_owned(),
            kind: ComputeKind::Gemm,
            backend: backend.to_owned(),
            threads: 1,
            shape: Some([edge; 3]),
            instruction: None,
            chains: None,
            cache: Some(CacheState::Hot),
            padding: Some(0),
            timed_by: TimedBy::Wall,
            flops_per_s,
            fraction_of_peak: (0.0 < peak).then(|| gigaflops / peak),
            fraction_of_roofline: None,
            flops_per_cycle: None,
        }
    }

    fn check(compute: &[ComputeRate], expected: &[&str]) {
        let mut profile =
            measure(&mut Mock::default(), &Plan::quick(String::new()), &mut |_progress| ());
        profile.compute = compute.to_vec();
        assert_eq!(cliff_notes(&profile), expected);
    }

    #[test]
    fn a_library_far_below_another_is_named_with_both_figures() {
        let cell = [
            rate("mkl", "int8", 1024, 46.9, 470.0),
            rate("onednn", "int8", 1024, 437.0, 470.0),
            rate("flopwise", "int8", 1024, 400.0, 470.0),
        ];
        check(
            &cell,
            &["mkl reaches 46.9 GFLOP/s (10 % of the peak) in int8 at 1024x1024x1024 on 1 thread \
               where onednn reaches 437 GFLOP/s (93 % of the peak)"],
        );
    }

    #[test]
    fn half_is_no_cliff_and_other_questions_are_not_compared() {
        let fast = rate("onednn", "fp32", 512, 100.0, 117.0);
        let slow = rate("openblas", "fp32", 512, 40.0, 117.0);
        check(&[fast.clone(), rate("openblas", "fp32", 512, 50.0, 117.0)], &[]);
        check(&[fast.clone(), ComputeRate { threads: 2, ..slow.clone() }], &[]);
        check(&[fast.clone(), ComputeRate { padding: Some(16), ..slow.clone() }], &[]);
        check(&[fast.clone(), ComputeRate { cache: Some(CacheState::Cold), ..slow.clone() }], &[]);
        check(&[fast.clone(), ComputeRate { shape: Some([512, 512, 256]), ..slow.clone() }], &[]);
        check(&[fast.clone(), ComputeRate { format: "fp64".to_owned(), ..slow.clone() }], &[]);
        check(&[ComputeRate { kind: ComputeKind::Peak, ..fast }, slow], &[]);
    }

    #[test]
    fn several_shapes_are_one_sentence_about_the_deepest() {
        let mut cells = Vec::new();
        for (edge, low) in [(512, 44.0), (1024, 22.0), (2048, 40.0)] {
            cells.push(rate("a", "fp64", edge, 100.0, 0.0));
            cells.push(rate("b", "fp64", edge, low, 0.0));
        }
        let cold = |rate: &ComputeRate| ComputeRate {
            cache: Some(CacheState::Cold),
            padding: Some(16),
            threads: 2,
            ..rate.clone()
        };
        cells.extend([cold(&cells[0]), cold(&cells[1])]);
        check(
            &cells,
            &[
                "b reaches 22 GFLOP/s in fp64 at 1024x1024x1024 on 1 thread where a reaches \
                 100 GFLOP/s; so at 2 more shapes",
                "b reaches 44 GFLOP/s in fp64 at 512x512x512 on 2 threads, operands cold, 16 \
                 elements between rows, where a reaches 100 GFLOP/s",
            ],
        );
    }

    #[test]
    fn a_narrow_format_slower_than_fp32_is_named() {
        let fp32 = rate("torch", "fp32", 2048, 100.0, 117.0);
        let fp16 = rate("torch", "fp16", 2048, 0.4, 0.0);
        let expected = "torch reaches 400 MFLOP/s in fp16 at 2048x2048x2048 on 1 thread and fp32 \
                        100 GFLOP/s (85 % of the peak): the wider format is faster there";
        check(&[fp32.clone(), fp16.clone()], &[expected]);
        check(&[rate("other", "fp32", 2048, 100.0, 117.0), fp16], &[]);
        check(&[fp32.clone(), rate("torch", "bf16", 2048, 95.0, 234.0)], &[]);
        check(&[fp32, rate("torch", "fp64", 2048, 55.0, 58.0)], &[]);
    }
}
