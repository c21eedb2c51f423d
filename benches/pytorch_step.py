#!/usr/bin/env python3
"""Speed yardstick: one SPD training step in plain eager PyTorch, as a user of the Python framework gets it.

Prints steps per second for the toy experiments on this machine's CPU, so that `spdflow` can be timed beside it
in the same minute. It is a yardstick for speed only: parameters are random, nothing is learned worth keeping.
Shapes, losses and the optimiser follow the public configurations of the experiments:
stochastic recon + layerwise recon + importance minimality (resid_mlp2: stochastic and adversarial recon over random
subsets of sites, one shared causal-importance network a site), delta component on, AdamW, f32.

    pip install torch            # once; any 2.x
    python benches/pytorch_step.py tms_5-2 --steps 200
    python benches/pytorch_step.py tms_40-10 --steps 20
    python benches/pytorch_step.py resid_mlp1 --steps 20
    python benches/pytorch_step.py resid_mlp2 --steps 20
"""
import argparse
import time

import torch
from torch import nn
import torch.nn.functional as F

TMS = dict(p=2.0, imp=1e-4, prob=0.05, batch=4096, hidden=16, ci="mlp", losses="layerwise", low=0.0, high=1.0, lr=1e-3)
EXPERIMENTS = {
    "tms_5-2": dict(TMS, kind="tms", n=5, d=2, C=20, imp=3e-3, p=1.0),
    "tms_40-10": dict(TMS, kind="tms", n=40, d=10, C=200),
    "resid_mlp1": dict(TMS, kind="resid", n=100, d=1000, mlp=50, layers=1, C=100, imp=1e-5, prob=0.01,
                       batch=2048, low=-1.0, lr=2e-3),
    "resid_mlp2": dict(TMS, kind="resid", n=100, d=1000, mlp=25, layers=2, C=400, prob=0.01, batch=2048,
                       low=-1.0, lr=3e-4, hidden=256, ci="shared_mlp", losses="subset"),
}


