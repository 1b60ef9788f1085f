#!/usr/bin/env python3
"""Writes golden cases of 8-bit float weights, made by compressed-tensors itself: scales, codes, stored tensors, decoded weights.

    fp8.py DIR        one JSON file a case, see DIR/README.md
"""

import json
import pathlib
import sys

import torch
import transformers
from compressed_tensors import __version__ as version
from compressed_tensors.compressors.base import compress_module, decompress_module
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8"}
MX = dict(num_bits=8, type="float", strategy="group", group_size=32, symmetric=True, scale_dtype=torch.uint8, zp_dtype=torch.uint8)


def plain(strategy, **more):
    return dict(num_bits=8, type="float", strategy=strategy, symmetric=True, **more)


# name: weight arguments, format, dtype of the model, rows, cols
CASES = {
    "channel-bf16": (plain("channel"), "float-quantized", torch.bfloat16, 9, 96),
    "channel-f16": (plain("channel"), "float-quantized", torch.float16, 9, 96),
    "channel-f32": (plain("channel"), "float-quantized", torch.float32, 9, 96),
    "channel-odd-bf16": (plain("channel"), "float-quantized", torch.bfloat16, 5, 43),
    "tensor-bf16": (plain("tensor"), "float-quantized", torch.bfloat16, 7, 64),
    "tensor-f16": (plain("tensor"), "float-quantized", torch.float16, 7, 64),
    "block-bf16": (plain("block", block_structure=[4, 32]), "float-quantized", torch.bfloat16, 8, 96),
    "block-ragged-bf16": (plain("block", block_structure=[4, 32]), "float-quantized", torch.bfloat16, 10, 64),
    "block-f32": (plain("block", block_structure=[2, 16]), "float-quantized", torch.float32, 5, 48),
    "mxfp8-bf16": (MX, "mxfp8-quantized", torch.bfloat16, 9, 96),
    "mxfp8-f16": (MX, "mxfp8-quantized", torch.float16, 9, 64),
    "mxfp8-f32": (MX, "mxfp8-quantized", torch.float32, 9, 64),
    "mxfp8-exponents-bf16": (MX, "mxfp8-quantized", torch.bfloat16, 60, 32),
}


def array(tensor):
    tensor = tensor.detach().contiguous()
    return {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data": tensor.reshape(-1).view(torch.uint8).numpy().tobytes().hex()}


def weight_of(name, dtype, rows, cols):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    weight = torch.randn(rows, cols, generator=generator) * 0.05
    if "exponents" in name:  # every significand near the one where the scale goes up, and exponents far and wide
        for row in range(rows):
            top = (1.5 + row % 6 / 16 + (1 / 128 if row % 2 else 0)) * 2.0 ** (row * 4 - 117)
            weight[row] *= top / 0.4
            weight[row] = weight[row].clamp(-top, top)
            weight[row, row % cols] = -top
    else:
        weight[1, 3] = -0.5  # an outlier
        weight[2, :] = 0  # a dead row
        weight[3] *= 2.0**-7
        weight[4, 1::2] *= torch.logspace(0, -12, cols - cols // 2 - cols % 2, base=2.0)  # down to subnormal codes
    return weight.to(dtype)


def parameters(weight, args):
    rows, cols = weight.shape
    if args.strategy == "group":
        grouped = weight.reshape(rows, -1, args.group_size)
        low, high = grouped.amin(-1), grouped.amax(-1)
    elif args.strategy == "block":
        height, width = args.block_structure
        padded = torch.zeros(-(-rows // height) * height, cols, dtype=weight.dtype)
        padded[:rows] = weight
        tiles = padded.reshape(-1, height, cols // width, width)
        low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
    elif args.strategy == "channel":
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    else:
        low, high = weight.amin(), weight.amax()
    return calculate_qparams(low, high, args)[0]


def case_of(name):
    args, form, dtype, rows, cols = CASES[name]
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args), format=form)
    weight = weight_of(name, dtype, rows, cols)
    linear = torch.nn.Linear(cols, rows, bias=False, dtype=dtype)
    holder = torch.nn.Sequential(linear)
    apply_quantization_config(holder, QuantizationConfig(config_groups={"group_0": scheme}, format=form))
    linear.weight.data = weight
    linear.weight_scale.data = parameters(weight, scheme.weights).to(linear.weight_scale.dtype)
    compress_module(linear, scheme.format)
    stored = {key: array(value) for key, value in sorted(linear.state_dict().items())}
    decompress_module(linear, scheme.format)
    return {
        "case": name, "rows": rows, "cols": cols, "format": form, "strategy": args["strategy"], "block": args.get("block_structure"),
        "weight": array(weight), "stored": stored, "dequantized": array(linear.weight.data),
        "made_by": f"compressed-tensors {version}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}",
    }


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        case = case_of(name)
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {', '.join(case['stored'])}")


if __name__ == "__main__":
    main()
