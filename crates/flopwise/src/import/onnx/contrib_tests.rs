//! Quantised operators and those of ONNX Runtime, one line each: shape and format of a result, and
//! the MACs, derived by hand from the operators' definitions.
//!
//! Not here: files that ONNX Runtime wrote (`tests/it/onnxruntime.rs`).

use super::tests::{graph, model};
use crate::cost;
use crate::graph::{Graph, Op};
use bytes::Bytes;
use prost::Message;
use std::path::Path;

fn import(lines: &str, domain: &str) -> Graph {
    let mut graph = graph(lines);
    let node = graph.node.last_mut().expect("a node");
    node.domain = domain.to_owned();
    let file = Bytes::from(model(21, graph).encode_to_vec());
    super::import("test", file, Path::new("models")).expect(lines)
}

#[track_caller]
fn check_in(domain: &str, lines: &str, expected: &str) {
    let graph = import(lines, domain);
    let opaque = graph.nodes.iter().find_map(|node| {
        let Op::Opaque { reason, .. } = &node.op else { return None };
        Some(reason.clone())
    });
    let found = graph.tensor(graph.outputs[0]).tensor_type.as_ref();
    let found = found.map_or("?".to_owned(), |t| format!("{} {}", t.shape, t.format.name));
    let macs = &cost::work(&graph).total.macs.0;
    let answer = opaque.unwrap_or_else(|| format!("{found} {macs}"));
    assert_eq!(answer, expected, "{lines}");
}

#[track_caller]
fn check(lines: &str, expected: &str) {
    check_in("com.microsoft", lines, expected);
}

#[test]
fn quantised_products_count_like_floats() {
    let standard = |lines: &str, expected: &str| check_in("", lines, expected);
    let scales = "w s:f=1.; w z:u=0.";
    standard(&format!("{scales}; in x:f[n,8]; y = QuantizeLinear(x,s,z); out y"), "[n, 8] uint8 0");
    standard(
        "in x:f[n,8]; w s:f=1.; y = QuantizeLinear(x,s) output_dtype=22; out y",
        "[n, 8] int4 0",
    );
    standard(
        &format!("{scales}; in x:u[n,8]; y = DequantizeLinear(x,s,z); out y"),
        "[n, 8] fp32 0",
    );
    standard("in x:f[n,8]; y,s,z = DynamicQuantizeLinear(x); out y", "[n, 8] uint8 0");
    standard("in x:f[n,8]; y,s,z = DynamicQuantizeLinear(x); out s", "[] fp32 0");
    standard("in x:u[n,8]; in w:u[8,3]; y = MatMulInteger(x,w); out y", "[n, 3] int32 24*n");
    standard(
        "in x:u[n,2,5,5]; in w:u[4,2,3,3]; y = ConvInteger(x,w); out y",
        "[n, 4, 3, 3] int32 648*n",
    );
    standard(
        &format!("{scales}; in x:u[n,8]; in w:u[8,3]; y = QLinearMatMul(x,s,z,w,s,z,s,z); out y"),
        "[n, 3] uint8 24*n",
    );
    standard(
        &format!(
            "{scales}; in x:u[n,2,5,5]; in w:u[4,2,3,3]; y = QLinearConv(x,s,z,w,s,z,s,z); out y"
        ),
        "[n, 4, 3, 3] uint8 648*n",
    );
    let last = "in x:u[n,5,5,2]; in w:u[4,2,3,3]; y = QLinearConv(x,s,z,w,s,z,s,z) channels_last=1";
    check(&format!("{scales}; {last}; out y"), "[n, 3, 3, 4] uint8 648*n");
    check(
        &format!("{scales}; in x:u[n,8]; y = QLinearAdd(x,s,z,x,s,z,s,z); out y"),
        "[n, 8] uint8 0",
    );
    check(
        &format!("{scales}; in x:u[n,8]; y = QLinearSigmoid(x,s,z,s,z); out y"),
        "[n, 8] uint8 0",
    );
    check(
        &format!("{scales}; in x:u[n,8]; y = QLinearConcat(s,z,x,s,z,x,s,z) axis=1; out y"),
        "[n, 16] uint8 0",
    );
    check(
        &format!("{scales}; in x:u[n,4,5,5]; y = QLinearGlobalAveragePool(x,s,z,s,z); out y"),
        "[n, 4, 1, 1] uint8 0",
    );
    check(
        &format!("{scales}; in x:u[n,8]; in w:u[3,8]; y = QGemm(x,s,z,w,s,z) transB=1; out y"),
        "[n, 3] fp32 24*n",
    );
    check(
        "in x:f[n,8]; in w:u[8,3]; w s:f=1.; y = DynamicQuantizeMatMul(x,w,s); out y",
        "[n, 3] fp32 24*n",
    );
    check(
        "w s:f=1.; in x:u[n,8]; in w:u[8,3]; y = MatMulIntegerToFloat(x,w,s,s); out y",
        "[n, 3] fp32 24*n",
    );
    check(
        "w b:u[16,2,16]; w s:f[32]; in x:f[n,64]; y = MatMulNBits(x,b,s) K=64 N=16 bits=4 block_size=32; out y",
        "[n, 16] fp32 1024*n",
    );
    check(
        "w b:u[512,1]; w s:f[16]; in x:f[n,64]; y = MatMulBnb4(x,b,s) K=64 N=16 block_size=64; out y",
        "[n, 16] fp32 1024*n",
    );
    check(
        "w d:u[50,16]; in i:i[n]; w s:f[50,1]; y = GatherBlockQuantized(d,i,s) bits=4 block_size=32; out y",
        "[n, 32] fp32 0",
    );
}

