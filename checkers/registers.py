"""Registers in columns, and the check of `checkers.zones` over them.

Rules of this module
    1. The columns are lists, or arrays of int64; the same steps run on both, the latter compiled.
    2. Operations stand in the order of their calls. Values are numbered by (key, value), so that a number
       belongs to one key.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from checkers import zones
from checkers.history import Operation
from checkers.models import Model, register_code
from checkers.zones import CAS, DIFFERS, FITS, NEVER, READ, WRITE

#: A function of `checkers.zones` or `checkers.intervals`.
Kernel = Callable[..., int]

_CODES = {"read": READ, "write": WRITE, "cas": CAS, "differs": DIFFERS}


@dataclass(slots=True)
class RegisterColumns:
    """The operations of many registers.

    Attributes:
        f: `zones.READ`, WRITE, CAS or DIFFERS.
        a: number of the value read (-1: it says nothing), written, or expected; ``b`` of a cas's new value.
        b: see ``a``.
        call: order numbers; ``ret`` is `zones.NEVER` for info operations.
        ret: see ``call``.
        key: number of the key of each operation.
        value_key: number of the key that each value belongs to.
        initial_value: number of each key's initial value.
        keys: the keys, in the order of first calls.
        origin: for each operation, what it was made of: its place in a list, or its line.
    """

    f: Any
    a: Any
    b: Any
    call: Any
    ret: Any
    key: Any
    value_key: Any
    initial_value: Any
    keys: list[Hashable]
    origin: Any


@dataclass(slots=True)
class Solution:
    """What was found for each key.

    Attributes:
        status: `zones.FITS` (linearizable), NOT_UNIQUE, VIOLATION or UNPLACED, by key.
        clash: for each VIOLATION the reason and two values (-1: none) in whose blocks it lies, by key.
    """

    status: Sequence[int]
    clash: Sequence[int]


class OrderError(Exception):
    """An order that does not hold: a fault of this package, never of the history."""


def columns_of(groups: Mapping[Hashable, Sequence[Operation]], model: Model) -> RegisterColumns | None:
    """Columns (lists) of operations by key, or None where the model is no register."""
    columns = RegisterColumns([], [], [], [], [], [], [], [], list(groups), [])
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    origin = 0
    for number, operations in enumerate(groups.values()):
        numbers: dict[Hashable, int] = {}

        def value(v: Hashable, numbers: dict[Hashable, int] = numbers, key: int = number) -> int:
            if v not in numbers:
                numbers[v] = len(columns.value_key)
                columns.value_key.append(key)
            return numbers[v]

        columns.initial_value.append(value(model.initial()))
        for operation in operations:
            code = register_code(model, operation)
            if code is None:
                return None
            a = value(code[1]) if len(code) > 1 else -1
            b = value(code[2]) if len(code) > 2 else -1
            ret = NEVER if operation.ret is None else operation.ret
            rows.append((operation.call, ret, _CODES[str(code[0])], a, b, number, origin))
            origin += 1
    rows.sort()
    if rows:
        columns.call, columns.ret, columns.f, columns.a, columns.b, columns.key, columns.origin = (
            list(column) for column in zip(*rows, strict=True)
        )
    return columns


class Backend(Protocol):
    """How the steps run: plain on lists, or compiled on arrays (`checkers.fast`). Columns are of integers."""

    def kernel(self, kernel: Kernel) -> Kernel:
        """The kernel as it runs on these columns."""
        ...

    def full(self, count: int, value: int) -> Any:
        """A column of that length filled with a value."""
        ...

    def copy(self, column: Any) -> Any:
        """A column of its own."""
        ...

    def take(self, column: Any, places: Any) -> Any:
        """The column's members at the places."""
        ...

    def sort(self, *columns: Any) -> Any:
        """The places in the stable order of the columns, the first one counting most."""
        ...

    def where(self, column: Any, value: int) -> Any:
        """The places that hold the value."""
        ...

    def starts(self, counts: Any) -> Any:
        """Sums of all members before each, and of all at the end."""
        ...

    def smaller(self, one: Any, other: Any, count: int) -> Any:
        """The smaller one of each pair, of the first ``count``."""
        ...

    def tally(self, column: Any, size: int) -> Any:
        """How often each of 0..size-1 occurs."""
        ...

    def join(self, one: Any, other: Any) -> Any:
        """One column after the other."""
        ...

    def places(self, column: Any) -> Any:
        """The inverse of a permutation, or of its part: where each number stands."""
        ...


