"""Perplexity of a model directory in transformers, beside the grammar's floor, and one greedy story.

    python evaluate.py --model DIR --stories HELDOUT.jsonl [--limit N]

Two figures, both from the stored weights with float32 arithmetic:

stories  every story alone: <|endoftext|> first, then all its tokens and the closing
         <|endoftext|> are scored. The floor is exact here: bits * ln 2 / tokens.
stream   the same stories as one stream, <|endoftext|> between them; windows of
         --window tokens every --stride tokens, each token scored once, in the
         first window that holds it. A token early in a window may refer to what
         the window no longer shows, so the floor can not quite be reached.
"""

import argparse
import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import stories


def losses(model, ids):
    """ids: batch x tokens. Returns the loss in nats of every token but the first of each row."""
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def per_story(model, encoded, batch=32):
    """Sums over stories; those of similar length share a batch, what pads them is not counted."""
    total, count = 0.0, 0
    order = sorted(encoded, key=len)
    for i in range(0, len(order), batch):
        group = order[i : i + batch]
        ids = torch.full((len(group), 2 + max(map(len, group))), stories.END_ID)
        for row, story in zip(ids, group):
            row[1 : 1 + len(story)] = torch.from_numpy(story.astype("int64"))
        loss = losses(model, ids).double()
        for row, story in zip(loss, group):
            total += row[: len(story) + 1].sum().item()
            count += len(story) + 1
    return total, count


def over_stream(model, ids, window, stride):
    total, count, scored = 0.0, 0, 1
    ids = torch.from_numpy(ids.astype("int64"))
    for start in range(0, len(ids), stride):
        end = min(start + window, len(ids))
        loss = losses(model, ids[None, start:end])[0].double()
        total += loss[scored - start - 1 :].sum().item()
        count += end - scored
        scored = end
        if end == len(ids):
            return total, count


def report(name, nats, tokens, floor):
    mean = nats / tokens
    print(
        f"{name}: {mean:.4f} nats per token over {tokens} tokens, perplexity {math.exp(mean):.4f}; "
        f"floor {floor:.4f} nats, perplexity {math.exp(floor):.4f}; {mean / floor - 1:+.2%} over the floor",
        flush=True,
    )


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", required=True)
    p.add_argument("--stories", required=True, help="held-out story file, jsonl")
    p.add_argument("--limit", type=int, default=1000, help="use the first N stories")
    p.add_argument("--window", type=int, default=512)
    p.add_argument("--stride", type=int, default=256)
    p.add_argument("--prompt", default="Once upon a time")
    a = p.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    texts, bits = stories.read(a.stories)
    texts, bits = texts[: a.limit], bits[: a.limit]
    encoded = list(stories.encode(tokenizer.backend_tokenizer, texts))
    nats = bits.sum() * math.log(2)

    ids = tokenizer(stories.END + a.prompt, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_length=a.window)
    print(tokenizer.decode(out[0]), flush=True)

    total, count = per_story(model, encoded)
    print(f"{len(texts)} stories, longest {max(map(len, encoded))} tokens")
    report("stories", total, count, nats / count)
    stream = stories.stream(encoded)
    total, count = over_stream(model, stream, a.window, a.stride)
    report(f"stream, window {a.window}, stride {a.stride}", total, count, nats / count)


if __name__ == "__main__":
    main()
