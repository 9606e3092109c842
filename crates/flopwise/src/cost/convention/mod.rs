//! What other tools print for the same model, and what the difference to the graph's own count is
//! made of, line by line.
//!
//! Each tool is a file with its rules, read off its source (the version stands there). A rule says
//! what the tool counts of a node: terms that stand for the node's multiply-accumulates, and
//! terms beside them (norms, biases, activations). The difference then sums up exactly, by
//! construction. A tool that cannot run on such a model says why instead.
//!
//! Not here: the graph's own count (`crate::cost`).

mod deepspeed;
mod dispatch;
mod figure;
mod fvcore;
mod hybrid;
mod language;
mod layout;
mod onnx_tool;
mod ptflops;
mod seen;
mod thop;
mod torchinfo;
mod xla;

pub use figure::{Figure, Group, Line, figure};

use crate::graph::{Bindings, Dim, Graph};
use seen::{Seen, Site};
use std::borrow::Cow;

/// A tool, or a formula of the literature, whose count can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Convention {
    /// fvcore's `FlopCountAnalysis`.
    Fvcore,
    /// thop's `profile` (pytorch-OpCounter).
    Thop,
    /// ptflops with its ATen backend, the default.
    Ptflops,
    /// ptflops with its PyTorch backend.
    PtflopsPytorch,
    /// torchinfo's `summary`.
    Torchinfo,
    /// The FLOPs profiler of DeepSpeed, which calflops is a copy of.
    Deepspeed,
    /// `torch.utils.flop_counter.FlopCounterMode`, one forward pass without gradients.
    FlopCounter,
    /// The same, forward and backward.
    FlopCounterTraining,
    /// The `_ops` of torchvision's weights.
    Torchvision,
    /// onnx-tool.
    OnnxTool,
    /// XLA's `HloCostAnalysis`, of products and convolutions.
    Xla,
    /// 6 N D (Kaplan et al. 2020, Hoffmann et al. 2022).
    SixN,
    /// PaLM, appendix B (Chowdhery et al. 2022).
    Palm,
    /// nanoGPT's `estimate_mfu`.
    Nanogpt,
    /// torchtitan's `get_nparams_and_flops`.
    Torchtitan,
    /// Megatron-LM's `num_floating_point_operations`.
    Megatron,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One per multiply-accumulate of a forward pass.
    Mac,
    /// Two per multiply-accumulate of a forward pass.
    Flop,
    /// Two per multiply-accumulate of a forward and a backward pass.
    TrainingFlop,
}

impl Unit {
    /// What one multiply-accumulate of the forward pass comes to. A backward pass multiplies twice
    /// as much, once for the gradient of either operand.
    #[must_use]
    pub fn per_mac(self) -> i64 {
        match self {
            Unit::Mac => 1,
            Unit::Flop => 2,
            Unit::TrainingFlop => 6,
        }
    }

    /// What flopwise calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unit::Mac => "MACs",
            Unit::Flop => "FLOPs",
            Unit::TrainingFlop => "training FLOPs",
        }
    }
}

impl Convention {
    /// Every one, in the order of tables.
    pub const ALL: [Convention; 16] = [
        Convention::Fvcore,
        Convention::Thop,
        Convention::Ptflops,
        Convention::PtflopsPytorch,
        Convention::Torchinfo,
        Convention::Deepspeed,
        Convention::FlopCounter,
        Convention::FlopCounterTraining,
        Convention::Torchvision,
        Convention::OnnxTool,
        Convention::Xla,
        Convention::SixN,
        Convention::Palm,
        Convention::Nanogpt,
        Convention::Torchtitan,
        Convention::Megatron,
    ];

