#!/usr/bin/env python3
"""Writes golden cases of forward passes, made by transformers: tiny models with random weights, and logits in float32.

    forward.py DIR [MODEL...]   one folder a case: config.json, model.safetensors (bfloat16), expected.json; see DIR/README.md;
                                for every folder MODEL with a trained model, DIR/bundled/NAME.json

Every weight is random with a standard deviation of at least 0.1, norms and biases too, so that nothing may be left out or taken for 1 or 0.
Texts are longer than windows and than the context before rotary scaling. The script refuses a case whose routing is nearly a tie,
or whose logits differ between feeding at once and token by token, or much from float64's.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

TOKENS = 48
KEEP = [0, 7, 23, 46, 47]  # positions whose logits are kept
BASE = dict(vocab_size=36, hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, attn_implementation="eager", bos_token_id=None, eos_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=0.5)

CASES = {
    "llama2": (LlamaConfig, dict(num_key_value_heads=4, head_dim=6)),
    "llama31": (LlamaConfig, dict(rope_theta=500.0, rope_scaling=LLAMA3, head_dim=10, rms_norm_eps=1e-5, tie_word_embeddings=True)),
    "llama-linear": (LlamaConfig, dict(rope_scaling=dict(rope_type="linear", factor=3.0), attention_bias=True, mlp_bias=True, head_dim=6)),
    "mistral": (MistralConfig, dict(sliding_window=7, head_dim=8)),
    "qwen2": (Qwen2Config, dict(use_sliding_window=True, sliding_window=9, max_window_layers=1, head_dim=6, tie_word_embeddings=True)),
    "qwen2-yarn": (Qwen2Config, dict(rope_scaling=YARN, head_dim=6)),
    "qwen3": (Qwen3Config, dict(head_dim=10, attention_bias=True, tie_word_embeddings=True)),
    "qwen3-window": (Qwen3Config, dict(head_dim=8, use_sliding_window=True, sliding_window=5, layer_types=["sliding_attention", "full_attention"])),
    "qwen3moe": (Qwen3MoeConfig, dict(head_dim=8, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=10, norm_topk_prob=True, mlp_only_layers=[0])),
    "qwen3moe-window": (Qwen3MoeConfig, dict(head_dim=8, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=8, norm_topk_prob=False,
                                             use_sliding_window=True, sliding_window=11, tie_word_embeddings=True)),
}


def randomize(model, generator):
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            p.data = 1 + 0.3 * noise
        elif name.endswith("bias"):
            p.data = 0.3 * noise
        elif "embed_tokens" in name:
            p.data = 0.5 * noise
        elif name.endswith(("mlp.gate.weight")):
            p.data = 0.4 * noise
        else:
            p.data = 0.2 * noise
        p.data = p.data.bfloat16().float()


def routing_gap(model, ids):
    """The least distance between the last expert chosen and the first not."""
    gap, hooks = [1.0], []

    def see(module, _, output):
        p = output.float().softmax(-1).sort(-1, descending=True).values
        k = model.config.num_experts_per_tok
        gap.append((p[..., k - 1] - p[..., k]).min().item())

    for name, module in model.named_modules():
        if name.endswith("mlp.gate"):
            hooks.append(module.register_forward_hook(see))
    model(ids)
    for h in hooks:
        h.remove()
    return min(gap)


@torch.no_grad()
def case(directory, name, kind, options, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(kind(**{**BASE, **options})).float().eval()
    randomize(model, generator)
    ids = torch.randint(0, BASE["vocab_size"], (1, TOKENS), generator=generator)
    if routing_gap(model, ids) < 1e-3:
        return False
    at_once = model(ids).logits[0]
    past, rows = None, []
    for i in range(TOKENS):
        out = model(ids[:, i:i + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        rows.append(out.logits[0, 0])
    spread = at_once.abs().max()
    assert (torch.stack(rows) - at_once).abs().max() < 1e-5 * spread, f"{name}: decoding differs"
    exact = model.double()(ids).logits[0]
    assert (exact - at_once).abs().max() < 1e-5 * spread, f"{name}: float32 differs from float64"
    to = directory / name
    to.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(to)
    (to / "generation_config.json").unlink(missing_ok=True)
    expected = {"tokens": ids[0].tolist(), "positions": KEEP, "logits": [[float(f"{v:.9g}") for v in at_once[p].tolist()] for p in KEEP]}
    (to / "expected.json").write_text(json.dumps(expected) + "\n")
    print(name, "seed", seed, "spread", round(spread.item(), 3))
    return True


@torch.no_grad()
def trained(directory, path):
    """Tokens that a trained model says after a beginning, what they cost it, the logits after them, and the text it ends by itself."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    start = torch.tensor([[model.config.bos_token_id] + tokenizer.encode("Once upon a time", add_special_tokens=False)])
    ids = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=120, do_sample=False, pad_token_id=0)
    whole = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=450, do_sample=False, pad_token_id=0)
    assert whole[0, -1] == model.config.eos_token_id
    told = tokenizer.decode(whole[0, start.shape[1]:], skip_special_tokens=True)
    logits = model(ids).logits[0]
    nll = -logits[:-1].double().log_softmax(-1).gather(1, ids[0, 1:, None]).sum().item()
    to = directory / "bundled" / f"{pathlib.Path(path).name}.json"
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps({"start": start.shape[1], "tokens": ids[0].tolist(), "nll": nll, "told": told,
                              "logits": [float(f"{v:.7g}") for v in logits[-1].tolist()]}) + "\n")
    print(to.name, ids.shape[1], "tokens", nll)


def main(directory, *models):
    print("transformers", transformers.__version__, "torch", torch.__version__)
    for name, (kind, options) in CASES.items():
        seed = 1
        while not case(pathlib.Path(directory), name, kind, options, seed):
            seed += 1
    for path in models:
        trained(pathlib.Path(directory), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
