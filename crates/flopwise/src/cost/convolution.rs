//! Convolutions of any number of axes: every output position times the whole kernel, padding
//! included, which is what the field counts; or, if the user says so, only the positions inside the
//! input, which is what XLA counts (conventions 4).

use super::{Arithmetic, Operands};
use crate::graph::{Convolution, Dim, Direction, Padding, Positions};

/// Kernels longer than this are no kernels: their elements are gone through one by one.
const MAX_KERNEL: i128 = 4096;

/// MACs are the product of the factors.
pub(super) fn convolution(op: &Convolution, operands: &Operands) -> Result<Arithmetic, String> {
    let factors = factors(op, operands)?;
    let other = match operands.inputs.len() {
        3 => operands.output_elements()?,
        _ => Dim::ZERO,
    };
    let macs = Dim::product(factors.iter().map(|(_, factor)| factor));
    Ok(Arithmetic { macs, other, transcendental: Dim::ZERO })
}

/// What the MACs are a product of.
///
/// Forward, weight `[c_out, c_in/g, K..]`: outputs, and (c_in/g) * prod K for each.
/// Transposed, weight `[c_in, c_out/g, K..]`: inputs, and (c_out/g) * prod K for each.
pub(super) fn factors(
    op: &Convolution,
    operands: &Operands,
) -> Result<Vec<(&'static str, Dim)>, String> {
    let weight = &operands.input(1)?.shape;
    if operands.positions == Positions::Valid {
        return valid_factors(op, operands);
    }
    let weights_each = Dim::product(weight.0.get(1..).ok_or("a weight without axes")?);
    let (name, positions) = match op.direction {
        Direction::Forward => ("results", operands.output_elements()?),
        Direction::Transposed { .. } => ("inputs", operands.input(0)?.shape.elements()),
    };
    Ok(vec![(name, positions), ("weights each meets", weights_each)])
}

/// Samples, weights of one kernel element, and for each spatial axis the pairs of a position and a
/// kernel element that meet inside (xla/service/hlo_cost_analysis.cc, `HandleConvolution`).
pub(super) fn valid_factors(
    op: &Convolution,
    operands: &Operands,
) -> Result<Vec<(&'static str, Dim)>, String> {
    let (input, weight) = (&operands.input(0)?.shape.0, &operands.input(1)?.shape.0);
    let output = &operands.output()?.shape.0;
    let [first, second, kernel @ ..] = weight.as_slice() else {
        return Err("a weight of fewer than two axes".to_owned());
    };
    let n_spatial = kernel.len();
    let channel_axis = input.len().checked_sub(n_spatial + 1).ok_or("an input of fewer axes")?;
    let samples = Dim::product(&input[..channel_axis]);
    let mut factors = vec![("samples", samples), ("weights of a kernel element", first * second)];
    for spatial in 0..n_spatial {
        let axis = Axis {
            kernel: kernel[spatial].as_constant().filter(|length| *length <= MAX_KERNEL),
            stride: Dim::from(op.stride[spatial]),
            dilation: Dim::from(op.dilation[spatial]),
            before: &op.padding,
            spatial,
        };
        let (short, long) =
            (&input[channel_axis + 1 + spatial], &output[channel_axis + 1 + spatial]);
        let pairs = match op.direction {
            Direction::Forward => axis.pairs(long, short),
            // Each input position meets the kernel elements that land on an output position.
            Direction::Transposed { .. } => axis.pairs(short, long),
        };
        factors.push(("pairs inside, per axis", pairs?));
    }
    Ok(factors)
}

struct Axis<'a> {
    kernel: Option<i128>,
    stride: Dim,
    dilation: Dim,
    before: &'a Padding,
    spatial: usize,
}

