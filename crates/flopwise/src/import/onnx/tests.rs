//! Small models built in memory: propagation of known values, shape rules of ONNX, broken files.
//!
//! Not here: real files (`tests/it/onnx.rs`).

use super::wire::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use crate::error::Error;
use crate::graph::{Bindings, Graph, Op, Role};
use bytes::Bytes;
use prost::Message;
use std::path::Path;

const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT64: i32 = 7;
const BOOL: i32 = 9;

/// A value's name and type: `x:f[batch,3]`; a question mark is a size without a name.
pub(super) fn value_info(text: &str) -> ValueInfoProto {
    let (name, rest) = text.split_once(':').expect("name:type");
    let (format, dims) = rest.split_once('[').expect("a shape");
    let dims = dims.trim_end_matches(']').split(',').filter(|dim| !dim.is_empty());
    let dim = |dim: &str| match (dim, dim.parse()) {
        ("?", _) => DimensionProto::default(),
        (_, Ok(number)) => DimensionProto { dim_value: Some(number), dim_param: None },
        (name, Err(_)) => DimensionProto { dim_value: None, dim_param: Some(name.to_owned()) },
    };
    let shape = Some(TensorShapeProto { dim: dims.map(dim).collect() });
    let elem_type = data_type(format);
    let tensor_type = Some(TensorTypeProto { elem_type, shape });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { tensor_type, ..TypeProto::default() }),
    }
}

fn data_type(letter: &str) -> i32 {
    match letter {
        "i" => INT64,
        "b" => BOOL,
        "u" => UINT8,
        _ => FLOAT,
    }
}

/// A stored tensor: `w:i=1,-1` a list, `w:i=7.` a scalar, `w:f[64,3]` of zeros.
fn stored(text: &str) -> TensorProto {
    let (name, rest) = text.split_once(':').expect("name:type");
    let mut tensor = TensorProto { name: name.to_owned(), ..TensorProto::default() };
    if let Some((format, list)) = rest.split_once('=') {
        let (list, is_scalar) = (list.trim_end_matches('.'), list.ends_with('.'));
        let numbers: Vec<&str> = list.split(',').filter(|number| !number.is_empty()).collect();
        tensor.data_type = data_type(format);
        tensor.dims = if is_scalar { Vec::new() } else { vec![numbers.len() as i64] };
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| element(format, number)).collect();
        tensor.raw_data = Some(Bytes::from(bytes));
    } else {
        let (format, dims) = rest.split_once('[').expect("a shape");
        tensor.data_type = data_type(format);
        let dims = dims.trim_end_matches(']').split(',').filter(|dim| !dim.is_empty());
        tensor.dims = dims.map(|dim| dim.parse().expect("a number")).collect();
    }
    tensor
}

fn element(format: &str, number: &str) -> Vec<u8> {
    match format {
        "i" => number.parse::<i64>().expect("an integer").to_le_bytes().to_vec(),
        "b" => vec![number.parse().expect("0 or 1")],
        _ => number.parse::<f32>().expect("a float").to_le_bytes().to_vec(),
    }
}

