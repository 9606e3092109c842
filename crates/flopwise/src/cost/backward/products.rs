//! Gradients of matrix products, convolutions, attention and recurrent networks.
//!
//! Not here: layers without MACs.

use super::{Case, Gradient, Kernels, Rule, STATISTIC_BYTES, Saved};
use crate::cost::{Arithmetic, attention, convolution, matmul, recurrent};
use crate::graph::{
    Attention, Cell, Convolution, Dim, Einsum, Mask, MatMul, Recurrent, TensorType,
};
use std::collections::BTreeMap;

/// `y = a b + c`: da = g b^T and db = a^T g take as many MACs as y; dc sums g over what c was
/// broadcast along (PyTorch's FlopCounterMode: two more `mm` per `mm`).
///
/// The gradient of a matrix that meets every matrix of a batch sums over the batch. Where it has
/// no batch axes the batch is folded into the rows, and the product sums by itself; otherwise each
/// product is made and then added up.
pub(super) fn matmul(op: MatMul, case: &Case) -> Result<Rule, String> {
    let outputs = case.operands.output_elements()?;
    let macs = &outputs * &matmul::inner_size(op, &case.operands)?;
    let mut rule = Rule { kernels: Kernels::Each, ..Rule::default() };
    for input in case.wanted_inputs() {
        let (macs, other) = match input {
            0 | 1 => (macs.clone(), batch_sum(case, input)?),
            _ => (Dim::ZERO, case.broadcast_sum(input)?),
        };
        let arithmetic = Arithmetic { macs, other, transcendental: Dim::ZERO };
        rule.gradients.push(Gradient { input, arithmetic });
    }
    rule.saved = kept_factors(case);
    Ok(rule)
}

/// As [`matmul`]: each row's gradient meets the matrix of its group, and each matrix's gradient is
/// the product of its group's rows.
pub(super) fn grouped(case: &Case) -> Result<Rule, String> {
    let products = matmul::grouped(&case.operands)?.macs;
    let mut rule = Rule { kernels: Kernels::Each, ..Rule::default() };
    for input in case.wanted_inputs() {
        let (macs, other) = match input {
            0 | 1 => (products.clone(), Dim::ZERO),
            _ => (Dim::ZERO, case.operands.output_elements()?),
        };
        let arithmetic = Arithmetic { macs, other, transcendental: Dim::ZERO };
        rule.gradients.push(Gradient { input, arithmetic });
    }
    rule.saved = kept_factors(case);
    Ok(rule)
}

/// Of two factors, each is kept for the gradient of the other.
fn kept_factors(case: &Case) -> Vec<Saved> {
    let kept = [(0, 1), (1, 0)].into_iter().filter(|(_, other)| case.wants(*other));
    kept.map(|(input_idx, _)| Saved::Input(input_idx)).collect()
}

/// Adds over the batch for an operand that was broadcast along it.
fn batch_sum(case: &Case, input: usize) -> Result<Dim, String> {
    let operand = &case.operands.input(input)?.shape.0;
    let other = &case.operands.input(1 - input)?.shape.0;
    if operand.len() <= 2 || other.len() <= 2 {
        return Ok(Dim::ZERO);
    }
    let result = &case.operands.output()?.shape.0;
    let (operand_batch, matrix) = operand.split_at(operand.len() - 2);
    // A result without one of its matrix axes (a vector operand) has operands of two axes at most.
    let result_batch = &result[..result.len().saturating_sub(2)];
    let repeats = &Dim::product(result_batch) - &Dim::product(operand_batch);
    Ok(&repeats * &Dim::product(matrix))
}

