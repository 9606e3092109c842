//! [`Dim`]: an exact polynomial in named symbols, the size of a dimension or a count built of them.
//!
//! Coefficients are integers (`i128`). What is not polynomial but occurs in exported models
//! (floor division, minimum, maximum) is an [`Atom`] inside a monomial. Every symbol stands for an
//! integer of at least 1, and comparisons use that.
//!
//! Not here: where symbols come from and which values they may take (see [`super::Symbol`]).

use smallvec::{SmallVec, smallvec};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign, Mul, Neg, Sub};
use std::sync::Arc;

/// A polynomial has at most this many terms; a larger one turns into [`Dim::OVERFLOW`]. Real models
/// stay below 20; the limit keeps hostile graphs from growing without bound.
const MAX_TERMS: usize = 512;
/// Most nodes in the expression tree of one atom, for the same reason.
const MAX_ATOM_WEIGHT: u32 = 4096;

/// An exact polynomial with integer coefficients in named symbols.
///
/// ```
/// use flopwise::graph::Dim;
/// let batch = Dim::symbol("batch");
/// let seq = Dim::symbol("seq");
/// let macs = &(&batch * &seq) * &Dim::from(18_432i64);
/// assert_eq!((&macs * &seq).to_string(), "18432*batch*seq^2");
/// let value = macs.evaluate(&|name| if name == "batch" { Some(2) } else { Some(10) });
/// assert_eq!(value, Ok(368_640));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim {
    /// The term without symbols; `i128::MIN` marks a value that could not be held exactly.
    constant: i128,
    /// The other terms, sorted by monomial, none zero. Empty for a plain number, which costs no
    /// allocation.
    terms: Terms,
}

/// One term costs no allocation: most counts of a layer are a number times `batch*seq`.
type Terms = SmallVec<[Term; 1]>;

/// `coefficient * monomial`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Term {
    monomial: Monomial,
    coefficient: i128,
}

/// A product of atoms with their powers, sorted by atom.
/// Shared, since the terms of a model's counts have few monomials and each is copied very often.
type Monomial = Arc<[(Atom, u32)]>;

/// What a polynomial is built of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Atom {
    /// A named integer, at least 1.
    Symbol(Arc<str>),
    /// A function of two polynomials that no polynomial expresses.
    Call(Function, Arc<(Dim, Dim)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Function {
    FloorDiv,
    Min,
    Max,
}

/// Why a [`Dim`] has no value under some bindings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// A symbol without a value.
    #[error("`{0}` has no value; bind it with --bind {0}=N")]
    Unbound(String),
    /// Beyond `i128`, or a polynomial beyond the size limits.
    #[error("the exact value is beyond 127 bits")]
    Overflow,
    /// A floor division by zero.
    #[error("division by zero in `{0}`")]
    DivisionByZero(String),
}

impl Default for Dim {
    fn default() -> Dim {
        Dim::ZERO
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Dim {
        Dim { constant: i128::from(value), terms: SmallVec::new_const() }
    }
}

impl From<i32> for Dim {
    fn from(value: i32) -> Dim {
        Dim::from(i64::from(value))
    }
}

impl From<u128> for Dim {
    /// A count beyond `i128` becomes [`Dim::OVERFLOW`].
    fn from(value: u128) -> Dim {
        i128::try_from(value)
            .map_or(Dim::OVERFLOW, |constant| Dim { constant, terms: SmallVec::new_const() })
    }
}

impl Dim {
    /// Zero.
    pub const ZERO: Dim = Dim { constant: 0, terms: SmallVec::new_const() };
    /// One.
    pub const ONE: Dim = Dim { constant: 1, terms: SmallVec::new_const() };
    /// A value that could not be held exactly. It absorbs whatever it meets; the graph builder
    /// refuses it.
    pub const OVERFLOW: Dim = Dim { constant: i128::MIN, terms: SmallVec::new_const() };

