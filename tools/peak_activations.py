"""Peak bytes of live activations of torchvision models, as PyTorch itself holds them.

    python tools/peak_activations.py resnet18 vgg16 ...

Runs the exported program of each model under no_grad and follows every storage from the call that
makes it to the moment its last tensor goes. Parameters and buffers are left out, the input is in.
The figures stand in crates/flopwise/tests/it/memory.rs (torch 2.15.0, torchvision 0.29.2).
"""

import sys
import warnings
import weakref

import torch
import torchvision
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that a tensor still looks at, and the most they ever were."""

    def __init__(self, left_out):
        super().__init__()
        self.left_out = {tensor.untyped_storage().data_ptr() for tensor in left_out}
        self.live = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.follow, results)
        return results

    def follow(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or key in self.left_out:
            return
        if key not in self.live:
            self.live[key] = [0, size]
            self.now += size
            self.peak = max(self.peak, self.now)
        self.live[key][0] += 1
        weakref.finalize(tensor, self.drop, key)

    def drop(self, key):
        self.live[key][0] -= 1
        if self.live[key][0] == 0:
            self.now -= self.live.pop(key)[1]


def peak(name):
    model = getattr(torchvision.models, name)(weights=None).eval()
    example = torch.randn(1, 3, 224, 224)
    program = torch.export.export(model, (example,))
    module = program.module()
    constants = [t for t in program.constants.values() if isinstance(t, torch.Tensor)]
    live = LiveBytes([*module.parameters(), *module.buffers(), *constants])
    with torch.no_grad(), live:
        module(example.clone())
    return live.peak


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.backends.mha.set_fastpath_enabled(False)
    for name in sys.argv[1:]:
        print(name, peak(name))
