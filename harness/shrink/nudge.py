"""Bold guesses: a plan with much left out and all times moved a little.

Theory of operation
    Some bugs need a coincidence of messages. Leave anything out, and the coincidence is gone: delta debugging comes
    to rest at hundreds of operations of which few matter. But the same faults and operations, each some
    milliseconds earlier or later, roll the dice anew without touching the seed. A guess leaves out a part at random
    and moves the rest; most guesses fail, and one that does not is a smaller plan.

    What was lost shows only when somebody reads it, so a guess may ask for final reads of the keys that are left.
    If they turn out to be unnecessary they are cut off again with the end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from harness.plan import Plan
from harness.planned import PlannedOp
from harness.seeds import below, between
from harness.shrink import edits

replace = msgspec.structs.replace

NUDGES_MS = (0.5, 2.0, 10.0, 40.0, 150.0)
ONE_MOMENT, ONE_MOMENT_LARGE = 0.5, 0.9  # of a large plan, a moment is the only part that is cheap to try
LARGE_OPS = 300
BEFORE_MS = (20, 50, 100, 200, 500, 1_000, 3_000, 8_000)
AFTER_MS = (0, 20, 100, 500, 1_500)
SLACK_MS = 300  # operations that were moved need time to be started in
FINAL_KEYS_MAX = 6
RECOVERY_S_MAX = 0.5


def guess(plan: Plan, rng: random.Random, keep: float) -> Plan | None:
    """A smaller plan, at times a little different; None where the guess left nothing out."""
    if plan.faults and rng.random() < (ONE_MOMENT_LARGE if len(plan.ops) > LARGE_OPS else ONE_MOMENT):
        smaller = _one_moment(plan, rng)
    else:
        ways = (
            _thin_out, _one_stretch, _fewer_faults, _fewer_keys, _fewer_workers, _closer_together, _joined_faults,
            _fewer_nodes,
        )  # fmt: skip
        smaller = ways[below(rng, len(ways))](plan, rng, keep)
    if _size(smaller) >= _size(plan) and edits.end_us(smaller) >= edits.end_us(plan):
        return None
    if rng.random() < 0.8:
        smaller = _moved(smaller, rng)
    if rng.random() < 0.7:
        with_reads = _with_final_reads(smaller)
        if _size(with_reads) < _size(plan):
            return with_reads
    return smaller


def _size(plan: Plan) -> int:
    return len(plan.ops) + len(plan.final) + len(plan.faults) + len(plan.nodes)


def _one_moment(plan: Plan, rng: random.Random) -> Plan:
    """What was planned around the moment at which one fault strikes or heals: most of what goes wrong does then."""
    event = plan.faults[below(rng, len(plan.faults))]
    moment_ms = event.start_ms if rng.random() < 0.7 else event.stop_ms
    start_ms = max(0, moment_ms - BEFORE_MS[below(rng, len(BEFORE_MS))])
    stop_ms = moment_ms + AFTER_MS[below(rng, len(AFTER_MS))]
    ops = tuple(op for op in plan.ops if start_ms * 1000 <= op.at_us <= stop_ms * 1000)
    faults = tuple(one for one in plan.faults if one.start_ms <= stop_ms and one.stop_ms >= start_ms)
    part = replace(plan, ops=ops, faults=faults)
    last_ms = max(one.stop_ms for one in faults)
    part = edits.with_limit_ms(part, min(round(plan.config.time_limit_s * 1000), max(stop_ms, last_ms)))
    return edits.cut_off_start(part, start_ms)


def _thin_out(plan: Plan, rng: random.Random, keep: float) -> Plan:
    return replace(plan, ops=tuple(op for op in plan.ops if rng.random() < keep))


def _one_stretch(plan: Plan, rng: random.Random, keep: float) -> Plan:
    """Leave out one stretch of the operations, wherever."""
    count = len(plan.ops)
    gone = max(1, int(count * (1 - keep)))
    start = below(rng, max(1, count - gone + 1))
    return replace(plan, ops=plan.ops[:start] + plan.ops[start + gone :])


def _fewer_faults(plan: Plan, rng: random.Random, keep: float) -> Plan:
    kept = [event.id for event in plan.faults if rng.random() < keep]
    return edits.keep_faults(plan, kept)


def _fewer_keys(plan: Plan, rng: random.Random, keep: float) -> Plan:
    keys = dict.fromkeys(op.key for op in (*plan.ops, *plan.final))
    return edits.keep_keys(plan, [key for key in keys if rng.random() < keep])


def _fewer_workers(plan: Plan, rng: random.Random, keep: float) -> Plan:
    workers = [worker for worker in range(plan.config.concurrency) if rng.random() < keep]
    return edits.keep_ops(plan, lambda op: op.worker in workers)


def _fewer_nodes(plan: Plan, rng: random.Random, _keep: float) -> Plan:
    gone = below(rng, len(plan.nodes))
    return edits.keep_nodes(
        plan, [node for at, node in enumerate(plan.nodes) if at != gone or len(plan.nodes) == 1]
    )


def _joined_faults(plan: Plan, rng: random.Random, _keep: float) -> Plan:
    """Two faults of a kind become one that is in force from the start of the first to the end of the second."""
    pairs = [
        (one, other)
        for at, one in enumerate(plan.faults)
        for other in plan.faults[at + 1 :]
        if type(one.fault) is type(other.fault)
    ]
    if not pairs:
        return plan
    one, other = pairs[below(rng, len(pairs))]
    fault = one.fault if rng.random() < 0.5 else other.fault
    joined = replace(one, fault=fault, stop_ms=max(one.stop_ms, other.stop_ms))
    faults = tuple(joined if event is one else event for event in plan.faults if event is not other)
    return replace(plan, faults=faults)


def _closer_together(plan: Plan, rng: random.Random, keep: float) -> Plan:
    """Cut off the start, or close a gap."""
    times = edits.instants_ms(plan)
    at_ms = times[below(rng, len(times) - 1)]
    if rng.random() < 0.5:
        return edits.cut_off_start(plan, at_ms)
    later = [time for time in times if time > at_ms]
    return edits.shorten_gap(plan, at_ms, max(1, int((later[0] - at_ms) * (1 - keep))))


def _moved(plan: Plan, rng: random.Random) -> Plan:
    reach_ms = NUDGES_MS[below(rng, len(NUDGES_MS))]
    ops = _moved_ops(plan.ops, rng, reach_ms)
    faults = []
    for event in plan.faults:
        start_ms = max(0, event.start_ms + round(between(rng, -reach_ms, reach_ms)))
        stop_ms = max(start_ms + 1, event.stop_ms + round(between(rng, -reach_ms, reach_ms)))
        faults.append(replace(event, start_ms=start_ms, stop_ms=stop_ms))
    limit_ms = round(plan.config.time_limit_s * 1000) + SLACK_MS
    return edits.with_limit_ms(replace(plan, ops=ops, faults=tuple(faults)), limit_ms)


def _moved_ops(ops: Sequence[PlannedOp], rng: random.Random, reach_ms: float) -> tuple[PlannedOp, ...]:
    reach_us = reach_ms * 1000
    moved = [replace(op, at_us=max(0, op.at_us + int(between(rng, -reach_us, reach_us)))) for op in ops]
    return tuple(sorted(moved, key=lambda op: op.at_us))


def _with_final_reads(plan: Plan) -> Plan:
    """A final read of every key that is left, if they are few."""
    keys = list(dict.fromkeys(op.key for op in plan.ops))
    if len(keys) > FINAL_KEYS_MAX or not all(op.f in ("read", "write", "cas") for op in plan.ops):
        return plan
    final = tuple(PlannedOp(0, i % plan.config.concurrency, "read", key) for i, key in enumerate(keys))
    config = replace(plan.config, recovery_s=min(plan.config.recovery_s, RECOVERY_S_MAX))
    return replace(plan, final=final, config=config)