    /// The symbol `name`, an integer of at least 1.
    #[must_use]
    pub fn symbol(name: &str) -> Dim {
        Dim::atom(Atom::Symbol(Arc::from(name)))
    }

    fn atom(atom: Atom) -> Dim {
        Dim {
            constant: 0,
            terms: smallvec![Term { monomial: Arc::from([(atom, 1)]), coefficient: 1 }],
        }
    }

    /// The number this is, when no symbol is left in it and it was held exactly.
    #[must_use]
    pub fn as_constant(&self) -> Option<i128> {
        (self.terms.is_empty() && !self.is_overflow()).then_some(self.constant)
    }

    /// Whether this value could not be held exactly.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.constant == i128::MIN
    }

    /// The product of many, 1 for none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        // Numbers together first: they cost nothing, and scale the rest once.
        let (mut number, mut rest) = (Dim::ONE, None::<Dim>);
        for dim in dims {
            match (dim.as_constant(), rest.take()) {
                (Some(_), before) => (number, rest) = (&number * dim, before),
                (None, None) => rest = Some(dim.clone()),
                (None, Some(before)) => rest = Some(&before * dim),
            }
        }
        rest.map_or(number.clone(), |rest| &rest * &number)
    }

    /// `self` rounded down after division by `divisor`.
    #[must_use]
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if self.is_overflow() || divisor.is_overflow() {
            return Dim::OVERFLOW;
        }
        if let Some(quotient) = self.exact_div(divisor) {
            return quotient;
        }
        if let Some(number) = divisor.as_constant().filter(|number| 0 < *number) {
            return self.floor_div_number(number);
        }
        Dim::call(Function::FloorDiv, self.clone(), divisor.clone())
    }

    /// Takes out of the floor whatever divides evenly: `floor((6a + 5) / 3) = 2a + 1`, since the
    /// remainder 2 is below 3.
    fn floor_div_number(&self, divisor: i128) -> Dim {
        let mut whole = Dim::ZERO.with_constant(self.constant.div_euclid(divisor));
        let mut rest = Dim::ZERO.with_constant(self.constant.rem_euclid(divisor));
        for term in &self.terms {
            let (quotient, remainder) =
                (term.coefficient.div_euclid(divisor), term.coefficient.rem_euclid(divisor));
            whole = &whole + &Dim::single(quotient, term.monomial.clone());
            rest = &rest + &Dim::single(remainder, term.monomial.clone());
        }
        if rest.terms.is_empty() {
            return whole;
        }
        &whole + &Dim::call(Function::FloorDiv, rest, Dim::ZERO.with_constant(divisor))
    }

    /// `self` rounded up after division by `divisor`.
    #[must_use]
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        match divisor.as_constant() {
            // The form that `floor_div` simplifies: floor((s + 1) / 2), not -floor(-s / 2).
            Some(number) if 0 < number => (&(self + divisor) - &Dim::ONE).floor_div(divisor),
            _ => -&(-self).floor_div(divisor),
        }
    }

    /// The remainder of [`Dim::floor_div`].
    #[must_use]
    pub fn modulo(&self, divisor: &Dim) -> Dim {
        self - &(&self.floor_div(divisor) * divisor)
    }

    /// The smaller of two.
    #[must_use]
    pub fn minimum(&self, other: &Dim) -> Dim {
        match (self.is_at_most(other), other.is_at_most(self)) {
            (Some(true), _) => self.clone(),
            (_, Some(true)) => other.clone(),
            _ => Dim::commutative(Function::Min, self, other),
        }
    }

    /// The larger of two.
    #[must_use]
    pub fn maximum(&self, other: &Dim) -> Dim {
        match (self.is_at_most(other), other.is_at_most(self)) {
            (Some(true), _) => other.clone(),
            (_, Some(true)) => self.clone(),
            _ => Dim::commutative(Function::Max, self, other),
        }
    }

    fn commutative(function: Function, a: &Dim, b: &Dim) -> Dim {
        let (first, second) = if a < b { (a, b) } else { (b, a) };
        Dim::call(function, first.clone(), second.clone())
    }

    fn call(function: Function, a: Dim, b: Dim) -> Dim {
        if a.is_overflow() || b.is_overflow() || MAX_ATOM_WEIGHT < a.weight() + b.weight() {
            return Dim::OVERFLOW;
        }
        Dim::atom(Atom::Call(function, Arc::new((a, b))))
    }

    /// Nodes in the expression tree; each call checks its own, so recursion here stays small.
    fn weight(&self) -> u32 {
        let atoms = self.terms.iter().flat_map(|term| term.monomial.iter());
        let weights = atoms.map(|(atom, _)| match atom {
            Atom::Symbol(_) => 1,
            Atom::Call(_, arguments) => 1 + arguments.0.weight() + arguments.1.weight(),
        });
        1 + self.terms.len() as u32 + weights.sum::<u32>()
    }

    /// `Some` when, with every symbol at least 1, `self <= other` holds always or never; `None`
    /// when it depends.
    #[must_use]
    pub fn is_at_most(&self, other: &Dim) -> Option<bool> {
        if let (Some((low, a)), Some((high, b))) = (self.as_floor(), other.as_floor())
            && a == b
        {
            // Rounding down after the same division keeps order, so comparing before it suffices.
            let is_ordered = low.is_at_most(&high);
            return is_ordered.filter(|is_ordered| *is_ordered);
        }
        let difference = other - self;
        if difference.is_overflow() {
            return None;
        }
        let (low, high) = difference.bounds();
        if low.is_some_and(|low| 0 <= low) {
            return Some(true);
        }
        if high.is_some_and(|high| high < 0) {
            return Some(false);
        }
        None
    }

    /// (numerator, divisor) of `constant + floor(n / divisor)`, the constant drawn into the
    /// numerator; `None` for any other form or a divisor that is no positive number.
    fn as_floor(&self) -> Option<(Dim, i128)> {
        let [Term { monomial, coefficient: 1 }] = self.terms.as_slice() else { return None };
        let [(Atom::Call(Function::FloorDiv, arguments), 1)] = &**monomial else {
            return None;
        };
        let divisor = arguments.1.as_constant().filter(|divisor| 0 < *divisor)?;
        let drawn = Dim::ZERO.with_constant(self.constant.checked_mul(divisor)?);
        Some((&arguments.0 + &drawn, divisor))
    }

    /// `Some` when the two are equal, or differ, whatever the symbols are.
    #[must_use]
    pub fn is_equal(&self, other: &Dim) -> Option<bool> {
        if self == other {
            return Some(true);
        }
        let (low, high) = (self - other).bounds();
        let apart = low.is_some_and(|low| 0 < low) || high.is_some_and(|high| high < 0);
        apart.then_some(false)
    }

    /// Lowest and highest value over all symbols of at least 1; `None` where there is no bound.
    /// Each atom counts as at least 0, a symbol as at least 1, which is sound because sizes are
    /// never negative.
    fn bounds(&self) -> (Option<i128>, Option<i128>) {
        if self.is_overflow() {
            return (None, None);
        }
        let (mut low, mut high) = (Some(self.constant), Some(self.constant));
        for term in &self.terms {
            let (term_low, term_high) = monomial_bounds(&term.monomial);
            let at_low = term_low.checked_mul(term.coefficient);
            let at_high = term_high.and_then(|most| most.checked_mul(term.coefficient));
            let (least, most) =
                if term.coefficient < 0 { (at_high, at_low) } else { (at_low, at_high) };
            low = low.zip(least).and_then(|(low, least)| low.checked_add(least));
            high = high.zip(most).and_then(|(high, most)| high.checked_add(most));
        }
        (low, high)
    }

    /// `self / divisor` when that is a polynomial with integer coefficients.
    #[must_use]
    pub fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        let by_zero = divisor.terms.is_empty() && divisor.constant == 0;
        if by_zero || self.is_overflow() || divisor.is_overflow() {
            return None;
        }
        let (lead_monomial, lead_coefficient) = divisor.leading();
        let mut rest = self.clone();
        let mut quotient = Dim::ZERO;
        // Each step cancels the leading term; a polynomial that divides needs one step per term
        // of the quotient.
        for _ in 0..MAX_TERMS {
            if rest == Dim::ZERO {
                return Some(quotient);
            }
            let (monomial, coefficient) = rest.leading();
            let shared = monomial_div(monomial, lead_monomial)?;
            if coefficient % lead_coefficient != 0 {
                return None;
            }
            let step = Dim::single(coefficient / lead_coefficient, shared);
            rest = &rest - &(&step * divisor);
            quotient = &quotient + &step;
            if rest.is_overflow() || quotient.is_overflow() {
                return None;
            }
        }
        None
    }

    /// The highest term in graded lexicographic order, which multiplication preserves: without
    /// that, polynomial division does not end.
    fn leading(&self) -> (&[(Atom, u32)], i128) {
        let highest = self.terms.iter().max_by(|a, b| graded_order(&a.monomial, &b.monomial));
        highest.map_or((&[], self.constant), |term| (&*term.monomial, term.coefficient))
    }

    fn with_constant(mut self, constant: i128) -> Dim {
        self.constant = constant;
        self
    }

    fn single(coefficient: i128, monomial: Monomial) -> Dim {
        if coefficient == 0 {
            return Dim::ZERO;
        }
        if monomial.is_empty() {
            return Dim::ZERO.with_constant(coefficient);
        }
        Dim { constant: 0, terms: smallvec![Term { monomial, coefficient }] }
    }

    /// Replaces symbols by what `binding` gives; a symbol it gives nothing for stays.
    #[must_use]
    pub fn substitute(&self, binding: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let mut total = Dim::ZERO.with_constant(self.constant);
        for term in &self.terms {
            let mut product = Dim::ZERO.with_constant(term.coefficient);
            for (atom, power) in term.monomial.iter() {
                let value = match atom {
                    Atom::Symbol(name) => binding(name).unwrap_or_else(|| Dim::atom(atom.clone())),
                    Atom::Call(function, arguments) => {
                        let a = arguments.0.substitute(binding);
                        let b = arguments.1.substitute(binding);
                        match function {
                            Function::FloorDiv => a.floor_div(&b),
                            Function::Min => a.minimum(&b),
                            Function::Max => a.maximum(&b),
                        }
                    }
                };
                for _ in 0..*power {
                    product = &product * &value;
                }
            }
            total = &total + &product;
        }
        total
    }

    /// The value with every symbol bound.
    ///
    /// # Errors
    /// A symbol without a value, a result beyond `i128`, or a division by zero.
    pub fn evaluate(&self, binding: &dyn Fn(&str) -> Option<i128>) -> Result<i128, DimError> {
        if self.is_overflow() {
            return Err(DimError::Overflow);
        }
        let mut total = self.constant;
        for term in &self.terms {
            let mut product = term.coefficient;
            for (atom, power) in term.monomial.iter() {
                let value = atom.evaluate(binding)?;
                let powered = value.checked_pow(*power).ok_or(DimError::Overflow)?;
                product = product.checked_mul(powered).ok_or(DimError::Overflow)?;
            }
            total = total.checked_add(product).ok_or(DimError::Overflow)?;
        }
        Ok(total)
    }

    /// The names of all symbols in it, each once, sorted.
    #[must_use]
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        self.collect_symbols(&mut names);
        names.sort();
        names.dedup();
        names
    }

    fn collect_symbols(&self, names: &mut Vec<Arc<str>>) {
        for (atom, _) in self.terms.iter().flat_map(|term| term.monomial.iter()) {
            match atom {
                Atom::Symbol(name) => names.push(Arc::clone(name)),
                Atom::Call(_, arguments) => {
                    arguments.0.collect_symbols(names);
                    arguments.1.collect_symbols(names);
                }
            }
        }
    }
}

