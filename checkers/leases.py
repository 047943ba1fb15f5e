"""Leases: is what a lease keeps there for as long as it was promised, and gone once the lease was given back?

Operations, of a key that one process at a time holds
    ``hold``   makes a lease of `ttl_ms` and puts the key with it
    ``renew``  keeps the lease alive for another `ttl_ms`
    ``drop``   gives the lease back: the key goes with it
    ``look``   reads the key: null where it is absent, else the lease's name

Theory of operation
    A lease that was made, or renewed, by an operation which began at t is promised until t + ttl: the store cannot
    have counted from an earlier time. A ``look`` within that time that finds nothing shows a lease that ended too
    early (expired-early), unless somebody tried to hold or drop the key meanwhile. Nor is a hold judged after which
    another one may have put the key with its own lease: one that went on when it began, or one of unknown outcome,
    which may do so as long as its lease lives, for which twice its time is allowed. A ``look`` that began after a drop
    had succeeded must not find that lease (alive-after-drop). How long a lease lives beyond its time is not judged:
    that clocks may stand still is what makes leases safe.

Rules of this module
    1. Times are those of the history, from the harness' one clock. A history without times is ``unknown``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import History
from checkers.verdict import Verdict

NAME = "lease"
_FS = ("hold", "renew", "drop", "look")
_LATE = 2
_NEVER_NS = 1 << 62


def check_lease(history: History, *, ttl_ms: int = 2000) -> Verdict:
    """Whether leases are kept; see the module.

    Raises:
        HistoryError: the history is malformed.
    """
    calls = [call for call in calls_of(history) if call.f in _FS]
    findings = Findings()
    groups: dict[Any, list[Call]] = {}
    for call in calls:
        groups.setdefault(hashable(call.key), []).append(call)
    judged = (
        sum(_judge(group, findings, ttl_ms * 1_000_000) for group in groups.values()) if history.timed else 0
    )
    why = "no look fell into the time of a lease" if history.timed else "the history has no times"
    return findings.verdict(
        NAME, len(calls), len(groups), "" if judged else f"{why}: there is nothing to check"
    )


def _judge(calls: Sequence[Call], findings: Findings, ttl_ns: int) -> int:
    """Judge one key; how many looks fell into the time of a lease."""
    judged = 0
    for look in calls:
        if look.f != "look" or look.status != "ok":
            continue
        hold = _held(calls, look, ttl_ns)
        if hold is not None:
            until_ns = _until_ns(calls, hold, look, ttl_ns)
            if look.complete.time_ns < until_ns:
                judged += 1
                if look.result is None:
                    _note_early(findings, hold, look, until_ns)
        if look.result is not None:
            dropped = next((one for one in calls if _dropped(one, look)), None)
            if dropped is not None:
                what = some([hashable(look.result)])
                sentence = (
                    f"{look.span} of process {look.process} found {what}, which {dropped.span} had dropped"
                )
                findings.add("alive-after-drop", look.complete.index, sentence)
    return judged


def _held(calls: Sequence[Call], look: Call, ttl_ns: int) -> Call | None:
    """The hold that is in force for certain while the look goes on."""
    last = None
    done, late_ns = -1, -1  # until when holds before it may still have put the key with their lease
    for call in calls:
        if call.f not in ("hold", "drop") or call.status == "fail" or call.call >= (look.ret or look.call):
            continue
        firm = call.f == "hold" and call.ret is not None and call.ret < look.call
        last = call if firm and call.call > done and call.invoke.time_ns > late_ns else None
        if call.f == "hold" and call.ret is not None:
            done = max(done, call.ret)
        elif call.f == "hold":
            over = call.complete is not call.invoke
            late_ns = max(late_ns, call.complete.time_ns + _LATE * ttl_ns if over else _NEVER_NS)
    return last


def _until_ns(calls: Sequence[Call], hold: Call, look: Call, ttl_ns: int) -> int:
    since_ns = hold.invoke.time_ns
    for call in calls:
        renewed = call.f == "renew" and call.status == "ok" and hashable(call.result) == hashable(hold.result)
        if renewed and hold.call < call.call and call.ret is not None and call.ret < look.call:
            since_ns = max(since_ns, call.invoke.time_ns)
    return since_ns + ttl_ns


def _dropped(call: Call, look: Call) -> bool:
    if call.f != "drop" or call.status != "ok" or call.ret is None or call.ret > look.call:
        return False
    return hashable(call.result) == hashable(look.result)


def _note_early(findings: Findings, hold: Call, look: Call, until_ns: int) -> None:
    left_ms = (until_ns - look.complete.time_ns) / 1e6
    where = some([hashable(look.key)])
    sentence = (
        f"{look.span} of process {look.process} found nothing at {where}, {left_ms:.0f} ms before the lease of "
        f"{hold.span} could end"
    )
    findings.add("expired-early", look.complete.index, sentence)
