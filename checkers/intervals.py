"""Registers whose values repeat: answers that no order can give, found in nearly linear time before any search.

Rules of this module
    1. It only refutes. What it does not refute is for the search; what it refutes comes with the operations that
       clash, which are a proof by themselves.
    2. The kernels are as those of `checkers.zones`: plain loops, run as they are on lists or compiled on arrays.

Theory of operation
    Let r be a read of v, or a compare-and-set that expected v, and w the last operation before it, in some
    linearization, that wrote a value: w wrote v (the initial value counts as written before everything). Then w was
    called before r returned. And no operation x that showed another value u (it read, wrote or expected u, for
    certain) lies wholly between w and r: w returned before x was called and x returned before r was called, so x took
    effect between the two and u was there; whoever wrote v again after x would come after w.

    So r is impossible where every writer of v that was called before r returned had itself returned before the latest
    call of such an x. For each r that latest call is found by going through returns, with the best two different
    values for each key; the latest return of v's writers by going through calls. Where nobody writes v, there is no w
    at all. Info operations may be writers, which never return; they show nothing.
"""

# ruff: noqa: PLR0913, PLR0917  (as in `checkers.zones`)

from __future__ import annotations

from typing import Any, NamedTuple

from checkers.registers import Backend, RegisterColumns
from checkers.zones import CAS, DIFFERS, FITS, NEVER, READ, VIOLATION, WRITE

_Ints = Any

#: For `unseen`: nobody wrote the value so far; nothing showed another value so far. The initial value has -1.
NOBODY, NOTHING = -3, -2


class Stale(NamedTuple):
    """Why a key is impossible; numbers of operations.

    Attributes:
        seen: the operation that read or expected a value that was not there.
        writer: of those that wrote it and were called before that returned, the one that returned last; -1 for none.
        shown: the operation between the two that showed another value; -1 where nobody wrote the value.
    """

    seen: int
    writer: int
    shown: int


def shown_before(
    f: _Ints, a: _Ints, b: _Ints, call: _Ints, ret: _Ints, key: _Ints, by_ret: _Ints,
    values: _Ints, calls: _Ints, places: _Ints, other: _Ints,
) -> int:  # fmt: skip
    """``other[i]``: of what returned before i was called and showed another value than i asks for, the latest called.

    -1 where there is none. ``values``, ``calls`` and ``places`` have two for each key, all -2 at first. Returns 0.
    """
    at = 0
    for i in range(len(f)):
        while at < len(by_ret) and ret[by_ret[at]] < call[i]:
            j = by_ret[at]
            at += 1
            if f[j] == DIFFERS or a[j] < 0:
                continue
            k = key[j]
            for part in range(2 if f[j] == CAS else 1):
                value = a[j] if part == 0 else b[j]
                first, second = 2 * k, 2 * k + 1
                if call[j] > calls[first]:
                    if values[first] != value:
                        values[second] = values[first]
                        calls[second] = calls[first]
                        places[second] = places[first]
                    values[first] = value
                    calls[first] = call[j]
                    places[first] = j
                elif values[first] != value and call[j] > calls[second]:
                    values[second] = value
                    calls[second] = call[j]
                    places[second] = j
        if (f[i] == READ or f[i] == CAS) and a[i] >= 0 and ret[i] < NEVER:
            best = 2 * key[i] + (1 if values[2 * key[i]] == a[i] else 0)
            if calls[best] >= 0:
                other[i] = places[best]
    return 0


def unseen(
    f: _Ints, a: _Ints, b: _Ints, call: _Ints, ret: _Ints, key: _Ints, by_ret: _Ints, other: _Ints,
    latest: _Ints, writer: _Ints, status: _Ints, found: _Ints,
) -> int:  # fmt: skip
    """Refutes keys that zones could not decide: ``found[3 * key:]`` is seen, writer, shown. Returns how many.

    ``latest[v]`` is -1 for initial values and `NOBODY` for all others at first, ``writer`` -1.
    """
    refuted = 0
    at = 0
    for n in range(len(by_ret)):
        i = by_ret[n]
        if ret[i] >= NEVER:
            break
        while at < len(f) and call[at] < ret[i]:
            if f[at] == WRITE or f[at] == CAS:
                wrote = a[at] if f[at] == WRITE else b[at]
                if ret[at] > latest[wrote]:
                    latest[wrote] = ret[at]
                    writer[wrote] = at
            at += 1
        k = key[i]
        if status[k] == FITS or status[k] == VIOLATION or (f[i] != READ and f[i] != CAS) or a[i] < 0:
            continue
        since = call[other[i]] if other[i] >= 0 else NOTHING
        if latest[a[i]] <= since:
            status[k] = VIOLATION
            found[3 * k] = i
            found[3 * k + 1] = writer[a[i]]
            found[3 * k + 2] = other[i]
            refuted += 1
    return refuted


def refute(columns: RegisterColumns, status: Any, backend: Backend) -> dict[int, Stale]:
    """The keys, by number, that are impossible, among those that have neither `FITS` nor `VIOLATION`."""
    c, full = columns, backend.full
    keys, values = len(c.keys), len(c.value_key)
    by_ret = backend.sort(c.ret)
    other, latest, writer = full(len(c.f), -1), full(values, NOBODY), full(values, -1)
    for value in c.initial_value:
        latest[value] = -1
    best = (full(2 * keys, -2), full(2 * keys, -2), full(2 * keys, -2))
    operations = (c.f, c.a, c.b, c.call, c.ret, c.key)
    backend.kernel(shown_before)(*operations, by_ret, *best, other)
    settled, found = backend.copy(status), full(3 * keys, -1)
    refuted = backend.kernel(unseen)(*operations, by_ret, other, latest, writer, settled, found)
    if not refuted:
        return {}
    return {
        number: Stale(*(int(place) for place in found[3 * number : 3 * number + 3]))
        for number in range(keys)
        if found[3 * number] >= 0
    }
