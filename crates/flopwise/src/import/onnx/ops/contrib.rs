//! Fused operators of ONNX Runtime, domains `com.microsoft` and `com.microsoft.nchwc`, as its
//! optimisers and exporters write them.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
//!
//! Not here: attentions (`fused_attention.rs`), operators over quantised tensors (`quantized.rs`).

use super::quantized::{self, Steps, channels_last, convolution, inputs};
use super::{fused_attention, windows};
use crate::graph::{
    Dim, Function, Kind, MatMul, Normalization, Op, Orientation, PoolFunction, Shape, Stated,
    Storage, TensorType,
};
use crate::import::onnx::call::{Call, Plan, Source, one, stated};
use flopwise_formats::Format;

type Results = Result<Vec<Option<TensorType>>, String>;

pub(super) fn plan(call: &Call) -> Plan {
    fused_attention::plan(call)
        .or_else(|| quantized::plan(call))
        .or_else(|| quantized::fused(call))
        .or_else(|| activation(call))
        .or_else(|| normalization(call))
        .or_else(|| product(call))
        .or_else(|| movement(call))
        .or_else(|| other(call))
        .unwrap_or_else(|| match like_standard(call) {
            true => super::standard(call),
            false => Err(reason(call)),
        })
}

pub(super) fn results(call: &Call) -> Results {
    let int32 = |lengths: Vec<Dim>| TensorType { shape: Shape(lengths), format: Format::INT32 };
    Ok(match call.operator() {
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => {
            let input = call.tensor_type(0)?;
            let mut moment = TensorType { format: Format::FP32, ..input.clone() };
            if let Some(last) = moment.shape.0.last_mut() {
                *last = Dim::ONE;
            }
            vec![None, Some(moment.clone()), Some(moment), Some(input.clone())]
        }
        "SkipGroupNorm" => vec![None, Some(call.tensor_type(0)?.clone())],
        "EmbedLayerNormalization" => {
            let sums = embedded(call)?;
            let batch = sums.shape.0.first().cloned().ok_or("ids without axes")?;
            vec![Some(sums.clone()), Some(int32(vec![batch])), Some(sums)]
        }
        "BiasDropout" => {
            vec![None, Some(TensorType { format: Format::BOOL, ..call.tensor_type(0)?.clone() })]
        }
        "GemmFloat8" => match (call.format("dtype"), gemm(call)) {
            (Some(format), Ok(op)) => {
                vec![Some(TensorType { format, ..call.ruled(&op, &[0, 1])? })]
            }
            _ => Vec::new(),
        },
        "MatMulInteger16" => quantized::results(call)?,
        "DynamicQuantizeLinear" | "MatMulInteger" | "ConvInteger" => quantized::results(call)?,
        _ => fused_attention::results(call)?,
    })
}

/// Operators that the standard has too, with the same meaning.
fn like_standard(call: &Call) -> bool {
    matches!(
        call.operator(),
        "Gelu"
            | "Pad"
            | "GatherND"
            | "GridSample"
            | "Trilu"
            | "Unique"
            | "Range"
            | "Conv"
            | "MaxPool"
            | "AveragePool"
            | "GlobalAveragePool"
            | "GlobalMaxPool"
            | "BitmaskDropout"
    )
}

fn reason(call: &Call) -> String {
    let why = match call.operator() {
        "BeamSearch" | "WhisperBeamSearch" | "GreedySearch" | "Sampling" => {
            "it runs the models in its attributes until the text ends, which is decided at run time"
        }
        "EPContext" => "it holds a program compiled for one device",
        "AttnLSTM" | "DynamicQuantizeLSTM" => "recurrent cells of this kind are not counted",
        "GatedRelativePositionBias" => "what its gates compute is not counted",
        "Tokenizer" | "WordConvEmbedding" | "MurmurHash3" => "it works on texts",
        operator => return format!("no rule for {}::{operator}", call.node.domain),
    };
    why.to_owned()
}

fn add(steps: &mut Steps, operands: &[Source]) -> Source {
    steps.then(Op::Elementwise(Function::Add), operands)
}

