//! Gradients of norms, reductions, pooling and resampling.
//!
//! Not here: how many operations their forward passes take.

use super::{Case, Gradient, INDEX_BYTES, Rule, STATISTIC_BYTES, Saved, other, per_output, whole};
use crate::cost::{Arithmetic, normalization, reduction};
use crate::graph::{
    Dim, Interpolation, Normalization, Pool, PoolFunction, Reduce, Reduction, Window,
};

/// With x' = (x - mean) r, y = w x' + b and n elements sharing statistics:
/// dx = r (w g - sum(w g)/n - x' sum(w g x')/n), dw = sum(g x'), db = sum(g)
/// (`layer_norm_backward`, `batch_norm_backward` in training, whatever mode the file is in).
/// Per element: x' 2, w g 1, the sums 1 and 2, the rest 4; without a mean (RMS) 1, 1, 2 and 3.
pub(super) fn normalization(op: Normalization, case: &Case) -> Result<Rule, String> {
    let elements = case.input_elements(0)?;
    let (n_rows, statistics, plain) = match op {
        Normalization::Batch | Normalization::Layer { .. } | Normalization::Group { .. } => {
            (normalization::rows(op, &case.operands)?, 2, 9)
        }
        Normalization::Rms { .. } => (normalization::rows(op, &case.operands)?, 1, 6),
        Normalization::LocalResponse { size } => return local_response(size, case),
    };
    let has_weight = i64::from(1 < case.n_inputs());
    let mut rule = Rule::default();
    for input in case.wanted_inputs() {
        let arithmetic = match input {
            0 => {
                let mut each = Arithmetic::per_element(&elements, (plain + has_weight, 0));
                each.transcendental = &n_rows * &Dim::from(statistics);
                each
            }
            // x' g summed; x' alone takes one or two more where dx does not make it.
            1 => Arithmetic::per_element(&elements, (if case.wants(0) { 2 } else { 4 }, 0)),
            _ => Arithmetic::per_element(&elements, (1, 0)),
        };
        rule.gradients.push(Gradient { input, arithmetic });
    }
    if case.wants(0) || case.wants(1) {
        rule.saved.push(Saved::Input(0));
        rule.saved.push(Saved::Bytes(&n_rows * &Dim::from(statistics * STATISTIC_BYTES)));
    }
    if case.wants(0) && 1 < case.n_inputs() {
        rule.saved.push(Saved::Input(1));
    }
    Ok(rule)
}

/// y = x D^-b with D = k + a sum(x x): dx = g D^-b - 2 a b x sum(g x D^(-b - 1)); D is kept.
fn local_response(size: i64, case: &Case) -> Result<Rule, String> {
    let denominators = crate::cost::bytes_of(case.operands.input(0)?);
    let saved = vec![Saved::Input(0), Saved::Bytes(denominators)];
    per_output(case, (size + 6, 2), saved)
}

/// The gradient of each result goes to all elements it was made of; what it is multiplied with, by
/// function. (Norms keep input and result, as `norm_backward` does.)
pub(super) fn reduce(op: &Reduce, case: &Case) -> Result<Rule, String> {
    let inputs = case.input_elements(0)?;
    let outputs = case.operands.output_elements()?;
    let each = |operations, saved| whole(case, Arithmetic::per_element(&inputs, operations), saved);
    let itself = || vec![Saved::Input(0)];
    let both = || vec![Saved::Input(0), Saved::Output(0)];
    let divided = Arithmetic { transcendental: outputs.clone(), ..Arithmetic::none() };
    match op.function {
        Reduction::Sum => whole(case, Arithmetic::none(), Vec::new()),
        Reduction::Mean => whole(case, divided, Vec::new()),
        Reduction::Product => each((1, 1), both()), // g y / x
        Reduction::Extreme => each((2, 0), both()), // x = y ? g : 0
        Reduction::SumAbsolute => each((2, 0), itself()), // g sign(x)
        Reduction::SumSquare => each((2, 0), itself()), // 2 g x
        Reduction::Norm2 => each((1, 1), both()),   // g x / y
        Reduction::LogSum => whole(case, divided, both()),
        Reduction::LogSumExp => each((2, 1), both()), // g exp(x - y)
        // 2 g (x - mean) / n, the mean summed again
        Reduction::Variance => {
            let mut arithmetic = Arithmetic::per_element(&inputs, (3, 0));
            arithmetic.transcendental = outputs;
            whole(case, arithmetic, itself())
        }
        // No gradient passes a position.
        Reduction::ArgExtreme => Ok(Rule::default()),
    }
}

/// A maximum's gradient is added where it stood, whose indices are kept. An average's is divided
/// and added to every element of the window; PyTorch keeps the input for its shape alone, except
/// where one window is the whole input and a mean is taken instead.
pub(super) fn pool(op: &Pool, case: &Case) -> Result<Rule, String> {
    let outputs = case.operands.output_elements()?;
    match op.function {
        PoolFunction::Max => {
            let indices = Saved::Bytes(&outputs * &Dim::from(INDEX_BYTES));
            per_output(case, (1, 0), vec![Saved::Input(0), indices])
        }
        PoolFunction::Average => {
            let forward = reduction::pool(op, &case.operands)?;
            let adds = &forward.other + &outputs;
            let is_mean = matches!(&op.window, Window::Adaptive { output } if output.iter().all(|length| *length == Dim::ONE));
            let saved = if is_mean { Vec::new() } else { vec![Saved::Input(0)] };
            whole(case, Arithmetic { transcendental: outputs, ..other(adds) }, saved)
        }
    }
}

/// Each result's gradient, weighted, is added to the samples it was made of.
pub(super) fn resize(interpolation: Interpolation, case: &Case) -> Result<Rule, String> {
    let outputs = case.operands.output_elements()?;
    let forward = reduction::resize(interpolation, &case.operands)?;
    // n samples: n multiplications and n - 1 adds before, n adds now.
    whole(case, other(&forward.other + &outputs), Vec::new())
}