impl Atom {
    fn evaluate(&self, binding: &dyn Fn(&str) -> Option<i128>) -> Result<i128, DimError> {
        match self {
            Atom::Symbol(name) => binding(name).ok_or_else(|| DimError::Unbound(name.to_string())),
            Atom::Call(function, arguments) => {
                let a = arguments.0.evaluate(binding)?;
                let b = arguments.1.evaluate(binding)?;
                match function {
                    Function::FloorDiv if b == 0 => {
                        Err(DimError::DivisionByZero(Dim::atom(self.clone()).to_string()))
                    }
                    Function::FloorDiv => {
                        // div_euclid rounds down for a positive divisor; mend the negative case.
                        let (quotient, remainder) = (a / b, a % b);
                        let below = remainder != 0 && (remainder < 0) != (b < 0);
                        Ok(if below { quotient - 1 } else { quotient })
                    }
                    Function::Min => Ok(a.min(b)),
                    Function::Max => Ok(a.max(b)),
                }
            }
        }
    }
}

/// Higher degree first counts as greater; then the higher power of the first atom that differs.
fn graded_order(a: &[(Atom, u32)], b: &[(Atom, u32)]) -> Ordering {
    let by_powers = || {
        for ((a_atom, a_power), (b_atom, b_power)) in a.iter().zip(b) {
            // The monomial without an atom has its power 0, so the smaller atom is the greater.
            let order = b_atom.cmp(a_atom).then(a_power.cmp(b_power));
            if order.is_ne() {
                return order;
            }
        }
        a.len().cmp(&b.len())
    };
    degree(a).cmp(&degree(b)).then_with(by_powers)
}