fn activation(call: &Call) -> Option<Plan> {
    let function = match call.operator() {
        "QuickGelu" => Function::QuickGelu,
        "FastGelu" => Function::GeluTanh,
        "BiasGelu" => Function::GeluErf,
        "BiasAdd" | "BiasDropout" => Function::Add,
        "BiasSplitGelu" => return Some(split_gelu(call)),
        "SwiGLU" => return Some(swiglu(call)),
        "MulInteger" => return Some(quantized::integer_multiply(call)),
        "BiasSoftmax" => {
            let axis = call.rank(0).and_then(|rank| call.axis("axis", 1, rank));
            return Some(axis.and_then(|axis| {
                let mut steps = Steps::default();
                let sum = add(&mut steps, &inputs(call, &[0, 1]));
                steps.then(Op::Softmax { axis }, &[sum]);
                steps.plan()
            }));
        }
        _ => return None,
    };
    let mut steps = Steps::default();
    let mut x = Source::Input(0);
    let n_addends = if function == Function::Add { 3 } else { 2 };
    for addend in inputs(call, &[1, 2]).into_iter().take(n_addends - 1) {
        x = add(&mut steps, &[x, addend]);
    }
    if function != Function::Add {
        steps.then(Op::Elementwise(function), &[x]);
    }
    Some(match steps.plan() {
        Ok(steps) if steps.is_empty() => one(Op::Identity, &[0]),
        plan => plan,
    })
}

fn halved(call: &Call) -> Result<TensorType, String> {
    let mut half = call.tensor_type(0)?.clone();
    let last = half.shape.0.last_mut().ok_or("a scalar is split")?;
    *last = last.floor_div(&Dim::from(2i64));
    Ok(half)
}

/// A bias is added to all, one half times the GELU of the other remains.
fn split_gelu(call: &Call) -> Plan {
    let half = halved(call)?;
    let (other, transcendental) = Function::GeluErf.operations_per_element();
    let elements = half.shape.elements();
    let split = Stated::new("bias_split_gelu", Kind::Activation, vec![half]);
    let other = &elements * &Dim::from(2 + other + 1);
    stated(call, Stated { other, transcendental: &elements * &Dim::from(transcendental), ..split })
}

fn swiglu(call: &Call) -> Plan {
    if call.has(1) {
        return one(Op::Elementwise(Function::SwiGlu), &[0, 1]);
    }
    let half = halved(call)?;
    let (other, transcendental) = Function::SwiGlu.operations_per_element();
    let elements = half.shape.elements();
    let other = &elements * &Dim::from(other);
    let transcendental = &elements * &Dim::from(transcendental);
    let gated = Stated::new("swiglu", Kind::Activation, vec![half]);
    stated(call, Stated { other, transcendental, ..gated })
}

/// `SimplifiedLayerNormalization` stands in the standard's domain, where the standard lacks it.
pub(super) fn simplified_norm(call: &Call) -> Option<Plan> {
    if call.operator() != "SimplifiedLayerNormalization" {
        return None;
    }
    let axes = call.rank(0).and_then(|rank| Ok(rank - call.axis("axis", -1, rank)?));
    Some(axes.and_then(|axes| {
        one(Op::Normalization(Normalization::Rms { axes }), &call.given_of_first(2))
    }))
}

fn normalization(call: &Call) -> Option<Plan> {
    let mut steps = Steps::default();
    match call.operator() {
        "SkipLayerNormalization" => {
            let mut sum = add(&mut steps, &inputs(call, &[0, 1]));
            if call.has(4) {
                sum = add(&mut steps, &[sum, Source::Input(4)]);
            }
            let op = Op::Normalization(Normalization::Layer { axes: 1 });
            steps.then(op, &[vec![sum], inputs(call, &[2, 3])].concat());
        }
        "SkipSimplifiedLayerNormalization" => {
            let mut sum = add(&mut steps, &inputs(call, &[0, 1]));
            if call.has(3) {
                sum = add(&mut steps, &[sum, Source::Input(3)]);
            }
            let op = Op::Normalization(Normalization::Rms { axes: 1 });
            steps.then(op, &[vec![sum], inputs(call, &[2])].concat());
        }
        "EmbedLayerNormalization" => {
            let ids = if call.has(8) { 8 } else { 0 };
            let words = steps.then(Op::Embedding, &inputs(call, &[2, 0]));
            let places = steps.then(Op::Embedding, &inputs(call, &[3, ids]));
            let mut sum = add(&mut steps, &[words, places]);
            if call.has(4) && call.has(1) {
                let segments = steps.then(Op::Embedding, &inputs(call, &[4, 1]));
                sum = add(&mut steps, &[sum, segments]);
            }
            let op = Op::Normalization(Normalization::Layer { axes: 1 });
            steps.then(op, &[vec![sum], inputs(call, &[5, 6])].concat());
        }
        "GroupNorm" | "SkipGroupNorm" => {
            let mut sum = Source::Input(0);
            if call.operator() == "SkipGroupNorm" {
                for addend in inputs(call, &[3, 4]) {
                    sum = add(&mut steps, &[sum, addend]);
                }
            }
            let groups = call.int("groups").unwrap_or(1);
            let op = Op::Normalization(Normalization::Group { groups });
            let made = steps.then(op, &[vec![sum], inputs(call, &[1, 2])].concat());
            if call.is_set("activation", false) {
                steps.then(Op::Elementwise(Function::Silu), &[made]);
            }
        }
        _ => return simplified_norm(call),
    }
    Some(steps.plan())
}

