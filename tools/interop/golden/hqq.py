#!/usr/bin/env python3
"""Writes golden cases of half-quadratic quantization, made by its authors' code: github.com/mobiusml/hqq, whose checkout is an argument.

    hqq.py CHECKOUT FILE

Each case is a matrix in groups along its rows, with what Quantizer.quantize makes of

- every group as a matrix of its own, by the authors' proximal solver that keeps the best zero point
  (optimize_weights_proximal_v2, with a kappa that leaves beta alone): codes, scales and zero points;
- the whole matrix by their default: the mean errors.

Needs torch and termcolor. Arrays are hexadecimal, little-endian, row-major.
"""

import json
import subprocess
import sys

import numpy as np
import torch

CASES = {  # bits, group, rows, cols, scale of the weights, share of large ones
    "2-bit": (2, 64, 6, 128, 0.02, 0.0),
    "3-bit": (3, 64, 6, 128, 0.02, 0.01),
    "4-bit": (4, 64, 8, 128, 0.02, 0.01),
    "4-bit-row": (4, 172, 5, 172, 0.02, 0.01),
    "8-bit": (8, 32, 4, 128, 0.02, 0.0),
    "2-bit-wide": (2, 64, 6, 128, 1.0, 0.01),
    "4-bit-wide": (4, 64, 8, 128, 3.0, 0.02),
}


def hexed(t):
    return t.contiguous().numpy().tobytes().hex()


def main(checkout, path):
    sys.path.insert(0, checkout)
    from hqq.core.optimize import optimize_weights_proximal_legacy, optimize_weights_proximal_v2
    from hqq.core.quantize import Quantizer

    def keep_best(**args):
        return optimize_weights_proximal_v2(dtype=torch.float32, opt_params={
            "lp_norm": 0.7, "beta": 1e1, "kappa": 1 + 1e-12, "iters": 20, "tol": 0.0, "early_stop": True, "scale_gridsearch": False}, **args)

    torch.manual_seed(0)
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    out = {"source": "github.com/mobiusml/hqq", "commit": commit or sys.argv[3], "torch": torch.__version__, "cases": {}}
    for name, (bits, group, rows, cols, scale, large) in CASES.items():
        w = torch.randn(rows, cols) * scale
        w = torch.where(torch.rand(rows, cols) < large, w * 5, w).float()
        args = dict(nbits=bits, group_size=group, axis=1, device="cpu", bitpack=False)
        Quantizer.optimize_weights = keep_best
        codes, scales, zeros = [], [], []
        for x in w.view(-1, group):
            q, meta = Quantizer.quantize(x.view(1, -1), **args)
            codes.append(q.to(torch.uint8).view(-1))
            scales.append(meta["scale"].view(-1))
            zeros.append(meta["zero"].view(-1))
        Quantizer.optimize_weights = optimize_weights_proximal_legacy
        q, meta = Quantizer.quantize(w, **args)
        e = (w - ((q.view(-1, group) - meta["zero"]) * meta["scale"]).view(w.shape)).abs().double()
        out["cases"][name] = {
            "bits": bits, "group": group, "rows": rows, "cols": cols, "weights": hexed(w),
            "codes": hexed(torch.cat(codes)), "scales": hexed(torch.cat(scales)), "zeros": hexed(torch.cat(zeros)),
            "default": {"l1": e.mean().item(), "l0.7": e.pow(0.7).mean().item()},
        }
    with open(path, "w") as f:
        f.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
