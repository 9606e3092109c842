//! The roofline on a made-up machine, by hand.

use super::*;
use crate::cost;
use crate::graph::*;
use crate::machine::tests::{gemm, memory, rate, round};
use crate::machine::*;
use crate::units::Seconds;
use flopwise_formats::Format;

/// 100 FLOP/s peak, 80 GEMM, 10 B/s.
pub(crate) fn machine() -> Profile {
    Profile {
        compute: vec![rate("fp32", ComputeKind::Peak, 1, 100.0), gemm("fp32", [8, 8, 8], 1, 80.0)],
        memory: vec![memory(MemoryLevel::Dram, MemoryOp::Read, 1, 10.0)],
        latency: Vec::new(),
        probes: Vec::new(),
        notes: Vec::new(),
        ..round()
    }
}

/// x [m, k] times w [k, n], then relu.
fn network(m: i64, k: i64, n: i64) -> (Graph, cost::BoundWork) {
    let mut builder = Builder::new("two nodes");
    let fp32 =
        |lengths: &[i64]| Some(TensorType { shape: Shape::of(lengths), format: Format::FP32 });
    let x = builder.tensor("x", fp32(&[m, k]), Role::Input).unwrap();
    let w = builder.tensor("w", fp32(&[k, n]), Role::Parameter).unwrap();
    let plain = Orientation::Plain;
    let y = builder.apply("product", Op::MatMul(MatMul::new(plain, plain)), &[x, w]).unwrap();
    let z = builder.apply("relu", Op::Elementwise(Function::Relu), &y).unwrap();
    let graph = builder.finish(vec![x], z);
    let work = cost::work(&graph).bind(&graph, &Bindings::default()).unwrap();
    (graph, work)
}

fn at(overhead: f64) -> Setup {
    Setup { overhead: Seconds(overhead) }
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
}

#[test]
fn a_node_takes_the_longer_of_arithmetic_and_traffic() {
    let (graph, work) = network(2, 3, 4);
    let estimate = estimate(&graph, &work, &Bindings::default(), &machine(), &at(1.0)).unwrap();
    // product: 48 FLOP at 80/s = 0.6 s; 4 * (6 + 12 + 8) = 104 B at 10/s = 10.4 s.
    close(estimate.nodes[0].compute.0, 0.6);
    close(estimate.nodes[0].memory.0, 10.4);
    close(estimate.nodes[0].time.0, 11.4);
    // relu: 8 ops at 50/s = 0.16 s; 64 B at 10/s = 6.4 s.
    close(estimate.nodes[1].compute.0, 0.16);
    close(estimate.nodes[1].time.0, 7.4);
    close(estimate.time.0, 18.8);
    close(estimate.achieved.0, 48.0 / 18.8);
    close(estimate.share_of_peak, 48.0 / 18.8 / 100.0);
    close(estimate.ridge_point.0, 10.0);
    assert_eq!(estimate.bound, Bound::Memory);
}

#[test]
fn what_bounds_a_node_is_named() {
    let bound = |m, k, n, overhead| {
        let (graph, work) = network(m, k, n);
        estimate(&graph, &work, &Bindings::default(), &machine(), &at(overhead)).unwrap().nodes[0]
            .bound
    };
    assert_eq!(bound(2, 3, 4, 0.0), Bound::Memory);
    assert_eq!(bound(1000, 1000, 1000, 0.0), Bound::Compute);
    assert_eq!(bound(2, 3, 4, 1000.0), Bound::Overhead);
}

#[test]
fn more_bandwidth_never_slows() {
    let (graph, work) = network(7, 11, 13);
    let mut fast = machine();
    fast.memory[0].bytes_per_s.median = 1e9;
    let time = |profile: &Profile| {
        estimate(&graph, &work, &Bindings::default(), profile, &at(0.1)).unwrap().time.0
    };
    assert!(time(&fast) < time(&machine()));
}

