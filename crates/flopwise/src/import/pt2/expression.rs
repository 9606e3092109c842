//! Size expressions in exported programs -> [`Dim`].
//!
//! Two grammars occur: `str()` of a SymPy expression (`2*s0 + 1`, `(s0 - 1)//2`; PyTorch 2.5) and
//! `srepr()` (`Mul(Integer(2), Symbol('s77', positive=True, integer=True))`; later). One parser
//! reads both, since a call is an expression too.
//!
//! Not here: which names the symbols get; the caller gives a function for that.

use crate::graph::Dim;

/// Nesting in real expressions stays below ten; deeper is damage.
const MAX_DEPTH: usize = 64;
/// `Pow(s, Integer(n))` with a larger n is no size.
const MAX_POWER: i128 = 16;
/// Digits after the point of a factor; a double has 17.
const MAX_DIGITS: usize = 20;

/// Reads `text`; `symbol` turns a symbol's name in the file into a [`Dim`]. `None` when the text
/// is no expression known here or its value is no integer polynomial.
pub(super) fn parse(text: &str, symbol: &dyn Fn(&str) -> Dim) -> Option<Dim> {
    let mut parser = Parser { rest: text, symbol, depth: 0 };
    let value = parser.sum()?;
    parser.skip_spaces();
    if !parser.rest.is_empty() {
        return None;
    }
    value.whole()
}

/// A quotient of two sizes; SymPy writes `s/2` as `Mul(Rational(1, 2), s)` under a `floor`.
#[derive(Clone)]
struct Ratio {
    numerator: Dim,
    denominator: Dim,
}

impl Ratio {
    fn of(numerator: Dim) -> Ratio {
        Ratio { numerator, denominator: Dim::ONE }
    }

    fn whole(&self) -> Option<Dim> {
        self.numerator.exact_div(&self.denominator)
    }

    fn floor(&self) -> Ratio {
        Ratio::of(self.numerator.floor_div(&self.denominator))
    }

    fn ceiling(&self) -> Ratio {
        Ratio::of(self.numerator.ceil_div(&self.denominator))
    }

    fn times(&self, other: &Ratio) -> Ratio {
        Ratio {
            numerator: &self.numerator * &other.numerator,
            denominator: &self.denominator * &other.denominator,
        }
    }

    fn plus(&self, other: &Ratio) -> Ratio {
        let left = &self.numerator * &other.denominator;
        let right = &other.numerator * &self.denominator;
        Ratio { numerator: &left + &right, denominator: &self.denominator * &other.denominator }
    }

    fn inverse(&self) -> Option<Ratio> {
        let is_zero = self.numerator == Dim::ZERO;
        let (numerator, denominator) = (self.denominator.clone(), self.numerator.clone());
        (!is_zero).then_some(Ratio { numerator, denominator })
    }

    fn power(&self, exponent: i128) -> Option<Ratio> {
        let base = if exponent < 0 { self.inverse()? } else { self.clone() };
        let n_factors = i128::try_from(exponent.unsigned_abs()).ok()?;
        if MAX_POWER < n_factors {
            return None;
        }
        Some((0..n_factors).fold(Ratio::of(Dim::ONE), |product, _| product.times(&base)))
    }
}

