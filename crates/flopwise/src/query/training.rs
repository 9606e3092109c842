//! What a training step of a model costs, and how that comes about.
//!
//! Not here: arithmetic (see [`crate::cost`]).

use super::explain::{find, node_steps, operands, parenthesised, value};
use super::{
    CountQuery, Opened, assumed_bindings, least_rounds, node_rows, notes, opened, unknown_nodes,
};
use crate::cost::{
    self, BoundTraining, Lora, Optimizer, Patterns, Recompute, TrainSetup, Training,
};
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph, Kind, NodeId, Normalization, Op};
use crate::note::Note;
use crate::report::{
    ExplainedStep, Explanation, TrainingCounted, TrainingFormula, TrainingNode, TrainingReport,
    group_training,
};

/// What a training step costs.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainQuery {
    /// The model.
    pub count: CountQuery,
    /// Only these parameters are trained.
    pub train_only: Option<Patterns>,
    /// These are not.
    pub freeze: Option<Patterns>,
    /// Adapters beside frozen layers.
    pub lora: Option<Lora>,
    /// Results that the loss is made of; all of them if empty.
    pub loss: Vec<String>,
    /// What is computed again instead of being kept.
    pub recompute: Recompute,
    /// What updates the parameters.
    pub optimizer: Optimizer,
}

/// A model whose training step is counted.
struct Trained {
    graph: Graph,
    given: Bindings,
    all: Bindings,
    training: Training,
    adapted: Vec<String>,
}

impl Trained {
    fn new(query: &TrainQuery) -> Result<Trained, Error> {
        let Opened { mut graph, bindings: given, .. } = opened(&query.count)?;
        let (is_trained, adapted) = chosen(&mut graph, query)?;
        let setup = TrainSetup {
            is_trained,
            seeds: cost::seeds(&graph, &query.loss)?,
            recompute: query.recompute,
        };
        let training = cost::training(&graph, &setup);
        let mut all = given.clone();
        all.0.extend(assumed_bindings(&graph, &given));
        Ok(Trained { graph, given, all, training, adapted })
    }

    fn bound(&self) -> Result<Option<BoundTraining>, Error> {
        let is_bound = |name: &String| self.all.0.contains_key(name);
        match self.graph.symbols.iter().all(|symbol| is_bound(&symbol.name)) {
            true => self.training.bind(&self.graph, &self.all).map(Some),
            false => Ok(None),
        }
    }
}

/// Which parameters are trained. With adapters those, and what `--train-only` names.
fn chosen(graph: &mut Graph, query: &TrainQuery) -> Result<(Vec<bool>, Vec<String>), Error> {
    let (only, freeze) = (query.train_only.as_ref(), query.freeze.as_ref());
    let mut is_trained = cost::select(graph, only, freeze)?;
    let Some(lora) = &query.lora else { return Ok((is_trained, Vec::new())) };
    if only.is_none() {
        is_trained.fill(false);
    }
    let adapted = cost::add_lora(graph, lora)?;
    let n_before = is_trained.len();
    let adapters = graph.tensors[n_before..].iter();
    is_trained.extend(adapters.map(|tensor| tensor.role == crate::graph::Role::Parameter));
    Ok((is_trained, adapted))
}