#[test]
fn what_is_missing_is_said() {
    let (graph, work) = network(2, 3, 4);
    let error = |profile: &Profile| {
        estimate(&graph, &work, &Bindings::default(), profile, &at(0.0)).unwrap_err().to_string()
    };
    let mut bare = machine();
    bare.memory.clear();
    assert!(error(&bare).contains("no main-memory bandwidth"));
    bare = machine();
    bare.compute.clear();
    assert!(error(&bare).contains("no FP32 peak"));
    let mut no_gemm = machine();
    no_gemm.compute.truncate(1);
    let assumed =
        estimate(&graph, &work, &Bindings::default(), &no_gemm, &at(0.0)).unwrap().assumptions;
    assert!(assumed.iter().any(|a| a.text.contains("no GEMM was measured")));
}

#[test]
fn nothing_to_time_is_no_answer() {
    let mut builder = Builder::new("empty");
    let x = builder.tensor("x", None, Role::Input).unwrap();
    let graph = builder.finish(vec![x], vec![x]);
    let work = cost::work(&graph).bind(&graph, &Bindings::default()).unwrap();
    assert!(estimate(&graph, &work, &Bindings::default(), &machine(), &at(0.0)).is_err());
}

/// 100 FLOP/s peak, 1e6 B/s: memory never matters. m = n = k = 16 reaches 40 %, 64 reaches 80 %.
fn two_points() -> Profile {
    let mut profile = machine();
    profile.memory[0].bytes_per_s.median = 1e6;
    profile.compute.truncate(1);
    profile.compute.push(gemm("fp32", [16; 3], 1, 40.0));
    profile.compute.push(gemm("fp32", [64; 3], 1, 80.0));
    profile
}

#[test]
fn shares_are_interpolated_between_shapes() {
    let utilisation = Utilisation::of(&two_points(), Format::FP32).unwrap();
    let check = |shape, share: f64, is_inside| {
        let found = utilisation.at(shape);
        assert!((found.compute - share).abs() < 1e-12, "{shape:?}: {}", found.compute);
        assert_eq!(found.is_inside, is_inside, "{shape:?}");
        close(found.memory, 1.0);
    };
    check([16; 3], 0.4, true);
    check([64; 3], 0.8, true);
    // In the middle of the logarithms.
    check([32; 3], 0.6, true);
    // Distances^2 by log2: from 16^3 (0, 0, 1) = 1, from 64^3 (2, 2, 1) = 9; weights 1 and 1/81.
    check([16, 16, 32], (0.4 + 0.8 / 81.0) / (1.0 + 1.0 / 81.0), true);
    // Beyond the range: its nearest corner, and its nearest edge.
    check([1, 2, 3], 0.4, false);
    check([1 << 20, 4096, 64], 0.8, false);
    check([16, 16, 1 << 20], (0.4 / 16.0 + 0.8 / 64.0) / (1.0 / 16.0 + 1.0 / 64.0), false);
}

#[test]
fn shares_are_of_the_roofline_at_the_shape() {
    // A product of a row: 2 * 64 * 64 FLOP over 4 * (64 + 4096 + 64) bytes at 10 B/s is 4.848
    // FLOP/s, of which 2.424 are half.
    let mut profile = machine();
    profile.compute.push(gemm("fp32", [1, 64, 64], 1, 2.424_242_424_242_424_2));
    // In a cache: more than main memory allows, but not more than all of it.
    profile.compute.push(gemm("fp32", [1, 32, 32], 1, 90.0));
    let utilisation = Utilisation::of(&profile, Format::FP32).unwrap();
    close(utilisation.at([1, 64, 64]).memory, 0.5);
    close(utilisation.at([1, 32, 32]).memory, 1.0);
    let (graph, work) = network(1, 64, 64);
    let found = estimate(&graph, &work, &Bindings::default(), &profile, &at(0.0)).unwrap();
    // The traffic takes twice as long; how well arithmetic is used was not measured.
    close(found.nodes[0].memory.0, 2.0 * 4.0 * 4224.0 / 10.0);
    close(found.nodes[0].compute.0, 8192.0 / 100.0);
    close(found.nodes[0].utilisation.unwrap(), 0.5);
    assert!(
        found.assumptions.iter().any(|a| a.text.contains("no GEMM measured was bound by compute"))
    );
    assert_eq!(found.nodes[1].utilisation, None);
}

