//! [`Query`] -> [`Report`]: the one door for the command line, and later the web page, Python and
//! history.
//!
//! Not here: arithmetic (each step is one call into the module that knows), and measuring: a
//! machine's profile comes with the query.

mod audit;
mod convention;
mod explain;
mod matmul;
mod memory;
mod models;
mod number;
mod sweep;
mod training;
mod versus;

pub use audit::{AuditQuery, Printed};
pub use convention::Conventions;
pub use matmul::MatmulQuery;
pub use memory::MemoryQuery;
pub use number::NumberQuery;
pub use sweep::SweepQuery;
pub use training::TrainQuery;

use crate::arch;
use crate::cost::{self, BoundWork, CONTEXT, Counts, Masking, Pass, StoredFormat, Work};
use crate::error::Error;
use crate::estimate::{self, Bound, Estimate, Setup};
use crate::graph::{
    Bindings, Dim, Graph, Kind, Mask, Node, NodeId, Op, Positions, ROUNDS, Symbol, TensorId,
    TensorType,
};
use crate::import;
use crate::machine::Profile;
use crate::note::Note;
use crate::report::{
    self, Costly, CountReport, Counted, EstimateReport, Formula, Grouping, NodeRow, Point, Report,
    Unknown, group,
};
use crate::units::{FlopsPerSec, Seconds};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Rows of the costliest shown.
const N_COSTLIEST: usize = 10;
/// Taken for a symbol called `batch` that the user leaves open.
const ASSUMED_BATCH: i128 = 1;
/// Taken for a symbol called `seq` that the user leaves open.
const ASSUMED_SEQ: i128 = 128;
/// Taken for the tokens of a prompt that an image is made from: the length of CLIP's text encoder.
const ASSUMED_TEXT_SEQ: i128 = 77;
/// Taken for the context of a decoded token that the user leaves open.
const ASSUMED_CONTEXT: i128 = 4096;

/// Rounds of a loop that only the run ends, where the user leaves them open.
const LEAST_ROUNDS: i128 = 1;

/// Everything that can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// What a model costs.
    Count(CountQuery),
    /// How the counts of a node, or of the whole model, come about.
    Explain(CountQuery, Option<String>),
    /// What two models, or one model at two sizes, cost beside each other.
    Versus(CountQuery, CountQuery),
    /// What a model costs as one of its symbols grows.
    Sweep(SweepQuery),
    /// What other tools print for it, and why; with the working or without.
    Convention(CountQuery, Conventions, Working),
    /// What a training step of a model costs.
    Train(Box<TrainQuery>),
    /// How that comes about: of a node, or of the whole model.
    ExplainTrain(Box<TrainQuery>, Option<String>),
    /// How long it takes on a machine.
    Estimate(EstimateQuery),
    /// Model, machine and time on one page.
    Page(EstimateQuery),
    /// Which models are built in: all, the one of a name, or those whose names hold a text.
    Models(Option<String>),
    /// What a published rate was computed from.
    Audit(Box<AuditQuery>),
    /// What values become in number formats.
    Number(NumberQuery),
    /// What formats do to a matrix multiplication.
    Matmul(MatmulQuery),
    /// Which formats there are, or one of them by name.
    Formats(Option<String>),
}

/// What a model costs.
#[derive(Clone, Debug, PartialEq)]
pub struct CountQuery {
    /// A path or a built-in name.
    pub model: String,
    /// Symbols and their values, as typed.
    pub bindings: Vec<(String, i128)>,
    /// How rows are grouped.
    pub grouping: Grouping,
    /// What the user says about attention.
    pub masking: Masking,
    /// How many modules that predict further tokens are counted (MTP).
    pub mtp: u32,
    /// Which positions of a convolution's kernel are counted.
    pub positions: Positions,
    /// The format that parameters are stored in; `None` for the file's own.
    pub weights: Option<StoredFormat>,
    /// What the user says about memory.
    pub memory: MemoryQuery,
}

impl CountQuery {
    /// A model as it is: nothing bound, attention as the source has it, rows by kind.
    #[must_use]
    pub fn of(model: &str) -> CountQuery {
        CountQuery {
            model: model.to_owned(),
            bindings: Vec::new(),
            grouping: Grouping::Kind,
            masking: Masking::as_file(),
            mtp: 0,
            positions: Positions::All,
            weights: None,
            memory: MemoryQuery::plain(),
        }
    }
}

/// Whether the working of a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Working {
    /// It is.
    Shown,
    /// Only the result is.
    Hidden,
}

