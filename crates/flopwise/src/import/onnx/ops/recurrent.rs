//! Recurrent networks: LSTM, GRU and the plain one, and operators that carry a state from step to
//! step: linear attention and the causal convolution of state-space models.
//!
//! Not here: loops written out in the file (`control.rs`).

use crate::graph::{Cell, Dim, Kind, Op, Recurrent, Shape, Stated, TensorType};
use crate::import::onnx::call::{Call, Plan, one, stated};

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "LSTM" => recurrent(call, Cell::Lstm),
        "GRU" => recurrent(call, Cell::Gru),
        "RNN" => recurrent(call, Cell::Plain),
        "LinearAttention" => linear_attention(call),
        "CausalConvWithState" => causal_convolution(call),
        _ => return None,
    })
}

/// `X, W, R, [B], [sequence_lens], [initial states..], [P]`; time comes first, or since version 14
/// with `layout` 1 the batch. Sequences that end early are counted to the end of the longest, and
/// peepholes (an LSTM's `P`) are read but not counted.
/// <https://onnx.ai/onnx/operators/onnx__LSTM.html>
fn recurrent(call: &Call, cell: Cell) -> Plan {
    let [first, second, input] = call.shape(0)? else {
        return Err("its input has not 3 axes".to_owned());
    };
    let is_batch_first = call.is_set("layout", false);
    let (steps, batch) = if is_batch_first { (second, first) } else { (first, second) };
    let [_, _, hidden] = call.shape(2)? else {
        return Err("its recurrence weight has not 3 axes".to_owned());
    };
    let directions = if call.text("direction") == Some("bidirectional") { 2 } else { 1 };
    let all = Dim::from(directions);
    let (every, last) = match is_batch_first {
        true => ([batch, steps, &all, hidden], [batch, &all, hidden]),
        false => ([steps, &all, batch, hidden], [&all, batch, hidden]),
    };
    let shape = |lengths: &[&Dim]| Shape(lengths.iter().map(|length| (*length).clone()).collect());
    let op = Op::Recurrent(Recurrent {
        cell,
        steps: steps.clone(),
        batch: batch.clone(),
        input: input.clone(),
        hidden: hidden.clone(),
        projection: None,
        directions,
        outputs: vec![shape(&every), shape(&last), shape(&last)],
    });
    one(op, &call.given())
}

/// `query, key, value [batch, steps, heads*d], [state], [decay], [beta]`, version 27: per step and
/// head of keys the state takes in an outer product, per head of queries it is read once, and under
/// a delta rule what it holds for the key is read before. Counted step by step as it is defined; a
/// kernel that works in chunks takes more.
/// <https://onnx.ai/onnx/operators/onnx__LinearAttention.html>
fn linear_attention(call: &Call) -> Plan {
    let (query, key, value) = (call.shape(0)?, call.shape(1)?, call.shape(2)?);
    let ([batch, steps, query_width], [_, _, key_width], [_, _, value_width]) = (query, key, value)
    else {
        return Err("its query, key and value have not 3 axes".to_owned());
    };
    let heads = |name: &str| {
        let n_heads = call.int(name).filter(|n_heads| 0 < *n_heads);
        n_heads.map(Dim::from).ok_or_else(|| format!("`{name}` is missing"))
    };
    let (query_heads, key_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
    let key_size = query_width.floor_div(&query_heads);
    let value_size = value_width.floor_div(&key_heads);
    let rule = call.text("update_rule").unwrap_or("gated_delta");
    let (is_gated, is_delta) = (rule.starts_with("gated"), rule.ends_with("delta"));

    let tokens = batch * steps;
    let state = &key_size * &value_size;
    let reads = if is_delta { &key_heads * &Dim::from(2) } else { key_heads.clone() };
    let macs = &(&tokens * &state) * &(&reads + &query_heads);
    // The results times the scale; under a gate the state times the decay; under a delta rule
    // a difference and a product with beta per value.
    let mut other = &(&tokens * &query_heads) * &value_size;
    let mut transcendental = Dim::ZERO;
    if is_gated {
        other = &other + &(&(&tokens * &key_heads) * &state);
        let decay = if call.has(4) { Dim::product(call.shape(4)?) } else { &tokens * key_width };
        transcendental = decay;
    }
    if is_delta {
        other = &other + &(&(&tokens * value_width) * &Dim::from(2));
    }
    let width = &query_heads * &value_size;
    let output = call.like(0, vec![batch.clone(), steps.clone(), width])?;
    let state = vec![batch.clone(), key_heads, key_size, value_size];
    let present = call.like(if call.has(3) { 3 } else { 0 }, state)?;
    let results = vec![output, present];
    let linear = Stated::new("linear_attention", Kind::Attention, results);
    stated(call, Stated { macs, other, transcendental, ..linear })
}

/// `input [batch, channels, steps], weight [channels, 1, k], [bias], [state]`, version 27.
/// <https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html>
fn causal_convolution(call: &Call) -> Plan {
    let input: &TensorType = call.tensor_type(0)?;
    let ([batch, channels, _], [.., kernel]) = (input.shape.0.as_slice(), call.shape(1)?) else {
        return Err("its input has not 3 axes".to_owned());
    };
    let elements = input.shape.elements();
    let mut other = if call.has(2) { elements.clone() } else { Dim::ZERO };
    let mut transcendental = Dim::ZERO;
    if matches!(call.text("activation"), Some("silu" | "swish")) {
        other = &other + &(&elements * &Dim::from(3));
        transcendental = &elements * &Dim::from(2);
    }
    let state = vec![batch.clone(), channels.clone(), kernel - &Dim::ONE];
    let results = vec![input.clone(), call.like(0, state)?];
    let convolution = Stated::new("causal_convolution", Kind::Convolution, results);
    let macs = &elements * kernel;
    stated(call, Stated { macs, other, transcendental, ..convolution })
}