/// A node: `y = Reshape(x, s) allowzero=1`; numbers with a comma are a list, quotes a text.
pub(super) fn node(text: &str) -> NodeProto {
    let (outputs, rest) = text.split_once(" = ").expect("outputs = operator");
    let (op_type, rest) = rest.split_once('(').expect("operator(");
    let (inputs, attributes) = rest.split_once(')').expect(")");
    let names = |list: &str| match list {
        "" => Vec::new(),
        list => list.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    NodeProto {
        input: names(inputs),
        output: names(outputs),
        op_type: op_type.to_owned(),
        attribute: attributes.split_whitespace().map(attribute).collect(),
        ..NodeProto::default()
    }
}

fn attribute(text: &str) -> AttributeProto {
    let (name, value) = text.split_once('=').expect("name=value");
    let mut attribute = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let list = value.trim_end_matches(',').split(',');
    let numbers: Option<Vec<i64>> = list.map(|number| number.parse().ok()).collect();
    match (numbers, value.strip_prefix('\'')) {
        (_, Some(text)) => attribute.s = Some(text.trim_end_matches('\'').to_owned().into()),
        (Some(numbers), None) if numbers.len() == 1 && !value.ends_with(',') => {
            attribute.i = Some(numbers[0]);
        }
        (Some(numbers), None) => attribute.ints = numbers,
        (None, None) => attribute.f = value.parse().ok(),
    }
    attribute
}

/// A graph from lines: `in x:f[2,3]`, `w s:i=1,2`, `out y`, `vi t:f[2]`, or a node.
pub(super) fn graph(lines: &str) -> GraphProto {
    let mut graph = GraphProto::default();
    for line in lines.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(' ').expect("a kind and a text") {
            ("in", text) => graph.input.push(value_info(text)),
            ("w", text) => graph.initializer.push(stored(text)),
            ("vi", text) => graph.value_info.push(value_info(text)),
            ("out", name) => {
                graph.output.push(ValueInfoProto { name: name.to_owned(), r#type: None });
            }
            _ => graph.node.push(node(line)),
        }
    }
    graph
}

pub(super) fn model(opset: i64, graph: GraphProto) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, functions: Vec::new() }
}

pub(super) fn import_graph(opset: i64, graph: GraphProto) -> Result<Graph, Error> {
    let file = Bytes::from(model(opset, graph).encode_to_vec());
    super::import("test", file, Path::new("models"))
}

fn import(lines: &str) -> Result<Graph, Error> {
    import_graph(18, graph(lines))
}

/// The type of the first output, or the error, or why its node is opaque.
pub(super) fn outcome(result: Result<Graph, Error>) -> String {
    let graph = match result {
        Ok(graph) => graph,
        Err(error) => return error.to_string(),
    };
    let opaque = graph.nodes.iter().find_map(|node| {
        let Op::Opaque { reason, .. } = &node.op else { return None };
        Some(reason.clone())
    });
    let tensor_type = graph.tensor(graph.outputs[0]).tensor_type.as_ref();
    let shape = tensor_type.map_or_else(|| "?".to_owned(), |found| found.shape.to_string());
    opaque.map_or(shape.clone(), |reason| format!("opaque: {reason}"))
}

#[track_caller]
fn check(lines: &str, expected: &str) {
    assert_eq!(outcome(import(lines)), expected, "{lines}");
}

#[track_caller]
pub(super) fn check_opset(opset: i64, lines: &str, expected: &str) {
    assert_eq!(outcome(import_graph(opset, graph(lines))), expected, "{lines}");
}

/// What `value` evaluates to, seen as the shape of a tensor filled to it.
#[track_caller]
fn check_value(lines: &str, expected: &str) {
    check(&format!("in x:f[batch,3,h,8]; {lines}; y = ConstantOfShape(v); out y"), expected);
}