class Plain:
    """Lists and plain Python: nothing to import or to compile."""

    def kernel(self, kernel: Kernel) -> Kernel:
        """See `Backend`."""
        return kernel

    def full(self, count: int, value: int) -> list[int]:
        """See `Backend`."""
        return [value] * count

    def copy(self, column: Sequence[int]) -> list[int]:
        """See `Backend`."""
        return list(column)

    def take(self, column: Sequence[int], places: Sequence[int]) -> list[int]:
        """See `Backend`."""
        return [column[place] for place in places]

    def sort(self, *columns: Sequence[int]) -> list[int]:
        """See `Backend`."""
        if len(columns) == 1:
            return sorted(range(len(columns[0])), key=columns[0].__getitem__)
        rows = list(zip(*columns, strict=True))
        return sorted(range(len(rows)), key=rows.__getitem__)

    def where(self, column: Sequence[int], value: int) -> list[int]:
        """See `Backend`."""
        return [place for place, member in enumerate(column) if member == value]

    def starts(self, counts: Sequence[int]) -> list[int]:
        """See `Backend`."""
        return [0, *accumulate(counts)]

    def smaller(self, one: Sequence[int], other: Sequence[int], count: int) -> list[int]:
        """See `Backend`."""
        return [min(one[place], other[place]) for place in range(count)]

    def tally(self, column: Sequence[int], size: int) -> list[int]:
        """See `Backend`."""
        counts = [0] * size
        for member in column:
            counts[member] += 1
        return counts

    def join(self, one: Sequence[int], other: Sequence[int]) -> list[int]:
        """See `Backend`."""
        return [*one, *other]

    def places(self, column: Sequence[int]) -> list[int]:
        """See `Backend`."""
        inverse = [0] * len(column)
        for place, member in enumerate(column):
            inverse[member] = place
        return inverse


PLAIN = Plain()


def tiny_columns(backend: Backend) -> RegisterColumns:
    """One write and one refused cas: enough to run every kernel."""
    rows = {"f": [WRITE, DIFFERS], "a": [1, 0], "b": [-1, -1], "call": [0, 1], "ret": [2, 3], "key": [0, 0]}
    made = {name: backend.copy(column) for name, column in rows.items()}
    value_key, initial_value = backend.copy([0, 0]), backend.copy([0])
    return RegisterColumns(**made, value_key=value_key, initial_value=initial_value, keys=[None], origin=None)


def solve(columns: RegisterColumns, backend: Backend = PLAIN) -> Solution:
    """Checks all keys, and verifies the order of each that fits.

    Raises:
        OrderError: where the order found does not hold.
    """
    return _Solver(columns, backend).run()


