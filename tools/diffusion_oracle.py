"""What diffusers builds of a config, for the tests of `arch`: names and shapes of the weights, and the multiply-accumulates
that PyTorch's FlopCounterMode sees. Nothing is computed: the models live on the meta device.

    python tools/diffusion_oracle.py > crates/flopwise/tests/data/arch/diffusion.json

Wants torch and diffusers."""

import json

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

UNET = dict(
    sample_size=16,
    block_out_channels=[32, 64],
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    layers_per_block=2,
    cross_attention_dim=24,
    attention_head_dim=4,
    norm_num_groups=8,
)
XL = dict(
    UNET,
    block_out_channels=[32, 64, 96],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    transformer_layers_per_block=[1, 2, 3],
    attention_head_dim=[2, 4, 8],
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=16,
    projection_class_embeddings_input_dim=6 * 16 + 40,
)
VAE = dict(
    sample_size=32,
    block_out_channels=[16, 32, 32],
    down_block_types=["DownEncoderBlock2D"] * 3,
    up_block_types=["UpDecoderBlock2D"] * 3,
    layers_per_block=2,
    norm_num_groups=8,
)
DIT = dict(sample_size=16, num_layers=2, num_attention_heads=4, attention_head_dim=8)
CASES = [
    ("unet", "UNet2DConditionModel", UNET),
    ("unet, other channels", "UNet2DConditionModel", dict(UNET, in_channels=9, out_channels=5, layers_per_block=[1, 3], conv_in_kernel=5)),
    ("unet, odd sizes", "UNet2DConditionModel", dict(XL, sample_size=[18, 15], addition_embed_type=None)),
    ("unet, xl", "UNet2DConditionModel", XL),
    ("vae", "AutoencoderKL", VAE),
    ("vae, bare", "AutoencoderKL", dict(VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)),
    ("vae, encoder", "AutoencoderKL", dict(VAE, part="encoder")),
    ("vae, decoder", "AutoencoderKL", dict(VAE, part="decoder", layers_per_block=1)),
    ("dit", "DiTTransformer2DModel", DIT),
    ("dit, patches of 4", "DiTTransformer2DModel", dict(DIT, patch_size=4, out_channels=8, attention_bias=False, num_embeds_ada_norm=10)),
]


def inputs(class_name, fields):
    size = fields["sample_size"]
    height, width = size if isinstance(size, list) else (size, size)
    if class_name == "AutoencoderKL":
        return {"sample": torch.empty(2, 3, height, width, device="meta")}
    channels = fields.get("in_channels", 4)
    latents = torch.empty(2, channels, height, width, device="meta")
    times = torch.zeros(2, dtype=torch.long, device="meta")
    if class_name == "DiTTransformer2DModel":
        return {"hidden_states": latents, "timestep": times, "class_labels": times}
    text = torch.empty(2, 7, fields["cross_attention_dim"], device="meta")
    given = {"sample": latents, "timestep": times, "encoder_hidden_states": text}
    if fields.get("addition_embed_type"):
        pooled = fields["projection_class_embeddings_input_dim"] - 6 * fields["addition_time_embed_dim"]
        added = {"text_embeds": torch.empty(2, pooled, device="meta"), "time_ids": torch.empty(2, 6, device="meta")}
        given["added_cond_kwargs"] = added
    return given


def half(model, part, given):
    """The modules of one half of an autoencoder, and what runs them."""
    image = given["sample"]
    if part == "encoder":
        modules = torch.nn.ModuleDict({"encoder": model.encoder, "quant_conv": model.quant_conv})
        return modules, {"sample": image}, lambda: model.quant_conv(model.encoder(image))
    latents = model.quant_conv(model.encoder(image))[:, : model.config.latent_channels]
    modules = torch.nn.ModuleDict({"decoder": model.decoder, "post_quant_conv": model.post_quant_conv})
    return modules, {"sample": latents}, lambda: model.decoder(model.post_quant_conv(latents))


def case(name, class_name, fields):
    fields = dict(fields)
    described = dict(fields, _class_name=class_name, torch_dtype="float32")
    part = fields.pop("part", None)
    with torch.device("meta"):
        model = getattr(diffusers, class_name)(**fields).eval()
    given = inputs(class_name, fields)
    modules, run = model, lambda: model(**given)
    with torch.no_grad():
        if part:
            modules, given, run = half(model, part, given)
        counter = FlopCounterMode(display=False)
        with counter:
            run()
    total = counter.get_total_flops()
    assert total % 2 == 0
    return {
        "name": name,
        "class": class_name,
        "config": described,
        "inputs": {key: list(value.shape) for key, value in given.items() if hasattr(value, "shape")},
        "parameters": sum(p.numel() for p in modules.parameters()),
        "tensors": {key: list(tensor.shape) for key, tensor in modules.named_parameters()},
        "macs": total // 2,
    }


def main():
    rows = [case(*row) for row in CASES]
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    print(json.dumps({"source": f"tools/diffusion_oracle.py, {versions}", "cases": rows}, indent=1))


if __name__ == "__main__":
    main()
