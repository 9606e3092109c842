//! Time per node and in total by the roofline model.

use super::shape::products;
use super::utilisation::{Shares, Utilisation};
use crate::cost::{BoundWork, Counts};
use crate::error::Error;
use crate::graph::{Bindings, Graph, Kind, NodeId, Role};
use crate::machine::{ComputeKind, Profile};
use crate::units::{BytesPerSec, FlopsPerByte, FlopsPerSec, SamplesPerSec, Seconds};
use flopwise_formats::Format;
use std::collections::BTreeMap;

/// Vector operations that one transcendental function takes. Polynomial implementations of expf,
/// erff and tanhf in vector libraries spend 10 to 25 multiply-adds; division and square root have
/// about this reciprocal throughput on current cores.
const VECTOR_OPS_PER_TRANSCENDENTAL: f64 = 16.0;

/// What the user may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// Added to every node that runs a kernel: dispatch, threads starting, memory allocation.
    pub overhead: Seconds,
}

impl Setup {
    /// 5 µs per kernel, the order of an eager framework's operator call on a CPU.
    pub const ASSUMED_OVERHEAD: Seconds = Seconds(5e-6);
}

/// What a machine is taken to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The instruction peak, against which shares are given.
    pub peak: FlopsPerSec,
    /// The fastest matrix product measured; all of them run at this rate where only one shape was
    /// measured, else each at its own ([`NodeEstimate::utilisation`]).
    pub matmul: FlopsPerSec,
    /// Adds, multiplies, compares: half the multiply-add peak.
    pub vector: FlopsPerSec,
    /// Main memory.
    pub bandwidth: BytesPerSec,
}

/// A number that was not measured on the machine, or a simplification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// What is assumed, as a sentence without full stop.
    pub text: String,
}

/// What a node waits for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Memory traffic.
    Memory,
    /// The fixed cost of a kernel.
    Overhead,
    /// Nothing runs.
    Nothing,
}

impl Bound {
    /// The word printed in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Overhead => "overhead",
            Bound::Nothing => "nothing",
        }
    }
}

/// One node's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeEstimate {
    /// Which node.
    pub node: NodeId,
    /// Arithmetic alone.
    pub compute: Seconds,
    /// Traffic alone.
    pub memory: Seconds,
    /// The fixed cost.
    pub overhead: Seconds,
    /// max(compute, memory) + overhead.
    pub time: Seconds,
    /// What it waits for most.
    pub bound: Bound,
    /// Model FLOPs per byte; `None` where there are none, or no bytes.
    pub intensity: Option<FlopsPerByte>,
    /// The part of its roofline that its matrix products reach, by their shapes; `None` where it has
    /// none, or products of only one shape were measured.
    pub utilisation: Option<f64>,
}

/// A forward pass on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The machine's name.
    pub machine: String,
    /// The rates used.
    pub rates: Rates,
    /// The measured products that others are interpolated from; `None` with fewer than two shapes.
    pub utilisation: Option<Utilisation>,
    /// One entry per counted node.
    pub nodes: Vec<NodeEstimate>,
    /// The sum over nodes, which run one after the other.
    pub time: Seconds,
    /// Passes per second.
    pub passes: SamplesPerSec,
    /// Model FLOPs over time.
    pub achieved: FlopsPerSec,
    /// Achieved over peak (MFU).
    pub share_of_peak: f64,
    /// Model FLOPs over all bytes.
    pub intensity: FlopsPerByte,
    /// Peak over bandwidth: below it, a kernel waits for memory.
    pub ridge_point: FlopsPerByte,
    /// Time spent in nodes by what bounds them.
    pub time_by_bound: BTreeMap<Bound, Seconds>,
    /// What holds most of the time.
    pub bound: Bound,
    /// Everything assumed.
    pub assumptions: Vec<Assumption>,
}

