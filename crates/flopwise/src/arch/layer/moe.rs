//! Mixture of experts (arXiv 1701.06538, 2401.04088): a router scores every expert for every token,
//! each token goes to its best few, and their results are added up by those scores.
//!
//! Every token is computed by exactly `k` experts: no token is dropped and no capacity is padded.

use super::feed_forward::{Dense, situ};
use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{
    Dim, Function, Keep, Kind, MatMul, Op, Orientation, Reduce, Reduction, Stated, StatedGradient,
    TensorId,
};
use flopwise_formats::Format;

/// See [`super::FeedForward::Experts`].
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct Experts {
    /// The class in the reference implementation.
    pub(in crate::arch) class: &'static str,
    /// How many experts.
    pub(in crate::arch) experts: i64,
    /// How many of them compute each token.
    pub(in crate::arch) top_k: i64,
    /// Elements between the matrices of one expert.
    pub(in crate::arch) width: i64,
    /// The function between them.
    pub(in crate::arch) function: Function,
    /// Whether a gate multiplies: gate and up lie in one stack.
    pub(in crate::arch) is_gated: bool,
    /// What is done to gate and up besides.
    pub(in crate::arch) bounds: Bounds,
    /// What the scores multiply.
    pub(in crate::arch) scaled: Scaled,
    /// Whether each expert's matrices have biases.
    pub(in crate::arch) bias: Bias,
    /// How the matrices of the stacks lie: `Transposed` is `[experts, out, in]`.
    pub(in crate::arch) orientation: Orientation,
    /// The router.
    pub(in crate::arch) gate: Gate,
    /// An expert that every token visits.
    pub(in crate::arch) shared: Option<SharedExpert>,
    /// Tokens are projected to this width before the experts and back after them (LatentMoE).
    pub(in crate::arch) latent: Option<Latent>,
}

/// What bounds the gate and up of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum Bounds {
    /// Nothing.
    None,
    /// Both are clamped, and 1 is added to up: `(up + 1) gate sigmoid(1.702 gate)` (gpt-oss,
    /// transformers `models/gpt_oss/modeling_gpt_oss.py`).
    Clamped,
    /// Both are clamped, and nothing more (DeepSeek-V4).
    Limited,
    /// SiTU-GLU, see [`situ`], and whether up is capped too.
    Situ(bool),
}

/// Projections around the experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Latent {
    /// Elements of a token between them.
    pub(in crate::arch) width: i64,
    /// Their names, first the one before the experts.
    pub(in crate::arch) names: [&'static str; 2],
    /// The name of a norm of the experts' result.
    pub(in crate::arch) norm: Option<&'static str>,
}

/// The router.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::arch) struct Gate {
    /// Its name.
    pub(in crate::arch) name: &'static str,
    /// Whether it adds a bias.
    pub(in crate::arch) bias: Bias,
    /// A correction of the scores, which only chooses (DeepSeek-V3).
    pub(in crate::arch) correction: Option<Correction>,
    /// How scores come about.
    pub(in crate::arch) scores: Scores,
}

/// A correction of the scores by its path below the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum Correction {
    /// Stored with the model, no gradient.
    Buffer(&'static str),
    /// A parameter `[experts]`.
    Parameter(&'static str),
    /// No correction but a table `[vocabulary, k]` below the router, of so many rows: the token itself
    /// says which experts it visits (hash routing, DeepSeek-V4).
    Table(&'static str, i64),
    /// A parameter `[1, experts]`.
    Row(&'static str),
}

impl Correction {
    /// DeepSeek-V3's and most others'.
    pub(in crate::arch) const DEEPSEEK: Correction =
        Correction::Buffer("gate.e_score_correction_bias");
}

/// How scores come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum Scores {
    /// Over all experts.
    Softmax,
    /// Of each expert alone.
    Sigmoid,
    /// The root of the softplus of each expert's; those of the experts chosen are divided by their
    /// sum and multiplied by a constant (DeepSeek-V4).
    RootSoftplus,
    /// Over the experts chosen (gpt-oss).
    SoftmaxOfChosen,
    /// Of each expert chosen (Llama 4).
    SigmoidOfChosen,
}

/// What scores multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum Scaled {
    /// The experts' results.
    Results,
    /// What goes into them (Llama 4).
    Inputs,
}

/// An expert that every token visits.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct SharedExpert {
    /// Its name.
    pub(in crate::arch) name: &'static str,
    /// Its matrices.
    pub(in crate::arch) dense: Dense,
    /// The name of a linear layer whose sigmoid scales its result.
    pub(in crate::arch) gate: Option<&'static str>,
}

