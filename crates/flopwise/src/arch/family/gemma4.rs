//! Gemma 4: heads of another size where everything is seen, values that are the keys, layers that use
//! the keys and values of earlier ones, an input of its own per layer, and experts beside the dense
//! network (transformers, `models/gemma4/modeling_gemma4.py`).

use super::super::config::Config;
use super::super::layer::attention::kept;
use super::super::layer::{Dense, Experts, FeedForward};
use super::super::network::{Bias, Made, Network, Norm, dim};
use super::gemma::dense;
use super::heads::{Top, class, top};
use super::parts::{function, mask, n_layers, soft_capped, windowed};
use super::{Build, Request};
use crate::error::Error;
use crate::graph::{Attention, Dim, Function, Graph, Mask, Op, TensorId};

pub(super) const TYPES: &[(&str, Build)] = &[("gemma4_text", gemma4)];

/// One layer.
struct Layer {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    bias: Bias,
    is_windowed: bool,
    mask: Mask,
    /// The values are the keys before they are normalised.
    keys_are_values: bool,
    /// Uses the keys and values of the last layer of its kind that has its own.
    is_shared: bool,
    dense: Dense,
    experts: Option<Experts>,
    /// The function after the gate of the layer's own input, and that input's width.
    own_input: Option<(Function, i64)>,
}

/// The table of inputs per layer.
#[derive(Clone, Copy)]
struct OwnInputs {
    vocabulary: i64,
    width: i64,
}

fn gemma4(config: &Config, request: &Request) -> Result<Graph, Error> {
    let class = class(config, "Gemma4ForCausalLM")?;
    let top = top(config, &class)?;
    let stack = match (top, class.ends_with("ForConditionalGeneration")) {
        (Top::Bare, _) => "",
        (Top::Logits | Top::Labels(_), true) => "model.language_model",
        (Top::Logits | Top::Labels(_), false) => "model",
    };
    let layers = layers(config)?;
    let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
    let is_soft_capped = soft_capped(config, "final_logit_softcapping", None)?;
    let vocabulary = config.size("vocab_size")?;
    let mut net = Network::new(request.name, config.format()?, request.options.pass);
    let result = net.module("", &class, |net| {
        let batch = net.symbol("batch", None, "dim 0 of input_ids");
        let seq = net.symbol("seq", None, "dim 1 of input_ids");
        let ids = net.token_input("input_ids", &[batch, seq])?;
        let own = own_inputs(config)?;
        let (x, table) = net.module(stack, "Model", |net| build(net, config, ids, &layers, own))?;
        match top {
            Top::Bare => Ok(x),
            Top::Labels(labels) => net.linear("score", x, labels, Bias::None),
            Top::Logits => {
                let logits = match is_tied {
                    true => net.linear_with("lm_head", x, table)?,
                    false => net.linear("lm_head", x, vocabulary, Bias::None)?,
                };
                if is_soft_capped { net.soft_cap(logits) } else { Ok(logits) }
            }
        }
    })?;
    Ok(net.finish(&[result]))
}

fn own_inputs(config: &Config) -> Result<Option<OwnInputs>, Error> {
    let width = config.count_or("hidden_size_per_layer_input", 256)?;
    if width == 0 {
        return Ok(None);
    }
    let vocabulary = config.size_or("vocab_size_per_layer_input", 262_144)?;
    Ok(Some(OwnInputs { vocabulary, width }))
}

