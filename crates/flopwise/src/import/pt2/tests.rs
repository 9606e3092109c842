//! Programs written by hand: what is damaged is refused, what is odd is read.

use super::*;
use std::io::Write;

/// A program of one relu over `x [s0, 4]`, with `nodes` in place of its node list.
fn program(nodes: &str, range: &str) -> String {
    let size = r#"[{"as_expr": {"expr_str": "s0"}}, {"as_int": 4}]"#;
    let value = |name: &str| format!(r#""{name}": {{"dtype": 7, "sizes": {size}}}"#);
    format!(
        r#"{{"graph_module": {{"graph": {{
            "inputs": [{{"as_tensor": {{"name": "x"}}}}],
            "outputs": [{{"as_tensor": {{"name": "y"}}}}],
            "nodes": [{nodes}],
            "tensor_values": {{{}, {}}},
            "sym_int_values": {{}}}},
          "signature": {{"input_specs": [{{"user_input": {{"arg": {{"as_tensor": {{"name": "x"}}}}}}}}]}}}},
          "range_constraints": {{{range}}}}}"#,
        value("x"),
        value("y"),
    )
}

const RELU: &str = r#"{"target": "torch.ops.aten.relu.default",
    "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}}],
    "outputs": [{"as_tensor": {"name": "y"}}], "metadata": {}}"#;

fn archive(json: &str) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options: zip::write::SimpleFileOptions = Default::default();
    archive.start_file("serialized_exported_program.json", options).unwrap();
    archive.write_all(json.as_bytes()).unwrap();
    archive.finish().unwrap().into_inner()
}

fn read(json: &str) -> Result<Graph, String> {
    import("test", &archive(json)).map_err(|error| error.to_string())
}

#[test]
fn symbols_and_their_ranges_are_read() {
    let check = |range: &str, expected: (i128, Option<i128>)| {
        let graph = read(&program(RELU, range)).unwrap();
        assert_eq!(graph.symbols[0].name, "batch");
        assert_eq!(graph.symbols[0].aliases, ["s0"]);
        assert_eq!((graph.symbols[0].min, graph.symbols[0].max), expected, "{range}");
    };
    check(r#""s0": {"min_val": 1, "max_val": 64}"#, (1, Some(64)));
    check(r#""s0": {"min_val": 4, "max_val": 9223372036854775807}"#, (4, None));
    // PyTorch 2.5 writes a bare Infinity, later ones null or nothing.
    check(r#""s0": {"min_val": 2, "max_val": Infinity}"#, (1, None));
    check(r#""s0": {"min_val": 2, "max_val": null}"#, (1, None));
    check("", (1, None));
}

#[test]
fn bare_words_become_null_outside_strings_only() {
    let check = |before: &str, after: &str| {
        let mut json = before.as_bytes().to_vec();
        null_bare_words(&mut json);
        assert_eq!(String::from_utf8(json).unwrap(), after);
    };
    check(r#"{"a": Infinity, "b": -Infinity}"#, r#"{"a": null    , "b": null     }"#);
    check(r#"[NaN, 1]"#, r#"[0  , 1]"#);
    check(r#"["Infinity", "\"NaN", -3]"#, r#"["Infinity", "\"NaN", -3]"#);
}

#[test]
fn what_cannot_run_is_refused() {
    let check = |nodes: &str, expected: &str| {
        let error = read(&program(nodes, "")).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let cyclic = RELU.replace(r#""name": "x""#, r#""name": "y""#);
    check(&cyclic, "node `y`: reads `y`, which nothing before it makes; the graph is cyclic");
    let huge = program(RELU, "").replace(r#"{"as_int": 4}"#, r#"{"as_int": 1152921504606846976}"#);
    let error = read(&huge).unwrap_err();
    assert_eq!(error, "tensor `x`: axis 1 has size 1152921504606846976, the limit is 2^48");
}

#[test]
fn a_body_that_only_changes_a_mode_is_read_through() {
    let inner = r#"{"graph": {"inputs": [{"as_tensor": {"name": "a"}}],
        "outputs": [{"as_tensor": {"name": "b"}}],
        "nodes": [NODE], "tensor_values": {
            "a": {"dtype": 7, "sizes": [{"as_int": 4}]}, "b": {"dtype": 7, "sizes": [{"as_int": 4}]}},
        "sym_int_values": {}}, "name": "body"}"#;
    let body = inner.replace("NODE", &RELU.replace(r#""x""#, r#""a""#).replace(r#""y""#, r#""b""#));
    let node = format!(
        r#"{{"target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
            "inputs": [{{"name": "", "arg": {{"as_bool": false}}}},
                       {{"name": "", "arg": {{"as_graph": {body}}}}},
                       {{"name": "", "arg": {{"as_tensor": {{"name": "x"}}}}}}],
            "outputs": [{{"as_tensor": {{"name": "y"}}}}], "metadata": {{}}}}"#
    );
    let graph = read(&program(&node, "")).unwrap();
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.nodes[0].op.name(), "relu");
    assert_eq!(graph.outputs, graph.nodes[0].outputs);
}

/// A node over graphs of one relu each, `DEPTH` deep.
fn nested(depth: usize) -> String {
    let mut node = RELU.replace(r#""x""#, r#""a""#).replace(r#""y""#, r#""b""#);
    for level in 0..depth {
        let (input, output) = if level + 1 == depth { ("x", "y") } else { ("a", "b") };
        node = format!(
            r#"{{"target": "torch.ops.higher_order.wrap_activation_checkpoint",
                "inputs": [{{"name": "", "arg": {{"as_graph": {{"name": "g", "graph": {{
                    "inputs": [{{"as_tensor": {{"name": "a"}}}}],
                    "outputs": [{{"as_tensor": {{"name": "b"}}}}], "nodes": [{node}]}}}}}}}},
                    {{"name": "", "arg": {{"as_tensor": {{"name": "{input}"}}}}}}],
                "outputs": [{{"as_tensor": {{"name": "{output}"}}}}], "metadata": {{}}}}"#
        );
    }
    node
}

#[test]
fn graphs_in_graphs_have_an_end() {
    assert_eq!(read(&program(&nested(3), "")).unwrap().nodes.len(), 1);
    assert!(read(&program(&nested(2000), "")).is_err());
    let error = read(&program(&nested(17), "")).unwrap_err();
    assert!(error.contains("deeper") || error.contains("recursion"), "{error}");
}

#[test]
fn what_a_higher_order_operator_lacks_is_named() {
    let check = |operator: &str, inputs: &str, expected: &str| {
        let node = format!(
            r#"{{"target": "torch.ops.higher_order.{operator}", "inputs": [{inputs}],
                "outputs": [{{"as_tensor": {{"name": "y"}}}}], "metadata": {{}}}}"#
        );
        let error = read(&program(&node, "")).unwrap_err();
        assert!(error.contains(expected), "{operator}: {error}");
        assert!(!error.contains('\n'), "{error}");
    };
    let x = r#"{"name": "", "arg": {"as_tensor": {"name": "x"}}}"#;
    let graph = |result: &str| {
        format!(
            r#"{{"name": "", "arg": {{"as_graph": {{"name": "g", "graph": {{
                "inputs": [{{"as_tensor": {{"name": "a"}}}}],
                "outputs": [{{"as_tensor": {{"name": "{result}"}}}}], "nodes": []}}}}}}}}"#
        )
    };
    check("cond", x, "holds no graph for its branch true_fn");
    check("cond", &format!("{x}, {}, {x}", graph("a")), "its branch false_fn");
    check("while_loop", &format!("{}, {x}", graph("a")), "holds no graph for its body");
    check("scan", x, "holds no graph for its body");
    check("map_impl", &graph("a"), "loops over a tensor without a length");
    check("wrap", &format!("{}, {x}", graph("missing")), "`missing` is made by no node");
    let stranger = r#"{"name": "", "arg": {"as_tensor": {"name": "z"}}}"#;
    check("wrap", &format!("{}, {stranger}", graph("a")), "reads `z`, which nothing before");
    check("flex_attention", x, "needs a query, a key and a value");
}

