"""The compiled search for one register whose values repeat, from columns to a verified order.

Rules of this module
    1. Needs numpy and numba. It makes no operation objects: a yes is verified by `checkers.zones.check_order` on
       the columns; a no is explained by whoever asks, from operations.
    2. What is left out here is left out by the arguments of `checkers.problem`.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from checkers import fast, zones
from checkers.compiled_search import Race, kernel_replay, kernels
from checkers.meter import Meter
from checkers.problem import GENERAL, OVERWRITE, PURE
from checkers.registers import OrderError, RegisterColumns
from checkers.search import Outcome
from checkers.zones import CAS, DIFFERS, NEVER, READ, WRITE

_FORMS = np.array([kernels.READS, kernels.WRITES, kernels.CAS, kernels.DIFFERS])
_EFFECTS = np.array([PURE, OVERWRITE, GENERAL, PURE])


class RegisterSearch:
    """The search of one key of register columns (arrays).

    Args:
        columns: of all keys.
        places: which operations are the key's, in the order of calls.
        initial: number of its initial value.
    """

    def __init__(self, columns: RegisterColumns, places: Any, initial: int) -> None:
        f, a, b = columns.f[places], columns.a[places], columns.b[places]
        kept = needed(f, a, b, columns.ret[places])
        self.count = len(places)
        self.f, self.a, self.b = f[kept], a[kept], b[kept]
        self.call, self.ret = columns.call[places][kept], columns.ret[places][kept]
        self.initial = initial
        self.race = self._race()

    def _race(self) -> Race:
        f, a, b = self.f, self.a, self.b
        two = (f == CAS) | (f == DIFFERS)
        asked, _ = _distinct(np.append(a[f != WRITE], self.initial), 1 + int(a.max(initial=self.initial)))
        # Values that nobody asks for are one: the number after those that somebody does.
        other = len(asked)
        first = _numbered(asked, a, other)
        second = np.where(two, _numbered(asked, b, other), 0)
        size = other + 1
        codes, kind = _distinct((f * size + first) * size + second, 4 * size * size)
        code = np.stack((_FORMS[codes // (size * size)], codes // size % size, codes % size), axis=1)
        return Race(
            np.ascontiguousarray(self.call),
            np.ascontiguousarray(self.ret),
            kind.astype(np.int64),
            _EFFECTS[codes // (size * size)],
            np.zeros((1, 1), np.int32),
            np.ascontiguousarray(code, np.int64),
            int(np.searchsorted(asked, self.initial)),
            other + 1,
        )

    def run(self, meter: Meter, orders: Sequence[str] = ("dfs", "bfs")) -> Outcome:
        """Searches, and verifies a yes.

        Raises:
            OrderError: where the order found does not hold, which is a fault of this package.
        """
        order, outcome = self.race.run(meter, orders)
        if outcome.valid:
            self._verify(self._order(order))
        return outcome

    def _order(self, order: str) -> Any:
        fast.prepare("replay")
        found, count, spot, rank = kernel_replay.replay(
            self.race.task, self.race.initial, self.race.chosen(order)
        )
        if count < 0:
            raise OrderError(f"operation {-1 - count} has no place in the order that was found")
        # Turns were given while the count grew: who comes later in turn has no earlier spot.
        inserted = np.flatnonzero(rank)
        inserted = inserted[np.argsort(rank[inserted])]
        return np.insert(found[:count], spot[inserted], inserted)

    def _verify(self, order: Any) -> None:
        zero, n = np.zeros(1, np.int64), len(self.f)
        bad = fast.compiled(zones.check_order)(
            order, self.f, self.a, self.b, self.call, self.ret, np.zeros(n, np.int64), zero,
            np.array([self.initial], np.int64), np.array([-1], np.int64), np.zeros(n, np.int64),
        )  # fmt: skip
        if bad < 0:
            raise OrderError(f"operation {-1 - bad} does not fit into the order that was found")


#: Keys of so many operations are searched several at once: the compiled code of a search holds no lock.
LONG = 2_000


def batches(keys: Sequence[Hashable], sizes: Sequence[int]) -> Iterator[list[Hashable]]:
    """As many long keys together as there are processors, each short one alone as soon as it is its turn."""
    most, together = _processors(), []
    for key, size in zip(keys, sizes, strict=True):
        if size < LONG:
            yield [key]
            continue
        together.append(key)
        if len(together) == most:
            yield together
            together = []
    if together:
        yield together


def _processors() -> int:
    """How many of the machine's this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def search_keys(
    columns: RegisterColumns, tasks: Sequence[tuple[Any, Meter]], orders: Sequence[str]
) -> list[Outcome]:
    """What was found for each key, given by its places and what it may use; a thread for each if there are several.

    Raises:
        OrderError: see `RegisterSearch.run`.
    """

    def run(task: tuple[Any, Meter]) -> Outcome:
        places, meter = task
        initial = int(columns.initial_value[columns.key[places[0]]])
        return RegisterSearch(columns, places, initial).run(meter, orders)

    if len(tasks) <= 1:
        return [run(task) for task in tasks]
    with ThreadPoolExecutor(len(tasks), "splitbrain-search") as pool:
        return list(pool.map(run, tasks))


def _distinct(numbers: Any, bound: int) -> tuple[Any, Any]:
    """The distinct numbers, all from 0 to below the bound, in order, and the place of each among them."""
    if bound > 8 * len(numbers):
        found, places = np.unique(numbers, return_inverse=True)
        return found, places
    there = np.zeros(bound, np.bool_)
    there[numbers] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[numbers]


def _numbered(asked: Any, values: Any, other: int) -> Any:
    """The place of each value among those asked for, ``other`` where it is not one of them."""
    at = np.searchsorted(asked, values)
    there = asked[np.minimum(at, len(asked) - 1)] == values
    return np.where(there, at, other)


def needed(f: Any, a: Any, b: Any, ret: Any) -> Any:
    """Which operations must stay; see `checkers.problem`. A read that says nothing is possible in every state."""
    lost = ret >= NEVER
    kept = (f != READ) | (~lost & (a >= 0))
    if (f == DIFFERS).any() or not lost.any():
        return kept
    observed = set(a[~lost & (f != WRITE) & (a >= 0)].tolist())
    sources: dict[int, list[int]] = {}
    for place in np.flatnonzero(lost & (f == CAS)).tolist():
        sources.setdefault(int(b[place]), []).append(int(a[place]))
    todo = [old for new in sources if new in observed for old in sources[new]]
    while todo:
        value = todo.pop()
        if value not in observed:
            observed.add(value)
            todo.extend(sources.get(value, ()))
    for place in np.flatnonzero(lost & kept).tolist():
        kept[place] = int(b[place] if f[place] == CAS else a[place]) in observed
    return kept
