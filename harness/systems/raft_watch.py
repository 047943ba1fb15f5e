"""The protocol's invariants, watched while a cluster runs: what is wrong is seen where it happens, before a client is.

After each event of a node, `raft.invariants` compares what it has become with its own past and with all other nodes.
The first violation ends the watching, for what follows from it says nothing new; the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raft.core import Core
from raft.invariants import Invariants, InvariantViolated
from raft.node import Node


class InvariantWatch:
    """Over all nodes of one cluster.

    Attributes:
        violations: sentences; at most one.
    """

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.violations: list[str] = []
        self._now_us = now_us
        self._invariants = Invariants(now_us)

    def restarted(self, node: str) -> None:
        """The node has only what its disk kept."""
        self._invariants.restarted(node)

    def check(self, core: Core) -> None:
        """Look at a node after an event."""
        if self.violations:
            return
        try:
            self._invariants.check(core)
        except InvariantViolated as violated:
            self.violations.append(
                f"{violated}, seen {self._now_us() / 1e6:.3f} s after the nodes were started; before it: "
                + "; ".join(violated.before)
            )


def watched(node_class: type[Node], watch: InvariantWatch) -> type[Node]:
    """The same node, looked at after each of its turns; a glance here saves most of the looks there."""

    class Watched(node_class):  # type: ignore[valid-type, misc]
        _glanced: tuple[Any, ...] = ()

        def _turn(self) -> None:
            super()._turn()
            core = self.core
            entries = core.log.entries
            last = entries[-1] if entries else None
            seen = (core.commit_index, last, len(entries), core.term, core.voted_for, core.role)
            if seen != self._glanced and not self._in_turn:
                self._glanced = seen
                watch.check(core)

    return Watched
