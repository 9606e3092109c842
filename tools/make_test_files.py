#!/usr/bin/env python3
"""Make the small hand-written test models: `unknown_operator.onnx`, `linear.pt2` and `abcdefgh.pt2`.

    python tools/make_test_files.py

Needs onnx and torch. The larger test files are real exports, stripped by `tools/strip_pt2.py`.
"""

import io
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper

from strip_pt2 import strip

DATA = Path(__file__).resolve().parent.parent / "crates/flopwise/tests/data"


def unknown_operator():
    """x [batch, 4] -> MatMul -> an operator nobody knows -> Relu."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3], [0.5] * 12)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
        helper.make_node("Mystery", ["product"], ["riddle"], name="mystery", domain="com.example"),
        helper.make_node("Relu", ["riddle"], ["y"], name="relu"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    riddle = helper.make_tensor_value_info("riddle", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "unknown", [x], [y], [weight], value_info=[riddle])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), DATA / "onnx/unknown_operator.onnx")


def linear_program():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(model, (torch.randn(2, 4),), dynamic_shapes=({0: batch},))


def linear():
    saved = io.BytesIO()
    torch.export.save(linear_program(), saved)
    strip(saved, DATA / "pt2/linear.pt2")


def eight_letters():
    """As torch writes it, with zip64 records. With a stem of eight letters the first member's header is as long as those
    records, and a reader that guesses where the archive begins guesses wrong."""
    program = linear_program()
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, DATA / "pt2/abcdefgh.pt2")


unknown_operator()
linear()
eight_letters()
