#!/usr/bin/env python3
"""Writes small golden cases of the compressed-tensors format, made by compressed-tensors itself.

    golden.py DIR        one JSON file a case, see DIR/README.md

A case is one linear: its weight, the codes and parameters that compressed-tensors computes, the tensors that its compressor stores,
what its own decompressor makes of them, and the quantization_config that it writes into config.json of a model compressed that way.
Arrays are hexadecimal, little-endian, row-major.
"""

import json
import pathlib
import sys
import tempfile

import torch
import transformers
from compressed_tensors import __version__ as version
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.compressors.base import compress_module, decompress_module
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8", torch.int32: "I32", torch.int64: "I64"}

# name: weight arguments, format, dtype of the model, rows, cols. Rows and columns that do not fill a word are on purpose.
CASES = {
    "int4-group32-bf16": (dict(num_bits=4, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.bfloat16, 12, 96),
    "int4-group32-f16": (dict(num_bits=4, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.float16, 5, 64),
    "int4-group32-f32": (dict(num_bits=4, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.float32, 5, 64),
    "int4-group32-asym-bf16": (dict(num_bits=4, strategy="group", group_size=32, symmetric=False), "pack-quantized", torch.bfloat16, 12, 96),
    "int4-group32-asym-f32": (dict(num_bits=4, strategy="group", group_size=32, symmetric=False), "pack-quantized", torch.float32, 9, 64),
    "int4-channel-bf16": (dict(num_bits=4, strategy="channel", symmetric=True), "pack-quantized", torch.bfloat16, 7, 43),
    "int4-channel-asym-bf16": (dict(num_bits=4, strategy="channel", symmetric=False), "pack-quantized", torch.bfloat16, 11, 43),
    "int4-tensor-bf16": (dict(num_bits=4, strategy="tensor", symmetric=True), "pack-quantized", torch.bfloat16, 3, 40),
    "int8-group32-bf16": (dict(num_bits=8, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.bfloat16, 4, 64),
    "int8-channel-bf16": (dict(num_bits=8, strategy="channel", symmetric=True), "pack-quantized", torch.bfloat16, 4, 43),
    "int8-channel-asym-bf16": (dict(num_bits=8, strategy="channel", symmetric=False), "pack-quantized", torch.bfloat16, 6, 43),
    "int3-group32-bf16": (dict(num_bits=3, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.bfloat16, 5, 96),
    "int3-group32-asym-bf16": (dict(num_bits=3, strategy="group", group_size=32, symmetric=False), "pack-quantized", torch.bfloat16, 13, 64),
    "int5-channel-bf16": (dict(num_bits=5, strategy="channel", symmetric=True), "pack-quantized", torch.bfloat16, 3, 43),
    "int6-group32-bf16": (dict(num_bits=6, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.bfloat16, 3, 64),
    "int7-channel-bf16": (dict(num_bits=7, strategy="channel", symmetric=True), "pack-quantized", torch.bfloat16, 3, 43),
    "int2-group32-bf16": (dict(num_bits=2, strategy="group", group_size=32, symmetric=True), "pack-quantized", torch.bfloat16, 3, 64),
    "int8-channel-int-quantized-bf16": (dict(num_bits=8, strategy="channel", symmetric=True), "int-quantized", torch.bfloat16, 4, 43),
    "int8-group32-int-quantized-bf16": (dict(num_bits=8, strategy="group", group_size=32, symmetric=True), "int-quantized", torch.bfloat16, 4, 64),
    "int8-channel-asym-int-quantized-bf16": (dict(num_bits=8, strategy="channel", symmetric=False), "int-quantized", torch.bfloat16, 4, 43),
    "int8-tensor-int-quantized-bf16": (dict(num_bits=8, strategy="tensor", symmetric=True), "int-quantized", torch.bfloat16, 4, 43),
}


def array(tensor):
    tensor = tensor.detach().contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data": raw.hex()}


def scheme_of(args, form):
    """The scheme of a case; int8 in the int-quantized format means int8 activations too, as the W8A8 preset has them."""
    inputs = None
    if form == "int-quantized":
        inputs = QuantizationArgs(num_bits=8, strategy="token", dynamic=True, symmetric=True)
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args), input_activations=inputs, format=form)


def parameters(weight, args):
    """Scales and zero points, from the range of every group."""
    if args.strategy == "group":
        grouped = weight.reshape(weight.shape[0], -1, args.group_size)
        low, high = grouped.amin(-1), grouped.amax(-1)
    elif args.strategy == "channel":
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    else:
        low, high = weight.amin(), weight.amax()
    return calculate_qparams(low, high, args)


def weight_of(name, dtype, rows, cols):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    weight = torch.randn(rows, cols, generator=generator) * 0.05
    weight[0, : cols // 2] = weight[0, : cols // 2].abs()  # a range on one side of zero
    weight[1, 3] = -0.5  # an outlier
    if rows > 2:
        weight[2, :] = 0  # a dead row
    return weight.to(dtype)


def config_of(scheme, dtype):
    """What compressed-tensors writes for a one-layer model under this scheme."""
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
                                      num_key_value_heads=1, vocab_size=32, tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config).to(dtype)
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"], format=scheme.format))
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format=scheme.format)
    compressor.compress_model(model)
    with tempfile.TemporaryDirectory() as folder:
        compressor.update_config(folder)
        return json.loads((pathlib.Path(folder) / "config.json").read_text())["quantization_config"]


def case_of(name):
    args, form, dtype, rows, cols = CASES[name]
    scheme = scheme_of(args, form)
    weight = weight_of(name, dtype, rows, cols)
    scale, zero = parameters(weight, scheme.weights)
    codes = quantize(x=weight, scale=scale, zero_point=zero, args=scheme.weights, dtype=torch.int8)

    linear = torch.nn.Linear(cols, rows, bias=False, dtype=dtype)
    holder = torch.nn.Sequential(linear)
    apply_quantization_config(holder, QuantizationConfig(config_groups={"group_0": scheme}, format=form))
    linear.weight.data = weight
    linear.weight_scale.data = scale.to(linear.weight_scale.dtype)
    if hasattr(linear, "weight_zero_point"):
        linear.weight_zero_point.data = zero.to(linear.weight_zero_point.dtype)
    compress_module(linear, scheme.format)
    stored = {key: array(value) for key, value in sorted(linear.state_dict().items())}
    decompress_module(linear, scheme.format)

    return {
        "case": name,
        "rows": rows,
        "cols": cols,
        "format": form,
        "args": {"num_bits": args["num_bits"], "symmetric": args["symmetric"], "strategy": args["strategy"],
                 "group_size": args.get("group_size")},
        "weight": array(weight),
        "scale": array(scale),
        "zero_point": None if args["symmetric"] else array(zero.to(torch.int8)),
        "codes": array(codes),
        "stored": stored,
        "dequantized": array(linear.weight.data),
        "quantization_config": config_of(scheme_of(args, form), dtype),
    }


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        try:
            case = case_of(name)
        except Exception as error:  # say which case
            raise SystemExit(f"{name}: {type(error).__name__}: {error}") from error
        case["made_by"] = f"compressed-tensors {version}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {', '.join(case['stored'])}")


if __name__ == "__main__":
    main()
