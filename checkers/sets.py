"""Sets: was every element that was added seen again?

`set` looks at the last read only, and at what was added before that. `set-full` looks at all of them, and says of
every element when it became visible for good, or was lost.

Theory of operation of set-full
    An element is *known* once its add was acknowledged, or once a read saw it. A read that began after that must have
    it. By the reads that began after it was known:

    stable      the last of them has it. Its *stable latency* is how long, after it was known, a read could still
                begin that had it not: 0 in a linearizable set. A stable element with a latency above 0 is *stale*.
    lost        the last of them has it not: its *lost latency* is how long after it was known it was last missed
                for the first time.
    never read  there is no such read. Nothing follows.

    ``linearizable`` (the default) makes stale elements invalid; without it they are only counted. Elements that
    nobody had begun to add, and elements that one read has twice, are always invalid. An add without a known outcome
    may be seen or not; once it was seen it must stay.

Rules of this module
    1. Keys are sets of their own.
    2. A history without an ok read, or in which no element could be judged, or that removes some, is ``unknown``.
    3. Of an element that was added several times the add counts that tells most: it is known from the first that was
       acknowledged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from checkers.calls import Call, calls_of, hashable, seconds
from checkers.findings import Findings, some
from checkers.history import History, Op
from checkers.verdict import Verdict

SET = "set"
SET_FULL = "set-full"
_NEVER = 1 << 62


def check_set(history: History) -> Verdict:
    """Whether the last ok read of each key has all that was acknowledged before it, and nothing but attempted elements.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    unread = []
    calls = calls_of(history)
    if _removes(calls):
        return _unjudged(SET, calls)
    groups = _by_key(calls)
    for key, calls in groups.items():
        final = next((call for call in reversed(calls) if call.f == "read" and call.status == "ok"), None)
        if final is None:
            unread.append(key)
            continue
        seen = findings.seen(final)
        if seen is None:
            continue
        there = Counter(map(hashable, seen))
        adds = [(hashable(call.argument), call) for call in calls if call.f == "add"]
        possible = dict.fromkeys(
            element for element, call in adds if call.status != "fail" and call.call < (final.ret or 0)
        )
        acknowledged = dict.fromkeys(
            element for element, call in adds if call.status == "ok" and (call.ret or 0) < final.call
        )
        at = final.complete.index
        findings.several("lost", [e for e in acknowledged if e not in there], key, at)
        findings.several("unexpected", [e for e in there if e not in possible], key, at)
        findings.several("duplicated", [e for e, count in there.items() if count > 1], key, at)
        findings.count("recovered", sum(e in there and e not in acknowledged for e in possible))
    named = f"the set {some(unread)} was never read" if unread and unread != [None] else "no read succeeded"
    cause = f"{named}: there is nothing to check" if unread or not groups else ""
    return findings.verdict(SET, sum(map(len, groups.values())), len(groups), cause)


@dataclass(slots=True)
class _Element:
    """What is known of an element: when it was known, and the reads that began after that."""

    status: str
    begun: int = _NEVER  # when it was first added by an operation that did not fail
    known: int | None = None
    shown: Op | None = None  # the completion by which it was known
    seen: Call | None = None  # the last read, by invocation, that has it
    missed: Call | None = None  # the last read, by invocation, that has it not although it was known


@dataclass(slots=True)
class _Set:
    """One key's elements and what became of them."""

    elements: dict[Any, _Element] = field(default_factory=dict)
    stable_ms: list[float] = field(default_factory=list)
    lost_ms: list[float] = field(default_factory=list)


