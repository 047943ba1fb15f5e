"""Small plans around a moment of a failing run: a few of its faults, a few of its operations, and what they leave.

Theory of operation
    Cutting down a run of thousands of operations step by step takes an attempt of a second for each step, and the
    coincidence that mattered is lost at the first step that disturbs it. But most coincidences need little: some
    faults in the right order at about the right distances, some operations between them, and a read at the end. So
    this builds plans that are small from the start, of a handful of the run's own faults and operations, and an attempt
    takes some milliseconds: thousands of them can be made in the time of a few steps. Each rolls the dice anew,
    because times are moved a little.

    What went wrong was caused before it was seen, and mostly by the faults just before it. So the faults are taken
    from one stretch of the run that ends at one of the last faults before the violation, drawn so that nearer ones
    are more likely; gaps between them are kept or closed. Operations come from the same stretch, and from the keys
    that went wrong more often than from others.

    What fails in the end is polished by the passes of `shrinker`, like any other plan.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from harness.plan import Plan
from harness.planned import PlannedOp
from harness.seeds import below, between, pick
from harness.shrink import edits
from harness.shrink.attempt import Violation
from nemesis.schedule import FaultEvent

replace = msgspec.structs.replace

FAULTS_MAX = 5
OPS_MAX = 9
FINALS_MAX = 3
KEYS_MAX = 2
NODES_MIN = 3
REACH_BACK = 0.7  # how likely it is to look one fault further back
LEAD_MS = (0, 20, 60, 150, 300)
TAIL_MS = (0, 30, 100, 300, 800)
GAPS_MS = (1, 5, 20, 60, 150, 300)
NUDGES_MS = (0.0, 1.0, 4.0, 15.0, 60.0)
RECOVERIES_S = (0.0, 0.3, 0.6, 1.2)


def small_plan(plan: Plan, violations: Sequence[Violation], rng: random.Random) -> Plan:
    """A plan of at most so many operations and faults, drawn from around a moment of the plan's run."""
    violation = violations[min(below(rng, 3), below(rng, len(violations)))] if violations else None
    faults = _stretch(plan, violation, rng)
    start_ms = max(0, (faults[0].start_ms if faults else _end_ms(plan, violation)) - pick(rng, LEAD_MS))
    stop_ms = (max(event.stop_ms for event in faults) if faults else start_ms + 300) + pick(rng, TAIL_MS)
    ops = _operations(plan, violation, (start_ms, stop_ms), rng)
    part = replace(plan, ops=ops, faults=faults, final=finals(plan, ops, rng))
    config = replace(plan.config, recovery_s=pick(rng, RECOVERIES_S))
    part = edits.with_limit_ms(replace(part, config=config), stop_ms)
    part = _closer(edits.cut_off_start(part, start_ms), rng)
    part = _moved(part, pick(rng, NUDGES_MS), rng)
    if len(plan.nodes) > NODES_MIN and rng.random() < 0.5:
        part = edits.keep_nodes(part, some(plan.nodes, NODES_MIN, rng))
    return part


def _end_ms(plan: Plan, violation: Violation | None) -> int:
    limit_ms = round(plan.config.time_limit_s * 1000)
    return min(limit_ms, violation.time_ns // 1_000_000) if violation is not None else limit_ms


def _stretch(plan: Plan, violation: Violation | None, rng: random.Random) -> tuple[FaultEvent, ...]:
    """Some faults that follow each other, of those that struck before the violation."""
    end_ms = _end_ms(plan, violation)
    before = [event for event in plan.faults if event.start_ms <= end_ms]
    if not before:
        return ()
    last = len(before) - 1
    while last > 0 and rng.random() < REACH_BACK:
        last -= 1
    count = 1 + below(rng, FAULTS_MAX)
    chosen = [event for event in before[max(0, last - count + 1) : last + 1] if rng.random() < 0.85]
    return tuple(chosen or before[last : last + 1])


def _operations(
    plan: Plan, violation: Violation | None, span_ms: tuple[int, int], rng: random.Random
) -> tuple[PlannedOp, ...]:
    """Some operations of few keys from that stretch; where it has too few, later or earlier ones are moved into it."""
    start_us, stop_us = span_ms[0] * 1000, span_ms[1] * 1000
    inside = [op for op in plan.ops if start_us <= op.at_us <= stop_us]
    keys = list(dict.fromkeys(op.key for op in (inside or plan.ops)))
    wanted = some(keys, min(len(keys), 1 + below(rng, KEYS_MAX)), rng)
    if violation is not None and rng.random() < 0.6:
        wanted = (violation.key, *wanted[1:])
    mine = [op for op in inside if op.key in wanted]
    if len(mine) < 3 or rng.random() < 0.3:
        near = sorted(
            (op for op in plan.ops if op.key in wanted), key=lambda op: abs(2 * op.at_us - start_us - stop_us)
        )[: 2 * OPS_MAX]
        times = sorted(int(between(rng, start_us, stop_us)) for _ in near)
        near.sort(key=lambda op: op.at_us)
        mine = [replace(op, at_us=at_us) for op, at_us in zip(near, times, strict=True)]
    count = min(len(mine), 1 + below(rng, OPS_MAX))
    return tuple(sorted(some(mine, count, rng), key=lambda op: op.at_us))


def finals(plan: Plan, ops: Sequence[PlannedOp], rng: random.Random) -> tuple[PlannedOp, ...]:
    """The final operations of the same keys."""
    keys = [op.key for op in ops]
    mine = [op for op in plan.final if op.key is None or op.key in keys]
    return tuple(some(mine, min(len(mine), FINALS_MAX), rng)) if rng.random() < 0.85 else ()


def some(items: Sequence[Any], count: int, rng: random.Random) -> tuple[Any, ...]:
    """So many of them, in their order."""
    left = list(range(len(items)))
    while len(left) > count:
        del left[below(rng, len(left))]
    return tuple(items[index] for index in left)


def _closer(plan: Plan, rng: random.Random) -> Plan:
    """Close the long gaps between faults, with what lies in them, or some of them."""
    for _ in range(FAULTS_MAX):
        times = edits.instants_ms(plan)
        gaps = [(later - at, at) for at, later in itertools.pairwise(times) if later - at > 300]
        if not gaps or rng.random() < 0.3:
            break
        length_ms, at_ms = gaps[below(rng, len(gaps))]
        plan = edits.shorten_gap(plan, at_ms, length_ms - pick(rng, GAPS_MS))
    return plan


def _moved(plan: Plan, reach_ms: float, rng: random.Random) -> Plan:
    """Every time moved by up to `reach_ms`, either way."""
    reach_us = reach_ms * 1000
    ops = tuple(
        sorted(
            (replace(op, at_us=max(0, op.at_us + int(between(rng, -reach_us, reach_us)))) for op in plan.ops),
            key=lambda op: op.at_us,
        )
    )
    faults = []
    for event in plan.faults:
        start_ms = max(0, event.start_ms + round(between(rng, -reach_ms, reach_ms)))
        length_ms = event.stop_ms - event.start_ms + round(between(rng, -reach_ms, reach_ms))
        faults.append(replace(event, start_ms=start_ms, stop_ms=start_ms + max(1, length_ms)))
    limit_ms = round(plan.config.time_limit_s * 1000) + int(reach_ms)
    return edits.with_limit_ms(replace(plan, ops=ops, faults=tuple(faults)), limit_ms)