impl Experts {
    /// As Mixtral has it: softmax router, gated experts, nothing shared.
    pub(in crate::arch) fn mixtral(experts: i64, top_k: i64, width: i64) -> Experts {
        Experts {
            class: "SparseMoeBlock",
            experts,
            top_k,
            width,
            function: Function::Silu,
            is_gated: true,
            bounds: Bounds::None,
            scaled: Scaled::Results,
            bias: Bias::None,
            orientation: Orientation::Transposed,
            gate: Gate {
                name: "gate",
                bias: Bias::None,
                correction: None,
                scores: Scores::Softmax,
            },
            shared: None,
            latent: None,
        }
    }

    /// Whether there are as many experts as each token wants.
    pub(in crate::arch) fn check(&self) -> Result<(), Error> {
        if self.experts < self.top_k {
            let (experts, top_k) = (self.experts, self.top_k);
            return Err(Error::new(format!("{top_k} of {experts} experts cannot be chosen")));
        }
        Ok(())
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        self.check()?;
        let shape = net.shape(x);
        let hidden = net.width(x)?;
        let n_tokens = Dim::product(shape.iter().rev().skip(1));
        let flat = net.reshape(x, &[n_tokens.clone(), dim(hidden)])?;
        let (scores, chosen) = self.route(net, flat)?;
        // Nemotron 3 gives the projections a bias where its dense networks have one.
        let latent_bias = self.shared.as_ref().map_or(Bias::None, |shared| shared.dense.bias);
        let narrow = match self.latent {
            Some(Latent { width, names, .. }) => net.linear(names[0], flat, width, latent_bias)?,
            None => flat,
        };
        let routed = net.module("experts", "Experts", |net| {
            self.routed(net, narrow, &n_tokens, [scores, chosen])
        })?;
        let mut routed = match self.latent {
            Some(Latent { names, norm, .. }) => {
                let normed = match norm {
                    Some(norm) => net.norm(norm, routed, Norm::Rms)?,
                    None => routed,
                };
                net.linear(names[1], normed, hidden, latent_bias)?
            }
            None => routed,
        };
        if let Some(shared) = &self.shared {
            let own =
                net.module(shared.name, shared.dense.class, |net| shared.dense.build(net, flat))?;
            let own = match shared.gate {
                Some(gate) => {
                    let gate = net.linear(gate, flat, 1, Bias::None)?;
                    let gate = net.each(Function::Sigmoid, &[gate])?;
                    net.mul(own, gate)?
                }
                None => own,
            };
            routed = net.add(routed, own)?;
        }
        net.reshape(routed, &shape)
    }

    /// Scores `[n, k]` and the experts they belong to.
    fn route(&self, net: &mut Network, x: TensorId) -> Result<(TensorId, TensorId), Error> {
        let Gate { name, bias, correction, scores } = self.gate;
        let class = "torch.nn.modules.linear.Linear";
        let scored = net.module(name, class, |net| {
            let weight = net.parameter("weight", &[self.experts, net.width(x)?])?;
            let mut inputs = vec![x, weight];
            if bias == Bias::Added {
                inputs.push(net.parameter("bias", &[self.experts])?);
            }
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
            let logits = net.apply("", "aten.linear.default", op, &inputs)?;
            match scores {
                Scores::Softmax => net.softmax(logits),
                Scores::Sigmoid => net.each(Function::Sigmoid, &[logits]),
                Scores::RootSoftplus => {
                    let positive = net.each(Function::Softplus, &[logits])?;
                    net.each(Function::Sqrt, &[positive])
                }
                Scores::SoftmaxOfChosen | Scores::SigmoidOfChosen => Ok(logits),
            }
        })?;
        if let Some(Correction::Table(path, rows)) = correction {
            let table = net.buffer(path, &[rows, self.top_k], Format::INT64)?;
            let tokens = net.first_input()?;
            let n_tokens = net.axis(scored, 2);
            let op = Op::Embedding;
            let rows = net.apply("lookup", "aten.index.Tensor", op, &[table, tokens])?;
            let chosen = net.reshape(rows, &[n_tokens, dim(self.top_k)])?;
            let op = Op::GatherElements;
            let picked = net.apply("gather", "aten.gather.default", op, &[scored, chosen])?;
            return Ok((self.normalised(net, picked)?, chosen));
        }
        let chosen_by = match correction {
            Some(correction) => {
                let correction = self.correction(net, correction)?;
                net.add(scored, correction)?
            }
            None => scored,
        };
        let op = Op::TopK { axis: 1, k: dim(self.top_k) };
        let best = net.apply_many("topk", "aten.topk.default", op, &[chosen_by], 2)?;
        let picked = match correction {
            Some(_) => {
                net.apply("gather", "aten.gather.default", Op::GatherElements, &[scored, best[1]])?
            }
            None => best[0],
        };
        let picked = match scores {
            Scores::Softmax | Scores::Sigmoid => picked,
            Scores::RootSoftplus => self.normalised(net, picked)?,
            Scores::SoftmaxOfChosen => net.softmax(picked)?,
            Scores::SigmoidOfChosen => net.each(Function::Sigmoid, &[picked])?,
        };
        Ok((picked, best[1]))
    }