def check_set_full(history: History, *, linearizable: bool = True) -> Verdict:
    """What became of every element; see the module.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    stable_ms: list[float] = []
    lost_ms: list[float] = []
    calls = calls_of(history)
    if _removes(calls):
        return _unjudged(SET_FULL, calls)
    groups = _by_key(calls)
    for key, calls in groups.items():
        one = _go_through(key, calls, findings)
        _judge(key, one, findings, linearizable=linearizable, timed=history.timed)
        stable_ms += one.stable_ms
        lost_ms += one.lost_ms
    judged = findings.counts.get("stable", 0) + findings.counts.get("lost", 0)
    cause = "" if judged else "no element was read after it was known to be added: there is nothing to check"
    notes = [
        f"{name} latency, ms: " + "  ".join(f"p{q} {_quantile(found, q):.1f}" for q in (50, 95, 100))
        for name, found in (("stable", stable_ms), ("lost", lost_ms))
        if any(found) and history.timed
    ]
    return findings.verdict(SET_FULL, sum(map(len, groups.values())), len(groups), cause, notes)


def _removes(calls: Sequence[Call]) -> bool:
    return any(call.f == "remove" and call.status != "fail" for call in calls)


def _unjudged(checker: str, calls: Sequence[Call]) -> Verdict:
    cause = "the history removes elements, and this checker looks for those that are gone; --model set knows remove"
    return Verdict(valid="unknown", checker=checker, operations=len(calls), cause=cause)


def _by_key(calls: Sequence[Call]) -> dict[Any, list[Call]]:
    groups: dict[Any, list[Call]] = {}
    for call in calls:
        if call.f in ("add", "read"):
            groups.setdefault(hashable(call.key), []).append(call)
    return groups


def _go_through(key: Any, calls: Sequence[Call], findings: Findings) -> _Set:
    one = _Set(_added(calls))
    reads: list[tuple[Call, set[Any]]] = []
    for call in calls:
        if call.f == "read" and call.status == "ok" and (seen := findings.seen(call)) is not None:
            there = [hashable(value) for value in seen]
            inside = set(there)
            reads.append((call, inside))
            at = call.complete.index
            if len(inside) < len(there):
                findings.several("duplicated", [e for e, n in Counter(there).items() if n > 1], key, at)
            strange = [e for e in there if e not in one.elements or (call.ret or 0) < one.elements[e].begun]
            findings.several("unexpected", strange, key, at)
    for call, inside in sorted(reads, key=lambda read: read[0].ret or 0):
        for element in inside:  # known by the first read that has it, if no add was acknowledged before
            found = one.elements.get(element)
            if found is not None and (found.known is None or (call.ret or 0) < found.known):
                found.known, found.shown = call.ret, call.complete
    _reads_after(one, reads)
    return one


def _added(calls: Sequence[Call]) -> dict[Any, _Element]:
    """The elements that were added, and since when that is known: see rule 3."""
    elements: dict[Any, _Element] = {}
    for call in calls:
        if call.f == "add":
            one = elements.setdefault(hashable(call.argument), _Element(call.status))
            if call.status != "fail" and one.status != "ok":
                one.status = call.status
            if call.status != "fail":
                one.begun = min(one.begun, call.call)
            if call.status == "ok" and (one.known is None or (call.ret or 0) < one.known):
                one.known, one.shown = call.ret, call.complete
    return elements


def _reads_after(one: _Set, reads: Sequence[tuple[Call, set[Any]]]) -> None:
    """For each element the last reads, by invocation, that have it and have it not."""
    waiting = sorted(
        (found.known, e) for e, found in enumerate(one.elements.values()) if found.known is not None
    )
    elements = list(one.elements.items())
    known: dict[Any, _Element] = {}
    place = 0
    for call, inside in reads:  # in order of invocation
        while place < len(waiting) and waiting[place][0] < call.call:
            element, found = elements[waiting[place][1]]
            known[element] = found
            place += 1
        missed = known.keys() - inside if len(inside) < len(known) or not inside >= known.keys() else ()
        for element in missed:
            known[element].missed = call
        for element in inside:
            if element in known:
                known[element].seen = call


def _judge(key: Any, one: _Set, findings: Findings, *, linearizable: bool, timed: bool) -> None:
    for element, found in one.elements.items():
        if found.shown is None or (found.seen is None and found.missed is None):
            findings.count("never-read" if found.status != "fail" else "failed", 1)
            continue
        missed = found.missed
        late_ms = max(0.0, (missed.invoke.time_ns - found.shown.time_ns) / 1e6) if missed is not None else 0.0
        lost = missed is not None and (found.seen is None or found.seen.call < missed.call)
        (one.lost_ms if lost else one.stable_ms).append(late_ms)
        if not lost:
            findings.count("stable", 1)
        if missed is not None:
            known = f"at {seconds(found.shown)}" if timed else f"with [{found.shown.index}]"
            begun = f", begun {late_ms:.1f} ms later," if timed else ", begun after that,"
            sentence = (
                f"{_named(element, key)} was known {known}; the read {missed.span} of process {missed.process}"
                f"{begun} has it not" + (", nor have later ones" if lost else "")
            )
            findings.add(
                "lost" if lost else "stale", missed.complete.index, sentence, wrong=lost or linearizable
            )


def _named(element: Any, key: Any) -> str:
    return f"{some([element])}" + (f" of {some([key])}" if key is not None else "")


def _quantile(found: Sequence[float], percent: int) -> float:
    ordered = sorted(found)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
