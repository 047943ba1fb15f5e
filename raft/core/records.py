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

from raft.core.types import Entry, HardState, Index, NodeId, Term


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


Record: TypeAlias = SaveHardState | TruncateFrom | SaveEntries


class Saved(msgspec.Struct, frozen=True):
    """All a node remembers across a crash: `currentTerm`, `votedFor` and `log[]` of Figure 2."""

    hard_state: HardState = HardState()
    entries: tuple[Entry, ...] = ()


def replay(records: Iterable[Record]) -> Saved:
    """The state a sequence of records amounts to.

    >>> from raft.core.types import Entry, EntryKind
    >>> first, other = Entry(1, 1, EntryKind.NOOP), Entry(1, 2, EntryKind.NOOP)
    >>> saved = replay([SaveEntries((first,)), SaveHardState(2, "a"), TruncateFrom(1), SaveEntries((other,))])
    >>> saved.hard_state, saved.entries == (other,)
    (HardState(term=2, voted_for='a'), True)
    """
    hard_state = HardState()
    entries: list[Entry] = []
    for record in records:
        if isinstance(record, SaveHardState):
            hard_state = HardState(record.term, record.voted_for)
        elif isinstance(record, SaveEntries):
            expected = entries[-1].index + 1 if entries else 1
            if record.entries and record.entries[0].index != expected:
                raise ValueError(
                    f"entry {record.entries[0].index} was saved where {expected} belongs: records are missing"
                )
            entries.extend(record.entries)
        else:
            del entries[max(0, record.index - 1) :]
    return Saved(hard_state, tuple(entries))
