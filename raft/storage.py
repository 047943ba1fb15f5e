"""Where a node's records are kept; what they are, and amount to, is in `raft.core.records`.

A storage may lose, in a crash, any suffix of what was written after the last finished sync, and nothing else.
Whoever simulates a worse disk keeps the record list here and damages it before `load`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raft.core.records import Record, Saved, SaveEntries, SaveHardState, SaveSnapshot, TruncateFrom, replay

__all__ = [
    "MemoryStorage",
    "Record",
    "SaveEntries",
    "SaveHardState",
    "SaveSnapshot",
    "Saved",
    "TruncateFrom",
    "replay",
]


class MemoryStorage:
    """A perfect disk in memory: durable at once, and the model for every other storage.

    >>> disk = MemoryStorage()
    >>> disk.write([SaveHardState(1, "a")])
    >>> disk.crash()  # not synced, so lost
    >>> disk.load().hard_state.term
    0
    """

    def __init__(self) -> None:
        self.durable: list[Record] = []
        self.pending: list[Record] = []

    def load(self) -> Saved:
        """The durable records, folded."""
        return replay(self.durable)

    def write(self, records: Sequence[Record]) -> None:
        """Queues records."""
        self.pending.extend(records)

    def sync(self, done: Callable[[], None]) -> None:
        """Makes them durable."""
        self.durable.extend(self.pending)
        self.pending.clear()
        done()

    def crash(self) -> None:
        """Loses what was not synced."""
        self.pending.clear()
