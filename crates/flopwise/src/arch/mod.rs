//! Built-in names -> [`Graph`]: exports of well-known networks, embedded without their weights.
//!
//! `tools/export_models.py` makes the files under `data/models/`. A new name is a row in the table
//! below and its file.

use crate::error::Error;
use crate::graph::Graph;
use crate::import;
use bytes::Bytes;
use std::path::Path;

struct BuiltIn {
    name: &'static str,
    description: &'static str,
    file: &'static [u8],
}

macro_rules! built_in {
    ($($name:literal $description:literal;)*) => {
        &[$(BuiltIn {
            name: $name,
            description: $description,
            file: include_bytes!(concat!("../../data/models/", $name, ".pt2")),
        }),*]
    };
}

/// Sorted by name.
const BUILT_IN: &[BuiltIn] = built_in! {
    "alexnet" "image classification, Krizhevsky 2014 (torchvision)";
    "bert_base" "text encoder, Devlin et al. 2018, 12 layers (transformers)";
    "convnext_tiny" "image classification, Liu et al. 2022 (torchvision)";
    "densenet121" "image classification, Huang et al. 2016 (torchvision)";
    "efficientnet_b0" "image classification, Tan and Le 2019 (torchvision)";
    "gpt2" "text generation, Radford et al. 2019, 124M, tied head (transformers)";
    "llama_small" "text generation, a 4-layer Llama of width 512 for tests (transformers)";
    "mobilenet_v2" "image classification, Sandler et al. 2018 (torchvision)";
    "mobilenet_v3_large" "image classification, Howard et al. 2019 (torchvision)";
    "resnet101" "image classification, He et al. 2015, v1.5 (torchvision)";
    "resnet18" "image classification, He et al. 2015 (torchvision)";
    "resnet34" "image classification, He et al. 2015 (torchvision)";
    "resnet50" "image classification, He et al. 2015, v1.5 (torchvision)";
    "swin_t" "image classification, Liu et al. 2021 (torchvision)";
    "t5_small_encoder" "text encoder, Raffel et al. 2019 (transformers)";
    "vgg16" "image classification, Simonyan and Zisserman 2014 (torchvision)";
    "vit_b_16" "image classification, Dosovitskiy et al. 2020 (torchvision)";
};

/// The graph of a built-in name, `None` if there is no such name. `-` and `_` are the same.
#[must_use]
pub fn built_in(name: &str) -> Option<Result<Graph, Error>> {
    let wanted = name.to_ascii_lowercase().replace('-', "_");
    BUILT_IN.iter().find(|model| model.name == wanted).map(graph)
}

fn graph(model: &BuiltIn) -> Result<Graph, Error> {
    import::from_bytes(model.name, Bytes::from_static(model.file), Path::new(""))
}

/// Name and description of every built-in model, by name.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILT_IN.iter().map(|model| (model.name, model.description))
}

/// Says that there is neither such a file nor such a name, and which names are near.
#[must_use]
pub fn unknown_model(model: &str) -> Error {
    let error = Error::new("no such file, and no built-in model of that name");
    // Longer names than these are paths.
    let start: String = model.to_lowercase().chars().take(64).collect();
    let far = |known: &str| strsim::levenshtein(&start, known);
    let mut near: Vec<(usize, &str)> =
        BUILT_IN.iter().map(|known| (far(known.name), known.name)).collect();
    near.sort_unstable();
    let close: Vec<&str> =
        near.iter().filter(|(far, _)| *far <= 4).map(|(_, name)| *name).take(3).collect();
    let remedy = match close.is_empty() {
        true => "`flopwise model` lists the built-in ones".to_owned(),
        false => format!("did you mean {}?", close.join(", ")),
    };
    error.in_file(Path::new(model)).remedy(remedy)
}
