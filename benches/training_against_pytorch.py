#!/usr/bin/env python3
"""Training of target models, in steps per second: spdflow beside eager PyTorch, in the same minutes.

Runs the `target` stage of shipped pipelines at two numbers of steps in a cache of its own; the difference of their times
is free of everything a run does once. Rounds of the two programs alternate; prints medians and their ratio.

    benches/training_against_pytorch.py --python /tmp/torch/bin/python tms_5-2 tms_40-10 resid_mlp1 resid_mlp2 ih
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RATE = re.compile(r"steps_per_second=([0-9.]+)")


def seconds(experiment, steps, threads):
    """Returns how long the target's stage takes with so many steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "target" / "release" / "spdflow", "run", ROOT / "pipelines" / f"{experiment}.toml", "target",
                   "--json", "--threads", str(threads), "--cache", f"{folder}/cache",
                   "--set", f"stage.target.params.steps={steps}"]
        if experiment == "tms_5-2":
            command += ["--set", "stage.target.params.restarts=1"]
        output = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    events = map(json.loads, output.splitlines())
    return next(event["seconds"] for event in events if event["event"] == "finished" and event["instance"] == "target")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="the name of a shipped pipeline")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
    print(f"{'target of':12} {'spdflow':>12} {'pytorch':>12} {'ratio':>8}")
    for experiment in arguments.experiments:
        def yardstick(steps):
            command = [arguments.python, ROOT / "benches" / "pytorch_training.py", experiment,
                       "--threads", str(arguments.threads), "--steps", str(steps)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            return float(RATE.search(output)[1])

        def ours(steps):
            short = max(1, steps // 10)
            long = seconds(experiment, steps, arguments.threads) - seconds(experiment, short, arguments.threads)
            return (steps - short) / long

        steps = max(5, int(3 * yardstick(5)))
        rounds = [(ours(5 * steps), yardstick(steps)) for _ in range(arguments.rounds)]
        us, them = (statistics.median(side) for side in zip(*rounds))
        print(f"{experiment:12} {us:12.1f} {them:12.1f} {us / them:7.1f}x", flush=True)


if __name__ == "__main__":
    main()
