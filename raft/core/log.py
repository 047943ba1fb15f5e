"""The log as it stands in memory (section 5.3). What is durable of it is the storage's business.

Entries up to `offset` are compacted: only the term of the last of them is known. Index 0, term 0 is the
imaginary entry before the first: it matches every log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from raft.core.types import Entry, Index, Term


def _term_of(entry: Entry) -> Term:
    return entry.term


class Log:
    """Entries without gaps, in the order of their indexes; terms never fall along it."""

    __slots__ = ("changes", "entries", "last_index", "last_term", "offset", "offset_term")

    def __init__(self, entries: Sequence[Entry] = (), offset: Index = 0, offset_term: Term = 0) -> None:
        self.entries: list[Entry] = list(entries)
        self.offset: Index = offset
        self.offset_term: Term = offset_term
        self.last_index: Index = 0
        self.last_term: Term = 0
        self.changes = 0  # how many there were, for who wants to know whether there was one
        self._note_last()

    def term(self, index: Index) -> Term | None:
        """The term of the entry at `index`, or None where the log has none, or has it no longer."""
        if index == self.last_index:
            return self.last_term
        if self.offset < index < self.last_index:
            return self.entries[index - self.offset - 1].term
        return self.offset_term if index == self.offset else None

    def slice(self, first: Index, last: Index) -> tuple[Entry, ...]:
        """The entries from `first` to `last`, both included."""
        return tuple(self.entries[first - self.offset - 1 : last - self.offset])

    def batch(self, first: Index, count_max: int, bytes_max: int) -> tuple[tuple[Entry, ...], int]:
        """The entries from `first` on that fit, at least one, and their size."""
        if first == self.last_index:
            last = self.entries[-1]
            return (last,), len(last.data)
        entries = self.slice(first, min(first + count_max - 1, self.last_index))
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.data)
            if size > bytes_max and count:
                return entries[:count], size - len(entry.data)
        return entries, size

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries; the first must follow the last one here."""
        assert entries[0].index == self.last_index + 1, (
            "a log has no gaps, so what is appended follows the last"
        )
        self.entries.extend(entries)
        self._note_last()

    def truncate_from(self, index: Index) -> None:
        """Removes the entry at `index` and all that follow it."""
        del self.entries[index - self.offset - 1 :]
        self._note_last()

    def compact(self, index: Index) -> None:
        """Forgets the entries up to `index` (section 7)."""
        term = self.term(index)
        assert term is not None, "only what the log has can be compacted"
        del self.entries[: index - self.offset]
        self.offset, self.offset_term = index, term
        self.changes += 1

    def restart_at(self, index: Index, term: Term) -> None:
        """Forgets everything: a snapshot that covers `index` takes its place."""
        self.entries = []
        self.offset, self.offset_term = index, term
        self._note_last()

    def last_not_above(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The last entry not above `index` whose term is not above `term`: where two logs may still agree.

        Entries with a higher term than the other log has at `index` cannot be in it at or before `index`, so
        one answer skips them all (section 5.3). Terms never fall along a log, hence the bisection. Of
        compacted entries nothing is known: there the logs may agree anywhere.
        """
        within = min(index, self.last_index)
        if within < self.offset:
            return within, term
        found = bisect_right(self.entries, term, hi=within - self.offset, key=_term_of)
        if found:
            return self.offset + found, self.entries[found - 1].term
        return (self.offset, self.offset_term) if self.offset_term <= term else (self.offset - 1, term)

    def _note_last(self) -> None:
        self.changes += 1
        if self.entries:
            self.last_index, self.last_term = self.entries[-1].index, self.entries[-1].term
        else:
            self.last_index, self.last_term = self.offset, self.offset_term