impl Axis<'_> {
    /// How often `0 <= position * stride + element * dilation - before < length` over the positions
    /// and the kernel's elements: for each element the positions below the upper limit, less those
    /// below the lower one.
    fn pairs(&self, positions: &Dim, length: &Dim) -> Result<Dim, String> {
        let kernel = self.kernel.ok_or("the kernel's length is not a small number")?;
        let before = match self.before {
            Padding::Explicit { before, .. } => {
                Dim::from(*before.get(self.spatial).ok_or("a padding is missing")?)
            }
            // Half of what makes the output `ceil(input / stride)` long, the rest comes after.
            Padding::Same => {
                let reach = &(&self.dilation * &Dim::from(kernel as i64 - 1)) + &Dim::ONE;
                let span = &(&(positions - &Dim::ONE) * &self.stride) + &reach;
                (&span - length).maximum(&Dim::ZERO).floor_div(&Dim::from(2i64))
            }
        };
        let mut pairs = Dim::ZERO;
        for element in 0..kernel {
            let shift = &(&self.dilation * &Dim::from(element as i64)) - &before;
            let end = (length - &shift).ceil_div(&self.stride).minimum(positions);
            let first = (&Dim::ZERO - &shift).ceil_div(&self.stride).maximum(&Dim::ZERO);
            pairs = &pairs + &(&end - &first).maximum(&Dim::ZERO);
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::work;
    use crate::graph::{
        Builder, Convolution, Dim, Direction, Op, Padding, Positions, Role, Shape, TensorType,
    };
    use flopwise_formats::Format;
    use proptest::prelude::*;

    /// MACs of a convolution along one axis by going through every multiplication.
    fn one_by_one(op: &Convolution, length: i64, kernel: i64, results: i64) -> i64 {
        let Padding::Explicit { before, .. } = &op.padding else { panic!("explicit only") };
        let is_forward = op.direction == Direction::Forward;
        let (positions, limit) = if is_forward { (results, length) } else { (length, results) };
        let at = |position: i64, element: i64| {
            position * op.stride[0] + element * op.dilation[0] - before[0]
        };
        let pairs = (0..positions).flat_map(|p| (0..kernel).map(move |k| (p, k)));
        pairs.filter(|(p, k)| (0..limit).contains(&at(*p, *k))).count() as i64
    }

    /// FLOPs that XLA's cost analysis gives (jax 0.10.2, `lax.conv_general_dilated`).
    #[test]
    fn valid_positions_are_what_xla_counts() {
        let check = |input: [i64; 4],
                     weight: [i64; 4],
                     [stride, pad, groups, dilation]: [i64; 4],
                     flops: i64| {
            let op = Op::Convolution(Convolution {
                direction: Direction::Forward,
                stride: vec![stride; 2],
                padding: Padding::Explicit { before: vec![pad; 2], after: vec![pad; 2] },
                dilation: vec![dilation; 2],
                groups,
            });
            let fp32 = |lengths: &[i64]| {
                Some(TensorType { shape: Shape::of(lengths), format: Format::FP32 })
            };
            let mut builder = Builder::new("convolution");
            let x = builder.tensor("x", fp32(&input), Role::Input).unwrap();
            let w = builder.tensor("w", fp32(&weight), Role::Parameter).unwrap();
            let y = builder.apply("y", op, &[x, w]).unwrap();
            let mut graph = builder.finish(vec![x], y);
            graph.positions = Positions::Valid;
            assert_eq!(work(&graph).total.macs.0, Dim::from(flops / 2), "{input:?} {weight:?}");
        };
        check([1, 3, 224, 224], [64, 3, 7, 7], [2, 3, 1, 1], 232_429_056);
        check([1, 64, 56, 56], [64, 64, 3, 3], [1, 1, 1, 1], 225_738_752);
        check([1, 32, 112, 112], [32, 1, 3, 3], [1, 1, 32, 1], 7_139_584);
        check([2, 16, 13, 13], [8, 16, 5, 5], [3, 4, 1, 2], 184_832);
    }

    proptest! {
        #[test]
        fn valid_positions_are_those_inside(
            length in 1i64..20, kernel in 1i64..6, stride in 1i64..4, dilation in 1i64..3,
            before in 0i64..4, after in 0i64..4, is_forward: bool,
        ) {
            let direction = match is_forward {
                true => Direction::Forward,
                false => Direction::Transposed { output_padding: vec![0] },
            };
            let op = Convolution {
                direction,
                stride: vec![stride],
                padding: Padding::Explicit { before: vec![before], after: vec![after] },
                dilation: vec![dilation],
                groups: 1,
            };
            let fp32 = |shape| Some(TensorType { shape, format: Format::FP32 });
            let mut builder = Builder::new("one axis");
            let x = Shape(vec![2.into(), 3.into(), Dim::symbol("n")]);
            let x = builder.tensor("x", fp32(x), Role::Input).unwrap();
            let w = if is_forward { [5, 3, kernel] } else { [3, 5, kernel] };
            let w = builder.tensor("w", fp32(Shape::of(&w)), Role::Parameter).unwrap();
            let y = builder.apply("y", Op::Convolution(op.clone()), &[x, w]).unwrap();
            let results = builder.get(y[0]).tensor_type.clone().unwrap().shape.0[2].clone();
            let mut graph = builder.finish(vec![x], y);
            graph.positions = Positions::Valid;
            let at = |dim: &Dim| dim.evaluate(&|_| Some(length.into())).unwrap();
            let results = i64::try_from(at(&results)).unwrap();
            prop_assume!(0 < results);
            let expected = 2 * 15 * one_by_one(&op, length, kernel, results);
            let counted = work(&graph).total.macs.0;
            prop_assert_eq!(at(&counted), i128::from(expected), "{}", counted);
        }
    }
}
