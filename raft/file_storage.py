"""A node's storage as a real server has it: the write-ahead log, and somebody else to write and sync it.

The loop goes on while the disk works. In production a thread does it; a simulated world brings a worker of its own.

To wake a thread and to be woken by it takes about as long as a quick disk takes to sync. So where a few entries wait,
which is where few clients do, and syncs have been quick, the loop does it itself, after what is to be sent has been
handed to the network. A disk that then takes its time holds the loop up once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from raft.core import Record, Saved, SaveEntries, SaveSnapshot
from raft.wal import Disk, Wal

_FEW_ENTRIES = 4
_QUICK_S = 0.001
_SLOWER, _QUICKER = 1.5, 0.9  # 1.5 * 0.9**4 is about 1


class OpenDisk(Disk, Protocol):
    """A directory that is held open."""

    def close(self) -> None:
        """Lets go of it."""


class Worker(Protocol):
    """Who does the disk's work, one job at a time, while the loop goes on."""

    def submit(self, job: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Does the job, then calls back in the loop with what it raised."""

    def close(self) -> None:
        """Waits for the job under way."""


class DiskThread:
    """A thread and a queue: half of what an executor and its futures cost. At most one job is in it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], None], Callable[[BaseException | None], None]] | None]
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="raft-disk", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Does the job in the thread."""
        self._jobs.put((job, then))

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            job, then = work
            _do(job, partial(self._tell, then))

    def _tell(self, then: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        self._loop.call_soon_threadsafe(then, error)

    def close(self) -> None:
        """Waits for the job under way."""
        self._jobs.put(None)
        self._thread.join()


class FileStorage:
    """The write-ahead log, written and synced by a worker, by the loop if it is `quick`, or at once and not synced."""

    def __init__(
        self,
        wal: Wal,
        failed: Callable[[BaseException], None],
        worker: Worker,
        *,
        at_once: bool,
        quick: bool = False,
    ) -> None:
        self.wal = wal
        self._at_once = at_once
        self._quick = quick
        self._usual_s = 10 * _QUICK_S  # four of five syncs take less; it is not trusted to be quick yet
        self.syncs = 0
        self.sync_seconds = 0.0
        self._failed = failed
        self._pending: list[Record] = []
        self._worker = worker

    def load(self) -> Saved | None:
        """What was durable at the last stop."""
        return self.wal.load()

    def write(self, records: Sequence[Record]) -> None:
        """Queues records for the next sync."""
        self._pending.extend(records)

    def sync(self, done: Callable[[], None]) -> None:
        """Writes and syncs what is queued; the node asks for one sync at a time."""
        batch, self._pending = self._pending, []
        if self._at_once:
            self.wal.commit(batch)
            done()
            return
        began = time.monotonic()

        def job() -> None:
            started = time.monotonic()
            self.wal.commit(batch)
            self._usual_s *= _SLOWER if time.monotonic() - started > self._usual_s else _QUICKER

        def then(error: BaseException | None) -> None:
            if error is not None:  # nothing is durable any more
                self._failed(error)
                return
            self.syncs += 1
            self.sync_seconds += time.monotonic() - began
            done()

        if self._quick and self._usual_s < _QUICK_S and _is_little(batch):
            asyncio.get_running_loop().call_soon(_do, job, then)
        else:
            self._worker.submit(job, then)

    def close(self) -> None:
        """Waits for the sync under way."""
        self._worker.close()


def _do(job: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
    """Does a job, and tells what it raised."""
    error: BaseException | None = None
    try:
        job()
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it goes to who asked
        error = raised
    then(error)


def _is_little(records: Sequence[Record]) -> bool:
    """Whether a batch is small: nobody else waits, or not for long."""
    entries = sum(len(record.entries) for record in records if isinstance(record, SaveEntries))
    return entries <= _FEW_ENTRIES and not any(isinstance(record, SaveSnapshot) for record in records)
