#!/usr/bin/env python3
"""Rewrite ONNX files so that the stack traces in them do not show the paths of the machine that made them.

    python tools/strip_onnx.py OUT_FOLDER FILE.onnx ...

Needs onnx. External weights are not read and need not be there.
"""

import sys
from pathlib import Path

import onnx

from strip_pt2 import shorten_trace


def strip(graph):
    for node in graph.node:
        for entry in node.metadata_props:
            if "stack_trace" in entry.key:
                entry.value = shorten_trace(entry.value)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                strip(attribute.g)


def main():
    out, *files = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        model = onnx.load(file, load_external_data=False)
        strip(model.graph)
        (out / file.name).write_bytes(model.SerializeToString())
        print(f"{out / file.name}  {(out / file.name).stat().st_size:,} bytes")


main()