fn layers(config: &Config) -> Result<Vec<Layer>, Error> {
    if config.text("use_bidirectional_attention")? == Some("all") {
        let what = "is `all`, an encoder, which has no rule here";
        return Err(config.error("use_bidirectional_attention", what));
    }
    let n_layers = n_layers(config)?;
    let heads = config.size("num_attention_heads")?;
    let kv_heads = config.size_or("num_key_value_heads", 4)?;
    let head_dim = config.size_or("head_dim", 256)?;
    let global_head_dim = config.size_or("global_head_dim", 512)?;
    let k_eq_v = config.flag("attention_k_eq_v")?.unwrap_or(false);
    let global_kv_heads = match k_eq_v {
        true => config.optional("num_global_key_value_heads")?.unwrap_or(kv_heads),
        false => kv_heads,
    };
    for shared in [kv_heads, global_kv_heads] {
        if heads % shared != 0 {
            let what = format!("is {heads}, which {shared} key heads do not divide evenly");
            return Err(config.error("num_attention_heads", what));
        }
    }
    let n_shared = config.count("num_kv_shared_layers")?.unwrap_or(0);
    let first_shared = n_layers - n_shared;
    let window = config.size_or("sliding_window", 512)?;
    let mut windowed = windowed(config, n_layers, |layer| (layer + 1) % 6 != 0)?;
    if let Some(last) = windowed.last_mut() {
        *last = false; // the reference implementation sets it so
    }
    let bias = Bias::from(config.flag("attention_bias")?.unwrap_or(false));
    let parts = Parts::read(config)?;
    let all: Vec<Layer> = (0..n_layers)
        .zip(windowed)
        .map(|(layer, is_windowed)| Layer {
            heads,
            kv_heads: if is_windowed { kv_heads } else { global_kv_heads },
            head_dim: if is_windowed { head_dim } else { global_head_dim },
            bias,
            is_windowed,
            mask: mask(Some(window).filter(|_| is_windowed)),
            keys_are_values: k_eq_v && !is_windowed,
            is_shared: layer >= first_shared,
            dense: parts.dense(layer >= first_shared),
            experts: parts.experts.clone(),
            own_input: parts.own_input,
        })
        .collect();
    let has_own =
        |kind: bool| all.iter().any(|layer| layer.is_windowed == kind && !layer.is_shared);
    if all.iter().any(|layer| !has_own(layer.is_windowed)) {
        let what = format!("is {n_shared}: a kind of layer has no keys left to share");
        return Err(config.error("num_kv_shared_layers", what));
    }
    Ok(all)
}

/// What all layers have alike.
struct Parts {
    dense: Dense,
    is_double: bool,
    experts: Option<Experts>,
    own_input: Option<(Function, i64)>,
}

impl Parts {
    fn read(config: &Config) -> Result<Parts, Error> {
        let dense = dense(config)?;
        let experts = match config.flag("enable_moe_block")?.unwrap_or(false) {
            true => {
                let experts = Experts {
                    function: function(config, "hidden_activation", "gelu_pytorch_tanh")?,
                    ..Experts::mixtral(
                        config.size("num_experts")?,
                        config.size("top_k_experts")?,
                        config.size("moe_intermediate_size")?,
                    )
                };
                experts.check()?;
                Some(experts)
            }
            false => None,
        };
        let own_input = own_inputs(config)?.map(|own| (dense.function, own.width));
        let is_double = config.flag("use_double_wide_mlp")?.unwrap_or(false);
        Ok(Parts { dense, is_double, experts, own_input })
    }

    fn dense(&self, is_shared: bool) -> Dense {
        let times = if self.is_double && is_shared { 2 } else { 1 };
        Dense { width: self.dense.width * times, ..self.dense.clone() }
    }
}

/// The result of the last norm, and the token table.
fn build(
    net: &mut Network,
    config: &Config,
    ids: TensorId,
    layers: &[Layer],
    own: Option<OwnInputs>,
) -> Result<(TensorId, TensorId), Error> {
    let (vocabulary, hidden) = (config.size("vocab_size")?, config.size("hidden_size")?);
    let embedded = net.embedding("embed_tokens", ids, vocabulary, hidden)?;
    let table_path = net.below("embed_tokens.weight");
    let table = net.parameter_at(&table_path, &[vocabulary, hidden])?;
    let mut x = net.scale(embedded)?;
    let n_layers = i64::try_from(layers.len()).unwrap_or(i64::MAX);
    let inputs = match own {
        Some(own) => Some((own, per_layer(net, ids, x, own, n_layers)?)),
        None => None,
    };
    let mut shared: [Option<[TensorId; 2]>; 2] = [None, None];
    for (layer_idx, layer) in (0..n_layers).zip(layers) {
        let input = match inputs {
            Some((own, inputs)) => Some(net.own_input(inputs, layer_idx, own.width)?),
            None => None,
        };
        x = net.module(&format!("layers.{layer_idx}"), "Gemma4TextDecoderLayer", |net| {
            layer.build(net, x, input, &mut shared[usize::from(layer.is_windowed)])
        })?;
    }
    Ok((net.norm("norm", x, Norm::Rms)?, table))
}

