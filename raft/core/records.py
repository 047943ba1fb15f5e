"""What a node writes to its disk, and what it finds there.

The disk holds a sequence of records. A node's durable state is the fold of the sequence: `replay(records)`.
Whatever keeps the records (a list in memory, a simulated disk that loses what was not synced, segment files)
need know no more of Raft than that: it may lose a suffix that was never synced, and must never lose, change
or swap anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from raft.core.types import Entry, HardState, Index, NodeId, Snapshot, Term


class SaveHardState(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Replaces the term and the vote."""

    term: Term
    voted_for: NodeId | None


class TruncateFrom(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Removes the entry at `index` and all that follow it."""

    index: Index


class SaveEntries(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Appends entries; the first follows the last one kept."""

    entries: tuple[Entry, ...]


class SaveSnapshot(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Replaces the entries up to the snapshot's index.

    Entries after it stay if the log has the snapshot's last entry; otherwise they belong to another history,
    and the whole log goes (Figure 13, steps 6 and 7).
    """

    snapshot: Snapshot


Record: TypeAlias = SaveHardState | TruncateFrom | SaveEntries | SaveSnapshot


class Saved(msgspec.Struct, frozen=True):
    """All a node remembers across a crash: `currentTerm`, `votedFor`, `log[]` (Figure 2), and a snapshot."""

    hard_state: HardState = HardState()
    entries: tuple[Entry, ...] = ()
    snapshot: Snapshot | None = None


NOTHING_SAVED = Saved()


def replay(records: Iterable[Record], start: Saved = NOTHING_SAVED) -> Saved:
    """The state a sequence of records amounts to, from a state on that others have left.

    >>> from raft.core.types import Entry, EntryKind
    >>> first, other = Entry(1, 1, EntryKind.NOOP), Entry(1, 2, EntryKind.NOOP)
    >>> saved = replay([SaveEntries((first,)), SaveHardState(2, "a"), TruncateFrom(1), SaveEntries((other,))])
    >>> saved.hard_state, saved.entries == (other,)
    (HardState(term=2, voted_for='a'), True)
    """
    hard_state, snapshot = start.hard_state, start.snapshot
    entries = list(start.entries)
    next_index = _next_index(entries, snapshot)
    for record in records:
        if isinstance(record, SaveEntries):  # most of them
            new = record.entries
            if new and new[0].index != next_index:
                raise ValueError(
                    f"entry {new[0].index} was saved where {next_index} belongs: records are missing"
                )
            entries += new
            next_index += len(new)
        elif isinstance(record, SaveHardState):
            hard_state = HardState(record.term, record.voted_for)
        else:
            if isinstance(record, TruncateFrom):
                first = entries[0].index if entries else 1
                del entries[max(0, record.index - first) :]
            else:
                snapshot = record.snapshot
                entries = _after(entries, snapshot)
            next_index = _next_index(entries, snapshot)
    return Saved(hard_state, tuple(entries), snapshot)


def _next_index(entries: list[Entry], snapshot: Snapshot | None) -> Index:
    return entries[-1].index + 1 if entries else (snapshot.index if snapshot else 0) + 1


def _after(entries: list[Entry], snapshot: Snapshot) -> list[Entry]:
    """The entries that stay behind a snapshot."""
    at = snapshot.index - entries[0].index if entries else -1
    same_history = 0 <= at < len(entries) and entries[at].term == snapshot.term
    return entries[at + 1 :] if same_history else []
