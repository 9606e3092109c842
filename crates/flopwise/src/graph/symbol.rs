//! Symbols of a graph, the values they may take, and binding them to numbers.

use super::dim::{Dim, DimError};
use super::tensor::Graph;
use std::collections::BTreeMap;
use std::fmt;

/// End of the names of symbols that count the rounds of a loop.
pub const ROUNDS: &str = ".rounds";

/// A size left open by the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// The name printed and bound: `batch`.
    pub name: String,
    /// The file's own name, and other names accepted for it: `s72`.
    pub aliases: Vec<String>,
    /// The smallest value the file allows.
    pub min: i128,
    /// The largest value the file allows, where it says.
    pub max: Option<i128>,
    /// Where it first stands: `dim 0 of input x`.
    pub place: String,
    /// For a size or a number of rounds that only the data decide: the most it can be, in the
    /// other symbols, where that is known. It is taken when the user says nothing.
    pub at_most: Option<Dim>,
}

/// Something that must hold between two sizes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// How they relate.
    pub relation: Relation,
    /// One size.
    pub left: Dim,
    /// The other.
    pub right: Dim,
    /// Name of the node that needs it.
    pub node: String,
}

/// How two sizes relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// left = right.
    Equal,
    /// left = right, or right = 1.
    Broadcast,
    /// left <= right.
    AtMost,
}

impl fmt::Display for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match self.relation {
            Relation::Equal | Relation::Broadcast => "=",
            Relation::AtMost => "<=",
        };
        write!(formatter, "{} {relation} {}", self.left, self.right)
    }
}

/// Values for symbols, by the graph's own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings(pub BTreeMap<String, i128>);

/// Bindings that a graph cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No such symbol.
    #[error("`{name}` is not a symbol of this model; {known}")]
    UnknownSymbol {
        /// What was bound.
        name: String,
        /// The symbols there are, as a sentence.
        known: String,
    },
    /// A size that its expression never takes.
    #[error("{size} is {dim} in this model, which is never {value}")]
    NoSuchSize {
        /// The size, as typed.
        size: String,
        /// The value asked for.
        value: i128,
        /// The size in symbols.
        dim: String,
    },
    /// Bound twice, under two names, to different values.
    #[error("`{name}` is bound to both {first} and {second}")]
    BoundTwice {
        /// The symbol.
        name: String,
        /// One value.
        first: i128,
        /// The other.
        second: i128,
    },
    /// Outside what the file allows.
    #[error("{name}={value} is out of range: this model takes {name} from {min} to {max}")]
    OutOfRange {
        /// The symbol.
        name: String,
        /// The value asked for.
        value: i128,
        /// The least allowed.
        min: i128,
        /// The most allowed, or a word for no limit.
        max: String,
    },
    /// Two sizes that must agree do not.
    #[error(
        "{bindings} contradicts the model: node `{node}` needs {constraint}, got {left} and {right}"
    )]
    Contradiction {
        /// The bindings, as typed.
        bindings: String,
        /// The node that needs agreement.
        node: String,
        /// The constraint in symbols.
        constraint: String,
        /// The left side's value.
        left: i128,
        /// The right side's value.
        right: i128,
    },
    /// A size without a value.
    #[error(transparent)]
    Dim(#[from] DimError),
}

impl Bindings {
    /// Checks `typed` names and values against the graph's symbols (own names and aliases), ranges
    /// and constraints.
    ///
    /// # Errors
    /// [`BindError`] names the symbol or the node that contradicts.
    pub fn resolve(graph: &Graph, typed: &[(String, i128)]) -> Result<Bindings, BindError> {
        let mut bindings = BTreeMap::new();
        for (name, value) in typed {
            let (symbol, value) = match find(graph, name) {
                Some(symbol) => (symbol, *value),
                None => solve(graph, name, *value)?,
            };
            let is_inside = symbol.min <= value && symbol.max.is_none_or(|max| value <= max);
            if !is_inside {
                return Err(BindError::OutOfRange {
                    name: symbol.name.clone(),
                    value,
                    min: symbol.min,
                    max: symbol.max.map_or_else(|| "any size".to_owned(), |max| max.to_string()),
                });
            }
            if let Some(first) = bindings.insert(symbol.name.clone(), value)
                && first != value
            {
                let name = symbol.name.clone();
                return Err(BindError::BoundTwice { name, first, second: value });
            }
        }
        let bindings = Bindings(bindings);
        bindings.check(graph)?;
        Ok(bindings)
    }