pub(super) fn training(query: &TrainQuery) -> Result<TrainingReport, Error> {
    let trained = Trained::new(query)?;
    let Trained { graph, given, all, training, adapted } = &trained;
    let bound = trained.bound()?;
    let rows = node_rows(graph, None);
    let counts = |node_idx: usize| bound.as_ref().and_then(|bound| bound.nodes[node_idx]);
    let nodes = rows.into_iter().enumerate();
    let nodes: Vec<TrainingNode> =
        nodes.map(|(node_idx, row)| TrainingNode { row, counts: counts(node_idx) }).collect();
    let counted = match &bound {
        Some(bound) => Some(TrainingCounted {
            bound: bound.clone(),
            step: cost::step(graph, training, query.optimizer, all)?,
            rows: group_training(&nodes, query.count.grouping),
        }),
        None => None,
    };
    let unknown = unknown_nodes(graph, training.unknown());
    let assumed = all.0.iter().filter(|(name, _)| !given.0.contains_key(*name));
    Ok(TrainingReport {
        model: graph.name.clone(),
        symbols: graph.symbols.clone(),
        bindings: given.0.clone(),
        assumed: assumed.map(|(name, value)| (name.clone(), *value)).collect(),
        formula: formula(graph, training, given),
        stored: training.forward.stored(all),
        counted,
        is_lower_bound: !unknown.is_empty() || !least_rounds(graph, given).is_empty(),
        unknown,
        recompute: query.recompute.to_string(),
        recomputed_blocks: training.recomputed_blocks.clone(),
        optimizer: query.optimizer.to_string(),
        adapted: adapted.clone(),
        grouping: query.count.grouping,
        nodes,
        notes: doubts(graph, training, query),
    })
}

fn formula(graph: &Graph, training: &Training, given: &Bindings) -> TrainingFormula {
    let is_partial = graph.symbols.iter().any(|symbol| !given.0.contains_key(&symbol.name));
    let written = |dim: &Dim| match is_partial {
        true => given.substitute(dim).to_string(),
        false => dim.to_string(),
    };
    let two = Dim::from(2);
    TrainingFormula {
        model_flops: written(&(&training.model_macs() * &two)),
        hardware_flops: written(&(&training.hardware_macs() * &two)),
        saved_bytes: written(&training.saved_bytes()),
    }
}

fn doubts(graph: &Graph, training: &Training, query: &TrainQuery) -> Vec<Note> {
    let mut notes = notes(graph);
    let first = training.unreached.first().map(|id| graph.tensor(*id).name.as_str());
    if let Some(first) = first {
        notes.push(Note::new(format!(
            "{} parameters get no gradient, because no result of the loss depends on them through \
             operators with a derivative; the first is {first}",
            training.unreached.len()
        )));
    }
    let has_batch_norm =
        graph.nodes.iter().any(|node| node.op == Op::Normalization(Normalization::Batch));
    if has_batch_norm {
        notes.push(Note::new(
            "batch norms: the backward pass is that of training, through the batch's own \
             statistics; the forward pass is the file's, without the operations that make them",
        ));
    }
    notes.push(Note::new(
        "dropout is off in a file exported for inference: its operations and its masks (1 byte \
         per element) are not counted",
    ));
    if query.recompute == Recompute::AttentionCore && training.recomputed_blocks.is_empty() {
        notes.push(Note::new(
            "nothing is recomputed selectively: the model's attention is fused, whose backward \
             pass computes the scores again in any case (2.5 times the forward pass, in the \
             hardware FLOPs)",
        ));
    }
    if training.unknown().next().is_some() {
        notes.push(Note::new(
            "an operator without a rule is taken to have a derivative: what lies before it is \
             counted as trained through it",
        ));
    }
    notes
}

/// Explains the training of the node called `name`, or of the whole model.
pub(super) fn explain(query: &TrainQuery, name: Option<&str>) -> Result<Explanation, Error> {
    let trained = Trained::new(query)?;
    let (graph, training) = (&trained.graph, &trained.training);
    let bindings = trained.all.clone();
    let whole = Explanation {
        model: graph.name.clone(),
        node: None,
        operands: Vec::new(),
        steps: kind_steps(graph, training, &bindings),
        bindings: bindings.0.clone(),
        notes: doubts(graph, training, query),
    };
    let Some(name) = name else { return Ok(whole) };
    let id = find(graph, name)?;
    let mut steps = node_steps(graph, &training.forward, id, &bindings);
    steps.extend(gradient_steps(graph, training, id, &bindings));
    Ok(Explanation {
        node: Some(node_rows(graph, None).swap_remove(id.0)),
        operands: operands(graph, id),
        steps,
        notes: Vec::new(),
        ..whole
    })
}

fn one(quantity: &'static str, words: String, dim: &Dim, bindings: &Bindings) -> ExplainedStep {
    ExplainedStep {
        quantity,
        words,
        factors: dim.to_string(),
        formula: dim.to_string(),
        value: value(dim, bindings),
        source: String::new(),
    }
}

