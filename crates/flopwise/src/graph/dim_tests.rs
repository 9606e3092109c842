//! Dim against plain integer arithmetic, and the simplifications that exporters need.

use super::Dim;
use proptest::prelude::*;

fn symbol(name: &str) -> Dim {
    Dim::symbol(name)
}

fn number(value: i64) -> Dim {
    Dim::from(value)
}

#[test]
fn dims_print_as_people_write_them() {
    let (batch, seq) = (symbol("batch"), symbol("seq"));
    let check = |dim: Dim, expected: &str| assert_eq!(dim.to_string(), expected);
    check(Dim::ZERO, "0");
    check(number(-3), "-3");
    check(batch.clone(), "batch");
    check(&batch - &number(1), "-1 + batch");
    check(&number(1) - &batch, "1 - batch");
    check(&(&batch * &seq) * &seq, "batch*seq^2");
    check(batch.minimum(&number(7)), "min(batch, 7)");
    check(seq.floor_div(&number(2)), "floordiv(seq, 2)");
}

#[test]
fn division_takes_out_what_divides() {
    let seq = symbol("seq");
    let check = |dim: Dim, divisor: Dim, expected: &str| {
        assert_eq!(dim.floor_div(&divisor).to_string(), expected);
    };
    check(&number(6) * &seq, number(3), "2*seq");
    check(&(&number(6) * &seq) + &number(5), number(3), "1 + 2*seq");
    check(&seq * &number(197), seq.clone(), "197");
    check(&(&seq * &seq) - &number(1), &seq - &number(1), "1 + seq");
    check(&seq + &number(7), number(8), "floordiv(7 + seq, 8)");
    check(number(-7), number(2), "-4");
    check(number(5), number(0), "floordiv(5, 0)");
    assert_eq!(number(7).ceil_div(&number(2)), number(4));
    assert_eq!(number(7).modulo(&number(4)), number(3));
}

#[test]
fn comparisons_use_that_symbols_are_at_least_one() {
    let (a, b) = (symbol("a"), symbol("b"));
    assert_eq!(number(1).maximum(&a), a);
    assert_eq!(number(768).minimum(&(&number(768) * &a)), number(768));
    assert_eq!(a.is_equal(&number(-1)), Some(false));
    assert_eq!(a.is_equal(&number(1)), None);
    assert_eq!(a.is_equal(&b), None);
    assert_eq!(a.is_at_most(&b), None);
    assert_eq!(a.minimum(&number(512)).is_at_most(&number(512)), Some(true));
}

#[test]
fn what_does_not_fit_is_said() {
    let huge = Dim::from(u128::MAX >> 1);
    assert!((&huge * &number(2)).is_overflow());
    assert!((&(&huge * &number(2)) * &Dim::ZERO).is_overflow());
    let mut nested = symbol("a");
    for _ in 0..64 {
        nested = (&nested + &symbol("b")).floor_div(&(&nested + &number(3)));
    }
    assert!(nested.is_overflow());
}

/// A random expression as a Dim and as a function of (a, b).
#[derive(Clone, Debug)]
enum Expression {
    A,
    B,
    Number(i8),
    Add(Box<Expression>, Box<Expression>),
    Sub(Box<Expression>, Box<Expression>),
    Mul(Box<Expression>, Box<Expression>),
    FloorDiv(Box<Expression>, i8),
    Min(Box<Expression>, Box<Expression>),
    Max(Box<Expression>, Box<Expression>),
}

impl Expression {
    fn dim(&self) -> Dim {
        match self {
            Expression::A => symbol("a"),
            Expression::B => symbol("b"),
            Expression::Number(value) => number(i64::from(*value)),
            Expression::Add(x, y) => &x.dim() + &y.dim(),
            Expression::Sub(x, y) => &x.dim() - &y.dim(),
            Expression::Mul(x, y) => &x.dim() * &y.dim(),
            Expression::FloorDiv(x, y) => x.dim().floor_div(&number(i64::from(*y))),
            Expression::Min(x, y) => x.dim().minimum(&y.dim()),
            Expression::Max(x, y) => x.dim().maximum(&y.dim()),
        }
    }

    /// `None` outside the domain of [`Dim`]: sizes under an atom are never negative.
    fn value(&self, a: i128, b: i128) -> Option<i128> {
        let both = |x: &Expression, y: &Expression| Some((x.value(a, b)?, y.value(a, b)?));
        Some(match self {
            Expression::A => a,
            Expression::B => b,
            Expression::Number(value) => i128::from(*value),
            Expression::Add(x, y) => both(x, y).map(|(x, y)| x + y)?,
            Expression::Sub(x, y) => both(x, y).map(|(x, y)| x - y)?,
            Expression::Mul(x, y) => both(x, y)?.0.checked_mul(both(x, y)?.1)?,
            Expression::FloorDiv(x, y) => {
                let x = x.value(a, b).filter(|x| 0 <= *x)?;
                x.div_euclid(i128::from(*y))
            }
            Expression::Min(x, y) => both(x, y).filter(|v| 0 <= v.0 && 0 <= v.1)?.min_pair(),
            Expression::Max(x, y) => both(x, y).filter(|v| 0 <= v.0 && 0 <= v.1)?.max_pair(),
        })
    }
}

trait Pair {
    fn min_pair(self) -> i128;
    fn max_pair(self) -> i128;
}

impl Pair for (i128, i128) {
    fn min_pair(self) -> i128 {
        self.0.min(self.1)
    }
    fn max_pair(self) -> i128 {
        self.0.max(self.1)
    }
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        Just(Expression::A),
        Just(Expression::B),
        (-9i8..99).prop_map(Expression::Number),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(x, y)| Expression::Add(Box::new(x), Box::new(y))),
            pair.clone().prop_map(|(x, y)| Expression::Sub(Box::new(x), Box::new(y))),
            pair.clone().prop_map(|(x, y)| Expression::Mul(Box::new(x), Box::new(y))),
            (inner, 1i8..17).prop_map(|(x, y)| Expression::FloorDiv(Box::new(x), y)),
            pair.clone().prop_map(|(x, y)| Expression::Min(Box::new(x), Box::new(y))),
            pair.prop_map(|(x, y)| Expression::Max(Box::new(x), Box::new(y))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_dim_evaluates_as_its_expression_does(e in expression(), a in 1i128..40, b in 1i128..40) {
        if let Some(expected) = e.value(a, b) {
            let dim = e.dim();
            prop_assume!(!dim.is_overflow());
            let bind = |name: &str| Some(if name == "a" { a } else { b });
            prop_assert_eq!(dim.evaluate(&bind), Ok(expected), "{}", dim);
            let substituted = dim.substitute(&|name| bind(name).map(|v| Dim::from(v as i64)));
            prop_assert_eq!(substituted.as_constant(), Some(expected), "{}", dim);
        }
    }

    #[test]
    fn exact_division_undoes_multiplication(x in expression(), y in expression()) {
        let (x, y) = (x.dim(), y.dim());
        let product = &x * &y;
        prop_assume!(y != Dim::ZERO && !product.is_overflow());
        prop_assert_eq!(product.exact_div(&y), Some(x));
    }
}
