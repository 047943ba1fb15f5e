"""Workloads of things that are put in and must be there: ``set``, ``set-full``, ``queue``, ``total-queue``.

Theory of operation
    Elements are unique in the whole run. Sets and queues are many, each used for `ops_per_key` operations: reads and
    checks stay short.

    set          adds only, and one read of each set at the very end: did acknowledged elements survive?
    set-full     adds and reads mixed: when did each element become visible, was it ever missed again?
    queue        enqueues and dequeues: first in, first out; nothing comes out twice
    total-queue  enqueues and dequeues, the queue drained at the end: what went in comes out once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from checkers.catalogue import CheckerCall
from harness.config import Config
from harness.generators import ask
from harness.seeds import Streams
from harness.workloads.base import Option, OpTuple, Settings
from harness.workloads.planning import Keys, finals, forever, planned


class _Collection:
    """Puts elements in with the operation `put`, and looks or takes with `take`, in the share `puts` of operations."""

    options: Mapping[str, Option] = {}
    model = ""
    faults: tuple[str, ...] = ()

    def __init__(self, name: str, summary: str, *, put: str, take: str, final: str, puts: float) -> None:
        self.name = name
        self.summary = summary
        self._put, self._take, self._final, self._puts = put, take, final, puts

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """The checker of the workload's name."""
        del settings
        return (CheckerCall(self.name, {"fifo": True} if self.name == "queue" else {}),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Puts and takes over the time limit, then one look at every key, or all that is left in it."""
        del settings
        keys = Keys(config.keys, config.ops_per_key, streams)
        rng = streams.stream("workload/kinds")
        elements = count(1)

        def operation() -> Any:
            if rng.random() < self._puts:
                return ask(self._put, keys.next(), next(elements))
            return ask(self._take, keys.next())

        ops = planned(forever(operation), config, streams)
        return ops, finals(keys.used, config, self._final) if self._final else []


SET = _Collection(
    "set",
    "adds to sets, read once at the end; finds acknowledged elements that are gone",
    put="add",
    take="read",
    final="read",
    puts=1.0,
)
SET_FULL = _Collection(
    "set-full",
    "adds to sets and reads them all the time; finds lost and stale elements, and how long they were stale",
    put="add",
    take="read",
    final="read",
    puts=0.5,
)
QUEUE = _Collection(
    "queue",
    "enqueues and dequeues; finds elements out of order, twice, or of nobody",
    put="enqueue",
    take="dequeue",
    final="",
    puts=0.55,
)
TOTAL_QUEUE = _Collection(
    "total-queue",
    "enqueues and dequeues, drained at the end; finds lost and repeated elements",
    put="enqueue",
    take="dequeue",
    final="drain",
    puts=0.55,
)