#[test]
fn shape_arithmetic_is_evaluated() {
    check_value("v = Shape(x)", "[batch, 3, h, 8]");
    check_value("v = Shape(x) start=1 end=-1", "[3, h]");
    check_value("w i:i=0,2; s = Shape(x); v = Gather(s,i)", "[batch, h]");
    check_value("w i:i=-1.; s = Shape(x); g = Gather(s,i); v = Unsqueeze(g,i)", "[8]");
    check_value("w a:i=1; w b:i=3; s = Shape(x); v = Slice(s,a,b)", "[3, h]");
    check_value(
        "w a:i=-1; w b:i=-9; w z:i=0; s = Shape(x); v = Slice(s,a,b,z,a)",
        "[8, h, 3, batch]",
    );
    check_value(
        "w a:i=5,-1; s = Shape(x); c = Concat(s,a) axis=0; w k:i=4; w e:i=5; v = Slice(c,e,e)",
        "[]",
    );
    check_value("s = Shape(x); a,b = Split(s); v = Add(a,b)", "[batch + h, 11]");
    check_value("w t:i=2.; s = Shape(x); v = Mul(s,t)", "[2*batch, 6, 2*h, 16]");
    check_value(
        "w t:i=2.; s = Shape(x); v = Div(s,t)",
        "[floordiv(batch, 2), 1, floordiv(h, 2), 4]",
    );
    check_value(
        "w t:i=7.; w i:i=1,3; s = Shape(x); g = Gather(s,i); m = Mod(g,t); v = Sub(t,m)",
        "[4, 6]",
    );
    check_value("w t:i=3.; s = Shape(x); v = Min(s,t)", "[min(batch, 3), 3, min(h, 3), 3]");
    check_value("w t:i=-1.; s = Shape(x); e = Equal(s,t); v = Where(e,t,s)", "[batch, 3, h, 8]");
    check_value(
        "w o:i=1.; s = Shape(x); g = Greater(s,o); n = Not(g); f = Or(g,n); v = Where(f,o,s)",
        "[y.dim0, y.dim1, y.dim2, y.dim3]",
    );
    check_value("w z:i=0.; s = Shape(x); g = Less(s,z); v = Where(g,z,s)", "[batch, 3, h, 8]");
    check_value("s = Shape(x); v = ReduceProd(s) keepdims=1", "[24*batch*h]");
    check_value("w i:i=1,3; s = Shape(x); g = Gather(s,i); v = CumSum(g,z); w z:i=0.", "[3, 11]");
    check_value("w a:i=2.; w b:i=9.; w d:i=3.; v = Range(a,b,d)", "[2, 5, 8]");
    check_value("w s:i=2; w n:i=3.; c = Expand(n,s); w r:i=2; v = Tile(c,r)", "[3, 3, 3, 3]");
    check_value("w b:b=0,1,1; n = NonZero(b); w f:i=-1; v = Reshape(n,f)", "[1, 2]");
    check_value("s = Shape(x); w i:i=0; w u:i=7; v = ScatterElements(s,i,u)", "[7, 3, h, 8]");
    check_value(
        "s = Shape(x); w i:i=3; w ax:i=1; t = Unsqueeze(i,ax); w u:i=5; v = ScatterND(s,t,u)",
        "[batch, 3, h, 5]",
    );
    check_value(
        "w f:f=2.5.; s = Shape(x); w i:i=3; g = Gather(s,i); c = Cast(g) to=1; m = Mul(c,f); d = Floor(m); v = Cast(d) to=7",
        "[20]",
    );
    check_value(
        "s = Shape(x); c = Cast(s) to=1; w t:f=4.; m = Mul(c,t); v = Cast(m) to=7",
        "[4*batch, 12, 4*h, 32]",
    );
    check_value("n = Size(x); w a:i=0; v = Unsqueeze(n,a)", "[24*batch*h]");
    check_value("s = Shape(x); w e:i=2.; v = Pow(s,e)", "[batch^2, 9, h^2, 64]");
}

#[test]
fn reshape_copies_and_infers_lengths() {
    let reshape = |x: &str, shape: &str, attribute: &str, expected: &str| {
        check(&format!("in x:f{x}; w s:i={shape}; y = Reshape(x,s){attribute}; out y"), expected);
    };
    reshape("[2,3,4]", "0,-1", "", "[2, 12]");
    reshape("[batch,3,4]", "0,-1", "", "[batch, 12]");
    reshape("[batch,3,4]", "-1,6", "", "[2*batch, 6]");
    reshape("[batch,seq,768]", "-1,768", "", "[batch*seq, 768]");
    reshape("[batch,seq,768]", "0,0,12,64", "", "[batch, seq, 12, 64]");
    check("w e:f[2,0]; w s:i=0,3; y = Reshape(e,s) allowzero=1; out y", "[0, 3]");
    check("w e:f[2,0]; w s:i=0,-1,3; y = Reshape(e,s) allowzero=1; out y", "[0, 0, 3]");
    reshape("[2,3]", "-1,-1", "", "opaque: leaves more than one axis open");
    reshape("[2,3]", "2,3,0", "", "opaque: copies axis 2, which is not there");
    reshape(
        "[2,3]",
        "7",
        "",
        "opaque: element counts before and after a reshape must agree, got 6 and 7",
    );
    // The target depends on data, but the file declares the result.
    check("in x:f[2,6]; in s:i[2]; y = Reshape(x,s); out y; vi y:f[3,4]", "[3, 4]");
}

