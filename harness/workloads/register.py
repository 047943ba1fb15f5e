"""The workload ``register``: reads, writes and compare-and-sets on several keys, each a linearizable register.

Theory of operation
    Operations arrive at the configured rate (gaps uniform in [0, 2/rate), as Jepsen's `stagger` draws them), each
    for a worker drawn at random and for one of `keys` keys that are in use at a time. A key is retired after about
    `ops_per_key` operations and a fresh one takes its place: checking costs grow with the length of one key's
    history and with the operations of unknown outcome in it, so many short histories are cheaper than a long one.

    Half of the operations are reads; writes and cas share the rest. A cas expects one of the values that were most
    recently planned for its key, so that it often finds it. Without `unique_values`, values are drawn from 0 to 19;
    with it every written value is new: a lost or stale write can then never hide behind an equal value.

    After healing, every key is read once more by some worker.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from checkers.catalogue import CheckerCall
from harness.config import Config
from harness.seeds import Streams, below, between, pick
from harness.workloads.base import Option, OpTuple, Settings

VALUES = 20  # 0 to 19; few enough that values repeat, enough that a wrong one is seldom right by chance
RECENT = 3  # how far back a cas looks for what it expects


class RegisterWorkload:
    """See the module."""

    name = "register"
    summary = "read, write and cas on several keys; finds lost writes, stale reads and split brain"
    model = "etcd-register"
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "cas": Option(default=True, help="whether there are compare-and-sets; else these are writes too")
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """The model decides."""
        del settings
        return ()

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Operations over the time limit, then one read of every key."""
        arrivals = streams.stream("workload/arrivals")
        keys = _Keys(config, streams.stream("workload/keys"))
        values = _Values(unique=config.unique_values, rng=streams.stream("workload/values"))
        kinds = streams.stream("workload/kinds")
        ops: list[OpTuple] = []
        gap_us = 2_000_000.0 / config.rate_hz
        limit_us = config.time_limit_s * 1_000_000
        at_us = between(arrivals, 0, gap_us)
        while at_us < limit_us:
            worker = below(arrivals, config.concurrency)
            key = keys.next()
            kind = kinds.random()
            if kind < 0.5:
                ops.append((int(at_us), worker, "read", key, None))
            elif kind < 0.75 or not settings["cas"]:
                ops.append((int(at_us), worker, "write", key, values.write(key)))
            else:
                ops.append((int(at_us), worker, "cas", key, values.cas(key)))
            at_us += between(arrivals, 0, gap_us)
        final: list[OpTuple] = [
            (0, i % config.concurrency, "read", key, None) for i, key in enumerate(keys.all_used)
        ]
        return ops, final


class _Keys:
    """Which key comes next: drawn from those in use, each retired after its share."""

    def __init__(self, config: Config, rng: random.Random) -> None:
        self._rng = rng
        self._ops_per_key = config.ops_per_key
        self._used: dict[str, None] = {}  # in order of first use
        self._count = 0
        self._live = [self._fresh() for _ in range(config.keys)]

    @property
    def all_used(self) -> list[str]:
        return list(self._used)

    def _fresh(self) -> tuple[str, int]:
        self._count += 1
        # Within 10 % of the limit, so that keys do not all change at once.
        return f"k{self._count}", max(1, int(self._ops_per_key * between(self._rng, 0.9, 1.1)))

    def next(self) -> str:
        slot = below(self._rng, len(self._live))
        name, left = self._live[slot]
        self._used[name] = None
        self._live[slot] = (name, left - 1) if left > 1 else self._fresh()
        return name


class _Values:
    """What is written, and what a cas expects."""

    def __init__(self, *, unique: bool, rng: random.Random) -> None:
        self._unique = unique
        self._rng = rng
        self._count = 0
        self._recent: dict[str, list[int]] = {}

    def write(self, key: str) -> int:
        self._count += 1
        value = self._count if self._unique else below(self._rng, VALUES)
        recent = self._recent.setdefault(key, [])
        recent.append(value)
        del recent[:-RECENT]
        return value

    def cas(self, key: str) -> list[int | None]:
        recent = self._recent.get(key)
        expected = pick(self._rng, recent) if recent else None
        return [expected, self.write(key)]
