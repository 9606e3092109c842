//! Costs by hand-derived one-line cases, and properties that every model must have.

use super::*;
use crate::graph::*;
use crate::query::open_model;
use flopwise_formats::Format;
use proptest::prelude::*;

fn one_node(op: Op, inputs: &[(&[i64], Role)]) -> Graph {
    let mut builder = Builder::new("one node");
    let mut ids = Vec::new();
    for (input_idx, (lengths, role)) in inputs.iter().enumerate() {
        let fp32 = TensorType { shape: Shape::of(lengths), format: Format::FP32 };
        ids.push(builder.tensor(&format!("input{input_idx}"), Some(fp32), *role).unwrap());
    }
    let outputs = builder.apply("node", op, &ids).unwrap();
    builder.finish(ids, outputs)
}

/// Expected: MACs, other ops, transcendental ops, bytes read, bytes written.
#[track_caller]
fn check(op: Op, inputs: &[&[i64]], expected: [u128; 5]) {
    let inputs: Vec<_> = inputs.iter().map(|lengths| (*lengths, Role::Input)).collect();
    let graph = one_node(op, &inputs);
    let counts = work(&graph).bind(&graph, &Bindings::default()).unwrap().nodes[0].1;
    let counts = counts.expect("the node can be counted");
    let found = [
        counts.macs.0,
        counts.other_ops.0,
        counts.transcendental_ops.0,
        counts.bytes_read.0,
        counts.bytes_written.0,
    ];
    assert_eq!(found, expected);
}

fn convolution(groups: i64, direction: Direction) -> Op {
    Op::Convolution(Convolution {
        direction,
        stride: vec![1, 1],
        padding: Padding::Explicit { before: vec![1, 1], after: vec![1, 1] },
        dilation: vec![1, 1],
        groups,
    })
}

#[test]
fn products() {
    let linear = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Transposed));
    // 2x3 outputs, inner size 4: 24 MACs; a bias is one add per output.
    check(linear.clone(), &[&[2, 4], &[3, 4]], [24, 0, 0, 4 * (8 + 12), 4 * 6]);
    check(linear, &[&[2, 4], &[3, 4], &[3]], [24, 6, 0, 4 * (8 + 12 + 3), 4 * 6]);
    let batched = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
    check(batched, &[&[5, 2, 4], &[5, 4, 3]], [120, 0, 0, 4 * (40 + 60), 4 * 30]);
    let einsum = |equation, ranks: &[usize]| Op::Einsum(Einsum::parse(equation, ranks).unwrap());
    check(einsum("ij,jk->ik", &[2, 2]), &[&[2, 4], &[4, 3]], [24, 0, 0, 80, 24]);
    // An outer product sums nothing: multiplies, not MACs.
    check(einsum("i,j->ij", &[1, 1]), &[&[2], &[3]], [0, 6, 0, 20, 24]);
    // Three operands from left to right: ij,jk -> 24 MACs, then ik,kl -> 2*3*5.
    check(einsum("ij,jk,kl->il", &[2, 2, 2]), &[&[2, 4], &[4, 3], &[3, 5]], [54, 0, 0, 140, 40]);
}

#[test]
fn convolutions() {
    // 2 * 8 * 6 * 6 outputs times 3 * 3 * 3 kernel elements.
    let inputs: [&[i64]; 2] = [&[2, 3, 6, 6], &[8, 3, 3, 3]];
    check(convolution(1, Direction::Forward), &inputs, [15_552, 0, 0, 4 * 432, 4 * 576]);
    // Depthwise: each output sees one channel.
    let depthwise: [&[i64]; 2] = [&[1, 8, 6, 6], &[8, 1, 3, 3]];
    check(convolution(8, Direction::Forward), &depthwise, [2592, 0, 0, 4 * 360, 4 * 288]);
    // Transposed: each of 4 * 5 * 5 inputs meets 3 channels of 3 x 3 kernel elements.
    let direction = Direction::Transposed { output_padding: vec![0, 0] };
    let transposed: [&[i64]; 2] = [&[1, 4, 5, 5], &[4, 3, 3, 3]];
    check(convolution(2, direction), &transposed, [2700, 0, 0, 4 * 208, 4 * 150]);
}

