//! Modules that predict further tokens (MTP, DeepSeek-V3, arXiv 2412.19437, section 2.2): each joins the
//! result of the stack before it with the embedding of the next token, and runs one more layer. They
//! have the token table and the head of the model.
//!
//! Not here: which layer it is (the families).

use super::Options;
use super::config::Config;
use super::decoder::{Decoder, Layer};
use super::family::Request;
use super::network::{Bias, Made, Network, Norm};
use crate::error::Error;
use crate::graph::{Graph, Op, TensorId};
use crate::note::Note;

/// The fields that say how many modules there are.
const FIELDS: &[&str] = &["num_nextn_predict_layers", "num_mtp_layers"];

/// How many modules a config has.
///
/// # Errors
/// No number.
pub(super) fn offered(config: &Config) -> Result<i64, Error> {
    for field in FIELDS {
        if let Some(count) = config.count(field)? {
            return Ok(count);
        }
    }
    Ok(0)
}

/// The graph of the model, with as many modules as are asked for; `layer` is what each of them runs.
///
/// # Errors
/// More are asked for than there are; sizes that do not fit each other.
pub(super) fn graph(
    decoder: &Decoder,
    layer: &Layer,
    config: &Config,
    request: &Request,
) -> Result<Graph, Error> {
    let (offered, wanted) = (offered(config)?, i64::from(request.options.mtp));
    if offered < wanted {
        return Err(too_many(offered, wanted));
    }
    let mut net = Network::new(&decoder.name, decoder.format, request.options.pass);
    let results = net.module("", &decoder.class, |net| {
        let batch = net.symbol("batch", None, "dim 0 of input_ids");
        let seq = net.symbol("seq", decoder.max_length, "dim 1 of input_ids");
        let ids = net.token_input("input_ids", &[batch, seq.clone()])?;
        let stack = decoder.paths.stack;
        let (mut x, table) = net.module(stack, "Model", |net| decoder.stack(net, ids, &seq))?;
        let mut results = vec![decoder.logits(net, x, table)?];
        for module_idx in 0..wanted {
            let place = decoder.layers.len() as i64 + module_idx;
            let name = format!("{stack}.{}.{place}", decoder.paths.layers);
            let hidden = decoder.hidden;
            x = net.module(&name, "MTP", |net| module(net, layer, [x, ids, table], hidden))?;
            results.push(decoder.logits(net, x, table)?);
        }
        Ok(results)
    })?;
    let mut graph = net.finish(&results);
    if wanted == 0 && 0 < offered {
        graph.notes.push(Note::new(format!(
            "the config has {offered} modules that predict further tokens (MTP); inference without \
             speculation runs none of them and none is counted (--mtp 1 counts one)"
        )));
    }
    Ok(graph)
}

/// Whether a finished graph has the modules that were asked for.
///
/// # Errors
/// The config has none, or its `model_type` has no rule for them here.
pub(super) fn check(graph: &Graph, config: &Config, options: &Options) -> Result<(), Error> {
    let wanted = i64::from(options.mtp);
    if wanted == 0 || wanted < graph.outputs.len() as i64 {
        return Ok(());
    }
    match config.sub("text_config")?.as_ref().map_or_else(|| offered(config), offered)? {
        0 => Err(too_many(0, wanted)),
        _ => Err(Error::new("--mtp: the modules of this `model_type` have no rule here")),
    }
}

/// Says that there are not as many.
fn too_many(offered: i64, wanted: i64) -> Error {
    let text = format!(
        "--mtp {wanted} asks for more modules that predict further tokens than the config has \
         ({offered})"
    );
    Error::new(text).remedy("see `num_nextn_predict_layers`")
}

/// `eh_proj [norm(embedding of the next token), norm(x)]`, a layer, and a norm before the head.
fn module(net: &mut Network, layer: &Layer, [x, ids, table]: [TensorId; 3], hidden: i64) -> Made {
    let shifted = net.apply("roll", "aten.roll.default", Op::Copy, &[ids])?;
    let next = net.module("embed_tokens", "torch.nn.modules.sparse.Embedding", |net| {
        net.apply("", "aten.embedding.default", Op::Embedding, &[table, shifted])
    })?;
    let next = net.norm("enorm", next, Norm::Rms)?;
    let before = net.norm("hnorm", x, Norm::Rms)?;
    let both = net.concat(&[next, before], 2)?;
    let x = net.linear("eh_proj", both, hidden, Bias::None)?;
    let x = layer.build(net, x)?;
    net.norm("shared_head.norm", x, Norm::Rms)
}
