#!/usr/bin/env python3
"""Writes golden cases of magnitude pruning, made by the code of Wanda: github.com/locuslab/wanda, whose lib/prune.py is an argument.

    magnitude.py PRUNE.PY FILE

Needs torch. Arrays are hexadecimal, little-endian, row-major; kept has a byte for each weight.
"""

import importlib.util
import json
import sys
import types

import torch

CASES = {  # dtype, rows, cols, sparsity or (pruned, of), ties
    "half": ("float32", 6, 40, 0.5, False),
    "some": ("bfloat16", 5, 48, 0.29, False),
    "most": ("float16", 7, 31, 0.9, False),
    "ties": ("bfloat16", 8, 32, 0.5, True),
    "2of4": ("bfloat16", 6, 64, (2, 4), False),
    "1of4": ("float32", 6, 32, (3, 4), False),
    "4of8": ("float16", 6, 64, (4, 8), False),
}


def load(path):
    """Imports prune.py without the modules beside it, of which magnitude pruning uses nothing."""
    package = types.ModuleType("wanda")
    package.__path__ = []
    sys.modules["wanda"] = package
    for name, members in {"sparsegpt": ["SparseGPT"], "layerwrapper": ["WrappedGPT"], "data": ["get_loaders"], "ablate": ["AblateGPT"]}.items():
        module = types.ModuleType("wanda." + name)
        for m in members:
            setattr(module, m, None)
        sys.modules["wanda." + name] = module
    spec = importlib.util.spec_from_file_location("wanda.prune", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hexed(t):
    return t.detach().contiguous().view(torch.uint8).numpy().tobytes().hex()


def weights(dtype, rows, cols, ties):
    n = rows * cols
    if ties:  # multiples of a quarter
        return (torch.randint(-4, 5, (rows, cols)) / 4).to(dtype)
    # Magnitudes that all differ, whatever the type: numbers of 8 bits times powers of two, in a random order.
    i = torch.randperm(n)
    w = torch.ldexp((128 + i % 128).double() / 128, i // 128 - 6)
    return (w * (torch.randint(0, 2, (n,)) * 2 - 1)).view(rows, cols).to(dtype)


def main(source, path):
    prune = load(source)
    torch.Tensor.cuda = lambda self: self  # the code asks for a GPU, and needs none
    torch.manual_seed(0)
    out = {"source": "github.com/locuslab/wanda", "commit": "8e8fc87b4a2f9955baa7e76e64d5fce7fa8724a6", "torch": torch.__version__, "cases": {}}
    for name, (dtype, rows, cols, how, ties) in CASES.items():
        w = weights(getattr(torch, dtype), rows, cols, ties)
        layer = torch.nn.Sequential(torch.nn.Linear(cols, rows, bias=False).to(w.dtype))
        layer[0].weight.data = w.clone()
        model = types.SimpleNamespace(model=types.SimpleNamespace(layers=[layer]))
        n, m = how if isinstance(how, tuple) else (0, 0)
        args = types.SimpleNamespace(sparsity_ratio=how if n == 0 else 0)
        prune.prune_magnitude(args, model, None, device="cpu", prune_n=n, prune_m=m)
        left = layer[0].weight.data
        if not ties:
            assert (w != 0).all()
        out["cases"][name] = {
            "dtype": dtype, "rows": rows, "cols": cols, "sparsity": args.sparsity_ratio, "keep": m - n, "of": m, "ties": ties,
            "weights": hexed(w), "pruned": hexed(left),
        }
    with open(path, "w") as f:
        f.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
