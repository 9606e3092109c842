//! Nemotron-H and Nemotron 3: layers of one part each, a state space, an attention, a feed-forward
//! network or a mixture of experts, in the order that a pattern says.

use super::super::config::Config;
use super::super::decoder::{Arrangement, Decoder, Layer, Paths};
use super::super::layer::{
    Correction, Dense, Experts, FeedForward, Gate, Gating, Latent, Mixer, Recurrent, Scores,
    SelfAttention, SharedExpert,
};
use super::super::network::{Bias, Made, Network, Norm};
use super::mamba::{Fields2, MIXER_ONLY, decoder, dual};
use super::{Build, Request, parts};
use crate::error::Error;
use crate::graph::{Graph, Op, TensorId};

pub(super) const TYPES: &[(&str, Build)] = &[("nemotron_h", nemotron_h)];

const PATHS: Paths = Paths { stack: "model", embedding: "embeddings", layers: "layers" };

/// More layers than this are damage or attack.
const MAX_LAYERS: usize = 4096;

fn nemotron_h(config: &Config, request: &Request) -> Result<Graph, Error> {
    let kinds = kinds(config, ["layers_block_type", "layer_types"], "hybrid_override_pattern")?;
    let kinds = kinds.ok_or_else(|| {
        config.error("hybrid_override_pattern", "is missing").remedy(
            "add it; M is a Mamba-2 layer, * attention, - a feed-forward network, E experts",
        )
    })?;
    if let Some(layers) = config.optional("num_hidden_layers")?
        && i64::try_from(kinds.len()) != Ok(layers)
    {
        let what = format!("is {layers}, but the pattern has {} layers", kinds.len());
        return Err(config.error("num_hidden_layers", what));
    }
    let layers = layers(config, &kinds)?;
    let decoder = decoder(config, request, "NemotronHForCausalLM", false, layers)?;
    let decoder = Decoder { paths: PATHS, final_norm: Some(("norm_f", Norm::Rms)), ..decoder };
    match request.options.mtp {
        0 => decoder.graph(request.options.pass),
        steps => with_mtp(config, request, &decoder, steps),
    }
}

/// What a layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LayerKind {
    Mamba,
    Attention,
    Dense,
    Experts,
}

/// The layers by a list of words or by a pattern of letters; `None` where there is neither.
fn kinds(
    config: &Config,
    lists: [&str; 2],
    pattern: &str,
) -> Result<Option<Vec<LayerKind>>, Error> {
    for field in lists {
        if let Some(words) = config.texts(field)? {
            let kinds = words.into_iter().map(|word| by_word(config, field, word));
            return kinds.collect::<Result<Vec<_>, _>>().map(Some);
        }
    }
    let Some(letters) = config.text(pattern)? else { return Ok(None) };
    if MAX_LAYERS < letters.len() || letters.is_empty() {
        return Err(config.error(pattern, format!("has {} layers", letters.len())));
    }
    let kinds = letters.chars().map(|letter| match letter {
        'M' => Ok(LayerKind::Mamba),
        '*' => Ok(LayerKind::Attention),
        '-' => Ok(LayerKind::Dense),
        'E' => Ok(LayerKind::Experts),
        other => Err(config.error(pattern, format!("has `{other}`, no layer known here"))),
    });
    kinds.collect::<Result<Vec<_>, _>>().map(Some)
}

fn by_word(config: &Config, field: &str, word: &str) -> Result<LayerKind, Error> {
    match word {
        "linear_attention" | "mamba" => Ok(LayerKind::Mamba),
        "full_attention" | "attention" => Ok(LayerKind::Attention),
        "mlp" => Ok(LayerKind::Dense),
        "moe" => Ok(LayerKind::Experts),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(config.error(field, format!("has `{shown}`, no layer known here")))
        }
    }
}

fn layers(config: &Config, kinds: &[LayerKind]) -> Result<Vec<Layer>, Error> {
    let build = |kind| {
        let is_used = kinds.contains(&kind);
        is_used.then(|| layer(config, kind)).transpose()
    };
    let [mamba, attention, dense, experts] = [
        build(LayerKind::Mamba)?,
        build(LayerKind::Attention)?,
        build(LayerKind::Dense)?,
        build(LayerKind::Experts)?,
    ];
    let layers = kinds.iter().filter_map(|kind| match kind {
        LayerKind::Mamba => mamba.clone(),
        LayerKind::Attention => attention.clone(),
        LayerKind::Dense => dense.clone(),
        LayerKind::Experts => experts.clone(),
    });
    Ok(layers.collect())
}

fn layer(config: &Config, kind: LayerKind) -> Result<Layer, Error> {
    let mixer = |mixer| Layer {
        class: "NemotronHBlock",
        arrangement: MIXER_ONLY,
        norm: Norm::Rms,
        mixer: Some(("mixer", mixer)),
        feed_forward: None,
    };
    let feed_forward = |feed_forward| Layer {
        class: "NemotronHBlock",
        arrangement: Arrangement::Residual {
            before_mixer: None,
            after_mixer: None,
            before_feed_forward: Some("norm"),
            after_feed_forward: None,
        },
        norm: Norm::Rms,
        mixer: None,
        feed_forward: Some(("mixer", feed_forward)),
    };
    Ok(match kind {
        LayerKind::Mamba => mixer(Mixer::Recurrent(Recurrent::Mamba2(mamba(config)?))),
        LayerKind::Attention => mixer(Mixer::Attention(attention(config)?)),
        LayerKind::Dense => {
            let width = config.size("intermediate_size")?;
            feed_forward(FeedForward::Dense(dense(config, width)?))
        }
        LayerKind::Experts => feed_forward(FeedForward::Experts(experts(config)?)),
    })
}

