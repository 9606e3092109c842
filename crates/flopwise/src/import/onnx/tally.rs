//! What was assumed, left out or doubted while a file was read, and the notes that say so.
//!
//! Not here: the reading (`walk.rs`).

use crate::graph::{Builder, Dim, TensorId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the notes at the end report.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) n_evaluated: usize,
    /// Whether a loop may end before the rounds counted.
    pub(super) is_loop_bounded: bool,
    pub(super) n_copies: usize,
    pub(super) n_fused_convolutions: usize,
    pub(super) wrong_lengths: Vec<String>,
    pub(super) wrong_shapes: Vec<String>,
    /// For each parameter, the modules that read it.
    pub(super) readers: BTreeMap<TensorId, BTreeSet<Arc<str>>>,
}

impl Tally {
    /// Tells the reader what was assumed or left out.
    pub(super) fn report(&self, builder: &mut Builder) {
        let (n_shared, more) = self.shared_parameters(builder);
        let tally = self;
        let mut tell = |n: usize, text: &dyn Fn(&str) -> String| {
            if 0 < n {
                builder.note(text(if n == 1 { "" } else { "s" }));
            }
        };
        let n = tally.n_evaluated;
        tell(n, &|s| {
            format!(
                "{n} node{s} of shape arithmetic were computed while reading, and are not listed"
            )
        });
        tell(usize::from(tally.is_loop_bounded), &|_| {
            "a loop may end early; all its rounds are counted unless they are bound".to_owned()
        });
        let n = tally.n_copies;
        tell(n, &|s| {
            format!("{n} parameter{s} stored as a copy of another of equal value; each is counted")
        });
        tell(n_shared, &|s| {
            format!(
                "{n_shared} parameter{s} read by several modules, because the model shares them or \
                 because the exporter merged equal values; each is counted once, and there are \
                 {more} more if they are not shared"
            )
        });
        let n = tally.n_fused_convolutions;
        tell(n, &|s| {
            format!(
                "the exporter folded what followed {n} convolution{s} (batch normalisation) into \
                 the weights; parameters are those in the file, the trained model has more"
            )
        });
        let n = tally.wrong_lengths.len();
        tell(n, &|s| {
            let first = &tally.wrong_lengths[0];
            format!("{n} stored tensor{s} not as long as the shape says; the first: {first}")
        });
        let n = tally.wrong_shapes.len();
        tell(n, &|s| {
            let first = &tally.wrong_shapes[0];
            format!(
                "{n} shape{s} declared in the file contradict the operators; the operators' were \
                 taken; the first: {first}"
            )
        });
    }

    /// How many parameters several modules read, and how many elements more there would be if each
    /// module had its own. The dynamo exporter merges parameters of equal value without a trace;
    /// a model may also share them.
    fn shared_parameters(&self, builder: &Builder) -> (usize, Dim) {
        let shared = self.readers.iter().filter(|(_, modules)| 1 < modules.len());
        let mut n_shared = 0;
        let mut more = Dim::ZERO;
        for (id, modules) in shared {
            let elements = builder.get(*id).tensor_type.as_ref();
            let elements = elements.map_or(Dim::ZERO, |found| found.shape.elements());
            n_shared += 1;
            more = &more + &(&elements * &Dim::from(modules.len() as u128 - 1));
        }
        (n_shared, more)
    }
}
