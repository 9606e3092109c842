#!/usr/bin/env python3
"""Export the built-in vision networks into `vision.zip` and its index `vision.txt`.

    python tools/export_vision.py --programs FOLDER [NAME ...]

Needs torch, torchvision and timm; `vision_models.toml` says which networks, and at which image size. Each is built from
its architecture alone on the meta device (no weights, no download) and exported with a dynamic batch. Attention is not
fused, as timm's own benchmark counts it, so that its matrix products stand in the graph one by one.

A program is kept in FOLDER as JSON (made once; delete it to make it anew), cut down to what a counter reads: operators,
arguments, shapes, the weights' names, module paths, and one source line per node. All of FOLDER that the list names goes
into the zip, one deflated member each: an archive is opened and one member inflated only when its name is asked for.
"""

import argparse
import json
import logging
import re
import tomllib
import warnings
import zipfile
from pathlib import Path

from strip_pt2 import shorten_trace, slim_program

LIST = Path(__file__).resolve().parent / "vision_models.toml"
OUT = Path(__file__).resolve().parent.parent / "crates/flopwise/data/models"
MAX_BATCH = 4096
TORCHVISION_SIZE = "224"


def listed():
    """(name, library, model, image size, about) of every network of the list; `timm/` stands before timm's names."""
    for family in tomllib.loads(LIST.read_text())["family"]:
        for entry in family.get("torchvision", []):
            model, _, size = entry.partition("@")
            yield model, "torchvision", model, int(size or TORCHVISION_SIZE), family["about"]
        for entry in family.get("timm", []):
            model, size = entry.split("@")
            yield f"timm/{model}", "timm", model, int(size), family["about"]


def build(library, model):
    if library == "timm":
        from timm import create_model
        from timm.utils.model import reparameterize_model

        # As timm's benchmark runs it: branches that exist for training are merged (RepVGG, LeViT, MobileOne, FastViT).
        return reparameterize_model(create_model(model, pretrained=False).eval())
    import torchvision

    # Google's nets: their auxiliary heads are built as in the published weights (Inception has them, GoogLeNet not).
    google = {"inception_v3": {"init_weights": False}, "googlenet": {"init_weights": False, "aux_logits": False}}
    return torchvision.models.get_model(model, weights=None, **google.get(model, {}))


def program(library, model, size):
    """The serialized program of a network, as torch.export.save writes it, and the first name of each tied weight."""
    import io

    import timm
    import torch

    timm.layers.set_fused_attn(False)
    torch.backends.mha.set_fastpath_enabled(False)  # else nn.MultiheadAttention hides in one fused operator
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                network, image = build(library, model).eval(), torch.zeros(2, 3, size, size)
            exported = torch.export.export(network, (image,), dynamic_shapes=({0: batch},))
            break
        except (NotImplementedError, RuntimeError):  # some constructors look at values, which meta tensors lack
            if device == "cpu":
                raise
    saved = io.BytesIO()
    torch.export.save(exported, saved)
    with zipfile.ZipFile(saved) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/models/model.json"))
        return json.loads(archive.read(name)), ties(network)


def ties(network):
    """Names of weights that are another weight too (CoaT shares some between its blocks), and that one's first name."""
    first, tied = {}, {}
    for name, weight in network.named_parameters(remove_duplicate=False):
        if first.setdefault(id(weight), name) != name:
            tied[name] = first[id(weight)]
    return tied


def innermost(trace):
    """Of a stack trace the innermost frame outside PyTorch's own `torch/nn`, and the source quoted below it."""
    found = re.findall(r'(?m)^\s*(File "([^"]*)", line \d+).*\n?(.*)', trace)
    frames = [(frame, quoted) for frame, file, quoted in found if "torch/nn/" not in file and not file.startswith("torch/fx/")]
    frame, quoted = (frames or [(frame, quoted) for frame, _, quoted in found[:1]] or [("", "")])[-1]
    return f"{frame}\n{quoted.strip()}" if frame else ""


