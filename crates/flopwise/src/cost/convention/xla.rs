//! XLA's `HloCostAnalysis`, of dots and convolutions: a convolution counts only where the kernel lies
//! on the input, neither on padding nor between the elements of a dilated input
//! (xla/service/hlo_cost_analysis.cc, `GetConvolutionFlops`). Its further operations, one per element
//! of each instruction, depend on how a model is lowered to HLO and are not part of this figure.

use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::graph::{Convolution, Dim, Direction, Op, Padding};

pub(super) fn tally(seen: &Seen) -> Result<Tally, String> {
    let is_open = |site: &Site| matches!(&site.node.op, Op::Convolution(op) if macs(seen, site, op).is_none());
    if let Some(site) = seen.sites().find(is_open) {
        let node = &site.node.name;
        return Err(format!("the border of convolution `{node}` needs a value for every size"));
    }
    let mut tally = Tally::of_nodes(seen, |site| {
        let (macs, rule) = if let Op::Convolution(op) = &site.node.op {
            let rule = "2 x multiply-accumulates, without those on padding";
            (macs(seen, site, op).unwrap_or_default(), rule)
        } else {
            (products(site), "2 x multiply-accumulates, whatever the mask")
        };
        match macs == Dim::ZERO {
            true => Verdict::Misses("no dot or convolution"),
            false => {
                let name = super::seen::base(&site.node.operator).to_owned();
                Verdict::Counts(vec![Term::products(name, rule, &macs * &Dim::from(2))])
            }
        }
    });
    tally.remarks.push(
        "XLA adds operations of other instructions, which depend on the lowering to HLO".to_owned(),
    );
    Ok(tally)
}

/// Batch x channels of both sides per group x, of each spatial axis, pairs of an output position and
/// a kernel element on the input.
fn macs(seen: &Seen, site: &Site, op: &Convolution) -> Option<Dim> {
    let (input, weight, output) = (site.input(0)?, site.input(1)?, site.output()?);
    let value = |dim: &Dim| seen.bindings.evaluate(dim).ok();
    let mut macs = &(input.0.first()? * weight.0.first()?) * weight.0.get(1)?;
    for axis in 0..weight.rank().checked_sub(2)? {
        let sizes = AxisSizes {
            input: value(input.0.get(axis + 2)?)?,
            kernel: value(weight.0.get(axis + 2)?)?,
            output: value(output.0.get(axis + 2)?)?,
            stride: i128::from(*op.stride.get(axis)?),
            dilation: i128::from(*op.dilation.get(axis)?),
        };
        let before = match &op.padding {
            Padding::Explicit { before, .. } => i128::from(*before.get(axis)?),
            Padding::Same => sizes.same_padding() / 2,
        };
        let pairs = match op.direction {
            Direction::Forward => sizes.pairs(sizes.output, sizes.input, before),
            // Each input position meets the kernel element that lands on an output position.
            Direction::Transposed { .. } => sizes.pairs(sizes.input, sizes.output, before),
        };
        macs = &macs * &Dim::from(u128::try_from(pairs).ok()?);
    }
    Some(macs)
}

/// One spatial axis.
struct AxisSizes {
    input: i128,
    kernel: i128,
    output: i128,
    stride: i128,
    dilation: i128,
}

/// Kernels longer than this are damage: their elements are gone through one by one.
const MAX_KERNEL: i128 = 1 << 20;

impl AxisSizes {
    /// So many before and after together that the output is `ceil(input / stride)`.
    fn same_padding(&self) -> i128 {
        let reach = self.dilation * (self.kernel - 1) + 1;
        ((self.output - 1) * self.stride + reach - self.input).max(0)
    }

    /// How often `0 <= position * stride + element * dilation - before < length`, over
    /// `0 <= position < positions` and the kernel's elements.
    fn pairs(&self, positions: i128, length: i128, before: i128) -> i128 {
        let elements = 0..self.kernel.min(MAX_KERNEL);
        let stride = self.stride.max(1);
        let each = elements.map(|element| {
            let shift = element * self.dilation - before;
            let first = (-shift).div_euclid(stride) + i128::from((-shift).rem_euclid(stride) != 0);
            let end = (length - 1 - shift).div_euclid(stride) + 1;
            (end.min(positions) - first.max(0)).max(0)
        });
        each.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through all pairs.
    fn slow(axis: &AxisSizes, positions: i128, length: i128, before: i128) -> i128 {
        let hits = |position: i128| {
            let place = |element: i128| position * axis.stride + element * axis.dilation - before;
            (0..axis.kernel).filter(|element| (0..length).contains(&place(*element))).count()
        };
        (0..positions).map(|position| i128::try_from(hits(position)).unwrap()).sum()
    }

    #[test]
    fn pairs_are_those_on_the_input() {
        for (input, kernel, stride, dilation, before) in [
            (4, 3, 1, 1, 1),
            (7, 3, 2, 1, 1),
            (224, 7, 2, 1, 3),
            (9, 5, 3, 2, 4),
            (2, 5, 1, 1, 2),
            (5, 1, 4, 1, 0),
        ] {
            let output = (input + 2 * before - dilation * (kernel - 1) - 1) / stride + 1;
            let axis = AxisSizes { input, kernel, output, stride, dilation };
            let pairs = axis.pairs(output, input, before);
            assert_eq!(pairs, slow(&axis, output, input, before), "{input} {kernel}");
            let back = axis.pairs(input, output, before);
            assert_eq!(back, slow(&axis, input, output, before), "transposed {input} {kernel}");
        }
        // A kernel of 3 on 4 with one around: 2 + 3 + 3 + 2.
        let axis = AxisSizes { input: 4, kernel: 3, output: 4, stride: 1, dilation: 1 };
        assert_eq!(axis.pairs(4, 4, 1), 10);
    }
}
