#!/usr/bin/env python3
"""Writes golden cases of outlier-victim pairs, made by the authors' code: github.com/clevercool/ANT-Quantization, whose
olive_quantization/antquant/quant_modules.py is an argument.

    olive.py QUANT_MODULES.PY FILE

Its kernel for the nearest value of a grid needs a GPU; the few lines here take its place. All arithmetic is float64, so that near-ties are
decided by the numbers. Needs torch. Arrays are hexadecimal, little-endian, row-major.
"""

import importlib.util
import json
import sys
import types

import torch

CASES = {  # bits, rows, cols, share of outliers
    "4-bit": (4, 6, 128, 0.0),
    "4-bit-outliers": (4, 8, 128, 0.02),
    "4-bit-many": (4, 4, 128, 0.2),
    "8-bit-outliers": (8, 6, 128, 0.02),
}


def nearest(x, grid):
    at = (x[:, None] - grid[None, :]).abs().flip(1).argmin(1)  # of equally near ones the last
    return grid.flip(0)[at], None


def hexed(t):
    return t.detach().contiguous().numpy().tobytes().hex()


def main(module, path):
    sys.modules["quant_cuda"] = types.SimpleNamespace(quant=nearest)
    spec = importlib.util.spec_from_file_location("quant_modules", module)
    olive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(olive)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    args = types.SimpleNamespace(w_up=250, a_up=250, w_low=75, a_low=75, percent=100, search=False, no_outlier=False)
    out = {"source": "github.com/clevercool/ANT-Quantization", "commit": "bc840673b614fac644081f3169a9c81dff2d8dc1", "torch": torch.__version__, "cases": {}}
    for name, (bits, rows, cols, share) in CASES.items():
        w = torch.randn(rows, cols) * 0.02
        w = torch.where(torch.rand(rows, cols) < share, w * 8, w).float().double()
        q = olive.TensorQuantizer(mode="int", bit=bits, is_signed=True, is_enable=True, args=args)
        q.quant_grid.data = q.quant_grid.data.double()
        made = q.tensor_forward(w)
        scale = (q.alpha / q.quant_grid.max()).view(-1) * (32 / 2 ** (bits - 1))  # of integers
        out["cases"][name] = {
            "bits": bits, "rows": rows, "cols": cols, "weights": hexed(w.float()), "scales": hexed(scale.float()),
            "decoded": hexed(made.detach().float()), "losses": (made - w).pow(2).sum(1).tolist(),
        }
    with open(path, "w") as f:
        f.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