#[test]
fn an_expression_that_is_not_understood_becomes_a_symbol() {
    let json = program(RELU, "").replace(r#""expr_str": "s0""#, r#""expr_str": "Gauss(s0)""#);
    let graph = read(&json).unwrap();
    assert_eq!(graph.symbols[0].name, "expression1");
    assert_eq!(graph.symbols[0].place, "the file writes Gauss(s0)");
    let shape = &graph.tensor(graph.outputs[0]).tensor_type.as_ref().unwrap().shape;
    assert_eq!(shape.to_string(), "[expression1, 4]");
}

#[test]
fn flexible_attention_runs_its_graphs_per_pair() {
    let tensor =
        |name: &str| format!(r#"{{"name": "", "arg": {{"as_tensor": {{"name": "{name}"}}}}}}"#);
    let score = r#"{"name": "", "arg": {"as_graph": {"name": "s", "graph": {
        "inputs": [{"as_tensor": {"name": "a"}}], "outputs": [{"as_tensor": {"name": "b"}}],
        "nodes": [{"target": "torch.ops.aten.tanh.default",
            "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "a"}}}],
            "outputs": [{"as_tensor": {"name": "b"}}], "metadata": {}}],
        "tensor_values": {"a": {"dtype": 7, "sizes": []}, "b": {"dtype": 7, "sizes": []}}}}}}"#;
    let node = format!(
        r#"{{"target": "torch.ops.higher_order.flex_attention",
            "inputs": [{}, {}, {}, {score}], "outputs": [{{"as_tensor": {{"name": "y"}}}}],
            "metadata": {{}}}}"#,
        tensor("x"),
        tensor("x"),
        tensor("x"),
    );
    let graph = read(&program(&node, "")).unwrap();
    let work = crate::cost::work(&graph);
    assert_eq!(work.unknown().next(), None);
    // x [batch, 4] attends to itself: batch^2 pairs, 4 + 4 products each.
    assert_eq!(work.total.macs.0.to_string(), "8*batch^2");
    let tanh = graph.nodes.iter().find(|node| node.op.name() == "tanh").unwrap();
    assert_eq!(tanh.repeat.to_string(), "batch^2");
}

#[test]
fn an_unknown_operator_keeps_its_name_and_place() {
    let mystery = RELU.replace("aten.relu.default", "mine.mystery.default");
    let graph = read(&program(&mystery, "")).unwrap();
    let Op::Opaque { name, reason } = &graph.nodes[0].op else { panic!() };
    assert_eq!(
        (name.as_str(), reason.as_str()),
        (
            "mine.mystery.default",
            "mine.mystery.default is an operator of the model's own: the file does not say what it \
             computes"
        )
    );
    // The shape the file declares is kept, so what follows can still be counted.
    let shape = &graph.tensor(graph.outputs[0]).tensor_type.as_ref().unwrap().shape;
    assert_eq!(shape.to_string(), "[batch, 4]");
}

#[test]
fn a_file_cut_anywhere_is_refused_without_a_panic() {
    let whole = archive(&program(RELU, ""));
    for length in 0..whole.len() {
        assert!(import("cut", &whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_changed_byte_never_panics() {
    let whole = archive(&program(RELU, ""));
    for at in 0..whole.len() {
        for change in [1, 0x20, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            let _ = import("damaged", &damaged);
        }
    }
}
