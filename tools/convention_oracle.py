#!/usr/bin/env python3
"""What other FLOP counters print for well-known models, beside the models' weightless `.pt2` exports.

    python tools/convention_oracle.py OUT_FOLDER [NAME ...]

Needs torch, torchvision, timm, transformers, fvcore, thop, ptflops, calflops and torchinfo. Writes
OUT_FOLDER/NAME.pt2 and OUT_FOLDER/counts.json: per model and tool the tool's own figure, or the error it stopped with.
Every model runs in a process of its own, since two of the tools leave PyTorch patched behind them.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import warnings
from pathlib import Path

import torch

from strip_pt2 import strip


SEGMENTATION = ("fcn_", "deeplabv3_", "lraspp_")


class Wrap(torch.nn.Module):
    """A transformers model with token numbers in and one tensor out: some counters take no more."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids)[0]


def text(model):
    return Wrap(model), (torch.randint(0, 90, (1, 24)),)


def image(model, size=224, batch=1):
    return model, (torch.randn(batch, 3, size, size),)


def vision(name, size=224, batch=1, **options):
    import torchvision

    if name.startswith(SEGMENTATION):
        options["weights_backbone"] = None
    return lambda: image(torchvision.models.get_model(name, weights=None, **options), size, batch)


def video(name):
    import torchvision

    return lambda: (torchvision.models.get_model(name, weights=None), (torch.randn(1, 3, 8, 64, 64),))


def timm_model(name, size=224):
    def build():
        import timm

        return image(timm.create_model(name, pretrained=False), size)

    return build


def language(kind):
    def build():
        import transformers as hf

        small = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        wide = {**small, "intermediate_size": 160}
        if kind == "bert_small":
            return text(hf.BertModel(hf.BertConfig(**wide)))
        if kind == "bert_eager":
            return text(hf.BertModel(hf.BertConfig(**wide, attn_implementation="eager")))
        if kind == "roberta_small":
            return text(hf.RobertaForMaskedLM(hf.RobertaConfig(**wide)))
        if kind == "gpt2_small":
            config = hf.GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4, n_positions=64, use_cache=False)
            return text(hf.GPT2LMHeadModel(config))
        if kind == "llama_gqa":
            return text(hf.LlamaForCausalLM(hf.LlamaConfig(**wide, num_key_value_heads=2, use_cache=False)))
        if kind == "llama_eager":
            config = hf.LlamaConfig(**wide, num_key_value_heads=2, use_cache=False, attn_implementation="eager")
            return text(hf.LlamaForCausalLM(config))
        if kind == "qwen2_small":
            return text(hf.Qwen2ForCausalLM(hf.Qwen2Config(**wide, num_key_value_heads=2, use_cache=False)))
        if kind == "t5_encoder":
            config = hf.T5Config(vocab_size=512, d_model=64, d_kv=16, d_ff=160, num_layers=2, num_heads=4, use_cache=False)
            return text(hf.T5EncoderModel(config))
        if kind == "distilbert":
            config = hf.DistilBertConfig(vocab_size=512, dim=64, n_layers=2, n_heads=4, hidden_dim=160)
            return text(hf.DistilBertModel(config))
        if kind == "albert":
            return text(hf.AlbertModel(hf.AlbertConfig(**wide, embedding_size=32)))
        if kind == "electra":
            return text(hf.ElectraModel(hf.ElectraConfig(**wide)))
        if kind == "opt":
            config = hf.OPTConfig(**small, ffn_dim=160, word_embed_proj_dim=64, max_position_embeddings=64, use_cache=False)
            return text(hf.OPTForCausalLM(config))
        if kind == "bloom":
            return text(hf.BloomForCausalLM(hf.BloomConfig(vocab_size=512, hidden_size=64, n_layer=2, n_head=4, use_cache=False)))
        if kind == "gpt_neox":
            return text(hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**wide, use_cache=False)))
        if kind == "mistral":
            config = hf.MistralConfig(**wide, num_key_value_heads=2, use_cache=False, sliding_window=None)
            return text(hf.MistralForCausalLM(config))
        if kind == "vit_hf":
            config = hf.ViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=160, image_size=64)

            class WrapImage(Wrap):
                def forward(self, x):
                    return self.model(x)[0]

            return WrapImage(hf.ViTModel(config)), (torch.randn(2, 3, 64, 64),)
        raise ValueError(kind)

    return build