#[test]
fn slices_are_cut_to_the_axis() {
    let slice = |x: &str, bounds: &str, expected: &str| {
        let [start, end, axis, step]: [&str; 4] =
            bounds.split(' ').collect::<Vec<_>>().try_into().expect("four numbers");
        let stored = format!("w s:i={start}; w e:i={end}; w a:i={axis}; w t:i={step}");
        check(&format!("in x:f{x}; {stored}; y = Slice(x,s,e,a,t); out y"), expected);
    };
    slice("[10,4]", "2 100 0 1", "[8, 4]");
    slice("[10,4]", "0 9223372036854775807 0 3", "[4, 4]");
    slice("[10,4]", "-3 2147483647 0 1", "[3, 4]");
    slice("[10,4]", "-1 -9223372036854775807 0 -1", "[10, 4]");
    slice("[10,4]", "8 2 0 -2", "[3, 4]");
    slice("[10,4]", "5 2 0 1", "[0, 4]");
    slice("[batch,4]", "0 1 0 1", "[1, 4]");
    slice("[batch,4]", "-1 2147483647 0 1", "[1, 4]");
    slice("[batch,4]", "0 5 0 1", "[min(batch, 5), 4]");
    check_opset(9, "in x:f[10,4]; y = Slice(x) starts=1,0 ends=-1,2; out y", "[8, 2]");
}

#[test]
fn operators_follow_their_version() {
    check_opset(11, "in x:f[2,1,3]; y = Squeeze(x) axes=1,; out y", "[2, 3]");
    check_opset(13, "in x:f[2,1,3]; w a:i=1; y = Squeeze(x,a); out y", "[2, 3]");
    check_opset(11, "in x:f[2,3]; y = Unsqueeze(x) axes=0,-1; out y", "[1, 2, 3, 1]");
    check_opset(11, "in x:f[7,2]; y,z = Split(x) split=4,3; out y", "[4, 2]");
    check_opset(18, "in x:f[7,2]; y,z = Split(x) num_outputs=2; out z", "[3, 2]");
    check_opset(13, "in x:f[2,3]; y = ReduceMean(x) axes=1, keepdims=0; out y", "[2]");
    check_opset(18, "in x:f[2,3]; w a:i=1; y = ReduceMean(x,a); out y", "[2, 1]");
    check_opset(18, "in x:f[2,3]; y = ReduceSum(x) noop_with_empty_axes=1; out y", "[2, 3]");
    check_opset(6, "in x:f[2,3]; y = Clip(x) min=0.0 max=6.0; out y", "[2, 3]");
    check_opset(10, "in x:f[2,3]; y = Pad(x) pads=0,1,0,2; out y", "[2, 6]");
    check_opset(18, "in x:f[2,3]; w p:i=1,2; w a:i=1; y = Pad(x,p,,a); out y", "[2, 6]");
    check_opset(1, "in x:f[9,3]; y = TopK(x) k=4 axis=0; out y", "[4, 3]");
    check_opset(11, "in x:f[9,3]; w k:i=2; y,i = TopK(x,k); out i", "[9, 2]");
    check_opset(9, "in x:f[1,1,5,5]; w s:f=1,1,2,2; y = Upsample(x,s); out y", "[1, 1, 10, 10]");
    check_opset(
        13,
        "in x:f[1,1,h,5]; w s:f=1,1,0.5,2; y = Resize(x,,s); out y",
        "[1, 1, floordiv(h, 2), 10]",
    );
    check_opset(13, "in x:f[1,1,5,5]; w s:i=1,1,7,8; y = Resize(x,,,s); out y", "[1, 1, 7, 8]");
}