fn embedded(call: &Call) -> Result<TensorType, String> {
    call.ruled(&Op::Embedding, &[2, 0])
}

/// The nonlinearity that a fused node names.
fn fused_activation(call: &Call, steps: &mut Steps, x: Source) -> Result<(), String> {
    let function = match call.text("activation") {
        None | Some("" | "NONE") => return Ok(()),
        Some("Relu") => Function::Relu,
        Some("Sigmoid") => Function::Sigmoid,
        Some("Tanh") => Function::Tanh,
        Some("LeakyRelu") => Function::LeakyRelu,
        Some("Clip") => Function::Clamp,
        Some("HardSigmoid") => Function::HardSigmoid,
        Some("HardSwish") => Function::HardSwish,
        Some("Gelu") => Function::GeluErf,
        Some("Silu") => Function::Silu,
        Some(other) => return Err(format!("its activation `{other}` has no rule")),
    };
    steps.then(Op::Elementwise(function), &[x]);
    Ok(())
}

fn orientation(call: &Call, name: &str) -> Orientation {
    match call.is_set(name, false) {
        true => Orientation::Transposed,
        false => Orientation::Plain,
    }
}

fn gemm(call: &Call) -> Result<Op, String> {
    let (a, b) = (orientation(call, "transA"), orientation(call, "transB"));
    Ok(Op::MatMul(MatMul::new(a, b)))
}

fn product(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "FusedMatMul" | "TransposeMatMul" | "FusedMatMulActivation" => fused_matmul(call),
        "FusedGemm" => gemm(call).and_then(|op| {
            let mut steps = Steps::default();
            let made = steps.then(op, &inputs(call, &[0, 1, 2]));
            fused_activation(call, &mut steps, made)?;
            steps.plan()
        }),
        "GemmFastGelu" => {
            let mut steps = Steps::default();
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
            let made = steps.then(op, &inputs(call, &[0, 1, 2]));
            steps.then(Op::Elementwise(Function::GeluTanh), &[made]);
            steps.plan()
        }
        "GemmFloat8" => {
            let (a, b) = (orientation(call, "transA"), orientation(call, "transB"));
            let scales = inputs(call, &[3, 4, 5]).len();
            let slots: Vec<usize> = (0..6).filter(|slot| call.has(*slot)).collect();
            one(Op::MatMul(MatMul { a, b, scales }), &slots)
        }
        "FusedConv" | "Conv" | "NhwcConv" | "NhwcFusedConv" => fused_convolution(call),
        "NhwcMaxPool" => windows::sliding(call, PoolFunction::Max).and_then(|pool| {
            let mut steps = Steps::default();
            let op = pool.into_iter().next().map(|step| step.op).ok_or("it has no window")?;
            channels_last(call, &mut steps, Source::Input(0), &[], op)?;
            steps.plan()
        }),
        "MoE" | "QMoE" => experts(call),
        _ => return None,
    })
}

/// `transBatchA` moves the first axis of `A` before the last: `[m, batch.., k]`.
fn fused_matmul(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let mut operands = Vec::with_capacity(2);
    for (slot, name) in [(0, "transBatchA"), (1, "transBatchB")] {
        let rank = call.rank(slot)?;
        let mut operand = Source::Input(slot);
        if call.is_set(name, false) && 2 < rank {
            let mut permutation: Vec<usize> = (0..rank).collect();
            permutation[..rank - 1].rotate_left(1);
            let op = Op::Transpose { permutation, storage: Storage::View };
            operand = steps.then(op, &[operand]);
        }
        operands.push(operand);
    }
    let made = steps.then(gemm(call)?, &operands);
    fused_activation(call, &mut steps, made)?;
    steps.plan()
}