/// A model on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct EstimateQuery {
    /// The model.
    pub count: CountQuery,
    /// The machine.
    pub profile: Profile,
    /// What the user may set.
    pub setup: Setup,
}

/// Answers a query.
///
/// # Errors
/// [`Error`] when there is no answer: no such model, a damaged file, bindings that contradict it.
///
/// ```
/// use flopwise::query::{CountQuery, Query, answer};
/// use flopwise::report::Report;
/// let query = CountQuery::of("resnet50");
/// let Ok(Report::Count(report)) = answer(&Query::Count(query)) else { panic!() };
/// assert_eq!(report.formula.macs, "4089184256*batch");
/// ```
pub fn answer(query: &Query) -> Result<Report, Error> {
    match query {
        Query::Count(query) => {
            let opened = opened(query)?;
            let counting = Counting::new(&opened, query).map_err(|e| name_model(e, query))?;
            Ok(Report::Count(Box::new(counting.report)))
        }
        Query::Explain(query, node) => {
            let opened = opened(query)?;
            let explained = explain::explain(&opened, node.as_deref());
            Ok(Report::Explanation(Box::new(explained.map_err(|e| name_model(e, query))?)))
        }
        Query::Versus(left, right) => versus::versus(left, right),
        Query::Sweep(query) => sweep::sweep(query),
        Query::Convention(query, conventions, working) => {
            let opened = opened(query)?;
            let compared = convention::compare(&opened, *conventions, *working);
            Ok(Report::Convention(Box::new(compared.map_err(|e| name_model(e, query))?)))
        }
        Query::Train(query) => {
            let report = training::training(query).map_err(|e| name_model(e, &query.count))?;
            Ok(Report::Training(Box::new(report)))
        }
        Query::ExplainTrain(query, node) => {
            let explained = training::explain(query, node.as_deref());
            let explained = explained.map_err(|e| name_model(e, &query.count))?;
            Ok(Report::Explanation(Box::new(explained)))
        }
        Query::Estimate(query) => Ok(Report::Estimate(Box::new(on_machine(query)?))),
        Query::Page(query) => Ok(Report::Page(Box::new(on_machine(query)?))),
        Query::Models(wanted) => models::models(wanted.as_deref()),
        Query::Audit(query) => audit::audit(query),
        Query::Number(query) => number::number(query),
        Query::Matmul(query) => matmul::matmul(query),
        Query::Formats(name) => number::show_formats(name.as_deref()),
    }
}

/// The model behind a path or a built-in name. A file wins over a name.
///
/// # Errors
/// Neither a file nor a name; says which names are near.
pub fn open_model(model: &str) -> Result<Graph, Error> {
    open_model_as(model, &arch::Options::whole())
}

/// As [`open_model`], with what is to be built of a description.
///
/// # Errors
/// As [`open_model`].
pub fn open_model_as(model: &str, options: &arch::Options) -> Result<Graph, Error> {
    let path = Path::new(model);
    if arch::is_description(path) {
        return arch::open(path, options);
    }
    if path.exists() {
        return import::open(path);
    }
    match arch::built_in(model, options) {
        Some(graph) => graph,
        None => Err(arch::unknown_model(model)),
    }
}

/// The matrix products that a model consists of, each `[m, n, k]` once: what a machine should be
/// measured on for it. Sizes left open have the values that a count assumes.
///
/// # Errors
/// As [`answer`].
pub fn product_shapes(query: &CountQuery) -> Result<Vec<[u64; 3]>, Error> {
    let Opened { graph, bindings, fixed: _ } = opened(query)?;
    let mut all = bindings.clone();
    all.0.extend(assumed_bindings(&graph, &bindings));
    let shapes = estimate::product_shapes(&graph, &all);
    match shapes.is_empty() {
        true => Err(Error::new("holds no matrix product whose shape is known")
            .remedy("bind its sizes with --bind")
            .in_file(Path::new(&query.model))),
        false => Ok(shapes),
    }
}

/// A model as it is to be counted.
struct Opened {
    graph: Graph,
    bindings: Bindings,
    /// Of these the ones that follow from what is counted, not from what the user bound.
    fixed: Bindings,
}

/// Opens the model, applies what the user says about it, and binds its symbols.
fn opened(query: &CountQuery) -> Result<Opened, Error> {
    let options = arch::Options { pass: query.masking.pass, mtp: query.mtp };
    let mut graph = open_model_as(&query.model, &options)?;
    graph.positions = query.positions;
    let settled = settle(&mut graph, query).map_err(|error| name_model(error, query))?;
    let (bindings, fixed) = settled;
    Ok(Opened { graph, bindings, fixed })
}

