//! Symbols of an exported program: their names, their ranges, and the expressions made of them.
//!
//! Not here: the grammar of expressions (`expression.rs`).

use super::schema::{GraphJson, NodeJson, RangeConstraint, SymInt, TensorMeta};
use super::{Importer, expression, format_of, input_names, ops};
use crate::graph::{Dim, Role, Shape, Symbol, TensorId, TensorType};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// PyTorch writes its own infinity as a large number in some versions; no size is this large.
const NO_MAXIMUM: i128 = 1 << 61;

/// Characters shown of an expression that is not understood.
const MAX_SHOWN: usize = 80;

/// What is known of symbols.
#[derive(Default)]
pub(super) struct Symbols<'a> {
    /// The graph's name for each symbol of the file.
    names: BTreeMap<String, String>,
    /// The graph's names of symbols that have been described.
    known: HashSet<String>,
    /// Every expression of the file.
    read: HashMap<&'a str, Dim>,
    n_unread: usize,
    /// Sizes that only the data decide.
    decided: Vec<String>,
}

impl<'a> Importer<'a> {
    /// Exported symbols have no names (`s72`): each is named by where it first stands alone. Dim 0
    /// of an input is `batch`, dim 1 of an integer input is `seq`, any other `INPUT.dimN`. One that
    /// never stands alone (`4*s56`) keeps the file's name.
    pub(super) fn name_symbols(&mut self, stored: &HashMap<&str, (Role, &str)>) {
        let graph = &self.program.graph_module.graph;
        let mut compound = Vec::new();
        for input in graph.inputs.iter().filter_map(|input| input.as_tensor()) {
            let meta = graph.tensor_values.get(&input.name);
            let Some(meta) = meta.filter(|_| !stored.contains_key(&*input.name)) else { continue };
            for (axis, size) in meta.sizes.iter().enumerate() {
                let Some(expression) = &size.as_expr else { continue };
                let dim = expression::parse(&expression.expr_str, &Dim::symbol);
                let Some(dim) = dim else { continue };
                let place = format!("dim {axis} of input {}", input.name);
                match dim.symbols().as_slice() {
                    [symbol] if dim == Dim::symbol(symbol) => {
                        let name = self.positional_name(&input.name, axis, meta);
                        self.name_symbol(symbol, name, place);
                    }
                    symbols => compound.push((symbols.to_vec(), format!("{place} is {dim}"))),
                }
            }
        }
        for (symbols, place) in compound {
            for symbol in symbols {
                self.name_symbol(&symbol, symbol.to_string(), place.clone());
            }
        }
    }

    fn positional_name(&self, input: &str, axis: usize, meta: &TensorMeta) -> String {
        let is_integer = format_of(meta.dtype).is_some_and(|format| !format.is_float());
        let usual = match (axis, is_integer) {
            (0, _) => Some("batch"),
            (1, true) => Some("seq"),
            _ => None,
        };
        let is_free = |name: &&str| !self.symbols.names.values().any(|taken| taken == name);
        usual.filter(is_free).map_or_else(|| format!("{input}.dim{axis}"), str::to_owned)
    }

    fn name_symbol(&mut self, file_name: &str, name: String, place: String) {
        if self.symbols.names.contains_key(file_name) {
            return;
        }
        self.symbols.names.insert(file_name.to_owned(), name.clone());
        self.symbols.known.insert(name.clone());
        let range = self.program.range_constraints.get(file_name);
        let (min, max) = range.map_or((1, None), bounds);
        let is_renamed = name != file_name;
        let aliases = if is_renamed { vec![file_name.to_owned()] } else { Vec::new() };
        self.builder.symbol(Symbol { name, aliases, min, max, place, at_most: None });
    }

    pub(super) fn tensor_type(&self, graph: &GraphJson, name: &str) -> Option<TensorType> {
        let meta = graph.tensor_values.get(name)?;
        let sizes: Option<Vec<Dim>> = meta.sizes.iter().map(|size| self.dim(size)).collect();
        Some(TensorType { shape: Shape(sizes?), format: format_of(meta.dtype)? })
    }

    pub(super) fn dim(&self, size: &SymInt) -> Option<Dim> {
        match (&size.as_expr, size.as_int) {
            (_, Some(number)) => Some(Dim::from(number)),
            (Some(expression), None) => self.symbols.read.get(&*expression.expr_str).cloned(),
            (None, None) => None,
        }
    }

    /// Reads every expression of the file once. One that is not understood becomes a symbol of its
    /// own, so that what follows from it can still be counted.
    pub(super) fn read_expressions(&mut self, graph: &'a GraphJson<'a>) {
        let mut texts = BTreeSet::new();
        collect_expressions(graph, &mut texts);
        for text in texts {
            let parsed = expression::parse(text, &|file_name| {
                let name = self.symbols.names.get(file_name).map_or(file_name, String::as_str);
                Dim::symbol(name)
            });
            let dim = parsed.unwrap_or_else(|| self.unread(text));
            self.symbols.read.insert(text, dim);
        }
    }

