#!/usr/bin/env python3
"""Loads a compressed checkpoint in transformers with compressed-tensors and compares it with the dense result of the same recipe.

    check.py SOURCE COMPRESSED DENSE

SOURCE is the model before, COMPRESSED a result in a format of compressed-tensors, DENSE the result of the same recipe with
output.format=dense. Fails (exit 1) unless all of this holds:

  - transformers finds every tensor it wants in COMPRESSED and DENSE, and no other;
  - every linear that the recipe covers, dequantized by compressed-tensors, has the bits that DENSE has, and so has everything else;
  - with weights alone quantized, the logits of both are equal and both write the same 32 tokens; with quantized activations the
    logits are finite, and equal once the quantization of the activations is switched off.
"""

import collections
import copy
import json
import pathlib
import sys

import torch
import transformers
from safetensors import safe_open

TOKENS = 32
PROMPT = "Once upon a time"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Failure(Exception):
    """Something that must hold does not."""


def tensors_of(folder):
    """Every tensor of the checkpoint, by name."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                if name in found:
                    raise Failure(f"{folder}: tensor {name} stands in two files")
                found[name] = file.get_tensor(name)
    if not found:
        raise Failure(f"{folder}: no safetensors file")
    return found


def dtype_of(folder):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    return DTYPES[config.get("dtype") or config.get("torch_dtype") or "bfloat16"]


def pack_zero_points_on_meta():
    """Mends a flaw of compressed-tensors 0.18 to 0.20: the empty model that transformers fills has zero points of the unpacked shape,
    so that no asymmetric checkpoint loads, its own ones included."""
    from compressed_tensors.compressors.pack_quantized import base

    original = base.PackedQuantizationCompressor.compress.__func__

    def compress(cls, state_dict, scheme):
        result = original(cls, state_dict, scheme)
        zero, scale = result.get("weight_zero_point"), result.get("weight_scale")
        if zero is not None and zero.device.type == "meta" and zero.shape == scale.shape and not scheme.weights.symmetric:
            words = -(-zero.shape[0] * scheme.weights.num_bits // 32)
            result["weight_zero_point"] = torch.empty((words, *zero.shape[1:]), dtype=torch.int32, device="meta")
        return result

    base.PackedQuantizationCompressor.compress = classmethod(compress)


def keep_global_scales(model, folder):
    """Mends a flaw of transformers 4.57: it loads NVFP4's global scale, stored as F32, in the type of the model, and the decompressor then
    divides in that type. Here it is as in the file."""
    scaled = {name: module for name, module in model.named_modules() if hasattr(module, "weight_global_scale")}
    if scaled:
        stored = tensors_of(folder)
        for name, module in scaled.items():
            module.weight_global_scale.data = stored[name + ".weight_global_scale"]


def load(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype_of(folder), output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise Failure(f"{folder}: {kind.replace('_', ' ')}: {sorted(map(str, info[kind]))[:5]}")
    keep_global_scales(model, folder)
    return model.eval()


def same_bits(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype} {tuple(a.shape)} against {b.dtype} {tuple(b.shape)}"
    a, b = (t.detach().contiguous().reshape(-1).view(torch.uint8).reshape(t.numel(), -1) for t in (a, b))
    differing = int((a != b).any(1).sum())
    return f"{differing} of {a.shape[0]} elements differ" if differing else ""


def scheme_name(scheme):
    weights = scheme.weights
    size = f" {weights.group_size}" if weights.group_size and weights.group_size > 0 else ""
    if weights.block_structure:
        size = " {}x{}".format(*weights.block_structure)

    def kind(args):
        return f"{'mx' if args.scale_dtype == torch.uint8 else ''}{getattr(args.type, 'value', args.type)}{args.num_bits}"

    inputs = f", activations {kind(scheme.input_activations)}" if scheme.input_activations else ""
    return f"{kind(weights)} {getattr(weights.strategy, 'value', weights.strategy)}{size}{'' if weights.symmetric else ' asym'}{inputs}"


def compare_weights(model, quantized, dense, source):
    """Prints one line for each kind of linear; returns what is wrong."""
    wrong = []
    rows = collections.defaultdict(lambda: dict(count=0, elements=0, differing=0, error=0.0))
    state = model.state_dict()
    for name, scheme in quantized.items():
        key = name + ".weight"
        if key not in dense:
            wrong.append(f"{key}: quantized, but not in the dense result")
            continue
        complaint = same_bits(state[key], dense[key])
        row = rows[name.rsplit(".", 1)[-1], scheme]
        row["count"] += 1
        row["elements"] += dense[key].numel()
        if complaint:
            row["differing"] += 1
            wrong.append(f"{key}: {complaint}")
        if key in source:
            before, after = source[key].double(), dense[key].double()
            power = float(before.square().sum())
            row["error"] = max(row["error"], float((before - after).square().sum()) / power if power else 0.0)
    print(f"  {'linear':<14} {'scheme':<34} {'count':>5} {'weights':>10} {'unlike':>6}  worst relative error")
    for (kind, scheme), row in sorted(rows.items()):
        print(f"  {kind:<14} {scheme:<34} {row['count']:>5} {row['elements']:>10} {row['differing']:>6}  {row['error']:.3e}")
    for name, tensor in dense.items():
        if name.removesuffix(".weight") in quantized:
            continue
        if name in source and (complaint := same_bits(tensor, source[name])):
            wrong.append(f"{name}: not quantized, yet not as in the source: {complaint}")
        if name in state and (complaint := same_bits(state[name], tensor)):
            wrong.append(f"{name}: compressed against dense: {complaint}")
    if missing := sorted(set(source) - set(dense)):
        wrong.append(f"dense result lacks {missing[:5]}")
    return wrong


def prompt_of(folder, vocabulary):
    """Token ids of the prompt, and how to read tokens; without a tokenizer some fixed ids do."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        print(f"  no tokenizer ({type(error).__name__}), the prompt is a row of ids")
        return torch.arange(1, 9).remainder(vocabulary)[None], lambda ids: " ".join(map(str, ids))
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    return ids, tokenizer.decode


