"""Trains one of the bundled story models on the CPU and writes it as a Hugging Face directory.

    python train.py --model dense --stories FILE.jsonl --tokenizer DIR --steps N --out DIR

The weights stay float32 while training (matrix products are bfloat16, see
network.py) and are rounded to bfloat16 once, at the end. A story is seen once:
the number of stories bounds the number of steps. The result is not
bit-reproducible over torch versions and CPUs.
"""

import argparse
import os
import shutil
import time

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import GenerationConfig

import architectures
import network
import optimizer
import stories

WINDOW = 512


def windows(ids, batch, seed):
    """Batches of WINDOW+1 ids in a seeded order.

    Three windows of four begin with a story, so that nothing in it refers to what
    was cut off; the fourth begins where the third ends, somewhere inside one.
    """
    starts = []
    ends = np.flatnonzero(ids == stories.END_ID)
    at = 0
    while at + WINDOW < len(ids):
        starts.append(at)
        at += WINDOW
        if len(starts) % 4 != 3:
            at = ends[np.searchsorted(ends, at - WINDOW // 4)]  # a story cut in half is read again from its start
    order = np.random.default_rng(seed).permutation(starts)
    for i in range(0, len(order) - batch + 1, batch):
        yield np.stack([ids[j : j + WINDOW + 1] for j in order[i : i + batch]])


def train(a):
    torch.manual_seed(a.seed)
    tokenizer = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json"))
    texts, bits = stories.read(a.stories)
    ids = stories.stream(stories.encode(tokenizer, texts))
    floor = bits.sum() * np.log(2) / (len(ids) - 1)
    model = network.Network(architectures.MODELS[a.model]().config, WINDOW)
    if a.resume:
        model.load(load_file(os.path.join(a.resume, "model.safetensors")))
    count = sum(p.numel() for p in model.parameters())
    print(f"{a.model}: {count} weights; {len(ids)} tokens; floor {floor:.4f} nats per token", flush=True)
    opt = optimizer.Optimizer(model, a.matrix_lr, a.other_lr, a.down)
    forward = torch.compile(model) if a.compile else model
    start, mean, step = time.time(), 0.0, 0
    for batch in windows(ids, a.batch, a.seed):
        progress = step / a.steps
        if a.minutes:
            progress = max(progress, (time.time() - start) / 60 / a.minutes)
        if progress >= 1:
            break
        x = torch.from_numpy(batch.astype(np.int64))
        loss, balance = forward(x[:, :-1], x[:, 1:])
        (loss + a.balance * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step(progress)
        model.zero_grad(set_to_none=True)
        if step == 0:
            start = time.time()  # compilation is not part of the schedule
        step += 1
        mean += loss.item()
        if step % a.every == 0:
            mean /= a.every
            print(
                f"step {step} loss {mean:.4f} over floor {mean / floor - 1:+.2%} "
                f"balance {balance.item():.3f} {time.time() - start:.0f} s",
                flush=True,
            )
            mean = 0.0
    print(f"{step} steps, {step * a.batch * WINDOW} tokens, progress {progress:.3f}", flush=True)
    if progress < 0.98:
        raise SystemExit("stories used up before the schedule came to its end: write more of them")
    return model


def save(network, kind, tokenizer, out):
    """Goes through transformers' own class, so that names, config.json and layout are its."""
    os.makedirs(out, exist_ok=True)
    model = architectures.MODELS[kind]()
    lacking = model.load_state_dict(network.hugging_face(), strict=False)
    if lacking.unexpected_keys or set(lacking.missing_keys) - {"lm_head.weight"}:
        raise SystemExit(f"names differ from transformers': {lacking}")
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=stories.END_ID, eos_token_id=stories.END_ID, pad_token_id=stories.END_ID, max_length=WINDOW
    )
    model.save_pretrained(out, safe_serialization=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(tokenizer, name), os.path.join(out, name))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", choices=sorted(architectures.MODELS), required=True)
    p.add_argument("--stories", required=True, help="story file, jsonl")
    p.add_argument("--tokenizer", required=True, help="directory that tokenizer.py wrote")
    p.add_argument("--out", required=True)
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--resume", help="directory of a model to go on from; the schedule starts anew, so give other stories")
    p.add_argument("--minutes", type=float, help="run the same schedule over this wall time, if that is shorter")
    p.add_argument("--batch", type=int, default=4, help="windows of 512 tokens a step")
    p.add_argument("--matrix-lr", type=float, default=0.005)
    p.add_argument("--other-lr", type=float, default=0.002)
    p.add_argument("--down", type=float, default=0.7, help="last part of the schedule in which the rates sink to zero")
    p.add_argument("--balance", type=float, default=0.001, help="weight of the load balancing loss")
    p.add_argument("--compile", action="store_true", help="torch.compile: a quarter faster, needs a C++ compiler")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--every", type=int, default=20, help="steps between two lines of output")
    a = p.parse_args()
    save(train(a), a.model, a.tokenizer, a.out)


if __name__ == "__main__":
    main()
