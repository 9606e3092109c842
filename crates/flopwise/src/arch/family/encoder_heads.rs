//! The heads of encoders, by the class in `architectures`: masked words, pre-training, a label for the
//! sequence or for each token, the span of an answer.
//!
//! Not here: the stacks (`encoder.rs`).

use super::super::config::Config;
use super::super::network::{Bias, Made, Network, Norm};
use super::encoder::Stack;
use super::heads::{labels, unknown_class};
use super::parts::function;
use crate::error::Error;
use crate::graph::{Function, MatMul, Op, Orientation, TensorId};

/// What a class has on top of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Top {
    /// Nothing but the pooler, where the family has one.
    Bare,
    /// A score per known token.
    Masked,
    /// What the family was trained with.
    Pretraining,
    /// A score per label of the sequence.
    Sequence(i64),
    /// A score per label of each token.
    Token(i64),
    /// Where an answer begins and ends.
    Span,
}

pub(super) fn top(config: &Config, class: &str) -> Result<Top, Error> {
    let known = [
        ("ForMaskedLM", Top::Masked),
        ("LMHeadModel", Top::Masked),
        ("ForPreTraining", Top::Pretraining),
        ("ForSequenceClassification", Top::Sequence(0)),
        ("ForTokenClassification", Top::Token(0)),
        ("ForQuestionAnswering", Top::Span),
        ("Model", Top::Bare),
    ];
    match known.iter().find(|(end, _)| class.ends_with(end)) {
        Some((_, Top::Sequence(_))) => labels(config).map(Top::Sequence),
        Some((_, Top::Token(_))) => labels(config).map(Top::Token),
        Some((_, top)) => Ok(*top),
        None => {
            let ends: Vec<&str> = known.iter().map(|(end, _)| *end).collect();
            Err(unknown_class(config, class, &ends.join(", ")))
        }
    }
}

impl Network {
    /// `x w^T + b` with the token table as weight and a bias of its own.
    fn linear_tied(&mut self, name: &str, x: TensorId, table: TensorId, bias: &str) -> Made {
        let rows = self.axis(table, 2).as_constant().and_then(|rows| i64::try_from(rows).ok());
        let rows = rows.ok_or_else(|| Error::new("the token table has no known length"))?;
        let bias = self.parameter(bias, &[rows])?;
        self.module(name, "torch.nn.modules.linear.Linear", |net| {
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
            net.apply("", "aten.linear.default", op, &[x, table, bias])
        })
    }
}

/// The first token through a layer and a tanh.
pub(super) fn pooled(net: &mut Network, x: TensorId, name: &str, hidden: i64) -> Made {
    let first = net.first_token(x)?;
    let dense = net.linear(name, first, hidden, Bias::Added)?;
    net.each(Function::Tanh, &[dense])
}

/// A layer, a function and a norm, then the token table.
struct Words<'a> {
    dense: &'a str,
    function: Function,
    norm: &'a str,
    decoder: &'a str,
    bias: &'a str,
    width: i64,
}

impl Words<'_> {
    fn build(&self, net: &mut Network, config: &Config, stack: &Stack) -> Made {
        if config.flag("tie_word_embeddings")? == Some(false) {
            let what = "is false, for which this head has no rule here";
            return Err(config.error("tie_word_embeddings", what));
        }
        let x = net.linear(self.dense, stack.x, self.width, Bias::Added)?;
        let x = net.each(self.function, &[x])?;
        let x = net.norm(self.norm, x, Norm::Layer)?;
        net.linear_tied(self.decoder, x, stack.table, self.bias)
    }
}

fn per_token(net: &mut Network, stack: &Stack, name: &str, labels: i64) -> Made {
    net.linear(name, stack.x, labels, Bias::Added)
}

fn of_pooled(net: &mut Network, stack: &Stack, labels: i64) -> Made {
    let pooled = stack.pooled.ok_or_else(|| Error::new("a classifier without a pooler"))?;
    net.linear("classifier", pooled, labels, Bias::Added)
}