class LowerLeakyHard(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        below = torch.where(g < 0, 0.01 * g, torch.zeros_like(g))
        return torch.where(x <= 0, below, torch.where(x <= 1, g, torch.zeros_like(g)))


def upper_leaky_hard(x):
    return torch.where(x > 1, 1 + 0.01 * (x - 1), x.clamp(0.0, 1.0))


class Site(nn.Module):
    """One decomposed matrix: components V [d_in, C], U [C, d_out] and its causal-importance network: one small MLP per
    component on its activation, or one MLP for all on the site's input."""

    def __init__(self, weight, bias, C, hidden, ci):
        super().__init__()
        d_out, d_in = weight.shape
        self.register_buffer("W", weight)
        self.bias = bias
        self.V = nn.Parameter(torch.randn(d_in, C) / d_in**0.5)
        self.U = nn.Parameter(torch.randn(C, d_out) / C**0.5)
        self.shared = None
        if ci == "shared_mlp":
            self.shared = nn.Sequential(nn.Linear(d_in, hidden), nn.GELU(), nn.Linear(hidden, C))
            return
        self.w1 = nn.Parameter(torch.randn(C, 1, hidden))
        self.b1 = nn.Parameter(torch.zeros(C, hidden))
        self.w2 = nn.Parameter(torch.randn(C, hidden, 1) / hidden**0.5)
        self.b2 = nn.Parameter(torch.zeros(C, 1))

    def delta(self):
        return self.W - (self.V @ self.U).T

    def ci(self, x):
        if self.shared is not None:
            return self.shared(x)
        a = (x @ self.V).unsqueeze(-1)
        h = F.gelu(torch.einsum("bcd,cdh->bch", a, self.w1) + self.b1)
        return (torch.einsum("bch,cho->bco", h, self.w2) + self.b2).squeeze(-1)

    def plain(self, x):
        return F.linear(x, self.W, self.bias)

    def masked(self, x, mask, delta, delta_mask, routing=None):
        y = ((x @ self.V) * mask) @ self.U + delta_mask[:, None] * (x @ delta.T)
        y = y if self.bias is None else y + self.bias
        return y if routing is None else torch.where(routing[:, None], y, self.plain(x))


class Model(nn.Module):
    def __init__(self, e):
        super().__init__()
        self.e = e
        n, d, C, h, ci = e["n"], e["d"], e["C"], e["hidden"], e["ci"]
        if e["kind"] == "tms":
            w = torch.randn(d, n) / n**0.5
            self.sites = nn.ModuleList([Site(w, None, C, h, ci), Site(w.T.contiguous(), torch.zeros(n), C, h, ci)])
        else:
            emb = F.normalize(torch.randn(n, d), dim=-1)
            self.register_buffer("WE", emb)
            self.register_buffer("WU", emb.T.contiguous())
            sites = []
            for _ in range(e["layers"]):
                sites.append(Site(torch.randn(e["mlp"], d) / d**0.5, None, C, h, ci))
                sites.append(Site(torch.randn(d, e["mlp"]) / e["mlp"] ** 0.5, None, C, h, ci))
            self.sites = nn.ModuleList(sites)

    def forward(self, x, apply):
        if self.e["kind"] == "tms":
            return F.relu(apply(1, apply(0, x)))
        r = x @ self.WE
        for layer in range(self.e["layers"]):
            r = r + apply(2 * layer + 1, F.relu(apply(2 * layer, r)))
        return r @ self.WU


def step(model, opt, e):
    opt.zero_grad()
    deltas = [s.delta() for s in model.sites]
    x = torch.rand(e["batch"], e["n"]) * (e["high"] - e["low"]) + e["low"]
    x = x * (torch.rand_like(x) < e["prob"])
    inputs = {}

    def clean(i, v):
        inputs[i] = v
        return model.sites[i].plain(v)

    with torch.no_grad():
        target = model(x, clean)
    ci = [s.ci(inputs[i]) for i, s in enumerate(model.sites)]
    lower = [LowerLeakyHard.apply(c) for c in ci]
    upper = [upper_leaky_hard(c) for c in ci]
    imp = sum(((u + 1e-12) ** e["p"]).sum(-1).mean() for u in upper)

    every = range(len(model.sites))

    def masked_pass(masks, delta_masks, routing=None):
        out = model(x, lambda i, v: model.sites[i].masked(v, masks[i], deltas[i], delta_masks[i],
                                                          None if routing is None else routing[i]) if i in masks
                    else model.sites[i].plain(v))
        return F.mse_loss(out, target)

    def stochastic(which, routing=None):
        masks = {i: lower[i] + (1 - lower[i]) * torch.rand_like(lower[i]) for i in which}
        return masked_pass(masks, {i: torch.rand(e["batch"]) for i in which}, routing)

    def subsets():
        """For each row a number of sites, uniform from one to all, and then that many sites."""
        k = torch.randint(1, len(every) + 1, (e["batch"],))
        return torch.rand(len(every), e["batch"]).argsort(0).argsort(0) < k

    def adversarial(routing):
        """One step of size 1 along the signs of the gradient, from a random start shared by the batch."""
        sources = [torch.rand(1, e["C"] + 1, requires_grad=True) for _ in every]

        def attacked():
            masks = {i: lower[i] + (1 - lower[i]) * sources[i][:, :-1] for i in every}
            return masked_pass(masks, {i: sources[i][:, -1].expand(e["batch"]) for i in every}, routing)

        gradients = torch.autograd.grad(attacked(), sources)
        with torch.no_grad():
            sources = [(s + g.sign()).clamp(0.0, 1.0) for s, g in zip(sources, gradients)]
        return attacked()

    if e["losses"] == "subset":
        loss = e["imp"] * imp + 2 * stochastic(every, subsets()) + 2 * adversarial(subsets())
    else:
        layerwise = sum(stochastic([i]) for i in every) / len(every)
        loss = e["imp"] * imp + stochastic(every) + layerwise
    loss.backward()
    opt.step()
    return loss


def main():
    args = argparse.ArgumentParser()
    args.add_argument("experiment", choices=EXPERIMENTS)
    args.add_argument("--steps", type=int, default=50)
    args.add_argument("--threads", type=int, default=0)
    a = args.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    e = EXPERIMENTS[a.experiment]
    torch.manual_seed(0)
    model = Model(e)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=e["lr"], weight_decay=0)
    for _ in range(3):
        step(model, opt, e)
    began = time.perf_counter()
    for _ in range(a.steps):
        step(model, opt, e).item()
    seconds = time.perf_counter() - began
    print(f"{a.experiment} threads={torch.get_num_threads()} steps={a.steps} steps_per_second={a.steps / seconds:.3f}")


if __name__ == "__main__":
    main()