/// `[b, s, layers, width]`: a table's row and a projection of the embedding, for each layer.
fn per_layer(net: &mut Network, ids: TensorId, x: TensorId, own: OwnInputs, layers: i64) -> Made {
    let width = own.width.checked_mul(layers);
    let width = width.ok_or_else(|| Error::new("inputs per layer beyond any size"))?;
    let row = net.embedding("embed_tokens_per_layer", ids, own.vocabulary, width)?;
    let row = net.scale(row)?;
    let projected = net.linear("per_layer_model_projection", x, width, Bias::None)?;
    let projected = net.scale(projected)?;
    let shape = [net.axis(x, 3), net.axis(x, 2), dim(layers), dim(own.width)];
    let projected = net.reshape(projected, &shape)?;
    let projected = net.norm("per_layer_projection_norm", projected, Norm::Rms)?;
    let row = net.reshape(row, &shape)?;
    let sum = net.add(projected, row)?;
    net.scale(sum)
}

impl Network {
    /// What belongs to one layer of the inputs per layer.
    fn own_input(&mut self, inputs: TensorId, layer: i64, width: i64) -> Made {
        let one = self.slice(inputs, 2, layer, layer + 1)?;
        let shape = [self.axis(inputs, 4), self.axis(inputs, 3), dim(width)];
        self.reshape(one, &shape)
    }
}

impl Layer {
    fn build(
        &self,
        net: &mut Network,
        x: TensorId,
        own_input: Option<TensorId>,
        shared: &mut Option<[TensorId; 2]>,
    ) -> Made {
        let inner = net.norm("input_layernorm", x, Norm::Rms)?;
        let mixed =
            net.module("self_attn", "Gemma4TextAttention", |net| self.attend(net, inner, shared))?;
        let mixed = net.norm("post_attention_layernorm", mixed, Norm::Rms)?;
        let x = net.add(x, mixed)?;
        let inner = net.norm("pre_feedforward_layernorm", x, Norm::Rms)?;
        let dense = FeedForward::Dense(self.dense.clone());
        let mut fed = net.module("mlp", dense.class(), |net| dense.build(net, inner))?;
        if let Some(experts) = &self.experts {
            let dense = net.norm("post_feedforward_layernorm_1", fed, Norm::Rms)?;
            let routed = routed(net, experts, x)?;
            let routed = net.norm("post_feedforward_layernorm_2", routed, Norm::Rms)?;
            fed = net.add(dense, routed)?;
        }
        let fed = net.norm("post_feedforward_layernorm", fed, Norm::Rms)?;
        let mut x = net.add(x, fed)?;
        if let (Some((function, width)), Some(input)) = (self.own_input, own_input) {
            let hidden = net.width(x)?;
            let gate = net.linear("per_layer_input_gate", x, width, Bias::None)?;
            let gate = net.each(function, &[gate])?;
            let product = net.mul(gate, input)?;
            let back = net.linear("per_layer_projection", product, hidden, Bias::None)?;
            let back = net.norm("post_per_layer_input_norm", back, Norm::Rms)?;
            x = net.add(x, back)?;
        }
        net.scale(x)
    }

