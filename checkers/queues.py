"""Queues, in whatever order: does everything that went in come out, once?

`queue`
    Cheap and linear: an element may be dequeued only after somebody began to enqueue it, and once for each time that
    it was enqueued. Every enqueue that did not fail counts as done, every dequeue that did not succeed as not done.

    With ``fifo``, and elements that differ, two more things cannot be in a linearizable queue (Henzinger, Sezgin and
    Vafeiadis, "Aspect-oriented linearizability proofs", CONCUR 2013): that a was put in before b, and b came out
    before a did, or although a never did (order); and that a dequeue found nothing while an element was inside all the
    time (not-empty). Together with the above they are what real queues get wrong; it takes n log n steps. Elements
    that were put in more than once are left out of both.

`total-queue`
    What goes in must come out: needs a history that drains the queue at its end (``drain`` takes out all there is and
    answers a list; a dequeue of null shows as much). Wrong are elements whose enqueue was acknowledged before the queue
    was last drained and that never came out (lost), that came out more often than they went in (duplicated), and that
    nobody had begun to put in (unexpected). Recovered are those whose enqueue had an unknown outcome and that came out.

Rules of this module
    1. A dequeue of unknown outcome may have taken an element out. Our clients say which it was (the value of the
       ``info`` line): that element is not lost. Where a history does not say, each such dequeue may have taken any
       element: then so many elements may be missing, and if some are, the answer is ``unknown``.
    2. An ok dequeue of null found the queue empty.
    3. Keys are queues of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import History
from checkers.verdict import Verdict

QUEUE = "queue"
TOTAL_QUEUE = "total-queue"


def check_queue(history: History, *, fifo: bool = False) -> Verdict:
    """Whether nothing is dequeued that was not put in before, or twice; with `fifo`, nor out of order.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    groups = _by_key(history)
    taken_out = 0
    for key, calls in groups.items():
        events = [(call.call, 0, call) for call in calls if call.f == "enqueue" and call.status != "fail"]
        events += [
            (call.ret or 0, 1, call)
            for call in calls
            if call.f in ("dequeue", "drain") and call.status == "ok"
        ]
        inside: Counter[Any] = Counter()
        for _, out, call in sorted(events, key=lambda event: event[:2]):
            if not out:
                inside[hashable(call.argument)] += 1
                continue
            for element in _taken(call):
                taken_out += 1
                inside[element] -= 1
                if inside[element] < 0:
                    of = f" from {some([key])}" if key is not None else ""
                    sentence = f"{some([element])} came out{of} in {call.span}, and was not in"
                    findings.add("not-in-queue", call.complete.index, sentence)
        if fifo:
            _orders(calls, findings)
    cause = "" if taken_out else "nothing was dequeued: there is nothing to check"
    return findings.verdict(QUEUE, sum(map(len, groups.values())), len(groups), cause)


_NEVER = 1 << 62
_Inside = tuple[int, int, Any]  # was in for certain, may come out from then, element


def _orders(calls: Sequence[Call], findings: Findings) -> None:
    """Elements that came out before others that went in earlier, and dequeues that should have found something."""
    takes = [call for call in calls if call.f in ("dequeue", "drain")]
    out = {element: call for call in takes if call.status != "fail" for element in _taken(call)}
    nameless = any(call.status == "info" and call.result is None for call in takes)
    puts = [
        (hashable(call.argument), call) for call in calls if call.f == "enqueue" and call.status != "fail"
    ]
    times = Counter(element for element, _ in puts)
    puts = [(element, call) for element, call in puts if times[element] == 1]
    inside: list[_Inside] = [
        (call.ret, out[element].call if element in out else _NEVER, element)
        for element, call in puts
        if call.ret is not None and (not nameless or (element in out and out[element].ret is not None))
    ]
    inside.sort(key=lambda item: item[:2])
    lasting = _Lasting(inside)
    for element, call in puts:  # in order of call
        taken = out.get(element)
        if taken is None or taken.ret is None:
            continue
        leaves, other = lasting.longest(call.call)
        if leaves > taken.ret:
            sentence = (
                f"{some([other])} went in before {some([element])}, which came out first, in {taken.span}"
            )
            findings.add("order", taken.complete.index, sentence)
    lasting = _Lasting(inside)
    for call in takes:
        if call.f == "dequeue" and call.status == "ok" and call.result is None:
            leaves, other = lasting.longest(call.call)
            if leaves > (call.ret or _NEVER):
                sentence = (
                    f"{call.span} of process {call.process} found nothing, while {some([other])} was inside"
                )
                findings.add("not-empty", call.complete.index, sentence)