#[test]
fn attention_masks_are_exact() {
    let shapes: [&[i64]; 3] = [&[1, 2, 5, 8], &[1, 2, 5, 8], &[1, 2, 5, 8]];
    let attention = |mask| Op::Attention(Attention::new(mask));
    // 2 heads, 25 pairs, 8 + 8: 800 MACs; scale and softmax 4 per score, 2 transcendental.
    check(attention(Mask::Full), &shapes, [800, 200, 100, 960, 320]);
    // Causal: 5 * 6 / 2 = 15 pairs.
    check(attention(Mask::causal()), &shapes, [480, 120, 60, 960, 320]);
    // More queries than keys: 1 + 2 + 2 + 2 + 2 = 9 pairs; fewer: 1 + 2 = 3.
    let tall: [&[i64]; 3] = [&[1, 1, 5, 8], &[1, 1, 2, 8], &[1, 1, 2, 8]];
    check(attention(Mask::causal()), &tall, [144, 36, 18, 288, 160]);
    let wide: [&[i64]; 3] = [&[1, 1, 2, 8], &[1, 1, 5, 8], &[1, 1, 5, 8]];
    check(attention(Mask::causal()), &wide, [48, 12, 6, 384, 64]);
    // GQA: four query heads on one key head count four times, its bytes once.
    let grouped: [&[i64]; 3] = [&[1, 4, 5, 8], &[1, 1, 5, 8], &[1, 1, 5, 8]];
    check(attention(Mask::Full), &grouped, [1600, 400, 200, 960, 640]);
}

#[test]
fn layers_without_macs() {
    check(Op::Softmax { axis: 1 }, &[&[2, 5]], [0, 30, 20, 40, 40]);
    check(Op::Elementwise(Function::Relu), &[&[2, 5]], [0, 10, 0, 40, 40]);
    check(Op::Elementwise(Function::GeluErf), &[&[10]], [0, 40, 10, 40, 40]);
    let layer_norm = Op::Normalization(Normalization::Layer { axes: 1 });
    check(layer_norm, &[&[2, 5], &[5], &[5]], [0, 72, 6, 80, 40]);
    let batch_norm = Op::Normalization(Normalization::Batch);
    check(batch_norm, &[&[2, 3, 4], &[3], &[3], &[3], &[3]], [0, 60, 3, 144, 96]);
    let mean = Reduce { function: Reduction::Mean, axes: vec![1], keep: Keep::Nothing };
    check(Op::Reduce(mean), &[&[2, 5]], [0, 8, 2, 40, 8]);
    let window = Window::Adaptive { output: vec![Dim::from(2i64)] };
    // Windows of 5 elements into 2: 0..3 and 2..5, six elements, four adds, two divisions.
    let pool = Pool { function: PoolFunction::Average, window };
    check(Op::Pool(pool), &[&[1, 1, 5]], [0, 4, 2, 20, 8]);
}

#[test]
fn movement_costs_only_bytes() {
    check(Op::Embedding, &[&[1000, 8], &[5]], [0, 0, 0, 5 * 8 * 4 + 20, 5 * 8 * 4]);
    check(Op::Reshape { shape: Shape::of(&[10]) }, &[&[2, 5]], [0, 0, 0, 0, 0]);
    check(Op::Copy, &[&[2, 5]], [0, 0, 0, 40, 40]);
    let transpose = |storage| Op::Transpose { permutation: vec![1, 0], storage };
    check(transpose(Storage::View), &[&[2, 5]], [0, 0, 0, 0, 0]);
    check(transpose(Storage::Copy), &[&[2, 5]], [0, 0, 0, 40, 40]);
}

#[test]
fn every_derivation_multiplies_out() {
    for model in ["resnet18", "gpt2", "swin_t", "llama_small"] {
        let graph = open_model(model).unwrap();
        let value = |dim: &Dim| dim.evaluate(&|name| Some(if name == "batch" { 3 } else { 77 }));
        for node in work(&graph).nodes {
            for derivation in derive(&graph, &node) {
                let factors = derivation.factors.iter().map(|(_, dim)| dim);
                let place = (&graph.nodes[node.node.0].name, derivation.quantity);
                let product = value(&Dim::product(factors)).unwrap();
                assert_eq!(product, value(&derivation.total).unwrap(), "{place:?}");
            }
        }
    }
}