#[test]
fn packed_weights_are_parameters_as_they_are_stored() {
    let lines = "w b:u[16,2,16]; w s:f[32]; in x:f[n,64]; y = MatMulNBits(x,b,s) K=64 N=16; out y";
    let work = cost::work(&import(lines, "com.microsoft"));
    assert_eq!(work.parameters.to_string(), "1024");
    assert_eq!(work.weight_bytes.to_string(), "512");
    assert_eq!(work.buffer_bytes.to_string(), "128");
    // x, packed weights, scales; the result.
    assert_eq!(work.total.bytes_read.0.to_string(), "640 + 256*n");
}

#[test]
fn attentions_project_cache_and_mask() {
    // Projection n*8*3*8, attention 2 heads * s^2 * 8.
    let own = "in x:f[b,s,8]; w w:f[8,24]; w c:f[24]";
    check(
        &format!("{own}; y = Attention(x,w,c) num_heads=2; out y"),
        "[b, s, 8] fp32 192*b*s + 16*b*s^2",
    );
    check(
        &format!("{own}; y = Attention(x,w,c) num_heads=2 unidirectional=1; out y"),
        "[b, s, 8] fp32 200*b*s + 8*b*s^2",
    );
    check(
        &format!("{own}; in p:f[2,b,2,t,4]; y,k = Attention(x,w,c,,p) num_heads=2; out k"),
        "[2, b, 2, s + t, 4] fp32 192*b*s + 16*b*s*t + 16*b*s^2",
    );
    let qkv = "in q:f[b,s,8]; in k:f[b,t,8]; in v:f[b,t,16]";
    check(
        &format!("{qkv}; y = MultiHeadAttention(q,k,v) num_heads=2; out y"),
        "[b, s, 16] fp32 24*b*s*t",
    );
    check(
        "in q:f[b,s,2,3,4]; y = MultiHeadAttention(q) num_heads=2; out y",
        "[b, s, 8] fp32 16*b*s^2",
    );
    check(
        "in q:f[b,s,8]; in k:f[b,t,2,2,4]; y = MultiHeadAttention(q,k) num_heads=2; out y",
        "[b, s, 8] fp32 16*b*s*t",
    );
    check(
        "in q:f[b,s,8]; in k:f[b,2,t,4]; y = MultiHeadAttention(q,k,k) num_heads=2; out y",
        "[b, s, 8] fp32 16*b*s*t",
    );
    let grouped = "in q:f[b,1,8]; in k:f[b,1,4]; in p:f[b,1,t,4]; in l:i[b]; in n:i[]";
    check(
        &format!(
            "{grouped}; y,pk = GroupQueryAttention(q,k,k,p,p,l,n) num_heads=2 kv_num_heads=1; out y"
        ),
        "[b, 1, 8] fp32 16*b + 16*b*t",
    );
    check(
        &format!(
            "{grouped}; y,pk = GroupQueryAttention(q,k,k,p,p,l,n) num_heads=2 kv_num_heads=1 do_rotary=1; out pk"
        ),
        "[b, 1, 1 + t, 4] fp32 16*b + 16*b*t",
    );
    // 10 queries of a window of 3: 1 + 2 + 8 * 3 pairs.
    check(
        "in q:f[1,10,16]; in l:i[1]; in n:i[]; y = GroupQueryAttention(q,,,,,l,n) num_heads=2 kv_num_heads=1 local_window_size=3; out y",
        "[1, 10, 8] fp32 432",
    );
    check(
        "in x:f[t,8]; w w:f[8,24]; w c:f[24]; in o:i[b,s]; in u:i[b]; y = PackedAttention(x,w,c,o,u) num_heads=2; out y",
        "how long each of its sequences is, and so how many pairs of query and key there are, is decided at run time",
    );
}

