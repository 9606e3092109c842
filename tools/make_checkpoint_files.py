#!/usr/bin/env python3
"""Make the checkpoints that `crates/flopwise/src/weights/*_tests.rs` read, and `expected.json`: what is in them.

    python tools/make_checkpoint_files.py

Needs torch, safetensors and onnx: the files are what those libraries write. For each tensor `expected.json` has the name,
the format, the shape and the bytes in hexadecimal, in the order in which they lie in the file.
"""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "crates/flopwise/tests/data/tensors/checkpoints"
FORMATS = {
    torch.float32: "fp32", torch.float64: "fp64", torch.float16: "fp16", torch.bfloat16: "bf16", torch.uint8: "uint8",
    torch.int8: "int8", torch.int16: "int16", torch.int32: "int32", torch.int64: "int64", torch.uint16: "uint16",
    torch.uint32: "uint32", torch.uint64: "uint64", torch.bool: "bool", torch.complex64: "complex64",
    torch.complex128: "complex128", torch.float8_e4m3fn: "e4m3fn", torch.float8_e5m2: "e5m2",
    torch.float8_e4m3fnuz: "e4m3fnuz", torch.float8_e5m2fnuz: "e5m2fnuz", torch.float8_e8m0fnu: "e8m0",
    torch.float4_e2m1fn_x2: "e2m1",
}  # fmt: skip
expected = {}


def as_bytes(tensor):
    """The bytes as they lie in the storage, where they lie side by side."""
    if tensor.numel() == 0:
        return b""
    if tensor.dim() == 0:
        return as_bytes(tensor.reshape(1))
    axes = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
    return bytes(tensor.permute(axes).contiguous().view(torch.uint8).flatten().tolist())


def expect(file, tensors, unread=()):
    """What `file` holds: names and tensors; `unread` are listed without their bytes."""
    expected[file] = {
        name: {
            "format": FORMATS[tensor.dtype],
            "shape": list(tensor.shape[:-1]) + [2 * tensor.shape[-1]]
            if tensor.dtype == torch.float4_e2m1fn_x2
            else list(tensor.shape),
            "bytes": None if name in unread else as_bytes(tensor.detach()).hex(),
        }
        for name, tensor in tensors.items()
    }


def every_dtype():
    tensors = {}
    for dtype, name in FORMATS.items():
        width = torch.empty((), dtype=dtype).element_size()
        data = [0, 1] * 4 if dtype == torch.bool else [byte % 251 for byte in range(8 * width)]
        tensors[name] = torch.tensor(data, dtype=torch.uint8).view(dtype).reshape(2, 4)
    return tensors


def dtypes():
    tensors = every_dtype()
    torch.save(tensors, OUT / "dtypes.pt")
    expect("dtypes.pt", tensors)
    # The members deflated, and, in another file, every number turned around.
    with zipfile.ZipFile(OUT / "dtypes.pt") as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    repack("deflated.pt", members, zipfile.ZIP_DEFLATED)
    expected["deflated.pt"] = expected["dtypes.pt"]
    small = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.arange(3, dtype=torch.int16)}
    torch.save(small, OUT / "big_endian.pt")
    with zipfile.ZipFile(OUT / "big_endian.pt") as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    swapped = {}
    for name, data in members.items():
        if name.endswith("byteorder"):
            data = b"big"
        if "/data/" in name:
            width = 4 if len(data) == 24 else 2
            data = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
        swapped[name] = data
    repack("big_endian.pt", swapped, zipfile.ZIP_STORED)
    expect("big_endian.pt", small)


def repack(name, members, method):
    with zipfile.ZipFile(OUT / name, "w") as archive:
        for member, data in members.items():
            info = zipfile.ZipInfo(member)
            info.compress_type = method
            archive.writestr(info, data)


def trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(6.0).reshape(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def protocols():
    model, optimizer = trained()
    checkpoint = {
        "epoch": 3, "rate": 1e-4, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(),
        "device": torch.device("cpu"), "dtype": torch.float32, "size": torch.Size([2, 3]), "rng": b"x" * 300,
        "history": [0.5, torch.tensor([1.0, 2.0])], "set": {1, 2}, 7: (torch.tensor([3], dtype=torch.int8),),
    }  # fmt: skip
    tensors = {f"state_dict.{name}": tensor for name, tensor in model.state_dict().items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.state.{place}.{name}": tensor for name, tensor in state.items()}
    tensors |= {"history.1": checkpoint["history"][1], "7.0": checkpoint[7][0]}
    for protocol in [2, 3, 4, 5]:
        for is_zip in [True, False]:
            name = f"{'zip' if is_zip else 'legacy'}{protocol}.pt"
            torch.save(checkpoint, OUT / name, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
            expect(name, tensors)


def views():
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    tied = torch.nn.Parameter(matrix.to(torch.bfloat16))
    tensors = {
        "whole": base, "part": base[1], "transposed": matrix.t(), "column": matrix[:, 1], "spread": matrix[:, ::2],
        "expanded": torch.zeros(1).expand(1000, 1000), "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(1.5, dtype=torch.float64), "empty": torch.zeros(0, 3), "row_of_one": matrix.t()[:, :1].t(),
        "embedding.weight": tied, "head.weight": tied, "parameter": torch.nn.Parameter(matrix.clone()),
    }  # fmt: skip
    unread = ("column", "spread", "expanded")
    for name, is_zip in [("views.pt", True), ("views_legacy.pt", False)]:
        torch.save(tensors, OUT / name, _use_new_zipfile_serialization=is_zip)
        expect(name, tensors, unread)


def modules():
    """A whole nn.Module, whose classes are names here and nothing more."""
    model, _ = trained()
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, is_zip in [("module.pt", True), ("module_legacy.pt", False)]:
        torch.save(model, OUT / name, _use_new_zipfile_serialization=is_zip)
        expect(name, tensors)


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Builds:
    """Pickles as an object whose state is set."""

    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state


def malicious():
    good = torch.arange(4, dtype=torch.float32)
    command = "touch /tmp/flopwise_was_run"
    evil = {
        "before": good, "system": Runs(os.system, command), "eval": Runs(eval, f"__import__('os').system('{command}')"),
        "nested": Runs(getattr, Runs(__import__, "os"), "system"), "inside": {"weight": Runs(exec, command), "bias": good + 1},
        "object": Builds({"hidden": good + 2, "run": Runs(os.system, command)}), "after": good + 3,
    }  # fmt: skip
    tensors = {"before": good, "inside.bias": good + 1, "object.hidden": good + 2, "after": good + 3}
    for name, is_zip in [("malicious.pt", True), ("malicious_legacy.pt", False)]:
        torch.save(evil, OUT / name, _use_new_zipfile_serialization=is_zip)
        expect(name, tensors)
    (OUT / "plain.pkl").write_bytes(pickle.dumps({"weight": Runs(os.system, command)}, 2))


def onnx_files():
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    kinds = {
        "float": ("fp32", numbers), "double": ("fp64", numbers), "int32": ("int32", numbers - 3), "int64": ("int64", numbers - 3),
        "uint64": ("uint64", numbers), "uint32": ("uint32", numbers), "int8": ("int8", numbers - 3), "uint8": ("uint8", numbers),
        "int16": ("int16", numbers - 3), "uint16": ("uint16", numbers), "bool": ("bool", numbers % 2), "float16": ("fp16", numbers),
        "bfloat16": ("bf16", numbers), "float8e4m3fn": ("e4m3fn", numbers), "float8e5m2": ("e5m2", numbers),
        "complex64": ("complex64", numbers + 1j), "complex128": ("complex128", numbers + 1j),
        "int4": ("int4", np.arange(8).reshape(2, 4) - 4), "uint4": ("uint4", np.arange(8).reshape(2, 4)),
        "float4e2m1": ("e2m1", np.arange(8).reshape(2, 4) % 5), "int2": ("int2", np.arange(8).reshape(2, 4) % 2),
    }  # fmt: skip
    initializers, entries = [], {}
    for name, (form, values) in kinds.items():
        data_type = getattr(TensorProto, name.upper())
        dtype = helper.tensor_dtype_to_np_dtype(data_type)
        values = np.asarray(values).astype(dtype)
        raw = numpy_helper.from_array(values, f"raw.{name}")
        listed = helper.make_tensor(f"list.{name}", data_type, values.shape, values.flatten())
        assert raw.HasField("raw_data") and not listed.HasField("raw_data")
        initializers += [raw, listed]
        for tensor in [raw, listed]:
            entries[tensor.name] = {"format": form, "shape": list(values.shape), "bytes": raw.raw_data.hex()}
    inner = numpy_helper.from_array(numbers, "inner")
    branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["y"])], "branch", [], [helper.make_tensor_value_info("y", 1, [2, 3])], [inner])
    choice = helper.make_node("If", ["condition"], ["z"], name="choice", then_branch=branch, else_branch=branch)
    for side in ["then_branch", "else_branch"]:
        entries[f"choice/{side}/inner"] = {"format": "fp32", "shape": [2, 3], "bytes": numbers.tobytes().hex()}
    graph = helper.make_graph(
        [choice], "g", [helper.make_tensor_value_info("condition", 9, [])], [helper.make_tensor_value_info("z", 1, [2, 3])], initializers
    )
    model = helper.make_model(graph)
    onnx.save(model, OUT / "initializers.onnx")
    expected["initializers.onnx"] = entries
    weights = {f"w{place}": numbers + place for place in range(3)}
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph([helper.make_node("Sum", list(weights), ["y"])], "g", [], [helper.make_tensor_value_info("y", 1, [2, 3])], tensors)
    onnx.save(helper.make_model(graph), OUT / "external.onnx", save_as_external_data=True, location="external.data", size_threshold=0)
    expected["external.onnx"] = {
        name: {"format": "fp32", "shape": [2, 3], "bytes": values.tobytes().hex()} for name, values in weights.items()
    }


def shards():
    """A model over two files with an index; one scale lies in the other file."""
    numbers = torch.arange(4, dtype=torch.float32).reshape(2, 2)
    files = {
        "model-00001-of-00002": {"a.weight": numbers, "b.weight": numbers.to(torch.float8_e4m3fn)},
        "model-00002-of-00002": {"b.weight_scale_inv": torch.ones(1, 1), "c.weight": numbers.half()},
    }
    for folder, ending, index in [("sharded", "safetensors", "model.safetensors"), ("sharded_bin", "bin", "pytorch_model.bin")]:
        (OUT / folder).mkdir()
        for name, tensors in files.items():
            path = OUT / folder / f"{name}.{ending}"
            save_file(tensors, path, {"format": "pt"}) if ending == "safetensors" else torch.save(tensors, path)
        weight_map = {name: f"{file}.{ending}" for file, tensors in files.items() for name in tensors}
        total = sum(t.numel() * t.element_size() for tensors in files.values() for t in tensors.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1)
        (OUT / folder / f"{index}.index.json").write_text(text + "\n")
        expect(folder, {name: t for tensors in files.values() for name, t in tensors.items()})


shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
dtypes()
protocols()
views()
modules()
malicious()
onnx_files()
shards()
(OUT / "expected.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")
for path in OUT.rglob("*.*"):
    path.chmod(0o644)
