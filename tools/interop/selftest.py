#!/usr/bin/env python3
"""Tries check.py on tiny checkpoints that compressed-tensors itself has compressed, and on a damaged copy of each.

The dense result is worked out here by the formula alone, w = scale * (code - zero point), from the stored bytes.
"""

import pathlib
import shutil
import tempfile

import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from safetensors.torch import load_file, save_file

import check
import golden

LLAMA = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
             tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
MIXTURE = dict(LLAMA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1, head_dim=16)


def unpack(words, rows, cols, bits):
    """Codes of a packed matrix: each row is a stream of fields, lowest bits first."""
    codes = torch.empty(rows, cols, dtype=torch.int64)
    for i, row in enumerate(words.tolist()):
        stream = sum((word & 0xFFFFFFFF) << (32 * j) for j, word in enumerate(row))
        codes[i] = torch.tensor([(stream >> (bits * j) & (2**bits - 1)) - 2 ** (bits - 1) for j in range(cols)])
    return codes


def densify(tensors, args, dtype):
    """The dense checkpoint that belongs to a compressed one."""
    dense = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if part in ("weight_packed", "weight") and module + ".weight_scale" in tensors:
            scale = tensors[module + ".weight_scale"]
            if part == "weight":
                codes = tensor.to(torch.int64)
                zeros = tensors.get(module + ".weight_zero_point", torch.zeros_like(scale)).to(torch.int64)
            else:
                rows, cols = tensors[module + ".weight_shape"].tolist()
                codes = unpack(tensor, rows, cols, args["num_bits"])
                zeros = torch.zeros(scale.shape, dtype=torch.int64)
                if module + ".weight_zero_point" in tensors:
                    zeros = unpack(tensors[module + ".weight_zero_point"].T, scale.shape[1], rows, args["num_bits"]).T
            if scale.ndim == 2:
                repeat = codes.shape[1] // scale.shape[1]
                scale, zeros = scale.repeat_interleave(repeat, 1), zeros.repeat_interleave(repeat, 1)
            dense[module + ".weight"] = (scale.double() * (codes - zeros).double()).to(dtype)
        elif not part.startswith("weight_"):
            dense[name] = tensor
    return dense


def make(folder, case, mixture):
    """Writes source, compressed and dense of one case of golden.py."""
    args, form, dtype, _, _ = golden.CASES[case]
    torch.manual_seed(1)
    config = transformers.Qwen3MoeConfig(**MIXTURE) if mixture else transformers.LlamaConfig(**LLAMA)
    config.dtype = dtype
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder / "source")
    scheme = golden.scheme_of(args, form)
    ignore = ["lm_head", "re:.*mlp.gate$"]
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=ignore, format=form))
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            scale, zero = golden.parameters(module.weight.data, scheme.weights)
            module.weight_scale.data = scale.to(module.weight_scale.dtype)
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format=form)
    compressor.compress_model(model)
    model.save_pretrained(folder / "compressed")
    compressor.update_config(folder / "compressed")
    shutil.copytree(folder / "source", folder / "dense")
    dense = densify(load_file(folder / "compressed" / "model.safetensors"), args, dtype)
    save_file(dense, folder / "dense" / "model.safetensors", metadata={"format": "pt"})


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    check.pack_zero_points_on_meta()
    bad = 0
    for case, mixture in [("int4-group32-bf16", False), ("int4-group32-asym-bf16", False), ("int4-group32-f32", False), ("int8-channel-bf16", False),
                          ("int3-group32-bf16", False), ("int8-channel-int-quantized-bf16", False), ("int4-group32-bf16", True),
                          ("int8-channel-int-quantized-bf16", True)]:
        print(f"{case}{', mixture of experts' if mixture else ''}")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            make(folder, case, mixture)
            folders = [folder / part for part in ("source", "compressed", "dense")]
            for line in (wrong := check.check(*folders)):
                print(f"  WRONG {line}")
            file = folder / "dense" / "model.safetensors"
            tensors = load_file(file)
            tensors["model.layers.1.self_attn.o_proj.weight"][3, 5] += 0.01
            save_file(tensors, file, metadata={"format": "pt"})
            found = check.check(*folders)
            if not any("o_proj" in line and "1 of" in line for line in found):
                print("  WRONG a changed weight was not found")
                bad += 1
            bad += len(wrong)
    print("ok" if not bad else f"{bad} wrong")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
