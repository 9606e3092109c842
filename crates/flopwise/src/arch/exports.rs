//! Built-in names that are exports of the network, without its weights.
//!
//! A `.pt2` archive each, as `torch.export.save` writes it (`tools/export_models.py`), or one
//! member of `vision.zip`, which holds the image networks that `vision.txt` lists
//! (`tools/export_vision.py`).
//! Nothing is inflated or parsed before its name is asked for.
//!
//! Not here: names that are described by a config (`names.rs`).

use super::BuiltIn;
use crate::error::Error;
use crate::graph::Graph;
use crate::import;
use bytes::Bytes;
use std::path::Path;

struct Archive {
    name: &'static str,
    about: &'static str,
    library: &'static str,
    file: &'static [u8],
}

macro_rules! archives {
    ($($name:literal $library:ident $about:literal;)*) => {
        &[$(Archive {
            name: $name,
            about: $about,
            library: stringify!($library),
            file: include_bytes!(concat!("../../data/models/", $name, ".pt2")),
        }),*]
    };
}

const ARCHIVES: &[Archive] = archives! {
    "alexnet" torchvision "AlexNet, Krizhevsky 2014";
    "bert_base" transformers "text encoder, Devlin et al. 2018, 12 layers";
    "convnext_tiny" torchvision "ConvNeXt, Liu et al. 2022";
    "densenet121" torchvision "DenseNet, Huang et al. 2016";
    "efficientnet_b0" torchvision "EfficientNet, Tan and Le 2019";
    "gpt2" transformers "text generation, Radford et al. 2019, 124M, tied head";
    "llama_small" transformers "text generation, a 4-layer Llama of width 512 for tests";
    "mobilenet_v2" torchvision "MobileNetV2, Sandler et al. 2018";
    "mobilenet_v3_large" torchvision "MobileNetV3, Howard et al. 2019";
    "resnet101" torchvision "ResNet, He et al. 2015";
    "resnet18" torchvision "ResNet, He et al. 2015";
    "resnet34" torchvision "ResNet, He et al. 2015";
    "resnet50" torchvision "ResNet, He et al. 2015";
    "swin_t" torchvision "Swin, Liu et al. 2021";
    "t5_small_encoder" transformers "text encoder, Raffel et al. 2019";
    "vgg16" torchvision "VGG, Simonyan and Zisserman 2014";
    "vit_b_16" torchvision "Vision Transformer, Dosovitskiy et al. 2020";
};

/// Programs of image networks as JSON, one member each, called `NAME.json`.
const VISION: &[u8] = include_bytes!("../../data/models/vision.zip");
/// What is in there: `= what the family is`, then a line `NAME SIZE` for each of its networks.
const VISION_LIST: &str = include_str!("../../data/models/vision.txt");
/// Stands before a name of timm's.
pub(super) const TIMM: &str = "timm/";

/// One export.
pub(super) struct Export {
    name: &'static str,
    about: &'static str,
    origin: Origin,
}

enum Origin {
    Archive { library: &'static str, file: &'static [u8] },
    Vision { size: &'static str },
}

/// The export of a name with `_` for `-`. A name of timm's may be written `timm/NAME`, `timm_NAME`,
/// and, where torchvision has none such, `NAME`.
pub(super) fn find(name: &str) -> Option<Export> {
    let of_timm = name.strip_prefix("timm_").unwrap_or(name);
    let is_such = |known: &str| match known.strip_prefix(TIMM) {
        Some(inside) => known == name || inside == of_timm,
        None => known == name,
    };
    // torchvision's come first, so that they win.
    every().filter(|export| is_such(export.name)).min_by_key(|export| export.name.starts_with(TIMM))
}

/// Every export.
pub(super) fn every() -> impl Iterator<Item = Export> {
    let archives = ARCHIVES.iter().map(|archive| Export {
        name: archive.name,
        about: archive.about,
        origin: Origin::Archive { library: archive.library, file: archive.file },
    });
    archives.chain(vision())
}

fn vision() -> impl Iterator<Item = Export> {
    let mut about = "";
    VISION_LIST.lines().filter_map(move |line| {
        if let Some(family) = line.strip_prefix("= ") {
            about = family;
        }
        let (name, size) = line.split_once(' ').filter(|_| !line.starts_with(['=', '#']))?;
        Some(Export { name, about, origin: Origin::Vision { size } })
    })
}

/// `timm 1.0.31`, as the first line of the list says.
fn version(library: &str) -> &'static str {
    let made_with = VISION_LIST.lines().next().and_then(|line| line.split_once(" with "));
    let mut libraries = made_with.map_or("", |(_, libraries)| libraries).split(", ");
    libraries.find(|known| known.starts_with(library)).unwrap_or("")
}

impl Export {
    pub(super) fn graph(&self) -> Result<Graph, Error> {
        match self.origin {
            Origin::Archive { file, .. } => {
                import::from_bytes(self.name, Bytes::from_static(file), Path::new(""))
            }
            Origin::Vision { .. } => {
                import::from_collection(self.name, VISION, &format!("{}.json", self.name))
            }
        }
    }

    pub(super) fn described(&self) -> BuiltIn {
        let is_timm = self.name.starts_with(TIMM);
        let library = if is_timm { "timm" } else { "torchvision" };
        let (group, source) = match self.origin {
            Origin::Archive { library: "transformers", .. } => {
                ("Exports of transformers", "transformers, exported without weights".to_owned())
            }
            Origin::Archive { .. } => (
                "Image networks of torchvision",
                "torchvision, exported without weights".to_owned(),
            ),
            Origin::Vision { size } => {
                let group = match is_timm {
                    true => "Image networks of timm",
                    false => "Image networks of torchvision",
                };
                let version = version(library);
                (group, format!("{version}, exported at {size} x {size} without weights"))
            }
        };
        BuiltIn {
            name: self.name.to_owned(),
            about: self.about.to_owned(),
            group: group.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, found: Option<&str>) {
        assert_eq!(find(typed).map(|export| export.name), found, "{typed}");
    }

    #[test]
    fn names_of_timm_are_found_with_and_without_it() {
        check("timm/resnet18", Some("timm/resnet18"));
        check("timm_resnet18", Some("timm/resnet18"));
        check("resnet18", Some("resnet18"));
        check("vit_small_patch16_224", Some("timm/vit_small_patch16_224"));
        check("timm/alexnet", None);
        check("timm/", None);
        check("", None);
    }

    #[test]
    fn the_list_says_what_each_is_and_where_it_comes_from() {
        for export in every() {
            assert!(!export.about.is_empty(), "{} is not described", export.name);
            let built_in = export.described();
            assert!(!built_in.source.starts_with(','), "{}: {}", export.name, built_in.source);
        }
    }
}
