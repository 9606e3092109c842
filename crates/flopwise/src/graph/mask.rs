//! [`Attention`] and its [`Mask`]: which keys each query sees, and how many pairs that makes.
//!
//! Not here: what a pair costs (see [`crate::cost`]).

use super::dim::Dim;

/// What a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// All tokens at once: training, or the prompt of a generation (prefill).
    Whole,
    /// One token more, the keys and values of the tokens before it in a KV cache.
    Decode,
}

/// See [`Op::Attention`](super::Op::Attention). Key and value may have fewer heads than the query
/// (GQA).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Which keys each query sees.
    pub mask: Mask,
    /// Keys that lie in a KV cache and come before those of the key operand.
    pub cached: Dim,
    /// Whether each score passes through `cap * tanh(score / cap)` (Gemma 2, arXiv 2408.00118).
    pub is_soft_capped: bool,
}

impl Attention {
    /// Attention over its own operands, without a cache.
    #[must_use]
    pub fn new(mask: Mask) -> Attention {
        Attention { mask, cached: Dim::ZERO, is_soft_capped: false }
    }
}

/// Which keys each query of an attention sees. Query `i` (from 0) of `n` stands at the position of
/// key `i + offset`; there are `m` keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    Full,
    /// Those not too far to the left and right.
    Band(Band),
    /// Those at or before its own position in the same chunk of so many positions (Llama 4).
    Chunk {
        /// Positions in a chunk.
        length: Dim,
        /// Position of the first query.
        offset: Dim,
    },
    /// Those at or before its own position, and the first `length` keys (prefix language models).
    Prefix {
        /// Keys that every query sees.
        length: Dim,
        /// Position of the first query.
        offset: Dim,
    },
    /// Of those at or before its own position the best so many, which scores decide (sparse
    /// attention, DeepSeek-V3.2).
    Best {
        /// Keys chosen at most.
        keys: Dim,
        /// Position of the first query.
        offset: Dim,
    },
    /// Keys of single tokens and, after them, entries that each stand for several tokens (compressed
    /// attention, DeepSeek-V4).
    Compressed(Compressed),
    /// Several sequences one behind the other, none of which sees another.
    Packed {
        /// Length of each; together the queries, and the keys.
        lengths: Vec<Dim>,
        /// What is seen within each.
        within: Box<Mask>,
    },
    /// A tensor decides at run time; counted as if all were seen.
    Tensor,
}

/// See [`Mask::Compressed`]. The keys of single tokens are the operand's own and those of the cache;
/// the entries follow from the position: after `t` tokens there are `floor(t / tokens)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Which keys of single tokens are seen; `None` where there are only entries.
    pub own: Option<Box<Mask>>,
    /// Tokens that an entry stands for.
    pub tokens: Dim,
    /// Entries chosen at most; `None` for all.
    pub best: Option<Dim>,
    /// Which entries there are to choose from.
    pub from: Entries,
    /// Position of the first query.
    pub offset: Dim,
}

/// Which entries of a [`Compressed`] a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    /// Those whose tokens all lie at or before its own position.
    Complete,
    /// All that the last query sees, as an implementation computes that masks afterwards.
    All,
}

/// See [`Mask::Band`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// How many keys before its own position a query sees; `None` for all.
    pub left: Option<Dim>,
    /// How many keys after its own position a query sees; `None` for all.
    pub right: Option<Dim>,
    /// Position of the first query among the keys.
    pub offset: Dim,
}

impl Mask {
    /// Query `i` sees keys `0..=i`.
    #[must_use]
    pub fn causal() -> Mask {
        Mask::causal_from(Dim::ZERO)
    }

    /// Query `i` sees keys `0..=i + offset`: so many keys come before the first query.
    #[must_use]
    pub fn causal_from(offset: Dim) -> Mask {
        Mask::Band(Band { left: None, right: Some(Dim::ZERO), offset })
    }

    /// Query `i` sees itself and the `keys - 1` keys before it (sliding window).
    #[must_use]
    pub fn window(keys: &Dim, offset: Dim) -> Mask {
        Mask::Band(Band { left: Some(keys - &Dim::ONE), right: Some(Dim::ZERO), offset })
    }

