//! Self-attention with grouped key heads (GQA, arXiv 2305.13245), in the variants that decoders have.
//!
//! Not here: latent attention (MLA), and attention between two sequences.

use crate::arch::network::{Bias, Made, Network, Norm, dim};
use crate::error::Error;
use crate::graph::{Attention, Function, Keeps, Mask, Normalization, Op, Shape, TensorId};

/// See [`super::Mixer::Attention`].
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) struct SelfAttention {
    /// The class in the reference implementation.
    pub(in crate::arch) class: &'static str,
    /// Query heads.
    pub(in crate::arch) heads: i64,
    /// Key and value heads.
    pub(in crate::arch) kv_heads: i64,
    /// Elements of a head.
    pub(in crate::arch) head_dim: i64,
    /// How queries, keys and values come about.
    pub(in crate::arch) projections: Projections,
    /// Name and bias of the output projection.
    pub(in crate::arch) output: (&'static str, Bias),
    /// Normalisation of queries and keys.
    pub(in crate::arch) head_norm: Option<HeadNorm>,
    /// Elements of each head that are rotated; 0 for none.
    pub(in crate::arch) rotated: i64,
    /// Which keys a query sees.
    pub(in crate::arch) mask: Mask,
    /// Whether each head has a trained score that no value belongs to (attention sinks).
    pub(in crate::arch) has_sinks: bool,
    /// Whether the query projection also gives a gate for the result (Qwen3-Next).
    pub(in crate::arch) is_gated: bool,
    /// The name of a linear layer whose sigmoid scales the result (AFMoE).
    pub(in crate::arch) gate: Option<&'static str>,
    /// Whether scores pass through a tanh (Gemma 2: soft cap).
    pub(in crate::arch) is_soft_capped: bool,
    /// Name of the projection of relative positions, whose products with the queries are added to the
    /// scores (Transformer-XL, arXiv 1901.02860 section 3.3).
    pub(in crate::arch) relative: Option<&'static str>,
}

/// How queries, keys and values come about.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::arch) enum Projections {
    /// One linear layer each: name and bias of q, k, v.
    Apart([(&'static str, Bias); 3]),
    /// One linear layer for all.
    Joined(&'static str, Bias),
    /// One for all with a weight `[in, out]` (GPT-2).
    JoinedPlain(&'static str),
}

/// Normalisation of queries and keys before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) struct HeadNorm {
    /// Which.
    pub(in crate::arch) norm: Norm,
    /// Names of the norms of queries and of keys.
    pub(in crate::arch) names: [&'static str; 2],
    /// Over each head, or over all heads together.
    pub(in crate::arch) span: Span,
}

/// What a [`HeadNorm`] goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::arch) enum Span {
    /// Each head by itself.
    Head,
    /// All heads of a token.
    Token,
    /// Each head by itself, with a scale of its own: weight `[heads, d]` (Cohere).
    OwnScales,
    /// Each head by itself with a norm of its own below `norms.N` (StableLM 2).
    OwnNorms,
}

impl SelfAttention {
    /// As Llama has it: four projections without bias, all elements rotated, causal.
    pub(in crate::arch) fn llama(heads: i64, kv_heads: i64, head_dim: i64) -> SelfAttention {
        let none = Bias::None;
        SelfAttention {
            class: "Attention",
            heads,
            kv_heads,
            head_dim,
            projections: Projections::Apart([("q_proj", none), ("k_proj", none), ("v_proj", none)]),
            output: ("o_proj", none),
            head_norm: None,
            rotated: head_dim,
            mask: Mask::causal(),
            has_sinks: false,
            is_gated: false,
            gate: None,
            is_soft_capped: false,
            relative: None,
        }
    }

    /// Whether key heads go evenly into query heads.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.heads % self.kv_heads {
            0 => Ok(()),
            _ => Err(Error::new(format!(
                "{} query heads do not share {} key heads evenly",
                self.heads, self.kv_heads
            ))),
        }
    }

    /// `x [b, s, hidden]` -> the same shape.
    pub(super) fn build(&self, net: &mut Network, x: TensorId) -> Made {
        let hidden = net.width(x)?;
        let [query, key, value, gate] = self.project(net, x)?;
        let [query, key, value] = [query.ok_or("query"), key.ok_or("key"), value.ok_or("value")]
            .map(|operand| operand.map_err(|what| Error::new(format!("no {what} projection"))));
        let (query, key, value) = (query?, key?, value?);
        let query = self.heads(net, query, self.heads, 0)?;
        let key = self.heads(net, key, self.kv_heads, 1)?;
        let value = heads_first(net, value, [self.kv_heads, self.head_dim])?;
        let added = match (self.has_sinks, self.relative) {
            (true, _) => Some(net.parameter("sinks", &[self.heads])?),
            (false, Some(name)) => Some(self.relative_scores(net, name, query, hidden)?),
            (false, None) => None,
        };
        let attention =
            Attention { is_soft_capped: self.is_soft_capped, ..Attention::new(self.mask.clone()) };
        let seen = net.attend([query, key, value], attention, added)?;
        self.keep(net);
        let mut merged = heads_merged(net, seen)?;
        if let Some(gate) = gate {
            let gate = net.each(Function::Sigmoid, &[gate])?;
            merged = net.mul(merged, gate)?;
        }
        if let Some(name) = self.gate {
            let gate = net.linear(name, x, self.heads * self.head_dim, Bias::None)?;
            let gate = net.each(Function::Sigmoid, &[gate])?;
            merged = net.mul(merged, gate)?;
        }
        let (name, bias) = self.output;
        match self.projections {
            Projections::JoinedPlain(_) => net.linear_plain(name, merged, hidden),
            Projections::Apart(_) | Projections::Joined(..) => {
                net.linear(name, merged, hidden, bias)
            }
        }
    }

    /// `[b, heads, s, s]`: queries times the projected encoding of each distance.
    fn relative_scores(&self, net: &mut Network, name: &str, query: TensorId, hidden: i64) -> Made {
        let seq = net.axis(query, 2);
        let shape = Shape(vec![seq.clone(), dim(hidden)]);
        let op = Op::Fill { shape, format: net.format() };
        let encodings = net.apply("distances", "aten.arange.default", op, &[])?;
        let projected = net.linear(name, encodings, self.heads * self.head_dim, Bias::None)?;
        let apart = net.reshape(projected, &[seq, dim(self.heads), dim(self.head_dim)])?;
        let turned = net.permute(apart, &[1, 2, 0])?;
        net.matmul(query, turned)
    }

    /// Queries, keys, values and the gate, each `[b, s, heads * d]`.
    fn project(&self, net: &mut Network, x: TensorId) -> Result<[Option<TensorId>; 4], Error> {
        let (q_width, kv_width) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let q_out = if self.is_gated { 2 * q_width } else { q_width };
        let parts = |net: &mut Network, joined: TensorId| {
            let parts = net.split(joined, &[q_out, kv_width, kv_width])?;
            Ok::<_, Error>([parts[0], parts[1], parts[2]])
        };
        let [query, key, value] = match &self.projections {
            Projections::Apart([q, k, v]) => [
                net.linear(q.0, x, q_out, q.1)?,
                net.linear(k.0, x, kv_width, k.1)?,
                net.linear(v.0, x, kv_width, v.1)?,
            ],
            Projections::Joined(name, bias) => {
                let joined = net.linear(name, x, q_out + 2 * kv_width, *bias)?;
                parts(net, joined)?
            }
            Projections::JoinedPlain(name) => {
                let joined = net.linear_plain(name, x, q_out + 2 * kv_width)?;
                parts(net, joined)?
            }
        };
        if !self.is_gated {
            return Ok([Some(query), Some(key), Some(value), None]);
        }
        let halves = net.split(query, &[q_width, q_width])?;
        Ok([Some(halves[0]), Some(key), Some(value), Some(halves[1])])
    }

    /// `[b, s, heads * d]` -> normalised and rotated `[b, heads, s, d]`. `which` is 0 for queries, 1
    /// for keys.
    fn heads(&self, net: &mut Network, x: TensorId, heads: i64, which: usize) -> Made {
        let norm_over = |span| self.head_norm.filter(|norm| norm.span == span);
        let mut x = x;
        if let Some(HeadNorm { norm, names, .. }) = norm_over(Span::Token) {
            x = net.norm(names[which], x, norm)?;
        }
        let mut apart = apart(net, x, [heads, self.head_dim])?;
        if let Some(HeadNorm { norm, names, .. }) = norm_over(Span::Head) {
            apart = net.norm(names[which], apart, norm)?;
        }
        if let Some(HeadNorm { names, .. }) = norm_over(Span::OwnScales) {
            apart = self.scaled_norm(net, apart, names[which], heads)?;
        }
        let mut turned = net.permute(apart, &[0, 2, 1, 3])?;
        if let Some(HeadNorm { norm, names, .. }) = norm_over(Span::OwnNorms) {
            let normed = (0..heads).map(|head| {
                let one = net.slice(turned, 1, head, head + 1)?;
                net.norm(&format!("{}.norms.{head}", names[which]), one, norm)
            });
            let normed: Vec<TensorId> = normed.collect::<Result<_, _>>()?;
            turned = net.concat(&normed, 1)?;
        }
        if self.rotated == 0 { Ok(turned) } else { net.rotary(turned, self.rotated) }
    }

    /// Each head of `[b, s, heads, d]` normalised, with a scale per head and element.
    fn scaled_norm(&self, net: &mut Network, x: TensorId, name: &str, heads: i64) -> Made {
        net.module(name, "LayerNorm", |net| {
            let weight = net.parameter("weight", &[heads, self.head_dim])?;
            let op = Op::Normalization(Normalization::Layer { axes: 1 });
            net.apply("", "aten.layer_norm.default", op, &[x, weight])
        })
    }

    /// Keys and values of each token stay, as far back as the mask reaches.
    fn keep(&self, net: &mut Network) {
        let elements = dim(2 * self.kv_heads * self.head_dim);
        if let Some(keeps) = kept(&self.mask) {
            net.state("keys and values", elements, net.format(), keeps);
        }
    }
}

/// `[b, s, heads * d]` -> `[b, s, heads, d]`.
fn apart(net: &mut Network, x: TensorId, [heads, head_dim]: [i64; 2]) -> Made {
    let (batch, seq) = (net.axis(x, 3), net.axis(x, 2));
    net.reshape(x, &[batch, seq, dim(heads), dim(head_dim)])
}

/// `[b, s, heads * d]` -> `[b, heads, s, d]`.
pub(in crate::arch) fn heads_first(net: &mut Network, x: TensorId, heads: [i64; 2]) -> Made {
    let apart = apart(net, x, heads)?;
    net.permute(apart, &[0, 2, 1, 3])
}

/// `[b, heads, s, d]` -> `[b, s, heads * d]`.
pub(in crate::arch) fn heads_merged(net: &mut Network, x: TensorId) -> Made {
    let turned = net.permute(x, &[0, 2, 1, 3])?;
    let copy = net.contiguous(turned)?;
    let (batch, seq) = (net.axis(copy, 4), net.axis(copy, 3));
    let width = &net.axis(copy, 2) * &net.axis(copy, 1);
    net.reshape(copy, &[batch, seq, width])
}

/// Of how many tokens a mask keeps the keys; `None` where nothing is generated token by token.
pub(in crate::arch) fn kept(mask: &Mask) -> Option<Keeps> {
    mask.keeps()
}