class _Solver:
    def __init__(self, columns: RegisterColumns, backend: Backend) -> None:
        self.c = columns
        self.backend = backend
        keys, values = len(columns.keys), len(columns.value_key)
        full = backend.full
        self.status, self.clash = full(keys, FITS), full(3 * keys, 0)
        self.initial, self.writer, self.reads = full(values, 0), full(values, -1), full(values, 0)
        for value in columns.initial_value:
            self.initial[value] = 1

    def _call(self, kernel: Kernel, *arguments: Any) -> int:
        return self.backend.kernel(kernel)(*arguments)

    def run(self) -> Solution:
        found = self._zones()
        if not len(self.backend.where(self.status, FITS)):
            return Solution(self.status, self.clash)
        out = self._lay_out(*found)
        refused = self.backend.where(self.c.f, DIFFERS)
        if len(refused):
            out = self._with_refused(out, refused)
        self._check(out)
        return Solution(self.status, self.clash)

    def _zones(self) -> tuple[Any, Any, Any]:
        c, full, values = self.c, self.backend.full, len(self.c.value_key)
        first_ret, last_call, observed = full(values, NEVER), full(values, -1), full(values, 0)
        successor, seen = full(values, -1), full(values, 0)
        zone_f, zone_s, zone_root = full(values, 0), full(values, 0), full(values, 0)
        known = (c.value_key, self.initial, self.status)
        per_value = (self.writer, self.reads, first_ret, last_call, observed)
        self._call(zones.gather, c.f, c.a, c.b, c.call, c.ret, *known, *per_value)
        self._call(zones.chain, c.f, c.a, c.b, c.ret, *known, self.writer, observed, successor, self.clash)
        found = (successor, seen, zone_f, zone_s, zone_root, self.clash)
        count = self._call(zones.blocks, c.f, c.b, c.call, c.ret, *known, *per_value, *found)
        order = self.backend.sort(self.backend.smaller(zone_f, zone_s, count))
        reach = full(len(c.keys), -1)
        self._call(zones.sweep, order, zone_f, zone_s, zone_root, c.value_key, self.status, reach, self.clash)
        return order, zone_root, successor

    def _lay_out(self, order: Any, zone_root: Any, successor: Any) -> Any:
        c, full = self.c, self.backend.full
        read_start = self.backend.starts(self.reads)
        read_list = full(int(read_start[-1]), 0)
        self._call(zones.index_reads, c.f, c.a, c.ret, self.backend.copy(read_start), read_list)
        out = full(len(c.f), 0)
        made = (self.writer, successor, read_start, read_list, out)
        count = self._call(zones.lay_out, order, zone_root, c.b, c.value_key, self.status, *made)
        return out[:count]

    def _with_refused(self, out: Any, refused: Any) -> Any:
        """The order with the refused cas put in; marks the keys where one finds no place."""
        c, backend, keys = self.c, self.backend, len(self.c.keys)
        out = backend.take(out, backend.sort(backend.take(c.key, out)))
        sizes = backend.tally(backend.take(c.key, out), keys)
        key_start = backend.starts(sizes)
        position = backend.full(len(c.f), -1)
        self._call(zones.locate, out, c.key, key_start, position)
        inside = (position, c.call, c.ret, c.key)
        after, above, gap = (backend.full(len(refused), -1) for _ in range(3))
        self._call(zones.bounds, refused, backend.sort(c.ret), *inside, backend.full(keys, 0), after)
        by_ret = backend.sort(backend.take(c.ret, refused))
        latest_first = by_ret[::-1]
        by_call = backend.sort(c.call)[::-1]
        self._call(zones.bounds_above, backend.take(refused, latest_first), by_call, *inside, sizes, above)
        before = backend.take(above, backend.places(latest_first))
        operations = (c.f, c.a, c.b, c.call, c.ret, c.key, self.status)
        limits = (after, before, c.initial_value, backend.full(keys, 0), gap)
        self._call(zones.place_refused, refused, by_ret, out, key_start, *operations, *limits)
        both = backend.join(out, refused)
        spots = backend.join(backend.take(position, out), gap)
        last = backend.join(backend.full(len(out), 1), backend.full(len(refused), 0))
        # At one spot the refused ones come first, in the order of their calls, which is that of places.
        return backend.take(both, backend.sort(backend.take(c.key, both), spots, last, both))

    def _check(self, out: Any) -> None:
        c, full = self.c, self.backend.full
        state = (self.backend.copy(c.initial_value), full(len(c.keys), -1), full(len(c.f), 0))
        bad = self._call(zones.check_order, out, c.f, c.a, c.b, c.call, c.ret, c.key, self.status, *state)
        if bad < 0:
            raise OrderError(f"operation {-1 - bad} does not fit into the order that was found")