class _Lasting:
    """Of the elements that were in by some time, which is asked for in order, the one that stays longest."""

    def __init__(self, inside: Sequence[_Inside]) -> None:
        self._inside = inside
        self._place = 0
        self._last: tuple[int, Any] = (0, None)

    def longest(self, time: int) -> tuple[int, Any]:
        """When it may come out, and which it is."""
        while self._place < len(self._inside) and self._inside[self._place][0] < time:
            _, leaves, element = self._inside[self._place]
            if leaves > self._last[0]:
                self._last = (leaves, element)
            self._place += 1
        return self._last


def check_total_queue(history: History) -> Verdict:
    """Whether what went in came out once.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    groups = _by_key(history)
    causes = [cause for key, calls in groups.items() if (cause := _total(key, calls, findings))]
    cause = causes[0] if causes else "" if groups else "nothing was enqueued: there is nothing to check"
    return findings.verdict(TOTAL_QUEUE, sum(map(len, groups.values())), len(groups), cause)


def _total(key: Any, calls: Sequence[Call], findings: Findings) -> str:
    """Judge one queue; a sentence where that is not possible."""
    put: Counter[Any] = Counter()
    acknowledged: Counter[Any] = Counter()
    late: Counter[Any] = Counter()  # of these, what went in after the queue was last drained
    out: Counter[Any] = Counter()
    perhaps: Counter[Any] = Counter()
    nameless = 0
    last = 0
    drained = max((call.call for call in calls if _drains(call)), default=-1)
    for call in calls:
        if call.f == "enqueue" and call.status != "fail":
            put[hashable(call.argument)] += 1
            if call.ret is not None:
                acknowledged[hashable(call.argument)] += 1
                late[hashable(call.argument)] += call.ret > drained
        elif call.f in ("dequeue", "drain") and call.status != "fail":
            if call.status == "ok":
                last = max(last, call.complete.index)
                out.update(_taken(call))
            elif call.result is None:
                nameless += 1
            else:
                perhaps.update(_taken(call))
    extra = out - put
    findings.several("unexpected", [e for e in extra if not put[e]] + _too_early(calls), key, last)
    findings.several("duplicated", [e for e in extra if put[e]], key, last)
    findings.count(
        "recovered", sum(min(out[e], put[e]) - acknowledged[e] for e in out if out[e] > acknowledged[e])
    )
    missing = acknowledged - out - perhaps
    if not missing:
        return ""
    inside = missing & late  # or they are lost: nobody looked
    missing -= late
    if not missing:
        return (
            f"the queue {some([key])} was not emptied at the end, and {inside.total()} elements are missing"
        )
    if missing.total() <= nameless:
        return (
            f"{missing.total()} elements of the queue {some([key])} are missing, and {nameless} dequeues without a "
            "known outcome may have taken them"
        )
    findings.several("lost", list(missing), key, last)
    return ""


def _too_early(calls: Sequence[Call]) -> list[Any]:
    """Elements that came out before anybody began to put them in."""
    begun: dict[Any, int] = {}
    for call in calls:  # in order of invocation
        if call.f == "enqueue" and call.status != "fail":
            begun.setdefault(hashable(call.argument), call.call)
    takes = (call for call in calls if call.f in ("dequeue", "drain") and call.status == "ok")
    return [e for call in takes for e in _taken(call) if (call.ret or 0) < begun.get(e, 0)]


def _drains(call: Call) -> bool:
    return call.status == "ok" and (call.f == "drain" or (call.f == "dequeue" and call.result is None))


def _taken(call: Call) -> list[Any]:
    if call.f == "drain" and isinstance(call.result, list | tuple | set | frozenset):
        return [hashable(one) for one in call.result]
    return [] if call.result is None else [hashable(call.result)]


def _by_key(history: History) -> dict[Any, list[Call]]:
    groups: dict[Any, list[Call]] = {}
    for call in calls_of(history):
        if call.f in ("enqueue", "dequeue", "drain"):
            groups.setdefault(hashable(call.key), []).append(call)
    return groups
