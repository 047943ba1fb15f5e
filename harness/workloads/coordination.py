"""Workloads of what clients coordinate by: ``log``, ``lock``, ``lock-set``, ``lease``, ``watch``, ``membership``.

Theory of operation
    log         messages are sent to logs and polled from them, alone and in transactions; processes are assigned new
                logs now and then. At the end one process polls all there is.
    lock        every worker acquires and releases, again and again: a mutex, linearizable
    lock-set    a lock by lease around a set that is read and written back. The lease may end before its holder is
                done; with `fencing` the store refuses the write of a holder that is none any more. Without it, the
                workload shows what such locks are worth (etcd's documentation warns of it; Jepsen's test of etcd 3.4.3
                has this workload).
    lease       keys that live as long as a lease; holders renew it, everybody looks
    watch       writes, and watches that follow them; at the end a watch of everything from the beginning
    membership  the register workload, while nodes leave and join: it brings the fault `membership`, and partitions
                that fall into the middle of a change
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from checkers.catalogue import CheckerCall
from harness.config import Config
from harness.generators import ask, each_thread
from harness.seeds import Streams, below
from harness.workloads.base import Option, OpTuple, Settings
from harness.workloads.planning import Keys, finals, forever, planned
from harness.workloads.register import RegisterWorkload


class LogWorkload:
    """See the module."""

    name = "log"
    summary = "sends to and polls from logs as of Kafka; finds lost, repeated, skipped and reordered messages"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "txn_length": Option(3, "the most sends and polls of a transaction", 1, 20)
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Offsets and polls."""
        del settings
        return (CheckerCall("log"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Sends, polls, transactions of both and assignments; then everything is polled once."""
        keys = Keys(config.keys, config.ops_per_key, streams)
        rng = streams.stream("workload/kinds")
        values = count(1)

        def operation() -> Any:
            kind = rng.random()
            if kind < 0.35:
                return ask("send", keys.next(), next(values))
            if kind < 0.75:
                return ask("poll", None, keys.some(4))
            if kind < 0.85:
                return ask("assign", None, keys.some(4))
            mops = [
                ["poll"] if rng.random() < 0.4 else ["send", keys.next(), next(values)]
                for _ in range(1 + below(rng, settings["txn_length"]))
            ]
            return ask("txn", None, mops)

        ops = planned(forever(operation), config, streams)
        last: list[OpTuple] = []
        for _, worker, _, key, _ in finals(keys.used, config):
            last += [(0, worker, "assign", None, {"keys": [key]}), (0, worker, "poll", None, [key])]
        return ops, last


class LockWorkload:
    """See the module."""

    name = "lock"
    summary = "clients that acquire and release locks; finds two holders at a time"
    model = "mutex"
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """The model decides."""
        del settings
        return ()

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Each thread acquires and releases one lock after the other, all in the same order."""
        del settings
        keys = Keys(config.keys, max(1, config.ops_per_key // 4), streams, "lock")

        def pair() -> list[Any]:
            key = keys.next()
            return [ask("acquire", key), ask("release", key)]

        return planned(each_thread(forever(pair)), config, streams), []


class LockSetWorkload:
    """See the module."""

    name = "lock-set"
    summary = (
        "a set behind a lock by lease; without fencing, finds elements lost to a holder that is none any more"
    )
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "fencing": Option(default=True, help="whether writes are refused once the lease has ended"),
        "ttl_ms": Option(
            150, "how long a lease lasts, in ms; below the time that an operation may take", 1, 60_000
        ),
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Nothing that was added is ever missing."""
        del settings
        return (CheckerCall("set-full"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Three adds for each read, then a read of every set."""
        del settings
        keys = Keys(config.keys, config.ops_per_key, streams)
        rng = streams.stream("workload/kinds")
        elements = count(1)

        def operation() -> Any:
            return (
                ask("read", keys.next()) if rng.random() < 0.25 else ask("add", keys.next(), next(elements))
            )

        ops = planned(forever(operation), config, streams)
        return ops, finals(keys.used, config)


class LeaseWorkload:
    """See the module."""

    name = "lease"
    summary = (
        "keys that live as long as a lease; finds leases that end too early, or do not end when given back"
    )
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {"ttl_ms": Option(1000, "how long a lease lasts, in ms", 100, 3_600_000)}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Promised times."""
        return (CheckerCall("lease", {"ttl_ms": settings["ttl_ms"]}),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Each worker holds, renews and drops a key of its own; everybody looks at all of them."""
        del settings
        rng = streams.stream("workload/kinds")

        def mine() -> Any:
            kind = rng.random()
            # Seldom: a lease must be kept alive for many times its length to be worth looking at.
            if kind < 0.03:
                return ask("hold", "mine")
            if kind < 0.45:
                return ask("renew", "mine")
            if kind < 0.46:
                return ask("drop", "mine")
            return ask("look", f"w{below(rng, config.concurrency)}")

        started: set[int] = set()
        ops: list[OpTuple] = []
        for at_us, worker, f, key, value in planned(forever(mine), config, streams):
            if worker not in started:
                started.add(worker)
                ops.append((at_us, worker, "hold", f"w{worker}", None))
            else:
                ops.append((at_us, worker, f, f"w{worker}" if key == "mine" else key, value))
        return ops, []


class WatchWorkload:
    """See the module."""

    name = "watch"
    summary = "writes and watches that follow them; finds changes that a watch misses, repeats or reorders"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "wait_ms": Option(200, "how long a watch waits for a change, in ms", 0, 60_000)
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """No gaps."""
        del settings
        return (CheckerCall("watch"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """As many writes as watches; then everybody who watches sees all from the beginning."""
        del settings
        rng = streams.stream("workload/kinds")
        values = count(1)

        def operation() -> Any:
            if rng.random() < 0.5:
                return ask("write", f"watched/k{below(rng, config.keys)}", next(values))
            return ask("watch")

        ops = planned(forever(operation), config, streams)
        return ops, [(0, worker, "watch", None, 0) for worker in range(min(config.concurrency, config.nodes))]


class MembershipWorkload(RegisterWorkload):
    """See the module."""

    name = "membership"
    summary = (
        "reads, writes and cas while nodes leave, join and hand over; finds what membership changes break"
    )
    faults: tuple[str, ...] = ("membership", "partition-in-joint")
