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
    session = _Sessions()
    reads = 0
    for call in calls:
        if call.f == "append" and call.status != "fail":
            session.append(call)
        elif call.f == "read" and call.status == "ok":
            reads += 1
            session.read(call)
    for call, values in session.reads:
        session.order(call, values)
    findings = Findings()
    for name, at, sentence in session.found:
        findings.add(name, at, sentence, wrong=name in wanted)
    cause = "" if reads else "no read succeeded: there is nothing to check"
    return findings.verdict(NAME, len(calls), len({hashable(call.key) for call in calls}), cause)


class _Sessions:
    def __init__(self) -> None:
        self.found: list[tuple[str, int, str]] = []
        self.reads: list[tuple[Call, list[Any]]] = []
        self._mine: dict[_Place, list[Any]] = {}
        self._last: dict[_Place, list[Any]] = {}
        self._before: dict[
            tuple[Any, Any], tuple[Any, ...]
        ] = {}  # (key, value) -> values that stand before it

    def append(self, call: Call) -> None:
        key, value = hashable(call.key), hashable(call.argument)
        mine = self._mine.setdefault((call.process, key), [])
        read = self._last.get((call.process, key), [])
        self._before[key, value] = (mine[-1] if mine else None, read[-1] if read else None)
        if call.status == "ok":
            mine.append(value)

    def read(self, call: Call) -> None:
        key = hashable(call.key)
        values = [hashable(value) for value in call.result or ()]
        self.reads.append((call, values))
        place = (call.process, key)
        there = set(values)
        missing = [value for value in self._mine.get(place, ()) if value not in there]
        if missing:
            self._note(
                "read-your-writes", call, f"has not {some(missing)}, which the same process had appended"
            )
        before = self._last.get(place, [])
        if values[: len(before)] != before:
            self._note(
                "monotonic-reads", call, f"is {_end(values)}; the same process had read {_end(before)} before"
            )
        self._last[place] = values

    def order(self, call: Call, values: Sequence[Any]) -> None:
        """What must stand before each value of a list does."""
        key = hashable(call.key)
        place = {value: n for n, value in enumerate(values)}
        for value, n in place.items():
            own, read = self._before.get((key, value), (None, None))
            if own is not None and place.get(own, n) >= n:
                self._note("monotonic-writes", call, f"has {some([value])} without {some([own])} before it")
            if read is not None and place.get(read, n) >= n:
                self._note(
                    "writes-follow-reads", call, f"has {some([value])} without {some([read])} before it"
                )

    def _note(self, name: str, call: Call, what: str) -> None:
        sentence = f"the read {call.span} of process {call.process} of {some([hashable(call.key)])} {what}"
        self.found.append((name, call.complete.index, sentence))


def _end(values: Sequence[Any]) -> str:
    return f"[{'... ' if len(values) > 4 else ''}{some(values[-4:])}]"
