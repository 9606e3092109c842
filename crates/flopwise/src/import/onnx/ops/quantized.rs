//! Quantised operators, of the standard and of ONNX Runtime. A product of quantised matrices has
//! the MACs of its float twin; what brings sums back to the format of the result is a `Quantize`.
//!
//! Not here: what else ONNX Runtime adds (`contrib.rs`). The standard's:
//! <https://onnx.ai/onnx/operators/onnx__QLinearConv.html> and its neighbours.

use super::windows;
use crate::graph::{
    Convolution, Dim, Direction, Function, Keep, Kind, MatMul, Op, Orientation, PoolFunction,
    Reduce, Reduction, Shape, Stated, Storage, TensorType, axis_of,
};
use crate::import::onnx::call::{Call, Plan, Source, Step, one, stated};
use flopwise_formats::Format;

/// The steps of a plan, one after the other.
#[derive(Default)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    pub(super) fn then(&mut self, op: Op, operands: &[Source]) -> Source {
        self.0.push(Step { op, operands: operands.to_vec() });
        Source::Step(self.0.len() - 1)
    }

    pub(super) fn plan(self) -> Plan {
        Ok(self.0)
    }
}

pub(super) fn inputs(call: &Call, slots: &[usize]) -> Vec<Source> {
    slots.iter().filter(|slot| call.has(**slot)).map(|slot| Source::Input(*slot)).collect()
}

pub(super) fn plan(call: &Call) -> Option<Plan> {
    Some(match call.operator() {
        "QuantizeLinear" => one(Op::Quantize(quantized_format(call)), &call.given()),
        "DequantizeLinear" => {
            let format = dequantized_format(call);
            format.and_then(|format| one(Op::Dequantize(format), &call.given()))
        }
        "DynamicQuantizeLinear" => dynamic(call),
        "QLinearConv" => linear_convolution(call),
        "QLinearMatMul" => linear_product(call),
        "MatMulInteger" | "MatMulInteger16" => integer_product(call),
        "ConvInteger" => convolution(call, 1).and_then(|op| one(op, &[0, 1])),
        _ => return None,
    })
}

/// Second results, and formats that no input has.
pub(super) fn results(call: &Call) -> Result<Vec<Option<TensorType>>, String> {
    let scalar = |format| Some(TensorType { shape: Shape::default(), format });
    Ok(match call.operator() {
        "DynamicQuantizeLinear" => vec![None, scalar(Format::FP32), scalar(Format::UINT8)],
        "MatMulInteger" | "MatMulInteger16" => {
            let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
            let sums = call.ruled(&op, &[0, 1])?;
            vec![Some(TensorType { format: Format::INT32, ..sums })]
        }
        "ConvInteger" => {
            let sums = call.ruled(&convolution(call, 1)?, &[0, 1])?;
            vec![Some(TensorType { format: Format::INT32, ..sums })]
        }
        _ => Vec::new(),
    })
}

/// The attribute says, or the zero point, or it is UINT8.
fn quantized_format(call: &Call) -> Format {
    let of_zero_point = call.tensor_type(2).map(|zero_point| zero_point.format).ok();
    call.format("output_dtype").or(of_zero_point).unwrap_or(Format::UINT8)
}

fn dequantized_format(call: &Call) -> Result<Format, String> {
    match call.format("output_dtype") {
        Some(format) => Ok(format),
        None => call.tensor_type(1).map(|scale| scale.format),
    }
}

/// Finds the smallest and largest element, then quantises: 2 compares more for each than
/// `Quantize`.
pub(super) fn dynamic_quantize(input: &TensorType, results: Vec<TensorType>) -> Op {
    let elements = input.shape.elements();
    let other = &elements * &Dim::from(6i64);
    let quantize = Stated::new("quantize_dynamic", Kind::Elementwise, results);
    Op::Stated(Box::new(Stated { other, transcendental: elements, ..quantize }))
}

fn dynamic(call: &Call) -> Plan {
    let input = call.tensor_type(0)?;
    let scalar = |format| TensorType { shape: Shape::default(), format };
    let whole = TensorType { shape: input.shape.clone(), format: Format::UINT8 };
    let results = vec![whole, scalar(Format::FP32), scalar(Format::UINT8)];
    one(dynamic_quantize(input, results), &[0])
}

