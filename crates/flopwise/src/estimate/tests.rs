//! The roofline on a made-up machine, by hand.

use super::*;
use crate::cost;
use crate::graph::*;
use crate::machine::*;
use crate::units::Seconds;
use flopwise_formats::Format;

/// 100 FLOP/s peak, 80 GEMM, 10 B/s.
pub(crate) fn machine() -> Profile {
    let sampled = |median| Sampled {
        median,
        best: median,
        samples: 9,
        taken: 9,
        spread: 0.0,
        interval: [median, median],
    };
    let compute = |kind, rate, shape| ComputeRate {
        format: "fp32".to_owned(),
        kind,
        backend: "made-up".to_owned(),
        threads: 1,
        shape,
        instruction: None,
        chains: None,
        cache: None,
        padding: None,
        flops_per_s: sampled(rate),
        fraction_of_peak: None,
        fraction_of_roofline: None,
        flops_per_cycle: None,
    };
    Profile {
        schema: SCHEMA,
        kind: "measure".to_owned(),
        machine: Host {
            name: "made-up".to_owned(),
            cpu: "none".to_owned(),
            logical_cpus: 1,
            clock_hz: None,
            os_clock_hz: None,
            isa: "none".to_owned(),
            memory_bytes: None,
            caches: Vec::new(),
            numa_nodes: None,
            libraries: Vec::new(),
            os: "none".to_owned(),
            measured_at: "2026-11-23T00:00:00Z".to_owned(),
            flopwise_version: "0".to_owned(),
        },
        compute: vec![
            compute(ComputeKind::Peak, 100.0, None),
            compute(ComputeKind::Gemm, 80.0, Some([8, 8, 8])),
        ],
        memory: vec![MemoryRate {
            level: MemoryLevel::Dram,
            op: MemoryOp::Read,
            threads: 1,
            array_bytes: 1 << 20,
            stores: Stores::Plain,
            bytes_per_s: sampled(10.0),
            bytes_per_cycle: None,
            range: None,
        }],
        latency: Vec::new(),
        probes: Vec::new(),
        notes: Vec::new(),
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
    let estimate = estimate(&graph, &work, &machine(), &at(1.0)).unwrap();
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
        estimate(&graph, &work, &machine(), &at(overhead)).unwrap().nodes[0].bound
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
    let time = |profile: &Profile| estimate(&graph, &work, profile, &at(0.1)).unwrap().time.0;
    assert!(time(&fast) < time(&machine()));
}

#[test]
fn what_is_missing_is_said() {
    let (graph, work) = network(2, 3, 4);
    let error =
        |profile: &Profile| estimate(&graph, &work, profile, &at(0.0)).unwrap_err().to_string();
    let mut bare = machine();
    bare.memory.clear();
    assert!(error(&bare).contains("no main-memory bandwidth"));
    bare = machine();
    bare.compute.clear();
    assert!(error(&bare).contains("no FP32 peak"));
    let mut no_gemm = machine();
    no_gemm.compute.truncate(1);
    let assumed = estimate(&graph, &work, &no_gemm, &at(0.0)).unwrap().assumptions;
    assert!(assumed.iter().any(|a| a.text.contains("no GEMM was measured")));
}

#[test]
fn nothing_to_time_is_no_answer() {
    let mut builder = Builder::new("empty");
    let x = builder.tensor("x", None, Role::Input).unwrap();
    let graph = builder.finish(vec![x], vec![x]);
    let work = cost::work(&graph).bind(&graph, &Bindings::default()).unwrap();
    assert!(estimate(&graph, &work, &machine(), &at(0.0)).is_err());
}
