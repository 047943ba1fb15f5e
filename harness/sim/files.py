r"""The files of one simulated machine: a page cache over a disk that crashes, tears, lies, rots and fills up.

Theory of operation
    What a process reads is the view: it sees every write at once. What survives is built beside it. Each operation
    goes into a journal with the time at which it is done; `_settle` takes from the journal what is done by now. A
    write then waits with the others of its file until a sync of that file makes them durable; names (creations,
    renames, removals) wait until `sync_names`.

    At a crash
        - an operation that was not done yet has never happened;
        - of the writes that wait, each is kept or lost by itself, and one that is kept may be torn: some of its
          sectors are old. A hole reads as zeros;
        - of the names that wait, a prefix is kept, as with the journal of a file system;
        - the view becomes what is left.

    What is wrong with the disk is desired state (`nemesis.target.DiskRule`). A misdirected write is stored wrong and
    stays right in the page cache: a process meets it when it reads after a restart.

Rules of this module
    1. A call returns at once although a sync takes virtual time: the disk does one thing after the other, and is done
       with all it was asked at `end_us`. Who called from an executor is answered then, who called from a coroutine
       stands still until then (`blocks`).
    2. Chance comes from the disk's own dice.

>>> from harness.seeds import Streams
>>> class Clock:
...     now_us = 0
>>> files = SimFiles(Clock, Streams(1).dice("disk/n1", Clock))
>>> files.append("log", b"synced ")
>>> files.sync("log"); files.sync_names()
>>> Clock.now_us = 10_000
>>> files.append("log", b"not synced")
>>> files.crash()
>>> files.read("log")[:7]
b'synced '
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from harness.seeds import HasRandom, HasTime, below, skewed
from harness.sim.trouble import NothingToDamage, eio, enospc, matches
from nemesis.target import HEALTHY_DISK, CrashPoint, Damage, DiskRule

SECTOR_BYTES = 512
SYNC_MIN_US, SYNC_MEAN_US = 100, 400
TORN = 0.3  # of the unsynced writes that a crash keeps, so many are torn


class _Write(NamedTuple):
    """Bytes at a place, of one inode."""

    inode: int
    at: int
    data: bytes


class _Cut(NamedTuple):
    """Everything from a place on is gone."""

    inode: int
    size: int


class _Sync(NamedTuple):
    inode: int


class _Name(NamedTuple):
    """A name now means this inode, or nothing."""

    name: str
    inode: int | None
    instead_of: str | None = None  # the name it had before, of a rename


class _SyncNames(NamedTuple):
    pass


_Step = _Write | _Cut | _Sync | _Name | _SyncNames


class SimFiles:
    """One flat directory of files; has what `raft.wal.Disk` asks for, and what faults need.

    Attributes:
        blocks: called when a call takes time, unless it is made `in_call`.
        in_call: an executor is calling, and waits by itself.
        took_time: something has taken time since this was last made False.
        reached: is told of crash points.
        bytes_written, syncs: since the start.
        troubles: how often which field of the rule has struck.
    """

    def __init__(self, clock: HasTime, rng: HasRandom) -> None:
        self._clock = clock
        self._rng = rng
        self.blocks: Callable[[], None] = _nobody
        self.reached: Callable[[CrashPoint], None] = lambda _point: None
        self.in_call = False
        self.took_time = False
        self.bytes_written = 0
        self.syncs = 0
        self.troubles: dict[str, int] = {}
        self._end_us = 0
        self._stuck_us: int | None = None  # how long what stands still will take, once it goes on
        self._waiters: list[Callable[[], None]] = []
        self._rule = HEALTHY_DISK
        self._inodes = itertools.count(1)
        self._names: dict[str, int] = {}  # the view
        self._view: dict[int, bytearray] = {}
        self._durable_names: dict[str, int] = {}
        self._durable: dict[int, bytearray] = {}
        self._journal: deque[tuple[int, _Step]] = deque()
        self._stalled: list[tuple[int, _Step]] = []
        self._waiting: dict[int, list[_Write | _Cut]] = {}
        self._waiting_names: list[_Name] = []

    # -- time -------------------------------------------------------------------------------------------------

    @property
    def end_us(self) -> int | None:
        """When the disk is done with all it was asked; None if that is not known, because it is stalled."""
        return None if self._stuck_us is not None else max(self._end_us, self._clock.now_us)

    def when_unstalled(self, callback: Callable[[], None]) -> None:
        """Call back when `end_us` is known again, unless the process dies first."""
        self._waiters.append(callback)

    def _take(self, us: int) -> None:
        if self._rule.stalled:
            self._trouble("stalled")
        if self._stuck_us is not None:
            self._stuck_us += us
        elif self._rule.stalled:
            self._stuck_us = us
        else:
            self._end_us = max(self._end_us, self._clock.now_us) + us
        self.took_time = True
        if not self.in_call:
            self.blocks()

    def _note(self, step: _Step) -> None:
        if self._stuck_us is not None:
            self._stalled.append((self._stuck_us, step))
        else:
            self._journal.append((max(self._end_us, self._clock.now_us), step))

    # -- what a process calls ---------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All files, sorted."""
        return sorted(self._names)

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        return bytes(self._view[self._inode(name)])

    def append(self, name: str, data: bytes) -> None:
        """Write at the end of a file, which need not exist.

        Raises:
            DiskError: the disk is full; a part may have been written.
        """
        self.write(name, len(self._view[self._names[name]]) if name in self._names else 0, data)

    def write(self, name: str, at: int, data: bytes) -> None:
        """Write at a place in a file, which need not exist.

        Raises:
            DiskError: the disk is full; a part may have been written.
        """
        self._settle()
        room = self._room(len(data))
        inode = self._names.get(name)
        if inode is None:
            inode = self._names[name] = next(self._inodes)
            self._view[inode] = bytearray()
            self._note(_Name(name, inode))
        stored = bytes(data[:room])
        view = self._view[inode]
        _put(view, at, stored)
        if stored:
            self._note(self._placed(_Write(inode, at, stored)))
            self.bytes_written += len(stored)
        if room < len(data):
            raise enospc()
        self.reached("before-sync")

    def reserve(self, name: str, size: int) -> bool:
        """No room is made: here a sync takes as long with it as without."""
        del name, size
        return False

    def sync(self, name: str) -> None:
        """Make the contents of a file durable.

        Raises:
            DiskError: EIO; nothing is known to be durable.
        """
        inode = self._inode(name)
        self._flush()
        if not self._lies():
            self._note(_Sync(inode))
        self.reached("after-sync")

    def sync_names(self) -> None:
        """Make durable which files there are.

        Raises:
            DiskError: EIO.
        """
        self._flush()
        if not self._lies():
            self._note(_SyncNames())

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what had it."""
        inode = self._inode(old)
        self.reached("snapshot")
        del self._names[old]
        self._names[new] = inode
        self._note(_Name(new, inode, instead_of=old))

    def truncate(self, name: str, size: int) -> None:
        """Cut a file off."""
        inode = self._inode(name)
        del self._view[inode][size:]
        self._note(_Cut(inode, size))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._inode(name)
        del self._names[name]
        self._note(_Name(name, None))

    def close(self) -> None:
        """Nothing is kept open."""

    def _inode(self, name: str) -> int:
        inode = self._names.get(name)
        if inode is None:
            raise FileNotFoundError(2, "No such file or directory", name)
        return inode

    # -- trouble ----------------------------------------------------------------------------------------------

    def set_rule(self, rule: DiskRule) -> None:
        """Make the disk exactly this; what stood still goes on when it is no longer stalled."""
        self._rule = rule
        if not rule.stalled and self._stuck_us is not None:
            now_us = self._clock.now_us
            self._journal.extend((now_us + later_us, step) for later_us, step in self._stalled)
            self._stalled.clear()
            self._end_us, self._stuck_us = now_us + self._stuck_us, None
            waiters, self._waiters = self._waiters, []
            for callback in waiters:
                callback()

    def wipe(self) -> None:
        """Forget everything, while no process runs."""
        self.crash()
        self._names, self._view, self._durable_names, self._durable = {}, {}, {}, {}

    def _flush(self) -> None:
        self._settle()
        rule = self._rule
        self.syncs += 1
        if rule.sync_delay_ms:
            self._trouble("sync_delay_ms")
        self._take(SYNC_MIN_US + int(skewed(self._rng, SYNC_MEAN_US)) + int(rule.sync_delay_ms * 1000))
        if rule.sync_error and self._rng.random() < rule.sync_error:
            self._trouble("sync_error")
            raise eio("sync")

    def _lies(self) -> bool:
        lies = self._rule.lying_sync > 0 and self._rng.random() < self._rule.lying_sync
        if lies:
            self._trouble("lying_sync")
        return lies

    def _room(self, size: int) -> int:
        """How many of so many bytes fit."""
        error = self._rule.write_error
        if error and size and self._rng.random() < error:
            self._trouble("write_error")
            return below(self._rng, size)
        return size

    def _placed(self, write: _Write) -> _Write:
        """Where the write really goes."""
        astray = self._rule.misdirect
        if not astray or self._rng.random() >= astray:
            return write
        self._trouble("misdirect")
        return write._replace(at=below(self._rng, write.at // SECTOR_BYTES + 1) * SECTOR_BYTES)

    def _trouble(self, what: str) -> None:
        self.troubles[what] = self.troubles.get(what, 0) + 1

    def damage(self, damage: Damage) -> str:
        """Damage what is durable, once, while no process runs; says what.

        Raises:
            NothingToDamage: there are no bytes in any file that is meant.
        """
        self._settle()
        found = {
            name: self._durable[inode]
            for name, inode in sorted(self._durable_names.items())
            if matches(damage, name) and self._durable.get(inode)
        }
        if not found:
            raise NothingToDamage(
                f"no file {damage.path!r} with anything in it" if damage.path else "the disk is empty"
            )
        if damage.kind == "truncate":
            name, data = max(found.items(), key=lambda item: item[0])
            cut = min(damage.amount, len(data))
            del data[len(data) - cut :]
            done = f"{cut} bytes cut from the end of {name}"
        else:
            done = ", ".join(self._flip(found, place) for place in damage.places[: damage.amount])
        # Nobody has the files open: what is read next comes from the disk.
        self._view |= {
            inode: bytearray(self._durable[inode]) for inode in self._names.values() if inode in self._durable
        }
        return done

    @staticmethod
    def _flip(found: Mapping[str, bytearray], place: float) -> str:
        at = int(place * 8 * sum(map(len, found.values())))
        for name, data in found.items():
            if at < 8 * len(data):
                data[at // 8] ^= 1 << at % 8
                return f"bit {at % 8} of byte {at // 8} of {name} flipped"
            at -= 8 * len(data)
        raise AssertionError("a place below 1 lies in a file")

    # -- what survives ----------------------------------------------------------------------------------------

    def _settle(self, at_us: int | None = None) -> None:
        """Take from the journal what is done by now, or by then."""
        journal, now_us = self._journal, self._clock.now_us if at_us is None else at_us
        while journal and journal[0][0] <= now_us:
            self._done(journal.popleft()[1])

    def _done(self, step: _Step) -> None:
        match step:
            case _Write() | _Cut():
                self._waiting.setdefault(step.inode, []).append(step)
            case _Sync():
                for change in self._waiting.pop(step.inode, ()):
                    self._store(change)
            case _Name():
                self._waiting_names.append(step)
            case _SyncNames():
                self._store_names(len(self._waiting_names))

    def _store(self, change: _Write | _Cut) -> None:
        data = self._durable.setdefault(change.inode, bytearray())
        if isinstance(change, _Cut):
            del data[change.size :]
        else:
            _put(data, change.at, change.data)

    def _store_names(self, count: int) -> None:
        for step in self._waiting_names[:count]:
            if step.instead_of is not None:
                self._durable_names.pop(step.instead_of, None)
            if step.inode is None:
                self._durable_names.pop(step.name, None)
            else:
                self._durable_names[step.name] = step.inode
        del self._waiting_names[:count]
        kept = {*self._durable_names.values(), *self._names.values()}
        for inode in [inode for inode in self._durable if inode not in kept]:
            del self._durable[inode]

    def crash(self, at_us: int | None = None) -> None:
        """The machine has lost its power, now or then: what was not durable is lost, kept or torn."""
        self._settle(at_us)
        self._journal.clear()
        self._stalled.clear()
        for changes in self._waiting.values():
            self._lose(changes)
        self._waiting.clear()
        self._store_names(below(self._rng, len(self._waiting_names) + 1))
        self._waiting_names.clear()
        self._names = dict(self._durable_names)
        self._view = {
            inode: bytearray(self._durable.setdefault(inode, bytearray())) for inode in self._names.values()
        }
        self._durable = {inode: self._durable[inode] for inode in self._view}
        self._end_us, self._stuck_us = 0, None
        self._waiters.clear()

    def _lose(self, changes: Sequence[_Write | _Cut]) -> None:
        """A crash decides about the writes of one file that were not synced."""
        rng, rule = self._rng, self._rule
        if rule.lose_unsynced:
            first = changes[0]
            if isinstance(first, _Write) and rule.torn_write and rng.random() < rule.torn_write:
                self._store(first._replace(data=first.data[: below(rng, len(first.data))]))
            return
        torn = max(TORN, rule.torn_write)
        for change in changes:
            if rng.random() < 0.5:
                continue
            if isinstance(change, _Write) and rng.random() < torn:
                self._store_sectors(change)
            else:
                self._store(change)

    def _store_sectors(self, write: _Write) -> None:
        """Of a torn write, each sector is new or old."""
        begin, end = write.at, write.at + len(write.data)
        while begin < end:
            border = min(end, (begin // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if self._rng.random() < 0.5:
                self._store(_Write(write.inode, begin, write.data[begin - write.at : border - write.at]))
            begin = border


def _nobody() -> None:
    """Nobody waits."""


def _put(data: bytearray, at: int, piece: bytes) -> None:
    if at > len(data):
        data.extend(bytes(at - len(data)))
    data[at : at + len(piece)] = piece