/// The convolution that the attributes of a node describe, with its weight at this input.
pub(super) fn convolution(call: &Call, weight: usize) -> Result<Op, String> {
    let n_spatial = call.rank(weight)?.saturating_sub(2);
    Ok(Op::Convolution(Convolution {
        direction: Direction::Forward,
        stride: windows::per_axis(call, "strides", n_spatial, 1)?,
        padding: windows::padding(call, n_spatial)?,
        dilation: windows::per_axis(call, "dilations", n_spatial, 1)?,
        groups: call.int("group").unwrap_or(1),
    }))
}

/// Channels last -> channels second, or back; only the strides change.
fn channels(rank: usize, is_back: bool) -> Op {
    let mut permutation: Vec<usize> = (0..rank).collect();
    match is_back {
        true => permutation[1..].rotate_left(1),
        false => permutation[1..].rotate_right(1),
    }
    Op::Transpose { permutation, storage: Storage::View }
}

/// A convolution, pooling or the like over an input whose channels may come last.
pub(super) fn channels_last(
    call: &Call,
    steps: &mut Steps,
    input: Source,
    rest: &[Source],
    op: Op,
) -> Result<Source, String> {
    let rank = call.rank(0)?;
    if rank < 3 {
        return Err(format!("channels come last in a tensor of {rank} axes"));
    }
    let input = steps.then(channels(rank, false), &[input]);
    let made = steps.then(op, &[&[input], rest].concat());
    Ok(steps.then(channels(rank, true), &[made]))
}

fn linear_convolution(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let op = convolution(call, 3)?;
    let rest = inputs(call, &[3, 8]);
    let sums = match call.is_set("channels_last", false) {
        true => channels_last(call, &mut steps, Source::Input(0), &rest, op)?,
        false => steps.then(op, &[&[Source::Input(0)], rest.as_slice()].concat()),
    };
    requantize(call, &mut steps, sums, [6, 7], &[1, 2, 4, 5])?;
    steps.plan()
}

/// Scales and zero points of the operands are read where the sums are brought back.
fn requantize(
    call: &Call,
    steps: &mut Steps,
    sums: Source,
    [scale, zero_point]: [usize; 2],
    others: &[usize],
) -> Result<Source, String> {
    let format = match call.tensor_type(zero_point) {
        Ok(zero_point) => zero_point.format,
        Err(_) if call.has(zero_point) => return Err("its result's format is unknown".to_owned()),
        Err(_) => call.tensor_type(0)?.format,
    };
    let parameters = [&[scale, zero_point], others].concat();
    let operands = [vec![sums], inputs(call, &parameters)].concat();
    Ok(steps.then(Op::Quantize(format), &operands))
}

fn linear_product(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let op = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
    let sums = steps.then(op, &[Source::Input(0), Source::Input(3)]);
    requantize(call, &mut steps, sums, [6, 7], &[1, 2, 4, 5])?;
    steps.plan()
}

fn integer_product(call: &Call) -> Plan {
    let scales = inputs(call, &[2, 3]).len();
    let (a, b) = (Orientation::Plain, Orientation::Plain);
    one(Op::MatMul(MatMul { a, b, scales }), &call.given_of_first(4))
}

/// `com.microsoft`: over values that are brought to floats, worked on and brought back. Each
/// operand is three inputs: values, scale, zero point.
pub(super) fn fused(call: &Call) -> Option<Plan> {
    let function = match call.operator() {
        "QLinearAdd" => Function::Add,
        "QLinearMul" => Function::Mul,
        "QLinearSigmoid" => Function::Sigmoid,
        "QLinearLeakyRelu" => Function::LeakyRelu,
        "QLinearWhere" => return Some(linear_where(call)),
        "QLinearConcat" => return Some(linear_concat(call)),
        "QLinearSoftmax" => return Some(linear_softmax(call)),
        "QLinearGlobalAveragePool" | "QLinearAveragePool" | "QLinearReduceMean" => {
            return Some(linear_mean(call));
        }
        "QGemm" => return Some(gemm(call)),
        "MatMulIntegerToFloat" => return Some(to_float(call, &[0, 1], &[6], &[2, 3, 4, 5])),
        "DynamicQuantizeMatMul" => return Some(dynamic_product(call)),
        "MatMulNBits" => return Some(packed_product(call)),
        "MatMulBnb4" => return Some(code_book_product(call)),
        "GatherBlockQuantized" => return Some(gather_blocks(call)),
        _ => return None,
    };
    let n_operands = if matches!(function, Function::Add | Function::Mul) { 2 } else { 1 };
    let mut steps = Steps::default();
    let plan = (0..n_operands)
        .map(|operand| dequantized(call, &mut steps, 3 * operand))
        .collect::<Result<Vec<Source>, String>>()
        .and_then(|operands| {
            let made = steps.then(Op::Elementwise(function), &operands);
            let at = 3 * n_operands;
            requantize(call, &mut steps, made, [at, at + 1], &[])
        });
    Some(plan.and_then(|_| steps.plan()))
}