struct Parser<'a> {
    rest: &'a str,
    symbol: &'a dyn Fn(&str) -> Dim,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn sum(&mut self) -> Option<Ratio> {
        if MAX_DEPTH <= self.depth {
            return None;
        }
        self.depth += 1;
        let mut total = self.product()?;
        loop {
            if self.take("+") {
                total = total.plus(&self.product()?);
            } else if self.take("-") {
                let term = self.product()?;
                total = total.plus(&Ratio::of(Dim::from(-1i64)).times(&term));
            } else {
                self.depth -= 1;
                return Some(total);
            }
        }
    }

    fn product(&mut self) -> Option<Ratio> {
        let mut total = self.signed()?;
        loop {
            if self.take("//") {
                total = total.times(&self.signed()?.inverse()?).floor();
            } else if self.take("/") {
                total = total.times(&self.signed()?.inverse()?);
            } else if self.take("%") {
                let divisor = self.signed()?.whole()?;
                total = Ratio::of(total.whole()?.modulo(&divisor));
            } else if self.take("*") {
                total = total.times(&self.signed()?);
            } else {
                return Some(total);
            }
        }
    }

    fn signed(&mut self) -> Option<Ratio> {
        if self.take("-") {
            let negated = self.raised()?;
            return Some(Ratio::of(Dim::from(-1i64)).times(&negated));
        }
        self.raised()
    }

    fn raised(&mut self) -> Option<Ratio> {
        let base = self.primary()?;
        if !self.take("**") {
            return Some(base);
        }
        let sign = if self.take("-") { -1 } else { 1 };
        let exponent = self.primary()?.whole()?.as_constant()?;
        base.power(sign * exponent)
    }

    fn primary(&mut self) -> Option<Ratio> {
        if self.take("(") {
            let inner = self.sum()?;
            return self.take(")").then_some(inner);
        }
        self.skip_spaces();
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let number = self.take_while(|c| c.is_ascii_digit() || c == '.');
            return decimal(number);
        }
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if name.is_empty() {
            return None;
        }
        if !self.take("(") {
            return Some(Ratio::of((self.symbol)(name)));
        }
        if name == "Float" {
            return self.float_call();
        }
        if name == "Symbol" || name == "Dummy" {
            return self.symbol_call();
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            arguments.push(self.sum()?);
            if !self.take(",") && !self.rest.trim_start().starts_with(')') {
                return None;
            }
        }
        call(name, &arguments)
    }

    /// `'1.5', precision=53)`, after `Float(`.
    fn float_call(&mut self) -> Option<Ratio> {
        self.skip_spaces();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        self.rest = &self.rest[1..];
        let sign = if self.take("-") { -1i64 } else { 1 };
        let value = decimal(self.take_while(|c| c != quote))?;
        self.take_while(|c| c != ')');
        self.take(")").then_some(Ratio::of(Dim::from(sign)).times(&value))
    }

    /// `'s77', positive=True, integer=True)`, after `Symbol(`.
    fn symbol_call(&mut self) -> Option<Ratio> {
        self.skip_spaces();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        self.rest = &self.rest[1..];
        let name = self.take_while(|c| c != quote);
        let symbol = (self.symbol)(name);
        self.take_while(|c| c != ')');
        self.take(")").then_some(Ratio::of(symbol))
    }
}

/// `12`, `1.5`: digits, exactly. More of them than a size needs are refused.
fn decimal(text: &str) -> Option<Ratio> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = part.trim_end_matches('0');
    if MAX_DIGITS < part.len() || whole.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{part}").parse().ok()?;
    let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    Some(Ratio { numerator: Dim::from(digits), denominator: Dim::from(scale) })
}

/// 2^n for a small n.
fn two_to(exponent: &Ratio) -> Option<Ratio> {
    let exponent = u32::try_from(exponent.whole()?.as_constant()?).ok()?;
    Some(Ratio::of(Dim::from(1i64.checked_shl(exponent).filter(|_| exponent < 62)?)))
}

