"""Who does the disk's work: a worker, or the loop where a disk is quick and little waits."""

import asyncio

import pytest

from raft import file_storage
from raft.core import Config, Entry, EntryKind, SaveEntries, SaveHardState, SaveSnapshot, Snapshot
from raft.file_storage import DiskThread, FileStorage

ONE = [SaveHardState(1, "a"), SaveEntries((Entry(1, 1, EntryKind.NOOP),))]
MANY = [SaveEntries(tuple(Entry(index, 1, EntryKind.NOOP) for index in range(1, 9)))]
SNAPSHOT = [SaveSnapshot(Snapshot(1, 1, Config(("a",)), b""))]


class Log:
    """A write-ahead log that only takes time."""

    def __init__(self):
        self.took_s = 0.0
        self.committed = []
        self.error = None

    def commit(self, batch):
        Clock.now += self.took_s
        if self.error:
            raise self.error
        self.committed.append(batch)


class Worker:
    def __init__(self):
        self.jobs = 0

    def submit(self, job, then):
        self.jobs += 1
        job()
        then(None)

    def close(self):
        pass


class Clock:
    now = 0.0

    @classmethod
    def monotonic(cls):
        return cls.now


@pytest.fixture
def storage(monkeypatch):
    monkeypatch.setattr(file_storage, "time", Clock)
    failures = []
    made = FileStorage(Log(), failures.append, Worker(), at_once=False, quick=True)
    made.failures = failures
    return made


def synced(storage, batch, times=1):
    """How many of the syncs a worker did."""

    async def run():
        before = storage._worker.jobs
        for _ in range(times):
            done = asyncio.Event()
            storage.write(batch)
            storage.sync(done.set)
            await asyncio.wait_for(done.wait(), 10)
        return storage._worker.jobs - before

    return asyncio.run(run())


def test_a_disk_is_quick_once_it_was_so_for_a_while(storage):
    storage.wal.took_s = 0.0002
    assert 5 < synced(storage, ONE, 100) < 50
    assert synced(storage, ONE, 100) == 0
    assert storage.wal.committed == [ONE] * 200


def test_what_many_wait_for_and_snapshots_are_a_workers(storage):
    synced(storage, ONE, 100)
    assert synced(storage, MANY) == synced(storage, SNAPSHOT) == 1


def test_a_disk_that_has_become_slow_is_a_workers_again(storage):
    synced(storage, ONE, 100)
    storage.wal.took_s = 0.3
    assert synced(storage, ONE, 100) > 70


def test_a_slow_sync_now_and_then_changes_nothing(storage):
    storage.wal.took_s = 0.0002
    synced(storage, ONE, 100)
    for _ in range(20):
        storage.wal.took_s = 0.05
        synced(storage, ONE)
        storage.wal.took_s = 0.0002
        assert synced(storage, ONE, 9) == 0


def test_where_a_worker_is_brought_along_it_does_everything(storage):
    storage._quick = False
    assert synced(storage, ONE, 100) == 100


@pytest.mark.parametrize("quick", [False, True])
def test_what_fails_is_told_and_nothing_is_durable(quick):
    async def run():
        failed, done = asyncio.get_running_loop().create_future(), []
        log = Log()
        storage = FileStorage(log, failed.set_result, DiskThread(), at_once=False, quick=quick)
        storage._usual_s = 0.0
        log.error = OSError("no space")
        storage.write(ONE)
        storage.sync(lambda: done.append(1))
        assert await failed is log.error
        storage.close()
        assert not done

    asyncio.run(asyncio.wait_for(run(), 10))
