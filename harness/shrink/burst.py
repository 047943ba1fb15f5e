"""Small plans of operations that come all at once: some faults are in force then, some strike right after.

Theory of operation
    In a large run clients wait for a leader, and when there is one their operations come all at once. Then messages
    overtake each other, acknowledgements are on their way, and logs differ by some entries: the worst moment for the
    next fault. A plan with the times of the large run has it only while the clients are many. So this puts some
    operations of the run at one moment, and some of its faults around that moment, each of a length of its own: they
    begin before and heal soon after, or they strike soon after. What delays messages delays each by another time, at
    times more than in the run, so that more of them overtake others.
"""

from __future__ import annotations

import random

import msgspec

from harness.plan import Plan
from harness.planned import PlannedOp
from harness.seeds import below, pick
from harness.shrink import edits
from harness.shrink.moment import FAULTS_MAX, NODES_MIN, OPS_MAX, RECOVERIES_S, finals, some
from nemesis.faults import Fault, Latency, wants_leader
from nemesis.schedule import FaultEvent

replace = msgspec.structs.replace

BEFORE_MS = (20, 60, 150, 400)
SOON_MS = (0, 1, 2, 5, 10, 20, 50, 150)
LENGTHS_MS = (20, 100, 300, 600, 1_200)
JITTERS_MS = (2.0, 10.0, 50.0)
BURST_US = 2_000
OPS_MIN = 3
LEADER = 0.6  # how often what strikes soon strikes the leader of the moment
MOMENT_MS = 450
TAIL_MS = (0, 30, 100, 300)


def burst(origin: Plan, rng: random.Random) -> Plan:
    """A small plan of operations and faults of the origin around one moment."""
    ops = _operations(origin, rng)
    faults = tuple(_fault(origin, number, rng) for number in range(1 + below(rng, FAULTS_MAX)))
    faults = tuple(sorted(faults, key=lambda event: event.start_ms)) if origin.faults else ()
    first_ms = min([MOMENT_MS, *(event.start_ms for event in faults)])
    end_ms = max([MOMENT_MS, *(event.stop_ms for event in faults)]) + pick(rng, TAIL_MS)
    config = replace(origin.config, recovery_s=pick(rng, RECOVERIES_S))
    plan = replace(origin, ops=ops, faults=faults, final=finals(origin, ops, rng), config=config)
    plan = edits.cut_off_start(edits.with_limit_ms(plan, end_ms), first_ms)
    if len(plan.nodes) > NODES_MIN and rng.random() < 0.6:
        plan = edits.keep_nodes(plan, some(plan.nodes, NODES_MIN, rng))
    return plan


def _operations(origin: Plan, rng: random.Random) -> tuple[PlannedOp, ...]:
    """Some operations that follow each other in the run, of one key or of any, at that moment."""
    key = pick(rng, origin.ops).key if origin.ops else None
    mine = [op for op in origin.ops if op.key == key] if rng.random() < 0.6 else list(origin.ops)
    count = min(len(mine), OPS_MIN + below(rng, OPS_MAX - OPS_MIN + 1))
    start = below(rng, len(mine) - count + 1)
    at_us = sorted(MOMENT_MS * 1000 + below(rng, BURST_US) for _ in range(count))
    return tuple(replace(op, at_us=at) for op, at in zip(mine[start : start + count], at_us, strict=True))


def _fault(origin: Plan, number: int, rng: random.Random) -> FaultEvent:
    event = pick(rng, origin.faults)
    if rng.random() < 0.5:
        start_ms, stop_ms = MOMENT_MS - pick(rng, BEFORE_MS), MOMENT_MS + pick(rng, SOON_MS) + 1
    else:
        start_ms = MOMENT_MS + pick(rng, SOON_MS)
        stop_ms = start_ms + pick(rng, LENGTHS_MS)
        leaders = [one for one in origin.faults if wants_leader(one.fault)]
        if leaders and rng.random() < LEADER:
            event = pick(rng, leaders)
    fault = _uneven(event.fault, rng) if rng.random() < 0.5 else event.fault
    return replace(event, id=f"{event.id}-{number}", start_ms=start_ms, stop_ms=stop_ms, fault=fault)


def _uneven(fault: Fault, rng: random.Random) -> Fault:
    if not isinstance(fault, Latency):
        return fault
    jitter_ms = pick(rng, JITTERS_MS)
    return replace(fault, delay_ms=min(fault.delay_ms, jitter_ms), jitter_ms=jitter_ms)