fn degree(monomial: &[(Atom, u32)]) -> u32 {
    monomial.iter().map(|(_, power)| *power).sum()
}

/// Lowest value of a product of atoms, and the highest when there is one.
fn monomial_bounds(monomial: &[(Atom, u32)]) -> (i128, Option<i128>) {
    let mut bounds = (1i128, Some(1i128));
    for (atom, power) in monomial {
        let (low, high) = match atom {
            Atom::Symbol(_) => (1, None),
            Atom::Call(Function::Min, arguments) => {
                let highs = (arguments.0.bounds().1, arguments.1.bounds().1);
                (both_low(arguments, i128::min), either(highs, i128::min))
            }
            Atom::Call(Function::Max, arguments) => {
                let highs = (arguments.0.bounds().1, arguments.1.bounds().1);
                (both_low(arguments, i128::max), highs.0.zip(highs.1).map(|(a, b)| a.max(b)))
            }
            Atom::Call(Function::FloorDiv, _) => (0, None),
        };
        for _ in 0..*power {
            bounds.0 = bounds.0.saturating_mul(low);
            bounds.1 = bounds.1.zip(high).and_then(|(a, b)| a.checked_mul(b));
        }
    }
    bounds
}

fn both_low(arguments: &(Dim, Dim), choose: fn(i128, i128) -> i128) -> i128 {
    let low = |dim: &Dim| dim.bounds().0.unwrap_or(0);
    choose(low(&arguments.0), low(&arguments.1)).max(0)
}

