"""Queues, stacks, priority queues and sets whose values are put in once: linearizability in polynomial time.

Rules of this module
    1. Input: the operations of one object, where no value is put in twice and the object starts empty. Whatever does
       not fit is None (undecided), for the general search.
    2. A no names the values that are enough for it (`Found.values`), which `smallest` makes few.
    3. There is no order to verify a yes with: it rests on the arguments below, and on the comparison with brute force
       in the tests.

Theory of operation
    A value that came out has a *put* and a *take*; its *gap* is the open interval from the return of the put to the
    call of the take (to infinity where it was never taken): then it is certainly inside. Moments in no gap are
    *free*. Two facts carry everything:

    *Projection.* Leaving a value out, put and take, of a correct sequence leaves a correct one. So a part is
    linearizable if the whole is.

    *Clamping.* Let t be free for a set of values and let these be linearizable. Each value can have both operations
    at t or before (both were called by then), or both at t or later (neither returned before): otherwise t is in its
    gap, or the take returned before the put was called. Move the points of the first ones that are later to t, those
    of the others that are earlier to t. The order among each is what it was, the first ones are complete, so the two
    sequences one after the other are correct, and in between the object is empty.

    For all: a take must not return before its put is called, nobody takes what was not put in or was taken already.
    A take that found nothing needs a free moment in its interval; by clamping that is enough.

    *Unordered queue.* That is all.

    *Priority queue.* By induction from the smallest value on: x can be taken iff at a moment of its take, after the
    call of its put, none of the smaller ones is inside: iff that moment is free for the smaller ones (clamping). Larger
    ones do not matter to it.

    *Fifo queue.* Besides: never was x put in before y (in real time) and y taken before x. (Henzinger, Sezgin and
    Vafeiadis 2013: these are all the ways in which a queue goes wrong.)

    *Stack.* A value without a gap can be put in and taken at one moment, wherever the others are: leave it out. The
    others fall into components, by overlapping gaps; between components there are free moments, so each is
    linearizable by itself or not at all. Throughout a component the stack is not empty, so one value x lies at its
    bottom: put in before all others of the component and taken after them. Any x for which real time allows that
    will do: from an order with another bottom move the put of x to the front and its take to the end. Take x away and
    look at the rest.

    *Set*, where nothing is removed: reads must be ordered by inclusion, and an element is added just before the first
    read that has it. Everything between two different reads commutes. So the order is forced but for that, and is
    one iff nothing returns before what stands earlier than it is called.

    *Info operations.* A put whose value nobody took is dropped (leave the value out, with the info take that got
    it, if one did). A put whose value was taken happened; it returns at infinity. Takes whose answer is unknown: if
    the history is right without them it is right. If it is wrong even without all values that nobody is known to
    have taken, it is wrong (projection). In between the search decides.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from checkers.history import Operation
from checkers.models import Model
from checkers.objects import Machine
from checkers.problem import NEVER

_PUTS, _TAKES = frozenset({"enqueue", "push"}), frozenset({"dequeue", "pop"})
#: The states in which a container, a set and an unordered queue are empty.
_EMPTY: tuple[Hashable, ...] = ((), frozenset(), frozenset({()}))
_Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of an object.

    Attributes:
        valid: whether it is linearizable.
        values: for a no, values whose operations alone are impossible; those that found nothing belong to all.
    """

    valid: bool
    values: frozenset[Hashable] = frozenset()


@dataclass(frozen=True, slots=True)
class _Value:
    value: Hashable
    put: _Interval
    take: _Interval

    @property
    def gap(self) -> _Interval:
        return self.put[1], self.take[0]


@dataclass(frozen=True, slots=True)
class _Object:
    values: dict[Hashable, _Value]
    empties: list[_Interval]
    open_takes: int


_Rule = Callable[[Sequence[_Value]], set[Hashable]]


def decide(operations: Sequence[Operation], model: Model) -> Found | None:
    """Whether the operations of one object that starts empty are linearizable; None where this module cannot tell."""
    if not isinstance(model, Machine) or model.start not in _EMPTY:
        return None
    if model.name == "set":
        return _decide_set(operations)
    rule = _RULES.get(model.name)
    read = None if rule is None else _read(operations)
    return (
        _by_rule(read, rule) if isinstance(read, _Object) and rule is not None else cast("Found | None", read)
    )


def _by_rule(read: _Object, rule: _Rule) -> Found | None:
    wrong = _violation(read, list(read.values.values()), rule)
    if wrong and read.open_takes:
        taken = [value for value in read.values.values() if value.take[0] < NEVER]
        wrong = _violation(read, taken, rule)
        if not wrong:
            return None
    return Found(valid=not wrong, values=frozenset(wrong))