#[test]
fn resizes_may_keep_the_ratio() {
    let resize = "in x:f[1,1,2,4]; w s:i=7,8; y = Resize(x,,,s) axes=2,3";
    check(&format!("{resize}; out y"), "[1, 1, 7, 8]");
    let keep = format!("{resize} keep_aspect_ratio_policy=");
    check(&format!("{keep}'not_larger'; out y"), "[1, 1, 4, 8]");
    check(&format!("{keep}'not_smaller'; out y"), "[1, 1, 7, 14]");
}

#[test]
fn layers_have_their_shapes() {
    let conv = "in x:f[batch,3,224,224]; w k:f[64,3,7,7]; y = Conv(x,k) strides=2,2; out y";
    check(conv, "[batch, 64, 109, 109]");
    check(&conv.replace("=2,2", "=2,2 auto_pad='SAME_UPPER'"), "[batch, 64, 112, 112]");
    let transposed = "in x:f[1,4,5,5]; w k:f[4,2,3,3]; y = ConvTranspose(x,k) strides=2,2";
    check(&format!("{transposed}; out y"), "[1, 2, 11, 11]");
    check(&format!("{transposed} output_shape=10,12; out y"), "[1, 2, 10, 12]");
    check(&format!("{transposed} output_padding=1,1 group=2; out y"), "[1, 4, 12, 12]");
    check(
        "in x:f[1,8,7,7]; y = MaxPool(x) kernel_shape=3,3 strides=2,2 ceil_mode=1; out y",
        "[1, 8, 3, 3]",
    );
    check("in x:f[1,8,7,7]; y = GlobalAveragePool(x); out y", "[1, 8, 1, 1]");
    check(
        "in a:f[3,batch]; w b:f[5,3]; w c:f[5]; y = Gemm(a,b,c) transA=1 transB=1; out y",
        "[batch, 5]",
    );
    check(
        "in a:f[b,s,4]; in c:f[b,4,t]; y = Einsum(a,c) equation='bsd,bdt->bst'; out y",
        "[b, s, t]",
    );
    check(
        "in a:f[7,b,s,4]; in c:f[b,4,t]; y = Einsum(a,c) equation='...sd,...dt'; out y",
        "[7, b, s, t]",
    );
    check("in a:f[2,4]; y = Einsum(a) equation='ij->ji'; out y", "[4, 2]");
    check("in x:f[1,8,2,3]; y = DepthToSpace(x) blocksize=2; out y", "[1, 2, 4, 6]");
    check("in x:f[2,3,4]; y = Flatten(x) axis=3; out y", "[24, 1]");
    check_opset(
        23,
        "in q:f[b,s,64]; in k:f[b,t,32]; y = Attention(q,k,k) q_num_heads=4 kv_num_heads=2; out y",
        "[b, s, 64]",
    );
    check_opset(
        23,
        "in x:f[b,4,s,64]; in c:f[b,s,32]; y = RotaryEmbedding(x,c,c); out y",
        "[b, 4, s, 64]",
    );
    check("in x:f[2,2]; y = Frobnicate(x); out y", "opaque: no rule for ai.onnx::Frobnicate");
}

#[test]
fn sizes_without_a_name_are_named_by_their_place() {
    let graph =
        import("in ids:i[?,?]; in x:f[?,3,?]; y = Identity(x); z = Identity(ids); out y; out z");
    let graph = graph.expect("a graph");
    let names: Vec<&str> = graph.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    assert_eq!(names, ["batch", "seq", "x.dim2"]);
    let graph = import("in x:i[n,4*m]; y = Identity(x); out y").expect("a graph");
    let found: Vec<_> =
        graph.symbols.iter().map(|s| (s.name.as_str(), s.aliases.clone())).collect();
    assert_eq!(found, [("n", vec!["batch".to_owned()]), ("m", vec![])]);
    assert_eq!(graph.symbols[1].place, "dim 1 of input x, which is 4*m");
}

