"""Parameters of the built-in models as transformers builds them of the same fields, without memory for the weights.

    python tools/built_in_parameters.py crates/flopwise/data/models/dense.toml > crates/flopwise/tests/data/arch/built_in.json

PaLM and Gopher, which transformers has no class for, are left out. Wants torch and transformers."""

import json
import sys
import tomllib

import torch
import transformers
from transformers import AutoConfig

RENAMED = {"MPTForCausalLM": "MptForCausalLM"}


def count(fields):
    fields = {key: value for key, value in fields.items() if key not in ("about", "source", "like")}
    [name] = fields.pop("architectures")
    cls = getattr(transformers, RENAMED.get(name, name))
    config = cls.config_class(**{k: v for k, v in fields.items() if k not in ("model_type", "torch_dtype")})
    with torch.device("meta"):
        model = cls(config)
    return sum(p.numel() for p in model.parameters())


def main():
    with open(sys.argv[1], "rb") as file:
        tables = tomllib.load(file)
    counts = {}
    for name, table in tables.items():
        if table.get("model_type", "") in ("palm", "gopher"):
            continue
        fields = {**tables.get(table.get("like"), {}), **table}
        try:
            counts[name] = count(fields)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps({"source": f"tools/built_in_parameters.py, {versions}", "parameters": counts}, indent=1))


main()
