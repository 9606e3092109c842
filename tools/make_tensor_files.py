#!/usr/bin/env python3
"""Make the small tensor files that `crates/flopwise/src/weights/tests.rs` reads.

    python tools/make_tensor_files.py

Needs numpy, ml_dtypes and safetensors: the files are what those libraries write. Running it twice gives the same bytes.
"""

import io
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from numpy.lib import format as npy

OUT = Path(__file__).resolve().parent.parent / "crates/flopwise/tests/data/tensors"

# The dtypes of whole bytes: the library's name and the width; filled with bytes 0, 1, 2 ..
DTYPES = {
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "F8_E5M2": ("float8_e5m2", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E8M0": ("float8_e8m0fnu", 1), "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1), "I16": ("int16", 2), "U16": ("uint16", 2), "F16": ("float16", 2),
    "BF16": ("bfloat16", 2), "I32": ("int32", 4), "U32": ("uint32", 4), "F32": ("float32", 4), "C64": ("complex64", 8),
    "F64": ("float64", 8), "I64": ("int64", 8), "U64": ("uint64", 8),
}  # fmt: skip


def save(name, data):
    (OUT / name).write_bytes(data)


def serialize(tensors, metadata):
    """The library takes addresses; `tensors` keeps the bytes behind them alive."""
    buffers = {name: np.frombuffer(data, np.uint8) for name, (_, _, data) in tensors.items()}
    specs = {
        name: safetensors.TensorSpec(
            dtype=dtype, shape=shape, data_ptr=buffers[name].ctypes.data, data_len=len(data)
        )
        for name, (dtype, shape, data) in tensors.items()
    }
    return safetensors.serialize(specs, metadata)


def dtypes():
    """One tensor of 2 x 4 elements of each dtype, one scalar and one empty tensor."""
    tensors = {}
    for dtype, (name, width) in DTYPES.items():
        data = bytes(8) if dtype == "BOOL" else bytes(range(8 * width))
        tensors[f"t.{dtype.lower()}"] = (name, [2, 4], data)
    # Codes 0 to 7, two in a byte, the first in the lower half; the shape is that of the bytes.
    tensors["t.f4"] = ("float4_e2m1fn_x2", [2, 2], bytes([0x10, 0x32, 0x54, 0x76]))
    tensors["scalar"] = ("float32", [], np.float32(1.5).tobytes())
    tensors["empty"] = ("float32", [0, 3], b"")
    save("dtypes.safetensors", serialize(tensors, {"format": "pt"}))


def arrays():
    """0, 1, 2 .. in every dtype, byte order and axis order."""
    numbers = np.arange(6).reshape(2, 3)
    for name in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]:
        for order, word in [("<", "little"), (">", "big")]:
            if order == ">" and name[1:] == "1":
                continue
            yield f"{name}_{word}", numbers.astype(order + name)
    yield "bool", numbers % 2 == 1
    yield "fortran", np.asfortranarray(numbers.astype("<f4"))
    yield "scalar", np.float64(2.5)
    yield "empty", np.zeros((0, 3), "<f4")
    for name in ["bfloat16", "float8_e4m3fn", "float8_e5m2"]:
        yield name, numbers.astype(getattr(ml_dtypes, name))


def npy_files():
    numbers = np.arange(6, dtype="<f4").reshape(2, 3)
    for version in [(1, 0), (2, 0), (3, 0)]:
        data = io.BytesIO()
        npy.write_array(data, numbers, version)
        save(f"version{version[0]}.npy", data.getvalue())
    np.save(OUT / "objects.npy", np.array([1, "x", None], object), allow_pickle=True)
    np.save(OUT / "records.npy", np.zeros(2, [("a", "<f4"), ("b, ]'", ">i2")]))
    np.save(OUT / "text.npy", np.array(["ab", "c"]))
    np.save(OUT / "long_double.npy", np.zeros(2, np.longdouble))


def npz(name, method):
    """As numpy.savez writes it, zip64 fields in every header, but without the time of day."""
    with zipfile.ZipFile(OUT / name, "w") as archive:
        for member, array in arrays():
            info = zipfile.ZipInfo(f"{member}.npy")
            info.compress_type = method
            with archive.open(info, "w", force_zip64=True) as file:
                npy.write_array(file, np.asanyarray(array))


OUT.mkdir(parents=True, exist_ok=True)
dtypes()
npy_files()
npz("stored.npz", zipfile.ZIP_STORED)
npz("deflated.npz", zipfile.ZIP_DEFLATED)
