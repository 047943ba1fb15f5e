"""What else of a node is desired state, besides its process: disk, clocks, pace and crash point.

Rules of this module
    1. An aspect says what is wanted of a node while some effects are in force, what is healthy, and how to ask a
       target for it. A target that cannot do it is only told of it when something else than healthy is wanted.
    2. What several faults want of one node adds up; of crash points the oldest fault's is taken.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nemesis.effects import Effect
from nemesis.fault_base import FaultError
from nemesis.rules import combine_clocks, combine_disks
from nemesis.target import (
    HEALTHY_DISK,
    RIGHT_CLOCK,
    ClockRule,
    ClockTarget,
    CrashPoint,
    CrashTarget,
    DiskRule,
    DiskTarget,
    SlowTarget,
    Target,
)


@dataclass(frozen=True, slots=True)
class Aspect:
    """One such thing.

    Attributes:
        verb: of the target.
        healthy: what it is when nothing is wrong.
        wanted: of a node, under effects.
        protocol: what a target that can do it satisfies.
        ask: asks such a target.
        refusal: what to say of one that does not.
    """

    verb: str
    healthy: Any
    wanted: Callable[[str, Sequence[Effect]], Any]
    protocol: type
    ask: Callable[[Any, str, Any], Awaitable[None]]
    refusal: str

    async def make(self, target: Target, node: str, value: Any) -> None:
        """Ask the target to make it so."""
        if isinstance(target, self.protocol):
            await self.ask(target, node, value)
        elif value != self.healthy:
            raise FaultError(self.refusal)


def disk(node: str, effects: Sequence[Effect]) -> DiskRule:
    """What the disk of a node should be like."""
    rules = [effect.disks[node] for effect in effects if node in effect.disks]
    return functools.reduce(combine_disks, rules, HEALTHY_DISK)


def clock(node: str, effects: Sequence[Effect]) -> ClockRule:
    """What the clocks of a node should be like."""
    rules = [effect.clocks[node] for effect in effects if node in effect.clocks]
    return functools.reduce(combine_clocks, rules, RIGHT_CLOCK)


def slowness(node: str, effects: Sequence[Effect]) -> float:
    """How many times as long the process of a node should take."""
    return math.prod(effect.slowed.get(node, 1.0) for effect in effects)


def crash_point(node: str, effects: Sequence[Effect]) -> CrashPoint | None:
    """Where the process of a node should die."""
    return next((effect.crash_points[node] for effect in effects if node in effect.crash_points), None)


DISK = Aspect(
    "set_disk", HEALTHY_DISK, disk, DiskTarget, lambda target, *what: target.set_disk(*what),
    "this cluster cannot break disks; leave the fault out",
)  # fmt: skip
CRASH = Aspect(
    "set_crash_point", None, crash_point, CrashTarget, lambda target, *what: target.set_crash_point(*what),
    "this cluster cannot let processes die at a chosen point; leave the fault 'crash' out",
)  # fmt: skip
CLOCK = Aspect(
    "set_clock", RIGHT_CLOCK, clock, ClockTarget, lambda target, *what: target.set_clock(*what),
    "this cluster cannot shift clocks; leave the fault out",
)  # fmt: skip
PACE = Aspect(
    "set_slowness", 1.0, slowness, SlowTarget, lambda target, *what: target.set_slowness(*what),
    "this cluster cannot slow processes down; leave the fault 'slow' out",
)  # fmt: skip

# A node that is started must not find the disk it died of, nor the point at which it did.
BEFORE_PROCESSES = (DISK, CRASH)
WITH_PROCESSES = (CLOCK, PACE)
ALL = (*BEFORE_PROCESSES, *WITH_PROCESSES)
