//! Tensors whose elements are known while the file is read: shapes, axes, scales.
//!
//! Not here: what operators do to them (`fold/`). An element is an exact [`Dim`], possibly
//! symbolic, or a float that is no integer. Floats that happen to be integers are kept exact too,
//! so that a size survives the way through a float and back.

use crate::graph::{Dim, Shape, TensorType};
use flopwise_formats::{Format, Layout};
use std::rc::Rc;

/// Integer tensors with more elements are data, not shapes. A position table for 4096 tokens fits.
const MAX_INTEGERS: usize = 4096;
/// Float tensors with more elements may be weights. The region of interest of a 5-axis resize has 10.
const MAX_FLOATS: usize = 10;
/// Integers from here on stand for no size, only for "to the end" or a mask value.
pub(super) const FAR: i128 = i32::MAX as i128;

/// One element.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    /// An integer or boolean, or a float of integral value.
    Exact(Dim),
    /// Any other float.
    Float(f64),
}

impl Scalar {
    pub(super) fn float(number: f64) -> Scalar {
        // Up to 2^53 a float holds every integer exactly.
        const LIMIT: f64 = 9_007_199_254_740_992.0;
        if number.abs() <= LIMIT && number.trunc().total_cmp(&number).is_eq() {
            return Scalar::Exact(Dim::from(number as i64));
        }
        Scalar::Float(number)
    }

    pub(super) fn boolean(truth: bool) -> Scalar {
        Scalar::Exact(if truth { Dim::ONE } else { Dim::ZERO })
    }

    pub(super) fn exact(&self) -> Option<&Dim> {
        match self {
            Scalar::Exact(dim) => Some(dim),
            Scalar::Float(_) => None,
        }
    }

    /// Its value, when no symbol is in it.
    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Scalar::Exact(dim) => dim.as_constant().map(|number| number as f64),
            Scalar::Float(number) => Some(*number),
        }
    }

    pub(super) fn as_i128(&self) -> Option<i128> {
        self.exact().and_then(Dim::as_constant)
    }
}

/// A tensor with known elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) format: Format,
    pub(super) shape: Vec<usize>,
    pub(super) elements: Rc<[Scalar]>,
}

impl Value {
    /// `None` when it would be too large to be kept.
    pub(super) fn new(format: Format, shape: Vec<usize>, elements: Vec<Scalar>) -> Option<Value> {
        let fits = may_be_known(format, &shape) && volume(&shape) == Some(elements.len());
        fits.then(|| Value { format, shape, elements: elements.into() })
    }

    /// A list of sizes.
    pub(super) fn sizes(sizes: impl IntoIterator<Item = Dim>) -> Value {
        let elements: Rc<[Scalar]> = sizes.into_iter().map(Scalar::Exact).collect();
        Value { format: Format::INT64, shape: vec![elements.len()], elements }
    }

    pub(super) fn scalar(format: Format, element: Scalar) -> Value {
        Value { format, shape: Vec::new(), elements: Rc::new([element]) }
    }

    /// The tensor whose element at each index is this one's element at the place that `place`
    /// gives for that index.
    pub(super) fn rearranged(
        &self,
        shape: Vec<usize>,
        mut place: impl FnMut(&[usize]) -> Option<usize>,
    ) -> Option<Value> {
        if !may_be_known(self.format, &shape) {
            return None;
        }
        let mut elements = Vec::with_capacity(volume(&shape)?);
        for index in indices(&shape) {
            elements.push(self.elements.get(place(&index)?)?.clone());
        }
        Value::new(self.format, shape, elements)
    }

    /// The same elements under another shape.
    pub(super) fn reshaped(&self, shape: Vec<usize>) -> Option<Value> {
        let fits = volume(&shape) == Some(self.elements.len());
        fits.then(|| Value { format: self.format, shape, elements: Rc::clone(&self.elements) })
    }

    pub(super) fn tensor_type(&self) -> TensorType {
        let lengths = self.shape.iter().map(|length| Dim::from(*length as u128));
        TensorType { shape: Shape(lengths.collect()), format: self.format }
    }

    /// All elements, when none is a fraction.
    pub(super) fn dims(&self) -> Option<Vec<Dim>> {
        self.elements.iter().map(|element| element.exact().cloned()).collect()
    }

    /// All elements, when none is symbolic or a fraction.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        let integer = |element: &Scalar| i64::try_from(element.as_i128()?).ok();
        self.elements.iter().map(integer).collect()
    }

    /// The only element.
    pub(super) fn single(&self) -> Option<&Scalar> {
        match &*self.elements {
            [element] => Some(element),
            _ => None,
        }
    }
}

/// Whether a tensor of this type is small enough to be looked into.
pub(super) fn may_be_known(format: Format, shape: &[usize]) -> bool {
    let most = match format.layout {
        Layout::SignedInteger | Layout::UnsignedInteger | Layout::Boolean => MAX_INTEGERS,
        Layout::Float(_) => MAX_FLOATS,
        Layout::CodeBook(_) | Layout::Complex | Layout::Text => return false,
    };
    volume(shape).is_some_and(|volume| volume <= most)
}

/// The number of elements.
pub(super) fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length))
}

/// The sizes as plain numbers, when none is symbolic.
pub(super) fn concrete(dims: &[Dim]) -> Option<Vec<usize>> {
    dims.iter().map(|dim| usize::try_from(dim.as_constant()?).ok()).collect()
}

/// How far apart neighbours along each axis lie.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// Every index of a tensor, the last axis fastest.
pub(super) fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let n_indices = volume(shape).unwrap_or(0);
    let strides = strides(shape);
    let shape = shape.to_vec();
    (0..n_indices).map(move |place| {
        let axes = strides.iter().zip(&shape);
        axes.map(|(stride, length)| place / (*stride).max(1) % (*length).max(1)).collect()
    })
}

/// Where an index lies in a tensor.
pub(super) fn place_of(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(at, stride)| at * stride).sum()
}
