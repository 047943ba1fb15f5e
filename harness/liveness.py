"""Liveness: after all that was done to it, a healthy majority must make progress within a bound.

Theory of operation
    Safety says that nothing wrong is ever answered; a system that never answers is safe. A run with `--liveness`
    keeps faults in force up to the end of the load. At that moment a majority of the nodes, drawn from the seed and
    called the core, is healed, with all links between its members. What is outside the core stays broken for good:
    each of its nodes is dead, stands still, is cut off, or hears in one direction only. Raft promises that the core
    elects a leader and answers (FLP forbids a promise in every case; with random time-outs the case in which it takes
    long is improbable, hence a bound). So each client that is bound to a node of the core must get some operations
    answered within the bound; if one does not, the run is invalid, by the check ``liveness``. TigerBeetle's simulator
    has a mode like it.

    An operation whose outcome is unknown is not asked again, because it may have happened; the client goes on to its
    next one. One that was refused is asked again after a pause.

Rules of this module
    1. A run without it draws what it drew before: everything here comes from a stream of its own.
    2. At least one client belongs to the core, however few there are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from harness import workloads
from harness.config import Config
from harness.planned import LivenessPlan, PlannedOp
from harness.seeds import Streams, pick
from harness.workloads.base import OpTuple, Workload
from nemesis.draws import shuffled
from nemesis.faults import Fault, Kill, Partition, Pause
from nemesis.grudges import majority
from nemesis.schedule import FaultEvent

NEEDED = 3
OPS_EACH_MAX = 200
RETRY_PAUSE_S = 0.05
TROUBLES = ("dead", "still", "cut off", "deaf", "mute")


@dataclass(slots=True)
class LivenessRecord:
    """What became of it.

    Attributes:
        plan: what was to be shown.
        answered: how many operations each client of the core got answered, up to `needed`.
        recovered_ns: how long after the healing the last of them had its answers; None where one never had.
        outside: what was wrong outside the core, in words.
    """

    plan: LivenessPlan
    answered: dict[int, int] = field(default_factory=dict)
    recovered_ns: int | None = None
    outside: tuple[str, ...] = ()

    @property
    def stuck(self) -> Mapping[int, int]:
        """The clients that did not get their answers in time, with how many they got."""
        return {client: count for client, count in self.answered.items() if count < self.plan.needed}

    def lines(self) -> list[str]:
        """What went wrong, for people; empty where nothing did."""
        if not self.stuck:
            return []
        bound_s = self.plan.bound_ms / 1000
        worst = min(self.stuck, key=lambda client: (self.stuck[client], client))
        outside = f"outside it {'; '.join(self.outside)}" if self.outside else "with nobody outside it"
        return [
            (
                f"no progress: {len(self.stuck)} of {len(self.answered)} clients of a healthy majority did not get "
                f"{self.plan.needed} operations answered within {bound_s:g} s"
            ),
            f"healthy: {', '.join(self.plan.core)}; {outside}",
            f"client {worst} got {self.stuck[worst]} answers",
        ]


def draw(config: Config, workload: Workload, nodes: Sequence[str], streams: Streams) -> LivenessPlan:
    """Who is healed, what stays wrong, and what is asked then."""
    rng = streams.stream("liveness")
    homes = [nodes[worker % len(nodes)] for worker in range(config.concurrency)]
    first = pick(rng, homes)
    others = shuffled(rng, [node for node in nodes if node != first])
    chosen = {first, *others[: majority(len(nodes)) - 1]}
    core = tuple(node for node in nodes if node in chosen)
    limit_ms, bound_ms = math.ceil(config.time_limit_s * 1000), round(config.liveness_bound_s * 1000)
    outside = tuple(
        FaultEvent(
            id=f"outside-{node}", start_ms=limit_ms, stop_ms=limit_ms + bound_ms, fault=_trouble(node, rng)
        )
        for node in nodes
        if node not in chosen
    )
    workers = [worker for worker, home in enumerate(homes) if home in chosen]
    ops = _ops(config, workload, streams, workers)
    return LivenessPlan(core, outside, ops, NEEDED, bound_ms)


def _trouble(node: str, rng: random.Random) -> Fault:
    match pick(rng, TROUBLES):
        case "dead":
            return Kill(aim="one", nodes=(node,))
        case "still":
            return Pause(aim="one", nodes=(node,))
        case "deaf":
            return Partition(topology="one", nodes=(node,), hearing="deaf")
        case "mute":
            return Partition(topology="one", nodes=(node,), hearing="mute")
        case _:
            return Partition(topology="one", nodes=(node,))


def _ops(
    config: Config, workload: Workload, streams: Streams, workers: Sequence[int]
) -> tuple[PlannedOp, ...]:
    """What the workload would ask after the end of the load, dealt out to the workers."""
    each = min(OPS_EACH_MAX, NEEDED + math.ceil(config.liveness_bound_s * 1000 / config.op_timeout_ms))
    wanted = each * len(workers)
    tail_s = 2 * (wanted + 1) / config.rate_hz  # gaps are at most twice their mean
    longer = msgspec.structs.replace(config, time_limit_s=config.time_limit_s + tail_s)
    ops, _ = workload.plan(longer, workloads.settings_of(config), streams)
    limit_us = config.time_limit_s * 1e6
    tail: list[OpTuple] = [op for op in ops if op[0] >= limit_us][:wanted]
    return tuple(
        PlannedOp(at_us, workers[number % len(workers)], f, key, value)
        for number, (at_us, _, f, key, value) in enumerate(tail)
    )


def up_to_the_end(faults: Sequence[FaultEvent], config: Config) -> tuple[FaultEvent, ...]:
    """Those of the faults that begin under load, healed when it ends at the latest."""
    limit_ms = math.ceil(config.time_limit_s * 1000)
    return tuple(
        msgspec.structs.replace(event, stop_ms=min(event.stop_ms, limit_ms))
        for event in faults
        if event.start_ms < limit_ms
    )


def details(record: LivenessRecord) -> dict[str, Any]:
    """For results.json."""
    recovered_ns = record.recovered_ns
    return {
        "core": list(record.plan.core),
        "outside": list(record.outside),
        "bound_ms": record.plan.bound_ms,
        "recovered_ms": round(recovered_ns / 1e6, 3) if recovered_ns is not None else None,
        "answered": {str(client): count for client, count in sorted(record.answered.items())},
    }
