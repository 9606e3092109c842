//! Every core operator has a rule or a written reason.

use super::super::schema;
use super::*;
use std::collections::HashMap;

const CORE: &str = include_str!("../../../../tests/data/pt2/core_aten.txt");

/// Why a call of this operator without any argument could not be counted.
fn reason(target: &str) -> Option<String> {
    let json = format!(r#"{{"target": "{target}", "inputs": [], "outputs": []}}"#);
    let node = schema::node(&json);
    let tensors = HashMap::new();
    let call = Call { node: &node, tensors: &tensors, outputs: &[], integer: &|_| None };
    lower(&call, &Builder::new("test")).err()
}

#[test]
fn every_core_operator_is_known() {
    let names: Vec<&str> = CORE.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(names.len(), 189);
    // These give sizes and single numbers, not tensors: nodes without results are never lowered.
    let is_number = |name: &&&str| name.starts_with("sym_") || name.starts_with("_local_scalar");
    assert_eq!(names.iter().filter(is_number).count(), 5);
    let operators = names.iter().filter(|name| !is_number(name));
    let unknown = operators.filter(|name| {
        let reason = reason(&format!("torch.ops.aten.{name}"));
        reason.is_some_and(|reason| reason.starts_with("no rule"))
    });
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn what_has_no_count_says_why() {
    let check = |target: &str, expected: &str| {
        let reason = reason(&format!("torch.ops.{target}")).unwrap_or_default();
        assert!(reason.contains(expected), "{target}: {reason}");
    };
    check("aten.no_such_operator.default", "no rule for aten.no_such_operator.default");
    check("aten.linalg_inv_ex.default", "up to the linear algebra library");
    check("aten._linalg_svd.default", "until it has converged");
    check("mylib.op.default", "an operator of the model's own");
    check("_c10d_functional.all_reduce.default", "between devices");
    check("higher_order.triton_kernel_wrapper_functional", "a Triton kernel");
    check("higher_order.executorch_call_delegate", "handed to a back end");
}

#[test]
fn a_chain_is_multiplied_in_the_cheapest_order() {
    // (10 x 100) (100 x 5) (5 x 50): 7500 products from the left, 75000 from the right.
    let cut = products_of(&[10, 100, 5, 50]);
    assert_eq!(cut, 1);
    // (50 x 5) (5 x 100) (100 x 10): from the right.
    assert_eq!(products_of(&[50, 5, 100, 10]), 0);
}

/// The last matrix of the left part.
fn products_of(sizes: &[i128]) -> usize {
    super::products::cheapest(sizes)[0][sizes.len() - 2]
}