/// The pairs that the operands are contracted in, from left to right, gone back: at each step the
/// gradient of one side is the contraction of the result's gradient with the other side. It costs
/// a MAC per combination of the labels where it sums over one, a multiplication where not; a label
/// that only this side has was summed alone, and its gradient is the same along it.
pub(super) fn einsum(op: &Einsum, case: &Case) -> Result<Rule, String> {
    let sizes = label_sizes(op, case);
    let combinations = |labels: &[char]| Dim::product(labels.iter().filter_map(|l| sizes.get(l)));
    let product = |of: &[char], with: &[char], wanted: &[char]| {
        let all = distinct([of, with].concat());
        let sums = all.iter().any(|label| !wanted.contains(label));
        let count = combinations(&all);
        match sums {
            true => Arithmetic { macs: count, ..Arithmetic::none() },
            false => super::other(count),
        }
    };
    let first = op.inputs.first().ok_or("einsum without inputs")?;
    let mut rule = Rule { kernels: Kernels::Each, ..Rule::default() };
    let mut left = distinct(first.clone());
    // The first operand's gradient comes through every step.
    let mut left_wanted = case.wants(0);
    let mut through = Arithmetic::none();
    for (input, right) in op.inputs.iter().enumerate().skip(1) {
        let is_kept = |label: &char| {
            op.output.contains(label) || op.inputs[input + 1..].iter().flatten().any(|l| l == label)
        };
        let all = distinct([left.as_slice(), right.as_slice()].concat());
        let result: Vec<char> = all.into_iter().filter(is_kept).collect();
        if left_wanted {
            let step = product(&result, right, &left);
            through.macs = &through.macs + &step.macs;
            through.other = &through.other + &step.other;
        }
        if case.wants(input) {
            let arithmetic = product(&result, &left, right);
            rule.gradients.push(Gradient { input, arithmetic });
        }
        let is_needed = [(input, left_wanted), (0, case.wants(input))];
        keep_factors(&mut rule, case, is_needed, input, combinations(&left))?;
        left_wanted |= case.wants(input);
        left = result;
    }
    match case.wants(0) {
        true => rule.gradients.push(Gradient { input: 0, arithmetic: through }),
        // Steps back to an operand in the middle of the list.
        false => rule.shared = through,
    }
    rule.gradients.sort_by_key(|gradient| gradient.input);
    Ok(rule)
}

/// Keeps what a step's gradients multiply with: the right operand, and the left, which from the
/// second step on is a product that no tensor of the graph holds.
fn keep_factors(
    rule: &mut Rule,
    case: &Case,
    [(right, is_right_needed), (first, is_left_needed)]: [(usize, bool); 2],
    step: usize,
    left_elements: Dim,
) -> Result<(), String> {
    if is_right_needed {
        rule.saved.push(Saved::Input(right));
    }
    if is_left_needed && step == 1 {
        rule.saved.push(Saved::Input(first));
    } else if is_left_needed {
        let bits = i64::from(case.operands.output()?.format.bits);
        let bytes = (&left_elements * &Dim::from(bits)).ceil_div(&Dim::from(8i64));
        rule.saved.push(Saved::Bytes(bytes));
    }
    Ok(())
}

fn label_sizes(op: &Einsum, case: &Case) -> BTreeMap<char, Dim> {
    let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
    for (labels, input) in op.inputs.iter().zip(&case.operands.inputs) {
        for (label, length) in labels.iter().zip(&input.shape.0) {
            if sizes.get(label).is_none_or(|size| *size == Dim::ONE) {
                sizes.insert(*label, length.clone());
            }
        }
    }
    sizes
}

