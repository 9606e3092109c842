//! Ways to read "FLOPs of a training step": this project's totals, conventions of the literature, and
//! the count as it comes out with one or two known mistakes in it. What a published FLOP/s was
//! computed from is one of them, or none.
//!
//! Sources of the mistakes: published rates that came out at such a count (tokens per second beside
//! TFLOP per second, Megatron-Bridge's performance summaries), and issues of the tools that print
//! them (pytorch/torchtitan #341, NVIDIA/Megatron-LM #1725, NVIDIA-NeMo/Megatron-Bridge #850,
//! NVIDIA-NeMo/Automodel #786).
//!
//! Not here: what a claim says (see [`crate::query`]).

use super::active::tokens;
use super::convention::{self, Convention, Unit};
use super::masking::unrepeated;
use super::train::{Recompute, TrainSetup, Training, seeds, select, training};
use super::{elements, node_macs};
use crate::error::Error;
use crate::graph::{Bindings, Dim, Graph, MatMul, Node, Op, Role, TensorId};
use std::collections::BTreeSet;

/// One way to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `model FLOPs`, `megatron`, or what is counted differently.
    pub name: String,
    /// FLOPs of one step.
    pub flops: i128,
    /// The working in one line.
    pub formula: String,
    /// How far it is from this project's convention: 0 for that itself, 1 for another named one, and
    /// 2 for each thing counted differently (the router counts 1).
    pub distance: u32,
}

/// Every reading of one step, nearest to this project's convention first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings {
    /// Tokens in the step.
    pub tokens: i128,
    /// This project's model FLOPs.
    pub model_flops: i128,
    /// All readings.
    pub all: Vec<Reading>,
}

/// Two things counted differently, and the router.
const MAX_DISTANCE: u32 = 5;
/// Largest count of one node or of a step: the sum over as many nodes as a graph may have, times
/// the passes of a step, still fits 127 bits.
const MAX_COUNT: u128 = 1 << 100;
/// Steps back from a router's choice to the product that scored the experts.
const MAX_STEPS: usize = 12;

/// Reads a step of a language model, its sizes bound.
///
/// # Errors
/// A model without tokens, a size without a value, a count beyond 127 bits.
pub fn readings(graph: &Graph, bindings: &Bindings) -> Result<Readings, Error> {
    let tokens = tokens(graph)
        .ok_or_else(|| Error::new("looks no tokens up, so FLOPs per token mean nothing for it"))?;
    let tokens = bindings.evaluate(&tokens)?;
    if tokens < 1 {
        return Err(Error::new("takes no tokens at these sizes"));
    }
    let step = step(graph, Recompute::Nothing)?;
    let model_flops = number(&(&step.model_macs() * &Dim::from(2i64)), bindings)?;
    let mut all = named(graph, bindings, &step, model_flops)?;
    all.extend(mistaken(graph, bindings, model_flops)?);
    all.sort_by_key(|reading| reading.distance);
    Ok(Readings { tokens, model_flops, all })
}

/// The value of a formula as a count.
fn number(dim: &Dim, bindings: &Bindings) -> Result<i128, Error> {
    let value = bindings.evaluate(dim)?;
    match value.unsigned_abs() <= MAX_COUNT {
        true => Ok(value),
        false => Err(too_large()),
    }
}

fn too_large() -> Error {
    Error::new("takes more FLOPs than can be compared exactly")
}

fn step(graph: &Graph, recompute: Recompute) -> Result<Training, Error> {
    let is_trained = select(graph, None, None)?;
    Ok(training(graph, &TrainSetup { is_trained, seeds: seeds(graph, &[])?, recompute }))
}

