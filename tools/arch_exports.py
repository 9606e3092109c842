#!/usr/bin/env python3
"""Export small configs of several architectures as weightless `.pt2` files, each beside its config: the tests lay the graph
that `arch` builds of the config beside the export (`tests/it/equivalence.rs`).

    python tools/arch_exports.py OUT_FOLDER

Wants torch and transformers. Batch and sequence are open; attention is `scaled_dot_product_attention`, and experts are the
grouped products that a GPU runs."""

import io
import json
import sys
from pathlib import Path

import torch
import transformers

from strip_pt2 import strip

SMALL = dict(hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4)
LLAMA = dict(SMALL, num_key_value_heads=2, vocab_size=320, tie_word_embeddings=False, use_cache=False)
IMAGE = dict(SMALL, image_size=32, patch_size=8, num_channels=3)
MODELS = {
    "gpt2": ("GPT2LMHeadModel", dict(n_embd=64, n_layer=2, n_head=4, vocab_size=320, n_positions=128, use_cache=False)),
    "llama": ("LlamaForCausalLM", LLAMA),
    "mixtral": ("MixtralForCausalLM", dict(LLAMA, num_local_experts=4, num_experts_per_tok=2)),
    "bert": ("BertModel", dict(SMALL, vocab_size=320, max_position_embeddings=128)),
    "vit": ("ViTForImageClassification", IMAGE),
    "t5_encoder": ("T5EncoderModel", dict(vocab_size=320, d_model=64, d_kv=16, d_ff=176, num_layers=2, num_heads=4)),
    "clip_vision": ("CLIPVisionModel", IMAGE),
}


def export(model_class, fields):
    cls = getattr(transformers, model_class)
    config = cls.config_class(**fields)
    config._attn_implementation = "sdpa"
    if "num_local_experts" in fields:
        config._experts_implementation = "grouped_mm"
    model = cls._from_config(config, attn_implementation="sdpa").eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    if "image_size" in fields:
        side = fields["image_size"]
        inputs = {"pixel_values": torch.zeros(2, fields["num_channels"], side, side)}
        dynamic = {"pixel_values": {0: batch}}
    else:
        inputs = {"input_ids": torch.ones(2, 16, dtype=torch.int64)}
        dynamic = {"input_ids": {0: batch, 1: torch.export.Dim("seq", min=2, max=128)}}
    program = torch.export.export(model, (), inputs, dynamic_shapes=dynamic)
    described = dict(fields, model_type=config.model_type, torch_dtype="float32", architectures=[model_class])
    return program, described


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, (model_class, fields) in MODELS.items():
        program, described = export(model_class, fields)
        saved = io.BytesIO()
        torch.export.save(program, saved)
        target = out / f"{name}.pt2"
        strip(saved, target)
        (out / f"{name}.config.json").write_text(json.dumps(described, indent=1) + "\n")
        print(f"{name:12} {target.stat().st_size:8,} bytes", flush=True)


if __name__ == "__main__":
    main()
