"""A simulated disk that holds one append-only log of records.

Theory of operation
    `write` puts records into the page cache; `sync` makes all that was written before it durable after a while and
    then calls back. Syncs finish in order. When the process is killed with `crash`, the unsynced suffix is cut at a
    place drawn from the disk's stream: none, some or all of it may have reached the platter, as a real disk may
    have written back what nobody asked it to.

    What is wrong with a disk is desired state (`nemesis.target.DiskRule`). A write or sync that fails raises
    `DiskError` in the process: a program that does not handle it dies, as it should. A record that was overwritten by
    a misdirected write, or has rotted, is `Damaged` for whoever reads the log after a restart; who finds one must not
    go on as if it had never been there. (Bytes, and checksums over them, are what `files` has.)

Records are opaque values. The log is bounded by what the run writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from harness.seeds import Dice, below
from harness.sim.loop import SimLoop
from harness.sim.trouble import DiskError, NothingToDamage, enospc
from nemesis.target import HEALTHY_DISK, Damage, DiskRule

__all__ = ["Damaged", "DiskError", "DiskParams", "SimDisk"]

BYTES_PER_RECORD = 64  # what a `truncate` of so many bytes takes for each record


class DiskParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast a disk is: a sync takes `sync_min_us` plus a skewed delay of mean `sync_mean_us`."""

    sync_min_us: int = 100
    sync_mean_us: int = 400


class Damaged(msgspec.Struct, frozen=True):
    """What is read where a record was."""

    record: Any


class SimDisk:
    """The log of one node; survives its processes.

    Attributes:
        troubles: how often which field of the rule has struck.
        is_damaged: whether there may be damaged records.
        folded: what whoever reads the log has made of its first so many records, for the next time; forgotten when
            one of them changes.
    """

    def __init__(self, loop: SimLoop, rng: Dice, params: DiskParams) -> None:
        self._loop = loop
        self._rng = rng
        self._params = params
        self._records: list[Any] = []
        self.is_damaged = False
        self.folded: tuple[int, Any] | None = None
        self._durable_count = 0
        self._epoch = 0  # raised by a crash, so that a sync of a dead process never calls back
        self._last_sync_us = 0
        self._rule = HEALTHY_DISK
        self._stalled: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []
        self.troubles: dict[str, int] = {}

    def set_rule(self, rule: DiskRule) -> None:
        """Make the disk exactly this; what stood still goes on when it is no longer stalled."""
        self._rule = rule
        if self._stalled and not rule.stalled:
            stalled, self._stalled = self._stalled, []
            for delay_us, callback, args in stalled:
                self._last_sync_us = max(self._last_sync_us, self._loop.now_us + delay_us)
                self._loop.post(self._last_sync_us - self._loop.now_us, callback, *args)

    def read(self) -> Sequence[Any]:
        """Everything in the log; right after a start, that is what survived."""
        return self._records

    def write(self, records: Sequence[Any]) -> None:
        """Append records; they are not durable yet.

        Raises:
            DiskError: the disk is full; nothing was written.
        """
        rule = self._rule
        if rule is not HEALTHY_DISK:
            if rule.write_error and self._rng.random() < rule.write_error:
                self._trouble("write_error")
                raise enospc()
            if rule.misdirect and self._rng.random() < rule.misdirect:
                self._misdirect(records)
                return
        self._records.extend(records)

    def _misdirect(self, records: Sequence[Any]) -> None:
        """The records land on older ones: neither is what it should be."""
        self._trouble("misdirect")
        self.is_damaged = True
        self.folded = None
        if self._records:
            at = below(self._rng, len(self._records))
            self._records[at] = _damaged(self._records[at])
        self._records.extend(map(_damaged, records))

    def sync(self, done: Callable[[], None], failed: Callable[[], None]) -> None:
        """Make all that was written so far durable, then call `done`; or call `failed`, and nothing is durable."""
        rule = self._rule
        delay_us = self._params.sync_min_us + int(self._rng.skewed(self._params.sync_mean_us))
        if rule is not HEALTHY_DISK:
            if rule.sync_delay_ms:
                self._trouble("sync_delay_ms")
                delay_us += int(rule.sync_delay_ms * 1000)
            if rule.sync_error and self._rng.random() < rule.sync_error:
                self._trouble("sync_error")
                self._loop.post(delay_us, failed)
                return
        count = len(self._records)
        if rule.lying_sync and self._rng.random() < rule.lying_sync:
            self._trouble("lying_sync")
            count = 0
        if rule.stalled:
            self._trouble("stalled")
            self._stalled.append((delay_us, self._synced, (self._epoch, count, done)))
            return
        # A disk finishes its flushes in order.
        at_us = max(self._loop.now_us + delay_us, self._last_sync_us)
        self._last_sync_us = at_us
        self._loop.post(at_us - self._loop.now_us, self._synced, self._epoch, count, done)

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
            kept = 0
            if not self._rule.lose_unsynced and self._rng.random() < 0.5:
                kept = int(self._rng.random() * (unsynced + 1))
            del self._records[self._durable_count + kept :]
        self._durable_count = len(self._records)

    def damage(self, damage: Damage) -> str:
        """Damage what is durable, once, while no process runs; says what.

        Raises:
            NothingToDamage: the log is empty.
        """
        records = self._records
        if not records:
            raise NothingToDamage("the disk is empty")
        self.folded = None
        if damage.kind == "truncate":
            count = min(len(records), max(1, damage.amount // BYTES_PER_RECORD))
            del records[len(records) - count :]
            self._durable_count = len(records)
            return f"the last {count} records cut off"
        hit = sorted({int(place * len(records)) for place in damage.places[: damage.amount]})
        self.is_damaged = True
        for at in hit:
            records[at] = _damaged(records[at])
        return f"records {', '.join(map(str, hit))} of {len(records)} damaged"

    def cut(self, count: int) -> None:
        """Keep the first so many records, durably: how a system repairs a torn tail."""
        self.folded = None
        del self._records[count:]
        self._durable_count = min(self._durable_count, count)

    def _trouble(self, what: str) -> None:
        self.troubles[what] = self.troubles.get(what, 0) + 1


def intact_prefix(records: Sequence[Any]) -> tuple[Sequence[Any], bool]:
    """The records before the first damaged one, and whether the rest is but a torn tail: nothing intact follows."""
    whole = list(itertools.takewhile(lambda record: not isinstance(record, Damaged), records))
    return whole, all(isinstance(record, Damaged) for record in records[len(whole) :])


def _damaged(record: Any) -> Damaged:
    return record if isinstance(record, Damaged) else Damaged(record)
