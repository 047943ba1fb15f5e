"""Keys with revisions, and the changes that were made to them.

Rules of this module
    1. What is changed between two calls of `commit` is one revision, whichever keys and however often.
    2. Values are canonical JSON text. Equality is equality of that text.
    3. The last `events_max` changes are kept, as long as their values have no more than `events_bytes_max` bytes,
       and are part of the state: a node that was restored from a snapshot answers a watcher as any other does.
       `compacted` is the newest revision that was forgotten.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

import msgspec

from raft.api import Json

canonical = msgspec.json.Encoder(order="deterministic").encode
parse = msgspec.json.Decoder().decode
NULL = b"null"
PAGE_BYTES_MAX = 2 << 20
MANY = 100


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a key holds, and what became of it."""

    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: str


class StoredRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record, or with a version of 0 the trace of a deletion, in a snapshot."""

    key: str
    value: msgspec.Raw
    create_revision: int
    mod_revision: int
    version: int
    lease: str


class StoredKeys(msgspec.Struct, frozen=True, array_like=True):
    """Everything, in a snapshot."""

    revision: int
    compacted: int
    records: list[StoredRecord]
    events: list[StoredRecord]


class Keys:
    """See the module.

    >>> keys = Keys(events_max=100)
    >>> keys.put("x", b"1")
    1
    >>> keys.put("y", b"2")
    1
    >>> keys.commit()
    >>> keys.put("x", b"3")
    2
    >>> keys.commit()
    >>> keys.get("x")
    Record(value=b'3', create_revision=1, mod_revision=2, version=2, lease='')
    """

    __slots__ = (
        "_changed", "_events", "_events_bytes", "_events_bytes_max", "_events_max", "_order", "compacted", "records",
        "revision",
    )  # fmt: skip

    def __init__(self, events_max: int, events_bytes_max: int = 64 << 20) -> None:
        self.records: dict[str, Record] = {}
        self.revision = 0
        self.compacted = 0
        self._changed: dict[str, Record | None] = {}
        self._events: deque[tuple[int, str, Record | None]] = deque()
        self._events_max = events_max
        self._events_bytes = 0
        self._events_bytes_max = events_bytes_max
        self._order: list[str] | None = None  # all keys in order, from when somebody has asked for it

    # -- changes -----------------------------------------------------------------------------------

    def put(self, key: str, value: bytes, lease: str = "") -> int:
        """Sets a key; returns the revision that this is part of."""
        revision = self.revision + 1
        old = self.records.get(key)
        if old is None:
            if self._order is not None:
                insort(self._order, key)
            record = Record(value, revision, revision, 1, lease)
        else:
            version = old.version + (old.mod_revision != revision)
            record = Record(value, old.create_revision, revision, version, lease)
        self.records[key] = self._changed[key] = record
        return revision

    def delete(self, key: str) -> Record | None:
        """Removes a key; returns what it was."""
        old = self.records.pop(key, None)
        if old is not None:
            if self._order is not None:
                del self._order[bisect_left(self._order, key)]
            self._changed[key] = None
        return old

    def expect(self, deletions: int) -> None:
        """So many keys are to go: of many, sorting the rest once takes less than taking out one by one."""
        if deletions > MANY:
            self._order = None

    def commit(self) -> None:
        """Makes what was changed one revision."""
        if not self._changed:
            return
        self.revision += 1
        events = self._events
        for key, record in self._changed.items():
            events.append((self.revision, key, record))
            if record is not None:
                self._events_bytes += len(record.value)
        self._changed.clear()
        while len(events) > self._events_max or self._events_bytes > self._events_bytes_max:
            self.compacted, _, forgotten = events.popleft()
            if forgotten is not None:
                self._events_bytes -= len(forgotten.value)

    # -- reads -------------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        """What a key holds."""
        return self.records.get(key)

    def text(self, key: str) -> bytes:
        """The value of a key, null where it is absent."""
        record = self.records.get(key)
        return NULL if record is None else record.value

    def between(self, start: str, end: str | None) -> Iterator[tuple[str, Record]]:
        """The keys from `start` up to but not including `end`, in order."""
        if self._order is None:
            self._order = sorted(self.records)
        order = self._order
        last = bisect_left(order, end) if end else len(order)
        for at in range(bisect_left(order, start), last):
            yield order[at], self.records[order[at]]

    def changed_since(self, revision: int) -> set[str] | None:
        """The keys that have changed; None if that is forgotten."""
        if revision < self.compacted:
            return None
        newer = itertools.takewhile(lambda event: event[0] > revision, reversed(self._events))
        return {key for _, key, _ in newer}

    def events(self, key: str, end: str | None, after: int, limit: int) -> tuple[list[Json], int]:
        """Changes since a revision, in order, and the revision up to which there are no others.

        All changes of one revision come together, so `limit` may be exceeded by as many as one entry makes.
        """
        found: list[tuple[int, str, Record | None]] = []
        for event in reversed(self._events):
            if event[0] <= after:
                break
            if event[1] == key if end is None else key <= event[1] and (not end or event[1] < end):
                found.append(event)
        found.reverse()
        upto = max(self.revision, after)
        if len(found) > limit:
            upto = found[limit - 1][0]
            found = [event for event in found if event[0] <= upto]
        return [_as_event(*event) for event in found], upto

    def forget_events(self) -> None:
        """Drops the changes that are kept, for the sake of `raft.bugs`."""
        self._events.clear()
        self._events_bytes = 0

    # -- the whole ---------------------------------------------------------------------------------

    def stored(self) -> StoredKeys:
        """The whole state."""
        records = [_stored(key, record) for key, record in self.records.items()]
        events = [_stored_event(*event) for event in self._events]
        return StoredKeys(self.revision, self.compacted, records, events)

    def restore(self, stored: StoredKeys) -> None:
        """Takes over a state that `stored` gave."""
        self.revision, self.compacted, self._order = stored.revision, stored.compacted, None
        self.records = {record.key: _restored(record) for record in stored.records}
        self._events = deque(
            (event.mod_revision, event.key, _restored(event) if event.version else None)
            for event in stored.events
        )
        self._events_bytes = sum(len(record.value) for _, _, record in self._events if record is not None)


def page_of(found: list[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """As many as one answer should hold, and at least one."""
    size = 0
    for at, (key, record) in enumerate(found):
        size += len(key) + len(record.value)
        if size > PAGE_BYTES_MAX and at:
            return found[:at]
    return found


def as_json(key: str, record: Record) -> Json:
    """A record as a client sees it."""
    return {
        "key": key,
        "value": parse(record.value),
        "create_revision": record.create_revision,
        "mod_revision": record.mod_revision,
        "version": record.version,
        "lease": record.lease,
    }


def _as_event(revision: int, key: str, record: Record | None) -> Json:
    if record is None:
        return {"type": "delete", "key": key, "mod_revision": revision}
    return {"type": "put", **as_json(key, record)}


def _stored(key: str, record: Record) -> StoredRecord:
    value = msgspec.Raw(record.value)
    return StoredRecord(key, value, record.create_revision, record.mod_revision, record.version, record.lease)


def _stored_event(revision: int, key: str, record: Record | None) -> StoredRecord:
    if record is None:
        return StoredRecord(key, msgspec.Raw(NULL), 0, revision, 0, "")
    return _stored(key, record)


def _restored(stored: StoredRecord) -> Record:
    return Record(
        bytes(stored.value), stored.create_revision, stored.mod_revision, stored.version, stored.lease
    )
