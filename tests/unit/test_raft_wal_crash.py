"""The write-ahead log on a disk with a page cache: what no sync has covered may be there, in part, or not at all."""

from contextlib import suppress
from random import Random

import pytest

from raft.core import (
    Config,
    Entry,
    EntryKind,
    HardState,
    SaveEntries,
    SaveHardState,
    SaveSnapshot,
    Snapshot,
    TruncateFrom,
    replay,
)
from raft.wal import CorruptLog, Wal

SECTOR_BYTES = 16  # small, so that a frame is torn in many places
CONFIG = Config(("a", "b", "c"))


class PowerCut(BaseException):
    pass


class CachedDisk:
    """Bytes are durable after `sync`, names after `sync_names`; before that, a power cut decides by dice."""

    def __init__(self, random, files=None, *, roomy=False):
        self.random = random
        self.roomy = roomy  # it makes room ahead
        self.ends = {}
        self.durable = dict(files or {})  # what certainly survives
        self.cached = dict(self.durable)  # what a process reads
        self.synced = {}  # contents, by the name of now, of which the name need not be durable yet
        self.names_pending = []  # changes of the directory, which a journal keeps in order
        self.steps_left = None

    def _step(self):
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise PowerCut
            self.steps_left -= 1

    def names(self):
        return sorted(self.cached)

    def read(self, name):
        return self.cached[name]

    def append(self, name, data):
        if name not in self.cached:
            self.names_pending.append(("create", name, None))
            self.cached[name] = b""
        held = self.cached[name]
        end = self.ends.get(name, len(held))
        self.cached[name] = held[:end] + data + held[end + len(data) :]
        self.ends[name] = end + len(data)
        self._step()

    def reserve(self, name, size):
        if self.roomy:
            self.ends.setdefault(name, len(self.cached[name]))
            self.cached[name] = self.cached[name].ljust(size, b"\0")
            self._step()
        return self.roomy

    def sync(self, name):
        self._step()
        self.synced[name] = self.cached[name]
        if name in self.durable:
            self.durable[name] = self.cached[name]

    def sync_names(self):
        self._step()
        self._settle(len(self.names_pending))

    def rename(self, old, new):
        self.names_pending.append(("rename", old, new))
        self.cached[new] = self.cached.pop(old)
        self.ends.pop(old)
        if old in self.synced:
            self.synced[new] = self.synced.pop(old)
        self._step()

    def truncate(self, name, size):
        self.cached[name] = self.cached[name][:size]
        self.ends[name] = size
        self._step()

    def remove(self, name):
        self.names_pending.append(("remove", name, None))
        del self.cached[name]
        self._step()

    def _settle(self, count):
        """Makes the first `count` changes of the directory durable."""
        for kind, name, new in self.names_pending[:count]:
            if kind == "create":
                later = [n for k, o, n in self.names_pending if k == "rename" and o == name]
                self.durable[name] = self.synced.get(name, self.synced.get(later[0], b"") if later else b"")
            elif kind == "rename":
                self.durable[new] = self.synced.get(new, self.durable.pop(name, b""))
                self.durable.pop(name, None)
            else:
                self.durable.pop(name, None)
        del self.names_pending[:count]

    def after_power_cut(self):
        """One of the things that may be on the disk when the power is back."""
        self._settle(self.random.randint(0, len(self.names_pending)))
        return {name: self._torn(data, self.cached.get(name, data)) for name, data in self.durable.items()}

    def _torn(self, durable, cached):
        """Of what was not synced each sector is old (nothing, zeros) or new, and the file ends anywhere."""
        kept = durable.rstrip(b"\0")
        if not cached.startswith(kept) or len(cached) < len(durable):
            return self.random.choice((durable, cached))  # cut off, and that may be on the disk or not
        start, new = len(kept), max(len(durable), len(cached.rstrip(b"\0")))
        tail = bytearray(cached[start:new])
        for at in range(0, len(tail), SECTOR_BYTES):
            if self.random.random() < 0.5:
                tail[at : at + SECTOR_BYTES] = bytes(len(tail[at : at + SECTOR_BYTES]))
        data = kept + bytes(tail) + cached[new:]
        return data[: self.random.randint(len(durable), len(cached))]


