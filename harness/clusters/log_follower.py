"""The committed log of real nodes, read from them while they run: they forget what their snapshots cover.

Rules of this module
    1. Every node is asked in turn for what it knows to be committed beyond what is known here; an entry is known from
       the first node that told it, and committed at the latest when that answer came.
    2. The log is believed only where it is whole and one: no entry was forgotten before it was asked for, a leader has
       committed an entry of its own term at the end (so it has all that ever were), and what it still has of the log is
       what was told before. Otherwise a sentence says why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from harness.systems.base import Call, CommittedRequests, LoggedEntry, LogPart

POLL_S = 0.1
PARTS_MAX = 100_000


@runtime_checkable
class LoggedService(Protocol):
    """A system whose nodes tell what they have committed."""

    def log_call(self, after: int) -> Call:
        """Asks for entries after that index."""

    def log_part(self, body: bytes) -> LogPart:
        """What was answered."""


Ask = Callable[[str, Call], Awaitable[bytes | None]]


class LogFollower:
    """See the module.

    Args:
        service: of the system.
        nodes: to be asked.
        ask: makes a call to a node; None where it does not answer.
        now_ns: the time of the run.
    """

    def __init__(
        self, service: LoggedService, nodes: Sequence[str], ask: Ask, now_ns: Callable[[], int]
    ) -> None:
        self._service = service
        self._nodes = nodes
        self._ask = ask
        self._now_ns = now_ns
        self._entries: list[LoggedEntry] = []  # entry 1, 2, ...
        self._at_ns: list[int] = []
        self._problem = ""

    async def follow(self) -> None:
        """Until cancelled."""
        for node in itertools.cycle(self._nodes):
            await self._read(node)
            await asyncio.sleep(POLL_S)

    async def committed(self, leader: str | None, term: int | None) -> CommittedRequests | str:
        """All of it, at the end of the run, where that node leads in that term."""
        if leader is None or term is None:
            return "no node led at the end of the run"
        commit_index = await self._read(leader)
        if commit_index is None:
            return f"{leader}, who led at the end of the run, did not answer"
        if not self._problem:
            await self._compare(leader)
        if self._problem:
            return self._problem
        if not commit_index or self._entries[commit_index - 1].term != term:
            return "the leader had committed nothing of its own term at the end of the run"
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for entry, at_ns in zip(self._entries, self._at_ns, strict=True):
            if entry.request is not None:
                found.setdefault(entry.request, (entry.place, at_ns))
        return found

    async def _read(self, node: str) -> int | None:
        """All that a node knows beyond what is known; its commit index."""
        for _ in range(PARTS_MAX):
            part = await self._part(node, len(self._entries))
            if part is None or self._problem:
                return None
            if part.after > len(self._entries):
                self._problem = f"entry {len(self._entries) + 1} of the log was compacted before it was seen"
                return part.commit_index
            self._entries += part.entries
            self._at_ns += [self._now_ns()] * len(part.entries)
            if len(self._entries) >= part.commit_index:
                return part.commit_index
        return None

    async def _compare(self, node: str) -> None:
        """What the node still has of the log must be what was told before."""
        after = 0
        while after < len(self._entries):
            part = await self._part(node, after)
            if part is None or not part.entries:
                return
            for entry in part.entries[: len(self._entries) - part.after]:
                if entry != self._entries[entry.place - 1]:
                    self._problem = f"two nodes told of different entries {entry.place}: there is no one log"
                    return
            after = part.after + len(part.entries)

    async def _part(self, node: str, after: int) -> LogPart | None:
        body = await self._ask(node, self._service.log_call(after))
        if body is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return self._service.log_part(body)
        return None
