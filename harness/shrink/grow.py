"""Plans grown from one whose run broke an invariant: the same up to that moment, and then other faults and operations.

Theory of operation
    What clients see in the end takes two coincidences: nodes must come to disagree, and then the one that has it wrong
    must come to matter, which mostly takes a change of leader and somebody who reads. Small plans meet both together
    very seldom, and the first alone quite often, which an invariant shows. What is added to a plan after a moment
    cannot undo what happened before it, since a simulated run repeats itself up to there. So the first coincidence is
    kept, and the second is looked for alone: two small numbers instead of their product (splitting, as in the
    simulation of rare events).

Rules of this module
    1. A broken invariant is a stepping stone and nothing else: what is looked for stays what was looked for.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import msgspec

from harness.plan import Plan
from harness.planned import PlannedOp
from harness.seeds import below, between, pick
from harness.shrink import edits
from harness.shrink.attempt import Attempt
from harness.shrink.moment import FAULTS_MAX, RECOVERIES_S, finals, some
from nemesis.faults import name_of
from nemesis.schedule import FaultEvent

replace = msgspec.structs.replace

CORES_MAX = 40
FAULTS_MORE = 3
OPS_MORE = 4
GAPS_MS = (0, 1, 3, 10, 30, 100, 250)
LENGTHS_MS = (50, 150, 300, 600, 1_200)
TAIL_MS = (0, 30, 100, 300)


@dataclass(slots=True)
class Core:
    """A plan, when its run broke which invariant, and how many plans were grown from it."""

    plan: Plan
    broken_ms: int
    what: str
    grown: int = 0


class Cores:
    """What plans are grown from: of each broken invariant the last ones, the least tried first.

    Some invariants break in every other small plan and say little, so each has the same share of the attempts.
    """

    def __init__(self) -> None:
        self._cores: dict[str, list[Core]] = {}
        self._grown: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._cores)

    def keep(self, core: Core) -> None:
        """One more."""
        mine = self._cores.setdefault(core.what, [])
        mine.append(core)
        del mine[:-CORES_MAX]

    def next(self) -> Core:
        """Of the invariant from which the fewest were grown, the core from which the fewest were."""
        what = min(self._cores, key=lambda one: self._grown[one])
        core = min(self._cores[what], key=lambda one: one.grown)
        self._grown[what] += 1
        core.grown += 1
        return core


def core_of(plan: Plan, run: Attempt) -> Core | None:
    """The plan, if its run broke an invariant and there is room for faults after that."""
    broken = next((violation for violation in run.violations if violation.inside), None)
    if broken is None or broken.time_ns < 0:
        return None
    broken_ms = broken.time_ns // 1_000_000 + 1
    before = tuple(event for event in plan.faults if event.start_ms <= broken_ms)
    if len(before) >= FAULTS_MAX:
        return None
    ops = tuple(op for op in plan.ops if op.at_us <= broken_ms * 1000)
    return Core(replace(plan, faults=before, ops=ops, final=()), broken_ms, broken.what)


def grown(core: Core, origin: Plan, rng: random.Random) -> Plan:
    """The core's plan with some of the origin's faults and operations after its invariant was broken."""
    plan = core.plan
    faults = _until(core, rng) if rng.random() < 0.5 else plan.faults
    more = _faults(core, origin, rng)
    end_ms = max([core.broken_ms, *(event.stop_ms for event in (*faults, *more))]) + pick(rng, TAIL_MS)
    ops = (*plan.ops, *_operations(core, origin, end_ms, rng))
    config = replace(plan.config, recovery_s=pick(rng, RECOVERIES_S))
    plan = replace(plan, faults=(*faults, *more), ops=ops, final=finals(origin, ops, rng), config=config)
    return edits.with_limit_ms(edits.keep_nodes(plan, plan.nodes), end_ms)


def _until(core: Core, rng: random.Random) -> tuple[FaultEvent, ...]:
    """Its own faults, healed soon after that moment."""
    stop_ms = core.broken_ms + pick(rng, GAPS_MS)
    return tuple(
        replace(event, stop_ms=max(event.start_ms + 1, min(event.stop_ms, stop_ms)))
        for event in core.plan.faults
    )


def _faults(core: Core, origin: Plan, rng: random.Random) -> list[FaultEvent]:
    """Some faults in quick succession."""
    count = 1 + below(rng, min(FAULTS_MORE, FAULTS_MAX - len(core.plan.faults)))
    names = [event.id for event in core.plan.faults]
    more: list[FaultEvent] = []
    at_ms = core.broken_ms
    for _ in range(count if origin.faults else 0):
        fault = pick(rng, origin.faults)
        at_ms += pick(rng, GAPS_MS)
        length_ms = pick(rng, LENGTHS_MS)
        number = 1
        while (name := f"{name_of(fault.fault)}-{number}") in names:
            number += 1
        names.append(name)
        more.append(replace(fault, id=name, start_ms=at_ms, stop_ms=at_ms + length_ms))
        if rng.random() < 0.5:
            at_ms += length_ms
    return more


def _operations(core: Core, origin: Plan, end_ms: int, rng: random.Random) -> list[PlannedOp]:
    """Some operations of the core's keys, or of any where it has none, until the end."""
    keys = {op.key for op in core.plan.ops}
    mine = [op for op in origin.ops if op.key in keys or not keys]
    chosen = some(mine, min(len(mine), below(rng, OPS_MORE + 1)), rng)
    times = sorted(int(between(rng, core.broken_ms * 1000, end_ms * 1000)) for _ in chosen)
    return [replace(op, at_us=at_us) for op, at_us in zip(chosen, times, strict=True)]
