#!/usr/bin/env python3
"""Writes golden cases of binary coding, made by the code of LUT-GEMM: github.com/naver-aics/lut-gemm, whose examples/bcq.py is an argument.

    bcq.py BCQ.PY FILE

Needs torch, numpy and tqdm. Arrays are hexadecimal, little-endian, row-major; codes have plane i in bit i.
"""

import importlib.util
import json
import sys

import torch

CASES = {  # bits, rounds, group, rows, cols
    "greedy-1": (1, 0, 64, 4, 128),
    "greedy-3": (3, 0, 64, 4, 128),
    "alternating-2": (2, 15, 64, 6, 128),
    "alternating-3": (3, 15, 128, 6, 128),
    "alternating-4": (4, 15, 128, 6, 128),
}


def hexed(t):
    return t.detach().contiguous().numpy().tobytes().hex()


def main(module, path):
    spec = importlib.util.spec_from_file_location("bcq", module)
    bcq = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bcq)
    torch.Tensor.cuda = lambda self: self  # the code asks for a GPU, and needs none
    torch.manual_seed(0)
    out = {"source": "github.com/naver-aics/lut-gemm", "commit": "f34d0df005ab3fe0c97470c09ab7e2e701502c09", "torch": torch.__version__, "cases": {}}
    for name, (bits, rounds, group, rows, cols) in CASES.items():
        w = torch.randn(rows, cols)  # their solver adds 1e-6 to its steps, which asks for weights about 1
        made, planes, alpha, _ = bcq.quantize(w, bits, rounds=rounds, group_size=group)
        codes = ((planes > 0).to(torch.uint8) << torch.arange(bits, dtype=torch.uint8)).sum(-1).to(torch.uint8)
        e = (w - made).double().view(-1, group)
        out["cases"][name] = {
            "bits": bits, "rounds": rounds, "group": group, "rows": rows, "cols": cols,
            "weights": hexed(w), "codes": hexed(codes), "alphas": hexed(alpha.float()), "losses": e.pow(2).sum(1).tolist(),
        }
    with open(path, "w") as f:
        f.write(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