@torch.no_grad()
def logits_of(model, ids):
    return model(input_ids=ids).logits.float()


@torch.no_grad()
def write(model, ids):
    config = copy.deepcopy(model.generation_config)
    config.update(do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS, temperature=None, top_p=None, top_k=None, pad_token_id=0)
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, ids.shape[1]:].tolist()


def compare_outputs(compressed, dense_model, folder, activations):
    wrong = []
    ids, decode = prompt_of(folder, dense_model.config.vocab_size)
    expected = logits_of(dense_model, ids)
    got = logits_of(compressed, ids)
    if not torch.isfinite(got).all():
        wrong.append("logits of the compressed result are not finite")
    print(f"  logits: largest difference {float((got - expected).abs().max()):.3e}, largest logit {float(expected.abs().max()):.3f}")
    if not activations and not torch.equal(got, expected):
        wrong.append("logits of the compressed and the dense result differ")
    if activations:
        for module in compressed.modules():
            if getattr(module, "quantization_scheme", None) is not None:
                module.quantization_enabled = False
        if not torch.equal(logits_of(compressed, ids), expected):
            wrong.append("logits differ although activations are not quantized")
    ours, theirs = write(compressed, ids), write(dense_model, ids)
    print(f"  writes: {decode(ours)!r}")
    if ours != theirs:
        wrong.append(f"the {TOKENS} greedy tokens differ: dense writes {decode(theirs)!r}")
    return wrong


def check(source, compressed, dense):
    """Returns a list of what is wrong."""
    config = json.loads((pathlib.Path(compressed) / "config.json").read_text())
    if config["quantization_config"]["quant_method"] == "bitsandbytes":
        import check_bitsandbytes

        return check_bitsandbytes.check(source, compressed, dense)
    model = load(compressed)
    quantized, activations = {}, False
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None and scheme.weights is not None:
            quantized[name] = scheme_name(scheme)
        if scheme is not None and scheme.input_activations is not None:
            activations = True  # of a linear, or of attention that quantizes what it keeps
    if not quantized:
        return [f"{compressed}: no linear is quantized"]
    if hasattr(model, "ct_decompress_hook"):
        model.hf_quantizer.compressor.decompress_model(model)
    wrong = compare_weights(model, quantized, tensors_of(dense), tensors_of(source))
    return wrong + compare_outputs(model, load(dense), dense, activations)


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    pack_zero_points_on_meta()
    try:
        wrong = check(*sys.argv[1:])
    except Failure as failure:
        wrong = [str(failure)]
    for line in wrong:
        print(f"  WRONG {line}")
    print("  ok" if not wrong else f"  {len(wrong)} wrong")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