#[test]
fn a_weight_read_twice_is_one_parameter() {
    let mut builder = Builder::new("tied");
    let fp32 =
        |lengths: &[i64]| Some(TensorType { shape: Shape::of(lengths), format: Format::FP32 });
    let x = builder.tensor("x", fp32(&[2, 4]), Role::Input).unwrap();
    let w = builder.tensor("w", fp32(&[4, 4]), Role::Parameter).unwrap();
    let linear = Op::MatMul(MatMul::new(Orientation::Plain, Orientation::Plain));
    let once = builder.apply("once", linear.clone(), &[x, w]).unwrap();
    let twice = builder.apply("twice", linear, &[once[0], w]).unwrap();
    let graph = builder.finish(vec![x], twice);
    let bound = work(&graph).bind(&graph, &Bindings::default()).unwrap();
    assert_eq!(bound.total.parameters, 16);
    assert_eq!(bound.nodes[0].1.unwrap().parameters, 16);
    assert_eq!(bound.nodes[1].1.unwrap().parameters, 0);
    assert_eq!(work(&graph).stored(&Bindings::default()).unwrap().weight_bytes.0, 64);
}

#[test]
fn the_peak_is_where_most_lives_at_once() {
    // x (40 B) -> a (40 B) -> b (40 B) -> c = b + x: while b is made x, a, b live; a dies after b.
    let mut builder = Builder::new("chain");
    let fp32 = Some(TensorType { shape: Shape::of(&[10]), format: Format::FP32 });
    let x = builder.tensor("x", fp32, Role::Input).unwrap();
    let relu = || Op::Elementwise(Function::Relu);
    let a = builder.apply("a", relu(), &[x]).unwrap();
    let viewed = builder.apply("view", Op::Reshape { shape: Shape::of(&[2, 5]) }, &a).unwrap();
    let b = builder.apply("b", relu(), &viewed).unwrap();
    let flat = builder.apply("flat", Op::Reshape { shape: Shape::of(&[10]) }, &b).unwrap();
    let c = builder.apply("c", Op::Elementwise(Function::Add), &[flat[0], x]).unwrap();
    let graph = builder.finish(vec![x], c);
    let found = memory(&graph, &Bindings::default()).unwrap();
    assert_eq!(found.peak_activation_bytes.0, 120);
    assert_eq!(graph.nodes[found.peak_node.unwrap().0].name, "b");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// MACs of a network without batch statistics are linear in batch, and the symbolic total
    /// evaluates to the sum over nodes.
    #[test]
    fn counts_are_linear_in_batch(batch in 1i128..4096) {
        for model in ["resnet18", "mobilenet_v2"] {
            let graph = open_model(model).unwrap();
            let work = work(&graph);
            let at = |batch| {
                let bindings = Bindings::resolve(&graph, &[("batch".into(), batch)]).unwrap();
                (work.bind(&graph, &bindings).unwrap(), bindings)
            };
            let ((one, _), (many, bindings)) = (at(1), at(batch));
            prop_assert_eq!(many.total.macs.0, one.total.macs.0 * batch as u128);
            let formula = bindings.evaluate(&work.total.macs.0).unwrap();
            prop_assert_eq!(formula as u128, many.total.macs.0);
            let summed: u128 = many.nodes.iter().filter_map(|(_, c)| *c).map(|c| c.macs.0).sum();
            prop_assert_eq!(summed, many.total.macs.0);
        }
    }

    /// More samples never need less memory.
    #[test]
    fn memory_grows_with_batch(batch in 1i128..2048) {
        let graph = open_model("resnet18").unwrap();
        let peak = |batch| {
            let bindings = Bindings::resolve(&graph, &[("batch".into(), batch)]).unwrap();
            memory(&graph, &bindings).unwrap().peak_activation_bytes
        };
        prop_assert!(peak(batch) < peak(batch + 1));
    }
}