/// The first token through a layer and a function, then the labels.
fn of_first(
    net: &mut Network,
    stack: &Stack,
    names: [&str; 2],
    function: Function,
    labels: i64,
) -> Made {
    let width = net.width(stack.x)?;
    let first = net.first_token(stack.x)?;
    let dense = net.linear(names[0], first, width, Bias::Added)?;
    let dense = net.each(function, &[dense])?;
    net.linear(names[1], dense, labels, Bias::Added)
}

/// A head that a family has not.
fn none(config: &Config, what: &str) -> Error {
    config.error("architectures", format!("asks for {what}, which has no rule here"))
}

pub(super) fn bert(net: &mut Network, config: &Config, top: Top, stack: &Stack) -> Made {
    let words = |net: &mut Network| -> Made {
        let head = Words {
            dense: "cls.predictions.transform.dense",
            function: function(config, "hidden_act", "gelu")?,
            norm: "cls.predictions.transform.LayerNorm",
            decoder: "cls.predictions.decoder",
            bias: "cls.predictions.bias",
            width: net.width(stack.x)?,
        };
        head.build(net, config, stack)
    };
    match top {
        Top::Bare => Ok(stack.x),
        Top::Masked => words(net),
        Top::Pretraining => {
            let pooled = stack.pooled.ok_or_else(|| Error::new("no pooler"))?;
            net.linear("cls.seq_relationship", pooled, 2, Bias::Added)?;
            words(net)
        }
        Top::Sequence(labels) => of_pooled(net, stack, labels),
        Top::Token(labels) => per_token(net, stack, "classifier", labels),
        Top::Span => per_token(net, stack, "qa_outputs", 2),
    }
}

pub(super) fn roberta(net: &mut Network, config: &Config, top: Top, stack: &Stack) -> Made {
    match top {
        Top::Bare => Ok(stack.x),
        Top::Pretraining => Err(none(config, "pre-training")),
        Top::Masked => {
            let head = Words {
                dense: "lm_head.dense",
                function: Function::GeluErf,
                norm: "lm_head.layer_norm",
                decoder: "lm_head.decoder",
                bias: "lm_head.bias",
                width: net.width(stack.x)?,
            };
            head.build(net, config, stack)
        }
        Top::Sequence(labels) => of_first(
            net,
            stack,
            ["classifier.dense", "classifier.out_proj"],
            Function::Tanh,
            labels,
        ),
        Top::Token(labels) => per_token(net, stack, "classifier", labels),
        Top::Span => per_token(net, stack, "qa_outputs", 2),
    }
}

pub(super) fn electra(net: &mut Network, config: &Config, top: Top, stack: &Stack) -> Made {
    match top {
        Top::Bare => Ok(stack.x),
        Top::Masked => {
            let head = Words {
                dense: "generator_predictions.dense",
                function: Function::GeluErf,
                norm: "generator_predictions.LayerNorm",
                decoder: "generator_lm_head",
                bias: "generator_lm_head.bias",
                width: config.size_or("embedding_size", 128)?,
            };
            head.build(net, config, stack)
        }
        Top::Pretraining => {
            let width = net.width(stack.x)?;
            let x = net.linear("discriminator_predictions.dense", stack.x, width, Bias::Added)?;
            let x = net.each(function(config, "hidden_act", "gelu")?, &[x])?;
            net.linear("discriminator_predictions.dense_prediction", x, 1, Bias::Added)
        }
        Top::Sequence(labels) => {
            let names = ["classifier.dense", "classifier.out_proj"];
            of_first(net, stack, names, Function::GeluErf, labels)
        }
        Top::Token(labels) => per_token(net, stack, "classifier", labels),
        Top::Span => per_token(net, stack, "qa_outputs", 2),
    }
}

