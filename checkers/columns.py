"""Histories of registers read straight into columns, without making an operation object for each.

Rules of this module
    1. Needs numpy; worth it from some ten thousand lines on. What comes out is what
       `checkers.registers.columns_of` makes of `History.operations`.
    2. Whatever is unusual (lines that do not pair, operations that the model does not know, times that run
       backwards) gives None: the slow way then says what is wrong, or copes with it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, cast

from checkers.clash import CHAIN_MAX
from checkers.history import History, Op, is_mismatch
from checkers.memory import collector_paused
from checkers.models import Register
from checkers.registers import RegisterColumns
from checkers.values import freeze
from checkers.zones import CAS, DIFFERS, NEVER, READ, WRITE

_TYPE_CODES = {"invoke": 0, "ok": 1, "fail": 2, "info": 3}
_F_CODES = {"read": 0, "get": 1, "write": 2, "put": 3, "cas": 4, "delete": 5}
_PLAIN_TYPES = {int, str, type(None)}


def register_columns(history: History, model: Register) -> RegisterColumns | None:
    """Columns (arrays) of a history for a register, or None by rule 2; ``origin`` is lines (call, end)."""
    reader = _ScannedReader if hasattr(history.lines, "columns") else _Reader
    with collector_paused():
        return reader(history, model).run()


class _Reader:
    def __init__(self, history: History, model: Register) -> None:
        import numpy  # noqa: ICN001, PLC0415  (only for long histories)

        self.np = numpy
        self.model = model
        self.timed = history.timed
        self.bare = history.bare_mismatch
        self.lines: Sequence[Op] = history.lines

    def run(self) -> RegisterColumns | None:
        processes = list(map(attrgetter("process"), self.lines))
        if set(map(type, processes)) != {int}:
            self.lines = [op for op in self.lines if type(op.process) is int]
            processes = [op.process for op in self.lines]
        try:
            types = self._coded(map(attrgetter("type"), self.lines), _TYPE_CODES)
            fs = self._coded(map(attrgetter("f"), self.lines), _F_CODES)
            rank = self._ranks(types)
            paired = self._pair(self.np.array(processes, self.np.int64), types)
            keys, key_of_line = self._interned(list(map(attrgetter("key"), self.lines)))
        except (KeyError, TypeError, OverflowError):
            return None
        if paired is None or rank is None or not self._completions_agree(*paired, fs, key_of_line):
            return None
        return self._columns(*paired, types, fs, rank, keys, key_of_line)

    def _coded(self, words: Iterable[str], codes: dict[str, int]) -> Any:
        return self.np.fromiter(map(codes.__getitem__, words), self.np.int8, len(self.lines))

    def _ranks(self, types: Any) -> Any:
        """Order numbers of the lines, or None where times run backwards; see `checkers.history`."""
        np = self.np
        count = len(types)
        if not self.timed:
            return np.arange(count)
        times = self._times()
        steps = np.diff(times)
        if (steps < 0).any():
            return None
        if (steps > 0).all():
            return np.arange(count)
        rank = np.empty(count, np.int64)
        rank[np.lexsort((types != 0, times))] = np.arange(count)
        return rank

    def _times(self) -> Any:
        return self.np.array(list(map(attrgetter("time_ns"), self.lines)), self.np.int64)

    def _pair(self, processes: Any, types: Any) -> tuple[Any, Any] | None:
        """Lines of the calls and of their completions (-1 for none), in the order of calls."""
        np = self.np
        if len(processes) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if processes.max() < 1 << 15 and processes.min() >= 0:
            processes = processes.astype(np.int16)  # which numpy sorts by radix
        by = np.argsort(processes, kind="stable")
        sorted_processes, opens = processes[by], types[by] == 0
        same = np.concatenate(([False], sorted_processes[1:] == sorted_processes[:-1]))
        follows_open = same & np.concatenate(([False], opens[:-1]))
        if (opens == follows_open).any():  # an invocation in an open operation, a completion of nothing
            return None
        closed = np.concatenate((~opens[1:], [False]))
        ends = np.where(closed, np.concatenate((by[1:], [-1])), -1)[opens]
        calls = by[opens]
        order = np.argsort(calls)
        return calls[order], ends[order]

    def _completions_agree(self, calls: Any, ends: Any, fs: Any, key_of_line: Any) -> bool:
        done = ends >= 0
        calls, ends = calls[done], ends[done]
        if (fs[calls] != fs[ends]).any():
            return False
        different = self.np.flatnonzero(key_of_line[calls] != key_of_line[ends])
        return all(self.lines[ends[place]].key is None for place in different)

    def _interned(self, raw: Sequence[Any]) -> tuple[list[Hashable], Any]:
        """The distinct values in canonical form and in order, and the number of each."""
        if not set(map(type, raw)) <= _PLAIN_TYPES:
            raw = [freeze(value) for value in raw]
        distinct = list(dict.fromkeys(raw))
        if len(distinct) == 1:
            return distinct, self.np.zeros(len(raw), self.np.int64)
        numbers = dict(zip(distinct, range(len(distinct)), strict=True))
        return distinct, self.np.fromiter(map(numbers.__getitem__, raw), self.np.int64, len(raw))

    def _columns(
        self, calls: Any, ends: Any, types: Any, fs: Any, rank: Any, keys: list[Hashable], key_of_line: Any
    ) -> RegisterColumns | None:
        np, lines, model = self.np, self.lines, self.model
        f = np.array([READ, READ, WRITE, WRITE, CAS, WRITE])[fs[calls]]
        status = np.where(ends >= 0, types[ends], _TYPE_CODES["info"])
        refused = (status == _TYPE_CODES["fail"]) & (f == CAS)
        for place in np.flatnonzero(refused) if model.uses_mismatch else ():
            if is_mismatch(lines[ends[place]], bare=self.bare):
                f[place] = DIFFERS
                status[place] = _TYPE_CODES["ok"]
        kept = (status != _TYPE_CODES["fail"]) & ~((status == _TYPE_CODES["info"]) & (f == READ))
        calls, ends, f, status = calls[kept], ends[kept], f[kept], status[kept]
        values = self._values(calls, ends, f, fs)
        if values is None:
            return None
        first, second = values
        distinct, numbers = self._interned([*first, *second, model.initial()])
        a, b, initial = numbers[: len(f)], np.full(len(f), numbers[-1]), int(numbers[-1])
        b[(f == CAS) | (f == DIFFERS)] = numbers[len(f) : -1]
        nothing = distinct.index(None) if None in distinct else -1
        return self._laid_out(
            (f, a, b), status, (calls, ends), rank, (keys, key_of_line), (initial, len(distinct), nothing)
        )

    def _laid_out(
        self,
        operations: tuple[Any, Any, Any],
        status: Any,
        lines: tuple[Any, Any],
        rank: Any,
        keys: tuple[list[Hashable], Any],
        values: tuple[int, int, int],
    ) -> RegisterColumns:
        """The columns; ``values`` are the initial one's number, how many there are, and the number of null or -1."""
        np = self.np
        f, a, b = operations
        calls, ends = lines
        initial, count, nothing = values
        names, key = self._asked_keys(keys[0], keys[1][calls])
        found, (a, b, start) = self._numbered_by_key(a, b, key, initial, len(names), count)
        if not self.model.strict_nil and nothing >= 0:
            silent = found % count == nothing
            a = np.where((f == READ) & silent[a], -1, a)
        call, ret = rank[calls], np.where(status == _TYPE_CODES["info"], NEVER, rank[ends])
        order = np.arange(len(f)) if (np.diff(call) > 0).all() else np.argsort(call)
        f, a, b, call, ret, key = (
            np.ascontiguousarray(c[order], np.int64) for c in (f, a, b, call, ret, key)
        )
        return RegisterColumns(
            f, a, b, call, ret, key, found // count, start, names, (calls[order], ends[order])
        )

    def _asked_keys(self, names: list[Hashable], key: Any) -> tuple[list[Hashable], Any]:
        """Without keys that no operation has: all of theirs failed, or a completion left its key out."""
        there = self.np.bincount(key, minlength=len(names)) > 0
        if there.all() or not there.any():
            return names, key
        return [name for name, asked in zip(names, there, strict=True) if asked], (there.cumsum() - 1)[key]

    def _numbered_by_key(
        self, a: Any, b: Any, key: Any, initial: int, keys: int, values: int
    ) -> tuple[Any, tuple[Any, Any, Any]]:
        """The pairs key * values + value that occur, and for a, b and the initial ones their numbers."""
        np = self.np
        if keys <= 1:
            return np.arange(values), (a, b, np.full(keys, initial))
        starts = np.arange(keys) * values + initial
        every = np.concatenate((key * values + a, key * values + b, starts))
        found, inverse = np.unique(every, return_inverse=True)
        return found, (inverse[: len(a)], inverse[len(a) : 2 * len(a)], inverse[2 * len(a) :])

    def _values(self, calls: Any, ends: Any, f: Any, fs: Any) -> tuple[list[Any], list[Any]] | None:
        """What each operation read, wrote or expected, and the new value of each cas."""
        np, lines, model = self.np, self.lines, self.model
        known = {READ, WRITE} | ({CAS, DIFFERS} if model.cas else set())
        deletes = fs[calls] == _F_CODES["delete"]
        if not set(np.unique(f).tolist()) <= known or (deletes.any() and not model.delete):
            return None
        asked = np.where(f == READ, ends, calls)
        values = list(map(attrgetter("value"), lines))
        first: list[Any] = list(map(values.__getitem__, asked.tolist()))
        second: list[Any] = []
        for place in np.flatnonzero(deletes):
            first[place] = None
        for place in np.flatnonzero((f == CAS) | (f == DIFFERS)):
            pair = first[place]
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                return None
            first[place] = pair[0]
            second.append(pair[1])
        return first, second