/// Bindings, and those of them that the user did not give.
fn settle(graph: &mut Graph, query: &CountQuery) -> Result<(Bindings, Bindings), Error> {
    graph.cache_format = query.memory.cache;
    let fixed = cost::apply_masking(graph, &query.masking)?;
    if let Some(format) = query.weights {
        cost::store_weights(graph, format);
    }
    let mut typed = query.bindings.clone();
    // A decoded token is a sequence of one, also where an export wants two at least.
    let is_checked = query.masking.pass == Pass::Whole;
    typed.extend(fixed.iter().filter(|_| is_checked).cloned());
    let mut bindings = Bindings::resolve(graph, &typed)?;
    for (name, value) in &fixed {
        let before = bindings.0.insert(name.clone(), *value).unwrap_or(*value);
        if before != *value {
            return Err(Error::new(format!("`{name}` is {value} here, and bound to {before}"))
                .remedy(format!("leave {name} out of --bind; --bind {CONTEXT}=N is the context")));
        }
    }
    cost::take_costliest(graph, &bindings);
    Ok((bindings, Bindings(fixed.into_iter().collect())))
}

fn name_model(error: Error, query: &CountQuery) -> Error {
    error.in_file(Path::new(&query.model))
}

/// A graph counted, with what a later step needs.
struct Counting {
    bindings: Bindings,
    work: Option<BoundWork>,
    report: CountReport,
}

impl Counting {
    fn new(opened: &Opened, query: &CountQuery) -> Result<Counting, Error> {
        let Opened { graph, bindings: given, fixed: _ } = opened;
        let work = cost::work(graph);
        let assumed = assumed_bindings(graph, given);
        let mut all = given.clone();
        all.0.extend(assumed.clone());
        let is_complete = graph.symbols.iter().all(|symbol| all.0.contains_key(&symbol.name));
        let bound = if is_complete { Some(work.bind(graph, &all)?) } else { None };
        let nodes = node_rows(graph, bound.as_ref());
        let counted = match &bound {
            Some(bound) => Some(Counted {
                total: bound.total,
                peak_activation_bytes: cost::memory(graph, &all)?.peak_activation_bytes,
                rows: group(&nodes, query.grouping),
            }),
            None => None,
        };
        let unknown = unknown_operators(graph, &work);
        let least_rounds = least_rounds(graph, given);
        let state = memory::state(graph, &query.memory, &all);
        let mut notes = notes(graph);
        notes.extend(least_rounds.iter().map(|symbol| {
            let name = &symbol.name;
            Note::new(format!(
                "how often a loop runs is decided at run time; {LEAST_ROUNDS} round is counted, \
                 more with --bind {name}=N"
            ))
        }));
        let modules = match (query.grouping, &bound) {
            (Grouping::Module, Some(_)) => report::modules(&nodes, &graph.modules),
            (Grouping::Module, None)
            | (Grouping::Op | Grouping::Kind | Grouping::Line | Grouping::Node, _) => Vec::new(),
        };
        let report = CountReport {
            model: graph.name.clone(),
            inputs: named_types(graph, &graph.inputs),
            outputs: named_types(graph, &graph.outputs),
            symbols: graph.symbols.clone(),
            bindings: given.0.clone(),
            assumed: assumed.clone(),
            formula: formula(opened, &work),
            stored: work.stored(&all),
            active: memory::active(graph, &work, &all),
            memory: memory::table(graph, &query.memory, state.as_ref(), &all),
            state,
            counted,
            is_lower_bound: !unknown.is_empty() || !least_rounds.is_empty(),
            unknown,
            grouping: query.grouping,
            modules,
            depth: None,
            nodes,
            notes,
        };
        Ok(Counting { bindings: all, work: bound, report })
    }
}

fn named_types(graph: &Graph, ids: &[TensorId]) -> Vec<(String, Option<TensorType>)> {
    let tensors = ids.iter().map(|id| graph.tensor(*id));
    tensors.map(|tensor| (tensor.name.clone(), tensor.tensor_type.clone())).collect()
}

