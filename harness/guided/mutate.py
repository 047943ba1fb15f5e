"""Plans changed a little: when faults strike, which ones, which dice; or two plans joined.

Rules of this module
    1. The load stays as it was drawn: what is searched is what goes wrong, and when.
    2. A changed plan has at most `FAULTS_MORE` faults more than the one that was drawn, and ends when that one ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import msgspec

from harness.plan import Plan
from harness.seeds import MAX_SEED, below, between, pick
from harness.shrink import edits
from nemesis.schedule import FaultEvent

FAULTS_MORE = 4
CHANGES_MAX = 4
REACH_MS = (2.0, 10.0, 50.0, 250.0, 1000.0)
AFTER_MS = (1, 20, 80, 200, 500)
replace = msgspec.structs.replace

Change = Callable[[Plan, Plan, random.Random], Plan]


def mutated(plan: Plan, other: Plan, faults_max: int, rng: random.Random) -> Plan:
    """The plan with one to some changes; `other` lends faults."""
    for _ in range(1 + below(rng, CHANGES_MAX)):
        plan = pick(rng, CHANGES)(plan, other, rng)
    while len(plan.faults) > faults_max:
        plan = _less(plan, other, rng)
    return plan


def _moved(plan: Plan, _other: Plan, rng: random.Random) -> Plan:
    """All faults a little earlier or later, or one of them."""
    reach_ms = pick(rng, REACH_MS)
    only = below(rng, len(plan.faults)) if plan.faults and rng.random() < 0.5 else None
    return _with_faults(
        plan,
        (
            event if only is not None and at != only else _shifted(event, between(rng, -reach_ms, reach_ms))
            for at, event in enumerate(plan.faults)
        ),
    )


def _longer_or_shorter(plan: Plan, _other: Plan, rng: random.Random) -> Plan:
    factor = pick(rng, (0.1, 0.5, 0.8, 1.25, 2.0))
    if not plan.faults:
        return plan
    at = below(rng, len(plan.faults))
    event = plan.faults[at]
    length_ms = max(1, round((event.stop_ms - event.start_ms) * factor))
    changed = replace(event, stop_ms=event.start_ms + length_ms)
    return _with_faults(plan, (changed if i == at else one for i, one in enumerate(plan.faults)))


def _again(plan: Plan, _other: Plan, rng: random.Random) -> Plan:
    """A fault once more, shortly after it has healed."""
    if not plan.faults:
        return plan
    event = pick(rng, plan.faults)
    later = _shifted(event, event.stop_ms - event.start_ms + pick(rng, AFTER_MS))
    return _with_faults(plan, (*plan.faults, later))


def _less(plan: Plan, _other: Plan, rng: random.Random) -> Plan:
    if not plan.faults:
        return plan
    gone = below(rng, len(plan.faults))
    return _with_faults(plan, (event for at, event in enumerate(plan.faults) if at != gone))


def _lent(plan: Plan, other: Plan, rng: random.Random) -> Plan:
    """One fault of the other plan, or another one in the place of one."""
    if not other.faults:
        return plan
    lent = pick(rng, other.faults)
    if plan.faults and rng.random() < 0.5:
        at = below(rng, len(plan.faults))
        place = plan.faults[at]
        lent = _shifted(lent, place.start_ms - lent.start_ms)
        return _with_faults(plan, (lent if i == at else one for i, one in enumerate(plan.faults)))
    return _with_faults(plan, (*plan.faults, lent))


def _joined(plan: Plan, other: Plan, rng: random.Random) -> Plan:
    """The faults of the one up to a moment, those of the other from there on."""
    at_ms = between(rng, 0, plan.config.time_limit_s * 1000)
    first = [event for event in plan.faults if event.start_ms < at_ms]
    return _with_faults(plan, (*first, *(event for event in other.faults if event.start_ms >= at_ms)))


def _other_dice(plan: Plan, _other: Plan, rng: random.Random) -> Plan:
    """The same plan on another network."""
    return replace(plan, seed=int(rng.random() * MAX_SEED))


CHANGES: Sequence[Change] = (
    _moved, _moved, _longer_or_shorter, _again, _less, _lent, _lent, _joined, _other_dice, _other_dice,
)  # fmt: skip


def _shifted(event: FaultEvent, by_ms: float) -> FaultEvent:
    start_ms = max(0, event.start_ms + round(by_ms))
    return replace(event, start_ms=start_ms, stop_ms=start_ms + event.stop_ms - event.start_ms)


def _with_faults(plan: Plan, faults: Iterable[FaultEvent]) -> Plan:
    """These faults in order of time, each with an id of its own, none beyond the end of the load."""
    limit_ms = edits.end_us(plan) // 1000
    inside = sorted(
        (event for event in faults if event.start_ms < limit_ms), key=lambda event: event.start_ms
    )
    named = (
        replace(
            event,
            id=f"{event.id.split('~')[0]}~{at}",
            stop_ms=max(event.start_ms + 1, min(event.stop_ms, limit_ms)),
        )
        for at, event in enumerate(inside)
    )
    return replace(plan, faults=tuple(named))
