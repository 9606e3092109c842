#!/usr/bin/env python3
"""Compares the output types that `flopwise count --json` finds on the operator tests of the PyPI
package `onnx` with what those models declare, and with onnx's own C++ shape inference.

    python tools/onnx_node_tests.py target/release/flopwise [--filter TEXT] [--list STATE]
                                    [--with-values] [--symbolic] [--jobs N]

Every model is written to a temporary folder without the shapes of its outputs and without
`value_info`; element types stay. A result is

    exact    every output has the declared type and every length
    partly   nothing contradicts, but a length, or the shape of some outputs, is not known
    unknown  no output has a shape
    wrong    a length, a rank or an element type contradicts the declared one
    crash    a signal, an exit code other than 0 and 1, or no JSON

With `--with-values` the inputs of an operator's test that hold at most 16 numbers are stored in the
model with the test's own values, so that shapes that hang on them (a reshape's target, a slice's
bounds) can be found.

With `--symbolic` every length of an input becomes a symbol; the lengths found are evaluated with the
symbols' values before they are compared.

Outputs that are sequences or optionals have no shape in the JSON and are left out of the
comparison; a model with no other outputs is counted as `no tensor`.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

# The names that flopwise prints, by ONNX data type.
FORMATS = {
    "FLOAT": "fp32", "UINT8": "uint8", "INT8": "int8", "UINT16": "uint16", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "STRING": "text", "BOOL": "bool", "FLOAT16": "fp16",
    "DOUBLE": "fp64", "UINT32": "uint32", "UINT64": "uint64", "COMPLEX64": "complex64",
    "COMPLEX128": "complex128", "BFLOAT16": "bf16", "FLOAT8E4M3FN": "e4m3fn",
    "FLOAT8E4M3FNUZ": "e4m3fnuz", "FLOAT8E5M2": "e5m2", "FLOAT8E5M2FNUZ": "e5m2fnuz",
    "UINT4": "uint4", "INT4": "int4", "FLOAT4E2M1": "e2m1", "FLOAT8E8M0": "e8m0",
    "UINT2": "uint2", "INT2": "int2",
}
SUITES = ["simple", "pytorch-operator", "pytorch-converted"]
STATES = ["exact", "partly", "unknown", "wrong", "crash", "no tensor"]


def models():
    """(name, model, values of its inputs) of every test. The package generates those of the operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            values = case.data_sets[0][0] if case.data_sets else []
            yield f"node/{case.name}", case.model, values
    data = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    for suite in SUITES:
        folder = os.path.join(data, suite)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name, "model.onnx")
            if os.path.exists(path):
                yield f"{suite}/{name}", onnx.load(path, load_external_data=False), []


def tensor_type(value_type):
    """(format, shape or None) of a tensor; None for any other type."""
    if value_type.WhichOneof("value") != "tensor_type":
        return None
    tensor = value_type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None
                 for d in tensor.shape.dim]
    return FORMATS.get(TensorProto.DataType.Name(tensor.elem_type)), shape


def strip(model):
    """The model without the shapes of its results."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.value_info[:]
    for output in model.graph.output:
        if output.type.WhichOneof("value") == "tensor_type":
            output.type.tensor_type.ClearField("shape")
    return model


def store(model, values):
    """Stores the small inputs in the model, with these values."""
    kept = []
    for value, info in zip(values, list(model.graph.input)):
        value = np.asarray(value) if isinstance(value, np.generic) else value
        is_small = isinstance(value, np.ndarray) and value.size <= 16
        is_number = is_small and value.dtype.name in ("int64", "int32", "float32", "bool")
        kept.append(not is_number)
        if is_number:
            model.graph.initializer.append(numpy_helper.from_array(value, info.name))
    rest = [info for info, keep in zip(model.graph.input, kept) if keep]
    rest += model.graph.input[len(kept):]
    del model.graph.input[:]
    model.graph.input.extend(rest)


def open_sizes(model):
    """Puts a symbol in place of every length above 1 of the inputs: `d3` for 3."""
    stored = {tensor.name for tensor in model.graph.initializer}
    for info in model.graph.input:
        if info.name not in stored and info.type.WhichOneof("value") == "tensor_type":
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_value > 1:
                    dim.dim_param = f"d{dim.dim_value}"


def compare(expected, found):
    """The state of one model: `expected` and `found` map names to (format, shape or None)."""
    if not expected:
        return "no tensor", ""
    known = 0
    full = 0
    for name, (data_type, shape) in expected.items():
        found_type, found_shape = found.get(name, (None, None))
        if found_shape is None:
            continue
        known += 1
        is_open = shape is None
        if found_type is not None and data_type is not None and found_type != data_type:
            return "wrong", f"{name}: {found_type}, declared {data_type}"
        if shape is not None and len(shape) != len(found_shape):
            return "wrong", f"{name}: {found_shape}, declared {shape}"
        for at, length in enumerate(shape or []):
            got = found_shape[at]
            if isinstance(length, int) and isinstance(got, int) and got != length:
                return "wrong", f"{name}: {found_shape}, declared {shape}"
            is_open |= isinstance(length, int) and not isinstance(got, int)
        full += not is_open
    if full == len(expected):
        return "exact", ""
    return ("partly" if known else "unknown"), ""


def number(text):
    """The value of a length such as `3` or `2*d4 + floordiv(d7, 2)`; None if it is open."""
    names = {name: int(name[1:]) for name in re.findall(r"\bd[0-9]+\b", text)}
    functions = {"floordiv": lambda a, b: a // b, "min": min, "max": max}
    try:
        return int(eval(text.replace("^", "**"), {"__builtins__": {}}, names | functions))
    except (NameError, SyntaxError, AttributeError, TypeError):
        return None


def by_flopwise(binary, path, names):
    """({name: (format, shape)}, reason) or (None, how it failed)."""
    try:
        done = subprocess.run([binary, "count", path, "--json"], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None, "no answer in 60 s"
    if done.returncode not in (0, 1):
        return None, f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return None, "no JSON"
    found = {}
    # By place: an output may be another tensor under a second name.
    for name, output in zip(names, answer["outputs"]):
        shape = output["shape"]
        shape = None if shape is None else [number(length) for length in shape]
        found[name] = (output["format"], shape)
    reasons = [f"{u['op']}: {u['reason']}" for u in answer["unknown"]]
    return found, "; ".join(reasons)


def by_onnx(model):
    """As by_flopwise, by the C++ reference."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # any refusal counts alike
        return None, str(error).strip().splitlines()[0] if str(error) else "error"
    types = {o.name: tensor_type(o.type) for o in inferred.graph.output}
    return {name: found for name, found in types.items() if found}, ""