/// Values for what the user left open and a usual value is known for, within the file's range.
fn assumed_bindings(graph: &Graph, given: &Bindings) -> BTreeMap<String, i128> {
    let usual = |symbol: &Symbol| match symbol.name.as_str() {
        "batch" => Some(ASSUMED_BATCH),
        "seq" | "target_seq" => Some(ASSUMED_SEQ),
        "text_seq" => Some(ASSUMED_TEXT_SEQ),
        CONTEXT => Some(ASSUMED_CONTEXT),
        _ if symbol.aliases.iter().any(|alias| alias == "batch") => Some(ASSUMED_BATCH),
        _ if symbol.aliases.iter().any(|alias| alias == "seq") => Some(ASSUMED_SEQ),
        _ => None,
    };
    let open = graph.symbols.iter().filter(|symbol| !given.0.contains_key(&symbol.name));
    let assumed = open.filter_map(|symbol| {
        let value = usual(symbol)?.max(symbol.min).min(symbol.max.unwrap_or(i128::MAX));
        Some((symbol.name.clone(), value))
    });
    let mut assumed: BTreeMap<String, i128> = assumed.collect();
    let rounds = least_rounds(graph, given);
    assumed.extend(rounds.iter().map(|symbol| (symbol.name.clone(), LEAST_ROUNDS)));
    // What only the data decide is taken at its most, once the sizes that bound it have values.
    for symbol in graph.symbols.iter().filter(|symbol| !given.0.contains_key(&symbol.name)) {
        let value = |name: &str| given.0.get(name).or(assumed.get(name)).copied();
        let most = symbol.at_most.as_ref().and_then(|most| most.evaluate(&value).ok());
        if let Some(most) = most {
            assumed.entry(symbol.name.clone()).or_insert(most);
        }
    }
    assumed
}

/// Rounds of loops that nothing bounds and nobody has given: at least one is counted.
fn least_rounds<'a>(graph: &'a Graph, given: &Bindings) -> Vec<&'a Symbol> {
    let is_open = |symbol: &&Symbol| {
        let is_given = given.0.contains_key(&symbol.name);
        symbol.name.ends_with(ROUNDS) && symbol.at_most.is_none() && !is_given
    };
    graph.symbols.iter().filter(is_open).collect()
}

/// The totals in symbols. Where only some symbols are bound their values are put in; with all
/// bound the numbers stand elsewhere, and the formula stays whole.
fn formula(opened: &Opened, work: &Work) -> Formula {
    let Opened { graph, bindings: given, fixed } = opened;
    let is_partial = graph.symbols.iter().any(|symbol| !given.0.contains_key(&symbol.name));
    let written = |dim: &Dim| match is_partial {
        true => given.substitute(dim).to_string(),
        false => fixed.substitute(dim).to_string(),
    };
    Formula {
        macs: written(&work.total.macs.0),
        other_ops: written(&work.total.other_ops.0),
        transcendental_ops: written(&work.total.transcendental_ops.0),
        bytes_read: written(&work.total.bytes_read.0),
        bytes_written: written(&work.total.bytes_written.0),
    }
}

fn notes(graph: &Graph) -> Vec<Note> {
    let mut notes = graph.notes.clone();
    let n_with = |name: &str| {
        let is_such = |node: &&Node| matches!(&node.op, Op::Attention(attention) if attention.mask.name() == name);
        graph.nodes.iter().filter(is_such).count()
    };
    let n_masked = n_with(Mask::Tensor.name());
    if 0 < n_masked {
        notes.push(Note::new(format!(
            "{n_masked} attentions take their mask as a tensor, known only at run time; they are \
             counted as if every query saw every key"
        )));
    }
    let n_causal = n_with(Mask::causal().name());
    if 0 < n_causal {
        notes.push(Note::new(format!(
            "{n_causal} attentions are causal: a sequence of s has s(s+1)/2 pairs, where tools \
             that ignore the mask count s^2 (--attention full)"
        )));
    }
    notes.extend(memory::notes(graph));
    notes
}

fn unknown_operators(graph: &Graph, work: &Work) -> Vec<Unknown> {
    unknown_nodes(graph, work.unknown())
}

/// Those alike together.
fn unknown_nodes<'a>(
    graph: &Graph,
    nodes: impl Iterator<Item = (NodeId, &'a str)>,
) -> Vec<Unknown> {
    let mut place: HashMap<(String, String), usize> = HashMap::new();
    let mut unknown: Vec<Unknown> = Vec::new();
    for (id, reason) in nodes {
        let node = &graph.nodes[id.0];
        let key = (node.operator.to_string(), reason.to_owned());
        if let Some(at) = place.get(&key) {
            unknown[*at].count += 1;
            continue;
        }
        place.insert(key, unknown.len());
        unknown.push(Unknown {
            operator: node.operator.to_string(),
            node: node.name.clone(),
            module: node.module.as_deref().map(str::to_owned),
            count: 1,
            reason: reason.to_owned(),
        });
    }
    unknown
}

