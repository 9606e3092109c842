//! What single ONNX operators cost, derived by hand beside each case; types of their results; and
//! that every operator there is has a rule or a written reason.
//!
//! Not here: shape arithmetic and broken files (`tests.rs`).

use super::tests::{check_opset, graph, import_graph, outcome};
use crate::cost;
use crate::graph::{Graph, Op};

/// Inputs of four axes fit most operators; what does not fit is said for another reason than that
/// there is no rule.
const SHAPE: &str = "f[2,3,4,4]";

/// MACs, other operations and transcendental operations of a model.
#[track_caller]
fn check_cost(opset: i64, lines: &str, [macs, other, transcendental]: [&str; 3]) {
    let graph = import_graph(opset, graph(lines)).expect(lines);
    let work = cost::work(&graph);
    assert_eq!(work.unknown().next(), None, "{lines}");
    let total = work.total;
    let counts = [total.macs, total.other_ops, total.transcendental_ops];
    let counts = counts.map(|count| count.0.to_string());
    assert_eq!(counts, [macs, other, transcendental], "{lines}");
}

/// The types of all outputs.
#[track_caller]
fn check_types(opset: i64, lines: &str, expected: &str) {
    let graph = import_graph(opset, graph(lines)).expect(lines);
    assert_eq!(types(&graph), expected, "{lines}");
}

fn types(graph: &Graph) -> String {
    let types = graph.outputs.iter().map(|id| match &graph.tensor(*id).tensor_type {
        Some(found) => format!("{}{}", found.format, found.shape),
        None => "?".to_owned(),
    });
    types.collect::<Vec<_>>().join(" ")
}

#[test]
fn recurrent_networks_multiply_input_and_state_at_every_step() {
    // 5 steps, 2 sequences; 4 gates of 4 rows, each over 3 inputs and 4 states. Per element of the
    // state: 8 additions, 3 sigmoids of 2 + 2, 2 tanhs, 4 in the cell.
    let lstm = "in x:f[5,2,3]; w w:f[1,16,3]; w r:f[1,16,4]; y,h,c = LSTM(x,w,r) hidden_size=4";
    check_cost(22, &format!("{lstm}; out y"), ["1120", "720", "320"]);
    check_types(
        22,
        &format!("{lstm}; out y; out h; out c"),
        "fp32[5, 1, 2, 4] fp32[1, 2, 4] fp32[1, 2, 4]",
    );
    let both = "in x:f[t,b,3]; w w:f[2,16,3]; w r:f[2,16,4]; y = LSTM(x,w,r) direction='bidirectional'; out y";
    check_cost(22, both, ["224*b*t", "144*b*t", "64*b*t"]);
    check_types(22, both, "fp32[t, 2, b, 4]");
    // 3 gates of 4 rows over 7; 6 additions, 2 sigmoids, tanh, 5 in the cell.
    let gru =
        "in x:f[2,5,3]; w w:f[1,12,3]; w r:f[1,12,4]; y,h = GRU(x,w,r) layout=1; out y; out h";
    check_cost(14, gru, ["840", "600", "200"]);
    check_types(14, gru, "fp32[2, 5, 1, 4] fp32[2, 1, 4]");
    let rnn = "in x:f[5,2,3]; w w:f[1,4,3]; w r:f[1,4,4]; ,h = RNN(x,w,r); out h";
    check_cost(7, rnn, ["280", "80", "40"]);
    check_types(7, rnn, "fp32[1, 2, 4]");
}

#[test]
fn states_are_carried_token_by_token() {
    // 2 tokens; per head of 4 x 3 the state is written, read for the key and read for the query:
    // 2 x 2 x 3 x 12. Scale 12, decay of the state 2 x 2 x 12, delta 2 x 2 x 6; exp of 16 decays.
    let inputs = "in q:f[1,2,8]; in k:f[1,2,8]; in v:f[1,2,6]; in g:f[1,2,8]; in b:f[1,2,2]";
    let heads = "q_num_heads=2 kv_num_heads=2";
    let delta = format!("{inputs}; y,s = LinearAttention(q,k,v,,g,b) {heads}; out y; out s");
    check_cost(27, &delta, ["144", "84", "16"]);
    check_types(27, &delta, "fp32[1, 2, 6] fp32[1, 2, 4, 3]");
    // Without decay and delta: written once, read once.
    let linear =
        format!("{inputs}; y,s = LinearAttention(q,k,v) {heads} update_rule='linear'; out y");
    check_cost(27, &linear, ["96", "12", "0"]);
    // 24 results of 3 products and a bias; silu takes 3 + 2 each.
    let conv = "in x:f[1,4,6]; w w:f[4,1,3]; w b:f[4]; y,s = CausalConvWithState(x,w,b)";
    check_cost(27, &format!("{conv}; out y"), ["72", "24", "0"]);
    check_cost(27, &format!("{conv} activation='silu'; out y"), ["72", "96", "48"]);
    check_types(27, &format!("{conv}; out y; out s"), "fp32[1, 4, 6] fp32[1, 4, 2]");
}

