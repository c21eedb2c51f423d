#!/usr/bin/env python3
"""Speed yardstick: training a target model in plain eager PyTorch, as a user of the Python framework gets it.

Shapes, losses and optimisers are those of the shipped pipelines. Prints steps per second; nothing is kept.

    python benches/pytorch_training.py tms_40-10 --steps 200
"""
import argparse
import time

import torch
from torch import nn
import torch.nn.functional as F


def sparse(batch, n, probability, low):
    x = torch.rand(batch, n) * (1.0 - low) + low
    return x * (torch.rand_like(x) < probability)


class Tms(nn.Module):
    """Tied weights, ReLU, mean squared error against the input."""

    def __init__(self, n, d, batch):
        super().__init__()
        self.batch, self.n = batch, n
        self.weight = nn.Parameter(torch.randn(d, n) / n**0.5)
        self.bias = nn.Parameter(torch.zeros(n))

    def loss(self):
        x = sparse(self.batch, self.n, 0.05, 0.0)
        out = F.relu(F.linear(F.linear(x, self.weight), self.weight.T, self.bias))
        return ((x - out) ** 2).mean()


class ResidMlp(nn.Module):
    """A fixed embedding; the read-off loss against x + ReLU(x)."""

    def __init__(self, n, d, mlp, layers, batch):
        super().__init__()
        self.batch, self.n = batch, n
        embedding = F.normalize(torch.randn(n, d), dim=-1)
        self.register_buffer("WE", embedding)
        self.register_buffer("WU", embedding.T.contiguous())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(d, mlp, bias=False), nn.ReLU(), nn.Linear(mlp, d, bias=False)) for _ in range(layers))

    def loss(self):
        x = sparse(self.batch, self.n, 0.01, -1.0)
        r = x @ self.WE
        for layer in self.layers:
            r = r + layer(r)
        return ((r @ self.WU - (x + F.relu(x))) ** 2).mean()


class Attention(nn.Module):
    def __init__(self, d, length):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(d, d) for _ in range(4))
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).bool())

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2) / x.shape[-1] ** 0.5
        weights = scores.masked_fill(~self.mask, float("-inf")).softmax(-1)
        return self.out(weights @ self.v(x))


class InductionHead(nn.Module):
    """Two attention blocks; cross entropy at the last position."""

    def __init__(self, vocab, length, d, batch):
        super().__init__()
        self.vocab, self.length, self.batch = vocab, length, batch
        self.token = nn.Embedding(vocab, d)
        self.register_buffer("position", torch.randn(length, d))
        self.blocks = nn.ModuleList(Attention(d, length) for _ in range(2))
        self.unembed = nn.Linear(d, vocab)

    def loss(self):
        tokens = torch.randint(0, self.vocab, (self.batch, self.length))
        labels = torch.randint(0, self.vocab, (self.batch,))
        x = self.token(tokens) + self.position
        for block in self.blocks:
            x = x + block(x)
        return F.cross_entropy(self.unembed(x)[:, -1], labels)


EXPERIMENTS = {
    "tms_5-2": lambda: Tms(5, 2, 1024),
    "tms_40-10": lambda: Tms(40, 10, 8192),
    "resid_mlp1": lambda: ResidMlp(100, 1000, 50, 1, 2048),
    "resid_mlp2": lambda: ResidMlp(100, 1000, 25, 2, 2048),
    "ih": lambda: InductionHead(128, 64, 16, 1024),
}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("experiment", choices=EXPERIMENTS)
    args.add_argument("--steps", type=int, default=100)
    args.add_argument("--threads", type=int, default=0)
    a = args.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = EXPERIMENTS[a.experiment]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)

    def step():
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(a.steps):
        step()
    seconds = time.perf_counter() - began
    print(f"{a.experiment} threads={torch.get_num_threads()} steps={a.steps} steps_per_second={a.steps / seconds:.3f}")


if __name__ == "__main__":
    main()
