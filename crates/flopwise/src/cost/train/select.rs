//! Which parameters are trained, by patterns over their full names, and which results the loss is
//! made of.
//!
//! Not here: what follows from it.

use crate::cost::backward::is_float;
use crate::error::Error;
use crate::graph::{Graph, Role, TensorId};
use std::convert::Infallible;
use std::str::FromStr;

/// A list of patterns such as `layer4.*,fc.*,!*.bias`: a name matches if one of them does and none
/// of those behind `!` does; without any but those, everything else matches. `*` stands for any
/// characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl FromStr for Patterns {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Patterns, Infallible> {
        let patterns = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        let (unwanted, wanted): (Vec<&str>, Vec<&str>) =
            patterns.partition(|pattern| pattern.starts_with('!'));
        Ok(Patterns {
            wanted: wanted.into_iter().map(str::to_owned).collect(),
            unwanted: unwanted.into_iter().map(|pattern| pattern[1..].to_owned()).collect(),
        })
    }
}

impl Patterns {
    fn matches(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| is_match(pattern, name));
        (self.wanted.is_empty() || any(&self.wanted)) && !any(&self.unwanted)
    }

    /// A pattern that matches none of the names is a typing error.
    fn check(&self, names: &[&str]) -> Result<(), Error> {
        for pattern in self.wanted.iter().chain(&self.unwanted) {
            if !names.iter().any(|name| is_match(pattern, name)) {
                let examples: Vec<&str> = names.iter().copied().take(3).collect();
                let text = format!("no parameter of the model matches `{pattern}`");
                let hint = format!("its parameters are called {} ...", examples.join(", "));
                return Err(Error::new(text).remedy(hint));
            }
        }
        Ok(())
    }
}

/// Whether a pattern with `*` and `?` matches a whole name: on a mismatch the last star takes one
/// character more, so the time is at most the product of both lengths.
fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some('*') => {
                star = Some((at_pattern, at_name));
                at_pattern += 1;
            }
            Some(expected) if *expected == '?' || *expected == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
            }
            Some(_) | None => {
                let Some((star_at, taken_to)) = star else { return false };
                star = Some((star_at, taken_to + 1));
                at_pattern = star_at + 1;
                at_name = taken_to + 1;
            }
        }
    }
    pattern[at_pattern..].iter().all(|rest| *rest == '*')
}

/// For each tensor whether it is a trained parameter: all floating-point ones, or those that `only`
/// names, less those that `freeze` names.
///
/// # Errors
/// A pattern that matches no parameter.
pub fn select(
    graph: &Graph,
    only: Option<&Patterns>,
    freeze: Option<&Patterns>,
) -> Result<Vec<bool>, Error> {
    let parameters = graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter);
    let names: Vec<&str> = parameters.map(|tensor| tensor.name.as_str()).collect();
    for patterns in [only, freeze].into_iter().flatten() {
        patterns.check(&names)?;
    }
    let is_trained = graph.tensors.iter().map(|tensor| {
        tensor.role == Role::Parameter
            && is_float(tensor.tensor_type.as_ref())
            && only.is_none_or(|only| only.matches(&tensor.name))
            && freeze.is_none_or(|freeze| !freeze.matches(&tensor.name))
    });
    Ok(is_trained.collect())
}

/// The results that get a gradient: those called `names`, or every floating-point one.
///
/// # Errors
/// A name that no result has.
pub fn seeds(graph: &Graph, names: &[String]) -> Result<Vec<TensorId>, Error> {
    let outputs = || graph.outputs.iter().copied();
    if names.is_empty() {
        let is_seed = |id: &TensorId| is_float(graph.tensor(*id).tensor_type.as_ref());
        return Ok(outputs().filter(is_seed).collect());
    }
    let find = |name: &String| {
        outputs().find(|id| graph.tensor(*id).name == *name).ok_or_else(|| {
            let known: Vec<&str> = outputs().map(|id| graph.tensor(id).name.as_str()).collect();
            Error::new(format!("the model has no result called `{name}`"))
                .remedy(format!("its results are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(patterns: &str, name: &str, expected: bool) {
        let Ok(patterns) = patterns.parse::<Patterns>();
        assert_eq!(patterns.matches(name), expected, "{patterns:?} {name}");
    }

    #[test]
    fn patterns_match_whole_names() {
        check("fc.weight", "fc.weight", true);
        check("fc", "fc.weight", false);
        check("fc.*", "fc.weight", true);
        check("*.bias", "layer1.0.bn1.bias", true);
        check("layer?.0.*", "layer1.0.bn1.bias", true);
        check("layer?.0.*", "layer10.0.bn1.bias", false);
        check("*a*b*c", "xaybzc", true);
        check("*a*b*c", "xaybzcd", false);
        check("layer4.*,fc.*", "fc.bias", true);
        check("layer4.*,fc.*,!*.bias", "fc.bias", false);
        check("!*.bias", "fc.weight", true);
        check("!*.bias", "fc.bias", false);
        check("", "anything", true);
        check("*", "", true);
        check("?", "", false);
    }
}