    /// Divided by their sum, to which a small number is added, where the scores are such.
    fn normalised(&self, net: &mut Network, picked: TensorId) -> Made {
        let op = Op::Reduce(Reduce { function: Reduction::Sum, axes: vec![1], keep: Keep::Axes });
        let sum = net.apply("sum", "aten.sum.dim_IntList", op, &[picked])?;
        let sum = net.each(Function::Add, &[sum])?;
        let shares = net.each(Function::Div, &[picked, sum])?;
        net.scale(shares)
    }

    fn correction(&self, net: &mut Network, correction: Correction) -> Made {
        let format = net.format();
        match correction {
            Correction::Buffer(path) => net.buffer(path, &[self.experts], format),
            Correction::Table(..) => Err(Error::new("a table of experts corrects no scores")),
            Correction::Parameter(path) => net.parameter(path, &[self.experts]),
            Correction::Row(path) => net.parameter(path, &[1, self.experts]),
        }
    }

    /// Each token once for each of its experts, through them, and back.
    pub(in crate::arch) fn routed(
        &self,
        net: &mut Network,
        x: TensorId,
        n_tokens: &Dim,
        [scores, chosen]: [TensorId; 2],
    ) -> Made {
        let width = net.width(x)?;
        let n_rows = n_tokens * &dim(self.top_k);
        let order = net.reshape(chosen, std::slice::from_ref(&n_rows))?;
        let mut rows =
            net.apply("index", "aten.index.Tensor", Op::Index { axes: vec![0] }, &[x, order])?;
        let scores = net.reshape(scores, &[n_rows, Dim::ONE])?;
        if self.scaled == Scaled::Inputs {
            rows = net.mul(rows, scores)?;
        }
        let inner = if self.is_gated { 2 * self.width } else { self.width };
        let first = if self.is_gated { "gate_up_proj" } else { "up_proj" };
        let up = self.grouped(net, first, [rows, order], [width, inner])?;
        let inner = match self.is_gated {
            true => self.gated(net, up)?,
            false => net.each(self.function, &[up])?,
        };
        let down = self.grouped(net, "down_proj", [inner, order], [self.width, width])?;
        let weighted = match self.scaled {
            Scaled::Results => net.mul(down, scores)?,
            Scaled::Inputs => down,
        };
        self.combine(net, weighted, n_tokens, width)
    }

    /// `gate` and `up` side by side -> their product.
    fn gated(&self, net: &mut Network, both: TensorId) -> Made {
        let halves = net.split(both, &[self.width, self.width])?;
        let (gate, up) = (halves[0], halves[1]);
        match self.bounds {
            Bounds::None => {
                let gate = net.each(self.function, &[gate])?;
                return net.mul(gate, up);
            }
            Bounds::Limited => {
                let gate = net.each(Function::Clamp, &[gate])?;
                let up = net.each(Function::Clamp, &[up])?;
                let gate = net.each(self.function, &[gate])?;
                return net.mul(gate, up);
            }
            Bounds::Situ(is_capped) => return situ(net, gate, up, is_capped),
            Bounds::Clamped => {}
        }
        let gate = net.each(Function::Clamp, &[gate])?;
        let up = net.each(Function::Clamp, &[up])?;
        let scaled = net.each(Function::Mul, &[gate])?;
        let bent = net.each(Function::Sigmoid, &[scaled])?;
        let gate = net.mul(gate, bent)?;
        let up = net.each(Function::Add, &[up])?;
        net.mul(up, gate)
    }

    fn grouped(
        &self,
        net: &mut Network,
        name: &str,
        [rows, order]: [TensorId; 2],
        [width, out]: [i64; 2],
    ) -> Made {
        let sizes = match self.orientation {
            Orientation::Plain => [self.experts, width, out],
            Orientation::Transposed => [self.experts, out, width],
        };
        let mut inputs = vec![rows, net.parameter(name, &sizes)?];
        if self.bias == Bias::Added {
            inputs.push(net.parameter(&format!("{name}_bias"), &[self.experts, out])?);
        }
        inputs.push(order);
        let op = Op::GroupedMatMul { stack: self.orientation };
        net.apply(name, "aten._grouped_mm.default", op, &inputs)
    }

    /// The `k` results of each token added up.
    fn combine(&self, net: &mut Network, x: TensorId, n_tokens: &Dim, width: i64) -> Made {
        let result = net.tensor_type(&[n_tokens.clone(), dim(width)]);
        let other = &(n_tokens * &dim(width)) * &dim(self.top_k - 1);
        let sum = Stated::new("combine", Kind::Elementwise, vec![result]);
        let sum = Stated { other, ..sum };
        let results = net.stated(sum, StatedGradient::Once, &[x])?;
        results.first().copied().ok_or_else(|| Error::new("no result"))
    }
}
