"""The protocol's invariants, watched while a cluster runs: what is wrong is seen where it happens, before a client is.

After each event of a node, `raft.invariants` compares what it has become with its own past and with all other nodes.
The first violation ends the watching, for what follows from it says nothing new; the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.systems.base import CommittedRequests
from raft.core import Core, EntryKind
from raft.invariants import Invariants, InvariantViolated
from raft.kv import request_of
from raft.node import Node


class InvariantWatch:
    """Over all nodes of one cluster.

    Attributes:
        violations: sentences; at most one.
        violated_us: when that was seen, on the clock that this was given.
        on_violated: is called then, if anybody wants to know at once.
    """

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.violations: list[str] = []
        self.violated_us: int | None = None
        self.on_violated: Callable[[], None] | None = None
        self._now_us = now_us
        self._invariants = Invariants(now_us)
        self._committed_us: list[
            int
        ] = []  # when entry 1, 2, ... was first known to be committed, at the latest

    def restarted(self, node: str) -> None:
        """The node has only what its disk kept."""
        self._invariants.restarted(node)

    def check(self, core: Core) -> None:
        """Look at a node after an event."""
        if self.violations:
            return
        try:
            self._invariants.check(core)
            committed_us = self._committed_us
            if core.commit_index > len(committed_us):
                while len(committed_us) + 1 in self._invariants.committed:
                    committed_us.append(self._now_us())
        except InvariantViolated as violated:
            self.violated_us = self._now_us()
            self.violations.append(
                f"{violated}, seen {self._now_us() / 1e6:.3f} s after the nodes were started; before it: "
                + "; ".join(violated.before)
            )
            if self.on_violated is not None:
                self.on_violated()

    def committed(self, leader: Any) -> CommittedRequests | str:
        """See `harness.systems.base.Watch`.

        The leader has every entry that was ever committed once it has committed one of its own term (Leader
        Completeness), so nothing is missing if all up to its commit index were seen.
        """
        if self.violations:
            return "the nodes broke an invariant, so there is no one log to speak of"
        if leader is None:
            return "no node led at the end of the run"
        core: Core = leader.node.core
        if core.log.term(core.commit_index) != core.term:
            return "the leader had committed nothing of its own term at the end of the run"
        if len(self._committed_us) < core.commit_index:
            return f"entry {len(self._committed_us) + 1} of the log was compacted before it was seen"
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for index, at_us in enumerate(self._committed_us, 1):
            entry = self._invariants.committed[index]
            if entry.kind is EntryKind.COMMAND:
                found.setdefault(request_of(entry.data), (index, at_us))
        return found


def watched(node_class: type[Node], watch: InvariantWatch) -> type[Node]:
    """The same node, looked at after each of its turns; a glance here saves most of the looks there."""
    finish_turn = node_class._finish_turn  # noqa: SLF001 - what `super()` finds, found once

    class Watched(node_class):  # type: ignore[valid-type, misc]
        _glanced: tuple[Any, ...] = (None,) * 5

        def _finish_turn(self) -> None:
            finish_turn(self)
            core = self.core
            commit_index, changes, term, voted_for, role = self._glanced
            if (
                core.commit_index != commit_index
                or core.log.changes != changes
                or core.role is not role
                or core.term != term
                or core.voted_for != voted_for
            ):
                self._glanced = (core.commit_index, core.log.changes, core.term, core.voted_for, core.role)
                watch.check(core)

    return Watched
