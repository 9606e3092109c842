//! Peak live activations against PyTorch 2.15: bytes of all storages alive at once (parameters and
//! buffers apart) while the exported program runs under `no_grad`, tracked call by call.
//!
//! Not here: what PyTorch holds inside one operator. AlexNet's max pooling makes indices that nobody
//! reads (373,248 bytes more there), Swin's layer norms their statistics.

use flopwise::cost;
use flopwise::graph::Bindings;
use flopwise::query::open_model;

#[track_caller]
fn check(model: &str, bytes: u128) {
    let graph = open_model(model).expect("the model is built in");
    let batch = Bindings::resolve(&graph, &[("batch".to_owned(), 1)]).expect("one is allowed");
    let found = cost::memory(&graph, &batch).expect("every symbol is bound");
    assert_eq!(found.peak_activation_bytes.0, bytes, "{model}");
}

#[test]
fn peaks_are_what_pytorch_holds() {
    check("resnet18", 7_024_640);
    check("resnet34", 7_024_640);
    check("resnet50", 10_235_904);
    check("resnet101", 10_235_904);
    check("vgg16", 26_292_224);
    check("vit_b_16", 6_048_768);
    check("densenet121", 9_031_680);
    check("mobilenet_v2", 10_235_904);
    check("mobilenet_v3_large", 7_024_640);
    check("efficientnet_b0", 10_235_904);
    check("convnext_tiny", 11_440_128);
}
