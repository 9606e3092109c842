//! XLA's `HloCostAnalysis`, of dots and convolutions: a convolution counts only where the kernel lies
//! on the input, neither on padding nor between the elements of a dilated input
//! (xla/service/hlo_cost_analysis.cc, `GetConvolutionFlops`). Its further operations, one per element
//! of each instruction, depend on how a model is lowered to HLO and are not part of this figure.

use super::seen::{Seen, Site, products};
use super::{Tally, Term, Verdict};
use crate::cost::{convolution, node_operands};
use crate::graph::{Dim, Op};

pub(super) fn tally(seen: &Seen) -> Result<Tally, String> {
    if let Some(why) = seen.sites().find_map(|site| macs(&site).err()) {
        return Err(why);
    }
    let mut tally = Tally::of_nodes(seen, |site| {
        let rule = match matches!(site.node.op, Op::Convolution(_)) {
            true => "2 x multiply-accumulates, without those on padding",
            false => "2 x multiply-accumulates, whatever the mask",
        };
        let macs = macs(site).unwrap_or_default();
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

fn macs(site: &Site) -> Result<Dim, String> {
    let Op::Convolution(op) = &site.node.op else { return Ok(products(site)) };
    let factors = convolution::valid_factors(op, &node_operands(site.graph, site.node)?)?;
    Ok(Dim::product(factors.iter().map(|(_, factor)| factor)))
}