#[test]
fn names_made_up_by_exporters_do_not_leak() {
    let text = "in x:f[batch,4]; w k:f[4,2]; y = MatMul(x,k); vi y:f[Gemmy_dim_0,2]; out y";
    let graph = import(text).expect("a graph");
    assert_eq!(graph.symbols.len(), 1);
    check(text, "[batch, 2]");
    // A wrong declaration is named; the operator's shape is taken.
    let graph = import(&text.replace("Gemmy_dim_0,2", "batch,3")).expect("a graph");
    assert!(graph.notes[0].text.contains("contradict"), "{:?}", graph.notes);
}

fn with_branches(then_branch: &str, else_branch: &str) -> GraphProto {
    let mut whole = graph(
        "in x:f[batch,1,8]; w i:i=1.; w o:i=1.; s = Shape(x); d = Gather(s,i); c = Equal(d,o); y = If(c); z = Relu(y); out z",
    );
    let inner = |name: &str, text: &str| AttributeProto {
        name: name.to_owned(),
        g: Some(Box::new(graph(text))),
        ..AttributeProto::default()
    };
    let node = whole.node.iter_mut().find(|node| node.op_type == "If").expect("the If");
    node.attribute = vec![inner("then_branch", then_branch), inner("else_branch", else_branch)];
    whole
}

#[test]
fn a_branch_with_a_known_condition_is_inlined() {
    let squeeze = "w a:i=1; q = Squeeze(x,a); out q";
    assert_eq!(
        outcome(import_graph(17, with_branches(squeeze, "q = Identity(x); out q"))),
        "[batch, 8]"
    );
    let unknown = outcome(import_graph(17, with_branches("out nowhere", "out x")));
    assert_eq!(unknown, "node 3 (If): its inner output `nowhere` is made by no node");
}

#[test]
fn a_loop_with_known_rounds_is_unrolled() {
    let mut whole = graph(
        "in x:f[batch,5]; w m:i=3.; w t:b=1.; e = SequenceEmpty(); l = Loop(m,t,e); w p:i=2.; a = SequenceAt(l,p); w z:i=-1.; b = SequenceAt(l,z); y = Concat(a,b) axis=0; out y",
    );
    let body = "in r:i[]; in c:b[]; in q:f[]; w o:i=0; w ax:i=1; k = Unsqueeze(r,o); n = Slice(x,o,k,ax); d = SequenceInsert(q,n); k2 = Identity(c); out k2; out d";
    let body = AttributeProto {
        name: "body".to_owned(),
        g: Some(Box::new(graph(body))),
        ..AttributeProto::default()
    };
    whole.node.iter_mut().find(|node| node.op_type == "Loop").expect("a loop").attribute =
        vec![body];
    assert_eq!(outcome(import_graph(17, whole)), "[2*batch, 2]");
}

#[test]
fn nodes_are_sorted_and_cycles_refused() {
    check("in x:f[2]; y = Relu(a); a = Neg(x); out y", "[2]");
    check(
        "in x:f[2]; a = Add(x,c); b = Relu(a); c = Neg(b); y = Exp(c); out y",
        "node `Add`: depends on its own result",
    );
    check(
        "in x:f[2]; y = Add(x,nothing); out y",
        "node 0 (Add): reads `nothing`, which is no input, no stored tensor and no node's result",
    );
    check("in x:f[2]; y = Relu(x); y = Neg(x); out y", "tensor `y`: is made by two nodes");
    check("in x:f[2]; x = Relu(x); out x", "node `Relu`: depends on its own result");
    check("in x:f[2]; out z", "output `z`: is made by no node");
    check("in x:f[2]; w a:f[3]; w a:f[3]; out x", "tensor `a`: is defined twice");
}