#[test]
fn attention_counts_the_pairs_that_the_mask_lets_through() {
    let past = "in q:f[1,2,3,4]; in k:f[1,2,3,4]; in p:f[1,2,5,4]; y,a,b = Attention(q,k,k,,p,p)";
    // 3 queries x 8 keys x 2 heads x (4 + 4).
    check_cost(23, &format!("{past}; out y"), ["384", "192", "96"]);
    // Query i stands behind 5 keys: 6 + 7 + 8 pairs.
    check_cost(23, &format!("{past} is_causal=1; out y"), ["336", "168", "84"]);
    // Itself and the two before.
    check_cost(25, &format!("{past} is_causal=1 left_window_size=2; out y"), ["144", "72", "36"]);
    check_types(
        24,
        &format!("{past}; out y; out a; out b"),
        "fp32[1, 2, 3, 4] fp32[1, 2, 8, 4] fp32[1, 2, 8, 4]",
    );
    // The cache lies outside, 8 long: the same triangle at its end.
    let cache =
        "in q:f[1,2,3,4]; in k:f[1,2,8,4]; in n:i[1]; y = Attention(q,k,k,,,,n) is_causal=1";
    check_cost(24, &format!("{cache}; out y"), ["336", "168", "84"]);
    // Grouped: 4 heads of queries share 2 of keys; values are wider than keys.
    let grouped = "in q:f[b,s,16]; in k:f[b,t,8]; in v:f[b,t,10]; \
                   y,a,b2,qk = Attention(q,k,v) q_num_heads=4 kv_num_heads=2";
    check_cost(23, &format!("{grouped}; out y"), ["36*b*s*t", "16*b*s*t", "8*b*s*t"]);
    check_types(
        23,
        &format!("{grouped}; out y; out a; out b2; out qk"),
        "fp32[b, s, 20] fp32[b, 2, t, 4] fp32[b, 2, t, 5] fp32[b, 4, s, t]",
    );
    // A pair takes 4 multiplies and 2 additions: 3 for each of 48 elements, or half of them.
    let rotary = "in x:f[1,2,3,8]; in c:f[1,3,4]; y = RotaryEmbedding(x,c,c)";
    check_cost(23, &format!("{rotary}; out y"), ["0", "144", "0"]);
    check_cost(23, &format!("{rotary} rotary_embedding_dim=4; out y"), ["0", "72", "0"]);
}

#[test]
fn signals_take_the_fast_transform() {
    // 2 transforms of 8: 5 x 8 x 3 each.
    let dft = "in x:f[2,8,1]; y = DFT(x) axis=1";
    check_cost(17, &format!("{dft}; out y"), ["0", "240", "0"]);
    check_types(17, &format!("{dft} onesided=1; out y"), "fp32[2, 5, 2]");
    check_types(20, "in x:f[2,5,2]; y = DFT(x) onesided=1 inverse=1; out y", "fp32[2, 8, 1]");
    check_types(20, "in x:f[2,5,1]; in a:i[]; y = DFT(x,,a); out y", "fp32[2, 5, 2]");
    // (64 - 16) / 8 + 1 frames of 16: a window each, and 5 x 16 x 4.
    let stft = "in x:f[1,64,1]; w s:i=8.; in w:f[16]; y = STFT(x,s,w); out y";
    check_cost(17, stft, ["0", "2352", "0"]);
    check_types(17, stft, "fp32[1, 7, 9, 2]");
    check_cost(17, "w n:i=10.; y = HannWindow(n); out y", ["0", "30", "10"]);
    check_types(17, "in n:i[]; y = BlackmanWindow(n); out y", "fp32[y.dim0]");
    let mel = "w m:i=8.; w n:i=16.; in f:f[]; y = MelWeightMatrix(m,n,n,f,f); out y";
    check_types(17, mel, "fp32[9, 8]");
}

