#!/usr/bin/env python3
"""Where the reference's method ends from the same start: tms_5-2 and tms_5-2-id, decomposed in eager PyTorch.

Takes the initial components and causal-importance networks that spdflow gives a seed, trains them with PyTorch's own
random inputs and masks, with the losses, optimiser and steps of the pipeline, and prints beside each other which
components matter for each feature in the end. A seed whose features share a component here too does so for its start,
not for our arithmetic.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch safetensors
    /tmp/torch/bin/python benches/pytorch_decomposition.py tms_5-2 0 2
    /tmp/torch/bin/python benches/pytorch_decomposition.py tms_5-2-id 0 1 2

About six minutes for a seed of tms_5-2 on two cores, and ten for tms_5-2-id.
"""
import argparse
import math
import pathlib
import subprocess
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from pytorch_step import LowerLeakyHard, Site, upper_leaky_hard

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCH, WARMUP, LR, WEIGHT_OF_IMPORTANCE = 4096, 200, 1e-3, 3e-3
FEATURES, PROBABILITY = 5, 0.05
SITES = {
    "tms_5-2": ["linear1", "linear2"],
    "tms_5-2-id": ["linear1", "hidden_layers.0", "linear2"],
}
# One update with a learning rate of nothing leaves the start.
START = {"steps": 1, "lr.start": 1e-30, "faithfulness_warmup.steps": 0, "evaluation.batches": 1}


def components(pipeline, seed, settings):
    """Returns what spdflow writes for a seed with these settings."""
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "target" / "release" / "spdflow", "run", ROOT / "pipelines" / f"{pipeline}.toml",
                   f"decompose[seed={seed}]", "--quiet"]
        for name, value in settings.items():
            command += ["--set", f"stage.decompose.params.{name}={value}"]
        subprocess.run(command, cwd=folder, check=True)
        written = pathlib.Path(folder) / "out" / pipeline / "decompose" / f"seed={seed}" / "components.safetensors"
        return load_file(written)


class Model(nn.Module):
    """The target's layers in their order, each with its components."""

    def __init__(self, names, tensors):
        super().__init__()
        self.sites = nn.ModuleList()
        for name in names:
            weight, bias = (tensors.get(f"target_model.{name}.{part}") for part in ("weight", "bias"))
            site = Site(weight, bias, 20, 16, "mlp")
            key = name.replace(".", "-")
            for part in ("V", "U"):
                getattr(site, part).data = tensors[f"_components.{key}.{part}"].clone()
            for ours, theirs in (("w1", "0.W"), ("b1", "0.b"), ("w2", "2.W"), ("b2", "2.b")):
                getattr(site, ours).data = tensors[f"_ci_fns.{key}.layers.{theirs}"].clone()
            self.sites.append(site)
        # Tied, as the target's weights are: one storage each, trained as two parameters.
        first, last = self.sites[0], self.sites[-1]
        last.U.data, last.V.data = first.V.data.T, first.U.data.T

    def forward(self, x, apply):
        for index in range(len(self.sites)):
            x = apply(index, x)
        return F.relu(x)

    def importances(self, x):
        """Returns each site's logits, and the target's output."""
        inputs = {}

        def clean(index, value):
            inputs[index] = value
            return self.sites[index].plain(value)

        with torch.no_grad():
            target = self(x, clean)
        return [site.ci(inputs[index]) for index, site in enumerate(self.sites)], target

    def active(self):
        """Returns for each site the components above 0.1 for each feature."""
        with torch.no_grad():
            logits, _ = self.importances(0.75 * torch.eye(FEATURES))
        return [[(row > 0.1).nonzero().flatten().tolist() for row in z.clamp(0.0, 1.0)] for z in logits]


def faithfulness(model):
    """Returns the mean square of what the components leave of the weights."""
    deltas = [site.delta() for site in model.sites]
    return sum((delta**2).sum() for delta in deltas) / sum(delta.numel() for delta in deltas)


def loss(model):
    x = torch.rand(BATCH, FEATURES) * (torch.rand(BATCH, FEATURES) < PROBABILITY)
    logits, target = model.importances(x)
    lower = [LowerLeakyHard.apply(z) for z in logits]
    deltas = [site.delta() for site in model.sites]

    def masked(which):
        masks = {i: lower[i] + (1 - lower[i]) * torch.rand_like(lower[i]) for i in which}
        delta_masks = {i: torch.rand(BATCH) for i in which}
        output = model(x, lambda i, v: model.sites[i].masked(v, masks[i], deltas[i], delta_masks[i]) if i in masks
                       else model.sites[i].plain(v))
        return F.mse_loss(output, target)

    every = range(len(model.sites))
    importance = sum((upper_leaky_hard(z) + 1e-12).sum(-1).mean() for z in logits)
    layerwise = sum(masked([i]) for i in every) / len(every)
    return WEIGHT_OF_IMPORTANCE * importance + masked(every) + layerwise


def train(model, steps):
    """Makes the warm-up and all updates; returns the mean loss of the last hundred."""
    components = [p for site in model.sites for p in (site.V, site.U)]
    warm = torch.optim.AdamW(components, lr=0.01, weight_decay=0.1)
    for _ in range(WARMUP):
        warm.zero_grad()
        faithfulness(model).backward()
        warm.step()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=0.0)
    last = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / (steps - 1)))
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
        last = last[-99:] + [value.item()]
    return sum(last) / len(last)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", choices=SITES)
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = SITES[arguments.pipeline]
    for seed in arguments.seeds:
        torch.manual_seed(seed)
        theirs = Model(names, components(arguments.pipeline, seed, START))
        final = train(theirs, arguments.steps)
        ours = Model(names, components(arguments.pipeline, seed, {"steps": arguments.steps}))
        print(f"{arguments.pipeline}, seed {seed}: loss of PyTorch's last hundred updates {final:.6f}")
        for name, in_pytorch, in_ours in zip(names, theirs.active(), ours.active()):
            same = "the same" if in_pytorch == in_ours else "different"
            print(f"  {name:16} PyTorch {in_pytorch}\n  {same:16} spdflow {in_ours}", flush=True)


if __name__ == "__main__":
    main()
