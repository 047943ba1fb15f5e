"""Defects of what clients coordinate by: leases, sessions, watches."""

from __future__ import annotations

from raft.api import Done, KeepAlive, Reply, Request
from raft.core import Leader
from raft.kv import KeyValue
from raft.node import Node


class LeaseExpiredLocally(Node):
    """Each node ends leases by its own timer, without an entry in the log."""

    def _may_end_things(self) -> bool:
        return True

    def _end_what_is_due(self, clock_us: int) -> None:
        self.machine.advance(clock_us)
        self._applied()


class SessionExpiryNotReplicated(Node):
    """Each node forgets sessions by its own timer, without an entry in the log."""

    def _may_end_things(self) -> bool:
        return True

    def _end_what_is_due(self, clock_us: int) -> None:
        self.machine.sessions.expire(clock_us)
        if isinstance(self.core.role, Leader) and self.machine.next_end_us is not None:
            super()._end_what_is_due(clock_us)


class KeepAliveNotReplicated(Node):
    """The leader renews a lease in its memory only: the next leader takes it for one that nobody renewed."""

    def _propose(self, request: Request, reply: Reply) -> None:
        lease = request.command.lease if isinstance(request.command, KeepAlive) else ""
        if lease not in self.machine.leases.leases:
            super()._propose(request, reply)
            return
        ttl_us = self.machine.leases.keep_alive(lease, self._cluster_us())
        reply(Done({"lease": lease, "ttl_ms": ttl_us // 1000}))


class WatchGap(KeyValue):
    """A node that was restored from a snapshot does not know of the changes before it, and does not say so."""

    __slots__ = ()

    def restore(self, data: bytes) -> None:
        """Forgets the changes."""
        super().restore(data)
        self.keys.forget_events()