fn either(bounds: (Option<i128>, Option<i128>), choose: fn(i128, i128) -> i128) -> Option<i128> {
    match bounds {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (a, b) => a.or(b),
    }
}

fn monomial_mul(a: &[(Atom, u32)], b: &[(Atom, u32)]) -> Monomial {
    // Both are sorted by atom.
    let mut powers = Vec::with_capacity(a.len() + b.len());
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    while let (Some((x, x_power)), Some((y, y_power))) = (left.peek(), right.peek()) {
        match x.cmp(y) {
            Ordering::Less => powers.extend(left.next().cloned()),
            Ordering::Greater => powers.extend(right.next().cloned()),
            Ordering::Equal => {
                powers.push((x.clone(), x_power.saturating_add(*y_power)));
                left.next();
                right.next();
            }
        }
    }
    powers.extend(left.chain(right).cloned());
    Arc::from(powers)
}

fn monomial_div(a: &[(Atom, u32)], b: &[(Atom, u32)]) -> Option<Monomial> {
    let mut powers: BTreeMap<Atom, u32> = a.iter().cloned().collect();
    for (atom, power) in b {
        let left = powers.get_mut(atom)?;
        *left = left.checked_sub(*power)?;
    }
    Some(powers.into_iter().filter(|(_, power)| *power != 0).collect())
}

