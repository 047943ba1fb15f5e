"""The write-ahead log: what survives which damage, and what is refused."""

import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.core import (
    Config,
    Entry,
    EntryKind,
    HardState,
    Saved,
    SaveEntries,
    SaveHardState,
    SaveSnapshot,
    Snapshot,
    TruncateFrom,
    replay,
)
from raft.disk import DirectoryInUse, FileDisk
from raft.wal import CorruptLog, Wal

CONFIG = Config(("a", "b", "c"))


class MemoryDisk:
    """A directory that can be cut off at any write, and knows what a crash may leave of it."""

    def __init__(self, files=None):
        self.files = dict(files or {})
        self.steps = 0
        self.stop_at = None

    def _step(self):
        self.steps += 1
        if self.stop_at is not None and self.steps > self.stop_at:
            raise KeyboardInterrupt

    def names(self):
        return sorted(self.files)

    def read(self, name):
        return self.files[name]

    def append(self, name, data):
        self._step()
        if self.stop_at is not None and self.steps == self.stop_at:
            data = data[: len(data) // 2]  # torn
        self.files[name] = self.files.get(name, b"") + data

    def reserve(self, name, size):
        return False

    def sync(self, name):
        self._step()

    def sync_names(self):
        self._step()

    def rename(self, old, new):
        self._step()
        self.files[new] = self.files.pop(old)

    def truncate(self, name, size):
        self._step()
        self.files[name] = self.files[name][:size]

    def remove(self, name):
        self._step()
        del self.files[name]


class RoomyDisk(MemoryDisk):
    """One that makes room ahead."""

    def __init__(self, files=None):
        super().__init__(files)
        self.ends = {}

    def append(self, name, data):
        room = self.files.get(name, b"")
        self.files[name] = room[: self.ends.get(name, len(room))]
        try:
            super().append(name, data)
        finally:
            end = self.ends[name] = len(self.files[name])
            self.files[name] += room[end:]

    def reserve(self, name, size):
        self._step()
        self.ends.setdefault(name, len(self.files[name]))
        self.files[name] = self.files[name].ljust(size, b"\0")
        return True

    def truncate(self, name, size):
        super().truncate(name, size)
        self.ends[name] = size


def entries(first, last, term=1):
    return SaveEntries(tuple(Entry(i, term, EntryKind.COMMAND, b"%d" % i) for i in range(first, last + 1)))


HISTORY = [
    [SaveHardState(1, "a"), entries(1, 3)],
    [entries(4, 5)],
    [SaveHardState(2, None), TruncateFrom(4), entries(4, 4, term=2)],
    [SaveSnapshot(Snapshot(3, 1, CONFIG, b"state"))],
    [entries(5, 8, term=2)],
    [SaveSnapshot(Snapshot(9, 3, CONFIG, b"from the leader")), SaveHardState(3, None)],
    [entries(10, 12, term=3)],
]


def opened(disk, **options):
    wal = Wal(disk, room_bytes=200, **options)
    return wal, wal.load()


def states():
    """What is durable after each batch."""
    return [replay([r for batch in HISTORY[:count] for r in batch]) for count in range(len(HISTORY) + 1)]


def test_an_empty_disk_is_a_new_node():
    disk = MemoryDisk()
    assert opened(disk)[1] is None
    assert opened(disk)[1] == Saved()


DISKS = pytest.mark.parametrize("disk_class", [MemoryDisk, RoomyDisk])


@DISKS
@pytest.mark.parametrize("segment_bytes", [1, 60, 1 << 20])
def test_what_was_committed_comes_back(segment_bytes, disk_class):
    disk = disk_class()
    wal, _ = opened(disk, segment_bytes=segment_bytes)
    for batch, expected in zip(HISTORY, states()[1:], strict=True):
        wal.commit(batch)
        assert opened(disk_class(disk.files))[1] == expected


def test_a_reopened_log_goes_on():
    disk = MemoryDisk()
    opened(disk)
    for batch in HISTORY:
        wal, _ = opened(disk)
        wal.commit(batch)
    assert opened(disk)[1] == states()[-1]


def test_a_snapshot_removes_what_is_older():
    disk = MemoryDisk()
    wal, _ = opened(disk, segment_bytes=1)
    for batch in HISTORY:
        wal.commit(batch)
    names = disk.names()
    assert [name for name in names if name.startswith("snapshot-")] == [f"snapshot-{9:016x}-{3:016x}"]
    assert len([name for name in names if name.startswith("wal-")]) == 2


@DISKS
@pytest.mark.parametrize("segment_bytes", [1, 1 << 20])
def test_a_crash_at_any_step_leaves_the_state_before_or_after(segment_bytes, disk_class):
    """Every write torn in the middle, every rename and removal stopped before it: nothing is lost."""
    whole = disk_class()
    wal, _ = opened(whole, segment_bytes=segment_bytes)
    for batch in HISTORY:
        wal.commit(batch)
    for stop_at in range(3, whole.steps + 1):
        disk, done = disk_class(), 0
        disk.stop_at = stop_at
        wal, _ = opened(disk, segment_bytes=segment_bytes)
        with suppress(KeyboardInterrupt):
            for batch in HISTORY:
                wal.commit(batch)
                done += 1
        after = disk_class(disk.files)
        wal, saved = opened(after, segment_bytes=segment_bytes)
        assert saved in states()[done : done + 2]
        wal.commit([SaveHardState(9, "z")])  # and the log can be written on
        assert opened(after)[1].hard_state == HardState(9, "z")


def test_only_the_last_segment_has_room():
    """Zeros in another one are what the disk has lost."""
    disk = RoomyDisk()
    wal, _ = opened(disk, segment_bytes=60)
    for batch in HISTORY[:3]:
        wal.commit(batch)
        assert all(not disk.files[name].endswith(bytes(100)) for name in disk.names()[:-1])
        assert disk.files[disk.names()[-1]].endswith(bytes(100)) == (wal._size > 11)
    assert len(disk.names()) == 2


def written(**options):
    disk = MemoryDisk()
    wal, _ = opened(disk, **options)
    for batch in HISTORY[:3]:
        wal.commit(batch)
    return disk


@given(st.data())
@settings(max_examples=200)
def test_a_tail_cut_anywhere_is_a_state_that_once_was(data):
    disk = written()
    name = disk.names()[-1]
    cut = data.draw(st.integers(0, len(disk.files[name])))
    disk.files[name] = disk.files[name][:cut]
    assert opened(disk)[1] in states()


@given(st.data())
@settings(max_examples=200)
def test_a_flipped_bit_never_goes_unnoticed(data):
    disk = written()
    name = disk.names()[-1]
    whole = disk.files[name]
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    disk.files[name] = bytes(damaged)
    try:
        saved = opened(disk)[1]
    except CorruptLog:
        return
    assert saved == states()[2]  # only the last frame, as if it had been torn


def test_damage_before_durable_records_is_refused():
    disk = written()
    name = disk.names()[-1]
    damaged = bytearray(disk.files[name])
    damaged[30] ^= 1
    disk.files[name] = bytes(damaged)
    with pytest.raises(CorruptLog, match=f"{name} is damaged at byte 11, in what was durable. Restore"):
        opened(disk)


def test_a_damaged_segment_that_is_not_the_last_is_refused():
    disk = written(segment_bytes=1)
    name = disk.names()[0]
    disk.files[name] = disk.files[name][:-1]
    with pytest.raises(CorruptLog, match="in what was durable"):
        opened(disk)


@pytest.mark.parametrize(
    "name", ["wal-x", f"wal-{1:016x}.bak", "wal-2", f"snapshot-{1:016x}-{1:016x}.old", "notes"]
)
def test_a_copy_beside_the_log_is_left_alone(name):
    disk = written(segment_bytes=1)
    disk.files[name] = b"something"
    wal, saved = opened(disk)
    assert saved == states()[3]
    wal.commit(HISTORY[3])  # which removes what is older
    assert disk.files[name] == b"something"


def test_a_missing_segment_is_refused():
    disk = written(segment_bytes=1)
    del disk.files[disk.names()[1]]
    with pytest.raises(CorruptLog, match="segments are missing"):
        opened(disk)


def test_a_missing_beginning_is_refused():
    disk = written(segment_bytes=1)
    del disk.files[disk.names()[0]]
    with pytest.raises(CorruptLog, match="segments are missing"):
        opened(disk)


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "empty"])
def test_a_damaged_snapshot_is_refused(damage):
    disk = written()
    opened_wal, _ = opened(disk)
    opened_wal.commit(HISTORY[3])
    name = next(name for name in disk.names() if name.startswith("snapshot-"))
    whole = disk.files.pop(name)
    if damage != "missing":
        disk.files[name] = {"flipped": whole[:-1] + b"?", "cut": whole[:-1], "empty": b""}[damage]
    with pytest.raises(CorruptLog, match=f"{name} is missing or damaged"):
        opened(disk)