/// Estimates a forward pass; the bindings are those that `work` was bound with.
///
/// # Errors
/// The profile lacks a rate that is needed, or nothing in the graph takes time.
pub fn estimate(
    graph: &Graph,
    work: &BoundWork,
    bindings: &Bindings,
    profile: &Profile,
    setup: &Setup,
) -> Result<Estimate, Error> {
    let mut assumptions = Vec::new();
    let format = measured_format(graph, profile, &mut assumptions);
    let utilisation = Utilisation::of(profile, format);
    let rates = rates(format, profile, utilisation.is_none(), &mut assumptions)?;
    let mut seen = Seen::default();
    let nodes: Vec<NodeEstimate> = work
        .nodes
        .iter()
        .filter_map(|(id, counts)| {
            let counts = counts.as_ref()?;
            let shares = utilisation.as_ref().and_then(|utilisation| {
                node_shares(graph, *id, counts, bindings, utilisation, &mut seen)
            });
            Some(node_estimate(graph, *id, counts, shares, &rates, setup))
        })
        .collect();
    if let Some(utilisation) = &utilisation {
        assume_utilisation(utilisation, format, &seen, &rates, &mut assumptions);
    }
    let time: Seconds = nodes.iter().map(|node| node.time).sum();
    if time.0 <= 0.0 {
        return Err(Error::new("holds no operation that takes time"));
    }
    let mut time_by_bound = BTreeMap::new();
    for node in nodes.iter().filter(|node| 0.0 < node.time.0) {
        let total = time_by_bound.entry(node.bound).or_insert(Seconds(0.0));
        *total = *total + node.time;
    }
    let longest = time_by_bound.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0));
    let bound = longest.map_or(Bound::Nothing, |(bound, _)| *bound);
    assume_the_rest(setup, &mut assumptions);
    let flops = work.total.model_flops();
    let achieved = flops / time;
    Ok(Estimate {
        machine: profile.machine.name.clone(),
        rates,
        utilisation,
        time,
        passes: SamplesPerSec(1.0 / time.0),
        achieved,
        share_of_peak: achieved / rates.peak,
        intensity: flops / work.total.bytes(),
        ridge_point: rates.peak / rates.bandwidth,
        nodes,
        time_by_bound,
        bound,
        assumptions,
    })
}

fn assume_the_rest(setup: &Setup, assumptions: &mut Vec<Assumption>) {
    let texts = [
        format!("{} for each kernel started (--overhead)", setup.overhead),
        "every operand comes from main memory; what caches keep between nodes is not modelled"
            .to_owned(),
        "nodes run one after the other in the file's order; nothing is fused".to_owned(),
        format!(
            "an exp, division or root takes {VECTOR_OPS_PER_TRANSCENDENTAL} vector operations; \
             adds, multiplies and compares run at half the multiply-add peak"
        ),
    ];
    assumptions.extend(texts.map(|text| Assumption { text }));
}

/// What the shares of a model's products were looked up for.
#[derive(Default)]
struct Seen {
    flops: f64,
    flops_outside: f64,
    flops_shapeless: f64,
}

/// The shares of the two roofs that a node's products reach together: their times add up.
fn node_shares(
    graph: &Graph,
    id: NodeId,
    counts: &Counts,
    bindings: &Bindings,
    utilisation: &Utilisation,
    seen: &mut Seen,
) -> Option<Shares> {
    let flops = counts.model_flops().0 as f64;
    if flops <= 0.0 {
        return None;
    }
    seen.flops += flops;
    let products = products(graph, &graph.nodes[id.0], bindings);
    if products.is_empty() {
        seen.flops_shapeless += flops;
        return None;
    }
    let (mut compute, mut memory, mut is_inside) = (0.0, 0.0, true);
    for product in &products {
        let found = utilisation.at(product.shape);
        compute += product.share / found.compute;
        memory += product.share / found.memory;
        is_inside &= found.is_inside;
        if !found.is_inside {
            seen.flops_outside += product.share * flops;
        }
    }
    Some(Shares { compute: 1.0 / compute, memory: 1.0 / memory, is_inside })
}

fn assume_utilisation(
    utilisation: &Utilisation,
    format: Format,
    seen: &Seen,
    rates: &Rates,
    assumptions: &mut Vec<Assumption>,
) {
    let mut assume = |text: String| assumptions.push(Assumption { text });
    let plural = if utilisation.threads == 1 { "" } else { "s" };
    assume(format!(
        "matrix products, convolutions (as products of im2col) and attention reach the part of \
         min(peak, intensity x memory read) that {format} GEMMs of {} shapes reached on {} thread{plural}, \
         the fastest library at each ({}), interpolated over log m, log n and log k",
        utilisation.points.len(),
        utilisation.threads,
        utilisation.backends().join(", ")
    ));
    for (bound, what) in [(Bound::Compute, "peak"), (Bound::Memory, "memory bandwidth")] {
        if !utilisation.has(bound) {
            let waiting = bound.name();
            assume(format!(
                "no GEMM measured was bound by {waiting}; products that are reach the whole {what}"
            ));
        }
    }
    if 0.0 < seen.flops_outside {
        let range = utilisation.range();
        let range = range.map(|(low, high)| format!("{low} to {high}"));
        let [m, n, k] = range;
        assume(format!(
            "{:.0} % of the model FLOPs are in products beyond the shapes measured (m {m}, n {n}, \
             k {k}); the nearest shape within them stands for those",
            100.0 * seen.flops_outside / seen.flops
        ));
    }
    if 0.0 < seen.flops_shapeless {
        assume(format!(
            "{:.0} % of the model FLOPs are in operators without the shape of a product; they run at \
             the {} of the fastest GEMM",
            100.0 * seen.flops_shapeless / seen.flops,
            rates.matmul
        ));
    }
}