impl Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        if self.is_overflow() || other.is_overflow() {
            return Dim::OVERFLOW;
        }
        let Some(constant) = self.constant.checked_add(other.constant) else {
            return Dim::OVERFLOW;
        };
        match (self.terms.is_empty(), other.terms.is_empty()) {
            (true, _) => return Dim { constant, terms: other.terms.clone() },
            (_, true) => return Dim { constant, terms: self.terms.clone() },
            (false, false) => {}
        }
        merge(constant, &self.terms, &other.terms)
    }
}

/// Adds two sorted lists of terms in one pass.
fn merge(constant: i128, a: &[Term], b: &[Term]) -> Dim {
    let mut terms = Terms::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.monomial.cmp(&y.monomial),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        match order {
            Ordering::Less => terms.extend(a.next().cloned()),
            Ordering::Greater => terms.extend(b.next().cloned()),
            Ordering::Equal => {
                let (Some(x), Some(y)) = (a.next(), b.next()) else { break };
                let Some(coefficient) = x.coefficient.checked_add(y.coefficient) else {
                    return Dim::OVERFLOW;
                };
                if coefficient != 0 {
                    terms.push(Term { monomial: x.monomial.clone(), coefficient });
                }
            }
        }
    }
    if MAX_TERMS < terms.len() {
        return Dim::OVERFLOW;
    }
    Dim { constant, terms }
}

impl AddAssign<&Dim> for Dim {
    /// Adds in place: a total has all its terms after the first few additions.
    fn add_assign(&mut self, other: &Dim) {
        let sum = self.constant.checked_add(other.constant);
        let Some(constant) = sum.filter(|_| !self.is_overflow() && !other.is_overflow()) else {
            *self = Dim::OVERFLOW;
            return;
        };
        self.constant = constant;
        for term in &other.terms {
            // Most terms added up are copies of one another, and share their monomial.
            let shared = |known: &Term| Arc::ptr_eq(&known.monomial, &term.monomial);
            let place = match self.terms.iter().position(shared) {
                Some(place) => Ok(place),
                None => self.terms.binary_search_by(|known| known.monomial.cmp(&term.monomial)),
            };
            match place {
                Ok(found) => {
                    let known = &mut self.terms[found];
                    let Some(coefficient) = known.coefficient.checked_add(term.coefficient) else {
                        *self = Dim::OVERFLOW;
                        return;
                    };
                    known.coefficient = coefficient;
                    if coefficient == 0 {
                        self.terms.remove(found);
                    }
                }
                Err(_) if MAX_TERMS <= self.terms.len() => {
                    *self = Dim::OVERFLOW;
                    return;
                }
                Err(place) => self.terms.insert(place, term.clone()),
            }
        }
    }
}

impl Neg for &Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        &Dim::from(-1i64) * self
    }
}

impl Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        self + &-other
    }
}