def cut(saved, tied):
    """A program with nothing but what is read of it. Weights go by their full names, tied ones by one; inside they are
    numbered."""
    module = slim_program(saved)["graph_module"]
    graph, specs = module["graph"], module["signature"]["input_specs"]
    given = {spec["user_input"]["arg"]["as_tensor"]["name"] for spec in specs if "user_input" in spec}
    inputs = [argument["as_tensor"]["name"] for argument in graph["inputs"]]
    number = {name: name if name in given else str(at) for at, name in enumerate(inputs)}

    def renamed(value):
        if isinstance(value, dict) and set(value) == {"name"}:
            return {"name": number.get(value["name"], value["name"])}
        if isinstance(value, dict):
            return {key: renamed(inner) for key, inner in value.items() if key != "hint"}
        return [renamed(inner) for inner in value] if isinstance(value, list) else value

    met, nodes = set(), []
    for node in graph["nodes"]:
        metadata = {}
        if trace := node["metadata"].get("stack_trace"):
            metadata["stack_trace"] = innermost(shorten_trace(trace))
        if stack := node["metadata"].get("nn_module_stack"):
            # `key,path,class;...`, outermost first: the class of a module is said once, the innermost path always.
            around = [part.split(",", 2)[1:] for part in stack.split(";")]
            said = [part for at, part in enumerate(around) if part[0] not in met or at == len(around) - 1]
            met.update(part[0] for part in around)
            metadata["nn_module_stack"] = ";".join("," + ",".join(part) for part in said)
        arguments = [{"name": argument["name"], "arg": renamed(argument["arg"])} for argument in node["inputs"]]
        outputs = renamed(node["outputs"])
        nodes.append({"target": node["target"], "inputs": arguments, "outputs": outputs, "metadata": metadata})
    types = {
        number.get(name, name): {"dtype": meta["dtype"], "sizes": renamed(meta["sizes"])}
        for name, meta in graph["tensor_values"].items()
    }
    weights = []
    for kind, spec in (next(iter(spec.items())) for spec in specs if "user_input" not in spec):
        said = renamed({key: value for key, value in spec.items() if key != "persistent"})
        if "parameter_name" in said:
            said["parameter_name"] = tied.get(said["parameter_name"], said["parameter_name"])
        weights.append({kind: said})
    cut_graph = {
        "inputs": renamed(graph["inputs"]),
        "outputs": renamed(graph["outputs"]),
        "nodes": nodes,
        "tensor_values": types,
        "sym_int_values": renamed(graph["sym_int_values"]),
    }
    ranges = saved["range_constraints"]
    return {"graph_module": {"graph": cut_graph, "signature": {"input_specs": weights}}, "range_constraints": ranges}


def pack(networks, programs):
    """Writes archive and index of the networks whose programs are there; says which are not."""
    import timm
    import torch
    import torchvision

    versions = ", ".join(f"{library.__name__} {library.__version__.partition('+')[0]}" for library in (timm, torchvision, torch))
    index, told = [f"# Made by tools/export_vision.py with {versions}"], None
    with zipfile.ZipFile(OUT / "vision.zip", "w") as out:
        for name, _, model, size, about in networks:
            file = programs / f"{name.replace('/', '_')}@{size}.json"
            if not file.exists():
                print(f"{name} has no program in {programs}", flush=True)
                continue
            if about != told:
                index.append(f"= {about}")
                told = about
            index.append(f"{name} {size}")
            out.writestr(zipfile.ZipInfo(f"{name}.json"), file.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    (OUT / "vision.txt").write_text("\n".join(index) + "\n")
    print(f"{len(index)} lines of index, {(OUT / 'vision.zip').stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to export; all when none is given")
    parser.add_argument("--programs", type=Path, required=True, help="folder of programs made so far")
    args = parser.parse_args()
    args.programs.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    networks = list(listed())
    for name, library, model, size, _ in networks:
        file = args.programs / f"{name.replace('/', '_')}@{size}.json"
        if file.exists() or (args.names and name not in args.names):
            continue
        text = json.dumps(cut(*program(library, model, size)), separators=(",", ":"))
        file.write_text(text)
        print(f"{name:36} {size:4} {len(text):10,} bytes", flush=True)
    pack(networks, args.programs)


if __name__ == "__main__":
    main()
