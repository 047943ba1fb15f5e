"""Counters and identifiers: is what was counted, and is nothing counted twice?

`counter`
    Theory of operation: a read must lie between the least and the most that the counter can have been. Least: what it
    began with (0, unless the history says otherwise), what was acknowledged before the read began, and whatever
    unfinished decrements could be done by its end. Most: what it began with, what was acknowledged, and every increment
    that had begun by its end and did not fail. Additions that failed never count; those of unknown outcome may count
    from their invocation on, for ever.

`unique-ids`
    No two ``generate`` operations that succeeded have the same identifier.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import History
from checkers.verdict import Verdict

COUNTER = "counter"
UNIQUE_IDS = "unique-ids"


def check_counter(history: History) -> Verdict:
    """Whether every ok read lies in its bounds; operations ``add``, ``subtract`` (of any number) and ``read``.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    groups: dict[Any, list[Call]] = {}
    for call in calls_of(history):
        groups.setdefault(hashable(call.key), []).append(call)
    reads = 0
    for calls in groups.values():
        adds = [
            (call, call.argument if call.f == "add" else -call.argument)
            for call in calls
            if call.f in ("add", "subtract") and call.status != "fail"
        ]
        bounds = _Bounds(adds, history.initial or 0)
        for call in calls:
            if call.f != "read" or call.status != "ok":
                continue
            reads += 1
            low, high = bounds.of(call)
            value = 0 if call.result is None else hashable(call.result)
            if not isinstance(value, int | float) or not low <= value <= high:
                of = f" of {call.key}" if call.key is not None else ""
                findings.add(
                    "out-of-bounds",
                    call.complete.index,
                    f"the read {call.span} of process {call.process}{of} is {some([value])}, which cannot be: "
                    f"it is from {low} to {high}",
                )
    cause = "" if reads else "no read succeeded: there is nothing to check"
    return findings.verdict(COUNTER, sum(map(len, groups.values())), len(groups), cause)


class _Bounds:
    """Sums of additions by when they began and by when they were acknowledged."""

    def __init__(self, adds: Sequence[tuple[Call, int]], first: int) -> None:
        self._first = first
        self._begun = {sign: _Sums([(call.call, n) for call, n in adds if n * sign > 0]) for sign in (1, -1)}
        self._done = {
            sign: _Sums([(call.ret, n) for call, n in adds if n * sign > 0 and call.ret is not None])
            for sign in (1, -1)
        }

    def of(self, read: Call) -> tuple[int, int]:
        """The least and the most that the read can have been."""
        end = read.ret if read.ret is not None else read.call
        low = self._first + self._done[1].before(read.call) + self._begun[-1].before(end)
        high = self._first + self._begun[1].before(end) + self._done[-1].before(read.call)
        return low, high


class _Sums:
    def __init__(self, items: Sequence[tuple[int, int]]) -> None:
        ordered = sorted(items)
        self._times = [time for time, _ in ordered]
        self._sums = [0, *accumulate(number for _, number in ordered)]

    def before(self, time: int) -> int:
        return self._sums[bisect_left(self._times, time)]


def check_unique_ids(history: History) -> Verdict:
    """Whether all identifiers of ok ``generate`` operations differ.

    Raises:
        HistoryError: the history is malformed.
    """
    calls = [call for call in calls_of(history) if call.f == "generate"]
    findings = Findings()
    owner: dict[Any, Call] = {}
    given = 0
    for call in sorted((call for call in calls if call.status == "ok"), key=lambda call: call.ret or 0):
        given += 1
        name = (hashable(call.key), hashable(call.result))
        first = owner.setdefault(name, call)
        if first is not call:
            findings.add(
                "duplicate-id",
                call.complete.index,
                f"{some([hashable(call.result)])} was given to {first.span} of process {first.process} "
                f"and to {call.span} of process {call.process}",
            )
    return findings.verdict(
        UNIQUE_IDS, len(calls), 1, "" if given else "no identifier was given: there is nothing to check"
    )
