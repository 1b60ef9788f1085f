"""Muon for the matrices of the blocks, AdamW for everything else.

Muon (Keller Jordan, 2024): the momentum of a matrix is replaced by a nearly
orthogonal matrix, found by a few Newton-Schulz steps. With few tokens it learns
about twice as fast as AdamW. Matrices of one shape go as one batch.
"""

import torch


def orthogonal(g, steps=5):
    """g: batch x rows x cols; the quintic iteration, coefficients of the reference implementation."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.size(-2) > g.size(-1)
    x = g.mT if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(torch.bfloat16)
    for _ in range(steps):
        m = x @ x.mT
        x = a * x + (b * m + c * (m @ m)) @ x
    return (x.mT if tall else x).float()


class Muon:
    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.02):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.groups = {}
        for p in parameters:
            self.groups.setdefault(tuple(p.shape[-2:]), []).append(p)
        self.buffers = {s: torch.zeros_like(self.batch(ps)) for s, ps in self.groups.items()}

    @staticmethod
    def batch(tensors):
        return torch.cat([t.reshape(-1, *t.shape[-2:]) for t in tensors])

    @torch.no_grad()
    def step(self, scale):
        lr = self.lr * scale
        for (rows, cols), ps in self.groups.items():
            g, buffer = self.batch([p.grad for p in ps]), self.buffers[rows, cols]
            buffer.lerp_(g, 1 - self.momentum)
            update = orthogonal(g.lerp(buffer, self.momentum)) * max(1, rows / cols) ** 0.5
            at = 0
            for p in ps:
                n = p.numel() // (rows * cols)
                p.mul_(1 - lr * self.weight_decay).add_(update[at : at + n].view_as(p), alpha=-lr)
                at += n


class Optimizer:
    """Both, driven by one schedule: a short warm-up, a plateau, a linear way down to zero."""

    def __init__(self, model, matrix_lr, other_lr, down, warm=0.03):
        self.warm, self.down = warm, down
        matrices, others = [], []
        for name, p in model.named_parameters():
            block_matrix = p.ndim >= 2 and name.startswith("blocks.") and not name.endswith(".router")
            (matrices if block_matrix else others).append(p)
        self.muon = Muon(matrices, matrix_lr)
        self.other_lr = other_lr
        self.adam = torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, progress):
        """progress: the part of the schedule that is over, from 0 to 1."""
        scale = min(1.0, 0.01 + progress / self.warm, 0.001 + (1 - progress) / self.down)
        self.muon.step(scale)
        for group in self.adam.param_groups:
            group["lr"] = self.other_lr * scale
        self.adam.step()