fn node_rows(graph: &Graph, bound: Option<&BoundWork>) -> Vec<NodeRow> {
    let rows = graph.nodes.iter().enumerate().map(|(node_idx, node)| NodeRow {
        name: node.name.clone(),
        op: node.op.name().to_owned(),
        operator: node.operator.to_string(),
        kind: node.op.kind(),
        module: node.module.as_deref().map(str::to_owned),
        line: node.line.as_ref().map(ToString::to_string),
        output: graph.output_types(node).next().flatten().map(|output| output.shape.clone()),
        counts: bound.and_then(|bound| bound.nodes[node_idx].1),
    });
    rows.collect()
}

fn on_machine(query: &EstimateQuery) -> Result<EstimateReport, Error> {
    let opened = opened(&query.count)?;
    estimate_report(&opened, query).map_err(|error| name_model(error, &query.count))
}

fn estimate_report(opened: &Opened, query: &EstimateQuery) -> Result<EstimateReport, Error> {
    let graph = &opened.graph;
    let counting = Counting::new(opened, &query.count)?;
    let Some(work) = &counting.work else {
        return Err(counting.report.without_values("a time"));
    };
    let estimate =
        estimate::estimate(graph, work, &counting.bindings, &query.profile, &query.setup)?;
    let batch = counting.bindings.0.get("batch").copied().unwrap_or(1);
    Ok(EstimateReport {
        batch,
        costliest: costliest(&counting.report.nodes, work, &estimate),
        points: points(&counting.report.nodes, work, &estimate),
        count: counting.report,
        profile: query.profile.clone(),
        estimate,
    })
}

/// Modules where the file has them, nodes otherwise; most time first.
fn costliest(nodes: &[NodeRow], work: &BoundWork, estimate: &Estimate) -> Vec<Costly> {
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(Costly, BTreeMap<Bound, Seconds>, f64)> = Vec::new();
    for node in &estimate.nodes {
        let row = &nodes[node.node.0];
        let Some(counts) = work.nodes[node.node.0].1 else { continue };
        let name = row.module.as_deref().unwrap_or(&row.name);
        let at = *place.entry(name).or_insert_with(|| {
            groups.push((empty_group(name), BTreeMap::new(), 0.0));
            groups.len() - 1
        });
        let (group, by_bound, longest) = &mut groups[at];
        group.n_nodes += 1;
        group.counts = group.counts + counts;
        group.seconds = group.seconds + node.time;
        if *longest <= node.time.0 {
            (*longest, group.kind) = (node.time.0, row.kind);
        }
        let total = by_bound.entry(node.bound).or_insert(Seconds(0.0));
        *total = *total + node.time;
    }
    let mut groups: Vec<Costly> = groups
        .into_iter()
        .map(|(mut group, by_bound, _)| {
            let most = by_bound.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0));
            group.bound = most.map_or(Bound::Nothing, |(bound, _)| *bound);
            group.share = group.seconds / estimate.time;
            group
        })
        .collect();
    groups.sort_by(|a, b| b.seconds.0.total_cmp(&a.seconds.0));
    groups.truncate(N_COSTLIEST);
    groups
}

fn empty_group(name: &str) -> Costly {
    Costly {
        name: name.to_owned(),
        kind: Kind::Opaque,
        n_nodes: 0,
        counts: Counts::default(),
        seconds: Seconds(0.0),
        share: 0.0,
        bound: Bound::Nothing,
    }
}

fn points(nodes: &[NodeRow], work: &BoundWork, estimate: &Estimate) -> Vec<Point> {
    let timed = estimate.nodes.iter().filter(|node| 0.0 < node.time.0);
    let points = timed.filter_map(|node| {
        let row = &nodes[node.node.0];
        let counts = work.nodes[node.node.0].1?;
        let operations = counts.every_operation();
        if operations.0 == 0 || counts.bytes().0 == 0 {
            return None;
        }
        let rate: FlopsPerSec = operations / node.time;
        let (name, kind) = (row.name.clone(), row.kind);
        let intensity = operations / counts.bytes();
        let (seconds, bound, utilisation) = (node.time, node.bound, node.utilisation);
        Some(Point { name, kind, intensity, rate, seconds, bound, utilisation })
    });
    points.collect()
}
