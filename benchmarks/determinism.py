"""The same seeds in two processes at once, with different hash seeds: are their histories and traces the same?

    python benchmarks/determinism.py [--seeds 200] [--seconds 5] [--depth fast] [--json]

Both processes run at the same time, each a load for the other. Every seed draws its own mix of faults and rates, as
`splitbrain sweep --swarm` does. Prints the seeds whose digests differ; exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import plan as plans
from harness.config import Config
from harness.execute import execute
from harness.progress import QuietProgress
from harness.sweep.swarm import swarmed

HASH_SEEDS = ("1", "4242")


def digests(seeds: int, seconds: float, depth: str) -> None:
    """What one process does: a line for each seed."""
    for seed in range(seeds):
        plan = plans.draw(swarmed(Config(time_limit_s=seconds, depth=depth), seed), seed)
        with tempfile.TemporaryDirectory() as directory:
            result = execute(plan, Path(directory), QuietProgress()).result
        print(seed, result["history_sha256"], result["facts"]["trace_sha256"], result["facts"]["sim_events"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--depth", choices=["fast", "whole"], default="fast")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--digests", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.digests:
        digests(args.seeds, args.seconds, args.depth)
        return
    command = [sys.executable, __file__, "--digests", f"--seeds={args.seeds}", f"--seconds={args.seconds}"]
    running = [
        subprocess.Popen(
            [*command, f"--depth={args.depth}"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        for hash_seed in HASH_SEEDS
    ]  # fmt: skip
    first, second = (process.communicate()[0].splitlines() for process in running)
    differ = [a.split()[0] for a, b in zip(first, second, strict=False) if a != b]
    complete = len(first) == len(second) == args.seeds
    events = sum(int(line.split()[3]) for line in first)
    summary = {
        "depth": args.depth, "seeds": len(first), "differ": differ, "complete": complete, "events": events,
        "different_traces": len({line.split()[2] for line in first}),
    }  # fmt: skip
    print(
        json.dumps(summary) if args.json else "  ".join(f"{name} {value}" for name, value in summary.items())
    )
    sys.exit(0 if complete and not differ else 1)


if __name__ == "__main__":
    main()