    /// The name to type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Convention::Fvcore => "fvcore",
            Convention::Thop => "thop",
            Convention::Ptflops => "ptflops",
            Convention::PtflopsPytorch => "ptflops-pytorch",
            Convention::Torchinfo => "torchinfo",
            Convention::Deepspeed => "deepspeed",
            Convention::FlopCounter => "flopcounter",
            Convention::FlopCounterTraining => "flopcounter-train",
            Convention::Torchvision => "torchvision",
            Convention::OnnxTool => "onnx-tool",
            Convention::Xla => "xla",
            Convention::SixN => "6n",
            Convention::Palm => "palm",
            Convention::Nanogpt => "nanogpt",
            Convention::Torchtitan => "torchtitan",
            Convention::Megatron => "megatron",
        }
    }

    /// What it counts in.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Convention::Fvcore
            | Convention::Thop
            | Convention::Ptflops
            | Convention::PtflopsPytorch
            | Convention::Torchinfo
            | Convention::Torchvision
            | Convention::OnnxTool => Unit::Mac,
            Convention::Deepspeed | Convention::FlopCounter | Convention::Xla => Unit::Flop,
            Convention::FlopCounterTraining
            | Convention::SixN
            | Convention::Palm
            | Convention::Nanogpt
            | Convention::Torchtitan
            | Convention::Megatron => Unit::TrainingFlop,
        }
    }

    /// The call, the version it was read from, and what it calls its unit.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Convention::Fvcore => "fvcore 0.1.5, FlopCountAnalysis(model, input).total()",
            Convention::Thop => "thop 0.1.1, profile(model, inputs)",
            Convention::Ptflops => "ptflops 0.7, get_model_complexity_info(.., backend='aten')",
            Convention::PtflopsPytorch => {
                "ptflops 0.7, get_model_complexity_info(.., backend='pytorch')"
            }
            Convention::Torchinfo => "torchinfo 1.8, summary(model, input_data=..).total_mult_adds",
            Convention::Deepspeed => "DeepSpeed's flops profiler, calflops 0.3.2",
            Convention::FlopCounter => {
                "PyTorch 2.15, torch.utils.flop_counter.FlopCounterMode under no_grad"
            }
            Convention::FlopCounterTraining => {
                "PyTorch 2.15, torch.utils.flop_counter.FlopCounterMode, forward and backward"
            }
            Convention::Torchvision => "torchvision, Weights.meta['_ops']",
            Convention::OnnxTool => "onnx-tool 1.0, model_profile(file)",
            Convention::Xla => "XLA, HloCostAnalysis, flops of dot and convolution",
            Convention::SixN => "6 N D (Kaplan et al. 2020, Hoffmann et al. 2022)",
            Convention::Palm => "(6 N + 12 L H Q T) D (PaLM, appendix B)",
            Convention::Nanogpt => "nanoGPT, estimate_mfu: (6 N + 12 L H Q T) D",
            Convention::Torchtitan => "torchtitan, (6 (N - N_embedding) + 12 L H Q T) D",
            Convention::Megatron => "Megatron-LM, num_floating_point_operations",
        }
    }

    /// The name that the tool itself prints its figure under.
    #[must_use]
    pub fn printed_as(self) -> &'static str {
        match self {
            Convention::Fvcore => "flop (fvcore calls a MAC a flop)",
            Convention::Thop => "MACs (its first result; pages that cite it often say FLOPs)",
            Convention::Ptflops | Convention::PtflopsPytorch => "MACs",
            Convention::Torchinfo => "mult-adds",
            Convention::Deepspeed => "FLOPs (2 per MAC)",
            Convention::FlopCounter | Convention::FlopCounterTraining => "FLOPs (2 per MAC)",
            Convention::Torchvision => "GMACs, to three decimals",
            Convention::OnnxTool => "MACs (it adds other operations, weighted)",
            Convention::Xla => "flops (2 per MAC)",
            Convention::SixN
            | Convention::Palm
            | Convention::Nanogpt
            | Convention::Torchtitan
            | Convention::Megatron => "FLOPs of one training step (2 per MAC)",
        }
    }
}

/// Something that a tool counts.
#[derive(Clone, Debug)]
struct Term {
    /// What the tool calls it: `batch_norm`.
    what: Cow<'static, str>,
    /// Its rule in words: `2 x elements`.
    rule: &'static str,
    amount: Dim,
    role: TermRole,
}

/// What a term is to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TermRole {
    /// It is the tool's figure for the node's multiply-accumulates.
    Products,
    /// It counts something else.
    Beside,
}

impl Term {
    fn products(what: impl Into<Cow<'static, str>>, rule: &'static str, amount: Dim) -> Term {
        Term { what: what.into(), rule, amount, role: TermRole::Products }
    }

    fn beside(what: impl Into<Cow<'static, str>>, rule: &'static str, amount: Dim) -> Term {
        Term { what: what.into(), rule, amount, role: TermRole::Beside }
    }
}