fn mamba(config: &Config) -> Result<super::super::layer::mamba::Mamba2, Error> {
    let fields = Fields2 {
        heads: (&["mamba_num_heads"], 128),
        groups: (&["n_groups", "mamba_n_groups"], 8),
        state: (&["ssm_state_size"], 128),
        chunk: (&["chunk_size", "mamba_chunk_size"], 128),
        kernel: (&["conv_kernel", "mamba_d_conv"], 4),
        conv_bias: if config.has("mamba_conv_bias") { "mamba_conv_bias" } else { "use_conv_bias" },
        bias: "use_bias",
        function: "mamba_hidden_act",
    };
    dual(config, &fields, |_| config.size_or("mamba_head_dim", 64))
}

/// No rotary embedding: the state spaces tell positions apart.
fn attention(config: &Config) -> Result<SelfAttention, Error> {
    let heads = config.size("num_attention_heads")?;
    let kv_heads = config.size_or("num_key_value_heads", 8)?;
    let head_dim = config.size_or("head_dim", 128)?;
    Ok(SelfAttention { rotated: 0, ..SelfAttention::llama(heads, kv_heads, head_dim) })
}

fn dense(config: &Config, width: i64) -> Result<Dense, Error> {
    Ok(Dense {
        width,
        function: parts::function(config, "mlp_hidden_act", "relu2")?,
        gating: Gating::Plain(["up_proj", "down_proj"]),
        bias: Bias::from(config.flag_or("mlp_bias", false)?),
        ..Dense::llama(width)
    })
}

fn experts(config: &Config) -> Result<Experts, Error> {
    let dense = dense(config, config.size("moe_shared_expert_intermediate_size")?)?;
    let experts = Experts::mixtral(
        config.size("n_routed_experts")?,
        config.size("num_experts_per_tok")?,
        config.size("moe_intermediate_size")?,
    );
    Ok(Experts {
        class: "NemotronHMoE",
        function: dense.function,
        is_gated: false,
        gate: Gate {
            correction: Some(Correction::DEEPSEEK),
            scores: Scores::Sigmoid,
            ..experts.gate
        },
        shared: Some(SharedExpert { name: "shared_experts", dense, gate: None }),
        latent: config.optional("moe_latent_size")?.map(|width| Latent {
            width,
            names: ["fc1_latent_proj", "fc2_latent_proj"],
            norm: None,
        }),
        ..experts
    })
}

/// The model and what predicts further tokens. transformers leaves that away; names and order are
/// those of vLLM (model_executor/models/nemotron_h_mtp.py) and of the checkpoints: the norms of the
/// next token's embedding and of the last result, their joint projection, the layers of a pattern,
/// a norm, and the model's own head. Each further step takes the same weights again, as the models
/// are trained with more steps than modules (Nemotron 3 Super: one module, two steps).
fn with_mtp(
    config: &Config,
    request: &Request,
    decoder: &Decoder,
    steps: u32,
) -> Result<Graph, Error> {
    if config.count("num_nextn_predict_layers")?.is_none_or(|modules| modules == 0) {
        let what = "is missing or 0: this model has no module that predicts further tokens";
        return Err(config.error("num_nextn_predict_layers", what).remedy("leave --mtp away"));
    }
    if 16 < steps {
        return Err(Error::new(format!("--mtp {steps}: no model predicts that many tokens")));
    }
    let lists = ["mtp_layers_block_type", "mtp_layer_types"];
    let kinds = match kinds(config, lists, "mtp_hybrid_override_pattern")? {
        Some(kinds) => kinds,
        None => {
            config.assume("mtp_hybrid_override_pattern", "*E");
            vec![LayerKind::Attention, LayerKind::Experts]
        }
    };
    let layers = layers(config, &kinds)?;
    let mut net = Network::new(&decoder.name, decoder.format, request.options.pass);
    let outputs = net.module("", &decoder.class, |net| {
        let batch = net.symbol("batch", None, "dim 0 of input_ids");
        let seq = net.symbol("seq", decoder.max_length, "dim 1 of input_ids");
        let ids = net.token_input("input_ids", &[batch, seq.clone()])?;
        let (mut hidden, table) =
            net.module(decoder.paths.stack, "Model", |net| decoder.stack(net, ids, &seq))?;
        let mut outputs = vec![decoder.logits(net, hidden, table)?];
        for _ in 0..steps {
            hidden =
                net.module("mtp", "NemotronHMTP", |net| step(net, [ids, table, hidden], &layers))?;
            outputs.push(decoder.logits(net, hidden, table)?);
        }
        Ok(outputs)
    })?;
    Ok(net.finish(&outputs))
}

fn step(net: &mut Network, [ids, table, hidden]: [TensorId; 3], layers: &[Layer]) -> Made {
    let width = net.width(hidden)?;
    let next = net.apply("roll", "aten.roll.default", Op::Copy, &[ids])?;
    let embedded = net.module("embed_tokens", "torch.nn.modules.sparse.Embedding", |net| {
        net.apply("", "aten.embedding.default", Op::Embedding, &[table, next])
    })?;
    let last = layers.len().saturating_sub(1);
    let mut x = hidden;
    for (layer_idx, layer) in layers.iter().enumerate() {
        x = net.module(&format!("layers.{layer_idx}"), layer.class, |net| {
            if layer_idx == 0 {
                let embedded = net.norm("enorm", embedded, Norm::Rms)?;
                let before = net.norm("hnorm", x, Norm::Rms)?;
                let both = net.concat(&[embedded, before], 2)?;
                x = net.linear("eh_proj", both, width, Bias::None)?;
            }
            let result = layer.build(net, x)?;
            if layer_idx == last {
                net.norm("final_layernorm", result, Norm::Rms)
            } else {
                Ok(result)
            }
        })?;
    }
    Ok(x)
}
