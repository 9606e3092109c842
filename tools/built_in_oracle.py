"""Parameters and multiply-accumulates of the built-in models of `crates/flopwise/data/models/other.toml`, as transformers and
diffusers build them and PyTorch's FlopCounterMode counts them; the figures of `tests/it/published_other.rs`.

    python tools/built_in_oracle.py

Nothing is computed: the models live on the meta device. Wants torch, transformers and diffusers, and Python 3.11. Models of the T5
kind whose head is not the table of tokens are built by transformers 5 as if it were; their head is added here."""

import tomllib
from pathlib import Path

import diffusers
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

TABLES = tomllib.loads((Path(__file__).resolve().parent.parent / "crates/flopwise/data/models/other.toml").read_text())
OURS = ("about", "source", "torch_dtype", "model_type")


def fields_of(name):
    table = dict(TABLES[name])
    like = table.pop("like", None)
    return {**fields_of(like), **table} if like else table


def empty(*shape):
    return torch.empty(*shape, device="meta")


def ids(length):
    return torch.zeros(1, length, dtype=torch.long, device="meta")


def diffusion(fields):
    class_name, part, side = fields.pop("_class_name"), fields.pop("part", None), fields["sample_size"]
    with torch.device("meta"):
        model = getattr(diffusers, class_name)(**fields).eval()
    if part == "encoder":
        return [model.encoder, model.quant_conv], lambda: model.quant_conv(model.encoder(empty(1, 3, side, side)))
    if part == "decoder":
        latents = empty(1, 4, side // 8, side // 8)
        return [model.decoder, model.post_quant_conv], lambda: model.decoder(model.post_quant_conv(latents))
    added = {"text_embeds": empty(1, 1280), "time_ids": empty(1, 6)} if "addition_embed_type" in fields else None
    text = empty(1, 77, fields["cross_attention_dim"])
    return [model], lambda: model(empty(1, 4, side, side), ids(1)[0], text, added_cond_kwargs=added)


def inputs(config):
    kind = config.model_type
    if kind in ("t5", "mt5", "bart", "m2m_100"):
        return {"input_ids": ids(128), "decoder_input_ids": ids(64)}
    if kind == "whisper":
        return {"input_features": empty(1, config.num_mel_bins, 3000), "decoder_input_ids": ids(64)}
    if kind == "clip_text_model":
        return {"input_ids": ids(77)}
    side = getattr(config, "vision_config", config).image_size
    image = {"pixel_values": empty(1, 3, side, side)}
    return {"input_ids": ids(64), **image} if kind in ("clip", "siglip") else image


def transformer(fields):
    cls = getattr(transformers, fields.pop("architectures")[0])
    config = cls.config_class(**fields)
    with torch.device("meta"):
        model = cls._from_config(config, attn_implementation="eager").eval()
    return [model], lambda: model(**inputs(config))


def main():
    for name in TABLES:
        fields = {key: value for key, value in fields_of(name).items() if key not in OURS}
        if fields.get("_class_name") == "DiT":
            continue  # not in diffusers; its DiTTransformer2DModel embeds the time in every block
        untied = fields["vocab_size"] * fields["d_model"] if fields.get("tie_word_embeddings") is False else 0
        modules, run = diffusion(fields) if "_class_name" in fields else transformer(fields)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        parameters = sum(p.numel() for module in modules for p in module.parameters()) + untied
        print(name, parameters, counter.get_total_flops() // 2, flush=True)


if __name__ == "__main__":
    main()
