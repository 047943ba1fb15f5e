"""A node's disk as files: a segmented write-ahead log, and snapshots beside it.

Theory of operation
    All records that wait for the same sync are written as one frame: length, checksum, records. A frame is
    written only after the frame before it is durable. That makes recovery a matter of logic rather than of
    luck: a broken last frame is a write that a crash tore, nothing in it was promised to anybody, and it is
    cut off; a broken frame with an intact one behind it was durable once, so the disk has lost what was
    promised, and the node refuses to start rather than forget it (the reason is in "Protocol-Aware Recovery",
    FAST 2018).

    A log is a sequence of segments, `wal-<number>`. A segment that has grown enough is followed by the next
    one. A snapshot goes to a file of its own, written aside, synced and renamed; then a new segment begins
    with a checkpoint, the whole state that is not in the snapshot, and what is older is removed once that is
    durable.

    A segment has room ahead of what is written, where the disk can make it: the length of the file is then on the
    disk already, and a sync need not write it down, which takes a file system longer than the data itself. Room
    reads as zeros, which no frame begins with, and is given back before the next segment begins.

    What `load` gives is durable: a node answers for it from then on. A process that was killed, unlike a machine that
    lost its power, leaves writes that were never synced in the page cache, so a disk syncs what it is asked to read.

    `Wal` does its work when it is told to `commit`, and may be told so in a thread: it touches nothing else.

Rules of this module
    1. Whatever fails (no space, an error of the device) leaves as an exception, and the process ends: after a
       failed sync nobody knows what is on the disk, and trying again would only hide it.
    2. File names are durable only after their directory is synced.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from raft.core import (
    Config,
    Entry,
    HardState,
    Record,
    Saved,
    SaveEntries,
    SaveHardState,
    SaveSnapshot,
    Snapshot,
    TruncateFrom,
    replay,
)
from raft.framing import HEADER_BYTES, frame, unframe

_SEGMENT_MAGIC = b"raft-wal 1\n"
_CHECKPOINT_MAGIC = b"raft-chk 1\n"
_SNAPSHOT_MAGIC = b"raft-snapshot 1\n"
# A copy that somebody has made beside them is neither.
_SEGMENT_NAME = re.compile("wal-[0-9a-f]{16}")
_SNAPSHOT_NAME = re.compile("snapshot-[0-9a-f]{16}-[0-9a-f]{16}")
_REMEDY = "Restore the directory, or remove this node from the cluster and add it again with an empty one"


class CorruptLog(Exception):
    """What was durable cannot be read back. The message says where, and what to do."""


class Disk(Protocol):
    """The few things a log needs of a directory; a simulated one may tear, lose and lie."""

    def names(self) -> list[str]:
        """All files."""

    def read(self, name: str) -> bytes:
        """A whole file, all of it durable, whatever a process before this one left in the page cache."""

    def append(self, name: str, data: bytes) -> None:
        """Adds to the end of a file, which need not exist."""

    def reserve(self, name: str, size: int) -> bool:
        """Makes a file this long ahead of what will be appended to it; False where a disk knows of no room.

        Appending goes on where it was; behind it there are zeros.
        """

    def sync(self, name: str) -> None:
        """Makes the contents of a file durable."""

    def sync_names(self) -> None:
        """Makes durable which files there are."""

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name, replacing what had it."""

    def truncate(self, name: str, size: int) -> None:
        """Cuts a file off."""

    def remove(self, name: str) -> None:
        """Removes a file."""


