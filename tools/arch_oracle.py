"""What transformers builds of a config, for the tests of `arch`: names and shapes of the weights, and the
multiply-accumulates that PyTorch's FlopCounterMode sees.

    python tools/arch_oracle.py CASES.py > crates/flopwise/tests/data/arch/CASES.json

CASES.py holds `CASES`, a list of (name, class of transformers, fields of the config, inputs), where inputs maps the name of
each input to a shape or to the values themselves; none means input_ids [2, 16]. Models are small (two to four layers) and run on
the CPU with random weights. Attention is eager, so every pair of a query and a key is counted. Wants torch and transformers."""

import json
import runpy
import sys

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode


def tensors(model):
    """Trained tensors by name; a tied one once, under its first name."""
    return {name: list(tensor.shape) for name, tensor in model.named_parameters()}


def flops(model, inputs):
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**inputs)
    return counter.get_total_flops()


def case(name, model_class, fields, shapes=None):
    torch.manual_seed(0)
    cls = getattr(transformers, model_class)
    config = cls.config_class(**fields)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"  # grouped products are not seen by the counter
    try:
        model = cls._from_config(config, attn_implementation="eager")
    except (TypeError, ValueError):
        model = cls(config)
    model = model.eval().float()
    inputs = {}
    for key, shape in (shapes or {"input_ids": [2, 16]}).items():
        integer = key.endswith("ids")
        inputs[key] = torch.ones(shape, dtype=torch.long) if integer else torch.randn(shape)
    row = {
        "name": name,
        "class": model_class,
        "config": dict(fields, model_type=config.model_type, torch_dtype="float32", architectures=[model_class]),
        "inputs": {key: list(value.shape) for key, value in inputs.items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tensors": tensors(model),
    }
    try:
        total = flops(model, inputs)
        assert total % 2 == 0
        row["macs"] = total // 2
    except Exception as error:  # some models run on a GPU only; their weights are still compared
        print(f"{name}: not run: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    return row


def main():
    cases = runpy.run_path(sys.argv[1])["CASES"]
    rows = [case(*row) for row in cases]
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps({"source": f"tools/arch_oracle.py, {versions}", "cases": rows}, indent=1))


if __name__ == "__main__":
    main()