class _ScannedReader(_Reader):
    """The same from lines that were scanned (`checkers.line_columns`), whose scalars are numbers already."""

    def run(self) -> RegisterColumns | None:
        from checkers.kernel_lines import ABSENT, ERROR, KEY, PROCESS, SECOND, TIME, TYPE, VALUE, F  # noqa: PLC0415

        np, scanned, model = self.np, cast("Any", self.lines), self.model
        initial = model.initial()
        if not isinstance(initial, int | str | None):
            return None
        clients = scanned.clients()
        cut = len(clients) < len(scanned)

        def column(number: int) -> Any:
            return scanned.columns[number][clients] if cut else scanned.columns[number]

        null = scanned.number(None)
        self._time_column = column(TIME)
        try:
            types = self._translated(column(TYPE), _TYPE_CODES)
            fs = self._translated(column(F), _F_CODES)
        except KeyError:
            return None
        rank = self._ranks(types)
        paired = self._pair(column(PROCESS), types)
        if rank is None or paired is None:
            return None
        calls, ends = paired
        raw_key = column(KEY)
        numbers, at, key_of_line = np.unique(
            np.where(raw_key == null, ABSENT, raw_key), return_index=True, return_inverse=True
        )
        by_first = np.argsort(at)
        keys = [None if n == ABSENT else scanned.scalar(int(n)) for n in numbers[by_first]]
        key_of_line = np.argsort(by_first)[key_of_line]
        done = ends >= 0
        same = (key_of_line[calls[done]] == key_of_line[ends[done]]) | (raw_key[ends[done]] == ABSENT)
        if not same.all() or (fs[calls[done]] != fs[ends[done]]).any():
            return None
        mismatch = column(ERROR) == scanned.number("mismatch")
        f, status, kept = self._kinds(calls, ends, types, fs, mismatch)
        calls, ends, f, status = calls[kept], ends[kept], f[kept], status[kept]
        asked = np.where(f == READ, ends, calls)
        value, second = column(VALUE)[asked], column(SECOND)[asked]
        deletes = fs[calls] == _F_CODES["delete"]
        two = (f == CAS) | (f == DIFFERS)
        known = (model.cas or not two.any()) and (model.delete or not deletes.any())
        if not known or ((second != ABSENT) != two).any():
            return None
        count = 2 + int(scanned.columns[F:].max())
        a = np.where((value == null) | deletes, 0, value + 1)
        b = np.where(two & (second != null), second + 1, 0)
        first = 0 if initial is None else scanned.number(initial) + 1
        if initial is not None and first == 0:
            first, count = count, count + 1
        b = np.where(two, b, first)
        return self._laid_out((f, a, b), status, (calls, ends), rank, (keys, key_of_line), (first, count, 0))

    def _times(self) -> Any:
        return self._time_column

    def _translated(self, numbers: Any, codes: dict[str, int]) -> Any:
        np, scanned = self.np, cast("Any", self.lines)
        there = np.unique(numbers)
        table = np.zeros(int(there.max(initial=0)) + 1, np.int8)
        for number in there.tolist():
            table[number] = codes[scanned.scalar(number)]
        return table[numbers]

    def _kinds(self, calls: Any, ends: Any, types: Any, fs: Any, mismatch: Any) -> tuple[Any, Any, Any]:
        """What each operation is, how it ended, and whether it counts."""
        np = self.np
        f = np.array([READ, READ, WRITE, WRITE, CAS, WRITE])[fs[calls]]
        status = np.where(ends >= 0, types[ends], _TYPE_CODES["info"])
        refused = (status == _TYPE_CODES["fail"]) & (f == CAS) & mismatch[ends] & self.model.uses_mismatch
        f[refused] = DIFFERS
        status[refused] = _TYPE_CODES["ok"]
        kept = (status != _TYPE_CODES["fail"]) & ~((status == _TYPE_CODES["info"]) & (f == READ))
        return f, status, kept


