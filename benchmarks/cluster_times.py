"""How long a run on real nodes takes before its first operation and after its last one.

Run it with `python benchmarks/cluster_times.py --cluster docker`; what follows is handed on to `splitbrain run`. The
first time is from the command to the first line of the history, with the start of Python, the probing of the machine,
five nodes and an election in it; the last one from the last line to the end of the command, with the fetching of logs,
the removal of everything, the check and the drawing in it. Images are built before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = (sys.executable, "-m", "harness.cli", "run", "--nodes", "5", "--fault", "none", "--time-limit", "5")
POLL_S = 0.01


def measure(options: list[str]) -> tuple[float, float]:
    """Seconds to the first operation, and from the last one to the end."""
    with tempfile.TemporaryDirectory() as store:
        started_s = time.time()
        with subprocess.Popen(
            [*RUN, "--store", store, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as run:
            first_s = last_s = None
            size = 0
            while run.poll() is None:
                for history in Path(store).glob("2*/history.jsonl"):
                    lines = history.read_bytes().count(b"\n")
                    if lines > 1:  # the first one is the header
                        first_s = first_s or time.time()
                    if lines > size:
                        size, last_s = lines, time.time()
                time.sleep(POLL_S)
            ended_s = time.time()
            if run.returncode or first_s is None or last_s is None:
                sys.exit(f"the run left with {run.returncode}: {run.stderr.read() if run.stderr else ''}")
    return first_s - started_s, ended_s - last_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=3, help="how many runs; the median and the worst are told"
    )
    args, options = parser.parse_known_args()
    found = [measure(options) for _ in range(args.runs)]
    for what, times in zip(
        ("to the first operation", "from the last one to the end"), zip(*found, strict=True), strict=True
    ):
        print(
            f"{what}: median {statistics.median(times):.1f} s, at most {max(times):.1f} s of {args.runs} runs"
        )
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
