//! [`Einsum`]: an equation of labelled axes.
//!
//! Not here: what it costs (see [`crate::cost`]).

/// See [`Op::Einsum`](super::Op::Einsum). Labels are letters; an ellipsis must have been expanded by the importer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// The labels of each input's axes.
    pub inputs: Vec<Vec<char>>,
    /// The labels of the output's axes.
    pub output: Vec<char>,
}

impl Einsum {
    /// Reads `bij,bjk->bik` for inputs of the given ranks; an ellipsis becomes capital labels
    /// (or digits), aligned at its right end as broadcasting is.
    ///
    /// # Errors
    /// What is wrong with the equation.
    pub fn parse(equation: &str, ranks: &[usize]) -> Result<Einsum, String> {
        let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (terms, output) = match equation.split_once("->") {
            Some((terms, output)) => (terms, Some(output)),
            None => (equation.as_str(), None),
        };
        let terms: Vec<&str> = terms.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(format!("einsum `{equation}` with {} inputs", ranks.len()));
        }
        let mut inputs = Vec::with_capacity(terms.len());
        let mut n_ellipsis = 0;
        for (term, rank) in terms.iter().zip(ranks) {
            let named = term.replace("...", "").chars().count();
            let hidden = rank.checked_sub(named).ok_or("einsum names more axes than there are")?;
            n_ellipsis = n_ellipsis.max(if term.contains("...") { hidden } else { 0 });
            inputs.push(expand_ellipsis(term, hidden)?);
        }
        let output = match output {
            Some(output) => expand_ellipsis(output, n_ellipsis)?,
            None => implicit_output(&inputs),
        };
        Ok(Einsum { inputs, output })
    }
}

/// Labels of axes hidden behind `...`, the last one first; no equation can name them.
const ELLIPSIS: [char; 8] = ['0', '1', '2', '3', '4', '5', '6', '7'];

fn expand_ellipsis(term: &str, hidden: usize) -> Result<Vec<char>, String> {
    let hidden = if term.contains("...") { hidden } else { 0 };
    let labels = ELLIPSIS.get(..hidden).ok_or("an ellipsis for more than 8 axes")?;
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    if !before.chars().chain(after.chars()).all(|label| label.is_ascii_alphabetic()) {
        return Err(format!("einsum term `{term}`"));
    }
    Ok(before.chars().chain(labels.iter().rev().copied()).chain(after.chars()).collect())
}

/// Without `->`, the labels that occur once, in alphabetical order, after the ellipsis.
fn implicit_output(inputs: &[Vec<char>]) -> Vec<char> {
    let mut labels: Vec<char> = inputs.iter().flatten().copied().collect();
    labels.sort_unstable();
    let occurs_once = |label: &char| {
        label.is_ascii_digit() || labels.iter().filter(|other| *other == label).count() == 1
    };
    let mut output: Vec<char> = labels.iter().copied().filter(occurs_once).collect();
    output.dedup();
    output
}
