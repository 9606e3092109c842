//! [`Stated`]: an operator that only one kind of file has.
//!
//! Not here: operators that several importers know; each of those has a variant of
//! [`Op`](super::Op) of its own, with a rule for its shape and one for its cost.

use super::dim::Dim;
use super::op::Kind;
use super::tensor::TensorType;

/// See [`Op::Stated`](super::Op::Stated). The importer derives results and counts from the
/// operator's definition and says in its source where that is.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated {
    /// The canonical name printed in tables and JSON.
    pub name: &'static str,
    /// The group it belongs to.
    pub kind: Kind,
    /// The type of each result.
    pub results: Vec<TensorType>,
    /// Multiply-accumulates.
    pub macs: Dim,
    /// Primitive adds, multiplies and compares outside those.
    pub other: Dim,
    /// exp, log, roots, divisions ...
    pub transcendental: Dim,
    /// What its gradients cost.
    pub gradient: StatedGradient,
}

/// What the gradients of a [`Stated`] operator cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatedGradient {
    /// Nobody has said.
    Unknown,
    /// As much as the operator itself, which undoes what it did (a rotation); only the other
    /// operands are kept.
    Once,
    /// Twice as much as the operator: each of its products has two factors, and each factor's
    /// gradient is one product. All operands are kept.
    Twice,
    /// Its result steers and has no derivative (the choice of experts).
    Nothing,
}

impl Stated {
    /// Rotary position embedding (arXiv 2104.09864), before its counts are filled in.
    #[must_use]
    pub fn rotary_embedding(results: Vec<TensorType>) -> Stated {
        let rotary = Stated::new("rotary_embedding", Kind::Elementwise, results);
        Stated { gradient: StatedGradient::Once, ..rotary }
    }

    /// One that computes nothing; the counts are filled in where there are some.
    #[must_use]
    pub fn new(name: &'static str, kind: Kind, results: Vec<TensorType>) -> Stated {
        let none = || Dim::ZERO;
        Stated {
            name,
            kind,
            results,
            macs: none(),
            other: none(),
            transcendental: none(),
            gradient: StatedGradient::Unknown,
        }
    }
}