def test_a_damaged_checkpoint_without_anything_before_it_is_refused():
    disk = written()
    wal, _ = opened(disk)
    wal.commit(HISTORY[3])
    name = disk.names()[-1]
    assert name.startswith("wal-")
    disk.files[name] = disk.files[name][:20]
    with pytest.raises(CorruptLog):
        opened(disk)


def test_a_damaged_checkpoint_that_records_follow_is_refused_also_where_the_log_before_it_is_still_there():
    disk = written()
    before = dict(disk.files)
    wal, _ = opened(disk)
    wal.commit(HISTORY[3])
    wal.commit(HISTORY[4])
    name = disk.names()[-1]
    damaged = bytearray(disk.files[name])
    damaged[30] ^= 1
    disk.files |= {**before, name: bytes(damaged)}  # as after a power cut before the removal was durable
    with pytest.raises(
        CorruptLog, match=f"the checkpoint of {name} is damaged, and records follow it. Restore"
    ):
        opened(disk)


def test_what_could_not_be_read_back_is_not_written(monkeypatch):
    disk = written()
    wal, saved = opened(disk)
    monkeypatch.setattr("raft.framing.FRAME_BYTES_MAX", 50)
    with pytest.raises(OSError, match="bytes are too many for a file of the log"):
        wal.commit([SaveSnapshot(Snapshot(3, 1, CONFIG, b"x" * 51))])
    monkeypatch.undo()
    assert opened(disk)[1] == saved


