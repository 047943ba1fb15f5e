"""Workloads of transactions: ``append`` and ``wr``, checked by dependency graphs (as Elle does).

Theory of operation
    Each operation is a transaction of one to `txn_length` micro-operations on keys drawn from those in use, half of
    them reads. Every written or appended value is the next number of its key, so that each is unique, and tells the
    order in which it was planned. A key takes `ops_per_key` operations, then a fresh one takes its place: lists stay
    short. Small keys, many at a time: it takes two keys to see a cycle.

    At the end every key is read once, after everything was healed, so that acknowledged writes that are gone show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from checkers.catalogue import CheckerCall
from harness.config import Config
from harness.generators import ask
from harness.seeds import Streams, below
from harness.workloads.base import Option, OpTuple, Settings
from harness.workloads.planning import Keys, finals, forever, planned

_OPTIONS: Mapping[str, Option] = {
    "txn_length": Option(4, "the most operations of a transaction", 1, 100),
    "model": Option("strict-serializable", "the consistency model to check, or several joined by +"),
}


class _Transactions:
    options = _OPTIONS
    model = ""
    faults: tuple[str, ...] = ()

    def __init__(self, name: str, write: str, checker: str, summary: str) -> None:
        self.name = name
        self.summary = summary
        self._write = write
        self._checker = checker

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Dependency graphs."""
        return (CheckerCall(self._checker, {"model": settings["model"]}),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Transactions over the time limit, then a read of every key."""
        keys = Keys(config.keys, config.ops_per_key, streams)
        rng = streams.stream("workload/kinds")
        counts: Counter[str] = Counter()

        def transaction() -> Any:
            ops: list[list[Any]] = []
            for _ in range(1 + below(rng, settings["txn_length"])):
                key = keys.next()
                if rng.random() < 0.5:
                    ops.append(["r", key, None])
                else:
                    counts[key] += 1
                    ops.append([self._write, key, counts[key]])
            return ask("txn", None, ops)

        ops = planned(forever(transaction), config, streams)
        reads = [
            (at_us, worker, "txn", None, [["r", key, None]])
            for at_us, worker, _, key, _ in finals(keys.used, config)
        ]
        return ops, reads


APPEND = _Transactions(
    "append",
    "append",
    "list-append",
    "transactions that append to lists and read them; finds every anomaly that Adya names, with the cycle",
)
WR = _Transactions(
    "wr",
    "w",
    "rw-register",
    "transactions that read and write registers; finds anomalies where the order of versions can be inferred",
)