/// `X, W, [B], [Z]`: `Z` is added to the result before the activation.
fn fused_convolution(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let op = convolution(call, 1)?;
    let rest = inputs(call, &[1, 2]);
    let mut made = match call.operator().starts_with("Nhwc") {
        true => channels_last(call, &mut steps, Source::Input(0), &rest, op)?,
        false => steps.then(op, &[&[Source::Input(0)], rest.as_slice()].concat()),
    };
    if call.has(3) {
        made = add(&mut steps, &[made, Source::Input(3)]);
    }
    fused_activation(call, &mut steps, made)?;
    steps.plan()
}

/// Each token goes through `k` experts of as many as the weights hold; all their sizes follow from
/// the weights: `[experts, in, out]` or the other way round, packed where they are quantised.
fn experts(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let is_packed = call.operator() == "QMoE";
    let n_experts = call.shape(2)?.first().cloned().ok_or("weights without axes")?;
    let width = input.shape.0.last().cloned().ok_or("tokens without axes")?;
    let tokens = input.shape.elements().floor_div(&width);
    let k = Dim::from(call.int("k").unwrap_or(1).max(1));
    let slots: &[usize] = if is_packed { &[2, 5, 8] } else { &[2, 4, 6] };
    let mut weights = Dim::ZERO;
    for (slot, bits) in slots.iter().zip(["fc1", "fc2", "fc3"]).filter(|(s, _)| call.has(**s)) {
        let weight = call.tensor_type(*slot)?;
        let of_own = call.int(&format!("{bits}_expert_weight_bits"));
        let bits = of_own.or(call.int("expert_weight_bits")).unwrap_or(4);
        let per_element = match is_packed && weight.format.bits == 8 {
            true if matches!(bits, 1 | 2 | 4 | 8) => 8 / bits,
            true => return Err(format!("weights of {bits} bits")),
            false => 1,
        };
        weights = &weights + &(&weight.shape.elements() * &Dim::from(per_element));
    }
    let runs = &tokens * &k;
    let macs = &runs * &weights.floor_div(&n_experts);
    // The hidden width follows from the second layer, which brings it back to the token's.
    let second = call.tensor_type(slots[1])?;
    let hidden = second.shape.elements().floor_div(&(&n_experts * &width));
    let function = match call.text("activation_type") {
        Some("gelu") => Function::GeluErf,
        Some("silu") => Function::Silu,
        Some("swiglu") => Function::SwiGlu,
        _ => Function::Relu,
    };
    let (other, transcendental) = function.operations_per_element();
    let activations = &runs * &hidden;
    // A softmax over the experts, and a weighted sum over those taken.
    let routed = &tokens * &n_experts;
    let summed = &(&runs * &width) * &Dim::from(2i64);
    let other = &(&(&activations * &Dim::from(other)) + &(&routed * &Dim::from(3i64))) + &summed;
    let transcendental =
        &(&activations * &Dim::from(transcendental)) + &(&routed * &Dim::from(2i64));
    let experts = Stated::new("experts", Kind::MatMul, vec![input.clone()]);
    stated(call, Stated { macs, other, transcendental, ..experts })
}

/// Operators that move bytes.
fn movement(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "ReorderInput" => one(Op::Copy, &[0]),
        "ReorderOutput" => reorder(call),
        "ExpandDims" => expand_dims(call),
        "NGramRepeatBlock" => one(Op::Copy, &[1]),
        "TorchEmbedding" => one(Op::Embedding, &[0, 1]),
        "RemovePadding" => remove_padding(call),
        "RestorePadding" => restore_padding(call),
        "RelativePositionBias" => position_bias(call),
        _ => return None,
    })
}

/// From the blocked layout back; channels that only filled a block are left out.
fn reorder(call: &Call) -> Plan {
    let mut shape = call.shape(0)?.to_vec();
    if let Some(channels) = call.int("channels").filter(|channels| 0 < *channels)
        && let Some(axis) = shape.get_mut(1)
    {
        *axis = Dim::from(channels);
    }
    if call.is_set("channels_last", false) && 1 < shape.len() {
        shape[1..].rotate_left(1);
    }
    let result = call.like(0, shape)?;
    stated(call, Stated::new("reorder", Kind::Movement, vec![result]))
}