/// This project's totals and the conventions of the literature.
fn named(
    graph: &Graph,
    bindings: &Bindings,
    step: &Training,
    model_flops: i128,
) -> Result<Vec<Reading>, Error> {
    let exact = "2 x (forward + gradients of activations + gradients of weights), exact masks";
    let mut all = vec![Reading {
        name: "model FLOPs".to_owned(),
        flops: model_flops,
        formula: exact.to_owned(),
        distance: 0,
    }];
    let two = Dim::from(2i64);
    let recomputed = [
        (Recompute::Nothing, "hardware FLOPs", "model FLOPs + scores that flash attention repeats"),
        (
            Recompute::AttentionCore,
            "hardware FLOPs, selective recomputation",
            "the same; attention's core that is not fused runs again",
        ),
        (
            Recompute::Blocks { every: 1 },
            "hardware FLOPs, full recomputation",
            "the same + the forward pass of every block again",
        ),
    ];
    for (recompute, name, formula) in recomputed {
        let macs = match recompute {
            Recompute::Nothing => step.hardware_macs(),
            Recompute::AttentionCore | Recompute::Blocks { .. } => {
                self::step(graph, recompute)?.hardware_macs()
            }
        };
        let flops = number(&(&macs * &two), bindings)?;
        if all.iter().all(|known| known.flops != flops) {
            let (name, formula) = (name.to_owned(), formula.to_owned());
            all.push(Reading { name, flops, formula, distance: 1 });
        }
    }
    let is_of_steps = |convention: &Convention| {
        convention.unit() == Unit::TrainingFlop && *convention != Convention::FlopCounterTraining
    };
    for convention in Convention::ALL.into_iter().filter(is_of_steps) {
        let figure = convention::figure(convention, graph, &step.forward, None, bindings);
        let Ok(figure) = figure else { continue };
        let rules: BTreeSet<String> =
            figure.groups.iter().map(|group| format!("{}: {}", group.what, group.rule)).collect();
        all.push(Reading {
            name: convention.name().to_owned(),
            flops: number(&figure.total, bindings)?,
            formula: rules.into_iter().collect::<Vec<_>>().join("; "),
            distance: 1,
        });
    }
    Ok(all)
}

/// What a change of the count does to FLOPs of a step.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Adds to products with weights.
    Weights(i128),
    /// Adds to products without.
    Rest(i128),
    /// Takes so many sixths of everything: a MAC of the forward pass stands for 6 FLOPs.
    Sixths(i128),
    /// Takes four sixths of products with weights.
    Frozen,
}

/// A way of counting that differs; of those of one subject at most one holds.
#[derive(Clone, Debug)]
struct Mistake {
    what: &'static str,
    change: Change,
    distance: u32,
}

/// Every combination of a few mistakes.
fn mistaken(graph: &Graph, bindings: &Bindings, model_flops: i128) -> Result<Vec<Reading>, Error> {
    let parts = Parts::new(graph, bindings)?;
    let subjects = parts.subjects();
    // What the exact step has less than 6 per MAC (a first layer without a gradient).
    let counted = 6 * (parts.weights + parts.rest);
    let lack = model_flops - counted;
    let mut found = Vec::new();
    let mut stack: Vec<(usize, Vec<&Mistake>)> = vec![(0, Vec::new())];
    while let Some((subject, chosen)) = stack.pop() {
        let Some(options) = subjects.get(subject) else {
            if !chosen.is_empty() {
                found.push(parts.reading(&chosen, lack));
            }
            continue;
        };
        let distance: u32 = chosen.iter().map(|mistake| mistake.distance).sum();
        stack.push((subject + 1, chosen.clone()));
        for option in options.iter().filter(|o| distance + o.distance <= MAX_DISTANCE) {
            let more = chosen.iter().copied().chain([option]).collect();
            stack.push((subject + 1, more));
        }
    }
    Ok(found)
}

/// Multiply-accumulates of one forward pass, by what they belong to.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    weights: i128,
    rest: i128,
    attention: i128,
    every_pair: i128,
    head: i128,
    table: i128,
    router: i128,
    third_matrix: i128,
    idle_experts: i128,
    missing_heads: i128,
}

