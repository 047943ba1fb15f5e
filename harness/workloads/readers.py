"""Workloads of what readers may see: sessions, causes, forks, and several registers at once.

Theory of operation
    session         single appends to lists and reads of them; each process is a session
    causal          reads and writes of unique values, on few keys, so that processes see each other's writes often
    causal-reverse  groups of members that are written one by one, and reads of whole groups
    long-fork       the same with small groups, each member written once: of two reads one must see what the other does
    g2              two inserts for each key, of which each looks first whether the other is there
    multi-register  transactions that read, or write, several registers of a group at once
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from checkers.catalogue import CheckerCall
from checkers.sessions import GUARANTEES
from harness.config import Config
from harness.generators import ask
from harness.seeds import Streams, below, pick
from harness.workloads.base import Option, OpTuple, Settings
from harness.workloads.planning import Keys, finals, forever, planned


def _reads_and(
    write: str, reads: float, config: Config, streams: Streams
) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
    """Reads, in this share of all, and writes of values that are new each time; then a read of every key."""
    keys = Keys(config.keys, config.ops_per_key, streams)
    rng = streams.stream("workload/kinds")
    values = count(1)

    def operation() -> Any:
        if rng.random() < reads:
            return ask("read", keys.next())
        return ask(write, keys.next(), next(values))

    ops = planned(forever(operation), config, streams)
    return ops, finals(keys.used, config)


class SessionWorkload:
    """See the module."""

    name = "session"
    summary = "appends and reads of single keys; finds sessions that do not see their own past"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "guarantees": Option("+".join(GUARANTEES), "the guarantees that must hold, joined by +")
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """The four guarantees."""
        return (CheckerCall("session", {"guarantees": settings["guarantees"]}),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Twice as many reads as appends, then a read of every key."""
        del settings
        return _reads_and("append", 0.65, config, streams)


class CausalWorkload:
    """See the module."""

    name = "causal"
    summary = "reads and writes of unique values; finds reads of what one of their causes has overwritten"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {
        "convergence": Option(
            default=True, help="whether conflicting writes must be ordered alike everywhere"
        )
    }

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """The bad patterns of causal consistency."""
        return (CheckerCall("causal", {"convergence": settings["convergence"]}),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Twice as many reads as writes, then a read of every key."""
        del settings
        return _reads_and("write", 0.65, config, streams)


class CausalReverseWorkload:
    """See the module."""

    name = "causal-reverse"
    summary = (
        "writes one after the other, and reads of all; finds a write that is seen without those before it"
    )
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """No effect without what came before it."""
        del settings
        return (CheckerCall("causal-reverse"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """As many reads as writes, then a read of every group."""
        del settings
        return _reads_and("write", 0.5, config, streams)


class LongForkWorkload:
    """See the module."""

    name = "long-fork"
    summary = "single writes and reads of groups; finds two writes that are seen in opposite orders"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {"group": Option(4, "members of a group", 2, 100)}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Reads of a group can be put in a row."""
        del settings
        return (CheckerCall("long-fork"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Groups in which each member is written once, with twice as many reads, some after the last write."""
        rng = streams.stream("workload/kinds")
        groups: list[str] = []

        def operations() -> Iterator[Any]:
            live: list[tuple[str, list[str]]] = []
            while True:
                while len(live) < config.keys:
                    groups.append(f"g{len(groups) + 1}")
                    writes = ["write"] * settings["group"]
                    live.append((groups[-1], [*writes, *["read"] * (2 * settings["group"])]))
                place = below(rng, len(live))
                group, left = live[place]
                f = left.pop(below(rng, len(left)))
                yield ask(f, group, left.count("write") if f == "write" else None)
                if not left:
                    live.pop(place)

        ops = planned(operations(), config, streams)
        used = dict.fromkeys(key for _, _, _, key, _ in ops)
        return ops, finals(list(used), config)


class G2Workload:
    """See the module."""

    name = "g2"
    summary = "pairs of inserts of which each looks for the other first; finds two that both succeed"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """One of two."""
        del settings
        return (CheckerCall("g2"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Two inserts for each key, right after each other."""
        del settings
        pairs = (ask("insert", f"k{n}", row) for n in count(1) for row in ("a", "b"))
        return planned(pairs, config, streams), []


class MultiRegisterWorkload:
    """See the module."""

    name = "multi-register"
    summary = "reads and writes of several registers at once; finds transactions that are seen in part"
    model = ""
    faults: tuple[str, ...] = ()
    options: Mapping[str, Option] = {"registers": Option(3, "registers of a group", 2, 20)}

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """Linearizable group by group."""
        del settings
        return (CheckerCall("multi-register"),)

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """As many reads as writes, then a read of every group."""
        keys = Keys(config.keys, config.ops_per_key, streams, "g")
        rng = streams.stream("workload/kinds")
        values = count(1)
        names = [f"r{n}" for n in range(settings["registers"])]

        def operation() -> Any:
            chosen = sorted({pick(rng, names) for _ in range(1 + below(rng, len(names)))})
            if rng.random() < 0.5:
                return ask("txn", keys.next(), [["r", name, None] for name in chosen])
            return ask("txn", keys.next(), [["w", name, next(values)] for name in chosen])

        ops = planned(forever(operation), config, streams)
        reads = [
            (at_us, worker, "txn", key, [["r", name, None] for name in names])
            for at_us, worker, _, key, _ in finals(keys.used, config)
        ]
        return ops, reads