pub(super) fn distilbert(net: &mut Network, config: &Config, top: Top, stack: &Stack) -> Made {
    match top {
        Top::Bare => Ok(stack.x),
        Top::Pretraining => Err(none(config, "pre-training")),
        Top::Masked => {
            let head = Words {
                dense: "vocab_transform",
                function: function(config, "activation", "gelu")?,
                norm: "vocab_layer_norm",
                decoder: "vocab_projector",
                bias: "vocab_projector.bias",
                width: net.width(stack.x)?,
            };
            head.build(net, config, stack)
        }
        Top::Sequence(labels) => {
            of_first(net, stack, ["pre_classifier", "classifier"], Function::Relu, labels)
        }
        Top::Token(labels) => per_token(net, stack, "classifier", labels),
        Top::Span => per_token(net, stack, "qa_outputs", 2),
    }
}

pub(super) fn albert(net: &mut Network, config: &Config, top: Top, stack: &Stack) -> Made {
    let words = |net: &mut Network| -> Made {
        let head = Words {
            dense: "predictions.dense",
            function: function(config, "hidden_act", "gelu_new")?,
            norm: "predictions.LayerNorm",
            decoder: "predictions.decoder",
            bias: "predictions.bias",
            width: config.size_or("embedding_size", 128)?,
        };
        head.build(net, config, stack)
    };
    match top {
        Top::Bare => Ok(stack.x),
        Top::Masked => words(net),
        Top::Pretraining => {
            let pooled = stack.pooled.ok_or_else(|| Error::new("no pooler"))?;
            net.linear("sop_classifier.classifier", pooled, labels(config)?, Bias::Added)?;
            words(net)
        }
        Top::Sequence(labels) => of_pooled(net, stack, labels),
        Top::Token(labels) => per_token(net, stack, "classifier", labels),
        Top::Span => per_token(net, stack, "qa_outputs", 2),
    }
}

/// ModernBERT's norms, with a bias or without.
pub(super) fn modernbert_norm(config: &Config) -> Result<Norm, Error> {
    Ok(match config.flag("norm_bias")?.unwrap_or(false) {
        true => Norm::Layer,
        false => Norm::LayerWithoutBias,
    })
}

/// A layer, a function and a norm of every token, or of the one that stands for the sequence.
fn prediction(net: &mut Network, config: &Config, x: TensorId) -> Made {
    let width = net.width(x)?;
    let bias = Bias::from(config.flag("classifier_bias")?.unwrap_or(false));
    let x = net.linear("head.dense", x, width, bias)?;
    let x = net.each(function(config, "classifier_activation", "gelu")?, &[x])?;
    net.norm("head.norm", x, modernbert_norm(config)?)
}

pub(super) fn modernbert(net: &mut Network, config: &Config, top: Top, stack: &Stack) -> Made {
    match top {
        Top::Bare => Ok(stack.x),
        Top::Pretraining => Err(none(config, "pre-training")),
        Top::Masked => {
            let x = prediction(net, config, stack.x)?;
            let is_tied = config.flag("tie_word_embeddings")?.unwrap_or(true);
            let has_bias = config.flag("decoder_bias")?.unwrap_or(true);
            match (is_tied, has_bias) {
                (true, true) => net.linear_tied("decoder", x, stack.table, "decoder.bias"),
                (true, false) => net.linear_with("decoder", x, stack.table),
                (false, _) => {
                    net.linear("decoder", x, config.size("vocab_size")?, Bias::from(has_bias))
                }
            }
        }
        Top::Sequence(labels) => {
            // The mean over the tokens where the config asks for it; the layers after it see one row too.
            let first = net.first_token(stack.x)?;
            let x = prediction(net, config, first)?;
            net.linear("classifier", x, labels, Bias::Added)
        }
        Top::Token(labels) => {
            let x = prediction(net, config, stack.x)?;
            net.linear("classifier", x, labels, Bias::Added)
        }
        Top::Span => {
            let x = prediction(net, config, stack.x)?;
            net.linear("classifier", x, 2, Bias::Added)
        }
    }
}