#[test]
fn samples_between_elements_are_weighted_sums() {
    // 12 results of 4 products and 3 sums; 8 coordinates of 4.
    let grid = "in x:f[1,3,4,5]; in g:f[1,2,2,2]; y = GridSample(x,g)";
    check_cost(16, &format!("{grid}; out y"), ["0", "116", "0"]);
    check_cost(16, &format!("{grid} mode='nearest'; out y"), ["0", "40", "0"]);
    check_cost(20, &format!("{grid} mode='cubic'; out y"), ["0", "404", "0"]);
    check_types(16, &format!("{grid}; out y"), "fp32[1, 3, 2, 2]");
    // 24 means of 4 samples of 7.
    let roi = "in x:f[1,2,8,8]; in r:f[3,4]; in i:i[3]; y = RoiAlign(x,r,i) output_height=2 output_width=2";
    check_cost(16, &format!("{roi} sampling_ratio=2; out y"), ["0", "744", "24"]);
    check_types(16, &format!("{roi}; out y"), "fp32[3, 2, 2, 2]");
    // 36 results of 18 products; 162 samples of 7, moved by 162 offsets.
    let deformed =
        "in x:f[1,2,5,5]; w w:f[4,2,3,3]; in o:f[1,18,3,3]; y = DeformConv(x,w,o); out y";
    check_cost(19, deformed, ["648", "1296", "0"]);
    // 20 places with a 1, times 3 x 2, twice.
    let affine = "in t:f[2,2,3]; w s:i=2,1,4,5; y = AffineGrid(t,s); out y";
    check_cost(20, affine, ["240", "0", "0"]);
    check_types(20, affine, "fp32[2, 4, 5, 2]");
    let blocks = "in x:f[1,12,9]; w i:i=4,4; w b:i=2,2; y = Col2Im(x,i,b); out y";
    check_cost(18, blocks, ["0", "108", "0"]);
    check_types(18, blocks, "fp32[1, 3, 4, 4]");
}

#[test]
fn losses_and_optimisers_cost_what_their_formulas_say() {
    let nll = "in x:f[3,5]; in t:i[3]; w w:f[5]; y = NegativeLogLikelihoodLoss";
    // Negate 3, add 2, one division; with weights 3 products and 2 sums more.
    check_cost(13, &format!("{nll}(x,t); out y"), ["0", "5", "1"]);
    check_cost(13, &format!("{nll}(x,t,w); out y"), ["0", "10", "1"]);
    check_types(13, &format!("{nll}(x,t) reduction='none'; out y"), "fp32[3]");
    let entropy = "in x:f[3,5]; in t:i[3]; y,p = SoftmaxCrossEntropyLoss(x,t); out y; out p";
    check_cost(13, entropy, ["0", "50", "31"]);
    check_types(13, entropy, "fp32[] fp32[3, 5]");
    // 24 elements in 6 rows.
    check_cost(13, "in x:f[2,3,4]; y = Hardmax(x); out y", ["0", "18", "0"]);
    check_cost(11, "in x:f[2,3,4]; y = Hardmax(x); out y", ["0", "22", "0"]);
}

#[test]
fn composed_operators_cost_their_steps() {
    // Means 6 + 2 divisions twice, difference 8, squares 8, roots 2, quotients 8.
    let normal = "in x:f[1,2,2,2]; y = MeanVarianceNormalization(x); out y";
    check_cost(13, normal, ["0", "28", "14"]);
    // Each of two matrices: 3 divisions, 10 updates, 2 products.
    check_cost(22, "in x:f[2,3,3]; y = Det(x); out y", ["0", "24", "6"]);
    // 16 squares, 4 sums of 4, 4 roots.
    let pool = "in x:f[1,1,4,4]; y = LpPool(x) kernel_shape=2,2 strides=2,2; out y";
    check_cost(18, pool, ["0", "28", "4"]);
    check_cost(28, "in x:f[2,3]; y = SwiGLU(x,x); out y", ["0", "24", "12"]);
    check_cost(6, "in x:f[1,3,4]; w s:f[3]; y = PRelu(x,s); out y", ["0", "24", "0"]);
    let sum = "in x:f[2,3,4]; in z:f[3]; y = Add(x,z) broadcast=1 axis=1; out y";
    check_types(6, sum, "fp32[2, 3, 4]");
    check_cost(6, sum, ["0", "24", "0"]);
    // Sums over an empty axis.
    check_cost(13, "w x:f[2,0,4]; w a:i=1; y = ReduceSum(x,a); out y", ["0", "0", "0"]);
}

