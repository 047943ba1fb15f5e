"""How small failing runs of about a hundred operations become.

    python benchmarks/sim_shrink.py [--budget-s 60] [--failures 1] [BUG ...]

A failing run is one of a seed from 0 on, with 20 operations a second for 5 s; where the default run does not meet a
bug, `NEEDS` says what it takes. For each seeded bug so many failures are shrunk that clients saw first, and so many
that only the invariants of the nodes show: those are two kinds of failure, and the shrinker keeps the kind. Prints one
line a failure, then the table for documents, and JSON last. All times are processor seconds of this process, so that
other work on the machine does not change the result much; `small_s` is when the plan first was as small as is asked
for.
"""

import argparse
import json
import time
import types

import msgspec

from harness import plan as plans
from harness.config import Config
from harness.shrink import edits, shrinker
from harness.shrink.attempt import attempt
from harness.systems import SYSTEMS

OPERATIONS_MAX, FAULTS_MAX = 12, 5
SEEDS_MAX = 600
LOOK_S = 30.0  # processor seconds of looking for failing runs
SEEDS_ENOUGH = 60  # of which some failed and none in the other way, which is then not looked for any further
DEFAULT = {"time_limit_s": 5.0, "rate_hz": 20.0}
#: What a bug needs to be met within some hundred short runs, or at all.
NEEDS = {
    "quorum-even-off-by-one": {"nodes": 4},
    "commit-prior-term": {"nodes": 3, "faults": ("partition", "kill")},
    "read-quorum-short": {"faults": ("partition", "latency")},
    "lease-too-long": {"faults": ("partition-leader", "pause-leader")},
    "config-not-rolled-back": {"faults": ("membership", "partition-in-joint", "partition-leader")},
    "joint-one-majority": {"workload": "membership", "faults": ("partition-in-joint",), "fault_intensity": 3.0},
    "lease-expired-locally": {"workload": "lease", "faults": ("partition-minority", "kill-leader")},
    "keep-alive-not-replicated": {"workload": "lease"},
    "session-expiry-not-replicated": {"session_ttl_ms": 500},
    "session-not-in-snapshot": {"nodes": 3, "faults": ("kill", "partition", "latency")},
    "watch-gap": {"workload": "watch"},
    "guards-unchecked": {"workload": "bank"},
    "txn-in-two-parts": {"workload": "append"},
}  # fmt: skip
COLUMNS = {
    "bug": "bug", "seen_by": "seen by", "seed": "seed", "operations": "operations", "faults": "faults",
    "became": "became operations", "became_faults": "faults", "nodes": "nodes", "small_s": "small after, s",
    "seconds": "all, s",
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget-s", type=float, default=60.0)
    parser.add_argument("--failures", type=int, default=1)
    parser.add_argument("bugs", nargs="*", metavar="BUG")
    args = parser.parse_args()
    shrinker.time = types.SimpleNamespace(monotonic=time.process_time)
    rows = []
    for bug in args.bugs or SYSTEMS["raft"].bugs:
        for failure in failing(bug, args.failures):
            rows.append(shrunk(bug, *failure, args.budget_s))
            print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    print()
    for cells in (
        COLUMNS.values(),
        ["---"] * len(COLUMNS),
        *([row[name] for name in COLUMNS] for row in rows),
    ):
        print("|", " | ".join(map(str, cells)), "|")
    small = sum(row["small_s"] is not None for row in rows)
    print(
        f"\n{small} of {len(rows)} became at most {OPERATIONS_MAX} operations and {FAULTS_MAX} faults within "
        f"{args.budget_s:g} s of one core"
    )
    print(json.dumps(rows))


def failing(bug, wanted):
    """The first failing runs of either kind: plan, run."""
    config = Config(**{**DEFAULT, "bug": bug, **NEEDS.get(bug, {})})
    found = {"clients": [], "invariants": []}
    started_s = time.process_time()
    seed = 0
    while seed < SEEDS_MAX and time.process_time() - started_s < LOOK_S:
        plan = plans.draw(config, seed=seed)
        run = attempt(plan)
        if run.violations:
            found[seen_by(run.violations)].append((plan, run))
        seed += 1
        enough = [len(runs) >= wanted for runs in found.values()]
        if all(enough) or (any(enough) and seed >= SEEDS_ENOUGH):
            break
    for who, runs in found.items():
        if not runs:
            print(f"{bug}: no run in which {who} saw it first among {seed} seeds", flush=True)
    return [run for runs in found.values() for run in runs[:wanted]]


def seen_by(violations):
    return "invariants" if violations[0].what.startswith("invariant") else "clients"


def shrunk(bug, plan, run, budget_s):
    def note(_pass, smaller, _attempts):
        # The end of this plan is still to be cut off, so its planned operations may be more than are performed.
        if small_at and small_at[0] is None and planned(smaller) <= OPERATIONS_MAX:
            small_at[0] = time.process_time() if len(smaller.faults) <= FAULTS_MAX else None

    started_s = time.process_time()
    small_at = [None]
    first = edits.cut_off_end(plan, run.ops, run.violations[0])
    wanted = run.violations[0].what
    result = shrinker.shrink(first, shrinker.Budget(seconds=budget_s), note, origin=plan, wanted=wanted)
    operations, faults = clients_operations(result.attempt.ops), len(result.plan.faults)
    if operations > OPERATIONS_MAX or faults > FAULTS_MAX:
        small_at[0] = None
    elif small_at[0] is None:
        small_at[0] = time.process_time()
    correct = msgspec.structs.replace(result.plan.config, bug=None)
    assert not attempt(msgspec.structs.replace(result.plan, config=correct)).violations, "not the bug's fault"
    assert wanted in [violation.what for violation in result.attempt.violations]
    return {
        "bug": bug, "seen_by": seen_by(run.violations), "seed": plan.seed,
        "operations": clients_operations(run.ops), "faults": len(plan.faults),
        "became": operations, "became_faults": faults, "nodes": len(result.plan.nodes),
        "small_s": None if small_at[0] is None else round(small_at[0] - started_s, 1),
        "attempts": result.attempts, "seconds": round(result.seconds, 1), "complete": result.complete,
        "what": wanted,
    }  # fmt: skip


def planned(plan):
    return len(plan.ops) + len(plan.final)


def clients_operations(ops):
    return sum(1 for op in ops if op.type == "invoke" and isinstance(op.process, int))


if __name__ == "__main__":
    main()
