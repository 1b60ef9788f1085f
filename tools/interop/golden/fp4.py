#!/usr/bin/env python3
"""Writes golden cases of MXFP4 and NVFP4, made by compressed-tensors itself on the CPU.

    fp4.py FILE        FILE becomes a JSON list, see compress/quantize/testdata/fp4/README.md

A case is a group of linears that share what their scheme shares: the weights, what compressed-tensors' compressor stores for each, and what its
decompressor makes of that, which is BF16 whatever the weights are. Arrays are hexadecimal, little-endian, row-major.
"""

import json
import sys

import torch
from compressed_tensors import __version__ as version
from compressed_tensors.compressors.base import compress_module, decompress_module
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8", torch.float8_e4m3fn: "F8_E4M3"}
PRESETS = {"mxfp4": "MXFP4A16", "nvfp4": "NVFP4A16"}


def array(tensor):
    tensor = tensor.detach().contiguous()
    return {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data": tensor.reshape(-1).view(torch.uint8).numpy().tobytes().hex()}


def weights_of(kind, dtype, rows, cols, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=generator)
    if kind == "random":
        weight *= 0.05
    elif kind == "outlier":
        weight *= 0.05
        weight[1, 3] = -40
        weight[2, :] = 0
        weight[3, : cols // 2] = -0.0
        weight[3, cols // 2 :] *= 1e-6
    elif kind == "powers":  # every size there is, of both signs
        weight = weight * 2.0 ** torch.randint(-20, 8, weight.shape, generator=generator)
    elif kind == "ties":  # quotients at the points where the codes change, under a scale of 1
        points = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0])
        weight = points[torch.randint(0, 16, weight.shape, generator=generator)] * torch.randint(0, 2, weight.shape, generator=generator).mul(2).sub(1)
        weight[:, ::16] = 6
    elif kind == "zeros":
        weight = torch.zeros(rows, cols)
    elif kind == "large":
        weight *= 2.0**100
    elif kind == "tiny":
        weight *= 2.0**-120
    return weight.to(dtype)


# kind, dtype, columns, linears
CASES = [
    (kind, dtype, cols, count)
    for kind, dtype, cols, count in (
        ("random", torch.bfloat16, 96, 1),
        ("random", torch.bfloat16, 64, 3),
        ("random", torch.float16, 96, 2),
        ("random", torch.float32, 96, 2),
        ("outlier", torch.bfloat16, 64, 2),
        ("outlier", torch.float16, 64, 1),
        ("outlier", torch.float32, 64, 1),
        ("powers", torch.bfloat16, 128, 1),
        ("powers", torch.float16, 128, 1),
        ("powers", torch.float32, 128, 1),
        ("ties", torch.bfloat16, 128, 1),
        ("ties", torch.float32, 128, 1),
        ("zeros", torch.bfloat16, 32, 1),
        ("zeros", torch.float16, 32, 1),
        ("large", torch.bfloat16, 64, 1),
        ("large", torch.float32, 64, 1),
        ("tiny", torch.bfloat16, 64, 1),
        ("tiny", torch.float32, 64, 1),
    )
]


def case_of(method, number, kind, dtype, cols, count):
    scheme = preset_name_to_scheme(PRESETS[method], ["Linear"])
    weights = [weights_of(kind, dtype, 4 + i, cols, 100 * number + i) for i in range(count)]
    share = None
    if method == "nvfp4":
        share = generate_gparam(min(w.min() for w in weights), max(w.max() for w in weights))
    linears = []
    for weight in weights:
        grouped = weight.unflatten(-1, (-1, scheme.weights.group_size))
        scale, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), scheme.weights, global_scale=share)
        linear = torch.nn.Linear(cols, weight.shape[0], bias=False, dtype=dtype)
        apply_quantization_config(torch.nn.Sequential(linear), QuantizationConfig(config_groups={"group_0": scheme}))
        linear.weight.data = weight
        linear.weight_scale.data = scale.to(linear.weight_scale.dtype)
        if share is not None:
            linear.weight_global_scale.data = share
        compress_module(linear)
        stored = {name: array(value) for name, value in sorted(linear.state_dict().items())}
        decompress_module(linear)
        linears.append({"weight": array(weight), "stored": stored, "dequantized": array(linear.weight.data)})
    return {"method": method, "name": f"{method} {kind} {NAMES[dtype]} {count} of {cols}", "linears": linears}


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    made_by = f"compressed-tensors {version}, torch {torch.__version__.split('+')[0]}"
    cases = [case_of(method, i, *case) for method in PRESETS for i, case in enumerate(CASES)]
    with open(sys.argv[1], "w") as file:
        file.write('{"made_by": ' + json.dumps(made_by) + ',\n "cases": [\n  ')
        file.write(",\n  ".join(json.dumps(case) for case in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
