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
        self._invariants = Invariants()

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
                f"{violated}, seen {self._now_us() / 1e6:.3f} s after the nodes were started"
            )


def watched(node_class: type[Node], watch: InvariantWatch) -> type[Node]:
    """The same node, looked at after each of its turns."""

    class Watched(node_class):  # type: ignore[valid-type, misc]
        def _turn(self) -> None:
            super()._turn()
            if not self._in_turn:
                watch.check(self.core)

    return Watched


def observing(watch: InvariantWatch, core: Callable[[], Any]) -> Callable[..., None]:
    """An observer of a real server, which is looked at when something has changed."""

    def observe(event: str, **fields: Any) -> None:
        del fields
        if event != "stopped":
            watch.check(core())

    return observe