impl Parts {
    fn new(graph: &Graph, bindings: &Bindings) -> Result<Parts, Error> {
        let tokens = tokens(graph).unwrap_or_default();
        let mut parts = Parts::default();
        let vocabulary = vocabulary(graph);
        let routers = routers(graph);
        let mut sum = |graph: &Graph, node_idx: usize, node: &Node| -> Result<(), Error> {
            let number = |dim: &Dim| number(&(dim * &node.repeat), bindings);
            let macs = node_macs(graph, node).unwrap_or_default();
            if macs == Dim::ZERO {
                return Ok(());
            }
            let once = number(&macs)?;
            if let Op::Attention(_) = node.op {
                parts.rest += once;
                parts.attention += once;
                parts.every_pair += number(&every_pair(graph, node).unwrap_or(macs))?;
                let missing = missing_heads(graph, node, &tokens).unwrap_or_default();
                parts.missing_heads += number(&missing)?;
                return Ok(());
            }
            if weight(graph, node).is_none() {
                parts.rest += once;
                return Ok(());
            }
            parts.weights += once;
            if vocabulary.is_some() && last_axis(graph, node.outputs.first()) == vocabulary {
                parts.head += once;
            }
            if routers.contains(&node_idx) {
                parts.router += once;
            }
            if let Op::GroupedMatMul { .. } = node.op {
                parts.idle_experts += idle_experts(graph, node, &tokens, once, bindings)?;
            }
            Ok(())
        };
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            sum(graph, node_idx, node)?;
        }
        parts.third_matrix = third_matrices(graph, bindings)?;
        if let Some(table) = token_table(graph) {
            parts.table = number(&(&elements(graph, table) * &tokens), bindings)?;
        }
        Ok(parts)
    }

    /// The mistakes that this model leaves room for, by subject.
    fn subjects(&self) -> Vec<Vec<Mistake>> {
        let mistake = |what, change| Mistake { what, change, distance: 2 };
        let weights = |what, macs: i128| mistake(what, Change::Weights(6 * macs));
        let mut attention = vec![
            mistake(
                "attention over every pair",
                Change::Rest(6 * (self.every_pair - self.attention)),
            ),
            mistake("attention left out", Change::Rest(-6 * self.attention)),
        ];
        let half = self.every_pair / 2 - self.attention;
        // Half of all pairs and the exact triangle differ by the diagonal alone.
        if self.attention < half.saturating_mul(10) {
            attention.push(mistake("windows ignored", Change::Rest(6 * half)));
        }
        let once =
            mistake("LM head counted once, not three times", Change::Weights(-4 * self.head));
        let passes = vec![
            mistake("forward pass only", Change::Sixths(2)),
            mistake("the forward pass counted again (full recomputation)", Change::Sixths(8)),
            mistake("a multiply-accumulate counted as one FLOP", Change::Sixths(3)),
            mistake("weights frozen (LoRA), 4 N instead of 6 N", Change::Frozen),
        ];
        let router = Mistake {
            what: "router left out",
            change: Change::Weights(-6 * self.router),
            distance: 1,
        };
        let experts = vec![
            weights("experts of two matrices", -self.third_matrix),
            weights("all experts instead of those chosen", self.idle_experts),
        ];
        let mut subjects = vec![
            attention,
            vec![weights("LM head left out", -self.head), once],
            vec![weights("embedding counted as a product", self.table)],
            experts,
            vec![weights("query heads instead of key heads", self.missing_heads)],
            vec![router],
            passes,
        ];
        for subject in &mut subjects {
            subject.retain(|mistake| match mistake.change {
                Change::Weights(flops) | Change::Rest(flops) => flops != 0,
                Change::Sixths(_) | Change::Frozen => true,
            });
        }
        subjects
    }

    fn reading(&self, chosen: &[&Mistake], lack: i128) -> Reading {
        let (mut weights, mut rest) = (6 * self.weights, 6 * self.rest + lack);
        let (mut sixths, mut is_frozen) = (6, false);
        for mistake in chosen {
            match mistake.change {
                Change::Weights(flops) => weights += flops,
                Change::Rest(flops) => rest += flops,
                Change::Sixths(passes) => sixths = passes,
                Change::Frozen => is_frozen = true,
            }
        }
        if is_frozen {
            weights = weights / 6 * 4;
        }
        let flops = (weights + rest) * sixths / 6;
        let what: Vec<&str> = chosen.iter().map(|mistake| mistake.what).collect();
        let factor = if sixths == 6 { String::new() } else { format!(" x {sixths}/6") };
        Reading {
            name: what.join(", "),
            flops,
            formula: format!("({weights} FLOP with weights + {rest} FLOP without){factor} a step"),
            distance: chosen.iter().map(|mistake| mistake.distance).sum(),
        }
    }
}

fn last_axis(graph: &Graph, id: Option<&TensorId>) -> Option<Dim> {
    let known = graph.tensor(*id?).tensor_type.as_ref()?;
    known.shape.0.last().cloned()
}

/// The weight that a node multiplies by.
fn weight(graph: &Graph, node: &Node) -> Option<TensorId> {
    let is_weight = |id: &&TensorId| graph.tensor(**id).role == Role::Parameter;
    node.inputs.iter().take(2).find(is_weight).copied()
}

/// The table that tokens are looked up in.
fn token_table(graph: &Graph) -> Option<TensorId> {
    let lookup = graph.nodes.iter().find(|node| super::active::is_token_lookup(graph, node))?;
    lookup.inputs.first().copied()
}

/// Tokens that the model knows.
fn vocabulary(graph: &Graph) -> Option<Dim> {
    let table = graph.tensor(token_table(graph)?).tensor_type.as_ref()?;
    table.shape.0.first().cloned()
}