/// The format of the graph's products, or FP32 where that was not measured.
fn measured_format(graph: &Graph, profile: &Profile, assumptions: &mut Vec<Assumption>) -> Format {
    let wanted = compute_format(graph);
    if profile.peak(wanted.name).is_some() {
        return wanted;
    }
    let text = format!("{wanted} was not measured on this machine; fp32's rates are used");
    assumptions.push(Assumption { text });
    Format::FP32
}

fn rates(
    format: Format,
    profile: &Profile,
    is_one_rate: bool,
    assumptions: &mut Vec<Assumption>,
) -> Result<Rates, Error> {
    let missing = |what: &str| {
        let name = &profile.machine.name;
        Error::new(format!("the profile of {name} holds no {what}"))
            .remedy("run `flopwise measure`")
    };
    let peak = profile.peak(format.name).ok_or_else(|| missing("FP32 peak"))?;
    let matmul = match profile.compute_rate(format.name, ComputeKind::Gemm) {
        Some(gemm) => {
            let [m, n, k] = gemm.shape.unwrap_or_default();
            let threads = gemm.threads;
            let sampled = gemm.flops_per_s;
            let text = format!(
                "matrix products, convolutions and attention of any shape run at the {} that a \
                 {m}x{n}x{k} {format} GEMM reached on {threads} threads ({} of {} slices clean, \
                 the middle half within {:.0} %)",
                FlopsPerSec(sampled.median),
                sampled.samples,
                sampled.taken,
                100.0 * sampled.spread
            );
            if is_one_rate {
                assumptions.push(Assumption { text });
            }
            FlopsPerSec(gemm.flops_per_s.median)
        }
        None => {
            let text = "no GEMM was measured; matrix products run at the peak".to_owned();
            assumptions.push(Assumption { text });
            peak
        }
    };
    let bandwidth = profile.dram_read().ok_or_else(|| missing("main-memory bandwidth"))?;
    Ok(Rates { peak, matmul, vector: peak * 0.5, bandwidth })
}

/// The format most matrix products of the graph run in: that of the largest parameter they read.
fn compute_format(graph: &Graph) -> Format {
    let products = graph.nodes.iter().filter(|node| is_product(node.op.kind()));
    let operands = products.flat_map(|node| &node.inputs).map(|id| graph.tensor(*id));
    let weights = operands.filter(|tensor| tensor.role == Role::Parameter);
    let mut by_format: BTreeMap<Format, usize> = BTreeMap::new();
    for format in weights.filter_map(|weight| weight.tensor_type.as_ref()).map(|t| t.format) {
        *by_format.entry(format).or_insert(0) += 1;
    }
    let most = by_format.into_iter().max_by_key(|(_, n_weights)| *n_weights);
    most.map_or(Format::FP32, |(format, _)| format)
}

fn is_product(kind: Kind) -> bool {
    matches!(kind, Kind::MatMul | Kind::Convolution | Kind::Attention)
}

fn node_estimate(
    graph: &Graph,
    id: NodeId,
    counts: &Counts,
    shares: Option<Shares>,
    rates: &Rates,
    setup: &Setup,
) -> NodeEstimate {
    let transcendental = counts.transcendental_ops.0 as f64 * VECTOR_OPS_PER_TRANSCENDENTAL;
    let vector_ops = counts.other_ops.0 as f64 + transcendental;
    let (matmul, bandwidth) = match shares {
        Some(shares) => (rates.peak * shares.compute, rates.bandwidth * shares.memory),
        None => (rates.matmul, rates.bandwidth),
    };
    let (flops, bytes) = (counts.model_flops(), counts.bytes());
    let compute = flops / matmul + Seconds(vector_ops / rates.vector.0);
    let memory = bytes / bandwidth;
    let at_best = (flops / rates.peak).max(bytes / rates.bandwidth);
    let as_measured = (flops / matmul).max(memory);
    let runs = !graph.nodes[id.0].op.is_view();
    let overhead = if runs { setup.overhead } else { Seconds(0.0) };
    let longer = compute.max(memory);
    let bound = if !runs {
        Bound::Nothing
    } else if longer.0 < overhead.0 {
        Bound::Overhead
    } else if memory.0 < compute.0 {
        Bound::Compute
    } else {
        Bound::Memory
    };
    let has_intensity = counts.macs.0 != 0 && counts.bytes().0 != 0;
    NodeEstimate {
        node: id,
        compute,
        memory,
        overhead,
        time: longer + overhead,
        bound,
        intensity: has_intensity.then(|| counts.model_flops() / counts.bytes()),
        utilisation: shares.map(|_| at_best / as_measured),
    }
}