fn expand_dims(call: &Call) -> Plan {
    let mut shape = call.shape(0)?.to_vec();
    let [axis] = call.numbers(1)?[..] else { return Err("more than one axis".to_owned()) };
    let rank = shape.len() as i64 + 1;
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let axis = usize::try_from(axis).ok().filter(|axis| *axis <= shape.len());
    shape.insert(axis.ok_or("an axis that is not there")?, Dim::ONE);
    one(Op::Reshape { shape: Shape(shape) }, &[0])
}

/// Tokens of all sequences one behind the other; how many, the run decides.
fn remove_padding(call: &Call) -> Plan {
    let [batch, length, rest @ ..] = call.shape(0)? else {
        return Err("an input of fewer than two axes".to_owned());
    };
    let int32 = |lengths: Vec<Dim>| TensorType { shape: Shape(lengths), format: Format::INT32 };
    let tokens = call.open(0, 0, Some(batch * length));
    let packed = call.like(0, [&[tokens], rest].concat())?;
    let results = vec![
        packed,
        int32(vec![batch.clone(), length.clone()]),
        int32(vec![batch + &Dim::ONE]),
        int32(vec![Dim::ONE]),
    ];
    stated(call, Stated::new("remove_padding", Kind::Movement, results))
}

fn restore_padding(call: &Call) -> Plan {
    let ([_, width @ ..], [batch, length]) = (call.shape(0)?, call.shape(1)?) else {
        return Err("inputs of other axes".to_owned());
    };
    let padded = call.like(0, [&[batch.clone(), length.clone()], width].concat())?;
    stated(call, Stated::new("restore_padding", Kind::Movement, vec![padded]))
}

/// `[1, heads, queries, keys]`: looked up by distance.
fn position_bias(call: &Call) -> Plan {
    let heads = call.shape(0)?.last().cloned().ok_or("a table without axes")?;
    let bias = call.like(0, vec![Dim::ONE, heads, call.size(1)?, call.size(2)?])?;
    stated(call, Stated::new("position_bias", Kind::Movement, vec![bias]))
}

/// Operators of other kinds, each with its arithmetic.
fn other(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "RotaryEmbedding" => rotary(call),
        "GemmaRotaryEmbedding" => gemma_rotary(call),
        "Inverse" => inverse(call),
        "CDist" => distances(call),
        "CropAndResize" => crop(call),
        "Rfft" | "Irfft" => transform(call),
        "DynamicTimeWarping" => warping(call),
        "ComplexMul" | "ComplexMulConj" => complex_multiply(call),
        "IsAllFinite" => {
            let truth = TensorType { shape: Shape(vec![Dim::ONE]), format: Format::BOOL };
            stated(call, Stated::new("is_finite", Kind::Reduction, vec![truth]))
        }
        _ => return None,
    })
}

/// Each rotated pair takes four multiplies, a subtraction and an addition.
fn rotary(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let mut other = &input.shape.elements() * &Dim::from(3i64);
    let rotated = call.int("rotary_embedding_dim").filter(|rotated| 0 < *rotated);
    let n_heads = call.int("num_heads").filter(|n_heads| 0 < *n_heads);
    if let Some(rotated) = rotated {
        let size = match (input.shape.0.as_slice(), n_heads) {
            ([_, _, _, size], _) => size.clone(),
            ([.., width], Some(n_heads)) => width.floor_div(&Dim::from(n_heads)),
            _ => return Err("`num_heads` is missing".to_owned()),
        };
        let heads = input.shape.elements().floor_div(&size);
        other = &(&heads * &Dim::from(rotated)) * &Dim::from(3i64);
    }
    let rotary = Stated::rotary_embedding(vec![input.clone()]);
    stated(call, Stated { other, ..rotary })
}

/// `emb, q, q_rot, k, k_rot`: `q cos(emb) + q_rot sin(emb)`, and the same for keys.
fn gemma_rotary(call: &Call) -> Plan {
    let (query, key) = (call.tensor_type(1)?.clone(), call.tensor_type(3)?.clone());
    let elements = &query.shape.elements() + &key.shape.elements();
    let transcendental = &call.tensor_type(0)?.shape.elements() * &Dim::from(2i64);
    let rotary = Stated::rotary_embedding(vec![query, key]);
    let other = &elements * &Dim::from(3i64);
    stated(call, Stated { other, transcendental, ..rotary })
}