#[test]
fn each_product_has_its_own_share() {
    let time = |m, k, n| {
        let (graph, work) = network(m, k, n);
        estimate(&graph, &work, &Bindings::default(), &two_points(), &at(0.0)).unwrap()
    };
    close(time(16, 16, 16).nodes[0].compute.0, 2.0 * 4096.0 / 40.0);
    close(time(64, 64, 64).nodes[0].compute.0, 2.0 * 262_144.0 / 80.0);
    let beyond = time(128, 128, 128);
    close(beyond.nodes[0].compute.0, 2.0 * 2_097_152.0 / 80.0);
    let said = |text: &str| beyond.assumptions.iter().any(|a| a.text.contains(text));
    assert!(said("GEMMs of 2 shapes reached on 1 thread, the fastest library at each (flopwise)"));
    assert!(said(
        "100 % of the model FLOPs are in products beyond the shapes measured (m 16 to 64"
    ));
    assert!(!time(32, 32, 32).assumptions.iter().any(|a| a.text.contains("beyond")));
}

/// The products of one node, as `m x n x k`.
fn shapes(inputs: &[&[i64]], op: Op) -> Vec<String> {
    let mut builder = Builder::new("one node");
    let tensors: Vec<TensorId> = inputs
        .iter()
        .enumerate()
        .map(|(input_idx, lengths)| {
            let known = TensorType { shape: Shape::of(lengths), format: Format::FP32 };
            builder.tensor(&format!("x{input_idx}"), Some(known), Role::Input).unwrap()
        })
        .collect();
    let results = builder.apply("node", op, &tensors).unwrap();
    let graph = builder.finish(tensors, results);
    let found = super::shape::products(&graph, &graph.nodes[0], &Bindings::default());
    found
        .iter()
        .map(|product| {
            let [m, n, k] = product.shape;
            format!("{m}x{n}x{k} {:.2}", product.share)
        })
        .collect()
}

#[test]
fn nodes_are_products_of_shapes() {
    let plain = || Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
    let linear = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
    // A weight is shared by all rows, a batch of matrices is not.
    assert_eq!(shapes(&[&[2, 5, 3], &[3, 7]], plain()), ["10x7x3 1.00"]);
    assert_eq!(shapes(&[&[2, 5, 3], &[7, 3]], linear), ["10x7x3 1.00"]);
    assert_eq!(shapes(&[&[2, 5, 3], &[2, 3, 7]], plain()), ["5x7x3 1.00"]);
    let stack = Orientation::Plain;
    assert_eq!(shapes(&[&[64, 3], &[8, 3, 7]], Op::GroupedMatMul { stack }), ["8x7x3 1.00"]);
    let einsum = Einsum::parse("bik,bkj->bij", &[3, 3]).unwrap();
    assert_eq!(shapes(&[&[2, 5, 3], &[2, 3, 7]], Op::Einsum(einsum)), ["5x7x3 1.00"]);
    let convolution = |groups| {
        Op::Convolution(Convolution {
            direction: Direction::Forward,
            stride: vec![1, 1],
            padding: Padding::Explicit { before: vec![1, 1], after: vec![1, 1] },
            dilation: vec![1, 1],
            groups,
        })
    };
    // 2 images of 8 x 8, 16 channels to 32, kernel 3 x 3.
    assert_eq!(shapes(&[&[2, 16, 8, 8], &[32, 16, 3, 3]], convolution(1)), ["128x32x144 1.00"]);
    assert_eq!(shapes(&[&[2, 16, 8, 8], &[16, 1, 3, 3]], convolution(16)), ["128x1x9 1.00"]);
    let attention = Op::Attention(Attention::new(Mask::Full));
    let heads: [&[i64]; 3] = [&[1, 4, 10, 16], &[1, 2, 30, 16], &[1, 2, 30, 48]];
    assert_eq!(shapes(&heads, attention), ["10x30x16 0.25", "10x48x30 0.75"]);
    assert_eq!(shapes(&[&[4, 4]], Op::Elementwise(Function::Relu)), Vec::<String>::new());
}
