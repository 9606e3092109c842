//! Every shape rule by one-line cases: operator, input shapes -> output shape, or the error.

use super::*;
use flopwise_formats::Format;

/// `b` and `s` are symbols; anything else is a number.
fn shape(text: &str) -> Shape {
    let dims = text.split_whitespace().map(|word| match word.parse::<i64>() {
        Ok(number) => Dim::from(number),
        Err(_) => Dim::symbol(word),
    });
    Shape(dims.collect())
}

fn infer_all(op: &Op, inputs: &[&str]) -> Result<(Vec<String>, Vec<String>), ShapeError> {
    let types: Vec<TensorType> =
        inputs.iter().map(|text| TensorType { shape: shape(text), format: Format::FP32 }).collect();
    let mut constraints = Vec::new();
    let outputs = infer(op, &types, "node", &mut constraints)?;
    let shapes = outputs.iter().map(|output| output.shape.to_string()).collect();
    Ok((shapes, constraints.iter().map(ToString::to_string).collect()))
}

#[track_caller]
fn check(op: Op, inputs: &[&str], expected: &str) {
    let found = match infer_all(&op, inputs) {
        Ok((shapes, _)) => shapes.join(" "),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(found, expected);
}

#[track_caller]
fn check_constraint(op: Op, inputs: &[&str], expected: &[&str]) {
    assert_eq!(infer_all(&op, inputs).unwrap().1, expected);
}

const PLAIN: Orientation = Orientation::Plain;
const TRANSPOSED: Orientation = Orientation::Transposed;

fn matmul(a: Orientation, b: Orientation) -> Op {
    Op::MatMul(MatMul::new(a, b))
}

fn convolution(stride: i64, padding: i64, dilation: i64, groups: i64) -> Convolution {
    Convolution {
        direction: Direction::Forward,
        stride: vec![stride; 2],
        padding: Padding::Explicit { before: vec![padding; 2], after: vec![padding; 2] },
        dilation: vec![dilation; 2],
        groups,
    }
}

fn max_pool(kernel: i64, stride: i64, padding: i64, rounding: Rounding) -> Op {
    Op::Pool(Pool {
        function: PoolFunction::Max,
        window: Window::Sliding {
            kernel: vec![kernel],
            stride: vec![stride],
            padding: Padding::Explicit { before: vec![padding], after: vec![padding] },
            dilation: vec![1],
            rounding,
        },
    })
}

#[test]
fn matrix_products() {
    check(matmul(PLAIN, PLAIN), &["3 4", "4 5"], "[3, 5]");
    check(matmul(PLAIN, TRANSPOSED), &["b s 4", "5 4"], "[b, s, 5]");
    check(matmul(TRANSPOSED, PLAIN), &["4 3", "4 5"], "[3, 5]");
    check(matmul(PLAIN, PLAIN), &["b 8 s 4", "1 8 4 s"], "[b, 8, s, s]");
    check(matmul(PLAIN, PLAIN), &["4", "4 5"], "[5]");
    check(matmul(PLAIN, PLAIN), &["3 4", "4"], "[3]");
    check(matmul(PLAIN, PLAIN), &["4", "4"], "[]");
    check(matmul(PLAIN, PLAIN), &["3 4", "4 5", "5"], "[3, 5]");
    let error = "error: inner sizes of a matrix product must agree, got 4 and 6";
    check(matmul(PLAIN, PLAIN), &["3 4", "6 5"], error);
    check(matmul(PLAIN, PLAIN), &["", "6 5"], "error: a scalar in a matrix product");
    check_constraint(matmul(PLAIN, PLAIN), &["3 s", "6 5"], &["s = 6"]);
}

#[test]
fn einsums() {
    let einsum =
        |equation: &str, ranks: &[usize]| Op::Einsum(Einsum::parse(equation, ranks).unwrap());
    check(einsum("bij,bjk->bik", &[3, 3]), &["2 3 4", "2 4 5"], "[2, 3, 5]");
    check(einsum("ij,jk", &[2, 2]), &["3 4", "4 5"], "[3, 5]");
    check(einsum("...ij,...jk->...ik", &[4, 3]), &["b 8 3 4", "8 4 5"], "[b, 8, 3, 5]");
    check(einsum("ii->i", &[2]), &["4 4"], "[4]");
    assert!(Einsum::parse("ij,jk->ik", &[2]).is_err());
    assert!(Einsum::parse("i1->i", &[2]).is_err());
    assert!(Einsum::parse("ijk->i", &[2]).is_err());
}

#[test]
fn convolutions() {
    let forward = |convolution| Op::Convolution(convolution);
    check(forward(convolution(2, 3, 1, 1)), &["b 3 224 224", "64 3 7 7"], "[b, 64, 112, 112]");
    check(forward(convolution(1, 1, 1, 32)), &["1 32 9 9", "32 1 3 3"], "[1, 32, 9, 9]");
    check(forward(convolution(1, 2, 2, 1)), &["1 3 9 9", "8 3 3 3"], "[1, 8, 9, 9]");
    check(forward(convolution(1, 0, 1, 1)), &["3 9 9", "8 3 3 3"], "[8, 7, 7]");
    let same = Convolution { padding: Padding::Same, ..convolution(2, 0, 1, 1) };
    check(forward(same), &["1 3 9 s", "8 3 3 3"], "[1, 8, 5, floordiv(1 + s, 2)]");
    let transposed = Convolution {
        direction: Direction::Transposed { output_padding: vec![1, 1] },
        ..convolution(2, 1, 1, 2)
    };
    check(forward(transposed), &["1 4 5 5", "4 3 3 3"], "[1, 6, 10, 10]");
    let too_large = "error: the kernel is larger than the padded input";
    check(forward(convolution(1, 0, 1, 1)), &["1 3 2 2", "8 3 3 3"], too_large);
    let channels = "error: input channels of a convolution must agree, got 4 and 3";
    check(forward(convolution(1, 0, 1, 1)), &["1 4 9 9", "8 3 3 3"], channels);
}

#[test]
fn attentions_and_lookups() {
    let attention = || Op::Attention(Attention::new(Mask::Full));
    check(attention(), &["b 12 s 64", "b 12 77 64", "b 12 77 32"], "[b, 12, s, 32]");
    check(attention(), &["b 32 s 128", "b 8 s 128", "b 8 s 128"], "[b, 32, s, 128]");
    let error = "error: head sizes of query and key must agree, got 64 and 32";
    check(attention(), &["b 12 s 64", "b 12 s 32", "b 12 s 64"], error);
    check(Op::Embedding, &["50257 768", "b s"], "[b, s, 768]");
    check(Op::Gather { axis: 1 }, &["2 9 4", "3 3"], "[2, 3, 3, 4]");
    check(Op::GatherElements, &["2 9", "2 3"], "[2, 3]");
    check(Op::GatherNd { batch_axes: 0 }, &["5 6 7", "b 2"], "[b, 7]");
    check(Op::GatherNd { batch_axes: 1 }, &["b 6 7", "b 1"], "[b, 7]");
    check(Op::Index { axes: vec![0] }, &["169 3", "2401"], "[2401, 3]");
    check(Op::Index { axes: vec![0, 2] }, &["4 5 6", "7", "7"], "[7, 5]");
    check(Op::Index { axes: vec![1, 2] }, &["4 5 6", "7", "7"], "[4, 7]");
}

#[test]
fn elementwise_broadcasts() {
    let add = || Op::Elementwise(Function::Add);
    check(add(), &["b 3 4", "3 1"], "[b, 3, 4]");
    check(add(), &["1", "b s"], "[b, s]");
    check(add(), &["b s", ""], "[b, s]");
    check(add(), &["2 3", "4 3"], "error: sizes 2 and 4 do not broadcast");
    check_constraint(add(), &["512", "s"], &["512 = s"]);
    check_constraint(add(), &["b", "b"], &[]);
}

#[test]
fn reductions_and_pooling() {
    let mean = |keep| Op::Reduce(Reduce { function: Reduction::Mean, axes: vec![1, 2], keep });
    check(mean(Keep::Nothing), &["b 7 7 9"], "[b, 9]");
    check(mean(Keep::Axes), &["b 7 7 9"], "[b, 1, 1, 9]");
    check(max_pool(3, 2, 1, Rounding::Down), &["1 64 112"], "[1, 64, 56]");
    check(max_pool(3, 2, 0, Rounding::Up), &["1 64 112"], "[1, 64, 56]");
    // The last window would start in the right padding: PyTorch drops it.
    check(max_pool(2, 2, 1, Rounding::Up), &["1 64 4"], "[1, 64, 3]");
    check(max_pool(3, 2, 0, Rounding::Up), &["1 64 s"], "[1, 64, floordiv(s, 2)]");
    let window = Window::Adaptive { output: vec![Dim::ONE; 2] };
    let pool = Pool { function: PoolFunction::Average, window };
    check(Op::Pool(pool), &["b 512 7 7"], "[b, 512, 1, 1]");
    let top = Op::TopK { axis: 1, k: Dim::from(5i64) };
    check(top, &["b 1000"], "[b, 5] [b, 5]");
}

#[test]
fn movements() {
    let view = Storage::View;
    check(Op::Reshape { shape: shape("b 12 64") }, &["b 768"], "[b, 12, 64]");
    let counts = "error: element counts before and after a reshape must agree, got 768 and 700";
    check(Op::Reshape { shape: shape("7 100") }, &["768"], counts);
    let transpose =
        |permutation: &[usize]| Op::Transpose { permutation: permutation.to_vec(), storage: view };
    check(transpose(&[0, 2, 1]), &["b s 4"], "[b, 4, s]");
    check(transpose(&[0, 0, 1]), &["b s 4"], "error: [0, 0, 1] does not permute 3 axes");
    check(Op::Expand { shape: shape("b 3 4") }, &["1 4"], "[b, 3, 4]");
    let slice = |start: i64, end: i64, step| Op::Slice {
        ranges: vec![Range { axis: 0, start: start.into(), end: end.into(), step }],
        storage: view,
    };
    check(slice(1, 10, 3), &["10 2"], "[3, 2]");
    check(slice(9, -1, -1), &["10 2"], "[10, 2]");
    check(slice(5, 3, 1), &["10 2"], "[0, 2]");
    check(slice(0, 3, 0), &["10 2"], "error: axis 0 by steps of 0");
    let split = |sizes: &[i64]| Op::Split {
        axis: 1,
        sizes: sizes.iter().map(|size| Dim::from(*size)).collect(),
        storage: view,
    };
    check(split(&[2, 3]), &["b 5"], "[b, 2] [b, 3]");
    let sum = "error: an axis and the sum of its parts must agree, got 5 and 6";
    check(split(&[3, 3]), &["b 5"], sum);
    check(Op::Concat { axis: 1 }, &["b 1 4", "b s 4"], "[b, 1 + s, 4]");
    check(Op::Concat { axis: 0 }, &["0", "2 4"], "error: [2, 4] joined to rank 1");
    let pad = Op::Pad { before: vec![0.into(), 1.into()], after: vec![0.into(), (-2).into()] };
    check(pad, &["b 9"], "[b, 8]");
    check(Op::Tile { repeats: vec![2.into(), 3.into(), 1.into()] }, &["b 4"], "[2, 3*b, 4]");
}

#[test]
fn binding_names_what_contradicts() {
    let fp32 = |text| Some(TensorType { shape: shape(text), format: Format::FP32 });
    let mut builder = Builder::new("positions");
    let x = builder.tensor("x", fp32("b s 8"), Role::Input).unwrap();
    let table = builder.tensor("positions", fp32("512 8"), Role::Parameter).unwrap();
    let ranges = vec![Range {
        axis: 0,
        start: Dim::ZERO,
        end: Dim::from(512i64).minimum(&Dim::symbol("s")),
        step: 1,
    }];
    let rows =
        builder.apply("rows", Op::Slice { ranges, storage: Storage::View }, &[table]).unwrap();
    let sum = builder.apply("sum", Op::Elementwise(Function::Add), &[x, rows[0]]).unwrap();
    let graph = builder.finish(vec![x], sum);
    let bind = |seq| Bindings::resolve(&graph, &[("b".into(), 1), ("s".into(), seq)]);
    assert!(bind(512).is_ok());
    let error = bind(513).unwrap_err().to_string();
    assert!(error.contains("b=1,s=513 contradicts the model: node `sum`"), "{error}");
}

#[test]
fn a_size_that_is_an_expression_can_be_bound() {
    let four = &Dim::from(4) * &Dim::symbol("h");
    let shape = Shape(vec![Dim::symbol("b"), &four + &Dim::ONE]);
    let mut builder = Builder::new("multiple");
    let x = TensorType { shape, format: Format::FP32 };
    let x = builder.tensor("x", Some(x), Role::Input).unwrap();
    let graph = builder.finish(vec![x], vec![x]);
    let bind = |name: &str, value| {
        let typed = [(name.to_owned(), value)];
        Bindings::resolve(&graph, &typed).map(|b| b.0["h"]).map_err(|e| e.to_string())
    };
    assert_eq!(bind("x.dim1", 225), Ok(56));
    assert_eq!(bind("h", 56), Ok(56));
    assert_eq!(
        bind("x.dim1", 224).unwrap_err(),
        "x.dim1 is 1 + 4*h in this model, which is never 224"
    );
    assert!(bind("x.dim7", 1).is_err());
    assert!(bind("y.dim1", 1).is_err());
}

#[test]
fn sizes_beyond_any_tensor_are_refused() {
    let mut builder = Builder::new("huge");
    let huge = |length: i64| Some(TensorType { shape: Shape::of(&[length]), format: Format::FP32 });
    assert!(builder.tensor("x", huge(1 << 48), Role::Input).is_ok());
    assert!(builder.tensor("x", huge(1 << 60), Role::Input).is_err());
    assert!(builder.tensor("x", huge(-1), Role::Input).is_err());
    let deep = Some(TensorType { shape: Shape(vec![Dim::ONE; 65]), format: Format::FP32 });
    assert!(builder.tensor("x", deep, Role::Input).is_err());
}

#[test]
fn a_rule_that_fails_makes_the_node_opaque() {
    let mut builder = Builder::new("broken");
    let fp32 = |text| Some(TensorType { shape: shape(text), format: Format::FP32 });
    let a = builder.tensor("a", fp32("3 4"), Role::Input).unwrap();
    let b = builder.tensor("b", fp32("5 6"), Role::Parameter).unwrap();
    let product = builder.apply("product", matmul(PLAIN, PLAIN), &[a, b]).unwrap();
    let after = builder.apply("after", Op::Elementwise(Function::Relu), &product).unwrap();
    let graph = builder.finish(vec![a], after);
    assert!(graph.nodes.iter().all(|node| node.op.kind() == Kind::Opaque));
    let Op::Opaque { reason, .. } = &graph.nodes[1].op else { panic!() };
    assert_eq!(reason, "the shape of `product` is unknown");
}