/// Gauss and Jordan: n^3 multiplies and as many subtractions for each matrix.
fn inverse(call: &Call) -> Plan {
    let matrix = call.tensor_type(0)?.clone();
    let n = matrix.shape.0.last().cloned().ok_or("a scalar is inverted")?;
    let other = &(&matrix.shape.elements() * &n) * &Dim::from(2i64);
    let transcendental = matrix.shape.elements().floor_div(&n);
    let inverse = Stated::new("inverse", Kind::MatMul, vec![matrix]);
    stated(call, Stated { other, transcendental, ..inverse })
}

/// Between the rows of two matrices: subtract, square, add for each element; a root at the end.
fn distances(call: &Call) -> Plan {
    let ([m, k], [n, _]) = (call.shape(0)?, call.shape(1)?) else {
        return Err("distances between what are no matrices".to_owned());
    };
    let result = call.like(0, vec![m.clone(), n.clone()])?;
    let pairs = m * n;
    let other = &(&pairs * k) * &Dim::from(3i64);
    let has_root = call.text("metric") != Some("sqeuclidean");
    let transcendental = if has_root { pairs } else { Dim::ZERO };
    let distances = Stated::new("distances", Kind::Reduction, vec![result]);
    stated(call, Stated { other, transcendental, ..distances })
}

/// Three interpolations for each element, of which each takes three operations.
fn crop(call: &Call) -> Plan {
    let ([_, channels, _, _], [regions, ..]) = (call.shape(0)?, call.shape(1)?) else {
        return Err("crops what is no image".to_owned());
    };
    let size = call.sizes(3)?;
    let [height, width] = size.as_slice() else { return Err("a size of other axes".to_owned()) };
    let shape = vec![regions.clone(), channels.clone(), height.clone(), width.clone()];
    let result = call.like(0, shape)?;
    let is_linear = call.text("mode") != Some("nearest");
    let other = &result.shape.elements() * &Dim::from(if is_linear { 9i64 } else { 0 });
    stated(call, Stated { other, ..Stated::new("crop", Kind::Pooling, vec![result]) })
}

/// Real to complex over the last axes, and back; complex numbers lie in an axis of 2.
fn transform(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let n_axes = call.int("signal_ndim").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let is_onesided = call.is_set("onesided", true);
    let mut shape = input.shape.0.clone();
    let two = Dim::from(2i64);
    let is_forward = call.operator() == "Rfft";
    if !is_forward {
        shape.pop().ok_or("a scalar is transformed")?;
        if let Some(last) = shape.last_mut().filter(|_| is_onesided) {
            *last = &(&*last - &Dim::ONE) * &two;
        }
    }
    let first = shape.len().checked_sub(n_axes).ok_or("more axes than there are")?;
    let length = Dim::product(&shape[first..]);
    let transforms = Dim::product(&shape[..first]);
    if is_forward {
        if let Some(last) = shape.last_mut().filter(|_| is_onesided) {
            *last = &last.floor_div(&two) + &Dim::ONE;
        }
        shape.push(two);
    }
    let (shape, format) = (Shape(shape), input.format);
    one(Op::Fourier { length, transforms, shape, format }, &[0])
}

/// Two compares and an addition for each cell; how long the path is, the run decides.
fn warping(call: &Call) -> Plan {
    let [.., rows, columns] = call.shape(0)? else {
        return Err("a path through what is no matrix".to_owned());
    };
    let length = call.open(0, 1, Some(&(rows + columns) - &Dim::ONE));
    let shape = Shape(vec![Dim::from(2i64), length]);
    let path = TensorType { shape, format: Format::INT32 };
    let other = &(rows * columns) * &Dim::from(3i64);
    stated(call, Stated { other, ..Stated::new("time_warping", Kind::Reduction, vec![path]) })
}

/// Four multiplies and two additions for each pair of numbers.
fn complex_multiply(call: &Call) -> Plan {
    let product = call.ruled(&Op::Elementwise(Function::Mul), &[0, 1])?;
    let other = &product.shape.elements() * &Dim::from(3i64);
    stated(call, Stated { other, ..Stated::new("complex_mul", Kind::Elementwise, vec![product]) })
}