#[test]
fn training_forms_cost_more_than_inference() {
    let batch = "in x:f[2,3,4]; w s:f[3]; y,m,v = BatchNormalization(x,s,s,s,s)";
    // 24 elements of 7 and 3 channels of 7, 3 divisions and roots each.
    check_cost(15, &format!("{batch} training_mode=1; out y"), ["0", "189", "9"]);
    // Scale and shift, and per channel four to fold the statistics.
    check_cost(15, &format!("{}; out y", batch.replace("y,m,v", "y")), ["0", "60", "3"]);
    let dropout = "in x:f[2,3]; w r:f=0.5.; w t:b=1.; y,m = Dropout(x,r,t); out y";
    check_cost(13, dropout, ["0", "18", "0"]);
    check_cost(13, &dropout.replace("b=1", "b=0"), ["0", "0", "0"]);
}

#[test]
fn further_results_have_types() {
    check_types(
        12,
        "in x:f[1,8,7,7]; y,i = MaxPool(x) kernel_shape=3,3; out y; out i",
        "fp32[1, 8, 5, 5] int64[1, 8, 5, 5]",
    );
    check_types(13, "in x:f[2,3]; y,m = Dropout(x); out m", "bool[2, 3]");
    check_types(7, "in x:f[2,3]; y,m = Dropout(x); out m", "fp32[2, 3]");
    check_types(
        17,
        "in x:f[2,3,4]; w s:f[3,4]; y,m,d = LayerNormalization(x,s) axis=1; out m; out d",
        "fp32[2, 1, 1] fp32[2, 1, 1]",
    );
    check_types(
        15,
        "in x:f[2,3,4]; w s:f[3]; y,m,v = BatchNormalization(x,s,s,s,s) training_mode=1; out m",
        "fp32[3]",
    );
    check_types(15, "in x:i[2,3]; in e:f[3]; y = Pow(x,e); out y", "int64[2, 3]");
    check_types(26, "in x:f[2,3]; y = BitCast(x) to=6; out y", "int32[2, 3]");
}

#[test]
fn sizes_that_the_data_decide_are_open_and_bounded() {
    let check = |lines: &str, expected: &str, most: &str| {
        let graph = import_graph(18, graph(lines)).expect(lines);
        assert_eq!(types(&graph), expected, "{lines}");
        let most_of = |symbol: &crate::graph::Symbol| {
            symbol.at_most.as_ref().map_or("?".to_owned(), ToString::to_string)
        };
        let at_most: Vec<String> = graph.symbols.iter().rev().take(1).map(most_of).collect();
        assert_eq!(at_most, [most], "{lines}");
    };
    check("in x:f[b,3]; y = NonZero(x); out y", "int64[2, y.dim1]", "3*b");
    check("in x:f[4,3]; in c:b[2]; y = Compress(x,c) axis=0; out y", "fp32[y.dim0, 3]", "2");
    check("in x:f[4,3]; in k:i[1]; y,i = TopK(x,k); out y", "fp32[4, y.dim1]", "3");
    check("in x:f[4,3]; y,i,v,c = Unique(x); out y; out v", "fp32[y.dim0] int64[12]", "12");
    check(
        "in b:f[1,9,4]; in s:f[1,2,9]; w m:i=3.; y = NonMaxSuppression(b,s,m); out y",
        "int64[y.dim0, 3]",
        "6",
    );
    check("in x:f[7,3]; in s:i[1]; y = Slice(x,s,s); out y", "fp32[y.dim0, 3]", "7");
    check("in x:f[4,3]; in s:i[3]; y = Reshape(x,s); out y", "fp32[y.dim0, y.dim1, y.dim2]", "12");
    check("in x:f[4,3]; in a:i[1]; y = ReduceMax(x,a); out y", "fp32[y.dim0, y.dim1]", "3");
    check("in x:f[4,3]; in s:i[2]; y,z = Split(x,s); out y", "fp32[y.dim0, 3]", "2");
}

#[test]
fn lists_known_to_the_file_decide_at_once() {
    check_opset(18, "in x:f[4,3]; w c:b=1,0,1; y = Compress(x,c) axis=0; out y", "[2, 3]");
    check_opset(18, "in x:f[4,9]; w s:i=6,5; y = CenterCropPad(x,s); out y", "[6, 5]");
    check_opset(
        11,
        "in x:f[1,1,2,2]; in i:i[1,1,2,2]; y = MaxUnpool(x,i) kernel_shape=2,2 strides=2,2; out y",
        "[1, 1, 4, 4]",
    );
    check_opset(18, "in x:f[2,1,3]; in a:i[1]; y = Squeeze(x,a); out y", "[2, 3]");
    check_opset(18, "in x:f[1,1]; in a:i[1]; y = Unsqueeze(x,a); out y", "[1, 1, 1]");
    check_opset(
        18,
        "in x:f[4,3]; in a:i[2]; y = ReduceMax(x,a); out y",
        "opaque: `a`, which decides its shape, is computed at run time",
    );
    check_opset(18, "in x:f[4,3]; in s:i[2]; y = Expand(x,s); out y", "[4, 3]");
}

