"""The log as it stands in memory (section 5.3). What is durable of it is the storage's business.

Index 0, term 0 is the imaginary entry before the first: it matches every log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from raft.core.types import Entry, Index, Term


def _term_of(entry: Entry) -> Term:
    return entry.term


class Log:
    """Entries without gaps, in the order of their indexes; terms never fall along it."""

    __slots__ = ("entries", "last_index", "last_term")

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries: list[Entry] = list(entries)
        self.last_index: Index = 0
        self.last_term: Term = 0
        self._note_last()

    def term(self, index: Index) -> Term | None:
        """The term of the entry at `index`, or None where the log has none."""
        if index == self.last_index:
            return self.last_term
        if 0 < index < self.last_index:
            return self.entries[index - 1].term
        return 0 if index == 0 else None

    def slice(self, first: Index, last: Index) -> tuple[Entry, ...]:
        """The entries from `first` to `last`, both included."""
        return tuple(self.entries[first - 1 : last])

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries; the first must follow the last one here."""
        assert entries[0].index == self.last_index + 1, (
            "a log has no gaps, so what is appended follows the last"
        )
        self.entries.extend(entries)
        self._note_last()

    def truncate_from(self, index: Index) -> None:
        """Removes the entry at `index` and all that follow it."""
        del self.entries[index - 1 :]
        self._note_last()

    def last_not_above(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The last entry not above `index` whose term is not above `term`: where two logs may still agree.

        Entries with a higher term than the other log has at `index` cannot be in it at or before `index`, so
        one answer skips them all (section 5.3). Terms never fall along a log, hence the bisection.
        """
        within = min(index, self.last_index)
        found = bisect_right(self.entries, term, hi=within, key=_term_of)
        return found, self.entries[found - 1].term if found else 0

    def _note_last(self) -> None:
        if self.entries:
            self.last_index, self.last_term = self.entries[-1].index, self.entries[-1].term
        else:
            self.last_index, self.last_term = 0, 0
