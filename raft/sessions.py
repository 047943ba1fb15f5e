"""Client sessions: who has been answered what (thesis 6.3).

Rules of this module
    1. A session knows the last request that was applied for its client, and what was answered.
    2. Sessions that nobody opened are bounded, and forgotten in the order of the log: when there are too
       many, the one whose last write is the oldest entry goes.
    3. Sessions that were opened (`api.OpenSession`; their names begin with "@") end by the cluster's clock
       or by being closed, and in no other way: no more are opened than the bound allows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raft.api import Expired, Request, Response, Unknown
from raft.leases import Deadlines


class OpenedSession(msgspec.Struct, array_like=True):
    """A session with a life time."""

    ttl_us: int
    ends_us: int
    seq: int = -1
    answer: Response | None = None


class StoredSessions(msgspec.Struct, array_like=True):
    """Everything, in a snapshot."""

    implicit: dict[str, tuple[int, Response]]
    opened: dict[str, OpenedSession]


class Sessions:
    """See the module."""

    __slots__ = ("_implicit", "_max", "_opened", "deadlines")

    def __init__(self, sessions_max: int) -> None:
        # client -> (seq, answer); the order of insertion is the order of the sessions' last writes.
        self._implicit: dict[str, tuple[int, Response]] = {}
        self._opened: dict[str, OpenedSession] = {}
        self._max = sessions_max
        self.deadlines = Deadlines()

    @property
    def opened(self) -> int:
        """How many sessions with a life time there are."""
        return len(self._opened)

    @property
    def full(self) -> bool:
        """Whether no session may be opened any more."""
        return len(self._opened) >= self._max

    def answered(self, request: Request) -> Response | None:
        """The answer a request was given before, or None if it is new."""
        client = request.client
        last: tuple[int, Response | None] | None = self._implicit.get(client)
        if last is None:
            if not is_opened(client):
                return None
            session = self._opened.get(client)
            if session is None:
                return Expired("session", client)
            last = (session.seq, session.answer)
        if last[0] < request.seq:
            return None
        if last[0] == request.seq:
            return last[1]
        return Unknown(f"request {request.seq} of this client came after its request {last[0]}")

    def remember(self, request: Request, answer: Response) -> None:
        """Keeps the answer to the newest request of its client."""
        client = request.client
        sessions = self._implicit
        if sessions.pop(client, None) is None and is_opened(client):
            session = self._opened.get(client)
            if session is not None:
                session.seq, session.answer = request.seq, answer
            return
        # Taken out and put in again, the client is at the end of the order.
        sessions[client] = (request.seq, answer)
        if len(sessions) > self._max:
            del sessions[next(iter(sessions))]

    def open(self, name: str, ttl_us: int, clock_us: int) -> None:
        """Opens a session."""
        self._opened[name] = OpenedSession(ttl_us, clock_us + ttl_us)
        self.deadlines.set(name, clock_us + ttl_us)

    def touch(self, client: str, clock_us: int) -> int | None:
        """Lets an opened session live for its time to live from now; returns that, or None if there is none."""
        session = self._opened.get(client)
        if session is None:
            return None
        session.ends_us = clock_us + session.ttl_us
        self.deadlines.set(client, session.ends_us)
        return session.ttl_us

    def close(self, client: str) -> None:
        """Forgets an opened session."""
        self._opened.pop(client, None)
        self.deadlines.drop(client)

    def expire(self, clock_us: int) -> None:
        """Forgets the sessions whose time is over."""
        for name in self.deadlines.due(clock_us):
            del self._opened[name]

    def stored(self) -> StoredSessions:
        """All sessions, for a snapshot."""
        return StoredSessions(self._implicit, self._opened)

    def restore(self, stored: StoredSessions) -> None:
        """Takes over what `stored` gave."""
        self._implicit = dict(stored.implicit)
        self._opened = dict(stored.opened)
        self.deadlines = Deadlines()
        for name, session in self._opened.items():
            self.deadlines.set(name, session.ends_us)

    def fingerprint(self) -> list[Any]:
        """What must be equal on nodes that have applied the same log."""
        return [list(self._implicit.items()), list(self._opened.items())]


def is_opened(client: str) -> bool:
    """Whether a client's name is that of a session with a life time."""
    return client[:1] == "@"
