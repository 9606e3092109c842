//! What a machine-learning model costs: counted exactly, and estimated on a machine with the
//! working shown.
//!
//! ```
//! use flopwise::{cost, graph::Bindings, query::open_model};
//!
//! let graph = open_model("gpt2")?;
//! let work = cost::work(&graph);
//! assert_eq!(work.total.macs.0.to_string(), "123532032*batch*seq + 18432*batch*seq^2");
//!
//! let bindings = Bindings::resolve(&graph, &[("batch".into(), 1), ("seq".into(), 128)])?;
//! let bound = work.bind(&graph, &bindings)?;
//! assert_eq!(bound.total.macs.0, 16_114_089_984);
//! assert_eq!(bound.total.parameters, 124_439_808);
//! # Ok::<(), flopwise::error::Error>(())
//! ```
//!
//! The modules in reading order are the way of an answer: a file or name becomes a
//! [`graph::Graph`] ([`import`], [`arch`]), that a [`cost::Work`], that with a
//! [`machine::Profile`] an [`estimate::Estimate`], and that a [`report::Report`]. [`query`] is the
//! door to all of it.
//!
//! Beside that way lies [`weights`]: the tensors in a checkpoint, read in pieces.
//!
//! Not here: clocks, threads, printing, and the environment. Files are opened in [`import`] alone.

pub mod error;
pub mod note;
pub mod units;

pub mod graph;
pub mod import;
pub mod weights;

pub mod cost;

pub mod machine;

pub mod estimate;

pub mod report;

pub mod arch;
pub mod query;