impl Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        if self.is_overflow() || other.is_overflow() {
            return Dim::OVERFLOW;
        }
        if self.terms.is_empty() && other.terms.is_empty() {
            let product = self.constant.checked_mul(other.constant);
            return product
                .map_or(Dim::OVERFLOW, |constant| Dim { constant, terms: SmallVec::new_const() });
        }
        match (self.terms.as_slice(), other.terms.as_slice()) {
            ([], _) => return other.scaled(self.constant),
            (_, []) => return self.scaled(other.constant),
            ([a], [b]) if self.constant == 0 && other.constant == 0 => {
                let coefficient = a.coefficient.checked_mul(b.coefficient);
                let monomial = || monomial_mul(&a.monomial, &b.monomial);
                return coefficient.map_or(Dim::OVERFLOW, |c| Dim::single(c, monomial()));
            }
            _ => {}
        }
        let mut total = Dim::ZERO;
        for (a_monomial, a) in self.all_terms() {
            // The terms of a product of sums are neither sorted nor distinct, so every partial
            // product is built on its own and merged.
            let mut partial = Dim::ZERO;
            for (b_monomial, b) in other.all_terms() {
                let Some(coefficient) = a.checked_mul(b) else { return Dim::OVERFLOW };
                let monomial = match (a_monomial, b_monomial) {
                    ([], monomial) | (monomial, []) => Arc::from(monomial),
                    (a, b) => monomial_mul(a, b),
                };
                partial = &partial + &Dim::single(coefficient, monomial);
            }
            total = &total + &partial;
            if total.is_overflow() {
                return Dim::OVERFLOW;
            }
        }
        total
    }
}

impl Dim {
    /// A number times this; its terms keep their order.
    fn scaled(&self, factor: i128) -> Dim {
        if factor == 0 {
            return Dim::ZERO;
        }
        if factor == 1 {
            return self.clone();
        }
        let term = |term: &Term| {
            let coefficient = term.coefficient.checked_mul(factor)?;
            Some(Term { monomial: Arc::clone(&term.monomial), coefficient })
        };
        let terms: Option<Terms> = self.terms.iter().map(term).collect();
        match (self.constant.checked_mul(factor), terms) {
            (Some(constant), Some(terms)) => Dim { constant, terms },
            _ => Dim::OVERFLOW,
        }
    }

    /// Every term with the constant first, zeros left out.
    fn all_terms(&self) -> impl Iterator<Item = (&[(Atom, u32)], i128)> {
        let constant = (self.constant != 0).then_some((&[] as &[(Atom, u32)], self.constant));
        constant.into_iter().chain(self.terms.iter().map(|t| (&*t.monomial, t.coefficient)))
    }
}

impl std::iter::Sum for Dim {
    fn sum<I: Iterator<Item = Dim>>(dims: I) -> Dim {
        dims.fold(Dim::ZERO, |mut total, dim| {
            total += &dim;
            total
        })
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_overflow() {
            return formatter.write_str("(beyond 127 bits)");
        }
        // Low degree first reads as people write it: `123532032*batch*seq + 18432*batch*seq^2`.
        let mut terms: Vec<_> = self.all_terms().collect();
        terms.sort_by_key(|(monomial, _)| degree(monomial));
        if terms.is_empty() {
            return formatter.write_str("0");
        }
        for (term_idx, (monomial, coefficient)) in terms.into_iter().enumerate() {
            match (term_idx, coefficient < 0) {
                (0, false) => {}
                (0, true) => formatter.write_str("-")?,
                (_, false) => formatter.write_str(" + ")?,
                (_, true) => formatter.write_str(" - ")?,
            }
            write_term(formatter, monomial, coefficient.unsigned_abs())?;
        }
        Ok(())
    }
}

fn write_term(
    formatter: &mut fmt::Formatter<'_>,
    monomial: &[(Atom, u32)],
    coefficient: u128,
) -> fmt::Result {
    let mut is_first = true;
    if coefficient != 1 || monomial.is_empty() {
        write!(formatter, "{coefficient}")?;
        is_first = false;
    }
    for (atom, power) in monomial {
        if !is_first {
            formatter.write_str("*")?;
        }
        is_first = false;
        match atom {
            Atom::Symbol(name) => formatter.write_str(name)?,
            Atom::Call(function, arguments) => {
                let name = match function {
                    Function::FloorDiv => "floordiv",
                    Function::Min => "min",
                    Function::Max => "max",
                };
                write!(formatter, "{name}({}, {})", arguments.0, arguments.1)?;
            }
        }
        if *power != 1 {
            write!(formatter, "^{power}")?;
        }
    }
    Ok(())
}
