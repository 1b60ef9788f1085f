"""Golden cases of compress/lowrank, by torch and compressed-tensors: python lowrank.py > ../../../compress/lowrank/testdata/golden.json

svd:   torch.linalg.svd in float64; what is left of the squared norm at some ranks, and the best approximation at one with a clear gap.
lorc:  the error of compressed-tensors' own symmetric int4 by channel, and torch.linalg.svd of that (ZeroQuant-V2, arXiv 2303.08302, section 4).
lplr:  torch.linalg.lstsq for a given left factor, the second half of arXiv 2310.11028's algorithm.
"""

import json
import sys
from importlib.metadata import version

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams

torch.manual_seed(11)
torch.set_num_threads(1)


def listed(x):
    return [float(v) for v in x.double().flatten()]


rows, cols, rank = 24, 40, 5
left, right = torch.randn(rows, rank), torch.randn(rank, cols)
w = (left @ right + 0.05 * torch.randn(rows, cols)).to(torch.bfloat16)

u, s, vt = torch.linalg.svd(w.double(), full_matrices=False)
tail = [float((s[r:] ** 2).sum()) for r in range(rows + 1)]
best = (u[:, :rank] * s[:rank]) @ vt[:rank]

args = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="channel")
scale, zero = calculate_qparams(w.amin(1, keepdim=True), w.amax(1, keepdim=True), args)
codes = quantize(w.float(), scale.float(), zero, args, dtype=torch.int8)  # in float32, as we do
error = w.double() - codes.double() * scale.double()
lost = torch.linalg.svdvals(error)

given = torch.randn(rows, 7)
answer = torch.linalg.lstsq(given.double(), w.double()).solution

json.dump(
    {
        "made_with": f"torch {version('torch')}, compressed-tensors {version('compressed-tensors')}",
        "rows": rows, "cols": cols, "weights": listed(w),
        "svd": {"tail": tail, "rank": rank, "best": listed(best)},
        "lorc": {"tail": [float((lost[r:] ** 2).sum()) for r in range(rows + 1)]},
        "lplr": {"rank": 7, "left": listed(given), "right": listed(answer)},
    },
    sys.stdout,
)