/// What a tool makes of one node.
enum Verdict {
    /// It counts these.
    Counts(Vec<Term>),
    /// It counts nothing; why.
    Misses(&'static str),
}

/// A tool's count of a whole graph.
#[derive(Default)]
struct Tally {
    /// Terms and the node they belong to; none for what belongs to the whole model.
    terms: Vec<(Option<usize>, Term)>,
    /// Why a node is not counted, for those that are not.
    misses: Vec<(usize, &'static str)>,
    /// Other figures of the same tool: under another setting, or of another quantity.
    also: Vec<(String, Dim)>,
    /// What the user should know.
    remarks: Vec<String>,
}

impl Tally {
    /// Applies a rule to every node that runs.
    fn of_nodes(seen: &Seen, rule: impl Fn(&Site) -> Verdict) -> Tally {
        let mut tally = Tally::default();
        for site in seen.sites() {
            match rule(&site) {
                Verdict::Counts(terms) => {
                    let terms = terms.into_iter().map(|term| (Some(site.index), term));
                    tally.terms.extend(terms);
                }
                Verdict::Misses(why) => tally.misses.push((site.index, why)),
            }
        }
        tally
    }

    /// The sum of all terms.
    fn total(&self, graph: &Graph) -> Dim {
        let amounts = self.terms.iter().map(|(node, term)| match node {
            Some(index) => &term.amount * &graph.nodes[*index].repeat,
            None => term.amount.clone(),
        });
        amounts.sum()
    }
}

/// The tool's count, or why it has none.
fn tally(convention: Convention, graph: &Graph, bindings: &Bindings) -> Result<Tally, String> {
    let seen = Seen::new(graph, bindings);
    match convention {
        Convention::Torchvision => dispatch::torchvision(&seen),
        Convention::Xla => xla::tally(&seen),
        Convention::OnnxTool => onnx_tool::tally(&seen),
        Convention::SixN
        | Convention::Palm
        | Convention::Nanogpt
        | Convention::Torchtitan
        | Convention::Megatron => language::tally(convention, &seen),
        Convention::Fvcore
        | Convention::Thop
        | Convention::Ptflops
        | Convention::PtflopsPytorch
        | Convention::Torchinfo
        | Convention::Deepspeed
        | Convention::FlopCounter
        | Convention::FlopCounterTraining => {
            if !seen.is_pytorch() {
                return Err(
                    "it watches a PyTorch model run; this file does not hold the calls of \
                            one (a .pt2 file does)"
                        .to_owned(),
                );
            }
            of_pytorch(convention, &seen)
        }
    }
}

/// Tools that watch a PyTorch model run.
fn of_pytorch(convention: Convention, seen: &Seen) -> Result<Tally, String> {
    let needs_classes = match convention {
        Convention::Thop
        | Convention::PtflopsPytorch
        | Convention::Torchinfo
        | Convention::Deepspeed => true,
        Convention::Fvcore
        | Convention::Ptflops
        | Convention::FlopCounter
        | Convention::FlopCounterTraining
        | Convention::Torchvision
        | Convention::OnnxTool
        | Convention::Xla
        | Convention::SixN
        | Convention::Palm
        | Convention::Nanogpt
        | Convention::Torchtitan
        | Convention::Megatron => false,
    };
    if needs_classes && !seen.has_classes() {
        return Err(
            "it hooks into modules by their class, and this file does not name the classes \
                    of its modules"
                .to_owned(),
        );
    }
    match convention {
        Convention::Fvcore => fvcore::tally(seen),
        Convention::Thop => Ok(thop::tally(seen)),
        Convention::Ptflops => Ok(dispatch::ptflops(seen)),
        Convention::PtflopsPytorch => Ok(ptflops::tally(seen)),
        Convention::Torchinfo => Ok(torchinfo::tally(seen)),
        Convention::Deepspeed => Ok(deepspeed::tally(seen)),
        Convention::FlopCounter => Ok(dispatch::flop_counter(seen)),
        Convention::FlopCounterTraining => Ok(dispatch::flop_counter_training(seen)),
        Convention::Torchvision
        | Convention::OnnxTool
        | Convention::Xla
        | Convention::SixN
        | Convention::Palm
        | Convention::Nanogpt
        | Convention::Torchtitan
        | Convention::Megatron => Err("it does not watch a model run".to_owned()),
    }
}
