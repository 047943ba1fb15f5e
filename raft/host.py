"""What a Raft node asks of the world around it, and nothing else.

The same `raft.node.Node` runs on a simulated host (virtual time, simulated links and disk) and on an asyncio
host (sockets, files). A host is single-threaded: it calls the node back one event at a time, never
re-entrantly, and a callback never blocks.

Rules of this module
    1. Time is `now_us`: monotonic microseconds, meaningful only as differences on one host.
    2. `send` may lose, delay, duplicate and reorder messages; it never blocks and never fails.
    3. What `Storage.write` was given is durable only after the callback of a later `sync` has run. A crash
       may lose any suffix of what was not synced (and real disks more than that: see the storage module).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raft.core import Message, Record, Saved


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget the call; cancelling twice, or after it ran, does nothing."""


class Storage(Protocol):
    """A node's disk, at the level of Raft's records."""

    def load(self) -> Saved | None:
        """What was durable at the last stop, or None for a new node."""

    def write(self, records: Sequence[Record]) -> None:
        """Queue records in order; not durable yet."""

    def sync(self, done: Callable[[], None]) -> None:
        """Make all that was written durable, then call `done` (now, or later from the host's loop).

        A node has one sync under way at a time.
        """


class Host(Protocol):
    """Where a node runs."""

    @property
    def storage(self) -> Storage:
        """This node's disk."""

    def now_us(self) -> int:
        """Monotonic time in microseconds."""

    def random(self) -> float:
        """A number in [0, 1) from this node's own stream."""

    def call_later(self, delay_us: int, callback: Callable[..., None], *args: Any) -> Timer:
        """Call back once, `delay_us` microseconds from now."""

    def send(self, dst: str, message: Message) -> None:
        """Hand a message for another node to the network."""
