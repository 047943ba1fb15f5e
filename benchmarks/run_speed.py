"""How much faster than real time a simulated run is, checking included.

    python benchmarks/run_speed.py [--seeds 5] [--json]

Runs the default test (5 nodes, 10 clients, 100 operations a second, 60 simulated seconds, default faults) for some
seeds and prints wall seconds for run and check, and the ratio of simulated to processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from harness import plan as plans
from harness.config import Config
from harness.execute import execute
from harness.progress import QuietProgress


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as directory:
            plan = plans.draw(Config(), seed)
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            result = execute(plan, Path(directory), QuietProgress()).result
            rows.append(
                {
                    "seed": seed,
                    "valid": result["valid"],
                    "ops": result["ops"],
                    "sim_s": result["sim_seconds"],
                    "cpu_s": round(time.process_time() - cpu_s, 2),
                    "wall_s": round(time.perf_counter() - wall_s, 2),
                }
            )
    median_s = statistics.median(row["cpu_s"] for row in rows)
    summary = {"median_cpu_s": median_s, "times_real_time": round(rows[0]["sim_s"] / median_s, 1)}
    if args.json:
        print(json.dumps({"rows": rows} | summary))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(f"median {median_s} s of processor time: {summary['times_real_time']} times real time")


if __name__ == "__main__":
    main()
