#!/usr/bin/env python3
"""Export the built-in example models as weightless PyTorch `.pt2` files.

    python tools/export_models.py [--out DIR] [NAME ...]

Needs torch, torchvision and transformers. Every model is built from its architecture alone (random weights, no
download), exported with `torch.export` with a dynamic batch (and sequence), saved, and then rewritten without its weights: a
counter reads shapes, operators, module paths and source lines, and none of them lives in the weight payload. The
rewriting is reproducible: member times are fixed, the serialization id is left out.
"""

import argparse
import io
from pathlib import Path

import torch

from strip_pt2 import strip

MAX_BATCH = 4096
OUT = Path(__file__).resolve().parent.parent / "crates/flopwise/data/models"

VISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_large", "resnet18",
    "resnet34", "resnet50", "resnet101", "swin_t", "vgg16", "vit_b_16",
]  # fmt: skip

# Longest sequence each language model accepts. T5 has relative positions and hence no limit of its own.
TEXT = {"bert_base": 512, "gpt2": 1024, "llama_small": 2048, "t5_small_encoder": 4096}


def build_text(name):
    import transformers as hf

    if name == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(use_cache=False))
    if name == "bert_base":
        return hf.BertModel(hf.BertConfig())
    if name == "t5_small_encoder":
        return hf.T5EncoderModel(hf.T5Config(use_cache=False))  # the defaults are t5-small
    if name == "llama_small":
        return hf.LlamaForCausalLM(
            hf.LlamaConfig(
                vocab_size=32000,
                hidden_size=512,
                intermediate_size=1376,
                num_hidden_layers=4,
                num_attention_heads=8,
                num_key_value_heads=4,
                max_position_embeddings=TEXT[name],
                use_cache=False,
            )
        )
    raise ValueError(name)


def export(name):
    """The exported program of a built-in model, and the number of its parameters (a tied one counted once)."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    if name in TEXT:
        model = build_text(name).eval()
        seq = torch.export.Dim("seq", min=2, max=TEXT[name])
        kwargs = {"input_ids": torch.ones(2, 16, dtype=torch.int64)}
        dynamic = {"input_ids": {0: batch, 1: seq}}
        program = torch.export.export(model, (), kwargs, dynamic_shapes=dynamic)
    else:
        import torchvision

        model = torchvision.models.get_model(name, weights=None).eval()
        program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: batch},))
    return program, sum(p.numel() for p in model.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to export; all when none is given")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # else nn.MultiheadAttention hides in one fused operator
    for name in args.names or [*VISION, *TEXT]:
        if name not in VISION and name not in TEXT:
            parser.error(f"no model is called {name}")
        program, parameters = export(name)
        saved = io.BytesIO()
        torch.export.save(program, saved)
        target = args.out / f"{name}.pt2"
        strip(saved, target)
        print(f"{name:20} {parameters:12,} parameters  {target.stat().st_size:8,} bytes", flush=True)


if __name__ == "__main__":
    main()