    /// Twice the number of pairs of a query and a key it sees, for `queries` and `keys`; twice,
    /// because the half of a triangle's `n (n + 1)` is not a polynomial with whole coefficients.
    ///
    /// ```
    /// use flopwise::graph::{Dim, Mask};
    /// let n = Dim::symbol("seq");
    /// assert_eq!(Mask::causal().twice_pairs(&n, &n).to_string(), "seq + seq^2");
    /// let window = Mask::window(&Dim::from(4i64), Dim::ZERO);
    /// // 1 + 2 + 3 + 4 + 4 + 4
    /// assert_eq!(window.twice_pairs(&6.into(), &6.into()), Dim::from(36i64));
    /// ```
    #[must_use]
    pub fn twice_pairs(&self, queries: &Dim, keys: &Dim) -> Dim {
        match self {
            Mask::Full | Mask::Tensor => &(queries * keys) * &Dim::from(2i64),
            Mask::Band(band) => band.twice_pairs(queries, keys),
            Mask::Chunk { length, offset } => {
                let end = offset + queries;
                &twice_chunked(&end, length) - &twice_chunked(offset, length)
            }
            Mask::Prefix { length, offset } => {
                let causal = Mask::causal_from(offset.clone()).twice_pairs(queries, keys);
                &causal + &twice_ahead(length, offset, queries)
            }
            // Query i has i + offset + 1 to choose from: as many as a window shows.
            Mask::Best { keys: best, offset } => {
                Mask::window(best, offset.clone()).twice_pairs(queries, keys)
            }
            Mask::Compressed(compressed) => compressed.twice_pairs(queries, keys),
            Mask::Packed { lengths, within } => {
                lengths.iter().map(|length| within.twice_pairs(length, length)).sum()
            }
        }
    }

    /// How many of the `cached` keys before the first query any query sees: a window or a chunk
    /// reaches back only so far.
    #[must_use]
    pub fn cached_keys(&self, cached: &Dim) -> Dim {
        let from = |first: Dim| (cached - &first).maximum(&Dim::ZERO);
        match self {
            Mask::Band(Band { left: Some(left), offset, .. }) => {
                from((offset - left).maximum(&Dim::ZERO))
            }
            Mask::Chunk { length, offset } => from(&offset.floor_div(length) * length),
            // One query reads its own choice; several read no more than there are.
            Mask::Best { keys, .. } => cached.minimum(&(keys - &Dim::ONE)),
            Mask::Compressed(compressed) => compressed.cached_keys(cached),
            Mask::Full
            | Mask::Band(_)
            | Mask::Prefix { .. }
            | Mask::Packed { .. }
            | Mask::Tensor => cached.clone(),
        }
    }

    /// A word for tables: `causal`, `window`, ...
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Mask::Full => "full",
            Mask::Band(Band { left: None, right: Some(right), .. }) if *right == Dim::ZERO => {
                "causal"
            }
            Mask::Band(_) => "window",
            Mask::Chunk { .. } => "chunk",
            Mask::Prefix { .. } => "prefix",
            Mask::Best { .. } => "best keys",
            Mask::Compressed(_) => "compressed",
            Mask::Packed { .. } => "packed",
            Mask::Tensor => "mask tensor",
        }
    }
}

impl Band {
    /// Query i sees keys `i + offset - left ..= i + offset + right`, as far as they exist: the
    /// number of keys up to the right edge less those before the left edge.
    fn twice_pairs(&self, queries: &Dim, keys: &Dim) -> Dim {
        let up_to = |edge: &Dim| {
            let end = &(&self.offset + edge) + queries;
            &twice_clamped(&end, keys) - &twice_clamped(&(&self.offset + edge), keys)
        };
        let all = &(queries * keys) * &Dim::from(2i64);
        let seen = self.right.as_ref().map_or(all, up_to);
        let unseen = self.left.as_ref().map(|left| up_to(&(&Dim::from(-1i64) - left)));
        &seen - &unseen.unwrap_or(Dim::ZERO)
    }
}

impl Compressed {
    /// Every key and every entry, as an implementation computes that masks afterwards.
    #[must_use]
    pub fn all(&self) -> Compressed {
        let own = self.own.as_ref().map(|_| Box::new(Mask::Full));
        Compressed { own, best: None, from: Entries::All, ..self.clone() }
    }

