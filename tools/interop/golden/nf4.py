#!/usr/bin/env python3
"""Writes compress/quantize/testdata/bitsandbytes: what bitsandbytes makes of small matrices on a CPU.

    python tools/interop/golden/nf4.py compress/quantize/testdata/bitsandbytes

Weights come out of a formula that the test has too. Codes of 4 bits and LLM.int8() are what the library gives; bytes for magnitudes come from
its portable code (its native CPU code looks them up in a coarser table, and misses the nearest entry now and then), and so do decoded weights
(its AVX-512 code takes every row to begin a run, whatever the columns, and does not decode what the library itself encoded), with the map of 256 numbers
that shardpress stores, since that of the library depends on how a machine computes an even row of numbers.
"""

import base64
import json
import pathlib
import sys

import bitsandbytes
import torch
from bitsandbytes import functional as F

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def weights(count, seed):
    """Multiples of 2^-17 that look like weights."""
    out, state = [], seed
    for _ in range(count):
        total = 0
        for _ in range(4):
            state = (state * 1103515245 + 12345) % 2**31
            total += state >> 16
        out.append((total - 2 * 32768) / 2**17)
    return out


def dynamic_map():
    values = [0.0, 1.0]
    for i in range(7):
        n = 2**i
        for k in range(n):
            v = (2 * n + 18 * k + 9) / (20 * n * 10.0 ** (6 - i))
            values += [v, -v]
    return torch.tensor(sorted(values), dtype=torch.float64).float()


KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)


def portable(x, code):
    return torch.ops.bitsandbytes.quantize_blockwise.default.redispatch(KEYS, x, code, 256)


def decode(codes, absmax, block, kind, shape, dtype):
    return torch.ops.bitsandbytes.dequantize_4bit.default.redispatch(KEYS, codes, absmax, block, kind, shape, dtype)


def text(t):
    return base64.b64encode(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).decode()


def four_bits(kind, dtype, rows, cols, block, nested, seed):
    w = torch.tensor(weights(rows * cols, seed), dtype=torch.float64).float().reshape(rows, cols)
    if rows > 3:
        w[2] = 0
    w = w.to(DTYPES[dtype])
    codes, state = F.quantize_4bit(w, blocksize=block, quant_type=kind)
    case = dict(method=kind, dtype=dtype, rows=rows, cols=cols, block=block, nested=nested, seed=seed)
    case |= dict(codes=text(codes), absmax=text(state.absmax), table=text(state.code))
    if nested:
        offset = state.absmax.mean()
        code = dynamic_map()
        q, top = portable(state.absmax - offset, code)
        state.absmax = F.dequantize_blockwise(q, absmax=top, code=code, blocksize=256) + offset
        case |= dict(absmax=text(q), nested_absmax=text(top), nested_table=text(code), offset=text(offset))
    if rows < 10:
        case["decoded"] = text(decode(codes, state.absmax, block, kind, w.shape, w.dtype))
    return case


def int8(dtype, rows, cols, seed):
    w = torch.tensor(weights(rows * cols, seed), dtype=torch.float64).float().reshape(rows, cols)
    if rows > 3:
        w[2] = 0
    w = w.to(DTYPES[dtype])
    codes, absmax, _ = F.int8_vectorwise_quant(w)
    return dict(method="llmint8", dtype=dtype, rows=rows, cols=cols, seed=seed, codes=text(codes), absmax=text(absmax),
                decoded=text(F.int8_vectorwise_dequant(codes, absmax)))


def main():
    cases = []
    for kind in ("nf4", "fp4"):
        seed = 1
        for dtype in DTYPES:
            for rows, cols, block in ((2, 128, 64), (5, 48, 64), (3, 33, 64), (1, 7, 32)):
                for nested in (False, True):
                    seed += 1
                    cases.append(four_bits(kind, dtype, rows, cols, block, nested, seed))
        cases.append(four_bits(kind, "BF16", 70, 250, 64, True, 99))  # 274 runs: two of magnitudes
    for dtype in DTYPES:
        for rows, cols in ((2, 64), (5, 33)):
            cases.append(int8(dtype, rows, cols, 7 * cols + rows))
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    document = dict(library=f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__.split('+')[0]}", cases=cases)
    (folder / "cases.json").write_text(json.dumps(document, indent=0) + "\n")


main()