class _SnapshotMark(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Stands in the log for a snapshot, whose data is in its own file."""

    index: int
    term: int
    config: Config


_Stored = SaveHardState | TruncateFrom | SaveEntries | _SnapshotMark
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Stored]).decode


class Wal:
    """The log of one node. `load` first; then `commit` records, one batch at a time."""

    def __init__(self, disk: Disk, *, segment_bytes: int = 16 << 20, room_bytes: int = 256 << 10) -> None:
        self.disk = disk
        self.segment_bytes = segment_bytes
        self.room_bytes = room_bytes  # made ahead at a time
        self._hard_state = HardState()
        self._entries: list[Entry] = []  # what a checkpoint has to repeat
        self._snapshot: Snapshot | None = None
        self._segment = 0
        self._size = 0
        self._room = 0  # how long the segment's file is, if that is more

    # -- reading -----------------------------------------------------------------------------------

    def load(self) -> Saved | None:
        """Reads everything back, and cuts off what a crash tore; None for an empty disk."""
        segments = self._segments()
        if not segments:
            self._begin_segment(1, b"")
            return None
        records: list[Record] = []
        for number in segments:
            records += self._read_segment(number, last=number == segments[-1])
        saved = replay(records)
        self._hard_state, self._entries, self._snapshot = (
            saved.hard_state,
            list(saved.entries),
            saved.snapshot,
        )
        return saved

    def _segments(self) -> list[int]:
        """The segments from the newest checkpoint on; unfinished files are removed."""
        names = self.disk.names()
        for name in names:
            if name.endswith(".tmp"):
                self.disk.remove(name)
        numbers = sorted(int(name.removeprefix("wal-"), 16) for name in names if _is_segment(name))
        if not numbers and any(name.startswith("snapshot-") for name in names):
            raise CorruptLog(f"there are snapshots and no log. {_REMEDY}")
        if len(numbers) > 1 and self._is_checkpoint(numbers[-1]) is False:
            self._drop_unfinished(_segment_name(numbers.pop()))
        first = next((number for number in reversed(numbers) if self._is_checkpoint(number)), 1)
        used = [number for number in numbers if number >= first]
        if numbers and used != list(range(first, first + len(used))):
            raise CorruptLog(f"segments are missing; there are only {numbers}. {_REMEDY}")
        return used

    def _drop_unfinished(self, name: str) -> None:
        """Removes a segment whose checkpoint was never finished, so that nothing was promised after it."""
        data = self.disk.read(name)
        if _intact_frame_after(data, len(_CHECKPOINT_MAGIC)) is not None:
            raise CorruptLog(f"the checkpoint of {name} is damaged, and records follow it. {_REMEDY}")
        self.disk.remove(name)

    def _is_checkpoint(self, number: int) -> bool | None:
        """Whether a segment begins with a whole checkpoint; None if it is an ordinary segment."""
        data = self.disk.read(_segment_name(number))
        if not data.startswith(_CHECKPOINT_MAGIC):
            return None
        return unframe(data, len(_CHECKPOINT_MAGIC)) is not None

    def _read_segment(self, number: int, *, last: bool) -> list[Record]:
        name = _segment_name(number)
        data = self.disk.read(name)
        self._segment, self._size, self._room = number, len(data), 0
        records: list[Record] = []
        at = len(_SEGMENT_MAGIC) if data.startswith((_SEGMENT_MAGIC, _CHECKPOINT_MAGIC)) else 0
        while at and at < len(data):
            found = unframe(data, at)
            if found is None:
                break
            body, at = found
            records += map(self._unstore, _decode(body))
        if at < len(data) or not at:
            self._cut_tail(name, data, at, last=last)
        return records

    def _unstore(self, stored: _Stored) -> Record:
        return self._read_snapshot(stored) if isinstance(stored, _SnapshotMark) else stored

    def _cut_tail(self, name: str, data: bytes, at: int, *, last: bool) -> None:
        """Removes the frame that a crash tore, if that is what it is, and room that was never written to."""
        if not last or (data.startswith(_CHECKPOINT_MAGIC) and at == len(_CHECKPOINT_MAGIC)):
            torn = False  # a checkpoint was durable before anything it replaces was removed
        else:
            torn = _intact_frame_after(data, at) is None
        if not torn:
            raise CorruptLog(f"{name} is damaged at byte {at}, in what was durable. {_REMEDY}")
        self.disk.truncate(name, at)
        if at == 0:
            self.disk.append(name, _SEGMENT_MAGIC)
            at = len(_SEGMENT_MAGIC)
        self.disk.sync(name)
        self._size = at

    def _read_snapshot(self, mark: _SnapshotMark) -> SaveSnapshot:
        name = _snapshot_name(mark.index, mark.term)
        data = self.disk.read(name) if name in self.disk.names() else b""
        found = unframe(data, len(_SNAPSHOT_MAGIC)) if data.startswith(_SNAPSHOT_MAGIC) else None
        if found is None or found[1] != len(data):
            raise CorruptLog(f"{name} is missing or damaged, and the log before it is gone. {_REMEDY}")
        return SaveSnapshot(msgspec.msgpack.decode(found[0], type=Snapshot))

    # -- writing -----------------------------------------------------------------------------------

    def commit(self, records: Sequence[Record]) -> None:
        """Makes records durable, in order: returns when they are."""
        if any(isinstance(record, SaveSnapshot) for record in records):
            self._commit_with_snapshot(records)
            return
        self._remember(records)
        data = frame(_encode(records))
        name = _segment_name(self._segment)
        if self._size + len(data) > self._room:
            room = self._size + len(data) + self.room_bytes
            self._room = room if self.disk.reserve(name, room) else 0
        self.disk.append(name, data)
        self.disk.sync(name)
        self._size += len(data)
        if self._size >= self.segment_bytes:
            self._begin_segment(self._segment + 1, b"")

    def _remember(self, records: Sequence[Record]) -> None:
        snapshot = self._snapshot
        before: list[Record] = [SaveHardState(self._hard_state.term, self._hard_state.voted_for)]
        if not any(isinstance(record, (TruncateFrom, SaveSnapshot)) for record in records):
            for record in records:  # the common case, without copying what is there
                if isinstance(record, SaveEntries):
                    self._entries.extend(record.entries)
                elif isinstance(record, SaveHardState):
                    self._hard_state = HardState(record.term, record.voted_for)
            return
        if snapshot is not None:
            before.append(SaveSnapshot(snapshot))
        saved = replay([*before, SaveEntries(tuple(self._entries)), *records])
        self._hard_state, self._entries, self._snapshot = (
            saved.hard_state,
            list(saved.entries),
            saved.snapshot,
        )

    def _commit_with_snapshot(self, records: Sequence[Record]) -> None:
        """Saves the snapshot aside, begins a segment that needs nothing older, removes what is."""
        self._remember(records)
        snapshot = self._snapshot
        assert snapshot is not None
        name = _snapshot_name(snapshot.index, snapshot.term)
        self.disk.append(f"{name}.tmp", _SNAPSHOT_MAGIC + frame(msgspec.msgpack.encode(snapshot)))
        self.disk.sync(f"{name}.tmp")
        self.disk.rename(f"{name}.tmp", name)
        self.disk.sync_names()
        mark = _SnapshotMark(snapshot.index, snapshot.term, snapshot.config)
        state = SaveHardState(self._hard_state.term, self._hard_state.voted_for)
        tail = [TruncateFrom(snapshot.index + 1), SaveEntries(tuple(self._entries))]
        self._begin_segment(self._segment + 1, _encode([state, mark, *tail]))
        self._remove_older(name)

    def _begin_segment(self, number: int, body: bytes) -> None:
        """Begins a segment, with a checkpoint if there is one in `body`."""
        if self._room > self._size:  # in a segment that is not the last, zeros are what the disk has lost
            self.disk.truncate(_segment_name(self._segment), self._size)
            self.disk.sync(_segment_name(self._segment))
        name = _segment_name(number)
        data = _CHECKPOINT_MAGIC + frame(body) if body else _SEGMENT_MAGIC
        self.disk.append(name, data)
        self.disk.sync(name)
        self.disk.sync_names()
        self._segment, self._size, self._room = number, len(data), 0

    def _remove_older(self, snapshot_name: str) -> None:
        """Removes what the newest checkpoint makes needless, oldest first, so that no gap can arise."""
        for name in sorted(self.disk.names()):
            old_segment = _is_segment(name) and name < _segment_name(self._segment)
            old_snapshot = _SNAPSHOT_NAME.fullmatch(name) is not None and name != snapshot_name
            if old_segment or old_snapshot:
                self.disk.remove(name)
        self.disk.sync_names()


def _intact_frame_after(data: bytes, at: int) -> int | None:
    """Where an intact frame begins behind a broken one, if there is any; nowhere among zeros."""
    places = range(at + 1, min(len(data) - HEADER_BYTES, len(data.rstrip(b"\0"))))
    return next((place for place in places if unframe(data, place) is not None), None)


def _segment_name(number: int) -> str:
    return f"wal-{number:016x}"


def _is_segment(name: str) -> bool:
    return _SEGMENT_NAME.fullmatch(name) is not None


def _snapshot_name(index: int, term: int) -> str:
    return f"snapshot-{index:016x}-{term:016x}"