def judge(options, folder, number_of_model, name, model, values):
    expected = {o.name: tensor_type(o.type) for o in model.graph.output}
    expected = {n: t for n, t in expected.items() if t}
    stripped = strip(model)
    if options.with_values:
        store(stripped, values)
    if options.symbolic:
        open_sizes(stripped)
    file = os.path.join(folder, f"{number_of_model}.onnx")
    onnx.save(stripped, file)
    results = []
    names = [output.name for output in model.graph.output]
    for found, reason in [by_flopwise(options.flopwise, file, names), by_onnx(stripped)]:
        if found is None:
            results.append(("crash", reason))
        else:
            state, why = compare(expected, found)
            results.append((state, why or reason))
    os.remove(file)
    return name, results, stripped, expected


def write_sample(folder, judged):
    """Writes models whose types are found exactly: one per operator and attribute set first."""
    chosen = {}
    for exact_only_by_us in (False, True):
        for name, results, model, expected in judged:
            operators = sorted({node.op_type for node in model.graph.node})
            key = (tuple(operators), exact_only_by_us and name)
            # The rest of the 200 are those that the reference does not find.
            wanted = (results[1][0] != "exact") if exact_only_by_us else len(operators) == 1
            small = model.ByteSize() <= 2000 and all(
                isinstance(length, int) for _, shape in expected.values()
                for length in ([None] if shape is None else shape))
            if (results[0][0] == "exact" and wanted and small and name not in chosen
                    and not any(k == key for k, _, _ in chosen.values()) and len(chosen) < 200):
                chosen[name] = (key, model, expected)
    os.makedirs(folder, exist_ok=True)
    with (open(os.path.join(folder, "models.bin"), "wb") as models_file,
          open(os.path.join(folder, "expected.txt"), "w", encoding="utf-8") as expected_file):
        for name, (_, model, expected) in sorted(chosen.items()):
            model.producer_name = ""
            data = model.SerializeToString()
            models_file.write(data)
            types = [f"{data_type}[{', '.join(map(str, shape))}]"
                     for data_type, shape in expected.values()]
            expected_file.write(f"{name}\t{len(data)}\t{'; '.join(types)}\n")
    print(f"{len(chosen)} models written to {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("flopwise", help="the binary")
    parser.add_argument("--filter", default="", help="only models whose name holds this text")
    parser.add_argument("--list", choices=STATES + ["all"], help="name the models in this state")
    parser.add_argument("--with-values", action="store_true", help="store small inputs")
    parser.add_argument("--symbolic", action="store_true", help="open all lengths of inputs")
    parser.add_argument("--sample", help="write 200 of the models to this folder")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen = [test for test in models() if options.filter in test[0]]
    with tempfile.TemporaryDirectory() as folder:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            jobs = [pool.submit(judge, options, folder, at, *job)
                    for at, job in enumerate(chosen)]
            judged = [job.result() for job in jobs]
    ours = collections.Counter()
    theirs = collections.Counter()
    if options.sample:
        write_sample(options.sample, judged)
    for name, ((state, reason), (reference, _)), _, _ in judged:
        group = name.split("/")[0] + (" expanded" if name.endswith("_expanded")
                                      or "_expanded_ver" in name else "")
        ours[group, state] += 1
        theirs[group, reference] += 1
        if options.list in (state, "all"):
            print(f"{state:9} {reference:9} {name}  {reason[:200]}")
    print(f"onnx {onnx.__version__}: flopwise / onnx.shape_inference (strict)")
    print(f"{'':26}" + "".join(f"{state:>14}" for state in STATES))
    groups = sorted({group for group, _ in ours})
    for group in [*groups, "all"]:
        cells = ""
        for state in STATES:
            pair = [sum(n for (g, s), n in counts.items()
                        if s == state and group in (g, "all"))
                    for counts in (ours, theirs)]
            cells += f"{pair[0]:>7} /{pair[1]:>5}"
        print(f"{group:26}{cells}")
    bad = sum(ours[group, state] for group in groups for state in ("wrong", "crash"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
