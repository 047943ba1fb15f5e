"""A node's storage as a real server has it: the write-ahead log, and somebody else to write and sync it.

The loop goes on while the disk works. In production a thread does it; a simulated world brings a worker of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from raft.core import Record, Saved
from raft.wal import Disk, Wal


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
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it goes to who asked
                error = raised
            self._loop.call_soon_threadsafe(then, error)

    def close(self) -> None:
        """Waits for the job under way."""
        self._jobs.put(None)
        self._thread.join()


class FileStorage:
    """The write-ahead log, written and synced by a worker, or at once where nothing is synced."""

    def __init__(
        self, wal: Wal, failed: Callable[[BaseException], None], worker: Worker, *, at_once: bool
    ) -> None:
        self.wal = wal
        self._at_once = at_once
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

        def then(error: BaseException | None) -> None:
            if error is not None:  # nothing is durable any more
                self._failed(error)
                return
            self.syncs += 1
            self.sync_seconds += time.monotonic() - began
            done()

        self._worker.submit(lambda: self.wal.commit(batch), then)

    def close(self) -> None:
        """Waits for the sync under way."""
        self._worker.close()
