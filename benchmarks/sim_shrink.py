"""How small failing runs of each seeded bug become: `python benchmarks/sim_shrink.py [BUDGET_S] [BUG ...]`.

Prints one line a failing run, and JSON last. The budget counts processor seconds of this process, so that other work
on the machine does not change the result much.
"""

import json
import sys
import time
import types

from harness import plan as plans
from harness.config import Config
from harness.shrink import edits, shrinker
from harness.shrink.attempt import attempt

BUGS = (
    "stale-read", "ack-before-majority", "truncate-without-conflict", "retry-not-deduped", "vote-not-persisted",
    "commit-prior-term",
)  # fmt: skip
RUNS_EACH = 3
SEEDS_MAX = 60


def main():
    budget_s = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    shrinker.time = types.SimpleNamespace(monotonic=time.process_time)
    rows = [row for bug in (sys.argv[2:] or BUGS) for row in of_bug(bug, budget_s)]
    print(json.dumps(rows))


def of_bug(bug, budget_s):
    found = 0
    for seed in range(1, SEEDS_MAX + 1):
        plan = plans.draw(Config(bug=bug), seed=seed)
        run = attempt(plan)
        if not run.violations:
            continue
        found += 1
        first = edits.cut_off_end(plan, run.ops, run.violations[0].index)
        shrunk = shrinker.shrink(first, shrinker.Budget(seconds=budget_s))
        operations = sum(
            1 for op in shrunk.attempt.ops if op.type == "invoke" and isinstance(op.process, int)
        )
        row = {
            "bug": bug, "seed": seed, "operations": operations, "faults": len(shrunk.plan.faults),
            "nodes": len(shrunk.plan.nodes), "time_limit_s": shrunk.plan.config.time_limit_s,
            "cpu_seconds": round(shrunk.seconds, 1), "attempts": shrunk.attempts, "complete": shrunk.complete,
        }  # fmt: skip
        print(*(f"{name} {value}" for name, value in row.items()), sep="  ", flush=True)
        yield row
        if found == RUNS_EACH:
            return


if __name__ == "__main__":
    main()