#[test]
fn stored_tensors_are_parameters_or_buffers() {
    let role_of = |lines: &str, name: &str| {
        let graph = import(lines).expect("a graph");
        graph.tensors.iter().find(|tensor| tensor.name == name).expect("the tensor").role
    };
    let cases = [
        ("in x:f[2,3]; w val_7:f[3,4]; y = MatMul(x,val_7); out y", "val_7", Role::Parameter),
        ("in x:f[2,3]; w val_7:f[3]; y = Add(x,val_7); out y", "val_7", Role::Buffer),
        ("in x:f[2,3]; w fc.bias:f[3]; y = Add(x,fc.bias); out y", "fc.bias", Role::Parameter),
        (
            "in x:f[2,3]; w rope.inv_freq:f[3]; y = Mul(x,rope.inv_freq); out y",
            "rope.inv_freq",
            Role::Buffer,
        ),
        ("in x:f[2,3]; w t:f=2.; y = Mul(x,t); out y", "t", Role::Buffer),
        ("in x:i[2,3]; w table:f[9,4]; y = Gather(table,x); out y", "table", Role::Parameter),
        ("in x:f[2,3]; w m.pos:i[3]; y = Add(x,m.pos); out y", "m.pos", Role::Buffer),
        (
            "in x:f[1,3,4,4]; w s:f[3]; w b:f[3]; w m:f[3]; w v:f[3]; y = BatchNormalization(x,s,b,m,v); out y",
            "v",
            Role::Buffer,
        ),
    ];
    for (lines, name, role) in cases {
        assert_eq!(role_of(lines, name), role, "{lines}");
    }
    // One stored tensor read twice is one parameter; a named copy of it is another.
    let graph = import(
        "in x:f[2,3]; w a.bias:f[3]; b.bias = Identity(a.bias); t = Add(x,a.bias); u = Add(t,a.bias); y = Add(u,b.bias); out y",
    );
    let graph = graph.expect("a graph");
    let parameters = graph.tensors.iter().filter(|tensor| tensor.role == Role::Parameter);
    assert_eq!(parameters.count(), 2);
    assert_eq!(graph.nodes.len(), 3);
}

#[test]
fn lookups_beyond_a_table_contradict_it() {
    let graph = import(
        "in ids:i[batch,seq]; w z:i=0.; w o:i=1.; w i:i=1.; s = Shape(ids); n = Gather(s,i); r = Range(z,n,o); w wpe:f[1024,8]; y = Gather(wpe,r); out y",
    );
    let graph = graph.expect("a graph");
    let bind = |seq| Bindings::resolve(&graph, &[("batch".to_owned(), 1), ("seq".to_owned(), seq)]);
    assert!(bind(1024).is_ok());
    let error = bind(1025).expect_err("the table has 1024 rows").to_string();
    assert!(error.contains("seq <= 1024"), "{error}");
}

#[test]
fn external_data_stays_in_the_folder() {
    let with_location = |location: &str| {
        let mut whole = graph("in x:f[2,3]; w k:f[3,4]; y = MatMul(x,k); out y");
        let entry = |key: &'static str, value: &str| StringStringEntryProto {
            key: Bytes::from(key),
            value: Bytes::from(value.to_owned()),
        };
        whole.initializer[0].external_data =
            vec![entry("location", location), entry("length", "40")];
        whole.initializer[0].data_location = 1;
        import_graph(18, whole)
    };
    for location in ["/etc/passwd", "../k", "a/../../k", "\\\\host\\k", "C:\\k", "..\\k"] {
        let text = outcome(with_location(location));
        let expected = format!(
            "tensor `k`: its data lies outside the model's folder, at `{location}`; keep weights in `models`"
        );
        assert_eq!(text, expected);
    }
    let graph = with_location("weights/../k.data").expect("stays inside");
    assert!(
        graph.notes[0].text.contains("`k` has 40 bytes where its shape takes 48"),
        "{:?}",
        graph.notes
    );
}