#[test]
fn lengths_left_open_do_not_stand_in_the_way() {
    let transposed =
        "in x:f[1,4,h,5]; w k:f[4,2,3,3]; y = ConvTranspose(x,k) output_shape=10,12; out y";
    check_opset(11, transposed, "[1, 2, 10, 12]");
    check_cost(11, transposed, ["360*h", "0", "0"]);
    // Equal parts are whole before version 18; from then on the last one may be shorter, or empty.
    let parts = "in x:f[n,3]; y,z,u = Split(x); out y; out u";
    check_types(13, parts, "fp32[floordiv(n, 3), 3] fp32[floordiv(n, 3), 3]");
    check_types(18, "in x:f[4,3]; y,z,u = Split(x) num_outputs=3; out u", "fp32[0, 3]");
}

#[test]
fn windows_that_no_model_has_are_refused() {
    let wide = format!("in x:f[1,3,4,4]; y = LRN(x) size={}; out y", i64::MAX);
    check_opset(13, &wide, "opaque: its window is 9223372036854775807 channels wide");
}

#[test]
fn every_operator_has_a_rule_or_a_reason() {
    let list = include_str!("../../../tests/data/onnx_operators.txt");
    let mut n_versions = 0;
    let mut without = Vec::new();
    for line in list.lines() {
        let mut fields = line.split(' ');
        let (Some(domain), Some(operator)) = (fields.next(), fields.next()) else {
            panic!("`{line}`")
        };
        for version in fields {
            let numbers: Vec<i64> =
                version.split(':').map(|number| number.parse().expect("a number")).collect();
            let [version, n_inputs, n_outputs] = numbers[..] else { panic!("`{line}`") };
            n_versions += 1;
            let reason = single(domain, operator, version, [n_inputs, n_outputs.max(1)]);
            if reason.contains("no rule") || reason.contains("which this version") {
                without.push(format!("{operator}-{version}: {reason}"));
            }
        }
    }
    assert!(500 < n_versions, "{n_versions}");
    assert!(without.is_empty(), "{}", without.join("\n"));
    // The same test does see one without a rule.
    assert!(single("ai.onnx", "Frobnicate", 20, [1, 1]).contains("no rule"));
}

/// What becomes of a model of one node: a shape, why it is not counted, or an error.
fn single(domain: &str, operator: &str, opset: i64, [n_inputs, n_outputs]: [i64; 2]) -> String {
    let names = |letter: char, n: i64| (0..n).map(|at| format!("{letter}{at}")).collect::<Vec<_>>();
    let (inputs, outputs) = (names('x', n_inputs), names('y', n_outputs));
    let declared: String = inputs.iter().map(|input| format!("in {input}:{SHAPE}; ")).collect();
    let (inputs, joined) = (inputs.join(","), outputs.join(","));
    let mut graph =
        graph(&format!("{declared}{joined} = {operator}({inputs}); out {}", outputs[0]));
    if domain != "ai.onnx" {
        graph.node[0].domain = domain.to_owned();
    }
    outcome(import_graph(opset, graph))
}

#[test]
fn optimisers_cost_their_formulas_per_element() {
    let check = |operator: &str, groups: &str, expected: [&str; 2]| {
        let lines = "in r:f[]; in t:i[]; in x:f[10]; in g:f[10]; in v:f[10]; in h:f[10]; ";
        let outputs = if groups.ends_with('h') { "y,z,u" } else { "y,z" };
        let mut graph = graph(&format!("{lines}{outputs} = {operator}({groups}); out y; out z"));
        graph.node[0].domain = "ai.onnx.preview.training".to_owned();
        let graph = import_graph(12, graph).expect(operator);
        assert_eq!(types(&graph), "fp32[10] fp32[10]");
        let total = cost::work(&graph).total;
        let counts = [total.other_ops, total.transcendental_ops].map(|count| count.0.to_string());
        assert_eq!(counts, expected, "{operator}");
        assert!(matches!(graph.nodes[0].op, Op::Stated(_)));
    };
    check("Adagrad", "r,t,x,g,v", ["50", "20"]);
    check("Adam", "r,t,x,g,v,h", ["100", "20"]);
    check("Momentum", "r,t,x,g,v", ["50", "0"]);
}