fn dequantized(call: &Call, steps: &mut Steps, first: usize) -> Result<Source, String> {
    let format = call.tensor_type(first + 1)?.format;
    Ok(steps.then(Op::Dequantize(format), &inputs(call, &[first, first + 1, first + 2])))
}

fn linear_where(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let (x, y) = (dequantized(call, &mut steps, 1)?, dequantized(call, &mut steps, 4)?);
    let made = steps.then(Op::Elementwise(Function::Select), &[Source::Input(0), x, y]);
    let format = call.tensor_type(1)?.format;
    steps.then(Op::Quantize(format), &[vec![made], inputs(call, &[7, 8])].concat());
    steps.plan()
}

/// Scale and zero point of the result come first.
fn linear_concat(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let mut parts = Vec::new();
    for first in (2..call.operands.len()).step_by(3) {
        parts.push(dequantized(call, &mut steps, first)?);
    }
    let axis = call.axis("axis", 0, call.rank(2)?)?;
    let joined = steps.then(Op::Concat { axis }, &parts);
    let format = call.tensor_type(1)?.format;
    steps.then(Op::Quantize(format), &[vec![joined], inputs(call, &[0, 1])].concat());
    steps.plan()
}

fn linear_softmax(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let x = dequantized(call, &mut steps, 0)?;
    let axis = call.axis("axis", -1, call.rank(0)?)?;
    let made = steps.then(Op::Softmax { axis }, &[x]);
    requantize(call, &mut steps, made, [3, 4], &[])?;
    steps.plan()
}

fn linear_mean(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let x = dequantized(call, &mut steps, 0)?;
    let rank = call.rank(0)?;
    let is_last = call.is_set("channels_last", false);
    let mean = |axes, keep| Op::Reduce(Reduce { function: Reduction::Mean, axes, keep });
    let made = match call.operator() {
        "QLinearReduceMean" => {
            let keep = if call.is_set("keepdims", true) { Keep::Axes } else { Keep::Nothing };
            let axes = call.ints("axes").unwrap_or_default();
            let axes = axes.iter().map(|axis| axis_of(*axis, rank).map_err(|e| e.to_string()));
            let mut axes: Vec<usize> = axes.collect::<Result<_, _>>()?;
            if axes.is_empty() {
                axes = (0..rank).collect();
            }
            steps.then(mean(axes, keep), &[x])
        }
        "QLinearGlobalAveragePool" => {
            let axes = if is_last { 1..rank.saturating_sub(1) } else { 2..rank };
            steps.then(mean(axes.collect(), Keep::Axes), &[x])
        }
        _ => {
            let pool = windows::sliding(call, PoolFunction::Average)?;
            let op = pool.into_iter().next().map(|step| step.op).ok_or("it has no window")?;
            match is_last {
                true => channels_last(call, &mut steps, x, &[], op)?,
                false => steps.then(op, &[x]),
            }
        }
    };
    requantize(call, &mut steps, made, [3, 4], &[])?;
    steps.plan()
}

fn orientation(call: &Call, name: &str) -> Orientation {
    match call.is_set(name, false) {
        true => Orientation::Transposed,
        false => Orientation::Plain,
    }
}

/// `A, scale, zero point, B, scale, zero point, [C], [scale, zero point]`; floats come out where
/// the last two are left out.
fn gemm(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let (a, b) = (orientation(call, "transA"), orientation(call, "transB"));
    let scales = inputs(call, &[1, 2, 4, 5]);
    let op = Op::MatMul(MatMul { a, b, scales: scales.len() });
    let operands = [inputs(call, &[0, 3, 6]), scales].concat();
    let sums = steps.then(op, &operands);
    match call.has(7) {
        true => requantize(call, &mut steps, sums, [7, 8], &[])?,
        false => steps.then(Op::Cast(call.tensor_type(1)?.format), &[sums]),
    };
    steps.plan()
}