#[test]
fn absurd_sizes_are_refused() {
    check(
        "in x:f[1152921504606846976]; y = Relu(x); out y",
        "tensor `x`: axis 0 has size 1152921504606846976, the limit is 2^48",
    );
    check(
        "w s:i=1152921504606846976; y = ConstantOfShape(s); out y",
        "node 0 (ConstantOfShape): tensor `y`: axis 0 has size 1152921504606846976, the limit is 2^48",
    );
    check(
        "in x:f[1]; w k:f[-3]; y = Add(x,k); out y",
        "node 0 (Add): tensor `k`: axis 0 has negative size -3",
    );
}

#[test]
fn what_is_no_model_is_refused() {
    let open =
        |bytes: &[u8]| outcome(super::import("x", Bytes::copy_from_slice(bytes), Path::new("")));
    let text = open(b"# a readme\nnot a model");
    assert!(text.starts_with("not an ONNX model, or cut off: it is text"), "{text}");
    let pointer = open(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n");
    assert!(pointer.contains("git lfs pull"), "{pointer}");
    for garbage in
        [&[0xff; 64][..], &[0x0a, 0xff, 0xff], &[0x08, 0x08], &[0; 9], b"\x89PNG\r\n\x1a\n"]
    {
        let text = open(garbage);
        assert!(text.starts_with("not an ONNX model"), "{text}");
    }
    // Two bytes a node in the file, some 200 in memory.
    let n_nodes = 8_000_000usize;
    let mut graph = Vec::with_capacity(2 * n_nodes);
    (0..n_nodes).for_each(|_| graph.extend([0x0a, 0x00]));
    let mut file = vec![0x08, 0x08, 0x3a];
    prost::encoding::encode_varint(graph.len() as u64, &mut file);
    file.extend(graph);
    let text = open(&file);
    assert!(text.starts_with("holds more messages than any model"), "{text}");
}

#[test]
fn counts_do_not_depend_on_declared_shapes() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/onnx"));
    for name in ["llama_small.dynamo.dyn", "mobilenet_v2.dynamo.dyn"] {
        let file = Bytes::from(std::fs::read(folder.join(format!("{name}.onnx"))).expect(name));
        let mut stripped = super::wire::ModelProto::decode(file.clone()).expect(name);
        let graph = stripped.graph.as_mut().expect("a graph");
        assert!(!graph.value_info.is_empty());
        graph.value_info.clear();
        graph.output.iter_mut().for_each(|output| output.r#type = None);
        let stripped = Bytes::from(stripped.encode_to_vec());
        let [with, without] = [file, stripped].map(|file| {
            let graph = super::import(name, file, folder).expect(name);
            (crate::cost::work(&graph), graph.symbols)
        });
        assert_eq!(with, without, "{name}");
    }
}

/// A model that has a bit of everything.
fn sample() -> Vec<u8> {
    let lines = "in x:f[batch,3,8,8]; w conv.weight:f[4,3,3,3]; w s:i=0,-1; c = Conv(x,conv.weight) pads=1,1,1,1; r = Relu(c); y = Reshape(r,s); vi r:f[batch,4,8,8]; out y";
    model(18, graph(lines)).encode_to_vec()
}

#[test]
fn a_file_cut_anywhere_does_no_harm() {
    let whole = sample();
    assert_eq!(
        outcome(super::import("x", Bytes::from(whole.clone()), Path::new(""))),
        "[batch, 256]"
    );
    for length in 0..whole.len() {
        let cut = Bytes::copy_from_slice(&whole[..length]);
        // Only what follows the graph may be missing from a file that still reads.
        if let Ok(graph) = super::import("x", cut, Path::new("")) {
            assert_eq!(graph.nodes.len(), 3);
            assert!(graph.notes[0].text.contains("check that it is complete"));
        }
    }
}

#[test]
fn a_changed_byte_does_no_harm() {
    let whole = sample();
    for place in 0..whole.len() {
        for change in [0x01, 0x80, 0xff, 0x55] {
            let mut changed = whole.clone();
            changed[place] ^= change;
            let _ = super::import("x", Bytes::from(changed), Path::new(""));
        }
    }
}