def places_by_key(columns: RegisterColumns) -> dict[Hashable, Any]:
    """Which operations are each key's, in the order of calls."""
    import numpy as np  # noqa: PLC0415  (only for long histories)

    by_key = np.argsort(columns.key, kind="stable")
    starts = np.searchsorted(columns.key[by_key], np.arange(len(columns.keys) + 1))
    return {key: by_key[starts[n] : starts[n + 1]] for n, key in enumerate(columns.keys)}


class KeyParts:
    """The parts of a history by the keys of its columns; indexed once, cut out on demand."""

    def __init__(self, history: History, columns: RegisterColumns) -> None:
        import numpy as np  # noqa: PLC0415  (only for long histories)

        self._history = history
        lines: Any = history.lines
        #: Places of the clients' lines, where that is not all of them.
        self._clients: Any = None
        if hasattr(lines, "columns"):
            self._clients = lines.clients()
        elif any(type(op.process) is not int for op in lines):
            lines = [op for op in lines if type(op.process) is int]
        self._lines = lines
        self._numbers = {key: number for number, key in enumerate(columns.keys)}
        self._columns = columns
        self._calls, self._ends = columns.origin
        self._by_key = np.argsort(columns.key, kind="stable")
        self._starts = np.searchsorted(columns.key[self._by_key], np.arange(len(columns.keys) + 1))

    def size(self, key: Hashable) -> int:
        """How many operations the key has."""
        number = self._numbers[key]
        return int(self._starts[number + 1] - self._starts[number])

    def part(self, key: Hashable) -> History:
        """The lines of one key, as a history of its own."""
        number = self._numbers[key]
        return self.chosen(self._by_key[self._starts[number] : self._starts[number + 1]])

    def clash(self, values: Sequence[int]) -> History | None:
        """The lines of the operations on these values and those connected by cas (see `checkers.clash`).

        None where more than `CHAIN_MAX` values are connected.
        """
        import numpy as np  # noqa: PLC0415

        c = self._columns
        cas = c.f == CAS
        found = np.unique(np.array([value for value in values if value >= 0], np.int64))
        for _ in range(CHAIN_MAX):
            near = np.concatenate((c.b[cas & np.isin(c.a, found)], c.a[cas & np.isin(c.b, found)]))
            more = np.union1d(found, near)
            if len(more) == len(found):
                break
            found = more
            if len(found) > CHAIN_MAX:
                return None
        return self.chosen(
            np.flatnonzero((c.f != DIFFERS) & (np.isin(c.a, found) | (cas & np.isin(c.b, found))))
        )

    def chosen(self, chosen: Any) -> History:
        """The lines of these operations of the columns."""
        ends = self._ends[chosen]
        places = sorted([*self._calls[chosen].tolist(), *ends[ends >= 0].tolist()])
        if self._clients is not None:
            places = self._clients[places].tolist()
        return History(
            [self._lines[place] for place in places],
            source=self._history.source,
            timed=self._history.timed,
            bare_mismatch=self._history.bare_mismatch,
            format=self._history.format,
        )