fn gradient_steps(
    graph: &Graph,
    training: &Training,
    id: NodeId,
    bindings: &Bindings,
) -> Vec<ExplainedStep> {
    let node = &training.nodes[id.0];
    let mut steps = Vec::new();
    for gradient in &node.gradients {
        let tensor = &graph.tensor(gradient.tensor).name;
        let (quantity, source) = match gradient.is_weight {
            true => ("wgrad MACs", "trained, so a gradient of it is needed"),
            false => ("dgrad MACs", "it depends on trained parameters before it"),
        };
        let mut step = one(quantity, format!("gradient of {tensor}"), &gradient.macs, bindings);
        step.source = source.to_owned();
        steps.push(step);
    }
    let mut add = |quantity, words: &str, dim: &Dim| {
        if *dim != Dim::ZERO {
            steps.push(one(quantity, words.to_owned(), dim, bindings));
        }
    };
    add("scores again", "MACs of the fused kernel that keeps none", &node.kernel_macs);
    add("recomputed MACs", "the forward pass once more", &node.recomputed.macs.0);
    if let Ok(cost) = &node.backward {
        add("backward other ops", "sum over the derivatives' steps", &cost.other_ops.0);
        add("backward bytes read", "gradients and what was kept", &cost.bytes_read.0);
        add("backward bytes written", "gradients", &cost.bytes_written.0);
    }
    for saved in training.saved.iter().filter(|saved| saved.node == id) {
        let tensor = saved.tensor.map(|id| graph.tensor(id).name.as_str());
        let words = tensor.unwrap_or("statistics, indices or masks");
        steps.push(one("bytes kept", words.to_owned(), &saved.bytes, bindings));
    }
    steps
}

/// The whole model's MACs by kinds of operators, and the two totals.
fn kind_steps(graph: &Graph, training: &Training, bindings: &Bindings) -> Vec<ExplainedStep> {
    let mut steps = Vec::new();
    let sums: [(&'static str, &dyn Fn(usize) -> Dim); 5] = [
        ("forward MACs", &|idx| {
            let cost = training.forward.nodes[idx].cost.as_ref();
            cost.map_or(Dim::ZERO, |cost| cost.macs.0.clone())
        }),
        ("dgrad MACs", &|idx| training.nodes[idx].dgrad_macs.clone()),
        ("wgrad MACs", &|idx| training.nodes[idx].wgrad_macs.clone()),
        ("scores again", &|idx| training.nodes[idx].kernel_macs.clone()),
        ("recomputed MACs", &|idx| training.nodes[idx].recomputed.macs.0.clone()),
    ];
    for (quantity, of_node) in sums {
        let mut kinds: std::collections::BTreeMap<Kind, Dim> = std::collections::BTreeMap::new();
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            let total = kinds.entry(node.op.kind()).or_default();
            *total = &*total + &of_node(node_idx);
        }
        kinds.retain(|_, total| *total != Dim::ZERO);
        let sum: Dim = kinds.values().cloned().sum();
        let words: Vec<&str> = kinds.keys().map(|kind| kind.name()).collect();
        let factors: Vec<String> = kinds.values().map(parenthesised).collect();
        let mut step = one(quantity, words.join(" + "), &sum, bindings);
        step.factors = factors.join(" + ");
        if sum != Dim::ZERO {
            steps.push(step);
        }
    }
    let two = Dim::from(2);
    let totals = [
        ("model FLOPs", "2 x (forward + dgrad + wgrad)", training.model_macs()),
        (
            "hardware FLOPs",
            "2 x (forward + dgrad + wgrad + scores again + recomputed)",
            training.hardware_macs(),
        ),
    ];
    for (quantity, words, macs) in totals {
        steps.push(one(quantity, words.to_owned(), &(&macs * &two), bindings));
    }
    steps.push(one(
        "bytes kept",
        "each buffer once, for the backward pass".to_owned(),
        &training.saved_bytes(),
        bindings,
    ));
    steps
}