def entries(first, last, term):
    return SaveEntries(
        tuple(Entry(i, term, EntryKind.COMMAND, b"command %d" % i) for i in range(first, last + 1))
    )


def random_batches(random, count):
    """What a node might write: entries, votes, conflicts, snapshots of its own and of a leader."""
    batches, last, base, term = [], 0, 0, 1
    terms = {}  # of the entries, by index
    for _ in range(count):
        what = random.random()
        if what < 0.55 or last == base:
            new = last + random.randint(1, 4)
            batches.append([SaveHardState(term, None), entries(last + 1, new, term)])
            terms.update(dict.fromkeys(range(last + 1, new + 1), term))
            last = new
        elif what < 0.7:
            term += 1
            batches.append([SaveHardState(term, "a")])
        elif what < 0.8:
            term += 1
            cut = random.randint(base + 1, last)
            batches.append([SaveHardState(term, None), TruncateFrom(cut), entries(cut, cut, term)])
            last, terms[cut] = cut, term
        elif what < 0.95:
            base = random.randint(base + 1, last)
            batches.append([SaveSnapshot(Snapshot(base, terms[base], CONFIG, b"state at %d" % base))])
        else:
            base = last = last + random.randint(1, 5)
            batches.append([SaveSnapshot(Snapshot(base, term, CONFIG, b"from the leader, at %d" % base))])
    return batches


def states(batches):
    return [replay([r for batch in batches[:count] for r in batch]) for count in range(len(batches) + 1)]


@pytest.mark.parametrize("roomy", [False, True])
@pytest.mark.parametrize("segment_bytes", [1, 120, 1 << 20])
@pytest.mark.parametrize("seed", range(40))
def test_what_was_committed_survives_and_what_was_not_is_there_as_a_whole_or_not(seed, segment_bytes, roomy):
    random = Random(seed)
    batches = random_batches(random, 12)
    expected = states(batches)
    for _ in range(12):
        disk, done = CachedDisk(random, roomy=roomy), 0
        wal = Wal(disk, segment_bytes=segment_bytes, room_bytes=80)
        wal.load()
        disk.steps_left = random.randint(0, 45)
        with suppress(PowerCut):
            for batch in batches:
                wal.commit(batch)
                done += 1
        for _ in range(
            2
        ):  # the same moment may end in many ways, and the power may go again while it is read
            after = CachedDisk(random, disk.after_power_cut(), roomy=roomy)
            with suppress(PowerCut):
                after.steps_left = random.randint(0, 3)
                Wal(after, segment_bytes=segment_bytes, room_bytes=80).load()
            again = CachedDisk(random, after.after_power_cut(), roomy=roomy)
            reopened = Wal(again, segment_bytes=segment_bytes, room_bytes=80)
            assert reopened.load() in expected[done : done + 2]
            reopened.commit([SaveHardState(99, "z")])
            last = Wal(
                CachedDisk(random, again.after_power_cut(), roomy=roomy),
                segment_bytes=segment_bytes,
                room_bytes=80,
            )
            assert last.load().hard_state == HardState(99, "z")


class ForgetsToSync(Wal):
    """A mutant: the checks above must be able to fail."""

    def commit(self, records):
        sync, self.disk.sync = self.disk.sync, lambda _name: None
        try:
            super().commit(records)
        finally:
            self.disk.sync = sync


def test_a_log_that_is_not_synced_is_caught():
    caught = 0
    for seed in range(10):
        random = Random(seed)
        batches = random_batches(random, 6)
        disk = CachedDisk(random)
        wal = ForgetsToSync(disk)
        wal.load()
        for batch in batches:
            wal.commit(batch)
        with suppress(CorruptLog):
            if Wal(CachedDisk(random, disk.after_power_cut())).load() == states(batches)[-1]:
                continue
        caught += 1
    assert caught > 5