def smallest(
    operations: Sequence[Operation], model: Model, found: Found
) -> tuple[list[Operation], list[Hashable]]:
    """The operations on few values, and those that found nothing, that are impossible by themselves; and the values.

    Of what a set read only these values are left (projection).
    """
    kept = sorted(found.values, key=repr)
    size = max(1, len(kept) // 2)
    while True:
        at = 0
        while at < len(kept):
            rest = kept[:at] + kept[at + size :]
            part = decide(_of(operations, rest), model)
            if part is not None and not part.valid:
                kept = rest
            else:
                at += size
        if size == 1:
            return _of(operations, kept), kept
        size = max(1, size // 2)


def _of(operations: Sequence[Operation], values: Iterable[Hashable]) -> list[Operation]:
    """The operations on these values, and those that found nothing; of what was read, these values."""
    chosen = set(values)
    kept: list[Operation] = []
    for operation in operations:
        if operation.f == "read":
            seen = operation.result
            if isinstance(seen, tuple):
                seen = tuple(value for value in seen if value in chosen)
            kept.append(msgspec.structs.replace(operation, result=seen))
            continue
        if operation.f in _PUTS or operation.f == "add":
            there = operation.argument in chosen
        else:
            found_nothing = operation.f in _TAKES and operation.result is None
            there = operation.status == "ok" and (found_nothing or operation.result in chosen)
        if there:
            kept.append(operation)
    return kept


def with_open_takes(operations: Sequence[Operation], part: Sequence[Operation]) -> list[Operation]:
    """A part of the operations, and the takes that never returned: each may have got a value that nobody else took."""
    kept = {operation.invoke_index for operation in part}
    takes = [o for o in operations if o.f in _TAKES and o.ret is None and o.invoke_index not in kept]
    return sorted([*takes, *part], key=lambda operation: operation.call)


def _read(operations: Sequence[Operation]) -> _Object | Found | None:
    """The object, or at once what is wrong with it."""
    puts: dict[Hashable, Operation] = {}
    takes: dict[Hashable, Operation] = {}
    twice: set[Hashable] = set()
    empties: list[_Interval] = []
    open_takes = 0
    for operation in operations:
        if operation.f in _PUTS:
            if operation.argument in puts or operation.argument is None:
                return None
            puts[operation.argument] = operation
        elif operation.f not in _TAKES:
            return None
        elif operation.ret is None:
            open_takes += 1
        elif operation.result is None:
            empties.append((operation.call, operation.ret))
        else:
            # Only once all puts were seen is it known that nothing was put in twice.
            twice |= takes.keys() & {operation.result}
            takes[operation.result] = operation
    if twice:
        return Found(valid=False, values=frozenset(twice))
    wrong = [value for value, take in takes.items() if value not in puts or _ret(take) < puts[value].call]
    if wrong:
        return Found(valid=False, values=frozenset(wrong[:1]))
    made = (_value(value, put, takes.get(value)) for value, put in puts.items())
    return _Object({value.value: value for value in made if value is not None}, empties, open_takes)


def _ret(operation: Operation) -> int:
    return NEVER if operation.ret is None else operation.ret


def _value(value: Hashable, put: Operation, take: Operation | None) -> _Value | None:
    if take is None and put.ret is None:
        return None
    taken = (NEVER, NEVER) if take is None else (take.call, _ret(take))
    return _Value(value, (put.call, _ret(put)), taken)


def _violation(read: _Object, values: Sequence[_Value], rule: _Rule) -> set[Hashable]:
    """Values that are enough to be impossible; none where the object is linearizable."""
    wrong = rule(values)
    if wrong or not read.empties:
        return wrong
    gaps = _Gaps()
    for value in values:
        gaps.add(*value.gap)
    for start, end in read.empties:
        covering = gaps.covering(start, end)
        if covering is not None:
            return {
                value.value for value in values if value.gap[0] < covering[1] and value.gap[1] > covering[0]
            }
    return set()


class _Gaps:
    """A union of open intervals, as disjoint ones in order."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Adds an interval; an empty one adds nothing."""
        if start >= end:
            return
        first = bisect_right(self.ends, start)
        last = bisect_left(self.starts, end)
        if first < last:
            start, end = min(start, self.starts[first]), max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]

    def covering(self, start: int, end: int) -> _Interval | None:
        """The interval in which all moments from start to end lie, None where one of them is free."""
        at = bisect_left(self.starts, start) - 1
        if at >= 0 and end < self.ends[at]:
            return self.starts[at], self.ends[at]
        return None


def _unordered(_values: Sequence[_Value]) -> set[Hashable]:
    return set()


def _fifo(values: Sequence[_Value]) -> set[Hashable]:
    """For each y, among the x put in before it, the one taken latest."""
    by_return = sorted(values, key=lambda value: value.put[1])
    at = 0
    latest: _Value | None = None
    for y in sorted(values, key=lambda value: value.put[0]):
        while at < len(by_return) and by_return[at].put[1] < y.put[0]:
            if latest is None or by_return[at].take[0] > latest.take[0]:
                latest = by_return[at]
            at += 1
        if latest is not None and y.take[1] < latest.take[0]:
            return {latest.value, y.value}
    return set()


def _priority(values: Sequence[_Value]) -> set[Hashable]:
    gaps = _Gaps()
    ordered = sorted(values, key=lambda value: value.value)  # type: ignore[arg-type,return-value]  # numbers
    for place, x in enumerate(ordered):
        if x.take[0] < NEVER:
            covering = gaps.covering(max(x.put[0], x.take[0]), x.take[1])
            if covering is not None:
                inside = (y for y in ordered[:place] if y.gap[0] < covering[1] and y.gap[1] > covering[0])
                return {x.value, *(y.value for y in inside)}
        gaps.add(*x.gap)
    return set()


def _stack(values: Sequence[_Value]) -> set[Hashable]:
    todo = [[value for value in values if value.gap[0] < value.gap[1]]]
    while todo:
        part = todo.pop()
        if len(part) < 2:
            continue
        part.sort(key=lambda value: value.gap)
        components: list[list[_Value]] = []
        end = -1
        for value in part:
            if value.gap[0] >= end:
                components.append([])
            components[-1].append(value)
            end = max(end, value.gap[1])
        for component in components:
            bottom = _bottom(component)
            if bottom is None:
                return {value.value for value in component}
            todo.append([value for value in component if value is not bottom])
    return set()


def _bottom(component: Sequence[_Value]) -> _Value | None:
    """One that can be put in before all others and taken after them."""
    # The two extremes, so that for each value there is that of the others.
    rets = sorted(value.put[1] for value in component)[:2]
    calls = sorted((value.take[0] for value in component), reverse=True)[:2]
    if len(component) == 1:
        return component[0]
    for value in component:
        first_ret = rets[1] if value.put[1] == rets[0] else rets[0]
        last_call = calls[1] if value.take[0] == calls[0] else calls[0]
        if value.put[0] < first_ret and value.take[1] >= last_call:
            return value
    return None


_RULES: dict[str, _Rule] = {
    "unordered-queue": _unordered,
    "fifo-queue": _fifo,
    "priority-queue": _priority,
    "stack": _stack,
}


def _decide_set(operations: Sequence[Operation]) -> Found | None:
    adds: dict[Hashable, Operation] = {}
    reads: list[tuple[frozenset[Hashable], Operation]] = []
    for operation in operations:
        if operation.f == "add" and operation.argument not in adds:
            adds[operation.argument] = operation
        elif operation.f != "read":
            return None
        elif operation.ret is not None:
            there = () if operation.result is None else operation.result
            if not isinstance(there, tuple) or len(set(there)) < len(there):
                return None
            reads.append((frozenset(there), operation))
    groups = _groups_by_reads(adds, reads)
    latest = -1
    for group in groups or ():
        if any(_ret(operation) < latest for operation in group):
            groups = None
            break
        latest = max([latest, *(operation.call for operation in group)])
    values = frozenset(adds).union(*(there for there, _ in reads))
    return Found(valid=True) if groups is not None else Found(valid=False, values=values)


def _groups_by_reads(
    adds: dict[Hashable, Operation], reads: list[tuple[frozenset[Hashable], Operation]]
) -> list[list[Operation]] | None:
    """The forced order, in groups that commute; None where the reads are not ordered by inclusion."""
    groups: list[list[Operation]] = [[]]
    before: frozenset[Hashable] = frozenset()
    for there, operation in sorted(reads, key=lambda read: (len(read[0]), read[1].call)):
        if there != before:
            new = there - before
            if not there > before or not new <= adds.keys():
                return None
            groups += [[adds[value] for value in new], []]
            before = there
        groups[-1].append(operation)
    return [*groups, [add for value, add in adds.items() if value not in before and add.ret is not None]]