    fn attend(&self, net: &mut Network, x: TensorId, shared: &mut Option<[TensorId; 2]>) -> Made {
        let hidden = net.width(x)?;
        let width = self.heads * self.head_dim;
        let query = net.linear("q_proj", x, width, self.bias)?;
        let query = self.apart(net, query, self.heads)?;
        let query = net.norm("q_norm", query, Norm::Rms)?;
        let query = self.turned(net, query, true)?;
        let [key, value] = match (self.is_shared, *shared) {
            (true, Some(shared)) => shared,
            (true, None) => return Err(Error::new("shares keys that no layer before it has")),
            (false, _) => self.keys(net, x)?,
        };
        *shared = Some([key, value]);
        let attention = Attention::new(self.mask.clone());
        let seen = net.attend([query, key, value], attention, None)?;
        if let Some(keeps) = kept(&self.mask).filter(|_| !self.is_shared) {
            let elements = dim(2 * self.kv_heads * self.head_dim);
            net.state("keys and values", elements, net.format(), keeps);
        }
        let back = net.permute(seen, &[0, 2, 1, 3])?;
        let copy = net.contiguous(back)?;
        let shape = [net.axis(copy, 4), net.axis(copy, 3), dim(width)];
        let merged = net.reshape(copy, &shape)?;
        net.linear("o_proj", merged, hidden, self.bias)
    }

    fn keys(&self, net: &mut Network, x: TensorId) -> Result<[TensorId; 2], Error> {
        let width = self.kv_heads * self.head_dim;
        let key = net.linear("k_proj", x, width, self.bias)?;
        let value = match self.keys_are_values {
            true => key,
            false => net.linear("v_proj", x, width, self.bias)?,
        };
        let key = self.apart(net, key, self.kv_heads)?;
        let value = self.apart(net, value, self.kv_heads)?;
        let key = net.norm("k_norm", key, Norm::Rms)?;
        let value = net.norm("v_norm", value, Norm::PlainRms)?;
        Ok([self.turned(net, key, true)?, self.turned(net, value, false)?])
    }

    /// `[b, s, heads * d]` -> `[b, s, heads, d]`.
    fn apart(&self, net: &mut Network, x: TensorId, heads: i64) -> Made {
        let shape = [net.axis(x, 3), net.axis(x, 2), dim(heads), dim(self.head_dim)];
        net.reshape(x, &shape)
    }

    /// `[b, s, heads, d]` -> `[b, heads, s, d]`, rotated or not.
    fn turned(&self, net: &mut Network, x: TensorId, is_rotated: bool) -> Made {
        let turned = net.permute(x, &[0, 2, 1, 3])?;
        if is_rotated { net.rotary(turned, self.head_dim) } else { Ok(turned) }
    }
}

/// The experts' results for `x [b, s, hidden]`, which the router sees without the norm that the experts
/// have before them.
fn routed(net: &mut Network, experts: &Experts, x: TensorId) -> Made {
    let shape = net.shape(x);
    let hidden = net.width(x)?;
    let n_tokens = Dim::product(shape.iter().rev().skip(1));
    let flat = net.reshape(x, &[n_tokens.clone(), dim(hidden)])?;
    let routes = net.module("router", "Gemma4TextRouter", |net| {
        let normed = net.norm("norm", flat, Norm::PlainRms)?;
        let scale = net.parameter("scale", &[hidden])?;
        let scaled = net.mul(normed, scale)?;
        let scaled = net.scale(scaled)?;
        let logits = net.linear("proj", scaled, experts.experts, Bias::None)?;
        let scores = net.softmax(logits)?;
        let op = Op::TopK { axis: 1, k: dim(experts.top_k) };
        let best = net.apply_many("topk", "aten.topk.default", op, &[scores], 2)?;
        let scales = net.parameter("per_expert_scale", &[experts.experts])?;
        let op = Op::Index { axes: vec![0] };
        let picked = net.apply("index", "aten.index.Tensor", op, &[scales, best[1]])?;
        Ok([net.mul(best[0], picked)?, best[1]])
    })?;
    let inner = net.norm("pre_feedforward_layernorm_2", flat, Norm::Rms)?;
    let routed = net.module("experts", "Gemma4TextExperts", |net| {
        experts.routed(net, inner, &n_tokens, routes)
    })?;
    net.reshape(routed, &shape)
}
