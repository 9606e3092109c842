//! onnx-tool 1.0: multiply-accumulates of an ONNX file, and every other operator with a weight by
//! what it takes on a processor: a division 4, an exponential 32, a square root 24
//! (onnx_tool/node.py).

use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::graph::{Dim, Op, Pool, PoolFunction, Window};

const DIVIDE: i64 = 4;
const EXP: i64 = 32;
const LOG: i64 = 43;
const SINE: i64 = 39;
const SQRT: i64 = 24;
const TANH: i64 = EXP + 2 + DIVIDE;

pub(super) fn tally(seen: &Seen) -> Result<Tally, String> {
    if seen.is_pytorch() || seen.graph.nodes.is_empty() {
        return Err("it reads ONNX files, and counts the operators that they hold".to_owned());
    }
    let unknown = seen.sites().find(|site| is_unknown(site));
    if let Some(site) = unknown {
        return Err(format!("its rule for the operator {} is not known", site.node.operator));
    }
    let mut tally = Tally::of_nodes(seen, node);
    tally.remarks.push(
        "operators that only compute shapes are left out here, where onnx-tool counts one or two \
         for each"
            .to_owned(),
    );
    Ok(tally)
}

/// Operators of which a total must not be made up: those with products that it has no rule for, or
/// a rule that is not given here.
fn is_unknown(site: &Site) -> bool {
    let operator = &*site.node.operator;
    let is_known = matches!(
        operator,
        "MatMul" | "Gemm" | "MatMulInteger" | "Einsum" | "Conv" | "ConvInteger" | "ConvTranspose"
    );
    let has_products = products(site) != Dim::ZERO;
    (has_products && !is_known) || matches!(site.node.op, Op::Opaque { .. })
}

fn node(site: &Site) -> Verdict {
    let operator = site.node.operator.to_string();
    if let Some(terms) = product(site, &operator) {
        return Verdict::Counts(terms);
    }
    let n_inputs = i64::try_from(site.node.inputs.len()).unwrap_or(i64::MAX);
    let ratio = (n_inputs - 1).max(1);
    let Some((each, rule)) = weight(&operator, ratio) else {
        return other(site, operator);
    };
    let amount = &site.output_elements() * &Dim::from(each);
    Verdict::Counts(vec![Term::beside(operator, rule, amount)])
}

/// What one result of an operator per element weighs.
fn weight(operator: &str, ratio: i64) -> Option<(i64, &'static str)> {
    let each = match operator {
        "Add" | "Sub" | "Mul" | "Min" | "Max" | "Neg" | "Mod" | "Abs" | "Ceil" | "Sum" | "Sign"
        | "Relu" => return Some((ratio, "1 per result and operand after the first")),
        "Div" => return Some((DIVIDE * ratio, "4 per result (a division)")),
        "Reciprocal" => return Some((DIVIDE * ratio, "4 per result (a division)")),
        "Pow" => return Some((EXP * ratio, "32 per result (an exponential)")),
        "Exp" | "Sigmoid" => return Some((EXP, "32 per result (an exponential)")),
        "Softmax" => return Some((EXP + DIVIDE, "36 per result (exponential, division)")),
        "Sqrt" => return Some((SQRT * ratio, "24 per result (a square root)")),
        "Sin" | "Cos" => return Some((SINE * ratio, "39 per result")),
        "Tanh" => return Some((2 * TANH, "76 per result (exponential, division)")),
        "Clip" | "Relu6" => return Some((2, "2 per result")),
        "BatchNormalization" => return Some((3 + SQRT + DIVIDE, "31 per result (norm)")),
        "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal" | "And" | "Or" | "Not"
        | "Xor" | "Round" | "Floor" => return Some((1, "1 per result")),
        "QuantizeLinear" | "DequantizeLinear" => return Some((2, "2 per result")),
        "CumSum" => return Some((1, "1 per result")),
        "Log" => LOG,
        "Softplus" => EXP + 1 + LOG,
        "LogSoftmax" => EXP + DIVIDE + 1 + LOG,
        "InstanceNormalization" => (3 + DIVIDE) * ratio,
        "LpNormalization" => (EXP + 1) * ratio,
        "HardSigmoid" => 4 * ratio,
        "HardSwish" => 5 * ratio,
        "Elu" => 3 + EXP,
        "Gelu" => (EXP + 2) * ratio,
        "PRelu" => 2,
        "LeakyRelu" => 2 * ratio,
        _ => return None,
    };
    Some((each, "its own weight per result"))
}

/// Operators counted by what they read, or not at all.
fn other(site: &Site, operator: String) -> Verdict {
    let one = |rule, amount| Verdict::Counts(vec![Term::beside(operator.clone(), rule, amount)]);
    let input = || site.input_elements(0);
    match (operator.as_str(), &site.node.op) {
        ("GlobalAveragePool", _) => {
            let amount = &input() + &(&site.output_elements() * &Dim::from(DIVIDE));
            one("1 per element and 4 per result", amount)
        }
        ("ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd", _) => {
            one("1 per element", input())
        }
        ("ReduceL2", _) => one("25 per element", &input() * &Dim::from(1 + SQRT)),
        ("LayerNormalization", _) => {
            let rows = input().floor_div(&last_axis(site));
            let amount = &(&input() * &Dim::from(7)) + &(&rows * &Dim::from(1 + SQRT + DIVIDE));
            one("7 per element and 29 per row", amount)
        }
        (_, Op::Pool(Pool { window: Window::Sliding { kernel, .. }, function })) => {
            let size: i64 = kernel.iter().take(2).product();
            let rule = match function {
                PoolFunction::Max | PoolFunction::Average => "kernel size per result",
            };
            one(rule, &site.output_elements() * &Dim::from(size))
        }
        ("Resize", Op::Resize { interpolation, .. }) => {
            let each = match interpolation {
                crate::graph::Interpolation::Nearest => 0,
                crate::graph::Interpolation::Linear => 4,
                crate::graph::Interpolation::Cubic => 8,
            };
            one("4 (linear) or 8 (cubic) per result", &site.output_elements() * &Dim::from(each))
        }
        _ => Verdict::Misses("it counts nothing for this operator"),
    }
}

fn last_axis(site: &Site) -> Dim {
    let last = site.input(0).and_then(|shape| shape.0.last()).cloned();
    last.unwrap_or(Dim::ONE)
}

/// Products and convolutions, with one per result for a bias.
fn product(site: &Site, operator: &str) -> Option<Vec<Term>> {
    let rule = "multiply-accumulates";
    let (macs, rule) = match (&site.node.op, operator) {
        (Op::MatMul(_), "MatMul" | "Gemm" | "MatMulInteger") => (products(site), rule),
        (Op::Einsum(_), "Einsum") => (products(site), rule),
        (Op::Convolution(_), "ConvTranspose") => {
            let weight = site.input(1)?;
            let each = Dim::product(weight.0.iter().skip(1));
            (&site.output_elements() * &each, "as if it were not transposed")
        }
        (Op::Convolution(_), _) => (products(site), rule),
        _ => return None,
    };
    let mut terms = vec![Term::products(operator.to_owned(), rule, macs)];
    if site.has_bias() && matches!(operator, "Gemm" | "Conv" | "ConvTranspose") {
        let rule = "bias: 1 per result";
        terms.push(Term::beside(operator.to_owned(), rule, site.output_elements()));
    }
    Some(terms)
}
