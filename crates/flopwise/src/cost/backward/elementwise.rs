//! Derivatives of the functions applied to each element: what they take per result, and what they
//! keep, as in PyTorch's `derivatives.yaml`. `g` is the gradient of the result `y`.
//!
//! Not here: functions without a derivative (`flow.rs`).

use super::{Arithmetic, Case, Gradient, Rule, Saved};
use crate::graph::Function;

/// What a function keeps for the gradient of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Nothing,
    /// The input itself.
    Itself,
    /// All inputs but this one.
    Others,
    /// All inputs.
    All,
    /// The result.
    Result,
    /// The inputs and the result.
    Everything,
    /// These inputs.
    These(&'static [usize]),
}

/// (other operations, transcendental operations) per result, and what is kept.
type Derivative = (i64, i64, Keeps);

/// Each wanted input's derivative, and the sum over the results that a broadcast input fell on.
pub(super) fn elementwise(function: Function, case: &Case) -> Result<Rule, String> {
    let outputs = case.operands.output_elements()?;
    let mut rule = Rule::default();
    for input in case.wanted_inputs() {
        let (other, transcendental, keeps) = derivative(function, input);
        let mut arithmetic = Arithmetic::per_element(&outputs, (other, transcendental));
        arithmetic.other = &arithmetic.other + &case.broadcast_sum(input)?;
        rule.gradients.push(Gradient { input, arithmetic });
        keep(&mut rule, case.n_inputs(), input, keeps);
    }
    Ok(rule)
}

fn keep(rule: &mut Rule, n_inputs: usize, input: usize, keeps: Keeps) {
    let others = || (0..n_inputs).filter(move |other| *other != input).map(Saved::Input);
    let all = || (0..n_inputs).map(Saved::Input);
    let saved: Vec<Saved> = match keeps {
        Keeps::Nothing => Vec::new(),
        Keeps::Itself => vec![Saved::Input(input)],
        Keeps::Others => others().collect(),
        Keeps::All => all().collect(),
        Keeps::Result => vec![Saved::Output(0)],
        Keeps::Everything => all().chain([Saved::Output(0)]).collect(),
        Keeps::These(inputs) => inputs.iter().map(|input| Saved::Input(*input)).collect(),
    };
    for each in saved {
        if !rule.saved.contains(&each) {
            rule.saved.push(each);
        }
    }
}

fn derivative(function: Function, input: usize) -> Derivative {
    match function {
        Function::Add
        | Function::Sub
        | Function::Mul
        | Function::Div
        | Function::Modulo
        | Function::Power
        | Function::Minimum
        | Function::Maximum
        | Function::MultiplyAdd
        | Function::DivideAdd
        | Function::Interpolate
        | Function::SwiGlu
        | Function::Select => of_several(function, input),
        Function::Square => (2, 0, Keeps::Itself), // 2 x g
        Function::Cube => (3, 0, Keeps::Itself),   // 3 x x g
        Function::Negate => (1, 0, Keeps::Nothing), // -g
        Function::Absolute => (2, 0, Keeps::Itself), // g sign(x)
        Function::Exp => (1, 0, Keeps::Result),    // g y
        Function::Log => (0, 1, Keeps::Itself),    // g / x
        Function::Sqrt => (1, 1, Keeps::Result),   // g / (2 y)
        Function::Rsqrt => (4, 0, Keeps::Result),  // -1/2 g y y y
        Function::Reciprocal => (3, 0, Keeps::Result), // -g y y
        Function::Trigonometric => (1, 1, Keeps::Itself), // g cos(x)
        Function::Erf => (4, 1, Keeps::Itself),    // g 2/sqrt(pi) exp(-(x x))
        Function::Relu => (2, 0, Keeps::Result),   // 0 < y ? g : 0
        Function::Clamp => (3, 0, Keeps::Itself),  // a <= x and x <= b ? g : 0
        Function::LeakyRelu => (2, 0, Keeps::Itself), // 0 < x ? g : a g
        Function::Sigmoid => (3, 0, Keeps::Result), // g (1 - y) y
        Function::HardSigmoid => (3, 0, Keeps::Itself), // inside ? a g : 0
        Function::HardSwish => (5, 0, Keeps::Itself), // inside ? g (x / 3 + 1/2) : 0 or g
        Function::Tanh => (3, 0, Keeps::Result),   // g (1 - y y)
        // 2 g max(x, 0)
        Function::SquaredRelu => (3, 0, Keeps::Itself),
        // with s = sigmoid(x), which takes 2 and 2: g s (1 + x (1 - s))
        Function::Silu => (7, 2, Keeps::Itself),
        // the same of 1.702 x
        Function::QuickGelu => (8, 2, Keeps::Itself),
        // g (cdf + x pdf): the cdf takes 3 and erf, the pdf 3 and exp
        Function::GeluErf => (9, 2, Keeps::Itself),
        // with t = tanh(c (x + k x^3)), which takes 5 and tanh:
        // g ((1 + t) / 2 + x / 2 (1 - t t) c (1 + 3 k x x))
        Function::GeluTanh => (17, 1, Keeps::Itself),
        // x < 0 ? a exp(x) g : g
        Function::Elu => (3, 1, Keeps::Itself),
        // g sigmoid(x)
        Function::Softplus => (3, 2, Keeps::Itself),
        // g / (1 + |x|)^2
        Function::Softsign => (3, 1, Keeps::Itself),
        // with t = tanh(softplus x) and s = sigmoid(x): g (t + x s (1 - t t))
        Function::Mish => (9, 5, Keeps::Itself),
        // No gradient passes these.
        Function::Sign
        | Function::Round
        | Function::Compare
        | Function::Logical
        | Function::Bitwise
        | Function::Classify => (0, 0, Keeps::Nothing),
    }
}

