"""Session guarantees (Terry et al., "Session guarantees for weakly consistent replicated data", 1994).

Theory of operation
    A process is a session. Keys are lists that only grow: ``append`` puts a unique value at the end, ``read`` gives
    the list. So a read tells which writes it has seen, and in which order they were done.

    read-your-writes      a read of a key has what its own session has appended to the key before
    monotonic-reads       it begins with what its own session has read of the key before
    monotonic-writes      appends of one session to a key are in every list in their order, the later never without
                          the earlier
    writes-follow-reads   what a session appended to a key after it had read it stands, in every list, behind what it
                          had read

    Each of the four is looked for by itself; `guarantees` says which count. A session ends with an operation of
    unknown outcome, as processes do; what it has appended for certain before must be where it belongs all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import CheckerCallError, History
from checkers.verdict import Verdict

NAME = "session"
GUARANTEES = ("read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads")

_Place = tuple[int, Any]  # process, key


def check_sessions(history: History, *, guarantees: str = "+".join(GUARANTEES)) -> Verdict:
    """Whether every session has the guarantees, whose names are joined by ``+``.

    Raises:
        HistoryError: the history is malformed.
        CheckerCallError: there is no such guarantee.
    """
    wanted = guarantees.split("+")
    for name in wanted:
        if name not in GUARANTEES:
            raise CheckerCallError(f"unknown session guarantee {name!r}; there are {', '.join(GUARANTEES)}")
    calls = calls_of(history)
    findings = Findings()
    session = _Sessions()
    reads = 0
    for call in calls:
        if call.f == "append" and call.status != "fail":
            session.append(call)
        elif call.f == "read" and call.status == "ok":
            reads += 1
            values = findings.seen(call)
            if values is not None:
                session.read(call, [hashable(value) for value in values])
    session.fit()
    for call, seen in session.reads:
        session.order(call, seen)
    for name, at, sentence in session.found:
        findings.add(name, at, sentence, wrong=name in wanted)
    cause = "" if reads else "no read succeeded: there is nothing to check"
    return findings.verdict(NAME, len(calls), len({hashable(call.key) for call in calls}), cause)


@dataclass(slots=True)
class _List:
    """What was read, and whether it is the beginning of the longest list of its key."""

    values: list[Any] = field(default_factory=list)
    fits: bool = False


class _Sessions:
    def __init__(self) -> None:
        self.found: list[tuple[str, int, str]] = []
        self.reads: list[tuple[Call, _List]] = []
        self._mine: dict[_Place, list[Any]] = {}
        self._last: dict[_Place, _List] = {}
        # (key, value) -> what stands before it: the last one of its session, and what that had read
        self._before: dict[tuple[Any, Any], tuple[Any, _List]] = {}

    def append(self, call: Call) -> None:
        key, value = hashable(call.key), hashable(call.argument)
        mine = self._mine.setdefault((call.process, key), [])
        self._before[key, value] = (mine[-1] if mine else None, self._last.get((call.process, key), _List()))
        if call.status == "ok":
            mine.append(value)

    def read(self, call: Call, values: list[Any]) -> None:
        key = hashable(call.key)
        seen = _List(values)
        self.reads.append((call, seen))
        place = (call.process, key)
        there = set(values)
        missing = [value for value in self._mine.get(place, ()) if value not in there]
        if missing:
            self._note(
                "read-your-writes", call, f"has not {some(missing)}, which the same process had appended"
            )
        before = self._last[place].values if place in self._last else []
        if values[: len(before)] != before:
            self._note(
                "monotonic-reads", call, f"is {_end(values)}; the same process had read {_end(before)} before"
            )
        self._last[place] = seen

    def fit(self) -> None:
        """Compare all lists of a key with its longest."""
        longest: dict[Any, list[Any]] = {}
        for call, seen in self.reads:
            key = hashable(call.key)
            if len(seen.values) > len(longest.get(key, ())):
                longest[key] = seen.values
        for call, seen in self.reads:
            seen.fits = longest.get(hashable(call.key), [])[: len(seen.values)] == seen.values

    def order(self, call: Call, seen: _List) -> None:
        """What must stand before each value of a list does."""
        key = hashable(call.key)
        place: dict[Any, int] = {}
        for n, value in enumerate(seen.values):
            place.setdefault(value, n)
        for value, n in place.items():
            own, before = self._before.get((key, value), (None, _List()))
            if own is not None and place.get(own, n) >= n:
                self._note("monotonic-writes", call, f"has {some([value])} without {some([own])} before it")
            if seen.fits and before.fits and len(before.values) <= n:
                continue  # both begin as the longest list does, so what it had read is what this one begins with
            missing = [one for one in before.values if place.get(one, n) >= n]
            if missing:
                self._note(
                    "writes-follow-reads", call, f"has {some([value])} without {some(missing)} before it"
                )

    def _note(self, name: str, call: Call, what: str) -> None:
        sentence = f"the read {call.span} of process {call.process} of {some([hashable(call.key)])} {what}"
        self.found.append((name, call.complete.index, sentence))


def _end(values: Sequence[Any]) -> str:
    return f"[{'... ' if len(values) > 4 else ''}{some(values[-4:])}]"
