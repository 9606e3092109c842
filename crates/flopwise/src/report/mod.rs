//! Answers as plain data: every printer (text, JSON, HTML) prints a [`Report`].
//!
//! Not here: how the numbers come about. Printers return text and print nothing themselves.

mod audit;
mod convention;
mod figures;
mod formats;
mod groups;
mod html;
mod json;
mod machine;
mod machine_svg;
mod matmul;
mod models;
mod modules;
mod number;
mod roofline;
mod state;
mod svg;
mod sweep;
mod tensors;
mod text;
mod training;
mod versus;

pub use audit::{AuditReport, ReadingRow};
pub use convention::{
    ConventionFigure, ConventionGroup, ConventionLine, ConventionReport, ConventionRow,
};
pub use figures::{Figure, FiguresReport, figures};
pub use formats::{FormatEntry, FormatsReport};
pub use groups::{Grouping, Row, group};
pub use html::{html, measure_html};
pub use json::json;
pub use machine_svg::machine_svg;
pub use matmul::{MatmulReport, MatmulRow, StoredRow};
pub use models::{ModelEntry, ModelReport, ModelsReport};
pub use modules::{FoldedRow, ModuleRow, folded, modules};
pub use number::{BlockConversion, BlockElement, NumberConversion, NumberReport, NumberValue};
pub use roofline::{RidgePoint, Roof, Roofline, RooflineGemm, Slope, roofline};
pub use state::{
    ActiveReport, MemoryTable, PagedPart, PagedReport, StatePart, StateReport, WeightsIn,
};
pub use svg::roofline_svg;
pub use sweep::{SweepReport, SweepRow, sweep_svg};
pub use tensors::{TensorRow, TensorsReport, Verdict};
pub use text::{Paint, text};
pub use training::{
    TrainingCounted, TrainingFormula, TrainingNode, TrainingReport, TrainingRow, group_training,
};
pub use versus::{VersusReport, VersusRow, side_by_side};

use crate::cost::{Counts, Stored};
use crate::estimate::Estimate;
use crate::graph::{Kind, Shape, Symbol, TensorType};
use crate::machine::Profile;
use crate::note::Note;
use crate::units::Bytes;
use std::collections::BTreeMap;

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// What a model costs.
    Count(Box<CountReport>),
    /// What a machine does.
    Measure(Box<Profile>),
    /// Two counts side by side.
    Versus(Box<VersusReport>),
    /// A count at many sizes.
    Sweep(Box<SweepReport>),
    /// How long a model takes on a machine.
    Estimate(Box<EstimateReport>),
    /// All three on one page.
    Page(Box<EstimateReport>),
    /// How a count comes about.
    Explanation(Box<Explanation>),
    /// What other tools print.
    Convention(Box<ConventionReport>),
    /// What a published rate was computed from.
    Audit(Box<AuditReport>),
    /// The built-in models.
    Models(ModelsReport),
    /// One of them.
    Model(Box<ModelReport>),
    /// What values become in number formats.
    Number(Box<NumberReport>),
    /// What formats do to a matrix multiplication.
    Matmul(Box<MatmulReport>),
    /// The formats there are.
    Formats(Box<FormatsReport>),
    /// What formats would do to the tensors of a file.
    Tensors(Box<TensorsReport>),
    /// What a training step of a model costs.
    Training(Box<TrainingReport>),
    /// How measured figures come about.
    Figures(Box<FiguresReport>),
}

/// How the counts of a node, or of a whole model, come about.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The model's name.
    pub model: String,
    /// The node explained; `None` for the whole model.
    pub node: Option<NodeRow>,
    /// What it reads and gives: `reads x [batch, 3] fp32`.
    pub operands: Vec<String>,
    /// Each quantity, with its working.
    pub steps: Vec<ExplainedStep>,
    /// The values put in for symbols, given and assumed.
    pub bindings: BTreeMap<String, i128>,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

/// One quantity with its working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedStep {
    /// `MACs`, `other ops`, ...
    pub quantity: &'static str,
    /// In words: `results x inner size`.
    pub words: String,
    /// In symbols: `768*batch*seq x 2304`.
    pub factors: String,
    /// Multiplied out: `1769472*batch*seq`.
    pub formula: String,
    /// With the bindings put in; `None` while a symbol has no value.
    pub value: Option<u128>,
    /// Why it is so.
    pub source: String,
}