/// Functions of several inputs `a, b, c`, by the input whose gradient is asked.
fn of_several(function: Function, input: usize) -> Derivative {
    match (function, input) {
        (Function::Add | Function::MultiplyAdd | Function::DivideAdd, 0) => (0, 0, Keeps::Nothing),
        (Function::Add, _) | (Function::Sub, 0) => (0, 0, Keeps::Nothing),
        (Function::Sub, _) => (1, 0, Keeps::Nothing), // -g
        (Function::Mul, _) => (1, 0, Keeps::Others),  // g b
        (Function::Div, 0) => (0, 1, Keeps::Others),  // g / b
        (Function::Div, _) => (2, 2, Keeps::All),     // -g (a / b) / b
        (Function::Modulo, 0) => (0, 0, Keeps::Nothing),
        (Function::Modulo, _) => (3, 1, Keeps::All), // -g floor(a / b)
        (Function::Power, 0) => (3, 1, Keeps::All),  // g b a^(b - 1)
        (Function::Power, _) => (2, 1, Keeps::Everything), // g y log(a)
        (Function::Minimum | Function::Maximum, _) => (2, 0, Keeps::All), // a < b ? g : 0
        (Function::MultiplyAdd, 1) => (1, 0, Keeps::These(&[2])), // g c
        (Function::MultiplyAdd, _) => (1, 0, Keeps::These(&[1])), // g b
        (Function::DivideAdd, 1) => (1, 1, Keeps::These(&[2])), // g value / c
        (Function::DivideAdd, _) => (3, 2, Keeps::These(&[1, 2])), // -g value b / c / c
        (Function::Interpolate, 0) => (2, 0, Keeps::These(&[2])), // g (1 - w)
        (Function::Interpolate, 1) => (1, 0, Keeps::These(&[2])), // g w
        (Function::Interpolate, _) => (2, 0, Keeps::These(&[0, 1])), // g (b - a)
        // silu(a) b, with s = sigmoid(a): g b s (1 + a (1 - s)), and g a s
        (Function::SwiGlu, 0) => (8, 2, Keeps::All),
        (Function::SwiGlu, _) => (4, 2, Keeps::These(&[0])),
        // where(condition, a, b): a choice each
        (Function::Select, _) => (1, 0, Keeps::These(&[0])),
        // The caller hands over functions of several inputs only.
        (function, _) => derivative(function, input),
    }
}
