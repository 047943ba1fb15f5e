"""How small failing runs of about a hundred operations become: `python benchmarks/sim_shrink.py [BUDGET_S] [BUG ...]`.

For each seeded bug the first failing run among `SEEDS_MAX` seeds is shrunk: default faults, 20 operations a second for
5 s. Prints one line a bug, then the table for documents, and JSON last. The budget counts processor seconds of this
process, so that other work on the machine does not change the result much.
"""

import json
import sys
import time
import types

from harness import plan as plans
from harness.config import Config
from harness.shrink import edits, shrinker
from harness.shrink.attempt import attempt
from harness.systems import SYSTEMS

SEEDS_MAX = 150
LOOK_S = 25.0  # processor seconds of looking for a failing run
CONFIG = Config(time_limit_s=5.0, rate_hz=20.0)
HEAD = ("bug", "seed", "operations", "faults", "became operations", "faults ", "nodes", "attempts", "s")


def main():
    budget_s = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    shrinker.time = types.SimpleNamespace(monotonic=time.process_time)
    rows = [row for bug in (sys.argv[2:] or SYSTEMS["raft"].bugs) if (row := of_bug(bug, budget_s))]
    print()
    for cells in (HEAD, ["---"] * len(HEAD), *(list(row.values())[: len(HEAD)] for row in rows)):
        print("|", " | ".join(map(str, cells)), "|")
    small = sum(row["became"] <= 12 and row["became_faults"] <= 5 for row in rows)
    print(
        f"\n{small} of {len(rows)} became at most 12 operations and 5 faults within {budget_s:g} s of one core"
    )
    print(json.dumps(rows))


def first_failing(bug):
    started_s = time.process_time()
    for seed in range(SEEDS_MAX):
        plan = plans.draw(Config(**{**fields(CONFIG), "bug": bug}), seed=seed)
        run = attempt(plan)
        if run.violations:
            return plan, run, seed
        if time.process_time() - started_s > LOOK_S:
            break
    print(f"{bug}: no failing run among the first {seed + 1} seeds", flush=True)
    return None


def fields(config):
    return {name: getattr(config, name) for name in config.__struct_fields__}


def of_bug(bug, budget_s):
    found = first_failing(bug)
    if found is None:
        return None
    plan, run, seed = found
    first = edits.cut_off_end(plan, run.ops, run.violations[0].index)
    shrunk = shrinker.shrink(first, shrinker.Budget(seconds=budget_s), origin=plan)
    row = {
        "bug": bug, "seed": seed, "operations": clients_operations(run.ops), "faults": len(plan.faults),
        "became": clients_operations(shrunk.attempt.ops), "became_faults": len(shrunk.plan.faults),
        "nodes": len(shrunk.plan.nodes), "attempts": shrunk.attempts, "seconds": round(shrunk.seconds, 1),
        "complete": shrunk.complete,
    }  # fmt: skip
    print(*(f"{name} {value}" for name, value in row.items()), sep="  ", flush=True)
    return row


def clients_operations(ops):
    return sum(1 for op in ops if op.type == "invoke" and isinstance(op.process, int))


if __name__ == "__main__":
    main()
