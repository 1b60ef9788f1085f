"""Both story models as one lean torch module, for training only.

It computes what transformers' Llama and Qwen3-MoE classes compute, several times
faster on a CPU: matrix products in bfloat16 over float32 master weights, all
experts as one wide gated MLP whose columns the router scales (8 small experts
cost less computed whole than gathered), and nothing that torch.compile cannot
fuse. `hugging_face` names the weights as transformers does; evaluate.py, which
runs transformers' own classes, is the check that both agree.
"""

import torch
from torch import nn
from torch.nn import functional as F


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotary(x, cos, sin):
    """x: batch x heads x positions x head_dim; the half-split layout of Hugging Face checkpoints."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def product(x, weight):
    return F.linear(x.to(torch.bfloat16), weight.to(torch.bfloat16))


def attention(q, k, v, block=128):
    """Causal attention, a block of queries at a time with only the keys it may see.

    On a CPU and at this length about twice as fast as scaled_dot_product_attention.
    """
    out = []
    for i in range(0, q.size(2), block):
        j = min(i + block, q.size(2))
        hidden = torch.arange(j, device=q.device) > torch.arange(i, j, device=q.device)[:, None]
        scores = (q[:, :, i:j] @ k[:, :, :j].mT).float() * q.size(-1) ** -0.5
        share = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out.append(share.to(v.dtype) @ v[:, :, :j])
    return torch.cat(out, dim=2)


def matrix(*shape):
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c.head_dim
        self.c, self.normed = c, c.model_type == "qwen3_moe"
        self.q = matrix(c.num_attention_heads * d, c.hidden_size)
        self.k = matrix(c.num_key_value_heads * d, c.hidden_size)
        self.v = matrix(c.num_key_value_heads * d, c.hidden_size)
        self.o = nn.Parameter(torch.zeros(c.hidden_size, c.num_attention_heads * d))
        if self.normed:
            self.q_norm, self.k_norm = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))

    def forward(self, x, cos, sin):
        c, (b, t, _) = self.c, x.shape
        d, heads, kv = c.head_dim, c.num_attention_heads, c.num_key_value_heads
        qkv = product(x, torch.cat([self.q, self.k, self.v])).view(b, t, heads + 2 * kv, d).transpose(1, 2)
        q, k, v = qkv.split([heads, kv, kv], dim=1)
        q, k = q.float(), k.float()
        if self.normed:
            q, k = rms_norm(q, self.q_norm, c.rms_norm_eps), rms_norm(k, self.k_norm, c.rms_norm_eps)
        q, k = rotary(q, cos, sin).to(v.dtype), rotary(k, cos, sin).to(v.dtype)
        k, v = k.repeat_interleave(heads // kv, dim=1), v.repeat_interleave(heads // kv, dim=1)
        y = attention(q, k, v)
        return product(y.transpose(1, 2).reshape(b, t, heads * d), self.o).float()

    def named(self, prefix):
        for n in "qkvo":
            yield f"{prefix}{n}_proj.weight", getattr(self, n)
        if self.normed:
            yield f"{prefix}q_norm.weight", self.q_norm
            yield f"{prefix}k_norm.weight", self.k_norm


class MLP(nn.Module):
    """experts == 1: the plain gated MLP, without a router."""

    def __init__(self, c):
        super().__init__()
        self.c, h = c, c.hidden_size
        self.experts = getattr(c, "num_experts", 1)
        width = c.moe_intermediate_size if self.experts > 1 else c.intermediate_size
        self.gate, self.up = matrix(self.experts, width, h), matrix(self.experts, width, h)
        self.down = nn.Parameter(torch.zeros(self.experts, h, width))
        if self.experts > 1:
            self.router = matrix(self.experts, h)

    def forward(self, x):
        e = self.experts
        gate, up = product(x, torch.cat([self.gate, self.up]).flatten(0, 1)).float().chunk(2, dim=-1)
        y = F.silu(gate) * up
        balance = x.new_zeros(())
        if e > 1:
            p = F.linear(x, self.router).softmax(-1)
            value, index = p.topk(self.c.num_experts_per_tok, dim=-1)
            share = torch.zeros_like(p).scatter(-1, index, value / value.sum(-1, keepdim=True))
            y = (y.unflatten(-1, (e, -1)) * share.unsqueeze(-1)).flatten(-2)
            # Load balancing (Switch Transformer, equation 4): 1 when every expert has the same load.
            load = (share > 0).float().mean((0, 1)) / self.c.num_experts_per_tok
            balance = e * (load.detach() * p.mean((0, 1))).sum()
        down = self.down.transpose(0, 1).flatten(1)
        return product(y, down).float(), balance

    def named(self, prefix):
        if self.experts > 1:
            yield f"{prefix}gate.weight", self.router
        for e in range(self.experts):
            inner = f"{prefix}experts.{e}." if self.experts > 1 else prefix
            for n in ("gate", "up", "down"):
                yield f"{inner}{n}_proj.weight", getattr(self, n)[e]


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.eps = c.rms_norm_eps
        self.before, self.after = nn.Parameter(torch.ones(c.hidden_size)), nn.Parameter(torch.ones(c.hidden_size))
        self.attention, self.mlp = Attention(c), MLP(c)

    def forward(self, x, cos, sin):
        x = x + self.attention(rms_norm(x, self.before, self.eps), cos, sin)
        y, balance = self.mlp(rms_norm(x, self.after, self.eps))
        return x + y, balance


class Network(nn.Module):
    def __init__(self, c, positions):
        super().__init__()
        self.c = c
        self.embedding = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.02)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(c.hidden_size))
        rate = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim)
        angle = torch.outer(torch.arange(positions).double(), rate)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, ids, targets):
        """Returns the mean loss in nats per token and the mean balance loss of the blocks."""
        x, balance = self.embedding[ids], 0.0
        for block in self.blocks:
            x, b = block(x, self.cos, self.sin)
            balance = balance + b / len(self.blocks)
        logits = product(rms_norm(x, self.norm, self.c.rms_norm_eps), self.embedding).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), balance

    def hugging_face(self):
        """The weights under transformers' names; the head is tied to the embedding and not named."""
        out = {"model.embed_tokens.weight": self.embedding, "model.norm.weight": self.norm}
        for i, b in enumerate(self.blocks):
            prefix = f"model.layers.{i}."
            out[prefix + "input_layernorm.weight"] = b.before
            out[prefix + "post_attention_layernorm.weight"] = b.after
            out.update(b.attention.named(prefix + "self_attn."))
            out.update(b.mlp.named(prefix + "mlp."))
        return {n: w.detach() for n, w in out.items()}

    @torch.no_grad()
    def load(self, named):
        """Takes the weights of a directory that train.py wrote; expert slices are views, so copying fills them."""
        for n, w in self.hugging_face().items():
            w.copy_(named[n])