    /// Evaluates every constraint whose symbols are all bound.
    fn check(&self, graph: &Graph) -> Result<(), BindError> {
        let value_of = |name: &str| self.0.get(name).copied();
        for constraint in &graph.constraints {
            let sides = (constraint.left.evaluate(&value_of), constraint.right.evaluate(&value_of));
            let (Ok(left), Ok(right)) = sides else { continue };
            let holds = match constraint.relation {
                Relation::Equal => left == right,
                Relation::Broadcast => left == right || right == 1,
                Relation::AtMost => left <= right,
            };
            if !holds {
                let bindings = self.0.iter().map(|(name, value)| format!("{name}={value}"));
                return Err(BindError::Contradiction {
                    bindings: bindings.collect::<Vec<_>>().join(","),
                    node: constraint.node.clone(),
                    constraint: constraint.to_string(),
                    left,
                    right,
                });
            }
        }
        Ok(())
    }

    /// The value of `dim` under these bindings.
    ///
    /// # Errors
    /// A symbol without a value, or a result beyond `i128`.
    pub fn evaluate(&self, dim: &Dim) -> Result<i128, DimError> {
        dim.evaluate(&|name| self.0.get(name).copied())
    }

    /// `dim` with the bound symbols replaced; others stay.
    #[must_use]
    pub fn substitute(&self, dim: &Dim) -> Dim {
        dim.substitute(&|name| {
            let value = self.0.get(name).copied()?;
            Some(u128::try_from(value).map_or(Dim::OVERFLOW, Dim::from))
        })
    }
}

fn find<'g>(graph: &'g Graph, name: &str) -> Option<&'g Symbol> {
    let is_meant =
        |symbol: &&Symbol| symbol.name == name || symbol.aliases.iter().any(|alias| alias == name);
    graph.symbols.iter().find(is_meant)
}

/// `x.dim2=224` where that size is `4*s56`: the symbol, and the value that makes it so.
fn solve<'g>(graph: &'g Graph, name: &str, value: i128) -> Result<(&'g Symbol, i128), BindError> {
    let unknown =
        || BindError::UnknownSymbol { name: name.to_owned(), known: known_symbols(graph) };
    let (input, axis) = name.rsplit_once(".dim").ok_or_else(unknown)?;
    let axis: usize = axis.parse().map_err(|_| unknown())?;
    let tensors = graph.inputs.iter().map(|id| graph.tensor(*id));
    let tensor = tensors.into_iter().find(|tensor| tensor.name == input).ok_or_else(unknown)?;
    let sizes = tensor.tensor_type.as_ref().map(|known| &known.shape.0);
    let dim = sizes.and_then(|sizes| sizes.get(axis)).ok_or_else(unknown)?;
    let symbols = dim.symbols();
    let [symbol] = symbols.as_slice() else { return Err(unknown()) };
    let symbol = find(graph, symbol).ok_or_else(unknown)?;
    // Linear: the size at 0 and the step from 1 to 2 tell the whole line; checked at the end.
    let at = |n: i128| dim.evaluate(&|_| Some(n));
    let (first, second) = (at(1)?, at(2)?);
    let step = second.checked_sub(first).filter(|step| *step != 0).ok_or_else(unknown)?;
    let solution = value.checked_sub(first).map_or(0, |above| above / step + 1);
    if at(solution)? != value {
        let (size, dim) = (name.to_owned(), dim.to_string());
        return Err(BindError::NoSuchSize { size, value, dim });
    }
    Ok((symbol, solution))
}

fn known_symbols(graph: &Graph) -> String {
    if graph.symbols.is_empty() {
        return "its shapes are all fixed".to_owned();
    }
    let describe = |symbol: &Symbol| match symbol.aliases.first() {
        Some(alias) => format!("{} (in the file {alias})", symbol.name),
        None => symbol.name.clone(),
    };
    let names: Vec<String> = graph.symbols.iter().map(describe).collect();
    format!("its symbols are {}", names.join(", "))
}
