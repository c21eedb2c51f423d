#!/usr/bin/env python3
"""Decomposition steps per second: spdflow beside eager PyTorch, in the same minutes, on the same number of threads.

Rounds of the two alternate, so that whatever else the machine does hits both. Prints the median rate of each, their
ratio, and the peak memory of each. Needs a Python with torch; name it with --python.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch
    benches/against_pytorch.py --python /tmp/torch/bin/python tms_5-2 tms_40-10 resid_mlp1 resid_mlp2
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RATE = re.compile(r"steps_per_second=([0-9.]+)")


def build():
    """Builds the benchmark and returns its path."""
    command = ["cargo", "bench", "--package", "spdflow-stages", "--bench", "step", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for message in map(json.loads, lines):
        if message.get("executable") and message["target"]["name"] == "step":
            return message["executable"]
    sys.exit("error: cargo built no benchmark called `step`")


def measure(command):
    """Runs a command; returns the rate it prints last and its peak memory in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    rates = RATE.findall(output)
    if status != 0 or not rates:
        sys.exit(f"error: `{' '.join(command)}` failed or printed no rate")
    return float(rates[-1]), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="tms_5-2, tms_40-10, …")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pytorch-steps", type=int, default=0, help="steps of a PyTorch round; about ten seconds' worth if left out")
    arguments = parser.parse_args()
    ours = build()
    print(f"{'experiment':12} {'spdflow':>12} {'pytorch':>12} {'ratio':>8} {'spdflow MiB':>12} {'pytorch MiB':>12}")
    for experiment in arguments.experiments:
        threads = ["--threads", str(arguments.threads)]
        yardstick = [arguments.python, str(ROOT / "benches" / "pytorch_step.py"), experiment, *threads, "--steps"]
        steps = arguments.pytorch_steps or max(5, int(10 * measure([*yardstick, "5"])[0]))
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append((measure([ours, experiment, *threads, "--rounds", "1"]), measure([*yardstick, str(steps)])))
        us, them = (statistics.median(side[0] for side in sides) for sides in zip(*rounds))
        memory = [max(side[1] for side in sides) for sides in zip(*rounds)]
        print(f"{experiment:12} {us:12.2f} {them:12.2f} {us / them:7.1f}x {memory[0]:12.0f} {memory[1]:12.0f}", flush=True)


if __name__ == "__main__":
    main()