class Plain(torch.nn.Module):
    """Layers and calls that the catalogues lack: recurrent, transposed, functional, einsum, addmm."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.up = torch.nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, groups=2)
        self.group = torch.nn.GroupNorm(4, 16)
        self.instance = torch.nn.InstanceNorm2d(8, affine=True)
        self.resize = torch.nn.Upsample(scale_factor=2, mode="bilinear")
        self.prelu = torch.nn.PReLU()
        self.leaky = torch.nn.LeakyReLU()
        self.pool = torch.nn.AvgPool2d(4)
        self.fc = torch.nn.Linear(128, 32, bias=False)

    def forward(self, x):
        import torch.nn.functional as F

        x = F.relu(self.group(self.conv(x)))
        x = self.leaky(self.instance(self.up(x)))
        x = F.max_pool2d(self.prelu(x), 2)
        x = F.interpolate(self.resize(x), scale_factor=0.5)
        x = self.pool(x).flatten(2)
        scores = torch.matmul(x, x.transpose(1, 2))
        x = torch.softmax(scores, -1) @ x + torch.einsum("bij,bjk->bik", scores, x)
        x = torch.mul(torch.add(x, 1.0), x)
        x = torch.bmm(x.transpose(1, 2), x).flatten(1)
        x = self.fc(F.pad(x, (0, 128))[:, :128])
        return F.softmax(torch.addmm(x, x, torch.eye(32)), -1)


class Encoder(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(64, options.pop("heads", 4), 128, batch_first=True, **options)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Attend(torch.nn.Module):
    """Multi-head attention in the forms that do, and do not, take the fused path in inference."""

    def __init__(self):
        super().__init__()
        self.fused = torch.nn.MultiheadAttention(64, 4, batch_first=True)
        self.odd = torch.nn.MultiheadAttention(63, 3, batch_first=True)
        self.second = torch.nn.MultiheadAttention(64, 4)
        self.cross = torch.nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, x):
        x = self.fused(x, x, x, need_weights=False)[0]
        x = torch.cat([self.odd(x[..., :63], x[..., :63], x[..., :63])[0], x[..., 63:]], -1)
        x = self.second(x, x, x)[0]
        return self.cross(x, x[:, :5], x[:, :5], need_weights=False)[0]


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(16, 32, num_layers=2, batch_first=True)
        self.gru = torch.nn.GRU(32, 24, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(48, 5)

    def forward(self, x):
        return self.head(self.gru(self.lstm(x)[0])[0])


def tokens(model, *shape):
    return lambda: (model(), (torch.randn(*shape),))


MODELS = {
    "plain": tokens(Plain, 2, 3, 32, 32),
    "encoder": tokens(Encoder, 2, 9, 64),
    "encoder_odd": tokens(lambda: Encoder(heads=1, norm_first=True), 2, 9, 64),
    "attend": tokens(Attend, 2, 9, 64),
    "recurrent": tokens(Recurrent, 3, 7, 16),
    **{name: language(name) for name in [
        "bert_small", "bert_eager", "roberta_small", "gpt2_small", "llama_gqa", "llama_eager", "qwen2_small", "t5_encoder",
        "vit_hf",
    ]},
    **{name: vision(name) for name in [
        "alexnet", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
        "regnet_x_400mf", "regnet_y_400mf", "densenet121", "efficientnet_b0", "convnext_tiny", "resnext50_32x4d", "swin_t",
        "swin_v2_t", "maxvit_t", "vit_b_32", "vgg11_bn", "efficientnet_v2_s",
    ]},
    "googlenet": vision("googlenet", aux_logits=False, init_weights=False),
    "inception_v3": vision("inception_v3", size=299, aux_logits=False, init_weights=False),
    "resnet18_batch3": vision("resnet18", size=96, batch=3),
    "fcn_resnet50": vision("fcn_resnet50", size=96),
    "deeplabv3_mobilenet_v3_large": vision("deeplabv3_mobilenet_v3_large", size=96),
    "lraspp_mobilenet_v3_large": vision("lraspp_mobilenet_v3_large", size=96),
    "r3d_18": video("r3d_18"),
    **{name: timm_model(name) for name in [
        "convnext_atto", "vit_tiny_patch16_224", "mixer_s32_224", "levit_128s", "poolformer_s12", "resnet26d", "gmlp_ti16_224",
    ]},
    "mobilevit_xxs": timm_model("mobilevit_xxs", 256),
    # A second round, counted after the rules were written.
    **{name: language(name) for name in ["distilbert", "albert", "electra", "opt", "bloom", "gpt_neox", "mistral"]},
    **{name: vision(name) for name in [
        "efficientnet_b1", "mnasnet1_3", "shufflenet_v2_x1_5", "regnet_y_800mf", "densenet169", "convnext_small", "swin_s",
        "resnet50", "vgg13", "squeezenet1_0",
    ]},
    "fcn_resnet101": vision("fcn_resnet101", size=64),
    "mc3_18": video("mc3_18"),
    **{name: timm_model(name) for name in [
        "deit_tiny_distilled_patch16_224", "ghostnet_100", "mobilenetv3_small_100", "xcit_nano_12_p16_224", "pit_ti_224",
        "resnetv2_50", "regnety_002", "repvgg_a0", "cait_xxs24_224", "efficientformer_l1", "visformer_tiny", "hardcorenas_a",
        "dla34", "resmlp_12_224", "crossvit_tiny_240", "tf_efficientnet_lite0",
    ]},
}  # fmt: skip


def first_tensor(model):
    """Counters that trace want tensors: the segmentation models answer with a dictionary."""

    class First(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x)["out"]

    return First()


def by_flop_counter(model, inputs):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    by_op = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    return {"total": counter.get_total_flops(), "by_op": by_op}


def by_fvcore(model, inputs):
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

    counted = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    activations = ActivationCountAnalysis(model, inputs).unsupported_ops_warnings(False)
    return {
        "total": int(counted.total()),
        "by_op": {op: int(count) for op, count in counted.by_operator().items()},
        "activations": int(activations.uncalled_modules_warnings(False).total()),
    }


def by_thop(model, inputs):
    from thop import profile

    return {"total": int(profile(model, inputs=inputs, verbose=False)[0])}


def by_ptflops(backend):
    def count(model, inputs):
        from ptflops import get_model_complexity_info

        # The tool makes its own input unless it is given one by the names of the arguments.
        import inspect

        names = list(inspect.signature(model.forward).parameters)
        macs, _ = get_model_complexity_info(
            model, (1,), input_constructor=lambda _: dict(zip(names, inputs)), as_strings=False, backend=backend,
            print_per_layer_stat=False, verbose=False,
        )  # fmt: skip
        return {"total": macs}

    return count


def by_ptflops_positional(model, inputs):
    """As `ptflops` runs images: the input is positional, so that its figure is one of a sample."""
    import ptflops.pytorch_engine as engine

    original = torch.Tensor.new_empty
    torch.Tensor.new_empty = lambda *args, **kwargs: inputs[0]
    try:
        macs, _ = engine.get_flops_pytorch(model, (1,), print_per_layer_stat=False)
    finally:
        torch.Tensor.new_empty = original
    return {"total": macs}


def by_torchinfo(model, inputs):
    import torchinfo

    return {"total": torchinfo.summary(model, input_data=inputs, verbose=0).total_mult_adds}


def by_calflops(model, inputs):
    from calflops import calculate_flops

    flops, macs, _ = calculate_flops(model=model, args=list(inputs), output_as_string=False, print_results=False)
    return {"total": flops, "macs": macs}


TOOLS = {
    "flopcounter": by_flop_counter,
    "fvcore": by_fvcore,
    "thop": by_thop,
    "ptflops": by_ptflops("aten"),
    "torchinfo": by_torchinfo,
    "ptflops-pytorch": by_ptflops_positional,
    "deepspeed": by_calflops,
}


def examine(name, folder, queue):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    build = MODELS[name]
    found = {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model, inputs = build()
        model = model.eval()
        if name.startswith(SEGMENTATION):
            model = first_tensor(model).eval()
        found["input"] = [list(tensor.shape) for tensor in inputs]
        saved = io.BytesIO()
        torch.export.save(torch.export.export(model, inputs), saved)
        strip(saved, folder / f"{name}.pt2")
        for tool, count in TOOLS.items():
            # No tool but one undoes everything it does to a model, so each gets a copy.
            import copy

            try:
                with torch.no_grad():
                    found[tool] = count(copy.deepcopy(model), inputs)
            except Exception as error:  # the tool's own limits are part of the answer
                found[tool] = {"error": f"{type(error).__name__}: {error}"[:200]}
    queue.put(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to count; all when none is given")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    counts_file = args.out / "counts.json"
    counts = json.loads(counts_file.read_text()) if counts_file.exists() else {}
    for name in args.names or MODELS:
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=examine, args=(name, args.out, queue))
        process.start()
        while process.is_alive() and queue.empty():
            process.join(0.2)
        if queue.empty():
            print(f"{name}: failed", flush=True)
            continue
        counts[name] = queue.get()
        process.join()
        print(f"{name}: " + ", ".join(f"{t} {counts[name][t].get('total', 'error')}" for t in TOOLS), flush=True)
        counts_file.write_text(json.dumps(counts, indent=1, default=int) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
