//! Recurrent networks: at each step one matrix product of the input and one of the state per gate.

use super::Arithmetic;
use crate::graph::{Cell, Dim, Recurrent};

/// MACs = steps * batch * directions * (gates * hidden * (input + state) + hidden * projection),
/// where the state handed on is the projection if there is one (equations of
/// <https://onnx.ai/onnx/operators/onnx__LSTM.html> and `torch.nn.LSTM`). Per element of the hidden
/// state and step, from those equations:
///
/// - LSTM: two additions per gate (the products, the bias), three sigmoids, two tanhs,
///   three multiplications and one addition;
/// - GRU: two additions per gate, two sigmoids, one tanh, and `(1 - z) n + z h` with `r (..)`:
///   three multiplications, one subtraction, one addition;
/// - plain: two additions and one tanh.
pub(super) fn recurrent(op: &Recurrent) -> Arithmetic {
    let times = &(&op.steps * &op.batch) * &Dim::from(op.directions);
    let [input, state, projection] = products(op);
    let macs = &times * &(&(&input + &state) + &projection);
    // A sigmoid is a negation, an addition, an exponential and a division.
    let (other, transcendental) = match op.cell {
        Cell::Lstm => (2 * 4 + 3 * 2 + 4, 3 * 2 + 2),
        Cell::Gru => (2 * 3 + 2 * 2 + 5, 2 * 2 + 1),
        Cell::Plain => (2, 1),
    };
    let elementwise = Arithmetic::per_element(&(&times * &op.hidden), (other, transcendental));
    Arithmetic { macs, ..elementwise }
}

/// MACs of one step of one sequence in one direction: of the input, the state, the projection.
pub(super) fn products(op: &Recurrent) -> [Dim; 3] {
    let rows = &op.hidden * &Dim::from(op.cell.gates());
    let state = op.projection.as_ref().unwrap_or(&op.hidden);
    let projection = op.projection.as_ref().map_or(Dim::ZERO, |size| size * &op.hidden);
    [&rows * &op.input, &rows * state, projection]
}

/// What the MACs are a product of.
pub(super) fn factors(op: &Recurrent) -> Vec<(&'static str, Dim)> {
    let [input, state, projection] = products(op);
    vec![
        ("steps", op.steps.clone()),
        ("sequences", op.batch.clone()),
        ("directions", Dim::from(op.directions)),
        ("products of input, state and projection", &(&input + &state) + &projection),
    ]
}
