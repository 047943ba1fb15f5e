"""Logs as of Kafka: what is sent gets an offset, and is polled in the order of offsets, by everybody.

Operations
    ``send``    key k, value v: answered ``[offset, v]``
    ``poll``    answered ``{key: [[offset, value], ...]}``
    ``txn``     a list of ``["send", key, value]`` and ``["poll"]``, answered ``["send", key, [offset, value]]`` and
                ``["poll", {key: [[offset, value], ...]}]``: all sends or none
    ``assign``  value is a list of keys: from now on the process polls these, from where its group is or from the start

Theory of operation
    All offsets seen, by senders and by pollers, make one order for each key. Against it:

    inconsistent-offsets   two values at one offset
    duplicate              one value at two offsets
    aborted-read           a poll has a value whose send failed; unexpected: that nobody sent
    lost-write             a value that was acknowledged was never polled, and one at a later offset was
    poll-skip, nonmonotonic-poll
                           successive polls of a process leave out offsets that exist, or go back; with ``int-`` before
                           it, within one operation. A new assignment begins anew.
    nonmonotonic-send      successive sends of a process to one key get falling offsets (with ``int-`` likewise)
    G0, G1c                transactions that are before each other by the order of their sends, or by who polled whom

    Values that were acknowledged and that nobody has polled, nor anything after them, are unseen: counted, not wrong,
    since the reader may just not have come that far.

Rules of this module
    1. Values are unique in a key.
    2. Offsets may have holes, as Kafka's have.
    3. Keys are compared as text, since those of JSON objects are text: the polls of key 1 stand under "1".
    4. After a poll of unknown outcome nobody knows where its process is: its next poll begins anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.cycles import find_cycles
from checkers.dependency import WR, WW, Graph
from checkers.findings import Findings, some
from checkers.history import History
from checkers.values import show
from checkers.verdict import Verdict

NAME = "log"


def check_log(history: History) -> Verdict:
    """Whether the logs are what they should be; see the module.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    calls = [call for call in calls_of(history) if call.f in ("send", "poll", "txn", "assign")]
    logs = _Logs(calls, findings)
    logs.collect()
    logs.compare_offsets()
    logs.lost()
    logs.follow()
    logs.cycles()
    cause = "" if logs.polled else "nothing was polled: there is nothing to check"
    return findings.verdict(NAME, len(calls), len(logs.offsets), cause)


def _mops(call: Call) -> Iterator[tuple[str, Any, Any]]:
    """``("send", key, (offset, value))`` and ``("poll", key, [(offset, value), ...])``; offset None if not known."""
    done = call.status == "ok"
    if call.f == "send":
        yield "send", _name(call.key), _sent(call.result if done else call.argument, done=done)
    elif call.f == "poll":
        yield from _polls(call.result if done else None)
    elif call.f == "txn":
        for op in (call.result if done else call.argument) or ():
            if op[0] == "send":
                yield "send", _name(op[1]), _sent(op[2], done=done)
            elif done:
                yield from _polls(op[1])


def _name(key: Any) -> str:
    return key if isinstance(key, str) else show(hashable(key))


def _sent(value: Any, *, done: bool) -> tuple[Any, Any]:
    if done and isinstance(value, list | tuple):
        return value[0], hashable(value[1])
    return None, hashable(value)