fn distinct(mut labels: Vec<char>) -> Vec<char> {
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// dX is the convolution run the other way with the same weight, dW the convolution of the input
/// with the gradient: each meets every pair of an output and a weight element that the forward pass
/// met, so each takes its MACs, groups and all. (PyTorch 2.15's `conv_backward_flop` forgets the
/// groups in dW.) The bias sums the gradient over everything but the channels.
pub(super) fn convolution(op: &Convolution, case: &Case) -> Result<Rule, String> {
    let macs = convolution::convolution(op, &case.operands)?.macs;
    let mut rule = Rule { kernels: Kernels::Each, saved: kept_factors(case), ..Rule::default() };
    for input in case.wanted_inputs() {
        let arithmetic = match input {
            0 | 1 => Arithmetic { macs: macs.clone(), ..Arithmetic::none() },
            _ => super::other(case.broadcast_sum(input)?),
        };
        rule.gradients.push(Gradient { input, arithmetic });
    }
    Ok(rule)
}

/// With scores S = q k^T, P = softmax(S) and o = P v, per pair of a query and a key:
/// dv = P^T g takes d_v MACs, dP = g v^T d_v, dq = dS k and dk = dS^T q each d_qk. All four are
/// twice the forward pass. The kernel keeps no scores but computes S again, d_qk more
/// (FlashAttention-2, arXiv 2307.08691, section 3.1.2; `sdpa_backward_flop` of PyTorch's
/// FlopCounterMode): 2.5 times in hardware FLOPs where d_qk = d_v.
///
/// Per score: scale, add the mask, subtract the logarithm of the row's sum, exp; then
/// dS = P (dP - D) scaled: subtract and two multiplications. D = rowsum(g o) takes two per result.
/// Kept are q, k, v, o and one FP32 number per query and head, and the mask where one is given.
pub(super) fn attention(op: &Attention, case: &Case) -> Result<Rule, String> {
    let [(_, heads), (_, pairs), _] = attention::factors(op, &case.operands)?;
    let size = |input: usize| -> Result<Dim, String> {
        let last = case.operands.input(input)?.shape.0.last().cloned();
        last.ok_or_else(|| "an attention over scalars".to_owned())
    };
    let scores = &heads * &pairs;
    let (d_qk, d_v) = (&scores * &size(0)?, &scores * &size(2)?);
    let macs = |macs: &Dim| Arithmetic { macs: macs.clone(), ..Arithmetic::none() };
    let needs_scores = case.wants(0) || case.wants(1) || case.wanted_inputs().any(|i| 2 < i);
    let mut rule = Rule { recomputed_macs: d_qk.clone(), ..Rule::default() };
    for input in case.wanted_inputs() {
        let arithmetic = match input {
            0 | 1 => macs(&d_qk),
            2 => macs(&d_v),
            // Entries are keys and values; their pairs are among those counted above.
            _ if matches!(op.mask, Mask::Compressed(_)) && 3 < input => Arithmetic::none(),
            // A mask that is trained (relative positions): dS, summed over what it was broadcast
            // along.
            _ => super::other(&scores - &case.input_elements(input)?),
        };
        rule.gradients.push(Gradient { input, arithmetic });
    }
    let n_masks = case.n_inputs().saturating_sub(3);
    let masked = i64::from(0 < n_masks);
    rule.shared = Arithmetic::per_element(&scores, (2 + masked, 1));
    if needs_scores {
        let outputs = case.operands.output_elements()?;
        let each = &(&scores * &Dim::from(3)) + &(&outputs * &Dim::from(2));
        rule.shared.other = &rule.shared.other + &each;
        rule.shared.macs = d_v;
    }
    let rows = &case.input_elements(0)?.exact_div(&size(0)?).unwrap_or_default();
    rule.saved = (0..case.n_inputs()).map(Saved::Input).collect();
    rule.saved.push(Saved::Output(0));
    rule.saved.push(Saved::Bytes(rows * &Dim::from(STATISTIC_BYTES)));
    Ok(rule)
}

/// Back through time: the gradient of the state passes the state's product (and the projection) at
/// every step whatever is trained; the inputs' and the weights' gradients take the products they
/// stand in. Per element of the hidden state and step, from the cells' equations:
///
/// - LSTM, with c' = f c + i g and h = o tanh(c'): do 1, dc' 5, di df dg dc 4, derivatives of three
///   sigmoids 9 and a tanh 3, sums of the bias 4 and of the two paths to h 1, tanh(c') again;
/// - GRU, with h' = (1 - z) n + z h: dz 2, dn 2, dh 2, the tanh 3, dr and its product 2, two
///   sigmoids 6, sums of the bias 6 and to h 1;
/// - plain: the tanh 3, sums 2.
///
/// Kept are the weights, the input, the results, and per step the gates after their function (with
/// the state of an LSTM, and the two products a GRU gates): PyTorch's `_thnn_fused_*_cell`.
pub(super) fn recurrent(op: &Recurrent, case: &Case) -> Result<Rule, String> {
    let times = &(&op.steps * &op.batch) * &Dim::from(op.directions);
    let [input, state, projection] = recurrent::products(op);
    let back = &times * &(&state + &projection);
    let (each, kept) = match op.cell {
        Cell::Lstm => ((27, 1), 5),
        Cell::Gru => ((24, 0), 5),
        Cell::Plain => ((5, 0), 0),
    };
    let elements = &times * &op.hidden;
    let mut rule = Rule {
        shared: Arithmetic { macs: back.clone(), ..Arithmetic::per_element(&elements, each) },
        ..Rule::default()
    };
    // The weights' gradients come together: which of the operands is which differs between files.
    let mut weights = &back + &(&times * &input);
    for input_idx in case.wanted_inputs() {
        let macs = match input_idx {
            0 => &times * &input,
            _ => std::mem::take(&mut weights),
        };
        let arithmetic = Arithmetic { macs, ..Arithmetic::none() };
        rule.gradients.push(Gradient { input: input_idx, arithmetic });
    }
    rule.saved = (0..case.n_inputs()).map(Saved::Input).collect();
    rule.saved
        .extend((0..case.operands.outputs.len().min(case.node.outputs.len())).map(Saved::Output));
    let format = case.operands.output()?.format;
    let gates = TensorType { shape: crate::graph::Shape(vec![elements, Dim::from(kept)]), format };
    rule.saved.push(Saved::Bytes(crate::cost::bytes_of(&gates)));
    Ok(rule)
}