/// Integer matrices whose product comes out in floats.
fn to_float(call: &Call, factors: &[usize], addend: &[usize], scales: &[usize]) -> Plan {
    let mut steps = Steps::default();
    let scales = inputs(call, scales);
    let (a, b) = (Orientation::Plain, Orientation::Plain);
    let op = Op::MatMul(MatMul { a, b, scales: scales.len() });
    let sums = steps.then(op, &[inputs(call, factors), inputs(call, addend), scales].concat());
    steps.then(Op::Cast(call.tensor_type(2)?.format), &[sums]);
    steps.plan()
}

/// `A` in floats is quantised first: `A, B, B's scale, [zero point], [bias]`.
fn dynamic_product(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let input = call.tensor_type(0)?;
    let whole = TensorType { shape: input.shape.clone(), format: Format::UINT8 };
    let a = steps.then(dynamic_quantize(input, vec![whole]), &[Source::Input(0)]);
    let scales = inputs(call, &[2, 3]);
    let (plain, n_scales) = (Orientation::Plain, scales.len());
    let op = Op::MatMul(MatMul { a: plain, b: plain, scales: n_scales });
    let sums = steps.then(op, &[vec![a], inputs(call, &[1, 4]), scales].concat());
    steps.then(Op::Cast(input.format), &[sums]);
    steps.plan()
}

/// The format of a weight of so many bits, as a code that scales give a value to.
pub(super) fn packed_format(bits: i64) -> Result<Format, String> {
    match bits {
        2 => Ok(Format::UINT2),
        4 => Ok(Format::UINT4),
        8 => Ok(Format::UINT8),
        _ => Err(format!("weights of {bits} bits")),
    }
}

fn size(call: &Call, name: &str) -> Result<Dim, String> {
    let size = call.int(name).filter(|size| 0 < *size);
    size.map(Dim::from).ok_or_else(|| format!("`{name}` is missing"))
}

/// `A, B, scales, [zero points], [group index], [bias]`; `B` is `[N, K]` in blocks of so many bits.
/// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
fn packed_product(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let shape = Shape(vec![size(call, "N")?, size(call, "K")?]);
    let format = packed_format(call.int("bits").unwrap_or(4))?;
    let weight = steps.then(Op::Bitcast { shape, format }, &[Source::Input(1)]);
    let scales = inputs(call, &[2, 3, 4]);
    let (a, b) = (Orientation::Plain, Orientation::Transposed);
    let op = Op::MatMul(MatMul { a, b, scales: scales.len() });
    steps.then(op, &[vec![Source::Input(0), weight], inputs(call, &[5]), scales].concat());
    steps.plan()
}

/// `A, B, largest of each block`: FP4 or NF4 codes.
fn code_book_product(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let (n, k) = (size(call, "N")?, size(call, "K")?);
    let (shape, b) = match call.is_set("transB", true) {
        true => (Shape(vec![n, k]), Orientation::Transposed),
        false => (Shape(vec![k, n]), Orientation::Plain),
    };
    let format = packed_format(4)?;
    let weight = steps.then(Op::Bitcast { shape, format }, &[Source::Input(1)]);
    let op = Op::MatMul(MatMul { a: Orientation::Plain, b, scales: 1 });
    steps.then(op, &[Source::Input(0), weight, Source::Input(2)]);
    steps.plan()
}

/// `data, indices, scales, [zero points]`: rows are looked up, then dequantised.
fn gather_blocks(call: &Call) -> Plan {
    let mut steps = Steps::default();
    let data = call.tensor_type(0)?;
    let axis = call.axis("gather_axis", 0, data.shape.rank())?;
    let mut table = Source::Input(0);
    let bits = call.int("bits").unwrap_or(4);
    if data.format == Format::UINT8 && bits != 8 {
        let format = packed_format(bits)?;
        let mut shape = data.shape.clone();
        let last = shape.0.last_mut().ok_or("a table without axes")?;
        *last = &*last * &Dim::from(8 / bits);
        table = steps.then(Op::Bitcast { shape, format }, &[table]);
    }
    let rows = steps.then(Op::Gather { axis }, &[table, Source::Input(1)]);
    let format = call.tensor_type(2)?.format;
    steps.then(Op::Dequantize(format), &[vec![rows], inputs(call, &[2, 3])].concat());
    steps.plan()
}

/// Multiplies integers, elementwise; sums need 32 bits.
pub(super) fn integer_multiply(call: &Call) -> Plan {
    let product = call.ruled(&Op::Elementwise(Function::Mul), &[0, 2])?;
    let other = product.shape.elements();
    let result = TensorType { format: Format::INT32, ..product };
    stated(call, Stated { other, ..Stated::new("mul", Kind::Elementwise, vec![result]) })
}