    fn twice_pairs(&self, queries: &Dim, keys: &Dim) -> Dim {
        let own = self.own.as_ref().map_or(Dim::ZERO, |own| own.twice_pairs(queries, keys));
        let end = &self.offset + queries;
        let entries = match self.from {
            Entries::Complete => &self.twice_up_to(&end) - &self.twice_up_to(&self.offset),
            Entries::All => &(queries * &end.floor_div(&self.tokens)) * &Dim::from(2i64),
        };
        &own + &entries
    }

    /// Twice the sum of min(floor(t / tokens), best) over t = 1 ..= n. With q whole entries and r
    /// tokens after them that is tokens q (q - 1) + 2 q (r + 1), and from the position at which the
    /// best are fewer than there are, best for each further one.
    fn twice_up_to(&self, n: &Dim) -> Dim {
        let limit =
            self.best.as_ref().map(|best| &(&(best + &Dim::ONE) * &self.tokens) - &Dim::ONE);
        let below = limit.map_or_else(|| n.clone(), |limit| n.minimum(&limit));
        let (whole, rest) = (below.floor_div(&self.tokens), below.modulo(&self.tokens));
        let triangle = &(&whole * &(&whole - &Dim::ONE)) * &self.tokens;
        let last = &(&whole * &(&rest + &Dim::ONE)) * &Dim::from(2i64);
        let best = self.best.clone().unwrap_or(Dim::ZERO);
        let further = &(&(n - &below) * &best) * &Dim::from(2i64);
        &(&triangle + &last) + &further
    }

    /// Keys and entries that a query after so many tokens reads.
    fn cached_keys(&self, cached: &Dim) -> Dim {
        let own = self.own.as_ref().map_or(Dim::ZERO, |own| own.cached_keys(cached));
        let entries = cached.floor_div(&self.tokens);
        &own + &self.best.as_ref().map_or(entries.clone(), |best| entries.minimum(best))
    }
}

/// Twice the sum of min(t, limit) over t = 1 ..= n; nothing for n below 1. With k the smaller of
/// both that is k (k + 1) + 2 (n - k) limit.
fn twice_clamped(n: &Dim, limit: &Dim) -> Dim {
    let n = n.maximum(&Dim::ZERO);
    let k = n.minimum(limit);
    let triangle = &k * &(&k + &Dim::ONE);
    &triangle + &(&(&(&n - &k) * limit) * &Dim::from(2i64))
}

/// Twice the sum of (p mod length) + 1 over positions p = 0 .. n.
fn twice_chunked(n: &Dim, length: &Dim) -> Dim {
    let (chunks, rest) = (n.floor_div(length), n.modulo(length));
    let whole = &chunks * &(length * &(length + &Dim::ONE));
    &whole + &(&rest * &(&rest + &Dim::ONE))
}

