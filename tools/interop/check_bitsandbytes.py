"""What check.py does with results in the format bitsandbytes: `check` compares one with the dense result of the same recipe.

Linears of 4 bits are decoded by the library's own code on the CPU, and by its portable code, which is what its other back ends agree with: its AVX-512
code takes every row to begin a run, and is right only where the block size divides the columns. Where it does not, only the portable code counts.
"""

import collections

import bitsandbytes
import torch
from bitsandbytes import functional

import check as shared

KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)


def decode(module, dtype):
    """The weights of a linear, and what is wrong with them."""
    weight = module.weight
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        codes = weight.CB if weight.CB is not None else weight.data
        return functional.int8_vectorwise_dequant(codes, weight.SCB).to(dtype), ""
    state = weight.quant_state
    if state.dtype != dtype:
        return None, f"decodes to {state.dtype}, not {dtype}"
    absmax = state.absmax
    if state.nested:
        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    portable = torch.ops.bitsandbytes.dequantize_4bit.default.redispatch(
        KEYS, weight.data, absmax, state.blocksize, state.quant_type, state.shape, dtype).reshape(state.shape)
    if state.shape[1] % state.blocksize == 0:
        if complaint := shared.same_bits(functional.dequantize_4bit(weight.data, state), portable):
            return None, f"the library's two ways of decoding differ: {complaint}"
    return portable, ""


def name_of(module):
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        return "llm.int8"
    state = module.weight.quant_state
    return f"{state.quant_type} {state.blocksize}{' nested' if state.nested else ''}"


def check(source, compressed, dense):
    """Returns a list of what is wrong."""
    model = shared.load(compressed)
    wanted, before = shared.tensors_of(dense), shared.tensors_of(source)
    wrong, quantized, odd, int8 = [], {}, False, False
    rows = collections.defaultdict(lambda: [0, 0, 0.0])
    for name, module in model.named_modules():
        if not isinstance(module, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)):
            continue
        key = name + ".weight"
        weights, complaint = decode(module, wanted[key].dtype)
        complaint = complaint or shared.same_bits(weights, wanted[key])
        if complaint:
            wrong.append(f"{key}: {complaint}")
            continue
        quantized[key] = module, weights
        row = rows[name.rsplit(".", 1)[-1], name_of(module)]
        lost = (before[key].double() - weights.double()).square().sum() / before[key].double().square().sum()
        row[0], row[1], row[2] = row[0] + 1, row[1] + weights.numel(), max(row[2], float(lost))
        int8 = int8 or isinstance(module, bitsandbytes.nn.Linear8bitLt)
        # Its kernel for bfloat16 rounds scales to it when the model first runs: another model than what is stored.
        module.support_avx512bf16_for_cpu = False
        if not int8 and weights.shape[1] % module.weight.quant_state.blocksize:
            odd = True
            module.forward = plain(module, weights)
    print(f"  {'linear':<14} {'scheme':<16} {'count':>5} {'weights':>10}  worst relative error")
    for (kind, scheme), (count, elements, lost) in sorted(rows.items()):
        print(f"  {kind:<14} {scheme:<16} {count:>5} {elements:>10}  {lost:.3e}")
    if not quantized and not wrong:
        return [f"{compressed}: no linear is quantized"]
    state = dict(model.named_parameters())
    for key, tensor in wanted.items():
        if key in state and key not in quantized and (complaint := shared.same_bits(state[key], tensor)) and not wrong:
            wrong.append(f"{key}: compressed against dense: {complaint}")
    if wrong:
        return wrong
    if odd:
        print("  the columns do not divide into blocks: logits are of weights that the portable code decoded")
    if int8:
        # The engine quantizes activations too: finite as it is, and equal once it does not.
        ids, _ = shared.prompt_of(dense, model.config.vocab_size)
        got = shared.logits_of(model, ids)
        print(f"  logits with int8 activations: largest {float(got.abs().max()):.3f}")
        if not torch.isfinite(got).all():
            wrong.append("logits with int8 activations are not finite")
        for module, weights in quantized.values():
            module.forward = plain(module, weights)
    return wrong + shared.compare_outputs(model, shared.load(dense), dense, False)


def plain(module, weights):
    return lambda x: torch.nn.functional.linear(x, weights, module.bias)
