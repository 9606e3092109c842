//! Branches, loops, functions, sequences and optionals in small models built in memory, and files
//! that abuse them.
//!
//! Not here: the notation of the models (`tests.rs`).

use super::tests::{graph, model, node, outcome, value_info};
use super::wire::{
    AttributeProto, ElementTypeProto, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto,
    TypeProto,
};
use crate::cost;
use crate::error::Error;
use crate::graph::{Bindings, Graph};
use bytes::Bytes;
use prost::Message;
use std::path::Path;

/// Puts graphs into the nodes that make these results: `("y", "body", lines)`.
fn nested(lines: &str, inner: &[(&str, &str, GraphProto)]) -> GraphProto {
    let mut outer = graph(lines);
    for (output, name, graph) in inner {
        let node = outer.node.iter_mut().find(|node| node.output.iter().any(|o| o == output));
        let attribute = AttributeProto {
            name: (*name).to_owned(),
            g: Some(Box::new(graph.clone())),
            ..AttributeProto::default()
        };
        node.expect("a node makes it").attribute.push(attribute);
    }
    outer
}

fn function(head: &str, lines: &str) -> FunctionProto {
    let call = node(head);
    let body = graph(lines);
    FunctionProto {
        name: call.op_type,
        domain: "own".to_owned(),
        input: call.input,
        output: call.output,
        node: body.node,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 18 }],
        ..FunctionProto::default()
    }
}

fn import_model(model: &ModelProto) -> Result<Graph, Error> {
    super::import("test", Bytes::from(model.encode_to_vec()), Path::new("models"))
}

fn import(graph: GraphProto) -> Result<Graph, Error> {
    import_model(&model(18, graph))
}

