"""Watches: does everybody who watches see every change, once, in order?

Operations
    ``write``   key k, value v: unique values; answered ``[v, revision]`` (or v, which tells less)
    ``watch``   answered ``{"from": a, "to": b, "events": [[revision, key, value], ...]}``: all changes with a revision
                above `a` and up to `b`. A process goes on where it ended; with an argument of 0 it starts at the
                beginning.

Theory of operation
    All events that anybody saw, and all acknowledged writes, by revision, are what happened. Against it, an answer is
    wrong if an event of its range is missing (gap), if its events are not in rising order of revision (order), or not
    of its range (out-of-range), if one revision has two meanings (diverged), or if a value was never written
    (unexpected). If a process begins where
    it has not ended, it has left something out (not-resumed). A node may be late with what it tells, but not leave
    anything out of what it says that it has told.

Rules of this module
    1. Keys are watched together; all watches are of the same keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import History
from checkers.verdict import Verdict

NAME = "watch"


def check_watch(history: History) -> Verdict:
    """Whether watches tell what happened; see the module.

    Raises:
        HistoryError: the history is malformed.
    """
    calls = [call for call in calls_of(history) if call.f in ("write", "watch")]
    findings = Findings()
    watches = [call for call in calls if call.f == "watch" and call.status == "ok"]
    happened = _collect(calls, findings)
    for call in watches:
        _compare(call, happened, findings)
    _resumes(calls, findings)
    _unexpected(calls, watches, findings)
    cause = (
        ""
        if any(call.result["events"] for call in watches)
        else "no watch saw a change: there is nothing to check"
    )
    return findings.verdict(
        NAME, len(calls), len({key for found in happened.values() for key in found}), cause
    )


def _collect(calls: Sequence[Call], findings: Findings) -> dict[int, dict[Any, Any]]:
    """What happened: for each revision, key by key, the value."""
    happened: dict[int, dict[Any, Any]] = {}
    for call in calls:
        for revision, key, raw in _told(call):
            value = hashable(raw)
            known = happened.setdefault(revision, {}).setdefault(hashable(key), value)
            if known != value:
                both = f"{some([known])}, and {some([value])} in {call.span}"
                sentence = f"revision {revision} of {some([key])} is {both}"
                findings.add("diverged", call.complete.index, sentence)
    return happened


def _told(call: Call) -> list[list[Any]]:
    """Events that an answer tells of: revision, key, value."""
    if call.status != "ok":
        return []
    if call.f == "watch":
        events: list[list[Any]] = call.result["events"]
        return events
    match call.result:
        case [value, revision] if hashable(value) == hashable(call.argument):
            return [[revision, call.key, value]]
    return []


def _compare(call: Call, happened: dict[int, dict[Any, Any]], findings: Findings) -> None:
    at = call.complete.index
    where = f"the watch {call.span} of process {call.process}"
    first, last = call.result["from"], call.result["to"]
    revisions = [event[0] for event in call.result["events"]]
    names = [(revision, hashable(key)) for revision, key, _ in call.result["events"]]
    if revisions != sorted(revisions) or len(set(names)) != len(names):
        findings.add("order", at, f"{where} has the revisions {some(revisions)}")
    outside = [revision for revision in revisions if not first < revision <= last]
    if outside:
        findings.add("out-of-range", at, f"{where} of ({first}, {last}] has {some(outside)}")
    there = set(names)
    missing = [
        revision
        for revision in sorted(happened)
        if first < revision <= last and any((revision, key) not in there for key in happened[revision])
    ]
    if missing:
        findings.add("gap", at, f"{where} of ({first}, {last}] has not {some(missing)}, which others saw")


def _resumes(calls: Sequence[Call], findings: Findings) -> None:
    ended: dict[int, int] = {}
    for call in calls:
        if call.f != "watch" or call.status == "fail":
            continue
        if call.status == "info":  # it may have ended anywhere
            ended.pop(call.process, None)
            continue
        first = call.result["from"]
        before = ended.get(call.process)
        if call.argument is None and before is not None and before != first:
            sentence = f"{call.span} of process {call.process} begins after {first}, and it was at {before}"
            findings.add("not-resumed", call.complete.index, sentence)
        ended[call.process] = call.result["to"]


def _unexpected(calls: Sequence[Call], watches: Sequence[Call], findings: Findings) -> None:
    """Events with values that nobody wrote."""
    written = {hashable(call.argument) for call in calls if call.f == "write" and call.status != "fail"}
    for call in watches:
        strange = [
            value
            for _, _, raw in call.result["events"]
            if (value := hashable(raw)) is not None and value not in written
        ]
        findings.several("unexpected", strange, None, call.complete.index)