def _polls(result: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(result, Mapping):
        for key, messages in result.items():
            yield "poll", _name(key), [(offset, hashable(value)) for offset, value in messages]


class _Logs:
    def __init__(self, calls: Sequence[Call], findings: Findings) -> None:
        self._calls = calls
        self._findings = findings
        self.offsets: dict[
            Any, dict[int, dict[Any, int]]
        ] = {}  # key -> offset -> value -> line by which it is known
        self.polled: dict[Any, dict[Any, int]] = {}  # key -> value -> node that polled it first
        self._highest: dict[Any, tuple[int, Call]] = {}  # key -> highest offset polled, by whom
        self._sender: dict[tuple[Any, Any], int] = {}

    def collect(self) -> None:
        """What was sent, and what was polled."""
        for node, call in enumerate(self._calls):
            for f, key, what in _mops(call):
                if f == "send":
                    offset, value = what
                    self._sender[key, value] = node
                    self.offsets.setdefault(key, {})
                    if offset is not None:
                        self.offsets[key].setdefault(offset, {}).setdefault(value, call.complete.index)
        for node, call in enumerate(self._calls):
            for f, key, what in _mops(call):
                if f == "poll":
                    for offset, value in what:
                        self._poll(node, call, key, offset, value)

    def _poll(self, node: int, call: Call, key: Any, offset: int, value: Any) -> None:
        at = call.complete.index
        self.offsets.setdefault(key, {}).setdefault(offset, {}).setdefault(value, at)
        self.polled.setdefault(key, {}).setdefault(value, node)
        if key not in self._highest or offset > self._highest[key][0]:
            self._highest[key] = (offset, call)
        sender = self._sender.get((key, value))
        where = f"{call.span} of process {call.process} polled {some([value])} from {some([key])}"
        if sender is None:
            self._findings.add("unexpected", at, f"{where}, which nobody sent")
        elif self._calls[sender].status == "fail":
            self._findings.add("aborted-read", at, f"{where}, whose send {self._calls[sender].span} failed")

    def compare_offsets(self) -> None:
        """One value at an offset, one offset for a value."""
        for key, offsets in self.offsets.items():
            first: dict[Any, int] = {}
            for offset, values in sorted(offsets.items()):
                if len(values) > 1:
                    sentence = f"offset {offset} of {some([key])} has {some(list(values))}"
                    self._findings.add("inconsistent-offsets", max(values.values()), sentence)
                for value, at in values.items():
                    if first.setdefault(value, offset) != offset:
                        sentence = (
                            f"{some([value])} is at the offsets {first[value]} and {offset} of {some([key])}"
                        )
                        self._findings.add("duplicate", at, sentence)

    def lost(self) -> None:
        """What was acknowledged, and passed over by every poll."""
        for (key, value), node in self._sender.items():
            call = self._calls[node]
            if call.status != "ok" or value in self.polled.get(key, {}):
                continue
            offset = next((o for f, k, (o, v) in _sends(call) if k == key and v == value), None)
            highest, by = self._highest.get(key, (-1, None))
            if offset is None or by is None or offset >= highest:
                self._findings.count("unseen", 1)
                continue
            sentence = (
                f"{some([value])} was sent to offset {offset} of {some([key])} in {call.span}, and never polled; "
                f"{by.span} polled up to offset {highest}"
            )
            self._findings.add("lost-write", max(call.complete.index, by.complete.index), sentence)

    def follow(self) -> None:
        """How each process goes through the logs."""
        order = {
            key: {offset: n for n, offset in enumerate(sorted(found))} for key, found in self.offsets.items()
        }
        polls: dict[tuple[int, Any], int] = {}
        sends: dict[tuple[int, Any], int] = {}
        for call in self._calls:
            if call.f == "assign" or (call.status == "info" and call.f != "send"):
                for place in [place for place in polls if place[0] == call.process]:
                    del polls[place]
            if call.status != "ok":
                continue
            in_polls: set[Any] = set()
            in_sends: set[Any] = set()
            for f, key, what in _mops(call):
                place = (call.process, key)
                if f == "poll":
                    for offset, _ in what:
                        self._step(call, key, order[key], polls.get(place), offset, inside=key in in_polls)
                        polls[place] = offset
                        in_polls.add(key)
                elif what[0] is not None:
                    before = sends.get(place)
                    if before is not None and what[0] <= before:
                        name = "int-nonmonotonic-send" if key in in_sends else "nonmonotonic-send"
                        sentence = (
                            f"{call.span} of process {call.process} sent to {key} at {what[0]} after {before}"
                        )
                        self._findings.add(name, call.complete.index, sentence)
                    sends[place] = what[0]
                    in_sends.add(key)

    def _step(
        self, call: Call, key: Any, order: Mapping[int, int], before: int | None, offset: int, *, inside: bool
    ) -> None:
        if before is None or order[offset] == order[before] + 1:
            return
        name = "nonmonotonic-poll" if offset <= before else "poll-skip"
        sentence = f"{call.span} of process {call.process} polled {some([key])} at {offset} after {before}"
        self._findings.add(f"int-{name}" if inside else name, call.complete.index, sentence)

    def cycles(self) -> None:
        """Who is before whom by sends and polls."""
        graph = Graph(len(self._calls))
        for key, offsets in self.offsets.items():
            values = [next(iter(found)) for _, found in sorted(offsets.items())]
            senders = [self._sender[key, value] for value in values if (key, value) in self._sender]
            for first, second in itertools.pairwise(senders):
                graph.add(first, second, WW, key)
        for node, call in enumerate(self._calls):
            for f, key, what in _mops(call):
                if f == "poll" and what:
                    sender = self._sender.get((key, what[-1][1]))
                    if sender is not None:
                        graph.add(sender, node, WR, key)
        found, _ = find_cycles(graph)
        for cycle in found:
            shown = " -> ".join(f"{self._calls[edge.first].span} -{edge.name}" for edge in cycle.edges)
            at = max(self._calls[node].complete.index for node in cycle.nodes)
            self._findings.add(cycle.name, at, f"{shown} -> {self._calls[cycle.nodes[0]].span}")


def _sends(call: Call) -> Iterator[tuple[str, Any, Any]]:
    return (mop for mop in _mops(call) if mop[0] == "send")