/// The functions that torch.utils._sympy.functions and SymPy write.
fn call(name: &str, arguments: &[Ratio]) -> Option<Ratio> {
    let fold = |combine: fn(&Dim, &Dim) -> Dim| {
        let mut wholes = arguments.iter().map(Ratio::whole);
        let first = wholes.next()??;
        let total = wholes.try_fold(first, |total, next| Some(combine(&total, &next?)));
        total.map(Ratio::of)
    };
    let name = name.rsplit('.').next().unwrap_or(name);
    match (name, arguments) {
        ("Integer", [value]) => Some(value.clone()),
        ("Rational", [a, b]) => Some(a.times(&b.inverse()?)),
        ("Mul", factors) => {
            Some(factors.iter().fold(Ratio::of(Dim::ONE), |product, f| product.times(f)))
        }
        ("Add", terms) => Some(terms.iter().fold(Ratio::of(Dim::ZERO), |total, t| total.plus(t))),
        ("Pow" | "PowByNatural", [base, exponent]) => base.power(exponent.whole()?.as_constant()?),
        ("Min", _) => fold(Dim::minimum),
        ("Max", _) => fold(Dim::maximum),
        ("FloorDiv" | "CleanDiv", [a, b]) => Some(a.times(&b.inverse()?).floor()),
        ("IntTrueDiv", [a, b]) => Some(a.times(&b.inverse()?)),
        ("CeilDiv", [a, b]) => Some(a.times(&b.inverse()?).ceiling()),
        ("Mod" | "PythonMod", [a, b]) => Some(Ratio::of(a.whole()?.modulo(&b.whole()?))),
        ("floor" | "FloorToInt" | "TruncToInt", [value]) => Some(value.floor()),
        ("ceiling" | "CeilToInt", [value]) => Some(value.ceiling()),
        ("ToFloat" | "Identity", [value]) => Some(value.clone()),
        ("FloatTrueDiv", [a, b]) => Some(a.times(&b.inverse()?)),
        ("FloatPow", [base, exponent]) => base.power(exponent.whole()?.as_constant()?),
        ("ModularIndexing", [a, b, c]) => {
            let quotient = a.times(&b.inverse()?).floor().whole()?;
            Some(Ratio::of(quotient.modulo(&c.whole()?)))
        }
        ("RShift", [a, b]) => Some(a.times(&two_to(b)?.inverse()?).floor()),
        ("LShift", [a, b]) => Some(a.times(&two_to(b)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTED: &str = "floordiv(a, 2) - 8*floordiv(floordiv(a, 2), 8)";

    #[test]
    fn both_grammars_are_read() {
        let check = |text: &str, expected: &str| {
            let dim = parse(text, &Dim::symbol).map(|dim| dim.to_string());
            assert_eq!(dim.as_deref(), Some(expected), "{text}");
        };
        check("s0", "s0");
        check("2*s0 + 1", "1 + 2*s0");
        check("(s0 - 1)//2 + 1", "floordiv(1 + s0, 2)");
        check("2**3*s0", "8*s0");
        check("s0**2*3", "3*s0^2");
        check("-s0 + 8", "8 - s0");
        check("Symbol('s77', positive=True, integer=True)", "s77");
        check("Mul(Integer(768), Symbol('s70', positive=True, integer=True))", "768*s70");
        check("Pow(Symbol('s70', integer=True), Integer(2))", "s70^2");
        check("floor(Mul(Rational(1, 2), Symbol('s0')))", "floordiv(s0, 2)");
        check("Add(Integer(-1), Symbol('u0'))", "-1 + u0");
        check("Min(Integer(768), Mul(Integer(768), Symbol('s70')))", "768");
        check("FloorDiv(Add(Symbol('a'), Integer(3)), Integer(4))", "floordiv(3 + a, 4)");
        check("floor(Mul(Float('1.5', precision=53), Symbol('a')))", "a + floordiv(5*a, 10)");
        check("TruncToInt(Mul(Float('2.0', precision=53), ToFloat(Symbol('a'))))", "2*a");
        check("ModularIndexing(Symbol('a'), Integer(2), Integer(8))", PARTED);
        check("RShift(Symbol('a'), Integer(3))", "floordiv(a, 8)");
        check("CeilDiv(Symbol('a'), Integer(4))", "floordiv(3 + a, 4)");
        check("Max(Integer(4), Symbol('u0'))", "max(u0, 4)");
        check("torch.utils._sympy.functions.Mod(Symbol('a'), Integer(4))", "a - 4*floordiv(a, 4)");
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "s0 +", "Mul(", "Symbol(s0)", "f(s0)", "s0/2", "s0**99999", "1/0", "a b"] {
            assert_eq!(parse(text, &Dim::symbol), None, "{text}");
        }
        assert_eq!(parse(&"(".repeat(100_000), &Dim::symbol), None);
        assert_eq!(parse(&"-".repeat(100_000), &Dim::symbol), None);
    }
}