/// Shape of the first output and MACs, both in symbols, each choice at its costliest.
fn summary(result: Result<Graph, Error>) -> String {
    let macs = result.clone().map(|mut graph| {
        cost::take_costliest(&mut graph, &Bindings::default());
        cost::work(&graph).total.macs.0.to_string()
    });
    match macs {
        Ok(macs) => format!("{} {macs}", outcome(result)),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(lines: &str, inner: &[(&str, &str, &str)], expected: &str) {
    let inner: Vec<_> = inner.iter().map(|(y, name, lines)| (*y, *name, graph(lines))).collect();
    assert_eq!(summary(import(nested(lines, &inner))), expected, "{lines}");
}

#[test]
fn both_branches_are_read_and_the_costlier_is_counted() {
    let branches = |then: &str, otherwise: &str, expected: &str| {
        let lines = "in c:b[1]; in x:f[n,4]; w w:f[4,8]; w v:f[8,8]; y = If(c); out y";
        check(lines, &[("y", "then_branch", then), ("y", "else_branch", otherwise)], expected);
    };
    let one = "a = MatMul(x,w); out a";
    branches(one, "b = MatMul(x,w); d = MatMul(b,v); out d", "[n, 8] 96*n");
    // Sizes that differ are left open.
    branches(
        one,
        "w i:i=0; w e:i=1; b = MatMul(x,w); d = Slice(b,i,e,e); out d",
        "[n, y.dim1] 32*n",
    );
    // A rank that differs is not known.
    branches(one, "w e:i=0; b = MatMul(x,w); d = Unsqueeze(b,e); out d", "? 32*n");
    // What both know is known.
    branches("w k:i=3,5; a = Identity(k); out a", "w k:i=3,5; out k", "[2] 0");
    let inner = graph("d = If(c); out d");
    let deep = nested(
        "d = If(c); out d",
        &[
            ("d", "then_branch", graph("p = MatMul(x,w); q = MatMul(p,v); r = MatMul(q,v); out r")),
            ("d", "else_branch", graph(one)),
        ],
    );
    assert_eq!(inner.node.len(), deep.node.len());
    let lines = "in c:b[1]; in x:f[n,4]; w w:f[4,8]; w v:f[8,8]; y = If(c); out y";
    let both = [("y", "then_branch", graph(one)), ("y", "else_branch", deep)];
    assert_eq!(summary(import(nested(lines, &both))), "[n, 8] 160*n");
}

#[test]
fn a_loop_is_counted_once_for_each_round() {
    let body = "in i:i[]; in c:b[]; in h:f[n,4]; h2 = MatMul(h,w); c2 = Identity(c); out c2; out h2; out h2";
    let run = |most: &str, expected: &str| {
        let lines = format!(
            "in x:f[n,4]; in s:f[seq,3]; in dyn:i[]; w w:f[4,4]; {most}; y,ys = Loop(m,,x); out ys"
        );
        check(&lines, &[("y", "body", body)], expected);
    };
    run("w m:i=5.", "[5, n, 4] 80*n");
    run("w m:i=0.", "[0, n, 4] 0");
    run(
        "w m:i=9223372036854775807.",
        "node 0 (Loop): tensor `ys`: axis 0 has size 9223372036854775807, the limit is 2^48",
    );
    run("w i0:i=0.; z = Shape(s); m = Gather(z,i0)", "[seq, n, 4] 16*n*seq");
    run("m = Identity(dyn)", "[Loop_1.rounds, n, 4] 16*Loop_1.rounds*n");
    // The condition is decided at run time: at most so many.
    let body = "in i:i[]; in c:b[]; in h:f[n,4]; h2 = MatMul(h,w); r = ReduceMax(h2) keepdims=0; w z:f=0.; c2 = Less(r,z); out c2; out h2";
    let lines = "in x:f[n,4]; w w:f[4,4]; w m:i=7.; w t:b=1.; y = Loop(m,t,x); out y";
    check(lines, &[("y", "body", body)], "[n, 4] 16*Loop_0.rounds*n");
    let graph = import(nested(lines, &[("y", "body", graph(body))])).unwrap();
    assert_eq!(graph.symbols.iter().find_map(|s| s.at_most.clone()), Some(7.into()));
}

#[test]
fn what_changes_from_round_to_round_is_unrolled_or_left_open() {
    let body = "in i:i[]; in c:b[]; in h:f[n,4]; h2 = Concat(h,x) axis=0; k = MatMul(h2,w); c2 = Identity(c); out c2; out h2; out k";
    let lines = "in x:f[n,4]; in dyn:i[]; w w:f[4,4]; w m:i=3.; y,k = Loop(M,,x); out y";
    // 2n + 3n + 4n rows of 16
    check(&lines.replace('M', "m"), &[("y", "body", body)], "[4*n, 4] 144*n");
    check(
        &lines.replace('M', "dyn"),
        &[("y", "body", body)],
        "[n + Loop_0.rounds*n, 4] 16*Loop_0.rounds*h.dim0 + 16*Loop_0.rounds*n",
    );
    // Loops inside each other multiply.
    let inner = graph(
        "in i:i[]; in c:b[]; in g:f[n,4]; g2 = MatMul(g,w); c2 = Identity(c); out c2; out g2",
    );
    let outer = "in j:i[]; in d:b[]; in h:f[n,4]; w k:i=6.; h2 = Loop(k,,h); d2 = Identity(d); out d2; out h2";
    let outer = nested(outer, &[("h2", "body", inner)]);
    let lines = "in x:f[n,4]; w w:f[4,4]; w m:i=5.; y = Loop(m,,x); out y";
    assert_eq!(summary(import(nested(lines, &[("y", "body", outer)]))), "[n, 4] 480*n");
}

#[test]
fn a_scan_runs_along_an_axis() {
    let body = "in h:f[4]; in x:f[4]; a = Add(h,x); h2 = MatMul(a,w); out h2; out a";
    let lines =
        "in h0:f[4]; in x:f[seq,4]; w w:f[4,4]; y,ys = Scan(h0,x) num_scan_inputs=1; out ys";
    check(lines, &[("y", "body", body)], "[seq, 4] 16*seq");
    let lines = "in h0:f[4]; in x:f[4,seq]; w w:f[4,4]; y,ys = Scan(h0,x) num_scan_inputs=1 scan_input_axes=1, scan_output_axes=-1,; out ys";
    check(lines, &[("y", "body", body)], "[4, seq] 16*seq");
    let lines =
        "in h0:f[b,4]; in x:f[b,7,4]; w w:f[4,4]; y,ys = Scan(,h0,x) num_scan_inputs=1; out ys";
    let old = nested(lines, &[("y", "body", graph(body))]);
    assert_eq!(summary(import_model(&model(8, old))), "[b, 7, 4] 112*b");
}

#[test]
fn functions_are_inlined_with_the_attributes_of_the_call() {
    let mut functions = vec![
        function("y = Twice(x,w)", "a = own.Once(x,w); y = own.Once(a,w)"),
        function("y = Once(x,w,b)", "m = MatMul(x,w); y = Softmax(m) axis=-1"),
    ];
    for node in functions.iter_mut().flat_map(|function| &mut function.node) {
        if let Some(own) = node.op_type.strip_prefix("own.") {
            (node.op_type, node.domain) = (own.to_owned(), "own".to_owned());
        }
    }
    let call = |lines: &str| {
        let mut graph = graph(lines);
        graph.node[0].domain = "own".to_owned();
        graph
    };
    let lines = "in x:f[n,4]; w w:f[4,4]; y = Twice(x,w); out y";
    let whole = ModelProto { functions: functions.clone(), ..model(18, call(lines)) };
    assert_eq!(summary(import_model(&whole)), "[n, 4] 32*n");
    // An attribute refers to one of the call, or to its default.
    let mut function = function("y = Cut(x)", "y = Concat(x,x) axis=0");
    function.node[0].attribute[0].i = None;
    function.node[0].attribute[0].ref_attr_name = "along".to_owned();
    let default =
        AttributeProto { name: "along".to_owned(), i: Some(1), ..AttributeProto::default() };
    function.attribute_proto.push(default);
    let of = |lines| {
        let functions = vec![function.clone()];
        summary(import_model(&ModelProto { functions, ..model(18, call(lines)) }))
    };
    assert_eq!(of("in x:f[n,4]; y = Cut(x); out y"), "[n, 8] 0");
    assert_eq!(of("in x:f[n,4]; y = Cut(x) along=0; out y"), "[2*n, 4] 0");
    // One that calls itself.
    functions[1].node[0].op_type = "Twice".to_owned();
    functions[1].node[0].domain = "own".to_owned();
    let whole = ModelProto { functions, ..model(18, call(lines)) };
    let error = import_model(&whole).unwrap_err().to_string();
    assert!(error.contains("the function `Twice` calls itself"), "{error}");
}

#[test]
fn sequences_keep_what_is_known_of_their_members() {
    check(
        "in x:f[7,3]; s = SplitToSequence(x,p) axis=0; w p:i=3.; y = ConcatFromSequence(s) axis=0; out y",
        &[],
        "[7, 3] 0",
    );
    check(
        "in x:f[n,3]; s = SplitToSequence(x) axis=0; y = ConcatFromSequence(s) axis=0; out y",
        &[],
        "[n, 3] 0",
    );
    check(
        "in x:f[n,3]; s = SplitToSequence(x) axis=0 keepdims=0; y = ConcatFromSequence(s) axis=-1 new_axis=1; out y",
        &[],
        "[3, n] 0",
    );
    check(
        "in x:f[7,3]; w p:i=4,3; w z:i=-1.; s = SplitToSequence(x,p); y = SequenceAt(s,z); out y",
        &[],
        "[3, 3] 0",
    );
    check(
        "in x:f[7,3]; in p:i[]; s = SplitToSequence(x,q) axis=1; w q:i=1.; y = SequenceAt(s,p); out y",
        &[],
        "[7, 1] 0",
    );
    check(
        "in x:f[2,3]; s = SequenceConstruct(x,x,x); l = SequenceLength(s); y = Range(z,l,o); w z:i=0.; w o:i=1.; out y",
        &[],
        "[3] 0",
    );
    check(
        "in x:f[2,3]; s = SequenceConstruct(x,x); t = SequenceErase(s); u = SequenceInsert(t,x); y = ConcatFromSequence(u) axis=0; out y",
        &[],
        "[4, 3] 0",
    );
    let body = "in a:f[2,3]; in b:f[3,5]; o = MatMul(a,b); out o";
    check(
        "in x:f[2,3]; in w:f[3,5]; s = SequenceConstruct(x,x,x); t = SequenceMap(s,w); y = ConcatFromSequence(t) axis=0; out y",
        &[("t", "body", body)],
        "[6, 5] 90",
    );
    check(
        "in x:f[1000000000,3]; in w:f[3,5]; s = SplitToSequence(x) axis=0; t = SequenceMap(s,w); l = SequenceLength(t); y = ConstantOfShape(u); w z:i=0; u = Unsqueeze(l,z); out y",
        &[("t", "body", "in a:f[1,3]; in b:f[3,5]; o = MatMul(a,b); out o")],
        "[1000000000] 15000000000",
    );
}

#[test]
fn optionals_and_sequences_may_be_inputs() {
    let element = value_info("x:f[2,3]").r#type;
    let wrapped = |element: &Option<TypeProto>| {
        Box::new(ElementTypeProto { elem_type: element.clone().map(Box::new) })
    };
    let sequence = TypeProto { sequence_type: Some(wrapped(&element)), ..TypeProto::default() };
    let optional = TypeProto { optional_type: Some(wrapped(&element)), ..TypeProto::default() };
    let of = |lines: &str, kind: &TypeProto| {
        let mut graph = graph(lines);
        graph.input[0].r#type = Some(kind.clone());
        summary(import(graph))
    };
    let at = "in s:f[1]; in p:i[]; y = SequenceAt(s,p); out y";
    assert_eq!(of(at, &sequence), "[2, 3] 0");
    let joined = "in s:f[1]; y = ConcatFromSequence(s) axis=1; out y";
    assert_eq!(of(joined, &sequence), "[2, 3*s.length] 0");
    assert_eq!(of("in s:f[1]; y = Identity(s); out y", &sequence), "? 0");
    assert_eq!(of("in s:f[1]; y = OptionalGetElement(s); out y", &optional), "[2, 3] 0");
    assert_eq!(of("in s:f[1]; y = OptionalHasElement(s); out y", &optional), "[] 0");
    check("in x:f[2]; o = Optional(x); y = OptionalGetElement(o); out y", &[], "[2] 0");
    check("in x:f[2]; o = Optional(); y = OptionalHasElement(o); out y", &[], "[] 0");
}

/// Says no, or answers; what unfolds without end would not come back.
#[track_caller]
fn check_quick(model: &ModelProto, expected: &str) {
    let answer = summary(import_model(model));
    assert!(answer.contains(expected), "{answer}");
    assert!(answer.lines().count() == 1);
}

#[test]
fn abuse_is_refused_in_one_line() {
    // Functions that call each other twice, 50 deep.
    let calls = |depth: usize| {
        let mut function = function(&format!("y = F{depth}(x)"), "a = G(x); y = G(a)");
        for node in &mut function.node {
            (node.op_type, node.domain) = (format!("F{}", depth + 1), "own".to_owned());
        }
        function
    };
    let mut graph = graph("in x:f[2]; y = F0(x); out y");
    graph.node[0].domain = "own".to_owned();
    let mut functions: Vec<FunctionProto> = (0..50).map(calls).collect();
    functions.push(function("y = F50(x)", "y = Relu(x)"));
    let doubling = ModelProto { functions, ..model(18, graph.clone()) };
    check_quick(&doubling, "unfold to more than");
    let mut functions: Vec<FunctionProto> = (0..200).map(calls).collect();
    functions.push(function("y = F200(x)", "y = Relu(x)"));
    check_quick(&ModelProto { functions, ..model(18, graph) }, "nested deeper than");
    // Branches 25 deep, each with two.
    let mut inner = super::tests::graph("z = Relu(x); out z");
    for _ in 0..25 {
        let both = [
            ("z", "then_branch", inner.clone()),
            ("z", "else_branch", super::tests::graph("z = Relu(x); out z")),
        ];
        inner = nested("z = If(c); out z", &both);
    }
    inner.input = super::tests::graph("in c:b[]; in x:f[2]").input;
    check_quick(&model(18, inner), "[2] 0");
}

#[test]
fn endless_loops_and_huge_counts_are_answered_at_once() {
    let body =
        "in i:i[]; in c:b[]; in h:f[4,4]; h2 = MatMul(h,w); c2 = Identity(c); out c2; out h2";
    let run = |head: &str, call: &str, expected: &str| {
        let lines = format!("in x:f[4,4]; w w:f[4,4]; {head}; y = Loop({call},x); out y");
        let graph = nested(&lines, &[("y", "body", graph(body))]);
        check_quick(&model(18, graph), expected);
    };
    run("w t:b=1.", ",t", "[4, 4] 64*Loop_0.rounds");
    run("w m:i=9223372036854775807.", "m,", "[4, 4] 590295810358705651648");
    run("w m:i=-5.", "m,", "[4, 4] 0");
    run("w t:b=0.", ",t", "[4, 4] 0");
    let grows = "in i:i[]; in c:b[]; in h:f[4,4]; h2 = Concat(h,h) axis=0; c2 = Identity(c); out c2; out h2";
    let lines = "in x:f[4,4]; w m:i=1000000000.; y = Loop(m,,x); out y";
    let doubles = nested(lines, &[("y", "body", graph(grows))]);
    check_quick(&model(18, doubles), "[y.last, 4] 0");
    // Loops 20 deep, each of 2^40 rounds.
    let mut inner = graph(
        "in i:i[]; in c:b[]; in h:f[4,4]; c2 = Identity(c); h2 = MatMul(h,w); out c2; out h2",
    );
    for _ in 0..20 {
        let lines = "in i:i[]; in c:b[]; in h:f[4,4]; w m:i=1099511627776.; c2 = Identity(c); h2 = Loop(m,,h); out c2; out h2";
        inner = nested(lines, &[("h2", "body", inner)]);
    }
    let lines = "in x:f[4,4]; w w:f[4,4]; w m:i=2.; y = Loop(m,,x); out y";
    check_quick(&model(18, nested(lines, &[("y", "body", inner)])), "[4, 4]");
}