/// What a model costs.
#[derive(Clone, Debug, PartialEq)]
pub struct CountReport {
    /// The model's name.
    pub model: String,
    /// Name and type of what the user gives; `None` for a type that is not known.
    pub inputs: Vec<(String, Option<TensorType>)>,
    /// Name and type of what the user gets.
    pub outputs: Vec<(String, Option<TensorType>)>,
    /// Symbols of its shapes.
    pub symbols: Vec<Symbol>,
    /// Values the user gave.
    pub bindings: BTreeMap<String, i128>,
    /// Values assumed because the user gave none.
    pub assumed: BTreeMap<String, i128>,
    /// Totals in symbols; where only some symbols are bound, with those put in.
    pub formula: Formula,
    /// Parameters and their bytes; `None` only if a weight's size hangs on an open symbol.
    pub stored: Option<Stored>,
    /// Parameters that work on each token, where tokens are looked up.
    pub active: Option<ActiveReport>,
    /// What is kept from token to token, where something is.
    pub state: Option<StateReport>,
    /// The weights in common formats, where asked for.
    pub memory: Option<MemoryTable>,
    /// Totals in numbers; `None` while a symbol has no value, given or assumed.
    pub counted: Option<Counted>,
    /// Whether something could not be counted, so that every total is a lower bound.
    pub is_lower_bound: bool,
    /// What could not be counted.
    pub unknown: Vec<Unknown>,
    /// How the rows are grouped.
    pub grouping: Grouping,
    /// The modules as a tree, where rows are modules.
    pub modules: Vec<ModuleRow>,
    /// How deep the tree of modules is shown; `None` for as deep as a screen allows.
    pub depth: Option<usize>,
    /// Every node, in order.
    pub nodes: Vec<NodeRow>,
    /// Doubts and flaws.
    pub notes: Vec<Note>,
}

impl CountReport {
    /// The error of a question that needs a value for every symbol.
    pub(crate) fn without_values(&self, what: &str) -> crate::error::Error {
        let open = self.symbols.iter().filter(|symbol| {
            !self.bindings.contains_key(&symbol.name) && !self.assumed.contains_key(&symbol.name)
        });
        let names: Vec<String> = open.map(|symbol| format!("{}=N", symbol.name)).collect();
        crate::error::Error::new(format!("{what} needs a value for every symbol of the model"))
            .remedy(format!("add --bind {}", names.join(",")))
    }
}

/// Totals in symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formula {
    /// Multiply-accumulates.
    pub macs: String,
    /// Other primitive operations.
    pub other_ops: String,
    /// Transcendental operations.
    pub transcendental_ops: String,
    /// Bytes read.
    pub bytes_read: String,
    /// Bytes written.
    pub bytes_written: String,
}

/// Totals in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Sum over all counted nodes.
    pub total: Counts,
    /// The most that inputs and results take at once.
    pub peak_activation_bytes: Bytes,
    /// The rows asked for, the costliest first.
    pub rows: Vec<Row>,
}

/// Operators that could not be counted, those alike together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The operator's name in the file.
    pub operator: String,
    /// The first node.
    pub node: String,
    /// Its module, where known.
    pub module: Option<String>,
    /// How many nodes.
    pub count: usize,
    /// Why.
    pub reason: String,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// Name in the file.
    pub name: String,
    /// Canonical operator.
    pub op: String,
    /// Operator's name in the file.
    pub operator: String,
    /// The operator's group.
    pub kind: Kind,
    /// Module path.
    pub module: Option<String>,
    /// Source line.
    pub line: Option<String>,
    /// Shape of the first output.
    pub output: Option<Shape>,
    /// Its counts; `None` while a symbol is unbound or when it could not be counted.
    pub counts: Option<Counts>,
}

/// A model on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct EstimateReport {
    /// The model.
    pub count: CountReport,
    /// The machine.
    pub profile: Profile,
    /// The time.
    pub estimate: Estimate,
    /// Samples in one pass: the value of `batch`, 1 without such a symbol.
    pub batch: i128,
    /// The costliest nodes or modules by time, with their share of it.
    pub costliest: Vec<Costly>,
    /// One point per node that computes anything, for the roofline.
    pub points: Vec<Point>,
}

/// One of the costliest.
#[derive(Clone, Debug, PartialEq)]
pub struct Costly {
    /// Module path or node name.
    pub name: String,
    /// What it is mostly made of.
    pub kind: Kind,
    /// Nodes in it.
    pub n_nodes: usize,
    /// Its counts.
    pub counts: Counts,
    /// Its time.
    pub seconds: crate::units::Seconds,
    /// Share of the whole time.
    pub share: f64,
    /// What it waits for most.
    pub bound: crate::estimate::Bound,
}

/// A node on the roofline.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Node name.
    pub name: String,
    /// The operator's group.
    pub kind: Kind,
    /// Operations of every kind per byte: two per MAC, one per other operation.
    pub intensity: crate::units::FlopsPerByte,
    /// Operations per second predicted for it.
    pub rate: crate::units::FlopsPerSec,
    /// Its time.
    pub seconds: crate::units::Seconds,
    /// What it waits for most.
    pub bound: crate::estimate::Bound,
    /// The part of its roofline that its matrix products reach, where that hangs on their shape.
    pub utilisation: Option<f64>,
}
