#!/usr/bin/env python3
"""Rewrite `torch.export.save` archives without weights and without the paths of the machine that made them.

    python tools/strip_pt2.py OUT_FOLDER FILE.pt2 ...

Reads every layout (PyTorch 2.5 on). Needs nothing but Python. The result has fixed member times, so it is reproducible.
"""

import json
import re
import sys
import zipfile
from pathlib import Path

KEPT = ("archive_format", "archive_version", "byteorder", ".data/version", "version")
PROGRAMS = ("models/model.json", "serialized_exported_program.json")
# Frames of the scripts that export: they say where the tool lay, not where the model is written.
OWN_SCRIPTS = ("export_models.py",)


def shorten_trace(trace):
    """Keeps of every path in a stack trace the part from the package on, or the file name."""
    frames = re.split(r"(?m)^(?=\s*File \")", trace)
    frames = [frame for frame in frames if not any(script in frame for script in OWN_SCRIPTS)]
    trace = re.sub(r'File "[^"]*/(?:site|dist)-packages/', 'File "', "".join(frames)).strip()
    return re.sub(r'File "/[^"]*/', 'File "', trace)


def slim_program(program):
    """Drops from a serialized program what no counter reads. The result still follows torch's schema."""
    if "guards_code" in program:
        program["guards_code"] = []
    for call in program["graph_module"]["module_call_graph"]:
        if call["fqn"]:
            call["signature"] = None
    slim_graph(program["graph_module"]["graph"])
    return program


def slim_graph(graph):
    for node in graph["nodes"]:
        meta = node["metadata"]
        for unread in ("torch_fn", "source_fn_stack", "from_node"):
            meta.pop(unread, None)
        if "stack_trace" in meta:
            meta["stack_trace"] = shorten_trace(meta["stack_trace"])
        for argument in node["inputs"]:
            if "as_graph" in argument["arg"]:
                slim_graph(argument["arg"]["as_graph"]["graph"])


def strip(saved, target):
    """Copies a saved program without its payload: JSON and the one-line members stay, tensors and samples go."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for name in source.namelist():
            # Up to 2.7 the members lie at the root, later below a folder named after the file.
            folder, _, member = name.partition("/") if "/" in name else ("", "", name)
            if member in KEPT:
                data = source.read(name)
            elif member.endswith(".json"):
                value = json.loads(source.read(name))
                data = json.dumps(slim_program(value) if member in PROGRAMS else value, separators=(",", ":"))
            else:
                continue
            kept_name = f"{target.stem}/{member}" if folder else member
            out.writestr(zipfile.ZipInfo(kept_name), data, zipfile.ZIP_DEFLATED, 9)


def main():
    out, *files = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        strip(file, out / file.name)
        print(f"{out / file.name}  {(out / file.name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
