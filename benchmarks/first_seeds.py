"""The first seed that finds each seeded bug by a default run: what `tests/e2e/test_seeded_bugs.py` pins.

    python benchmarks/first_seeds.py [--bugs stale-read,vote-not-persisted] [--seeds 50] [--jobs 2]

A change of schedules, of the simulator's draws or of Raft's timing moves them; this finds the new ones. A run counts
whose history is wrong; that an invariant of the protocol was broken is seen much earlier.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor

from harness.config import Config
from harness.sweep.one import Task, run_one
from harness.systems import by_name


def first_seed(bug: str, seeds: int) -> tuple[str, int | None, float]:
    """The bug, the first seed below `seeds` whose history is wrong, and the seconds that it took to find."""
    spent_s = 0.0
    for seed in range(seeds):
        result = run_one(Task(Config(bug=bug), seed, keep=False))
        spent_s += result.wall_seconds
        if result.valid == "invalid" and result.signature.startswith("linearizable"):
            return bug, seed, spent_s
    return bug, None, spent_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--bugs", default="", help="comma-separated; all bugs of the reference system if not given"
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=None)
    args = parser.parse_args()
    bugs = args.bugs.split(",") if args.bugs else list(by_name("raft").bugs)
    with ProcessPoolExecutor(args.jobs) as pool:
        for bug, seed, spent_s in pool.map(first_seed, bugs, [args.seeds] * len(bugs)):
            found = f"seed {seed}" if seed is not None else f"not below {args.seeds}"
            print(f"{bug:36} {found:14} {spent_s:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
