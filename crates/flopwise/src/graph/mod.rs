//! The one representation of a model: a [`Graph`] of [`Node`]s, each computing one canonical
//! [`Op`] over [`Tensor`]s whose sizes are [`Dim`]s.
//!
//! Not here: files (see [`crate::import`]) and costs (see [`crate::cost`]).

mod build;
mod dim;
#[cfg(test)]
mod dim_tests;
mod einsum;
mod fuse;
mod mask;
mod op;
mod shape;
#[cfg(test)]
mod shape_tests;
mod state;
mod stated;
mod symbol;
mod tensor;

pub use build::{BuildError, Builder, MAX_DIM, Mark, NewNode, Section, SectionStart};
pub use dim::{Dim, DimError};
pub use einsum::Einsum;
pub use fuse::fuse_attention;
pub use mask::{Attention, Band, Compressed, Entries, Mask, Pass};
pub use op::{
    Cell, Convolution, Direction, Function, Interpolation, Keep, Kind, MatMul, Normalization, Op,
    Orientation, Padding, Pool, PoolFunction, Positions, Range, Recurrent, Reduce, Reduction,
    Rounding, Storage, Window,
};
pub use shape::{ShapeError, axis_of, infer};
pub use state::{Keeps, State, StoredFormat};
pub use stated::{Stated, StatedGradient};
pub use symbol::{BindError, Bindings, Constraint, ROUNDS, Relation, Symbol};
pub use tensor::{
    Choice, Graph, Node, NodeId, Role, Shape, SourceLine, Stored, Tensor, TensorId, TensorType,
};
