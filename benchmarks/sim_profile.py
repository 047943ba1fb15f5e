"""Where the time of a simulated run goes, by part of the project.

    python benchmarks/sim_profile.py [--seed 1] [--seconds 60] [--depth fast] [--repeat 3] [--json]

Runs the default test (5 nodes, 10 clients, 100 operations a second, default faults), judged as always: first plainly,
for the ratio of simulated to processor time (the best of `--repeat`, for whatever else the machine does only adds),
then under cProfile, whose own cost weighs on small functions; only its shares are shown.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from collections import Counter
from pathlib import Path

from harness import plan as plans
from harness.config import Config
from harness.execute import execute
from harness.progress import QuietProgress

# The first that fits; a function of the standard library counts for itself.
PARTS = (
    ("checker", ("/checkers/",)),
    ("raft core and log", ("/raft/core/", "/raft/wal.py", "/raft/framing.py", "/raft/bugs/")),
    ("raft node and store", ("/raft/kv.py", "/raft/keys.py", "/raft/node.py", "/raft/sessions.py", "/raft/storage.py")),
    ("raft server", ("/raft/server", "/raft/http", "/raft/peers", "/raft/file_storage")),
    ("invariants", ("/raft/invariants.py", "/raft_watch.py")),
    ("simulated links and dice", ("/sim/network.py", "/harness/seeds.py", "/sim/streams.py")),
    ("simulated hosts and disks", ("/sim/host.py", "/sim/disk.py", "/sim/files.py", "/sim/clock.py", "/sim/world")),
    ("event loop", ("/sim/loop.py", "/sim/world_loop.py", "/asyncio/", "_heapq", "_asyncio", "contextvars")),
    ("clients", ("/harness/systems/", "/harness/clusters/")),
    ("runner, recorder, report", ("/harness/runner.py", "/harness/recorder.py", "/harness/report.py", "/harness/")),
    ("nemesis", ("/nemesis/",)),
)  # fmt: skip


def part_of(place: tuple[str, int, str]) -> str:
    name = f"{place[0]} {place[2]}"
    return next((part for part, marks in PARTS if any(mark in name for mark in marks)), "the rest of Python")


def run(config: Config, seed: int) -> tuple[float, dict[str, object]]:
    plan = plans.draw(config, seed)
    with tempfile.TemporaryDirectory() as directory:
        began_s = time.process_time()
        result = execute(plan, Path(directory), QuietProgress()).result
        return time.process_time() - began_s, result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--depth", choices=["fast", "whole"], default="fast")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    config = Config(time_limit_s=args.seconds, depth=args.depth)
    run(Config(time_limit_s=5.0, depth=args.depth), args.seed)  # caches and imports
    runs = [run(config, args.seed) for _ in range(args.repeat)]
    cpu_s, result = min(runs, key=lambda pair: pair[0])
    profile = cProfile.Profile()
    profile.enable()
    run(config, args.seed)
    profile.disable()
    spent: Counter[str] = Counter()
    for place, (_, _, own_s, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        spent[part_of(place)] += own_s
    total_s = sum(spent.values())
    facts = result["facts"]
    summary = {
        "seed": args.seed, "depth": args.depth, "valid": result["valid"], "sim_seconds": result["sim_seconds"],
        "cpu_seconds": round(cpu_s, 3), "times_real_time": round(result["sim_seconds"] / cpu_s, 1),
        "events": facts["sim_events"], "ops": result["ops"],
        "events_per_second": round(facts["sim_events"] / cpu_s),
        "shares": {part: round(s / total_s, 3) for part, s in spent.most_common()},
    }  # fmt: skip
    if args.json:
        print(json.dumps(summary))
        return
    print(
        f"seed {args.seed}, {args.depth}: {summary['sim_seconds']} simulated s in {summary['cpu_seconds']} s of "
        f"processor time, {summary['times_real_time']} times real time; {summary['events']} events, "
        f"{summary['events_per_second']} a second; valid: {summary['valid']}"
    )
    for part, share in summary["shares"].items():
        print(f"  {share:6.1%}  {part}")


if __name__ == "__main__":
    main()