/// Multiply-accumulates of an attention as if every query saw every key.
fn every_pair(graph: &Graph, node: &Node) -> Option<Dim> {
    let shape = |slot: usize| {
        let id = node.inputs.get(slot)?;
        graph.tensor(*id).tensor_type.as_ref().map(|known| known.shape.0.as_slice())
    };
    let ([heads @ .., queries, d_qk], [.., keys, _], [.., d_v]) = (shape(0)?, shape(1)?, shape(2)?)
    else {
        return None;
    };
    Some(&(&Dim::product(heads) * &(queries * keys)) * &(d_qk + d_v))
}

/// What keys and values would cost more to project if they had as many heads as queries.
fn missing_heads(graph: &Graph, node: &Node, tokens: &Dim) -> Option<Dim> {
    let shape = |id: TensorId| graph.tensor(id).tensor_type.as_ref().map(|known| &known.shape.0);
    let heads = |id: TensorId| {
        let shape = shape(id)?;
        shape.len().checked_sub(3).map(|axis| shape[axis].clone())
    };
    let key = unrepeated(graph, *node.inputs.get(1)?);
    let missing = &heads(*node.inputs.first()?)? - &heads(key)?;
    let source = producer_of(graph, key, |node| weight(graph, node).is_some())?;
    let inner = last_axis(graph, graph.nodes[source].inputs.first())?;
    let sizes = &last_axis(graph, Some(&key))? + &last_axis(graph, node.inputs.get(2))?;
    Some(&(&(&missing * &sizes) * &inner) * tokens)
}

/// The first node that fits, from a tensor back along first operands.
fn producer_of(graph: &Graph, id: TensorId, fits: impl Fn(&Node) -> bool) -> Option<usize> {
    let mut at = id;
    for _ in 0..MAX_STEPS {
        let producer = graph.tensor(at).producer?;
        let node = &graph.nodes[producer.0];
        if fits(node) {
            return Some(producer.0);
        }
        at = *node.inputs.first()?;
    }
    None
}

/// Nodes that score experts: products whose best few results choose among a stack's groups.
fn routers(graph: &Graph) -> BTreeSet<usize> {
    let stacks = graph.nodes.iter().filter_map(|node| {
        let Op::GroupedMatMul { .. } = node.op else { return None };
        let known = graph.tensor(*node.inputs.get(1)?).tensor_type.as_ref()?;
        known.shape.0.first().cloned()
    });
    let groups: Vec<Dim> = stacks.collect();
    let of_choice = graph.nodes.iter().filter_map(|node| {
        let Op::TopK { .. } = node.op else { return None };
        let is_product = |node: &Node| matches!(node.op, Op::MatMul(MatMul { .. }));
        let source = producer_of(graph, *node.inputs.first()?, is_product)?;
        let width = last_axis(graph, graph.nodes[source].outputs.first())?;
        groups.contains(&width).then_some(source)
    });
    of_choice.collect()
}

/// What a stack would cost more if every expert computed every token.
fn idle_experts(
    graph: &Graph,
    node: &Node,
    tokens: &Dim,
    once: i128,
    bindings: &Bindings,
) -> Result<i128, Error> {
    let first_axis = |slot: usize| {
        let known = graph.tensor(*node.inputs.get(slot)?).tensor_type.as_ref()?;
        known.shape.0.first().cloned()
    };
    let (Some(rows), Some(groups)) = (first_axis(0), first_axis(1)) else { return Ok(0) };
    let rows = number(&rows, bindings)?;
    let all = number(&(&groups * tokens), bindings)?;
    let idle = once.checked_div(rows).unwrap_or(0).checked_mul(all - rows);
    idle.filter(|idle| idle.unsigned_abs() <= MAX_COUNT).ok_or_else(too_large)
}

/// The third matrix of gated experts: in each module with two thirds before its last stack.
fn third_matrices(graph: &Graph, bindings: &Bindings) -> Result<i128, Error> {
    let mut total = 0i128;
    let mut module: Option<(&str, Vec<i128>)> = None;
    let third = |macs: &[i128]| match macs {
        [before @ .., last] if before.iter().sum::<i128>() == 2 * last => *last,
        _ => 0,
    };
    for node in &graph.nodes {
        let Op::GroupedMatMul { .. } = node.op else { continue };
        let macs = node_macs(graph, node).unwrap_or_default();
        let macs = number(&(&macs * &node.repeat), bindings)?;
        let path = node.module.as_deref().unwrap_or("");
        match &mut module {
            Some((known, seen)) if *known == path => seen.push(macs),
            Some(_) | None => {
                total += module.take().map_or(0, |(_, seen)| third(&seen));
                module = Some((path, vec![macs]));
            }
        }
    }
    Ok(total + module.map_or(0, |(_, seen)| third(&seen)))
}
