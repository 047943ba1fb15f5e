"""What a plan is made of, beside faults: operations with their times, and what is to be shown of liveness."""

from __future__ import annotations

from typing import Any

import msgspec

from nemesis.schedule import FaultEvent


class PlannedOp(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An operation to perform: not before `at_us`, by a worker, as soon as that worker is free.

    Attributes:
        at_us: microseconds since the cluster was ready.
        worker: which of the concurrent clients.
        f, key, value: what to ask.
    """

    at_us: int
    worker: int
    f: str
    key: Any = None
    value: Any = None


class LivenessPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be shown after load and faults; see `harness.liveness`.

    Attributes:
        core: the nodes that are healthy from then on, a majority.
        outside: what stays wrong with the others.
        ops: for the clients of the core, in the order in which they are asked.
        needed: how many operations each of these clients must get answered.
        bound_ms: within what time.
    """

    core: tuple[str, ...]
    outside: tuple[FaultEvent, ...]
    ops: tuple[PlannedOp, ...]
    needed: int
    bound_ms: int