    fn unread(&mut self, text: &str) -> Dim {
        self.symbols.n_unread += 1;
        let name = format!("expression{}", self.symbols.n_unread);
        let shown: String = text.chars().take(MAX_SHOWN).collect();
        let more = if shown.len() < text.len() { "..." } else { "" };
        self.symbols.known.insert(name.clone());
        self.builder.symbol(Symbol {
            name: name.clone(),
            aliases: Vec::new(),
            min: 0,
            max: None,
            place: format!("the file writes {shown}{more}"),
            at_most: None,
        });
        Dim::symbol(&name)
    }

    /// Adds the symbols that a node is the first to show: sizes that the data decide, with the most
    /// they can be where that is known.
    pub(super) fn meet_symbols(
        &mut self,
        node: &NodeJson,
        outputs: &[(&'a str, Option<TensorType>)],
        tensors: &HashMap<&'a str, TensorId>,
    ) {
        let lengths = outputs.iter().filter_map(|(_, declared)| declared.as_ref());
        let open = lengths.flat_map(|declared| &declared.shape.0);
        let open = open.filter(|dim| dim.as_constant().is_none());
        let symbols: BTreeSet<Arc<str>> = open.flat_map(Dim::symbols).collect();
        for symbol in symbols {
            if self.symbols.known.contains(&*symbol) {
                continue;
            }
            let range = self.program.range_constraints.get(&*symbol);
            let (min, max) = range.map_or((0, None), exact_bounds);
            let operand = node.inputs.iter().flat_map(|argument| input_names(&argument.arg)).next();
            let operand = operand.and_then(|name| tensors.get(name));
            let known = operand.and_then(|id| self.builder.get(*id).tensor_type.as_ref());
            let base = node.target.split('.').nth(3).unwrap_or_default();
            let most = known.and_then(|known| ops::most_results(base, &known.shape.0));
            let at_most = most.or_else(|| Some(Dim::from(u128::try_from(max?).ok()?)));
            self.symbols.known.insert(symbol.to_string());
            self.symbols.decided.push(symbol.to_string());
            self.builder.symbol(Symbol {
                name: symbol.to_string(),
                aliases: Vec::new(),
                min,
                max,
                place: format!("decided by the data in `{}`", node.target),
                at_most,
            });
        }
    }

    pub(super) fn note_open_sizes(&mut self) {
        let decided = &self.symbols.decided;
        if decided.is_empty() {
            return;
        }
        let shown: Vec<&str> = decided.iter().take(3).map(String::as_str).collect();
        let more = if shown.len() < decided.len() { ", ..." } else { "" };
        let (count, names) = (decided.len(), shown.join(", "));
        let sizes = if count == 1 { "1 size is" } else { &format!("{count} sizes are") };
        self.builder.note(format!(
            "{sizes} decided by the data ({names}{more}); each is taken at the most it can be, where \
             that is known, unless --bind says otherwise"
        ));
    }
}

fn collect_expressions<'a>(graph: &'a GraphJson<'a>, texts: &mut BTreeSet<&'a str>) {
    let sizes = graph.tensor_values.values().flat_map(|meta| &meta.sizes);
    let expressions = sizes.chain(graph.sym_int_values.values());
    let expressions = expressions.filter_map(|size| size.as_expr.as_ref());
    texts.extend(expressions.map(|expression| &*expression.expr_str));
    // As deep as the JSON, which the parser limits.
    for argument in graph.nodes.iter().flat_map(|node| &node.inputs) {
        if let Some(inner) = argument.arg.as_graph() {
            collect_expressions(&inner.graph, texts);
        }
    }
}

/// Lower and upper bound. PyTorch writes 2 as the lower bound of a symbol it merely did not
/// specialise to 0 or 1, so 2 says no more than 1.
fn bounds(range: &RangeConstraint) -> (i128, Option<i128>) {
    let [min_val, max_val] = range.numbers();
    let min = min_val.filter(|min| 2 < *min).unwrap_or(1);
    (min, max_val.filter(|max| *max < NO_MAXIMUM && min <= *max))
}

/// The bounds as they stand, for sizes that the data decide: those may be 0 or 1.
fn exact_bounds(range: &RangeConstraint) -> (i128, Option<i128>) {
    let [min_val, max_val] = range.numbers();
    let min = min_val.filter(|min| 0 < *min).unwrap_or(0);
    (min, max_val.filter(|max| *max < NO_MAXIMUM && min <= *max))
}