/// Twice the keys of a prefix that lie ahead of each query: the sum of prefix - t over the
/// positions t = offset + 1 ..= offset + queries that lie inside the prefix.
fn twice_ahead(prefix: &Dim, offset: &Dim, queries: &Dim) -> Dim {
    let last = (offset + queries).minimum(prefix);
    let first = offset.minimum(prefix);
    let triangle = |n: &Dim| n * &(n + &Dim::ONE);
    let all = &(&(&last - &first) * prefix) * &Dim::from(2i64);
    &all - &(&triangle(&last) - &triangle(&first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, pair by pair.
    fn sees(mask: &Mask, query: i64, key: i64) -> bool {
        let number = |dim: &Dim| i64::try_from(dim.as_constant().unwrap()).unwrap();
        match mask {
            Mask::Full | Mask::Tensor => true,
            Mask::Band(Band { left, right, offset }) => {
                let at = query + number(offset);
                left.as_ref().is_none_or(|left| at - number(left) <= key)
                    && right.as_ref().is_none_or(|right| key <= at + number(right))
            }
            Mask::Chunk { length, offset } => {
                let at = query + number(offset);
                key <= at && at / number(length) == key / number(length)
            }
            Mask::Prefix { length, offset } => {
                key < number(length) || key <= query + number(offset)
            }
            // Which ones is open; how many is not.
            Mask::Best { keys, offset } => sees(&Mask::window(keys, offset.clone()), query, key),
            Mask::Compressed(_) => unreachable!("its entries are no keys of the operand"),
            Mask::Packed { lengths, within } => {
                let mut first = 0;
                lengths.iter().any(|length| {
                    let inside = |at: i64| first <= at && at < first + number(length);
                    let seen =
                        inside(query) && inside(key) && sees(within, query - first, key - first);
                    first += number(length);
                    seen
                })
            }
        }
    }

    fn check(mask: &Mask, queries: i64, keys: i64) {
        let pairs = (0..queries).flat_map(|query| (0..keys).map(move |key| (query, key)));
        let expected = pairs.filter(|(query, key)| sees(mask, *query, *key)).count() as i64;
        let counted = mask.twice_pairs(&queries.into(), &keys.into());
        assert_eq!(counted, Dim::from(2 * expected), "{mask:?}, {queries} x {keys}");
        // The formula in symbols gives the same.
        let formula = mask.twice_pairs(&Dim::symbol("n"), &Dim::symbol("m"));
        let value = formula.evaluate(&|name| Some(if name == "n" { queries } else { keys }.into()));
        assert_eq!(value, Ok(2 * i128::from(expected)), "{mask:?}: {formula}");
    }

    proptest! {
        #[test]
        fn bands_are_counted_pair_by_pair(
            left in proptest::option::of(0i64..20), right in proptest::option::of(0i64..20),
            offset in 0i64..20, queries in 1i64..24, keys in 1i64..24,
        ) {
            let (left, right) = (left.map(Dim::from), right.map(Dim::from));
            check(&Mask::Band(Band { left, right, offset: offset.into() }), queries, keys);
        }

        /// Every query has its own key.
        #[test]
        fn chunks_and_prefixes_are_counted_pair_by_pair(
            length in 1i64..20, offset in 0i64..20, queries in 1i64..24,
        ) {
            let keys = queries + offset;
            check(&Mask::Chunk { length: length.into(), offset: offset.into() }, queries, keys);
            check(&Mask::Best { keys: length.into(), offset: offset.into() }, queries, keys);
            let length = length.min(keys);
            check(&Mask::Prefix { length: length.into(), offset: offset.into() }, queries, keys);
        }

        /// An entry stands for `tokens` tokens and is seen from the last of them on.
        #[test]
        fn entries_are_counted_query_by_query(
            tokens in 1i64..9, best in proptest::option::of(1i64..6), window in 1i64..9,
            offset in 0i64..20, queries in 1i64..40,
        ) {
            let own = Mask::window(&window.into(), offset.into());
            let mask = Mask::Compressed(Compressed {
                own: Some(Box::new(own)),
                tokens: tokens.into(),
                best: best.map(Dim::from),
                from: Entries::Complete,
                offset: offset.into(),
            });
            let ends = offset + 1..=offset + queries;
            let of_query = |end: i64| end.min(window) + (end / tokens).min(best.unwrap_or(i64::MAX));
            let expected: i64 = ends.map(of_query).sum();
            let keys = offset + queries;
            let counted = mask.twice_pairs(&queries.into(), &keys.into());
            prop_assert_eq!(counted, Dim::from(2 * expected));
            let formula = mask.twice_pairs(&Dim::symbol("n"), &(&Dim::symbol("n") + &offset.into()));
            prop_assert_eq!(formula.evaluate(&|_| Some(queries.into())), Ok(2 * i128::from(expected)));
        }

        #[test]
        fn packed_sequences_do_not_see_each_other(
            lengths in proptest::collection::vec(1i64..9, 1..6), window in 1i64..9,
        ) {
            let total: i64 = lengths.iter().sum();
            let lengths: Vec<Dim> = lengths.into_iter().map(Dim::from).collect();
            for within in [Mask::Full, Mask::causal(), Mask::window(&window.into(), Dim::ZERO)] {
                let packed = Mask::Packed { lengths: lengths.clone(), within: Box::new(within) };
                check(&packed, total, total);
            }
        }
    }
}
