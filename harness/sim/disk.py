"""A simulated disk that holds one append-only log of records.

Theory of operation
    `write` puts records into the page cache; `sync` makes all that was written before it durable after a while and
    then calls back. Syncs finish in order. When the process is killed with `crash`, the unsynced suffix is cut at a
    place drawn from the disk's stream: none, some or all of it may have reached the platter, as a real disk may
    have written back what nobody asked it to.

    What is wrong with a disk is desired state (`nemesis.target.DiskRule`). A write or sync that fails raises
    `DiskError` in the process: a program that does not handle it dies, as it should.

Records are opaque values. The log is bounded by what the run writes; `replace` lets a system that compacts its log
swap everything for a shorter equivalent.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from harness.seeds import HasRandom, skewed
from harness.sim.loop import SimLoop
from nemesis.target import HEALTHY_DISK, DiskRule


class DiskParams(msgspec.Struct, frozen=True):
    """How fast a disk is: a sync takes `sync_min_us` plus a skewed delay of mean `sync_mean_us`."""

    sync_min_us: int = 100
    sync_mean_us: int = 400


class DiskError(OSError):
    """An injected failure of a disk: EIO or ENOSPC."""


class SimDisk:
    """The log of one node; survives its processes."""

    def __init__(self, loop: SimLoop, rng: HasRandom, params: DiskParams) -> None:
        self._loop = loop
        self._rng = rng
        self._params = params
        self._records: list[Any] = []
        self._durable_count = 0
        self._epoch = 0  # raised by a crash, so that a sync of a dead process never calls back
        self._last_sync_us = 0
        self._rule = HEALTHY_DISK

    def set_rule(self, rule: DiskRule) -> None:
        """Make the disk exactly this."""
        self._rule = rule

    def read(self) -> Sequence[Any]:
        """Everything in the log; right after a start, that is what survived."""
        return self._records

    def write(self, records: Sequence[Any]) -> None:
        """Append records; they are not durable yet.

        Raises:
            DiskError: the disk is full; nothing was written.
        """
        if self._rule.write_error and self._rng.random() < self._rule.write_error:
            raise DiskError(errno.ENOSPC, "the simulated disk is full")
        self._records.extend(records)

    def sync(self, done: Callable[[], None], failed: Callable[[], None]) -> None:
        """Make all that was written so far durable, then call `done`; or call `failed`, and nothing is durable."""
        rule = self._rule
        delay_us = self._params.sync_min_us + int(skewed(self._rng, self._params.sync_mean_us))
        delay_us += int(rule.sync_delay_ms * 1000)
        if rule.sync_error and self._rng.random() < rule.sync_error:
            self._loop.schedule(delay_us, failed)
            return
        # A disk finishes its flushes in order.
        at_us = max(self._loop.now_us + delay_us, self._last_sync_us)
        self._last_sync_us = at_us
        self._loop.schedule(at_us - self._loop.now_us, self._synced, self._epoch, len(self._records), done)

    def _synced(self, epoch: int, count: int, done: Callable[[], None]) -> None:
        if epoch == self._epoch:
            self._durable_count = max(self._durable_count, count)
            done()

    def crash(self) -> None:
        """The process is gone: cut the unsynced suffix somewhere; pending syncs never call back."""
        self._epoch += 1
        self._last_sync_us = 0
        unsynced = len(self._records) - self._durable_count
        if unsynced > 0:
            kept = int(self._rng.random() * (unsynced + 1)) if self._rng.random() < 0.5 else 0
            del self._records[self._durable_count + kept :]
        self._durable_count = len(self._records)

    def replace(self, records: Sequence[Any]) -> None:
        """Swap the whole log for an equivalent one, atomically and durably (a rename)."""
        self._records = list(records)
        self._durable_count = len(self._records)