def test_snapshots_without_a_log_are_no_new_node():
    disk = written()
    opened(disk)[0].commit(HISTORY[3])
    disk.files = {name: data for name, data in disk.files.items() if name.startswith("snapshot-")}
    with pytest.raises(CorruptLog, match=r"there are snapshots and no log\. Restore"):
        opened(disk)


# -- real files ---------------------------------------------------------------------------------------------


def test_on_real_files(tmp_path):
    for count, batch in enumerate(HISTORY):
        disk = FileDisk(tmp_path / "n1")
        wal, saved = opened(disk, segment_bytes=40)
        assert (saved or Saved()) == states()[count]
        wal.commit(batch)
        disk.close()
    disk = FileDisk(tmp_path / "n1")
    assert opened(disk)[1] == states()[-1]
    torn = next(name for name in reversed(disk.names()) if name.startswith("wal-"))
    with (tmp_path / "n1" / torn).open("ab") as file:
        file.write(b"\x07\x00\x00\x00half")
    assert opened(disk)[1] == states()[-1]
    disk.close()


def test_a_sync_need_not_write_down_how_long_a_file_is(tmp_path):
    disk = FileDisk(tmp_path)
    wal, _ = opened(disk)
    wal.commit(HISTORY[0])
    name = disk.names()[0]
    sizes = {(tmp_path / name).stat().st_size}
    for batch in HISTORY[1:3]:
        wal.commit(batch)
        sizes.add((tmp_path / name).stat().st_size)
    assert len(sizes) == 1
    disk.close()
    disk = FileDisk(tmp_path)
    assert opened(disk)[1] == states()[3]
    assert (tmp_path / name).stat().st_size == len(disk.read(name).rstrip(b"\0"))
    disk.close()


def test_what_a_killed_process_left_in_the_cache_is_synced_before_it_is_believed(tmp_path, monkeypatch):
    disk = FileDisk(tmp_path / "n1", unsafe_no_sync=True)  # as if it was killed before any sync
    wal = Wal(disk, room_bytes=0, segment_bytes=60)
    wal.load()
    for batch in HISTORY[:3]:
        wal.commit(batch)
    disk.close()
    durable = set()

    def note(handle):
        durable.add(str(Path(f"/proc/self/fd/{handle}").readlink()))

    monkeypatch.setattr(os, "fdatasync", note)
    monkeypatch.setattr(os, "fsync", note)
    disk = FileDisk(tmp_path / "n1")
    monkeypatch.setattr(os, "ftruncate", None)  # nothing was torn
    assert Wal(disk).load() == states()[3]
    assert durable == {str(tmp_path / "n1"), *(str(tmp_path / "n1" / name) for name in disk.names())}
    disk.close()


def test_a_directory_serves_one_process(tmp_path):
    disk = FileDisk(tmp_path)
    with pytest.raises(DirectoryInUse, match="in use by another process"):
        FileDisk(tmp_path)
    disk.close()
    FileDisk(tmp_path).close()


@pytest.mark.parametrize(("free", "made"), [(10_000_000, True), (100_000, False)])
def test_no_room_is_made_on_a_disk_that_is_nearly_full(tmp_path, monkeypatch, free, made):
    monkeypatch.setattr(
        "raft.disk.os.fstatvfs", lambda _: SimpleNamespace(f_bavail=free // 1000, f_frsize=1000)
    )
    disk = FileDisk(tmp_path)
    disk.append("log", b"abc")
    assert disk.reserve("log", 4096) is made
    assert (tmp_path / "log").stat().st_size == (4096 if made else 3)
    disk.close()
