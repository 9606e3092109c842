//! Scaled dot-product attention: pairs of a query and a key it sees, times the head sizes.
//!
//! Not here: how many pairs a mask lets through (see [`Mask::twice_pairs`]).

use super::{Arithmetic, Operands};
use crate::graph::{Attention, Dim, Mask, StoredFormat};

/// MACs = heads * pairs * (d_qk + d_v), with the query's heads also under GQA; the mask is exact.
/// Per score one multiply (scale), one add under a mask tensor, and a softmax.
pub(super) fn attention(op: &Attention, operands: &Operands) -> Result<Arithmetic, String> {
    let Parts { heads, twice_pairs, head_sizes } = parts(op, operands)?;
    let two = Dim::from(2);
    // The half of the triangle is taken last, where it divides evenly.
    let twice_scores = &heads * &twice_pairs;
    let macs = (&twice_scores * &head_sizes).floor_div(&two);
    let scores = twice_scores.floor_div(&two);
    let per_score = if op.mask == Mask::Tensor { 5 } else { 4 };
    // Two multiplications around the tanh.
    let (cap, tanh) = if op.is_soft_capped { (2, 1) } else { (0, 0) };
    let softmax = Arithmetic::per_element(&scores, (per_score + cap, 2 + tanh));
    Ok(Arithmetic { macs, ..softmax })
}

/// Per pair and head `d` MACs for the score and 1 for its part in the sum over heads; a relu and a
/// scale.
pub(super) fn index_scores(op: &Attention, operands: &Operands) -> Result<Arithmetic, String> {
    let [heads, pairs, sizes] = index_factors(op, operands)?.map(|(_, factor)| factor);
    let scores = &heads * &pairs;
    Ok(Arithmetic { macs: &scores * &sizes, ..Arithmetic::per_element(&scores, (2, 0)) })
}

/// What the MACs of index scores are a product of.
pub(super) fn index_factors(
    op: &Attention,
    operands: &Operands,
) -> Result<[(&'static str, Dim); 3], String> {
    let (query, key) = (&operands.input(0)?.shape.0, &operands.input(1)?.shape.0);
    let ([batch @ .., heads, queries, d], [.., keys, _]) = (query.as_slice(), key.as_slice())
    else {
        return Err("index scores of fewer than three axes".to_owned());
    };
    let twice = op.mask.twice_pairs(queries, &(keys + &op.cached));
    // The pairs of one sequence are whole, whatever the batch.
    let pairs = &Dim::product(batch) * &twice.floor_div(&Dim::from(2));
    Ok([
        ("heads", heads.clone()),
        ("pairs of query and key in all sequences", pairs),
        ("(d + 1)", d + &Dim::ONE),
    ])
}

/// What the MACs are a product of.
pub(super) fn factors(
    op: &Attention,
    operands: &Operands,
) -> Result<[(&'static str, Dim); 3], String> {
    let Parts { heads, twice_pairs, head_sizes } = parts(op, operands)?;
    let pairs = twice_pairs.floor_div(&Dim::from(2));
    Ok([
        ("sequences x heads", heads),
        ("pairs of query and key", pairs),
        ("(d_qk + d_v)", head_sizes),
    ])
}

/// Bytes read from the KV cache: of keys and values, or of keys alone where the values are a part of
/// them (`n_stored` 1).
pub(super) fn cached_bytes(
    op: &Attention,
    operands: &Operands,
    n_stored: usize,
    stored_as: Option<StoredFormat>,
) -> Result<Dim, String> {
    let mut bytes = Dim::ZERO;
    let keys = op.mask.cached_keys(&op.cached);
    for operand_idx in 1..=n_stored {
        let operand = operands.input(operand_idx)?;
        let [rows @ .., _, width] = operand.shape.0.as_slice() else {
            return Err("an attention of fewer axes".to_owned());
        };
        let stored_as = stored_as.unwrap_or(StoredFormat::Plain(operand.format));
        bytes = &bytes + &stored_as.bytes(&(&Dim::product(rows) * &keys), width);
    }
    Ok(bytes)
}

/// Bytes of the new token's keys and values in the cache, where that has a format of its own: they
/// are converted on the way, so they are written once more than they are computed.
pub(super) fn stored_bytes(
    op: &Attention,
    operands: &Operands,
    n_stored: usize,
    stored_as: Option<StoredFormat>,
) -> Result<Dim, String> {
    let Some(stored_as) = stored_as.filter(|_| op.cached != Dim::ZERO) else {
        return Ok(Dim::ZERO);
    };
    let mut bytes = Dim::ZERO;
    for operand_idx in 1..=n_stored {
        let operand = operands.input(operand_idx)?;
        let [rows @ .., width] = operand.shape.0.as_slice() else { continue };
        if stored_as != StoredFormat::Plain(operand.format) {
            bytes = &bytes + &stored_as.bytes(&Dim::product(rows), width);
        }
    }
    Ok(bytes)
}

struct Parts {
    heads: Dim,
    twice_pairs: Dim,
    head_sizes: Dim,
}

fn parts(op: &Attention, operands: &Operands) -> Result<Parts, String> {
    let query = &operands.input(0)?.shape.0;
    let key = &operands.input(1)?.shape.0;
    let value = &operands.input(2)?.shape.0;
    let ([heads @ .., queries, d_qk], [.., keys, _], [.., d_v]) =
        (query.as_slice(), key.as_slice(), value.as_slice())
    else {
        return Err("an attention of fewer than two axes".to_owned());
    };
    let twice_pairs = op.mask.twice_pairs(queries, &(keys + &op.cached));
    Ok(Parts { heads: Dim::product(heads), twice_pairs, head_sizes: d_qk + d_v })
}