#[test]
fn fused_layers_have_the_macs_of_their_parts() {
    check("in a:f[n,8]; w b:f[3,8]; y = FusedMatMul(a,b) transB=1; out y", "[n, 3] fp32 24*n");
    check(
        "in a:f[5,n,8]; in b:f[n,8,3]; y = FusedMatMul(a,b) transBatchA=1; out y",
        "[n, 5, 3] fp32 120*n",
    );
    check(
        "in a:f[n,8]; w b:f[8,3]; w c:f[3]; y = FusedGemm(a,b,c) activation='Relu'; out y",
        "[n, 3] fp32 24*n",
    );
    check(
        "in x:f[n,2,5,5]; w w:f[4,2,3,3]; w b:f[4]; in z:f[n,4,3,3]; y = FusedConv(x,w,b,z) activation='Relu'; out y",
        "[n, 4, 3, 3] fp32 648*n",
    );
    check("in x:f[n,5,5,2]; w w:f[4,2,3,3]; y = NhwcConv(x,w); out y", "[n, 3, 3, 4] fp32 648*n");
    check(
        "in x:f[n,s,8]; w g:f[8]; y,m,v,sum = SkipLayerNormalization(x,x,g); out sum",
        "[n, s, 8] fp32 0",
    );
    check(
        "in x:f[n,s,8]; w g:f[8]; y = SkipSimplifiedLayerNormalization(x,x,g); out y",
        "[n, s, 8] fp32 0",
    );
    check(
        "in i:i[n,s]; w w:f[50,8]; w p:f[20,8]; w g:f[8]; y,m = EmbedLayerNormalization(i,,w,p,,g,g); out y",
        "[n, s, 8] fp32 0",
    );
    check("in x:f[n,8]; w b:f[8]; y = BiasGelu(x,b); out y", "[n, 8] fp32 0");
    check("in x:f[n,s,8]; w b:f[8]; y = BiasSplitGelu(x,b); out y", "[n, s, 4] fp32 0");
    check(
        "in x:f[n,s,8]; in p:i[n,s]; w c:f[50,2]; y = RotaryEmbedding(x,p,c,c) num_heads=2; out y",
        "[n, s, 8] fp32 0",
    );
    // Two of four experts for each token, each 8*16 + 16*8.
    check(
        "in x:f[t,8]; in r:f[t,4]; w a:f[4,8,16]; w b:f[4,16,8]; y = MoE(x,r,a,,b) k=2; out y",
        "[t, 8] fp32 512*t",
    );
    check(
        "in x:f[t,8]; in r:f[t,4]; w a:u[4,16,4]; w b:u[4,8,8]; w s:f[4,16]; y = QMoE(x,r,a,s,,b,s) k=2 expert_weight_bits=4; out y",
        "[t, 8] fp32 512*t",
    );
    check("in x:f[n,8,16]; y = Rfft(x) signal_ndim=1; out y", "[n, 8, 9, 2] fp32 0");
    check("in x:f[n,9,2]; y = Irfft(x) signal_ndim=1; out y", "[n, 16] fp32 0");
    check(
        "in x:f[n,2,8,8]; in r:f[7,4]; in i:i[7]; w s:i=3,3; y = CropAndResize(x,r,i,s); out y",
        "[7, 2, 3, 3] fp32 0",
    );
    check("in x:f[n,8]; y = Frobnicate(x); out y", "no rule for com.microsoft::Frobnicate");
    check_in(
        "com.microsoft.nchwc",
        "in x:f[n,16,5,5]; y = ReorderOutput(x) channels=12; out y",
        "[n, 12, 5, 5] fp32 0",
    );
}
