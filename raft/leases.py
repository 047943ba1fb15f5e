"""Leases, and what else ends by the cluster's clock.

Rules of this module
    1. Nothing ends by itself: `Deadlines.due` is asked when the clock of the log has moved, and only then.
    2. What is due at the same time ends in the order of the deadlines, and then of the names.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec


class Deadlines:
    """Names with a deadline each, in microseconds of the cluster's clock.

    >>> deadlines = Deadlines()
    >>> deadlines.set("a", 10); deadlines.set("b", 5); deadlines.set("a", 20)
    >>> deadlines.next_us, list(deadlines.due(7)), deadlines.next_us
    (5, ['b'], 20)
    """

    __slots__ = ("_heap", "_of")

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []  # with what was overtaken by a later `set` in it

    def set(self, name: str, at_us: int) -> None:
        """Gives a name a new deadline."""
        self._of[name] = at_us
        heapq.heappush(self._heap, (at_us, name))
        if len(self._heap) > 2 * len(self._of) + 64:
            self._heap = sorted((due_us, key) for key, due_us in self._of.items())

    def drop(self, name: str) -> None:
        """Forgets a name."""
        self._of.pop(name, None)

    def at_us(self, name: str) -> int:
        """The deadline of a name."""
        return self._of[name]

    @property
    def next_us(self) -> int | None:
        """The earliest deadline."""
        heap = self._heap
        while heap and self._of.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, clock_us: int) -> Iterator[str]:
        """Takes what ends at or before a time."""
        while (next_us := self.next_us) is not None and next_us <= clock_us:
            name = heapq.heappop(self._heap)[1]
            del self._of[name]
            yield name


class StoredLease(msgspec.Struct, frozen=True, array_like=True):
    """A lease in a snapshot; which keys it has, the keys say."""

    name: str
    ttl_us: int
    ends_us: int


class Lease:
    """One lease."""

    __slots__ = ("keys", "ttl_us")

    def __init__(self, ttl_us: int) -> None:
        self.ttl_us = ttl_us
        self.keys: dict[str, None] = {}


class LeaseTable:
    """All leases, and the keys that go with each."""

    __slots__ = ("deadlines", "leases")

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.deadlines = Deadlines()

    def grant(self, name: str, ttl_us: int, clock_us: int) -> None:
        """Makes a lease."""
        self.leases[name] = Lease(ttl_us)
        self.deadlines.set(name, clock_us + ttl_us)

    def keep_alive(self, name: str, clock_us: int) -> int:
        """Lets a lease live for its time to live from now, which is returned."""
        ttl_us = self.leases[name].ttl_us
        self.deadlines.set(name, clock_us + ttl_us)
        return ttl_us

    def end(self, name: str) -> list[str]:
        """Ends a lease; returns the keys that go with it, in order."""
        self.deadlines.drop(name)
        return sorted(self.leases.pop(name).keys)

    def move(self, key: str, old: str, new: str) -> None:
        """A key goes from one lease to another; "" is none."""
        if old != new:
            if old in self.leases:
                self.leases[old].keys.pop(key, None)
            if new in self.leases:
                self.leases[new].keys[key] = None

    def stored(self) -> list[StoredLease]:
        """All leases, for a snapshot."""
        return [
            StoredLease(name, lease.ttl_us, self.deadlines.at_us(name)) for name, lease in self.leases.items()
        ]

    def restore(self, stored: list[StoredLease]) -> None:
        """Takes over what `stored` gave; the keys are to be moved in afterwards."""
        self.leases = {one.name: Lease(one.ttl_us) for one in stored}
        self.deadlines = Deadlines()
        for one in stored:
            self.deadlines.set(one.name, one.ends_us)
