"""A Raft node as a process of a simulated host, with messages, requests and records as values.

What is found damaged on the disk is treated as `raft.wal` treats it: a damaged end of the log is a write that a crash
tore, nothing in it was promised, and it is cut off; damage with something intact behind it was durable once, and the
node refuses to start.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from harness.sim.disk import intact_prefix
from harness.sim.host import SimHost
from harness.sim.trouble import eio
from harness.systems.raft_watch import InvariantWatch, watched
from nemesis.target import Members
from raft.bugs import assemble
from raft.core import EntryKind, Options, Record, Saved, SaveEntries, SaveSnapshot
from raft.node import Node
from raft.storage import replay

# A simulated minute has some thousands of entries; with these sizes it takes snapshots, and sends some in chunks.
SIM_OPTIONS = Options(
    snapshot_entries=500, snapshot_trailing=100, snapshot_chunk_bytes=4096, watch_events_max=500
)


def process(host: SimHost, nodes: tuple[str, ...], bug: str | None, watch: InvariantWatch) -> SimNode:
    """A node's program, with the seeded bug if one is asked for."""
    host.storage = SimStorage(host)
    watch.restarted(host.name)
    node_class = _node_class(bug, watch)
    node = node_class(host.name, nodes, host, SIM_OPTIONS, host.observer, joining=host.joins)
    return SimNode(node)


@functools.lru_cache(maxsize=1)
def _node_class(bug: str | None, watch: InvariantWatch) -> type[Node]:
    return watched(assemble([bug] if bug is not None else []), watch)


class SimStorage:
    """Raft's records on a simulated disk: what survived a crash is folded into the saved state."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._write = host.disk.write
        self.sync = host.sync

    def load(self) -> Any:
        """What survived.

        Raises:
            DiskError: what was durable cannot be read back.
        """
        disk = self._host.disk
        if disk.is_damaged:
            records, rest_is_torn = intact_prefix(disk.read())
            if not rest_is_torn:
                raise eio(f"read record {len(records)} of the log")
            disk.cut(len(records))
        records = disk.read()
        known, saved = disk.folded or (0, Saved())
        saved = replay(records[known:], saved)
        disk.folded = (len(records), saved)
        return saved

    def write(self, records: Sequence[Record]) -> None:
        """Append records."""
        self._write(records)
        if self._host.crash_point is not None:
            self._look_for_crash_point(records)

    def _look_for_crash_point(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, SaveSnapshot):
                self._host.reached("snapshot")
            elif isinstance(record, SaveEntries) and any(e.kind is EntryKind.CONFIG for e in record.entries):
                self._host.reached("membership")


class OperatedNode:
    """What operators and the nemesis ask of a node, at either depth."""

    node: Node

    def members(self) -> Members | None:
        """The members, if this node leads; settled once it has committed its configuration, and one of its term."""
        core = self.node.core
        if core.role.name != "leader":
            return None
        return Members(
            voters=core.voters,
            learners=core.config.learners,
            outgoing=core.config.outgoing,
            is_settled=not core.is_changing_config,
        )

    def change_members(self, voters: Sequence[str], learners: Sequence[str]) -> str | None:
        """Begins a change; why not, if it does not."""
        outcome = self.node.change_config(voters, learners)
        return outcome if isinstance(outcome, str) else None

    def transfer(self, node: str) -> str | None:
        """Hands over leadership; why not, if it does not."""
        return None if self.node.transfer(node) else f"leadership cannot go to {node}"

    def leader_term(self) -> int | None:
        """The term in which this node thinks that it leads, or None."""
        status = self.node.status()
        return status.term if status.role == "leader" else None


class SimNode(OperatedNode):
    """The process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.start = node.start
        self.on_request = node.on_request

    def on_message(self, _src: str, message: Any) -> None:
        """A message from another node."""
        self.node.on_message(message)
